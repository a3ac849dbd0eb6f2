//! Times how long connections take to open.
//!
//! The host's name is looked up inside of what is timed here; that is taken off, so that look-up and connecting can be told
//! apart.

use crate::metrics::Metrics;
use std::cell::Cell;
use std::time::{Duration, Instant};

tokio::task_local! {
    /// What the look-up took of the connection that this task is opening.
    static LOOKED_UP: Cell<Duration>;
}

/// A look-up, or a wait for one, took so long. Without anybody timing a connection it means nothing.
pub(super) fn looked_up(took: Duration) {
    let _ = LOOKED_UP.try_with(|cell| cell.set(took));
}

/// Opens a connection, and tells how long that took. Cancel safety: one that is dropped counts as failed.
pub(super) async fn timed<T, E>(metrics: &Metrics, connecting: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let attempt = async {
        let mut attempt = Attempt { metrics, opened: false, started: Instant::now() };
        let connection = connecting.await;
        attempt.opened = connection.is_ok();
        connection
    };
    LOOKED_UP.scope(Cell::default(), attempt).await
}

struct Attempt<'a> {
    metrics: &'a Metrics,
    opened: bool,
    started: Instant,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let looked_up = LOOKED_UP.try_with(Cell::get).unwrap_or_default();
        self.metrics.connected(self.started.elapsed().saturating_sub(looked_up), self.opened);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Phase;

    /// Opens a connection whose look-up took as long as `lookup` says, if there was one.
    fn open(metrics: &Metrics, lookup: Option<Duration>, opens: bool) {
        let connecting = async move {
            if let Some(took) = lookup {
                looked_up(took);
            }
            if opens { Ok(()) } else { Err(()) }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        assert_eq!(runtime.block_on(timed(metrics, connecting)).is_ok(), opens);
    }

    #[test]
    fn the_look_up_is_taken_off_and_what_failed_is_not_timed() {
        let metrics = Metrics::new(1);
        open(&metrics, Some(Duration::from_secs(3600)), true);
        assert_eq!(metrics.spent(Phase::Connect), (Duration::ZERO, 1));
        open(&metrics, None, true);
        let (took, times) = metrics.spent(Phase::Connect);
        assert!(!took.is_zero() && times == 2, "{took:?}");
        open(&metrics, None, false);
        assert_eq!(metrics.spent(Phase::Connect).1, 2);
        // Nobody times this one.
        looked_up(Duration::from_secs(1));
    }
}
