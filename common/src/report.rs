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

/// What a field of a result may be, and how it stands in the stream.
trait Field: Default {
    /// As it stands there; empty when it is left out.
    fn write(&self) -> String;
    /// What is no number reads as absent.
    fn read(text: String) -> Self;
}

impl Field for String {
    fn write(&self) -> String {
        self.clone()
    }

    fn read(text: String) -> String {
        text
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl Field for Option<$number> {
            fn write(&self) -> String {
                self.map_or_else(String::new, |number| number.to_string())
            }

            fn read(text: String) -> Option<$number> {
                text.parse().ok()
            }
        })*
    };
}
numbers!(u16, u32, u64);

/// The one list of what a result has: of it are made the row, its reading and writing, and [`RESULT_FIELDS`], which the script
/// that settles names the fields by.
macro_rules! result_fields {
    ($($(#[$attribute:meta])* $name:literal $field:ident: $type:ty,)*) => {
        /// The fields of a result in the stream, in the order of [`ResultRow::values`].
        pub const RESULT_FIELDS: &[&str] = &[$($name),*];

        /// A result as it is read from the stream: text where it was text, numbers where they are numbers.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
        #[allow(missing_docs, reason = "the names are the stream's fields, described in the contract")]
        pub struct ResultRow {
            /// The entry's id in the stream, `<ms>-<n>` by the Redis clock.
            pub entry: String,
            $(#[serde(rename = $name)] $(#[$attribute])* pub $field: $type,)*
        }

        impl ResultRow {
            /// Reads an entry. Fields of a newer version are ignored; a number that is none reads as absent.
            pub fn from_fields(entry: String, fields: impl IntoIterator<Item = (String, String)>) -> ResultRow {
                let mut row = ResultRow { entry, ..ResultRow::default() };
                for (name, value) in fields {
                    match name.as_str() {
                        $($name => row.$field = Field::read(value),)*
                        _ => {}
                    }
                }
                row
            }

            /// The values in the order of [`RESULT_FIELDS`]; empty ones are left out of the stream.
            pub fn values(&self) -> Vec<String> {
                vec![$(self.$field.write()),*]
            }
        }
    };
}

result_fields! {
    "id" id: String,
    "url" url: String,
    "outcome" outcome: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    "reason" reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    "key" key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    "bytes" bytes: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    "sha256" sha256: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    "type" media_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    "width" width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    "height" height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    "status" status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    "attempts" attempts: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    "worker" worker: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    "ms" ms: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    "batch" batch: String,
}

impl Report {
    /// The result that `worker` records. It has no entry in the stream yet.
    pub fn row(&self, worker: &str) -> ResultRow {
        let object = self.object.as_ref();
        let text = |of: fn(&StoredObject) -> &str| object.map_or_else(String::new, |object| of(object).to_owned());
        // A width or a status of 0 is none.
        let dimensions = object.and_then(|object| object.dimensions);
        let side = |side: u32| (side != 0).then_some(side);
        ResultRow {
            entry: String::new(),
            id: self.id.to_string(),
            url: self.url.clone(),
            outcome: self.outcome.name().to_owned(),
            reason: self.outcome.reason().to_owned(),
            key: text(|object| &object.key),
            bytes: object.map(|object| object.bytes),
            sha256: text(|object| &object.sha256),
            media_type: text(|object| object.media_type.name()),
            width: dimensions.and_then(|(width, _)| side(width)),
            height: dimensions.and_then(|(_, height)| side(height)),
            status: (self.status != 0).then_some(self.status),
            attempts: Some(self.attempts),
            worker: worker.to_owned(),
            ms: Some(self.duration_ms),
            batch: self.id.batch().map_or_else(String::new, |batch| batch.to_string()),
        }
    }
}

/// When an entry of a stream was made, by its id (`1700000000000-0`): ms since 1970, by the clock of Redis.
pub fn entry_ms(entry: &str) -> Option<u64> {
    entry.split_once('-')?.0.parse().ok()
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
        assert_eq!((entry_ms("170-3"), entry_ms("170"), entry_ms("x-1")), (Some(170), None, None));
    }

    #[test]
    fn what_is_written_reads_the_same_and_every_field_has_its_place() {
        let report = Report {
            id: crate::job::JobId::new(crate::job::BatchId::from_random(7), 1, 0),
            url: "https://x.org/1.jpg".into(),
            outcome: Outcome::Stored { exists: true },
            object: Some(StoredObject {
                key: "x.org/1.jpg".into(),
                bytes: 10,
                sha256: "ab".into(),
                media_type: MediaType::Jpeg,
                dimensions: Some((3, 4)),
            }),
            status: 200,
            attempts: 2,
            duration_ms: 12,
        };
        let row = report.row("w");
        let values = row.values();
        assert!(values.iter().all(|value| !value.is_empty()), "{values:?}");
        let fields = RESULT_FIELDS.iter().map(|name| (*name).to_owned()).zip(values);
        assert_eq!(ResultRow::from_fields(String::new(), fields), row);
        let nothing = Report { object: None, status: 0, ..report };
        let empty: Vec<_> = RESULT_FIELDS.iter().zip(nothing.row("w").values()).filter(|(_, v)| v.is_empty()).collect();
        let empty: Vec<&str> = empty.into_iter().map(|(name, _)| *name).collect();
        assert_eq!(empty, ["key", "bytes", "sha256", "type", "width", "height", "status"]);
    }
}
