//! `producer wait`: progress until batches (or everything) are done, then the summary.

mod watched;

use super::{CommandError, Ended, print, print_json};
use crate::cli::WaitArgs;
use crate::view::advice::Place;
use crate::view::progress::Progress;
use crate::view::summary;
use common::job::BatchId;
use program::settings::QueueArgs;
use queue::{BatchState, Patience, Queue};
use std::time::{Duration, Instant};
use watched::WatchedBatches;

/// Batches that a wait without a batch takes in.
const BATCHES_MAX: usize = 1000;
/// With work to do and nobody alive, this is said once.
const NOBODY_AFTER: Duration = Duration::from_secs(3);

pub(super) async fn wait(queue_args: &QueueArgs, args: WaitArgs) -> Result<Ended, CommandError> {
    let started = Instant::now();
    let begin = async {
        let queue = super::open_to_stay(queue_args).await?;
        let batches = if args.batches.is_empty() { Some(unfinished_patiently(&queue).await?) } else { None };
        Ok::<_, CommandError>((queue, batches))
    };
    let (queue, unfinished) = match args.timeout {
        None => begin.await?,
        Some(timeout) => tokio::time::timeout(timeout, begin).await.map_err(|_| CommandError::Other {
            message: "--timeout passed before Redis told anything".into(),
            hint: "the jobs go on once it does; `producer wait` watches again".into(),
            code: 4,
        })??,
    };
    let left = args.timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
    match unfinished {
        Some(batches) => wait_for_all(&queue, batches, left, args.json, false).await,
        None => wait_for(&queue, &args.batches, left, args.json).await,
    }
}

/// The same as [`unfinished`], for as long as it takes.
async fn unfinished_patiently(queue: &Queue) -> Result<Vec<BatchId>, CommandError> {
    let mut patience = Patience::endless();
    loop {
        match unfinished(queue).await {
            Err(CommandError::Queue(error)) => super::wait_out(&mut patience, error).await?,
            other => return other,
        }
    }
}

/// Batches that are not finished; when all are, the newest one, so that there is something to sum up.
pub(super) async fn unfinished(queue: &Queue) -> Result<Vec<BatchId>, CommandError> {
    let newest = queue.newest_batches(BATCHES_MAX).await?;
    let (states, _) = queue.batch_states(&newest).await?;
    let is_unfinished = |state: &Option<BatchState>| state.as_ref().is_some_and(|state| state.finished == 0);
    let mut unfinished: Vec<BatchId> =
        newest.iter().zip(&states).filter(|(_, state)| is_unfinished(state)).map(|(batch, _)| *batch).collect();
    if unfinished.is_empty() {
        let is_there = newest.iter().zip(&states).find(|(_, state)| state.is_some());
        unfinished.extend(is_there.map(|(batch, _)| *batch));
    }
    Ok(unfinished)
}

/// Waits for the batches, and then for the queue to be empty: jobs pushed by hand belong to no batch.
pub(super) async fn wait_for_all(
    queue: &Queue,
    batches: Vec<BatchId>,
    timeout: Option<Duration>,
    json: bool,
    in_run: bool,
) -> Result<Ended, CommandError> {
    let mut waiter = Waiter::new(queue, batches, timeout, true);
    waiter.in_run = in_run;
    waiter.run(json).await
}

/// Waits for the batches alone.
pub(super) async fn wait_for(
    queue: &Queue,
    batches: &[BatchId],
    timeout: Option<Duration>,
    json: bool,
) -> Result<Ended, CommandError> {
    Waiter::new(queue, batches.to_vec(), timeout, false).run(json).await
}

struct Waiter<'a> {
    queue: &'a Queue,
    watched: WatchedBatches<'a>,
    deadline: Option<Instant>,
    until_empty: bool,
    /// The workers end with this process.
    in_run: bool,
    started: Instant,
    nobody_said: bool,
}

impl<'a> Waiter<'a> {
    fn new(queue: &'a Queue, batches: Vec<BatchId>, timeout: Option<Duration>, until_empty: bool) -> Waiter<'a> {
        let started = Instant::now();
        let deadline = timeout.map(|timeout| started + timeout);
        let watched = WatchedBatches::new(queue, batches, !until_empty);
        Waiter { queue, watched, deadline, until_empty, in_run: false, started, nobody_said: false }
    }

    async fn run(mut self, json: bool) -> Result<Ended, CommandError> {
        let mut progress = Progress::start();
        let mut patience = Patience::endless();
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        let is_late = loop {
            let pause = match self.look(&mut progress).await {
                Ok(true) => break false,
                Ok(false) if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) => break true,
                Ok(false) => {
                    patience.answered();
                    let until_deadline =
                        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                    self.watched.pause().min(until_deadline.unwrap_or(Duration::MAX))
                }
                Err(error) => {
                    let Some((word, wait)) = self.wait_after(&mut patience, &error) else {
                        progress.finish();
                        return Err(error);
                    };
                    if let Some(word) = word {
                        progress.say(&word);
                    }
                    wait
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = &mut interrupt => {
                    progress.finish();
                    return Err(self.interrupted());
                }
            }
        };
        progress.finish();
        let total = summary::total(self.watched.states());
        let took = self.started.elapsed();
        if json {
            let mut facts = serde_json::json!({
                "enqueued": total.enqueued, "stored": total.stored, "rejected": total.rejected,
                "failed": total.failed, "purged": total.purged, "bytes": total.bytes, "reasons": total.reasons,
                "hosts": total.hosts,
                "seconds": took.as_secs_f64(), "finished": !is_late,
            });
            facts["batches"] = self.watched.states().map(|state| state.batch.clone()).collect();
            print_json(&facts)?;
        } else {
            let place = if self.in_run { Place::Run } else { Place::Queue };
            print(&summary::text(&total, took, place))?;
        }
        if is_late {
            let message = format!("--timeout passed with {} of {} jobs done", total.done(), total.enqueued);
            let hint = if self.in_run {
                "the same command goes on where this one stopped"
            } else {
                "the jobs go on; `producer status` shows them, `producer wait` watches again"
            };
            return Err(CommandError::Other { message, hint: hint.to_owned(), code: 4 });
        }
        Ok(if total.not_stored() > 0 { Ended::NotAllStored } else { Ended::Done })
    }

    fn interrupted(&self) -> CommandError {
        let (message, hint) = if self.in_run {
            (
                "interrupted; the workers give back what they have not finished",
                "the same command goes on where this one stopped",
            )
        } else {
            ("interrupted; the jobs go on without anyone watching", "`producer wait` watches again")
        };
        CommandError::Other { message: message.into(), hint: hint.into(), code: 1 }
    }

    /// Without `--timeout` a Redis that went away is waited for; the deadline ends that as well.
    fn wait_after(&self, patience: &mut Patience, error: &CommandError) -> Option<(Option<String>, Duration)> {
        match error {
            CommandError::Queue(error) if self.deadline.is_none_or(|deadline| Instant::now() < deadline) => {
                let wait = patience.next_wait(error)?;
                Some((patience.word(error), wait))
            }
            _ => None,
        }
    }

    /// Reads the state and shows it; tells whether all is done.
    async fn look(&mut self, progress: &mut Progress) -> Result<bool, CommandError> {
        self.queue.check_schema().await?;
        for word in self.watched.look().await? {
            progress.say(&word);
        }
        let mut done = self.watched.are_done();
        let nobody_due = !self.nobody_said && self.started.elapsed() > NOBODY_AFTER;
        if nobody_due || (done && self.until_empty) {
            let status = self.queue.status().await?;
            let left = status.left();
            if self.until_empty {
                done &= left == 0;
            }
            if nobody_due && left > 0 && status.workers.is_empty() {
                self.nobody_said = true;
                progress.say("no worker is alive: start one with `worker`, or `docker-compose up -d worker`");
            }
            if nobody_due && left > 0 && !status.unknown_jobs.is_empty() {
                self.nobody_said = true;
                let what = common::text::harmless(&status.unknown_jobs);
                progress.say(&format!("jobs of {what} wait for a worker that knows them: upgrade the workers"));
            }
            if status.paused && nobody_due && left > 0 {
                self.nobody_said = true;
                progress.say("the queue is paused: `producer resume` lets workers go on");
            }
        }
        if done {
            for word in self.watched.look_once_more().await? {
                progress.say(&word);
            }
            done = self.watched.are_done();
        }
        progress.show(&summary::total(self.watched.states()));
        Ok(done)
    }
}
