//! A writer thread: creates, hashes, writes and renames files, one order after another.
//!
//! File calls block, and tokio's own answer (a hop through its blocking pool for each) costs a third to a half of the
//! throughput on small images. A thread that lives as long as the worker takes orders through a channel instead.

use super::{Existing, Written};
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
}

/// Starts a writer; it ends when the last sender is dropped.
pub(super) fn start(n: usize, root: PathBuf) -> io::Result<mpsc::UnboundedSender<Order>> {
    let (sender, mut orders) = mpsc::unbounded_channel();
    std::thread::Builder::new().name(format!("writer-{n}")).spawn(move || {
        let mut open: HashMap<u64, io::Result<Unfinished>> = HashMap::new();
        while let Some(order) = orders.blocking_recv() {
            carry_out(order, &root, &mut open);
        }
    })?;
    Ok(sender)
}

fn carry_out(order: Order, root: &Path, open: &mut HashMap<u64, io::Result<Unfinished>>) {
    match order {
        Order::Append { number, temporary, chunks, permits, broken } => {
            let unfinished = open.entry(number).or_insert_with(|| Unfinished::create(temporary));
            let result = unfinished.as_mut().map_err(|error| io::Error::from(error.kind()));
            if let Err(error) = result.and_then(|unfinished| unfinished.append(&chunks)) {
                broken.store(true, Ordering::Relaxed);
                *unfinished = Err(error);
            }
            drop(permits);
        }
        Order::Finish { number, temporary, chunks, permits, key, reply } => {
            let unfinished = open.remove(&number).unwrap_or_else(|| Unfinished::create(temporary));
            let result = unfinished.and_then(|mut unfinished| {
                unfinished.append(&chunks)?;
                unfinished.rename_to(&root.join(key))
            });
            drop(permits);
            // The download may have been given up meanwhile; the object is complete, so it may stay.
            let _ = reply.send(result);
        }
        Order::Abort { number } => drop(open.remove(&number)),
        Order::Find { keys, fits, reply } => {
            let found = keys.into_iter().find_map(|key| read_existing(root, key, &fits));
            let _ = reply.send(found);
        }
    }
}

/// A temporary file that removes itself unless it was renamed.
struct Unfinished {
    path: Option<PathBuf>,
    file: File,
    hasher: Sha256,
    bytes: u64,
}

impl Unfinished {
    fn create(path: PathBuf) -> io::Result<Unfinished> {
        let create = |path: &Path| OpenOptions::new().write(true).create_new(true).open(path);
        let file = match create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Somebody removed the folder of temporary files under a running worker.
                path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                create(&path)?
            }
            other => other?,
        };
        Ok(Unfinished { path: Some(path), file, hasher: Sha256::new(), bytes: 0 })
    }

    fn append(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        for chunk in chunks {
            self.file.write_all(chunk)?;
            self.hasher.update(chunk);
            self.bytes += chunk.len() as u64;
        }
        Ok(())
    }

    fn rename_to(mut self, target: &Path) -> io::Result<Written> {
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

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn read_existing(root: &Path, key: String, fits: &Fits) -> Option<Existing> {
    let mut file = File::open(root.join(&key)).ok()?;
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
                hasher.update(&buffer[..n]);
                bytes += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(Existing { key, written: Written { bytes, sha256: hex(hasher.finalize().as_slice()) }, head })
}
