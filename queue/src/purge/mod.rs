//! Emptying a queue: jobs that wait are removed page by page, each counted in its batch; results are trimmed.

use super::dedup::LinkDigest;
use super::{Queue, first_call, script};
use common::error::QueueError;
use common::job::{Job, JobId};

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
        loop {
            let script = script!("purge");
            let mut call = script.prepare_invoke();
            let split = self.dedup_split.get();
            call.key(self.keys.ready()).key(self.keys.delayed()).key(self.keys.stats()).key(self.keys.dedup_meta());
            call.key(self.keys.crashes());
            call.arg(place.name()).arg(split.level).arg(split.next);
            for (payload, (id, digest)) in page.iter().zip(&jobs) {
                let batch = id.and_then(JobId::batch);
                // A job without a batch still names a key; the flag says not to touch it.
                call.key(batch.map_or_else(|| self.keys.stats(), |batch| self.keys.batch(batch)));
                call.key(self.dedup_bucket(*digest, split));
                call.arg(payload.as_slice()).arg(u8::from(batch.is_some())).arg(digest.member);
            }
            let (removed, level, next): (i64, u32, u64) = self.channel.invoke("purge jobs", &call).await?;
            self.dedup_split.learn(level, next);
            if let Ok(removed) = u64::try_from(removed) {
                return Ok(removed);
            }
        }
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
        let until = match newest.id.split_once('-').and_then(|(ms, n)| Some((ms, n.parse::<u64>().ok()?))) {
            Some((ms, n)) => format!("{ms}-{}", n.saturating_add(1)),
            None => newest.id,
        };
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
