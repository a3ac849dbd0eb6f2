//! What the model says of hosts in the words of the product, and the other way round.

use super::super::hosts::{Leave, News};
use super::super::operations::{Learnt, Rate};
use super::super::{FIRST_WAIT, LATER, LONGEST_WAIT};
use ::queue::{Admission, HostNews, Start};
use common::outcome::Failure;
use std::time::Duration;

/// The reason of a failure to answer, as results name it.
const NO_ANSWER: &str = "connect";

/// What a worker tells of a host that it was admitted to, where there is anything to tell.
pub(super) fn news_of(host: &str, is_probe: bool, learnt: Learnt, rate: Rate) -> Option<News> {
    let host = host.to_owned();
    Some(match learnt {
        Learnt::NotAsked => News::Unused { host, has_start: rate != Rate::Any, was_probe: is_probe },
        Learnt::Answers if !is_probe => return None,
        Learnt::Answers => News::Answered { host },
        Learnt::Refuses => News::Refused { host, why: "rate_limited", server_wait: None },
        Learnt::RefusesFor => News::Refused { host, why: "rate_limited", server_wait: Some(LATER) },
        Learnt::NoAnswer if is_probe => News::Refused { host, why: NO_ANSWER, server_wait: None },
        Learnt::NoAnswer => News::Silent { host, why: NO_ANSWER },
    })
}

/// The same in the product's words.
pub(super) fn told(news: &News, rate: Rate) -> HostNews {
    let reason = |why: &str| why.parse::<Failure>().unwrap();
    let (first, longest) = (FIRST_WAIT, LONGEST_WAIT);
    match news.clone() {
        News::Refused { host, why, server_wait } => {
            HostNews::Refused { host, reason: reason(why), server_wait, first, longest }
        }
        News::Silent { host, why } => HostNews::Silent { host, reason: reason(why), first, longest },
        News::Answered { host } => HostNews::Answered { host },
        News::Unused { host, has_start, was_probe } => {
            let interval = rate.step_ms().filter(|_| has_start).unwrap_or(0.0);
            HostNews::Unused { host, interval: Duration::from_secs_f64(interval / 1000.0), was_probe }
        }
    }
}

/// A start in the model's words: how many are before it.
pub(super) fn leave_of(start: &Start, rate: Rate) -> Leave {
    match start {
        // A little less than whole steps: some time went by since it was stopped.
        Start::After(wait) => {
            let steps = rate.step_ms().map_or(0.0, |step| (wait.as_millis() as f64 - 1.0) / step);
            Leave::After(steps.ceil().max(0.0) as u64)
        }
        Start::Probe(why) => Leave::Probe(why.name().to_owned()),
        Start::Refused(why) => Leave::Refused(why.name().to_owned()),
    }
}

pub(super) fn leaves_of(admissions: &[Admission], rate: Rate) -> Vec<(String, Leave)> {
    admissions.iter().map(|admission| (admission.host.clone(), leave_of(&admission.start, rate))).collect()
}
