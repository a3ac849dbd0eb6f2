//! The dispatcher: claims jobs for free slots, starts them, and compares with Redis what this worker holds.
//!
//! It claims only what it can start. It never claims and compares at the same time, so a comparison cannot meet the jobs
//! of a claim whose answer is still under way.

use crate::heartbeater::Vitals;
use crate::ledger::Ledger;
use crate::processor::{Processor, random_u128, report_crashed};
use crate::shutdown::{Shutdown, Stage};
use crate::storage::health::{Condition, Health};
use common::error::{QueueError, ReconnectBackoff};
use common::job::Job;
use common::queue::{Claim, ClaimedJob, LeaseField, Queue, ReadyWaiter, Reconciled, Settlement, WorkerName};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

/// The longest wait on an empty queue before it is looked at again. Retries that another worker scheduled and then died
/// over are picked up within this time.
const EMPTY_WAIT_MAX: Duration = Duration::from_secs(2);
/// Paused queues are looked at this often.
const PAUSED_WAIT: Duration = Duration::from_millis(1000);
/// With as many results as there may be, readers are given this long before it is looked at again.
const FULL_WAIT: Duration = Duration::from_millis(500);
/// A storage that cannot be used is looked at this often.
const STORAGE_WAIT: Duration = Duration::from_millis(200);
/// How often the jobs in flight are compared with Redis: every few heartbeats.
const COMPARE_EVERY: Duration = Duration::from_secs(6);
/// When few slots are free and others are busy, more are about to be: one claim for many is cheaper than many for one.
const GATHER: Duration = Duration::from_millis(1);
/// A push wakes every waiting worker; the claims of a large fleet are spread a little.
const WAKE_JITTER_US: u64 = 2000;

/// Why dispatching ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The process is stopping.
    Stopping,
    /// The worker was taken for dead; everything it held is elsewhere.
    Reaped,
}

type Waiting = Pin<Box<dyn Future<Output = (ReadyWaiter, Result<(), QueueError>)> + Send>>;

/// What a dispatcher works with.
pub(crate) struct Hands {
    pub(crate) queue: Arc<Queue>,
    pub(crate) worker: WorkerName,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) processor: Arc<Processor>,
    pub(crate) storage: Arc<Health>,
    /// Results that there may be before nothing more is claimed.
    pub(crate) results_max: Option<u64>,
    pub(crate) vitals: Arc<Vitals>,
    /// To the settler.
    pub(crate) settlements: mpsc::UnboundedSender<(LeaseField, Settlement)>,
    pub(crate) shutdown: Shutdown,
    /// Turns true when the worker was taken for dead.
    pub(crate) reaped: watch::Receiver<bool>,
}

/// Dispatches for one worker name.
pub(crate) struct Dispatcher {
    hands: Hands,
    tasks: JoinSet<Settlement>,
    running: HashMap<Id, Running>,
    /// Of the last claim or comparison; only rises, for the whole life of the name.
    number: u64,
    compare_at: Instant,
    /// The connection that the last comparison was made over.
    generation: u64,
    waiter: Option<ReadyWaiter>,
    waiting: Option<Waiting>,
}

impl Dispatcher {
    pub(crate) fn new(hands: Hands) -> Dispatcher {
        Dispatcher {
            tasks: JoinSet::new(),
            running: HashMap::new(),
            number: 0,
            compare_at: Instant::now() + COMPARE_EVERY,
            generation: hands.queue.connection_generation(),
            waiter: Some(hands.queue.ready_waiter()),
            waiting: None,
            hands,
        }
    }

    /// Dispatches until the process stops or the worker is taken for dead.
    pub(crate) async fn run(&mut self) -> End {
        let mut backoff = ReconnectBackoff::default();
        loop {
            self.collect_finished();
            if *self.hands.reaped.borrow() {
                return End::Reaped;
            }
            if self.hands.shutdown.stage() > Stage::Running {
                return End::Stopping;
            }
            match self.step().await {
                Ok(Step::Go) => backoff.reset(),
                Ok(Step::Reaped) => return End::Reaped,
                Err(error) => {
                    tracing::warn!("cannot claim: {error}");
                    // The claim may have run all the same.
                    self.compare_at = Instant::now();
                    self.pause(backoff.next_wait()).await;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Step, QueueError> {
        let reconnected = self.hands.queue.connection_generation() != self.generation;
        if reconnected || Instant::now() >= self.compare_at {
            return self.compare().await;
        }
        let free = match self.hands.storage.condition() {
            Condition::Good => self.hands.ledger.free(),
            // One job tries it.
            Condition::Trial => 1_usize.saturating_sub(self.hands.ledger.held()),
            Condition::Bad(why) => {
                self.say_waiting(&format!("the storage cannot be used: {why}"));
                self.idle(STORAGE_WAIT, false).await;
                return Ok(Step::Go);
            }
        };
        if free == 0 {
            self.idle(self.until_compare(), false).await;
            return Ok(Step::Go);
        }
        let gathers = free < (free + self.hands.ledger.held()).div_ceil(4) && self.hands.ledger.held() > 0;
        let free = if gathers {
            tokio::time::sleep(GATHER).await;
            self.hands.ledger.free()
        } else {
            free
        };
        self.number += 1;
        let claim = self.hands.queue.claim(&self.hands.worker, self.number, free, self.hands.results_max).await?;
        if claim != Claim::Full {
            self.say_waiting("");
        }
        match claim {
            Claim::Jobs { jobs, next_due } if jobs.is_empty() => {
                let wait = next_due.unwrap_or(EMPTY_WAIT_MAX).min(EMPTY_WAIT_MAX);
                self.idle(wait.min(self.until_compare()), true).await;
                Ok(Step::Go)
            }
            Claim::Jobs { jobs, .. } => {
                for job in jobs {
                    if job.crashes == 2 {
                        return self.run_suspect(job).await;
                    }
                    self.start(job);
                }
                Ok(Step::Go)
            }
            Claim::Paused => {
                self.idle(PAUSED_WAIT.mul_f64(0.75 + 0.5 * fastrand::f64()), false).await;
                Ok(Step::Go)
            }
            Claim::Full => {
                let max = self.hands.results_max.unwrap_or_default();
                self.say_waiting(&format!("there are {max} results that the readers have not taken (--results-max)"));
                self.idle(FULL_WAIT.mul_f64(0.75 + 0.5 * fastrand::f64()), false).await;
                Ok(Step::Go)
            }
            Claim::Stale => Ok(Step::Go),
            Claim::Reaped => Ok(Step::Reaped),
        }
    }

    /// Tells people once why nothing is claimed, and the log as well.
    fn say_waiting(&self, why: &str) {
        if self.hands.vitals.set_waiting(why) {
            if why.is_empty() {
                tracing::warn!("jobs are claimed again");
            } else {
                tracing::warn!("nothing is claimed: {why}");
            }
        }
    }

    fn start(&mut self, job: ClaimedJob) {
        if !self.hands.ledger.enter(&job.field) {
            return;
        }
        let processor = Arc::clone(&self.hands.processor);
        let claimed = job.clone();
        let task = self.tasks.spawn(async move { processor.process(&claimed).await });
        self.running.insert(task.id(), Running { job, task });
    }

    /// Passes on what finished tasks decided.
    fn collect_finished(&mut self) {
        while let Some(finished) = self.tasks.try_join_next_with_id() {
            self.pass_on(finished);
        }
    }

    fn pass_on(&mut self, finished: Result<(Id, Settlement), JoinError>) {
        let (id, settlement) = match finished {
            Ok((id, settlement)) => (id, Some(settlement)),
            Err(error) => (error.id(), None),
        };
        let Some(Running { job, .. }) = self.running.remove(&id) else { return };
        // A panic is the job's crash without the process: it would happen again on every worker.
        let settlement = settlement.unwrap_or_else(|| match Job::read(&job.payload, random_u128()) {
            Ok(job) => report_crashed(job),
            Err(_) => Settlement::Release,
        });
        self.hands.vitals.count_done();
        // The settler lives as long as this sender.
        let _ = self.hands.settlements.send((job.field, settlement));
    }

    fn until_compare(&self) -> Duration {
        self.compare_at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    /// Waits, whatever is done meanwhile, unless the worker is stopping or dead: Redis is away, and to ask it again with
    /// each download that ends would be a storm.
    async fn pause(&mut self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.hands.shutdown.reached(Stage::Finishing) => {}
            _ = self.hands.reaped.wait_for(|reaped| *reaped) => {}
        }
    }

    /// Waits for at most `at_most`, and less when something happens that may matter: a slot is free, a task is done, the
    /// worker is stopping or dead, and with `for_jobs` when the queue has a job.
    async fn idle(&mut self, at_most: Duration, for_jobs: bool) {
        let changed = self.hands.ledger.changed();
        if for_jobs
            && self.waiting.is_none()
            && let Some(mut waiter) = self.waiter.take()
        {
            let wait = EMPTY_WAIT_MAX.mul_f64(0.9 + 0.2 * fastrand::f64());
            self.waiting = Some(Box::pin(async move {
                let result = waiter.wait(wait).await;
                (waiter, result)
            }));
        }
        let no_wait: Waiting = Box::pin(std::future::pending());
        // A wait for jobs that something else interrupts goes on, and is met again the next time: to drop it would cost
        // its connection.
        let mut waiting = if for_jobs { self.waiting.take().unwrap_or(no_wait) } else { no_wait };
        let mut finished = None;
        let mut woken = false;
        tokio::select! {
            () = tokio::time::sleep(at_most) => {}
            () = changed => {}
            () = self.hands.shutdown.reached(Stage::Finishing) => {}
            _ = self.hands.reaped.wait_for(|reaped| *reaped) => {}
            task = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => finished = task,
            (waiter, result) = &mut waiting, if for_jobs => {
                self.waiter = Some(waiter);
                woken = true;
                if let Err(error) = result {
                    tracing::debug!("the wait for jobs broke off: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        if for_jobs && !woken {
            self.waiting = Some(waiting);
        }
        if woken {
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..WAKE_JITTER_US))).await;
        }
        if let Some(finished) = finished {
            self.pass_on(finished);
        }
    }

    /// Compares what this worker holds with what Redis holds for it: adopts what memory lacks, drops what Redis lacks.
    async fn compare(&mut self) -> Result<Step, QueueError> {
        self.hands.ledger.begin_comparison();
        self.number += 1;
        let in_redis = match self.hands.queue.reconcile(&self.hands.worker, self.number).await? {
            Reconciled::Holds(jobs) => jobs,
            Reconciled::Reaped => return Ok(Step::Reaped),
        };
        self.generation = self.hands.queue.connection_generation();
        self.compare_at = Instant::now() + COMPARE_EVERY;
        let fields: HashSet<LeaseField> = in_redis.iter().map(|job| job.field.clone()).collect();
        let lost: Vec<Id> = self
            .running
            .iter()
            .filter(|(_, running)| !fields.contains(&running.job.field))
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            if let Some(Running { job, task }) = self.running.remove(&id) {
                tracing::warn!("Redis no longer knows that this worker has job {:?}; abandoned", job.field);
                // It would hold a place at its host, and nobody would hear of it. What it stored is complete or nothing.
                task.abort();
                self.hands.ledger.settled(std::iter::once(&job.field));
            }
        }
        let mut suspects = Vec::new();
        for job in self.hands.ledger.unknown(in_redis) {
            tracing::warn!("Redis says that this worker has job {:?}; adopted", job.field);
            if job.crashes == 2 { suspects.push(job) } else { self.start(job) }
        }
        for suspect in suspects {
            if let Step::Reaped = self.run_suspect(suspect).await? {
                return Ok(Step::Reaped);
            }
        }
        Ok(Step::Go)
    }

    /// Runs a job that has crashed its worker twice, with nothing beside it: a third crash is its own doing.
    async fn run_suspect(&mut self, suspect: ClaimedJob) -> Result<Step, QueueError> {
        tracing::warn!("job {:?} was there at two crashes; it runs alone now", suspect.field);
        self.hands.ledger.enter(&suspect.field);
        while self.hands.ledger.held() > 1 {
            if let Some(step) = self.wait_for_ledger().await {
                self.hands.ledger.settled(std::iter::once(&suspect.field));
                return Ok(step);
            }
        }
        let mut backoff = ReconnectBackoff::default();
        let ours = loop {
            match self.hands.queue.run_alone(&self.hands.worker, &suspect.field).await {
                Ok(ours) => break ours,
                Err(error) => {
                    tracing::warn!("cannot start the suspect yet: {error}");
                    if *self.hands.reaped.borrow() || self.hands.shutdown.stage() > Stage::Running {
                        break false;
                    }
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        };
        self.hands.ledger.settled(std::iter::once(&suspect.field));
        if ours && self.hands.shutdown.stage() == Stage::Running {
            self.start(suspect);
            while self.hands.ledger.held() > 0 {
                if let Some(step) = self.wait_for_ledger().await {
                    return Ok(step);
                }
            }
        }
        Ok(Step::Go)
    }

    /// Waits for something to change; tells when the loop has to be left.
    async fn wait_for_ledger(&mut self) -> Option<Step> {
        if *self.hands.reaped.borrow() {
            return Some(Step::Reaped);
        }
        if self.hands.shutdown.stage() > Stage::Running {
            return Some(Step::Go);
        }
        self.idle(Duration::from_millis(200), false).await;
        self.collect_finished();
        None
    }

    /// Lets what is in flight finish until `deadline` or the second signal, then gives the rest back.
    pub(crate) async fn finish(mut self, deadline: Instant) {
        let until_deadline = tokio::time::sleep(deadline.saturating_duration_since(Instant::now()));
        tokio::pin!(until_deadline);
        // Not for the tasks of abandoned jobs, which may take a moment to end.
        while !self.running.is_empty() {
            tokio::select! {
                () = &mut until_deadline => break,
                () = self.hands.shutdown.reached(Stage::GivingBack) => break,
                Some(finished) = self.tasks.join_next_with_id() => self.pass_on(finished),
            }
        }
        self.collect_finished();
        // Dropping the set aborts its tasks: their temporary files are removed, and their results are never sent.
        self.tasks.abort_all();
        let mut rest: Vec<_> = self.running.drain().map(|(_, running)| running.job.field).collect();
        if !rest.is_empty() {
            tracing::info!("giving {} jobs back", rest.len());
        }
        rest.sort_by_key(LeaseField::order);
        for field in rest {
            let _ = self.hands.settlements.send((field, Settlement::Release));
        }
        // Jobs that Redis holds for this worker and nobody here runs (a suspect that waited for its turn) go back too.
        self.hands.ledger.begin_comparison();
        self.number += 1;
        if let Ok(Reconciled::Holds(jobs)) = self.hands.queue.reconcile(&self.hands.worker, self.number).await {
            for job in self.hands.ledger.unknown(jobs) {
                let _ = self.hands.settlements.send((job.field, Settlement::Release));
            }
        }
    }
}

/// A job that a task is at.
struct Running {
    job: ClaimedJob,
    task: AbortHandle,
}

enum Step {
    Go,
    Reaped,
}
