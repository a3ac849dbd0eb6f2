//! What the whole queue looks like at one instant: sizes, counters, workers. O(workers), whatever the queue's length.

use super::Queue;
use common::error::QueueError;
use common::job::Job;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

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
    /// Results a second, over its last few seconds.
    pub rate: f64,
    /// Results since it started.
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
#[allow(missing_docs, reason = "the names are those of `status --json`, described in the contract")]
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
    /// How long ago the enqueue of the first job in the queue began, where that is known.
    pub oldest_ms: Option<u64>,
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

    /// Reads everything in one transaction, so that no job is counted twice or missed between two reads. Two round
    /// trips, and two more each time a worker came or went in between.
    ///
    /// # Errors
    /// As every call.
    pub async fn status(&self) -> Result<Status, QueueError> {
        let mut pipe = redis::pipe();
        pipe.zrange(self.keys.workers(), 0, -1).lindex(self.keys.ready(), 0);
        let mut reply = self.channel.replies("list workers", &pipe).await?;
        let (mut names, first_job) = (reply.texts("names of workers")?, reply.bytes_or_nil("the first job")?);
        // A bare URL has no batch, and none has this name.
        let first_batch = first_job.and_then(|job| Job::read(&job, 0).ok()?.id.batch());
        let first_batch = first_batch.map_or_else(String::new, |batch| batch.to_string());
        loop {
            let mut pipe = redis::pipe();
            pipe.atomic()
                .llen(self.keys.ready())
                .zcard(self.keys.delayed())
                .xlen(self.keys.dead())
                .xlen(self.keys.results())
                .hgetall(self.keys.stats())
                .hgetall(self.keys.meta())
                .zrange(self.keys.workers(), 0, -1)
                .cmd("TIME")
                .zscore(self.keys.batches(), &first_batch);
            for name in &names {
                pipe.hlen(self.keys.inflight(name)).hgetall(self.keys.worker(name));
            }
            let mut reply = self.channel.replies("read the status", &pipe).await?;
            let (ready, delayed) = (reply.count("jobs that are ready")?, reply.count("jobs that are delayed")?);
            let (dead, results) = (reply.count("dead jobs")?, reply.count("results")?);
            let stats = reply.fields("counters")?;
            let is_paused = reply.fields("facts of the queue")?.contains_key("paused");
            let names_now = reply.texts("names of workers")?;
            let now_ms = reply.time_ms()?;
            let first_started_ms = reply.score_or_nil("when the first job's batch began")?;
            if sorted(&names_now) != sorted(&names) {
                names = names_now;
                continue;
            }
            let mut workers = Vec::with_capacity(names.len());
            for name in &names {
                let in_flight = reply.count("jobs that a worker holds")?;
                workers.push(WorkerState::read(name, in_flight, &reply.fields("facts of a worker")?, now_ms));
            }
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
                paused: is_paused,
                workers,
                reasons: stats
                    .iter()
                    .filter(|(name, _)| name.contains(':'))
                    .filter_map(|(name, n)| Some((name.clone(), n.parse().ok().filter(|n| *n > 0)?)))
                    .collect(),
                oldest_ms: first_started_ms.map(|started_ms| now_ms.saturating_sub(started_ms as u64)),
            });
        }
    }
}

fn sorted(names: &[String]) -> Vec<&String> {
    let mut sorted: Vec<_> = names.iter().collect();
    sorted.sort();
    sorted
}
