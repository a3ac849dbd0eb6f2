//! An origin of pictures that look like pictures, as slow as it is asked at.

use harness::imgur::picture::{Format, file};
use harness::scripted::Act::{Drip, Send};
use harness::{Producer, RawQueue, Scripted};
use std::time::Duration;

/// Different pictures that it has.
const PICTURES: usize = 24;

/// Serves `/photos/N.jpg`, any N; `/down/…` with 503, and 404 for all else.
pub(crate) fn origin() -> Scripted {
    serve(Duration::ZERO)
}

/// The same, a quarter of a second for each answer.
pub(crate) fn slow_origin() -> Scripted {
    serve(Duration::from_millis(25))
}

/// `pause` stands after each of the first bytes.
fn serve(pause: Duration) -> Scripted {
    let pictures: Vec<Vec<u8>> = (0..PICTURES as u64)
        .map(|n| file(n * 7 + 3, Format::Jpeg, 320, if n % 3 == 0 { 320 } else { 240 }, false).to_vec())
        .collect();
    Scripted::start(move |path| {
        let answer = |status: &str, body: &[u8]| {
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let answer = [head.as_bytes(), body].concat();
            match pause.is_zero() {
                true => vec![Send(answer)],
                false => vec![Drip(answer[..10].to_vec(), pause), Send(answer[10..].to_vec())],
            }
        };
        let number = path.strip_prefix("photos/").and_then(|name| name.split('.').next()?.parse::<usize>().ok());
        match number {
            Some(n) => answer("200 OK", &pictures[n % PICTURES]),
            None if path.starts_with("down/") => answer("503 Service Unavailable", b""),
            None => answer("404 Not Found", b""),
        }
    })
}

/// Enqueues links from a pipe.
pub(crate) fn enqueue(queue: &RawQueue, links: &[String]) {
    let command = Producer::command(queue, &["enqueue", "-", "--json"]);
    let done = harness::programs::finish(command, links.join("\n").as_bytes(), Duration::from_secs(60));
    assert_eq!(done.code, 0, "{done:?}");
}

/// A job that failed for good.
pub(crate) fn dead(queue: &mut RawQueue, id: u32, url: &str, reason: &str) -> String {
    let id = format!("{id:032x}");
    let job = serde_json::json!({ "id": id, "url": url }).to_string();
    queue.run(&["XADD", "@dead", "*", "id", &id, "url", url, "reason", reason, "attempts", "5", "job", &job])
}
