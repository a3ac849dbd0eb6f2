//! The server of `/metrics`, `/readyz` and `/healthz`: small, bounded, and on a thread of its own.
//!
//! Its own thread, because a scrape (0.16 ms of CPU for its 21 KB, measured) and whoever plays with the port must not hold
//! up downloads. A client gets one answer for each connection, in bounded time; of too many
//! connections the oldest go, since an honest client is answered within milliseconds and a slow one is not.

use super::exposition::{Exposition, OPENMETRICS, PROMETHEUS};
use super::{Metrics, Watched};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// A request has to be there by then.
const REQUEST_MAX: Duration = Duration::from_secs(2);
/// And its answer gone by then.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request that are read; the least that the library takes.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// When there is no file descriptor left for a connection, the next one is tried after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Where to listen, as people write it: `127.0.0.1:9100`, `[::1]:9100`, `localhost:9100`, or `:9100` for every address of
/// this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetricsAddress {
    /// Empty for every address.
    host: String,
    port: u16,
}

impl FromStr for MetricsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<MetricsAddress, String> {
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let bare = |host: &str| !host.contains([':', '/', '[', ']', '@']) && !host.contains(char::is_whitespace);
        match parts {
            Some((host, port)) if bare(host) => Ok(MetricsAddress { host: host.to_owned(), port }),
            Some((host, port)) => match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
                Some(v6) if v6.parse::<Ipv6Addr>().is_ok() => Ok(MetricsAddress { host: v6.to_owned(), port }),
                _ => Err(advice(text)),
            },
            None => Err(advice(text)),
        }
    }
}

fn advice(text: &str) -> String {
    format!("\"{text}\" is no address to listen on: write 127.0.0.1:9100, [::1]:9100 or :9100; port 0 takes a free one")
}

impl std::fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl MetricsAddress {
    /// Takes the address.
    ///
    /// # Errors
    /// What the system says: somebody else has it, this machine has no such address, a port that only root may have.
    pub(crate) fn bind(&self) -> io::Result<TcpListener> {
        if self.host.is_empty() {
            // One listener for both families, where there are both.
            return TcpListener::bind((Ipv6Addr::UNSPECIFIED, self.port)).or_else(|error| {
                match Errno::from_io_error(&error) {
                    Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                        TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port))
                    }
                    _ => Err(error),
                }
            });
        }
        TcpListener::bind((self.host.as_str(), self.port))
    }

    /// What to do about an error of [`MetricsAddress::bind`].
    pub(crate) fn hint(error: &io::Error) -> &'static str {
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another worker or program has this port: give each worker on a machine its own with --metrics or \
                 IMGQ_METRICS; port 0 takes a free one"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 are for root: take a higher one, such as :9100",
            _ => "name an address of this machine with --metrics or IMGQ_METRICS, such as 127.0.0.1:9100 or :9100",
        }
    }
}

/// A running server; it stops when this is dropped.
#[derive(Debug)]
pub(crate) struct MetricsServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl MetricsServer {
    /// Serves on `listener`, from a thread of its own.
    pub(crate) fn start(
        listener: TcpListener,
        metrics: Arc<Metrics>,
        watched: Arc<Watched>,
    ) -> io::Result<MetricsServer> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let site = Arc::new(Site {
            exposition: Exposition::new(Arc::clone(&metrics), Arc::clone(&watched)),
            metrics,
            watched,
        });
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(&listener, &site) => {}
                    _ = stopped => {}
                }
            });
        })?;
        tracing::info!("metrics at http://{}/metrics", reachable(address));
        Ok(MetricsServer { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only waits for a signal that was just given.
            let _ = thread.join();
        }
    }
}

/// An address that can be put into a browser.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("localhost:{}", address.port()) } else { address.to_string() }
}

async fn serve(listener: &tokio::net::TcpListener, site: &Arc<Site>) {
    let mut connections = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!("no connection for metrics: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        by_age.retain(|connection| !connection.is_finished());
        if by_age.len() >= CONNECTIONS_MAX
            && let Some(oldest) = by_age.pop_front()
        {
            oldest.abort();
        }
        let site = Arc::clone(site);
        by_age.push_back(connections.spawn(async move {
            let answer = service_fn(|request| std::future::ready(Ok::<_, Infallible>(site.answer(&request))));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_MAX)
                .max_buf_size(REQUEST_BYTES_MAX)
                // One answer for each connection: none can be held open without asking for something.
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // A client that goes away, or sends what is no HTTP, is its own business.
            let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
        }));
    }
}

#[derive(Debug)]
struct Site {
    exposition: Exposition,
    metrics: Arc<Metrics>,
    watched: Arc<Watched>,
}

impl Site {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        const PLAIN: &str = "text/plain; charset=utf-8";
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".into());
            refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match request.uri().path() {
            "/metrics" => {
                let accepted = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
                let (form, text) = if wants_openmetrics(&accepted.collect::<Vec<_>>().join(",")) {
                    (OPENMETRICS, self.exposition.openmetrics())
                } else {
                    (PROMETHEUS, self.exposition.prometheus())
                };
                match text {
                    Ok(text) => page(StatusCode::OK, form, text),
                    Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
                }
            }
            // Two names for one answer: some ask the one, some the other, and a worker that is ill mends by itself.
            "/readyz" | "/healthz" => match self.watched.complaints(&self.metrics.troubles) {
                complaints if complaints.is_empty() => page(StatusCode::OK, PLAIN, "ok\n".into()),
                complaints => page(StatusCode::SERVICE_UNAVAILABLE, PLAIN, complaints.join("\n") + "\n"),
            },
            _ => page(StatusCode::NOT_FOUND, PLAIN, "there are /metrics, /readyz and /healthz\n".into()),
        }
    }
}

fn page(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}

/// Whether OpenMetrics is asked for by name, and not less than plain text is (RFC 9110, section 12.5.1).
fn wants_openmetrics(accept: &str) -> bool {
    let weight = |media_type: &str| {
        let weights = accept.split(',').filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().filter(|named| named.eq_ignore_ascii_case(media_type))?;
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            Some(weight.map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0)))
        });
        weights.fold(0.0, f32::max)
    };
    let openmetrics = weight("application/openmetrics-text");
    openmetrics > 0.0 && openmetrics >= weight("text/plain")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<MetricsAddress>().map(|address| (address.host, address.port));
        for (text, host, port) in [
            ("127.0.0.1:9100", "127.0.0.1", 9100),
            ("0.0.0.0:9100", "0.0.0.0", 9100),
            (":9100", "", 9100),
            (":0", "", 0),
            ("localhost:80", "localhost", 80),
            ("[::1]:9100", "::1", 9100),
        ] {
            assert_eq!(read(text), Ok((host.to_owned(), port)), "{text}");
            assert_eq!(text.parse::<MetricsAddress>().map(|address| address.to_string()).as_deref(), Ok(text));
        }
        for bad in ["", "9100", "127.0.0.1", "127.0.0.1:", "h:99999", "::1:9100", "[x]:1", "http://h:1", "a b:1"] {
            assert!(read(bad).is_err_and(|why| why.contains(":9100")), "{bad}");
        }
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        for (accept, wants) in [
            ("", false),
            ("*/*", false),
            ("text/plain", false),
            ("application/openmetrics-text", true),
            ("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", true),
            ("application/openmetrics-text; version=1.0.0; q=0.2, text/plain; q=0.5", false),
            ("application/openmetrics-text;q=0", false),
            ("Application/OpenMetrics-Text;Q=0.9, text/html", true),
        ] {
            assert_eq!(wants_openmetrics(accept), wants, "{accept}");
        }
    }

    #[test]
    fn an_address_that_somebody_has_is_told_with_a_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = MetricsAddress { host: "127.0.0.1".into(), port: taken.local_addr().expect("bound").port() };
        let error = address.bind().expect_err("it is taken");
        assert!(MetricsAddress::hint(&error).contains("its own"), "{error}");
        assert!(MetricsAddress { host: String::new(), port: 0 }.bind().is_ok());
    }
}
