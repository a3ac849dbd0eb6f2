//! Who may ask which host, told by claims and by `admit`: what their scripts decide, without any program.

use ::queue::{Admission, AdmissionRequest, Claim, ClaimRequest, ClaimedJob, HostNews, Queue, Start, WorkerName};
use common::outcome::Failure;
use harness::RawQueue;
use std::time::Duration;

const HOST: &str = "x.org";
const MINUTE: Duration = Duration::from_secs(60);

struct Bench {
    runtime: tokio::runtime::Runtime,
    queue: Queue,
    raw: RawQueue,
}

impl Bench {
    fn new() -> Bench {
        let raw = RawQueue::shared();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let queue = Queue::new(&raw.url, &raw.name).unwrap();
        Bench { runtime, queue, raw }
    }

    fn worker(&self) -> WorkerName {
        let worker = WorkerName::fresh();
        self.runtime.block_on(self.queue.register(&worker, &[])).unwrap();
        worker
    }

    /// As another one does it when the lease is over.
    fn reap(&mut self, worker: &WorkerName) {
        self.raw.run::<i64>(&["ZADD", "@workers", "1", worker.as_str()]);
        assert!(self.runtime.block_on(self.queue.recover(worker.as_str())).unwrap().is_some());
    }

    fn tell(&self, worker: &WorkerName, news: &[HostNews]) {
        self.runtime.block_on(self.queue.settle(worker, &[], news)).unwrap();
    }

    /// The host was left alone until a moment ago: who comes next tries it for all.
    fn after_a_hold(&mut self) {
        let time: Vec<u64> = self.raw.run(&["TIME"]);
        let ends = time[0] * 1000 - 1000;
        let entry = format!(r#"{{"ends":{ends},"level":1,"why":"connect"}}"#);
        self.raw.run::<i64>(&["HSET", "@hosts", HOST, &entry]);
    }

    fn entry(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.raw.run::<String>(&["HGET", "@hosts", HOST])).unwrap()
    }

    fn ask(&self, worker: &WorkerName) -> Option<Start> {
        let request = AdmissionRequest { hosts: vec![(HOST.into(), Duration::ZERO)], ..AdmissionRequest::default() };
        self.runtime.block_on(self.queue.admit(worker, &request)).unwrap().starts.remove(0)
    }

    fn claim(&self, worker: &WorkerName, number: u64, rate: Option<&str>) -> Vec<ClaimedJob> {
        let host_rate = rate.map(|rate| rate.parse().unwrap());
        let request = ClaimRequest { host_rate, ..ClaimRequest::of(10) };
        match self.runtime.block_on(self.queue.claim(worker, number, &request)).unwrap() {
            Claim::Jobs { jobs, .. } => jobs,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_a_rate_leaves_behind_of_hosts_without_end_goes_as_quickly_as_it_comes() {
    let mut bench = Bench::new();
    let worker = bench.worker();
    let mut most: usize = 0;
    for round in 0..100 {
        for n in 0..10 {
            bench.raw.push(&format!("https://h{round}-{n}.example/1.jpg"));
        }
        // A start every millisecond: over when the next ones are claimed.
        let jobs = bench.claim(&worker, round + 1, Some("1000/s"));
        assert_eq!(jobs.len(), 10);
        most = most.max(bench.raw.run(&["HLEN", "@hosts"]));
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(most < 200, "{most} of 1,000 hosts were remembered at once, each for a millisecond");
}

#[test]
fn a_probe_ends_with_its_worker_whatever_this_one_held() {
    let mut bench = Bench::new();
    let (first, second) = (bench.worker(), bench.worker());
    bench.after_a_hold();
    // For a redirect: no job of the worker says that it goes there.
    assert_eq!(bench.ask(&first), Some(Start::Probe(Failure::Connect)));
    assert_eq!(bench.ask(&second), None, "one at a time");
    bench.reap(&first);
    assert_eq!(bench.ask(&second), Some(Start::Probe(Failure::Connect)));
    // One that leaves has told what it found out, or its answer was lost.
    assert!(bench.runtime.block_on(bench.queue.unregister(&second)).unwrap());
    bench.raw.push(&format!("https://{HOST}/1.jpg"));
    let third = bench.worker();
    let jobs = bench.claim(&third, 1, None);
    assert_eq!(jobs[0].admissions, [Admission { host: HOST.into(), start: Start::Probe(Failure::Connect) }]);
}

#[test]
fn who_was_taken_for_dead_is_admitted_nowhere() {
    let mut bench = Bench::new();
    let (gone, living) = (bench.worker(), bench.worker());
    bench.reap(&gone);
    bench.after_a_hold();
    assert_eq!(bench.ask(&gone), None);
    assert_eq!(bench.ask(&living), Some(Start::Probe(Failure::Connect)));
}

#[test]
fn a_redirect_within_a_host_is_two_starts_one_after_the_other() {
    let mut bench = Bench::new();
    let worker = bench.worker();
    let job = |n| format!(r#"{{"id":"{n:032x}","url":"https://{HOST}/{n}.jpg","redirects_to":"{HOST}"}}"#);
    bench.raw.push(&job(1));
    let starts = |jobs: &[ClaimedJob]| -> Vec<Start> { jobs[0].admissions.iter().map(|one| one.start).collect() };
    let first = bench.claim(&worker, 1, Some("1/m"));
    assert_eq!(starts(&first), [Start::After(Duration::ZERO), Start::After(MINUTE)]);
    // The one who tries a host for all is not refused there.
    bench.after_a_hold();
    bench.raw.push(&job(2));
    let probe = bench.claim(&worker, 2, None);
    assert_eq!(starts(&probe), [Start::Probe(Failure::Connect), Start::After(Duration::ZERO)]);
}

#[test]
fn a_claim_ends_before_a_suspect_wherever_that_waits() {
    let mut bench = Bench::new();
    let worker = bench.worker();
    let job = |n| format!(r#"{{"id":"{n:032x}","url":"https://{HOST}/{n}.jpg"}}"#);
    bench.raw.run::<i64>(&["ZADD", "@delayed", "1", &job(1), "2", &job(2)]);
    bench.raw.run::<i64>(&["HSET", "@crashes", &format!("{:032x}", 2), "2"]);
    bench.raw.push(&job(3));
    let claimed = |number| -> Vec<String> {
        let jobs = bench.claim(&worker, number, None);
        jobs.iter().map(|job| String::from_utf8(job.payload.clone()).unwrap()).collect()
    };
    assert_eq!([claimed(1), claimed(2), claimed(3)], [[job(1)], [job(2)], [job(3)]]);
}

#[test]
fn silence_that_workers_heard_which_are_gone_is_no_majority() {
    let mut bench = Bench::new();
    let living = [(); 3].map(|()| bench.worker());
    let silent = HostNews::Silent { host: HOST.into(), reason: Failure::Connect, first: MINUTE, longest: MINUTE };
    // A worker without a way to the host that is started again and again, each time under another name.
    for _ in 0..3 {
        let bad = bench.worker();
        bench.tell(&bad, std::slice::from_ref(&silent));
        bench.reap(&bad);
    }
    bench.tell(&living[0], std::slice::from_ref(&silent));
    assert_eq!(bench.ask(&living[1]), Some(Start::After(Duration::ZERO)), "one of three");
    bench.tell(&living[1], &[silent]);
    assert_eq!(bench.ask(&living[2]), None, "two of three");
}

#[test]
fn what_a_worker_alone_waits_for_lasts_as_long_as_it_was_meant_though_the_clock_is_set_back() {
    let mut bench = Bench::new();
    let [silent, other, _] = [(); 3].map(|()| bench.worker());
    // Longer than a program of today asks for: how long is the worker's to say.
    let meant = 10 * MINUTE;
    bench.tell(
        &silent,
        &[HostNews::Silent { host: HOST.into(), reason: Failure::Connect, first: meant, longest: meant }],
    );
    assert_eq!(bench.ask(&silent), None);

    let mut entry = bench.entry();
    let hold = &mut entry["alone"][silent.as_str()];
    let ends = hold["ends"].as_u64().unwrap();
    for time in ["ends", "since"] {
        // As it would be if the clock had been an hour ahead.
        hold[time] = (hold[time].as_u64().unwrap() + 3_600_000).into();
    }
    bench.raw.run::<i64>(&["HSET", "@hosts", HOST, &entry.to_string()]);
    bench.tell(&other, &[HostNews::Answered { host: HOST.into() }]);

    assert_eq!(bench.ask(&silent), None, "it waits all the same");
    let time: Vec<u64> = bench.raw.run(&["TIME"]);
    let moved = bench.entry()["alone"][silent.as_str()]["ends"].as_u64().unwrap();
    assert!(
        (ends..=time[0] * 1000 + 1000 + meant.as_millis() as u64).contains(&moved),
        "meant to end at {ends}, and ends at {moved}"
    );
}
