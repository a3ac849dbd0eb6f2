//! Whether the storage can be used at all: what a full, read-only, vanished or stuck file system is to a worker.
//!
//! Such an error is no job's fault. The job goes back without an attempt spent, and the worker claims nothing until a probe
//! succeeds; then it tries one job, and goes on at full width once that is stored. Otherwise a full disk would use up the
//! attempts of a whole queue.

use super::error::{LinkInTheWay, SyncFailed};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A thread that has made no progress for this long is stuck: a network file system whose server is away blocks for ever.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(10);

/// What can be expected of the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It works.
    Good,
    /// It does not, for this reason: nothing is claimed.
    Bad(String),
    /// It seems to work again: one job is claimed at a time until one was stored.
    Trial,
}

/// The condition of one storage, shared by those who use it.
#[derive(Debug)]
pub struct Health {
    condition: watch::Sender<Condition>,
    epoch: Instant,
    stuck_after: Duration,
    /// For each thread: when its work last made progress (ms since `epoch`, plus one); 0 while it has none.
    progress: Vec<AtomicU64>,
}

impl Health {
    /// Of a storage that works, with so many threads that do its file work.
    pub fn new(threads: usize) -> Health {
        Health::with_stuck_after(threads, STUCK_AFTER)
    }

    pub(super) fn with_stuck_after(threads: usize, stuck_after: Duration) -> Health {
        Health {
            condition: watch::Sender::new(Condition::Good),
            epoch: Instant::now(),
            stuck_after,
            progress: (0..threads).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// What can be expected at this moment.
    pub fn condition(&self) -> Condition {
        self.condition.borrow().clone()
    }

    /// Tells of every change from now on.
    pub fn watch(&self) -> watch::Receiver<Condition> {
        self.condition.subscribe()
    }

    /// Whether nothing is to be claimed.
    pub fn is_bad(&self) -> bool {
        matches!(*self.condition.borrow(), Condition::Bad(_))
    }

    /// It cannot be used, for this reason.
    pub fn set_bad(&self, why: &str) {
        let changed = self.condition.send_if_modified(|condition| {
            let was_bad = matches!(condition, Condition::Bad(_));
            *condition = Condition::Bad(why.to_owned());
            !was_bad
        });
        if changed {
            tracing::error!("the storage cannot be used ({why}); nothing is claimed until it can");
        }
    }

    pub(super) fn set_trial(&self) {
        tracing::warn!("the storage can be used again; trying one job");
        self.condition.send_replace(Condition::Trial);
    }

    /// An object was stored, or a trial has gone on for long enough without an error: its jobs may all have had nothing to
    /// store.
    pub fn stored(&self) {
        self.condition.send_if_modified(|condition| {
            let was_trial = *condition == Condition::Trial;
            if was_trial {
                *condition = Condition::Good;
                tracing::warn!("the storage works");
            }
            was_trial
        });
    }

    /// A thread began something, or made progress with it.
    pub(super) fn progressed(&self, thread: usize) {
        self.progress[thread].store(self.epoch.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
    }

    /// A thread has nothing to do.
    pub(super) fn became_idle(&self, thread: usize) {
        self.progress[thread].store(0, Ordering::Relaxed);
    }

    /// Whether a thread of the storage has made no progress for 10 s.
    pub fn is_stuck(&self) -> bool {
        let now_ms = self.epoch.elapsed().as_millis() as u64 + 1;
        self.progress
            .iter()
            .map(|at| at.load(Ordering::Relaxed))
            .any(|at_ms| at_ms > 0 && now_ms.saturating_sub(at_ms) > self.stuck_after.as_millis() as u64)
    }
}

/// Whose fault an error of the storage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The storage's as a whole.
    Storage,
    /// This object's name: too long, or a file where a folder is needed.
    Key,
    /// The error alone does not tell; a probe does.
    Unknown,
}

/// Tells whose fault an error is. Pure.
pub fn blame(error: &io::Error) -> Blame {
    if SyncFailed::is(error) {
        return Blame::Storage;
    }
    if LinkInTheWay::is(error) {
        return Blame::Key;
    }
    match error.kind() {
        ErrorKind::StorageFull
        | ErrorKind::QuotaExceeded
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::StaleNetworkFileHandle => Blame::Storage,
        ErrorKind::InvalidFilename
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::AlreadyExists
        | ErrorKind::DirectoryNotEmpty
        | ErrorKind::InvalidInput
        | ErrorKind::FileTooLarge => Blame::Key,
        _ => Blame::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_nobody_s_fault_and_a_bad_name_is_its_own() {
        for (code, whose) in [
            (28, Blame::Storage),  // ENOSPC
            (122, Blame::Storage), // EDQUOT
            (30, Blame::Storage),  // EROFS
            (116, Blame::Storage), // ESTALE
            (36, Blame::Key),      // ENAMETOOLONG
            (20, Blame::Key),      // ENOTDIR
            (21, Blame::Key),      // EISDIR
            (27, Blame::Key),      // EFBIG
            (5, Blame::Unknown),   // EIO
            (13, Blame::Unknown),  // EACCES
            (2, Blame::Unknown),   // ENOENT
        ] {
            assert_eq!(blame(&io::Error::from_raw_os_error(code)), whose, "{code}");
        }
        // Had the call failed that wrote the bytes, a probe would have told. One that failed later concerns everybody.
        assert_eq!(blame(&io::Error::other(LinkInTheWay)), Blame::Key);
        let lost = SyncFailed::error(io::Error::from_raw_os_error(5));
        assert_eq!(blame(&lost), Blame::Storage);
    }

    #[test]
    fn after_bad_comes_a_trial_and_a_stored_object_ends_it() {
        let health = Health::new(1);
        health.stored();
        assert_eq!(health.condition(), Condition::Good);
        health.set_bad("full");
        health.stored();
        assert!(health.is_bad(), "an upload that was under way proves nothing");
        health.set_trial();
        health.stored();
        assert_eq!(health.condition(), Condition::Good);
    }
}
