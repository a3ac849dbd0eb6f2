//! Whether this worker is well: registered, its Redis answering, its storage usable, its main thread moving.

use super::Operation;
use crate::vitals::Vitals;
use common::error::QueueError;
use queue::Queue;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use storage::health::{Condition, Health};

/// What is known of Redis and of the worker's name in it.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    registered: AtomicBool,
    /// Claims, comparisons and settlements go over one connection, heartbeats over another: either may break alone.
    commands: Trouble,
    heartbeats: Trouble,
}

/// Why the last call got no answer; empty when it got one.
#[derive(Debug, Default)]
struct Trouble {
    /// Spares the good case the lock.
    any: AtomicBool,
    why: Mutex<String>,
}

impl Trouble {
    fn why(&self) -> MutexGuard<'_, String> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, error: Option<&QueueError>) {
        match error {
            Some(error) => *self.why() = error.to_string(),
            None if self.any.load(Ordering::Relaxed) => self.why().clear(),
            None => return,
        }
        self.any.store(error.is_some(), Ordering::Relaxed);
    }
}

impl Troubles {
    pub(super) fn set_registered(&self, registered: bool) {
        self.registered.store(registered, Ordering::Relaxed);
    }

    pub(super) fn heard(&self, operation: Operation, error: Option<&QueueError>) {
        match operation {
            Operation::Heartbeat => self.heartbeats.set(error),
            Operation::Claim | Operation::Compare | Operation::Settle => self.commands.set(error),
        }
    }

    pub(super) fn is_registered(&self) -> bool {
        self.registered.load(Ordering::Relaxed)
    }
}

/// What is looked at when somebody asks whether this worker is well.
#[derive(Debug)]
pub(crate) struct HealthCheck {
    pub(crate) queue: Arc<Queue>,
    pub(crate) storage: Arc<Health>,
    pub(crate) vitals: Arc<Vitals>,
}

impl HealthCheck {
    /// Everything that is wrong, a sentence each; empty when the worker is well.
    pub(super) fn complaints(&self, troubles: &Troubles) -> Vec<String> {
        let mut complaints = Vec::new();
        if !troubles.is_registered() {
            complaints.push("the worker is not registered".to_owned());
        }
        for trouble in [&troubles.heartbeats, &troubles.commands] {
            let why = trouble.why();
            if !why.is_empty() && !complaints.contains(&why) {
                complaints.push(why.clone());
            }
        }
        match self.storage.condition() {
            Condition::Good => {}
            Condition::Bad(why) => complaints.push(format!("the storage cannot be used: {why}")),
            Condition::Trial => complaints.push("the storage was bad and is being tried".to_owned()),
        }
        if self.vitals.is_stuck() {
            complaints.push("the main thread is stuck".to_owned());
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_the_trouble_of_its_own_connection_only() {
        let troubles = Troubles::default();
        let error = QueueError::NoSuchBatch("x".into());
        troubles.heard(Operation::Heartbeat, Some(&error));
        troubles.heard(Operation::Claim, Some(&error));
        troubles.heard(Operation::Settle, None);
        assert_eq!((troubles.commands.why().is_empty(), troubles.heartbeats.why().is_empty()), (true, false));
        troubles.heard(Operation::Heartbeat, None);
        assert!(troubles.heartbeats.why().is_empty());
    }

    #[test]
    fn each_thing_that_is_wrong_is_a_complaint() {
        let health = HealthCheck {
            queue: Arc::new(Queue::new("redis://127.0.0.1:1/0", "q").expect("a URL")),
            storage: Arc::new(Health::new(1)),
            vitals: Arc::new(Vitals::new()),
        };
        let troubles = Troubles::default();
        assert_eq!(health.complaints(&troubles), ["the worker is not registered"]);
        troubles.set_registered(true);
        assert!(health.complaints(&troubles).is_empty());
        let error = QueueError::NoSuchBatch("x".into());
        troubles.heard(Operation::Heartbeat, Some(&error));
        assert_eq!(health.complaints(&troubles), [error.to_string()]);
        troubles.heard(Operation::Compare, Some(&error));
        assert_eq!(health.complaints(&troubles).len(), 1, "the same is said once");
        troubles.heard(Operation::Heartbeat, None);
        assert_eq!(health.complaints(&troubles).len(), 1);
        troubles.heard(Operation::Compare, None);
        health.storage.set_bad("full");
        assert_eq!(health.complaints(&troubles), ["the storage cannot be used: full"]);
    }
}
