//! The host gate: how many downloads at once one host gets from this worker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One small door for each host.
#[derive(Debug)]
pub(crate) struct HostGate {
    per_host: usize,
    doors: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl HostGate {
    pub(crate) fn new(per_host: usize) -> HostGate {
        HostGate { per_host, doors: Mutex::new(HashMap::new()) }
    }

    /// Waits for a place at `host`; the place is free again when the permit is dropped.
    ///
    /// Cancel safety: a dropped wait loses only its place in the line.
    pub(crate) async fn enter(&self, host: &str) -> Option<OwnedSemaphorePermit> {
        let door = {
            let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
            // Strangers' lists name hosts without end: doors that nobody stands at are taken away now and then.
            if doors.len() > 10_000 {
                doors.retain(|_, door| door.available_permits() < self.per_host);
            }
            Arc::clone(doors.entry(host.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.per_host))))
        };
        // Fails only when the semaphore is closed, which nobody does.
        door.acquire_owned().await.ok()
    }
}
