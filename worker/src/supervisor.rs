//! The supervisor: builds the parts of a worker, starts them, and takes them down in order.
//!
//! One thread runs claims, downloads and settlements on a current-thread runtime (17 to 53 % faster than one runtime over
//! all cores, measured with this HTTP client); writers and the heartbeat have threads of their own. More cores are used
//! by more processes. What runs beside the main task is a duty, and the process ends when one dies (`duties`).

use crate::cli::Config;
use crate::dispatch::{Dependencies, Dispatcher, End, Limits};
use crate::duties::{Died, Duties};
use crate::fetch::Fetcher;
use crate::heartbeater::Heartbeater;
use crate::hosts::{Admissions, HostTally, Visit};
use crate::judge::ImageJudge;
use crate::ledger::Ledger;
use crate::metrics::server::MetricsServer;
use crate::metrics::{HealthCheck, Metrics};
use crate::processor::Processor;
use crate::queue_calls::{OverRedis, QueueCalls};
use crate::settler::{Outgoing, Settler};
use crate::shutdown::{Shutdown, Stage};
use crate::storage_watch;
use crate::vitals::Vitals;
use anyhow::Context;
use common::error::QueueError;
use common::job::{JOB_KINDS, SCHEMA_VERSION};
use content::Content;
use content::Placeholders;
use program::listen::ListenAddress;
use queue::{HostNews, Patience, Queue, WorkerName};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::Storage;
use tokio::sync::{mpsc, watch};

/// How long a worker that is started waits for a Redis where nobody answers.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long the last settlements may take when Redis does not answer; later they would meet the end of the lease.
const FLUSH_MAX: Duration = Duration::from_secs(4);

/// Runs a worker to its end.
pub(crate) fn main(config: Config) -> ExitCode {
    let log_format = config.log_format;
    program::telemetry::init("info", log_format);
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| {
            let result = runtime.block_on(run(config));
            // Not waited for: a look-up of a name that hangs in the system's resolver cannot be broken off.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let hint = error
                .downcast_ref::<QueueError>()
                .and_then(QueueError::hint)
                .or_else(|| error.downcast_ref::<Unusable>().map(|unusable| unusable.hint.clone()))
                .or_else(|| error.downcast_ref::<Died>().map(|died| died.hint().to_owned()));
            log_format.fatal(&format!("{error:#}"), hint.as_deref());
            ExitCode::FAILURE
        }
    }
}

/// Something that the worker needs cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct Unusable {
    what: String,
    hint: String,
}

async fn run(config: Config) -> anyhow::Result<()> {
    let mut duties = Duties::default();
    let (shutdown, listener) = Shutdown::listen(config.exit_with_stdin).context("cannot listen for signals")?;
    duties.start("signal listener", listener);
    let content = Arc::new(content_of(&config)?);
    let opened =
        Storage::open(&config.storage, config.concurrency, config.sync, Arc::new(ImageJudge(Arc::clone(&content))));
    let storage = opened.map_err(|error| Unusable {
        what: format!("cannot write to the storage {}: {error}", config.storage.display()),
        hint: format!(
            "make it writable for user {}, or name another folder with --storage or IMGQ_STORAGE",
            rustix::process::geteuid().as_raw()
        ),
    })?;
    let listener = config.metrics.as_ref().map(listen_for_metrics).transpose()?;
    let Some(queue) = open_queue(&config, &shutdown).await?.map(Arc::new) else { return Ok(()) };
    let metrics = Arc::new(Metrics::new(config.concurrency));
    let fetcher = Fetcher::new(&config, Arc::clone(&content), Arc::clone(&metrics))
        .map_err(|error| Unusable { what: format!("cannot make requests: {error}"), hint: error.hint().to_owned() })?;
    let storage = Arc::new(storage);
    let processor = Arc::new(Processor::new(&config, content, fetcher, Arc::clone(&storage), Arc::clone(&metrics)));
    let vitals = Arc::new(Vitals::new());
    duties.start("pulse", Arc::clone(&vitals).keep_pulsing());
    duties.start("storage watch", storage_watch::watch(Arc::clone(&storage)));
    if let Some(listener) = listener {
        let (queue, storage, vitals) = (Arc::clone(&queue), Arc::clone(storage.health()), Arc::clone(&vitals));
        let health = Arc::new(HealthCheck { queue, storage, vitals });
        let server =
            MetricsServer::new(listener, Arc::clone(&metrics), health).context("cannot start the metrics server")?;
        duties
            .start_on_thread("metrics server", || server.run())
            .context("cannot start the thread of the metrics server")?;
    }
    let process = Process { config, queue, processor, storage, vitals, metrics, shutdown };
    let sessions = async {
        while session(&process).await? == End::Reaped {}
        anyhow::Ok(())
    };
    duties.alongside("supervisor", sessions).await?
}

/// Opens the queue. A Redis that is being started with the worker is waited for, with a word. `None` when the worker was told to stop
/// meanwhile.
async fn open_queue(config: &Config, shutdown: &Shutdown) -> Result<Option<Queue>, QueueError> {
    let (mut until_there, mut until_ready) = (Patience::of(START_PATIENCE), Patience::endless());
    let mut is_there = false;
    loop {
        let error = match Queue::open(&config.redis_url, &config.queue).await {
            Ok(queue) => return Ok(Some(queue)),
            Err(error) => error,
        };
        if shutdown.stage() > Stage::Running {
            return Ok(None);
        }
        // A server that reads its data will be ready. Where none answers, the address may be wrong.
        is_there |= matches!(error, QueueError::NotNow { .. });
        let patience = if is_there { &mut until_ready } else { &mut until_there };
        let Some(wait) = patience.next_wait(&error) else { return Err(error) };
        if let Some(word) = patience.word(&error) {
            tracing::warn!("{word}{}", if is_there { "" } else { ", for ten seconds" });
        }
        tokio::time::sleep(wait).await;
    }
}

/// What objects have to be like, with the user's table of placeholders.
fn content_of(config: &Config) -> Result<Content, Unusable> {
    let mut placeholders = Placeholders::default();
    if let Some(path) = &config.placeholders {
        let (file, hint) = (path.display(), "docs/content.md shows what such a file looks like".to_owned());
        let text = std::fs::read_to_string(path).map_err(|error| Unusable {
            what: format!("cannot read the placeholders in {file}: {error}"),
            hint: hint.clone(),
        })?;
        placeholders
            .extend(&text)
            .map_err(|bad| Unusable { what: format!("{file}:{}: {}", bad.line, bad.why), hint })?;
    }
    Ok(Content {
        types: config.types,
        min_bytes: config.min_bytes,
        min_size: config.min_size,
        placeholders,
        verify: config.verify,
    })
}

fn listen_for_metrics(address: &ListenAddress) -> Result<std::net::TcpListener, Unusable> {
    address.bind().map_err(|error| Unusable {
        what: format!("cannot serve metrics at {address}: {error}"),
        hint: ListenAddress::hint(&error, "--metrics or IMGQ_METRICS"),
    })
}

/// What outlives a worker's name.
struct Process {
    config: Config,
    queue: Arc<Queue>,
    processor: Arc<Processor>,
    storage: Arc<Storage>,
    vitals: Arc<Vitals>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
}

/// The life of one worker name.
async fn session(process: &Process) -> anyhow::Result<End> {
    let Process { config, queue, processor, storage, vitals, metrics, shutdown } = process;
    let worker = WorkerName::fresh();
    register(queue, &worker, config, shutdown).await?;
    // It ends with the name: what a name that was taken for dead has in flight is nobody's.
    let tally = Arc::new(HostTally::new());
    let (reaped_sender, reaped) = watch::channel(false);
    let heartbeater = Heartbeater {
        queue: Queue::new(&config.redis_url, &config.queue)?,
        worker: worker.clone(),
        vitals: Arc::clone(vitals),
        tally: Arc::clone(&tally),
        metrics: Arc::clone(metrics),
        reaped: reaped_sender,
    };
    let mut duties = Duties::default();
    duties.start_on_thread("heartbeat", || heartbeater.run()).context("cannot start the heartbeat's thread")?;
    metrics.set_registered(true);
    tracing::info!("worker {worker} takes jobs from queue {} at {}", queue.name(), queue.address());

    let ledger = Arc::new(Ledger::new(Arc::clone(metrics)));
    let calls: Arc<dyn QueueCalls> = Arc::new(OverRedis::new(Arc::clone(queue), worker.clone()));
    let (outgoing, receiver) = mpsc::unbounded_channel();
    let settler = Settler {
        calls: Arc::clone(&calls),
        ledger: Arc::clone(&ledger),
        metrics: Arc::clone(metrics),
        outgoing: receiver,
    };
    duties.start("settler", settler.run());
    let give_back = {
        let (outgoing, interval) = (outgoing.clone(), config.host_rate.map(|rate| rate.interval()));
        Box::new(move |visit: Visit| {
            let (host, was_probe) = (visit.host.to_string(), visit.probe.is_some());
            let _ = outgoing.send(Outgoing::Host(HostNews::Unused {
                host,
                interval: interval.unwrap_or_default(),
                was_probe,
            }));
        })
    };
    let (admissions, admitter) =
        Admissions::new(Arc::clone(queue), worker.clone(), config.host_rate, config.retry.free_refusals(), give_back);
    duties.start("admitter", admitter.run());
    let mut dispatcher = Dispatcher::new(Dependencies {
        calls,
        ledger,
        processor: Arc::clone(processor),
        metrics: Arc::clone(metrics),
        storage: Arc::clone(storage.health()),
        limits: Limits {
            concurrency: config.concurrency,
            host_concurrency: config.host_concurrency,
            host_rate: config.host_rate,
            results_max: config.results_max,
            retry: config.retry,
        },
        vitals: Arc::clone(vitals),
        tally,
        admissions,
        outgoing,
        shutdown: shutdown.clone(),
        reaped,
    });
    let end = duties.alongside("dispatcher", dispatcher.run()).await?;
    match &end {
        // Everything is elsewhere: what is still running here is dropped, and nothing more is written.
        End::Reaped => metrics.set_registered(false),
        // Its lease ends by itself, wherever that is now.
        End::Lost(error) => return Err(error.clone().into()),
        End::Stopping | End::Newer(_) => {
            if let End::Newer(schema) = &end {
                tracing::warn!(
                    "a newer imgq wrote queue {} (schema {schema}): this worker finishes what it holds",
                    queue.name()
                );
            }
            let deadline = Instant::now() + config.grace;
            let sign_off = async || queue.unregister(&worker).await.is_ok_and(|has_left| has_left);
            let has_left = take_down(&mut duties, dispatcher.finish(deadline), sign_off).await?;
            if has_left {
                tracing::info!("worker {worker} has left");
            } else {
                tracing::warn!("worker {worker} could not sign off; its lease ends by itself");
            }
        }
    }
    match end {
        End::Newer(found) => {
            Err(QueueError::Schema { queue: queue.name().to_owned(), found, known: SCHEMA_VERSION }.into())
        }
        end => Ok(end),
    }
}

/// Takes the duties of a name down in their order, the heartbeat last: until then the jobs that it holds are its own. Says whether
/// the name has left.
async fn take_down(
    duties: &mut Duties,
    finish: impl Future<Output = ()>,
    sign_off: impl AsyncFnOnce() -> bool,
) -> Result<bool, Died> {
    duties.alongside("dispatcher", finish).await?;
    // It holds a sender of the settler's.
    duties.stop("admitter");
    match tokio::time::timeout(FLUSH_MAX, duties.end_of("settler")).await {
        Ok(ended) => ended?,
        Err(_) => tracing::warn!("Redis did not take the last settlements; those jobs are recovered by others"),
    }
    let has_left = tokio::time::timeout(FLUSH_MAX, sign_off()).await;
    Ok(has_left.unwrap_or(false))
}

/// Registers a name; after the first time Redis may be away, and is waited for.
async fn register(queue: &Queue, worker: &WorkerName, config: &Config, shutdown: &Shutdown) -> anyhow::Result<()> {
    let facts = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("concurrency", config.concurrency.to_string()),
        ("schema", SCHEMA_VERSION.to_string()),
        ("kinds", JOB_KINDS.join(" ")),
    ];
    let mut backoff = queue::ReconnectBackoff::default();
    loop {
        match queue.register(worker, &facts).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_transient() && shutdown.stage() == Stage::Running => {
                tracing::warn!("cannot register: {error}");
                tokio::time::sleep(backoff.next_wait()).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// What ended, in order.
    type Log = Arc<Mutex<Vec<&'static str>>>;

    /// Duties as a session has them, the settler's door, and whether the heart beats.
    fn duties(settles: bool) -> (Duties, mpsc::UnboundedSender<()>, Log, Arc<AtomicBool>) {
        let log = Log::default();
        let beats = Arc::new(AtomicBool::new(false));
        let (outgoing, mut receiver) = mpsc::unbounded_channel::<()>();
        let mut duties = Duties::default();
        let (to_log, admitter_holds) = (Arc::clone(&log), outgoing.clone());
        duties.start("settler", async move {
            while receiver.recv().await.is_some() {}
            if !settles {
                std::future::pending::<()>().await;
            }
            to_log.lock().expect("not poisoned").push("settled");
        });
        duties.start("admitter", async move {
            let _admitter_holds = admitter_holds;
            std::future::pending().await
        });
        struct Beating(Arc<AtomicBool>);
        impl Drop for Beating {
            fn drop(&mut self) {
                self.0.store(false, Ordering::SeqCst);
            }
        }
        beats.store(true, Ordering::SeqCst);
        let beating = Beating(Arc::clone(&beats));
        duties.start("heartbeat", async move {
            let _beating = beating;
            std::future::pending().await
        });
        (duties, outgoing, log, beats)
    }

    #[tokio::test(start_paused = true)]
    async fn first_what_is_in_flight_then_its_settlements_then_the_name_and_the_heartbeat_last() {
        let (mut duties, outgoing, log, beats) = duties(true);
        let finish = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            log.lock().expect("not poisoned").push("finished");
            drop(outgoing);
        };
        let sign_off = async || {
            log.lock().expect("not poisoned").push("signed off");
            beats.load(Ordering::SeqCst)
        };
        let has_left = take_down(&mut duties, finish, sign_off).await;
        assert_eq!(has_left, Ok(true), "it beats until it has left");
        assert_eq!(*log.lock().expect("not poisoned"), ["finished", "settled", "signed off"]);
        drop(duties);
        tokio::task::yield_now().await;
        assert!(!beats.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn a_redis_that_is_away_holds_the_end_up_for_seconds_only() {
        let (mut duties, outgoing, log, _) = duties(false);
        let begun = tokio::time::Instant::now();
        let sign_off = async || std::future::pending().await;
        assert_eq!(take_down(&mut duties, async { drop(outgoing) }, sign_off).await, Ok(false));
        assert!(begun.elapsed() <= FLUSH_MAX * 2 + Duration::from_millis(10), "{:?}", begun.elapsed());
        assert!(log.lock().expect("not poisoned").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_duty_that_dies_meanwhile_ends_it() {
        let (mut duties, _outgoing, log, _) = duties(true);
        duties.start("pulse", async { panic!("no pulse") });
        let take_down = take_down(&mut duties, std::future::pending(), async || true);
        let died = tokio::time::timeout(Duration::from_secs(60), take_down).await.expect("it is noticed");
        assert_eq!(died.map_err(|died| died.to_string()), Err("the pulse died: it panicked: no pulse".to_owned()));
        assert!(log.lock().expect("not poisoned").is_empty());
    }
}
