//! What the release before left behind goes on under this one: its queue, the folder of its `producer run`, and its workers,
//! which may go on working beside today's until the last of them is replaced.
//!
//! Nothing here is taken from the program. The queue and the folder were recorded from that release, and its workers are played
//! with the scripts that it sent; `tests/fixtures/migration/README.md` says how.

use harness::files::objects;
use harness::origin::Mood;
use harness::programs::{Finished, finish};
use harness::{Origin, Producer, RawQueue, Redis, Worker, until};
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(180);
/// How long ago the recording was made, for a queue that its workers left just now: a host on hold is so for half a minute.
const JUST_NOW_MS: i64 = 12_000;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/migration").join(name)
}

/// The origin that the recorded links name; its address is this test's own on the whole machine.
fn origin_at(n: u8) -> Origin {
    let address = format!("127.77.13.{n}:17713");
    until("no other run of this test has the address", LATER, || TcpListener::bind(&address).ok());
    Origin::start_on(&address)
}

fn lines_of(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(fixture(name)).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// Redis' clock (ms).
fn now_ms(queue: &mut RawQueue) -> i64 {
    let (seconds, micros): (i64, i64) = queue.run(&["TIME"]);
    seconds * 1000 + micros / 1000
}

/// The recorded queue, as if it had been recorded so long ago.
fn replayed(ago_ms: i64) -> RawQueue {
    let mut queue = RawQueue::shared();
    let recorded = now_ms(&mut queue) - ago_ms;
    for line in lines_of("queue.jsonl") {
        let words: Vec<String> = serde_json::from_str(&line).unwrap();
        let words: Vec<String> = words.iter().map(|word| with_times(word, recorded)).collect();
        queue.run::<redis::Value>(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }
    queue
}

/// `{now+12}` is twelve milliseconds after `now`.
fn with_times(text: &str, now: i64) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once("{now") {
        let (offset, after) = behind.split_once('}').unwrap();
        out += before;
        out += &(now + offset.parse::<i64>().unwrap()).to_string();
        rest = after;
    }
    out + rest
}

/// A job as it stands in the queue.
#[derive(Debug, Clone)]
struct Recorded {
    /// None where it was pushed by hand.
    id: Option<String>,
    url: String,
    attempts: u64,
}

impl Recorded {
    fn read(element: &str) -> Recorded {
        let Ok(job) = serde_json::from_str::<serde_json::Value>(element) else {
            return Recorded { id: None, url: element.to_owned(), attempts: 0 };
        };
        Recorded {
            id: Some(job["id"].as_str().unwrap().to_owned()),
            url: job["url"].as_str().unwrap().to_owned(),
            attempts: job["attempts"].as_u64().unwrap_or(0),
        }
    }
}

fn keys(queue: &mut RawQueue, pattern: &str) -> Vec<String> {
    let pattern = queue.key(pattern).replace('{', "\\{").replace('}', "\\}");
    queue.run(&["KEYS", &pattern])
}

/// Jobs of the workers that are in flight, by field, the workers' own names left out.
fn in_flight(queue: &mut RawQueue) -> Vec<(String, Recorded)> {
    let hashes = keys(queue, "inflight:*");
    let all = hashes.iter().flat_map(|key| queue.run::<Vec<(String, String)>>(&["HGETALL", key]));
    all.map(|(field, job)| (field, Recorded::read(&job))).collect()
}

fn delayed(queue: &mut RawQueue) -> Vec<Recorded> {
    queue.run::<Vec<String>>(&["ZRANGE", "@delayed", "0", "-1"]).iter().map(|job| Recorded::read(job)).collect()
}

/// All jobs of the queue that have not ended.
fn waiting(queue: &mut RawQueue) -> Vec<Recorded> {
    let mut all: Vec<Recorded> = queue.ready().iter().map(|job| Recorded::read(job)).collect();
    all.extend(delayed(queue));
    all.extend(in_flight(queue).into_iter().map(|(_, job)| job));
    all
}

/// The batches that no enqueuer has sealed, the one with dedup first.
fn open_batches(queue: &mut RawQueue) -> [String; 2] {
    let batches: Vec<String> = queue.run(&["ZRANGE", "@batches", "0", "-1"]);
    let open = batches.into_iter().filter(|batch| !queue.hash(&format!("batch:{batch}")).contains_key("sealed"));
    open.collect::<Vec<_>>().try_into().unwrap()
}

fn enqueue(queue: &RawQueue, arguments: &[&str], links: &[String]) -> Finished {
    let mut all = vec!["enqueue", "--json"];
    all.extend(arguments);
    all.extend(links.iter().map(String::as_str));
    let done = Producer::run(queue, &all);
    assert_eq!(done.code, 0, "{done:?}");
    done
}

fn number(fields: &BTreeMap<String, String>, name: &str) -> u64 {
    fields.get(name).map_or(0, |number| number.parse().unwrap())
}

fn json_lines(finished: &Finished) -> Vec<serde_json::Value> {
    assert_eq!(finished.code, 0, "{finished:?}");
    let lines = finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    // One array, or a line each.
    lines.flat_map(|line: serde_json::Value| line.as_array().cloned().unwrap_or_else(|| vec![line])).collect()
}

#[test]
fn a_recorded_queue_is_shown_as_it_is() {
    let mut queue = replayed(JUST_NOW_MS);
    let stats = queue.hash("stats");
    let status = Producer::run(&queue, &["status", "--json"]).json();
    let shown = |name: &str| status[name].as_u64().unwrap_or_else(|| panic!("{name} in {status}"));
    assert_eq!(shown("ready") as usize, queue.ready_len());
    assert_eq!(shown("in_flight") as usize, in_flight(&mut queue).len());
    assert_eq!(shown("delayed") as usize, delayed(&mut queue).len());
    assert_eq!(shown("dead") as usize, queue.stream("dead").len());
    assert_eq!(shown("results") as usize, queue.results_len());
    for outcome in ["stored", "rejected", "failed", "bytes"] {
        assert_eq!(shown(outcome), number(&stats, outcome), "{outcome}");
    }
    let workers: BTreeSet<String> = queue.workers().into_iter().collect();
    let told = json_lines(&Producer::run(&queue, &["workers", "--json"]));
    let named: BTreeSet<String> = told.iter().map(|worker| worker["worker"].as_str().unwrap().to_owned()).collect();
    assert_eq!(named, workers);
    assert!(told.iter().any(|worker| worker["in_flight"].as_u64() > Some(1)), "{told:?}");

    let batches = json_lines(&Producer::run(&queue, &["batches", "--json"]));
    let known: Vec<String> = queue.run(&["ZRANGE", "@batches", "0", "-1", "REV"]);
    assert_eq!(batches.iter().map(|batch| batch["batch"].as_str().unwrap()).collect::<Vec<_>>(), known);
    for batch in &batches {
        let fields = queue.hash(&format!("batch:{}", batch["batch"].as_str().unwrap()));
        for name in ["enqueued", "duplicates", "stored", "rejected", "failed", "started", "sealed", "finished"] {
            assert_eq!(batch[name].as_u64(), Some(number(&fields, name)), "{name} of {batch}");
        }
    }
    assert!(batches.iter().any(|batch| batch["finished"].as_u64() > Some(0)));

    let dead = json_lines(&Producer::run(&queue, &["dead", "list", "--json"]));
    let entries = queue.stream("dead");
    assert!(!entries.is_empty());
    let shown: Vec<_> =
        dead.iter().map(|job| (job["url"].as_str().unwrap(), job["reason"].as_str().unwrap())).collect();
    assert_eq!(shown, entries.iter().map(|job| (&*job["url"], &*job["reason"])).collect::<Vec<_>>());

    let results = json_lines(&Producer::run(&queue, &["results", "--format", "jsonl"]));
    let entries = queue.results();
    assert_eq!(results.len(), entries.len());
    for (shown, entry) in results.iter().zip(&entries) {
        for name in ["id", "url", "outcome", "worker", "batch"] {
            assert_eq!(shown[name].as_str().unwrap_or_default(), entry[name], "{name} of {shown}");
        }
    }
}

#[test]
fn a_reader_of_the_release_before_is_given_what_it_has_not_taken() {
    let mut queue = replayed(JUST_NOW_MS);
    let groups: Vec<BTreeMap<String, redis::Value>> = queue.run(&["XINFO", "GROUPS", "@results"]);
    let last: String = redis::from_redis_value(groups[0]["last-delivered-id"].clone()).unwrap();
    let pending: Vec<(String, String, i64, i64)> = queue.run(&["XPENDING", "@results", "export", "-", "+", "10"]);
    let after: Vec<(String, Vec<String>)> = queue.run(&["XRANGE", "@results", &format!("({last}"), "+"]);
    assert!(pending.len() == 1 && after.len() > 1, "{pending:?} {after:?}");
    let entries: Vec<String> = pending.into_iter().map(|p| p.0).chain(after.into_iter().map(|entry| entry.0)).collect();
    let by_entry: BTreeMap<String, String> =
        queue.results().into_iter().map(|result| (result["entry"].clone(), result["url"].clone())).collect();
    let expected: Vec<&String> = entries.iter().map(|entry| &by_entry[entry]).collect();
    let read = || Producer::run(&queue, &["results", "--reader", "export", "--format", "urls"]).stdout;
    assert_eq!(read().lines().collect::<Vec<_>>(), expected);
    assert_eq!(read(), "");
}

#[test]
fn an_enqueue_that_was_broken_off_is_gone_on_with_and_dedup_knows_what_it_knew() {
    let mut queue = replayed(JUST_NOW_MS);
    let [with_dedup, counted] = open_batches(&mut queue);
    let links_of = |queue: &mut RawQueue, batch: &str| -> Vec<String> {
        let all = waiting(queue).into_iter();
        all.filter(|job| job.id.as_ref().is_some_and(|id| id.starts_with(batch))).map(|job| job.url).collect()
    };
    for (batch, list, arguments) in
        [(&with_dedup, "open.txt", &[][..]), (&counted, "open-no-dedup.txt", &["--no-dedup"])]
    {
        let links = lines_of(list);
        let fields = format!("batch:{batch}");
        let before = queue.hash(&fields);
        let in_before = links_of(&mut queue, batch);
        assert!(!in_before.is_empty() && in_before.len() < links.len(), "{in_before:?}");
        let rest = enqueue(&queue, arguments, &links);
        assert_eq!(rest.json()["batch"], **batch, "{rest:?}");
        assert!(rest.stderr.contains(&format!("going on with batch {batch}")), "{rest:?}");
        let after = queue.hash(&fields);
        let (added, offered) = (rest.json()["enqueued"].as_u64().unwrap(), rest.json()["duplicates"].as_u64().unwrap());
        assert_eq!(number(&after, "enqueued"), number(&before, "enqueued") + added);
        assert!(after.contains_key("sealed"), "{after:?}");
        let in_now = links_of(&mut queue, batch);
        if arguments.is_empty() {
            // All are offered again: those that are in, and those that were done before, are duplicates.
            assert_eq!(added + offered, links.len() as u64);
            assert_eq!(number(&after, "duplicates"), number(&before, "duplicates") + offered);
            let done: Vec<&String> = links.iter().filter(|link| !in_now.contains(link)).collect();
            let results = queue.results();
            assert!(!done.is_empty());
            assert!(done.iter().all(|link| results.iter().any(|result| result["url"] == **link)), "{done:?}");
        } else {
            // Links are counted: those that are in are passed over, and Redis is not asked about them.
            assert_eq!((added, offered), ((links.len() - in_before.len()) as u64, in_before.len() as u64));
            assert_eq!(number(&after, "duplicates"), number(&before, "duplicates"));
            assert_eq!(in_now.len(), links.len());
        }
        let once: BTreeSet<&String> = in_now.iter().collect();
        assert_eq!(once.len(), in_now.len(), "none twice: {in_now:?}");
    }
    // Links of jobs that failed have left dedup; of those that were stored or rejected, and of those that wait, none is enqueued.
    let results = queue.results();
    let of = |is_failed: bool| -> Vec<String> {
        results.iter().filter(|r| (r["outcome"] == "failed") == is_failed).map(|r| r["url"].clone()).collect()
    };
    let (known, failed) = (of(false), of(true));
    assert_eq!(enqueue(&queue, &[], &known).json()["duplicates"], known.len());
    assert_eq!(enqueue(&queue, &[], &failed).json()["enqueued"], failed.len());
    // Dedup has nothing to do with what was pushed by hand, nor with an enqueue that went without it.
    let is_known = |job: &Recorded| {
        job.id.as_ref().is_some_and(|id| !id.starts_with("000000000000") && !id.starts_with(&*counted))
    };
    let waiting: Vec<String> = waiting(&mut queue).into_iter().filter(is_known).map(|job| job.url).collect();
    assert!(waiting.len() > 20);
    let again = enqueue(&queue, &[], &waiting).json();
    assert_eq!((again["enqueued"].as_u64(), again["duplicates"].as_u64()), (Some(0), Some(waiting.len() as u64)));
}

/// The batch of today's digest of a list is found by a name that no fixture can hold, the list's own path: so this makes the
/// digest as the release before made it, shows that it does so by what was recorded, and gives it to the recorded batch.
#[test]
fn a_list_is_the_same_command_as_before() {
    let mut queue = replayed(JUST_NOW_MS);
    let [batch, _] = open_batches(&mut queue);
    let digest = |parts: &[&str]| {
        let bytes: Vec<u8> =
            parts.iter().flat_map(|part| [&(part.len() as u64).to_le_bytes()[..], part.as_bytes()].concat()).collect();
        harness::files::sha256(&bytes)[..16].to_owned()
    };
    let options = "Count(1) None jpeg,png,gif,webp,avif false";
    let links = lines_of("open.txt");
    let parts: Vec<&str> = std::iter::once(options).chain(links.iter().map(String::as_str)).collect();
    assert_eq!(queue.hash(&format!("batch:{batch}"))["command"], digest(&parts));

    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().canonicalize().unwrap().join("links.txt");
    std::fs::write(&list, links.join("\n")).unwrap();
    let list = list.to_str().unwrap();
    queue.run::<i64>(&["HSET", &format!("@batch:{batch}"), "command", &digest(&[options, list])]);
    let rest = enqueue(&queue, &[], &[list.to_owned()]);
    assert_eq!(rest.json()["batch"], *batch, "{rest:?}");
}

#[test]
fn every_recorded_job_ends_once() {
    let origins = [1, 2, 3, 4, 5, 6, 7].map(origin_at);
    let mut queue = replayed(JUST_NOW_MS);
    let clock = Clock::of(&mut queue);
    let results_before = queue.results_len();
    let dead_before = queue.stream("dead");
    let dead_workers = queue.workers();
    let hosts = queue.hash("hosts");
    let hold = |n: usize| -> serde_json::Value { serde_json::from_str(&hosts[&origins[n - 1].host()]).unwrap() };
    assert!(hold(3)["probe"].is_number() && hold(4)["alone"].is_object() && hold(1)["tat"].is_number(), "{hosts:?}");
    let held_until = hold(2)["ends"].as_i64().unwrap();
    assert!(held_until > clock.ms + 5000, "{hosts:?}");
    let retries: Vec<Recorded> = delayed(&mut queue).into_iter().filter(|job| job.attempts > 0).collect();
    assert!(!retries.is_empty());
    let alone: Vec<String> =
        dead_workers.iter().filter_map(|name| queue.hash(&format!("worker:{name}")).remove("alone")).collect();
    let in_flight = in_flight(&mut queue);
    let poison: Vec<&Recorded> = in_flight
        .iter()
        .filter(|(field, job)| alone.contains(field) && job.url.contains(&origins[6].host()))
        .map(|(_, job)| job)
        .collect();
    assert_eq!((alone.len(), poison.len()), (1, 1), "one was alone when its worker died");
    let (poison, poisoned) = (poison[0].id.clone().unwrap(), poison[0].url.clone());

    // Those that wait in `delayed` have the end of the hold for their time; that nobody asks for this one, the hold alone does.
    enqueue(&queue, &[], &[origins[1].url("99/300.gif")]);
    let retried = Producer::run(&queue, &["dead", "retry"]);
    assert_eq!(retried.code, 0, "{retried:?}");
    assert!(queue.stream("dead").is_empty());
    let expected = waiting(&mut queue);
    let dead: BTreeSet<&String> = dead_before.iter().map(|job| &job["id"]).collect();
    assert_eq!(expected.iter().filter(|job| job.id.as_ref().is_some_and(|id| dead.contains(id))).count(), 3);

    let storage = tempfile::tempdir().unwrap();
    let arguments = ["--concurrency", "32", "--host-rate", "30/s"];
    let worker = Worker::start(&queue, storage.path(), &arguments);
    // The enqueues go on while it works.
    let mut added = 0;
    for (list, arguments) in [("open.txt", &[][..]), ("open-no-dedup.txt", &["--no-dedup"])] {
        let rest = enqueue(&queue, arguments, &lines_of(list));
        assert!(rest.stderr.contains("going on with batch"), "{rest:?}");
        added += rest.json()["enqueued"].as_u64().unwrap() as usize;
    }
    let results = queue.until_results(results_before + expected.len() + added, LATER).split_off(results_before);

    let mut by_id: BTreeMap<&String, &harness::queue::Entry> = BTreeMap::new();
    for result in &results {
        assert!(by_id.insert(&result["id"], result).is_none(), "ended twice: {result:?}");
    }
    assert_eq!(by_id.len(), expected.len() + added);
    for job in &expected {
        let result = match &job.id {
            Some(id) => by_id.get(id).copied(),
            None => results.iter().find(|result| result["url"] == job.url && !result.contains_key("batch")),
        };
        let result = result.unwrap_or_else(|| panic!("no result of {job:?}"));
        assert_eq!(result["url"], job.url);
        let outcome = if job.id.as_ref() == Some(&poison) { "failed" } else { "stored" };
        assert_eq!(result["outcome"], outcome, "{result:?}");
    }
    // It was the third crash, and it ran alone: nobody asked for it again.
    assert_eq!(by_id[&poison]["reason"], "worker_crashed");
    let path = poisoned.strip_prefix(&origins[6].url("")).unwrap();
    assert_eq!(origins[6].requests(path), 0);
    // Each fails once more at an origin that does not know it, and those attempts from before count.
    for job in &retries {
        let result = results.iter().find(|result| result["url"] == job.url).unwrap();
        assert_eq!(result["attempts"], (job.attempts + 2).to_string(), "{result:?}");
    }
    // The host on hold was left alone until then, and it cost its jobs no attempt.
    clock.assert_not_before(held_until, origins[1].times()[0]);
    for result in results.iter().filter(|result| result["url"].contains(&origins[1].host())) {
        assert_eq!(result["attempts"], "1", "{result:?}");
    }

    // Nothing is left over, and what is counted adds up.
    let waited = Producer::run(&queue, &["wait", "--timeout", "60s"]);
    assert_eq!(waited.code, 0, "{waited:?}");
    until("the dead are struck off", SOON, || (queue.workers().len() == 1).then_some(()));
    assert!(dead_workers.iter().all(|name| !queue.workers().contains(name)));
    assert!(waiting(&mut queue).is_empty());
    assert!(queue.hash("crashes").is_empty(), "{:?}", queue.hash("crashes"));
    let batches: Vec<String> = queue.run(&["ZRANGE", "@batches", "0", "-1"]);
    let all = queue.results();
    for batch in &batches {
        let fields = queue.hash(&format!("batch:{batch}"));
        assert!(fields.contains_key("sealed") && fields.contains_key("finished"), "{batch}: {fields:?}");
        let ids: BTreeSet<&String> = all.iter().map(|r| &r["id"]).filter(|id| id.starts_with(batch.as_str())).collect();
        let ended = ["stored", "rejected", "failed"].map(|outcome| number(&fields, outcome)).iter().sum::<u64>();
        assert_eq!((number(&fields, "enqueued"), ended), (ids.len() as u64, ids.len() as u64), "{batch}: {fields:?}");
    }
    let stats = queue.hash("stats");
    let ids: BTreeSet<&String> = all.iter().map(|result| &result["id"]).collect();
    let ended = ["stored", "rejected", "failed"].map(|outcome| number(&stats, outcome)).iter().sum::<u64>();
    assert_eq!(ended, ids.len() as u64, "{stats:?}");
    drop(worker);
}

#[test]
fn a_folder_of_a_run_that_lost_its_machine_is_made_complete() {
    let origins = [8, 9].map(origin_at);
    let folder = tempfile::tempdir().unwrap();
    for name in ["images", "images.imgq"] {
        copy(&fixture(name), &folder.path().join(name));
    }
    let storage = folder.path().join("images");
    let stored = objects(&storage);
    assert_eq!(stored.len(), 8);
    let links = lines_of("run.txt");
    let mut command = Producer::alone(&["run", "--storage", "images", "--workers", "2", "--max-ready", "8"]);
    command.args(["--allow-networks", "127.0.0.0/8"]).args(&links).current_dir(folder.path());
    let done = finish(command, b"", LATER);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(origins[0].requests_in_all(), 0, "what is stored is not downloaded again");
    assert_eq!(origins[1].requests_in_all(), links.len() - stored.len(), "what is missing is, once");
    let now = objects(&storage);
    assert_eq!(now.len(), links.len());
    assert!(stored.iter().all(|(key, hash)| now.get(key) == Some(hash)), "what was stored is as it was");

    // Each job has one result, those of the run before among them.
    let mut redis = Redis::private(&[]);
    redis.stop();
    let data = tempfile::tempdir().unwrap();
    copy(&folder.path().join("images.imgq/redis/appendonlydir"), data.path());
    redis.restore(&data);
    redis.start_again();
    let mut queue = RawQueue::on(&redis);
    queue.name = "default".to_owned();
    let mut urls: Vec<String> = queue.results().into_iter().map(|result| result["url"].clone()).collect();
    urls.sort();
    let mut expected = links;
    expected.sort();
    assert_eq!(urls, expected);
    assert!(waiting(&mut queue).is_empty());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (path, into) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => copy(&path, &into),
            false => drop(std::fs::copy(&path, &into).unwrap()),
        }
    }
}

/// A worker of the release before: its scripts, with keys and arguments as that release sends them. It downloads nothing; what
/// it says about jobs is the test's.
struct OldWorker {
    name: String,
    claims: u64,
    lives: Arc<AtomicBool>,
    heart: Option<std::thread::JoinHandle<()>>,
}

/// What it was given.
#[derive(Debug)]
struct OldClaim {
    left_alone: Vec<String>,
    dropped: Vec<String>,
    jobs: Vec<OldJob>,
}

#[derive(Debug, Clone)]
struct OldJob {
    field: String,
    payload: String,
    crashes: u64,
    start: String,
}

impl OldJob {
    fn read(&self) -> Recorded {
        Recorded::read(&self.payload)
    }
}

/// What it says about a job.
enum OldSettlement {
    Stored,
    RetryAfter(u64),
    Hold(String),
    Release,
}

fn text(value: redis::Value) -> String {
    redis::from_redis_value(value).unwrap()
}

/// Calls a recorded script.
fn old_script(queue: &mut RawQueue, name: &str, keys: &[&str], arguments: &[String]) -> Vec<redis::Value> {
    let script = std::fs::read_to_string(fixture("scripts").join(format!("{name}.lua"))).unwrap();
    let count = keys.len().to_string();
    let mut words = vec!["EVAL", &script, &count];
    words.extend(keys);
    words.extend(arguments.iter().map(String::as_str));
    match queue.run(&words) {
        redis::Value::Array(reply) => reply,
        single => vec![single],
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

impl OldWorker {
    /// Registers it, and keeps its heart beating on a thread of its own, as a worker does.
    fn start(queue: &mut RawQueue, redis: &Redis) -> OldWorker {
        let name = format!("old-1-{:08x}", fastrand::u32(..));
        let facts = words(["host", "old", "pid", "1", "version", "0", "concurrency", "8"]);
        let arguments = [words([&name, "6000", "1"]), facts].concat();
        let reply = old_script(queue, "register", &["@workers", &format!("@worker:{name}"), "@meta"], &arguments);
        assert_eq!(text(reply[0].clone()), "ok");
        let lives = Arc::new(AtomicBool::new(true));
        let mut own = RawQueue::on(redis);
        own.name.clone_from(&queue.name);
        let (beats, named) = (Arc::clone(&lives), name.clone());
        let heart = std::thread::spawn(move || {
            while beats.load(Ordering::SeqCst) {
                heartbeat(&mut own, &named);
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        OldWorker { name, claims: 0, lives, heart: Some(heart) }
    }

    fn inflight(&self) -> String {
        format!("@inflight:{}", self.name)
    }

    fn worker(&self) -> String {
        format!("@worker:{}", self.name)
    }

    /// Claims jobs, with µs between two requests to one host, and hosts whose jobs wait in it.
    fn claim(&mut self, queue: &mut RawQueue, max: usize, step_us: u64, waiting: &[String]) -> OldClaim {
        self.claims += 1;
        let number = self.claims.to_string();
        let seed = format!("0000000000008{:03x}8{:011x}", fastrand::u16(..0x1000), fastrand::u64(..1 << 44));
        let mut arguments =
            words([&self.name, &number, &max.to_string(), "6000", &seed, "0", &step_us.to_string(), "10"]);
        arguments.extend(waiting.iter().flat_map(|host| [host.clone(), "0".to_owned()]));
        let (inflight, worker) = (self.inflight(), self.worker());
        let keys =
            ["@ready", "@delayed", &inflight, "@workers", &worker, "@meta", "@crashes", "@results", "@hosts", "@stats"];
        let reply = old_script(queue, "claim", &keys, &arguments);
        assert_eq!(text(reply[0].clone()), "ok");
        let names = |value: &redis::Value| redis::from_redis_value::<Vec<String>>(value.clone()).unwrap();
        let jobs = reply[6..].chunks(3).enumerate();
        OldClaim {
            left_alone: names(&reply[4]),
            dropped: names(&reply[5]),
            jobs: jobs
                .map(|(index, job)| OldJob {
                    field: format!("{number}.{}", index + 1),
                    payload: text(job[0].clone()),
                    crashes: redis::from_redis_value(job[1].clone()).unwrap(),
                    start: text(job[2].clone()),
                })
                .collect(),
        }
    }

    /// Settles jobs, and tells what was learnt about hosts. Tells for each whether it was still its own.
    fn settle(&self, queue: &mut RawQueue, jobs: &[(&OldJob, OldSettlement)], news: &[Vec<String>]) -> Vec<bool> {
        let (inflight, worker) = (self.inflight(), self.worker());
        let mut keys: Vec<String> =
            ["results", "dead", "delayed", "ready", "stats", "crashes"].map(|name| format!("@{name}")).to_vec();
        keys.insert(0, inflight);
        keys.extend([worker, "@hosts".to_owned(), "@workers".to_owned(), "@dedup:meta".to_owned()]);
        let mut arguments = words([&self.name, &jobs.len().to_string(), "", ""]);
        arguments.extend(jobs.iter().map(|(job, _)| job.field.clone()));
        arguments.extend(news.iter().flatten().cloned());
        for (job, settlement) in jobs {
            let recorded = job.read();
            match settlement {
                OldSettlement::Stored => {
                    let id = recorded.id.unwrap();
                    let batch = if id.starts_with("000000000000") { "" } else { &id[..12] };
                    let mut index = 0;
                    if !batch.is_empty() {
                        let key = format!("@batch:{batch}");
                        index = keys.iter().position(|known| *known == key).unwrap_or_else(|| {
                            keys.push(key);
                            keys.len() - 1
                        }) + 1;
                    }
                    arguments.extend(words(["report", &index.to_string(), "", &id, &recorded.url, "stored", ""]));
                    arguments.extend(words(["old/1.gif", "300", &"0".repeat(64), "gif", "32", "16", "200"]));
                    arguments.extend(words([&(recorded.attempts + 1).to_string(), &self.name, "7", batch]));
                }
                OldSettlement::RetryAfter(ms) => {
                    let mut again: serde_json::Value = serde_json::from_str(&job.payload).unwrap();
                    let (id, url) = (again["id"].take(), again["url"].take());
                    let spent = recorded.attempts + 1;
                    // In the order in which that release writes them.
                    let again =
                        format!("{{\"id\":{id},\"url\":{url},\"attempts\":{spent},\"last_reason\":\"http_5xx\"}}");
                    arguments.extend(words(["retry", &ms.to_string(), &again]));
                }
                OldSettlement::Hold(host) => arguments.extend(words(["hold", host, ""])),
                OldSettlement::Release => arguments.extend(words(["release"])),
            }
        }
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let reply = old_script(queue, "settle", &keys, &arguments);
        assert_eq!(redis::from_redis_value::<i64>(reply[0].clone()).unwrap(), 0);
        assert_eq!(reply.len(), jobs.len() + 1, "entries of hosts were dropped: {reply:?}");
        reply[1..].iter().map(|own| redis::from_redis_value::<i64>(own.clone()).unwrap() == 1).collect()
    }

    /// What Redis holds for it: fields and payloads; `None` when it was taken for dead.
    fn reconcile(&mut self, queue: &mut RawQueue) -> Option<BTreeMap<String, String>> {
        self.claims += 1;
        let (inflight, worker) = (self.inflight(), self.worker());
        let keys = [&*inflight, "@workers", &worker, "@crashes"];
        let reply = old_script(queue, "reconcile", &keys, &words([&self.name, &self.claims.to_string()]));
        let is_known: i64 = redis::from_redis_value(reply[0].clone()).unwrap();
        (is_known == 1).then(|| reply[1..].chunks(3).map(|job| (text(job[0].clone()), text(job[1].clone()))).collect())
    }

    /// Takes back the jobs of a dead worker; -1 when it is not dead.
    fn recover(&self, queue: &mut RawQueue, dead: &str) -> i64 {
        let (inflight, worker) = (format!("@inflight:{dead}"), format!("@worker:{dead}"));
        let keys = ["@workers", &inflight, &worker, "@ready", "@crashes", "@stats"];
        redis::from_redis_value(old_script(queue, "recover", &keys, &words([dead])).remove(0)).unwrap()
    }

    /// Leaves the queue; false when it holds jobs.
    fn unregister(&self, queue: &mut RawQueue) -> bool {
        let (inflight, worker) = (self.inflight(), self.worker());
        let reply = old_script(queue, "unregister", &["@workers", &inflight, &worker], &words([&self.name]));
        redis::from_redis_value::<i64>(reply[0].clone()).unwrap() == 1
    }

    /// Its heart stops, and nothing of it is heard again.
    fn die(&mut self) {
        self.lives.store(false, Ordering::SeqCst);
        if let Some(heart) = self.heart.take() {
            heart.join().unwrap();
        }
    }
}

impl Drop for OldWorker {
    fn drop(&mut self) {
        self.lives.store(false, Ordering::SeqCst);
        if let Some(heart) = self.heart.take() {
            let _ = heart.join();
        }
    }
}

/// A heartbeat: whether it is registered, and whose leases are over.
fn heartbeat(queue: &mut RawQueue, name: &str) -> (bool, Vec<String>) {
    let worker = format!("@worker:{name}");
    let keys = ["@workers", &worker, "@meta", "@delayed", "@ready", "@dead", "@stats", "@history:10s", "@history:5m"];
    let facts = words(["done", "0", "rate", "0.0", "waiting", "", "hosts", "[]"]);
    let reply = old_script(queue, "heartbeat", &keys, &[words([name, "6000"]), facts].concat());
    let is_known: i64 = redis::from_redis_value(reply[0].clone()).unwrap();
    (is_known == 1, reply[2..].iter().cloned().map(text).collect())
}

fn refused(host: &str, ms: u64) -> Vec<String> {
    words(["refused", host, "rate_limited", &format!("{ms}.000"), "2000.000", "300000.000"])
}

/// What is remembered of a host.
fn entry(queue: &mut RawQueue, host: &str) -> serde_json::Value {
    queue.hash("hosts").get(host).map_or(serde_json::Value::Null, |entry| serde_json::from_str(entry).unwrap())
}

fn push_images(queue: &mut RawQueue, origin: &Origin, numbers: std::ops::Range<u64>) {
    for n in numbers {
        queue.push(&origin.url(&format!("{n}/300.gif")));
    }
}

fn ended_once(queue: &mut RawQueue, jobs: usize) -> Vec<harness::queue::Entry> {
    let results = queue.until_results(jobs, LATER);
    let urls: BTreeSet<&String> = results.iter().map(|result| &result["url"]).collect();
    assert_eq!((results.len(), urls.len()), (jobs, jobs), "each job ends once");
    assert!(results.iter().all(|result| result["outcome"] == "stored"), "{results:?}");
    results
}

/// Tells when something happened by Redis' clock.
struct Clock {
    instant: Instant,
    ms: i64,
}

impl Clock {
    fn of(queue: &mut RawQueue) -> Clock {
        // In this order an instant is told a little later than it was, and never earlier.
        let instant = Instant::now();
        Clock { instant, ms: now_ms(queue) }
    }

    fn assert_not_before(&self, earliest_ms: i64, instant: Instant) {
        let at = self.ms + instant.saturating_duration_since(self.instant).as_millis() as i64;
        // What is left out below a millisecond, and what two clocks may differ by in half a minute.
        assert!(at + 20 >= earliest_ms, "{} ms too early", earliest_ms - at);
    }
}

#[test]
fn old_and_new_workers_share_a_queue() {
    let (redis, origin, storage) = (Redis::private(&[]), Origin::start(), tempfile::tempdir().unwrap());
    let mut queue = RawQueue::on(&redis);
    let links: Vec<String> = (0..60).map(|n| origin.url(&format!("{n}/300.gif"))).collect();
    let batch = enqueue(&queue, &[], &links).json()["batch"].as_str().unwrap().to_owned();
    let mut old = OldWorker::start(&mut queue, &redis);
    let rate_us = 20_000;
    // It has jobs before the new one is there, and keeps them until the new one has done some.
    let first = old.claim(&mut queue, 4, rate_us, &[]).jobs;
    assert_eq!(first.len(), 4);
    let held = old.reconcile(&mut queue).unwrap();
    assert_eq!(held, first.iter().map(|job| (job.field.clone(), job.payload.clone())).collect());
    assert!(!old.unregister(&mut queue), "it holds jobs");
    let _new = Worker::start(&queue, storage.path(), &["--host-rate", "50/s", "--concurrency", "4"]);
    queue.until_workers(2);
    queue.until_results(5, SOON);
    let settlements = [
        (&first[0], OldSettlement::Stored),
        (&first[1], OldSettlement::RetryAfter(50)),
        (&first[2], OldSettlement::Release),
        (&first[3], OldSettlement::Hold(origin.host())),
    ];
    assert_eq!(old.settle(&mut queue, &settlements, &[]), [true; 4]);
    let again = [(&first[0], OldSettlement::Stored)];
    assert_eq!(old.settle(&mut queue, &again, &[]), [false], "what is settled is not settled again");
    until("all have ended", LATER, || {
        let claim = old.claim(&mut queue, 2, rate_us, &[]);
        assert!(claim.dropped.is_empty(), "{claim:?}");
        let settlements: Vec<_> = claim.jobs.iter().map(|job| (job, OldSettlement::Stored)).collect();
        assert!(old.settle(&mut queue, &settlements, &[words(["answered", &origin.host()])]).iter().all(|own| *own));
        (queue.results_len() >= 60).then_some(())
    });
    let results = ended_once(&mut queue, 60);
    let by_old = results.iter().filter(|result| result["worker"] == old.name).count();
    assert!((1..=55).contains(&by_old), "{by_old} by the old one");
    assert_eq!(results.iter().find(|result| result["url"] == first[1].read().url).unwrap()["attempts"], "2");
    let fields = queue.hash(&format!("batch:{batch}"));
    assert_eq!((number(&fields, "stored"), fields.contains_key("finished")), (60, true), "{fields:?}");
    assert_eq!(number(&queue.hash("stats"), "stored"), 60);
    assert!(old.unregister(&mut queue));
    assert_eq!(queue.workers().len(), 1);
}

#[test]
fn a_rate_is_kept_by_old_and_new_workers_together() {
    let (redis, origin, storage) = (Redis::private(&[]), Origin::start(), tempfile::tempdir().unwrap());
    let mut queue = RawQueue::on(&redis);
    push_images(&mut queue, &origin, 0..3);
    let mut old = OldWorker::start(&mut queue, &redis);
    let claim = old.claim(&mut queue, 3, 6_000_000, &[]);
    assert_eq!((claim.jobs.len(), &*claim.jobs[0].start), (1, "0"), "one may start, and the others wait: {claim:?}");
    let next_start = entry(&mut queue, &origin.host())["tat"].as_f64().unwrap() as i64;
    let clock = Clock::of(&mut queue);
    let _new = Worker::start(&queue, storage.path(), &["--host-rate", "10/m"]);
    let first = until("the new one asks", SOON, || origin.times().first().copied());
    clock.assert_not_before(next_start, first);
    // The next start is by the new one's count, and the old one keeps to it.
    let after = entry(&mut queue, &origin.host())["tat"].as_f64().unwrap() as i64;
    assert!(after >= next_start + 6000, "{after} follows {next_start}");
    let claim = old.claim(&mut queue, 3, 6_000_000, &[]);
    assert!(claim.dropped.is_empty());
    let is_early = now_ms(&mut queue) < after - 300;
    assert!(!is_early || claim.jobs.is_empty(), "given out too early: {claim:?}");
}

#[test]
fn a_hold_that_an_old_worker_puts_down_is_obeyed_by_a_new_one() {
    let (redis, storage) = (Redis::private(&[]), tempfile::tempdir().unwrap());
    let (angry, other) = (Origin::start(), Origin::start());
    let mut queue = RawQueue::on(&redis);
    push_images(&mut queue, &angry, 0..6);
    let mut old = OldWorker::start(&mut queue, &redis);
    let claim = old.claim(&mut queue, 2, 0, &[]);
    let settlements: Vec<_> = claim.jobs.iter().map(|job| (job, OldSettlement::Hold(angry.host()))).collect();
    assert_eq!(old.settle(&mut queue, &settlements, &[refused(&angry.host(), 8000)]), [true; 2]);
    let ends = entry(&mut queue, &angry.host())["ends"].as_i64().unwrap();
    let clock = Clock::of(&mut queue);
    push_images(&mut queue, &other, 0..5);
    let _new = Worker::start(&queue, storage.path(), &["--max-attempts", "1"]);
    let results = ended_once(&mut queue, 11);
    assert!(results.iter().all(|result| result["attempts"] == "1"), "{results:?}");
    clock.assert_not_before(ends, angry.times()[0]);
    // One job tried it for all: the others were asked for when it had its answer.
    assert!(angry.times().len() == 6 && entry(&mut queue, &angry.host())["level"].is_null());
}

#[test]
fn a_hold_that_a_new_worker_puts_down_is_obeyed_by_an_old_one() {
    let (redis, storage) = (Redis::private(&[]), tempfile::tempdir().unwrap());
    let (angry, other) = (Origin::start(), Origin::start());
    let mut queue = RawQueue::on(&redis);
    angry.set_mood(Mood::Refusing(Some("10".to_owned())));
    push_images(&mut queue, &angry, 0..4);
    let mut old = OldWorker::start(&mut queue, &redis);
    let new = Worker::start(&queue, storage.path(), &["--max-attempts", "1"]);
    until("it is on hold, and its jobs wait", SOON, || {
        (entry(&mut queue, &angry.host())["ends"].is_number() && delayed(&mut queue).len() == 4).then_some(())
    });
    new.kill();
    let asked = angry.times().len();
    let ends = entry(&mut queue, &angry.host())["ends"].as_i64().unwrap();
    push_images(&mut queue, &angry, 10..12);
    push_images(&mut queue, &other, 0..3);
    // The jobs behind those of the host come, and the host is named to a worker in which its jobs wait.
    let claim = old.claim(&mut queue, 10, 0, &[angry.host()]);
    let is_early = now_ms(&mut queue) < ends;
    assert!(claim.dropped.is_empty());
    let of_angry = claim.jobs.iter().filter(|job| job.payload.contains(&angry.host())).count();
    assert!(claim.jobs.len() - of_angry == 3, "{claim:?}");
    if is_early {
        assert_eq!((of_angry, &claim.left_alone[..]), (0, &[angry.host()][..]), "{claim:?}");
    }
    let settlements: Vec<_> = claim
        .jobs
        .iter()
        .map(|job| match job.payload.contains(&other.host()) {
            true => (job, OldSettlement::Stored),
            // Only on a machine that took longer than the hold.
            false => (job, OldSettlement::Release),
        })
        .collect();
    old.settle(&mut queue, &settlements, &[]);
    // Then one job tries it, by what the new one noted of it, and the others wait for what it finds out.
    let probe = until("one job tries it", SOON, || {
        let mut jobs = old.claim(&mut queue, 10, 0, &[]).jobs;
        assert!(jobs.len() <= 1 && (jobs.is_empty() || now_ms(&mut queue) >= ends), "{jobs:?}");
        jobs.pop()
    });
    assert_eq!(probe.start, "?rate_limited");
    old.settle(&mut queue, &[(&probe, OldSettlement::Stored)], &[words(["answered", &angry.host()])]);
    angry.set_mood(Mood::Kind);
    let _new = Worker::start(&queue, storage.path(), &["--max-attempts", "1"]);
    ended_once(&mut queue, 9);
    assert_eq!(angry.times().len(), asked + 5, "each but the one that the old one stored");
}

#[test]
fn jobs_of_a_dead_worker_of_either_kind_are_recovered_by_the_other() {
    let (redis, origin, storage) = (Redis::private(&[]), Origin::start(), tempfile::tempdir().unwrap());
    let mut queue = RawQueue::on(&redis);
    push_images(&mut queue, &origin, 0..3);
    let mut dies = OldWorker::start(&mut queue, &redis);
    let lost = dies.claim(&mut queue, 3, 0, &[]).jobs;
    assert_eq!(lost.len(), 3);
    dies.die();
    let new = Worker::start(&queue, storage.path(), &[]);
    let results = ended_once(&mut queue, 3);
    assert!(results.iter().all(|result| result["worker"] != dies.name));
    assert_eq!(queue.workers().len(), 1, "the dead one is struck off");
    // It was only slow, and says what it did: nothing is changed by it.
    let late: Vec<_> = lost.iter().map(|job| (job, OldSettlement::Stored)).collect();
    assert_eq!(dies.settle(&mut queue, &late, &[]), [false; 3]);
    assert_eq!((dies.reconcile(&mut queue), queue.results_len()), (None, 3));

    origin.hold();
    let name = queue.workers().remove(0);
    push_images(&mut queue, &origin, 10..13);
    until("all are being downloaded", SOON, || (queue.in_flight(&name).len() == 3).then_some(()));
    let mut old = OldWorker::start(&mut queue, &redis);
    assert_eq!(old.recover(&mut queue, &name), -1, "it lives");
    new.kill();
    until("the old one hears of it", SOON, || {
        let (is_known, expired) = heartbeat(&mut queue, &old.name);
        assert!(is_known);
        expired.contains(&name).then_some(())
    });
    assert_eq!(old.recover(&mut queue, &name), 3);
    assert_eq!(queue.workers(), [old.name.clone()]);
    let claim = old.claim(&mut queue, 10, 0, &[]);
    assert_eq!(claim.jobs.iter().map(|job| job.crashes).collect::<Vec<_>>(), [1; 3], "{claim:?}");
    let settlements: Vec<_> = claim.jobs.iter().map(|job| (job, OldSettlement::Stored)).collect();
    assert_eq!(old.settle(&mut queue, &settlements, &[]), [true; 3]);
    ended_once(&mut queue, 6);
    assert!(queue.hash("crashes").is_empty());
}

#[test]
fn what_new_workers_remember_of_hosts_is_understood_by_old_ones() {
    let (redis, storage) = (Redis::private(&[]), tempfile::tempdir().unwrap());
    let [paced, angry, lonely, tried] = std::array::from_fn(|_| Origin::start());
    let mut queue = RawQueue::on(&redis);
    // Others live, so that it is the worker, not the host, that is taken to be cut off.
    let mut old = OldWorker::start(&mut queue, &redis);
    let bystander = OldWorker::start(&mut queue, &redis);
    angry.set_mood(Mood::Refusing(Some("600".to_owned())));
    lonely.set_mood(Mood::Down);
    tried.set_mood(Mood::Refusing(Some("1".to_owned())));
    paced.hold();
    push_images(&mut queue, &paced, 0..3);
    push_images(&mut queue, &angry, 0..3);
    push_images(&mut queue, &lonely, 0..30);
    push_images(&mut queue, &tried, 0..2);
    let arguments = ["--host-rate", "100/m", "--concurrency", "64", "--retry-delay", "30s", "--idle-timeout", "120s"];
    let fast = ["--host-rate", "20/s"];
    let new = Worker::start(&queue, storage.path(), &[&arguments[2..], &fast[..]].concat());
    until("the host is refused", SOON, || (tried.requests_in_all() > 0).then_some(()));
    tried.set_mood(Mood::Kind);
    tried.hold();
    let knows = |queue: &mut RawQueue, origin: &Origin, field: &str| !entry(queue, &origin.host())[field].is_null();
    until("there is an entry of each kind", SOON, || {
        let all = knows(&mut queue, &angry, "ends")
            && knows(&mut queue, &angry, "level")
            && knows(&mut queue, &angry, "why")
            && knows(&mut queue, &lonely, "alone")
            && knows(&mut queue, &tried, "probe");
        all.then_some(())
    });
    new.kill();
    // A slower one's count for a host reaches ahead for long enough to be looked at.
    push_images(&mut queue, &paced, 10..12);
    let slow = Worker::start(&queue, storage.path(), &arguments);
    until("there is a next start", SOON, || knows(&mut queue, &paced, "tat").then_some(()));
    slow.kill();
    // What a later release adds stays where it is.
    let mut extended = entry(&mut queue, &angry.host());
    extended["of_a_later_release"] = serde_json::json!({"in_flight": {"w": 3}});
    queue.run::<i64>(&["HSET", "@hosts", &angry.host(), &extended.to_string()]);

    let before: BTreeMap<String, serde_json::Value> =
        [&angry, &lonely, &tried].map(|origin| (origin.host(), entry(&mut queue, &origin.host()))).into();
    for origin in [&paced, &angry, &lonely, &tried] {
        push_images(&mut queue, origin, 100..102);
    }
    let hosts: Vec<String> = before.keys().cloned().collect();
    // A claim that reads all of them, then a settle that does.
    let claim = old.claim(&mut queue, 64, 600_000, &hosts);
    assert!(claim.dropped.is_empty(), "{claim:?}");
    assert!(claim.left_alone.contains(&angry.host()), "{claim:?}");
    assert!(claim.jobs.iter().all(|job| !job.payload.contains(&angry.host())), "{claim:?}");
    let settlements: Vec<_> = claim.jobs.iter().map(|job| (job, OldSettlement::Release)).collect();
    let news: Vec<Vec<String>> = hosts.iter().map(|host| words(["unused", host, "1.000"])).collect();
    // It panics when any was dropped.
    old.settle(&mut queue, &settlements, &news);
    let angry_now = entry(&mut queue, &angry.host());
    for field in ["ends", "level", "why", "of_a_later_release"] {
        assert_eq!(angry_now[field], before[&angry.host()][field], "{field}");
    }
    assert_eq!(entry(&mut queue, &lonely.host())["alone"], before[&lonely.host()]["alone"]);
    drop(bystander);
}

/// Where dedup keeps a link as long as its buckets have not been split: the bucket's key, and what is in it.
fn in_dedup(link: &str) -> (String, String) {
    let hash = harness::files::sha256(link.as_bytes());
    let number = |from: usize| u64::from_str_radix(&hash[from..from + 16], 16).unwrap();
    (format!("@dedup:{:x}", number(0) % 1024), (number(16) >> 1).to_string())
}

#[test]
fn old_and_new_enqueuers_know_each_other_s_links() {
    let mut queue = RawQueue::shared();
    let links: Vec<String> = (0..6).map(|n| format!("https://example.org/{n}.jpg")).collect();
    assert_eq!(enqueue(&queue, &[], &links[..3]).json()["enqueued"], 3);
    // One that the new one put in, and two that it did not.
    let (id, batch, enqueuer) = ("00000000beef", "@batch:00000000beef", "old:1:00000000");
    let opened = old_script(
        &mut queue,
        "batch_open",
        &[batch, "@batches"],
        &words([id, enqueuer, "", "links of an old one", "0123456789abcdef"]),
    );
    assert_eq!(text(opened[0].clone()), "ok");
    let mut keys: Vec<String> = ["@ready", batch, "@stats", "@dedup:meta"].map(str::to_owned).to_vec();
    let mut arguments = words([enqueuer, "1", "0", "0"]);
    for (n, link) in links[2..5].iter().enumerate() {
        let (bucket, member) = in_dedup(link);
        keys.push(bucket);
        let job = format!("{{\"id\":\"{id}8000800000000000{n:04x}\",\"url\":\"{link}\"}}");
        arguments.extend(words(["1", &member, &job]));
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let told = old_script(&mut queue, "enqueue", &keys, &arguments);
    let number_at = |at: usize| redis::from_redis_value::<u64>(told[at].clone()).unwrap();
    assert_eq!((&*text(told[0].clone()), number_at(1), number_at(2), number_at(6)), ("ok", 2, 1, 5), "{told:?}");
    assert_eq!(text(old_script(&mut queue, "batch_touch", &[batch], &words([enqueuer])).remove(0)), "ok");
    assert_eq!(text(old_script(&mut queue, "batch_seal", &[batch], &words([enqueuer, "1"])).remove(0)), "ok");
    // And the other way round.
    let new = enqueue(&queue, &[], &links).json();
    assert_eq!((new["enqueued"].as_u64(), new["duplicates"].as_u64()), (Some(1), Some(5)));
    let mut urls: Vec<String> = queue.ready().iter().map(|job| Recorded::read(job).url).collect();
    urls.sort();
    assert_eq!(urls, links);
    assert_eq!(queue.hash("dedup:meta")["count"], "6");
    let batches = json_lines(&Producer::run(&queue, &["batches", "--json"]));
    let of_old = batches.iter().find(|shown| shown["batch"] == id).unwrap();
    assert_eq!((of_old["enqueued"].as_u64(), of_old["source"].as_str()), (Some(2), Some("links of an old one")));
}
