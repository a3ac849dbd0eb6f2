//! `producer purge`: removes the jobs that wait, and with flags what is left of those that ended.

use super::{CommandError, Ended, print, print_json};
use crate::cli::PurgeArgs;
use common::text::count;
use queue::{DeadAction, DeadPages, Queue, Status, WaitsIn};

pub(super) async fn purge(queue: &Queue, args: &PurgeArgs) -> Result<Ended, CommandError> {
    let status = queue.status().await?;
    if args.results {
        nobody_is_behind(queue).await?;
    }
    if args.dry_run {
        if args.json {
            print_json(&counts(args, [0, 0, 0, 0], &status))?;
        } else {
            print(&format!("would be removed: {}", what(args, &status)))?;
        }
        return Ok(Ended::Done);
    }
    if !args.yes {
        return Err(CommandError::Other {
            message: format!("from queue {} would be removed: {}", queue.name(), what(args, &status)),
            hint: "say --yes if that is meant; jobs in flight finish, and links of removed jobs can be enqueued again"
                .to_owned(),
            code: 2,
        });
    }
    let purged = purge_waiting(queue, status.waiting()).await?;
    let dead = if args.dead { drop_dead(queue).await? } else { 0 };
    let results = if args.results { queue.purge_results().await? } else { 0 };
    // Last: what was purged may have finished some.
    let batches = if args.finished { queue.forget_finished_batches().await? } else { 0 };
    if args.json {
        print_json(&counts(args, [purged, dead, results, batches], &status))?;
        return Ok(Ended::Done);
    }
    print(&format!("{} purged; their links can be enqueued again", count(purged, "job")))?;
    if args.dead {
        print(&format!("{} dropped", count(dead, "dead job")))?;
    }
    if args.results {
        print(&format!("{} removed", count(results, "result")))?;
    }
    if args.finished {
        print(&format!("{} forgotten", batches_in_words(batches)))?;
    }
    let in_flight = queue.status().await?.in_flight;
    if in_flight > 0 {
        print(&format!("{} in flight; they finish", count(in_flight, "job")))?;
    }
    Ok(Ended::Done)
}

/// Removes as many jobs as waited at the beginning, or all that wait. Which of those that are enqueued meanwhile go is not said:
/// workers claim from the same end.
async fn purge_waiting(queue: &Queue, waiting: u64) -> Result<u64, CommandError> {
    let mut purged = 0;
    while purged < waiting {
        let mut place = WaitsIn::Ready;
        let mut page = queue.waiting_page(place).await?;
        if page.is_empty() {
            place = WaitsIn::Delayed;
            page = queue.waiting_page(place).await?;
        }
        if page.is_empty() {
            break;
        }
        page.truncate(usize::try_from(waiting - purged).unwrap_or(usize::MAX));
        // None went when workers were faster: what they left is read again.
        purged += queue.purge_page(place, &page).await?;
    }
    Ok(purged)
}

/// Drops the dead letters that were there at the beginning.
async fn drop_dead(queue: &Queue) -> Result<u64, CommandError> {
    let mut pages = DeadPages::new(queue);
    let mut dropped = 0;
    while let Some(page) = pages.next().await? {
        dropped += queue.settle_dead(DeadAction::Drop, &page).await?;
    }
    Ok(dropped)
}

/// Results that a named reader has not taken are not thrown away behind its back.
async fn nobody_is_behind(queue: &Queue) -> Result<(), CommandError> {
    for reader in queue.readers().await? {
        if reader.behind != Some(0) || reader.pending > 0 {
            return Err(CommandError::Other {
                message: format!("reader {} has not taken all results", reader.reader),
                hint: format!(
                    "`producer results --reader {0}` takes them; `producer results --drop-reader {0}` forgets the reader",
                    reader.reader
                ),
                code: 1,
            });
        }
    }
    Ok(())
}

fn what(args: &PurgeArgs, status: &Status) -> String {
    let mut parts =
        vec![format!("{} ({} ready, {} delayed)", count(status.waiting(), "job"), status.ready, status.delayed)];
    if args.dead {
        parts.push(count(status.dead, "dead job"));
    }
    if args.results {
        parts.push(count(status.results, "result"));
    }
    if args.finished {
        parts.push("what is known of the batches that are finished".to_owned());
    }
    parts.join(", ")
}

fn batches_in_words(batches: u64) -> String {
    if batches == 1 { "1 batch".to_owned() } else { format!("{batches} batches") }
}

/// What there was, and what went of it.
fn counts(args: &PurgeArgs, [purged, dead, results, batches]: [u64; 4], status: &Status) -> serde_json::Value {
    serde_json::json!({
        "found": status.waiting(), "purged": purged,
        "dead_found": if args.dead { status.dead } else { 0 }, "dead_dropped": dead,
        "results_found": if args.results { status.results } else { 0 }, "results_removed": results,
        "batches_forgotten": batches,
    })
}
