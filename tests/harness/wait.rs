//! Waiting for conditions. Tests never sleep for a time and hope.

use std::time::{Duration, Instant};

/// Looks at a condition every few milliseconds until it gives a value; panics with `what` after [`allowed`]`(at_most)`.
///
/// # Panics
/// When the condition gives nothing in time.
pub fn until<T>(what: &str, at_most: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        let waited = started.elapsed();
        assert!(waited < at_most || waited < allowed(at_most), "not within {at_most:?}, nor {waited:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What takes `at_most` where nothing else runs may take so long at this moment: as many times as long as there are programs, in the mean of
/// the last minute, that wanted a core or the disk, for each core. Never less.
pub fn allowed(at_most: Duration) -> Duration {
    at_most.mul_f64(crowding())
}

/// The system's own figure. Where there is none, nothing is known of others.
fn crowding() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
    let wanting: f64 = text.split(' ').next().and_then(|mean| mean.parse().ok()).unwrap_or(0.0);
    (wanting / cores).max(1.0)
}
