//! The progress of a wait: a bar on a terminal, a plain line now and then elsewhere.

use super::{bytes, duration};
use common::queue::BatchState;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Elsewhere than on a terminal, a line this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

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
        let left = state.enqueued.saturating_sub(done);
        let eta = if left == 0 {
            String::new()
        } else if rate > 0.0 && state.sealed > 0 {
            format!(", ETA {}", duration(Duration::from_secs_f64((left as f64 / rate).min(1e8))))
        } else {
            ", ETA unknown".to_owned()
        };
        let setbacks = state.rejected + state.failed;
        let text = format!("{rate:.1}/s, {}{eta}, {setbacks} not stored", bytes(state.bytes));
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
