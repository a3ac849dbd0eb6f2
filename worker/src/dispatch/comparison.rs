//! The comparison of what Redis holds for this worker with what is in memory: what is lost, and what has to be adopted. Pure.

use super::suspects::Suspects;
use queue::{ClaimedJob, LeaseField};
use std::collections::HashSet;

/// What Redis holds for this worker.
#[derive(Debug)]
pub(super) struct Comparison {
    jobs: Vec<ClaimedJob>,
    fields: HashSet<LeaseField>,
}

/// Jobs that Redis holds for this worker, and which it did not know of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Adopted {
    /// They have to run alone.
    pub(super) suspects: Vec<ClaimedJob>,
    pub(super) others: Vec<ClaimedJob>,
}

impl Comparison {
    pub(super) fn with(jobs: Vec<ClaimedJob>) -> Comparison {
        let fields = jobs.iter().map(|job| job.field.clone()).collect();
        Comparison { jobs, fields }
    }

    /// Whether a job that this worker has is not its any more.
    pub(super) fn lacks(&self, field: &LeaseField) -> bool {
        !self.fields.contains(field)
    }

    /// What has to be adopted, when the worker knows these.
    pub(super) fn adopted(self, is_known: impl Fn(&LeaseField) -> bool) -> Adopted {
        let unknown = self.jobs.into_iter().filter(|job| !is_known(&job.field));
        let (suspects, others) = unknown.partition(Suspects::is_suspect);
        Adopted { suspects, others }
    }
}
