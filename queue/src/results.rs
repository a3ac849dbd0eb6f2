//! Reading the results stream, page by page, in either direction.

use super::Queue;
use common::error::QueueError;
use common::report::ResultRow;
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

/// Which entries of a stream are read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Page<'a> {
    /// Those after an entry, or from the beginning, oldest first.
    After(Option<&'a str>),
    /// Those before an entry, or from the end, newest first.
    Before(Option<&'a str>),
    /// Only this one.
    Entry(&'a str),
}

impl Queue {
    /// Entries of a stream as text: their ids and fields.
    pub(super) async fn page(
        &self,
        doing: &'static str,
        stream: String,
        page: Page<'_>,
        count: usize,
    ) -> Result<Vec<(String, Vec<(String, String)>)>, QueueError> {
        let open = |entry: &str| format!("({entry}");
        let cmd = match page {
            Page::After(entry) => {
                redis::Cmd::xrange_count(stream, entry.map_or_else(|| "-".to_owned(), open), "+", count)
            }
            Page::Before(entry) => {
                redis::Cmd::xrevrange_count(stream, entry.map_or_else(|| "+".to_owned(), open), "-", count)
            }
            Page::Entry(entry) => redis::Cmd::xrange_count(stream, entry, entry, count),
        };
        let reply: StreamRangeReply = self.channel.query(doing, &cmd).await?;
        Ok(reply.ids.into_iter().map(text_fields).collect())
    }

    /// Up to `count` results after the entry `after` (`None`: from the beginning), oldest first.
    ///
    /// # Errors
    /// As every call.
    pub async fn results(&self, after: Option<&str>, count: usize) -> Result<Vec<ResultRow>, QueueError> {
        self.result_page(Page::After(after), count).await
    }

    /// Up to `count` results before the entry `before` (`None`: the last ones), newest first.
    ///
    /// # Errors
    /// As every call.
    pub async fn newest_results(&self, before: Option<&str>, count: usize) -> Result<Vec<ResultRow>, QueueError> {
        self.result_page(Page::Before(before), count).await
    }

    /// The result of this entry, `<ms>-<n>`, if it is still there.
    ///
    /// # Errors
    /// [`QueueError::Refused`] when that is no entry's id, or as every call.
    pub async fn result(&self, entry: &str) -> Result<Option<ResultRow>, QueueError> {
        Ok(self.result_page(Page::Entry(entry), 1).await?.into_iter().next())
    }

    async fn result_page(&self, page: Page<'_>, count: usize) -> Result<Vec<ResultRow>, QueueError> {
        let entries = self.page("read results", self.keys.results(), page, count).await?;
        Ok(entries.into_iter().map(|(id, fields)| ResultRow::from_fields(id, fields)).collect())
    }
}
