//! What to do next about each reason why jobs were not stored: a table, and the sentences that it makes. Pure.

use common::outcome::{Failure, Rejection};

/// Whose summary it is: that decides what can be typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A queue with workers of its own.
    Queue,
    /// `run`, whose workers and Redis end with it: its own command goes on.
    Run,
}

/// What is known about one reason.
struct Advice {
    cause: &'static str,
    /// What workers should be started with for another try.
    worker_flag: Option<&'static str>,
    next: Next,
}

enum Next {
    /// The jobs are dead letters, and may be tried again.
    Retry,
    /// Rejected jobs are tried again by enqueueing their links once more.
    EnqueueAgain,
    /// The jobs have to be looked at.
    Look,
    /// No command helps.
    Nothing,
}

fn about_failure(failure: Failure) -> Advice {
    let retry = |cause, worker_flag| Advice { cause, worker_flag, next: Next::Retry };
    match failure {
        Failure::Dns => retry("names did not resolve: look at the links, and at the DNS of the workers", None),
        Failure::Connect => retry("nobody answered, or not in HTTP", None),
        Failure::Tls => retry("no trusted certificate, or no TLS at all", None),
        Failure::TimeoutConnect => retry("connecting took too long", Some("--connect-timeout 20s")),
        Failure::TimeoutIdle => retry("hosts fell silent", Some("--idle-timeout 60s")),
        Failure::TimeoutTotal => retry("downloads took too long", Some("--total-timeout 10m")),
        Failure::Http5xx => retry("the hosts failed; later may do", None),
        Failure::RateLimited => retry("hosts wanted fewer requests", Some("--host-rate 5/s")),
        Failure::Truncated => retry("bodies ended too early", None),
        Failure::Storage => retry("the storage took no objects: look at its disk, and at the workers' log", None),
        Failure::WorkerCrashed => Advice {
            cause: "these took their workers down, which is a mistake in imgq to report",
            worker_flag: None,
            next: Next::Look,
        },
        Failure::UnreadableJob => {
            Advice { cause: "no jobs, or of a newer version", worker_flag: None, next: Next::Look }
        }
    }
}

fn about_rejection(rejection: Rejection) -> Advice {
    let nothing = |cause| Advice { cause, worker_flag: None, next: Next::Nothing };
    let again = |cause, flag| Advice { cause, worker_flag: Some(flag), next: Next::EnqueueAgain };
    match rejection {
        Rejection::Gone => nothing("they are not there any more"),
        Rejection::Forbidden => nothing("the hosts refuse; only they can let you in"),
        Rejection::Removed => nothing("the hosts have removed them, and show another picture instead"),
        Rejection::NotImage => again("not of a wanted type; for videos", "--types jpeg,png,gif,webp,avif,mp4,webm"),
        Rejection::TooLarge => again("larger than --max-bytes", "--max-bytes 500MB"),
        Rejection::TooSmall => {
            again("smaller than --min-size or --min-bytes", "IMGQ_MIN_SIZE and IMGQ_MIN_BYTES set lower")
        }
        Rejection::Undecodable => nothing("the files are broken where they are"),
        Rejection::HashMismatch => nothing("they are others than when their SHA-256 was taken"),
        Rejection::Robots => nothing("the hosts ask not to be used this way (--respect-robots)"),
        Rejection::BlockedAddress => again("private addresses; if they are yours", "--allow-networks 10.0.0.0/8"),
        Rejection::BadUrl => nothing("no usable links; mend the list"),
        Rejection::Redirects => nothing("they lead in circles, or nowhere"),
        Rejection::Http4xx => nothing("the hosts refuse the requests; a browser may show why"),
    }
}

/// The sentence about jobs that ended with `outcome` and `reason`; `None` for those that are well, and for reasons of another
/// version. With `batch` the commands are about that one alone, where they can be.
pub(crate) fn what_next(outcome: &str, reason: &str, place: Place, batch: Option<&str>) -> Option<String> {
    let Advice { cause, worker_flag, next } = match outcome {
        "failed" => about_failure(reason.parse().ok()?),
        "rejected" => about_rejection(reason.parse().ok()?),
        _ => return None,
    };
    let with = worker_flag.map(|flag| format!("start workers with {flag}, then ")).unwrap_or_default();
    let of_batch = batch.map(|batch| format!(" --batch {batch}")).unwrap_or_default();
    Some(match (next, place) {
        (Next::Nothing, _) => format!("{cause}; nothing helps"),
        (Next::Look, Place::Queue) => format!("{cause}: `producer dead list --reason {reason}`"),
        (Next::Look, Place::Run) => cause.to_owned(),
        (Next::Retry, Place::Queue) => format!("{cause}: {with}`producer dead retry --reason {reason}`"),
        (Next::Retry, Place::Run) => {
            let with = worker_flag.map(|flag| format!(", best with {flag}")).unwrap_or_default();
            format!("{cause}: the same `producer run` tries them again{with}")
        }
        (Next::EnqueueAgain, Place::Queue) => format!(
            "{cause}: {with}`producer results --reason {reason}{of_batch} --format urls | producer enqueue - --no-dedup`"
        ),
        (Next::EnqueueAgain, Place::Run) => {
            let flag = worker_flag.unwrap_or_default();
            format!("{cause}: the same `producer run` with --no-dedup and {flag}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_sentence_for_each_reason_and_a_command_where_one_helps() {
        let failures = Failure::ALL.iter().map(|failure| ("failed", failure.name()));
        let rejections = Rejection::ALL.iter().map(|rejection| ("rejected", rejection.name()));
        for (outcome, reason) in failures.chain(rejections) {
            for place in [Place::Queue, Place::Run] {
                let sentence = what_next(outcome, reason, place, None).expect(reason);
                assert!(sentence.len() > 20 && !sentence.contains('\n'), "{reason}: {sentence}");
                // The private Redis of `run` is gone by then.
                assert!(place == Place::Queue || !sentence.contains("producer dead"), "{reason}: {sentence}");
                let helps = !sentence.contains("nothing helps");
                assert!(!helps || place == Place::Run || sentence.contains("`producer "), "{reason}: {sentence}");
            }
        }
        let next = |outcome, reason| what_next(outcome, reason, Place::Queue, Some("0123456789ab")).unwrap_or_default();
        assert_eq!(
            next("failed", "timeout_total"),
            "downloads took too long: start workers with --total-timeout 10m, then `producer dead retry --reason timeout_total`"
        );
        assert_eq!(
            next("rejected", "too_large"),
            "larger than --max-bytes: start workers with --max-bytes 500MB, then `producer results --reason too_large \
             --batch 0123456789ab --format urls | producer enqueue - --no-dedup`"
        );
        assert_eq!(next("rejected", "gone"), "they are not there any more; nothing helps");
        assert_eq!((next("stored", "exists"), next("failed", "of_tomorrow")), (String::new(), String::new()));
    }
}
