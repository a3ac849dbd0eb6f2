//! Storage: a key and a stream of bytes go in, a complete object or nothing lies there afterwards.
//!
//! `layout` turns URLs into keys, `writer` does the file work on threads of its own, and this file is the door to both.
//! An object is written to a temporary file and renamed, so that no reader ever sees half of one. It knows bytes and keys; what
//! objects have to be like is for a [`Judge`] to say.

pub mod health;
pub mod layout;
#[cfg(any(test, feature = "properties"))]
pub mod layout_properties;
mod mark;
mod naming;
mod syncer;
mod writer;

use bytes::{Bytes, BytesMut};
use clap::ValueEnum;
use common::media::MediaInfo;
use common::outcome::Rejection;
use health::Health;
use layout::Case;
use mark::Mark;
use naming::Naming;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use writer::{Order, Reply, Surroundings};

/// Where unfinished objects lie, below the root: on the same file system, or a rename would not be one.
const TEMPORARY: &str = ".imgq-tmp";
/// Leftovers of killed workers are removed when they are this old: longer than any download may take.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);
/// Two writers were faster than one, and than writing inline, on two cores; more only take turns.
const WRITERS: usize = 2;
/// Bytes on their way to the writers, for the whole worker: a slow disk makes downloads wait, not memory grow. The peak with
/// 256 web images at once was 83 MB with 16 MiB, 67 with 8, 65 with 6, 56 with 4, and no slower that could be told.
const BUFFERED_BYTES_MAX: usize = 5 << 20;
/// An upload passes its bytes on when it has this many, or less with many uploads at once; smaller objects cost their writer
/// one order.
const HAND_OVER_BYTES_MAX: usize = 64 << 10;
/// A smaller part is copied into a buffer of the upload's own before it waits; a larger one waits as it came. A part pins the whole
/// buffer that its connection read it into, however few bytes of it are its own: one byte a packet held 4 KB for each, 4 GB in
/// 90 s. A part of this size pins eight times its length at most, as the buffers of connections are bounded (`fetch`).
const OWN_BUFFER_BELOW_BYTES: usize = 32 << 10;
/// Room for small parts is taken in such pieces.
const ROOM_AHEAD_BYTES: usize = 8 << 10;
/// Less than this is not handed over while room is waited for.
const ORDER_BYTES_MIN: usize = 4 << 10;

/// A probe writes this much: a disk with less room is as good as full.
const PROBE_BYTES: usize = 1 << 20;
/// A probe that takes longer has failed.
const PROBE_MAX: Duration = Duration::from_secs(5);

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

/// A folder that objects are stored in.
#[derive(Debug)]
pub struct Storage {
    place: Arc<Place>,
    health: Arc<Health>,
    outbox: Arc<Outbox>,
    /// Carries orders to the writers and their answers back.
    messengers: [tokio::task::JoinHandle<()>; 2],
    /// Bounds what is queued for the writers, whose channels therefore need no bound of their own.
    buffer: Arc<Semaphore>,
    hand_over_bytes: usize,
    next: AtomicU64,
    run: String,
}

/// An object that lies in storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its length.
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
    /// Open for reading; where in it is no matter.
    pub file: &'a File,
    /// Its length.
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
    /// Where it lies, relative to the root.
    pub key: String,
    /// Its length and hash.
    pub written: Written,
    /// What it is by its beginning.
    pub info: MediaInfo,
    /// What is wrong with it, by what is demanded today.
    pub refused: Option<Rejection>,
}

/// What an object has to be to get its name.
#[derive(Debug)]
pub struct Wanted {
    /// What it is by its beginning.
    pub info: MediaInfo,
    /// Its hash, where the job names it.
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

impl Storage {
    /// Opens a folder, makes it if it is not there, and proves that it can be written to.
    pub fn open(root: &Path, uploads_at_once: usize, sync: SyncPolicy, judge: Arc<dyn Judge>) -> io::Result<Storage> {
        let run = format!("{}-{:08x}", std::process::id(), fastrand::u32(..));
        let place = Arc::new(Place::open(root, &run)?);
        let health = Arc::new(Health::new(WRITERS));
        let syncer = if sync == SyncPolicy::Batch { Some(syncer::start(root)?) } else { None };
        let around =
            Arc::new(Surroundings { place: Arc::clone(&place), health: Arc::clone(&health), judge, sync, syncer });
        let (done, replies) = mpsc::unbounded_channel();
        let start = |n| writer::start(n, Arc::clone(&around), mpsc::UnboundedSender::clone(&done));
        let writers = (0..WRITERS).map(start).collect::<io::Result<Vec<_>>>()?;
        let outbox = Arc::new(Outbox::default());
        Ok(Storage {
            place,
            health,
            messengers: [tokio::spawn(Arc::clone(&outbox).deliver(writers)), tokio::spawn(forward(replies))],
            outbox,
            buffer: Arc::new(Semaphore::new(BUFFERED_BYTES_MAX)),
            // Servers that stall leave what their uploads hold lying here: three quarters of the buffer at most, so that the
            // others go on through the last.
            hand_over_bytes: HAND_OVER_BYTES_MAX.min(BUFFERED_BYTES_MAX / 4 * 3 / uploads_at_once.max(1)),
            next: AtomicU64::new(0),
            run,
        })
    }

    /// Looks for objects, in one order to one writer: for each list of keys, the first one that is there, is not empty,
    /// and is something to the judge by its beginning. A hop for each would cost more than looking.
    pub async fn find(&self, wanted: Vec<Vec<String>>) -> Vec<Option<Existing>> {
        let (reply, answer) = oneshot::channel();
        let count = wanted.len();
        self.outbox.put(None, Order::Find { wanted, reply });
        let found = answer.await.ok();
        found.unwrap_or_else(|| (0..count).map(|_| None).collect())
    }

    /// Whether there may be objects under other keys than their URLs promise.
    pub fn has_surprises(&self) -> bool {
        self.place.surprises.is_known()
    }

    /// What it makes of names that differ in case only, so that all workers use the same keys.
    pub fn case(&self) -> Case {
        if self.place.folds_case.is_known() { Case::Folded } else { Case::Sensitive }
    }

    /// Whether it can be used at all.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Whether an error is the storage's own and not that of one object. It asks with a probe where the error does not
    /// tell, and remembers a bad storage.
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

    /// Whether the storage takes a file; [`Condition::Trial`](health::Condition::Trial) if it does and did not before.
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

    /// Begins an object. Dropping the upload before [`Upload::finish`] leaves nothing behind.
    pub fn upload(&self) -> Upload {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        Upload {
            outbox: Arc::clone(&self.outbox),
            temporary: self.place.root.join(TEMPORARY).join(format!("{}-{n}", self.run)),
            number: n,
            health: Arc::clone(&self.health),
            buffer: Arc::clone(&self.buffer),
            pending: Vec::new(),
            gathered: BytesMut::new(),
            pending_bytes: 0,
            hand_over_bytes: self.hand_over_bytes,
            permits: None,
            begun: false,
            broken: Arc::new(AtomicBool::new(false)),
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.messengers.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Orders on their way to the writers. To wake a sleeping thread costs a system call and a change of threads, so what comes
/// up while the runtime goes once through its tasks is handed over together.
#[derive(Default)]
struct Outbox {
    orders: Mutex<Orders>,
    filled: Notify,
}

#[derive(Default)]
struct Orders {
    of: [Vec<Order>; WRITERS],
    /// Who gets the orders that anybody may carry out.
    turn: usize,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl Outbox {
    /// For one writer, or for any. Orders to one writer are carried out in their order.
    fn put(&self, writer: Option<usize>, order: Order) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = orders.of.iter().all(Vec::is_empty);
        let writer = writer.unwrap_or(orders.turn);
        orders.of[writer].push(order);
        drop(orders);
        if is_first {
            self.filled.notify_one();
        }
    }

    async fn deliver(self: Arc<Self>, writers: Vec<mpsc::UnboundedSender<Vec<Order>>>) {
        loop {
            self.filled.notified().await;
            let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
            orders.turn = (orders.turn + 1) % WRITERS;
            for (writer, orders) in writers.iter().zip(&mut orders.of) {
                if !orders.is_empty() {
                    // Writers live as long as their senders.
                    let _ = writer.send(std::mem::take(orders));
                }
            }
        }
    }
}

/// Passes on what the writers answer. To wake a task of a runtime from another thread costs a system call, and to wake it
/// from inside next to nothing; so the writers hand over a few answers at a time, and the rest happens here.
async fn forward(mut replies: mpsc::UnboundedReceiver<Vec<Reply>>) {
    while let Some(replies) = replies.recv().await {
        replies.into_iter().for_each(Reply::send);
    }
}

/// One object on its way into storage.
#[derive(Debug)]
pub struct Upload {
    outbox: Arc<Outbox>,
    temporary: PathBuf,
    number: u64,
    health: Arc<Health>,
    buffer: Arc<Semaphore>,
    /// Large parts as they came, and full buffers, in their order.
    pending: Vec<Bytes>,
    /// Small parts since then.
    gathered: BytesMut,
    /// In both.
    pending_bytes: usize,
    hand_over_bytes: usize,
    /// Room for what is pending: a permit for each byte, and some ahead.
    permits: Option<OwnedSemaphorePermit>,
    begun: bool,
    broken: Arc<AtomicBool>,
}

impl Upload {
    /// Adds bytes; waits while too many are on their way to the disk.
    pub async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::Error::other("the storage did not take the object's beginning"));
        }
        self.make_room(chunk.len()).await?;
        self.pending_bytes += chunk.len();
        if chunk.len() < OWN_BUFFER_BELOW_BYTES {
            self.gathered.extend_from_slice(&chunk);
        } else {
            self.close_gathered();
            self.pending.push(chunk);
        }
        if self.pending_bytes >= self.hand_over_bytes {
            self.hand_over();
        }
        Ok(())
    }

    /// Waits until there is room for so many bytes more.
    ///
    /// Bytes that wait here count as well, or many small uploads would not be bounded together. Room is taken a little ahead, and
    /// while it is waited for a few bytes are kept rather than handed over, so that what trickles in is not written byte by
    /// byte. No deadlock: what an upload keeps is within its share, all shares together are three quarters of the
    /// buffer, and the writers give room back without waiting for anybody.
    async fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        let Some(wanted) = self.room_wanted(bytes, ROOM_AHEAD_BYTES) else { return Ok(()) };
        let permit = match Arc::clone(&self.buffer).try_acquire_many_owned(wanted) {
            Ok(permit) => permit,
            Err(_) => {
                if self.pending_bytes >= ORDER_BYTES_MIN {
                    self.hand_over();
                }
                // As much as the share has room for: while others wait as well, orders should not become small ones.
                let Some(wanted) = self.room_wanted(bytes, self.hand_over_bytes) else { return Ok(()) };
                Arc::clone(&self.buffer).acquire_many_owned(wanted).await.map_err(io::Error::other)?
            }
        };
        match &mut self.permits {
            Some(permits) => permits.merge(permit),
            None => self.permits = Some(permit),
        }
        Ok(())
    }

    /// How many permits are missing for so many bytes more, and up to `ahead` besides as long as they are within this upload's
    /// share; `None` when there are enough.
    fn room_wanted(&self, bytes: usize, ahead: usize) -> Option<u32> {
        let has = self.permits.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = (self.pending_bytes + bytes).checked_sub(has).filter(|missing| *missing > 0)?;
        let ahead = ahead.min(self.hand_over_bytes.saturating_sub(has));
        Some(missing.max(ahead).min(BUFFERED_BYTES_MAX) as u32)
    }

    fn close_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.pending.push(self.gathered.split().freeze());
        }
    }

    /// The writer that has the beginning, if anybody has.
    fn writer(&self) -> Option<usize> {
        self.begun.then_some((self.number % WRITERS as u64) as usize)
    }

    fn hand_over(&mut self) {
        if self.pending_bytes == 0 {
            return;
        }
        self.close_gathered();
        self.begun = true;
        self.pending_bytes = 0;
        let order = Order::Append {
            number: self.number,
            temporary: self.temporary.clone(),
            chunks: std::mem::take(&mut self.pending),
            permits: self.permits.take(),
            broken: Arc::clone(&self.broken),
        };
        self.outbox.put(self.writer(), order);
    }

    /// Puts the object under its key, whole, if it is what was asked for. Replaces what lies there.
    /// `is_surprise` when the key is not the one that the URL promises.
    pub async fn finish(mut self, key: String, is_surprise: bool, wanted: Wanted) -> Result<Written, Unstored> {
        let (reply, answer) = oneshot::channel();
        self.close_gathered();
        let order = Order::Finish {
            number: self.number,
            temporary: self.temporary.clone(),
            chunks: std::mem::take(&mut self.pending),
            permits: self.permits.take(),
            key,
            is_surprise,
            wanted,
            reply,
        };
        self.outbox.put(self.writer(), order);
        // From here on the writer cleans up.
        self.begun = false;
        let written = answer.await.map_err(|_| io::Error::other("the writer broke it off"))?;
        if written.is_ok() {
            self.health.stored();
        }
        written
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.begun {
            // At the end of the process nobody carries it out any more; the leftover is removed later.
            self.outbox.put(self.writer(), Order::Abort { number: self.number });
        }
    }
}

/// Where the objects lie, and how to tell that it is still there: a mount that goes leaves an empty folder of the same name,
/// and what was written to that would be out of everybody's sight once the mount is back.
#[derive(Debug)]
struct Place {
    root: PathBuf,
    run: String,
    temporary_folder: PathBuf,
    naming: Naming,
    /// Some object of this storage has another type than its URL's extension says, and so another key: `.jpg` that is a PNG.
    /// As long as there is none, one look tells whether an object is there, and not one for each type, which cost a tenth of
    /// the CPU for small images (five requests for each image to a network file system).
    surprises: Mark,
    /// Some worker has the storage behind a file system to which `A.jpg` and `a.jpg` are one file. Another may have the same
    /// storage behind one to which they are two (the server of an SMB share), and must use the same keys.
    folds_case: Mark,
    /// The inode of the root, which stays through an unmount and mount; the device's number may change.
    root_inode: u64,
    /// Where case is folded: the root, open. vfat and exFAT have no inodes and give a folder a new number whenever it is read
    /// in again, which is not before it was closed.
    held_root: Option<File>,
    /// The device that new files are on.
    device: AtomicU64,
}

impl Place {
    // Names of marks; leftovers are removed, these are not.
    const SURPRISES: &str = "other-types";
    const FOLDS_CASE: &str = "folds-case";

    fn open(root: &Path, run: &str) -> io::Result<Place> {
        let temporary_folder = root.join(TEMPORARY);
        std::fs::create_dir_all(&temporary_folder)?;
        let mut place = Place {
            root: root.to_owned(),
            run: run.to_owned(),
            surprises: Mark::at(temporary_folder.join(Place::SURPRISES)),
            folds_case: Mark::at(temporary_folder.join(Place::FOLDS_CASE)),
            naming: Naming::for_folder(&temporary_folder, &temporary_folder.join(format!("probe-{run}"))),
            temporary_folder,
            root_inode: 0,
            held_root: None,
            device: AtomicU64::new(0),
        };
        let probe = place.write_probe(b"probe")?;
        place.device.store(probe.dev(), Ordering::Relaxed);
        if place.finds_in_other_case()? {
            place.folds_case.note()?;
            place.held_root = Some(File::open(root)?);
        }
        place.root_inode = std::fs::metadata(root)?.ino();
        place.remove_leftovers(&probe);
        Ok(place)
    }

    /// Whether a file is found by its name in another case.
    fn finds_in_other_case(&self) -> io::Result<bool> {
        let name = format!("case-{}", self.run);
        let path = self.temporary_folder.join(&name);
        File::create(&path)?;
        let found = self.temporary_folder.join(name.to_ascii_uppercase()).try_exists();
        std::fs::remove_file(&path)?;
        found
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
        let is_mark = |name: OsString| name == Place::SURPRISES || name == Place::FOLDS_CASE;
        for entry in entries.flatten().filter(|entry| !is_mark(entry.file_name())) {
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
    use common::media::MediaType;
    use std::io::{Read as _, Seek as _};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
    }

    const GIF: MediaInfo = MediaInfo { media_type: MediaType::Gif, dimensions: None };

    fn gif(sha256: Option<String>) -> Wanted {
        Wanted { info: GIF, sha256 }
    }

    /// Knows GIFs; refuses what is shorter than `bytes_min`, of another hash, or ends in `xyz` where that is `refused`.
    #[derive(Default)]
    struct GifJudge {
        bytes_min: u64,
        refuses_xyz: bool,
    }

    impl Judge for GifJudge {
        fn info_of(&self, beginning: &[u8]) -> Option<MediaInfo> {
            assert!(!beginning.starts_with(b"panic"), "on purpose");
            beginning.starts_with(b"GIF").then_some(GIF)
        }

        fn judge(&self, object: WholeObject<'_>, _: &dyn Fn()) -> io::Result<Result<(), Rejection>> {
            let mut content = Vec::new();
            let mut file = object.file;
            file.rewind()?;
            file.read_to_end(&mut content)?;
            assert_eq!(content.len() as u64, object.bytes, "all of it is there to be read");
            Ok(if object.sha256_wanted.is_some_and(|wanted| wanted != object.sha256) {
                Err(Rejection::HashMismatch)
            } else if object.bytes < self.bytes_min {
                Err(Rejection::TooSmall)
            } else if self.refuses_xyz && content.ends_with(b"xyz") {
                Err(Rejection::Undecodable)
            } else {
                Ok(())
            })
        }
    }

    fn open(root: &Path) -> Storage {
        Storage::open(root, 64, SyncPolicy::None, Arc::new(GifJudge::default())).expect("opens")
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
    fn a_few_bytes_are_kept_while_room_is_waited_for() {
        let root = tempfile::tempdir().expect("a folder");
        runtime().block_on(async {
            let storage = open(root.path());
            let mut upload = storage.upload();
            upload.write(Bytes::from_static(b"G")).await.expect("written");
            // Others have all the room there is.
            let all = u32::try_from(storage.buffer.available_permits()).expect("a few million");
            let of_others = Arc::clone(&storage.buffer).try_acquire_many_owned(all).expect("free");
            {
                let mut waits = std::pin::pin!(upload.write(Bytes::from(vec![0; 40_000])));
                assert!(futures_util::future::poll_immediate(waits.as_mut()).await.is_none(), "there is no room");
                drop(of_others);
                waits.await.expect("written");
            }
            assert!(!upload.begun, "a byte was handed over");
            assert_eq!(upload.pending_bytes, 40_001);
        });
    }

    #[test]
    fn what_uploads_keep_leaves_a_quarter_of_the_room_to_others() {
        let root = tempfile::tempdir().expect("a folder");
        runtime().block_on(async {
            for at_once in [1, 64, 160, 200, 256, 480, 1000] {
                let storage = Storage::open(root.path(), at_once, SyncPolicy::None, Arc::new(GifJudge::default()))
                    .expect("opens");
                let mut uploads: Vec<Upload> = (0..at_once).map(|_| storage.upload()).collect();
                // As much as an upload keeps, in the parts that take the most ahead.
                let most = storage.hand_over_bytes - 1;
                for upload in &mut uploads {
                    for part in [1, most - 11, 10] {
                        upload.write(Bytes::from(vec![0; part])).await.expect("written");
                    }
                    assert!(!upload.begun);
                }
                let left = storage.buffer.available_permits();
                assert!(left >= BUFFERED_BYTES_MAX / 4, "{left} bytes are left by {at_once} uploads");
            }
        });
    }

    #[test]
    fn an_object_is_there_whole_with_its_length_and_hash() {
        let root = tempfile::tempdir().expect("a folder");
        runtime().block_on(async {
            let storage = open(root.path());
            for (key, parts) in [("a/b/small.gif", 3), ("a/large.gif", 5000)] {
                let mut upload = storage.upload();
                for _ in 0..parts {
                    upload.write(Bytes::from_static(b"GIF89a-xyz")).await.expect("written");
                }
                let written = upload.finish(key.to_owned(), false, gif(None)).await.expect("stored");
                assert_eq!(written.bytes, parts * 10);
                let content = std::fs::read(root.path().join(key)).expect("there");
                assert_eq!(content, b"GIF89a-xyz".repeat(parts as usize));
                use sha2::Digest;
                let expected: String =
                    sha2::Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(written.sha256, expected);
                let wanted = vec![vec!["no".into(), key.to_owned()], vec!["no".into()]];
                let mut found = storage.find(wanted).await;
                assert_eq!((found.len(), found.pop()), (2, Some(None)));
                let found = found.remove(0).expect("found");
                assert_eq!((found.key.as_str(), found.written), (key, written));
                std::fs::write(root.path().join("other"), b"something else").expect("written");
                assert_eq!(storage.find(vec![vec!["other".to_owned()]]).await, [None]);
            }
        });
    }

    #[test]
    fn an_order_that_panics_is_nobody_else_s_affair() {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::write(root.path().join("a.gif"), b"GIF89a").expect("written");
        std::fs::write(root.path().join("b.gif"), b"panic").expect("written");
        runtime().block_on(async {
            let storage = open(root.path());
            let wanted = |key: &str| vec![vec![key.to_owned()]];
            for _ in 0..WRITERS {
                assert_eq!(storage.find(wanted("b.gif")).await, [None]);
            }
            for n in 0..WRITERS {
                assert!(storage.find(wanted("a.gif")).await[0].is_some());
                let mut upload = storage.upload();
                upload.write(Bytes::from_static(b"GIF89a")).await.expect("written");
                upload.finish(format!("{n}.gif"), false, gif(None)).await.expect("stored");
            }
        });
    }

    #[test]
    fn a_dropped_upload_leaves_nothing() {
        let root = tempfile::tempdir().expect("a folder");
        runtime().block_on(async {
            let storage = open(root.path());
            let mut upload = storage.upload();
            upload.write(Bytes::from(vec![1; HAND_OVER_BYTES_MAX])).await.expect("written");
            drop(upload);
            // The next order to the same writer is answered after the abort was carried out.
            for _ in 0..WRITERS {
                storage.find(vec![vec!["no".into()]]).await;
            }
            assert_eq!(files_below(root.path()), Vec::<PathBuf>::new());
        });
    }

    #[test]
    fn a_key_that_cannot_be_written_is_an_error_and_leaves_nothing() {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::write(root.path().join("file"), b"x").expect("written");
        runtime().block_on(async {
            let storage = open(root.path());
            let mut upload = storage.upload();
            upload.write(Bytes::from_static(b"x")).await.expect("written");
            assert!(upload.finish("file/below".into(), false, gif(None)).await.is_err());
            assert_eq!(files_below(root.path()), [root.path().join("file")]);
        });
    }

    #[test]
    fn what_is_refused_never_gets_a_name() {
        let root = tempfile::tempdir().expect("a folder");
        let another_hash = || Some("0".repeat(64));
        for sync in [SyncPolicy::None, SyncPolicy::File, SyncPolicy::Batch] {
            runtime().block_on(async {
                let judge = GifJudge { bytes_min: 4, refuses_xyz: true };
                let storage = Storage::open(root.path(), 64, sync, Arc::new(judge)).expect("opens");
                for (body, wanted, reason) in [
                    (&b"GIF"[..], None, Rejection::TooSmall),
                    (&[b'x'; 100_000], another_hash(), Rejection::HashMismatch),
                    (b"GIF89a-xyz", None, Rejection::Undecodable),
                ] {
                    let mut upload = storage.upload();
                    upload.write(Bytes::copy_from_slice(body)).await.expect("written");
                    match upload.finish("a.gif".into(), false, gif(wanted)).await {
                        Err(Unstored::Refused(rejection)) => assert_eq!(rejection, reason),
                        other => panic!("{other:?} in place of {reason}"),
                    }
                    assert_eq!(files_below(root.path()), Vec::<PathBuf>::new(), "{reason}");
                }
            });
        }
    }
}
