//! Text lists of links, from a file or standard input: a line each, in flat memory.
//!
//! Each line is read as what it is: a link, a page of Imgur, or a bad line. Expanding pages is left to the caller.
//!
//! A list is read and parsed on a thread of its own, for two reasons. Reading standard input cannot be interrupted:
//! `tokio::io::stdin` reads on tokio's blocking pool, for which the runtime waits when it shuts down, so that Ctrl-C
//! would hang until the next line; a thread that nobody joins ends with the process. And parsing millions of links
//! then runs beside the enqueueing of those before them. The channel between is bounded, and so is a line: that keeps
//! memory flat.

use super::{BadLine, SourceError};
use common::link::{ImgurPage, ImgurSites, Target, classify};
use common::media::MediaTypes;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use tokio::sync::mpsc;

/// The longest line, in bytes. Servers take no URL of a quarter of this; a longer line is no list of links.
const LINE_BYTES_MAX: usize = 64 << 10;

/// What one read brings at most.
const READ_BYTES: usize = 128 << 10;

/// Entries that go through the channel at once: waking the other side for each link would cost more than the link.
const BATCH_ENTRIES: usize = 1024;

/// Batches that wait to be taken.
const BATCHES_AHEAD: usize = 4;

/// A line that is neither blank nor a comment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A link to a file, canonical.
    Link(String),
    /// A link to a page of Imgur.
    Page {
        /// What is to be expanded.
        page: ImgurPage,
        /// The physical line, from 1.
        line: u64,
        /// The line itself.
        text: String,
    },
    /// Anything else.
    Bad(BadLine),
}

/// Where a list comes from.
pub(super) enum Input {
    /// A file, or anything else that can be opened by a path, such as a named pipe.
    File(std::path::PathBuf),
    /// Standard input.
    Stdin,
}

impl Input {
    /// The name in messages.
    pub(super) fn name(&self) -> String {
        match self {
            Input::File(path) => path.display().to_string(),
            Input::Stdin => "stdin".to_owned(),
        }
    }

    fn open(&self) -> io::Result<Box<dyn Read>> {
        Ok(match self {
            Input::File(path) => Box::new(File::open(path)?),
            Input::Stdin => Box::new(io::stdin().lock()),
        })
    }
}

/// A list that is being read.
pub(super) struct List {
    name: String,
    batches: mpsc::Receiver<io::Result<Vec<Entry>>>,
    batch: std::vec::IntoIter<Entry>,
}

impl List {
    /// Starts to read. The thread ends with the list, with this value, or with the process.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`] when the system gives no thread.
    pub(super) fn open(input: Input, sites: ImgurSites, types: MediaTypes) -> Result<List, SourceError> {
        let name = input.name();
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let read = {
            let name = name.clone();
            move || {
                let outcome = input.open().and_then(|reader| {
                    let reader = BufReader::with_capacity(READ_BYTES, reader);
                    Parser { name: &name, sites: &sites, types, line: 0 }
                        .run(reader, |batch| sender.blocking_send(Ok(batch)).is_ok())
                });
                if let Err(error) = outcome {
                    // Nobody is interested any more when this fails.
                    let _ = sender.blocking_send(Err(error));
                }
            }
        };
        let thread = std::thread::Builder::new().name("list".into()).spawn(read);
        thread.map_err(|error| unreadable(&name, &error))?;
        Ok(List { name, batches, batch: Vec::new().into_iter() })
    }

    /// The name in messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The next entry, or `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`] when reading fails.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>, SourceError> {
        loop {
            if let Some(entry) = self.batch.next() {
                return Ok(Some(entry));
            }
            match self.batches.recv().await {
                Some(Ok(batch)) => self.batch = batch.into_iter(),
                Some(Err(error)) => return Err(unreadable(&self.name, &error)),
                None => return Ok(None),
            }
        }
    }
}

/// The error for a list that cannot be read.
pub(super) fn unreadable(name: impl AsRef<Path>, error: &io::Error) -> SourceError {
    SourceError::Unreadable { path: name.as_ref().display().to_string(), why: error.to_string() }
}

/// From bytes to entries.
struct Parser<'a> {
    name: &'a str,
    sites: &'a ImgurSites,
    types: MediaTypes,
    /// Lines read.
    line: u64,
}

impl Parser<'_> {
    /// Reads to the end, or until `send` wants no more.
    fn run(mut self, mut reader: BufReader<impl Read>, send: impl Fn(Vec<Entry>) -> bool) -> io::Result<()> {
        let mut batch = Vec::new();
        let mut line = Vec::new();
        while self.next_line(&mut reader, &mut line)? {
            batch.extend(self.entry(&line));
            // Before a read that may block: whoever types links, or follows a growing file, has them at work at once.
            let may_block = !reader.buffer().contains(&b'\n');
            if (may_block && !batch.is_empty() || batch.len() >= BATCH_ENTRIES) && !send(std::mem::take(&mut batch)) {
                return Ok(());
            }
        }
        if !batch.is_empty() {
            send(batch);
        }
        Ok(())
    }

    /// Reads a physical line, without its end; of one that is too long, one byte too many, and skips the rest. `false`
    /// at the end.
    fn next_line(&mut self, reader: &mut BufReader<impl Read>, line: &mut Vec<u8>) -> io::Result<bool> {
        line.clear();
        reader.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', line)?;
        if line.is_empty() {
            return Ok(false);
        }
        self.line += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > LINE_BYTES_MAX {
            reader.skip_until(b'\n')?;
        }
        Ok(true)
    }

    fn entry(&self, line: &[u8]) -> Option<Entry> {
        // Windows' editors begin a file with a byte order mark.
        let bom = if self.line == 1 { "\u{feff}".as_bytes() } else { b"" };
        let line = line.strip_prefix(bom).unwrap_or(line);
        if line.len() > LINE_BYTES_MAX {
            let why = format!("longer than {} KiB", LINE_BYTES_MAX >> 10);
            // Its beginning is enough to find it; a character cut in half at the end is not what is wrong with it.
            return Some(self.bad(&String::from_utf8_lossy(&line[..1024]), why));
        }
        let Ok(text) = std::str::from_utf8(line) else {
            return Some(self.bad(&String::from_utf8_lossy(line), "not UTF-8 text".to_owned()));
        };
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            return None;
        }
        Some(match classify(text, self.sites, self.types) {
            Ok(Target::File(link)) => Entry::Link(link),
            Ok(Target::Page(page)) => Entry::Page { page, line: self.line, text: text.to_owned() },
            Err(error) => self.bad(text, error.to_string()),
        })
    }

    fn bad(&self, text: &str, why: String) -> Entry {
        Entry::Bad(BadLine::new(self.name, self.line, text, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::io::Write;

    fn read(bytes: &[u8], chunk: usize) -> Vec<Entry> {
        let entries = RefCell::new(Vec::new());
        let parser = Parser { name: "l.txt", sites: &ImgurSites::default(), types: MediaTypes::default(), line: 0 };
        let sent = parser.run(BufReader::with_capacity(chunk, bytes), |batch| {
            assert!(!batch.is_empty() && batch.len() <= BATCH_ENTRIES);
            entries.borrow_mut().extend(batch);
            true
        });
        sent.expect("memory can be read");
        entries.into_inner()
    }

    /// Links as they are, pages as `page:LINE`, bad lines as they print.
    fn shown(bytes: &[u8]) -> Vec<String> {
        let show = |entry| match entry {
            Entry::Link(link) => link,
            Entry::Page { line, .. } => format!("page:{line}"),
            Entry::Bad(bad) => bad.to_string(),
        };
        let shown: Vec<_> = read(bytes, 8192).into_iter().map(show).collect();
        let in_small_reads: Vec<_> = read(bytes, 3).into_iter().map(show).collect();
        assert_eq!(shown, in_small_reads, "where a read ends does not matter");
        shown
    }

    #[test]
    fn lines_in_every_spelling() {
        for (bytes, expected) in [
            (&b""[..], vec![]),
            (b"\n\r\n  \n# http://x/a.jpg\n  #\n", vec![]),
            (b"http://x/a\nhttp://x/b", vec!["http://x/a", "http://x/b"]),
            (b"\xef\xbb\xbfhttp://x/a\r\n\thttp://x/b \r\n", vec!["http://x/a", "http://x/b"]),
            (b"\xef\xbb\xbf# a comment\n", vec![]),
            (b"\n#\nhttps://imgur.com/a/DytNW1A\n", vec!["page:3"]),
            (b"#\ncat.jpg\nhttp://x/a", vec!["l.txt:2: not an http(s) URL: \"cat.jpg\"", "http://x/a"]),
            (b"http://x/\xff\nhttp://x/a", vec!["l.txt:1: not UTF-8 text: \"http://x/\u{fffd}\"", "http://x/a"]),
            (b"a\x1b[1m\0", vec!["l.txt:1: not an http(s) URL: \"a\\u{1b}[1m\\u{0}\""]),
        ] {
            assert_eq!(shown(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_line_has_a_bound_and_the_next_one_is_read_all_the_same() {
        let of_length = |bytes: usize| format!("http://x/{}", "a".repeat(bytes - "http://x/".len()));
        let longest = of_length(LINE_BYTES_MAX);
        for end in ["\n", ""] {
            assert_eq!(shown(format!("{longest}{end}").as_bytes()), [longest.as_str()]);
        }
        for length in [LINE_BYTES_MAX + 1, LINE_BYTES_MAX + 2, 3 * LINE_BYTES_MAX + 1] {
            let got = shown(format!("{}\nhttp://x/b", of_length(length)).as_bytes());
            assert!(got[0].starts_with("l.txt:1: longer than 64 KiB: \"http://x/aaa"), "{}", got[0]);
            assert!(got[0].chars().count() < 300);
            assert_eq!(got[1..], ["http://x/b"], "{length}");
        }
    }

    #[tokio::test]
    async fn a_list_longer_than_all_that_is_read_ahead_arrives_whole_and_in_order() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let count = 3 * BATCH_ENTRIES * BATCHES_AHEAD;
        for n in 0..count {
            writeln!(file, "http://x/{n}").expect("written");
        }
        let input = Input::File(file.path().to_owned());
        let mut list = List::open(input, ImgurSites::default(), MediaTypes::default()).expect("a thread");
        for n in 0..count {
            assert_eq!(list.next().await.expect("readable"), Some(Entry::Link(format!("http://x/{n}"))));
        }
        assert_eq!(list.next().await.expect("readable"), None);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let input = Input::File(directory.path().join("none.txt"));
        let mut list = List::open(input, ImgurSites::default(), MediaTypes::default()).expect("a thread");
        let error = list.next().await.expect_err("no such file");
        assert!(error.to_string().contains("none.txt"), "{error}");
    }

    #[tokio::test]
    async fn links_arrive_before_the_writer_is_done() {
        let (mut writer, reader) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let (sender, mut receiver) = mpsc::channel(BATCHES_AHEAD);
        let thread = std::thread::spawn(move || {
            Parser { name: "-", sites: &ImgurSites::default(), types: MediaTypes::default(), line: 0 }
                .run(BufReader::new(reader), |batch| sender.blocking_send(batch).is_ok())
        });
        writer.write_all(b"http://x/a\nhttp://x/half").expect("written");
        assert_eq!(receiver.recv().await, Some(vec![Entry::Link("http://x/a".into())]));
        drop(writer);
        assert_eq!(receiver.recv().await, Some(vec![Entry::Link("http://x/half".into())]));
        thread.join().expect("no panic").expect("readable");
    }
}
