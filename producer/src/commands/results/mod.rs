//! `producer results`: the results stream, filtered, in a form for people or programs.

mod output;

use super::{CommandError, Ended, print};
use crate::cli::{ResultsArgs, ResultsFormat, Since};
use common::error::QueueError;
use common::report::ResultRow;
use common::text::{duration, harmless};
use output::Output;
use queue::{Patience, Queue};
use std::io;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

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
    // Who follows waits for that as well.
    if let (Some(name), false) = (&args.reader, args.follow) {
        add_reader(queue, name).await?;
    }
    let begin = match args.since {
        Some(since) => Some(since.entry_before(queue).await?),
        None => None,
    };
    // What a reader took may be gone from Redis: its file grows, and is never begun anew.
    let opened = Output::open(args.format, args.output.as_deref(), args.reader.is_some());
    let mut output = opened.map_err(|error| cannot_write(&args, error))?;
    let mut pages = Pages::new(args.reader.as_deref(), begin);
    if args.follow {
        follow(queue, &args, &mut pages, &mut output).await?;
    } else {
        while !pass_on(queue, &args, &mut pages, &mut output).await? {}
    }
    output.finish().map_err(|error| cannot_write(&args, error))?;
    Ok(Ended::Done)
}

/// Passes on what comes, until somebody stops it. A Redis that goes away is waited for.
async fn follow(
    queue: &Queue,
    args: &ResultsArgs,
    pages: &mut Pages<'_>,
    output: &mut Output,
) -> Result<(), CommandError> {
    let listen = |kind| signal(kind).map_err(CommandError::system("cannot listen for signals"));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut patience = Patience::endless();
    loop {
        let pause = match pass_on(queue, args, pages, output).await {
            Ok(is_last) => {
                if patience.answered() {
                    eprintln!("Redis answers again");
                }
                if is_last { FOLLOW_EVERY } else { Duration::ZERO }
            }
            Err(CommandError::Queue(error)) => {
                let Some(wait) = patience.next_wait(&error) else { return Err(error.into()) };
                if let Some(word) = patience.word(&error) {
                    eprintln!("{word}");
                }
                pages.lost();
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

/// Passes a page on; whether there is nothing more at the moment.
async fn pass_on(
    queue: &Queue,
    args: &ResultsArgs,
    pages: &mut Pages<'_>,
    output: &mut Output,
) -> Result<bool, CommandError> {
    if args.follow {
        queue.check_schema().await?;
    }
    let page = pages.next(queue).await?;
    for row in page.iter().filter(|row| is_wanted(row, args)) {
        output.write(row).map_err(|error| cannot_write(args, error))?;
    }
    output.flush().map_err(|error| cannot_write(args, error))?;
    // Only now: whoever is killed before this is given them again.
    Ok(pages.done_with(queue, page).await?)
}

fn cannot_write(args: &ResultsArgs, error: io::Error) -> CommandError {
    match &args.output {
        Some(path) => CommandError::system(format!("cannot write to {}", path.display()))(error),
        None => CommandError::system("cannot write the results")(error),
    }
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
    /// Whether Redis knows the reader.
    is_entered: bool,
    /// The entry behind which reading by entry begins.
    begin: Option<String>,
    /// The last entry that was read, while reading by entry: all results, or what a reader was given before a crash.
    after: Option<String>,
    /// Whether what a reader was given before a crash is through.
    only_new: bool,
    /// Entries that were passed on, and of which Redis does not know yet that the reader took them.
    passed_on: Vec<String>,
}

impl<'a> Pages<'a> {
    fn new(reader: Option<&'a str>, begin: Option<String>) -> Pages<'a> {
        Pages { reader, is_entered: false, after: begin.clone(), begin, only_new: false, passed_on: Vec::new() }
    }

    async fn next(&mut self, queue: &Queue) -> Result<Vec<ResultRow>, QueueError> {
        let Some(reader) = self.reader else { return queue.results(self.after.as_deref(), PAGE).await };
        if !self.is_entered {
            add_reader(queue, reader).await?;
            self.is_entered = true;
        }
        self.take(queue).await?;
        let again = (!self.only_new).then(|| self.after.as_deref().unwrap_or("0"));
        queue.read_as(reader, again, PAGE).await
    }

    /// Takes a page that was passed on; tells whether there is nothing more at the moment.
    async fn done_with(&mut self, queue: &Queue, page: Vec<ResultRow>) -> Result<bool, QueueError> {
        let is_last = page.len() < PAGE;
        if self.reader.is_some() {
            self.passed_on.extend(page.iter().map(|row| row.entry.clone()));
        }
        if let Some(row) = page.into_iter().next_back() {
            self.after = Some(row.entry);
        }
        self.take(queue).await?;
        if self.reader.is_some() && is_last && !self.only_new {
            self.only_new = true;
            return Ok(false);
        }
        Ok(is_last)
    }

    /// Tells Redis what the reader took. Once more is once.
    async fn take(&mut self, queue: &Queue) -> Result<(), QueueError> {
        if let (Some(reader), false) = (self.reader, self.passed_on.is_empty()) {
            let entries: Vec<&str> = self.passed_on.iter().map(String::as_str).collect();
            queue.taken(reader, &entries).await?;
            self.passed_on.clear();
        }
        Ok(())
    }

    /// After an answer that did not come: a reader may have been given entries in it, and is given those again that it has not taken.
    /// And Redis may have come back from before the reader was there.
    fn lost(&mut self) {
        if self.reader.is_some() {
            (self.is_entered, self.only_new) = (false, false);
            self.after.clone_from(&self.begin);
        }
    }
}

async fn add_reader(queue: &Queue, name: &str) -> Result<(), QueueError> {
    if let Some(silent) = queue.add_reader(name).await? {
        let silent = duration(silent);
        eprintln!(
            "note: reader {name} stood still for {silent}, and results were not kept for it any more (`producer retention`): some may be \
             missing"
        );
    }
    Ok(())
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
