//! A fault proxy: stands between a program and its Redis, and does what networks do.
//!
//! It passes bytes and knows nothing of the protocol. One thing it needs to know of Redis: a reply that it throws away is
//! one whose command has run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// What the network does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Passes everything at once.
    Good,
    /// Passes every piece this much later.
    Slow(Duration),
    /// Passes nothing, and everything once it is good again: a command may run long after its caller gave up.
    Stalled,
    /// Passes nothing and never will on connections that are open now or are opened meanwhile: the peer is gone without a
    /// word.
    HalfOpen,
}

/// More than a status and a few numbers.
const LONG_REPLY_BYTES: usize = 100;

/// Where the proxy leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// A Unix socket.
    Unix(PathBuf),
    /// An address.
    Tcp(SocketAddr),
    /// Nowhere: connections are closed at once.
    Nowhere,
}

/// A running proxy; it ends when this is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropped in the background: a test is not inside a runtime.
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Debug)]
struct Shared {
    upstream: Mutex<Upstream>,
    network: watch::Sender<Network>,
    /// Rises with every reset; connections end that were opened under a lower number.
    resets: watch::Sender<u64>,
    replies_to_cut: AtomicU64,
    long_replies_to_cut: AtomicU64,
    replies_cut: AtomicU64,
}

impl FaultProxy {
    /// Starts one on a free port of this machine.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn start(upstream: Upstream) -> FaultProxy {
        FaultProxy::listen("127.0.0.1:0", upstream)
    }

    /// Starts one on an address.
    ///
    /// # Panics
    /// When the address cannot be had.
    pub fn listen(address: &str, upstream: Upstream) -> FaultProxy {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            network: watch::Sender::new(Network::Good),
            resets: watch::Sender::new(0),
            replies_to_cut: AtomicU64::new(0),
            long_replies_to_cut: AtomicU64::new(0),
            replies_cut: AtomicU64::new(0),
        });
        let listener = runtime.block_on(TcpListener::bind(address)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let for_accept = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, Arc::clone(&for_accept)));
            }
        });
        FaultProxy { address, shared, runtime: Some(runtime) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A Redis URL that leads through it.
    pub fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// Changes the network.
    pub fn set(&self, network: Network) {
        self.shared.network.send_replace(network);
    }

    /// Leads new connections elsewhere, and breaks the old ones.
    pub fn lead_to(&self, upstream: Upstream) {
        *self.shared.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
        self.reset();
    }

    /// Breaks all connections with a reset.
    pub fn reset(&self) {
        self.shared.resets.send_modify(|resets| *resets += 1);
    }

    /// Throws the next `n` replies away, and breaks their connections: their commands have run.
    pub fn cut_replies(&self, n: u64) {
        self.shared.replies_to_cut.fetch_add(n, Ordering::Relaxed);
    }

    /// As [`FaultProxy::cut_replies`], but the next `n` that are longer than a few words: a claim's, with its jobs. A settlement
    /// is told in a few bytes, and the next reply is nearly always one.
    pub fn cut_long_replies(&self, n: u64) {
        self.shared.long_replies_to_cut.fetch_add(n, Ordering::Relaxed);
    }

    /// Replies thrown away so far.
    pub fn replies_cut(&self) -> u64 {
        self.shared.replies_cut.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn connect(upstream: Upstream) -> std::io::Result<Box<dyn Stream>> {
    Ok(match upstream {
        Upstream::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Upstream::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        Upstream::Nowhere => return Err(std::io::Error::other("nowhere")),
    })
}

/// Passes bytes of one connection until it ends, one way or the other.
async fn pass(mut client: TcpStream, shared: Arc<Shared>) {
    let mut network = shared.network.subscribe();
    let mut resets = shared.resets.subscribe();
    resets.mark_unchanged();
    // A reset is what the client sees, whatever ends the connection.
    let _ = client.set_zero_linger();
    let _ = client.set_nodelay(true);
    if !until_passable(&mut network, &mut resets).await {
        return;
    }
    let upstream = shared.upstream.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Ok(mut upstream) = connect(upstream).await else { return };
    let (mut request, mut reply) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let (bytes, from_client) = tokio::select! {
            biased;
            _ = resets.changed() => return,
            read = client.read(&mut request) => (read.unwrap_or(0), true),
            read = upstream.read(&mut reply) => (read.unwrap_or(0), false),
        };
        if bytes == 0 || !until_passable(&mut network, &mut resets).await {
            return;
        }
        if !from_client {
            let take_one = |left: u64| left.checked_sub(1);
            let counters = [(&shared.replies_to_cut, 0), (&shared.long_replies_to_cut, LONG_REPLY_BYTES)];
            let is_to_cut = |(counter, least): &(&AtomicU64, usize)| {
                bytes >= *least && counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one).is_ok()
            };
            if counters.iter().any(is_to_cut) {
                shared.replies_cut.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        let passed = if from_client {
            upstream.write_all(&request[..bytes]).await
        } else {
            client.write_all(&reply[..bytes]).await
        };
        if passed.is_err() {
            return;
        }
    }
}

/// Waits as the network wants it; `false` when the connection is to be broken.
async fn until_passable(network: &mut watch::Receiver<Network>, resets: &mut watch::Receiver<u64>) -> bool {
    loop {
        let now = *network.borrow_and_update();
        match now {
            Network::Good => return true,
            Network::Slow(by) => {
                tokio::time::sleep(by).await;
                return true;
            }
            Network::Stalled => tokio::select! {
                _ = network.changed() => {}
                _ = resets.changed() => return false,
            },
            // For ever: the client has to find out by itself.
            Network::HalfOpen => {
                let _ = resets.changed().await;
                return false;
            }
        }
    }
}
