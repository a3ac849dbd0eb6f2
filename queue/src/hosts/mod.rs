//! What workers tell each other about hosts. It travels with settlements, and `lua/hosts.lua` says what is made of it. For
//! people: which hosts there is something to remember of.

use super::Queue;
use common::error::QueueError;
use common::outcome::Failure;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;

/// What the fleet remembers about a host.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HostState {
    /// As [`host_of`](common::host::host_of) names it.
    pub host: String,
    /// For how much longer everybody leaves it alone.
    pub held_for_ms: Option<u64>,
    /// Why: the reason of the last refusal, as in results; empty when there was none.
    pub why: String,
    /// Refusals in a row.
    pub refusals: u64,
    /// One job tries whether it answers again.
    pub probing: bool,
    /// Until the next request may start, under a rate.
    pub next_start_in_ms: Option<u64>,
    /// Workers that get no answer there while others do.
    pub lonely_workers: u64,
}

/// An entry of `hosts` as `lua/hosts.lua` writes it; times are ms since 1970, with fractions.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Remembered {
    tat: f64,
    ends: f64,
    level: f64,
    why: String,
    probe: f64,
    alone: HashMap<String, serde_json::Value>,
}

impl HostState {
    fn read(host: String, text: &str, now_ms: f64) -> HostState {
        let remembered: Remembered = serde_json::from_str(text).unwrap_or_default();
        let left = |until: f64| (until > now_ms).then(|| (until - now_ms).ceil() as u64);
        HostState {
            host,
            held_for_ms: left(remembered.ends),
            why: remembered.why,
            refusals: remembered.level.max(0.0) as u64,
            probing: remembered.probe > now_ms,
            next_start_in_ms: left(remembered.tat),
            lonely_workers: remembered.alone.len() as u64,
        }
    }
}

/// How many entries one look-up asks for.
const SCAN_COUNT: usize = 500;

impl Queue {
    /// Hosts that there is something to remember of, those that are left alone first, longest first; of more than `at_most` any
    /// others are left out. A constant number of round trips for each 500 hosts looked at, and no more than `at_most` and 500 are.
    ///
    /// # Errors
    /// As every call.
    pub async fn hosts(&self, at_most: usize) -> Result<Vec<HostState>, QueueError> {
        let now_ms = self.now_ms().await? as f64;
        let mut hosts: HashMap<String, HostState> = HashMap::new();
        let mut cursor: u64 = 0;
        loop {
            let mut cmd = redis::cmd("HSCAN");
            cmd.arg(self.keys.hosts()).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
            let (next, entries): (u64, Vec<(String, String)>) = self.channel.query("read hosts", &cmd).await?;
            cursor = next;
            for (host, text) in entries {
                let state = HostState::read(host.clone(), &text, now_ms);
                hosts.insert(host, state);
            }
            if cursor == 0 || hosts.len() >= at_most {
                break;
            }
        }
        let mut hosts: Vec<HostState> = hosts.into_values().collect();
        hosts.sort_by(|a, b| {
            let rank = |state: &HostState| (state.held_for_ms, state.refusals, state.lonely_workers);
            rank(b).cmp(&rank(a)).then_with(|| a.host.cmp(&b.host))
        });
        hosts.truncate(at_most);
        Ok(hosts)
    }
}

/// One thing that a worker learnt about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostNews {
    /// It asks not to be asked (429), or a job that tried it for all others failed: everybody leaves it alone for a time.
    Refused {
        /// As [`host_of`](common::host::host_of) names it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_lua_writes_them() {
        let text = r#"{"tat":1100.5,"ends":3000,"level":2,"why":"rate_limited","alone":{"w":{"ends":1,"level":1}},"later":[]}"#;
        let state = HostState::read("a.org".into(), text, 1000.0);
        assert_eq!((state.held_for_ms, state.next_start_in_ms, state.refusals), (Some(2000), Some(101), 2));
        assert_eq!((state.why.as_str(), state.probing, state.lonely_workers), ("rate_limited", false, 1));
        assert_eq!(HostState::read("a.org".into(), text, 5000.0).held_for_ms, None);
        assert_eq!(HostState::read("x".into(), "no JSON", 0.0), HostState { host: "x".into(), ..HostState::default() });
    }
}
