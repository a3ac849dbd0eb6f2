//! A claimed job on its way to a slot: what it is, and what its claim admitted it to.

use crate::hosts::{Trail, Visit};
use crate::processor::Prepared;
use common::outcome::Failure;
use queue::{Admission, ClaimedJob, Start};
use std::sync::Arc;
use std::time::Instant;

/// A job that waits for its turn.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(super) job: ClaimedJob,
    pub(super) prepared: Prepared,
    /// What the claim admitted it to.
    pub(super) trail: Arc<Trail>,
    pub(super) not_before: Instant,
}

/// What a claim admitted a job to, and who refuses it.
pub(super) fn admitted(job: &ClaimedJob, now: Instant) -> (Vec<Visit>, Option<(String, Failure)>) {
    let (mut visits, mut refused) = (Vec::new(), None);
    for Admission { host, start } in &job.admissions {
        let visit = |not_before, probe| Visit::to(Arc::from(&**host), not_before, probe);
        match *start {
            Start::After(wait) => visits.push(visit(now + wait, None)),
            Start::Probe(reason) => visits.push(visit(now, Some(reason))),
            Start::Refused(reason) => refused = Some((host.clone(), reason)),
        }
    }
    (visits, refused)
}
