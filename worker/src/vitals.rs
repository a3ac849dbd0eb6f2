//! Signs of life of the main thread, for the threads that tell others of them: the heartbeat, and the server of metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The main thread is stuck when its pulse is older than this. Well above any single thing it does in one go.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(30);
/// How often the main thread shows its pulse.
const PULSE_EVERY: Duration = Duration::from_millis(500);

/// What the main thread tells of itself.
#[derive(Debug)]
pub(crate) struct Vitals {
    epoch: Instant,
    pulse_ms: AtomicU64,
    done: AtomicU64,
    /// Why nothing is claimed at the moment.
    waiting: Mutex<String>,
}

impl Vitals {
    pub(crate) fn new() -> Vitals {
        Vitals {
            epoch: Instant::now(),
            pulse_ms: AtomicU64::new(0),
            done: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }

    /// Shows the main thread's pulse for as long as it moves. Cancel safe.
    pub(crate) async fn keep_pulsing(self: Arc<Vitals>) {
        loop {
            self.pulse();
            tokio::time::sleep(PULSE_EVERY).await;
        }
    }

    /// The main thread is alive.
    pub(crate) fn pulse(&self) {
        self.pulse_ms.store(self.epoch.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// One more job has come to an end of its attempt.
    pub(crate) fn count_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Jobs that have come to an end of their attempt.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Tells people why nothing is claimed; nothing when something is. Returns whether that is news.
    pub(crate) fn set_waiting(&self, why: &str) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *waiting != why;
        if news {
            why.clone_into(&mut waiting);
        }
        news
    }

    /// Why nothing is claimed at the moment; empty when something is.
    pub(crate) fn waiting(&self) -> String {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The main thread has shown no pulse for too long.
    pub(crate) fn is_stuck(&self) -> bool {
        let pulse = Duration::from_millis(self.pulse_ms.load(Ordering::Relaxed));
        self.epoch.elapsed().saturating_sub(pulse) > STUCK_AFTER
    }
}
