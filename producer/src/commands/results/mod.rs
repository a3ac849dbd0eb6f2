//! `producer results`: the results stream, filtered, in a form for people or programs.

mod output;

use super::{CommandError, Ended, print};
use crate::cli::{ResultsArgs, ResultsFormat, Since};
use common::error::QueueError;
use common::report::ResultRow;
use common::text::harmless;
use output::Output;
use queue::Queue;
use std::time::Duration;

/// Results read from Redis in one go.
const PAGE: usize = 1000;
/// How often new results are looked for with `--follow`.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

pub(super) async fn results(queue: &Queue, args: ResultsArgs) -> Result<Ended, CommandError> {
    if args.list_readers {
        return list_readers(queue).await;
    }
    if let Some(name) = &args.drop_reader {
        queue.drop_reader(name).await?;
        print(&format!("reader {name} is forgotten; results no longer wait for it"))?;
        return Ok(Ended::Done);
    }
    if args.reader.is_some() && args.format == ResultsFormat::Parquet {
        return Err(CommandError::Other {
            message: "--reader goes on where it stopped, and nothing can be added to a Parquet file".to_owned(),
            hint: "take --format jsonl or csv, or leave out --reader and say --since".to_owned(),
            code: 2,
        });
    }
    if let Some(name) = &args.reader {
        queue.add_reader(name).await?;
    }
    let after = match args.since {
        Some(since) => Some(since.entry_before(queue).await?),
        None => None,
    };
    let cannot_write = |error| match &args.output {
        Some(path) => CommandError::system(format!("cannot write to {}", path.display()))(error),
        None => CommandError::system("cannot write the results")(error),
    };
    // What a reader took may be gone from Redis: its file grows, and is never begun anew.
    let mut output = Output::open(args.format, args.output.as_deref(), args.reader.is_some()).map_err(cannot_write)?;
    let mut pages = Pages { reader: args.reader.as_deref(), after, only_new: false };
    loop {
        let page = pages.next(queue).await?;
        for row in page.iter().filter(|row| is_wanted(row, &args)) {
            output.write(row).map_err(cannot_write)?;
        }
        output.flush().map_err(cannot_write)?;
        // Only now: whoever is killed before this is given them again.
        if pages.done_with(queue, page).await? {
            if !args.follow {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
                _ = tokio::signal::ctrl_c() => break,
            }
        }
    }
    output.finish().map_err(cannot_write)?;
    Ok(Ended::Done)
}

impl Since {
    /// The last entry that can have been made before this time.
    async fn entry_before(self, queue: &Queue) -> Result<String, QueueError> {
        let ms = self.as_ms(queue.now_ms().await?);
        Ok(ms.checked_sub(1).map_or_else(|| "0-0".to_owned(), |before| format!("{before}-{}", u64::MAX)))
    }
}

/// The results page by page: all of them, or those that a reader has not taken.
struct Pages<'a> {
    reader: Option<&'a str>,
    /// The last entry that was read, while reading by entry: all results, or what a reader was given before a crash.
    after: Option<String>,
    /// Whether what a reader was given before a crash is through.
    only_new: bool,
}

impl Pages<'_> {
    async fn next(&self, queue: &Queue) -> Result<Vec<ResultRow>, QueueError> {
        match self.reader {
            None => queue.results(self.after.as_deref(), PAGE).await,
            Some(reader) => {
                let again = (!self.only_new).then(|| self.after.as_deref().unwrap_or("0"));
                queue.read_as(reader, again, PAGE).await
            }
        }
    }

    /// Takes a page that was passed on; tells whether there is nothing more at the moment.
    async fn done_with(&mut self, queue: &Queue, page: Vec<ResultRow>) -> Result<bool, QueueError> {
        let is_last = page.len() < PAGE;
        if let (Some(reader), false) = (self.reader, page.is_empty()) {
            let entries: Vec<&str> = page.iter().map(|row| row.entry.as_str()).collect();
            queue.taken(reader, &entries).await?;
        }
        if let Some(row) = page.into_iter().next_back() {
            self.after = Some(row.entry);
        }
        if self.reader.is_some() && is_last && !self.only_new {
            self.only_new = true;
            return Ok(false);
        }
        Ok(is_last)
    }
}

async fn list_readers(queue: &Queue) -> Result<Ended, CommandError> {
    let readers = queue.readers().await?;
    if readers.is_empty() {
        print("no reader; `producer results --reader NAME` makes one")?;
    }
    for reader in readers {
        let behind = reader.behind.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
        print(&format!("{}: {behind} behind, {} given and not taken", harmless(&reader.reader), reader.pending))?;
    }
    Ok(Ended::Done)
}

fn is_wanted(row: &ResultRow, args: &ResultsArgs) -> bool {
    args.outcome.as_ref().is_none_or(|outcome| *outcome == row.outcome)
        && args.reason.as_ref().is_none_or(|reason| *reason == row.reason)
        && args.batch.is_none_or(|batch| batch.to_string() == row.batch)
}
