//! The host gate: which claimed job starts next. Pure: the time comes from the caller.
//!
//! Jobs wait in one lane for each host, and lanes take turns, so that a slow host holds up nobody else. A lane lets through
//! as many at once as one host gets from this worker, each at the time that it was given (under a rate). It also knows which
//! lanes have more than they get done soon, and which hosts do nothing but fail.

use super::conclusions::FAILURES_MAX;
use queue::WaitingAt;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A lane whose last job would start later than this has enough for now; what it has waiting keeps it busy for as long.
const SOON: Duration = Duration::from_millis(100);
/// The pace of a lane is that of the last seconds.
const PACE_WINDOW: Duration = Duration::from_secs(2);
/// Hosts whose failures are counted at once. Beyond that all counts begin anew; a list of strangers has dead hosts without end.
const COUNTED_HOSTS_MAX: usize = 10_000;
/// Hosts named in one claim: each costs Redis a look-up.
const NAMED_MAX: usize = 64;

/// A lane for each host that has jobs here.
#[derive(Debug)]
pub(crate) struct HostGate<J, W> {
    per_host: usize,
    lanes: HashMap<Arc<str>, Lane<J, W>>,
    /// Lanes whose first job may start, each once.
    turn: VecDeque<Arc<str>>,
    /// Lanes whose first job may start later, each once.
    timers: BinaryHeap<Reverse<(Instant, Arc<str>)>>,
    waiting: usize,
    /// Failures in a row, of hosts that had one.
    failures: HashMap<Arc<str>, u32>,
}

#[derive(Debug)]
struct Lane<J, W> {
    active: usize,
    waiting: VecDeque<(Instant, J)>,
    /// Downloads that were redirected here and wait for a place.
    redirected: VecDeque<W>,
    /// In `turn` or in `timers`.
    listed: bool,
    /// Since when it has been full with jobs waiting, and how many it got done since.
    full_since: Option<Instant>,
    done: f64,
}

impl<J, W> Lane<J, W> {
    fn new() -> Lane<J, W> {
        Lane {
            active: 0,
            waiting: VecDeque::new(),
            redirected: VecDeque::new(),
            listed: false,
            full_since: None,
            done: 0.0,
        }
    }

    fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty() || !self.redirected.is_empty()
    }

    /// Nobody is here and nobody waits.
    fn is_idle(&self) -> bool {
        self.active == 0 && self.waiting.is_empty() && self.redirected.is_empty() && !self.listed
    }

    /// The time between two jobs that it gets done, when those that wait are enough for now.
    fn enough(&mut self, width: usize, now: Instant) -> Option<Duration> {
        let waiting = self.waiting.len() + self.redirected.len();
        if waiting == 0 || self.active < width {
            self.full_since = None;
            return None;
        }
        let Some(since) = self.full_since else {
            (self.full_since, self.done) = (Some(now), 0.0);
            return None;
        };
        let mut elapsed = now.saturating_duration_since(since);
        let round = width as f64;
        if elapsed > PACE_WINDOW && self.done >= round {
            (elapsed, self.done) = (elapsed / 2, self.done / 2.0);
            self.full_since = now.checked_sub(elapsed);
        }
        // All that were under way may be done now, for all that is known before they are. A host whose answers take 200 ms has
        // nothing done after 100 ms, and is not slow for it: jobs that are put aside at too slow a pace leave places empty, at
        // too quick a pace they cost another look.
        let interval = elapsed.div_f64(self.done.max(round));
        (elapsed >= SOON && interval.mul_f64(waiting as f64) > SOON).then_some(interval)
    }
}

impl<J, W> HostGate<J, W> {
    pub(crate) fn new(per_host: usize) -> HostGate<J, W> {
        HostGate {
            per_host,
            lanes: HashMap::new(),
            turn: VecDeque::new(),
            timers: BinaryHeap::new(),
            waiting: 0,
            failures: HashMap::new(),
        }
    }

    /// Jobs that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Puts a job at the end of its lane.
    pub(crate) fn push(&mut self, host: &Arc<str>, job: J, not_before: Instant) {
        let lane = self.lanes.entry(Arc::clone(host)).or_insert_with(Lane::new);
        lane.waiting.push_back((not_before, job));
        self.waiting += 1;
        self.list(host);
    }

    /// Takes the next job that may start, and counts it as started.
    pub(crate) fn next(&mut self, now: Instant) -> Option<J> {
        while let Some(Reverse((at, _))) = self.timers.peek() {
            if *at > now {
                break;
            }
            if let Some(Reverse((_, host))) = self.timers.pop() {
                self.turn.push_back(host);
            }
        }
        while let Some(host) = self.turn.pop_front() {
            let width = self.width(&host);
            let Some(lane) = self.lanes.get_mut(&host) else { continue };
            lane.listed = false;
            match lane.waiting.front() {
                Some(_) if lane.active >= width => {}
                Some((not_before, _)) if *not_before > now => {
                    lane.listed = true;
                    self.timers.push(Reverse((*not_before, host)));
                }
                Some(_) => {
                    let job = lane.waiting.pop_front().map(|(_, job)| job);
                    lane.active += 1;
                    self.waiting -= 1;
                    self.list(&host);
                    return job;
                }
                // It was emptied while it stood in line.
                None if lane.is_idle() => drop(self.lanes.remove(&host)),
                None => {}
            }
        }
        None
    }

    /// Counts a job as started that does not come out of a lane.
    pub(crate) fn enter(&mut self, host: &Arc<str>) {
        self.lanes.entry(Arc::clone(host)).or_insert_with(Lane::new).active += 1;
    }

    /// Takes a place for a download that was redirected here, if one is free.
    pub(crate) fn try_enter(&mut self, host: &Arc<str>) -> bool {
        let width = self.width(host);
        let lane = self.lanes.entry(Arc::clone(host)).or_insert_with(Lane::new);
        let is_free = lane.active < width && lane.redirected.is_empty();
        if is_free {
            lane.active += 1;
        }
        is_free
    }

    /// Puts a redirected download in line for the next place that gets free, before all jobs that have not started.
    pub(crate) fn queue_up(&mut self, host: &Arc<str>, waiter: W) {
        self.lanes.entry(Arc::clone(host)).or_insert_with(Lane::new).redirected.push_back(waiter);
    }

    /// Takes those out of the line that do not wait any more.
    pub(crate) fn forget(&mut self, host: &Arc<str>, is_gone: impl Fn(&W) -> bool) {
        let Some(lane) = self.lanes.get_mut(host) else { return };
        lane.redirected.retain(|waiter| !is_gone(waiter));
        if lane.is_idle() {
            self.lanes.remove(host);
        }
    }

    /// A place is given back. It is passed on to the redirected download that is returned, or free.
    pub(crate) fn leave(&mut self, host: &Arc<str>) -> Option<W> {
        let width = self.width(host);
        let lane = self.lanes.get_mut(host)?;
        lane.active = lane.active.saturating_sub(1);
        lane.done += 1.0;
        if lane.active < width
            && let Some(waiter) = lane.redirected.pop_front()
        {
            lane.active += 1;
            return Some(waiter);
        }
        if lane.is_idle() {
            self.lanes.remove(host);
        } else {
            self.list(host);
        }
        None
    }

    /// How many failures in a row a host has had.
    pub(crate) fn failures(&self, host: &Arc<str>) -> u32 {
        if self.failures.is_empty() { 0 } else { self.failures.get(host).copied().unwrap_or(0) }
    }

    /// A host has had so many failures in a row. While it is taken to be down, one job at a time tries it.
    pub(crate) fn set_failures(&mut self, host: &Arc<str>, count: u32) {
        if count == 0 {
            if !self.failures.is_empty() && self.failures.remove(host).is_some() {
                self.list(host);
            }
            return;
        }
        if self.failures.len() >= COUNTED_HOSTS_MAX && !self.failures.contains_key(host) {
            self.failures.clear();
        }
        self.failures.insert(Arc::clone(host), count);
    }

    fn width(&self, host: &Arc<str>) -> usize {
        let is_down = !self.failures.is_empty() && self.failures.get(host).is_some_and(|count| *count >= FAILURES_MAX);
        if is_down { 1 } else { self.per_host }
    }

    fn list(&mut self, host: &Arc<str>) {
        let width = self.width(host);
        if let Some(lane) = self.lanes.get_mut(host)
            && !lane.listed
            && lane.active < width
            && !lane.waiting.is_empty()
        {
            lane.listed = true;
            self.turn.push_back(Arc::clone(host));
        }
    }

    /// How many jobs could start, were there slots for them.
    pub(crate) fn startable(&self) -> usize {
        let at = |host| {
            self.lanes.get(host).map_or(0, |lane| self.width(host).saturating_sub(lane.active).min(lane.waiting.len()))
        };
        self.turn.iter().map(at).sum()
    }

    /// When the next job starts that waits for its time.
    pub(crate) fn next_start(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// For a claim: hosts with jobs here, and their pace where they have enough for now. Also how many jobs wait in lanes
    /// that do not have enough.
    pub(crate) fn waiting_at(&mut self, now: Instant) -> (Vec<WaitingAt>, usize) {
        let mut named = Vec::new();
        let mut in_quick_lanes = 0;
        let (per_host, failures) = (self.per_host, &self.failures);
        for (host, lane) in self.lanes.iter_mut().filter(|(_, lane)| lane.is_waited_for()) {
            let is_down = failures.get(host).is_some_and(|count| *count >= FAILURES_MAX);
            let pace = lane.enough(if is_down { 1 } else { per_host }, now);
            if pace.is_none() {
                in_quick_lanes += lane.waiting.len();
            }
            if pace.is_some() || named.len() < NAMED_MAX {
                named.push(WaitingAt { host: host.to_string(), pace });
            }
        }
        (named, in_quick_lanes)
    }

    /// The jobs that wait, in no order.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = &J> {
        self.lanes.values().flat_map(|lane| lane.waiting.iter().map(|(_, job)| job))
    }

    /// Takes out all jobs that wait for `host`.
    pub(crate) fn drain(&mut self, host: &str) -> Vec<J> {
        let Some(lane) = self.lanes.get_mut(host) else { return Vec::new() };
        self.waiting -= lane.waiting.len();
        lane.waiting.drain(..).map(|(_, job)| job).collect()
    }

    /// Takes out all jobs that wait.
    pub(crate) fn drain_all(&mut self) -> Vec<J> {
        self.waiting = 0;
        self.lanes.values_mut().flat_map(|lane| lane.waiting.drain(..)).map(|(_, job)| job).collect()
    }

    /// Takes out the jobs that are not to be kept.
    pub(crate) fn extract(&mut self, is_kept: impl Fn(&J) -> bool) -> Vec<J> {
        let mut taken = Vec::new();
        for lane in self.lanes.values_mut() {
            let (kept, lost) = lane.waiting.drain(..).partition(|(_, job)| is_kept(job));
            lane.waiting = kept;
            taken.extend(VecDeque::into_iter(lost).map(|(_, job)| job));
        }
        self.waiting -= taken.len();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    fn filled(per_host: usize, jobs: &[&'static str], now: Instant) -> HostGate<&'static str, u8> {
        let mut gate = HostGate::new(per_host);
        for job in jobs {
            gate.push(&host(&job[..1]), *job, now);
        }
        gate
    }

    #[test]
    fn hosts_take_turns_and_none_gets_more_than_its_width() {
        let now = Instant::now();
        let mut gate = filled(2, &["a1", "a2", "a3", "a4", "b1", "c1"], now);
        let mut started = Vec::new();
        while let Some(job) = gate.next(now) {
            started.push(job);
        }
        assert_eq!(started, ["a1", "b1", "c1", "a2"]);
        assert_eq!((gate.waiting(), gate.startable()), (2, 0));
        gate.leave(&host("a"));
        assert_eq!(gate.startable(), 1);
        assert_eq!((gate.next(now), gate.next(now)), (Some("a3"), None));
    }

    #[test]
    fn a_lane_that_is_empty_and_idle_is_forgotten() {
        let now = Instant::now();
        let mut gate = filled(2, &["a1"], now);
        assert_eq!(gate.next(now), Some("a1"));
        gate.leave(&host("a"));
        assert!(gate.lanes.is_empty());
    }

    #[test]
    fn a_job_waits_for_its_time_and_holds_up_nobody_else() {
        let now = Instant::now();
        let mut gate: HostGate<_, u8> = HostGate::new(2);
        gate.push(&host("a"), "later", now + Duration::from_millis(20));
        gate.push(&host("b"), "now", now);
        assert_eq!((gate.next(now), gate.next(now)), (Some("now"), None));
        assert_eq!(gate.next_start(), Some(now + Duration::from_millis(20)));
        assert_eq!(gate.next(now + Duration::from_millis(20)), Some("later"));
    }

    #[test]
    fn a_slow_lane_has_enough_and_a_quick_one_has_not() {
        let start = Instant::now();
        let mut gate = filled(1, &["a1", "a2", "a3", "b1", "b2", "b3"], start);
        while gate.next(start).is_some() {}
        let at = |ms| start + Duration::from_millis(ms);
        assert!(gate.waiting_at(start).0.iter().all(|waiting| waiting.pace.is_none()), "nothing is known yet");
        for _ in 0..50 {
            gate.push(&host("b"), "b", start);
            gate.leave(&host("b"));
            gate.next(at(1));
        }
        let (waiting, in_quick_lanes) = gate.waiting_at(at(150));
        let pace = |name: &str| waiting.iter().find(|waiting| waiting.host == name).and_then(|waiting| waiting.pace);
        assert_eq!((pace("a"), pace("b")), (Some(Duration::from_millis(150)), None));
        assert_eq!(in_quick_lanes, 2);
    }

    #[test]
    fn a_lane_in_its_first_round_is_not_taken_for_slow() {
        let start = Instant::now();
        let mut gate: HostGate<_, u8> = HostGate::new(16);
        for job in 0..112 {
            gate.push(&host("a"), job, start);
        }
        while gate.next(start).is_some() {}
        let pace_at = |ms, gate: &mut HostGate<i32, u8>| {
            gate.waiting_at(start + Duration::from_millis(ms)).0.first().and_then(|waiting| waiting.pace)
        };
        assert_eq!(pace_at(0, &mut gate), None, "nothing is known yet");
        // Its answers take 200 ms: 80 a second.
        assert!(pace_at(150, &mut gate).is_some_and(|pace| pace < Duration::from_millis(10)));
        for _ in 0..16 {
            gate.leave(&host("a"));
            gate.next(start + Duration::from_millis(200));
        }
        assert_eq!(pace_at(208, &mut gate), Some(Duration::from_millis(13)));
        // And it is slow when they take ten seconds.
        assert!(pace_at(8000, &mut gate).is_some_and(|pace| pace > Duration::from_millis(200)));
    }

    #[test]
    fn a_host_that_only_fails_is_tried_by_one_until_it_answers() {
        let now = Instant::now();
        let mut gate = filled(4, &["a1", "a2", "a3"], now);
        gate.set_failures(&host("a"), FAILURES_MAX);
        assert_eq!((gate.next(now), gate.next(now)), (Some("a1"), None));
        gate.set_failures(&host("a"), 0);
        assert_eq!((gate.next(now), gate.next(now)), (Some("a2"), Some("a3")));
    }

    #[test]
    fn what_is_taken_out_does_not_start() {
        let now = Instant::now();
        let mut gate = filled(4, &["a1", "a2", "b1", "b2"], now);
        assert_eq!(gate.extract(|job| *job != "b1"), ["b1"]);
        assert_eq!(gate.drain("a"), ["a1", "a2"]);
        assert_eq!((gate.next(now), gate.next(now)), (Some("b2"), None));
        assert_eq!((gate.drain_all().len(), gate.waiting()), (0, 0));
    }

    #[test]
    fn a_redirected_download_has_the_next_place_before_jobs_that_have_not_started() {
        let now = Instant::now();
        let mut gate = filled(1, &["a1", "a2"], now);
        assert_eq!(gate.next(now), Some("a1"));
        assert!(!gate.try_enter(&host("a")), "its only place is taken");
        gate.queue_up(&host("a"), 1);
        gate.queue_up(&host("a"), 2);
        gate.forget(&host("a"), |waiter| *waiter == 1);
        assert_eq!(gate.leave(&host("a")), Some(2), "the first one does not wait any more");
        assert_eq!(gate.next(now), None, "the place was passed on");
        assert_eq!(gate.leave(&host("a")), None);
        assert_eq!(gate.next(now), Some("a2"));
        assert_eq!(gate.leave(&host("a")), None);
        assert!(gate.try_enter(&host("a")));
        gate.leave(&host("a"));
        assert!(gate.lanes.is_empty(), "what is idle is forgotten");
    }

    #[test]
    fn a_lane_that_only_redirects_wait_for_has_a_pace() {
        let start = Instant::now();
        let mut gate: HostGate<&str, u8> = HostGate::new(1);
        assert!(gate.try_enter(&host("cdn")));
        (0..8).for_each(|n| gate.queue_up(&host("cdn"), n));
        let pace_at = |ms, gate: &mut HostGate<&str, u8>| {
            gate.waiting_at(start + Duration::from_millis(ms)).0.first().and_then(|waiting| waiting.pace)
        };
        assert_eq!(pace_at(0, &mut gate), None);
        assert_eq!(pace_at(200, &mut gate), Some(Duration::from_millis(200)));
    }
}
