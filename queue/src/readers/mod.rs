//! Named readers of the results: consumer groups of the stream, so that other programs can be one with `XREADGROUP`.
//!
//! What a reader has acknowledged it has taken. Where workers run with `--results-max`, results are trimmed only as far as
//! every reader has taken them; the claim script does that.

use super::Queue;
use super::results::text_fields;
use super::retention::{KEEP, KEEP_BY_DEFAULT, Keep};
use crate::scripts::{KNOWN_SCHEMA, Piece, TIME, TYPES, piece, script};
use common::error::QueueError;
use common::job::SCHEMA_VERSION;
use common::report::ResultRow;
use redis::streams::StreamReadReply;
use serde::Serialize;
use std::collections::HashMap;
use std::time::Duration;

/// Readers, and where they stand.
pub(super) const GROUPS: Piece = piece!("groups.lua");

script! {
    // A script, as Redis refuses XGROUP CREATE when its memory is full, and a reader is what lets results be trimmed.
    AddReaderScript<'a> from "add_reader.lua";
    with [TIME, TYPES, KNOWN_SCHEMA, KEEP_BY_DEFAULT, KEEP, GROUPS];
    keys [results_key, meta_key];
    args [reader: &'a str, schema: u32];
}

/// A reader, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reader {
    /// Its name.
    pub reader: String,
    /// The last entry it was given.
    pub last: String,
    /// Entries it was given and has not taken.
    pub pending: u64,
    /// Entries it was not given yet; `None` where Redis cannot tell.
    pub behind: Option<u64>,
    /// For how long (ms) it has stood still with results before it, as far as anybody noticed.
    pub still_ms: Option<u64>,
    /// It has done so for too long: results are not kept for it any more.
    pub is_silent: bool,
}

/// What one reader reads under. A second process of the same reader would be given what the first has not taken.
const CONSUMER: &str = "producer";

fn checked(name: &str) -> Result<&str, QueueError> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(valid) {
        return Err(QueueError::BadReaderName(name.to_owned()));
    }
    Ok(name)
}

impl Queue {
    /// Makes a reader that begins with the oldest result there is; one that is there stays as it is. Returns for how long it has stood
    /// still, where that was so long that results were not kept for it any more.
    ///
    /// # Errors
    /// [`QueueError::BadReaderName`], or as every call.
    pub async fn add_reader(&self, name: &str) -> Result<Option<Duration>, QueueError> {
        let call = AddReaderScript {
            results_key: self.keys.results(),
            reader: checked(name)?,
            meta_key: self.keys.meta(),
            schema: SCHEMA_VERSION,
        };
        let mut reply = self.channel.run("add a reader", &call.call()).await?;
        reply.word("whether it was done", &[("ok", ())])?;
        let still_ms = reply.count_unless_minus_one("ms for which it was silent, or -1")?;
        reply.end()?;
        Ok(still_ms.map(Duration::from_millis))
    }

    /// Removes a reader: what it has not taken does not keep results from being trimmed any more.
    ///
    /// # Errors
    /// [`QueueError::NoSuchReader`], or as every call.
    pub async fn drop_reader(&self, name: &str) -> Result<(), QueueError> {
        let cmd = redis::Cmd::xgroup_destroy(self.keys.results(), checked(name)?);
        match self.channel.query::<u64>("remove a reader", &cmd).await {
            Ok(0) => Err(QueueError::NoSuchReader(name.to_owned())),
            Err(QueueError::Refused { .. }) if self.readers().await?.is_empty() => {
                Err(QueueError::NoSuchReader(name.to_owned()))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// All readers, other programs' groups included.
    ///
    /// # Errors
    /// As every call.
    pub async fn readers(&self) -> Result<Vec<Reader>, QueueError> {
        let exists: bool = self.channel.query("list readers", &redis::Cmd::exists(self.keys.results())).await?;
        if !exists {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        pipe.cmd("TIME").hgetall(self.keys.meta());
        let mut reply = self.channel.replies("read the queue's facts", &pipe).await?;
        let now_ms = reply.time_ms()?;
        let meta: HashMap<String, String> = reply.fields("facts of the queue")?.into_iter().collect();
        let keep = self.retention().await?.readers;
        let cmd = redis::Cmd::xinfo_groups(self.keys.results());
        let reply: redis::streams::StreamInfoGroupsReply = self.channel.query("list readers", &cmd).await?;
        let readers = reply.groups.into_iter().map(|group| {
            // As `groups.lua` says where a reader stands.
            let position = format!("{}/{} ", group.last_delivered_id, group.pending);
            let since = meta.get(&format!("reader:{}", group.name)).and_then(|stands| stands.strip_prefix(&position));
            let still_ms = since.and_then(|since| Some(now_ms.saturating_sub(since.parse().ok()?)));
            let is_over = |still_ms| matches!(keep, Keep::For(time) if Duration::from_millis(still_ms) > time);
            Reader {
                last: group.last_delivered_id,
                pending: group.pending as u64,
                behind: group.lag.map(|lag| lag as u64),
                still_ms,
                is_silent: still_ms.is_some_and(is_over),
                reader: group.name,
            }
        });
        Ok(readers.collect())
    }

    /// Up to `count` results that `reader` was not given yet, oldest first; with `again` instead those that it was given
    /// after the entry of that id and has not taken, for a start after a crash.
    ///
    /// Cancel safety: what was given and not taken is given again with `again`.
    ///
    /// # Errors
    /// As every call.
    pub async fn read_as(&self, reader: &str, again: Option<&str>, count: usize) -> Result<Vec<ResultRow>, QueueError> {
        let mut cmd = redis::cmd("XREADGROUP");
        cmd.arg("GROUP").arg(reader).arg(CONSUMER).arg("COUNT").arg(count);
        cmd.arg("STREAMS").arg(self.keys.results()).arg(again.unwrap_or(">"));
        loop {
            let reply: Option<StreamReadReply> = self.channel.query("read results", &cmd).await?;
            let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids);
            // Of a result that was trimmed or purged since it was given out the id is all that is left.
            let (gone, there): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.map.is_empty());
            if gone.is_empty() {
                let row =
                    |entry| text_fields("read results", entry).map(|(id, fields)| ResultRow::from_fields(id, fields));
                return there.into_iter().map(row).collect();
            }
            self.taken(reader, &gone.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>()).await?;
        }
    }

    /// Records that `reader` has taken `entries`.
    ///
    /// # Errors
    /// As every call. Repeating it changes nothing.
    pub async fn taken(&self, reader: &str, entries: &[&str]) -> Result<(), QueueError> {
        let cmd = redis::Cmd::xack(self.keys.results(), reader, entries);
        self.channel.query::<u64>("mark results as taken", &cmd).await.map(drop)
    }
}
