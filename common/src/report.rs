//! A report: everything a worker says about one finished job, as the fields of an entry of the results stream. Pure.
//!
//! Fields whose value is empty are left out of the stream, and read back as empty.

use crate::job::JobId;
use crate::media::{Dimensions, MediaType};
use crate::outcome::Outcome;
use serde::Serialize;

/// The object that lies in storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Where, relative to the storage root, `/` between its parts.
    pub key: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of the object as it lies there, lower-case hex.
    pub sha256: String,
    /// What it is, by its bytes.
    pub media_type: MediaType,
    /// Width and height in pixels, where the header tells.
    pub dimensions: Option<Dimensions>,
}

/// What a worker says about one finished job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The job.
    pub id: JobId,
    /// The canonical link that was asked for, before redirects.
    pub url: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The object, for `stored`.
    pub object: Option<StoredObject>,
    /// HTTP status of the last answer; 0 where there was none.
    pub status: u16,
    /// Attempts used, the last one included.
    pub attempts: u32,
    /// Duration of the last attempt.
    pub duration_ms: u64,
}

/// A result as it is read from the stream: text where it was text, numbers where they are numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are the stream's fields, described in the contract")]
pub struct ResultRow {
    /// The entry's id in the stream, `<ms>-<n>` by the Redis clock.
    pub entry: String,
    pub id: String,
    pub url: String,
    pub outcome: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub worker: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub batch: String,
}

impl ResultRow {
    /// Reads an entry. Fields of a newer version are ignored; a number that is none reads as absent.
    pub fn from_fields(entry: String, fields: impl IntoIterator<Item = (String, String)>) -> ResultRow {
        let mut row = ResultRow { entry, ..ResultRow::default() };
        for (name, value) in fields {
            match name.as_str() {
                "id" => row.id = value,
                "url" => row.url = value,
                "outcome" => row.outcome = value,
                "reason" => row.reason = value,
                "key" => row.key = value,
                "bytes" => row.bytes = value.parse().ok(),
                "sha256" => row.sha256 = value,
                "type" => row.media_type = value,
                "width" => row.width = value.parse().ok(),
                "height" => row.height = value.parse().ok(),
                "status" => row.status = value.parse().ok(),
                "attempts" => row.attempts = value.parse().ok(),
                "worker" => row.worker = value,
                "ms" => row.ms = value.parse().ok(),
                "batch" => row.batch = value,
                _ => {}
            }
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_numbers_and_what_is_empty_is_left_out() {
        let fields =
            [("bytes", "10"), ("width", "3"), ("status", "200"), ("type", "jpeg"), ("later", "x"), ("ms", "soon")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let row = ResultRow::from_fields("1-0".into(), fields);
        assert_eq!((row.bytes, row.width, row.height, row.status, row.ms), (Some(10), Some(3), None, Some(200), None));
        let json = serde_json::to_value(&row).expect("serialises");
        assert_eq!(json["bytes"], 10);
        assert_eq!(json["type"], "jpeg");
        assert_eq!(json.get("reason"), None);
    }
}
