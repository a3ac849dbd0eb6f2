//! Settings that both programs share, and how durations and sizes are written.

use crate::telemetry::LogFormat;
use clap::{Args, Command};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The default of `--redis-url`.
pub const DEFAULT_REDIS_URL: &str = "redis://127.0.0.1:6379/0";

/// What the programs call themselves to servers: a name, a version, and where to complain.
pub const USER_AGENT: &str =
    concat!("imgq/", env!("CARGO_PKG_VERSION"), " (image downloader; +complaints to the operator of this address)");

/// Where the queue is.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct QueueArgs {
    /// Where Redis is  [default: redis://127.0.0.1:6379/0]
    #[arg(long, env = "REDIS_URL", value_name = "URL", global = true, help_heading = "Queue and log")]
    pub redis_url: Option<String>,
    /// The queue's name
    #[arg(
        long,
        env = "IMGQ_QUEUE",
        value_name = "NAME",
        default_value = "default",
        global = true,
        help_heading = "Queue and log"
    )]
    pub queue: String,
    /// Log lines as text or json
    #[arg(
        long,
        env = "IMGQ_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        hide_possible_values = true,
        global = true,
        help_heading = "Queue and log"
    )]
    pub log_format: LogFormat,
}

impl QueueArgs {
    /// The URL, or its default.
    pub fn redis_url(&self) -> &str {
        self.redis_url.as_deref().unwrap_or(DEFAULT_REDIS_URL)
    }
}

/// Makes every variable that is set but empty count as unset, in a command and all below it. What variables are set to is not
/// shown by `--help`: some are secrets, and lines are short.
pub fn empty_variables_are_unset(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let empty = arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
        let arg = arg.hide_env_values(true);
        if empty { arg.env(None::<&str>) } else { arg }
    });
    command.mut_subcommands(empty_variables_are_unset)
}

/// Reads `200ms`, `5s`, `2m`; zero and a bare number are refused.
///
/// # Errors
/// A sentence that names the input and shows the right form.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        Ok(_) => Err(format!("\"{text}\" is no time at all: give more than zero, as in 200ms, 5s or 2m")),
        Err(error) => Err(format!("\"{text}\" is not a duration ({error}): write 200ms, 5s or 2m")),
    }
}

/// Reads `20MB`, `64MiB` or a number of bytes; zero is refused.
///
/// # Errors
/// A sentence that names the input and shows the right form.
pub fn parse_size(text: &str) -> Result<u64, String> {
    match bytesize::ByteSize::from_str(text) {
        Ok(size) if size.as_u64() > 0 => Ok(size.as_u64()),
        Ok(_) => Err(format!("\"{text}\" is no size: give more than zero, as in 20MB or 64MiB")),
        Err(error) => Err(format!("\"{text}\" is not a size ({error}): write 20MB or 64MiB")),
    }
}

/// Reads the storage: a folder.
///
/// # Errors
/// For a URL, which would otherwise become a folder of that name.
pub fn parse_storage(text: &str) -> Result<PathBuf, String> {
    if text.contains("://") {
        return Err(format!(
            "\"{text}\" is no folder, and this version stores in folders only: mount it, and name the mount"
        ));
    }
    Ok(PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        assert_eq!(parse_duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_size("20MB"), Ok(20_000_000));
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("512"), Ok(512));
        assert!(parse_storage("s3://bucket/prefix").is_err());
        assert_eq!(parse_storage("./images"), Ok(PathBuf::from("./images")));
        for bad in ["", "5", "0s", "soon"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "0", "big", "-1MB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
