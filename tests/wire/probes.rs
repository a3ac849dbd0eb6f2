//! After a hold one job tries its host for all others. However this job ends, somebody finds out; and what is remembered of a host ends
//! some time after its last hold.

use harness::origin::Mood;
use harness::queue::Entry;
use harness::{Origin, RawQueue, Worker, until};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A job that tries a host may take 30 s before another one does; a test that waits for that once would take longer than this.
const SOON: Duration = Duration::from_secs(25);

fn ms_ago(ms: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 - ms
}

/// The host was left alone until a moment ago: who comes next tries it for all.
fn after_a_hold(queue: &mut RawQueue, host: &str) {
    let entry = format!(r#"{{"ends":{},"level":1,"why":"rate_limited"}}"#, ms_ago(10));
    queue.run::<i64>(&["HSET", "@hosts", host, &entry]);
}

fn reasons(results: &[Entry]) -> Vec<&str> {
    results.iter().map(|result| result.get("reason").map_or("", String::as_str)).collect()
}

#[test]
fn a_probe_whose_object_is_there_holds_nobody_up() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    for n in 0..10 {
        queue.push(&origin.url(&format!("{n}/300.gif")));
    }
    let first = Worker::start(&queue, storage.path(), &[]);
    queue.until_results(10, SOON);
    first.kill();
    after_a_hold(&mut queue, &origin.host());
    for n in 0..11 {
        queue.push(&origin.url(&format!("{n}/300.gif")));
    }
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let results = queue.until_results(21, SOON);
    assert_eq!(reasons(&results[10..]).iter().filter(|reason| **reason == "exists").count(), 10);
    assert_eq!(origin.requests_in_all(), 11);
}

#[test]
fn a_probe_with_a_bad_link_or_a_blocked_address_holds_nobody_up() {
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    for host in ["10.9.8.7", "too-long.example"] {
        after_a_hold(&mut queue, host);
        for n in 0..4 {
            match host {
                "10.9.8.7" => queue.push(&format!("http://{host}/{n}.gif")),
                _ => queue.push(&format!("http://{host}/{n}{}", "a".repeat(17 << 10))),
            }
        }
    }
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let results = queue.until_results(8, SOON);
    let count = |reason: &str| reasons(&results).iter().filter(|found| **found == reason).count();
    assert_eq!((count("blocked_address"), count("bad_url")), (4, 4));
}

#[test]
fn a_probe_that_is_given_back_holds_nobody_up() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    origin.hold();
    after_a_hold(&mut queue, &origin.host());
    queue.push(&origin.url("1/300.gif"));
    let mut first = Worker::start(&queue, storage.path(), &["--grace", "100ms"]);
    until("it is tried", SOON, || (origin.requests_in_all() == 1).then_some(()));
    first.signal(rustix::process::Signal::TERM);
    first.until_end(SOON);
    origin.let_go();
    let _second = Worker::start(&queue, storage.path(), &[]);
    assert_eq!(queue.until_results(1, SOON)[0]["outcome"], "stored");
}

#[test]
fn a_probe_whose_worker_dies_holds_nobody_up() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    origin.hold();
    after_a_hold(&mut queue, &origin.host());
    queue.push(&origin.url("1/300.gif"));
    let first = Worker::start(&queue, storage.path(), &[]);
    until("it is tried", SOON, || (origin.requests_in_all() == 1).then_some(()));
    first.kill();
    origin.let_go();
    let _second = Worker::start(&queue, storage.path(), &[]);
    assert_eq!(queue.until_results(1, SOON)[0]["outcome"], "stored");
}

#[test]
fn a_probe_that_was_to_try_a_redirect_s_target_holds_nobody_up() {
    let (door, target) = (Origin::start(), Origin::start());
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    after_a_hold(&mut queue, &target.host());
    // It waited for the target, and is not sent there any more.
    let url = door.url("status/404");
    queue.push(&format!(r#"{{"id":"{}","url":"{url}","redirects_to":"{}"}}"#, "0".repeat(31) + "1", target.host()));
    let _worker = Worker::start(&queue, storage.path(), &[]);
    queue.until_results(1, SOON);
    assert_eq!(target.requests_in_all(), 0);
    queue.push(&target.url("1/300.gif"));
    assert_eq!(queue.until_results(2, SOON)[1]["outcome"], "stored");
}

#[test]
fn refusals_of_long_ago_cost_no_attempt_today() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let entry = format!(r#"{{"ends":{},"level":60,"why":"rate_limited"}}"#, ms_ago(24 * 3_600_000));
    queue.run::<i64>(&["HSET", "@hosts", &origin.host(), &entry]);
    origin.set_mood(Mood::Refusing(Some("1".to_owned())));
    for n in 0..5 {
        queue.push(&origin.url(&format!("{n}/300.gif")));
    }
    let _worker = Worker::start(&queue, storage.path(), &["--max-attempts", "1"]);
    until("it refuses", SOON, || (origin.requests_in_all() > 0).then_some(()));
    origin.set_mood(Mood::Kind);
    for result in queue.until_results(5, SOON) {
        assert_eq!((result["outcome"].as_str(), result["attempts"].as_str()), ("stored", "1"), "{result:?}");
    }
}

#[test]
fn what_is_remembered_of_hosts_that_nobody_asks_any_more_ends() {
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let held = format!(r#"{{"ends":{},"level":3,"why":"connect"}}"#, ms_ago(3_600_000));
    let silent = format!(r#"{{"alone":{{"w":{{"ends":{},"level":3}}}}}}"#, ms_ago(3_600_000));
    let rated = format!(r#"{{"tat":{},"next":{}}}"#, ms_ago(1000), ms_ago(1000));
    for n in 0..20 {
        for (name, entry) in [("held", &held), ("silent", &silent), ("rated", &rated)] {
            queue.run::<i64>(&["HSET", "@hosts", &format!("{name}-{n}.example"), entry]);
        }
        // An index without its entry, as a Redis that lost its last second may have it.
        queue.run::<i64>(&["ZADD", "@hosts:held", "1", &format!("lost-{n}.example")]);
    }
    let _worker = Worker::start(&queue, storage.path(), &[]);
    until("nothing is left", Duration::from_secs(90), || {
        let left = queue.run::<usize>(&["HLEN", "@hosts"]) + queue.run::<usize>(&["ZCARD", "@hosts:held"]);
        (left == 0).then_some(())
    });
}
