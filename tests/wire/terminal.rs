//! What a terminal shows: colours there and nowhere else, a screen that is given back, nothing that strangers could do to it, and
//! logs for programs.

use harness::programs::{self, Finished, finish};
use harness::{Origin, Producer, RawQueue, Worker, until};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// Runs a producer on a terminal of its own, which `script` makes; both outputs are one there.
fn on_terminal(queue: &RawQueue, before: &str, arguments: &str, environment: &[(&str, &str)]) -> Finished {
    let line = format!("{before} {} {arguments}", programs::folder().join("producer").display());
    let mut command = Command::new("script");
    command.args(["-qec", line.trim(), "/dev/null"]);
    command.env("REDIS_URL", &queue.url).env("IMGQ_QUEUE", &queue.name).env("TERM", "xterm");
    // What says elsewhere whether there are colours.
    for name in ["NO_COLOR", "CI", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    finish(command, b"", SOON)
}

/// A queue with something of everything that has a colour.
fn with_a_failure() -> RawQueue {
    let mut queue = RawQueue::shared();
    queue.run::<String>(&["XADD", "@results", "*", "url", "https://x.org/1.jpg", "outcome", "failed", "reason", "dns"]);
    queue.run::<String>(&["XADD", "@dead", "*", "url", "https://x.org/1.jpg", "reason", "dns"]);
    queue.run::<i64>(&["HSET", "@stats", "failed", "1", "failed:dns", "1"]);
    queue
}

#[test]
fn colours_are_on_terminals_that_want_them_and_nowhere_else() {
    let queue = with_a_failure();
    for arguments in ["status", "results", "wait 0123456789ab"] {
        let coloured = on_terminal(&queue, "", arguments, &[]).stdout;
        assert!(coloured.contains("\x1b[31m") || coloured.contains("\x1b[1m\x1b[31m"), "{arguments}: {coloured:?}");
        assert!(!coloured.contains("-0.0"), "{coloured}");
        for unwanted in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let plain = on_terminal(&queue, "", arguments, &[unwanted]).stdout;
            assert!(!plain.contains('\x1b') && plain.len() > 20, "{arguments} {unwanted:?}: {plain:?}");
        }
        let words: Vec<&str> = arguments.split(' ').collect();
        let piped = Producer::run(&queue, &words);
        assert!(!piped.stdout.contains('\x1b') && !piped.stderr.contains('\x1b'), "{piped:?}");
    }
}

#[test]
fn a_watched_status_draws_on_a_second_screen_and_gives_the_first_one_back() {
    let queue = with_a_failure();
    // Ctrl-C after some frames.
    let watched = on_terminal(&queue, "timeout -s INT 3", "status --watch", &[]).stdout;
    let (before, drawn) = watched.split_once("\x1b[?1049h").expect(&watched);
    assert_eq!(before, "");
    let (frames, after) = drawn.rsplit_once("\x1b[?1049l").expect(&watched);
    assert!(frames.ends_with("\x1b[?25h"), "the cursor is back: {frames:?}");
    assert!(!after.contains("queue"), "{after:?}");
    let frames: Vec<&str> = frames.split("\x1b[H").skip(1).collect();
    assert!(frames.len() >= 2, "{frames:?}");
    for frame in frames {
        assert!(frame.contains("queue ") && frame.contains("dead ") && !frame.contains("\x1b[2J"), "{frame:?}");
    }
    // Elsewhere it is one block after another.
    let mut watch = Command::new("timeout");
    let producer = Producer::command(&queue, &[]);
    watch.args(["-s", "TERM", "3"]).arg(producer.get_program()).args(["status", "--watch", "--json"]);
    watch.env("REDIS_URL", &queue.url).env("IMGQ_QUEUE", &queue.name);
    let lines = finish(watch, b"", SOON);
    assert!(lines.stdout.lines().count() >= 2 && !lines.stdout.contains('\x1b'), "{lines:?}");
    assert_eq!(lines.json()["failed"], 1);
}

/// An escape sequence that renames the window, a bell, a line that starts anew, and text that runs from right to left.
const HOSTILE: &str = "\u{1b}]0;owned\u{7}\r\u{202e}<script>";

#[test]
fn nothing_that_strangers_wrote_does_anything_to_a_terminal() {
    let mut queue = RawQueue::shared();
    let url = format!("https://x.org/{HOSTILE}");
    let batch = "0123456789ab";
    let job = format!("{{\"id\":\"{batch}80008000000000000001\",\"url\":\"https://x.org/\"}}");
    for stream in ["@results", "@dead"] {
        let fields = ["id", HOSTILE, "url", &url, "outcome", "failed", "reason", HOSTILE, "type", HOSTILE, "job", &job];
        queue.run::<String>(&[&["XADD", stream, "*"], &fields[..]].concat());
    }
    let reason = format!("failed:{HOSTILE}");
    let host = format!("host:{HOSTILE}");
    let facts = ["source", HOSTILE, "enqueued", "1", "failed", "1", "started", "1", "sealed", "1", "finished", "2"];
    let key = format!("@batch:{batch}");
    queue.run::<i64>(&[&["HSET", &key, &reason, "1", &host, "1"], &facts[..]].concat());
    queue.run::<i64>(&["ZADD", "@batches", "1", batch]);
    queue.run::<i64>(&["HSET", "@stats", &reason, "1", "failed", "1"]);
    let hold = "{\"ends\":99999999999999,\"level\":1,\"why\":\"\\u001b[31m\",\"probe\":99999999999999}";
    queue.run::<i64>(&["HSET", "@hosts", HOSTILE, hold]);
    queue.run::<i64>(&["ZADD", "@workers", "99999999999999", HOSTILE]);
    let worker = format!("@worker:{HOSTILE}");
    queue.run::<i64>(&["HSET", &worker, "host", HOSTILE, "version", HOSTILE, "waiting", HOSTILE, "pid", "1"]);
    queue.run::<String>(&["XGROUP", "CREATE", "@results", HOSTILE, "0"]);
    for arguments in [
        &["results"][..],
        &["results", "--format", "urls"],
        &["results", "--list-readers"],
        &["dead", "list"],
        &["batches"],
        &["workers"],
        &["status"],
        &["status", batch],
        &["wait", batch],
        &["purge", "--results", "--yes"],
        &["enqueue", &url.replace("x.org", "[")],
        &["enqueue", &format!("{HOSTILE}.txt")],
        &["enqueue", &format!("imgur:{HOSTILE}")],
        &["results", "--drop-reader", HOSTILE],
        &["status", "--queue", HOSTILE],
        &["status", "--redis-url", &format!("http://owned/1?{HOSTILE}")],
    ] {
        let shown = Producer::run(&queue, arguments);
        let text = format!("{}{}", shown.stdout, shown.stderr);
        assert!(text.contains("owned"), "{arguments:?}: {shown:?}");
        assert!(!text.contains(['\x1b', '\x07', '\r', '\u{202e}']), "{arguments:?}: {shown:?}");
    }
}

#[test]
fn links_that_failed_make_the_round_trip() {
    let origin = Origin::start();
    origin.hold();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let worker = Worker::start(&queue, storage.path(), &["--max-attempts", "1", "--total-timeout", "300ms"]);
    let (slow, gone) = (origin.url("1/500.gif"), "http://10.0.0.1/private.jpg");
    Producer::run(&queue, &["enqueue", &slow, gone]);
    queue.until_results(2, SOON);
    drop(worker);
    let urls = Producer::run(&queue, &["results", "--format", "urls", "--reason", "timeout_total"]).stdout;
    assert_eq!(urls, format!("{slow}\n"));
    let again = finish(Producer::command(&queue, &["enqueue", "-", "--json"]), urls.as_bytes(), SOON).json();
    assert_eq!((again["enqueued"].as_u64(), again["duplicates"].as_u64()), (Some(1), Some(0)));
    origin.let_go();
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let results = queue.until_results(3, SOON);
    assert_eq!((results[2]["url"].as_str(), results[2]["outcome"].as_str()), (slow.as_str(), "stored"));
    // What was rejected stays known, and the summary says how it is enqueued all the same.
    let urls = Producer::run(&queue, &["results", "--format", "urls", "--outcome", "rejected"]).stdout;
    let enqueue = |flags: &[&str]| {
        let arguments = [&["enqueue", "-", "--json"], flags].concat();
        finish(Producer::command(&queue, &arguments), urls.as_bytes(), SOON).json()["enqueued"].as_u64()
    };
    assert_eq!((enqueue(&[]), enqueue(&["--no-dedup"])), (Some(0), Some(1)));
}

#[test]
fn results_are_followed_until_ctrl_c() {
    let mut queue = RawQueue::shared();
    let mut command = Producer::command(&queue, &["results", "--follow", "--format", "urls", "--outcome", "failed"]);
    let mut follow = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    for (outcome, n) in [("failed", 1), ("stored", 2), ("failed", 3)] {
        let url = format!("https://x.org/{n}.jpg");
        queue.run::<String>(&["XADD", "@results", "*", "url", &url, "outcome", outcome]);
        if outcome == "failed" {
            assert_eq!(lines.next().unwrap().unwrap(), url);
        }
    }
    let pid = rustix::process::Pid::from_child(&follow);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(until("it ends", SOON, || follow.try_wait().unwrap()).code(), Some(0));
    assert!(lines.next().is_none());
}

#[test]
fn the_summary_says_what_to_do_next_and_a_bad_end_is_loud() {
    let origin = Origin::start();
    let queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &["--max-attempts", "1"]);
    let links = ["1/500.gif", "status/404", "status/500"].map(|path| origin.url(path));
    let arguments = [&["enqueue", "--wait"], &links.each_ref().map(String::as_str)[..]].concat();
    let waited = Producer::run(&queue, &arguments);
    assert_eq!(waited.code, 3, "{waited:?}");
    let host = origin.url("").split('/').nth(2).unwrap().to_owned();
    for part in [
        "3 jobs: 1 stored (500 B), 1 rejected, 1 failed",
        &format!("worst hosts: {host} 2"),
        "next: http_5xx: the hosts failed; later may do: `producer dead retry --reason http_5xx`",
        "next: gone: they are not there any more; nothing helps",
        "WARNING: only 33 % of 3 jobs were stored",
    ] {
        assert!(waited.stdout.contains(part), "{part:?} is not in {waited:?}");
    }
    assert!(waited.stdout.lines().last().unwrap().starts_with("Took "), "{waited:?}");
    // The command that it names works.
    assert!(Producer::run(&queue, &["dead", "retry", "--reason", "http_5xx"]).stdout.contains("1 job back"));
    let several = Producer::run(&queue, &["enqueue", &origin.url("2/500.gif"), "--wait", "--json"]);
    assert_eq!(several.code, 0, "{several:?}");
}

#[test]
fn several_batches_are_waited_for_together() {
    let origin = Origin::start();
    let queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let enqueue = |path: &str| {
        let json = Producer::run(&queue, &["enqueue", &origin.url(path), "--json"]).json();
        json["batch"].as_str().unwrap().to_owned()
    };
    let (one, other) = (enqueue("1/500.gif"), enqueue("status/404"));
    let late = Producer::run(&queue, &["wait", &one, &other, "--timeout", "300ms", "--json"]);
    assert_eq!((late.code, late.json()["finished"].as_bool()), (4, Some(false)), "{late:?}");
    assert!(late.stderr.contains("0 of 2 jobs done") && late.stderr.contains("hint: "), "{late:?}");
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let waited = Producer::run(&queue, &["wait", &one, &other, "--json", "--timeout", "30s"]);
    let facts = waited.json();
    assert_eq!((waited.code, facts["batches"].as_array().unwrap().len()), (3, 2), "{waited:?}");
    assert_eq!(
        (facts["enqueued"].as_u64(), facts["stored"].as_u64(), facts["rejected"].as_u64()),
        (Some(2), Some(1), Some(1))
    );
    assert_eq!(Producer::run(&queue, &["wait", &one]).code, 0, "of this one all are stored");
}

#[test]
fn logs_are_objects_when_that_is_asked_for_and_name_their_job() {
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let id = "0123456789ab80008000000000000001";
    queue.push(&format!("{{\"id\":\"{id}\",\"url\":\"https://token:geheim@x.org/?sig=geheim\",\"v\":\"99\"}}"));
    let mut command = Worker::command(&queue, storage.path());
    let mut worker =
        command.env("IMGQ_LOG_FORMAT", "json").env("RUST_LOG", "info").stderr(Stdio::piped()).spawn().unwrap();
    queue.until_results(1, SOON);
    rustix::process::kill_process(rustix::process::Pid::from_child(&worker), rustix::process::Signal::TERM).unwrap();
    let lines: Vec<String> = BufReader::new(worker.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(worker.wait().unwrap().success());
    let lines: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines.iter().all(|line| line["level"].is_string() && line["timestamp"].is_string()), "{lines:?}");
    let about = lines.iter().find(|line| line["job"] == id).expect("a line about the job");
    assert!(about["message"].as_str().unwrap().contains("cannot be read"), "{about}");
    assert_eq!(about["url"], "https://***@x.org/?***");
    assert!(!lines.iter().any(|line| line.to_string().contains("geheim") || line.to_string().contains("token")));
    // Why a program ends is a line like any other.
    for mut command in [
        Producer::command(&queue, &["wait", "0123456789ab", "--log-format", "json"]),
        Worker::alone(&["--log-format", "json", "--redis-url", "redis://127.0.0.1:1", "--storage", "/proc/none"]),
    ] {
        command.env_remove("RUST_LOG");
        let ended = finish(command, b"", SOON);
        assert_eq!(ended.code, 1, "{ended:?}");
        let line: serde_json::Value = serde_json::from_str(ended.stderr.trim()).expect(&ended.stderr);
        assert!(line["message"].is_string() && line["hint"].is_string() && line["level"] == "ERROR", "{line}");
    }
    let unknown = Producer::run(&queue, &["status", "--log-format", "xml"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("json"), "{unknown:?}");
}
