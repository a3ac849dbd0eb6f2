//! The folder that all of a storage lies in: whether it is still the one that was opened, and what all workers know of it.

use super::beneath::{Beneath, facts_of};
use super::mark::Mark;
use super::naming::Naming;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, unlinkat};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where unfinished objects lie, below the root: on the same file system, or a rename would not be one.
pub(super) const TEMPORARY: &str = ".imgq-tmp";
/// Leftovers of killed workers are removed when they are this old: longer than any download may take.
const LEFTOVER_AGE_S: i64 = 3600;
/// A probe writes this much: a disk with less room is as good as full.
const PROBE_BYTES: usize = 1 << 20;
/// The folder of a storage, and how to tell that it is still the same one: a mount that goes leaves an empty folder of the same name,
/// and what was written to that would be out of everybody's sight once the mount is back.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    /// All that is done below it.
    pub(super) beneath: Beneath,
    run: String,
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
        let beneath = Beneath::of(path)?;
        make_temporary_folder(&beneath)?;
        let mut root = Root {
            path: path.to_owned(),
            run: run.to_owned(),
            other_types: Mark::at(&beneath, format!("{TEMPORARY}/{}", Root::OTHER_TYPES)),
            folds_case: Mark::at(&beneath, format!("{TEMPORARY}/{}", Root::FOLDS_CASE)),
            naming: Naming::for_folder(&beneath, TEMPORARY, &format!("probe-{run}")),
            beneath,
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
        self.create(&name)?;
        let folder = self.temporary_folder()?;
        let found = facts_of(folder.as_fd(), &name.to_ascii_uppercase());
        unlinkat(&folder, &name, AtFlags::empty())?;
        match found {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A new file among the unfinished ones, open for writing and reading.
    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = self.beneath.open(&format!("{TEMPORARY}/{name}"), flags, Mode::from_raw_mode(0o666));
        Ok(File::from(file.map_err(explained)?))
    }

    /// The folder of unfinished objects, to name files in.
    pub(super) fn temporary_folder(&self) -> io::Result<OwnedFd> {
        self.beneath.hold(TEMPORARY).map_err(explained)
    }

    /// The facts of a file that was written and removed again.
    fn write_probe(&self, bytes: &[u8]) -> io::Result<Metadata> {
        // Two writers may probe at once.
        let name = format!("probe-{}-{:08x}", self.run, fastrand::u32(..));
        let mut file = self.create(&name)?;
        let written = file.write_all(bytes).and_then(|()| file.metadata());
        let removed = unlinkat(self.temporary_folder()?, &name, AtFlags::empty());
        let facts = written?;
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
        make_temporary_folder(&self.beneath)
    }

    /// Removes what workers that were killed an hour ago or more left unfinished. Others may do the same at this moment.
    /// Times are those of the file system: the clock of this machine may be wrong.
    fn remove_leftovers(&self, now: &Metadata) {
        let Ok(folder) = self.beneath.readable_folder(TEMPORARY) else { return };
        let Ok(entries) = Dir::read_from(&folder) else { return };
        let marks = [Root::OTHER_TYPES, Root::FOLDS_CASE].map(str::as_bytes);
        for entry in entries.flatten().filter(|entry| !marks.contains(&entry.file_name().to_bytes())) {
            let name = entry.file_name();
            // Of a link itself, which is what is removed as well. A folder stays.
            let facts = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW);
            let age_s = facts.map(|facts| now.mtime().saturating_sub(facts.st_mtime));
            if age_s.is_ok_and(|age_s| age_s > LEFTOVER_AGE_S) {
                let _ = unlinkat(&folder, name, AtFlags::empty());
            }
        }
    }
}

fn make_temporary_folder(beneath: &Beneath) -> io::Result<()> {
    match beneath.make_folder(TEMPORARY) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.raw_os_error().map(Errno::from_raw_os_error).map_or(error, explained)),
    }
}

/// Every object goes through that folder: if it is not one, the storage is to blame, and no object's key.
pub(super) fn explained(error: Errno) -> io::Error {
    match error {
        Errno::LOOP | Errno::NOTDIR => {
            io::Error::other(format!("{TEMPORARY} in it is a link or a file, and has to be a folder: remove it"))
        }
        error => error.into(),
    }
}
