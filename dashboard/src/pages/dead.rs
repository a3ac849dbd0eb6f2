//! The dead letters, newest first, page by page, of one reason where that is asked for.

use super::overview::{dead_list, retry_all};
use super::parts::number;
use super::{answer, as_of, frame, notice, trouble};
use crate::Site;
use crate::parameters::Parameters;
use crate::watcher::Trouble;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use common::error::QueueError;
use common::outcome::Failure;
use maud::html;
use queue::{DeadJob, Queue};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Jobs of a page, and jobs that are looked through for them.
const JOBS_MAX: usize = 50;
const LOOKED_AT_MAX: usize = 5000;
const READ_AT_ONCE: usize = 500;

/// Jobs, how many were looked at, and where the next page begins.
struct Found {
    jobs: Vec<DeadJob>,
    looked_at: usize,
    next: Option<String>,
}

/// `GET /dead?reason=dns&before=ENTRY`.
pub(crate) async fn page(State(site): State<Arc<Site>>, uri: Uri) -> Response {
    let query = Parameters::of_query(&uri);
    let reason = query.get("reason");
    let found = find(&site.queue, reason, query.entry("before")).await;
    let (found, now_ms) = match (found, site.queue.now_ms().await) {
        (Ok(found), Ok(now_ms)) => (found, now_ms),
        (Err(error), _) | (_, Err(error)) => return trouble(&Trouble::from(error)),
    };
    let context = site.watcher.context();
    let reasons: BTreeSet<&str> = found.jobs.iter().map(|job| job.reason.as_str()).collect();
    let body = html! {
        h1 { "Dead letters" }
        (notice(&query))
        form.filter method="get" action="/dead" {
            label for="reason" { "Reason" }
            select id="reason" name="reason" {
                option value="" { "all" }
                @for known in Failure::ALL { option value=(known.name()) selected[reason == Some(known.name())] { (known.name()) } }
            }
            button type="submit" { "Show" }
        }
        section.card aria-label="Dead letters" {
            @if found.jobs.is_empty() {
                p.muted { "None among the " (number(found.looked_at as u64)) " that were looked at." }
            } @else {
                (retry_all(context, &reasons, "dead"))
                (dead_list(context, &found.jobs, now_ms, "dead"))
            }
        }
        p.pages {
            @if query.get("before").is_some() { a href=(address(reason, None)) { "Newest" } }
            @if let Some(next) = &found.next { a href=(address(reason, Some(next))) rel="next" { "Older" } }
            span.muted { (number(found.looked_at as u64)) " looked at" }
        }
        p.muted { "By host, by age, and without pressing each: " code { "producer dead retry --host HOST --since 2h --dry-run" } }
    };
    answer(StatusCode::OK, frame(context, "Dead letters", "/dead", as_of(now_ms), html! {}, body))
}

async fn find(queue: &Queue, reason: Option<&str>, before: Option<&str>) -> Result<Found, QueueError> {
    let at_once = if reason.is_none() { JOBS_MAX } else { READ_AT_ONCE };
    let mut found = Found { jobs: Vec::new(), looked_at: 0, next: before.map(str::to_owned) };
    while found.looked_at < LOOKED_AT_MAX {
        let page = queue.newest_dead_jobs(found.next.as_deref(), at_once).await?;
        let is_last = page.len() < at_once;
        for job in page {
            found.looked_at += 1;
            found.next = Some(job.entry.clone());
            if reason.is_none_or(|reason| reason == job.reason) {
                found.jobs.push(job);
                if found.jobs.len() == JOBS_MAX {
                    return Ok(found);
                }
            }
        }
        if is_last {
            found.next = None;
            break;
        }
    }
    Ok(found)
}

fn address(reason: Option<&str>, before: Option<&str>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in [("reason", reason), ("before", before)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("/dead?{}", query.finish())
}
