//! The dispatcher: claims jobs, starts them as slots and hosts allow, and compares with Redis what this worker holds.
//!
//! It waits in one place (`next_event`) and acts in another (`handle`). In between it asks Redis the next thing, one at a time, or
//! rests (`go_on`). A little more is claimed than can start, so that no slot stands empty for the round trip of a claim.

mod appetite;
mod asked;
mod claimed;
mod comparison;
mod exit;
mod look_ups;
mod pace;
mod rest;
mod slots;
mod suspects;
#[cfg(test)]
mod tests;

use crate::hosts::conclusions::Ending;
use crate::hosts::{Admissions, Doors, HostTally, Hosts, Places, Trail, Visit, Visits, say_dropped};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::processor::{Processed, Processor, random_u128, report_crashed};
use crate::queue_calls::{Call, QueueCalls};
use crate::settler::Outgoing;
use crate::shutdown::{Shutdown, Stage};
use crate::vitals::Vitals;
use appetite::Load;
use asked::{Answer, Asked, ClaimContext};
use claimed::{Claimed, admitted};
use common::error::QueueError;
use common::host::HostRate;
use common::job::{Job, id_for_logs};
use common::outcome::Outcome;
use common::retry::RetryPolicy;
use comparison::{Adopted, Comparison};
use exit::Exit;
use look_ups::{LookUps, LookedUp, ORDER_MAX};
use pace::Pace;
use queue::{Claim, ClaimRequest, ClaimedJob, Reconciled, ReconnectBackoff, Settlement, WaitingAt};
use rest::Rest;
use slots::{Attempt, Finished, Slots};
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::health::{Condition, Health};
use suspects::{Next, Suspects};
use tokio::sync::{mpsc, watch};
use tokio::task::Id;

/// The longest wait on an empty queue before it is looked at again. Retries that another worker scheduled and then died
/// over are picked up within this time.
const EMPTY_WAIT_MAX: Duration = Duration::from_secs(2);
/// Paused queues are looked at this often.
const PAUSED_WAIT: Duration = Duration::from_millis(1000);
/// With as many results as there may be, readers are given this long before it is looked at again.
const FULL_WAIT: Duration = Duration::from_millis(500);
/// A storage that cannot be used is looked at this often.
const STORAGE_WAIT: Duration = Duration::from_millis(200);
/// While a suspect waits or runs, what this worker holds is looked at this often.
const SUSPECT_WAIT: Duration = Duration::from_millis(200);
/// How often the jobs in flight are compared with Redis: every few heartbeats.
const COMPARE_EVERY: Duration = Duration::from_secs(6);
/// When few slots are free and others are busy, more are about to be: one claim for many is cheaper than many for one.
const GATHER: Duration = Duration::from_millis(1);
/// While jobs wait here, Redis is asked this often whether their hosts are still to be asked.
const HOSTS_EVERY: Duration = Duration::from_millis(100);
/// With more jobs in `delayed` than it holds well, the queue is gone round at this pace.
const ROTATED_WAIT: Duration = Duration::from_millis(50);
/// A push wakes every waiting worker; the claims of a large fleet are spread a little.
const WAKE_JITTER_US: u64 = 2000;
/// After a wait for jobs that broke off. The next claim finds out what is the matter.
const BROKEN_WAIT: Duration = Duration::from_millis(100);

/// Why dispatching ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The process is stopping.
    Stopping,
    /// The worker was taken for dead; everything it held is elsewhere.
    Reaped,
}

/// How much may be done at once, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Downloads at once.
    pub(crate) concurrency: usize,
    /// Downloads at once from one host.
    pub(crate) host_concurrency: usize,
    /// Requests to one host from the whole fleet.
    pub(crate) host_rate: Option<HostRate>,
    /// Results that there may be before nothing more is claimed.
    pub(crate) results_max: Option<u64>,
    pub(crate) retry: RetryPolicy,
}

/// What a dispatcher works with.
pub(crate) struct Dependencies {
    pub(crate) calls: Arc<dyn QueueCalls>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) processor: Arc<Processor>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) storage: Arc<Health>,
    pub(crate) limits: Limits,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) tally: Arc<HostTally>,
    /// For the targets of redirects.
    pub(crate) admissions: Admissions,
    /// To the settler.
    pub(crate) outgoing: mpsc::UnboundedSender<Outgoing>,
    pub(crate) shutdown: Shutdown,
    /// Turns true when the worker was taken for dead.
    pub(crate) reaped: watch::Receiver<bool>,
}

/// Dispatches for one worker name.
pub(crate) struct Dispatcher {
    calls: Arc<dyn QueueCalls>,
    ledger: Arc<Ledger>,
    processor: Arc<Processor>,
    metrics: Arc<Metrics>,
    storage: Arc<Health>,
    limits: Limits,
    vitals: Arc<Vitals>,
    tally: Arc<HostTally>,
    admissions: Admissions,
    shutdown: Shutdown,
    reaped: watch::Receiver<bool>,

    look_ups: LookUps,
    hosts: Arc<Hosts<Claimed>>,
    /// Places that got free since the lanes were looked at.
    freed: mpsc::UnboundedReceiver<()>,
    slots: Slots,
    suspects: Suspects,
    exit: Exit,
    pace: Pace,

    asked: Option<Asked>,
    rest: Rest,
    /// A wait for jobs. One that something else interrupts goes on, and is met again the next time: to drop it would cost its
    /// connection.
    until_ready: Option<Call<'static, ()>>,
    backoff: ReconnectBackoff,
    /// Of the last claim or comparison; only rises, for the whole life of the name.
    number: u64,
    claimed_at: Instant,
    compare_at: Instant,
    /// The connection that the last comparison was made over.
    generation: u64,
    /// The stage of stopping that is waited for.
    next_stage: Stage,
}

/// What a dispatcher waits for.
enum Event {
    /// Redis answered.
    Answered(Answer),
    /// A task is over.
    Finished(Finished),
    /// The body of a task is whole.
    Downloaded(Id),
    /// Objects were looked for.
    LookedUp(LookedUp),
    /// A place at a host is free.
    PlaceFreed,
    /// A rest is over, or a job may start.
    TimeCame,
    /// What this worker holds is not what it was.
    LedgerChanged,
    /// The queue has a job, or had none for long; or the wait broke off.
    JobsThere(Result<(), QueueError>),
    /// The process is stopping.
    Stopping,
    /// The worker was taken for dead.
    Reaped,
}

/// From a clock that tests can hold.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Dispatcher {
    pub(crate) fn new(dependencies: Dependencies) -> Dispatcher {
        let Dependencies {
            calls,
            ledger,
            processor,
            metrics,
            storage,
            limits,
            vitals,
            tally,
            admissions,
            outgoing,
            shutdown,
            reaped,
        } = dependencies;
        let now = now();
        let (hosts, freed) = Hosts::new(limits.host_concurrency);
        let exit = Exit {
            ledger: Arc::clone(&ledger),
            hosts: Arc::clone(&hosts),
            outgoing,
            interval: limits.host_rate.map(|rate| rate.interval()),
            first_wait: limits.retry.delay,
        };
        Dispatcher {
            generation: calls.connection_generation(),
            calls,
            ledger,
            processor,
            metrics,
            storage,
            limits,
            vitals,
            tally,
            admissions,
            shutdown,
            reaped,
            look_ups: LookUps::default(),
            hosts,
            freed,
            slots: Slots::new(),
            suspects: Suspects::default(),
            exit,
            pace: Pace::new(now),
            asked: None,
            rest: Rest::Over,
            until_ready: None,
            backoff: ReconnectBackoff::default(),
            number: 0,
            claimed_at: now,
            compare_at: now + COMPARE_EVERY,
            next_stage: Stage::Finishing,
        }
    }

    /// Dispatches until the process stops or the worker is taken for dead.
    pub(crate) async fn run(&mut self) -> End {
        loop {
            if let Some(end) = self.go_on() {
                return end;
            }
            let event = self.next_event().await;
            if let Some(end) = self.handle(event) {
                return end;
            }
        }
    }

    /// Lets what is in flight finish until `deadline` or the second signal, then gives the rest back.
    pub(crate) async fn finish(mut self, deadline: Instant) {
        self.give_back_waiting();
        self.rest = Rest::Pause { until: deadline };
        self.next_stage = Stage::GivingBack;
        // Not for the tasks of abandoned jobs, which may take a moment to end.
        while self.slots.running() > 0
            && now() < deadline
            && self.shutdown.stage() < Stage::GivingBack
            && !*self.reaped.borrow()
        {
            let event = self.next_event().await;
            self.handle(event);
        }
        self.collect_finished();
        let rest = self.slots.break_off();
        if !rest.is_empty() {
            tracing::info!("giving {} jobs back", rest.len());
        }
        for Attempt { job, trail, is_fresh, .. } in rest {
            self.exit.end(job, &trail, is_fresh, Ending::Untold, Settlement::Release);
        }
        // Jobs that Redis holds for this worker and nobody here runs (a suspect that waited for its turn) go back too.
        for suspect in self.suspects.take_waiting() {
            self.ledger.forget(&suspect.field);
        }
        self.ledger.begin_comparison();
        self.number += 1;
        if let Ok(Reconciled::Holds(jobs)) = self.calls.reconcile(self.number).await {
            let Adopted { suspects, others } =
                Comparison::with(jobs).adopted(|field| self.ledger.is_held_or_settled_lately(field));
            for job in suspects.into_iter().chain(others) {
                let (visits, _) = admitted(&job, now());
                self.exit.end_unattempted(job, &Trail::of(visits), Settlement::Release);
            }
        }
    }

    // What happens.

    /// Waits for the next event: the only place where this worker's dispatcher waits. Cancel safe.
    async fn next_event(&mut self) -> Event {
        // What was asked is answered within seconds, and its answer is not to be lost, however this worker ends.
        let is_asking = self.asked.is_some();
        let rest = if is_asking { Rest::Over } else { self.rest };
        let next_start = self.hosts.gate().next_start();
        let time = next_start.into_iter().chain(rest.until()).min();
        tokio::select! {
            answer = Asked::answer(&mut self.asked), if is_asking => Event::Answered(answer),
            Some(finished) = self.slots.tasks.join_next_with_id() => Event::Finished(finished),
            Some(id) = self.slots.downloaded.recv() => Event::Downloaded(id),
            Some(looked_up) = self.look_ups.next() => Event::LookedUp(looked_up),
            Some(()) = self.freed.recv() => Event::PlaceFreed,
            () = sleep_until(time), if time.is_some() => Event::TimeCame,
            () = self.ledger.changed(), if rest.is_idle() => Event::LedgerChanged,
            result = until_ready(&mut self.until_ready), if rest.is_for_jobs() => Event::JobsThere(result),
            () = self.shutdown.reached(self.next_stage), if !is_asking => Event::Stopping,
            () = until_reaped(&mut self.reaped), if !is_asking => Event::Reaped,
        }
    }

    /// Acts on an event, and on what else has happened by now.
    fn handle(&mut self, event: Event) -> Option<End> {
        self.rest = self.rest.after_event(now());
        match event {
            Event::Answered(answer) => {
                if let Some(end) = self.answered(answer) {
                    return Some(end);
                }
            }
            Event::Finished(finished) => self.pass_on(finished),
            Event::Downloaded(id) => self.slots.free(id),
            Event::LookedUp(looked_up) => self.looked_up(looked_up),
            Event::JobsThere(result) => self.jobs_are_there(result),
            // Who waits for it looks next.
            Event::PlaceFreed | Event::TimeCame | Event::LedgerChanged | Event::Stopping | Event::Reaped => {}
        }
        self.collect_finished();
        self.fill();
        None
    }

    /// Passes on what tasks that are over decided, and frees the slots of those whose bodies are whole.
    fn collect_finished(&mut self) {
        while let Ok(id) = self.slots.downloaded.try_recv() {
            self.slots.free(id);
        }
        while let Some(finished) = self.slots.tasks.try_join_next_with_id() {
            self.pass_on(finished);
        }
    }

    fn answered(&mut self, answer: Answer) -> Option<End> {
        match answer {
            Answer::Claim(claim, context, took) => {
                self.metrics.claim(&claim, took);
                match claim {
                    Ok(claim) => return self.claimed(claim, context),
                    Err(error) => self.failed(&error),
                }
            }
            Answer::Comparison(answer) => {
                self.metrics.compared(&answer);
                match answer {
                    Ok(Reconciled::Holds(jobs)) => self.compared(jobs),
                    Ok(Reconciled::Reaped) => return Some(End::Reaped),
                    Err(error) => self.failed(&error),
                }
            }
            Answer::Mark(Ok(is_ours)) => self.marked(is_ours),
            Answer::Mark(Err(error)) => {
                tracing::warn!("cannot start the suspect yet: {error}");
                self.rest = Rest::Pause { until: now() + self.backoff.next_wait() };
            }
        }
        None
    }

    fn failed(&mut self, error: &QueueError) {
        tracing::warn!("cannot claim: {error}");
        // The claim may have run all the same.
        self.compare_at = now();
        self.rest = Rest::Pause { until: now() + self.backoff.next_wait() };
    }

    fn claimed(&mut self, claim: Claim, asked: ClaimContext) -> Option<End> {
        self.backoff.reset();
        if claim != Claim::Full {
            self.say_waiting("");
        }
        match claim {
            Claim::Jobs { jobs, next_due, more, rotated, left_alone, dropped } => {
                say_dropped(&dropped);
                for host in left_alone {
                    self.exit.hold_all(&host);
                }
                let found_nothing = jobs.is_empty() && asked.max > 0;
                if jobs.first().is_some_and(Suspects::is_suspect) {
                    // It was claimed alone.
                    self.suspect(jobs);
                } else {
                    self.admit(jobs);
                }
                if found_nothing && rotated {
                    self.idle(ROTATED_WAIT.min(self.until_look()), false);
                } else if found_nothing && !more {
                    // A start that was not needed may have come back just after the claim.
                    let came_back =
                        self.limits.host_rate.is_some() && self.ledger.confirmations() != asked.confirmations;
                    if !came_back {
                        let wait = next_due.unwrap_or(EMPTY_WAIT_MAX).min(EMPTY_WAIT_MAX);
                        self.idle(wait.min(self.until_look()), true);
                    }
                }
            }
            Claim::Paused => self.idle(PAUSED_WAIT.mul_f64(0.75 + 0.5 * fastrand::f64()), false),
            Claim::Full => {
                let max = self.limits.results_max.unwrap_or_default();
                self.say_waiting(&format!("there are {max} results that the readers have not taken (--results-max)"));
                self.idle(FULL_WAIT.mul_f64(0.75 + 0.5 * fastrand::f64()), false);
            }
            Claim::Stale => {}
            Claim::Reaped => return Some(End::Reaped),
        }
        None
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

    fn jobs_are_there(&mut self, result: Result<(), QueueError>) {
        let mut wait = Duration::from_micros(fastrand::u64(0..WAKE_JITTER_US));
        if let Err(error) = result {
            tracing::debug!("the wait for jobs broke off: {error}");
            wait += BROKEN_WAIT;
        }
        self.rest = Rest::Pause { until: now() + wait };
    }

    // What Redis is asked.

    /// Asks Redis the next thing, or rests. Says when dispatching is over.
    fn go_on(&mut self) -> Option<End> {
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

    fn ask_to_compare(&mut self) {
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
                self.idle(STORAGE_WAIT, false);
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

    fn ask_to_claim(&mut self, max: usize, waiting: Vec<WaitingAt>) {
        self.number += 1;
        let at = tokio::time::Instant::now();
        self.claimed_at = at.into_std();
        let Limits { host_rate, results_max, retry, .. } = self.limits;
        let request = ClaimRequest { max, results_max, host_rate, free_refusals: retry.free_refusals(), waiting };
        let context = ClaimContext { at, max, confirmations: self.ledger.confirmations() };
        self.asked = Some(Asked::Claim(self.calls.claim(self.number, request), context));
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
    fn idle(&mut self, at_most: Duration, for_jobs: bool) {
        self.rest = Rest::Idle { until: now() + at_most, for_jobs };
        if for_jobs && self.until_ready.is_none() {
            self.until_ready = Some(self.calls.until_ready(EMPTY_WAIT_MAX.mul_f64(0.9 + 0.2 * fastrand::f64())));
        }
    }

    /// Until something has to be looked at that does not happen by itself.
    fn until_look(&self) -> Duration {
        let now = now();
        let compare = self.compare_at.saturating_duration_since(now);
        let hosts =
            (self.hosts.gate().waiting() > 0).then(|| (self.claimed_at + HOSTS_EVERY).saturating_duration_since(now));
        compare.min(hosts.unwrap_or(compare)).max(Duration::from_millis(1))
    }

    /// Tells people once why nothing is claimed, and the log as well.
    fn say_waiting(&self, why: &str) {
        if self.vitals.set_waiting(why) {
            if why.is_empty() {
                tracing::warn!("jobs are claimed again");
            } else {
                tracing::warn!("nothing is claimed: {why}");
            }
        }
    }

    // The way of a job.

    /// Enters claimed jobs, and has their objects looked for.
    fn admit(&mut self, jobs: Vec<ClaimedJob>) {
        let now = now();
        let mut looking = Vec::with_capacity(jobs.len());
        for job in jobs {
            if !self.ledger.enter(&job.field) {
                continue;
            }
            if let Some(claimed) = self.read(job, now) {
                looking.push(claimed);
            }
        }
        while !looking.is_empty() {
            let rest = looking.split_off(looking.len().min(ORDER_MAX));
            let part = std::mem::replace(&mut looking, rest);
            let keys = part.iter().map(|claimed| self.processor.candidates(&claimed.prepared)).collect();
            let processor = Arc::clone(&self.processor);
            self.look_ups.push(part, async move { processor.look_up(keys).await });
        }
    }

    /// Enters jobs that have to run alone, one after another.
    fn suspect(&mut self, jobs: Vec<ClaimedJob>) {
        for job in jobs {
            if self.ledger.enter(&job.field) {
                tracing::warn!(job = id_for_logs(&job.payload), "was there at two crashes; it runs alone now");
                self.suspects.add(job);
            }
        }
    }

    /// Reads a job and what it was admitted to; settles one that there is nothing to do for.
    fn read(&self, job: ClaimedJob, now: Instant) -> Option<Claimed> {
        let (mut visits, refused) = admitted(&job, now);
        match (self.processor.prepare(&job), refused) {
            (Err(settlement), _) => self.exit.end_unattempted(job, &Trail::of(visits), settlement),
            (Ok(prepared), Some((host, reason))) => {
                let settlement = self.processor.refused(prepared, &host, reason);
                self.exit.end(job, &Trail::of(visits), false, Ending::Untold, settlement);
            }
            (Ok(prepared), None) => {
                // Where there is nothing to say about hosts, and for a job that was adopted.
                if visits.first().is_none_or(|first| first.host != *prepared.host()) {
                    let host = Arc::clone(prepared.host());
                    visits.insert(0, Visit { host, not_before: now, probe: None, is_asked: false });
                }
                let not_before = visits.first().map_or(now, |first| first.not_before);
                return Some(Claimed { job, prepared, trail: Trail::of(visits), not_before });
            }
        }
        None
    }

    /// Settles jobs whose objects are there, and puts the others into their hosts' lanes.
    fn looked_up(&mut self, (claimed, found): LookedUp) {
        for (claimed, found) in claimed.into_iter().zip(found) {
            let Claimed { job, prepared, trail, not_before } = claimed;
            if let Some(object) = found.and_then(|found| self.processor.object_of(&prepared, found)) {
                self.vitals.count_done();
                let settlement = self.processor.exists(prepared, object);
                self.exit.end_unattempted(job, &trail, settlement);
                continue;
            }
            let host = Arc::clone(prepared.host());
            let claimed = Claimed { job, prepared: prepared.looked_up(), trail, not_before };
            self.hosts.gate().push(&host, claimed, not_before);
        }
    }

    /// Starts what may start, as long as there are slots.
    fn fill(&mut self) {
        let slots = match self.storage.condition() {
            Condition::Good => self.limits.concurrency,
            Condition::Trial => usize::from(self.slots.running() == 0),
            Condition::Bad(_) => 0,
        };
        // Of many places one look at the lanes is enough.
        while self.freed.try_recv().is_ok() {}
        let now = now();
        while self.slots.has_room(slots) {
            let claimed = self.hosts.gate().next(now);
            let Some(claimed) = claimed else { break };
            self.start(claimed);
        }
        // Whatever changes the lanes ends here.
        self.metrics.waits(self.hosts.gate().waiting() + self.look_ups.jobs());
    }

    /// Starts a job that has a place at its host.
    fn start(&mut self, claimed: Claimed) {
        let Claimed { job, prepared, trail, .. } = claimed;
        let processor = Arc::clone(&self.processor);
        let host = Arc::clone(prepared.host());
        let is_fresh = prepared.is_fresh();
        let place = self.hosts.taken(&host);
        let doors = Doors {
            places: Arc::clone(&self.hosts) as Arc<dyn Places>,
            admissions: self.admissions.clone(),
            tally: Arc::clone(&self.tally),
        };
        let mut visits = Visits::begin(Arc::clone(&trail), place, doors);
        self.tally.started(&host);
        self.slots.start(Attempt { job, host, trail, is_fresh }, |downloaded| async move {
            processor.process(prepared, &mut visits, || downloaded.tell()).await
        });
    }

    /// Starts a suspect past its lane, which is empty.
    fn start_alone(&mut self, suspect: ClaimedJob) {
        if let Some(claimed) = self.read(suspect, now()) {
            let host = Arc::clone(claimed.prepared.host());
            self.hosts.gate().enter(&host);
            self.start(claimed);
        }
    }

    /// Passes on what a finished task decided.
    fn pass_on(&mut self, finished: Finished) {
        let Some((Attempt { job, host, trail, is_fresh }, processed)) = self.slots.ended(finished) else { return };
        self.pace.count_done();
        self.vitals.count_done();
        let (settlement, ending) = match processed {
            Some(Processed { settlement, ending }) => (settlement, ending),
            // A panic is the job's crash without the process: it would happen again on every worker.
            None => match Job::read(&job.payload, random_u128()) {
                Ok(job) => (report_crashed(job), Ending::Untold),
                Err(_) => (Settlement::Release, Ending::Untold),
            },
        };
        let is_stored =
            matches!(&settlement, Settlement::Report(report) if matches!(report.outcome, Outcome::Stored { .. }));
        self.tally.ended(&trail.host().unwrap_or(host), is_stored);
        self.exit.end(job, &trail, is_fresh, ending, settlement);
    }

    /// Gives back what was not started.
    fn give_back_waiting(&mut self) {
        // Jobs whose objects are looked for: a storage that is stuck does not say when it will answer.
        let mut waiting: Vec<Claimed> = self.look_ups.take_back().collect();
        waiting.extend(self.hosts.gate().drain_all());
        // As they were in the queue: lanes have an order of their own.
        waiting.sort_by_key(|claimed| claimed.job.field.order());
        for Claimed { job, trail, .. } in waiting {
            self.exit.end_unattempted(job, &trail, Settlement::Release);
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn until_ready(call: &mut Option<Call<'static, ()>>) -> Result<(), QueueError> {
    let result = match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    };
    *call = None;
    result
}

/// The end of the heartbeat is no sign of death: then the supervisor ends the process.
async fn until_reaped(reaped: &mut watch::Receiver<bool>) {
    if reaped.wait_for(|reaped| *reaped).await.is_err() {
        std::future::pending::<()>().await;
    }
}
