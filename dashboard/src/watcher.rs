//! Asks Redis what everybody wants to see: once a second at most, however many look, and not at all when nobody does.

use super::snapshot::{Figures, Seen, Snapshot, Trouble};
use queue::{History, Queue};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A snapshot is good for as long: just less than the second between two frames of events, so that each frame has a new one.
const GOOD_FOR: Duration = Duration::from_millis(800);
/// So long for the history, which has a new line every ten seconds.
const HISTORY_GOOD_FOR: Duration = Duration::from_secs(5);
/// Hosts, batches, results and dead jobs that a snapshot has at most.
const HOSTS_MAX: usize = 200;
const BATCHES_MAX: usize = 8;
const RESULTS_MAX: usize = 64;
const DEAD_MAX: usize = 8;

/// What was seen last, and when. Locked while Redis is asked, so that those who come meanwhile get the same answer.
type Last<T> = Mutex<Option<(Instant, Seen<T>)>>;

#[derive(Debug)]
pub(super) struct Watcher {
    queue: Arc<Queue>,
    figures: Last<Figures>,
    snapshot: Last<Snapshot>,
    history: Last<History>,
}

impl Watcher {
    pub(super) fn new(queue: Arc<Queue>) -> Watcher {
        Watcher { queue, figures: Mutex::default(), snapshot: Mutex::default(), history: Mutex::default() }
    }

    /// The queue as it is now, or was a moment ago.
    pub(super) async fn latest(&self) -> Seen<Snapshot> {
        recent(&self.snapshot, GOOD_FOR, self.look()).await
    }

    /// Its numbers alone, which is all that a scrape costs.
    pub(super) async fn figures(&self) -> Seen<Figures> {
        let read = async {
            let status = self.queue.status().await?;
            let (hosts, hosts_held) = (self.queue.hosts(HOSTS_MAX).await?, self.queue.hosts_held().await?);
            Ok(Figures { status, hosts, hosts_held })
        };
        recent(&self.figures, GOOD_FOR, read).await
    }

    /// After a change: what was seen before it is not shown any more.
    pub(super) async fn forget(&self) {
        *self.snapshot.lock().await = None;
        *self.figures.lock().await = None;
    }

    /// Each of these reads is bounded, whatever the queue's length.
    async fn look(&self) -> Result<Snapshot, Trouble> {
        let figures = self.figures().await?;
        let history = recent(&self.history, HISTORY_GOOD_FOR, async { Ok(self.queue.history().await?) }).await?;
        let (batches, now_ms) = self.queue.newest_batch_states(BATCHES_MAX).await?;
        let results = self.queue.newest_results(None, RESULTS_MAX).await?;
        let dead = self.queue.newest_dead_jobs(None, DEAD_MAX).await?;
        Ok(Snapshot { figures, batches, now_ms, results, dead, history })
    }
}

/// What was seen last, if that is good still, or else what `read` gives.
async fn recent<T>(last: &Last<T>, good_for: Duration, read: impl Future<Output = Result<T, Trouble>>) -> Seen<T> {
    let mut last = last.lock().await;
    if let Some((at, seen)) = &*last
        && at.elapsed() < good_for
    {
        return seen.clone();
    }
    let seen = read.await.map(Arc::new);
    *last = Some((Instant::now(), seen.clone()));
    seen
}
