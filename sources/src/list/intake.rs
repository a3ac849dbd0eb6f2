//! Where the readers of all formats hand in what they find: each is classified, and passed on in batches.

use super::Entry;
use crate::error::{BadLine, Rejected};
use crate::imgur::{ImgurSites, Target, classify};
use common::job::{Wanted, read_sha256};
use common::link::URL_BYTES_MAX;
use common::media::MediaTypes;
use std::cell::{Cell, RefCell};
use std::io::{self, Read};

/// The longest link, in bytes.
pub(super) const LINK_BYTES_MAX: usize = URL_BYTES_MAX;

/// Of a row that is too long this much is kept, which is enough to find it.
pub(super) const BEGINNING_BYTES: usize = 1024;

/// Entries that go through the channel at once: waking the other side for each link would cost more than the link.
pub(super) const BATCH_ENTRIES: usize = 1024;

/// Text that is in a batch at most, but for its last entry; long entries make short batches, so that memory is bounded.
const BATCH_BYTES: usize = 512 << 10;

/// Takes what is found in one list. `send` gets batches, and tells whether more are wanted.
pub(super) struct Intake<'a> {
    name: &'a str,
    sites: &'a ImgurSites,
    types: MediaTypes,
    send: &'a dyn Fn(Vec<Entry>) -> bool,
    batch: RefCell<Vec<Entry>>,
    batch_bytes: Cell<usize>,
    is_closed: Cell<bool>,
}

impl<'a> Intake<'a> {
    pub(super) fn new(
        name: &'a str,
        sites: &'a ImgurSites,
        types: MediaTypes,
        send: &'a dyn Fn(Vec<Entry>) -> bool,
    ) -> Intake<'a> {
        Intake {
            name,
            sites,
            types,
            send,
            batch: RefCell::default(),
            batch_bytes: Cell::new(0),
            is_closed: Cell::new(false),
        }
    }

    /// Whether nobody wants more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Takes a link, and the hash that its object has to have; blank ones are as if they were not there.
    pub(super) fn link(&self, line: u64, url: &[u8], sha256: Option<&[u8]>) {
        let sha256 = sha256.unwrap_or_default();
        let (Ok(url_text), Ok(hash_text)) = (std::str::from_utf8(url), std::str::from_utf8(sha256)) else {
            let lossy = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
            return self.reject(line, "not UTF-8 text", &lossy(url), &lossy(sha256));
        };
        let (url, hash) = (url_text.trim(), hash_text.trim());
        if url.is_empty() {
            return;
        }
        if url.len() > LINK_BYTES_MAX {
            let beginning = String::from_utf8_lossy(&url.as_bytes()[..BEGINNING_BYTES]);
            return self.reject(line, &too_long(LINK_BYTES_MAX), &beginning, "");
        }
        // What could not be decoded was replaced by this.
        if url.contains('\u{fffd}') {
            return self.reject(line, "not UTF-8 text", url, hash);
        }
        // The URL standard leaves them out, and would make one link of two.
        if url.contains(['\n', '\r', '\t']) {
            return self.reject(line, "a link with a tab or line break in it", url, hash);
        }
        let sha256 = match (hash, read_sha256(hash)) {
            ("", _) => None,
            (_, None) => {
                let why = format!("the SHA-256 \"{}\" is not 64 hex digits", crate::error::shown(hash));
                return self.reject(line, &why, url, hash);
            }
            (_, known) => known,
        };
        match classify(url, self.sites, self.types) {
            Ok(Target::File(link)) => self.push(link.len(), Entry::Link(Wanted { url: link, sha256 })),
            Ok(Target::Page(_)) if sha256.is_some() => {
                self.reject(line, "a page of Imgur is no image that could have a SHA-256", url, hash);
            }
            Ok(Target::Page(page)) => self.push(url.len(), Entry::Page { page, line, text: url.to_owned() }),
            Err(error) => self.reject(line, &error.to_string(), url, hash),
        }
    }

    /// Takes a row that no link could be found in.
    pub(super) fn bad_row(&self, line: u64, row: &[u8], why: &str) {
        let row = String::from_utf8_lossy(row);
        let row = row.trim();
        let rejected = Rejected { row: row.to_owned(), ..Rejected::default() };
        self.push(row.len(), Entry::Bad(BadLine::new(self.name, line, row, why.to_owned()).keeping(rejected)));
    }

    fn reject(&self, line: u64, why: &str, url: &str, sha256: &str) {
        let rejected = Rejected { url: url.to_owned(), sha256: sha256.to_owned(), row: String::new() };
        let bad = BadLine::new(self.name, line, url, why.to_owned()).keeping(rejected);
        self.push(url.len(), Entry::Bad(bad));
    }

    fn push(&self, bytes: usize, entry: Entry) {
        self.batch.borrow_mut().push(entry);
        self.batch_bytes.set(self.batch_bytes.get() + bytes);
        if self.batch.borrow().len() >= BATCH_ENTRIES || self.batch_bytes.get() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Passes on what there is.
    pub(super) fn flush(&self) {
        let batch = self.batch.take();
        self.batch_bytes.set(0);
        if !batch.is_empty() && !self.is_closed() && !(self.send)(batch) {
            self.is_closed.set(true);
        }
    }
}

/// What is wrong with something longer than its bound.
pub(super) fn too_long(bytes_max: usize) -> String {
    format!("longer than {} KiB", bytes_max >> 10)
}

/// Passes on what was found before each read that may block: whoever types links, or follows a growing file, has them at
/// work at once.
pub(super) struct Flushing<'a, R> {
    pub(super) reader: R,
    pub(super) intake: &'a Intake<'a>,
}

impl<R: Read> Read for Flushing<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.intake.flush();
        self.reader.read(into)
    }
}
