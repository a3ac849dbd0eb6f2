//! The model of politeness: which hosts may be asked now, by whom and how often, and what is learnt about them. As `world`, it is written
//! from the contract (ARCHITECTURE.md, "Hosts") and knows no script.
//!
//! Under a rate, starts are counted and not timed: a start takes one slot, so many slots of a host are taken from now on, and time stands
//! still until an operation says that it passes.

use super::world::{Model, Pending, is_bare, job_of};
use super::{FIRST_WAIT, FREE_REFUSALS, LONGEST_WAIT};
use common::job::Job;
use std::collections::BTreeMap;
use std::time::Duration;

/// How far ahead starts are given out.
const AHEAD_MAX_MS: f64 = 300.0;
/// So long after its end a hold is remembered.
const MEMORY_MS: u64 = 600_000;
/// So long after its own hold it is remembered that a worker got no answer.
const SILENCE_MEMORY_MS: u64 = 30_000;
/// From the time that a host may be asked until a job that waits for it is looked at again: half a minute, and where the line is longer
/// than a minute up to ten more.
const LINE_MS: u64 = 630_000;
/// Refusals in a row for which waiting is free, where they are no answers of 429.
const FREE_SILENCES: u64 = 3;

/// What is to be remembered of a host.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Host {
    /// The end of the last hold.
    pub(super) ends: Option<u64>,
    /// Refusals in a row, and the reason of the last one.
    pub(super) refusals: u64,
    pub(super) why: String,
    /// The worker that tries it for all others.
    pub(super) prober: Option<String>,
    /// Workers that get no answer while others do: until when they leave it alone, and how often in a row.
    pub(super) alone: BTreeMap<String, (u64, u64)>,
}

impl Host {
    pub(super) fn is_held(&self, now: u64) -> bool {
        self.ends.is_some_and(|ends| ends > now)
    }

    /// What time makes of it.
    pub(super) fn forget(&mut self, now: u64) {
        if self.prober.is_none() && self.ends.is_none_or(|ends| ends + MEMORY_MS < now) {
            (self.ends, self.refusals, self.why) = (None, 0, String::new());
        }
        self.alone.retain(|_, (ends, _)| *ends + SILENCE_MEMORY_MS > now);
    }
}

/// Whether an index entry of a host that nothing is remembered of may still be there: somebody removes it by and by.
pub(super) fn is_long_over(ends: u64, now: u64) -> bool {
    ends + MEMORY_MS < now
}

/// Whether a host may be asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Leave {
    /// After so many other starts.
    After(u64),
    /// As the one who tries it for all; with the reason of the hold.
    Probe(String),
    /// Not at all, and waiting for it is over.
    Refused(String),
    Wait,
}

/// What a job is admitted to.
pub(super) type Admissions = Vec<(String, Leave)>;

/// What a worker learnt about a host.
#[derive(Debug, Clone)]
pub(super) enum News {
    Refused { host: String, why: &'static str, server_wait: Option<Duration> },
    Silent { host: String, why: &'static str },
    Answered { host: String },
    Unused { host: String, has_start: bool, was_probe: bool },
}

fn doubling(refusals: u64) -> u64 {
    (FIRST_WAIT.as_millis() as u64 * 2u64.pow(refusals.min(20) as u32 - 1)).min(LONGEST_WAIT.as_millis() as u64)
}

/// The host of a link, all of which are written plainly.
pub(super) fn host_in(url: &str) -> &str {
    url.split('/').nth(2).unwrap_or_default()
}

/// The hosts that a job has to be admitted to: that of its link, and the one that this redirects to.
pub(super) fn hosts_of(payload: &str) -> Vec<String> {
    if is_bare(payload) {
        return vec![host_in(payload).to_owned()];
    }
    let job = job_of(payload);
    [host_in(&job.url).to_owned()].into_iter().chain(job.redirects_to).collect()
}

impl Model {
    pub(super) fn host(&self, host: &str) -> Host {
        self.state.hosts.get(host).cloned().unwrap_or_default()
    }

    fn remember(&mut self, host: &str, mut what: Host) {
        what.forget(self.now);
        if what == Host::default() {
            self.state.hosts.remove(host);
        } else {
            self.state.hosts.insert(host.to_owned(), what);
        }
    }

    /// Time has passed, or a worker is gone: what it tried for all others it does not find out any more.
    pub(super) fn hosts_change(&mut self, change: impl Fn(&mut Host)) {
        for (name, mut host) in std::mem::take(&mut self.state.hosts) {
            change(&mut host);
            self.remember(&name, host);
        }
    }

    /// Whether `worker` may ask, so far ahead.
    pub(super) fn leave(&self, worker: &str, host: &str, ahead_ms: f64) -> Leave {
        let known = self.host(host);
        if known.is_held(self.now) {
            let free = if known.why == "rate_limited" { FREE_REFUSALS.into() } else { FREE_SILENCES };
            return if known.refusals > free { Leave::Refused(known.why) } else { Leave::Wait };
        }
        let is_held_here = known.alone.get(worker).is_some_and(|(ends, _)| *ends > self.now);
        let taken = self.taken(host);
        let has_start = self.rate.step_ms().is_none_or(|step| taken as f64 * step <= ahead_ms);
        if is_held_here || known.prober.is_some() || !has_start {
            Leave::Wait
        } else if known.ends.is_some() {
            Leave::Probe(known.why)
        } else {
            Leave::After(taken)
        }
    }

    /// Starts of a host that are given out, from now on.
    pub(super) fn taken(&self, host: &str) -> u64 {
        self.taken.get(host).copied().unwrap_or(0)
    }

    /// What was promised is given out.
    pub(super) fn give(&mut self, worker: &str, host: &str, leave: &Leave) {
        if matches!(leave, Leave::After(_) | Leave::Probe(_)) && self.rate.step_ms().is_some() {
            *self.taken.entry(host.to_owned()).or_default() += 1;
        }
        if let Leave::Probe(_) = leave {
            let known = Host { prober: Some(worker.to_owned()), ..self.host(host) };
            self.remember(host, known);
        }
    }

    /// For a redirect, so far ahead at most. Who was taken for dead has nothing to ask.
    pub(super) fn admit(&mut self, worker: &str, host: &str, ahead_ms: u64) -> Leave {
        if !self.is_registered(worker) {
            return Leave::Wait;
        }
        let leave = self.leave(worker, host, (ahead_ms as f64).min(AHEAD_MAX_MS));
        self.give(worker, host, &leave);
        leave
    }

    /// A job is admitted to all of its hosts or to none: then to the one that it waits for.
    pub(super) fn admissions(&mut self, worker: &str, payload: &str) -> Result<Admissions, String> {
        let hosts = hosts_of(payload);
        let mut admitted = Vec::new();
        for host in &hosts {
            match self.leave(worker, host, AHEAD_MAX_MS) {
                Leave::Wait => return Err(host.clone()),
                // It is not going to ask anybody.
                refused @ Leave::Refused(_) => return Ok(vec![(host.clone(), refused)]),
                leave => admitted.push((host.clone(), leave)),
            }
        }
        if let [first, second] = &hosts[..]
            && first == second
        {
            // A redirect within a host: two requests there, by one who has leave to ask.
            admitted[1].1 = Leave::After(if self.rate.step_ms().is_some() { self.taken(first) + 1 } else { 0 });
        }
        for (host, leave) in &admitted {
            self.give(worker, host, leave);
        }
        Ok(admitted)
    }

    /// Between which times a job that waits for `host` is looked at again.
    pub(super) fn line_of(&self, host: &str) -> (u64, u64) {
        let known = self.host(host);
        let opens = known.ends.unwrap_or(0).max(self.now);
        let start = self.rate.step_ms().map_or(0, |step| (step * self.taken(host) as f64) as u64);
        let alone = known.alone.values().map(|(ends, _)| *ends).max().unwrap_or(0);
        (opens, opens.max(self.now + start).max(alone) + LINE_MS)
    }

    /// Jobs that wait in a host's line for a time soon, and have not been tried yet.
    fn in_line(&self, host: &str) -> Vec<String> {
        let soon = self.state.delayed.iter().filter(|(_, at)| (self.now + 1..self.now + 60_000).contains(*at));
        let is_in_line = |job: &Job| host_in(&job.url) == host && job.attempts == 0;
        soon.filter(|(payload, _)| is_in_line(&job_of(payload))).map(|(payload, _)| payload.clone()).collect()
    }

    fn refuse(&mut self, host: &str, why: &str, server_wait: Option<Duration>) {
        let mut known = self.host(host);
        let asked = server_wait.map(|wait| wait.as_millis() as u64);
        if known.is_held(self.now) {
            // Requests that were under way.
            known.ends = known.ends.max(asked.map(|wait| self.now + wait));
        } else {
            known.refusals += 1;
            known.ends = Some(self.now + asked.unwrap_or_else(|| doubling(known.refusals)));
        }
        why.clone_into(&mut known.why);
        known.prober = None;
        self.remember(host, known);
        self.pending.push(Pending::HoldEnds(host.to_owned()));
    }

    /// What `worker` tells.
    pub(super) fn learn(&mut self, worker: &str, news: &News) {
        match news {
            News::Refused { host, why, server_wait } => self.refuse(host, why, *server_wait),
            News::Silent { host, why } => {
                let mut known = self.host(host);
                let others = known.alone.keys().filter(|name| *name != worker && self.is_registered(name)).count();
                if 2 * (others + 1) > self.state.workers.len() {
                    // Most workers say so: it is the host.
                    known.alone.clear();
                    self.remember(host, known);
                    self.refuse(host, why, None);
                } else {
                    let silences = known.alone.get(worker).map_or(0, |(_, silences)| *silences) + 1;
                    known.alone.insert(worker.to_owned(), (self.now + doubling(silences), silences));
                    self.remember(host, known);
                    self.pending.push(Pending::AloneEnds(host.clone(), worker.to_owned()));
                }
            }
            News::Answered { host } => {
                let mut known = self.host(host);
                known.alone.remove(worker);
                // A hold that is not over is newer than what this one was told.
                if !known.is_held(self.now) {
                    known = Host { alone: known.alone, ..Host::default() };
                }
                self.remember(host, known);
            }
            News::Unused { host, has_start, was_probe } => {
                if *has_start && let Some(taken) = self.taken.get_mut(host) {
                    *taken = taken.saturating_sub(1);
                }
                let mut known = self.host(host);
                if *was_probe && known.prober.as_deref() == Some(worker) {
                    known.prober = None;
                }
                self.remember(host, known);
                self.pending.push(Pending::ComeForward(host.clone(), self.in_line(host)));
            }
        }
    }
}
