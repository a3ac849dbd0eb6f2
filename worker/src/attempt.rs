//! How one attempt at a job went wrong: the outcome, and what the server said with it. Pure.

use common::outcome::{Failure, Outcome, Rejection};
use std::time::Duration;

/// The longest wait that a server's `Retry-After` is believed for.
pub(crate) const SERVER_WAIT_MAX: Duration = Duration::from_secs(3600);

/// An attempt that did not store an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setback {
    pub(crate) outcome: Outcome,
    /// The last HTTP status; 0 where there was none.
    pub(crate) status: u16,
    /// What the server asked to wait, at most [`SERVER_WAIT_MAX`].
    pub(crate) server_wait: Option<Duration>,
}

impl From<Rejection> for Setback {
    fn from(rejection: Rejection) -> Self {
        Setback { outcome: Outcome::Rejected(rejection), status: 0, server_wait: None }
    }
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        Setback { outcome: Outcome::Failed(failure), status: 0, server_wait: None }
    }
}

impl Setback {
    pub(crate) fn with_status(self, status: u16) -> Setback {
        Setback { status, ..self }
    }
}

/// What an HTTP status other than success or a redirect means.
pub(crate) fn meaning_of_status(status: u16) -> Outcome {
    match status {
        404 | 410 => Outcome::Rejected(Rejection::Gone),
        401 | 403 | 451 => Outcome::Rejected(Rejection::Forbidden),
        429 => Outcome::Failed(Failure::RateLimited),
        500.. => Outcome::Failed(Failure::Http5xx),
        // 101, to another protocol that nobody asked for; the client keeps the other informational ones to itself.
        100..=199 => Outcome::Failed(Failure::Connect),
        // A 3xx without a usable target leads nowhere.
        300..=399 => Outcome::Rejected(Rejection::Redirects),
        _ => Outcome::Rejected(Rejection::Http4xx),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_mean_what_the_contract_says() {
        for (status, reason) in [
            (404, "gone"),
            (410, "gone"),
            (401, "forbidden"),
            (403, "forbidden"),
            (451, "forbidden"),
            (429, "rate_limited"),
            (500, "http_5xx"),
            (503, "http_5xx"),
            (400, "http_4xx"),
            (418, "http_4xx"),
            (304, "redirects"),
            (101, "connect"),
        ] {
            assert_eq!(meaning_of_status(status).reason(), reason, "{status}");
        }
    }
}
