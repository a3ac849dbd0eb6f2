//! Questions about a queue that holds much: only the wanted part is read and sent, and what is asked about many batches is asked at once.
//!
//! How much Redis read and sent, it tells itself: how often a command was called, also by scripts, and the bytes of its answers.

use harness::programs::{Finished, finish};
use harness::{Producer, RawQueue, Redis, until};
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const BATCH: &str = "0000000000aa";
const OTHER: &str = "0000000000bb";
/// Times of the batch, in ms; the stream begins and ends days away from them.
const STARTED_MS: u64 = 1_700_000_000_000;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// A server of one's own, whose figures are of nobody else.
fn alone() -> (Redis, RawQueue) {
    let redis = Redis::private(&["--appendonly", "no"]);
    let queue = RawQueue::on(&redis);
    (redis, queue)
}

fn show(queue: &RawQueue, arguments: &[&str]) -> Finished {
    Producer::run(queue, &[&["results", "--format", "urls"], arguments].concat())
}

/// The last part of each line: `https://x.org/NAME`.
fn names(shown: &Finished) -> Vec<&str> {
    assert_eq!(shown.code, 0, "{shown:?}");
    shown.stdout.lines().map(|line| line.rsplit('/').next().unwrap()).collect()
}

fn add(queue: &mut RawQueue, ms: u64, name: &str, fields: &[&str]) {
    let (at, url) = (format!("{ms}-*"), format!("https://x.org/{name}"));
    queue.run::<String>(&[&["XADD", "@results", &at, "id", name, "url", &url], fields].concat());
}

/// Entries in one go, by a script: their fields are those of `fields`, a day before and after the batch.
fn add_many(queue: &mut RawQueue, stream: &str, count: u64, from_ms: u64, fields: &[&str]) {
    let lua = "for n = 1, tonumber(ARGV[2]) do \
               redis.call('XADD', KEYS[1], string.format('%.0f-*', ARGV[1] + n), 'id', 'many' .. n, unpack(ARGV, 3)) end";
    let (key, count, from) = (format!("@{stream}"), count.to_string(), from_ms.to_string());
    queue.run::<()>(&[&["EVAL", lua, "1", &key, &from, &count], fields].concat());
}

fn add_batch(queue: &mut RawQueue, id: &str, facts: &[&str]) {
    let started = STARTED_MS.to_string();
    queue.run::<i64>(&[&["HSET", &format!("@batch:{id}"), "started", &started, "seen", &started], facts].concat());
    queue.run::<i64>(&["ZADD", "@batches", &started, id]);
}

const STORED: [&str; 4] = ["outcome", "stored", "batch", BATCH];
const OF_OTHERS: [&str; 6] = ["outcome", "stored", "batch", OTHER, "url", "https://x.org/other"];

/// A number that Redis tells of itself.
fn figure(queue: &mut RawQueue, section: &str, name: &str) -> u64 {
    let info: String = queue.run(&["INFO", section]);
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok()).unwrap()
}

/// How often a command was called, also by scripts, since the figures were reset.
fn calls(queue: &mut RawQueue, command: &str) -> u64 {
    let info: String = queue.run(&["INFO", "commandstats"]);
    let of =
        |line: &str| line.strip_prefix(&format!("cmdstat_{command}:calls="))?.split(',').next()?.parse::<u64>().ok();
    info.lines().find_map(of).unwrap_or(0)
}

fn reset(queue: &mut RawQueue) {
    queue.run::<()>(&["CONFIG", "RESETSTAT"]);
}

#[test]
fn results_of_a_batch_are_read_from_its_beginning_to_its_end() {
    let (_redis, mut queue) = alone();
    add_many(&mut queue, "results", 3000, STARTED_MS - DAY_MS, &OF_OTHERS);
    for (n, ms) in [10, 20, 30].into_iter().enumerate() {
        add(&mut queue, STARTED_MS + ms, &format!("mine{n}"), &STORED);
        add(&mut queue, STARTED_MS + ms, &format!("other{n}"), &["outcome", "stored", "batch", OTHER]);
    }
    add_many(&mut queue, "results", 3000, STARTED_MS + DAY_MS, &OF_OTHERS);
    let finished = (STARTED_MS + 30).to_string();
    add_batch(&mut queue, BATCH, &["enqueued", "3", "stored", "3", "sealed", &finished, "finished", &finished]);
    reset(&mut queue);
    let shown = show(&queue, &["--batch", BATCH]);
    assert_eq!((names(&shown), shown.stderr.as_str()), (vec!["mine0", "mine1", "mine2"], ""));
    let read = calls(&mut queue, "xrange");
    assert!(read <= 2, "50 entries with each of {read} reads");
    assert_eq!(names(&show(&queue, &["--batch", BATCH, "--latest", "--limit", "2"])), ["mine2", "mine1"]);

    // A dead job is retried: the batch is open again, and its results go on.
    add(&mut queue, STARTED_MS + 3 * DAY_MS, "retried", &STORED);
    queue.run::<i64>(&["HDEL", &format!("@batch:{BATCH}"), "finished"]);
    assert_eq!(names(&show(&queue, &["--batch", BATCH])), ["mine0", "mine1", "mine2", "retried"]);
}

#[test]
fn results_of_a_batch_whose_times_are_wrong_are_looked_for_everywhere() {
    let (_redis, mut queue) = alone();
    add(&mut queue, STARTED_MS - 2 * DAY_MS, "early", &STORED);
    add_many(&mut queue, "results", 600, STARTED_MS - DAY_MS, &OF_OTHERS);
    add(&mut queue, STARTED_MS + 10, "right", &STORED);
    add_many(&mut queue, "results", 600, STARTED_MS + DAY_MS, &OF_OTHERS);
    add(&mut queue, STARTED_MS + 2 * DAY_MS, "late", &STORED);
    let finished = (STARTED_MS + 30).to_string();
    add_batch(&mut queue, BATCH, &["enqueued", "3", "stored", "3", "sealed", &finished, "finished", &finished]);
    let shown = show(&queue, &["--batch", BATCH]);
    assert_eq!(names(&shown), ["right", "late", "early"]);
    assert!(shown.stderr.contains("note: 2 of the batch's results"), "{shown:?}");
    // Those that were removed, the oldest ones, are not looked for.
    queue.run::<i64>(&["XTRIM", "@results", "MINID", &(STARTED_MS + DAY_MS).to_string()]);
    reset(&mut queue);
    let shown = show(&queue, &["--batch", BATCH]);
    assert_eq!((shown.stdout.as_str(), shown.stderr.as_str()), ("", ""));
    let read = calls(&mut queue, "xrange");
    assert!(read <= 2, "{read} reads");
}

#[test]
fn a_batch_that_is_not_there_is_told_at_once() {
    let (_redis, mut queue) = alone();
    add_many(&mut queue, "results", 10, STARTED_MS, &OF_OTHERS);
    add(&mut queue, STARTED_MS + 100, "forgotten", &STORED);
    for further in [&[][..], &["--follow"], &["--reader", "export"], &["--latest"]] {
        reset(&mut queue);
        let told = show(&queue, &[&["--batch", BATCH], further].concat());
        assert_eq!((told.code, told.stdout.as_str()), (1, ""), "{told:?}");
        assert!(told.stderr.contains(BATCH) && told.stderr.contains("hint: `producer batches`"), "{told:?}");
        assert_eq!((calls(&mut queue, "xrange"), calls(&mut queue, "xrevrange")), (0, 0), "nothing was read");
    }
    assert!(queue.run::<Vec<redis::Value>>(&["XINFO", "GROUPS", "@results"]).is_empty(), "no reader was made");
    // One that was forgotten may still have results.
    let shown = show(&queue, &["--batch", BATCH, "--since", "2001-01-01T00:00:00Z"]);
    assert_eq!(names(&shown), ["forgotten"]);
    assert!(shown.stderr.contains("note: this queue does not know batch"), "{shown:?}");
}

#[test]
fn results_are_filtered_before_they_are_sent() {
    let (_redis, mut queue) = alone();
    let long = format!("https://x.org/{}", "a".repeat(400));
    let stored = ["outcome", "stored", "url", &long];
    for n in 0..4 {
        add_many(&mut queue, "results", 700, STARTED_MS + n * 10_000, &stored);
        let name = format!("gone{n}");
        add(&mut queue, STARTED_MS + n * 10_000 + 5000, &name, &["outcome", "rejected", "reason", "gone"]);
        add(&mut queue, STARTED_MS + n * 10_000 + 5001, "slow", &["outcome", "failed", "reason", "timeout_total"]);
    }
    let sent = |queue: &mut RawQueue, arguments: &[&str], expected: &[&str]| {
        let before = figure(queue, "stats", "total_net_output_bytes");
        assert_eq!(names(&show(queue, arguments)), expected);
        figure(queue, "stats", "total_net_output_bytes") - before
    };
    let gone = ["gone0", "gone1", "gone2", "gone3"];
    let all = sent(&mut queue, &["--since", "2001-01-01T00:00:00Z", "--limit", "1"], &["a".repeat(400).as_str()]);
    for arguments in [&["--reason", "gone"][..], &["--outcome", "rejected"]] {
        let bytes = sent(&mut queue, arguments, &gone);
        // The stream has 1.2 MB; what every command asks first is 10 KB or so.
        assert!(bytes < all + 10_000, "{bytes} bytes were sent, and {all} for one result");
    }
    assert_eq!(names(&show(&queue, &["--reason", "gone", "--latest"])), ["gone3", "gone2", "gone1", "gone0"]);
    assert!(names(&show(&queue, &["--reason", "gone", "--outcome", "failed"])).is_empty());
}

#[test]
fn the_newest_ones_and_only_so_many_in_every_form() {
    let (_redis, mut queue) = alone();
    for n in 0..2500_u64 {
        let outcome = if n % 2 == 0 { "stored" } else { "rejected" };
        add(&mut queue, STARTED_MS + n, &n.to_string(), &["outcome", outcome]);
    }
    assert_eq!(names(&show(&queue, &["--latest", "--limit", "3"])), ["2499", "2498", "2497"]);
    assert_eq!(names(&show(&queue, &["--limit", "3"])), ["0", "1", "2"]);
    assert_eq!(names(&show(&queue, &["--latest", "--limit", "2", "--outcome", "stored"])), ["2498", "2496"]);
    assert_eq!(names(&show(&queue, &["--outcome", "stored", "--limit", "1200"])).len(), 1200);
    let shown = show(&queue, &["--latest"]);
    let all: Vec<String> = (0..2500).rev().map(|n: u64| n.to_string()).collect();
    assert_eq!(names(&shown), all);
    // So many are read, and no more.
    reset(&mut queue);
    let before = figure(&mut queue, "stats", "total_net_output_bytes");
    show(&queue, &["--limit", "2"]);
    let bytes = figure(&mut queue, "stats", "total_net_output_bytes") - before;
    assert!(bytes < 40_000 && calls(&mut queue, "xrange") == 1, "{bytes} bytes of 200,000");

    let form = |form: &str| Producer::run(&queue, &["results", "--latest", "--limit", "2", "--format", form]).stdout;
    assert_eq!(form("jsonl").lines().filter(|line| line.contains("\"id\":\"249")).count(), 2);
    assert_eq!(form("csv").lines().count(), 3, "and a head");
    assert_eq!(form("table").lines().count(), 3, "and a head");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("newest.parquet");
    let arguments = ["results", "--latest", "--limit", "2", "--format", "parquet", "--output", file.to_str().unwrap()];
    assert_eq!(Producer::run(&queue, &arguments).code, 0);
    let rows = SerializedFileReader::new(std::fs::File::open(&file).unwrap()).unwrap();
    assert_eq!(rows.metadata().file_metadata().num_rows(), 2);

    // With --follow it ends as well; with what makes no sense it says so.
    let followed = finish(Producer::command(&queue, &["results", "--follow", "--limit", "2"]), b"", SOON);
    assert_eq!((followed.code, followed.stdout.lines().count()), (0, 3));
    for refused in [
        &["--latest", "--follow"][..],
        &["--latest", "--reader", "export"],
        &["--limit", "2", "--reader", "export"],
        &["--limit", "0"],
    ] {
        let told = show(&queue, refused);
        assert!(told.code == 2 && told.stderr.contains(refused[0]), "{refused:?}: {told:?}");
    }
}

/// A dead letter of a batch.
fn bury(queue: &mut RawQueue, batch: &str, n: u64, reason: &str) -> String {
    let id = format!("{batch}80008{n:015x}");
    let url = format!("https://h{}.example/{n}.jpg", n % 3);
    let job = format!(r#"{{"id":"{id}","url":"{url}","attempts":4}}"#);
    let fields = ["id", &id, "url", &url, "outcome", "failed", "reason", reason, "attempts", "5", "batch", batch];
    queue.run::<String>(&[&["XADD", "@dead", &format!("{}-*", STARTED_MS + n)], &fields[..], &["job", &job]].concat());
    id
}

#[test]
fn a_dead_job_is_found_among_many_without_the_others_being_sent() {
    let (_redis, mut queue) = alone();
    let long = format!("https://x.org/{}", "a".repeat(400));
    add_many(&mut queue, "dead", 1500, STARTED_MS - DAY_MS, &["url", &long, "reason", "dns", "job", "{}"]);
    let id = bury(&mut queue, BATCH, 7, "connect");
    add_many(&mut queue, "dead", 1500, STARTED_MS + DAY_MS, &["url", &long, "reason", "dns", "job", "{}"]);
    for filter in [
        &["--id", id.as_str()][..],
        &["--reason", "connect"],
        &["--since", "2023-11-14T22:00:00Z", "--before", "2023-11-14T23:00:00Z"],
    ] {
        let before = figure(&mut queue, "stats", "total_net_output_bytes");
        let listed = Producer::run(&queue, &[&["dead", "list"], filter].concat());
        assert!(listed.stdout.contains(&id) && listed.stdout.contains("1 job dead"), "{filter:?}: {listed:?}");
        let bytes = figure(&mut queue, "stats", "total_net_output_bytes") - before;
        assert!(bytes < 40_000, "{bytes} bytes of 1.3 MB were sent for {filter:?}");
    }
    // Its batch says when it was; where that is wrong all are looked through.
    let times = |queue: &mut RawQueue, at_ms: u64| {
        add_batch(queue, BATCH, &["finished", &(at_ms + 10).to_string()]);
        queue.run::<i64>(&["HSET", &format!("@batch:{BATCH}"), "started", &at_ms.to_string()]);
        reset(queue);
        let listed = Producer::run(queue, &["dead", "list", "--id", &id]);
        assert!(listed.stdout.contains("1 job dead"), "{listed:?}");
        calls(queue, "xrange")
    };
    let (right, wrong) = (times(&mut queue, STARTED_MS), times(&mut queue, STARTED_MS + 3 * DAY_MS));
    assert!(right <= 2 && wrong > 60, "{right} and {wrong} reads of 50");
    let retried = Producer::run(&queue, &["dead", "retry", "--id", &id]);
    assert!(retried.stdout.contains("1 job back on the queue"), "{retried:?}");
    assert_eq!((queue.run::<u64>(&["XLEN", "@dead"]), queue.ready_len()), (3000, 1));
}

#[test]
fn many_dead_jobs_go_back_and_each_counts_where_it_belongs() {
    let (_redis, mut queue) = alone();
    let mut of_h0 = [0, 0];
    for n in 0..1300 {
        let (batch, reason) = match n % 13 {
            0 => ("000000000000", "tls"),
            of if of % 3 == 0 => (OTHER, "dns"),
            _ => (BATCH, "dns"),
        };
        bury(&mut queue, batch, n, reason);
        if reason == "dns" && n % 3 == 0 {
            of_h0[usize::from(batch == OTHER)] += 1;
        }
    }
    for (batch, failed, of_host) in [(BATCH, "800", of_h0[0]), (OTHER, "400", of_h0[1])] {
        let facts = ["enqueued", "900", "failed", failed, "failed:dns", failed, "sealed", "1", "finished", "2"];
        add_batch(&mut queue, batch, &[&facts[..], &["host:h0.example", &of_host.to_string()]].concat());
    }
    queue.run::<i64>(&["HSET", "@stats", "failed", "1300", "failed:dns", "1200", "failed:tls", "100"]);
    reset(&mut queue);
    let retried = Producer::run(&queue, &["dead", "retry", "--reason", "dns", "--json"]).json();
    assert_eq!((retried["found"].as_u64(), retried["moved"].as_u64()), (Some(1200), Some(1200)));
    assert_eq!((queue.ready_len(), queue.run::<u64>(&["XLEN", "@dead"])), (1200, 100));
    assert!(
        queue.ready()[0].starts_with(r#"{"id":"0000000000aa80008000000000000001","url":"https://h1.example/1.jpg"}"#)
    );
    let (one, other, stats) =
        (queue.hash(&format!("batch:{BATCH}")), queue.hash(&format!("batch:{OTHER}")), queue.hash("stats"));
    for facts in [&one, &other] {
        let counters = ["failed", "failed:dns", "host:h0.example"].map(|name| facts[name].as_str());
        assert_eq!(counters, ["0", "0", "0"]);
        // Of hosts not all are counted.
        assert!(!facts.contains_key("finished") && !facts.contains_key("host:h1.example"), "{facts:?}");
    }
    assert_eq!(
        (stats["failed"].as_str(), stats["failed:dns"].as_str(), stats["failed:tls"].as_str()),
        ("100", "0", "100")
    );
    assert_eq!(queue.hash("dedup:meta")["count"], "1200");
    // Counted for all of a call at once, not job by job.
    let counted = calls(&mut queue, "hincrby");
    assert!(counted < 100, "{counted} counters for 1200 jobs");
}

#[test]
fn batches_come_page_by_page_each_once_and_newest_first() {
    let (_redis, mut queue) = alone();
    for n in 1..=620_u64 {
        let (id, at) = (format!("{n:012x}"), (STARTED_MS + n).to_string());
        queue.run::<i64>(&["HSET", &format!("@batch:{id}"), "started", &at, "source", "links.txt", "enqueued", "1"]);
        queue.run::<i64>(&["ZADD", "@batches", &at, &id]);
    }
    let newest: Vec<String> = (1..=620_u64).rev().map(|n| format!("{n:012x}")).collect();
    for (limit, expected) in [("20", 20), ("600", 600), ("100000", 620)] {
        let listed = Producer::run(&queue, &["batches", "--limit", limit]);
        let ids: Vec<&str> = listed.stdout.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(ids, newest[..expected], "{limit}");
        let json = Producer::run(&queue, &["batches", "--limit", limit, "--json"]).json();
        let ids: Vec<&str> = json.as_array().unwrap().iter().map(|batch| batch["batch"].as_str().unwrap()).collect();
        assert_eq!(ids, newest[..expected], "{limit}");
    }
    // A page is one request for all of its batches, and no request is for all that there are.
    reset(&mut queue);
    let before = figure(&mut queue, "stats", "total_reads_processed");
    Producer::run(&queue, &["batches", "--limit", "620"]);
    let requests = figure(&mut queue, "stats", "total_reads_processed") - before;
    assert!(requests < 60, "{requests} requests for 620 batches");
    assert!(calls(&mut queue, "zrange") >= 3, "all were listed in one answer");
    assert_eq!(Producer::run(&RawQueue::shared(), &["batches", "--json"]).json(), serde_json::json!([]));
}

/// A `wait` beside the test.
fn waiting(queue: &RawQueue, arguments: &[&str]) -> std::process::Child {
    let mut command: Command = Producer::command(queue, &[&["wait"], arguments].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_wait_for_many_batches_asks_for_them_together_and_for_those_that_are_done_once() {
    let (_redis, mut queue) = alone();
    let ids: Vec<String> = (1001..=1400_u64).map(|n| format!("{n:012x}")).collect();
    for id in &ids {
        add_batch(&mut queue, id, &["enqueued", "1", "stored", "1", "sealed", "1", "finished", "1"]);
    }
    add_batch(&mut queue, BATCH, &["enqueued", "1", "sealed", "1"]);
    let all: Vec<&str> = ids.iter().map(String::as_str).chain([BATCH]).collect();
    reset(&mut queue);
    let mut child = waiting(&queue, &all);
    // It looks again and again at the one that is not done.
    let times = until("it looks a few times", SOON, || Some(calls(&mut queue, "hgetall")).filter(|times| *times > 410));
    assert!(times < 500, "{times} looks at 401 batches of which one is not done");
    // Less those of this test.
    let requests = figure(&mut queue, "stats", "total_reads_processed") - calls(&mut queue, "info");
    assert!(requests < 100, "{requests} requests");
    queue.run::<i64>(&["HSET", &format!("@batch:{BATCH}"), "stored", "1", "finished", "1"]);
    let status = until("it ends", SOON, || child.try_wait().unwrap());
    assert!(status.success());
    assert!(calls(&mut queue, "hgetall") > 801, "all were looked at once more in the end");
}

#[test]
fn a_wait_goes_on_for_a_batch_that_was_opened_again() {
    let (_redis, mut queue) = alone();
    add_batch(&mut queue, BATCH, &["enqueued", "1", "failed", "1", "sealed", "1", "finished", "1"]);
    add_batch(&mut queue, OTHER, &["enqueued", "1", "sealed", "1"]);
    reset(&mut queue);
    let mut child = waiting(&queue, &[BATCH, OTHER]);
    let look = |queue: &mut RawQueue, beyond: u64| {
        let now = calls(queue, "hgetall");
        until("it looks", SOON, || (calls(queue, "hgetall") > now + beyond).then_some(()));
    };
    until("it has looked at both", SOON, || (calls(&mut queue, "hgetall") >= 2).then_some(()));
    // What `dead retry` does to a batch; then the other one ends.
    queue.run::<i64>(&["HSET", &format!("@batch:{BATCH}"), "failed", "0"]);
    queue.run::<i64>(&["HDEL", &format!("@batch:{BATCH}"), "finished"]);
    queue.run::<i64>(&["HSET", &format!("@batch:{OTHER}"), "stored", "1", "finished", "1"]);
    look(&mut queue, 6);
    assert_eq!(child.try_wait().unwrap(), None, "it waits for the one that was opened again");
    queue.run::<i64>(&["HSET", &format!("@batch:{BATCH}"), "stored", "1", "finished", "2"]);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("2 jobs: 2 stored"), "{output:?}");
}
