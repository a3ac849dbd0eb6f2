//! Why sources give no links, and what to do about it; and the single lines that are no links.

use super::imgur::{ImgurError, TargetError, source};
use common::link::{LinkError, without_userinfo};
use common::text::short;
use serde::Serialize;
use std::fmt;

/// The longest piece of a line that is shown, in characters.
const TEXT_CHARS_MAX: usize = 200;

/// A source cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
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
        why: TargetError,
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
    /// The list is there, and cannot be read, or not to its end.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// As given.
        path: String,
        /// The system's words, or the reader's.
        why: String,
        /// What to do about it.
        hint: Option<String>,
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
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            SourceError::UnknownImgur { .. } => "a name or search with spaces goes into quotes: \"imgur:search/grumpy cat\"".into(),
            SourceError::BadUrl { why, .. } => match why {
                TargetError::NoLink(LinkError::NotHttp) => "links start with http:// or https://; a list at a URL is list:https://…".into(),
                TargetError::NoLink(LinkError::Malformed(_)) => {
                    "write it whole, as in https://example.com/cat.jpg, and in quotes when it holds & or ?".into()
                }
                TargetError::UnknownImgurPage => {
                    "name an album (https://imgur.com/a/ID), a gallery entry (/gallery/ID), an image (/ID), a user \
                     (/user/NAME), a tag (/t/TAG) or a subreddit (/r/SUB)"
                        .into()
                }
                TargetError::NoLink(LinkError::TooLong | LinkError::HostTooLong | LinkError::UserinfoTooLong) => {
                    "look whether it is one link, and whole: no server takes a longer one".into()
                }
                TargetError::UnwantedType => "add gif or mp4 to --types".into(),
            },
            SourceError::BadSite { .. } => "write it like https://imgur.com or http://127.0.0.1:8000/web".into(),
            SourceError::NoSuchFile { path } => hint_for_no_file(path),
            SourceError::Unreadable { hint, .. } => hint.clone().unwrap_or_else(|| {
                "mend it and run the same command again: links that are already in are skipped".into()
            }),
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
    pub fn exit_code(&self) -> u8 {
        match self {
            SourceError::UnknownImgur { .. } | SourceError::BadUrl { .. } | SourceError::BadSite { .. } => 2,
            SourceError::NoSuchFile { .. }
            | SourceError::Unreadable { .. }
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

/// A line, or a link out of a source, that cannot be enqueued. It does not stop the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// The file as given, `stdin`, or the name of the source.
    pub source: String,
    /// Of a text or table the physical line where the row begins, of JSON the item of the outermost array, of Parquet the
    /// row; from 1; 0 where there is none of that.
    pub line: u64,
    /// Clipped, and with control characters escaped: it goes to terminals.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
    /// Neither clipped nor escaped.
    pub rejected: Rejected,
}

/// What a bad line holds, so that it can be mended; what is not there is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// What should be a link.
    pub url: String,
    /// The hash that its object should have.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// The whole row, where it could not be told what the link is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub row: String,
}

impl BadLine {
    /// Clips and escapes the text, which should have been a link, and leaves out what may be a secret in it.
    pub(super) fn new(source: &str, line: u64, text: &str, why: String) -> BadLine {
        let rejected = Rejected { url: text.to_owned(), ..Rejected::default() };
        BadLine { source: source.to_owned(), line, text: shown(&without_userinfo(text)), why, rejected }
    }

    /// The same, with what it holds told apart.
    pub(super) fn keeping(self, rejected: Rejected) -> BadLine {
        BadLine { rejected, ..self }
    }
}

impl fmt::Display for BadLine {
    /// `urls.txt:17: not an http(s) URL: "…"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.why)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": \"{}\"", self.text) }
    }
}

/// A text from outside, fit for a terminal.
pub(super) fn shown(text: &str) -> String {
    short(text, TEXT_CHARS_MAX)
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
        let secret = BadLine::new("urls.txt", 1, "http://user:geheim@[x", why());
        assert_eq!((secret.text.as_str(), secret.rejected.url.as_str()), ("http://***@[x", "http://user:geheim@[x"));
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
