//! Redirects between hosts: whoever is asked has its rate, its holds, its places and its circuit breaker, whether a link or a redirect
//! leads there.

use super::politeness::{HELD_FOR, LEFT_ALONE_S, keeps_to};
use harness::origin::Mood;
use harness::queue::Entry;
use harness::{Origin, RawQueue, Worker, until};
use std::net::TcpListener;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Links at each of `doors` that all lead to `target`, in turn.
fn push_redirects(queue: &mut RawQueue, doors: &[Origin], target: &str, count: usize) {
    for n in 0..count {
        let door = &doors[n % doors.len()];
        queue.push(&door.url(&format!("to/{target}/{n}/300.gif")));
    }
}

fn all_stored_at_once(results: &[Entry]) {
    for result in results {
        assert_eq!((result["outcome"].as_str(), result["attempts"].as_str()), ("stored", "1"), "{result:?}");
    }
}

/// What the fleet remembers of a host, as JSON; empty where that is nothing.
fn remembered(queue: &mut RawQueue, host: &str) -> String {
    queue.run::<Option<String>>(&["HGET", "@hosts", host]).unwrap_or_default()
}

#[test]
fn a_target_has_its_rate_whoever_leads_there() {
    let (doors, target) = ([Origin::start(), Origin::start(), Origin::start()], Origin::start());
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    push_redirects(&mut queue, &doors, &target.host(), 90);
    let _workers: Vec<_> = (0..2).map(|_| Worker::start(&queue, storage.path(), &["--host-rate", "20/s"])).collect();
    all_stored_at_once(&queue.until_results(90, SOON));
    assert_eq!(target.times().len(), 90, "each was asked for once");
    keeps_to(20, &target.times());
    let asked: usize = doors.iter().map(Origin::requests_in_all).sum();
    assert!(asked <= 2 * 90, "{asked} requests at the doors: those who wait do not ask again and again");
}

#[test]
fn a_redirect_within_a_host_is_two_requests_there() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    for n in 0..30 {
        queue.push(&origin.url(&format!("redirect/{n}/300.gif")));
    }
    let _worker = Worker::start(&queue, storage.path(), &["--host-rate", "20/s"]);
    all_stored_at_once(&queue.until_results(30, SOON));
    assert!(origin.times().len() >= 60, "{} requests", origin.times().len());
    keeps_to(20, &origin.times());
}

#[test]
fn a_target_that_refuses_is_left_alone_and_those_who_lead_there_are_not() {
    let (doors, target) = ([Origin::start(), Origin::start()], Origin::start());
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    target.set_mood(Mood::Refusing(Some(LEFT_ALONE_S.to_owned())));
    push_redirects(&mut queue, &doors, &target.host(), 20);
    let _workers: Vec<_> =
        (0..2).map(|_| Worker::start(&queue, storage.path(), &["--max-attempts", "1", "--concurrency", "4"])).collect();
    let refused_at = until("it refuses", SOON, || target.times().first().copied());
    until("all wait in delayed", HELD_FOR, || (queue.run::<usize>(&["ZCARD", "@delayed"]) == 20).then_some(()));
    assert!(remembered(&mut queue, &target.host()).contains("\"ends\""), "the target is left alone");
    assert_eq!(queue.run::<Vec<String>>(&["ZRANGE", "@hosts:held", "0", "-1"]), [target.host()]);
    for door in &doors {
        assert_eq!(remembered(&mut queue, &door.host()), "", "those who lead there did nothing wrong");
    }
    for waiting in queue.run::<Vec<String>>(&["ZRANGE", "@delayed", "0", "-1"]) {
        let job: serde_json::Value = serde_json::from_str(&waiting).unwrap();
        assert_eq!((job["redirects_to"].as_str(), &job["attempts"]), (Some(&*target.host()), &serde_json::Value::Null));
    }
    // Images of the doors themselves are not held up.
    for (n, door) in doors.iter().enumerate() {
        queue.push(&door.url(&format!("{n}/400.gif")));
    }
    all_stored_at_once(&queue.until_results(2, HELD_FOR.saturating_sub(refused_at.elapsed())));
    let asked = target.times().len();
    target.set_mood(Mood::Kind);
    all_stored_at_once(&queue.until_results(22, SOON));
    let meanwhile = target.times().iter().filter(|at| **at - refused_at < HELD_FOR).count();
    assert_eq!(meanwhile, asked, "requests of a target that wants to be left alone for {HELD_FOR:?}");
}

#[test]
fn a_target_has_its_places_and_those_who_wait_for_one_fill_no_slots() {
    let (doors, target, other) = ([Origin::start(), Origin::start()], Origin::start(), Origin::start());
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    target.hold();
    push_redirects(&mut queue, &doors, &target.host(), 24);
    let arguments = ["--host-concurrency", "2", "--concurrency", "6"];
    let _worker = Worker::start(&queue, storage.path(), &arguments);
    until("its places are taken", SOON, || (target.requests_in_all() == 2).then_some(()));
    // Six slots, two of which are held at the target: these get through only when those who wait for a place there let go of theirs.
    for n in 0..40 {
        queue.push(&other.url(&format!("{n}/300.gif")));
    }
    all_stored_at_once(&queue.until_results(40, SOON));
    assert_eq!(target.requests_in_all(), 2, "no more than its places");
    target.let_go();
    all_stored_at_once(&queue.until_results(64, SOON));
}

#[test]
fn a_target_that_is_down_is_left_alone_and_its_doors_are_not() {
    let doors = [Origin::start()];
    let target = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().to_string()
    };
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    push_redirects(&mut queue, &doors, &target, 40);
    let _worker = Worker::start(&queue, storage.path(), &["--retry-delay", "20s"]);
    until("the target is left alone", SOON, || remembered(&mut queue, &target).contains("\"ends\"").then_some(()));
    assert!(remembered(&mut queue, &target).contains("\"connect\""));
    for n in 0..10 {
        queue.push(&doors[0].url(&format!("{n}/300.gif")));
    }
    all_stored_at_once(&queue.until_results(10, SOON));
    assert_eq!(remembered(&mut queue, &doors[0].host()), "");
}

#[test]
fn a_chain_of_hosts_asks_each_and_ends_at_the_last() {
    let (doors, target) = ([Origin::start(), Origin::start()], Origin::start());
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let [first, second] = &doors;
    queue.push(&first.url(&format!("to/{}/to/{}/1/300.gif", second.host(), target.host())));
    // There and back: a host that is visited twice.
    queue.push(&first.url(&format!("to/{}/to/{}/2/300.gif", second.host(), first.host())));
    let _worker = Worker::start(&queue, storage.path(), &["--host-concurrency", "1"]);
    all_stored_at_once(&queue.until_results(2, SOON));
    assert_eq!((first.requests_in_all(), second.requests_in_all(), target.requests_in_all()), (3, 2, 1));
}

#[test]
fn a_redirect_to_where_nobody_goes_uses_the_rate_up() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    for n in 0..60 {
        queue.push(&origin.url(&format!("to-metadata?n={n}")));
    }
    let _worker = Worker::start(&queue, storage.path(), &["--host-rate", "20/s"]);
    let results = queue.until_results(60, SOON);
    assert!(results.iter().all(|result| result["reason"] == "blocked_address"), "{results:?}");
    assert_eq!(origin.times().len(), 60);
    keeps_to(20, &origin.times());
}

#[test]
fn redirects_at_a_slow_rate_come_to_an_end() {
    let (doors, other) = ([Origin::start(), Origin::start(), Origin::start()], Origin::start());
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let [once, twice, there] = &doors;
    queue.push(&once.url("redirect/1/300.gif"));
    queue.push(&twice.url("redirect/redirect/2/300.gif"));
    // There and back.
    queue.push(&there.url(&format!("to/{}/to/{}/3/300.gif", other.host(), there.host())));
    let _worker = Worker::start(&queue, storage.path(), &["--host-rate", "1/s"]);
    // A second start of a host is further away than a redirect waits for it: the job waits, and then has all starts that it needs.
    // So does one whose link has to be escaped in its job.
    let escaped = Origin::start();
    queue.push(&escaped.url(r"redirect/4/300.gif?f=d\1.jpg"));
    all_stored_at_once(&queue.until_results(4, SOON));
    assert!((3..=4).contains(&escaped.requests_in_all()), "{} requests", escaped.requests_in_all());
    let asked = |origin: &Origin| origin.requests_in_all();
    assert!((3..=4).contains(&asked(once)), "{} requests for one redirect", asked(once));
    assert!((4..=8).contains(&asked(twice)), "{} requests for two redirects", asked(twice));
    assert!((3..=6).contains(&(asked(there))), "{} requests there and back", asked(there));
}
