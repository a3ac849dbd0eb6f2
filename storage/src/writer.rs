//! A writer thread: creates, hashes, writes and renames files, one order after another.
//!
//! File calls block, and tokio's own answer (a hop through its blocking pool for each) costs a third to a half of the
//! throughput on small images. A thread that lives as long as the worker takes orders through a channel instead.

use super::health::Health;
use super::naming::{self, Naming};
use super::syncer::{Waiting, copy_of};
use super::{Existing, Judge, Place, SyncPolicy, Unstored, Wanted, WholeObject, Written};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use common::outcome::Rejection;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// How much of an object that was there before is shown to the caller.
const HEAD_BYTES: usize = 64 << 10;

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
        is_surprise: bool,
        wanted: Wanted,
        reply: oneshot::Sender<Result<Written, Unstored>>,
    },
    Abort {
        number: u64,
    },
    Find {
        wanted: Vec<Vec<String>>,
        reply: oneshot::Sender<Vec<Option<Existing>>>,
    },
    Probe {
        reply: oneshot::Sender<io::Result<()>>,
    },
}

/// An answer on its way to whoever waits for it.
pub(super) enum Reply {
    Finish(oneshot::Sender<Result<Written, Unstored>>, Result<Written, Unstored>),
    Find(oneshot::Sender<Vec<Option<Existing>>>, Vec<Option<Existing>>),
    Probe(oneshot::Sender<io::Result<()>>, io::Result<()>),
}

impl Reply {
    /// Nobody may be waiting any more: a download that was given up meanwhile leaves its object, which is complete.
    pub(super) fn send(self) {
        match self {
            Reply::Finish(to, result) => drop(to.send(result)),
            Reply::Find(to, found) => drop(to.send(found)),
            Reply::Probe(to, result) => drop(to.send(result)),
        }
    }
}

/// Answers wait for those of the same delivery, but no longer than this, nor in larger numbers.
const GATHER_MAX: Duration = Duration::from_micros(300);
const GATHER_REPLIES_MAX: usize = 16;

/// What all writers of a storage share.
pub(super) struct Surroundings {
    pub(super) place: Arc<Place>,
    pub(super) health: Arc<Health>,
    /// Says what objects have to be like.
    pub(super) judge: Arc<dyn Judge>,
    pub(super) sync: SyncPolicy,
    /// With [`SyncPolicy::Batch`].
    pub(super) syncer: Option<mpsc::UnboundedSender<Waiting>>,
}

/// Starts a writer; it ends when the last sender is dropped.
pub(super) fn start(
    n: usize,
    around: Arc<Surroundings>,
    done: mpsc::UnboundedSender<Vec<Reply>>,
) -> io::Result<mpsc::UnboundedSender<Vec<Order>>> {
    let (sender, mut deliveries) = mpsc::unbounded_channel::<Vec<Order>>();
    std::thread::Builder::new().name(format!("writer-{n}")).spawn(move || {
        let mut open: HashMap<u64, io::Result<Unfinished>> = HashMap::new();
        let mut replies = Vec::new();
        while let Some(delivery) = deliveries.blocking_recv() {
            let mut since = Instant::now();
            for order in delivery {
                around.health.progressed(n);
                // Whoever waits for an order that panics gets no answer, and takes that for an error; the others get theirs.
                let carried_out = catch_unwind(AssertUnwindSafe(|| carry_out(n, order, &around, &mut open)));
                replies.extend(carried_out.unwrap_or_default());
                if replies.len() >= GATHER_REPLIES_MAX || since.elapsed() > GATHER_MAX {
                    // At the end of the process nobody listens any more.
                    let _ = done.send(std::mem::take(&mut replies));
                    since = Instant::now();
                }
            }
            around.health.became_idle(n);
            if !replies.is_empty() {
                let _ = done.send(std::mem::take(&mut replies));
            }
        }
    })?;
    Ok(sender)
}

fn carry_out(
    n: usize,
    order: Order,
    around: &Surroundings,
    open: &mut HashMap<u64, io::Result<Unfinished>>,
) -> Option<Reply> {
    match order {
        Order::Append { number, temporary, chunks, permits, broken } => {
            let unfinished = open.entry(number).or_insert_with(|| Unfinished::create(temporary, &around.place));
            let result = unfinished.as_mut().map_err(|error| copy_of(error));
            if let Err(error) = result.and_then(|unfinished| unfinished.append(&chunks)) {
                broken.store(true, Ordering::Relaxed);
                *unfinished = Err(error);
            }
            drop(permits);
            None
        }
        Order::Finish { number, temporary, chunks, permits, key, is_surprise, wanted, reply } => {
            let unfinished = open.remove(&number).unwrap_or_else(|| Unfinished::create(temporary, &around.place));
            let written = unfinished.and_then(|mut unfinished| unfinished.append(&chunks).map(|()| unfinished));
            drop(permits);
            let target = around.place.root.join(key);
            let judged = written.map_err(Unstored::from).and_then(|mut unfinished| {
                unfinished.judge(&wanted, &*around.judge, &|| around.health.progressed(n))?;
                if is_surprise {
                    // First the mark, then the object, so that nobody misses it.
                    around.place.surprises.note()?;
                }
                Ok(unfinished)
            });
            let result = match (judged, around.sync, &around.syncer) {
                (Ok(unfinished), SyncPolicy::Batch, Some(syncer)) => {
                    // The thread lives as long as this sender.
                    let _ = syncer.send(Waiting { unfinished, target, reply });
                    return None;
                }
                (Ok(unfinished), SyncPolicy::File, _) => {
                    unfinished.rename_durably_to(&target, &around.place.root).map_err(Unstored::from)
                }
                (Ok(unfinished), _, _) => unfinished.rename_to(&target).map_err(Unstored::from),
                (Err(unstored), ..) => Err(unstored),
            };
            Some(Reply::Finish(reply, result))
        }
        Order::Abort { number } => {
            open.remove(&number);
            None
        }
        Order::Find { wanted, reply } => {
            around.place.surprises.look();
            around.place.folds_case.look();
            let find = |key| {
                around.health.progressed(n);
                read_existing(around, key, &|| around.health.progressed(n))
            };
            let found = wanted.into_iter().map(|keys| keys.into_iter().find_map(find)).collect();
            Some(Reply::Find(reply, found))
        }
        Order::Probe { reply } => Some(Reply::Probe(reply, around.place.probe())),
    }
}

/// A file that is gone unless it gets its name.
pub(super) struct Unfinished {
    /// Its temporary name, or the one it would have.
    temporary: PathBuf,
    /// There is a file of the temporary name.
    is_named: bool,
    file: File,
    hasher: Context,
    bytes: u64,
    /// Once it was judged.
    sha256: String,
}

impl Unfinished {
    fn create(temporary: PathBuf, place: &Place) -> io::Result<Unfinished> {
        let naming = place.naming;
        let create = || match naming {
            Naming::Renamed => OpenOptions::new().read(true).write(true).create_new(true).open(&temporary),
            Naming::Linked => naming::open_unnamed(&place.temporary_folder),
        };
        let file = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                place.restore_temporary_folder()?;
                create()?
            }
            other => other?,
        };
        let is_named = naming == Naming::Renamed;
        let (hasher, sha256) = (Context::new(&SHA256), String::new());
        let unfinished = Unfinished { temporary, is_named, file, hasher, bytes: 0, sha256 };
        // One fstat, 0.3 µs: a mount that has gone leaves a folder of the same name behind, on another file system.
        place.check_device(&unfinished.file)?;
        Ok(unfinished)
    }

    fn append(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        // All in one call: a large part may have a few bytes on either side.
        let mut parts: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
        let mut parts = &mut parts[..];
        while !parts.is_empty() {
            match self.file.write_vectored(parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut parts, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        for chunk in chunks {
            self.hasher.update(chunk);
            self.bytes += chunk.len() as u64;
        }
        Ok(())
    }

    /// The verdict over all that was written, before it gets its name.
    fn judge(&mut self, wanted: &Wanted, judge: &dyn Judge, progress: &dyn Fn()) -> Result<(), Unstored> {
        self.sha256 = hex(self.hasher.clone().finish().as_ref());
        let object = WholeObject {
            file: &self.file,
            bytes: self.bytes,
            sha256: &self.sha256,
            info: wanted.info,
            sha256_wanted: wanted.sha256.as_deref(),
        };
        judge.judge(object, progress)?.map_err(Unstored::Refused)
    }

    /// As [`Unfinished::rename_to`], and a power cut afterwards changes nothing.
    fn rename_durably_to(self, target: &Path, root: &Path) -> io::Result<Written> {
        self.file.sync_all()?;
        let written = self.rename_to(target)?;
        sync_folders(target, root)?;
        Ok(written)
    }

    /// Gives it its name, whole, after it was judged; replaces what is called so.
    pub(super) fn rename_to(mut self, target: &Path) -> io::Result<Written> {
        match self.give_name(target) {
            // Cheaper than asking for the folder each time: it is missing once.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                target.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                self.give_name(target)?;
            }
            other => other?,
        }
        Ok(Written { bytes: self.bytes, sha256: std::mem::take(&mut self.sha256) })
    }

    fn give_name(&mut self, target: &Path) -> io::Result<()> {
        if !self.is_named {
            match naming::link(&self.file, target) {
                // A link never replaces.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    naming::link(&self.file, &self.temporary)?;
                    self.is_named = true;
                }
                other => return other,
            }
        }
        std::fs::rename(&self.temporary, target)?;
        self.is_named = false;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.is_named {
            let _ = std::fs::remove_file(&self.temporary);
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

fn hex(hash: &[u8]) -> String {
    let mut text = vec![0; hash.len() * 2];
    // The lengths fit, and hex digits are UTF-8. Four times as fast as hex::encode, which goes through chars.
    let _ = hex::encode_to_slice(hash, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

fn read_existing(around: &Surroundings, key: String, progress: &dyn Fn()) -> Option<Existing> {
    let root = &*around.place.root;
    let path = root.join(&key);
    // Nearly always it is not there, and to be told so costs a third of what opening it does.
    rustix::fs::access(&path, rustix::fs::Access::EXISTS).ok()?;
    let mut file = File::open(&path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut head = Vec::with_capacity(4096);
    Read::by_ref(&mut file).take(HEAD_BYTES as u64).read_to_end(&mut head).ok()?;
    let info = around.judge.info_of(&head).filter(|_| !head.is_empty())?;
    let mut hasher = Context::new(&SHA256);
    hasher.update(&head);
    let mut bytes = head.len() as u64;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                progress();
                hasher.update(&buffer[..n]);
                bytes += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    let sha256 = hex(hasher.finish().as_ref());
    // What the job wants is for the caller to compare, who knows which job it is.
    let object = WholeObject { file: &file, bytes, sha256: &sha256, info, sha256_wanted: None };
    let refused = match around.judge.judge(object, progress) {
        Ok(Ok(())) => None,
        // As good as half an object: to be downloaded again.
        Ok(Err(Rejection::Undecodable)) | Err(_) => return None,
        Ok(Err(rejection)) => Some(rejection),
    };
    if around.sync != SyncPolicy::None {
        // It may have been stored a moment ago by a worker that was killed before it was durable.
        file.sync_all().and_then(|()| sync_folders(&path, root)).ok()?;
    }
    Some(Existing { key, written: Written { bytes, sha256 }, info, refused })
}
