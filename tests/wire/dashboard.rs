//! The dashboard without a browser: what its pages say, what its buttons do, and what it costs Redis.

use harness::scrape::{Form, Scrape};
use harness::{Dashboard, Origin, Producer, RawQueue, Redis, Worker, allowed, until};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
const HOSTILE: [&str; 5] = [
    "https://x.org/<script>alert(1)</script>",
    "https://x.org/\"><img src=x onerror=alert(1)>",
    "javascript:alert(document.domain)",
    "https://x.org/\u{1b}]0;owned\u{7}\u{1b}[2J",
    "https://x.org/\u{202e}gpj.exe",
];

pub(crate) fn dead(queue: &mut RawQueue, id: &str, url: &str, reason: &str) -> String {
    let job = serde_json::json!({ "id": format!("{id:0>32}"), "url": url }).to_string();
    let id = format!("{id:0>32}");
    queue.run(&["XADD", "@dead", "*", "id", &id, "url", url, "reason", reason, "attempts", "5", "job", &job])
}

fn stored(queue: &mut RawQueue, url: &str, key: &str, media_type: &str) -> String {
    let id = format!("{:032x}", fastrand::u128(..));
    let fields = ["id", &id, "url", url, "outcome", "stored", "key", key, "bytes", "700", "type", media_type];
    queue.run(&[&["XADD", "@results", "*"], &fields[..]].concat())
}

#[test]
fn the_overview_tells_the_facts() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let worker = Worker::start(&queue, storage.path(), &["--max-attempts", "1"]);
    let links = [origin.url("picture/whole.jpg"), origin.url("status/404"), origin.url("status/500")];
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    let enqueued = Producer::run(&queue, &[&["enqueue", "--json"], &links[..]].concat()).json();
    let batch = enqueued["batch"].as_str().unwrap().to_owned();
    queue.until_results(3, SOON);
    let dashboard = Dashboard::start(&queue, storage.path(), &[]);
    let page = dashboard.get("/");
    let text = page.text();
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{text}");
    let worker = worker.pid().to_string();
    for fact in
        [&queue.name, &batch, &worker, "gone", "http_5xx", "status/500", "1 attempt", "finished", "Pause", "1 alive"]
    {
        assert!(text.contains(fact), "{fact} is not in {text}");
    }
    let row = queue.results().into_iter().find(|row| row["outcome"] == "stored").unwrap();
    let thumbnail = dashboard.get(&format!("/thumb/{}", row["entry"]));
    assert!(text.contains(&format!("/thumb/{}", row["entry"])) && thumbnail.status == 200, "{thumbnail:?}");
    assert_eq!(image::load_from_memory(&thumbnail.bytes).unwrap().width(), 64);
    let of_batch = dashboard.get(&format!("/batch/{batch}")).text();
    assert!(
        of_batch.contains("of 3, 100 %") && of_batch.contains("gone") && of_batch.contains(&origin.host()),
        "{of_batch}"
    );
    assert_eq!(dashboard.get("/batch/0123456789ab").status, 404);
    assert_eq!(dashboard.get("/nothing").status, 404);
    let results = dashboard.get("/results?outcome=rejected").text();
    assert!(results.contains("status/404") && !results.contains("whole.jpg"), "{results}");
    let letters = dashboard.get("/dead?reason=http_5xx").text();
    assert!(letters.contains("status/500") && letters.contains("Retry all http_5xx"), "{letters}");
    assert!(!dashboard.get("/dead?reason=dns").text().contains("status/500"));
    for (path, empty) in [("/?range=8d", false), ("/results?before=x", false), ("/dead?before=0-1", true)] {
        let page = dashboard.get(path);
        assert!(page.status == 200 && page.text().contains("None among the 0") == empty, "{path}");
    }
}

/// Purged jobs are among those that are done, once, wherever a batch is shown.
#[test]
fn a_batch_of_which_half_was_purged_is_half_done_everywhere() {
    let mut queue = RawQueue::shared();
    let links = [1, 2, 3, 4].map(|n| format!("https://x.org/{n}.jpg"));
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    let enqueued = Producer::run(&queue, &[&["enqueue", "--json"], &links[..]].concat()).json();
    let batch = enqueued["batch"].as_str().unwrap().to_owned();
    let kept: Vec<String> = queue.run(&["LPOP", "@ready", "2"]);
    assert_eq!(Producer::run(&queue, &["purge", "--yes", "--json"]).json()["purged"], 2);
    for job in &kept {
        queue.push(job);
    }
    let dashboard = Dashboard::start(&queue, Path::new("."), &[]);
    let overview = dashboard.get("/").text();
    assert!(overview.contains("2 of 4 done") && overview.contains("in progress"), "{overview}");
    assert!(overview.contains("<progress max=\"4\" value=\"2\""), "{overview}");
    let page = dashboard.get(&format!("/batch/{batch}")).text();
    assert!(page.contains("of 4, 50 %") && page.contains("2 were purged"), "{page}");
    let listed = Producer::run(&queue, &["batches"]).stdout;
    assert!(listed.contains(" 50%") && listed.contains("in progress"), "{listed}");
    let waited = Producer::run(&queue, &["wait", &batch, "--timeout", "1s"]);
    assert!(waited.code == 4 && waited.stderr.contains("2/4 done"), "{waited:?}");
    assert!(waited.stderr.contains("2 not stored") && waited.stderr.contains("2 of 4 jobs done"), "{waited:?}");
}

/// A batch that is still being enqueued is called the same in a browser and on a terminal.
#[test]
fn the_stage_of_a_batch_is_one_word_everywhere() {
    let mut queue = RawQueue::shared();
    let enqueued = Producer::run(&queue, &["enqueue", "--json", "https://x.org/1.jpg"]).json();
    let batch = enqueued["batch"].as_str().unwrap().to_owned();
    queue.run::<()>(&["HDEL", &format!("@batch:{batch}"), "sealed"]);
    let dashboard = Dashboard::start(&queue, Path::new("."), &[]);
    let texts = [
        dashboard.get("/").text(),
        dashboard.get(&format!("/batch/{batch}")).text(),
        Producer::run(&queue, &["batches"]).stdout,
        Producer::run(&queue, &["status", &batch]).stdout,
    ];
    for text in &texts {
        assert!(text.contains("enqueueing"), "{text}");
    }
}

#[test]
fn results_and_dead_letters_are_read_page_by_page() {
    let mut queue = RawQueue::shared();
    for n in 0..120 {
        stored(&mut queue, &format!("https://x.org/number-{n}.jpg"), "", "jpeg");
        dead(&mut queue, &format!("{n:x}"), &format!("https://x.org/number-{n}.jpg"), "dns");
    }
    let dashboard = Dashboard::start(&queue, Path::new("/nowhere"), &[]);
    for (path, at) in [
        ("/results", "results"),
        ("/dead", "dead"),
        ("/results?outcome=stored", "results"),
        ("/dead?reason=dns", "dead"),
    ] {
        let mut next = path.to_owned();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let text = dashboard.get(&next).text();
            let shown = text.split("href=\"https://x.org/number-").skip(1);
            seen.extend(shown.map(|rest| rest.split('.').next().unwrap().parse::<u32>().unwrap()));
            let older = text.split(&format!("href=\"/{at}?")).find(|part| part.contains("rel=\"next\""));
            let Some(older) = older else { break };
            next = format!("/{at}?{}", older.split('"').next().unwrap().replace("&amp;", "&"));
        }
        assert_eq!(seen, (0..120).rev().collect::<Vec<_>>(), "{path}");
    }
    assert!(dashboard.get("/").text().contains("there is no folder /nowhere"));
}

#[test]
fn strangers_links_are_text() {
    let mut queue = RawQueue::shared();
    for (n, url) in HOSTILE.into_iter().enumerate() {
        dead(&mut queue, &format!("{n:x}"), url, "dns");
        stored(&mut queue, url, url, "jpeg");
    }
    queue.run::<()>(&["HSET", "@stats", "failed", "1", "failed:<b>bold", "1"]);
    let dashboard = Dashboard::start(&queue, Path::new("."), &[]);
    for path in ["/", "/dead", "/results", "/results?reason=%3Cscript%3E&outcome=%22%3E%3Cimg"] {
        let text = dashboard.get(path).text();
        assert!(
            !text.contains("<script>alert") && !text.contains("<img src=x") && !text.contains("<b>bold"),
            "{path}: {text}"
        );
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{path}: {text}");
        assert!(!text.contains("href=\"javascript"), "{path}: {text}");
        for link in text.split("<a ").filter(|link| link.contains("href=\"http")) {
            assert!(link.contains("rel=\"noreferrer noopener nofollow\""), "{path}: {link}");
        }
    }
    let letters = dashboard.get("/dead").text();
    assert!(
        letters.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && letters.contains("\\u{202e}gpj.exe"),
        "{letters}"
    );
}

#[test]
fn a_first_look_is_small_and_asks_nobody_else() {
    let mut queue = RawQueue::shared();
    // Everything there can be: full charts, workers, batches, dead letters with long links.
    let (seconds, _) = queue.run::<(u64, u64)>(&["TIME"]);
    for n in 0..720_u64 {
        let line = format!("{} {} 30 4 {} {n} 7 1000", (seconds - 7200 + n * 10) * 1000, 9000 - n, n * 400 + n % 7);
        queue.run::<()>(&["RPUSH", "@history:10s", &line]);
    }
    for n in 0..60_u32 {
        let worker = format!("worker-{n}");
        queue.run::<()>(&["ZADD", "@workers", &format!("{}", (seconds + 600) * 1000), &worker]);
        let hosts = r#"[["a.example.org",1.5,2,0.1],["another.example.org:8080",3,4,0]]"#;
        queue.run::<()>(&[
            "HSET",
            &format!("@worker:{worker}"),
            "host",
            "machine.example.org",
            "rate",
            "12.5",
            "hosts",
            hosts,
        ]);
        let url = format!("https://images.example.org/{}/{n}.jpg", "long/".repeat(60));
        dead(&mut queue, &format!("{n:x}"), &url, "timeout_total");
        stored(&mut queue, &url, &format!("images.example.org/{n}.jpg"), "jpeg");
    }
    let dashboard = Dashboard::start(&queue, Path::new("."), &[]);
    let page = dashboard.get("/");
    let text = page.text();
    let mut size = page.bytes.len();
    let parts: Vec<&str> =
        text.split(['"']).filter(|part| part.starts_with("/app.") || part.starts_with("/icon.")).collect();
    assert_eq!(parts.len(), 3, "{parts:?}");
    for part in parts {
        let answer = dashboard.get(part);
        assert!(answer.status == 200 && answer.header("cache-control").contains("immutable"), "{part}");
        size += answer.bytes.len();
    }
    assert!(size < 100_000, "{size} bytes");
    for attribute in ["src=\"", "action=\"", "<link rel=\"stylesheet\" href=\""] {
        for value in text.split(attribute).skip(1) {
            assert!(value.starts_with('/') && !value.starts_with("//"), "{attribute}{}", &value[..40]);
        }
    }
    println!("a first look: {size} bytes");
}

#[test]
fn buttons_do_what_they_say() {
    let mut queue = RawQueue::shared();
    let entries: Vec<String> = (0..6)
        .map(|n| {
            dead(&mut queue, &format!("{n:x}"), &format!("https://x.org/{n}.jpg"), if n < 2 { "tls" } else { "dns" })
        })
        .collect();
    let dashboard = Dashboard::start(&queue, Path::new("."), &[]);
    let paused = dashboard.post("/pause", &[]);
    assert_eq!((paused.status, paused.header("location")), (303, "/?did=pause&n=1"));
    assert_eq!(queue.hash("meta")["paused"], "1");
    let page = dashboard.get(paused.header("location")).text();
    assert!(page.contains("nothing more is claimed") && page.contains("Resume"), "{page}");
    assert_eq!(dashboard.post("/resume", &[]).status, 303);
    assert!(!queue.hash("meta").contains_key("paused"));
    let retried = dashboard.post("/dead/retry", &[("entry", &entries[0])]);
    assert_eq!(retried.header("location"), "/?did=retry&n=1#dead");
    assert!(queue.ready().len() == 1 && queue.ready()[0].contains("https://x.org/0.jpg"));
    // A second press of the same button finds nothing.
    assert_eq!(dashboard.post("/dead/retry", &[("entry", &entries[0])]).header("location"), "/?did=retry&n=0#dead");
    let dropped = dashboard.post("/dead/drop", &[("entry", &entries[1]), ("back", "dead")]);
    assert_eq!(dropped.header("location"), "/dead?did=drop&n=1");
    assert!(dashboard.get("/dead?did=drop&n=1").text().contains("1 job is dropped"));
    assert_eq!((queue.run::<u64>(&["XLEN", "@dead"]), queue.ready_len()), (4, 1));
    // What goes back is one of two pages.
    let elsewhere = dashboard.post("/dead/retry-reason", &[("reason", "dns"), ("back", "https://evil.example")]);
    assert_eq!(elsewhere.header("location"), "/?did=retry&n=4#dead");
    assert_eq!((queue.run::<u64>(&["XLEN", "@dead"]), queue.ready_len()), (0, 5));
    for entry in ["", "x", "0-0", "(1-0"] {
        assert_eq!(
            dashboard.post("/dead/drop", &[("entry", entry)]).header("location"),
            "/?did=drop&n=0#dead",
            "{entry}"
        );
    }
}

#[test]
fn it_ends_when_it_is_told_to() {
    let queue = RawQueue::shared();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut dashboard = Dashboard::start(&queue, Path::new("."), &[]);
        let _viewer = dashboard.watch("");
        assert_eq!(dashboard.get("/").status, 200);
        dashboard.signal(signal);
        assert_eq!(dashboard.until_end(Duration::from_secs(5)).code(), Some(0));
    }
}

#[test]
fn thumbnails_are_of_regular_pictures_below_the_storage_only() {
    let outer = tempfile::tempdir().unwrap();
    let storage = outer.path().join("images");
    std::fs::create_dir_all(storage.join("x.org")).unwrap();
    let picture = |name: &str| harness::origin::picture(name).unwrap();
    std::fs::write(outer.path().join("secret.png"), picture("whole.png")).unwrap();
    for name in ["whole.png", "half.webp", "bomb.png"] {
        std::fs::write(storage.join("x.org").join(name), picture(name)).unwrap();
    }
    std::fs::write(storage.join("x.org/text.jpg"), "<script>alert(1)</script>").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", storage.join("x.org/passwd.png")).unwrap();
    std::os::unix::fs::symlink(outer.path(), storage.join("out")).unwrap();
    let fifo = storage.join("x.org/fifo.png");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut queue = RawQueue::shared();
    let dashboard = Dashboard::start(&queue, &storage, &[]);
    let secret = outer.path().join("secret.png");
    let cases = [
        ("x.org/whole.png", 200),
        ("../../etc/passwd", 404),
        ("../secret.png", 404),
        ("x.org/../../secret.png", 404),
        (secret.to_str().unwrap(), 404),
        ("/etc/passwd", 404),
        ("out/secret.png", 404),
        ("x.org/passwd.png", 404),
        ("x.org/fifo.png", 404),
        ("x.org", 404),
        ("x.org/none.png", 404),
        ("x.org/text.jpg", 415),
        ("x.org/half.webp", 415),
        ("x.org/bomb.png", 413),
    ];
    let rss_before = resident_kb(dashboard.pid());
    for (key, status) in cases {
        let entry = stored(&mut queue, "https://x.org/a.png", key, "png");
        let answer = dashboard.get(&format!("/thumb/{entry}"));
        assert_eq!(answer.status, status, "{key}");
        let media_type = if status == 200 { "image/jpeg" } else { "image/svg+xml" };
        assert_eq!(answer.header("content-type"), media_type, "{key}");
        assert!(!answer.text().contains("root:") && !answer.text().contains("<script"), "{key}");
    }
    for entry in ["1-1", "x", "..%2f..%2fetc%2fpasswd", "99999999999999999999-0"] {
        assert_eq!(dashboard.get(&format!("/thumb/{entry}")).status, 404, "{entry}");
    }
    // 65,535 by 65,535 pixels were 17 GB.
    let grown = resident_kb(dashboard.pid()).saturating_sub(rss_before);
    assert!(grown < 100_000, "{grown} KB more");
}

fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn metrics_are_those_of_the_status() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &["--max-attempts", "1"]);
    let links = [origin.url("1/500.gif"), origin.url("status/404"), origin.url("status/500")];
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    Producer::run(&queue, &[&["enqueue"], &links[..]].concat());
    queue.until_results(3, SOON);
    Producer::run(&queue, &["pause"]);
    Producer::run(&queue, &["enqueue", &origin.url("2/500.gif")]);
    queue.run::<()>(&["HINCRBY", "@stats", "failed", "2"]);
    let dashboard = Dashboard::start(&queue, storage.path(), &[]);
    let older = dashboard.get("/metrics");
    assert_eq!(older.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let newer = dashboard.request("GET", "/metrics", &[("Accept", "application/openmetrics-text")], "");
    assert_eq!(newer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    Scrape::read(&newer.text(), Form::OpenMetrics);
    let scrape = Scrape::read(&older.text(), Form::Prometheus);
    let name = queue.name.clone();
    let value =
        |metric: &str, labels: &[(&str, &str)]| scrape.value(metric, &[&[("queue", name.as_str())], labels].concat());
    let jobs = |state: &str| value("imgq_queue_jobs", &[("state", state)]);
    assert_eq!(["ready", "in_flight", "delayed", "dead"].map(jobs), [1.0, 0.0, 0.0, 1.0]);
    let results =
        |outcome: &str, reason: &str| value("imgq_queue_results_total", &[("outcome", outcome), ("reason", reason)]);
    assert_eq!((results("stored", ""), results("rejected", "gone"), results("failed", "http_5xx")), (1.0, 1.0, 1.0));
    assert_eq!((results("failed", "other"), results("failed", "dns"), results("stored", "exists")), (2.0, 0.0, 0.0));
    for (metric, expected) in [
        ("imgq_queue_stored_bytes_total", 500.0),
        ("imgq_queue_results_kept", 3.0),
        ("imgq_queue_workers", 1.0),
        ("imgq_queue_paused", 1.0),
        ("imgq_queue_hosts_held", 0.0),
        ("imgq_queue_up", 1.0),
    ] {
        assert_eq!(value(metric, &[]), expected, "{metric}");
    }
    assert!(value("imgq_queue_oldest_job_age_seconds", &[]) >= 0.0);
    // The docs name all of them and no other, without the label that each has.
    let without_queue = |name: &str| scrape.labels(name).into_iter().filter(|label| label != "queue").collect();
    let served: BTreeMap<String, (String, BTreeSet<String>)> = scrape
        .families
        .iter()
        .map(|(name, family)| (name.clone(), (family.kind.clone(), without_queue(name))))
        .collect();
    let documented = crate::metrics::table().into_iter().filter(|(name, _)| name.starts_with("imgq_queue_")).collect();
    assert_eq!(served, documented);
    checked_by_promtool(&older.text());
}

/// `promtool check metrics`, where there is one; the strict reader was before it.
fn checked_by_promtool(page: &str) {
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = started else { return };
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn without_redis_it_says_so_and_comes_back() {
    let mut redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    queue.run::<()>(&["HSET", "@stats", "stored", "7"]);
    let dashboard = Dashboard::start(&queue, Path::new("."), &[]);
    assert_eq!((dashboard.get("/readyz").status, dashboard.get("/healthz").status), (200, 200));
    let mut viewer = dashboard.watch("");
    redis.stop();
    until("it is not ready", SOON, || (dashboard.get("/readyz").status == 503).then_some(()));
    let ready = dashboard.get("/readyz").text();
    assert!(ready.contains("no answer from Redis"), "{ready}");
    assert_eq!(dashboard.get("/healthz").status, 200);
    // A page may show for a moment what was seen just before.
    let page = until("a page says so", SOON, || Some(dashboard.get("/")).filter(|page| page.status == 503));
    assert!(page.text().contains("no answer from Redis"), "{page:?}");
    let metrics = dashboard.get("/metrics");
    let scrape = Scrape::read(&metrics.text(), Form::Prometheus);
    assert!(metrics.status == 200 && scrape.families.len() == 1 && scrape.sum("imgq_queue_up") == 0.0, "{metrics:?}");
    checked_by_promtool(&metrics.text());
    // Those who look are told as well, and keep what they saw.
    let seen = read_until(&mut viewer, "no answer from Redis");
    assert!(seen.contains("data: alert"), "{seen}");
    redis.start_again();
    until("it is ready again", SOON, || (dashboard.get("/readyz").status == 200).then_some(()));
    read_until(&mut viewer, "data: alert\ndata: \n");
}

#[test]
fn a_password_is_never_shown() {
    let mut redis = Redis::private(&["--requirepass", "hunter2"]);
    let url = format!("{}?pass=hunter2", redis.url());
    let mut command = Producer::command_at(&url, "q", &["dashboard", "--listen", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let address = line.trim().split_once("http://").unwrap().1.trim_end_matches('/').to_owned();
    redis.stop();
    let request = |path: &str| {
        harness::scrape::try_request(
            &address,
            &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
        )
        .unwrap()
    };
    until("it is not ready", SOON, || (request("/readyz").status == 503).then_some(()));
    for path in ["/", "/readyz", "/metrics", "/dead", "/results", "/batch/0123456789ab"] {
        let answer = request(path);
        assert!(!answer.body.contains("hunter2"), "{path}: {answer:?}");
    }
    let _ = child.kill();
    let _ = child.wait();
}

pub(crate) fn read_until(stream: &mut TcpStream, words: &str) -> String {
    let mut seen = String::new();
    let mut part = [0; 65_536];
    let began = Instant::now();
    while !seen.contains(words) {
        assert!(began.elapsed() < allowed(SOON), "{words:?} was not said: {seen}");
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "the stream ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    seen
}

#[test]
fn viewers_are_sent_what_changed() {
    let mut queue = RawQueue::shared();
    let dashboard = Dashboard::start(&queue, Path::new("."), &[]);
    let mut viewer = dashboard.watch("");
    let first = read_until(&mut viewer, "event: tick");
    assert!(first.contains("content-type: text/event-stream") && first.contains("data: numbers"), "{first}");
    assert!(first.contains("data: charts-2h") && !first.contains("charts-8d"), "{first}");
    queue.push("https://x.org/1.jpg");
    let second = read_until(&mut viewer, "data: numbers");
    // What is as it was is not sent again.
    assert!(!second.contains("data: workers") && !second.contains("data: dead"), "{second}");
    let third = read_until(&mut viewer, "event: tick");
    assert!(!third.contains("data: pictures"), "{third}");
}

#[test]
fn however_many_look_redis_is_asked_once_a_second() {
    let redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    queue.run::<()>(&["CONFIG", "SET", "appendonly", "no"]);
    // A million results.
    let script = "for n = 1, 50000 do redis.call('XADD', KEYS[1], '*', 'id', n, 'url', 'https://x.org/1.jpg', 'outcome', \
                  'stored', 'key', 'x.org/' .. n .. '.jpg', 'type', 'jpeg') end";
    for _ in 0..20 {
        queue.run::<()>(&["EVAL", script, "1", "@results"]);
    }
    assert_eq!(queue.results_len(), 1_000_000);
    let dashboard = Dashboard::start(&queue, Path::new("."), &[]);
    let calls = |queue: &mut RawQueue| -> (u64, u64) {
        let info: String = queue.run(&["INFO", "commandstats"]);
        let of = |line: &str, name: &str| -> u64 {
            let value = line.split([',', ':']).find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            value.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        let lines = info.lines().filter(|line| line.starts_with("cmdstat_") && !line.starts_with("cmdstat_info"));
        lines.fold((0, 0), |(calls, micros), line| (calls + of(line, "calls"), micros + of(line, "usec")))
    };
    // Nobody looks: nothing is asked.
    let before = calls(&mut queue);
    let quiet = Instant::now();
    until("two seconds have passed", SOON, || (quiet.elapsed() > Duration::from_secs(2)).then_some(()));
    assert_eq!(calls(&mut queue).0, before.0, "nobody looks");
    let mut viewers: Vec<TcpStream> = (0..20).map(|_| dashboard.watch("")).collect();
    for viewer in &mut viewers {
        read_until(viewer, "event: tick");
    }
    let (before, began) = (calls(&mut queue), Instant::now());
    for _ in 0..5 {
        for viewer in &mut viewers {
            read_until(viewer, "event: tick");
        }
        for _ in 0..10 {
            assert_eq!((dashboard.get("/").status, dashboard.get("/metrics").status), (200, 200));
        }
    }
    let (after, seconds) = (calls(&mut queue), began.elapsed().as_secs_f64());
    let a_second = (after.0 - before.0) as f64 / seconds;
    let micros = (after.1 - before.1) as f64 / seconds;
    println!("{a_second:.1} commands and {micros:.0} µs of Redis a second, with 20 viewers");
    assert!(a_second < 60.0, "{a_second} commands a second");
    assert!(micros < 20_000.0, "{micros} µs of Redis a second");
    // More than so many viewers are refused, politely.
    let mut more: Vec<TcpStream> = (0..60).map(|_| dashboard.watch("Connection: close\r\n")).collect();
    let refused = more.iter_mut().filter_map(|viewer| {
        let mut head = [0; 12];
        viewer.read_exact(&mut head).ok()?;
        Some(head.ends_with(b"503"))
    });
    assert_eq!(refused.filter(|refused| *refused).count(), 16);
}
