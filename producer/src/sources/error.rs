//! Why sources give no links, and what to do about it; and the single lines that are no links.

use super::imgur::{ImgurError, source};
use common::link::LinkError;
use std::fmt;

/// The longest piece of a line that is shown, in characters.
const TEXT_CHARS_MAX: usize = 200;

/// A source cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SourceError {
    /// No such `imgur:` source.
    #[error("\"{text}\" is not a source: {why}; known are {}", source::KNOWN)]
    UnknownImgur {
        /// As given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not a link.
    #[error("cannot enqueue \"{text}\": {}", .why)]
    BadUrl {
        /// As given.
        text: String,
        /// What is wrong with it.
        why: LinkError,
    },
    /// `IMGUR_API_URL`, `IMGUR_WEB_URL` or `IMGUR_IMAGE_URL` cannot be used.
    #[error("{variable}=\"{text}\" is not a base URL: {why}")]
    BadSite {
        /// The variable.
        variable: &'static str,
        /// As given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file is not there.
    #[error("no such file: {path}")]
    NoSuchFile {
        /// As given.
        path: String,
    },
    /// The file is there, and cannot be read.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// As given.
        path: String,
        /// The system's words.
        why: String,
    },
    /// A list of a format that is not known yet.
    #[error("cannot read {path}: this version reads .txt lists and standard input, not {extension}")]
    UnsupportedFormat {
        /// As given.
        path: String,
        /// With its dot.
        extension: String,
    },
    /// The source needs a client id.
    #[error(
        "{source_name} needs an Imgur client id, and none is set; new ids can hardly be had since Imgur closed registration in 2025"
    )]
    NoClientId {
        /// As given.
        source_name: String,
    },
    /// Imgur did not give what was asked for.
    #[error("cannot read {source_name}: {error}")]
    Imgur {
        /// The source, or the line of a list.
        source_name: String,
        /// Why.
        error: ImgurError,
    },
}

impl SourceError {
    /// What to do next, for a `hint:` line.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            SourceError::UnknownImgur { .. } => "a name or search with spaces goes into quotes: \"imgur:search/grumpy cat\"".into(),
            SourceError::BadUrl { why, .. } => match why {
                LinkError::NotHttp => "links start with http:// or https://".into(),
                LinkError::Malformed(_) => {
                    "write it whole, as in https://example.com/cat.jpg, and in quotes when it holds & or ?".into()
                }
                LinkError::UnknownImgurPage => {
                    "name an album (https://imgur.com/a/ID), a gallery entry (/gallery/ID), an image (/ID), a user \
                     (/user/NAME), a tag (/t/TAG) or a subreddit (/r/SUB)"
                        .into()
                }
                LinkError::UnwantedType => "add gif or mp4 to --types".into(),
            },
            SourceError::BadSite { .. } => "write it like https://imgur.com or http://127.0.0.1:8000/web".into(),
            SourceError::NoSuchFile { path } => hint_for_no_file(path),
            SourceError::Unreadable { .. } => return None,
            SourceError::UnsupportedFormat { path, extension } => hint_for_format(path, extension),
            SourceError::NoClientId { .. } => {
                "set IMGUR_CLIENT_ID or --client-id if you have one. Without one these work: image links, albums by link \
                 (`producer enqueue https://imgur.com/a/ID`), lists of links (`producer enqueue links.txt`), and the demo \
                 (`scripts/demo.sh`)"
                    .into()
            }
            SourceError::Imgur { error, .. } => return error.hint(),
        })
    }

    /// The process' exit code: 2 for what is wrong with the command itself, 1 for what could not be done.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            SourceError::UnknownImgur { .. } | SourceError::BadUrl { .. } | SourceError::BadSite { .. } => 2,
            SourceError::NoSuchFile { .. }
            | SourceError::Unreadable { .. }
            | SourceError::UnsupportedFormat { .. }
            | SourceError::NoClientId { .. }
            | SourceError::Imgur { .. } => 1,
        }
    }
}

/// What looks like a file to imgq may have been meant otherwise.
fn hint_for_no_file(path: &str) -> String {
    let host = path.split('/').next().unwrap_or_default();
    if super::ImgurSource::parse(path).is_ok() {
        format!("for Imgur's, write imgur:{path}")
    } else if path.contains('/') && host.contains('.') && !host.starts_with('.') {
        format!("for a link, write https://{path}")
    } else {
        "a source is a file of links, a link, an imgur: source, or - for standard input".into()
    }
}

fn hint_for_format(path: &str, extension: &str) -> String {
    let convert = match extension {
        ".gz" => format!("zcat '{path}'"),
        ".zst" => format!("zstdcat '{path}'"),
        ".csv" => format!("cut -d, -f1 '{path}'"),
        ".tsv" => format!("cut -f1 '{path}'"),
        ".jsonl" | ".ndjson" => format!("jq -r .url '{path}'"),
        ".json" => format!("jq -r '.[].url' '{path}'"),
        _ => return "convert it to a text file with a link on each line".into(),
    };
    format!(
        "convert it to a link on each line, as with `{convert} | producer enqueue -`, with the right column or field"
    )
}

/// A line, or a link out of a source, that cannot be enqueued. It does not stop the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// The file as given, `stdin`, or the name of the source.
    pub(crate) source: String,
    /// The physical line, from 1; 0 where there are no lines.
    pub(crate) line: u64,
    /// Clipped, and with control characters escaped: it goes to terminals.
    pub(crate) text: String,
    /// What is wrong with it.
    pub(crate) why: String,
}

impl BadLine {
    /// Clips and escapes the text.
    pub(super) fn new(source: &str, line: u64, text: &str, why: String) -> BadLine {
        BadLine { source: source.to_owned(), line, text: shown(text), why }
    }
}

impl fmt::Display for BadLine {
    /// `urls.txt:17: not an http(s) URL: "…"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}: \"{}\"", self.why, self.text)
    }
}

/// A text from outside, fit for a terminal.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == TEXT_CHARS_MAX {
            out.push('…');
            break;
        }
        // The marks that turn the writing direction make a terminal show another text than is there.
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_names_its_place_its_reason_and_itself() {
        let why = || "not an http(s) URL".to_owned();
        let bad = BadLine::new("urls.txt", 17, "a\tb\u{202e}c", why());
        assert_eq!(bad.to_string(), "urls.txt:17: not an http(s) URL: \"a\\u{9}b\\u{202e}c\"");
        assert_eq!(BadLine::new("imgur:hot", 0, "x", why()).to_string(), "imgur:hot: not an http(s) URL: \"x\"");
        let long = BadLine::new("urls.txt", 1, &"é".repeat(999), why());
        assert_eq!(long.text, format!("{}…", "é".repeat(TEXT_CHARS_MAX)));
        assert_eq!(shown(&"é".repeat(TEXT_CHARS_MAX)), "é".repeat(TEXT_CHARS_MAX));
    }

    #[test]
    fn a_missing_file_may_have_been_meant_otherwise() {
        for (path, part) in [
            ("random", "imgur:random"),
            ("r/aww", "imgur:r/aww"),
            ("imgur.com/a/DytNW1A", "https://imgur.com/a/DytNW1A"),
            ("links.txt", "a file of links"),
            ("./lists/links.txt", "a file of links"),
        ] {
            let hint = SourceError::NoSuchFile { path: path.into() }.hint().unwrap_or_default();
            assert!(hint.contains(part), "{path}: {hint}");
        }
    }
}
