//! `enqueue --durable` on one server: confirmed where the server can tell that a write is on disk, refused elsewhere.
//!
//! What replicas add is in `replicas`.

use harness::{Producer, RawQueue, Redis};

const LINKS: [&str; 3] = ["https://example.com/1.jpg", "https://example.com/2.jpg", "https://example.com/3.jpg"];

fn enqueue_durably(queue: &RawQueue) -> harness::programs::Finished {
    Producer::run(queue, &[&["enqueue", "--durable", "--json"], &LINKS[..]].concat())
}

fn knows_waitaof(queue: &mut RawQueue) -> bool {
    let known: Vec<redis::Value> = queue.run(&["COMMAND", "INFO", "WAITAOF"]);
    known != [redis::Value::Nil]
}

fn assert_on_disk(queue: &mut RawQueue) {
    let confirmed = enqueue_durably(queue);
    assert_eq!((confirmed.code, confirmed.json()["enqueued"].as_u64()), (0, Some(3)), "{confirmed:?}");
    assert!(confirmed.stderr.contains("durable: on disk, on 0 replicas"), "{confirmed:?}");
    assert_eq!(queue.ready_len(), 3);
}

/// Refused with `why`, before anything was enqueued.
fn assert_refused(queue: &mut RawQueue, why: &str) {
    let refused = enqueue_durably(queue);
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{refused:?}");
    assert!(
        refused.stderr.contains("error: --durable: Redis at ")
            && refused.stderr.contains("cannot confirm that a write is safe")
            && refused.stderr.contains(why),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("hint: "), "{refused:?}");
    assert_eq!((queue.ready_len(), queue.run::<i64>(&["ZCARD", "@batches"])), (0, 0), "nothing was enqueued");
    assert!(queue.run::<Vec<String>>(&["KEYS", &queue.key("*")]).is_empty(), "no trace was left");
}

#[test]
fn a_server_that_syncs_always_confirms_by_its_answer() {
    let redis = Redis::private(&["--appendfsync", "always"]);
    assert_on_disk(&mut RawQueue::on(&redis));
}

#[test]
fn a_server_that_syncs_every_second_confirms_if_it_can_be_asked_and_is_refused_if_not() {
    let redis = Redis::private(&["--appendfsync", "everysec"]);
    let mut queue = RawQueue::on(&redis);
    if knows_waitaof(&mut queue) {
        assert_on_disk(&mut queue);
    } else {
        assert_refused(&mut queue, "has no WAITAOF, appendfsync is not always, and no replica is connected");
    }
}

#[test]
fn a_server_without_append_only_file_is_refused() {
    let redis = Redis::private(&["--appendonly", "no"]);
    assert_refused(&mut RawQueue::on(&redis), "writes no append-only file, and no replica is connected");
}

#[test]
fn a_server_that_never_syncs_is_refused_and_not_waited_for() {
    let redis = Redis::private(&["--appendfsync", "no"]);
    assert_refused(&mut RawQueue::on(&redis), "no replica is connected");
}
