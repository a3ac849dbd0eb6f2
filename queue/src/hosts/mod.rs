//! What workers tell each other about hosts, and all that scripts decide about them: it travels with settlements (`news.lua`), and
//! claims and redirects go by it (`admission.lua`). For people: which hosts there is something to remember of.

use super::Queue;
use crate::scripts::{Call, Piece, part, piece};
use common::error::QueueError;
use common::outcome::Failure;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;

/// The host of a payload's link.
pub(crate) const LINK: Piece = piece!("link.lua");
/// What is remembered of a host: reading it, and writing it back.
pub(crate) const ENTRIES: Piece = piece!("entries.lua");
/// Where jobs wait for their host.
pub(crate) const LINE: Piece = piece!("line.lua");
/// Whether a host may be asked now.
pub(crate) const ADMISSION: Piece = piece!("admission.lua");
/// Bringing those forward that wait.
pub(crate) const FORWARD: Piece = piece!("forward.lua");
/// What is made of [`HostNews`].
pub(crate) const NEWS: Piece = piece!("news.lua");

part! {
    /// A host whose jobs wait in the worker; a pace of 0 says that more of its jobs are welcome.
    Waiting<'a> as WAITING { args [host: &'a str, pace_ms: f64] }
}

part! {
    /// [`HostNews::Refused`]; a wait of 0 is none.
    Refused<'a> as REFUSED, tag "refused" {
        args [host: &'a str, reason: &'a str, server_wait_ms: f64, first_ms: f64, longest_ms: f64]
    }
}

part! {
    /// [`HostNews::Silent`].
    Silent<'a> as SILENT, tag "silent" {
        args [host: &'a str, reason: &'a str, first_ms: f64, longest_ms: f64]
    }
}

part! {
    /// [`HostNews::Answered`].
    Answered<'a> as ANSWERED, tag "answered" { args [host: &'a str] }
}

part! {
    /// [`HostNews::Unused`].
    Unused<'a> as UNUSED, tag "unused" { args [host: &'a str, interval_ms: f64, was_probe: bool] }
}

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

/// An entry of `hosts` as `entries.lua` writes it; times are ms since 1970, with fractions.
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
        let mut hosts = self.held_hosts(at_most, now_ms).await?;
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

    /// How many hosts everybody leaves alone now.
    ///
    /// # Errors
    /// As every call.
    pub async fn hosts_held(&self) -> Result<u64, QueueError> {
        let now_ms = self.now_ms().await?;
        let count = redis::Cmd::zcount(self.keys.hosts_held(), format!("({now_ms}"), "+inf");
        self.channel.query("count hosts that are held", &count).await
    }
}

impl Queue {
    /// Those that are left alone or were so lately, by their own index: of a list of strangers the others have no end.
    async fn held_hosts(&self, at_most: usize, now_ms: f64) -> Result<HashMap<String, HostState>, QueueError> {
        let mut cmd = redis::cmd("ZRANGE");
        cmd.arg(self.keys.hosts_held()).arg(0).arg(at_most).arg("REV");
        let held: Vec<String> = self.channel.query("read which hosts are held", &cmd).await?;
        if held.is_empty() {
            return Ok(HashMap::new());
        }
        let cmd = redis::Cmd::hmget(self.keys.hosts(), &held);
        let entries: Vec<Option<String>> = self.channel.query("read hosts that are held", &cmd).await?;
        let read = |(host, text): (String, Option<String>)| {
            let state = HostState::read(host.clone(), &text?, now_ms);
            Some((host, state))
        };
        Ok(held.into_iter().zip(entries).filter_map(read).collect())
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
    /// What was given out, and not needed.
    Unused {
        /// As above.
        host: String,
        /// What one start takes under a rate; zero where none is given back.
        interval: Duration,
        /// All others wait for what it finds out: another one has to try the host.
        was_probe: bool,
    },
}

/// A duration in ms, to the microsecond.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

impl HostNews {
    pub(super) fn add_to(&self, call: &mut Call) {
        match self {
            HostNews::Refused { host, reason, server_wait, first, longest } => {
                let news = Refused {
                    host,
                    reason: reason.name(),
                    server_wait_ms: ms(server_wait.unwrap_or_default()),
                    first_ms: ms(*first),
                    longest_ms: ms(*longest),
                };
                news.add_to(call);
            }
            HostNews::Silent { host, reason, first, longest } => {
                let news = Silent { host, reason: reason.name(), first_ms: ms(*first), longest_ms: ms(*longest) };
                news.add_to(call);
            }
            HostNews::Answered { host } => Answered { host }.add_to(call),
            HostNews::Unused { host, interval, was_probe } => {
                Unused { host, interval_ms: ms(*interval), was_probe: *was_probe }.add_to(call);
            }
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
