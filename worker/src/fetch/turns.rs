//! Connections that read in turns. One thread serves them all, and a server that floods its connection would keep it for as long
//! as tokio lets a task read on; what it sends meanwhile would wait for those who take it. And connections that are not read
//! from while what they brought waits for the storage: over HTTP/1.1 nobody asks for more, but an HTTP/2 connection
//! reads whatever its windows allow, and these count payload, not the memory that it lies in.

use futures_util::task::AtomicWaker;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection may read before others get their turn, in bytes. A server that floods its connection (a million `103 Early
/// Hints`, say) would keep the thread for 128 full buffers, 0.1 s of parsing.
const BYTES_IN_A_ROW_MAX: usize = 64 << 10;
/// The same in frames of HTTP/2. A frame waits in about 300 bytes of memory of h2's, which keeps them for as long as the connection
/// stands, however little it carries: with 6,500 frames of a byte for each turn a worker took 145 MB for 64 hosts.
const FRAMES_IN_A_ROW_MAX: usize = 128;
/// Bytes that are read beyond the end of the frame that was begun: so many may be all frames of their own.
const BEYOND_FRAME_BYTES: usize = 512;
/// Frames of DATA that may lie in a connection while one of its bodies waits for the storage: each pins the buffer that it was read
/// into, 16 KiB and more, even if it has 256 bytes. More than legitimate servers send within a window of 1 MiB.
const UNTAKEN_FRAMES_MAX: usize = 64;

/// The most that is read at once through a buffer of the connection's own: a frame of the usual largest size.
const PART_BYTES_MAX: usize = (16 << 10) + BEYOND_FRAME_BYTES;

/// What is counted of what is read.
pub(super) trait Count {
    /// Adds what was read.
    fn add(&mut self, read: &[u8]);
    /// Whether others are to have their turn.
    fn is_enough(&self) -> bool;
    /// A turn begins.
    fn restart(&mut self);
    /// How many bytes may be read at once.
    fn at_once(&self) -> usize {
        usize::MAX
    }
    /// Whether nothing is to be read now; then `context` is woken when that has changed.
    fn is_held_back(&self, _: &mut Context<'_>) -> bool {
        false
    }
}

/// Bytes, [`BYTES_IN_A_ROW_MAX`] at a time.
#[derive(Debug, Default)]
pub(super) struct Bytes(usize);

impl Count for Bytes {
    fn add(&mut self, read: &[u8]) {
        self.0 += read.len();
    }

    fn is_enough(&self) -> bool {
        self.0 >= BYTES_IN_A_ROW_MAX
    }

    fn restart(&mut self) {
        self.0 = 0;
    }
}

/// Frames of an HTTP/2 connection, from its first byte on, [`FRAMES_IN_A_ROW_MAX`] at a time.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Bytes of the present frame's header that were read (RFC 9113, section 4.1): three with its payload's length, then one with
    /// its type.
    header_bytes: usize,
    payload_bytes_left: usize,
    is_data: bool,
    in_a_row: usize,
    backlog: Backlog,
}

const HEADER_BYTES: usize = 9;
const LENGTH_BYTES: usize = 3;
const DATA: u8 = 0;

impl Frames {
    /// `backlog` is told of frames with data.
    pub(super) fn of(backlog: Backlog) -> Frames {
        Frames { backlog, ..Frames::default() }
    }
}

impl Count for Frames {
    fn add(&mut self, mut read: &[u8]) {
        while let [first, rest @ ..] = read {
            if self.header_bytes == HEADER_BYTES {
                let here = self.payload_bytes_left.min(read.len());
                read = &read[here..];
                self.payload_bytes_left -= here;
            } else {
                if self.header_bytes < LENGTH_BYTES {
                    self.payload_bytes_left = self.payload_bytes_left << 8 | usize::from(*first);
                } else if self.header_bytes == LENGTH_BYTES {
                    self.is_data = *first == DATA && self.payload_bytes_left > 0;
                }
                read = rest;
                self.header_bytes += 1;
            }
            if self.header_bytes == HEADER_BYTES && self.payload_bytes_left == 0 {
                self.header_bytes = 0;
                self.in_a_row += 1;
                if self.is_data {
                    self.backlog.came();
                }
            }
        }
    }

    fn is_enough(&self) -> bool {
        self.in_a_row >= FRAMES_IN_A_ROW_MAX
    }

    fn restart(&mut self) {
        self.in_a_row = 0;
    }

    fn at_once(&self) -> usize {
        self.payload_bytes_left + BEYOND_FRAME_BYTES
    }

    fn is_held_back(&self, context: &mut Context<'_>) -> bool {
        self.backlog.is_held_back(context)
    }
}

/// What an HTTP/2 connection has brought and nobody has taken yet; shared between its reader and its bodies.
///
/// Frames of a body that was given up are never taken. So the count is believed only while somebody waits for the storage, and
/// begins anew when nobody does.
#[derive(Debug, Clone, Default)]
pub(super) struct Backlog(Arc<State>);

#[derive(Debug, Default)]
struct State {
    untaken: AtomicUsize,
    waiting: AtomicUsize,
    reader: AtomicWaker,
}

impl Backlog {
    fn came(&self) {
        self.0.untaken.fetch_add(1, Ordering::Relaxed);
    }

    /// A body took a frame.
    pub(super) fn took(&self) {
        let untaken = self.0.untaken.load(Ordering::Relaxed);
        self.0.untaken.store(untaken.saturating_sub(1), Ordering::Relaxed);
        if untaken == UNTAKEN_FRAMES_MAX {
            self.0.reader.wake();
        }
    }

    /// A body waits for the storage, until what is returned is dropped.
    pub(super) fn wait(&self) -> Waiting {
        if self.0.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.0.untaken.store(0, Ordering::Relaxed);
        }
        Waiting(self.clone())
    }

    fn is_held_back(&self, context: &mut Context<'_>) -> bool {
        let is_full = || {
            self.0.waiting.load(Ordering::Relaxed) > 0 && self.0.untaken.load(Ordering::Relaxed) >= UNTAKEN_FRAMES_MAX
        };
        if !is_full() {
            return false;
        }
        self.0.reader.register(context.waker());
        is_full()
    }
}

/// Somebody waits for the storage.
#[derive(Debug)]
pub(super) struct Waiting(Backlog);

impl Drop for Waiting {
    fn drop(&mut self) {
        let State { waiting, reader, .. } = &*self.0.0;
        if waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            reader.wake();
        }
    }
}

impl<C: Count> Count for Option<C> {
    fn add(&mut self, read: &[u8]) {
        if let Some(count) = self {
            count.add(read);
        }
    }

    fn is_enough(&self) -> bool {
        self.as_ref().is_some_and(C::is_enough)
    }

    fn restart(&mut self) {
        if let Some(count) = self {
            count.restart();
        }
    }

    fn at_once(&self) -> usize {
        self.as_ref().map_or(usize::MAX, C::at_once)
    }

    fn is_held_back(&self, context: &mut Context<'_>) -> bool {
        self.as_ref().is_some_and(|count| count.is_held_back(context))
    }
}

/// A connection whose reading lets others have their turn.
#[derive(Debug)]
pub(super) struct InTurns<S, C> {
    stream: S,
    count: C,
    /// Where less is read than there is room for.
    part: Vec<u8>,
}

impl<S, C: Count> InTurns<S, C> {
    pub(super) fn new(stream: S, count: C) -> InTurns<S, C> {
        InTurns { stream, count, part: Vec::new() }
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin, C: Count + Unpin> AsyncRead for InTurns<S, C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.count.is_enough() {
            self.count.restart();
            // Woken at once, eight floods would have the runtime look at the network every 61 turns of theirs only. This way it
            // looks once each has had one.
            let _ = pin!(tokio::task::yield_now()).poll(context);
            return Poll::Pending;
        }
        if self.count.is_held_back(context) {
            return Poll::Pending;
        }
        let this = &mut *self;
        let at_once = this.count.at_once();
        let (before, result) = (
            into.filled().len(),
            match into.remaining() <= at_once {
                true => Pin::new(&mut this.stream).poll_read(context, into),
                false => {
                    let at_once = at_once.min(PART_BYTES_MAX);
                    if this.part.len() < at_once {
                        this.part.resize(at_once, 0);
                    }
                    let mut part = ReadBuf::new(&mut this.part[..at_once]);
                    let result = Pin::new(&mut this.stream).poll_read(context, &mut part);
                    into.put_slice(part.filled());
                    result
                }
            },
        );
        match result.is_ready() {
            true => this.count.add(&into.filled()[before..]),
            false => this.count.restart(),
        }
        result
    }
}

impl<S: AsyncWrite + Unpin, C: Unpin> AsyncWrite for InTurns<S, C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_in_whatever_parts_they_come() {
        let frame = |payload: usize| {
            let length = u32::try_from(payload).expect("short").to_be_bytes();
            [&length[1..], &[0, 0, 0, 0, 0, 1], &vec![7; payload]].concat()
        };
        let bytes: Vec<u8> = [0, 1, 70_000, 0, 0, 255, 256, 9].into_iter().flat_map(frame).collect();
        for part in [1, 2, 3, 8, 9, 10, 1000, bytes.len()] {
            let mut frames = Frames::default();
            bytes.chunks(part).for_each(|part| frames.add(part));
            assert_eq!((frames.in_a_row, frames.header_bytes), (8, 0), "in parts of {part}");
        }
    }

    #[test]
    fn a_connection_is_held_back_while_its_frames_wait_for_the_storage() {
        let backlog = Backlog::default();
        let mut frames = Frames::of(backlog.clone());
        let mut bring = |kind: u8, payload: u8, count: usize| {
            let frame = [&[0, 0, payload, kind, 0, 0, 0, 0, 1][..], &vec![7; payload.into()]].concat();
            (0..count).for_each(|_| frames.add(&frame));
        };
        let mut context = Context::from_waker(std::task::Waker::noop());
        bring(DATA, 1, 10 * UNTAKEN_FRAMES_MAX);
        assert!(!backlog.is_held_back(&mut context), "nobody waits");
        let waiting = backlog.wait();
        assert!(!backlog.is_held_back(&mut context), "what came before is as good as taken");
        bring(DATA, 1, UNTAKEN_FRAMES_MAX - 1);
        // An empty frame, and one without data.
        bring(DATA, 0, 5);
        bring(6, 8, 5);
        assert!(!backlog.is_held_back(&mut context));
        bring(DATA, 1, 1);
        assert!(backlog.is_held_back(&mut context));
        backlog.took();
        assert!(!backlog.is_held_back(&mut context), "one was taken");
        bring(DATA, 1, 1);
        let other = backlog.wait();
        drop(waiting);
        assert!(backlog.is_held_back(&mut context), "another one waits");
        drop(other);
        assert!(!backlog.is_held_back(&mut context), "nobody waits any more");
    }
}
