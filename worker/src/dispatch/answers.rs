//! The answers of Redis: what the dispatcher does with them.

use super::asked::{Answer, ClaimContext};
use super::claimed::Claimed;
use super::comparison::{Adopted, Comparison};
use super::rest::Rest;
use super::slots::Attempt;
use super::{COMPARE_EVERY, Dispatcher, EMPTY_WAIT_MAX, End, now};
use crate::hosts::say_dropped;
use crate::shutdown::Stage;
use common::error::QueueError;
use common::job::id_for_logs;
use queue::{Claim, ClaimedJob, Reconciled};
use std::time::Duration;

/// Paused queues are looked at this often.
const PAUSED_WAIT: Duration = Duration::from_millis(1000);
/// With as many results as there may be, readers are given this long before it is looked at again.
const FULL_WAIT: Duration = Duration::from_millis(500);
/// Kinds of jobs that this worker does not know and says so of: whoever misspells them all should not fill a log.
const UNKNOWN_SAID_MAX: usize = 50;
/// A push wakes every waiting worker; the claims of a large fleet are spread a little.
pub(super) const WAKE_JITTER_US: u64 = 2000;
/// After a wait for jobs that broke off. The next claim finds out what is the matter.
const BROKEN_WAIT: Duration = Duration::from_millis(100);

impl Dispatcher {
    pub(super) fn answered(&mut self, answer: Answer) -> Option<End> {
        match answer {
            Answer::Claim(claim, context, took) => {
                self.metrics.claim(&claim, took);
                match claim {
                    Ok(claim) => return self.claimed(claim, context),
                    Err(error) => return self.failed(error),
                }
            }
            Answer::Comparison(answer) => {
                self.metrics.compared(&answer);
                match answer {
                    Ok(Reconciled::Holds(jobs)) => self.compared(jobs),
                    Ok(Reconciled::Reaped) => return Some(End::Reaped),
                    Err(error) => return self.failed(error),
                }
            }
            Answer::Mark(Ok(is_ours)) => self.marked(is_ours),
            Answer::Mark(Err(error)) if error.is_the_end() => return Some(End::Lost(error)),
            Answer::Mark(Err(error)) => {
                tracing::warn!("cannot start the suspect yet: {error}");
                self.rest = Rest::Pause { until: now() + self.backoff.next_wait() };
            }
        }
        None
    }

    fn failed(&mut self, error: QueueError) -> Option<End> {
        if error.is_the_end() {
            return Some(End::Lost(error));
        }
        tracing::warn!("cannot claim: {error}");
        // The claim may have run all the same.
        self.compare_at = now();
        self.rest = Rest::Pause { until: now() + self.backoff.next_wait() };
        None
    }

    fn claimed(&mut self, claim: Claim, asked: ClaimContext) -> Option<End> {
        self.backoff.reset();
        // Who asked for none was not told whether there is room.
        if asked.max > 0 && !matches!(claim, Claim::Full { .. }) {
            self.say_waiting("");
        }
        match claim {
            Claim::Jobs { jobs, next_due, more, left_alone, dropped, unknown } => {
                say_dropped(&dropped);
                self.say_unknown(unknown);
                self.hold_all(&left_alone);
                let found_nothing = jobs.is_empty() && asked.max > 0;
                if jobs.first().is_some_and(|job| job.runs_alone) {
                    // It was claimed alone.
                    self.suspect(jobs);
                } else {
                    self.admit(jobs);
                }
                if found_nothing && !more {
                    // A start that was not needed may have come back just after the claim.
                    let came_back =
                        self.limits.host_rate.is_some() && self.ledger.confirmations() != asked.confirmations;
                    if !came_back {
                        let wait = next_due.unwrap_or(EMPTY_WAIT_MAX).min(EMPTY_WAIT_MAX);
                        self.idle(wait.min(self.until_look()), true);
                    }
                }
            }
            Claim::Paused { left_alone } => {
                self.hold_all(&left_alone);
                self.idle(PAUSED_WAIT.mul_f64(0.75 + 0.5 * fastrand::f64()), false);
            }
            Claim::Full { left_alone } => {
                self.hold_all(&left_alone);
                let max = self.limits.results_max.unwrap_or_default();
                self.say_waiting(&format!("there are {max} results that the readers have not taken (--results-max)"));
                self.idle(FULL_WAIT.mul_f64(0.75 + 0.5 * fastrand::f64()), false);
            }
            Claim::Stale => {}
            Claim::Reaped => return Some(End::Reaped),
            Claim::Newer(schema) => return Some(End::Newer(schema)),
        }
        None
    }

    /// Says that jobs were met that only other workers know: once of each kind of them.
    fn say_unknown(&mut self, unknown: Vec<String>) {
        for what in unknown {
            if self.unknown.len() < UNKNOWN_SAID_MAX && !self.unknown.contains(&what) {
                tracing::warn!(
                    "jobs of {what} wait for a worker that knows them: this one does not, and leaves them alone"
                );
                self.unknown.insert(what);
            }
        }
    }

    fn hold_all(&self, hosts: &[String]) {
        for host in hosts {
            self.exit.hold_all(host);
        }
    }

    /// Adopts what memory lacks, and drops what Redis lacks.
    fn compared(&mut self, in_redis: Vec<ClaimedJob>) {
        self.backoff.reset();
        self.generation = self.calls.connection_generation();
        self.compare_at = now() + COMPARE_EVERY;
        let comparison = Comparison::with(in_redis);
        for Attempt { job, host, trail, .. } in self.slots.abandon(|field| comparison.lacks(field)) {
            tracing::warn!(job = id_for_logs(&job.payload), "Redis no longer knows that this worker has it; abandoned");
            self.metrics.abandoned();
            self.tally.abandoned(&trail.host().unwrap_or(host));
            self.exit.lose(&job.field, &trail);
        }
        let lost = self.hosts.gate().extract(|claimed| !comparison.lacks(&claimed.job.field));
        for Claimed { job, trail, .. } in lost {
            tracing::warn!(job = id_for_logs(&job.payload), "Redis no longer knows that this worker has it; dropped");
            self.metrics.abandoned();
            self.exit.lose(&job.field, &trail);
        }
        let Adopted { suspects, others } = comparison.adopted(|field| self.ledger.is_held_or_settled_lately(field));
        for job in suspects.iter().chain(&others) {
            tracing::warn!(job = id_for_logs(&job.payload), "Redis says that this worker has it; adopted");
            self.metrics.adopted();
        }
        self.admit(others);
        self.suspect(suspects);
    }

    fn marked(&mut self, is_ours: bool) {
        self.backoff.reset();
        if is_ours && self.shutdown.stage() == Stage::Running {
            if let Some(suspect) = self.suspects.run_first() {
                self.start_alone(suspect);
            }
        } else if let Some(suspect) = self.suspects.drop_first() {
            self.ledger.forget(&suspect.field);
        }
    }

    pub(super) fn jobs_are_there(&mut self, result: Result<(), QueueError>) {
        let mut wait = Duration::from_micros(fastrand::u64(0..WAKE_JITTER_US));
        if let Err(error) = result {
            tracing::debug!("the wait for jobs broke off: {error}");
            wait += BROKEN_WAIT;
        }
        self.rest = Rest::Pause { until: now() + wait };
    }
}
