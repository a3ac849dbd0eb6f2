//! Forgetting what is older than it is kept (`retention`): whoever is there sees to it, a bounded amount at a time. And what nobody will ask
//! for any more: entries of hosts, and the places of readers that are gone.

use super::Queue;
use super::hosts::ENTRIES;
use super::readers::GROUPS;
use super::retention::{KEEP, KEEP_BY_DEFAULT};
use crate::scripts::{COUNTERS, KNOWN_SCHEMA, Piece, Reply, TIME, TYPES, part, piece, script};
use common::error::QueueError;
use common::job::{BatchId, SCHEMA_VERSION};

/// When somebody is to look.
pub(super) const DUE: Piece = piece!("due.lua");
/// Removing the oldest entries of a stream.
pub(super) const TRIM: Piece = piece!("trim.lua");

script! {
    TidyScript from "tidy.lua";
    with [TIME, TYPES, KNOWN_SCHEMA, KEEP_BY_DEFAULT, KEEP, DUE, TRIM, GROUPS, ENTRIES];
    keys [meta_key, results_key, dead_key, batches_key, hosts_key, hosts_held_key];
    args [is_forced: bool, batches_max: usize, schema: u32];
}

script! {
    BatchForgetScript from "batch_forget.lua";
    with [TIME, TYPES, KNOWN_SCHEMA, COUNTERS];
    keys [meta_key, batches_key], then batches_keys_from;
    args [older_than_ms: u64, is_of_pass: bool, schema: u32], then batches_from;
    parts [ForgottenBatch]
}

part! {
    ForgottenBatch<'a> as BATCH {
        keys [batch_key]
        args [batch: &'a [u8]]
    }
}

/// Batches that one call forgets: each costs Redis some µs.
const BATCHES_AT_ONCE: usize = 200;

/// What was forgotten in one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Finished batches.
    pub batches: u64,
    /// Results.
    pub results: u64,
    /// Dead letters.
    pub dead: u64,
    /// Readers that have stood still for so long that results are not kept for them any more.
    pub silent_readers: Vec<String>,
    /// What was remembered of these hosts could not be understood, and was dropped.
    pub dropped: Vec<String>,
    /// There may be more to forget.
    pub has_more: bool,
}

/// What the script says.
#[derive(Debug, PartialEq, Eq)]
enum TidyReply {
    NotDue,
    /// What went, for how long batches are kept, and those that began before that.
    Done(Tidied, u64, Vec<Vec<u8>>),
}

impl TidyReply {
    fn read(mut reply: Reply) -> Result<TidyReply, QueueError> {
        let is_due = reply.word("whether it is due", &[("ok", true), ("later", false)])?;
        if !is_due {
            reply.end()?;
            return Ok(TidyReply::NotDue);
        }
        let (results, dead) = (reply.count("results that went")?, reply.count("dead letters that went")?);
        let _: u64 = reply.count("entries of hosts that went")?;
        let has_more = reply.flag("whether there is more")?;
        let silent_readers = reply.texts("silent readers")?;
        let dropped = reply.texts("hosts that were dropped")?;
        let keep_batches_ms = reply.count("for how long batches are kept")?;
        let mut named = reply.list("batches")?;
        let mut batches = Vec::with_capacity(named.len());
        while named.len() > 0 {
            // As they are: one that is no text somebody else put there.
            batches.push(named.bytes("a batch")?);
        }
        reply.end()?;
        let tidied = Tidied { batches: 0, results, dead, silent_readers, dropped, has_more };
        Ok(TidyReply::Done(tidied, keep_batches_ms, batches))
    }
}

impl Queue {
    /// Forgets some of what is older than it is kept, where that is due for the queue: once a minute, and a second after there was more
    /// than one call forgets. With `now` at once. Two round trips.
    ///
    /// Cancel safety: what was not forgotten is the next time.
    ///
    /// # Errors
    /// As every call.
    pub async fn tidy(&self, now: bool) -> Result<Tidied, QueueError> {
        let call = TidyScript {
            meta_key: self.keys.meta(),
            results_key: self.keys.results(),
            dead_key: self.keys.dead(),
            batches_key: self.keys.batches(),
            hosts_key: self.keys.hosts(),
            hosts_held_key: self.keys.hosts_held(),
            is_forced: now,
            batches_max: BATCHES_AT_ONCE,
            schema: SCHEMA_VERSION,
        };
        match TidyReply::read(self.channel.run("forget what is old", &call.call()).await?)? {
            TidyReply::NotDue => Ok(Tidied::default()),
            TidyReply::Done(tidied, keep_ms, ids) => {
                let is_whole_page = ids.len() == BATCHES_AT_ONCE;
                let batches = self.forget_batches(&ids, keep_ms, is_whole_page).await?;
                Ok(Tidied { batches, ..tidied })
            }
        }
    }

    /// Forgets finished batches, however lately they finished; what their jobs left in `results` and `dead` stays. A round trip for each
    /// two hundred batches. Returns how many went.
    ///
    /// # Errors
    /// As every call. Those that went until then are gone.
    pub async fn forget_finished_batches(&self) -> Result<u64, QueueError> {
        let (mut forgotten, mut kept) = (0, 0);
        loop {
            let last = kept + BATCHES_AT_ONCE as isize - 1;
            let cmd = redis::Cmd::zrange(self.keys.batches(), kept, last);
            let ids: Vec<Vec<u8>> = self.channel.query("list batches", &cmd).await?;
            let gone = self.forget_batches(&ids, 0, false).await?;
            forgotten += gone;
            kept += ids.len() as isize - gone as isize;
            if ids.len() < BATCHES_AT_ONCE {
                return Ok(forgotten);
            }
        }
    }

    async fn forget_batches(&self, ids: &[Vec<u8>], older_than_ms: u64, is_of_pass: bool) -> Result<u64, QueueError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let (meta_key, batches_key) = (self.keys.meta(), self.keys.batches());
        let mut call =
            BatchForgetScript { meta_key, batches_key, older_than_ms, is_of_pass, schema: SCHEMA_VERSION }.call();
        for id in ids {
            // What is no id somebody else put there: no batch has the key that is named for it, and it goes.
            let known = std::str::from_utf8(id).ok().and_then(|id| id.parse::<BatchId>().ok());
            let batch_key = known.map_or_else(|| self.keys.no_batch(), |batch| self.keys.batch(batch));
            ForgottenBatch { batch_key, batch: id }.add_to(&mut call);
        }
        let mut reply = self.channel.run("forget batches", &call).await?;
        reply.word("whether it was done", &[("ok", ())])?;
        let forgotten = reply.count("batches that were forgotten")?;
        reply.end()?;
        Ok(forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripts::probe::{takes_only, word};
    use redis::Value::{Array, Int};

    #[test]
    fn what_a_call_forgot_is_read_whole_or_not_at_all() {
        assert_eq!(takes_only(TidyReply::read, &[word("later")]), TidyReply::NotDue);
        let parts = [
            word("ok"),
            Int(3),
            Int(2),
            Int(1),
            Int(1),
            Array(vec![word("export")]),
            Array(vec![word("x.org")]),
            Int(60_000),
            Array(vec![word("0123456789ab")]),
        ];
        let tidied = Tidied {
            batches: 0,
            results: 3,
            dead: 2,
            silent_readers: vec!["export".into()],
            dropped: vec!["x.org".into()],
            has_more: true,
        };
        let done = TidyReply::Done(tidied, 60_000, vec![b"0123456789ab".to_vec()]);
        assert_eq!(takes_only(TidyReply::read, &parts), done);
    }
}
