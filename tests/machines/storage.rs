//! A storage that is full, read-only, gone, or slow: workers claim nothing meanwhile, and no job pays for it.
//!
//! Mounts are made in the mount namespace that the whole binary runs in.

use harness::files::{objects, sha256};
use harness::origin::named_gif;
use harness::{Origin, Producer, RawQueue, Worker, until};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A file system of its own, seen by the worker through a bind mount that can be taken away.
struct Storage {
    _folder: tempfile::TempDir,
    real: PathBuf,
    seen: PathBuf,
}

impl Storage {
    fn of_size(size: &str) -> Storage {
        assert!(crate::hosts::is_inside(), "this mounts: run it by scripts/machines-test.sh");
        let folder = tempfile::tempdir().unwrap();
        let (real, seen) = (folder.path().join("real"), folder.path().join("seen"));
        std::fs::create_dir(&real).unwrap();
        std::fs::create_dir(&seen).unwrap();
        run(&["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", text(&real)]);
        let storage = Storage { _folder: folder, real, seen };
        storage.bind();
        storage
    }

    /// One to which `A.gif` and `a.gif` are one file, without links, unnamed files and inodes. `scripts/machines-test.sh` finds
    /// out which kind can be made here.
    fn that_folds_case() -> Storage {
        let kind = std::env::var("IMGQ_TEST_FOLDING_STORAGE").expect("run it by scripts/machines-test.sh");
        let folder = tempfile::tempdir().unwrap();
        let (image, real) = (folder.path().join("image"), folder.path().join("real"));
        std::fs::create_dir(&real).unwrap();
        std::fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
        run(&[&format!("mkfs.{}", kind.trim_end_matches("-fuse")), text(&image)]);
        run(&["mount", "-t", &kind, "-o", "loop", text(&image), text(&real)]);
        // A folder in it: its root has a number even there.
        let seen = real.join("images");
        std::fs::create_dir(&seen).unwrap();
        Storage { _folder: folder, real, seen }
    }

    fn bind(&self) {
        run(&["mount", "--bind", text(&self.real), text(&self.seen)]);
    }

    fn unbind(&self) {
        run(&["umount", "-l", text(&self.seen)]);
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        for path in [&self.seen, &self.real] {
            let _ = Command::new("umount").arg("-l").arg(path).stderr(Stdio::null()).status();
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

struct Scene {
    queue: RawQueue,
    origin: Origin,
    storage: Storage,
    worker: Worker,
}

impl Scene {
    /// A worker that has stored one object.
    fn new(size: &str, arguments: &[&str]) -> Scene {
        let mut queue = RawQueue::shared();
        let (origin, storage) = (Origin::start(), Storage::of_size(size));
        let worker = Worker::start(&queue, &storage.seen, arguments);
        queue.push(&origin.url("999/5000.gif"));
        queue.until_results(1, SOON);
        Scene { queue, origin, storage, worker }
    }

    fn push(&mut self, jobs: u64, bytes: u64) {
        for n in 0..jobs {
            self.queue.push(&self.origin.url(&format!("{n}/{bytes}.gif")));
        }
    }

    fn until_it_waits(&self, why: &str) {
        until("it says that the storage cannot be used", SOON, || {
            let told = Producer::run(&self.queue, &["workers"]).stdout;
            (told.contains("the storage cannot be used") && told.contains(why)).then_some(())
        });
    }

    /// Everything is stored in its first attempt, and lies where it should.
    fn all_stored(&mut self, results: usize) {
        let found = self.queue.until_results(results, Duration::from_secs(60));
        assert!(found.iter().all(|r| r["outcome"] == "stored" && r["attempts"] == "1"), "{found:?}");
        assert_eq!(found.len(), results);
        let there = objects(&self.storage.real);
        assert_eq!(there.len(), results);
        assert!(found.iter().all(|result| there[&result["key"]] == result["sha256"]));
        until("nothing is left", SOON, || (self.queue.ready_len() + self.queue.in_flight_len() == 0).then_some(()));
        until("it does not wait any more", SOON, || {
            let told = Producer::run(&self.queue, &["workers"]).stdout;
            (!told.contains("cannot be used")).then_some(())
        });
    }
}

#[test]
fn a_full_disk_stops_claiming_and_costs_no_job_an_attempt() {
    let mut scene = Scene::new("8m", &[]);
    scene.push(40, 500_000);
    scene.until_it_waits("No space left");
    assert!(scene.queue.results_len() < 41);
    run(&["mount", "-o", "remount,size=64m", text(&scene.storage.real)]);
    scene.all_stored(41);
}

#[test]
fn a_read_only_storage_stops_claiming_until_it_can_be_written_to() {
    let mut scene = Scene::new("64m", &[]);
    run(&["mount", "-o", "remount,bind,ro", text(&scene.storage.seen)]);
    scene.push(50, 5000);
    scene.until_it_waits("Read-only");
    assert_eq!(scene.queue.results_len(), 1);
    run(&["mount", "-o", "remount,bind,rw", text(&scene.storage.seen)]);
    scene.all_stored(51);
}

#[test]
fn a_storage_that_disappears_and_returns_has_everything_in_the_end() {
    let mut scene = Scene::new("64m", &[]);
    scene.storage.unbind();
    scene.push(50, 5000);
    scene.until_it_waits("another");
    assert_eq!(scene.queue.results_len(), 1);
    let astray = objects(&scene.storage.seen);
    assert!(astray.is_empty(), "stored in the folder that the mount had left: {astray:?}");
    scene.storage.bind();
    scene.all_stored(51);
}

#[test]
fn a_storage_that_folds_case_has_an_object_for_each_url() {
    let mut queue = RawQueue::shared();
    let (origin, storage) = (Origin::start(), Storage::that_folds_case());
    let names = ["A.gif", "a.gif", "WS2LFCw.gif", "ws2lfcw.gif", "holidays-in-rome.gif", "holida~1.gif"];
    let urls = names.map(|name| origin.url(&format!("named/{name}")));
    let all_are = |results: &[BTreeMap<String, String>], reason: &str| {
        let there = objects(&storage.seen);
        assert_eq!(there.len(), names.len(), "{there:?}");
        for (name, url) in names.iter().zip(&urls) {
            let result = results.iter().rfind(|result| result["url"] == *url).unwrap();
            let found = (result["outcome"].as_str(), result.get("reason").map_or("", String::as_str));
            assert_eq!((found, result["attempts"].as_str()), (("stored", reason), "1"), "{result:?}");
            let sent = sha256(&named_gif(name));
            assert_eq!((&there[&result["key"]], &result["sha256"]), (&sent, &sent), "{name}");
        }
    };
    for (run, reason) in ["", "exists"].into_iter().enumerate() {
        let worker = Worker::start(&queue, &storage.seen, &[]);
        urls.iter().for_each(|url| queue.push(url));
        all_are(&queue.until_results(names.len() * (run + 1), SOON), reason);
        worker.kill();
    }
    let stored_next = |queue: &mut RawQueue, name: &str| {
        let already = queue.results_len();
        queue.push(&origin.url(&format!("named/{name}")));
        let results = queue.until_results(already + 1, SOON);
        assert_eq!(results[already]["outcome"], "stored", "{results:?}");
        assert_eq!(objects(&storage.seen)[&results[already]["key"]], sha256(&named_gif(name)));
    };
    for sync in ["file", "batch"] {
        let worker = Worker::start(&queue, &storage.seen, &["--sync", sync]);
        stored_next(&mut queue, &format!("{sync}.gif"));
        worker.kill();
    }
    // Everything is read in anew, and nobody mistakes the storage for another one.
    let worker = Worker::start(&queue, &storage.seen, &[]);
    stored_next(&mut queue, "one.gif");
    run(&["mount", "-i", "-o", "remount,rw", text(&storage.real)]);
    std::fs::remove_dir_all(storage.seen.join(".imgq-tmp")).unwrap();
    stored_next(&mut queue, "another.gif");
    drop(worker);
}

#[test]
fn one_worker_s_broken_storage_leaves_the_jobs_to_the_others() {
    let mut scene = Scene::new("64m", &[]);
    run(&["mount", "-o", "remount,bind,ro", text(&scene.storage.seen)]);
    let healthy = Worker::start(&scene.queue, &scene.storage.real, &[]);
    scene.queue.until_workers(2);
    scene.push(50, 5000);
    let found = scene.queue.until_results(51, SOON);
    assert!(found.iter().all(|r| r["outcome"] == "stored" && r["attempts"] == "1"), "{found:?}");
    drop(healthy);
}

/// A tracer that holds on to a worker until this is dropped.
struct Tracer(std::process::Child);

impl Tracer {
    fn that_delays_names(worker: &Worker, by_ms: u64) -> Tracer {
        Tracer::that_delays(worker, "/^(rename|linkat)", by_ms)
    }

    fn that_delays(worker: &Worker, calls: &str, by_ms: u64) -> Tracer {
        let inject = format!("inject={calls}:delay_enter={}", by_ms * 1000);
        Tracer::of(worker, Path::new("/dev/null"), &["-e", &format!("trace={calls}"), "-e", &inject])
    }

    fn of(worker: &Worker, log: &Path, arguments: &[&str]) -> Tracer {
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o", text(log), "-p", &worker.pid().to_string()])
            .args(arguments)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let status = format!("/proc/{}/status", worker.pid());
        until("it is traced", SOON, || {
            let traced = std::fs::read_to_string(&status)
                .unwrap()
                .lines()
                .any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"));
            traced.then_some(())
        });
        Tracer(child)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Asked politely it lets go of the worker.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn a_slow_storage_makes_things_slow_and_nothing_else() {
    let mut scene = Scene::new("64m", &[]);
    let delay = Tracer::that_delays_names(&scene.worker, 100);
    scene.push(50, 5000);
    scene.all_stored(51);
    drop(delay);
}

#[test]
fn a_storage_that_is_stuck_stops_claiming_and_costs_no_job_an_attempt() {
    let mut scene = Scene::new("64m", &["--total-timeout", "15s", "--concurrency", "8"]);
    let delay = Tracer::that_delays_names(&scene.worker, 20_000);
    scene.push(20, 5000);
    scene.until_it_waits("does not answer");
    // Longer than a job may take.
    let later = std::time::Instant::now() + Duration::from_secs(8);
    until("a while", SOON, || (std::time::Instant::now() > later).then_some(()));
    drop(delay);
    scene.all_stored(21);
}

#[test]
fn a_sync_that_hangs_stops_claiming_and_costs_no_job_an_attempt() {
    // A job's time is over before anybody can know that the storage is stuck.
    let mut scene = Scene::new("64m", &["--sync", "batch", "--total-timeout", "3s", "--concurrency", "8"]);
    let delay = Tracer::that_delays(&scene.worker, "syncfs", 25_000);
    scene.push(20, 5000);
    scene.until_it_waits("does not answer");
    drop(delay);
    scene.all_stored(21);
}

/// What a worker with this setting does for objects, call by call, until they are reported.
fn calls_for_objects(sync: &str, jobs: u64) -> Vec<String> {
    let mut scene = Scene::new("64m", &["--sync", sync]);
    let log = scene.storage.real.join(".calls");
    let tracer = Tracer::of(&scene.worker, &log, &["-e", "trace=/^(f(data)?sync|syncfs|rename.*|linkat)$"]);
    scene.origin.hold();
    // In a folder that is there: a rename into one that is not fails once.
    for n in 0..jobs {
        scene.queue.push(&scene.origin.url(&format!("999/5000.gif?{n}")));
    }
    until("all are being downloaded", SOON, || (scene.queue.in_flight_len() == jobs as usize).then_some(()));
    scene.origin.let_go();
    scene.queue.until_results(jobs as usize + 1, SOON);
    drop(tracer);
    let log = std::fs::read_to_string(log).unwrap();
    // "1234  rename(…": the thread, and the call.
    // A name is given by a rename or a link, whichever the system can do.
    let call = |line: &str| Some(line.split_whitespace().nth(1)?.split('(').next()?.replace("linkat", "rename"));
    log.lines().filter(|line| !line.contains("resumed")).filter_map(call).collect()
}

#[test]
fn objects_are_made_durable_as_the_setting_says_before_they_are_reported() {
    let count = |calls: &[String], name: &str| calls.iter().filter(|call| call.starts_with(name)).count();
    let none = calls_for_objects("none", 8);
    assert_eq!((count(&none, "rename"), none.len()), (8, 8), "{none:?}");

    let file = calls_for_objects("file", 8);
    assert_eq!(count(&file, "rename"), 8);
    assert!(count(&file, "fsync") >= 16, "the data and the name of each: {file:?}");

    let batch = calls_for_objects("batch", 8);
    assert_eq!(count(&batch, "rename"), 8);
    let syncs = count(&batch, "syncfs");
    assert!(syncs >= 2 && syncs % 2 == 0 && count(&batch, "fsync") == 0, "{batch:?}");
    let first = |name: &str| batch.iter().position(|call| call.starts_with(name)).unwrap();
    let last = |name: &str| batch.iter().rposition(|call| call.starts_with(name)).unwrap();
    assert!(first("syncfs") < first("rename") && last("rename") < last("syncfs"), "data, names: {batch:?}");
}
