//! Adding jobs: chunks of a batch, each pushed whole or not at all, numbered so that none is pushed twice or lost
//! unnoticed.

use super::dedup::{LinkDigest, SplitState};
use super::{OpenBatch, Queue, script};
use crate::ReconnectBackoff;
use common::error::QueueError;
use common::job::{BatchId, Job, JobId, Wanted};
use std::collections::HashSet;
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
    /// Whether the jobs have to be queued in this order. Where they need not, dedup costs less, see [`Queue::order_for_dedup`].
    pub keeps_order: bool,
}

impl Chunk {
    /// A chunk of new jobs for `links`; `first_ordinal` counts the links of the batch before this chunk.
    pub fn of_links(batch: BatchId, number: u64, first_ordinal: u64, links: Vec<String>, dedup: bool) -> Chunk {
        Chunk::of_wanted(batch, number, first_ordinal, links.into_iter().map(Wanted::from), dedup)
    }

    /// The same of links of which more may be known.
    pub fn of_wanted(
        batch: BatchId,
        number: u64,
        first_ordinal: u64,
        wanted: impl IntoIterator<Item = Wanted>,
        dedup: bool,
    ) -> Chunk {
        let job = |(ordinal, Wanted { url, sha256 })| Job { sha256, ..Job::new(JobId::new(batch, ordinal, 0), url) };
        Chunk { number, jobs: (first_ordinal..).zip(wanted).map(job).collect(), dedup, keeps_order: true }
    }
}

/// How many links from the first on are in one bucket, and all different.
fn run_length(links: &[(u64, u64, &String)]) -> usize {
    let in_bucket = links.iter().take_while(|(bucket, ..)| *bucket == links[0].0).count();
    let mut seen = HashSet::with_capacity(in_bucket);
    links[..in_bucket].iter().take_while(|(_, digest, _)| seen.insert(*digest)).count()
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pushed {
    /// Jobs added.
    pub enqueued: u64,
    /// Links left out because the queue has seen them.
    pub duplicates: u64,
    /// Jobs that were ready then, these among them.
    pub ready: u64,
}

/// What `enqueue.lua` says.
type Reply = (String, u64, u64, u64, u32, u64, u64);

impl Queue {
    /// Adds one chunk; repeating it with the same number changes nothing and returns the same counts, as long as no more than
    /// one other chunk was added behind it. Where the digests of links have become many for their buckets, some of these are
    /// split in a second round trip.
    ///
    /// # Errors
    /// [`QueueError::OutOfMemory`] (nothing was added), [`QueueError::RolledBack`] when Redis no longer knows the chunk
    /// before this one or the batch, [`QueueError::BatchTaken`].
    pub async fn push(&self, batch: &OpenBatch, chunk: &Chunk) -> Result<Pushed, QueueError> {
        debug_assert!(chunk.jobs.len() <= CHUNK_LINKS_MAX);
        let payloads: Vec<String> = chunk.jobs.iter().map(Job::write).collect();
        let digests: Vec<LinkDigest> = match chunk.dedup {
            true => chunk.jobs.iter().map(|job| LinkDigest::of(&job.url)).collect(),
            false => Vec::new(),
        };
        let (status, first, second, ready, split, count) = loop {
            let call = self.enqueue_call(batch, chunk, &payloads, &digests);
            let (status, first, second, ready, level, next, count): Reply =
                self.channel.invoke("enqueue", &call).await?;
            self.dedup_split.learn(level, next);
            if status != "stale" {
                break (status, first, second, ready, SplitState { level, next }, count);
            }
        };
        let pushed = match status.as_str() {
            "ok" | "again" => Pushed { enqueued: first, duplicates: second, ready },
            "gap" => return Err(QueueError::RolledBack { batch: batch.id.to_string(), lost: first }),
            "taken" => return Err(QueueError::BatchTaken(batch.id.to_string())),
            _ => return Err(batch.lost()),
        };
        if chunk.dedup
            && let Some(buckets) = split.due(count)
            && let Err(error) = self.split_dedup(split, buckets).await
        {
            tracing::debug!("dedup's buckets stay as they are for now: {error}");
        }
        Ok(pushed)
    }

    fn enqueue_call(
        &self,
        batch: &OpenBatch,
        chunk: &Chunk,
        payloads: &[String],
        digests: &[LinkDigest],
    ) -> redis::ScriptInvocation<'static> {
        let script = script!("enqueue", no_oom);
        let mut call = script.prepare_invoke();
        call.key(self.keys.ready()).key(self.keys.batch(batch.id)).key(self.keys.stats()).key(self.keys.dedup_meta());
        call.arg(&batch.enqueuer).arg(chunk.number);
        if !chunk.dedup {
            call.arg("").arg("").arg(payloads);
            return call;
        }
        let split = self.dedup_split.get();
        call.arg(split.level).arg(split.next);
        let mut links: Vec<(u64, u64, &String)> = digests
            .iter()
            .zip(payloads)
            .map(|(digest, payload)| (digest.bucket(split), digest.member, payload))
            .collect();
        if !chunk.keeps_order {
            // Equal ones stay in their order: the first is the one.
            links.sort_by_key(|(bucket, ..)| *bucket);
        }
        let mut links = &links[..];
        while let Some((bucket, ..)) = links.first() {
            let (run, rest) = links.split_at(run_length(links));
            call.key(self.keys.dedup(*bucket)).arg(run.len());
            for (_, digest, _) in run {
                call.arg(digest);
            }
            for (.., payload) in run {
                call.arg(payload);
            }
            links = rest;
        }
        call
    }

    /// Puts many links into an order in which dedup is cheapest: those of one bucket side by side, so that they come into one chunk.
    pub fn order_for_dedup(&self, wanted: &mut [Wanted]) {
        let split = self.dedup_split.get();
        wanted.sort_by_cached_key(|wanted| LinkDigest::of(&wanted.url).bucket(split));
    }

    /// How many jobs are ready.
    ///
    /// # Errors
    /// As every call.
    pub async fn ready_len(&self) -> Result<u64, QueueError> {
        self.channel.query("ask how many jobs are ready", &redis::Cmd::llen(self.keys.ready())).await
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
