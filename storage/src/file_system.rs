//! The file system of a storage as the syncer sees it: one call that brings everything onto the disk.

use std::io;
use std::path::Path;

/// Brings everything that was written to a file system onto its disk.
pub(super) trait SyncFileSystem: Send {
    /// Returns when it is there.
    ///
    /// # Errors
    /// When something that was written since the call before, or since it was opened, may not be there.
    fn sync(&mut self) -> io::Result<()>;
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod by_descriptor {
    use super::{Path, SyncFileSystem, io};
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;

    /// Syncs by one descriptor of the storage's folder, which is open for as long as the syncer lives: a write-back error is
    /// told once to each descriptor that was open when it happened, and to one that is opened later only if nobody else was
    /// told (errseq_t, `Documentation/core-api/errseq.rst`). syncfs(2) tells of them since Linux 5.8.
    pub(in super::super) struct MountedFileSystem {
        folder: PathBuf,
        descriptor: File,
        device: u64,
    }

    impl MountedFileSystem {
        /// To be opened before anything is written that it has to vouch for.
        pub(in super::super) fn open(folder: &Path) -> io::Result<MountedFileSystem> {
            let descriptor = File::open(folder)?;
            let device = descriptor.metadata()?.dev();
            Ok(MountedFileSystem { folder: folder.to_owned(), descriptor, device })
        }
    }

    impl SyncFileSystem for MountedFileSystem {
        fn sync(&mut self) -> io::Result<()> {
            // The descriptor keeps its file system alive when that is unmounted by force, and its device's number is given to
            // no other meanwhile. It would sync that one for ever, without an error.
            if std::fs::metadata(&self.folder)?.dev() != self.device {
                *self = MountedFileSystem::open(&self.folder)?;
                return Err(io::Error::new(
                    io::ErrorKind::StaleNetworkFileHandle,
                    "another file system is mounted there",
                ));
            }
            Ok(rustix::fs::syncfs(&self.descriptor)?)
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod by_descriptor {
    use super::{Path, SyncFileSystem, io};

    /// Without syncfs all file systems are synced, which tells of no error.
    pub(in super::super) struct MountedFileSystem;

    impl MountedFileSystem {
        pub(in super::super) fn open(_folder: &Path) -> io::Result<MountedFileSystem> {
            Ok(MountedFileSystem)
        }
    }

    impl SyncFileSystem for MountedFileSystem {
        fn sync(&mut self) -> io::Result<()> {
            rustix::fs::sync();
            Ok(())
        }
    }
}

pub(super) use by_descriptor::MountedFileSystem;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn what_was_written_before_another_file_system_was_mounted_is_not_vouched_for() {
        let here = tempfile::tempdir().expect("a folder");
        let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
        let device = |path: &Path| std::fs::metadata(path).expect("there").dev();
        if device(here.path()) == device(elsewhere.path()) {
            return;
        }
        let root = here.path().join("root");
        symlink(here.path(), &root).expect("linked");
        let mut file_system = MountedFileSystem::open(&root).expect("opens");
        file_system.sync().expect("synced");
        std::fs::remove_file(&root).expect("unmounted");
        assert!(file_system.sync().is_err(), "nothing is there");
        symlink(elsewhere.path(), &root).expect("mounted");
        assert_eq!(file_system.sync().map_err(|error| error.kind()), Err(io::ErrorKind::StaleNetworkFileHandle));
        file_system.sync().expect("what is written from now on is on the new one");
    }
}
