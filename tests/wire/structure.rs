//! The rules of the layout, kept by reading the sources.

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

fn only_in(folders: &[&str], word: &str, allowed: &[&str]) {
    let mut seen = false;
    for (name, code) in folders.iter().flat_map(|folder| sources(folder)) {
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

#[test]
fn only_the_queue_names_the_redis_client() {
    only_in(&["common/src", "producer/src", "worker/src"], "redis", &["common/src/queue/", "common/src/connect.rs"]);
}

#[test]
fn only_the_fetchers_name_an_http_client() {
    let folders = ["common/src", "producer/src", "worker/src"];
    only_in(&folders, "reqwest", &["producer/src/sources/"]);
    for client in ["hyper_rustls", "rustls"] {
        only_in(&folders, client, &["worker/src/fetch/"]);
    }
    // The other end of the same library answers scrapes, and browsers.
    for both in ["hyper", "hyper_util"] {
        let servers = ["worker/src/fetch/", "worker/src/metrics/server.rs", "producer/src/dashboard/server.rs"];
        only_in(&folders, both, &servers);
    }
}

#[test]
fn producer_and_worker_never_meet() {
    for (one, other) in [("producer", "worker"), ("worker", "producer")] {
        let manifest = std::fs::read_to_string(root().join(one).join("Cargo.toml")).unwrap();
        assert!(!manifest.lines().any(|line| line.starts_with(other)), "{one} depends on {other}");
    }
}

#[test]
fn pure_modules_do_no_io_and_know_no_clock() {
    let pure = ["link", "host", "media", "job", "outcome", "report", "retry", "keys", "exposition"]
        .map(|name| format!("common/src/{name}.rs"));
    let worker = ["address_guard", "attempt", "inspect", "placeholders", "robots", "storage/layout"]
        .map(|name| format!("worker/src/{name}.rs"));
    let producer = ["view/advice", "view/style", "view/summary"].map(|name| format!("producer/src/{name}.rs"));
    let all: Vec<_> = ["common/src", "worker/src", "producer/src"].iter().flat_map(|folder| sources(folder)).collect();
    for name in pure.iter().chain(&worker).chain(&producer) {
        let (_, code) = all.iter().find(|(path, _)| path == name).unwrap_or_else(|| panic!("{name} is there"));
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
    let rust: String = sources("common/src/queue").into_iter().map(|(_, code)| code).collect();
    for entry in std::fs::read_dir(root().join("common/src/queue/lua")).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().trim_end_matches(".lua").to_owned();
        let is_run = rust.contains(&format!("script!(\"{name}\""));
        let is_shared = rust.contains(&format!("include_str!(\"lua/{name}.lua\")"));
        assert!(is_run || is_shared, "{name}.lua is not used");
    }
}

#[test]
fn every_file_says_its_job_and_no_task_is_left_alone() {
    for (name, code) in ["common/src", "producer/src", "worker/src", "tests/harness", "fuzz/fuzz_targets"]
        .iter()
        .flat_map(|f| sources(f))
    {
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
