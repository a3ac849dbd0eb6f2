//! How a complete file gets its name. Where the system can, a file is written without one and linked to it: that takes one
//! change of one folder where a rename takes two of two, and leaves nothing behind when the worker is killed.
//!
//! open(2), O_TMPFILE, describes it; before Linux 6.10 it needs a privilege.

use std::fs::File;
use std::io;
use std::path::Path;

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
    pub(super) fn for_folder(folder: &Path, probe: &Path) -> Naming {
        let Ok(file) = open_unnamed(folder) else { return Naming::Renamed };
        if link(&file, probe).is_err() {
            return Naming::Renamed;
        }
        let works = std::fs::symlink_metadata(probe).is_ok_and(|facts| facts.is_file());
        let _ = std::fs::remove_file(probe);
        if works { Naming::Linked } else { Naming::Renamed }
    }
}

/// Opens a file for writing, and for reading what was written, in the file system of `folder`, without a name there.
#[cfg(target_os = "linux")]
pub(super) fn open_unnamed(folder: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(folder, flags, Mode::from_raw_mode(0o666))?))
}

/// Links an unnamed file to `target`, which must not be there.
#[cfg(target_os = "linux")]
pub(super) fn link(file: &File, target: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    Ok(linkat(file, "", CWD, target, AtFlags::EMPTY_PATH)?)
}

/// Elsewhere there is no such thing.
#[cfg(not(target_os = "linux"))]
pub(super) fn open_unnamed(_folder: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Elsewhere there is no such thing.
#[cfg(not(target_os = "linux"))]
pub(super) fn link(_file: &File, _target: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_unnamed_file_is_nowhere_until_it_is_linked_and_then_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = || std::fs::read_dir(folder.path()).expect("readable").count();
        let probe = folder.path().join("probe");
        let best = Naming::for_folder(folder.path(), &probe);
        assert_eq!(names(), 0, "a probe leaves nothing");
        // Elsewhere this file system or this user cannot do it.
        if best == Naming::Linked {
            let mut file = open_unnamed(folder.path()).expect("opens");
            file.write_all(b"whole").expect("written");
            assert_eq!(names(), 0);
            let target = folder.path().join("target");
            link(&file, &target).expect("linked");
            assert_eq!(std::fs::read(&target).expect("there"), b"whole");
            assert_eq!(link(&file, &target).map_err(|error| error.kind()), Err(io::ErrorKind::AlreadyExists));
        }
        let nowhere = Naming::for_folder(&folder.path().join("no"), &probe);
        assert_eq!(nowhere, Naming::Renamed);
    }
}
