//! What callers say and hear of an object: what it is expected to be, what became of it, and who judges it.

use common::media::MediaInfo;
use common::outcome::Rejection;
use std::fs::File;
use std::io;

/// An object that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its length in bytes.
    pub bytes: u64,
    /// Of all of it, lower-case hex.
    pub sha256: String,
}

/// Says what objects have to be like. It is asked on the writers' threads, where it may read and take its time.
pub trait Judge: Send + Sync {
    /// What an object is by its beginning, which is 64 KiB of it or all; `None` when it is nothing that is looked for.
    fn info_of(&self, beginning: &[u8]) -> Option<MediaInfo>;

    /// The verdict over a whole object. `progress` is to be called at least once a second, or the storage is taken to be stuck.
    ///
    /// # Errors
    /// When the object cannot be read; what is wrong with it is a verdict.
    fn judge(&self, object: WholeObject<'_>, progress: &dyn Fn()) -> io::Result<Result<(), Rejection>>;
}

/// An object when all of it is there, with its name or before it has one.
#[derive(Debug, Clone, Copy)]
pub struct WholeObject<'a> {
    /// Open for reading, at any position.
    pub file: &'a File,
    /// Its length in bytes.
    pub bytes: u64,
    /// Of all of it, lower-case hex.
    pub sha256: &'a str,
    /// By its beginning.
    pub info: MediaInfo,
    /// What its hash has to be, where the job says so.
    pub sha256_wanted: Option<&'a str>,
}

/// An object that was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Its key: its path below the root.
    pub key: String,
    /// Its length and hash.
    pub written: Written,
    /// What it is by its beginning.
    pub info: MediaInfo,
    /// What is wrong with it, by what is demanded today.
    pub refused: Option<Rejection>,
}

/// What an object is expected to be, or it does not get its name.
#[derive(Debug)]
pub struct Expected {
    /// What it is by its beginning.
    pub info: MediaInfo,
    /// Its hash in lower-case hex, where the job names it.
    pub sha256: Option<String>,
}

/// Why an object did not get its name.
#[derive(Debug)]
pub enum Unstored {
    /// It is not what was asked for.
    Refused(Rejection),
    /// It could not be kept.
    Failed(io::Error),
}

impl From<io::Error> for Unstored {
    fn from(error: io::Error) -> Unstored {
        Unstored::Failed(error)
    }
}
