//! The server below the routes: what a browser may take of connections and of requests.

use axum::Router;
use program::server::{Bounds, Incoming, Request, serve as serve_within};
use std::time::Duration;
use tokio::net::TcpListener;
use tower_service::Service;

const BOUNDS: Bounds = Bounds {
    connections_max: 256,
    head_time_max: Duration::from_secs(10),
    head_bytes_max: 32 << 10,
    // Browsers send about 20, proxies add a few.
    head_lines_max: 64,
    keep_alive: true,
    // Events go on for minutes; `guard` bounds all other answers.
    connection_time_max: None,
};

/// Answers requests for as long as this is polled.
pub(super) async fn serve(listener: &TcpListener, router: Router) {
    let answer = move |request: Request<Incoming>| {
        // It is always ready, and its error is one that cannot be.
        let answered = router.clone().call(request);
        async { answered.await.unwrap_or_else(|never| match never {}) }
    };
    serve_within(listener, BOUNDS, answer).await;
}
