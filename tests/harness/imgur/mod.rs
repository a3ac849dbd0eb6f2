//! An Imgur that behaves like Imgur: API, web endpoint and image host under one address.
//!
//! API at `/3/…`, pages at `/web/…`, files at `/i/…`. Shapes, drifting types, errors and headers follow what public clients
//! recorded of the real one; see `answers`.

mod answers;
pub mod catalog;
pub mod picture;

use catalog::Catalog;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How the simulator behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What links in its answers begin with; by default its own address.
    pub public_url: Option<String>,
    /// Another seed, another Imgur.
    pub seed: u64,
    /// Pages of each gallery.
    pub pages: usize,
    /// Items of a page.
    pub page_items: usize,
    /// Every so many items, one is removed; 0 for none.
    pub removed_every: usize,
    /// API requests that a client has.
    pub credits: i64,
    /// API requests that the application has for its day.
    pub client_credits: i64,
    /// What the image host waits before it answers.
    pub latency: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            public_url: None,
            seed: 1,
            pages: 5,
            page_items: 12,
            removed_every: 0,
            credits: 500,
            client_credits: 12_000,
            latency: Duration::ZERO,
        }
    }
}

/// An answer that the next API request gets instead of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// HTTP 429, the address's limit.
    TooManyRequests,
    /// HTTP 403 with "over capacity".
    OverCapacity,
    /// HTTP 502 with an HTML page.
    HtmlBadGateway,
    /// HTTP 400 whose error is an object.
    NestedError,
    /// HTTP 200 and success, with an error inside.
    ErrorInsideSuccess,
    /// HTTP 200 whose JSON breaks off.
    TruncatedJson,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    base: String,
    catalog: Catalog,
    credits_left: AtomicI64,
    client_credits_left: AtomicI64,
    faults: Mutex<VecDeque<Fault>>,
    requests: Mutex<Vec<String>>,
}

/// A running simulator; it ends when this is dropped.
#[derive(Debug)]
pub struct Imgur {
    shared: Arc<Shared>,
    /// `None` inside somebody else's runtime.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Imgur {
    /// Starts one, with a runtime of its own.
    ///
    /// # Panics
    /// When the address cannot be listened on.
    pub fn start(config: Config) -> Imgur {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let shared = runtime.block_on(serve(config)).expect("the address is free");
        Imgur { shared, runtime: Some(runtime) }
    }

    /// Starts one inside the current runtime; it ends with that.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start_here(config: Config) -> std::io::Result<Imgur> {
        Ok(Imgur { shared: serve(config).await?, runtime: None })
    }

    /// For `IMGUR_API_URL`.
    pub fn api_url(&self) -> String {
        self.shared.base.clone()
    }

    /// For `IMGUR_WEB_URL`.
    pub fn web_url(&self) -> String {
        format!("{}/web", self.shared.base)
    }

    /// For `IMGUR_IMAGE_URL`.
    pub fn image_url(&self) -> String {
        format!("{}/i", self.shared.base)
    }

    /// What there is.
    pub fn catalog(&self) -> &Catalog {
        &self.shared.catalog
    }

    /// Gives the next API requests these answers, one each.
    pub fn fail_next(&self, faults: &[Fault]) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).extend(faults);
    }

    /// Paths that were asked for, in their order.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Imgur {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(config: Config) -> std::io::Result<Arc<Shared>> {
    let listener = tokio::net::TcpListener::bind(config.listen).await?;
    let own = format!("http://{}", listener.local_addr()?);
    let shared = Arc::new(Shared {
        base: config.public_url.clone().unwrap_or(own).trim_end_matches('/').to_owned(),
        catalog: Catalog::new(config.clone()),
        credits_left: AtomicI64::new(config.credits),
        client_credits_left: AtomicI64::new(config.client_credits),
        config,
        faults: Mutex::default(),
        requests: Mutex::default(),
    });
    let router = answers::router(Arc::clone(&shared));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(shared)
}
