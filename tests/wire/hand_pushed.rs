//! What people and other programs see with `redis-cli`, and what they may push.

use harness::files::{objects, sha256};
use harness::origin::gif;
use harness::{Origin, Producer, RawQueue, Worker};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_bare_url_is_a_job_too() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &[]);
    queue.push(&origin.url("1/300.gif"));
    let results = queue.until_results(1, SOON);
    let result = &results[0];
    assert_eq!(result["url"], origin.url("1/300.gif"));
    assert_eq!(result["outcome"], "stored");
    assert_eq!(result["sha256"], sha256(&gif(1, 300)));
    assert_eq!((result["bytes"].as_str(), result["type"].as_str()), ("300", "gif"));
    assert_eq!((result["width"].as_str(), result["height"].as_str()), ("32", "16"));
    assert_eq!((result["status"].as_str(), result["attempts"].as_str()), ("200", "1"));
    assert!(result.contains_key("worker") && result.contains_key("ms"));
    // Given by the claim: a UUID of version 8 that names no batch; empty fields are left out.
    assert_eq!(result["id"].len(), 32);
    assert!(result["id"].starts_with("0000000000008"), "{}", result["id"]);
    assert!(!result.contains_key("batch") && !result.contains_key("reason"));
    assert_eq!(objects(storage.path())[&result["key"]], result["sha256"]);
}

#[test]
fn an_enqueued_job_is_compact_json_whose_id_names_its_batch() {
    let mut queue = RawQueue::shared();
    let enqueued = Producer::run(&queue, &["enqueue", "https://example.com/a.jpg", "--json"]).json();
    let batch = enqueued["batch"].as_str().unwrap().to_owned();
    let ready = queue.ready();
    let id = &ready[0][7..39];
    assert_eq!(ready, [format!("{{\"id\":\"{id}\",\"url\":\"https://example.com/a.jpg\"}}")]);
    assert!(id.bytes().all(|b| b.is_ascii_hexdigit()) && id.starts_with(&batch), "{id} of {batch}");
    assert_eq!((&id[12..13], "89ab".contains(&id[16..17])), ("8", true), "a UUID of version 8");
    let facts = queue.hash(&format!("batch:{batch}"));
    assert_eq!(facts["enqueued"], "1");
    for time in ["started", "sealed"] {
        assert!(facts[time].parse::<u64>().unwrap() > 1_600_000_000_000, "{time} in ms");
    }
    assert!(!facts.contains_key("finished"));
    let listed: Vec<String> = queue.run(&["ZRANGE", "@batches", "0", "-1"]);
    assert_eq!(listed, [batch]);
}

#[test]
fn what_cannot_be_read_is_dead_with_a_reason_and_loses_nothing_else() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let id = "0123456789ab80008000000000000001";
    let unreadable = [
        "{\"id\":".to_owned(),
        "no url at all".to_owned(),
        format!("{{\"id\":\"{id}\",\"url\":\"https://x/\",\"v\":\"99\"}}"),
        format!("{{\"id\":\"{id}\",\"url\":\"https://x/\",\"kind\":99}}"),
    ];
    for element in &unreadable {
        queue.push(element);
    }
    queue.push(&origin.url("2/300.gif"));
    queue.push("http://[not-a-host/");
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let results = queue.until_results(6, SOON);
    let of = |outcome: &str| results.iter().filter(|r| r["outcome"] == outcome).collect::<Vec<_>>();
    assert_eq!((of("failed").len(), of("stored").len(), of("rejected").len()), (4, 1, 1));
    assert!(of("failed").iter().all(|result| result["reason"] == "unreadable_job"));
    assert_eq!(of("rejected")[0]["reason"], "bad_url");
    assert_eq!(of("failed").iter().filter(|result| result["id"] == id && result["url"] == "https://x/").count(), 2);
    let dead = queue.stream("dead");
    let mut payloads: Vec<&String> = dead.iter().map(|entry| &entry["job"]).collect();
    payloads.sort();
    let mut expected: Vec<&String> = unreadable.iter().collect();
    expected.sort();
    assert_eq!(payloads, expected, "the dead letters hold the payloads whole");
}

#[test]
fn fields_of_a_newer_version_survive_a_retry() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let id = "0123456789ab80008000000000000001";
    queue.push(&format!("{{\"id\":\"{id}\",\"url\":\"{}\",\"colour\":\"blue\"}}", origin.url("status/500")));
    let _worker = Worker::start(&queue, storage.path(), &["--max-attempts", "2", "--retry-delay", "1ms"]);
    let results = queue.until_results(1, SOON);
    assert_eq!((results[0]["reason"].as_str(), results[0]["attempts"].as_str()), ("http_5xx", "2"));
    let dead = queue.stream("dead");
    assert!(dead[0]["job"].contains("\"colour\":\"blue\""), "{dead:?}");
    assert!(dead[0]["job"].starts_with(&format!("{{\"id\":\"{id}\"")), "{dead:?}");
}
