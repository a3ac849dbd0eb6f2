//! A fleet that is being upgraded: a queue that a newer imgq wrote is left to it, and so are jobs that only a newer one knows.
//!
//! The newer programs are played: what they write is written with raw commands, and their worker claims with the script, as
//! docs/protocol.md describes it. Those of the release before are met in `migration`.

use crate::redis_states::Beside;
use harness::dashboard::Dashboard;
use harness::programs::finish;
use harness::{Origin, Producer, RawQueue, Redis, Worker, until};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const ID: &str = "0123456789ab8000800000000000000";

fn become_newer(queue: &mut RawQueue) {
    queue.run::<i64>(&["HSET", "@meta", "schema", "2"]);
}

/// Every key of the queue with what it holds.
fn all_of(queue: &mut RawQueue) -> BTreeMap<String, Vec<u8>> {
    let pattern = queue.key("*").replace('{', "\\{").replace('}', "\\}");
    let keys: Vec<String> = queue.run(&["KEYS", &pattern]);
    keys.into_iter().map(|key| (key.clone(), queue.run(&["DUMP", &key]))).collect()
}

#[test]
fn no_program_touches_a_queue_that_a_newer_imgq_wrote() {
    let mut queue = RawQueue::shared();
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    let enqueued = Producer::run(&queue, &["enqueue", "--json", &origin.url("1/300.gif")]).json();
    let batch = enqueued["batch"].as_str().unwrap().to_owned();
    become_newer(&mut queue);
    let before = all_of(&mut queue);
    for arguments in [
        &["enqueue", &origin.url("2/300.gif")][..],
        &["enqueue", &origin.url("2/300.gif"), "--no-dedup", "--wait"],
        &["status"],
        &["status", &batch],
        &["status", "--watch", "--json"],
        &["wait"],
        &["wait", &batch],
        &["results"],
        &["results", "--follow"],
        &["results", "--reader", "export"],
        &["results", "--list-readers"],
        &["dead", "list"],
        &["dead", "retry"],
        &["dead", "drop"],
        &["workers"],
        &["batches"],
        &["pause"],
        &["resume"],
        &["purge", "--yes"],
        &["purge", "--finished", "--yes"],
        &["retention"],
        &["retention", "--keep-results", "1d"],
        &["forget", &origin.url("1/300.gif")],
    ] {
        let refused = finish(Producer::command(&queue, arguments), b"", SOON);
        assert_eq!(refused.code, 1, "{arguments:?}: {refused:?}");
        for word in ["newer imgq", "schema 2", &queue.name, "hint: upgrade"] {
            assert!(refused.stderr.contains(word), "{arguments:?} does not say {word:?}: {}", refused.stderr);
        }
    }
    let worker = finish(Worker::command(&queue, storage.path()), b"", SOON);
    assert!(worker.code == 1 && worker.stderr.contains("schema 2"), "{worker:?}");
    assert_eq!(all_of(&mut queue), before);
}

#[test]
fn a_worker_at_work_settles_what_it_holds_and_ends() {
    let mut queue = RawQueue::shared();
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    origin.hold();
    let links: Vec<String> = (1..=40).map(|n| origin.url(&format!("{n}/300.gif"))).collect();
    links.iter().for_each(|link| queue.push(link));
    let mut command = Worker::command(&queue, storage.path());
    command.args(["--concurrency", "4"]);
    let mut worker = Beside::start("the worker", command);
    until("four are being downloaded", SOON, || (origin.requests_in_all() == 4).then_some(()));
    become_newer(&mut queue);
    // A place gets free, and the next claim finds it out. Whatever it has begun by then it finishes.
    origin.let_go();
    assert_eq!(worker.until_end(), Some(1));
    let said = worker.said();
    assert!(said.contains("finishes what it holds") && said.contains("schema 2") && said.contains("hint:"), "{said}");
    let done = queue.results_len();
    assert!(done >= 4, "what it held is done, not given back");
    assert_eq!((done + queue.ready_len(), queue.in_flight_len()), (40, 0), "and the rest waits, as it was");
    assert!(queue.workers().is_empty(), "it has left");
    assert!(queue.results().iter().all(|result| result["outcome"] == "stored"));
}

/// What a worker is at that claims nothing.
fn a_worker_ends_that(what: &str, arguments: &[&str], make_it_so: impl Fn(&mut RawQueue, &std::path::Path, &Beside)) {
    let mut queue = RawQueue::shared();
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("images");
    let mut command = Worker::command(&queue, &storage);
    command.args(arguments);
    let mut worker = Beside::start("the worker", command);
    queue.until_workers(1);
    make_it_so(&mut queue, &storage, &worker);
    become_newer(&mut queue);
    assert_eq!(worker.until_end(), Some(1), "one that {what}");
    assert!(queue.workers().is_empty(), "one that {what} has left");
}

#[test]
fn a_worker_that_claims_nothing_ends_as_well() {
    a_worker_ends_that("is idle", &[], |_, _, _| ());
    a_worker_ends_that("is paused", &[], |queue, _, _| {
        queue.run::<i64>(&["HSET", "@meta", "paused", "1"]);
        queue.push("https://x.org/1.jpg");
    });
    a_worker_ends_that("has no room for results", &["--results-max", "1"], |queue, _, worker| {
        queue.run::<String>(&["XADD", "@results", "*", "id", "x"]);
        queue.push("https://x.org/1.jpg");
        until("it says so", SOON, || worker.said().contains("--results-max").then_some(()));
    });
    a_worker_ends_that("has a storage that is gone", &[], |queue, storage, worker| {
        std::fs::rename(storage, storage.with_extension("gone")).unwrap();
        std::fs::create_dir(storage).unwrap();
        let origin = Origin::start();
        queue.push(&origin.url("1/300.gif"));
        until("it says so", SOON, || worker.said().contains("storage cannot be used").then_some(()));
    });
}

#[test]
fn an_enqueue_under_way_adds_nothing_more_and_whoever_watches_stops() {
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let mut command = Producer::command(&queue, &["enqueue", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut enqueue = command.spawn().unwrap();
    let mut links = enqueue.stdin.take().unwrap();
    writeln!(links, "https://x.org/1.jpg").unwrap();
    until("the first link is in", SOON, || (queue.ready_len() == 1).then_some(()));
    let watching: Vec<(&[&str], Beside)> = [
        &["wait"][..],
        &["results", "--follow"],
        &["results", "--follow", "--reader", "export"],
        &["status", "--watch", "--json"],
    ]
    .into_iter()
    .map(|arguments| (arguments, Beside::start(arguments[0], Producer::command(&queue, arguments))))
    .collect();
    let dashboard = Dashboard::start(&queue, storage.path(), &[]);
    until("the dashboard shows it", SOON, || dashboard.get("/").text().contains("ready").then_some(()));
    until("the reader is there", SOON, || {
        let groups: redis::RedisResult<Vec<redis::Value>> = queue.try_run(&["XINFO", "GROUPS", "@results"]);
        groups.is_ok_and(|groups| groups.len() == 1).then_some(())
    });
    become_newer(&mut queue);
    for (arguments, mut watching) in watching {
        assert_eq!(watching.until_end(), Some(1), "{arguments:?}: {}", watching.said());
        assert!(watching.said().contains("schema 2"), "{arguments:?}: {}", watching.said());
    }
    until("the dashboard says why it shows nothing new", SOON, || {
        dashboard.get("/").text().contains("newer imgq").then_some(())
    });
    let _ = writeln!(links, "https://x.org/2.jpg");
    drop(links);
    let ended = enqueue.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.code() == Some(1) && said.contains("schema 2"), "{said}");
    assert_eq!(queue.ready_len(), 1);
}

/// When each job of `delayed` is looked at again (ms), by its payload.
fn times(queue: &mut RawQueue) -> BTreeMap<String, f64> {
    queue.run::<Vec<(String, f64)>>(&["ZRANGE", "@delayed", "0", "-1", "WITHSCORES"]).into_iter().collect()
}

/// Claims as a worker of a newer imgq, which knows version 2 and slices: payloads as they are given to it.
fn claim_as_newer(queue: &mut RawQueue, number: u64) -> Vec<String> {
    let script = ::queue::script_sources().into_iter().find(|(name, _)| *name == "claim").unwrap().1;
    let lease = (u64::MAX >> 12).to_string();
    queue.run::<i64>(&["ZADD", "@workers", &lease, "newer"]);
    let keys = ["ready", "delayed", "inflight:newer", "workers", "worker:newer", "meta", "crashes", "results", "hosts"];
    let keys: Vec<String> =
        keys.into_iter().chain(["stats", "hosts:held", "trials"]).map(|key| queue.key(key)).collect();
    let ids = format!("0000000000008abc8{number:011x}");
    let number = number.to_string();
    let arguments = ["newer", &number, "100", "6000", &ids, "0", "0", "10", "2", "download slice"];
    let mut words = vec!["EVAL", &script, "12"];
    words.extend(keys.iter().map(String::as_str));
    words.extend(arguments);
    let reply: Vec<redis::Value> = queue.run(&words);
    assert_eq!(reply[0], redis::Value::BulkString(b"ok".to_vec()), "{reply:?}");
    let jobs: Vec<redis::Value> = redis::from_redis_value(reply[6].clone()).unwrap();
    jobs.iter().step_by(3).map(|payload| redis::from_redis_value(payload.clone()).unwrap()).collect()
}

#[test]
fn with_producers_upgraded_first_what_only_newer_workers_know_waits_for_them() {
    let mut queue = RawQueue::shared();
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    let newer = [
        format!(r#"{{"id":"{ID}1","url":"{}","v":2}}"#, origin.url("1/300.gif")),
        format!(r#"{{"id":"{ID}2","kind":"slice","rows":[1,2.50,{{}}]}}"#),
        format!(r#"{{ "v" : 2, "url":"{}" }}"#, origin.url("3/300.gif")),
        format!(r#"{{"\u006bind":"finish","id":"{ID}4"}}"#),
    ];
    newer.iter().for_each(|job| queue.push(job));
    queue.push(&origin.url("5/300.gif"));
    let worker = Beside::start("the worker", Worker::command(&queue, storage.path()));
    assert_eq!(queue.until_results(1, SOON)[0]["url"], origin.url("5/300.gif"), "what stands behind them is done");
    let first = times(&mut queue);
    assert_eq!(
        first.keys().collect::<Vec<_>>(),
        newer.iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    );
    let (seconds, micros): (f64, f64) = queue.run(&["TIME"]);
    let ahead = first.values().map(|at| at - (seconds * 1000.0 + micros / 1000.0));
    assert!(ahead.clone().all(|ms| ms <= 5001.0), "{:?}", ahead.collect::<Vec<_>>());
    let status = Producer::run(&queue, &["status"]).stdout;
    assert!(status.contains("wait for a worker that knows them"), "{status}");
    let again = until("they were looked at again, and put aside again", SOON, || {
        let now = times(&mut queue);
        (now.len() == 4 && first.iter().all(|(job, at)| now[job] > *at)).then_some(now)
    });
    assert!(first.iter().all(|(job, at)| again[job] >= at + 5000.0), "for five seconds each time");
    let said = worker.said();
    assert_eq!(said.matches("wait for a worker that knows them").count(), 3, "once of each: {said}");
    assert!(said.contains("jobs of version 2") && said.contains("kind \"slice\""), "{said}");
    assert_eq!((queue.results_len(), queue.stream("dead").len()), (1, 0));

    // The upgrade: this one goes, for whoever comes first to a job puts it aside again.
    drop(worker);
    let (mut given, mut number) = (Vec::new(), 0);
    until("the newer worker is given them, as they were written", SOON, || {
        number += 1;
        given.extend(claim_as_newer(&mut queue, number));
        (given.len() == 3).then_some(())
    });
    given.sort();
    let mut known = [newer[0].clone(), newer[1].clone(), newer[2].clone()];
    known.sort();
    assert_eq!(given, known);
    assert_eq!(times(&mut queue).keys().collect::<Vec<_>>(), [&newer[3]], "and a kind that it does not know waits on");
}

#[test]
fn with_workers_upgraded_first_what_producers_of_today_write_is_anybody_s() {
    let mut queue = RawQueue::shared();
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    let links: Vec<String> = (1..=4).map(|n| origin.url(&format!("{n}/300.gif"))).collect();
    let words: Vec<&str> = ["enqueue", "--json"].into_iter().chain(links.iter().map(String::as_str)).collect();
    assert_eq!(Producer::run(&queue, &words).json()["enqueued"], 4);
    let given = claim_as_newer(&mut queue, 1);
    assert_eq!(given.len(), 4, "the newer worker is given what it knows as well: {given:?}");
    // It dies, and one of today's does its jobs: what the newer one left in Redis is in nobody's way.
    queue.run::<i64>(&["ZADD", "@workers", "1", "newer"]);
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let results = queue.until_results(4, SOON);
    assert!(results.iter().all(|result| result["outcome"] == "stored"), "{results:?}");
    assert_eq!(queue.hash("meta")["schema"], "1", "nobody raised it while workers of today are there");
}

#[test]
fn only_what_somebody_else_may_be_able_to_read_is_left_to_others() {
    let mut queue = RawQueue::shared();
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    let url = |n: u32| origin.url(&format!("{n}/300.gif"));
    let jobs = [
        // Known, whatever they look like.
        (format!(r#"{{"id":"{ID}1","url":"{}","v":1,"kind":"download"}}"#, url(1)), "stored"),
        (format!(r#"{{"url":"{}?\"v\":2,\"kind\":\"slice\""}}"#, url(2)), "stored"),
        (format!(r#"{{"url":"{}","with":{{"v":2,"kind":"slice"}}}}"#, url(3)), "stored"),
        (format!(r#"{{"url":"{}","vv":2,"kinds":"slice","last_reason":"v"}}"#, url(4)), "stored"),
        (format!("{}?\"v\":2", url(5)), "stored"),
        // Nobody's.
        (format!(r#"{{"url":"{}","v":"2"}}"#, url(6)), "failed"),
        (format!(r#"{{"url":"{}","v":1.5}}"#, url(7)), "failed"),
        (format!(r#"{{"url":"{}","v":-2}}"#, url(8)), "failed"),
        (format!(r#"{{"url":"{}","v":0}}"#, url(9)), "failed"),
        (format!(r#"{{"url":"{}","v":99999999999}}"#, url(10)), "failed"),
        (format!(r#"{{"url":"{}","kind":7}}"#, url(11)), "failed"),
        (format!(r#"{{"url":"{}","kind":["slice"]}}"#, url(12)), "failed"),
        (format!(r#"{{"url":"{}","v":2,"kind":"slice""#, url(13)), "failed"),
    ];
    jobs.iter().for_each(|(job, _)| queue.push(job));
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let results = queue.until_results(jobs.len(), SOON);
    for (job, outcome) in &jobs {
        let n = job.split("/300.gif").next().unwrap().rsplit('/').next().unwrap();
        let result = results.iter().find(|result| result["url"].contains(&format!("/{n}/300.gif"))).unwrap();
        assert_eq!(result["outcome"], *outcome, "{job}: {result:?}");
        assert!(*outcome == "stored" || result["reason"] == "unreadable_job", "{job}: {result:?}");
    }
}

#[test]
fn many_that_nobody_knows_are_not_looked_at_all_the_time_and_hold_up_nobody() {
    let mut queue = RawQueue::shared();
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    let jobs: Vec<String> =
        (0..6000).map(|n| format!(r#"{{"id":"{ID:.28}{n:04x}","url":"https://x.org/{n}","v":3}}"#)).collect();
    for some in jobs.chunks(1000) {
        let words: Vec<&str> = ["RPUSH", "@ready"].into_iter().chain(some.iter().map(String::as_str)).collect();
        queue.run::<i64>(&words);
    }
    queue.push(&origin.url("1/300.gif"));
    let _worker = Worker::start(&queue, storage.path(), &[]);
    queue.until_results(1, SOON);
    until("all of them are put aside", SOON, || (queue.ready_len() == 0).then_some(()));
    let mut at: Vec<f64> = times(&mut queue).into_values().collect();
    assert_eq!(at.len(), 6000);
    at.sort_by(f64::total_cmp);
    at.dedup();
    // 1.2 s of them in whole seconds, and those that came before there was a line.
    let lasts_ms = at[at.len() - 1] - at[0];
    assert!((2..=30).contains(&at.len()) && lasts_ms >= 1000.0, "they come at {} times, over {lasts_ms} ms", at.len());
    queue.push(&origin.url("2/300.gif"));
    queue.until_results(2, SOON);
}

#[test]
fn many_that_nobody_knows_keep_no_idle_worker_busy() {
    let redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    let storage = tempfile::tempdir().unwrap();
    let fill = "for n = 1, 30000 do redis.call('RPUSH', KEYS[1], '{\"id\":\"0123456789ab80008' .. string.format('%015x', n) .. '\",\"url\":\"https://x.org/' .. n .. '\",\"v\":3}') end";
    let ready = queue.key("ready");
    queue.run::<()>(&["EVAL", fill, "1", &ready]);
    let _workers = [0, 1, 2].map(|_| Worker::start(&queue, storage.path(), &[]));
    until("all of them are put aside", SOON, || (queue.ready_len() == 0).then_some(()));
    let calls = |queue: &mut RawQueue| {
        let info: String = queue.run(&["INFO", "commandstats"]);
        let of = |command: &str| -> u64 {
            let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
            line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
        };
        let (seconds, micros): (f64, f64) = queue.run(&["TIME"]);
        (of("evalsha"), seconds + micros / 1e6)
    };
    let last: Vec<(String, f64)> = queue.run(&["ZRANGE", "@delayed", "-1", "-1", "WITHSCORES"]);
    let (before, from) = calls(&mut queue);
    until("all of them were looked at again", SOON, || {
        let left: u64 = queue.run(&["ZCOUNT", "@delayed", "-inf", &last[0].1.to_string()]);
        (left == 0).then_some(())
    });
    let (after, to) = calls(&mut queue);
    let a_second = (after - before) as f64 / (to - from);
    // Each second one claim of each worker finds them due, and ten take them; beside that there are heartbeats and looks.
    assert!(a_second < 100.0, "three workers with nothing to do call {a_second:.0} scripts a second");
    assert!(after - before > 40, "and they are looked at");
}
