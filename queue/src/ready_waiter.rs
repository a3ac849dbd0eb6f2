//! Waiting for work without polling and without losing any.
//!
//! `BLMOVE ready ready LEFT LEFT` blocks until the list has an element and then moves its head onto itself, which
//! changes nothing; it wakes on any push, by anybody. It needs a connection of its own: a blocked command holds up all
//! others behind it.

use super::Queue;
use crate::connect::{Connector, breaks_connection};
use common::error::QueueError;
use redis::aio::MultiplexedConnection;
use std::time::Duration;

/// Waits on one queue's `ready` list, over a connection of its own that is opened on first use.
#[derive(Debug)]
pub struct ReadyWaiter {
    connector: Connector,
    key: String,
    connection: Option<MultiplexedConnection>,
}

impl Queue {
    /// A waiter for this queue.
    pub fn ready_waiter(&self) -> ReadyWaiter {
        ReadyWaiter { connector: self.channel.connector().clone(), key: self.keys.ready(), connection: None }
    }
}

impl ReadyWaiter {
    /// Returns when the list has an element, or after `at_most` (rounded up to a hundredth of a second).
    ///
    /// Cancel safety: when the future is dropped the connection stays blocked until its time is over, so it is thrown
    /// away, and the next call opens another.
    ///
    /// # Errors
    /// As every call.
    pub async fn wait(&mut self, at_most: Duration) -> Result<(), QueueError> {
        // Taken out while it is blocked: a cancelled wait leaves `None` behind.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connector.open(None).await?,
        };
        // Zero would block for ever.
        let seconds = (at_most.as_secs_f64() * 100.0).ceil().max(1.0) / 100.0;
        let mut cmd = redis::cmd("BLMOVE");
        cmd.arg(&self.key).arg(&self.key).arg("LEFT").arg("LEFT").arg(seconds);
        // A server that vanished without a word (a half-open connection) would never answer.
        let bound = at_most + Duration::from_secs(2);
        match tokio::time::timeout(bound, cmd.query_async::<redis::Value>(&mut connection)).await {
            Ok(Ok(_)) => {
                self.connection = Some(connection);
                Ok(())
            }
            Ok(Err(error)) => {
                if !breaks_connection(&error) {
                    self.connection = Some(connection);
                }
                match self.connector.translate(&error, "wait for jobs") {
                    // At maxmemory Redis refuses even a move that moves nothing; the next look at the queue is a claim.
                    QueueError::OutOfMemory { .. } => {
                        tokio::time::sleep(at_most).await;
                        Ok(())
                    }
                    error => Err(error),
                }
            }
            Err(_) => Err(QueueError::Unreachable {
                address: self.connector.address().to_owned(),
                why: "no answer to a wait for jobs".into(),
            }),
        }
    }
}
