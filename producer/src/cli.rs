//! Arguments of all commands. A command's own file says what it does with them.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use common::job::BatchId;
use common::media::MediaTypes;
use common::outcome::{Failure, Outcome, Rejection};
use program::listen::ListenAddress;
use program::settings::{QueueArgs, empty_variables_are_unset, parse_duration, parse_storage};
use queue::Keep;
use sources::{Format, Pages};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// The widest line of a help text, in characters.
const HELP_WIDTH: usize = 100;

/// Turns Imgur galleries, albums and lists of links into jobs for any number of workers.
#[derive(Debug, Parser)]
#[command(
    name = "producer",
    version,
    max_term_width = HELP_WIDTH,
    propagate_version = true,
    args_override_self = true,
    after_help = "Examples:\n  producer run links.txt                 everything on this machine\n  producer enqueue links.txt --wait      with workers that run elsewhere\n  producer status --watch"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Put links on the queue
    #[command(
        after_help = "Examples:\n  producer enqueue                                   a page of Imgur's random gallery\n  producer enqueue https://imgur.com/a/ID links.txt\n  producer enqueue photos.csv.gz --url-column image --rejects bad.jsonl\n  producer enqueue list:https://example.com/urls.parquet\n  grep -o 'https://[^\" ]*jpg' page.html | producer enqueue -"
    )]
    Enqueue(EnqueueArgs),
    /// Do everything on this machine: a private Redis, workers, wait, summary
    #[command(after_help = after_help_of_run())]
    Run(Box<RunArgs>),
    /// Forget links, so that they can be enqueued again
    #[command(
        after_help = "Examples:\n  producer forget https://example.com/1.jpg\n  producer forget links.csv.gz\n  producer forget --all --yes"
    )]
    Forget(Box<ForgetArgs>),
    /// Show progress until a batch (or everything) is done, then the summary
    #[command(after_help = "Examples:\n  producer wait\n  producer wait 0123456789ab --timeout 10m --json")]
    Wait(WaitArgs),
    /// Show how deep the queue is and who works on it, or what became of a batch
    #[command(after_help = "Examples:\n  producer status --watch\n  producer status 0123456789ab")]
    Status(StatusArgs),
    /// Show what became of each job
    #[command(
        after_help = "Examples:\n  producer results --latest --limit 20 --outcome failed\n  producer results --reason timeout_total --format urls | producer enqueue -\n  producer results --since 1day --format parquet --output results.parquet"
    )]
    Results(ResultsArgs),
    /// Look at jobs that failed for good, try them again, or drop them
    #[command(after_help = "Example:\n  producer dead retry --reason timeout_total --dry-run")]
    Dead(DeadArgs),
    /// Show who is alive
    #[command(after_help = "Example:\n  producer workers")]
    Workers(JsonArgs),
    /// Show the enqueues, the newest first, and how far each is
    #[command(after_help = "Example:\n  producer batches --limit 5")]
    Batches(BatchesArgs),
    /// Show what is left of Imgur's budgets, of this address and of the client id
    #[command(after_help = "Example:\n  IMGUR_CLIENT_ID=0123456789abcde producer imgur-credits")]
    ImgurCredits(ImgurCreditsArgs),
    /// Show the queue in a browser, and its numbers to Prometheus
    #[command(
        after_help = "Examples:\n  producer dashboard\n  IMGQ_DASHBOARD_TOKEN=$(openssl rand -hex 24) producer dashboard --listen :8080"
    )]
    Dashboard(DashboardArgs),
    /// Let no worker claim anything until `resume`
    #[command(after_help = "Example:\n  producer pause")]
    Pause,
    /// Let workers claim again
    #[command(after_help = "Example:\n  producer resume")]
    Resume,
    /// Remove the jobs that wait, ready and delayed; those in flight finish
    #[command(after_help = "Examples:\n  producer purge --dry-run\n  producer purge --dead --yes")]
    Purge(PurgeArgs),
    /// For how long what ended is kept: show it, or set it for this queue
    #[command(
        after_help = "A TIME is like 12h, 7d or 30d; always is for ever.\n\nExamples:\n  producer retention\n  producer retention --keep-results 7d --keep-dead 90d"
    )]
    Retention(RetentionArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  producer completions bash > ~/.local/share/bash-completion/completions/producer\n  producer completions zsh > ~/.zfunc/_producer\n  producer completions fish > ~/.config/fish/completions/producer.fish"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArgs {
    /// imgur:random, imgur:hot, imgur:top/week, imgur:user/NAME, imgur:r/SUB, imgur:t/TAG, imgur:search/WORDS,
    /// imgur:a/ID; a URL; a file of links (.txt .csv .tsv .json .jsonl .ndjson .parquet, each also .gz or .zst);
    /// list:https://… for one at a URL; - for standard input  [default: imgur:random]
    #[arg(value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,
    /// Pages of a gallery: a number, or all
    #[arg(long, value_name = "N", default_value = "1", help_heading = "Sources")]
    pub(crate) pages: Pages,
    /// Read only the first N links, duplicates included
    #[arg(long, value_name = "N", help_heading = "Sources")]
    pub(crate) limit: Option<u64>,
    /// Enqueue links that this queue has seen before
    #[arg(long, help_heading = "Sources")]
    pub(crate) no_dedup: bool,
    /// Wait while N jobs are ready
    #[arg(long, env = "IMGQ_MAX_READY", value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Sources")]
    pub(crate) max_ready: Option<u64>,
    /// txt, csv, tsv, json, jsonl or parquet  [default: as names end]
    #[arg(long, value_name = "FORMAT", help_heading = "Lists", hide_possible_values = true)]
    pub(crate) list_format: Option<Format>,
    /// Column or key of the links, or its number  [default: url, image, …]
    #[arg(long, value_name = "NAME", help_heading = "Lists")]
    pub(crate) url_column: Option<String>,
    /// Column or key of an image's SHA-256  [default: sha256]
    #[arg(long, value_name = "NAME", help_heading = "Lists")]
    pub(crate) hash_column: Option<String>,
    /// Write bad lines here, as JSON lines that can be mended and enqueued
    #[arg(long, value_name = "FILE", help_heading = "Lists")]
    pub(crate) rejects: Option<PathBuf>,
    /// End with code 1 when a line was no usable link
    #[arg(long, help_heading = "Sources")]
    pub(crate) strict: bool,
    /// Types to take from Imgur
    #[arg(long, env = "IMGQ_TYPES", value_name = "LIST", default_value_t = MediaTypes::default(), help_heading = "Sources")]
    pub(crate) types: MediaTypes,
    /// Imgur's client id
    #[arg(long, env = "IMGUR_CLIENT_ID", value_name = "ID", help_heading = "Sources")]
    pub(crate) client_id: Option<String>,
    /// What the producer calls itself
    #[arg(long, env = "IMGQ_USER_AGENT", value_name = "TEXT", default_value = program::settings::USER_AGENT, hide_default_value = true, help_heading = "Sources")]
    pub(crate) user_agent: String,
}

#[derive(Debug, Args)]
pub(crate) struct EnqueueArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Print one JSON object instead of a sentence
    #[arg(long)]
    pub(crate) json: bool,
    /// Wait until the jobs are on Redis' disk, and on a replica if there is one
    #[arg(long)]
    pub(crate) durable: bool,
    /// Wait until all of it is done, as `wait` does
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait: give up after this long (exit code 4)
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "wait")]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct ImgurCreditsArgs {
    /// Imgur's client id
    #[arg(long, env = "IMGUR_CLIENT_ID", value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// What the producer calls itself
    #[arg(long, env = "IMGQ_USER_AGENT", value_name = "TEXT", default_value = program::settings::USER_AGENT, hide_default_value = true)]
    pub(crate) user_agent: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Forget every link that the queue has seen
    #[arg(long, conflicts_with = "sources")]
    pub(crate) all: bool,
    /// With --all: that is meant
    #[arg(long, requires = "all")]
    pub(crate) yes: bool,
    /// Print one JSON object instead of a sentence
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Worker processes  [default: as many as cores]
    #[arg(long, env = "IMGQ_WORKERS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), help_heading = "Workers")]
    pub(crate) workers: Option<u32>,
    /// The folder of the pictures
    #[arg(long, env = "IMGQ_STORAGE", value_name = "DIR", default_value = "./images", value_parser = parse_storage, help_heading = "Workers")]
    pub(crate) storage: PathBuf,
    /// Data of its Redis  [default: beside the storage]
    #[arg(long, env = "IMGQ_DATA_DIR", value_name = "DIR", help_heading = "Workers")]
    pub(crate) data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) worker: WorkerFlags,
    /// Give up after this long (exit code 4)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Print one JSON object at the end
    #[arg(long)]
    pub(crate) json: bool,
}

/// Settings of `worker` that `run` hands on: each flag, what its value is called, and what it is for.
///
/// A value is a text here, which the worker reads and checks. That it knows each of these flags by this name, and calls the value so,
/// is tested against its `--help` (`tests/wire/help.rs`).
const WORKER_FLAGS: [(&str, &str, &str); 13] = [
    ("layout", "LAYOUT", "mirror or hash"),
    ("concurrency", "N", "Downloads at once in one worker"),
    ("host-concurrency", "N", "Downloads at once from one host in one worker"),
    ("host-rate", "RATE", "Requests to one host from all workers"),
    ("connect-timeout", "TIME", "Until a connection stands"),
    ("idle-timeout", "TIME", "Until something arrives"),
    ("total-timeout", "TIME", "Until a download is done"),
    ("max-bytes", "SIZE", "The largest object"),
    ("max-attempts", "N", "Tries before a job is dead"),
    ("retry-delay", "TIME", "The first delay between tries"),
    ("allow-networks", "CIDRS", "Networks that the address guard lets through"),
    ("sync", "HOW", "none, file or batch: make objects durable before they are reported"),
    ("grace", "TIME", "How long downloads may go on after Ctrl-C"),
];

/// Those of [`WORKER_FLAGS`] that were given, as the worker takes them. Those that were not come from the environment, which a
/// worker process inherits.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerFlags(Vec<String>);

impl WorkerFlags {
    /// Flags and their values in turn.
    pub(crate) fn as_arguments(&self) -> &[String] {
        &self.0
    }
}

impl Args for WorkerFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        // Hidden: with them `run --help` would fill two screens. It only names them.
        let arg = |(flag, value, help)| Arg::new(flag).long(flag).value_name(value).help(help).hide(true);
        command.args(WORKER_FLAGS.map(arg))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        WorkerFlags::augment_args(command)
    }
}

impl FromArgMatches for WorkerFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<WorkerFlags, clap::Error> {
        let given = WORKER_FLAGS.iter().filter_map(|(flag, ..)| {
            let value = matches.get_one::<String>(flag)?;
            Some([format!("--{flag}"), value.clone()])
        });
        Ok(WorkerFlags(given.flatten().collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = WorkerFlags::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What `run --help` ends with: their names, in lines that fit the help, and examples.
fn after_help_of_run() -> String {
    let mut lines = vec![String::new()];
    for (flag, ..) in WORKER_FLAGS {
        let word = format!(" --{flag}");
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < HELP_WIDTH => line.push_str(&word),
            _ => lines.push(word),
        }
    }
    format!(
        "Handed on to the workers (`worker --help` explains them):\n {}\n\nExamples:\n  producer run links.txt\n  \
         producer run imgur:random --pages 2 --workers 4 --storage ./pictures",
        lines.join("\n ")
    )
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// The batch, as `enqueue` printed it  [default: everything in the queue]
    #[arg(value_name = "BATCH")]
    pub(crate) batches: Vec<BatchId>,
    /// Give up after this long (exit code 4)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Print one JSON object at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BatchesArgs {
    /// How many
    #[arg(long, value_name = "N", default_value = "20")]
    pub(crate) limit: usize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// A batch, as `enqueue` printed it  [default: the whole queue]
    #[arg(value_name = "BATCH")]
    pub(crate) batch: Option<BatchId>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Show it again every second until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    /// That is meant
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) yes: bool,
    /// Only say how many it would be
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also drop the dead letters
    #[arg(long)]
    pub(crate) dead: bool,
    /// Also remove the results, unless a named reader has not taken them
    #[arg(long)]
    pub(crate) results: bool,
    /// Also forget the batches that are finished, however lately
    #[arg(long)]
    pub(crate) finished: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RetentionArgs {
    /// Batches, after they finished; 30 days where nobody said it
    #[arg(long, value_name = "TIME", value_parser = parse_keep)]
    pub(crate) keep_batches: Option<Keep>,
    /// Results; always, where nobody said it. What a named reader has not taken stays
    #[arg(long, value_name = "TIME", value_parser = parse_keep)]
    pub(crate) keep_results: Option<Keep>,
    /// Dead letters; always, where nobody said it
    #[arg(long, value_name = "TIME", value_parser = parse_keep)]
    pub(crate) keep_dead: Option<Keep>,
    /// What a named reader has not taken that stands still; 30 days where nobody said it
    #[arg(long, value_name = "TIME", value_parser = parse_keep)]
    pub(crate) keep_readers: Option<Keep>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Reads `7d` or `always`.
fn parse_keep(text: &str) -> Result<Keep, String> {
    match text {
        "always" => Ok(Keep::Always),
        _ => parse_duration(text).map(Keep::For).map_err(|_| {
            format!("\"{text}\" is no time to keep something for: write 12h, 7d or 30d, or always for ever")
        }),
    }
}

#[derive(Debug, Args)]
pub(crate) struct DashboardArgs {
    /// Where, as in 127.0.0.1:8080 or :8080 for every address (needs a token); port 0 takes a free one
    #[arg(long, env = "IMGQ_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: ListenAddress,
    /// The secret that people log in with, and that Prometheus sends; best through the variable
    #[arg(long, env = "IMGQ_DASHBOARD_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// The folder with the pictures, for thumbnails
    #[arg(long, env = "IMGQ_STORAGE", value_name = "DIR", default_value = "./images", value_parser = parse_storage)]
    pub(crate) storage: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResultsFormat {
    /// A line each, for people
    Table,
    /// A JSON object each
    Jsonl,
    /// Comma-separated values with a head
    Csv,
    /// A Parquet file, Zstandard inside
    Parquet,
    /// The links alone
    Urls,
}

/// From when on: so long ago by the Redis clock, or a time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Since {
    Ago(Duration),
    At(SystemTime),
}

impl Since {
    /// As ms since 1970, for a Redis whose clock says `now_ms`.
    pub(crate) fn as_ms(self, now_ms: u64) -> u64 {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match self {
            Since::Ago(ago) => now_ms.saturating_sub(ms(ago)),
            Since::At(time) => ms(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()),
        }
    }
}

/// Reads `2h` or `2026-01-31T08:00:00Z`.
fn parse_since(text: &str) -> Result<Since, String> {
    let at = humantime::parse_rfc3339_weak(text).map(Since::At);
    at.or_else(|_| parse_duration(text).map(Since::Ago))
        .map_err(|_| "wants how long ago (30m, 2h, 1day) or a time in UTC (2026-01-31T08:00:00Z)".to_owned())
}

/// Why jobs fail: a word that is none of these would silently find nothing.
fn failures() -> PossibleValuesParser {
    Failure::ALL.iter().map(|failure| failure.name()).collect::<Vec<_>>().into()
}

/// Every reason of a result.
fn any_reason() -> PossibleValuesParser {
    let rejections = Rejection::ALL.iter().map(|rejection| rejection.name());
    let failures = Failure::ALL.iter().map(|failure| failure.name());
    rejections.chain(failures).chain([Outcome::Stored { exists: true }.reason()]).collect::<Vec<_>>().into()
}

#[derive(Debug, Args)]
pub(crate) struct ResultsArgs {
    /// table, jsonl, csv, parquet, or urls: the links alone
    #[arg(long, value_name = "FORMAT", default_value = "table", hide_possible_values = true)]
    pub(crate) format: ResultsFormat,
    /// Only stored, rejected or failed
    #[arg(long, value_name = "OUTCOME", value_parser = ["stored", "rejected", "failed"], hide_possible_values = true)]
    pub(crate) outcome: Option<String>,
    /// Only this reason, as in gone or timeout_total
    #[arg(long, value_name = "REASON", value_parser = any_reason(), hide_possible_values = true)]
    pub(crate) reason: Option<String>,
    /// Only this batch
    #[arg(long, value_name = "BATCH")]
    pub(crate) batch: Option<BatchId>,
    /// Only those from then on: how long ago (2h), or a time in UTC (2026-01-31T08:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = parse_since, conflicts_with = "reader")]
    pub(crate) since: Option<Since>,
    /// Newest first
    #[arg(long, conflicts_with_all = ["follow", "reader"])]
    pub(crate) latest: bool,
    /// Only so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "reader")]
    pub(crate) limit: Option<u64>,
    /// Go on with new results until Ctrl-C
    #[arg(long)]
    pub(crate) follow: bool,
    /// Write to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Read on where the reader of this name stopped, and remember it; --output appends
    #[arg(long, value_name = "NAME", help_heading = "Readers")]
    pub(crate) reader: Option<String>,
    /// Show the readers, and how far behind they are
    #[arg(long, help_heading = "Readers", conflicts_with_all = ["reader", "follow", "output", "latest", "limit"])]
    pub(crate) list_readers: bool,
    /// Forget a reader: results no longer wait for it
    #[arg(long, value_name = "NAME", help_heading = "Readers", conflicts_with_all = ["reader", "follow", "output", "latest", "limit", "list_readers"])]
    pub(crate) drop_reader: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DeadArgs {
    #[command(subcommand)]
    pub(crate) action: DeadCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// Show them, oldest first
    #[command(after_help = "Example:\n  producer dead list --host i.imgur.com --since 2h")]
    List(DeadFilter),
    /// Put them back on the queue, all attempts unspent
    #[command(after_help = "Example:\n  producer dead retry --host i.imgur.com --since 2h --dry-run")]
    Retry(DeadChange),
    /// Throw them away; their results stay
    #[command(after_help = "Example:\n  producer dead drop --reason dns --before 7days")]
    Drop(DeadChange),
}

#[derive(Debug, Args)]
pub(crate) struct DeadChange {
    #[command(flatten)]
    pub(crate) filter: DeadFilter,
    /// Only say how many it would be
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeadFilter {
    /// Only this reason, as in timeout_total or http_5xx
    #[arg(long, value_name = "REASON", value_parser = failures(), hide_possible_values = true)]
    pub(crate) reason: Option<String>,
    /// Only this job
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Only links of this host; host:port for one port of it
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Only those that failed before that: how long ago (2h), or a time in UTC (2026-01-31T08:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub(crate) before: Option<Since>,
    /// Only those that failed from then on
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub(crate) since: Option<Since>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The command of this program, with empty variables counting as unset.
pub(crate) fn command() -> clap::Command {
    // It takes the sources of `enqueue`, and some of their flags mean nothing to it.
    let forget = |forget: clap::Command| {
        ["no_dedup", "max_ready", "rejects", "hash_column"]
            .into_iter()
            .fold(forget, |forget, flag| forget.mut_arg(flag, |arg| arg.hide(true)))
    };
    empty_variables_are_unset(Cli::command().mut_subcommand("forget", forget))
}

/// Reads the command line and the environment; ends the process with code 2 and a message when they make no sense.
pub(crate) fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        command().debug_assert();
    }
}
