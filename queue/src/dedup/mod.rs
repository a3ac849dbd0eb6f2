//! Which links a queue has seen: digests of canonical links in small sets of integers, which grow in number with the links.
//!
//! A set of up to 512 integers is one sorted block in Redis (an intset): 8 bytes a link and little around it, where a key of
//! its own costs 117. So buckets have to stay small, however many links there are. They are split one after the other, as in
//! linear hashing (W. Litwin, *Linear hashing: a new tool for file and table addressing*, 1980): with `level` and `split`
//! in `dedup:meta`, there are [`FIXED`] × 2^level + split buckets; a link is in the bucket of its [`LinkDigest`] at `level`,
//! or, when that one is split already (its number is below `split`), at `level` + 1.
//!
//! Scripts declare every key, and only they know how far the splitting is. So a caller says for which level and split it chose
//! the buckets, and a script answers that they are others by now, having changed nothing. An enqueuer alone never meets that,
//! as it splits between its own chunks; several meet it now and then.

use super::Queue;
use crate::scripts::{COUNTERS, Call, IN_PARTS, KNOWN_SCHEMA, Piece, Reply, TYPES, part, piece, script};
use common::error::QueueError;
use common::job::SCHEMA_VERSION;
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// How far the splitting is, for scripts.
pub(crate) const GROWTH: Piece = piece!("growth.lua");

script! {
    SplitScript from "dedup_split.lua", refused at maxmemory;
    with [TYPES, KNOWN_SCHEMA, IN_PARTS, GROWTH];
    keys [growth_key, meta_key], then buckets_from;
    args [level_told: u32, split_told: u64, buckets_at_level_0: u64, schema: u32];
    parts [SplitBucket]
}

part! {
    SplitBucket as SPLIT { keys [bucket_key, half_key] }
}

script! {
    ForgetScript from "dedup_forget.lua";
    with [TYPES, KNOWN_SCHEMA, COUNTERS, GROWTH];
    keys [growth_key, meta_key], then links_keys_from;
    args [level: u32, split: u64, schema: u32], then links_from;
    parts [ForgottenLink]
}

part! {
    ForgottenLink as LINK { keys [bucket_key] args [digest: u64] }
}

script! {
    ClearScript from "dedup_clear.lua";
    with [TYPES, KNOWN_SCHEMA, COUNTERS, GROWTH];
    keys [growth_key, meta_key], then buckets_from;
    args [schema: u32];
    parts [ClearedBucket]
}

part! {
    ClearedBucket as CLEARED { keys [bucket_key] }
}

/// Buckets of an empty queue. Their number is part of a digest's identity: 10 bits of it.
const FIXED: u64 = 1 << 10;
/// Links in a bucket on average. One that is not split yet has up to twice as many: rarely beyond 450, and never to be
/// expected beyond the 512 where Redis makes tables of sets, at several times the memory.
const LOAD: u64 = 180;
/// Buckets that are split in one go, 20 µs each.
const SPLITS: u64 = 16;
/// The script tells bits of a number by its last 15 digits, which tell 15 of them: enough for 6 × 10^9 links.
const LEVEL_MAX: u32 = 14;

/// Where a link's digest lies: 73 bits of SHA-256, so that two of a billion links share them with a probability of 5 × 10^-5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkDigest {
    /// Which of the first [`FIXED`] buckets it would be in.
    fixed: u64,
    /// What is in the set. Not negative, so that its digits tell its bits.
    pub(super) member: u64,
}

impl LinkDigest {
    pub(super) fn of(canonical_link: &str) -> LinkDigest {
        let hash = Sha256::digest(canonical_link.as_bytes());
        let number = |from: usize| hash[from..from + 8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        LinkDigest { fixed: number(0) % FIXED, member: number(8) >> 1 }
    }

    /// The number of its bucket.
    pub(super) fn bucket(self, split: SplitState) -> u64 {
        let at = |level: u32| (self.member & ((1 << level) - 1)) * FIXED + self.fixed;
        if at(split.level) < split.next { at(split.level + 1) } else { at(split.level) }
    }
}

/// How far the splitting is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SplitState {
    pub(super) level: u32,
    /// The bucket that is split next.
    pub(super) next: u64,
}

impl SplitState {
    pub(super) fn read(reply: &mut Reply) -> Result<SplitState, QueueError> {
        Ok(SplitState { level: reply.count("dedup's level")?, next: reply.count("the bucket that is split next")? })
    }

    /// The buckets that should be split now, when there are `count` links. A few at a time come due together, so that not
    /// every chunk asks for it.
    pub(super) fn due(self, count: u64) -> Option<Range<u64>> {
        let at_this_level = FIXED << self.level;
        let is_due = count > LOAD * (at_this_level + self.next + SPLITS);
        (is_due && self.level <= LEVEL_MAX).then(|| self.next..at_this_level.min(self.next + SPLITS))
    }
}

/// What a script said last about the splitting.
#[derive(Debug, Default)]
pub(super) struct KnownSplit(Mutex<SplitState>);

impl KnownSplit {
    pub(super) fn get(&self) -> SplitState {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn learn(&self, split: SplitState) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = split;
    }
}

impl Queue {
    pub(super) fn dedup_bucket(&self, digest: LinkDigest, split: SplitState) -> String {
        self.keys.dedup(digest.bucket(split))
    }

    /// Splits buckets that are due. It may be refused (at `maxmemory`, or as somebody else did it): whoever enqueues next
    /// sees that it is still due.
    pub(super) async fn split_dedup(&self, split: SplitState, buckets: Range<u64>) -> Result<(), QueueError> {
        let call = SplitScript {
            growth_key: self.keys.dedup_meta(),
            level_told: split.level,
            split_told: split.next,
            buckets_at_level_0: FIXED,
            meta_key: self.keys.meta(),
            schema: SCHEMA_VERSION,
        };
        let mut call = call.call();
        for bucket in buckets {
            let half_key = self.keys.dedup(bucket + (FIXED << split.level));
            SplitBucket { bucket_key: self.keys.dedup(bucket), half_key }.add_to(&mut call);
        }
        let mut reply = self.channel.run("split dedup's buckets", &call).await?;
        self.dedup_split.learn(SplitState::read(&mut reply)?);
        reply.end()
    }

    /// Runs a script that is told how far the splitting is, and again as long as it was told wrong. `call` makes the call for a
    /// state of the splitting. The reply begins with 'stale', or with one of `words`.
    ///
    /// # Errors
    /// As every call.
    pub(super) async fn run_with_split<T: Copy>(
        &self,
        doing: &'static str,
        words: &[(&str, T)],
        call: impl Fn(SplitState) -> Call,
    ) -> Result<(T, Reply), QueueError> {
        let known: Vec<(&str, Option<T>)> =
            words.iter().map(|(word, meaning)| (*word, Some(*meaning))).chain([("stale", None)]).collect();
        loop {
            let mut reply = self.channel.run(doing, &call(self.dedup_split.get())).await?;
            match reply.word("what became of it", &known)? {
                Some(meaning) => return Ok((meaning, reply)),
                None => {
                    self.dedup_split.learn(SplitState::read(&mut reply)?);
                    reply.end()?;
                }
            }
        }
    }

    /// Forgets links, so that they can be enqueued again; at most 1,000 in one call. Returns how many were known. Jobs that
    /// are in the queue stay there.
    ///
    /// # Errors
    /// As every call.
    pub async fn forget_links(&self, canonical_links: &[String]) -> Result<u64, QueueError> {
        debug_assert!(canonical_links.len() <= 1000);
        let forget = |split: SplitState| {
            let call = ForgetScript {
                growth_key: self.keys.dedup_meta(),
                level: split.level,
                split: split.next,
                meta_key: self.keys.meta(),
                schema: SCHEMA_VERSION,
            };
            let mut call = call.call();
            for link in canonical_links {
                let digest = LinkDigest::of(link);
                let bucket_key = self.dedup_bucket(digest, split);
                ForgottenLink { bucket_key, digest: digest.member }.add_to(&mut call);
            }
            call
        };
        let ((), mut reply) = self.run_with_split("forget links", &[("ok", ())], forget).await?;
        let forgotten = reply.count("links that were known")?;
        reply.end()?;
        Ok(forgotten)
    }

    /// Forgets all links, some buckets at a time. Returns how many there were. What is enqueued meanwhile may be forgotten
    /// or not.
    ///
    /// # Errors
    /// As every call. What was forgotten until then is.
    pub async fn forget_all_links(&self) -> Result<u64, QueueError> {
        let mut forgotten = 0;
        let mut from = 0;
        loop {
            let mut call =
                ClearScript { growth_key: self.keys.dedup_meta(), meta_key: self.keys.meta(), schema: SCHEMA_VERSION }
                    .call();
            for bucket in from..from + CLEARED_AT_ONCE {
                ClearedBucket { bucket_key: self.keys.dedup(bucket) }.add_to(&mut call);
            }
            let mut reply = self.channel.run("forget all links", &call).await?;
            forgotten += reply.count::<u64>("links that there were")?;
            let split = SplitState::read(&mut reply)?;
            reply.end()?;
            from += CLEARED_AT_ONCE;
            if from >= (FIXED << split.level) + split.next {
                return Ok(forgotten);
            }
        }
    }
}

/// Buckets that are forgotten in one call.
const CLEARED_AT_ONCE: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_moves_a_link_to_the_bucket_that_the_script_moves_it_to() {
        for n in 0..2000 {
            let digest = LinkDigest::of(&format!("https://x.org/{n}.jpg"));
            // What the script can tell: the last 15 digits.
            let digits = digest.member.to_string();
            let told: u64 = digits[digits.len().saturating_sub(15)..].parse().expect("digits");
            for level in 0..=LEVEL_MAX {
                let moves = (told >> level) & 1 == 1;
                let step = if moves { FIXED << level } else { 0 };
                let before = digest.bucket(SplitState { level, next: 0 });
                let after = digest.bucket(SplitState { level, next: before + 1 });
                assert_eq!(after, before + step, "{n} at {level}");
                assert_eq!(after, digest.bucket(SplitState { level: level + 1, next: 0 }), "{n} at {level}");
            }
        }
    }

    #[test]
    fn splits_come_due_some_at_a_time_and_end_with_the_level() {
        let growth = |level, next, count| SplitState { level, next }.due(count);
        assert_eq!(growth(0, 0, LOAD * FIXED), None);
        assert_eq!(growth(0, 0, LOAD * (FIXED + SPLITS) + 1), Some(0..SPLITS));
        assert_eq!(growth(0, FIXED - 3, u64::MAX), Some(FIXED - 3..FIXED));
        assert_eq!(growth(LEVEL_MAX + 1, 0, u64::MAX), None);
    }
}
