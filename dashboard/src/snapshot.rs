//! What the queue was like at one moment, as pages, events and `/metrics` are given it; or why nobody knows.

use common::error::QueueError;
use common::report::ResultRow;
use queue::{BatchState, DeadJob, History, HostState, Status};
use std::sync::Arc;

/// The queue in numbers, as it was at one moment.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) status: Status,
    /// Those that are left alone first.
    pub(super) hosts: Vec<HostState>,
    /// Hosts that everybody leaves alone for a while, in all.
    pub(super) hosts_held: u64,
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
