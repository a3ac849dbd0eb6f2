//! Each script that moves jobs, with each key of the queue made into something else before: it goes well all the same, or it fails
//! whole. And what the queue remembers of hosts, where nobody can understand it.

use super::scripts::{Bench, batch, chunk, failed, one_of_each};
use ::queue::{AdmissionRequest, ClaimRequest, DeadAction, WaitsIn};
use common::error::QueueError;
use harness::{Origin, RawQueue, Worker, until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// An operation, up to where its script runs.
type Operation = fn(&mut Bench) -> Result<(), QueueError>;

/// What an operation needs before.
type Preparation = fn(&mut Bench);

fn claim(bench: &mut Bench) -> Result<(), QueueError> {
    bench.number += 1;
    let request =
        ClaimRequest { host_rate: Some("5/s".parse().unwrap()), results_max: Some(1000), ..ClaimRequest::of(10) };
    bench.runtime.block_on(bench.queue.claim(&bench.worker, bench.number, &request)).map(drop)
}

fn admit(bench: &mut Bench) -> Result<(), QueueError> {
    let hosts = vec![("x.org".to_owned(), Duration::from_millis(300))];
    let request = AdmissionRequest { host_rate: Some("5/s".parse().unwrap()), free_refusals: 10, hosts };
    bench.runtime.block_on(bench.queue.admit(&bench.worker, &request)).map(drop)
}

fn settle(bench: &mut Bench) -> Result<(), QueueError> {
    let jobs = match bench.runtime.block_on(bench.queue.reconcile(&bench.worker, bench.number))? {
        ::queue::Reconciled::Holds(mut jobs) => {
            jobs.sort_by_key(|job| job.field.order());
            jobs
        }
        other => panic!("{other:?}"),
    };
    if jobs.is_empty() {
        // It went well over the key, and this is the second time.
        return Ok(());
    }
    let settlements = one_of_each(&jobs);
    bench.runtime.block_on(bench.queue.settle(&bench.worker, &settlements, &[])).map(drop)
}

fn recover(bench: &mut Bench) -> Result<(), QueueError> {
    bench.runtime.block_on(bench.queue.recover(bench.worker.as_str())).map(drop)
}

fn end_the_lease(bench: &mut Bench) {
    bench.claim_all();
    let name = bench.worker.to_string();
    bench.raw.run::<i64>(&["ZADD", "@workers", "1", &name]);
    bench.raw.run::<i64>(&["HSET", "@crashes", "somebody", "1"]);
}

fn dead_retry(bench: &mut Bench) -> Result<(), QueueError> {
    let dead = bench.runtime.block_on(bench.queue.dead_jobs(None, 10))?;
    bench.runtime.block_on(bench.queue.settle_dead(DeadAction::Retry, &dead)).map(drop)
}

fn fail_all(bench: &mut Bench) {
    let jobs = bench.claim_all();
    let all: Vec<_> = jobs.iter().map(|job| (job.field.clone(), failed(job))).collect();
    bench.settle(&all);
}

fn push(bench: &mut Bench) -> Result<(), QueueError> {
    bench.runtime.block_on(bench.queue.push(&bench.open, &chunk(2))).map(drop)
}

fn forget(bench: &mut Bench) {
    bench.runtime.block_on(bench.queue.forget_all_links()).unwrap();
}

fn purge(bench: &mut Bench) -> Result<(), QueueError> {
    let page = bench.runtime.block_on(bench.queue.waiting_page(WaitsIn::Ready))?;
    bench.runtime.block_on(bench.queue.purge_page(WaitsIn::Ready, &page)).map(drop)
}

fn forget_one(bench: &mut Bench) -> Result<(), QueueError> {
    let links = chunk(1).jobs.into_iter().map(|job| job.url).collect::<Vec<_>>();
    bench.runtime.block_on(bench.queue.forget_links(&links)).map(drop)
}

/// How many jobs there are: in all places where they wait, in flight, and with a result. A purged one is nowhere.
fn jobs(bench: &mut Bench) -> usize {
    let waiting: usize = bench.raw.run(&["LLEN", "@ready"]);
    let delayed: usize = bench.raw.run(&["ZCARD", "@delayed"]);
    let worker = bench.worker.to_string();
    let purged: usize = bench.raw.hash(&format!("batch:{}", batch())).get("purged").map_or(0, |n| n.parse().unwrap());
    let dead: usize = bench.raw.run(&["XLEN", "@dead"]);
    waiting + delayed + bench.raw.in_flight(&worker).len() + dead + purged
}

#[test]
fn a_key_that_holds_something_else_costs_no_job() {
    let operations: [(&str, Preparation, Operation, usize); 8] = [
        ("claim", |_| (), claim, 3),
        ("admit", |_| (), admit, 3),
        ("settle", |bench| _ = bench.claim_all(), settle, 3),
        ("recover", end_the_lease, recover, 3),
        ("dead_retry", fail_all, dead_retry, 3),
        // The links are known no more, so that they come in once again.
        ("enqueue", forget, push, 6),
        ("purge", |_| (), purge, 3),
        ("dedup_forget", |_| (), forget_one, 3),
    ];
    for (name, prepare, operation, expected) in operations {
        let mut bench = Bench::on(RawQueue::shared());
        prepare(&mut bench);
        let before = bench.snapshot();
        let mut keys = bench.all_keys();
        for key in
            ["ready", "delayed", "results", "dead", "stats", "meta", "crashes", "hosts", "hosts:held", "dedup:meta"]
        {
            keys.push(bench.raw.key(key));
        }
        keys.sort();
        keys.dedup();
        let (mut went_well, mut failed_whole) = (0, 0);
        for key in keys {
            bench.roll_back(&before);
            let mut connection = bench.connection();
            redis::cmd("SET").arg(&key).arg("oops").query::<()>(&mut connection).unwrap();
            let spoilt = bench.snapshot();
            match operation(&mut bench) {
                Ok(()) => went_well += 1,
                Err(error) => {
                    assert_eq!(bench.snapshot(), spoilt, "{name} failed over {key}, and changed something: {error}");
                    failed_whole += 1;
                }
            }
            // Somebody mends the key, and the operation is done.
            let is_spoilt: String = redis::cmd("TYPE").arg(&key).query(&mut connection).unwrap();
            if is_spoilt == "string" {
                redis::cmd("DEL").arg(&key).query::<i64>(&mut connection).unwrap();
                if let Some((_, bytes)) = before.iter().find(|(known, _)| *known == key) {
                    redis::cmd("RESTORE").arg(&key).arg(0).arg(&bytes[..]).query::<()>(&mut connection).unwrap();
                }
            }
            operation(&mut bench).unwrap_or_else(|error| panic!("{name} with {key} mended: {error}"));
            assert!(jobs(&mut bench) >= expected, "{name}, {key}: {} of {expected} jobs are there", jobs(&mut bench));
        }
        assert!(went_well > 0 && failed_whole > 0, "{name}: {went_well} went well, {failed_whole} failed whole");
    }
}

#[test]
fn an_error_over_a_key_names_it() {
    let mut bench = Bench::on(RawQueue::shared());
    bench.raw.run::<()>(&["SET", "@delayed", "oops"]);
    let told = claim(&mut bench).unwrap_err();
    let key = bench.raw.key("delayed");
    assert!(told.to_string().contains(&format!("{key} holds a string, where imgq keeps a zset")), "{told}");
    assert!(told.hint().is_some_and(|hint| hint.contains("holds what imgq did not put there")), "{told}");
}

#[test]
fn an_index_of_held_hosts_that_is_none_stops_who_would_change_it_and_is_named() {
    let mut bench = Bench::on(RawQueue::shared());
    bench.claim_all();
    bench.raw.run::<()>(&["SET", "@hosts:held", "oops"]);
    let key = bench.raw.key("hosts:held");
    let operations: [(&str, Operation); 3] = [("claim", claim), ("admit", admit), ("settle", settle)];
    for (name, operation) in operations {
        let told = operation(&mut bench).expect_err(name);
        assert!(told.to_string().contains(&format!("{key} holds a string, where imgq keeps a zset")), "{name}: {told}");
    }
}

/// Entries of `hosts` that no script wrote.
/// The eleven that are over would be taken out of an array of twelve.
const NOT_UNDERSTOOD: [&str; 15] = [
    r#"{"alone":{"w":{"ends":1,"level":1,"since":"noon"}}}"#,
    r#"{"alone":{"w":{"ends":1,"level":1,"later":1e999}}}"#,
    r#"[1,2,3]"#,
    r#"{"ends":"soon"}"#,
    r#"{"ends":true,"level":1,"why":"rate_limited"}"#,
    r#"{"tat":"1"}"#,
    r#"{"next":1e999}"#,
    r#"{"level":[]}"#,
    r#"{"why":7,"ends":9e14,"level":1}"#,
    r#"{"alone":{"w":1}}"#,
    r#"{"alone":{"w":{"ends":1}}}"#,
    r#"{"later":[1e999]}"#,
    r#"{"alone":[{"ends":1,"level":1},{"ends":1,"level":1},{"ends":1,"level":1},{"ends":1,"level":1},{"ends":1,"level":1},{"ends":1,"level":1},
       {"ends":1,"level":1},{"ends":1,"level":1},{"ends":1,"level":1},{"ends":1,"level":1},{"ends":1,"level":1},{"ends":1e13,"level":1}]}"#,
    "[",
    "null",
];

#[test]
fn what_nobody_can_understand_of_a_host_is_dropped_and_told_and_loses_no_job() {
    let origin = Origin::start();
    for (n, entry) in NOT_UNDERSTOOD.iter().enumerate() {
        let mut queue = RawQueue::shared();
        let folder = tempfile::tempdir().unwrap();
        let host = format!("127.0.0.1:{}", origin.port());
        queue.run::<i64>(&["HSET", "@hosts", &host, entry]);
        for job in 0..5 {
            queue.push(&origin.url(&format!("{job}/300.gif")));
        }
        let log = folder.path().join("log");
        let mut command = Worker::command(&queue, &folder.path().join("images"));
        // With a rate every host is looked at; every other time the entry itself is why.
        command.args(if n % 2 == 0 { &["--host-rate", "1000/s"][..] } else { &[] });
        command.stderr(std::fs::File::create(&log).unwrap());
        let _worker = Worker::of(command.spawn().unwrap());
        let results = queue.until_results(5, SOON);
        assert!(results.iter().all(|result| result["outcome"] == "stored"), "{entry}: {results:?}");
        let log = || std::fs::read_to_string(&log).unwrap();
        until(&format!("{entry} is told of"), SOON, || {
            log().lines().any(|line| line.contains(&host) && line.contains("could not be understood")).then_some(())
        });
        until("the entry is gone", SOON, || {
            queue.hash("hosts").get(&host).is_none_or(|now| now != entry).then_some(())
        });
    }
}

#[test]
fn a_key_in_the_place_of_hosts_is_dropped_and_told() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let folder = tempfile::tempdir().unwrap();
    queue.run::<()>(&["SET", "@hosts", "oops"]);
    for job in 0..5 {
        queue.push(&origin.url(&format!("{job}/300.gif")));
    }
    let log = folder.path().join("log");
    let mut command = Worker::command(&queue, &folder.path().join("images"));
    command.stderr(std::fs::File::create(&log).unwrap());
    let _worker = Worker::of(command.spawn().unwrap());
    let results = queue.until_results(5, SOON);
    assert!(results.iter().all(|result| result["outcome"] == "stored"), "{results:?}");
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("the key was a string"), "{log}");
}

/// A stream has a last id, after which nothing is appended: the one command of a settle that may fail over keys that are what they
/// should be.
#[test]
fn a_settle_whose_stream_is_full_makes_nothing_twice() {
    for full in ["results", "dead"] {
        let mut bench = Bench::on(RawQueue::shared());
        bench.claim_all();
        let before = bench.snapshot();
        bench.raw.run::<String>(&["XADD", &format!("@{full}"), "18446744073709551615-18446744073709551615", "a", "b"]);
        let full_before = bench.snapshot();
        for _ in 0..3 {
            let told = settle(&mut bench).unwrap_err();
            assert!(told.to_string().contains("last possible id"), "{told}");
        }
        let jobs_of = |snapshot: &super::scripts::Snapshot| {
            let of_streams = |key: &String| key.ends_with(":results") || key.ends_with(":dead");
            snapshot.iter().filter(|(key, _)| !of_streams(key)).cloned().collect::<Vec<_>>()
        };
        assert_eq!(jobs_of(&bench.snapshot()), jobs_of(&full_before), "{full}");
        let entries: i64 = bench.raw.run::<i64>(&["XLEN", "@results"]) + bench.raw.run::<i64>(&["XLEN", "@dead"]);
        assert_eq!(entries, 1, "{full}: what was appended is gone again");
        bench.roll_back(&before);
        settle(&mut bench).unwrap();
    }
}

/// A member of the index has an end of its own, which says nothing where there is no entry: it goes, and nobody waits for it.
#[test]
fn what_the_index_of_held_hosts_says_alone_holds_nobody() {
    let mut bench = Bench::on(RawQueue::shared());
    for (ends, host) in [("1", "x.org"), ("-inf", "lost.example")] {
        bench.raw.run::<i64>(&["ZADD", "@hosts:held", ends, host]);
    }
    let hosts = vec![("x.org".to_owned(), Duration::ZERO)];
    let request = AdmissionRequest { hosts, ..AdmissionRequest::default() };
    let admitted = bench.runtime.block_on(bench.queue.admit(&bench.worker, &request)).unwrap();
    assert_eq!(admitted.starts, [Some(::queue::Start::After(Duration::ZERO))]);
    assert_eq!(bench.claim_all().len(), 3);
    assert_eq!(bench.raw.run::<usize>(&["ZCARD", "@hosts:held"]), 0);
}

/// What a later version adds to an entry is left alone.
#[test]
fn fields_of_a_later_version_stay_in_an_entry() {
    let mut bench = Bench::on(RawQueue::shared());
    bench.raw.run::<i64>(&["HSET", "@hosts", "x.org", r#"{"later":{"a":[1,"b"]},"also":2.5}"#]);
    claim(&mut bench).unwrap();
    let entry: serde_json::Value = serde_json::from_str(&bench.raw.hash("hosts")["x.org"]).unwrap();
    assert_eq!((&entry["later"], &entry["also"]), (&serde_json::json!({"a": [1, "b"]}), &serde_json::json!(2.5)));
    assert!(entry["tat"].is_number(), "{entry}");
}
