//! What the unit tests of the duties share: jobs as a claim gives them out, and a queue that answers as it is told.

use crate::queue_calls::{Call, QueueCalls};
use common::error::QueueError;
use queue::{Claim, ClaimRequest, ClaimedJob, HostNews, LeaseField, Reconciled, Settled, Settlement};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The `n`th field of a claim.
pub(crate) fn field(n: usize) -> LeaseField {
    LeaseField::new(1, n as u64 + 1)
}

/// A job with this payload, as the `n`th of its claim.
pub(crate) fn job(n: usize, payload: &str) -> ClaimedJob {
    ClaimedJob { field: field(n), payload: payload.into(), crashes: 0, runs_alone: false, admissions: Vec::new() }
}

/// The jobs of a claim that found all that there was.
pub(crate) fn jobs(jobs: Vec<ClaimedJob>) -> Claim {
    let (left_alone, dropped) = (Vec::new(), Vec::new());
    Claim::Jobs { jobs, next_due: None, more: false, left_alone, dropped, unknown: Vec::new() }
}

pub(crate) fn away() -> QueueError {
    QueueError::Unreachable { address: "redis".into(), why: "away".into() }
}

/// What a queue was asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Question {
    /// For so many jobs.
    Claim(usize),
    Reconcile,
    RunAlone(LeaseField),
    UntilReady,
    /// Jobs and news of a batch.
    Settle(Vec<LeaseField>, usize),
}

/// A queue that answers as it is told.
#[derive(Default)]
pub(crate) struct ScriptedQueue {
    pub(crate) asked: Mutex<Vec<(Instant, Question)>>,
    /// The hosts that the last claim named, as their jobs wait.
    pub(crate) named: Mutex<Vec<String>>,
    /// The next answers; without one, a question is never answered.
    pub(crate) claims: Mutex<VecDeque<Claim>>,
    pub(crate) comparisons: Mutex<VecDeque<Reconciled>>,
    /// All fail at once.
    pub(crate) is_away: AtomicBool,
    /// So many settlements fail before one is taken.
    pub(crate) refused_settlements: AtomicUsize,
    pub(crate) generation: AtomicU64,
    /// Wakes who waits for jobs.
    pub(crate) pushed: Arc<Notify>,
    /// Waits for jobs that were dropped before they ended.
    pub(crate) dropped_waits: Arc<AtomicUsize>,
}

impl ScriptedQueue {
    fn note(&self, question: Question) {
        self.asked.lock().expect("not poisoned").push((Instant::now(), question));
    }

    /// What it was asked so far.
    pub(crate) fn questions(&self) -> Vec<Question> {
        self.asked.lock().expect("not poisoned").iter().map(|(_, question)| question.clone()).collect()
    }

    fn answer<T: Send + 'static>(&self, answer: Option<T>) -> Call<'static, T> {
        if self.is_away.load(Ordering::Relaxed) {
            return Box::pin(async { Err(away()) });
        }
        match answer {
            Some(answer) => Box::pin(async { Ok(answer) }),
            None => Box::pin(std::future::pending()),
        }
    }
}

/// Counts a wait that is dropped before its end.
struct Wait(Option<Arc<AtomicUsize>>);

impl Wait {
    fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(dropped) = &self.0 {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl QueueCalls for ScriptedQueue {
    fn claim(&self, _number: u64, request: ClaimRequest) -> Call<'static, Claim> {
        self.note(Question::Claim(request.max));
        let hosts = request.waiting.into_iter().map(|waiting| waiting.host);
        *self.named.lock().expect("not poisoned") = hosts.collect();
        self.answer(self.claims.lock().expect("not poisoned").pop_front())
    }

    fn reconcile(&self, _number: u64) -> Call<'static, Reconciled> {
        self.note(Question::Reconcile);
        self.answer(self.comparisons.lock().expect("not poisoned").pop_front())
    }

    fn run_alone(&self, field: LeaseField) -> Call<'static, bool> {
        self.note(Question::RunAlone(field));
        self.answer(Some(true))
    }

    fn settle<'a>(&'a self, batch: &'a [(LeaseField, Settlement)], news: &'a [HostNews]) -> Call<'a, Settled> {
        self.note(Question::Settle(batch.iter().map(|(field, _)| field.clone()).collect(), news.len()));
        let left = self.refused_settlements.load(Ordering::Relaxed);
        self.refused_settlements.store(left.saturating_sub(1), Ordering::Relaxed);
        let settled = Settled { accepted: vec![true; batch.len()], dropped: Vec::new() };
        Box::pin(async move { if left > 0 { Err(away()) } else { Ok(settled) } })
    }

    fn until_ready(&self, at_most: Duration) -> Call<'static, ()> {
        self.note(Question::UntilReady);
        let (pushed, wait) = (Arc::clone(&self.pushed), Wait(Some(Arc::clone(&self.dropped_waits))));
        Box::pin(async move {
            let _ = tokio::time::timeout(at_most, pushed.notified()).await;
            wait.end();
            Ok(())
        })
    }

    fn connection_generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }
}
