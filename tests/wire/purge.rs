//! Purging: what waits goes, each job counted in its batch, and its link may be enqueued again; what runs is finished.

use harness::programs::finish;
use harness::{Origin, Producer, RawQueue, Worker, until};
use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const LATER: Duration = Duration::from_secs(240);

const LINKS: [&str; 3] = ["https://x.org/0.jpg", "https://x.org/1.jpg", "https://x.org/2.jpg"];

fn enqueue(queue: &RawQueue) -> serde_json::Value {
    Producer::run(queue, &[&["enqueue", "--json"], &LINKS[..]].concat()).json()
}

#[test]
fn it_is_meant_or_it_says_how_much_it_would_be() {
    let mut queue = RawQueue::shared();
    enqueue(&queue);
    let asked = Producer::run(&queue, &["purge"]);
    assert_eq!(asked.code, 2, "{asked:?}");
    assert!(asked.stderr.contains("3 jobs (3 ready, 0 delayed)") && asked.stderr.contains("hint: "), "{asked:?}");
    let would = Producer::run(&queue, &["purge", "--dry-run", "--dead"]);
    assert!(would.code == 0 && would.stdout.contains("3 jobs") && would.stdout.contains("0 dead jobs"), "{would:?}");
    assert_eq!(Producer::run(&queue, &["purge", "--dry-run", "--json"]).json()["found"], 3);
    assert_eq!(queue.ready_len(), 3);
    assert_eq!(Producer::run(&queue, &["purge", "--dry-run", "--yes"]).code, 2);
}

#[test]
fn what_was_purged_is_counted_and_can_be_enqueued_again() {
    let mut queue = RawQueue::shared();
    let batch = enqueue(&queue)["batch"].as_str().unwrap().to_owned();
    // A job of no batch, one that is no job, and one that waits for its time.
    queue.push("https://x.org/by-hand.jpg");
    queue.push("nonsense \u{1b}[31m");
    let job: String = queue.run(&["LPOP", "@ready"]);
    queue.run::<i64>(&["ZADD", "@delayed", "99999999999999", &job]);
    let purged = Producer::run(&queue, &["purge", "--yes", "--json"]).json();
    assert_eq!((purged["found"].as_u64(), purged["purged"].as_u64()), (Some(5), Some(5)));
    assert_eq!((queue.ready_len(), queue.run::<u64>(&["ZCARD", "@delayed"])), (0, 0));
    let facts = queue.hash(&format!("batch:{batch}"));
    assert_eq!(facts["purged"], "3");
    assert!(facts.contains_key("finished"), "{facts:?}");
    assert_eq!(queue.hash("stats")["purged"], "5");
    let waited = Producer::run(&queue, &["wait", &batch]);
    assert!(waited.code == 3 && waited.stdout.contains("0 failed, 3 purged"), "{waited:?}");
    let again = enqueue(&queue);
    assert_eq!((again["enqueued"].as_u64(), again["duplicates"].as_u64()), (Some(3), Some(0)));
    assert_eq!(queue.hash("dedup:meta")["count"], "3");
    let nothing = Producer::run(&queue, &["purge", "--yes"]);
    assert!(nothing.stdout.contains("3 jobs purged"), "{nothing:?}");
}

#[test]
fn every_job_ends_once_while_workers_run_and_an_enqueuer_pushes() {
    const JOBS: usize = 20_000;
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let links: Vec<String> = (0..JOBS).map(|n| origin.url(&format!("{n}/200.gif"))).collect();
    let halves = links.split_at(JOBS / 2);
    let text = |links: &[String]| links.join("\n") + "\n";
    let _workers = [1, 2].map(|_| Worker::start(&queue, storage.path(), &["--host-concurrency", "64"]));
    let mut enqueuer = Producer::command(&queue, &["enqueue", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = enqueuer.stdin.take().unwrap();
    stdin.write_all(text(halves.0).as_bytes()).unwrap();
    until("much is ready", SOON, || (queue.ready_len() > 1000).then_some(()));
    // Two at once, while workers claim; then the enqueuer goes on, and one more comes between.
    let second = Producer::command(&queue, &["purge", "--yes", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut purged = Producer::run(&queue, &["purge", "--yes", "--json"]).json()["purged"].as_u64().unwrap();
    let output = second.wait_with_output().unwrap();
    let of_second: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    purged += of_second["purged"].as_u64().unwrap();
    stdin.write_all(text(halves.1).as_bytes()).unwrap();
    until("the enqueuer goes on", SOON, || (queue.ready_len() > 100).then_some(()));
    purged += Producer::run(&queue, &["purge", "--yes", "--json"]).json()["purged"].as_u64().unwrap();
    drop(stdin);
    let enqueued: serde_json::Value = serde_json::from_slice(&enqueuer.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(enqueued["enqueued"].as_u64(), Some(JOBS as u64));
    let batch = enqueued["batch"].as_str().unwrap();
    let waited = finish(Producer::command(&queue, &["wait", batch, "--json"]), b"", LATER);
    assert_eq!(waited.code, 3, "{waited:?}");
    let waited = waited.json();
    let number = |name: &str| waited[name].as_u64().unwrap();
    assert!(number("purged") > 0 && number("stored") > 0, "{waited}");
    assert_eq!(number("purged"), purged, "what was told is what is counted");
    assert_eq!((number("stored") + purged, number("rejected") + number("failed")), (JOBS as u64, 0));
    let stored: BTreeSet<String> = queue.results().into_iter().map(|result| result["url"].clone()).collect();
    assert_eq!(stored.len() as u64, number("stored"), "each has one result");
    assert_eq!((queue.ready_len(), queue.in_flight_len(), queue.run::<usize>(&["ZCARD", "@delayed"])), (0, 0, 0));
    // Exactly those that have no result can be enqueued again.
    queue.run::<()>(&["HSET", "@meta", "paused", "1"]);
    let again = finish(Producer::command(&queue, &["enqueue", "-", "--json"]), text(&links).as_bytes(), SOON).json();
    assert_eq!((again["enqueued"].as_u64(), again["duplicates"].as_u64()), (Some(purged), Some(number("stored"))));
    let ready: BTreeSet<String> = queue.ready().into_iter().collect();
    assert!(!ready.iter().any(|job| {
        let job: serde_json::Value = serde_json::from_str(job).unwrap();
        stored.contains(job["url"].as_str().unwrap())
    }));
}

#[test]
fn dead_letters_and_results_go_when_that_is_said_and_no_reader_is_behind() {
    let mut queue = RawQueue::shared();
    for n in 0..1234 {
        queue.run::<String>(&["XADD", "@results", "*", "id", &n.to_string(), "outcome", "stored"]);
    }
    let job = r#"{"id":"0000000000ab80008000000000000001","url":"https://x.org/1.jpg"}"#;
    queue.run::<String>(&["XADD", "@dead", "*", "url", "https://x.org/1.jpg", "reason", "dns", "job", job]);
    let purged = Producer::run(&queue, &["purge", "--yes"]);
    assert!(purged.stdout.contains("0 jobs purged") && !purged.stdout.contains("dead"), "{purged:?}");
    assert_eq!((queue.results_len(), queue.run::<usize>(&["XLEN", "@dead"])), (1234, 1));
    queue.run::<String>(&["XGROUP", "CREATE", "@results", "export", "0"]);
    let refused = Producer::run(&queue, &["purge", "--results", "--yes"]);
    assert!(refused.code == 1 && refused.stderr.contains("reader export has not taken all results"), "{refused:?}");
    assert!(refused.stderr.contains("--drop-reader export"), "{refused:?}");
    let drained = Producer::run(&queue, &["results", "--reader", "export", "--format", "jsonl"]);
    assert_eq!(drained.stdout.lines().count(), 1234);
    let purged = Producer::run(&queue, &["purge", "--results", "--dead", "--yes"]).stdout;
    assert!(purged.contains("1 dead job dropped") && purged.contains("1234 results removed"), "{purged}");
    assert_eq!((queue.results_len(), queue.run::<usize>(&["XLEN", "@dead"])), (0, 0));
}
