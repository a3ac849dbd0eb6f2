//! Batches: one enqueue each, with counters that the settle script keeps.

use super::{Queue, script};
use crate::error::QueueError;
use crate::job::BatchId;
use serde::Serialize;
use std::collections::BTreeMap;

/// What is known of one enqueue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BatchState {
    /// The batch.
    pub batch: String,
    /// What was enqueued, for people.
    pub source: String,
    /// Jobs added.
    pub enqueued: u64,
    /// Links left out because the queue had seen them.
    pub duplicates: u64,
    /// Jobs that ended so.
    pub stored: u64,
    /// Jobs that ended so.
    pub rejected: u64,
    /// Jobs that ended so, less those that were retried from the dead letters.
    pub failed: u64,
    /// Bytes of the stored objects.
    pub bytes: u64,
    /// When the enqueue began (ms since 1970, Redis clock).
    pub started: u64,
    /// When its enqueuer was last heard of.
    pub seen: u64,
    /// When its enqueue was complete; 0 while it is not.
    pub sealed: u64,
    /// When the last of its jobs was done; 0 while it is not.
    pub finished: u64,
    /// Jobs by `outcome:reason`.
    pub reasons: BTreeMap<String, u64>,
}

impl BatchState {
    /// Jobs that have a result.
    pub fn done(&self) -> u64 {
        self.stored + self.rejected + self.failed
    }

    fn from_fields(batch: String, fields: impl IntoIterator<Item = (String, String)>) -> BatchState {
        let mut state = BatchState { batch, ..BatchState::default() };
        for (name, value) in fields {
            let number = value.parse().unwrap_or(0);
            match name.as_str() {
                "source" => state.source = value,
                "enqueued" => state.enqueued = number,
                "duplicates" => state.duplicates = number,
                "stored" => state.stored = number,
                "rejected" => state.rejected = number,
                "failed" => state.failed = number,
                "bytes" => state.bytes = number,
                "started" => state.started = number,
                "seen" => state.seen = number,
                "sealed" => state.sealed = number,
                "finished" => state.finished = number,
                _ if name.contains(':') && number > 0 => {
                    state.reasons.insert(name, number);
                }
                _ => {}
            }
        }
        state
    }
}

impl Queue {
    /// Starts a batch; repeating it changes nothing.
    ///
    /// # Errors
    /// As every call.
    pub async fn open_batch(&self, batch: BatchId, source: &str) -> Result<(), QueueError> {
        let script = script!("batch_open", no_oom);
        let mut call = script.prepare_invoke();
        call.key(self.keys.batch(batch)).key(self.keys.batches()).arg(batch.to_string()).arg(source);
        self.channel.invoke::<()>("start a batch", &call).await
    }

    /// Marks a batch as complete: nothing is added to it any more. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`QueueError::NoSuchBatch`], or as every call.
    pub async fn seal_batch(&self, batch: BatchId) -> Result<(), QueueError> {
        let script = script!("batch_seal");
        let mut call = script.prepare_invoke();
        call.key(self.keys.batch(batch));
        self.known_batch(batch, self.channel.invoke("seal a batch", &call).await?)
    }

    /// Says that the enqueuer of a batch is alive.
    ///
    /// # Errors
    /// [`QueueError::NoSuchBatch`], or as every call.
    pub async fn touch_batch(&self, batch: BatchId) -> Result<(), QueueError> {
        let script = script!("batch_touch");
        let mut call = script.prepare_invoke();
        call.key(self.keys.batch(batch));
        self.known_batch(batch, self.channel.invoke("touch a batch", &call).await?)
    }

    fn known_batch(&self, batch: BatchId, known: u8) -> Result<(), QueueError> {
        if known == 1 { Ok(()) } else { Err(QueueError::NoSuchBatch(batch.to_string())) }
    }

    /// The state of one batch, and Redis' time now (ms) to compare its times with.
    ///
    /// # Errors
    /// [`QueueError::NoSuchBatch`], or as every call.
    pub async fn batch(&self, batch: BatchId) -> Result<(BatchState, u64), QueueError> {
        let mut pipe = redis::pipe();
        pipe.atomic().hgetall(self.keys.batch(batch)).cmd("TIME");
        let (fields, (seconds, micros)): (Vec<(String, String)>, (u64, u64)) =
            self.channel.pipeline("read a batch", &pipe).await?;
        if fields.is_empty() {
            return Err(QueueError::NoSuchBatch(batch.to_string()));
        }
        Ok((BatchState::from_fields(batch.to_string(), fields), seconds * 1000 + micros / 1000))
    }

    /// The newest batches, newest first, at most `count`.
    ///
    /// # Errors
    /// As every call.
    pub async fn newest_batches(&self, count: usize) -> Result<Vec<BatchId>, QueueError> {
        let cmd = redis::Cmd::zrange(self.keys.batches(), 0, count.saturating_sub(1) as isize).arg("REV").to_owned();
        let ids: Vec<String> = self.channel.query("list batches", &cmd).await?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }
}
