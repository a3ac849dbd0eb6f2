//! What an element of the queue is: one table, to which the claim's script, `Job::read` and the worker's results are held. The
//! script is watched from outside: a job whose host is held is put into `delayed`, at once if the script sees the host, else once
//! the worker has put its link into a form in which it does.

use common::host::host_of;
use common::job::Job;
use common::link::canonical_url;
use harness::queue::Entry;
use harness::{Origin, Producer, RawQueue, Worker, until};
use std::collections::BTreeMap;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const ID: &str = "0123456789ab8000800000000000";

/// What becomes of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    /// A job: its object is stored. What is said about its host holds it.
    Job,
    /// A job of the host as the script sees it, whose link nobody can ask for.
    BadUrl,
    /// Not a job. What was readable of it may still name a host.
    Unreadable,
    /// A job for those who know its version or kind: it waits, whatever its host.
    Others,
}
use Is::{BadUrl, Job as AJob, Others, Unreadable};

/// Elements: `<host>` stands for the origin's, in capitals, with an escape or a line break in it; `<n>` for a number that tells them
/// apart, `<id>` for an id of its own. Then what each is, and
/// whether it waits while the host is held.
fn table() -> Vec<(Vec<u8>, Is, bool)> {
    let long = |n: usize| "y".repeat(n);
    let mut table: Vec<(Vec<u8>, Is, bool)> = [
        // As imgq writes it, and as others may.
        (r#"{"id":"<id>","url":"http://<host>/<n>/300.gif"}"#, AJob, true),
        (r#"{"url":"http://<host>/<n>/300.gif"}"#, AJob, true),
        (r#"{"url":"http://<host>/<n>/300.gif","id":"<id>"}"#, AJob, true),
        (r#"{ "id" : "<id>" , "url" : "http:\/\/<host>\/<n>\/300.gif" }"#, AJob, true),
        (r#"{"id":"<id>","url":"http://<host>/<n>/300.gif","attempts":1,"colour":"blue"}"#, AJob, true),
        (r#"{"id":"<id>","url":"http://<escaped>/<n>/300.gif"}"#, AJob, true),
        (r#"{"id":"<id>","\u0075rl":"http://<host>/<n>/300.gif"}"#, AJob, true),
        (r#"{"id":"<id>","url":"HTTP://<HOST>/<n>/300.gif"}"#, AJob, true),
        (r#"{"id":"<id>","url":"http://me:and@you@<host>/<n>/300.gif"}"#, AJob, true),
        (r#"{"id":"<id>","url":"http:///<host>/<n>/300.gif"}"#, AJob, true),
        (r#"{"id":"<id>","url":"http://<host>\\<n>/300.gif"}"#, AJob, true),
        (r#"{"id":"<id>","url":"  http://<broken>/<n>/300.gif"}"#, AJob, true),
        // Other links in it are not its link.
        (r#"{"with":{"url":"http://other.example/"},"url":"http://<host>/<n>/300.gif"}"#, AJob, true),
        (r#"{"id":"<id>","with":["\"url\":\"http://other.example/\""],"url":"http://<host>/<n>/300.gif"}"#, AJob, true),
        // Blanks and a byte order mark around it.
        (" {\"id\":\"<id>\",\"url\":\"http://<host>/<n>/300.gif\"}", AJob, true),
        ("\t\r\n\x0b\x0c {\"id\":\"<id>\",\"url\":\"http://<host>/<n>/300.gif\"} \r\n", AJob, true),
        ("\u{feff}{\"id\":\"<id>\",\"url\":\"http://<host>/<n>/300.gif\"}", AJob, true),
        (" \u{feff} {\"url\":\"http://<host>/<n>/300.gif\"}\n", AJob, true),
        // Bare links.
        ("http://<host>/<n>/300.gif", AJob, true),
        (" \thttp://<host>/<n>/300.gif\r\n", AJob, true),
        ("\u{feff}http://<host>/<n>/300.gif", AJob, true),
        ("\u{feff} http://<host>/<n>/300.gif", AJob, true),
        ("HTTP://<HOST>/<n>/300.gif#part", AJob, true),
        ("http://<host>/<n>/300.gif?a= b", AJob, true),
        ("http://<host>/<n>/300.gif?\"quoted\\", AJob, true),
        ("\u{a0}http://<host>/<n>/300.gif", AJob, true),
        // In forms that only the URL standard reads, and with blanks that JSON does not know.
        (r#"{"id":"<id>","url":"http:\\\\<host>\\<n>\\300.gif"}"#, BadUrl, false),
        (r#"{"id":"<id>","url":"http://<percent>/<n>/300.gif"}"#, AJob, true),
        ("http://<wide>/<n>/300.gif", AJob, true),
        (r#"{"id":"<id>","url":"\u0085http://<host>/<n>/300.gif"}"#, AJob, true),
        (r#"{"id":"<id>","url":"http://<host>/<n>/300.gif","oversized":null}"#, AJob, true),
        ("{\"url\":\"http://<host>/<n>/300.gif\"}\x0b", AJob, true),
        ("{\"url\":\"http://<host>/<n>/300.gif\"} \x0c", AJob, true),
        // What holds :// and is no job as JSON is a bare link, if a bad one.
        ("[\"http://<host>/<n>/300.gif\"]", BadUrl, false),
        ("\"http://<host>/<n>/300.gif\"", BadUrl, false),
        ("ftp://<host>/<n>/300.gif", BadUrl, false),
        ("\u{a0}{\"url\":\"http://<host>/<n>/300.gif\"}", BadUrl, false),
        ("\0{\"url\":\"http://<host>/<n>/300.gif\"}", BadUrl, false),
        ("\u{feff}\u{feff}{\"url\":\"http://<host>/<n>/300.gif\"}", BadUrl, false),
        (r#"{"id":"<id>","url":"<n>/300.gif"}"#, BadUrl, false),
        (r#"{"id":"<id>","url":""}"#, BadUrl, false),
        // Neither.
        ("<n>", Unreadable, false),
        ("[<n>]", Unreadable, false),
        ("\"<n>\"", Unreadable, false),
        ("null", Unreadable, false),
        ("", Unreadable, false),
        (" \r\n", Unreadable, false),
        ("\u{feff}", Unreadable, false),
        ("{}", Unreadable, false),
        (r#"{"id":"<id>"}"#, Unreadable, false),
        (r#"{"id":"<id>","url":"http://<host>/<n>/300.gif""#, Unreadable, true),
        (r#"{"url":"http://<host>/<n>/300.gif""#, Unreadable, false),
        (r#"{"id":"<id>","url":["http://<host>/<n>/300.gif"]}"#, Unreadable, false),
        (r#"{"id":"<id>","url":5}"#, Unreadable, false),
        (r#"{"id":"<id>","url":null}"#, Unreadable, false),
        (r#"{"id":"my-<n>","url":"http://<host>/<n>/300.gif"}"#, Unreadable, true),
        (r#"{"id":7,"url":"http://<host>/<n>/300.gif"}"#, Unreadable, true),
        (r#"{"id":"<id>","url":"http://<host>/<n>/300.gif","attempts":"two"}"#, Unreadable, true),
        (r#"{"id":"<id>","url":"http://<host>/<n>/300.gif","url":"http://<host>/<n>/300.gif"}"#, Unreadable, true),
        (r#"{"id":"<id>","url":"http://<host>/<n>/300.gif","w":NaN}"#, Unreadable, true),
        (r#"{"id":"<id>","url":"http://<host>/<n>/300.gif","w":"\ud83d"}"#, Unreadable, true),
        // Of a newer version, or of a kind that nobody here knows.
        (r#"{"v":1,"url":"http://<host>/<n>/300.gif","id":"<id>"}"#, AJob, true),
        (r#"{"id":"<id>","url":"http://<host>/<n>/300.gif","v":2}"#, Others, true),
        (r#"{"v":2,"id":"<id>","url":"http://<host>/<n>/300.gif"}"#, Others, true),
        (r#"{"id":"<id>","url":"http://<host>/<n>/300.gif","v":"2"}"#, Unreadable, true),
        (r#"{"id":"<id>","url":"http://<host>/<n>/300.gif","\u0076":2}"#, Others, true),
        (r#"{"id":"<id>","url":"<n>/300.gif","v":2}"#, Others, true),
        ("\u{feff} {\"v\" : 2, \"rows\":[\"<n>\"]} ", Others, true),
        (r#"{"id":"<id>","url":"http://<host>/<n>/300.gif","kind":"download"}"#, AJob, true),
        (r#"{"id":"<id>","url":"http://<host>/<n>/300.gif","kind":"unheard-of"}"#, Others, true),
    ]
    .into_iter()
    .map(|(text, is, of_host)| (text.as_bytes().to_vec(), is, of_host))
    .collect();
    // Too long.
    for (text, is, of_host) in [
        (format!(r#"{{"id":"<id>","url":"http://<host>/<n>/300.gif","with":"{}"}}"#, long(60_000)), AJob, true),
        (format!(r#"{{"id":"<id>","url":"http://<host>/<n>/300.gif","with":"{}"}}"#, long(70_000)), Unreadable, false),
        (format!("{}{{\"url\":\"http://<host>/<n>/300.gif\"}}", " ".repeat(70_000)), Unreadable, false),
        (format!(r#"{{"id":"<id>","url":"http://<host>/<n>/300.gif?{}"}}"#, long(16_000)), AJob, true),
        (format!(r#"{{"id":"<id>","url":"http://<host>/<n>/300.gif?{}"}}"#, long(17_000)), BadUrl, true),
        (format!("http://<host>/<n>/300.gif?{}", long(16_000)), AJob, true),
        (format!("http://<host>/<n>/300.gif?{}", long(17_000)), BadUrl, true),
        (format!("http://<host>/<n>/300.gif?{}", long(70_000)), Unreadable, false),
        (format!("http://<host>/<n>/300.gif?{}", " ".repeat(70_000)), Unreadable, false),
        (format!("http://{}@<host>/<n>/300.gif", long(4096)), AJob, true),
        (format!("http://{}@<host>/<n>/300.gif", long(4500)), BadUrl, false),
        (format!(r#"{{"id":"<id>","url":"http://{}@<host>/<n>/300.gif"}}"#, long(60_000)), BadUrl, false),
        (format!("http://{}.<host>/<n>/300.gif", long(254)), BadUrl, false),
    ] {
        table.push((text.into_bytes(), is, of_host));
    }
    table.push((b"http://<host>/<n>/300.gif\xff".to_vec(), Unreadable, true));
    table.push((b"{\"id\":\"<id>\",\"url\":\"http://<host>/<n>/300.gif\",\"w\":\"\xff\"}".to_vec(), Unreadable, true));
    table
}

/// The elements of the table for a host. Numbers start so high that none is a part of anything else.
fn elements(host: &str) -> Vec<(Vec<u8>, Is, bool)> {
    let replaced = |bytes: &[u8], n: usize| {
        let mut out = bytes.to_vec();
        for (word, with) in [
            ("<HOST>", host.to_uppercase()),
            ("<escaped>", format!(r"\u00{:x}{}", host.as_bytes()[0], &host[1..])),
            ("<broken>", format!("{}\\n{}", &host[..2], &host[2..])),
            ("<percent>", format!("%{:x}{}", host.as_bytes()[0], &host[1..])),
            // U+FF4C stands for the letter l.
            ("<wide>", host.replacen('l', "\u{ff4c}", 1)),
            ("<host>", host.to_owned()),
            ("<id>", format!("{ID}{n:04x}")),
            ("<n>", (900_000 + n).to_string()),
        ] {
            while let Some(at) = out.windows(word.len()).position(|part| part == word.as_bytes()) {
                out.splice(at..at + word.len(), with.bytes());
            }
        }
        out
    };
    table().into_iter().enumerate().map(|(n, (bytes, is, of_host))| (replaced(&bytes, n), is, of_host)).collect()
}

fn shown(element: &[u8]) -> String {
    String::from_utf8_lossy(&element[..element.len().min(100)]).into_owned()
}

fn push(queue: &RawQueue, element: &[u8]) {
    let mut connection = redis::Client::open(queue.url.as_str()).unwrap().get_connection().unwrap();
    redis::cmd("RPUSH").arg(queue.key("ready")).arg(element).query::<i64>(&mut connection).unwrap();
}

#[test]
fn rust_reads_an_element_as_the_table_says() {
    let host = "localhost:8000";
    for (element, is, of_host) in elements(host) {
        let read = Job::read(&element, 1);
        let link = read.as_ref().map(|job| canonical_url(&job.url));
        let found = match &link {
            Ok(Ok(_)) => AJob,
            Ok(Err(_)) => BadUrl,
            Err(_) => Unreadable,
        };
        // Those for others no claim hands out.
        assert_eq!(found, if is == Others { Unreadable } else { is }, "{}: {read:?}", shown(&element));
        if let Ok(Ok(url)) = link {
            assert_eq!(host_of(&url), host, "{}", shown(&element));
            assert!(of_host, "every job waits for its host: {}", shown(&element));
        }
    }
}

#[test]
fn a_claim_and_a_worker_take_an_element_for_what_the_table_says() {
    let origin = Origin::start();
    let host = format!("localhost:{}", origin.port());
    let elements = elements(&host);
    let mut queue = RawQueue::shared();
    let folder = tempfile::tempdir().unwrap();
    let (seconds, _): (u64, u64) = queue.run(&["TIME"]);
    let held = format!(r#"{{"ends":{}000,"level":1,"why":"rate_limited"}}"#, seconds + 600);
    queue.run::<i64>(&["HSET", "@hosts", &host, &held]);
    for (element, ..) in &elements {
        push(&queue, element);
    }
    let of_host = elements.iter().filter(|(_, _, of_host)| *of_host).count();
    let _worker = Worker::start(&queue, folder.path(), &["--max-attempts", "2"]);
    until("everything was looked at", SOON, || {
        let waiting = queue.ready_len() + queue.in_flight_len();
        (waiting == 0 && queue.results_len() + of_host >= elements.len()).then_some(())
    });
    let delayed: Vec<Vec<u8>> = queue.run(&["ZRANGE", "@delayed", "0", "-1"]);
    let is_in = |texts: &[Vec<u8>], n: usize| {
        let number = (900_000 + n).to_string();
        texts.iter().any(|text| text.windows(number.len()).any(|part| part == number.as_bytes()))
    };
    for (n, (element, _, of_host)) in elements.iter().enumerate() {
        // Those without a number have no host either.
        assert_eq!(is_in(&delayed, n), *of_host, "{n}: {}", shown(element));
    }
    assert_eq!(delayed.len(), of_host);
    // The hold ends.
    queue.run::<i64>(&["DEL", "@hosts"]);
    for member in &delayed {
        let mut connection = redis::Client::open(queue.url.as_str()).unwrap().get_connection().unwrap();
        redis::cmd("ZADD").arg(queue.key("delayed")).arg(1).arg(&member[..]).query::<i64>(&mut connection).unwrap();
    }
    let expected = |is: Is| elements.iter().filter(|(_, other, _)| *other == is).count();
    let results = queue.until_results(elements.len() - expected(Others), SOON);
    let left: Vec<Vec<u8>> = queue.run(&["ZRANGE", "@delayed", "0", "-1"]);
    assert_eq!(left.len(), expected(Others));
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for result in &results {
        *counts.entry(result.get("reason").unwrap_or(&result["outcome"]).clone()).or_default() += 1;
    }
    for (n, (element, is, _)) in elements.iter().enumerate() {
        assert_eq!(is_in(&left, n), *is == Others, "{n}: {}", shown(element));
        if *is == Others {
            continue;
        }
        let number = (900_000 + n).to_string();
        let is_of_it = |result: &&Entry| {
            let (url, id) = (result.get("url").map_or("", String::as_str), &result["id"]);
            url.contains(&number) || *id == format!("{ID}{n:04x}")
        };
        let Some(result) = results.iter().find(is_of_it) else {
            // Only the beginning of what nobody can read is told.
            let told = element[..element.len().min(200)].to_vec();
            assert!(*is == Unreadable && !is_in(&[told], n), "{n} has no result: {}", shown(element));
            continue;
        };
        let found = match (result["outcome"].as_str(), result.get("reason").map(String::as_str)) {
            ("stored", _) => AJob,
            ("rejected", Some("bad_url")) => BadUrl,
            ("failed", Some("unreadable_job")) => Unreadable,
            other => panic!("{n}: {other:?} of {}", shown(element)),
        };
        assert_eq!(found, *is, "{n}: {}", shown(element));
    }
    let count = |what: &str| counts.get(what).copied().unwrap_or_default();
    assert_eq!(
        [count("stored") + count("exists"), count("bad_url"), count("unreadable_job")],
        [expected(AJob), expected(BadUrl), expected(Unreadable)],
        "{counts:?}"
    );
}

#[test]
fn equal_jobs_without_an_id_of_their_own_stay_as_many_while_their_host_is_held() {
    let origin = Origin::start();
    let host = format!("localhost:{}", origin.port());
    let mut queue = RawQueue::shared();
    let folder = tempfile::tempdir().unwrap();
    let (seconds, _): (u64, u64) = queue.run(&["TIME"]);
    queue.run::<i64>(&["HSET", "@hosts", &host, &format!(r#"{{"ends":{}000}}"#, seconds + 3)]);
    let url = format!("http://{host}/1/300.gif");
    // The text "id" in another place is no id; an id that two jobs share makes equal members of a set.
    for element in [
        url.clone(),
        format!(r#"{{"url":"{url}","with":{{"id":5}}}}"#),
        format!(r#"{{"url":"{url}","note":"id"}}"#),
        format!(r#"{{"id":"{ID}0001","url":"{url}"}}"#),
        format!(r#"{{"id":null,"url":"{url}"}}"#),
    ] {
        queue.push(&element);
        queue.push(&element);
    }
    let _worker = Worker::start(&queue, folder.path(), &[]);
    let results = queue.until_results(10, SOON);
    assert!(results.iter().all(|result| result["outcome"] == "stored"), "{results:?}");
}

#[test]
fn a_link_that_is_too_long_is_a_bad_line_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("links.txt");
    let long = |n: usize| "y".repeat(n);
    let lines = [
        "https://example.com/1.jpg".to_owned(),
        format!("https://{}@example.com/2.jpg", long(60_000)),
        format!("https://{}@example.com/3.jpg", long(5000)),
        format!("https://{}.example.com/4.jpg", long(250)),
        format!("https://example.com/{}", long(17_000)),
        format!("https://example.com/{}", "é".repeat(4000)),
        "https://example.com/7.jpg".to_owned(),
    ];
    std::fs::write(&list, lines.join("\n")).unwrap();
    let mut queue = RawQueue::shared();
    let enqueued = Producer::run(&queue, &["enqueue", "--json", list.to_str().unwrap()]);
    assert_eq!((enqueued.code, &enqueued.json()["rejected"]), (0, &serde_json::json!(5)), "{enqueued:?}");
    for (line, why) in [
        (2, "longer than 16 KiB"),
        (3, "its user name and password are longer than 4 KiB"),
        (4, "its host's name is longer than 253 bytes"),
        (5, "longer than 16 KiB"),
        (6, "longer than 16 KiB"),
    ] {
        assert!(enqueued.stderr.contains(&format!("links.txt:{line}: {why}")), "{line}: {}", enqueued.stderr);
    }
    assert_eq!(queue.ready_len(), 2);
    // A link on the command line is refused before anything is enqueued.
    let alone = Producer::run(&queue, &["enqueue", &lines[3]]);
    assert_ne!(alone.code, 0);
    assert!(alone.stderr.contains("its host's name is longer than 253 bytes"), "{alone:?}");
}

#[test]
fn a_list_of_the_longest_links_goes_in_small_chunks() {
    let redis = harness::Redis::private(&["--appendonly", "no"]);
    let mut queue = RawQueue::on(&redis);
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("links.txt");
    // 48 MB: each of three chunks of a thousand would hold Redis for 0.1 s and more.
    let long = "y".repeat(16_000);
    let lines: String = (0..3000).map(|n| format!("https://example.com/{n}/{long}\n")).collect();
    std::fs::write(&list, lines).unwrap();
    let enqueued = Producer::run(&queue, &["enqueue", "--json", list.to_str().unwrap()]);
    assert_eq!((enqueued.code, &enqueued.json()["enqueued"]), (0, &serde_json::json!(3000)), "{enqueued:?}");
    let batch = enqueued.json()["batch"].as_str().unwrap().to_owned();
    let chunks: u64 = queue.hash(&format!("batch:{batch}"))["chunk"].parse().unwrap();
    assert!(chunks >= 40, "{chunks} chunks");
    let mut order = queue.ready();
    order.sort_by_key(|job| job[7..39].to_owned());
    assert!(order.iter().enumerate().all(|(n, job)| job.contains(&format!("example.com/{n}/y"))), "each link once");
}
