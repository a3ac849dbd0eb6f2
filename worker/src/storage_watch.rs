//! The storage watch: notices a storage that is stuck, and probes a bad one until it can be used again.

use std::sync::Arc;
use std::time::Duration;
use storage::Storage;
use storage::health::Condition;

/// How often a stuck writer is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The first wait before a probe; it doubles, because each trial that fails costs a download.
const PROBE_AFTER: Duration = Duration::from_millis(500);
const PROBE_AFTER_MAX: Duration = Duration::from_secs(5);
/// A trial that met no error for this long is over.
const TRIAL_MAX: Duration = Duration::from_secs(5);

/// Watches for as long as the worker lives. Cancel safe.
pub(crate) async fn watch(storage: Arc<Storage>) {
    let mut wait = PROBE_AFTER;
    let mut changes = storage.health().watch();
    loop {
        changes.mark_unchanged();
        if storage.health().is_stuck() {
            storage.health().set_bad("it does not answer");
        }
        match storage.health().condition() {
            Condition::Good => {
                wait = PROBE_AFTER;
                // Woken by a change, or to look for a stuck writer.
                let _ = tokio::time::timeout(LOOK_EVERY, changes.changed()).await;
            }
            Condition::Trial => {
                if tokio::time::timeout(TRIAL_MAX, changes.changed()).await.is_err() {
                    storage.health().stored();
                }
            }
            Condition::Bad(_) => {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(PROBE_AFTER_MAX);
                if let Err(error) = storage.probe().await {
                    tracing::debug!("the storage still cannot be used: {error}");
                }
            }
        }
    }
}
