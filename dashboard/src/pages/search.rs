//! Looks through a stream for the rows of one page, newest first, and no further than it may cost Redis.

use common::error::QueueError;
use common::report::ResultRow;
use queue::{DeadJob, Queue};

/// Rows of a page.
const ROWS_MAX: usize = 50;
/// Entries that are looked through for them, so that a rare reason does not cost Redis all of a long stream.
const LOOKED_AT_MAX: usize = 5000;
const READ_AT_ONCE: usize = 500;

/// Rows, how many entries were looked at for them, and where the next page begins.
pub(super) struct Found<T> {
    pub(super) rows: Vec<T>,
    pub(super) looked_at: usize,
    /// `None` at the end of the stream.
    pub(super) next: Option<String>,
}

/// What a stream has an entry of for each.
pub(super) trait Row: Sized {
    /// Its entry in the stream.
    fn entry(&self) -> &str;

    /// Up to `count` rows before an entry, or the last ones of all, newest first.
    fn read(
        queue: &Queue,
        before: Option<&str>,
        count: usize,
    ) -> impl Future<Output = Result<Vec<Self>, QueueError>> + Send;
}

impl Row for ResultRow {
    fn entry(&self) -> &str {
        &self.entry
    }

    async fn read(queue: &Queue, before: Option<&str>, count: usize) -> Result<Vec<ResultRow>, QueueError> {
        queue.newest_results(before, count).await
    }
}

impl Row for DeadJob {
    fn entry(&self) -> &str {
        &self.entry
    }

    async fn read(queue: &Queue, before: Option<&str>, count: usize) -> Result<Vec<DeadJob>, QueueError> {
        queue.newest_dead_jobs(before, count).await
    }
}

/// The newest rows before the entry `before`, or of all where there is none, that `is_wanted` takes; without it each is taken.
///
/// # Errors
/// As every call of [`Queue`].
pub(super) async fn newest<T: Row>(
    queue: &Queue,
    before: Option<&str>,
    is_wanted: Option<impl Fn(&T) -> bool>,
) -> Result<Found<T>, QueueError> {
    let at_once = if is_wanted.is_none() { ROWS_MAX } else { READ_AT_ONCE };
    let mut found = Found { rows: Vec::new(), looked_at: 0, next: before.map(str::to_owned) };
    while found.looked_at < LOOKED_AT_MAX {
        let page = T::read(queue, found.next.as_deref(), at_once).await?;
        let is_last = page.len() < at_once;
        for row in page {
            found.looked_at += 1;
            found.next = Some(row.entry().to_owned());
            if is_wanted.as_ref().is_none_or(|is_wanted| is_wanted(&row)) {
                found.rows.push(row);
                if found.rows.len() == ROWS_MAX {
                    return Ok(found);
                }
            }
        }
        if is_last {
            found.next = None;
            break;
        }
    }
    Ok(found)
}
