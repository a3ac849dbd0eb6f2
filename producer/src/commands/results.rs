//! `producer results`: the results stream, filtered, in a form for people or programs.

use super::{CommandError, Ended};
use crate::cli::{ResultsArgs, ResultsFormat};
use crate::view::{bytes, harmless};
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
    let mut output: Box<dyn Write> = match &args.output {
        Some(path) => {
            let file =
                File::create(path).map_err(CommandError::system(format!("cannot write to {}", path.display())))?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(BufWriter::new(io::stdout())),
    };
    let cannot_write = |error| CommandError::system("cannot write the results")(error);
    let mut after: Option<String> = None;
    if args.format == ResultsFormat::Table {
        writeln!(output, "{:<8}  {:<15}  {:>9}  {:>6}  {:<5}  WHAT", "OUTCOME", "REASON", "BYTES", "MS", "TYPE")
            .map_err(cannot_write)?;
    }
    loop {
        let page = queue.results(after.as_deref(), PAGE).await?;
        for row in page.iter().filter(|row| is_wanted(row, &args)) {
            writeln!(output, "{}", line(row, args.format)).map_err(cannot_write)?;
        }
        output.flush().map_err(cannot_write)?;
        let last_page = page.len() < PAGE;
        if let Some(row) = page.into_iter().next_back() {
            after = Some(row.entry);
        }
        if last_page {
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
