//! The overview: the queue at a glance, in sections that are sent again when they changed.

use super::parts::{ago, badge, button, entry_ago, link, number, rate, time_of_day};
use super::{Context, Range, answer, charts, frame, notice, trouble};
use crate::Site;
use crate::parameters::Parameters;
use crate::snapshot::{Figures, Seen, Snapshot};
use crate::thumbnails::may_be_shown;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use common::report::ResultRow;
use common::text::{age, bytes, duration, percent, short};
use maud::{Markup, html};
use queue::{BatchState, DeadJob, HostState, Status, TimeLeft};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What the names of the sections with charts begin with.
pub(crate) const CHARTS: &str = "charts-";
/// Rows and pictures that are shown at most.
const WORKERS_MAX: usize = 50;
const HOSTS_MAX: usize = 12;
const OUTCOMES_MAX: usize = 12;
const PICTURES_MAX: usize = 18;

/// `GET /`.
pub(crate) async fn page(State(site): State<Arc<Site>>, uri: Uri) -> Response {
    let query = Parameters::of_query(&uri);
    let view = site.watcher.latest().await;
    let now_ms = match &view {
        Ok(snapshot) => snapshot.now_ms,
        Err(error) => return trouble(error),
    };
    let context = &site.context;
    let range = Range::of(&query);
    let mut sections: BTreeMap<&str, Markup> = sections(&view, context).into_iter().collect();
    let mut section = |name: &'static str| sections.remove(name).unwrap_or_default();
    let status = html! {
        span #live.live role="status" aria-live="polite" { "as of " (time_of_day(now_ms)) }
    };
    let pause = html! { div #pause data-live="pause" { (section("pause")) } };
    let body = html! {
        h1.hidden { "Queue " (context.queue) }
        div #alert data-live="alert" { (section("alert")) }
        (notice(&query))
        section #numbers.numbers data-live="numbers" aria-label="Numbers" { (section("numbers")) }
        section aria-label="Over time" {
            nav.ranges aria-label="How far back" {
                @for choice in Range::ALL {
                    a href=(if choice == Range::Hours { "/" } else { "/?range=8d" }) aria-current=[(choice == range).then_some("true")] {
                        @match choice { Range::Hours => "2 hours", Range::Days => "8 days" }
                    }
                }
            }
            div #charts.two data-live=(range.charts()) { (section(range.charts())) }
        }
        section #pictures.card data-live="pictures" aria-label="Latest pictures" { (section("pictures")) }
        div.two {
            section #workers.card data-live="workers" aria-label="Workers" { (section("workers")) }
            section #hosts.card data-live="hosts" aria-label="Hosts" { (section("hosts")) }
        }
        div.two {
            section #outcomes.card data-live="outcomes" aria-label="Outcomes" { (section("outcomes")) }
            section #batches.card data-live="batches" aria-label="Batches" { (section("batches")) }
        }
        section #dead.card data-live="dead" aria-label="Dead letters" { (section("dead")) }
    };
    answer(StatusCode::OK, frame(context, "Overview", "/", status, pause, body))
}

/// All sections by name. Without an answer from Redis there is one, which says so; the others stay as they were.
pub(crate) fn sections(view: &Seen<Snapshot>, context: &Context) -> Vec<(&'static str, Markup)> {
    let snapshot = match view {
        Ok(snapshot) => snapshot,
        Err(error) => {
            let words = common::text::harmless(&error.what);
            return vec![(
                "alert",
                html! { p.notice.wrong role="alert" { (words) ". What you see is what was there before." } },
            )];
        }
    };
    let status = &snapshot.figures.status;
    let mut sections = vec![
        ("alert", alert(status)),
        ("pause", pause(status, context)),
        ("numbers", numbers(status)),
        ("pictures", pictures(&snapshot.results, snapshot.now_ms, context)),
        ("workers", workers(status, snapshot.now_ms)),
        ("hosts", hosts(&snapshot.figures)),
        ("outcomes", outcomes(status)),
        ("batches", batches(&snapshot.batches, snapshot.now_ms)),
        ("dead", dead(&snapshot.dead, status.dead, snapshot.now_ms, context)),
    ];
    for range in Range::ALL {
        let history = &snapshot.history;
        let both = html! {
            div.card { (charts::throughput(history, range)) }
            div.card { (charts::depth(history, range)) }
        };
        sections.push((range.charts(), both));
    }
    sections
}

fn alert(status: &Status) -> Markup {
    html! {
        @if status.paused {
            p.notice.paused { b { "Paused." } " What is in flight finishes; nothing more is claimed until somebody resumes." }
        } @else if status.left() > 0 && status.workers.is_empty() {
            p.notice.paused { b { "No worker is alive." } " Jobs wait until one is started: " code { "worker --queue " (status.queue) } }
        }
    }
}

fn pause(status: &Status, context: &Context) -> Markup {
    match status.paused {
        true => button(context, "/resume", &[], "primary", "Resume", "Resume: let workers claim again"),
        false => button(context, "/pause", &[], "quiet", "Pause", "Pause: let no worker claim anything"),
    }
}

fn numbers(status: &Status) -> Markup {
    let (left, ended) = (status.left(), status.ended());
    let time_left = match status.time_left() {
        TimeLeft::Nothing => "done".to_owned(),
        TimeLeft::Paused => "paused".to_owned(),
        TimeLeft::About(time) => duration(time),
        TimeLeft::Unknown => "–".to_owned(),
    };
    let share = |n: u64, of: u64| n as f64 / of.max(1) as f64;
    let parts = [("stored", status.stored), ("rejected", status.rejected), ("failed", status.failed)];
    let parts = parts.map(|(outcome, jobs)| (outcome, share(jobs, ended + left)));
    let label = format!(
        "Of {} jobs {} are stored, {} rejected, {} failed, {} left",
        number(ended + left),
        number(status.stored),
        number(status.rejected),
        number(status.failed),
        number(left)
    );
    html! {
        (charts::parts_of_whole(&label, &parts))
        dl.large {
            (tile("Images a second", &rate(status.jobs_a_second()), &format!("{} in flight", number(status.in_flight)), ""))
            (tile("Stored", &number(status.stored), &bytes(status.bytes), ""))
            (tile("Left to do", &number(left), &format!("of {}", number(ended + left)), ""))
            (tile("Time left", &time_left, "at the present pace", ""))
        }
        dl.small {
            (tile("Ready", &number(status.ready), "", ""))
            (tile("In flight", &number(status.in_flight), "", ""))
            (tile("Delayed", &number(status.delayed), "", ""))
            (tile("Dead", &number(status.dead), "", if status.dead > 0 { "bad" } else { "" }))
            (tile("Rejected", &number(status.rejected), &percent(status.rejected, ended), ""))
            (tile("Failed", &number(status.failed), &percent(status.failed, ended), if share(status.failed, ended) > 0.05 { "bad" } else { "" }))
            (tile("Oldest job", &status.oldest_ms.map_or("–".into(), |ms| age(Duration::from_millis(ms))), "", ""))
            (tile("Workers", &number(status.workers.len() as u64), "", if status.workers.is_empty() && left > 0 { "bad" } else { "" }))
        }
        @if ended > 20 && share(status.not_stored(), ended) > 0.2 {
            p.notice.wrong { (percent(status.not_stored(), ended)) " of all jobs were not stored. The outcomes below say why." }
        }
    }
}

fn tile(name: &str, value: &str, beside: &str, look: &str) -> Markup {
    html! {
        div.tile.(look) {
            dt { (name) }
            dd { span.value { (value) } @if !beside.is_empty() { " " span.beside { (beside) } } }
        }
    }
}

fn pictures(results: &[ResultRow], now_ms: u64, context: &Context) -> Markup {
    let mut keys = BTreeSet::new();
    let shown: Vec<&ResultRow> =
        results.iter().filter(|row| may_be_shown(row) && keys.insert(&row.key)).take(PICTURES_MAX).collect();
    html! {
        div.title { h2 { "Latest pictures" } a href="/results?outcome=stored" { "All results" } }
        @if let Some(complaint) = context.storage.complaint() { p.muted { (short(&complaint, 300)) } }
        @if shown.is_empty() {
            p.muted { "No picture among the newest results." }
        } @else {
            ul.pictures data-keyed="" {
                @for row in shown {
                    @let name = row.key.rsplit('/').next().unwrap_or_default();
                    @let title = format!("{} · {} · {}", short(&row.url, 300), bytes(row.bytes.unwrap_or(0)), entry_ago(now_ms, &row.entry));
                    li data-key=(row.entry) title=(title) {
                        img src=(format!("/thumb/{}", row.entry)) width="160" height="160" loading="lazy" decoding="async" alt=(short(name, 60));
                    }
                }
            }
        }
    }
}

fn workers(status: &Status, now_ms: u64) -> Markup {
    let workers = status.busiest_workers();
    let seen = |ms_ago: u64| if ms_ago < 5000 { "now".to_owned() } else { ago(ms_ago, 0) };
    html! {
        div.title { h2 { "Workers" } span.muted { (number(workers.len() as u64)) " alive" } }
        @if workers.is_empty() { p.muted { "None is alive." } } @else {
            div.scroll tabindex="0" role="region" aria-label="Workers, table" {
                table {
                    thead { tr { th scope="col" { "Host" } th.n scope="col" { "In flight" } th.n scope="col" { "A second" } th.n scope="col" { "Done" } th scope="col" { "Up since" } th scope="col" { "Seen" } th scope="col" { "State" } } }
                    tbody {
                        @for worker in workers.iter().take(WORKERS_MAX) {
                            tr {
                                th scope="row" title=(short(&worker.worker, 80)) { (short(&worker.host, 40)) span.muted { " " (worker.pid) " · " (short(&worker.version, 16)) } }
                                td.n { (number(worker.in_flight)) }
                                td.n { (rate(worker.rate)) }
                                td.n { (number(worker.done)) }
                                td { (ago(now_ms, worker.started)) }
                                td { (seen(worker.seen_ms_ago)) }
                                td { @if worker.waiting.is_empty() { span.badge.good { "working" } } @else { span.badge.warn { (short(&worker.waiting, 60)) } } }
                            }
                        }
                    }
                }
            }
            @if workers.len() > WORKERS_MAX { p.muted { "and " (workers.len() - WORKERS_MAX) " more" } }
        }
    }
}

/// What is known of a host, from the workers and from what the fleet remembers.
#[derive(Debug, Default)]
struct HostRow<'a> {
    rate: f64,
    in_flight: u64,
    /// Of those that ended a second.
    failed_a_second: f64,
    remembered: Option<&'a HostState>,
}

impl HostRow<'_> {
    /// The share of what ended that was not stored.
    fn not_stored(&self) -> String {
        if self.rate <= 0.0 {
            return "–".to_owned();
        }
        // Workers tell their rates in hundredths, and shares too.
        let whole = |a_second: f64| (a_second * 1e4).round() as u64;
        percent(whole(self.failed_a_second), whole(self.rate))
    }
}

fn hosts(figures: &Figures) -> Markup {
    let mut by_name: BTreeMap<&str, HostRow<'_>> = BTreeMap::new();
    for host in figures.status.workers.iter().flat_map(|worker| &worker.hosts) {
        let row = by_name.entry(&host.host).or_default();
        row.rate += host.rate;
        row.in_flight += host.in_flight;
        row.failed_a_second += host.rate * host.failed_share;
    }
    for host in &figures.hosts {
        by_name.entry(&host.host).or_default().remembered = Some(host);
    }
    let held = |row: &HostRow<'_>| row.remembered.is_some_and(|host| host.held_for_ms.is_some());
    let mut rows: Vec<(&str, HostRow<'_>)> = by_name.into_iter().collect();
    rows.sort_by(|(_, a), (_, b)| held(b).cmp(&held(a)).then(b.rate.total_cmp(&a.rate)));
    html! {
        div.title { h2 { "Hosts" } span.muted { (number(figures.hosts_held)) " left alone" } }
        @if rows.is_empty() { p.muted { "None was asked lately." } } @else {
            div.scroll tabindex="0" role="region" aria-label="Hosts, table" {
                table {
                    thead { tr { th scope="col" { "Host" } th.n scope="col" { "A second" } th.n scope="col" { "In flight" } th.n scope="col" { "Not stored" } th scope="col" { "State" } } }
                    tbody {
                        @for (name, row) in rows.iter().take(HOSTS_MAX) {
                            tr {
                                th scope="row" title=(short(name, 300)) { (short(name, 48)) }
                                td.n { (rate(row.rate)) }
                                td.n { (number(row.in_flight)) }
                                td.n { (row.not_stored()) }
                                td.state { (state_of_host(row.remembered)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn state_of_host(host: Option<&HostState>) -> Markup {
    let Some(host) = host else { return html! { span.badge.good { "asked freely" } } };
    let why = short(&host.why, 30);
    html! {
        @if let Some(ms) = host.held_for_ms {
            span.badge.bad { "left alone" } span.muted { " for " (duration(Duration::from_millis(ms))) @if !why.is_empty() { ", " (why) } @if host.refusals > 1 { ", refused " (host.refusals) " times" } }
        } @else if host.probing {
            span.badge.warn { "probed" } span.muted { " one job tries whether it answers" }
        } @else if host.lonely_workers > 0 {
            span.badge.warn { "partly reached" } span.muted { " not from " (host.lonely_workers) " workers" }
        } @else if host.refusals > 0 {
            span.badge.warn { "careful" } span.muted { " " (why) }
        } @else if host.next_start_in_ms.is_some() {
            span.badge.good { "paced" }
        } @else {
            span.badge.good { "asked freely" }
        }
    }
}

fn outcomes(status: &Status) -> Markup {
    let mut rows: Vec<(&str, &str, u64)> = vec![("stored", "", status.stored_without_reason())];
    rows.extend(
        status
            .reasons
            .iter()
            .filter_map(|(name, n)| name.split_once(':').map(|(outcome, reason)| (outcome, reason, *n))),
    );
    rows.retain(|(_, _, n)| *n > 0);
    rows.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.cmp(b)));
    let all = status.ended();
    let most = rows.first().map_or(1, |row| row.2);
    html! {
        div.title { h2 { "Outcomes" } span.muted { (number(all)) " results" } }
        @if rows.is_empty() { p.muted { "No result yet." } } @else {
            ul.bars {
                @for (outcome, reason, n) in rows.iter().take(OUTCOMES_MAX) {
                    @let class = match *outcome { "stored" => "stored", "rejected" => "rejected", _ => "failed" };
                    li {
                        a href=(address(outcome, reason)) { (badge(outcome, reason)) }
                        (charts::parts_of_whole("", &[(class, *n as f64 / most as f64)]))
                        span.n { (number(*n)) span.muted { " " (percent(*n, all)) } }
                    }
                }
            }
        }
    }
}

/// The results of an outcome and reason; reasons are words of ours, but whoever writes to Redis may have others.
fn address(outcome: &str, reason: &str) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("outcome", outcome)
        .append_pair("reason", reason)
        .finish();
    format!("/results?{query}")
}

fn batches(batches: &[BatchState], now_ms: u64) -> Markup {
    html! {
        div.title { h2 { "Batches" } span.muted { "newest first" } }
        @if batches.is_empty() { p.muted { "None yet. " code { "producer enqueue links.txt" } } } @else {
            ul.batches {
                @for batch in batches {
                    li {
                        div.line {
                            a href=(format!("/batch/{}", batch.batch)) { code { (batch.batch) } }
                            span.source { (short(&batch.source, 60)) }
                            span.muted { (ago(now_ms, batch.started)) }
                        }
                        progress max=(batch.enqueued.max(1)) value=(batch.done()) aria-label=(format!("Batch {}", batch.batch)) { (batch.percent_done()) " %" }
                        div.line.muted {
                            span { (number(batch.done())) " of " (number(batch.enqueued)) " done" }
                            span { (number(batch.stored)) " stored" }
                            @if batch.rejected > 0 { span { (number(batch.rejected)) " rejected" } }
                            @if batch.failed > 0 { span { (number(batch.failed)) " failed" } }
                            span { (batch.stage()) }
                        }
                    }
                }
            }
        }
    }
}

fn dead(jobs: &[DeadJob], all: u64, now_ms: u64, context: &Context) -> Markup {
    let reasons: BTreeSet<&str> = jobs.iter().map(|job| job.reason.as_str()).collect();
    html! {
        div.title { h2 { "Dead letters" } a href="/dead" { "All " (number(all)) } }
        @if jobs.is_empty() { p.muted { "None: no job failed for good." } } @else {
            (retry_all(context, &reasons, "overview"))
            (dead_list(context, jobs, now_ms, "overview"))
        }
    }
}

/// A button for each reason. One that cannot be shown as it is was not written by a worker, and would come back from the form as
/// another.
pub(super) fn retry_all(context: &Context, reasons: &BTreeSet<&str>, back: &str) -> Markup {
    html! {
        div.buttons {
            @for reason in reasons.iter().filter(|reason| short(reason, 64) == **reason) {
                (button(context, "/dead/retry-reason", &[("reason", reason), ("back", back)], "", &format!("Retry all {}", short(reason, 40)), ""))
            }
        }
    }
}

/// Dead jobs, each with what can be done about it.
pub(super) fn dead_list(context: &Context, jobs: &[DeadJob], now_ms: u64, back: &str) -> Markup {
    html! {
        ul.dead {
            @for job in jobs {
                @let fields = [("entry", job.entry.as_str()), ("back", back)];
                @let named = short(&job.url, 80);
                li {
                    div.what {
                        (link(&job.url))
                        div.line.muted {
                            (badge("failed", &job.reason))
                            span { (job.attempts) @if job.attempts == 1 { " attempt" } @else { " attempts" } }
                            span { (entry_ago(now_ms, &job.entry)) }
                        }
                    }
                    div.buttons {
                        (button(context, "/dead/retry", &fields, "", "Retry", &format!("Retry {named}")))
                        (button(context, "/dead/drop", &fields, "danger", "Drop", &format!("Drop {named}")))
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use queue::WorkerState;

    fn context() -> Context {
        Context { queue: "q".into(), form_token: "secret".into(), storage: Default::default(), can_log_out: false }
    }

    #[test]
    fn strangers_words_are_text_wherever_they_are() {
        let hostile = "https://x.org/<script>alert(1)</script>\"><img src=x onerror=alert(1)>\u{1b}[2J\u{202e}";
        let text = || hostile.to_owned();
        let worker = WorkerState {
            worker: text(),
            host: text(),
            version: text(),
            waiting: text(),
            hosts: vec![queue::WorkerHost { host: text(), ..Default::default() }],
            ..WorkerState::default()
        };
        let status = Status {
            stored: 2,
            failed: 1,
            dead: 1,
            reasons: [(format!("failed:{hostile}"), 1)].into(),
            workers: vec![worker],
            ..Status::default()
        };
        let held = HostState { host: format!("{hostile}2"), held_for_ms: Some(5), why: text(), ..HostState::default() };
        let snapshot = Snapshot {
            figures: Arc::new(Figures { status, hosts: vec![held], hosts_held: 1 }),
            batches: vec![BatchState { batch: "0123456789ab".into(), source: text(), ..BatchState::default() }],
            results: vec![ResultRow {
                entry: "1-0".into(),
                url: text(),
                key: text(),
                outcome: "stored".into(),
                media_type: "jpeg".into(),
                ..ResultRow::default()
            }],
            dead: vec![DeadJob { entry: "1-0".into(), url: text(), reason: text(), ..DeadJob::default() }],
            ..Snapshot::default()
        };
        for (name, section) in sections(&Ok(Arc::new(snapshot)), &context()) {
            let section = section.into_string();
            assert!(!section.contains("<script") && !section.contains("<img src=x"), "{name}: {section}");
            assert!(!section.contains(['\u{1b}', '\u{202e}']), "{name}: {section}");
            assert!(!section.contains(" style="), "{name}: the policy forbids it");
        }
    }

    #[test]
    fn without_redis_what_was_seen_stays() {
        let trouble = crate::snapshot::Trouble { what: "no answer".into(), hint: None };
        let sections = sections(&Err(trouble), &context());
        assert!(
            sections.len() == 1
                && sections[0].0 == "alert"
                && sections[0].1.clone().into_string().contains("no answer")
        );
    }
}
