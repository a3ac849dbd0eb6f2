//! The dead letters, newest first, page by page, of one reason where that is asked for.

use super::overview::{dead_list, retry_all};
use super::parts::number;
use super::search::newest;
use super::{answer, as_of, frame, notice, trouble};
use crate::Site;
use crate::parameters::Parameters;
use crate::snapshot::Trouble;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use common::outcome::Failure;
use maud::html;
use queue::DeadJob;
use std::collections::BTreeSet;
use std::sync::Arc;

/// `GET /dead?reason=dns&before=ENTRY`.
pub(crate) async fn page(State(site): State<Arc<Site>>, uri: Uri) -> Response {
    let query = Parameters::of_query(&uri);
    let reason = query.get("reason");
    let is_wanted = reason.map(|reason| move |job: &DeadJob| job.reason == reason);
    let found = newest(&site.queue, query.entry("before"), is_wanted).await;
    let (found, now_ms) = match (found, site.queue.now_ms().await) {
        (Ok(found), Ok(now_ms)) => (found, now_ms),
        (Err(error), _) | (_, Err(error)) => return trouble(&Trouble::from(error)),
    };
    let context = &site.context;
    let reasons: BTreeSet<&str> = found.rows.iter().map(|job| job.reason.as_str()).collect();
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
            @if found.rows.is_empty() {
                p.muted { "None among the " (number(found.looked_at as u64)) " that were looked at." }
            } @else {
                (retry_all(context, &reasons, "dead"))
                (dead_list(context, &found.rows, now_ms, "dead"))
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

fn address(reason: Option<&str>, before: Option<&str>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in [("reason", reason), ("before", before)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("/dead?{}", query.finish())
}
