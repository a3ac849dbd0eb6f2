//! `producer enqueue`: reads links out of sources and puts them on the queue, chunk by chunk, in flat memory.

use super::rejects::Rejects;
use super::shared_budget::ThroughQueue;
use super::{CommandError, Ended, print, print_json};
use crate::cli::{EnqueueArgs, SourceArgs};
use crate::view::progress::Reading;
use common::error::QueueError;
use common::job::{BatchId, Wanted};
use common::text::{count, duration};
use program::settings::QueueArgs;
use queue::{CHUNK_LINKS_MAX, Chunk, Durability, OpenBatch, Patience, Pushed, Queue, command_digest};
use serde::Serialize;
use sources::{ColumnNames, Found, ImgurSites, ListOptions, Source, SourceError, SourceOptions, Sources, sites_from};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// How long a Redis that went away in the middle is waited for.
const REDIS_PATIENCE: Duration = Duration::from_secs(30);
/// Links that were read wait at most this long for their chunk to fill, so that workers start while a slow source goes
/// on; it is also how often the batch says that its enqueuer is alive.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Links after which it is looked how much of the list is read.
const SHARE_EVERY: u64 = 1000;
/// Chunks that are sent while an earlier one has no reply yet. The queue remembers what became of the last two.
const SENT_AHEAD: usize = 1;
/// Links that are put in order together before they are sent: those of one bucket of dedup cost Redis little more than one of
/// them. Of a million links about 12 of a window are in one bucket, of ten million 2. A window takes 20 MB of memory.
const WINDOW_LINKS_MAX: usize = 128 << 10;
/// Of long links a window has fewer, so that they take no more memory.
const WINDOW_BYTES_MAX: usize = 16 << 20;
/// Bytes of links after which a chunk leaves: Redis spends 2.8 ms on each MB that a script only touches, and does nothing else.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// The first links of an enqueue go in their own order, which is what people who look at the queue expect of a list; of
/// a longer one nobody reads the order.
const ORDERED_LINKS: u64 = 64 << 10;
/// How often it is looked whether workers made room below `--max-ready`.
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_millis(50);
/// Waiting for room is said after this long.
const SAY_AFTER: Duration = Duration::from_secs(3);
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
    let queue = super::open_patiently(queue_args.redis_url(), &queue_args.queue, Patience::of(REDIS_PATIENCE)).await?;
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
    let options = SourceOptions {
        pages: args.pages,
        types: args.types,
        sites: imgur_sites()?,
        client_id: args.client_id.clone(),
        user_agent: args.user_agent.clone(),
        lists: list_options(args),
        notify: Arc::new(|notice| eprintln!("{notice}")),
    };
    Ok(Sources::new(sources, options)?)
}

/// Where Imgur is, by the environment.
pub(super) fn imgur_sites() -> Result<ImgurSites, SourceError> {
    let site = |variable: &str, default: &str| {
        std::env::var(variable).ok().filter(|url| !url.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    sites_from(
        &site("IMGUR_API_URL", "https://api.imgur.com"),
        &site("IMGUR_WEB_URL", "https://imgur.com"),
        &site("IMGUR_IMAGE_URL", "https://i.imgur.com"),
    )
}

fn list_options(args: &SourceArgs) -> ListOptions {
    let columns = ColumnNames { url: args.url_column.clone(), hash: args.hash_column.clone() };
    ListOptions { format: args.list_format, columns }
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
    if args.client_id.is_some() {
        sources.share_budget(Arc::new(ThroughQueue(queue.sibling())));
    }
    let mut rejects = args.rejects.as_deref().map(|path| Rejects::create(path, &args.sources)).transpose()?;
    let mut pusher = begin(queue, &what, args).await?;
    let mut rejected = 0;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut cut_short = None;
    let mut reading = Reading::start();
    let (mut links, mut share) = (0, None);
    'sources: while left > 0 {
        if links % SHARE_EVERY == 0 {
            share = sources.list_share();
        }
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
                _ = flush.tick() => {
                    if !room_or_interrupt(&mut pusher, &mut interrupt).await? {
                        cut_short = Some(CutShort::Interrupted);
                        break 'sources;
                    }
                    pusher.flush_or_touch().await?;
                    reading.show(links, share);
                }
                found = &mut next => break found,
            }
        };
        match found {
            Ok(Some(Found::Link(link))) => {
                left -= 1;
                links += 1;
                if pusher.add(link) {
                    if !room_or_interrupt(&mut pusher, &mut interrupt).await? {
                        cut_short = Some(CutShort::Interrupted);
                        break;
                    }
                    pusher.send().await?;
                }
            }
            Ok(Some(Found::Bad(bad))) => {
                rejected += 1;
                reading.say(&bad.to_string());
                if let Some(rejects) = &mut rejects {
                    rejects.add(&bad)?;
                }
            }
            Ok(None) => break,
            Err(error) => {
                cut_short = Some(CutShort::Failed(Arc::new(error)));
                break;
            }
        }
    }
    reading.finish();
    // What was read is enqueued even so: on Ctrl-C without room for it, a part of a chunk more than allowed.
    if cut_short.is_none() && !room_or_interrupt(&mut pusher, &mut interrupt).await? {
        cut_short = Some(CutShort::Interrupted);
    }
    pusher.flush().await?;
    if let Some(rejects) = rejects {
        rejects.finish()?;
    }
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

/// Waits for room below `--max-ready`; `false` when Ctrl-C came first.
async fn room_or_interrupt(
    pusher: &mut Pusher<'_>,
    interrupt: &mut (impl Future<Output = std::io::Result<()>> + Unpin),
) -> Result<bool, QueueError> {
    tokio::select! {
        biased;
        room = pusher.room() => room.map(|()| true),
        _ = interrupt => Ok(false),
    }
}

/// Starts a batch, or goes on with one that the same command began and could not complete.
async fn begin<'a>(queue: &'a Queue, what: &str, args: &SourceArgs) -> Result<Pusher<'a>, QueueError> {
    // Where no worker runs nobody else does. What is not forgotten now is so the next time, whatever the error was.
    let _ = queue.tidy(false).await;
    let dedup = !args.no_dedup;
    let command = repeatable_command(args);
    let broken_off = match &command {
        Some(command) => queue.take_over(command).await?,
        None => None,
    };
    let mut pusher = Pusher {
        queue,
        batch: Rc::new(match &broken_off {
            Some(before) => before.batch.clone(),
            None => queue.open_batch(BatchId::from_random(fastrand::u64(..)), what, command.as_deref()).await?,
        }),
        chunks: 0,
        links: 0,
        skip: 0,
        goes_on_later: !dedup && command.is_some(),
        pending: Vec::new(),
        pending_bytes: 0,
        window_links: CHUNK_LINKS_MAX,
        dedup,
        max_ready: args.max_ready,
        // Without a bound nobody asks.
        ready: if args.max_ready.is_some() { queue.ready_len().await? } else { 0 },
        sent: VecDeque::new(),
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
            // Nothing tells whether it is the same list again, which only matters where links are counted.
            Source::ListUrl(_) if args.no_dedup => return None,
            Source::ListUrl(url) => parts.push(format!("list:{url}")),
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
    if parts.len() == 1 {
        return None;
    }
    let lists = list_options(args);
    if lists != ListOptions::default() {
        parts.push(format!("{lists:?}"));
    }
    Some(command_digest(&parts))
}

/// Seals the batch, tried again while Redis does not answer: an unsealed one never finishes. Repeating it is harmless.
async fn seal_patiently(queue: &Queue, batch: &OpenBatch, chunks: u64) -> Result<(), QueueError> {
    let mut patience = Patience::of(REDIS_PATIENCE);
    loop {
        match queue.seal_batch(batch, chunks).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                let Some(wait) = patience.next_wait(&error) else { return Err(error) };
                tokio::time::sleep(wait).await;
            }
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

/// Gathers links into chunks, and sends each while the one before is on its way: Redis works on one while the next is made.
struct Pusher<'a> {
    queue: &'a Queue,
    batch: Rc<OpenBatch>,
    chunks: u64,
    /// Links of the batch until now; the next one's place in it.
    links: u64,
    /// Links that are in from an earlier run and are passed over.
    skip: u64,
    /// Whether the same command can go on with this batch, and has to: nothing else tells which links are in.
    goes_on_later: bool,
    pending: Vec<Wanted>,
    /// Of the links in `pending`.
    pending_bytes: usize,
    /// So many are gathered. A chunk at first, then twice as many each time as long as the source is quick.
    window_links: usize,
    dedup: bool,
    max_ready: Option<u64>,
    /// As Redis said last.
    ready: u64,
    /// Chunks whose replies are not there yet, the oldest first.
    sent: VecDeque<Sent<'a>>,
    total: Pushed,
}

struct Sent<'a> {
    chunk: Rc<Chunk>,
    reply: Pin<Box<dyn Future<Output = Result<Pushed, QueueError>> + 'a>>,
}

impl<'a> Pusher<'a> {
    /// Links that are gathered before they are sent. With a bound a quarter of it, so that workers have three quarters while room
    /// is waited for.
    fn gathered_links_max(&self) -> usize {
        let quarter = |most: u64| usize::try_from(most / 4).unwrap_or(usize::MAX);
        self.max_ready.map_or(self.window_links, |most| quarter(most).clamp(1, self.window_links))
    }

    /// Takes a link, and tells whether there are enough: then they are to be sent.
    fn add(&mut self, link: Wanted) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            self.total.duplicates += 1;
            return false;
        }
        self.pending_bytes += link.url.len();
        self.pending.push(link);
        self.pending.len() >= self.gathered_links_max() || self.pending_bytes >= WINDOW_BYTES_MAX
    }

    /// Sends what is pending, once there is room for it. Cancel safe only while it waits for room, see [`Pusher::room`].
    async fn send(&mut self) -> Result<(), QueueError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut links = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        if self.dedup && links.len() >= self.window_links && self.links >= ORDERED_LINKS {
            self.window_links = (self.window_links * 2).min(WINDOW_LINKS_MAX);
        }
        let keeps_order = links.len() <= CHUNK_LINKS_MAX;
        if !keeps_order {
            self.queue.order_for_dedup(&mut links);
        }
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        for link in links {
            bytes += link.url.len();
            chunk.push(link);
            if chunk.len() == CHUNK_LINKS_MAX || bytes >= CHUNK_BYTES_MAX {
                self.send_chunk(std::mem::take(&mut chunk), keeps_order).await?;
                bytes = 0;
            }
        }
        if !chunk.is_empty() {
            self.send_chunk(chunk, keeps_order).await?;
        }
        Ok(())
    }

    async fn send_chunk(&mut self, links: Vec<Wanted>, keeps_order: bool) -> Result<(), QueueError> {
        let first = self.links;
        self.links += links.len() as u64;
        self.chunks += 1;
        let chunk = Chunk { keeps_order, ..Chunk::of_wanted(self.batch.id, self.chunks, first, links, self.dedup) };
        let chunk = Rc::new(chunk);
        let (queue, batch, pushed) = (self.queue, Rc::clone(&self.batch), Rc::clone(&chunk));
        let mut reply: Pin<Box<dyn Future<Output = _>>> = Box::pin(async move { queue.push(&batch, &pushed).await });
        // Polled once, it is handed to the connection, and once that had its turn, it is on its way.
        let at_once = poll_fn(|context| Poll::Ready(reply.as_mut().poll(context))).await;
        if let Poll::Ready(result) = at_once {
            reply = Box::pin(std::future::ready(result));
        }
        tokio::task::yield_now().await;
        self.sent.push_back(Sent { chunk, reply });
        // With a bound the reply tells whether there is room for the next one.
        let ahead = if self.max_ready.is_some() { 0 } else { SENT_AHEAD };
        self.receive(ahead).await
    }

    /// Waits for replies until at most `left` are missing.
    async fn receive(&mut self, left: usize) -> Result<(), QueueError> {
        while self.sent.len() > left {
            let Some(Sent { chunk, reply }) = self.sent.pop_front() else { break };
            match reply.await {
                Ok(pushed) => self.count(pushed),
                // A gap may only mean that this chunk overtook the one before.
                Err(error) if error.is_transient() || matches!(error, QueueError::RolledBack { .. }) => {
                    tracing::debug!("chunk {}: {error}; sent again", chunk.number);
                    // Those behind it may have met a gap where it was missing: again, one at a time and in their order.
                    let behind: Vec<_> = self.sent.drain(..).map(|sent| sent.chunk).collect();
                    for chunk in std::iter::once(chunk).chain(behind) {
                        let pushed = self.queue.push_patiently(&self.batch, &chunk, REDIS_PATIENCE).await?;
                        self.count(pushed);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn count(&mut self, pushed: Pushed) {
        self.total.enqueued += pushed.enqueued;
        self.total.duplicates += pushed.duplicates;
        self.ready = pushed.ready;
    }

    /// Sends what is pending, and waits for all replies.
    async fn flush(&mut self) -> Result<(), QueueError> {
        self.send().await?;
        self.receive(0).await
    }

    async fn flush_or_touch(&mut self) -> Result<(), QueueError> {
        // What takes longer than that to gather is not worth waiting for.
        self.window_links = CHUNK_LINKS_MAX;
        if self.pending.is_empty() && self.sent.is_empty() { self.touch().await } else { self.flush().await }
    }

    async fn touch(&self) -> Result<(), QueueError> {
        match self.queue.touch_batch(&self.batch).await {
            // Redis away for a moment: the next chunk is what has to get through.
            Err(error) if error.is_transient() => Ok(()),
            other => other,
        }
    }

    /// Waits until so few jobs are ready that those which are pending fit below `--max-ready`. Cancel safe: nothing is lost.
    async fn room(&mut self) -> Result<(), QueueError> {
        let Some(most) = self.max_ready else { return Ok(()) };
        let fits = |ready: u64, pending: usize| ready + pending as u64 <= most;
        let waiting_since = Instant::now();
        let mut patience = Patience::of(REDIS_PATIENCE);
        let mut touched = Instant::now();
        let mut said = false;
        while !fits(self.ready, self.pending.len()) {
            tokio::time::sleep(LOOK_FOR_ROOM_EVERY).await;
            match self.queue.ready_len().await {
                Ok(ready) => {
                    self.ready = ready;
                    patience.answered();
                }
                Err(error) => {
                    let Some(wait) = patience.next_wait(&error) else { return Err(error) };
                    if let Some(word) = patience.word(&error) {
                        tracing::warn!("{word}");
                    }
                    tokio::time::sleep(wait).await;
                    continue;
                }
            }
            if touched.elapsed() >= FLUSH_EVERY {
                touched = Instant::now();
                self.touch().await?;
            }
            if !said && waiting_since.elapsed() >= SAY_AFTER && !fits(self.ready, self.pending.len()) {
                said = true;
                let ready = count(self.ready, "job");
                eprintln!(
                    "note: {ready} ready, and --max-ready is {most}: waiting for workers to take some (`producer status` shows them)"
                );
            }
        }
        Ok(())
    }
}
