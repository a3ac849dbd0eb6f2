//! What others put into the storage, who can write there as well: links, pipes and folders under the names that a worker uses. Nothing
//! outside of the storage is read, written or removed, and no worker stands still.

use harness::files::sha256;
use harness::origin::gif;
use harness::programs::finish;
use harness::{Origin, RawQueue, Worker, until};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);

/// A storage, and a folder beside it that is none of a worker's business.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        for name in ["storage", "outside"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Place { folder }
    }

    fn storage(&self) -> PathBuf {
        self.folder.path().join("storage")
    }

    fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    /// What lies outside.
    fn names_outside(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.outside()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// The key of a link, as a worker chooses it in a storage of its own.
fn key_of(link: &str) -> String {
    let mut queue = RawQueue::shared();
    let storage = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&queue, storage.path(), &[]);
    queue.push(link);
    queue.until_results(1, SOON).remove(0)["key"].clone()
}

fn make_pipe(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(0o666)).unwrap();
}

fn is_regular(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|facts| facts.is_file())
}

/// Two hours ago: what is that old and unfinished is removed.
fn make_old(path: &Path) {
    let then = SystemTime::now() - Duration::from_secs(7200);
    std::fs::File::open(path).unwrap().set_modified(then).unwrap();
}

#[test]
fn what_stands_under_an_object_s_name_is_replaced_and_not_followed() {
    let origin = Origin::start();
    let links = ["1/700.gif", "2/700.gif", "3/700.gif", "4/700.gif"].map(|path| origin.url(path));
    let [pipe, outer, dangling, inner] = links.each_ref().map(|link| key_of(link));
    for sync in ["none", "file", "batch"] {
        let place = Place::new();
        let at = |key: &str| place.storage().join(key);
        for key in [&pipe, &outer, &dangling, &inner] {
            std::fs::create_dir_all(at(key).parent().unwrap()).unwrap();
        }
        make_pipe(&at(&pipe));
        // A picture that is whole, so that it would be an object that is there.
        let secret = place.outside().join("secret.gif");
        std::fs::write(&secret, gif(99, 800)).unwrap();
        symlink(&secret, at(&outer)).unwrap();
        symlink(place.outside().join("new.gif"), at(&dangling)).unwrap();
        std::fs::write(place.storage().join("inside.gif"), gif(98, 800)).unwrap();
        symlink(place.storage().join("inside.gif"), at(&inner)).unwrap();

        let mut queue = RawQueue::shared();
        let _worker = Worker::start(&queue, &place.storage(), &["--sync", sync]);
        links.iter().for_each(|link| queue.push(link));
        for result in queue.until_results(links.len(), SOON) {
            let n = links.iter().position(|link| *link == result["url"]).unwrap() as u64 + 1;
            assert_eq!((result["outcome"].as_str(), result.get("reason")), ("stored", None), "{result:?}");
            assert_eq!(result["sha256"], sha256(&gif(n, 700)), "{result:?}");
            assert!(is_regular(&at(&result["key"])), "{result:?}");
        }
        assert_eq!(place.names_outside(), ["secret.gif"]);
        assert_eq!(std::fs::read(&secret).unwrap(), gif(99, 800));
        assert_eq!(std::fs::read(place.storage().join("inside.gif")).unwrap(), gif(98, 800));
    }
}

#[test]
fn a_folder_that_is_a_link_costs_its_own_objects_and_leads_nobody_out() {
    let (origin, other) = (Origin::start(), Origin::start());
    let (link, fine) = (origin.url("1/700.gif"), other.url("2/700.gif"));
    let key = key_of(&link);
    let (host, _) = key.split_once('/').unwrap();
    for sync in ["none", "file", "batch"] {
        let place = Place::new();
        symlink(place.outside(), place.storage().join(host)).unwrap();
        let mut queue = RawQueue::shared();
        let _worker = Worker::start(&queue, &place.storage(), &["--sync", sync, "--max-attempts", "1"]);
        queue.push(&link);
        queue.push(&fine);
        let results = queue.until_results(2, SOON);
        let of = |link: &str| results.iter().find(|result| result["url"] == link).unwrap();
        assert_eq!((of(&link)["outcome"].as_str(), of(&link)["reason"].as_str()), ("failed", "storage"));
        assert_eq!(of(&fine)["outcome"], "stored");
        assert!(place.names_outside().is_empty());
    }
}

#[test]
fn a_folder_of_unfinished_objects_that_is_a_link_is_refused_with_its_name() {
    let place = Place::new();
    let old = place.outside().join("somebody-s-work");
    std::fs::write(&old, "precious").unwrap();
    make_old(&old);
    symlink(place.outside(), place.storage().join(".imgq-tmp")).unwrap();
    let queue = RawQueue::shared();
    let refused = finish(Worker::command(&queue, &place.storage()), b"", SOON);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains(".imgq-tmp") && refused.stderr.contains("remove it"), "{refused:?}");
    assert_eq!(place.names_outside(), ["somebody-s-work"]);
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "precious");
}

#[test]
fn leftovers_and_marks_that_are_links_touch_nothing_outside() {
    let origin = Origin::start();
    let place = Place::new();
    let temporary = place.storage().join(".imgq-tmp");
    std::fs::create_dir(&temporary).unwrap();
    let old = place.outside().join("old");
    std::fs::write(&old, "precious").unwrap();
    make_old(&old);
    symlink(&old, temporary.join("leftover")).unwrap();
    let left = temporary.join("left-by-a-worker");
    std::fs::write(&left, "half").unwrap();
    make_old(&left);
    make_pipe(&temporary.join("pipe"));
    // A mark says that some object has another type than its link promises; this one would make a file outside.
    symlink(place.outside().join("made"), temporary.join("other-types")).unwrap();

    let mut queue = RawQueue::shared();
    let _worker = Worker::start(&queue, &place.storage(), &[]);
    queue.push(&origin.url("mistyped/1.jpg"));
    let stored = queue.until_results(1, SOON).remove(0);
    assert_eq!((stored["outcome"].as_str(), stored["type"].as_str()), ("stored", "gif"));
    assert!(is_regular(&temporary.join("other-types")), "the mark is a file of the storage's own");
    assert!(!left.exists(), "what a worker left is removed");
    assert_eq!(place.names_outside(), ["old"]);
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "precious");
}

#[test]
fn a_link_that_takes_the_place_of_the_folder_of_unfinished_objects_makes_the_storage_bad() {
    let origin = Origin::start();
    let place = Place::new();
    let mut queue = RawQueue::shared();
    let _worker = Worker::start(&queue, &place.storage(), &["--max-attempts", "1"]);
    let name = queue.until_workers(1).remove(0);
    let (temporary, away) = (place.storage().join(".imgq-tmp"), place.folder.path().join("away"));
    std::fs::rename(&temporary, &away).unwrap();
    symlink(place.outside(), &temporary).unwrap();
    queue.push(&origin.url("1/90000.gif"));
    until("it says what is wrong", SOON, || {
        let waiting = queue.hash(&format!("worker:{name}")).remove("waiting").unwrap_or_default();
        waiting.contains(".imgq-tmp").then_some(())
    });
    assert!(place.names_outside().is_empty());
    std::fs::remove_file(&temporary).unwrap();
    std::fs::rename(&away, &temporary).unwrap();
    let stored = queue.until_results(1, SOON).remove(0);
    assert_eq!((stored["outcome"].as_str(), stored["attempts"].as_str()), ("stored", "1"));
}
