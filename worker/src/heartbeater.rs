//! The heartbeater: renews this worker's lease from a thread of its own, and recovers others whose lease is over.
//!
//! Its own thread and connection, so that nothing the worker does (hashing, a long poll, a full runtime) can starve it.
//! The reverse must not happen either: when the main thread is stuck the heartbeat stops, and the jobs go elsewhere.

use crate::hosts::HostTally;
use crate::metrics::{Metrics, Sums};
use crate::recoverer::recover_all;
use crate::vitals::Vitals;
use common::error::QueueError;
use queue::ReconnectBackoff;
use queue::{Heartbeat, Queue, WorkerHost, WorkerName};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// A running heartbeat; it stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Heartbeater {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Heartbeater {
    /// Starts the thread. The receiver turns true when the worker was taken for dead: then it has to abandon everything.
    pub(crate) fn start(
        queue: Queue,
        worker: WorkerName,
        vitals: Arc<Vitals>,
        tally: Arc<HostTally>,
        metrics: Arc<Metrics>,
    ) -> io::Result<(Heartbeater, watch::Receiver<bool>)> {
        let (stop, stopped) = oneshot::channel();
        let (reaped_sender, reaped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("heartbeat".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = beat(&queue, &worker, &vitals, &tally, &metrics, &reaped_sender) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok((Heartbeater { stop: Some(stop), thread: Some(thread) }, reaped))
    }
}

impl Drop for Heartbeater {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only waits for a signal that was just given.
            let _ = thread.join();
        }
    }
}

/// Beats until the worker is found dead.
async fn beat(
    queue: &Queue,
    worker: &WorkerName,
    vitals: &Vitals,
    tally: &HostTally,
    metrics: &Metrics,
    reaped: &watch::Sender<bool>,
) {
    let mut backoff = ReconnectBackoff::default();
    let (mut counted, mut counted_at) = (0, Instant::now());
    let mut timed = Sums::default();
    loop {
        if vitals.is_stuck() {
            tracing::error!("the main thread is stuck; the heartbeat stops until it moves");
            tokio::time::sleep(Heartbeat::EVERY).await;
            continue;
        }
        let done = vitals.done();
        let rate = (done - counted) as f64 / counted_at.elapsed().as_secs_f64().max(0.001);
        let mut facts = vec![("done", done.to_string()), ("rate", format!("{rate:.1}")), ("waiting", vitals.waiting())];
        facts.push(("hosts", WorkerHost::write(&tally.busiest(Instant::now()))));
        // Those of the last time that something happened stay.
        facts.extend(metrics.means_since(&mut timed).map(|means| ("timings", means)));
        let answer = queue.heartbeat(worker, &facts).await;
        metrics.heartbeat(&answer);
        match answer {
            Ok(Heartbeat { alive: false, .. }) => {
                tracing::warn!("worker {worker} was taken for dead; its jobs are elsewhere now");
                reaped.send_replace(true);
                return;
            }
            Ok(heartbeat) => {
                backoff.reset();
                (counted, counted_at) = (done, Instant::now());
                recover_all(queue, &heartbeat.expired).await;
                tokio::time::sleep(until_next(&heartbeat)).await;
            }
            Err(error) => {
                report(&error);
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

fn report(error: &QueueError) {
    tracing::warn!("no heartbeat: {error}");
}
