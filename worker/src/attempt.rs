//! How one attempt at a job went wrong: the outcome, and what the server said with it; what that tells of its host. Pure.

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

/// What an attempt tells of the job's host, for those that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learnt {
    /// It was not asked.
    NotAsked,
    /// It answers; what it says of one link is that link's affair.
    Answers,
    /// It wants to be left alone, for as long as it says where it says so.
    Refuses(Failure, Option<Duration>),
    /// It did not answer, or not to the end, or with its own failure.
    Fails(Failure),
}

/// What an outcome tells of its host.
pub(crate) fn learnt(outcome: Outcome, server_wait: Option<Duration>) -> Learnt {
    match outcome {
        Outcome::Stored { exists: true } => Learnt::NotAsked,
        Outcome::Stored { exists: false } => Learnt::Answers,
        Outcome::Rejected(rejection) => match rejection {
            Rejection::BadUrl | Rejection::BlockedAddress => Learnt::NotAsked,
            Rejection::Gone
            | Rejection::Forbidden
            | Rejection::Removed
            | Rejection::NotImage
            | Rejection::TooLarge
            | Rejection::TooSmall
            | Rejection::Undecodable
            | Rejection::HashMismatch
            | Rejection::Robots
            | Rejection::Redirects
            | Rejection::Http4xx => Learnt::Answers,
        },
        Outcome::Failed(failure) => match failure {
            Failure::RateLimited => Learnt::Refuses(failure, server_wait),
            // A Retry-After is obeyed whatever status it comes with.
            Failure::Http5xx if server_wait.is_some() => Learnt::Refuses(failure, server_wait),
            Failure::Dns
            | Failure::Connect
            | Failure::Tls
            | Failure::TimeoutConnect
            | Failure::TimeoutIdle
            | Failure::TimeoutTotal
            | Failure::Http5xx
            | Failure::Truncated => Learnt::Fails(failure),
            // The object was there, and could not be kept.
            Failure::Storage => Learnt::Answers,
            Failure::WorkerCrashed | Failure::UnreadableJob => Learnt::NotAsked,
        },
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
