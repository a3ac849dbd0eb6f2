//! The dashboard is operated as people do: looked at while workers run, by keyboard alone, by mouse, and with links that are traps.

use crate::chrome::Chrome;
use crate::photos::{dead, enqueue, origin};
use harness::{Dashboard, RawQueue, Worker, until};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const HOSTILE: [&str; 4] = [
    "https://x.org/<script>alert(1);window.owned=1</script>",
    "https://x.org/\"><img src=x onerror=\"alert(1);window.owned=1\">",
    "https://x.org/\u{1b}]0;owned\u{7}.jpg",
    "https://x.org/\u{202e}gpj.exe",
];

/// The number on a tile of the overview.
fn tile(name: &str) -> String {
    format!(
        "Number([...document.querySelectorAll('.tile')].find(tile => tile.querySelector('dt').textContent == {})\
         .querySelector('.value').textContent.replaceAll(',', ''))",
        json!(name)
    )
}

#[test]
fn it_is_followed_paused_and_operated() {
    let origin = origin();
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let links: Vec<String> = (0..4000).map(|n| origin.url(&format!("photos/{n}.jpg"))).collect();
    enqueue(&queue, &links);
    for (n, url) in HOSTILE.into_iter().enumerate() {
        dead(&mut queue, n as u32, url, "dns");
    }
    let retried = origin.url("photos/again.jpg");
    dead(&mut queue, 100, &retried, "timeout_total");
    let dropped = origin.url("photos/dropped.jpg");
    dead(&mut queue, 101, &dropped, "timeout_total");
    let _workers = [1, 2].map(|_| Worker::start(&queue, storage.path(), &["--host-rate", "25/s"]));
    let dashboard = Dashboard::start(&queue, storage.path(), &[]);
    let mut chrome = Chrome::start();
    chrome.look(1280, 900, false, "light");
    chrome.open(&dashboard.url("/"));
    chrome.until("the page is live", "document.getElementById('live').textContent == 'live'");

    // Numbers change without the page being loaded again, and pictures come.
    chrome.eval("window.sameAsBefore = 1");
    let first = chrome.eval(&tile("Stored")).as_u64().unwrap();
    chrome.until("more is stored", &format!("{} > {first}", tile("Stored")));
    let second = chrome.eval(&tile("Stored")).as_u64().unwrap();
    chrome.until("and more", &format!("{} > {second}", tile("Stored")));
    chrome.until("a rate is told", &format!("{} > 0", tile("Images a second")));
    chrome.until(
        "thumbnails are there",
        "[...document.querySelectorAll('#pictures img')].filter(img => img.naturalWidth > 50).length > 3",
    );
    assert_eq!(chrome.eval("window.sameAsBefore"), 1);

    // A control that is in use is not taken away: the focus stays, and the rest goes on.
    chrome.tab_to("#dead .buttons button");
    chrome.eval("document.activeElement.dataset.mine = 1");
    let before = chrome.eval(&tile("Stored")).as_u64().unwrap();
    chrome.until("it goes on", &format!("{} > {before} + 40", tile("Stored")));
    assert_eq!(chrome.eval("document.activeElement.dataset.mine"), "1");
    chrome.eval("document.activeElement.blur()");

    // By keyboard alone.
    chrome.open(&dashboard.url("/"));
    let steps = chrome.tab_to("#pause button");
    assert!(steps < 10, "{steps} steps to the most important button");
    let outline = chrome.eval(
        "getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth",
    );
    assert_eq!(outline, "solid3px", "the focus can be seen");
    chrome.press("Enter");
    until("it is paused", SOON, || queue.hash("meta").contains_key("paused").then_some(()));
    chrome.until("and says so", "document.querySelector('#pause button').textContent == 'Resume'");
    chrome.until("loudly", "document.querySelector('#alert').textContent.includes('Paused.')");

    // By mouse. Nothing is claimed, so that what was retried stays where it can be seen.
    until("all is quiet", SOON, || (queue.in_flight_len() == 0).then_some(()));
    let ready = queue.ready_len();
    let button = |url: &str, what: &str| format!("button[aria-label={}]", json!(format!("{what} {url}")));
    chrome.click(&button(&retried, "Retry"));
    chrome.until(
        "it is back",
        "document.querySelector('main > .notice')?.textContent.includes('1 job is back on the queue')",
    );
    assert_eq!((queue.ready_len(), queue.stream("dead").len()), (ready + 1, 5));
    chrome.click(&button(&dropped, "Drop"));
    chrome.until("it is dropped", "document.querySelector('main > .notice')?.textContent.includes('1 job is dropped')");
    assert_eq!((queue.ready_len(), queue.stream("dead").len()), (ready + 1, 4));
    assert!(queue.ready().iter().any(|job| job.contains("again.jpg")));

    // Traps are text: on each page, and as links only where they lead to a page.
    for path in ["/", "/dead", "/results"] {
        chrome.open(&dashboard.url(path));
        assert_eq!(chrome.eval("typeof window.owned"), "undefined", "{path}");
        assert_eq!(chrome.eval("document.title.includes('owned')"), false, "{path}");
        let foreign =
            "[...document.scripts, ...document.images].filter(part => !part.src.startsWith(location.origin)).length";
        assert_eq!(chrome.eval(foreign), 0, "{path}");
    }
    chrome.open(&dashboard.url("/dead"));
    let shown = chrome.eval("document.querySelector('main').textContent");
    for words in
        ["<script>alert(1);window.owned=1</script>", "\"><img src=x onerror=", "\\u{1b}]0;owned", "\\u{202e}gpj.exe"]
    {
        assert!(shown.as_str().unwrap().contains(words), "{words} is not in {shown}");
    }

    // What went on: no request to anywhere else, no dialog, no error, nothing that the policy had to refuse.
    let own = dashboard.url("/");
    let elsewhere: Vec<String> =
        chrome.requested().into_iter().filter(|url| !url.starts_with(&own) && url != "about:blank").collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert!(chrome.requested().len() > 20);
    assert_eq!(chrome.troubles(), Vec::<String>::new());
}

#[test]
fn it_can_be_read_without_scripts() {
    let mut queue = RawQueue::shared();
    dead(&mut queue, 1, "https://x.org/a.jpg", "dns");
    let dashboard = Dashboard::start(&queue, std::path::Path::new("."), &[]);
    let mut chrome = Chrome::start();
    chrome.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    chrome.open(&dashboard.url("/"));
    let words = chrome.eval("document.querySelector('#dead').textContent");
    assert!(words.as_str().unwrap().contains("https://x.org/a.jpg"), "{words}");
    chrome.click("#dead form[action='/dead/retry'] button");
    chrome.until("it is back", "document.querySelector('main > .notice')?.textContent.includes('1 job is back')");
    assert_eq!((queue.ready_len(), queue.stream("dead").len()), (1, 0));
}

#[test]
fn every_control_has_a_name_and_nothing_sticks_out() {
    let mut queue = RawQueue::shared();
    let long = format!("https://x.org/{}.jpg", "x".repeat(900));
    for n in 0..5 {
        dead(&mut queue, n, &long, "timeout_total");
        let fields =
            ["id", "a", "url", &long, "outcome", "stored", "key", &long[8..], "type", "jpeg", "bytes", "70000"];
        queue.run::<String>(&[&["XADD", "@results", "*"], &fields[..]].concat());
        queue.run::<()>(&[
            "HSET",
            "@hosts",
            &format!("{}{n}.example.org", "host".repeat(40)),
            r#"{"level":2,"why":"rate_limited"}"#,
        ]);
    }
    let dashboard = Dashboard::start(&queue, std::path::Path::new("."), &[]);
    let mut chrome = Chrome::start();
    for (width, height, is_phone) in [(390, 844, true), (320, 640, true), (768, 1024, true), (1280, 900, false)] {
        chrome.look(width, height, is_phone, "dark");
        for path in ["/", "/dead", "/results", "/login", "/nothing"] {
            chrome.open(&dashboard.url(path));
            let sticks_out = chrome.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth");
            assert_eq!(sticks_out, 0, "{path} at {width}");
            let nameless = chrome.eval(
                "[...document.querySelectorAll('a, button, input:not([type=hidden]), select, [tabindex]:not(main), progress')].filter(part => \
                 !(part.textContent.trim() || part.getAttribute('aria-label') || part.labels?.length || part.querySelector('img[alt]'))).length",
            );
            assert_eq!(nameless, 0, "{path}");
            let page = "document.documentElement.lang == 'en' && document.title.includes('imgq') && document.querySelectorAll('h1').length == 1";
            assert_eq!(chrome.eval(page), true, "{path}");
        }
    }
    assert_eq!(chrome.troubles(), Vec::<String>::new());
}
