//! Batches: one enqueue each, with counters that the settle script keeps.

mod pages;

pub use pages::BatchPages;

use super::Queue;
use super::workers::host_name;
use crate::scripts::{Call, KNOWN_SCHEMA, Piece, Reply, TIME, TYPES, piece, script};
use common::error::QueueError;
use common::job::{BatchId, SCHEMA_VERSION};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;

/// When a batch was done.
pub(crate) const FINISH: Piece = piece!("finish.lua");

script! {
    OpenScript<'a> from "batch_open.lua", refused at maxmemory;
    with [TIME, TYPES, KNOWN_SCHEMA];
    keys [batch_key, batches_key, batches_unsealed_key, meta_key];
    args [batch: String, enqueuer: &'a str, enqueuer_before: &'a str, source: &'a str, command: &'a str, schema: u32];
}

script! {
    SealScript<'a> from "batch_seal.lua";
    with [TIME, TYPES, KNOWN_SCHEMA, FINISH];
    keys [batch_key, batches_unsealed_key, meta_key];
    args [batch: String, enqueuer: &'a str, chunks: u64, schema: u32];
}

script! {
    TouchScript<'a> from "batch_touch.lua";
    with [TYPES, KNOWN_SCHEMA, TIME];
    keys [batch_key, meta_key];
    args [enqueuer: &'a str, schema: u32];
}

/// What is known of one enqueue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BatchState {
    /// The batch.
    pub batch: String,
    /// What was enqueued, for people.
    pub source: String,
    /// Jobs added.
    pub enqueued: u64,
    /// Links left out because the queue had seen them.
    pub duplicates: u64,
    /// Jobs that ended so.
    pub stored: u64,
    /// Jobs that ended so.
    pub rejected: u64,
    /// Jobs that ended so, less those that were retried from the dead letters.
    pub failed: u64,
    /// Bytes of the stored objects.
    pub bytes: u64,
    /// When the enqueue began (ms since 1970, Redis clock).
    pub started: u64,
    /// When its enqueuer was last heard of.
    pub seen: u64,
    /// When its enqueue was complete; 0 while it is not.
    pub sealed: u64,
    /// When the last of its jobs was done; 0 while it is not.
    pub finished: u64,
    /// Jobs that were purged before anybody got to them.
    pub purged: u64,
    /// Jobs by `outcome:reason`.
    pub reasons: BTreeMap<String, u64>,
    /// Jobs that were not stored, by host; of the first 200 hosts that had one, or about as many.
    pub hosts: BTreeMap<String, u64>,
}

/// What the fields begin with that count jobs by host.
const HOST_FIELD: &str = "host:";

impl BatchState {
    /// Jobs that have a result.
    pub fn ended(&self) -> u64 {
        self.stored + self.rejected + self.failed
    }

    /// Jobs that have a result, or were purged.
    pub fn done(&self) -> u64 {
        self.ended() + self.purged
    }

    /// Jobs that are done and were not stored.
    pub fn not_stored(&self) -> u64 {
        self.done() - self.stored
    }

    /// Jobs that are not done, of those that were added until now.
    pub fn left(&self) -> u64 {
        self.enqueued.saturating_sub(self.done())
    }

    /// The share of its jobs that is done, in percent. Rounded down, so that 100 means all of them.
    pub fn percent_done(&self) -> u64 {
        (self.done() * 100).checked_div(self.enqueued).unwrap_or(100)
    }

    /// How long it took, or takes already by Redis' time `now_ms`.
    pub fn took(&self, now_ms: u64) -> Duration {
        let until_ms = if self.finished > 0 { self.finished } else { now_ms };
        Duration::from_millis(until_ms.saturating_sub(self.started))
    }

    /// From when to when its jobs ended (ms, by the clock of Redis), with a minute on either side, as that clock may be put right a
    /// little meanwhile. Without an end while it is open, which `dead retry` makes it again.
    pub fn span_ms(&self) -> (u64, Option<u64>) {
        const PUT_RIGHT_MS: u64 = 60_000;
        let until_ms = (self.finished > 0).then(|| self.finished.saturating_add(PUT_RIGHT_MS));
        (self.started.saturating_sub(PUT_RIGHT_MS), until_ms)
    }

    /// Where it is in its life, in a word or two.
    pub fn stage(&self) -> &'static str {
        match self {
            BatchState { sealed: 0, .. } => "enqueueing",
            BatchState { finished: 0, .. } => "in progress",
            _ => "finished",
        }
    }

    pub(super) fn from_fields(batch: String, fields: impl IntoIterator<Item = (String, String)>) -> BatchState {
        let mut state = BatchState { batch, ..BatchState::default() };
        for (name, value) in fields {
            let number = value.parse().unwrap_or(0);
            match name.as_str() {
                "source" => state.source = value,
                "enqueued" => state.enqueued = number,
                "duplicates" => state.duplicates = number,
                "stored" => state.stored = number,
                "rejected" => state.rejected = number,
                "failed" => state.failed = number,
                "bytes" => state.bytes = number,
                "started" => state.started = number,
                "seen" => state.seen = number,
                "sealed" => state.sealed = number,
                "finished" => state.finished = number,
                "purged" => state.purged = number,
                _ if number == 0 => {}
                _ => {
                    if let Some(host) = name.strip_prefix(HOST_FIELD) {
                        state.hosts.insert(host.to_owned(), number);
                    } else if name.contains(':') {
                        state.reasons.insert(name, number);
                    }
                }
            }
        }
        state
    }
}

/// A batch that this process is enqueueing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenBatch {
    /// The batch.
    pub id: BatchId,
    /// Who enqueues: `host:pid:random`. Another enqueuer that takes the batch over has another name.
    pub(super) enqueuer: String,
}

impl OpenBatch {
    /// Redis was told of it and does not know it any more.
    pub(super) fn lost(&self) -> QueueError {
        QueueError::RolledBack { batch: self.id.to_string(), lost: 1 }
    }
}

/// A batch that was broken off, in new hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenOver {
    /// The batch, to go on with.
    pub batch: OpenBatch,
    /// Chunks that are in.
    pub chunks: u64,
    /// Links that are in, or were found to be duplicates.
    pub links: u64,
}

/// A batch that is not sealed says that its enqueuer is alive every second. Silent for longer than this, it is gone: longer
/// than it waits for a Redis that is away (30 s).
pub const ENQUEUER_GONE_MS: u64 = 45_000;
/// How many of the newest batches are looked through for one that was broken off before `batches:unsealed` was kept.
const LOOK_THROUGH: usize = 200;

impl Queue {
    /// Starts a batch. `command` is a digest of what is enqueued and how, when the same links come in the same order each
    /// time: [`Queue::take_over`] finds the batch by it.
    ///
    /// # Errors
    /// [`QueueError::BatchTaken`] when there is one of that id, or as every call.
    pub async fn open_batch(&self, id: BatchId, source: &str, command: Option<&str>) -> Result<OpenBatch, QueueError> {
        let batch = OpenBatch { id, enqueuer: new_enqueuer() };
        match self.open_or_take(&batch, "", source, command.unwrap_or_default()).await? {
            Some(_) => Ok(batch),
            None => Err(QueueError::BatchTaken(id.to_string())),
        }
    }

    /// Finds a batch that the same command began and did not complete, and whose enqueuer is gone: its process on this
    /// host is not there any more, or nothing was heard of it for [`ENQUEUER_GONE_MS`]. Should it be alive after all, it is
    /// refused from now on.
    ///
    /// # Errors
    /// As every call.
    pub async fn take_over(&self, command: &str) -> Result<Option<TakenOver>, QueueError> {
        let found = self.unsealed_batches(command).await?;
        if let Some(taken_over) = self.take_one_over(command, found).await? {
            return Ok(Some(taken_over));
        }
        let newest = self.newest_batches(LOOK_THROUGH).await?;
        self.take_one_over(command, newest).await
    }

    /// Batches that the same command began, and that are not sealed.
    async fn unsealed_batches(&self, command: &str) -> Result<Vec<BatchId>, QueueError> {
        let mut look = redis::cmd("ZRANGE");
        // A digest has no blank, and `!` comes behind that.
        look.arg(self.keys.batches_unsealed()).arg(format!("[{command} ")).arg(format!("({command}!")).arg("BYLEX");
        let found: Vec<String> = self.channel.query("look for a batch that was broken off", &look).await?;
        Ok(found.iter().filter_map(|member| member.rsplit(' ').next()?.parse().ok()).collect())
    }

    async fn take_one_over(&self, command: &str, batches: Vec<BatchId>) -> Result<Option<TakenOver>, QueueError> {
        if batches.is_empty() {
            return Ok(None);
        }
        let mut pipe = redis::pipe();
        pipe.cmd("TIME");
        for id in &batches {
            pipe.cmd("HMGET").arg(self.keys.batch(*id)).arg(&["command", "sealed", "enqueuer", "seen"]);
        }
        let mut replies = self.channel.replies("look for a batch that was broken off", &pipe).await?;
        let now_ms = replies.time_ms()?;
        let mut gone = Vec::new();
        for id in batches {
            let mut facts = replies.list("facts of a batch")?;
            let known = facts.text_or_nil("its command")?;
            let sealed = facts.text_or_nil("when it was sealed")?;
            let enqueuer = facts.text_or_nil("its enqueuer")?;
            let seen = facts.text_or_nil("when its enqueuer was seen")?;
            let (Some(known), None, Some(enqueuer)) = (known, sealed, enqueuer) else { continue };
            let seen_ms = seen.and_then(|seen| seen.parse().ok()).unwrap_or(0);
            let is_gone = is_gone_from_this_host(&enqueuer) || now_ms.saturating_sub(seen_ms) > ENQUEUER_GONE_MS;
            if known == command && is_gone {
                gone.push((seen_ms, id, enqueuer));
            }
        }
        // The last one that somebody worked on.
        gone.sort_by_key(|(seen_ms, ..)| std::cmp::Reverse(*seen_ms));
        for (_, id, enqueuer) in gone {
            let batch = OpenBatch { id, enqueuer: new_enqueuer() };
            if let Some((chunks, links)) = self.open_or_take(&batch, &enqueuer, "", command).await? {
                return Ok(Some(TakenOver { batch, chunks, links }));
            }
        }
        Ok(None)
    }

    async fn open_or_take(
        &self,
        batch: &OpenBatch,
        before: &str,
        source: &str,
        command: &str,
    ) -> Result<Option<(u64, u64)>, QueueError> {
        let call = OpenScript {
            batch_key: self.keys.batch(batch.id),
            batches_key: self.keys.batches(),
            batches_unsealed_key: self.keys.batches_unsealed(),
            batch: batch.id.to_string(),
            enqueuer: &batch.enqueuer,
            enqueuer_before: before,
            source,
            command,
            meta_key: self.keys.meta(),
            schema: SCHEMA_VERSION,
        };
        let mut reply = self.channel.run("start a batch", &call.call()).await?;
        let is_ours = reply.word("what became of the batch", &[("ok", true), ("taken", false)])?;
        let (chunks, links) = (reply.count("chunks")?, reply.count("links")?);
        reply.end()?;
        Ok(is_ours.then_some((chunks, links)))
    }

    /// Marks a batch of `chunks` chunks as complete: nothing is added to it any more. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`QueueError::RolledBack`] when Redis no longer knows the last chunk or the batch, [`QueueError::BatchTaken`], or
    /// as every call.
    pub async fn seal_batch(&self, batch: &OpenBatch, chunks: u64) -> Result<(), QueueError> {
        let call = self.seal_call(batch.id, &batch.enqueuer, chunks);
        sealed(batch, self.channel.run("seal a batch", &call).await?)
    }

    /// Marks a batch as complete whose enqueuer is known to be gone.
    ///
    /// # Errors
    /// [`QueueError::NoSuchBatch`], or as every call.
    pub async fn seal_abandoned_batch(&self, id: BatchId) -> Result<(), QueueError> {
        let reply = self.channel.run("seal a batch", &self.seal_call(id, "", 0)).await?;
        match SealReply::read(reply)? {
            SealReply::Sealed => Ok(()),
            SealReply::Missing | SealReply::Taken | SealReply::Gap(_) => Err(QueueError::NoSuchBatch(id.to_string())),
        }
    }

    pub(super) fn seal_call(&self, id: BatchId, enqueuer: &str, chunks: u64) -> Call {
        let batches_unsealed_key = self.keys.batches_unsealed();
        SealScript {
            batch_key: self.keys.batch(id),
            batches_unsealed_key,
            batch: id.to_string(),
            enqueuer,
            chunks,
            meta_key: self.keys.meta(),
            schema: SCHEMA_VERSION,
        }
        .call()
    }

    /// Says that the enqueuer of a batch is alive.
    ///
    /// # Errors
    /// [`QueueError::RolledBack`] when Redis no longer knows the batch, [`QueueError::BatchTaken`], or as every call.
    pub async fn touch_batch(&self, batch: &OpenBatch) -> Result<(), QueueError> {
        let call = TouchScript {
            batch_key: self.keys.batch(batch.id),
            enqueuer: &batch.enqueuer,
            meta_key: self.keys.meta(),
            schema: SCHEMA_VERSION,
        };
        let mut reply = self.channel.run("touch a batch", &call.call()).await?;
        let status = reply.word("what became of the batch", BATCH_WORDS)?;
        reply.end()?;
        match status {
            BatchWord::Ok => Ok(()),
            BatchWord::Taken => Err(QueueError::BatchTaken(batch.id.to_string())),
            BatchWord::Missing => Err(batch.lost()),
        }
    }

    /// The state of one batch, and Redis' time now (ms) to compare its times with.
    ///
    /// # Errors
    /// [`QueueError::NoSuchBatch`], or as every call.
    pub async fn batch(&self, batch: BatchId) -> Result<(BatchState, u64), QueueError> {
        let mut pipe = redis::pipe();
        pipe.hgetall(self.keys.batch(batch)).cmd("TIME");
        let mut reply = self.channel.replies("read a batch", &pipe).await?;
        let (fields, now_ms) = (reply.fields("the batch")?, reply.time_ms()?);
        if fields.is_empty() {
            return Err(QueueError::NoSuchBatch(batch.to_string()));
        }
        Ok((BatchState::from_fields(batch.to_string(), fields), now_ms))
    }

    /// The states of the newest batches, newest first, at most `count`, in two round trips. Redis' time now (ms) is beside them.
    ///
    /// # Errors
    /// As every call.
    pub async fn newest_batch_states(&self, count: usize) -> Result<(Vec<BatchState>, u64), QueueError> {
        let newest = self.newest_batches(count).await?;
        let mut pipe = redis::pipe();
        pipe.cmd("TIME");
        for id in &newest {
            pipe.hgetall(self.keys.batch(*id));
        }
        let mut replies = self.channel.replies("read batches", &pipe).await?;
        let now_ms = replies.time_ms()?;
        let mut states = Vec::with_capacity(newest.len());
        for id in newest {
            let fields = replies.fields("a batch")?;
            if !fields.is_empty() {
                states.push(BatchState::from_fields(id.to_string(), fields));
            }
        }
        Ok((states, now_ms))
    }

    /// The newest batches, newest first, at most `count`.
    ///
    /// # Errors
    /// As every call.
    pub async fn newest_batches(&self, count: usize) -> Result<Vec<BatchId>, QueueError> {
        let ids: Vec<String> = self.channel.query("list batches", &self.list_newest_batches(count)).await?;
        // What is no id somebody else put there, and there is no batch of that name.
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// The command that lists them, for a pipeline.
    pub(super) fn list_newest_batches(&self, count: usize) -> redis::Cmd {
        redis::Cmd::zrange(self.keys.batches(), 0, count.saturating_sub(1) as isize).arg("REV").to_owned()
    }
}

/// What a script says of a batch.
#[derive(Debug, Clone, Copy)]
enum BatchWord {
    Ok,
    Taken,
    Missing,
}

const BATCH_WORDS: &[(&str, BatchWord)] =
    &[("ok", BatchWord::Ok), ("taken", BatchWord::Taken), ("missing", BatchWord::Missing)];

/// What the seal script said.
#[derive(Debug, PartialEq, Eq)]
enum SealReply {
    Sealed,
    Missing,
    Taken,
    /// The first chunk that is not there.
    Gap(u64),
}

impl SealReply {
    fn read(mut reply: Reply) -> Result<SealReply, QueueError> {
        /// What the number behind the word makes of it.
        type Meaning = fn(u64) -> SealReply;
        let words: &[(&str, Meaning)] = &[
            ("ok", |_| SealReply::Sealed),
            ("missing", |_| SealReply::Missing),
            ("taken", |_| SealReply::Taken),
            ("gap", SealReply::Gap),
        ];
        let status = reply.word("what became of the batch", words)?;
        let said = status(reply.count("the first chunk that is missing")?);
        reply.end()?;
        Ok(said)
    }
}

/// What the seal script said to the enqueuer.
pub(super) fn sealed(batch: &OpenBatch, reply: Reply) -> Result<(), QueueError> {
    match SealReply::read(reply)? {
        SealReply::Sealed => Ok(()),
        SealReply::Gap(lost) => Err(QueueError::RolledBack { batch: batch.id.to_string(), lost }),
        SealReply::Taken => Err(QueueError::BatchTaken(batch.id.to_string())),
        SealReply::Missing => Err(batch.lost()),
    }
}

/// What a repeated command finds its batch by: 16 hex digits of a SHA-256 over `parts`.
pub fn command_digest(parts: &[String]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn new_enqueuer() -> String {
    format!("{}:{}:{:08x}", host_name(), std::process::id(), fastrand::u32(..))
}

/// Whether an enqueuer was a process of this host that is not there any more. Its number may have gone to another process
/// meanwhile; then its silence tells.
fn is_gone_from_this_host(enqueuer: &str) -> bool {
    let mut parts = enqueuer.split(':');
    let (host, pid) = (parts.next(), parts.next().and_then(|pid| pid.parse::<i32>().ok()));
    if host != Some(host_name().as_str()) {
        return false;
    }
    match pid.and_then(rustix::process::Pid::from_raw) {
        // In a container that was started again every process may have the number of the one before.
        Some(pid) if pid.as_raw_nonzero().get().cast_unsigned() == std::process::id() => true,
        Some(pid) => rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripts::probe::{takes_only, word};
    use redis::Value::Int;

    #[test]
    fn what_a_seal_says_is_a_word_that_is_known() {
        for (status, expected) in [
            ("ok", SealReply::Sealed),
            ("missing", SealReply::Missing),
            ("taken", SealReply::Taken),
            ("gap", SealReply::Gap(3)),
        ] {
            assert_eq!(takes_only(SealReply::read, &[word(status), Int(3)]), expected);
        }
    }
}
