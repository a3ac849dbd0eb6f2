//! Waiting costs next to nothing and wakes at once; a queued job takes little memory.

use harness::{Origin, Producer, RawQueue, Redis, Worker, until};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn an_idle_worker_starts_at_once_and_hardly_asks_redis_meanwhile() {
    let redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    let origin = Origin::start();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let name = queue.until_workers(1).remove(0);
    let blocked = |queue: &mut RawQueue| -> bool {
        let info: String = queue.run(&["INFO", "clients"]);
        info.contains("blocked_clients:1")
    };
    let mut waits: Vec<Duration> = (0..21)
        .map(|n| {
            until("the worker waits for jobs", SOON, || blocked(&mut queue).then_some(()));
            let pushed = Instant::now();
            queue.push(&origin.url(&format!("{n}/100.gif")));
            until("the job is started", SOON, || (origin.requests_in_all() > n).then_some(()));
            pushed.elapsed()
        })
        .collect();
    waits.sort();
    // The figure is in docs/performance.md, measured alone; here it shares two cores with other tests and only has to be
    // no poll.
    eprintln!("picked up after {:?} (median), {:?} (worst)", waits[10], waits[20]);
    assert!(waits[10] < Duration::from_millis(100), "{waits:?}");

    let commands = |queue: &mut RawQueue| -> u64 {
        let info: String = queue.run(&["INFO", "commandstats"]);
        info.lines()
            // Those of this test, and what scripts look at before they begin, which nobody asks Redis for over the wire.
            .filter(|line| !["info:", "hget", "type:"].iter().any(|ours| line.starts_with(&format!("cmdstat_{ours}"))))
            .filter_map(|line| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok())
            .sum()
    };
    let seen = |queue: &mut RawQueue| queue.hash(&format!("worker:{name}"))["seen"].parse::<u64>().unwrap();
    let (before, since) = (commands(&mut queue), seen(&mut queue));
    let until_seen = until("a few heartbeats", SOON, || Some(seen(&mut queue)).filter(|at| *at >= since + 4000));
    let per_second = (commands(&mut queue) - before) as f64 * 1000.0 / (until_seen - since) as f64;
    eprintln!("{per_second:.1} commands a second while idle");
    // 11 to 17. In these few seconds there may also be a line of history, and the look for what can be forgotten that comes once a minute: 25
    // were seen with them.
    assert!(per_second < 50.0, "{per_second} commands a second while idle");
}

#[test]
fn a_queued_job_with_a_31_character_url_takes_at_most_110_bytes() {
    let redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    let links: String = (0..20_000).map(|n| format!("https://i.imgur.com/{n:07}.jpg\n")).collect();
    assert_eq!(links.lines().next().unwrap().len(), 31);
    let enqueue = Producer::command(&queue, &["enqueue", "-", "--no-dedup", "--json"]);
    let enqueued = harness::programs::finish(enqueue, links.as_bytes(), SOON);
    assert_eq!(enqueued.json()["enqueued"], 20_000, "{enqueued:?}");
    let bytes: u64 = queue.run(&["MEMORY", "USAGE", "@ready", "SAMPLES", "0"]);
    let per_job = bytes as f64 / 20_000.0;
    eprintln!("{per_job:.1} bytes a job");
    assert!(per_job <= 110.0, "{per_job} bytes a job");
}
