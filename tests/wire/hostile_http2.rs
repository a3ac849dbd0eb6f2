//! Servers that break HTTP/2 (RFC 9113), frame by frame: each with its outcome, within its time.

use harness::files::sha256;
use harness::origin::gif;
use harness::scripted::Act::{self, Again, DripForever, Forever, Reset, Send, Stall};
use harness::scripted::{Scripted, frame};
use harness::tls::{Authority, Certificate};
use harness::{RawQueue, Worker};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// What a busy machine may add to a bound.
const SLACK_MS: u64 = 3000;

/// A server's first word may take the connect and the idle time.
const SILENT_MS: u64 = 2500;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200`, an entry of HPACK's static table (RFC 7541, appendix A).
const OK: u8 = 0x88;

/// A field that goes into no table (RFC 7541, section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// The head of an answer that announces `length` bytes.
fn head(stream: u32, length: usize) -> Act {
    let fields = [&[OK][..], &field("content-length", &length.to_string())].concat();
    Send(frame(HEADERS, END_HEADERS, stream, &fields))
}

fn body(stream: u32, flags: u8) -> Act {
    Send(frame(DATA, flags, stream, &gif(1, 500)))
}

fn reset(stream: u32, code: u32) -> Act {
    Send(frame(RST_STREAM, 0, stream, &code.to_be_bytes()))
}

fn goaway(last_stream: u32, code: u32) -> Act {
    Send(frame(GOAWAY, 0, 0, &[last_stream.to_be_bytes(), code.to_be_bytes()].concat()))
}

/// What a server does with each request: its name, its acts, the outcome and reason, and how long an attempt may take.
type Case = (&'static str, fn(u32) -> Vec<Act>, &'static str, &'static str, u64);

const CASES: &[Case] = &[
    ("good", |s| vec![head(s, 500), body(s, END_STREAM), Stall], "stored", "", 0),
    (
        "good-and-padded",
        |s| {
            let padded = [&[7][..], &gif(1, 500), &[0; 7]].concat();
            vec![head(s, 500), Send(frame(DATA, 0x8 | END_STREAM, s, &padded)), Stall]
        },
        "stored",
        "",
        0,
    ),
    ("good-then-goaway", |s| vec![head(s, 500), body(s, END_STREAM), goaway(s, 0)], "stored", "", 0),
    // Silence and slowness.
    ("stalls-before-head", |_| vec![Stall], "failed", "timeout_idle", SILENT_MS),
    ("stalls-in-head", |s| vec![Send(frame(HEADERS, 0, s, &[OK])), Stall], "failed", "timeout_idle", SILENT_MS),
    ("stalls-in-body", |s| vec![head(s, 900), body(s, 0), Stall], "failed", "timeout_idle", 1000),
    ("pings-for-ever", |_| vec![Forever(frame(PING, 0, 0, &[0; 8]))], "failed", "timeout_idle", SILENT_MS),
    ("settings-for-ever", |_| vec![Forever(frame(SETTINGS, 0, 0, &[]))], "failed", "timeout_idle", SILENT_MS),
    (
        "windows-for-ever",
        |_| vec![DripForever(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), Duration::from_millis(50))],
        "failed",
        "timeout_idle",
        SILENT_MS,
    ),
    (
        "early-hints-for-ever",
        |s| {
            // `:status: 103`, by the name of the static table's entry 8.
            vec![DripForever(frame(HEADERS, END_HEADERS, s, b"\x08\x03103"), Duration::from_millis(50))]
        },
        "failed",
        "timeout_idle",
        SILENT_MS,
    ),
    (
        "drips-body",
        |s| vec![head(s, 100_000), body(s, 0), DripForever(frame(DATA, 0, s, b"y"), Duration::from_millis(50))],
        "failed",
        "timeout_total",
        4000,
    ),
    // Without end.
    (
        "body-without-end",
        |s| {
            let announced_by_nobody = Send(frame(HEADERS, END_HEADERS, s, &[OK]));
            vec![announced_by_nobody, body(s, 0), Forever(frame(DATA, 0, s, &[0; 16_000]))]
        },
        "failed",
        "truncated",
        0,
    ),
    ("announces-too-much", |s| vec![head(s, 2_000_000), Stall], "rejected", "too_large", 0),
    (
        "head-without-end",
        |s| {
            let more = (0..40).flat_map(|n| field(&format!("x-{n}"), &"y".repeat(200))).collect::<Vec<_>>();
            vec![Send(frame(HEADERS, 0, s, &[OK])), Forever(frame(CONTINUATION, 0, s, &more))]
        },
        "failed",
        "connect",
        0,
    ),
    // Breaking off.
    ("resets-before-head", |s| vec![reset(s, 2), Stall], "failed", "connect", 0),
    ("resets-in-body", |s| vec![head(s, 900), body(s, 0), reset(s, 2), Stall], "failed", "truncated", 0),
    ("closes-before-head", |_| vec![], "failed", "connect", 0),
    ("closes-in-body", |s| vec![head(s, 900), body(s, 0)], "failed", "truncated", 0),
    ("tcp-reset-in-body", |s| vec![head(s, 900), body(s, 0), Reset], "failed", "truncated", 0),
    ("goaway-in-body", |s| vec![head(s, 900), body(s, 0), goaway(0, 2), Stall], "failed", "truncated", 0),
    // Lies.
    ("sends-less", |s| vec![head(s, 900), body(s, END_STREAM), Stall], "failed", "truncated", 0),
    ("sends-more", |s| vec![head(s, 400), body(s, END_STREAM), Stall], "failed", "truncated", 0),
    ("empty", |s| vec![Send(frame(HEADERS, END_HEADERS | END_STREAM, s, &[OK])), Stall], "rejected", "not_image", 0),
    // What is no HTTP/2.
    ("data-before-head", |s| vec![body(s, END_STREAM), Stall], "failed", "connect", 0),
    ("data-on-no-stream", |_| vec![body(0, 0), Stall], "failed", "connect", 0),
    ("pushes", |s| vec![Send(frame(PUSH_PROMISE, END_HEADERS, s, &[0, 0, 0, 2, OK])), Stall], "failed", "connect", 0),
    ("frame-too-large", |s| vec![Send(frame(DATA, 0, s, &[0; 20_000])), Stall], "failed", "connect", 0),
    ("bad-compression", |s| vec![Send(frame(HEADERS, END_HEADERS, s, &[0xff; 8])), Stall], "failed", "connect", 0),
    ("no-status", |s| vec![Send(frame(HEADERS, END_HEADERS, s, &field("x", "y"))), Stall], "failed", "connect", 0),
    ("half-a-frame", |s| vec![Send(frame(HEADERS, END_HEADERS, s, &[OK])[..5].to_vec())], "failed", "connect", 0),
];

#[test]
fn every_break_of_http2_has_its_outcome_within_its_time() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.write_to(&folder.path().join("authority.pem"));
    let tls = authority.server(Certificate::Good, &["h2"]);
    // A server each, as most of them end the connection for all of its streams.
    let servers: Vec<_> = CASES.iter().map(|(_, acts, ..)| Scripted::start_http2(tls.clone(), acts)).collect();
    let mut queue = RawQueue::shared();
    let mut command = Worker::command(&queue, &folder.path().join("images"));
    command
        .args(["--connect-timeout", "1500ms", "--idle-timeout", "1s", "--total-timeout", "4s", "--max-bytes", "1MB"])
        .args(["--max-attempts", "1", "--concurrency", "200", "--host-concurrency", "200"])
        .env("SSL_CERT_FILE", folder.path().join("authority.pem"));
    let _worker = Worker::of(command.spawn().unwrap());
    for ((name, ..), server) in CASES.iter().zip(&servers) {
        queue.push(&server.url(name));
    }
    let mut wrong = Vec::new();
    for result in queue.until_results(CASES.len(), SOON) {
        let (name, _, outcome, reason, at_most_ms) =
            CASES.iter().find(|(name, ..)| result["url"].ends_with(&format!("/{name}"))).unwrap();
        let ms: u64 = result.get("ms").map_or(0, |ms| ms.parse().unwrap());
        let found = (result["outcome"].as_str(), result.get("reason").map_or("", String::as_str));
        if found != (*outcome, *reason) || ms > at_most_ms + SLACK_MS {
            wrong.push(format!("{name} is {found:?} after {ms} ms, not {outcome} {reason}"));
        }
        if result["outcome"] == "stored" {
            assert_eq!(result["sha256"], sha256(&gif(1, 500)), "{name}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_http2_refused_before_it_began_costs_no_attempt() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.write_to(&folder.path().join("authority.pem"));
    // The first request is told that it was not begun, on a connection that goes away; the next connection is good.
    let tls = authority.server(Certificate::Good, &["h2"]);
    let first = std::sync::atomic::AtomicBool::new(true);
    let server =
        Scripted::start_http2(tls, move |stream| match first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            true => vec![goaway(0, 0)],
            false => vec![head(stream, 500), body(stream, END_STREAM), Stall],
        });
    let mut queue = RawQueue::shared();
    let mut command = Worker::command(&queue, &folder.path().join("images"));
    command.args(["--max-attempts", "1"]).env("SSL_CERT_FILE", folder.path().join("authority.pem"));
    let _worker = Worker::of(command.spawn().unwrap());
    queue.push(&server.url("a.gif"));
    let result = queue.until_results(1, SOON).remove(0);
    assert_eq!((result["outcome"].as_str(), result["attempts"].as_str()), ("stored", "1"), "{result:?}");
}

#[test]
fn a_connection_with_nobody_at_its_other_end_is_given_up() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.write_to(&folder.path().join("authority.pem"));
    let tls = authority.server(Certificate::Good, &["h2"]);
    // One answer, and then nothing for ever on that connection, not even to a PING; the next connection is good.
    let requests = std::sync::atomic::AtomicUsize::new(0);
    let server =
        Scripted::start_http2(tls, move |stream| match requests.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            1 => vec![Stall],
            _ => vec![head(stream, 500), body(stream, END_STREAM), Again],
        });
    let mut queue = RawQueue::shared();
    let mut command = Worker::command(&queue, &folder.path().join("images"));
    command
        .args(["--connect-timeout", "2s", "--idle-timeout", "2s", "--total-timeout", "20s", "--max-attempts", "1"])
        .env("SSL_CERT_FILE", folder.path().join("authority.pem"));
    let _worker = Worker::of(command.spawn().unwrap());
    for n in 0..3 {
        queue.push(&server.url(&format!("{n}.gif")));
        let results = queue.until_results(n + 1, SOON);
        assert_eq!(results[n]["outcome"], "stored", "{:?}", results[n]);
    }
    assert_eq!(server.connections(), 2);
}
