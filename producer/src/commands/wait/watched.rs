//! The batches that a wait is about: many are asked about in one go, those that were seen done no more, and all once more at the end.

use crate::commands::CommandError;
use common::error::QueueError;
use common::job::BatchId;
use common::text::harmless;
use queue::{BatchState, ENQUEUER_GONE_MS, Queue};
use std::time::{Duration, Instant};

/// How often the state is read: O(1) for Redis, and quick enough for eyes.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// With more than a hundred batches to look at that is so long for each: a thousand are looked at every two seconds.
const LOOK_EVERY_A_BATCH: Duration = Duration::from_millis(2);
/// An enqueuer says that it is alive every second. What was heard of it last is believed to be old only when nothing new came
/// during this time: a clock of Redis that jumped makes everything look old.
const SILENCE_SEEN: Duration = Duration::from_secs(3);

/// The batches, and what was seen of them last.
pub(super) struct WatchedBatches<'a> {
    queue: &'a Queue,
    batches: Vec<Watched>,
    /// One that was broken off is an error, and not only worth a word.
    must_complete: bool,
}

struct Watched {
    id: BatchId,
    state: BatchState,
    /// What was last heard of its enqueuer, and since when nothing else.
    heard: Option<(u64, Instant)>,
    /// It was finished, or broken off with no jobs left, when it was looked at last.
    is_done: bool,
    /// It was looked at since [`WatchedBatches::look`] was called last.
    is_fresh: bool,
    said_cut_off: bool,
}

impl<'a> WatchedBatches<'a> {
    pub(super) fn new(queue: &'a Queue, ids: Vec<BatchId>, must_complete: bool) -> WatchedBatches<'a> {
        let watched = |id| Watched {
            id,
            state: BatchState::default(),
            heard: None,
            is_done: false,
            is_fresh: false,
            said_cut_off: false,
        };
        WatchedBatches { queue, batches: ids.into_iter().map(watched).collect(), must_complete }
    }

    /// What was seen of each.
    pub(super) fn states(&self) -> impl Iterator<Item = &BatchState> {
        self.batches.iter().map(|batch| &batch.state)
    }

    pub(super) fn are_done(&self) -> bool {
        self.batches.iter().all(|batch| batch.is_done)
    }

    /// How long to wait before the next look.
    pub(super) fn pause(&self) -> Duration {
        pause_of(self.batches.iter().filter(|batch| !batch.is_done).count())
    }

    /// Looks at those that were not seen done. Returns what is to be said.
    ///
    /// # Errors
    /// As every call of [`Queue`]; a batch that is not there, or was cut off.
    pub(super) async fn look(&mut self) -> Result<Vec<String>, CommandError> {
        self.batches.iter_mut().for_each(|batch| batch.is_fresh = false);
        self.look_at(|batch| !batch.is_done).await
    }

    /// Looks at the others. `dead retry` opens a batch again that was finished, and a broken-off `enqueue` goes on when it is run
    /// again: so nothing is over before all were seen done in one look.
    ///
    /// # Errors
    /// As [`WatchedBatches::look`].
    pub(super) async fn look_once_more(&mut self) -> Result<Vec<String>, CommandError> {
        self.look_at(|batch| !batch.is_fresh).await
    }

    async fn look_at(&mut self, which: impl Fn(&Watched) -> bool) -> Result<Vec<String>, CommandError> {
        let these: Vec<&mut Watched> = self.batches.iter_mut().filter(|batch| which(batch)).collect();
        if these.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<BatchId> = these.iter().map(|batch| batch.id).collect();
        let (states, now_ms) = self.queue.batch_states(&ids).await?;
        let mut words = Vec::new();
        for (batch, state) in these.into_iter().zip(states) {
            match state {
                Some(state) => words.extend(batch.see(state, now_ms, self.must_complete)?),
                // One that is done may be forgotten before anybody looked.
                None if batch.is_done || !self.must_complete => batch.is_done = true,
                None => return Err(QueueError::NoSuchBatch(batch.id.to_string()).into()),
            }
            batch.is_fresh = true;
        }
        Ok(words)
    }
}

impl Watched {
    fn see(&mut self, state: BatchState, now_ms: u64, must_complete: bool) -> Result<Option<String>, CommandError> {
        let silent_ms = now_ms.saturating_sub(state.seen);
        let heard = self.heard.get_or_insert_with(|| (state.seen, Instant::now()));
        if heard.0 != state.seen {
            *heard = (state.seen, Instant::now());
        }
        let is_silent = silent_ms > ENQUEUER_GONE_MS && heard.1.elapsed() >= SILENCE_SEEN;
        let is_cut_off = state.sealed == 0 && state.left() == 0 && is_silent;
        if is_cut_off && must_complete {
            return Err(cut_off(&state, silent_ms));
        }
        // A wait for everything must not fail for ever over what somebody broke off once.
        let word = (is_cut_off && !self.said_cut_off).then(|| format!("note: {}", cut_off(&state, silent_ms)));
        self.said_cut_off |= is_cut_off;
        self.is_done = state.finished > 0 || is_cut_off;
        self.state = state;
        Ok(word)
    }
}

/// The error for a batch whose enqueue never came to its end.
fn cut_off(state: &BatchState, silent_ms: u64) -> CommandError {
    CommandError::Other {
        message: format!(
            "batch {} is not complete: its enqueue ({}) was cut off {} s ago, after {} links, all of which are done",
            state.batch,
            harmless(&state.source),
            silent_ms / 1000,
            state.enqueued
        ),
        hint: "run the same `producer enqueue` again: links that are already in are skipped; then wait for the batch that it prints"
            .into(),
        code: 1,
    }
}

fn pause_of(batches: usize) -> Duration {
    LOOK_EVERY.max(LOOK_EVERY_A_BATCH.saturating_mul(u32::try_from(batches).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_looked_at_less_often() {
        for (batches, ms) in [(0, 200), (1, 200), (100, 200), (101, 202), (1000, 2000)] {
            assert_eq!(pause_of(batches), Duration::from_millis(ms), "{batches}");
        }
    }
}
