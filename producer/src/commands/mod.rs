//! The commands: a file each, a function that returns how it ended. Here they are chosen, and their errors printed.

mod batches;
mod completions;
mod dashboard;
mod dead;
mod enqueue;
mod forget;
mod imgur_credits;
mod pause;
mod purge;
mod rejects;
mod results;
mod retention;
mod run;
mod shared_budget;
mod status;
mod wait;
mod workers;

use crate::cli::{Cli, Command};
use crate::view::style::{BAD, HINT, paint};
use common::error::QueueError;
use common::text::harmless_lines;
use program::settings::QueueArgs;
use program::telemetry::LogFormat;
use queue::{Patience, Queue};
use sources::SourceError;
use std::io::{self, Write};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// How a command ended, as the exit codes of the contract. Errors are apart, and so is 4: `--timeout` passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// 0.
    Done,
    /// 1: the command said why.
    CouldNot,
    /// 3: finished, but some jobs were not stored.
    NotAllStored,
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> ExitCode {
        ExitCode::from(match ended {
            Ended::Done => 0,
            Ended::CouldNot => 1,
            Ended::NotAllStored => 3,
        })
    }
}

/// A command could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file or process could not be used.
    #[error("{doing}: {source}")]
    System { doing: String, source: io::Error },
    /// Anything that has a message and a remedy.
    #[error("{message}")]
    Other { message: String, hint: String, code: u8 },
}

impl CommandError {
    fn hint(&self) -> Option<String> {
        match self {
            CommandError::Queue(error) => error.hint(),
            CommandError::Source(error) => error.hint(),
            CommandError::System { source, .. } => what_to_do_about(source).map(str::to_owned),
            CommandError::Other { hint, .. } => Some(hint.clone()),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            CommandError::Source(error) => error.exit_code(),
            CommandError::Other { code, .. } => *code,
            CommandError::Queue(_) | CommandError::System { .. } => 1,
        }
    }

    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> CommandError {
        let doing = doing.into();
        move |source| CommandError::System { doing, source }
    }

    /// Standard output that nobody reads any more (`producer results | head`) is no error to talk about.
    fn is_closed_pipe(&self) -> bool {
        matches!(self, CommandError::System { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// What helps against an error of the system, where something is known.
fn what_to_do_about(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Some("make its folder first, or name another place"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Some("name a place that you may write to")
        }
        io::ErrorKind::IsADirectory => Some("name a file, not a folder"),
        io::ErrorKind::AlreadyExists => Some("a file has that name: move it away, or name another place"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("make room on the disk, and run it again"),
        _ => None,
    }
}

/// Runs the command and prints its error, if any, with the remedy on a line of its own.
pub(crate) fn main(cli: Cli) -> ExitCode {
    let log_format = cli.queue.log_format;
    program::telemetry::init("warn", log_format);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            log_format.fatal(&format!("cannot start the runtime: {error}"), None);
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(dispatch(cli)) {
        Ok(ended) => ended.into(),
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            complain(log_format, &error.to_string(), error.hint().as_deref());
            ExitCode::from(error.exit_code())
        }
    }
}

/// Says what went wrong and what to do about it. Names in it come from lists, servers and other people's jobs.
fn complain(log_format: LogFormat, error: &str, hint: Option<&str>) {
    let error = harmless_lines(error);
    match (log_format, hint.map(harmless_lines)) {
        (LogFormat::Json, hint) => log_format.fatal(&error, hint.as_deref()),
        (LogFormat::Text, hint) => {
            anstream::eprintln!("{} {error}", paint(BAD, "error:"));
            if let Some(hint) = hint {
                anstream::eprintln!("{} {hint}", paint(HINT, "hint:"));
            }
        }
    }
}

async fn dispatch(cli: Cli) -> Result<Ended, CommandError> {
    let Cli { queue, command } = cli;
    match command {
        Command::Enqueue(args) => enqueue::enqueue(&queue, args).await,
        Command::Forget(args) => forget::forget(&queue, *args).await,
        Command::ImgurCredits(args) => imgur_credits::imgur_credits(&queue, &args).await,
        Command::Run(args) => run::run(&queue, *args).await,
        Command::Wait(args) => wait::wait(&queue, args).await,
        Command::Status(args) if args.watch => status::status(&open_to_stay(&queue).await?, &args).await,
        Command::Status(args) => status::status(&open(&queue).await?, &args).await,
        Command::Results(args) if args.follow => results::results(&open_to_stay(&queue).await?, args).await,
        Command::Results(args) => results::results(&open(&queue).await?, args).await,
        Command::Dead(args) => dead::dead(&open(&queue).await?, args.action).await,
        Command::Workers(args) => workers::workers(&open(&queue).await?, &args).await,
        Command::Batches(args) => batches::batches(&open(&queue).await?, &args).await,
        Command::Purge(args) => purge::purge(&open(&queue).await?, &args).await,
        Command::Retention(args) => retention::retention(&open(&queue).await?, &args).await,
        Command::Dashboard(args) => dashboard::dashboard(&queue, args).await,
        Command::Pause => pause::set_paused(&open(&queue).await?, true).await,
        Command::Resume => pause::set_paused(&open(&queue).await?, false).await,
        Command::Completions { shell } => completions::completions(shell),
    }
}

async fn open(args: &QueueArgs) -> Result<Queue, CommandError> {
    Ok(Queue::open(args.redis_url(), &args.queue).await?)
}

/// For those who wait or follow: a server that is there and still reads its data is waited for, with a word. Where none answers,
/// the address may be wrong.
async fn open_patiently(url: &str, name: &str, mut patience: Patience) -> Result<Queue, CommandError> {
    let mut is_there = false;
    loop {
        match Queue::open(url, name).await {
            Ok(queue) => return Ok(queue),
            Err(error) => {
                is_there |= matches!(error, QueueError::NotNow { .. });
                // One that is there may not answer in time while it reads.
                if !is_there {
                    return Err(error.into());
                }
                wait_out(&mut patience, error).await?;
            }
        }
    }
}

/// The same for as long as it takes.
async fn open_to_stay(args: &QueueArgs) -> Result<Queue, CommandError> {
    open_patiently(args.redis_url(), &args.queue, Patience::endless()).await
}

/// Waits a moment after an error that passes, with a word about it on standard error. The error itself when it does not.
async fn wait_out(patience: &mut Patience, error: QueueError) -> Result<(), CommandError> {
    let Some(wait) = patience.next_wait(&error) else { return Err(error.into()) };
    if let Some(word) = patience.word(&error) {
        eprintln!("{word}");
    }
    tokio::select! {
        () = tokio::time::sleep(wait) => Ok(()),
        () = told_to_stop() => Err(CommandError::Other {
            message: "told to stop while it waited for Redis".into(),
            hint: "the same command waits again".into(),
            code: 1,
        }),
    }
}

/// Somebody asks this process to end before it has begun to listen to that. The system ends it by itself, unless it is the first one,
/// as in a container: to that, signals mean nothing that it does not listen to.
async fn told_to_stop() {
    // Asked first: who listens once has to do so for good.
    if std::process::id() != 1 {
        return std::future::pending().await;
    }
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}

/// Prints a line to standard output; colours in it only where they are wanted.
fn print(line: &str) -> Result<(), CommandError> {
    write(&format!("{line}\n"))
}

/// The same without an end of line.
fn write(text: &str) -> Result<(), CommandError> {
    write!(anstream::stdout().lock(), "{text}").map_err(CommandError::system("cannot write to standard output"))
}

/// Prints facts as JSON.
fn print_json(facts: &impl serde::Serialize) -> Result<(), CommandError> {
    print(&json(facts)?)
}

/// Facts as JSON.
fn json(facts: &impl serde::Serialize) -> Result<String, CommandError> {
    serde_json::to_string(facts).map_err(|error| CommandError::system("cannot write JSON")(io::Error::other(error)))
}
