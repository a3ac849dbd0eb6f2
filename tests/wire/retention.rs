//! Nothing grows for ever: what ended is forgotten after a time that stands in the queue, by whoever is there, some of it at a time; and
//! nothing that somebody may still want goes with it.

use crate::redis_states::Beside;
use harness::programs::{Finished, finish};
use harness::{Origin, Producer, RawQueue, Redis, Worker, until};
use std::collections::BTreeSet;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const DAY_MS: u64 = 24 * 3600 * 1000;

fn now_ms(queue: &mut RawQueue) -> u64 {
    let (seconds, micros): (u64, u64) = queue.run(&["TIME"]);
    seconds * 1000 + micros / 1000
}

/// A batch of one job that was stored, as it looks when it began so long ago; finished a moment later, or not at all.
fn batch(queue: &mut RawQueue, id: &str, ago_ms: u64, is_finished: bool) {
    let began = now_ms(queue) - ago_ms;
    let (key, began_text, finished) = (format!("@batch:{id}"), began.to_string(), (began + 5).to_string());
    queue.run::<i64>(&["ZADD", "@batches", &began_text, id]);
    let mut words =
        vec!["HSET", &key, "started", &began_text, "source", "a list", "enqueued", "1", "sealed", &began_text];
    if is_finished {
        words.extend(["stored", "1", "finished", &finished]);
    }
    queue.run::<i64>(&words);
}

fn batches(queue: &mut RawQueue) -> BTreeSet<String> {
    let named: BTreeSet<String> = queue.run(&["ZRANGE", "@batches", "0", "-1"]);
    let pattern = queue.key("batch:*").replace('{', "\\{").replace('}', "\\}");
    let keys: Vec<String> = queue.run(&["KEYS", &pattern]);
    let there: BTreeSet<String> = keys.iter().map(|key| key.rsplit(':').next().unwrap().to_owned()).collect();
    assert_eq!(named, there, "a name without a batch, or a batch without a name");
    named
}

/// Adds results, or dead letters, of so long ago; returns their ids.
fn entries(queue: &mut RawQueue, stream: &str, ago_ms: u64, n: u64) -> Vec<String> {
    let at = now_ms(queue) - ago_ms;
    let add = |n| {
        queue.run(&["XADD", stream, &format!("{at}-{n}"), "id", "x", "url", "https://x.org/1", "outcome", "failed"])
    };
    (1..=n).map(add).collect()
}

fn ids(queue: &mut RawQueue, stream: &str) -> Vec<String> {
    let entries: Vec<(String, Vec<String>)> = queue.run(&["XRANGE", stream, "-", "+"]);
    entries.into_iter().map(|(id, _)| id).collect()
}

fn retention(queue: &RawQueue, arguments: &[&str]) -> Finished {
    let done = Producer::run(queue, &[&["retention"], arguments].concat());
    assert_eq!(done.code, 0, "{arguments:?}: {done:?}");
    done
}

#[test]
fn a_worker_forgets_what_finished_a_month_ago_and_nothing_else() {
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    batch(&mut queue, "0000000000a1", 31 * DAY_MS, true);
    batch(&mut queue, "0000000000a2", 31 * DAY_MS, false);
    batch(&mut queue, "0000000000a3", 29 * DAY_MS, true);
    // It began long ago, and finished yesterday.
    batch(&mut queue, "0000000000a4", 40 * DAY_MS, true);
    let yesterday = (now_ms(&mut queue) - DAY_MS).to_string();
    queue.run::<i64>(&["HSET", "@batch:0000000000a4", "finished", &yesterday]);
    // A name of which a rollback left nothing.
    let long_ago = (now_ms(&mut queue) - 50 * DAY_MS).to_string();
    queue.run::<i64>(&["ZADD", "@batches", &long_ago, "0000000000a5"]);
    let results = entries(&mut queue, "@results", 400 * DAY_MS, 3);
    let dead = entries(&mut queue, "@dead", 400 * DAY_MS, 2);
    let _worker = Worker::start(&queue, storage.path(), &[]);
    until("what is old is gone", SOON, || (!queue.hash("batch:0000000000a1").contains_key("started")).then_some(()));
    let left = ["0000000000a2", "0000000000a3", "0000000000a4"].map(str::to_owned);
    until("and what there is no more of", SOON, || {
        let named: BTreeSet<String> = queue.run(&["ZRANGE", "@batches", "0", "-1"]);
        (named == left.clone().into()).then_some(())
    });
    assert_eq!(batches(&mut queue), left.into());
    // Nobody asked for that.
    assert_eq!((ids(&mut queue, "@results"), ids(&mut queue, "@dead")), (results, dead));
}

#[test]
fn how_long_things_are_kept_is_said_once_for_all_programs() {
    let mut queue = RawQueue::shared();
    let shown = retention(&queue, &[]).stdout;
    assert!(shown.contains("30days") && shown.matches("for ever").count() == 2, "{shown}");
    let old = [entries(&mut queue, "@results", 8 * DAY_MS, 3), entries(&mut queue, "@dead", 8 * DAY_MS, 3)];
    let new = [entries(&mut queue, "@results", 6 * DAY_MS, 3), entries(&mut queue, "@dead", 6 * DAY_MS, 3)];
    let set = retention(&queue, &["--keep-results", "7d", "--json"]).json();
    assert_eq!(
        (&set["results"], &set["keep"]["results"], &set["keep"]["dead"]),
        (&3.into(), &"7days".into(), &"always".into())
    );
    assert_eq!(ids(&mut queue, "@results"), new[0]);
    assert_eq!(ids(&mut queue, "@dead"), [&old[1][..], &new[1][..]].concat(), "of dead letters nobody said anything");
    assert_eq!(retention(&queue, &["--keep-dead", "1week", "--json"]).json()["dead"], 3);
    assert_eq!(ids(&mut queue, "@dead"), new[1]);

    // A worker goes by it that was told nothing.
    let storage = tempfile::tempdir().unwrap();
    let late = entries(&mut queue, "@results", 5 * DAY_MS, 2);
    queue.run::<i64>(&["HSET", "@meta", "keep_results_ms", &(5 * DAY_MS + DAY_MS / 2).to_string(), "tidy_at", "0"]);
    let _worker = Worker::start(&queue, storage.path(), &[]);
    until("it goes by what the queue says", SOON, || (ids(&mut queue, "@results") == late).then_some(()));
    retention(&queue, &["--keep-results", "always"]);
    for bad in ["7", "never", "0s", "-7d"] {
        let refused = Producer::run(&queue, &["retention", &format!("--keep-results={bad}")]);
        assert!(refused.code == 2 && refused.stderr.contains(bad) && refused.stderr.contains("30d"), "{refused:?}");
    }
}

#[test]
fn what_a_reader_has_not_taken_stays_unless_it_stood_still_for_too_long() {
    let mut queue = RawQueue::shared();
    let old = entries(&mut queue, "@results", 20 * DAY_MS, 4);
    queue.run::<()>(&["XGROUP", "CREATE", "@results", "export", "0"]);
    // Given two, and has taken the first.
    queue.run::<redis::Value>(&["XREADGROUP", "GROUP", "export", "producer", "COUNT", "2", "STREAMS", "@results", ">"]);
    queue.run::<i64>(&["XACK", "@results", "export", &old[0]]);
    assert_eq!(retention(&queue, &["--keep-results", "7d", "--json"]).json()["results"], 1);
    assert_eq!(ids(&mut queue, "@results"), old[1..], "what it was given and has not taken, and what is behind that");
    let list = Producer::run(&queue, &["results", "--list-readers"]).stdout;
    assert!(list.contains("export") && !list.contains("silent"), "{list}");

    // Where it stands was noted; now that was long ago.
    let field = "reader:export";
    let noted = queue.hash("meta")[field].clone();
    let (position, since) = noted.split_once(' ').unwrap();
    let back = since.parse::<u64>().unwrap() - 31 * DAY_MS;
    queue.run::<i64>(&["HSET", "@meta", field, &format!("{position} {back}"), "tidy_at", "0"]);
    let storage = tempfile::tempdir().unwrap();
    let worker = Beside::start("the worker", Worker::command(&queue, storage.path()));
    until("results are not kept for it any more", SOON, || ids(&mut queue, "@results").is_empty().then_some(()));
    until("and that is said", SOON, || worker.said().contains("reader export has taken no result").then_some(()));
    let list = Producer::run(&queue, &["results", "--list-readers"]).stdout;
    assert!(list.contains("silent for") && list.contains("not kept for it"), "{list}");

    // It comes back, is told so, and counts again.
    let new = entries(&mut queue, "@results", 10 * DAY_MS, 2);
    let arguments = ["results", "--reader", "export", "--format", "urls"];
    let back = finish(Producer::command(&queue, &arguments), b"", SOON);
    assert!(back.code == 0 && back.stderr.contains("stood still for"), "{back:?}");
    assert_eq!(back.stdout.lines().count(), 2, "and what it was given and is gone is not shown: {back:?}");
    let pending: (i64, redis::Value, redis::Value, redis::Value) = queue.run(&["XPENDING", "@results", "export"]);
    assert_eq!(pending.0, 0);
    let more = entries(&mut queue, "@results", 9 * DAY_MS, 2);
    retention(&queue, &["--keep-results", "7d"]);
    assert_eq!(ids(&mut queue, "@results"), more, "{new:?} it has taken");
    let again = finish(Producer::command(&queue, &arguments), b"", SOON);
    assert!(!again.stderr.contains("stood still"), "{again:?}");
}

#[test]
fn a_reader_that_moves_or_has_nothing_to_take_is_not_silent() {
    let mut queue = RawQueue::shared();
    let old = entries(&mut queue, "@results", 20 * DAY_MS, 3);
    for (reader, taken) in [("slow", &old[0]), ("done", &old[2])] {
        queue.run::<()>(&["XGROUP", "CREATE", "@results", reader, taken]);
    }
    retention(&queue, &["--keep-results", "30d"]);
    let meta = queue.hash("meta");
    assert!(meta.contains_key("reader:slow") && !meta.contains_key("reader:done"), "{meta:?}");
    let long_ago = (now_ms(&mut queue) - 31 * DAY_MS).to_string();
    queue.run::<i64>(&["HSET", "@meta", "reader:slow", &format!("{}/0 {long_ago}", old[0])]);
    // It takes one more: it stands elsewhere from now on.
    queue.run::<redis::Value>(&["XREADGROUP", "GROUP", "slow", "c", "COUNT", "1", "NOACK", "STREAMS", "@results", ">"]);
    let done = retention(&queue, &["--keep-results", "7d", "--json"]).json();
    assert_eq!((&done["results"], &done["silent_readers"]), (&2.into(), &serde_json::json!([])));
    assert_eq!(ids(&mut queue, "@results"), old[2..]);
    queue.run::<i64>(&["XTRIM", "@results", "MAXLEN", "0"]);
    queue.run::<()>(&["XGROUP", "CREATE", "@results", "new", "0"]);
    retention(&queue, &["--keep-results", "7d"]);
    assert!(!queue.hash("meta").contains_key("reader:new"), "nothing is left that it could take");
    queue.run::<i64>(&["XGROUP", "DESTROY", "@results", "slow"]);
    retention(&queue, &["--keep-results", "7d"]);
    assert!(!queue.hash("meta").contains_key("reader:slow"), "who is gone is not remembered");
}

#[test]
fn results_at_their_bound_do_not_wait_for_a_silent_reader() {
    let mut queue = RawQueue::shared();
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    entries(&mut queue, "@results", 20 * DAY_MS, 10);
    queue.run::<()>(&["XGROUP", "CREATE", "@results", "export", "0"]);
    queue.push(&origin.url("1/300.gif"));
    let _worker = Worker::start(&queue, storage.path(), &["--results-max", "10"]);
    until("it waits for the reader", SOON, || {
        let workers = Producer::run(&queue, &["workers"]).stdout;
        workers.contains("--results-max").then_some(())
    });
    assert_eq!(origin.requests_in_all(), 0);
    let long_ago = (now_ms(&mut queue) - 31 * DAY_MS).to_string();
    queue.run::<i64>(&["HSET", "@meta", "reader:export", &format!("0-0/0 {long_ago}")]);
    until("it does not wait any more", SOON, || (origin.requests_in_all() == 1).then_some(()));
}

#[test]
fn a_dead_job_whose_batch_is_forgotten_counts_in_the_queue_alone() {
    let mut queue = RawQueue::shared();
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    let links: Vec<String> = (1..=2).map(|n| origin.url(&format!("flaky/9/{n}"))).collect();
    let enqueued = Producer::run(&queue, &["enqueue", "--json", &links[0], &links[1]]).json();
    let batch = enqueued["batch"].as_str().unwrap().to_owned();
    {
        let _worker = Worker::start(&queue, storage.path(), &["--max-attempts", "1"]);
        queue.until_results(2, SOON);
    }
    let purged = Producer::run(&queue, &["purge", "--finished", "--yes", "--json"]).json();
    assert_eq!(purged["batches_forgotten"], 1);
    assert!(batches(&mut queue).is_empty());
    assert_eq!((queue.results_len(), queue.stream("dead").len()), (2, 2), "what its jobs left stays");
    let unknown = Producer::run(&queue, &["wait", &batch]);
    assert!(unknown.code == 1 && unknown.stderr.contains("no batch"), "{unknown:?}");
    let retried = Producer::run(&queue, &["dead", "retry", "--json"]).json();
    assert_eq!(retried["moved"], 2);
    assert_eq!(queue.hash("stats")["failed"], "0");
    let _worker = Worker::start(&queue, storage.path(), &["--max-attempts", "1"]);
    queue.until_results(4, SOON);
    assert_eq!(queue.hash("stats")["failed"], "2");
    Producer::run(&queue, &["dead", "retry", "--json"]);
    Producer::run(&queue, &["purge", "--yes"]);
    assert!(batches(&mut queue).is_empty(), "no batch comes back to life");
}

#[test]
fn purge_finished_leaves_what_is_under_way() {
    let mut queue = RawQueue::shared();
    for n in 0..450 {
        batch(&mut queue, &format!("{:012x}", n + 1), DAY_MS - n, n % 10 != 0);
    }
    let refused = Producer::run(&queue, &["purge", "--finished"]);
    assert!(refused.code == 2 && refused.stderr.contains("batches that are finished"), "{refused:?}");
    let done = Producer::run(&queue, &["purge", "--finished", "--yes"]);
    assert!(done.code == 0 && done.stdout.contains("405 batches forgotten"), "{done:?}");
    assert_eq!(batches(&mut queue).len(), 45);
}

#[test]
fn an_amount_at_a_time_goes_and_what_is_unfinished_for_ever_is_passed_over() {
    let redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    // In front of those that go stand more than one call looks at.
    for n in 0..250 {
        batch(&mut queue, &format!("{:012x}", n + 1), 60 * DAY_MS - n, false);
    }
    for n in 0..300 {
        batch(&mut queue, &format!("{:012x}", n + 1001), 50 * DAY_MS - n, true);
    }
    let fill = "for n = 1, 30000 do redis.call('XADD', KEYS[1], '1-' .. n, 'id', n, 'url', 'https://x.org/' .. n) end";
    let results = queue.key("results");
    queue.run::<()>(&["EVAL", fill, "1", &results]);
    queue.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    queue.run::<()>(&["CONFIG", "RESETSTAT"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let done = retention(&queue, &["--keep-results", "1d", "--json"]).json();
    assert_eq!((&done["results"], &done["batches"]), (&30_000.into(), &300.into()), "with a Redis that is full");
    assert_eq!(batches(&mut queue).len(), 250);
    queue.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    // Without a wish only what is due: some a minute.
    let of_programs = runtime.block_on(::queue::Queue::open(&queue.url, &queue.name)).unwrap();
    queue.run::<()>(&["EVAL", &fill.replace("'1-'", "'2-'"), "1", &results]);
    assert_eq!(runtime.block_on(of_programs.tidy(false)).unwrap(), ::queue::Tidied::default());
    queue.run::<i64>(&["HSET", "@meta", "tidy_at", "0"]);
    let some = runtime.block_on(of_programs.tidy(false)).unwrap();
    assert!(some.has_more && (1..=10_000).contains(&some.results), "{some:?}");
    // What somebody made of the place where the pass is.
    queue.run::<i64>(&["HSET", "@meta", "tidy_skip", "1.5"]);
    assert_eq!(runtime.block_on(of_programs.tidy(true)).unwrap().dead, 0);
    // Of a clock that was set back.
    queue.run::<i64>(&["HSET", "@meta", "tidy_at", "99999999999999"]);
    assert!(runtime.block_on(of_programs.tidy(false)).unwrap().results > 0);
}

#[test]
fn hosts_that_nobody_asks_for_any_more_are_forgotten_without_a_claim() {
    let mut queue = RawQueue::shared();
    for n in 0..2000 {
        queue.run::<i64>(&["HSET", "@hosts", &format!("{n}.example"), r#"{"tat":1000}"#]);
    }
    let held = (now_ms(&mut queue) + DAY_MS / 48).to_string();
    queue.run::<i64>(&[
        "HSET",
        "@hosts",
        "held.example",
        &format!(r#"{{"ends":{held},"level":1,"why":"rate_limited"}}"#),
    ]);
    queue.run::<i64>(&["ZADD", "@hosts:held", &held, "held.example"]);
    retention(&queue, &["--keep-dead", "30d"]);
    // Found by chance: some are left when few are found.
    let left = queue.hash("hosts");
    assert!(left.len() < 1000 && left.contains_key("held.example"), "{} are left", left.len());
}
