//! How a complete file gets its name. Where the system can, a file is written without one and linked to it: that takes one
//! change of one folder where a rename takes two of two, and leaves nothing behind when the worker is killed.
//!
//! open(2), O_TMPFILE, describes it; before Linux 6.10 it needs a privilege.

use super::beneath::{Beneath, facts_of};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io;

/// How it is done on one file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// A file with a temporary name is renamed: everywhere.
    Renamed,
    /// A file without a name is linked by its descriptor. By the descriptor's entry in /proc, which needs no privilege, it
    /// costs more than a rename (16 µs against 15, and 13 this way).
    Linked,
}

impl Naming {
    /// Finds the best way for `folder`, where `probe` is a name that nobody else uses.
    pub(super) fn for_folder(beneath: &Beneath, folder: &str, probe: &str) -> Naming {
        let Ok(file) = open_unnamed(beneath, folder) else { return Naming::Renamed };
        let Ok(folder) = beneath.folder(folder) else { return Naming::Renamed };
        if link(&file, folder.as_fd(), probe).is_err() {
            return Naming::Renamed;
        }
        let facts = facts_of(folder.as_fd(), probe);
        let works = facts.is_ok_and(|facts| FileType::from_raw_mode(facts.st_mode) == FileType::RegularFile);
        let _ = unlinkat(&folder, probe, AtFlags::empty());
        if works { Naming::Linked } else { Naming::Renamed }
    }
}

/// Opens a file for writing, and for reading what was written, in the file system of `folder`, without a name there.
#[cfg(target_os = "linux")]
pub(super) fn open_unnamed(beneath: &Beneath, folder: &str) -> Result<File, Errno> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(beneath.open(folder, flags, Mode::from_raw_mode(0o666))?))
}

/// Links an unnamed file to `name`, which must not be there, in `folder`.
#[cfg(target_os = "linux")]
pub(super) fn link(file: &File, folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    Ok(rustix::fs::linkat(file, "", folder, name, AtFlags::EMPTY_PATH)?)
}

/// Elsewhere there is no such thing.
#[cfg(not(target_os = "linux"))]
pub(super) fn open_unnamed(_beneath: &Beneath, _folder: &str) -> Result<File, Errno> {
    Err(Errno::NOSYS)
}

/// Elsewhere there is no such thing.
#[cfg(not(target_os = "linux"))]
pub(super) fn link(_file: &File, _folder: BorrowedFd<'_>, _name: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_unnamed_file_is_nowhere_until_it_is_linked_and_then_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let beneath = Beneath::of(folder.path()).expect("it is there");
        let names = || std::fs::read_dir(folder.path()).expect("readable").count();
        let best = Naming::for_folder(&beneath, "", "probe");
        assert_eq!(names(), 0, "a probe leaves nothing");
        // Elsewhere this file system or this user cannot do it.
        if best == Naming::Linked {
            let mut file = open_unnamed(&beneath, "").expect("opens");
            file.write_all(b"whole").expect("written");
            assert_eq!(names(), 0);
            let root = beneath.folder("").expect("it is there");
            link(&file, root.as_fd(), "target").expect("linked");
            assert_eq!(std::fs::read(folder.path().join("target")).expect("there"), b"whole");
            let again = link(&file, root.as_fd(), "target");
            assert_eq!(again.map_err(|error| error.kind()), Err(io::ErrorKind::AlreadyExists));
        }
        assert_eq!(Naming::for_folder(&beneath, "no", "probe"), Naming::Renamed);
    }
}
