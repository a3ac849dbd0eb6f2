//! The names of all Redis keys of one queue. Pure; no key name is spelled anywhere else.
//!
//! The braces in the prefix make Redis Cluster hash the queue's name alone, so that all keys of a queue share a slot
//! and one script may touch several of them.

use crate::job::BatchId;

/// The key names of one queue.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// The keys of `queue`.
    ///
    /// # Errors
    /// A name that is empty, longer than 64 bytes, or has other characters than letters, digits, `.`, `_` and `-`:
    /// a brace would split the queue over cluster slots.
    pub fn new(queue: &str) -> Result<Keys, String> {
        let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if queue.is_empty() || queue.len() > 64 || !queue.bytes().all(valid) {
            return Err(format!(
                "\"{queue}\" cannot name a queue: use 1 to 64 letters, digits, dots, dashes or underscores"
            ));
        }
        Ok(Keys { prefix: format!("imgq:{{{queue}}}:") })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
    /// LIST: jobs waiting to be claimed.
    pub fn ready(&self) -> String {
        self.key("ready")
    }
    /// STREAM: one entry for each finished job.
    pub fn results(&self) -> String {
        self.key("results")
    }
    /// STREAM: jobs that failed for good.
    pub fn dead(&self) -> String {
        self.key("dead")
    }
    /// ZSET: jobs waiting for a time (ms).
    pub fn delayed(&self) -> String {
        self.key("delayed")
    }
    /// HASH: claim.index → job, for one worker process.
    pub fn inflight(&self, worker: &str) -> String {
        self.key(&format!("inflight:{worker}"))
    }
    /// ZSET: worker → lease expiry (ms).
    pub fn workers(&self) -> String {
        self.key("workers")
    }
    /// ZSET: names of workers, by when they registered.
    pub fn workers_since(&self) -> String {
        self.key("workers:since")
    }
    /// SET: names of workers that have suspects in flight.
    pub fn trials(&self) -> String {
        self.key("trials")
    }
    /// ZSET: of batches that are not sealed, `COMMAND ID`, by which a command that is repeated finds the one that it began.
    pub fn batches_unsealed(&self) -> String {
        self.key("batches:unsealed")
    }
    /// HASH: facts about one worker process.
    pub fn worker(&self, worker: &str) -> String {
        self.key(&format!("worker:{worker}"))
    }
    /// HASH: counters of one enqueue.
    pub fn batch(&self, batch: BatchId) -> String {
        self.key(&format!("batch:{batch}"))
    }
    /// What no batch has: for a name in `batches` that is no batch's.
    pub fn no_batch(&self) -> String {
        self.key("batch:")
    }
    /// ZSET: batch → when it was started (ms).
    pub fn batches(&self) -> String {
        self.key("batches")
    }
    /// HASH: counters of the whole queue.
    pub fn stats(&self) -> String {
        self.key("stats")
    }
    /// HASH: paused, schema, retention, and what scripts remember of the queue as a whole.
    pub fn meta(&self) -> String {
        self.key("meta")
    }
    /// LIST: what the queue was like every ten seconds, for two hours.
    pub fn history_fine(&self) -> String {
        self.key("history:10s")
    }
    /// LIST: what the queue was like every five minutes, for eight days.
    pub fn history_coarse(&self) -> String {
        self.key("history:5m")
    }
    /// HASH: job → how often its worker died while it ran.
    pub fn crashes(&self) -> String {
        self.key("crashes")
    }
    /// HASH: host → what the fleet remembers about it, as JSON.
    pub fn hosts(&self) -> String {
        self.key("hosts")
    }
    /// ZSET: host that is left alone, or was lately → until when (ms).
    pub fn hosts_held(&self) -> String {
        self.key("hosts:held")
    }
    /// SET: one bucket of the digests of links seen.
    pub fn dedup(&self, bucket: u64) -> String {
        self.key(&format!("dedup:{bucket:x}"))
    }
    /// HASH: what a service (`imgur`) said last about a budget. It belongs to an account there, not to a queue.
    pub fn budget(service: &str, account: &str) -> String {
        format!("imgq:{service}:{account}")
    }
    /// HASH: how many buckets there are, and how many links in them.
    pub fn dedup_meta(&self) -> String {
        self.key("dedup:meta")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_s_names() {
        let keys = Keys::new("default").expect("valid");
        assert_eq!(keys.ready(), "imgq:{default}:ready");
        assert_eq!(keys.inflight("w1"), "imgq:{default}:inflight:w1");
        assert_eq!(keys.batch(BatchId::from_random(255)), "imgq:{default}:batch:0000000000ff");
        for bad in ["", "a b", "a}b", "ä"] {
            assert!(Keys::new(bad).is_err(), "{bad}");
        }
    }
}
