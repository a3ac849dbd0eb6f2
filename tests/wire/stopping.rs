//! Stopping politely.

use harness::files::objects;
use harness::{Origin, RawQueue, Worker, allowed, until};
use rustix::process::Signal;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

struct Busy {
    origin: Origin,
    queue: RawQueue,
    storage: tempfile::TempDir,
    worker: Worker,
    elements: Vec<String>,
}

/// A worker with four downloads that do not end, and two more jobs behind them.
fn busy(grace: &str) -> Busy {
    let origin = Origin::start();
    origin.hold();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let elements: Vec<String> = (1..=6)
        .map(|n| {
            format!(
                "{{\"id\":\"0123456789ab8000800000000000000{n}\",\"url\":\"{}\"}}",
                origin.url(&format!("{n}/9000.gif"))
            )
        })
        .collect();
    for element in &elements {
        queue.push(element);
    }
    let worker = Worker::start(&queue, storage.path(), &["--concurrency", "4", "--grace", grace]);
    until("four are being downloaded", SOON, || (origin.requests_in_all() == 4).then_some(()));
    assert_eq!(queue.ready(), elements[4..]);
    Busy { origin, queue, storage, worker, elements }
}

#[test]
fn what_cannot_be_finished_in_time_goes_back_to_the_front_with_its_attempts_unspent() {
    let mut busy = busy("1s");
    busy.worker.signal(Signal::TERM);
    let (status, took) = busy.worker.until_end(SOON);
    assert_eq!(status.code(), Some(0));
    assert!(
        took >= Duration::from_millis(900) && took < allowed(Duration::from_secs(5)),
        "grace was 1s, it took {took:?}"
    );
    assert_eq!(busy.queue.ready(), busy.elements, "as they were, in their order");
    assert!(busy.queue.workers().is_empty());
    assert_eq!(busy.queue.results_len(), 0);
    assert!(objects(busy.storage.path()).is_empty());
    let left = std::fs::read_dir(busy.storage.path().join(".imgq-tmp")).unwrap().count();
    assert_eq!(left, 0, "no unfinished file is left");
}

#[test]
fn what_can_be_finished_is() {
    let mut busy = busy("20s");
    busy.worker.signal(Signal::TERM);
    busy.origin.let_go();
    let (status, _) = busy.worker.until_end(SOON);
    assert_eq!(status.code(), Some(0));
    assert_eq!(busy.queue.results_len(), 4);
    assert_eq!(busy.queue.ready(), busy.elements[4..], "nothing more was claimed");
}

#[test]
fn a_second_signal_gives_back_at_once() {
    let mut busy = busy("60s");
    busy.worker.signal(Signal::INT);
    // The first has been heard when nothing is claimed any more; its only trace outside is that the worker goes on.
    busy.worker.signal(Signal::TERM);
    let (status, took) = busy.worker.until_end(SOON);
    assert_eq!(status.code(), Some(0));
    assert!(took < allowed(Duration::from_secs(10)), "{took:?}");
    assert_eq!(busy.queue.ready(), busy.elements);
}
