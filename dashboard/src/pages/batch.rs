//! One batch: how far it is, what became of its jobs, which hosts gave trouble, and what to do about it.

use super::parts::{ago, badge, number};
use super::{answer, as_of, charts, frame, not_found, trouble};
use crate::Site;
use crate::snapshot::Trouble;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use common::error::QueueError;
use common::job::BatchId;
use common::text::{bytes, duration, percent, short};
use maud::{Markup, html};
use queue::BatchState;
use std::sync::Arc;

/// Rows of a list, at most.
const ROWS_MAX: usize = 30;

/// `GET /batch/ID`.
pub(crate) async fn page(State(site): State<Arc<Site>>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<BatchId>() else { return not_found().await };
    let (batch, now_ms) = match site.queue.batch(id).await {
        Ok(found) => found,
        Err(QueueError::NoSuchBatch(_)) => return not_found().await,
        Err(error) => return trouble(&Trouble::from(error)),
    };
    let title = format!("Batch {}", batch.batch);
    answer(StatusCode::OK, frame(&site.context, &title, "", as_of(now_ms), html! {}, body(&batch, now_ms)))
}

fn body(batch: &BatchState, now_ms: u64) -> Markup {
    let share = |n: u64| n as f64 / batch.enqueued.max(1) as f64;
    let mut reasons: Vec<(&str, u64)> = batch.reasons.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let mut hosts: Vec<(&str, u64)> = batch.hosts.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    hosts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let facts = [
        ("Done", number(batch.done()), format!("of {}, {} %", number(batch.enqueued), batch.percent_done())),
        ("Stored", number(batch.stored), bytes(batch.bytes)),
        ("Rejected", number(batch.rejected), percent(batch.rejected, batch.enqueued)),
        ("Failed", number(batch.failed), percent(batch.failed, batch.enqueued)),
        ("Duplicates", number(batch.duplicates), "left out".to_owned()),
        (if batch.finished > 0 { "Took" } else { "Runs for" }, duration(batch.took(now_ms)), batch.stage().to_owned()),
    ];
    let label = format!("{} of {} jobs are stored", number(batch.stored), number(batch.enqueued));
    let parts = [("stored", share(batch.stored)), ("rejected", share(batch.rejected)), ("failed", share(batch.failed))];
    html! {
        h1 { "Batch " code { (batch.batch) } }
        p.muted { (short(&batch.source, 300)) " · " (ago(now_ms, batch.started)) }
        section.numbers aria-label="Numbers" {
            (charts::parts_of_whole(&label, &parts))
            dl.large { @for (name, value, beside) in &facts { div.tile { dt { (name) } dd { span.value { (value) } " " span.beside { (beside) } } } } }
            @if batch.purged > 0 { p.muted { (number(batch.purged)) " were purged before anybody got to them." } }
        }
        div.two {
            section.card aria-label="Outcomes" {
                div.title { h2 { "What became of them" } }
                @if reasons.is_empty() { p.muted { "Nothing but plain stored ones." } }
                ul.bars {
                    @for (name, n) in reasons.iter().take(ROWS_MAX) {
                        @let (outcome, reason) = name.split_once(':').unwrap_or((name, ""));
                        @let class = match outcome { "stored" => "stored", "rejected" => "rejected", _ => "failed" };
                        li { (badge(outcome, reason)) (charts::parts_of_whole("", &[(class, share(*n))])) span.n { (number(*n)) } }
                    }
                }
            }
            section.card aria-label="Hosts" {
                div.title { h2 { "Hosts with jobs that were not stored" } }
                @if hosts.is_empty() { p.muted { "None." } }
                ul.bars {
                    @for (name, n) in hosts.iter().take(ROWS_MAX) {
                        li { span.host { (short(name, 60)) } (charts::parts_of_whole("", &[("rejected", share(*n))])) span.n { (number(*n)) } }
                    }
                }
            }
        }
        p.muted { "Its results, as a file: " code { "producer results --batch " (batch.batch) " --format csv" } }
    }
}
