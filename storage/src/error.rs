//! Errors of the storage that the system has no number for, and copies of those that several are to hear of.

use std::fmt::{self, Display, Formatter};
use std::io;

/// What was written did not reach the disk. That is the storage's own fault, whatever the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyncFailed(String);

impl SyncFailed {
    pub(super) fn error(why: impl Display) -> io::Error {
        io::Error::other(SyncFailed(why.to_string()))
    }

    /// Whether an error is one.
    pub(super) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<SyncFailed>())
    }
}

impl Display for SyncFailed {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "what was written did not reach the disk: {}", self.0)
    }
}

impl std::error::Error for SyncFailed {}

/// A symbolic link stands where a folder should be. That is a fault of the objects that lie in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkInTheWay;

impl LinkInTheWay {
    /// Whether an error is one.
    pub(super) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<LinkInTheWay>())
    }
}

impl Display for LinkInTheWay {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("its folder is a symbolic link, or below one, and none is followed within the storage")
    }
}

impl std::error::Error for LinkInTheWay {}

/// Errors cannot be cloned.
pub(super) fn copy_of(error: &io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<SyncFailed>()) {
        Some(failed) => io::Error::other(failed.clone()),
        None => error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error),
    }
}
