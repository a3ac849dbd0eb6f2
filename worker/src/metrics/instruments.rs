//! The instruments that a worker counts with: plain atomics in one place, without lock, allocation or look-up.
//!
//! The registry's own histogram takes a lock for each observation, and its counters stand behind a pointer and a map of
//! labels each; an observation here is two additions. Nothing is ordered by these numbers, so all of it is relaxed: a
//! scrape in the middle of an update may see a sum without its count.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// A number that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are at this moment.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    pub(crate) fn set(&self, n: usize) {
        self.0.store(i64::try_from(n).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more until the returned value is dropped, which also happens to tasks that are aborted.
    pub(crate) fn enter(&self) -> Presence<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Presence(self)
    }
}

/// One that is there.
#[derive(Debug)]
#[must_use = "it is gone again when this is dropped"]
pub(crate) struct Presence<'a>(&'a Gauge);

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How large the observed values were: how many up to each of `N` bounds, how many beyond them, and the sum of all.
///
/// Values are whole numbers of the smallest thing that matters (nanoseconds, bytes, jobs); the unit of the exposition is
/// made of them there.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    up_to: [AtomicU64; N],
    beyond: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    /// `bounds` rise.
    pub(crate) fn new(bounds: &'static [u64; N]) -> Histogram<N> {
        Histogram { bounds, up_to: [const { AtomicU64::new(0) }; N], beyond: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }

    pub(crate) fn observe(&self, value: u64) {
        let bucket = self.up_to.get(self.bounds.partition_point(|bound| *bound < value)).unwrap_or(&self.beyond);
        bucket.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(crate) fn observe_time(&self, took: Duration) {
        self.observe(took.as_nanos() as u64);
    }

    pub(crate) fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets().map(|(_, count)| count).sum()
    }

    /// Each bound with the number of values between the one before and it; the last has no bound.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.bounds.iter().map(|bound| Some(*bound)).chain([None]);
        bounds.zip(self.up_to.iter().chain([&self.beyond]).map(|count| count.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_below_the_first_bound_that_is_not_smaller() {
        let histogram = Histogram::new(&[10, 20, 40]);
        for value in [0, 10, 11, 40, 41, 1000] {
            histogram.observe(value);
        }
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets, [(Some(10), 2), (Some(20), 1), (Some(40), 1), (None, 2)]);
        assert_eq!((histogram.count(), histogram.sum()), (6, 1102));
    }

    #[test]
    fn who_has_left_is_counted_no_more() {
        let gauge = Gauge::default();
        let (one, other) = (gauge.enter(), gauge.enter());
        drop(one);
        assert_eq!(gauge.value(), 1);
        drop(other);
        assert_eq!(gauge.value(), 0);
    }
}
