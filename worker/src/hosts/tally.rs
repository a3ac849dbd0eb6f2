//! The host tally: what this worker did with which hosts lately, for people to look at. Nothing is decided by it.

use queue::WorkerHost;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Hosts that are counted at once. Of a list with more of them that are busy at a time the busiest are among these very likely,
/// as they come first.
const HOSTS_MAX: usize = 1000;

/// Counts since they were last told.
#[derive(Debug)]
pub(crate) struct HostTally(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    since: Instant,
    hosts: HashMap<Arc<str>, Count>,
}

#[derive(Debug, Default)]
struct Count {
    in_flight: u64,
    ended: u64,
    stored: u64,
}

/// Tells which hosts Redis had entries for that nobody could understand. They are gone, and with them what the fleet knew of
/// these hosts.
pub(crate) fn say_dropped(hosts: &[String]) {
    for host in hosts {
        tracing::warn!(?host, "what the queue remembered of a host could not be understood, and is forgotten");
    }
}

impl HostTally {
    pub(crate) fn new() -> HostTally {
        HostTally(Mutex::new(Counts { since: Instant::now(), hosts: HashMap::new() }))
    }

    /// An attempt begins.
    pub(crate) fn started(&self, host: &Arc<str>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.hosts.get_mut(host) {
            count.in_flight += 1;
        } else if counts.hosts.len() < HOSTS_MAX {
            counts.hosts.insert(Arc::clone(host), Count { in_flight: 1, ..Count::default() });
        }
    }

    /// An attempt is over; `stored` says whether it brought something.
    pub(crate) fn ended(&self, host: &Arc<str>, stored: bool) {
        self.change(host, |count| {
            count.ended += 1;
            count.stored += u64::from(stored);
        });
    }

    /// The host answered, and pointed to another one.
    pub(crate) fn moved_on(&self, host: &Arc<str>) {
        self.ended(host, true);
    }

    /// An attempt was broken off.
    pub(crate) fn abandoned(&self, host: &Arc<str>) {
        self.change(host, |_| {});
    }

    fn change(&self, host: &Arc<str>, change: impl Fn(&mut Count)) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.hosts.get_mut(host) {
            count.in_flight = count.in_flight.saturating_sub(1);
            change(count);
        }
    }

    /// The busiest hosts since the last call, and begins anew.
    pub(crate) fn busiest(&self, now: Instant) -> Vec<WorkerHost> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = now.saturating_duration_since(counts.since).as_secs_f64().max(0.001);
        counts.since = now;
        let mut busiest: Vec<WorkerHost> = counts
            .hosts
            .iter()
            .map(|(host, count)| WorkerHost {
                host: host.to_string(),
                rate: count.ended as f64 / seconds,
                in_flight: count.in_flight,
                failed_share: (count.ended - count.stored) as f64 / count.ended.max(1) as f64,
            })
            .collect();
        busiest.sort_by(|a, b| {
            let by_rate = b.rate.total_cmp(&a.rate).then(b.in_flight.cmp(&a.in_flight));
            by_rate.then_with(|| a.host.cmp(&b.host))
        });
        busiest.truncate(WorkerHost::AT_MOST);
        counts.hosts.retain(|_, count| {
            (count.ended, count.stored) = (0, 0);
            count.in_flight > 0
        });
        busiest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_busiest_come_first_and_counts_begin_anew() {
        let tally = HostTally::new();
        let begun = Instant::now();
        tally.busiest(begun);
        let [slow, fast]: [Arc<str>; 2] = ["slow.org".into(), "fast.org".into()];
        tally.started(&slow);
        for stored in [true, true, false, false] {
            tally.started(&fast);
            tally.ended(&fast, stored);
        }
        let busiest = tally.busiest(begun + Duration::from_secs(2));
        assert_eq!(busiest.iter().map(|h| &*h.host).collect::<Vec<_>>(), ["fast.org", "slow.org"]);
        assert_eq!((busiest[0].rate, busiest[0].in_flight, busiest[0].failed_share), (2.0, 0, 0.5));
        assert_eq!((busiest[1].rate, busiest[1].in_flight, busiest[1].failed_share), (0.0, 1, 0.0));
        tally.abandoned(&slow);
        tally.busiest(begun + Duration::from_secs(3));
        assert_eq!(tally.busiest(begun + Duration::from_secs(4)), []);
    }

    #[test]
    fn a_list_of_strangers_does_not_fill_the_memory() {
        let tally = HostTally::new();
        for n in 0..3000 {
            tally.started(&format!("{n}.org").into());
        }
        assert_eq!(tally.0.lock().expect("not poisoned").hosts.len(), HOSTS_MAX);
        assert_eq!(tally.busiest(Instant::now()).len(), WorkerHost::AT_MOST);
    }
}
