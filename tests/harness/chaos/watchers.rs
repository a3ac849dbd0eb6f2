//! Those who only watch: one follows the results from the beginning to the end, one waits for one batch after the other. Whatever becomes
//! of Redis, they go on.

use super::stage::{QUEUE, Stage};
use crate::programs::{Producer, finish};
use redis::Commands;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Until a follower that was asked to stop has written what it has, and whoever follows has caught up.
const CATCH_UP: Duration = Duration::from_secs(60);
/// A batch has an end, and so has the wait for it.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// What the watchers saw.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// Waits for a batch that came to their end.
    pub(super) waits: usize,
    /// Those of them during which Redis was killed and started again.
    pub(super) outlived: usize,
}

/// `producer results --follow`, into a file.
pub(super) struct Follower {
    child: Child,
    file: PathBuf,
    errors: PathBuf,
}

impl Follower {
    pub(super) fn start(stage: &Stage) -> Follower {
        let (file, errors) = (stage.folder.path().join("followed.jsonl"), stage.folder.path().join("follower.log"));
        let mut command = Producer::command_at(
            &stage.raw_url(),
            QUEUE,
            &["results", "--follow", "--reader", "watcher", "--format", "jsonl", "--output"],
        );
        command.arg(&file).stdin(Stdio::null()).stderr(File::create(&errors).expect("a log"));
        Follower { child: command.spawn().expect("the producer starts"), file, errors }
    }

    /// Ends it once it has shown every job that has a result, or after some time. Jobs whose result it has not shown are a violation.
    pub(super) fn end(mut self, stage: &Stage) {
        let from = Instant::now();
        let missing = loop {
            let missing = self.missing(stage);
            if missing.is_empty() || from.elapsed() > CATCH_UP {
                break missing;
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        if !missing.is_empty() {
            let first: Vec<&String> = missing.iter().take(5).collect();
            stage.violated(format!("results --follow has not shown {} jobs, say {first:?}", missing.len()));
        }
        if let Some(ended) = self.child.try_wait().expect("can be waited for") {
            let said = std::fs::read_to_string(&self.errors).unwrap_or_default();
            stage.violated(format!("results --follow ended by itself with {ended}: {said}"));
            return;
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let ended = self.child.wait().expect("it ends");
        if ended.code() != Some(0) {
            stage.violated(format!("results --follow ended with {ended} when it was asked to stop"));
        }
    }

    fn missing(&self, stage: &Stage) -> BTreeSet<String> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["id"].as_str().map(str::to_owned);
        let shown: BTreeSet<String> = text.lines().filter_map(id).collect();
        let mut missing = super::verdict::result_ids(stage);
        missing.retain(|id| !shown.contains(id));
        missing
    }
}

/// Waits for the newest batch with `producer wait`, again and again, until the last fault.
pub(super) fn wait(stage: &Stage, watched: &mut Watched) {
    while !stage.is_watched_enough() {
        let newest: Option<Vec<String>> =
            stage.raw().and_then(|mut raw| raw.zrevrange(Stage::key("batches"), 0, 0).ok());
        let Some(batch) = newest.and_then(|newest| newest.into_iter().next()) else {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        let restarts = stage.restarts.load(Ordering::SeqCst);
        let waited = finish(Producer::command_at(&stage.raw_url(), QUEUE, &["wait", &batch]), b"", WAIT_MAX);
        match waited.code {
            0 | 3 => {
                watched.waits += 1;
                watched.outlived += usize::from(stage.restarts.load(Ordering::SeqCst) > restarts);
            }
            // Redis went back to before it; or its enqueue was killed, and the same command has made another one.
            1 if waited.stderr.contains("no batch") || waited.stderr.contains("is not complete") => {}
            _ => stage.violated(format!("a wait ended as it should not: {waited:?}")),
        }
        // So that the next one finds another batch.
        std::thread::sleep(Duration::from_millis(200));
    }
}
