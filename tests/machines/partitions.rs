//! Hosts that are cut off from Redis, from the origin, or from both, and come back.

use crate::hosts::{Host, Net, Networks};
use harness::files::{objects, sha256};
use harness::origin::gif;
use harness::queue::Entry;
use harness::{Origin, RawQueue, Redis, Worker, until};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(30);
/// For what waits behind retries and behind what a network does by itself after a cut.
const LATER: Duration = Duration::from_secs(240);
const BYTES: usize = 100_000;

/// Redis and an origin on the outer side of two networks, and a storage that all hosts share.
struct Scene {
    networks: Networks,
    _redis: Redis,
    queue: RawQueue,
    origin: Origin,
    storage: TempDir,
    pushed: u64,
}

impl Scene {
    fn new() -> Scene {
        let networks = Networks::new();
        let address = networks.address(Net::Redis);
        // The later port overrides the harness's, which is none.
        let redis = Redis::private(&["--port", "6380", "--bind", &address, "--protected-mode", "no"]);
        let mut queue = RawQueue::on(&redis);
        // The test has the socket; hosts have the network.
        queue.url = format!("redis://{address}:6380/0");
        let origin = Origin::start_on(&format!("{}:0", networks.address(Net::Origin)));
        let storage = tempfile::tempdir().unwrap();
        Scene { networks, _redis: redis, queue, origin, storage, pushed: 0 }
    }

    fn push(&mut self, jobs: u64) {
        for n in self.pushed..self.pushed + jobs {
            self.queue.push(&self.origin.url(&format!("{n}/{BYTES}.gif")));
        }
        self.pushed += jobs;
    }

    fn start_worker(&self, host: &Host, arguments: &[&str]) -> Worker {
        host.start_worker(&self.queue, self.storage.path(), arguments)
    }

    /// Waits until `worker` is in the middle of `jobs` held downloads.
    fn until_downloading(&mut self, worker: &str, jobs: usize, requests_in_all: usize) {
        until(&format!("{worker} is downloading {jobs}"), SOON, || {
            let requests = self.origin.requests_in_all();
            (self.queue.in_flight(worker).len() == jobs && requests >= requests_in_all).then_some(())
        });
    }

    /// Milliseconds that are left of a worker's lease, by the clock of Redis; below zero when it is over.
    fn lease_left(&mut self, worker: &str) -> i64 {
        let (seconds, microseconds): (i64, i64) = self.queue.run(&["TIME"]);
        let expiry: i64 = self.queue.run(&["ZSCORE", "@workers", worker]);
        expiry - seconds * 1000 - microseconds / 1000
    }

    /// Connections of a host that Redis takes for open, by their ids.
    fn connections(&mut self, host: &Host) -> BTreeSet<String> {
        let from_host = format!(" addr={}:", host.address(Net::Redis));
        let clients: String = self.queue.run(&["CLIENT", "LIST"]);
        let ids = clients.lines().filter(|line| line.contains(&from_host)).filter_map(|line| line.split(' ').next());
        ids.map(str::to_owned).collect()
    }

    /// Waits until connections from before a cut have come to their end: what was sent on them, and given up by its
    /// sender, has arrived and run.
    fn until_ended(&mut self, host: &Host, old: &BTreeSet<String>) {
        until("what was sent before the cut is through", LATER, || {
            self.connections(host).is_disjoint(old).then_some(())
        });
    }

    /// Every job has one result, which is `stored`, and every object is whole.
    fn each_stored_once_and_whole(&mut self) -> Vec<Entry> {
        let results = self.queue.results();
        let urls: BTreeSet<&String> = results.iter().map(|result| &result["url"]).collect();
        let jobs = self.pushed as usize;
        assert_eq!((results.len(), urls.len()), (jobs, jobs), "one result each: {results:?}");
        assert!(results.iter().all(|result| result["outcome"] == "stored"), "{results:?}");
        let whole: BTreeSet<String> = (0..self.pushed).map(|n| sha256(&gif(n, BYTES))).collect();
        let there: Vec<String> = objects(self.storage.path()).into_values().collect();
        assert_eq!((there.len(), there.into_iter().collect()), (jobs, whole), "every object, whole");
        assert_eq!(self.queue.in_flight_len() + self.queue.ready_len(), 0, "nothing is left");
        results
    }
}

fn attempts(result: &Entry) -> u32 {
    result["attempts"].parse().unwrap()
}

#[test]
fn a_host_cut_off_from_redis_but_not_from_the_origin_loses_its_jobs_within_ten_seconds_and_its_late_results() {
    let mut scene = Scene::new();
    let (host_a, host_b) = (scene.networks.host(), scene.networks.host());
    scene.origin.hold();
    // Pushed before the worker is there: a wait for jobs would keep a connection open beyond the cut.
    scene.push(6);
    let _worker_a = scene.start_worker(&host_a, &["--concurrency", "6"]);
    let a = scene.queue.until_workers(1).remove(0);
    scene.until_downloading(&a, 6, 6);
    scene.push(4);
    let _worker_b = scene.start_worker(&host_b, &["--concurrency", "6"]);
    let b = scene.queue.until_workers(2).into_iter().find(|name| *name != a).unwrap();
    scene.until_downloading(&b, 4, 10);

    let before = scene.connections(&host_a);
    assert!(!before.is_empty(), "it talks to Redis over the network");
    host_a.cut(Net::Redis);
    let cut = Instant::now();
    scene.origin.let_go();
    until("it stores its objects, and cannot say so", SOON, || {
        (objects(scene.storage.path()).len() == 10).then_some(())
    });
    let stored = cut.elapsed();
    scene.queue.until_results(10, Duration::from_secs(10).saturating_sub(cut.elapsed()));
    eprintln!("a host cut off from Redis had stored after {stored:?}; its jobs were done after {:?}", cut.elapsed());
    assert_eq!(scene.queue.workers(), [b.as_str()], "it was taken for dead");
    let results = scene.each_stored_once_and_whole();
    assert!(results.iter().all(|result| result["worker"] == b && attempts(result) == 1), "{results:?}");

    host_a.heal(Net::Redis);
    let healed = Instant::now();
    let fresh = until("it is back under a fresh name", SOON, || {
        scene.queue.workers().into_iter().find(|name| *name != b && *name != a)
    });
    eprintln!("it was back {:?} after the healing", healed.elapsed());
    scene.until_ended(&host_a, &before);
    eprintln!("its late results had arrived {:?} after the healing", healed.elapsed());
    assert_eq!(scene.each_stored_once_and_whole(), results, "they changed nothing");

    scene.origin.hold();
    scene.push(12);
    scene.until_downloading(&fresh, 6, 22);
    scene.origin.let_go();
    scene.queue.until_results(22, SOON);
    let results = scene.each_stored_once_and_whole();
    assert_eq!(results.iter().filter(|result| result["worker"] == fresh).count(), 6);
    assert!(results.iter().all(|result| attempts(result) == 1), "{results:?}");
}

#[test]
fn a_host_cut_off_from_the_origin_but_not_from_redis_keeps_its_name_and_leaves_its_jobs_to_others() {
    let mut scene = Scene::new();
    let (host_a, host_b) = (scene.networks.host(), scene.networks.host());
    let patience =
        ["--connect-timeout", "1s", "--idle-timeout", "2s", "--retry-delay", "50ms", "--max-attempts", "100"];
    scene.origin.hold();
    scene.push(8);
    let _worker_a = scene.start_worker(&host_a, &[&patience[..], &["--concurrency", "8"]].concat());
    let a = scene.queue.until_workers(1).remove(0);
    scene.until_downloading(&a, 8, 8);

    host_a.cut(Net::Origin);
    let cut = Instant::now();
    let cut_lease_left = scene.lease_left(&a);
    scene.origin.let_go();
    until("every job has failed an attempt", SOON, || {
        let retried = scene.queue.hash("stats").remove("retried").unwrap_or_default();
        (retried.parse::<u32>().unwrap_or(0) >= 8).then_some(())
    });
    // A host that cannot do a job takes it as readily as one that can, and knows best when its own retries are due: four
    // against one see the end sooner.
    let patience_b = [&patience[..], &["--concurrency", "2"]].concat();
    let _workers_b = [1, 2, 3, 4].map(|_| scene.start_worker(&host_b, &patience_b));
    scene.queue.until_results(8, LATER);
    eprintln!("jobs of a host cut off from the origin were done after {:?}", cut.elapsed());
    // Longer than a whole lease.
    until("it is heard of all the time", SOON, || {
        let since_cut = cut.elapsed().as_millis() as i64;
        let left = scene.lease_left(&a);
        assert!(left > 0, "its lease is over");
        (since_cut > cut_lease_left + 1000).then_some(())
    });
    let results = scene.each_stored_once_and_whole();
    assert!(results.iter().all(|result| result["worker"] != a && attempts(result) >= 2), "{results:?}");
    eprintln!("most attempts at one job: {:?}", results.iter().map(attempts).max());
    assert!(scene.queue.workers().contains(&a), "it keeps its name");

    host_a.heal(Net::Origin);
    scene.origin.hold();
    scene.push(16);
    // What the others have no slots for.
    until("it has work again", SOON, || (scene.queue.in_flight(&a).len() == 8).then_some(()));
    scene.origin.let_go();
    scene.queue.until_results(24, LATER);
    let results = scene.each_stored_once_and_whole();
    assert!(results.iter().any(|result| result["worker"] == a), "it stores again: {results:?}");
    assert!(scene.queue.workers().contains(&a), "it keeps its name");
}

#[test]
fn a_lonely_host_cut_off_from_redis_and_the_origin_does_everything_once_it_is_back() {
    let mut scene = Scene::new();
    let host = scene.networks.host();
    scene.origin.hold();
    scene.push(20);
    let _worker = scene.start_worker(&host, &["--concurrency", "8", "--connect-timeout", "1s", "--idle-timeout", "1s"]);
    let name = scene.queue.until_workers(1).remove(0);
    scene.until_downloading(&name, 8, 8);

    let before = scene.connections(&host);
    host.cut(Net::Redis);
    host.cut(Net::Origin);
    scene.origin.let_go();
    // And all that it asked has been given up: a command that is answered after all would keep its connection.
    until("its lease is long over", SOON, || (scene.lease_left(&name) < -3000).then_some(()));
    assert_eq!((scene.queue.results_len(), scene.queue.in_flight(&name).len()), (0, 8), "nothing came through");
    host.heal(Net::Redis);
    host.heal(Net::Origin);
    let healed = Instant::now();
    scene.queue.until_results(20, LATER);
    eprintln!("a lonely host had done everything {:?} after the healing", healed.elapsed());
    scene.until_ended(&host, &before);
    let results = scene.each_stored_once_and_whole();
    let again = results.iter().filter(|result| attempts(result) >= 2).count();
    assert!(again >= 8, "those that the cut broke off were tried again: {results:?}");
    assert_eq!(scene.queue.workers(), [name.as_str()], "nobody was there to take it for dead");
}
