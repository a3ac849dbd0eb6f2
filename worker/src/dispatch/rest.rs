//! The rest between two questions to Redis: how long it is, and what ends it before its time. Pure.

use std::time::Instant;

/// Whether Redis may be asked the next thing, and what is waited for if not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// It may be asked.
    Over,
    /// Nothing is to be asked until then, or until anything happens; with `for_jobs`, also until the queue has a job.
    Idle { until: Instant, for_jobs: bool },
    /// Nothing is to be asked until then, whatever happens. Redis is away, and to ask it again with each download that ends would
    /// be a storm; or all of a fleet was woken by one push.
    Pause { until: Instant },
    /// More slots are about to get free: one claim for many is cheaper than many for one.
    Gather { until: Instant },
    /// It may be asked, and more slots were waited for.
    Gathered,
}

impl Rest {
    /// When it ends by itself.
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Rest::Over | Rest::Gathered => None,
            Rest::Idle { until, .. } | Rest::Pause { until } | Rest::Gather { until } => Some(until),
        }
    }

    /// What is left of it after something happened.
    pub(super) fn after_event(self, now: Instant) -> Rest {
        match self {
            Rest::Idle { .. } => Rest::Over,
            Rest::Pause { until } if until <= now => Rest::Over,
            Rest::Gather { until } if until <= now => Rest::Gathered,
            Rest::Over | Rest::Pause { .. } | Rest::Gather { .. } | Rest::Gathered => self,
        }
    }

    /// Whether Redis may be asked.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Rest::Over | Rest::Gathered)
    }

    pub(super) fn is_idle(self) -> bool {
        matches!(self, Rest::Idle { .. })
    }

    pub(super) fn is_for_jobs(self) -> bool {
        matches!(self, Rest::Idle { for_jobs: true, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_event_ends_idleness_and_nothing_but_time_ends_a_pause() {
        let now = Instant::now();
        let until = now + Duration::from_millis(5);
        for (rest, before, after) in [
            (Rest::Over, Rest::Over, Rest::Over),
            (Rest::Idle { until, for_jobs: true }, Rest::Over, Rest::Over),
            (Rest::Pause { until }, Rest::Pause { until }, Rest::Over),
            (Rest::Gather { until }, Rest::Gather { until }, Rest::Gathered),
            (Rest::Gathered, Rest::Gathered, Rest::Gathered),
        ] {
            assert_eq!((rest.after_event(now), rest.after_event(until)), (before, after), "{rest:?}");
        }
    }
}
