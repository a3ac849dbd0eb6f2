//! Looking through a stream for entries that pass a filter: Redis looks, a bounded number in one call, and sends those that pass.

use super::Queue;
use super::results::text_fields;
use crate::scripts::{Reply, part, script};
use common::error::QueueError;
use common::job::BatchId;
use common::report::ResultRow;
use redis::streams::StreamRangeReply;
use std::collections::HashMap;

script! {
    FindScript<'a> from "find_entries.lua", only reads;
    with [];
    keys [stream_key];
    args [newest_first: bool, from: &'a str, to: &'a str, looked_at_max: usize, found_max: usize], then conditions_from;
    parts [Condition]
}

part! {
    Condition<'a> as CONDITION { args [field: &'a str, value: &'a str] }
}

/// Entries that Redis looks at in one call: a few milliseconds, in which it does nothing else.
const LOOKED_AT_MAX: usize = 500;

/// What a result or a dead job has to have; what is `None` may be anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// `stored`, `rejected` or `failed`.
    pub outcome: Option<String>,
    /// A word of the contract.
    pub reason: Option<String>,
    /// Its enqueue.
    pub batch: Option<BatchId>,
    /// The job.
    pub id: Option<String>,
}

impl EntryFilter {
    /// The fields that have to have a value.
    fn conditions(&self) -> Vec<(&'static str, String)> {
        let of = |field, value: &Option<String>| value.clone().map(|value| (field, value));
        let batch = self.batch.map(|batch| batch.to_string());
        [of("outcome", &self.outcome), of("reason", &self.reason), of("batch", &batch), of("id", &self.id)]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// Which part of a stream, as two ids in the way of XRANGE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRange {
    lowest: String,
    highest: String,
}

impl Default for EntryRange {
    /// All of it.
    fn default() -> EntryRange {
        EntryRange { lowest: "-".to_owned(), highest: "+".to_owned() }
    }
}

impl EntryRange {
    /// Only entries of this time (ms, by the clock of Redis) and later ones.
    pub fn since_ms(self, ms: u64) -> EntryRange {
        EntryRange { lowest: format!("{ms}-0"), ..self }
    }

    /// Only entries of this time and earlier ones.
    pub fn until_ms(self, ms: u64) -> EntryRange {
        EntryRange { highest: format!("{ms}-{}", u64::MAX), ..self }
    }

    /// Nothing beyond this entry either.
    pub(super) fn but_until(self, entry: &str) -> EntryRange {
        let is_earlier = self.highest != "+" && numbers(&self.highest) <= numbers(entry);
        if is_earlier { self } else { EntryRange { highest: entry.to_owned(), ..self } }
    }
}

/// The two numbers of an entry's id.
fn numbers(id: &str) -> (u64, u64) {
    let (ms, n) = id.split_once('-').unwrap_or((id, "0"));
    (ms.parse().unwrap_or(0), n.parse().unwrap_or(0))
}

/// How far somebody has looked through a stream, and for what.
#[derive(Debug, Clone)]
pub struct EntrySearch {
    filter: EntryFilter,
    range: EntryRange,
    newest_first: bool,
}

impl EntrySearch {
    /// Looks from the beginning of `range`, or from its end.
    pub fn new(filter: EntryFilter, range: EntryRange, newest_first: bool) -> EntrySearch {
        EntrySearch { filter, range, newest_first }
    }

    /// Goes on in another part of the stream.
    pub fn go_on_in(&mut self, range: EntryRange) {
        self.range = range;
    }

    /// What was looked at ends here.
    fn passed(&mut self, entry: &str) {
        let next = format!("({entry}");
        if self.newest_first {
            self.range.highest = next;
        } else {
            self.range.lowest = next;
        }
    }

    /// The first and the last id in the order in which they are read.
    fn bounds(&self) -> (&str, &str) {
        let EntryRange { lowest, highest } = &self.range;
        if self.newest_first { (highest, lowest) } else { (lowest, highest) }
    }
}

/// What was found in one call.
#[derive(Debug)]
pub struct Found<T> {
    /// In the order in which they were looked at. There may be more behind none.
    pub rows: Vec<T>,
    /// There are no more at the moment.
    pub is_end: bool,
}

/// An entry's id and its fields.
type Entry = (String, Vec<(String, String)>);

impl Queue {
    /// Goes on with a search among the results. Up to `found_max` of them; a call looks at some hundreds.
    ///
    /// # Errors
    /// As every call. Then the same are looked at again.
    pub async fn search_results(
        &self,
        search: &mut EntrySearch,
        found_max: usize,
    ) -> Result<Found<ResultRow>, QueueError> {
        let found = self.search_entries("read results", self.keys.results(), search, found_max).await?;
        let rows = found.rows.into_iter().map(|(id, fields)| ResultRow::from_fields(id, fields)).collect();
        Ok(Found { rows, is_end: found.is_end })
    }

    /// Whether all results are still there that were made from this time on (ms, by the clock of Redis), as far as can be told: those
    /// that are removed are the oldest ones. Two round trips at most.
    ///
    /// # Errors
    /// As every call.
    pub async fn has_all_results_since(&self, ms: u64) -> Result<bool, QueueError> {
        let Some(oldest) = self.results(None, 1).await?.pop() else { return Ok(false) };
        if numbers(&oldest.entry).0 <= ms {
            return Ok(true);
        }
        // Or none was ever removed.
        let mut cmd = redis::cmd("XINFO");
        cmd.arg("STREAM").arg(self.keys.results());
        let facts: HashMap<String, redis::Value> = self.channel.query("read results", &cmd).await?;
        Ok(facts.contains_key("length") && facts.get("length") == facts.get("entries-added"))
    }

    /// Goes on with a search in a stream.
    pub(super) async fn search_entries(
        &self,
        doing: &'static str,
        stream_key: String,
        search: &mut EntrySearch,
        found_max: usize,
    ) -> Result<Found<Entry>, QueueError> {
        let conditions = search.filter.conditions();
        let (from, to) = search.bounds();
        if conditions.is_empty() {
            // All are sent: without a script that costs Redis a third.
            let mut cmd = redis::cmd(if search.newest_first { "XREVRANGE" } else { "XRANGE" });
            cmd.arg(stream_key).arg(from).arg(to).arg("COUNT").arg(found_max);
            let reply: StreamRangeReply = self.channel.query(doing, &cmd).await?;
            let rows: Vec<Entry> =
                reply.ids.into_iter().map(|entry| text_fields(doing, entry)).collect::<Result<_, _>>()?;
            if let Some((last, _)) = rows.last() {
                search.passed(last);
            }
            return Ok(Found { is_end: rows.len() < found_max, rows });
        }
        let newest_first = search.newest_first;
        let call = FindScript { stream_key, newest_first, from, to, looked_at_max: LOOKED_AT_MAX, found_max };
        let mut call = call.call();
        for (field, value) in &conditions {
            Condition { field, value }.add_to(&mut call);
        }
        let (last, found) = read(self.channel.run(doing, &call).await?)?;
        if !last.is_empty() {
            search.passed(&last);
        }
        Ok(found)
    }
}

/// The last entry that was looked at, and those that were found.
fn read(mut reply: Reply) -> Result<(String, Found<Entry>), QueueError> {
    let last = reply.text("the last entry that was looked at")?;
    let is_end = reply.flag("whether there are no more")?;
    let mut entries = reply.list("the entries that were found")?;
    reply.end()?;
    let mut rows = Vec::with_capacity(entries.len());
    while entries.len() > 0 {
        let mut entry = entries.list("an entry")?;
        rows.push((entry.text("an entry's id")?, entry.fields("an entry's fields")?.into_iter().collect()));
        entry.end()?;
    }
    Ok((last, Found { rows, is_end }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripts::probe::{takes_only, word};
    use redis::Value::{Array, Int};

    #[test]
    fn a_search_goes_on_behind_what_was_looked_at_in_either_direction() {
        let range = EntryRange::default().since_ms(5).until_ms(9);
        let search = |newest_first, passed: &str| {
            let mut search = EntrySearch::new(EntryFilter::default(), range.clone(), newest_first);
            search.passed(passed);
            let (from, to) = search.bounds();
            (from.to_owned(), to.to_owned())
        };
        assert_eq!(search(false, "7-1"), ("(7-1".to_owned(), format!("9-{}", u64::MAX)));
        assert_eq!(search(true, "7-1"), ("(7-1".to_owned(), "5-0".to_owned()));
        let whole = EntrySearch::new(EntryFilter::default(), EntryRange::default(), true);
        assert_eq!(whole.bounds(), ("+", "-"));
    }

    #[test]
    fn a_range_ends_where_both_of_its_ends_allow() {
        let until_9 = || EntryRange::default().until_ms(9);
        for (range, entry, expected) in [
            (EntryRange::default(), "3-4", "3-4"),
            (until_9(), "10-0", "9-18446744073709551615"),
            (until_9(), "9-18446744073709551615", "9-18446744073709551615"),
            (until_9(), "9-7", "9-7"),
            (until_9(), "8-20", "8-20"),
        ] {
            assert_eq!(range.but_until(entry).highest, expected, "{entry}");
        }
    }

    #[test]
    fn what_may_be_anything_is_no_condition() {
        assert_eq!(EntryFilter::default().conditions(), []);
        let filter = EntryFilter {
            reason: Some("gone".into()),
            batch: Some(BatchId::from_random(255)),
            ..EntryFilter::default()
        };
        assert_eq!(filter.conditions(), [("reason", "gone".to_owned()), ("batch", "0000000000ff".to_owned())]);
    }

    #[test]
    fn what_a_search_says_is_read_part_by_part() {
        let entry = Array(vec![word("1-0"), Array(vec![word("id"), word("a")])]);
        let read_one = |reply| {
            let (last, found) = read(reply)?;
            assert_eq!(found.rows, [("1-0".to_owned(), vec![("id".to_owned(), "a".to_owned())])]);
            Ok((last, found.is_end))
        };
        // The first part is any text.
        let told = takes_only(
            |mut reply| {
                reply.word("a mark", &[("x", ())])?;
                read_one(reply)
            },
            &[word("x"), word("9-0"), Int(1), Array(vec![entry])],
        );
        assert_eq!(told, ("9-0".to_owned(), true));
    }
}
