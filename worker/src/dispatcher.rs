//! The dispatcher: claims jobs, starts them as slots and hosts allow, and compares with Redis what this worker holds.
//!
//! A little more is claimed than can start, so that no slot stands empty for the round trip of a claim. It never claims and
//! compares at the same time, so a comparison cannot meet the jobs of a claim whose answer is still under way.

use crate::hosts::conclusions::{Circumstances, Ending, Said, conclude};
use crate::hosts::{Admissions, Doors, HostTally, Hosts, Places, Trail, Visit, Visits, say_dropped};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::processor::{Prepared, Processed, Processor, random_u128, report_crashed};
use crate::settler::Outgoing;
use crate::shutdown::{Shutdown, Stage};
use crate::vitals::Vitals;
use common::error::QueueError;
use common::host::HostRate;
use common::job::{Job, id_for_logs};
use common::outcome::{Failure, Outcome};
use common::retry::RetryPolicy;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use queue::ReconnectBackoff;
use queue::{
    Admission, Claim, ClaimRequest, ClaimedJob, LeaseField, Queue, ReadyWaiter, Reconciled, Settlement, Start,
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
    pub(crate) tally: Arc<HostTally>,
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
    hosts: Arc<Hosts<Claimed>>,
    /// Places that got free since the lanes were looked at.
    freed: mpsc::UnboundedReceiver<()>,
    /// For the targets of redirects.
    admissions: Admissions,
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
#[derive(Debug)]
pub(crate) struct Claimed {
    job: ClaimedJob,
    prepared: Prepared,
    /// What the claim admitted it to.
    trail: Arc<Trail>,
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
    pub(crate) fn new(hands: Hands, admissions: Admissions) -> Dispatcher {
        let now = Instant::now();
        let (hosts, freed) = Hosts::new(hands.limits.host_concurrency);
        Dispatcher {
            look_ups: FuturesUnordered::new(),
            looking: 0,
            hosts,
            freed,
            admissions,
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
        let asks_about_hosts = self.hosts.gate().waiting() > 0 && self.claimed_at.elapsed() >= HOSTS_EVERY;
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
        if slots - running.min(slots) < slots.div_ceil(4)
            && running > 0
            && self.hosts.gate().startable() + self.looking == 0
        {
            self.work_during(tokio::time::sleep(GATHER)).await;
        }
        let now = Instant::now();
        let free = slots.saturating_sub(self.downloading);
        let ahead = ((self.pace.per_second(now) * AHEAD.as_secs_f64()) as usize).min(AHEAD_FACTOR * slots);
        let startable = self.hosts.gate().startable() + self.looking;
        let want = (free + ahead).saturating_sub(startable);
        // Jobs that wait for a host which is quick, only not all at once, are soon done: those behind them wait no longer
        // than that. And if Redis is slow to confirm, nothing more is begun.
        let (_, in_quick_lanes) = self.hosts.gate().waiting_at(now);
        let settling =
            self.hands.ledger.held().saturating_sub(self.running.len() + self.hosts.gate().waiting() + self.looking);
        if settling > 4 * slots + 64 || (free == 0 && want < ahead.div_ceil(2).max(1)) {
            return 0;
        }
        want.min((2 * slots + ahead).saturating_sub(in_quick_lanes))
    }

    async fn claim(&mut self, max: usize) -> Result<Step, QueueError> {
        self.number += 1;
        self.claimed_at = Instant::now();
        let Limits { host_rate, results_max, retry, .. } = self.hands.limits;
        let (waiting, _) = self.hosts.gate().waiting_at(self.claimed_at);
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
                say_dropped(&dropped);
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

    /// Enters claimed jobs, and has their objects looked for.
    fn admit(&mut self, jobs: Vec<ClaimedJob>) {
        let now = Instant::now();
        let mut looking = Vec::with_capacity(jobs.len());
        for job in jobs {
            if !self.hands.ledger.enter(&job.field) {
                continue;
            }
            if let Some(claimed) = self.read(job, now) {
                looking.push(claimed);
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

    /// Reads a job and what it was admitted to; settles one that there is nothing to do for.
    fn read(&self, job: ClaimedJob, now: Instant) -> Option<Claimed> {
        let (mut visits, refused) = admitted(&job);
        let wait = job.admissions.iter().map(|admission| match admission.start {
            Start::After(wait) => wait,
            Start::Probe(_) | Start::Refused(_) => Duration::ZERO,
        });
        let not_before = now + wait.max().unwrap_or_default();
        match (self.hands.processor.prepare(&job), refused) {
            (Err(settlement), _) => self.end(job, &Trail::of(visits), true, Ending::Untold, settlement),
            (Ok(prepared), Some((host, reason))) => {
                let settlement = self.hands.processor.refused(prepared, &host, reason);
                self.end(job, &Trail::of(visits), false, Ending::Untold, settlement);
            }
            (Ok(prepared), None) => {
                // Where there is nothing to say about hosts, and for a job that was adopted.
                if visits.first().is_none_or(|first| first.host != *prepared.host()) {
                    visits.insert(0, Visit { host: Arc::clone(prepared.host()), probe: None, is_asked: false });
                }
                return Some(Claimed { job, prepared, trail: Trail::of(visits), not_before });
            }
        }
        None
    }

    /// The one way out for every job that this worker holds: conclusions are drawn about its hosts, and what becomes of it is sent on
    /// its way.
    fn end(&self, job: ClaimedJob, trail: &Trail, is_fresh: bool, ending: Ending, settlement: Settlement) {
        self.conclude(trail, is_fresh, ending);
        // The settler lives as long as this sender.
        let _ = self.hands.outgoing.send(Outgoing::Job(job, settlement));
    }

    /// The same for a job that is not this worker's any more.
    fn lose(&self, field: &LeaseField, trail: &Trail) {
        self.conclude(trail, false, Ending::Lost);
        self.hands.ledger.settled(std::iter::once(field));
    }

    /// Draws the conclusions of an attempt, and tells the others where they matter to them.
    fn conclude(&self, trail: &Trail, is_fresh: bool, ending: Ending) {
        let Limits { host_rate, retry, .. } = self.hands.limits;
        let circumstances =
            Circumstances { interval: host_rate.map(|rate| rate.interval()), first_wait: retry.delay, is_fresh };
        let (visits, last) = trail.close();
        let failures = |host: &Arc<str>| self.hosts.gate().failures(host);
        for conclusion in conclude(&visits, last, ending, circumstances, failures) {
            let host = &conclusion.host;
            self.hosts.gate().set_failures(host, conclusion.failures);
            match conclusion.said {
                Some(Said::OnlyFails(reason)) => {
                    tracing::warn!(%host, "the host only fails ({reason}); it is left alone for a while");
                }
                Some(Said::StillFails(reason)) => tracing::info!(%host, "the host still fails ({reason})"),
                None => {}
            }
            // It goes before the jobs that wait because of it.
            if let Some(news) = conclusion.news {
                let _ = self.hands.outgoing.send(Outgoing::Host(news));
            }
            if conclusion.is_to_be_left_alone {
                self.hold_all(host);
            }
        }
    }

    /// Settles jobs whose objects are there, and puts the others into their hosts' lanes.
    fn looked_up(&mut self, (claimed, found): LookedUp) {
        self.looking -= claimed.len();
        for (claimed, found) in claimed.into_iter().zip(found) {
            let Claimed { job, prepared, trail, not_before } = claimed;
            if let Some(object) = found.and_then(|found| self.hands.processor.object_of(&prepared, found)) {
                self.hands.vitals.count_done();
                let settlement = self.hands.processor.exists(prepared, object);
                self.end(job, &trail, true, Ending::Untold, settlement);
                continue;
            }
            let host = Arc::clone(prepared.host());
            let claimed = Claimed { job, prepared: prepared.looked_up(), trail, not_before };
            self.hosts.gate().push(&host, claimed, not_before);
        }
    }

    /// Starts what may start, as long as there are slots.
    fn fill(&mut self) {
        let slots = match self.hands.storage.condition() {
            Condition::Good => self.hands.limits.concurrency,
            Condition::Trial => usize::from(self.running.is_empty()),
            Condition::Bad(_) => 0,
        };
        // Of many places one look at the lanes is enough.
        while self.freed.try_recv().is_ok() {}
        let now = Instant::now();
        while self.downloading < slots && self.running.len() < slots * STORING_FACTOR {
            let claimed = self.hosts.gate().next(now);
            let Some(claimed) = claimed else { break };
            self.start(claimed);
        }
        // Whatever changes the lanes ends here.
        self.hands.metrics.waits(self.hosts.gate().waiting() + self.looking);
    }

    /// Starts a job that has a place at its host.
    fn start(&mut self, claimed: Claimed) {
        let Claimed { job, prepared, trail, .. } = claimed;
        let processor = Arc::clone(&self.hands.processor);
        let host = Arc::clone(prepared.host());
        let is_fresh = prepared.is_fresh();
        let place = self.hosts.taken(&host);
        let doors = Doors {
            places: Arc::clone(&self.hosts) as Arc<dyn Places>,
            admissions: self.admissions.clone(),
            tally: Arc::clone(&self.hands.tally),
        };
        let mut visits = Visits::begin(Arc::clone(&trail), place, doors);
        let downloaded = self.downloaded.0.clone();
        // The dispatcher lives as long as its tasks.
        let downloaded = move || _ = downloaded.send(tokio::task::id());
        let task = self.tasks.spawn(async move { processor.process(prepared, &mut visits, downloaded).await });
        self.downloading += 1;
        self.hands.tally.started(&host);
        self.running.insert(task.id(), Running { job, host, trail, is_fresh, is_downloading: true, task });
    }

    /// A body is whole: its slot is free. Its place at the host is so already.
    fn free_slot(&mut self, id: Id) {
        if let Some(running) = self.running.get_mut(&id)
            && running.is_downloading
        {
            running.is_downloading = false;
            self.downloading -= 1;
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
        let Some(Running { job, host, trail, is_fresh, is_downloading, .. }) = self.running.remove(&id) else { return };
        if is_downloading {
            self.downloading -= 1;
        }
        self.pace.done += 1;
        self.hands.vitals.count_done();
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
        self.hands.tally.ended(&trail.host().unwrap_or(host), is_stored);
        self.end(job, &trail, is_fresh, ending, settlement);
    }

    /// Gives back what was not started.
    fn give_back_waiting(&mut self) {
        // Jobs whose objects are looked for: a storage that is stuck does not say when it will answer.
        self.looking = 0;
        let looking = std::mem::take(&mut self.look_ups).into_iter().flat_map(|look_up| look_up.claimed);
        let waiting = self.hosts.gate().drain_all();
        for Claimed { job, trail, .. } in looking.chain(waiting) {
            self.end(job, &trail, true, Ending::Untold, Settlement::Release);
        }
    }

    /// Gives back what waits for a host that is to be left alone, until it may be asked again.
    fn hold_all(&self, host: &str) {
        let mut gate = self.hosts.gate();
        let mut waiting = gate.drain(host);
        waiting.extend(gate.extract(|claimed| claimed.prepared.target() != Some(host)));
        drop(gate);
        for Claimed { job, prepared, trail, .. } in waiting {
            self.end(job, &trail, true, Ending::Untold, prepared.held(host));
        }
    }

    /// Until something has to be looked at that does not happen by itself.
    fn until_look(&self) -> Duration {
        let now = Instant::now();
        let compare = self.compare_at.saturating_duration_since(now);
        let hosts =
            (self.hosts.gate().waiting() > 0).then(|| (self.claimed_at + HOSTS_EVERY).saturating_duration_since(now));
        compare.min(hosts.unwrap_or(compare)).max(Duration::from_millis(1))
    }

    /// Waits for `future`, and goes on starting and passing on jobs meanwhile.
    async fn work_during<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        loop {
            let next_start = sleep_until(self.hosts.gate().next_start());
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
                Some(()) = self.freed.recv() => self.fill(),
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
        let next_start = sleep_until(self.hosts.gate().next_start());
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
            Some(()) = self.freed.recv() => {}
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
            if let Some(Running { job, host, trail, is_downloading, task, .. }) = self.running.remove(&id) {
                tracing::warn!(
                    job = id_for_logs(&job.payload),
                    "Redis no longer knows that this worker has it; abandoned"
                );
                self.hands.metrics.abandoned();
                // It would hold a place at its host, and nobody would hear of it. What it stored is complete or nothing.
                task.abort();
                self.hands.tally.abandoned(&trail.host().unwrap_or(host));
                if is_downloading {
                    self.downloading -= 1;
                }
                self.lose(&job.field, &trail);
            }
        }
        let dropped = self.hosts.gate().extract(|claimed| fields.contains(&claimed.job.field));
        for claimed in dropped {
            let job = id_for_logs(&claimed.job.payload);
            tracing::warn!(job, "Redis no longer knows that this worker has it; dropped");
            self.hands.metrics.abandoned();
            self.lose(&claimed.job.field, &claimed.trail);
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
        if let Some(claimed) = self.read(job, Instant::now()) {
            let host = Arc::clone(claimed.prepared.host());
            self.hosts.gate().enter(&host);
            self.start(claimed);
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
        let mut rest: Vec<_> = self.running.drain().map(|(_, running)| running).collect();
        if !rest.is_empty() {
            tracing::info!("giving {} jobs back", rest.len());
        }
        rest.sort_by_key(|running| running.job.field.order());
        for Running { job, trail, is_fresh, .. } in rest {
            self.end(job, &trail, is_fresh, Ending::Untold, Settlement::Release);
        }
        // Jobs that Redis holds for this worker and nobody here runs (a suspect that waited for its turn) go back too.
        self.hands.ledger.begin_comparison();
        self.number += 1;
        if let Ok(Reconciled::Holds(jobs)) = self.hands.queue.reconcile(&self.hands.worker, self.number).await {
            for job in self.hands.ledger.unknown(jobs) {
                let (visits, _) = admitted(&job);
                self.end(job, &Trail::of(visits), true, Ending::Untold, Settlement::Release);
            }
        }
    }
}

/// What a claim admitted a job to, and who refuses it.
fn admitted(job: &ClaimedJob) -> (Vec<Visit>, Option<(String, Failure)>) {
    let (mut visits, mut refused) = (Vec::new(), None);
    for Admission { host, start } in &job.admissions {
        let visit = |probe| Visit { host: Arc::from(&**host), probe, is_asked: false };
        match *start {
            Start::After(_) => visits.push(visit(None)),
            Start::Probe(reason) => visits.push(visit(Some(reason))),
            Start::Refused(reason) => refused = Some((host.clone(), reason)),
        }
    }
    (visits, refused)
}

/// A job that a task is at.
struct Running {
    job: ClaimedJob,
    host: Arc<str>,
    trail: Arc<Trail>,
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
