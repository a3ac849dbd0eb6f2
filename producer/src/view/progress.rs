//! The progress of a wait: a bar on a terminal, a plain line now and then elsewhere.

use common::text::{bytes, duration};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use queue::{BatchState, time_left};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Elsewhere than on a terminal, a line this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Nothing is shown of what is over before.
const SHOWN_AFTER: Duration = Duration::from_millis(900);

/// Shows how far a list is read, on standard error.
#[derive(Debug)]
pub(crate) struct Reading {
    bar: Option<ProgressBar>,
    is_terminal: bool,
    started: Instant,
    said_at: Instant,
}

impl Reading {
    pub(crate) fn start() -> Reading {
        let now = Instant::now();
        Reading { bar: None, is_terminal: std::io::stderr().is_terminal(), started: now, said_at: now }
    }

    /// Shows the state now: `links` so far, and the share of the list that they come from.
    pub(crate) fn show(&mut self, links: u64, share: Option<f64>) {
        let elapsed = self.started.elapsed();
        if links == 0 || elapsed < SHOWN_AFTER {
            return;
        }
        let text = reading(links, share, elapsed);
        if !self.is_terminal {
            if self.said_at.elapsed() >= LINE_EVERY {
                self.said_at = Instant::now();
                eprintln!("{text}");
            }
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
            bar.set_style(
                ProgressStyle::with_template("{bar:30} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        bar.set_position((share.unwrap_or(0.0) * 1000.0) as u64);
        bar.set_message(text);
    }

    /// Says something above the bar.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `370000 links, 164000/s, 37% of the list, ETA 4.2s`.
fn reading(links: u64, share: Option<f64>, elapsed: Duration) -> String {
    let rate = links as f64 / elapsed.as_secs_f64().max(0.1);
    let mut text = format!("{links} links, {rate:.0}/s");
    if let Some(share) = share {
        text.push_str(&format!(", {:.0}% of the list", (share * 100.0).floor()));
        if share > 0.0 && share < 1.0 {
            let left = elapsed.mul_f64(((1.0 - share) / share).min(1e6));
            text.push_str(&format!(", ETA {}", duration(left)));
        }
    }
    text
}

/// Shows the progress of some jobs on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    done_at_start: Option<u64>,
    said_at: Option<Instant>,
}

impl Progress {
    pub(crate) fn start() -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style);
            bar
        });
        Progress { bar, started: Instant::now(), done_at_start: None, said_at: None }
    }

    /// Shows the state now.
    pub(crate) fn show(&mut self, state: &BatchState) {
        let done = state.done();
        let done_at_start = *self.done_at_start.get_or_insert(done);
        let elapsed = self.started.elapsed();
        let rate = (done - done_at_start.min(done)) as f64 / elapsed.as_secs_f64().max(0.1);
        let eta = match time_left(state.left(), rate) {
            _ if state.left() == 0 => String::new(),
            Some(time) if state.sealed > 0 => format!(", ETA {}", duration(time)),
            // More may come.
            _ => ", ETA unknown".to_owned(),
        };
        let text = format!("{rate:.1}/s, {}{eta}, {} not stored", bytes(state.bytes), state.not_stored());
        match &self.bar {
            Some(bar) => {
                bar.set_length(state.enqueued);
                bar.set_position(done);
                bar.set_message(text);
            }
            None => {
                if self.said_at.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
                    self.said_at = Some(Instant::now());
                    eprintln!("{done}/{} done, {text}", state.enqueued);
                }
            }
        }
    }

    /// Says something above the bar.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_told_with_its_share_where_that_is_known() {
        let text = |share| reading(1000, share, Duration::from_secs(2));
        assert_eq!(text(None), "1000 links, 500/s");
        assert_eq!(text(Some(0.25)), "1000 links, 500/s, 25% of the list, ETA 6.0s");
        assert_eq!(text(Some(0.999)), "1000 links, 500/s, 99% of the list, ETA 0.0s");
        assert_eq!(text(Some(1.0)), "1000 links, 500/s, 100% of the list");
    }
}
