//! The server of `/metrics`, `/readyz` and `/healthz`: small, bounded, and on a thread of its own.
//!
//! Its own thread, because a scrape (0.16 ms of CPU for its 21 KB, measured) and whoever plays with the port must not hold
//! up downloads.

use super::exposition::Exposition;
use super::{Metrics, Watched};
use bytes::Bytes;
use http_body_util::Full;
use program::exposition::{OPENMETRICS, PROMETHEUS, wants_openmetrics};
use program::server::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use program::server::{Bounds, Method, Request, Response, StatusCode, serve};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What whoever scrapes may take.
const BOUNDS: Bounds = Bounds {
    connections_max: 64,
    head_time_max: Duration::from_secs(2),
    head_bytes_max: 8 << 10,
    head_lines_max: 100,
    // One answer for each connection: none can be held open without asking for something.
    keep_alive: false,
    connection_time_max: Some(Duration::from_secs(10)),
};

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
                let answer = move |request| std::future::ready(site.answer(&request));
                tokio::select! {
                    () = serve(&listener, BOUNDS, answer) => {}
                    _ = stopped => {}
                }
            });
        })?;
        tracing::info!("metrics at http://{}/metrics", program::listen::reachable(address));
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
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
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
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
