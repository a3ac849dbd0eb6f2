//! What can go wrong between a program and its queue, in the user's words.
//!
//! Each error says what was being done and to what; [`QueueError::hint`] says what to do next. Nothing here names the
//! Redis client: `connect` translates.

use std::fmt;
use std::time::Duration;

/// What the user of Redis has to be allowed that imgq runs as, in the words of `ACL SETUSER`. All commands do with it, which a test
/// shows.
pub const LEAST_ACL: &str = "~imgq:* +@read +@write +@scripting +@connection +info +time";

/// An operation on the queue did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The Redis URL cannot be parsed.
    #[error("\"{url}\" is not a Redis URL: {why}")]
    BadUrl {
        /// Without its password.
        url: String,
        /// The parser's complaint.
        why: String,
    },
    /// The queue's name cannot be used.
    #[error("{0}")]
    BadQueueName(String),
    /// No connection, or it broke, or no answer came in time. The operation may or may not have happened.
    #[error("no answer from Redis at {address}: {why}")]
    Unreachable {
        /// Without its password.
        address: String,
        /// What the system or the client said.
        why: String,
    },
    /// Redis is there and answers, and cannot do it at the moment. Nothing was done.
    #[error("Redis at {address} {state}: {why}")]
    NotNow {
        /// Without its password.
        address: String,
        /// What it is at.
        state: ServerState,
        /// Redis' words.
        why: String,
    },
    /// The queue's keys are elsewhere in a cluster.
    #[error("Redis at {address} is one of a cluster, and does not have this queue's keys: {why}")]
    Cluster {
        /// Without its password.
        address: String,
        /// Redis' words.
        why: String,
    },
    /// Redis refuses the password, or wants one.
    #[error("Redis at {address} refuses the login: {why}")]
    Auth {
        /// Without its password.
        address: String,
        /// Redis' words.
        why: String,
    },
    /// Redis is too old.
    #[error("Redis at {address} is version {version}; imgq needs 7.0 or newer")]
    TooOld {
        /// Without its password.
        address: String,
        /// As INFO tells it.
        version: String,
    },
    /// Redis would evict jobs under memory pressure.
    #[error("Redis at {address} has maxmemory-policy {policy}: it would throw jobs away when memory runs out")]
    EvictionPolicy {
        /// Without its password.
        address: String,
        /// As INFO tells it.
        policy: String,
    },
    /// The queue's data come from a newer version.
    #[error("the queue \"{queue}\" was written by a newer imgq (schema {found}, this one knows {known})")]
    Schema {
        /// The queue.
        queue: String,
        /// What the queue says.
        found: u32,
        /// What this program knows.
        known: u32,
    },
    /// Redis is at its `maxmemory`; nothing was added.
    #[error("Redis at {address} is out of memory (maxmemory reached): nothing more can be enqueued")]
    OutOfMemory {
        /// Without its password.
        address: String,
    },
    /// Redis answered from an older state than one it had confirmed.
    #[error(
        "Redis lost what it had confirmed (chunk {lost} of batch {batch}): it was restarted from an older state, or a \
         replica that was behind took its place"
    )]
    RolledBack {
        /// The enqueue.
        batch: String,
        /// The first chunk that is missing.
        lost: u64,
    },
    /// Redis answered with an error.
    #[error("Redis refused to {doing}: {why}")]
    Refused {
        /// The operation.
        doing: &'static str,
        /// Redis' words.
        why: String,
    },
    /// Redis answered something that this program does not know.
    #[error("Redis answered {found} where {expected} was expected, when it was asked to {doing}")]
    UnexpectedReply {
        /// The operation.
        doing: &'static str,
        /// What it answered, shortened.
        found: String,
        /// What that part of the answer should have been.
        expected: String,
    },
    /// The batch is not there.
    #[error("no batch \"{0}\" in this queue")]
    NoSuchBatch(String),
    /// Another enqueuer has the batch, or it was sealed.
    #[error("batch {0} was taken over by another `enqueue` of the same sources: this one was silent for too long")]
    BatchTaken(String),
    /// Redis has no way to tell that a write will survive.
    #[error("--durable: Redis at {address} cannot confirm that a write is safe: {why}")]
    NotDurable {
        /// Without its password.
        address: String,
        /// What it lacks.
        why: String,
    },
    /// Redis did not confirm in time that a write is safe.
    #[error(
        "--durable: the jobs are in the queue, but Redis at {address} did not confirm within {waited:?} that they are safe: {why}"
    )]
    NotConfirmed {
        /// Without its password.
        address: String,
        /// How long was waited.
        waited: Duration,
        /// Who did not confirm.
        why: String,
    },
    /// A name that cannot be a reader's.
    #[error("\"{0}\" cannot name a reader: use 1 to 64 letters, digits, dots, dashes or underscores")]
    BadReaderName(String),
    /// No such reader.
    #[error("no reader \"{0}\" of this queue's results")]
    NoSuchReader(String),
}

/// What a server is at that is there and cannot do what it is asked for. Each ends some time, mostly by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// It was started, and reads its data.
    Loading,
    /// A script or a function of somebody's runs for long.
    Busy,
    /// It is a replica, or was made one.
    Replica,
    /// It could not write to its disk.
    CannotSave,
    /// Fewer replicas are connected than `min-replicas-to-write` wants.
    TooFewReplicas,
    /// The cluster that it belongs to is not whole.
    ClusterDown,
    /// Whatever else it says that passes.
    Other,
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ServerState::Loading => "is still reading its data",
            ServerState::Busy => "is busy with a script",
            ServerState::Replica => "is a replica, which takes no writes",
            ServerState::CannotSave => "takes no writes, as it cannot save to its disk",
            ServerState::TooFewReplicas => "takes no writes, as too few replicas are connected",
            ServerState::ClusterDown => "belongs to a cluster that is down",
            ServerState::Other => "cannot do it at the moment",
        })
    }
}

impl ServerState {
    fn hint(self) -> &'static str {
        match self {
            ServerState::Loading => "wait until it is done; `redis-cli INFO persistence` tells how far it is",
            ServerState::Busy => "wait until it is done; `redis-cli SCRIPT KILL` ends one that has written nothing",
            ServerState::Replica => {
                "name the master with --redis-url or REDIS_URL; `redis-cli INFO replication` tells where it is"
            }
            ServerState::CannotSave => {
                "make room on the server's disk, or look at what its log says about saving; it takes writes again by itself"
            }
            ServerState::TooFewReplicas => "start its replicas, or look at min-replicas-to-write",
            ServerState::ClusterDown => "look at `redis-cli CLUSTER INFO`",
            ServerState::Other => "the log of the Redis server may say more",
        }
    }
}

impl QueueError {
    /// What to do next, for a `hint:` line.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            QueueError::BadUrl { url, .. } if names_a_group(url) => {
                "imgq talks to one server: name the master itself, like redis://HOST:6379/0, or a proxy or an address that leads to \
                 whoever is master (docs/reliability.md, under Failover)"
                    .into()
            }
            QueueError::BadUrl { .. } => {
                "write it like redis://HOST:6379/0, rediss://:PASSWORD@HOST:6379/0 or unix:///path/to/redis.sock".into()
            }
            QueueError::Unreachable { why, .. } if why.contains("certificate") => {
                "with an authority of your own, name the file with its certificate in SSL_CERT_FILE".into()
            }
            QueueError::Unreachable { .. } => {
                "start one with `redis-server`, name yours with --redis-url or REDIS_URL, or use `producer run`, \
                 which brings its own"
                    .into()
            }
            QueueError::NotNow { state, .. } => state.hint().into(),
            QueueError::Cluster { .. } => {
                "imgq talks to one server, and follows no MOVED: use a Redis or Valkey that is no cluster, or name the node that has \
                 the slot of imgq:{QUEUE}:ready for as long as it stays there"
                    .into()
            }
            QueueError::Auth { why, .. } if why.to_ascii_uppercase().contains("NOPERM") => {
                format!("let the user do what imgq needs: ACL SETUSER NAME {LEAST_ACL}")
            }
            QueueError::Auth { .. } => {
                "put the password into the URL: redis://:PASSWORD@HOST:6379/0 (or redis://USER:PASSWORD@…), \
                 best through the variable REDIS_URL"
                    .into()
            }
            QueueError::TooOld { .. } => "upgrade the server to Redis 7.0 or newer, or Valkey".into(),
            QueueError::EvictionPolicy { .. } => {
                "run `redis-cli CONFIG SET maxmemory-policy noeviction`, and put it into redis.conf".into()
            }
            QueueError::Schema { .. } => "upgrade imgq on this machine".into(),
            QueueError::OutOfMemory { .. } => {
                "let the workers drain the queue or raise maxmemory, then run the same command again: links that are \
                 already in are skipped"
                    .into()
            }
            QueueError::RolledBack { .. } => {
                "run the same command again: links that are still in are skipped, lost ones are added".into()
            }
            QueueError::NoSuchBatch(_) => {
                "`producer enqueue` prints the batch it made; `producer wait` without one takes the newest".into()
            }
            QueueError::BatchTaken(_) => "let the other one go on; nothing is lost or doubled".into(),
            QueueError::NotDurable { .. } => {
                "use Redis 7.2 or newer with `appendonly yes`, or set `appendfsync always`, or connect a replica; or \
                 enqueue without --durable, and run the same command again after a crash"
                    .into()
            }
            QueueError::NotConfirmed { .. } => {
                "look at the server's disk and its replicas, then run the same command again: links that are in are \
                 skipped, and their safety is waited for"
                    .into()
            }
            QueueError::NoSuchReader(_) => "`producer results --list-readers` shows those there are".into(),
            QueueError::BadQueueName(_) => "name it like photos-2024, with --queue or IMGQ_QUEUE".into(),
            QueueError::BadReaderName(_) => "name it like export-1".into(),
            QueueError::Refused { why, .. } if why.contains("WRONGTYPE") => {
                "a key of this queue holds what imgq did not put there: `redis-cli --scan --pattern 'imgq:*'` shows the \
                 keys; mend it, or take another --queue"
                    .into()
            }
            QueueError::UnexpectedReply { .. } => {
                "programs of different versions may share this queue, or a proxy stands before Redis: use one version \
                 of imgq, and connect to Redis itself"
                    .into()
            }
            QueueError::Refused { .. } => "the log of the Redis server may say more".into(),
        })
    }

    /// Whether a program that is at work has to end with it: no later call will succeed.
    pub fn is_the_end(&self) -> bool {
        matches!(self, QueueError::Cluster { .. })
    }

    /// Whether the same call may succeed later without anybody changing a setting.
    pub fn is_transient(&self) -> bool {
        matches!(self, QueueError::Unreachable { .. } | QueueError::NotNow { .. })
    }
}

/// Whether a URL names a group of servers, which other clients know: `redis+sentinel:`, `redis-cluster:` and the like.
fn names_a_group(url: &str) -> bool {
    let scheme = url.split(':').next().unwrap_or_default().to_ascii_lowercase();
    scheme.contains("sentinel") || scheme.contains("cluster")
}
