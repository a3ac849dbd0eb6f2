//! Tests of the dispatcher, with a queue that answers as it is told and a clock that stands still.

use super::answers::WAKE_JITTER_US;
use super::questions::{GATHER, HOSTS_EVERY, STORAGE_WAIT};
use super::*;
use crate::cli::Config;
use crate::fetch::Fetcher;
use crate::hosts::Places as _;
use crate::judge::ImageJudge;
use crate::testing::{Question, ScriptedQueue, field, job, jobs};
use queue::WorkerName;
use queue::{Claim, ClaimedJob};
use storage::Storage;

/// A dispatcher, and all that is around it.
struct Bench {
    dispatcher: Dispatcher,
    queue: Arc<ScriptedQueue>,
    outgoing: mpsc::UnboundedReceiver<Outgoing>,
    stage: watch::Sender<Stage>,
    reaped: watch::Sender<bool>,
    _storage: (tempfile::TempDir, Arc<Storage>),
}

fn bench(flags: &[&str]) -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config::of(flags);
    let content = Arc::default();
    let judge = Arc::new(ImageJudge(Arc::clone(&content)));
    let storage = Storage::open(folder.path(), config.concurrency, config.sync, judge).expect("a storage");
    let storage = Arc::new(storage);
    let metrics = Arc::new(Metrics::new(1));
    let fetcher = Fetcher::new(&config, Arc::clone(&content), Arc::clone(&metrics)).expect("usable");
    let processor = Processor::new(&config, content, fetcher, Arc::clone(&storage), Arc::clone(&metrics));
    let queue = Arc::new(ScriptedQueue::default());
    let (stage, shutdown) = watch::channel(Stage::Running);
    let (reaped_sender, reaped) = watch::channel(false);
    let (outgoing, receiver) = mpsc::unbounded_channel();
    let nobody = Arc::new(queue::Queue::new("redis://127.0.0.1:1/0", "q").expect("a URL"));
    let (admissions, _) = Admissions::new(nobody, WorkerName::fresh(), config.host_rate, 0, Box::new(|_| {}));
    let dispatcher = Dispatcher::new(Dependencies {
        calls: Arc::clone(&queue) as Arc<dyn QueueCalls>,
        ledger: Arc::new(Ledger::new(Arc::clone(&metrics))),
        processor: Arc::new(processor),
        metrics,
        storage: Arc::clone(storage.health()),
        limits: Limits {
            concurrency: config.concurrency,
            host_concurrency: config.host_concurrency,
            host_rate: config.host_rate,
            results_max: config.results_max,
            retry: config.retry,
        },
        vitals: Arc::new(Vitals::new()),
        tally: Arc::new(HostTally::new()),
        admissions,
        outgoing,
        shutdown: Shutdown::at(shutdown),
        reaped,
    });
    Bench { dispatcher, queue, outgoing: receiver, stage, reaped: reaped_sender, _storage: (folder, storage) }
}

impl Bench {
    /// The next question that Redis is asked, after the dispatcher went on.
    fn goes_on(&mut self) -> Option<Question> {
        let before = self.queue.questions().len();
        assert_eq!(self.dispatcher.go_on(), None);
        self.queue.questions().get(before).cloned()
    }

    /// Redis answers what it was asked.
    fn answer(&mut self, answer: Answer) -> Option<End> {
        assert!(self.dispatcher.asked.take().is_some(), "nothing was asked");
        self.dispatcher.handle(Event::Answered(answer))
    }

    fn answer_claim(&mut self, claim: Claim) {
        let context = match &self.dispatcher.asked {
            Some(Asked::Claim(_, context)) => *context,
            _ => panic!("no claim was asked"),
        };
        assert_eq!(self.answer(Answer::Claim(Ok(claim), context, Duration::ZERO)), None);
    }

    fn answer_comparison(&mut self, holds: Vec<ClaimedJob>) {
        assert_eq!(self.answer(Answer::Comparison(Ok(Reconciled::Holds(holds)))), None);
    }

    /// None of the objects that are looked for is there. What starts then never ends by itself.
    fn finds_no_object(&mut self) {
        let claimed: Vec<Claimed> = self.dispatcher.look_ups.take_back().collect();
        let found = claimed.iter().map(|_| None).collect();
        assert_eq!(self.dispatcher.handle(Event::LookedUp((claimed, found))), None);
        self.dispatcher.slots.stall();
    }

    /// The attempts at jobs are over, and all come to nothing.
    fn ends(&mut self, fields: &[queue::LeaseField]) {
        for attempt in self.dispatcher.slots.abandon(|field| fields.contains(field)) {
            self.dispatcher.exit.end(attempt.job, &attempt.trail, true, Ending::Untold, Settlement::Release);
        }
    }

    /// Fields of the jobs that left, in their order.
    fn left(&mut self) -> Vec<queue::LeaseField> {
        let mut left = Vec::new();
        while let Ok(outgoing) = self.outgoing.try_recv() {
            if let Outgoing::Job(job, _) = outgoing {
                left.push(job.field);
            }
        }
        left
    }
}

fn link(n: usize) -> String {
    format!("http://host-{n}.example/{n}.jpg")
}

fn claimed_jobs(numbers: std::ops::Range<usize>) -> Claim {
    jobs(numbers.map(|n| job(n, &link(n))).collect())
}

#[tokio::test(start_paused = true)]
async fn a_redis_that_is_away_is_not_stormed_whatever_happens_meanwhile() {
    let mut bench = bench(&[]);
    bench.queue.is_away.store(true, std::sync::atomic::Ordering::Relaxed);
    let hosts = Arc::clone(&bench.dispatcher.hosts);
    let ledger = Arc::clone(&bench.dispatcher.ledger);
    let busy = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Arc::clone(&hosts).leave(&Arc::from("somewhere"));
            ledger.forget(&field(0));
        }
    };
    tokio::select! {
        end = bench.dispatcher.run() => panic!("{end:?}"),
        () = busy => {}
        () = tokio::time::sleep(Duration::from_secs(10)) => {}
    }
    let asked = bench.queue.questions().len();
    // 50 ms, doubling to 1 s, half of it jitter.
    assert!((10..=30).contains(&asked), "asked {asked} times in 10 s");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_jobs_goes_on_when_something_else_happens() {
    let mut bench = bench(&[]);
    bench.queue.claims.lock().expect("not poisoned").extend((0..100).map(|_| jobs(Vec::new())));
    let ledger = Arc::clone(&bench.dispatcher.ledger);
    let busy = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            ledger.forget(&field(0));
        }
    };
    tokio::select! {
        end = bench.dispatcher.run() => panic!("{end:?}"),
        () = busy => {}
    }
    let questions = bench.queue.questions();
    let waits = questions.iter().filter(|question| **question == Question::UntilReady).count();
    let claims = questions.iter().filter(|question| **question == Question::Claim(64)).count();
    assert_eq!((waits, claims), (1, 20), "each event is followed by a claim, and the wait stays the same");
    assert_eq!(bench.queue.dropped_waits.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn after_a_push_the_claims_of_a_fleet_are_spread() {
    let mut waits = Vec::new();
    for _ in 0..30 {
        let mut bench = bench(&[]);
        bench.dispatcher.idle(Duration::from_secs(1), true);
        bench.queue.pushed.notify_one();
        let pushed = now();
        let event = bench.dispatcher.next_event().await;
        assert!(matches!(event, Event::JobsThere(Ok(()))));
        bench.dispatcher.handle(event);
        let Rest::Pause { until } = bench.dispatcher.rest else { panic!("{:?}", bench.dispatcher.rest) };
        waits.push(until - pushed);
    }
    assert!(waits.iter().all(|wait| *wait < Duration::from_micros(WAKE_JITTER_US)));
    assert!(waits.iter().max() > waits.iter().min(), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_compared_while_a_claim_is_under_way() {
    let mut bench = bench(&[]);
    assert_eq!(bench.goes_on(), Some(Question::Claim(64)));
    tokio::time::advance(COMPARE_EVERY * 2).await;
    bench.queue.generation.store(7, std::sync::atomic::Ordering::Relaxed);
    for _ in 0..3 {
        bench.dispatcher.handle(Event::PlaceFreed);
        assert_eq!(bench.goes_on(), None);
    }
    bench.answer_claim(claimed_jobs(0..1));
    assert_eq!(bench.goes_on(), Some(Question::Reconcile));
    bench.answer_comparison(vec![job(0, &link(0))]);
    assert_eq!(bench.goes_on(), Some(Question::Claim(63)));
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_the_answer_of_a_claim_and_being_dead_for_nothing_else() {
    let mut bench = bench(&[]);
    assert_eq!(bench.goes_on(), Some(Question::Claim(64)));
    bench.stage.send_replace(Stage::Finishing);
    assert_eq!(bench.dispatcher.go_on(), None, "its jobs would be nobody's");
    bench.answer_claim(claimed_jobs(0..2));
    assert_eq!(bench.dispatcher.go_on(), Some(End::Stopping));
    bench.reaped.send_replace(true);
    assert_eq!(bench.dispatcher.go_on(), Some(End::Reaped));
}

#[tokio::test(start_paused = true)]
async fn what_redis_lacks_is_given_up_and_what_memory_lacks_is_adopted() {
    let mut bench = bench(&["--host-concurrency", "1"]);
    bench.goes_on();
    let same_host = |n: usize| job(n, &format!("http://one.example/{n}.jpg"));
    bench.answer_claim(jobs((0..4).map(same_host).collect()));
    bench.finds_no_object();
    assert_eq!((bench.dispatcher.slots.running(), bench.dispatcher.hosts.gate().waiting()), (1, 3));
    bench.dispatcher.ask_to_compare();
    // 0 runs and 1 waits, and both are lost; 7 comes from a claim whose answer was lost.
    bench.answer_comparison(vec![same_host(2), same_host(3), job(7, &link(7))]);
    assert_eq!(bench.dispatcher.ledger.held(), 3);
    assert_eq!(bench.dispatcher.look_ups.jobs(), 1, "the adopted one's object is looked for");
    assert_eq!(bench.left(), [], "of jobs that are elsewhere nobody hears");
    assert_eq!(bench.dispatcher.hosts.gate().waiting() + bench.dispatcher.slots.running(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_waits_for_the_others_and_runs_alone() {
    let mut bench = bench(&[]);
    bench.goes_on();
    bench.answer_claim(claimed_jobs(0..1));
    bench.finds_no_object();
    bench.dispatcher.ask_to_compare();
    let suspects = [1, 2].map(|n| ClaimedJob { crashes: 2, runs_alone: true, ..job(n, &link(n)) });
    bench.answer_comparison(vec![job(0, &link(0)), suspects[0].clone(), suspects[1].clone()]);
    let ledger = Arc::clone(&bench.dispatcher.ledger);
    let settle = |n: usize| ledger.settled(std::iter::once(&field(n)));
    tokio::time::advance(COMPARE_EVERY).await;
    for _ in 0..3 {
        bench.dispatcher.handle(Event::LedgerChanged);
        assert_eq!(bench.goes_on(), None, "nothing is asked while another job is held");
    }
    bench.ends(&[field(0)]);
    settle(0);
    for n in [1, 2] {
        bench.dispatcher.handle(Event::LedgerChanged);
        assert_eq!(bench.goes_on(), Some(Question::RunAlone(field(n))));
        assert_eq!(bench.dispatcher.slots.running(), 0, "it is marked before it runs");
        bench.answer(Answer::Mark(Ok(true)));
        assert_eq!(bench.dispatcher.slots.running(), 1);
        assert_eq!(bench.goes_on(), None, "nothing is asked while it runs");
        bench.ends(&[field(n)]);
        bench.dispatcher.handle(Event::LedgerChanged);
        assert_eq!(bench.goes_on(), None, "nor before Redis knows how it ended");
        settle(n);
    }
    bench.dispatcher.handle(Event::LedgerChanged);
    assert_eq!(bench.goes_on(), Some(Question::Reconcile), "then all goes on");
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_cannot_be_marked_is_tried_again_and_one_that_is_elsewhere_is_not_run() {
    let mut bench = bench(&[]);
    bench.goes_on();
    bench.answer_claim(jobs(vec![ClaimedJob { crashes: 2, runs_alone: true, ..job(1, &link(1)) }]));
    assert_eq!(bench.goes_on(), Some(Question::RunAlone(field(1))));
    bench.answer(Answer::Mark(Err(crate::testing::away())));
    assert_eq!(bench.goes_on(), None);
    tokio::time::advance(Duration::from_millis(50)).await;
    bench.dispatcher.handle(Event::TimeCame);
    assert_eq!(bench.goes_on(), Some(Question::RunAlone(field(1))));
    bench.answer(Answer::Mark(Ok(false)));
    assert_eq!((bench.dispatcher.slots.running(), bench.dispatcher.ledger.held()), (0, 0));
    assert_eq!(bench.goes_on(), Some(Question::Claim(64)));
}

#[tokio::test(start_paused = true)]
async fn few_slots_that_are_free_gather_before_a_claim() {
    let mut bench = bench(&["--concurrency", "8"]);
    bench.goes_on();
    bench.answer_claim(claimed_jobs(0..8));
    bench.finds_no_object();
    bench.ends(&[field(0)]);
    bench.dispatcher.handle(Event::PlaceFreed);
    assert_eq!(bench.goes_on(), None, "one slot is free");
    bench.ends(&[field(1)]);
    bench.dispatcher.handle(Event::PlaceFreed);
    assert_eq!(bench.goes_on(), None, "an event does not end the wait");
    tokio::time::advance(GATHER).await;
    bench.dispatcher.handle(Event::TimeCame);
    assert_eq!(bench.goes_on(), Some(Question::Claim(2)), "one claim for both");
}

#[tokio::test(start_paused = true)]
async fn while_jobs_wait_redis_is_asked_about_their_hosts() {
    let mut bench = bench(&["--concurrency", "2", "--host-concurrency", "2"]);
    bench.goes_on();
    bench.answer_claim(jobs((0..20).map(|n| job(n, &format!("http://one.example/{n}.jpg"))).collect()));
    bench.finds_no_object();
    assert_eq!(bench.goes_on(), None, "there is enough to do");
    tokio::time::advance(HOSTS_EVERY).await;
    bench.dispatcher.handle(Event::TimeCame);
    assert_eq!(bench.goes_on(), Some(Question::Claim(0)));
    let left_alone = vec!["one.example".to_owned()];
    let (jobs, dropped) = (Vec::new(), Vec::new());
    bench.answer_claim(Claim::Jobs { jobs, next_due: None, more: false, left_alone, dropped, unknown: Vec::new() });
    assert_eq!(bench.left().len(), 18, "what waits for a host that is left alone goes back");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_left_alone_takes_back_the_leave_of_those_who_wait_to_go_there() {
    let mut bench = bench(&["--concurrency", "2", "--host-concurrency", "2"]);
    bench.goes_on();
    let to_cdn = |n: usize| {
        let id = format!("{n:012x}80008000{:012x}", n);
        let payload =
            format!(r#"{{"id":"{id}","url":"http://one.example/{n}.jpg","redirects_to":"cdn.example img.example"}}"#);
        job(n, &payload)
    };
    let plain = |n: usize| job(n, &format!("http://one.example/{n}.jpg"));
    bench.answer_claim(jobs((0..4).map(plain).chain((4..10).map(to_cdn)).collect()));
    bench.finds_no_object();
    assert_eq!(bench.goes_on(), None, "there is enough to do");
    tokio::time::advance(HOSTS_EVERY).await;
    bench.dispatcher.handle(Event::TimeCame);
    assert_eq!(bench.goes_on(), Some(Question::Claim(0)));
    let mut named = bench.queue.named.lock().expect("not poisoned").clone();
    named.sort();
    assert_eq!(named, ["cdn.example", "img.example", "one.example"]);
    let left_alone = vec!["cdn.example".to_owned()];
    let (jobs, dropped) = (Vec::new(), Vec::new());
    bench.answer_claim(Claim::Jobs { jobs, next_due: None, more: false, left_alone, dropped, unknown: Vec::new() });
    let (left, mut to_cdn) = (bench.left(), (4..10).map(field).collect::<Vec<_>>());
    to_cdn.retain(|field| !left.contains(field));
    assert_eq!((left.len(), to_cdn), (6, Vec::new()), "these and nobody else");
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_elsewhere_ends_the_worker() {
    let mut bench = bench(&[]);
    bench.goes_on();
    let error = QueueError::Cluster { address: "redis".into(), why: "MOVED".into() };
    let context = match &bench.dispatcher.asked {
        Some(Asked::Claim(_, context)) => *context,
        _ => panic!("no claim was asked"),
    };
    let end = bench.answer(Answer::Claim(Err(error.clone()), context, Duration::ZERO));
    assert_eq!(end, Some(End::Lost(error)));
}

#[tokio::test(start_paused = true)]
async fn objects_on_their_way_into_the_storage_are_bounded() {
    let mut bench = bench(&["--concurrency", "2", "--host-concurrency", "20"]);
    bench.goes_on();
    bench.answer_claim(claimed_jobs(0..20));
    bench.finds_no_object();
    let mut most = 0;
    for _ in 0..10 {
        let running = bench.dispatcher.slots.running();
        most = most.max(running);
        assert!(bench.dispatcher.slots.downloading() <= 2);
        // All bodies are whole, and no object is stored.
        bench.dispatcher.slots.free_all();
        bench.dispatcher.handle(Event::PlaceFreed);
    }
    assert_eq!(most, 6);
}

#[tokio::test(start_paused = true)]
async fn with_a_bad_storage_nothing_is_claimed_and_what_waits_goes_back() {
    let mut bench = bench(&["--concurrency", "1"]);
    bench.goes_on();
    bench.answer_claim(claimed_jobs(0..3));
    bench.finds_no_object();
    bench.dispatcher.storage.set_bad("full");
    assert_eq!(bench.goes_on(), None);
    assert_eq!(bench.left().len(), 2, "the one that runs goes on");
    assert_eq!(bench.dispatcher.rest.until(), Some(now() + STORAGE_WAIT));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_finish_in_time_goes_back_in_its_order_and_each_job_leaves_once() {
    for is_second_signal in [false, true] {
        let mut bench = bench(&["--concurrency", "6"]);
        bench.goes_on();
        bench.answer_claim(claimed_jobs(0..10));
        bench.finds_no_object();
        bench.stage.send_replace(Stage::Finishing);
        // One more was claimed, and the answer was lost.
        let holds = (0..11).map(|n| job(n, &link(n))).collect();
        bench.queue.comparisons.lock().expect("not poisoned").push_back(Reconciled::Holds(holds));
        let begun = now();
        let Bench { dispatcher, mut outgoing, stage, .. } = bench;
        let second = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if is_second_signal {
                stage.send_replace(Stage::GivingBack);
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        };
        tokio::select! {
            () = dispatcher.finish(begun + Duration::from_secs(5)) => {}
            () = second => panic!("it has not finished"),
        }
        let took = now() - begun;
        let expected = Duration::from_secs(if is_second_signal { 1 } else { 5 });
        assert!(took >= expected && took < expected + Duration::from_millis(10), "{took:?}");
        let mut left = Vec::new();
        while let Ok(outgoing) = outgoing.try_recv() {
            if let Outgoing::Job(job, _) = outgoing {
                left.push(job.field.order().1 - 1);
            }
        }
        let in_order: Vec<u64> = [6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 10].into();
        assert_eq!(left, in_order, "first what had not begun, then what had, then what nobody knew");
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_is_gone_is_no_death() {
    let (sender, mut reaped) = watch::channel(false);
    drop(sender);
    let waited = tokio::time::timeout(Duration::from_secs(60), until_reaped(&mut reaped)).await;
    assert!(waited.is_err(), "or waits for it would end at once, again and again");
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_time_has_come_while_all_slots_are_taken_keeps_nobody_busy() {
    use futures_util::FutureExt as _;
    let mut bench = bench(&["--concurrency", "1", "--host-rate", "50/s"]);
    bench.goes_on();
    let start = queue::Start::After(Duration::from_millis(10));
    let admissions = vec![queue::Admission { host: "host-1.example".into(), start }];
    bench.answer_claim(jobs(vec![ClaimedJob { admissions, ..job(1, &link(1)) }]));
    bench.finds_no_object();
    // While it waits for its time another one takes the slot.
    bench.goes_on();
    bench.answer_claim(jobs(vec![job(0, &link(0))]));
    bench.finds_no_object();
    tokio::time::advance(Duration::from_millis(20)).await;
    let mut events = 0;
    while let Some(event) = bench.dispatcher.next_event().now_or_never() {
        bench.dispatcher.handle(event);
        events += 1;
        assert!(events < 10, "there is no slot for it");
    }
    bench.ends(&[field(0)]);
    bench.dispatcher.handle(Event::PlaceFreed);
    assert_eq!(bench.dispatcher.slots.running(), 1, "with a slot it starts");
}
