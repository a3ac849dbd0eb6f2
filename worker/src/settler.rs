//! The settler: sends settlements to Redis in batches, and keeps trying for as long as Redis is away.
//!
//! While one batch is on its way the next one gathers, so the size of batches follows the load by itself.

use crate::hosts::say_dropped;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::queue_calls::QueueCalls;
use queue::ReconnectBackoff;
use queue::{ClaimedJob, HostNews, LeaseField, Settled, Settlement};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Bounds the time that one script holds Redis up: 256 settlements take about 2 ms.
const BATCH_MAX: usize = 256;
/// And with many long links: Redis spends 2.8 ms on each MB that a script only touches, and a settle touches it several times.
const BATCH_BYTES_MAX: usize = 512 << 10;
/// What more may gather before a batch leaves, when downloads are going on: a script call costs about 40 µs of Redis'
/// time however few jobs it settles, and each job 8. Nothing waits for it: slots are free before.
const GATHER: Duration = Duration::from_millis(2);

/// What Redis has to be told.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// What becomes of a job.
    Job(ClaimedJob, Settlement),
    /// What was learnt about a host. It goes before the jobs of its batch, which may be held because of it.
    Host(HostNews),
}

/// Sends settlements for one worker name.
pub(crate) struct Settler {
    pub(crate) calls: Arc<dyn QueueCalls>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) metrics: Arc<Metrics>,
    /// Bounded by the ledger: there is one settlement for each job held, and hardly more news.
    pub(crate) outgoing: mpsc::UnboundedReceiver<Outgoing>,
}

impl Settler {
    /// Runs until the senders are gone and everything is settled.
    ///
    /// Cancel safety: what was not settled stays in flight in Redis, and is recovered when the lease ends.
    pub(crate) async fn run(mut self) {
        let mut received = Vec::new();
        let (mut batch, mut news) = (Vec::new(), Vec::new());
        while self.outgoing.recv_many(&mut received, BATCH_MAX).await > 0 {
            if received.len() < BATCH_MAX && received.len() < self.ledger.held() {
                tokio::time::sleep(GATHER).await;
                while received.len() < BATCH_MAX {
                    match self.outgoing.try_recv() {
                        Ok(outgoing) => received.push(outgoing),
                        Err(_) => break,
                    }
                }
            }
            let mut bytes = 0;
            for outgoing in received.drain(..) {
                match outgoing {
                    Outgoing::Job(job, settlement) => {
                        bytes += job.payload.len();
                        batch.push((job.field, settlement));
                    }
                    Outgoing::Host(about) => news.push(about),
                }
                if bytes >= BATCH_BYTES_MAX {
                    self.settle(&batch, &news).await;
                    batch.clear();
                    news.clear();
                    bytes = 0;
                }
            }
            if !batch.is_empty() || !news.is_empty() {
                self.settle(&batch, &news).await;
                batch.clear();
                news.clear();
            }
        }
    }

    async fn settle(&self, batch: &[(LeaseField, Settlement)], news: &[HostNews]) {
        let mut backoff = ReconnectBackoff::default();
        loop {
            let asked = Instant::now();
            let answer = self.calls.settle(batch, news).await;
            self.metrics.settle(batch, news, &answer, asked.elapsed());
            match answer {
                Ok(Settled { accepted, dropped }) => {
                    say_dropped(&dropped);
                    let refused = accepted.iter().filter(|accepted| !**accepted).count();
                    if refused > 0 {
                        // After a lost answer this is the second time; otherwise somebody else has the jobs now.
                        tracing::info!("{refused} of {} settlements were not this worker's any more", batch.len());
                    }
                    self.ledger.settled(batch.iter().map(|(field, _)| field));
                    return;
                }
                Err(error) => {
                    tracing::warn!("cannot settle {} jobs yet: {error}", batch.len());
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Question, ScriptedQueue, field, job};
    use common::outcome::Failure;
    use std::sync::atomic::Ordering;

    fn released(n: usize, bytes: usize) -> Outgoing {
        Outgoing::Job(job(n, &"x".repeat(bytes)), Settlement::Release)
    }

    fn news() -> Outgoing {
        let host = "slow.example".to_owned();
        Outgoing::Host(HostNews::Refused {
            host,
            reason: Failure::RateLimited,
            server_wait: None,
            first: Duration::ZERO,
            longest: Duration::ZERO,
        })
    }

    /// What is sent when all of this is there before the settler begins, and the ledger after that.
    async fn settle(queue: &Arc<ScriptedQueue>, outgoing: Vec<Outgoing>) -> Arc<Ledger> {
        let metrics = Arc::new(Metrics::new(1));
        let ledger = Arc::new(Ledger::new(Arc::clone(&metrics)));
        let (sender, receiver) = mpsc::unbounded_channel();
        for outgoing in outgoing {
            if let Outgoing::Job(job, _) = &outgoing {
                ledger.enter(&job.field);
            }
            sender.send(outgoing).expect("the receiver is there");
        }
        drop(sender);
        let calls = Arc::clone(queue) as Arc<dyn QueueCalls>;
        Settler { calls, ledger: Arc::clone(&ledger), metrics, outgoing: receiver }.run().await;
        ledger
    }

    fn batches(queue: &ScriptedQueue) -> Vec<(usize, usize)> {
        let sizes = queue.questions().into_iter().map(|question| match question {
            Question::Settle(fields, news) => (fields.len(), news),
            other => panic!("{other:?}"),
        });
        sizes.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_bounded_by_its_number_and_by_its_bytes() {
        for (what, outgoing, expected) in [
            ("many", (0..600).map(|n| released(n, 10)).collect::<Vec<_>>(), vec![(256, 0), (256, 0), (88, 0)]),
            ("large", (0..5).map(|n| released(n, 200 << 10)).collect(), vec![(3, 0), (2, 0)]),
        ] {
            let queue = Arc::new(ScriptedQueue::default());
            let ledger = settle(&queue, outgoing).await;
            assert_eq!(batches(&queue), expected, "{what}");
            assert_eq!(ledger.held(), 0, "{what}: all are struck off");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn news_of_a_host_are_there_before_the_jobs_that_wait_because_of_it() {
        let queue = Arc::new(ScriptedQueue::default());
        let mut outgoing = vec![released(0, 300 << 10), news()];
        outgoing.extend((1..4).map(|n| released(n, 300 << 10)));
        settle(&queue, outgoing).await;
        assert_eq!(batches(&queue), [(2, 1), (2, 0)], "with the batch of the first of them, and once");
        // News alone are sent as well.
        let queue = Arc::new(ScriptedQueue::default());
        settle(&queue, vec![news()]).await;
        assert_eq!(batches(&queue), [(0, 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn while_redis_is_away_the_same_batch_is_tried_again_and_none_overtakes_it() {
        let queue = Arc::new(ScriptedQueue::default());
        queue.refused_settlements.store(20, Ordering::Relaxed);
        let begun = Instant::now();
        let ledger =
            settle(&queue, [released(0, 10), news()].into_iter().chain((1..300).map(|n| released(n, 10))).collect())
                .await;
        let asked = queue.asked.lock().expect("not poisoned").clone();
        let is_first = |question: &Question| matches!(question, Question::Settle(fields, 1) if fields[0] == field(0));
        assert_eq!(asked.len(), 22);
        assert!(asked[..21].iter().all(|(_, question)| is_first(question)), "the second batch waits for the first");
        // 50 ms, doubling to 1 s, half of it jitter.
        assert!(begun.elapsed() > Duration::from_secs(7), "no storm: {:?}", begun.elapsed());
        assert_eq!((ledger.held(), ledger.confirmations()), (0, 2), "confirmed once each");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_a_moment_for_more_when_downloads_go_on() {
        let queue = Arc::new(ScriptedQueue::default());
        let metrics = Arc::new(Metrics::new(1));
        let ledger = Arc::new(Ledger::new(Arc::clone(&metrics)));
        (0..10).for_each(|n| assert!(ledger.enter(&field(n))));
        let (sender, receiver) = mpsc::unbounded_channel();
        let settler = Settler { calls: Arc::clone(&queue) as Arc<dyn QueueCalls>, ledger, metrics, outgoing: receiver };
        let downloads = async {
            for n in 0..4 {
                sender.send(released(n, 10)).expect("the settler listens");
                tokio::time::sleep(GATHER / 4).await;
            }
            drop(sender);
        };
        tokio::join!(settler.run(), downloads);
        let sizes = batches(&queue);
        assert!(sizes.len() < 4 && sizes.iter().map(|(jobs, _)| jobs).sum::<usize>() == 4, "{sizes:?}");
    }
}
