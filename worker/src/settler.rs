//! The settler: sends settlements to Redis in batches, and keeps trying for as long as Redis is away.
//!
//! While one batch is on its way the next one gathers, so the size of batches follows the load by itself.

use crate::ledger::Ledger;
use common::error::ReconnectBackoff;
use common::queue::{LeaseField, Queue, Settlement, WorkerName};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Bounds the time that one script holds Redis up: 256 settlements take about 2 ms.
const BATCH_MAX: usize = 256;
/// What more may gather before a batch leaves, when downloads are going on: a script call costs about 40 µs of Redis'
/// time however few jobs it settles, and each job 6.
const GATHER: Duration = Duration::from_millis(1);

/// Sends settlements for one worker name.
#[derive(Debug)]
pub(crate) struct Settler {
    pub(crate) queue: Arc<Queue>,
    pub(crate) worker: WorkerName,
    pub(crate) ledger: Arc<Ledger>,
    /// Bounded by the ledger's slots: there is one settlement for each job held.
    pub(crate) settlements: mpsc::UnboundedReceiver<(LeaseField, Settlement)>,
}

impl Settler {
    /// Runs until the senders are gone and everything is settled.
    ///
    /// Cancel safety: what was not settled stays in flight in Redis, and is recovered when the lease ends.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::new();
        while self.settlements.recv_many(&mut batch, BATCH_MAX).await > 0 {
            if batch.len() < BATCH_MAX && batch.len() < self.ledger.held() {
                tokio::time::sleep(GATHER).await;
                while batch.len() < BATCH_MAX {
                    match self.settlements.try_recv() {
                        Ok(settlement) => batch.push(settlement),
                        Err(_) => break,
                    }
                }
            }
            self.settle(&batch).await;
            batch.clear();
        }
    }

    async fn settle(&self, batch: &[(LeaseField, Settlement)]) {
        let mut backoff = ReconnectBackoff::default();
        loop {
            match self.queue.settle(&self.worker, batch).await {
                Ok(accepted) => {
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
