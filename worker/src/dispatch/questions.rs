//! The questions to Redis: which comes next, and how long to rest where none does.

use super::appetite::Load;
use super::asked::{Asked, ClaimContext};
use super::rest::Rest;
use super::suspects::Next;
use super::{Dispatcher, EMPTY_WAIT_MAX, End, Limits, now};
use crate::shutdown::Stage;
use queue::{ClaimRequest, WaitingAt};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use storage::health::Condition;

/// A storage that cannot be used is looked at this often.
pub(super) const STORAGE_WAIT: Duration = Duration::from_millis(200);
/// While a suspect waits or runs, what this worker holds is looked at this often.
const SUSPECT_WAIT: Duration = Duration::from_millis(200);
/// When few slots are free and others are busy, more are about to be: one claim for many is cheaper than many for one.
pub(super) const GATHER: Duration = Duration::from_millis(1);
/// While jobs wait here, Redis is asked this often whether their hosts are still to be asked.
pub(super) const HOSTS_EVERY: Duration = Duration::from_millis(100);

/// Targets of redirects that are named in one claim, beside the hosts of links: each costs Redis a look-up.
const TARGETS_NAMED_MAX: usize = 64;

impl Dispatcher {
    /// Asks Redis the next thing, or rests. Says when dispatching is over.
    pub(super) fn go_on(&mut self) -> Option<End> {
        if self.asked.is_some() {
            return None;
        }
        if *self.reaped.borrow() {
            return Some(End::Reaped);
        }
        if self.shutdown.stage() > Stage::Running {
            return Some(End::Stopping);
        }
        if !self.rest.is_over() {
            return None;
        }
        match self.suspects.next(self.ledger.held()) {
            Next::Nothing => {}
            Next::Wait => {
                self.idle(SUSPECT_WAIT, false);
                return None;
            }
            Next::Mark(field) => {
                self.asked = Some(Asked::Mark(self.calls.run_alone(field)));
                return None;
            }
        }
        let has_reconnected = self.calls.connection_generation() != self.generation;
        if has_reconnected || now() >= self.compare_at {
            self.ask_to_compare();
        } else {
            self.claim_or_rest();
        }
        None
    }

    pub(super) fn ask_to_compare(&mut self) {
        self.rest = Rest::Over;
        self.ledger.begin_comparison();
        self.number += 1;
        self.asked = Some(Asked::Comparison(self.calls.reconcile(self.number)));
    }

    fn claim_or_rest(&mut self) {
        let has_gathered = std::mem::replace(&mut self.rest, Rest::Over) == Rest::Gathered;
        let now = now();
        let (max, waiting) = match self.storage.condition() {
            Condition::Good => {
                let load = self.load(now);
                if !has_gathered && load.is_worth_gathering() {
                    self.rest = Rest::Gather { until: now + GATHER };
                    return;
                }
                let (waiting, in_quick_lanes) = self.hosts.gate().waiting_at(now);
                (load.appetite(in_quick_lanes), waiting)
            }
            // One job tries it.
            Condition::Trial => (1_usize.saturating_sub(self.ledger.held()), self.hosts.gate().waiting_at(now).0),
            Condition::Bad(why) => {
                self.say_waiting(&format!("the storage cannot be used: {why}"));
                // Others may have a better one.
                self.give_back_waiting();
                // Of none: for what the queue has to tell in its place.
                if now.saturating_duration_since(self.claimed_at) >= EMPTY_WAIT_MAX {
                    self.ask_to_claim(0, Vec::new());
                } else {
                    self.idle(STORAGE_WAIT, false);
                }
                return;
            }
        };
        let asks_about_hosts =
            self.hosts.gate().waiting() > 0 && now.saturating_duration_since(self.claimed_at) >= HOSTS_EVERY;
        if max > 0 || asks_about_hosts {
            self.ask_to_claim(max, waiting);
        } else {
            self.idle(self.until_look(), false);
        }
    }

    fn ask_to_claim(&mut self, max: usize, mut waiting: Vec<WaitingAt>) {
        self.name_targets(&mut waiting);
        self.number += 1;
        let at = tokio::time::Instant::now();
        self.claimed_at = at.into_std();
        let Limits { host_rate, results_max, retry, .. } = self.limits;
        let request = ClaimRequest { max, results_max, host_rate, free_refusals: retry.free_refusals(), waiting };
        let context = ClaimContext { at, max, confirmations: self.ledger.confirmations() };
        self.asked = Some(Asked::Claim(self.calls.claim(self.number, request), context));
    }

    /// Of jobs that wait with a leave to go on to the target of a redirect this host is asked about as well: it may want to be left
    /// alone by now.
    fn name_targets(&self, waiting: &mut Vec<WaitingAt>) {
        let gate = self.hosts.gate();
        let mut named = HashSet::new();
        for target in gate.jobs().flat_map(|claimed| claimed.prepared.targets()) {
            if named.len() < TARGETS_NAMED_MAX && !waiting.iter().any(|known| known.host == target) {
                named.insert(target);
            }
        }
        waiting.extend(named.into_iter().map(|target| WaitingAt { host: target.to_owned(), pace: None }));
    }

    fn load(&mut self, now: Instant) -> Load {
        let gate = self.hosts.gate();
        let unsettled = self.slots.running() + gate.waiting() + self.look_ups.jobs();
        Load {
            slots: self.limits.concurrency,
            downloading: self.slots.downloading(),
            startable: gate.startable() + self.look_ups.jobs(),
            settling: self.ledger.held().saturating_sub(unsettled),
            pace: self.pace.per_second(now),
        }
    }

    /// Asks nothing for at most `at_most`, and less when anything happens; with `for_jobs`, also when the queue has a job.
    pub(super) fn idle(&mut self, at_most: Duration, for_jobs: bool) {
        self.rest = Rest::Idle { until: now() + at_most, for_jobs };
        if for_jobs && self.until_ready.is_none() {
            self.until_ready = Some(self.calls.until_ready(EMPTY_WAIT_MAX.mul_f64(0.9 + 0.2 * fastrand::f64())));
        }
    }

    /// Until something has to be looked at that does not happen by itself.
    pub(super) fn until_look(&self) -> Duration {
        let now = now();
        let compare = self.compare_at.saturating_duration_since(now);
        let hosts =
            (self.hosts.gate().waiting() > 0).then(|| (self.claimed_at + HOSTS_EVERY).saturating_duration_since(now));
        compare.min(hosts.unwrap_or(compare)).max(Duration::from_millis(1))
    }

    /// Tells people once why nothing is claimed, and the log as well.
    pub(super) fn say_waiting(&self, why: &str) {
        if self.vitals.set_waiting(why) {
            if why.is_empty() {
                tracing::warn!("jobs are claimed again");
            } else {
                tracing::warn!("nothing is claimed: {why}");
            }
        }
    }
}
