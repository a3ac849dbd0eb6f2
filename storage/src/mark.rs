//! A fact about a storage that all of its workers have to know: an empty file, made by whichever of them finds out.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// A mark is seen by all within this time: sooner than the job of a worker that was killed just then comes back.
const LOOK_EVERY_MS: u64 = 2000;

/// One such fact, which never ceases to be one.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    known: AtomicBool,
    epoch: Instant,
    looked_at_ms: AtomicU64,
}

impl Mark {
    pub(super) fn at(path: PathBuf) -> Mark {
        let known = AtomicBool::new(path.exists());
        Mark { path, known, epoch: Instant::now(), looked_at_ms: AtomicU64::new(0) }
    }

    pub(super) fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// Looks now and then whether another worker has noted it. May block: for writers.
    pub(super) fn look(&self) {
        let now_ms = self.epoch.elapsed().as_millis() as u64;
        let last_ms = self.looked_at_ms.load(Ordering::Relaxed);
        if !self.is_known() && now_ms - last_ms.min(now_ms) >= LOOK_EVERY_MS {
            self.looked_at_ms.store(now_ms, Ordering::Relaxed);
            self.known.store(self.path.exists(), Ordering::Relaxed);
        }
    }

    /// Tells everybody. May block: for writers.
    pub(super) fn note(&self) -> io::Result<()> {
        if !self.is_known() {
            File::create(&self.path)?;
            self.known.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}
