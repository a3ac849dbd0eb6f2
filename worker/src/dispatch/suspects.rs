//! Suspects that have to run alone: jobs that were there at two crashes of their worker, and of whom no others are left to share the
//! suspicion. A third crash is then their own doing. Pure.
//!
//! The first of them waits until this worker holds nothing else, is marked in Redis as running alone, and runs. Then it is the
//! next one's turn. Nothing is claimed and nothing compared until the last one is done.

use queue::{ClaimedJob, LeaseField};
use std::collections::VecDeque;

/// Those that this worker holds.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    waiting: VecDeque<ClaimedJob>,
    /// One more runs.
    is_running: bool,
}

/// What has to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There is no suspect.
    Nothing,
    /// This worker holds other jobs, or the suspect still runs.
    Wait,
    /// This one is alone: it has to be marked.
    Mark(LeaseField),
}

impl Suspects {
    /// Adds a job, which counts as held from now on.
    pub(super) fn add(&mut self, job: ClaimedJob) {
        self.waiting.push_back(job);
    }

    /// What has to be done when this worker holds so many jobs, suspects included.
    pub(super) fn next(&mut self, held: usize) -> Next {
        let holds_others = held > self.waiting.len();
        if self.is_running && !holds_others {
            self.is_running = false;
        }
        match self.waiting.front() {
            None if self.is_running => Next::Wait,
            None => Next::Nothing,
            Some(_) if holds_others => Next::Wait,
            Some(first) => Next::Mark(first.field.clone()),
        }
    }

    /// The first one was marked, and is this worker's: it runs now.
    pub(super) fn run_first(&mut self) -> Option<ClaimedJob> {
        let first = self.waiting.pop_front();
        self.is_running = first.is_some();
        first
    }

    /// The first one is not this worker's any more.
    pub(super) fn drop_first(&mut self) -> Option<ClaimedJob> {
        self.waiting.pop_front()
    }

    /// Takes those that have not run.
    pub(super) fn take_waiting(&mut self) -> VecDeque<ClaimedJob> {
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{field, job};

    #[test]
    fn one_after_another_and_each_alone() {
        let mut suspects = Suspects::default();
        assert_eq!(suspects.next(5), Next::Nothing);
        suspects.add(job(1, "a"));
        suspects.add(job(2, "b"));
        assert_eq!(suspects.next(3), Next::Wait, "one more is held");
        assert_eq!(suspects.next(2), Next::Mark(field(1)));
        assert_eq!(suspects.next(2), Next::Mark(field(1)), "again, after an answer that did not come");
        assert_eq!(suspects.run_first().map(|job| job.field), Some(field(1)));
        assert_eq!(suspects.next(2), Next::Wait, "it runs");
        assert_eq!(suspects.next(1), Next::Mark(field(2)));
        assert_eq!(suspects.drop_first().map(|job| job.field), Some(field(2)));
        assert_eq!(suspects.next(0), Next::Nothing);
    }

    #[test]
    fn the_last_one_holds_up_everything_until_it_is_settled() {
        let mut suspects = Suspects::default();
        suspects.add(job(1, "a"));
        suspects.run_first();
        assert_eq!((suspects.next(1), suspects.next(0), suspects.next(1)), (Next::Wait, Next::Nothing, Next::Nothing));
    }
}
