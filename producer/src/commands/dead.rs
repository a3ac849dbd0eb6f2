//! `producer dead list|retry|drop`: the dead letters.

use super::{CommandError, Ended, print, print_json};
use crate::cli::{DeadChange, DeadCommand, DeadFilter};
use common::error::QueueError;
use common::host::host_of;
use common::report::entry_ms;
use common::text::{count, harmless};
use queue::{DeadAction, DeadJob, DeadPages, Queue};
use url::Url;

pub(super) async fn dead(queue: &Queue, command: DeadCommand) -> Result<Ended, CommandError> {
    let (filter, action, dry_run) = match &command {
        DeadCommand::List(filter) => (filter, None, false),
        DeadCommand::Retry(DeadChange { filter, dry_run }) => (filter, Some(DeadAction::Retry), *dry_run),
        DeadCommand::Drop(DeadChange { filter, dry_run }) => (filter, Some(DeadAction::Drop), *dry_run),
    };
    let wanted = Wanted::new(queue, filter).await?;
    let (mut found, mut moved) = (0, 0);
    let mut pages = DeadPages::new(queue, queue.status().await?.dead);
    while let Some(page) = pages.next().await? {
        let jobs: Vec<DeadJob> = page.into_iter().filter(|job| wanted.takes(job)).collect();
        found += jobs.len() as u64;
        match action {
            Some(action) if !jobs.is_empty() && !dry_run => moved += queue.settle_dead(action, &jobs).await?,
            Some(_) => {}
            None => {
                for job in &jobs {
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
        (Some(DeadAction::Retry), false) if dry_run => {
            print(&format!("{} would go back on the queue", count(found, "job")))?
        }
        (Some(DeadAction::Drop), false) if dry_run => print(&format!("{} would be dropped", count(found, "job")))?,
        (Some(_), true) => print_json(&serde_json::json!({ "found": found, "moved": moved }))?,
        (Some(DeadAction::Retry), false) => print(&format!("{} back on the queue", count(moved, "job")))?,
        (Some(DeadAction::Drop), false) => print(&format!("{} dropped", count(moved, "job")))?,
    }
    Ok(Ended::Done)
}

/// The filter with its times by the Redis clock.
struct Wanted<'a> {
    filter: &'a DeadFilter,
    since_ms: u64,
    before_ms: u64,
}

impl Wanted<'_> {
    async fn new<'a>(queue: &Queue, filter: &'a DeadFilter) -> Result<Wanted<'a>, QueueError> {
        let now_ms = queue.now_ms().await?;
        let since_ms = filter.since.map_or(0, |since| since.as_ms(now_ms));
        let before_ms = filter.before.map_or(u64::MAX, |before| before.as_ms(now_ms));
        Ok(Wanted { filter, since_ms, before_ms })
    }

    fn takes(&self, job: &DeadJob) -> bool {
        let Wanted { filter, since_ms, before_ms } = self;
        let failed_ms = entry_ms(&job.entry).unwrap_or(0);
        filter.reason.as_ref().is_none_or(|reason| *reason == job.reason)
            && filter.id.as_ref().is_none_or(|id| *id == job.id)
            && filter.host.as_ref().is_none_or(|host| is_of_host(&job.url, host))
            && (*since_ms..*before_ms).contains(&failed_ms)
    }
}

/// With a port only that one counts, without one all of the host's.
fn is_of_host(link: &str, host: &str) -> bool {
    Url::parse(link).is_ok_and(|url| {
        host.eq_ignore_ascii_case(&host_of(&url)) || host.eq_ignore_ascii_case(url.host_str().unwrap_or_default())
    })
}
