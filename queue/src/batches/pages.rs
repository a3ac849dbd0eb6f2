//! Reading many batches, a page of them in one round trip: the newest ones, or those that somebody names.

use super::{BatchState, Queue};
use common::error::QueueError;
use common::job::BatchId;
use std::collections::HashSet;

/// Batches of a page. One with counters of 200 hosts has 8 KB, which makes 2 MB of them in one answer.
const PAGE: usize = 250;

/// The newest batches, newest first.
#[derive(Debug)]
pub struct BatchPages<'a> {
    queue: &'a Queue,
    /// Batches that are still wanted.
    left: usize,
    /// How many of the newest were gone through.
    rank: usize,
    /// A batch that is begun meanwhile moves all others on by one.
    seen: HashSet<BatchId>,
}

impl<'a> BatchPages<'a> {
    /// Goes through the newest `count`.
    pub fn new(queue: &'a Queue, count: usize) -> BatchPages<'a> {
        BatchPages { queue, left: count, rank: 0, seen: HashSet::new() }
    }

    /// The next page, with Redis' time (ms); `None` after the last one. Two round trips.
    ///
    /// # Errors
    /// As every call of [`Queue`]. The same page may be asked for again.
    pub async fn next(&mut self) -> Result<Option<(Vec<BatchState>, u64)>, QueueError> {
        let count = self.left.min(PAGE);
        if count == 0 {
            return Ok(None);
        }
        let mut cmd = redis::cmd("ZRANGE");
        cmd.arg(self.queue.keys.batches()).arg(self.rank).arg(self.rank + count - 1).arg("REV");
        let listed: Vec<String> = self.queue.channel.query("list batches", &cmd).await?;
        if listed.is_empty() {
            return Ok(None);
        }
        // What is no id somebody else put there, and there is no batch of that name.
        let ids = listed.iter().filter_map(|id| id.parse().ok());
        let ids: Vec<BatchId> = ids.filter(|id| !self.seen.contains(id)).collect();
        let (states, now_ms) = self.queue.batch_page(&ids).await?;
        self.rank += listed.len();
        self.left -= listed.len();
        self.seen.extend(ids);
        Ok(Some((states.into_iter().flatten().collect(), now_ms)))
    }
}

impl Queue {
    /// The states of these batches, `None` of one that is not there, and Redis' time after the last one (ms). A round trip for each
    /// 250 of them.
    ///
    /// # Errors
    /// As every call.
    pub async fn batch_states(&self, ids: &[BatchId]) -> Result<(Vec<Option<BatchState>>, u64), QueueError> {
        let (first, others) = ids.split_at(ids.len().min(PAGE));
        let (mut states, mut now_ms) = self.batch_page(first).await?;
        for page in others.chunks(PAGE) {
            let (more, later_ms) = self.batch_page(page).await?;
            states.extend(more);
            now_ms = later_ms;
        }
        Ok((states, now_ms))
    }

    async fn batch_page(&self, ids: &[BatchId]) -> Result<(Vec<Option<BatchState>>, u64), QueueError> {
        let mut pipe = redis::pipe();
        for id in ids {
            pipe.hgetall(self.keys.batch(*id));
        }
        pipe.cmd("TIME");
        let mut replies = self.channel.replies("read batches", &pipe).await?;
        let mut states = Vec::with_capacity(ids.len());
        for id in ids {
            let fields = replies.fields("a batch")?;
            states.push((!fields.is_empty()).then(|| BatchState::from_fields(id.to_string(), fields)));
        }
        Ok((states, replies.time_ms()?))
    }
}
