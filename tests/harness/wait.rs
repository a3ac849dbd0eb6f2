//! Waiting for conditions. Tests never sleep for a time and hope.

use std::time::{Duration, Instant};

/// Looks at a condition every few milliseconds until it gives a value; panics with `what` after `at_most`.
///
/// # Panics
/// When the condition gives nothing in time.
pub fn until<T>(what: &str, at_most: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < at_most, "not within {at_most:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
