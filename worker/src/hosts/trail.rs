//! The trail of an attempt: which hosts it was admitted to, in which order it asked them, and the place that it holds at the one
//! that it asks now.

use super::admissions::{Admissions, Answer};
use super::{HostTally, Place, Places};
use common::host::host_of;
use common::outcome::Failure;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use url::Url;

/// How long a redirect waits for a place at its target and for the fleet's leave to ask it; it holds a slot meanwhile. What is
/// not admitted by then waits in `delayed`.
const ADMISSION_WAIT: Duration = Duration::from_millis(300);
/// How long a redirect waits for a start that its claim gave out, at most: one within a host comes after the link's own, by a slow rate
/// long after. It goes out early then, and the host has its rest behind it.
const START_WAIT_MAX: Duration = Duration::from_secs(2);

/// One host that an attempt was admitted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visit {
    /// As [`host_of`] names it.
    pub(crate) host: Arc<str>,
    /// It may be asked from then on.
    pub(crate) not_before: Instant,
    /// All of the fleet waits for what this visit finds out, as the host was left alone for this reason.
    pub(crate) probe: Option<Failure>,
    /// A request was made.
    pub(crate) is_asked: bool,
    /// It was answered with a redirect: whatever comes after that is not the host's doing.
    pub(crate) has_redirected: bool,
}

impl Visit {
    /// One that has not begun.
    pub(crate) fn to(host: Arc<str>, not_before: Instant, probe: Option<Failure>) -> Visit {
        Visit { host, not_before, probe, is_asked: false, has_redirected: false }
    }
}

/// The visits of one attempt. The dispatcher reads it when the attempt is over, however it ended.
#[derive(Debug, Default)]
pub(crate) struct Trail(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    visits: Vec<Visit>,
    /// Which of them is the one that is gone to now.
    at: usize,
    is_over: bool,
}

impl Trail {
    /// For a job that was admitted to these hosts, in this order.
    pub(crate) fn of(visits: Vec<Visit>) -> Arc<Trail> {
        Arc::new(Trail(Mutex::new(Entries { visits, at: 0, is_over: false })))
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an admission, and says which visit that is. After the end of the attempt it is given back.
    pub(super) fn push(&self, visit: Visit) -> Result<usize, Visit> {
        let mut entries = self.entries();
        if entries.is_over {
            return Err(visit);
        }
        entries.visits.push(visit);
        Ok(entries.visits.len() - 1)
    }

    /// The host that was gone to last.
    pub(crate) fn host(&self) -> Option<Arc<str>> {
        let entries = self.entries();
        entries.visits.get(entries.at).map(|visit| Arc::clone(&visit.host))
    }

    /// The hosts that were asked behind the first, in their order, as a job carries them; none where that was the only one.
    pub(crate) fn led_to(&self) -> Option<String> {
        let entries = self.entries();
        let gone_to = entries.visits.iter().take(entries.at + 1).skip(1).filter(|visit| visit.is_asked);
        let hosts: Vec<&str> = gone_to.map(|visit| &*visit.host).collect();
        (!hosts.is_empty()).then(|| hosts.join(" "))
    }

    /// The attempt is over: what was visited, and which of it last.
    pub(crate) fn close(&self) -> (Vec<Visit>, usize) {
        let mut entries = self.entries();
        entries.is_over = true;
        (std::mem::take(&mut entries.visits), entries.at)
    }
}

/// A redirect's target may not be asked now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotAdmitted {
    /// The target's host.
    pub(crate) host: Arc<str>,
    /// It has refused so many in a row, for this reason, that waiting costs an attempt.
    pub(crate) refused: Option<Failure>,
}

/// What stands between an attempt and the hosts that it is redirected to.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    /// Of this worker.
    pub(crate) places: Arc<dyn Places>,
    /// Of the fleet.
    pub(crate) admissions: Admissions,
    /// For people.
    pub(crate) tally: Arc<HostTally>,
}

/// What an attempt goes from host to host with.
#[derive(Debug)]
pub(crate) struct Visits {
    trail: Arc<Trail>,
    /// `None` when nobody is asked, in tests.
    doors: Option<Doors>,
    /// At the host that is asked now; none once the body is whole.
    place: Option<Place>,
}

impl Visits {
    /// Begins at the first host of `trail`, with a place there.
    pub(crate) fn begin(trail: Arc<Trail>, place: Place, doors: Doors) -> Visits {
        Visits { trail, doors: Some(doors), place: Some(place) }
    }

    /// Admitted everywhere.
    #[cfg(test)]
    pub(crate) fn anywhere(url: &Url) -> Visits {
        let first = Visit::to(Arc::from(&*host_of(url)), Instant::now(), None);
        Visits { trail: Trail::of(vec![first]), doors: None, place: None }
    }

    /// A request is about to be made to the host that was gone to last.
    pub(crate) fn asks(&mut self) {
        self.note(|visit| visit.is_asked = true);
    }

    /// The host that was gone to last answered with a redirect.
    pub(crate) fn is_redirected(&mut self) {
        self.note(|visit| visit.has_redirected = true);
    }

    fn note(&mut self, what: impl FnOnce(&mut Visit)) {
        let mut entries = self.trail.entries();
        let at = entries.at;
        if let Some(visit) = entries.visits.get_mut(at) {
            what(visit);
        }
    }

    /// The host that was gone to last.
    pub(crate) fn host(&self) -> Option<Arc<str>> {
        self.trail.host()
    }

    /// The hosts that were asked behind the first, as [`Trail::led_to`].
    pub(crate) fn led_to(&self) -> Option<String> {
        self.trail.led_to()
    }

    /// The body is whole: the place is free.
    pub(crate) fn leave(&mut self) {
        self.place = None;
    }

    /// Goes on to the target of a redirect, which has places, a rate and holds like any host.
    ///
    /// Cancel safety: a dropped call leaves a start that was given out and not used; it is given back with the trail.
    ///
    /// # Errors
    /// [`NotAdmitted`] when it may not be asked within [`ADMISSION_WAIT`].
    pub(crate) async fn go_on_to(&mut self, target: &Url) -> Result<(), NotAdmitted> {
        let from = self.host();
        self.enter(target).await?;
        self.tell(from);
        Ok(())
    }

    async fn enter(&mut self, target: &Url) -> Result<(), NotAdmitted> {
        let host: Arc<str> = Arc::from(&*host_of(target));
        let Some(Doors { places, admissions, .. }) = self.doors.clone() else {
            self.admitted(host);
            return Ok(());
        };
        let deadline = tokio::time::Instant::now() + ADMISSION_WAIT;
        let not_admitted = |refused| NotAdmitted { host: Arc::clone(&host), refused };
        let is_same = self.host().is_some_and(|last| last == host);
        if !is_same || self.place.is_none() {
            // First the one, then the other: those who hold one and wait for another could wait for each other.
            self.place = None;
            self.place = match Arc::clone(&places).enter(&host) {
                Ok(place) => Some(place),
                Err(waits) => match tokio::time::timeout_at(deadline, waits).await {
                    Ok(Ok(place)) => Some(place),
                    Ok(Err(_)) | Err(_) => {
                        places.forget_dropped(&host);
                        return Err(not_admitted(None));
                    }
                },
            };
        }
        if let Some(not_before) = self.takes_granted(&host) {
            tokio::time::sleep_until(not_before.min(Instant::now() + START_WAIT_MAX).into()).await;
            return Ok(());
        }
        // A host that has just answered is asked again at once, unless it has a rate.
        if is_same && !admissions.has_rate() {
            self.admitted(host);
            return Ok(());
        }
        match admissions.ask(&host, deadline, &self.trail).await {
            Some(Answer::Admitted(wait, at)) => {
                self.trail.entries().at = at;
                tokio::time::sleep(wait).await;
                Ok(())
            }
            Some(Answer::Refused(reason)) => Err(not_admitted(Some(reason))),
            None => Err(not_admitted(None)),
        }
    }

    /// Counts for people where this attempt is, once it is admitted there.
    fn tell(&self, from: Option<Arc<str>>) {
        let (Some(Doors { tally, .. }), Some(from), Some(host)) = (&self.doors, from, self.host()) else { return };
        tally.moved_on(&from);
        tally.started(&host);
    }

    /// Goes on to a visit of `host` that the claim has admitted this job to, if there is one, and says when it may ask there.
    fn takes_granted(&mut self, host: &Arc<str>) -> Option<Instant> {
        let mut entries = self.trail.entries();
        let from = entries.at + 1;
        let granted = entries.visits.iter().skip(from).position(|visit| visit.host == *host && !visit.is_asked);
        let at = from + granted?;
        entries.at = at;
        entries.visits.get(at).map(|visit| visit.not_before)
    }

    fn admitted(&mut self, host: Arc<str>) {
        // The trail is open for as long as its attempt goes on.
        if let Ok(at) = self.trail.push(Visit::to(host, Instant::now(), None)) {
            self.trail.entries().at = at;
        }
    }
}
