//! Both sides of every script, compared: what Rust declares is what Lua uses. Text only; `tests/wire` has Redis compile them.

use super::{Declared, PartNames};
use crate::registry::ALL;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Name(String),
    Number,
    Text(String),
    Symbol(char),
}

/// Lua in tokens, without comments. The scripts have no strings or comments in long brackets.
fn tokens(lua: &str) -> Vec<Token> {
    let chars: Vec<char> = lua.chars().collect();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(&first) = chars.get(at) {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let word = || chars[at..].iter().copied().take_while(|c| is_of_name(*c)).collect::<String>();
        match first {
            '-' if chars.get(at + 1) == Some(&'-') => {
                at += chars[at..].iter().take_while(|c| **c != '\n').count();
            }
            '\'' | '"' => {
                let mut text = String::new();
                at += 1;
                while chars[at] != first {
                    at += usize::from(chars[at] == '\\');
                    text.push(chars[at]);
                    at += 1;
                }
                at += 1;
                tokens.push(Token::Text(text));
            }
            _ if first.is_ascii_digit() => {
                at += word().len();
                tokens.push(Token::Number);
            }
            _ if is_of_name(first) => {
                let word = word();
                at += word.len();
                tokens.push(Token::Name(word));
            }
            _ => {
                if !first.is_whitespace() {
                    tokens.push(Token::Symbol(first));
                }
                at += 1;
            }
        }
    }
    tokens
}

/// Pieces and body: what people wrote, without the names in front.
fn written(script: &Declared) -> String {
    script.pieces.iter().map(|piece| piece.text().into_owned()).chain([script.body.to_owned()]).collect()
}

fn is_name(token: Option<&Token>, names: &[&str]) -> bool {
    matches!(token, Some(Token::Name(name)) if names.contains(&name.as_str()))
}

fn is_symbol(token: Option<&Token>, symbols: &str) -> bool {
    matches!(token, Some(Token::Symbol(symbol)) if symbols.contains(*symbol))
}

/// Names that Lua declares, that are there where they are used, block by block; the first one that is not.
fn unknown_names(tokens: &[Token]) -> BTreeSet<String> {
    const KNOWN: &[&str] = &[
        "KEYS", "ARGV", "redis", "cjson", "string", "math", "table", "tonumber", "type", "unpack", "pcall", "error",
        "next", "pairs", "ipairs", // and words of the language that are no name
        "and", "break", "false", "if", "in", "nil", "not", "or", "return", "true", "while",
    ];
    let mut blocks: Vec<BTreeSet<String>> = vec![BTreeSet::new()];
    let (mut unknown, mut of_loop, mut braces, mut at) = (BTreeSet::new(), Vec::new(), 0, 0);
    // The names of a list from `at` on, and where it ends.
    let list = |mut at: usize| {
        let mut names = Vec::new();
        while let Some(Token::Name(name)) = tokens.get(at) {
            names.push(name.clone());
            at += 1;
            if !is_symbol(tokens.get(at), ",") {
                break;
            }
            at += 1;
        }
        (names, at)
    };
    while let Some(token) = tokens.get(at) {
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        at += 1;
        let Token::Name(name) = token else {
            braces += i32::from(is_symbol(Some(token), "{")) - i32::from(is_symbol(Some(token), "}"));
            continue;
        };
        let block = blocks.last_mut().expect("blocks are closed as often as opened");
        match name.as_str() {
            "local" if is_name(tokens.get(at), &["function"]) => {
                let Some(Token::Name(name)) = tokens.get(at + 1) else { panic!("a function has a name") };
                block.insert(name.clone());
            }
            "local" => {
                let (names, end) = list(at);
                block.extend(names);
                at = end;
            }
            "function" => {
                // The name was seen; of `NEWS.refused` the table has to be known.
                while !is_symbol(tokens.get(at), "(") {
                    if let (Some(Token::Name(name)), true) = (tokens.get(at), is_symbol(tokens.get(at + 1), ".")) {
                        assert!(blocks.iter().any(|block| block.contains(name)), "{name}");
                    }
                    at += 1;
                }
                let (parameters, end) = list(at + 1);
                blocks.push(parameters.into_iter().collect());
                at = end;
            }
            "for" => (of_loop, at) = list(at),
            "do" => blocks.push(std::mem::take(&mut of_loop).into_iter().collect()),
            "then" | "repeat" => blocks.push(BTreeSet::new()),
            "else" => {
                blocks.pop();
                blocks.push(BTreeSet::new());
            }
            "elseif" | "end" | "until" => _ = blocks.pop(),
            _ if is_symbol(before, ".:") || KNOWN.contains(&name.as_str()) => {}
            _ => {
                let is_field = braces > 0
                    && is_symbol(before, "{,")
                    && is_symbol(tokens.get(at), "=")
                    && !is_symbol(tokens.get(at + 1), "=");
                if !is_field && !blocks.iter().any(|block| block.contains(name)) {
                    unknown.insert(name.clone());
                }
            }
        }
    }
    unknown
}

/// What is declared, in the words of Lua.
fn declared(script: &Declared) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for listed in [&script.keys, &script.args] {
        names.extend(listed.fixed.iter().map(|(name, _)| (*name).to_owned()));
        names.extend(listed.then.map(str::to_owned));
    }
    names.extend(script.parts.iter().flat_map(PartNames::constants).map(|(name, _)| name));
    names
}

/// What is wrong with a script.
fn complaints(script: &Declared) -> Vec<String> {
    let mut complaints = Vec::new();
    let written = tokens(&written(script));
    for name in declared(script) {
        if !written.contains(&Token::Name(name.clone())) {
            complaints.push(format!("{name} is declared, and not used"));
        }
    }
    for tag in script.parts.iter().filter_map(|part| part.tag) {
        if !written.contains(&Token::Text(tag.to_owned())) && !written.contains(&Token::Name(tag.to_owned())) {
            complaints.push(format!("parts of the kind '{tag}' are declared, and not read"));
        }
    }
    for at in 0..written.len() {
        let (before, behind) = (written[..at].iter().rev(), &written[at..]);
        let mut before = before.take(3);
        let (one_before, two_before) = (before.next(), before.next());
        if is_name(behind.first(), &["KEYS", "ARGV"]) {
            let is_indexed = is_symbol(behind.get(1), "[") && behind.get(2) == Some(&Token::Number);
            let is_unpacked = is_symbol(behind.get(1), ",") && behind.get(2) == Some(&Token::Number);
            let is_counted = is_symbol(one_before, "#")
                && (is_symbol(behind.get(1), "+-*/") && behind.get(2) == Some(&Token::Number)
                    || is_symbol(two_before, ",") && before.next() == Some(&Token::Number));
            if is_indexed || is_unpacked || is_counted {
                complaints.push(format!("an index is a number: {:?}", &behind[..behind.len().min(4)]));
            }
        }
    }
    for name in unknown_names(&tokens(script.source().split_once('\n').expect("a first line").1)) {
        complaints.push(format!("{name} is used, and nobody declared it"));
    }
    for (number, piece) in script.pieces.iter().enumerate() {
        let of_piece = tokens(&piece.text());
        let behind: Vec<Token> = script.pieces[number + 1..]
            .iter()
            .flat_map(|piece| tokens(&piece.text()))
            .chain(tokens(script.body))
            .collect();
        let is_used = of_piece.windows(3).any(|three| {
            let name = if is_name(Some(&three[1]), &["function"]) { &three[2] } else { &three[1] };
            is_name(Some(&three[0]), &["local"]) && behind.contains(name)
        });
        if !is_used {
            complaints.push(format!("{} is put in front, and nothing of it is used", piece.name));
        }
    }
    complaints
}

#[test]
fn what_rust_declares_is_what_lua_uses() {
    let complaints: BTreeMap<_, _> =
        ALL.iter().map(|script| (script.file, complaints(script))).filter(|(_, list)| !list.is_empty()).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// The check itself: a name that differs on either side, an index, a piece too many or too few.
#[test]
fn a_script_whose_sides_differ_is_complained_of() {
    use super::{InLua, Kind, Names, TIME, TYPES};
    const SOUND: Declared = Declared {
        file: "sound.lua",
        body: "local t = {lease_ms = lease_ms}\nfor k = jobs_from, #KEYS do redis.call('DEL', KEYS[k], t.any, now_ms()) end\n",
        kind: Kind::Moves,
        pieces: &[TIME],
        keys: Names { fixed: &[], then: Some("jobs_from") },
        args: Names { fixed: &[("lease_ms", InLua::Number)], then: None },
        parts: &[],
    };
    assert_eq!(complaints(&SOUND), Vec::<String>::new());
    let with_body = |body| Declared { body, ..SOUND };
    let table: [(&str, Declared); 7] = [
        ("lease_ms is declared, and not used", with_body("return {jobs_from, now_ms(), lease}")),
        ("lease is used, and nobody declared it", with_body("return {jobs_from, now_ms(), lease}")),
        ("an index is a number", with_body("return {jobs_from, now_ms(), lease_ms, KEYS[2]}")),
        ("an index is a number", with_body("return {jobs_from, now_ms(), lease_ms, unpack(ARGV, 2)}")),
        (
            "an index is a number",
            with_body("for k = 2, #KEYS do redis.call('DEL', KEYS[k], jobs_from, now_ms(), lease_ms) end"),
        ),
        ("types.lua is put in front", Declared { pieces: &[TIME, TYPES], ..SOUND }),
        ("now_ms is used", Declared { pieces: &[], ..SOUND }),
    ];
    for (expected, script) in table {
        let found = complaints(&script);
        assert!(found.iter().any(|complaint| complaint.contains(expected)), "{expected}: {found:?}");
    }
}

fn files(extension: &str) -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of sources").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.extension().is_some_and(|found| found == extension) => files.push(path),
                _ => {}
            }
        }
    }
    files
}

#[test]
fn every_file_of_lua_belongs_to_a_script_and_every_script_is_listed() {
    let file_name = |path: &PathBuf| path.file_name().expect("a file").to_string_lossy().into_owned();
    let there: BTreeSet<String> = files("lua").iter().map(file_name).collect();
    let pieces = ALL.iter().flat_map(|script| script.pieces).map(|piece| piece.name);
    let listed: BTreeSet<String> = ALL.iter().map(|script| script.file).chain(pieces).map(str::to_owned).collect();
    assert_eq!(there, listed.into_iter().filter(|name| name.ends_with(".lua")).collect());
    let declarations: usize = files("rs")
        .iter()
        .filter(|path| !path.ends_with("scripts/mod.rs"))
        .map(|path| std::fs::read_to_string(path).expect("a source").matches("\nscript! {").count())
        .sum();
    assert_eq!(declarations, ALL.len(), "ALL lists each `script!` once");
}
