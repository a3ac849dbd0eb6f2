//! The queue in Redis: a folder for each operation, its scripts beside its Rust.
//!
//! Every state change of a job is one script, so that no job is ever in no place or in two. What restores the
//! invariants when a reply is lost, a script runs late, Redis is rolled back or a worker was taken for dead stands in
//! ARCHITECTURE.md, script by script. Nothing outside this crate names the Redis client or knows how many keys a queue has.

mod admit;
mod backoff;
mod batches;
mod budget;
mod claim;
mod connect;
mod dead;
mod dedup;
mod durable;
mod enqueue;
mod history;
mod hosts;
mod pause;
mod purge;
mod readers;
mod ready_waiter;
mod registry;
mod results;
mod retention;
mod scripts;
mod search;
mod settle;
mod status;
mod tidy;
mod workers;

pub use admit::{AdmissionRequest, Admitted};
pub use backoff::{Patience, ReconnectBackoff};
pub use batches::{BatchPages, BatchState, ENQUEUER_GONE_MS, OpenBatch, TakenOver, command_digest};
pub use claim::{Admission, Claim, ClaimRequest, ClaimedJob, LeaseField, Reconciled, Start, WaitingAt};
pub use dead::{DeadAction, DeadJob, DeadPages};
pub use durable::{Confirmed, Durability};
pub use enqueue::{CHUNK_LINKS_MAX, Chunk, Pushed};
pub use history::{History, Sample};
pub use hosts::{HostNews, HostState};
pub use purge::{PURGE_PAGE, WaitsIn};
pub use readers::Reader;
pub use ready_waiter::ReadyWaiter;
pub use registry::{ScriptNames, script_names, script_sources};
pub use retention::{Keep, Retention, RetentionChange};
pub use scripts::PartNames;
pub use search::{EntryFilter, EntryRange, EntrySearch, Found};
pub use settle::{Settled, Settlement};
pub use status::{Status, TimeLeft, WorkerHost, WorkerState, time_left};
pub use tidy::Tidied;
pub use workers::{Heartbeat, LEASE, Recovered, WorkerName, host_name};

use common::error::QueueError;
use common::job::SCHEMA_VERSION;
use common::keys::Keys;
use connect::{Channel, Connector};

/// Bytes of jobs that one call hands to a script: Redis spends 2.8 ms on each MB that a script only touches, and does nothing else
/// meanwhile.
const CALL_BYTES_MAX: usize = 1 << 20;

/// How many of `items` one call takes by their sizes, in bytes: one at least, where there is one.
fn first_call<T>(items: &[T], size: impl Fn(&T) -> usize) -> usize {
    let mut before = 0;
    let fits = |item: &&T| {
        let fits = before < CALL_BYTES_MAX;
        before += size(item);
        fits
    };
    items.iter().take_while(fits).count()
}

/// One queue in one Redis, over one connection that is opened again when it broke.
///
/// Every method is one round trip unless it says otherwise, and returns [`QueueError::Unreachable`] when the answer did
/// not come: then the operation may have run, and may even run later.
#[derive(Debug)]
pub struct Queue {
    channel: Channel,
    keys: Keys,
    name: String,
    dedup_split: dedup::KnownSplit,
}

impl Queue {
    /// Connects, and checks that the server can keep promises.
    ///
    /// # Errors
    /// Whatever [`QueueError`] describes: a bad URL or name, no server, wrong password, too old, set to evict, a newer queue.
    pub async fn open(redis_url: &str, name: &str) -> Result<Queue, QueueError> {
        let queue = Queue::new(redis_url, name)?;
        queue.channel.connector().check(&queue.channel).await?;
        queue.check_schema().await?;
        Ok(queue)
    }

    /// Refuses a queue that a newer imgq wrote. Scripts that change anything look themselves; this is for those who only read, now and
    /// then.
    ///
    /// # Errors
    /// [`QueueError::Schema`], or as every call.
    pub async fn check_schema(&self) -> Result<(), QueueError> {
        let cmd = redis::Cmd::hget(self.keys.meta(), "schema");
        let found: Option<String> = self.channel.query("read the queue's schema", &cmd).await?;
        self.known(found.as_deref())
    }

    /// The same of what `meta` says.
    fn known(&self, schema: Option<&str>) -> Result<(), QueueError> {
        match schema.and_then(|schema| schema.parse().ok()) {
            Some(found) if found > SCHEMA_VERSION => {
                Err(QueueError::Schema { queue: self.name.clone(), found, known: SCHEMA_VERSION })
            }
            // What is no number a person wrote.
            _ => Ok(()),
        }
    }

    /// A queue that connects on its first use, unchecked: for further threads of a program that did [`Queue::open`].
    ///
    /// # Errors
    /// [`QueueError::BadUrl`] or [`QueueError::BadQueueName`].
    pub fn new(redis_url: &str, name: &str) -> Result<Queue, QueueError> {
        let keys = Keys::new(name).map_err(QueueError::BadQueueName)?;
        Ok(Queue {
            channel: Channel::new(Connector::new(redis_url)?),
            keys,
            name: name.to_owned(),
            dedup_split: dedup::KnownSplit::default(),
        })
    }

    /// The same queue over a connection of its own, which is opened on its first use.
    pub fn sibling(&self) -> Queue {
        Queue {
            channel: Channel::new(self.channel.connector().clone()),
            keys: self.keys.clone(),
            name: self.name.clone(),
            dedup_split: dedup::KnownSplit::default(),
        }
    }

    /// The queue's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where Redis is, without its password.
    pub fn address(&self) -> &str {
        self.channel.connector().address()
    }

    /// Rises with every new connection. After a rise, Redis may have been restarted: compare with [`Queue::reconcile`].
    pub fn connection_generation(&self) -> u64 {
        self.channel.generation()
    }
}
