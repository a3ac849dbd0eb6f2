//! The syncer: makes objects durable together (`--sync batch`).
//!
//! While one batch is on its way to the disk the next one gathers, so two waits for the disk serve as many objects as are
//! under way at once. Data first, then names: a power cut leaves no name without its data.

use super::object::{Unstored, Written};
use super::unfinished::Unfinished;
use clap::ValueEnum;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use tokio::sync::{mpsc, oneshot};

/// When objects are made durable against a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SyncPolicy {
    /// When the system likes; a power cut may lose the last half minute of objects that were reported.
    None,
    /// Each one, before it is reported.
    File,
    /// Those that are under way at once together, before they are reported.
    Batch,
}

/// An object that is written and waits for its name.
pub(super) struct Waiting {
    pub(super) unfinished: Unfinished,
    pub(super) target: PathBuf,
    pub(super) reply: oneshot::Sender<Result<Written, Unstored>>,
}

/// Starts the thread; it ends when the last sender is dropped.
pub(super) fn start(root: &Path) -> io::Result<mpsc::UnboundedSender<Waiting>> {
    let root = root.to_owned();
    // Bounded by the worker's slots: each upload waits for its answer.
    let (sender, mut waiting) = mpsc::unbounded_channel::<Waiting>();
    std::thread::Builder::new().name("syncer".into()).spawn(move || {
        let mut batch = Vec::new();
        while let Some(first) = waiting.blocking_recv() {
            batch.push(first);
            while let Ok(next) = waiting.try_recv() {
                batch.push(next);
            }
            name_durably(&root, &mut batch);
        }
    })?;
    Ok(sender)
}

fn name_durably(root: &Path, batch: &mut Vec<Waiting>) {
    let data = sync_file_system(root);
    let mut renamed = Vec::with_capacity(batch.len());
    for Waiting { unfinished, target, reply } in batch.drain(..) {
        let result = match &data {
            Ok(()) => unfinished.rename_to(&target),
            Err(error) => Err(copy_of(error)),
        };
        renamed.push((result, reply));
    }
    let names = sync_file_system(root);
    for (result, reply) in renamed {
        let result = result.and_then(|written| names.as_ref().map(|()| written).map_err(copy_of));
        // Whoever waits may have given up; the object is complete, so it may stay.
        let _ = reply.send(result.map_err(Unstored::from));
    }
}

/// Everything that was written to the file system of `root`. One call, where an fsync for each file would be one journal
/// commit each.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn sync_file_system(root: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(root)?)?)
}

/// Without syncfs: all file systems.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn sync_file_system(_root: &Path) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

/// Errors cannot be cloned, and several are to hear of one.
pub(super) fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::from(error.kind()), io::Error::from_raw_os_error)
}
