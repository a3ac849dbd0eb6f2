//! What workers tell each other about hosts. It travels with settlements, and `lua/hosts.lua` says what is made of it.

use crate::outcome::Failure;
use std::time::Duration;

/// One thing that a worker learnt about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostNews {
    /// It asks not to be asked (429), or a job that tried it for all others failed: everybody leaves it alone for a time.
    Refused {
        /// As [`host_of`](crate::host::host_of) names it.
        host: String,
        /// What it is called in results, should the jobs that wait run out of patience.
        reason: Failure,
        /// What the server asked to wait.
        server_wait: Option<Duration>,
        /// The wait after the first refusal where the server asked for none; it doubles with each.
        first: Duration,
        /// The most that it doubles to.
        longest: Duration,
    },
    /// This worker gets no answer there, many times in a row. Once most workers say so, the host is left alone as above;
    /// until then only this one leaves it alone.
    Silent {
        /// As above.
        host: String,
        /// As above.
        reason: Failure,
        /// As above.
        first: Duration,
        /// As above.
        longest: Duration,
    },
    /// It answers again.
    Answered {
        /// As above.
        host: String,
    },
    /// A start that was given out under a rate, and no request was made.
    Unused {
        /// As above.
        host: String,
        /// What one start takes.
        interval: Duration,
    },
}

impl HostNews {
    /// The words of `settle.lua`.
    pub(super) fn arguments(&self) -> Vec<String> {
        let ms = |duration: &Duration| format!("{:.3}", duration.as_secs_f64() * 1000.0);
        match self {
            HostNews::Refused { host, reason, server_wait, first, longest } => vec![
                "refused".into(),
                host.clone(),
                reason.name().into(),
                ms(&server_wait.unwrap_or_default()),
                ms(first),
                ms(longest),
            ],
            HostNews::Silent { host, reason, first, longest } => {
                vec!["silent".into(), host.clone(), reason.name().into(), ms(first), ms(longest)]
            }
            HostNews::Answered { host } => vec!["answered".into(), host.clone()],
            HostNews::Unused { host, interval } => vec!["unused".into(), host.clone(), ms(interval)],
        }
    }
}
