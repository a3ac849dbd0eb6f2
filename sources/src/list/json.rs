//! Lists as JSON: one value that is walked as it comes, whatever its size and shape, or a value on each line.
//!
//! In each object the string under the key for links is taken, with the one under the key for hashes. Where no key was
//! named it is the first of the usual ones that the object has; an object with none gives each of its strings that is a
//! link. Strings that stand in arrays without a key above them are links, too.

use super::columns::{ColumnNames, listed};
use super::error::ListError;
use super::intake::{BEGINNING_BYTES, Intake, too_long};
use super::lines::{Line, Lines};
use super::table::{ROW_BYTES_MAX, is_blank_or_comment};
use common::link::canonical_url;
use encoding_rs_io::DecodeReaderBytesBuilder;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, BufReader, Read};

/// What one read brings at most.
const READ_BYTES: usize = 128 << 10;

/// The longest piece of JSON without a key or value of its own, such as one string; as long as a row of a table.
const PIECE_BYTES_MAX: usize = ROW_BYTES_MAX;

/// Links of one object that wait for its end, in case it has a hash. Those of one with more have none.
const LINKS_OF_OBJECT_MAX: usize = 256;

/// So many keys are remembered, to be named when none of them fits.
const KEYS_MAX: usize = 20;

/// Reads one JSON value, or several behind each other. Its bad lines are numbered by the item of the outermost array, from
/// 1: often all of it is on one line.
///
/// # Errors
/// The reader's, what is no JSON, and a value in which no link was found.
pub(super) fn read(reader: impl Read, wanted: &ColumnNames, intake: &Intake<'_>) -> Result<(), ListError> {
    let walk = Walk::new(wanted, intake, true);
    // Bytes that are no UTF-8 are replaced, since the parser would end there; links with the replacement are refused.
    let reader = DecodeReaderBytesBuilder::new().encoding(Some(encoding_rs::UTF_8)).build(reader);
    let reader = Pieces { reader, since_progress: &walk.since_progress };
    let mut json = serde_json::Deserializer::from_reader(BufReader::with_capacity(READ_BYTES, reader));
    loop {
        let result = (Value { walk: &walk, place: Place::Root }).deserialize(&mut json);
        if intake.is_closed() {
            return Ok(());
        }
        result.map_err(|error| not_json(error).after("item", walk.number.get()))?;
        match json.end() {
            Ok(()) => return walk.complain_if_nothing_was_found(),
            Err(error) if error.is_io() => return Err(not_json(error).after("item", walk.number.get())),
            // Another value.
            Err(_) => {}
        }
    }
}

/// Reads a value on each line.
///
/// # Errors
/// The reader's, and a list in which no link was found.
pub(super) fn read_lines(reader: impl Read, wanted: &ColumnNames, intake: &Intake<'_>) -> Result<(), ListError> {
    let walk = Walk::new(wanted, intake, false);
    let mut lines = Lines::new(reader, ROW_BYTES_MAX);
    let mut line = Vec::new();
    while !intake.is_closed() {
        line.clear();
        let number = lines.number();
        let how = lines.next(&mut line).map_err(|error| ListError::from(error).after("line", number))?;
        let number = lines.number();
        walk.number.set(number);
        match how {
            Line::End => break,
            Line::TooLong => intake.bad_row(number, &line[..BEGINNING_BYTES], &too_long(ROW_BYTES_MAX)),
            Line::Whole if is_blank_or_comment(&line) => {}
            Line::Whole => read_line(&walk, &line),
        }
    }
    walk.complain_if_nothing_was_found()
}

fn read_line(walk: &Walk<'_>, line: &[u8]) {
    let Ok(text) = std::str::from_utf8(line) else {
        return walk.intake.bad_row(walk.number.get(), line, "not UTF-8 text");
    };
    let before = walk.seen.get();
    let mut json = serde_json::Deserializer::from_str(text);
    let result = (Value { walk, place: Place::Root }).deserialize(&mut json).and_then(|()| json.end());
    if let Err(error) = result {
        walk.intake.bad_row(walk.number.get(), line, &format!("not JSON ({})", without_place(&error)));
    } else if walk.seen.get() == before {
        walk.intake.bad_row(walk.number.get(), line, &walk.nothing());
    }
}

fn not_json(error: serde_json::Error) -> ListError {
    if error.is_io() {
        return io::Error::from(error).into();
    }
    let place = format!("line {}, column {}", error.line(), error.column());
    let why = format!("not JSON: {} ({place})", without_place(&error));
    ListError::with_hint(why, "for a value on each line, --list-format jsonl")
}

/// The parser's words without ` at line 1 column 9`.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

/// Refuses to read on when the parser got nothing out of what it had for too long: it holds a string until its end.
struct Pieces<'a, R> {
    reader: R,
    since_progress: &'a Cell<usize>,
}

impl<R: Read> Read for Pieces<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.since_progress.get() > PIECE_BYTES_MAX + READ_BYTES {
            return Err(io::Error::other(format!("a string {}", too_long(PIECE_BYTES_MAX))));
        }
        let bytes = self.reader.read(into)?;
        self.since_progress.set(self.since_progress.get() + bytes);
        Ok(bytes)
    }
}

/// A walk through JSON.
struct Walk<'a> {
    wanted: &'a ColumnNames,
    intake: &'a Intake<'a>,
    /// Whether items of the outermost arrays are counted; else somebody else sets the number.
    counts_items: bool,
    /// Of the item or line.
    number: Cell<u64>,
    arrays_open: Cell<u32>,
    /// Links, and what stands where one should, blank or not.
    seen: Cell<u64>,
    since_progress: Cell<usize>,
    keys: RefCell<Vec<String>>,
}

impl<'a> Walk<'a> {
    fn new(wanted: &'a ColumnNames, intake: &'a Intake<'a>, counts_items: bool) -> Walk<'a> {
        Walk {
            wanted,
            intake,
            counts_items,
            number: Cell::new(0),
            arrays_open: Cell::new(0),
            seen: Cell::new(0),
            since_progress: Cell::new(0),
            keys: RefCell::default(),
        }
    }

    /// What a value under a key may be.
    fn meaning(&self, key: &str) -> Meaning {
        if self.seen.get() == 0 {
            let mut keys = self.keys.borrow_mut();
            if keys.len() < KEYS_MAX && !keys.iter().any(|known| known == key) {
                keys.push(key.to_owned());
            }
        }
        if self.wanted.is_hash(key) {
            return Meaning::Hash;
        }
        match self.wanted.rank(key) {
            Some(rank) => Meaning::Link(rank),
            None if self.wanted.url.is_some() => Meaning::Nothing,
            None => Meaning::LinkIfItIsOne,
        }
    }

    fn link(&self, url: &str, sha256: Option<&str>) {
        self.seen.set(self.seen.get() + 1);
        self.intake.link(self.number.get(), url.as_bytes(), sha256.map(str::as_bytes));
    }

    fn nothing(&self) -> String {
        match &self.wanted.url {
            Some(key) => format!("no \"{}\" in it", crate::error::shown(key)),
            None => "no link in it".to_owned(),
        }
    }

    fn complain_if_nothing_was_found(&self) -> Result<(), ListError> {
        let keys = self.keys.borrow();
        if self.seen.get() > 0 || keys.is_empty() || self.intake.is_closed() {
            return Ok(());
        }
        Err(ListError::with_hint(
            format!("{}; its keys are {}", self.nothing(), listed(&keys)),
            "say under which key the links are with --url-column NAME",
        ))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// A link, or what should be one. The lower the number, the more it is meant.
    Link(usize),
    LinkIfItIsOne,
    Hash,
    Nothing,
}

/// Where a value stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// It is the whole.
    Root,
    /// In an array, in which strings mean this.
    Item(Meaning),
}

fn is_link(text: &str) -> bool {
    canonical_url(text).is_ok()
}

/// Any value but a member of an object: what it holds is handed in.
struct Value<'w, 'a> {
    walk: &'w Walk<'a>,
    place: Place,
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let meaning = match self.place {
            Place::Root => Meaning::Link(0),
            Place::Item(meaning) => meaning,
        };
        let is_root = matches!(self.place, Place::Root);
        let text = deserializer.deserialize_any(Walker { walk: self.walk, meaning, is_root })?;
        if let Some(text) = text {
            self.walk.link(&text, None);
        }
        Ok(())
    }
}

/// A member of an object: a string that may be wanted is given back, to be looked at when the whole object is known.
struct Member<'w, 'a> {
    walk: &'w Walk<'a>,
    meaning: Meaning,
}

impl<'de> DeserializeSeed<'de> for Member<'_, '_> {
    type Value = Option<String>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_any(Walker { walk: self.walk, meaning: self.meaning, is_root: false })
    }
}

/// A key, by what it means.
struct Key<'w, 'a>(&'w Walk<'a>);

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = Meaning;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Meaning, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_, '_> {
    type Value = Meaning;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E: Error>(self, key: &str) -> Result<Meaning, E> {
        self.0.since_progress.set(0);
        Ok(self.0.meaning(key))
    }
}

/// Walks a value; gives back a scalar that may be wanted.
struct Walker<'w, 'a> {
    walk: &'w Walk<'a>,
    meaning: Meaning,
    is_root: bool,
}

impl Walker<'_, '_> {
    fn scalar<E: Error>(&self, text: impl FnOnce() -> String, is_text: bool) -> Result<Option<String>, E> {
        self.walk.since_progress.set(0);
        if self.walk.intake.is_closed() {
            return Err(E::custom("nobody wants more"));
        }
        Ok(match self.meaning {
            // Where no key was named, "images": 3 is a count.
            Meaning::Link(_) if !is_text && self.walk.wanted.url.is_none() => None,
            Meaning::Link(_) | Meaning::Hash => Some(text()),
            Meaning::LinkIfItIsOne => is_text.then(text).filter(|text| is_link(text)),
            Meaning::Nothing => None,
        })
    }
}

/// What an object was found to hold.
#[derive(Default)]
struct Found {
    /// The best under a key for links: its rank, and whether it is a link.
    best: Option<(usize, bool, String)>,
    others: Vec<String>,
    sha256: Option<String>,
}

impl Found {
    fn add(&mut self, meaning: Meaning, text: String) {
        match meaning {
            Meaning::Hash => self.sha256 = Some(text),
            Meaning::Link(rank) => {
                let is_link = is_link(&text);
                // A link before what is none, then the key that comes first; what is blank counts for least.
                let weight = |rank: usize, is_link: bool, text: &str| (!is_link, text.trim().is_empty(), rank);
                let is_better = self
                    .best
                    .as_ref()
                    .is_none_or(|best| weight(rank, is_link, &text) < weight(best.0, best.1, &best.2));
                if is_better {
                    self.best = Some((rank, is_link, text));
                }
            }
            Meaning::LinkIfItIsOne if self.best.is_none() => self.others.push(text),
            Meaning::LinkIfItIsOne | Meaning::Nothing => {}
        }
    }

    fn hand_in(self, walk: &Walk<'_>) {
        let sha256 = self.sha256.as_deref();
        if let Some((_, _, text)) = &self.best {
            return walk.link(text, sha256);
        }
        let is_only = self.others.len() == 1;
        for text in &self.others {
            if is_only || sha256.is_none_or(|hash| hash.trim().is_empty()) {
                walk.link(text, sha256);
            } else {
                walk.seen.set(walk.seen.get() + 1);
                let why = "several links beside one SHA-256 (--url-column says which is meant)";
                walk.intake.bad_row(walk.number.get(), text.as_bytes(), why);
            }
        }
    }
}

impl<'de> Visitor<'de> for Walker<'_, '_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Option<String>, E> {
        self.scalar(|| text.to_owned(), true)
    }
    fn visit_unit<E: Error>(self) -> Result<Option<String>, E> {
        // Blank, wherever a link may be.
        self.scalar(String::new, true)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Option<String>, E> {
        self.scalar(|| value.to_string(), false)
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Option<String>, E> {
        self.scalar(|| value.to_string(), false)
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Option<String>, E> {
        self.scalar(|| value.to_string(), false)
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Option<String>, E> {
        self.scalar(|| value.to_string(), false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
        let walk = self.walk;
        let mut found = Found::default();
        while let Some(meaning) = map.next_key_seed(Key(walk))? {
            if let Some(text) = map.next_value_seed(Member { walk, meaning })? {
                found.add(meaning, text);
                if found.others.len() > LINKS_OF_OBJECT_MAX {
                    std::mem::take(&mut found).hand_in(walk);
                }
            }
        }
        walk.since_progress.set(0);
        found.hand_in(walk);
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<String>, A::Error> {
        let walk = self.walk;
        if self.meaning == Meaning::Hash {
            while items.next_element::<IgnoredAny>()?.is_some() {
                walk.since_progress.set(0);
            }
            return Ok(None);
        }
        let is_outermost = walk.arrays_open.get() == 0;
        walk.arrays_open.set(walk.arrays_open.get() + 1);
        loop {
            walk.since_progress.set(0);
            let before = walk.seen.get();
            if is_outermost && walk.counts_items {
                walk.number.set(walk.number.get() + 1);
            }
            if items.next_element_seed(Value { walk, place: Place::Item(self.meaning) })?.is_none() {
                break;
            }
            // Of an array that is not the list itself nobody said that there is a link in each of its items.
            if self.is_root && walk.counts_items && walk.seen.get() == before {
                walk.intake.bad_row(walk.number.get(), b"", &walk.nothing());
            }
        }
        if is_outermost && walk.counts_items {
            walk.number.set(walk.number.get() - 1);
        }
        walk.arrays_open.set(walk.arrays_open.get() - 1);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{found, found_in_reads_of};
    use super::*;

    fn json_with(url: &str, bytes: &[u8]) -> Vec<String> {
        let wanted = ColumnNames { url: (!url.is_empty()).then(|| url.to_owned()), hash: None };
        let shown = found(bytes, &|reader, intake| read(reader, &wanted, intake));
        let in_small_reads = found_in_reads_of(3, bytes, &|reader, intake| read(reader, &wanted, intake));
        assert_eq!(in_small_reads, shown, "where a read ends does not matter");
        shown
    }
    fn json(text: &str) -> Vec<String> {
        json_with("", text.as_bytes())
    }
    fn jsonl(text: &[u8]) -> Vec<String> {
        found(text, &|reader, intake| read_lines(reader, &ColumnNames::default(), intake))
    }

    #[test]
    fn links_wherever_they_are() {
        for (text, expected) in [
            (
                r#"["http://x/a","cat.jpg","",null,"http://x/b"]"#,
                vec!["http://x/a", "l:2: not an http(s) URL: \"cat.jpg\"", "http://x/b"],
            ),
            (r#"[{"url":"http://x/a","page":"http://x/p"},{"id":7}]"#, vec!["http://x/a", "l:2: no link in it"]),
            (r#"[{"page":"http://x/p","Image":"http://x/i","a":"b"}]"#, vec!["http://x/i"]),
            (r#"[{"image":"cat.jpg","src":"http://x/a"}]"#, vec!["http://x/a"]),
            (r#"[{"url":"cat.jpg","source":"http://x/list"}]"#, vec!["l:1: not an http(s) URL: \"cat.jpg\""]),
            (r#"[{"url":"","source":"http://x/list"},{"url":null}]"#, vec![]),
            (r#"{"a":{"b":["x",{"c":"http://x/a","d":"http://x/b"}]},"n":1.5}"#, vec!["http://x/a", "http://x/b"]),
            (r#"{"data":{"images":[{"link":"http://x/a","tags":["t"]},{"link":5}]}}"#, vec!["http://x/a"]),
            (r#"{"images":3,"here":"http://x/a"}"#, vec!["http://x/a"]),
            (
                r#"{"urls":["http://x/a","x"],"more":["http://x/b","x"]}"#,
                vec!["http://x/a", "l:2: not an http(s) URL: \"x\"", "http://x/b"],
            ),
            (r#""http://x/a""#, vec!["http://x/a"]),
            ("[]", vec![]),
            ("{\"url\":\"http://x/a\"}\n{\"url\":\"http://x/b\"}", vec!["http://x/a", "http://x/b"]),
            (r#"{"id":1,"t":{"u":true}}"#, vec!["error: no link in it; its keys are \"id\", \"t\", \"u\""]),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
    }

    #[test]
    fn the_key_that_was_named_is_the_only_one() {
        let text = br#"[{"URL":"http://x/a","picture":"http://x/b"},{"deep":{"Picture":["http://x/c"]}},{"url":"http://x/d"}]"#;
        assert_eq!(json_with("picture", text), ["http://x/b", "http://x/c", "l:3: no \"picture\" in it"]);
        assert_eq!(json_with("picture", br#"[{"picture":5}]"#), ["l:1: not an http(s) URL: \"5\""]);
        assert_eq!(json_with("none", br#"{"id":"http://x/a"}"#), ["error: no \"none\" in it; its keys are \"id\""]);
    }

    #[test]
    fn hashes_wherever_they_stand_in_the_object() {
        let hash = "ab".repeat(32);
        for text in [
            format!(r#"{{"sha256":"{hash}","url":"http://x/a"}}"#),
            format!(r#"{{"here":"http://x/a","SHA256":"{}"}}"#, hash.to_uppercase()),
        ] {
            assert_eq!(json(&text), [format!("http://x/a {hash}")]);
        }
        assert_eq!(json(r#"{"url":"http://x/a","sha256":null}"#), ["http://x/a"]);
        let several = json(&format!(r#"{{"a":"http://x/a","b":"http://x/b","sha256":"{hash}"}}"#));
        assert!(several.len() == 2 && several.iter().all(|line| line.contains("several links")), "{several:?}");
    }

    #[test]
    fn what_is_no_json_ends_it_after_what_was_before() {
        for (text, expected) in [
            (
                r#"["http://x/a","http://x/b"#,
                "error: not JSON: EOF while parsing a string (line 1, column 25), after item 2",
            ),
            ("", "error: not JSON: EOF while parsing a value (line 1, column 0)"),
            ("http://x/a", "error: not JSON: expected value (line 1, column 1)"),
        ] {
            assert_eq!(json(text).last().map(String::as_str), Some(expected), "{text}");
        }
        assert_eq!(json(r#"["http://x/a","http://x/b"#)[0], "http://x/a");
    }

    #[test]
    fn bytes_that_are_no_text_cost_their_link_only() {
        assert_eq!(
            json_with("", b"[\"http://x/\xff\",{\"\xff\":\"\xff\",\"url\":\"http://x/b\"}]"),
            ["l:1: not UTF-8 text: \"http://x/\u{fffd}\"", "http://x/b"]
        );
        assert_eq!(
            jsonl(b"{\"url\":\"http://x/\xff\"}\n\"http://x/b\"\n"),
            ["l:1: not UTF-8 text: \"{\"url\":\"http://x/\u{fffd}\"}\"", "http://x/b"]
        );
    }

    #[test]
    fn strings_are_bounded_and_arrays_are_not() {
        let long = format!(r#"["http://x/a","{}"]"#, "x".repeat(4 << 20));
        assert_eq!(json(&long).last().map(String::as_str), Some("error: a string longer than 1024 KiB, after item 2"));
        let many: Vec<String> = (0..40_000).map(|n| format!("\"http://x/{n:060}\"")).collect();
        assert_eq!(json(&format!("[{}]", many.join(","))).len(), 40_000);
        let wide: Vec<String> = (0..1000).map(|n| format!("\"{n}\":\"http://x/{n}\"")).collect();
        assert_eq!(json(&format!("{{{}}}", wide.join(","))).len(), 1000);
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        assert!(json(&deep)[0].contains("recursion limit"), "{:?}", json(&deep));
    }

    #[test]
    fn a_value_on_each_line() {
        let hash = "ab".repeat(32);
        let text = format!(
            "# c\n\n{{\"url\":\"http://x/a\",\"sha256\":\"{hash}\"}}\r\n{{\"url\":\n\"http://x/b\"\n{{\"id\":1}}\n\
             {{\"u\":[\"http://x/c\"],\"page\":\"http://x/d\"}}\n[1]x"
        );
        assert_eq!(
            jsonl(text.as_bytes()),
            [
                format!("http://x/a {hash}"),
                "l:4: not JSON (EOF while parsing a value): \"{\"url\":\"".into(),
                "http://x/b".into(),
                "l:6: no link in it: \"{\"id\":1}\"".into(),
                "http://x/c".into(),
                "http://x/d".into(),
                "l:8: not JSON (trailing characters): \"[1]x\"".into(),
            ]
        );
    }
}
