//! Links onto the queue: URLs, lists, standard input; dedup, limits, bad lines.

use harness::programs::finish;
use harness::{Origin, Producer, RawQueue, Worker, until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn urls_lists_and_standard_input() {
    let mut queue = RawQueue::shared();
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("links.txt");
    std::fs::write(&list, "# a comment\n\nhttps://example.com/1.jpg\r\nhttps://example.com/2.jpg\n").unwrap();
    let arguments = ["enqueue", "https://example.com/0.jpg", list.to_str().unwrap(), "-"];
    let enqueued = finish(Producer::command(&queue, &arguments), b"https://example.com/3.jpg\n", SOON);
    assert_eq!(enqueued.code, 0, "{enqueued:?}");
    assert_eq!(enqueued.stdout.lines().count(), 1, "one summary line: {enqueued:?}");
    let urls: Vec<String> = queue
        .ready()
        .iter()
        .map(|element| serde_json::from_str::<serde_json::Value>(element).unwrap()["url"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(urls, [0, 1, 2, 3].map(|n| format!("https://example.com/{n}.jpg")));
}

#[test]
fn a_link_is_enqueued_once_in_whatever_spelling() {
    let mut queue = RawQueue::shared();
    let first = Producer::run(
        &queue,
        &[
            "enqueue",
            "--json",
            "https://i.imgur.com/WS2LFCw.jpg",
            "https://i.imgur.com/WS2LFCwh.jpeg?1",
            "https://imgur.com/WS2LFCw.jpg",
        ],
    );
    let json = first.json();
    assert_eq!(
        (json["enqueued"].as_u64(), json["duplicates"].as_u64(), json["rejected"].as_u64()),
        (Some(1), Some(2), Some(0))
    );
    assert_eq!(json["batch"].as_str().unwrap().len(), 12);
    assert_eq!(json.as_object().unwrap().len(), 4);
    let again = Producer::run(&queue, &["enqueue", "--json", "http://i.imgur.io/WS2LFCw.jpg"]).json();
    assert_eq!((again["enqueued"].as_u64(), again["duplicates"].as_u64()), (Some(0), Some(1)));
    let forced = Producer::run(&queue, &["enqueue", "--json", "--no-dedup", "https://i.imgur.com/WS2LFCw.jpg"]).json();
    assert_eq!(forced["enqueued"], 1);
    assert_eq!(queue.ready_len(), 2);
}

#[test]
fn a_failed_link_can_be_enqueued_again_but_a_rejected_one_is_known() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &["--max-attempts", "1"]);
    let links = [origin.url("status/500"), origin.url("status/404"), origin.url("1/300.gif")];
    let arguments = ["enqueue", "--json", &links[0], &links[1], &links[2]];
    assert_eq!(Producer::run(&queue, &arguments).json()["enqueued"], 3);
    queue.until_results(3, SOON);
    let again = Producer::run(&queue, &arguments).json();
    assert_eq!((again["enqueued"].as_u64(), again["duplicates"].as_u64()), (Some(1), Some(2)));
}

#[test]
fn bad_lines_are_named_and_counted_and_stop_nothing() {
    let mut queue = RawQueue::shared();
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("urls.txt");
    std::fs::write(
        &list,
        "https://example.com/1.jpg\nftp://example.com/2.jpg\n\x1b[31mred\nhttps://example.com/3.jpg\n",
    )
    .unwrap();
    let list = list.to_str().unwrap();
    let enqueued = Producer::run(&queue, &["enqueue", list, "--json"]);
    assert_eq!(enqueued.code, 0);
    assert_eq!((enqueued.json()["enqueued"].as_u64(), enqueued.json()["rejected"].as_u64()), (Some(2), Some(2)));
    assert!(enqueued.stderr.contains("urls.txt:2: not an http(s) URL: \"ftp://example.com/2.jpg\""), "{enqueued:?}");
    assert!(enqueued.stderr.contains("urls.txt:3:") && !enqueued.stderr.contains('\x1b'), "{enqueued:?}");
    let strict = Producer::run(&queue, &["enqueue", list, "--strict"]);
    assert_eq!(strict.code, 1, "{strict:?}");
    assert_eq!(queue.ready_len(), 2);
}

#[test]
fn a_limit_counts_duplicates() {
    let mut queue = RawQueue::shared();
    let input = b"https://x.org/1.jpg\nhttps://x.org/1.jpg\nhttps://x.org/2.jpg\n";
    let enqueued = finish(Producer::command(&queue, &["enqueue", "-", "--limit", "2", "--json"]), input, SOON).json();
    assert_eq!((enqueued["enqueued"].as_u64(), enqueued["duplicates"].as_u64()), (Some(1), Some(1)));
    assert_eq!(queue.ready_len(), 1);
}

#[test]
fn waiting_for_an_enqueue_ends_with_3_when_something_was_not_stored() {
    let origin = Origin::start();
    let queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let good = Producer::run(&queue, &["enqueue", "--wait", &origin.url("1/300.gif")]);
    assert_eq!(good.code, 0, "{good:?}");
    assert!(good.stdout.lines().last().unwrap().starts_with("Took "), "{good:?}");
    let mixed = Producer::run(&queue, &["enqueue", "--wait", &origin.url("2/300.gif"), &origin.url("status/404")]);
    assert_eq!(mixed.code, 3, "{mixed:?}");
    assert!(mixed.stdout.contains("gone"), "{mixed:?}");
}

#[test]
fn a_killed_enqueue_leaves_a_batch_that_wait_explains() {
    let mut queue = RawQueue::shared();
    let mut enqueue = Producer::command(&queue, &["enqueue", "-"]);
    let mut child = enqueue.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.as_mut().unwrap();
    std::io::Write::write_all(stdin, b"https://x.org/1.jpg\n").unwrap();
    // A slow source is no reason for its first links to wait.
    until("the link is on the queue", SOON, || (queue.ready_len() == 1).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    let batch = queue.run::<Vec<String>>(&["ZRANGE", "@batches", "0", "-1"]).remove(0);
    let facts = queue.hash(&format!("batch:{batch}"));
    assert!(!facts.contains_key("sealed"));
    // Its jobs end, and its enqueuer has been silent for a minute.
    queue.run::<i64>(&["HSET", &format!("@batch:{batch}"), "stored", "1", "seen", "1000"]);
    let waited = Producer::run(&queue, &["wait", &batch]);
    assert_eq!(waited.code, 1, "{waited:?}");
    assert!(waited.stderr.contains("was cut off") && waited.stderr.contains("hint: "), "{waited:?}");
    // A wait for everything tells, and ends.
    queue.run::<i64>(&["DEL", "@ready"]);
    let all = Producer::run(&queue, &["wait", "--timeout", "20s"]);
    assert_eq!(all.code, 0, "{all:?}");
    assert!(all.stderr.contains("was cut off"), "{all:?}");
}

#[test]
fn ctrl_c_ends_an_enqueue_that_never_has_to_wait_for_its_list() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("many.txt");
    std::fs::write(&list, (0..1_000_000).map(|n| format!("https://x.org/{n}.jpg\n")).collect::<String>()).unwrap();
    for dedup in [true, false] {
        let mut queue = RawQueue::shared();
        let mut command = Producer::command(&queue, &["enqueue", list.to_str().unwrap()]);
        let mut child = command.args((!dedup).then_some("--no-dedup")).spawn().unwrap();
        until("it has begun", SOON, || (queue.ready_len() > 0).then_some(()));
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1));
        assert!(queue.ready_len() < 1_000_000);
        let batch = queue.run::<Vec<String>>(&["ZRANGE", "@batches", "0", "-1"]).remove(0);
        // Complete with what was read; without dedup it stays open for the same command, which could not tell otherwise
        // what is in.
        assert_eq!(queue.hash(&format!("batch:{batch}")).contains_key("sealed"), dedup);
        let pattern = queue.key("dedup:*").replace('{', "\\{").replace('}', "\\}");
        let mut all: Vec<String> = queue.run(&["KEYS", &pattern]);
        all.push(queue.key("ready"));
        let all: Vec<&str> = std::iter::once("UNLINK").chain(all.iter().map(String::as_str)).collect();
        queue.run::<i64>(&all);
    }
}
