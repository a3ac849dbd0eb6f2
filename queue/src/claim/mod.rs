//! Claiming jobs under a worker's lease, and finding out afterwards what Redis holds for a worker.

use super::{LEASE, Queue, WorkerName, script};
use common::error::QueueError;
use common::host::HostRate;
use common::outcome::Failure;
use std::time::Duration;

/// The field of a job in its worker's in-flight hash, `claim number.index`: its fencing token.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseField(pub(super) String);

impl LeaseField {
    /// Sorts fields as their jobs were claimed.
    pub fn order(&self) -> (u64, u64) {
        let (claim, index) = self.0.split_once('.').unwrap_or((&self.0, ""));
        (claim.parse().unwrap_or(0), index.parse().unwrap_or(0))
    }
}

/// A job under this worker's lease, as its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedJob {
    /// What settles it.
    pub field: LeaseField,
    /// The element of the queue; a bare URL has got its id.
    pub payload: Vec<u8>,
    /// How often a worker died while it had this job. From 2 on it has to run alone; from 3 on it is not run any more.
    pub crashes: u32,
    /// When it may start.
    pub start: Start,
}

/// When a claimed job may start, by what the fleet knows of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// So long after the claim; zero at once.
    After(Duration),
    /// At once, and all jobs of the host, which was left alone for this reason, wait for what it finds out:
    /// [`HostNews`](super::HostNews).
    Probe(Failure),
    /// Not at all: the host has refused so many in a row, for this reason, that waiting costs an attempt now.
    Refused(Failure),
}

/// What a worker asks for.
#[derive(Debug, Clone, Default)]
pub struct ClaimRequest {
    /// Jobs at most, up to 1,000. With 0 the lease is renewed, and [`Claim::Jobs::left_alone`] is told.
    pub max: usize,
    /// Nothing is claimed beyond what would make that many results; before that, those are trimmed that every reader has
    /// taken. Jobs in flight elsewhere are not counted, so the stream can grow beyond it by those.
    pub results_max: Option<u64>,
    /// Kept over the whole fleet, as long as every worker asks for the same.
    pub host_rate: Option<HostRate>,
    /// Refusals (429) of a host in a row up to which waiting for it costs no attempt.
    pub free_refusals: u32,
    /// Hosts whose jobs wait in the worker.
    pub waiting: Vec<WaitingAt>,
}

/// A host whose jobs wait in the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingAt {
    /// As [`host_of`](common::host::host_of) names it.
    pub host: String,
    /// Set when it has more than it gets done there soon: the time between two jobs that it gets done. Further ones are put
    /// in `delayed`, one after another that far apart.
    pub pace: Option<Duration>,
}

impl ClaimRequest {
    /// Up to `max` jobs, without any bound, rate or wish.
    pub fn of(max: usize) -> ClaimRequest {
        ClaimRequest { max, ..ClaimRequest::default() }
    }
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Up to as many jobs as were asked for.
    Jobs {
        /// The jobs.
        jobs: Vec<ClaimedJob>,
        /// Until the next delayed job is due.
        next_due: Option<Duration>,
        /// Whether there may be others behind those that were looked at: jobs were put aside whose hosts cannot take them now, or
        /// they were so large that fewer were looked at.
        more: bool,
        /// Whether so many wait already that some went to the end of the queue instead.
        rotated: bool,
        /// Hosts out of [`ClaimRequest::waiting`] that are to be left alone.
        left_alone: Vec<String>,
        /// What was remembered of these hosts could not be understood, and was dropped.
        dropped: Vec<String>,
    },
    /// The queue is paused.
    Paused,
    /// There are as many results as there may be, and their readers have not taken them.
    Full,
    /// A later claim was here first; claim again with a higher number.
    Stale,
    /// The worker was taken for dead, and its jobs are elsewhere: abandon everything, take a fresh name.
    Reaped,
}

/// What Redis holds for a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reconciled {
    /// All jobs in flight.
    Holds(Vec<ClaimedJob>),
    /// The worker was taken for dead.
    Reaped,
}

impl Queue {
    /// Claims jobs, and renews the lease. Jobs whose host cannot take them now are put in `delayed` on the way.
    ///
    /// `number` must be higher than that of any claim or [`Queue::reconcile`] of this worker before.
    ///
    /// # Errors
    /// As every call. The jobs may be claimed all the same: ask [`Queue::reconcile`] with the next number.
    pub async fn claim(&self, worker: &WorkerName, number: u64, request: &ClaimRequest) -> Result<Claim, QueueError> {
        let script = script!("claim", hosts);
        let mut call = script.prepare_invoke();
        call.key(self.keys.ready())
            .key(self.keys.delayed())
            .key(self.keys.inflight(worker.as_str()))
            .key(self.keys.workers())
            .key(self.keys.worker(worker.as_str()))
            .key(self.keys.meta())
            .key(self.keys.crashes())
            .key(self.keys.results())
            .key(self.keys.hosts())
            .key(self.keys.stats());
        // The first 28 digits of ids for bare URLs: no batch, version 8, variant 8, the rest random.
        let seed = format!("0000000000008{:03x}8{:011x}", fastrand::u16(..0x1000), fastrand::u64(..1 << 44));
        call.arg(worker.as_str()).arg(number).arg(request.max.min(1000)).arg(LEASE.as_millis() as u64).arg(seed);
        call.arg(request.results_max.unwrap_or(0));
        call.arg(request.host_rate.map_or(0, |rate| rate.interval().as_micros() as u64));
        call.arg(request.free_refusals);
        for WaitingAt { host, pace } in &request.waiting {
            call.arg(host).arg(pace.map_or(0.0, |pace| (pace.as_secs_f64() * 1000.0).max(0.001)));
        }
        let reply: Vec<redis::Value> = self.channel.invoke("claim jobs", &call).await?;
        let mut reply = reply.into_iter();
        let status: String = reply.next().and_then(|v| redis::from_redis_value(v).ok()).unwrap_or_default();
        Ok(match status.as_str() {
            "paused" => Claim::Paused,
            "full" => Claim::Full,
            "stale" => Claim::Stale,
            "reaped" => Claim::Reaped,
            _ => {
                let mut number_next = || reply.next().and_then(|v| redis::from_redis_value::<i64>(v).ok());
                let next_due = number_next().and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
                let (more, rotated) = (number_next() == Some(1), number_next() == Some(1));
                let mut names_next = || -> Vec<String> {
                    let names = reply.next().and_then(|v| redis::from_redis_value::<Vec<Vec<u8>>>(v).ok());
                    // Of an entry that nobody understands the name may be as bad.
                    names.into_iter().flatten().map(|name| String::from_utf8_lossy(&name).into_owned()).collect()
                };
                let (left_alone, dropped) = (names_next(), names_next());
                let mut jobs = Vec::with_capacity(reply.len() / 3);
                while let (Some(payload), Some(crashes), Some(start)) = (reply.next(), reply.next(), reply.next()) {
                    jobs.push(ClaimedJob {
                        field: LeaseField(format!("{number}.{}", jobs.len() + 1)),
                        payload: redis::from_redis_value(payload).unwrap_or_default(),
                        crashes: redis::from_redis_value(crashes).unwrap_or(0),
                        start: read_start(start),
                    });
                }
                Claim::Jobs { jobs, next_due, more, rotated, left_alone, dropped }
            }
        })
    }

    /// Lists what Redis holds for a worker, and fences off every claim with a number up to `number` that has not run
    /// yet. For after a claim whose answer was lost, after a reconnect, and every few heartbeats.
    ///
    /// # Errors
    /// As every call.
    pub async fn reconcile(&self, worker: &WorkerName, number: u64) -> Result<Reconciled, QueueError> {
        let script = script!("reconcile");
        let mut call = script.prepare_invoke();
        call.key(self.keys.inflight(worker.as_str()))
            .key(self.keys.workers())
            .key(self.keys.worker(worker.as_str()))
            .key(self.keys.crashes())
            .arg(worker.as_str())
            .arg(number);
        let reply: Vec<redis::Value> = self.channel.invoke("compare jobs in flight", &call).await?;
        let mut reply = reply.into_iter();
        let registered: u8 = reply.next().and_then(|v| redis::from_redis_value(v).ok()).unwrap_or(0);
        if registered == 0 {
            return Ok(Reconciled::Reaped);
        }
        let mut jobs = Vec::with_capacity(reply.len() / 3);
        while let (Some(field), Some(payload), Some(crashes)) = (reply.next(), reply.next(), reply.next()) {
            jobs.push(ClaimedJob {
                field: LeaseField(redis::from_redis_value(field).unwrap_or_default()),
                payload: redis::from_redis_value(payload).unwrap_or_default(),
                crashes: redis::from_redis_value(crashes).unwrap_or(0),
                start: Start::After(Duration::ZERO),
            });
        }
        Ok(Reconciled::Holds(jobs))
    }

    /// Says that `worker` now runs this suspect and nothing else. `false` when the job is not its any more.
    ///
    /// # Errors
    /// As every call.
    pub async fn run_alone(&self, worker: &WorkerName, field: &LeaseField) -> Result<bool, QueueError> {
        let script = script!("run_alone");
        let mut call = script.prepare_invoke();
        call.key(self.keys.inflight(worker.as_str())).key(self.keys.worker(worker.as_str())).arg(&field.0);
        self.channel.invoke("mark a job as running alone", &call).await
    }
}

fn read_start(value: redis::Value) -> Start {
    if let redis::Value::Int(ms) = value {
        return Start::After(Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
    }
    let text: String = redis::from_redis_value(value).unwrap_or_default();
    // A reason of a later version is still a reason not to ask.
    let reason = |text: &str| text.parse().unwrap_or(Failure::RateLimited);
    match text.strip_prefix('?') {
        Some(probed) => Start::Probe(reason(probed)),
        None => Start::Refused(reason(&text)),
    }
}
