//! Settling claimed jobs: a result, another try later, or back to the front. Fenced: what is no longer this worker's is
//! left alone.

use super::batches::FINISH;
use super::dedup::{GROWTH, LinkDigest, SplitState};
use super::hosts::{Answered, ENTRIES, FORWARD, LINE, LINK, NEWS, Refused, Silent, Unused};
use super::workers::CRASHES;
use super::{HostNews, LeaseField, Queue, WorkerName};
use crate::scripts::{COUNTERS, Call, JOBS, Lua, Piece, Reply, TIME, TYPES, WAITING, part, piece, script};
use common::error::QueueError;
use common::job::Job;
use common::outcome::Outcome;
use common::report::{RESULT_FIELDS, Report, Value};
use std::time::Duration;

/// Appending to a stream.
const STREAMS: Piece = piece!("streams.lua");
/// Names of a result's fields.
const RESULT: Piece = Piece { name: "the fields of a result", lua: Lua::Made(result_fields) };
/// Recording a result.
const APPEND: Piece = piece!("append.lua");
/// Counting what was settled.
const COUNTS: Piece = piece!("counts.lua");

script! {
    SettleScript<'a> from "settle.lua";
    with [
        TIME, TYPES, STREAMS, COUNTERS, JOBS, CRASHES, WAITING, GROWTH, FINISH, LINK, ENTRIES, LINE, FORWARD, NEWS, RESULT, APPEND, COUNTS,
    ];
    keys [
        inflight_key, results_key, dead_key, delayed_key, ready_key, stats_key, crashes_key, worker_key, hosts_key, workers_key,
        growth_key, hosts_held_key, trials_key,
    ], then further_keys_from;
    args [worker: &'a str, jobs: usize, level: Option<u32>, split: Option<u64>], then fields_from;
    parts [Refused, Silent, Answered, Unused, ReportPart, RetryPart, HoldPart, ReleasePart]
}

part! {
    /// The values of the result come behind it. `batch_index` is that of its batch in KEYS, or 0. The link of a failed job may be
    /// enqueued again: `in_dedup` is the index of its bucket in KEYS and its digest. `is_full` says that nothing but the reason is
    /// empty.
    ReportPart as REPORT, tag "report" { args [batch_index: usize, in_dedup: Option<String>, is_full: bool] }
}

part! {
    /// The payload has one more attempt spent.
    RetryPart as RETRY, tag "retry" { args [after_ms: u64, payload: String] }
}

part! {
    /// Without a payload it is the one that was claimed.
    HoldPart<'a> as HOLD, tag "hold" { args [host: &'a str, payload: Option<String>] }
}

part! {
    ReleasePart as RELEASE, tag "release" { }
}

/// Lua that knows the fields of a result by name: all of them in their order, offsets of those that the script looks at, and how one
/// is appended of which nothing but the reason is empty. That is by far the most of them, and no table is made for it, which saves a
/// fifth of the time.
fn result_fields() -> String {
    let quoted: Vec<String> = RESULT_FIELDS.iter().map(|name| format!("'{name}'")).collect();
    let mut lua = format!("local RESULT_FIELDS = {{{}}}\n", quoted.join(", "));
    for (at, name) in RESULT_FIELDS.iter().enumerate().filter(|(_, name)| LOOKED_AT.contains(name)) {
        lua.push_str(&format!("local RESULT_{} = {at}\n", name.to_uppercase()));
    }
    let all_but_reason = RESULT_FIELDS.iter().enumerate().filter(|(_, name)| **name != REASON);
    let pairs: Vec<String> = all_but_reason.map(|(at, name)| format!("'{name}', ARGV[result + {at}]")).collect();
    lua.push_str("local function append_full(result)\n");
    lua.push_str(&format!("  redis.call('XADD', results_key, '*', {})\nend\n", pairs.join(", ")));
    lua
}

/// Fields of a result that the script looks at.
const LOOKED_AT: [&str; 3] = ["outcome", REASON, "bytes"];
const REASON: &str = "reason";

/// What is to become of one claimed job.
#[derive(Debug, Clone)]
pub enum Settlement {
    /// The job is over: its result is recorded, and a failed one goes to the dead letters as well.
    Report(Box<Report>),
    /// Another try, later. The job carries one more spent attempt.
    Retry {
        /// With the attempt already counted.
        job: Box<Job>,
        /// From now, by the Redis clock.
        after: Duration,
    },
    /// Into `delayed` until its host may be asked again.
    Hold {
        /// As [`host_of`](common::host::host_of) names it.
        host: String,
        /// The job where it is not as it was claimed any more, or had no id.
        job: Option<Box<Job>>,
    },
    /// Back to the front of the queue, as it was claimed.
    Release,
}

/// What became of a batch of settlements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// For each whether the job was still this worker's.
    pub accepted: Vec<bool>,
    /// What was remembered of these hosts could not be understood, and was dropped.
    pub dropped: Vec<String>,
}

impl Queue {
    /// Tells what was learnt about hosts, and settles a batch of jobs, in one script. Repeating a call whose answer was lost
    /// changes no job, and answers `false` for what the first one did. What was learnt is taken in again: a start is given back
    /// twice, and a hold lasts as long from the second time on.
    ///
    /// # Errors
    /// As every call. [`QueueError::Refused`] where a key holds something else: then nothing was changed.
    pub async fn settle(
        &self,
        worker: &WorkerName,
        settlements: &[(LeaseField, Settlement)],
        news: &[HostNews],
    ) -> Result<Settled, QueueError> {
        let call = |split| self.settle_call(worker, settlements, news, split);
        let ((), reply) = self.run_with_split("settle jobs", &[("ok", ())], call).await?;
        Settled::read(reply, settlements.len())
    }

    fn settle_call(
        &self,
        worker: &WorkerName,
        settlements: &[(LeaseField, Settlement)],
        news: &[HostNews],
        split: SplitState,
    ) -> Call {
        let needs_dedup = settlements.iter().any(|(_, settlement)| failed_link(settlement).is_some());
        let call = SettleScript {
            inflight_key: self.keys.inflight(worker.as_str()),
            results_key: self.keys.results(),
            dead_key: self.keys.dead(),
            delayed_key: self.keys.delayed(),
            ready_key: self.keys.ready(),
            stats_key: self.keys.stats(),
            crashes_key: self.keys.crashes(),
            worker_key: self.keys.worker(worker.as_str()),
            hosts_key: self.keys.hosts(),
            workers_key: self.keys.workers(),
            growth_key: self.keys.dedup_meta(),
            hosts_held_key: self.keys.hosts_held(),
            trials_key: self.keys.trials(),
            worker: worker.as_str(),
            jobs: settlements.len(),
            level: needs_dedup.then_some(split.level),
            split: needs_dedup.then_some(split.next),
        };
        let mut call = call.call();
        for (field, _) in settlements {
            call.arg(field.0.as_str());
        }
        for about in news {
            about.add_to(&mut call);
        }
        for (_, settlement) in settlements {
            match settlement {
                Settlement::Report(report) => {
                    self.add_report(&mut call, report, failed_link(settlement), worker, split)
                }
                Settlement::Retry { job, after } => {
                    RetryPart { after_ms: after.as_millis() as u64, payload: job.write() }.add_to(&mut call);
                }
                Settlement::Hold { host, job } => {
                    HoldPart { host, payload: job.as_ref().map(|job| job.write()) }.add_to(&mut call);
                }
                Settlement::Release => ReleasePart {}.add_to(&mut call),
            }
        }
        call
    }

    fn add_report(
        &self,
        call: &mut Call,
        report: &Report,
        failed_link: Option<&str>,
        worker: &WorkerName,
        split: SplitState,
    ) {
        let batch_index = report.id.batch().map_or(0, |batch| call.index_of(self.keys.batch(batch)));
        let in_dedup = failed_link.map(|link| {
            let digest = LinkDigest::of(link);
            format!("{} {}", call.index_of(self.dedup_bucket(digest, split)), digest.member)
        });
        let values = report.values(worker.as_str());
        let is_full = RESULT_FIELDS.iter().zip(&values).all(|(name, value)| value.is_empty() == (*name == REASON));
        ReportPart { batch_index, in_dedup, is_full }.add_to(call);
        for value in &values {
            match value {
                Value::Text(text) => call.arg(&**text),
                Value::Number(number) => call.arg(*number),
            }
        }
    }
}

impl Settled {
    fn read(mut reply: Reply, settlements: usize) -> Result<Settled, QueueError> {
        let mut flags = reply.list("whether each job was this worker's")?;
        let accepted = (0..settlements).map(|_| flags.flag("whether a job was this worker's"));
        let accepted = accepted.collect::<Result<_, _>>()?;
        flags.end()?;
        // Of an entry that nobody understands the name may be as bad.
        let dropped = reply.texts("hosts that were dropped")?;
        reply.end()?;
        Ok(Settled { accepted, dropped })
    }
}

/// The link of a job that failed for good, which may be enqueued again.
fn failed_link(settlement: &Settlement) -> Option<&str> {
    match settlement {
        Settlement::Report(report) if matches!(report.outcome, Outcome::Failed(_)) => Some(&report.url),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripts::probe::{takes_only, word};
    use redis::Value::{Array, Int};

    #[test]
    fn what_became_of_settlements_is_read_whole_or_not_at_all() {
        // The word in front was read by `run_with_split`.
        let read = |reply| Settled::read(reply, 2);
        let settled = takes_only(read, &[Array(vec![Int(1), Int(0)]), Array(vec![word("a.org")])]);
        assert_eq!(settled, Settled { accepted: vec![true, false], dropped: vec!["a.org".into()] });
        for flags in [&[Int(1)][..], &[Int(1), Int(2)], &[Int(1), Int(0), Int(0)]] {
            let reply = Reply::of("test", Array(vec![Array(flags.to_vec()), Array(Vec::new())])).expect("a list");
            assert!(read(reply).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn lua_knows_the_fields_of_a_result_by_the_one_list() {
        let lua = result_fields();
        let names: Vec<String> = RESULT_FIELDS.iter().map(|name| format!("'{name}'")).collect();
        assert!(lua.contains(&format!("{{{}}}", names.join(", "))), "{lua}");
        let append = lua.lines().find(|line| line.contains("XADD")).expect("it appends");
        for (at, name) in RESULT_FIELDS.iter().enumerate() {
            let is_there = append.contains(&format!("'{name}', ARGV[result + {at}]"));
            assert_eq!(is_there, *name != REASON, "{name}: {append}");
        }
        assert!(LOOKED_AT.iter().all(|name| RESULT_FIELDS.contains(name)));
    }
}
