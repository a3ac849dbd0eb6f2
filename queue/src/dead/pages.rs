//! Going through the dead letters, oldest first, a page at a time: those that were there at the beginning, and no others.

use super::{DeadJob, Queue};
use common::error::QueueError;

/// Dead jobs of a page: as many as [`Queue::settle_dead`] takes in one call.
const PAGE: usize = 500;

/// The dead letters that were there when this was made. A job that is retried and fails again comes back as a new entry, which is
/// not among them: else retrying all of them might never end.
#[derive(Debug)]
pub struct DeadPages<'a> {
    queue: &'a Queue,
    /// The last entry that was read.
    after: Option<String>,
    /// Entries that are still to be read.
    left: u64,
}

impl<'a> DeadPages<'a> {
    /// Goes through the `dead` letters that `queue` has, as its status says.
    pub fn new(queue: &'a Queue, dead: u64) -> DeadPages<'a> {
        DeadPages { queue, after: None, left: dead }
    }

    /// The next page; `None` after the last one.
    ///
    /// # Errors
    /// As every call of [`Queue`]. The same page may be asked for again.
    pub async fn next(&mut self) -> Result<Option<Vec<DeadJob>>, QueueError> {
        if self.left == 0 {
            return Ok(None);
        }
        let page = self.queue.dead_jobs(self.after.as_deref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.after = Some(last.entry.clone());
        self.left = self.left.saturating_sub(page.len() as u64);
        Ok(Some(page))
    }
}
