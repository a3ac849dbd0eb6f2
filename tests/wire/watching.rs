//! Status, wait, results, dead letters, pause.

use harness::programs::{self, finish};
use harness::{Origin, Producer, RawQueue, Worker, until};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn status_tells_the_truth_as_one_object() {
    let origin = Origin::start();
    origin.hold();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    for n in 0..5 {
        queue.push(&origin.url(&format!("{n}/500.gif")));
    }
    let _worker = Worker::start(&queue, storage.path(), &["--concurrency", "2"]);
    until("two are in flight", SOON, || (queue.in_flight_len() == 2).then_some(()));
    let status = Producer::run(&queue, &["status", "--json"]).json();
    let number = |status: &serde_json::Value, name: &str| status[name].as_u64().unwrap();
    assert_eq!(status["queue"], queue.name.as_str());
    assert_eq!((number(&status, "ready"), number(&status, "in_flight"), number(&status, "delayed")), (3, 2, 0));
    assert_eq!(status["paused"], false);
    let workers = status["workers"].as_array().unwrap();
    assert_eq!((workers.len(), workers[0]["in_flight"].as_u64()), (1, Some(2)));
    assert!(
        workers[0]["pid"].as_u64().unwrap() > 0 && workers[0]["version"].is_string() && workers[0]["host"].is_string()
    );
    origin.let_go();
    queue.until_results(5, SOON);
    let status = Producer::run(&queue, &["status", "--json"]).json();
    assert_eq!((number(&status, "stored"), number(&status, "rejected"), number(&status, "failed")), (5, 0, 0));
    assert_eq!((number(&status, "results"), number(&status, "bytes"), number(&status, "dead")), (5, 2500, 0));
    let text = Producer::run(&queue, &["status"]).stdout;
    assert!(text.contains("stored 5") && !text.contains('\x1b'), "{text}");
}

#[test]
fn results_in_every_format() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &[]);
    queue.push(&origin.url("1/500.gif"));
    queue.push(&origin.url("status/404"));
    queue.until_results(2, SOON);
    let jsonl = Producer::run(&queue, &["results", "--format", "jsonl", "--outcome", "stored"]);
    assert_eq!(jsonl.stdout.lines().count(), 1);
    let row = jsonl.json();
    assert_eq!(
        (row["bytes"].as_u64(), row["width"].as_u64(), row["status"].as_u64()),
        (Some(500), Some(32), Some(200))
    );
    assert_eq!((row["type"].as_str(), row["outcome"].as_str()), (Some("gif"), Some("stored")));
    let urls = Producer::run(&queue, &["results", "--format", "urls", "--reason", "gone"]);
    assert_eq!(urls.stdout, format!("{}\n", origin.url("status/404")));
    let table = Producer::run(&queue, &["results"]).stdout;
    assert!(table.lines().count() == 3 && table.contains("gone") && table.contains("500 B"), "{table}");
    let file = storage.path().join("results.jsonl");
    Producer::run(&queue, &["results", "--format", "jsonl", "--output", file.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(file).unwrap().lines().count(), 2);
}

#[test]
fn text_from_strangers_is_harmless_on_a_terminal() {
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    queue.push("\x1b]0;owned\x07 no url \u{202e}");
    let _worker = Worker::start(&queue, storage.path(), &[]);
    queue.until_results(1, SOON);
    for arguments in [&["results"][..], &["results", "--format", "urls"], &["dead", "list"]] {
        let shown = Producer::run(&queue, arguments).stdout;
        assert!(shown.contains("owned"), "{shown}");
        assert!(!shown.contains(['\x1b', '\x07', '\u{202e}']), "{arguments:?}: {shown:?}");
    }
}

#[test]
fn wait_without_a_batch_takes_in_jobs_pushed_by_hand() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    queue.push(&origin.url("1/500.gif"));
    let timed_out = Producer::run(&queue, &["wait", "--timeout", "300ms"]);
    assert_eq!(timed_out.code, 4, "{timed_out:?}");
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let waited = Producer::run(&queue, &["wait", "--timeout", "30s"]);
    assert_eq!(waited.code, 0, "{waited:?}");
    assert_eq!(queue.results_len(), 1);
}

#[test]
fn a_wait_on_a_pipe_says_lines_and_on_a_terminal_draws() {
    let queue = RawQueue::shared();
    let links = b"https://x.org/1.jpg\n";
    let batch = finish(Producer::command(&queue, &["enqueue", "-", "--json"]), links, SOON).json();
    let batch = batch["batch"].as_str().unwrap().to_owned();
    let waited = Producer::run(&queue, &["wait", &batch, "--timeout", "1s"]);
    assert_eq!(waited.code, 4, "{waited:?}");
    assert!(waited.stderr.contains("0/1 done") && !waited.stderr.contains('\x1b'), "{waited:?}");
    // `script` runs a command on a terminal of its own.
    let mut on_terminal = Command::new("script");
    let wait = format!("{} wait {batch} --timeout 1s", programs::folder().join("producer").display());
    on_terminal
        .args(["-qec", &wait, "/dev/null"])
        .env("REDIS_URL", &queue.url)
        .env("IMGQ_QUEUE", &queue.name)
        .env("TERM", "xterm");
    let drawn = finish(on_terminal, b"", SOON);
    assert_eq!(drawn.code, 4, "{drawn:?}");
    assert!(drawn.stdout.contains('\x1b') && drawn.stdout.contains("0/1 0.0/s"), "a bar is drawn: {drawn:?}");
}

#[test]
fn dead_jobs_live_again_and_their_batch_counts_right() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &["--max-attempts", "1"]);
    let link = origin.url("flaky/1/x.gif");
    let json = Producer::run(&queue, &["enqueue", &link, &origin.url("status/500"), "--json"]).json();
    let batch = json["batch"].as_str().unwrap().to_owned();
    queue.until_results(2, SOON);
    let listed = Producer::run(&queue, &["dead", "list"]).stdout;
    assert!(listed.contains("http_5xx") && listed.contains("2 jobs dead"), "{listed}");
    let id = queue.results().iter().find(|result| result["url"] == link).unwrap()["id"].clone();
    let retried = Producer::run(&queue, &["dead", "retry", "--id", &id]);
    assert_eq!(retried.code, 0, "{retried:?}");
    let results = queue.until_results(3, SOON);
    assert_eq!((results[2]["id"].as_str(), results[2]["outcome"].as_str()), (id.as_str(), "stored"));
    let facts = until("the batch is finished", SOON, || {
        Some(queue.hash(&format!("batch:{batch}"))).filter(|facts| facts.contains_key("finished"))
    });
    assert_eq!((facts["enqueued"].as_str(), facts["stored"].as_str(), facts["failed"].as_str()), ("2", "1", "1"));
    // The link that lives again is known again; the other one is not.
    let again = Producer::run(&queue, &["enqueue", &link, "--json"]).json();
    assert_eq!(again["duplicates"], 1);
    let dropped = Producer::run(&queue, &["dead", "drop", "--reason", "http_5xx", "--json"]).json();
    assert_eq!(dropped["moved"], 1);
    assert!(queue.stream("dead").is_empty());
}

#[test]
fn a_paused_queue_claims_nothing_until_it_is_resumed() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    assert_eq!(Producer::run(&queue, &["pause"]).code, 0);
    queue.push(&origin.url("1/500.gif"));
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let name = queue.until_workers(1).remove(0);
    // The worker has asked, and was told to wait.
    until("the worker has claimed in vain", SOON, || {
        queue.hash(&format!("worker:{name}")).contains_key("claim").then_some(())
    });
    assert_eq!((queue.ready_len(), queue.results_len(), queue.in_flight_len()), (1, 0, 0));
    assert_eq!(Producer::run(&queue, &["status", "--json"]).json()["paused"], true);
    assert_eq!(Producer::run(&queue, &["resume"]).code, 0);
    queue.until_results(1, SOON);
}

#[test]
fn workers_and_completions() {
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    assert!(Producer::run(&queue, &["workers"]).stdout.contains("no worker is alive"));
    let worker = Worker::start(&queue, storage.path(), &[]);
    let name = queue.until_workers(1).remove(0);
    let listed = Producer::run(&queue, &["workers"]).stdout;
    assert!(listed.contains(&name) && listed.contains(&worker.pid().to_string()), "{listed}");
    for shell in ["bash", "zsh", "fish"] {
        let script = Producer::run(&queue, &["completions", shell]).stdout;
        assert!(script.contains("enqueue"), "{shell}");
    }
}
