//! Waiting until an enqueue is safe: on the disk of Redis, and on a replica where there is one.
//!
//! `WAITAOF` (Redis 7.2) and `WAIT` count from the last write of the connection that asks, so the seal and the wait share
//! one connection of their own. The replication offset is one for the whole server: what is confirmed for the seal is
//! confirmed for everything before it, over whichever connection it came.

use super::batches::sealed;
use super::{OpenBatch, Queue};
use crate::Patience;
use crate::scripts::Reply;
use common::error::QueueError;
use std::time::{Duration, Instant};

/// How this server can confirm that a write is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durability {
    fsync: Fsync,
    replicas: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fsync {
    /// Every answer comes after the write is on disk.
    Always,
    /// It can be asked.
    Asked,
    /// Nobody can tell.
    Unknown,
}

/// What was confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmed {
    /// On the disk of the server.
    pub on_disk: bool,
    /// Replicas that have it.
    pub replicas: u32,
}

impl Queue {
    /// Finds out how the server can confirm that a write is safe.
    ///
    /// # Errors
    /// [`QueueError::NotDurable`] when it cannot, or as every call.
    pub async fn durability(&self) -> Result<Durability, QueueError> {
        let info: String = self.channel.query("read the server's facts", redis::cmd("INFO").arg("everything")).await?;
        let fact = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let replicas = fact("connected_slaves").and_then(|n| n.parse().ok()).unwrap_or(0);
        let waitaof: Vec<redis::Value> =
            self.channel.query("ask for WAITAOF", redis::cmd("COMMAND").arg("INFO").arg("WAITAOF")).await?;
        let knows_waitaof = waitaof.first().is_some_and(|known| *known != redis::Value::Nil);
        // Managed servers forbid CONFIG.
        let get = redis::cmd("CONFIG").arg("GET").arg("appendfsync").to_owned();
        let policy = match self.channel.query::<Vec<String>>("read appendfsync", &get).await {
            Ok(pair) => pair.into_iter().nth(1),
            Err(QueueError::Refused { .. } | QueueError::Auth { .. }) => None,
            Err(error) => return Err(error),
        };
        let fsync = match policy.as_deref() {
            _ if fact("aof_enabled") != Some("1") => Fsync::Unknown,
            // Such a server never says that something is on disk.
            Some("no") => Fsync::Unknown,
            _ if knows_waitaof => Fsync::Asked,
            Some("always") => Fsync::Always,
            _ => Fsync::Unknown,
        };
        if fsync == Fsync::Unknown && replicas == 0 {
            let version = fact("redis_version").unwrap_or("of unknown version");
            let why = match fact("aof_enabled") {
                Some("1") if knows_waitaof => "appendfsync is no, and no replica is connected".to_owned(),
                Some("1") => {
                    format!("version {version} has no WAITAOF, appendfsync is not always, and no replica is connected")
                }
                _ => format!("version {version} writes no append-only file, and no replica is connected"),
            };
            return Err(QueueError::NotDurable { address: self.address().to_owned(), why });
        }
        Ok(Durability { fsync, replicas })
    }

    /// Seals a batch of `chunks` chunks, and returns when that and everything before it is safe.
    ///
    /// # Errors
    /// As [`Queue::seal_batch`], and [`QueueError::NotConfirmed`] after `at_most`.
    pub async fn seal_batch_durably(
        &self,
        batch: &OpenBatch,
        chunks: u64,
        how: Durability,
        at_most: Duration,
    ) -> Result<Confirmed, QueueError> {
        let started = Instant::now();
        let mut patience = Patience::of(at_most);
        loop {
            let left = at_most.saturating_sub(started.elapsed());
            match self.seal_and_wait(batch, chunks, how, left).await {
                Err(QueueError::NotConfirmed { address, why, .. }) => {
                    return Err(QueueError::NotConfirmed { address, waited: at_most, why });
                }
                // A new connection seals anew: that is a write again, and it notices when Redis came back without a chunk.
                Err(error) if started.elapsed() < at_most => match patience.next_wait(&error) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(error),
                },
                other => return other,
            }
        }
    }

    async fn seal_and_wait(
        &self,
        batch: &OpenBatch,
        chunks: u64,
        how: Durability,
        at_most: Duration,
    ) -> Result<Confirmed, QueueError> {
        let connector = self.channel.connector();
        let not_confirmed = |why: &str| QueueError::NotConfirmed {
            address: connector.address().to_owned(),
            waited: at_most,
            why: why.to_owned(),
        };
        let wanted_replicas = how.replicas.min(1);
        let started = Instant::now();
        // 0 would be for ever.
        let left_ms = || (at_most.saturating_sub(started.elapsed()).as_millis() as u64).max(1);
        let talk = async {
            let mut connection = connector.open(None).await?;
            let translate = |error| connector.translate(&error, "confirm that the batch is safe");
            let call = self.seal_call(batch.id, &batch.enqueuer, chunks);
            let reply = call.invocation().invoke_async(&mut connection).await.map_err(translate)?;
            sealed(batch, Reply::of("seal a batch", reply)?)?;
            let on_disk = match how.fsync {
                Fsync::Asked => {
                    let mut ask = redis::cmd("WAITAOF");
                    ask.arg(1).arg(0).arg(left_ms());
                    let (fsynced, _): (u32, u32) = ask.query_async(&mut connection).await.map_err(translate)?;
                    fsynced > 0
                }
                Fsync::Always => true,
                Fsync::Unknown => false,
            };
            // WAITAOF would count only replicas that write an append-only file themselves.
            let mut ask = redis::cmd("WAIT");
            ask.arg(wanted_replicas).arg(left_ms());
            let replicas = ask.query_async(&mut connection).await.map_err(translate)?;
            Ok(Confirmed { on_disk, replicas })
        };
        // A server that vanished without a word would never answer.
        let confirmed = tokio::time::timeout(at_most + Duration::from_secs(1), talk)
            .await
            .map_err(|_| not_confirmed("it does not answer"))??;
        if !confirmed.on_disk && how.fsync != Fsync::Unknown {
            return Err(not_confirmed("its append-only file is not on disk yet"));
        }
        if confirmed.replicas < wanted_replicas {
            return Err(not_confirmed("no replica has them yet"));
        }
        Ok(confirmed)
    }
}
