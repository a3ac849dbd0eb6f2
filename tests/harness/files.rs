//! Looking at a storage folder from outside.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// SHA-256 of some bytes, in lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every object below `root` under its final name, with its SHA-256. Unfinished ones are left out.
///
/// # Panics
/// When a file cannot be read.
pub fn objects(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name() == ".imgq-tmp" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let key = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
                found.insert(key, sha256(&std::fs::read(&path).expect("a readable object")));
            }
        }
    }
    found
}
