//! Pictures that hosts serve in place of a removed one: what is known of them, and the file by which users add to it. Pure.
//!
//! Each is recognised as early as it can be: by where a redirect leads, by the head of the answer, or by the whole content
//! before it gets its name in storage.

use md5::{Digest, Md5};
use serde::Deserialize;
use std::ops::Range;
use toml::Spanned;

/// What is compiled in. `docs/content.md` shows it.
///
/// Imgur's picture for removed images, served directly or after a redirect: its ETag is its MD5, as all of Imgur's were. Its
/// SHA-256 is not known here.
const BUILT_IN: &str = r#"
[[placeholder]]
name = "Imgur: removed"
redirect = "/removed.png"
length = 503
etag = "d835884373f4d6c8f24742ceabe74946"
md5 = "d835884373f4d6c8f24742ceabe74946"
"#;

/// Everything that is known to be a placeholder.
#[derive(Debug, Clone)]
pub struct Placeholders {
    known: Vec<Placeholder>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    placeholder: Vec<Spanned<Placeholder>>,
}

/// One placeholder. Whatever it says besides the length is enough to recognise it, with the length where both are known.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Placeholder {
    /// For whoever reads the file.
    #[serde(default, rename = "name")]
    _name: Option<String>,
    /// The end of the path that a redirect leads to.
    #[serde(default)]
    redirect: Option<PathEnd>,
    /// In bytes.
    #[serde(default)]
    length: Option<u64>,
    #[serde(default)]
    etag: Option<Etag>,
    #[serde(default)]
    sha256: Option<Digits<64>>,
    #[serde(default)]
    md5: Option<Digits<32>>,
}

/// Hex digits, in lower case.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct Digits<const N: usize>(String);

impl<const N: usize> TryFrom<String> for Digits<N> {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.len() == N && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            true => Ok(Digits(text.to_ascii_lowercase())),
            false => Err(format!("\"{text}\" is no hash of {N} hex digits")),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct PathEnd(String);

impl TryFrom<String> for PathEnd {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        // Else `removed.png` would mean `not-removed.png` too.
        match text.len() > 1 && text.starts_with('/') {
            true => Ok(PathEnd(text)),
            false => Err(format!("\"{text}\" is no end of a path: write it from a slash on, as in /removed.png")),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct Etag(String);

impl TryFrom<String> for Etag {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match bare_etag(&text) {
            "" => Err("an empty ETag says nothing".into()),
            bare => Ok(Etag(bare.to_owned())),
        }
    }
}

/// An ETag without its quotes and its mark of weakness, which servers and the caches before them put on at will.
fn bare_etag(text: &str) -> &str {
    text.trim().trim_start_matches("W/").trim_matches('"')
}

impl Default for Placeholders {
    fn default() -> Placeholders {
        Placeholders { known: read(BUILT_IN).unwrap_or_default() }
    }
}

/// What is wrong with a user's file, and in which of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// From 1.
    pub line: usize,
    /// What is wrong with it, in one line.
    pub why: String,
}

fn read(text: &str) -> Result<Vec<Placeholder>, BadLine> {
    let bad = |at: Range<usize>, why: &str| {
        let before = text.as_bytes().get(..at.start).unwrap_or_default();
        BadLine { line: 1 + before.iter().filter(|byte| **byte == b'\n').count(), why: why.to_owned() }
    };
    let file: File = toml::from_str(text).map_err(|error| bad(error.span().unwrap_or_default(), error.message()))?;
    file.placeholder
        .into_iter()
        .map(|entry| match &entry.get_ref().what_is_missing() {
            Some(why) => Err(bad(entry.span(), why)),
            None => Ok(entry.into_inner()),
        })
        .collect()
}

impl Placeholder {
    fn what_is_missing(&self) -> Option<&'static str> {
        let Placeholder { redirect, length, etag, sha256, md5, .. } = self;
        if redirect.is_none() && length.is_none() && etag.is_none() && sha256.is_none() && md5.is_none() {
            return Some("a placeholder needs a sha256, md5, etag, redirect or length to be known by");
        }
        // MD5 is not computed for every object.
        (md5.is_some() && length.is_none()).then_some("an md5 is compared only with a length beside it")
    }

    fn fits_length(&self, length: Option<u64>) -> bool {
        self.length.is_none_or(|own| length.is_none_or(|length| own == length))
    }

    /// Nothing else is there to know it by.
    fn is_length_alone(&self) -> bool {
        self.redirect.is_none() && self.etag.is_none() && self.sha256.is_none() && self.md5.is_none()
    }
}

impl Placeholders {
    /// Adds what a user's file says.
    ///
    /// # Errors
    /// The first line that makes no sense.
    pub fn extend(&mut self, text: &str) -> Result<(), BadLine> {
        self.known.extend(read(text)?);
        Ok(())
    }

    /// Whether a redirect to this path leads to one.
    pub fn know_redirect(&self, path: &str) -> bool {
        self.known.iter().filter_map(|known| known.redirect.as_ref()).any(|end| path.ends_with(&end.0))
    }

    /// Whether an answer with this length, where it has one, and this ETag is one. The ETag is only asked for where the length
    /// does not tell.
    pub fn know_head<'a>(&self, length: Option<u64>, etag: impl Fn() -> Option<&'a str>) -> bool {
        self.known.iter().filter(|known| known.fits_length(length)).any(|known| match &known.etag {
            Some(own) => etag().is_some_and(|etag| bare_etag(etag) == own.0),
            None => length.is_some() && known.is_length_alone(),
        })
    }

    /// Whether this content is one. The content itself is only asked for where its length is that of one known by its MD5.
    ///
    /// # Errors
    /// Those of `content`.
    pub fn know_content<E>(
        &self,
        length: u64,
        sha256: &str,
        content: impl Fn() -> Result<Vec<u8>, E>,
    ) -> Result<bool, E> {
        for known in self.known.iter().filter(|known| known.fits_length(Some(length))) {
            let is_it = known.is_length_alone() || known.sha256.as_ref().is_some_and(|own| own.0 == sha256);
            if is_it || matches!(&known.md5, Some(own) if own.0 == hex::encode(Md5::digest(content()?))) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const ETAG: &str = "\"d835884373f4d6c8f24742ceabe74946\"";

    fn of(text: &str) -> Placeholders {
        Placeholders { known: read(text).expect("readable") }
    }

    #[test]
    fn imgur_s_is_known_by_target_length_etag_and_hash() {
        let known = Placeholders::default();
        assert_eq!(known.known.len(), 1, "the table that is compiled in can be read");
        for (path, is_it) in
            [("/removed.png", true), ("/x/removed.png", true), ("/notremoved.png", false), ("/removed.png/x", false)]
        {
            assert_eq!(known.know_redirect(path), is_it, "{path}");
        }
        for (length, etag, is_it) in [
            (Some(503), Some(ETAG), true),
            (None, Some(ETAG), true),
            (None, Some("W/\"d835884373f4d6c8f24742ceabe74946\""), true),
            (Some(504), Some(ETAG), false),
            (Some(503), Some("\"other\""), false),
            (Some(503), None, false),
            (None, None, false),
        ] {
            assert_eq!(known.know_head(length, || etag), is_it, "{length:?} {etag:?}");
        }
        // Other content of the same length; and nothing is read of content of another length.
        let any = "0".repeat(64);
        assert_eq!(known.know_content(503, &any, || Ok::<_, Infallible>(vec![0; 503])), Ok(false));
        assert_eq!(known.know_content(504, &any, || Err("read")), Ok(false));
        assert_eq!(known.know_content(503, &any, || Err("read")), Err("read"));
        assert!(!known.know_head(Some(504), || panic!("the length tells")));
    }

    #[test]
    fn users_add_theirs() {
        let sha256 = hex::encode_upper(sha2::Sha256::digest(b"gone"));
        let known = of(&format!("[[placeholder]]\nsha256 = \"{sha256}\"\n"));
        let lower = sha256.to_ascii_lowercase();
        let unread = || Err::<Vec<u8>, _>("read");
        assert_eq!(known.know_content(4, &lower, unread), Ok(true), "in either case of letters");
        assert_eq!(known.know_content(4, &"0".repeat(64), unread), Ok(false));
        let known = of(&format!("[[placeholder]]\nsha256 = \"{sha256}\"\nlength = 5\n"));
        assert_eq!(known.know_content(4, &lower, unread), Ok(false));
        let known = of("[[placeholder]]\nlength = 4\n");
        assert_eq!(known.know_content(4, &lower, unread), Ok(true));
        assert!(
            known.know_head(Some(4), || None) && !known.know_head(None, || None) && !known.know_head(Some(5), || None)
        );
        let md5 = hex::encode(Md5::digest(b"gone"));
        let known = of(&format!("[[placeholder]]\nlength = 4\nmd5 = \"{md5}\"\n"));
        assert_eq!(known.know_content(4, "", || Ok::<_, Infallible>(b"gone".to_vec())), Ok(true));
        assert!(!known.know_head(Some(4), || None), "the length counts by itself only where it is alone");
        let known = of("[[placeholder]]\nredirect = \"/error/404.jpg\"\n\n[[placeholder]]\netag = 'W/\"x\"'\n");
        assert!(known.know_redirect("/error/404.jpg") && known.know_head(Some(1), || Some("\"x\"")));
        let mut both = Placeholders::default();
        both.extend("[[placeholder]]\nlength = 4\n").expect("readable");
        assert!(both.know_redirect("/removed.png") && both.know_head(Some(4), || None));
        assert!(of("").known.is_empty() && of("# nothing\n").known.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_line() {
        for (text, line, why) in [
            ("[[placeholder]]\nsha256 = \"12\"\n", 2, "64 hex digits"),
            ("[[placeholder]]\nlength = 5\nmd5 = \"zz\"\n", 3, "32 hex digits"),
            ("\n\n[[placeholder]]\n", 3, "needs a sha256"),
            ("[[placeholder]]\nmd5 = \"d835884373f4d6c8f24742ceabe74946\"\n", 1, "length"),
            ("[[placeholder]]\nlenght = 5\n", 2, "lenght"),
            ("[[placeholder]]\nlength = -5\n", 2, "-5"),
            ("[[placeholder]]\nlength = \"5\"\n", 2, "string"),
            ("[[placeholder]]\nredirect = \"removed.png\"\n", 2, "slash"),
            ("[[placeholder]]\netag = ''\n", 2, "empty"),
            ("[[placeholder]]\nlength = 1\n[[placeholders]]\n", 3, "placeholders"),
            ("[[placeholder]]\nlength = 1\n\nlength =\n", 4, ""),
            ("d835884373f4d6c8f24742ceabe74946\n", 1, ""),
        ] {
            let bad = read(text).expect_err(text);
            assert_eq!(bad.line, line, "{text:?}: {}", bad.why);
            assert!(bad.why.contains(why), "{text:?}: {}", bad.why);
        }
    }
}
