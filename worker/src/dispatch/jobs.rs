//! The way of a job, from its claim to its attempt and out again.

use super::claimed::{Claimed, admitted};
use super::look_ups::{LookedUp, ORDER_MAX};
use super::slots::{Attempt, Finished};
use super::{Dispatcher, now};
use crate::hosts::conclusions::Ending;
use crate::hosts::{Doors, Places, Trail, Visit, Visits};
use crate::processor::{Processed, random_u128, report_crashed};
use common::job::{Job, id_for_logs};
use common::outcome::Outcome;
use futures_util::FutureExt as _;
use queue::{ClaimedJob, Settlement};
use std::sync::Arc;
use std::time::Instant;
use storage::health::Condition;

impl Dispatcher {
    /// Enters claimed jobs, and has their objects looked for.
    pub(super) fn admit(&mut self, jobs: Vec<ClaimedJob>) {
        let now = now();
        let mut looking = Vec::with_capacity(jobs.len());
        for job in jobs {
            if !self.ledger.enter(&job.field) {
                continue;
            }
            if let Some(claimed) = self.read(job, now) {
                looking.push(claimed);
            }
        }
        while !looking.is_empty() {
            let rest = looking.split_off(looking.len().min(ORDER_MAX));
            let part = std::mem::replace(&mut looking, rest);
            let keys = part.iter().map(|claimed| self.processor.candidates(&claimed.prepared)).collect();
            let processor = Arc::clone(&self.processor);
            self.look_ups.push(part, async move { processor.look_up(keys).await });
        }
    }

    /// Enters jobs that have to run alone, one after another.
    pub(super) fn suspect(&mut self, jobs: Vec<ClaimedJob>) {
        for job in jobs {
            if self.ledger.enter(&job.field) {
                tracing::warn!(job = id_for_logs(&job.payload), "was there at two crashes; it runs alone now");
                self.suspects.add(job);
            }
        }
    }

    /// Reads a job and what it was admitted to; settles one that there is nothing to do for.
    fn read(&self, job: ClaimedJob, now: Instant) -> Option<Claimed> {
        let (mut visits, refused) = admitted(&job, now);
        match (self.processor.prepare(&job), refused) {
            (Err(settlement), _) => self.exit.end_unattempted(job, &Trail::of(visits), settlement),
            (Ok(prepared), Some((host, reason))) => {
                let settlement = self.processor.refused(prepared, &host, reason);
                self.exit.end(job, &Trail::of(visits), false, Ending::Untold, settlement);
            }
            (Ok(prepared), None) => {
                // Where there is nothing to say about hosts, and for a job that was adopted.
                if visits.first().is_none_or(|first| first.host != *prepared.host()) {
                    let host = Arc::clone(prepared.host());
                    visits.insert(0, Visit::to(host, now, None));
                }
                let not_before = visits.first().map_or(now, |first| first.not_before);
                return Some(Claimed { job, prepared, trail: Trail::of(visits), not_before });
            }
        }
        None
    }

    /// Settles jobs whose objects are there, and puts the others into their hosts' lanes.
    pub(super) fn looked_up(&mut self, (claimed, found): LookedUp) {
        for (claimed, found) in claimed.into_iter().zip(found) {
            let Claimed { job, prepared, trail, not_before } = claimed;
            if let Some(object) = found.and_then(|found| self.processor.object_of(&prepared, found)) {
                self.vitals.count_done();
                let settlement = self.processor.exists(prepared, object);
                self.exit.end_unattempted(job, &trail, settlement);
                continue;
            }
            let host = Arc::clone(prepared.host());
            let claimed = Claimed { job, prepared: prepared.looked_up(), trail, not_before };
            self.hosts.gate().push(&host, claimed, not_before);
        }
    }

    /// Whether another job may start now, if one is there.
    pub(super) fn has_open_slot(&self) -> bool {
        let slots = match self.storage.condition() {
            Condition::Good => self.limits.concurrency,
            Condition::Trial => usize::from(self.slots.running() == 0),
            Condition::Bad(_) => 0,
        };
        self.slots.has_room(slots)
    }

    /// Starts what may start, as long as there are slots.
    pub(super) fn fill(&mut self) {
        // Now is the look at the lanes that a place which got free is waiting for.
        let _ = self.freed.notified().now_or_never();
        let now = now();
        while self.has_open_slot() {
            let claimed = self.hosts.gate().next(now);
            let Some(claimed) = claimed else { break };
            self.start(claimed);
        }
        // Whatever changes the lanes ends here.
        self.metrics.waits(self.hosts.gate().waiting() + self.look_ups.jobs());
    }

    /// Starts a job that has a place at its host.
    fn start(&mut self, claimed: Claimed) {
        let Claimed { job, prepared, trail, .. } = claimed;
        let processor = Arc::clone(&self.processor);
        let host = Arc::clone(prepared.host());
        let is_fresh = prepared.is_fresh();
        let place = self.hosts.taken(&host);
        let doors = Doors {
            places: Arc::clone(&self.hosts) as Arc<dyn Places>,
            admissions: self.admissions.clone(),
            tally: Arc::clone(&self.tally),
        };
        let mut visits = Visits::begin(Arc::clone(&trail), place, doors);
        self.tally.started(&host);
        self.slots.start(Attempt { job, host, trail, is_fresh }, |downloaded| async move {
            processor.process(prepared, &mut visits, || downloaded.tell()).await
        });
    }

    /// Starts a suspect past its lane, which is empty.
    pub(super) fn start_alone(&mut self, suspect: ClaimedJob) {
        if let Some(claimed) = self.read(suspect, now()) {
            let host = Arc::clone(claimed.prepared.host());
            self.hosts.gate().enter(&host);
            self.start(claimed);
        }
    }

    /// Passes on what a finished task decided.
    pub(super) fn pass_on(&mut self, finished: Finished) {
        let Some((Attempt { job, host, trail, is_fresh }, processed)) = self.slots.ended(finished) else { return };
        self.pace.count_done();
        self.vitals.count_done();
        let (settlement, ending) = match processed {
            Some(Processed { settlement, ending }) => (settlement, ending),
            // A panic is the job's crash without the process: it would happen again on every worker.
            None => match Job::read(&job.payload, random_u128()) {
                Ok(job) => (report_crashed(job), Ending::Untold),
                Err(_) => (Settlement::Release, Ending::Untold),
            },
        };
        let is_stored =
            matches!(&settlement, Settlement::Report(report) if matches!(report.outcome, Outcome::Stored { .. }));
        self.tally.ended(&trail.host().unwrap_or(host), is_stored);
        self.exit.end(job, &trail, is_fresh, ending, settlement);
    }

    /// Gives back what was not started.
    pub(super) fn give_back_waiting(&mut self) {
        // Jobs whose objects are looked for: a storage that is stuck does not say when it will answer.
        let mut waiting: Vec<Claimed> = self.look_ups.take_back().collect();
        waiting.extend(self.hosts.gate().drain_all());
        // As they were in the queue: lanes have an order of their own.
        waiting.sort_by_key(|claimed| claimed.job.field.order());
        for Claimed { job, trail, .. } in waiting {
            self.exit.end_unattempted(job, &trail, Settlement::Release);
        }
    }
}
