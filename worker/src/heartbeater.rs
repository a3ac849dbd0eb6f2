//! The heartbeater: renews this worker's lease from a thread of its own, and recovers others whose lease is over.
//!
//! Its own thread and connection, so that nothing the worker does (hashing, a long poll, a full runtime) can starve it.
//! The reverse must not happen either: when the main thread is stuck the heartbeat stops, and the jobs go elsewhere.

use crate::hosts::HostTally;
use crate::metrics::{Metrics, Sums};
use crate::recoverer::recover_all;
use crate::tidier::Tidier;
use crate::vitals::Vitals;
use common::error::QueueError;
use queue::ReconnectBackoff;
use queue::{Heartbeat, Queue, WorkerHost, WorkerName};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Beats for one worker name.
pub(crate) struct Heartbeater {
    /// Over a connection of its own.
    pub(crate) queue: Queue,
    pub(crate) worker: WorkerName,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) tally: Arc<HostTally>,
    pub(crate) metrics: Arc<Metrics>,
    /// Turns true when the worker was taken for dead: then it has to abandon everything.
    pub(crate) reaped: watch::Sender<bool>,
}

impl Heartbeater {
    /// Beats for as long as it runs. Cancel safe: a lease that is renewed once more ends by itself.
    pub(crate) async fn run(self) {
        let Heartbeater { queue, worker, vitals, tally, metrics, reaped } = self;
        let mut facts = Facts::new(&vitals, &tally, &metrics);
        let ask = async |facts: Vec<(&'static str, String)>| {
            let answer = queue.heartbeat(&worker, &facts).await;
            metrics.heartbeat(&answer);
            answer
        };
        let mut tidier = Tidier::default();
        let act = async |beat: &Heartbeat| {
            let all_answered = recover_all(&queue, &beat.expired).await;
            if beat.tidy_is_due {
                tidier.tidy(&queue).await;
            }
            all_answered
        };
        beat(&mut facts, ask, act).await;
        tracing::warn!("worker {worker} was taken for dead; its jobs are elsewhere now");
        reaped.send_replace(true);
        // The duty is over when it is told so; were it to end before, that would be a fault.
        std::future::pending().await
    }
}

/// What people are told with each heartbeat.
struct Facts<'a> {
    vitals: &'a Vitals,
    tally: &'a HostTally,
    metrics: &'a Metrics,
    counted: u64,
    counted_at: Instant,
    timed: Sums,
}

impl Facts<'_> {
    fn new<'a>(vitals: &'a Vitals, tally: &'a HostTally, metrics: &'a Metrics) -> Facts<'a> {
        // Of the process, which may have had other names before.
        let counted = vitals.done();
        Facts { vitals, tally, metrics, counted, counted_at: Instant::now(), timed: Sums::default() }
    }

    /// Jobs done until now, and all facts.
    fn now(&mut self) -> (u64, Vec<(&'static str, String)>) {
        let done = self.vitals.done();
        let rate = (done - self.counted) as f64 / self.counted_at.elapsed().as_secs_f64().max(0.001);
        let mut facts =
            vec![("done", done.to_string()), ("rate", format!("{rate:.1}")), ("waiting", self.vitals.waiting())];
        facts.push(("hosts", WorkerHost::write(&self.tally.busiest(std::time::Instant::now()))));
        // Those of the last time that something happened stay.
        facts.extend(self.metrics.means_since(&mut self.timed).map(|means| ("timings", means)));
        (done, facts)
    }

    /// They were told.
    fn told(&mut self, done: u64) {
        (self.counted, self.counted_at) = (done, Instant::now());
    }
}

/// Beats until the worker is found dead. `act` does what a beat found to be done, and says whether Redis answered all that it asked for
/// the dead.
async fn beat(
    facts: &mut Facts<'_>,
    mut ask: impl AsyncFnMut(Vec<(&'static str, String)>) -> Result<Heartbeat, QueueError>,
    mut act: impl AsyncFnMut(&Heartbeat) -> bool,
) {
    let mut backoff = ReconnectBackoff::default();
    loop {
        if facts.vitals.is_stuck() {
            tracing::error!("the main thread is stuck; the heartbeat stops until it moves");
            tokio::time::sleep(Heartbeat::EVERY).await;
            continue;
        }
        let (done, told) = facts.now();
        match ask(told).await {
            Ok(Heartbeat { alive: false, .. }) => return,
            Ok(heartbeat) => {
                backoff.reset();
                facts.told(done);
                let all_answered = act(&heartbeat).await;
                // A few that survive many find the next ones at once. Not after an error, which may last.
                if !(heartbeat.has_more && all_answered) {
                    tokio::time::sleep(until_next(&heartbeat)).await;
                }
            }
            // As one that was taken for dead: it is found out under a fresh name that there is no queue here.
            Err(error) if error.is_the_end() => return,
            Err(error) => {
                tracing::warn!("no heartbeat: {error}");
                tokio::time::sleep(backoff.next_wait()).await;
            }
        }
    }
}

/// The usual time with some jitter, or just after the next lease ends, whichever is first.
fn until_next(heartbeat: &Heartbeat) -> Duration {
    let usual = Heartbeat::EVERY.mul_f64(0.9 + 0.1 * fastrand::f64());
    // Of a thousand workers that see the same lease end, a few look first and the others find it done.
    let lease_end = heartbeat.next_end.map(|left| left + Duration::from_millis(fastrand::u64(5..150)));
    lease_end.map_or(usual, |lease_end| usual.min(lease_end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::away;
    use crate::vitals::STUCK_AFTER;
    use std::cell::{Cell, RefCell};

    fn alive() -> Heartbeat {
        Heartbeat { alive: true, next_end: None, expired: Vec::new(), has_more: false, tidy_is_due: false }
    }

    /// Beats for so long, with these answers; how often Redis was asked, and whether beating came to an end.
    async fn beats(
        time: Duration,
        vitals: &Vitals,
        mut answer: impl FnMut(usize) -> Result<Heartbeat, QueueError>,
    ) -> (usize, bool) {
        let (tally, metrics) = (HostTally::new(), Metrics::new(1));
        let asked = Cell::new(0);
        let ask = async |_: Vec<(&'static str, String)>| {
            asked.set(asked.get() + 1);
            answer(asked.get())
        };
        let mut facts = Facts::new(vitals, &tally, &metrics);
        let ended = tokio::time::timeout(time, beat(&mut facts, ask, async |_: &Heartbeat| true)).await;
        (asked.get(), ended.is_ok())
    }

    #[tokio::test(start_paused = true)]
    async fn a_main_thread_that_is_stuck_loses_its_lease_and_one_that_moves_again_beats_again() {
        let vitals = Vitals::new();
        vitals.pulse();
        let (asked, _) = beats(STUCK_AFTER, &vitals, |_| Ok(alive())).await;
        assert!((20..=23).contains(&asked), "{asked} in 30 s");
        let (asked, _) = beats(STUCK_AFTER, &vitals, |_| Ok(alive())).await;
        assert!(asked <= 1, "stuck, and asked {asked} times");
        vitals.pulse();
        let (asked, _) = beats(Heartbeat::EVERY, &vitals, |_| Ok(alive())).await;
        assert!(asked >= 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_was_taken_for_dead_beats_no_more() {
        let dead = |asked| Ok(Heartbeat { alive: asked < 3, ..alive() });
        assert_eq!(beats(Duration::from_secs(60), &Vitals::new(), dead).await, (3, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_redis_that_is_away_is_asked_again_within_a_second_and_not_in_a_storm() {
        let (asked, ended) = beats(Duration::from_secs(10), &Vitals::new(), |_| Err(away())).await;
        assert!((10..=30).contains(&asked) && !ended, "{asked} in 10 s");
    }

    #[tokio::test(start_paused = true)]
    async fn the_dead_are_recovered_with_the_beat_that_finds_them() {
        let (vitals, tally, metrics) = (Vitals::new(), HostTally::new(), Metrics::new(1));
        let recovered = RefCell::new(Vec::new());
        let asked = Cell::new(0);
        let ask = async |_: Vec<(&'static str, String)>| {
            asked.set(asked.get() + 1);
            let expired = if asked.get() == 2 { vec!["dead".to_owned()] } else { Vec::new() };
            Ok(Heartbeat { alive: asked.get() < 3, expired, ..alive() })
        };
        let recover = async |beat: &Heartbeat| {
            recovered.borrow_mut().push(beat.expired.clone());
            true
        };
        beat(&mut Facts::new(&vitals, &tally, &metrics), ask, recover).await;
        assert_eq!(*recovered.borrow(), [Vec::new(), vec!["dead".to_owned()]]);
    }

    #[tokio::test(start_paused = true)]
    async fn while_there_are_more_dead_than_one_beat_names_it_goes_on_at_once_unless_redis_refuses() {
        for (answers, beats) in [(true, 500..=510), (false, 6..=16)] {
            let (vitals, tally, metrics) = (Vitals::new(), HostTally::new(), Metrics::new(1));
            let asked = Cell::new(0);
            let ask = async |_: Vec<(&'static str, String)>| {
                asked.set(asked.get() + 1);
                Ok(Heartbeat { expired: vec!["dead".to_owned()], has_more: asked.get() < 500, ..alive() })
            };
            let mut facts = Facts::new(&vitals, &tally, &metrics);
            let beating = beat(&mut facts, ask, async |_: &Heartbeat| answers);
            assert!(tokio::time::timeout(Duration::from_secs(10), beating).await.is_err());
            assert!(beats.contains(&asked.get()), "{} beats, while recovery answers: {answers}", asked.get());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_name_counts_from_its_beginning() {
        let (vitals, tally, metrics) = (Vitals::new(), HostTally::new(), Metrics::new(1));
        for _ in 0..1000 {
            vitals.count_done();
        }
        let mut facts = Facts::new(&vitals, &tally, &metrics);
        let rate =
            |facts: &mut Facts<'_>| facts.now().1.into_iter().find(|(name, _)| *name == "rate").expect("a rate").1;
        assert_eq!(rate(&mut facts), "0.0");
        vitals.count_done();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(rate(&mut facts), "0.5");
    }

    #[test]
    fn the_next_beat_is_just_after_the_next_lease_end_or_at_its_usual_time() {
        let ms = Duration::from_millis;
        for (next_end, earliest, latest) in [
            (None, ms(1350), ms(1500)),
            (Some(ms(100)), ms(105), ms(250)),
            (Some(Duration::ZERO), ms(5), ms(150)),
            (Some(ms(5000)), ms(1350), ms(1500)),
        ] {
            let mut waits: Vec<_> = (0..200).map(|_| until_next(&Heartbeat { next_end, ..alive() })).collect();
            waits.sort();
            assert!(waits[0] >= earliest && waits[199] <= latest, "{next_end:?}: {:?} to {:?}", waits[0], waits[199]);
            assert!(waits[199] - waits[0] > ms(20), "{next_end:?}: a fleet is spread");
        }
    }
}
