//! The results page by page as a named reader takes them: those that it was not given yet, and before them what it was given and had not
//! taken when it ended.

use common::error::QueueError;
use common::report::ResultRow;
use common::text::duration;
use queue::Queue;

/// Results read from Redis in one go.
const PAGE: usize = 1000;

pub(super) struct ReaderPages<'a> {
    reader: &'a str,
    /// Whether Redis knows the reader.
    is_entered: bool,
    /// The last entry that was read of those that it was given before a crash.
    after: Option<String>,
    /// Whether these are through.
    only_new: bool,
    /// Entries that were passed on, and of which Redis does not know yet that the reader took them.
    passed_on: Vec<String>,
}

impl<'a> ReaderPages<'a> {
    pub(super) fn new(reader: &'a str) -> ReaderPages<'a> {
        ReaderPages { reader, is_entered: false, after: None, only_new: false, passed_on: Vec::new() }
    }

    pub(super) async fn next(&mut self, queue: &Queue) -> Result<Vec<ResultRow>, QueueError> {
        if !self.is_entered {
            add_reader(queue, self.reader).await?;
            self.is_entered = true;
        }
        self.take(queue).await?;
        let again = (!self.only_new).then(|| self.after.as_deref().unwrap_or("0"));
        queue.read_as(self.reader, again, PAGE).await
    }

    /// Takes a page that was passed on; tells whether there is nothing more at the moment.
    pub(super) async fn done_with(&mut self, queue: &Queue, page: Vec<ResultRow>) -> Result<bool, QueueError> {
        let is_last = page.len() < PAGE;
        self.passed_on.extend(page.iter().map(|row| row.entry.clone()));
        if let Some(row) = page.into_iter().next_back() {
            self.after = Some(row.entry);
        }
        self.take(queue).await?;
        if is_last && !self.only_new {
            self.only_new = true;
            return Ok(false);
        }
        Ok(is_last)
    }

    /// Tells Redis what the reader took. Once more is once.
    async fn take(&mut self, queue: &Queue) -> Result<(), QueueError> {
        if !self.passed_on.is_empty() {
            let entries: Vec<&str> = self.passed_on.iter().map(String::as_str).collect();
            queue.taken(self.reader, &entries).await?;
            self.passed_on.clear();
        }
        Ok(())
    }

    /// After an answer that did not come: the reader may have been given entries in it, and is given those again that it has not taken.
    /// And Redis may have come back from before the reader was there.
    pub(super) fn lost(&mut self) {
        (self.is_entered, self.only_new, self.after) = (false, false, None);
    }
}

/// Enters a reader, with a word where results were not kept for it any more.
pub(super) async fn add_reader(queue: &Queue, name: &str) -> Result<(), QueueError> {
    if let Some(silent) = queue.add_reader(name).await? {
        let silent = duration(silent);
        eprintln!(
            "note: reader {name} stood still for {silent}, and results were not kept for it any more (`producer retention`): some may be \
             missing"
        );
    }
    Ok(())
}
