//! An origin: an HTTP server whose answers are made by the path, and that can be held up.
//!
//! `/N/BYTES.gif` is a GIF of that many bytes, different for each N; `/status/CODE`, `/redirect/…`, `/truncated`,
//! `/endless`, `/slow` and others do what they say.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use rustls::{HandshakeKind, ServerConfig};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// A running origin on this machine; it ends when this is dropped.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    shared: Arc<Shared>,
    /// `None` while it is down. Dropped in the background: a test is not inside a runtime.
    runtime: Mutex<Option<Runtime>>,
}

/// A request, as the origin saw it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// When it came.
    pub at: Instant,
    /// The user agent.
    pub agent: String,
    /// What was asked for.
    pub path: String,
    /// It was refused as the mood says, with this `Retry-After` if there was one.
    pub refusal: Option<Option<Duration>>,
}

#[derive(Debug)]
struct Shared {
    held: watch::Sender<bool>,
    requests: Mutex<BTreeMap<String, usize>>,
    /// User agents that asked for poison, until somebody takes them.
    poisoned: Mutex<Vec<String>>,
    /// Every request.
    record: Mutex<Vec<Asked>>,
    /// How many of each path were refused as the mood says.
    refused: Mutex<BTreeMap<String, usize>>,
    /// Where `/moving/…` leads.
    has_moved: AtomicBool,
    mood: Mutex<Mood>,
    refused_at: Mutex<Option<Instant>>,
    connections: AtomicUsize,
    /// Connections whose TLS session is an earlier one that goes on.
    resumed: AtomicUsize,
    /// Requests that came over HTTP/2.
    http2_requests: AtomicUsize,
}

/// Takes connections, with TLS on top or without, and counts them.
struct Door {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
}

/// A connection, whatever it is made of.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Listener for Door {
    type Io = Box<dyn Stream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Box<dyn Stream>, SocketAddr) {
        loop {
            let Ok((stream, from)) = self.listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            self.shared.connections.fetch_add(1, Ordering::SeqCst);
            if matches!(*lock(&self.shared.mood), Mood::Resetting) {
                // So closing it is a reset.
                let _ = stream.set_zero_linger();
                continue;
            }
            let Some(tls) = &self.tls else { return (Box::new(stream), from) };
            // One handshake at a time, which does for clients that behave.
            let Ok(stream) = tls.accept(stream).await else { continue };
            if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                self.shared.resumed.fetch_add(1, Ordering::SeqCst);
            }
            return (Box::new(stream), from);
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// How an origin treats everybody, whatever they ask for.
#[derive(Debug, Clone, Default)]
pub enum Mood {
    /// As the path says.
    #[default]
    Kind,
    /// 429, with a Retry-After if there is one here.
    Refusing(Option<String>),
    /// 429 with this Retry-After for this user agent, and as the path says for all others.
    RefusingFor(String, String),
    /// 429, to wait for so many seconds, with a date as its `Retry-After` and a clock that is off by so much.
    Dated {
        /// Until somebody may ask again.
        seconds: u64,
        /// By how many seconds its clock is off.
        clock_s: i64,
    },
    /// 503 with this Retry-After.
    Unavailable(String),
    /// 503.
    Down,
    /// 503 for this user agent, and as the path says for all others.
    DownFor(String),
    /// Takes connections and requests, and never answers.
    Silent,
    /// Breaks connections off, without an answer.
    Resetting,
}

/// What `/named/NAME` answers: another GIF for each name.
pub fn named_gif(name: &str) -> Vec<u8> {
    gif(name.bytes().fold(0, |n, byte| n.wrapping_mul(257).wrapping_add(u64::from(byte))), 700)
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
        Origin::serve(address, None)
    }

    /// Starts one that speaks TLS.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn start_tls(tls: Arc<ServerConfig>) -> Origin {
        Origin::serve("127.0.0.1:0", Some(tls))
    }

    fn serve(address: &str, tls: Option<Arc<ServerConfig>>) -> Origin {
        let shared = Arc::new(Shared {
            held: watch::Sender::new(false),
            requests: Mutex::default(),
            poisoned: Mutex::default(),
            record: Mutex::default(),
            refused: Mutex::default(),
            has_moved: AtomicBool::new(false),
            mood: Mutex::default(),
            refused_at: Mutex::default(),
            connections: AtomicUsize::new(0),
            resumed: AtomicUsize::new(0),
            http2_requests: AtomicUsize::new(0),
        });
        let (runtime, address) = open(address, tls.clone(), &shared);
        Origin { address, tls, shared, runtime: Mutex::new(Some(runtime)) }
    }

    /// Goes down: connections break off, and new ones are refused until [`Origin::start_again`].
    pub fn stop(&self) {
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
    }

    /// Comes back where it was, with all that it knew.
    ///
    /// # Panics
    /// When somebody else has its port now.
    pub fn start_again(&self) {
        lock(&self.runtime).get_or_insert_with(|| open(&self.address.to_string(), self.tls.clone(), &self.shared).0);
    }

    /// Lets `/moving/…` lead to the other of its two targets.
    pub fn move_targets(&self) {
        self.shared.has_moved.fetch_not(Ordering::SeqCst);
    }

    /// Requests that it has refused so far, as its mood says.
    pub fn refusals(&self) -> usize {
        lock(&self.shared.refused).values().sum()
    }

    /// Whether it has ever refused this path so.
    pub fn has_refused(&self, path: &str) -> bool {
        lock(&self.shared.refused).contains_key(path)
    }

    /// All requests so far.
    pub fn record(&self) -> Vec<Asked> {
        lock(&self.shared.record).clone()
    }

    /// The URL of a path on it.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/{path}", self.address)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections that it has taken so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Those of them that went on with a TLS session of before.
    pub fn resumed_connections(&self) -> usize {
        self.shared.resumed.load(Ordering::SeqCst)
    }

    /// Requests that came over HTTP/2.
    pub fn http2_requests(&self) -> usize {
        self.shared.http2_requests.load(Ordering::SeqCst)
    }

    /// Holds up all bodies from now on: half of each is sent, the rest after [`Origin::let_go`].
    pub fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    /// Lets held bodies go.
    pub fn let_go(&self) {
        self.shared.held.send_replace(false);
    }

    /// Treats everybody like that from now on.
    pub fn set_mood(&self, mood: Mood) {
        *lock(&self.shared.mood) = mood;
    }

    /// When each request so far came.
    pub fn times(&self) -> Vec<Instant> {
        lock(&self.shared.record).iter().map(|asked| asked.at).collect()
    }

    /// When it first refused somebody in the mood [`Mood::RefusingFor`].
    pub fn refused_at(&self) -> Option<Instant> {
        *lock(&self.shared.refused_at)
    }

    /// The host that its URLs name.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Who asked for `/poison/…` since the last call, by user agent.
    pub fn take_poisoned(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.shared.poisoned))
    }

    /// Requests of a path so far.
    pub fn requests(&self, path: &str) -> usize {
        let requests = lock(&self.shared.requests);
        requests.get(path).copied().unwrap_or(0)
    }

    /// Requests of all paths so far.
    pub fn requests_in_all(&self) -> usize {
        lock(&self.shared.requests).values().sum()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves at an address, in a runtime of its own.
fn open(address: &str, tls: Option<Arc<ServerConfig>>, shared: &Arc<Shared>) -> (Runtime, SocketAddr) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let router = Router::new().route("/{*path}", get(answer)).with_state(Arc::clone(shared));
    let listener = runtime.block_on(TcpListener::bind(address)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let tls = tls.map(TlsAcceptor::from);
    let door = Door { listener, tls, shared: Arc::clone(shared) };
    runtime.spawn(async move { axum::serve(door, router).await });
    (runtime, address)
}

/// The answer to everybody in this mood, and its Retry-After in seconds.
fn refusal(mood: &Mood, agent: &str) -> Option<(StatusCode, Option<String>)> {
    match mood {
        Mood::Refusing(after) => Some((StatusCode::TOO_MANY_REQUESTS, after.clone())),
        Mood::Dated { seconds, .. } => Some((StatusCode::TOO_MANY_REQUESTS, Some(seconds.to_string()))),
        Mood::RefusingFor(whom, after) if whom == agent => Some((StatusCode::TOO_MANY_REQUESTS, Some(after.clone()))),
        Mood::Unavailable(after) => Some((StatusCode::SERVICE_UNAVAILABLE, Some(after.clone()))),
        Mood::Down => Some((StatusCode::SERVICE_UNAVAILABLE, None)),
        Mood::DownFor(whom) if whom == agent => Some((StatusCode::SERVICE_UNAVAILABLE, None)),
        Mood::Kind | Mood::DownFor(_) | Mood::RefusingFor(..) | Mood::Silent | Mood::Resetting => None,
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<String>,
    version: Version,
    headers: HeaderMap,
) -> Response {
    if version == Version::HTTP_2 {
        shared.http2_requests.fetch_add(1, Ordering::SeqCst);
    }
    let request = {
        let mut requests = lock(&shared.requests);
        let count = requests.entry(path.clone()).or_default();
        *count += 1;
        *count
    };
    let mood = lock(&shared.mood).clone();
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let refused = refusal(&mood, agent);
    let wait = |after: &String| after.parse().ok().map(Duration::from_secs);
    lock(&shared.record).push(Asked {
        at: Instant::now(),
        agent: agent.to_owned(),
        path: path.clone(),
        refusal: refused.as_ref().map(|(_, after)| after.as_ref().and_then(wait)),
    });
    if let Some((status, after)) = refused {
        *lock(&shared.refused).entry(path.clone()).or_default() += 1;
        if matches!(mood, Mood::RefusingFor(..)) {
            lock(&shared.refused_at).get_or_insert_with(Instant::now);
        }
        if let Mood::Dated { seconds, clock_s } = mood {
            let now = SystemTime::now();
            let off = Duration::from_secs(clock_s.unsigned_abs());
            let date = if clock_s < 0 { now - off } else { now + off };
            let until = date + Duration::from_secs(seconds);
            let at = |name, time| (name, httpdate::fmt_http_date(time));
            return (status, [at(header::DATE, date), at(header::RETRY_AFTER, until)]).into_response();
        }
        return match after {
            Some(after) => (status, [(header::RETRY_AFTER, after)]).into_response(),
            None => status.into_response(),
        };
    }
    match mood {
        Mood::Silent => std::future::pending().await,
        // The connection goes down with whoever serves it.
        Mood::Resetting => std::panic::resume_unwind(Box::new("reset on purpose")),
        _ => {}
    }
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
        // To another host: `to/HOST:PORT/PATH`.
        ["to", host, to @ ..] => with_location(&format!("http://{host}/{}", to.join("/"))),
        // To another port of this machine, `via/PORT/PATH`, and to one of two: `moving/PORT/PORT/PATH`.
        ["via", port, to @ ..] => with_location(&format!("http://127.0.0.1:{port}/{}", to.join("/"))),
        ["moving", before, after, to @ ..] => {
            let port = if shared.has_moved.load(Ordering::SeqCst) { after } else { before };
            with_location(&format!("http://127.0.0.1:{port}/{}", to.join("/")))
        }
        ["loop"] => redirect("loop"),
        ["to-file"] => with_location("file:///etc/passwd"),
        ["to-metadata"] => with_location("http://169.254.169.254/latest/meta-data"),
        ["removed", ..] => redirect("removed.png"),
        ["html"] => {
            ([(header::CONTENT_TYPE, "image/jpeg")], "<!DOCTYPE html><html><body>no picture</body></html>".repeat(9))
                .into_response()
        }
        ["empty"] => ().into_response(),
        // A GIF that its name calls a JPEG.
        // Another one for each name.
        ["named", name] => named_gif(name).into_response(),
        ["mistyped", name] if name.ends_with(".jpg") => gif(6, 600).into_response(),
        ["no-type"] => gif(2, 700).into_response(),
        // Announces more than it sends.
        ["truncated"] => {
            let start = broken_off(gif(3, 1000));
            ([(header::CONTENT_LENGTH, "5000")], start).into_response()
        }
        // Takes its time, which a test does not wait for but works in.
        ["after", ms, n, file] if file.ends_with(".gif") => {
            tokio::time::sleep(Duration::from_millis(number(ms).min(10_000))).await;
            gif(number(n), number(file.trim_end_matches(".gif")).max(64) as usize).into_response()
        }
        // Sends a little, then nothing, for ever; poison also tells who asked.
        ["endless"] | ["poison", _] => {
            if parts[0] == "poison" {
                lock(&shared.poisoned).push(agent.to_owned());
            }
            never_ending(gif(4, 500)).into_response()
        }
        // An image with an X-Robots-Tag for each of the parts between bars; with a third part its body never ends.
        ["robots", tags, rest @ ..] => {
            let mut response = match rest {
                [] => gif(6, 600).into_response(),
                _ => never_ending(gif(6, 600)).into_response(),
            };
            for tag in tags.split('|') {
                response.headers_mut().append("x-robots-tag", header::HeaderValue::from_str(tag).expect("a value"));
            }
            response
        }
        ["etag", etag, n, file] => {
            let gif = gif(number(n), number(file.trim_end_matches(".gif")).max(64) as usize);
            ([(header::ETAG, format!("\"{etag}\""))], gif).into_response()
        }
        // Says how long its body is, and sends the beginning alone.
        ["announced", bytes] => {
            ([(header::CONTENT_LENGTH, (*bytes).to_owned())], never_ending(gif(7, 64))).into_response()
        }
        // Does not say how long its body is.
        ["unannounced", n, bytes] => unannounced(gif(number(n), number(bytes).max(64) as usize)).into_response(),
        ["picture", name] => {
            picture(name).map_or_else(|| StatusCode::NOT_FOUND.into_response(), |bytes| bytes.into_response())
        }
        // Closes the connection afterwards.
        ["closing", n] => ([(header::CONNECTION, "close")], gif(number(n), 700)).into_response(),
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

/// A body that sends `start`, and then nothing for ever.
fn never_ending(start: Vec<u8>) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let _ = sender.send(Ok::<_, std::io::Error>(Bytes::from(start))).await;
        sender.closed().await;
    });
    Body::new(ChannelBody(receiver))
}

/// A body of a length that nobody announces.
fn unannounced(bytes: Vec<u8>) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move { sender.send(Ok::<_, std::io::Error>(Bytes::from(bytes))).await });
    Body::new(ChannelBody(receiver))
}

/// Pictures that are what their names say: 64 by 48 pixels where nothing else is said.
pub fn picture(name: &str) -> Option<Vec<u8>> {
    let encoded = |format| {
        let picture =
            image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([(x * 4) as u8, (y * 5) as u8, (x ^ y) as u8]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect("encoded");
        bytes.into_inner()
    };
    let jpeg = || encoded(image::ImageFormat::Jpeg);
    let png = || encoded(image::ImageFormat::Png);
    let half = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    Some(match name {
        "whole.jpg" => jpeg(),
        "whole.png" => png(),
        "whole.gif" => encoded(image::ImageFormat::Gif),
        "whole.webp" => encoded(image::ImageFormat::WebP),
        "half.jpg" => half(jpeg()),
        "half.png" => half(png()),
        "half.gif" => half(encoded(image::ImageFormat::Gif)),
        "half.webp" => half(encoded(image::ImageFormat::WebP)),
        // 100 KB of what cameras and editors put in front of the dimensions.
        "late.jpg" => {
            let (mut bytes, jpeg) = (jpeg()[..2].to_vec(), jpeg());
            for _ in 0..2 {
                bytes.extend([0xff, 0xed, 0xc3, 0x50]);
                bytes.extend(std::iter::repeat_n(b'x', 49_998));
            }
            bytes.extend(&jpeg[2..]);
            bytes
        }
        // 65,535 by 65,535 pixels in 5 KB.
        "bomb.png" => {
            let mut header = b"IHDR\0\0\xff\xff\0\0\xff\xff\x08\x06\0\0\0".to_vec();
            let crc = crc32fast::hash(&header);
            header.extend(crc.to_be_bytes());
            [b"\x89PNG\r\n\x1a\n\0\0\0\x0d", &header[..], &png()[33..], &[0; 5000]].concat()
        }
        // The type shows, and that it is described somewhere; then it shows, and nothing else.
        "sizeless.avif" => [b"\0\0\0\x18ftypavif\0\0\0\0avifmif1\0\0\x01\x34meta", &[0; 300][..]].concat(),
        "nothing.avif" => [b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", &[0; 300][..]].concat(),
        _ => return None,
    })
}

/// A body that breaks off after `start`, once that has left the server: an earlier error would swallow the headers too.
fn broken_off(start: Vec<u8>) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let _ = sender.send(Ok(Bytes::from(start))).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
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
