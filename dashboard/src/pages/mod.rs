//! The pages: what they have in common. One file each.

pub(super) mod batch;
mod charts;
pub(super) mod dead;
pub(super) mod login;
pub(super) mod overview;
mod parts;
pub(super) mod results;
mod search;

use super::assets::{CSS_PATH, ICON_PATH, JS_PATH};
use super::parameters::Parameters;
use super::snapshot::Trouble;
use super::thumbnails::StorageWatch;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use parts::number;

/// What all pages are made with.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) queue: String,
    pub(super) form_token: String,
    pub(super) storage: StorageWatch,
    /// There is a token, and so a session to end.
    pub(super) can_log_out: bool,
}

/// How far back the charts go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    /// Two hours, a line every ten seconds.
    Hours,
    /// Eight days, a line every five minutes.
    Days,
}

impl Range {
    pub(super) const ALL: [Range; 2] = [Range::Hours, Range::Days];

    pub(super) fn of(query: &Parameters) -> Range {
        if query.get("range") == Some(Range::Days.name()) { Range::Days } else { Range::Hours }
    }

    /// The word in addresses.
    pub(super) fn name(self) -> &'static str {
        match self {
            Range::Hours => "2h",
            Range::Days => "8d",
        }
    }

    /// The section of the overview that has its charts.
    pub(super) fn charts(self) -> &'static str {
        match self {
            Range::Hours => "charts-2h",
            Range::Days => "charts-8d",
        }
    }
}

/// A page that goes to a browser.
pub(super) fn answer(status: StatusCode, page: Markup) -> Response {
    (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string()).into_response()
}

/// The frame of every page that one who may read gets.
fn frame(context: &Context, title: &str, path: &str, status: Markup, pause: Markup, body: Markup) -> Markup {
    let links = [("/", "Overview"), ("/results", "Results"), ("/dead", "Dead letters")];
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(&format!("{title} · {} · imgq", context.queue)))
            body {
                a.skip href="#main" { "Skip to the content" }
                header.bar {
                    a.brand href="/" aria-label="imgq, overview" { (mark()) span { "imgq" } }
                    span.queue title="The queue" { (context.queue) }
                    nav aria-label="Pages" {
                        @for (to, words) in links {
                            a href=(to) aria-current=[(to == path).then_some("page")] { (words) }
                        }
                    }
                    div.right {
                        (status)
                        (pause)
                        @if context.can_log_out { (parts::button(context, "/logout", &[], "quiet", "Log out", "")) }
                    }
                }
                main id="main" tabindex="-1" { (body) }
                footer { "imgq " (env!("CARGO_PKG_VERSION")) " · " a href="/metrics" { "metrics" } " · times are by the clock of Redis" }
            }
        }
    }
}

fn head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="robots" content="noindex";
            title { (title) }
            link rel="icon" href=(*ICON_PATH) type="image/svg+xml";
            link rel="stylesheet" href=(*CSS_PATH);
            script src=(*JS_PATH) {}
        }
    }
}

/// When a page was made.
fn as_of(now_ms: u64) -> Markup {
    html! { span.live { "as of " (parts::time_of_day(now_ms)) } }
}

/// The sign of imgq: a picture that comes down.
fn mark() -> Markup {
    html! {
        svg.mark viewBox="0 0 32 32" aria-hidden="true" focusable="false" {
            rect.ground width="32" height="32" rx="8" {}
            path.sign d="M16 6v12m0 0l-5-5m5 5l5-5M7 22v2a2 2 0 0 0 2 2h14a2 2 0 0 0 2-2v-2" {}
        }
    }
}

/// A page of a few words, for those who may read nothing else too.
fn bare(title: &str, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(&format!("{title} · imgq")))
            body.bare { main { div.card { p.brand { (mark()) span { "imgq" } } h1 { (title) } (body) } } }
        }
    }
}

/// What a press of a button led to, as the address of the page says.
fn notice(query: &Parameters) -> Markup {
    let count = query.get("n").and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let jobs = if count == 1 { "1 job is".to_owned() } else { format!("{} jobs are", number(count)) };
    let words = match query.get("did") {
        Some("pause") => "Paused. What is in flight finishes; nothing more is claimed.".to_owned(),
        Some("resume") => "Workers claim again.".to_owned(),
        Some("retry") => format!("{jobs} back on the queue, all attempts unspent."),
        Some("drop") => format!("{jobs} dropped. The results stay."),
        _ => return html! {},
    };
    html! { p.notice role="status" { (words) } }
}

/// A refusal before anybody knows who asks.
pub(super) fn refused(status: StatusCode, why: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Refused");
    answer(status, bare(title, html! { p { (why) } }))
}

/// A form without the token of this process, or with that of an earlier one.
pub(super) fn stale_form() -> Response {
    let body = html! {
        p { "This form is not one of this dashboard's, or is older than it. Nothing was changed." }
        p { a href="/" { "Open the overview" } " and press the button there." }
    };
    answer(StatusCode::FORBIDDEN, bare("Not done", body))
}

/// Redis did not answer.
pub(super) fn trouble(trouble: &Trouble) -> Response {
    let body = html! {
        p { (common::text::harmless(&trouble.what)) }
        @if let Some(hint) = &trouble.hint { p.muted { (hint) } }
        p { a href="/" { "Try again" } }
    };
    answer(StatusCode::SERVICE_UNAVAILABLE, bare("No answer from Redis", body))
}

/// No such page.
pub(super) async fn not_found() -> Response {
    let body = html! { p { "There is nothing at this address." } p { a href="/" { "Overview" } } };
    answer(StatusCode::NOT_FOUND, bare("Not found", body))
}
