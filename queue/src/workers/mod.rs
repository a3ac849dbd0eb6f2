//! A worker's life in Redis: its name, its lease, its heartbeat, and the recovery of those that died.

use super::{Queue, script};
use common::error::QueueError;
use common::job::SCHEMA_VERSION;
use std::fmt;
use std::time::Duration;

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
}

impl Heartbeat {
    /// A quarter of the lease: two may be lost before anyone is taken for dead.
    pub const EVERY: Duration = Duration::from_millis(1500);
}

impl Queue {
    /// Enters a worker with a whole lease. `facts` are for people: host, pid, version, …
    ///
    /// # Errors
    /// [`QueueError::Schema`] when a newer imgq wrote this queue, or as every call.
    pub async fn register(&self, worker: &WorkerName, facts: &[(&str, String)]) -> Result<(), QueueError> {
        let script = script!("register");
        let mut call = script.prepare_invoke();
        call.key(self.keys.workers()).key(self.keys.worker(worker.as_str())).key(self.keys.meta());
        call.arg(worker.as_str()).arg(LEASE.as_millis() as u64).arg(SCHEMA_VERSION);
        call.arg("host").arg(host_name()).arg("pid").arg(std::process::id());
        for (name, value) in facts {
            call.arg(*name).arg(value);
        }
        let (status, found): (String, u32) = self.channel.invoke("register a worker", &call).await?;
        if status == "schema" {
            return Err(QueueError::Schema { queue: self.name.clone(), found, known: SCHEMA_VERSION });
        }
        Ok(())
    }

    /// Renews the lease of `worker`, records `facts`, and names those whose lease is over.
    ///
    /// # Errors
    /// As every call.
    pub async fn heartbeat(&self, worker: &WorkerName, facts: &[(&str, String)]) -> Result<Heartbeat, QueueError> {
        let script = script!("heartbeat");
        let mut call = script.prepare_invoke();
        call.key(self.keys.workers())
            .key(self.keys.worker(worker.as_str()))
            .key(self.keys.meta())
            .key(self.keys.delayed())
            .key(self.keys.ready())
            .key(self.keys.dead())
            .key(self.keys.stats())
            .key(self.keys.history_fine())
            .key(self.keys.history_coarse());
        call.arg(worker.as_str()).arg(LEASE.as_millis() as u64);
        for (name, value) in facts {
            call.arg(*name).arg(value);
        }
        let reply: Vec<redis::Value> = self.channel.invoke("send a heartbeat", &call).await?;
        let mut reply = reply.into_iter();
        let mut number = || reply.next().and_then(|v| redis::from_redis_value::<i64>(v).ok());
        let (alive, next_end_ms) = (number(), number());
        Ok(Heartbeat {
            alive: alive == Some(1),
            next_end: next_end_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis),
            expired: reply.filter_map(|v| redis::from_redis_value(v).ok()).collect(),
        })
    }

    /// Takes the jobs of a worker whose lease is over back to the front of the queue. `None` when it was not dead after
    /// all, or somebody else was first.
    ///
    /// # Errors
    /// As every call.
    pub async fn recover(&self, dead_worker: &str) -> Result<Option<u64>, QueueError> {
        let script = script!("recover");
        let mut call = script.prepare_invoke();
        call.key(self.keys.workers())
            .key(self.keys.inflight(dead_worker))
            .key(self.keys.worker(dead_worker))
            .key(self.keys.ready())
            .key(self.keys.crashes())
            .key(self.keys.stats())
            .arg(dead_worker);
        let taken_back: i64 = self.channel.invoke("recover a worker's jobs", &call).await?;
        Ok(u64::try_from(taken_back).ok())
    }

    /// Strikes off a worker that is leaving. `false` when it still holds jobs; its lease then runs out.
    ///
    /// # Errors
    /// As every call.
    pub async fn unregister(&self, worker: &WorkerName) -> Result<bool, QueueError> {
        let script = script!("unregister");
        let mut call = script.prepare_invoke();
        call.key(self.keys.workers())
            .key(self.keys.inflight(worker.as_str()))
            .key(self.keys.worker(worker.as_str()))
            .arg(worker.as_str());
        self.channel.invoke("unregister a worker", &call).await
    }
}
