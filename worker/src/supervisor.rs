//! The supervisor: builds the parts of a worker, starts them, and takes them down in order.
//!
//! One thread runs claims, downloads and settlements on a current-thread runtime (17 to 53 % faster than one runtime over
//! all cores, measured with this HTTP client); writers and the heartbeat have threads of their own. More cores are used
//! by more processes.

use crate::cli::Config;
use crate::dispatch::{Dependencies, Dispatcher, End, Limits};
use crate::fetch::Fetcher;
use crate::heartbeater::Heartbeater;
use crate::hosts::{Admissions, HostTally, Visit};
use crate::judge::ImageJudge;
use crate::ledger::Ledger;
use crate::metrics::server::MetricsServer;
use crate::metrics::{Metrics, Watched};
use crate::processor::Processor;
use crate::queue_calls::{OverRedis, QueueCalls};
use crate::settler::{Outgoing, Settler};
use crate::shutdown::Shutdown;
use crate::storage_watch;
use crate::vitals::{PULSE_EVERY, Vitals};
use anyhow::Context;
use common::error::QueueError;
use content::Content;
use content::Placeholders;
use program::listen::ListenAddress;
use queue::{HostNews, Queue, WorkerName};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::Storage;
use tokio::sync::mpsc;

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
                .or_else(|| error.downcast_ref::<Unusable>().map(|unusable| unusable.hint.clone()));
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
    let (shutdown, _listener) = Shutdown::listen(config.exit_with_stdin).context("cannot listen for signals")?;
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
    let queue = Arc::new(Queue::open(&config.redis_url, &config.queue).await?);
    let metrics = Arc::new(Metrics::new(config.concurrency));
    let fetcher = Fetcher::new(&config, Arc::clone(&content), Arc::clone(&metrics))
        .map_err(|error| Unusable { what: format!("cannot make requests: {error}"), hint: error.hint().to_owned() })?;
    let storage = Arc::new(storage);
    let processor = Arc::new(Processor::new(&config, content, fetcher, Arc::clone(&storage), Arc::clone(&metrics)));
    let vitals = Arc::new(Vitals::new());
    let watched =
        Watched { queue: Arc::clone(&queue), storage: Arc::clone(storage.health()), vitals: Arc::clone(&vitals) };
    let metrics_server = listener
        .map(|listener| MetricsServer::start(listener, Arc::clone(&metrics), Arc::new(watched)))
        .transpose()
        .context("cannot start the thread of the metrics server")?;
    let pulse = tokio::spawn({
        let vitals = Arc::clone(&vitals);
        async move {
            loop {
                vitals.pulse();
                tokio::time::sleep(PULSE_EVERY).await;
            }
        }
    });
    let storage_watch = tokio::spawn(storage_watch::watch(Arc::clone(&storage)));
    let around = Around {
        config: &config,
        queue: &queue,
        processor: &processor,
        storage: &storage,
        vitals: &vitals,
        metrics: &metrics,
    };
    while session(&around, &shutdown).await? == End::Reaped {}
    pulse.abort();
    storage_watch.abort();
    drop(metrics_server);
    Ok(())
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
struct Around<'a> {
    config: &'a Config,
    queue: &'a Arc<Queue>,
    processor: &'a Arc<Processor>,
    storage: &'a Arc<Storage>,
    vitals: &'a Arc<Vitals>,
    metrics: &'a Arc<Metrics>,
}

/// The life of one worker name.
async fn session(around: &Around<'_>, shutdown: &Shutdown) -> anyhow::Result<End> {
    let Around { config, queue, processor, storage, vitals, metrics } = *around;
    let worker = WorkerName::fresh();
    register(queue, &worker, config, shutdown).await?;
    // It ends with the name: what a name that was taken for dead has in flight is nobody's.
    let tally = Arc::new(HostTally::new());
    let heartbeat_queue = Queue::new(&config.redis_url, &config.queue)?;
    let (heartbeater, reaped) = Heartbeater::start(
        heartbeat_queue,
        worker.clone(),
        Arc::clone(vitals),
        Arc::clone(&tally),
        Arc::clone(metrics),
    )
    .context("cannot start the heartbeat's thread")?;
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
    let settler = tokio::spawn(settler.run());
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
    let admitter = tokio::spawn(admitter.run());
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
    let end = dispatcher.run().await;
    if end == End::Reaped {
        metrics.set_registered(false);
    }
    match end {
        End::Reaped => {
            // Everything is elsewhere: what is still running here is dropped, and nothing more is written.
            drop(dispatcher);
            admitter.abort();
            settler.abort();
        }
        End::Stopping => {
            dispatcher.finish(Instant::now() + config.grace).await;
            // It holds a sender of the settler's.
            admitter.abort();
            if tokio::time::timeout(FLUSH_MAX, settler).await.is_err() {
                tracing::warn!("Redis did not take the last settlements; those jobs are recovered by others");
            }
            match tokio::time::timeout(FLUSH_MAX, queue.unregister(&worker)).await {
                Ok(Ok(true)) => tracing::info!("worker {worker} has left"),
                _ => tracing::warn!("worker {worker} could not sign off; its lease ends by itself"),
            }
        }
    }
    drop(heartbeater);
    Ok(end)
}

/// Registers a name; after the first time Redis may be away, and is waited for.
async fn register(queue: &Queue, worker: &WorkerName, config: &Config, shutdown: &Shutdown) -> anyhow::Result<()> {
    let facts = [("version", env!("CARGO_PKG_VERSION").to_owned()), ("concurrency", config.concurrency.to_string())];
    let mut backoff = queue::ReconnectBackoff::default();
    loop {
        match queue.register(worker, &facts).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_transient() && shutdown.stage() == crate::shutdown::Stage::Running => {
                tracing::warn!("cannot register: {error}");
                tokio::time::sleep(backoff.next_wait()).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
