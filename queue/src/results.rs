//! Reading the results stream, page by page, in either direction.

use super::Queue;
use crate::scripts::{text, unexpected};
use common::error::QueueError;
use common::report::ResultRow;
use redis::streams::StreamRangeReply;

/// An entry's id and its fields as text.
pub(super) fn text_fields(
    doing: &'static str,
    entry: redis::streams::StreamId,
) -> Result<(String, Vec<(String, String)>), QueueError> {
    let mut fields = Vec::with_capacity(entry.map.len());
    for (name, value) in entry.map {
        let value = text(&value).ok_or_else(|| unexpected(doing, &value, "a field's value"))?;
        fields.push((name, value));
    }
    Ok((entry.id, fields))
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
        reply.ids.into_iter().map(|entry| text_fields(doing, entry)).collect()
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
