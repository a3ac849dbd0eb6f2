//! Adding jobs: chunks of a batch, each pushed whole or not at all, numbered so that none is pushed twice or lost
//! unnoticed.

use super::dedup::LinkDigest;
use super::{OpenBatch, Queue, script};
use crate::error::{QueueError, ReconnectBackoff};
use crate::job::{BatchId, Job, JobId};
use std::time::{Duration, Instant};

/// The most links that one chunk may have: the script passes a chunk to one RPUSH.
pub const CHUNK_LINKS_MAX: usize = 1000;

/// A part of a batch.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// 1 for the first chunk of the batch, and one more for each following one.
    pub number: u64,
    /// The jobs with their canonical links; at most [`CHUNK_LINKS_MAX`].
    pub jobs: Vec<Job>,
    /// Whether a link that the queue has seen is left out.
    pub dedup: bool,
}

impl Chunk {
    /// A chunk of new jobs for `links`; `first_ordinal` counts the links of the batch before this chunk.
    pub fn of_links(batch: BatchId, number: u64, first_ordinal: u64, links: Vec<String>, dedup: bool) -> Chunk {
        let jobs =
            (first_ordinal..).zip(links).map(|(ordinal, link)| Job::new(JobId::new(batch, ordinal, 0), link)).collect();
        Chunk { number, jobs, dedup }
    }
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pushed {
    /// Jobs added.
    pub enqueued: u64,
    /// Links left out because the queue has seen them.
    pub duplicates: u64,
}

impl Queue {
    /// Adds one chunk; repeating it with the same number changes nothing and returns the same counts.
    ///
    /// # Errors
    /// [`QueueError::OutOfMemory`] (nothing was added), [`QueueError::RolledBack`] when Redis no longer knows the chunk
    /// before this one or the batch, [`QueueError::BatchTaken`].
    pub async fn push(&self, batch: &OpenBatch, chunk: &Chunk) -> Result<Pushed, QueueError> {
        debug_assert!(chunk.jobs.len() <= CHUNK_LINKS_MAX);
        let script = script!("enqueue", no_oom);
        let mut call = script.prepare_invoke();
        call.key(self.keys.ready()).key(self.keys.batch(batch.id)).key(self.keys.stats());
        call.arg(&batch.enqueuer).arg(chunk.number).arg(u8::from(chunk.dedup));
        for job in &chunk.jobs {
            if chunk.dedup {
                let digest = LinkDigest::of(&job.url);
                call.key(self.keys.dedup(digest.bucket)).arg(&digest.field[..]);
            } else {
                call.arg("");
            }
            call.arg(job.write());
        }
        let (status, first, second): (String, u64, u64) = self.channel.invoke("enqueue", &call).await?;
        match status.as_str() {
            "ok" | "again" => Ok(Pushed { enqueued: first, duplicates: second }),
            "gap" => Err(QueueError::RolledBack { batch: batch.id.to_string(), lost: first }),
            "taken" => Err(QueueError::BatchTaken(batch.id.to_string())),
            _ => Err(batch.lost()),
        }
    }

    /// [`Queue::push`], tried again for up to `patience` while Redis does not answer.
    ///
    /// # Errors
    /// As `push`.
    pub async fn push_patiently(
        &self,
        batch: &OpenBatch,
        chunk: &Chunk,
        patience: Duration,
    ) -> Result<Pushed, QueueError> {
        let started = Instant::now();
        let mut backoff = ReconnectBackoff::default();
        loop {
            match self.push(batch, chunk).await {
                Err(error) if error.is_transient() && started.elapsed() < patience => {
                    tracing::warn!("{error}; trying again");
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                other => return other,
            }
        }
    }
}
