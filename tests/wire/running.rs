//! `producer run`: everything on one machine, nothing left behind.

use harness::files::objects;
use harness::programs::finish;
use harness::{Origin, Producer, Redis, until};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn run(storage: &Path, arguments: &[&str]) -> Command {
    let mut command = Producer::alone(&["run"]);
    command.args(arguments).arg("--storage").arg(storage).args(["--workers", "2", "--allow-networks", "127.0.0.0/8"]);
    command
}

/// Ids of all processes that have `text` in their environment, command line or folder: those of one run name its storage.
fn processes_about(text: &str) -> Vec<u32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let has = |file: &str| {
                std::fs::read(entry.path().join(file)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
            };
            let zombie = std::fs::read_to_string(entry.path().join("stat")).is_ok_and(|stat| stat.contains(") Z "));
            // A Redis server writes over its command line, and works in its folder.
            let works_there =
                std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.to_string_lossy().contains(text));
            let about = has("cmdline") || has("environ") || works_there;
            (pid != std::process::id() && !zombie && about).then_some(pid)
        })
        .collect()
}

fn nothing_left(folder: &Path) {
    let text = folder.to_str().unwrap().to_owned();
    until("no process is left", Duration::from_secs(15), || processes_about(&text).is_empty().then_some(()));
}

/// Starts a run on twelve links whose bodies are held up, and waits until they are being downloaded.
fn held_up(folder: &Path, origin: &Origin) -> Child {
    origin.hold();
    let list = folder.join("links.txt");
    let links: String = (0..12).map(|n| origin.url(&format!("{n}/9000.gif")) + "\n").collect();
    std::fs::write(&list, links).unwrap();
    let mut command = run(&folder.join("pictures"), &[list.to_str().unwrap(), "--grace", "1s"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    until("all are being downloaded", SOON, || (origin.requests_in_all() >= 12).then_some(()));
    child
}

fn until_end(child: &mut Child) -> Option<i32> {
    until("the run ends", SOON, || child.try_wait().unwrap()).code()
}

#[test]
fn a_run_stores_everything_and_a_second_one_finds_it_there() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("pictures");
    let links: String = (0..20).map(|n| origin.url(&format!("{n}/900.gif")) + "\n").collect();
    let first = finish(run(&storage, &["-"]), links.as_bytes(), SOON);
    assert_eq!(first.code, 0, "{first:?}");
    assert!(first.stdout.contains("20 links enqueued") && first.stdout.contains("20 stored"), "{first:?}");
    assert!(first.stdout.lines().last().unwrap().starts_with("Took "), "{first:?}");
    assert_eq!(objects(&storage).len(), 20);
    assert!(folder.path().join("pictures.imgq/redis/appendonlydir").is_dir(), "its data lie beside the storage");
    nothing_left(folder.path());
    let second = finish(run(&storage, &["-"]), links.as_bytes(), SOON);
    assert_eq!(second.code, 0, "{second:?}");
    assert!(second.stdout.contains("0 links enqueued, 20 duplicates"), "{second:?}");
    assert_eq!(origin.requests_in_all(), 20, "nothing was downloaded twice");
}

#[test]
fn not_everything_stored_is_code_3() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let missing = origin.url("status/404");
    let finished = finish(run(&folder.path().join("pictures"), &[&missing]), b"", SOON);
    assert_eq!(finished.code, 3, "{finished:?}");
}

#[test]
fn after_ctrl_c_nothing_runs_and_a_second_run_goes_on() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let mut child = held_up(folder.path(), &origin);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(until_end(&mut child), Some(1));
    nothing_left(folder.path());
    let storage = folder.path().join("pictures");
    assert!(objects(&storage).is_empty(), "nothing half done under a final name");
    origin.let_go();
    let list = folder.path().join("links.txt");
    let again = finish(run(&storage, &[list.to_str().unwrap()]), b"", SOON);
    assert_eq!(again.code, 0, "{again:?}");
    assert!(again.stdout.contains("12 duplicates") && again.stdout.contains("12 stored"), "{again:?}");
    assert_eq!(objects(&storage).len(), 12);
}

#[test]
fn a_run_that_is_killed_leaves_no_process_behind_and_loses_nothing() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let mut child = held_up(folder.path(), &origin);
    child.kill().unwrap();
    child.wait().unwrap();
    nothing_left(folder.path());
    origin.let_go();
    let storage = folder.path().join("pictures");
    let again = finish(run(&storage, &[&origin.url("77/900.gif")]), b"", SOON);
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(objects(&storage).len(), 13, "its own link, and what the first run left");
}

#[test]
fn a_worker_that_dies_is_replaced_and_a_server_that_dies_ends_the_run() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let mut child = held_up(folder.path(), &origin);
    let pictures = folder.path().join("pictures").to_str().unwrap().to_owned();
    let named = |name: &str| -> Vec<u32> {
        processes_about(&pictures)
            .into_iter()
            .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with(name)))
            .collect()
    };
    let kill = |pid: u32| {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    let before = until("two workers run", SOON, || Some(named("worker")).filter(|pids| pids.len() == 2));
    kill(before[0]);
    until("another has taken its place", SOON, || {
        let now = named("worker");
        (now.len() == 2 && !now.contains(&before[0])).then_some(())
    });
    let server = named("redis-server").remove(0);
    kill(server);
    assert_eq!(until_end(&mut child), Some(1));
    nothing_left(folder.path());
}

#[test]
fn a_run_waits_for_a_server_that_has_much_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("pictures.imgq/redis");
    std::fs::create_dir_all(&data).unwrap();
    let mut redis = Redis::private(&[]);
    let mut connection = redis.connect();
    let fill = "for n = 1, 3000 do redis.call('SET', 'filler:' .. n, 'x') end";
    redis::cmd("EVAL").arg(fill).arg(0).exec(&mut connection).unwrap();
    redis::cmd("BGREWRITEAOF").exec(&mut connection).unwrap();
    until("its file is written anew", SOON, || {
        let info: String = redis::cmd("INFO").arg("persistence").query(&mut connection).unwrap();
        (info.contains("aof_rewrites:1") && info.contains("aof_rewrite_in_progress:0")).then_some(())
    });
    redis.stop();
    let copy = redis.snapshot();
    std::fs::rename(copy.path(), data.join("appendonlydir")).unwrap();
    // As slow as if it were a thousand times as much. It answers meanwhile: that it still reads.
    let programs = folder.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let server = programs.join("redis-server");
    let slow = "--key-load-delay 400 --loading-process-events-interval-bytes 1024";
    let script = format!("#!/bin/sh\nPATH=${{PATH#*:}}\nexec redis-server \"$@\" {slow}\n");
    std::fs::write(&server, script).unwrap();
    std::fs::set_permissions(&server, Permissions::from_mode(0o755)).unwrap();
    let origin = Origin::start();
    let mut command = run(&folder.path().join("pictures"), &[&origin.url("1/900.gif")]);
    command.env("PATH", format!("{}:{}", programs.display(), std::env::var("PATH").unwrap()));
    let finished = finish(command, b"", SOON);
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.stdout.contains("1 stored"), "{finished:?}");
}

#[test]
fn two_runs_cannot_share_one_server_s_data() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let mut child = held_up(folder.path(), &origin);
    let other = finish(run(&folder.path().join("pictures"), &[&origin.url("1/900.gif")]), b"", SOON);
    assert_eq!(other.code, 1, "{other:?}");
    assert!(other.stderr.contains("another `producer run`") && other.stderr.contains("hint: "), "{other:?}");
    origin.let_go();
    assert_eq!(until_end(&mut child), Some(0));
}

#[test]
fn a_setting_that_a_worker_refuses_is_told_in_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let finished =
        finish(run(&folder.path().join("pictures"), &["http://127.0.0.1:1/a.jpg", "--max-bytes", "huge"]), b"", SOON);
    assert_eq!(finished.code, 2, "{finished:?}");
    assert!(finished.stderr.contains("huge"), "{finished:?}");
    nothing_left(folder.path());
}
