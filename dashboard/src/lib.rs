//! The queue in a browser: what the routes are, and what they share.
//!
//! Pages are made here, on the server, so that they can be read without JavaScript; a small script swaps their sections when
//! they changed. `guard` stands before everything, `watcher` asks Redis for everybody and makes a `snapshot`, `events` sends what changed.

mod actions;
mod assets;
mod events;
mod guard;
mod metrics;
mod pages;
mod parameters;
mod server;
mod snapshot;
mod thumbnails;
mod watcher;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use guard::{Guard, Pass};
use queue::Queue;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use thumbnails::Thumbnails;
use watcher::Watcher;

pub use guard::TOKEN_CHARACTERS_MIN;

/// A dashboard that is ready to serve.
#[derive(Debug)]
pub struct Dashboard(Arc<Site>);

/// What all requests share.
#[derive(Debug)]
struct Site {
    queue: Arc<Queue>,
    watcher: Watcher,
    viewers: events::Viewers,
    guard: Guard,
    thumbnails: Thumbnails,
    /// What pages are made with beside a snapshot.
    context: pages::Context,
}

impl Dashboard {
    /// One for `queue` that is reached at `address`; thumbnails are made of what lies below `storage`.
    pub fn new(queue: Queue, address: SocketAddr, token: Option<String>, storage: PathBuf) -> Dashboard {
        let queue = Arc::new(queue);
        let guard = Guard::new(address, token.as_deref());
        let thumbnails = Thumbnails::new(storage);
        let context = pages::Context {
            queue: queue.name().to_owned(),
            form_token: guard.form_token().to_owned(),
            storage: thumbnails.storage_watch(),
            can_log_out: token.is_some(),
        };
        Dashboard(Arc::new(Site {
            watcher: Watcher::new(Arc::clone(&queue)),
            queue,
            viewers: events::Viewers::new(),
            guard,
            thumbnails,
            context,
        }))
    }

    /// A listener of the system as one of the runtime.
    pub fn listener(listener: std::net::TcpListener) -> io::Result<tokio::net::TcpListener> {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    }

    /// Serves, and watches the queue for those who look, for as long as this is polled.
    pub async fn serve(self, listener: tokio::net::TcpListener) {
        let site = self.0;
        let router = router(Arc::clone(&site));
        tokio::select! {
            () = server::serve(&listener, router) => {}
            () = site.viewers.serve(&site.watcher, &site.context) => {}
        }
    }
}

fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(pages::overview::page))
        .route("/results", get(pages::results::page))
        .route("/dead", get(pages::dead::page))
        .route("/batch/{id}", get(pages::batch::page))
        .route("/thumb/{entry}", get(thumbnails::answer))
        .route("/events", get(events::answer))
        .route("/metrics", get(metrics::answer))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/app.css", get(assets::css))
        .route("/app.js", get(assets::js))
        .route("/icon.svg", get(assets::icon))
        .route("/login", get(pages::login::page).post(guard::log_in))
        .route("/logout", post(guard::log_out))
        .route("/pause", post(actions::pause))
        .route("/resume", post(actions::resume))
        .route("/dead/retry", post(actions::retry))
        .route("/dead/drop", post(actions::drop_one))
        .route("/dead/retry-reason", post(actions::retry_reason))
        .fallback(pages::not_found)
        .layer(middleware::from_fn_with_state(Arc::clone(&site), guard::stand))
        .with_state(site)
}

/// 200 when Redis answers. Why it does not is for those only who may read pages.
async fn ready(State(site): State<Arc<Site>>, pass: Pass) -> Response {
    match site.watcher.figures().await {
        Ok(_) => "ok\n".into_response(),
        Err(trouble) if pass.may_read() => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", trouble.what)).into_response()
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "Redis does not answer\n").into_response(),
    }
}
