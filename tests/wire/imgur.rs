//! Imgur as a source, against an Imgur that behaves like Imgur: every place, with and without a client id, and its budget.

use crate::first_run::with_imgur;
use harness::imgur::catalog::Item;
use harness::imgur::{Config, Fault, Imgur};
use harness::programs::{Finished, finish};
use harness::{Producer, RawQueue};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn run(queue: &RawQueue, imgur: &Imgur, client_id: Option<&str>, arguments: &[&str]) -> Finished {
    let mut command = with_imgur(Producer::command(queue, arguments), imgur);
    match client_id {
        Some(id) => command.env("IMGUR_CLIENT_ID", id),
        None => command.env_remove("IMGUR_CLIENT_ID"),
    };
    finish(command, b"", SOON)
}

/// An album and a single image of the first page of a gallery.
fn album_and_image(imgur: &Imgur) -> (harness::imgur::catalog::Album, harness::imgur::catalog::Image) {
    let (mut album, mut image) = (None, None);
    for item in imgur.catalog().page("random", 0) {
        match item {
            Item::Album(one) => album = Some(one),
            Item::Image(one) => image = Some(one),
        }
    }
    (album.unwrap(), image.unwrap())
}

#[test]
fn every_source_is_asked_for_where_imgur_has_it() {
    let imgur = Imgur::start(Config::default());
    let (album, _) = album_and_image(&imgur);
    for (source, path) in [
        ("imgur:random", "/3/gallery/random/random/0"),
        ("imgur:hot", "/3/gallery/hot/viral/day/0"),
        ("imgur:top", "/3/gallery/top/top/day/0"),
        ("imgur:top/month", "/3/gallery/top/top/month/0"),
        ("imgur:user/somebody", "/3/account/somebody/submissions/0"),
        ("imgur:r/aww", "/3/gallery/r/aww/time/week/0"),
        ("imgur:r/aww/top/month", "/3/gallery/r/aww/top/month/0"),
        ("imgur:t/cats/time/all", "/3/gallery/t/cats/time/all/0"),
        ("imgur:search/grumpy cat", "/3/gallery/search/time/all/0?q=grumpy+cat"),
        ("imgur:search/grumpy cat/top/year", "/3/gallery/search/top/year/0?q=grumpy+cat"),
        (&format!("imgur:a/{}", album.id), &format!("/3/album/{}", album.id)),
    ] {
        let mut queue = RawQueue::shared();
        let before = imgur.requests().len();
        let enqueued = run(&queue, &imgur, Some("sources"), &["enqueue", source, "--json"]);
        assert_eq!(enqueued.code, 0, "{source}: {enqueued:?}");
        assert_eq!(imgur.requests()[before], path, "{source}");
        assert!(queue.ready_len() > 0 && enqueued.json()["rejected"] == 0, "{source}: {enqueued:?}");
    }
}

#[test]
fn all_pages_are_read_until_an_empty_one() {
    let imgur = Imgur::start(Config { pages: 3, ..Config::default() });
    let mut queue = RawQueue::shared();
    let enqueued = run(&queue, &imgur, Some("pages"), &["enqueue", "imgur:user/somebody", "--pages", "all", "--json"]);
    let pages: Vec<_> = imgur.requests().into_iter().filter(|path| path.contains("/submissions/")).collect();
    let expected: Vec<_> = (0..4).map(|page| format!("/3/account/somebody/submissions/{page}")).collect();
    assert_eq!(pages, expected, "{enqueued:?}");
    let all: usize = (0..3).map(|page| imgur.catalog().images_of_page("user/somebody", page).len()).sum();
    let json = enqueued.json();
    assert_eq!(json["enqueued"].as_u64().unwrap() + json["duplicates"].as_u64().unwrap(), all as u64, "{enqueued:?}");
    assert!(queue.ready_len() > 0);
}

#[test]
fn page_links_of_every_kind_are_expanded() {
    let imgur = Imgur::start(Config::default());
    let (album, image) = album_and_image(&imgur);
    let (web, album_images) = (imgur.web_url(), album.images.len());
    let page_images = |gallery: &str| imgur.catalog().images_of_page(gallery, 0).len();
    for (link, images) in [
        (format!("{web}/{}", image.id), 1),
        (format!("{web}/a/{}", album.id), album_images),
        (format!("{web}/a/some-words-{}", album.id), album_images),
        (format!("{web}/gallery/{}", album.id), album_images),
        (format!("{web}/gallery/some-words-{}", image.id), 1),
        (format!("{web}/t/cats/{}", album.id), album_images),
        (format!("{web}/r/aww/{}", image.id), 1),
        (format!("{web}/user/somebody"), page_images("user/somebody")),
        (format!("{web}/t/cats"), page_images("t/cats")),
        (format!("{web}/r/aww"), page_images("r/aww")),
    ] {
        let queue = RawQueue::shared();
        let enqueued = run(&queue, &imgur, Some("links"), &["enqueue", &link, "--json"]);
        assert_eq!(enqueued.code, 0, "{link}: {enqueued:?}");
        let json = enqueued.json();
        let found = json["enqueued"].as_u64().unwrap() + json["duplicates"].as_u64().unwrap();
        assert_eq!(found, images as u64, "{link}: {enqueued:?}");
    }
}

#[test]
fn without_a_client_id_what_needs_none_works_and_the_rest_says_what_to_do() {
    let imgur = Imgur::start(Config::default());
    let (album, image) = album_and_image(&imgur);
    let mut queue = RawQueue::shared();
    for source in ["imgur:random", "imgur:r/aww", "imgur:search/cats", &format!("{}/user/somebody", imgur.web_url())] {
        let refused = run(&queue, &imgur, None, &["enqueue", source]);
        assert_eq!(refused.code, 1, "{source}: {refused:?}");
        assert!(refused.stderr.contains("client id") && refused.stderr.contains("hint: "), "{source}: {refused:?}");
    }
    assert_eq!((queue.ready_len(), imgur.requests().len()), (0, 0), "nobody was asked");
    let web = imgur.web_url();
    let links = [format!("{web}/a/{}", album.id), format!("{web}/gallery/{}", album.id), format!("{web}/{}", image.id)];
    let mut arguments = vec!["enqueue", "--json"];
    arguments.extend(links.iter().map(String::as_str));
    let enqueued = run(&queue, &imgur, None, &arguments);
    assert_eq!(enqueued.code, 0, "{enqueued:?}");
    assert_eq!(enqueued.json()["enqueued"], album.images.len() + 1);
    assert!(imgur.requests().iter().all(|path| !path.starts_with("/3/")), "the API was not asked");
}

#[test]
fn the_day_s_budget_is_shared_by_all_producers_and_never_used_up() {
    // Each answer takes one of the client's requests; imgq stops before the last fifty.
    let imgur = Imgur::start(Config { client_credits: 52, ..Config::default() });
    let mut queue = RawQueue::shared();
    let enqueue = |queue: &RawQueue| run(queue, &imgur, Some("sesame"), &["enqueue", "imgur:t/cats", "--pages", "9"]);
    let first = enqueue(&queue);
    assert_eq!(first.code, 1, "{first:?}");
    assert!(first.stderr.contains("49 requests left for today") && first.stderr.contains("tomorrow"), "{first:?}");
    let (asked, enqueued) = (imgur.requests().len(), queue.ready_len());
    assert!(asked == 3 && enqueued > 0, "{asked} requests, {enqueued} links");
    // Another process, and another queue of the same Redis, stop before they ask.
    for queue in [&queue, &RawQueue::shared()] {
        let next = enqueue(queue);
        assert!(next.code == 1 && next.stderr.contains("49 requests left for today"), "{next:?}");
    }
    assert_eq!(imgur.requests().len(), asked);
    let keys: Vec<String> = queue.run(&["KEYS", "imgq:imgur:*"]);
    assert!(!keys.is_empty() && keys.iter().all(|key| !key.contains("sesame")), "{keys:?}");
    // Another id has a budget of its own.
    let other = run(&queue, &imgur, Some("another"), &["enqueue", "imgur:hot", "--limit", "1"]);
    assert!(imgur.requests().len() > asked, "{other:?}");
}

#[test]
fn what_is_left_is_told_and_remembered() {
    let imgur = Imgur::start(Config { client_credits: 1000, ..Config::default() });
    let queue = RawQueue::shared();
    let told = run(&queue, &imgur, Some("credits"), &["imgur-credits", "--json"]);
    assert_eq!(told.code, 0, "{told:?}");
    let json = told.json();
    assert_eq!((json["client_limit"].as_u64(), json["client_remaining"].as_u64()), (Some(12_500), Some(999)));
    assert_eq!(json["user_limit"], 500);
    let text = run(&queue, &imgur, Some("credits"), &["imgur-credits"]).stdout;
    assert!(text.contains("of 12500 requests left today") && text.contains("of 500 requests left"), "{text}");
    let without = run(&queue, &imgur, None, &["imgur-credits"]);
    assert!(without.code == 1 && without.stderr.contains("client id"), "{without:?}");
}

#[test]
fn over_capacity_is_waited_out_with_a_notice() {
    let imgur = Imgur::start(Config::default());
    let mut queue = RawQueue::shared();
    imgur.fail_next(&[Fault::OverCapacity]);
    let waited = run(&queue, &imgur, Some("capacity"), &["enqueue", "imgur:hot", "--limit", "2"]);
    assert_eq!((waited.code, queue.ready_len()), (0, 2), "{waited:?}");
    assert!(waited.stderr.contains("over capacity; waiting"), "{waited:?}");
}
