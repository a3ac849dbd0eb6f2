//! The results, newest first, page by page, of one outcome or reason where that is asked for.

use super::parts::{badge, entry_ago, link, number};
use super::search::newest;
use super::{answer, as_of, frame, trouble};
use crate::Site;
use crate::parameters::Parameters;
use crate::snapshot::Trouble;
use crate::thumbnails::may_be_shown;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use common::outcome::{Failure, Rejection};
use common::report::ResultRow;
use common::text::{bytes, short};
use maud::{Markup, html};
use std::sync::Arc;

/// What is wanted.
struct Wanted<'a> {
    outcome: Option<&'a str>,
    reason: Option<&'a str>,
}

/// `GET /results?outcome=failed&reason=dns&before=ENTRY`.
pub(crate) async fn page(State(site): State<Arc<Site>>, uri: Uri) -> Response {
    let query = Parameters::of_query(&uri);
    let wanted = Wanted { outcome: query.get("outcome"), reason: query.get("reason") };
    let is_wanted = |row: &ResultRow| {
        wanted.outcome.is_none_or(|outcome| outcome == row.outcome)
            && wanted.reason.is_none_or(|reason| reason == row.reason)
    };
    let is_wanted = (wanted.outcome.is_some() || wanted.reason.is_some()).then_some(is_wanted);
    let found = newest(&site.queue, query.entry("before"), is_wanted).await;
    let now_ms = site.queue.now_ms().await;
    let (found, now_ms) = match (found, now_ms) {
        (Ok(found), Ok(now_ms)) => (found, now_ms),
        (Err(error), _) | (_, Err(error)) => return trouble(&Trouble::from(error)),
    };
    let body = html! {
        h1 { "Results" }
        (filter(&wanted))
        section.card aria-label="Results" {
            @if found.rows.is_empty() { p.muted { "None among the " (number(found.looked_at as u64)) " that were looked at." } } @else { (table(&found.rows, now_ms)) }
        }
        p.pages {
            @if query.get("before").is_some() { a href=(address(&wanted, None)) { "Newest" } }
            @if let Some(next) = &found.next { a href=(address(&wanted, Some(next))) rel="next" { "Older" } }
            span.muted { (number(found.looked_at as u64)) " looked at" }
        }
        p.muted { "All of them, as a file: " code { "producer results --format csv --output results.csv" } }
    };
    answer(StatusCode::OK, frame(&site.context, "Results", "/results", as_of(now_ms), html! {}, body))
}

fn address(wanted: &Wanted<'_>, before: Option<&str>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in [("outcome", wanted.outcome), ("reason", wanted.reason), ("before", before)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("/results?{}", query.finish())
}

fn filter(wanted: &Wanted<'_>) -> Markup {
    let reasons = ["exists"].into_iter().chain(Rejection::ALL.iter().map(|reason| reason.name()));
    let reasons: Vec<&str> = reasons.chain(Failure::ALL.iter().map(|reason| reason.name())).collect();
    html! {
        form.filter method="get" action="/results" {
            label for="outcome" { "Outcome" }
            select id="outcome" name="outcome" {
                option value="" { "all" }
                @for outcome in ["stored", "rejected", "failed"] { option value=(outcome) selected[wanted.outcome == Some(outcome)] { (outcome) } }
            }
            label for="reason" { "Reason" }
            select id="reason" name="reason" {
                option value="" { "all" }
                @for reason in &reasons { option value=(reason) selected[wanted.reason == Some(reason)] { (reason) } }
            }
            button type="submit" { "Show" }
        }
    }
}

fn table(rows: &[ResultRow], now_ms: u64) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Results, table" {
            table.results {
                thead { tr { th scope="col" { "Picture" } th scope="col" { "Link" } th scope="col" { "Outcome" } th.n scope="col" { "Size" } th scope="col" { "When" } } }
                tbody {
                    @for row in rows {
                        tr {
                            td { @if may_be_shown(row) { img.tiny src=(format!("/thumb/{}", row.entry)) width="48" height="48" loading="lazy" decoding="async" alt=""; } }
                            td.wide {
                                (link(&row.url))
                                div.muted {
                                    @if !row.key.is_empty() { span.key-of { (short(&row.key, 120)) } }
                                    @if let (Some(width), Some(height)) = (row.width, row.height) { " " (width) " × " (height) }
                                    @if !row.media_type.is_empty() { " " (short(&row.media_type, 20)) }
                                    @if let Some(status) = row.status { " HTTP " (status) }
                                    @if let Some(attempts) = row.attempts.filter(|n| *n > 1) { " " (attempts) " attempts" }
                                }
                            }
                            td { (badge(&row.outcome, &row.reason)) }
                            td.n { (row.bytes.map_or(String::new(), bytes)) }
                            td { (entry_ago(now_ms, &row.entry)) }
                        }
                    }
                }
            }
        }
    }
}
