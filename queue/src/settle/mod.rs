//! Settling claimed jobs: a result, another try later, or back to the front. Fenced: what is no longer this worker's is
//! left alone.

use super::dedup::LinkDigest;
use super::{HostNews, LeaseField, Queue, WorkerName, script};
use common::error::QueueError;
use common::job::Job;
use common::outcome::Outcome;
use common::report::Report;
use std::collections::HashMap;
use std::time::Duration;

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
    /// Tells what was learnt about hosts, and settles a batch of jobs, in one script; repeating a call whose answer was lost changes
    /// nothing, and answers `false` for what the first one did.
    ///
    /// # Errors
    /// As every call. [`QueueError::Refused`] where a key holds something else: then nothing was changed.
    pub async fn settle(
        &self,
        worker: &WorkerName,
        settlements: &[(LeaseField, Settlement)],
        news: &[HostNews],
    ) -> Result<Settled, QueueError> {
        loop {
            let call = self.settle_call(worker, settlements, news);
            let reply: Vec<redis::Value> = self.channel.invoke("settle jobs", &call).await?;
            let mut reply = reply.into_iter();
            let mut number = || reply.next().and_then(|v| redis::from_redis_value::<i64>(v).ok());
            if number() == Some(-1) {
                let (level, next) = (number().unwrap_or_default(), number().unwrap_or_default());
                self.dedup_split.learn(level.try_into().unwrap_or_default(), next.try_into().unwrap_or_default());
                continue;
            }
            let accepted = settlements.iter().map(|_| number() == Some(1)).collect();
            let name =
                |v| redis::from_redis_value(v).ok().map(|name: Vec<u8>| String::from_utf8_lossy(&name).into_owned());
            let dropped = reply.filter_map(name).collect();
            return Ok(Settled { accepted, dropped });
        }
    }

    fn settle_call(
        &self,
        worker: &WorkerName,
        settlements: &[(LeaseField, Settlement)],
        news: &[HostNews],
    ) -> redis::ScriptInvocation<'static> {
        let script = script!("settle", hosts);
        let mut call = script.prepare_invoke();
        call.key(self.keys.inflight(worker.as_str()))
            .key(self.keys.results())
            .key(self.keys.dead())
            .key(self.keys.delayed())
            .key(self.keys.ready())
            .key(self.keys.stats())
            .key(self.keys.crashes())
            .key(self.keys.worker(worker.as_str()))
            .key(self.keys.hosts())
            .key(self.keys.workers())
            .key(self.keys.dedup_meta());
        let split = self.dedup_split.get();
        call.arg(worker.as_str()).arg(settlements.len());
        if settlements.iter().any(|(_, settlement)| failed_link(settlement).is_some()) {
            call.arg(split.level).arg(split.next);
        } else {
            call.arg("").arg("");
        }
        for (field, _) in settlements {
            call.arg(&field.0);
        }
        for about in news {
            call.arg(about.arguments());
        }
        let mut indexes: HashMap<String, usize> = HashMap::new();
        let mut index_of = |key: String| {
            let next = 12 + indexes.len();
            match indexes.entry(key) {
                std::collections::hash_map::Entry::Occupied(known) => (*known.get(), None),
                std::collections::hash_map::Entry::Vacant(vacant) => {
                    let key = vacant.key().clone();
                    (*vacant.insert(next), Some(key))
                }
            }
        };
        for (_, settlement) in settlements {
            match settlement {
                Settlement::Report(report) => {
                    let mut key_index = |key: Option<String>| {
                        let Some(key) = key else { return 0 };
                        let (index, new) = index_of(key);
                        if let Some(key) = new {
                            call.key(key);
                        }
                        index
                    };
                    let batch = key_index(report.id.batch().map(|batch| self.keys.batch(batch)));
                    let in_dedup = failed_link(settlement).map_or_else(String::new, |link| {
                        let digest = LinkDigest::of(link);
                        let bucket = key_index(Some(self.dedup_bucket(digest, split)));
                        format!("{bucket} {}", digest.member)
                    });
                    call.arg("report").arg(batch).arg(in_dedup);
                    write_result(&mut call, report, worker);
                }
                Settlement::Retry { job, after } => {
                    call.arg("retry").arg(after.as_millis() as u64).arg(job.write());
                }
                Settlement::Hold { host, job } => {
                    let payload = job.as_ref().map_or_else(String::new, |job| job.write());
                    call.arg("hold").arg(host).arg(payload);
                }
                Settlement::Release => {
                    call.arg("release");
                }
            }
        }
        call
    }
}

/// The link of a job that failed for good, which may be enqueued again.
fn failed_link(settlement: &Settlement) -> Option<&str> {
    match settlement {
        Settlement::Report(report) if matches!(report.outcome, Outcome::Failed(_)) => Some(&report.url),
        _ => None,
    }
}

/// The fields of the stream entry in the order of `settle.lua`; what is empty there is left out of the stream.
fn write_result(call: &mut redis::ScriptInvocation<'_>, report: &Report, worker: &WorkerName) {
    let object = report.object.as_ref();
    let (width, height) = object.and_then(|object| object.dimensions).unwrap_or((0, 0));
    call.arg(report.id.to_string()).arg(&report.url).arg(report.outcome.name()).arg(report.outcome.reason());
    match object {
        Some(object) => {
            call.arg(&object.key).arg(object.bytes).arg(&object.sha256).arg(object.media_type.name());
        }
        None => {
            call.arg(["", "", "", ""].as_slice());
        }
    }
    for number in [width, height, report.status.into()] {
        if number == 0 {
            call.arg("")
        } else {
            call.arg(number)
        };
    }
    call.arg(report.attempts).arg(worker.as_str()).arg(report.duration_ms);
    call.arg(report.id.batch().map_or_else(String::new, |batch| batch.to_string()));
}
