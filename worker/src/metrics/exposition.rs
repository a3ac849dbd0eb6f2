//! The names of all numbers, what they mean, and the two forms of text that they are told in.
//!
//! The library writes OpenMetrics; `program/src/exposition` makes the older form of it.

use super::health::HealthCheck;
use super::instruments::{Counter, Histogram};
use super::process::ProcessFacts;
use super::{CLASSES, Metrics, Operation, Phase, STATUSES};
use common::outcome::{Failure, Rejection};
use program::exposition::in_the_older_form;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;
use storage::health::Condition;

/// Nanoseconds in a second.
const NANOS: f64 = 1e9;

/// Everything that a scrape tells.
#[derive(Debug)]
pub(super) struct Exposition(Registry);

impl Exposition {
    pub(super) fn new(metrics: Arc<Metrics>, health: Arc<HealthCheck>) -> Exposition {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Numbers { metrics, health }));
        Exposition(registry)
    }

    /// The numbers of this moment.
    pub(super) fn openmetrics(&self) -> Result<String, fmt::Error> {
        let mut page = String::with_capacity(32 << 10);
        text::encode(&mut page, &self.0)?;
        Ok(page)
    }

    /// The same in the older form.
    pub(super) fn prometheus(&self) -> Result<String, fmt::Error> {
        let mut page = String::with_capacity(32 << 10);
        text::encode_registry(&mut page, &self.0)?;
        Ok(in_the_older_form(&page))
    }
}

#[derive(Debug)]
struct Numbers {
    metrics: Arc<Metrics>,
    health: Arc<HealthCheck>,
}

/// A page that is being written. A row is the values of the labels and the number.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counter(&mut self, name: &str, unit: Option<Unit>, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn counters<'n, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        rows: impl IntoIterator<Item = ([&'n str; N], &'n Counter)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (values, counter) in rows {
            let labels: [(&str, &str); N] = std::array::from_fn(|n| (labels[n], values[n]));
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&counter.value(), None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, unit: Option<Unit>, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?.encode_gauge(&value)
    }

    /// One that the system may not tell.
    fn gauge_if(&mut self, name: &str, unit: Option<Unit>, help: &str, value: Option<u64>) -> fmt::Result {
        value.map_or(Ok(()), |value| self.gauge(name, unit, help, value))
    }

    /// Values are divided by `scale`: it makes the unit of what was counted.
    fn histogram<const B: usize>(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        scale: f64,
        histogram: &Histogram<B>,
    ) -> fmt::Result {
        let (sum, count, buckets) = scaled(histogram, scale);
        let mut metric = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

fn scaled<const B: usize>(histogram: &Histogram<B>, scale: f64) -> (f64, u64, Vec<(f64, u64)>) {
    let bound = |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| bound as f64 / scale);
    let buckets: Vec<(f64, u64)> = histogram.buckets().map(|(upper, count)| (bound(upper), count)).collect();
    // Out of the same reading as the buckets, or the last of them could differ from it.
    let count = buckets.iter().map(|(_, count)| count).sum();
    (histogram.sum() as f64 / scale, count, buckets)
}

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.jobs(&mut page)?;
        self.downloads(&mut page)?;
        self.queue(&mut page)?;
        self.process(&mut page)
    }
}

impl Numbers {
    fn jobs(&self, page: &mut Page<'_>) -> fmt::Result {
        let m = &*self.metrics;
        let stored = [(["stored", ""], &m.stored), (["stored", "exists"], &m.exists)];
        let rejected = Rejection::ALL.iter().zip(&m.rejected).map(|(why, counter)| (["rejected", why.name()], counter));
        let failed = Failure::ALL.iter().zip(&m.failed).map(|(why, counter)| (["failed", why.name()], counter));
        page.counters(
            "imgq_jobs",
            "Jobs that ended here and whose result Redis took, by outcome and reason",
            ["outcome", "reason"],
            stored.into_iter().chain(rejected).chain(failed),
        )?;
        page.counters(
            "imgq_retries",
            "Attempts that went wrong and are tried again later, by reason",
            ["reason"],
            Failure::ALL.iter().zip(&m.retried).map(|(why, counter)| ([why.name()], counter)),
        )?;
        page.counter("imgq_jobs_claimed", None, "Jobs taken from the queue", m.claimed.value())?;
        let help = "Jobs put aside until their host may be asked again";
        page.counter("imgq_jobs_held", None, help, m.held.value())?;
        let help = "Jobs given back without an attempt spent: the worker stops, or the storage cannot be used";
        page.counter("imgq_jobs_released", None, help, m.released.value())?;
        let help = "Jobs that Redis said this worker has, and whose claim's answer never came";
        page.counter("imgq_jobs_adopted", None, help, m.adopted.value())?;
        let help = "Jobs that this worker had and Redis knows nothing of any more";
        page.counter("imgq_jobs_abandoned", None, help, m.abandoned.value())?;
        let help = "Jobs held now, from the claim until Redis took the settlement";
        page.gauge("imgq_jobs_in_flight", None, help, m.in_flight.value())?;
        page.gauge(
            "imgq_jobs_waiting",
            None,
            "Jobs held that wait for a slot, or for their turn at their host",
            m.waiting.value(),
        )?;
        page.gauge("imgq_jobs_downloading", None, "Jobs being attempted now", m.downloading.value())?;
        page.gauge("imgq_slots", None, "Jobs that can be attempted at once (--concurrency)", m.slots as u64)
    }

    fn downloads(&self, page: &mut Page<'_>) -> fmt::Result {
        let m = &*self.metrics;
        let help = "Where the time goes. Of each attempt: first_byte (until the headers of the last answer; redirects, and \
                    connecting where no connection was free, included), body (until the last byte, waiting for a busy \
                    disk included), store (until the object lies under its key), total. Of each group of claimed jobs: \
                    lookup (are the objects there already). Of each new connection, not of each attempt: dns (one look-up), connect (TCP and TLS, \
                    without the look-up)";
        let mut family = page.0.encode_descriptor("imgq_phase", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (phase, histogram) in Phase::ALL.iter().zip(&m.phases) {
            let (sum, count, buckets) = scaled(histogram, NANOS);
            let labels = [("phase", phase.name())];
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        let bytes = || Some(Unit::Bytes);
        let help = "Bytes of bodies that arrived, whatever became of them";
        page.counter("imgq_downloaded", bytes(), help, m.downloaded_bytes.value())?;
        let help = "Bytes of the objects that were stored; those that were there before are not counted";
        page.counter("imgq_stored", bytes(), help, m.stored_bytes.value())?;
        page.histogram("imgq_object", bytes(), "How large the stored objects are", 1.0, &m.object_bytes)?;
        let help = "HTTP requests sent; a redirect that is followed makes another one";
        page.counter("imgq_requests", None, help, m.requests.value())?;
        let known: Vec<String> = STATUSES.iter().map(u16::to_string).collect();
        let known = known.iter().map(String::as_str).zip(&m.statuses);
        let rows = known.chain(CLASSES.into_iter().zip(&m.classes)).map(|(code, counter)| ([code], counter));
        let help = "HTTP answers by status; uncommon ones go with their class, as in 4xx";
        page.counters("imgq_responses", help, ["code"], rows)?;
        let rows = [(["opened"], &m.connections_opened), (["failed"], &m.connections_failed)];
        let help = "Connections to servers; requests made less those opened went over one that was there";
        page.counters("imgq_connections", help, ["result"], rows)?;
        let rows = [(["found"], &m.names_found), (["failed"], &m.names_failed)];
        page.counters("imgq_dns_lookups", "Look-ups of host names", ["result"], rows)?;
        let rows = [(["hit"], &m.dns_hits), (["miss"], &m.dns_misses)];
        let help = "Host names whose addresses were needed, by whether they were at hand";
        page.counters("imgq_dns_cache", help, ["result"], rows)?;
        let help = "Addresses that the address guard refused to connect to";
        page.counter("imgq_addresses_refused", None, help, m.addresses_refused.value())
    }

    fn queue(&self, page: &mut Page<'_>) -> fmt::Result {
        let m = &*self.metrics;
        let c = &m.claims;
        let rows = [
            (["jobs"], &c.jobs),
            (["empty"], &c.empty),
            (["paused"], &c.paused),
            (["full"], &c.full),
            (["stale"], &c.stale),
            (["reaped"], &c.reaped),
        ];
        let help = "Claims that Redis answered: with jobs, from an empty or a paused queue, full (--results-max), stale \
                    (after a later one), reaped (the worker was taken for dead)";
        page.counters("imgq_claims", help, ["result"], rows)?;
        let seconds = || Some(Unit::Seconds);
        page.histogram("imgq_claim", seconds(), "Time until a claim was answered", NANOS, &m.claim_times)?;
        page.histogram("imgq_claim_jobs", None, "Jobs in one claim, of claims that gave any", 1.0, &m.claim_jobs)?;
        let rows = [(["accepted"], &m.settlements_accepted), (["refused"], &m.settlements_refused)];
        let help = "Settlements (results, retries, jobs given back) by whether Redis took them; a refused one belongs to \
                    a job that is not this worker's any more, or came twice because the first answer was lost";
        page.counters("imgq_settlements", help, ["result"], rows)?;
        let help = "Time until a batch of settlements was answered";
        page.histogram("imgq_settle", seconds(), help, NANOS, &m.settle_times)?;
        page.histogram("imgq_settle_jobs", None, "Jobs in one batch of settlements", 1.0, &m.settle_jobs)?;
        let rows = [(["refused"], &m.hosts_refused), (["silent"], &m.hosts_silent), (["answered"], &m.hosts_answered)];
        let help = "What this worker told the fleet of hosts: refused (it wants to be left alone, or a probe of it failed), \
                    silent (it only fails), answered (a probe found that it answers again)";
        page.counters("imgq_host_news", help, ["news"], rows)?;
        let rows = Operation::NAMES.iter().zip(&m.redis_errors).map(|(name, counter)| ([*name], counter));
        let help = "Calls that Redis did not answer, or answered with an error";
        page.counters("imgq_redis_errors", help, ["operation"], rows)?;
        let reconnects = self.health.queue.connection_generation().saturating_sub(1);
        page.counter("imgq_redis_reconnects", None, "Times the connection for commands was opened again", reconnects)
    }

    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let is = |condition: bool| u64::from(condition);
        let condition = self.health.storage.condition();
        let conditions = [
            ("good", condition == Condition::Good),
            ("trial", condition == Condition::Trial),
            ("bad", matches!(condition, Condition::Bad(_))),
        ];
        let help = "1 for the condition that the storage is in; on trial, one job at a time is claimed";
        let mut family = page.0.encode_descriptor("imgq_storage_condition", help, None, MetricType::Gauge)?;
        for (name, holds) in conditions {
            family.encode_family(&[("condition", name)])?.encode_gauge(&is(holds))?;
        }
        let troubles = &self.metrics.troubles;
        page.gauge(
            "imgq_registered",
            None,
            "1 while the worker has a name in the queue",
            is(troubles.is_registered()),
        )?;
        let well = self.health.complaints(troubles).is_empty();
        page.gauge("imgq_healthy", None, "1 when /healthz answers with 200", is(well))?;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.0.encode_descriptor("imgq_build", "The version", None, MetricType::Info)?.encode_info(&version)?;

        let facts = ProcessFacts::read();
        let (seconds, bytes) = (|| Some(Unit::Seconds), || Some(Unit::Bytes));
        page.counter("process_cpu", seconds(), "CPU time of all threads, user and system", facts.cpu_seconds)?;
        let started = self.metrics.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        page.gauge("process_start_time", seconds(), "When the process started, since 1970", started)?;
        page.gauge_if("process_resident_memory", bytes(), "Memory in use", facts.resident_bytes)?;
        page.gauge_if("process_virtual_memory", bytes(), "Address space", facts.virtual_bytes)?;
        page.gauge_if("process_open_fds", None, "Open file descriptors", facts.open_fds)?;
        page.gauge_if("process_max_fds", None, "File descriptors that may be open", facts.max_fds)?;
        page.gauge_if("process_threads", None, "Threads", facts.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_form_names_counters_as_their_samples_and_knows_no_units() {
        let openmetrics = "# HELP a_seconds What a is\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                           a_seconds_total{x=\"# y\"} 1\n# HELP b b\n# TYPE b info\nb_info{v=\"1\"} 1\n# HELP c c\n\
                           # TYPE c gauge\nc 2\n# EOF\n";
        let older = "# HELP a_seconds_total What a is\n# TYPE a_seconds_total counter\na_seconds_total{x=\"# y\"} 1\n\
                     # HELP b_info b\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n# HELP c c\n# TYPE c gauge\nc 2\n";
        assert_eq!(in_the_older_form(openmetrics), older);
    }

    #[test]
    fn bounds_are_told_in_seconds_without_a_rounding_error() {
        let histogram = Histogram::new(&super::super::TIMES);
        let (_, _, buckets) = scaled(&histogram, NANOS);
        let bounds: Vec<String> = buckets.iter().map(|(bound, _)| bound.to_string()).collect();
        assert_eq!((bounds[0].as_str(), bounds[1].as_str(), bounds[18].as_str()), ("0.0001", "0.00025", "120"));
        assert_eq!(bounds[19], "inf");
    }
}
