//! How much of a list is read, for whoever shows it. Written by the thread that reads.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes as they lie there (compressed ones, if the list is), or rows of a Parquet file.
#[derive(Debug, Default)]
pub(crate) struct ReadShare {
    read: AtomicU64,
    /// 0 while nobody knows.
    of: AtomicU64,
}

impl ReadShare {
    /// From 0 to 1; `None` where nobody knows how long the list is.
    pub(crate) fn get(&self) -> Option<f64> {
        let of = self.of.load(Ordering::Relaxed);
        // A file that grows meanwhile is no more than read.
        (of > 0).then(|| (self.read.load(Ordering::Relaxed) as f64 / of as f64).min(1.0))
    }

    /// Begins to count, up to `of`.
    pub(super) fn begin(&self, of: Option<u64>) {
        self.read.store(0, Ordering::Relaxed);
        self.of.store(of.unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn add(&self, read: u64) {
        self.read.fetch_add(read, Ordering::Relaxed);
    }
}

/// Counts what it reads.
pub(super) struct Counted<'a, R> {
    pub(super) reader: R,
    pub(super) share: &'a ReadShare,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(into)?;
        self.share.add(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_known_once_the_whole_is_and_never_more_than_all() {
        let share = ReadShare::default();
        let mut reader = Counted { reader: &b"12345678"[..], share: &share };
        reader.read_exact(&mut [0; 2]).expect("there is more");
        assert_eq!(share.get(), None);
        share.begin(Some(4));
        assert_eq!(share.get(), Some(0.0));
        let mut reader = Counted { reader: &b"12345678"[..], share: &share };
        reader.read_exact(&mut [0; 2]).expect("there is more");
        assert_eq!(share.get(), Some(0.5));
        reader.read_exact(&mut [0; 4]).expect("there is more");
        assert_eq!(share.get(), Some(1.0));
    }
}
