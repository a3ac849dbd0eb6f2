//! Wrong clocks: that of Redis and those of the workers, set back and forth while they work.

use harness::chaos::clock_environment;
use harness::origin::Mood;
use harness::{Origin, RawQueue, Redis, Worker, until};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

const SOON: Duration = Duration::from_secs(40);

fn set(clock: &Path, by: &str) {
    std::fs::write(clock, format!("{by}\n")).unwrap();
}

/// Registered workers, whatever order their leases end in.
fn alive(queue: &mut RawQueue) -> BTreeSet<String> {
    queue.workers().into_iter().collect()
}

fn now_of(queue: &mut RawQueue) -> u64 {
    let (seconds, _): (u64, u64) = queue.run(&["TIME"]);
    seconds
}

#[test]
fn a_redis_whose_clock_jumps_makes_nobody_dead_and_keeps_nothing_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    set(&clock, "+0");
    let redis = Redis::private_with_environment(&[], clock_environment(&clock));
    let mut queue = RawQueue::on(&redis);
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    origin.hold();
    let _workers =
        [1, 2].map(|_| Worker::start(&queue, storage.path(), &["--concurrency", "8", "--retry-delay", "8s"]));
    queue.until_workers(2);
    let names = alive(&mut queue);
    for n in 0..16 {
        queue.push(&origin.url(&format!("{n}/2000.gif")));
    }
    until("downloads are going on", SOON, || (queue.in_flight_len() == 16).then_some(()));
    for by in ["+3600", "+0", "-3600", "+0"] {
        let before = now_of(&mut queue);
        set(&clock, by);
        until("the clock has jumped", SOON, || (now_of(&mut queue).abs_diff(before) > 3000).then_some(()));
        // A heartbeat of each has met the new time.
        let met = Instant::now() + Duration::from_secs(4);
        until("everybody has met it", SOON, || (Instant::now() > met).then_some(()));
        assert_eq!(alive(&mut queue), names, "somebody was taken for dead when the clock went to {by} s");
    }
    origin.let_go();
    queue.until_results(16, SOON);
    assert_eq!(queue.hash("stats").get("recovered"), None, "a job was taken from a worker that lives");

    // A job that is to wait for seconds, by a clock that is then set back an hour.
    let before = now_of(&mut queue);
    set(&clock, "+3600");
    until("the clock is ahead", SOON, || (now_of(&mut queue) > before + 3000).then_some(()));
    queue.push(&origin.url("flaky/1/a"));
    until("it waits", SOON, || (queue.run::<u64>(&["ZCARD", "@delayed"]) == 1).then_some(()));
    set(&clock, "+0");
    let results = queue.until_results(17, SOON);
    assert!(results.iter().all(|result| result["outcome"] == "stored"));
}

#[test]
fn a_hold_lasts_as_long_as_it_was_meant_though_the_clock_is_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    set(&clock, "+3600");
    let redis = Redis::private_with_environment(&[], clock_environment(&clock));
    let mut queue = RawQueue::on(&redis);
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    let _worker = Worker::start(&queue, storage.path(), &[]);
    origin.set_mood(Mood::Refusing(Some("6".to_owned())));
    queue.push(&origin.url("1/300.gif"));
    until("the host is left alone", SOON, || queue.hash("hosts").get(&origin.host()).cloned());
    origin.set_mood(Mood::Kind);
    let ahead = now_of(&mut queue);
    set(&clock, "+0");
    until("the clock is set back", SOON, || (now_of(&mut queue) + 3000 < ahead).then_some(()));
    // What comes now meets a host that is left alone by the clock of before.
    queue.push(&origin.url("2/300.gif"));
    assert!(queue.until_results(2, SOON).iter().all(|result| result["outcome"] == "stored"));
}

#[test]
fn a_date_to_wait_for_is_meant_by_the_clock_of_who_says_it() {
    const WAIT_S: u64 = 40;
    let folder = tempfile::tempdir().unwrap();
    for by in ["+7200", "-7200"] {
        let clock = folder.path().join("clock");
        set(&clock, by);
        let mut queue = RawQueue::shared();
        let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
        let mut command = Worker::command(&queue, storage.path());
        let _wrong = Worker::of(command.envs(clock_environment(&clock)).spawn().unwrap());
        queue.until_workers(1);
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(WAIT_S));
        origin.set_mood(Mood::Refusing(Some(date)));
        queue.push(&origin.url("1/300.gif"));
        let entry = until("the host is left alone", SOON, || queue.hash("hosts").get(&origin.host()).cloned());
        let entry: serde_json::Value = serde_json::from_str(&entry).unwrap();
        let wait_ms = entry["ends"].as_i64().unwrap() - entry["since"].as_i64().unwrap();
        // Less what passed until it was refused, on a machine that is busy with other things.
        assert!((WAIT_S as i64 * 250..=WAIT_S as i64 * 1000).contains(&wait_ms), "{by}: left alone for {wait_ms} ms");
    }
}

#[test]
fn workers_whose_clocks_are_wrong_work_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    set(&clock, "-86400");
    let mut queue = RawQueue::shared();
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    let mut command = Worker::command(&queue, storage.path());
    // Few slots and slow answers, so that neither can take all of a round.
    let few = ["--concurrency", "8"];
    let _wrong = Worker::of(command.args(few).envs(clock_environment(&clock)).spawn().unwrap());
    let _right = Worker::start(&queue, storage.path(), &few);
    queue.until_workers(2);
    let names = alive(&mut queue);
    for (round, by) in ["+86400", "-3600", "+0"].into_iter().enumerate() {
        set(&clock, by);
        for n in 0..30 {
            queue.push(&origin.url(&format!("after/100/{round}{n}/2000.gif")));
        }
        let results = queue.until_results(30 * (round + 1), SOON);
        assert!(results.iter().all(|result| result["outcome"] == "stored" && result["attempts"] == "1"));
    }
    let results = queue.results();
    for name in &names {
        assert!(results.iter().any(|result| result["worker"] == *name), "{name} did nothing");
    }
    assert_eq!(alive(&mut queue), names);
}
