//! What a worker makes of images that are too small, broken, placeholders, others than expected, or not to be taken.

use harness::files::{objects, sha256};
use harness::origin::{gif, picture};
use harness::programs::finish;
use harness::{Origin, RawQueue, Worker};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// Nothing that waits for a server that never ends its body is done soon.
const PATIENT: [&str; 4] = ["--idle-timeout", "10m", "--total-timeout", "10m"];

/// Runs one worker over jobs, and compares what becomes of them. Returns the storage.
fn expect(origin: &Origin, arguments: &[&str], expected: &[(&str, &str)]) -> tempfile::TempDir {
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    expect_in(&mut queue, storage.path(), origin, arguments, expected);
    storage
}

fn expect_in(queue: &mut RawQueue, storage: &Path, origin: &Origin, arguments: &[&str], expected: &[(&str, &str)]) {
    let before = queue.results_len();
    for (path, _) in expected {
        queue.push(&origin.url(path));
    }
    let _worker = Worker::start(queue, storage, arguments);
    let results = queue.until_results(before + expected.len(), SOON);
    let found: BTreeMap<&str, &str> = results[before..]
        .iter()
        .map(|result| (result["url"].as_str(), result.get("reason").map_or("stored", String::as_str)))
        .collect();
    let urls: Vec<(String, &str)> = expected.iter().map(|(path, reason)| (origin.url(path), *reason)).collect();
    assert_eq!(found, urls.iter().map(|(url, reason)| (url.as_str(), *reason)).collect());
    for result in &results[before..] {
        let outcome = if matches!(result.get("reason").map(String::as_str), None | Some("exists")) {
            "stored"
        } else {
            "rejected"
        };
        assert_eq!(result["outcome"], outcome, "{result:?}");
        assert_eq!(result["attempts"], "1", "{result:?}");
    }
}

/// Nothing lies in the storage, finished or not, but `n` objects.
fn holds(storage: &Path, n: usize) {
    assert_eq!(objects(storage).len(), n);
    let unfinished = std::fs::read_dir(storage.join(".imgq-tmp")).unwrap().count();
    assert_eq!(unfinished, 0, "unfinished files");
}

#[test]
fn too_few_bytes_are_refused_before_they_are_there_where_the_server_says_so() {
    let origin = Origin::start();
    let expected = [
        // First, and in the only slot: it never ends.
        ("announced/300", "too_small"),
        ("1/399.gif", "too_small"),
        ("unannounced/2/399", "too_small"),
        ("3/400.gif", "stored"),
        ("unannounced/4/400", "stored"),
        ("empty", "not_image"),
    ];
    let arguments = [&PATIENT[..], &["--min-bytes", "400", "--concurrency", "1"]].concat();
    holds(expect(&origin, &arguments, &expected).path(), 2);
}

#[test]
fn too_few_pixels_are_refused_by_the_header() {
    let origin = Origin::start();
    // 32 by 16 pixels, and a body that never ends, in the only slot.
    let small = [
        ("endless", "too_small"),
        ("1/300.gif", "too_small"),
        ("picture/whole.jpg", "stored"),
        ("picture/late.jpg", "stored"),
        // Not known to be large enough.
        ("picture/sizeless.avif", "too_small"),
        ("picture/nothing.avif", "not_image"),
    ];
    let arguments = [&PATIENT[..], &["--min-size", "33x16", "--concurrency", "1"]].concat();
    holds(expect(&origin, &arguments, &small).path(), 2);
    for (size, reason) in [("64x48", "stored"), ("65x48", "too_small"), ("64x49", "too_small")] {
        let expected = [("picture/whole.png", reason), ("picture/late.jpg", reason), ("picture/whole.webp", reason)];
        holds(expect(&origin, &["--min-size", size], &expected).path(), if reason == "stored" { 3 } else { 0 });
    }
}

#[test]
fn what_is_there_is_measured_too_and_not_downloaded_again() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let jobs = |reason| [("1/300.gif", reason), ("picture/late.jpg", reason)];
    expect_in(&mut queue, storage.path(), &origin, &[], &jobs("stored"));
    expect_in(&mut queue, storage.path(), &origin, &["--min-size", "32x16", "--min-bytes", "300"], &jobs("exists"));
    expect_in(&mut queue, storage.path(), &origin, &["--min-size", "65x48"], &jobs("too_small"));
    expect_in(&mut queue, storage.path(), &origin, &["--min-bytes", "1MB"], &jobs("too_small"));
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("placeholders.toml");
    let hash = sha256(&picture("late.jpg").unwrap());
    std::fs::write(&table, format!("[[placeholder]]\nsha256 = '{hash}'\n\n[[placeholder]]\nlength = 300\n")).unwrap();
    expect_in(&mut queue, storage.path(), &origin, &["--placeholders", table.to_str().unwrap()], &jobs("removed"));
    assert_eq!((origin.requests("1/300.gif"), origin.requests("picture/late.jpg")), (1, 1));
    holds(storage.path(), 2);
}

#[test]
fn x_robots_tag_is_obeyed_where_that_is_asked_for() {
    let origin = Origin::start();
    let refused = [
        "robots/noai",
        "robots/noimageai",
        "robots/noindex",
        "robots/noimageindex",
        "robots/none",
        "robots/nofollow,%20NoAI",
        "robots/nofollow|noai",
        "robots/imgq:%20noai",
        "robots/googlebot:%20all,%20imgq:%20noindex",
    ];
    let stored = ["robots/nofollow", "robots/googlebot:%20noindex", "robots/all", "1/300.gif"];
    let with = |reason: &'static str| refused.iter().map(move |path| (*path, reason));
    let others = || stored.iter().map(|path| (*path, "stored"));
    // Its body never ends: that it is not wanted shows before, and its slot is free for the others.
    let expected: Vec<_> =
        [("robots/noai/endless", "robots")].into_iter().chain(with("robots")).chain(others()).collect();
    let arguments = [&PATIENT[..], &["--respect-robots", "--concurrency", "1"]].concat();
    holds(expect(&origin, &arguments, &expected).path(), stored.len());
    let expected: Vec<_> = with("stored").chain(others()).collect();
    holds(expect(&origin, &[], &expected).path(), refused.len() + stored.len());
}

#[test]
fn placeholders_are_known_by_target_length_etag_and_hash() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("placeholders.toml");
    let by_hash = sha256(&gif(2, 700));
    std::fs::write(
        &table,
        format!(
            "# Ours\n[[placeholder]]\nname = 'gone'\nsha256 = '{by_hash}'\nlength = 700\n\n[[placeholder]]\netag = 'mine'\n\n\
             [[placeholder]]\nredirect = '/status/404'\n\n[[placeholder]]\nlength = 801\n"
        ),
    )
    .unwrap();
    let imgur = "d835884373f4d6c8f24742ceabe74946";
    let imgur_503 = format!("etag/{imgur}/1/503.gif");
    let imgur_504 = format!("etag/{imgur}/1/504.gif");
    let ours = [
        ("2/700.gif", "removed"),
        ("unannounced/2/700", "removed"),
        ("etag/mine/1/300.gif", "removed"),
        ("redirect/status/404", "removed"),
        ("3/801.gif", "removed"),
        ("unannounced/3/801", "removed"),
    ];
    let always = [
        ("removed/x.jpg", "removed"),
        (imgur_503.as_str(), "removed"),
        (imgur_504.as_str(), "stored"),
        ("1/503.gif", "stored"),
        ("1/700.gif", "stored"),
    ];
    let expected = [&ours[..], &always].concat();
    holds(expect(&origin, &["--placeholders", table.to_str().unwrap()], &expected).path(), 3);
    let without: Vec<_> =
        ours.iter().map(|(path, _)| (*path, if path.contains("404") { "gone" } else { "stored" })).collect();
    holds(expect(&origin, &[], &[&without[..], &always].concat()).path(), 8);
}

#[test]
fn a_table_of_placeholders_that_cannot_be_read_is_named_with_its_line() {
    let queue = RawQueue::shared();
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("mine.toml");
    std::fs::write(&table, "[[placeholder]]\nlength = 5\nsha256 = 'abc'\n").unwrap();
    for (path, says) in
        [(table, "mine.toml:3: \"abc\" is no hash of 64"), (folder.path().join("no"), "cannot read the")]
    {
        let mut command = Worker::command(&queue, folder.path());
        command.arg("--placeholders").arg(path);
        let ended = finish(command, b"", SOON);
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.stderr.contains(says) && ended.stderr.contains("hint: "), "{ended:?}");
    }
}

#[test]
fn an_object_has_the_hash_that_its_job_names_or_is_not_stored() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let payload = |path: &str, hash: &str| format!(r#"{{"url":"{}","sha256":"{hash}"}}"#, origin.url(path));
    let (right, wrong) = (sha256(&gif(1, 900)), sha256(b"something else"));
    let _worker = Worker::start(&queue, storage.path(), &["--concurrency", "1"]);
    let reason = |queue: &mut RawQueue, payload: &str, n: usize| {
        queue.push(payload);
        let result = queue.until_results(n, SOON).remove(n - 1);
        result.get("reason").cloned().unwrap_or_default()
    };
    assert_eq!(reason(&mut queue, &payload("1/900.gif", &wrong), 1), "hash_mismatch");
    holds(storage.path(), 0);
    assert_eq!(reason(&mut queue, &payload("1/900.gif", &right.to_ascii_uppercase()), 2), "");
    assert_eq!(reason(&mut queue, &payload("1/900.gif", &right), 3), "exists");
    assert_eq!(origin.requests("1/900.gif"), 2);
    // What is there is another one: it is downloaded, and stays what it is as that is another one too.
    assert_eq!(reason(&mut queue, &payload("1/900.gif", &wrong), 4), "hash_mismatch");
    assert_eq!(origin.requests("1/900.gif"), 3);
    assert_eq!(objects(storage.path()).into_values().next().as_ref(), Some(&right));
    // What is there was changed by somebody, and is replaced.
    let key = objects(storage.path()).into_keys().next().unwrap();
    std::fs::write(storage.path().join(key), gif(2, 900)).unwrap();
    assert_eq!(reason(&mut queue, &payload("1/900.gif", &right), 5), "");
    assert_eq!(objects(storage.path()).into_values().collect::<Vec<_>>(), [right]);
    // Retries carry the hash along.
    assert_eq!(reason(&mut queue, &payload("flaky/1/x.gif", &wrong), 6), "hash_mismatch");
    for (n, bad) in ["", "12", &"g".repeat(64)].into_iter().enumerate() {
        assert_eq!(reason(&mut queue, &payload("1/900.gif", bad), 7 + n), "unreadable_job");
    }
    assert_eq!(queue.results()[6]["outcome"], "failed");
}

#[test]
fn whole_images_are_decoded_where_that_is_asked_for() {
    let origin = Origin::start();
    let whole =
        ["picture/whole.jpg", "picture/whole.png", "picture/whole.gif", "picture/whole.webp", "picture/late.jpg"];
    let broken = ["picture/half.jpg", "picture/half.png", "picture/half.gif", "picture/half.webp", "picture/bomb.png"];
    let jobs = |reason: &'static str| -> Vec<(&str, &str)> {
        whole.iter().map(|path| (*path, "stored")).chain(broken.iter().map(|path| (*path, reason))).collect()
    };
    // Right by their headers.
    holds(expect(&origin, &[], &jobs("stored")).path(), whole.len() + broken.len());
    for sync in ["none", "batch"] {
        let arguments = ["--verify", "decode", "--sync", sync];
        holds(expect(&origin, &arguments, &jobs("undecodable")).path(), whole.len());
    }
}

#[test]
fn a_bomb_costs_no_memory_and_what_is_there_but_broken_is_downloaded_again() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let worker = Worker::start(&queue, storage.path(), &["--verify", "decode"]);
    queue.push(&origin.url("picture/bomb.png"));
    assert_eq!(queue.until_results(1, SOON)[0]["reason"], "undecodable");
    queue.push(&origin.url("picture/whole.jpg"));
    let stored = queue.until_results(2, SOON).remove(1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kb: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kb < 200 << 10, "{peak_kb} kB, where the pixels would be 17 GB");
    let path = storage.path().join(&stored["key"]);
    std::fs::write(&path, picture("half.jpg").unwrap()).unwrap();
    queue.push(&origin.url("picture/whole.jpg"));
    assert_eq!(queue.until_results(3, SOON)[2].get("reason"), None, "half an image is not there");
    assert_eq!(std::fs::read(&path).unwrap(), picture("whole.jpg").unwrap());
    queue.push(&origin.url("picture/whole.jpg"));
    assert_eq!(queue.until_results(4, SOON)[3]["reason"], "exists");
}
