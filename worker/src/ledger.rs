//! The ledger: which jobs this worker holds, from the answer to a claim until Redis confirmed their settlement.
//!
//! It answers whether a job that Redis shows in flight is known here. A job just settled stays known until the next comparison begins, because that comparison's answer may be older than the
//! confirmation.

use crate::metrics::Metrics;
use queue::{ClaimedJob, LeaseField};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Entries {
    held: HashSet<LeaseField>,
    settled_lately: HashSet<LeaseField>,
    confirmations: u64,
}

/// What this worker holds.
#[derive(Debug)]
pub(crate) struct Ledger {
    entries: Mutex<Entries>,
    changed: Notify,
    metrics: Arc<Metrics>,
}

impl Ledger {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Ledger {
        metrics.holds(0);
        Ledger { entries: Mutex::default(), changed: Notify::new(), metrics }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Jobs held.
    pub(crate) fn held(&self) -> usize {
        self.entries().held.len()
    }

    /// Enters a claimed job; `false` when it is held already.
    pub(crate) fn enter(&self, field: &LeaseField) -> bool {
        let mut entries = self.entries();
        let is_new = entries.held.insert(field.clone());
        self.metrics.holds(entries.held.len());
        is_new
    }

    /// Strikes off jobs whose settlement Redis confirmed.
    pub(crate) fn settled<'a>(&self, fields: impl Iterator<Item = &'a LeaseField>) {
        let mut entries = self.entries();
        entries.confirmations += 1;
        for field in fields {
            entries.held.remove(field);
            entries.settled_lately.insert(field.clone());
        }
        self.metrics.holds(entries.held.len());
        drop(entries);
        self.changed.notify_waiters();
    }

    /// How often settlements were confirmed.
    pub(crate) fn confirmations(&self) -> u64 {
        self.entries().confirmations
    }

    /// Called before Redis is asked what it holds.
    pub(crate) fn begin_comparison(&self) {
        self.entries().settled_lately.clear();
    }

    /// Of what Redis holds, the jobs that are not known here: their claim's answer was lost, or their settlement was,
    /// with Redis restarted from an older state.
    pub(crate) fn unknown(&self, in_redis: Vec<ClaimedJob>) -> Vec<ClaimedJob> {
        let entries = self.entries();
        in_redis
            .into_iter()
            .filter(|job| !entries.held.contains(&job.field) && !entries.settled_lately.contains(&job.field))
            .collect()
    }

    /// Returns after the next change. Cancel safe. Take the future before reading, so that no change is missed.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }
}
