//! Under which names objects lie, where that depends on the storage.

use harness::files::objects;
use harness::{Origin, RawQueue, Worker, until};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn keys(results: &[BTreeMap<String, String>]) -> BTreeMap<String, String> {
    results.iter().map(|result| (result["url"].clone(), result["key"].clone())).collect()
}

fn note_that_it_folds_case(storage: &Path) {
    std::fs::create_dir_all(storage.join(".imgq-tmp")).unwrap();
    std::fs::write(storage.join(".imgq-tmp/folds-case"), b"").unwrap();
}

#[test]
fn the_storage_keeps_names_as_they_are_where_it_can() {
    let (mut queue, origin, storage) = (RawQueue::shared(), Origin::start(), tempfile::tempdir().unwrap());
    let _worker = Worker::start(&queue, storage.path(), &[]);
    let urls = ["A.gif", "a.gif"].map(|name| origin.url(&format!("named/{name}")));
    urls.iter().for_each(|url| queue.push(url));
    let keys = keys(&queue.until_results(2, SOON));
    let host = origin.url("").trim_start_matches("http://").trim_end_matches('/').replace(':', "@");
    assert_eq!(keys[&urls[0]], format!("{host}/named/A.gif"));
    assert_eq!(keys[&urls[1]], format!("{host}/named/a.gif"));
    assert!(!storage.path().join(".imgq-tmp/folds-case").exists());
}

#[test]
fn where_one_worker_found_that_case_is_folded_all_have_keys_that_are_distinct_there() {
    let (mut queue, origin, storage) = (RawQueue::shared(), Origin::start(), tempfile::tempdir().unwrap());
    note_that_it_folds_case(storage.path());
    let urls = ["A.gif", "a.gif", "%2b.gif", "%2B.gif"].map(|name| origin.url(&format!("named/{name}")));
    for run in 1..=2 {
        let worker = Worker::start(&queue, storage.path(), &[]);
        urls.iter().for_each(|url| queue.push(url));
        let results = queue.until_results(urls.len() * run, SOON);
        let there = objects(storage.path());
        assert_eq!(there.len(), urls.len(), "{there:?}");
        let reason = if run == 1 { "" } else { "exists" };
        for result in results.iter().skip(urls.len() * (run - 1)) {
            let found = (result["outcome"].as_str(), result.get("reason").map_or("", String::as_str));
            assert_eq!(found, ("stored", reason), "{result:?}");
            assert_eq!(there[&result["key"]], result["sha256"]);
        }
        let mut folded: Vec<String> = there.keys().map(|key| key.to_lowercase()).collect();
        folded.dedup();
        assert_eq!(folded.len(), urls.len(), "{there:?}");
        worker.kill();
    }
}

#[test]
fn a_worker_that_runs_hears_of_another_that_found_out() {
    let (mut queue, origin, storage) = (RawQueue::shared(), Origin::start(), tempfile::tempdir().unwrap());
    let _worker = Worker::start(&queue, storage.path(), &[]);
    queue.push(&origin.url("named/First.gif"));
    assert!(queue.until_results(1, SOON)[0]["key"].ends_with("/named/First.gif"));
    note_that_it_folds_case(storage.path());
    let mut pushed = 1;
    until("a key is another", SOON, || {
        queue.push(&origin.url(&format!("named/Next-{pushed}.gif")));
        pushed += 1;
        let newest = queue.until_results(pushed, SOON).pop().unwrap();
        newest["key"].contains('~').then_some(())
    });
}
