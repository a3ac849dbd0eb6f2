//! Going through the dead letters, oldest first, a page at a time: those that were there at the beginning, and no others.

use super::{DeadJob, Queue};
use crate::search::{EntryFilter, EntryRange, EntrySearch};
use common::error::QueueError;

/// Dead jobs of a page: as many as [`Queue::settle_dead`] takes in one call.
const PAGE: usize = 500;

/// The dead letters that were there when the first page was asked for. A job that is retried and fails again comes back as a new
/// entry, which is not among them: else retrying all of them might never end.
#[derive(Debug)]
pub struct DeadPages<'a> {
    queue: &'a Queue,
    place: Place,
}

/// How far they were gone through.
#[derive(Debug)]
enum Place {
    Begin(EntryFilter, EntryRange),
    At(EntrySearch),
    End,
}

impl<'a> DeadPages<'a> {
    /// Goes through all of them.
    pub fn new(queue: &'a Queue) -> DeadPages<'a> {
        DeadPages::of(queue, EntryFilter::default(), EntryRange::default())
    }

    /// Goes through those of `range` that pass the filter.
    pub fn of(queue: &'a Queue, filter: EntryFilter, range: EntryRange) -> DeadPages<'a> {
        DeadPages { queue, place: Place::Begin(filter, range) }
    }

    /// The next page, which may be empty where there is a filter; `None` after the last one. Two round trips for the first one.
    ///
    /// # Errors
    /// As every call of [`Queue`]. The same page may be asked for again.
    pub async fn next(&mut self) -> Result<Option<Vec<DeadJob>>, QueueError> {
        if let Place::Begin(filter, range) = &self.place {
            self.place = match self.queue.newest_dead_jobs(None, 1).await?.first() {
                Some(last) => Place::At(EntrySearch::new(filter.clone(), range.clone().but_until(&last.entry), false)),
                None => Place::End,
            };
        }
        let Place::At(search) = &mut self.place else { return Ok(None) };
        let dead_key = self.queue.keys.dead();
        let found = self.queue.search_entries("read dead jobs", dead_key, search, PAGE).await?;
        if found.is_end {
            self.place = Place::End;
        }
        Ok(Some(found.rows.into_iter().map(|(id, fields)| DeadJob::from_fields(id, fields)).collect()))
    }
}
