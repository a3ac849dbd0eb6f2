//! How long to wait between tries to reach a Redis that went away, and for how long in all.

use common::error::QueueError;
use std::time::Duration;
use tokio::time::Instant;

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

/// The patience of one who waits for a Redis that went away, or that cannot do what it is asked for at the moment. It counts from when
/// Redis was lost, not from when whoever waits began.
#[derive(Debug, Default)]
pub struct Patience {
    at_most: Option<Duration>,
    lost: Option<Instant>,
    backoff: ReconnectBackoff,
    told: String,
}

impl Patience {
    /// For so long each time that it is lost.
    pub fn of(at_most: Duration) -> Patience {
        Patience { at_most: Some(at_most), ..Patience::default() }
    }

    /// For as long as it takes.
    pub fn endless() -> Patience {
        Patience::default()
    }

    /// After an error: how long to wait before the next try. `None` when there is nothing to wait for, as the error does not pass by
    /// itself or has lasted for too long.
    pub fn next_wait(&mut self, error: &QueueError) -> Option<Duration> {
        if !error.is_transient() {
            return None;
        }
        let lost = *self.lost.get_or_insert_with(Instant::now);
        let is_over = self.at_most.is_some_and(|at_most| lost.elapsed() >= at_most);
        (!is_over).then(|| self.backoff.next_wait())
    }

    /// The word to say about an error that is waited for: once, until it is another one.
    pub fn word(&mut self, error: &QueueError) -> Option<String> {
        // How long a server says that it takes changes each time.
        let what = match error {
            QueueError::NotNow { state, .. } => state.to_string(),
            other => other.to_string(),
        };
        let is_news = what != self.told;
        self.told = what;
        is_news.then(|| format!("{error}; trying again"))
    }

    /// Redis answered. Whether it had been lost.
    pub fn answered(&mut self) -> bool {
        self.backoff.reset();
        self.told.clear();
        self.lost.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> QueueError {
        QueueError::Unreachable { address: "redis".into(), why: "away".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn patience_counts_from_when_redis_was_lost() {
        let mut patience = Patience::of(Duration::from_secs(30));
        for _ in 0..3 {
            // Whoever waits may have done so for long before.
            tokio::time::advance(Duration::from_secs(100)).await;
            assert!(patience.next_wait(&away()).is_some());
            tokio::time::advance(Duration::from_secs(29)).await;
            assert!(patience.next_wait(&away()).is_some());
            assert!(patience.answered() && !patience.answered());
        }
        assert!(patience.next_wait(&away()).is_some());
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(patience.next_wait(&away()), None);
        assert_eq!(Patience::endless().next_wait(&QueueError::NoSuchBatch("1".into())), None, "it does not pass");
    }

    #[test]
    fn a_word_is_said_once_in_each_outage() {
        let mut patience = Patience::endless();
        assert!(patience.word(&away()).is_some_and(|word| word.ends_with("trying again")));
        assert_eq!(patience.word(&away()), None);
        patience.answered();
        assert!(patience.word(&away()).is_some());
        let loading = |why: &str| QueueError::NotNow {
            address: "redis".into(),
            state: common::error::ServerState::Loading,
            why: why.into(),
        };
        assert!(patience.word(&loading("about 9 s to go")).is_some());
        assert_eq!(patience.word(&loading("about 8 s to go")), None);
    }
}
