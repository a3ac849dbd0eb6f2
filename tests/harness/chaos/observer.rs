//! Looks while the chaos goes on: at the places of all jobs, and at the files under final names.

use super::stage::Stage;
use super::verdict::expected_content;
use crate::files::sha256;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What was looked at.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Times that the places of all jobs were read.
    pub(super) places: u64,
    /// Files that were read and hashed.
    pub(super) files: u64,
    /// Jobs that were seen to wait for the target of a redirect.
    pub(super) waiting_for_target: HashSet<String>,
}

/// The whole queue at one instant: elements of `ready`, of `delayed`, of every in-flight hash, and the ids of the results
/// after a given entry, with the last entry. A script of this test, so that nothing moves while it reads.
const PLACES: &str = r"
local function key(name) return ARGV[1] .. name end
local waiting, done, last = {}, {}, ARGV[2]
for _, payload in ipairs(redis.call('LRANGE', key('ready'), 0, -1)) do waiting[#waiting + 1] = payload end
for _, payload in ipairs(redis.call('ZRANGE', key('delayed'), 0, -1)) do waiting[#waiting + 1] = payload end
for _, worker in ipairs(redis.call('KEYS', (string.gsub(key('inflight:'), '[{}]', '\\%0')) .. '*')) do
  for _, payload in ipairs(redis.call('HVALS', worker)) do waiting[#waiting + 1] = payload end
end
local from = last == '' and '-' or '(' .. last
for _, entry in ipairs(redis.call('XRANGE', key('results'), from, '+')) do
  last = entry[1]
  for i = 1, #entry[2], 2 do if entry[2][i] == 'id' then done[#done + 1] = entry[2][i + 1] end end
end
return {last, waiting, done}";

/// Checks, again and again, that every job is in exactly one place.
pub(super) fn places(stage: &Stage, looks: &mut Looks) {
    let mut epoch = u64::MAX;
    let (mut last, mut done, mut known) = (String::new(), HashSet::new(), HashSet::new());
    while !stage.is_over() {
        std::thread::sleep(Duration::from_secs(1));
        let now = stage.epoch.load(Ordering::SeqCst);
        if now != epoch {
            // Redis went back in time; what it knew before is no measure any more.
            (epoch, last) = (now, String::new());
            done.clear();
            known.clear();
        }
        let Some(mut raw) = stage.raw() else { continue };
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(PLACES).arg(0).arg(Stage::key("")).arg(&last);
        let Ok((newest, waiting, new)) = cmd.query::<(String, Vec<String>, Vec<String>)>(&mut raw) else { continue };
        if stage.epoch.load(Ordering::SeqCst) != epoch {
            continue;
        }
        last = newest;
        for id in new {
            if !done.insert(id.clone()) {
                stage.violated(format!("job {id} has two results"));
            }
        }
        let mut seen = BTreeSet::new();
        for payload in &waiting {
            // What was pushed by hand has no id yet.
            let Some(id) = payload.strip_prefix("{\"id\":\"").and_then(|rest| rest.get(..32)) else { continue };
            look_at_target(stage, looks, id, payload);
            if !seen.insert(id) || done.contains(id) {
                stage.violated(format!("job {id} is in two places"));
            }
        }
        for id in known.iter().filter(|id: &&String| !seen.contains(id.as_str()) && !done.contains(*id)) {
            stage.violated(format!("job {id} was there and is nowhere"));
        }
        known = seen.into_iter().map(str::to_owned).collect();
        looks.places += 1;
    }
}

/// A job that waits for the target of a redirect says so, or its door would be asked again and again.
fn look_at_target(stage: &Stage, looks: &mut Looks, id: &str, payload: &str) {
    let Ok(job) = serde_json::from_str::<serde_json::Value>(payload) else { return };
    let Some((link, door)) = job["url"].as_str().and_then(|link| Some((link, stage.web.door_of(link)?))) else {
        return;
    };
    match job["redirects_to"].as_str() {
        Some(hosts) if stage.web.leads_to(link, &hosts.split(' ').collect::<Vec<_>>()) => {
            looks.waiting_for_target.insert(id.to_owned());
        }
        Some(hosts) => stage.violated(format!("job {id} waits for {hosts}, where {link} does not lead")),
        // It was refused, and not by its door.
        None if job["held"].as_u64() > Some(0) && job["attempts"].as_u64().unwrap_or(0) == 0 => {
            let path = link.strip_prefix(&door.url("")).unwrap_or_default();
            if !door.has_refused(path) {
                stage.violated(format!("job {id} was refused at a target and does not carry it: {payload}"));
            }
        }
        None => {}
    }
}

/// Reads and hashes files under final names, again and again: new ones, and some that were there before.
pub(super) fn files(stage: &Stage, looks: &mut Looks) {
    let mut random = fastrand::Rng::new();
    let mut known: BTreeMap<PathBuf, ()> = BTreeMap::new();
    while !stage.is_over() {
        std::thread::sleep(Duration::from_millis(500));
        for path in files_below(&stage.storage.real) {
            if known.insert(path.clone(), ()).is_some() && random.u32(..100) > 0 {
                continue;
            }
            if let Err(why) = check(&stage.storage.real, &path) {
                stage.violated(why);
            }
            looks.files += 1;
        }
    }
}

/// Files under final names.
pub(super) fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && name != ".imgq-tmp" => folders.push(entry.path()),
                Ok(kind) if kind.is_file() && name != ".ballast" => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files
}

/// Whether a file is what the origin serves under its name.
pub(super) fn check(root: &Path, path: &Path) -> Result<(), String> {
    let key = path.strip_prefix(root).map_err(|_| format!("{} is not below the root", path.display()))?;
    let expected = expected_content(&key.to_string_lossy())
        .ok_or_else(|| format!("{} is no object of any job", path.display()))?;
    let found = std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    if sha256(&found) == sha256(&expected) {
        Ok(())
    } else {
        Err(format!("{} is not whole: {} of {} bytes, or others", path.display(), found.len(), expected.len()))
    }
}
