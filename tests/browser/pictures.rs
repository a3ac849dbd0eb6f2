//! Pictures of the dashboard for the README: a queue of some size while two workers run, on a desktop and a phone, light and dark.

use crate::chrome::Chrome;
use crate::photos::{dead, enqueue, slow_origin};
use harness::{Dashboard, RawQueue, Redis, Worker};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use std::path::PathBuf;

#[test]
fn four_pictures_are_taken() {
    let origin = slow_origin();
    let redis = Redis::private(&[]);
    // Its name is in the picture.
    let mut queue = RawQueue::on(&redis);
    queue.name = "photos".into();
    let storage = tempfile::tempdir().unwrap();
    a_past(&mut queue);
    let links = (0..14_000).map(|n| origin.url(&format!("{}/{n}.jpg", if n % 29 == 7 { "gone" } else { "photos" })));
    enqueue(&queue, &links.collect::<Vec<_>>());
    // Begun when the past began.
    let batch: Vec<String> = queue.run(&["ZRANGE", "@batches", "0", "0"]);
    let began_ms = (now_ms(&mut queue) - 7_260_000).to_string();
    queue.run::<()>(&["ZADD", "@batches", &began_ms, &batch[0]]);
    queue.run::<()>(&["HSET", &format!("@batch:{}", batch[0]), "started", &began_ms]);
    for (n, reason) in ["timeout_total", "connect", "timeout_total", "http_5xx", "dns"].into_iter().enumerate() {
        dead(&mut queue, n as u32, &format!("https://images.example.org/2026/{}.jpg", 4711 + n * 13), reason);
    }
    let held_until_ms = now_ms(&mut queue) + 95_000;
    let held = serde_json::json!({ "tat": 0, "ends": held_until_ms, "level": 3, "why": "rate_limited" }).to_string();
    queue.run::<()>(&["HSET", "@hosts", "slow.example.net", &held]);
    let _workers = [1, 2].map(|_| Worker::start(&queue, storage.path(), &["--concurrency", "5"]));
    let dashboard = Dashboard::start(&queue, storage.path(), &[]);
    let mut chrome = Chrome::start();
    let kept = std::env::var_os("IMGQ_SCREENSHOTS").map(PathBuf::from);
    let folder = kept.unwrap_or_else(|| storage.path().to_owned());
    std::fs::create_dir_all(&folder).unwrap();
    for (name, width, height, is_phone) in [("desktop", 1280, 900, false), ("phone", 390, 844, true)] {
        for scheme in ["light", "dark"] {
            chrome.look(width, height, is_phone, scheme);
            chrome.open(&dashboard.url("/"));
            chrome.until("the page is live", "document.getElementById('live').textContent == 'live'");
            chrome.until("there is a rate", "document.querySelectorAll('.large .value')[0].textContent > '1'");
            let near = "[...document.querySelectorAll('#pictures img')].filter(img => img.clientWidth > 0 && img.getBoundingClientRect().top < innerHeight)";
            chrome.until("pictures are there", &format!("document.querySelectorAll('#pictures img').length > 15 && {near}.every(img => img.complete && img.naturalWidth > 50)"));
            let picture = chrome.screenshot();
            let read = image::load_from_memory(&picture).unwrap();
            assert_eq!((read.width(), read.height()), (width, height));
            // Light is light, and dark is dark.
            let corner = read.to_rgb8().get_pixel(2, height - 2).0;
            assert_eq!(corner.iter().all(|channel| *channel > 200), scheme == "light", "{scheme}: {corner:?}");
            let path = folder.join(format!("dashboard-{name}-{scheme}.png"));
            std::fs::write(&path, smaller(&read)).unwrap();
            println!("{}", path.display());
        }
    }
}

/// As few bytes as PNG takes for it, without the two bits of each channel that nobody sees.
fn smaller(picture: &image::DynamicImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut picture = picture.to_rgb8();
    picture.iter_mut().for_each(|channel| *channel = *channel & 0xfc | *channel >> 6);
    let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::Adaptive);
    picture.write_with_encoder(encoder).unwrap();
    bytes
}

fn now_ms(queue: &mut RawQueue) -> u64 {
    let (seconds, _): (u64, u64) = queue.run(&["TIME"]);
    seconds * 1000
}

/// Two hours of work, as heartbeats would have left it.
fn a_past(queue: &mut RawQueue) {
    let mut random = fastrand::Rng::with_seed(4);
    let start_ms = now_ms(queue) - 7_200_000;
    let (mut stored, mut rejected, mut failed, mut ready) = (212_400_f64, 5_800_f64, 310_f64, 290_000_f64);
    let mut pace = 36.0;
    for n in 0..720_u64 {
        let hour = n as f64 / 360.0;
        pace += (36.0 + 9.0 * (hour * 5.0).sin() - pace) * 0.08 + (random.f64() - 0.5) * 2.6;
        // A host was away for a while.
        let away = if (300..345).contains(&n) { 0.45 } else { 1.0 };
        let now = pace * away * 10.0;
        stored += now;
        rejected += now * (0.035 + 0.02 * random.f64());
        failed += if away < 1.0 { 14.0 * random.f64() } else { 0.3 };
        ready -= now * 1.04;
        let delayed = if (300..380).contains(&n) {
            900.0 * (1.0 - (n as f64 - 330.0).abs() / 60.0).max(0.05)
        } else {
            24.0 + 9.0 * random.f64()
        };
        let line = format!(
            "{} {} {} 5 {} {} {} {}",
            start_ms + n * 10_000,
            ready.max(0.0) as u64,
            delayed as u64,
            stored as u64,
            rejected as u64,
            failed as u64,
            (stored * 91_000.0) as u64
        );
        queue.run::<()>(&["RPUSH", "@history:10s", &line]);
    }
    let (stored, rejected, failed) = (stored as u64, rejected as u64, failed as u64);
    for (name, n) in [
        ("stored", stored),
        ("stored:exists", 3120),
        ("rejected", rejected),
        ("rejected:gone", rejected * 6 / 10),
        ("rejected:removed", rejected * 2 / 10),
        ("rejected:not_image", rejected - rejected * 6 / 10 - rejected * 2 / 10),
        ("failed", failed),
        ("failed:timeout_total", failed / 2),
        ("failed:http_5xx", failed / 3),
        ("failed:connect", failed - failed / 2 - failed / 3),
        ("bytes", stored * 91_000),
    ] {
        queue.run::<()>(&["HSET", "@stats", name, &n.to_string()]);
    }
}
