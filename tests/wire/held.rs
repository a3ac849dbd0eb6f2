//! Many jobs of a host that is left alone: they wait without being looked at, and nobody else waits for them.

use crate::scripts::Bench;
use ::queue::{Claim, ClaimRequest, ClaimedJob};
use harness::RawQueue;
use std::collections::BTreeMap;

const HELD: &str = "held.example";

/// A hold of half an hour. Returns its end.
fn hold(raw: &mut RawQueue) -> u64 {
    let (seconds, _): (u64, u64) = raw.run(&["TIME"]);
    let ends = (seconds + 1800) * 1000;
    let entry = format!(r#"{{"ends":{ends},"level":1,"since":{},"why":"rate_limited"}}"#, seconds * 1000);
    raw.run::<i64>(&["HSET", "@hosts", HELD, &entry]);
    raw.run::<i64>(&["ZADD", "@hosts:held", &ends.to_string(), HELD]);
    ends
}

/// A queue with so many jobs of a host that is held, and nothing else.
fn bench(held: usize) -> (Bench, u64) {
    let mut bench = Bench::on(RawQueue::shared());
    bench.raw.run::<i64>(&["DEL", "@ready"]);
    let ends = hold(&mut bench.raw);
    let jobs: Vec<String> =
        (0..held).map(|n| format!(r#"{{"id":"{n:032x}","url":"https://{HELD}/{n}.jpg"}}"#)).collect();
    for some in jobs.chunks(1000) {
        let mut command = vec!["RPUSH", "@ready"];
        command.extend(some.iter().map(String::as_str));
        bench.raw.run::<i64>(&command);
    }
    (bench, ends)
}

/// One call. Returns the jobs, and whether there may be more.
fn claim(bench: &mut Bench, max: usize) -> (Vec<ClaimedJob>, bool) {
    bench.number += 1;
    let request = ClaimRequest { free_refusals: 6, ..ClaimRequest::of(max) };
    match bench.runtime.block_on(bench.queue.claim(&bench.worker, bench.number, &request)).unwrap() {
        Claim::Jobs { jobs, more, .. } => (jobs, more),
        other => panic!("{other:?}"),
    }
}

fn urls(jobs: &[ClaimedJob]) -> Vec<String> {
    jobs.iter().map(|job| String::from_utf8_lossy(&job.payload).split('"').nth(7).unwrap().to_owned()).collect()
}

fn delayed(raw: &mut RawQueue) -> BTreeMap<String, u64> {
    let pairs: Vec<(String, f64)> = raw.run(&["ZRANGE", "@delayed", "0", "-1", "WITHSCORES"]);
    pairs.into_iter().map(|(job, at)| (job, at as u64)).collect()
}

#[test]
fn a_job_behind_a_wall_of_a_held_host_is_found_by_the_first_look() {
    let (mut bench, _) = bench(5000);
    for n in 0..3 {
        bench.raw.push(&format!(r#"{{"id":"{:032x}","url":"https://free.example/{n}.jpg"}}"#, 9000 + n));
    }
    let (jobs, more) = claim(&mut bench, 2);
    assert_eq!(urls(&jobs), ["https://free.example/1.jpg", "https://free.example/2.jpg"]);
    assert!(more, "it has not seen all");
    assert!(bench.raw.ready_len() > 4000, "nor gone through them");
    // Nothing is lost on the way.
    let (jobs, _) = claim(&mut bench, 16);
    assert_eq!(urls(&jobs), ["https://free.example/0.jpg"]);
    let waiting = bench.raw.ready_len() + delayed(&mut bench.raw).len();
    assert_eq!(waiting, 5000);
}

#[test]
fn a_suspect_that_is_found_at_the_other_end_is_claimed_alone() {
    let (mut bench, _) = bench(500);
    // All of them are due, so that the claim goes through these and takes nothing from the front.
    for payload in bench.raw.ready() {
        bench.raw.run::<i64>(&["ZADD", "@delayed", "1", &payload]);
    }
    bench.raw.run::<i64>(&["DEL", "@ready"]);
    let job = |n: usize| format!(r#"{{"id":"{:032x}","url":"https://free.example/{n}.jpg"}}"#, 9000 + n);
    (0..5).for_each(|n| bench.raw.push(&job(n)));
    bench.raw.run::<i64>(&["HSET", "@crashes", &format!("{:032x}", 9001), "2"]);
    let mut given = Vec::new();
    for _ in 0..10 {
        let (jobs, _) = claim(&mut bench, 16);
        if jobs.iter().any(|job| job.runs_alone) {
            assert_eq!(urls(&jobs), ["https://free.example/1.jpg"], "nothing else comes with it");
        }
        given.extend(urls(&jobs));
    }
    given.sort();
    assert_eq!(given.len(), 5, "each was given out once: {given:?}");
    assert_eq!(delayed(&mut bench.raw).len(), 500);
}

#[test]
fn jobs_of_a_held_host_are_looked_at_once_and_cost_nothing_while_they_wait() {
    let jobs = 31_000;
    let (mut bench, ends) = bench(jobs);
    let mut calls = 0;
    while claim(&mut bench, 64).1 {
        calls += 1;
        assert!(calls <= jobs / 500 + 1, "each call gets on by 500");
    }
    let before = delayed(&mut bench.raw);
    assert_eq!((bench.raw.ready_len(), before.len()), (0, jobs));
    let held = bench.raw.hash("stats").remove("held");
    assert_eq!(held.as_deref(), Some("31000"), "once each");
    // All of them wait for the end of the hold, 4,000 for each second of the first minute.
    let mut times: Vec<u64> = before.values().copied().collect();
    times.sort_unstable();
    assert_eq!((times[0], times[jobs - 1]), (ends, ends + (jobs as u64 - 1) / 4));
    for _ in 0..10 {
        let (jobs, more) = claim(&mut bench, 64);
        assert_eq!((jobs.len(), more), (0, false), "there is nothing to look at");
    }
    assert_eq!(bench.raw.hash("stats").remove("held"), held);
    assert_eq!(delayed(&mut bench.raw), before);
    // What comes in later is done at once.
    bench.raw.push("https://free.example/late.jpg");
    assert_eq!(claim(&mut bench, 64).0.len(), 1);
}

#[test]
fn when_the_clock_is_set_back_what_waits_is_moved_some_at_a_time_and_each_once() {
    let (mut bench, _) = bench(0);
    let (seconds, _): (u64, u64) = bench.raw.run(&["TIME"]);
    let (now, hour) = (seconds * 1000, 3_600_000);
    bench.raw.run::<i64>(&["HSET", "@meta", "tick", &(now + hour).to_string()]);
    // Many of one time among them: more than are moved at once.
    let due = |n: u64| now + hour + 600_000 + if n < 12_000 { 0 } else { n };
    for from in (0..25_000_u64).step_by(1000) {
        let mut command: Vec<String> = vec!["ZADD".into(), "@delayed".into()];
        command.extend((from..from + 1000).flat_map(|n| [due(n).to_string(), format!("https://x.org/{n}.jpg")]));
        bench.raw.run::<i64>(&command.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let beat = |bench: &Bench| {
        let facts = [("k", "v".to_owned())];
        bench.runtime.block_on(bench.queue.heartbeat(&bench.worker, &facts)).unwrap();
    };
    let moved = |bench: &mut Bench| delayed(&mut bench.raw).values().filter(|at| **at < now + hour).count();
    let mut steps = Vec::new();
    for _ in 0..4 {
        beat(&bench);
        steps.push(moved(&mut bench));
    }
    assert_eq!(steps, [10_000, 20_000, 25_000, 25_000]);
    for (job, at) in delayed(&mut bench.raw) {
        let n: u64 = job.trim_start_matches("https://x.org/").trim_end_matches(".jpg").parse().unwrap();
        let back = due(n) - at;
        // As far as the clock went, to within the time that this test took to begin.
        assert!((hour - 60_000..=hour).contains(&back), "{job} was moved by {back} ms");
    }
    let meta = bench.raw.hash("meta");
    assert!(!meta.contains_key("shift_ms") && !meta.contains_key("shift_from"), "{meta:?}");
    // A job that comes in behind that waits as long as it is told.
    let far = (now + 7_200_000).to_string();
    bench.raw.run::<i64>(&["ZADD", "@delayed", &far, "https://x.org/far.jpg"]);
    beat(&bench);
    assert_eq!(bench.raw.run::<String>(&["ZSCORE", "@delayed", "https://x.org/far.jpg"]), far);
}
