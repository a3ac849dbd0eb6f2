//! The syncer: makes objects durable together (`--sync batch`).
//!
//! While one batch is on its way to the disk the next one gathers, so two waits for the disk serve as many objects as are
//! under way at once. Data first, then names: a power cut leaves no name without its data.
//!
//! The system tells of a write-back error once, does not say whose bytes were lost, and does not try again. So a failed sync,
//! be it the one before the names or the one after, concerns every object that has bytes written and is not confirmed: those
//! of the batch, those that wait for the next one, and those that are still being written, of which the next sync would say
//! nothing. What was confirmed before is on the disk.

use super::error::{SyncFailed, copy_of};
use super::file_system::SyncFileSystem;
use super::health::Health;
use super::object::{Unstored, Written};
use super::unfinished::Unfinished;
use clap::ValueEnum;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};

/// When objects are made durable against a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SyncPolicy {
    /// When the system likes; a power cut may lose the last half minute of objects that were reported.
    None,
    /// Each one, before it is reported.
    File,
    /// Those that are under way at once together, before they are reported.
    Batch,
}

/// What the syncer is asked to do.
pub(super) enum SyncOrder {
    /// To give an object its name.
    Name(Box<Waiting>),
    /// To sync, to see whether that is possible.
    Probe(oneshot::Sender<io::Result<()>>),
}

/// An object that is written and waits for its name.
pub(super) struct Waiting {
    pub(super) unfinished: Unfinished,
    pub(super) key: String,
    pub(super) reply: oneshot::Sender<Result<Written, Unstored>>,
}

/// The way to the syncer's thread, which ends with the last of them.
#[derive(Debug)]
pub(super) struct Syncer {
    orders: mpsc::UnboundedSender<SyncOrder>,
    failures: Arc<AtomicU64>,
}

impl Syncer {
    /// Starts the thread, which tells of its progress under the number `thread`.
    pub(super) fn start(
        mut file_system: Box<dyn SyncFileSystem>,
        health: Arc<Health>,
        thread: usize,
    ) -> io::Result<Syncer> {
        // Bounded by the worker's slots: each upload waits for its answer.
        let (sender, mut orders) = mpsc::unbounded_channel();
        let failures = Arc::new(AtomicU64::new(0));
        let mut batch = Batch { failures: Arc::clone(&failures), waiting: Vec::new(), probes: Vec::new() };
        std::thread::Builder::new().name("syncer".into()).spawn(move || {
            while let Some(first) = orders.blocking_recv() {
                batch.add(first);
                while let Ok(next) = orders.try_recv() {
                    batch.add(next);
                }
                // Whoever waits for a sync that panics gets no answer, and takes that for an error. The thread goes on.
                let carried_out = catch_unwind(AssertUnwindSafe(|| {
                    batch.carry_out(&mut *file_system, &|| health.progressed(thread))
                }));
                if carried_out.is_err() {
                    batch.give_up();
                }
                health.became_idle(thread);
            }
        })?;
        Ok(Syncer { orders: sender, failures })
    }

    /// Hands over an order; the answer comes by the order's own way.
    pub(super) fn send(&self, order: SyncOrder) {
        // The thread lives as long as this sender.
        let _ = self.orders.send(order);
    }

    /// How many syncs have failed. What was written before the last of them may be lost.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }
}

/// Those that two syncs are for.
struct Batch {
    failures: Arc<AtomicU64>,
    waiting: Vec<Waiting>,
    probes: Vec<oneshot::Sender<io::Result<()>>>,
}

impl Batch {
    fn add(&mut self, order: SyncOrder) {
        match order {
            SyncOrder::Name(waiting) => self.waiting.push(*waiting),
            SyncOrder::Probe(reply) => self.probes.push(reply),
        }
    }

    /// A sync tells nothing while it goes on: one that takes long looks as stuck as it may be.
    fn carry_out(&mut self, file_system: &mut dyn SyncFileSystem, progressed: &dyn Fn()) {
        progressed();
        let data = self.sync(file_system);
        for reply in self.probes.drain(..) {
            // Whoever probed may have given up.
            let _ = reply.send(data.as_ref().map_err(copy_of).copied());
        }
        if self.waiting.is_empty() {
            return;
        }
        let failures = self.failures.load(Ordering::Acquire);
        let mut named = Vec::with_capacity(self.waiting.len());
        for Waiting { unfinished, key, reply } in self.waiting.drain(..) {
            progressed();
            let result = match &data {
                Err(error) => Err(copy_of(error)),
                // The sync that failed was another's, but it may have been told of this object's bytes.
                Ok(()) if unfinished.sync_failures_before != failures => {
                    Err(SyncFailed::error("while the object was written"))
                }
                Ok(()) => unfinished.rename_to(&key),
            };
            named.push((result, reply));
        }
        progressed();
        let names = self.sync(file_system);
        for (result, reply) in named {
            let result = result.and_then(|written| names.as_ref().map(|()| written).map_err(copy_of));
            // Whoever waits may have given up; the object is complete, so it may stay.
            let _ = reply.send(result.map_err(Unstored::from));
        }
    }

    /// Nobody knows what became of it: as after a sync that failed.
    fn give_up(&mut self) {
        self.failures.fetch_add(1, Ordering::AcqRel);
        self.waiting.clear();
        self.probes.clear();
    }

    fn sync(&self, file_system: &mut dyn SyncFileSystem) -> io::Result<()> {
        file_system.sync().map_err(|error| {
            self.failures.fetch_add(1, Ordering::AcqRel);
            SyncFailed::error(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Blame, STUCK_AFTER, blame};
    use crate::tests::{GifJudge, files_below, gif, runtime};
    use crate::upload::HAND_OVER_BYTES_MAX;
    use crate::writer::WRITERS;
    use crate::{Storage, Upload};
    use bytes::Bytes;
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::{Duration, Instant};

    /// What the kernel keeps of the write-back errors of one file system, as in `lib/errseq.c`.
    #[derive(Default)]
    struct Disk {
        errors: u64,
        /// Somebody was told of the last one.
        is_seen: bool,
    }

    type SharedDisk = Arc<Mutex<Disk>>;

    /// Pages of whatever is being written are lost.
    fn lose(disk: &SharedDisk) {
        let mut disk = disk.lock().expect("no panic");
        *disk = Disk { errors: disk.errors + 1, is_seen: false };
    }

    struct Descriptor {
        disk: SharedDisk,
        told: u64,
    }

    impl Descriptor {
        fn open(disk: &SharedDisk) -> Descriptor {
            let state = disk.lock().expect("no panic");
            let told = if state.is_seen { state.errors } else { 0 };
            Descriptor { disk: Arc::clone(disk), told }
        }
    }

    impl SyncFileSystem for Descriptor {
        fn sync(&mut self) -> io::Result<()> {
            let mut disk = self.disk.lock().expect("no panic");
            if self.told == disk.errors {
                return Ok(());
            }
            self.told = disk.errors;
            disk.is_seen = true;
            Err(io::Error::from_raw_os_error(5))
        }
    }

    /// Does one thing after the other, one with each sync.
    struct Scripted(std::vec::IntoIter<Box<dyn FnOnce() -> io::Result<()> + Send>>);

    impl SyncFileSystem for Scripted {
        fn sync(&mut self) -> io::Result<()> {
            self.0.next().map_or(Ok(()), |step| step())
        }
    }

    fn open(root: &Path, file_system: impl SyncFileSystem + 'static, stuck_after: Duration) -> Storage {
        let judge = Arc::new(GifJudge::default());
        Storage::open_with(root, 64, SyncPolicy::Batch, judge, |_| Ok(Box::new(file_system)), stuck_after)
            .expect("opens")
    }

    /// An upload of which a writer has written a part.
    async fn begun(storage: &Storage) -> Upload {
        let mut upload = storage.upload();
        upload.write(Bytes::from(vec![b'G'; HAND_OVER_BYTES_MAX])).await.expect("written");
        // The next order to the same writer is answered after the part was written.
        for _ in 0..WRITERS {
            storage.find(vec![vec!["no".into()]]).await;
        }
        upload
    }

    async fn finish(upload: Upload, key: &str) -> Result<Written, io::Error> {
        match upload.finish(key.into(), false, gif(None)).await {
            Ok(written) => Ok(written),
            Err(Unstored::Failed(error)) => Err(error),
            Err(Unstored::Refused(rejection)) => panic!("{rejection}"),
        }
    }

    /// It failed, and the storage is to blame.
    async fn is_lost(upload: Upload, key: &str) -> bool {
        let result = finish(upload, key).await;
        result.is_err_and(|error| blame(&error) == Blame::Storage)
    }

    #[test]
    fn an_error_that_somebody_else_was_told_of_before_is_not_missed() {
        let (root, disk) = (tempfile::tempdir().expect("a folder"), SharedDisk::default());
        runtime().block_on(async {
            let storage = open(root.path(), Descriptor::open(&disk), STUCK_AFTER);
            let upload = begun(&storage).await;
            lose(&disk);
            assert!(Descriptor::open(&disk).sync().is_err(), "another program syncs, and is told");
            assert!(Descriptor::open(&disk).sync().is_ok(), "whoever opens it now is not");
            assert!(is_lost(upload, "a.gif").await);
            assert_eq!(files_below(root.path()), Vec::<PathBuf>::new());
            finish(storage.upload(), "b.gif").await.expect("what comes later is stored");
        });
    }

    #[test]
    fn a_failed_sync_fails_what_was_being_written_and_nothing_that_comes_later() {
        let root = tempfile::tempdir().expect("a folder");
        runtime().block_on(async {
            let fails = || Box::new(|| Err(io::Error::from_raw_os_error(5))) as Box<dyn FnOnce() -> _ + Send>;
            let works = || Box::new(|| Ok(())) as Box<dyn FnOnce() -> _ + Send>;
            // Of data, of the names of nobody, of the data and names of two that come later; of data, and of names.
            let script = vec![fails(), works(), works(), works(), works(), fails()];
            let storage = open(root.path(), Scripted(script.into_iter()), STUCK_AFTER);
            let (first, second) = (begun(&storage).await, begun(&storage).await);
            assert!(is_lost(first, "first.gif").await, "in the batch");
            assert!(is_lost(second, "second.gif").await, "its own sync is told of nothing");
            assert_eq!(files_below(root.path()), Vec::<PathBuf>::new(), "what is lost has no name");
            let (third, fourth) = (begun(&storage).await, begun(&storage).await);
            assert!(is_lost(third, "third.gif").await, "its name may not be on the disk");
            assert!(is_lost(fourth, "fourth.gif").await, "its data may not");
            finish(begun(&storage).await, "fifth.gif").await.expect("stored");
        });
    }

    #[test]
    fn a_sync_that_panics_costs_its_objects_and_not_those_that_come_later() {
        let root = tempfile::tempdir().expect("a folder");
        runtime().block_on(async {
            let panics: Box<dyn FnOnce() -> io::Result<()> + Send> = Box::new(|| panic!("in a sync"));
            let storage = open(root.path(), Scripted(vec![panics].into_iter()), STUCK_AFTER);
            let (first, second) = (begun(&storage).await, begun(&storage).await);
            assert!(finish(first, "first.gif").await.is_err(), "nobody knows");
            assert!(is_lost(second, "second.gif").await, "it was being written");
            finish(begun(&storage).await, "third.gif").await.expect("stored");
            assert!(!storage.health().is_stuck());
        });
    }

    #[test]
    fn a_probe_finds_a_disk_that_loses_what_it_takes() {
        let root = tempfile::tempdir().expect("a folder");
        runtime().block_on(async {
            let fails = Box::new(|| Err(io::Error::from_raw_os_error(5))) as Box<dyn FnOnce() -> _ + Send>;
            let storage = open(root.path(), Scripted(vec![fails].into_iter()), STUCK_AFTER);
            storage.health().set_bad("a sync failed");
            assert!(storage.probe().await.is_err());
            assert!(storage.health().is_bad());
            storage.probe().await.expect("it works again");
            assert!(!storage.health().is_bad());
        });
    }

    /// A sync that returns when it is told to.
    struct Hanging(Receiver<()>);

    impl SyncFileSystem for Hanging {
        fn sync(&mut self) -> io::Result<()> {
            self.0.recv().map_err(io::Error::other)
        }
    }

    #[test]
    fn a_sync_that_hangs_is_a_storage_that_is_stuck() {
        let root = tempfile::tempdir().expect("a folder");
        runtime().block_on(async {
            let (go_on, waits) = channel();
            let storage = open(root.path(), Hanging(waits), Duration::from_millis(20));
            let finishing = tokio::spawn(finish(storage.upload(), "a.gif"));
            let began = Instant::now();
            while !storage.health().is_stuck() {
                assert!(began.elapsed() < Duration::from_secs(20), "the storage is stuck, and nobody notices");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(!finishing.is_finished());
            for _ in 0..2 {
                go_on.send(()).expect("it waits");
            }
            finishing.await.expect("no panic").expect("stored");
            assert!(!storage.health().is_stuck());
        });
    }
}
