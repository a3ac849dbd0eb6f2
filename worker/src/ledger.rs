//! The ledger: which jobs this worker holds, from the answer to a claim until Redis confirmed their settlement.
//!
//! It answers whether a job that Redis shows in flight is known here. A job just settled stays known until the next comparison
//! begins, because that comparison's answer may be older than the confirmation.

use crate::metrics::Metrics;
use queue::LeaseField;
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

    /// Strikes off a job that was not settled: it is not this worker's any more, or is left to the last comparison.
    pub(crate) fn forget(&self, field: &LeaseField) {
        let mut entries = self.entries();
        entries.held.remove(field);
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

    /// Whether a job that Redis shows under this worker is known here. One that is not was claimed by a call whose answer was lost,
    /// or settled before Redis was restarted from an older state.
    pub(crate) fn is_held_or_settled_lately(&self, field: &LeaseField) -> bool {
        let entries = self.entries();
        entries.held.contains(field) || entries.settled_lately.contains(field)
    }

    /// Returns after the next change. Cancel safe. Take the future before reading, so that no change is missed.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::field;
    use futures_util::FutureExt as _;

    fn ledger_with(fields: &[usize]) -> Ledger {
        let ledger = Ledger::new(Arc::new(Metrics::new(1)));
        for n in fields {
            assert!(ledger.enter(&field(*n)));
        }
        ledger
    }

    #[test]
    fn a_job_is_held_once() {
        let ledger = ledger_with(&[0, 1]);
        assert!(!ledger.enter(&field(0)), "adopted and claimed at the same time it would run twice");
        assert_eq!(ledger.held(), 2);
    }

    #[test]
    fn a_job_settled_while_a_comparison_is_under_way_is_not_adopted_again() {
        let ledger = ledger_with(&[0]);
        ledger.begin_comparison();
        // Redis wrote its answer, with the job in it, before it ran the settlement; the settlement is confirmed first.
        ledger.settled(std::iter::once(&field(0)));
        assert!(ledger.is_held_or_settled_lately(&field(0)));
        assert_eq!(ledger.held(), 0);
        // By the next one it has to be gone. If it is not, Redis went back in time.
        ledger.begin_comparison();
        assert!(!ledger.is_held_or_settled_lately(&field(0)));
    }

    #[test]
    fn a_job_that_is_forgotten_is_unknown_at_once() {
        let ledger = ledger_with(&[0, 1]);
        let before = ledger.confirmations();
        ledger.forget(&field(0));
        assert_eq!((ledger.held(), ledger.confirmations()), (1, before), "nothing was confirmed");
        assert!(!ledger.is_held_or_settled_lately(&field(0)), "a suspect that did not run has to be given back");
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_a_job_that_is_struck_off() {
        let ledger = ledger_with(&[0, 1]);
        let mut changed = std::pin::pin!(ledger.changed());
        assert!(changed.as_mut().now_or_never().is_none());
        ledger.settled(std::iter::once(&field(0)));
        changed.await;
        let mut changed = std::pin::pin!(ledger.changed());
        assert!(changed.as_mut().now_or_never().is_none());
        ledger.forget(&field(1));
        changed.await;
    }
}
