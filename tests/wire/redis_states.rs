//! A Redis that is there and cannot do all that it is asked for: full, still reading its data, busy, a replica. What only reads and
//! what frees memory works, whoever waits goes on waiting, and the words name what it is.

use harness::dashboard::Dashboard;
use harness::programs::{Finished, finish};
use harness::{Origin, Producer, RawQueue, Redis, Worker, until};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

fn succeeds(queue: &RawQueue, arguments: &[&str]) -> Finished {
    let finished = Producer::run(queue, arguments);
    assert_eq!(finished.code, 0, "{arguments:?}: {finished:?}");
    finished
}

/// A program that runs beside the test, with what it says on standard error in a file.
pub(super) struct Beside {
    child: Child,
    said: tempfile::NamedTempFile,
    name: String,
}

impl Beside {
    pub(super) fn start(name: &str, mut command: Command) -> Beside {
        let said = tempfile::NamedTempFile::new().unwrap();
        command.stdin(Stdio::null()).stderr(said.reopen().unwrap());
        Beside { child: command.spawn().unwrap(), said, name: name.to_owned() }
    }

    pub(super) fn said(&self) -> String {
        std::fs::read_to_string(self.said.path()).unwrap()
    }

    fn still_runs(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert_eq!(ended, None, "{} has ended: {}", self.name, self.said());
    }

    fn until_it_says(&self, words: &str) {
        until(&format!("{} says {words:?}", self.name), SOON, || self.said().contains(words).then_some(()));
    }

    pub(super) fn until_end(&mut self) -> Option<i32> {
        until(&format!("{} ends", self.name), SOON, || self.child.try_wait().unwrap()).code()
    }

    fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn at_maxmemory_all_that_reads_and_all_that_frees_memory_works() {
    let redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    let links = [origin.url("status/404"), origin.url("status/500"), origin.url("flaky/9/1"), origin.url("1/300.gif")];
    {
        let worker = Worker::start(&queue, storage.path(), &["--max-attempts", "1"]);
        let arguments = [&["enqueue"], &links.each_ref().map(String::as_str)[..]].concat();
        succeeds(&queue, &arguments);
        queue.until_results(4, SOON);
        worker.kill();
    }
    let batch =
        succeeds(&queue, &["enqueue", "--no-dedup", "--json", &origin.url("2/300.gif"), &origin.url("3/300.gif")]);
    let batch = batch.json()["batch"].as_str().unwrap().to_owned();
    queue.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]);

    // What only reads.
    assert_eq!(succeeds(&queue, &["status", "--json"]).json()["ready"], 2);
    for arguments in [
        &["status"][..],
        &["status", &batch],
        &["workers"],
        &["batches"],
        &["dead", "list"],
        &["results"],
        &["results", "--list-readers"],
    ] {
        succeeds(&queue, arguments);
    }
    let waited = Producer::run(&queue, &["wait", &batch, "--timeout", "1s"]);
    assert!(waited.code == 4 && waited.stderr.contains("0 of 2 jobs done"), "{waited:?}");
    let dashboard = Dashboard::start(&queue, storage.path(), &[]);
    for path in ["/", "/results", "/dead", &format!("/batch/{batch}"), "/metrics", "/readyz"] {
        let page = dashboard.get(path);
        assert_eq!(page.status, 200, "{path}: {}", page.text());
    }

    // What stops workers, and what lets results be trimmed.
    succeeds(&queue, &["pause"]);
    assert_eq!(queue.hash("meta")["paused"], "1");
    succeeds(&queue, &["resume"]);
    assert!(!queue.hash("meta").contains_key("paused"));
    assert_eq!(succeeds(&queue, &["results", "--reader", "export", "--format", "urls"]).stdout.lines().count(), 4);
    succeeds(&queue, &["results", "--drop-reader", "export"]);

    // What moves, and what frees.
    succeeds(&queue, &["dead", "retry", "--reason", "http_5xx"]);
    assert_eq!(queue.ready_len(), 4);
    succeeds(&queue, &["purge", "--yes"]);
    assert_eq!(queue.ready_len(), 0);
    succeeds(&queue, &["forget", &links[3]]);

    // And nothing is added.
    let refused = Producer::run(&queue, &["enqueue", &links[3]]);
    assert!(refused.code == 1 && refused.stderr.contains("out of memory"), "{refused:?}");
    assert_eq!(queue.ready_len(), 0);
}

/// Fills a server with data that it takes seconds to read when it is started again with [`SLOWLY`].
fn make_slow_to_load(queue: &mut RawQueue) {
    let fill = "for n = 1, 400 do redis.call('SET', 'filler:' .. n, string.rep('x', 1024)) end";
    queue.run::<()>(&["EVAL", fill, "0"]);
    queue.run::<redis::Value>(&["BGREWRITEAOF"]);
    until("its data are in the new file", SOON, || {
        let info: String = queue.run(&["INFO", "persistence"]);
        let has = |fact: &str| info.contains(fact);
        (has("aof_rewrite_in_progress:0") && has("aof_rewrite_scheduled:0") && has("aof_last_bgrewrite_status:ok"))
            .then_some(())
    });
}

/// 40 ms for each key, with a look at its connections in between.
const SLOWLY: [&str; 4] = ["--key-load-delay", "40000", "--loading-process-events-interval-bytes", "1024"];

#[test]
fn whoever_waits_or_follows_outlives_a_restart_that_takes_long() {
    let mut redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    origin.hold();
    make_slow_to_load(&mut queue);
    let links: Vec<String> = (0..5).map(|n| origin.url(&format!("{n}/300.gif"))).collect();
    let enqueue = [&["enqueue", "--json"], &links.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat();
    let batch = succeeds(&queue, &enqueue).json()["batch"].as_str().unwrap().to_owned();
    let _worker = Worker::start(&queue, storage.path(), &[]);
    until("it downloads", SOON, || (origin.requests_in_all() >= 5).then_some(()));

    let folder = tempfile::tempdir().unwrap();
    let (followed, read) = (folder.path().join("followed"), folder.path().join("read"));
    let to = |path: &Path| path.to_str().unwrap().to_owned();
    let producer = |arguments: &[&str]| {
        let mut command = Producer::command(&queue, arguments);
        command.stdout(Stdio::null());
        command
    };
    let watched = folder.path().join("watched");
    let mut watch = Producer::command(&queue, &["status", "--watch", "--json"]);
    watch.stdout(std::fs::File::create(&watched).unwrap());
    let follow = ["results", "--follow", "--format", "urls", "--output"];
    let mut before: Vec<Beside> = vec![
        Beside::start("wait for a batch", producer(&["wait", &batch])),
        Beside::start("wait for all", producer(&["wait"])),
        Beside::start("follow", producer(&[&follow[..], &[&to(&followed)]].concat())),
        Beside::start("reader", producer(&[&follow[..], &[&to(&read), "--reader", "export"]].concat())),
        Beside::start("watch", watch),
    ];
    for wait in &before[..2] {
        wait.until_it_says("0/5 done");
    }
    until("the others have begun", SOON, || {
        (followed.exists() && read.exists() && !lines_of(&watched).is_empty()).then_some(())
    });
    redis.kill();
    redis.launch_again(&SLOWLY);
    let mut raw = until("it reads its data", SOON, || redis.try_connect());
    let is_loading = |raw: &mut redis::Connection| {
        let answer: redis::RedisResult<redis::Value> = redis::cmd("DBSIZE").query(raw);
        answer.is_err_and(|error| error.code() == Some("LOADING"))
    };
    until("it says so", SOON, || is_loading(&mut raw).then_some(()));

    // Who asks once is told what it is, and what to do.
    let status = Producer::run(&queue, &["status"]);
    if is_loading(&mut raw) {
        assert_eq!(status.code, 1, "{status:?}");
        let hint = status.stderr.lines().find(|line| line.starts_with("hint: ")).unwrap();
        assert!(status.stderr.contains("is still reading its data") && hint.contains("wait"), "{status:?}");
    }
    // Who has no time is told that it is over.
    let late_wait = Producer::run(&queue, &["wait", "--timeout", "200ms"]);
    assert!(!is_loading(&mut raw) || late_wait.code == 4, "{late_wait:?}");
    // Those who come now wait as well.
    let late = tempfile::tempdir().unwrap();
    let mut coming: Vec<Beside> = vec![
        Beside::start("late wait", producer(&["wait", &batch])),
        Beside::start("late enqueue", producer(&["enqueue", &origin.url("7/300.gif")])),
        Beside::start("late worker", Worker::command(&queue, late.path())),
        Beside::start("late dashboard", producer(&["dashboard", "--listen", "127.0.0.1:0"])),
    ];
    assert!(is_loading(&mut raw), "it was ready before the test had begun: let it load more slowly");
    for beside in &before {
        beside.until_it_says("trying again");
    }
    for beside in &coming {
        beside.until_it_says("is still reading its data");
    }
    until("it has read its data", SOON, || (!is_loading(&mut raw)).then_some(()));
    for beside in before.iter_mut().chain(&mut coming[2..]) {
        beside.still_runs();
    }
    assert_eq!(coming[1].until_end(), Some(0), "{}", coming[1].said());
    origin.let_go();
    for beside in before[..2].iter_mut().chain(&mut coming[..1]) {
        assert_eq!(beside.until_end(), Some(0), "{}: {}", beside.name, beside.said());
    }
    let whole: BTreeSet<String> = links.into_iter().chain([origin.url("7/300.gif")]).collect();
    for path in [&followed, &read] {
        until("all were passed on", SOON, || (lines_of(path).len() >= 6).then_some(()));
        let lines = lines_of(path);
        assert_eq!((lines.len(), lines.into_iter().collect::<BTreeSet<_>>()), (6, whole.clone()), "{path:?}");
    }
    for beside in &mut before[2..] {
        beside.interrupt();
        assert_eq!(beside.until_end(), Some(0), "{}: {}", beside.name, beside.said());
    }
}

#[test]
fn a_reader_that_follows_is_given_each_result_once_though_answers_are_lost() {
    let mut redis = Redis::private(&["--appendfsync", "always"]);
    let mut queue = RawQueue::on(&redis);
    let mut command = Producer::command(&queue, &["results", "--follow", "--format", "urls", "--reader", "export"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let reading = BufReader::new(child.stdout.take().unwrap());
    // Read beside the test, which does not wait for ever for a line that never comes.
    let (sender, lines) = channel();
    std::thread::spawn(move || reading.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
    let add = |queue: &mut RawQueue, url: &str| {
        queue.run::<String>(&["XADD", "@results", "*", "url", url, "outcome", "stored"]);
    };
    let passed_on = |url: &str| assert_eq!(lines.recv_timeout(SOON).as_deref(), Ok(url));
    for round in 0..4 {
        for n in 0..3 {
            let url = format!("https://x.org/{round}/{n}.jpg");
            add(&mut queue, &url);
            passed_on(&url);
        }
        if round == 0 {
            // Given to the reader in an answer that never arrived, as it were, unless it was quicker: then it was passed on already.
            let given = ["XREADGROUP", "GROUP", "export", "producer", "COUNT", "1", "STREAMS", "@results", ">"];
            add(&mut queue, "https://x.org/given.jpg");
            queue.run::<redis::Value>(&given);
        }
        match round {
            0 => redis.stop(),
            1 => queue.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]),
            2 => redis.kill(),
            _ => {}
        }
        if matches!(round, 0 | 2) {
            redis.start_again();
            queue.reconnect(&redis);
        }
        if round == 0 {
            passed_on("https://x.org/given.jpg");
        }
    }
    until("all are taken", SOON, || {
        let pending: (u64, redis::Value, redis::Value, redis::Value) = queue.run(&["XPENDING", "@results", "export"]);
        (pending.0 == 0).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lines.recv().is_err(), "none was passed on twice");
}

/// Nobody is asked there: the address guard of a worker does not let it.
const LINK: &str = "http://10.0.0.1/1.jpg";

#[test]
fn a_redis_that_is_a_replica_or_busy_is_named_as_that() {
    let redis = Redis::private(&["--busy-reply-threshold", "100"]);
    let mut queue = RawQueue::on(&redis);
    let other_database = format!("{}?db=1", queue.url);
    queue.run::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    let refused = Producer::run(&queue, &["enqueue", LINK]);
    assert!(refused.code == 1 && refused.stderr.contains("is a replica"), "{refused:?}");
    assert!(refused.stderr.contains("hint: name the master"), "{refused:?}");
    // Reading is possible there.
    succeeds(&queue, &["status"]);
    queue.run::<()>(&["REPLICAOF", "NO", "ONE"]);
    succeeds(&queue, &["enqueue", LINK]);

    let mut busy = redis.connect();
    let busy = std::thread::spawn(move || {
        let _: redis::RedisResult<redis::Value> = redis::cmd("EVAL").arg("while true do end").arg(0).query(&mut busy);
    });
    let mut raw = redis.connect();
    until("it is busy", SOON, || {
        let answer: redis::RedisResult<redis::Value> = redis::cmd("DBSIZE").query(&mut raw);
        answer.is_err_and(|error| error.code() == Some("BUSY")).then_some(())
    });
    let status = Producer::run(&queue, &["status"]);
    assert!(status.code == 1 && status.stderr.contains("is busy with a script"), "{status:?}");
    assert!(status.stderr.contains("SCRIPT KILL"), "{status:?}");
    let mut command = Producer::command(&queue, &["status"]);
    let status = finish(std::mem::replace(command.env("REDIS_URL", other_database), Command::new("true")), b"", SOON);
    assert!(status.code == 1 && status.stderr.contains("is busy with a script"), "{status:?}");
    let mut command = Producer::command(&queue, &["wait", "--timeout", "2m"]);
    command.stdout(Stdio::null());
    let mut wait = Beside::start("wait", command);
    wait.until_it_says("is busy with a script");
    wait.still_runs();
    redis::cmd("SCRIPT").arg("KILL").query::<()>(&mut raw).unwrap();
    busy.join().unwrap();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &["--max-attempts", "1", "--connect-timeout", "1s"]);
    assert_eq!(wait.until_end(), Some(3), "{}", wait.said());
}

/// What was done while Redis takes no writes is told once it does: nothing is refused for good, and nobody ends.
#[test]
fn a_redis_that_cannot_save_or_misses_its_replicas_is_waited_for() {
    let redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    // A folder where its file is to be: saving fails.
    let in_its_way = redis.socket().with_file_name("dump.rdb");
    let save = |queue: &mut RawQueue, expected: &str| {
        queue.run::<redis::Value>(&["BGSAVE"]);
        until("it has tried to save", SOON, || {
            let info: String = queue.run(&["INFO", "persistence"]);
            let says = |line: &str| info.lines().any(|said| said == line);
            let is_over = says("rdb_bgsave_in_progress:0") && says(&format!("rdb_last_bgsave_status:{expected}"));
            is_over.then_some(())
        });
    };
    queue.run::<()>(&["CONFIG", "SET", "save", "3600 1"]);
    let mut worker = Beside::start("worker", Worker::command(&queue, storage.path()));
    for (n, (words, hint)) in [
        ("cannot save to its disk", "hint: make room on the server's disk"),
        ("too few replicas are connected", "hint: start its replicas"),
    ]
    .into_iter()
    .enumerate()
    {
        origin.hold();
        let link = origin.url(&format!("{n}/4000.gif"));
        let batch = succeeds(&queue, &["enqueue", "--json", &link]).json()["batch"].as_str().unwrap().to_owned();
        until("it is being downloaded", SOON, || (origin.requests_in_all() > n).then_some(()));
        if n == 0 {
            std::fs::create_dir(&in_its_way).unwrap();
            save(&mut queue, "err");
        } else {
            queue.run::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
        }
        let mut command = Producer::command(&queue, &["wait", &batch, "--timeout", "2m"]);
        command.stdout(Stdio::null());
        let mut wait = Beside::start("wait", command);
        origin.let_go();
        worker.until_it_says(words);
        for arguments in [&["status"][..], &["workers"], &["batches"], &["dead", "list"], &["results"]] {
            succeeds(&queue, arguments);
        }
        let refused = Producer::run(&queue, &["enqueue", LINK]);
        assert!(refused.code == 1 && refused.stderr.contains(words), "{refused:?}");
        assert!(refused.stderr.contains(hint), "{refused:?}");
        assert_eq!((queue.ready_len(), queue.results_len()), (0, n), "nothing was written meanwhile");
        wait.still_runs();
        worker.still_runs();

        if n == 0 {
            std::fs::remove_dir(&in_its_way).unwrap();
            save(&mut queue, "ok");
        } else {
            queue.run::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
        }
        let results = queue.until_results(n + 1, SOON);
        assert_eq!((results[n]["url"].as_str(), results[n]["outcome"].as_str()), (link.as_str(), "stored"));
        assert_eq!(results[n]["attempts"], "1");
        assert_eq!(wait.until_end(), Some(0), "{}", wait.said());
    }
    // It was neither asked for twice, nor were there two workers.
    assert_eq!((origin.requests_in_all(), queue.workers().len()), (2, 1));
}

#[test]
fn patience_counts_from_when_redis_was_lost_and_not_from_when_room_was_waited_for() {
    let mut redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    let links: Vec<String> = (0..6).map(|n| origin.url(&format!("{n}/300.gif"))).collect();
    let arguments =
        [&["enqueue", "--max-ready", "2"], &links.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat();
    let mut command = Producer::command(&queue, &arguments);
    command.stdout(Stdio::null());
    let mut enqueue = Beside::start("enqueue", command);
    enqueue.until_it_says("--max-ready is 2");
    // Longer than it waits for a Redis that is away.
    let waits_since = Instant::now();
    while waits_since.elapsed() < Duration::from_secs(32) {
        std::thread::sleep(Duration::from_millis(500));
        enqueue.still_runs();
    }
    redis.stop();
    enqueue.until_it_says("trying again");
    redis.start_again();
    queue.reconnect(&redis);
    let _worker = Worker::start(&queue, storage.path(), &[]);
    assert_eq!(enqueue.until_end(), Some(0), "{}", enqueue.said());
    queue.until_results(6, SOON);
}

#[test]
fn one_that_survives_recovers_many_without_a_rest() {
    const DEAD: usize = 500;
    let mut queue = RawQueue::shared();
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    let _worker = Worker::start(&queue, storage.path(), &[]);
    queue.until_workers(1);
    // It has beaten at least once, so that Redis is known to have been there.
    until("it beats", SOON, || queue.hash("meta").get("tick").map(drop));
    let (seconds, _): (u64, u64) = queue.run(&["TIME"]);
    let urls: Vec<String> = (0..DEAD).map(|n| origin.url(&format!("{n}/300.gif"))).collect();
    for (n, url) in urls.iter().enumerate() {
        let job = format!(r#"{{"id":"0000000000ab8000800000000000{n:04x}","url":"{url}"}}"#);
        queue.run::<i64>(&["HSET", &format!("@inflight:dead-{n}"), "1.1", &job]);
    }
    let leases: Vec<String> =
        (0..DEAD).flat_map(|n| [format!("{}", (seconds - 1) * 1000), format!("dead-{n}")]).collect();
    let add: Vec<&str> = ["ZADD", "@workers"].into_iter().chain(leases.iter().map(String::as_str)).collect();
    queue.run::<i64>(&add);
    let died = Instant::now();
    // Eight with each heartbeat, as it was once, took a minute. It takes a second; a machine that stands still for three gives everybody
    // a lease more.
    let results = queue.until_results(DEAD, Duration::from_secs(20));
    eprintln!("jobs of {DEAD} dead workers were done by one after {:?}", died.elapsed());
    let done: BTreeSet<&String> = results.iter().map(|result| &result["url"]).collect();
    assert_eq!(done, urls.iter().collect());
    assert_eq!(queue.workers().len(), 1);
}

/// What the documents say, word by word.
const LEAST: &str = "~imgq:* +@read +@write +@scripting +@connection +info +time";

/// All that people do with a queue, as a user with these rights. What was refused, or nothing.
fn refused_with(redis: &Redis, rights: &[&str], patience: &str) -> Option<String> {
    let mut queue = RawQueue::on(redis);
    let (origin, storage) = (Origin::start(), tempfile::tempdir().unwrap());
    let rules = [&["ACL", "SETUSER", "few", "reset", "on", ">word"], rights].concat();
    queue.run::<()>(&rules);
    let socket = queue.url.strip_prefix("unix://").unwrap().to_owned();
    // Another database than the first one has to be selected.
    queue.url = format!("unix://{socket}?user=few&pass=word&db=1");
    let mut worker = Worker::command(&queue, storage.path());
    worker.args(["--max-attempts", "1", "--results-max", "1000"]);
    let mut worker = Beside::start("worker", worker);
    let links = [origin.url("1/300.gif"), origin.url("status/500")];
    let [good, bad] = links.each_ref().map(String::as_str);
    for arguments in [
        &["enqueue", good, bad][..],
        &["wait", "--timeout", patience],
        &["status"],
        &["workers"],
        &["batches"],
        &["results", "--reader", "export"],
        &["results", "--list-readers"],
        &["dead", "list"],
        &["pause"],
        &["resume"],
        &["dead", "retry"],
        &["purge", "--yes"],
        &["forget", good],
    ] {
        let finished = Producer::run(&queue, arguments);
        let is_well = finished.code == 0 || (finished.code == 3 && arguments[0] == "wait");
        if !is_well || worker.child.try_wait().unwrap().is_some() || worker.said().contains("NOPERM") {
            return Some(format!("{arguments:?}: {finished:?}; the worker: {}", worker.said()));
        }
    }
    None
}

#[test]
fn the_least_that_redis_has_to_allow_is_enough_and_the_least() {
    let redis = Redis::private(&["--appendfsync", "always"]);
    let text = |name: &str| std::fs::read_to_string(format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert!(text("docs/reliability.md").contains(LEAST), "the documents say something else");
    let words: Vec<&str> = LEAST.split(' ').collect();
    assert_eq!(refused_with(&redis, &words, "60s"), None);
    for (n, word) in words.iter().enumerate() {
        let others: Vec<&str> = words.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, word)| *word).collect();
        let mut raw = RawQueue::on(&redis);
        raw.run::<()>(&["FLUSHALL"]);
        assert!(refused_with(&redis, &others, "5s").is_some(), "{word} is not needed");
    }
    // What `--durable` asks for beside that, where Redis has no WAITAOF.
    let mut queue = RawQueue::on(&redis);
    let rules = [&["ACL", "SETUSER", "few", "reset", "on", ">word", "+config|get"], &words[..]].concat();
    queue.run::<()>(&rules);
    let socket = queue.url.clone();
    queue.url = format!("{socket}?user=few&pass=word");
    succeeds(&queue, &["enqueue", "--durable", "https://x.org/1.jpg"]);
    // And the hint is the same.
    let mut queue = RawQueue::on(&redis);
    queue.run::<()>(&["ACL", "SETUSER", "none", "reset", "on", ">word", "~imgq:*"]);
    let socket = queue.url.clone();
    queue.url = format!("{socket}?user=none&pass=word");
    let refused = finish(Producer::command(&queue, &["status"]), b"", SOON);
    assert!(refused.code == 1 && refused.stderr.contains(LEAST), "{refused:?}");
}
