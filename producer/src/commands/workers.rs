//! `producer workers`: who is alive.

use super::{CommandError, Ended, print, print_json};
use crate::cli::JsonArgs;
use crate::view::style::{HEAD, POOR, paint};
use common::text::{duration, harmless};
use queue::{Queue, WorkerState};
use std::time::Duration;

pub(super) async fn workers(queue: &Queue, args: &JsonArgs) -> Result<Ended, CommandError> {
    let workers = queue.status().await?.workers;
    if args.json {
        print_json(&workers)?;
    } else {
        print(&table(&workers.iter().collect::<Vec<_>>(), queue.now_ms().await?))?;
    }
    Ok(Ended::Done)
}

/// One line for each worker. Hosts and versions are what workers say of themselves.
pub(super) fn table(workers: &[&WorkerState], now_ms: u64) -> String {
    if workers.is_empty() {
        return "no worker is alive: start one with `worker`".into();
    }
    let wide = |text: fn(&WorkerState) -> &str, head: &str| {
        let widths = workers.iter().map(|worker| harmless(text(worker)).chars().count());
        widths.max().unwrap_or(0).max(head.len())
    };
    let name = wide(|worker| &worker.worker, "WORKER");
    let host = wide(|worker| &worker.host, "HOST");
    let version = wide(|worker| &worker.version, "VERSION");
    let head = format!(
        "{:<name$}  {:<host$}  {:>8}  {:<version$}  {:>9}  {:>8}  {:>10}  {:>9}  {:>8}",
        "WORKER", "HOST", "PID", "VERSION", "IN FLIGHT", "RATE", "DONE", "SEEN", "SINCE"
    );
    let mut lines = vec![paint(HEAD, &head)];
    for w in workers {
        let seen = format!("{} ago", duration(Duration::from_millis(w.seen_ms_ago)));
        let since = duration(Duration::from_millis(now_ms.saturating_sub(w.started)));
        lines.push(format!(
            "{:<name$}  {:<host$}  {:>8}  {:<version$}  {:>9}  {:>6.1}/s  {:>10}  {seen:>9}  {since:>8}",
            harmless(&w.worker),
            harmless(&w.host),
            w.pid,
            harmless(&w.version),
            w.in_flight,
            w.rate,
            w.done
        ));
        if !w.waiting.is_empty() {
            let why = format!("claims nothing: {}", harmless(&w.waiting));
            lines.push(format!("{:<name$}  {}", "", paint(POOR, &why)));
        }
    }
    lines.join("\n")
}
