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

/// A list of so many links in a folder.
fn list_of(folder: &std::path::Path, links: usize) -> String {
    let list = folder.join("links.txt");
    std::fs::write(&list, (0..links).map(|n| format!("https://x.org/{n}.jpg\n")).collect::<String>()).unwrap();
    list.to_str().unwrap().to_owned()
}

#[test]
fn a_long_list_goes_in_whole_and_once_and_begins_in_its_order() {
    let mut queue = RawQueue::shared();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("long.txt");
    // Repeated at once, a few thousand lines later, and a hundred thousand lines later.
    let link = |n: usize| format!("https://example.com/{n}.jpg");
    let numbers = (0..150_000_usize)
        .flat_map(|n| [Some(n), (n % 3 == 0).then_some(n), n.checked_sub(5000).filter(|n| n % 7 == 0)]);
    let numbers: Vec<usize> = numbers.flatten().chain(0..1000).collect();
    std::fs::write(&file, numbers.iter().map(|n| link(*n) + "\n").collect::<String>()).unwrap();
    let repeated = numbers.len() - 150_000;
    let file = file.to_str().unwrap();
    let first = Producer::run(&queue, &["enqueue", file, "--json"]).json();
    assert_eq!((first["enqueued"].as_u64(), first["duplicates"].as_u64()), (Some(150_000), Some(repeated as u64)));
    let batch = queue.hash(&format!("batch:{}", first["batch"].as_str().unwrap()));
    assert_eq!((batch["enqueued"].as_str(), batch["duplicates"].as_str()), ("150000", repeated.to_string().as_str()));
    let mut queued: Vec<usize> = queue
        .ready()
        .iter()
        .map(|job| job.split("example.com/").nth(1).unwrap().split('.').next().unwrap().parse().unwrap())
        .collect();
    assert!(queued[..30_000].iter().copied().eq(0..30_000), "the beginning keeps its order");
    queued.sort_unstable();
    assert!(queued.into_iter().eq(0..150_000), "each once");
    let second = Producer::run(&queue, &["enqueue", file, "--json"]).json();
    assert_eq!((second["enqueued"].as_u64(), second["duplicates"].as_u64()), (Some(0), Some(numbers.len() as u64)));
}

#[test]
fn no_more_jobs_are_ready_than_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let list = list_of(folder.path(), 5_000);
    let mut queue = RawQueue::shared();
    let mut child = Producer::command(&queue, &["enqueue", &list, "--max-ready", "700"]).spawn().unwrap();
    let mut taken = 0;
    until("all are enqueued", SOON, || {
        let ready = queue.ready_len();
        assert!(ready <= 700, "{ready} are ready");
        // Somebody takes some whenever there is no room for more.
        if ready > 525 {
            taken += queue.run::<Vec<String>>(&["LPOP", "@ready", "300"]).len();
        }
        child.try_wait().unwrap().map(|status| assert!(status.success()))
    });
    assert_eq!(taken + queue.ready_len(), 5_000);
    let refused = Producer::run(&queue, &["enqueue", &list, "--max-ready", "0"]);
    assert!(refused.code == 2 && refused.stderr.contains("--max-ready"), "{refused:?}");
}

#[test]
fn waiting_for_room_is_said_and_ctrl_c_ends_it_and_the_same_command_adds_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let list = list_of(folder.path(), 2_500);
    let mut queue = RawQueue::shared();
    let mut command = Producer::command(&queue, &["enqueue", &list, "--max-ready", "1000"]);
    let mut child = command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let mut said = String::new();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    while !said.contains("--max-ready is 1000") {
        said = lines.next().expect("it says what it waits for").unwrap();
    }
    assert_eq!(queue.ready_len(), 1_000, "four chunks of a quarter");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let rest = Producer::run(&queue, &["enqueue", &list, "--json"]).json();
    let before = 2_500 - rest["enqueued"].as_u64().unwrap();
    assert_eq!((queue.ready_len(), rest["duplicates"].as_u64()), (2_500, Some(before)));
}

#[test]
fn forgotten_links_can_be_enqueued_again_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let list = list_of(folder.path(), 1_500);
    let mut queue = RawQueue::shared();
    let enqueued = |queue: &RawQueue| Producer::run(queue, &["enqueue", &list, "--json"]).json()["enqueued"].as_u64();
    assert_eq!(enqueued(&queue), Some(1_500));
    let two = ["forget", "HTTPS://X.org/7.jpg", "https://x.org/8.jpg", "https://x.org/unknown.jpg", "--json"];
    assert_eq!(Producer::run(&queue, &two).json()["forgotten"], 2);
    assert_eq!((queue.ready_len(), enqueued(&queue)), (1_500, Some(2)));
    let by_list = Producer::run(&queue, &["forget", &list]);
    assert!(by_list.code == 0 && by_list.stdout.contains("1500 links forgotten"), "{by_list:?}");
    assert_eq!(enqueued(&queue), Some(1_500));
    for (arguments, said) in [(&["forget", "--all"][..], "--yes"), (&["forget"], "--all")] {
        let refused = Producer::run(&queue, arguments);
        assert!(refused.code == 2 && refused.stderr.contains(said), "{refused:?}");
    }
    assert_eq!(enqueued(&queue), Some(0));
    let all = Producer::run(&queue, &["forget", "--all", "--yes", "--json"]).json();
    assert_eq!((all["forgotten"].as_u64(), enqueued(&queue)), (Some(1_500), Some(1_500)));
    assert_eq!(queue.ready_len(), 4_502, "jobs stay");
}

#[test]
fn what_dedup_knows_costs_few_bytes_a_link_and_grows_without_forgetting() {
    const LINKS: usize = 400_000;
    let folder = tempfile::tempdir().unwrap();
    let list = list_of(folder.path(), LINKS);
    // A server of its own: what others store is not counted.
    let redis = harness::Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    let run = |queue: &RawQueue, arguments: &[&str]| {
        finish(Producer::command(queue, &[arguments, &["--json"]].concat()), b"", Duration::from_secs(120)).json()
    };
    // Two at once, with links that both have: each moves buckets that the other is about to use.
    let halves = [0..LINKS * 5 / 8, LINKS * 3 / 8..LINKS].map(|range| {
        let half = folder.path().join(format!("from-{}.txt", range.start));
        std::fs::write(&half, range.map(|n| format!("https://x.org/{n}.jpg\n")).collect::<String>()).unwrap();
        let half = half.to_str().unwrap().to_owned();
        let command = Producer::command(&queue, &["enqueue", &half, "--json"]);
        std::thread::spawn(move || finish(command, b"", Duration::from_secs(120)).json()["enqueued"].as_u64().unwrap())
    });
    let enqueued: u64 = halves.into_iter().map(|half| half.join().unwrap()).sum();
    assert_eq!((enqueued, queue.ready_len()), (LINKS as u64, LINKS));
    let pattern = queue.key("dedup:*").replace('{', "\\{").replace('}', "\\}");
    let keys: Vec<String> = queue.run(&["KEYS", &pattern]);
    let memory: usize = keys.iter().map(|key| queue.run::<usize>(&["MEMORY", "USAGE", key])).sum();
    println!("{} keys, {:.1} bytes a link", keys.len(), memory as f64 / LINKS as f64);
    assert!(memory <= 25 * LINKS, "{memory} bytes for {LINKS} links");
    assert!(keys.len() > 2048, "the buckets have doubled: {}", keys.len());
    // What was split is found where it is now.
    let again = run(&queue, &["enqueue", &list]);
    assert_eq!((again["enqueued"].as_u64(), again["duplicates"].as_u64()), (Some(0), Some(LINKS as u64)));
    let some = folder.path().join("some.txt");
    std::fs::write(&some, (0..LINKS).step_by(997).map(|n| format!("https://x.org/{n}.jpg\n")).collect::<String>())
        .unwrap();
    assert_eq!(run(&queue, &["forget", some.to_str().unwrap()])["forgotten"], LINKS.div_ceil(997));
    assert_eq!(run(&queue, &["enqueue", &list])["enqueued"], LINKS.div_ceil(997));
    assert_eq!(queue.hash("dedup:meta")["count"], LINKS.to_string());
}

#[test]
fn on_a_terminal_the_share_of_the_list_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let list = list_of(folder.path(), 150_000);
    let queue = RawQueue::shared();
    // `script` runs a command on a terminal of its own.
    let mut on_terminal = std::process::Command::new("script");
    let enqueue = format!("{} enqueue {list}", harness::programs::folder().join("producer").display());
    on_terminal
        .args(["-qec", &enqueue, "/dev/null"])
        .env("REDIS_URL", &queue.url)
        .env("IMGQ_QUEUE", &queue.name)
        .env("TERM", "xterm");
    let drawn = finish(on_terminal, b"", Duration::from_secs(120));
    assert!(drawn.code == 0 && drawn.stdout.contains("150000 links enqueued"), "{drawn:?}");
    assert!(drawn.stdout.contains("% of the list"), "{drawn:?}");
}
