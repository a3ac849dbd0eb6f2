//! Log lines on standard error. `RUST_LOG` chooses what is shown; nothing is logged that holds a password.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging, once per process. `default_filter` applies where `RUST_LOG` is unset, empty or unreadable.
pub fn init(default_filter: &str) {
    let filter = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty())
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(default_filter));
    // A second call in one process (tests) changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()))
        .with_target(false)
        .try_init();
}
