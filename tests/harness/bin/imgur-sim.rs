//! The Imgur simulator as a program, for the demo. Prints one line of JSON when it is ready: where API, pages and files are.

use clap::Parser;
use harness::imgur::{Config, Imgur};
use std::net::SocketAddr;
use std::time::Duration;

/// An Imgur that behaves like Imgur, on this machine.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What links in answers begin with  [default: the address it listens on]
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Another seed, another Imgur
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Pages of each gallery
    #[arg(long, value_name = "N", default_value_t = 5)]
    pages: usize,
    /// What the image host waits before it answers
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// API requests that a client has
    #[arg(long, value_name = "N", default_value_t = 500)]
    credits: i64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> std::io::Result<()> {
    let cli = Cli::parse();
    let config = Config {
        listen: cli.listen,
        public_url: cli.public_url,
        seed: cli.seed,
        pages: cli.pages,
        latency: cli.latency,
        credits: cli.credits,
        // Imgur removes pictures; the demo shows what becomes of their links.
        removed_every: 31,
        ..Config::default()
    };
    let imgur = Imgur::start_here(config).await?;
    println!(
        "{{\"api_url\":\"{}\",\"web_url\":\"{}\",\"image_url\":\"{}\"}}",
        imgur.api_url(),
        imgur.web_url(),
        imgur.image_url()
    );
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}
