//! The recoverer: gives the jobs of workers whose lease is over back to the queue.
//!
//! Every worker is one. Several may try at once: the script rechecks the expiry, so one of them succeeds.

use queue::{Queue, Recovered};

/// Recovers every worker of `expired`, and says whether Redis answered each time. An error leaves the rest to the next heartbeat of
/// anybody.
pub(crate) async fn recover_all(queue: &Queue, expired: &[String]) -> bool {
    for dead in expired {
        match queue.recover(dead).await {
            Ok(Some(Recovered { jobs, is_of_many })) => {
                let with_whom = if is_of_many { " with most of the fleet" } else { "" };
                tracing::warn!("worker {dead} is gone{with_whom}; {jobs} jobs taken back");
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!("cannot recover worker {dead} yet: {error}");
                return false;
            }
        }
    }
    true
}
