//! An origin: an HTTP server whose answers are made by the path, and that can be held up.
//!
//! `/N/BYTES.gif` is a GIF of that many bytes, different for each N; `/status/CODE`, `/redirect/…`, `/truncated`,
//! `/endless`, `/slow` and others do what they say.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// A running origin on this machine; it ends when this is dropped.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropped in the background: a test is not inside a runtime.
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Debug)]
struct Shared {
    held: watch::Sender<bool>,
    requests: Mutex<BTreeMap<String, usize>>,
    /// User agents that asked for poison, until somebody takes them.
    poisoned: Mutex<Vec<String>>,
}

/// A GIF of exactly `bytes` bytes (64 or more), different for each `n`.
pub fn gif(n: u64, bytes: usize) -> Vec<u8> {
    let mut gif = b"GIF89a\x20\0\x10\0\0\0\0".to_vec();
    // The rest is one comment, in blocks of at most 255 bytes.
    gif.extend_from_slice(&[0x21, 0xfe]);
    let mut text = n.to_le_bytes().into_iter().cycle();
    while gif.len() + 3 < bytes {
        let block = (bytes - gif.len() - 3).min(255);
        gif.push(block as u8);
        gif.extend(text.by_ref().take(block));
    }
    while gif.len() + 1 < bytes {
        gif.push(0);
    }
    gif.push(b';');
    gif
}

impl Origin {
    /// Starts one on a free port of this machine.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn start() -> Origin {
        Origin::start_on("127.0.0.1:0")
    }

    /// Starts one on an address; port 0 is a free one.
    ///
    /// # Panics
    /// When the address cannot be had.
    pub fn start_on(address: &str) -> Origin {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let shared = Arc::new(Shared {
            held: watch::Sender::new(false),
            requests: Mutex::default(),
            poisoned: Mutex::default(),
        });
        let router = Router::new().route("/{*path}", get(answer)).with_state(Arc::clone(&shared));
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(async move { axum::serve(listener, router).await });
        Origin { address, shared, runtime: Some(runtime) }
    }

    /// The URL of a path on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Holds up all bodies from now on: half of each is sent, the rest after [`Origin::let_go`].
    pub fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    /// Lets held bodies go.
    pub fn let_go(&self) {
        self.shared.held.send_replace(false);
    }

    /// Who asked for `/poison/…` since the last call, by user agent.
    pub fn take_poisoned(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.poisoned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Requests of a path so far.
    pub fn requests(&self, path: &str) -> usize {
        let requests = self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.get(path).copied().unwrap_or(0)
    }

    /// Requests of all paths so far.
    pub fn requests_in_all(&self) -> usize {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, Path(path): Path<String>, headers: HeaderMap) -> Response {
    let request = {
        let mut requests = shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let count = requests.entry(path.clone()).or_default();
        *count += 1;
        *count
    };
    let parts: Vec<&str> = path.split('/').collect();
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    match parts.as_slice() {
        ["status", code] => {
            StatusCode::from_u16(number(code) as u16).unwrap_or(StatusCode::IM_A_TEAPOT).into_response()
        }
        // Fails N times with 503, then serves.
        ["flaky", times, ..] if request as u64 <= number(times) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        ["flaky", ..] => gif(1, 500).into_response(),
        ["redirect", to @ ..] => redirect(&to.join("/")),
        ["loop"] => redirect("loop"),
        ["to-file"] => with_location("file:///etc/passwd"),
        ["to-metadata"] => with_location("http://169.254.169.254/latest/meta-data"),
        ["removed", ..] => redirect("removed.png"),
        ["html"] => {
            ([(header::CONTENT_TYPE, "image/jpeg")], "<!DOCTYPE html><html><body>no picture</body></html>".repeat(9))
                .into_response()
        }
        ["empty"] => ().into_response(),
        ["no-type"] => gif(2, 700).into_response(),
        // Announces more than it sends.
        ["truncated"] => {
            let start = broken_off(gif(3, 1000));
            ([(header::CONTENT_LENGTH, "5000")], start).into_response()
        }
        // Takes its time, which a test does not wait for but works in.
        ["after", ms, n, file] if file.ends_with(".gif") => {
            tokio::time::sleep(std::time::Duration::from_millis(number(ms).min(10_000))).await;
            gif(number(n), number(file.trim_end_matches(".gif")).max(64) as usize).into_response()
        }
        // Sends a little, then nothing, for ever; poison also tells who asked.
        ["endless"] | ["poison", _] => {
            if parts[0] == "poison" {
                let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
                shared.poisoned.lock().unwrap_or_else(PoisonError::into_inner).push(agent.to_owned());
            }
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            tokio::spawn(async move {
                let _ = sender.send(Ok::<_, std::io::Error>(Bytes::from(gif(4, 500)))).await;
                sender.closed().await;
            });
            Body::new(ChannelBody(receiver)).into_response()
        }
        ["announced-large"] => {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from_static("1000000000"));
            (headers, broken_off(gif(5, 500))).into_response()
        }
        [n, file] if file.ends_with(".gif") => {
            let bytes = Bytes::from(gif(number(n), number(file.trim_end_matches(".gif")).max(64) as usize));
            let mut held = shared.held.subscribe();
            if !*held.borrow_and_update() {
                return bytes.into_response();
            }
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            let length = bytes.len().to_string();
            tokio::spawn(async move {
                let half = bytes.len() / 2;
                if sender.send(Ok::<_, std::io::Error>(bytes.slice(..half))).await.is_ok() {
                    tokio::select! {
                        () = until_let_go(&mut held) => { let _ = sender.send(Ok(bytes.slice(half..))).await; }
                        () = sender.closed() => {}
                    }
                }
            });
            ([(header::CONTENT_LENGTH, length)], Body::new(ChannelBody(receiver))).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The guard that `wait_for` gives must not live across the next wait.
async fn until_let_go(held: &mut watch::Receiver<bool>) {
    drop(held.wait_for(|held| !held).await);
}

fn redirect(to: &str) -> Response {
    with_location(&format!("/{to}"))
}

fn with_location(location: &str) -> Response {
    (StatusCode::FOUND, [(header::LOCATION, location.to_owned())]).into_response()
}

/// A body that breaks off after `start`, once that has left the server: an earlier error would swallow the headers too.
fn broken_off(start: Vec<u8>) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let _ = sender.send(Ok(Bytes::from(start))).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let _ = sender.send(Err(std::io::Error::other("broken off on purpose"))).await;
    });
    Body::new(ChannelBody(receiver))
}

/// A body out of a channel.
struct ChannelBody(tokio::sync::mpsc::Receiver<Result<Bytes, std::io::Error>>);

impl http_body::Body for ChannelBody {
    type Data = Bytes;
    type Error = std::io::Error;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| part.map(http_body::Frame::data)))
    }
}
