//! Bodies that arrive byte by byte, over every transport: what a worker holds is bounded by what it counts, and what it writes it
//! writes in pieces.

use harness::files::sha256;
use harness::origin::gif;
use harness::queue::Entry;
use harness::scripted::Act::{self, Again, Drip, Send};
use harness::scripted::{Scripted, frame};
use harness::tls::{Authority, Certificate};
use harness::{RawQueue, Worker};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(100);
/// As many as go to one host at once.
const DOWNLOADS: usize = 16;
/// What a worker with default flags may take, KB of 1,024 bytes.
const PEAK_KB_MAX: u64 = 96_000;
/// Writes that are none of files, over a test: log lines, and wakings of threads.
const WRITES_FOR_OTHERS: u64 = 1000;

/// A picture, and behind it bytes that belong to nothing.
fn object(bytes: usize) -> Vec<u8> {
    [gif(1, 500), vec![b'y'; bytes - 500]].concat()
}

fn text(text: &str) -> Act {
    Send(text.as_bytes().to_vec())
}

/// A file of `/proc/PID`: its lines are a name, a colon and a number.
fn fact(pid: u32, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Downloads from `origins`, `times` from each, with a worker as it is by default. Returns its peak of memory in KB, its calls of
/// `write`, and the results.
fn download(origins: &[Scripted], times: usize, authority: Option<&Authority>) -> (u64, u64, Vec<Entry>) {
    let mut queue = RawQueue::shared();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Worker::command(&queue, &folder.path().join("images"));
    command.args(["--max-attempts", "1"]);
    if let Some(authority) = authority {
        authority.write_to(&folder.path().join("authority.pem"));
        command.env("SSL_CERT_FILE", folder.path().join("authority.pem"));
    }
    let worker = Worker::of(command.spawn().unwrap());
    queue.until_workers(1);
    let written_before = fact(worker.pid(), "io", "syscw");
    for origin in origins {
        for n in 0..times {
            queue.push(&origin.url(&format!("{n}.gif")));
        }
    }
    let results = queue.until_results(origins.len() * times, SOON);
    let (peak, writes) = (fact(worker.pid(), "status", "VmHWM"), fact(worker.pid(), "io", "syscw") - written_before);
    println!("{} downloads: peak {peak} KB, {writes} writes", results.len());
    (peak, writes, results)
}

/// The worker's own bounds hold, everything is stored, and there is a write for each 500 bytes at most.
fn is_bounded(origins: &[Scripted], times: usize, bytes: usize, authority: Option<&Authority>) {
    let (peak, writes, results) = download(origins, times, authority);
    let whole = sha256(&object(bytes));
    for result in results {
        assert_eq!((result["outcome"].as_str(), result.get("sha256")), ("stored", Some(&whole)), "{result:?}");
    }
    assert!(peak < PEAK_KB_MAX, "{peak} KB");
    let most = WRITES_FOR_OTHERS + (origins.len() * times * bytes / 500) as u64;
    assert!(writes < most, "{writes} writes, of at most {most}");
}

#[test]
fn bytes_in_packets_of_their_own_are_held_and_written_in_pieces() {
    const BYTES: usize = 6000;
    let origin = Scripted::start(|_| {
        let mut object = object(BYTES);
        let rest = object.split_off(500);
        vec![
            text(&format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n")),
            Send(object),
            Drip(rest, Duration::from_millis(1)),
        ]
    });
    is_bounded(&[origin], DOWNLOADS, BYTES, None);
}

#[test]
fn chunks_of_one_byte_are_held_and_written_in_pieces() {
    const BYTES: usize = 100_000;
    let origin = Scripted::start(|_| {
        let chunks = object(BYTES).iter().flat_map(|byte| [b'1', b'\r', b'\n', *byte, b'\r', b'\n']).collect();
        vec![text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), Send(chunks), text("0\r\n\r\n"), Again]
    });
    is_bounded(&[origin], DOWNLOADS, BYTES, None);
}

#[test]
fn records_of_one_byte_are_held_and_written_in_pieces() {
    const BYTES: usize = 6000;
    let authority = Authority::new();
    let origin = Scripted::start_tls(authority.server(Certificate::Good, &["http/1.1"]), |_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
        vec![text(&head), Drip(object(BYTES), Duration::from_millis(1)), Act::Goodbye]
    });
    is_bounded(&[origin], DOWNLOADS, BYTES, Some(&authority));
}

/// Frames of DATA with a byte each, of the object of `bytes`; the last one ends the stream.
fn frames(stream: u32, bytes: usize) -> Vec<u8> {
    let object = object(bytes);
    let frame_at = |at: usize| frame(0, u8::from(at + 1 == bytes), stream, &object[at..=at]);
    (0..bytes).flat_map(frame_at).collect()
}

/// HEADERS with nothing but `:status: 200`.
fn frame_of_head(stream: u32) -> Act {
    Send(frame(1, 4, stream, &[0x88]))
}

#[test]
fn frames_of_one_byte_are_held_and_written_in_pieces() {
    const BYTES: usize = 3000;
    let authority = Authority::new();
    let origins: Vec<Scripted> = (0..DOWNLOADS)
        .map(|_| {
            let tls = authority.server(Certificate::Good, &["h2"]);
            Scripted::start_http2(tls, |stream| {
                let frames = frames(stream, BYTES);
                let dripping = frames.chunks(10).map(|frame| frame.to_vec()).collect();
                vec![frame_of_head(stream), Act::DripParts(dripping, Duration::from_millis(1)), Again]
            })
        })
        .collect();
    is_bounded(&origins, 1, BYTES, Some(&authority));
}

/// What a server may send before anything was taken is within its windows, and each byte of it comes in a frame of its own, which
/// takes 300 of memory. Large frames before them grow the buffers of their connection, and connections that lie idle keep what
/// they grew: there are more hosts here than downloads at once.
#[test]
fn floods_of_frames_of_one_byte_are_bounded_over_all_connections() {
    const BYTES: usize = 60_000;
    const LARGE: usize = 16_000;
    let authority = Authority::new();
    let origins: Vec<Scripted> = (0..150)
        .map(|_| {
            Scripted::start_http2(authority.server(Certificate::Good, &["h2"]), |stream| {
                let object = object(BYTES);
                let large = object[..3 * LARGE].chunks(LARGE).flat_map(|part| frame(0, 0, stream, part)).collect();
                let frame_at = |at: usize| frame(0, u8::from(at + 1 == BYTES), stream, &object[at..=at]);
                vec![frame_of_head(stream), Send(large), Send((3 * LARGE..BYTES).flat_map(frame_at).collect()), Again]
            })
        })
        .collect();
    is_bounded(&origins, 1, BYTES, Some(&authority));
}
