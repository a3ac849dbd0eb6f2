//! Status, wait, results, dead letters, pause.

use harness::programs::{self, finish};
use harness::scrape::{Form, Scrape};
use harness::{Dashboard, Origin, Producer, RawQueue, Worker, until};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Row;
use std::collections::BTreeMap;
use std::path::Path;
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

/// The age of the oldest job, as `status` and a scrape tell it.
fn oldest_ms(queue: &RawQueue) -> Option<u64> {
    let status = Producer::run(queue, &["status", "--json"]).json();
    let dashboard = Dashboard::start(queue, Path::new("."), &[]);
    let scrape = Scrape::read(&dashboard.get("/metrics").text(), Form::Prometheus);
    let oldest_ms = status["oldest_ms"].as_u64();
    let metric = "imgq_queue_oldest_job_age_seconds";
    assert_eq!(scrape.families.contains_key(metric), oldest_ms.is_some(), "{status}");
    if let Some(ms) = oldest_ms {
        let seconds = scrape.value(metric, &[("queue", queue.name.as_str())]);
        assert!((seconds - ms as f64 / 1000.0).abs() < 20.0, "{seconds} s and {ms} ms");
        let page = dashboard.get("/").text();
        assert!(!page.contains("<dt>Oldest job</dt><dd><span class=\"value\">–</span>"), "{page}");
        assert!(Producer::run(queue, &["status"]).stdout.contains("  oldest "));
    }
    oldest_ms
}

/// A batch that began so long ago.
fn enqueued_ago(queue: &mut RawQueue, links: &[&str], ago_ms: u64) -> String {
    let enqueued = Producer::run(queue, &[&["enqueue", "--json"], links].concat()).json();
    let batch = enqueued["batch"].as_str().unwrap().to_owned();
    let earlier = format!("-{ago_ms}");
    queue.run::<i64>(&["HINCRBY", &format!("@batch:{batch}"), "started", &earlier]);
    queue.run::<f64>(&["ZINCRBY", "@batches", &earlier, &batch]);
    batch
}

#[test]
fn the_oldest_job_is_known_when_a_rate_put_all_of_them_aside() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let links: Vec<String> = (0..8).map(|n| origin.url(&format!("{n}/500.gif"))).collect();
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    enqueued_ago(&mut queue, &links, 7_200_000);
    let _worker = Worker::start(&queue, storage.path(), &["--host-rate", "1/m"]);
    queue.until_results(1, SOON);
    until("all others are delayed", SOON, || {
        (queue.ready_len() == 0 && queue.run::<u64>(&["ZCARD", "@delayed"]) == 7).then_some(())
    });
    let oldest = oldest_ms(&queue).expect("seven jobs wait");
    assert!((7_200_000..7_300_000).contains(&oldest), "{oldest} ms");
}

#[test]
fn the_oldest_job_is_that_of_the_earliest_batch_with_jobs_left() {
    const HOUR_MS: u64 = 3_600_000;
    let mut queue = RawQueue::shared();
    assert_eq!(oldest_ms(&queue), None, "nothing was ever enqueued");
    queue.push("https://x.org/by-hand.jpg");
    assert_eq!(oldest_ms(&queue), None, "nobody knows when a job was pushed by hand");
    enqueued_ago(&mut queue, &["https://x.org/2.jpg"], 2 * HOUR_MS);
    enqueued_ago(&mut queue, &["https://x.org/1.jpg"], HOUR_MS);
    // Broken off long ago, and nothing of it is left; and one that has all its results.
    let broken_off = enqueued_ago(&mut queue, &["https://x.org/9.jpg"], 9 * HOUR_MS);
    let finished = enqueued_ago(&mut queue, &["https://x.org/8.jpg"], 8 * HOUR_MS);
    queue.run::<Vec<String>>(&["RPOP", "@ready", "2"]);
    queue.run::<()>(&["HSET", &format!("@batch:{broken_off}"), "enqueued", "0"]);
    queue.run::<()>(&["HDEL", &format!("@batch:{broken_off}"), "sealed"]);
    queue.run::<()>(&["HSET", &format!("@batch:{finished}"), "stored", "1", "finished", "1"]);
    let oldest = oldest_ms(&queue).expect("jobs of two batches wait");
    assert!((2 * HOUR_MS..2 * HOUR_MS + 100_000).contains(&oldest), "{oldest} ms");
    // What is in flight does not wait.
    queue.run::<()>(&["DEL", "@ready"]);
    assert_eq!(oldest_ms(&queue), None, "nothing waits");
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
fn results_as_tables() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let (good, gone) = (origin.url("1/500.gif"), origin.url("status/404?a,b"));
    queue.push(&good);
    queue.push(&gone);
    let raw = queue.until_results(2, SOON);
    let csv = Producer::run(&queue, &["results", "--format", "csv", "--reason", "gone"]).stdout;
    let (head, row) = csv.trim_end().split_once('\n').unwrap();
    let names = "entry,id,url,outcome,reason,key,bytes,sha256,type,width,height,status,attempts,worker,ms,batch";
    assert_eq!(head, names);
    assert!(row.contains(&format!(",\"{gone}\",rejected,gone,,")), "{row}");
    let parquet = storage.path().join("results.parquet");
    let written = Producer::run(&queue, &["results", "--format", "parquet", "--output", parquet.to_str().unwrap()]);
    assert_eq!(written.code, 0, "{written:?}");
    let file = SerializedFileReader::new(std::fs::File::open(&parquet).unwrap()).unwrap();
    // As text: a string in quotes, a number without, or null.
    let fields = |row: Row| row.get_column_iter().map(|(name, field)| (name.clone(), field.to_string())).collect();
    let rows = file.get_row_iter(None).unwrap().map(|row| fields(row.unwrap()));
    let mut rows: Vec<BTreeMap<String, String>> = rows.collect();
    rows.sort_by_key(|row| row["outcome"] != "\"stored\"");
    let quoted = |text: &str| format!("\"{text}\"");
    assert_eq!((rows.len(), &rows[0]["url"], &rows[1]["url"]), (2, &quoted(&good), &quoted(&gone)));
    assert_eq!((&*rows[0]["bytes"], &*rows[1]["bytes"]), ("500", "null"));
    let sha256 = raw.iter().find_map(|result| result.get("sha256")).unwrap();
    assert_eq!(rows[0]["sha256"], quoted(sha256));
    assert_eq!((&*rows[1]["reason"], &*rows[1]["key"]), ("\"gone\"", "null"));
    assert!(rows.iter().all(|row| row["time"] != "null"), "{rows:?}");
    // Nothing half: a refusal leaves no file behind.
    let refused = Producer::run(&queue, &["results", "--format", "parquet", "--reader", "x", "--output", "x.parquet"]);
    assert!(refused.code == 2 && refused.stderr.contains("nothing can be added to a Parquet file"), "{refused:?}");
}

#[test]
fn results_since_a_time_are_those_from_then_on() {
    let mut queue = RawQueue::shared();
    let add = |queue: &mut RawQueue, at: &str, id: &str| {
        queue.run::<String>(&["XADD", "@results", at, "id", id, "url", "https://x.org/", "outcome", "stored"]);
    };
    let (seconds, _) = queue.run::<(u64, u64)>(&["TIME"]);
    add(&mut queue, "1000000000000-0", "of-2001");
    add(&mut queue, &format!("{}-0", (seconds - 1000) * 1000), "of-before");
    add(&mut queue, &format!("{}-7", seconds * 1000), "of-now");
    let ids = |since: &str| {
        let shown = Producer::run(&queue, &["results", "--format", "jsonl", "--since", since]);
        let ids =
            shown.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].to_string());
        ids.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids("10m"), "\"of-now\"");
    assert_eq!(ids("1h"), "\"of-before\" \"of-now\"");
    assert_eq!(ids("2001-09-09T01:46:40Z"), "\"of-2001\" \"of-before\" \"of-now\"");
    assert_eq!(ids("2001-09-09T01:46:41Z"), "\"of-before\" \"of-now\"");
    let wrong = Producer::run(&queue, &["results", "--since", "yesterday"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("yesterday") && wrong.stderr.contains("2h"), "{wrong:?}");
}

#[test]
fn batches_say_how_far_they_are() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let none = Producer::run(&queue, &["batches"]);
    assert!(none.code == 0 && none.stdout.contains("producer enqueue"), "{none:?}");
    let enqueue = |queue: &RawQueue, links: &[&str]| {
        let json = Producer::run(queue, &[&["enqueue", "--json"], links].concat()).json();
        json["batch"].as_str().unwrap().to_owned()
    };
    let first = enqueue(&queue, &[&origin.url("1/500.gif"), &origin.url("status/404")]);
    let _worker = Worker::start(&queue, storage.path(), &[]);
    queue.until_results(2, SOON);
    queue.run::<()>(&["HSET", "@meta", "paused", "1"]);
    let second = enqueue(&queue, &[&origin.url("2/500.gif")]);
    let listed = Producer::run(&queue, &["batches", "--json"]).json();
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|batch| batch["batch"].as_str().unwrap()).collect();
    assert_eq!(ids, [&second, &first]);
    assert_eq!((listed[1]["stored"].as_u64(), listed[1]["rejected"].as_u64()), (Some(1), Some(1)));
    let shown = Producer::run(&queue, &["batches"]).stdout;
    let line = |batch: &str| shown.lines().find(|line| line.starts_with(batch)).unwrap().to_owned();
    assert!(line(&first).contains("100%") && line(&first).contains("finished"), "{shown}");
    assert!(line(&second).contains("0%") && line(&second).contains("in progress"), "{shown}");
    let one = Producer::run(&queue, &["status", &first]).stdout;
    assert!(one.contains("2 jobs: 1 stored (500 B), 1 rejected, 0 failed") && one.contains("gone"), "{one}");
    let unknown = Producer::run(&queue, &["status", "0123456789ab"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("0123456789ab"), "{unknown:?}");
}

#[test]
fn dead_jobs_are_chosen_by_host_and_age() {
    let mut queue = RawQueue::shared();
    let (seconds, _) = queue.run::<(u64, u64)>(&["TIME"]);
    for (id, age, url) in [
        ("0a", 5000, "https://a.example/1.jpg"),
        ("0b", 100, "https://A.example:8443/2.jpg"),
        ("0c", 10, "https://b.example/3.jpg"),
    ] {
        let entry = format!("{}-0", (seconds - age) * 1000);
        let job = format!("{{\"id\":\"{id:0>32}\",\"url\":\"{url}\"}}");
        let fields = ["id", &format!("{id:0>32}"), "url", url, "reason", "dns", "attempts", "5", "job", &job];
        queue.run::<String>(&[&["XADD", "@dead", &entry], &fields[..]].concat());
    }
    let listed = |filter: &[&str]| Producer::run(&queue, &[&["dead", "list"], filter].concat()).stdout;
    assert!(listed(&["--host", "a.example"]).contains("2 jobs dead"));
    assert!(listed(&["--host", "a.example:8443"]).contains("1 job dead"));
    assert!(
        listed(&["--before", "1h"]).contains("a.example/1.jpg") && listed(&["--before", "1h"]).contains("1 job dead")
    );
    assert!(listed(&["--since", "1h", "--host", "b.example"]).contains("1 job dead"));
    let would = Producer::run(&queue, &["dead", "drop", "--since", "1h", "--dry-run"]);
    assert!(would.stdout.contains("2 jobs would be dropped"), "{would:?}");
    assert_eq!(queue.run::<u64>(&["XLEN", "@dead"]), 3);
    let dropped = Producer::run(&queue, &["dead", "drop", "--since", "1h"]);
    assert!(dropped.stdout.contains("2 jobs dropped"), "{dropped:?}");
    let would = Producer::run(&queue, &["dead", "retry", "--dry-run", "--json"]).json();
    assert_eq!((would["found"].as_u64(), would["moved"].as_u64()), (Some(1), Some(0)));
    assert_eq!((queue.run::<u64>(&["XLEN", "@dead"]), queue.run::<u64>(&["LLEN", "@ready"])), (1, 0));
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

#[test]
fn of_thousands_of_hosts_that_are_held_all_are_counted_and_named() {
    let mut queue = RawQueue::shared();
    let (seconds, _): (u64, u64) = queue.run(&["TIME"]);
    let ends = (seconds + 1800) * 1000;
    let entry = format!(r#"{{"ends":{ends},"level":1,"since":{},"why":"rate_limited"}}"#, seconds * 1000);
    for some in (0..3000).collect::<Vec<_>>().chunks(500) {
        let hosts: Vec<String> = some.iter().map(|n| format!("h{n}.example")).collect();
        let mut entries = vec!["HSET", "@hosts"];
        entries.extend(hosts.iter().flat_map(|host| [host.as_str(), entry.as_str()]));
        queue.run::<i64>(&entries);
        let (mut index, ends) = (vec!["ZADD", "@hosts:held"], ends.to_string());
        index.extend(hosts.iter().flat_map(|host| [ends.as_str(), host.as_str()]));
        queue.run::<i64>(&index);
    }
    let facts = Producer::run(&queue, &["status", "--json"]).json();
    assert_eq!((facts["hosts_held"].as_u64(), facts["hosts"].as_array().map(Vec::len)), (Some(3000), Some(3000)));
    let shown = Producer::run(&queue, &["status"]);
    assert!(shown.stdout.contains("and 2980 hosts more"), "{shown:?}");
}
