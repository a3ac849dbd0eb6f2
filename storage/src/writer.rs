//! A writer thread: creates, hashes, writes and names files, one order after another.
//!
//! File calls block, and tokio's own answer (a hop through its blocking pool for each) costs a third to a half of the
//! throughput on small images. A thread that lives as long as the worker takes orders through a channel instead.

use super::error::copy_of;
use super::health::Health;
use super::object::{Existing, Expected, Judge, Unstored, WholeObject, Written};
use super::root::Root;
use super::syncer::{SyncOrder, SyncPolicy, Syncer, Waiting};
use super::unfinished::{Folders, Unfinished, hex};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use common::outcome::Rejection;
use std::collections::HashMap;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Two writers were faster than one, and than writing inline, on two cores; more only take turns.
pub(super) const WRITERS: usize = 2;
/// How much of an object that was there before is shown to the caller.
const HEAD_BYTES: usize = 64 << 10;

/// What a writer is asked to do. Permits are dropped when the bytes they stand for are written.
pub(super) enum Order {
    Append {
        number: u64,
        temporary: String,
        chunks: Vec<Bytes>,
        permits: Option<OwnedSemaphorePermit>,
        broken: Arc<AtomicBool>,
    },
    Finish {
        number: u64,
        temporary: String,
        chunks: Vec<Bytes>,
        permits: Option<OwnedSemaphorePermit>,
        key: String,
        has_other_type: bool,
        expected: Expected,
        reply: oneshot::Sender<Result<Written, Unstored>>,
    },
    Abort {
        number: u64,
    },
    Find {
        candidates: Vec<Vec<String>>,
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
pub(super) struct Shared {
    pub(super) root: Arc<Root>,
    pub(super) health: Arc<Health>,
    /// Says what objects have to be like.
    pub(super) judge: Arc<dyn Judge>,
    pub(super) sync: SyncPolicy,
    /// With [`SyncPolicy::Batch`].
    pub(super) syncer: Option<Syncer>,
}

impl Shared {
    fn begin(&self, temporary: String) -> io::Result<Unfinished> {
        let sync_failures = self.syncer.as_ref().map_or(0, Syncer::failures);
        Unfinished::create(temporary, &self.root, sync_failures)
    }
}

/// Starts a writer; it ends when the last sender is dropped.
pub(super) fn start(
    n: usize,
    shared: Arc<Shared>,
    done: mpsc::UnboundedSender<Vec<Reply>>,
) -> io::Result<mpsc::UnboundedSender<Vec<Order>>> {
    let (sender, mut deliveries) = mpsc::unbounded_channel::<Vec<Order>>();
    std::thread::Builder::new().name(format!("writer-{n}")).spawn(move || {
        let mut open: HashMap<u64, io::Result<Unfinished>> = HashMap::new();
        let mut replies = Vec::new();
        while let Some(delivery) = deliveries.blocking_recv() {
            let mut since = Instant::now();
            for order in delivery {
                shared.health.progressed(n);
                // Whoever waits for an order that panics gets no answer, and takes that for an error; the others get theirs.
                let carried_out = catch_unwind(AssertUnwindSafe(|| carry_out(n, order, &shared, &mut open)));
                replies.extend(carried_out.unwrap_or_default());
                if replies.len() >= GATHER_REPLIES_MAX || since.elapsed() > GATHER_MAX {
                    // At the end of the process nobody listens any more.
                    let _ = done.send(std::mem::take(&mut replies));
                    since = Instant::now();
                }
            }
            shared.health.became_idle(n);
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
    shared: &Shared,
    open: &mut HashMap<u64, io::Result<Unfinished>>,
) -> Option<Reply> {
    match order {
        Order::Append { number, temporary, chunks, permits, broken } => {
            let unfinished = open.entry(number).or_insert_with(|| shared.begin(temporary));
            let result = unfinished.as_mut().map_err(|error| copy_of(error));
            if let Err(error) = result.and_then(|unfinished| unfinished.append(&chunks)) {
                broken.store(true, Ordering::Relaxed);
                *unfinished = Err(error);
            }
            drop(permits);
            None
        }
        Order::Finish { number, temporary, chunks, permits, key, has_other_type, expected, reply } => {
            let unfinished = open.remove(&number).unwrap_or_else(|| shared.begin(temporary));
            let written = unfinished.and_then(|mut unfinished| unfinished.append(&chunks).map(|()| unfinished));
            drop(permits);
            let judged = written.map_err(Unstored::from).and_then(|mut unfinished| {
                unfinished.judge(&expected, &*shared.judge, &|| shared.health.progressed(n))?;
                if has_other_type {
                    // First the mark, then the object, so that nobody misses it.
                    shared.root.other_types.note()?;
                }
                Ok(unfinished)
            });
            let result = match (judged, shared.sync, &shared.syncer) {
                (Ok(unfinished), SyncPolicy::Batch, Some(syncer)) => {
                    syncer.send(SyncOrder::Name(Box::new(Waiting { unfinished, key, reply })));
                    return None;
                }
                (Ok(unfinished), SyncPolicy::File, _) => unfinished.rename_durably_to(&key).map_err(Unstored::from),
                (Ok(unfinished), _, _) => unfinished.rename_to(&key).map_err(Unstored::from),
                (Err(unstored), ..) => Err(unstored),
            };
            Some(Reply::Finish(reply, result))
        }
        Order::Abort { number } => {
            open.remove(&number);
            None
        }
        Order::Find { candidates, reply } => {
            shared.root.other_types.look();
            shared.root.folds_case.look();
            let find = |key| {
                shared.health.progressed(n);
                read_existing(shared, key, &|| shared.health.progressed(n))
            };
            let found = candidates.into_iter().map(|keys| keys.into_iter().find_map(find)).collect();
            Some(Reply::Find(reply, found))
        }
        Order::Probe { reply } => match (shared.root.probe(), &shared.syncer) {
            // A disk that takes bytes and loses them cannot be used.
            (Ok(()), Some(syncer)) => {
                syncer.send(SyncOrder::Probe(reply));
                None
            }
            (result, _) => Some(Reply::Probe(reply, result)),
        },
    }
}

fn read_existing(shared: &Shared, key: String, progress: &dyn Fn()) -> Option<Existing> {
    let beneath = &shared.root.beneath;
    let mut file = beneath.open_file(&key).ok()?;
    let mut head = Vec::with_capacity(4096);
    Read::by_ref(&mut file).take(HEAD_BYTES as u64).read_to_end(&mut head).ok()?;
    let info = shared.judge.info_of(&head).filter(|_| !head.is_empty())?;
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
    let refused = match shared.judge.judge(object, progress) {
        Ok(Ok(())) => None,
        // As good as half an object: to be downloaded again.
        Ok(Err(Rejection::Undecodable)) | Err(_) => return None,
        Ok(Err(rejection)) => Some(rejection),
    };
    if shared.sync != SyncPolicy::None {
        // It may have been stored a moment ago by a worker that was killed before it was durable.
        file.sync_all().and_then(|()| Folders::open(beneath, &key)?.sync()).ok()?;
    }
    Some(Existing { key, written: Written { bytes, sha256 }, info, refused })
}
