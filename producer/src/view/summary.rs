//! The summary: how a wait ended: what became of the jobs, which hosts did worst, and what to do next.

use super::advice::{Place, what_next};
use super::style::{BAD, HINT, of_outcome, paint};
use common::text::{bytes, count, duration, harmless};
use queue::BatchState;
use std::time::Duration;

/// Hosts that are named.
const HOSTS_SHOWN: usize = 5;
/// With a smaller share of stored jobs a summary is loud, in percent.
const STORED_WANTED: u64 = 90;

/// The sentences that `wait` and `run` end with. "Took …" is last, as the script that imgq grew out of had it.
pub(crate) fn text(total: &BatchState, took: Duration, place: Place) -> String {
    let purged = if total.purged > 0 { format!(", {} purged", total.purged) } else { String::new() };
    let mut lines = vec![format!(
        "{}: {} stored ({}), {} rejected, {} failed{purged}",
        count(total.enqueued, "job"),
        total.stored,
        bytes(total.bytes),
        total.rejected,
        total.failed
    )];
    let reasons = by_count(total.reasons.iter().filter_map(|(name, n)| Some((name.split_once(':')?, *n))));
    for ((outcome, reason), n) in &reasons {
        let (outcome_shown, reason_shown) = (format!("{outcome:<9}"), harmless(reason));
        lines.push(format!("  {} {reason_shown:<16} {n:>8}", paint(of_outcome(outcome), &outcome_shown)));
    }
    let hosts = by_count(total.hosts.iter().map(|(host, n)| (host, *n)));
    if !hosts.is_empty() {
        let worst = hosts.iter().take(HOSTS_SHOWN).map(|(host, n)| format!("{} {n}", harmless(host)));
        lines.push(format!("worst hosts: {}", worst.collect::<Vec<_>>().join(", ")));
    }
    let batch = (!total.batch.is_empty()).then_some(total.batch.as_str());
    for ((outcome, reason), _) in &reasons {
        if let Some(next) = what_next(outcome, reason, place, batch) {
            lines.push(format!("{} {}: {next}", paint(HINT, "next:"), harmless(reason)));
        }
    }
    lines.extend(warning(total).map(|warning| paint(BAD, &warning)));
    lines.push(format!("Took {}", duration(took)));
    lines.join("\n")
}

/// That too few of the jobs that ended were stored.
fn warning(total: &BatchState) -> Option<String> {
    let ended = total.ended();
    // Rounded down, so that 90 % means as many.
    let percent = (total.stored * 100).checked_div(ended)?;
    (percent < STORED_WANTED).then(|| format!("WARNING: only {percent} % of {} stored", were(ended)))
}

fn were(jobs: u64) -> String {
    if jobs == 1 { "1 job was".to_owned() } else { format!("{jobs} jobs were") }
}

/// The most first; of equals the first in the alphabet.
pub(crate) fn by_count<T: Ord>(counted: impl Iterator<Item = (T, u64)>) -> Vec<(T, u64)> {
    let mut counted: Vec<_> = counted.collect();
    counted.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
    counted
}

/// The sum of several batches.
pub(crate) fn total<'a>(states: impl IntoIterator<Item = &'a BatchState>) -> BatchState {
    let mut total = BatchState { sealed: u64::MAX, ..BatchState::default() };
    for (number, state) in states.into_iter().enumerate() {
        // The name of one batch; of several there is none.
        total.batch = if number == 0 { state.batch.clone() } else { String::new() };
        total.enqueued += state.enqueued;
        total.duplicates += state.duplicates;
        total.stored += state.stored;
        total.rejected += state.rejected;
        total.failed += state.failed;
        total.purged += state.purged;
        total.bytes += state.bytes;
        // Unsealed if any part is: the total may still grow.
        total.sealed = total.sealed.min(state.sealed);
        for (reason, n) in &state.reasons {
            *total.reasons.entry(reason.clone()).or_default() += n;
        }
        for (host, n) in &state.hosts {
            *total.hosts.entry(host.clone()).or_default() += n;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part() -> BatchState {
        BatchState {
            batch: "0123456789ab".into(),
            enqueued: 4,
            stored: 1,
            rejected: 1,
            failed: 1,
            purged: 1,
            bytes: 1500,
            reasons: [("rejected:gone".to_owned(), 1), ("failed:dns".to_owned(), 1)].into(),
            hosts: [("a.org".to_owned(), 1), ("z.org".to_owned(), 4)].into(),
            sealed: 5,
            ..BatchState::default()
        }
    }

    fn plain(total: &BatchState, place: Place) -> String {
        anstream::adapter::strip_str(&text(total, Duration::from_millis(1200), place)).to_string()
    }

    #[test]
    fn a_summary_names_each_reason_the_worst_hosts_and_what_to_do_and_ends_with_the_time() {
        let text = plain(&total([&part(), &part()]), Place::Queue);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "8 jobs: 2 stored (3.0 kB), 2 rejected, 2 failed, 2 purged");
        assert!(lines[1].contains("dns") && lines[1].ends_with('2'));
        assert!(lines[2].contains("gone"));
        assert_eq!(lines[3], "worst hosts: z.org 8, a.org 2");
        assert!(lines[4].starts_with("next: dns: ") && lines[4].ends_with("`producer dead retry --reason dns`"));
        assert!(lines[5].starts_with("next: gone: "));
        assert_eq!(lines[6], "WARNING: only 33 % of 6 jobs were stored");
        assert_eq!(lines[7], "Took 1.2s");
        assert!(total([&part(), &part()]).batch.is_empty() && total([&part()]).batch == "0123456789ab");
    }

    #[test]
    fn a_good_end_is_quiet() {
        let good = BatchState { stored: 9, rejected: 1, enqueued: 10, ..BatchState::default() };
        assert!(!plain(&good, Place::Run).contains("WARNING"));
        assert!(plain(&BatchState { stored: 8, failed: 1, ..good }, Place::Run).contains("only 80 % of 10 jobs"));
        assert_eq!(plain(&BatchState::default(), Place::Run).lines().count(), 2);
    }
}
