//! Named readers of the results, and the bound that waits for them.

use harness::programs::{Finished, finish};
use harness::{Origin, Producer, RawQueue, Worker, until};
use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn read(queue: &RawQueue, arguments: &[&str]) -> Finished {
    let mut all = vec!["results", "--format", "urls"];
    all.extend(arguments);
    finish(Producer::command(queue, &all), b"", SOON)
}

fn push(queue: &mut RawQueue, origin: &Origin, jobs: std::ops::Range<u64>) {
    for n in jobs {
        queue.push(&origin.url(&format!("{n}/300.gif")));
    }
}

#[test]
fn a_reader_goes_on_where_it_stopped() {
    let mut queue = RawQueue::shared();
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    let _worker = Worker::start(&queue, storage.path(), &[]);
    push(&mut queue, &origin, 0..5);
    queue.until_results(5, SOON);
    assert_eq!(read(&queue, &["--reader", "export"]).stdout.lines().count(), 5);
    assert_eq!(read(&queue, &["--reader", "export"]).stdout, "");
    push(&mut queue, &origin, 5..7);
    queue.until_results(7, SOON);
    let file = storage.path().join("results.txt");
    std::fs::write(&file, "before\n").unwrap();
    let third = read(&queue, &["--reader", "export", "--output", file.to_str().unwrap()]);
    assert_eq!(third.code, 0, "{third:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 3, "appended");
    assert_eq!(read(&queue, &[]).stdout.lines().count(), 7, "all are there for everybody else");
    let list = read(&queue, &["--list-readers"]).stdout;
    assert!(list.contains("export: 0 behind"), "{list}");
    assert_eq!(read(&queue, &["--drop-reader", "export"]).code, 0);
    let again = read(&queue, &["--drop-reader", "export"]);
    assert!(again.code == 1 && again.stderr.contains("no reader \"export\"") && again.stderr.contains("hint:"));
    let bad = read(&queue, &["--reader", "no name"]);
    assert!(bad.code == 1 && bad.stderr.contains("\"no name\""), "{bad:?}");
}

#[test]
fn what_a_killed_reader_was_given_it_is_given_again() {
    let mut queue = RawQueue::shared();
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    let _worker = Worker::start(&queue, storage.path(), &[]);
    push(&mut queue, &origin, 0..4);
    queue.until_results(4, SOON);
    // Given to the reader's process, which died before it had passed them on.
    queue.run::<()>(&["XGROUP", "CREATE", "@results", "export", "0"]);
    queue.run::<redis::Value>(&["XREADGROUP", "GROUP", "export", "producer", "COUNT", "3", "STREAMS", "@results", ">"]);
    let lines: BTreeSet<String> = read(&queue, &["--reader", "export"]).stdout.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 4);
}

#[test]
fn at_the_bound_workers_pause_and_say_so_until_a_reader_has_taken_results() {
    let mut queue = RawQueue::shared();
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    push(&mut queue, &origin, 0..100);
    let mut worker = Worker::command(&queue, storage.path());
    let arguments = ["--results-max", "20", "--concurrency", "8"];
    let _worker = Worker::of(worker.args(arguments).stderr(Stdio::null()).spawn().unwrap());
    until("it says so", SOON, || {
        let told = Producer::run(&queue, &["workers"]).stdout;
        told.contains("20 results that the readers have not taken").then_some(())
    });
    assert_eq!((queue.results_len(), queue.ready_len()), (20, 80), "not one beyond the bound");
    // Nobody reads: nothing is dropped in silence. A reader takes what there is, and it goes on by itself.
    let mut seen = BTreeSet::new();
    until("everything was read", Duration::from_secs(60), || {
        let lines = read(&queue, &["--reader", "export"]).stdout;
        for line in lines.lines() {
            assert!(seen.insert(line.to_owned()), "{line} came twice");
        }
        assert!(queue.results_len() <= 20, "beyond the bound");
        (seen.len() == 100).then_some(())
    });
    assert_eq!(queue.hash("stats")["stored"], "100");
    until("it does not wait any more", SOON, || {
        let waiting = Producer::run(&queue, &["workers", "--json"]).json()[0]["waiting"].clone();
        (waiting == "").then_some(())
    });
}

#[test]
fn results_are_kept_that_one_of_two_readers_has_not_taken() {
    let mut queue = RawQueue::shared();
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    // Another program, by the ordinary commands of Redis; Redis lists it first.
    queue.run::<()>(&["XGROUP", "CREATE", "@results", "a-slow-one", "0", "MKSTREAM"]);
    push(&mut queue, &origin, 0..30);
    let _worker = Worker::start(&queue, storage.path(), &["--results-max", "10"]);
    queue.until_results(10, SOON);
    assert_eq!(read(&queue, &["--reader", "fast"]).stdout.lines().count(), 10);
    // Three are given to the slow one, and it takes two.
    let given: redis::streams::StreamReadReply =
        queue.run(&["XREADGROUP", "GROUP", "a-slow-one", "me", "COUNT", "3", "STREAMS", "@results", ">"]);
    let ids: Vec<String> = given.keys[0].ids.iter().map(|entry| entry.id.clone()).collect();
    queue.run::<i64>(&["XACK", "@results", "a-slow-one", &ids[0], &ids[1]]);
    until("two are trimmed, and two more come", SOON, || {
        (queue.hash("stats").get("stored").map(String::as_str) == Some("12")).then_some(())
    });
    let entries: BTreeSet<String> = queue.results().into_iter().map(|result| result["entry"].clone()).collect();
    assert!(!entries.contains(&ids[0]) && !entries.contains(&ids[1]) && entries.contains(&ids[2]));
    assert_eq!((entries.len(), queue.ready_len()), (10, 18));
}
