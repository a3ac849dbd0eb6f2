//! Sends viewers the sections of the overview that changed, ready to be put into the page.
//!
//! A frame is made once for all viewers, and none while nobody looks; each viewer is sent what differs from what it was sent before.

use super::Site;
use super::pages::{self, Context};
use super::parameters::Parameters;
use super::snapshot::{Seen, Snapshot};
use super::watcher::Watcher;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use program::server::Connection;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

/// How often viewers are sent what changed.
const FRAME_EVERY: Duration = Duration::from_secs(1);
/// Viewers at once.
const VIEWERS_MAX: usize = 64;
/// A stream ends then, and the browser opens the next: so that a viewer that went away without a word is noticed.
const STREAM_MAX: Duration = Duration::from_mins(10);
/// So long the browser waits before it opens the next.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// Something is sent at least so often, so that a proxy does not take the connection for idle.
const SAY_SOMETHING: Duration = Duration::from_secs(15);

/// All who look, and what they are sent.
#[derive(Debug)]
pub(super) struct Viewers {
    places: Arc<Semaphore>,
    frames: watch::Sender<Arc<Frame>>,
    somebody_came: Notify,
}

impl Viewers {
    pub(super) fn new() -> Viewers {
        Viewers {
            places: Arc::new(Semaphore::new(VIEWERS_MAX)),
            frames: watch::Sender::default(),
            somebody_came: Notify::new(),
        }
    }

    /// Frames from now on.
    fn subscribe(&self) -> watch::Receiver<Arc<Frame>> {
        let frames = self.frames.subscribe();
        self.somebody_came.notify_one();
        frames
    }

    /// Makes frames for those who subscribed, for as long as this is polled.
    pub(super) async fn serve(&self, watcher: &Watcher, context: &Context) {
        loop {
            while self.frames.receiver_count() == 0 {
                self.somebody_came.notified().await;
            }
            let frame = Arc::new(Frame::of(&watcher.latest().await, context));
            self.frames.send_replace(frame);
            tokio::time::sleep(FRAME_EVERY).await;
        }
    }
}

/// The sections of the overview at one moment.
#[derive(Debug, Default)]
struct Frame(Vec<Section>);

#[derive(Debug)]
struct Section {
    name: &'static str,
    html: String,
    hash: u64,
}

impl Frame {
    fn of(view: &Seen<Snapshot>, context: &Context) -> Frame {
        let sections = pages::overview::sections(view, context).into_iter().map(|(name, html)| {
            let html = html.into_string();
            let mut hasher = DefaultHasher::new();
            html.hash(&mut hasher);
            Section { name, html, hash: hasher.finish() }
        });
        Frame(sections.collect())
    }
}

/// What one viewer was sent, and what comes next.
struct Viewer {
    frames: watch::Receiver<Arc<Frame>>,
    sent: HashMap<&'static str, u64>,
    waiting: VecDeque<Event>,
    /// Of the charts of all ranges only those of this one are wanted.
    charts: &'static str,
    ends: Instant,
    _place: OwnedSemaphorePermit,
}

impl Viewer {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Viewer)> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some((Ok(event), self));
            }
            tokio::select! {
                changed = self.frames.changed() => changed.ok()?,
                () = tokio::time::sleep_until(self.ends) => return None,
                () = tokio::time::sleep(SAY_SOMETHING) => return Some((Ok(Event::default().comment("")), self)),
            }
            let frame = Arc::clone(&self.frames.borrow_and_update());
            for section in &frame.0 {
                let is_wanted = !section.name.starts_with(pages::overview::CHARTS) || section.name == self.charts;
                if is_wanted && self.sent.insert(section.name, section.hash) != Some(section.hash) {
                    // Its name stands in a line of its own.
                    let text = format!("{}\n{}", section.name, section.html);
                    self.waiting.push_back(Event::default().event("section").data(text));
                }
            }
            // Tells the page that this is the state of now, though nothing else may have changed.
            self.waiting.push_back(Event::default().event("tick").data("now"));
        }
    }
}

/// `GET /events?range=2h`.
pub(super) async fn answer(State(site): State<Arc<Site>>, request: Request) -> Response {
    let Ok(place) = Arc::clone(&site.viewers.places).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], "too many look at this\n")
            .into_response();
    };
    if let Some(connection) = request.extensions().get::<Connection>() {
        connection.stays_open();
    }
    let range = pages::Range::of(&Parameters::of_query(request.uri()));
    let viewer = Viewer {
        frames: site.viewers.subscribe(),
        sent: HashMap::new(),
        waiting: VecDeque::from([Event::default().retry(OPEN_AGAIN).comment("welcome")]),
        charts: range.charts(),
        ends: Instant::now() + STREAM_MAX,
        _place: place,
    };
    // Proxies are told not to collect it before they pass it on.
    let as_it_comes = [("x-accel-buffering", "no")];
    (as_it_comes, Sse::new(futures_util::stream::unfold(viewer, Viewer::next))).into_response()
}
