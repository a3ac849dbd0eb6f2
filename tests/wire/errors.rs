//! Every error that a newcomer meets: it names the input, the reason and the remedy.

use harness::programs::{Finished, finish};
use harness::{Producer, RawQueue, Redis, Worker};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn run(command: Command) -> Finished {
    finish(command, b"", SOON)
}

/// Ends with `code`, and says all of `parts` and a hint.
fn says(finished: &Finished, code: i32, parts: &[&str]) {
    assert_eq!(finished.code, code, "{finished:?}");
    for part in parts {
        assert!(finished.stderr.contains(part), "{part:?} is not in {finished:?}");
    }
    assert!(finished.stderr.contains("hint: "), "{finished:?}");
    assert!(!finished.stderr.contains("hunter2"), "no secret is shown: {finished:?}");
}

fn both_programs(queue: &RawQueue, url: &str, code: i32, parts: &[&str]) {
    let storage = tempfile::tempdir().unwrap();
    let mut enqueue = Producer::command(queue, &["enqueue", "https://x.org/a.jpg"]);
    let mut worker = Worker::command(queue, storage.path());
    says(&run(std::mem::replace(enqueue.env("REDIS_URL", url), Command::new("true"))), code, parts);
    says(&run(std::mem::replace(worker.env("REDIS_URL", url), Command::new("true"))), code, parts);
}

#[test]
fn no_redis_there() {
    let queue = RawQueue::shared();
    both_programs(&queue, "redis://:hunter2@127.0.0.1:1/0", 1, &["no answer from Redis", "127.0.0.1:1"]);
}

#[test]
fn no_redis_url() {
    let queue = RawQueue::shared();
    both_programs(&queue, "http://127.0.0.1:6379", 1, &["is not a Redis URL", "http://127.0.0.1:6379"]);
}

#[test]
fn a_wrong_password_and_none() {
    let redis = Redis::private(&["--requirepass", "right"]);
    let url = redis.url().to_owned();
    let queue = RawQueue::shared();
    both_programs(&queue, &url, 1, &["refuses the login"]);
    both_programs(&queue, &format!("{url}?pass=hunter2"), 1, &["refuses the login"]);
}

#[test]
fn an_eviction_policy_that_throws_jobs_away() {
    let redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    queue.run::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let url = queue.url.clone();
    both_programs(&queue, &url, 1, &["allkeys-lru", "noeviction"]);
}

#[test]
fn a_redis_that_is_too_old() {
    // No such server can be had here, so a stand-in tells what an old one tells.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/0", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().take(8).flatten() {
            std::thread::spawn(move || answer_like_redis_6(stream));
        }
    });
    let queue = RawQueue::shared();
    both_programs(&queue, &url, 1, &["6.2.14", "7.0"]);
}

fn answer_like_redis_6(stream: std::net::TcpStream) {
    answer(stream, "6.2.14", "+OK\r\n");
}

/// Answers as a server of this version to whoever asks for that, and with `otherwise` to all else but greetings.
fn answer(mut stream: std::net::TcpStream, version: &str, otherwise: &str) {
    use std::io::{Read, Write};
    let mut buffer = [0; 4096];
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 {
            return;
        }
        let request = String::from_utf8_lossy(&buffer[..n]).to_ascii_uppercase();
        // Commands arrive pipelined; each array opens with its length.
        for command in request.split("\r\n*").filter(|command| !command.is_empty()) {
            let answer = if command.contains("INFO\r\n") && !command.contains("SETINFO") {
                let info = format!("redis_version:{version}\r\nmaxmemory_policy:noeviction\r\n");
                format!("${}\r\n{info}\r\n", info.len())
            } else if command.contains("SETINFO") || command.contains("SELECT") {
                "+OK\r\n".to_owned()
            } else {
                otherwise.to_owned()
            };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

#[test]
fn a_group_of_servers_is_not_supported_and_said_to_be() {
    let queue = RawQueue::shared();
    for url in ["redis+sentinel://127.0.0.1:26379/mymaster", "redis-sentinel://h:26379", "redis+cluster://h:7000"] {
        both_programs(&queue, url, 1, &["is not a Redis URL", url, "one server", "name the master"]);
    }
}

#[test]
fn a_queue_that_another_node_of_a_cluster_has() {
    // A stand-in says what a node says whose slot has moved.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/0", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().take(8).flatten() {
            std::thread::spawn(move || answer(stream, "7.2.0", "-MOVED 866 127.0.0.1:7001\r\n"));
        }
    });
    let queue = RawQueue::shared();
    both_programs(&queue, &url, 1, &["one of a cluster", "Moved: 866", "follows no MOVED"]);
}

#[test]
fn a_storage_that_cannot_be_written_to() {
    let queue = RawQueue::shared();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    std::fs::write(&file, b"").unwrap();
    says(&run(Worker::command(&queue, &file.join("below"))), 1, &["cannot write to the storage", "a-file"]);
}

#[test]
fn links_and_sources_that_are_none() {
    let queue = RawQueue::shared();
    let enqueue = |source: &str| Producer::run(&queue, &["enqueue", source]);
    says(&enqueue("http://[broken"), 2, &["http://[broken"]);
    says(&enqueue("ftp://x.org/a.jpg"), 2, &["ftp://x.org/a.jpg", "http"]);
    says(&enqueue("imgur:nonsense"), 2, &["imgur:nonsense", "imgur:random"]);
    says(&enqueue("no-such-file.txt"), 1, &["no-such-file.txt"]);
    let usage = enqueue("--no-such-flag");
    assert_eq!(usage.code, 2);
    assert!(usage.stderr.contains("--no-such-flag"), "{usage:?}");
    // A script's own flags may be followed by its user's: the last one counts.
    let twice = Producer::run(&queue, &["status", "--queue", "one", "--queue", "other", "--json"]);
    assert_eq!(twice.json()["queue"], "other");
    let queue_name = Producer::run(&queue, &["status", "--queue", "a}b"]);
    assert_eq!(queue_name.code, 1);
    assert!(queue_name.stderr.contains("a}b"), "{queue_name:?}");
}

#[test]
fn no_client_id() {
    let queue = RawQueue::shared();
    for arguments in [&["enqueue"][..], &["enqueue", "imgur:r/aww"], &["run"]] {
        let finished = Producer::run(&queue, arguments);
        says(&finished, 1, &["client id", "IMGUR_CLIENT_ID", "https://imgur.com/a/", ".txt", "scripts/demo.sh"]);
    }
    let mut empty = Producer::command(&queue, &["enqueue"]);
    says(&run(std::mem::replace(empty.env("IMGUR_CLIENT_ID", ""), Command::new("true"))), 1, &["client id"]);
}

#[test]
fn a_batch_that_is_not_there() {
    let queue = RawQueue::shared();
    says(&Producer::run(&queue, &["wait", "0123456789ab"]), 1, &["0123456789ab"]);
    let malformed = Producer::run(&queue, &["wait", "yesterday"]);
    assert_eq!(malformed.code, 2);
    assert!(malformed.stderr.contains("yesterday"), "{malformed:?}");
}

/// Ends with code 2 and says all of `parts`: what was given, and what may be given instead.
fn refuses(finished: &Finished, parts: &[&str]) {
    assert_eq!(finished.code, 2, "{finished:?}");
    for part in parts {
        assert!(finished.stderr.contains(part), "{part:?} is not in {finished:?}");
    }
}

#[test]
fn words_that_are_none_of_those_there_are() {
    let queue = RawQueue::shared();
    let run = |arguments: &[&str]| Producer::run(&queue, arguments);
    refuses(&run(&["results", "--reason", "timeout"]), &["timeout", "timeout_total", "gone"]);
    refuses(&run(&["dead", "list", "--reason", "gone"]), &["'gone'", "timeout_total"]);
    refuses(&run(&["results", "--outcome", "good"]), &["good", "stored"]);
    refuses(&run(&["results", "--format", "xml"]), &["xml", "jsonl"]);
    refuses(&run(&["results", "--since", "yesterday"]), &["yesterday", "2h"]);
    refuses(&run(&["wait", "--timeout", "5"]), &["\"5\"", "5s"]);
    refuses(&run(&["enqueue", "x.txt", "--types", "bmp"]), &["bmp", "jpeg"]);
    refuses(&run(&["enqueue", "x.txt", "--pages", "many"]), &["many", "all"]);
    refuses(&run(&["status", "xyz"]), &["xyz", "12 hex digits"]);
    refuses(&run(&["completions", "csh"]), &["csh", "bash"]);
    for (flag, bad, good) in [
        ("--storage", "s3://b/x", "folder"),
        ("--max-bytes", "big", "20MB"),
        ("--host-rate", "fast", "40/s"),
        ("--allow-networks", "home", "10.0.0.0/8"),
        ("--min-size", "3", "256x256"),
        ("--verify", "all", "decode"),
        ("--layout", "flat", "mirror"),
        ("--sync", "yes", "batch"),
        ("--metrics", "9100", ":9100"),
        ("--log-format", "xml", "json"),
    ] {
        refuses(&finish(Worker::alone(&[flag, bad]), b"", SOON), &[bad, good]);
    }
}

#[test]
fn files_and_folders_that_cannot_be_used() {
    let queue = RawQueue::shared();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("links.txt"), "https://x.org/1.jpg\n").unwrap();
    std::fs::write(path("table.csv"), "a,b\n1,2\n").unwrap();
    let producer = |arguments: &[&str]| Producer::run(&queue, arguments);
    says(
        &producer(&["results", "--output", &path("none/x.jsonl"), "--format", "jsonl"]),
        1,
        &["none/x.jsonl", "folder"],
    );
    says(&producer(&["results", "--output", &path("none/x.parquet"), "--format", "parquet"]), 1, &["none/x.parquet"]);
    says(&producer(&["results", "--output", &path(""), "--format", "csv"]), 1, &[&path(""), "name a file"]);
    says(&producer(&["enqueue", &path("links.txt"), "--rejects", &path("none/x")]), 1, &["none/x"]);
    says(&producer(&["enqueue", &path("")]), 1, &[&path(""), "is a directory"]);
    says(&producer(&["enqueue", &path("table.csv")]), 1, &["\"a\", \"b\"", "--url-column"]);
    says(&producer(&["enqueue", &path("table.csv"), "--url-column", "zzz"]), 1, &["zzz", "\"a\", \"b\""]);
    says(&producer(&["enqueue", &path("links.txt"), "--list-format", "parquet"]), 1, &["not a Parquet file"]);
    says(&producer(&["run", &path("links.txt"), "--data-dir", "/proc/none"]), 1, &["/proc/none"]);
    says(
        &producer(&["run", &path("links.txt"), "--storage", &path("s"), "--concurrency", "0"]),
        2,
        &["--concurrency", "0"],
    );
    let mut worker = Worker::command(&queue, folder.path());
    worker.args(["--placeholders", &path("none.toml")]);
    says(&run(worker), 1, &["none.toml", "docs/content.md"]);
    let mut worker = Worker::command(&queue, folder.path());
    worker.args(["--metrics", "192.0.2.1:9100"]);
    says(&run(worker), 1, &["192.0.2.1:9100", "--metrics"]);
    // Neither the server nor the worker is there.
    let mut alone = Producer::alone(&["run", &path("links.txt"), "--storage", &path("s")]);
    alone.env("PATH", "/nowhere");
    if !["/usr/sbin", "/usr/local/sbin", "/sbin"].iter().any(|folder| {
        ["redis-server", "valkey-server"].iter().any(|name| std::path::Path::new(folder).join(name).exists())
    }) {
        says(&run(alone), 1, &["no redis-server", "apt-get install redis-server"]);
    }
    std::fs::copy(harness::programs::folder().join("producer"), path("producer")).unwrap();
    let mut without_worker = Command::new(path("producer"));
    without_worker.args(["run", &path("links.txt"), "--storage", &path("s")]).env("PATH", "/nowhere");
    without_worker.env("REDIS_URL", &queue.url).env("IMGQ_QUEUE", &queue.name);
    says(&run(without_worker), 1, &["no `worker` program", "cargo build --release"]);
}

#[test]
fn what_is_meant_has_to_be_said() {
    let queue = RawQueue::shared();
    says(&Producer::run(&queue, &["forget"]), 2, &["nothing to forget"]);
    says(&Producer::run(&queue, &["forget", "--all"]), 2, &["every link", "--yes"]);
    says(&Producer::run(&queue, &["purge"]), 2, &["0 jobs", "--yes"]);
    says(&Producer::run(&queue, &["results", "--drop-reader", "none"]), 1, &["\"none\"", "--list-readers"]);
    says(&Producer::run(&queue, &["results", "--reader", "a b"]), 1, &["\"a b\"", "letters"]);
    says(&Producer::run(&queue, &["status", "--queue", "a b"]), 1, &["\"a b\"", "letters", "IMGQ_QUEUE"]);
    let mut enqueue = Producer::command(&queue, &["enqueue", "imgur:hot"]);
    enqueue.env("IMGUR_API_URL", "nonsense");
    says(&run(enqueue), 2, &["IMGUR_API_URL", "nonsense", "https://imgur.com"]);
}

#[test]
fn a_key_that_somebody_else_uses_and_a_user_who_may_not() {
    let redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    queue.run::<()>(&["SET", "@ready", "x"]);
    for arguments in [&["enqueue", "https://x.org/1.jpg"][..], &["status"], &["purge", "--yes"]] {
        says(&Producer::run(&queue, arguments), 1, &["WRONGTYPE", "--queue"]);
    }
    queue.run::<()>(&["ACL", "SETUSER", "weak", "on", ">hunter2", "~other:*", "+@all"]);
    let mut status = Producer::command(&queue, &["status"]);
    status.env("REDIS_URL", format!("{}?user=weak&pass=hunter2", queue.url));
    says(&run(status), 1, &["no permissions", "ACL SETUSER"]);
}

#[test]
fn a_queue_of_a_newer_version() {
    let mut queue = RawQueue::shared();
    queue.run::<i64>(&["HSET", "@meta", "schema", "99"]);
    let storage = tempfile::tempdir().unwrap();
    says(&run(Worker::command(&queue, storage.path())), 1, &["newer imgq", "99"]);
}
