//! The summary: how a wait ended, in a few lines.

use super::{bytes, count, duration};
use common::queue::BatchState;
use std::time::Duration;

/// The sentences that `wait` and `run` end with. "Took …" is last, as the script that imgq grew out of had it.
pub(crate) fn text(total: &BatchState, took: Duration) -> String {
    let mut lines = vec![format!(
        "{}: {} stored ({}), {} rejected, {} failed",
        count(total.enqueued, "job"),
        total.stored,
        bytes(total.bytes),
        total.rejected,
        total.failed
    )];
    for (outcome_and_reason, n) in &total.reasons {
        if let Some((outcome, reason)) = outcome_and_reason.split_once(':') {
            lines.push(format!("  {outcome:<9} {reason:<16} {n:>8}"));
        }
    }
    if total.failed > 0 {
        lines.push("hint: `producer dead list` shows what failed; `producer dead retry` tries it again".into());
    }
    lines.push(format!("Took {}", duration(took)));
    lines.join("\n")
}

/// The sum of several batches.
pub(crate) fn total<'a>(states: impl IntoIterator<Item = &'a BatchState>) -> BatchState {
    let mut total = BatchState { sealed: u64::MAX, ..BatchState::default() };
    for state in states {
        total.enqueued += state.enqueued;
        total.duplicates += state.duplicates;
        total.stored += state.stored;
        total.rejected += state.rejected;
        total.failed += state.failed;
        total.bytes += state.bytes;
        // Unsealed if any part is: the total may still grow.
        total.sealed = total.sealed.min(state.sealed);
        for (reason, n) in &state.reasons {
            *total.reasons.entry(reason.clone()).or_default() += n;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_each_reason_and_ends_with_the_time() {
        let part = BatchState {
            enqueued: 3,
            stored: 1,
            rejected: 1,
            failed: 1,
            bytes: 1500,
            reasons: [("rejected:gone".to_owned(), 1), ("failed:dns".to_owned(), 1)].into(),
            sealed: 5,
            ..BatchState::default()
        };
        let text = text(&total([&part, &part]), Duration::from_millis(1200));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "6 jobs: 2 stored (3.0 kB), 2 rejected, 2 failed");
        assert!(lines[1].contains("dns") && lines[1].ends_with('2'));
        assert!(lines[2].contains("gone"));
        assert_eq!(lines.last(), Some(&"Took 1.2s"));
    }
}
