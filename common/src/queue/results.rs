//! Reading the results stream, page by page.

use super::Queue;
use crate::error::QueueError;
use crate::report::ResultRow;
use redis::streams::StreamRangeReply;

pub(super) fn text_fields(entry: redis::streams::StreamId) -> (String, Vec<(String, String)>) {
    let fields = entry
        .map
        .into_iter()
        .map(|(name, value)| {
            // Results hold what strangers sent; bytes that are no UTF-8 are shown as such.
            let text = match value {
                redis::Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                other => redis::from_redis_value(other).unwrap_or_default(),
            };
            (name, text)
        })
        .collect();
    (entry.id, fields)
}

impl Queue {
    /// Up to `count` results after the entry `after` (`None`: from the beginning), oldest first.
    ///
    /// # Errors
    /// As every call.
    pub async fn results(&self, after: Option<&str>, count: usize) -> Result<Vec<ResultRow>, QueueError> {
        let start = after.map_or_else(|| "-".to_owned(), |entry| format!("({entry}"));
        let cmd = redis::Cmd::xrange_count(self.keys.results(), start, "+", count);
        let reply: StreamRangeReply = self.channel.query("read results", &cmd).await?;
        Ok(reply
            .ids
            .into_iter()
            .map(|entry| {
                let (id, fields) = text_fields(entry);
                ResultRow::from_fields(id, fields)
            })
            .collect())
    }
}
