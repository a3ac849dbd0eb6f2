//! Each script when its reply is lost, when it runs late, when Redis goes back in time, and when its worker was taken for
//! dead and goes on: the table in ARCHITECTURE.md, line by line.
//!
//! The operations are called; what they did is read with raw commands.

use ::queue::{
    AdmissionRequest, Chunk, Claim, ClaimRequest, ClaimedJob, DeadAction, EntryFilter, EntryRange, EntrySearch,
    HostNews, Keep, LeaseField, OpenBatch, Queue, Reconciled, RetentionChange, Settlement, Start, WaitingAt, WaitsIn,
    WorkerName,
};
use common::job::{BatchId, Job, JobId};
use common::outcome::{Failure, Outcome};
use common::report::Report;
use harness::{RawQueue, until};
use std::collections::BTreeMap;
use std::time::Duration;

/// One queue, its programs' side and its raw side.
pub(super) struct Bench {
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) queue: Queue,
    pub(super) raw: RawQueue,
    pub(super) worker: WorkerName,
    pub(super) open: OpenBatch,
    pub(super) number: u64,
}

const URLS: [&str; 3] = ["https://x.org/0.jpg", "https://x.org/1.jpg", "https://x.org/2.jpg"];

pub(super) fn batch() -> BatchId {
    BatchId::from_random(7)
}

pub(super) fn chunk(number: u64) -> Chunk {
    Chunk::of_links(batch(), number, 0, URLS.map(str::to_owned).to_vec(), true)
}

impl Bench {
    /// A registered worker and a batch of three jobs.
    fn new() -> Bench {
        Bench::on(RawQueue::shared())
    }

    pub(super) fn on(raw: RawQueue) -> Bench {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let queue = runtime.block_on(Queue::open(&raw.url, &raw.name)).unwrap();
        let worker = WorkerName::fresh();
        runtime.block_on(queue.register(&worker, &[])).unwrap();
        let open = runtime.block_on(queue.open_batch(batch(), "test", Some("a command"))).unwrap();
        let bench = Bench { runtime, queue, raw, worker, open, number: 0 };
        bench.runtime.block_on(bench.queue.push(&bench.open, &chunk(1))).unwrap();
        bench
    }

    fn claim(&mut self, number: u64, max: usize) -> Claim {
        self.number = self.number.max(number);
        self.runtime.block_on(self.queue.claim(&self.worker, number, &ClaimRequest::of(max))).unwrap()
    }

    pub(super) fn claim_all(&mut self) -> Vec<ClaimedJob> {
        let number = self.number + 1;
        match self.claim(number, 10) {
            Claim::Jobs { jobs, .. } => jobs,
            other => panic!("{other:?}"),
        }
    }

    fn reconcile(&mut self) -> Reconciled {
        self.number += 1;
        self.runtime.block_on(self.queue.reconcile(&self.worker, self.number)).unwrap()
    }

    pub(super) fn settle(&mut self, settlements: &[(LeaseField, Settlement)]) -> Vec<bool> {
        self.runtime.block_on(self.queue.settle(&self.worker, settlements, &[])).unwrap().accepted
    }

    /// Ends the lease of the worker, and recovers it as another one would.
    pub(super) fn reap(&mut self) -> Option<u64> {
        let name = self.worker.to_string();
        self.raw.run::<i64>(&["ZADD", "@workers", "1", &name]);
        self.runtime.block_on(self.queue.recover(&name)).unwrap().map(|recovered| recovered.jobs)
    }

    /// Where each job is, by its URL; fails when one is in two places or in none.
    pub(super) fn places(&mut self) -> BTreeMap<String, &'static str> {
        let mut elements: Vec<(String, &'static str)> = Vec::new();
        elements.extend(self.raw.ready().into_iter().map(|e| (e, "ready")));
        let delayed: Vec<String> = self.raw.run(&["ZRANGE", "@delayed", "0", "-1"]);
        elements.extend(delayed.into_iter().map(|e| (e, "delayed")));
        let in_flight: Vec<String> = {
            let pattern = format!("{}*", self.raw.key("inflight:")).replace('{', "\\{").replace('}', "\\}");
            let keys: Vec<String> = self.raw.run(&["KEYS", &pattern]);
            keys.iter().flat_map(|key| self.raw.run::<Vec<String>>(&["HVALS", key])).collect()
        };
        elements.extend(in_flight.into_iter().map(|e| (e, "in flight")));
        let mut places = BTreeMap::new();
        let mut put = |url: String, place| {
            let before = places.insert(url.clone(), place);
            assert_eq!(before, None, "{url} is in two places");
        };
        for (element, place) in elements {
            let json: serde_json::Value = serde_json::from_str(&element).unwrap();
            put(json["url"].as_str().unwrap().to_owned(), place);
        }
        for result in self.raw.results() {
            put(result["url"].clone(), "done");
        }
        assert_eq!(places.len(), URLS.len(), "a job is nowhere: {places:?}");
        places
    }

    fn all_are(&mut self, place: &str) {
        let places = self.places();
        assert!(places.values().all(|p| *p == place), "not all are {place}: {places:?}");
    }

    pub(super) fn snapshot(&mut self) -> Snapshot {
        let keys = self.all_keys();
        keys.into_iter()
            .map(|key| (key.clone(), redis::cmd("DUMP").arg(&key).to_owned()))
            .map(|(key, cmd)| (key, self.raw_bytes(cmd)))
            .collect()
    }

    pub(super) fn all_keys(&mut self) -> Vec<String> {
        let pattern = format!("{}*", self.raw.key("")).replace('{', "\\{").replace('}', "\\}");
        let mut keys: Vec<String> = self.raw.run(&["KEYS", &pattern]);
        // Redis lists them in another order once its table has grown, which other tests' keys make it do.
        keys.sort();
        keys
    }

    fn raw_bytes(&self, cmd: redis::Cmd) -> Vec<u8> {
        cmd.query(&mut self.connection()).unwrap()
    }

    pub(super) fn connection(&self) -> redis::Connection {
        redis::Client::open(self.raw.url.as_str()).unwrap().get_connection().unwrap()
    }

    /// Puts all keys of the queue back: what a Redis shows that was restarted from an older state.
    pub(super) fn roll_back(&mut self, snapshot: &Snapshot) {
        let mut connection = self.connection();
        for key in self.all_keys() {
            redis::cmd("DEL").arg(&key).query::<i64>(&mut connection).unwrap();
        }
        for (key, bytes) in snapshot {
            redis::cmd("RESTORE").arg(key).arg(0).arg(&bytes[..]).query::<()>(&mut connection).unwrap();
        }
    }
}

pub(super) type Snapshot = Vec<(String, Vec<u8>)>;

pub(super) fn failed(job: &ClaimedJob) -> Settlement {
    let read = Job::read(&job.payload, 0).unwrap();
    Settlement::Report(Box::new(Report {
        id: read.id,
        url: read.url,
        outcome: Outcome::Failed(Failure::Dns),
        object: None,
        status: 0,
        attempts: 1,
        duration_ms: 1,
    }))
}

pub(super) fn retry(job: &ClaimedJob) -> Settlement {
    let mut read = Job::read(&job.payload, 0).unwrap();
    read.attempts += 1;
    Settlement::Retry { job: Box::new(read), after: Duration::from_secs(60) }
}

pub(super) fn one_of_each(jobs: &[ClaimedJob]) -> Vec<(LeaseField, Settlement)> {
    vec![
        (jobs[0].field.clone(), failed(&jobs[0])),
        (jobs[1].field.clone(), retry(&jobs[1])),
        (jobs[2].field.clone(), Settlement::Release),
    ]
}

fn one_of_each_place(bench: &mut Bench) {
    let places = bench.places();
    assert_eq!(places.into_values().collect::<Vec<_>>(), ["done", "delayed", "ready"]);
    let facts = bench.raw.hash(&format!("batch:{}", batch()));
    assert_eq!((facts.get("failed").map(String::as_str), bench.raw.stream("dead").len()), (Some("1"), 1));
}

#[test]
fn enqueue_reply_lost() {
    let mut bench = Bench::new();
    let again = bench.runtime.block_on(bench.queue.push(&bench.open, &chunk(1))).unwrap();
    assert_eq!((again.enqueued, again.duplicates), (3, 0), "the same answer, nothing added");
    bench.all_are("ready");
}

#[test]
fn enqueue_ran_late() {
    let mut bench = Bench::new();
    let next = Chunk::of_links(batch(), 2, 3, vec!["https://x.org/3.jpg".into()], false);
    bench.runtime.block_on(bench.queue.push(&bench.open, &next)).unwrap();
    bench.runtime.block_on(bench.queue.push(&bench.open, &Chunk { dedup: false, ..chunk(1) })).unwrap();
    assert_eq!(bench.raw.ready_len(), 4);
}

#[test]
fn enqueue_rolled_back() {
    let mut bench = Bench::new();
    let before = bench.snapshot();
    let next = |number| Chunk::of_links(batch(), number, 3, vec![format!("https://x.org/n{number}.jpg")], true);
    bench.runtime.block_on(bench.queue.push(&bench.open, &next(2))).unwrap();
    bench.roll_back(&before);
    let told = bench.runtime.block_on(bench.queue.push(&bench.open, &next(3))).unwrap_err();
    assert!(told.to_string().contains("lost"), "{told}");
    assert_eq!(bench.raw.ready_len(), 3, "nothing behind the gap");
}

#[test]
fn seal_rolled_back() {
    let mut bench = Bench::new();
    let before = bench.snapshot();
    let next = Chunk::of_links(batch(), 2, 3, vec!["https://x.org/3.jpg".into()], true);
    bench.runtime.block_on(bench.queue.push(&bench.open, &next)).unwrap();
    bench.roll_back(&before);
    let told = bench.runtime.block_on(bench.queue.seal_batch(&bench.open, 2)).unwrap_err();
    assert!(told.to_string().contains("lost"), "{told}");
    assert!(!bench.raw.hash(&format!("batch:{}", batch())).contains_key("sealed"));
}

#[test]
fn a_batch_has_one_enqueuer_and_the_one_before_is_refused() {
    let mut bench = Bench::new();
    let taken = bench.runtime.block_on(bench.queue.take_over("another command")).unwrap();
    assert_eq!(taken, None);
    // The enqueuer before is a process with this one's number: after a restart of a container it is.
    let taken = bench.runtime.block_on(bench.queue.take_over("a command")).unwrap().expect("it was broken off");
    assert_eq!((taken.batch.id, taken.chunks, taken.links), (batch(), 1, 3));
    let snapshot = bench.snapshot();
    let next = Chunk::of_links(batch(), 2, 3, vec!["https://x.org/3.jpg".into()], false);
    for told in [
        bench.runtime.block_on(bench.queue.push(&bench.open, &next)).map(drop),
        bench.runtime.block_on(bench.queue.seal_batch(&bench.open, 2)),
        bench.runtime.block_on(bench.queue.touch_batch(&bench.open)),
    ] {
        let told = told.unwrap_err().to_string();
        assert!(told.contains("taken over"), "{told}");
    }
    assert_eq!(bench.snapshot(), snapshot, "nothing was changed");
    bench.runtime.block_on(bench.queue.push(&taken.batch, &next)).unwrap();
    bench.runtime.block_on(bench.queue.seal_batch(&taken.batch, 2)).unwrap();
    assert_eq!(bench.raw.ready_len(), 4);
    assert_eq!(bench.runtime.block_on(bench.queue.take_over("a command")).unwrap(), None, "it is sealed");
}

#[test]
fn a_batch_whose_enqueuer_lives_elsewhere_is_left_to_it_until_it_was_silent_for_long() {
    let mut bench = Bench::new();
    let key = format!("@batch:{}", batch());
    bench.raw.run::<i64>(&["HSET", &key, "enqueuer", "elsewhere:1:00000000"]);
    assert_eq!(bench.runtime.block_on(bench.queue.take_over("a command")).unwrap(), None);
    bench.raw.run::<i64>(&["HSET", &key, "seen", "1"]);
    assert!(bench.runtime.block_on(bench.queue.take_over("a command")).unwrap().is_some());
}

#[test]
fn a_suspect_that_is_adopted_is_known_as_one() {
    let mut bench = Bench::new();
    let jobs = bench.claim_all();
    let id = Job::read(&jobs[1].payload, 0).unwrap().id.to_string();
    bench.raw.run::<i64>(&["HSET", "@crashes", &id, "2"]);
    let Reconciled::Holds(adopted) = bench.reconcile() else { panic!("registered") };
    let mut crashes: Vec<(LeaseField, u32)> = adopted.into_iter().map(|job| (job.field, job.crashes)).collect();
    crashes.sort();
    assert_eq!(crashes.into_iter().map(|(_, crashes)| crashes).collect::<Vec<_>>(), [0, 2, 0]);
}

#[test]
fn a_claim_renews_the_lease() {
    let mut bench = Bench::new();
    let name = bench.worker.to_string();
    bench.raw.run::<i64>(&["ZADD", "@workers", "1", &name]);
    bench.claim_all();
    let expiry: f64 = bench.raw.run(&["ZSCORE", "@workers", &name]);
    let (seconds, _): (u64, u64) = bench.raw.run(&["TIME"]);
    assert!(expiry as u64 / 1000 >= seconds + 4, "the claim that gave out jobs left them without a lease");
    assert_eq!(bench.runtime.block_on(bench.queue.recover(&name)).unwrap(), None);
}

#[test]
fn what_waits_for_a_time_does_not_wait_longer_when_the_clock_is_set_back() {
    let mut bench = Bench::new();
    let (seconds, _): (u64, u64) = bench.raw.run(&["TIME"]);
    // Written by a clock that was an hour ahead until a moment ago.
    let hour_ms = 3_600_000;
    let ahead_ms = seconds * 1000 + hour_ms;
    bench.raw.run::<i64>(&["HSET", "@meta", "tick", &ahead_ms.to_string()]);
    bench.raw.run::<i64>(&["ZADD", "@delayed", &(ahead_ms + 2000).to_string(), "{\"url\":\"https://x.org/d.jpg\"}"]);
    let worker = bench.worker.clone();
    bench.runtime.block_on(bench.queue.heartbeat(&worker, &[("k", "v".into())])).unwrap();
    let due: Vec<(String, f64)> = bench.raw.run(&["ZRANGE", "@delayed", "0", "0", "WITHSCORES"]);
    let wait_ms = due[0].1 as i64 - (seconds * 1000) as i64;
    assert!((1000..10_000).contains(&wait_ms), "due in {wait_ms} ms");
}

#[test]
fn claim_reply_lost() {
    let mut bench = Bench::new();
    let lost = bench.claim_all();
    bench.all_are("in flight");
    let Reconciled::Holds(adopted) = bench.reconcile() else { panic!("registered") };
    let fields = |jobs: &[ClaimedJob]| -> Vec<String> { jobs.iter().map(|job| format!("{:?}", job.field)).collect() };
    let (mut lost, mut adopted) = (fields(&lost), fields(&adopted));
    lost.sort();
    adopted.sort();
    assert_eq!(lost, adopted);
}

#[test]
fn claim_ran_late() {
    let mut bench = Bench::new();
    // Claim 1 is given up; the comparison has number 2; then claim 1 runs.
    bench.number = 1;
    assert_eq!(bench.reconcile(), Reconciled::Holds(vec![]));
    assert_eq!(bench.claim(1, 10), Claim::Stale);
    bench.all_are("ready");
    assert_eq!(bench.claim_all().len(), 3);
}

#[test]
fn claim_rolled_back() {
    let mut bench = Bench::new();
    let before = bench.snapshot();
    let jobs = bench.claim_all();
    bench.roll_back(&before);
    // Another claim of the same worker must not hand out the same fields: a late settle would meet another's job.
    let again = bench.claim_all();
    assert!(
        again.iter().all(|job| jobs.iter().all(|old| old.field != job.field)),
        "a fencing token was handed out twice"
    );
    let accepted = bench.settle(&one_of_each(&jobs));
    assert_eq!(accepted, [false; 3]);
    bench.all_are("in flight");
}

#[test]
fn claim_after_being_reaped() {
    let mut bench = Bench::new();
    bench.reap();
    assert_eq!(bench.claim(1, 10), Claim::Reaped);
    bench.all_are("ready");
}

#[test]
fn who_asks_about_hosts_alone_is_told_of_them_however_many_results_there_may_be() {
    let mut bench = Bench::new();
    let (seconds, _): (u64, u64) = bench.raw.run(&["TIME"]);
    let entry = format!(r#"{{"ends":{}000,"level":1,"why":"rate_limited"}}"#, seconds + 600);
    bench.raw.run::<i64>(&["HSET", "@hosts", "held.org", &entry]);
    let waiting = vec![WaitingAt { host: "held.org".to_owned(), pace: None }];
    let ask = |bench: &mut Bench, number, max, results_max| {
        let request =
            ClaimRequest { max, results_max: Some(results_max), waiting: waiting.clone(), ..ClaimRequest::default() };
        bench.runtime.block_on(bench.queue.claim(&bench.worker, number, &request)).unwrap()
    };
    let told = ask(&mut bench, 1, 0, 1_000_000);
    let Claim::Jobs { jobs, left_alone, .. } = told else { panic!("{told:?}") };
    let held = vec!["held.org".to_owned()];
    assert_eq!((jobs.len(), &left_alone), (0, &held));
    // And where nothing is claimed: what waits in a worker goes on asking.
    bench.raw.run::<String>(&["XADD", "@results", "*", "url", "https://x.org/9.jpg", "outcome", "stored"]);
    assert_eq!(ask(&mut bench, 2, 3, 1), Claim::Full { left_alone: held.clone() });
    bench.raw.run::<i64>(&["HSET", "@meta", "paused", "1"]);
    assert_eq!(ask(&mut bench, 3, 3, 1_000_000), Claim::Paused { left_alone: held });
    bench.raw.run::<i64>(&["DEL", "@results"]);
    bench.all_are("ready");
}

/// When a host may be asked, for which somebody may have a hold and a rate to say.
fn admit(bench: &mut Bench, host: &str) -> Option<Start> {
    let hosts = vec![(host.to_owned(), Duration::from_millis(300))];
    let request = AdmissionRequest { host_rate: Some("6/m".parse().unwrap()), free_refusals: 10, hosts };
    let admitted = bench.runtime.block_on(bench.queue.admit(&bench.worker, &request)).unwrap();
    let [start] = admitted.starts.try_into().unwrap();
    start
}

fn give_back(bench: &mut Bench, host: &str, was_probe: bool) {
    let news = [HostNews::Unused { host: host.to_owned(), interval: Duration::from_secs(10), was_probe }];
    bench.runtime.block_on(bench.queue.settle(&bench.worker, &[], &news)).unwrap();
}

/// The hold of this host is just over: who comes next tries it for all.
fn hold_that_is_over(bench: &mut Bench, host: &str) {
    let (seconds, _): (u64, u64) = bench.raw.run(&["TIME"]);
    let entry = format!(r#"{{"ends":{}000,"level":1,"why":"dns"}}"#, seconds - 1);
    bench.raw.run::<i64>(&["HSET", "@hosts", host, &entry]);
}

#[test]
fn admit_reply_lost_late_or_rolled_back() {
    let mut bench = Bench::new();
    let jobs_before = bench.places();
    assert_eq!(admit(&mut bench, "rated.org"), Some(Start::After(Duration::ZERO)));
    let before = bench.snapshot();
    // The reply was lost: the start is gone with it, until somebody gives it back.
    assert_eq!(admit(&mut bench, "rated.org"), None);
    give_back(&mut bench, "rated.org", false);
    assert_eq!(admit(&mut bench, "rated.org"), Some(Start::After(Duration::ZERO)));

    hold_that_is_over(&mut bench, "held.org");
    let held = bench.snapshot();
    assert_eq!(admit(&mut bench, "held.org"), Some(Start::Probe(Failure::Dns)));
    assert_eq!(admit(&mut bench, "held.org"), None, "one tries it, as far as anybody knows");
    // Somebody else's start that is given back is not the probe, and another worker has none to give back.
    let entry = bench.raw.hash("hosts")["held.org"].clone();
    bench.raw.run::<i64>(&["HSET", "@hosts", "other.org", &entry]);
    let other = std::mem::replace(&mut bench.worker, WorkerName::fresh());
    give_back(&mut bench, "other.org", true);
    assert!(bench.raw.hash("hosts")["other.org"].contains("\"probe\""));
    bench.worker = other;
    give_back(&mut bench, "held.org", true);
    assert_eq!(admit(&mut bench, "held.org"), Some(Start::Probe(Failure::Dns)));

    // What was given out since is given out again.
    bench.roll_back(&held);
    assert_eq!(admit(&mut bench, "held.org"), Some(Start::Probe(Failure::Dns)));
    bench.roll_back(&before);
    give_back(&mut bench, "rated.org", false);
    assert_eq!(admit(&mut bench, "rated.org"), Some(Start::After(Duration::ZERO)));

    // Whoever was taken for dead and asks on is told no, and changes no job.
    bench.reap();
    assert_eq!(admit(&mut bench, "reaped.org"), None);
    assert_eq!(bench.places(), jobs_before);
}

#[test]
fn an_answer_from_before_a_refusal_ends_no_hold() {
    let mut bench = Bench::new();
    let (seconds, _): (u64, u64) = bench.raw.run(&["TIME"]);
    let entry = format!(r#"{{"ends":{}000,"level":1,"why":"rate_limited"}}"#, seconds + 600);
    bench.raw.run::<i64>(&["HSET", "@hosts", "held.org", &entry]);
    let late = [HostNews::Answered { host: "held.org".into() }];
    bench.runtime.block_on(bench.queue.settle(&bench.worker, &[], &late)).unwrap();
    assert_eq!(admit(&mut bench, "held.org"), None);
    // After its end it does.
    hold_that_is_over(&mut bench, "held.org");
    bench.runtime.block_on(bench.queue.settle(&bench.worker, &[], &late)).unwrap();
    assert_eq!(admit(&mut bench, "held.org"), Some(Start::After(Duration::ZERO)), "nobody has to try it");
}

#[test]
fn probes_end_with_their_worker() {
    let mut bench = Bench::new();
    bench.raw.run::<i64>(&["DEL", "@ready"]);
    let id = "0123456789ab80008000000000000001";
    let job = format!(r#"{{"id":"{id}","url":"http://link.org/1.jpg","redirects_to":"target.org"}}"#);
    bench.raw.push(&job);
    for host in ["link.org", "target.org", "met.org"] {
        hold_that_is_over(&mut bench, host);
    }
    let [claimed] = bench.claim_all().try_into().unwrap();
    let starts: Vec<_> = claimed.admissions.iter().map(|admission| (&*admission.host, admission.start)).collect();
    let probe = Start::Probe(Failure::Dns);
    assert_eq!(starts, [("link.org", probe), ("target.org", probe)]);
    assert_eq!(admit(&mut bench, "link.org"), None);
    // The target of a redirect that no job names.
    assert_eq!(admit(&mut bench, "met.org"), Some(probe));
    assert_eq!(bench.reap(), Some(1));
    bench.worker = WorkerName::fresh();
    bench.runtime.block_on(bench.queue.register(&bench.worker, &[])).unwrap();
    // Its start, which the dead one took.
    give_back(&mut bench, "met.org", false);
    for host in ["link.org", "target.org", "met.org"] {
        assert_eq!(admit(&mut bench, host), Some(probe), "{host}");
    }
}

#[test]
fn settle_reply_lost() {
    let mut bench = Bench::new();
    let jobs = bench.claim_all();
    assert_eq!(bench.settle(&one_of_each(&jobs)), [true; 3]);
    assert_eq!(bench.settle(&one_of_each(&jobs)), [false; 3], "the second time changes nothing");
    one_of_each_place(&mut bench);
}

#[test]
fn settle_ran_late() {
    let mut bench = Bench::new();
    let jobs = bench.claim_all();
    bench.settle(&one_of_each(&jobs));
    // The released job is claimed again, under another field; then the first settle runs once more.
    let again = bench.claim_all();
    assert_eq!(again.len(), 1);
    bench.settle(&one_of_each(&jobs));
    let places = bench.places();
    assert_eq!(places.into_values().collect::<Vec<_>>(), ["done", "delayed", "in flight"]);
}

#[test]
fn settle_rolled_back() {
    let mut bench = Bench::new();
    let jobs = bench.claim_all();
    let before = bench.snapshot();
    bench.settle(&one_of_each(&jobs));
    bench.roll_back(&before);
    bench.all_are("in flight");
    let Reconciled::Holds(adopted) = bench.reconcile() else { panic!("registered") };
    assert_eq!(adopted.len(), 3, "all are there to be adopted and settled again");
    bench.settle(&one_of_each(&jobs));
    one_of_each_place(&mut bench);
}

#[test]
fn settle_after_being_reaped() {
    let mut bench = Bench::new();
    let jobs = bench.claim_all();
    assert_eq!(bench.reap(), Some(3));
    assert_eq!(bench.settle(&one_of_each(&jobs)), [false; 3]);
    bench.all_are("ready");
    assert_eq!(bench.raw.results_len(), 0);
}

#[test]
fn heartbeat_reply_lost_late_or_rolled_back() {
    let mut bench = Bench::new();
    let beat = |bench: &Bench| bench.runtime.block_on(bench.queue.heartbeat(&bench.worker, &[])).unwrap();
    let before = bench.snapshot();
    for _ in 0..3 {
        assert!(beat(&bench).alive, "again and again");
    }
    bench.roll_back(&before);
    assert!(beat(&bench).alive);
    let time: Vec<f64> = bench.raw.run(&["TIME"]);
    let name = bench.worker.to_string();
    let expiry: f64 = bench.raw.run(&["ZSCORE", "@workers", &name]);
    assert!(expiry <= time[0] * 1000.0 + 7000.0 && expiry >= time[0] * 1000.0 + 4000.0, "one lease from now");
}

#[test]
fn heartbeat_after_being_reaped_does_not_come_back_to_life() {
    let mut bench = Bench::new();
    bench.claim_all();
    bench.reap();
    assert!(!bench.runtime.block_on(bench.queue.heartbeat(&bench.worker, &[])).unwrap().alive);
    assert!(bench.raw.workers().is_empty());
    assert!(bench.raw.hash(&format!("worker:{}", bench.worker)).is_empty());
}

#[test]
fn recover_twice_and_too_late() {
    let mut bench = Bench::new();
    let jobs = bench.claim_all();
    let order: Vec<String> = jobs.iter().map(|job| String::from_utf8(job.payload.clone()).unwrap()).collect();
    assert_eq!(bench.reap(), Some(3));
    assert_eq!(bench.raw.ready(), order, "to the front, in their order, untouched");
    let name = bench.worker.to_string();
    assert_eq!(bench.runtime.block_on(bench.queue.recover(&name)).unwrap(), None, "the second time nothing");
    // One that was alive after all, when the script rechecks.
    let other = WorkerName::fresh();
    bench.runtime.block_on(bench.queue.register(&other, &[])).unwrap();
    assert_eq!(bench.runtime.block_on(bench.queue.recover(other.as_str())).unwrap(), None);
    bench.all_are("ready");
}

#[test]
fn recover_rolled_back() {
    let mut bench = Bench::new();
    bench.claim_all();
    let before = bench.snapshot();
    bench.reap();
    bench.roll_back(&before);
    bench.all_are("in flight");
    assert_eq!(bench.reap(), Some(3));
    bench.all_are("ready");
}

#[test]
fn reconcile_after_being_reaped() {
    let mut bench = Bench::new();
    bench.claim_all();
    bench.reap();
    assert_eq!(bench.reconcile(), Reconciled::Reaped);
}

#[test]
fn unregister_while_holding_jobs_is_refused() {
    let mut bench = Bench::new();
    let jobs = bench.claim_all();
    assert!(!bench.runtime.block_on(bench.queue.unregister(&bench.worker)).unwrap());
    assert_eq!(bench.raw.workers().len(), 1, "its lease goes on, so its jobs are found");
    let all: Vec<_> = jobs.into_iter().map(|job| (job.field, Settlement::Release)).collect();
    bench.settle(&all);
    assert!(bench.runtime.block_on(bench.queue.unregister(&bench.worker)).unwrap());
    assert!(bench.runtime.block_on(bench.queue.unregister(&bench.worker)).unwrap(), "a repeated one says the same");
    assert!(bench.raw.workers().is_empty());
}

#[test]
fn run_alone_for_a_job_that_is_elsewhere_is_refused() {
    let mut bench = Bench::new();
    let jobs = bench.claim_all();
    bench.reap();
    assert!(!bench.runtime.block_on(bench.queue.run_alone(&bench.worker, &jobs[0].field)).unwrap());
    assert!(bench.raw.hash(&format!("worker:{}", bench.worker)).is_empty());
}

#[test]
fn a_batch_is_finished_once_it_is_sealed_and_all_its_jobs_are_done() {
    let mut bench = Bench::new();
    let facts = |bench: &mut Bench| bench.raw.hash(&format!("batch:{}", batch()));
    let jobs = bench.claim_all();
    let all: Vec<_> = jobs.iter().map(|job| (job.field.clone(), failed(job))).collect();
    bench.settle(&all);
    assert!(!facts(&mut bench).contains_key("finished"), "workers outran the enqueue");
    for _ in 0..2 {
        bench.runtime.block_on(bench.queue.seal_batch(&bench.open, 1)).unwrap();
    }
    assert!(facts(&mut bench).contains_key("finished"));
}

#[test]
fn dead_retry_twice_moves_once() {
    let mut bench = Bench::new();
    let jobs = bench.claim_all();
    let all: Vec<_> = jobs.iter().map(|job| (job.field.clone(), failed(job))).collect();
    bench.settle(&all);
    let dead = bench.runtime.block_on(bench.queue.dead_jobs(None, 10)).unwrap();
    for expected in [3, 0] {
        let moved = bench.runtime.block_on(bench.queue.settle_dead(DeadAction::Retry, &dead)).unwrap();
        assert_eq!((moved, bench.raw.ready_len()), (expected, 3));
    }
    let facts = bench.raw.hash(&format!("batch:{}", batch()));
    assert_eq!((facts["failed"].as_str(), facts["failed:dns"].as_str()), ("0", "0"));
}

#[test]
fn a_search_ends_where_it_is_bounded_and_goes_on_there() {
    let mut bench = Bench::new();
    let lua = "for n = 1, 1200 do local reason = n % 300 == 0 and 'gone' or 'dns' \
               redis.call('XADD', KEYS[1], n .. '-0', 'id', n, 'reason', reason) end";
    bench.raw.run::<()>(&["EVAL", lua, "1", "@results"]);
    let ask = |search: &mut EntrySearch, found_max| {
        let twice = [search.clone(), search.clone()].map(|mut search| {
            let found = bench.runtime.block_on(bench.queue.search_results(&mut search, found_max)).unwrap();
            let entries: Vec<String> = found.rows.into_iter().map(|row| row.entry).collect();
            (search, entries, found.is_end)
        });
        let [(after, entries, is_end), (_, again, _)] = twice;
        assert_eq!(entries, again, "it reads: the same is told again after a reply that was lost");
        *search = after;
        (entries.join(" "), is_end)
    };
    let filter = || EntryFilter { reason: Some("gone".into()), ..EntryFilter::default() };
    let told = |entries: &str, is_end| (entries.to_owned(), is_end);
    // 500 are looked at in a call.
    let mut search = EntrySearch::new(filter(), EntryRange::default(), false);
    assert_eq!(ask(&mut search, 10), told("300-0", false));
    assert_eq!(ask(&mut search, 10), told("600-0 900-0", false));
    assert_eq!(ask(&mut search, 10), told("1200-0", true));
    assert_eq!(ask(&mut search, 10), told("", true), "there is nothing more at the moment");
    bench.raw.run::<String>(&["XADD", "@results", "1300-0", "id", "x", "reason", "gone"]);
    assert_eq!(ask(&mut search, 10), told("1300-0", true), "now there is");
    // No more than were wanted, from the other end, within a range.
    let mut search = EntrySearch::new(filter(), EntryRange::default().since_ms(600).until_ms(1200), true);
    assert_eq!(ask(&mut search, 1), told("1200-0", false));
    assert_eq!(ask(&mut search, 1), told("900-0", false));
    assert_eq!(ask(&mut search, 1), told("600-0", false));
    assert_eq!(ask(&mut search, 1), told("", true));
    let both = EntryFilter { id: Some("900".into()), ..filter() };
    let mut search = EntrySearch::new(both, EntryRange::default().since_ms(880), false);
    assert_eq!(ask(&mut search, 10), told("900-0", true));
}

#[test]
fn purge_twice_removes_once_and_only_what_still_waits() {
    let mut bench = Bench::new();
    let purge =
        |bench: &Bench, page: &[Vec<u8>]| bench.runtime.block_on(bench.queue.purge_page(WaitsIn::Ready, page)).unwrap();
    let page = bench.runtime.block_on(bench.queue.waiting_page(WaitsIn::Ready)).unwrap();
    let before = bench.snapshot();
    // It runs late, or once more after its reply was lost: a worker was faster with the first job, and keeps it.
    let Claim::Jobs { jobs, .. } = bench.claim(1, 1) else { panic!("a job") };
    assert_eq!((purge(&bench, &page), purge(&bench, &page)), (2, 0));
    assert_eq!(bench.raw.ready_len(), 0);
    assert!(matches!(bench.reconcile(), Reconciled::Holds(held) if held.len() == 1));
    let facts = |bench: &mut Bench| bench.raw.hash(&format!("batch:{}", batch()));
    assert_eq!(facts(&mut bench)["purged"], "2");
    bench.runtime.block_on(bench.queue.seal_batch(&bench.open, 1)).unwrap();
    assert!(!facts(&mut bench).contains_key("finished"), "one is in flight");
    bench.settle(&[(jobs[0].field.clone(), failed(&jobs[0]))]);
    assert!(facts(&mut bench).contains_key("finished"));
    // Rolled back, all of them wait again, and are counted once all the same.
    bench.roll_back(&before);
    bench.all_are("ready");
    assert_eq!(purge(&bench, &page), 3);
    assert_eq!(facts(&mut bench)["purged"], "3");
}

#[test]
fn purge_reads_again_when_jobs_came_back_to_the_front() {
    let mut bench = Bench::new();
    let page = bench.runtime.block_on(bench.queue.waiting_page(WaitsIn::Ready)).unwrap();
    bench.raw.run::<i64>(&["LPUSH", "@ready", "https://x.org/given-back.jpg"]);
    assert_eq!(bench.runtime.block_on(bench.queue.purge_page(WaitsIn::Ready, &page)).unwrap(), 0);
    assert_eq!(bench.raw.ready_len(), 4);
    let page = bench.runtime.block_on(bench.queue.waiting_page(WaitsIn::Ready)).unwrap();
    assert_eq!(bench.runtime.block_on(bench.queue.purge_page(WaitsIn::Ready, &page)).unwrap(), 4);
}

#[test]
fn an_outage_longer_than_the_lease_is_nobody_s_death() {
    let mut bench = Bench::new();
    bench.claim_all();
    let name = bench.worker.to_string();
    // As after an outage: the lease is over, and nobody has ticked for a minute.
    bench.raw.run::<i64>(&["ZADD", "@workers", "1", &name]);
    bench.raw.run::<i64>(&["HSET", "@meta", "tick", "1"]);
    let other = WorkerName::fresh();
    bench.runtime.block_on(bench.queue.register(&other, &[])).unwrap();
    let heartbeat = bench.runtime.block_on(bench.queue.heartbeat(&other, &[])).unwrap();
    assert_eq!(heartbeat.expired, Vec::<String>::new());
    assert_eq!(bench.runtime.block_on(bench.queue.recover(&name)).unwrap(), None);
    bench.all_are("in flight");
}

#[test]
fn a_clock_that_was_set_back_does_not_keep_a_dead_worker_s_jobs() {
    let mut bench = Bench::new();
    let beat = |bench: &Bench| bench.runtime.block_on(bench.queue.heartbeat(&WorkerName::fresh(), &[])).unwrap();
    beat(&bench);
    let name = bench.worker.to_string();
    bench.raw.run::<i64>(&["ZADD", "@workers", "99999999999999", &name]);
    beat(&bench);
    let time: Vec<f64> = bench.raw.run(&["TIME"]);
    let expiry: f64 = bench.raw.run(&["ZSCORE", "@workers", &name]);
    assert!(expiry <= (time[0] + 1.0) * 1000.0 + 6000.0, "clamped to a lease from now");
}

#[test]
fn equal_bare_urls_are_two_jobs_with_two_ids() {
    let mut bench = Bench::new();
    bench.claim_all();
    bench.raw.push("https://x.org/same.jpg");
    bench.raw.push("https://x.org/same.jpg");
    let jobs = bench.claim_all();
    let ids: Vec<JobId> = jobs.iter().map(|job| Job::read(&job.payload, 0).unwrap().id).collect();
    assert_eq!(jobs.len(), 2);
    assert_ne!(ids[0], ids[1]);
    // Both waiting for a retry: a set would keep one of two equal members.
    let both: Vec<_> = jobs.iter().map(|job| (job.field.clone(), retry(job))).collect();
    bench.settle(&both);
    assert_eq!(bench.raw.run::<i64>(&["ZCARD", "@delayed"]), 2);
}

#[test]
fn a_thousand_jobs_move_in_one_call_each() {
    let mut bench = Bench::new();
    bench.claim_all();
    let links = (0..1000).map(|n| format!("https://x.org/many/{n}.jpg")).collect();
    bench.runtime.block_on(bench.queue.push(&bench.open, &Chunk::of_links(batch(), 2, 3, links, true))).unwrap();
    let jobs = match bench.claim(9, 1000) {
        Claim::Jobs { jobs, .. } => jobs,
        other => panic!("{other:?}"),
    };
    assert_eq!(jobs.len(), 1000);
    assert_eq!(bench.reap(), Some(1003));
    assert_eq!(bench.raw.ready_len(), 1003);
}

#[test]
fn what_is_forgotten_twice_late_or_after_a_rollback_is_what_is_old_by_then() {
    let mut bench = Bench::new();
    for job in bench.claim_all() {
        bench.settle(&[(job.field.clone(), failed(&job))]);
    }
    bench.runtime.block_on(bench.queue.seal_batch(&bench.open, 1)).unwrap();
    let id = batch().to_string();
    let key = format!("batch:{id}");
    assert!(bench.raw.hash(&key).contains_key("finished"));
    let before = bench.snapshot();
    let keep = RetentionChange { dead: Some(Keep::For(Duration::from_millis(1))), ..RetentionChange::default() };
    let forget = |bench: &mut Bench| {
        bench.runtime.block_on(bench.queue.set_retention(keep)).unwrap();
        let from: (u64, u64) = bench.raw.run(&["TIME"]);
        until("Redis' clock goes on", Duration::from_secs(60), || {
            let now: (u64, u64) = bench.raw.run(&["TIME"]);
            (now.0 * 1_000_000 + now.1 > from.0 * 1_000_000 + from.1 + 2000).then_some(())
        });
        let tidied = bench.runtime.block_on(bench.queue.tidy(true)).unwrap();
        (tidied.dead, bench.runtime.block_on(bench.queue.forget_finished_batches()).unwrap())
    };
    assert_eq!(forget(&mut bench), (3, 1));
    assert_eq!(forget(&mut bench), (0, 0), "the second one finds nothing");
    bench.roll_back(&before);
    assert_eq!(forget(&mut bench), (3, 1), "what came back goes again");
    // Late: a job of it was put back on the queue meanwhile, so that it is finished no more.
    bench.roll_back(&before);
    let dead = bench.runtime.block_on(bench.queue.dead_jobs(None, 1)).unwrap();
    bench.runtime.block_on(bench.queue.settle_dead(DeadAction::Retry, &dead)).unwrap();
    assert_eq!(forget(&mut bench), (2, 0));
    assert_eq!(bench.raw.hash(&key)["failed"], "2");
}

#[test]
fn a_queue_of_a_newer_version_is_left_as_it_is_but_for_what_a_worker_holds() {
    let mut bench = Bench::new();
    let jobs = bench.claim_all();
    bench.settle(&[(jobs[0].field.clone(), failed(&jobs[0]))]);
    let link = Chunk::of_links(batch(), 2, 3, vec!["https://x.org/9.jpg".to_owned()], false);
    bench.runtime.block_on(bench.queue.push(&bench.open, &link)).unwrap();
    let dead = bench.runtime.block_on(bench.queue.dead_jobs(None, 10)).unwrap();
    let page = bench.runtime.block_on(bench.queue.waiting_page(WaitsIn::Ready)).unwrap();
    assert_eq!((dead.len(), page.len()), (1, 1));
    bench.raw.run::<i64>(&["HSET", "@meta", "schema", "2"]);
    let before = bench.snapshot();
    let Bench { runtime, queue, open, .. } = &bench;
    let links = [URLS[0].to_owned()];
    let change = RetentionChange { dead: Some(Keep::Always), ..RetentionChange::default() };
    let refused = [
        ("enqueue", runtime.block_on(queue.push(open, &chunk(3))).map(drop)),
        ("batch_open", runtime.block_on(queue.open_batch(BatchId::from_random(8), "test", None)).map(drop)),
        ("batch_touch", runtime.block_on(queue.touch_batch(open))),
        ("batch_seal", runtime.block_on(queue.seal_batch(open, 2))),
        ("purge", runtime.block_on(queue.purge_page(WaitsIn::Ready, &page)).map(drop)),
        ("dead_retry", runtime.block_on(queue.settle_dead(DeadAction::Retry, &dead)).map(drop)),
        ("dedup_forget", runtime.block_on(queue.forget_links(&links)).map(drop)),
        ("dedup_clear", runtime.block_on(queue.forget_all_links()).map(drop)),
        ("pause", runtime.block_on(queue.set_paused(true))),
        ("add_reader", runtime.block_on(queue.add_reader("export")).map(drop)),
        ("set_retention", runtime.block_on(queue.set_retention(change))),
        ("tidy", runtime.block_on(queue.tidy(true)).map(drop)),
        ("batch_forget", runtime.block_on(queue.forget_finished_batches()).map(drop)),
        ("status", runtime.block_on(queue.status()).map(drop)),
        ("register", runtime.block_on(queue.register(&WorkerName::fresh(), &[]))),
    ];
    for (script, refused) in refused {
        let error = refused.expect_err(script).to_string();
        assert!(error.contains("newer imgq") && error.contains(queue.name()), "{script}: {error}");
        assert!(error.contains("schema 2"), "{script}: {error}");
    }
    assert_eq!(bench.snapshot(), before);
    assert_eq!(bench.claim(5, 10), Claim::Newer(2));
    assert_eq!(bench.snapshot(), before, "nor is anything claimed");

    // What it holds is its own.
    assert!(bench.runtime.block_on(bench.queue.heartbeat(&bench.worker, &[])).unwrap().alive);
    let Reconciled::Holds(held) = bench.reconcile() else { panic!("registered") };
    assert_eq!(held.len(), 2);
    let settlements = [(jobs[1].field.clone(), failed(&jobs[1])), (jobs[2].field.clone(), Settlement::Release)];
    assert_eq!(bench.settle(&settlements), [true, true]);
    assert!(bench.runtime.block_on(bench.queue.unregister(&bench.worker)).unwrap());
}
