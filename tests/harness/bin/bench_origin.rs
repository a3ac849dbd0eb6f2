//! `bench-origin`: an origin for what nginx cannot do in `scripts/bench.sh`: answer late, and never finish. It is measured
//! beside the worker on the same cores, so it does next to nothing: one thread, one read and one write for a request.
//!
//! `/delay/MS/N.gif` answers after MS milliseconds, `/stall/N.gif` sends half a body and no more, `/stats` tells how many answers
//! were delayed, and by how many microseconds together. N is in the file, so that no two are the same. Ends with its standard input.

use clap::Parser;
use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An origin that answers late, or never to the end. Prints its port when it listens.
#[derive(Parser)]
#[command(name = "bench-origin")]
struct Arguments {
    /// Length of every file
    #[arg(long, default_value_t = 3800)]
    bytes: usize,
}

/// What was delayed.
#[derive(Default)]
struct Stats {
    answers: Cell<u64>,
    delayed_us: Cell<u64>,
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(arguments.bytes.max(64)))
}

async fn serve(bytes: usize) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    let (over, mut is_over) = tokio::sync::oneshot::channel();
    // The runtime's own standard input would keep the process alive until a line came.
    let _watcher = std::thread::spawn(move || {
        let ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        over.send(ended.is_ok())
    });
    let stats = Rc::new(Stats::default());
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                connections.spawn_local(answer(stream, bytes, Rc::clone(&stats)));
            }
            // What a connection ended with is the client's business.
            Some(_) = connections.join_next() => {}
            _ = &mut is_over => return Ok(()),
        }
    }
}

/// Answers the requests of one connection, one after the other.
async fn answer(mut stream: TcpStream, bytes: usize, stats: Rc<Stats>) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(2048);
    let mut reply = Vec::with_capacity(bytes + 256);
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let arrived = Instant::now();
        let head = String::from_utf8_lossy(&request);
        let path: Vec<&str> = head.split(' ').nth(1).unwrap_or_default().split('/').skip(1).collect();
        reply.clear();
        match path[..] {
            ["delay", ms, name] => {
                write_file(&mut reply, bytes, name);
                // The runtime's timers fire at the next whole millisecond: half of one less, and the mean is what was asked for.
                let delay = Duration::from_millis(ms.parse().unwrap_or(0));
                tokio::time::sleep(delay.saturating_sub(Duration::from_micros(500))).await;
                stream.write_all(&reply).await?;
                stats.answers.set(stats.answers.get() + 1);
                stats.delayed_us.set(stats.delayed_us.get() + arrived.elapsed().as_micros() as u64);
            }
            ["stall", name] => {
                write_file(&mut reply, bytes, name);
                stream.write_all(&reply[..reply.len() - bytes / 2]).await?;
                // Until the client has had enough.
                while stream.read(&mut [0; 64]).await? > 0 {}
                return Ok(());
            }
            _ => {
                let text = format!("{} {}", stats.answers.get(), stats.delayed_us.get());
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
                stream.write_all((head + &text).as_bytes()).await?;
            }
        }
    }
}

/// The answer with a file: the head of a GIF, the number that its name begins with, filling, and the end of a GIF.
fn write_file(reply: &mut Vec<u8>, bytes: usize, name: &str) {
    let number: u64 = name.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: image/gif\r\ncontent-length: {bytes}\r\n\r\n");
    reply.extend_from_slice(head.as_bytes());
    let start = reply.len();
    reply.extend_from_slice(b"GIF89a\x20\0\x10\0\0\0\0");
    reply.extend_from_slice(&number.to_le_bytes());
    reply.resize(start + bytes - 1, b'.');
    reply.push(b';');
}
