//! Arguments, read low and turned once into a checked configuration.

use clap::builder::BoolishValueParser;
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use common::host::HostRate;
use common::media::MediaTypes;
use common::retry::RetryPolicy;
use ipnet::IpNet;
use program::listen::ListenAddress;
use program::settings::{QueueArgs, empty_variables_are_unset, parse_duration, parse_size, parse_storage};
use program::telemetry::LogFormat;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use common::media::Dimensions;
use content::Verify;
use content::parse_dimensions;
use storage::SyncPolicy;
use storage::layout::Layout;

/// Downloads the jobs of a queue into storage. Start as many as you like, wherever you like.
#[derive(Debug, Parser)]
#[command(
    name = "worker",
    version,
    max_term_width = 100,
    args_override_self = true,
    after_help = "Example:\n  worker --redis-url redis://queue.example:6379/0 --storage /mnt/images --concurrency 128"
)]
struct Cli {
    #[command(flatten)]
    queue: QueueArgs,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    download: DownloadArgs,
    #[command(flatten)]
    content: ContentArgs,
    #[command(flatten)]
    process: ProcessArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Storage")]
struct StorageArgs {
    /// The folder of the objects
    #[arg(long, env = "IMGQ_STORAGE", value_name = "DIR", default_value = "./images", value_parser = parse_storage)]
    storage: PathBuf,
    /// mirror: host/path as in the URL; hash: ab/cd/DIGEST.jpg, for millions
    #[arg(long, env = "IMGQ_LAYOUT", default_value = "mirror", hide_possible_values = true)]
    layout: Layout,
    /// Types to store; also mp4,webm
    #[arg(long, env = "IMGQ_TYPES", value_name = "LIST", default_value_t = MediaTypes::default())]
    types: MediaTypes,
    /// The largest object
    #[arg(long, env = "IMGQ_MAX_BYTES", value_name = "SIZE", default_value = "100MB", value_parser = parse_size)]
    max_bytes: u64,
    /// Objects are durable when they are reported: none, file, batch
    #[arg(long, env = "IMGQ_SYNC", value_name = "HOW", default_value = "none", hide_possible_values = true)]
    sync: SyncPolicy,
    /// Claim nothing with so many results that a reader has not taken
    #[arg(long, env = "IMGQ_RESULTS_MAX", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    results_max: Option<u64>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Downloads")]
struct DownloadArgs {
    /// Downloads at once
    #[arg(long, env = "IMGQ_CONCURRENCY", value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=2000))]
    concurrency: u32,
    /// Downloads at once from a host
    #[arg(long, env = "IMGQ_HOST_CONCURRENCY", value_name = "N", default_value = "16", value_parser = clap::value_parser!(u32).range(1..=2000))]
    host_concurrency: u32,
    /// To one host from the whole fleet: 40/s, 90/m
    #[arg(long, env = "IMGQ_HOST_RATE", value_name = "RATE")]
    host_rate: Option<HostRate>,
    /// Until a connection stands
    #[arg(long, env = "IMGQ_CONNECT_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    connect_timeout: Duration,
    /// Until something arrives
    #[arg(long, env = "IMGQ_IDLE_TIMEOUT", value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    idle_timeout: Duration,
    /// Until a download is done
    #[arg(long, env = "IMGQ_TOTAL_TIMEOUT", value_name = "TIME", default_value = "120s", value_parser = parse_duration)]
    total_timeout: Duration,
    /// Tries before a job is dead
    #[arg(long, env = "IMGQ_MAX_ATTEMPTS", value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_attempts: u32,
    /// First delay between tries, doubling to 5m
    #[arg(long, env = "IMGQ_RETRY_DELAY", value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    retry_delay: Duration,
    /// Private networks to allow, as in 10.0.0.0/8
    #[arg(long, env = "IMGQ_ALLOW_NETWORKS", value_name = "CIDRS", default_value = "", hide_default_value = true, value_parser = parse_networks)]
    allow_networks: Networks,
    /// Go through HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY; the address guard does not see then what names in links
    /// stand for
    #[arg(long, env = "IMGQ_PROXY_FROM_ENVIRONMENT", value_parser = BoolishValueParser::new())]
    proxy_from_environment: bool,
    /// What the worker calls itself
    #[arg(long, env = "IMGQ_USER_AGENT", value_name = "TEXT", default_value = program::settings::USER_AGENT, hide_default_value = true)]
    user_agent: String,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Content")]
struct ContentArgs {
    /// The smallest image, as in 256x256  [default: any]
    #[arg(long, env = "IMGQ_MIN_SIZE", value_name = "WxH", value_parser = parse_dimensions)]
    min_size: Option<Dimensions>,
    /// The smallest object  [default: any]
    #[arg(long, env = "IMGQ_MIN_BYTES", value_name = "SIZE", value_parser = parse_size)]
    min_bytes: Option<u64>,
    /// How closely images are looked at: header, or decode (all of it)
    #[arg(long, env = "IMGQ_VERIFY", value_name = "HOW", default_value = "header", hide_possible_values = true)]
    verify: Verify,
    /// More placeholders of removed images than are known
    #[arg(long, env = "IMGQ_PLACEHOLDERS", value_name = "FILE")]
    placeholders: Option<PathBuf>,
    /// Obey noai, noimageai, noindex, noimageindex and none in X-Robots-Tag
    #[arg(long, env = "IMGQ_RESPECT_ROBOTS", value_parser = BoolishValueParser::new())]
    respect_robots: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Process")]
struct ProcessArgs {
    /// How long downloads may go on after SIGTERM
    #[arg(long, env = "IMGQ_GRACE", value_name = "TIME", default_value = "25s", value_parser = parse_duration)]
    grace: Duration,
    /// Serve /metrics, /readyz and /healthz, as in :9100  [default: off]
    #[arg(long, env = "IMGQ_METRICS", value_name = "ADDR")]
    metrics: Option<ListenAddress>,
    /// Stop, as on SIGTERM, when standard input closes: whoever started this worker is gone
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

#[derive(Debug, Clone)]
struct Networks(Vec<IpNet>);

/// Empty parts are skipped: lists are put together out of variables that may be empty.
fn parse_networks(list: &str) -> Result<Networks, String> {
    let parse = |part: &str| {
        let address = |_| part.parse::<IpAddr>().map(IpNet::from);
        part.parse::<IpNet>()
            .or_else(address)
            .map_err(|_| format!("\"{part}\" is not a network: write 10.0.0.0/8, fd00::/8 or one address"))
    };
    list.split(',').map(str::trim).filter(|part| !part.is_empty()).map(parse).collect::<Result<_, _>>().map(Networks)
}

/// Everything a worker needs to know, checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) redis_url: String,
    pub(crate) queue: String,
    pub(crate) log_format: LogFormat,
    pub(crate) storage: PathBuf,
    pub(crate) layout: Layout,
    pub(crate) types: MediaTypes,
    pub(crate) body_bytes_max: u64,
    pub(crate) sync: SyncPolicy,
    pub(crate) results_max: Option<u64>,
    pub(crate) concurrency: usize,
    pub(crate) host_concurrency: usize,
    pub(crate) host_rate: Option<HostRate>,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) total_timeout: Duration,
    pub(crate) retry: RetryPolicy,
    pub(crate) allow_networks: Vec<IpNet>,
    pub(crate) proxy_from_environment: bool,
    pub(crate) user_agent: String,
    pub(crate) min_size: Option<Dimensions>,
    /// 0 for any.
    pub(crate) min_bytes: u64,
    pub(crate) verify: Verify,
    pub(crate) placeholders: Option<PathBuf>,
    pub(crate) respect_robots: bool,
    pub(crate) grace: Duration,
    pub(crate) metrics: Option<ListenAddress>,
    pub(crate) exit_with_stdin: bool,
}

impl Config {
    /// Reads the command line and the environment; ends the process with code 2 and a message when they make no sense.
    pub(crate) fn from_command_line() -> Config {
        let matches = empty_variables_are_unset(Cli::command()).get_matches();
        Config::from(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()))
    }

    /// What these arguments alone make of it, for unit tests.
    #[cfg(test)]
    pub(crate) fn of(arguments: &[&str]) -> Config {
        let without_environment = Cli::command().mut_args(|arg| arg.env(None::<&str>));
        let matches = without_environment.get_matches_from([&["worker"], arguments].concat());
        Config::from(Cli::from_arg_matches(&matches).expect("arguments that make sense"))
    }
}

impl From<Cli> for Config {
    fn from(cli: Cli) -> Config {
        Config {
            redis_url: cli.queue.redis_url().to_owned(),
            queue: cli.queue.queue,
            log_format: cli.queue.log_format,
            storage: cli.storage.storage,
            layout: cli.storage.layout,
            types: cli.storage.types,
            body_bytes_max: cli.storage.max_bytes,
            sync: cli.storage.sync,
            results_max: cli.storage.results_max,
            concurrency: cli.download.concurrency as usize,
            host_concurrency: cli.download.host_concurrency as usize,
            host_rate: cli.download.host_rate,
            connect_timeout: cli.download.connect_timeout,
            idle_timeout: cli.download.idle_timeout,
            total_timeout: cli.download.total_timeout,
            retry: RetryPolicy { max_attempts: cli.download.max_attempts, delay: cli.download.retry_delay },
            allow_networks: cli.download.allow_networks.0,
            proxy_from_environment: cli.download.proxy_from_environment,
            user_agent: cli.download.user_agent,
            min_size: cli.content.min_size,
            min_bytes: cli.content.min_bytes.unwrap_or(0),
            verify: cli.content.verify,
            placeholders: cli.content.placeholders,
            respect_robots: cli.content.respect_robots,
            grace: cli.process.grace,
            metrics: cli.process.metrics,
            exit_with_stdin: cli.process.exit_with_stdin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn networks_are_read_with_empty_parts_skipped() {
        let read = |text: &str| parse_networks(text).map(|networks| networks.0.len());
        assert_eq!((read(""), read("10.0.0.0/8,"), read("127.0.0.1, fd00::/8")), (Ok(0), Ok(1), Ok(2)));
        assert!(read("10.0.0.0/8,home").is_err_and(|why| why.contains("home")));
    }
}
