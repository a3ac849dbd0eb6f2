//! What the queue keeps so that people can see it: reasons, hosts, history; each bounded, whoever looks.

use harness::{Origin, Producer, RawQueue, Worker, until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn reasons_and_hosts_are_counted_and_a_job_that_lives_again_leaves_them() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let links = ["1/500.gif", "status/404?a", "status/404?b", "status/500"].map(|path| origin.url(path));
    let mut enqueue = vec!["enqueue", "--json"];
    enqueue.extend(links.iter().map(String::as_str));
    let batch = Producer::run(&queue, &enqueue).json()["batch"].as_str().unwrap().to_owned();
    let before = Producer::run(&queue, &["status", "--json"]).json();
    assert!(before["oldest_ms"].as_u64().unwrap() < 60_000, "{before}");
    let worker = Worker::start(&queue, storage.path(), &["--max-attempts", "1"]);
    queue.until_results(4, SOON);
    let name = queue.until_workers(1).remove(0);
    let host = origin.url("").split('/').nth(2).unwrap().to_owned();
    let told = until("the worker tells of its hosts", SOON, || {
        Some(queue.hash(&format!("worker:{name}"))["hosts"].clone()).filter(|hosts| hosts.contains(&host))
    });
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((told.as_array().unwrap().len(), told[0][0].as_str()), (1, Some(host.as_str())));

    let status = Producer::run(&queue, &["status", "--json"]).json();
    assert_eq!(status["reasons"], serde_json::json!({"rejected:gone": 2, "failed:http_5xx": 1}));
    assert_eq!(status["oldest_ms"], serde_json::Value::Null, "nothing is queued");
    let of_batch = Producer::run(&queue, &["status", &batch, "--json"]).json();
    assert_eq!(of_batch["hosts"], serde_json::json!({ host.as_str(): 3 }));
    assert_eq!(of_batch["reasons"]["rejected:gone"], 2);

    drop(worker);
    assert_eq!(Producer::run(&queue, &["dead", "retry"]).code, 0);
    let status = Producer::run(&queue, &["status", "--json"]).json();
    assert_eq!(status["reasons"], serde_json::json!({"rejected:gone": 2}));
    let of_batch = Producer::run(&queue, &["status", &batch, "--json"]).json();
    assert_eq!(of_batch["hosts"], serde_json::json!({ host.as_str(): 2 }));
}

#[test]
fn a_batch_counts_no_more_hosts_than_people_look_at() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    // 2,000 names that are refused before anybody is asked.
    let list: String = (0..2000).map(|n| format!("http://10.1.{}.{}/x.jpg\n", n / 250, n % 250)).collect();
    let file = storage.path().join("links.txt");
    std::fs::write(&file, list + &origin.url("1/500.gif")).unwrap();
    let enqueued = Producer::run(&queue, &["enqueue", file.to_str().unwrap(), "--json"]).json();
    let _worker = Worker::start(&queue, storage.path(), &[]);
    queue.until_results(2001, SOON);
    let batch = format!("@batch:{}", enqueued["batch"].as_str().unwrap());
    let fields: usize = queue.run(&["HLEN", &batch]);
    // One settlement of 256 jobs may begin just below the bound.
    assert!((200..600).contains(&fields), "{fields} fields");
}

#[test]
fn history_is_kept_and_does_not_grow() {
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let old: Vec<String> = (0..5000).map(|n| format!("{n} 0 0 0 0 0 0 0")).collect();
    for list in ["@history:10s", "@history:5m"] {
        let mut push = vec!["RPUSH", list];
        push.extend(old.iter().map(String::as_str));
        queue.run::<i64>(&push);
    }
    for n in 0..3 {
        queue.push(&format!("http://10.0.0.1/{n}.jpg"));
    }
    assert_eq!(Producer::run(&queue, &["pause"]).code, 0);
    let _worker = Worker::start(&queue, storage.path(), &[]);
    until("a line of history", SOON, || (queue.run::<usize>(&["LLEN", "@history:10s"]) == 720).then_some(()));
    assert_eq!(queue.run::<usize>(&["LLEN", "@history:5m"]), 2304);
    let line: Vec<String> = queue.run(&["LRANGE", "@history:10s", "-1", "-1"]);
    let numbers: Vec<u64> = line[0].split(' ').map(|number| number.parse().unwrap()).collect();
    let (seconds, _) = queue.run::<(u64, u64)>(&["TIME"]);
    assert!(numbers[0].abs_diff(seconds * 1000) < 60_000, "{numbers:?}");
    assert_eq!(numbers[1..], [3, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_history_that_cannot_be_written_costs_no_lease() {
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    queue.run::<String>(&["SET", "@history:10s", "not a list"]);
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let name = queue.until_workers(1).remove(0);
    let key = format!("worker:{name}");
    let first =
        until("it is seen", SOON, || queue.hash(&key).get("waiting").and(queue.hash(&key).get("seen")).cloned());
    until("it is seen again", SOON, || (queue.hash(&key).get("seen") != Some(&first)).then_some(()));
    assert_eq!(queue.workers(), [name]);
}
