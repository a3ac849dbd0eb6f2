//! What has to be true when everything is over.

use super::observer::{check, files_below};
use super::schedule::Kind;
use super::stage::Stage;
use crate::origin::gif;
use redis::Commands;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long the workers may take after the last fault.
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
        if started.elapsed() > DRAIN_MAX {
            stage.violated(format!("after {DRAIN_MAX:?} without faults there is still something to do: {left:?}"));
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
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
            if text("attempts") != "1" {
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
