//! The driver: does each operation to a real queue and to the model, and looks after each whether the one is what the other says.

mod clock;
mod telling;

use self::telling::{leave_of, leaves_of, news_of, told};
use super::hosts::{Host, Leave, News, host_in, hosts_of, is_long_over};
use super::operations::{Choice, Deed, Learnt, Op, Rate, Who};
use super::world::{Claimed, Crashes, Model, Pending, Refused, State, batch_id, id_of, is_bare, job_of, line, link};
use super::{BATCHES, Checked, Counters, FREE_REFUSALS, HOSTS, LATER, LEASE_MS, Order, WORKERS};
use ::queue::{
    Admission, AdmissionRequest, Chunk, Claim, ClaimRequest, ClaimedJob, DeadAction, LeaseField, OpenBatch, Queue,
    Reconciled, Recovered, Settlement, Start, WaitingAt, WaitsIn, WorkerName,
};
use common::error::QueueError;
use common::job::{Job, JobId};
use common::media::MediaType;
use common::outcome::{Failure, Outcome, Rejection};
use common::report::{Report, StoredObject};
use harness::RawQueue;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Shorter than anything that ends by itself without an operation that says so (a probe): a case that takes longer tells nothing.
const CASE_MAX: Duration = Duration::from_secs(25);
/// Shorter than the time between two starts: a machine that stands still for longer between two looks tells nothing about a rate.
const STALL_MAX_MS: u64 = 110;

/// The life of a worker under one name, and what it believes it holds.
struct Life {
    name: WorkerName,
    label: String,
    number: u64,
    holds: Vec<ClaimedJob>,
    /// Jobs that it held once.
    held: Vec<ClaimedJob>,
    last_settled: Vec<(LeaseField, Settlement)>,
    /// Targets of redirects that it may ask, and whether for all others.
    granted: Vec<(String, bool)>,
    /// A claim of it had no answer.
    unsure: bool,
}

/// A queue, its model, and those who work on it.
pub(super) struct Bench {
    runtime: tokio::runtime::Runtime,
    queue: Queue,
    raw: RawQueue,
    model: Model,
    lives: Vec<Vec<Life>>,
    chunks: Vec<Vec<Chunk>>,
    open: Vec<OpenBatch>,
    /// A page of jobs that wait, which somebody is about to purge.
    page: Option<(WaitsIn, Vec<Vec<u8>>)>,
    /// What Redis goes back to, and what its enqueuers know then.
    saved: Option<(Model, Vec<Vec<Chunk>>, Vec<OpenBatch>)>,
    began: Instant,
    /// When the last lease ended that is over.
    ends: u64,
    /// When time was stopped for what happens now, by Redis' clock, where there was any use in that.
    stopped_at: Option<u64>,
    random_afterwards: u64,
}

/// What is not compared as it stands, but has to fit.
#[derive(Debug, Default)]
struct Beside {
    /// The index of hosts that are held.
    held: BTreeMap<String, u64>,
    /// Until when starts of each host are given out.
    starts: BTreeMap<String, f64>,
}

/// Everything under the given keys, and the time, as no command between could change it.
const LOOK: &str = "
    local whole = {redis.call('TIME')}
    for i, key in ipairs(KEYS) do
      local kind = redis.call('TYPE', key).ok
      if kind == 'list' then whole[i + 1] = redis.call('LRANGE', key, 0, -1)
      elseif kind == 'zset' then whole[i + 1] = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
      elseif kind == 'hash' then whole[i + 1] = redis.call('HGETALL', key)
      elseif kind == 'set' then whole[i + 1] = redis.call('SMEMBERS', key)
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
pub(super) fn made_up_field() -> LeaseField {
    static FIELD: OnceLock<LeaseField> = OnceLock::new();
    let make = || {
        let mut bench = Bench::new(Rate::Any);
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
        Choice::Hold => Settlement::Hold { host: host_in(&job.url).to_owned(), job: None },
        Choice::HoldFor(n) => {
            let job = Job { redirects_to: Some(HOSTS[n].to_owned()), ..job };
            Settlement::Hold { host: HOSTS[n].to_owned(), job: Some(Box::new(job)) }
        }
    };
    Some((held.field.clone(), settlement))
}

impl Bench {
    /// Three registered workers, and a queue with one batch that is still empty.
    pub(super) fn new(rate: Rate) -> Bench {
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
            model: Model { rate, ..Model::default() },
            lives: (0..WORKERS).map(|_| Vec::new()).collect(),
            chunks: vec![Vec::new(); BATCHES],
            open: open_elsewhere(),
            page: None,
            saved: None,
            began: Instant::now(),
            ends: 0,
            stopped_at: None,
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

    pub(super) fn run(&mut self, ops: &[Op]) -> Checked {
        for (at, op) in ops.iter().enumerate() {
            self.apply(op).map_err(|error| match error {
                TestCaseError::Fail(why) => TestCaseError::fail(format!("after op {at}, {op:?}: {why}")),
                TestCaseError::Reject(why) => TestCaseError::Reject(why),
            })?;
        }
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> Checked {
        self.stop_time();
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
            Op::LeaseEnds(who) => {
                let end = self.next_end();
                self.life(*who).map_or(Ok(()), |(slot, at)| self.set_lease(slot, at, end))
            }
            Op::LeaseFarAway(who) => {
                self.life(*who).map_or(Ok(()), |(slot, at)| self.set_lease(slot, at, 99_999_999_999_999))
            }
            Op::Recover(who) => self.life(*who).map_or(Ok(()), |(slot, at)| self.recover(slot, at)),
            Op::Crash(who) => {
                let Some((slot, at)) = self.life(*who) else { return Ok(()) };
                let end = self.next_end();
                self.set_lease(slot, at, end)?;
                self.recover(slot, at)?;
                self.enter(slot)
            }
            Op::FleetDies => {
                let end = self.next_end();
                let registered = |life: &Life| self.model.is_registered(&life.label);
                let alive: Vec<(usize, usize)> = (0..WORKERS)
                    .filter_map(|slot| Some((slot, self.lives[slot].len().checked_sub(1)?)))
                    .filter(|(slot, at)| registered(&self.lives[*slot][*at]))
                    .collect();
                for (slot, at) in &alive {
                    self.set_lease(*slot, *at, end + 1000 * *slot as u64)?;
                }
                for (slot, at) in alive {
                    self.recover(slot, at)?;
                    self.enter(slot)?;
                }
                Ok(())
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
            Op::HoldEnds(n) => self.remembered(*n).map_or(Ok(()), |host| self.end_holds(host, 1)),
            Op::HostForgotten(n) => self.remembered(*n).map_or(Ok(()), |host| self.end_holds(host, 600_100)),
            Op::StartPasses => self.pass_starts(),
            Op::Purge(place) => {
                let page = self.call(self.queue.waiting_page(*place))?;
                self.purge(*place, &page)?;
                self.purge(*place, &page)
            }
            Op::PageRead(place) => {
                self.page = Some((*place, self.call(self.queue.waiting_page(*place))?));
                Ok(())
            }
            Op::PurgeLate => self.page.clone().map_or(Ok(()), |(place, page)| self.purge(place, &page)),
            Op::Saved => {
                self.save();
                Ok(())
            }
            Op::RolledBack => self.roll_back(),
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

    /// What of a page still waits goes: of `ready` what begins it, or nothing.
    fn purge(&mut self, place: WaitsIn, page: &[Vec<u8>]) -> Checked {
        let removed = self.call(self.queue.purge_page(place, page))? as usize;
        let page: Vec<&str> = page.iter().map(|payload| std::str::from_utf8(payload).unwrap()).collect();
        let waiting: Vec<String> = match place {
            WaitsIn::Ready => self.model.state.ready.clone(),
            WaitsIn::Delayed => self.model.state.delayed.keys().cloned().collect(),
        };
        let is_of_page = |payload: &&String| page.contains(&payload.as_str());
        let gone: Vec<String> = match place {
            WaitsIn::Ready => {
                let most = waiting.iter().take_while(is_of_page).count();
                let is_as_it_was = waiting.iter().zip(&page).all(|(there, read)| there == read);
                let least = if is_as_it_was { waiting.len().min(page.len()) } else { most.min(1) };
                within("jobs purged", least as u64, most as u64, removed as u64)?;
                self.model.state.ready.drain(..removed).collect()
            }
            WaitsIn::Delayed => {
                let gone: Vec<String> = waiting.iter().filter(is_of_page).cloned().collect();
                same("jobs purged", gone.len(), removed)?;
                self.model.state.delayed.retain(|payload, _| !gone.contains(payload));
                gone
            }
        };
        gone.iter().for_each(|payload| self.model.purge(payload));
        self.look()
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

    /// When a lease ends that is over: long after all others that are.
    fn next_end(&mut self) -> u64 {
        self.ends += 100_000;
        self.ends
    }

    /// A new life of a worker.
    fn enter(&mut self, slot: usize) -> Checked {
        let label = format!("{slot}.{}", self.lives[slot].len());
        let name = WorkerName::fresh();
        self.call(self.queue.register(&name, &[]))?;
        // As if that had been long ago.
        same("newly registered", 1, self.raw.run::<i64>(&["ZADD", "@workers:since", "XX", "CH", "1", name.as_str()]))?;
        self.model.register(&label);
        self.lives[slot].push(Life {
            name,
            label,
            number: 0,
            holds: Vec::new(),
            held: Vec::new(),
            last_settled: Vec::new(),
            granted: Vec::new(),
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
        same("jobs recovered", expected, recovered.map(|Recovered { jobs, is_of_many }| (jobs, is_of_many)))
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
        self.stop_time();
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
                let rate = self.model.rate;
                let (mut settlements, mut news) = (Vec::new(), Vec::new());
                for (job, (choice, learnt)) in life.holds.iter().zip(choices.iter().copied()) {
                    let Some(settlement) = settlement(job, choice) else { continue };
                    settlements.push(settlement);
                    // It is not run any more.
                    let learnt = if job.crashes >= 3 { Learnt::NotAsked } else { learnt };
                    for Admission { host, start } in &job.admissions {
                        let is_probe = matches!(start, Start::Probe(_));
                        if !matches!(start, Start::Refused(_)) {
                            news.extend(news_of(host, is_probe, learnt, rate));
                        }
                    }
                }
                let learnt = choices.iter().map(|(_, learnt)| *learnt).rev().chain(std::iter::repeat(Learnt::NotAsked));
                let granted = std::mem::take(&mut life.granted).into_iter().zip(learnt);
                news.extend(granted.filter_map(|((host, is_probe), learnt)| news_of(&host, is_probe, learnt, rate)));
                if *strangers {
                    let twice = settlements.clone();
                    settlements.extend(twice);
                    settlements.splice(0..0, self.strangers(slot, at));
                }
                self.settle(slot, at, settlements, &news)
            }
            Deed::Admit { hosts, unheard } => self.admit(slot, at, hosts, *unheard),
            Deed::SettleAgain => {
                let settlements = life.last_settled.clone();
                self.settle(slot, at, settlements, &[])
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
        let rate = self.model.rate;
        let held = self.model.held_by(&label);
        let own: BTreeSet<String> = held.values().flat_map(|payload| hosts_of(payload)).collect();
        let request = ClaimRequest {
            max,
            host_rate: rate.text().map(|text| text.parse().unwrap()),
            free_refusals: FREE_REFUSALS,
            waiting: own.iter().map(|host| WaitingAt { host: host.clone(), pace: None }).collect(),
            ..ClaimRequest::default()
        };
        let held_hosts = HOSTS.map(|host| self.model.host(host).is_held(before));
        let mut expected = self.model.claim(&label, number, max);
        let answer = self.call(self.queue.claim(&name, number, &request))?;
        self.look()?;
        let (claimed, jobs, next_due) = match answer {
            Claim::Jobs { jobs, next_due, left_alone, .. } => {
                let told =
                    jobs.iter().map(|job| (job.field.order(), job.crashes.into(), leaves_of(&job.admissions, rate)));
                let told: Vec<(Order, i64, _)> = told.collect();
                let given = told.iter().flat_map(|(_, _, leaves)| leaves);
                for (host, _) in given.filter(|(_, leave)| !matches!(leave, Leave::Refused(_))) {
                    let is_held = HOSTS.iter().zip(held_hosts).any(|(name, is_held)| is_held && name == host);
                    prop_assert!(!is_held, "a job of {host} is handed out, which is held");
                }
                // Where there is nothing to say about hosts, nothing is said.
                if let Claimed::Jobs(expected) = &mut expected {
                    for ((_, _, leaves), (_, _, told)) in expected.iter_mut().zip(&told) {
                        if told.is_empty() && leaves.iter().all(|(_, leave)| *leave == Leave::After(0)) {
                            leaves.clear();
                        }
                    }
                }
                let is_left_alone = |host: &&String| {
                    let known = self.model.host(host);
                    known.is_held(before) || known.alone.get(&label).is_some_and(|(ends, _)| *ends > before)
                };
                let expected: BTreeSet<String> = own.iter().filter(is_left_alone).cloned().collect();
                same("hosts to be left alone", expected, left_alone.into_iter().collect())?;
                (Claimed::Jobs(told), jobs, next_due)
            }
            Claim::Paused { .. } => (Claimed::Paused, Vec::new(), None),
            Claim::Stale => (Claimed::Stale, Vec::new(), None),
            Claim::Reaped => (Claimed::Reaped, Vec::new(), None),
            Claim::Full { .. } => return Err(TestCaseError::fail("full without a bound")),
            Claim::Newer(schema) => return Err(TestCaseError::fail(format!("of schema {schema}"))),
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
        life.granted.clear();
    }

    /// For the targets of redirects.
    fn admit(&mut self, slot: usize, at: usize, hosts: &[(usize, u64)], unheard: bool) -> Checked {
        let (name, label) = (self.lives[slot][at].name.clone(), self.lives[slot][at].label.clone());
        let rate = self.model.rate;
        let mut expected = Vec::new();
        for (n, ahead_ms) in hosts {
            let leave = self.model.admit(&label, HOSTS[*n], *ahead_ms);
            expected.push((HOSTS[*n].to_owned(), leave));
        }
        let ahead = |(n, ms): &(usize, u64)| (HOSTS[*n].to_owned(), Duration::from_millis(*ms));
        let request = AdmissionRequest {
            host_rate: rate.text().map(|text| text.parse().unwrap()),
            free_refusals: FREE_REFUSALS,
            hosts: hosts.iter().map(ahead).collect(),
        };
        let admitted = self.call(self.queue.admit(&name, &request))?;
        self.look()?;
        let leaves =
            admitted.starts.iter().map(|start| start.as_ref().map_or(Leave::Wait, |start| leave_of(start, rate)));
        let found: Vec<_> = hosts.iter().map(|(n, _)| HOSTS[*n].to_owned()).zip(leaves).collect();
        same("admissions", &expected, &found)?;
        let granted = found.into_iter().filter_map(|(host, leave)| match leave {
            Leave::After(_) => Some((host, false)),
            Leave::Probe(_) => Some((host, true)),
            Leave::Refused(_) | Leave::Wait => None,
        });
        if !unheard {
            self.lives[slot][at].granted.extend(granted);
        }
        Ok(())
    }

    /// Adopts what Redis has, drops what it has not.
    fn reconcile(&mut self, slot: usize, at: usize) -> Checked {
        let life = &mut self.lives[slot][at];
        life.number += 1;
        let (name, label, number) = (life.name.clone(), life.label.clone(), life.number);
        let answer = self.call(self.queue.reconcile(&name, number))?;
        let expected = self.model.is_registered(&label).then(|| self.model.held_by(&label));
        if expected.is_some() {
            self.model.numbers.insert(label.clone(), number);
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
            let crashes = self.model.state.crashes.get(&id).copied().unwrap_or_default();
            let found = (job.crashes.into(), job.runs_alone);
            same("crashes of a job that it holds", (crashes.count, crashes.runs_alone()), found)?;
        }
        for job in &mut jobs {
            let probes = hosts_of(&payload(job)).into_iter().filter_map(|host| {
                let known = self.model.host(&host);
                (known.prober.as_ref() == Some(&label)).then_some((host, Leave::Probe(known.why)))
            });
            same("what it tries for all others", probes.collect(), leaves_of(&job.admissions, self.model.rate))?;
            // Of those that it knew it knows more.
            if let Some(held) = self.lives[slot][at].holds.iter().find(|held| held.field == job.field) {
                job.admissions.clone_from(&held.admissions);
            }
        }
        jobs.sort_by_key(|job| job.field.order());
        self.lives[slot][at].holds = jobs;
        Ok(())
    }

    fn settle(&mut self, slot: usize, at: usize, settlements: Vec<(LeaseField, Settlement)>, news: &[News]) -> Checked {
        let life = &self.lives[slot][at];
        news.iter().for_each(|news| self.model.learn(&life.label, news));
        let expected = self.model.settle(&life.label, &settlements);
        let news: Vec<_> = news.iter().map(|news| told(news, self.model.rate)).collect();
        let accepted = self.call(self.queue.settle(&life.name, &settlements, &news))?.accepted;
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
            [suspect] if suspect.runs_alone => vec![suspect.field.clone()],
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
        let (found, beside, now) = self.read();
        let is_rated = self.model.rate == Rate::Quick && self.model.taken.values().any(|taken| *taken > 0);
        let since = self.stopped_at.unwrap_or(self.model.now);
        if self.began.elapsed() > CASE_MAX || is_rated && now > since + STALL_MAX_MS {
            return Err(TestCaseError::reject("the machine stood still"));
        }
        self.take_over(&found, now)?;
        self.model.now = now;
        self.model.mark_finished();
        self.model.hosts_change(|_| {});
        let differences = self.model.state.differences(&found);
        prop_assert!(differences.is_empty(), "the queue is not as it has to be:{differences}");
        self.every_job_is_in_one_place(&found)?;
        self.hosts_are_indexed(&found, &beside, now)?;
        Ok(())
    }

    /// Asked of what was read: people see which hosts are held and no others, and no start is given out that is not accounted for.
    fn hosts_are_indexed(&self, found: &State, beside: &Beside, now: u64) -> Checked {
        let remembered: BTreeMap<&String, u64> =
            found.hosts.iter().filter_map(|(host, known)| Some((host, known.ends?))).collect();
        let is_known = |(host, ends): &(&String, u64)| remembered.contains_key(host) || !is_long_over(*ends, now);
        let indexed = beside.held.iter().map(|(host, ends)| (host, *ends)).filter(is_known).collect();
        same("hosts that are held", &remembered, &indexed)?;
        for host in HOSTS {
            let ahead_ms = beside.starts.get(host).map_or(0.0, |until| until - now as f64 - 1.0);
            let taken = self.model.rate.step_ms().map_or(0, |step| (ahead_ms / step).ceil().max(0.0) as u64);
            same(&format!("starts of {host} that are given out"), self.model.taken(host), taken)?;
        }
        Ok(())
    }

    /// What Redis decided, if it lies within bounds.
    fn take_over(&mut self, found: &State, now: u64) -> Checked {
        let before = self.model.now;
        let model = &mut self.model;
        let elapsed = now - before;
        let mut forward: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
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
                Pending::Line(payload, from, to) => {
                    let at = found.delayed.get(&payload).copied().unwrap_or(0);
                    within(&format!("the time of {payload}"), from, to + elapsed, at)?;
                    model.state.delayed.insert(payload, at);
                }
                Pending::LineOfBare(url, from, to) => {
                    let is_it = |payload: &String| {
                        !model.state.delayed.contains_key(payload) && !is_bare(payload) && job_of(payload).url == url
                    };
                    let Some((payload, at)) = found.delayed.iter().find(|(payload, _)| is_it(payload)) else {
                        return Err(TestCaseError::fail(format!("{url} does not wait anywhere")));
                    };
                    within(&format!("the time of {url}"), from, to + elapsed, *at)?;
                    let job = job_of(payload);
                    same("its payload", &Job::new(job.id, url).write(), payload)?;
                    same("its batch", None, job.id.batch())?;
                    same("its id was there before", false, model.ids.insert(job.id.to_string(), 0).is_some())?;
                    model.state.delayed.insert(payload.clone(), *at);
                    model.bare.1 += 1;
                }
                Pending::HoldEnds(host) => {
                    let ends = found.hosts.get(&host).and_then(|known| known.ends).unwrap_or(0);
                    if let Some(Host { ends: Some(expected), .. }) = model.state.hosts.get_mut(&host) {
                        within(&format!("the end of {host}'s hold"), *expected, *expected + elapsed, ends)?;
                        *expected = ends;
                    }
                }
                Pending::AloneEnds(host, worker) => {
                    let alone = found.hosts.get(&host).and_then(|known| known.alone.get(&worker));
                    let ends = alone.map_or(0, |(ends, _)| *ends);
                    let known = model.state.hosts.get_mut(&host);
                    if let Some((expected, _)) = known.and_then(|known| known.alone.get_mut(&worker)) {
                        within(&format!("until {worker} asks {host} again"), *expected, *expected + elapsed, ends)?;
                        *expected = ends;
                    }
                }
                Pending::ComeForward(host, in_line) => {
                    let (most, jobs) = forward.entry(host).or_default();
                    *most += 2;
                    *jobs = in_line;
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
        for (host, (most, in_line)) in forward {
            let mut moved = 0;
            for payload in &in_line {
                let (expected, at) = (model.state.delayed.get_mut(payload), found.delayed.get(payload));
                if let (Some(expected), Some(at)) = (expected, at)
                    && (before..=now).contains(at)
                {
                    *expected = *at;
                    moved += 1;
                }
            }
            // Of a long line only the beginning is looked at.
            let least = if model.state.delayed.len() <= 20 { most.min(in_line.len()) } else { 0 };
            within(&format!("jobs of {host} that come forward"), least as u64, most as u64, moved)?;
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
        for (id, purged) in &self.model.purged {
            *places.entry(id).or_default() += purged;
        }
        let expected = self.model.ids.iter().map(|(id, retried)| (id.as_str(), 1 + retried)).collect();
        same("places of each job", &expected, &places)?;
        let bare = found.elements().filter(|element| is_bare(element)).count();
        same("bare URLs", self.model.bare.0, self.model.bare.1 + bare)
    }

    fn read(&mut self) -> (State, Beside, u64) {
        let lives: Vec<(String, String)> =
            self.lives.iter().flatten().map(|life| (life.name.to_string(), life.label.clone())).collect();
        let mut names: Vec<String> = [
            "ready",
            "delayed",
            "results",
            "dead",
            "stats",
            "crashes",
            "workers",
            "meta",
            "hosts",
            "hosts:held",
            "trials",
        ]
        .map(str::to_owned)
        .into();
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
            crashes: texts(next()).into_iter().map(|(id, text)| (id, Crashes::read(&text))).collect(),
            workers: scores(next()).into_iter().map(|(name, at)| (self.label(&name), at)).collect(),
            ..State::default()
        };
        let meta = texts(next());
        state.paused = meta.contains_key("paused");
        let number = |name: &str| meta.get(name).map(|number| number.parse().unwrap());
        state.deaths =
            number("deaths_from").map(|from| (from, number("deaths_to").unwrap(), number("deaths").unwrap()));
        state.tick = meta.get("tick").map_or(0, |tick| tick.parse().unwrap());
        let mut beside = Beside::default();
        for (host, text) in texts(next()) {
            let (known, starts_until) = self.host(&text, &state, now);
            if known != Host::default() {
                state.hosts.insert(host.clone(), known);
            }
            beside.starts.extend(starts_until.map(|until| (host, until)));
        }
        beside.held = scores(next());
        let trials: BTreeSet<String> = redis::from_redis_value(next()).unwrap();
        state.trials = trials.iter().map(|name| self.label(name)).collect();
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
            if let Some((here, most)) = facts.get("suspects").and_then(|text| text.split_once(' ')) {
                state.suspects.insert(label.clone(), (here.parse().unwrap(), most.parse().unwrap()));
            }
            if !facts.is_empty() {
                state.described.insert(label);
            }
        }
        (state, beside, now)
    }

    /// What is remembered of a host, without what time has made meaningless; and until when its starts are given out.
    fn host(&self, text: &str, state: &State, now: u64) -> (Host, Option<f64>) {
        let entry: serde_json::Value = serde_json::from_str(text).unwrap();
        let number = |entry: &serde_json::Value, name: &str| entry[name].as_f64().map(|number| number as u64);
        let is_probed = number(&entry, "probe").is_some_and(|until| until > now);
        let prober = entry["prober"].as_str().filter(|_| is_probed).map(|name| self.label(name));
        let alone = entry["alone"].as_object().into_iter().flatten();
        let own = |hold| (number(hold, "ends").unwrap(), number(hold, "level").unwrap());
        let mut known = Host {
            ends: number(&entry, "ends"),
            refusals: number(&entry, "level").unwrap_or(0),
            why: entry["why"].as_str().unwrap_or_default().to_owned(),
            // Nobody waits for what a worker finds out that is not there any more.
            prober: prober.filter(|prober| state.workers.contains_key(prober)),
            alone: alone.map(|(name, hold)| (self.label(name), own(hold))).collect(),
        };
        known.forget(now);
        (known, entry["tat"].as_f64())
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
    pub(super) fn drain(&mut self) -> Checked {
        self.apply(&Op::Pause(false))?;
        self.apply(&Op::Seal(0))?;
        for slot in 0..WORKERS {
            for at in 0..self.lives[slot].len() {
                let end = self.next_end();
                self.set_lease(slot, at, end)?;
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
        // Each claim takes one job at least: of a host that was held one, which finds out that it answers.
        for _ in 0..=self.model.state.elements().count() {
            for host in HOSTS {
                self.end_holds(host, 1)?;
            }
            while self.model.taken.values().any(|taken| *taken > 0) {
                self.pass_starts()?;
            }
            self.apply(&Op::MakeDue(usize::MAX))?;
            self.act(0, at, &Deed::Claim(5))?;
            if self.lives[0][at].holds.is_empty() {
                return Ok(());
            }
            self.act(0, at, &Deed::RunAlone)?;
            self.act(0, at, &Deed::Settle { choices: vec![(choice, Learnt::Answers); 5], strangers: false })?;
        }
        Err(TestCaseError::fail("it does not end"))
    }

    fn nothing_is_left(&mut self) -> Checked {
        let (found, _, _) = self.read();
        same("elements left", 0, found.elements().count())?;
        let mut results: BTreeMap<&str, usize> = BTreeMap::new();
        for result in &found.results {
            *results.entry(result.split([' ', '=']).nth(1).unwrap_or_default()).or_default() += 1;
        }
        for (id, purged) in &self.model.purged {
            *results.entry(id).or_default() += purged;
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
