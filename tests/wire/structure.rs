//! The rules of the layout, kept by reading the sources and the manifests.

use super::modules::{circles, named_modules};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust file below a folder of the workspace, with its path from there and its code without comments.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                let code = std::fs::read_to_string(&path).unwrap();
                let code: String =
                    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
                found.push((name, code));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has sources");
    found
}

/// The part of a file that is not its unit tests.
fn without_tests(code: &str) -> &str {
    code.split("#[cfg(test)]\nmod tests").next().unwrap_or(code)
}

fn only_in(word: &str, allowed: &[&str]) {
    let mut seen = false;
    for (name, code) in all_folders().iter().flat_map(|folder| sources(folder)) {
        let path = format!("{word}::");
        let used = code
            .match_indices(&path)
            .any(|(at, _)| !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'));
        let is_allowed = allowed.iter().any(|prefix| name.starts_with(prefix));
        assert!(!used || is_allowed, "{name} names {word}");
        seen |= used;
    }
    assert!(seen, "nobody names {word}: the rule has lost its subject");
}

/// The crates of the programs, and which of the others each may know.
const CRATES: [(&str, &[&str]); 9] = [
    ("common", &[]),
    ("program", &[]),
    ("queue", &["common"]),
    ("storage", &["common"]),
    ("content", &["common"]),
    ("sources", &["common"]),
    ("dashboard", &["common", "content", "program", "queue", "storage"]),
    ("producer", &["common", "dashboard", "program", "queue", "sources"]),
    ("worker", &["common", "content", "program", "queue", "storage"]),
];

fn all_folders() -> Vec<String> {
    CRATES.iter().map(|(name, _)| format!("{name}/src")).collect()
}

#[test]
fn only_the_queue_names_the_redis_client() {
    only_in("redis", &["queue/src/"]);
}

/// A transaction is refused when the memory of Redis is full, though it may only read; and what went wrong within is told as another
/// error. A script is neither.
#[test]
fn no_transaction_is_sent() {
    for (name, code) in sources("queue/src") {
        assert!(!without_tests(&code).contains(".atomic()") && !code.contains("\"MULTI\""), "{name}");
    }
}

#[test]
fn only_the_fetchers_name_an_http_client() {
    only_in("reqwest", &["sources/src/"]);
    for client in ["hyper_rustls", "rustls"] {
        only_in(client, &["worker/src/fetch/"]);
    }
    // The other end of the same library answers scrapes, and browsers.
    for both in ["hyper", "hyper_util"] {
        only_in(both, &["worker/src/fetch/", "program/src/server.rs"]);
    }
}

#[test]
fn arrows_between_crates_run_one_way() {
    for (name, may_know) in CRATES {
        let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let knows = |other: &str| manifest.lines().any(|line| line.starts_with(&format!("{other}.workspace")));
        for (other, _) in CRATES {
            assert_eq!(knows(other), may_know.contains(&other), "{name} and {other}");
        }
    }
}

#[test]
fn pure_modules_do_no_io_and_know_no_clock() {
    let all: Vec<_> = all_folders().iter().flat_map(|folder| sources(folder)).collect();
    let text = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    // A file that says so in the sentence about its job, and all of the crate that everybody shares.
    let says_so = |name: &str| text(name).lines().next().is_some_and(|line| line.contains(" Pure"));
    let mut pure: Vec<&(String, String)> =
        all.iter().filter(|(name, _)| name.starts_with("common/src/") || says_so(name)).collect();
    // These keep to it without a word.
    let others = ["content/src/inspect.rs", "producer/src/view/style.rs", "producer/src/view/summary.rs"];
    for other in others {
        pure.push(all.iter().find(|(name, _)| name == other).unwrap_or_else(|| panic!("{other} is there")));
    }
    assert!(pure.len() > others.len() + 25, "{} pure files: has the word for it changed?", pure.len());
    for (name, code) in pure {
        for word in ["std::fs", "std::env", "tokio::", "Instant::", "SystemTime::now", "fastrand::", "std::net::Tcp"] {
            assert!(!without_tests(code).contains(word), "{name} is pure, and names {word}");
        }
    }
}

#[test]
fn a_main_is_short_and_a_script_is_used() {
    for name in ["producer/src/main.rs", "worker/src/main.rs"] {
        let code = std::fs::read_to_string(root().join(name)).unwrap();
        let body = code.split("fn main").nth(1).unwrap();
        assert!(body.lines().count() <= 10, "{name}");
    }
    // A script, and a piece of one, lies beside the file that declares it.
    let queue = sources("queue/src");
    for folder in std::fs::read_dir(root().join("queue/src")).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        let of_folder = format!("queue/src/{}/", folder.file_name().to_string_lossy());
        let beside: String =
            queue.iter().filter(|(name, _)| name.starts_with(&of_folder)).map(|(_, code)| &**code).collect();
        for entry in std::fs::read_dir(folder.path()).unwrap().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if !file.ends_with(".lua") {
                continue;
            }
            let is_script = beside.contains(&format!(" from \"{file}\""));
            let is_piece = beside.contains(&format!("piece!(\"{file}\")"));
            assert!(is_script || is_piece, "{of_folder}{file} is not used");
        }
    }
}

#[test]
fn every_file_says_its_job_and_no_task_is_left_alone() {
    let others = ["tests/harness", "fuzz/fuzz_targets"].map(str::to_owned);
    for (name, code) in all_folders().iter().chain(&others).flat_map(|folder| sources(folder)) {
        let text = std::fs::read_to_string(root().join(&name)).unwrap();
        assert!(text.starts_with("//!"), "{name} does not open with its one job");
        // A task is kept in a variable, a set or a field.
        if !name.starts_with("tests/") {
            for line in code.lines().map(str::trim_start) {
                assert!(!line.starts_with("tokio::spawn("), "{name} leaves a task alone: {line}");
            }
        }
    }
}

/// A file may name files that know nothing of it, so that each can be read, and changed, with what lies below it alone.
///
/// A file names another where it names its module by `crate::`, `super::` or `self::`, or by a module of its own, in a `use` or
/// anywhere else. What does not count is that it names an ancestor, the `mod.rs`, `lib.rs` or `main.rs` that is the door of a room
/// it is in: a room is one thing, and its door has what all in it share. Tests do not count either.
#[test]
fn no_circle_of_files_anywhere() {
    let mut found = Vec::new();
    for folder in all_folders() {
        found.extend(
            circles(&named_modules(&folder, &sources(&folder))).into_iter().map(|circle| format!("{folder}: {circle}")),
        );
    }
    assert!(found.is_empty(), "files that know each other:\n{}", found.join("\n"));
}
