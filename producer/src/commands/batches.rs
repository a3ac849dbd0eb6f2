//! `producer batches`: the enqueues, the newest first, and how far each is.

use super::{CommandError, Ended, json, print, write};
use crate::cli::BatchesArgs;
use crate::view::style::{HEAD, paint};
use common::text::{bytes, duration, harmless};
use queue::{BatchPages, BatchState, Queue};
use std::time::Duration;

pub(super) async fn batches(queue: &Queue, args: &BatchesArgs) -> Result<Ended, CommandError> {
    let mut pages = BatchPages::new(queue, args.limit);
    let mut shown = 0;
    // Each page goes out as it comes: of a hundred thousand nobody wants to wait for the last one.
    while let Some((states, now_ms)) = pages.next().await? {
        for state in &states {
            if args.json {
                // One list on one line, whatever its length.
                write(if shown == 0 { "[" } else { "," })?;
                write(&json(state)?)?;
            } else {
                if shown == 0 {
                    print(&paint(HEAD, &head()))?;
                }
                print(&line(state, now_ms))?;
            }
            shown += 1;
        }
    }
    match (args.json, shown) {
        (true, 0) => print("[]")?,
        (true, _) => print("]")?,
        (false, 0) => print("no batch; `producer enqueue` makes one")?,
        (false, _) => {}
    }
    Ok(Ended::Done)
}

fn head() -> String {
    format!(
        "{:<12}  {:>9}  {:>6}  {:>10}  {:>10}  {:>8}  {:>8}  {:>9}  {:<12}  SOURCE",
        "BATCH", "BEGAN", "DONE", "ENQUEUED", "STORED", "REJECTED", "FAILED", "BYTES", "STATE"
    )
}

fn line(state: &BatchState, now_ms: u64) -> String {
    let age = duration(Duration::from_millis(now_ms.saturating_sub(state.started)));
    format!(
        "{:<12}  {:>9}  {:>5}%  {:>10}  {:>10}  {:>8}  {:>8}  {:>9}  {:<12}  {}",
        state.batch,
        age,
        state.percent_done(),
        state.enqueued,
        state.stored,
        state.rejected,
        state.failed,
        bytes(state.bytes),
        state.stage(),
        harmless(&state.source)
    )
}
