//! Files strictly below a folder: no `..`, no symbolic link, no device, no pipe, whatever stands under a name.
//!
//! Others may write to a storage too: a share of a laboratory, a folder that a web server fills. What they put there under the name of an
//! object, of its folder or of a temporary file must lead nobody out of it. The kernel keeps the rule where it can (openat2(2)); elsewhere
//! each part of a key is opened from the one before, links refused. No path is put together and trusted.
//!
//! The folder itself is found by its path each time, as it may be unmounted and mounted again; links on the way to it are followed once,
//! when it is opened first.

use super::error::LinkInTheWay;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, mkdirat, open, openat, statat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// NONBLOCK: a pipe that nobody writes to must not hold a thread.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);
/// To be named in other calls, and nothing else: the cheapest way to hold a folder.
#[cfg(any(target_os = "linux", target_os = "android"))]
const HOLD: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const HOLD: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::DIRECTORY);
/// Parts of a key, at most.
const PARTS_MAX: usize = 64;

/// A folder, and what is strictly below it. Keys are parts between `/`.
#[derive(Debug, Clone)]
pub struct Beneath {
    root: PathBuf,
}

impl Beneath {
    /// Of a folder that is there. Links on the way to it are followed now, and not again.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(root: &Path) -> io::Result<Beneath> {
        Ok(Beneath { root: root.canonicalize()? })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens the regular file `key` for reading.
    ///
    /// # Errors
    /// What the system says; also for anything that is no regular file, and for keys that no worker writes.
    pub fn open_file(&self, key: &str) -> io::Result<File> {
        let file = self.open(key, READ, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("no regular file"));
        }
        Ok(File::from(file))
    }

    /// Whether there is a regular file of that key.
    pub(crate) fn has_file(&self, key: &str) -> io::Result<bool> {
        let (folder, name) = split(key);
        let facts = match self.folder(folder) {
            Ok(folder) => facts_of(folder.as_fd(), name),
            Err(error) => Err(error),
        };
        match facts {
            Ok(facts) => Ok(FileType::from_raw_mode(facts.st_mode) == FileType::RegularFile),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A folder below, or the folder itself (``), to name files in.
    pub(crate) fn folder(&self, key: &str) -> io::Result<OwnedFd> {
        self.hold(key).map_err(|error| match error {
            Errno::LOOP => io::Error::other(LinkInTheWay),
            error => error.into(),
        })
    }

    /// As [`Beneath::folder`], with the system's own error.
    pub(crate) fn hold(&self, key: &str) -> Result<OwnedFd, Errno> {
        self.open(key, HOLD, Mode::empty())
    }

    /// As [`Beneath::folder`], to be synced or listed.
    pub(crate) fn readable_folder(&self, key: &str) -> io::Result<File> {
        Ok(File::from(self.open(key, READ | OFlags::DIRECTORY, Mode::empty())?))
    }

    /// As [`Beneath::folder`]; makes it, and those above it, where they are missing.
    pub(crate) fn make_folder(&self, key: &str) -> io::Result<OwnedFd> {
        let mut folder = self.folder("")?;
        for part in parts(key)? {
            match mkdirat(&folder, part, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            folder = openat(&folder, part, HOLD | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Ok(folder)
    }

    /// Opens what `key` says, or what these flags make there. Links are not followed, its own last part included: `LOOP` says that one is there,
    /// and without openat2 `NOTDIR` where a folder is wanted.
    pub(crate) fn open(&self, key: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        match self.open_at_once(key, flags, mode) {
            // Not there: an older kernel. Not allowed: a filter for system calls that does not know it.
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => self.open_part_by_part(key, flags, mode),
            opened => opened,
        }
    }

    /// In one call. The path to the root has no links in it either, so that it needs no call of its own.
    #[cfg(target_os = "linux")]
    fn open_at_once(&self, key: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        use rustix::fs::{ResolveFlags, openat2};
        check(key)?;
        let path = if key.is_empty() { self.root.clone() } else { self.root.join(key) };
        openat2(CWD, &path, flags, mode, ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS)
    }

    #[cfg(not(target_os = "linux"))]
    fn open_at_once(&self, _: &str, _: OFlags, _: Mode) -> Result<OwnedFd, Errno> {
        Err(Errno::NOSYS)
    }

    fn open_part_by_part(&self, key: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let mut parts = parts(key)?.peekable();
        let mut folder = open(&self.root, HOLD, Mode::empty())?;
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return openat(&folder, part, flags | OFlags::NOFOLLOW, mode);
            }
            folder = openat(&folder, part, HOLD | OFlags::NOFOLLOW, Mode::empty())?;
        }
        open(&self.root, flags.difference(OFlags::NOFOLLOW), mode)
    }
}

/// The folder of a key, and its last part.
pub(crate) fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

/// What is known of a name in a folder; of a link itself, and not of what it leads to.
pub(crate) fn facts_of(folder: BorrowedFd<'_>, name: &str) -> io::Result<Stat> {
    Ok(statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Keys are relative, and have no part that means another folder; that of the folder itself is empty.
fn check(key: &str) -> Result<(), Errno> {
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    let is_key = key.is_empty() || (key.split('/').all(is_part) && key.split('/').count() <= PARTS_MAX);
    if is_key { Ok(()) } else { Err(Errno::NOENT) }
}

/// The parts of a key; none of the folder itself.
fn parts(key: &str) -> Result<impl Iterator<Item = &str>, Errno> {
    check(key)?;
    Ok(key.split('/').filter(|part| !part.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_is_below_the_root_is_opened_and_made() {
        let outer = tempfile::tempdir().expect("a folder");
        let root = outer.path().join("root");
        std::fs::create_dir_all(root.join("host/deep")).expect("folders");
        std::fs::write(outer.path().join("secret"), "secret").expect("a file");
        std::fs::write(root.join("host/deep/a.jpg"), "inside").expect("a file");
        symlink(outer.path().join("secret"), root.join("host/link.jpg")).expect("a link");
        symlink("deep/a.jpg", root.join("host/inner.jpg")).expect("a link");
        symlink(outer.path(), root.join("out")).expect("a link");
        // The way to the root may have links in it.
        symlink(&root, outer.path().join("named")).expect("a link");
        let beneath = Beneath::of(&outer.path().join("named")).expect("it is there");
        let bad = [
            ".",
            "..",
            "/etc/passwd",
            "../secret",
            "host/../../secret",
            "host/./deep/a.jpg",
            "host//deep/a.jpg",
            "out/secret",
            "host/link.jpg",
            "host/inner.jpg",
            "host/deep/none.jpg",
            "host/deep/a.jpg/x",
            "a\0b",
        ];
        for key in bad {
            assert!(beneath.open_file(key).is_err(), "{key}");
            assert!(beneath.open_part_by_part(key, READ, Mode::empty()).is_err(), "{key}, part by part");
            assert!(!beneath.has_file(key).unwrap_or(false), "{key}");
        }
        for folder in ["", "host/deep"] {
            assert!(beneath.open_file(folder).is_err(), "a folder is no file");
            assert!(beneath.folder(folder).is_ok() && beneath.readable_folder(folder).is_ok());
            assert!(beneath.open_part_by_part(folder, HOLD, Mode::empty()).is_ok());
        }
        let mut text = String::new();
        beneath.open_file("host/deep/a.jpg").expect("it is there").read_to_string(&mut text).expect("readable");
        assert_eq!(text, "inside");
        assert!(beneath.has_file("host/deep/a.jpg").expect("it is there"));
        assert!(beneath.open_part_by_part("host/deep/a.jpg", READ, Mode::empty()).is_ok());

        assert!(beneath.make_folder("new/and/deep").is_ok() && root.join("new/and/deep").is_dir());
        assert!(beneath.make_folder("out/new").is_err() && beneath.make_folder("../new").is_err());
        assert!(!outer.path().join("new").exists());
    }

    #[test]
    fn a_pipe_holds_nobody() {
        let root = tempfile::tempdir().expect("a folder");
        rustix::fs::mkfifoat(CWD, root.path().join("pipe"), Mode::from_raw_mode(0o666)).expect("a pipe");
        let beneath = Beneath::of(root.path()).expect("it is there");
        assert!(beneath.open_file("pipe").is_err());
        assert!(!beneath.has_file("pipe").expect("known"));
    }
}
