//! One fault at a time: what the chaos suite mixes, alone, with a test that names it.

use harness::fault_proxy::{FaultProxy, Network, Upstream};
use harness::files::objects;
use harness::programs::{Finished, finish};
use harness::{Origin, Producer, RawQueue, Redis, Worker, until};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// A private Redis, a queue on it, and a network between it and the programs.
struct Behind {
    redis: Redis,
    queue: RawQueue,
    network: FaultProxy,
    origin: Origin,
    storage: tempfile::TempDir,
}

impl Behind {
    fn a_proxy() -> Behind {
        let redis = Redis::private(&[]);
        let queue = RawQueue::on(&redis);
        let network = FaultProxy::start(Upstream::Unix(redis.socket()));
        Behind { redis, queue, network, origin: Origin::start(), storage: tempfile::tempdir().unwrap() }
    }

    fn worker(&self, arguments: &[&str]) -> Worker {
        let mut command = Worker::command_at(&self.network.url(), &self.queue.name, self.storage.path());
        Worker::of(command.args(arguments).spawn().unwrap())
    }

    fn push(&mut self, jobs: u64) -> BTreeSet<String> {
        let urls: Vec<String> = (0..jobs).map(|n| self.origin.url(&format!("{n}/2000.gif"))).collect();
        for url in &urls {
            self.queue.push(url);
        }
        urls.into_iter().collect()
    }

    /// Every job is stored, once, in its first attempt, and nothing is left.
    fn all_stored_once(&mut self, urls: &BTreeSet<String>) {
        self.queue.until_results(urls.len(), SOON);
        until("nothing is left anywhere", SOON, || {
            (self.queue.in_flight_len() + self.queue.ready_len() == 0).then_some(())
        });
        let results = self.queue.results();
        let found: BTreeSet<String> = results.iter().map(|result| result["url"].clone()).collect();
        assert_eq!((results.len(), &found), (urls.len(), urls), "one result each");
        assert!(results.iter().all(|r| r["outcome"] == "stored" && r["attempts"] == "1"), "{results:?}");
        assert_eq!(objects(self.storage.path()).len(), urls.len());
    }

    fn stat(&mut self, name: &str) -> i64 {
        self.queue.hash("stats").get(name).map_or(0, |n| n.parse().unwrap())
    }
}

#[test]
fn replies_that_are_cut_after_the_script_ran_cost_nothing() {
    let mut behind = Behind::a_proxy();
    let _workers = [behind.worker(&["--concurrency", "4"]), behind.worker(&["--concurrency", "4"])];
    behind.queue.until_workers(2);
    let urls: BTreeSet<String> =
        (0..400).map(|n| behind.origin.url(&format!("after/{}/{n}/2000.gif", n % 50))).collect();
    for url in &urls {
        behind.queue.push(url);
    }
    for cut in 1..=16 {
        // Settlements, and claims with their jobs.
        if cut % 2 == 0 {
            behind.network.cut_replies(1)
        } else {
            behind.network.cut_long_replies(1)
        }
        until("a reply is cut", SOON, || (behind.network.replies_cut() >= cut).then_some(()));
    }
    assert!(behind.queue.ready_len() > 0, "there was something to do all the time");
    behind.all_stored_once(&urls);
}

#[test]
fn a_half_open_connection_is_found_out_and_its_jobs_go_on() {
    let mut behind = Behind::a_proxy();
    behind.origin.hold();
    let urls = behind.push(20);
    let _worker = behind.worker(&["--concurrency", "8"]);
    until("downloads are going on", SOON, || (behind.origin.requests_in_all() >= 8).then_some(()));
    // The peer is gone without a word; the connections of now will never answer again.
    behind.network.set(Network::HalfOpen);
    behind.origin.let_go();
    until("objects arrive meanwhile", SOON, || (objects(behind.storage.path()).len() >= 8).then_some(()));
    behind.network.set(Network::Good);
    behind.all_stored_once(&urls);
}

#[test]
fn commands_that_run_long_after_their_caller_gave_up_change_nothing() {
    let mut behind = Behind::a_proxy();
    behind.origin.hold();
    let urls = behind.push(30);
    let _stalled = behind.worker(&["--concurrency", "8"]);
    until("downloads are going on", SOON, || (behind.origin.requests_in_all() >= 8).then_some(()));
    let name = behind.queue.until_workers(1).remove(0);
    // Held back for longer than the lease: settlements, claims and heartbeats of a worker that others took for dead.
    behind.network.set(Network::Stalled);
    behind.origin.let_go();
    // Another way to the same queue.
    let other = Worker::start(&behind.queue, behind.storage.path(), &[]);
    behind.queue.until_results(30, SOON);
    behind.network.set(Network::Good);
    until("it is back under a fresh name", SOON, || {
        let workers = behind.queue.workers();
        (workers.len() == 2 && !workers.contains(&name)).then_some(())
    });
    behind.all_stored_once(&urls);
    drop(other);
}

#[test]
fn resets_latency_and_killed_clients_cost_no_attempt() {
    let mut behind = Behind::a_proxy();
    behind.network.set(Network::Slow(Duration::from_millis(30)));
    let _workers = [behind.worker(&["--concurrency", "4"]), behind.worker(&["--concurrency", "4"])];
    behind.queue.until_workers(2);
    let urls = behind.push(150);
    for n in 0..6 {
        let done = behind.queue.results_len();
        behind.network.reset();
        if n % 2 == 0 {
            // It may kill this connection too; then there is no answer, and the next one is a new connection.
            let _ = behind.queue.try_run::<i64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        }
        until("it goes on", SOON, || (behind.queue.results_len() > done || done == 150).then_some(()));
    }
    behind.all_stored_once(&urls);
}

#[test]
fn a_redis_that_is_away_for_longer_than_the_lease_makes_nobody_dead() {
    let mut behind = Behind::a_proxy();
    behind.origin.hold();
    let urls = behind.push(60);
    let _workers = [1, 2, 3, 4].map(|_| behind.worker(&["--concurrency", "8"]));
    let names: BTreeSet<String> = behind.queue.until_workers(4).into_iter().collect();
    until("downloads are going on", SOON, || (behind.origin.requests_in_all() >= 32).then_some(()));
    behind.redis.kill();
    let lease_and_more = std::time::Instant::now() + Duration::from_secs(8);
    until("the lease is over", SOON, || (std::time::Instant::now() > lease_and_more).then_some(()));
    // All leases are over. Whoever comes back first must not take the others for dead, who are a moment behind.
    behind.redis.start_again();
    behind.queue.reconnect(&behind.redis);
    let everybody = std::time::Instant::now() + Duration::from_secs(3);
    until("everybody is back", SOON, || (std::time::Instant::now() > everybody).then_some(()));
    behind.origin.let_go();
    behind.all_stored_once(&urls);
    assert_eq!(behind.stat("recovered"), 0, "a job was taken from a worker that lives");
    assert_eq!(behind.queue.workers().into_iter().collect::<BTreeSet<_>>(), names);
}

#[test]
fn a_redis_that_stands_still_for_longer_than_the_lease_makes_nobody_dead() {
    let mut behind = Behind::a_proxy();
    behind.origin.hold();
    let urls = behind.push(60);
    let _workers = [1, 2, 3].map(|_| behind.worker(&["--concurrency", "8"]));
    let names: BTreeSet<String> = behind.queue.until_workers(3).into_iter().collect();
    until("downloads are going on", SOON, || (behind.origin.requests_in_all() >= 24).then_some(()));
    behind.redis.signal(Signal::STOP);
    behind.origin.let_go();
    let lease_and_more = std::time::Instant::now() + Duration::from_secs(8);
    until("the lease is over twice", SOON, || (std::time::Instant::now() > lease_and_more).then_some(()));
    behind.redis.signal(Signal::CONT);
    behind.all_stored_once(&urls);
    assert_eq!(behind.stat("recovered"), 0, "a job was taken from a worker that lives");
    assert_eq!(behind.queue.workers().into_iter().collect::<BTreeSet<_>>(), names);
}

#[test]
fn at_maxmemory_the_jobs_of_a_killed_worker_are_recovered_and_settled() {
    let mut behind = Behind::a_proxy();
    behind.origin.hold();
    let urls = behind.push(8);
    let victim = behind.worker(&[]);
    until("downloads are going on", SOON, || (behind.origin.requests_in_all() >= 8).then_some(()));
    behind.queue.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    victim.kill();
    behind.origin.let_go();
    let _other = behind.worker(&[]);
    behind.all_stored_once(&urls);
    assert_eq!(behind.stat("recovered"), 8);
    // Idle on an empty queue Redis refuses even the wait; the worker must not storm it for that.
    let calls = |queue: &mut RawQueue| -> u64 {
        let info: String = queue.run(&["INFO", "stats"]);
        let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap();
        line.trim().parse().unwrap()
    };
    let before = calls(&mut behind.queue);
    let two_waits = std::time::Instant::now() + Duration::from_secs(5);
    until("a while", SOON, || (std::time::Instant::now() > two_waits).then_some(()));
    assert_eq!(calls(&mut behind.queue) - before, 0, "it connects again and again");
}

fn list_of(origin: &Origin, links: u64, folder: &tempfile::TempDir) -> String {
    let path = folder.path().join("list.txt");
    let links: Vec<String> = (0..links).map(|n| origin.url(&format!("{n}/100.gif"))).collect();
    std::fs::write(&path, links.join("\n")).unwrap();
    path.to_string_lossy().into_owned()
}

/// Starts an enqueue over a slow network, and waits until it is in the middle.
fn in_the_middle(behind: &mut Behind, arguments: &[&str]) -> Child {
    behind.network.set(Network::Slow(Duration::from_millis(100)));
    let child = Producer::command_at(&behind.network.url(), &behind.queue.name, arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("it is in the middle", SOON, || (behind.queue.ready_len() >= 2000).then_some(()));
    behind.network.set(Network::Good);
    child
}

/// All of `0..links`, each once, in one batch that is complete.
fn all_enqueued_once(behind: &mut Behind, links: usize) {
    let ready = behind.queue.ready();
    let url = |payload: &String| serde_json::from_str::<serde_json::Value>(payload).unwrap()["url"].to_string();
    let distinct: BTreeSet<String> = ready.iter().map(url).collect();
    assert_eq!((ready.len(), distinct.len()), (links, links), "each link once");
    let ids: BTreeSet<&str> = ready.iter().map(|payload| &payload[7..39]).collect();
    assert_eq!(ids.len(), links, "each job has an id of its own");
    let batches: Vec<String> = behind.queue.run(&["ZRANGE", "@batches", "0", "-1"]);
    assert_eq!(batches.len(), 1, "the second run went on with the batch of the first");
    let facts = behind.queue.hash(&format!("batch:{}", batches[0]));
    assert_eq!(facts["enqueued"], links.to_string());
    assert!(facts.contains_key("sealed"));
}

#[test]
fn an_enqueue_that_was_killed_half_way_is_completed_by_the_same_command() {
    for dedup in [true, false] {
        let mut behind = Behind::a_proxy();
        let folder = tempfile::tempdir().unwrap();
        let list = list_of(&behind.origin, 20_000, &folder);
        let mut arguments = vec!["enqueue", &list];
        if !dedup {
            arguments.push("--no-dedup");
        }
        let mut killed = in_the_middle(&mut behind, &arguments);
        killed.kill().unwrap();
        killed.wait().unwrap();
        let before = behind.queue.ready_len();
        assert!((1..20_000).contains(&before), "killed in the middle: {before}");
        arguments.push("--json");
        let command = Producer::command_at(&behind.network.url(), &behind.queue.name, &arguments);
        let second = finish(command, b"", SOON);
        assert_eq!(second.code, 0, "{second:?}");
        assert!(second.stderr.contains("going on with batch"), "{second:?}");
        let facts = second.json();
        assert_eq!(facts["enqueued"], 20_000 - before);
        assert_eq!(facts["duplicates"], before);
        all_enqueued_once(&mut behind, 20_000);
    }
}

#[test]
fn an_enqueue_that_was_killed_is_completed_after_any_number_of_others() {
    let mut behind = Behind::a_proxy();
    let folder = tempfile::tempdir().unwrap();
    let list = list_of(&behind.origin, 20_000, &folder);
    let mut killed = in_the_middle(&mut behind, &["enqueue", "--no-dedup", &list]);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let first: Vec<String> = behind.queue.run(&["ZRANGE", "@batches", "0", "-1"]);
    for n in 1..=500 {
        let id = format!("{n:012x}");
        let facts = ["started", "99999999999999", "sealed", "99999999999999", "finished", "99999999999999"];
        let key = format!("@batch:{id}");
        behind.queue.run::<i64>(&[&["HSET", key.as_str(), "source", "others"][..], &facts].concat());
        behind.queue.run::<i64>(&["ZADD", "@batches", "99999999999999", &id]);
    }
    let command = Producer::command_at(&behind.network.url(), &behind.queue.name, &["enqueue", "--no-dedup", &list]);
    let second = finish(command, b"", SOON);
    assert!(second.code == 0 && second.stderr.contains(&format!("going on with batch {}", first[0])), "{second:?}");
    assert_eq!(behind.queue.ready_len(), 20_000, "no link twice");
    assert_eq!(behind.queue.run::<i64>(&["ZCARD", "@batches:unsealed"]), 0, "it is complete");
}

#[test]
fn a_list_that_was_changed_is_another_enqueue_without_dedup() {
    let mut behind = Behind::a_proxy();
    let folder = tempfile::tempdir().unwrap();
    let list = list_of(&behind.origin, 20_000, &folder);
    let mut killed = in_the_middle(&mut behind, &["enqueue", "--no-dedup", &list]);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let before = behind.queue.ready_len();
    std::fs::write(&list, behind.origin.url("1/100.gif")).unwrap();
    let command = Producer::command_at(&behind.network.url(), &behind.queue.name, &["enqueue", "--no-dedup", &list]);
    let second = finish(command, b"", SOON);
    assert_eq!((second.code, behind.queue.ready_len()), (0, before + 1), "{second:?}");
}

#[test]
fn an_enqueue_that_was_frozen_for_a_while_goes_on() {
    let mut behind = Behind::a_proxy();
    let folder = tempfile::tempdir().unwrap();
    let list = list_of(&behind.origin, 20_000, &folder);
    let child = in_the_middle(&mut behind, &["enqueue", &list]);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    let longer_than_a_lease = std::time::Instant::now() + Duration::from_secs(7);
    until("a while", SOON, || (std::time::Instant::now() > longer_than_a_lease).then_some(()));
    rustix::process::kill_process(pid, Signal::CONT).unwrap();
    let ended = Finished::from(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 0, "{ended:?}");
    all_enqueued_once(&mut behind, 20_000);
}

#[test]
fn an_enqueue_whose_last_chunk_redis_lost_says_so() {
    // The list ends after the rollback, so that the seal is the first to meet it.
    let mut behind = Behind::a_proxy();
    let mut child = Producer::command_at(&behind.network.url(), &behind.queue.name, &["enqueue", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("a batch is open", SOON, || (behind.queue.run::<i64>(&["ZCARD", "@batches"]) == 1).then_some(()));
    let copy = behind.redis.snapshot();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, behind.origin.url("1/100.gif\n").as_bytes()).unwrap();
    until("its chunk is in", SOON, || (behind.queue.ready_len() == 1).then_some(()));
    behind.redis.kill();
    behind.redis.restore(&copy);
    behind.redis.start_again();
    behind.queue.reconnect(&behind.redis);
    drop(input);
    let ended = Finished::from(child.wait_with_output().unwrap());
    assert_eq!((ended.code, behind.queue.ready_len()), (1, 0), "{ended:?}");
    assert!(ended.stderr.contains("lost what it had confirmed") && ended.stderr.contains("hint:"), "{ended:?}");
}
