//! The server below the routes: connections, bounded in number, and in what and how long their requests are.
//!
//! Of too many connections the oldest go, but for those that events are sent over, which are counted for themselves: an honest
//! client is answered within moments.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

/// Connections at once.
const CONNECTIONS_MAX: usize = 256;
/// The head of a request has to be there by then; an idle connection is closed after as long.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Header lines of a request. Browsers send about 20, proxies add a few.
const HEADERS_MAX: usize = 64;
/// When there is no file descriptor left for a connection, the next one is tried after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// A connection, as its requests know it.
#[derive(Debug, Clone, Default)]
pub(super) struct Connection(Arc<AtomicBool>);

impl Connection {
    /// From now on it carries events, and is not closed for being old.
    pub(super) fn carries_events(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Answers requests for as long as this is polled.
pub(super) async fn serve(listener: &TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    let mut by_age: VecDeque<(AbortHandle, Connection)> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!("no connection for the dashboard: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        by_age.retain(|(task, _)| !task.is_finished());
        if by_age.len() >= CONNECTIONS_MAX {
            let oldest = by_age.iter().position(|(_, connection)| !connection.0.load(Ordering::Relaxed));
            if let Some((task, _)) = oldest.and_then(|oldest| by_age.remove(oldest)) {
                task.abort();
            }
        }
        // A page is many small parts.
        let _ = stream.set_nodelay(true);
        let connection = Connection::default();
        let (router, of_requests) = (TowerToHyperService::new(router.clone()), connection.clone());
        let task = connections.spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(of_requests.clone());
                hyper::service::Service::call(&router, request)
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_MAX)
                .max_buf_size(HEAD_BYTES_MAX)
                .max_headers(HEADERS_MAX)
                .serve_connection(TokioIo::new(stream), answer);
            // A client that goes away, or sends what is no HTTP, is its own business.
            let _ = serving.await;
        });
        by_age.push_back((task, connection));
    }
}
