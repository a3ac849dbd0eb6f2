//! Enqueues the lists, with the producer killed and frozen in the middle; the same command is run again until it is done.

use super::schedule::{Event, Kind};
use super::stage::{QUEUE, Stage, lock};
use crate::fault_proxy::Network;
use crate::programs::{Finished, Producer};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A list of links, and when its enqueue was last confirmed.
struct List {
    path: PathBuf,
    confirmed: Instant,
}

/// Enqueues `lists` evenly over `duration`, and once more what a rollback may have taken back.
pub(super) fn enqueue(stage: &Stage, lists: Vec<PathBuf>, events: &[Event], duration: Duration) {
    let mut faults: Vec<Kind> = events.iter().map(|event| event.kind).collect();
    let mut done: Vec<List> = Vec::new();
    let mut rollbacks_seen = 0;
    let count = lists.len() as u32;
    for (n, path) in lists.into_iter().enumerate() {
        let at = duration * n as u32 / count;
        std::thread::sleep(at.saturating_sub(stage.started.elapsed()));
        until_confirmed(stage, &path, faults.last().copied(), &mut |kind| {
            faults.retain({
                let mut first = true;
                move |fault| *fault != kind || !std::mem::take(&mut first)
            });
        });
        done.push(List { path, confirmed: Instant::now() });
        enqueue_what_was_forgotten(stage, &mut done, &mut rollbacks_seen);
    }
    // The last rollback may still come.
    loop {
        let was_the_last = stage.redis_is_left_alone.load(Ordering::SeqCst);
        enqueue_what_was_forgotten(stage, &mut done, &mut rollbacks_seen);
        if was_the_last {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A confirmed enqueue is lost when Redis goes back to before it. The remedy is the same command, for links that are in are
/// skipped.
fn enqueue_what_was_forgotten(stage: &Stage, done: &mut [List], rollbacks_seen: &mut usize) {
    let rollbacks = lock(&stage.rollbacks).clone();
    for rollback in &rollbacks[*rollbacks_seen..] {
        for list in done.iter_mut().filter(|list| list.confirmed > *rollback) {
            until_confirmed(stage, &list.path, None, &mut |_| {});
            list.confirmed = Instant::now();
        }
    }
    *rollbacks_seen = rollbacks.len();
}

/// Runs the same command until it says that everything is in.
fn until_confirmed(stage: &Stage, list: &PathBuf, fault: Option<Kind>, injected: &mut dyn FnMut(Kind)) {
    let mut fault = fault;
    loop {
        if fault.is_some() {
            // Slow enough to be met in the middle.
            stage.producer_network.set(Network::Slow(Duration::from_millis(15)));
        }
        let before = enqueued(stage);
        let mut child = start(stage, list);
        if let Some(kind) = fault.take() {
            if in_the_middle(stage, &mut child, before) {
                let pid = Pid::from_child(&child);
                if kind == Kind::KillProducer {
                    let _ = child.kill();
                } else if kill_process(pid, Signal::STOP).is_ok() {
                    std::thread::sleep(Duration::from_secs(7));
                    let _ = kill_process(pid, Signal::CONT);
                }
                stage.injected(kind, "in the middle of an enqueue");
                injected(kind);
            }
            stage.producer_network.set(Network::Good);
        }
        let ended = Finished::from(child.wait_with_output().expect("it ends"));
        match ended.code {
            0 => return,
            // Killed here, or refused: Redis away for long, out of memory, rolled back.
            -1 => {}
            1 if ended.stderr.contains("hint:") => stage.say(&format!("enqueue: {}", first_error(&ended))),
            _ => stage.violated(format!("an enqueue ended as it should not: {ended:?}")),
        }
    }
}

fn first_error(ended: &Finished) -> &str {
    ended.stderr.lines().find(|line| line.starts_with("error:")).unwrap_or_default()
}

fn start(stage: &Stage, list: &PathBuf) -> Child {
    let mut command = Producer::command_at(&stage.producer_network.url(), QUEUE, &["enqueue"]);
    command.arg(list).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the producer starts")
}

/// Jobs that were ever enqueued, as Redis counts them.
fn enqueued(stage: &Stage) -> Option<u64> {
    let mut raw = stage.raw()?;
    let count: Option<u64> = redis::cmd("HGET").arg(Stage::key("stats")).arg("enqueued").query(&mut raw).ok()?;
    Some(count.unwrap_or(0))
}

/// Waits until the enqueue has begun and is not done; `false` when it was over before that was seen.
fn in_the_middle(stage: &Stage, child: &mut Child, before: Option<u64>) -> bool {
    loop {
        if child.try_wait().expect("can be waited for").is_some() {
            return false;
        }
        if let (Some(before), Some(now)) = (before, enqueued(stage))
            && now > before
        {
            return true;
        }
    }
}
