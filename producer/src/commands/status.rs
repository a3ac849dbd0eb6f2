//! `producer status`: how deep the queue is, what became of its jobs, who works on it.

use super::{CommandError, Ended, print, print_json};
use crate::cli::StatusArgs;
use crate::view::{bytes, duration, harmless, summary};
use common::queue::{BatchState, Queue, Status};
use std::io::IsTerminal;
use std::time::Duration;

pub(super) async fn status(queue: &Queue, args: &StatusArgs) -> Result<Ended, CommandError> {
    loop {
        if let Some(batch) = args.batch {
            let (state, now_ms) = queue.batch(batch).await?;
            show(args, &state, || of_batch(&state, now_ms))?;
        } else {
            let status = queue.status().await?;
            show(args, &status, || text(&status))?;
        }
        if !args.watch {
            return Ok(Ended::Done);
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Ended::Done),
        }
    }
}

fn show(args: &StatusArgs, facts: &impl serde::Serialize, text: impl Fn() -> String) -> Result<(), CommandError> {
    if args.json {
        return print_json(facts);
    }
    // Home and clear, so that the lines stay where they are.
    let redraw = args.watch && std::io::stdout().is_terminal();
    print(&format!("{}{}", if redraw { "\u{1b}[H\u{1b}[2J" } else { "" }, text()))
}

fn of_batch(state: &BatchState, now_ms: u64) -> String {
    let until = if state.finished > 0 { state.finished } else { now_ms };
    let took = Duration::from_millis(until.saturating_sub(state.started));
    let stage = super::batches::stage(state);
    format!("batch {} ({stage}) of {}\n{}", state.batch, harmless(&state.source), summary::text(state, took))
}

fn text(status: &Status) -> String {
    let rate: f64 = status.workers.iter().map(|w| w.rate).sum();
    let left = status.ready + status.in_flight + status.delayed;
    let eta = if left > 0 && rate > 0.0 {
        format!(", ETA {}", duration(Duration::from_secs_f64((left as f64 / rate).min(1e8))))
    } else {
        String::new()
    };
    let paused = if status.paused { " (paused)" } else { "" };
    format!(
        "queue {}{paused}\n  ready {}  in flight {}  delayed {}  dead {}\n  results {}: stored {} ({}), rejected {}, \
         failed {}\n  {rate:.1} jobs/s{eta}\n\n{}",
        status.queue,
        status.ready,
        status.in_flight,
        status.delayed,
        status.dead,
        status.results,
        status.stored,
        bytes(status.bytes),
        status.rejected,
        status.failed,
        super::workers::table(&status.workers)
    )
}
