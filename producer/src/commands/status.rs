//! `producer status`: how deep the queue is, what became of its jobs, who works on it.

use super::{CommandError, Ended, print, print_json};
use crate::cli::StatusArgs;
use crate::view::advice::Place;
use crate::view::screen::Screen;
use crate::view::style::{BAD, HEAD, POOR, of_outcome, paint};
use crate::view::summary::{self, by_count};
use common::text::{bytes, count, duration, harmless};
use queue::{BatchState, HostState, Queue, Status, TimeLeft};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often `--watch` looks: O(workers) for Redis.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Hosts that are looked through for those that are left alone: for people, who are shown the longest of these, and for programs.
const HOSTS_READ: [usize; 2] = [500, 10_000];
/// Hosts, reasons and workers that are shown of many.
const SHOWN: usize = 20;

pub(super) async fn status(queue: &Queue, args: &StatusArgs) -> Result<Ended, CommandError> {
    if !args.watch {
        let (facts, text) = look(queue, args).await?;
        show(args, &facts, &text)?;
        return Ok(Ended::Done);
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(CommandError::system("cannot listen for signals"))?;
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    // Dropped, and the terminal as it was, before an error is printed.
    let screen = if args.json { None } else { Screen::enter() };
    let mut last = String::new();
    loop {
        match look(queue, args).await {
            Ok((facts, text)) => {
                match &screen {
                    Some(screen) => draw(screen, &text)?,
                    None => show(args, &facts, &text)?,
                }
                last = text;
            }
            // Whoever watches wants to see Redis come back.
            Err(CommandError::Queue(error)) if error.is_transient() => match &screen {
                Some(screen) => draw(screen, &format!("{}\n{last}", paint(BAD, &harmless(&error.to_string()))))?,
                None => eprintln!("{error}; trying again"),
            },
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = &mut interrupt => return Ok(Ended::Done),
            _ = terminate.recv() => return Ok(Ended::Done),
        }
    }
}

/// The facts for programs, and the text for people.
async fn look(queue: &Queue, args: &StatusArgs) -> Result<(serde_json::Value, String), CommandError> {
    let as_json = |facts| CommandError::system("cannot write JSON")(std::io::Error::other::<serde_json::Error>(facts));
    if let Some(batch) = args.batch {
        let (state, now_ms) = queue.batch(batch).await?;
        return Ok((serde_json::to_value(&state).map_err(as_json)?, of_batch(&state, now_ms)));
    }
    let status = queue.status().await?;
    let (hosts, in_all) = (queue.hosts(HOSTS_READ[usize::from(args.json)]).await?, queue.hosts_held().await?);
    let held: Vec<HostState> = hosts.into_iter().filter(is_held).collect();
    let in_all = held.len().max(in_all as usize);
    let mut facts = serde_json::to_value(&status).map_err(as_json)?;
    facts["hosts"] = serde_json::to_value(&held).map_err(as_json)?;
    facts["hosts_held"] = in_all.into();
    let now_ms = queue.now_ms().await?;
    Ok((facts, text(&status, &held, in_all, now_ms)))
}

fn is_held(host: &HostState) -> bool {
    host.held_for_ms.is_some() || host.probing || host.lonely_workers > 0
}

fn show(args: &StatusArgs, facts: &serde_json::Value, text: &str) -> Result<(), CommandError> {
    if args.json { print_json(facts) } else { print(text) }
}

fn draw(screen: &Screen, text: &str) -> Result<(), CommandError> {
    screen.draw(text).map_err(CommandError::system("cannot write to the terminal"))
}

fn of_batch(state: &BatchState, now_ms: u64) -> String {
    let text = summary::text(state, state.took(now_ms), Place::Queue);
    format!("batch {} ({}) of {}\n{text}", state.batch, state.stage(), harmless(&state.source))
}

/// `held_in_all` hosts are left alone, of which some are known.
fn text(status: &Status, held: &[HostState], held_in_all: usize, now_ms: u64) -> String {
    let rate = status.jobs_a_second();
    let eta = match status.time_left() {
        TimeLeft::About(time) => format!(", ETA {}", duration(time)),
        TimeLeft::Nothing | TimeLeft::Paused | TimeLeft::Unknown => String::new(),
    };
    let oldest = status.oldest_ms.map(|ms| format!("  oldest {}", duration(Duration::from_millis(ms))));
    let paused =
        if status.paused { paint(POOR, " (paused: `producer resume` lets workers go on)") } else { String::new() };
    let mut lines = vec![
        format!("{}{paused}{}", paint(HEAD, &format!("queue {}", status.queue)), unknown_jobs(status)),
        format!(
            "  ready {}  in flight {}  delayed {}  dead {}{}",
            status.ready,
            status.in_flight,
            status.delayed,
            if status.dead > 0 { paint(BAD, &status.dead.to_string()) } else { "0".to_owned() },
            oldest.unwrap_or_default()
        ),
        format!(
            "  results {}: stored {} ({}), rejected {}, failed {}",
            status.results,
            status.stored,
            bytes(status.bytes),
            status.rejected,
            status.failed
        ),
        format!("  {rate:.1} jobs/s{eta}"),
    ];
    let reasons = status.reasons.iter().filter_map(|(name, n)| Some((name.split_once(':')?, *n)));
    for ((outcome, reason), n) in by_count(reasons).into_iter().take(SHOWN) {
        let outcome_shown = paint(of_outcome(outcome), &format!("{outcome:<9}"));
        lines.push(format!("  {outcome_shown} {:<16} {n:>8}", harmless(reason)));
    }
    if !held.is_empty() {
        lines.push(format!("\n{}", paint(HEAD, "hosts that are left alone")));
        lines.extend(held.iter().take(SHOWN).map(host_line));
        lines.extend(and_more(held_in_all, "host", "`producer status --json` names up to 10,000"));
    }
    let busiest: Vec<_> = status.busiest_workers().into_iter().take(SHOWN).collect();
    lines.push(format!("\n{}", super::workers::table(&busiest, now_ms)));
    lines.extend(and_more(status.workers.len(), "worker", "`producer workers` has all"));
    lines.join("\n")
}

fn unknown_jobs(status: &Status) -> String {
    if status.unknown_jobs.is_empty() {
        return String::new();
    }
    let what = harmless(&status.unknown_jobs);
    paint(POOR, &format!("\n  jobs of {what} wait for a worker that knows them: upgrade the workers"))
}

fn host_line(host: &HostState) -> String {
    let mut parts = vec![harmless(&host.why)];
    if let Some(ms) = host.held_for_ms {
        parts.push(format!("for {}", duration(Duration::from_millis(ms))));
    }
    if host.refusals > 0 {
        parts.push(format!("after {} in a row", count(host.refusals, "refusal")));
    }
    if host.probing {
        parts.push("one job tries it".to_owned());
    }
    if host.lonely_workers > 0 {
        parts.push(format!("{} without an answer", count(host.lonely_workers, "worker")));
    }
    parts.retain(|part| !part.is_empty());
    format!("  {}  {}", harmless(&host.host), parts.join(", "))
}

fn and_more(there: usize, noun: &str, where_they_are: &str) -> Option<String> {
    let more = there.checked_sub(SHOWN).filter(|more| *more > 0)?;
    Some(format!("  and {} more: {where_they_are}", count(more as u64, noun)))
}
