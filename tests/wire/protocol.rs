//! docs/protocol.md against what the programs do: whatever appears in Redis is named in its tables, and what they name appears. And the
//! tables of scripts name what each script is called with.
//!
//! An observer reads every key, again and again, while the programs enqueue, store, fail, wait and die. What it saw is compared with
//! the tables at the end. The names of keys and arguments come out of the declarations. Then each row is taken out in turn, to see that
//! the comparison would notice.

use crate::first_run::with_imgur;
use ::queue::ScriptNames;
use common::outcome::{Failure, Rejection};
use harness::files::sha256;
use harness::imgur::{Config, Imgur};
use harness::origin::{Mood, gif};
use harness::programs::finish;
use harness::{Origin, Producer, RawQueue, Redis, Worker, until};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(40);

/// Rows that no cheap situation shows, each with the reason.
const NEVER_MET: [(&str, &str, &str); 2] = [
    (
        "imgq:{QUEUE}:dedup:meta",
        "level",
        "buckets are split beyond 187,200 links; `queue/src/dedup/mod.rs` tests the arithmetic",
    ),
    ("imgq:{QUEUE}:dedup:meta", "split", "as before"),
];

/// The tables that describe JSON and lines, which no key's name leads to.
const JOB: &str = "Fields of a job";
const HOST_ENTRY: &str = "An entry of hosts";
const ALONE: &str = "A value of alone";
const WORKER_HOST: &str = "An element of hosts";
const HISTORY: &str = "A line of history";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The document's tables by the heading above them, rows of cells without their backticks.
#[derive(Clone)]
struct Tables(BTreeMap<String, Vec<Vec<String>>>);

impl Tables {
    fn read() -> Tables {
        let text = std::fs::read_to_string(root().join("docs/protocol.md")).unwrap();
        let (mut tables, mut heading) = (BTreeMap::<String, Vec<Vec<String>>>::new(), String::new());
        for line in text.lines() {
            if line.starts_with('#') {
                heading = line.trim_start_matches('#').trim().replace('`', "");
            } else if let Some(row) = line.strip_prefix('|') {
                let cells = row.trim_end().trim_end_matches('|').split('|').map(|cell| cell.trim().replace('`', ""));
                tables.entry(heading.clone()).or_default().push(cells.collect());
            }
        }
        // The first two lines of a table are its head.
        Tables(tables.into_iter().map(|(heading, rows)| (heading, rows.into_iter().skip(2).collect())).collect())
    }

    fn rows(&self, heading: &str) -> &[Vec<String>] {
        self.0.get(heading).map_or(&[], Vec::as_slice)
    }

    /// The row of this table that is meant by `name`: one that is spelled so before one with words in capitals.
    fn row_of(&self, heading: &str, name: &str) -> Option<&[String]> {
        let rows = self.rows(heading);
        let exact = rows.iter().find(|row| row[0] == name);
        exact.or_else(|| rows.iter().find(|row| self.fits(&row[0], name))).map(Vec::as_slice)
    }

    fn fits(&self, pattern: &str, name: &str) -> bool {
        let Some(at) = pattern.find(|c: char| c.is_ascii_uppercase()) else { return pattern == name };
        let Some(rest) = name.strip_prefix(&pattern[..at]) else { return false };
        let end = pattern[at..].find(|c: char| !c.is_ascii_uppercase()).map_or(pattern.len(), |length| at + length);
        let (word, after) = (&pattern[at..end], &pattern[end..]);
        if after.is_empty() {
            return !rest.is_empty() && self.is_a(word, rest);
        }
        // A word ends where what follows it in the pattern begins.
        let literal = after.split(|c: char| c.is_ascii_uppercase()).next().unwrap_or_default();
        rest.match_indices(literal)
            .any(|(cut, _)| cut > 0 && self.is_a(word, &rest[..cut]) && self.fits(after, &rest[cut..]))
    }

    fn is_a(&self, word: &str, text: &str) -> bool {
        let among = |column: usize| self.rows("Outcomes and reasons").iter().any(|row| row[column] == text);
        match word {
            "OUTCOME" => among(0),
            "REASON" => among(1),
            "ID" | "BUCKET" | "ACCOUNT" => text.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "CLAIM" | "INDEX" => text.bytes().all(|byte| byte.is_ascii_digit()),
            _ => !text.contains(['{', '}', ':', ' ']) || word == "HOST",
        }
    }

    /// The tables that have to be met row by row: those of keys, of what keys hold, and of JSON.
    fn to_be_met(&self) -> Vec<&str> {
        let fields = self.rows("Keys").iter().filter(|key| has_fields(&key[1])).map(|key| key[0].as_str());
        ["Keys", JOB, HOST_ENTRY, ALONE, WORKER_HOST, HISTORY].into_iter().chain(fields).collect()
    }

    /// What of these sights no table names, and what the tables name that is not among them.
    fn complaints(&self, seen: &BTreeSet<Sight>) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut met: BTreeSet<(&str, &str)> = BTreeSet::new();
        for sight in seen {
            let (heading, name) = match sight {
                Sight::Key { key, kind } => match self.row_of("Keys", key) {
                    Some(row) if row[1].eq_ignore_ascii_case(kind) => ("Keys", row[0].as_str()),
                    Some(row) => {
                        complaints.push(format!("{key} is a {kind}, and {} is documented as {}", row[0], row[1]));
                        continue;
                    }
                    None => {
                        complaints.push(format!("{key} ({kind}) is not among the keys"));
                        continue;
                    }
                },
                Sight::Field { key, field } => {
                    let Some(documented) = self.row_of("Keys", key) else { continue };
                    match self.row_of(&documented[0], field) {
                        Some(row) => (documented[0].as_str(), row[0].as_str()),
                        None => {
                            complaints.push(format!("field {field} of {key} is not in the table of {}", documented[0]));
                            continue;
                        }
                    }
                }
                Sight::Part { table, name } => match self.row_of(table, name) {
                    Some(row) => (*table, row[0].as_str()),
                    None => {
                        complaints.push(format!("{name} is not in the table \"{table}\""));
                        continue;
                    }
                },
            };
            met.insert((heading, name));
        }
        for heading in self.to_be_met() {
            if self.rows(heading).is_empty() {
                complaints.push(format!("there is no table of {heading}"));
            }
            for row in self.rows(heading) {
                let is_excused = NEVER_MET.iter().any(|(table, name, _)| *table == heading && *name == row[0]);
                if !is_excused && !met.contains(&(heading, row[0].as_str())) {
                    complaints.push(format!("{} of {heading} was never met", row[0]));
                }
            }
        }
        complaints
    }
}

fn has_fields(kind: &str) -> bool {
    matches!(kind, "HASH" | "STREAM")
}

/// Something that was seen in Redis.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Sight {
    Key { key: String, kind: String },
    Field { key: String, field: String },
    Part { table: &'static str, name: String },
}

/// Looks at everything there is, again and again, and remembers all of it.
struct Observer {
    seen: Arc<Mutex<BTreeSet<Sight>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    fn start(redis: &Redis) -> Observer {
        let (seen, stop) = (Arc::<Mutex<BTreeSet<Sight>>>::default(), Arc::<AtomicBool>::default());
        let mut connection = redis.connect();
        let (into, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let sights = look(&mut connection);
                into.lock().unwrap_or_else(PoisonError::into_inner).extend(sights);
                // Not a wait for a condition: it is how often Redis is looked at.
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Observer { seen, stop, thread: Some(thread) }
    }

    fn until(&self, what: &str, is_it: impl Fn(&Sight) -> bool) {
        until(what, SOON, || self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().any(&is_it).then_some(()));
    }

    fn until_field(&self, queue: &RawQueue, key: &str, field: &str) {
        let begins = queue.key(key);
        self.until(
            &format!("{field} in {key}"),
            |sight| matches!(sight, Sight::Field { key, field: seen } if key.starts_with(&begins) && seen == field),
        );
    }

    fn until_part(&self, table: &str, name: &str) {
        self.until(
            &format!("{name} in \"{table}\""),
            |sight| matches!(sight, Sight::Part { table: seen, name: part } if *seen == table && part == name),
        );
    }

    fn end(mut self) -> BTreeSet<Sight> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().expect("the observer could read all that it met");
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Observer {
    /// Before its Redis ends, when the test has failed.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Everything that is in Redis now.
fn look(connection: &mut redis::Connection) -> Vec<Sight> {
    let mut ask = |words: &[&str]| -> redis::Value {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query(connection).expect("Redis answers")
    };
    let read = |value| redis::from_redis_value::<Vec<String>>(value).expect("text");
    let (mut keys, mut cursor) = (BTreeSet::new(), "0".to_owned());
    loop {
        let page = ask(&["SCAN", &cursor, "MATCH", "imgq:*", "COUNT", "1000"]);
        let (next, some): (String, Vec<String>) = redis::from_redis_value(page).expect("a page");
        keys.extend(some);
        if next == "0" {
            break;
        }
        cursor = next;
    }
    let mut sights = Vec::new();
    for key in keys {
        let kind: String = redis::from_redis_value(ask(&["TYPE", &key])).expect("a word");
        let last = key.rsplit_once("}:").map_or("", |(_, name)| name).to_owned();
        let mut payloads = Vec::new();
        match kind.as_str() {
            // It went in between.
            "none" => continue,
            "hash" => {
                for pair in read(ask(&["HGETALL", &key])).chunks(2) {
                    let [field, value] = pair else { panic!("{pair:?}") };
                    sights.push(Sight::Field { key: key.clone(), field: field.clone() });
                    match (last.as_str(), field.as_str()) {
                        ("hosts", _) => sights.extend(parts_of_host(value)),
                        (worker, "hosts") if worker.starts_with("worker:") => {
                            let hosts: Vec<Vec<serde_json::Value>> = serde_json::from_str(value).expect("hosts");
                            sights.extend(hosts.iter().flat_map(|host| positions(WORKER_HOST, host.len())));
                        }
                        (worker, _) if worker.starts_with("inflight:") => payloads.push(value.clone()),
                        _ => {}
                    }
                }
            }
            "stream" => {
                let entries: Vec<(String, Vec<String>)> =
                    redis::from_redis_value(ask(&["XRANGE", &key, "-", "+"])).expect("entries");
                for pair in entries.iter().flat_map(|(_, fields)| fields.chunks(2)) {
                    sights.push(Sight::Field { key: key.clone(), field: pair[0].clone() });
                    if pair[0] == "job" {
                        payloads.push(pair[1].clone());
                    }
                }
            }
            "list" if last.starts_with("history:") => {
                for line in read(ask(&["LRANGE", &key, "0", "-1"])) {
                    sights.extend(positions(HISTORY, line.split(' ').count()));
                }
            }
            "list" => payloads.extend(read(ask(&["LRANGE", &key, "0", "-1"]))),
            "zset" if last == "delayed" => payloads.extend(read(ask(&["ZRANGE", &key, "0", "-1"]))),
            _ => {}
        }
        for payload in payloads.iter().filter(|payload| payload.starts_with('{')) {
            let job: serde_json::Value = serde_json::from_str(payload).expect("a job");
            sights.extend(fields(JOB, &job));
        }
        sights.push(Sight::Key { key, kind });
    }
    sights
}

fn positions(table: &'static str, count: usize) -> impl Iterator<Item = Sight> {
    (0..count).map(move |position| Sight::Part { table, name: position.to_string() })
}

fn fields(table: &'static str, object: &serde_json::Value) -> Vec<Sight> {
    let object = object.as_object().expect("an object");
    object.keys().map(|name| Sight::Part { table, name: name.clone() }).collect()
}

fn parts_of_host(entry: &str) -> Vec<Sight> {
    let entry: serde_json::Value = serde_json::from_str(entry).expect("an entry of hosts");
    let alone = entry.get("alone").and_then(|alone| alone.as_object()).into_iter().flat_map(|alone| alone.values());
    let mut parts: Vec<Sight> = alone.flat_map(|hold| fields(ALONE, hold)).collect();
    parts.extend(fields(HOST_ENTRY, &entry));
    parts
}

/// Results, a retry, a dead letter, a reader, a purge, a worker that leaves, one that dies, and a job that is suspected of it.
fn one_queue_s_life(redis: &Redis, observer: &Observer) {
    let (mut queue, origin, storage) = (RawQueue::on(redis), Origin::start(), tempfile::tempdir().unwrap());
    let done = |finished: harness::programs::Finished| assert_eq!(finished.code, 0, "{finished:?}");
    done(Producer::run(&queue, &["pause"]));
    observer.until_field(&queue, "meta", "paused");
    let (id, hash) = ("0000000000008abc8000000000000001", sha256(&gif(9, 300)));
    let url = origin.url("9/300.gif");
    queue.push(&format!("{{\"id\":\"{id}\",\"url\":\"{url}\",\"sha256\":\"{hash}\",\"kind\":\"download\",\"v\":1}}"));
    let list = storage.path().join("links.txt");
    let links = ["1/300.gif", "2/300.gif", "1/300.gif", "status/404", "status/500", "flaky/1/a.gif"];
    std::fs::write(&list, links.map(|path| origin.url(path)).join("\n")).unwrap();
    let batch = Producer::run(&queue, &["enqueue", list.to_str().unwrap(), "--json"]).json()["batch"].clone();
    observer.until_part(JOB, "kind");
    done(Producer::run(&queue, &["resume"]));
    let objects = storage.path().join("objects");
    let mut first =
        Worker::start(&queue, &objects, &["--max-attempts", "2", "--retry-delay", "500ms", "--grace", "1ms"]);
    let waited = Producer::run(&queue, &["wait", batch.as_str().unwrap()]);
    assert_eq!(waited.code, 3, "{waited:?}");
    assert_eq!(queue.until_results(6, SOON).iter().filter(|result| result["outcome"] == "stored").count(), 4);
    done(Producer::run(&queue, &["results", "--reader", "observer", "--format", "jsonl"]));
    queue.push(&"x".repeat(70_000));
    queue.until_results(7, SOON);
    observer.until_part(JOB, "oversized");
    observer.until_field(&queue, "worker:", "timings");

    queue.push(&origin.url("endless"));
    until("it is asked for", SOON, || (origin.requests("endless") == 1).then_some(()));
    first.signal(Signal::TERM);
    first.until_end(SOON);
    observer.until_field(&queue, "stats", "released");
    done(Producer::run(&queue, &["enqueue", "https://example.com/purged.jpg"]));
    done(Producer::run(&queue, &["purge", "--yes"]));
    observer.until_field(&queue, "stats", "purged");
    observer.until_field(&queue, "batch:", "purged");

    queue.push(&origin.url("endless"));
    let victim = Worker::start(&queue, &objects, &[]);
    until("it is asked for again", SOON, || (origin.requests("endless") == 2).then_some(()));
    victim.kill();
    // As two workers that died of it would have left it.
    queue.run::<i64>(&["HSET", "@crashes", id, "2"]);
    queue.push(&format!("{{\"id\":\"{id}\",\"url\":\"{}\"}}", origin.url("poison/1")));
    let _last = Worker::start(&queue, &objects, &["--idle-timeout", "2s", "--max-attempts", "1"]);
    observer.until_field(&queue, "stats", "recovered");
    observer.until_field(&queue, "worker:", "alone");
    queue.until_results(9, SOON);
}

/// A rate, a host that refuses, and the job that tries it for all.
fn a_host_that_refuses(redis: &Redis, observer: &Observer) {
    let (mut queue, origin, storage) = (RawQueue::on(redis), Origin::start(), tempfile::tempdir().unwrap());
    origin.set_mood(Mood::Refusing(Some("2".to_owned())));
    for n in 0..20 {
        queue.push(&origin.url(&format!("after/1000/{n}/300.gif")));
    }
    let _worker = Worker::start(&queue, storage.path(), &["--host-rate", "20/s"]);
    for field in ["ends", "level", "why", "next", "tat"] {
        observer.until_part(HOST_ENTRY, field);
    }
    observer.until_part(JOB, "held");
    origin.set_mood(Mood::Kind);
    for field in ["probe", "prober"] {
        observer.until_part(HOST_ENTRY, field);
    }
    queue.until_results(20, SOON);
}

/// A host that only redirects lead to, and that refuses.
fn a_target_that_refuses(redis: &Redis, observer: &Observer) {
    let (mut queue, door, target) = (RawQueue::on(redis), Origin::start(), Origin::start());
    let storage = tempfile::tempdir().unwrap();
    target.set_mood(Mood::Refusing(Some("2".to_owned())));
    for n in 0..5 {
        queue.push(&door.url(&format!("to/{}/{n}/300.gif", target.host())));
    }
    let _worker = Worker::start(&queue, storage.path(), &[]);
    observer.until_part(JOB, "redirects_to");
    let held = queue.key("hosts:held");
    observer.until("hosts:held", |sight| matches!(sight, Sight::Key { key, .. } if *key == held));
    target.set_mood(Mood::Kind);
    queue.until_results(5, SOON);
}

/// A worker that gets no answer while another does.
fn a_lonely_worker(redis: &Redis, observer: &Observer) {
    let (mut queue, origin, storage) = (RawQueue::on(redis), Origin::start(), tempfile::tempdir().unwrap());
    origin.set_mood(Mood::DownFor("cut-off".to_owned()));
    let start = |agent| Worker::start(&queue, storage.path(), &["--concurrency", "4", "--user-agent", agent]);
    let _workers = (start("cut-off"), start("served"));
    queue.until_workers(2);
    for n in 0..300 {
        queue.push(&origin.url(&format!("after/50/{n}/300.gif")));
    }
    observer.until_part(ALONE, "ends");
}

/// An enqueue that waits for room, and then is broken off.
fn an_enqueue_that_is_not_complete(redis: &Redis, observer: &Observer) {
    let (queue, folder) = (RawQueue::on(redis), tempfile::tempdir().unwrap());
    let list = folder.path().join("links.txt");
    std::fs::write(&list, "https://x.org/1.jpg\nhttps://x.org/2.jpg\n".repeat(3000)).unwrap();
    let arguments = ["enqueue", list.to_str().unwrap(), "--no-dedup", "--max-ready", "1000"];
    let mut waiting = Producer::command(&queue, &arguments).spawn().unwrap();
    let unsealed = queue.key("batches:unsealed");
    observer.until("batches:unsealed", |sight| matches!(sight, Sight::Key { key, .. } if *key == unsealed));
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}

/// A line that is longer than a minute.
fn a_slow_rate(redis: &Redis, observer: &Observer) {
    let (mut queue, origin, storage) = (RawQueue::on(redis), Origin::start(), tempfile::tempdir().unwrap());
    for n in 0..8 {
        queue.push(&origin.url(&format!("{n}/300.gif")));
    }
    let _worker = Worker::start(&queue, storage.path(), &["--host-rate", "2/m"]);
    for field in ["over", "over_since"] {
        observer.until_part(HOST_ENTRY, field);
    }
}

/// A clock that was an hour ahead, with more jobs that wait than are moved at once.
fn a_clock_that_was_set_back(redis: &Redis, observer: &Observer) {
    let (mut queue, storage) = (RawQueue::on(redis), tempfile::tempdir().unwrap());
    let (seconds, _): (u64, u64) = queue.run(&["TIME"]);
    let ahead_ms = (seconds + 3600) * 1000;
    let due = (ahead_ms + 3_600_000).to_string();
    let jobs: Vec<String> =
        (0..10_001).map(|n| format!(r#"{{"id":"{n:032x}","url":"https://x.org/{n}.jpg"}}"#)).collect();
    for some in jobs.chunks(1000) {
        let mut command = vec!["ZADD", "@delayed"];
        command.extend(some.iter().flat_map(|job| [due.as_str(), job.as_str()]));
        queue.run::<i64>(&command);
    }
    queue.run::<i64>(&["HSET", "@meta", "tick", &ahead_ms.to_string()]);
    let _worker = Worker::start(&queue, storage.path(), &[]);
    for field in ["shift_ms", "shift_from"] {
        observer.until_field(&queue, "meta", field);
    }
    queue.run::<i64>(&["DEL", "@delayed"]);
}

/// What is kept for a time that somebody said, and what no worker knows.
fn what_is_forgotten_and_what_nobody_knows(redis: &Redis, observer: &Observer) {
    let (mut queue, storage) = (RawQueue::on(redis), tempfile::tempdir().unwrap());
    queue.run::<String>(&["XADD", "@results", "*", "id", "x"]);
    queue.run::<()>(&["XGROUP", "CREATE", "@results", "slow", "0"]);
    let keep = ["--keep-batches", "30d", "--keep-results", "7d", "--keep-dead", "7d", "--keep-readers", "30d"];
    let set = Producer::run(&queue, &[&["retention"], &keep[..]].concat());
    assert_eq!(set.code, 0, "{set:?}");
    for n in 1..=200 {
        let id = format!("{n:012x}");
        queue.run::<i64>(&["HSET", &format!("@batch:{id}"), "started", "1"]);
        queue.run::<i64>(&["ZADD", "@batches", "1", &id]);
    }
    queue.run::<i64>(&["HSET", "@meta", "tidy_at", "0"]);
    queue.push(r#"{"url":"https://x.org/1.jpg","v":2}"#);
    let _worker = Worker::start(&queue, storage.path(), &[]);
    for field in ["tidy_skip", "tidy_at", "unknown", "unknown_seen", "unknown_line"] {
        observer.until_field(&queue, "meta", field);
    }
}

/// What Imgur says of a client id; and where links are in dedup, which no worker is to change.
fn enqueued_alone(redis: &Redis, tables: &Tables) {
    let mut queue = RawQueue::on(redis);
    let imgur = Imgur::start(Config::default());
    let command = Producer::command(&queue, &["enqueue", "imgur:random", "--pages", "1", "--limit", "3"]);
    let enqueued = finish(with_imgur(command, &imgur), b"", SOON);
    assert_eq!(enqueued.code, 0, "{enqueued:?}");
    let examples = tables.rows("Dedup");
    assert!(examples.len() >= 2, "docs/protocol.md has examples");
    for example in examples {
        let [link, level, split, bucket, member] = example.as_slice() else { panic!("{example:?}") };
        let (level, split): (u32, u64) = (level.parse().unwrap(), split.parse().unwrap());
        let hash = Sha256::digest(link.as_bytes());
        let number = |from: usize| u64::from_be_bytes(hash[from..from + 8].try_into().unwrap());
        let (fixed, digest) = (number(0) % 1024, number(8) >> 1);
        let at = |level: u32| (digest % (1 << level)) * 1024 + fixed;
        let is_in = if at(level) < split { at(level + 1) } else { at(level) };
        assert_eq!((bucket.as_str(), member.as_str()), (&*format!("{is_in:x}"), &*digest.to_string()), "{link}");
        if (level, split) == (0, 0) {
            let enqueued = Producer::run(&queue, &["enqueue", link]);
            assert_eq!(enqueued.code, 0, "{enqueued:?}");
            let is_there: bool = queue.run(&["SISMEMBER", &format!("@dedup:{bucket}"), member]);
            assert!(is_there, "{link} is not in bucket {bucket}");
        }
    }
}

#[test]
fn every_key_and_field_is_documented_and_what_is_documented_appears() {
    let tables = Tables::read();
    let redis = Redis::private(&[]);
    let observer = Observer::start(&redis);
    std::thread::scope(|scope| {
        scope.spawn(|| one_queue_s_life(&redis, &observer));
        scope.spawn(|| a_host_that_refuses(&redis, &observer));
        scope.spawn(|| a_target_that_refuses(&redis, &observer));
        scope.spawn(|| a_lonely_worker(&redis, &observer));
        scope.spawn(|| a_slow_rate(&redis, &observer));
        scope.spawn(|| a_clock_that_was_set_back(&redis, &observer));
        scope.spawn(|| what_is_forgotten_and_what_nobody_knows(&redis, &observer));
        scope.spawn(|| an_enqueue_that_is_not_complete(&redis, &observer));
        scope.spawn(|| enqueued_alone(&redis, &tables));
    });
    let seen = observer.end();
    let complaints = tables.complaints(&seen);
    assert!(complaints.is_empty(), "docs/protocol.md and Redis differ:\n{}", complaints.join("\n"));

    // The comparison notices each row that is missing, and each that names nothing.
    for heading in tables.to_be_met() {
        for (n, row) in tables.rows(heading).iter().enumerate() {
            let mut without = tables.clone();
            without.0.get_mut(heading).unwrap().remove(n);
            let is_excused = NEVER_MET.iter().any(|(table, name, _)| *table == heading && *name == row[0]);
            let is_noticed = !without.complaints(&seen).is_empty();
            assert_ne!(is_noticed, is_excused, "without the row {row:?} of {heading}");
        }
        let mut with_more = tables.clone();
        with_more.0.get_mut(heading).unwrap().push(vec!["nothing_like_it".to_owned(), "HASH".to_owned()]);
        assert!(!with_more.complaints(&seen).is_empty(), "with a row too many in {heading}");
    }
}

#[test]
fn every_reason_is_documented() {
    let tables = Tables::read();
    let documented: BTreeSet<(String, String)> =
        tables.rows("Outcomes and reasons").iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let rejected = Rejection::ALL.iter().map(|reason| ("rejected", reason.name()));
    let failed = Failure::ALL.iter().map(|reason| ("failed", reason.name()));
    let there: BTreeSet<(String, String)> = [("stored", ""), ("stored", "exists")]
        .into_iter()
        .chain(rejected)
        .chain(failed)
        .map(|(outcome, reason)| (outcome.to_owned(), reason.to_owned()))
        .collect();
    assert_eq!(documented, there);
}

/// What a script is called with, as the first two cells of its table's rows.
fn declared_rows(script: &ScriptNames) -> Vec<[String; 2]> {
    let mut rows = Vec::new();
    for (what, names, then) in [("KEYS", &script.keys, script.keys_then), ("ARGV", &script.args, script.args_then)] {
        rows.extend(names.iter().enumerate().map(|(at, name)| [format!("{what} {}", at + 1), (*name).to_owned()]));
        rows.extend(then.map(|then| [format!("{what} {} …", names.len() + 1), then.to_owned()]));
    }
    for part in script.parts {
        let place = |what: &str, at: usize| format!("{} {what} {}", part.prefix, at + 1);
        rows.extend(part.keys.iter().enumerate().map(|(at, key)| [place("KEYS", at), (*key).to_owned()]));
        let args = part.tag.iter().chain(part.args).enumerate();
        rows.extend(args.map(|(at, name)| [place("ARGV", at), (*name).to_owned()]));
    }
    rows
}

/// The rows of a script's table that say what it is called with; those of its reply no declaration knows.
fn documented_rows(tables: &Tables, script: &str) -> Vec<[String; 2]> {
    let rows = tables.rows(script).iter().filter(|row| !row[0].starts_with("reply"));
    rows.map(|row| [row[0].clone(), row[1].clone()]).collect()
}

/// How the declarations and the tables differ, script by script.
fn differences(tables: &Tables, scripts: &[ScriptNames]) -> Vec<String> {
    let mut differences = Vec::new();
    for script in scripts {
        let (declared, documented) = (declared_rows(script), documented_rows(tables, script.script));
        if declared != documented {
            let first = declared.iter().zip(&documented).position(|(one, other)| one != other);
            let at = first.unwrap_or(declared.len().min(documented.len()));
            differences.push(format!(
                "{}: declared is {:?}, where docs/protocol.md has {:?}",
                script.script,
                declared.get(at),
                documented.get(at)
            ));
        }
        if !tables.rows(script.script).iter().any(|row| row[0].starts_with("reply")) {
            differences.push(format!("{}: nothing is said of its reply", script.script));
        }
    }
    differences
}

#[test]
fn every_script_is_documented_with_the_names_of_its_keys_and_arguments() {
    let (tables, scripts) = (Tables::read(), ::queue::script_names());
    let differences_now = differences(&tables, &scripts);
    assert!(differences_now.is_empty(), "docs/protocol.md and the scripts differ:\n{}", differences_now.join("\n"));

    let text = std::fs::read_to_string(root().join("docs/protocol.md")).unwrap();
    let (_, text) = text.split_once("\n## Scripts\n").unwrap();
    let sections: BTreeMap<&str, &str> = text
        .split("\n### ")
        .skip(1)
        .map(|section| section.split_once('\n').unwrap())
        .map(|(heading, section)| (heading.trim_matches('`'), section))
        .collect();
    let names: BTreeSet<&str> = scripts.iter().map(|script| script.script).collect();
    assert_eq!(sections.keys().copied().collect::<BTreeSet<_>>(), names);
    for script in &scripts {
        let section = sections[script.script];
        // It opens with where its text lies.
        let path = section.trim_start().trim_start_matches('`').split('`').next().unwrap();
        assert!(path.ends_with(&format!("/{}.lua", script.script)), "{}: {path}", script.script);
        assert!(root().join(path).is_file(), "{path} is not there");
        let is_said = section.contains("Redis refuses it when its memory is full.");
        assert_eq!(is_said, script.is_refused_at_maxmemory, "{} at maxmemory", script.script);
        assert_eq!(section.contains("It only reads."), script.only_reads, "what {} does", script.script);
    }

    // The comparison notices each name that is missing, another one, or at another place.
    for script in &scripts {
        let rows = tables.rows(script.script).len();
        for n in (0..rows).filter(|n| !tables.rows(script.script)[*n][0].starts_with("reply")) {
            let changed = |change: &dyn Fn(&mut Vec<Vec<String>>)| {
                let mut changed = tables.clone();
                change(changed.0.get_mut(script.script).unwrap());
                differences(&changed, &scripts)
            };
            let row = &tables.rows(script.script)[n];
            assert_eq!(changed(&|rows| _ = rows.remove(n)).len(), 1, "without {row:?}");
            assert_eq!(changed(&|rows| rows[n][1].push('x')).len(), 1, "{row:?} under another name");
            assert_eq!(changed(&|rows| rows.insert(n, row.clone())).len(), 1, "{row:?} twice");
        }
    }
}
