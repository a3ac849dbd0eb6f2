//! The queue against a model of it in memory: random sequences of what programs, people and accidents do to a queue, and
//! after each step one atomic look at the whole of it, which has to be what the model says.
//!
//! The model is the contract, not the scripts: what each operation has to do to each job, without keys, arguments and
//! order of commands. Times are Redis' own: a look checks that they lie where they have to, and the model takes them over.

use ::queue::{
    Chunk, Claim, ClaimRequest, ClaimedJob, DeadAction, LEASE, LeaseField, OpenBatch, Queue, Reconciled, Settlement,
    WorkerName,
};
use common::error::QueueError;
use common::job::{BatchId, Job, JobId};
use common::media::MediaType;
use common::outcome::{Failure, Outcome, Rejection};
use common::report::{Report, StoredObject};
use harness::{RawQueue, Redis};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestError, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

/// The end of a test case that is as it should be, or why it is not.
type Checked<T = ()> = Result<T, TestCaseError>;
/// A field of an in-flight hash: claim number and index.
type Order = (u64, u64);
type Counters = BTreeMap<String, i64>;

const WORKERS: usize = 3;
const BATCHES: usize = 2;
const LINKS: usize = 10;
const LEASE_MS: u64 = LEASE.as_millis() as u64;
/// Far longer than a case takes.
const LATER: Duration = Duration::from_secs(3600);

// ---------------------------------------------------------------------------------------------- What can happen

/// One step.
#[derive(Debug, Clone)]
enum Op {
    Open(usize),
    Push {
        batch: usize,
        links: Vec<usize>,
        dedup: bool,
    },
    /// A chunk that was pushed before, counted back from the last.
    PushAgain {
        batch: usize,
        back: usize,
    },
    /// A chunk whose predecessor is not there.
    PushGap(usize),
    /// A bare URL, as a person pushes it.
    PushBare(usize),
    Seal(usize),
    By(Who, Deed),
    /// Nobody hears of the worker for a lease.
    LeaseEnds(Who),
    /// Redis' clock was set back.
    LeaseFarAway(Who),
    Recover(Who),
    /// The worker dies, is recovered, and its successor starts.
    Crash(Who),
    /// The worker is killed and started again; its lease goes on.
    Restart(usize),
    /// The worker enters under a fresh name, if its name was struck off.
    Register(usize),
    /// Nobody ticked for long.
    Silence,
    /// Time passes for so many delayed jobs.
    MakeDue(usize),
    Pause(bool),
    /// What to do with which of each four dead jobs, by bits; and the same call again.
    Dead {
        action: DeadAction,
        which: u8,
    },
}

/// One of the workers.
#[derive(Debug, Clone, Copy)]
enum Who {
    /// Under its name of today.
    Now(usize),
    /// Under the name that it had before.
    Past(usize),
    /// One that holds jobs; nothing happens where there is none.
    Busy(usize),
}

#[derive(Debug, Clone)]
enum Deed {
    Claim(usize),
    /// The answer is lost; the next thing that this worker does is to compare.
    ClaimUnheard(usize),
    /// With a number so far below the last one.
    ClaimLate(u64),
    /// What becomes of the jobs it holds, in the order of their claims; with `strangers`, jobs of others, jobs settled long
    /// ago and a field that nobody gave out are settled in the same call, and its own twice.
    Settle {
        choices: Vec<Choice>,
        strangers: bool,
    },
    SettleAgain,
    Heartbeat,
    Reconcile,
    /// The suspect that it holds alone; without one, jobs that are not its own.
    RunAlone,
    Unregister,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Choice {
    Keep,
    Store,
    Exists,
    Reject,
    Fail,
    RetryNow,
    RetryLater,
    Release,
}

fn choice() -> impl Strategy<Value = Choice> {
    use Choice::*;
    prop_oneof![
        2 => Just(Keep), 2 => Just(Store), 1 => Just(Exists), 1 => Just(Reject), 3 => Just(Fail), 2 => Just(RetryNow),
        2 => Just(RetryLater), 3 => Just(Release)
    ]
}

fn who(past: u32, busy: u32) -> impl Strategy<Value = Who> {
    prop_oneof![
        2 => (0..WORKERS).prop_map(Who::Now),
        past => (0..WORKERS).prop_map(Who::Past),
        busy => (0..WORKERS).prop_map(Who::Busy),
    ]
}

fn by(who: impl Strategy<Value = Who>, deed: impl Strategy<Value = Deed>) -> impl Strategy<Value = Op> {
    (who, deed).prop_map(|(who, deed)| Op::By(who, deed))
}

/// Simple ones first: shrinking goes that way. The weights are such that jobs come to three crashes now and then.
fn op() -> impl Strategy<Value = Op> {
    let push = (0..BATCHES, prop::collection::vec(0..LINKS, 0..8), any::<bool>())
        .prop_map(|(batch, links, dedup)| Op::Push { batch, links, dedup });
    let push_again = (0..BATCHES, 0..3usize).prop_map(|(batch, back)| Op::PushAgain { batch, back });
    let pushing = prop_oneof![
        3 => (0..LINKS).prop_map(Op::PushBare),
        1 => (0..BATCHES).prop_map(Op::Open),
        8 => push,
        1 => push_again,
        1 => (0..BATCHES).prop_map(Op::PushGap),
        1 => (0..BATCHES).prop_map(Op::Seal),
    ];
    let settle = (prop::collection::vec(choice(), 0..6), prop::bool::weighted(0.2))
        .prop_map(|(choices, strangers)| Deed::Settle { choices, strangers });
    let working = prop_oneof![
        12 => by(who(0, 0), (0..=5usize).prop_map(Deed::Claim)),
        4 => by(who(0, 0), (1..=5usize).prop_map(Deed::ClaimUnheard)),
        1 => by(who(1, 0), (0..=5usize).prop_map(Deed::Claim)),
        1 => by(who(1, 1), (0..3u64).prop_map(Deed::ClaimLate)),
        12 => by(who(1, 12), settle),
        1 => by(who(1, 3), Just(Deed::SettleAgain)),
        1 => by(who(1, 1), Just(Deed::Reconcile)),
        8 => by(who(1, 16), Just(Deed::RunAlone)),
    ];
    let living = prop_oneof![
        4 => (0..WORKERS).prop_map(Op::Register),
        4 => by(who(1, 1), Just(Deed::Heartbeat)),
        1 => by(who(1, 1), Just(Deed::Unregister)),
        12 => who(0, 12).prop_map(Op::Crash),
        2 => who(1, 2).prop_map(Op::LeaseEnds),
        4 => who(2, 2).prop_map(Op::Recover),
        1 => (0..WORKERS).prop_map(Op::Restart),
        2 => who(0, 1).prop_map(Op::LeaseFarAway),
        1 => Just(Op::Silence),
    ];
    let dead_action = prop_oneof![2 => Just(DeadAction::Retry), 1 => Just(DeadAction::Drop)];
    let others = prop_oneof![
        6 => (1..4usize).prop_map(Op::MakeDue),
        1 => Just(Op::Pause(true)),
        6 => Just(Op::Pause(false)),
        6 => (dead_action, 1..16u8).prop_map(|(action, which)| Op::Dead { action, which }),
    ];
    prop_oneof![4 => pushing, 10 => working, 6 => living, 2 => others]
}

// ---------------------------------------------------------------------------------------------- What there is

/// The whole of a queue at one instant, as it is read and as the model has it. Counters of zero are left out; workers go by
/// labels that are the same in every run.
#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    ready: Vec<String>,
    in_flight: BTreeMap<String, BTreeMap<Order, String>>,
    /// With the time when they are due.
    delayed: BTreeMap<String, u64>,
    results: Vec<String>,
    dead: Vec<String>,
    stats: Counters,
    batches: BTreeMap<usize, Counters>,
    crashes: Counters,
    /// With their expiry.
    workers: BTreeMap<String, u64>,
    /// The job that a worker runs alone.
    alone: BTreeMap<String, Order>,
    /// Those of whom anything is written down.
    described: BTreeSet<String>,
    tick: u64,
    paused: bool,
}

impl State {
    /// What is not as `self` has it, in words.
    fn differences(&self, found: &State) -> String {
        let mut told = String::new();
        macro_rules! compare {
            ($($part:ident),+) => {$(
                if self.$part != found.$part {
                    let part = stringify!($part);
                    told += &format!("\n  {part} has to be {:?}\n  {part} is        {:?}", self.$part, found.$part);
                }
            )+};
        }
        compare!(ready, in_flight, delayed, results, dead, stats, batches, crashes, workers, alone, described);
        compare!(tick, paused);
        told
    }

    /// Every element that waits or is worked on.
    fn elements(&self) -> impl Iterator<Item = &String> {
        let in_flight = self.in_flight.values().flat_map(BTreeMap::values);
        self.ready.iter().chain(self.delayed.keys()).chain(in_flight)
    }
}

/// Something that the program under test decides, within bounds: the next look checks it and takes it over.
#[derive(Debug)]
enum Pending {
    /// A lease from now.
    Lease(String),
    /// A delayed job, so many ms from now.
    Due(String, u64),
    Tick,
    /// The id of a bare URL that was claimed.
    Id(String, Order),
}

/// What the contract says a queue is.
#[derive(Debug, Default)]
struct Model {
    state: State,
    now: u64,
    pending: Vec<Pending>,
    /// The highest number of each worker's claims and comparisons.
    numbers: BTreeMap<String, u64>,
    /// Links that dedup knows.
    seen: BTreeSet<String>,
    /// Every id that ever was in the queue, and how often its job was retried from the dead letters.
    ids: BTreeMap<String, usize>,
    /// Bare URLs that were pushed, and those of them that have an id by now.
    bare: (usize, usize),
    /// Payloads of the dead, as they stand beside `state.dead`.
    dead_jobs: Vec<(Job, &'static str)>,
    /// What each chunk of each batch brought.
    chunks: BTreeMap<usize, Vec<(u64, u64)>>,
}

fn count(counters: &mut Counters, name: &str, by: i64) {
    *counters.entry(name.to_owned()).or_default() += by;
    counters.retain(|_, n| *n != 0);
}

fn link(n: usize) -> String {
    format!("https://x.org/{n}.jpg")
}

fn batch_id(n: usize) -> BatchId {
    BatchId::from_random(n as u64 + 1)
}

fn batch_of(id: JobId) -> Option<usize> {
    (0..BATCHES).find(|n| id.batch() == Some(batch_id(*n)))
}

fn job_of(payload: &str) -> Job {
    Job::read(payload.as_bytes(), 0).unwrap()
}

fn is_bare(payload: &str) -> bool {
    !payload.starts_with('{')
}

/// The id of an element, which a bare one has not got yet. Cut out, as reading all elements at each look takes a while.
fn id_of(payload: &str) -> Option<&str> {
    payload.strip_prefix(r#"{"id":""#)?.get(..32)
}

/// What is compared of an entry of `results` or `dead`.
fn line<'a>(field: impl Fn(&str) -> Option<&'a str>, worker: &str) -> String {
    let named = ["id", "url", "outcome", "reason", "bytes", "attempts", "batch", "job"];
    let words: Vec<String> = named.iter().filter_map(|name| Some(format!("{name}={}", field(name)?))).collect();
    format!("{} worker={worker}", words.join(" "))
}

impl Model {
    fn renew(&mut self, worker: &str) {
        self.state.workers.insert(worker.to_owned(), 0);
        self.pending.push(Pending::Lease(worker.to_owned()));
    }

    fn register(&mut self, worker: &str) {
        self.renew(worker);
        self.numbers.insert(worker.to_owned(), 0);
    }

    fn is_registered(&self, worker: &str) -> bool {
        self.state.workers.contains_key(worker)
    }

    fn strike_off(&mut self, worker: &str) {
        self.state.workers.remove(worker);
        self.state.alone.remove(worker);
        self.numbers.remove(worker);
    }

    fn lease_is_over(&self, worker: &str) -> bool {
        self.state.workers.get(worker).is_some_and(|expiry| *expiry <= self.now)
    }

    fn held_by(&self, worker: &str) -> BTreeMap<Order, String> {
        self.state.in_flight.get(worker).cloned().unwrap_or_default()
    }

    fn take_from(&mut self, worker: &str, field: Order) -> Option<String> {
        let held = self.state.in_flight.get_mut(worker)?;
        let payload = held.remove(&field);
        if held.is_empty() {
            self.state.in_flight.remove(worker);
        }
        payload
    }

    fn crashes_of(&self, payload: &str) -> i64 {
        id_of(payload).and_then(|id| self.state.crashes.get(id).copied()).unwrap_or(0)
    }

    fn put_in_front(&mut self, payloads: impl IntoIterator<Item = String>) {
        self.state.ready.splice(0..0, payloads);
    }

    /// A chunk is added once and in its turn; dedup leaves out what it knows, within the chunk as well.
    fn push(&mut self, batch: usize, chunk: &Chunk) -> Result<(u64, u64), Refused> {
        let added = self.chunks.get(&batch).ok_or(Refused::NoSuchBatch)?;
        let last = added.len() as u64;
        match chunk.number {
            number if number > last + 1 => return Err(Refused::Gap(last + 1)),
            // The last two are remembered, as an enqueuer may have to repeat two.
            number if number + 1 < last => return Ok((0, 0)),
            number if number <= last => return Ok(added[number as usize - 1]),
            _ => {}
        }
        let (mut enqueued, mut duplicates) = (0, 0);
        for job in &chunk.jobs {
            if chunk.dedup && !self.seen.insert(job.url.clone()) {
                duplicates += 1;
            } else {
                enqueued += 1;
                self.state.ready.push(job.write());
                self.ids.insert(job.id.to_string(), 0);
            }
        }
        self.chunks.entry(batch).or_default().push((enqueued, duplicates));
        let counters = self.state.batches.entry(batch).or_default();
        count(counters, "enqueued", enqueued as i64);
        count(counters, "duplicates", duplicates as i64);
        count(&mut self.state.stats, "enqueued", enqueued as i64);
        Ok((enqueued, duplicates))
    }

    /// Due delayed jobs first, the longest due before others, then the front; a suspect alone, and nothing past one.
    fn claim(&mut self, worker: &str, number: u64, max: usize) -> Claimed {
        if !self.is_registered(worker) {
            return Claimed::Reaped;
        }
        if number <= self.numbers[worker] {
            return Claimed::Stale;
        }
        self.numbers.insert(worker.to_owned(), number);
        self.renew(worker);
        if self.state.paused {
            return Claimed::Paused;
        }
        let mut jobs = Vec::new();
        while jobs.len() < max {
            let due = self.state.delayed.iter().filter(|(_, at)| **at <= self.now);
            let first_due = due.min_by_key(|(payload, at)| (**at, *payload)).map(|(payload, _)| payload.clone());
            let Some(payload) = first_due.clone().or_else(|| self.state.ready.first().cloned()) else { break };
            let crashes = self.crashes_of(&payload);
            if crashes >= 2 && !jobs.is_empty() {
                break;
            }
            match first_due {
                Some(payload) => drop(self.state.delayed.remove(&payload)),
                None => drop(self.state.ready.remove(0)),
            }
            let field = (number, jobs.len() as u64 + 1);
            if is_bare(&payload) {
                self.pending.push(Pending::Id(worker.to_owned(), field));
            }
            self.state.in_flight.entry(worker.to_owned()).or_default().insert(field, payload);
            jobs.push((field, crashes));
            if crashes >= 2 {
                break;
            }
        }
        Claimed::Jobs(jobs)
    }

    /// Acts on what the worker holds and on nothing else. What is given back is at the front again, in its order.
    fn settle(&mut self, worker: &str, settlements: &[(LeaseField, Settlement)]) -> Vec<bool> {
        let mut given_back = Vec::new();
        let mut accepted = Vec::new();
        for (field, settlement) in settlements {
            let Some(payload) = self.take_from(worker, field.order()) else {
                accepted.push(false);
                continue;
            };
            accepted.push(true);
            if self.state.alone.get(worker) == Some(&field.order()) {
                self.state.alone.remove(worker);
            }
            // An attempt that came to an end clears the job of the crashes it was there at.
            if !matches!(settlement, Settlement::Release) {
                self.state.crashes.remove(&job_of(&payload).id.to_string());
            }
            match settlement {
                // The generator makes none: when a held job comes back depends on its host, which `hosts` tests.
                Settlement::Hold { .. } => unreachable!("no operation holds a job"),
                Settlement::Report(report) => self.finish(worker, report, payload),
                Settlement::Retry { job, after } => {
                    self.state.delayed.insert(job.write(), 0);
                    self.pending.push(Pending::Due(job.write(), after.as_millis() as u64));
                    count(&mut self.state.stats, "retried", 1);
                }
                Settlement::Release => {
                    given_back.push(payload);
                    count(&mut self.state.stats, "released", 1);
                }
            }
        }
        self.put_in_front(given_back);
        accepted
    }

    /// One result; a failed job is among the dead too, and its link may be enqueued again.
    fn finish(&mut self, worker: &str, report: &Report, payload: String) {
        let (outcome, reason) = (report.outcome.name(), report.outcome.reason());
        let bytes = report.object.as_ref().map_or(0, |object| object.bytes);
        let mut fields: BTreeMap<&str, String> = BTreeMap::from([
            ("id", report.id.to_string()),
            ("url", report.url.clone()),
            ("outcome", outcome.to_owned()),
            ("reason", reason.to_owned()),
            ("attempts", report.attempts.to_string()),
        ]);
        fields.retain(|_, value| !value.is_empty());
        if report.object.is_some() {
            fields.insert("bytes", bytes.to_string());
        }
        if let Some(batch) = report.id.batch() {
            fields.insert("batch", batch.to_string());
        }
        self.state.results.push(line(|name| fields.get(name).map(String::as_str), worker));
        if outcome == "failed" {
            self.dead_jobs.push((job_of(&payload), reason));
            fields.insert("job", payload);
            self.state.dead.push(line(|name| fields.get(name).map(String::as_str), worker));
            self.seen.remove(&report.url);
        }
        let batch = batch_of(report.id).and_then(|batch| self.state.batches.get_mut(&batch));
        for counters in [Some(&mut self.state.stats), batch].into_iter().flatten() {
            count(counters, outcome, 1);
            count(counters, "bytes", bytes as i64);
            if !reason.is_empty() {
                count(counters, &format!("{outcome}:{reason}"), 1);
            }
        }
        if let Some(batch) = batch_of(report.id).and_then(|batch| self.state.batches.get_mut(&batch))
            && outcome != "stored"
        {
            // All links are of one host.
            count(batch, "host:x.org", 1);
        }
    }

    /// The jobs of a dead worker are at the front again, in the order of their claims. The job that ran alone is to blame
    /// alone; otherwise all are, but for suspects, which only waited.
    fn recover(&mut self, worker: &str) -> Option<u64> {
        if !self.lease_is_over(worker) {
            return None;
        }
        let jobs = self.state.in_flight.remove(worker).unwrap_or_default();
        let alone = self.state.alone.get(worker).copied();
        for (field, payload) in &jobs {
            let to_blame = alone.map_or_else(|| self.crashes_of(payload) < 2, |alone| alone == *field);
            if let Some(id) = id_of(payload).filter(|_| to_blame) {
                count(&mut self.state.crashes, id, 1);
            }
        }
        let number = jobs.len();
        count(&mut self.state.stats, "recovered", number as i64);
        self.put_in_front(jobs.into_values());
        self.strike_off(worker);
        Some(number as u64)
    }

    /// After a silence everybody gets a lease; so does whoever's expiry is further away than that, and the worker itself.
    /// Returns whether it is alive, and those whose lease is over.
    fn heartbeat(&mut self, worker: &str) -> (bool, BTreeSet<String>) {
        let silence = self.now - self.state.tick > LEASE_MS / 2;
        let far_away = self.now + LEASE_MS;
        let renewed = self.state.workers.iter().filter(|(name, at)| silence || **at > far_away || *name == worker);
        for name in renewed.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.renew(&name);
        }
        self.pending.push(Pending::Tick);
        let over = self.state.workers.iter().filter(|(_, at)| **at > 0 && **at <= self.now);
        (self.is_registered(worker), over.map(|(name, _)| name.clone()).collect())
    }

    fn unregister(&mut self, worker: &str) -> bool {
        if !self.held_by(worker).is_empty() {
            return false;
        }
        self.strike_off(worker);
        true
    }

    /// Back on the queue, at its end, with all attempts unspent; it is not `failed` any more, and dedup knows its link.
    fn settle_dead(&mut self, action: DeadAction, which: &[usize]) {
        for at in which.iter().rev() {
            self.state.dead.remove(*at);
        }
        for at in which {
            let (job, reason) = self.dead_jobs[*at].clone();
            if action == DeadAction::Drop {
                continue;
            }
            self.seen.insert(job.url.clone());
            *self.ids.entry(job.id.to_string()).or_default() += 1;
            count(&mut self.state.stats, "failed", -1);
            count(&mut self.state.stats, &format!("failed:{reason}"), -1);
            if let Some(batch) = batch_of(job.id).and_then(|batch| self.state.batches.get_mut(&batch)) {
                count(batch, "failed", -1);
                count(batch, &format!("failed:{reason}"), -1);
                count(batch, "host:x.org", -1);
            }
            self.state.ready.push(Job { attempts: 0, last_reason: None, ..job }.write());
        }
        for at in which.iter().rev() {
            self.dead_jobs.remove(*at);
        }
    }

    /// A batch is finished exactly while it is sealed and has as many results as jobs.
    fn mark_finished(&mut self) {
        for counters in self.state.batches.values_mut() {
            let number = |name: &str| counters.get(name).copied().unwrap_or(0);
            let done = number("stored") + number("rejected") + number("failed");
            let finished = number("sealed") == 1 && done == number("enqueued");
            counters.remove("finished");
            count(counters, "finished", finished.into());
        }
    }
}

/// Why a chunk is not taken.
#[derive(Debug, PartialEq)]
enum Refused {
    NoSuchBatch,
    Gap(u64),
}

/// What the model says of a claim; the payloads stand in its state.
#[derive(Debug, PartialEq)]
enum Claimed {
    Jobs(Vec<(Order, i64)>),
    Paused,
    Stale,
    Reaped,
}

// ---------------------------------------------------------------------------------------------- How it is done

/// The life of a worker under one name, and what it believes it holds.
struct Life {
    name: WorkerName,
    label: String,
    number: u64,
    holds: Vec<ClaimedJob>,
    /// Jobs that it held once.
    held: Vec<ClaimedJob>,
    last_settled: Vec<(LeaseField, Settlement)>,
    /// A claim of it had no answer.
    unsure: bool,
}

/// A queue, its model, and those who work on it.
struct Bench {
    runtime: tokio::runtime::Runtime,
    queue: Queue,
    raw: RawQueue,
    model: Model,
    lives: Vec<Vec<Life>>,
    chunks: Vec<Vec<Chunk>>,
    open: Vec<OpenBatch>,
    random_afterwards: u64,
}

/// Everything under the given keys, and the time, as no command between could change it.
const LOOK: &str = "
    local whole = {redis.call('TIME')}
    for i, key in ipairs(KEYS) do
      local kind = redis.call('TYPE', key).ok
      if kind == 'list' then whole[i + 1] = redis.call('LRANGE', key, 0, -1)
      elseif kind == 'zset' then whole[i + 1] = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
      elseif kind == 'hash' then whole[i + 1] = redis.call('HGETALL', key)
      elseif kind == 'stream' then whole[i + 1] = redis.call('XRANGE', key, '-', '+')
      else whole[i + 1] = {} end
    end
    return whole";

fn same<T: std::fmt::Debug + PartialEq>(what: &str, expected: T, found: T) -> Checked {
    prop_assert!(expected == found, "{what}: has to be {expected:?}, is {found:?}");
    Ok(())
}

fn within(what: &str, from: u64, to: u64, found: u64) -> Checked {
    prop_assert!((from..=to).contains(&found), "{what}: has to lie in {from}..={to}, is {found}");
    Ok(())
}

/// The members of a sorted set with their scores.
fn scores(value: redis::Value) -> BTreeMap<String, u64> {
    let pairs: BTreeMap<String, f64> = redis::from_redis_value(value).unwrap();
    pairs.into_iter().map(|(name, score)| (name, score as u64)).collect()
}

fn texts(value: redis::Value) -> BTreeMap<String, String> {
    redis::from_redis_value(value).unwrap()
}

fn order_of(field: &str) -> Order {
    let (claim, index) = field.split_once('.').unwrap();
    (claim.parse().unwrap(), index.parse().unwrap())
}

/// A field that no worker of a case gets: only a claim makes fields, so it comes from another queue, under a number that
/// is not reached here.
fn made_up_field() -> LeaseField {
    static FIELD: OnceLock<LeaseField> = OnceLock::new();
    let make = || {
        let mut bench = Bench::new();
        let worker = bench.lives[0][0].name.clone();
        bench.raw.push(&link(0));
        let claim = bench.runtime.block_on(bench.queue.claim(&worker, 1_000_000, &ClaimRequest::of(1))).unwrap();
        let Claim::Jobs { jobs, .. } = claim else { panic!("{claim:?}") };
        jobs[0].field.clone()
    };
    FIELD.get_or_init(make).clone()
}

/// Batches as their enqueuers hold them that were opened in another queue: in this one they are not there.
fn open_elsewhere() -> Vec<OpenBatch> {
    static OPEN: OnceLock<Vec<OpenBatch>> = OnceLock::new();
    let open = || {
        let raw = RawQueue::shared();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let queue = Queue::new(&raw.url, &raw.name).unwrap();
        let open = |n| runtime.block_on(queue.open_batch(batch_id(n), "test", None)).unwrap();
        (0..BATCHES).map(open).collect()
    };
    OPEN.get_or_init(open).clone()
}

fn report(job: Job, outcome: Outcome) -> Settlement {
    let stored = matches!(outcome, Outcome::Stored { .. });
    let object = stored.then(|| StoredObject {
        key: "x.org/a.jpg".into(),
        bytes: 100,
        sha256: "00".into(),
        media_type: MediaType::Jpeg,
        dimensions: None,
    });
    let attempts = job.attempts + 1;
    Settlement::Report(Box::new(Report {
        id: job.id,
        url: job.url,
        outcome,
        object,
        status: 200,
        attempts,
        duration_ms: 1,
    }))
}

fn settlement(held: &ClaimedJob, choice: Choice) -> Option<(LeaseField, Settlement)> {
    let job = Job::read(&held.payload, 0).unwrap();
    let retry = |after| {
        let job = Job { attempts: job.attempts + 1, last_reason: Some("dns".into()), ..job.clone() };
        Settlement::Retry { job: Box::new(job), after }
    };
    let settlement = match choice {
        Choice::Keep => return None,
        // Three crashes are enough: the next to claim it does not run it.
        _ if held.crashes >= 3 => report(job, Outcome::Failed(Failure::WorkerCrashed)),
        Choice::Store => report(job, Outcome::Stored { exists: false }),
        Choice::Exists => report(job, Outcome::Stored { exists: true }),
        Choice::Reject => report(job, Outcome::Rejected(Rejection::Gone)),
        Choice::Fail => report(job, Outcome::Failed(Failure::Dns)),
        Choice::RetryNow => retry(Duration::ZERO),
        Choice::RetryLater => retry(LATER),
        Choice::Release => Settlement::Release,
    };
    Some((held.field.clone(), settlement))
}

impl Bench {
    /// Three registered workers, and a queue with one batch that is still empty.
    fn new() -> Bench {
        let raw = RawQueue::shared();
        // Names and ids are the same each time that a case runs, so that it can be shrunk; queues have names of their own.
        let random_afterwards = fastrand::u64(..);
        fastrand::seed(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let queue = Queue::new(&raw.url, &raw.name).unwrap();
        let mut bench = Bench {
            runtime,
            queue,
            raw,
            model: Model::default(),
            lives: (0..WORKERS).map(|_| Vec::new()).collect(),
            chunks: vec![Vec::new(); BATCHES],
            open: open_elsewhere(),
            random_afterwards,
        };
        for slot in 0..WORKERS {
            bench.enter(slot).unwrap();
        }
        bench.apply(&Op::Open(0)).unwrap();
        // The first one after a silence gives everybody a lease.
        bench.apply(&Op::By(Who::Now(0), Deed::Heartbeat)).unwrap();
        bench
    }

    fn call<T>(&self, answer: impl Future<Output = Result<T, QueueError>>) -> Checked<T> {
        self.runtime.block_on(answer).map_err(|error| TestCaseError::fail(error.to_string()))
    }

    fn run(&mut self, ops: &[Op]) -> Checked {
        for (at, op) in ops.iter().enumerate() {
            self.apply(op).map_err(|error| TestCaseError::fail(format!("after op {at}, {op:?}: {error}")))?;
        }
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> Checked {
        match op {
            Op::Open(batch) => {
                let answer = self.runtime.block_on(self.queue.open_batch(batch_id(*batch), "test", None));
                match answer {
                    Ok(open) if !self.model.state.batches.contains_key(batch) => self.open[*batch] = open,
                    Err(QueueError::BatchTaken(_)) if self.model.state.batches.contains_key(batch) => {}
                    other => return Err(TestCaseError::fail(format!("opened: {other:?}"))),
                }
                self.model.state.batches.entry(*batch).or_default();
                self.model.chunks.entry(*batch).or_default();
                self.look()
            }
            Op::Push { batch, links, dedup } => {
                let is_sealed = |counters: &Counters| counters.contains_key("sealed");
                if self.model.state.batches.get(batch).is_some_and(is_sealed) {
                    // Its enqueuer said that nothing more comes.
                    return Ok(());
                }
                let before = &self.chunks[*batch];
                let ordinal = before.iter().map(|chunk| chunk.jobs.len() as u64).sum();
                let links = links.iter().map(|n| link(*n)).collect();
                let chunk = Chunk::of_links(batch_id(*batch), before.len() as u64 + 1, ordinal, links, *dedup);
                self.push(*batch, &chunk)
            }
            Op::PushAgain { batch, back } => {
                let chunk = self.chunks[*batch].iter().rev().nth(*back).cloned();
                chunk.map_or(Ok(()), |chunk| self.push(*batch, &chunk))
            }
            Op::PushGap(batch) => {
                let number = self.chunks[*batch].len() as u64 + 2;
                self.push(*batch, &Chunk::of_links(batch_id(*batch), number, 1 << 20, vec![link(0)], false))
            }
            Op::PushBare(n) => {
                self.raw.push(&link(*n));
                self.model.state.ready.push(link(*n));
                self.model.bare.0 += 1;
                self.look()
            }
            Op::Seal(batch) => {
                let answer =
                    self.runtime.block_on(self.queue.seal_batch(&self.open[*batch], self.chunks[*batch].len() as u64));
                match self.model.state.batches.get_mut(batch) {
                    Some(counters) => drop(counters.insert("sealed".into(), 1)),
                    None => prop_assert!(
                        matches!(answer, Err(QueueError::RolledBack { lost: 1, .. })),
                        "sealed: {answer:?}"
                    ),
                }
                self.look()
            }
            Op::By(who, deed) => self.life(*who).map_or(Ok(()), |(slot, at)| self.act(slot, at, deed)),
            Op::LeaseEnds(who) => self.life(*who).map_or(Ok(()), |(slot, at)| self.set_lease(slot, at, 1)),
            Op::LeaseFarAway(who) => {
                self.life(*who).map_or(Ok(()), |(slot, at)| self.set_lease(slot, at, 99_999_999_999_999))
            }
            Op::Recover(who) => self.life(*who).map_or(Ok(()), |(slot, at)| self.recover(slot, at)),
            Op::Crash(who) => {
                let Some((slot, at)) = self.life(*who) else { return Ok(()) };
                self.set_lease(slot, at, 1)?;
                self.recover(slot, at)?;
                self.enter(slot)
            }
            Op::Restart(slot) => self.enter(*slot),
            Op::Register(slot) => {
                let is_registered = |life: &Life| self.model.is_registered(&life.label);
                if self.lives[*slot].last().is_some_and(is_registered) { Ok(()) } else { self.enter(*slot) }
            }
            Op::Silence => {
                self.raw.run::<i64>(&["HSET", "@meta", "tick", "1"]);
                self.model.state.tick = 1;
                self.look()
            }
            Op::MakeDue(number) => {
                let due: Vec<String> = self.model.state.delayed.keys().take(*number).cloned().collect();
                for payload in due {
                    self.raw.run::<i64>(&["ZADD", "@delayed", "XX", "0", &payload]);
                    self.model.state.delayed.insert(payload, 0);
                }
                self.look()
            }
            Op::Pause(paused) => {
                self.call(self.queue.set_paused(*paused))?;
                self.model.state.paused = *paused;
                self.look()
            }
            Op::Dead { action, which } => {
                let dead = self.call(self.queue.dead_jobs(None, 500))?;
                let which: Vec<usize> = (0..dead.len()).filter(|at| which & (1 << (at % 4)) != 0).collect();
                let dead: Vec<_> = which.iter().map(|at| dead[*at].clone()).collect();
                self.model.settle_dead(*action, &which);
                for expected in [dead.len() as u64, 0] {
                    let moved = self.call(self.queue.settle_dead(*action, &dead))?;
                    self.look()?;
                    same("dead jobs moved", expected, moved)?;
                }
                Ok(())
            }
        }
    }

    /// Where a life stands; there may be none before today's.
    fn life(&self, who: Who) -> Option<(usize, usize)> {
        let is_busy = |slot: &usize| self.lives[*slot].last().is_some_and(|life| !life.holds.is_empty());
        let busy: Vec<usize> = (0..WORKERS).filter(is_busy).collect();
        let (slot, back) = match who {
            Who::Now(slot) => (slot, 1),
            Who::Past(slot) => (slot, 2),
            Who::Busy(n) => (*busy.get(n % busy.len().max(1))?, 1),
        };
        Some((slot, self.lives[slot].len().checked_sub(back)?))
    }

    /// A new life of a worker.
    fn enter(&mut self, slot: usize) -> Checked {
        let label = format!("{slot}.{}", self.lives[slot].len());
        let name = WorkerName::fresh();
        self.call(self.queue.register(&name, &[]))?;
        self.model.register(&label);
        self.lives[slot].push(Life {
            name,
            label,
            number: 0,
            holds: Vec::new(),
            held: Vec::new(),
            last_settled: Vec::new(),
            unsure: false,
        });
        self.look()
    }

    fn set_lease(&mut self, slot: usize, at: usize, expiry: u64) -> Checked {
        let life = &self.lives[slot][at];
        // XX: a name that was struck off stays so.
        self.raw.run::<i64>(&["ZADD", "@workers", "XX", &expiry.to_string(), life.name.as_str()]);
        self.model.state.workers.entry(life.label.clone()).and_modify(|at| *at = expiry);
        self.look()
    }

    /// As some other worker does it.
    fn recover(&mut self, slot: usize, at: usize) -> Checked {
        let life = &self.lives[slot][at];
        let expected = self.model.recover(&life.label);
        let recovered = self.call(self.queue.recover(life.name.as_str()))?;
        self.look()?;
        same("jobs recovered", expected, recovered)
    }

    fn push(&mut self, batch: usize, chunk: &Chunk) -> Checked {
        let expected = self.model.push(batch, chunk);
        let answer = match self.runtime.block_on(self.queue.push(&self.open[batch], chunk)) {
            Ok(pushed) => Ok((pushed.enqueued, pushed.duplicates)),
            // Told in the same words as a gap before the first chunk: for its enqueuer a batch that is not there was lost.
            Err(QueueError::RolledBack { lost: 1, .. }) if expected == Err(Refused::NoSuchBatch) => {
                Err(Refused::NoSuchBatch)
            }
            Err(QueueError::RolledBack { lost, .. }) => Err(Refused::Gap(lost)),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let known = self.chunks[batch].len() as u64;
        if answer.is_ok() && chunk.number > known {
            self.chunks[batch].push(chunk.clone());
        }
        self.look()?;
        same("a chunk's answer", expected, answer)
    }

    fn act(&mut self, slot: usize, at: usize, deed: &Deed) -> Checked {
        if std::mem::take(&mut self.lives[slot][at].unsure) {
            self.reconcile(slot, at)?;
        }
        let life = &mut self.lives[slot][at];
        let (name, label) = (life.name.clone(), life.label.clone());
        match deed {
            Deed::Claim(max) => {
                life.number += 1;
                let number = life.number;
                let jobs = self.claim(slot, at, number, *max)?;
                self.lives[slot][at].holds.extend(jobs);
                Ok(())
            }
            Deed::ClaimUnheard(max) => {
                life.number += 1;
                life.unsure = true;
                let number = life.number;
                self.claim(slot, at, number, *max).map(drop)
            }
            Deed::ClaimLate(back) => {
                let number = life.number.saturating_sub(*back);
                self.claim(slot, at, number, 5).map(drop)
            }
            Deed::Settle { choices, strangers } => {
                let own = life.holds.clone().into_iter().zip(choices.iter().copied());
                let mut settlements: Vec<_> = own.filter_map(|(job, choice)| settlement(&job, choice)).collect();
                if *strangers {
                    let twice = settlements.clone();
                    settlements.extend(twice);
                    settlements.splice(0..0, self.strangers(slot, at));
                }
                self.settle(slot, at, settlements)
            }
            Deed::SettleAgain => {
                let settlements = life.last_settled.clone();
                self.settle(slot, at, settlements)
            }
            Deed::Heartbeat => {
                let before = self.model.now;
                let (alive, expired) = self.model.heartbeat(&label);
                let told = self.call(self.queue.heartbeat(&name, &[]))?;
                self.look()?;
                same("alive", alive, told.alive)?;
                // It names eight at a time; so many are over only in a long case.
                let named: BTreeSet<String> = told.expired.iter().map(|name| self.label(name)).collect();
                prop_assert!(named.is_subset(&expired), "{named:?} are not over, only {expired:?}");
                same("names of expired workers", expired.len().min(8), told.expired.len())?;
                let after = self.model.now;
                let next_end = self.model.state.workers.values().filter(|at| **at > after).min();
                same("somebody's lease ends", next_end.is_some(), told.next_end.is_some())?;
                let until = |now: u64| next_end.map_or(0, |at| at - now);
                within("ms until a lease ends", until(after), until(before), ms(told.next_end))
            }
            Deed::Reconcile => self.reconcile(slot, at),
            Deed::RunAlone => self.run_alone(slot, at),
            Deed::Unregister => {
                let expected = self.model.unregister(&label);
                let struck_off = self.call(self.queue.unregister(&name))?;
                self.look()?;
                same("struck off", expected, struck_off)
            }
        }
    }

    fn claim(&mut self, slot: usize, at: usize, number: u64, max: usize) -> Checked<Vec<ClaimedJob>> {
        let (name, label) = (self.lives[slot][at].name.clone(), self.lives[slot][at].label.clone());
        let before = self.model.now;
        let expected = self.model.claim(&label, number, max);
        let answer = self.call(self.queue.claim(&name, number, &ClaimRequest::of(max)))?;
        self.look()?;
        let (claimed, jobs, next_due) = match answer {
            Claim::Jobs { jobs, next_due, .. } => {
                let told = jobs.iter().map(|job| (job.field.order(), job.crashes.into())).collect();
                (Claimed::Jobs(told), jobs, next_due)
            }
            Claim::Paused => (Claimed::Paused, Vec::new(), None),
            Claim::Stale => (Claimed::Stale, Vec::new(), None),
            Claim::Reaped => (Claimed::Reaped, Vec::new(), None),
            Claim::Full => return Err(TestCaseError::fail("full without a bound")),
        };
        same("a claim's answer", &expected, &claimed)?;
        let held = self.model.held_by(&label);
        for job in &jobs {
            same("a claimed payload", held[&job.field.order()].as_bytes(), &job.payload[..])?;
        }
        match claimed {
            Claimed::Jobs(_) => {
                let due = self.model.state.delayed.values().min().copied();
                same("something is delayed", due.is_some(), next_due.is_some())?;
                let until = |now: u64| due.map_or(0, |at| at.saturating_sub(now));
                within("ms until the next is due", until(self.model.now), until(before), ms(next_due))?;
            }
            Claimed::Reaped => self.abandon(slot, at),
            Claimed::Paused | Claimed::Stale => {}
        }
        Ok(jobs)
    }

    fn abandon(&mut self, slot: usize, at: usize) {
        let life = &mut self.lives[slot][at];
        life.held.append(&mut life.holds);
    }

    /// Adopts what Redis has, drops what it has not.
    fn reconcile(&mut self, slot: usize, at: usize) -> Checked {
        let life = &mut self.lives[slot][at];
        life.number += 1;
        let (name, label, number) = (life.name.clone(), life.label.clone(), life.number);
        let answer = self.call(self.queue.reconcile(&name, number))?;
        let expected = self.model.is_registered(&label).then(|| self.model.held_by(&label));
        if expected.is_some() {
            self.model.numbers.insert(label, number);
        }
        self.look()?;
        let Reconciled::Holds(mut jobs) = answer else {
            self.abandon(slot, at);
            return same("what Redis holds for it", expected, None);
        };
        let payload = |job: &ClaimedJob| String::from_utf8(job.payload.clone()).unwrap();
        let found = jobs.iter().map(|job| (job.field.order(), payload(job))).collect();
        same("what Redis holds for it", expected, Some(found))?;
        for job in &jobs {
            let id = job_of(&payload(job)).id.to_string();
            let crashes = self.model.state.crashes.get(&id).copied().unwrap_or(0);
            same("crashes of a job that it holds", crashes, job.crashes.into())?;
        }
        jobs.sort_by_key(|job| job.field.order());
        self.lives[slot][at].holds = jobs;
        Ok(())
    }

    fn settle(&mut self, slot: usize, at: usize, settlements: Vec<(LeaseField, Settlement)>) -> Checked {
        let life = &self.lives[slot][at];
        let expected = self.model.settle(&life.label, &settlements);
        let accepted = self.call(self.queue.settle(&life.name, &settlements, &[]))?.accepted;
        let life = &mut self.lives[slot][at];
        let is_settled = |job: &ClaimedJob| settlements.iter().any(|(field, _)| *field == job.field);
        let (settled, rest) = std::mem::take(&mut life.holds).into_iter().partition(is_settled);
        life.held.extend::<Vec<_>>(settled);
        life.holds = rest;
        // Only its own are settled again: a stranger's field may be the name of a job of its own by then.
        let own = settlements.into_iter().zip(&accepted).filter(|(_, accepted)| **accepted);
        let own: Vec<_> = own.map(|(settlement, _)| settlement).collect();
        if !own.is_empty() {
            life.last_settled = own;
        }
        self.look()?;
        same("settlements accepted", expected, accepted)
    }

    /// Settlements of jobs that a worker has no right to.
    fn strangers(&self, slot: usize, at: usize) -> Vec<(LeaseField, Settlement)> {
        let life = &self.lives[slot][at];
        let own = self.model.held_by(&life.label);
        let others = self.lives[(slot + 1) % WORKERS].iter().rev().flat_map(|life| &life.holds);
        // Fields of different workers may be equal: those that are its own too would act on its own jobs.
        let others = others.filter(|job| !own.contains_key(&job.field.order())).take(2);
        let choices = [Choice::Store, Choice::Release, Choice::RetryLater, Choice::Fail].into_iter().cycle();
        let jobs = others.chain(life.held.iter().rev().take(3));
        let mut settlements: Vec<_> = jobs.zip(choices).filter_map(|(job, choice)| settlement(job, choice)).collect();
        let nobody = Job::new(JobId::new(batch_id(0), 1 << 30, 0), link(0));
        settlements.push((made_up_field(), report(nobody, Outcome::Stored { exists: false })));
        settlements
    }

    fn run_alone(&mut self, slot: usize, at: usize) -> Checked {
        let life = &self.lives[slot][at];
        let fields: Vec<LeaseField> = match &life.holds[..] {
            [suspect] if suspect.crashes == 2 => vec![suspect.field.clone()],
            _ => self.strangers(slot, at).into_iter().map(|(field, _)| field).take(1).collect(),
        };
        let (name, label) = (life.name.clone(), life.label.clone());
        for field in fields {
            let expected = self.model.held_by(&label).contains_key(&field.order());
            if expected {
                self.model.state.alone.insert(label.clone(), field.order());
            }
            let ours = self.call(self.queue.run_alone(&name, &field))?;
            self.look()?;
            same("runs alone", expected, ours)?;
        }
        Ok(())
    }

    /// The label of a worker's name; a name that nobody has is its own.
    fn label(&self, name: &str) -> String {
        let mut lives = self.lives.iter().flatten();
        lives.find(|life| life.name.as_str() == name).map_or_else(|| name.to_owned(), |life| life.label.clone())
    }

    /// Reads the whole queue at once and compares it with the model.
    fn look(&mut self) -> Checked {
        let (found, now) = self.read();
        self.take_over(&found, now)?;
        self.model.now = now;
        self.model.mark_finished();
        let differences = self.model.state.differences(&found);
        prop_assert!(differences.is_empty(), "the queue is not as it has to be:{differences}");
        self.every_job_is_in_one_place(&found)
    }

    /// What Redis decided, if it lies within bounds.
    fn take_over(&mut self, found: &State, now: u64) -> Checked {
        let before = self.model.now;
        let model = &mut self.model;
        for pending in std::mem::take(&mut model.pending) {
            match pending {
                Pending::Lease(worker) => {
                    let at = found.workers.get(&worker).copied().unwrap_or(0);
                    within(&format!("the lease of {worker}"), before + LEASE_MS, now + LEASE_MS, at)?;
                    model.state.workers.insert(worker, at);
                }
                Pending::Due(payload, after) => {
                    let at = found.delayed.get(&payload).copied().unwrap_or(0);
                    within(&format!("the time of {payload}"), before + after, now + after, at)?;
                    model.state.delayed.insert(payload, at);
                }
                Pending::Tick => {
                    within("the last tick", before, now, found.tick)?;
                    model.state.tick = found.tick;
                }
                Pending::Id(worker, field) => {
                    let filed = found.in_flight.get(&worker).and_then(|held| held.get(&field)).cloned();
                    let filed = filed.filter(|payload| !is_bare(payload)).unwrap_or_default();
                    let Ok(job) = Job::read(filed.as_bytes(), 0) else {
                        return Err(TestCaseError::fail(format!("{worker} got no job with an id as {field:?}")));
                    };
                    let held = model.state.in_flight.entry(worker).or_default();
                    same("the link of a bare URL", held.insert(field, filed.clone()), Some(job.url.clone()))?;
                    same("its payload", Job::new(job.id, job.url.clone()).write(), filed)?;
                    same("its batch", None, job.id.batch())?;
                    same("its id was there before", false, model.ids.insert(job.id.to_string(), 0).is_some())?;
                    model.bare.1 += 1;
                }
            }
        }
        // What a worker's hash says of it stands and falls with its name.
        model.state.described = model.state.workers.keys().cloned().collect();
        Ok(())
    }

    /// Asked of what was read, not of the model: waiting, worked on or done, and done once for each time that it was put
    /// on the queue.
    fn every_job_is_in_one_place(&self, found: &State) -> Checked {
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for id in found.elements().filter_map(|element| id_of(element)) {
            *places.entry(id).or_default() += 1;
        }
        for result in &found.results {
            let id = result.split([' ', '=']).nth(1).unwrap_or_default();
            *places.entry(id).or_default() += 1;
        }
        let expected = self.model.ids.iter().map(|(id, retried)| (id.as_str(), 1 + retried)).collect();
        same("places of each job", &expected, &places)?;
        let bare = found.elements().filter(|element| is_bare(element)).count();
        same("bare URLs", self.model.bare.0, self.model.bare.1 + bare)
    }

    fn read(&mut self) -> (State, u64) {
        let lives: Vec<(String, String)> =
            self.lives.iter().flatten().map(|life| (life.name.to_string(), life.label.clone())).collect();
        let mut names: Vec<String> =
            ["ready", "delayed", "results", "dead", "stats", "crashes", "workers", "meta"].map(str::to_owned).into();
        names.extend((0..BATCHES).map(|n| format!("batch:{}", batch_id(n))));
        names.extend(lives.iter().flat_map(|(name, _)| [format!("inflight:{name}"), format!("worker:{name}")]));
        let number = names.len().to_string();
        let names: Vec<String> = names.into_iter().map(|name| format!("@{name}")).collect();
        let mut command = vec!["EVAL", LOOK, &number];
        command.extend(names.iter().map(String::as_str));
        let whole: Vec<redis::Value> = self.raw.run(&command);
        let mut whole = whole.into_iter();
        let mut next = || whole.next().unwrap();

        let (seconds, micros): (u64, u64) = redis::from_redis_value(next()).unwrap();
        let now = seconds * 1000 + micros / 1000;
        let mut state = State {
            ready: redis::from_redis_value(next()).unwrap(),
            delayed: scores(next()),
            results: self.lines(next()),
            dead: self.lines(next()),
            stats: counters(texts(next())),
            crashes: counters(texts(next())),
            workers: scores(next()).into_iter().map(|(name, at)| (self.label(&name), at)).collect(),
            ..State::default()
        };
        let meta = texts(next());
        state.paused = meta.contains_key("paused");
        state.tick = meta.get("tick").map_or(0, |tick| tick.parse().unwrap());
        for n in 0..BATCHES {
            let facts = texts(next());
            if !facts.is_empty() {
                state.batches.insert(n, counters(facts));
            }
        }
        for (_, label) in lives {
            let (held, facts) = (texts(next()), texts(next()));
            if !held.is_empty() {
                let held = held.into_iter().map(|(field, payload)| (order_of(&field), payload)).collect();
                state.in_flight.insert(label.clone(), held);
            }
            if let Some(field) = facts.get("alone") {
                state.alone.insert(label.clone(), order_of(field));
            }
            if !facts.is_empty() {
                state.described.insert(label);
            }
        }
        (state, now)
    }

    /// Entries of a stream.
    fn lines(&self, value: redis::Value) -> Vec<String> {
        let entries: Vec<(String, BTreeMap<String, String>)> = redis::from_redis_value(value).unwrap();
        let told = |fields: &BTreeMap<String, String>| {
            let worker = self.label(fields.get("worker").map_or("", String::as_str));
            line(|name| fields.get(name).map(String::as_str), &worker)
        };
        entries.iter().map(|(_, fields)| told(fields)).collect()
    }

    /// Everybody dies, and one worker does all there is to do; then once more with all that failed.
    fn drain(&mut self) -> Checked {
        self.apply(&Op::Pause(false))?;
        self.apply(&Op::Seal(0))?;
        for slot in 0..WORKERS {
            for at in 0..self.lives[slot].len() {
                self.set_lease(slot, at, 1)?;
                self.recover(slot, at)?;
            }
        }
        self.enter(0)?;
        self.do_everything(Choice::Fail)?;
        self.nothing_is_left()?;
        let all = u8::MAX;
        self.apply(&Op::Dead { action: DeadAction::Retry, which: all })?;
        self.do_everything(Choice::Store)?;
        self.nothing_is_left()
    }

    /// One worker claims until there is nothing more, and every job ends as `choice`.
    fn do_everything(&mut self, choice: Choice) -> Checked {
        let at = self.lives[0].len() - 1;
        // Each claim takes one job at least.
        for _ in 0..=self.model.state.elements().count() {
            self.apply(&Op::MakeDue(usize::MAX))?;
            self.act(0, at, &Deed::Claim(5))?;
            if self.lives[0][at].holds.is_empty() {
                return Ok(());
            }
            self.act(0, at, &Deed::RunAlone)?;
            self.act(0, at, &Deed::Settle { choices: vec![choice; 5], strangers: false })?;
        }
        Err(TestCaseError::fail("it does not end"))
    }

    fn nothing_is_left(&mut self) -> Checked {
        let (found, _) = self.read();
        same("elements left", 0, found.elements().count())?;
        let mut results: BTreeMap<&str, usize> = BTreeMap::new();
        for result in &found.results {
            *results.entry(result.split([' ', '=']).nth(1).unwrap_or_default()).or_default() += 1;
        }
        let expected = self.model.ids.iter().map(|(id, retried)| (id.as_str(), 1 + retried)).collect();
        same("results of each job", &expected, &results)?;
        same("bare URLs without a result", self.model.bare.0, self.model.bare.1)?;
        for (batch, counters) in &found.batches {
            let has = |name| counters.contains_key(name);
            same(&format!("batch {batch} is finished"), has("sealed"), has("finished"))?;
        }
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        fastrand::seed(self.random_afterwards);
        // Hundreds of queues would make every other test's KEYS slow.
        let pattern = self.raw.key("*");
        let keys: Vec<String> = self.raw.try_run(&["KEYS", &pattern]).unwrap_or_default();
        let mut command = vec!["UNLINK"];
        command.extend(keys.iter().map(String::as_str));
        let _ = self.raw.try_run::<i64>(&command);
    }
}

/// What of a hash is a counter, or a mark that something happened.
fn counters(facts: BTreeMap<String, String>) -> Counters {
    let is_other = |name: &str| matches!(name, "started" | "seen" | "source" | "enqueuer");
    let is_other = |name: &str| is_other(name) || name.starts_with("chunk") || name.starts_with("before");
    let facts = facts.into_iter().filter(|(name, _)| !is_other(name));
    let number = |(name, value): (String, String)| {
        let is_time = matches!(name.as_str(), "sealed" | "finished");
        let number = if is_time { 1 } else { value.parse().unwrap() };
        (name, number)
    };
    facts.map(number).filter(|(_, number)| *number != 0).collect()
}

fn ms(duration: Option<Duration>) -> u64 {
    duration.map_or(0, |duration| duration.as_millis() as u64)
}

// ---------------------------------------------------------------------------------------------- What has to hold

/// Runs a property on so many random sequences, fewer or more with PROPTEST_CASES. A failure shows the shortest sequence
/// found, and the seed under which the same sequences come again.
fn check(cases: u32, property: impl Fn(&[Op]) -> Checked) {
    let mut config = ProptestConfig { failure_persistence: None, max_shrink_iters: 4096, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => fastrand::u64(..),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    let sequences = prop::collection::vec(op(), 1..90);
    // Held, or a server would be started and stopped for each case.
    let _redis = Redis::shared();
    // Made here, as it would use up random numbers of the first case that needs it.
    made_up_field();
    match TestRunner::new(config).run(&sequences, |ops| property(&ops)) {
        Ok(()) => {}
        Err(TestError::Fail(why, ops)) => {
            let ops: Vec<String> = ops.iter().enumerate().map(|(at, op)| format!("  {at}: {op:?}")).collect();
            panic!("{why}\nops:\n{}\nthe same again: PROPTEST_RNG_SEED={seed}", ops.join("\n"));
        }
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn the_queue_is_what_its_model_says() {
    check(160, |ops| Bench::new().run(ops));
}

#[test]
fn every_job_ends_with_one_result() {
    check(48, |ops| {
        let mut bench = Bench::new();
        bench.run(ops)?;
        bench
            .drain()
            .map_err(|error| TestCaseError::fail(format!("after all ops, while the queue is drained: {error}")))
    });
}
