//! What a service said last of what may still be asked of it, shared by all programs that use one Redis: it belongs to an account
//! at the service, not to a queue. What the numbers mean is left to whoever asks the service.

use super::Queue;
use crate::scripts::{TYPES, script};
use common::error::QueueError;
use common::keys::Keys;
use std::collections::HashMap;
use std::time::Duration;

script! {
    NoteScript from "note_budget.lua";
    with [TYPES];
    keys [budget_key];
    args [seconds: u64], then numbers_from;
}

/// What was told is believed for so long. Then one request is made, whose answer tells it anew: nobody says when a day's
/// budget begins again.
const BELIEVED_FOR: Duration = Duration::from_secs(3600);

impl Queue {
    /// What any program was told within the last hour of `account` at `service`, by name; empty when nobody was.
    ///
    /// # Errors
    /// As every call.
    pub async fn budget(&self, service: &str, account: &str) -> Result<HashMap<String, u64>, QueueError> {
        let cmd = redis::Cmd::hgetall(Keys::budget(service, account));
        self.channel.query("read what may still be asked", &cmd).await
    }

    /// Tells the other programs. Of two that tell at once the last one counts; both are right to within a request.
    ///
    /// # Errors
    /// As every call.
    pub async fn note_budget(&self, service: &str, account: &str, numbers: &[(String, u64)]) -> Result<(), QueueError> {
        if numbers.is_empty() {
            return Ok(());
        }
        let call = NoteScript { budget_key: Keys::budget(service, account), seconds: BELIEVED_FOR.as_secs() };
        let mut call = call.call();
        for (name, number) in numbers {
            call.arg(name.as_str());
            call.arg(*number);
        }
        let mut reply = self.channel.run("note what may still be asked", &call).await?;
        reply.word("whether it was done", &[("ok", ())])?;
        reply.end()
    }
}
