//! Servers that lie, stall, flood and break off: each with its outcome, within its time, and nothing left behind.

use harness::files::{objects, sha256};
use harness::origin::gif;
use harness::queue::Entry;
use harness::scripted::Act::{self, Again, Drip, DripForever, Forever, Goodbye, Reset, Send, Stall};
use harness::scripted::Scripted;
use harness::tls::{Authority, Certificate};
use harness::{Origin, RawQueue, Worker, until};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const CONNECT_MS: u64 = 1500;
const IDLE_MS: u64 = 1000;
const TOTAL_MS: u64 = 4000;
/// What a busy machine may add to a bound.
const SLACK_MS: u64 = 3000;

/// The bounds of these tests; `http_answer` is what a server has for its first word.
fn patient(queue: &RawQueue, storage: &Path) -> Command {
    let mut command = Worker::command(queue, storage);
    command
        .args(["--connect-timeout", "1500ms", "--idle-timeout", "1s", "--total-timeout", "4s", "--max-bytes", "1MB"])
        .args(["--max-attempts", "2", "--retry-delay", "10ms", "--concurrency", "200", "--host-concurrency", "200"]);
    command
}

fn start(mut command: Command) -> Worker {
    Worker::of(command.spawn().unwrap())
}

fn text(text: &str) -> Act {
    Send(text.as_bytes().to_vec())
}

fn head(headers: &str) -> Act {
    text(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n"))
}

fn image() -> Act {
    Send(gif(1, 500))
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The script of each hostile path, its outcome and reason, and how long an attempt may take.
fn hostile() -> Vec<(&'static str, Vec<Act>, &'static str, &'static str, u64)> {
    let quick = 0;
    let silent = CONNECT_MS + IDLE_MS;
    // Ten megabytes in ten kilobytes.
    let gzip = include_bytes!("bomb.gif.gz").to_vec();
    let many = |n: usize| (0..n).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let large = |bytes: usize| format!("X-Large: {}\r\n", "y".repeat(bytes));
    vec![
        // Silence.
        ("stalls-before-head", vec![Stall], "failed", "timeout_idle", silent),
        ("stalls-in-status", vec![text("HTTP/1.1 20"), Stall], "failed", "timeout_idle", silent),
        ("stalls-in-head", vec![text("HTTP/1.1 200 OK\r\nContent-Le"), Stall], "failed", "timeout_idle", silent),
        ("stalls-before-body", vec![head("Content-Length: 500\r\n"), Stall], "failed", "timeout_idle", IDLE_MS),
        ("stalls-in-body", vec![head("Content-Length: 900\r\n"), image(), Stall], "failed", "timeout_idle", IDLE_MS),
        // Slowness: what drips in the head prolongs nothing, what drips in the body only the idle time.
        (
            "drips-status",
            vec![text("HTTP/1.1 200 "), DripForever(b"y".to_vec(), millis(50))],
            "failed",
            "timeout_idle",
            silent,
        ),
        (
            "drips-head",
            vec![text("HTTP/1.1 200 OK\r\nX-Slow: "), DripForever(b"y".to_vec(), millis(50))],
            "failed",
            "timeout_idle",
            silent,
        ),
        (
            "drips-headers",
            vec![text("HTTP/1.1 200 OK\r\n"), DripForever(b"X-Slow: y\r\n".to_vec(), millis(100))],
            "failed",
            "timeout_idle",
            silent,
        ),
        (
            "drips-body",
            vec![head("Content-Length: 100000\r\n"), image(), DripForever(b"y".to_vec(), millis(50))],
            "failed",
            "timeout_total",
            TOTAL_MS,
        ),
        (
            "drips-chunks",
            vec![
                head("Transfer-Encoding: chunked\r\n"),
                Send(chunk(&gif(1, 500))),
                DripForever(chunk(b"y"), millis(50)),
            ],
            "failed",
            "timeout_total",
            TOTAL_MS,
        ),
        (
            "drips-chunk-size",
            vec![head("Transfer-Encoding: chunked\r\n"), DripForever(b"0".to_vec(), millis(50))],
            "failed",
            "timeout_idle",
            TOTAL_MS,
        ),
        // Bodies without end.
        (
            "endless-chunks",
            vec![head("Transfer-Encoding: chunked\r\n"), Send(chunk(&gif(1, 500))), Forever(chunk(&[0; 60_000]))],
            "rejected",
            "too_large",
            quick,
        ),
        ("endless-until-close", vec![head(""), image(), Forever(vec![0; 60_000])], "rejected", "too_large", quick),
        (
            "endless-one-chunk",
            vec![
                head("Transfer-Encoding: chunked\r\n"),
                text("fffffffffffffff\r\n"),
                image(),
                Forever(vec![0; 60_000]),
            ],
            "rejected",
            "too_large",
            quick,
        ),
        (
            "chunk-size-too-large",
            vec![head("Transfer-Encoding: chunked\r\n"), text("ffffffffffffffffff\r\n"), image(), Stall],
            "failed",
            "truncated",
            quick,
        ),
        (
            "endless-chunk-extension",
            vec![head("Transfer-Encoding: chunked\r\n"), text("1;x="), Forever(vec![b'y'; 60_000])],
            "failed",
            "truncated",
            quick,
        ),
        (
            "endless-trailers",
            vec![
                head("Transfer-Encoding: chunked\r\n"),
                Send(chunk(&gif(1, 500))),
                text("0\r\n"),
                Forever(b"X-Y: z\r\n".repeat(1000)),
            ],
            "failed",
            "truncated",
            quick,
        ),
        // Lies about length.
        ("announces-more", vec![head("Content-Length: 5000\r\n"), image()], "failed", "truncated", quick),
        (
            "announces-more-chunks",
            vec![head("Transfer-Encoding: chunked\r\n"), Send(chunk(&gif(1, 500)))],
            "failed",
            "truncated",
            quick,
        ),
        (
            "announces-less",
            vec![head("Content-Length: 500\r\n"), image(), Send(vec![b'y'; 100_000])],
            "stored",
            "",
            quick,
        ),
        ("announces-less-than-nothing", vec![head("Content-Length: -500\r\n"), image()], "failed", "connect", quick),
        ("announces-no-number", vec![head("Content-Length: many\r\n"), image()], "failed", "connect", quick),
        (
            "announces-too-much-for-a-number",
            vec![head("Content-Length: 99999999999999999999999\r\n"), image()],
            "failed",
            "connect",
            quick,
        ),
        ("announces-too-large", vec![head("Content-Length: 1000001\r\n"), Stall], "rejected", "too_large", quick),
        (
            "announces-twice",
            vec![head("Content-Length: 500\r\nContent-Length: 400\r\n"), image()],
            "failed",
            "connect",
            quick,
        ),
        (
            "announces-the-same-twice",
            vec![head("Content-Length: 500\r\nContent-Length: 500\r\n"), image()],
            "stored",
            "",
            quick,
        ),
        // The chunks count (RFC 9112, section 6.3).
        (
            "announces-length-and-chunks",
            vec![
                head("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
                Send(chunk(&gif(1, 500))),
                text("0\r\n\r\n"),
            ],
            "stored",
            "",
            quick,
        ),
        (
            "unknown-transfer-encoding",
            vec![head("Transfer-Encoding: imaginary\r\n"), Send(vec![7; 500])],
            "rejected",
            "not_image",
            quick,
        ),
        // Lies about type, and compression that nobody asked for.
        (
            "html-as-image",
            vec![head("Content-Type: image/gif\r\n"), text(&"<!DOCTYPE html><html>".repeat(9))],
            "rejected",
            "not_image",
            quick,
        ),
        ("image-as-html", vec![head("Content-Type: text/html\r\n"), image()], "stored", "", quick),
        ("gzip", vec![head("Content-Encoding: gzip\r\n"), Send(gzip.clone())], "rejected", "not_image", quick),
        ("gzip-as-transfer", vec![head("Transfer-Encoding: gzip\r\n"), Send(gzip)], "rejected", "not_image", quick),
        ("gzip-that-is-none", vec![head("Content-Encoding: gzip\r\n"), image()], "stored", "", quick),
        // Heads that are too much.
        ("large-head", vec![head(&large(20_000)), image()], "stored", "", quick),
        ("too-large-head", vec![head(&large(300_000)), image()], "failed", "connect", quick),
        ("many-headers", vec![head(&many(90)), image()], "stored", "", quick),
        ("too-many-headers", vec![head(&many(101)), image()], "failed", "connect", quick),
        (
            "endless-header",
            vec![text("HTTP/1.1 200 OK\r\nX-Y: "), Forever(vec![b'y'; 60_000])],
            "failed",
            "connect",
            quick,
        ),
        (
            "endless-headers",
            vec![text("HTTP/1.1 200 OK\r\n"), Forever(b"X-Y: z\r\n".repeat(1000))],
            "failed",
            "connect",
            quick,
        ),
        ("endless-reason", vec![text("HTTP/1.1 200 "), Forever(vec![b'y'; 60_000])], "failed", "connect", quick),
        // Redirects.
        ("redirect-loop", redirect("redirect-loop"), "rejected", "redirects", quick),
        ("redirect-chain/6", redirect("5"), "rejected", "redirects", quick),
        ("redirect-chain/5", redirect("4"), "stored", "", quick),
        ("redirect-chain/4", redirect("3"), "stored", "", quick),
        ("redirect-chain/3", redirect("2"), "stored", "", quick),
        ("redirect-chain/2", redirect("1"), "stored", "", quick),
        ("redirect-chain/1", redirect("../good"), "stored", "", quick),
        ("good", vec![head("Content-Length: 500\r\n"), image(), Again], "stored", "", quick),
        ("redirect-to-file", redirect("file:///etc/passwd"), "rejected", "redirects", quick),
        ("redirect-to-script", redirect("javascript:alert(1)"), "rejected", "redirects", quick),
        ("redirect-to-data", redirect("data:image/gif;base64,R0lGODlh"), "rejected", "redirects", quick),
        ("redirect-to-ftp", redirect("ftp://127.0.0.1/a.gif"), "rejected", "redirects", quick),
        (
            "redirect-to-long-host",
            redirect(&format!("http://{}.example/a.gif", "y".repeat(250))),
            "rejected",
            "redirects",
            quick,
        ),
        (
            "redirect-to-long-user",
            redirect(&format!("http://{}@127.0.0.1:1/a.gif", "y".repeat(5000))),
            "rejected",
            "redirects",
            quick,
        ),
        (
            "redirect-to-long-link",
            redirect(&format!("http://127.0.0.1:1/{}", "y".repeat(17_000))),
            "rejected",
            "redirects",
            quick,
        ),
        ("redirect-to-nothing", redirect(""), "rejected", "redirects", quick),
        ("redirect-to-nonsense", redirect("http://["), "rejected", "redirects", quick),
        (
            "redirect-nowhere",
            vec![text("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")],
            "rejected",
            "redirects",
            quick,
        ),
        ("redirect-to-closed-port", redirect("http://127.0.0.1:1/a.gif"), "failed", "connect", quick),
        (
            "redirect-to-metadata",
            redirect("http://169.254.169.254/latest/meta-data"),
            "rejected",
            "blocked_address",
            quick,
        ),
        ("redirect-to-private", redirect("http://10.0.0.1/a.gif"), "rejected", "blocked_address", quick),
        ("redirect-to-decimal", redirect("http://167772161/a.gif"), "rejected", "blocked_address", quick),
        ("redirect-to-loopback-v6", redirect("http://[::1]:1/a.gif"), "rejected", "blocked_address", quick),
        ("redirect-to-user", redirect("http://example.com@10.0.0.1/a.gif"), "rejected", "blocked_address", quick),
        ("redirect-to-mapped", redirect("http://[::ffff:10.0.0.1]/a.gif"), "rejected", "blocked_address", quick),
        (
            "redirect-and-stall",
            vec![text("HTTP/1.1 302 Found\r\nLocation: /good\r\nContent-Length: 10\r\n\r\n"), Stall],
            "stored",
            "",
            quick,
        ),
        // Resets, one stage after the other.
        ("resets-before-head", vec![Reset], "failed", "connect", quick),
        ("resets-in-head", vec![text("HTTP/1.1 200 OK\r\nContent-"), Reset], "failed", "connect", quick),
        ("resets-before-body", vec![head("Content-Length: 500\r\n"), Reset], "failed", "truncated", quick),
        ("resets-in-body", vec![head("Content-Length: 900\r\n"), image(), Reset], "failed", "truncated", quick),
        ("resets-until-close", vec![head(""), image(), Reset], "failed", "truncated", quick),
        ("closes-before-head", vec![], "failed", "connect", quick),
        ("closes-in-head", vec![text("HTTP/1.1 200 OK\r\nContent-")], "failed", "connect", quick),
        // No HTTP, or strange HTTP.
        ("http-0.9", vec![image()], "failed", "connect", quick),
        ("ssh", vec![text("SSH-2.0-OpenSSH_9.2\r\n"), Stall], "failed", "connect", quick),
        ("http-2-preface", vec![text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")], "failed", "connect", quick),
        ("http-1.0", vec![text("HTTP/1.0 200 OK\r\n\r\n"), image()], "stored", "", quick),
        ("nul-bytes", vec![text("HTTP/1.1 200 OK\r\nX: \0\r\n\r\n"), image()], "failed", "connect", quick),
        ("status-999", vec![text("HTTP/1.1 999 Denied\r\nContent-Length: 0\r\n\r\n")], "failed", "http_5xx", quick),
        ("status-1000", vec![text("HTTP/1.1 1000 What\r\nContent-Length: 0\r\n\r\n")], "failed", "connect", quick),
        // Informational answers.
        (
            "early-hints",
            vec![
                text(&"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(50)),
                head("Content-Length: 500\r\n"),
                image(),
            ],
            "stored",
            "",
            quick,
        ),
        (
            "drips-early-hints",
            vec![DripForever(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), millis(50))],
            "failed",
            "timeout_idle",
            silent,
        ),
        (
            "switches-protocols",
            vec![text("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), image()],
            "failed",
            "connect",
            quick,
        ),
        // Successes that are none.
        ("no-content", vec![text("HTTP/1.1 204 No Content\r\n\r\n")], "rejected", "not_image", quick),
        (
            "partial-content",
            vec![
                text("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-499/5000\r\nContent-Length: 500\r\n\r\n"),
                image(),
            ],
            "failed",
            "truncated",
            quick,
        ),
        ("not-modified", vec![text("HTTP/1.1 304 Not Modified\r\n\r\n")], "rejected", "redirects", quick),
        ("empty", vec![head("Content-Length: 0\r\n")], "rejected", "not_image", quick),
        (
            "half-a-signature",
            vec![head("Content-Length: 3\r\n"), Send(b"\x89PN".to_vec())],
            "rejected",
            "not_image",
            quick,
        ),
        ("a-signature", vec![head("Content-Length: 4\r\n"), text("GIF8")], "rejected", "not_image", quick),
        (
            "a-signature-and-no-size",
            vec![head("Content-Length: 104\r\n"), Send(b"\xff\xd8\xff\xe0".to_vec()), Send(vec![0; 100])],
            "rejected",
            "not_image",
            quick,
        ),
    ]
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn redirect(to: &str) -> Vec<Act> {
    vec![text(&format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")), Again]
}

/// What a job is expected to come to, by URL.
type Expected = BTreeMap<String, (&'static str, &'static str, u64)>;

/// Pushes the jobs, and compares what becomes of each, how often it was tried, and how long the last try took.
fn compare(queue: &mut RawQueue, expected: &Expected) -> Vec<Entry> {
    for url in expected.keys() {
        queue.push(url);
    }
    let results = queue.until_results(expected.len(), SOON);
    let mut wrong = Vec::new();
    for result in &results {
        let (outcome, reason, at_most_ms) = expected[&result["url"]];
        let attempts = if outcome == "failed" { "2" } else { "1" };
        let ms: u64 = result.get("ms").map_or(0, |ms| ms.parse().unwrap());
        let found =
            (result["outcome"].as_str(), result.get("reason").map_or("", String::as_str), result["attempts"].as_str());
        if found != (outcome, reason, attempts) || ms > at_most_ms + SLACK_MS {
            wrong.push(format!("{} is {found:?} after {ms} ms, not {outcome} {reason} {attempts}", result["url"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(results.len(), expected.len());
    results
}

/// Nothing unfinished lies in the storage.
fn nothing_left_behind(storage: &Path) {
    until("temporary files are gone", SOON, || {
        (std::fs::read_dir(storage.join(".imgq-tmp")).unwrap().count() == 0).then_some(())
    });
}

/// The most memory that a process has had at once, in KB.
fn peak_memory_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn every_hostile_origin_has_its_outcome_within_its_time() {
    let scripts: BTreeMap<&str, Vec<Act>> = hostile().into_iter().map(|(path, acts, ..)| (path, acts)).collect();
    let origin = Scripted::start(move |path| {
        scripts.get(path).cloned().unwrap_or_else(|| vec![text("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")])
    });
    let resets_at_once = Scripted::deaf(vec![Reset]);
    let full = Scripted::full();
    let mut expected: Expected =
        hostile().into_iter().map(|(path, _, outcome, reason, ms)| (origin.url(path), (outcome, reason, ms))).collect();
    expected.insert(resets_at_once.url("a.gif"), ("failed", "connect", 0));
    expected.insert(full.url("a.gif"), ("failed", "timeout_connect", CONNECT_MS));
    expected.insert(full.url("a.gif").replace("http:", "https:"), ("failed", "timeout_connect", CONNECT_MS));
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let worker = start(patient(&queue, storage.path()));
    let results = compare(&mut queue, &expected);
    for result in results.iter().filter(|result| result["outcome"] == "stored") {
        assert_eq!(result["sha256"], sha256(&gif(1, 500)), "{}", result["url"]);
    }
    // The worker is as good as new.
    let good = Origin::start();
    queue.push(&good.url("1/70000.gif"));
    let last = queue.until_results(expected.len() + 1, SOON).pop().unwrap();
    assert_eq!((last["outcome"].as_str(), last["sha256"].as_str()), ("stored", sha256(&gif(1, 70_000)).as_str()));
    nothing_left_behind(storage.path());
    assert_eq!(objects(storage.path()).len(), queue.results().iter().filter(|r| r["outcome"] == "stored").count());
    let peak = peak_memory_kb(worker.pid());
    println!("peak memory: {peak} KB");
    assert!(peak < 64_000, "{peak} KB");
}

#[test]
fn heads_without_end_are_bounded_in_memory_for_all_downloads_together() {
    // Just below what a connection takes, and then nothing: what was read is held until the time is over.
    let origin = Scripted::start(|_| vec![text("HTTP/1.1 200 OK\r\nX-Y: "), Send(vec![b'y'; 400_000]), Stall]);
    let held = Scripted::start(|_| vec![text("HTTP/1.1 200 OK\r\nX-Y: "), Send(vec![b'y'; 30_000]), Stall]);
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    for n in 0..256 {
        queue.push(&origin.url(&n.to_string()));
        queue.push(&held.url(&n.to_string()));
    }
    let mut command = Worker::command(&queue, storage.path());
    command.args(["--concurrency", "256", "--host-concurrency", "256", "--max-attempts", "1", "--idle-timeout", "2s"]);
    let worker = start(command);
    let results = queue.until_results(512, SOON);
    for result in results {
        let of_held = result["url"].starts_with(&held.url(""));
        assert_eq!(result["reason"], if of_held { "timeout_idle" } else { "connect" }, "{}", result["url"]);
    }
    let peak = peak_memory_kb(worker.pid());
    println!("peak memory: {peak} KB");
    assert!(peak < 64_000, "{peak} KB");
}

#[test]
fn floods_do_not_keep_others_from_their_turn() {
    let flood = Scripted::start(|_| vec![Forever(b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(2000))]);
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    for n in 0..8 {
        queue.push(&flood.url(&n.to_string()));
    }
    let mut command = Worker::command(&queue, storage.path());
    command.args(["--max-attempts", "1", "--connect-timeout", "4s", "--idle-timeout", "25s"]);
    let _worker = start(command);
    until("the floods have begun", SOON, || (flood.connections() == 8).then_some(()));
    for n in 0..20 {
        queue.push(&origin.url(&format!("{n}/300.gif")));
    }
    let results = queue.until_results(28, 2 * SOON);
    let ended_by: Vec<&str> =
        results.iter().map(|result| result.get("reason").map_or("stored", String::as_str)).collect();
    assert!(ended_by[..20].iter().all(|reason| *reason == "stored"), "the good ones first: {ended_by:?}");
    assert!(ended_by[20..].iter().all(|reason| *reason == "timeout_idle"), "{ended_by:?}");
}

#[test]
fn a_connection_that_ends_between_requests_costs_no_attempt() {
    // Each connection answers once, promises to stay, and ends when the next request comes.
    let origin = Scripted::start_counting(|path, before| match (before, path.split('/').next()) {
        (0, _) => vec![head("Content-Length: 500\r\n"), image(), Again],
        (_, Some("close")) => vec![],
        (_, Some("reset")) => vec![Reset],
        _ => vec![text("what is this?\r\n\r\n")],
    });
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let mut command = Worker::command(&queue, storage.path());
    command.args(["--max-attempts", "1"]);
    let _worker = start(command);
    for n in 0..30 {
        queue.push(&origin.url(&format!("{}/{n}", ["close", "reset", "nonsense"][n % 3])));
        let result = queue.until_results(n + 1, SOON).pop().unwrap();
        assert_eq!(result["outcome"], "stored", "{result:?}");
    }
    assert_eq!(origin.connections(), 30);
}

#[test]
fn an_address_passes_in_no_spelling_unless_it_is_allowed() {
    let origin = Origin::start();
    let port = origin.port();
    let hosts = [
        "127.0.0.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "127.1",
        "127.0.1",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
        "127。0。0。1",
        "user@127.0.0.1",
        "example.com:80@127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
    ];
    let never = ["[::1]", "[::]", "0", "10.0.0.1", "0xa9fea9fe", "[fe80::1]", "[64:ff9b::10.0.0.1]", "[fd00:ec2::254]"];
    for allowed in [false, true] {
        let mut queue = RawQueue::shared();
        let storage = tempfile::tempdir().unwrap();
        for (n, host) in hosts.iter().chain(&never).enumerate() {
            queue.push(&format!("http://{host}:{port}/{n}/300.gif"));
        }
        let before = origin.connections();
        let mut command = Worker::command(&queue, storage.path());
        if !allowed {
            command.env_remove("IMGQ_ALLOW_NETWORKS");
        }
        let _worker = start(command);
        for result in queue.until_results(hosts.len() + never.len(), SOON) {
            let n: usize = result["url"].rsplit('/').nth(1).unwrap().parse().unwrap();
            let stored = allowed && n < hosts.len();
            let found = (result["outcome"].as_str(), result.get("reason").map_or("", String::as_str));
            let expected = if stored { ("stored", "") } else { ("rejected", "blocked_address") };
            assert_eq!(found, expected, "{} with {allowed}", result["url"]);
        }
        assert_eq!(origin.connections() > before, allowed, "nobody even knocked");
    }
}

#[test]
fn a_good_origin_over_tls_is_served_by_either_http_and_connections_are_reused() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.write_to(&folder.path().join("authority.pem"));
    for (alpn, at_most) in [(&["h2", "http/1.1"][..], 1), (&["http/1.1"], 8), (&[], 8)] {
        let origin = Origin::start_tls(authority.server(Certificate::Good, alpn));
        let mut queue = RawQueue::shared();
        let mut command = patient(&queue, &folder.path().join(at_most.to_string()));
        command.args(["--host-concurrency", "4"]).env("SSL_CERT_FILE", folder.path().join("authority.pem"));
        let _worker = start(command);
        // The first one finds out what the server speaks. Over HTTP/1.1 a further connection may be on its way when one of the
        // four comes back.
        queue.push(&origin.url("0/300.gif"));
        queue.until_results(1, SOON);
        let more = 120;
        for n in 1..=more {
            queue.push(&origin.url(&format!("{n}/{}.gif", 300 + 1000 * n)));
        }
        for result in queue.until_results(1 + more, SOON) {
            assert_eq!(
                (result["outcome"].as_str(), result.get("reason")),
                ("stored", None),
                "{result:?} with {alpn:?}"
            );
        }
        assert!(origin.connections() <= at_most, "{} connections with {alpn:?}", origin.connections());
        let http2_requests = if at_most == 1 { 1 + more } else { 0 };
        assert_eq!(origin.http2_requests(), http2_requests, "with {alpn:?}");
    }
}

#[test]
fn connections_without_tls_are_reused_and_tls_sessions_outlive_connections() {
    let origin = Origin::start();
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.write_to(&folder.path().join("authority.pem"));
    // It closes after each answer.
    let closing = Origin::start_tls(authority.server(Certificate::Good, &["http/1.1"]));
    let mut queue = RawQueue::shared();
    let mut command = patient(&queue, &folder.path().join("images"));
    command.args(["--host-concurrency", "3"]).env("SSL_CERT_FILE", folder.path().join("authority.pem"));
    let _worker = start(command);
    for n in 0..100 {
        queue.push(&origin.url(&format!("{n}/3000.gif")));
    }
    queue.until_results(100, SOON);
    assert!(origin.connections() <= 6, "{} connections", origin.connections());
    for n in 0..10 {
        queue.push(&closing.url(&format!("closing/{n}")));
        queue.until_results(101 + n, SOON);
    }
    assert_eq!((closing.connections(), closing.resumed_connections()), (10, 9));
}

#[test]
fn tls_that_fails_or_breaks_off_has_its_outcome() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.write_to(&folder.path().join("authority.pem"));
    let image_over_tls = |_: &str| vec![head("Content-Length: 500\r\n"), image(), Goodbye];
    let good =
        |authority: &Authority, certificate| Scripted::start_tls(authority.server(certificate, &[]), image_over_tls);
    let half_a_record = b"\x16\x03\x03\x10\x00\x02\x00".to_vec();
    let breaking = Scripted::start_tls(authority.server(Certificate::Good, &[]), |path| match path {
        "until-goodbye" => vec![head(""), image(), Goodbye],
        "until-close" => vec![head(""), image()],
        "in-body" => vec![head("Content-Length: 900\r\n"), image()],
        "in-body-with-goodbye" => vec![head("Content-Length: 900\r\n"), image(), Goodbye],
        "after-body" => vec![head("Content-Length: 500\r\n"), image()],
        "in-head" => vec![text("HTTP/1.1 200 OK\r\nConte")],
        _ => vec![head("Content-Length: 900\r\n"), image(), Reset],
    });
    let origins = [
        (good(&authority, Certificate::Good), "stored", "", 0),
        (good(&authority, Certificate::Expired), "failed", "tls", 0),
        (good(&authority, Certificate::OtherName), "failed", "tls", 0),
        (good(&stranger, Certificate::Good), "failed", "tls", 0),
        (Scripted::deaf(vec![text("HTTP/1.1 400 No TLS here\r\n\r\n")]), "failed", "tls", 0),
        (Scripted::deaf(vec![Send(half_a_record.clone())]), "failed", "tls", 0),
        (Scripted::deaf(vec![Send(half_a_record.clone()), Reset]), "failed", "tls", 0),
        (Scripted::deaf(vec![Send(half_a_record), Stall]), "failed", "timeout_connect", CONNECT_MS),
        (Scripted::deaf(vec![Drip(vec![0x16; 10_000], millis(50))]), "failed", "tls", 0),
        (Scripted::deaf(vec![]), "failed", "tls", 0),
        (Scripted::deaf(vec![Reset]), "failed", "tls", 0),
        (Scripted::deaf(vec![Stall]), "failed", "timeout_connect", CONNECT_MS),
        (Scripted::deaf(vec![Forever(vec![0x17, 3, 3, 0x40, 0])]), "failed", "tls", 0),
    ];
    let mut expected: Expected = origins
        .iter()
        .map(|(origin, outcome, reason, ms)| (format!("https://{}/a.gif", origin.address()), (*outcome, *reason, *ms)))
        .collect();
    for (path, outcome, reason) in [
        ("until-goodbye", "stored", ""),
        // Without a goodbye nobody knows whether that was all.
        ("until-close", "failed", "truncated"),
        ("in-body", "failed", "truncated"),
        ("in-body-with-goodbye", "failed", "truncated"),
        // The length says that it is complete.
        ("after-body", "stored", ""),
        ("in-head", "failed", "connect"),
        ("reset", "failed", "truncated"),
    ] {
        expected.insert(breaking.url(path), (outcome, reason, 0));
    }
    let mut queue = RawQueue::shared();
    let storage = folder.path().join("images");
    let mut command = patient(&queue, &storage);
    command.env("SSL_CERT_FILE", folder.path().join("authority.pem"));
    let _worker = start(command);
    compare(&mut queue, &expected);
    nothing_left_behind(&storage);
}

#[test]
fn no_password_is_logged() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let with_password = |path: &str| origin.url(path).replace("http://", "http://me:geheim@");
    let log = storage.path().join("log");
    let mut command = Worker::command(&queue, &storage.path().join("images"));
    command.env("RUST_LOG", "trace").args(["--max-attempts", "2", "--retry-delay", "10ms"]);
    let file = std::fs::File::create(&log).unwrap();
    command.stdout(file.try_clone().unwrap()).stderr(file);
    let _worker = start(command);
    for path in ["1/300.gif", "status/404", "redirect/2/300.gif", "status/500"] {
        queue.push(&with_password(path));
    }
    queue.push("http://me:geheim@127.0.0.1:1/a.gif");
    queue.push("http://me:ge/heim@127.0.0.1:1/a.gif");
    queue.push(r#"{"id":"no id","url":"http://me:geheim@127.0.0.1/a.gif"}"#);
    // A user name alone, and a query, may be tokens.
    queue.push("http://geheim@127.0.0.1:1/a.gif");
    queue.push(&origin.url("2/300.gif?signature=geheim"));
    let results = queue.until_results(9, SOON);
    assert!(results.iter().any(|result| result["url"].contains("geheim")), "results say what was asked for");
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("//***@127.0.0.1") && text.contains("gif?***"), "{text}");
    for secret in ["geheim", "ge/heim", "bWU6Z2VoZWlt"] {
        let line = text.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{line:?}");
    }
}

#[test]
fn proxies_are_used_only_where_they_were_asked_for() {
    // A proxy that answers every request itself, and says which it was.
    let proxy = Scripted::start(|path| match path {
        "http://pictures.invalid/a.gif" => vec![head("Content-Length: 500\r\n"), image(), Again],
        _ => vec![text("HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"), Again],
    });
    let origin = Origin::start();
    for (flag, outcome, reason, direct) in [(None, "failed", "dns", "stored"), (Some("true"), "stored", "", "stored")] {
        let mut queue = RawQueue::shared();
        let storage = tempfile::tempdir().unwrap();
        let mut command = patient(&queue, storage.path());
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env(name, format!("http://{}", proxy.address()));
        }
        command.env("NO_PROXY", "127.0.0.1").env_remove("no_proxy");
        if let Some(flag) = flag {
            command.env("IMGQ_PROXY_FROM_ENVIRONMENT", flag);
        }
        queue.push("http://pictures.invalid/a.gif");
        queue.push("https://pictures.invalid/a.gif");
        queue.push(&origin.url("1/300.gif"));
        // An address that stands in a link is judged, whoever connects to it.
        queue.push("http://10.0.0.1/a.gif");
        let before = proxy.connections();
        let _worker = start(command);
        let found: BTreeMap<String, (String, String)> = queue
            .until_results(4, SOON)
            .into_iter()
            .map(|mut r| (r["url"].clone(), (r["outcome"].clone(), r.remove("reason").unwrap_or_default())))
            .collect();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(found["http://pictures.invalid/a.gif"], pair(outcome, reason));
        // The proxy makes no tunnels.
        let tunnel = if flag.is_some() { "connect" } else { "dns" };
        assert_eq!(found["https://pictures.invalid/a.gif"], pair("failed", tunnel));
        assert_eq!(found[&origin.url("1/300.gif")], pair(direct, ""));
        assert_eq!(found["http://10.0.0.1/a.gif"], pair("rejected", "blocked_address"));
        assert_eq!(proxy.connections() > before, flag.is_some());
    }
}

#[test]
fn a_proxy_makes_tunnels_for_https_and_gets_its_password() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.write_to(&folder.path().join("authority.pem"));
    let origin = Origin::start_tls(authority.server(Certificate::Good, &["h2", "http/1.1"]));
    let proxy = harness::tunnel::Tunnels::start(origin.port());
    let mut queue = RawQueue::shared();
    let mut command = patient(&queue, &folder.path().join("images"));
    command
        .env("HTTPS_PROXY", format!("http://me:geheim@{}", proxy.address()))
        .env_remove("https_proxy")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .env("SSL_CERT_FILE", folder.path().join("authority.pem"))
        .arg("--proxy-from-environment");
    let _worker = start(command);
    queue.push("https://localhost:4430/1/300.gif");
    let result = queue.until_results(1, SOON).remove(0);
    assert_eq!(result["outcome"], "stored", "{result:?}");
    let asked = proxy.asked();
    assert!(asked[0].starts_with("CONNECT localhost:4430 HTTP/1.1\r\n"), "{asked:?}");
    assert!(asked[0].contains("Proxy-Authorization: Basic bWU6Z2VoZWlt\r\n"), "{asked:?}");
}
