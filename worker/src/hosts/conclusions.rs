//! Conclusions: what an attempt teaches about the hosts that it visited, and who has to hear of it. Pure.
//!
//! Every claimed job passes here exactly once, however it ends: stored, found, refused, given back, panicked or lost. So nothing
//! that a claim gave out for it, a start or the probe of a host, is forgotten, unless its worker is taken for dead.

use super::trail::Visit;
use common::outcome::{Failure, Outcome, Rejection};
use common::retry::DELAY_MAX;
use queue::HostNews;
use std::sync::Arc;
use std::time::Duration;

/// So many failures in a row, with no success between, are no accident: the host is taken to be down.
pub(crate) const FAILURES_MAX: u32 = 10;
/// The longest that a host which does not answer is left alone before it is tried again.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How an attempt ended, as far as hosts are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With this outcome, which is that of the host that was gone to last; and what that asked to wait.
    Outcome(Outcome, Option<Duration>),
    /// The host that was gone to last answered, and where it pointed to may not be asked now.
    Redirected,
    /// It was broken off, or never began: given back, panicked, or its time was over while it waited for the storage.
    Untold,
    /// The job is not this worker's any more: what Redis gave out for it was given back with it.
    Lost,
}

/// What one visit teaches of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Learnt {
    /// It was not asked.
    NotAsked,
    /// It was asked, and nothing can be said of its answer.
    Unknown,
    /// It answers; what it says of one link is that link's affair.
    Answers,
    /// It wants to be left alone, for as long as it says where it says so.
    Refuses(Failure, Option<Duration>),
    /// It did not answer, or not to the end, or with its own failure.
    Fails(Failure),
}

/// What is known where conclusions are drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances {
    /// From the start of one request to that of the next, where hosts have a rate.
    pub(crate) interval: Option<Duration>,
    /// The wait after a first refusal.
    pub(crate) first_wait: Duration,
    /// It was the job's first attempt. That a link fails again says nothing new about its host.
    pub(crate) is_fresh: bool,
}

/// What follows for one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conclusion {
    pub(crate) host: Arc<str>,
    /// How many failures in a row it has now, in this worker.
    pub(crate) failures: u32,
    /// For the fleet.
    pub(crate) news: Option<HostNews>,
    /// What waits for it here has to wait in `delayed`.
    pub(crate) is_to_be_left_alone: bool,
    /// For the log.
    pub(crate) said: Option<Said>,
}

/// What people are told of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// It only fails, as of now.
    OnlyFails(Failure),
    /// It was tried for all others, and still fails.
    StillFails(Failure),
}

/// Draws the conclusions of an attempt that visited `visits`, the one at `last` as the last one. `failures` says how many failures in
/// a row a host has had so far in this worker.
pub(crate) fn conclude(
    visits: &[Visit],
    last: usize,
    ending: Ending,
    circumstances: Circumstances,
    failures: impl Fn(&Arc<str>) -> u32,
) -> Vec<Conclusion> {
    // Most of them: nothing is made for these.
    let is_nothing_new = |visit: &Visit| visit.probe.is_none() && visit.is_asked && failures(&visit.host) == 0;
    let is_answer = matches!(ending, Ending::Outcome(Outcome::Stored { exists: false }, _));
    if ending == Ending::Lost || (is_answer && visits.len() == 1 && visits.iter().all(is_nothing_new)) {
        return Vec::new();
    }
    let learnt = |at: usize, visit: &Visit| match (visit.is_asked, at == last) {
        (false, _) => Learnt::NotAsked,
        // It pointed to the next one, though that may be none that can be gone to, or the time for it be over.
        (true, false) => Learnt::Answers,
        (true, true) if visit.has_redirected => Learnt::Answers,
        (true, true) => match ending {
            Ending::Outcome(outcome, server_wait) => learnt_of(outcome, server_wait),
            Ending::Redirected => Learnt::Answers,
            Ending::Untold | Ending::Lost => Learnt::Unknown,
        },
    };
    let mut conclusions: Vec<Conclusion> = Vec::with_capacity(visits.len());
    for (at, visit) in visits.iter().enumerate() {
        // Of a host that was visited twice the second visit knows what the first one taught.
        let before =
            conclusions.iter().rev().find(|earlier| earlier.host == visit.host).map(|earlier| earlier.failures);
        let failures = before.unwrap_or_else(|| failures(&visit.host));
        conclusions.push(of_visit(visit, learnt(at, visit), failures, circumstances));
    }
    conclusions
}

fn of_visit(visit: &Visit, learnt: Learnt, failures: u32, circumstances: Circumstances) -> Conclusion {
    let Circumstances { interval, first_wait: first, is_fresh } = circumstances;
    let host = || visit.host.to_string();
    let nothing =
        Conclusion { host: Arc::clone(&visit.host), failures, news: None, is_to_be_left_alone: false, said: None };
    let unused = |interval| HostNews::Unused { host: host(), interval, was_probe: visit.probe.is_some() };
    match learnt {
        Learnt::NotAsked => {
            let is_given_back = interval.is_some() || visit.probe.is_some();
            Conclusion { news: is_given_back.then(|| unused(interval.unwrap_or_default())), ..nothing }
        }
        Learnt::Unknown => Conclusion { news: visit.probe.map(|_| unused(Duration::ZERO)), ..nothing },
        Learnt::Answers => {
            Conclusion { failures: 0, news: visit.probe.map(|_| HostNews::Answered { host: host() }), ..nothing }
        }
        Learnt::Refuses(reason, server_wait) => {
            let news = HostNews::Refused { host: host(), reason, server_wait, first, longest: DELAY_MAX };
            Conclusion { news: Some(news), is_to_be_left_alone: true, ..nothing }
        }
        Learnt::Fails(reason) => {
            let failures = if is_fresh { failures.saturating_add(1) } else { failures };
            let is_down = is_fresh && failures >= FAILURES_MAX;
            let is_found_down = is_fresh && failures == FAILURES_MAX;
            let longest = SILENCE_MAX;
            let (news, is_to_be_left_alone) = match visit.probe {
                // What it says now is not that it wants to be left alone.
                Some(Failure::RateLimited) => (Some(HostNews::Answered { host: host() }), false),
                Some(_) => (Some(HostNews::Refused { host: host(), reason, server_wait: None, first, longest }), true),
                None if is_down => (Some(HostNews::Silent { host: host(), reason, first, longest }), true),
                None => (None, false),
            };
            let said = match visit.probe {
                Some(Failure::RateLimited) => None,
                _ if is_found_down => Some(Said::OnlyFails(reason)),
                Some(_) => Some(Said::StillFails(reason)),
                None => None,
            };
            Conclusion { failures, news, is_to_be_left_alone, said, ..nothing }
        }
    }
}

/// What an outcome tells of the host that was asked last.
fn learnt_of(outcome: Outcome, server_wait: Option<Duration>) -> Learnt {
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
            Failure::WorkerCrashed | Failure::UnreadableJob => Learnt::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(2);

    fn visit(host: &str, probe: Option<Failure>, is_asked: bool) -> Visit {
        Visit { is_asked, ..Visit::to(Arc::from(host), std::time::Instant::now(), probe) }
    }

    fn at(is_fresh: bool, interval_ms: Option<u64>) -> Circumstances {
        Circumstances { interval: interval_ms.map(Duration::from_millis), first_wait: FIRST, is_fresh }
    }

    /// The news of a fresh attempt, without a rate and without failures before.
    fn news(visits: &[Visit], last: usize, ending: Ending) -> Vec<Option<HostNews>> {
        conclude(visits, last, ending, at(true, None), |_| 0).into_iter().map(|conclusion| conclusion.news).collect()
    }

    fn failed(failure: Failure) -> Ending {
        Ending::Outcome(Outcome::Failed(failure), None)
    }

    fn rejected(rejection: Rejection) -> Ending {
        Ending::Outcome(Outcome::Rejected(rejection), None)
    }

    #[test]
    fn a_probe_that_asks_nothing_is_given_back_however_its_job_ends() {
        let given_back = HostNews::Unused { host: "a".into(), interval: Duration::ZERO, was_probe: true };
        for ending in [
            Ending::Outcome(Outcome::Stored { exists: true }, None),
            rejected(Rejection::BadUrl),
            rejected(Rejection::BlockedAddress),
            Ending::Untold,
        ] {
            let probe = visit("a", Some(Failure::RateLimited), false);
            assert_eq!(news(&[probe], 0, ending), [Some(given_back.clone())], "{ending:?}");
        }
        // It was asked, and nobody knows what came of it.
        let asked = visit("a", Some(Failure::Connect), true);
        assert_eq!(news(&[asked], 0, Ending::Untold), [Some(given_back)]);
    }

    #[test]
    fn a_start_that_was_not_needed_is_given_back_and_one_that_was_is_not() {
        let (unasked, asked) = (visit("a", None, false), visit("a", None, true));
        let with_rate =
            |visit: &Visit| conclude(std::slice::from_ref(visit), 0, Ending::Untold, at(true, Some(25)), |_| 0);
        let interval = Duration::from_millis(25);
        let unused = HostNews::Unused { host: "a".into(), interval, was_probe: false };
        assert_eq!(with_rate(&unasked)[0].news, Some(unused));
        assert_eq!(with_rate(&asked)[0].news, None);
        assert_eq!(news(&[unasked], 0, Ending::Untold), [None], "without a rate there is nothing to give back");
    }

    #[test]
    fn a_redirecting_host_answers_whatever_its_target_does() {
        let visits = [visit("a", Some(Failure::Connect), true), visit("cdn", None, true)];
        let answered = Some(HostNews::Answered { host: "a".into() });
        let wait = Some(Duration::from_secs(7));
        let refused = |reason, server_wait| {
            Some(HostNews::Refused { host: "cdn".into(), reason, server_wait, first: FIRST, longest: DELAY_MAX })
        };
        let limited = Failure::RateLimited;
        let ending = Ending::Outcome(Outcome::Failed(limited), wait);
        assert_eq!(news(&visits, 1, ending), [answered.clone(), refused(limited, wait)]);
        let ending = Ending::Outcome(Outcome::Failed(Failure::Http5xx), wait);
        assert_eq!(news(&visits, 1, ending), [answered.clone(), refused(Failure::Http5xx, wait)]);
        assert_eq!(news(&visits, 1, failed(Failure::Connect)), [answered.clone(), None]);
        // The claim had admitted it to a target that it was not sent to.
        let visits = [visit("a", Some(Failure::Connect), true), visit("old", Some(Failure::Connect), false)];
        let old = Some(HostNews::Unused { host: "old".into(), interval: Duration::ZERO, was_probe: true });
        assert_eq!(news(&visits, 0, rejected(Rejection::Gone)), [answered.clone(), old]);
        assert_eq!(news(&visits[..1], 0, Ending::Redirected), [answered]);
    }

    #[test]
    fn a_host_that_points_to_where_nobody_goes_was_asked_and_answers() {
        let redirected = |probe| Visit { has_redirected: true, ..visit("a", probe, true) };
        for ending in [rejected(Rejection::BlockedAddress), failed(Failure::TimeoutTotal), Ending::Untold] {
            let with_rate = |visit| conclude(&[visit], 0, ending, at(true, Some(25)), |_| 3).remove(0);
            let plain = with_rate(redirected(None));
            assert_eq!((plain.news, plain.failures), (None, 0), "{ending:?}: its start is used");
            let answered = Some(HostNews::Answered { host: "a".into() });
            assert_eq!(with_rate(redirected(Some(Failure::Connect))).news, answered, "{ending:?}");
        }
    }

    #[test]
    fn the_target_s_failures_are_the_target_s() {
        let visits = [visit("a", None, true), visit("cdn", None, true)];
        let before = |host: &Arc<str>| if &**host == "a" { 9 } else { FAILURES_MAX - 1 };
        let conclusions = conclude(&visits, 1, failed(Failure::Connect), at(true, None), before);
        let counts: Vec<_> = conclusions.iter().map(|conclusion| (&*conclusion.host, conclusion.failures)).collect();
        assert_eq!(counts, [("a", 0), ("cdn", FAILURES_MAX)]);
        assert_eq!(conclusions[1].said, Some(Said::OnlyFails(Failure::Connect)));
        assert!(matches!(&conclusions[1].news, Some(HostNews::Silent { host, .. }) if host == "cdn"));
        assert!(conclusions[1].is_to_be_left_alone && !conclusions[0].is_to_be_left_alone);
        // That a link fails again says nothing new.
        let again = conclude(&visits, 1, failed(Failure::Connect), at(false, None), before);
        assert_eq!((again[1].failures, &again[1].news), (FAILURES_MAX - 1, &None));
    }

    #[test]
    fn a_probe_ends_or_doubles_the_hold() {
        for (held_for, ending, is_refused) in [
            (Failure::RateLimited, failed(Failure::RateLimited), true),
            (Failure::RateLimited, failed(Failure::Connect), false),
            (Failure::Connect, failed(Failure::Connect), true),
            (Failure::Connect, failed(Failure::RateLimited), true),
            (Failure::Connect, rejected(Rejection::Gone), false),
            (Failure::Connect, failed(Failure::Storage), false),
        ] {
            let [news] = news(&[visit("a", Some(held_for), true)], 0, ending).try_into().expect("one visit");
            match news.expect("a probe always tells") {
                HostNews::Refused { .. } => assert!(is_refused, "{held_for} {ending:?}"),
                HostNews::Answered { .. } => assert!(!is_refused, "{held_for} {ending:?}"),
                other => panic!("{other:?} after {held_for} {ending:?}"),
            }
        }
    }

    #[test]
    fn a_host_that_is_visited_twice_is_one_host() {
        let visits = [visit("a", None, true), visit("b", None, true), visit("a", None, true)];
        let conclusions = conclude(&visits, 2, failed(Failure::Truncated), at(true, None), |_| 5);
        assert_eq!(conclusions.iter().map(|conclusion| conclusion.failures).collect::<Vec<_>>(), [0, 0, 1]);
    }

    #[test]
    fn what_is_lost_is_nobody_s_news() {
        let visits = [visit("a", Some(Failure::Connect), true)];
        assert_eq!(conclude(&visits, 0, Ending::Lost, at(true, Some(25)), |_| 0), []);
    }
}
