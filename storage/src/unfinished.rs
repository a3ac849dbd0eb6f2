//! An object before it has its name: a file that is written, hashed, judged, and then named.

use super::beneath::{Beneath, split};
use super::error::SyncFailed;
use super::naming::{self, Naming};
use super::object::{Expected, Judge, Unstored, WholeObject, Written};
use super::root::{Root, TEMPORARY, explained};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, renameat, unlinkat};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;

/// A file that is gone unless it gets its name.
pub(super) struct Unfinished {
    root: Arc<Root>,
    /// Its temporary name, or the one it would have.
    temporary: String,
    /// There is a file of the temporary name.
    is_named: bool,
    file: File,
    hasher: Context,
    bytes: u64,
    /// Once it was judged.
    sha256: String,
    /// How many syncs had failed before its first byte was written. One that fails later may have been told of its bytes.
    pub(super) sync_failures_before: u64,
}

impl Unfinished {
    pub(super) fn create(temporary: String, root: &Arc<Root>, sync_failures_before: u64) -> io::Result<Unfinished> {
        let naming = root.naming;
        let create = || match naming {
            Naming::Renamed => root.create(&temporary),
            Naming::Linked => naming::open_unnamed(&root.beneath, TEMPORARY).map_err(explained),
        };
        let file = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                root.restore_temporary_folder()?;
                create()?
            }
            other => other?,
        };
        let is_named = naming == Naming::Renamed;
        let (hasher, sha256) = (Context::new(&SHA256), String::new());
        let owned = Arc::clone(root);
        let unfinished =
            Unfinished { root: owned, temporary, is_named, file, hasher, bytes: 0, sha256, sync_failures_before };
        // One fstat, 0.3 µs: a mount that has gone leaves a folder of the same name behind, on another file system.
        root.check_device(&unfinished.file)?;
        Ok(unfinished)
    }

    pub(super) fn append(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        // All in one call: a large part may have a few bytes on either side.
        let mut parts: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
        let mut parts = &mut parts[..];
        while !parts.is_empty() {
            match self.file.write_vectored(parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut parts, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        for chunk in chunks {
            self.hasher.update(chunk);
            self.bytes += chunk.len() as u64;
        }
        Ok(())
    }

    /// The verdict over all that was written, before it gets its name.
    pub(super) fn judge(
        &mut self,
        expected: &Expected,
        judge: &dyn Judge,
        progress: &dyn Fn(),
    ) -> Result<(), Unstored> {
        self.sha256 = hex(self.hasher.clone().finish().as_ref());
        let object = WholeObject {
            file: &self.file,
            bytes: self.bytes,
            sha256: &self.sha256,
            info: expected.info,
            sha256_wanted: expected.sha256.as_deref(),
        };
        judge.judge(object, progress)?.map_err(Unstored::Refused)
    }

    /// As [`Unfinished::rename_to`], and a power cut afterwards changes nothing.
    pub(super) fn rename_durably_to(self, key: &str) -> io::Result<Written> {
        self.file.sync_all().map_err(SyncFailed::error)?;
        let root = Arc::clone(&self.root);
        root.beneath.make_folder(split(key).0)?;
        let folders = Folders::open(&root.beneath, key)?;
        let written = self.rename_to(key)?;
        folders.sync().map_err(SyncFailed::error)?;
        Ok(written)
    }

    /// Gives it its name, whole, after it was judged; replaces what is called so.
    pub(super) fn rename_to(mut self, key: &str) -> io::Result<Written> {
        let (folder, name) = split(key);
        let folder = match self.root.beneath.folder(folder) {
            // Cheaper than making it each time: it is missing once.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.root.beneath.make_folder(folder),
            opened => opened,
        }?;
        self.give_name(folder.as_fd(), name)?;
        Ok(Written { bytes: self.bytes, sha256: std::mem::take(&mut self.sha256) })
    }

    fn give_name(&mut self, folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        if !self.is_named {
            match naming::link(&self.file, folder, name) {
                // A link never replaces.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    naming::link(&self.file, self.root.temporary_folder()?.as_fd(), &self.temporary)?;
                    self.is_named = true;
                }
                other => return other,
            }
        }
        renameat(self.root.temporary_folder()?, &self.temporary, folder, name)?;
        self.is_named = false;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.is_named
            && let Ok(folder) = self.root.temporary_folder()
        {
            let _ = unlinkat(folder, &self.temporary, AtFlags::empty());
        }
    }
}

/// The folder of an object, and those above it to the root, which may be as new. They are opened before anything is changed
/// in them: a descriptor is told of the errors that happen after it was opened, and of others only if nobody was told yet.
pub(super) struct Folders(Vec<File>);

impl Folders {
    pub(super) fn open(beneath: &Beneath, key: &str) -> io::Result<Folders> {
        let mut folders = vec![];
        let mut below = key;
        while !below.is_empty() {
            below = split(below).0;
            folders.push(beneath.readable_folder(below)?);
        }
        Ok(Folders(folders))
    }

    /// Makes the names in them durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.iter().try_for_each(File::sync_all)
    }
}

pub(super) fn hex(hash: &[u8]) -> String {
    let mut text = vec![0; hash.len() * 2];
    // The lengths fit, and hex digits are UTF-8. Four times as fast as hex::encode, which goes through chars.
    let _ = hex::encode_to_slice(hash, &mut text);
    String::from_utf8(text).unwrap_or_default()
}
