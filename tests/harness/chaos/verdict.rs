//! What has to be true when everything is over.

use super::observer::{check, files_below};
use super::politeness::{RATE_WINDOW, manners, most_requests};
use super::schedule::Kind;
use super::stage::{Rated, Stage};
use crate::origin::gif;
use crate::{Origin, allowed};
use redis::Commands;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long the workers may take after the last fault, where nothing else runs.
const DRAIN_MAX: Duration = Duration::from_secs(240);

/// What came of it, for the report.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) results: usize,
    pub(super) stored: usize,
    pub(super) existed: usize,
    pub(super) poisoned: usize,
    /// Jobs called dead that did no harm: their worker was killed from outside while they ran alone, after two crashes.
    pub(super) innocent: usize,
    pub(super) stats: BTreeMap<String, i64>,
    /// Jobs of hosts that redirect.
    pub(super) redirected: usize,
    /// Those of them that took more than one attempt.
    pub(super) tried_again: usize,
    /// Refusals with a `Retry-After`.
    pub(super) refusals: usize,
    /// Time in which nobody who could know was to ask some host.
    pub(super) left_alone: Duration,
    /// Requests in it.
    pub(super) impolite: usize,
    /// How long after a refusal the last request within it came.
    pub(super) latest: Duration,
    /// The most requests of a host within [`RATE_WINDOW`] under a rate.
    pub(super) most: usize,
    pub(super) most_allowed: usize,
}

/// `…/after/MS/N/BYTES.gif` → what the origin serves there.
pub(super) fn expected_content(key: &str) -> Option<Vec<u8>> {
    let mut parts = key.rsplit('/');
    let bytes = parts.next()?.strip_suffix(".gif")?.parse().ok()?;
    let n = parts.next()?.parse().ok()?;
    Some(gif(n, bytes))
}

/// Waits until nothing waits any more.
pub(super) fn until_drained(stage: &Stage) {
    let started = Instant::now();
    loop {
        let left = stage.raw().and_then(|mut raw| {
            let workers: Vec<String> = raw.zrange(Stage::key("workers"), 0, -1).ok()?;
            let mut left: u64 = raw.llen::<_, u64>(Stage::key("ready")).ok()?;
            left += raw.zcard::<_, u64>(Stage::key("delayed")).ok()?;
            for worker in workers {
                left += raw.hlen::<_, u64>(Stage::key(&format!("inflight:{worker}"))).ok()?;
            }
            Some(left)
        });
        if left == Some(0) {
            return;
        }
        if started.elapsed() > allowed(DRAIN_MAX) {
            stage.violated(format!(
                "after {:?} without faults there is still something to do: {left:?}",
                started.elapsed()
            ));
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The ids of all jobs that have a result.
pub(super) fn result_ids(stage: &Stage) -> BTreeSet<String> {
    let (mut ids, mut after) = (BTreeSet::new(), "-".to_owned());
    let Some(mut raw) = stage.raw() else { return ids };
    loop {
        let page: redis::RedisResult<redis::streams::StreamRangeReply> =
            raw.xrange_count(Stage::key("results"), &after, "+", 5000);
        let entries = page.map(|page| page.ids).unwrap_or_default();
        let Some(last) = entries.last() else { return ids };
        after = format!("({}", last.id);
        ids.extend(entries.iter().filter_map(|entry| entry.get::<String>("id")));
    }
}

/// How long what is remembered of hosts may last: one that a worker alone gets no answers from is remembered for a minute.
const REMEMBERED_MAX: Duration = Duration::from_secs(120);

/// Asks each host once more, as the last hold of each ends when it answers, and waits until nothing is remembered of any. Returns the
/// links.
pub(super) fn until_hosts_are_forgotten(stage: &Stage) -> Vec<String> {
    let link = |(n, origin): (usize, &Origin)| origin.url(&format!("after/0/{}/700.gif", LAST_LINKS_FROM + n));
    let links: Vec<String> = stage.web.all().enumerate().map(link).collect();
    let mut raw = stage.raw().expect("Redis answers");
    let _: i64 = raw.rpush(Stage::key("ready"), &links).expect("Redis answers");
    until_drained(stage);
    let started = Instant::now();
    loop {
        let entries: BTreeMap<String, String> = raw.hgetall(Stage::key("hosts")).expect("Redis answers");
        let held: Vec<String> = raw.zrange(Stage::key("hosts:held"), 0, -1).expect("Redis answers");
        if entries.is_empty() && held.is_empty() {
            return links;
        }
        if started.elapsed() > REMEMBERED_MAX {
            stage.violated(format!("hosts are remembered with nothing left to do: {entries:?}, held {held:?}"));
            return links;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Numbers that no other link has.
const LAST_LINKS_FROM: usize = 1_000_000_000;

/// Nobody was asked who had asked to be left alone, and nobody more than its rate.
pub(super) fn judge_politeness(stage: &Stage, figures: &mut Figures) {
    let disturbances = stage.disturbances();
    for origin in stage.web.all() {
        let found = manners(&origin.host(), &origin.record(), &disturbances, stage.started);
        figures.refusals += found.refusals;
        figures.left_alone += found.left_alone;
        figures.impolite += found.impolite.len();
        figures.latest = figures.latest.max(found.latest);
        found.impolite.into_iter().for_each(|what| stage.violated(what));
    }
    let is_refused = [Kind::RefusingHost, Kind::UnavailableHost].iter().any(|kind| stage.times(*kind) > 0);
    if is_refused && figures.left_alone.is_zero() {
        stage.violated("other faults left no time in which a host could be seen to be left alone".into());
    }
    let rated = super::stage::lock(&stage.rated).clone();
    for origin in stage.web.all().chain([&stage.origin]) {
        let record = origin.record();
        for Rated { from, to, per_second } in &rated {
            let most = most_requests(&record, *from, *to);
            // Twice the rate: what was given out before may be used late, and Redis may forget the last ones.
            let allowed = 2 * *per_second as usize * RATE_WINDOW.as_secs() as usize;
            (figures.most, figures.most_allowed) = (figures.most.max(most), allowed);
            if most > allowed {
                let host = origin.host();
                stage.violated(format!("{host} was asked {most} times in {RATE_WINDOW:?} at {per_second} a second"));
            }
        }
    }
}

type Result_ = BTreeMap<String, String>;

/// Checks everything that can be seen from outside.
pub(super) fn judge(stage: &Stage, links: &BTreeSet<String>) -> Figures {
    let mut raw = stage.raw().expect("Redis answers");
    let results = read_results(&mut raw);
    let mut figures = Figures { results: results.len(), ..Figures::default() };
    let text = |result: &Result_, name: &str| result.get(name).cloned().unwrap_or_default();

    let mut by_url: BTreeMap<String, Vec<&Result_>> = BTreeMap::new();
    for result in &results {
        by_url.entry(text(result, "url")).or_default().push(result);
    }
    for link in links {
        match by_url.get(link).map(Vec::as_slice) {
            None => stage.violated(format!("{link} was enqueued and has no result")),
            Some([result]) => judge_result(stage, link, result, &mut figures),
            Some(several) => stage.violated(format!("{link} has {} results", several.len())),
        }
    }
    let unreadable = results.iter().filter(|result| text(result, "reason") == "unreadable_job").count();
    if unreadable != stage.times(Kind::UnreadableJob) as usize {
        stage.violated(format!("{unreadable} unreadable jobs have a result"));
    }
    let poisoned: Vec<_> = results.iter().filter(|result| text(result, "url").contains("/poison/")).collect();
    figures.poisoned = poisoned.len();
    if poisoned.len() != stage.times(Kind::PoisonJob) as usize {
        stage.violated(format!("{} poison jobs have a result", poisoned.len()));
    }
    for result in poisoned.iter().filter(|result| text(result, "reason") != "worker_crashed") {
        stage.violated(format!("poison ended as {result:?}"));
    }
    if results.len() != links.len() + unreadable + poisoned.len() {
        stage.violated(format!("{} results are of no job that was enqueued", results.len() - links.len()));
    }
    judge_batches(stage, &mut raw, &results);
    judge_rest(stage, &mut raw);
    judge_files(stage, &results);
    figures.stats = raw.hgetall(Stage::key("stats")).unwrap_or_default();
    figures
}

fn judge_result(stage: &Stage, link: &str, result: &Result_, figures: &mut Figures) {
    let text = |name: &str| result.get(name).map(String::as_str).unwrap_or_default();
    match (text("outcome"), text("reason")) {
        ("stored", reason) => {
            figures.stored += 1;
            figures.existed += usize::from(reason == "exists");
            let is_of_web = stage.web.has(link);
            figures.redirected += usize::from(is_of_web);
            figures.tried_again += usize::from(is_of_web && text("attempts") != "1");
            // Hosts of the web are down at times, which is a fault of their jobs' own.
            if !is_of_web && text("attempts") != "1" {
                stage.violated(format!("a fault that was not its own cost {link} an attempt: {result:?}"));
            }
        }
        ("failed", "worker_crashed") => figures.innocent += 1,
        _ => stage.violated(format!("{link} ended as {result:?}")),
    }
}

fn read_results(raw: &mut redis::Connection) -> Vec<Result_> {
    let (mut results, mut from) = (Vec::new(), "-".to_owned());
    loop {
        let page: Vec<(String, Vec<String>)> =
            raw.xrange_count(Stage::key("results"), &from, "+", 5000).expect("Redis answers");
        let Some((last, _)) = page.last() else { return results };
        from = format!("({last}");
        results.extend(
            page.into_iter()
                .map(|(_, flat)| flat.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect::<Result_>()),
        );
    }
}

/// Every batch is complete, and its counters are what the stream says.
fn judge_batches(stage: &Stage, raw: &mut redis::Connection, results: &[Result_]) {
    let mut counted: BTreeMap<(String, String), u64> = BTreeMap::new();
    for result in results {
        let batch = result.get("batch").cloned().unwrap_or_default();
        *counted.entry((batch, result["outcome"].clone())).or_default() += 1;
    }
    let batches: Vec<String> = raw.zrange(Stage::key("batches"), 0, -1).expect("Redis answers");
    for batch in batches {
        let facts: BTreeMap<String, String> =
            raw.hgetall(Stage::key(&format!("batch:{batch}"))).expect("Redis answers");
        let number = |name: &str| facts.get(name).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        for outcome in ["stored", "rejected", "failed"] {
            let in_stream = counted.get(&(batch.clone(), outcome.to_owned())).copied().unwrap_or(0);
            if in_stream != number(outcome) {
                stage.violated(format!("batch {batch} counts {} {outcome}, the stream {in_stream}", number(outcome)));
            }
        }
        let done = number("stored") + number("rejected") + number("failed");
        if done != number("enqueued") || number("sealed") == 0 || number("finished") == 0 {
            stage.violated(format!("batch {batch} is not finished: {facts:?}"));
        }
    }
}

/// Nothing is left over.
fn judge_rest(stage: &Stage, raw: &mut redis::Connection) {
    let pattern = Stage::key("inflight:*").replace('{', "\\{").replace('}', "\\}");
    let in_flight: Vec<String> = raw.keys(pattern).expect("Redis answers");
    let crashes: BTreeMap<String, String> = raw.hgetall(Stage::key("crashes")).expect("Redis answers");
    if !in_flight.is_empty() || !crashes.is_empty() {
        stage.violated(format!("left over: {in_flight:?}, crashes {crashes:?}"));
    }
}

fn judge_files(stage: &Stage, results: &[Result_]) {
    let root = &stage.storage.real;
    let files: BTreeSet<_> = files_below(root).into_iter().collect();
    for file in &files {
        if let Err(why) = check(root, file) {
            stage.violated(why);
        }
    }
    for result in results.iter().filter(|result| result["outcome"] == "stored") {
        let path = root.join(&result["key"]);
        if !files.contains(&path) {
            stage.violated(format!("{} was reported as stored and is not there", path.display()));
            continue;
        }
        let expected = expected_content(&result["key"]).unwrap_or_default();
        if result["sha256"] != crate::files::sha256(&expected) || result["bytes"] != expected.len().to_string() {
            stage.violated(format!("a result tells another hash or size than the origin served: {result:?}"));
        }
    }
}
