//! What a worker tells about itself over HTTP: numbers that are those of the results, and whether it is well.

use harness::programs::finish;
use harness::scrape::{Form, get, try_request};
use harness::{MeteredWorker, Origin, Producer, RawQueue, Redis, Scrape, Worker, allowed, until};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

/// Waits until the worker holds nothing any more, and scrapes then: a settlement is counted just after Redis took it.
fn at_rest(worker: &MeteredWorker) -> Scrape {
    until("the worker is at rest", SOON, || {
        let scrape = worker.scrape();
        (scrape.value("imgq_jobs_in_flight", &[]) == 0.0).then_some(scrape)
    })
}

#[test]
fn the_numbers_are_those_of_the_results() {
    let origin = Origin::start();
    // A host of its own: it is left alone for a while, with everything that waits for it.
    let refusing = Origin::start_on("127.0.0.2:0");
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let paths = [
        "1/300.gif",
        "2/90000.gif",
        "no-type",
        "redirect/3/300.gif",
        "flaky/2/x.gif",
        "status/404",
        "status/418",
        "status/299",
        "removed/x.jpg",
        "html",
        "4/3000000.gif",
        "announced-large",
        "loop",
        "to-metadata",
        "status/500",
        "truncated",
        "endless",
    ];
    let mut urls: Vec<String> = paths.iter().map(|path| origin.url(path)).collect();
    urls.extend(
        ["http://10.1.2.3/a.jpg", "http://[::1]:1/a.jpg", "ftp://x/a.jpg", "{\"no\":\"job\"}"].map(str::to_owned),
    );
    let unanswered = ["http://a.example.invalid/a.jpg".to_owned(), "http://127.0.0.1:1/a.jpg".to_owned()];
    urls.extend(unanswered);
    urls.push(refusing.url("status/429"));
    urls.push(origin.url("1/300.gif").replace("http://", "https://"));
    // A redirect to where nothing answers costs a connection that fails; the guard's refusals cost none.
    // A machine that is busy with other things may itself be silent for a second.
    let arguments = ["--max-bytes", "2MB", "--idle-timeout", "4s", "--max-attempts", "3", "--retry-delay", "10ms"];
    let worker = MeteredWorker::start(&queue, storage.path(), &arguments);
    let before = worker.scrape();
    for name in ["imgq_jobs_total", "imgq_requests_total", "imgq_phase_seconds_count", "imgq_downloaded_bytes_total"] {
        assert_eq!(before.sum(name), 0.0, "{name}");
    }
    for url in &urls {
        queue.push(url);
    }
    queue.until_results(urls.len(), SOON);
    // There already.
    queue.push(&origin.url("1/300.gif"));
    let results = queue.until_results(urls.len() + 1, SOON);
    let scrape = at_rest(&worker);

    // Each outcome and reason as often as in the stream, and nothing else.
    let text = |result: &BTreeMap<String, String>, field: &str| result.get(field).cloned().unwrap_or_default();
    let mut expected: BTreeMap<(String, String), f64> = BTreeMap::new();
    for result in &results {
        *expected.entry((text(result, "outcome"), text(result, "reason"))).or_default() += 1.0;
    }
    let counted: BTreeMap<(String, String), f64> = scrape.families["imgq_jobs_total"]
        .samples
        .iter()
        .filter(|(_, _, value)| *value > 0.0)
        .map(|(_, labels, value)| ((labels["outcome"].clone(), labels["reason"].clone()), *value))
        .collect();
    assert_eq!(counted, expected);
    assert!(expected.len() >= 18, "jobs of every kind: {expected:?}");

    // What was tried again, by what went wrong: all attempts but the last. Waiting for a host that refuses is none.
    let mut retries: BTreeMap<String, f64> = BTreeMap::new();
    let is_refused = |result: &BTreeMap<String, String>| text(result, "reason") == "rate_limited";
    for result in results.iter().filter(|result| result["attempts"] == "3" && !is_refused(result)) {
        let reason = if result["outcome"] == "failed" { text(result, "reason") } else { "http_5xx".into() };
        *retries.entry(reason).or_default() += 2.0;
    }
    for (reason, times) in &retries {
        assert_eq!(scrape.value("imgq_retries_total", &[("reason", reason)]), *times, "{reason}");
    }
    let refused = scrape.value("imgq_retries_total", &[("reason", "rate_limited")]);
    assert_eq!(scrape.sum("imgq_retries_total"), retries.values().sum::<f64>() + refused);
    let held = scrape.value("imgq_jobs_held_total", &[]);
    assert!(held >= 1.0 && scrape.value("imgq_host_news_total", &[("news", "refused")]) >= 1.0);

    // Objects and bytes.
    let fresh: Vec<f64> = results
        .iter()
        .filter(|result| result["outcome"] == "stored" && !result.contains_key("reason"))
        .map(|result| result["bytes"].parse().unwrap())
        .collect();
    assert_eq!(scrape.value("imgq_stored_bytes_total", &[]), fresh.iter().sum::<f64>());
    assert_eq!(scrape.value("imgq_object_bytes_sum", &[]), fresh.iter().sum::<f64>());
    assert_eq!(scrape.value("imgq_object_bytes_count", &[]), fresh.len() as f64);
    let up_to_1_kib = fresh.iter().filter(|bytes| **bytes <= 1024.0).count() as f64;
    assert_eq!(scrape.value("imgq_object_bytes_bucket", &[("le", "1024.0")]), up_to_1_kib);
    // Of bodies that were no use: a page, and what arrived of those that never end, in three attempts.
    let page = "<!DOCTYPE html><html><body>no picture</body></html>".len() * 9;
    let useless = (page + 3 * 1000 + 3 * 500) as f64;
    assert_eq!(scrape.value("imgq_downloaded_bytes_total", &[]), fresh.iter().sum::<f64>() + useless);

    // Attempts and their phases. A bad URL, what is no job, and what is there already are never attempted.
    let attempts: f64 = results
        .iter()
        .filter(|result| {
            !["bad_url", "unreadable_job", "rate_limited", "exists"].contains(&text(result, "reason").as_str())
        })
        .map(|result| result["attempts"].parse::<f64>().unwrap())
        .sum();
    let attempts = attempts + refusing.requests_in_all() as f64;
    let phase = |name: &str| scrape.value("imgq_phase_seconds_count", &[("phase", name)]);
    let seconds = |name: &str| scrape.value("imgq_phase_seconds_sum", &[("phase", name)]);
    assert_eq!((phase("total"), phase("store")), (attempts, fresh.len() as f64));
    assert!(phase("lookup") >= 1.0 && phase("lookup") <= scrape.value("imgq_jobs_claimed_total", &[]));
    assert!(phase("body") >= phase("store") && phase("first_byte") >= phase("body"), "{scrape:?}");
    let parts: f64 = ["first_byte", "body", "store"].map(seconds).iter().sum();
    assert!(parts > 0.0 && parts <= seconds("total"), "{parts} of {}", seconds("total"));
    assert!(seconds("total") >= 3.0, "three attempts at an endless body took a second each");

    // Requests and answers. Three hosts that give no answer are asked three times each.
    let refusals = refusing.requests_in_all() as f64;
    let answers = origin.requests_in_all() as f64 + refusals;
    assert_eq!(scrape.sum("imgq_responses_total"), answers);
    assert_eq!(scrape.value("imgq_requests_total", &[]), answers + 9.0);
    let code = |code: &str| scrape.value("imgq_responses_total", &[("code", code)]);
    assert_eq!((code("404"), code("418"), code("500"), code("429"), code("2xx")), (1.0, 1.0, 3.0, refusals, 1.0));
    // Three attempts, but a failure is remembered for a second.
    assert!((1.0..=3.0).contains(&scrape.value("imgq_dns_lookups_total", &[("result", "failed")])));
    assert_eq!(scrape.value("imgq_addresses_refused_total", &[]), 3.0);
    let connections = |result: &str| scrape.value("imgq_connections_total", &[("result", result)]);
    assert_eq!(connections("failed"), 9.0);
    assert!(connections("opened") >= 1.0 && connections("opened") <= answers);
    assert_eq!(phase("connect"), connections("opened"));

    // The queue.
    let all_ends = results.len() as f64 + scrape.sum("imgq_retries_total") + held;
    assert_eq!(scrape.value("imgq_settlements_total", &[("result", "accepted")]), all_ends);
    assert_eq!(scrape.value("imgq_settlements_total", &[("result", "refused")]), 0.0);
    assert_eq!(scrape.value("imgq_settle_jobs_sum", &[]), all_ends);
    assert_eq!(scrape.value("imgq_jobs_claimed_total", &[]), all_ends);
    assert_eq!(scrape.value("imgq_claim_jobs_sum", &[]), all_ends);
    assert_eq!(scrape.value("imgq_claims_total", &[("result", "jobs")]), scrape.value("imgq_claim_jobs_count", &[]));
    assert_eq!(scrape.sum("imgq_redis_errors_total"), 0.0);
    for gauge in ["imgq_jobs_waiting", "imgq_jobs_downloading"] {
        assert_eq!(scrape.value(gauge, &[]), 0.0, "{gauge}");
    }
    // No label tells where anything came from.
    let values = scrape.families.values().flat_map(|family| &family.samples).flat_map(|(_, labels, _)| labels.values());
    let mut values = values;
    assert!(values.all(|value| !value.contains("127.0.0.1") && !value.contains("example")));
}

#[test]
fn the_jobs_at_hand_are_told_apart() {
    let origin = Origin::start();
    origin.hold();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    // All there before it starts: a lane that is found slow takes no more.
    for n in 0..12 {
        queue.push(&origin.url(&format!("{n}/4000.gif")));
    }
    let worker = MeteredWorker::start(&queue, storage.path(), &["--host-concurrency", "3", "--concurrency", "20"]);
    let at_hand = |scrape: &Scrape| {
        ["in_flight", "downloading", "waiting"].map(|what| scrape.value(&format!("imgq_jobs_{what}"), &[]))
    };
    until("three of twelve are downloading", SOON, || (at_hand(&worker.scrape()) == [12.0, 3.0, 9.0]).then_some(()));
    assert_eq!(worker.scrape().value("imgq_slots", &[]), 20.0);
    origin.let_go();
    queue.until_results(12, SOON);
    until("nothing is at hand", SOON, || (at_hand(&worker.scrape()) == [0.0; 3]).then_some(()));
}

#[test]
fn a_result_that_redis_refused_is_not_counted_as_one() {
    let origin = Origin::start();
    origin.hold();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let worker = MeteredWorker::start(&queue, storage.path(), &[]);
    queue.push(&origin.url("1/4000.gif"));
    until("it is being downloaded", SOON, || (origin.requests_in_all() == 1).then_some(()));
    // As if it had been taken for dead: the job is not its own any more.
    let name = queue.until_workers(1).remove(0);
    queue.run::<i64>(&["DEL", &format!("@inflight:{name}")]);
    origin.let_go();
    let scrape = at_rest(&worker);
    // It hears of that by the answer to its settlement, or by a comparison before.
    let refused = scrape.value("imgq_settlements_total", &[("result", "refused")]);
    assert_eq!(refused + scrape.value("imgq_jobs_abandoned_total", &[]), 1.0);
    assert_eq!((scrape.sum("imgq_jobs_total"), scrape.value("imgq_stored_bytes_total", &[])), (0.0, 0.0));
    assert_eq!(queue.results_len(), 0);
}

#[test]
fn people_see_where_the_time_went() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &[]);
    queue.push(&origin.url("after/100/1/300.gif"));
    queue.until_results(1, SOON);
    let name = queue.until_workers(1).remove(0);
    let timings =
        until("the worker tells its timings", SOON, || queue.hash(&format!("worker:{name}")).get("timings").cloned());
    let words: Vec<&str> = timings.split(' ').collect();
    let means: BTreeMap<&str, f64> = words.chunks(2).map(|pair| (pair[0], pair[1].parse().unwrap())).collect();
    let names: Vec<&str> = means.keys().copied().collect();
    assert_eq!(names, ["body", "connect", "first_byte", "lookup", "store", "total"]);
    assert!(means["first_byte"] >= 99.0 && means["total"] >= means["first_byte"], "{timings}");
}

fn health(worker: &MeteredWorker) -> (u16, String) {
    // Both names have one answer; between two questions it may change.
    until("/readyz says the same as /healthz", SOON, || {
        let [ready, health] = ["/readyz", "/healthz"].map(|path| get(&worker.address, path, ""));
        ((ready.status, &ready.body) == (health.status, &health.body)).then_some((health.status, health.body))
    })
}

fn until_ill(worker: &MeteredWorker, why: &str) {
    until(why, SOON, || {
        let (status, text) = health(worker);
        assert_eq!(status == 503, text != "ok\n", "{text}");
        (status == 503 && text.contains(why)).then_some(())
    });
    assert_eq!(worker.scrape().value("imgq_healthy", &[]), 0.0);
}

fn until_well(worker: &MeteredWorker) {
    until("the worker is well", SOON, || (health(worker) == (200, "ok\n".to_owned())).then_some(()));
    assert_eq!(worker.scrape().value("imgq_healthy", &[]), 1.0);
}

#[test]
fn it_is_ill_while_redis_is_away() {
    let mut redis = Redis::private(&[]);
    let mut queue = RawQueue::on(&redis);
    let origin = Origin::start();
    let storage = tempfile::tempdir().unwrap();
    let worker = MeteredWorker::start(&queue, storage.path(), &[]);
    until_well(&worker);
    assert_eq!(worker.scrape().value("imgq_registered", &[]), 1.0);
    redis.stop();
    until_ill(&worker, "no answer from Redis");
    let errors = |operation: &str| worker.scrape().value("imgq_redis_errors_total", &[("operation", operation)]);
    until("heartbeats fail", SOON, || (errors("heartbeat") >= 1.0).then_some(()));
    until("claims or comparisons fail too", SOON, || (errors("claim") + errors("compare") >= 1.0).then_some(()));
    redis.start_again();
    queue.reconnect(&redis);
    until_well(&worker);
    until("the connection was opened again", SOON, || {
        (worker.scrape().value("imgq_redis_reconnects_total", &[]) >= 1.0).then_some(())
    });
    queue.push(&origin.url("1/300.gif"));
    queue.until_results(1, SOON);
    assert_eq!(at_rest(&worker).value("imgq_jobs_total", &[("outcome", "stored"), ("reason", "")]), 1.0);
}

#[test]
fn it_is_ill_while_the_storage_is_bad() {
    let mut queue = RawQueue::shared();
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let (storage, away) = (folder.path().join("storage"), folder.path().join("away"));
    let worker = MeteredWorker::start(&queue, &storage, &[]);
    until_well(&worker);
    let condition = |name: &str| worker.scrape().value("imgq_storage_condition", &[("condition", name)]);
    assert_eq!([condition("good"), condition("trial"), condition("bad")], [1.0, 0.0, 0.0]);
    // As when it is unmounted: another folder is there under its name.
    std::fs::rename(&storage, &away).unwrap();
    std::fs::create_dir(&storage).unwrap();
    queue.push(&origin.url("1/300.gif"));
    until_ill(&worker, "the storage cannot be used");
    assert_eq!([condition("good"), condition("bad")], [0.0, 1.0]);
    // Before its job is, the storage is called bad.
    let is_released = || worker.scrape().value("imgq_jobs_released_total", &[]) >= 1.0;
    until("the job is given back", SOON, || is_released().then_some(()));
    std::fs::remove_dir_all(&storage).unwrap();
    std::fs::rename(&away, &storage).unwrap();
    queue.until_results(1, SOON);
    until_well(&worker);
}

#[test]
fn it_is_ill_when_it_was_taken_for_dead_until_it_has_a_new_name() {
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let worker = MeteredWorker::start(&queue, storage.path(), &[]);
    until_well(&worker);
    let name = queue.until_workers(1).remove(0);
    queue.run::<i64>(&["ZREM", "@workers", &name]);
    until("it has another name", SOON, || queue.workers().iter().any(|other| *other != name).then_some(()));
    until_well(&worker);
    let scrape = worker.scrape();
    assert_eq!((scrape.value("imgq_registered", &[]), scrape.value("imgq_jobs_in_flight", &[])), (1.0, 0.0));
}

/// The table of docs/metrics.md: name, type and labels.
pub(crate) fn table() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let rows = docs.lines().filter(|line| line.starts_with("| `imgq_") || line.starts_with("| `process_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert!(cells.len() == 6 && !cells[4].is_empty(), "{row}");
        let labels = cells[3].split(',').map(|label| label.trim().trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), labels))
    })
    .collect()
}

#[test]
fn the_docs_name_every_metric_and_no_other() {
    let queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let worker = MeteredWorker::start(&queue, storage.path(), &[]);
    let scrape = worker.scrape();
    let served: BTreeMap<String, (String, BTreeSet<String>)> = scrape
        .families
        .iter()
        .map(|(name, family)| (name.clone(), (family.kind.clone(), scrape.labels(name))))
        .collect();
    // Those of the queue are the dashboard's.
    let of_workers = table().into_iter().filter(|(name, _)| !name.starts_with("imgq_queue_")).collect();
    assert_eq!(served, of_workers);
    assert!(scrape.families.values().all(|family| family.help.len() >= 5));
    let series: usize = scrape.families.values().map(|family| family.samples.len()).sum();
    assert!(series < 500, "{series} series");
    let resident = scrape.value("process_resident_memory_bytes", &[]);
    assert!((1e6..1e9).contains(&resident), "{resident}");
    let started = scrape.value("process_start_time_seconds", &[]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(started <= now && started > now - 60.0);
}

#[test]
fn it_is_served_in_both_forms_and_nothing_else_is() {
    let queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let worker = MeteredWorker::start(&queue, storage.path(), &[]);
    let older = worker.scrape();
    // As Prometheus asks.
    let accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let answer = get(&worker.address, "/metrics", accept);
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let newer = Scrape::read(&answer.body, Form::OpenMetrics);
    let samples = |scrape: &Scrape| {
        let samples = scrape.families.values().flat_map(|family| &family.samples);
        samples.map(|(name, labels, _)| (name.clone(), labels.clone())).collect::<BTreeSet<_>>()
    };
    assert_eq!(samples(&older), samples(&newer));
    assert_eq!(newer.families["imgq_jobs"].kind, "counter");

    let ask = |request: &str| try_request(&worker.address, request).unwrap();
    assert_eq!(get(&worker.address, "/metrics?x=1", "").status, 200);
    assert_eq!(get(&worker.address, "/", "").status, 404);
    assert_eq!(ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").status, 405);
    let head = ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(ask("no http at all\r\n\r\n").status == 400);
}

#[test]
fn hostile_clients_hold_nothing_up() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let worker = MeteredWorker::start(&queue, storage.path(), &[]);
    let mut clients: Vec<TcpStream> = (0..1000).map(|_| TcpStream::connect(&worker.address).unwrap()).collect();
    let connected = Instant::now();
    for (n, client) in clients.iter_mut().enumerate() {
        // Some send nothing, some never end their headers. The connection may be gone already.
        if n % 2 == 0 {
            let _ = client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ");
        }
    }
    for n in 0..200 {
        queue.push(&origin.url(&format!("{n}/2000.gif")));
    }
    // Meanwhile jobs are done, and an honest client is answered.
    let asked = Instant::now();
    let scrape = worker.scrape();
    assert!(asked.elapsed() < allowed(Duration::from_secs(2)), "{:?}", asked.elapsed());
    let open = scrape.value("process_open_fds", &[]);
    assert!(open < 250.0, "{open} descriptors");
    queue.until_results(200, SOON);
    assert_eq!(health(&worker).0, 200);
    // All of them are gone within the time that a request may take, whether they say anything or not.
    for client in &mut clients {
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut rest = Vec::new();
        match client.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
    assert!(connected.elapsed() < allowed(Duration::from_secs(8)), "{:?}", connected.elapsed());
    // Headers without end.
    let endless = format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{}", "X-A: aaaaaaaaaaaaaaaa\r\n".repeat(5000));
    match try_request(&worker.address, &endless) {
        Ok(answer) => assert_eq!(answer.status, 431),
        // Closed while it was still sending.
        Err(error) => assert!(!error.to_string().contains("200 OK"), "{error}"),
    }
    // One who asks and does not read.
    let mut deaf: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(&worker.address).unwrap()).collect();
    for client in &mut deaf {
        let _ = client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    assert_eq!(health(&worker).0, 200);
}

#[test]
fn an_address_that_cannot_be_had_is_told_with_its_remedy() {
    let queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let worker = MeteredWorker::start(&queue, storage.path(), &[]);
    let second = |address: &str| {
        let mut command = Worker::command(&queue, storage.path());
        command.args(["--metrics", address]);
        finish(std::mem::replace(&mut command, Command::new("true")), b"", SOON)
    };
    let taken = second(&worker.address);
    assert_eq!(taken.code, 1, "{taken:?}");
    for part in [worker.address.as_str(), "cannot serve metrics", "in use", "hint: ", "--metrics", "IMGQ_METRICS"] {
        assert!(taken.stderr.contains(part), "{part} is not in {taken:?}");
    }
    // The workers of `run` take it from the environment, and it tells why they cannot.
    let links = storage.path().join("links.txt");
    std::fs::write(&links, "https://example.com/a.jpg\n").unwrap();
    let mut run = Producer::command(&queue, &["run", "--workers", "1", "--storage"]);
    run.arg(storage.path()).arg(&links).env("IMGQ_METRICS", &worker.address);
    let run = finish(run, b"", SOON);
    assert!(run.code == 1 && run.stderr.contains("cannot serve metrics at"), "{run:?}");
    // An address of nobody here.
    let foreign = second("192.0.2.1:9100");
    assert!(foreign.code == 1 && foreign.stderr.contains("192.0.2.1:9100"), "{foreign:?}");
    assert!(foreign.stderr.contains("hint: name an address of this machine"), "{foreign:?}");
    // What is no address at all.
    let nonsense = second("9100");
    assert!(nonsense.code == 2 && nonsense.stderr.contains(":9100"), "{nonsense:?}");
    assert_eq!(health(&worker).0, 200, "the first one goes on");
}
