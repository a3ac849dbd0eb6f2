//! How long what ended is kept: finished batches, results, dead letters, and what a reader has not taken that stands still. It stands in
//! the queue itself, for all programs; who forgets what is older is `tidy`.

use super::Queue;
use crate::scripts::{KNOWN_SCHEMA, Lua, Piece, TYPES, piece, script};
use common::error::QueueError;
use common::job::SCHEMA_VERSION;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// How long things are kept of which nobody said it.
pub(super) const KEEP_BY_DEFAULT: Piece =
    Piece { name: "how long things are kept by default", lua: Lua::Made(keep_by_default) };
/// How long things are kept.
pub(super) const KEEP: Piece = piece!("keep.lua");
script! {
    // Frees memory, and `retention` is to work when that is full.
    SetRetentionScript from "set_retention.lua";
    with [TYPES, KNOWN_SCHEMA];
    keys [meta_key];
    args [
        keep_batches_ms: Option<u64>,
        keep_results_ms: Option<u64>,
        keep_dead_ms: Option<u64>,
        keep_readers_ms: Option<u64>,
        schema: u32,
    ];
}

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Longer than that, 30,000 years, is no other number to a script.
const KEEP_MS_MAX: u64 = 1_000_000_000_000_000;

/// How long something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// For so long.
    For(Duration),
    /// For ever.
    Always,
}

impl Keep {
    /// As it stands in `meta`.
    fn as_ms(self) -> u64 {
        match self {
            Keep::For(time) => u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, KEEP_MS_MAX),
            Keep::Always => 0,
        }
    }

    fn of_ms(ms: u64) -> Keep {
        if ms == 0 { Keep::Always } else { Keep::For(Duration::from_millis(ms)) }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Keep::For(time) => humantime::format_duration(*time).fmt(f),
            Keep::Always => f.write_str("always"),
        }
    }
}

impl Serialize for Keep {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How long what ended is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Retention {
    /// A batch, after it finished.
    pub batches: Keep,
    /// A result.
    pub results: Keep,
    /// A dead letter.
    pub dead: Keep,
    /// What a reader has not taken that does not move.
    pub readers: Keep,
}

impl Retention {
    const DEFAULT: Retention = Retention {
        batches: Keep::For(DAY.saturating_mul(30)),
        results: Keep::Always,
        dead: Keep::Always,
        readers: Keep::For(DAY.saturating_mul(30)),
    };

    /// By the names that fields of `meta` have.
    fn named(&self) -> [(&'static str, Keep); 4] {
        [("batches", self.batches), ("results", self.results), ("dead", self.dead), ("readers", self.readers)]
    }
}

fn keep_by_default() -> String {
    let each = Retention::DEFAULT.named().map(|(what, keep)| format!("{what} = {}", keep.as_ms()));
    format!("local KEEP_BY_DEFAULT_MS = {{{}}}\n", each.join(", "))
}

/// What is to be kept for another time than before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionChange {
    /// As in [`Retention`]; `None` for no change.
    pub batches: Option<Keep>,
    /// As in [`Retention`]; `None` for no change.
    pub results: Option<Keep>,
    /// As in [`Retention`]; `None` for no change.
    pub dead: Option<Keep>,
    /// As in [`Retention`]; `None` for no change.
    pub readers: Option<Keep>,
}

impl Queue {
    /// How long what ended is kept in this queue.
    ///
    /// # Errors
    /// As every call.
    pub async fn retention(&self) -> Result<Retention, QueueError> {
        let fields = Retention::DEFAULT.named().map(|(what, _)| format!("keep_{what}_ms"));
        let cmd = redis::cmd("HMGET").arg(self.keys.meta()).arg(&fields).to_owned();
        let told: Vec<Option<String>> = self.channel.query("read for how long things are kept", &cmd).await?;
        let mut keep = Retention::DEFAULT.named().map(|(_, keep)| keep);
        for (keep, told) in keep.iter_mut().zip(told) {
            // What is no number a person wrote, and the scripts do not go by it either.
            *keep = told.and_then(|ms| ms.parse().ok()).map_or(*keep, |ms: u64| Keep::of_ms(ms.min(KEEP_MS_MAX)));
        }
        let [batches, results, dead, readers] = keep;
        Ok(Retention { batches, results, dead, readers })
    }

    /// Sets for how long things are kept, for all programs of this queue.
    ///
    /// # Errors
    /// As every call.
    pub async fn set_retention(&self, change: RetentionChange) -> Result<(), QueueError> {
        let call = SetRetentionScript {
            meta_key: self.keys.meta(),
            keep_batches_ms: change.batches.map(Keep::as_ms),
            keep_results_ms: change.results.map(Keep::as_ms),
            keep_dead_ms: change.dead.map(Keep::as_ms),
            keep_readers_ms: change.readers.map(Keep::as_ms),
            schema: SCHEMA_VERSION,
        };
        let mut reply = self.channel.run("set for how long things are kept", &call.call()).await?;
        reply.word("whether it was done", &[("ok", ())])?;
        reply.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_something_is_kept_is_said_as_it_is_given() {
        for (keep, text) in [(Keep::For(DAY * 30), "30days"), (Keep::For(DAY / 2), "12h"), (Keep::Always, "always")] {
            assert_eq!((keep.to_string(), Keep::of_ms(keep.as_ms())), (text.to_owned(), keep));
        }
        assert_eq!(Keep::For(Duration::from_nanos(1)).as_ms(), 1, "as short as can be, and not for ever");
        assert_eq!(
            keep_by_default(),
            "local KEEP_BY_DEFAULT_MS = {batches = 2592000000, results = 0, dead = 0, readers = 2592000000}\n"
        );
    }
}
