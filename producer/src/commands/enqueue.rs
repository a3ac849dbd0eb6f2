//! `producer enqueue`: reads links out of sources and puts them on the queue, chunk by chunk, in flat memory.

use super::{CommandError, Ended, print, print_json};
use crate::cli::{EnqueueArgs, SourceArgs};
use crate::sources::{Found, Source, SourceError, SourceOptions, Sources, sites_from};
use crate::view::{count, duration};
use common::error::{QueueError, ReconnectBackoff};
use common::job::BatchId;
use common::queue::{CHUNK_LINKS_MAX, Chunk, Pushed, Queue};
use common::settings::QueueArgs;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a Redis that went away in the middle is waited for.
const REDIS_PATIENCE: Duration = Duration::from_secs(30);
/// Links that were read wait at most this long for their chunk to fill, so that workers start while a slow source goes
/// on; it is also how often the batch says that its enqueuer is alive.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// What an enqueue did.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Enqueued {
    pub(super) batch: String,
    pub(super) enqueued: u64,
    pub(super) duplicates: u64,
    pub(super) rejected: u64,
    #[serde(skip)]
    pub(super) id: BatchId,
    /// Why it ended early, after the links so far were enqueued.
    #[serde(skip)]
    cut_short: Option<CutShort>,
}

#[derive(Debug, Clone)]
enum CutShort {
    Interrupted,
    Failed(Arc<SourceError>),
}

pub(super) async fn enqueue(queue_args: &QueueArgs, args: EnqueueArgs) -> Result<Ended, CommandError> {
    let sources = open_sources(&args.source)?;
    let queue = super::open(queue_args).await?;
    let started = Instant::now();
    let enqueued = enqueue_all(&queue, sources, &args.source).await?;
    if args.json {
        print_json(&enqueued)?;
    } else {
        print(&summary(&enqueued, started.elapsed()))?;
    }
    let ended = how_it_ended(&enqueued, args.source.strict);
    if ended != Ended::Done || !args.wait {
        return Ok(ended);
    }
    super::wait::wait_for(&queue, &[enqueued.id], args.timeout, args.json).await
}

/// Opens the sources that were named: everything that can be wrong with them is said before anything is enqueued.
pub(super) fn open_sources(args: &SourceArgs) -> Result<Sources, CommandError> {
    let default = ["imgur:random".to_owned()];
    let named = if args.sources.is_empty() { &default[..] } else { &args.sources };
    let sources = named.iter().map(|text| Source::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let site = |variable: &str, default: &str| {
        std::env::var(variable).ok().filter(|url| !url.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    let options = SourceOptions {
        pages: args.pages,
        types: args.types,
        sites: sites_from(
            &site("IMGUR_API_URL", "https://api.imgur.com"),
            &site("IMGUR_WEB_URL", "https://imgur.com"),
            &site("IMGUR_IMAGE_URL", "https://i.imgur.com"),
        )?,
        client_id: args.client_id.clone(),
        user_agent: args.user_agent.clone(),
        notify: Arc::new(|notice| eprintln!("{notice}")),
    };
    Ok(Sources::new(sources, options)?)
}

/// Enqueues everything as one batch. When a source fails in the middle, or on Ctrl-C, what was read until then is
/// enqueued, and the batch is complete with that.
pub(super) async fn enqueue_all(
    queue: &Queue,
    mut sources: Sources,
    args: &SourceArgs,
) -> Result<Enqueued, CommandError> {
    let batch = BatchId::from_random(fastrand::u64(..));
    let what = if args.sources.is_empty() { "imgur:random".to_owned() } else { args.sources.join(" ") };
    // For people; a list of a thousand URLs on the command line is not kept whole.
    let what: String = what.chars().take(200).collect();
    queue.open_batch(batch, &what).await?;
    let mut pusher = Pusher {
        queue,
        batch,
        chunks: 0,
        links: 0,
        pending: Vec::new(),
        dedup: !args.no_dedup,
        total: Pushed::default(),
    };
    let mut rejected = 0;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut cut_short = None;
    'sources: while left > 0 {
        // Pinned across the ticks: a source may be in the middle of a request.
        let mut next = std::pin::pin!(sources.next());
        let found = loop {
            tokio::select! {
                // The list comes last: its next link is nearly always there, and would leave the others no turn.
                biased;
                _ = &mut interrupt => {
                    cut_short = Some(CutShort::Interrupted);
                    break 'sources;
                }
                _ = flush.tick() => pusher.flush_or_touch().await?,
                found = &mut next => break found,
            }
        };
        match found {
            Ok(Some(Found::Link(link))) => {
                left -= 1;
                pusher.add(link).await?;
            }
            Ok(Some(Found::Bad(bad))) => {
                rejected += 1;
                eprintln!("{bad}");
            }
            Ok(None) => break,
            Err(error) => {
                cut_short = Some(CutShort::Failed(Arc::new(error)));
                break;
            }
        }
    }
    pusher.flush().await?;
    let total = pusher.total;
    if sources.skipped() > 0 {
        eprintln!("note: {} of a type that is not among --types left out", count(sources.skipped(), "image"));
    }
    seal_patiently(queue, batch).await?;
    Ok(Enqueued {
        batch: batch.to_string(),
        enqueued: total.enqueued,
        duplicates: total.duplicates,
        rejected,
        id: batch,
        cut_short,
    })
}

/// Seals the batch, tried again while Redis does not answer: an unsealed one never finishes. Repeating it is harmless.
async fn seal_patiently(queue: &Queue, batch: BatchId) -> Result<(), QueueError> {
    let started = Instant::now();
    let mut backoff = ReconnectBackoff::default();
    loop {
        match queue.seal_batch(batch).await {
            Err(error) if error.is_transient() && started.elapsed() < REDIS_PATIENCE => {
                tokio::time::sleep(backoff.next_wait()).await;
            }
            other => return other,
        }
    }
}

/// Says how the enqueue ended, on standard error where it was not as wished.
pub(super) fn how_it_ended(enqueued: &Enqueued, strict: bool) -> Ended {
    match &enqueued.cut_short {
        Some(CutShort::Interrupted) => {
            eprintln!("error: interrupted; what was read until then is enqueued");
            eprintln!("hint: run the same command again: links that are already in are skipped");
            Ended::CouldNot
        }
        Some(CutShort::Failed(error)) => {
            eprintln!("error: {error}");
            eprintln!("note: what was read until then is enqueued as batch {}", enqueued.batch);
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            Ended::CouldNot
        }
        None if strict && enqueued.rejected > 0 => {
            eprintln!("error: {} unusable, and --strict was given", count(enqueued.rejected, "line"));
            eprintln!("hint: the usable links are enqueued; correct the lines named above and run it again");
            Ended::CouldNot
        }
        None => Ended::Done,
    }
}

/// The one line that an enqueue prints.
pub(super) fn summary(enqueued: &Enqueued, took: Duration) -> String {
    format!(
        "batch {}: {} enqueued, {}, {} rejected ({})",
        enqueued.batch,
        count(enqueued.enqueued, "link"),
        count(enqueued.duplicates, "duplicate"),
        enqueued.rejected,
        duration(took)
    )
}

/// Gathers links into chunks.
struct Pusher<'a> {
    queue: &'a Queue,
    batch: BatchId,
    chunks: u64,
    links: u64,
    pending: Vec<String>,
    dedup: bool,
    total: Pushed,
}

impl Pusher<'_> {
    async fn add(&mut self, link: String) -> Result<(), QueueError> {
        self.pending.push(link);
        if self.pending.len() < CHUNK_LINKS_MAX { Ok(()) } else { self.flush().await }
    }

    async fn flush(&mut self) -> Result<(), QueueError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let links = std::mem::take(&mut self.pending);
        let first = self.links;
        self.links += links.len() as u64;
        self.chunks += 1;
        let chunk = Chunk::of_links(self.batch, self.chunks, first, links, self.dedup);
        let pushed = self.queue.push_patiently(self.batch, &chunk, REDIS_PATIENCE).await?;
        self.total.enqueued += pushed.enqueued;
        self.total.duplicates += pushed.duplicates;
        Ok(())
    }

    async fn flush_or_touch(&mut self) -> Result<(), QueueError> {
        if self.pending.is_empty() {
            match self.queue.touch_batch(self.batch).await {
                // Redis away for a moment: the next chunk is what has to get through.
                Err(error) if error.is_transient() => Ok(()),
                other => other,
            }
        } else {
            self.flush().await
        }
    }
}
