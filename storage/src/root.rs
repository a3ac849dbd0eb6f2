//! The folder that all of a storage lies in: whether it is still the one that was opened, and what all workers know of it.

use super::mark::Mark;
use super::naming::Naming;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where unfinished objects lie, below the root: on the same file system, or a rename would not be one.
const TEMPORARY: &str = ".imgq-tmp";
/// Leftovers of killed workers are removed when they are this old: longer than any download may take.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);
/// A probe writes this much: a disk with less room is as good as full.
const PROBE_BYTES: usize = 1 << 20;
/// The folder of a storage, and how to tell that it is still the same one: a mount that goes leaves an empty folder of the same name,
/// and what was written to that would be out of everybody's sight once the mount is back.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) path: PathBuf,
    run: String,
    pub(super) temporary_folder: PathBuf,
    pub(super) naming: Naming,
    /// Some object of this storage has another type than its URL's extension says, and so another key: `.jpg` that is a PNG.
    /// As long as there is none, one look tells whether an object is there, and not one for each type, which cost a tenth of
    /// the CPU for small images (five requests for each image to a network file system).
    pub(super) other_types: Mark,
    /// Some worker has the storage behind a file system to which `A.jpg` and `a.jpg` are one file. Another may have the same
    /// storage behind one to which they are two (the server of an SMB share), and must use the same keys.
    pub(super) folds_case: Mark,
    /// Its inode, which stays through an unmount and mount; the device's number may change.
    inode: u64,
    /// The folder, open, where case is folded. vfat and exFAT have no inodes and give a folder a new number whenever it is read
    /// in again, which is not before it was closed.
    held_open: Option<File>,
    /// The device that new files are on.
    device: AtomicU64,
}

impl Root {
    // Names of marks; leftovers are removed, these are not.
    const OTHER_TYPES: &str = "other-types";
    const FOLDS_CASE: &str = "folds-case";

    pub(super) fn open(path: &Path, run: &str) -> io::Result<Root> {
        let temporary_folder = path.join(TEMPORARY);
        std::fs::create_dir_all(&temporary_folder)?;
        let mut root = Root {
            path: path.to_owned(),
            run: run.to_owned(),
            other_types: Mark::at(temporary_folder.join(Root::OTHER_TYPES)),
            folds_case: Mark::at(temporary_folder.join(Root::FOLDS_CASE)),
            naming: Naming::for_folder(&temporary_folder, &temporary_folder.join(format!("probe-{run}"))),
            temporary_folder,
            inode: 0,
            held_open: None,
            device: AtomicU64::new(0),
        };
        let probe = root.write_probe(b"probe")?;
        root.device.store(probe.dev(), Ordering::Relaxed);
        if root.finds_in_other_case()? {
            root.folds_case.note()?;
            root.held_open = Some(File::open(path)?);
        }
        root.inode = std::fs::metadata(path)?.ino();
        root.remove_leftovers(&probe);
        Ok(root)
    }

    /// Whether a file is found by its name in another case.
    fn finds_in_other_case(&self) -> io::Result<bool> {
        let name = format!("case-{}", self.run);
        let path = self.temporary_folder.join(&name);
        File::create(&path)?;
        let found = self.temporary_folder.join(name.to_ascii_uppercase()).try_exists();
        std::fs::remove_file(&path)?;
        found
    }

    /// The facts of a file that was written and removed again.
    fn write_probe(&self, bytes: &[u8]) -> io::Result<Metadata> {
        // Two writers may probe at once.
        let name = format!("probe-{}-{:08x}", self.run, fastrand::u32(..));
        let path = self.temporary_folder.join(name);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.metadata()
        };
        let result = write();
        // After an error there may be none.
        let removed = std::fs::remove_file(&path);
        let facts = result?;
        removed?;
        Ok(facts)
    }

    /// Writes a file to see whether that is possible, and that it is the folder that was opened. May block: for writers.
    pub(super) fn probe(&self) -> io::Result<()> {
        self.check_root()?;
        self.restore_temporary_folder()?;
        let facts = self.write_probe(&vec![0; PROBE_BYTES])?;
        // The root is the same: whatever the device is called now, it is that one.
        self.device.store(facts.dev(), Ordering::Relaxed);
        Ok(())
    }

    fn check_root(&self) -> io::Result<()> {
        if std::fs::metadata(&self.path)?.ino() == self.inode {
            Ok(())
        } else {
            Err(io::Error::other("another folder has its name; if that is wanted, start the worker again"))
        }
    }

    /// Fails when a new file is not on the device that it should be on.
    pub(super) fn check_device(&self, file: &File) -> io::Result<()> {
        if file.metadata()?.dev() == self.device.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::StaleNetworkFileHandle, "another file system is mounted there"))
        }
    }

    /// Somebody removed the folder of temporary files under a running worker, or all of the storage is gone.
    pub(super) fn restore_temporary_folder(&self) -> io::Result<()> {
        self.check_root()?;
        std::fs::create_dir_all(&self.temporary_folder)
    }

    /// Removes what workers that were killed an hour ago or more left unfinished. Others may do the same at this moment.
    /// Times are those of the file system: the clock of this machine may be wrong.
    fn remove_leftovers(&self, now: &Metadata) {
        let Ok(entries) = std::fs::read_dir(&self.temporary_folder) else { return };
        let is_mark = |name: OsString| name == Root::OTHER_TYPES || name == Root::FOLDS_CASE;
        for entry in entries.flatten().filter(|entry| !is_mark(entry.file_name())) {
            let modified = entry.metadata().and_then(|facts| facts.modified()).ok();
            let age = modified.and_then(|modified| now.modified().ok()?.duration_since(modified).ok());
            if age.is_some_and(|age| age > LEFTOVER_AGE) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}
