//! The model: what the contract says that each operation does to each job, without keys, arguments and order of commands. It knows no
//! script and asks no Redis; times it takes over from whoever looked.

use super::hosts::{Admissions, Host, host_in};
use super::operations::Rate;
use super::{BATCHES, Counters, HOSTS, LEASE_MS, Order};
use ::queue::{Chunk, DeadAction, LeaseField, Settlement};
use common::job::{BatchId, Job, JobId};
use common::report::Report;
use std::collections::{BTreeMap, BTreeSet};

/// The whole of a queue at one instant, as it is read and as the model has it. Counters of zero are left out; workers go by
/// labels that are the same in every run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct State {
    pub(super) ready: Vec<String>,
    pub(super) in_flight: BTreeMap<String, BTreeMap<Order, String>>,
    /// With the time when they are due.
    pub(super) delayed: BTreeMap<String, u64>,
    pub(super) results: Vec<String>,
    pub(super) dead: Vec<String>,
    pub(super) stats: Counters,
    pub(super) batches: BTreeMap<usize, Counters>,
    /// What is known of the crashes of each job.
    pub(super) crashes: BTreeMap<String, Crashes>,
    /// With their expiry.
    pub(super) workers: BTreeMap<String, u64>,
    /// How many suspects each worker has in flight, and how many it may have.
    pub(super) suspects: BTreeMap<String, (usize, usize)>,
    /// The job that a worker runs alone.
    pub(super) alone: BTreeMap<String, Order>,
    /// Workers that have suspects.
    pub(super) trials: BTreeSet<String>,
    /// Deaths that came together: when the first and the last of these leases ended, and how many were recovered.
    pub(super) deaths: Option<(u64, u64, u64)>,
    /// Those of whom anything is written down.
    pub(super) described: BTreeSet<String>,
    pub(super) tick: u64,
    pub(super) paused: bool,
    /// What is remembered of each.
    pub(super) hosts: BTreeMap<String, Host>,
}

impl State {
    /// What is not as `self` has it, in words.
    pub(super) fn differences(&self, found: &State) -> String {
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
        compare!(tick, paused, hosts, suspects, trials, deaths);
        told
    }

    /// Every element that waits or is worked on.
    pub(super) fn elements(&self) -> impl Iterator<Item = &String> {
        let in_flight = self.in_flight.values().flat_map(BTreeMap::values);
        self.ready.iter().chain(self.delayed.keys()).chain(in_flight)
    }
}

/// What is known of the crashes of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Crashes {
    /// Workers that died of what may have been its doing.
    pub(super) count: i64,
    /// Of a suspect: how many of them may run in one worker.
    pub(super) group: usize,
    /// Deaths with most of the fleet, of one that is no suspect.
    pub(super) deaths: usize,
}

impl Crashes {
    pub(super) fn read(text: &str) -> Crashes {
        let numbers: Vec<usize> = text.split(' ').map(|number| number.parse().unwrap()).collect();
        let (count, further) = (numbers[0] as i64, numbers.get(1).copied());
        let group = if count == 2 { further.unwrap_or(1) } else { 0 };
        Crashes { count, group, deaths: numbers.get(2).copied().unwrap_or(0) }
    }

    pub(super) fn is_suspect(self) -> bool {
        self.count == 2
    }

    pub(super) fn runs_alone(self) -> bool {
        self.is_suspect() && self.group == 1
    }
}

/// Something that the program under test decides, within bounds: the next look checks it and takes it over.
#[derive(Debug, Clone)]
pub(super) enum Pending {
    /// A lease from now.
    Lease(String),
    /// A delayed job, so many ms from now.
    Due(String, u64),
    Tick,
    /// The id of a bare URL that was claimed.
    Id(String, Order),
    /// When a job is looked at again that waits for a host: not before the one time, nor after the other.
    Line(String, u64, u64),
    /// The same of a bare URL, which gets its id.
    LineOfBare(String, u64, u64),
    /// The end of a host's hold, which is as much later as the script ran.
    HoldEnds(String),
    /// The same for one worker.
    AloneEnds(String, String),
    /// Up to two of the jobs that wait in a host's line are due now: what was given out was not needed.
    ComeForward(String, Vec<String>),
}

/// What the contract says a queue is.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) state: State,
    pub(super) now: u64,
    pub(super) pending: Vec<Pending>,
    /// The highest number of each worker's claims and comparisons.
    pub(super) numbers: BTreeMap<String, u64>,
    /// Links that dedup knows.
    pub(super) seen: BTreeSet<String>,
    /// Every id that ever was in the queue, and how often its job was retried from the dead letters.
    pub(super) ids: BTreeMap<String, usize>,
    /// Bare URLs that were pushed, and those of them that have an id by now.
    pub(super) bare: (usize, usize),
    /// Jobs that were purged, and how often.
    pub(super) purged: BTreeMap<String, usize>,
    /// What every worker asks for.
    pub(super) rate: Rate,
    /// Starts of each host that are given out, from now on.
    pub(super) taken: BTreeMap<String, u64>,
    /// Payloads of the dead, as they stand beside `state.dead`.
    pub(super) dead_jobs: Vec<(Job, &'static str)>,
    /// What each chunk of each batch brought.
    pub(super) chunks: BTreeMap<usize, Vec<(u64, u64)>>,
}

pub(super) fn count(counters: &mut Counters, name: &str, by: i64) {
    *counters.entry(name.to_owned()).or_default() += by;
    counters.retain(|_, n| *n != 0);
}

pub(super) fn link(n: usize) -> String {
    format!("https://{}/{n}.jpg", HOSTS[n % HOSTS.len()])
}

pub(super) fn batch_id(n: usize) -> BatchId {
    BatchId::from_random(n as u64 + 1)
}

pub(super) fn batch_of(id: JobId) -> Option<usize> {
    (0..BATCHES).find(|n| id.batch() == Some(batch_id(*n)))
}

pub(super) fn job_of(payload: &str) -> Job {
    Job::read(payload.as_bytes(), 0).unwrap()
}

pub(super) fn is_bare(payload: &str) -> bool {
    !payload.starts_with('{')
}

/// The id of an element, which a bare one has not got yet. Cut out, as reading all elements at each look takes a while.
pub(super) fn id_of(payload: &str) -> Option<&str> {
    payload.strip_prefix(r#"{"id":""#)?.get(..32)
}

/// What is compared of an entry of `results` or `dead`.
pub(super) fn line<'a>(field: impl Fn(&str) -> Option<&'a str>, worker: &str) -> String {
    let named = ["id", "url", "outcome", "reason", "bytes", "attempts", "batch", "job"];
    let words: Vec<String> = named.iter().filter_map(|name| Some(format!("{name}={}", field(name)?))).collect();
    format!("{} worker={worker}", words.join(" "))
}

impl Model {
    pub(super) fn renew(&mut self, worker: &str) {
        self.state.workers.insert(worker.to_owned(), 0);
        self.pending.push(Pending::Lease(worker.to_owned()));
    }

    pub(super) fn register(&mut self, worker: &str) {
        self.renew(worker);
        self.numbers.insert(worker.to_owned(), 0);
    }

    pub(super) fn is_registered(&self, worker: &str) -> bool {
        self.state.workers.contains_key(worker)
    }

    pub(super) fn strike_off(&mut self, worker: &str) {
        self.state.workers.remove(worker);
        self.state.alone.remove(worker);
        self.state.suspects.remove(worker);
        self.state.trials.remove(worker);
        self.numbers.remove(worker);
        self.hosts_change(|host| drop(host.prober.take_if(|prober| prober == worker)));
    }

    pub(super) fn lease_is_over(&self, worker: &str) -> bool {
        self.state.workers.get(worker).is_some_and(|expiry| *expiry <= self.now)
    }

    pub(super) fn held_by(&self, worker: &str) -> BTreeMap<Order, String> {
        self.state.in_flight.get(worker).cloned().unwrap_or_default()
    }

    pub(super) fn take_from(&mut self, worker: &str, field: Order) -> Option<String> {
        let held = self.state.in_flight.get_mut(worker)?;
        let payload = held.remove(&field);
        if held.is_empty() {
            self.state.in_flight.remove(worker);
        }
        payload
    }

    pub(super) fn crashes_of(&self, payload: &str) -> Crashes {
        id_of(payload).and_then(|id| self.state.crashes.get(id).copied()).unwrap_or_default()
    }

    /// Whether a worker may start a suspect: one at least of three workers has some at a time, and each as many as the last death left.
    fn may_try(&self, worker: &str, suspect: Crashes) -> bool {
        let (here, most) = self.state.suspects.get(worker).copied().unwrap_or((0, usize::MAX));
        let others = self.state.trials.iter().filter(|name| self.is_registered(name)).count();
        here < most.min(suspect.group) && (here > 0 || others < (self.state.workers.len() / 5).max(1))
    }

    fn no_longer_has(&mut self, worker: &str, suspects: usize) {
        let Some((here, _)) = self.state.suspects.get_mut(worker).filter(|_| suspects > 0) else { return };
        *here -= suspects;
        if *here == 0 {
            self.state.suspects.remove(worker);
            self.state.trials.remove(worker);
        }
    }

    pub(super) fn put_in_front(&mut self, payloads: impl IntoIterator<Item = String>) {
        self.state.ready.splice(0..0, payloads);
    }

    /// A chunk is added once and in its turn; dedup leaves out what it knows, within the chunk as well.
    pub(super) fn push(&mut self, batch: usize, chunk: &Chunk) -> Result<(u64, u64), Refused> {
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

    /// Due delayed jobs first, the longest due before others, then the front; a suspect alone, and nothing past one. Those whose host
    /// may not be asked are put aside on the way.
    pub(super) fn claim(&mut self, worker: &str, number: u64, max: usize) -> Claimed {
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
            let waits = crashes.is_suspect() && !self.may_try(worker, crashes);
            if crashes.runs_alone() && !waits && !jobs.is_empty() {
                break;
            }
            match first_due {
                Some(payload) => drop(self.state.delayed.remove(&payload)),
                None => drop(self.state.ready.remove(0)),
            }
            if waits {
                self.state.delayed.insert(payload.clone(), u64::MAX);
                self.pending.push(Pending::Line(payload, self.now + 500, self.now + 1500));
                continue;
            }
            let admissions = match self.admissions(worker, &payload) {
                Ok(admissions) => admissions,
                Err(host) => {
                    self.put_in_line(&host, payload);
                    continue;
                }
            };
            let field = (number, jobs.len() as u64 + 1);
            if is_bare(&payload) {
                self.pending.push(Pending::Id(worker.to_owned(), field));
            }
            self.state.in_flight.entry(worker.to_owned()).or_default().insert(field, payload);
            jobs.push((field, crashes.count, admissions));
            if crashes.is_suspect() {
                let (here, most) = self.state.suspects.get(worker).copied().unwrap_or((0, 1000));
                self.state.suspects.insert(worker.to_owned(), (here + 1, most.min(crashes.group)));
                self.state.trials.insert(worker.to_owned());
            }
            if crashes.runs_alone() {
                break;
            }
        }
        Claimed::Jobs(jobs)
    }

    /// A job waits for `host`.
    fn put_in_line(&mut self, host: &str, payload: String) {
        count(&mut self.state.stats, "held", 1);
        let (from, to) = self.line_of(host);
        if is_bare(&payload) {
            self.pending.push(Pending::LineOfBare(payload, from, to));
        } else {
            // Nobody finds it due before it was seen when it is.
            self.state.delayed.insert(payload.clone(), u64::MAX);
            self.pending.push(Pending::Line(payload, from, to));
        }
    }

    /// Acts on what the worker holds and on nothing else. What is given back is at the front again, in its order.
    pub(super) fn settle(&mut self, worker: &str, settlements: &[(LeaseField, Settlement)]) -> Vec<bool> {
        let mut given_back = Vec::new();
        let mut accepted = Vec::new();
        let mut suspects = 0;
        for (field, settlement) in settlements {
            let Some(payload) = self.take_from(worker, field.order()) else {
                accepted.push(false);
                continue;
            };
            accepted.push(true);
            if self.state.alone.get(worker) == Some(&field.order()) {
                self.state.alone.remove(worker);
            }
            suspects += usize::from(self.crashes_of(&payload).is_suspect());
            // An attempt that came to an end clears the job of the crashes it was there at.
            if !matches!(settlement, Settlement::Release | Settlement::Hold { .. }) {
                self.state.crashes.remove(&job_of(&payload).id.to_string());
            }
            match settlement {
                Settlement::Hold { host, job } => {
                    self.put_in_line(host, job.as_ref().map_or(payload, |job| job.write()));
                }
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
        self.no_longer_has(worker, suspects);
        accepted
    }

    /// One result; a failed job is among the dead too, and its link may be enqueued again.
    pub(super) fn finish(&mut self, worker: &str, report: &Report, payload: String) {
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
            count(batch, &format!("host:{}", host_in(&report.url)), 1);
        }
    }

    /// Whether a worker died with most of the fleet, three at least: their leases ended within half a lease of each other.
    fn died_with_most(&mut self, worker: &str) -> bool {
        let end = self.state.workers[worker];
        let together = self.state.deaths.filter(|(from, to, _)| end + 3000 >= *to && end <= from + 3000);
        let (from, to, recovered) = together.map_or((end, end, 0), |(from, to, n)| (from.min(end), to.max(end), n));
        self.state.deaths = Some((from, to, recovered + 1));
        let is_dead = |end: &&u64| **end + 3000 >= to && **end <= from + 3000;
        let dead = recovered + self.state.workers.values().filter(is_dead).count() as u64;
        // Everybody has been there for long.
        let fleet = recovered + self.state.workers.len() as u64;
        dead >= 3 && 2 * dead > fleet
    }

    /// The jobs of a dead worker are at the front again, in the order of their claims. Of many deaths at once none is a job's doing,
    /// but whoever was there at five is a suspect. Otherwise the job that ran alone is to blame alone; or one of the suspects that ran,
    /// so that half as many run together from now on; or else any, but for a suspect that only waited to run alone.
    pub(super) fn recover(&mut self, worker: &str) -> Option<(u64, bool)> {
        if !self.lease_is_over(worker) {
            return None;
        }
        let of_many = self.died_with_most(worker);
        let jobs = self.state.in_flight.remove(worker).unwrap_or_default();
        let alone = self.state.alone.get(worker).copied();
        let (mut suspected, mut halved) = (Vec::new(), Vec::new());
        let tried = jobs.values().filter(|payload| self.crashes_of(payload).group > 1).count();
        for (field, payload) in &jobs {
            let Some(id) = id_of(payload).map(str::to_owned) else { continue };
            let mut crashes = self.crashes_of(payload);
            match (of_many, alone) {
                (true, _) if crashes.count < 2 => {
                    crashes.deaths += 1;
                    if crashes.deaths == 5 {
                        suspected.push(id.clone());
                    }
                }
                (false, Some(alone)) if alone == *field => {
                    crashes = Crashes { count: crashes.count + 1, ..Crashes::default() }
                }
                (false, None) if crashes.group > 1 => halved.push(id.clone()),
                (false, None) if tried == 0 && crashes.count < 2 => {
                    crashes.count += 1;
                    if crashes.count == 2 {
                        suspected.push(id.clone());
                    }
                }
                _ => {}
            }
            if crashes != Crashes::default() {
                self.state.crashes.insert(id, crashes);
            }
        }
        for (suspects, group) in [(&suspected, suspected.len()), (&halved, (halved.len() / 2).max(1))] {
            // So few run alone, one after the other.
            let group = if group > 4 { group } else { 1 };
            for id in suspects {
                self.state.crashes.insert(id.clone(), Crashes { count: 2, group, deaths: 0 });
            }
        }
        let number = jobs.len();
        count(&mut self.state.stats, "recovered", number as i64);
        self.put_in_front(jobs.into_values());
        self.strike_off(worker);
        Some((number as u64, of_many))
    }

    /// After a silence everybody gets a lease; so does whoever's expiry is further away than that, and the worker itself.
    /// Returns whether it is alive, and those whose lease is over.
    pub(super) fn heartbeat(&mut self, worker: &str) -> (bool, BTreeSet<String>) {
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

    pub(super) fn unregister(&mut self, worker: &str) -> bool {
        if !self.held_by(worker).is_empty() {
            return false;
        }
        self.strike_off(worker);
        true
    }

    /// Back on the queue, at its end, with all attempts unspent; it is not `failed` any more, and dedup knows its link.
    pub(super) fn settle_dead(&mut self, action: DeadAction, which: &[usize]) {
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
                count(batch, &format!("host:{}", host_in(&job.url)), -1);
            }
            self.state.ready.push(Job { attempts: 0, held: 0, last_reason: None, ..job }.write());
        }
        for at in which.iter().rev() {
            self.dead_jobs.remove(*at);
        }
    }

    /// A job that waited is nowhere any more: counted, its link forgotten, its crashes too.
    pub(super) fn purge(&mut self, payload: &str) {
        count(&mut self.state.stats, "purged", 1);
        if is_bare(payload) {
            self.seen.remove(payload);
            self.bare.0 -= 1;
            return;
        }
        let job = job_of(payload);
        self.seen.remove(&job.url);
        self.state.crashes.remove(&job.id.to_string());
        *self.purged.entry(job.id.to_string()).or_default() += 1;
        if let Some(batch) = batch_of(job.id).and_then(|batch| self.state.batches.get_mut(&batch)) {
            count(batch, "purged", 1);
        }
    }

    /// A batch is finished exactly while it is sealed and has as many results as jobs, those that were purged left out.
    pub(super) fn mark_finished(&mut self) {
        for counters in self.state.batches.values_mut() {
            let number = |name: &str| counters.get(name).copied().unwrap_or(0);
            let done = number("stored") + number("rejected") + number("failed") + number("purged");
            let finished = number("sealed") == 1 && done == number("enqueued");
            counters.remove("finished");
            count(counters, "finished", finished.into());
        }
    }
}

/// Why a chunk is not taken.
#[derive(Debug, PartialEq)]
pub(super) enum Refused {
    NoSuchBatch,
    Gap(u64),
}

/// What the model says of a claim; the payloads stand in its state.
#[derive(Debug, PartialEq)]
pub(super) enum Claimed {
    Jobs(Vec<(Order, i64, Admissions)>),
    Paused,
    Stale,
    Reaped,
}
