//! Queue calls: what the duties of one worker name ask of the queue. Tests have an answerer of their own.

use common::error::QueueError;
use queue::{
    Claim, ClaimRequest, HostNews, LeaseField, Queue, ReadyWaiter, Reconciled, Settled, Settlement, WorkerName,
};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// A call under way. One allocation for each, whatever the number of its jobs.
pub(crate) type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, QueueError>> + Send + 'a>>;

/// The calls of one worker name; each is the method of [`Queue`] with the same name.
pub(crate) trait QueueCalls: Send + Sync {
    fn claim(&self, number: u64, request: ClaimRequest) -> Call<'static, Claim>;
    fn reconcile(&self, number: u64) -> Call<'static, Reconciled>;
    fn run_alone(&self, field: LeaseField) -> Call<'static, bool>;
    fn settle<'a>(&'a self, batch: &'a [(LeaseField, Settlement)], news: &'a [HostNews]) -> Call<'a, Settled>;

    /// Returns when `ready` has a job, or after `at_most`. One such call at a time. It is not to be dropped without need: that costs
    /// the connection that it waits on.
    fn until_ready(&self, at_most: Duration) -> Call<'static, ()>;

    fn connection_generation(&self) -> u64;
}

/// Over a connection to Redis for commands, and another one to wait on.
pub(crate) struct OverRedis {
    queue: Arc<Queue>,
    worker: WorkerName,
    waiter: Arc<Mutex<ReadyWaiter>>,
}

impl OverRedis {
    pub(crate) fn new(queue: Arc<Queue>, worker: WorkerName) -> OverRedis {
        let waiter = Arc::new(Mutex::new(queue.ready_waiter()));
        OverRedis { queue, worker, waiter }
    }
}

impl QueueCalls for OverRedis {
    fn claim(&self, number: u64, request: ClaimRequest) -> Call<'static, Claim> {
        let (queue, worker) = (Arc::clone(&self.queue), self.worker.clone());
        Box::pin(async move { queue.claim(&worker, number, &request).await })
    }

    fn reconcile(&self, number: u64) -> Call<'static, Reconciled> {
        let (queue, worker) = (Arc::clone(&self.queue), self.worker.clone());
        Box::pin(async move { queue.reconcile(&worker, number).await })
    }

    fn run_alone(&self, field: LeaseField) -> Call<'static, bool> {
        let (queue, worker) = (Arc::clone(&self.queue), self.worker.clone());
        Box::pin(async move { queue.run_alone(&worker, &field).await })
    }

    fn settle<'a>(&'a self, batch: &'a [(LeaseField, Settlement)], news: &'a [HostNews]) -> Call<'a, Settled> {
        Box::pin(self.queue.settle(&self.worker, batch, news))
    }

    fn until_ready(&self, at_most: Duration) -> Call<'static, ()> {
        let waiter = Arc::clone(&self.waiter);
        Box::pin(async move { waiter.lock().await.wait(at_most).await })
    }

    fn connection_generation(&self) -> u64 {
        self.queue.connection_generation()
    }
}
