//! A fact about a storage that all of its workers have to know: an empty file, made by whichever of them finds out.

use super::beneath::{self, Beneath};
use rustix::fs::{AtFlags, Mode, OFlags, unlinkat};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// A mark is seen by all within this time: sooner than the job of a worker that was killed just then comes back.
const LOOK_EVERY_MS: u64 = 2000;

/// One such fact, which never ceases to be one.
#[derive(Debug)]
pub(super) struct Mark {
    beneath: Beneath,
    key: String,
    known: AtomicBool,
    epoch: Instant,
    looked_at_ms: AtomicU64,
}

impl Mark {
    pub(super) fn at(beneath: &Beneath, key: String) -> Mark {
        let known = AtomicBool::new(beneath.has_file(&key).unwrap_or(false));
        let beneath = beneath.clone();
        Mark { beneath, key, known, epoch: Instant::now(), looked_at_ms: AtomicU64::new(0) }
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
            self.known.store(self.beneath.has_file(&self.key).unwrap_or(false), Ordering::Relaxed);
        }
    }

    /// Tells everybody. May block: for writers.
    pub(super) fn note(&self) -> io::Result<()> {
        if !self.is_known() {
            self.make()?;
            self.known.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn make(&self) -> io::Result<()> {
        if self.beneath.has_file(&self.key)? {
            return Ok(());
        }
        // EXCL: whatever else has its name, a link that leads elsewhere above all, goes.
        let make = || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            self.beneath.open(&self.key, flags, Mode::from_raw_mode(0o666))
        };
        match make() {
            Err(rustix::io::Errno::EXIST) if !self.beneath.has_file(&self.key)? => {
                let (folder, name) = beneath::split(&self.key);
                unlinkat(self.beneath.folder(folder)?, name, AtFlags::empty())?;
                make()?;
            }
            Ok(_) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
