//! Pausing a queue: nothing is claimed while `paused` stands in `meta`; what is in flight is finished.

use super::Queue;
use crate::scripts::{KNOWN_SCHEMA, TYPES, script};
use common::error::QueueError;
use common::job::SCHEMA_VERSION;

script! {
    // A script, as Redis refuses HSET when its memory is full, and that is no time to be unable to stop workers.
    PauseScript from "pause.lua";
    with [TYPES, KNOWN_SCHEMA];
    keys [meta_key];
    args [is_paused: bool, schema: u32];
}

impl Queue {
    /// Stops or resumes claiming by all workers. Repeating it changes nothing.
    ///
    /// # Errors
    /// As every call.
    pub async fn set_paused(&self, is_paused: bool) -> Result<(), QueueError> {
        let call = PauseScript { meta_key: self.keys.meta(), is_paused, schema: SCHEMA_VERSION };
        let mut reply = self.channel.run("pause or resume", &call.call()).await?;
        reply.word("whether it was done", &[("ok", ())])?;
        reply.end()
    }
}
