//! Connections: names resolved, addresses judged, TCP and TLS set up within the connect time, through a proxy where the
//! environment's were asked for.
//!
//! Every address passes the guard on its way from the resolver to the socket: there is no second look-up in between that
//! could answer something else (rebinding), and the address at the other end is looked at once more when the connection stands.

use super::connect_timer::{self, timed};
use super::resolver::{LookupError, Resolver};
use super::turns::{Backlog, Bytes, Frames, InTurns};
use crate::address_guard::AddressGuard;
use crate::metrics::Metrics;
use futures_util::future::BoxFuture;
use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tower_service::Service;

type BoxError = Box<dyn Error + Send + Sync>;

/// Why no connection stands, where the kind of it decides on the outcome. Everything else is an error of the system's.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectFailure {
    #[error("every address of the name is refused by the address guard")]
    Blocked,
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("no connection within the connect timeout")]
    TimedOut,
    #[error("the TLS handshake failed")]
    Tls(#[source] BoxError),
}

/// Proxies that the environment names.
#[derive(Debug, Clone)]
pub(super) struct Proxies {
    matcher: Arc<Matcher>,
}

impl Proxies {
    /// Reads `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either case.
    ///
    /// # Errors
    /// The scheme of a proxy that cannot be used.
    pub(super) fn from_environment() -> Result<Proxies, String> {
        let proxies = Proxies { matcher: Arc::new(Matcher::from_env()) };
        for any in ["http://proxy-probe.invalid/", "https://proxy-probe.invalid/"] {
            if let Some(found) = proxies.of(&Uri::from_static(any))
                && found.uri().scheme_str() != Some("http")
            {
                return Err(found.uri().scheme_str().unwrap_or_default().to_owned());
            }
        }
        Ok(proxies)
    }

    fn of(&self, target: &Uri) -> Option<Intercept> {
        self.matcher.intercept(target)
    }

    /// What a request has to say to the proxy itself; for https the tunnel says it.
    pub(super) fn authorization(&self, target: &Uri) -> Option<HeaderValue> {
        if target.scheme_str() == Some("https") {
            return None;
        }
        self.of(target)?.basic_auth().cloned()
    }
}

/// Resolves names for connections, and lets only those addresses through that the guard permits.
#[derive(Debug, Clone)]
struct Addresses {
    resolver: Resolver,
    /// `None` for the names of proxies, which are the operator's own.
    guard: Option<Arc<AddressGuard>>,
    metrics: Arc<Metrics>,
}

impl Service<Name> for Addresses {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ConnectFailure;
    type Future = BoxFuture<'static, Result<Self::Response, ConnectFailure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Addresses { resolver, guard, metrics } = self.clone();
        Box::pin(async move {
            let asked = Instant::now();
            let found = resolver.resolve(name.as_str()).await;
            connect_timer::looked_up(asked.elapsed());
            let found = found?;
            let permits = |address: &IpAddr| {
                let permitted = guard.as_ref().is_none_or(|guard| guard.permits(*address));
                if !permitted {
                    metrics.refused_address();
                }
                permitted
            };
            let permitted: Vec<_> = found.iter().filter(|address| permits(address)).collect();
            if permitted.is_empty() {
                return Err(ConnectFailure::Blocked);
            }
            // The port is filled in by whoever connects.
            let addresses: Vec<_> = permitted.into_iter().map(|address| SocketAddr::new(*address, 0)).collect();
            Ok(addresses.into_iter())
        })
    }
}

/// Opens TCP connections: to the target, or to the proxy that is in front of it.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    direct: HttpConnector<Addresses>,
    guard: Arc<AddressGuard>,
    proxies: Option<(Proxies, HttpConnector<Addresses>)>,
    open: Arc<AtomicUsize>,
}

/// An error of [`Dialer`], as opposed to one of the TLS handshake that follows.
#[derive(Debug, thiserror::Error)]
#[error("no connection")]
pub(super) struct NoConnection(#[source] BoxError);

impl Service<Uri> for Dialer {
    type Response = Dialed;
    type Error = NoConnection;
    type Future = BoxFuture<'static, Result<Dialed, NoConnection>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoConnection>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let Dialer { mut direct, guard, proxies, open } = self.clone();
        Box::pin(async move {
            let is_https = target.scheme_str() == Some("https");
            let through = proxies.and_then(|(proxies, connector)| Some((proxies.of(&target)?, connector)));
            let (stream, proxied) = match through {
                None => {
                    let stream = direct.call(target).await.map_err(|error| NoConnection(error.into()))?;
                    // The name was judged by its addresses, and a literal address before it came here. This is for what nobody
                    // thought of; one system call for a connection.
                    let peer = stream.inner().peer_addr().map_err(|error| NoConnection(error.into()))?;
                    if !guard.permits(peer.ip()) {
                        return Err(NoConnection(ConnectFailure::Blocked.into()));
                    }
                    (stream, false)
                }
                Some((proxy, connector)) if is_https => {
                    let mut tunnel = Tunnel::new(proxy.uri().clone(), connector);
                    if let Some(authorization) = proxy.basic_auth() {
                        tunnel = tunnel.with_auth(authorization.clone());
                    }
                    (tunnel.call(target).await.map_err(|error| NoConnection(error.into()))?, false)
                }
                Some((proxy, mut connector)) => {
                    (connector.call(proxy.uri().clone()).await.map_err(|error| NoConnection(error.into()))?, true)
                }
            };
            // One byte is the least, and is passed by: who reads has room for more.
            let ahead = if is_https { READ_AHEAD_UNDER_TLS } else { 1 };
            let stream = InTurns::new(stream.into_inner(), Bytes::default());
            let stream = TokioIo::new(BufReader::with_capacity(ahead, stream));
            Ok(Dialed { stream, proxied, how: Use::default(), _open: Open::count(open) })
        })
    }
}

/// One open connection, counted.
#[derive(Debug)]
struct Open(Arc<AtomicUsize>);

impl Open {
    fn count(open: Arc<AtomicUsize>) -> Open {
        open.fetch_add(1, Ordering::Relaxed);
        Open(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is read ahead of TLS, bytes: rustls asks for 4 KiB at a time, which is 16 calls for a picture of 65 KB. Plain HTTP
/// reads into hyper's own buffer, past this one.
const READ_AHEAD_UNDER_TLS: usize = 32 << 10;

/// How a connection is used: whether it has answered before, and what of its frames nobody has taken. It comes with each answer, and
/// with each error that a connection met.
#[derive(Debug, Clone, Default)]
pub(super) struct Use {
    has_answered: Arc<AtomicBool>,
    backlog: Backlog,
}

impl Use {
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }

    pub(super) fn set_answered(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
    }

    pub(super) fn backlog(&self) -> &Backlog {
        &self.backlog
    }
}

/// A connection to the target, or to the proxy in front of it.
#[derive(Debug)]
pub(super) struct Dialed {
    stream: TokioIo<BufReader<InTurns<TcpStream, Bytes>>>,
    /// Requests are written in the form that a proxy expects.
    proxied: bool,
    how: Use,
    _open: Open,
}

impl Connection for Dialed {
    fn connected(&self) -> Connected {
        // The addresses of both ends, which TcpStream's own answer asks the system for, are of no use to anybody here.
        Connected::new().proxy(self.proxied).extra(self.how.clone())
    }
}

impl Read for Dialed {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl Write for Dialed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }
}

/// Opens connections that requests can be sent on: TCP, and TLS for https, within the connect time.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    https: HttpsConnector<Dialer>,
    timeout: Duration,
    metrics: Arc<Metrics>,
}

/// What connections are opened with; the same for all of them.
#[derive(Debug, Clone)]
pub(super) struct Dialling {
    pub(super) resolver: Resolver,
    pub(super) guard: Arc<AddressGuard>,
    pub(super) proxies: Option<Proxies>,
    pub(super) tls: rustls::ClientConfig,
    pub(super) timeout: Duration,
    pub(super) metrics: Arc<Metrics>,
}

impl Connector {
    /// `open` counts the connections that this connector has opened and that are still there.
    pub(super) fn new(with: &Dialling, open: Arc<AtomicUsize>) -> Connector {
        let tcp = |guard| {
            let mut tcp = HttpConnector::new_with_resolver(Addresses {
                resolver: with.resolver.clone(),
                guard,
                metrics: Arc::clone(&with.metrics),
            });
            // TLS comes on top.
            tcp.enforce_http(false);
            tcp.set_nodelay(true);
            // A name with several addresses gets a share of the time for each.
            tcp.set_connect_timeout(Some(with.timeout));
            tcp
        };
        let dialer = Dialer {
            direct: tcp(Some(Arc::clone(&with.guard))),
            guard: Arc::clone(&with.guard),
            proxies: with.proxies.clone().map(|proxies| (proxies, tcp(None))),
            open,
        };
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(with.tls.clone())
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(dialer);
        Connector { https, timeout: with.timeout, metrics: Arc::clone(&with.metrics) }
    }
}

/// A connection as requests are sent on it: plain or behind TLS.
type Plaintext = TokioIo<MaybeHttpsStream<Dialed>>;

impl Connection for InTurns<Plaintext, Option<Frames>> {
    fn connected(&self) -> Connected {
        self.stream().inner().connected()
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<InTurns<Plaintext, Option<Frames>>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let connecting = self.https.call(target);
        let (timeout, metrics) = (self.timeout, Arc::clone(&self.metrics));
        Box::pin(async move {
            match tokio::time::timeout(timeout, timed(&metrics, connecting)).await {
                Ok(Ok(connection)) => {
                    let connected = connection.connected();
                    let mut about = hyper::http::Extensions::new();
                    connected.get_extras(&mut about);
                    let backlog = about.get::<Use>().map(Use::backlog).cloned().unwrap_or_default();
                    let frames = connected.is_negotiated_h2().then(|| Frames::of(backlog));
                    Ok(TokioIo::new(InTurns::new(TokioIo::new(connection), frames)))
                }
                Ok(Err(error)) if error.is::<NoConnection>() => Err(error),
                Ok(Err(error)) => Err(ConnectFailure::Tls(error).into()),
                Err(_) => Err(ConnectFailure::TimedOut.into()),
            }
        })
    }
}

/// TLS as the machine trusts it: the system's authorities, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. Sessions are
/// resumed: rustls keeps tickets of the last 256 servers.
///
/// # Errors
/// When no authority is there to trust.
pub(super) fn tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // As browsers have it: what is said first is what servers take, and AES with 128 bits has 10 rounds where 256 has 14.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider = Arc::new(provider);
    let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(&provider))?;
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}
