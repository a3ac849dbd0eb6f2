//! Emptying a queue: jobs that wait are removed page by page, each counted in its batch; results are trimmed.

use super::batches::FINISH;
use super::dedup::{GROWTH, LinkDigest, SplitState};
use super::{Queue, first_call};
use crate::scripts::{COUNTERS, Call, JOBS, KNOWN_SCHEMA, TIME, TYPES, part, script, unexpected};
use common::error::QueueError;
use common::job::{Job, JobId, SCHEMA_VERSION};

script! {
    PurgeScript<'a> from "purge.lua";
    with [TIME, TYPES, KNOWN_SCHEMA, COUNTERS, JOBS, GROWTH, FINISH];
    keys [ready_key, delayed_key, stats_key, growth_key, crashes_key, meta_key], then jobs_keys_from;
    args [place: &'a str, level: u32, split: u64, schema: u32], then jobs_from;
    parts [PurgedJob]
}

part! {
    /// `has_batch` says whether the key of its batch is one.
    PurgedJob<'a> as JOB {
        keys [batch_key, bucket_key]
        args [payload: &'a [u8], has_batch: bool, digest: u64]
    }
}

/// The most jobs of one call: enough to be quick, few enough that no worker waits for long.
pub const PURGE_PAGE: usize = 500;
/// Results that one call may look at.
const TRIMMED_AT_ONCE: usize = 10_000;

/// Where a job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsIn {
    /// To be claimed.
    Ready,
    /// For a time.
    Delayed,
}

impl WaitsIn {
    fn name(self) -> &'static str {
        match self {
            WaitsIn::Ready => "ready",
            WaitsIn::Delayed => "delayed",
        }
    }
}

impl Queue {
    /// The payloads of the first jobs that wait, at most [`PURGE_PAGE`], as they are: not each is a job that can be read.
    ///
    /// # Errors
    /// As every call.
    pub async fn waiting_page(&self, place: WaitsIn) -> Result<Vec<Vec<u8>>, QueueError> {
        let last = PURGE_PAGE as isize - 1;
        let cmd = match place {
            WaitsIn::Ready => redis::Cmd::lrange(self.keys.ready(), 0, last),
            WaitsIn::Delayed => redis::Cmd::zrange(self.keys.delayed(), 0, last),
        };
        self.channel.query("read jobs that wait", &cmd).await
    }

    /// Removes those of a page that are still there, of large ones the first MB, and lets their links be enqueued again. Returns how many went; none when
    /// others stand before them by now: then the page is to be read again. Repeating it removes nothing else.
    ///
    /// # Errors
    /// As every call.
    pub async fn purge_page(&self, place: WaitsIn, page: &[Vec<u8>]) -> Result<u64, QueueError> {
        debug_assert!(page.len() <= PURGE_PAGE);
        let page = &page[..first_call(page, Vec::len)];
        let jobs: Vec<(Option<JobId>, LinkDigest)> = page.iter().map(|payload| known_of(payload)).collect();
        let call = |split| self.purge_call(place, page, &jobs, split);
        let ((), mut reply) = self.run_with_split("purge jobs", &[("ok", ())], call).await?;
        let removed = reply.count("jobs removed")?;
        reply.end()?;
        Ok(removed)
    }

    fn purge_call(
        &self,
        place: WaitsIn,
        page: &[Vec<u8>],
        jobs: &[(Option<JobId>, LinkDigest)],
        split: SplitState,
    ) -> Call {
        let call = PurgeScript {
            ready_key: self.keys.ready(),
            delayed_key: self.keys.delayed(),
            stats_key: self.keys.stats(),
            growth_key: self.keys.dedup_meta(),
            crashes_key: self.keys.crashes(),
            place: place.name(),
            level: split.level,
            split: split.next,
            meta_key: self.keys.meta(),
            schema: SCHEMA_VERSION,
        };
        let mut call = call.call();
        for (payload, (id, digest)) in page.iter().zip(jobs) {
            let batch = id.and_then(JobId::batch);
            let job = PurgedJob {
                // A job without a batch still names a key.
                batch_key: batch.map_or_else(|| self.keys.stats(), |batch| self.keys.batch(batch)),
                bucket_key: self.dedup_bucket(*digest, split),
                payload,
                has_batch: batch.is_some(),
                digest: digest.member,
            };
            job.add_to(&mut call);
        }
        call
    }

    /// Removes the results that are there now, taken by readers or not, some thousands at a time. Returns how many went.
    ///
    /// # Errors
    /// As every call. What was removed until then is gone.
    pub async fn purge_results(&self) -> Result<u64, QueueError> {
        let newest = redis::Cmd::xrevrange_count(self.keys.results(), "+", "-", 1);
        let newest: redis::streams::StreamRangeReply = self.channel.query("read the newest result", &newest).await?;
        let Some(newest) = newest.ids.into_iter().next() else { return Ok(0) };
        // What comes after it stays.
        let parts = newest.id.split_once('-').and_then(|(ms, n)| Some((ms, n.parse::<u64>().ok()?)));
        let Some((ms, n)) = parts else {
            let found = redis::Value::BulkString(newest.id.into_bytes());
            return Err(unexpected("read the newest result", &found, "an entry's id"));
        };
        let until = format!("{ms}-{}", n.saturating_add(1));
        let mut removed = 0;
        loop {
            // Whole blocks only, as nothing else is bounded; the last, broken one goes at the end.
            let mut cmd = redis::cmd("XTRIM");
            cmd.arg(self.keys.results()).arg("MINID").arg("~").arg(&until).arg("LIMIT").arg(TRIMMED_AT_ONCE);
            let some: u64 = self.channel.query("trim results", &cmd).await?;
            removed += some;
            if some == 0 {
                break;
            }
        }
        let mut cmd = redis::cmd("XTRIM");
        cmd.arg(self.keys.results()).arg("MINID").arg("=").arg(&until);
        let rest: u64 = self.channel.query("trim results", &cmd).await?;
        Ok(removed + rest)
    }
}

/// The id and the link's digest of a payload. Of one that cannot be read what could be; a link that was never enqueued is not
/// known to dedup, and forgetting it changes nothing.
fn known_of(payload: &[u8]) -> (Option<JobId>, LinkDigest) {
    match Job::read(payload, 1) {
        Ok(job) => (Some(job.id), LinkDigest::of(&job.url)),
        Err(unreadable) => (unreadable.id, LinkDigest::of(&unreadable.url)),
    }
}
