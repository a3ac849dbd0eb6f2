//! The dispatcher: claims jobs, starts them as slots and hosts allow, and compares with Redis what this worker holds.
//!
//! A little more is claimed than can start, so that no slot stands empty for the round trip of a claim. It never claims and
//! compares at the same time, so a comparison cannot meet the jobs of a claim whose answer is still under way.

use crate::attempt::Learnt;
use crate::heartbeater::Vitals;
use crate::host_gate::{HostGate, Standing};
use crate::host_tally;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::processor::{Prepared, Processed, Processor, random_u128, report_crashed};
use crate::settler::Outgoing;
use crate::shutdown::{Shutdown, Stage};
use common::error::QueueError;
use common::host::HostRate;
use common::job::{Job, id_for_logs};
use common::outcome::{Failure, Outcome};
use common::retry::{DELAY_MAX, RetryPolicy};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use queue::ReconnectBackoff;
use queue::{
    Claim, ClaimRequest, ClaimedJob, HostNews, LeaseField, Queue, ReadyWaiter, Reconciled, Settlement, Start,
    WorkerName,
};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use storage::Existing;
use storage::health::{Condition, Health};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

/// The longest wait on an empty queue before it is looked at again. Retries that another worker scheduled and then died
/// over are picked up within this time.
const EMPTY_WAIT_MAX: Duration = Duration::from_secs(2);
/// Paused queues are looked at this often.
const PAUSED_WAIT: Duration = Duration::from_millis(1000);
/// With as many results as there may be, readers are given this long before it is looked at again.
const FULL_WAIT: Duration = Duration::from_millis(500);
/// Objects that are downloaded and not stored yet are bounded as well: with the downloads, this many times the slots.
const STORING_FACTOR: usize = 3;
/// Objects looked for in one order to one writer: few enough that two share the work of a claim.
const LOOK_UPS_MAX: usize = 32;
/// A storage that cannot be used is looked at this often.
const STORAGE_WAIT: Duration = Duration::from_millis(200);
/// How often the jobs in flight are compared with Redis: every few heartbeats.
const COMPARE_EVERY: Duration = Duration::from_secs(6);
/// When few slots are free and others are busy, more are about to be: one claim for many is cheaper than many for one.
const GATHER: Duration = Duration::from_millis(1);
/// Jobs are claimed ahead for so long. A claim under load takes 4 ms to come back, and to look for its objects as long
/// again; with half as much, slots stood empty for a tenth of the time. And one claim for many is cheaper than many for one.
const AHEAD: Duration = Duration::from_millis(20);
/// As many as that times the slots at most.
const AHEAD_FACTOR: usize = 4;
/// While jobs wait here, Redis is asked this often whether their hosts are still to be asked.
const HOSTS_EVERY: Duration = Duration::from_millis(100);
/// With more jobs in `delayed` than it holds well, the queue is gone round at this pace.
const ROTATED_WAIT: Duration = Duration::from_millis(50);
/// A push wakes every waiting worker; the claims of a large fleet are spread a little.
const WAKE_JITTER_US: u64 = 2000;
/// The longest that a host which does not answer is left alone before it is tried again.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Why dispatching ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The process is stopping.
    Stopping,
    /// The worker was taken for dead; everything it held is elsewhere.
    Reaped,
}

type Waiting = Pin<Box<dyn Future<Output = (ReadyWaiter, Result<(), QueueError>)> + Send>>;

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
pub(crate) struct Hands {
    pub(crate) queue: Arc<Queue>,
    pub(crate) worker: WorkerName,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) processor: Arc<Processor>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) storage: Arc<Health>,
    pub(crate) limits: Limits,
    pub(crate) vitals: Arc<Vitals>,
    /// To the settler.
    pub(crate) outgoing: mpsc::UnboundedSender<Outgoing>,
    pub(crate) shutdown: Shutdown,
    /// Turns true when the worker was taken for dead.
    pub(crate) reaped: watch::Receiver<bool>,
}

/// Dispatches for one worker name.
pub(crate) struct Dispatcher {
    hands: Hands,
    /// Jobs whose objects are being looked for.
    look_ups: FuturesUnordered<LookUp>,
    looking: usize,
    gate: HostGate<Claimed>,
    tasks: JoinSet<Processed>,
    running: HashMap<Id, Running>,
    /// Of those that run, how many are still being downloaded. The others hold no slot: while the storage takes an object
    /// the next download goes on, which makes a third more of them in the same time.
    downloading: usize,
    /// Tasks whose bodies are whole.
    downloaded: (mpsc::UnboundedSender<Id>, mpsc::UnboundedReceiver<Id>),
    /// Of the last claim or comparison; only rises, for the whole life of the name.
    number: u64,
    pace: Pace,
    claimed_at: Instant,
    compare_at: Instant,
    /// The connection that the last comparison was made over.
    generation: u64,
    waiter: Option<ReadyWaiter>,
    waiting: Option<Waiting>,
}

/// A job that waits for its turn.
struct Claimed {
    job: ClaimedJob,
    prepared: Prepared,
    not_before: Instant,
}

/// Jobs, and what was found of each in the storage.
type LookedUp = (Vec<Claimed>, Vec<Option<Existing>>);

/// Jobs whose objects are being looked for. They can be taken back at any time: a storage may never answer.
struct LookUp {
    claimed: Vec<Claimed>,
    found: Pin<Box<dyn Future<Output = Vec<Option<Existing>>> + Send>>,
}

impl Future for LookUp {
    type Output = LookedUp;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<LookedUp> {
        let found = ready!(self.found.as_mut().poll(context));
        Poll::Ready((std::mem::take(&mut self.claimed), found))
    }
}

/// How many jobs a second are done.
struct Pace {
    per_second: f64,
    done: u32,
    since: Instant,
}

impl Pace {
    /// Long enough for a figure, short enough to follow the load.
    const WINDOW: Duration = Duration::from_millis(20);

    fn per_second(&mut self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= Self::WINDOW {
            self.per_second = f64::from(self.done) / elapsed.as_secs_f64();
            (self.done, self.since) = (0, now);
        }
        self.per_second
    }
}

impl Dispatcher {
    pub(crate) fn new(hands: Hands) -> Dispatcher {
        let now = Instant::now();
        Dispatcher {
            look_ups: FuturesUnordered::new(),
            looking: 0,
            gate: HostGate::new(hands.limits.host_concurrency),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            downloading: 0,
            downloaded: mpsc::unbounded_channel(),
            number: 0,
            pace: Pace { per_second: 0.0, done: 0, since: now },
            claimed_at: now,
            compare_at: now + COMPARE_EVERY,
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
        let max = match self.hands.storage.condition() {
            Condition::Good => self.wanted().await,
            // One job tries it.
            Condition::Trial => 1_usize.saturating_sub(self.hands.ledger.held()),
            Condition::Bad(why) => {
                self.say_waiting(&format!("the storage cannot be used: {why}"));
                // Others may have a better one.
                self.give_back_waiting();
                self.idle(STORAGE_WAIT, false).await;
                return Ok(Step::Go);
            }
        };
        let asks_about_hosts = self.gate.waiting() > 0 && self.claimed_at.elapsed() >= HOSTS_EVERY;
        if max == 0 && !asks_about_hosts {
            self.idle(self.until_look(), false).await;
            return Ok(Step::Go);
        }
        self.claim(max).await
    }

    /// How many jobs to claim: enough to fill the free slots, and those that get free before the next claim.
    async fn wanted(&mut self) -> usize {
        let slots = self.hands.limits.concurrency;
        let running = self.downloading;
        if slots - running.min(slots) < slots.div_ceil(4) && running > 0 && self.gate.startable() + self.looking == 0 {
            self.work_during(tokio::time::sleep(GATHER)).await;
        }
        let now = Instant::now();
        let free = slots.saturating_sub(self.downloading);
        let ahead = ((self.pace.per_second(now) * AHEAD.as_secs_f64()) as usize).min(AHEAD_FACTOR * slots);
        let startable = self.gate.startable() + self.looking;
        let want = (free + ahead).saturating_sub(startable);
        // Jobs that wait for a host which is quick, only not all at once, are soon done: those behind them wait no longer
        // than that. And if Redis is slow to confirm, nothing more is begun.
        let (_, in_quick_lanes) = self.gate.waiting_at(now);
        let settling = self.hands.ledger.held().saturating_sub(self.running.len() + self.gate.waiting() + self.looking);
        if settling > 4 * slots + 64 || (free == 0 && want < ahead.div_ceil(2).max(1)) {
            return 0;
        }
        want.min((2 * slots + ahead).saturating_sub(in_quick_lanes))
    }

    async fn claim(&mut self, max: usize) -> Result<Step, QueueError> {
        self.number += 1;
        self.claimed_at = Instant::now();
        let Limits { host_rate, results_max, retry, .. } = self.hands.limits;
        let (waiting, _) = self.gate.waiting_at(self.claimed_at);
        let request = ClaimRequest { max, results_max, host_rate, free_refusals: retry.free_refusals(), waiting };
        let confirmed = self.hands.ledger.confirmations();
        let (queue, worker, number) = (Arc::clone(&self.hands.queue), self.hands.worker.clone(), self.number);
        let metrics = Arc::clone(&self.hands.metrics);
        let claim = self.work_during(async move {
            let asked = Instant::now();
            let claim = queue.claim(&worker, number, &request).await;
            metrics.claim(&claim, asked.elapsed());
            claim
        });
        let claim = claim.await?;
        if claim != Claim::Full {
            self.say_waiting("");
        }
        match claim {
            Claim::Jobs { jobs, next_due, more, rotated, left_alone, dropped } => {
                host_tally::say_dropped(&dropped);
                for host in left_alone {
                    self.hold_all(&host);
                }
                let came = jobs.len();
                if jobs.first().is_some_and(|job| job.crashes == 2) {
                    // It was claimed alone.
                    for suspect in jobs {
                        if let Step::Reaped = self.run_suspect(suspect).await? {
                            return Ok(Step::Reaped);
                        }
                    }
                    return Ok(Step::Go);
                }
                self.admit(jobs);
                if came == 0 && max > 0 && rotated {
                    self.idle(ROTATED_WAIT.min(self.until_look()), false).await;
                } else if came == 0 && max > 0 && !more {
                    if host_rate.is_some() && self.hands.ledger.confirmations() != confirmed {
                        // A start that was not needed may have come back just after the claim.
                        return Ok(Step::Go);
                    }
                    let wait = next_due.unwrap_or(EMPTY_WAIT_MAX).min(EMPTY_WAIT_MAX);
                    self.idle(wait.min(self.until_look()), true).await;
                }
                Ok(Step::Go)
            }
            Claim::Paused => {
                self.idle(PAUSED_WAIT.mul_f64(0.75 + 0.5 * fastrand::f64()), false).await;
                Ok(Step::Go)
            }
            Claim::Full => {
                let max = results_max.unwrap_or_default();
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

    fn settle(&self, job: ClaimedJob, settlement: Settlement) {
        // The settler lives as long as this sender.
        let _ = self.hands.outgoing.send(Outgoing::Job(job, settlement));
    }

    fn tell(&self, news: HostNews) {
        let _ = self.hands.outgoing.send(Outgoing::Host(news));
    }

    /// Enters claimed jobs, and has their objects looked for.
    fn admit(&mut self, jobs: Vec<ClaimedJob>) {
        let now = Instant::now();
        let mut looking = Vec::with_capacity(jobs.len());
        for job in jobs {
            if !self.hands.ledger.enter(&job.field) {
                continue;
            }
            match (self.hands.processor.prepare(&job), job.start) {
                (Err(settlement), _) => self.settle(job, settlement),
                (Ok(prepared), Start::Refused(reason)) => {
                    let settlement = self.hands.processor.refused(prepared, reason);
                    self.settle(job, settlement);
                }
                (Ok(prepared), Start::After(wait)) => looking.push(Claimed { job, prepared, not_before: now + wait }),
                (Ok(prepared), Start::Probe(_)) => looking.push(Claimed { job, prepared, not_before: now }),
            }
        }
        while !looking.is_empty() {
            let rest = looking.split_off(looking.len().min(LOOK_UPS_MAX));
            let part = std::mem::replace(&mut looking, rest);
            let wanted = part.iter().map(|claimed| self.hands.processor.candidates(&claimed.prepared)).collect();
            let processor = Arc::clone(&self.hands.processor);
            self.looking += part.len();
            let found = Box::pin(async move { processor.look_up(wanted).await });
            self.look_ups.push(LookUp { claimed: part, found });
        }
    }

    /// Settles jobs whose objects are there, and puts the others into their hosts' lanes.
    fn looked_up(&mut self, (claimed, found): LookedUp) {
        self.looking -= claimed.len();
        for (claimed, found) in claimed.into_iter().zip(found) {
            let Claimed { job, prepared, not_before } = claimed;
            let host = Arc::clone(prepared.host());
            if let Some(object) = found.and_then(|found| self.hands.processor.object_of(&prepared, found)) {
                self.hands.vitals.count_done();
                self.learn(&host, Learnt::NotAsked, None, false);
                self.settle(job, self.hands.processor.exists(prepared, object));
                continue;
            }
            self.gate.push(&host, Claimed { job, prepared: prepared.looked_up(), not_before }, not_before);
        }
    }

    /// Starts what may start, as long as there are slots.
    fn fill(&mut self) {
        let slots = match self.hands.storage.condition() {
            Condition::Good => self.hands.limits.concurrency,
            Condition::Trial => usize::from(self.running.is_empty()),
            Condition::Bad(_) => 0,
        };
        let now = Instant::now();
        while self.downloading < slots && self.running.len() < slots * STORING_FACTOR {
            let Some(claimed) = self.gate.next(now) else { break };
            self.start(claimed);
        }
        // Whatever changes the lanes ends here.
        self.hands.metrics.waits(self.gate.waiting() + self.looking);
    }

    fn start(&mut self, claimed: Claimed) {
        let Claimed { job, prepared, .. } = claimed;
        let processor = Arc::clone(&self.hands.processor);
        let host = Arc::clone(prepared.host());
        let is_fresh = prepared.is_fresh();
        let downloaded = self.downloaded.0.clone();
        // The dispatcher lives as long as its tasks.
        let downloaded = move || _ = downloaded.send(tokio::task::id());
        let task = self.tasks.spawn(async move { processor.process(prepared, downloaded).await });
        self.downloading += 1;
        self.hands.vitals.hosts.started(&host);
        self.running.insert(task.id(), Running { job, host, is_fresh, is_downloading: true, task });
    }

    /// A body is whole: its slot and its place at the host are free.
    fn free_slot(&mut self, id: Id) {
        if let Some(running) = self.running.get_mut(&id)
            && running.is_downloading
        {
            running.is_downloading = false;
            self.downloading -= 1;
            self.gate.leave(&running.host);
        }
    }

    /// Passes on what finished tasks decided.
    fn collect_finished(&mut self) {
        while let Ok(id) = self.downloaded.1.try_recv() {
            self.free_slot(id);
        }
        while let Some(finished) = self.tasks.try_join_next_with_id() {
            self.pass_on(finished);
        }
        self.fill();
    }

    fn pass_on(&mut self, finished: Result<(Id, Processed), JoinError>) {
        let (id, processed) = match finished {
            Ok((id, processed)) => (id, Some(processed)),
            Err(error) => (error.id(), None),
        };
        let Some(Running { job, host, is_fresh, is_downloading, .. }) = self.running.remove(&id) else { return };
        if is_downloading {
            self.downloading -= 1;
            self.gate.leave(&host);
        }
        self.pace.done += 1;
        self.hands.vitals.count_done();
        let settlement = match processed {
            Some(Processed { settlement, learnt }) => {
                let probe = if let Start::Probe(reason) = job.start { Some(reason) } else { None };
                self.learn(&host, learnt, probe, is_fresh);
                settlement
            }
            // A panic is the job's crash without the process: it would happen again on every worker.
            None => match Job::read(&job.payload, random_u128()) {
                Ok(job) => report_crashed(job),
                Err(_) => Settlement::Release,
            },
        };
        let is_stored =
            matches!(&settlement, Settlement::Report(report) if matches!(report.outcome, Outcome::Stored { .. }));
        self.hands.vitals.hosts.ended(&host, is_stored);
        self.settle(job, settlement);
    }

    /// Draws conclusions about a host, and tells the others where they matter to them.
    fn learn(&mut self, host: &Arc<str>, learnt: Learnt, probe: Option<Failure>, is_fresh: bool) {
        let first = self.hands.limits.retry.delay;
        let name = host.to_string();
        match learnt {
            Learnt::Answers => {
                self.gate.answered(host);
                if probe.is_some() {
                    self.tell(HostNews::Answered { host: name });
                }
            }
            Learnt::NotAsked => {
                if let Some(rate) = self.hands.limits.host_rate {
                    self.tell(HostNews::Unused { host: name, interval: rate.interval() });
                }
            }
            Learnt::Refuses(reason, server_wait) => {
                self.tell(HostNews::Refused { host: name, reason, server_wait, first, longest: DELAY_MAX });
                self.hold_all(host);
            }
            Learnt::Fails(reason) => {
                // That a link fails again says nothing new about its host.
                let standing = if is_fresh { self.gate.failed(host) } else { Standing::Up };
                let is_down = standing != Standing::Up;
                let longest = SILENCE_MAX;
                if probe == Some(Failure::RateLimited) {
                    // What it says now is not that it wants to be left alone.
                    self.tell(HostNews::Answered { host: name });
                    return;
                }
                if probe.is_some() {
                    self.tell(HostNews::Refused { host: name, reason, server_wait: None, first, longest });
                } else if is_down {
                    self.tell(HostNews::Silent { host: name, reason, first, longest });
                }
                if standing == Standing::FoundDown {
                    tracing::warn!(%host, "the host only fails ({reason}); it is left alone for a while");
                } else if probe.is_some() {
                    tracing::info!(%host, "the host still fails ({reason})");
                }
                if probe.is_some() || is_down {
                    self.hold_all(host);
                }
            }
        }
    }

    /// Gives back what was not started.
    fn give_back_waiting(&mut self) {
        // Jobs whose objects are looked for: a storage that is stuck does not say when it will answer.
        self.looking = 0;
        let looking = std::mem::take(&mut self.look_ups).into_iter().flat_map(|look_up| look_up.claimed);
        for claimed in looking.chain(self.gate.drain_all()) {
            self.settle(claimed.job, Settlement::Release);
        }
    }

    /// Gives back what waits for a host that is to be left alone, until it may be asked again.
    fn hold_all(&mut self, host: &str) {
        for Claimed { job, prepared, .. } in self.gate.drain(host) {
            self.settle(job, prepared.held());
        }
    }

    /// Until something has to be looked at that does not happen by itself.
    fn until_look(&self) -> Duration {
        let now = Instant::now();
        let compare = self.compare_at.saturating_duration_since(now);
        let hosts = (self.gate.waiting() > 0).then(|| (self.claimed_at + HOSTS_EVERY).saturating_duration_since(now));
        compare.min(hosts.unwrap_or(compare)).max(Duration::from_millis(1))
    }

    /// Waits for `future`, and goes on starting and passing on jobs meanwhile.
    async fn work_during<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        loop {
            let next_start = sleep_until(self.gate.next_start());
            tokio::select! {
                output = &mut future => return output,
                Some(finished) = self.tasks.join_next_with_id() => {
                    self.pass_on(finished);
                    self.collect_finished();
                }
                Some(id) = self.downloaded.1.recv() => {
                    self.free_slot(id);
                    self.collect_finished();
                }
                Some(looked_up) = self.look_ups.next() => {
                    self.looked_up(looked_up);
                    self.fill();
                }
                () = next_start => self.fill(),
            }
        }
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
        let ledger = Arc::clone(&self.hands.ledger);
        let changed = ledger.changed();
        let next_start = sleep_until(self.gate.next_start());
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
        let (mut finished, mut looked_up, mut downloaded) = (None, None, None);
        let mut woken = false;
        tokio::select! {
            () = tokio::time::sleep(at_most) => {}
            () = next_start => {}
            () = changed => {}
            () = self.hands.shutdown.reached(Stage::Finishing) => {}
            _ = self.hands.reaped.wait_for(|reaped| *reaped) => {}
            task = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => finished = task,
            Some(id) = self.downloaded.1.recv() => downloaded = Some(id),
            Some(done) = self.look_ups.next() => looked_up = Some(done),
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
        if let Some(looked_up) = looked_up {
            self.looked_up(looked_up);
        }
        if let Some(id) = downloaded {
            self.free_slot(id);
        }
        self.collect_finished();
    }

    /// Compares what this worker holds with what Redis holds for it: adopts what memory lacks, drops what Redis lacks.
    async fn compare(&mut self) -> Result<Step, QueueError> {
        self.hands.ledger.begin_comparison();
        self.number += 1;
        let (queue, worker, number) = (Arc::clone(&self.hands.queue), self.hands.worker.clone(), self.number);
        let answer = self.work_during(async move { queue.reconcile(&worker, number).await }).await;
        self.hands.metrics.compared(&answer);
        let in_redis = match answer? {
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
            if let Some(Running { job, host, is_downloading, task, .. }) = self.running.remove(&id) {
                tracing::warn!(
                    job = id_for_logs(&job.payload),
                    "Redis no longer knows that this worker has it; abandoned"
                );
                self.hands.metrics.abandoned();
                // It would hold a place at its host, and nobody would hear of it. What it stored is complete or nothing.
                task.abort();
                self.hands.vitals.hosts.abandoned(&host);
                if is_downloading {
                    self.downloading -= 1;
                    self.gate.leave(&host);
                }
                self.hands.ledger.settled(std::iter::once(&job.field));
            }
        }
        for claimed in self.gate.extract(|claimed| fields.contains(&claimed.job.field)) {
            let job = id_for_logs(&claimed.job.payload);
            tracing::warn!(job, "Redis no longer knows that this worker has it; dropped");
            self.hands.metrics.abandoned();
            self.hands.ledger.settled(std::iter::once(&claimed.job.field));
        }
        let (mut suspects, mut adopted) = (Vec::new(), Vec::new());
        for job in self.hands.ledger.unknown(in_redis) {
            tracing::warn!(job = id_for_logs(&job.payload), "Redis says that this worker has it; adopted");
            self.hands.metrics.adopted();
            if job.crashes == 2 { suspects.push(job) } else { adopted.push(job) }
        }
        self.admit(adopted);
        for suspect in suspects {
            if let Step::Reaped = self.run_suspect(suspect).await? {
                return Ok(Step::Reaped);
            }
        }
        Ok(Step::Go)
    }

    /// Runs a job that has crashed its worker twice, with nothing beside it: a third crash is its own doing.
    async fn run_suspect(&mut self, suspect: ClaimedJob) -> Result<Step, QueueError> {
        tracing::warn!(job = id_for_logs(&suspect.payload), "was there at two crashes; it runs alone now");
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
                    tracing::warn!(job = id_for_logs(&suspect.payload), "cannot start the suspect yet: {error}");
                    if *self.hands.reaped.borrow() || self.hands.shutdown.stage() > Stage::Running {
                        break false;
                    }
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        };
        self.hands.ledger.settled(std::iter::once(&suspect.field));
        if ours && self.hands.shutdown.stage() == Stage::Running {
            self.start_alone(suspect);
            while self.hands.ledger.held() > 0 {
                if let Some(step) = self.wait_for_ledger().await {
                    return Ok(step);
                }
            }
        }
        Ok(Step::Go)
    }

    /// Starts a job past its lane, which is empty.
    fn start_alone(&mut self, job: ClaimedJob) {
        self.hands.ledger.enter(&job.field);
        match self.hands.processor.prepare(&job) {
            Ok(prepared) => {
                self.gate.enter(prepared.host());
                self.start(Claimed { job, prepared, not_before: Instant::now() });
            }
            Err(settlement) => self.settle(job, settlement),
        }
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
        self.give_back_waiting();
        // Not for the tasks of abandoned jobs, which may take a moment to end.
        while !self.running.is_empty() {
            tokio::select! {
                () = &mut until_deadline => break,
                () = self.hands.shutdown.reached(Stage::GivingBack) => break,
                Some(finished) = self.tasks.join_next_with_id() => self.pass_on(finished),
            }
        }
        while let Some(finished) = self.tasks.try_join_next_with_id() {
            self.pass_on(finished);
        }
        // Dropping the set aborts its tasks: their temporary files are removed, and their results are never sent.
        self.tasks.abort_all();
        let mut rest: Vec<_> = self.running.drain().map(|(_, running)| running.job).collect();
        if !rest.is_empty() {
            tracing::info!("giving {} jobs back", rest.len());
        }
        rest.sort_by_key(|job| job.field.order());
        for job in rest {
            self.settle(job, Settlement::Release);
        }
        // Jobs that Redis holds for this worker and nobody here runs (a suspect that waited for its turn) go back too.
        self.hands.ledger.begin_comparison();
        self.number += 1;
        if let Ok(Reconciled::Holds(jobs)) = self.hands.queue.reconcile(&self.hands.worker, self.number).await {
            for job in self.hands.ledger.unknown(jobs) {
                self.settle(job, Settlement::Release);
            }
        }
    }
}

/// A job that a task is at.
struct Running {
    job: ClaimedJob,
    host: Arc<str>,
    /// It was its first attempt.
    is_fresh: bool,
    is_downloading: bool,
    task: AbortHandle,
}

enum Step {
    Go,
    Reaped,
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
