//! What can be changed from a page: pausing, and the dead letters. Plain forms, answered with the way back to the page.

use super::parameters::Parameters;
use super::snapshot::Trouble;
use super::{Site, pages};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use common::error::QueueError;
use queue::{DeadAction, DeadPages, EntryFilter, EntryRange};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For so long one press of "retry all" goes through the dead letters; the next press goes on.
const RETRY_ALL_MAX: Duration = Duration::from_secs(15);

/// `POST /pause`.
pub(super) async fn pause(State(site): State<Arc<Site>>, request: Request) -> Response {
    set_paused(&site, request, true).await
}

/// `POST /resume`.
pub(super) async fn resume(State(site): State<Arc<Site>>, request: Request) -> Response {
    set_paused(&site, request, false).await
}

async fn set_paused(site: &Site, request: Request, paused: bool) -> Response {
    let Some(form) = site.guard.form(request).await else { return pages::stale_form() };
    let done = site.queue.set_paused(paused).await.map(|()| 1);
    back(site, &form, if paused { "pause" } else { "resume" }, done).await
}

/// `POST /dead/retry`.
pub(super) async fn retry(State(site): State<Arc<Site>>, request: Request) -> Response {
    settle_one(&site, request, DeadAction::Retry).await
}

/// `POST /dead/drop`.
pub(super) async fn drop_one(State(site): State<Arc<Site>>, request: Request) -> Response {
    settle_one(&site, request, DeadAction::Drop).await
}

async fn settle_one(site: &Site, request: Request, action: DeadAction) -> Response {
    let Some(form) = site.guard.form(request).await else { return pages::stale_form() };
    let done = async {
        let Some(entry) = form.entry("entry") else { return Ok(0) };
        match site.queue.dead_job(entry).await? {
            Some(job) => site.queue.settle_dead(action, &[job]).await,
            None => Ok(0),
        }
    };
    let done = done.await;
    back(site, &form, if action == DeadAction::Retry { "retry" } else { "drop" }, done).await
}

/// `POST /dead/retry-reason`.
pub(super) async fn retry_reason(State(site): State<Arc<Site>>, request: Request) -> Response {
    let Some(form) = site.guard.form(request).await else { return pages::stale_form() };
    let done = retry_all(&site, form.get("reason").unwrap_or_default()).await;
    back(&site, &form, "retry", done).await
}

/// Those that are dead now: a job that fails again while this goes on is a new entry, and stays.
async fn retry_all(site: &Site, reason: &str) -> Result<u64, QueueError> {
    let began = Instant::now();
    let filter = EntryFilter { reason: Some(reason.to_owned()), ..EntryFilter::default() };
    let mut pages = DeadPages::of(&site.queue, filter, EntryRange::default());
    let mut moved = 0;
    while began.elapsed() < RETRY_ALL_MAX
        && let Some(jobs) = pages.next().await?
    {
        if !jobs.is_empty() {
            moved += site.queue.settle_dead(DeadAction::Retry, &jobs).await?;
        }
    }
    Ok(moved)
}

/// To the page that the form was on, which says what was done.
async fn back(site: &Site, form: &Parameters, did: &str, done: Result<u64, QueueError>) -> Response {
    // What was seen before is not what is shown now.
    site.watcher.forget().await;
    match done {
        Ok(count) => {
            let page = if form.get("back") == Some("dead") { "/dead" } else { "/" };
            let place = if matches!(did, "retry" | "drop") && page == "/" { "#dead" } else { "" };
            Redirect::to(&format!("{page}?did={did}&n={count}{place}")).into_response()
        }
        Err(error) => pages::trouble(&Trouble::from(error)),
    }
}
