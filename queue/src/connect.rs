//! Connections to Redis: opening, checking, keeping one alive, and translating its errors into the user's words.
//!
//! Only this crate names the Redis client. Its own connection manager is not used: it keeps a connection on
//! which an answer timed out (a half-open one hangs until TCP gives up, a quarter of an hour), and it does not tell
//! that it reconnected, which is when a worker has to compare its memory with Redis.

use crate::scripts::{Call, Reply};
use common::error::{QueueError, ServerState};
use common::job::SCHEMA_VERSION;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// How long a command may take. Above what a busy Redis needs, below the lease: a worker whose command timed out still
/// has time to reconnect before it is taken for dead.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Knows one server and opens connections to it.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    client: redis::Client,
    address: String,
}

impl Connector {
    /// Reads a URL (`redis://`, `rediss://`, `unix:`); opens nothing yet.
    ///
    /// # Errors
    /// [`QueueError::BadUrl`], without anything that may be a secret.
    pub(crate) fn new(url: &str) -> Result<Connector, QueueError> {
        let address = without_secrets(url);
        let client = redis::Client::open(url)
            .map_err(|error| QueueError::BadUrl { url: address.clone(), why: error.to_string() })?;
        Ok(Connector { client, address })
    }

    /// The URL without anything that may be a secret.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Opens one connection whose commands may take `response_timeout` (`None`: for ever, for blocking commands).
    ///
    /// # Errors
    /// [`QueueError::Unreachable`] or [`QueueError::Auth`].
    pub(crate) async fn open(&self, response_timeout: Option<Duration>) -> Result<MultiplexedConnection, QueueError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(response_timeout);
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| self.translate(&error, "connect"))
    }

    /// Refuses a server that cannot keep promises: too old for the scripts, or set to evict.
    ///
    /// # Errors
    /// [`QueueError::TooOld`], [`QueueError::EvictionPolicy`], or what the connection says.
    pub(crate) async fn check(&self, channel: &Channel) -> Result<(), QueueError> {
        let info: String = channel.query("read the server's facts", redis::cmd("INFO").arg("everything")).await?;
        let fact = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        // A server that is still reading its data answers this command, and hardly another.
        if fact("loading") == Some("1") {
            let left = fact("loading_eta_seconds").map(|seconds| format!("about {seconds} s to go"));
            return Err(QueueError::NotNow {
                address: self.address.clone(),
                state: ServerState::Loading,
                why: left.unwrap_or_else(|| "LOADING".to_owned()),
            });
        }
        // Valkey reports the Redis version that it is compatible with under the same name.
        if let Some(version) = fact("redis_version") {
            let major = version.split('.').next().and_then(|n| n.parse::<u32>().ok());
            if major.is_some_and(|major| major < 7) {
                return Err(QueueError::TooOld { address: self.address.clone(), version: version.to_owned() });
            }
        }
        match fact("maxmemory_policy") {
            Some("noeviction") => Ok(()),
            Some(policy) => {
                Err(QueueError::EvictionPolicy { address: self.address.clone(), policy: policy.to_owned() })
            }
            None => {
                tracing::warn!(
                    "Redis at {} does not tell its maxmemory-policy; make sure that it is noeviction",
                    self.address
                );
                Ok(())
            }
        }
    }

    pub(crate) fn translate(&self, error: &RedisError, doing: &'static str) -> QueueError {
        let (address, why) = (self.address.clone(), error.to_string());
        let code = code_of(error);
        if let Some(state) = state_of(&code) {
            return QueueError::NotNow { address, state, why };
        }
        match &*code {
            "NOAUTH" | "WRONGPASS" | "NOPERM" => QueueError::Auth { address, why },
            "OOM" => QueueError::OutOfMemory { address },
            "SCHEMA" => newer_schema(error.detail().unwrap_or_default()),
            "MOVED" | "ASK" | "CROSSSLOT" => QueueError::Cluster { address, why },
            _ if error.kind() == ErrorKind::AuthenticationFailed => QueueError::Auth { address, why },
            _ if breaks_connection(error) => QueueError::Unreachable { address, why },
            _ => QueueError::Refused { doing, why },
        }
    }
}

/// The word that an error of Redis begins with; empty for all other errors.
///
/// Of several commands that were sent together the first that was refused counts. What a transaction says of itself
/// (`EXECABORT`) is no reason: that is what one of its commands said.
fn code_of(error: &RedisError) -> String {
    let errors = error.clone().into_server_errors();
    let mut codes = errors.iter().flat_map(|errors| errors.iter()).map(|(_, error)| error.code());
    let code = codes.clone().find(|code| *code != "EXECABORT").or_else(|| codes.next());
    // The client gives the code away of what it meets when it selects a database.
    let is_busy = error.detail().is_some_and(|detail| detail.contains("Redis is busy running a"));
    let code = if is_busy { Some("BUSY") } else { code.or_else(|| error.code()) };
    code.unwrap_or_default().to_owned()
}

/// What `schema.lua` says: `VERSION is what imgq:{QUEUE}:meta says`.
fn newer_schema(said: &str) -> QueueError {
    let found = said.split(' ').next().and_then(|version| version.parse().ok()).unwrap_or(u32::MAX);
    let queue = said.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(queue, _)| queue);
    QueueError::Schema { queue: queue.to_owned(), found, known: SCHEMA_VERSION }
}

/// What a server is at that answers with this code.
fn state_of(code: &str) -> Option<ServerState> {
    Some(match code {
        "LOADING" => ServerState::Loading,
        "BUSY" => ServerState::Busy,
        "READONLY" | "MASTERDOWN" => ServerState::Replica,
        "MISCONF" => ServerState::CannotSave,
        "NOREPLICAS" => ServerState::TooFewReplicas,
        "CLUSTERDOWN" => ServerState::ClusterDown,
        "TRYAGAIN" | "UNBLOCKED" => ServerState::Other,
        _ => return None,
    })
}

/// Whether the connection that gave `error` is not to be used again. A timeout counts: the answer may still come, and
/// nobody can tell whether the peer is there at all.
pub(crate) fn breaks_connection(error: &RedisError) -> bool {
    // An answer of another shape than expected came over a sound connection.
    error.kind() != ErrorKind::UnexpectedReturnType
        && (error.is_io_error()
            || error.is_timeout()
            || error.is_connection_dropped()
            || error.is_unrecoverable_error())
}

/// Host, port and database of a URL, or its socket, and nothing else of it: a secret may stand in the place of the user, in the query, and, where
/// it has a `/` or `@` that was not escaped, anywhere.
fn without_secrets(url: &str) -> String {
    const SCHEMES: [&str; 7] =
        ["redis", "rediss", "valkey", "redis+sentinel", "redis-sentinel", "redis+cluster", "redis-cluster"];
    // A scheme is no secret, if it is one.
    let unreadable = || match url.split_once("://") {
        Some((scheme, _)) if SCHEMES.contains(&scheme) => format!("{scheme}://***"),
        _ => "***".to_owned(),
    };
    let Ok(parsed) = url::Url::parse(url) else { return unreadable() };
    let (scheme, path) = (parsed.scheme(), parsed.path());
    if matches!(scheme, "unix" | "redis+unix" | "valkey+unix") {
        let slashes = if url.contains("://") { "//" } else { "" };
        return format!("{scheme}:{slashes}{path}");
    }
    // Behind those of a Sentinel stands the name of a master.
    let is_database = (scheme.contains("sentinel") && !path.contains('@'))
        || path.trim_matches('/').bytes().all(|byte| byte.is_ascii_digit());
    match parsed.host_str() {
        Some(host) if !host.is_empty() && is_database => {
            let port = parsed.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{scheme}://{host}{port}{path}")
        }
        _ => unreadable(),
    }
}

/// One connection for commands, opened again when it broke.
///
/// Cancel safety: a dropped call may or may not have run on the server; the queue's scripts are made for that.
#[derive(Debug)]
pub(crate) struct Channel {
    connector: Connector,
    connection: Mutex<Option<MultiplexedConnection>>,
    generation: AtomicU64,
}

impl Channel {
    pub(crate) fn new(connector: Connector) -> Channel {
        Channel { connector, connection: Mutex::new(None), generation: AtomicU64::new(0) }
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Rises with every new connection.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    async fn get(&self) -> Result<(MultiplexedConnection, u64), QueueError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = &*slot {
            return Ok((connection.clone(), self.generation()));
        }
        let connection = self.connector.open(Some(RESPONSE_TIMEOUT)).await?;
        *slot = Some(connection.clone());
        Ok((connection, self.generation.fetch_add(1, Ordering::Relaxed) + 1))
    }

    async fn finish<T>(
        &self,
        doing: &'static str,
        generation: u64,
        result: Result<T, RedisError>,
    ) -> Result<T, QueueError> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                if breaks_connection(&error) {
                    let mut slot = self.connection.lock().await;
                    // Another caller may have replaced it meanwhile; a good connection is not thrown away.
                    if self.generation() == generation {
                        *slot = None;
                    }
                }
                Err(self.connector.translate(&error, doing))
            }
        }
    }

    pub(crate) async fn query<T: FromRedisValue>(&self, doing: &'static str, cmd: &Cmd) -> Result<T, QueueError> {
        let (mut connection, generation) = self.get().await?;
        let result = cmd.query_async(&mut connection).await;
        self.finish(doing, generation, result).await
    }

    pub(crate) async fn pipeline<T: FromRedisValue>(
        &self,
        doing: &'static str,
        pipeline: &Pipeline,
    ) -> Result<T, QueueError> {
        let (mut connection, generation) = self.get().await?;
        let result = pipeline.query_async(&mut connection).await;
        self.finish(doing, generation, result).await
    }

    /// A pipeline whose answers are read one by one.
    pub(crate) async fn replies(&self, doing: &'static str, pipeline: &Pipeline) -> Result<Reply, QueueError> {
        Reply::of(doing, self.pipeline(doing, pipeline).await?)
    }

    /// Runs a script.
    pub(crate) async fn run(&self, doing: &'static str, call: &Call) -> Result<Reply, QueueError> {
        let (mut connection, generation) = self.get().await?;
        let result = call.invocation().invoke_async(&mut connection).await;
        Reply::of(doing, self.finish(doing, generation, result).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        for url in [
            "redis://:hunter2@localhost:6379/0",
            "redis://user:hunter2@localhost",
            "unix:///run/redis.sock?pass=hunter2",
            "redis://user:hunter2@[broken",
            "redis://hunter2@localhost",
            "redis://:hunter2/x@localhost",
            "redis://:x/hunter2@localhost:6379",
            "redis://x/hunter2@localhost",
            "redis://localhost:6379/0?password=hunter2#hunter2",
            "rediss://:hunter2%40@localhost",
            "hunter2@localhost:6379",
            ":hunter2@localhost",
            "redis+sentinel://user:12/hunter2@h/m",
        ] {
            assert!(!without_secrets(url).contains("hunter2"), "{url}: {}", without_secrets(url));
        }
        for (url, shown) in [
            ("redis://user:hunter2@h.example:7000/3", "redis://h.example:7000/3"),
            ("rediss://:p@h", "rediss://h"),
            ("unix:///run/redis.sock?pass=p", "unix:///run/redis.sock"),
            ("unix:/run/redis.sock", "unix:/run/redis.sock"),
            ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn the_url_forms_of_the_contract_are_read() {
        for url in ["redis://h:1/2", "rediss://h", "unix:/run/redis.sock", "unix:///run/redis.sock"] {
            assert!(Connector::new(url).is_ok(), "{url}");
        }
        assert!(matches!(Connector::new("http://h"), Err(QueueError::BadUrl { .. })));
    }
}
