//! Objects that are stored, refused, given up and found again, on a real file system.

use super::*;
use bytes::Bytes;
use common::media::{MediaInfo, MediaType};
use common::outcome::Rejection;
use std::io::{Read as _, Seek as _};
use std::path::PathBuf;
use upload::HAND_OVER_BYTES_MAX;
use writer::WRITERS;

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

pub(crate) const GIF: MediaInfo = MediaInfo { media_type: MediaType::Gif, dimensions: None };

pub(crate) fn gif(sha256: Option<String>) -> Expected {
    Expected { info: GIF, sha256 }
}

/// Knows GIFs; refuses what is shorter than `bytes_min`, of another hash, or ends in `xyz` where that is `refused`.
#[derive(Default)]
pub(crate) struct GifJudge {
    bytes_min: u64,
    refuses_xyz: bool,
}

impl Judge for GifJudge {
    fn info_of(&self, beginning: &[u8]) -> Option<MediaInfo> {
        assert!(!beginning.starts_with(b"panic"), "on purpose");
        beginning.starts_with(b"GIF").then_some(GIF)
    }

    fn judge(&self, object: WholeObject<'_>, _: &dyn Fn()) -> io::Result<Result<(), Rejection>> {
        let mut content = Vec::new();
        let mut file = object.file;
        file.rewind()?;
        file.read_to_end(&mut content)?;
        assert_eq!(content.len() as u64, object.bytes, "all of it is there to be read");
        Ok(if object.sha256_wanted.is_some_and(|wanted| wanted != object.sha256) {
            Err(Rejection::HashMismatch)
        } else if object.bytes < self.bytes_min {
            Err(Rejection::TooSmall)
        } else if self.refuses_xyz && content.ends_with(b"xyz") {
            Err(Rejection::Undecodable)
        } else {
            Ok(())
        })
    }
}

pub(crate) fn open(root: &Path) -> Storage {
    Storage::open(root, 64, SyncPolicy::None, Arc::new(GifJudge::default())).expect("opens")
}

pub(crate) fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("readable").flatten() {
            if entry.path().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    files
}

#[test]
fn an_object_is_there_whole_with_its_length_and_hash() {
    let root = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let storage = open(root.path());
        for (key, parts) in [("a/b/small.gif", 3), ("a/large.gif", 5000)] {
            let mut upload = storage.upload();
            for _ in 0..parts {
                upload.write(Bytes::from_static(b"GIF89a-xyz")).await.expect("written");
            }
            let written = upload.finish(key.to_owned(), false, gif(None)).await.expect("stored");
            assert_eq!(written.bytes, parts * 10);
            let content = std::fs::read(root.path().join(key)).expect("there");
            assert_eq!(content, b"GIF89a-xyz".repeat(parts as usize));
            use sha2::Digest;
            let expected: String = sha2::Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(written.sha256, expected);
            let wanted = vec![vec!["no".into(), key.to_owned()], vec!["no".into()]];
            let mut found = storage.find(wanted).await;
            assert_eq!((found.len(), found.pop()), (2, Some(None)));
            let found = found.remove(0).expect("found");
            assert_eq!((found.key.as_str(), found.written), (key, written));
            std::fs::write(root.path().join("other"), b"something else").expect("written");
            assert_eq!(storage.find(vec![vec!["other".to_owned()]]).await, [None]);
        }
    });
}

#[test]
fn an_order_that_panics_is_nobody_else_s_affair() {
    let root = tempfile::tempdir().expect("a folder");
    std::fs::write(root.path().join("a.gif"), b"GIF89a").expect("written");
    std::fs::write(root.path().join("b.gif"), b"panic").expect("written");
    runtime().block_on(async {
        let storage = open(root.path());
        let wanted = |key: &str| vec![vec![key.to_owned()]];
        for _ in 0..WRITERS {
            assert_eq!(storage.find(wanted("b.gif")).await, [None]);
        }
        for n in 0..WRITERS {
            assert!(storage.find(wanted("a.gif")).await[0].is_some());
            let mut upload = storage.upload();
            upload.write(Bytes::from_static(b"GIF89a")).await.expect("written");
            upload.finish(format!("{n}.gif"), false, gif(None)).await.expect("stored");
        }
    });
}

#[test]
fn a_dropped_upload_leaves_nothing() {
    let root = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let storage = open(root.path());
        let mut upload = storage.upload();
        upload.write(Bytes::from(vec![1; HAND_OVER_BYTES_MAX])).await.expect("written");
        drop(upload);
        // The next order to the same writer is answered after the abort was carried out.
        for _ in 0..WRITERS {
            storage.find(vec![vec!["no".into()]]).await;
        }
        assert_eq!(files_below(root.path()), Vec::<PathBuf>::new());
    });
}

#[test]
fn a_key_that_cannot_be_written_is_an_error_and_leaves_nothing() {
    let root = tempfile::tempdir().expect("a folder");
    std::fs::write(root.path().join("file"), b"x").expect("written");
    runtime().block_on(async {
        let storage = open(root.path());
        let mut upload = storage.upload();
        upload.write(Bytes::from_static(b"x")).await.expect("written");
        assert!(upload.finish("file/below".into(), false, gif(None)).await.is_err());
        assert_eq!(files_below(root.path()), [root.path().join("file")]);
    });
}

#[test]
fn what_is_refused_never_gets_a_name() {
    let root = tempfile::tempdir().expect("a folder");
    let another_hash = || Some("0".repeat(64));
    for sync in [SyncPolicy::None, SyncPolicy::File, SyncPolicy::Batch] {
        runtime().block_on(async {
            let judge = GifJudge { bytes_min: 4, refuses_xyz: true };
            let storage = Storage::open(root.path(), 64, sync, Arc::new(judge)).expect("opens");
            for (body, wanted, reason) in [
                (&b"GIF"[..], None, Rejection::TooSmall),
                (&[b'x'; 100_000], another_hash(), Rejection::HashMismatch),
                (b"GIF89a-xyz", None, Rejection::Undecodable),
            ] {
                let mut upload = storage.upload();
                upload.write(Bytes::copy_from_slice(body)).await.expect("written");
                match upload.finish("a.gif".into(), false, gif(wanted)).await {
                    Err(Unstored::Refused(rejection)) => assert_eq!(rejection, reason),
                    other => panic!("{other:?} in place of {reason}"),
                }
                assert_eq!(files_below(root.path()), Vec::<PathBuf>::new(), "{reason}");
            }
        });
    }
}
