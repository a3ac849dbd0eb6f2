//! Admission of hosts for jobs that are claimed already: the targets of redirects. For the host of a link the claim decides, by the same
//! functions (`hosts/admission.lua`).

use super::hosts::{ADMISSION, ENTRIES};
use super::{Queue, Start, WorkerName};
use crate::scripts::{Reply, TIME, TYPES, part, script};
use common::error::QueueError;
use common::host::HostRate;
use std::time::Duration;

script! {
    AdmitScript<'a> from "admit.lua";
    with [TIME, TYPES, ENTRIES, ADMISSION];
    keys [hosts_key, hosts_held_key, workers_key];
    args [worker: &'a str, host_interval_us: u64, free_refusals: u32], then questions_from;
    parts [Question]
}

part! {
    /// Whether a host may be asked, by a start that lies so far ahead at most.
    Question<'a> as QUESTION { args [host: &'a str, ahead_ms: u64] }
}

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct AdmissionRequest {
    /// As in a claim.
    pub host_rate: Option<HostRate>,
    /// As in a claim.
    pub free_refusals: u32,
    /// Each with the time that a start may lie ahead, of which 300 ms count.
    pub hosts: Vec<(String, Duration)>,
}

/// What the fleet says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// For each host of the request, in its order: when it may be asked; `None` when that is not within its time, or the worker was
    /// taken for dead.
    pub starts: Vec<Option<Start>>,
    /// What was remembered of these hosts could not be understood, and was dropped.
    pub dropped: Vec<String>,
}

impl Queue {
    /// Asks for hosts at once, in one round trip. What is given out and not needed is to be given back, as
    /// [`HostNews::Unused`](super::HostNews::Unused).
    ///
    /// # Errors
    /// As every call. Then starts may have been given out that nobody uses, and a probe, which ends by itself after 30 s.
    pub async fn admit(&self, worker: &WorkerName, request: &AdmissionRequest) -> Result<Admitted, QueueError> {
        let call = AdmitScript {
            hosts_key: self.keys.hosts(),
            hosts_held_key: self.keys.hosts_held(),
            workers_key: self.keys.workers(),
            worker: worker.as_str(),
            host_interval_us: request.host_rate.map_or(0, |rate| rate.interval().as_micros() as u64),
            free_refusals: request.free_refusals,
        };
        let mut call = call.call();
        for (host, ahead) in &request.hosts {
            Question { host, ahead_ms: ahead.as_millis() as u64 }.add_to(&mut call);
        }
        Admitted::read(self.channel.run("ask whether hosts may be asked", &call).await?, request.hosts.len())
    }
}

impl Admitted {
    fn read(mut reply: Reply, questions: usize) -> Result<Admitted, QueueError> {
        // Of an entry that nobody understands the name may be as bad.
        let dropped = reply.texts("hosts that were dropped")?;
        let mut answers = reply.list("when each host may be asked")?;
        reply.end()?;
        let starts = (0..questions).map(|_| Start::read_or_none(&mut answers)).collect::<Result<_, _>>()?;
        answers.end()?;
        Ok(Admitted { starts, dropped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripts::probe::{takes_only, word};
    use common::outcome::Failure;
    use redis::Value::{Array, Int};

    #[test]
    fn what_hosts_are_admitted_with_is_read_whole_or_not_at_all() {
        let read = |reply| Admitted::read(reply, 4);
        let answers = [Int(20), word("?dns"), word("rate_limited"), word("")];
        let admitted = takes_only(read, &[Array(vec![word("a.org")]), Array(answers.to_vec())]);
        let starts = [
            Some(Start::After(Duration::from_millis(20))),
            Some(Start::Probe(Failure::Dns)),
            Some(Start::Refused(Failure::RateLimited)),
            None,
        ];
        assert_eq!(admitted, Admitted { starts: starts.to_vec(), dropped: vec!["a.org".into()] });
        for answers in [&answers[..3], &[Int(-1), Int(0), Int(0), Int(0)]] {
            let reply = Reply::of("test", Array(vec![Array(Vec::new()), Array(answers.to_vec())])).expect("a list");
            assert!(read(reply).is_err(), "{answers:?}");
        }
    }
}
