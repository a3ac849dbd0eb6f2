//! The exit: the one way out for every job that this worker holds. Conclusions are drawn about its hosts, and what becomes of it is
//! sent on its way. So nothing that a claim gave out for it, a start or the probe of a host, is forgotten.

use super::claimed::Claimed;
use crate::hosts::conclusions::{Circumstances, Ending, Said, conclude};
use crate::hosts::{Hosts, Trail};
use crate::ledger::Ledger;
use crate::settler::Outgoing;
use queue::{ClaimedJob, LeaseField, Settlement};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Where jobs leave.
pub(super) struct Exit {
    pub(super) ledger: Arc<Ledger>,
    pub(super) hosts: Arc<Hosts<Claimed>>,
    /// To the settler.
    pub(super) outgoing: mpsc::UnboundedSender<Outgoing>,
    /// Between the starts of two requests, where hosts have a rate.
    pub(super) interval: Option<Duration>,
    /// The wait after a first refusal.
    pub(super) first_wait: Duration,
}

impl Exit {
    /// A job leaves as `settlement` says.
    pub(super) fn end(&self, job: ClaimedJob, trail: &Trail, is_fresh: bool, ending: Ending, settlement: Settlement) {
        self.conclude(trail, is_fresh, ending);
        // If the settler is gone the supervisor ends the process.
        let _ = self.outgoing.send(Outgoing::Job(job, settlement));
    }

    /// A job leaves that was not attempted.
    pub(super) fn end_unattempted(&self, job: ClaimedJob, trail: &Trail, settlement: Settlement) {
        self.end(job, trail, true, Ending::Untold, settlement);
    }

    /// A job leaves that is not this worker's any more.
    pub(super) fn lose(&self, field: &LeaseField, trail: &Trail) {
        self.conclude(trail, false, Ending::Lost);
        self.ledger.forget(field);
    }

    /// Draws the conclusions of an attempt, and tells the others where they matter to them.
    fn conclude(&self, trail: &Trail, is_fresh: bool, ending: Ending) {
        let circumstances = Circumstances { interval: self.interval, first_wait: self.first_wait, is_fresh };
        let (visits, last) = trail.close();
        let failures = |host: &Arc<str>| self.hosts.gate().failures(host);
        for conclusion in conclude(&visits, last, ending, circumstances, failures) {
            let host = &conclusion.host;
            self.hosts.gate().set_failures(host, conclusion.failures);
            match conclusion.said {
                Some(Said::OnlyFails(reason)) => {
                    tracing::warn!(%host, "the host only fails ({reason}); it is left alone for a while");
                }
                Some(Said::StillFails(reason)) => tracing::info!(%host, "the host still fails ({reason})"),
                None => {}
            }
            // It goes before the jobs that wait because of it.
            if let Some(news) = conclusion.news {
                let _ = self.outgoing.send(Outgoing::Host(news));
            }
            if conclusion.is_to_be_left_alone {
                self.hold_all(host);
            }
        }
    }

    /// Gives back what waits for a host that is to be left alone, until it may be asked again.
    pub(super) fn hold_all(&self, host: &str) {
        let mut gate = self.hosts.gate();
        let mut waiting = gate.drain(host);
        waiting.extend(gate.extract(|claimed| !claimed.prepared.leads_to(host)));
        drop(gate);
        for Claimed { job, prepared, trail, .. } in waiting {
            self.end_unattempted(job, &trail, prepared.held(host));
        }
    }
}
