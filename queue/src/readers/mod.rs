//! Named readers of the results: consumer groups of the stream, so that other programs can be one with `XREADGROUP`.
//!
//! What a reader has acknowledged it has taken. Where workers run with `--results-max`, results are trimmed only as far as
//! every reader has taken them; the claim script does that.

use super::Queue;
use super::results::text_fields;
use crate::scripts::{TYPES, script};
use common::error::QueueError;
use common::report::ResultRow;
use redis::streams::StreamReadReply;
use serde::Serialize;

script! {
    // A script, as Redis refuses XGROUP CREATE when its memory is full, and a reader is what lets results be trimmed.
    AddReaderScript<'a> from "add_reader.lua";
    with [TYPES];
    keys [results_key];
    args [reader: &'a str];
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
    /// Makes a reader that begins with the oldest result there is; one that is there stays as it is.
    ///
    /// # Errors
    /// [`QueueError::BadReaderName`], or as every call.
    pub async fn add_reader(&self, name: &str) -> Result<(), QueueError> {
        let call = AddReaderScript { results_key: self.keys.results(), reader: checked(name)? };
        let mut reply = self.channel.run("add a reader", &call.call()).await?;
        reply.word("whether it was done", &[("ok", ())])?;
        reply.end()
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
        let cmd = redis::Cmd::xinfo_groups(self.keys.results());
        let reply: redis::streams::StreamInfoGroupsReply = self.channel.query("list readers", &cmd).await?;
        Ok(reply
            .groups
            .into_iter()
            .map(|group| Reader {
                reader: group.name,
                last: group.last_delivered_id,
                pending: group.pending as u64,
                behind: group.lag.map(|lag| lag as u64),
            })
            .collect())
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
        let reply: Option<StreamReadReply> = self.channel.query("read results", &cmd).await?;
        let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids);
        entries
            .map(|entry| text_fields("read results", entry).map(|(id, fields)| ResultRow::from_fields(id, fields)))
            .collect()
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
