//! `producer dead list|retry|drop`: the dead letters.

use super::{CommandError, Ended, print, print_json};
use crate::cli::{DeadChange, DeadCommand, DeadFilter};
use common::error::QueueError;
use common::host::host_of;
use common::job::JobId;
use common::report::entry_ms;
use common::text::{count, harmless};
use queue::{DeadAction, DeadJob, DeadPages, EntryFilter, EntryRange, Queue};
use url::Url;

pub(super) async fn dead(queue: &Queue, command: DeadCommand) -> Result<Ended, CommandError> {
    let (filter, action, dry_run) = match &command {
        DeadCommand::List(filter) => (filter, None, false),
        DeadCommand::Retry(DeadChange { filter, dry_run }) => (filter, Some(DeadAction::Retry), *dry_run),
        DeadCommand::Drop(DeadChange { filter, dry_run }) => (filter, Some(DeadAction::Drop), *dry_run),
    };
    let wanted = Wanted::new(queue, filter).await?;
    let change = action.filter(|_| !dry_run);
    let (mut found, mut moved) = (0, 0);
    // One job is looked for first in the time of its batch.
    let span = wanted.span_of_batch(queue).await?;
    for range in span.into_iter().chain([wanted.range()]) {
        (found, moved) = go_through(queue, &wanted, range, action, change).await?;
        if found > 0 {
            break;
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

/// Lists those that are wanted, or changes them: how many there were, and how many were changed.
async fn go_through(
    queue: &Queue,
    wanted: &Wanted<'_>,
    range: EntryRange,
    action: Option<DeadAction>,
    change: Option<DeadAction>,
) -> Result<(u64, u64), CommandError> {
    let (mut found, mut moved) = (0, 0);
    let mut pages = DeadPages::of(queue, wanted.in_redis(), range);
    let mut next = pages.next().await?;
    while let Some(page) = next {
        let jobs: Vec<DeadJob> = page.into_iter().filter(|job| wanted.takes(job)).collect();
        found += jobs.len() as u64;
        if action.is_none() {
            list(&jobs, wanted.filter.json)?;
        }
        let settle = async {
            match change {
                Some(change) if !jobs.is_empty() => queue.settle_dead(change, &jobs).await,
                _ => Ok(0),
            }
        };
        // The next page is asked for before the answer about this one is there: Redis waits for nobody.
        let (settled, read) = tokio::try_join!(settle, pages.next())?;
        moved += settled;
        next = read;
    }
    Ok((found, moved))
}

fn list(jobs: &[DeadJob], json: bool) -> Result<(), CommandError> {
    for job in jobs {
        if json {
            print_json(job)?;
        } else {
            let (id, reason, url) = (harmless(&job.id), harmless(&job.reason), harmless(&job.url));
            print(&format!("{id}  {reason:<16} {:>2} tries  {url}", job.attempts))?;
        }
    }
    Ok(())
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

    /// The part of it that Redis looks at, so that it sends no others.
    fn in_redis(&self) -> EntryFilter {
        EntryFilter { reason: self.filter.reason.clone(), id: self.filter.id.clone(), ..EntryFilter::default() }
    }

    /// The dead letters that are looked at: their ids begin with the time.
    fn range(&self) -> EntryRange {
        EntryRange::default().since_ms(self.since_ms).until_ms(self.before_ms.saturating_sub(1))
    }

    /// Those of them in which the one job that is wanted should be, as its id names its batch.
    async fn span_of_batch(&self, queue: &Queue) -> Result<Option<EntryRange>, QueueError> {
        let id = self.filter.id.as_ref().and_then(|id| id.parse::<JobId>().ok());
        let Some(batch) = id.and_then(JobId::batch) else { return Ok(None) };
        let (from_ms, until_ms) = match queue.batch(batch).await {
            Ok((batch, _)) => batch.span_ms(),
            Err(QueueError::NoSuchBatch(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let until_ms = until_ms.unwrap_or(u64::MAX).min(self.before_ms.saturating_sub(1));
        Ok(Some(EntryRange::default().since_ms(from_ms.max(self.since_ms)).until_ms(until_ms)))
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
