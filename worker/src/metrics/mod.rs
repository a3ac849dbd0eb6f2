//! What happened, by the numbers: counters, times and sizes of this process, and whether it is well.
//!
//! Whoever does something tells it here by a method that is named after what happened. Numbers are kept whether anybody
//! asks or not: an attempt costs three more readings of the clock and about 25 additions, which is below what can be
//! measured (of 515,000 instructions for a small image, software SHA-256 included, 0 ± 300). `exposition` gives them their names, `server` serves them with `--metrics`.

mod exposition;
mod health;
mod instruments;
mod process;
pub(crate) mod server;

use common::error::QueueError;
use common::outcome::{Failure, Outcome, Rejection};
pub(crate) use health::HealthCheck;
use health::Troubles;
use instruments::Presence;
use instruments::{Counter, Gauge, Histogram};
use queue::{Claim, Heartbeat, HostNews, LeaseField, Reconciled, Settled, Settlement};
use std::time::{Duration, Instant, SystemTime};

/// Bounds of times, in nanoseconds: 100 µs to 120 s, which is the default of `--total-timeout`.
const TIMES: [u64; 19] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    120_000_000_000,
];
/// Bounds of object sizes: 1 KiB to 256 MiB, each four times the one before.
const SIZES: [u64; 10] = [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28];
/// Bounds of jobs in one call; the largest batch that there can be is 1,000.
const JOBS: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// The statuses that are counted each for itself: those that the outcomes know, and those that servers send when
/// they are in trouble. All others go with their class, so that no server can make up more series.
const STATUSES: [u16; 24] = [
    200, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 410, 416, 418, 421, 429, 451, 500, 502, 503,
    504,
];
/// Of all others: 1xx to 5xx, and what is neither.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// What an attempt spends its time with, and what a connection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// One look-up of a name.
    Dns,
    /// One connection, its TLS session included.
    Connect,
    /// Until the headers of the last answer.
    FirstByte,
    /// From there to the last byte.
    Body,
    /// From there until the object lies under its key.
    Store,
    /// Looking for the objects of a group of jobs that were claimed together.
    Lookup,
    /// A whole attempt.
    Total,
}

impl Phase {
    const ALL: [Phase; 7] =
        [Phase::Dns, Phase::Connect, Phase::FirstByte, Phase::Body, Phase::Store, Phase::Lookup, Phase::Total];

    fn name(self) -> &'static str {
        match self {
            Phase::Dns => "dns",
            Phase::Connect => "connect",
            Phase::FirstByte => "first_byte",
            Phase::Body => "body",
            Phase::Store => "store",
            Phase::Lookup => "lookup",
            Phase::Total => "total",
        }
    }
}

/// What is asked of Redis again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Claim,
    Compare,
    Heartbeat,
    Settle,
}

impl Operation {
    const NAMES: [&str; 4] = ["claim", "compare", "heartbeat", "settle"];
}

/// What a claim came to.
#[derive(Debug, Default)]
struct Claims {
    jobs: Counter,
    empty: Counter,
    paused: Counter,
    full: Counter,
    stale: Counter,
    reaped: Counter,
}

/// The numbers of one worker process.
#[derive(Debug)]
pub(crate) struct Metrics {
    started: SystemTime,
    slots: usize,

    stored: Counter,
    exists: Counter,
    rejected: [Counter; Rejection::ALL.len()],
    failed: [Counter; Failure::ALL.len()],
    retried: [Counter; Failure::ALL.len()],
    held: Counter,
    released: Counter,
    claimed: Counter,
    adopted: Counter,
    abandoned: Counter,
    in_flight: Gauge,
    waiting: Gauge,
    downloading: Gauge,

    phases: [Histogram<{ TIMES.len() }>; Phase::ALL.len()],
    requests: Counter,
    statuses: [Counter; STATUSES.len()],
    classes: [Counter; CLASSES.len()],
    connections_opened: Counter,
    connections_failed: Counter,
    names_found: Counter,
    names_failed: Counter,
    dns_hits: Counter,
    dns_misses: Counter,
    addresses_refused: Counter,
    downloaded_bytes: Counter,
    stored_bytes: Counter,
    object_bytes: Histogram<{ SIZES.len() }>,

    claims: Claims,
    claim_times: Histogram<{ TIMES.len() }>,
    claim_jobs: Histogram<{ JOBS.len() }>,
    settle_times: Histogram<{ TIMES.len() }>,
    settle_jobs: Histogram<{ JOBS.len() }>,
    settlements_accepted: Counter,
    settlements_refused: Counter,
    redis_errors: [Counter; Operation::NAMES.len()],
    hosts_refused: Counter,
    hosts_silent: Counter,
    hosts_answered: Counter,

    troubles: Troubles,
}

impl Metrics {
    /// All at zero, for a worker that holds up to `slots` jobs.
    pub(crate) fn new(slots: usize) -> Metrics {
        fn counters<const N: usize>() -> [Counter; N] {
            std::array::from_fn(|_| Counter::default())
        }
        Metrics {
            started: SystemTime::now(),
            slots,
            stored: Counter::default(),
            exists: Counter::default(),
            rejected: counters(),
            failed: counters(),
            retried: counters(),
            held: Counter::default(),
            released: Counter::default(),
            claimed: Counter::default(),
            adopted: Counter::default(),
            abandoned: Counter::default(),
            in_flight: Gauge::default(),
            waiting: Gauge::default(),
            downloading: Gauge::default(),
            phases: std::array::from_fn(|_| Histogram::new(&TIMES)),
            requests: Counter::default(),
            statuses: counters(),
            classes: counters(),
            connections_opened: Counter::default(),
            connections_failed: Counter::default(),
            names_found: Counter::default(),
            names_failed: Counter::default(),
            dns_hits: Counter::default(),
            dns_misses: Counter::default(),
            addresses_refused: Counter::default(),
            downloaded_bytes: Counter::default(),
            stored_bytes: Counter::default(),
            object_bytes: Histogram::new(&SIZES),
            claims: Claims::default(),
            claim_times: Histogram::new(&TIMES),
            claim_jobs: Histogram::new(&JOBS),
            settle_times: Histogram::new(&TIMES),
            settle_jobs: Histogram::new(&JOBS),
            settlements_accepted: Counter::default(),
            settlements_refused: Counter::default(),
            redis_errors: counters(),
            hosts_refused: Counter::default(),
            hosts_silent: Counter::default(),
            hosts_answered: Counter::default(),
            troubles: Troubles::default(),
        }
    }

    // One attempt.

    /// A job is being attempted, until the returned value is dropped.
    pub(crate) fn downloads(&self) -> Presence<'_> {
        self.downloading.enter()
    }

    /// Times the phases of an attempt, one after another, the first from `started` on.
    pub(crate) fn stopwatch(&self, started: Instant) -> Stopwatch<'_> {
        Stopwatch { metrics: self, at: started }
    }

    /// An attempt is over, however it ended.
    pub(crate) fn attempted(&self, took: Duration) {
        self.took(Phase::Total, took);
    }

    /// What a phase came to: the time and how often.
    #[cfg(test)]
    pub(crate) fn spent(&self, phase: Phase) -> (Duration, u64) {
        let histogram = &self.phases[phase as usize];
        (Duration::from_nanos(histogram.sum()), histogram.count())
    }

    fn took(&self, phase: Phase, took: Duration) {
        self.phases[phase as usize].observe_time(took);
    }

    // The fetcher.

    /// A request is sent; a redirect that is followed makes another one.
    pub(crate) fn requested(&self) {
        self.requests.one();
    }

    /// A server answered.
    pub(crate) fn responded(&self, status: u16) {
        match STATUSES.binary_search(&status) {
            Ok(known) => self.statuses[known].one(),
            Err(_) => {
                let class = usize::from(status / 100).wrapping_sub(1).min(CLASSES.len() - 1);
                self.classes[class].one();
            }
        }
    }

    /// So much of a body arrived, whatever became of it.
    pub(crate) fn downloaded(&self, bytes: u64) {
        self.downloaded_bytes.add(bytes);
    }

    /// A name was looked up.
    pub(crate) fn looked_up(&self, took: Duration, found: bool) {
        self.took(Phase::Dns, took);
        if found { self.names_found.one() } else { self.names_failed.one() }
    }

    /// The addresses of a name were needed, and were at hand or not.
    pub(crate) fn resolved(&self, from_cache: bool) {
        if from_cache { self.dns_hits.one() } else { self.dns_misses.one() }
    }

    /// The address guard refused an address.
    pub(crate) fn refused_address(&self) {
        self.addresses_refused.one();
    }

    /// A connection was opened, or was not; the look-up of its host's name is not part of `took`.
    pub(crate) fn connected(&self, took: Duration, opened: bool) {
        if opened {
            self.took(Phase::Connect, took);
            self.connections_opened.one();
        } else {
            self.connections_failed.one();
        }
    }

    // The queue.

    /// The worker has its name in the queue, or has not any more.
    pub(crate) fn set_registered(&self, registered: bool) {
        self.troubles.set_registered(registered);
    }

    /// So many jobs wait for their turn.
    pub(crate) fn waits(&self, jobs: usize) {
        self.waiting.set(jobs);
    }

    /// So many jobs are held.
    pub(crate) fn holds(&self, jobs: usize) {
        self.in_flight.set(jobs);
    }

    /// Jobs were found that this worker has, and did not know of.
    pub(crate) fn adopted(&self) {
        self.adopted.one();
    }

    /// A job was given up, because Redis does not know any more that this worker has it.
    pub(crate) fn abandoned(&self) {
        self.abandoned.one();
    }

    /// A claim was answered.
    pub(crate) fn claim(&self, answer: &Result<Claim, QueueError>, took: Duration) {
        self.asked(Operation::Claim, answer);
        let Ok(claim) = answer else { return };
        self.claim_times.observe_time(took);
        match claim {
            Claim::Jobs { jobs, .. } if jobs.is_empty() => self.claims.empty.one(),
            Claim::Jobs { jobs, .. } => {
                self.claims.jobs.one();
                self.claimed.add(jobs.len() as u64);
                self.claim_jobs.observe(jobs.len() as u64);
            }
            Claim::Paused { .. } => self.claims.paused.one(),
            Claim::Full { .. } => self.claims.full.one(),
            Claim::Stale => self.claims.stale.one(),
            Claim::Reaped => self.claims.reaped.one(),
            // The last one of this process.
            Claim::Newer(_) => {}
        }
    }

    /// A comparison was answered.
    pub(crate) fn compared(&self, answer: &Result<Reconciled, QueueError>) {
        self.asked(Operation::Compare, answer);
    }

    /// A heartbeat was answered.
    pub(crate) fn heartbeat(&self, answer: &Result<Heartbeat, QueueError>) {
        self.asked(Operation::Heartbeat, answer);
    }

    /// News of hosts and a batch of settlements were answered: for each of these, whether Redis took it.
    pub(crate) fn settle(
        &self,
        batch: &[(LeaseField, Settlement)],
        news: &[HostNews],
        answer: &Result<Settled, QueueError>,
        took: Duration,
    ) {
        self.asked(Operation::Settle, answer);
        let Ok(Settled { accepted, .. }) = answer else { return };
        self.settle_times.observe_time(took);
        if !batch.is_empty() {
            self.settle_jobs.observe(batch.len() as u64);
        }
        for about in news {
            match about {
                HostNews::Refused { .. } => self.hosts_refused.one(),
                HostNews::Silent { .. } => self.hosts_silent.one(),
                HostNews::Answered { .. } => self.hosts_answered.one(),
                // No news of the host: a start under its rate that was not used.
                HostNews::Unused { .. } => {}
            }
        }
        for ((_, settlement), accepted) in batch.iter().zip(accepted) {
            if *accepted {
                self.settlements_accepted.one();
                self.settled(settlement);
            } else {
                self.settlements_refused.one();
            }
        }
    }

    fn settled(&self, settlement: &Settlement) {
        match settlement {
            Settlement::Report(report) => match report.outcome {
                Outcome::Stored { exists: true } => self.exists.one(),
                Outcome::Stored { exists: false } => {
                    self.stored.one();
                    if let Some(object) = &report.object {
                        self.stored_bytes.add(object.bytes);
                        self.object_bytes.observe(object.bytes);
                    }
                }
                Outcome::Rejected(rejection) => self.rejected[rejection as usize].one(),
                Outcome::Failed(failure) => self.failed[failure as usize].one(),
            },
            Settlement::Retry { job, .. } => {
                // Twelve words to compare, and only where something went wrong.
                if let Some(Ok(failure)) = job.last_reason.as_deref().map(str::parse::<Failure>) {
                    self.retried[failure as usize].one();
                }
            }
            Settlement::Hold { .. } => self.held.one(),
            Settlement::Release => self.released.one(),
        }
    }

    fn asked<T>(&self, operation: Operation, answer: &Result<T, QueueError>) {
        if answer.is_err() {
            self.redis_errors[operation as usize].one();
        }
        self.troubles.heard(operation, answer.as_ref().err());
    }

    /// Where the time of attempts went since the last call, for people: the mean of each phase in milliseconds. `None`
    /// when nothing happened.
    pub(crate) fn means_since(&self, last: &mut Sums) -> Option<String> {
        let now = Sums(std::array::from_fn(|n| (self.phases[n].sum(), self.phases[n].count())));
        let before = std::mem::replace(last, now);
        let means = Phase::ALL.iter().zip(before.0.iter().zip(last.0)).filter_map(|(phase, (before, now))| {
            let count = now.1.checked_sub(before.1).filter(|count| *count > 0)?;
            Some(format!("{} {:.2}", phase.name(), now.0.saturating_sub(before.0) as f64 / count as f64 / 1e6))
        });
        Some(means.collect::<Vec<_>>().join(" ")).filter(|text| !text.is_empty())
    }
}

/// What the phases came to at one moment: the sum in nanoseconds and the number of each.
#[derive(Debug, Default)]
pub(crate) struct Sums([(u64, u64); Phase::ALL.len()]);

/// Times one attempt.
#[derive(Debug)]
pub(crate) struct Stopwatch<'a> {
    metrics: &'a Metrics,
    at: Instant,
}

impl Stopwatch<'_> {
    /// A phase that began where the one before ended is over.
    pub(crate) fn ended(&mut self, phase: Phase) {
        let now = Instant::now();
        self.metrics.took(phase, now - self.at);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_counted_for_itself_or_with_its_class() {
        let metrics = Metrics::new(1);
        for status in [200, 200, 404, 100, 299, 399, 499, 599, 600, 999, 0, 65535] {
            metrics.responded(status);
        }
        let at = |status| metrics.statuses[STATUSES.binary_search(&status).expect("known")].value();
        assert_eq!((at(200), at(404), at(500)), (2, 1, 0));
        let classes: Vec<u64> = metrics.classes.iter().map(Counter::value).collect();
        assert_eq!(classes, [1, 1, 1, 1, 1, 4]);
        assert!(STATUSES.is_sorted() && TIMES.is_sorted() && SIZES.is_sorted() && JOBS.is_sorted());
    }

    #[test]
    fn each_reason_has_a_counter_of_its_own() {
        for (n, rejection) in Rejection::ALL.iter().enumerate() {
            assert_eq!(*rejection as usize, n);
        }
        for (n, failure) in Failure::ALL.iter().enumerate() {
            assert_eq!(*failure as usize, n);
        }
        for (n, phase) in Phase::ALL.iter().enumerate() {
            assert_eq!(*phase as usize, n);
        }
        let operations = [Operation::Claim, Operation::Compare, Operation::Heartbeat, Operation::Settle];
        assert_eq!(operations.map(|operation| operation as usize), [0, 1, 2, 3]);
    }

    #[test]
    fn means_are_those_of_the_time_since_they_were_last_asked_for() {
        let metrics = Metrics::new(1);
        let mut last = Sums::default();
        assert_eq!(metrics.means_since(&mut last), None);
        metrics.attempted(Duration::from_millis(10));
        metrics.attempted(Duration::from_millis(20));
        metrics.looked_up(Duration::from_millis(1), true);
        assert_eq!(metrics.means_since(&mut last).as_deref(), Some("dns 1.00 total 15.00"));
        metrics.attempted(Duration::from_millis(1));
        assert_eq!(metrics.means_since(&mut last).as_deref(), Some("total 1.00"));
        assert_eq!(metrics.means_since(&mut last), None);
    }
}
