//! A job: one link to download, and the compact JSON that it is in Redis. Pure.
//!
//! The wire form is part of the contract: `{"id":"<32 hex>","url":"…"}`, further fields only when they differ from
//! their default, `id` first. The scripts rely on the position of `id` to key crash counts.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// The schema version that this program writes and reads. A payload without `v` has this version.
pub const SCHEMA_VERSION: u32 = 1;
/// The kinds of jobs that this program knows. A payload without `kind` is a `download`.
pub const JOB_KINDS: &[&str] = &["download"];

/// The largest element of the queue, in bytes, as JSON: four of the longest links, which leaves room for what travels with one.
/// A claim hands out the beginning of a larger one only, and that it was larger.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// What a job may grow by while it is retried: its id, its attempts, its last reason, the hosts that it leads to.
const GROWTH_BYTES_MAX: usize = 4096;
/// A payload that is not larger than this is in bounds however it is written anew: numbers may become 4.5 times as long.
const SURELY_SMALL_BYTES: usize = PAYLOAD_BYTES_MAX / 8;
/// Of a payload that cannot be read, this much is shown, in bytes.
const BEGINNING_BYTES: usize = 200;

/// One enqueue: 48 random bits, written as 12 hex digits. Every id of its jobs starts with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(u64);

impl BatchId {
    /// Makes an id from random bits; the upper 16 are ignored. The all-zero id stands for "no batch", so it is not made.
    pub fn from_random(bits: u64) -> BatchId {
        BatchId((bits & 0xffff_ffff_ffff).max(1))
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

impl FromStr for BatchId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let valid = text.len() == 12 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(bits) if valid && bits != 0 => Ok(BatchId(bits)),
            _ => Err(format!("\"{text}\" is not a batch: a batch is 12 hex digits, as `enqueue` prints it")),
        }
    }
}

/// A job's id: a UUID of version 8 (RFC 9562, section 5.8) whose first 48 bits are its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JobId(Uuid);

impl JobId {
    /// The id of the `ordinal`-th job of a batch; distinct for distinct ordinals below 2^62. `salt` fills the 12 bits
    /// between the version and the variant.
    pub fn new(batch: BatchId, ordinal: u64, salt: u16) -> JobId {
        let bits =
            (u128::from(batch.0) << 80) | (u128::from(salt & 0xfff) << 64) | u128::from(ordinal & ((1 << 62) - 1));
        // new_v8 sets the version and variant bits and keeps all others.
        JobId(Uuid::new_v8(bits.to_be_bytes()))
    }

    /// An id that belongs to no batch, for a job that came without one.
    pub fn without_batch(random: u128) -> JobId {
        JobId(Uuid::new_v8((random >> 48).to_be_bytes()))
    }

    /// The batch that the id names; `None` for ids of other makers and for jobs pushed by hand.
    pub fn batch(self) -> Option<BatchId> {
        let bits = (self.0.as_u128() >> 80) as u64;
        (self.0.get_version_num() == 8 && bits != 0).then_some(BatchId(bits))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl FromStr for JobId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Uuid::parse_str(text).map(JobId).map_err(|_| format!("\"{text}\" is not a job id of 32 hex digits"))
    }
}

/// One link to download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Who it is.
    pub id: JobId,
    /// What to download, as it was asked for.
    pub url: String,
    /// The SHA-256 that its object has to have, as 64 lower-case hex digits, where whoever asked for it knows.
    pub sha256: Option<String>,
    /// Attempts spent so far.
    pub attempts: u32,
    /// Answers of 429 that cost no attempt.
    pub held: u32,
    /// The reason of the last failed attempt.
    pub last_reason: Option<String>,
    /// The hosts that the link leads to, one redirect after the other, while the job waits until all of them may be asked: as
    /// [`host_of`](crate::host::host_of) names them, with a blank between two.
    pub redirects_to: Option<String>,
    /// Fields of the payload that this version has no name for; carried along through retries.
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// What is asked for before it is a job: a link, and what is known of its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The canonical link.
    pub url: String,
    /// As in [`Job::sha256`].
    pub sha256: Option<String>,
}

impl From<String> for Wanted {
    fn from(url: String) -> Wanted {
        Wanted { url, sha256: None }
    }
}

/// A SHA-256 as jobs carry it, in lower case; `None` when `text` is not 64 hex digits.
pub fn read_sha256(text: &str) -> Option<String> {
    let is_one = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| text.to_ascii_lowercase())
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    url: Cow<'a, str>,
    /// Directly behind the link, where the scripts look for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redirects_to: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    attempts: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    held: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    v: Option<u32>,
    /// Written by a claim in the place of a larger payload: how many bytes that had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oversized: Option<u64>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Why a payload is not a job, with what could be read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableJob {
    /// The id, where there was one.
    pub id: Option<JobId>,
    /// The URL, where there was one; else the payload's beginning.
    pub url: String,
    /// What is wrong.
    pub why: String,
}

impl Job {
    /// A new job, no attempt spent.
    pub fn new(id: JobId, url: String) -> Job {
        Job {
            id,
            url,
            sha256: None,
            attempts: 0,
            held: 0,
            last_reason: None,
            redirects_to: None,
            rest: BTreeMap::new(),
        }
    }

    /// Reads an element of the queue. `random` gives an id to a payload without one.
    ///
    /// An element is a job as JSON when its first character is a brace, behind blanks and a byte order mark; any other one that
    /// holds `://` is a bare URL. `claim/payload.lua` of the queue says the same.
    ///
    /// # Errors
    /// [`UnreadableJob`] when it is not JSON of the known shape and version, bare text that is no URL, or larger than
    /// [`PAYLOAD_BYTES_MAX`].
    pub fn read(payload: &[u8], random: u128) -> Result<Job, UnreadableJob> {
        let unreadable = |id, url: &str, why: String| UnreadableJob { id, url: url.to_owned(), why };
        let beginning = || String::from_utf8_lossy(&payload[..payload.len().min(BEGINNING_BYTES)]).into_owned();
        let too_large = |bytes: u64| format!("it has {bytes} bytes, and {PAYLOAD_BYTES_MAX} are the most");
        // Measured as it is written: what is claimed again after a retry must not have become too large by that.
        let in_bounds = |job: Job| match payload.len() > SURELY_SMALL_BYTES {
            true => match job.write().len() {
                bytes if bytes + GROWTH_BYTES_MAX > PAYLOAD_BYTES_MAX => {
                    Err(unreadable(Some(job.id), &beginning(), too_large(bytes as u64)))
                }
                _ => Ok(job),
            },
            false => Ok(job),
        };
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(unreadable(id_of(payload), &beginning(), too_large(payload.len() as u64)));
        }
        let text = std::str::from_utf8(payload)
            .map_err(|_| unreadable(id_of(payload), &beginning(), "it is not UTF-8".into()))?;
        let text = without_surroundings(text);
        if !text.starts_with('{') {
            // The claim turns a bare URL into JSON; this is for readers of elements that were not claimed yet.
            if !text.contains("://") {
                return Err(unreadable(None, &beginning(), "it is neither a JSON object nor a URL".into()));
            }
            return in_bounds(Job::new(JobId::without_batch(random), text.to_owned()));
        }
        let wire: Wire<'_> = serde_json::from_str(text).map_err(|error| {
            let (id, url) = readable_part(text);
            unreadable(id, &url.unwrap_or_else(beginning), error.to_string())
        })?;
        let id = match &wire.id {
            None => JobId::without_batch(random),
            Some(id) => id.parse().map_err(|why| unreadable(None, &wire.url, why))?,
        };
        if let Some(bytes) = wire.oversized {
            return Err(unreadable(Some(id), &wire.url, too_large(bytes)));
        }
        if let Some(v) = wire.v.filter(|v| *v != SCHEMA_VERSION) {
            let why = format!("its schema version is {v}, and this worker reads {SCHEMA_VERSION}");
            return Err(unreadable(Some(id), &wire.url, why));
        }
        if let Some(kind) = wire.kind.as_deref().filter(|kind| !JOB_KINDS.contains(kind)) {
            return Err(unreadable(
                Some(id),
                &wire.url,
                format!("its kind is \"{kind}\", and this worker does {JOB_KINDS:?}"),
            ));
        }
        let sha256 = match wire.sha256.as_deref() {
            None => None,
            Some(text) => match read_sha256(text) {
                None => return Err(unreadable(Some(id), &wire.url, "its sha256 is not 64 hex digits".into())),
                known => known,
            },
        };
        in_bounds(Job {
            id,
            url: wire.url.into_owned(),
            sha256,
            attempts: wire.attempts,
            held: wire.held,
            last_reason: wire.last_reason,
            redirects_to: wire.redirects_to.map(Cow::into_owned),
            rest: wire.rest,
        })
    }

    /// The element of the queue.
    pub fn write(&self) -> String {
        let id = self.id.to_string();
        let wire = Wire {
            id: Some(Cow::Borrowed(&id)),
            url: Cow::Borrowed(&self.url),
            redirects_to: self.redirects_to.as_deref().map(Cow::Borrowed),
            sha256: self.sha256.as_deref().map(Cow::Borrowed),
            attempts: self.attempts,
            held: self.held,
            last_reason: self.last_reason.clone(),
            kind: None,
            v: None,
            oversized: None,
            rest: self.rest.clone(),
        };
        // Strings, numbers and maps with string keys cannot fail to serialise.
        serde_json::to_string(&wire).unwrap_or_default()
    }
}

/// Text without what may stand around it where it was written by hand: blanks on both sides, and a byte order mark in front.
fn without_surroundings(text: &str) -> &str {
    let is_blank = |c| matches!(c, ' ' | '\t'..='\r');
    let text = text.trim_matches(is_blank);
    text.strip_prefix('\u{feff}').unwrap_or(text).trim_start_matches(is_blank)
}

/// The id at the beginning of a payload, as text for logs: quick, and of broken payloads too. `?` where there is none.
pub fn id_for_logs(payload: &[u8]) -> &str {
    let id = payload.strip_prefix(b"{\"id\":\"").and_then(|rest| rest.get(..32));
    id.filter(|id| id.iter().all(u8::is_ascii_hexdigit)).and_then(|id| std::str::from_utf8(id).ok()).unwrap_or("?")
}

fn id_of(payload: &[u8]) -> Option<JobId> {
    id_for_logs(payload).parse().ok()
}

/// What a broken payload still tells: some JSON objects have a wrong type in one field only.
fn readable_part(text: &str) -> (Option<JobId>, Option<String>) {
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return (None, None) };
    let field = |name| value.get(name).and_then(serde_json::Value::as_str);
    (field("id").and_then(|id| id.parse().ok()), field("url").map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> BatchId {
        BatchId::from_random(0xabcd_0123_4567_89ab)
    }

    #[test]
    fn an_id_starts_with_its_batch_and_is_a_version_8_uuid() {
        let id = JobId::new(batch(), 7, 0xfff);
        let text = id.to_string();
        assert_eq!(text, "0123456789ab8fff8000000000000007");
        assert_eq!(batch().to_string(), "0123456789ab");
        assert_eq!(id.batch(), Some(batch()));
        assert_eq!(text.parse::<JobId>(), Ok(id));
        assert_eq!(JobId::without_batch(u128::MAX).batch(), None);
        let foreign: JobId = "67e5504410b1426f9247bb680e5fe0c8".parse().expect("a v4 UUID");
        assert_eq!(foreign.batch(), None);
        assert!("000000000000".parse::<BatchId>().is_err());
        assert!("+23456789abc".parse::<BatchId>().is_err());
    }

    #[test]
    fn a_new_job_is_its_id_and_url_and_nothing_else() {
        let job = Job::new(JobId::new(batch(), 1, 0), "https://i.imgur.com/abcdefg.jpg".into());
        let wire = job.write();
        assert_eq!(wire, r#"{"id":"0123456789ab80008000000000000001","url":"https://i.imgur.com/abcdefg.jpg"}"#);
        assert_eq!(Job::read(wire.as_bytes(), 0), Ok(job));
        assert_eq!(id_for_logs(wire.as_bytes()), "0123456789ab80008000000000000001");
        for other in
            [&b"https://x.org/"[..], b"{\"id\":\"12\"}", b"{\"id\":\"\x1b[31m4567890123456789012345678901234\"}"]
        {
            assert_eq!(id_for_logs(other), "?");
        }
    }

    #[test]
    fn what_is_not_known_is_carried_along() {
        let wire = r#"{"id":"0123456789ab80008000000000000001","url":"https://x/","attempts":2,"caption":"ab"}"#;
        let job = Job::read(wire.as_bytes(), 0).expect("readable");
        assert_eq!(job.attempts, 2);
        assert_eq!(job.write(), wire);
    }

    #[test]
    fn a_fraction_is_carried_along_to_its_last_digit() {
        let wire = r#"{"id":"0123456789ab80008000000000000001","url":"https://x/","w":4.1844674407370955e+21}"#;
        assert_eq!(Job::read(wire.as_bytes(), 0).map(|job| job.write()).as_deref(), Ok(wire));
    }

    #[test]
    fn the_hash_that_is_expected_is_read_in_either_case_and_carried_along() {
        let payload =
            |hash: &str| format!(r#"{{"id":"0123456789ab80008000000000000001","url":"https://x/","sha256":{hash}}}"#);
        let (upper, lower) =
            (payload(&format!("\"{}\"", "AB".repeat(32))), payload(&format!("\"{}\"", "ab".repeat(32))));
        for wire in [&upper, &lower] {
            let job = Job::read(wire.as_bytes(), 0).expect("readable");
            assert_eq!((job.sha256.as_deref(), job.write()), (Some(&*"ab".repeat(32)), lower.clone()));
        }
        assert_eq!(Job::read(payload("null").as_bytes(), 0).expect("readable").sha256, None);
        for bad in
            ["\"\"".to_owned(), "12".to_owned(), format!("\"{}\"", "ab".repeat(31)), format!("\"{}\"", "xy".repeat(32))]
        {
            let error = Job::read(payload(&bad).as_bytes(), 0).expect_err(&bad);
            assert_eq!((error.id.is_some(), error.url.as_str()), (true, "https://x/"), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_what_was_readable() {
        let id = "0123456789ab80008000000000000001";
        for (payload, id_read, url) in [
            ("{".to_owned(), false, "{"),
            ("nonsense".to_owned(), false, "nonsense"),
            (format!(r#"{{"id":"{id}","url":"https://x/","v":2}}"#), true, "https://x/"),
            (format!(r#"{{"id":"{id}","url":"https://x/","kind":"list"}}"#), true, "https://x/"),
            (format!(r#"{{"id":"{id}","url":"https://x/","attempts":"two"}}"#), true, "https://x/"),
            (r#"{"id":"12","url":"https://x/"}"#.to_owned(), false, "https://x/"),
        ] {
            let error = Job::read(payload.as_bytes(), 0).expect_err(&payload);
            assert_eq!((error.id.is_some(), error.url.as_str()), (id_read, url), "{payload}");
        }
        assert!(Job::read(b"\xff\xfe://", 0).is_err());
    }
}
