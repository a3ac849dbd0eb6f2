//! Fetching: one URL to a response whose body may be read, bounded in every direction.
//!
//! This folder alone names the HTTP client: `connector` opens connections, `resolver` finds addresses, and this file makes
//! requests. hyper is used by its own client and not through reqwest, which cannot bound what a connection reads ahead, nor the
//! connections that lie idle. Redirects are followed here, one by one, because each target
//! has to pass the guard, and because a redirect to a placeholder is an answer, not a way to an image.

mod connect_timer;
mod connector;
mod resolver;
mod turns;

use self::connector::{ConnectFailure, Connector, Dialling, Proxies, Use};
use self::resolver::Resolver;
use self::turns::Backlog;
use crate::address_guard::AddressGuard;
use crate::attempt::{SERVER_WAIT_MAX, Setback, meaning_of_status};
use crate::cli::Config;
use crate::hosts::{NotAdmitted, Visits};
use crate::metrics::Metrics;
use crate::robots::Robots;
use base64::Engine;
use bytes::Bytes;
use common::link::in_bounds;
use common::outcome::{Failure, Rejection};
use content::Content;
use futures_util::future::poll_immediate;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, LOCATION,
    PROXY_AUTHORIZATION, RETRY_AFTER, USER_AGENT,
};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::{self, Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use url::{Host, Position, Url};

/// Redirects that one download may follow.
const REDIRECTS_MAX: usize = 5;
/// A part of an object, which is never asked for.
const PARTIAL_CONTENT: u16 = 206;
/// Says what a host does not want done with its images.
const X_ROBOTS_TAG: HeaderName = HeaderName::from_static("x-robots-tag");

/// Connections that one request may meet, where those before were at their end.
const TRIES_MAX: u32 = 3;
/// Bytes that HTTP/1.1 connections read before somebody takes them, for the whole worker; a connection's share grows to twice
/// that. The head of an answer has to fit in it, and a body arrives in such pieces. hyper's own 408 KiB for each would be
/// 104 MB with 256 servers that send heads without end, and was 185 MB with 256 downloads of 1 KB to 20 MB; shares of 32 KiB for
/// everybody doubled the CPU of large files. hyper also refuses more than 100 headers; asking it for that number would
/// cost an allocation for each answer.
const HTTP1_AHEAD_BYTES_MAX: usize = 8 << 20;
/// The headers of one answer over HTTP/2, in bytes, with 32 for each one as RFC 9113 counts them.
const HTTP2_HEADERS_BYTES_MAX: u32 = 32 << 10;
/// Bytes that HTTP/2 servers may send ahead, for the whole worker. Over HTTP/1.1 what is sent ahead lies in the kernel.
const HTTP2_AHEAD_BYTES_MAX: usize = 16 << 20;
/// Idle connections that are kept, over all hosts.
const IDLE_CONNECTIONS_MAX: usize = 128;
/// How long an idle connection is kept.
const IDLE_CONNECTION_MAX: Duration = Duration::from_secs(30);

/// Makes requests that stay within their bounds.
#[derive(Debug)]
pub(crate) struct Fetcher {
    clients: Clients,
    guard: Arc<AddressGuard>,
    proxies: Option<Proxies>,
    user_agent: HeaderValue,
    metrics: Arc<Metrics>,
    connect_timeout: Duration,
    idle_timeout: Duration,
    body_bytes_max: u64,
    content: Arc<Content>,
    /// With `--respect-robots`.
    robots: Option<Robots>,
}

/// Why no body begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfetched {
    /// The attempt went wrong.
    Setback(Setback),
    /// It leads to a host that may not be asked now.
    NotAdmitted(NotAdmitted),
}

impl From<Setback> for Unfetched {
    fn from(setback: Setback) -> Unfetched {
        Unfetched::Setback(setback)
    }
}

impl From<NotAdmitted> for Unfetched {
    fn from(not_admitted: NotAdmitted) -> Unfetched {
        Unfetched::NotAdmitted(not_admitted)
    }
}

/// Why no request can ever be made with these settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnusableSettings {
    #[error("the user agent has characters that a header cannot carry")]
    UserAgent,
    #[error("the environment names a proxy by {0}://, and only http:// proxies are understood")]
    Proxy(String),
    #[error("no certificates to trust: {0}")]
    Certificates(#[from] rustls::Error),
}

impl UnusableSettings {
    /// What to do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            UnusableSettings::UserAgent => "give another --user-agent or IMGQ_USER_AGENT",
            UnusableSettings::Proxy(_) => {
                "name an http:// proxy in HTTP_PROXY and HTTPS_PROXY, or go without --proxy-from-environment"
            }
            UnusableSettings::Certificates(_) => "install ca-certificates, or name a file of them in SSL_CERT_FILE",
        }
    }
}

impl Fetcher {
    pub(crate) fn new(
        config: &Config,
        content: Arc<Content>,
        metrics: Arc<Metrics>,
    ) -> Result<Fetcher, UnusableSettings> {
        // A look-up that hangs is to end as `dns`, not as a connection that took too long.
        let resolver = Resolver::system(config.connect_timeout.mul_f32(0.9), Arc::clone(&metrics));
        Fetcher::resolving(config, content, resolver, metrics)
    }

    fn resolving(
        config: &Config,
        content: Arc<Content>,
        resolver: Resolver,
        metrics: Arc<Metrics>,
    ) -> Result<Fetcher, UnusableSettings> {
        let guard = Arc::new(AddressGuard::new(config.allow_networks.clone()));
        let proxies = match config.proxy_from_environment {
            true => Some(Proxies::from_environment().map_err(UnusableSettings::Proxy)?),
            false => None,
        };
        let dialling = Dialling {
            resolver,
            guard: Arc::clone(&guard),
            proxies: proxies.clone(),
            tls: connector::tls()?,
            timeout: config.connect_timeout,
            metrics: Arc::clone(&metrics),
        };
        Ok(Fetcher {
            clients: Clients::new(dialling, config.concurrency, config.host_concurrency, config.idle_timeout),
            guard,
            proxies,
            user_agent: HeaderValue::from_str(&config.user_agent).map_err(|_| UnusableSettings::UserAgent)?,
            metrics,
            connect_timeout: config.connect_timeout,
            idle_timeout: config.idle_timeout,
            body_bytes_max: config.body_bytes_max,
            content,
            robots: config.respect_robots.then(|| Robots::new(&config.user_agent)),
        })
    }

    /// Requests `url`, follows redirects, and returns once a body begins. Each target of a redirect has to be admitted first.
    ///
    /// # Errors
    /// [`Unfetched`] for everything but a success.
    pub(crate) async fn get(&self, url: &Url, visits: &mut Visits) -> Result<Body, Unfetched> {
        let mut target = url.clone();
        for hops in 0..=REDIRECTS_MAX {
            self.check(&target)?;
            if hops > 0 {
                visits.go_on_to(&target).await?;
            }
            visits.asks();
            let response = self.request(&target).await?;
            let status = response.status().as_u16();
            self.metrics.responded(status);
            let setback = |rejection: Rejection| Setback::from(rejection).with_status(status);
            if let (301 | 302 | 303 | 307 | 308, Some(location)) = (status, response.headers().get(LOCATION)) {
                visits.is_redirected();
                let next = location.to_str().ok().and_then(|text| target.join(text).ok());
                let next = next.filter(|next| in_bounds(next).is_ok());
                target = next.ok_or_else(|| setback(Rejection::Redirects))?;
                if self.content.placeholders.know_redirect(target.path()) {
                    return Err(setback(Rejection::Removed).into());
                }
                continue;
            }
            if !response.status().is_success() {
                let server_wait = server_wait(response.headers(), SystemTime::now());
                return Err(Setback { outcome: meaning_of_status(status), status, server_wait }.into());
            }
            if status == PARTIAL_CONTENT {
                // Nobody asked for a part.
                return Err(Setback::from(Failure::Truncated).with_status(status).into());
            }
            self.check_head(&response).map_err(setback)?;
            let backlog = response.extensions().get::<Use>().map(|connection| connection.backlog().clone());
            let body = response.into_body();
            return Ok(Body {
                body,
                backlog: backlog.unwrap_or_default(),
                status,
                bytes_left: self.body_bytes_max,
                idle_timeout: self.idle_timeout,
                received: Received { bytes: 0, metrics: Arc::clone(&self.metrics) },
            });
        }
        Err(Setback::from(Rejection::Redirects).into())
    }

    /// What the head of a success tells of its body, before that is read.
    fn check_head(&self, response: &Response<Incoming>) -> Result<(), Rejection> {
        let (headers, length) = (response.headers(), response.body().size_hint());
        if let Some(robots) = &self.robots
            && headers.get_all(X_ROBOTS_TAG).iter().any(|value| robots.are_refused_by(value.as_bytes()))
        {
            return Err(Rejection::Robots);
        }
        let etag = || headers.get(ETAG).and_then(|value| value.to_str().ok());
        if self.content.placeholders.know_head(length.exact(), etag) {
            return Err(Rejection::Removed);
        }
        if length.lower() > self.body_bytes_max {
            return Err(Rejection::TooLarge);
        }
        // An empty body is no image, whatever its smallest size.
        if length.exact().is_some_and(|bytes| (1..self.content.min_bytes).contains(&bytes)) {
            return Err(Rejection::TooSmall);
        }
        Ok(())
    }

    /// One request and the head of its answer.
    async fn request(&self, target: &Url) -> Result<Response<Incoming>, Setback> {
        let mut tries = 0;
        loop {
            tries += 1;
            // The connector bounds the connecting; whatever is left is the server's silence, or a head that never ends: what
            // arrives of it does not prolong the time.
            let answer = self.clients.send(self.written(target)?);
            self.metrics.requested();
            match tokio::time::timeout(self.connect_timeout + self.idle_timeout, answer).await {
                Ok(Ok(response)) => {
                    if let Some(connection) = response.extensions().get::<Use>() {
                        connection.set_answered();
                    }
                    return Ok(response);
                }
                Ok(Err(error)) if tries < TRIES_MAX && is_the_connection_s_fault(&error) => {}
                Ok(Err(error)) => return Err(setback_of(&error)),
                Err(_) => return Err(Failure::TimeoutIdle.into()),
            }
        }
    }

    /// The request for `target`. A user name and password in it go where HTTP has a place for them, and nowhere else.
    fn written(&self, target: &Url) -> Result<Request<Empty<Bytes>>, Setback> {
        let has_credentials = !target.username().is_empty() || target.password().is_some();
        let text = match has_credentials {
            false => target[..Position::AfterQuery].to_owned(),
            true => format!("{}://{}", target.scheme(), &target[Position::BeforeHost..Position::AfterQuery]),
        };
        let uri = Uri::from_maybe_shared(Bytes::from(text)).map_err(|_| Setback::from(Rejection::BadUrl))?;
        let proxy_authorization = self.proxies.as_ref().and_then(|proxies| proxies.authorization(&uri));
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, self.user_agent.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        // Nothing is ever decompressed, so that there are no bombs; an image that comes compressed all the same is none.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if has_credentials {
            headers.insert(AUTHORIZATION, basic_authorization(target).ok_or(Setback::from(Rejection::BadUrl))?);
        }
        if let Some(authorization) = proxy_authorization {
            headers.insert(PROXY_AUTHORIZATION, authorization);
        }
        Ok(request)
    }

    /// What the resolver does not see: the scheme, and hosts that are addresses already.
    fn check(&self, target: &Url) -> Result<(), Setback> {
        if !matches!(target.scheme(), "http" | "https") {
            return Err(Rejection::Redirects.into());
        }
        let address = match target.host() {
            Some(Host::Ipv4(v4)) => IpAddr::V4(v4),
            Some(Host::Ipv6(v6)) => IpAddr::V6(v6),
            Some(Host::Domain(_)) => return Ok(()),
            None => return Err(Rejection::BadUrl.into()),
        };
        if self.guard.permits(address) {
            return Ok(());
        }
        self.metrics.refused_address();
        Err(Rejection::BlockedAddress.into())
    }
}

/// A body that has begun to arrive.
#[derive(Debug)]
pub(crate) struct Body {
    body: Incoming,
    /// Of its connection.
    backlog: Backlog,
    status: u16,
    bytes_left: u64,
    idle_timeout: Duration,
    received: Received,
}

/// Tells at its end how much of a body arrived, whichever way it ends: an attempt may be dropped at any await.
#[derive(Debug)]
struct Received {
    bytes: u64,
    metrics: Arc<Metrics>,
}

impl Drop for Received {
    fn drop(&mut self) {
        self.metrics.downloaded(self.bytes);
    }
}

impl Body {
    /// The HTTP status it came with.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// Waits for `stored`, and holds its connection back meanwhile: what a server sends on ahead would lie in memory.
    ///
    /// Cancel safety: that of `stored`.
    pub(crate) async fn holding_back<T>(&self, mut stored: Pin<&mut impl Future<Output = T>>) -> T {
        if let Some(done) = poll_immediate(stored.as_mut()).await {
            return done;
        }
        let _waiting = self.backlog.wait();
        stored.await
    }

    /// The next part, or `None` at the end.
    ///
    /// # Errors
    /// `too_large`, `timeout_idle`, `truncated`, all with the status.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Setback> {
        let status = self.status;
        loop {
            // What has arrived is taken at once. A timer for each part would let the runtime go on to other tasks after 128 of
            // them, and an HTTP/2 connection reads thousands in its turn: those that wait would take 300 bytes each.
            let arrived = match poll_immediate(self.body.frame()).await {
                Some(arrived) => Ok(arrived),
                None => tokio::time::timeout(self.idle_timeout, self.body.frame()).await,
            };
            match arrived {
                Ok(Some(Ok(frame))) => {
                    // Trailers have nothing to say, and are bounded by hyper.
                    let Ok(chunk) = frame.into_data() else { continue };
                    self.backlog.took();
                    self.received.bytes += chunk.len() as u64;
                    return match self.bytes_left.checked_sub(chunk.len() as u64) {
                        Some(left) => {
                            self.bytes_left = left;
                            Ok(Some(chunk))
                        }
                        None => Err(Setback::from(Rejection::TooLarge).with_status(status)),
                    };
                }
                Ok(None) => return Ok(None),
                // Whatever breaks a body off (end of connection, reset, broken framing) leaves it incomplete.
                Ok(Some(Err(_))) => return Err(Setback::from(Failure::Truncated).with_status(status)),
                Err(_) => return Err(Setback::from(Failure::TimeoutIdle).with_status(status)),
            }
        }
    }
}

/// The client, and its successors.
///
/// hyper's pool bounds the idle connections of one host and not those of all hosts, of which a list of strangers has no end.
/// Once a client has more than it may, a new one takes its place: the old one goes with its last answer, and its idle
/// connections with it. Names and TLS sessions outlive it.
#[derive(Debug)]
struct Clients {
    dialling: Dialling,
    builder: legacy::Builder,
    open_max: usize,
    current: Mutex<Generation>,
}

/// One client, and the connections that it has open.
#[derive(Debug)]
struct Generation {
    client: Client<Connector, Empty<Bytes>>,
    open: Arc<AtomicUsize>,
}

impl Clients {
    /// `idle` is how long a server may say nothing.
    fn new(dialling: Dialling, concurrency: usize, host_concurrency: usize, idle: Duration) -> Clients {
        let (stream_window, connection_window) = http2_windows(concurrency, host_concurrency);
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION_MAX)
            .pool_max_idle_per_host(host_concurrency)
            .http1_max_buf_size((HTTP1_AHEAD_BYTES_MAX / concurrency.max(1)).clamp(32 << 10, 128 << 10))
            .http2_max_header_list_size(HTTP2_HEADERS_BYTES_MAX)
            .http2_initial_stream_window_size(stream_window)
            .http2_initial_connection_window_size(connection_window)
            // All requests to a host share one connection. When nobody is at its other end any more, requests time out, and
            // soon after them the connection is given up: or later ones would go the same way for as long as TCP hopes.
            .http2_keep_alive_interval(idle / 2)
            .http2_keep_alive_timeout(idle * 3 / 4);
        let current = Mutex::new(Clients::fresh(&builder, &dialling));
        Clients { dialling, builder, open_max: concurrency + IDLE_CONNECTIONS_MAX, current }
    }

    fn fresh(builder: &legacy::Builder, dialling: &Dialling) -> Generation {
        let open = Arc::new(AtomicUsize::new(0));
        Generation { client: builder.build(Connector::new(dialling, Arc::clone(&open))), open }
    }

    fn send(&self, request: Request<Empty<Bytes>>) -> ResponseFuture {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.open.load(Ordering::Relaxed) > self.open_max {
            *current = Clients::fresh(&self.builder, &self.dialling);
        }
        current.client.request(request)
    }
}

/// How many bytes an HTTP/2 server may send ahead of what was read: of one answer, and over one connection.
fn http2_windows(concurrency: usize, host_concurrency: usize) -> (u32, u32) {
    // As many as there are downloads share what the worker has for them; below 64 KiB a distant server would be slow.
    let stream = (HTTP2_AHEAD_BYTES_MAX / concurrency.max(1)).clamp(64 << 10, 1 << 20);
    // An answer that nobody reads holds what its own window allows, and must not hold up the others of its connection.
    let connection = stream.saturating_mul(host_concurrency).min(HTTP2_AHEAD_BYTES_MAX);
    (stream as u32, connection as u32)
}

/// User name and password of a URL, as the Basic scheme writes them (RFC 7617).
fn basic_authorization(target: &Url) -> Option<HeaderValue> {
    let decoded = |text| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let credentials = [decoded(target.username()), decoded(target.password().unwrap_or_default())].join(&b':');
    let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `Retry-After` in both of its forms (RFC 9110, section 10.2.3), at most [`SERVER_WAIT_MAX`].
///
/// A date is by the server's clock, and so is the answer's own (section 6.6.1): what lies between them is meant, whatever the clock of
/// this machine says. `now` is for an answer without a date.
fn server_wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let date = |text| httpdate::parse_http_date(text).ok();
    let after = text(RETRY_AFTER)?;
    let wait = match after.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let said_at = text(DATE).and_then(date).unwrap_or(now);
            date(after)?.duration_since(said_at).unwrap_or_default()
        }
    };
    Some(wait.min(SERVER_WAIT_MAX))
}

/// Whether a request may be sent again at once, as it met a connection from before that was at its end.
///
/// Over HTTP/1.1 a server may close, or say something out of turn, just when the next request is on its way: another
/// connection tells what it thinks of the request itself. Over HTTP/2 a server that says goodbye (nginx does after 1,000
/// requests) tells which it has not looked at (RFC 9113, sections 6.8 and 8.7).
fn is_the_connection_s_fault(error: &legacy::Error) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(http2) = inner.downcast_ref::<h2::Error>() {
            return http2.is_remote()
                && ((http2.is_go_away() && http2.reason() == Some(h2::Reason::NO_ERROR))
                    || (http2.is_reset() && http2.reason() == Some(h2::Reason::REFUSED_STREAM)));
        }
        cause = inner.source();
    }
    let mut about = hyper::http::Extensions::new();
    error.connect_info().inspect(|connection| connection.get_extras(&mut about));
    about.get::<Use>().is_some_and(Use::has_answered)
}

/// What a request that got no response means.
fn setback_of(error: &legacy::Error) -> Setback {
    let mut tls = false;
    let mut cause = error.source();
    while let Some(inner) = cause {
        match inner.downcast_ref::<ConnectFailure>() {
            Some(ConnectFailure::Blocked) => return Rejection::BlockedAddress.into(),
            Some(ConnectFailure::Lookup(_)) => return Failure::Dns.into(),
            Some(ConnectFailure::TimedOut) => return Failure::TimeoutConnect.into(),
            Some(ConnectFailure::Tls(_)) => return Failure::Tls.into(),
            None => {}
        }
        // Over HTTP/2, by the PING that nobody answered.
        if inner.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout) {
            return Failure::TimeoutIdle.into();
        }
        let held = inner.downcast_ref::<io::Error>();
        if error.is_connect() && held.is_some_and(|held| held.kind() == io::ErrorKind::TimedOut) {
            return Failure::TimeoutConnect.into();
        }
        tls = tls || inner.is::<rustls::Error>() || is_tls_io(inner);
        cause = inner.source();
    }
    // Otherwise the connection was refused, broke, or spoke no HTTP, before a response was there.
    if tls { Failure::Tls.into() } else { Failure::Connect.into() }
}

/// rustls reports what goes wrong after the handshake (an alert, say) as an I/O error around its own, which comes here inside another one; the source of an
/// I/O error skips what it holds.
fn is_tls_io(error: &(dyn Error + 'static)) -> bool {
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    held.is_some_and(|held| held.is::<rustls::Error>() || is_tls_io(held))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            server_wait(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(read("120"), Some(120));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(read("Sun, 06 Nov 1994 08:48:37 GMT"), Some(0));
        assert_eq!(read("99999999"), Some(3600));
        assert_eq!(read("soon"), None);
        // A server whose clock is ten minutes ahead of ours, or ours behind.
        let mut headers = HeaderMap::new();
        headers.insert(DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:59:37 GMT"));
        for (after, expected) in [("Sun, 06 Nov 1994 09:00:07 GMT", 30), ("Sun, 06 Nov 1994 08:50:37 GMT", 0), ("7", 7)]
        {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(after));
            assert_eq!(server_wait(&headers, now), Some(Duration::from_secs(expected)), "{after}");
        }
        headers.insert(DATE, HeaderValue::from_static("today"));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:47 GMT"));
        assert_eq!(server_wait(&headers, now), Some(Duration::from_secs(10)), "our clock is all there is");
    }

    /// A fetcher as a worker with these flags has it, with its own `look_up` for names.
    fn fetcher(
        arguments: &[&str],
        known_for: Duration,
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Fetcher {
        let config = Config::of(arguments);
        let resolver = Resolver::asking(look_up, Duration::from_secs(5), known_for, Duration::ZERO);
        Fetcher::resolving(&config, Arc::default(), resolver, Arc::new(Metrics::new(1))).expect("usable")
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    async fn reason(fetcher: &Fetcher, url: &str) -> &'static str {
        let url: Url = url.parse().expect("a URL");
        match fetcher.get(&url, &mut Visits::anywhere(&url)).await {
            Ok(_) => "stored",
            Err(Unfetched::Setback(setback)) => setback.outcome.reason(),
            Err(Unfetched::NotAdmitted(not_admitted)) => panic!("{not_admitted:?}"),
        }
    }

    /// Every way to write an address that the URL standard knows; docs/safety.md shows this table.
    const SPELLINGS: &[(&str, &str)] = &[
        ("dotted", "http://127.0.0.1/a.jpg"),
        ("decimal", "http://2130706433/a.jpg"),
        ("octal", "http://0177.0.0.01/a.jpg"),
        ("octal number", "http://017700000001/a.jpg"),
        ("hexadecimal", "http://0x7f.0x0.0x0.0x1/a.jpg"),
        ("hexadecimal number", "http://0x7f000001/a.jpg"),
        ("mixed", "http://0x7f.0.01/a.jpg"),
        ("two parts", "http://127.1/a.jpg"),
        ("three parts", "http://127.0.1/a.jpg"),
        ("trailing dot", "http://127.0.0.1./a.jpg"),
        ("percent-encoded", "http://%31%32%37.0.0.1/a.jpg"),
        ("full-width", "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/a.jpg"),
        ("other dots", "http://127\u{3002}0\u{3002}0\u{3002}1/a.jpg"),
        ("circled", "http://\u{2460}\u{2461}\u{2466}.0.0.1/a.jpg"),
        ("zero", "http://0/a.jpg"),
        ("hexadecimal zero", "http://0x/a.jpg"),
        ("private", "http://0xa.1/a.jpg"),
        ("metadata, decimal", "http://2852039166/latest/meta-data"),
        ("metadata, hexadecimal", "http://0xa9fea9fe/latest/meta-data"),
        ("IPv6 loopback", "http://[::1]/a.jpg"),
        ("IPv6 loopback, long", "http://[0:0:0:0:0:0:0:1]/a.jpg"),
        ("IPv6 unspecified", "http://[::]/a.jpg"),
        ("IPv4-mapped", "http://[::ffff:127.0.0.1]/a.jpg"),
        ("IPv4-mapped, hexadecimal", "http://[::ffff:7f00:1]/a.jpg"),
        ("IPv4-compatible", "http://[::127.0.0.1]/a.jpg"),
        ("IPv4-translated", "http://[::ffff:0:127.0.0.1]/a.jpg"),
        ("NAT64", "http://[64:ff9b::127.0.0.1]/a.jpg"),
        ("NAT64, local", "http://[64:ff9b:1::8.8.8.8]/a.jpg"),
        ("6to4", "http://[2002:7f00:1::]/a.jpg"),
        ("Teredo", "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/a.jpg"),
        ("ISATAP", "http://[2606:4700::5efe:127.0.0.1]/a.jpg"),
        ("unique-local metadata", "http://[fd00:ec2::254]/a.jpg"),
        ("link-local", "http://[fe80::1]/a.jpg"),
        ("user name that looks like a host", "http://example.com@127.0.0.1/a.jpg"),
        ("user name and password", "http://example.com:80@127.0.0.1/a.jpg"),
        ("encoded user name", "http://example.com%2f@127.0.0.1/a.jpg"),
        ("backslash", "http://127.0.0.1\\@example.com/a.jpg"),
        ("fragment", "http://127.0.0.1#@example.com/a.jpg"),
        ("query", "http://127.0.0.1?@example.com/a.jpg"),
        ("other port", "https://127.0.0.1:8443/a.jpg"),
        ("tab and line feed", "http://12\t7.0.\n0.1/a.jpg"),
    ];

    #[test]
    fn an_address_is_refused_in_every_spelling() {
        let fetcher = fetcher(&[], Duration::ZERO, |name| panic!("{name} is looked up"));
        for (what, url) in SPELLINGS {
            let reason = runtime().block_on(reason(&fetcher, url));
            assert_eq!(reason, "blocked_address", "{what}: {url}");
        }
        for no_url in [
            "http://[fe80::1%25eth0]/a.jpg",
            "http://[fe80::1%eth0]/a.jpg",
            "http://127.0.0.1.1/a.jpg",
            "http://256.0.0.1/a.jpg",
            "http://127.0.0.0x100/a.jpg",
        ] {
            assert!(no_url.parse::<Url>().is_err(), "{no_url}: not even a URL");
        }
    }

    #[test]
    fn names_are_judged_by_their_addresses() {
        runtime().block_on(async {
            let addresses = |text: &str| -> Vec<IpAddr> {
                text.split_whitespace().map(|address| address.parse().expect("an address")).collect()
            };
            for found in ["127.0.0.1", "10.1.2.3 ::1", "169.254.169.254", "::ffff:127.0.0.1 64:ff9b::a00:1", "fe80::1"]
            {
                let fetcher = fetcher(&[], Duration::from_secs(60), move |_| Ok(addresses(found)));
                for url in ["http://localhost/a.jpg", "http://inner.example./a.jpg", "https://127.0.0.1.nip.example/"] {
                    // Twice: what is remembered is judged as well.
                    assert_eq!(reason(&fetcher, url).await, "blocked_address", "{url} at {found}");
                    assert_eq!(reason(&fetcher, url).await, "blocked_address", "{url} at {found}");
                }
            }
        });
    }

    /// A server that says 404 on a port of its own, and counts connections.
    async fn not_found(address: &str) -> (u16, Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind(address).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 404 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
            }
        });
        (port, connections, task)
    }

    #[test]
    fn a_name_that_changes_its_mind_gains_nothing() {
        runtime().block_on(async {
            // Only 127.0.0.2 is allowed. The name points there at first, and at 127.0.0.1 from the second look-up on.
            let (port, allowed, _one) = not_found("127.0.0.2:0").await;
            let (_, refused, _two) = not_found(&format!("127.0.0.1:{port}")).await;
            let look_ups = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&look_ups);
            let fetcher = fetcher(&["--allow-networks", "127.0.0.2"], Duration::ZERO, move |_| {
                let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
                Ok(vec![IpAddr::from([127, 0, 0, if first { 2 } else { 1 }])])
            });
            let url = format!("http://rebinding.example:{port}/a.jpg");
            assert_eq!(reason(&fetcher, &url).await, "gone");
            assert_eq!(look_ups.load(Ordering::SeqCst), 1, "nobody looks again between the guard and the connection");
            for _ in 0..3 {
                assert_eq!(reason(&fetcher, &url).await, "blocked_address");
            }
            assert_eq!(look_ups.load(Ordering::SeqCst), 4);
            assert_eq!((allowed.load(Ordering::SeqCst), refused.load(Ordering::SeqCst)), (1, 0));
        });
    }

    #[test]
    fn what_is_connected_to_is_what_the_guard_let_through() {
        runtime().block_on(async {
            let (port, allowed, _one) = not_found("127.0.0.2:0").await;
            let (_, refused, _two) = not_found(&format!("127.0.0.1:{port}")).await;
            // The refused one comes first, and last.
            let fetcher = fetcher(&["--allow-networks", "127.0.0.2"], Duration::ZERO, |_| {
                Ok([1, 2, 1].map(|last| IpAddr::from([127, 0, 0, last])).to_vec())
            });
            for _ in 0..5 {
                assert_eq!(reason(&fetcher, &format!("http://both.example:{port}/a.jpg")).await, "gone");
            }
            assert_eq!((allowed.load(Ordering::SeqCst), refused.load(Ordering::SeqCst)), (5, 0));
        });
    }

    #[test]
    fn idle_connections_are_bounded_over_all_hosts() {
        runtime().block_on(async {
            // One server under names without end, which keeps connections open.
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("bound").port();
            let open = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&open);
            let _server = tokio::spawn(async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((mut stream, _)) = listener.accept().await {
                    let counter = Arc::clone(&counter);
                    connections.spawn(async move {
                        counter.fetch_add(1, Ordering::SeqCst);
                        while stream.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {
                            let _ = stream.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n").await;
                        }
                        counter.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
            let arguments = ["--allow-networks", "127.0.0.1", "--concurrency", "8"];
            let fetcher = fetcher(&arguments, Duration::ZERO, |_| Ok(vec![IpAddr::from([127, 0, 0, 1])]));
            let mut most = 0;
            for n in 0..3 * IDLE_CONNECTIONS_MAX {
                assert_eq!(reason(&fetcher, &format!("http://{n}.example:{port}/a.jpg")).await, "gone");
                most = most.max(open.load(Ordering::SeqCst));
            }
            // The old client's connections close a moment after the new one has opened its first.
            assert!((IDLE_CONNECTIONS_MAX..2 * IDLE_CONNECTIONS_MAX).contains(&most), "{most} connections");
        });
    }

    #[test]
    fn what_http2_servers_send_ahead_is_bounded_for_the_whole_worker() {
        assert_eq!(http2_windows(64, 16), (256 << 10, 4 << 20));
        assert_eq!(http2_windows(256, 16), (64 << 10, 1 << 20));
        assert_eq!(http2_windows(1, 1), (1 << 20, 1 << 20));
        for concurrency in 1..=256 {
            let (stream, connection) = http2_windows(concurrency, 2000);
            assert!(
                stream as usize * concurrency <= HTTP2_AHEAD_BYTES_MAX && connection as usize <= HTTP2_AHEAD_BYTES_MAX
            );
        }
    }

    #[test]
    fn a_request_asks_for_nothing_compressed_and_says_who_asks() {
        let fetcher = fetcher(&["--user-agent", "me/1"], Duration::ZERO, |_| Ok(Vec::new()));
        let request = fetcher.written(&"http://a.example/x".parse().expect("a URL")).expect("a request");
        let said = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(
            (said(ACCEPT_ENCODING), said(USER_AGENT), said(ACCEPT)),
            (Some("identity"), Some("me/1"), Some("*/*"))
        );
    }

    #[test]
    fn credentials_in_a_link_are_sent_as_http_has_it_and_stand_nowhere_else() {
        let fetcher = fetcher(&[], Duration::ZERO, |_| Ok(Vec::new()));
        let written = |url: &str| fetcher.written(&url.parse().expect("a URL")).expect("a request");
        let request = written("https://us%20er:p%C3%A4ss@a.example:8443/x?y#z");
        assert_eq!(request.uri().to_string(), "https://a.example:8443/x?y");
        // RFC 7617: base64 of "us er:päss" in UTF-8.
        assert_eq!(request.headers()[AUTHORIZATION], "Basic dXMgZXI6cMOkc3M=");
        assert!(!format!("{request:?}").contains("cMOkc3M"), "not even in debugging output");
        assert!(written("https://a.example/x").headers().get(AUTHORIZATION).is_none());
    }
}
