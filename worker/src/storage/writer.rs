//! A writer thread: creates, hashes, writes and renames files, one order after another.
//!
//! File calls block, and tokio's own answer (a hop through its blocking pool for each) costs a third to a half of the
//! throughput on small images. A thread that lives as long as the worker takes orders through a channel instead.

use super::health::Health;
use super::syncer::{Waiting, copy_of};
use super::{Existing, Place, SyncPolicy, Written};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// How much of an object that was there before is shown to the caller.
const HEAD_BYTES: usize = 64 << 10;

/// Tells whether the beginning of a file is what is looked for.
pub(super) type Fits = Box<dyn Fn(&[u8]) -> bool + Send>;

/// What a writer is asked to do. Permits are dropped when the bytes they stand for are written.
pub(super) enum Order {
    Append {
        number: u64,
        temporary: PathBuf,
        chunks: Vec<Bytes>,
        permits: Option<OwnedSemaphorePermit>,
        broken: Arc<AtomicBool>,
    },
    Finish {
        number: u64,
        temporary: PathBuf,
        chunks: Vec<Bytes>,
        permits: Option<OwnedSemaphorePermit>,
        key: String,
        reply: oneshot::Sender<io::Result<Written>>,
    },
    Abort {
        number: u64,
    },
    Find {
        keys: Vec<String>,
        fits: Fits,
        reply: oneshot::Sender<Option<Existing>>,
    },
    Probe {
        reply: oneshot::Sender<io::Result<()>>,
    },
}

/// What all writers of a storage share.
pub(super) struct Surroundings {
    pub(super) place: Arc<Place>,
    pub(super) health: Arc<Health>,
    pub(super) sync: SyncPolicy,
    /// With [`SyncPolicy::Batch`].
    pub(super) syncer: Option<mpsc::UnboundedSender<Waiting>>,
}

/// Starts a writer; it ends when the last sender is dropped.
pub(super) fn start(n: usize, around: Arc<Surroundings>) -> io::Result<mpsc::UnboundedSender<Order>> {
    let (sender, mut orders) = mpsc::unbounded_channel();
    std::thread::Builder::new().name(format!("writer-{n}")).spawn(move || {
        let mut open: HashMap<u64, io::Result<Unfinished>> = HashMap::new();
        while let Some(order) = orders.blocking_recv() {
            around.health.gets_on(n);
            carry_out(n, order, &around, &mut open);
            around.health.rests(n);
        }
    })?;
    Ok(sender)
}

fn carry_out(n: usize, order: Order, around: &Surroundings, open: &mut HashMap<u64, io::Result<Unfinished>>) {
    match order {
        Order::Append { number, temporary, chunks, permits, broken } => {
            let unfinished = open.entry(number).or_insert_with(|| Unfinished::create(temporary, &around.place));
            let result = unfinished.as_mut().map_err(|error| copy_of(error));
            if let Err(error) = result.and_then(|unfinished| unfinished.append(&chunks)) {
                broken.store(true, Ordering::Relaxed);
                *unfinished = Err(error);
            }
            drop(permits);
        }
        Order::Finish { number, temporary, chunks, permits, key, reply } => {
            let unfinished = open.remove(&number).unwrap_or_else(|| Unfinished::create(temporary, &around.place));
            let written = unfinished.and_then(|mut unfinished| unfinished.append(&chunks).map(|()| unfinished));
            drop(permits);
            let target = around.place.root.join(key);
            let result = match (written, around.sync, &around.syncer) {
                (Ok(unfinished), SyncPolicy::Batch, Some(syncer)) => {
                    // The thread lives as long as this sender.
                    let _ = syncer.send(Waiting { unfinished, target, reply });
                    return;
                }
                (Ok(unfinished), SyncPolicy::File, _) => unfinished.rename_durably_to(&target, &around.place.root),
                (Ok(unfinished), _, _) => unfinished.rename_to(&target),
                (Err(error), ..) => Err(error),
            };
            // The download may have been given up meanwhile; the object is complete, so it may stay.
            let _ = reply.send(result);
        }
        Order::Abort { number } => drop(open.remove(&number)),
        Order::Find { keys, fits, reply } => {
            let find = |key| read_existing(&around.place.root, key, &fits, around.sync, || around.health.gets_on(n));
            let found = keys.into_iter().find_map(find);
            let _ = reply.send(found);
        }
        Order::Probe { reply } => {
            let _ = reply.send(around.place.probe());
        }
    }
}

/// A temporary file that removes itself unless it was renamed.
pub(super) struct Unfinished {
    path: Option<PathBuf>,
    file: File,
    hasher: Sha256,
    bytes: u64,
}

impl Unfinished {
    fn create(path: PathBuf, place: &Place) -> io::Result<Unfinished> {
        let create = |path: &Path| OpenOptions::new().write(true).create_new(true).open(path);
        let file = match create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                place.restore_temporary_folder()?;
                create(&path)?
            }
            other => other?,
        };
        let unfinished = Unfinished { path: Some(path), file, hasher: Sha256::new(), bytes: 0 };
        // One fstat, 0.3 µs: a mount that has gone leaves a folder of the same name behind, on another file system.
        place.check_device(&unfinished.file)?;
        Ok(unfinished)
    }

    fn append(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        for chunk in chunks {
            self.file.write_all(chunk)?;
            self.hasher.update(chunk);
            self.bytes += chunk.len() as u64;
        }
        Ok(())
    }

    /// As [`Unfinished::rename_to`], and a power cut afterwards changes nothing.
    fn rename_durably_to(self, target: &Path, root: &Path) -> io::Result<Written> {
        self.file.sync_all()?;
        let written = self.rename_to(target)?;
        sync_folders(target, root)?;
        Ok(written)
    }

    pub(super) fn rename_to(mut self, target: &Path) -> io::Result<Written> {
        if let Some(path) = &self.path {
            match std::fs::rename(path, target) {
                // Cheaper than asking for the folder each time: it is missing once.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    target.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                    std::fs::rename(path, target)?;
                }
                other => other?,
            }
        }
        self.path = None;
        Ok(Written { bytes: self.bytes, sha256: hex(self.hasher.finalize_reset().as_slice()) })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Makes the name of `target` durable, and those of the folders above it, which may be as new.
fn sync_folders(target: &Path, root: &Path) -> io::Result<()> {
    for folder in target.ancestors().skip(1).take_while(|folder| folder.starts_with(root)) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn read_existing(root: &Path, key: String, fits: &Fits, sync: SyncPolicy, gets_on: impl Fn()) -> Option<Existing> {
    let path = root.join(&key);
    let mut file = File::open(&path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut head = Vec::with_capacity(4096);
    Read::by_ref(&mut file).take(HEAD_BYTES as u64).read_to_end(&mut head).ok()?;
    if head.is_empty() || !fits(&head) {
        return None;
    }
    let mut hasher = Sha256::new();
    hasher.update(&head);
    let mut bytes = head.len() as u64;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                gets_on();
                hasher.update(&buffer[..n]);
                bytes += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    if sync != SyncPolicy::None {
        // It may have been stored a moment ago by a worker that was killed before it was durable.
        file.sync_all().and_then(|()| sync_folders(&path, root)).ok()?;
    }
    Some(Existing { key, written: Written { bytes, sha256: hex(hasher.finalize().as_slice()) }, head })
}
