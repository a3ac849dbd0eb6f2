//! Arguments of all commands. A command's own file says what it does with them.

use crate::sources::{Format, Pages};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use common::job::BatchId;
use common::media::MediaTypes;
use common::settings::{QueueArgs, empty_variables_are_unset, parse_duration, parse_storage};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// Turns Imgur galleries, albums and lists of links into jobs for any number of workers.
#[derive(Debug, Parser)]
#[command(name = "producer", version, max_term_width = 100, propagate_version = true, args_override_self = true)]
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
    #[command(
        after_help = "Examples:\n  producer run links.txt\n  producer run imgur:random --pages 2 --workers 4 --storage ./pictures"
    )]
    Run(Box<RunArgs>),
    /// Forget links, so that they can be enqueued again
    #[command(
        after_help = "Examples:\n  producer forget https://example.com/1.jpg\n  producer forget links.csv.gz\n  producer forget --all --yes"
    )]
    Forget(Box<ForgetArgs>),
    /// Show progress until a batch (or everything) is done, then the summary
    #[command(after_help = "Example:\n  producer wait 0123456789ab --timeout 10m")]
    Wait(WaitArgs),
    /// Show how deep the queue is and who works on it, or what became of a batch
    #[command(after_help = "Examples:\n  producer status --watch\n  producer status 0123456789ab")]
    Status(StatusArgs),
    /// Show what became of each job
    #[command(after_help = "Example:\n  producer results --outcome failed --format urls | producer enqueue -")]
    Results(ResultsArgs),
    /// Look at jobs that failed for good, try them again, or drop them
    #[command(after_help = "Example:\n  producer dead retry --reason timeout_total")]
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
    /// Let no worker claim anything until `resume`
    #[command(after_help = "Example:\n  producer pause")]
    Pause,
    /// Let workers claim again
    #[command(after_help = "Example:\n  producer resume")]
    Resume,
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  producer completions bash > ~/.local/share/bash-completion/completions/producer"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArgs {
    /// imgur:random, imgur:hot, imgur:top/week, imgur:user/NAME, imgur:r/SUB, imgur:t/TAG, imgur:search/WORDS,
    /// imgur:a/ID, a URL, a file of links (.txt .csv .tsv .json .jsonl .ndjson .parquet, each also .gz or .zst),
    /// list:https://… for such a file at a URL, or - for standard input  [default: imgur:random]
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
    /// Wait whenever more than N jobs would be ready, so that Redis holds no more of a list of any length
    #[arg(long, env = "IMGQ_MAX_READY", value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Sources")]
    pub(crate) max_ready: Option<u64>,
    /// What all lists are; otherwise their names tell, and standard input is text
    #[arg(long, value_name = "FORMAT", help_heading = "Lists")]
    pub(crate) list_format: Option<Format>,
    /// The column or key with the links: a name, in any case, or a number from 1  [default: the first of url, link,
    /// image_url, image, src, href and the like; or where the first row has a link]
    #[arg(long, value_name = "NAME", help_heading = "Lists")]
    pub(crate) url_column: Option<String>,
    /// The column or key with the SHA-256 that each image must have  [default: sha256, where there is one]
    #[arg(long, value_name = "NAME", help_heading = "Lists")]
    pub(crate) hash_column: Option<String>,
    /// Write bad lines to this file, as JSON lines that can be mended and enqueued
    #[arg(long, value_name = "FILE", help_heading = "Lists")]
    pub(crate) rejects: Option<PathBuf>,
    /// End with code 1 when a line was no usable link
    #[arg(long, help_heading = "Sources")]
    pub(crate) strict: bool,
    /// Types to take from Imgur, and to store: jpeg,png,gif,webp,avif,mp4,webm
    #[arg(long, env = "IMGQ_TYPES", value_name = "LIST", default_value_t = MediaTypes::default(), help_heading = "Sources")]
    pub(crate) types: MediaTypes,
    /// Imgur's client id
    #[arg(long, env = "IMGUR_CLIENT_ID", hide_env_values = true, value_name = "ID", help_heading = "Sources")]
    pub(crate) client_id: Option<String>,
    /// What the producer calls itself
    #[arg(long, env = "IMGQ_USER_AGENT", value_name = "TEXT", default_value = common::settings::USER_AGENT, help_heading = "Sources")]
    pub(crate) user_agent: String,
}

#[derive(Debug, Args)]
pub(crate) struct EnqueueArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Print one JSON object instead of a sentence
    #[arg(long)]
    pub(crate) json: bool,
    /// Wait until the jobs are safe: on Redis' disk (WAITAOF), and on a replica if there is one
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
    #[arg(long, env = "IMGUR_CLIENT_ID", hide_env_values = true, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// What the producer calls itself
    #[arg(long, env = "IMGQ_USER_AGENT", value_name = "TEXT", default_value = common::settings::USER_AGENT)]
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
    /// The folder that pictures are stored in
    #[arg(long, env = "IMGQ_STORAGE", value_name = "DIR", default_value = "./images", value_parser = parse_storage, help_heading = "Workers")]
    pub(crate) storage: PathBuf,
    /// Where the private Redis keeps its data  [default: the storage's name with .imgq behind]
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

/// Settings of `worker` that `run` hands on; `worker --help` explains them, and the worker checks them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Handed on to the workers")]
pub(crate) struct WorkerFlags {
    /// mirror or hash
    #[arg(long, value_name = "LAYOUT")]
    pub(crate) layout: Option<String>,
    /// Downloads at once in one worker
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<String>,
    /// Downloads at once from one host in one worker
    #[arg(long, value_name = "N")]
    pub(crate) host_concurrency: Option<String>,
    /// Until a connection stands
    #[arg(long, value_name = "TIME")]
    pub(crate) connect_timeout: Option<String>,
    /// Until something arrives
    #[arg(long, value_name = "TIME")]
    pub(crate) idle_timeout: Option<String>,
    /// Until a download is done
    #[arg(long, value_name = "TIME")]
    pub(crate) total_timeout: Option<String>,
    /// The largest object
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_bytes: Option<String>,
    /// Tries before a job is dead
    #[arg(long, value_name = "N")]
    pub(crate) max_attempts: Option<String>,
    /// The first delay between tries
    #[arg(long, value_name = "TIME")]
    pub(crate) retry_delay: Option<String>,
    /// Networks that the address guard lets through
    #[arg(long, value_name = "CIDRS")]
    pub(crate) allow_networks: Option<String>,
    /// none, file or batch: make objects durable before they are reported
    #[arg(long, value_name = "HOW")]
    pub(crate) sync: Option<String>,
    /// How long downloads may go on after Ctrl-C
    #[arg(long, value_name = "TIME")]
    pub(crate) grace: Option<String>,
}

impl WorkerFlags {
    /// The flags that were given, as the worker takes them. Those that were not come from the environment, which a
    /// worker process inherits.
    pub(crate) fn as_arguments(&self) -> Vec<String> {
        [
            ("--layout", &self.layout),
            ("--concurrency", &self.concurrency),
            ("--host-concurrency", &self.host_concurrency),
            ("--connect-timeout", &self.connect_timeout),
            ("--idle-timeout", &self.idle_timeout),
            ("--total-timeout", &self.total_timeout),
            ("--max-bytes", &self.max_bytes),
            ("--max-attempts", &self.max_attempts),
            ("--retry-delay", &self.retry_delay),
            ("--allow-networks", &self.allow_networks),
            ("--sync", &self.sync),
            ("--grace", &self.grace),
        ]
        .into_iter()
        .filter_map(|(flag, value)| Some([flag.to_owned(), value.clone()?]))
        .flatten()
        .collect()
    }
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

#[derive(Debug, Args)]
pub(crate) struct ResultsArgs {
    /// How to print them
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: ResultsFormat,
    /// Only stored, rejected or failed
    #[arg(long, value_name = "OUTCOME", value_parser = ["stored", "rejected", "failed"])]
    pub(crate) outcome: Option<String>,
    /// Only this reason
    #[arg(long, value_name = "REASON")]
    pub(crate) reason: Option<String>,
    /// Only this batch
    #[arg(long, value_name = "BATCH")]
    pub(crate) batch: Option<BatchId>,
    /// Only those from then on: how long ago (2h), or a time in UTC (2026-01-31T08:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = parse_since, conflicts_with = "reader")]
    pub(crate) since: Option<Since>,
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
    #[arg(long, help_heading = "Readers", conflicts_with_all = ["reader", "follow", "output"])]
    pub(crate) list_readers: bool,
    /// Forget a reader: results no longer wait for it
    #[arg(long, value_name = "NAME", help_heading = "Readers", conflicts_with_all = ["reader", "follow", "output", "list_readers"])]
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
    /// Only this reason
    #[arg(long, value_name = "REASON")]
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
    empty_variables_are_unset(Cli::command())
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
