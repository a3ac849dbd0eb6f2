//! `producer dead list|retry|drop`: the dead letters.

use super::{CommandError, Ended, print, print_json};
use crate::cli::{DeadCommand, DeadFilter};
use crate::view::{count, harmless};
use common::queue::{DeadAction, DeadJob, Queue};

/// Dead jobs read, and moved, in one go.
const PAGE: usize = 500;

pub(super) async fn dead(queue: &Queue, command: DeadCommand) -> Result<Ended, CommandError> {
    let (filter, action) = match &command {
        DeadCommand::List(filter) => (filter, None),
        DeadCommand::Retry(filter) => (filter, Some(DeadAction::Retry)),
        DeadCommand::Drop(filter) => (filter, Some(DeadAction::Drop)),
    };
    let mut after: Option<String> = None;
    let (mut found, mut moved) = (0, 0);
    // A job that fails again while this goes on comes back as a new entry; the end is what was there at the beginning.
    let dead_at_start = queue.status().await?.dead;
    let mut seen = 0;
    while seen < dead_at_start {
        let page = queue.dead_jobs(after.as_deref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.entry.clone());
        seen += page.len() as u64;
        let wanted: Vec<DeadJob> = page.into_iter().filter(|job| is_wanted(job, filter)).collect();
        found += wanted.len() as u64;
        match action {
            Some(action) if !wanted.is_empty() => moved += queue.settle_dead(action, &wanted).await?,
            Some(_) => {}
            None => {
                for job in &wanted {
                    if filter.json {
                        print_json(job)?;
                    } else {
                        let (id, reason, url) = (harmless(&job.id), harmless(&job.reason), harmless(&job.url));
                        print(&format!("{id}  {reason:<16} {:>2} tries  {url}", job.attempts))?;
                    }
                }
            }
        }
    }
    match (action, filter.json) {
        (None, true) => {}
        (None, false) => print(&format!("{} dead", count(found, "job")))?,
        (Some(_), true) => print_json(&serde_json::json!({ "found": found, "moved": moved }))?,
        (Some(DeadAction::Retry), false) => print(&format!("{} back on the queue", count(moved, "job")))?,
        (Some(DeadAction::Drop), false) => print(&format!("{} dropped", count(moved, "job")))?,
    }
    Ok(Ended::Done)
}

fn is_wanted(job: &DeadJob, filter: &DeadFilter) -> bool {
    filter.reason.as_ref().is_none_or(|reason| *reason == job.reason)
        && filter.id.as_ref().is_none_or(|id| *id == job.id)
}
