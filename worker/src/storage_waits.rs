//! How long a job may take, without the time that it waits for the storage: a total timeout is about the server.
//!
//! Otherwise a disk that is slow or stuck would cost attempts, and what was downloaded would be downloaded again. A slow
//! storage lets jobs end, however late; one that is stuck or bad gives them back.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Whoever waits for the storage when his time is over looks this often whether it can still be used, or more often if his
/// time was short.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long one job has waited for the storage.
#[derive(Debug, Default)]
pub(crate) struct StorageWaits(Mutex<Waits>);

#[derive(Debug, Default)]
struct Waits {
    /// The wait that goes on.
    since: Option<Instant>,
    /// Those that are over, together.
    over: Duration,
}

/// How a limited piece of work ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended<T> {
    /// By itself.
    Done(T),
    /// It took too long, by no fault of the storage.
    TimedOut,
    /// It waits for a storage that cannot be used.
    StorageUnusable,
}

impl StorageWaits {
    /// Waits for the storage. One wait at a time. Cancel safe if `future` is.
    ///
    /// What is pinned is kept once. As an argument by value it has room for itself twice, which made the future of a job 4.3 KB
    /// large instead of 2.2, and that is moved several times: 2,500 instructions an image, of 247,500.
    pub(crate) async fn during<F: Future>(&self, future: Pin<&mut F>) -> F::Output {
        let _waiting = Waiting::begin(self);
        future.await
    }

    /// Whether one goes on, and how long all took until now.
    fn now(&self) -> (bool, Duration) {
        let waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = waits.since.map(|since| since.elapsed());
        (current.is_some(), waits.over + current.unwrap_or_default())
    }

    fn change(&self, change: impl FnOnce(&mut Waits)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A wait that goes on. It ends as well when the work is dropped.
struct Waiting<'a>(&'a StorageWaits);

impl<'a> Waiting<'a> {
    fn begin(waits: &'a StorageWaits) -> Waiting<'a> {
        waits.change(|waits| waits.since = Some(Instant::now()));
        Waiting(waits)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.change(|waits| waits.over += waits.since.take().map_or(Duration::ZERO, |since| since.elapsed()));
    }
}

/// Does some work for at most `total`, not counting what it waits for the storage. What waits for the storage when `total` has
/// passed by the clock goes on waiting, until the storage answers or `is_unusable` says that it will not. Cancel safe if
/// `work` is.
pub(crate) async fn limited<F: Future>(
    total: Duration,
    waits: &StorageWaits,
    is_unusable: impl Fn() -> bool,
    mut work: Pin<&mut F>,
) -> Ended<F::Output> {
    let started = Instant::now();
    let mut wait = total;
    loop {
        if let Ok(done) = tokio::time::timeout(wait, work.as_mut()).await {
            return Ended::Done(done);
        }
        let (is_waiting, waited) = waits.now();
        let left = total.saturating_sub(started.elapsed().saturating_sub(waited));
        wait = match is_waiting {
            true if is_unusable() => return Ended::StorageUnusable,
            true => LOOK_EVERY.min(total / 8),
            false if left.is_zero() => return Ended::TimedOut,
            false => left,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::pending;
    use std::pin::pin;

    const TOTAL: Duration = Duration::from_millis(40);

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(future)
    }

    #[test]
    fn who_waits_for_the_server_when_the_time_is_over_has_timed_out() {
        let waits = StorageWaits::default();
        // Whatever the storage is like meanwhile.
        for is_unusable in [false, true] {
            assert_eq!(block_on(limited(TOTAL, &waits, || is_unusable, pin!(pending::<()>()))), Ended::TimedOut);
        }
    }

    #[test]
    fn a_slow_storage_lets_a_job_end() {
        let waits = StorageWaits::default();
        let looks = Cell::new(0);
        let is_unusable = || {
            looks.set(looks.get() + 1);
            false
        };
        // Its answer comes when the time has been over for several looks.
        let answer = pin!(async {
            while looks.get() < 3 {
                tokio::task::yield_now().await;
            }
            "stored"
        });
        let storage = pin!(waits.during(answer));
        assert_eq!(block_on(limited(TOTAL, &waits, is_unusable, storage)), Ended::Done("stored"));
        assert!(!waits.now().0);
    }

    #[test]
    fn a_storage_that_turns_out_to_be_stuck_costs_no_timeout() {
        let waits = StorageWaits::default();
        let looks = Cell::new(0);
        // It is not known to be stuck when the time is over, but later.
        let is_unusable = || looks.replace(looks.get() + 1) >= 3;
        let nothing = pin!(pending::<()>());
        let storage = pin!(waits.during(nothing));
        assert_eq!(block_on(limited(TOTAL, &waits, is_unusable, storage)), Ended::StorageUnusable);
    }

    #[test]
    fn what_was_waited_for_the_storage_is_not_counted() {
        let waits = StorageWaits::default();
        let looks = Cell::new(0);
        let is_unusable = || {
            looks.set(looks.get() + 1);
            false
        };
        let server_had = Cell::new(Duration::ZERO);
        let work = async {
            let storage = async {
                while looks.get() < 3 {
                    tokio::task::yield_now().await;
                }
            };
            waits.during(pin!(storage)).await;
            let began = Instant::now();
            loop {
                server_had.set(began.elapsed());
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(block_on(limited(TOTAL, &waits, is_unusable, pin!(work))), Ended::<()>::TimedOut);
        // As long as if it had not waited, but for the moment in which it was last polled.
        assert!(server_had.get() * 2 >= TOTAL, "the server had {:?}", server_had.get());
    }
}
