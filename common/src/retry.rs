//! What a result means for its job: settle it, or try again, and when. Pure; randomness and time come from the caller.

use crate::outcome::{Failure, Outcome};
use std::time::Duration;

/// The longest that one delay grows to by doubling.
pub const DELAY_MAX: Duration = Duration::from_secs(5 * 60);

/// How often and how patiently a job is tried.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Attempts in all, at least 1.
    pub max_attempts: u32,
    /// The bound of the first delay; it doubles with each attempt, up to [`DELAY_MAX`].
    pub delay: Duration,
}

impl RetryPolicy {
    /// Answers of 429 that a job gets without an attempt spent; as many of its host in a row are waited out by all jobs
    /// there. Twice the attempts: a host that has cooled down that often and still refuses is not going to stop.
    pub fn free_refusals(self) -> u32 {
        self.max_attempts.saturating_mul(2)
    }
}

/// What happens to the job now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// A result is recorded and the job is over. A `Failed` outcome also goes to the dead letters.
    Settle,
    /// The job waits in `delayed` until its host may be asked again, with no attempt spent.
    Hold,
    /// The job waits for this long in `delayed`, with one more attempt spent.
    Retry {
        /// From now.
        after: Duration,
    },
}

/// Decides what an attempt's outcome means.
///
/// `attempts` counts this attempt too, `held` the answers of 429 before it that cost none. `server_wait` is the server's own `Retry-After`, capped by the caller.
/// `jitter` is a uniform number in 0..1: full jitter, as in "Exponential Backoff And Jitter" (AWS Architecture Blog,
/// 2015), spreads the retries of jobs that failed together over the whole delay.
pub fn disposition(
    outcome: Outcome,
    attempts: u32,
    held: u32,
    policy: RetryPolicy,
    server_wait: Option<Duration>,
    jitter: f64,
) -> Disposition {
    let may_pass_later = match outcome {
        Outcome::Stored { .. } | Outcome::Rejected(_) => false,
        Outcome::Failed(failure) => match failure {
            Failure::Dns
            | Failure::Connect
            | Failure::Tls
            | Failure::TimeoutConnect
            | Failure::TimeoutIdle
            | Failure::TimeoutTotal
            | Failure::Http5xx
            | Failure::RateLimited
            | Failure::Truncated
            | Failure::Storage => true,
            Failure::WorkerCrashed | Failure::UnreadableJob => false,
        },
    };
    // What a job has no part in costs it nothing, but not for ever: there are links that are refused for good.
    if outcome == Outcome::Failed(Failure::RateLimited) && held < policy.free_refusals() {
        return Disposition::Hold;
    }
    if !may_pass_later || attempts >= policy.max_attempts {
        return Disposition::Settle;
    }
    let backoff = delay_bound(policy.delay, attempts).mul_f64(jitter.clamp(0.0, 1.0));
    // The server's wish is a lower bound: coming back sooner would only be told off again. Jitter goes on top, or
    // everybody who was told the same second returns in that second.
    let after = server_wait.map_or(backoff, |wait| wait + backoff);
    Disposition::Retry { after }
}

/// The upper bound of the delay after `attempts` spent attempts.
fn delay_bound(first: Duration, attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(20);
    first.saturating_mul(1 << doublings).min(DELAY_MAX.max(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Rejection;

    const POLICY: RetryPolicy = RetryPolicy { max_attempts: 5, delay: Duration::from_secs(2) };

    #[test]
    fn only_what_may_pass_later_is_tried_again() {
        for &rejection in Rejection::ALL {
            assert_eq!(disposition(Outcome::Rejected(rejection), 1, 10, POLICY, None, 0.5), Disposition::Settle);
        }
        for &failure in Failure::ALL {
            let expected = !matches!(failure, Failure::WorkerCrashed | Failure::UnreadableJob);
            let got = disposition(Outcome::Failed(failure), 1, 10, POLICY, None, 0.5);
            assert_eq!(matches!(got, Disposition::Retry { .. }), expected, "{failure}");
        }
        let exists = Outcome::Stored { exists: true };
        assert_eq!(disposition(exists, 1, 10, POLICY, None, 0.5), Disposition::Settle);
    }

    #[test]
    fn delays_double_up_to_their_bound_and_end_after_the_last_attempt() {
        let failed = Outcome::Failed(Failure::Connect);
        for (attempts, bound_s) in [(1, 2), (2, 4), (3, 8), (4, 16)] {
            let got = disposition(failed, attempts, 10, POLICY, None, 1.0);
            assert_eq!(got, Disposition::Retry { after: Duration::from_secs(bound_s) });
            let got = disposition(failed, attempts, 10, POLICY, None, 0.0);
            assert_eq!(got, Disposition::Retry { after: Duration::ZERO });
        }
        assert_eq!(disposition(failed, 5, 10, POLICY, None, 1.0), Disposition::Settle);
        let patient = RetryPolicy { max_attempts: u32::MAX, ..POLICY };
        let got = disposition(failed, u32::MAX - 1, 10, patient, None, 1.0);
        assert_eq!(got, Disposition::Retry { after: DELAY_MAX });
    }

    #[test]
    fn a_rate_limit_costs_no_attempt_so_often() {
        let limited = Outcome::Failed(Failure::RateLimited);
        assert_eq!(disposition(limited, 1, 9, POLICY, None, 0.5), Disposition::Hold);
        assert!(matches!(disposition(limited, 1, 10, POLICY, None, 0.5), Disposition::Retry { .. }));
        assert_eq!(disposition(limited, 5, 10, POLICY, None, 0.5), Disposition::Settle);
        assert!(matches!(
            disposition(Outcome::Failed(Failure::Http5xx), 1, 0, POLICY, None, 0.5),
            Disposition::Retry { .. }
        ));
    }

    #[test]
    fn retry_after_is_a_lower_bound() {
        let got = disposition(Outcome::Failed(Failure::RateLimited), 1, 10, POLICY, Some(Duration::from_secs(30)), 0.5);
        assert_eq!(got, Disposition::Retry { after: Duration::from_secs(31) });
    }
}
