//! The comparison of what Redis holds for this worker with what is in memory: what is lost, and what has to be adopted. Pure.

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
        let (suspects, others) = unknown.partition(|job| job.runs_alone);
        Adopted { suspects, others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{field, job};

    #[test]
    fn what_is_on_one_side_only_is_lost_or_adopted() {
        let in_redis = || {
            let suspect = ClaimedJob { crashes: 2, runs_alone: true, ..job(3, "d") };
            vec![job(0, "a"), job(1, "b"), suspect, ClaimedJob { crashes: 3, ..job(4, "e") }]
        };
        for (what, known, suspects, others) in [
            ("all is known", &[0, 1, 3, 4][..], &[][..], &[][..]),
            ("nothing is", &[], &[3], &[0, 1, 4]),
            ("some is, and one that is lost", &[0, 2, 4], &[3], &[1]),
        ] {
            let comparison = Comparison::with(in_redis());
            let lost: Vec<_> = known.iter().filter(|n| comparison.lacks(&field(**n))).collect();
            assert_eq!(lost, known.iter().filter(|n| **n == 2).collect::<Vec<_>>(), "{what}");
            let adopted = comparison.adopted(|of| known.iter().any(|n| field(*n) == *of));
            let fields = |jobs: &[ClaimedJob]| jobs.iter().map(|job| job.field.clone()).collect::<Vec<_>>();
            let numbered = |numbers: &[usize]| numbers.iter().map(|n| field(*n)).collect::<Vec<_>>();
            assert_eq!(fields(&adopted.suspects), numbered(suspects), "{what}");
            assert_eq!(fields(&adopted.others), numbered(others), "{what}: one with three crashes is only reported");
        }
    }
}
