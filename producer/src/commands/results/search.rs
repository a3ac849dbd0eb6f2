//! The results that pass the filter, page by page, out of that part of the stream in which they can lie.

use crate::cli::ResultsArgs;
use crate::commands::CommandError;
use common::error::QueueError;
use common::job::BatchId;
use common::report::ResultRow;
use queue::{BatchState, EntryFilter, EntryRange, EntrySearch, Found, Queue};

/// Results that are asked for in one go, where Redis has nothing to look for.
const PAGE: u64 = 1000;

/// A search, and what is left to be done when its first part is through.
pub(super) struct ResultSearch {
    search: EntrySearch,
    /// The parts of the stream that are looked through as well when the first one lacks results.
    others: Vec<EntryRange>,
    /// How many the counters of the batch say there are, where they tell.
    expected: u64,
    found: u64,
    /// Where the first part begins.
    from_ms: u64,
    /// The first part is through, and lacked results.
    is_elsewhere: bool,
}

impl ResultSearch {
    /// Begins a search. One batch's results are looked for where its times say that they are.
    ///
    /// # Errors
    /// As every call of [`Queue`], and a batch that the queue does not know.
    pub(super) async fn begin(queue: &Queue, args: &ResultsArgs) -> Result<ResultSearch, CommandError> {
        let since_ms = match args.since {
            Some(since) => Some(since.as_ms(queue.now_ms().await?)),
            None => None,
        };
        let batch = match args.batch {
            Some(id) => known_batch(queue, id, since_ms.is_some()).await?,
            None => None,
        };
        let parts = Parts::of(batch.as_ref(), since_ms, args.follow);
        let filter = EntryFilter {
            outcome: args.outcome.clone(),
            reason: args.reason.clone(),
            batch: args.batch,
            ..EntryFilter::default()
        };
        let is_whole = since_ms.is_none() && !args.follow;
        let of_batch = |batch| expected(batch, args.outcome.as_deref(), args.reason.as_deref());
        let expected = batch.as_ref().filter(|_| is_whole).map_or(0, of_batch);
        Ok(ResultSearch {
            search: EntrySearch::new(filter, parts.first, args.latest),
            others: parts.others,
            expected,
            found: 0,
            from_ms: parts.from_ms,
            is_elsewhere: false,
        })
    }

    /// The next ones, `left` at most, or none yet of those that there are.
    ///
    /// # Errors
    /// As every call of [`Queue`]. Then the same are looked for again.
    pub(super) async fn next(&mut self, queue: &Queue, left: u64) -> Result<Found<ResultRow>, QueueError> {
        let found_max = usize::try_from(left.min(PAGE)).unwrap_or(1);
        let mut found = queue.search_results(&mut self.search, found_max).await?;
        self.found += found.rows.len() as u64;
        if found.is_end && self.found < self.expected && (found.rows.len() as u64) < left {
            found.is_end = !self.go_on_elsewhere(queue).await?;
        }
        Ok(found)
    }

    /// Results are missing. They may be gone, which they are from the oldest on. Else the clock of Redis was set, and they are where
    /// nobody can tell: anywhere.
    async fn go_on_elsewhere(&mut self, queue: &Queue) -> Result<bool, QueueError> {
        if !self.is_elsewhere {
            self.is_elsewhere = queue.has_all_results_since(self.from_ms).await?;
            if !self.is_elsewhere {
                return Ok(false);
            }
            eprintln!(
                "note: {} of the batch's results are not where its times say, as if the clock of Redis had been set: looking through all",
                self.expected - self.found
            );
        }
        let Some(other) = self.others.pop() else { return Ok(false) };
        self.search.go_on_in(other);
        Ok(true)
    }
}

/// The batch; `None` of one that the queue does not know where that does not matter.
async fn known_batch(queue: &Queue, id: BatchId, has_since: bool) -> Result<Option<BatchState>, CommandError> {
    match queue.batch(id).await {
        Ok((batch, _)) => Ok(Some(batch)),
        // It may have been forgotten before its results.
        Err(QueueError::NoSuchBatch(_)) if has_since => {
            eprintln!("note: this queue does not know batch {id}: looking for its results through all since then");
            Ok(None)
        }
        Err(error @ QueueError::NoSuchBatch(_)) => Err(CommandError::Other {
            message: error.to_string(),
            hint: "`producer batches` shows those there are; of one that was forgotten there may still be results, which --since 30days \
                   looks for through all of that time"
                .to_owned(),
            code: 1,
        }),
        Err(error) => Err(error.into()),
    }
}

/// Fails when `--batch` names one that the queue does not know.
///
/// # Errors
/// As every call of [`Queue`], and that.
pub(super) async fn batch_is_known(queue: &Queue, args: &ResultsArgs) -> Result<(), CommandError> {
    match args.batch {
        Some(id) => known_batch(queue, id, false).await.map(drop),
        None => Ok(()),
    }
}

/// Which parts of the stream are looked through.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    first: EntryRange,
    /// The last one is the next.
    others: Vec<EntryRange>,
    from_ms: u64,
}

impl Parts {
    /// One that is not finished goes on, and so does one that is followed: a dead job that is retried opens it again, and takes the
    /// time of its end away until it has ended.
    fn of(batch: Option<&BatchState>, since_ms: Option<u64>, follow: bool) -> Parts {
        let span_ms = batch.map(BatchState::span_ms);
        let from_ms = since_ms.max(span_ms.map(|(from_ms, _)| from_ms));
        let until_ms = span_ms.and_then(|(_, until_ms)| until_ms).filter(|_| !follow);
        let all = EntryRange::default;
        let first = from_ms.map_or_else(all, |ms| all().since_ms(ms));
        let mut others = Vec::new();
        if let Some(ms) = from_ms.and_then(|ms| ms.checked_sub(1)) {
            others.push(all().until_ms(ms));
        }
        others.extend(until_ms.map(|ms| all().since_ms(ms + 1)));
        Parts {
            first: until_ms.map_or_else(|| first.clone(), |ms| first.clone().until_ms(ms)),
            others,
            from_ms: from_ms.unwrap_or(0),
        }
    }
}

/// How many results of the batch pass the filter, or more: those of jobs that were retried count once.
fn expected(batch: &BatchState, outcome: Option<&str>, reason: Option<&str>) -> u64 {
    let of_outcome = match outcome {
        None => batch.ended(),
        Some("stored") => batch.stored,
        Some("rejected") => batch.rejected,
        Some(_) => batch.failed,
    };
    let Some(reason) = reason else { return of_outcome };
    let is_of = |name: &str| {
        name.split_once(':').is_some_and(|(of, why)| why == reason && outcome.is_none_or(|outcome| outcome == of))
    };
    batch.reasons.iter().filter(|(name, _)| is_of(name)).map(|(_, jobs)| jobs).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN_MS: u64 = 60_000;

    #[test]
    fn a_batch_lies_between_its_times_and_the_rest_of_the_stream_on_either_side() {
        let all = EntryRange::default;
        let batch = |finished| BatchState { started: 10 * MIN_MS, finished, ..BatchState::default() };
        let (ended, open) = (batch(20 * MIN_MS), batch(0));
        let before = || all().until_ms(9 * MIN_MS - 1);
        let behind = || all().since_ms(21 * MIN_MS + 1);
        let cases = [
            ("all", None, None, false, all(), vec![], 0),
            ("since", None, Some(7), false, all().since_ms(7), vec![all().until_ms(6)], 7),
            (
                "ended",
                Some(&ended),
                None,
                false,
                all().since_ms(9 * MIN_MS).until_ms(21 * MIN_MS),
                vec![before(), behind()],
                9 * MIN_MS,
            ),
            ("open", Some(&open), None, false, all().since_ms(9 * MIN_MS), vec![before()], 9 * MIN_MS),
            ("followed", Some(&ended), None, true, all().since_ms(9 * MIN_MS), vec![before()], 9 * MIN_MS),
            (
                "both",
                Some(&open),
                Some(99 * MIN_MS),
                false,
                all().since_ms(99 * MIN_MS),
                vec![all().until_ms(99 * MIN_MS - 1)],
                99 * MIN_MS,
            ),
        ];
        for (name, batch, since_ms, follow, first, others, from_ms) in cases {
            let parts = Parts::of(batch, since_ms, follow);
            assert_eq!((parts.first, parts.from_ms), (first, from_ms), "{name}");
            assert_eq!(parts.others, others, "{name}");
        }
    }

    #[test]
    fn the_counters_of_a_batch_say_how_many_results_it_has() {
        let reasons = [("stored:exists", 2), ("rejected:gone", 3), ("failed:dns", 4)];
        let reasons = reasons.map(|(name, jobs)| (name.to_owned(), jobs)).into();
        let batch = BatchState { stored: 5, rejected: 3, failed: 6, purged: 9, reasons, ..BatchState::default() };
        for (outcome, reason, jobs) in [
            (None, None, 14),
            (Some("stored"), None, 5),
            (Some("failed"), None, 6),
            (None, Some("gone"), 3),
            (Some("failed"), Some("dns"), 4),
            (Some("stored"), Some("dns"), 0),
        ] {
            assert_eq!(expected(&batch, outcome, reason), jobs, "{outcome:?} {reason:?}");
        }
    }
}
