//! Settling claimed jobs: a result, another try later, or back to the front. Fenced: what is no longer this worker's is
//! left alone.

use super::dedup::LinkDigest;
use super::{LeaseField, Queue, WorkerName, script};
use crate::error::QueueError;
use crate::job::Job;
use crate::outcome::Outcome;
use crate::report::Report;
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
    /// Back to the front of the queue, as it was claimed.
    Release,
}

impl Queue {
    /// Settles a batch of jobs in one script. Returns for each whether it was still this worker's; repeating a call
    /// whose answer was lost changes nothing, and answers `false` for what the first one did.
    ///
    /// # Errors
    /// As every call.
    pub async fn settle(
        &self,
        worker: &WorkerName,
        settlements: &[(LeaseField, Settlement)],
    ) -> Result<Vec<bool>, QueueError> {
        let script = script!("settle");
        let mut call = script.prepare_invoke();
        call.key(self.keys.inflight(worker.as_str()))
            .key(self.keys.results())
            .key(self.keys.dead())
            .key(self.keys.delayed())
            .key(self.keys.ready())
            .key(self.keys.stats())
            .key(self.keys.crashes())
            .key(self.keys.worker(worker.as_str()));
        let mut indexes: HashMap<String, usize> = HashMap::new();
        let mut index_of = |key: String| {
            let next = 9 + indexes.len();
            match indexes.entry(key) {
                std::collections::hash_map::Entry::Occupied(known) => (*known.get(), None),
                std::collections::hash_map::Entry::Vacant(vacant) => {
                    let key = vacant.key().clone();
                    (*vacant.insert(next), Some(key))
                }
            }
        };
        for (field, settlement) in settlements {
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
                    let digest = LinkDigest::of(&report.url);
                    let failed = matches!(report.outcome, Outcome::Failed(_));
                    let bucket = key_index(failed.then(|| self.keys.dedup(digest.bucket)));
                    let fields = report.fields(worker.as_str());
                    call.arg("report").arg(&field.0).arg(batch).arg(bucket).arg(&digest.field[..]);
                    call.arg(report.outcome.name()).arg(report.outcome.reason());
                    call.arg(report.object.as_ref().map_or(0, |object| object.bytes)).arg(fields.len() * 2);
                    for (name, value) in fields {
                        call.arg(name).arg(value);
                    }
                }
                Settlement::Retry { job, after } => {
                    call.arg("retry").arg(&field.0).arg(after.as_millis() as u64).arg(job.write());
                }
                Settlement::Release => {
                    call.arg("release").arg(&field.0);
                }
            }
        }
        self.channel.invoke("settle jobs", &call).await
    }
}
