//! `producer status`: how deep the queue is, what became of its jobs, who works on it.

use super::{CommandError, Ended, print, print_json};
use crate::cli::StatusArgs;
use crate::view::{bytes, duration};
use common::queue::{Queue, Status};
use std::io::IsTerminal;
use std::time::Duration;

pub(super) async fn status(queue: &Queue, args: &StatusArgs) -> Result<Ended, CommandError> {
    loop {
        let status = queue.status().await?;
        if args.json {
            print_json(&status)?;
        } else {
            let redraw = args.watch && std::io::stdout().is_terminal();
            // Home and clear, so that the lines stay where they are.
            let clear = if redraw { "\u{1b}[H\u{1b}[2J" } else { "" };
            print(&format!("{clear}{}", text(&status)))?;
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
