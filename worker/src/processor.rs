//! One job from its payload to its settlement: fetch, inspect, store, and decide what the result means.

use crate::attempt::Setback;
use crate::cli::Config;
use crate::fetch::Fetcher;
use crate::host_gate::HostGate;
use crate::inspect::Inspector;
use crate::storage::Storage;
use crate::storage::layout::Layout;
use common::job::{Job, JobId, UnreadableJob};
use common::link::canonical_url;
use common::media::MediaTypes;
use common::outcome::{Failure, Outcome, Rejection};
use common::queue::{ClaimedJob, Settlement};
use common::report::{Report, StoredObject};
use common::retry::{Disposition, RetryPolicy, disposition};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::Url;

/// A job that took its worker down so often is not run again.
const CRASHES_MAX: u32 = 3;

/// Does jobs.
#[derive(Debug)]
pub(crate) struct Processor {
    fetcher: Fetcher,
    storage: Arc<Storage>,
    gate: HostGate,
    layout: Layout,
    types: MediaTypes,
    total_timeout: Duration,
    retry: RetryPolicy,
}

/// Why an attempt stored nothing.
enum Obstacle {
    /// The job's own bad luck.
    Setback(Setback),
    /// The storage, with the status that the object came with. Whose fault it is, is not clear yet.
    Storage(io::Error, u16),
}

impl From<Setback> for Obstacle {
    fn from(setback: Setback) -> Obstacle {
        Obstacle::Setback(setback)
    }
}

/// An object, and the status that it came with (0 when it was there before).
type Success = (StoredObject, u16, bool);

impl Processor {
    pub(crate) fn new(config: &Config, fetcher: Fetcher, storage: Arc<Storage>) -> Processor {
        Processor {
            fetcher,
            storage,
            gate: HostGate::new(config.host_concurrency),
            layout: config.layout,
            types: config.types,
            total_timeout: config.total_timeout,
            retry: config.retry,
        }
    }

    /// Does one job. Cancel safety: a dropped call leaves nothing in storage that is not complete.
    pub(crate) async fn process(&self, claimed: &ClaimedJob) -> Settlement {
        let job = match Job::read(&claimed.payload, random_u128()) {
            Ok(job) => job,
            Err(unreadable) => return report_unreadable(unreadable),
        };
        if claimed.crashes >= CRASHES_MAX {
            return report_crashed(job);
        }
        let url = match canonical_url(&job.url) {
            Ok(url) => url,
            Err(_) => return self.settlement(job, None, Err(Rejection::BadUrl.into()), Duration::ZERO),
        };
        let permit = self.gate.enter(url.host_str().unwrap_or_default()).await;
        let started = Instant::now();
        let result = match tokio::time::timeout(self.total_timeout, self.attempt(&url)).await {
            Ok(Ok(success)) => Ok(success),
            Ok(Err(Obstacle::Setback(setback))) => Err(setback),
            Ok(Err(Obstacle::Storage(error, status))) => {
                tracing::warn!(job = %job.id, %url, "cannot store: {error}");
                if self.storage.is_to_blame(&error).await {
                    return Settlement::Release;
                }
                Err(Setback::from(Failure::Storage).with_status(status))
            }
            // What waited for a stuck storage until its time was over is not to blame either.
            Err(_) if self.storage.health().is_bad() || self.storage.health().is_stuck() => return Settlement::Release,
            Err(_) => Err(Failure::TimeoutTotal.into()),
        };
        drop(permit);
        tracing::debug!(job = %job.id, %url, ?result, "attempt");
        self.settlement(job, Some(url), result, started.elapsed())
    }

    async fn attempt(&self, url: &Url) -> Result<Success, Obstacle> {
        if let Some(found) = self.already_there(url).await {
            return Ok((found, 0, true));
        }
        let mut body = self.fetcher.get(url).await?;
        let status = body.status();
        let mut inspector = Inspector::new(self.types);
        let mut upload = self.storage.upload();
        let setback = |rejection: Rejection| Setback::from(rejection).with_status(status);
        let storage_failed = |error: io::Error| Obstacle::Storage(error, status);
        while let Some(chunk) = body.chunk().await? {
            inspector.feed(&chunk).map_err(setback)?;
            upload.write(chunk).await.map_err(storage_failed)?;
        }
        let (media_type, dimensions) = inspector.finish().map_err(setback)?;
        let key = self.layout.key(url, media_type);
        let written = upload.finish(key.clone()).await.map_err(storage_failed)?;
        let object = StoredObject { key, bytes: written.bytes, sha256: written.sha256, media_type, dimensions };
        Ok((object, status, false))
    }

    /// The object of an earlier run, or of an attempt whose result was lost.
    async fn already_there(&self, url: &Url) -> Option<StoredObject> {
        let types = self.types;
        let fits = move |head: &[u8]| {
            let mut inspector = Inspector::new(types);
            inspector.feed(head).and_then(|()| inspector.finish()).is_ok()
        };
        let found = self.storage.find(self.layout.candidates(url, types), fits).await?;
        let mut inspector = Inspector::new(types);
        inspector.feed(&found.head).ok()?;
        let (media_type, dimensions) = inspector.finish().ok()?;
        Some(StoredObject {
            key: found.key,
            bytes: found.written.bytes,
            sha256: found.written.sha256,
            media_type,
            dimensions,
        })
    }

    fn settlement(
        &self,
        mut job: Job,
        url: Option<Url>,
        result: Result<Success, Setback>,
        duration: Duration,
    ) -> Settlement {
        let attempts = job.attempts.saturating_add(1);
        let (outcome, object, status, server_wait) = match result {
            Ok((object, status, exists)) => (Outcome::Stored { exists }, Some(object), status, None),
            Err(setback) => (setback.outcome, None, setback.status, setback.server_wait),
        };
        match disposition(outcome, attempts, self.retry, server_wait, fastrand::f64()) {
            Disposition::Retry { after } => {
                job.attempts = attempts;
                job.last_reason = Some(outcome.reason().to_owned());
                Settlement::Retry { job: Box::new(job), after }
            }
            Disposition::Settle => Settlement::Report(Box::new(Report {
                id: job.id,
                url: url.map_or(job.url, String::from),
                outcome,
                object,
                status,
                attempts,
                duration_ms: duration.as_millis() as u64,
            })),
        }
    }
}

fn failed_without_attempt(id: JobId, url: String, attempts: u32, failure: Failure) -> Settlement {
    Settlement::Report(Box::new(Report {
        id,
        url,
        outcome: Outcome::Failed(failure),
        object: None,
        status: 0,
        attempts,
        duration_ms: 0,
    }))
}

fn report_unreadable(unreadable: UnreadableJob) -> Settlement {
    tracing::warn!(url = unreadable.url, "a job cannot be read: {}", unreadable.why);
    let id = unreadable.id.unwrap_or_else(|| JobId::without_batch(random_u128()));
    failed_without_attempt(id, unreadable.url, 0, Failure::UnreadableJob)
}

/// What becomes of a job that took its worker down too often, or panicked.
pub(crate) fn report_crashed(job: Job) -> Settlement {
    tracing::warn!(job = %job.id, url = job.url, "a job crashed its worker, and is not run again");
    failed_without_attempt(job.id, job.url, job.attempts, Failure::WorkerCrashed)
}

/// For ids of jobs that came without one.
pub(crate) fn random_u128() -> u128 {
    u128::from(fastrand::u64(..)) << 64 | u128::from(fastrand::u64(..))
}
