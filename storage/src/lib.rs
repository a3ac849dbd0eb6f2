//! Storage: a key and a stream of bytes go in, a complete object or nothing lies there afterwards.
//!
//! This file is the door. An [`Upload`] gathers bytes and hands them over through the `outbox` to a `writer`, which does the
//! file work on a thread of its own: an `unfinished` file is written, judged, and gets its name, with [`SyncPolicy::Batch`] from
//! the `syncer`. So no reader ever sees half of an object. `layout` turns URLs into keys, `root` is the folder. The
//! storage knows bytes and keys; what objects have to be like is for a [`Judge`] to say.

pub mod beneath;
mod error;
mod file_system;
pub mod health;
pub mod layout;
#[cfg(any(test, feature = "properties"))]
pub mod layout_properties;
mod mark;
mod naming;
mod object;
mod outbox;
mod root;
mod syncer;
#[cfg(test)]
mod tests;
mod unfinished;
mod upload;
mod writer;

pub use object::{Existing, Expected, Judge, Unstored, WholeObject, Written};
pub use syncer::SyncPolicy;
pub use upload::Upload;

use file_system::{MountedFileSystem, SyncFileSystem};
use health::{Health, STUCK_AFTER};
use layout::Case;
use outbox::Outbox;
use root::Root;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use syncer::Syncer;
use tokio::sync::{mpsc, oneshot};
use upload::Uploads;
use writer::{Order, Shared, WRITERS};

/// A probe that takes longer has failed.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// A folder that objects are stored in.
#[derive(Debug)]
pub struct Storage {
    root: Arc<Root>,
    health: Arc<Health>,
    outbox: Arc<Outbox>,
    uploads: Uploads,
    /// Carry orders to the writers and their answers back.
    messengers: [tokio::task::JoinHandle<()>; 2],
}

impl Storage {
    /// Opens a folder, makes it if it is not there, and proves that it can be written to. `uploads_at_once` is how many
    /// are expected, so that all have a share of the buffer. Within a runtime.
    ///
    /// # Errors
    /// What stands against writing there.
    pub fn open(path: &Path, uploads_at_once: usize, sync: SyncPolicy, judge: Arc<dyn Judge>) -> io::Result<Storage> {
        let open = |path: &Path| Ok(Box::new(MountedFileSystem::open(path)?) as Box<dyn SyncFileSystem>);
        Storage::open_with(path, uploads_at_once, sync, judge, open, STUCK_AFTER)
    }

    fn open_with(
        path: &Path,
        uploads_at_once: usize,
        sync: SyncPolicy,
        judge: Arc<dyn Judge>,
        open_file_system: impl FnOnce(&Path) -> io::Result<Box<dyn SyncFileSystem>>,
        stuck_after: Duration,
    ) -> io::Result<Storage> {
        let run = format!("{}-{:08x}", std::process::id(), fastrand::u32(..));
        let health = Arc::new(Health::with_stuck_after(WRITERS + 1, stuck_after));
        std::fs::create_dir_all(path)?;
        let syncer = match sync {
            SyncPolicy::None | SyncPolicy::File => None,
            // Before anything is written, or it would not be told of all that is lost.
            SyncPolicy::Batch => Some(Syncer::start(open_file_system(path)?, Arc::clone(&health), WRITERS)?),
        };
        let root = Arc::new(Root::open(path, &run)?);
        let shared = Arc::new(Shared { root: Arc::clone(&root), health: Arc::clone(&health), judge, sync, syncer });
        let (done, replies) = mpsc::unbounded_channel();
        let start = |n| writer::start(n, Arc::clone(&shared), mpsc::UnboundedSender::clone(&done));
        let writers = (0..WRITERS).map(start).collect::<io::Result<Vec<_>>>()?;
        let outbox = Arc::new(Outbox::default());
        Ok(Storage {
            uploads: Uploads::new(Arc::clone(&outbox), Arc::clone(&health), run, uploads_at_once),
            messengers: [tokio::spawn(Arc::clone(&outbox).deliver(writers)), tokio::spawn(outbox::forward(replies))],
            root,
            health,
            outbox,
        })
    }

    /// Looks for objects, in one order to one writer: for each list of keys, the first one that is there, is not empty,
    /// and is something to the judge by its beginning. A hop for each would cost more than looking. Cancel safe.
    pub async fn find(&self, candidates: Vec<Vec<String>>) -> Vec<Option<Existing>> {
        let (reply, answer) = oneshot::channel();
        let count = candidates.len();
        self.outbox.put(None, Order::Find { candidates, reply });
        let found = answer.await.ok();
        found.unwrap_or_else(|| (0..count).map(|_| None).collect())
    }

    /// Whether there may be objects of other types than their URLs promise, and so under other keys.
    pub fn has_other_types(&self) -> bool {
        self.root.other_types.is_known()
    }

    /// What it makes of names that differ in case only, so that all workers use the same keys.
    pub fn case(&self) -> Case {
        if self.root.folds_case.is_known() { Case::Folded } else { Case::Sensitive }
    }

    /// Whether it can be used at all.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Whether an error is the storage's own and not that of one object. It asks with a probe where the error does not
    /// tell, and remembers a bad storage. Cancel safe.
    pub async fn is_to_blame(&self, error: &io::Error) -> bool {
        let bad = match health::blame(error) {
            health::Blame::Key => return false,
            health::Blame::Storage => Some(error.to_string()),
            health::Blame::Unknown if self.health.is_bad() => return true,
            health::Blame::Unknown => self.probe().await.err().map(|error| error.to_string()),
        };
        if let Some(why) = &bad {
            self.health.set_bad(why);
        }
        bad.is_some()
    }

    /// Whether the storage takes a file; [`Condition::Trial`](health::Condition::Trial) if it does and did not before. Takes 5 s
    /// at most. Cancel safe.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn probe(&self) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.outbox.put(None, Order::Probe { reply });
        match tokio::time::timeout(PROBE_MAX, answer).await {
            Ok(Ok(result)) => result?,
            Ok(Err(_)) => return Err(io::Error::other("the writer thread is gone")),
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer")),
        }
        if self.health.is_bad() && !self.health.is_stuck() {
            self.health.set_trial();
        }
        Ok(())
    }

    /// Begins an object.
    pub fn upload(&self) -> Upload {
        self.uploads.begin()
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.messengers.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
