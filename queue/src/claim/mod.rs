//! Claiming jobs under a worker's lease, and finding out afterwards what Redis holds for a worker.

use super::hosts::{ADMISSION, ENTRIES, LINE, LINK, Waiting};
use super::readers::GROUPS;
use super::retention::{KEEP, KEEP_BY_DEFAULT};
use super::tidy::TRIM;
use super::workers::CRASHES;
use super::{LEASE, Queue, WorkerName};
use crate::scripts::{COUNTERS, IN_PARTS, JOBS, NumberOrText, Piece, Reply, TIME, TYPES, WAITING, piece, script};
use common::error::QueueError;
use common::host::HostRate;
use common::job::{JOB_KINDS, SCHEMA_VERSION};
use common::outcome::Failure;
use std::time::Duration;

/// What an element of the queue is as a payload.
const PAYLOAD: Piece = piece!("payload.lua");
/// What claimed jobs are admitted to.
const ADMISSIONS: Piece = piece!("admissions.lua");
/// Which suspects may start.
const TRIALS: Piece = piece!("trials.lua");
/// Which jobs are left to other workers.
const UNKNOWN: Piece = piece!("unknown.lua");
/// How many results there may be.
const RESULTS: Piece = piece!("results.lua");

script! {
    ClaimScript<'a> from "claim.lua";
    with [
        TIME, TYPES, COUNTERS, IN_PARTS, JOBS, CRASHES, KEEP_BY_DEFAULT, KEEP, TRIM, GROUPS, WAITING, LINK, ENTRIES, LINE, ADMISSION, ADMISSIONS, PAYLOAD, UNKNOWN, RESULTS, TRIALS,
    ];
    keys [
        ready_key, delayed_key, inflight_key, workers_key, worker_key, meta_key, crashes_key, results_key, hosts_key, stats_key,
        hosts_held_key, trials_key,
    ];
    args [
        worker: &'a str,
        claim_number: u64,
        jobs_max: usize,
        lease_ms: u64,
        ids_begin: String,
        results_max: u64,
        host_interval_us: u64,
        free_refusals: u32,
        schema: u32,
        kinds: String,
    ], then waiting_from;
    parts [Waiting]
}

script! {
    ReconcileScript<'a> from "reconcile.lua";
    with [TIME, TYPES, JOBS, CRASHES, LINK, ENTRIES];
    keys [inflight_key, workers_key, worker_key, crashes_key, hosts_key, trials_key];
    args [worker: &'a str, claim_number: u64];
}

script! {
    RunAloneScript<'a> from "run_alone.lua";
    with [];
    keys [inflight_key, worker_key];
    args [field: &'a str];
}

/// The field of a job in its worker's in-flight hash, `claim number.index`: its fencing token.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseField(pub(super) String);

impl LeaseField {
    /// The field of the `index`th job, from 1, of a worker's claim. Only a claim makes one that settles anything.
    pub fn new(claim: u64, index: u64) -> LeaseField {
        LeaseField(format!("{claim}.{index}"))
    }

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
    /// How often a worker died of what may have been this job's doing. With 2 it is a suspect; from 3 on it is not run any more.
    pub crashes: u32,
    /// It has to run while its worker runs nothing else, after [`Queue::run_alone`]. Then it was claimed alone.
    pub runs_alone: bool,
    /// The hosts that it may ask, where there is anything to say about hosts: that of its link, and where it waits for the target of a
    /// redirect all that its link led to. One that is [`Start::Refused`] stands alone.
    pub admissions: Vec<Admission>,
}

/// Whether a host may be asked for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// As the scripts name it, which is as [`host_of`](common::host::host_of) does; of a link that is none it may be anything.
    pub host: String,
    /// When.
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
        /// Hosts out of [`ClaimRequest::waiting`] that are to be left alone.
        left_alone: Vec<String>,
        /// What was remembered of these hosts could not be understood, and was dropped.
        dropped: Vec<String>,
        /// What a worker has to know, `version 2` or `kind "slice"`, for jobs that were left to others.
        unknown: Vec<String>,
    },
    /// A newer imgq wrote this queue, of this version: settle what is held, and end.
    Newer(u32),
    /// The queue is paused.
    Paused {
        /// As of jobs.
        left_alone: Vec<String>,
    },
    /// There are as many results as there may be, and their readers have not taken them.
    Full {
        /// As of jobs.
        left_alone: Vec<String>,
    },
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
        let call = ClaimScript {
            ready_key: self.keys.ready(),
            delayed_key: self.keys.delayed(),
            inflight_key: self.keys.inflight(worker.as_str()),
            workers_key: self.keys.workers(),
            worker_key: self.keys.worker(worker.as_str()),
            meta_key: self.keys.meta(),
            crashes_key: self.keys.crashes(),
            results_key: self.keys.results(),
            hosts_key: self.keys.hosts(),
            stats_key: self.keys.stats(),
            hosts_held_key: self.keys.hosts_held(),
            trials_key: self.keys.trials(),
            worker: worker.as_str(),
            claim_number: number,
            jobs_max: request.max.min(JOBS_MAX),
            lease_ms: LEASE.as_millis() as u64,
            // The first 28 digits of ids for bare URLs: no batch, version 8, variant 8, the rest random.
            ids_begin: format!("0000000000008{:03x}8{:011x}", fastrand::u16(..0x1000), fastrand::u64(..1 << 44)),
            results_max: request.results_max.unwrap_or(0),
            host_interval_us: request.host_rate.map_or(0, |rate| rate.interval().as_micros() as u64),
            free_refusals: request.free_refusals,
            schema: SCHEMA_VERSION,
            kinds: JOB_KINDS.join(" "),
        };
        let mut call = call.call();
        for WaitingAt { host, pace } in &request.waiting {
            let pace_ms = pace.map_or(0.0, |pace| (pace.as_secs_f64() * 1000.0).max(0.001));
            Waiting { host, pace_ms }.add_to(&mut call);
        }
        Claim::read(self.channel.run("claim jobs", &call).await?, number)
    }

    /// Lists what Redis holds for a worker, and fences off every claim with a number up to `number` that has not run
    /// yet. For after a claim whose answer was lost, after a reconnect, and every few heartbeats.
    ///
    /// # Errors
    /// As every call.
    pub async fn reconcile(&self, worker: &WorkerName, number: u64) -> Result<Reconciled, QueueError> {
        let call = ReconcileScript {
            inflight_key: self.keys.inflight(worker.as_str()),
            workers_key: self.keys.workers(),
            worker_key: self.keys.worker(worker.as_str()),
            crashes_key: self.keys.crashes(),
            hosts_key: self.keys.hosts(),
            trials_key: self.keys.trials(),
            worker: worker.as_str(),
            claim_number: number,
        };
        Reconciled::read(self.channel.run("compare jobs in flight", &call.call()).await?)
    }

    /// Says that `worker` now runs this suspect and nothing else. `false` when the job is not its any more.
    ///
    /// # Errors
    /// As every call.
    pub async fn run_alone(&self, worker: &WorkerName, field: &LeaseField) -> Result<bool, QueueError> {
        let call = RunAloneScript {
            inflight_key: self.keys.inflight(worker.as_str()),
            worker_key: self.keys.worker(worker.as_str()),
            field: &field.0,
        };
        let mut reply = self.channel.run("mark a job as running alone", &call.call()).await?;
        let is_its = reply.flag("whether the job is the worker's")?;
        reply.end()?;
        Ok(is_its)
    }
}

/// Jobs of one claim at most.
const JOBS_MAX: usize = 1000;

/// What the first word of a claim's reply says.
#[derive(Debug, Clone, Copy)]
enum Status {
    Jobs,
    Paused,
    Full,
    Stale,
    Reaped,
    Newer,
}

const STATUSES: &[(&str, Status)] = &[
    ("ok", Status::Jobs),
    ("paused", Status::Paused),
    ("full", Status::Full),
    ("stale", Status::Stale),
    ("reaped", Status::Reaped),
    ("schema", Status::Newer),
];

impl Claim {
    fn read(mut reply: Reply, number: u64) -> Result<Claim, QueueError> {
        let claim = match reply.word("the status of a claim", STATUSES)? {
            Status::Jobs => Claim::read_jobs(&mut reply, number)?,
            Status::Paused => Claim::Paused { left_alone: reply.texts("hosts that are left alone")? },
            Status::Full => Claim::Full { left_alone: reply.texts("hosts that are left alone")? },
            Status::Stale => Claim::Stale,
            Status::Reaped => Claim::Reaped,
            Status::Newer => Claim::Newer(reply.count("the queue's schema")?),
        };
        reply.end()?;
        Ok(claim)
    }

    fn read_jobs(reply: &mut Reply, number: u64) -> Result<Claim, QueueError> {
        let next_due_ms = reply.count_unless_minus_one("ms until a delayed job is due, or -1")?;
        let more = reply.flag("whether there are more")?;
        let runs_alone = reply.flag("whether the job has to run alone")?;
        let left_alone = reply.texts("hosts that are left alone")?;
        // Of an entry that nobody understands the name may be as bad.
        let dropped = reply.texts("hosts that were dropped")?;
        let mut claimed = reply.list("jobs")?;
        let mut jobs = Vec::with_capacity(claimed.len() / 3);
        while claimed.len() > 0 {
            jobs.push(ClaimedJob {
                field: LeaseField::new(number, jobs.len() as u64 + 1),
                payload: claimed.bytes("a job's payload")?,
                crashes: claimed.count("a job's crashes")?,
                runs_alone,
                admissions: Admission::read(claimed.list_or_0("what a job is admitted to")?)?,
            });
        }
        let unknown = reply.texts("what a worker has to know")?;
        Ok(Claim::Jobs { unknown, jobs, next_due: next_due_ms.map(Duration::from_millis), more, left_alone, dropped })
    }
}

impl Admission {
    /// Hosts and starts in turn.
    fn read(mut reply: Reply) -> Result<Vec<Admission>, QueueError> {
        let mut admissions = Vec::with_capacity(reply.len() / 2);
        while reply.len() > 0 {
            let host = reply.text("a host that a job is admitted to")?;
            admissions.push(Admission { host, start: Start::read(&mut reply)? });
        }
        Ok(admissions)
    }
}

impl Start {
    fn read(reply: &mut Reply) -> Result<Start, QueueError> {
        Ok(Start::of(reply.number_or_text("when a host may be asked")?))
    }

    /// The same, or an empty text for none.
    pub(super) fn read_or_none(reply: &mut Reply) -> Result<Option<Start>, QueueError> {
        let start = reply.number_or_text("when a host may be asked, or nothing")?;
        Ok(if start == NumberOrText::Text(String::new()) { None } else { Some(Start::of(start)) })
    }

    fn of(word: NumberOrText) -> Start {
        // A reason of a later version, which lies in `hosts`, is still a reason not to ask.
        let reason = |text: &str| text.parse().unwrap_or(Failure::RateLimited);
        match word {
            NumberOrText::Number(ms) => Start::After(Duration::from_millis(ms)),
            NumberOrText::Text(text) => match text.strip_prefix('?') {
                Some(probed) => Start::Probe(reason(probed)),
                None => Start::Refused(reason(&text)),
            },
        }
    }
}

impl Reconciled {
    fn read(mut reply: Reply) -> Result<Reconciled, QueueError> {
        let is_registered = reply.word("whether the worker is registered", &[("ok", true), ("reaped", false)])?;
        if !is_registered {
            reply.end()?;
            return Ok(Reconciled::Reaped);
        }
        let mut held = reply.list("jobs")?;
        reply.end()?;
        let mut jobs = Vec::with_capacity(held.len() / 5);
        while held.len() > 0 {
            jobs.push(ClaimedJob {
                field: LeaseField(held.text("a job's field")?),
                payload: held.bytes("a job's payload")?,
                crashes: held.count("a job's crashes")?,
                runs_alone: held.flag("whether a job has to run alone")?,
                admissions: Admission::read(held.list("what a job tries for all others")?)?,
            });
        }
        Ok(Reconciled::Holds(jobs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripts::probe::{takes_only, word};
    use redis::Value::{Array, Int};

    #[test]
    fn a_claim_is_read_whole_or_not_at_all() {
        let names = |names: &[&str]| Array(names.iter().map(|name| word(name)).collect());
        let jobs = |of_job: &[redis::Value]| {
            let jobs = Array(of_job.to_vec());
            [word("ok"), Int(-1), Int(1), Int(1), names(&["a.org"]), names(&[]), jobs, names(&["version 2"])]
        };
        let read = |reply| Claim::read(reply, 7);
        let at = |admissions: &[redis::Value]| Array(admissions.to_vec());
        let both = at(&[word("a"), Int(30), word("b"), word("rate_limited")]);
        let Claim::Jobs { jobs: claimed, next_due, more, left_alone, dropped, unknown } =
            takes_only(read, &jobs(&[word("{}"), Int(2), at(&[word("a"), word("?dns")]), word("x"), Int(0), both]))
        else {
            panic!("jobs")
        };
        assert_eq!((next_due, more, left_alone, dropped.len()), (None, true, vec!["a.org".to_owned()], 0));
        assert_eq!(unknown, ["version 2"]);
        let told: Vec<_> = claimed.iter().map(|job| (job.field.0.as_str(), job.crashes, job.runs_alone)).collect();
        assert_eq!(told, [("7.1", 2, true), ("7.2", 0, true)]);
        let admission = |host: &str, start| Admission { host: host.into(), start };
        assert_eq!(claimed[0].admissions, [admission("a", Start::Probe(Failure::Dns))]);
        let after = Start::After(Duration::from_millis(30));
        assert_eq!(
            claimed[1].admissions,
            [admission("a", after), admission("b", Start::Refused(Failure::RateLimited))]
        );
        // A job that is not whole.
        for of_job in [
            &[word("{}"), Int(0)][..],
            &[word("{}"), word("0"), at(&[])],
            &[Int(1), Int(0), at(&[])],
            &[word("{}"), Int(0), at(&[Int(1)])],
        ] {
            let reply = Reply::of("test", Array(jobs(of_job).to_vec())).expect("a list");
            assert!(read(reply).is_err(), "{of_job:?}");
        }
    }

    #[test]
    fn a_claim_without_jobs_says_why_in_a_word_that_is_known() {
        let read = |reply| Claim::read(reply, 7);
        for (status, claim) in [("stale", Claim::Stale), ("reaped", Claim::Reaped)] {
            assert_eq!(takes_only(read, &[word(status)]), claim);
        }
        assert_eq!(takes_only(read, &[word("schema"), Int(2)]), Claim::Newer(2));
        let left_alone = vec!["x.org".to_owned()];
        let hosts = Array(vec![word("x.org")]);
        let paused = Claim::Paused { left_alone: left_alone.clone() };
        for (status, claim) in [("paused", paused), ("full", Claim::Full { left_alone })] {
            assert_eq!(takes_only(read, &[word(status), hosts.clone()]), claim);
        }
    }

    #[test]
    fn what_redis_holds_is_read_whole_or_not_at_all() {
        let held = takes_only(
            Reconciled::read,
            &[word("ok"), Array(vec![word("1.1"), word("{}"), Int(3), Int(0), Array(Vec::new())])],
        );
        let Reconciled::Holds(jobs) = held else { panic!("registered") };
        assert_eq!((jobs[0].field.0.as_str(), jobs[0].crashes), ("1.1", 3));
        assert_eq!(takes_only(Reconciled::read, &[word("reaped")]), Reconciled::Reaped);
    }
}
