//! An origin without manners: a TCP server that plays a script, byte for byte, for each path it is asked for.

use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

/// One step of a script. After the last one the connection is closed.
#[derive(Debug, Clone)]
pub enum Act {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends bytes one by one, with a pause after each.
    Drip(Vec<u8>, Duration),
    /// Sends parts one by one, with a pause after each.
    DripParts(Vec<Vec<u8>>, Duration),
    /// Sends bytes again and again, until the other end is gone.
    Forever(Vec<u8>),
    /// Sends bytes again and again with a pause after each round, until the other end is gone.
    DripForever(Vec<u8>, Duration),
    /// Says nothing until the other end is gone.
    Stall,
    /// Waits for the next request on the connection, and plays its script.
    Again,
    /// Breaks the connection off with a reset.
    Reset,
    /// Over TLS: says goodbye before the close, as it should be.
    Goodbye,
}

/// A running origin; it ends when this is dropped.
#[derive(Debug)]
pub struct Scripted {
    address: SocketAddr,
    scheme: &'static str,
    connections: Arc<AtomicUsize>,
    /// Dropped in the background: a test is not inside a runtime.
    runtime: Option<tokio::runtime::Runtime>,
}

type Script = dyn Fn(&str, usize) -> Vec<Act> + Send + Sync;

/// What the server takes in before it plays a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listens {
    /// Nothing.
    Deaf,
    /// The head of a request; its path is the script's.
    Http1,
    /// Frames until one with the headers of a request; the number of its stream is the script's.
    Http2,
}

impl Scripted {
    /// Reads a request and plays `script` of its path (without the leading slash).
    pub fn start(script: impl Fn(&str) -> Vec<Act> + Send + Sync + 'static) -> Scripted {
        Scripted::serve(Arc::new(move |path: &str, _| script(path)), None, Listens::Http1)
    }

    /// The same, with a script that also knows how many requests the connection had before.
    pub fn start_counting(script: impl Fn(&str, usize) -> Vec<Act> + Send + Sync + 'static) -> Scripted {
        Scripted::serve(Arc::new(script), None, Listens::Http1)
    }

    /// The same after a TLS handshake.
    pub fn start_tls(tls: Arc<ServerConfig>, script: impl Fn(&str) -> Vec<Act> + Send + Sync + 'static) -> Scripted {
        Scripted::serve(Arc::new(move |path: &str, _| script(path)), Some(tls), Listens::Http1)
    }

    /// Speaks HTTP/2 over TLS (which has to offer `h2`) as far as its own SETTINGS, and plays `script` of the number of each
    /// request's stream. What it is sent besides is ignored, acknowledgements too.
    pub fn start_http2(tls: Arc<ServerConfig>, script: impl Fn(u32) -> Vec<Act> + Send + Sync + 'static) -> Scripted {
        let script = move |stream: &str, _: usize| script(stream.parse().expect("a number"));
        Scripted::serve(Arc::new(script), Some(tls), Listens::Http2)
    }

    /// Plays `acts` on each connection without reading anything.
    pub fn deaf(acts: Vec<Act>) -> Scripted {
        Scripted::serve(Arc::new(move |_: &str, _| acts.clone()), None, Listens::Deaf)
    }

    fn serve(script: Arc<Script>, tls: Option<Arc<ServerConfig>>, listens: Listens) -> Scripted {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let scheme = if tls.is_some() { "https" } else { "http" };
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let (script, tls) = (Arc::clone(&script), tls.clone());
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    match tls {
                        None => play(stream, &*script, listens, |stream| stream.set_zero_linger()).await,
                        Some(tls) => {
                            if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                                play(stream, &*script, listens, |stream| stream.get_ref().0.set_zero_linger()).await;
                            }
                        }
                    }
                });
            }
        });
        Scripted { address, scheme, connections, runtime: Some(runtime) }
    }

    /// A listener whose backlog is full: connections to it neither stand nor fail.
    ///
    /// # Panics
    /// When the system takes every connection.
    pub fn full() -> Scripted {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let connections = Arc::new(AtomicUsize::new(0));
        let (listener, address) = runtime.block_on(async {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
            let listener = socket.listen(1).expect("it listens");
            let address = listener.local_addr().expect("it is bound");
            (listener, address)
        });
        let filled = runtime.block_on(async {
            let mut waiting = Vec::new();
            for _ in 0..16 {
                match tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
                    Ok(stream) => waiting.push(stream),
                    Err(_) => return Some(waiting),
                }
            }
            None
        });
        let filled = filled.expect("a backlog that can be filled");
        runtime.spawn(async move {
            let _kept = (listener, filled);
            std::future::pending::<()>().await;
        });
        Scripted { address, scheme: "http", connections, runtime: Some(runtime) }
    }

    /// The URL of a path on it.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}/{path}", self.scheme, self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that it has taken so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The path of the next request, or `None` when there is none any more.
async fn next_path(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head);
    Some(head.split(' ').nth(1)?.trim_start_matches('/').to_owned())
}

/// An HTTP/2 frame (RFC 9113, section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a payload that a frame can hold").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The number of the next request's stream, or `None` when there is none any more.
async fn next_stream(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), is_first: bool) -> Option<String> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    if is_first {
        let mut preface = vec![0; PREFACE.len()];
        stream.read_exact(&mut preface).await.ok()?;
        assert_eq!(preface, PREFACE);
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.ok()?;
    }
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.ok()?;
        if head[3] == HEADERS {
            return Some(u32::from_be_bytes([head[5], head[6], head[7], head[8]]).to_string());
        }
    }
}

async fn play<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    script: &Script,
    listens: Listens,
    reset: impl Fn(&S) -> std::io::Result<()>,
) {
    for before in 0.. {
        let next = match listens {
            Listens::Deaf => Some(String::new()),
            Listens::Http1 => next_path(&mut stream).await,
            Listens::Http2 => next_stream(&mut stream, before == 0).await,
        };
        let Some(path) = next else { return };
        let mut again = false;
        for act in script(&path, before) {
            // Whoever is at the other end may leave at any time.
            let done = match act {
                Act::Send(bytes) => stream.write_all(&bytes).await,
                Act::Drip(bytes, pause) => drip(&mut stream, bytes.chunks(1), pause).await,
                Act::DripParts(parts, pause) => drip(&mut stream, parts.iter().map(Vec::as_slice), pause).await,
                Act::Forever(bytes) => loop {
                    if let Err(error) = stream.write_all(&bytes).await {
                        break Err(error);
                    }
                },
                Act::DripForever(bytes, pause) => loop {
                    if let Err(error) = stream.write_all(&bytes).await.and(stream.flush().await) {
                        break Err(error);
                    }
                    tokio::time::sleep(pause).await;
                },
                Act::Stall => {
                    let mut sink = [0; 1024];
                    while stream.read(&mut sink).await.is_ok_and(|n| n > 0) {}
                    return;
                }
                Act::Again => {
                    again = true;
                    Ok(())
                }
                Act::Reset => {
                    // What was sent before is to arrive before the reset does.
                    let _ = stream.flush().await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    let _ = reset(&stream);
                    return;
                }
                Act::Goodbye => stream.shutdown().await,
            };
            if done.is_err() {
                return;
            }
        }
        let _ = stream.flush().await;
        if !again {
            return;
        }
    }
}

async fn drip(
    stream: &mut (impl AsyncWrite + Unpin),
    parts: impl Iterator<Item = &[u8]>,
    pause: Duration,
) -> std::io::Result<()> {
    for part in parts {
        stream.write_all(part).await?;
        stream.flush().await?;
        tokio::time::sleep(pause).await;
    }
    Ok(())
}
