//! `producer retention`: for how long what ended is kept, and forgetting what is older.

use super::{CommandError, Ended, print, print_json};
use crate::cli::RetentionArgs;
use common::text::{count, harmless};
use queue::{Keep, Queue, Retention, RetentionChange, Tidied};

pub(super) async fn retention(queue: &Queue, args: &RetentionArgs) -> Result<Ended, CommandError> {
    let change = RetentionChange {
        batches: args.keep_batches,
        results: args.keep_results,
        dead: args.keep_dead,
        readers: args.keep_readers,
    };
    let mut forgotten = Tidied::default();
    if change != RetentionChange::default() {
        queue.set_retention(change).await?;
        forgotten = forget_all(queue).await?;
    }
    let retention = queue.retention().await?;
    if args.json {
        let facts = serde_json::json!({
            "keep": retention, "results": forgotten.results, "dead": forgotten.dead, "batches": forgotten.batches,
            "silent_readers": forgotten.silent_readers,
        });
        print_json(&facts)?;
        return Ok(Ended::Done);
    }
    print(&text(&retention))?;
    let of_batches =
        if forgotten.batches == 1 { "1 batch".to_owned() } else { format!("{} batches", forgotten.batches) };
    let forgotten_in_words = [
        (forgotten.results, count(forgotten.results, "result")),
        (forgotten.dead, count(forgotten.dead, "dead letter")),
        (forgotten.batches, of_batches),
    ];
    for (_, words) in forgotten_in_words.iter().filter(|(n, _)| *n > 0) {
        print(&format!("{words} forgotten"))?;
    }
    for reader in &forgotten.silent_readers {
        print(&format!("reader {} stands still: results are not kept for it any more", harmless(reader)))?;
    }
    Ok(Ended::Done)
}

/// At once, and not some with each minute: whoever says this may want the memory now.
async fn forget_all(queue: &Queue) -> Result<Tidied, CommandError> {
    let mut sum = Tidied::default();
    loop {
        let some = queue.tidy(true).await?;
        sum.results += some.results;
        sum.dead += some.dead;
        sum.batches += some.batches;
        sum.silent_readers = some.silent_readers;
        if !some.has_more {
            return Ok(sum);
        }
    }
}

fn text(retention: &Retention) -> String {
    let line = |what: &str, keep: Keep| match keep {
        Keep::For(_) => format!("{what:<34} {keep}"),
        Keep::Always => format!("{what:<34} for ever"),
    };
    [
        line("batches are kept, once finished,", retention.batches),
        line("results are kept", retention.results),
        line("dead letters are kept", retention.dead),
        line("for a reader that stands still", retention.readers),
    ]
    .join("\n")
}
