//! Log lines on standard error, for people or for programs. `RUST_LOG` chooses what is shown; nothing is logged that holds a
//! password.

use clap::ValueEnum;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object each, for programs.
    Json,
}

impl LogFormat {
    /// As `--log-format` takes it.
    pub fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }

    /// Says why a program ends, and what to do about it: as two lines for people, or as one log line.
    pub fn fatal(self, error: &str, hint: Option<&str>) {
        match (self, hint) {
            (LogFormat::Text, _) => {
                eprintln!("error: {error}");
                if let Some(hint) = hint {
                    eprintln!("hint: {hint}");
                }
            }
            (LogFormat::Json, Some(hint)) => tracing::error!(hint, "{error}"),
            (LogFormat::Json, None) => tracing::error!("{error}"),
        }
    }
}

/// Starts logging, once per process. `default_filter` applies where `RUST_LOG` is unset, empty or unreadable.
pub fn init(default_filter: &str, format: LogFormat) {
    let filter = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty())
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(default_filter));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second call in one process (tests) changes nothing.
    let _ = match format {
        LogFormat::Text => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            builder.with_ansi(std::io::stderr().is_terminal() && !no_color).try_init()
        }
        LogFormat::Json => {
            // A panic is told like everything else: whoever reads the lines cannot read anything between them.
            std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
        }
    };
}
