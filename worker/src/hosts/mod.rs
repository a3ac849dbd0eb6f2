//! Politeness: whether a host may be asked now, with what, and what an attempt teaches about it. Whoever asks a host, for a link
//! or because it is the target of a redirect, goes through here.
//!
//! A host has so many places in this worker (`gate`). Whether the fleet may ask it at all (its rate, its cooldown, its circuit
//! breaker) is decided by one function of two scripts: in the claim for the host of a link, and through `admissions` for the target of a
//! redirect. What an attempt met, host by host, is its [`Trail`]; `conclusions` says what follows.

pub(crate) mod admissions;
pub(crate) mod conclusions;
pub(crate) mod gate;
pub(crate) mod tally;
mod trail;

pub(crate) use admissions::Admissions;
pub(crate) use gate::HostGate;
pub(crate) use tally::{HostTally, say_dropped};
pub(crate) use trail::{Doors, NotAdmitted, Trail, Visit, Visits};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};

/// The places that hosts have in one worker, and the jobs `J` that wait for one. Lives as long as the worker's name.
#[derive(Debug)]
pub(crate) struct Hosts<J> {
    gate: Mutex<HostGate<J, oneshot::Sender<Place>>>,
    /// Told that a place got free which a job waits for, for the dispatcher. Of many one notice is enough.
    freed: Arc<Notify>,
}

impl<J: Send + std::fmt::Debug + 'static> Hosts<J> {
    /// With so many places for each host. Who has the notice hears of places that got free.
    pub(crate) fn new(per_host: usize) -> (Arc<Hosts<J>>, Arc<Notify>) {
        let freed = Arc::new(Notify::new());
        (Arc::new(Hosts { gate: Mutex::new(HostGate::new(per_host)), freed: Arc::clone(&freed) }), freed)
    }

    /// The lanes. Not to be held across an await, nor while a [`Place`] is dropped.
    pub(crate) fn gate(&self) -> MutexGuard<'_, HostGate<J, oneshot::Sender<Place>>> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place that was taken already, by [`HostGate::next`] or [`HostGate::enter`].
    pub(crate) fn taken(self: &Arc<Self>, host: &Arc<str>) -> Place {
        Place { places: Arc::clone(self) as Arc<dyn Places>, host: Arc::clone(host) }
    }
}

/// A place at a host; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<dyn Places>,
    host: Arc<str>,
}

impl Drop for Place {
    fn drop(&mut self) {
        Arc::clone(&self.places).leave(&self.host);
    }
}

/// The places of hosts, whatever waits for them.
pub(crate) trait Places: Send + Sync + std::fmt::Debug {
    /// A place at `host`: at once, or through the channel as soon as one is free. It goes to those who wait so before any job
    /// that has not started.
    fn enter(self: Arc<Self>, host: &Arc<str>) -> Result<Place, oneshot::Receiver<Place>>;

    /// Nobody waits at `host` any more through some channel that was dropped.
    fn forget_dropped(&self, host: &Arc<str>);

    /// Gives a place at `host` back.
    fn leave(self: Arc<Self>, host: &Arc<str>);
}

impl<J: Send + std::fmt::Debug + 'static> Places for Hosts<J> {
    fn enter(self: Arc<Self>, host: &Arc<str>) -> Result<Place, oneshot::Receiver<Place>> {
        let mut gate = self.gate();
        if gate.try_enter(host) {
            drop(gate);
            return Ok(self.taken(host));
        }
        let (sender, receiver) = oneshot::channel();
        gate.queue_up(host, sender);
        Err(receiver)
    }

    fn forget_dropped(&self, host: &Arc<str>) {
        self.gate().forget(host, oneshot::Sender::is_closed);
    }

    fn leave(self: Arc<Self>, host: &Arc<str>) {
        let mut gate = self.gate();
        let (waiter, is_waited_for) = (gate.leave(host), gate.waiting() > 0);
        drop(gate);
        match waiter {
            // If it does not wait any more, the place is dropped here, and goes to the next.
            Some(waiter) => drop(waiter.send(self.taken(host))),
            None if is_waited_for => self.freed.notify_one(),
            None => {}
        }
    }
}
