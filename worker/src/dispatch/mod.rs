//! The dispatcher: claims jobs, starts them as slots and hosts allow, and compares with Redis what this worker holds.
//!
//! It waits in one place (`next_event`) and acts in another (`handle`). In between it asks Redis the next thing, one at a time, or
//! rests (`questions`). What is done with the answer is in `answers`, and what is done with a job in `jobs`. A little more is claimed than can start, so that no slot stands empty for the round trip of a claim.

mod answers;
mod appetite;
mod asked;
mod claimed;
mod comparison;
mod exit;
mod jobs;
mod look_ups;
mod pace;
mod questions;
mod rest;
mod slots;
mod suspects;
#[cfg(test)]
mod tests;

use crate::hosts::conclusions::Ending;
use crate::hosts::{Admissions, HostTally, Hosts, Trail};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::processor::Processor;
use crate::queue_calls::{Call, QueueCalls};
use crate::settler::Outgoing;
use crate::shutdown::{Shutdown, Stage};
use crate::vitals::Vitals;
use asked::{Answer, Asked};
use claimed::{Claimed, admitted};
use common::error::QueueError;
use common::host::HostRate;
use common::retry::RetryPolicy;
use comparison::{Adopted, Comparison};
use exit::Exit;
use look_ups::{LookUps, LookedUp};
use pace::Pace;
use queue::{Reconciled, ReconnectBackoff, Settlement};
use rest::Rest;
use slots::{Attempt, Finished, Slots};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::health::Health;
use suspects::Suspects;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::Id;

/// The longest wait on an empty queue before it is looked at again. Retries that another worker scheduled and then died
/// over are picked up within this time.
const EMPTY_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often the jobs in flight are compared with Redis: every few heartbeats.
const COMPARE_EVERY: Duration = Duration::from_secs(6);

/// Why dispatching ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The process is stopping.
    Stopping,
    /// The worker was taken for dead; everything it held is elsewhere.
    Reaped,
    /// The queue is not to be had from this server any more.
    Lost(QueueError),
    /// A newer imgq wrote the queue, of this version: what this worker holds is to be settled, and nothing more.
    Newer(u32),
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
    freed: Arc<Notify>,
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
    /// What a worker has to know for jobs that this one left to others, as far as it was said.
    unknown: BTreeSet<String>,
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
            unknown: BTreeSet::new(),
        }
    }

    /// Dispatches until the process stops, the worker is taken for dead, or the queue is not for it any more.
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
        // While no slot is open, a start whose time has come is no event: it would be one again and again.
        let next_start = if self.has_open_slot() { self.hosts.gate().next_start() } else { None };
        let time = next_start.into_iter().chain(rest.until()).min();
        tokio::select! {
            answer = Asked::answer(&mut self.asked), if is_asking => Event::Answered(answer),
            Some(finished) = self.slots.tasks.join_next_with_id() => Event::Finished(finished),
            Some(id) = self.slots.downloaded.recv() => Event::Downloaded(id),
            Some(looked_up) = self.look_ups.next() => Event::LookedUp(looked_up),
            () = self.freed.notified() => Event::PlaceFreed,
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
