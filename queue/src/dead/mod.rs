//! The dead letters: jobs that failed for good, to be looked at, tried again or dropped.

mod pages;

pub use pages::DeadPages;

use super::dedup::{GROWTH, LinkDigest, SplitState};
use super::hosts::LINK;
use super::results::Page;
use super::{Queue, first_call};
use crate::scripts::{COUNTERS, Call, IN_PARTS, KNOWN_SCHEMA, TYPES, part, script};
use common::error::QueueError;
use common::job::{Job, JobId, SCHEMA_VERSION};
use serde::Serialize;

script! {
    DeadScript<'a> from "dead_retry.lua";
    with [TYPES, KNOWN_SCHEMA, COUNTERS, GROWTH, IN_PARTS, LINK];
    keys [dead_key, ready_key, stats_key, growth_key, meta_key], then further_keys_from;
    args [action: &'a str, level: u32, split: u64, schema: u32], then jobs_from;
    parts [DeadEntry]
}

part! {
    /// `batch_index` and `bucket_index` are those of its batch, or 0, and of its link's bucket in KEYS.
    DeadEntry<'a> as JOB {
        args [entry: &'a str, batch_index: usize, bucket_index: usize, reason: &'a str, digest: u64, payload: &'a str]
    }
}

/// Dead jobs of one call: 500 took Redis 21 ms on average.
const AT_ONCE: usize = 200;

/// A job that failed for good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeadJob {
    /// The entry's id in the stream.
    pub entry: String,
    /// The job.
    pub id: String,
    /// Its link.
    pub url: String,
    /// Why it failed.
    pub reason: String,
    /// Attempts spent.
    pub attempts: u32,
    /// Who gave up on it.
    pub worker: String,
    /// Its enqueue, where it had one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub batch: String,
    /// The payload as it was claimed last.
    #[serde(skip)]
    pub payload: String,
}

/// What to do with dead jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadAction {
    /// Back on the queue with all attempts unspent.
    Retry,
    /// Gone; the result stays.
    Drop,
}

impl DeadJob {
    fn from_fields(entry: String, fields: Vec<(String, String)>) -> DeadJob {
        let mut dead = DeadJob { entry, ..DeadJob::default() };
        for (name, value) in fields {
            match name.as_str() {
                "id" => dead.id = value,
                "url" => dead.url = value,
                "reason" => dead.reason = value,
                "attempts" => dead.attempts = value.parse().unwrap_or(0),
                "worker" => dead.worker = value,
                "batch" => dead.batch = value,
                "job" => dead.payload = value,
                _ => {}
            }
        }
        dead
    }
}

impl Queue {
    /// Up to `count` dead jobs after the entry `after`, oldest first.
    ///
    /// # Errors
    /// As every call.
    pub async fn dead_jobs(&self, after: Option<&str>, count: usize) -> Result<Vec<DeadJob>, QueueError> {
        let entries = self.page("read dead jobs", self.keys.dead(), Page::After(after), count).await?;
        Ok(entries.into_iter().map(|(id, fields)| DeadJob::from_fields(id, fields)).collect())
    }

    /// Up to `count` dead jobs before the entry `before` (`None`: the last ones), newest first.
    ///
    /// # Errors
    /// As every call.
    pub async fn newest_dead_jobs(&self, before: Option<&str>, count: usize) -> Result<Vec<DeadJob>, QueueError> {
        let entries = self.page("read dead jobs", self.keys.dead(), Page::Before(before), count).await?;
        Ok(entries.into_iter().map(|(id, fields)| DeadJob::from_fields(id, fields)).collect())
    }

    /// The dead job of this entry, if it is still there.
    ///
    /// # Errors
    /// As every call.
    pub async fn dead_job(&self, entry: &str) -> Result<Option<DeadJob>, QueueError> {
        let entries = self.page("read a dead job", self.keys.dead(), Page::Entry(entry), 1).await?;
        Ok(entries.into_iter().next().map(|(id, fields)| DeadJob::from_fields(id, fields)))
    }

    /// Retries or drops dead jobs, at most 500; a round trip for each 200, or MB, of them. Returns how many were still there.
    ///
    /// # Errors
    /// As every call. Those before the one that failed are done.
    pub async fn settle_dead(&self, action: DeadAction, dead: &[DeadJob]) -> Result<u64, QueueError> {
        debug_assert!(dead.len() <= 500);
        let (mut moved, mut rest) = (0, dead);
        while !rest.is_empty() {
            let (these, others) = rest.split_at(first_call(rest, |job| job.payload.len()).min(AT_ONCE));
            moved += self.settle_few_dead(action, these).await?;
            rest = others;
        }
        Ok(moved)
    }

    async fn settle_few_dead(&self, action: DeadAction, dead: &[DeadJob]) -> Result<u64, QueueError> {
        // Made once: a call that is repeated is the same one.
        let payloads: Vec<String> = dead.iter().map(alive_again).collect();
        let call = |split| self.dead_call(action, dead, &payloads, split);
        let ((), mut reply) = self.run_with_split("retry or drop dead jobs", &[("ok", ())], call).await?;
        let moved = reply.count("entries that were there")?;
        reply.end()?;
        Ok(moved)
    }

    fn dead_call(&self, action: DeadAction, dead: &[DeadJob], payloads: &[String], split: SplitState) -> Call {
        let call = DeadScript {
            dead_key: self.keys.dead(),
            ready_key: self.keys.ready(),
            stats_key: self.keys.stats(),
            growth_key: self.keys.dedup_meta(),
            action: match action {
                DeadAction::Retry => "retry",
                DeadAction::Drop => "drop",
            },
            level: split.level,
            split: split.next,
            meta_key: self.keys.meta(),
            schema: SCHEMA_VERSION,
        };
        let mut call = call.call();
        for (job, payload) in dead.iter().zip(payloads) {
            let batch = job.id.parse::<JobId>().ok().and_then(JobId::batch);
            let digest = LinkDigest::of(&job.url);
            let entry = DeadEntry {
                entry: &job.entry,
                batch_index: batch.map_or(0, |batch| call.index_of(self.keys.batch(batch))),
                bucket_index: call.index_of(self.dedup_bucket(digest, split)),
                reason: &job.reason,
                digest: digest.member,
                payload,
            };
            entry.add_to(&mut call);
        }
        call
    }
}

/// The payload with all attempts unspent. One that no version can read goes back as it was.
fn alive_again(dead: &DeadJob) -> String {
    let random = u128::from(fastrand::u64(..)) << 64 | u128::from(fastrand::u64(..));
    match Job::read(dead.payload.as_bytes(), random) {
        Ok(mut job) => {
            // The id of the result, so that "the later one counts" has something to go by.
            job.id = dead.id.parse().unwrap_or(job.id);
            job.attempts = 0;
            job.held = 0;
            job.last_reason = None;
            job.write()
        }
        Err(_) => dead.payload.clone(),
    }
}
