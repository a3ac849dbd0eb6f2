//! A worker's life in Redis: its name, its lease, its heartbeat, and the recovery of those that died.

use super::Queue;
use super::tidy::DUE;
use crate::scripts::{COUNTERS, Call, IN_PARTS, JOBS, Piece, Reply, TIME, TYPES, piece, script};
use common::error::QueueError;
use common::job::SCHEMA_VERSION;
use std::fmt;
use std::time::Duration;

/// What is remembered of the crashes of jobs.
pub(super) const CRASHES: Piece = piece!("crashes.lua");
/// Keeping leases honest.
const LEASES: Piece = piece!("leases.lua");

script! {
    RegisterScript<'a> from "register.lua";
    with [TIME, TYPES];
    keys [workers_key, worker_key, meta_key, workers_since_key];
    args [worker: &'a str, lease_ms: u64, schema: u32], then facts_from;
}

script! {
    HeartbeatScript<'a> from "heartbeat.lua";
    with [TIME, TYPES, LEASES, DUE];
    keys [
        workers_key, worker_key, meta_key, delayed_key, ready_key, dead_key, stats_key, history_fine_key, history_coarse_key,
        workers_since_key,
    ];
    args [worker: &'a str, lease_ms: u64, expired_max: usize, pick: u32], then facts_from;
}

script! {
    RecoverScript<'a> from "recover.lua";
    with [TIME, TYPES, COUNTERS, IN_PARTS, JOBS, CRASHES];
    keys [
        workers_key, inflight_key, worker_key, ready_key, crashes_key, stats_key, meta_key, workers_since_key, trials_key,
    ];
    args [worker: &'a str, lease_ms: u64];
}

script! {
    UnregisterScript<'a> from "unregister.lua";
    with [TYPES];
    keys [workers_key, inflight_key, worker_key, workers_since_key, trials_key];
    args [worker: &'a str];
}

/// Workers whose lease is over that one heartbeat names.
const EXPIRED_MAX: usize = 8;

const LEASE_MS: u64 = LEASE.as_millis() as u64;

/// How long a worker may be silent before its jobs are taken from it. With a heartbeat every [`Heartbeat::EVERY`], and
/// the others looking just when a lease ends, jobs of a killed worker run elsewhere after 4.5 to 7 seconds.
pub const LEASE: Duration = Duration::from_secs(6);

/// The name of one worker process: fresh for each start, and for each time it was taken for dead. A name that is used
/// again would take over the in-flight jobs of the process before it, and hide that it died.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerName(String);

impl WorkerName {
    /// A new name out of the host's name, the process id and 32 random bits.
    pub fn fresh() -> WorkerName {
        let host = host_name();
        WorkerName(format!("{host}-{}-{:08x}", std::process::id(), fastrand::u32(..)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The host's name in letters that are harmless in a Redis key, at most 40 of them.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let clean: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' })
        .take(40)
        .collect();
    if clean.is_empty() { "host".into() } else { clean }
}

/// What a heartbeat told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Whether this worker still has its lease. If not: abandon everything and take a fresh name.
    pub alive: bool,
    /// Until the next lease of anybody ends.
    pub next_end: Option<Duration>,
    /// Workers whose lease is over, to be recovered now.
    pub expired: Vec<String>,
    /// There are more of them than one heartbeat names.
    pub has_more: bool,
    /// Somebody is to call [`Queue::tidy`].
    pub tidy_is_due: bool,
}

impl Heartbeat {
    /// A quarter of the lease: two may be lost before anyone is taken for dead.
    pub const EVERY: Duration = Duration::from_millis(1500);

    fn read(mut reply: Reply) -> Result<Heartbeat, QueueError> {
        let alive = reply.flag("whether the worker is registered")?;
        let next_end_ms = reply.count_unless_minus_one("ms until the next lease ends, or -1")?;
        let expired_in_all: usize = reply.count("how many leases are over")?;
        let tidy_is_due = reply.flag("whether something can be forgotten")?;
        let mut expired = Vec::with_capacity(reply.len());
        while reply.len() > 0 {
            expired.push(reply.text("a worker whose lease is over")?);
        }
        let has_more = expired_in_all > expired.len();
        Ok(Heartbeat { alive, next_end: next_end_ms.map(Duration::from_millis), expired, has_more, tidy_is_due })
    }
}

/// What was recovered of a worker that died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Jobs that are back in the queue.
    pub jobs: u64,
    /// Most of the fleet died with it, so that no job is taken to have killed it.
    pub is_of_many: bool,
}

/// Facts about a worker, as names and values for HSET.
fn add_facts(call: &mut Call, facts: &[(&str, String)]) {
    for (name, value) in facts {
        call.arg(*name);
        call.arg(value.as_str());
    }
}

impl Queue {
    /// Enters a worker with a whole lease. `facts` are for people: host, pid, version, …
    ///
    /// # Errors
    /// [`QueueError::Schema`] when a newer imgq wrote this queue, or as every call.
    pub async fn register(&self, worker: &WorkerName, facts: &[(&str, String)]) -> Result<(), QueueError> {
        let call = RegisterScript {
            workers_key: self.keys.workers(),
            worker_key: self.keys.worker(worker.as_str()),
            meta_key: self.keys.meta(),
            workers_since_key: self.keys.workers_since(),
            worker: worker.as_str(),
            lease_ms: LEASE_MS,
            schema: SCHEMA_VERSION,
        };
        let mut call = call.call();
        let about_this = [("host", host_name()), ("pid", std::process::id().to_string())];
        add_facts(&mut call, &about_this);
        add_facts(&mut call, facts);
        let mut reply = self.channel.run("register a worker", &call).await?;
        let is_registered = reply.word("whether it is registered", &[("ok", true), ("schema", false)])?;
        let found = reply.count("the queue's schema")?;
        reply.end()?;
        if is_registered {
            Ok(())
        } else {
            Err(QueueError::Schema { queue: self.name.clone(), found, known: SCHEMA_VERSION })
        }
    }

    /// Renews the lease of `worker`, records `facts`, and names those whose lease is over.
    ///
    /// # Errors
    /// As every call.
    pub async fn heartbeat(&self, worker: &WorkerName, facts: &[(&str, String)]) -> Result<Heartbeat, QueueError> {
        let call = HeartbeatScript {
            workers_key: self.keys.workers(),
            worker_key: self.keys.worker(worker.as_str()),
            meta_key: self.keys.meta(),
            delayed_key: self.keys.delayed(),
            ready_key: self.keys.ready(),
            dead_key: self.keys.dead(),
            stats_key: self.keys.stats(),
            history_fine_key: self.keys.history_fine(),
            history_coarse_key: self.keys.history_coarse(),
            workers_since_key: self.keys.workers_since(),
            worker: worker.as_str(),
            lease_ms: LEASE_MS,
            expired_max: EXPIRED_MAX,
            pick: fastrand::u32(..),
        };
        let mut call = call.call();
        add_facts(&mut call, facts);
        Heartbeat::read(self.channel.run("send a heartbeat", &call).await?)
    }

    /// Takes the jobs of a worker whose lease is over back to the front of the queue. `None` when it was not dead after
    /// all, or somebody else was first.
    ///
    /// # Errors
    /// As every call.
    pub async fn recover(&self, dead_worker: &str) -> Result<Option<Recovered>, QueueError> {
        let call = RecoverScript {
            workers_key: self.keys.workers(),
            inflight_key: self.keys.inflight(dead_worker),
            worker_key: self.keys.worker(dead_worker),
            ready_key: self.keys.ready(),
            crashes_key: self.keys.crashes(),
            stats_key: self.keys.stats(),
            meta_key: self.keys.meta(),
            workers_since_key: self.keys.workers_since(),
            trials_key: self.keys.trials(),
            worker: dead_worker,
            lease_ms: LEASE_MS,
        };
        let mut reply = self.channel.run("recover a worker's jobs", &call.call()).await?;
        let jobs = reply.count_unless_minus_one("jobs taken back, or -1")?;
        let is_of_many = reply.flag("whether it died with most of the fleet")?;
        reply.end()?;
        Ok(jobs.map(|jobs| Recovered { jobs, is_of_many }))
    }

    /// Strikes off a worker that is leaving. `false` when it still holds jobs; its lease then runs out.
    ///
    /// # Errors
    /// As every call.
    pub async fn unregister(&self, worker: &WorkerName) -> Result<bool, QueueError> {
        let call = UnregisterScript {
            workers_key: self.keys.workers(),
            inflight_key: self.keys.inflight(worker.as_str()),
            worker_key: self.keys.worker(worker.as_str()),
            workers_since_key: self.keys.workers_since(),
            trials_key: self.keys.trials(),
            worker: worker.as_str(),
        };
        let mut reply = self.channel.run("unregister a worker", &call.call()).await?;
        let is_gone = reply.flag("whether it is struck off")?;
        reply.end()?;
        Ok(is_gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripts::probe::{takes_only, word};
    use redis::Value::Int;

    #[test]
    fn a_heartbeat_is_read_whole_or_not_at_all() {
        let heartbeat = takes_only(Heartbeat::read, &[Int(1), Int(20), Int(0), Int(1)]);
        let next_end = Some(Duration::from_millis(20));
        assert_eq!(
            heartbeat,
            Heartbeat { alive: true, next_end, expired: Vec::new(), has_more: false, tidy_is_due: true }
        );
        for (in_all, has_more) in [(1, false), (2, true)] {
            let parts = vec![Int(0), Int(-1), Int(in_all), Int(0), word("w-1")];
            let reply = Reply::of("test", redis::Value::Array(parts)).expect("a list");
            let heartbeat = Heartbeat::read(reply).expect("a worker whose lease is over");
            let expired = vec!["w-1".into()];
            assert_eq!(heartbeat, Heartbeat { alive: false, next_end: None, expired, has_more, tidy_is_due: false });
        }
    }
}
