//! `/metrics`: the queue as numbers for Prometheus, one reading of the status for each scrape.

use super::Site;
use super::snapshot::{Figures, Seen};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use axum::response::{IntoResponse, Response};
use common::outcome::{Failure, Rejection};
use program::exposition::{OPENMETRICS, PROMETHEUS, in_the_older_form, wants_openmetrics};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use queue::Status;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// `GET /metrics`, in the form that `Accept` asks for.
pub(super) async fn answer(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let wants_openmetrics = wants_openmetrics(&accepted.collect::<Vec<_>>().join(","));
    let seen = site.watcher.figures().await;
    match written(site.queue.name(), seen, wants_openmetrics) {
        Ok(page) => ([(CONTENT_TYPE, if wants_openmetrics { OPENMETRICS } else { PROMETHEUS })], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn written(queue: &str, seen: Seen<Figures>, as_openmetrics: bool) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Numbers { queue: queue.to_owned(), seen }));
    let mut page = String::with_capacity(4 << 10);
    if as_openmetrics {
        text::encode(&mut page, &registry)?;
        return Ok(page);
    }
    text::encode_registry(&mut page, &registry)?;
    Ok(in_the_older_form(&page))
}

#[derive(Debug)]
struct Numbers {
    queue: String,
    seen: Seen<Figures>,
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "1 when Redis answered this scrape; without an answer there is no other number";
        self.gauge(&mut encoder, "imgq_queue_up", None, help, u64::from(self.seen.is_ok()))?;
        let Ok(figures) = &self.seen else { return Ok(()) };
        let status = &figures.status;
        let help = "Jobs that have no result yet, by where they are, and jobs that failed for good and were not dropped (dead)";
        let mut family = encoder.encode_descriptor("imgq_queue_jobs", help, None, MetricType::Gauge)?;
        let states = [
            ("ready", status.ready),
            ("in_flight", status.in_flight),
            ("delayed", status.delayed),
            ("dead", status.dead),
        ];
        for (state, jobs) in states {
            family.encode_family(&[("queue", self.queue.as_str()), ("state", state)])?.encode_gauge(&jobs)?;
        }
        let help = "Results since the queue began, by outcome and reason";
        let mut family = encoder.encode_descriptor("imgq_queue_results", help, None, MetricType::Counter)?;
        for ((outcome, reason), results) in by_reason(status) {
            let labels = [("queue", self.queue.as_str()), ("outcome", outcome), ("reason", reason)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&results, None)?;
        }
        let help = "Bytes of the objects that were stored since the queue began";
        let mut family =
            encoder.encode_descriptor("imgq_queue_stored", help, Some(&Unit::Bytes), MetricType::Counter)?;
        let labels = [("queue", self.queue.as_str())];
        family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&status.bytes, None)?;
        let help = "Entries that the results stream holds";
        self.gauge(&mut encoder, "imgq_queue_results_kept", None, help, status.results)?;
        self.gauge(&mut encoder, "imgq_queue_workers", None, "Workers that are alive", status.workers.len() as u64)?;
        let help = "1 while nothing is claimed, until somebody resumes";
        self.gauge(&mut encoder, "imgq_queue_paused", None, help, u64::from(status.paused))?;
        if let Some(oldest_ms) = status.oldest_ms {
            let help = "How long ago the enqueue of the first job in the queue began, where that is known";
            self.gauge(
                &mut encoder,
                "imgq_queue_oldest_job_age",
                Some(Unit::Seconds),
                help,
                oldest_ms as f64 / 1000.0,
            )?;
        }
        let help = "Hosts that everybody leaves alone for a while";
        self.gauge(&mut encoder, "imgq_queue_hosts_held", None, help, figures.hosts_held)
    }
}

impl Numbers {
    fn gauge(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        family.encode_family(&[("queue", self.queue.as_str())])?.encode_gauge(&value)
    }
}

/// Every outcome and reason that there is, so that a series is there before its first job; what a newer version counted is `other`.
fn by_reason(status: &Status) -> BTreeMap<(&'static str, &'static str), u64> {
    let known = [("stored", ""), ("stored", "exists")].into_iter();
    let known = known.chain(Rejection::ALL.iter().map(|reason| ("rejected", reason.name())));
    let known = known.chain(Failure::ALL.iter().map(|reason| ("failed", reason.name())));
    let totals = [("stored", status.stored), ("rejected", status.rejected), ("failed", status.failed)];
    let mut by_reason: BTreeMap<_, u64> = known
        .map(|(outcome, reason)| {
            let counted = status.reasons.get(&format!("{outcome}:{reason}")).copied().unwrap_or(0);
            ((outcome, reason), counted)
        })
        .collect();
    by_reason.insert(("stored", ""), status.stored_without_reason());
    for (outcome, total) in totals {
        let named: u64 = by_reason.iter().filter(|((of, _), _)| *of == outcome).map(|(_, n)| n).sum();
        let rest = total.saturating_sub(named);
        if rest > 0 {
            by_reason.insert((outcome, "other"), rest);
        }
    }
    by_reason
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Trouble;

    #[test]
    fn what_has_no_known_reason_is_still_counted() {
        let reasons = [("stored:exists", 2), ("rejected:gone", 3), ("failed:dns", 1), ("failed:from_later", 4)];
        let status = Status {
            stored: 10,
            rejected: 3,
            failed: 5,
            reasons: reasons.map(|(name, n)| (name.to_owned(), n)).into(),
            ..Status::default()
        };
        let by_reason = by_reason(&status);
        assert_eq!((by_reason[&("stored", "")], by_reason[&("stored", "exists")]), (8, 2));
        assert_eq!((by_reason[&("rejected", "gone")], by_reason.get(&("rejected", "other"))), (3, None));
        assert_eq!((by_reason[&("failed", "dns")], by_reason[&("failed", "other")]), (1, 4));
        assert_eq!(by_reason.len(), 2 + 13 + 12 + 1);
    }

    #[test]
    fn without_redis_one_number_is_left() {
        let trouble = Trouble { what: "no answer".into(), hint: None };
        let page = written("q", Err(trouble), false).expect("written");
        assert!(page.ends_with("imgq_queue_up{queue=\"q\"} 0\n") && page.lines().count() == 3, "{page}");
    }
}
