//! For the tests of the readers: what a reader finds, as text.

use super::Entry;
use super::error::ListError;
use super::intake::Intake;
use crate::imgur::ImgurSites;
use common::media::MediaTypes;
use std::cell::RefCell;
use std::io::Read;

/// A reader that gives a few bytes at a time.
struct InReadsOf<'a>(usize, &'a [u8]);

impl Read for InReadsOf<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.0.min(into.len());
        self.1.read(&mut into[..bytes])
    }
}

/// Links as they are, with their hash behind a blank; pages as `page:LINE`; bad lines as they print.
pub(super) fn show(entry: Entry) -> String {
    match entry {
        Entry::Link(wanted) => [Some(wanted.url), wanted.sha256].into_iter().flatten().collect::<Vec<_>>().join(" "),
        Entry::Page { line, .. } => format!("page:{line}"),
        Entry::Bad(bad) => bad.to_string(),
    }
}

/// What a reader hands in for a list that is named `l`; an error as the last.
pub(super) fn collect(read: impl FnOnce(&Intake<'_>) -> Result<(), ListError>) -> Vec<String> {
    let entries = RefCell::new(Vec::new());
    let send = |batch: Vec<Entry>| {
        assert!(!batch.is_empty());
        entries.borrow_mut().extend(batch.into_iter().map(show));
        true
    };
    let sites = ImgurSites::default();
    let intake = Intake::new("l", &sites, MediaTypes::default(), &send);
    let result = read(&intake);
    intake.flush();
    let mut entries = entries.take();
    if let Err(error) = result {
        entries.push(format!("error: {}", error.why));
    }
    entries
}

/// A reader of some format.
type ReadList<'r> = &'r dyn Fn(Box<dyn Read + '_>, &Intake<'_>) -> Result<(), ListError>;

pub(super) fn found(bytes: &[u8], read: ReadList<'_>) -> Vec<String> {
    found_in_reads_of(usize::MAX, bytes, read)
}

pub(super) fn found_in_reads_of(count: usize, bytes: &[u8], read: ReadList<'_>) -> Vec<String> {
    collect(|intake| read(Box::new(InReadsOf(count, bytes)), intake))
}
