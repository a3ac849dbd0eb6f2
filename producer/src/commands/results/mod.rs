//! `producer results`: the results stream, filtered, in a form for people or programs.

mod output;
mod reader;
mod search;

use super::{CommandError, Ended, print};
use crate::cli::{ResultsArgs, ResultsFormat};
use common::report::ResultRow;
use common::text::{duration, harmless};
use output::Output;
use queue::{Patience, Queue};
use reader::ReaderPages;
use search::ResultSearch;
use std::io;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

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
    let source = match &args.reader {
        Some(name) => {
            // It would be told of nothing, and take all that there is.
            search::batch_is_known(queue, &args).await?;
            // Who follows waits for that as well.
            if !args.follow {
                reader::add_reader(queue, name).await?;
            }
            Source::Reader(ReaderPages::new(name))
        }
        None => Source::Search(ResultSearch::begin(queue, &args).await?),
    };
    // What a reader took may be gone from Redis: its file grows, and is never begun anew.
    let opened = Output::open(args.format, args.output.as_deref(), args.reader.is_some());
    let output = opened.map_err(|error| cannot_write(&args, error))?;
    let mut showing = Showing { queue, args: &args, source, output, left: args.limit.unwrap_or(u64::MAX) };
    if args.follow {
        showing.follow().await?;
    } else {
        while showing.pass_on().await? == Next::More {}
    }
    showing.output.finish().map_err(|error| cannot_write(&args, error))?;
    Ok(Ended::Done)
}

/// Where the results come from.
enum Source<'a> {
    Reader(ReaderPages<'a>),
    Search(ResultSearch),
}

/// What comes after a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    More,
    /// Nothing at the moment.
    Nothing,
    /// As many as were wanted are shown.
    Over,
}

/// The results on their way from the queue to where they are written.
struct Showing<'a> {
    queue: &'a Queue,
    args: &'a ResultsArgs,
    source: Source<'a>,
    output: Output,
    /// How many are still wanted.
    left: u64,
}

impl Showing<'_> {
    /// Passes on what comes, until somebody stops it. A Redis that goes away is waited for.
    async fn follow(&mut self) -> Result<(), CommandError> {
        let listen = |kind| signal(kind).map_err(CommandError::system("cannot listen for signals"));
        let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let mut patience = Patience::endless();
        loop {
            let pause = match self.pass_on().await {
                Ok(Next::Over) => return Ok(()),
                Ok(next) => {
                    if patience.answered() {
                        eprintln!("Redis answers again");
                    }
                    if next == Next::Nothing { FOLLOW_EVERY } else { Duration::ZERO }
                }
                Err(CommandError::Queue(error)) => {
                    let Some(wait) = patience.next_wait(&error) else { return Err(error.into()) };
                    if let Some(word) = patience.word(&error) {
                        eprintln!("{word}");
                    }
                    if let Source::Reader(pages) = &mut self.source {
                        pages.lost();
                    }
                    wait
                }
                Err(error) => return Err(error),
            };
            tokio::select! {
                biased;
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Passes a page on.
    async fn pass_on(&mut self) -> Result<Next, CommandError> {
        if self.args.follow {
            self.queue.check_schema().await?;
        }
        let is_last = match &mut self.source {
            Source::Reader(pages) => {
                let page = pages.next(self.queue).await?;
                write(&mut self.output, self.args, &page, &mut self.left)?;
                // Only now: whoever is killed before this is given them again.
                pages.done_with(self.queue, page).await?
            }
            Source::Search(search) => {
                let found = search.next(self.queue, self.left).await?;
                write(&mut self.output, self.args, &found.rows, &mut self.left)?;
                found.is_end
            }
        };
        Ok(match is_last {
            _ if self.left == 0 => Next::Over,
            true => Next::Nothing,
            false => Next::More,
        })
    }
}

/// Writes those of a page that are wanted, `left` at most.
fn write(output: &mut Output, args: &ResultsArgs, page: &[ResultRow], left: &mut u64) -> Result<(), CommandError> {
    for row in page.iter().filter(|row| is_wanted(row, args)) {
        if *left == 0 {
            break;
        }
        output.write(row).map_err(|error| cannot_write(args, error))?;
        *left -= 1;
    }
    output.flush().map_err(|error| cannot_write(args, error))
}

fn cannot_write(args: &ResultsArgs, error: io::Error) -> CommandError {
    match &args.output {
        Some(path) => CommandError::system(format!("cannot write to {}", path.display()))(error),
        None => CommandError::system("cannot write the results")(error),
    }
}

async fn list_readers(queue: &Queue) -> Result<Ended, CommandError> {
    let readers = queue.readers().await?;
    if readers.is_empty() {
        print("no reader; `producer results --reader NAME` makes one")?;
    }
    for reader in readers {
        let behind = reader.behind.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
        let still = match reader.still_ms {
            Some(ms) if reader.is_silent => {
                format!(", silent for {}: results are not kept for it any more", duration(Duration::from_millis(ms)))
            }
            _ => String::new(),
        };
        print(&format!(
            "{}: {behind} behind, {} given and not taken{still}",
            harmless(&reader.reader),
            reader.pending
        ))?;
    }
    Ok(Ended::Done)
}

fn is_wanted(row: &ResultRow, args: &ResultsArgs) -> bool {
    args.outcome.as_ref().is_none_or(|outcome| *outcome == row.outcome)
        && args.reason.as_ref().is_none_or(|reason| *reason == row.reason)
        && args.batch.is_none_or(|batch| batch.to_string() == row.batch)
}
