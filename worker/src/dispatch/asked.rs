//! What Redis was asked and has not answered: one thing at a time.
//!
//! A comparison therefore never meets the jobs of a claim whose answer is still under way.

use crate::queue_calls::Call;
use common::error::QueueError;
use queue::{Claim, Reconciled};
use std::time::Duration;
use tokio::time::Instant;

/// The question under way.
pub(super) enum Asked {
    Claim(Call<'static, Claim>, ClaimContext),
    Comparison(Call<'static, Reconciled>),
    /// To mark the first suspect as running alone.
    Mark(Call<'static, bool>),
}

/// Under what a claim was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClaimContext {
    pub(super) at: Instant,
    /// Jobs that were asked for.
    pub(super) max: usize,
    /// How often settlements had been confirmed.
    pub(super) confirmations: u64,
}

/// What Redis said.
#[derive(Debug)]
pub(super) enum Answer {
    /// With the time that it took.
    Claim(Result<Claim, QueueError>, ClaimContext, Duration),
    Comparison(Result<Reconciled, QueueError>),
    Mark(Result<bool, QueueError>),
}

impl Asked {
    /// Waits for the answer, after which nothing is asked any more. Never returns where nothing is. Cancel safe.
    pub(super) async fn answer(asked: &mut Option<Asked>) -> Answer {
        let answer = match asked {
            None => std::future::pending().await,
            Some(Asked::Claim(call, context)) => {
                let claim = call.await;
                Answer::Claim(claim, *context, context.at.elapsed())
            }
            Some(Asked::Comparison(call)) => Answer::Comparison(call.await),
            Some(Asked::Mark(call)) => Answer::Mark(call.await),
        };
        *asked = None;
        answer
    }
}
