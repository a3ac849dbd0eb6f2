//! What `--help` says of each command: as it was reviewed, on one screen, with an example. Completions know the same commands.

use harness::programs::finish;
use harness::{Producer, RawQueue, Worker};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// Lines of a screen that is 100 wide.
const SCREEN_LINES: usize = 50;
/// A worker has settings only, and all of them are told there.
const WORKER_LINES: usize = 60;

fn help(mut command: Command) -> String {
    command.env("COLUMNS", "100");
    let shown = finish(command, b"", SOON);
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""), "{shown:?}");
    shown.stdout
}

/// The commands that a help text lists.
fn commands_in(help: &str) -> Vec<String> {
    let listed = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap());
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Every command and what is below it, as words.
fn all_commands() -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    let mut left = vec![Vec::new()];
    while let Some(command) = left.pop() {
        let words: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let text = help(Producer::alone(&words));
        left.extend(commands_in(&text).into_iter().map(|name| [&command[..], &[name]].concat()));
        found.push((command, text));
    }
    found.sort();
    found
}

#[test]
fn every_help_fits_a_screen_and_has_an_example() {
    let all = all_commands();
    assert!(all.len() >= 18, "{} commands", all.len());
    for (command, text) in &all {
        let name = std::iter::once("producer").chain(command.iter().map(String::as_str)).collect::<Vec<_>>().join("_");
        assert!(text.lines().count() <= SCREEN_LINES, "{name} has {} lines:\n{text}", text.lines().count());
        assert!(text.contains("Example"), "{name} has no example:\n{text}");
        insta::assert_snapshot!(name, text);
    }
    let text = help(Worker::alone(&["--help"]));
    assert!(text.lines().count() <= WORKER_LINES && text.contains("Example"), "{}:\n{text}", text.lines().count());
    insta::assert_snapshot!("worker", text);
}

/// `run` hands on texts and does not know what they mean: the worker must know each flag by the same name, with such a value.
#[test]
fn every_flag_that_run_hands_on_is_one_of_the_worker_s() {
    let (of_run, of_worker) = (help(Producer::alone(&["run", "--help"])), help(Worker::alone(&["--help"])));
    let (_, handed_on) = of_run.split_once("Handed on to the workers (`worker --help` explains them):\n").unwrap();
    let flags: Vec<&str> = handed_on.split("\n\n").next().unwrap().split_whitespace().collect();
    assert_eq!(flags.len(), 13, "{flags:?}");
    for flag in flags {
        let refused = finish(Producer::alone(&["run", flag]), b"", SOON);
        // "a value is required for '--layout <LAYOUT>' but none was supplied"
        let with_value = refused.stderr.split('\'').nth(1).unwrap_or_default();
        assert!(refused.code == 2 && with_value.starts_with(&format!("{flag} <")), "{flag}: {refused:?}");
        assert!(of_worker.contains(&format!(" {with_value} ")), "{with_value} is none of the worker's");
    }
}

/// Whoever sets a variable for `docker compose`, or in its `.env` file, sets it for the workers.
#[test]
fn every_variable_of_the_worker_is_in_the_compose_file() {
    let read = |name: &str| std::fs::read_to_string(format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (compose, image) = (read("docker-compose.yml"), read("Dockerfile"));
    let service = compose.split("\n  worker:\n").nth(1).unwrap().split("\n  producer:\n").next().unwrap();
    let text = help(Worker::alone(&["--help"]));
    let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    let variables: Vec<&str> = words.filter(|word| word.starts_with("IMGQ_") || *word == "REDIS_URL").collect();
    assert!(variables.len() > 20, "{variables:?}");
    for name in variables {
        // Where the storage is mounted, the image says.
        let is_there = service.contains(&format!("\n      {name}: ")) || image.contains(&format!("{name}="));
        assert!(is_there, "{name} is not handed to the service worker");
    }
}

#[test]
fn a_secret_in_the_environment_is_not_in_the_help() {
    let mut command = Producer::alone(&["enqueue", "--help"]);
    command.env("REDIS_URL", "redis://:hunter2@h").env("IMGUR_CLIENT_ID", "hunter2");
    assert!(!help(command).contains("hunter2"));
}

#[test]
fn completions_know_every_command() {
    let queue = RawQueue::shared();
    for shell in ["bash", "zsh", "fish"] {
        let script = Producer::run(&queue, &["completions", shell]);
        assert_eq!((script.code, script.stderr.as_str()), (0, ""), "{script:?}");
        for name in commands_in(&help(Producer::alone(&["--help"]))) {
            assert!(script.stdout.contains(&name), "{shell} does not know {name}");
        }
        assert!(script.stdout.contains("--dry-run") || script.stdout.contains("-l dry-run"), "{shell} knows no flags");
    }
    let unknown = Producer::run(&queue, &["completions", "csh"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("fish"), "{unknown:?}");
    // A shell reads its script without complaint, where it is there.
    let script = Producer::run(&queue, &["completions", "bash"]).stdout;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-s"]);
    let input = format!("{script}\ncomplete -p producer\n");
    let read = finish(bash, input.as_bytes(), SOON);
    assert!(read.code == 0 && read.stdout.contains("producer") && read.stderr.is_empty(), "{read:?}");
}
