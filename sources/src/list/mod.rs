//! Lists of links: files, standard input and URLs, in every format that people have them in, in flat memory.
//!
//! Each row is read as what it is: a link, a page of Imgur, or a bad line. Expanding pages is left to the caller. `input`
//! opens a list and chooses the reader of its format; the readers hand in what they find to `intake`.
//!
//! A list is read and parsed on a thread of its own, for two reasons. Reading standard input cannot be interrupted:
//! `tokio::io::stdin` reads on tokio's blocking pool, for which the runtime waits when it shuts down, so that Ctrl-C
//! would hang until the next line; a thread that nobody joins ends with the process. And parsing millions of links
//! then runs beside the enqueueing of those before them. The channel between is bounded, and so is a row: that keeps
//! memory flat.

mod columns;
mod decompress;
mod download;
mod error;
mod format;
mod input;
mod intake;
mod json;
mod lines;
mod parquet;
mod share;
mod table;
#[cfg(test)]
mod testing;
mod text;

pub use columns::ColumnNames;
pub use format::Format;
pub(super) use input::Input;
pub use input::ListOptions;

use super::{BadLine, SourceError};
use crate::imgur::{ImgurPage, ImgurSites};
use common::job::Wanted;
use common::media::MediaTypes;
use error::ListError;
use intake::Intake;
use share::ReadShare;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Batches that wait to be taken.
const BATCHES_AHEAD: usize = 4;

/// A row that is neither blank nor a comment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A link to a file, canonical.
    Link(Wanted),
    /// A link to a page of Imgur.
    Page {
        /// What is to be expanded.
        page: ImgurPage,
        /// As in [`BadLine::line`].
        line: u64,
        /// The link as it is in the list.
        text: String,
    },
    /// Anything else.
    Bad(BadLine),
}

/// What the thread sends.
enum Message {
    Batch(Vec<Entry>),
    /// The last one. A thread that ends without has panicked.
    End(Result<(), ListError>),
}

/// A list that is being read.
pub(super) struct List {
    name: String,
    messages: mpsc::Receiver<Message>,
    batch: std::vec::IntoIter<Entry>,
    is_over: bool,
    share: Arc<ReadShare>,
}

impl List {
    /// Starts to read. The thread ends with the list, with this value, or with the process.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`] when the system gives no thread.
    pub(super) fn open(
        input: Input,
        options: ListOptions,
        sites: ImgurSites,
        types: MediaTypes,
    ) -> Result<List, SourceError> {
        let name = input.name();
        let (sender, messages) = mpsc::channel(BATCHES_AHEAD);
        let share = Arc::new(ReadShare::default());
        let read = {
            let (name, share) = (name.clone(), Arc::clone(&share));
            move || {
                let send = |batch| sender.blocking_send(Message::Batch(batch)).is_ok();
                let intake = Intake::new(&name, &sites, types, &send);
                let result = input::read(&input, &options, &share, &intake);
                // What was good before an error is good.
                intake.flush();
                // Nobody is interested any more when this fails.
                let _ = sender.blocking_send(Message::End(result));
            }
        };
        let thread = std::thread::Builder::new().name("list".into()).spawn(read);
        thread.map_err(|error| unreadable(&name, &error))?;
        Ok(List { name, messages, batch: Vec::new().into_iter(), is_over: false, share })
    }

    /// The name in messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How much of it is read, from 0 to 1, where that can be known.
    pub(super) fn share(&self) -> Option<f64> {
        self.share.get()
    }

    /// The next entry, or `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`] when the list cannot be read to its end; it is over with that.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>, SourceError> {
        loop {
            if let Some(entry) = self.batch.next() {
                return Ok(Some(entry));
            }
            if self.is_over {
                return Ok(None);
            }
            match self.messages.recv().await {
                Some(Message::Batch(batch)) => self.batch = batch.into_iter(),
                Some(Message::End(result)) => {
                    self.is_over = true;
                    result.map_err(|error| ended(&self.name, error))?;
                }
                None => {
                    self.is_over = true;
                    let why = "its data makes the reader fail; it may be damaged";
                    return Err(ended(&self.name, ListError::new(why)));
                }
            }
        }
    }
}

/// Finds out what can be told about a file of a list before all of it is read.
///
/// # Errors
/// [`SourceError::Unreadable`].
pub(super) fn check(path: &Path, options: &ListOptions) -> Result<(), SourceError> {
    let sites = ImgurSites::default();
    // Bad lines on the way are told of when it is read.
    let intake = Intake::new("", &sites, MediaTypes::default(), &|_| true);
    input::check(path, options, &intake).map_err(|error| ended(&path.display().to_string(), error))
}

fn ended(name: &str, error: ListError) -> SourceError {
    SourceError::Unreadable { path: name.to_owned(), why: error.why, hint: error.hint }
}

/// The error for a list that cannot be read.
pub(super) fn unreadable(name: impl AsRef<Path>, error: &io::Error) -> SourceError {
    let hint = match error.kind() {
        io::ErrorKind::IsADirectory => Some("name the lists in it, as in FOLDER/*.txt".to_owned()),
        io::ErrorKind::PermissionDenied => Some("make it readable for this user".to_owned()),
        _ => None,
    };
    SourceError::Unreadable { path: name.as_ref().display().to_string(), why: error.to_string(), hint }
}

#[cfg(test)]
mod tests {
    use super::intake::BATCH_ENTRIES;
    use super::*;
    use std::io::Write;
    use std::path::PathBuf;

    fn open(path: &Path) -> List {
        let input = Input::File(path.to_owned());
        List::open(input, ListOptions::default(), ImgurSites::default(), MediaTypes::default()).expect("a thread")
    }

    async fn all(path: &Path) -> Vec<String> {
        let mut list = open(path);
        let mut found = Vec::new();
        loop {
            match list.next().await {
                Ok(Some(entry)) => found.push(testing::show(entry)),
                Ok(None) => return found,
                Err(error) => {
                    found.push(format!("error: {error}"));
                    assert_eq!(list.next().await.ok(), Some(None), "it is over with that");
                    return found;
                }
            }
        }
    }

    fn written(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }

    #[tokio::test]
    async fn a_list_longer_than_all_that_is_read_ahead_arrives_whole_and_in_order() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let count = 3 * BATCH_ENTRIES * BATCHES_AHEAD;
        for n in 0..count {
            writeln!(file, "http://x/{n}").expect("written");
        }
        let mut list = open(file.path());
        for n in 0..count {
            assert_eq!(list.next().await.expect("readable"), Some(Entry::Link(format!("http://x/{n}").into())));
        }
        assert_eq!(list.next().await.expect("readable"), None);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = open(&directory.path().join("none.txt")).next().await.expect_err("no such file");
        assert!(error.to_string().contains("none.txt"), "{error}");
    }

    #[tokio::test]
    async fn links_arrive_before_the_writer_is_done() {
        let folder = tempfile::tempdir().expect("a directory");
        for (name, first) in
            [("l.txt", "http://x/a\n"), ("l.csv", "url\nhttp://x/a\n"), ("l.jsonl", "\"http://x/a\"\n")]
        {
            let path = folder.path().join(name);
            let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo");
            assert!(made.success());
            let mut list = open(&path);
            let mut writer = std::fs::OpenOptions::new().write(true).open(&path).expect("a writer");
            writer.write_all(first.as_bytes()).and_then(|()| writer.write_all(b"http://x/half")).expect("written");
            let arrived = list.next().await.expect("readable").map(testing::show);
            assert_eq!(arrived.as_deref(), Some("http://x/a"), "{name}");
            drop(writer);
            assert!(list.next().await.expect("readable").is_some());
        }
    }

    #[tokio::test]
    async fn marks_and_encodings() {
        let folder = tempfile::tempdir().expect("a directory");
        let text = "url,t\nhttp://x/ä,1\ncat.jpg,2\n";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            [b"\xff\xfe", &little[..]].concat(),
            [b"\xfe\xff", &big[..]].concat(),
        ] {
            let path = written(&folder, "l.csv", &bytes);
            let bad = format!("{}:3: not an http(s) URL: \"cat.jpg\"", path.display());
            assert_eq!(all(&path).await, ["http://x/%C3%A4", &bad]);
        }
        let path = written(&folder, "l.txt", b"\xef\xbb\xbfhttp://x/a\nhttp://x/\xff\nhttp://x/b");
        let bad = format!("{}:2: not UTF-8 text: \"http://x/\u{fffd}\"", path.display());
        assert_eq!(all(&path).await, ["http://x/a", &bad, "http://x/b"]);
    }

    #[tokio::test]
    async fn what_comes_before_the_place_where_it_is_cut_short_is_taken() {
        let folder = tempfile::tempdir().expect("a directory");
        let text: String = (0..200_000).map(|n| format!("http://x/{n}\n")).collect();
        let whole = zstd::encode_all(text.as_bytes(), 3).expect("compressed");
        let path = written(&folder, "l.txt.zst", &whole[..whole.len() / 2]);
        let found = all(&path).await;
        let (error, links) = found.split_last().expect("an error");
        assert!(links.len() > 1000 && links.iter().enumerate().all(|(n, link)| *link == format!("http://x/{n}")));
        let expected =
            format!("error: cannot read {}: its zstd data is cut short, after line {}", path.display(), links.len());
        assert_eq!(*error, expected);
    }

    #[tokio::test]
    async fn what_comes_before_an_error_in_the_same_read_is_taken() {
        let folder = tempfile::tempdir().expect("a directory");
        let found = all(&written(&folder, "l.json", b"[\"http://x/a\",}, and much more behind it")).await;
        assert_eq!(found[0], "http://x/a");
        assert!(found.len() == 2 && found[1].contains("not JSON: "), "{found:?}");
    }

    #[tokio::test]
    async fn a_reader_that_panicked_is_no_end_of_a_list() {
        let (sender, messages) = mpsc::channel(1);
        let (batch, share) = (Vec::new().into_iter(), Arc::default());
        let mut list = List { name: "l".into(), messages, batch, is_over: false, share };
        sender.send(Message::Batch(vec![Entry::Link("http://x/a".to_owned().into())])).await.expect("room");
        drop(sender);
        assert!(list.next().await.is_ok_and(|entry| entry.is_some()));
        let error = list.next().await.expect_err("it did not say that it is the end");
        assert!(error.to_string().contains("cannot read l: its data makes the reader fail"), "{error}");
        assert_eq!(list.next().await.ok(), Some(None));
    }

    #[test]
    fn a_table_is_checked_before_it_is_read() {
        let folder = tempfile::tempdir().expect("a directory");
        for (name, bytes, part) in [
            ("l.csv", &b"id,title\n"[..], "its columns are \"id\", \"title\""),
            ("l.tsv", b"id\ttitle\n", "its columns are \"id\", \"title\""),
            ("l.csv.gz", b"id,title\n", "it is not gzip data"),
        ] {
            let path = written(&folder, name, bytes);
            let error = check(&path, &ListOptions::default()).expect_err(name);
            assert!(error.to_string().contains(part) && error.exit_code() == 1, "{error}");
            assert!(error.hint().is_some());
        }
        check(&written(&folder, "m.csv", b"id,url\n"), &ListOptions::default()).expect("fits");
    }
}
