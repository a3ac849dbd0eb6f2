//! What became of one job: the words of the results stream. Pure.
//!
//! An outcome is a fact about a URL, not an error of the program. Whether a failure is tried again is decided in
//! `retry`, by an exhaustive match over these reasons.

use std::fmt;
use std::str::FromStr;

macro_rules! reasons {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$inner])* $variant),+ }

        impl $name {
            /// Every reason there is.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word in results, flags and metrics.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                $name::ALL.iter().copied().find(|r| r.name() == text)
                    .ok_or_else(|| format!("unknown reason \"{text}\""))
            }
        }
    };
}

reasons! {
    /// Why no retry would help.
    Rejection {
        /// HTTP 404 or 410.
        Gone = "gone",
        /// HTTP 401, 403 or 451.
        Forbidden = "forbidden",
        /// The host served a placeholder that stands for a removed image.
        Removed = "removed",
        /// Empty, or not of a wanted type by its bytes.
        NotImage = "not_image",
        /// Larger than `--max-bytes`, announced or actual.
        TooLarge = "too_large",
        /// Smaller than what was asked for.
        TooSmall = "too_small",
        /// The bytes cannot be decoded.
        Undecodable = "undecodable",
        /// Not the SHA-256 that the job expected.
        HashMismatch = "hash_mismatch",
        /// The host asks not to be used this way.
        Robots = "robots",
        /// An address that the guard refuses.
        BlockedAddress = "blocked_address",
        /// Not a usable http(s) URL.
        BadUrl = "bad_url",
        /// Too many redirects, or one that leads nowhere.
        Redirects = "redirects",
        /// Any other HTTP 4xx that a retry does not help.
        Http4xx = "http_4xx",
    }
}

reasons! {
    /// What went wrong, where another try may help.
    Failure {
        /// The host's name did not resolve.
        Dns = "dns",
        /// No TCP connection.
        Connect = "connect",
        /// No TLS session.
        Tls = "tls",
        /// No connection within `--connect-timeout`.
        TimeoutConnect = "timeout_connect",
        /// Nothing arrived for `--idle-timeout`.
        TimeoutIdle = "timeout_idle",
        /// Not done within `--total-timeout`.
        TimeoutTotal = "timeout_total",
        /// HTTP 5xx.
        Http5xx = "http_5xx",
        /// HTTP 429.
        RateLimited = "rate_limited",
        /// The body ended before its announced end.
        Truncated = "truncated",
        /// The storage did not take the object.
        Storage = "storage",
        /// The job took its worker down, three times.
        WorkerCrashed = "worker_crashed",
        /// The payload is not a job that this version can read.
        UnreadableJob = "unreadable_job",
    }
}

/// How a job ended, or how one attempt at it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The object lies in storage, complete.
    Stored {
        /// It was there before; nothing was downloaded.
        exists: bool,
    },
    /// No retry helps.
    Rejected(Rejection),
    /// A retry may help; as a final outcome, retries are used up.
    Failed(Failure),
}

impl Outcome {
    /// The field `outcome` of a result.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Stored { .. } => "stored",
            Outcome::Rejected(_) => "rejected",
            Outcome::Failed(_) => "failed",
        }
    }

    /// The field `reason` of a result; empty for a plain `stored`.
    pub fn reason(self) -> &'static str {
        match self {
            Outcome::Stored { exists: false } => "",
            Outcome::Stored { exists: true } => "exists",
            Outcome::Rejected(rejection) => rejection.name(),
            Outcome::Failed(failure) => failure.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_back_as_it_prints() {
        for r in Rejection::ALL {
            assert_eq!(r.name().parse::<Rejection>(), Ok(*r));
        }
        for f in Failure::ALL {
            assert_eq!(f.name().parse::<Failure>(), Ok(*f));
        }
        assert_eq!((Rejection::ALL.len(), Failure::ALL.len()), (13, 12));
    }
}
