//! What a script costs Redis, which does nothing else meanwhile: over the nastiest bytes it grows with their number, and no payload
//! holds Redis for 50 ms. Redis itself says how long it took, and what of that it had of a core.

use super::scripts::{Bench, batch};
use ::queue::{
    AdmissionRequest, Chunk, Claim, ClaimRequest, ClaimedJob, DeadAction, DeadJob, EntryFilter, EntryRange,
    EntrySearch, HostNews, Keep, LeaseField, Reconciled, RetentionChange, Settlement, WaitsIn, WorkerName,
};
use common::host::HostRate;
use common::job::{Job, JobId};
use common::outcome::{Failure, Outcome};
use common::report::Report;
use harness::{RawQueue, Redis};
use std::collections::BTreeSet;
use std::time::Duration;

const KIB: usize = 1 << 10;
const ID: &str = "0123456789ab80008000000000000001";
/// No payload holds Redis for so long.
const MICROSECONDS_MAX: u64 = 50_000;
/// From 64 KB to 1 MB are 16 times as many bytes; a pattern that begins anew at each of them takes 256 times as long. Twice as
/// long and half as long again is what caches and a busy machine may make of it.
const GROWTH_MAX: u64 = 50;
/// A call itself, whatever it is about.
const CALL_MICROSECONDS: u64 = 250;

/// Texts of about `n` bytes that patterns run over again and again, or that decoders choke on.
fn nasty(n: usize) -> Vec<(&'static str, String)> {
    let job = |url: &str| format!(r#"{{"id":"{ID}","url":"{url}"}}"#);
    let (a, blanks) = ("a".repeat(n), " ".repeat(n));
    vec![
        ("a long user name", job(&format!("http://{a}@x.org/1.jpg"))),
        ("a long user name, without an id", format!(r#"{{"url":"http://{a}@x.org/1.jpg"}}"#)),
        ("a bare link with a long user name", format!("http://{a}@x.org/1.jpg")),
        ("many at signs", job(&format!("http://{}/1.jpg", "@".repeat(n)))),
        ("many colons", job(&format!("http://x.org{}/1.jpg", ":1".repeat(n / 2)))),
        ("an authority without an end", format!(r#"{{"id":"{ID}","url":"http://{a}"#)),
        ("blanks within a bare link", format!("http://x.org/{blanks}1.jpg")),
        ("blanks in front", format!("{blanks}{}", job("http://x.org/1.jpg"))),
        ("blanks at the end", format!("http://x.org/1.jpg{blanks}")),
        ("nothing but blanks", blanks.clone()),
        ("blanks behind many names", format!("{{{}", r#""url" "#.repeat(n / 6))),
        ("byte order marks", "\u{feff}".repeat(n / 3)),
        ("open brackets", format!(r#"{{"with":{}"#, "[".repeat(n))),
        ("numbers", format!(r#"{{"with":[{}1],"url":"http://x.org/1.jpg"}}"#, "1,".repeat(n / 2))),
        ("escapes", job(&format!("http://{}.x.org/", r"\u0061".repeat(n / 6)))),
        ("characters that are escaped", format!("http://x.org/{}", "\u{1}\"\\".repeat(n / 3))),
        ("an id without an end", format!(r#"{{"id":"{}","url":"http://x.org/1.jpg"}}"#, "f".repeat(n))),
        ("slashes", job(&format!("http:{}x.org/1.jpg", "/".repeat(n)))),
    ]
}

/// What scripts are run with, and what was read for it before.
struct Stage {
    bench: Bench,
    text: String,
    claimed: Vec<ClaimedJob>,
    dead: Vec<DeadJob>,
    page: Vec<Vec<u8>>,
}

impl Stage {
    fn job(&self) -> Job {
        Job::new(JobId::new(batch(), 9, 0), self.text.clone())
    }

    fn raw<T: redis::FromRedisValue>(&mut self, command: &[&str]) -> T {
        self.bench.raw.run(command)
    }

    /// As a worker of before the bounds may have it.
    fn in_flight(&mut self) {
        let (key, text) = (format!("@inflight:{}", self.bench.worker), self.text.clone());
        self.raw::<i64>(&["HSET", &key, "1.1", &text]);
        let held = self.bench.runtime.block_on(self.bench.queue.reconcile(&self.bench.worker, 1)).unwrap();
        let Reconciled::Holds(jobs) = held else { panic!("registered") };
        self.claimed = jobs;
    }

    fn settle(&mut self, settlement: Settlement, news: &[HostNews]) {
        let field: LeaseField = self.claimed[0].field.clone();
        let settled =
            self.bench.runtime.block_on(self.bench.queue.settle(&self.bench.worker, &[(field, settlement)], news));
        assert_eq!(settled.unwrap().accepted, [true]);
    }
}

/// A script's name, what is made ready for it, and a call of it.
type Case = (&'static str, fn(&mut Stage), fn(&mut Stage));

const CASES: &[Case] = &[
    (
        "enqueue",
        |_| (),
        |stage| {
            let chunk = Chunk { number: 2, jobs: vec![stage.job()], dedup: true, keeps_order: true };
            stage.bench.runtime.block_on(stage.bench.queue.push(&stage.bench.open, &chunk)).unwrap();
        },
    ),
    (
        "claim",
        |stage| {
            stage.raw::<i64>(&["DEL", "@ready"]);
            let text = stage.text.clone();
            stage.raw::<i64>(&["RPUSH", "@ready", &text]);
        },
        claim,
    ),
    (
        "claim",
        |stage| {
            stage.raw::<i64>(&["DEL", "@ready"]);
            let text = stage.text.clone();
            stage.raw::<i64>(&["ZADD", "@delayed", "1", &text]);
        },
        claim,
    ),
    (
        "admit",
        |stage| {
            // Something is remembered of this host, and of one that the script may look at besides.
            let text = stage.text.clone();
            for host in [text.as_str(), "x.org"] {
                stage.raw::<i64>(&["HSET", "@hosts", host, r#"{"ends":1,"level":1,"why":"rate_limited"}"#]);
                stage.raw::<i64>(&["ZADD", "@hosts:held", "1", host]);
            }
        },
        |stage| {
            let ahead = Duration::from_millis(300);
            let hosts = vec![(stage.text.clone(), ahead), (format!("{}.org", stage.text), ahead)];
            let request = AdmissionRequest { host_rate: Some("5/s".parse().unwrap()), free_refusals: 10, hosts };
            let admitted = stage.bench.runtime.block_on(stage.bench.queue.admit(&stage.bench.worker, &request));
            assert!(admitted.unwrap().starts.iter().all(Option::is_some));
        },
    ),
    ("reconcile", Stage::in_flight, |stage| {
        stage.bench.runtime.block_on(stage.bench.queue.reconcile(&stage.bench.worker, 2)).unwrap();
    }),
    ("settle", Stage::in_flight, |stage| stage.settle(Settlement::Release, &[])),
    ("settle", Stage::in_flight, |stage| {
        let job = Some(Box::new(stage.job()));
        stage.settle(Settlement::Hold { host: "x.org".into(), job }, &[]);
    }),
    ("settle", Stage::in_flight, |stage| {
        // A start that was not needed: the script looks whose jobs wait.
        let text = stage.text.clone();
        stage.raw::<i64>(&["ZADD", "@delayed", "99999999999999", &text]);
        let news = HostNews::Unused { host: "x.org".into(), interval: Duration::from_millis(1), was_probe: false };
        let retry = Settlement::Retry { job: Box::new(stage.job()), after: Duration::from_secs(60) };
        stage.settle(retry, &[news]);
    }),
    ("settle", Stage::in_flight, |stage| {
        let report = Report {
            id: stage.job().id,
            url: stage.text.clone(),
            outcome: Outcome::Failed(Failure::Dns),
            object: None,
            status: 0,
            attempts: 1,
            duration_ms: 1,
        };
        stage.settle(Settlement::Report(Box::new(report)), &[]);
    }),
    (
        "recover",
        |stage| {
            stage.in_flight();
            let name = stage.bench.worker.to_string();
            stage.raw::<i64>(&["ZADD", "@workers", "1", &name]);
        },
        |stage| {
            let name = stage.bench.worker.to_string();
            assert_eq!(
                stage.bench.runtime.block_on(stage.bench.queue.recover(&name)).unwrap().map(|recovered| recovered.jobs),
                Some(1)
            );
        },
    ),
    (
        "dead_retry",
        |stage| {
            let text = stage.text.clone();
            stage.raw::<String>(&["XADD", "@dead", "*", "id", ID, "url", &text, "reason", "dns", "job", &text]);
            stage.dead = stage.bench.runtime.block_on(stage.bench.queue.dead_jobs(None, 10)).unwrap();
        },
        |stage| {
            let moved = stage.bench.runtime.block_on(stage.bench.queue.settle_dead(DeadAction::Retry, &stage.dead));
            assert_eq!(moved.unwrap(), 1);
        },
    ),
    (
        "purge",
        |stage| {
            stage.raw::<i64>(&["DEL", "@ready"]);
            let text = stage.text.clone();
            stage.raw::<i64>(&["RPUSH", "@ready", &text]);
            stage.page = stage.bench.runtime.block_on(stage.bench.queue.waiting_page(WaitsIn::Ready)).unwrap();
        },
        |stage| {
            let purged = stage.bench.runtime.block_on(stage.bench.queue.purge_page(WaitsIn::Ready, &stage.page));
            assert_eq!(purged.unwrap(), 1);
        },
    ),
    (
        "find_entries",
        |stage| {
            let text = stage.text.clone();
            stage.raw::<String>(&["XADD", "@results", "*", "id", ID, "url", &text, "reason", &text]);
            stage.raw::<String>(&["XADD", "@results", "*", "id", ID, "url", &text, "reason", "dns"]);
        },
        |stage| {
            let filter = EntryFilter { reason: Some("dns".into()), ..EntryFilter::default() };
            let mut search = EntrySearch::new(filter, EntryRange::default(), false);
            let found = stage.bench.runtime.block_on(stage.bench.queue.search_results(&mut search, 10)).unwrap();
            assert!(found.rows.len() == 1 || !found.is_end, "1 MB was looked at, and there is more");
        },
    ),
    (
        "batch_open",
        |_| (),
        |stage| {
            let id = common::job::BatchId::from_random(fastrand::u64(..));
            stage.bench.runtime.block_on(stage.bench.queue.open_batch(id, &stage.text, None)).unwrap();
        },
    ),
    (
        "batch_touch",
        |_| (),
        |stage| {
            stage.bench.runtime.block_on(stage.bench.queue.touch_batch(&stage.bench.open)).unwrap();
        },
    ),
    (
        "batch_seal",
        |_| (),
        |stage| {
            stage.bench.runtime.block_on(stage.bench.queue.seal_batch(&stage.bench.open, 1)).unwrap();
        },
    ),
    (
        "register",
        |_| (),
        |stage| {
            let facts = [("hosts", stage.text.clone())];
            stage.bench.runtime.block_on(stage.bench.queue.register(&WorkerName::fresh(), &facts)).unwrap();
        },
    ),
    (
        "heartbeat",
        |_| (),
        |stage| {
            let facts = [("hosts", stage.text.clone())];
            stage.bench.runtime.block_on(stage.bench.queue.heartbeat(&stage.bench.worker, &facts)).unwrap();
        },
    ),
    (
        "status",
        |stage| {
            let facts = [("hosts", stage.text.clone())];
            stage.bench.runtime.block_on(stage.bench.queue.register(&WorkerName::fresh(), &facts)).unwrap();
        },
        |stage| {
            stage.bench.runtime.block_on(stage.bench.queue.status()).unwrap();
        },
    ),
    (
        "pause",
        |_| (),
        |stage| {
            stage.bench.runtime.block_on(stage.bench.queue.set_paused(true)).unwrap();
        },
    ),
    (
        "add_reader",
        |_| (),
        |stage| {
            stage.bench.runtime.block_on(stage.bench.queue.add_reader("export")).unwrap();
        },
    ),
    (
        "set_retention",
        |_| (),
        |stage| {
            let change =
                RetentionChange { dead: Some(Keep::For(Duration::from_secs(3600))), ..RetentionChange::default() };
            stage.bench.runtime.block_on(stage.bench.queue.set_retention(change)).unwrap();
        },
    ),
    (
        "tidy",
        |stage| {
            let text = stage.text.clone();
            stage.raw::<String>(&["XADD", "@results", "1-1", "id", ID, "url", &text]);
            stage.raw::<String>(&["XADD", "@dead", "1-1", "id", ID, "url", &text, "job", &text]);
            stage.raw::<()>(&["XGROUP", "CREATE", "@results", &text, "0"]);
            stage.raw::<i64>(&["HSET", "@hosts", &text, r#"{"tat":1}"#]);
            stage.raw::<i64>(&["ZADD", "@batches", "1", &text]);
            let keep = Some(Keep::For(Duration::from_secs(3600)));
            let change = RetentionChange { results: keep, dead: keep, batches: keep, readers: keep };
            stage.bench.runtime.block_on(stage.bench.queue.set_retention(change)).unwrap();
        },
        |stage| {
            let tidied = stage.bench.runtime.block_on(stage.bench.queue.tidy(true)).unwrap();
            assert_eq!((tidied.results, tidied.dead, tidied.batches), (0, 1, 1), "the result waits for its reader");
        },
    ),
    (
        "batch_forget",
        |stage| {
            let text = stage.text.clone();
            stage.raw::<i64>(&["ZADD", "@batches", "1", &text]);
        },
        |stage| {
            assert_eq!(stage.bench.runtime.block_on(stage.bench.queue.forget_finished_batches()).unwrap(), 1);
        },
    ),
    (
        "note_budget",
        |_| (),
        |stage| {
            let numbers = [(stage.text.clone(), 1)];
            stage.bench.runtime.block_on(stage.bench.queue.note_budget("imgur", "test", &numbers)).unwrap();
        },
    ),
    ("run_alone", Stage::in_flight, |stage| {
        let field = &stage.claimed[0].field;
        assert!(stage.bench.runtime.block_on(stage.bench.queue.run_alone(&stage.bench.worker, field)).unwrap());
    }),
    (
        "unregister",
        |_| (),
        |stage| {
            assert!(stage.bench.runtime.block_on(stage.bench.queue.unregister(&stage.bench.worker)).unwrap());
        },
    ),
    (
        "dedup_forget",
        |_| (),
        |stage| {
            stage.bench.runtime.block_on(stage.bench.queue.forget_links(std::slice::from_ref(&stage.text))).unwrap();
        },
    ),
    (
        "dedup_clear",
        |_| (),
        |stage| {
            stage.bench.runtime.block_on(stage.bench.queue.forget_all_links()).unwrap();
        },
    ),
];

/// It sees digests only, which are numbers of ours; how many, `docs/performance.md` says.
const OF_DIGESTS: [&str; 1] = ["dedup_split"];

fn claim(stage: &mut Stage) {
    let host_rate: HostRate = "5/s".parse().unwrap();
    let request = ClaimRequest { host_rate: Some(host_rate), ..ClaimRequest::of(10) };
    stage.bench.runtime.block_on(stage.bench.queue.claim(&stage.bench.worker, 2, &request)).unwrap();
    let left: i64 = stage.raw(&["LLEN", "@ready"]);
    assert_eq!(left, 0, "it was looked at");
}

/// What Redis says of its work until now: how long its scripts took by the wall clock, and how much of a core its one thread that runs
/// commands had, in microseconds.
fn work(connection: &mut redis::Connection) -> (u64, u64) {
    let mut info = |section| redis::cmd("INFO").arg(section).query::<String>(connection).unwrap();
    let (commands, cpu) = (info("commandstats"), info("cpu"));
    let of = |command: &str| -> u64 {
        let line = commands.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:")));
        let usec = line.and_then(|line| line.split(',').find_map(|fact| fact.strip_prefix("usec=")));
        usec.map_or(0, |usec| usec.parse().unwrap())
    };
    let seconds = |name: &str| -> f64 {
        cpu.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.parse().ok()).unwrap()
    };
    let thread = seconds("used_cpu_user_main_thread") + seconds("used_cpu_sys_main_thread");
    (of("evalsha") + of("eval"), (thread * 1e6) as u64)
}

/// How long the scripts took that ran since `before`, in microseconds. Either figure says too much: the wall clock goes on while something
/// else has the core, and the thread reads and answers as well. So the less of them is taken.
fn took_since((wall, cpu): (u64, u64), connection: &mut redis::Connection) -> u64 {
    let (wall_now, cpu_now) = work(connection);
    (wall_now - wall).min(cpu_now - cpu)
}

/// The least of some calls, as the machine may be busy with something else: as many as it takes to be below `enough`, up to ten.
fn least(redis: &Redis, (_, prepare, run): &Case, text: &str, enough: u64) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..10 {
        let bench = Bench::on(RawQueue::on(redis));
        let mut stage = Stage { bench, text: text.to_owned(), claimed: Vec::new(), dead: Vec::new(), page: Vec::new() };
        prepare(&mut stage);
        let mut connection = redis.connect();
        let before = work(&mut connection);
        run(&mut stage);
        let took = took_since(before, &mut connection);
        redis::cmd("FLUSHALL").query::<()>(&mut connection).unwrap();
        least = least.min(took);
        if least < enough {
            break;
        }
    }
    least
}

#[test]
fn every_script_takes_time_by_the_length_of_what_strangers_wrote() {
    let redis = Redis::private(&["--appendonly", "no"]);
    let mut longest = (0, "", "");
    for case in CASES {
        // The scripts are loaded.
        least(&redis, case, "https://x.org/1.jpg", u64::MAX);
        let texts = [1, 64, 1024].map(|size| nasty(size * KIB));
        let [short, middle, long] = &texts;
        for (((what, short), (_, middle)), (_, long)) in short.iter().zip(middle).zip(long) {
            let name = case.0;
            // From the short one on: what is longer is measured again only where it took too long by the one before.
            let of_short = least(&redis, case, short, CALL_MICROSECONDS).max(CALL_MICROSECONDS);
            let of_middle = least(&redis, case, middle, of_short * GROWTH_MAX).max(CALL_MICROSECONDS);
            assert!(
                of_middle < of_short * GROWTH_MAX,
                "{name} over {what}: {of_short} µs for 1 KiB, {of_middle} for 64"
            );
            let of_long = least(&redis, case, long, MICROSECONDS_MAX.min(of_middle * GROWTH_MAX));
            assert!(of_long < MICROSECONDS_MAX, "{name} holds Redis for {of_long} µs over {what}");
            assert!(
                of_long < of_middle * GROWTH_MAX,
                "{name} over {what}: {of_middle} µs for 64 KiB, {of_long} for 1 MiB"
            );
            longest = longest.max((of_long, name, what));
        }
    }
    println!("the longest: {longest:?} µs");
}

/// Elements of a host that is held: small ones, and behind them as large ones as there may be, which have to be decoded.
fn crowd() -> Vec<String> {
    let small = (0..168).map(|n| format!(r#"{{"id":"0123456789ab80008{n:015x}","url":"http://x.org/{n}"}}"#));
    let large = (0..340).map(|n| format!(r#"{{"url":"http://x.org/{n}","with":[{}1]}}"#, "{},".repeat(21_000)));
    small.chain(large).collect()
}

fn hold(stage: &mut Stage) {
    let (seconds, _): (u64, u64) = stage.raw(&["TIME"]);
    let entry = format!(r#"{{"ends":{}000,"level":1,"why":"rate_limited"}}"#, seconds + 600);
    stage.raw::<i64>(&["HSET", "@hosts", "x.org", &entry]);
    stage.raw::<i64>(&["DEL", "@ready"]);
}

fn claim_some(stage: &mut Stage) {
    let request = ClaimRequest { free_refusals: 10, ..ClaimRequest::of(64) };
    let claim = stage.bench.runtime.block_on(stage.bench.queue.claim(&stage.bench.worker, 2, &request)).unwrap();
    assert!(matches!(claim, Claim::Jobs { jobs, more: true, .. } if jobs.is_empty()), "all wait, and there are more");
}

const CROWDS: &[Case] = &[
    (
        "a claim of large ones behind small ones",
        |stage| {
            hold(stage);
            for element in crowd() {
                stage.raw::<i64>(&["RPUSH", "@ready", &element]);
            }
        },
        claim_some,
    ),
    (
        "a claim of large ones that are due behind small ones",
        |stage| {
            hold(stage);
            for (n, element) in crowd().into_iter().enumerate() {
                stage.raw::<i64>(&["ZADD", "@delayed", &n.to_string(), &element]);
            }
        },
        claim_some,
    ),
    (
        "a claim of bare links whose every byte is escaped",
        |stage| {
            hold(stage);
            for n in 0..140 {
                let element = format!("http://x.org/{n}{}", "\u{1}".repeat(10_800));
                stage.raw::<i64>(&["RPUSH", "@ready", &element]);
            }
        },
        claim_some,
    ),
    (
        "a claim of jobs that are the same to the last byte",
        |stage| {
            hold(stage);
            for _ in 0..600 {
                stage.raw::<i64>(&["RPUSH", "@ready", &format!(r#"{{"id":"{ID}","url":"http://x.org/1.jpg"}}"#)]);
            }
        },
        claim_some,
    ),
    (
        "a search through results as large as there may be",
        |stage| {
            let (url, job) = ("u".repeat(16 * KIB), "j".repeat(64 * KIB));
            for _ in 0..200 {
                stage.raw::<String>(&["XADD", "@results", "*", "id", ID, "url", &url, "job", &job]);
            }
        },
        |stage| {
            let filter = EntryFilter { id: Some(ID.into()), ..EntryFilter::default() };
            let mut search = EntrySearch::new(filter, EntryRange::default(), false);
            let found = stage.bench.runtime.block_on(stage.bench.queue.search_results(&mut search, 1000)).unwrap();
            assert_eq!((found.rows.len(), found.is_end), (50, false), "all of 4 MB, and no more");
        },
    ),
    (
        "a settle with many starts that were not needed",
        |stage| {
            let (seconds, _): (u64, u64) = stage.raw(&["TIME"]);
            let soon = format!("{}000", seconds + 30);
            for element in &crowd()[160..200] {
                stage.raw::<i64>(&["ZADD", "@delayed", &soon, element]);
            }
            stage.in_flight();
        },
        |stage| {
            let unused = |n: usize| HostNews::Unused {
                host: format!("{n}.org"),
                interval: Duration::from_millis(1),
                was_probe: false,
            };
            stage.settle(Settlement::Release, &(0..256).map(unused).collect::<Vec<_>>());
        },
    ),
];

/// What a machine that does nothing else adds up in 5 ms; busy with something else it takes longer for this as well.
const YARDSTICK: &str = "local x = 0 for i = 1, 1000000 do x = x + i end return x";
/// That times 10 is as much as [`MICROSECONDS_MAX`], whatever the machine is busy with.
const YARDSTICKS_MAX: u64 = 10;

#[test]
fn no_call_takes_long_however_many_large_jobs_wait() {
    let redis = Redis::private(&["--appendonly", "no"]);
    for case in CROWDS {
        // Each time beside what the same Redis takes for the yardstick in the same moment.
        let mut tried = Vec::new();
        let is_fine = (0..10).any(|_| {
            let mut connection = redis.connect();
            let before = work(&mut connection);
            redis::cmd("EVAL").arg(YARDSTICK).arg(0).query::<u64>(&mut connection).unwrap();
            let yardstick = took_since(before, &mut connection);
            let took = least(&redis, case, "https://x.org/1.jpg", u64::MAX);
            println!("{}: {took} µs, beside {yardstick}", case.0);
            tried.push((took, yardstick));
            took < MICROSECONDS_MAX.max(YARDSTICKS_MAX * yardstick)
        });
        assert!(is_fine, "{} holds Redis too long (µs, and what the yardstick took): {tried:?}", case.0);
    }
}

#[test]
fn no_script_is_left_out() {
    let there: BTreeSet<String> = ::queue::script_sources().into_iter().map(|(name, _)| name.to_owned()).collect();
    let named = CASES.iter().map(|(name, ..)| *name).chain(OF_DIGESTS);
    assert_eq!(named.map(str::to_owned).collect::<BTreeSet<String>>(), there);
}

#[test]
fn redis_compiles_every_script() {
    let redis = Redis::shared();
    let mut connection = redis.connect();
    for (name, source) in ::queue::script_sources() {
        let loaded: redis::RedisResult<String> = redis::cmd("SCRIPT").arg("LOAD").arg(&source).query(&mut connection);
        assert!(loaded.is_ok(), "{name}: {loaded:?}");
    }
}
