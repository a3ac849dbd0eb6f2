//! Redis restarted, rolled back, emptied of scripts.

use harness::files::objects;
use harness::programs::{Finished, finish};
use harness::{Origin, Producer, RawQueue, Redis, Worker, until};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

fn push_all(queue: &mut RawQueue, origin: &Origin, jobs: u64) -> Vec<String> {
    let urls: Vec<String> = (0..jobs).map(|n| origin.url(&format!("{n}/2000.gif"))).collect();
    for url in &urls {
        queue.push(url);
    }
    urls
}

fn each_once(queue: &mut RawQueue, urls: &[String]) {
    let results = queue.results();
    let found: BTreeSet<&String> = results.iter().map(|result| &result["url"]).collect();
    assert_eq!((results.len(), found.len()), (urls.len(), urls.len()));
    assert!(
        results.iter().all(|r| r["outcome"] == "stored" && r["attempts"] == "1"),
        "no attempt was lost: {results:?}"
    );
}

#[test]
fn a_restart_in_the_middle_costs_nothing_and_no_attempt() {
    let mut redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    let origin = Origin::start();
    origin.hold();
    let storage = tempfile::tempdir().unwrap();
    let urls = push_all(&mut queue, &origin, 60);
    let workers = [1, 2].map(|_| Worker::start(&queue, storage.path(), &["--concurrency", "8"]));
    until("downloads are going on", SOON, || (origin.requests_in_all() >= 16).then_some(()));
    redis.stop();
    // Downloads end while Redis is away; their results have to wait.
    origin.let_go();
    until("objects arrive meanwhile", SOON, || (objects(storage.path()).len() >= 16).then_some(()));
    redis.start_again();
    queue.reconnect(&redis);
    queue.until_results(60, SOON);
    each_once(&mut queue, &urls);
    assert_eq!(objects(storage.path()).len(), 60);
    assert_eq!(queue.in_flight_len() + queue.ready_len(), 0);
    drop(workers);
}

#[test]
fn a_redis_that_goes_back_in_time_loses_no_job_and_doubles_none() {
    let mut redis = Redis::private(&["--appendfsync", "always"]);
    let mut queue = RawQueue::on(&redis);
    let origin = Origin::start();
    origin.hold();
    let storage = tempfile::tempdir().unwrap();
    let urls = push_all(&mut queue, &origin, 30);
    let workers = [1, 2].map(|_| Worker::start(&queue, storage.path(), &["--concurrency", "5"]));
    until("downloads are going on", SOON, || {
        (queue.in_flight_len() == 10 && origin.requests_in_all() >= 10).then_some(())
    });
    // What is claimed now is in the copy; what is settled and claimed from now on is not.
    let copy = redis.snapshot();
    origin.let_go();
    queue.until_results(20, SOON);
    redis.kill();
    redis.restore(&copy);
    redis.start_again();
    queue.reconnect(&redis);
    queue.until_results(30, SOON);
    until("nothing is left anywhere", SOON, || (queue.in_flight_len() + queue.ready_len() == 0).then_some(()));
    let results = queue.results();
    let found: BTreeSet<&String> = results.iter().map(|result| &result["url"]).collect();
    assert_eq!((results.len(), found.len()), (urls.len(), urls.len()), "one result each");
    assert!(results.iter().all(|result| result["outcome"] == "stored"));
    assert!(
        results.iter().any(|r| r.get("reason").is_some_and(|why| why == "exists")),
        "repeated ones found their object"
    );
    drop(workers);
}

#[test]
fn scripts_that_redis_forgot_are_loaded_again() {
    let redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    let origin = Origin::start();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &[]);
    for n in 0..5 {
        queue.run::<()>(&["SCRIPT", "FLUSH"]);
        queue.push(&origin.url(&format!("{n}/300.gif")));
        queue.until_results(n + 1, SOON);
    }
}

#[test]
fn at_maxmemory_enqueue_is_refused_and_the_queue_still_drains() {
    let redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    let origin = Origin::start();
    let storage = tempfile::tempdir().unwrap();
    let urls = push_all(&mut queue, &origin, 50);
    // One enqueue has begun when memory runs out, another one begins after that.
    let mut begun =
        Producer::command(&queue, &["enqueue", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("a batch is open", SOON, || (queue.run::<i64>(&["ZCARD", "@batches"]) == 1).then_some(()));
    queue.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    begun.stdin.take().unwrap().write_all(origin.url("98/300.gif").as_bytes()).unwrap();
    let begun = Finished::from(begun.wait_with_output().unwrap());
    assert_eq!(begun.code, 1, "{begun:?}");
    assert!(begun.stderr.contains("out of memory") && begun.stderr.contains("hint: "), "{begun:?}");
    let links = origin.url("99/300.gif");
    let refused = finish(Producer::command(&queue, &["enqueue", &links]), b"", SOON);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("out of memory") && refused.stderr.contains("hint: "), "{refused:?}");
    assert_eq!(queue.ready_len(), 50, "nothing was added");
    let _worker = Worker::start(&queue, storage.path(), &[]);
    queue.until_results(50, SOON);
    each_once(&mut queue, &urls);
}

#[test]
fn a_redis_that_is_away_is_not_stormed() {
    let mut redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    let storage = tempfile::tempdir().unwrap();
    let mut worker = Worker::command(&queue, storage.path()).stderr(Stdio::piped()).spawn().unwrap();
    queue.until_workers(1);
    redis.stop();
    let log = BufReader::new(worker.stderr.take().unwrap());
    let tries: Vec<Instant> = log
        .lines()
        .map_while(Result::ok)
        .filter(|line| line.contains("cannot claim"))
        .map(|_| Instant::now())
        .take(6)
        .collect();
    worker.kill().unwrap();
    worker.wait().unwrap();
    // 50 ms, doubling, half of it jitter: from the second to the sixth try at least 50 + 100 + 200 + 400 halves.
    assert!(tries[5] - tries[1] > Duration::from_millis(350), "{:?}", tries[5] - tries[1]);
}
