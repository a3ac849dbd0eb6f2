//! The server of `/metrics`, `/readyz` and `/healthz`: small, bounded, and on a thread of its own.
//!
//! Its own thread, because a scrape (0.16 ms of CPU for its 21 KB, measured) and whoever plays with the port must not hold
//! up downloads.

use super::exposition::Exposition;
use super::{HealthCheck, Metrics};
use bytes::Bytes;
use http_body_util::Full;
use program::exposition::{OPENMETRICS, PROMETHEUS, wants_openmetrics};
use program::server::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use program::server::{Bounds, Method, Request, Response, StatusCode, serve};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

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

/// Serves metrics.
pub(crate) struct MetricsServer {
    listener: TcpListener,
    site: Arc<Site>,
}

impl MetricsServer {
    /// Of a listener that has its address.
    pub(crate) fn new(
        listener: TcpListener,
        metrics: Arc<Metrics>,
        health: Arc<HealthCheck>,
    ) -> io::Result<MetricsServer> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        tracing::info!("metrics at http://{}/metrics", program::listen::reachable(address));
        let exposition = Exposition::new(Arc::clone(&metrics), Arc::clone(&health));
        Ok(MetricsServer { listener, site: Arc::new(Site { exposition, metrics, health }) })
    }

    /// Serves for as long as it runs. Cancel safe: clients get no answer.
    pub(crate) async fn run(self) {
        match tokio::net::TcpListener::from_std(self.listener) {
            Ok(listener) => {
                let site = self.site;
                serve(&listener, BOUNDS, move |request| std::future::ready(site.answer(&request))).await;
            }
            Err(error) => tracing::error!("cannot serve metrics: {error}"),
        }
    }
}

#[derive(Debug)]
struct Site {
    exposition: Exposition,
    metrics: Arc<Metrics>,
    health: Arc<HealthCheck>,
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
            "/readyz" | "/healthz" => match self.health.complaints(&self.metrics.troubles) {
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
