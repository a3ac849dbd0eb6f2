//! The pace: how many jobs a second this worker gets done.

use std::time::{Duration, Instant};

/// Long enough for a figure, short enough to follow the load.
const WINDOW: Duration = Duration::from_millis(20);

/// Counts jobs that are done.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    done: u32,
    since: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Pace {
        Pace { per_second: 0.0, done: 0, since: now }
    }

    /// One more job is done.
    pub(super) fn count_done(&mut self) {
        self.done += 1;
    }

    /// Jobs a second over the last window that is over.
    pub(super) fn per_second(&mut self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= WINDOW {
            self.per_second = f64::from(self.done) / elapsed.as_secs_f64();
            (self.done, self.since) = (0, now);
        }
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_last_window() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        (0..50).for_each(|_| pace.count_done());
        assert_eq!(pace.per_second(start + WINDOW / 2), 0.0, "the window is not over");
        assert_eq!(pace.per_second(start + WINDOW), 2500.0);
        assert_eq!(pace.per_second(start + WINDOW * 3 / 2), 2500.0, "the last figure stands meanwhile");
        assert_eq!(pace.per_second(start + WINDOW * 2), 0.0, "nothing was done since");
    }
}
