//! Storage: a key and a stream of bytes go in, a complete object or nothing lies there afterwards.
//!
//! `layout` turns URLs into keys, `writer` does the file work on threads of its own, and this file is the door to both.
//! An object is written to a temporary file and renamed, so that no reader ever sees half of one.

pub(crate) mod health;
pub(crate) mod layout;
mod syncer;
mod writer;

use bytes::Bytes;
use clap::ValueEnum;
use health::Health;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use writer::{Order, Surroundings};

/// Where unfinished objects lie, below the root: on the same file system, or a rename would not be one.
const TEMPORARY: &str = ".imgq-tmp";
/// Leftovers of killed workers are removed when they are this old: longer than any download may take.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);
/// Two writers were faster than one, and than writing inline, on two cores; more only take turns.
const WRITERS: usize = 2;
/// Bytes on their way to the writers, for the whole worker: a slow disk makes downloads wait, not memory grow.
const BUFFERED_BYTES_MAX: usize = 16 << 20;
/// An upload passes its bytes on when it has this many, or less with many uploads at once; smaller objects cost their writer
/// one order.
const HAND_OVER_BYTES_MAX: usize = 64 << 10;

/// A probe writes this much: a disk with less room is as good as full.
const PROBE_BYTES: usize = 1 << 20;
/// A probe that takes longer has failed.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// When objects are made durable against a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SyncPolicy {
    /// When the system likes; a power cut may lose the last half minute of objects that were reported.
    None,
    /// Each one, before it is reported.
    File,
    /// Those that are under way at once together, before they are reported.
    Batch,
}

/// A folder that objects are stored in.
#[derive(Debug)]
pub(crate) struct Storage {
    place: Arc<Place>,
    health: Arc<Health>,
    writers: Vec<mpsc::UnboundedSender<Order>>,
    /// Bounds what is queued for the writers, whose channels therefore need no bound of their own.
    buffer: Arc<Semaphore>,
    hand_over_bytes: usize,
    next: AtomicU64,
    run: String,
}

/// An object that lies in storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// An object that was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Existing {
    pub(crate) key: String,
    pub(crate) written: Written,
    /// Its beginning, to tell what it is.
    pub(crate) head: Vec<u8>,
}

impl Storage {
    /// Opens a folder, makes it if it is not there, and proves that it can be written to.
    pub(crate) fn open(root: &Path, uploads_at_once: usize, sync: SyncPolicy) -> io::Result<Storage> {
        let run = format!("{}-{:08x}", std::process::id(), fastrand::u32(..));
        let place = Arc::new(Place::open(root, &run)?);
        let health = Arc::new(Health::new(WRITERS));
        let syncer = if sync == SyncPolicy::Batch { Some(syncer::start(root)?) } else { None };
        let around = Arc::new(Surroundings { place: Arc::clone(&place), health: Arc::clone(&health), sync, syncer });
        let writers = (0..WRITERS).map(|n| writer::start(n, Arc::clone(&around))).collect::<io::Result<_>>()?;
        Ok(Storage {
            place,
            health,
            writers,
            buffer: Arc::new(Semaphore::new(BUFFERED_BYTES_MAX)),
            // Servers that stall leave what their uploads hold lying here: half of the buffer at most, so that the others
            // go on through the other half.
            hand_over_bytes: HAND_OVER_BYTES_MAX.min(BUFFERED_BYTES_MAX / 2 / uploads_at_once.max(1)),
            next: AtomicU64::new(0),
            run,
        })
    }

    fn writer(&self, n: u64) -> &mpsc::UnboundedSender<Order> {
        &self.writers[(n % self.writers.len() as u64) as usize]
    }

    /// Reads the first of `keys` that is there, is not empty, and has a head that `fits`.
    pub(crate) async fn find(
        &self,
        keys: Vec<String>,
        fits: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> Option<Existing> {
        let (reply, answer) = oneshot::channel();
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.writer(n).send(Order::Find { keys, fits: Box::new(fits), reply }).ok()?;
        answer.await.ok().flatten()
    }

    /// Whether it can be used at all.
    pub(crate) fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Whether an error is the storage's own and not that of one object. It asks with a probe where the error does not
    /// tell, and remembers a bad storage.
    pub(crate) async fn is_to_blame(&self, error: &io::Error) -> bool {
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

    /// Whether the storage takes a file; [`Condition::Trial`](health::Condition::Trial) if it does and did not before.
    pub(crate) async fn probe(&self) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.writer(n).send(Order::Probe { reply }).map_err(|_| io::Error::other("the writer thread is gone"))?;
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

    /// Begins an object. Dropping the upload before [`Upload::finish`] leaves nothing behind.
    pub(crate) fn upload(&self) -> Upload {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        Upload {
            writer: self.writer(n).clone(),
            temporary: self.place.root.join(TEMPORARY).join(format!("{}-{n}", self.run)),
            number: n,
            health: Arc::clone(&self.health),
            buffer: Arc::clone(&self.buffer),
            pending: Vec::new(),
            pending_bytes: 0,
            hand_over_bytes: self.hand_over_bytes,
            permits: None,
            begun: false,
            broken: Arc::new(AtomicBool::new(false)),
        }
    }
}

/// One object on its way into storage.
#[derive(Debug)]
pub(crate) struct Upload {
    writer: mpsc::UnboundedSender<Order>,
    temporary: PathBuf,
    number: u64,
    health: Arc<Health>,
    buffer: Arc<Semaphore>,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    hand_over_bytes: usize,
    permits: Option<OwnedSemaphorePermit>,
    begun: bool,
    broken: Arc<AtomicBool>,
}

impl Upload {
    /// Adds bytes; waits while too many are on their way to the disk.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::Error::other("the storage did not take the object's beginning"));
        }
        let wanted = chunk.len().min(BUFFERED_BYTES_MAX) as u32;
        // Bytes that wait here count as well, or many small uploads would not be bounded together. No deadlock: before an
        // upload waits for room it hands over what it holds, and the writers give room back without waiting for anybody.
        let permit = match Arc::clone(&self.buffer).try_acquire_many_owned(wanted) {
            Ok(permit) => permit,
            Err(_) => {
                self.hand_over()?;
                Arc::clone(&self.buffer).acquire_many_owned(wanted).await.map_err(io::Error::other)?
            }
        };
        match &mut self.permits {
            Some(permits) => permits.merge(permit),
            None => self.permits = Some(permit),
        }
        self.pending_bytes += chunk.len();
        self.pending.push(chunk);
        if self.pending_bytes >= self.hand_over_bytes {
            self.hand_over()?;
        }
        Ok(())
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.begun = true;
        self.pending_bytes = 0;
        let order = Order::Append {
            number: self.number,
            temporary: self.temporary.clone(),
            chunks: std::mem::take(&mut self.pending),
            permits: self.permits.take(),
            broken: Arc::clone(&self.broken),
        };
        self.writer.send(order).map_err(|_| io::Error::other("the writer thread is gone"))
    }

    /// Puts the object under its key, whole. Replaces what lies there.
    pub(crate) async fn finish(mut self, key: String) -> io::Result<Written> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Finish {
            number: self.number,
            temporary: self.temporary.clone(),
            chunks: std::mem::take(&mut self.pending),
            permits: self.permits.take(),
            key,
            reply,
        };
        // From here on the writer cleans up.
        self.begun = false;
        self.writer.send(order).map_err(|_| io::Error::other("the writer thread is gone"))?;
        let written = answer.await.map_err(|_| io::Error::other("the writer thread is gone"))?;
        if written.is_ok() {
            self.health.stored();
        }
        written
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.begun {
            // Only at the end of the process is there no writer any more; the leftover is removed later.
            let _ = self.writer.send(Order::Abort { number: self.number });
        }
    }
}

/// Where the objects lie, and how to tell that it is still there: a mount that goes leaves an empty folder of the same name,
/// and what was written to that would be out of everybody's sight once the mount is back.
#[derive(Debug)]
pub(super) struct Place {
    root: PathBuf,
    run: String,
    /// The inode of the root, which stays through an unmount and mount; the device's number may change.
    root_inode: u64,
    /// The device that new files are on.
    device: AtomicU64,
}

impl Place {
    fn open(root: &Path, run: &str) -> io::Result<Place> {
        std::fs::create_dir_all(root.join(TEMPORARY))?;
        let place = Place {
            root: root.to_owned(),
            run: run.to_owned(),
            root_inode: std::fs::metadata(root)?.ino(),
            device: AtomicU64::new(0),
        };
        let probe = place.write_probe(b"probe")?;
        place.device.store(probe.dev(), Ordering::Relaxed);
        place.remove_leftovers(&probe);
        Ok(place)
    }

    /// The facts of a file that was written and removed again.
    fn write_probe(&self, bytes: &[u8]) -> io::Result<Metadata> {
        // Two writers may probe at once.
        let name = format!("probe-{}-{:08x}", self.run, fastrand::u32(..));
        let path = self.root.join(TEMPORARY).join(name);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.metadata()
        };
        let result = write();
        // After an error there may be none.
        let removed = std::fs::remove_file(&path);
        let facts = result?;
        removed?;
        Ok(facts)
    }

    /// Writes a file to see whether that is possible, and that it is the place that was opened.
    fn probe(&self) -> io::Result<()> {
        self.check_root()?;
        self.restore_temporary_folder()?;
        let facts = self.write_probe(&vec![0; PROBE_BYTES])?;
        // The root is the same: whatever the device is called now, it is that one.
        self.device.store(facts.dev(), Ordering::Relaxed);
        Ok(())
    }

    fn check_root(&self) -> io::Result<()> {
        if std::fs::metadata(&self.root)?.ino() == self.root_inode {
            Ok(())
        } else {
            Err(io::Error::other("another folder is in its place; if that is wanted, start the worker again"))
        }
    }

    /// Fails when a new file is not on the device that it should be on.
    fn check_device(&self, file: &File) -> io::Result<()> {
        if file.metadata()?.dev() == self.device.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::StaleNetworkFileHandle, "another file system is in its place"))
        }
    }

    /// Somebody removed the folder of temporary files under a running worker, or all of the storage is gone.
    fn restore_temporary_folder(&self) -> io::Result<()> {
        self.check_root()?;
        std::fs::create_dir_all(self.root.join(TEMPORARY))
    }

    /// Removes what workers that were killed an hour ago or more left unfinished. Others may do the same at this moment.
    /// Times are those of the file system: the clock of this machine may be wrong.
    fn remove_leftovers(&self, now: &Metadata) {
        let Ok(entries) = std::fs::read_dir(self.root.join(TEMPORARY)) else { return };
        for entry in entries.flatten() {
            let modified = entry.metadata().and_then(|facts| facts.modified()).ok();
            let age = modified.and_then(|modified| now.modified().ok()?.duration_since(modified).ok());
            if age.is_some_and(|age| age > LEFTOVER_AGE) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
    }

    fn files_below(root: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("readable").flatten() {
                if entry.path().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
            }
        }
        files
    }

    #[test]
    fn an_object_is_there_whole_with_its_length_and_hash() {
        let root = tempfile::tempdir().expect("a folder");
        runtime().block_on(async {
            let storage = Storage::open(root.path(), 64, SyncPolicy::None).expect("opens");
            for (key, parts) in [("a/b/small.gif", 3), ("a/large.gif", 5000)] {
                let mut upload = storage.upload();
                for _ in 0..parts {
                    upload.write(Bytes::from_static(b"GIF89a-xyz")).await.expect("written");
                }
                let written = upload.finish(key.to_owned()).await.expect("stored");
                assert_eq!(written.bytes, parts * 10);
                let content = std::fs::read(root.path().join(key)).expect("there");
                assert_eq!(content, b"GIF89a-xyz".repeat(parts as usize));
                use sha2::Digest;
                let expected: String =
                    sha2::Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(written.sha256, expected);
                let found = storage.find(vec!["no".into(), key.to_owned()], |head| head.starts_with(b"GIF8")).await;
                let found = found.expect("found");
                assert_eq!((found.key.as_str(), found.written), (key, written));
                assert_eq!(storage.find(vec![key.to_owned()], |_| false).await, None);
            }
        });
    }

    #[test]
    fn a_dropped_upload_leaves_nothing() {
        let root = tempfile::tempdir().expect("a folder");
        runtime().block_on(async {
            let storage = Storage::open(root.path(), 64, SyncPolicy::None).expect("opens");
            let mut upload = storage.upload();
            upload.write(Bytes::from(vec![1; HAND_OVER_BYTES_MAX])).await.expect("written");
            drop(upload);
            // The next order to the same writer is answered after the abort was carried out.
            for _ in 0..WRITERS {
                storage.find(vec!["no".into()], |_| true).await;
            }
            assert_eq!(files_below(root.path()), Vec::<PathBuf>::new());
        });
    }

    #[test]
    fn a_key_that_cannot_be_written_is_an_error_and_leaves_nothing() {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::write(root.path().join("file"), b"x").expect("written");
        runtime().block_on(async {
            let storage = Storage::open(root.path(), 64, SyncPolicy::None).expect("opens");
            let mut upload = storage.upload();
            upload.write(Bytes::from_static(b"x")).await.expect("written");
            assert!(upload.finish("file/below".into()).await.is_err());
            assert_eq!(files_below(root.path()), [root.path().join("file")]);
        });
    }
}
