//! A report: everything a worker says about one finished job, as the fields of an entry of the results stream. Pure.
//!
//! Fields whose value is empty are left out of the stream, and read back as empty.

use crate::job::JobId;
use crate::media::{Dimensions, MediaType};
use crate::outcome::Outcome;
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;

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

/// The value of one field of a result on its way into the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// Text; an empty one is left out there.
    Text(Cow<'a, str>),
    /// A number.
    Number(u64),
}

impl Value<'_> {
    /// Whether it is left out.
    pub fn is_empty(&self) -> bool {
        matches!(self, Value::Text(text) if text.is_empty())
    }

    /// A number, unless it is 0 or there is none.
    fn unless_0(number: Option<u64>) -> Value<'static> {
        number.filter(|number| *number != 0).map_or_else(|| "".into(), Value::Number)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Value<'a> {
        Value::Text(text.into())
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(text.into())
    }
}

/// As it stands in the stream.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => f.write_str(text),
            Value::Number(number) => number.fmt(f),
        }
    }
}

/// What a field of a result is read as.
trait Field: Default {
    /// What is no number reads as absent.
    fn read(text: String) -> Self;
}

impl Field for String {
    fn read(text: String) -> String {
        text
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl Field for Option<$number> {
            fn read(text: String) -> Option<$number> {
                text.parse().ok()
            }
        })*
    };
}
numbers!(u16, u32, u64);

/// The one list of what a result has, and where a report has it: of it are made the row and its reading, the values of a report, and
/// [`RESULT_FIELDS`], which the script that settles names the fields by.
macro_rules! result_fields {
    (|$report:ident, $object:ident, $worker:ident| {
        $($(#[$attribute:meta])* $name:literal $field:ident: $type:ty = $value:expr,)*
    }) => {
        /// The fields of a result in the stream, in the order of [`Report::values`].
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
        }

        impl Report {
            /// What `worker` records, in the order of [`RESULT_FIELDS`]; empty values are left out of the stream.
            pub fn values<'a>(&'a self, $worker: &'a str) -> [Value<'a>; RESULT_FIELDS.len()] {
                let ($report, $object) = (self, self.object.as_ref());
                [$($value),*]
            }
        }
    };
}

/// Text of an object, where there is one.
fn text_of(object: Option<&StoredObject>, text: fn(&StoredObject) -> &str) -> Value<'_> {
    object.map_or("", text).into()
}

/// A side of a picture, where it is known.
fn side_of(object: Option<&StoredObject>, side: fn(Dimensions) -> u32) -> Value<'static> {
    Value::unless_0(object.and_then(|object| object.dimensions).map(|dimensions| side(dimensions).into()))
}

result_fields! {
    |report, object, worker| {
        "id" id: String = report.id.to_string().into(),
        "url" url: String = report.url.as_str().into(),
        "outcome" outcome: String = report.outcome.name().into(),
        #[serde(skip_serializing_if = "String::is_empty")]
        "reason" reason: String = report.outcome.reason().into(),
        #[serde(skip_serializing_if = "String::is_empty")]
        "key" key: String = text_of(object, |object| &object.key),
        #[serde(skip_serializing_if = "Option::is_none")]
        "bytes" bytes: Option<u64> = object.map_or_else(|| "".into(), |object| Value::Number(object.bytes)),
        #[serde(skip_serializing_if = "String::is_empty")]
        "sha256" sha256: String = text_of(object, |object| &object.sha256),
        #[serde(skip_serializing_if = "String::is_empty")]
        "type" media_type: String = text_of(object, |object| object.media_type.name()),
        #[serde(skip_serializing_if = "Option::is_none")]
        "width" width: Option<u32> = side_of(object, |(width, _)| width),
        #[serde(skip_serializing_if = "Option::is_none")]
        "height" height: Option<u32> = side_of(object, |(_, height)| height),
        #[serde(skip_serializing_if = "Option::is_none")]
        "status" status: Option<u16> = Value::unless_0(Some(report.status.into())),
        #[serde(skip_serializing_if = "Option::is_none")]
        "attempts" attempts: Option<u32> = Value::Number(report.attempts.into()),
        #[serde(skip_serializing_if = "String::is_empty")]
        "worker" worker: String = worker.into(),
        #[serde(skip_serializing_if = "Option::is_none")]
        "ms" ms: Option<u64> = Value::Number(report.duration_ms),
        #[serde(skip_serializing_if = "String::is_empty")]
        "batch" batch: String = report.id.batch().map_or_else(String::new, |batch| batch.to_string()).into(),
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
        let values = report.values("w");
        assert!(values.iter().all(|value| !value.is_empty()), "{values:?}");
        let fields = RESULT_FIELDS.iter().zip(&values).map(|(name, value)| ((*name).to_owned(), value.to_string()));
        let row = ResultRow {
            entry: "1-0".into(),
            id: report.id.to_string(),
            url: "https://x.org/1.jpg".into(),
            outcome: "stored".into(),
            reason: "exists".into(),
            key: "x.org/1.jpg".into(),
            bytes: Some(10),
            sha256: "ab".into(),
            media_type: "jpeg".into(),
            width: Some(3),
            height: Some(4),
            status: Some(200),
            attempts: Some(2),
            worker: "w".into(),
            ms: Some(12),
            batch: report.id.batch().expect("a batch").to_string(),
        };
        assert_eq!(ResultRow::from_fields("1-0".into(), fields), row);
        let nothing = Report { object: None, status: 0, ..report };
        let values = nothing.values("w");
        let empty: Vec<_> = RESULT_FIELDS.iter().zip(&values).filter(|(_, v)| v.is_empty()).collect();
        let empty: Vec<&str> = empty.into_iter().map(|(name, _)| *name).collect();
        assert_eq!(empty, ["key", "bytes", "sha256", "type", "width", "height", "status"]);
    }
}
