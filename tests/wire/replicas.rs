//! A replica that Sentinel promotes: what it knew is done once, what it did not know yet is lost unless `--durable` waited
//! for it.

use harness::fault_proxy::Network;
use harness::files::{objects, sha256};
use harness::origin::gif;
use harness::programs::{Finished, finish};
use harness::{Origin, Producer, RawQueue, Replicated, Worker, until};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
const JOBS: usize = 300;

/// A queue on the master, for programs that come in by the address that leads to the master.
fn queue_of(servers: &Replicated) -> RawQueue {
    let mut queue = RawQueue::on(servers.master());
    queue.url = servers.url();
    queue
}

/// A view of the same queue on the replica.
fn on_replica(queue: &RawQueue, servers: &Replicated) -> RawQueue {
    let mut other = RawQueue::on(servers.replica());
    other.name.clone_from(&queue.name);
    other.url.clone_from(&queue.url);
    other
}

/// Kills the master, and waits until programs are led to the promoted replica.
fn fail_over(servers: &mut Replicated) {
    servers.kill_master();
    let killed = Instant::now();
    servers.until_promoted();
    eprintln!("the replica was promoted {:.1?} after the master was killed", killed.elapsed());
}

fn delayed_len(queue: &mut RawQueue) -> usize {
    queue.run(&["ZCARD", "@delayed"])
}

fn write_links(file: &Path, links: impl Iterator<Item = String>) {
    let lines: Vec<String> = links.collect();
    std::fs::write(file, lines.join("\n")).unwrap();
}

fn links(how_many: usize) -> impl Iterator<Item = String> {
    (0..how_many).map(|n| format!("https://example.com/{n}.jpg"))
}

/// Links in `ready`, each there once.
fn ready_links(queue: &mut RawQueue) -> BTreeSet<String> {
    let ready = queue.ready();
    let links: BTreeSet<String> = ready
        .iter()
        .map(|job| serde_json::from_str::<serde_json::Value>(job).unwrap()["url"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(links.len(), ready.len(), "each once");
    links
}

/// Whether the program said that everything is safe.
fn says_durable(finished: &Finished) -> bool {
    finished.stderr.lines().any(|line| line.starts_with("durable: "))
}

/// Two workers among 300 jobs: some done, some held in the middle of their download, some that wait for a retry. Then the
/// master is killed.
fn master_is_killed_at_work(was_behind: bool) {
    let mut servers = Replicated::start(&[]);
    let mut queue = queue_of(&servers);
    let mut replica = on_replica(&queue, &servers);
    let origin = Origin::start();
    let storage = tempfile::tempdir().unwrap();
    // Those that wait for a retry when the master is killed have come shortly before.
    let urls: Vec<String> = (0..JOBS)
        .map(|n| match n {
            // Not ten in a row: then the host would be taken to be down.
            50..110 if n % 3 == 0 => origin.url(&format!("flaky/1/{n}")),
            _ => origin.url(&format!("{n}/2000.gif")),
        })
        .collect();
    for url in &urls {
        queue.push(url);
    }
    servers.until_in_step();
    let arguments = ["--concurrency", "8", "--retry-delay", "5s"];
    let mut workers = [1, 2].map(|_| Worker::start(&queue, storage.path(), &arguments));
    queue.until_results(60, SOON);
    if was_behind {
        servers.set_link(Network::Stalled);
        // Jobs that the replica never hears of, and that are under way when it is promoted.
        for n in 0..4 {
            let unknown = origin.url(&format!("endless?{n}"));
            queue.run::<i64>(&["LPUSH", "@ready", &unknown]);
        }
        until("they are under way, and there are results that will be lost", SOON, || {
            (origin.requests("endless") == 4 && queue.results_len() > replica.results_len()).then_some(())
        });
    }
    origin.hold();
    until("all slots are held up", SOON, || {
        (queue.in_flight_len() >= 16 && origin.requests_in_all() >= queue.results_len() + 16).then_some(())
    });
    let results = queue.results_len();
    let known = replica.results_len();
    eprintln!("master: {results} results, {} delayed; replica: {known} results", delayed_len(&mut queue));
    assert!(!was_behind || known < results, "results will be lost, and their jobs done again");

    servers.kill_master();
    let killed = Instant::now();
    // Downloads end while there is no master; their results have to wait.
    origin.let_go();
    servers.until_promoted();
    eprintln!("promoted after {:.1?}", killed.elapsed());
    replica.reconnect(servers.replica());
    let results = replica.until_results(JOBS, SOON);
    eprintln!("all done after {:.1?}", killed.elapsed());
    until("nothing is left anywhere", SOON, || {
        (replica.in_flight_len() + replica.ready_len() + delayed_len(&mut replica) == 0).then_some(())
    });
    let found: BTreeSet<String> = results.iter().map(|result| result["url"].clone()).collect();
    assert_eq!(replica.results_len(), JOBS, "one result each");
    assert_eq!(found, urls.into_iter().collect(), "every job that the replica knew, and no other");
    assert!(results.iter().all(|result| result["outcome"] == "stored"), "{results:?}");
    let again = results.iter().filter(|result| result.get("reason").is_some_and(|why| why == "exists")).count();
    eprintln!("{again} jobs were done again and found their object");
    assert!(!was_behind || again > 0);

    let whole: BTreeSet<String> =
        (0..JOBS as u64).map(|n| sha256(&gif(n, 2000))).chain([sha256(&gif(1, 500))]).collect();
    let objects = objects(storage.path());
    assert_eq!(objects.len(), JOBS);
    assert!(objects.values().all(|hash| whole.contains(hash)), "all objects are whole");
    assert_eq!(replica.workers().len(), 2, "both are at work again");
    // What the replica never knew holds up nobody.
    for worker in &mut workers {
        worker.signal(Signal::TERM);
        let (status, _) = worker.until_end(Duration::from_secs(10));
        assert!(status.success(), "{status}");
    }
}

#[test]
fn a_replica_that_is_promoted_behind_sentinel_has_one_result_for_every_job() {
    master_is_killed_at_work(false);
}

#[test]
fn a_replica_that_is_promoted_behind_sentinel_while_it_was_behind_has_one_result_for_every_job_it_knew() {
    master_is_killed_at_work(true);
}

#[test]
fn without_durable_what_the_promoted_replica_did_not_have_is_lost_and_the_same_command_puts_it_back() {
    let mut servers = Replicated::start(&[]);
    let mut queue = queue_of(&servers);
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("links.txt");
    let arguments = ["enqueue", "--json", list.to_str().unwrap()];
    write_links(&list, links(100));
    assert_eq!(Producer::run(&queue, &arguments).json()["enqueued"], 100);
    servers.until_in_step();
    // The list grows, and the replica is cut off for a moment.
    servers.set_link(Network::Stalled);
    write_links(&list, links(JOBS));
    let confirmed = Producer::run(&queue, &arguments);
    assert_eq!((confirmed.code, confirmed.json()["enqueued"].as_u64()), (0, Some(200)), "{confirmed:?}");
    assert_eq!(ready_links(&mut queue), links(JOBS).collect());
    fail_over(&mut servers);
    queue.reconnect(servers.replica());
    // This is what is not promised.
    let left = ready_links(&mut queue);
    eprintln!("{} of {JOBS} jobs that were confirmed without --durable are lost", JOBS - left.len());
    assert_eq!(left, links(100).collect());
    // This is what is.
    let again = Producer::run(&queue, &arguments);
    let json = again.json();
    assert_eq!(
        (again.code, json["enqueued"].as_u64(), json["duplicates"].as_u64()),
        (0, Some(200), Some(100)),
        "exactly the lost ones: {again:?}"
    );
    assert_eq!(ready_links(&mut queue), links(JOBS).collect());
}

#[test]
fn with_durable_a_replica_in_step_confirms_and_has_all_jobs_when_it_is_promoted() {
    let mut servers = Replicated::start(&[]);
    let mut queue = queue_of(&servers);
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("links.txt");
    // Three chunks, over a link on which they take a while.
    write_links(&list, links(2500));
    servers.set_link(Network::Slow(Duration::from_millis(100)));
    let confirmed = Producer::run(&queue, &["enqueue", "--durable", "--json", list.to_str().unwrap()]);
    // At once: what was not waited for is lost.
    fail_over(&mut servers);
    assert_eq!((confirmed.code, confirmed.json()["enqueued"].as_u64()), (0, Some(2500)), "{confirmed:?}");
    assert!(says_durable(&confirmed) && confirmed.stderr.contains("on 1 replica"), "{confirmed:?}");
    queue.reconnect(servers.replica());
    assert_eq!(ready_links(&mut queue), links(2500).collect());
}

#[test]
fn with_durable_a_replica_without_append_only_file_confirms_too() {
    let servers = Replicated::start(&[]);
    let queue = queue_of(&servers);
    on_replica(&queue, &servers).run::<()>(&["CONFIG", "SET", "appendonly", "no"]);
    // Sooner than its patience ends: nobody waited in vain for that replica's disk.
    let enqueue = Producer::command(&queue, &["enqueue", "--durable", "https://example.com/1.jpg"]);
    let confirmed = finish(enqueue, b"", Duration::from_secs(20));
    assert_eq!(confirmed.code, 0, "{confirmed:?}");
    assert!(says_durable(&confirmed) && confirmed.stderr.contains("on 1 replica"), "{confirmed:?}");
}

#[test]
fn with_durable_a_replica_that_is_behind_confirms_nothing_until_it_has_caught_up() {
    let mut servers = Replicated::start(&[]);
    let mut queue = queue_of(&servers);
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("links.txt");
    write_links(&list, links(JOBS));
    let arguments = ["enqueue", "--durable", "--json", list.to_str().unwrap()];
    servers.set_link(Network::Stalled);
    let refused = Producer::run(&queue, &arguments);
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{refused:?}");
    assert!(
        refused.stderr.contains("the jobs are in the queue, but Redis at")
            && refused.stderr.contains("did not confirm within 30s that they are safe")
            && refused.stderr.contains("hint: look at the server's disk and its replicas"),
        "{refused:?}"
    );
    assert!(!says_durable(&refused), "{refused:?}");
    assert_eq!(ready_links(&mut queue), links(JOBS).collect(), "the jobs are in the queue");
    assert_eq!(on_replica(&queue, &servers).ready_len(), 0);
    // The hint helps.
    servers.set_link(Network::Good);
    let confirmed = Producer::run(&queue, &arguments);
    assert_eq!((confirmed.code, confirmed.json()["duplicates"].as_u64()), (0, Some(JOBS as u64)), "{confirmed:?}");
    assert!(confirmed.stderr.contains("on 1 replica"), "{confirmed:?}");
    fail_over(&mut servers);
    queue.reconnect(servers.replica());
    assert_eq!(ready_links(&mut queue), links(JOBS).collect());
}

#[test]
fn with_durable_an_enqueue_whose_master_is_killed_while_it_waits_confirms_nothing() {
    let mut servers = Replicated::start(&[]);
    let mut queue = queue_of(&servers);
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("links.txt");
    write_links(&list, links(JOBS));
    let arguments = ["enqueue", "--durable", "--json", list.to_str().unwrap()];
    servers.set_link(Network::Stalled);
    let mut waiting = Producer::command(&queue, &arguments);
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("it waits for the replica", SOON, || {
        let info: String = queue.run(&["INFO", "clients"]);
        (queue.ready_len() == JOBS && info.contains("blocked_clients:1")).then_some(())
    });
    fail_over(&mut servers);
    let refused = Finished::from(waiting.wait_with_output().unwrap());
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{refused:?}");
    assert!(refused.stderr.contains("Redis lost what it had confirmed"), "{refused:?}");
    assert!(refused.stderr.contains("hint: run the same command again"), "{refused:?}");
    assert!(!says_durable(&refused), "{refused:?}");
    queue.reconnect(servers.replica());
    assert_eq!(queue.ready_len(), 0, "they are lost, and nobody was told that they are not");
    // The old master comes back as the replica.
    servers.bring_the_old_master_back();
    let confirmed = finish(Producer::command(&queue, &arguments), b"", SOON);
    assert_eq!((confirmed.code, confirmed.json()["enqueued"].as_u64()), (0, Some(JOBS as u64)), "{confirmed:?}");
    assert!(confirmed.stderr.contains("on 1 replica"), "{confirmed:?}");
    assert_eq!(ready_links(&mut queue), links(JOBS).collect());
}
