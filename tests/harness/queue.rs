//! A queue as anybody sees it with `redis-cli`: key names and fields spelled out from the contract, none of them taken from
//! the program.

use crate::{Redis, until};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// One entry of a stream: its id and its fields.
pub type Entry = BTreeMap<String, String>;

/// Raw access to one queue.
pub struct RawQueue {
    /// The queue's name, for the programs.
    pub name: String,
    /// Where it is, for the programs.
    pub url: String,
    connection: redis::Connection,
    _shared: Option<Arc<Redis>>,
}

impl RawQueue {
    /// A queue with a name of its own on the shared server.
    pub fn shared() -> RawQueue {
        let redis = Redis::shared();
        RawQueue { _shared: Some(Arc::clone(&redis)), ..RawQueue::on(&redis) }
    }

    /// A queue with a name of its own on `redis`.
    pub fn on(redis: &Redis) -> RawQueue {
        RawQueue {
            name: format!("t{:016x}", fastrand::u64(..)),
            url: redis.url().to_owned(),
            connection: redis.connect(),
            _shared: None,
        }
    }

    /// Connects again, after the server was restarted.
    pub fn reconnect(&mut self, redis: &Redis) {
        self.connection = redis.connect();
    }

    /// The full name of a key.
    pub fn key(&self, name: &str) -> String {
        format!("imgq:{{{}}}:{name}", self.name)
    }

    /// Runs a raw command; `@name` stands for the queue's key of that name.
    ///
    /// # Panics
    /// When Redis refuses it.
    pub fn run<T: redis::FromRedisValue>(&mut self, command: &[&str]) -> T {
        self.try_run(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Runs a raw command that may fail.
    ///
    /// # Errors
    /// What Redis says.
    pub fn try_run<T: redis::FromRedisValue>(&mut self, command: &[&str]) -> redis::RedisResult<T> {
        let command = self.command(command.iter().copied());
        command.query(&mut self.connection)
    }

    /// Runs raw commands in one transaction: nobody sees some of what they did without the others.
    ///
    /// # Panics
    /// When Redis refuses one of them.
    pub fn run_together(&mut self, commands: &[Vec<String>]) {
        let mut transaction = redis::pipe();
        transaction.atomic();
        for command in commands {
            transaction.add_command(self.command(command.iter().map(String::as_str))).ignore();
        }
        transaction.exec(&mut self.connection).unwrap_or_else(|error| panic!("{commands:?}: {error}"));
    }

    fn command<'a>(&self, words: impl Iterator<Item = &'a str>) -> redis::Cmd {
        let mut command = redis::Cmd::new();
        for word in words {
            match word.strip_prefix('@') {
                Some(name) => command.arg(self.key(name)),
                None => command.arg(word),
            };
        }
        command
    }

    /// Pushes an element as `redis-cli RPUSH` does.
    pub fn push(&mut self, element: &str) {
        self.run::<i64>(&["RPUSH", "@ready", element]);
    }

    /// Elements of `ready`.
    pub fn ready(&mut self) -> Vec<String> {
        self.run(&["LRANGE", "@ready", "0", "-1"])
    }

    /// Length of `ready`.
    pub fn ready_len(&mut self) -> usize {
        self.run(&["LLEN", "@ready"])
    }

    /// All entries of a stream, oldest first; the entry's id stands under `entry`.
    pub fn stream(&mut self, name: &str) -> Vec<Entry> {
        let raw: Vec<(String, Vec<String>)> = self.run(&["XRANGE", &format!("@{name}"), "-", "+"]);
        raw.into_iter()
            .map(|(id, flat)| {
                let mut entry: Entry = flat.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
                entry.insert("entry".into(), id);
                entry
            })
            .collect()
    }

    /// All results, oldest first.
    pub fn results(&mut self) -> Vec<Entry> {
        self.stream("results")
    }

    /// Number of results.
    pub fn results_len(&mut self) -> usize {
        self.run(&["XLEN", "@results"])
    }

    /// Waits for `n` results and returns them all.
    pub fn until_results(&mut self, n: usize, at_most: Duration) -> Vec<Entry> {
        until(&format!("{n} results"), at_most, || (self.results_len() >= n).then_some(()));
        self.results()
    }

    /// Names of registered workers.
    pub fn workers(&mut self) -> Vec<String> {
        self.run(&["ZRANGE", "@workers", "0", "-1"])
    }

    /// Waits until `n` workers are registered.
    pub fn until_workers(&mut self, n: usize) -> Vec<String> {
        until(&format!("{n} workers"), Duration::from_secs(20), || {
            let workers = self.workers();
            (workers.len() == n).then_some(workers)
        })
    }

    /// The in-flight hash of a worker.
    pub fn in_flight(&mut self, worker: &str) -> BTreeMap<String, String> {
        self.run(&["HGETALL", &format!("@inflight:{worker}")])
    }

    /// Jobs in flight, of all registered workers.
    pub fn in_flight_len(&mut self) -> usize {
        let workers = self.workers();
        workers.iter().map(|worker| self.in_flight(worker).len()).sum()
    }

    /// Fields of a hash as text.
    pub fn hash(&mut self, name: &str) -> BTreeMap<String, String> {
        self.run(&["HGETALL", &format!("@{name}")])
    }
}
