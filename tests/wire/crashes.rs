//! Workers that die, freeze, or are killed by a job.

use harness::files::{objects, sha256};
use harness::origin::gif;
use harness::{Origin, RawQueue, Worker, until};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// Results by job, and that there is one each.
fn one_result_each(queue: &mut RawQueue, jobs: usize) -> BTreeMap<String, String> {
    let results = queue.results();
    let by_url: BTreeMap<String, String> = results.iter().map(|r| (r["url"].clone(), r["outcome"].clone())).collect();
    assert_eq!((results.len(), by_url.len()), (jobs, jobs), "one result each");
    by_url
}

#[test]
fn jobs_of_a_killed_worker_are_done_by_an_idle_one_within_ten_seconds() {
    let origin = Origin::start();
    origin.hold();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let victim = Worker::start(&queue, storage.path(), &[]);
    let name = queue.until_workers(1).remove(0);
    for n in 0..12 {
        queue.push(&origin.url(&format!("{n}/100000.gif")));
    }
    until("all are being downloaded", SOON, || {
        (queue.in_flight(&name).len() == 12 && origin.requests_in_all() >= 12).then_some(())
    });
    let _idle = Worker::start(&queue, storage.path(), &[]);
    queue.until_workers(2);

    victim.kill();
    let killed = Instant::now();
    origin.let_go();
    // Whatever lies under a final name meanwhile is whole.
    let done = until("all are done by the other", Duration::from_secs(10), || {
        for hash in objects(storage.path()).into_values() {
            assert!((0..12).any(|n| sha256(&gif(n, 100_000)) == hash), "a file under a final name is not whole");
        }
        (queue.results_len() >= 12).then_some(killed.elapsed())
    });
    eprintln!("jobs of a killed worker were done after {done:?}");
    assert!(one_result_each(&mut queue, 12).values().all(|outcome| outcome == "stored"));
    assert_eq!(objects(storage.path()).len(), 12);
    assert_eq!(queue.workers().len(), 1, "the dead one is struck off");
    assert!(queue.in_flight(&name).is_empty() && queue.hash(&format!("worker:{name}")).is_empty());
}

#[test]
fn a_worker_that_was_frozen_longer_than_its_lease_writes_nothing_and_goes_on_under_a_new_name() {
    let origin = Origin::start();
    origin.hold();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let frozen = Worker::start(&queue, storage.path(), &[]);
    let name = queue.until_workers(1).remove(0);
    for n in 0..4 {
        queue.push(&origin.url(&format!("{n}/5000.gif")));
    }
    until("all are being downloaded", SOON, || (queue.in_flight(&name).len() == 4).then_some(()));
    let _other = Worker::start(&queue, storage.path(), &[]);
    queue.until_workers(2);
    frozen.signal(Signal::STOP);
    origin.let_go();
    queue.until_results(4, SOON);
    frozen.signal(Signal::CONT);
    until("it is back under a fresh name", SOON, || {
        let workers = queue.workers();
        (workers.len() == 2 && !workers.contains(&name)).then_some(())
    });
    assert!(one_result_each(&mut queue, 4).values().all(|outcome| outcome == "stored"));
    // It works again.
    queue.push(&origin.url("9/5000.gif"));
    queue.until_results(5, SOON);
}

#[test]
fn what_a_name_that_was_taken_for_dead_had_in_flight_is_not_its_successor_s() {
    let origin = Origin::start();
    origin.hold();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let name = queue.until_workers(1).remove(0);
    for n in 0..4 {
        queue.push(&origin.url(&format!("{n}/5000.gif")));
    }
    until("all are being downloaded", SOON, || (origin.requests_in_all() == 4).then_some(()));
    // As if somebody had recovered it, and done its jobs.
    queue.run::<i64>(&["DEL", &format!("@inflight:{name}"), &format!("@worker:{name}")]);
    queue.run::<i64>(&["ZREM", "@workers", &name]);
    let fresh = until("it is back under a fresh name", SOON, || queue.workers().into_iter().find(|now| *now != name));
    until("it says that it has nothing in flight", SOON, || {
        let hosts = queue.hash(&format!("worker:{fresh}")).remove("hosts").unwrap_or_default();
        let hosts: Option<Vec<serde_json::Value>> = serde_json::from_str(&hosts).ok();
        // Name, rate, in flight, share that failed.
        hosts.is_some_and(|hosts| hosts.iter().all(|host| host[2] == 0)).then_some(())
    });
}

#[test]
fn a_job_that_kills_its_worker_three_times_is_dead_and_its_neighbours_are_unharmed() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    // The test is the poison: it kills whichever worker has the job in flight.
    let poison = origin.url("endless");
    queue.push(&poison);
    for n in 0..3 {
        queue.push(&origin.url(&format!("{n}/300.gif")));
    }
    for crash in 1..=3 {
        let worker = Worker::start(&queue, storage.path(), &[]);
        until(&format!("the poison runs before crash {crash}, the last time alone"), SOON, || {
            let name = queue.workers().into_iter().find(|name| {
                let jobs = queue.in_flight(name);
                jobs.values().any(|job| job.contains("endless")) && (crash < 3 || jobs.len() == 1)
            })?;
            let runs_alone = queue.hash(&format!("worker:{name}")).contains_key("alone");
            (origin.requests("endless") >= crash && runs_alone == (crash == 3)).then_some(())
        });
        worker.kill();
    }
    let _last = Worker::start(&queue, storage.path(), &[]);
    let results = queue.until_results(4, Duration::from_secs(30));
    let failed: Vec<_> = results.iter().filter(|result| result["outcome"] == "failed").collect();
    assert_eq!((failed.len(), failed[0]["reason"].as_str()), (1, "worker_crashed"));
    assert_eq!(failed[0]["url"], poison);
    assert_eq!(results.iter().filter(|result| result["outcome"] == "stored").count(), 3);
    assert_eq!(origin.requests("endless"), 3, "not run a fourth time");
    until("no crash is remembered", SOON, || queue.hash("crashes").is_empty().then_some(()));
}
