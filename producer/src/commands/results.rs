//! `producer results`: the results stream, filtered, in a form for people or programs.

use super::{CommandError, Ended, print};
use crate::cli::{ResultsArgs, ResultsFormat};
use crate::view::{bytes, harmless};
use common::error::QueueError;
use common::queue::Queue;
use common::report::ResultRow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
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
    let mut output: Box<dyn Write> = match &args.output {
        Some(path) => {
            // What a reader took may be gone from Redis: its file grows, and is never begun anew.
            let appends = args.reader.is_some();
            let file = File::options().create(true).write(true).append(appends).truncate(!appends).open(path);
            let file = file.map_err(CommandError::system(format!("cannot write to {}", path.display())))?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(BufWriter::new(io::stdout())),
    };
    if let Some(name) = &args.reader {
        queue.add_reader(name).await?;
    }
    let mut pages = Pages::new(args.reader.as_deref());
    let cannot_write = |error| CommandError::system("cannot write the results")(error);
    if args.format == ResultsFormat::Table {
        writeln!(output, "{:<8}  {:<15}  {:>9}  {:>6}  {:<5}  WHAT", "OUTCOME", "REASON", "BYTES", "MS", "TYPE")
            .map_err(cannot_write)?;
    }
    loop {
        let page = pages.next(queue).await?;
        for row in page.iter().filter(|row| is_wanted(row, &args)) {
            writeln!(output, "{}", line(row, args.format)).map_err(cannot_write)?;
        }
        output.flush().map_err(cannot_write)?;
        // Only now: whoever is killed before this is given them again.
        if pages.done_with(queue, page).await? {
            if !args.follow {
                return Ok(Ended::Done);
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
                _ = tokio::signal::ctrl_c() => return Ok(Ended::Done),
            }
        }
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

impl<'a> Pages<'a> {
    fn new(reader: Option<&'a str>) -> Pages<'a> {
        Pages { reader, after: None, only_new: false }
    }

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

fn line(row: &ResultRow, format: ResultsFormat) -> String {
    match format {
        // A row of strings and numbers always serialises.
        ResultsFormat::Jsonl => serde_json::to_string(row).unwrap_or_default(),
        ResultsFormat::Urls => harmless(&row.url),
        ResultsFormat::Table => format!(
            "{:<8}  {:<15}  {:>9}  {:>6}  {:<5}  {}",
            harmless(&row.outcome),
            harmless(&row.reason),
            row.bytes.map_or_else(String::new, bytes),
            row.ms.map_or_else(String::new, |ms| ms.to_string()),
            harmless(&row.media_type),
            harmless(if row.key.is_empty() { &row.url } else { &row.key })
        ),
    }
}
