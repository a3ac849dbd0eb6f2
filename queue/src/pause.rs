//! Pausing a queue: nothing is claimed while `paused` stands in `meta`; what is in flight is finished.

use super::Queue;
use common::error::QueueError;

impl Queue {
    /// Stops or resumes claiming by all workers. Repeating it changes nothing.
    ///
    /// # Errors
    /// As every call.
    pub async fn set_paused(&self, paused: bool) -> Result<(), QueueError> {
        let cmd = if paused {
            redis::Cmd::hset(self.keys.meta(), "paused", 1)
        } else {
            redis::Cmd::hdel(self.keys.meta(), "paused")
        };
        self.channel.query::<()>("pause or resume", &cmd).await
    }
}
