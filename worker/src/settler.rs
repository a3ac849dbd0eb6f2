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
