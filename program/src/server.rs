//! A small HTTP server with bounds: on its connections, on the heads of requests, and on how long they take. What is answered
//! is the caller's.
//!
//! Of too many connections the oldest are closed: an honest client is answered within moments, a slow one is not.

use hyper::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

pub use hyper::body::Incoming;
pub use hyper::{Method, Request, Response, StatusCode, header};

/// When there is no file descriptor left for a connection, the next one is tried after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once.
    pub connections_max: usize,
    /// How long the head of a request may take. With `keep_alive` an idle connection is closed after as long.
    pub head_time_max: Duration,
    /// Bytes of a request that are read ahead, its head among them: 8 KiB at least, which is the least that hyper takes.
    pub head_bytes_max: usize,
    /// Header lines of a request.
    pub head_lines_max: usize,
    /// Whether further requests may follow on a connection. Without, none can be held open by asking for nothing.
    pub keep_alive: bool,
    /// How long a connection may take from its first byte to its last; `None` where answers may go on for longer than any bound.
    pub connection_time_max: Option<Duration>,
}

/// The connection that a request came over: one of the request's extensions.
#[derive(Debug, Clone, Default)]
pub struct Connection(Arc<AtomicBool>);

impl Connection {
    /// From now on the connection is not closed for being old: its answer has no end, as one that carries events.
    pub fn stays_open(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn may_be_closed(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

/// Answers requests for as long as this is polled. Dropping it closes all connections.
pub async fn serve<Answer, Answered, Content>(listener: &TcpListener, bounds: Bounds, answer: Answer)
where
    Answer: Fn(Request<Incoming>) -> Answered + Clone + Send + 'static,
    Answered: Future<Output = Response<Content>> + Send,
    Content: Body + Send + 'static,
    Content::Data: Send,
    Content::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut connections = JoinSet::new();
    let mut by_age: VecDeque<(AbortHandle, Connection)> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        by_age.retain(|(task, _)| !task.is_finished());
        if by_age.len() >= bounds.connections_max {
            let oldest = by_age.iter().position(|(_, connection)| connection.may_be_closed());
            if let Some((task, _)) = oldest.and_then(|oldest| by_age.remove(oldest)) {
                task.abort();
            }
        }
        // An answer may be many small writes, and none of them should wait for the one before to be acknowledged.
        let _ = stream.set_nodelay(true);
        let connection = Connection::default();
        let (of_requests, answer) = (connection.clone(), answer.clone());
        let task = connections.spawn(async move {
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(of_requests.clone());
                let answered = answer(request);
                async { Ok::<_, Infallible>(answered.await) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(bounds.head_time_max)
                .max_buf_size(bounds.head_bytes_max)
                .max_headers(bounds.head_lines_max)
                .keep_alive(bounds.keep_alive)
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away, or sends what is no HTTP, is its own business.
            match bounds.connection_time_max {
                Some(time_max) => drop(tokio::time::timeout(time_max, serving).await),
                None => drop(serving.await),
            }
        });
        by_age.push_back((task, connection));
    }
}
