//! Admissions: asks the fleet whether the targets of redirects may be asked now, many in one call.
//!
//! While one call is on its way those that come up gather for the next one, so the number of calls follows the load by itself.

use super::{Trail, Visit, say_dropped};
use common::host::HostRate;
use common::outcome::Failure;
use queue::{AdmissionRequest, Queue, Start, WorkerName};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Hosts of one call: 256 take about 2 ms of Redis.
const BATCH_MAX: usize = 256;

/// The end of the duty that is held by those who ask.
#[derive(Debug, Clone)]
pub(crate) struct Admissions {
    questions: mpsc::UnboundedSender<Question>,
    has_rate: bool,
}

#[derive(Debug)]
struct Question {
    host: Arc<str>,
    deadline: Instant,
    /// Of whoever asks: what is given out stands there before he hears of it, so that it is given back however his attempt ends.
    trail: Arc<Trail>,
    reply: oneshot::Sender<Answer>,
}

/// What the fleet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The host may be asked after this time, as this visit of the trail.
    Admitted(Duration, usize),
    /// The host has refused so many in a row, for this reason, that waiting costs an attempt.
    Refused(Failure),
}

/// Takes back what was given out for an attempt that was over by then.
pub(crate) type GiveBack = Box<dyn Fn(Visit) + Send + Sync>;

impl Admissions {
    /// One that asks for `worker`, and the duty that has to run for it.
    pub(crate) fn new(
        queue: Arc<Queue>,
        worker: WorkerName,
        rate: Option<HostRate>,
        free_refusals: u32,
        give_back: GiveBack,
    ) -> (Admissions, Admitter) {
        // Bounded by the worker's slots: each download has one question at a time.
        let (questions, receiver) = mpsc::unbounded_channel();
        let admitter = Admitter { queue, worker, rate, free_refusals, give_back, questions: receiver };
        (Admissions { questions, has_rate: rate.is_some() }, admitter)
    }

    /// Whether starts are given out one by one.
    pub(crate) fn has_rate(&self) -> bool {
        self.has_rate
    }

    /// When `host` may be asked; `None` when that is not before `deadline`, or Redis does not say so before then. Cancel safe:
    /// what is given out for nothing is given back.
    pub(crate) async fn ask(&self, host: &Arc<str>, deadline: Instant, trail: &Arc<Trail>) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        let question = Question { host: Arc::clone(host), deadline, trail: Arc::clone(trail), reply };
        self.questions.send(question).ok()?;
        tokio::time::timeout_at(deadline, answer).await.ok()?.ok()
    }
}

/// Asks Redis, for as long as somebody may have a question.
pub(crate) struct Admitter {
    queue: Arc<Queue>,
    worker: WorkerName,
    rate: Option<HostRate>,
    free_refusals: u32,
    give_back: GiveBack,
    questions: mpsc::UnboundedReceiver<Question>,
}

impl Admitter {
    /// Runs until nobody can ask any more. Cancel safe.
    pub(crate) async fn run(mut self) {
        let mut questions = Vec::new();
        while self.questions.recv_many(&mut questions, BATCH_MAX).await > 0 {
            // Who does not wait any more would be given a start that nobody uses.
            questions.retain(|question| !question.reply.is_closed());
            if questions.is_empty() {
                continue;
            }
            let now = Instant::now();
            let within = |question: &Question| question.deadline.saturating_duration_since(now);
            let request = AdmissionRequest {
                host_rate: self.rate,
                free_refusals: self.free_refusals,
                hosts: questions.iter().map(|question| (question.host.to_string(), within(question))).collect(),
            };
            match self.queue.admit(&self.worker, &request).await {
                Ok(admitted) => {
                    say_dropped(&admitted.dropped);
                    let took = now.elapsed();
                    for (question, start) in questions.drain(..).zip(admitted.starts) {
                        self.pass_on(question, start, took);
                    }
                }
                Err(error) => {
                    tracing::warn!("cannot ask whether redirects may be followed: {error}");
                    questions.clear();
                    // Nothing is gained by asking a Redis that is away with each redirect.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Without an answer the host is not to be asked.
    fn pass_on(&self, question: Question, start: Option<Start>, took: Duration) {
        let Question { host, trail, reply, .. } = question;
        let (wait, probe) = match start {
            None => return,
            Some(Start::Refused(reason)) => {
                let _ = reply.send(Answer::Refused(reason));
                return;
            }
            // The time that the answer took is over.
            Some(Start::After(wait)) => (wait.saturating_sub(took), None),
            Some(Start::Probe(reason)) => (Duration::ZERO, Some(reason)),
        };
        let not_before = std::time::Instant::now() + wait;
        match trail.push(Visit::to(host, not_before, probe)) {
            // Who does not wait any more finds it in the trail.
            Ok(at) => _ = reply.send(Answer::Admitted(wait, at)),
            Err(visit) => (self.give_back)(visit),
        }
    }
}
