//! The commands: a file each, a function that returns how it ended. Here they are chosen, and their errors printed.

mod batches;
mod completions;
mod dead;
mod enqueue;
mod forget;
mod imgur_credits;
mod pause;
mod rejects;
mod results;
mod run;
mod status;
mod wait;
mod workers;

use crate::cli::{Cli, Command};
use crate::sources::SourceError;
use common::error::QueueError;
use common::queue::Queue;
use common::settings::QueueArgs;
use std::io::{self, Write};
use std::process::ExitCode;

/// How a command ended, as the exit codes of the contract. Errors are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// 0.
    Done,
    /// 1: the command said why.
    CouldNot,
    /// 3: finished, but some jobs were not stored.
    NotAllStored,
    /// 4: `--timeout` passed.
    TimedOut,
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> ExitCode {
        ExitCode::from(match ended {
            Ended::Done => 0,
            Ended::CouldNot => 1,
            Ended::NotAllStored => 3,
            Ended::TimedOut => 4,
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
            CommandError::System { .. } => None,
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

/// Runs the command and prints its error, if any, with the remedy on a line of its own.
pub(crate) fn main(cli: Cli) -> ExitCode {
    common::telemetry::init("warn");
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(dispatch(cli)) {
        Ok(ended) => ended.into(),
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(error.exit_code())
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
        Command::Wait(args) => wait::wait(&open(&queue).await?, args).await,
        Command::Status(args) => status::status(&open(&queue).await?, &args).await,
        Command::Results(args) => results::results(&open(&queue).await?, args).await,
        Command::Dead(args) => dead::dead(&open(&queue).await?, args.action).await,
        Command::Workers(args) => workers::workers(&open(&queue).await?, &args).await,
        Command::Batches(args) => batches::batches(&open(&queue).await?, &args).await,
        Command::Pause => pause::set_paused(&open(&queue).await?, true).await,
        Command::Resume => pause::set_paused(&open(&queue).await?, false).await,
        Command::Completions { shell } => completions::completions(shell),
    }
}

async fn open(args: &QueueArgs) -> Result<Queue, CommandError> {
    Ok(Queue::open(args.redis_url(), &args.queue).await?)
}

/// Prints a line to standard output.
fn print(line: &str) -> Result<(), CommandError> {
    writeln!(io::stdout().lock(), "{line}").map_err(CommandError::system("cannot write to standard output"))
}

/// Prints facts as JSON.
fn print_json(facts: &impl serde::Serialize) -> Result<(), CommandError> {
    let text = serde_json::to_string(facts)
        .map_err(|error| CommandError::system("cannot write JSON")(io::Error::other(error)))?;
    print(&text)
}
