//! `producer batches`: the enqueues, the newest first, and how far each is.

use super::{CommandError, Ended, print, print_json};
use crate::cli::BatchesArgs;
use crate::view::style::{HEAD, paint};
use common::text::{bytes, duration, harmless};
use queue::{BatchState, Queue};
use std::time::Duration;

pub(super) async fn batches(queue: &Queue, args: &BatchesArgs) -> Result<Ended, CommandError> {
    let (states, now_ms) = queue.newest_batch_states(args.limit).await?;
    if args.json {
        print_json(&states)?;
    } else if states.is_empty() {
        print("no batch; `producer enqueue` makes one")?;
    } else {
        print(&table(&states, now_ms))?;
    }
    Ok(Ended::Done)
}

fn table(states: &[BatchState], now_ms: u64) -> String {
    let head = format!(
        "{:<12}  {:>9}  {:>6}  {:>10}  {:>10}  {:>8}  {:>8}  {:>9}  {:<12}  SOURCE",
        "BATCH", "BEGAN", "DONE", "ENQUEUED", "STORED", "REJECTED", "FAILED", "BYTES", "STATE"
    );
    let lines = states.iter().map(|state| {
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
    });
    std::iter::once(paint(HEAD, &head)).chain(lines).collect::<Vec<_>>().join("\n")
}
