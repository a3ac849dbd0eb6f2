//! Opens a file strictly below a folder: no `..`, no symbolic link, no device, whatever the key says.
//!
//! The kernel keeps the rule where it can (`openat2`); elsewhere each part is opened from the one before, links refused. A path is
//! never put together and trusted.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::Path;

/// NONBLOCK: a pipe that nobody writes to must not hold a thread.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);
/// Parts of a key, at most.
const PARTS_MAX: usize = 64;

/// Opens the regular file `key`, parts between `/`, below `root`.
///
/// # Errors
/// What the system says; also for anything that is no regular file, and for keys that no worker writes.
pub(super) fn open_file(root: &Path, key: &str) -> io::Result<File> {
    let root = File::open(root)?;
    let file = match with_openat2(root.as_fd(), key) {
        // Not there: an older kernel. Not allowed: a filter for system calls that does not know it.
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => part_by_part(root.as_fd(), key),
        opened => opened,
    }?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("no regular file"));
    }
    Ok(File::from(file))
}

#[cfg(target_os = "linux")]
fn with_openat2(root: BorrowedFd<'_>, key: &str) -> Result<OwnedFd, Errno> {
    use rustix::fs::{ResolveFlags, openat2};
    check(key)?;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, key, READ, Mode::empty(), within)
}

#[cfg(not(target_os = "linux"))]
fn with_openat2(_: BorrowedFd<'_>, _: &str) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

fn part_by_part(root: BorrowedFd<'_>, key: &str) -> Result<OwnedFd, Errno> {
    check(key)?;
    let mut folder = root.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    let (folders, file) = key.rsplit_once('/').map_or((None, key), |(folders, file)| (Some(folders), file));
    for part in folders.into_iter().flat_map(|folders| folders.split('/')) {
        folder = openat(&folder, part, READ | OFlags::DIRECTORY, Mode::empty())?;
    }
    openat(&folder, file, READ, Mode::empty())
}

/// Keys are relative, and have no part that means another folder.
fn check(key: &str) -> Result<(), Errno> {
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    let is_key = key.split('/').all(is_part) && key.split('/').count() <= PARTS_MAX;
    if is_key { Ok(()) } else { Err(Errno::NOENT) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_regular_files_below_the_root_are_opened() {
        let outer = tempfile::tempdir().expect("a folder");
        let root = outer.path().join("root");
        std::fs::create_dir_all(root.join("host/deep")).expect("folders");
        std::fs::write(outer.path().join("secret"), "secret").expect("a file");
        std::fs::write(root.join("host/deep/a.jpg"), "inside").expect("a file");
        symlink(outer.path().join("secret"), root.join("host/link.jpg")).expect("a link");
        symlink("deep/a.jpg", root.join("host/inner.jpg")).expect("a link");
        symlink(outer.path(), root.join("out")).expect("a link");
        let bad = [
            "",
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
        let handle = File::open(&root).expect("the root");
        for key in bad {
            assert!(open_file(&root, key).is_err(), "{key}");
            assert!(part_by_part(handle.as_fd(), key).is_err(), "{key}, part by part");
        }
        assert!(open_file(&root, "host/deep").is_err(), "a folder is no file");
        let mut text = String::new();
        open_file(&root, "host/deep/a.jpg").expect("it is there").read_to_string(&mut text).expect("readable");
        assert_eq!(text, "inside");
        assert!(part_by_part(handle.as_fd(), "host/deep/a.jpg").is_ok());
    }
}
