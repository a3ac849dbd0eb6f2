//! One object on its way to the writers: its bytes wait here until there are enough of them, within bounds for all uploads.

use super::health::Health;
use super::object::{Expected, Unstored, Written};
use super::outbox::Outbox;
use super::writer::{Order, WRITERS};
use bytes::{Bytes, BytesMut};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Bytes on their way to the writers, for the whole worker: a slow disk makes downloads wait, not memory grow. The peak with
/// 256 web images at once was 83 MB with 16 MiB, 67 with 8, 65 with 6, 56 with 4, and no slower that could be told.
const BUFFERED_BYTES_MAX: usize = 5 << 20;
/// An upload passes its bytes on when it has this many, or less with many uploads at once; smaller objects cost their writer
/// one order.
pub(super) const HAND_OVER_BYTES_MAX: usize = 64 << 10;
/// A smaller part is copied into a buffer of the upload's own before it waits; a larger one waits as it came. A part pins the whole
/// buffer that its connection read it into, however few bytes of it are its own: one byte a packet held 4 KB for each, 4 GB in
/// 90 s. A part of this size pins eight times its length at most, as the buffers of connections are bounded (`fetch`).
const OWN_BUFFER_BELOW_BYTES: usize = 32 << 10;
/// Room for small parts is taken in such pieces.
const ROOM_AHEAD_BYTES: usize = 8 << 10;
/// Less than this is not handed over while room is waited for.
const ORDER_BYTES_MIN: usize = 4 << 10;

/// What the uploads of a storage share.
#[derive(Debug)]
pub(super) struct Uploads {
    outbox: Arc<Outbox>,
    health: Arc<Health>,
    /// Bounds what is queued for the writers, whose channels therefore need no bound of their own.
    buffer: Arc<Semaphore>,
    hand_over_bytes: usize,
    next: AtomicU64,
    /// What temporary files are called, but for the number of their upload.
    temporary: String,
}

impl Uploads {
    pub(super) fn new(outbox: Arc<Outbox>, health: Arc<Health>, temporary: String, at_once: usize) -> Uploads {
        Uploads {
            outbox,
            health,
            buffer: Arc::new(Semaphore::new(BUFFERED_BYTES_MAX)),
            // Servers that stall leave what their uploads hold lying here: three quarters of the buffer at most, so that the
            // others go on through the last.
            hand_over_bytes: HAND_OVER_BYTES_MAX.min(BUFFERED_BYTES_MAX / 4 * 3 / at_once.max(1)),
            next: AtomicU64::new(0),
            temporary,
        }
    }

    pub(super) fn begin(&self) -> Upload {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Upload {
            outbox: Arc::clone(&self.outbox),
            temporary: format!("{}-{number}", self.temporary),
            number,
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

/// One object on its way into storage. Dropped before [`Upload::finish`] it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    outbox: Arc<Outbox>,
    temporary: String,
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
    /// A writer has the beginning.
    begun: bool,
    /// The writer could not write what it has.
    broken: Arc<AtomicBool>,
}

impl Upload {
    /// Adds bytes; waits while too many are on their way to the disk. Cancel safe: the bytes of a call that was dropped are
    /// not part of the object, so that only dropping the upload makes sense then.
    ///
    /// # Errors
    /// When the storage did not take what was written before.
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
    /// `has_other_type` when the key is not the one that the URL promises.
    ///
    /// Cancel safety: dropped while it waits, the object is stored or refused all the same, and nobody hears of it.
    ///
    /// # Errors
    /// [`Unstored::Refused`] by the judge, [`Unstored::Failed`] when it could not be kept. It leaves no name then, unless
    /// only the sync after it got its name has failed.
    pub async fn finish(mut self, key: String, has_other_type: bool, expected: Expected) -> Result<Written, Unstored> {
        let (reply, answer) = oneshot::channel();
        self.close_gathered();
        let order = Order::Finish {
            number: self.number,
            temporary: self.temporary.clone(),
            chunks: std::mem::take(&mut self.pending),
            permits: self.permits.take(),
            key,
            has_other_type,
            expected,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{GifJudge, open, runtime};
    use crate::{Storage, SyncPolicy};

    #[test]
    fn a_few_bytes_are_kept_while_room_is_waited_for() {
        let root = tempfile::tempdir().expect("a folder");
        runtime().block_on(async {
            let storage = open(root.path());
            let mut upload = storage.upload();
            upload.write(Bytes::from_static(b"G")).await.expect("written");
            // Others have all the room there is.
            let all = u32::try_from(storage.uploads.buffer.available_permits()).expect("a few million");
            let of_others = Arc::clone(&storage.uploads.buffer).try_acquire_many_owned(all).expect("free");
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
                let most = storage.uploads.hand_over_bytes - 1;
                for upload in &mut uploads {
                    for part in [1, most - 11, 10] {
                        upload.write(Bytes::from(vec![0; part])).await.expect("written");
                    }
                    assert!(!upload.begun);
                }
                let left = storage.uploads.buffer.available_permits();
                assert!(left >= BUFFERED_BYTES_MAX / 4, "{left} bytes are left by {at_once} uploads");
            }
        });
    }
}
