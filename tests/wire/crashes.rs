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

/// A job as imgq writes it, by its number.
fn job(origin: &Origin, n: usize) -> (String, String) {
    let id = format!("00000000000080008000{n:012x}");
    (id.clone(), format!(r#"{{"id":"{id}","url":"{}"}}"#, origin.url(&format!("{n}/400.gif"))))
}

/// A worker that died: its lease was over at that time, it had been there for long, and it had these jobs in flight.
struct Dead<'a> {
    name: &'a str,
    lease_end: u64,
    jobs: &'a [String],
}

fn dead<'a>(name: &'a str, lease_end: u64, jobs: &'a [String]) -> Dead<'a> {
    Dead { name, lease_end, jobs }
}

/// All at once: a worker that looks in between would see the first of them die alone.
fn dead_workers(queue: &mut RawQueue, dead: &[Dead<'_>]) {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut commands = Vec::new();
    for Dead { name, lease_end, jobs } in dead {
        for (at, job) in jobs.iter().enumerate() {
            commands.push(words(&["HSET", &format!("@inflight:{name}"), &format!("1.{}", at + 1), job]));
        }
        commands.push(words(&["HSET", &format!("@worker:{name}"), "started", "1"]));
        commands.push(words(&["ZADD", "@workers:since", "1", name]));
        commands.push(words(&["ZADD", "@workers", &lease_end.to_string(), name]));
    }
    queue.run_together(&commands);
}

fn until_recovered(queue: &mut RawQueue, living: usize) {
    until("the dead are struck off", SOON, || (queue.workers().len() == living).then_some(()));
}

fn redis_ms(queue: &mut RawQueue) -> u64 {
    let (seconds, micros): (u64, u64) = queue.run(&["TIME"]);
    seconds * 1000 + micros / 1000
}

#[test]
fn a_fleet_that_dies_as_a_whole_three_times_harms_no_job() {
    let origin = Origin::start();
    origin.hold();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    for n in 0..9 {
        queue.push(&origin.url(&format!("{n}/500.gif")));
    }
    let slots = ["--concurrency", "3"];
    for death in 1..=3 {
        let fleet: Vec<Worker> = (0..3).map(|_| Worker::start(&queue, storage.path(), &slots)).collect();
        until(&format!("all jobs are in flight before death {death}"), SOON, || {
            let names = queue.workers();
            let held: usize = names.iter().map(|name| queue.in_flight(name).len()).sum();
            let all_have_some = names.iter().filter(|name| !queue.in_flight(name).is_empty()).count() == 3;
            (names.len() == 3 && held == 9 && all_have_some && origin.requests_in_all() >= 9 * death).then_some(())
        });
        fleet.into_iter().for_each(Worker::kill);
    }
    origin.let_go();
    let _last = Worker::start(&queue, storage.path(), &slots);
    queue.until_results(9, Duration::from_secs(30));
    assert!(one_result_each(&mut queue, 9).values().all(|outcome| outcome == "stored"));
    until("no crash is remembered", SOON, || queue.hash("crashes").is_empty().then_some(()));
}

#[test]
fn what_was_there_at_five_deaths_of_most_of_the_fleet_is_a_suspect_all_the_same() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    queue.run::<i64>(&["HSET", "@meta", "paused", "1"]);
    let _living = Worker::start(&queue, storage.path(), &[]);
    queue.until_workers(1);
    let (id, payload) = job(&origin, 1);
    let began = redis_ms(&mut queue) - 100_000;
    for death in 1..=5 {
        // Within a heartbeat of each other.
        let ended = began + 10_000 * death;
        let poison = [payload.clone()];
        dead_workers(
            &mut queue,
            &[dead("a", ended, &poison), dead("b", ended + 400, &[]), dead("c", ended + 800, &[])],
        );
        until_recovered(&mut queue, 1);
        let expected = if death < 5 { format!("0 0 {death}") } else { "2".to_owned() };
        assert_eq!(queue.hash("crashes").get(&id), Some(&expected), "after death {death}");
        assert_eq!(queue.run::<Option<String>>(&["LPOP", "@ready"]).as_ref(), Some(&payload));
    }
    queue.push(&payload);
    queue.run::<i64>(&["HDEL", "@meta", "paused"]);
    queue.until_results(1, SOON);
    assert_eq!(one_result_each(&mut queue, 1).into_values().collect::<Vec<_>>(), ["stored"]);
}

#[test]
fn two_that_die_at_once_or_three_of_many_are_counted_as_crashes() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    queue.run::<i64>(&["HSET", "@meta", "paused", "1"]);
    let _living = Worker::start(&queue, storage.path(), &[]);
    queue.until_workers(1);
    let ((first, first_job), (second, second_job)) = (job(&origin, 1), job(&origin, 2));
    // Two of two: the living one came later.
    let ended = redis_ms(&mut queue) - 30_000;
    dead_workers(&mut queue, &[dead("a", ended, &[first_job]), dead("b", ended + 100, &[])]);
    until_recovered(&mut queue, 1);
    assert_eq!(queue.hash("crashes").get(&first).map(String::as_str), Some("1"));
    // Three of ten: seven have been there for long and live, as far as anybody can tell.
    let renew = |queue: &mut RawQueue| {
        for n in 0..7 {
            let name = format!("living-{n}");
            queue.run::<i64>(&["ZADD", "@workers:since", "1", &name]);
            let end = redis_ms(queue) + 5000;
            queue.run::<i64>(&["ZADD", "@workers", &end.to_string(), &name]);
        }
    };
    renew(&mut queue);
    let ended = redis_ms(&mut queue) - 10_000;
    dead_workers(&mut queue, &[dead("c", ended, &[second_job]), dead("d", ended, &[]), dead("e", ended + 100, &[])]);
    let found = until("all three are counted", SOON, || {
        renew(&mut queue);
        let names = queue.workers();
        let is_there = |name: &&str| names.iter().any(|worker| worker == name);
        if ["c", "d", "e"].iter().any(is_there) { None } else { queue.hash("crashes").get(&second).cloned() }
    });
    assert_eq!(found, "1");
}

#[test]
fn suspects_are_halved_until_one_is_left_that_runs_alone() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    queue.run::<i64>(&["HSET", "@meta", "paused", "1"]);
    let _living = Worker::start(&queue, storage.path(), &[]);
    queue.until_workers(1);
    let jobs: Vec<(String, String)> = (0..32).map(|n| job(&origin, n)).collect();
    let mut in_flight: Vec<String> = jobs.iter().map(|(_, job)| job.clone()).collect();
    let mut crashes = Vec::new();
    let mut ended = redis_ms(&mut queue) - 100_000;
    for death in 1..=5 {
        ended += 10_000;
        dead_workers(&mut queue, &[dead(&format!("w{death}"), ended, &in_flight)]);
        until_recovered(&mut queue, 1);
        let known = queue.hash("crashes");
        let of_those: Vec<String> = jobs.iter().take(in_flight.len()).map(|(id, _)| known[id].clone()).collect();
        assert!(of_those.iter().all(|text| *text == of_those[0]), "{known:?}");
        crashes.push(of_those[0].clone());
        // A half of them dies again.
        if death >= 2 {
            in_flight.truncate(in_flight.len() / 2);
        }
        queue.run::<i64>(&["DEL", "@ready"]);
    }
    assert_eq!(crashes, ["1", "2 32", "2 8", "2", "2"], "those that only wait to run alone did nothing");
}

#[test]
fn suspects_run_beside_other_jobs_in_one_worker_and_hold_up_nobody() {
    let (origin, held) = (Origin::start(), Origin::start());
    held.hold();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    // Six suspects of which four may run together, and behind them what has nothing to do with them.
    let suspects: Vec<(String, String)> = (0..6).map(|n| job(&held, n)).collect();
    for (id, job) in &suspects {
        queue.run::<i64>(&["HSET", "@crashes", id, "2 4"]);
        queue.push(job);
    }
    for n in 100..140 {
        queue.push(&origin.url(&format!("{n}/300.gif")));
    }
    let slots = ["--concurrency", "8", "--host-concurrency", "8"];
    let _workers: Vec<Worker> = (0..2).map(|_| Worker::start(&queue, storage.path(), &slots)).collect();
    queue.until_workers(2);
    queue.until_results(40, SOON);
    let in_flight: Vec<usize> = queue.workers().iter().map(|name| queue.in_flight(name).len()).collect();
    assert_eq!(
        (in_flight.iter().sum::<usize>(), in_flight.contains(&4)),
        (4, true),
        "four, in one worker: {in_flight:?}"
    );
    held.let_go();
    queue.until_results(46, SOON);
    assert!(one_result_each(&mut queue, 46).values().all(|outcome| outcome == "stored"));
    until("nothing is remembered of it", SOON, || {
        let is_over = queue.hash("crashes").is_empty() && queue.run::<Vec<String>>(&["SMEMBERS", "@trials"]).is_empty();
        is_over.then_some(())
    });
}

#[test]
fn one_that_has_to_run_alone_keeps_one_worker_and_no_other() {
    let (origin, held) = (Origin::start(), Origin::start());
    held.hold();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    for n in 0..3 {
        let (id, job) = job(&held, n);
        queue.run::<i64>(&["HSET", "@crashes", &id, "2"]);
        queue.push(&job);
    }
    for n in 100..140 {
        queue.push(&origin.url(&format!("{n}/300.gif")));
    }
    let _workers: Vec<Worker> = (0..2).map(|_| Worker::start(&queue, storage.path(), &[])).collect();
    queue.until_workers(2);
    queue.until_results(40, SOON);
    until("one runs, alone in its worker", SOON, || {
        let names = queue.workers();
        let alone: Vec<_> =
            names.iter().filter(|name| queue.hash(&format!("worker:{name}")).contains_key("alone")).collect();
        let in_flight: usize = names.iter().map(|name| queue.in_flight(name).len()).sum();
        (alone.len() == 1 && in_flight == 1 && held.requests_in_all() == 1).then_some(())
    });
    held.let_go();
    queue.until_results(43, SOON);
    assert!(one_result_each(&mut queue, 43).values().all(|outcome| outcome == "stored"));
}
