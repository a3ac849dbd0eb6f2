//! `producer enqueue`: reads links out of sources and puts them on the queue, chunk by chunk, in flat memory.

use super::{CommandError, Ended, print, print_json};
use crate::cli::{EnqueueArgs, SourceArgs};
use crate::sources::{Found, Source, SourceError, SourceOptions, Sources, sites_from};
use crate::view::{count, duration};
use common::error::{QueueError, ReconnectBackoff};
use common::job::BatchId;
use common::queue::{CHUNK_LINKS_MAX, Chunk, Durability, OpenBatch, Pushed, Queue, command_digest};
use common::settings::QueueArgs;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a Redis that went away in the middle is waited for.
const REDIS_PATIENCE: Duration = Duration::from_secs(30);
/// Links that were read wait at most this long for their chunk to fill, so that workers start while a slow source goes
/// on; it is also how often the batch says that its enqueuer is alive.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// How long `--durable` waits for a disk or a replica that is behind.
const DURABLE_PATIENCE: Duration = Duration::from_secs(30);

/// What an enqueue did.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Enqueued {
    pub(super) batch: String,
    pub(super) enqueued: u64,
    pub(super) duplicates: u64,
    pub(super) rejected: u64,
    #[serde(skip)]
    pub(super) id: BatchId,
    /// Whether the same command again would enqueue only what is missing.
    #[serde(skip)]
    skips_what_is_in: bool,
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
    // Asked before anything is enqueued: a server that cannot confirm is no reason to enqueue first and fail then.
    let durability = if args.durable { Some(queue.durability().await?) } else { None };
    let enqueued = enqueue_all(&queue, sources, &args.source, durability).await?;
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
    durability: Option<Durability>,
) -> Result<Enqueued, CommandError> {
    let what = if args.sources.is_empty() { "imgur:random".to_owned() } else { args.sources.join(" ") };
    // For people; a list of a thousand URLs on the command line is not kept whole.
    let what: String = what.chars().take(200).collect();
    let mut pusher = begin(queue, &what, args).await?;
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
    if sources.skipped() > 0 {
        eprintln!("note: {} of a type that is not among --types left out", count(sources.skipped(), "image"));
    }
    let interrupted = matches!(cut_short, Some(CutShort::Interrupted));
    match durability {
        // Without dedup only an open batch remembers how far it came.
        _ if interrupted && pusher.goes_on_later => {}
        Some(how) => {
            let confirmed = queue.seal_batch_durably(&pusher.batch, pusher.chunks, how, DURABLE_PATIENCE).await?;
            let disk = if confirmed.on_disk { "on disk" } else { "not known to be on disk" };
            eprintln!("durable: {disk}, on {}", count(confirmed.replicas.into(), "replica"));
        }
        None => seal_patiently(queue, &pusher.batch, pusher.chunks).await?,
    }
    Ok(Enqueued {
        batch: pusher.batch.id.to_string(),
        enqueued: pusher.total.enqueued,
        duplicates: pusher.total.duplicates,
        rejected,
        id: pusher.batch.id,
        skips_what_is_in: pusher.dedup || pusher.goes_on_later,
        cut_short,
    })
}

/// Starts a batch, or goes on with one that the same command began and could not complete.
async fn begin<'a>(queue: &'a Queue, what: &str, args: &SourceArgs) -> Result<Pusher<'a>, QueueError> {
    let dedup = !args.no_dedup;
    let command = repeatable_command(args);
    let broken_off = match &command {
        Some(command) => queue.take_over(command).await?,
        None => None,
    };
    let mut pusher = Pusher {
        queue,
        batch: match &broken_off {
            Some(before) => before.batch.clone(),
            None => queue.open_batch(BatchId::from_random(fastrand::u64(..)), what, command.as_deref()).await?,
        },
        chunks: 0,
        links: 0,
        skip: 0,
        goes_on_later: !dedup && command.is_some(),
        pending: Vec::new(),
        dedup,
        total: Pushed::default(),
    };
    if let Some(before) = broken_off {
        eprintln!(
            "note: going on with batch {}, which the same command began and did not complete; {} in already",
            before.batch.id,
            count(before.links, "link")
        );
        (pusher.chunks, pusher.links) = (before.chunks, before.links);
        // With dedup every link is offered again: that is right even when the sources have changed meanwhile.
        if !dedup {
            pusher.skip = before.links;
        }
    }
    Ok(pusher)
}

/// A digest of this command when its links come in the same order each time: lists of links and links. Without dedup links
/// are counted to go on where a batch broke off, so that a list that was changed is another command.
fn repeatable_command(args: &SourceArgs) -> Option<String> {
    let mut parts = vec![format!("{:?} {:?} {} {}", args.pages, args.limit, args.types, args.no_dedup)];
    for text in &args.sources {
        match Source::parse(text).ok()? {
            Source::Imgur(_) | Source::Stdin => return None,
            Source::Url(url) => parts.push(url),
            Source::List(path) => {
                let path = path.canonicalize().ok()?;
                let facts = path.metadata().ok()?;
                // What comes through a pipe comes once.
                if !facts.is_file() {
                    return None;
                }
                if args.no_dedup {
                    parts.push(format!("{} {:?}", facts.len(), facts.modified().ok()?));
                }
                parts.push(path.to_string_lossy().into_owned());
            }
        }
    }
    (parts.len() > 1).then(|| command_digest(&parts))
}

/// Seals the batch, tried again while Redis does not answer: an unsealed one never finishes. Repeating it is harmless.
async fn seal_patiently(queue: &Queue, batch: &OpenBatch, chunks: u64) -> Result<(), QueueError> {
    let started = Instant::now();
    let mut backoff = ReconnectBackoff::default();
    loop {
        match queue.seal_batch(batch, chunks).await {
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
            if enqueued.skips_what_is_in {
                eprintln!("hint: run the same command again: links that are already in are skipped");
            } else {
                eprintln!("hint: with --no-dedup the same command enqueues them again; leave out what is in");
            }
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
    batch: OpenBatch,
    chunks: u64,
    /// Links of the batch until now; the next one's place in it.
    links: u64,
    /// Links that are in from an earlier run and are passed over.
    skip: u64,
    /// Whether the same command can go on with this batch, and has to: nothing else tells which links are in.
    goes_on_later: bool,
    pending: Vec<String>,
    dedup: bool,
    total: Pushed,
}

impl Pusher<'_> {
    async fn add(&mut self, link: String) -> Result<(), QueueError> {
        if self.skip > 0 {
            self.skip -= 1;
            self.total.duplicates += 1;
            return Ok(());
        }
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
        let chunk = Chunk::of_links(self.batch.id, self.chunks, first, links, self.dedup);
        let pushed = self.queue.push_patiently(&self.batch, &chunk, REDIS_PATIENCE).await?;
        self.total.enqueued += pushed.enqueued;
        self.total.duplicates += pushed.duplicates;
        Ok(())
    }

    async fn flush_or_touch(&mut self) -> Result<(), QueueError> {
        if self.pending.is_empty() {
            match self.queue.touch_batch(&self.batch).await {
                // Redis away for a moment: the next chunk is what has to get through.
                Err(error) if error.is_transient() => Ok(()),
                other => other,
            }
        } else {
            self.flush().await
        }
    }
}
