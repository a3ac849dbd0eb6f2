//! One job from its payload to its settlement: fetch, inspect, store, and decide what the result means.

use crate::attempt::Setback;
use crate::cli::Config;
use crate::fetch::{Fetcher, Unfetched};
use crate::hosts::conclusions::Ending;
use crate::hosts::{NotAdmitted, Visits};
use crate::metrics::{Metrics, Phase};
use crate::storage_waits::{Ended, StorageWaits, limited};
use common::host::{host_of, is_plain};
use common::job::{Job, JobId, UnreadableJob};
use common::link::{canonical_url, for_logs};
use common::media::MediaInfo;
use common::outcome::{Failure, Outcome, Rejection};
use common::report::{Report, StoredObject};
use common::retry::{Disposition, RetryPolicy, disposition};
use content::Content;
use content::Inspector;
use queue::{ClaimedJob, Settlement};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::layout::Layout;
use storage::{Existing, Expected, Storage, Unstored, Written};
use url::Url;

/// A job that took its worker down so often is not run again.
const CRASHES_MAX: u32 = 3;

/// Does jobs.
#[derive(Debug)]
pub(crate) struct Processor {
    fetcher: Fetcher,
    storage: Arc<Storage>,
    metrics: Arc<Metrics>,
    layout: Layout,
    content: Arc<Content>,
    total_timeout: Duration,
    retry: RetryPolicy,
}

/// A job that was read.
#[derive(Debug)]
pub(crate) struct Prepared {
    job: Job,
    url: Url,
    host: Arc<str>,
    /// Its object was looked for, and is not there.
    is_looked_up: bool,
}

impl Prepared {
    /// Its object is not there.
    pub(crate) fn looked_up(self) -> Prepared {
        Prepared { is_looked_up: true, ..self }
    }

    /// As [`host_of`] names it.
    pub(crate) fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// No attempt was made at it yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.job.attempts == 0
    }

    /// Whether its link leads to `host`, which the claim has admitted it to.
    pub(crate) fn leads_to(&self, host: &str) -> bool {
        self.targets().any(|target| target == host)
    }

    /// The hosts that its link leads to, which the claim has admitted it to; none of most jobs.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &str> {
        self.job.redirects_to.as_deref().into_iter().flat_map(|hosts| hosts.split(' '))
    }

    /// Waiting for `host` costs it nothing. The payload is written anew, with an id where it had none.
    pub(crate) fn held(self, host: &str) -> Settlement {
        Settlement::Hold { host: host.to_owned(), job: Some(Box::new(self.job)) }
    }
}

/// What an attempt came to.
#[derive(Debug)]
pub(crate) struct Processed {
    pub(crate) settlement: Settlement,
    pub(crate) ending: Ending,
}

/// Why an attempt stored nothing.
enum Obstacle {
    /// The job's own bad luck.
    Setback(Setback),
    /// It leads to a host that may not be asked now.
    NotAdmitted(NotAdmitted),
    /// The storage, with the status that the object came with. Whose fault it is, is not clear yet.
    Storage(io::Error, u16),
}

/// How an attempt ended, once it is clear whose fault that is.
#[derive(Debug)]
enum AttemptEnd {
    /// It came to this.
    Made(Result<Success, Setback>),
    /// It leads to a host that may not be asked now.
    NotAdmitted(NotAdmitted),
    /// The storage cannot be used: the job goes back as it was.
    Blameless,
}

impl From<Unfetched> for Obstacle {
    fn from(unfetched: Unfetched) -> Obstacle {
        match unfetched {
            Unfetched::Setback(setback) => Obstacle::Setback(setback),
            Unfetched::NotAdmitted(not_admitted) => Obstacle::NotAdmitted(not_admitted),
        }
    }
}

impl From<Setback> for Obstacle {
    fn from(setback: Setback) -> Obstacle {
        Obstacle::Setback(setback)
    }
}

/// An object, and the status that it came with (0 when it was there before).
type Success = (StoredObject, u16, bool);

impl Processor {
    pub(crate) fn new(
        config: &Config,
        content: Arc<Content>,
        fetcher: Fetcher,
        storage: Arc<Storage>,
        metrics: Arc<Metrics>,
    ) -> Processor {
        Processor {
            fetcher,
            storage,
            metrics,
            layout: config.layout,
            content,
            total_timeout: config.total_timeout,
            retry: config.retry,
        }
    }

    /// Reads a job before it waits for its turn.
    ///
    /// # Errors
    /// What becomes of one that there is nothing to do for.
    pub(crate) fn prepare(&self, claimed: &ClaimedJob) -> Result<Prepared, Settlement> {
        let job = Job::read(&claimed.payload, random_u128()).map_err(report_unreadable)?;
        if claimed.crashes >= CRASHES_MAX {
            return Err(report_crashed(job));
        }
        match canonical_url(&job.url) {
            // Pushed by hand, in a form in which the claim could not see its host: the next one has to.
            Ok(url) if job.url != url.as_str() && !is_plain(&job.url, &url) => {
                let host = host_of(&url).into_owned();
                Err(Settlement::Hold { host, job: Some(Box::new(Job { url: url.into(), ..job })) })
            }
            Ok(url) => Ok(Prepared { host: Arc::from(&*host_of(&url)), job, url, is_looked_up: false }),
            Err(_) => {
                let bad_url = Err(Rejection::BadUrl.into());
                Err(self.settlement(job, None, bad_url, Duration::ZERO))
            }
        }
    }

    /// Does one job; `downloaded` is called when its body is whole, with the object still to be stored. Cancel safety: a
    /// dropped call leaves nothing in storage that is not complete.
    pub(crate) async fn process(
        &self,
        prepared: Prepared,
        visits: &mut Visits,
        downloaded: impl FnOnce(),
    ) -> Processed {
        let _downloads = self.metrics.downloads();
        let released = Processed { settlement: Settlement::Release, ending: Ending::Untold };
        let prepared = match self.unless_exists(prepared).await {
            Some(Ok(prepared)) => prepared,
            Some(Err(settlement)) => return Processed { settlement, ending: Ending::Untold },
            None => return released,
        };
        let Prepared { job, url, host, .. } = prepared;
        let started = Instant::now();
        let waits = StorageWaits::default();
        let attempted = {
            let attempt = pin!(self.attempt(&url, job.sha256.clone(), started, visits, &waits, downloaded));
            limited(self.total_timeout, &waits, || self.storage_is_unusable(), attempt).await
        };
        let took = started.elapsed();
        self.metrics.attempted(took);
        let end = self.end_of(attempted, &job.id, &url).await;
        self.processed(Prepared { job, url, host, is_looked_up: true }, end, took, visits.led_to())
    }

    /// Finds out whose fault an obstacle is.
    async fn end_of(&self, attempted: Ended<Result<Success, Obstacle>>, id: &JobId, url: &Url) -> AttemptEnd {
        match attempted {
            Ended::Done(Ok(success)) => AttemptEnd::Made(Ok(success)),
            Ended::Done(Err(Obstacle::Setback(setback))) => AttemptEnd::Made(Err(setback)),
            Ended::Done(Err(Obstacle::NotAdmitted(not_admitted))) => AttemptEnd::NotAdmitted(not_admitted),
            Ended::Done(Err(Obstacle::Storage(error, status))) => {
                tracing::warn!(job = %id, url = %for_logs(url.as_str()), "cannot store: {error}");
                if self.storage.is_to_blame(&error).await {
                    return AttemptEnd::Blameless;
                }
                AttemptEnd::Made(Err(Setback::from(Failure::Storage).with_status(status)))
            }
            Ended::StorageUnusable => AttemptEnd::Blameless,
            Ended::TimedOut => AttemptEnd::Made(Err(Failure::TimeoutTotal.into())),
        }
    }

    /// What becomes of a job by the end of its attempt, in which its link led to the hosts `led_to`.
    ///
    /// A job that has to wait carries all of them, and the one that did not admit it. So each time it waits it carries one more, as
    /// often as redirects are followed at most; then a claim admits it to all of them at once, and it waits no more.
    fn processed(&self, prepared: Prepared, end: AttemptEnd, took: Duration, led_to: Option<String>) -> Processed {
        let Prepared { mut job, url, host, .. } = prepared;
        match end {
            AttemptEnd::Blameless => Processed { settlement: Settlement::Release, ending: Ending::Untold },
            AttemptEnd::NotAdmitted(NotAdmitted { host: target, refused }) => {
                tracing::debug!(job = %job.id, host = %target, ?refused, "the redirect's target may not be asked now");
                job.redirects_to = Some(led_to.map_or_else(|| target.to_string(), |hosts| format!("{hosts} {target}")));
                let settlement = match refused {
                    None => Settlement::Hold { host: target.to_string(), job: Some(Box::new(job)) },
                    Some(reason) => self.refused_by(job, url, &target, reason),
                };
                Processed { settlement, ending: Ending::Redirected }
            }
            AttemptEnd::Made(result) => {
                tracing::debug!(job = %job.id, url = %for_logs(url.as_str()), ?result, "attempt");
                let ending = match &result {
                    Ok(_) => Ending::Outcome(Outcome::Stored { exists: false }, None),
                    Err(setback) => Ending::Outcome(setback.outcome, setback.server_wait),
                };
                // Who refused is who was asked last.
                let asked = led_to.as_deref().and_then(|hosts| hosts.rsplit(' ').next()).unwrap_or(&host).to_owned();
                job.redirects_to = led_to;
                Processed { settlement: self.settlement_at(job, Some(url), result, took, &asked), ending }
            }
        }
    }

    /// Whoever waits for it would wait in vain.
    fn storage_is_unusable(&self) -> bool {
        self.storage.health().is_bad() || self.storage.health().is_stuck()
    }

    /// Looks for the object of a job that was not looked for before; `None` when the storage does not answer.
    async fn unless_exists(&self, prepared: Prepared) -> Option<Result<Prepared, Settlement>> {
        if prepared.is_looked_up {
            return Some(Ok(prepared));
        }
        let waits = StorageWaits::default();
        let answer = pin!(self.look_up(vec![self.candidates(&prepared)]));
        let look = pin!(waits.during(answer));
        let found = match limited(self.total_timeout, &waits, || self.storage_is_unusable(), look).await {
            Ended::Done(mut found) => found.pop().flatten(),
            Ended::TimedOut | Ended::StorageUnusable => return None,
        };
        Some(match found.and_then(|found| self.object_of(&prepared, found)) {
            Some(object) => Err(self.exists(prepared, object)),
            None => Ok(prepared),
        })
    }

    /// What becomes of a job whose host has refused for so long that it costs an attempt to wait for it.
    pub(crate) fn refused(&self, prepared: Prepared, host: &str, reason: Failure) -> Settlement {
        let Prepared { job, url, .. } = prepared;
        self.refused_by(job, url, host, reason)
    }

    fn refused_by(&self, mut job: Job, url: Url, host: &str, reason: Failure) -> Settlement {
        // What it met itself is nearer to the truth than what others met there.
        let own = job.last_reason.as_deref().and_then(|reason| reason.parse().ok());
        let reason = own.unwrap_or(reason);
        job.held = self.retry.free_refusals();
        let redirects_to = job.redirects_to.clone();
        match self.settlement(job, Some(url), Err(reason.into()), Duration::ZERO) {
            // Not before the host may be asked again.
            Settlement::Retry { mut job, .. } => {
                job.redirects_to = redirects_to;
                Settlement::Hold { host: host.to_owned(), job: Some(job) }
            }
            other => other,
        }
    }

    async fn attempt(
        &self,
        url: &Url,
        sha256_wanted: Option<String>,
        started: Instant,
        visits: &mut Visits,
        waits: &StorageWaits,
        downloaded: impl FnOnce(),
    ) -> Result<Success, Obstacle> {
        let mut stopwatch = self.metrics.stopwatch(started);
        let mut body = self.fetcher.get(url, visits).await?;
        stopwatch.ended(Phase::FirstByte);
        let status = body.status();
        let mut inspector = Inspector::new(self.content.demands());
        let mut upload = self.storage.upload();
        let setback = |rejection: Rejection| Setback::from(rejection).with_status(status);
        let storage_failed = |error: io::Error| Obstacle::Storage(error, status);
        loop {
            let chunk = match body.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(broken_off) => {
                    inspector.look_at_rest().map_err(setback)?;
                    return Err(broken_off.into());
                }
            };
            inspector.feed(&chunk).map_err(setback)?;
            body.holding_back(pin!(waits.during(pin!(upload.write(chunk))))).await.map_err(storage_failed)?;
        }
        stopwatch.ended(Phase::Body);
        drop(body);
        visits.leave();
        downloaded();
        let info = inspector.finish().map_err(setback)?;
        let MediaInfo { media_type, dimensions } = info;
        let key = self.layout.key(url, media_type, self.storage.case());
        let has_other_type = self.layout.promised(url).is_some_and(|promised| promised != media_type);
        let expected = Expected { info, sha256: sha256_wanted };
        let stored = waits.during(pin!(upload.finish(key.clone(), has_other_type, expected))).await;
        let written = stored.map_err(|unstored| match unstored {
            Unstored::Refused(rejection) => setback(rejection).into(),
            Unstored::Failed(error) => storage_failed(error),
        })?;
        stopwatch.ended(Phase::Store);
        let object = StoredObject { key, bytes: written.bytes, sha256: written.sha256, media_type, dimensions };
        Ok((object, status, false))
    }

    /// Looks for the objects of jobs: those of an earlier run, or of an attempt whose result was lost.
    pub(crate) async fn look_up(&self, candidates: Vec<Vec<String>>) -> Vec<Option<Existing>> {
        let mut stopwatch = self.metrics.stopwatch(Instant::now());
        let found = self.storage.find(candidates).await;
        stopwatch.ended(Phase::Lookup);
        found
    }

    /// The keys that a job's object may have.
    pub(crate) fn candidates(&self, prepared: &Prepared) -> Vec<String> {
        let promised = self.layout.promised(&prepared.url).filter(|promised| self.content.types.contains(*promised));
        let case = self.storage.case();
        match promised {
            Some(promised) if !self.storage.has_other_types() => vec![self.layout.key(&prepared.url, promised, case)],
            _ => self.layout.candidates(&prepared.url, self.content.types, case),
        }
    }

    /// What becomes of a job whose object is there.
    pub(crate) fn exists(&self, prepared: Prepared, object: Result<StoredObject, Rejection>) -> Settlement {
        let result = object.map(|object| (object, 0, true)).map_err(Setback::from);
        self.settlement(prepared.job, Some(prepared.url), result, Duration::ZERO)
    }

    /// What was found, if it is the job's object; or why it would be refused if it came today.
    pub(crate) fn object_of(&self, prepared: &Prepared, found: Existing) -> Option<Result<StoredObject, Rejection>> {
        let Existing { key, written: Written { bytes, sha256 }, info: MediaInfo { media_type, dimensions }, refused } =
            found;
        if prepared.job.sha256.as_ref().is_some_and(|wanted| *wanted != sha256) {
            return None;
        }
        Some(match refused {
            Some(rejection) => Err(rejection),
            None => Ok(StoredObject { key, bytes, sha256, media_type, dimensions }),
        })
    }

    /// What becomes of a job that no redirect was followed for.
    fn settlement(
        &self,
        job: Job,
        url: Option<Url>,
        result: Result<Success, Setback>,
        duration: Duration,
    ) -> Settlement {
        let host = url.as_ref().map_or_else(String::new, |url| host_of(url).into_owned());
        self.settlement_at(job, url, result, duration, &host)
    }

    /// What becomes of a job after an attempt that asked `host` last.
    fn settlement_at(
        &self,
        mut job: Job,
        url: Option<Url>,
        result: Result<Success, Setback>,
        duration: Duration,
        host: &str,
    ) -> Settlement {
        let attempts = job.attempts.saturating_add(1);
        let (outcome, object, status, server_wait) = match result {
            Ok((object, status, exists)) => (Outcome::Stored { exists }, Some(object), status, None),
            Err(setback) => (setback.outcome, None, setback.status, setback.server_wait),
        };
        match disposition(outcome, attempts, job.held, self.retry, server_wait, fastrand::f64()) {
            Disposition::Hold => {
                job.held += 1;
                job.last_reason = Some(outcome.reason().to_owned());
                Settlement::Hold { host: host.to_owned(), job: Some(Box::new(job)) }
            }
            Disposition::Retry { after } => {
                job.attempts = attempts;
                job.last_reason = Some(outcome.reason().to_owned());
                // By then it may lead elsewhere.
                job.redirects_to = None;
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
    let id = unreadable.id.unwrap_or_else(|| JobId::without_batch(random_u128()));
    tracing::warn!(job = %id, url = %for_logs(&unreadable.url), "a job cannot be read: {}", unreadable.why);
    failed_without_attempt(id, unreadable.url, 0, Failure::UnreadableJob)
}

/// What becomes of a job that took its worker down too often, or panicked.
pub(crate) fn report_crashed(job: Job) -> Settlement {
    tracing::warn!(job = %job.id, url = %for_logs(&job.url), "a job crashed its worker, and is not run again");
    failed_without_attempt(job.id, job.url, job.attempts, Failure::WorkerCrashed)
}

/// For ids of jobs that came without one.
pub(crate) fn random_u128() -> u128 {
    u128::from(fastrand::u64(..)) << 64 | u128::from(fastrand::u64(..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::ImageJudge;
    use crate::testing;
    use common::media::MediaType;

    const OWN: &str = "door.example";
    const TARGET: &str = "cdn.example";

    fn processor() -> (tempfile::TempDir, Processor) {
        let folder = tempfile::tempdir().expect("a folder");
        let config = Config::of(&["--max-attempts", "3"]);
        let content = Arc::default();
        let judge = Arc::new(ImageJudge(Arc::clone(&content)));
        let storage = Arc::new(Storage::open(folder.path(), 1, config.sync, judge).expect("a storage"));
        let metrics = Arc::new(Metrics::new(1));
        let fetcher = Fetcher::new(&config, Arc::clone(&content), Arc::clone(&metrics)).expect("usable");
        (folder, Processor::new(&config, content, fetcher, storage, metrics))
    }

    /// A job with so many attempts behind it.
    fn prepared(processor: &Processor, attempts: u32) -> Prepared {
        let url = format!("http://{OWN}/a.jpg");
        let mut prepared = processor.prepare(&testing::job(0, &url)).expect("a good job");
        prepared.job.attempts = attempts;
        prepared
    }

    fn ends(processor: &Processor, attempts: u32, ended: AttemptEnd, asked: &str) -> Processed {
        let led_to = (asked != OWN).then(|| asked.to_owned());
        processor.processed(prepared(processor, attempts), ended, Duration::from_millis(5), led_to)
    }

    fn stored() -> Success {
        let (media_type, dimensions) = (MediaType::Jpeg, None);
        let object = StoredObject { key: "k".into(), bytes: 1, sha256: "s".into(), media_type, dimensions };
        (object, 200, false)
    }

    #[tokio::test]
    async fn an_object_and_a_rejection_are_results_and_a_failure_is_tried_again_while_there_are_attempts() {
        let (_folder, processor) = processor();
        let stored = ends(&processor, 1, AttemptEnd::Made(Ok(stored())), OWN);
        let Settlement::Report(report) = stored.settlement else { panic!("{stored:?}") };
        assert_eq!((report.outcome, report.attempts, report.status), (Outcome::Stored { exists: false }, 2, 200));
        assert_eq!(stored.ending, Ending::Outcome(Outcome::Stored { exists: false }, None));
        for rejection in Rejection::ALL.iter().copied() {
            let setback = Setback::from(rejection).with_status(404);
            let processed = ends(&processor, 0, AttemptEnd::Made(Err(setback)), OWN);
            let Settlement::Report(report) = processed.settlement else { panic!("{processed:?}") };
            assert_eq!((report.outcome, report.attempts, report.status), (Outcome::Rejected(rejection), 1, 404));
        }
        for failure in Failure::ALL.iter().copied() {
            let outcome = Outcome::Failed(failure);
            let wait = Some(Duration::from_secs(9));
            let ended = || AttemptEnd::Made(Err(Setback { outcome, status: 0, server_wait: wait }));
            let early = ends(&processor, 0, ended(), TARGET);
            assert_eq!(early.ending, Ending::Outcome(outcome, wait), "{failure}");
            match (failure, early.settlement) {
                // Nobody tries those again: their jobs are what is wrong.
                (Failure::WorkerCrashed | Failure::UnreadableJob, Settlement::Report(report)) => {
                    assert_eq!(report.outcome, outcome);
                }
                (Failure::RateLimited, Settlement::Hold { host, job: Some(job) }) => {
                    assert_eq!((host.as_str(), job.attempts, job.held), (TARGET, 0, 1), "who refused is waited for");
                    assert_eq!(job.redirects_to.as_deref(), Some(TARGET));
                    assert_eq!(job.last_reason.as_deref(), Some(outcome.reason()));
                }
                (
                    Failure::Dns
                    | Failure::Connect
                    | Failure::Tls
                    | Failure::TimeoutConnect
                    | Failure::TimeoutIdle
                    | Failure::TimeoutTotal
                    | Failure::Http5xx
                    | Failure::Truncated
                    | Failure::Storage,
                    Settlement::Retry { job, after },
                ) => {
                    assert_eq!((job.attempts, job.last_reason.as_deref()), (1, Some(outcome.reason())));
                    assert!(after >= Duration::from_secs(9), "the server's wish");
                    assert_eq!(job.redirects_to, None, "by then it may lead elsewhere");
                }
                (failure, other) => panic!("{failure}: {other:?}"),
            }
            if failure != Failure::RateLimited {
                let late = ends(&processor, 2, ended(), OWN);
                let Settlement::Report(report) = late.settlement else { panic!("{failure}: {late:?}") };
                assert_eq!((report.outcome, report.attempts), (outcome, 3));
            }
        }
    }

    #[tokio::test]
    async fn a_target_that_may_not_be_asked_costs_nothing_until_it_has_refused_for_long() {
        let (_folder, processor) = processor();
        let not_admitted = |refused| AttemptEnd::NotAdmitted(NotAdmitted { host: Arc::from(TARGET), refused });
        for (attempts, refused, attempts_after) in [
            (0, None, Some(0)),
            (2, None, Some(2)),
            (0, Some(Failure::Connect), Some(1)),
            (2, Some(Failure::Connect), None),
        ] {
            let processed = ends(&processor, attempts, not_admitted(refused), OWN);
            assert_eq!(processed.ending, Ending::Redirected, "who pointed there has answered");
            match (processed.settlement, attempts_after) {
                (Settlement::Hold { host, job: Some(job) }, Some(after)) => {
                    assert_eq!((host.as_str(), job.attempts), (TARGET, after), "{refused:?}");
                    assert_eq!(job.redirects_to.as_deref(), Some(TARGET), "the next claim asks about it");
                }
                (Settlement::Report(report), None) => assert_eq!(report.outcome, Outcome::Failed(Failure::Connect)),
                (other, _) => panic!("{attempts} {refused:?}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_job_carries_one_host_more_each_time_that_it_waits() {
        let (_folder, processor) = processor();
        let end = AttemptEnd::NotAdmitted(NotAdmitted { host: Arc::from(OWN), refused: None });
        // There and back: two requests at its own host.
        let processed = ends(&processor, 0, end, TARGET);
        let Settlement::Hold { host, job: Some(job) } = processed.settlement else { panic!("{processed:?}") };
        assert_eq!((host.as_str(), job.redirects_to.as_deref()), (OWN, Some(&*format!("{TARGET} {OWN}"))));
        let claimed = Prepared { job: *job, ..prepared(&processor, 0) };
        assert!(claimed.leads_to(OWN) && claimed.leads_to(TARGET) && !claimed.leads_to("other.org"));
    }

    #[tokio::test]
    async fn what_the_storage_did_is_no_fault_of_the_job() {
        for (what, attempted, is_bad, reason) in [
            ("full", io::ErrorKind::StorageFull, false, None),
            ("a name that it does not take", io::ErrorKind::InvalidFilename, false, Some(Failure::Storage)),
            ("an error that a probe does not meet", io::ErrorKind::Other, false, Some(Failure::Storage)),
            ("an error of a bad storage", io::ErrorKind::Other, true, None),
        ] {
            let (_folder, processor) = processor();
            if is_bad {
                processor.storage.health().set_bad("it does not answer");
            }
            let Prepared { job, url, .. } = prepared(&processor, 0);
            let attempted = Ended::Done(Err(Obstacle::Storage(attempted.into(), 200)));
            let ended = processor.end_of(attempted, &job.id, &url).await;
            match (&ended, reason) {
                (AttemptEnd::Blameless, None) => {}
                (AttemptEnd::Made(Err(setback)), Some(reason)) => {
                    assert_eq!(setback.outcome, Outcome::Failed(reason), "{what}");
                }
                (other, _) => panic!("{what}: {other:?}"),
            }
            let processed = ends(&processor, 0, ended, OWN);
            assert_eq!(matches!(processed.settlement, Settlement::Release), reason.is_none(), "{what}");
            assert_eq!(processed.ending == Ending::Untold, reason.is_none(), "{what}");
        }
    }

    #[tokio::test]
    async fn a_time_that_is_over_is_the_job_s_and_one_that_a_bad_storage_took_is_not() {
        let (_folder, processor) = processor();
        let Prepared { job, url, .. } = prepared(&processor, 0);
        let timed_out = processor.end_of(Ended::TimedOut, &job.id, &url).await;
        let reported = |end: AttemptEnd| ends(&processor, 4, end, OWN).settlement;
        match reported(timed_out) {
            Settlement::Report(report) => assert_eq!(report.outcome, Outcome::Failed(Failure::TimeoutTotal)),
            other => panic!("{other:?}"),
        }
        let unusable = processor.end_of(Ended::StorageUnusable, &job.id, &url).await;
        assert!(matches!(reported(unusable), Settlement::Release));
    }

    #[tokio::test]
    async fn a_job_that_there_is_nothing_to_do_for_is_settled_before_it_waits() {
        let (_folder, processor) = processor();
        for (payload, crashes, reason) in
            [("{", 0, "unreadable_job"), ("http://door.example/a.jpg", 3, "worker_crashed"), ("http://", 0, "bad_url")]
        {
            let claimed = ClaimedJob { crashes, ..testing::job(0, payload) };
            match processor.prepare(&claimed) {
                Err(Settlement::Report(report)) => assert_eq!(report.outcome.reason(), reason, "{payload}"),
                other => panic!("{payload}: {other:?}"),
            }
        }
        let suspect = ClaimedJob { crashes: 2, ..testing::job(0, "http://door.example/a.jpg") };
        assert!(processor.prepare(&suspect).is_ok(), "two crashes are not enough");
    }
}
