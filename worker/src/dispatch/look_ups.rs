//! Look-ups: jobs whose objects are being looked for. They can be taken back at any time: a storage may never answer.

use super::claimed::Claimed;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use storage::Existing;

/// Objects looked for in one order to one writer: few enough that two share the work of a claim.
pub(super) const ORDER_MAX: usize = 32;

/// Jobs, and what was found of each in the storage.
pub(super) type LookedUp = (Vec<Claimed>, Vec<Option<Existing>>);

/// The look-ups under way.
#[derive(Default)]
pub(super) struct LookUps {
    orders: FuturesUnordered<LookUp>,
    jobs: usize,
}

/// One order.
struct LookUp {
    claimed: Vec<Claimed>,
    found: Pin<Box<dyn Future<Output = Vec<Option<Existing>>> + Send>>,
}

impl Future for LookUp {
    type Output = LookedUp;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<LookedUp> {
        let found = ready!(self.found.as_mut().poll(context));
        Poll::Ready((std::mem::take(&mut self.claimed), found))
    }
}

impl LookUps {
    /// Jobs whose objects are being looked for.
    pub(super) fn jobs(&self) -> usize {
        self.jobs
    }

    /// Adds jobs, and what looks for their objects.
    pub(super) fn push(
        &mut self,
        claimed: Vec<Claimed>,
        found: impl Future<Output = Vec<Option<Existing>>> + Send + 'static,
    ) {
        self.jobs += claimed.len();
        self.orders.push(LookUp { claimed, found: Box::pin(found) });
    }

    /// The next order that was answered; `None` when none is under way. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<LookedUp> {
        let (claimed, found) = self.orders.next().await?;
        self.jobs -= claimed.len();
        Some((claimed, found))
    }

    /// Takes all jobs back, and does not wait for any answer.
    pub(super) fn take_back(&mut self) -> impl Iterator<Item = Claimed> + use<> {
        self.jobs = 0;
        std::mem::take(&mut self.orders).into_iter().flat_map(|look_up| look_up.claimed)
    }
}
