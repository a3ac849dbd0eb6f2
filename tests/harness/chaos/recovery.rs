//! How fast the jobs of a killed worker run elsewhere: many kills, each on a queue of its own, with other workers idle or
//! busy.

use crate::{Origin, RawQueue, Redis, Worker};
use std::time::{Duration, Instant};

/// What was measured.
#[derive(Debug)]
pub struct Recovery {
    /// From the kill to the last of its jobs in another worker's hands, sorted.
    pub times: Vec<Duration>,
}

impl Recovery {
    /// The time that `share` of the kills were recovered within.
    pub fn quantile(&self, share: f64) -> Duration {
        let index = (self.times.len() as f64 * share).ceil() as usize;
        self.times.get(index.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// Kills `kills` workers, `at_once` side by side. With `busy` the other workers have all slots but two taken.
///
/// # Panics
/// When something does not start, or a job is not recovered within a minute.
pub fn measure(kills: usize, at_once: usize, busy: bool) -> Recovery {
    let redis = Redis::private(&[]);
    let mut times: Vec<Duration> = Vec::with_capacity(kills);
    while times.len() < kills {
        let round = at_once.min(kills - times.len());
        times.extend(std::thread::scope(|scope| {
            let kills: Vec<_> = (0..round).map(|_| scope.spawn(|| one(&redis, busy))).collect();
            kills.into_iter().map(|kill| kill.join().expect("recovered")).collect::<Vec<_>>()
        }));
    }
    times.sort();
    Recovery { times }
}

fn one(redis: &Redis, busy: bool) -> Duration {
    let origin = Origin::start();
    let storage = tempfile::tempdir().expect("a folder");
    let mut queue = RawQueue::on(redis);
    origin.hold();
    // Workers die at any moment between two heartbeats.
    std::thread::sleep(Duration::from_millis(fastrand::u64(..1500)));
    let victim = Worker::start(&queue, storage.path(), &["--concurrency", "8"]);
    let name = queue.until_workers(1).remove(0);
    for n in 0..8 {
        queue.push(&origin.url(&format!("{n}/5000.gif")));
    }
    crate::until("the victim has them", Duration::from_secs(20), || (queue.in_flight(&name).len() == 8).then_some(()));
    let _other = Worker::start(&queue, storage.path(), &["--concurrency", "32", "--host-concurrency", "64"]);
    let other = crate::until("the other is there", Duration::from_secs(20), || {
        queue.workers().into_iter().find(|worker| *worker != name)
    });
    if busy {
        for n in 0..24 {
            queue.push(&origin.url(&format!("{}/5000.gif", 100 + n)));
        }
        crate::until("the other is busy", Duration::from_secs(20), || {
            (queue.in_flight(&other).len() == 24).then_some(())
        });
    }
    let before = queue.in_flight(&other).len();
    std::thread::sleep(Duration::from_millis(fastrand::u64(..3000)));
    victim.kill();
    let killed = Instant::now();
    let took = crate::until("the other has them", Duration::from_secs(60), || {
        (queue.in_flight(&other).len() == before + 8).then(|| killed.elapsed())
    });
    origin.let_go();
    queue.until_results(before + 8, Duration::from_secs(30));
    took
}
