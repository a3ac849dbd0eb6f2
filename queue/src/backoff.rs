//! How long to wait between tries to reach a Redis that went away.

use std::time::Duration;

/// Waits between tries to reach a Redis that went away: 50 ms, doubling to 1 s, with jitter so that a fleet does not
/// come back in one instant.
#[derive(Debug, Default)]
pub struct ReconnectBackoff {
    tries: u32,
}

impl ReconnectBackoff {
    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let bound_ms = (50_u64 << self.tries.min(5)).min(1000);
        self.tries += 1;
        Duration::from_millis(fastrand::u64(bound_ms / 2..=bound_ms))
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}
