//! What the whole queue looks like at one instant: sizes, counters, workers. O(workers), whatever the queue's length.

use super::Queue;
use super::batches::BatchState;
use crate::scripts::{Call, Reply, TYPES, part, script};
use common::error::QueueError;
use common::job::{BatchId, Job};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

script! {
    // No transaction: Redis refuses even one that only reads when its memory is full.
    StatusScript from "status.lua", only reads;
    with [TYPES];
    keys [ready_key, delayed_key, dead_key, results_key, stats_key, meta_key, workers_key], then parts_from;
    args [batches_asked: usize];
    parts [OfBatch, OfWorker]
}

part! {
    OfBatch as PROGRESS {
        keys [batch_key]
    }
}

part! {
    OfWorker as WORKER {
        keys [inflight_key, worker_key]
    }
}

/// How many of the newest batches are looked through for the one whose jobs wait longest: 0.2 ms for Redis, measured.
const LOOK_THROUGH: usize = 200;
/// What has to be known of a batch for that, in the order in which `status.lua` tells it.
const PROGRESS: [&str; 6] = ["started", "enqueued", "stored", "rejected", "failed", "purged"];
/// Twice as long as a job waits that no worker knows, and some time for it to be claimed.
const UNKNOWN_LATELY_MS: u64 = 15_000;
/// Nobody waits for longer than three years, and what is longer is of no use to anybody.
const TIME_LEFT_MAX_SECONDS: f64 = 1e8;

/// One worker process, for people.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct WorkerState {
    /// Its name.
    pub worker: String,
    /// The host it says it runs on.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Jobs it holds.
    pub in_flight: u64,
    /// Attempts that ended a second, over its last few seconds.
    pub rate: f64,
    /// Attempts that ended since it started.
    pub done: u64,
    /// When it started (ms since 1970, Redis clock).
    pub started: u64,
    /// Since it was last heard of.
    pub seen_ms_ago: u64,
    /// Why it claims nothing at the moment; empty when it does.
    pub waiting: String,
    /// Its busiest hosts, at most [`WorkerHost::AT_MOST`].
    pub hosts: Vec<WorkerHost>,
}

impl WorkerState {
    /// What a worker says of itself is for people: what it does not say, or says as nobody can read it, is left out, and takes no
    /// status away from anybody. Redis' own answers are read before.
    fn read(name: &str, in_flight: u64, facts: &HashMap<String, String>, now_ms: u64) -> WorkerState {
        let text = |name: &str| facts.get(name).cloned().unwrap_or_default();
        WorkerState {
            worker: name.to_owned(),
            host: text("host"),
            pid: text("pid").parse().unwrap_or(0),
            version: text("version"),
            in_flight,
            rate: text("rate").parse().unwrap_or(0.0),
            done: text("done").parse().unwrap_or(0),
            started: text("started").parse().unwrap_or(0),
            seen_ms_ago: now_ms.saturating_sub(text("seen").parse().unwrap_or(now_ms)),
            waiting: text("waiting"),
            hosts: WorkerHost::read(&text("hosts")),
        }
    }
}

/// What one worker did with one host lately.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct WorkerHost {
    /// As [`host_of`](common::host::host_of) names it.
    pub host: String,
    /// Attempts that ended, a second.
    pub rate: f64,
    /// Attempts under way.
    pub in_flight: u64,
    /// The share of those that ended and stored nothing, 0 to 1.
    pub failed_share: f64,
}

impl WorkerHost {
    /// As many as a worker tells of.
    pub const AT_MOST: usize = 10;

    /// As a fact of a worker: one array for each host.
    pub fn write(hosts: &[WorkerHost]) -> String {
        let round = |number: f64| (number * 100.0).round() / 100.0;
        let rows: Vec<_> = hosts
            .iter()
            .map(|h| serde_json::json!([h.host, round(h.rate), h.in_flight, round(h.failed_share)]))
            .collect();
        serde_json::Value::Array(rows).to_string()
    }

    fn read(text: &str) -> Vec<WorkerHost> {
        let rows: Vec<(String, f64, u64, f64)> = serde_json::from_str(text).unwrap_or_default();
        let hosts = rows.into_iter().take(WorkerHost::AT_MOST);
        hosts.map(|(host, rate, in_flight, failed_share)| WorkerHost { host, rate, in_flight, failed_share }).collect()
    }
}

/// The queue at one instant.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are those of `status --json`")]
pub struct Status {
    pub queue: String,
    pub ready: u64,
    pub in_flight: u64,
    pub delayed: u64,
    pub dead: u64,
    pub results: u64,
    pub stored: u64,
    pub rejected: u64,
    pub failed: u64,
    pub bytes: u64,
    pub paused: bool,
    pub workers: Vec<WorkerState>,
    /// Results by `outcome:reason`; those without a reason are not among them.
    pub reasons: BTreeMap<String, u64>,
    /// How long ago the enqueue of the oldest job that waits began, in `ready` or in `delayed`, where that is known: nobody knows
    /// when a job was pushed by hand.
    pub oldest_ms: Option<u64>,
    /// Of jobs that wait for a worker that knows them what it has to know, `version 2` or `kind "slice"`; empty where none was met lately.
    pub unknown_jobs: String,
}

impl Status {
    /// Jobs that wait to be claimed, at once or at a time.
    pub fn waiting(&self) -> u64 {
        self.ready + self.delayed
    }

    /// Jobs that have no result yet.
    pub fn left(&self) -> u64 {
        self.waiting() + self.in_flight
    }

    /// Jobs that have a result.
    pub fn ended(&self) -> u64 {
        self.stored + self.rejected + self.failed
    }

    /// Jobs that have a result and were not stored.
    pub fn not_stored(&self) -> u64 {
        self.rejected + self.failed
    }

    /// Jobs that were stored and have no reason beside that, such as `exists`.
    pub fn stored_without_reason(&self) -> u64 {
        let with_reason: u64 =
            self.reasons.iter().filter(|(name, _)| name.starts_with("stored:")).map(|(_, jobs)| jobs).sum();
        self.stored.saturating_sub(with_reason)
    }

    /// Jobs that end in a second, all workers together, over their last few seconds.
    pub fn jobs_a_second(&self) -> f64 {
        // Not `sum`, which makes -0.0 of none.
        self.workers.iter().fold(0.0, |sum, worker| sum + worker.rate)
    }

    /// When all jobs that there are will have ended.
    pub fn time_left(&self) -> TimeLeft {
        match (self.left(), time_left(self.left(), self.jobs_a_second())) {
            (0, _) => TimeLeft::Nothing,
            _ if self.paused => TimeLeft::Paused,
            (_, Some(time)) => TimeLeft::About(time),
            (_, None) => TimeLeft::Unknown,
        }
    }

    /// The workers, the busiest first.
    pub fn busiest_workers(&self) -> Vec<&WorkerState> {
        let mut workers: Vec<_> = self.workers.iter().collect();
        workers.sort_by(|a, b| b.rate.total_cmp(&a.rate).then_with(|| a.worker.cmp(&b.worker)));
        workers
    }
}

/// When the jobs of a queue will have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLeft {
    /// All have.
    Nothing,
    /// Not before somebody resumes.
    Paused,
    /// Nobody works on them, or nothing has ended lately.
    Unknown,
    /// In so long, at the present pace.
    About(Duration),
}

/// How long `left` jobs take at a pace; `None` while nothing moves.
pub fn time_left(left: u64, jobs_a_second: f64) -> Option<Duration> {
    (jobs_a_second > 0.0).then(|| Duration::from_secs_f64((left as f64 / jobs_a_second).min(TIME_LEFT_MAX_SECONDS)))
}

impl Queue {
    /// What time it is for Redis, ms since 1970.
    ///
    /// # Errors
    /// As every call.
    pub async fn now_ms(&self) -> Result<u64, QueueError> {
        let mut pipe = redis::pipe();
        pipe.cmd("TIME");
        self.channel.replies("ask for the time", &pipe).await?.time_ms()
    }

    /// Reads everything at one instant, so that no job is counted twice or missed between two reads. Two round trips, and one more
    /// each time a worker came or went in between.
    ///
    /// # Errors
    /// As every call.
    pub async fn status(&self) -> Result<Status, QueueError> {
        let mut pipe = redis::pipe();
        pipe.zrange(self.keys.workers(), 0, -1)
            .lindex(self.keys.ready(), 0)
            .zrange(self.keys.delayed(), 0, 0)
            .add_command(self.list_newest_batches(LOOK_THROUGH));
        let mut reply = self.channel.replies("list workers", &pipe).await?;
        let (mut names, first_ready) = (reply.texts("names of workers")?, reply.bytes_or_nil("the first job")?);
        let mut due = reply.list("the first delayed job")?;
        let first_delayed = if due.len() > 0 { Some(due.bytes("the first delayed job")?) } else { None };
        let newest = reply.texts("the newest batches")?;
        let batches = batches_that_may_wait(first_ready.into_iter().chain(first_delayed), &newest);
        loop {
            let mut reply = self.channel.run("read the status", &self.status_call(&batches, &names)).await?;
            let (ready, delayed) = (reply.count("jobs that are ready")?, reply.count("jobs that are delayed")?);
            let (dead, results) = (reply.count("dead jobs")?, reply.count("results")?);
            let stats = reply.fields("counters")?;
            let meta: HashMap<String, String> = reply.fields("facts of the queue")?.into_iter().collect();
            self.known(meta.get("schema").map(String::as_str))?;
            let names_now = reply.texts("names of workers")?;
            let now_ms = reply.time_ms()?;
            if sorted(&names_now) != sorted(&names) {
                names = names_now;
                continue;
            }
            let waiting = progress_of(&batches, reply.list("batches")?)?;
            let waits: u64 = ready + delayed;
            let oldest_started = earliest_with_jobs_left(waiting.into_iter()).filter(|_| waits > 0);
            let mut workers = Vec::with_capacity(names.len());
            let mut of_workers = reply.list("workers")?;
            for name in &names {
                let in_flight = of_workers.count("jobs that a worker holds")?;
                workers.push(WorkerState::read(name, in_flight, &of_workers.fields("facts of a worker")?, now_ms));
            }
            of_workers.end()?;
            reply.end()?;
            // A counter that nobody made anything of yet is not there; one that somebody made a text of starts anew.
            let counter = |name: &str| stats.get(name).and_then(|n| n.parse().ok()).unwrap_or(0);
            return Ok(Status {
                queue: self.name.clone(),
                ready,
                in_flight: workers.iter().map(|w| w.in_flight).sum(),
                delayed,
                dead,
                results,
                stored: counter("stored"),
                rejected: counter("rejected"),
                failed: counter("failed"),
                bytes: counter("bytes"),
                paused: meta.contains_key("paused"),
                unknown_jobs: unknown_jobs(&meta, now_ms),
                workers,
                reasons: stats
                    .iter()
                    .filter(|(name, _)| name.contains(':'))
                    .filter_map(|(name, n)| Some((name.clone(), n.parse().ok().filter(|n| *n > 0)?)))
                    .collect(),
                oldest_ms: oldest_started.map(|started| now_ms.saturating_sub(started)),
            });
        }
    }

    fn status_call(&self, batches: &BTreeSet<BatchId>, workers: &[String]) -> Call {
        let mut call = StatusScript {
            ready_key: self.keys.ready(),
            delayed_key: self.keys.delayed(),
            dead_key: self.keys.dead(),
            results_key: self.keys.results(),
            stats_key: self.keys.stats(),
            meta_key: self.keys.meta(),
            workers_key: self.keys.workers(),
            batches_asked: batches.len(),
        }
        .call();
        for batch in batches {
            OfBatch { batch_key: self.keys.batch(*batch) }.add_to(&mut call);
        }
        for name in workers {
            let part = OfWorker { inflight_key: self.keys.inflight(name), worker_key: self.keys.worker(name) };
            part.add_to(&mut call);
        }
        call
    }
}

/// What workers told of jobs that they do not know, where that was lately: such a job is looked at every few seconds.
fn unknown_jobs(meta: &HashMap<String, String>, now_ms: u64) -> String {
    let seen_ms = meta.get("unknown_seen").and_then(|ms| ms.parse().ok()).unwrap_or(0);
    let is_lately = now_ms.saturating_sub(seen_ms) < UNKNOWN_LATELY_MS;
    meta.get("unknown").filter(|_| is_lately).cloned().unwrap_or_default()
}

/// What is known of the progress of these batches.
fn progress_of(batches: &BTreeSet<BatchId>, mut reply: Reply) -> Result<Vec<BatchState>, QueueError> {
    let mut states = Vec::with_capacity(batches.len());
    for batch in batches {
        let mut progress = reply.list("the progress of a batch")?;
        let mut fields = Vec::with_capacity(PROGRESS.len());
        for name in PROGRESS {
            if let Some(value) = progress.text_or_nil("a counter of a batch")? {
                fields.push((name.to_owned(), value));
            }
        }
        states.push(BatchState::from_fields(batch.to_string(), fields));
    }
    reply.end()?;
    Ok(states)
}

/// The batches among which the oldest job that waits is looked for: the newest ones, and those of the first job of `ready` and of
/// the first that is due in `delayed`. None when no job waits.
///
/// Neither first job is the oldest by itself. What was put aside for its host stands in `delayed` by the time at which it may start,
/// and in front of `ready` are jobs that were given back, or that somebody pushed by hand. So all batches of late are asked how
/// many of their jobs are left, which costs Redis the same however long the queue is.
fn batches_that_may_wait(first_jobs: impl Iterator<Item = Vec<u8>>, newest: &[String]) -> BTreeSet<BatchId> {
    let mut first_jobs = first_jobs.peekable();
    if first_jobs.peek().is_none() {
        return BTreeSet::new();
    }
    let of_first_jobs = first_jobs.filter_map(|job| Job::read(&job, 0).ok()?.id.batch());
    newest.iter().filter_map(|id| id.parse().ok()).chain(of_first_jobs).collect()
}

/// When the first of those batches began that have jobs without a result. One that was broken off and has none waits for nothing.
fn earliest_with_jobs_left(batches: impl Iterator<Item = BatchState>) -> Option<u64> {
    batches.filter(|batch| batch.left() > 0 && batch.started > 0).map(|batch| batch.started).min()
}

fn sorted(names: &[String]) -> Vec<&String> {
    let mut sorted: Vec<_> = names.iter().collect();
    sorted.sort();
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(ready: u64, rate: f64, paused: bool) -> Status {
        let workers = vec![WorkerState { rate, ..WorkerState::default() }];
        Status { ready, delayed: ready, in_flight: ready, workers, paused, ..Status::default() }
    }

    #[test]
    fn the_time_left_is_told_where_anything_moves() {
        assert_eq!(status(0, 5.0, true).time_left(), TimeLeft::Nothing);
        assert_eq!(status(2, 5.0, true).time_left(), TimeLeft::Paused);
        assert_eq!(status(2, 0.0, false).time_left(), TimeLeft::Unknown);
        assert_eq!(status(2, 1.5, false).time_left(), TimeLeft::About(Duration::from_secs(4)));
        assert_eq!(time_left(u64::MAX, 1e-9), Some(Duration::from_secs(100_000_000)));
    }

    #[test]
    fn a_job_counts_once_wherever_it_is() {
        let reasons = [("stored:exists", 2), ("rejected:gone", 3)].map(|(name, jobs)| (name.to_owned(), jobs)).into();
        let status = Status { stored: 5, rejected: 3, failed: 1, reasons, ..status(2, 0.0, false) };
        assert_eq!((status.waiting(), status.left(), status.ended(), status.not_stored()), (4, 6, 9, 4));
        assert_eq!(status.stored_without_reason(), 3);
    }

    #[test]
    fn the_oldest_job_is_of_the_earliest_batch_that_is_not_done() {
        let batch = |started, enqueued, stored, purged| BatchState {
            started,
            enqueued,
            stored,
            purged,
            ..BatchState::default()
        };
        let batches = [batch(1, 3, 1, 2), batch(0, 9, 0, 0), batch(5, 3, 1, 1), batch(4, 2, 1, 0), batch(2, 0, 0, 0)];
        assert_eq!(earliest_with_jobs_left(batches.into_iter()), Some(4));
        let job = |id: &str| format!(r#"{{"id":"{id}","url":"https://x.org/1.jpg"}}"#).into_bytes();
        let first = [job("0000000000ab80008000000000000001"), b"https://x.org/by-hand.jpg".to_vec()];
        let known = batches_that_may_wait(first.into_iter(), &["0000000000cd".into(), "0000000000ab".into()]);
        assert_eq!(known.iter().map(BatchId::to_string).collect::<Vec<_>>(), ["0000000000ab", "0000000000cd"]);
        assert!(batches_that_may_wait(std::iter::empty(), &["0000000000cd".into()]).is_empty());
    }
}
