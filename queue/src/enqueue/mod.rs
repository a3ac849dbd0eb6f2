//! Adding jobs: chunks of a batch, each pushed whole or not at all, numbered so that none is pushed twice or lost
//! unnoticed.

use super::dedup::{GROWTH, LinkDigest, SplitState};
use super::{OpenBatch, Queue};
use crate::Patience;
use crate::scripts::{COUNTERS, Call, KNOWN_SCHEMA, TIME, TYPES, part, script};
use common::error::QueueError;
use common::job::{BatchId, Job, JobId, SCHEMA_VERSION, Wanted};
use std::collections::HashSet;
use std::time::Duration;

script! {
    EnqueueScript<'a> from "enqueue.lua", refused at maxmemory;
    with [TIME, TYPES, KNOWN_SCHEMA, COUNTERS, GROWTH];
    keys [ready_key, batch_key, stats_key, growth_key, meta_key], then buckets_from;
    args [enqueuer: &'a str, chunk_number: u64, level: Option<u32>, split: Option<u64>, schema: u32], then links_from;
    parts [Run]
}

part! {
    /// Behind it their digests, then their payloads.
    Run as RUN { keys [bucket_key] args [links: usize] }
}

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
#[derive(Debug, Clone, Copy)]
enum Said {
    Added,
    Gap,
    Missing,
    Taken,
}

const SAID: &[(&str, Said)] = &[
    ("ok", Said::Added),
    ("again", Said::Added),
    ("gap", Said::Gap),
    ("missing", Said::Missing),
    ("taken", Said::Taken),
];

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
        let call = |split| self.enqueue_call(batch, chunk, &payloads, &digests, split);
        let (said, mut reply) = self.run_with_split("enqueue", SAID, call).await?;
        let split = SplitState::read(&mut reply)?;
        let enqueued = reply.count("jobs added")?;
        let duplicates = reply.count("duplicates")?;
        let ready = reply.count("jobs that are ready")?;
        let links_known = reply.count("links known to dedup")?;
        reply.end()?;
        self.dedup_split.learn(split);
        let pushed = match said {
            Said::Added => Pushed { enqueued, duplicates, ready },
            // The number of the chunk that is missing is in the place of the jobs added.
            Said::Gap => return Err(QueueError::RolledBack { batch: batch.id.to_string(), lost: enqueued }),
            Said::Taken => return Err(QueueError::BatchTaken(batch.id.to_string())),
            Said::Missing => return Err(batch.lost()),
        };
        if chunk.dedup
            && let Some(buckets) = split.due(links_known)
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
        split: SplitState,
    ) -> Call {
        let call = EnqueueScript {
            ready_key: self.keys.ready(),
            batch_key: self.keys.batch(batch.id),
            stats_key: self.keys.stats(),
            growth_key: self.keys.dedup_meta(),
            enqueuer: &batch.enqueuer,
            chunk_number: chunk.number,
            level: chunk.dedup.then_some(split.level),
            split: chunk.dedup.then_some(split.next),
            meta_key: self.keys.meta(),
            schema: SCHEMA_VERSION,
        };
        let mut call = call.call();
        if !chunk.dedup {
            for payload in payloads {
                call.arg(payload.as_str());
            }
            return call;
        }
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
            Run { bucket_key: self.keys.dedup(*bucket), links: run.len() }.add_to(&mut call);
            for (_, digest, _) in run {
                call.arg(*digest);
            }
            for (.., payload) in run {
                call.arg(payload.as_str());
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
        let mut patience = Patience::of(patience);
        loop {
            match self.push(batch, chunk).await {
                Ok(pushed) => return Ok(pushed),
                Err(error) => {
                    let Some(wait) = patience.next_wait(&error) else { return Err(error) };
                    if let Some(word) = patience.word(&error) {
                        tracing::warn!("{word}");
                    }
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}
