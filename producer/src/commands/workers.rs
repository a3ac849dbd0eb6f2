//! `producer workers`: who is alive.

use super::{CommandError, Ended, print, print_json};
use crate::cli::JsonArgs;
use crate::view::{duration, harmless};
use common::queue::{Queue, WorkerState};
use std::time::Duration;

pub(super) async fn workers(queue: &Queue, args: &JsonArgs) -> Result<Ended, CommandError> {
    let workers = queue.status().await?.workers;
    if args.json {
        print_json(&workers)?;
    } else {
        print(&table(&workers))?;
    }
    Ok(Ended::Done)
}

/// One line for each worker.
pub(super) fn table(workers: &[WorkerState]) -> String {
    if workers.is_empty() {
        return "no worker is alive".into();
    }
    let width = workers.iter().map(|w| w.worker.len()).max().unwrap_or(0).max(6);
    let mut lines = vec![format!(
        "{:<width$}  {:>8}  {:<8}  {:>9}  {:>8}  {:>10}  {}",
        "WORKER", "PID", "VERSION", "IN FLIGHT", "RATE", "DONE", "SEEN"
    )];
    for w in workers {
        let seen = duration(Duration::from_millis(w.seen_ms_ago));
        lines.push(format!(
            "{:<width$}  {:>8}  {:<8}  {:>9}  {:>6.1}/s  {:>10}  {seen} ago",
            w.worker, w.pid, w.version, w.in_flight, w.rate, w.done
        ));
        if !w.waiting.is_empty() {
            lines.push(format!("{:<width$}  claims nothing: {}", "", harmless(&w.waiting)));
        }
    }
    lines.join("\n")
}
