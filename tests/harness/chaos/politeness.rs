//! Whether hosts were left alone when they asked for it, and got no more than their rate: by what they saw themselves. Pure.
//!
//! Nobody can obey what nobody could tell. So a refusal counts for a request only if both workers and Redis were well when it was to
//! be told, and Redis did not forget it since.

use crate::origin::Asked;
use std::time::{Duration, Instant};

/// From a refusal until nobody asks any more: requests under way, claims under way, and a busy machine.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// After a fault until everything is connected and told again.
const AFTERMATH: Duration = Duration::from_millis(1500);
/// A rate is looked at over so long: starts are given out 0.3 s ahead, and may be used late.
pub(super) const RATE_WINDOW: Duration = Duration::from_secs(4);

/// A time in which a fault kept somebody from telling or hearing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disturbance {
    pub(super) from: Instant,
    pub(super) to: Instant,
    /// Which worker; `None` for all of them.
    pub(super) whose: Option<usize>,
    /// Redis forgot what it had been told, or could not tell how long ago that was.
    pub(super) forgets: bool,
}

impl Disturbance {
    fn meets(&self, from: Instant, to: Instant) -> bool {
        self.from <= to && from <= self.to + AFTERMATH
    }
}

/// What was looked at, and what must not be.
#[derive(Debug, Default)]
pub(super) struct Manners {
    /// Refusals with a `Retry-After`.
    pub(super) refusals: usize,
    /// Time in which a host was not to be asked by anybody who could know.
    pub(super) left_alone: Duration,
    /// Requests in it.
    pub(super) impolite: Vec<String>,
    /// How long after a refusal the last request came that it forbade: under way when the refusal came, or before it was heard of.
    pub(super) latest: Duration,
}

/// Looks through the record of one host.
pub(super) fn manners(host: &str, record: &[Asked], disturbances: &[Disturbance], started: Instant) -> Manners {
    let holds: Vec<(&Asked, Instant)> = record
        .iter()
        .filter_map(|asked| Some((asked, asked.at + asked.refusal.flatten()?)))
        .filter(|(refused, _)| {
            let (from, to) = (refused.at, refused.at + GRACE);
            !disturbances.iter().any(|one| is_of(one, number(&refused.agent)) && one.meets(from, to))
        })
        .collect();
    // The refusal that worker `who` has to know of at `at`, when it has had so long to hear of it.
    let hold_after = |at: Instant, who: Option<usize>, grace: Duration| {
        let heard = at.checked_sub(GRACE).unwrap_or(at);
        let is_deaf = disturbances.iter().any(|one| is_of(one, who) && one.meets(heard, at));
        let is_known = |(refused, ends): &&(&Asked, Instant)| {
            refused.at + grace < at
                && at < *ends
                && !disturbances.iter().any(|one| one.forgets && one.meets(refused.at, at))
        };
        (!is_deaf).then(|| holds.iter().find(is_known)).flatten()
    };
    let hold_at = |at: Instant, who: Option<usize>| hold_after(at, who, GRACE);
    let mut manners = Manners {
        refusals: record.iter().filter(|asked| asked.refusal.flatten().is_some()).count(),
        ..Manners::default()
    };
    let step = Duration::from_millis(100);
    let last = holds.iter().map(|(_, ends)| *ends).max();
    let mut at = holds.iter().map(|(refused, _)| refused.at).min();
    while let (Some(now), Some(last)) = (at, last)
        && now < last
    {
        if hold_at(now, None).is_some() {
            manners.left_alone += step;
        }
        at = Some(now + step);
    }
    let since = |at: Instant| at.saturating_duration_since(started).as_secs_f64();
    for asked in record {
        if let Some((refused, _)) = hold_after(asked.at, number(&asked.agent), Duration::ZERO) {
            manners.latest = manners.latest.max(asked.at - refused.at);
        }
        if let Some((refused, ends)) = hold_at(asked.at, number(&asked.agent)) {
            manners.impolite.push(format!(
                "{host} was asked by {} at {:.2} s for {}, and had refused at {:.2} s until {:.2} s",
                asked.agent,
                since(asked.at),
                asked.path,
                since(refused.at),
                since(*ends)
            ));
        }
    }
    manners
}

/// The most requests in any [`RATE_WINDOW`] between two times.
pub(super) fn most_requests(record: &[Asked], from: Instant, to: Instant) -> usize {
    let times: Vec<Instant> = record.iter().map(|asked| asked.at).filter(|at| (from..to).contains(at)).collect();
    let within = |first: usize| times[first..].iter().take_while(|at| **at - times[first] < RATE_WINDOW).count();
    (0..times.len()).map(within).max().unwrap_or(0)
}

/// The worker of a user agent.
fn number(agent: &str) -> Option<usize> {
    agent.strip_prefix("chaos-")?.parse().ok()
}

/// Whether it concerns this worker.
fn is_of(disturbance: &Disturbance, who: Option<usize>) -> bool {
    disturbance.whose.is_none() || disturbance.whose == who
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(at: Instant, agent: &str, refusal_s: Option<u64>) -> Asked {
        let refusal = refusal_s.map(|seconds| Some(Duration::from_secs(seconds)));
        Asked { at, agent: agent.to_owned(), path: "p".to_owned(), refusal }
    }

    #[test]
    fn who_could_know_is_impolite_and_nobody_else() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let record = [
            asked(at(0), "chaos-0", Some(6)),
            asked(at(1900), "chaos-1", None),
            asked(at(4000), "chaos-1", None),
            asked(at(6100), "chaos-1", None),
        ];
        let looked = |disturbances: &[Disturbance]| manners("h", &record, disturbances, start);
        assert_eq!((looked(&[]).impolite.len(), looked(&[]).refusals), (1, 1));
        assert_eq!(looked(&[]).latest, Duration::from_secs(4));
        assert!(looked(&[]).left_alone >= Duration::from_millis(3900));
        let fault = |from, to, whose, forgets| Disturbance { from: at(from), to: at(to), whose, forgets };
        for (excuse, is_one) in [
            (fault(100, 200, Some(0), false), true),
            (fault(100, 200, Some(2), false), false),
            (fault(2500, 2600, Some(1), false), true),
            (fault(2500, 2600, Some(0), false), false),
            (fault(3000, 3100, None, true), true),
            (fault(5000, 5100, None, true), false),
        ] {
            assert_eq!(looked(&[excuse]).impolite.is_empty(), is_one, "{excuse:?}");
        }
    }

    #[test]
    fn the_busiest_seconds_count() {
        let start = Instant::now();
        let record: Vec<Asked> =
            (0..100).map(|n| asked(start + Duration::from_millis(100 * n), "chaos-0", None)).collect();
        assert_eq!(most_requests(&record, start, start + Duration::from_secs(9)), 40);
        assert_eq!(most_requests(&record, start, start + Duration::from_secs(2)), 20);
    }
}
