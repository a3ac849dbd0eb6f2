//! From a gallery to pictures on disk, by two workers in two processes.

use harness::files::{objects, sha256};
use harness::imgur::{Config, Fault, Imgur};
use harness::programs::finish;
use harness::{Producer, RawQueue, Worker};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

pub(crate) fn with_imgur(mut command: Command, imgur: &Imgur) -> Command {
    command
        .env("IMGUR_API_URL", imgur.api_url())
        .env("IMGUR_WEB_URL", imgur.web_url())
        .env("IMGUR_IMAGE_URL", imgur.image_url())
        .env("IMGUR_CLIENT_ID", "test");
    command
}

#[test]
fn two_pages_of_a_gallery_are_stored_by_two_workers_once_each() {
    let imgur = Imgur::start(Config { latency: Duration::from_millis(30), ..Config::default() });
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let workers = [1, 2].map(|_| Worker::start(&queue, storage.path(), &["--concurrency", "6"]));
    queue.until_workers(2);

    let enqueue = Producer::command(&queue, &["enqueue", "imgur:random", "--pages", "2", "--json"]);
    let enqueued = finish(with_imgur(enqueue, &imgur), b"", Duration::from_secs(60));
    assert_eq!(enqueued.code, 0, "{enqueued:?}");

    // Every image of both pages and of their albums, and what was served for it.
    let expected: BTreeMap<String, String> = [0, 1]
        .iter()
        .flat_map(|page| imgur.catalog().images_of_page("random", *page))
        .map(|image| {
            let link = format!("{}/{}.{}", imgur.image_url(), image.id, image.format.extension());
            (link, sha256(&imgur.catalog().file(&image)))
        })
        .collect();
    let summary = enqueued.json();
    assert_eq!(summary["enqueued"], expected.len());
    assert_eq!(summary["duplicates"], 0);
    assert_eq!(summary["rejected"], 0);

    let waited = Producer::run(&queue, &["wait", summary["batch"].as_str().unwrap(), "--timeout", "60s"]);
    assert_eq!(waited.code, 0, "{waited:?}");
    assert!(waited.stdout.lines().last().unwrap().starts_with("Took "), "{waited:?}");

    let results = queue.results();
    let by_url: BTreeMap<String, String> =
        results.iter().map(|result| (result["url"].clone(), result["sha256"].clone())).collect();
    assert_eq!(results.len(), expected.len(), "one result each, none twice");
    assert_eq!(by_url, expected);
    let by_worker: BTreeSet<&String> = results.iter().map(|result| &result["worker"]).collect();
    assert_eq!(by_worker.len(), 2, "both workers took part");

    let on_disk = objects(storage.path());
    let reported: BTreeMap<String, String> =
        results.iter().map(|result| (result["key"].clone(), result["sha256"].clone())).collect();
    assert_eq!(on_disk, reported);
    for result in &results {
        let path = storage.path().join(&result["key"]);
        assert_eq!(std::fs::metadata(path).unwrap().len().to_string(), result["bytes"]);
        assert_eq!(result["outcome"], "stored");
        assert_eq!(result["batch"], summary["batch"].as_str().unwrap());
    }
    drop(workers);
}

#[test]
fn imgur_s_errors_are_waited_out_or_told() {
    let imgur = Imgur::start(Config::default());
    let mut queue = RawQueue::shared();
    let enqueue = |queue: &RawQueue, source: &str| {
        let command = Producer::command(queue, &["enqueue", source, "--json", "--limit", "3"]);
        finish(with_imgur(command, &imgur), b"", Duration::from_secs(60))
    };
    imgur.fail_next(&[Fault::HtmlBadGateway, Fault::TruncatedJson]);
    let passing = enqueue(&queue, "imgur:random");
    assert_eq!((passing.code, queue.ready_len()), (0, 3), "{passing:?}");

    imgur.fail_next(&[Fault::TooManyRequests]);
    let limited = enqueue(&queue, "imgur:hot");
    assert_eq!((limited.code, queue.ready_len()), (0, 6), "{limited:?}");

    for fault in [Fault::NestedError, Fault::ErrorInsideSuccess] {
        imgur.fail_next(&[fault]);
        let refused = enqueue(&queue, "imgur:user/somebody");
        assert_eq!(refused.code, 1, "{fault:?}: {refused:?}");
        assert!(refused.stderr.contains("error: "), "{refused:?}");
    }
    assert_eq!(queue.ready_len(), 6);
}

#[test]
fn an_album_by_link_needs_no_client_id() {
    let imgur = Imgur::start(Config::default());
    // The simulator knows an album once a listing showed it.
    let album = imgur
        .catalog()
        .page("random", 0)
        .into_iter()
        .find_map(|item| match item {
            harness::imgur::catalog::Item::Album(album) => Some(album),
            harness::imgur::catalog::Item::Image(_) => None,
        })
        .unwrap();
    let mut queue = RawQueue::shared();
    let link = format!("{}/a/some-title-{}", imgur.web_url(), album.id);
    let mut command = with_imgur(Producer::command(&queue, &["enqueue", &link, "--json"]), &imgur);
    let enqueued = finish(
        std::mem::replace(command.env_remove("IMGUR_CLIENT_ID"), Command::new("true")),
        b"",
        Duration::from_secs(30),
    );
    assert_eq!(enqueued.code, 0, "{enqueued:?}");
    assert_eq!(enqueued.json()["enqueued"], album.images.len());
    let ready = queue.ready().join(" ");
    for image in &album.images {
        assert!(ready.contains(&format!("{}/{}.", imgur.image_url(), image.id)), "{} is missing", image.id);
    }
}

#[test]
fn a_removed_image_is_rejected_and_nothing_is_stored() {
    let imgur = Imgur::start(Config { removed_every: 1, ..Config::default() });
    let image = imgur.catalog().images_of_page("random", 0).remove(0);
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &[]);
    queue.push(&format!("{}/{}.jpg", imgur.image_url(), image.id));
    queue.push(&format!("{}/removed.png", imgur.image_url()));
    for result in queue.until_results(2, Duration::from_secs(20)) {
        assert_eq!((result["outcome"].as_str(), result["reason"].as_str()), ("rejected", "removed"));
    }
    assert!(objects(storage.path()).is_empty());
}
