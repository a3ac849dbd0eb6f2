//! What a worker makes of servers that answer in every way there is.

use harness::files::{objects, sha256};
use harness::origin::gif;
use harness::{Origin, RawQueue, Worker, until};
use std::collections::BTreeMap;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn each_answer_has_its_outcome_and_reason() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let expected = [
        ("1/300.gif", "stored", ""),
        ("no-type", "stored", ""),
        ("redirect/2/300.gif", "stored", ""),
        ("redirect/redirect/redirect/redirect/redirect/3/300.gif", "stored", ""),
        ("flaky/2/x.gif", "stored", ""),
        ("status/404", "rejected", "gone"),
        ("status/410", "rejected", "gone"),
        ("status/401", "rejected", "forbidden"),
        ("status/403", "rejected", "forbidden"),
        ("status/451", "rejected", "forbidden"),
        ("status/418", "rejected", "http_4xx"),
        ("removed/x.jpg", "rejected", "removed"),
        ("html", "rejected", "not_image"),
        ("empty", "rejected", "not_image"),
        ("4/3000000.gif", "rejected", "too_large"),
        ("announced-large", "rejected", "too_large"),
        ("loop", "rejected", "redirects"),
        ("to-file", "rejected", "redirects"),
        ("to-metadata", "rejected", "blocked_address"),
        ("status/500", "failed", "http_5xx"),
        ("status/503", "failed", "http_5xx"),
        ("status/429", "failed", "rate_limited"),
        ("truncated", "failed", "truncated"),
        ("endless", "failed", "timeout_idle"),
    ];
    let mut jobs: BTreeMap<String, (&str, &str)> =
        expected.iter().map(|(path, outcome, reason)| (origin.url(path), (*outcome, *reason))).collect();
    for (url, outcome, reason) in [
        ("http://10.1.2.3/a.jpg", "rejected", "blocked_address"),
        ("http://[::1]:1/a.jpg", "rejected", "blocked_address"),
        ("http://2130706433.example.invalid/a.jpg", "failed", "dns"),
        ("http://127.0.0.1:1/a.jpg", "failed", "connect"),
        ("ftp://127.0.0.1/a.jpg", "rejected", "bad_url"),
    ] {
        jobs.insert(url.to_owned(), (outcome, reason));
    }
    // A server that speaks no TLS.
    jobs.insert(origin.url("1/300.gif").replace("http://", "https://"), ("failed", "tls"));
    for url in jobs.keys() {
        queue.push(url);
    }
    // A machine that is busy with other things may itself be silent for a second.
    let arguments = ["--max-bytes", "2MB", "--idle-timeout", "4s", "--max-attempts", "3", "--retry-delay", "10ms"];
    let _worker = Worker::start(&queue, storage.path(), &arguments);
    // The host's refusals alone make the link that is always refused wait for 5 s, and a name may take seconds not to resolve.
    let results = queue.until_results(jobs.len(), Duration::from_secs(90));
    let found: BTreeMap<String, (&str, &str)> = results
        .iter()
        .map(|r| (r["url"].clone(), (r["outcome"].as_str(), r.get("reason").map_or("", String::as_str))))
        .collect();
    assert_eq!(found, jobs);
    for result in &results {
        let attempts = match result["outcome"].as_str() {
            "failed" => "3",
            _ if result["url"].contains("flaky") => "3",
            _ => "1",
        };
        assert_eq!(result["attempts"], attempts, "{result:?}");
        assert_eq!(result.contains_key("key"), result["outcome"] == "stored", "{result:?}");
    }
    let reported: BTreeMap<String, String> = results
        .iter()
        .filter(|result| result["outcome"] == "stored")
        .map(|result| (result["key"].clone(), result["sha256"].clone()))
        .collect();
    assert_eq!(objects(storage.path()), reported);
    let no_type = results.iter().find(|result| result["url"].ends_with("no-type")).unwrap();
    assert!(no_type["key"].ends_with(".gif"), "the extension comes from the content: {}", no_type["key"]);
    assert_eq!(queue.stream("dead").len(), results.iter().filter(|result| result["outcome"] == "failed").count());
    let stats = queue.hash("stats");
    assert_eq!(stats["stored"], reported.len().to_string());
}

#[test]
fn the_total_time_ends_a_download_that_never_does() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    queue.push(&origin.url("endless"));
    let _worker = Worker::start(&queue, storage.path(), &["--total-timeout", "1s", "--max-attempts", "1"]);
    assert_eq!(queue.until_results(1, SOON)[0]["reason"], "timeout_total");
}

#[test]
fn an_object_that_is_there_is_not_downloaded_again_but_half_a_one_is() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let url = origin.url("7/800.gif");
    queue.push(&url);
    let first = queue.until_results(1, SOON).remove(0);
    queue.push(&url);
    let second = queue.until_results(2, SOON).remove(1);
    assert_eq!((second["outcome"].as_str(), second["reason"].as_str()), ("stored", "exists"));
    for field in ["key", "bytes", "sha256", "type", "width", "height"] {
        assert_eq!(first[field], second[field], "{field}");
    }
    assert_eq!(origin.requests("7/800.gif"), 1);
    // What lies there is no image any more: it is replaced.
    std::fs::write(storage.path().join(&first["key"]), b"not an image").unwrap();
    queue.push(&url);
    let third = queue.until_results(3, SOON).remove(2);
    assert_eq!((third["outcome"].as_str(), third.get("reason")), ("stored", None));
    assert_eq!(objects(storage.path())[&third["key"]], sha256(&gif(7, 800)));
}

#[test]
fn an_object_of_another_type_than_its_link_says_is_found_again_by_all() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let url = origin.url("mistyped/a.jpg");
    let worker = Worker::start(&queue, storage.path(), &[]);
    queue.push(&url);
    let first = queue.until_results(1, SOON).remove(0);
    assert!(first["key"].ends_with(".gif"), "{first:?}");
    queue.push(&url);
    assert_eq!(queue.until_results(2, SOON)[1]["reason"], "exists", "by the worker that stored it");
    worker.kill();
    let _another = Worker::start(&queue, storage.path(), &[]);
    queue.push(&url);
    let third = queue.until_results(3, SOON).remove(2);
    assert_eq!((third["reason"].as_str(), &third["key"]), ("exists", &first["key"]));
    assert_eq!(origin.requests("mistyped/a.jpg"), 1);
}

#[test]
fn retries_wait_in_delayed_with_their_attempts_counted() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    queue.push(&origin.url("status/500"));
    let _worker = Worker::start(&queue, storage.path(), &["--retry-delay", "5m"]);
    let delayed: Vec<String> = until("the job is delayed", SOON, || {
        Some(queue.run::<Vec<String>>(&["ZRANGE", "@delayed", "0", "-1", "WITHSCORES"])).filter(|d| !d.is_empty())
    });
    assert!(delayed[0].contains("\"attempts\":1") && delayed[0].starts_with("{\"id\":\""), "{delayed:?}");
    let time: Vec<u64> = queue.run(&["TIME"]);
    let due: u64 = delayed[1].parse().unwrap();
    assert!(due <= time[0] * 1000 + 301_000, "full jitter stays below the delay");
    assert_eq!(queue.in_flight_len() + queue.results_len() + queue.ready_len(), 0, "and in no other place");
    // Somebody makes it due.
    queue.run::<i64>(&["ZADD", "@delayed", "1", &delayed[0]]);
    until("it is tried again", SOON, || (origin.requests("status/500") == 2).then_some(()));
}

#[test]
fn one_host_gets_no_more_downloads_at_once_than_allowed() {
    let origin = Origin::start();
    origin.hold();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    for n in 0..12 {
        queue.push(&origin.url(&format!("{n}/4000.gif")));
    }
    let other = Origin::start();
    queue.push(&other.url("1/300.gif"));
    let _worker = Worker::start(&queue, storage.path(), &["--host-concurrency", "3"]);
    // Another port is another host: its job may be done before the others are claimed.
    let claimed = |queue: &mut RawQueue| queue.run::<usize>(&["XLEN", "@results"]) + queue.in_flight_len();
    until("all are claimed", SOON, || (claimed(&mut queue) == 13).then_some(()));
    until("three are being downloaded", SOON, || (origin.requests_in_all() == 3).then_some(()));
    origin.let_go();
    queue.until_results(13, SOON);
}
