//! Asks Redis what everybody wants to see: once a second at most, however many look, and not at all when nobody does.

use super::events::Frame;
use super::pages::Context;
use common::error::QueueError;
use common::report::ResultRow;
use queue::{BatchState, DeadJob, History, HostState, Queue, Status};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Notify, watch};

/// How often viewers are sent what changed.
const EVERY: Duration = Duration::from_secs(1);
/// A snapshot is good for as long: just less than what it is asked for, so that each frame has a new one.
const GOOD_FOR: Duration = Duration::from_millis(800);
/// So long for the history, which has a new line every ten seconds.
const HISTORY_GOOD_FOR: Duration = Duration::from_secs(5);
/// Hosts, batches, results and dead jobs that a snapshot has at most.
const HOSTS_MAX: usize = 200;
const BATCHES_MAX: usize = 8;
const RESULTS_MAX: usize = 64;
const DEAD_MAX: usize = 8;

/// The queue in numbers, as it was at one moment.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) status: Status,
    /// Those that are left alone first.
    pub(super) hosts: Vec<HostState>,
}

/// The queue as it was at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) figures: Arc<Figures>,
    /// Newest first.
    pub(super) batches: Vec<BatchState>,
    /// Redis' time.
    pub(super) now_ms: u64,
    /// Newest first.
    pub(super) results: Vec<ResultRow>,
    /// Newest first.
    pub(super) dead: Vec<DeadJob>,
    pub(super) history: Arc<History>,
}

/// Why there is no snapshot. Without passwords, as all errors of the queue.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) what: String,
    pub(super) hint: Option<String>,
}

impl From<QueueError> for Trouble {
    fn from(error: QueueError) -> Trouble {
        Trouble { what: error.to_string(), hint: error.hint() }
    }
}

/// What was seen, or why nothing was.
pub(super) type Seen<T> = Result<Arc<T>, Trouble>;

/// What was seen last, and when. Locked while Redis is asked, so that those who come meanwhile get the same answer.
type Last<T> = Mutex<Option<(Instant, Seen<T>)>>;

#[derive(Debug)]
pub(super) struct Watcher {
    queue: Arc<Queue>,
    context: Context,
    figures: Last<Figures>,
    snapshot: Last<Snapshot>,
    history: Last<History>,
    frames: watch::Sender<Arc<Frame>>,
    somebody_came: Notify,
}

impl Watcher {
    pub(super) fn new(queue: Arc<Queue>, context: Context) -> Watcher {
        Watcher {
            queue,
            context,
            figures: Mutex::default(),
            snapshot: Mutex::default(),
            history: Mutex::default(),
            frames: watch::Sender::default(),
            somebody_came: Notify::new(),
        }
    }

    /// What pages are made with beside a snapshot.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// The queue as it is now, or was a moment ago.
    pub(super) async fn latest(&self) -> Seen<Snapshot> {
        recent(&self.snapshot, GOOD_FOR, self.look()).await
    }

    /// Its numbers alone, which is all that a scrape costs.
    pub(super) async fn figures(&self) -> Seen<Figures> {
        let read = async {
            let status = self.queue.status().await?;
            Ok(Figures { status, hosts: self.queue.hosts(HOSTS_MAX).await? })
        };
        recent(&self.figures, GOOD_FOR, read).await
    }

    /// After a change: what was seen before it is not shown any more.
    pub(super) async fn forget(&self) {
        *self.snapshot.lock().await = None;
        *self.figures.lock().await = None;
    }

    /// What viewers are sent, from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Frame>> {
        let frames = self.frames.subscribe();
        self.somebody_came.notify_one();
        frames
    }

    /// Makes frames for those who subscribed, for as long as this is polled.
    pub(super) async fn watch(&self) {
        loop {
            while self.frames.receiver_count() == 0 {
                self.somebody_came.notified().await;
            }
            let frame = Arc::new(Frame::of(&self.latest().await, &self.context));
            self.frames.send_replace(frame);
            tokio::time::sleep(EVERY).await;
        }
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
