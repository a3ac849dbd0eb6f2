//! Formats of lists, and how one is told by its name. Pure.

use clap::ValueEnum;

/// What a list is, once it is decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Format {
    /// A link on each line
    #[value(alias = "text")]
    Txt,
    /// Cells between commas
    Csv,
    /// Cells between tabs
    Tsv,
    /// One JSON value, however deep
    Json,
    /// A JSON value on each line
    #[value(alias = "ndjson")]
    Jsonl,
    /// A Parquet file
    Parquet,
}

/// How a list is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    /// For messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }

    /// What the first bytes of a file say.
    pub(super) fn of_content(beginning: &[u8]) -> Option<Compression> {
        match beginning {
            [0x1f, 0x8b, ..] => Some(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Compression::Zstd),
            // A frame to skip, as parallel compressors write them first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Compression::Zstd),
            _ => None,
        }
    }
}

/// What a file's name says, in any case: `links.CSV.gz`.
pub(super) fn of_name(name: &str) -> (Option<Format>, Option<Compression>) {
    let name = name.to_ascii_lowercase();
    let (stem, compression) = match name.rsplit_once('.') {
        Some((stem, "gz")) => (stem, Some(Compression::Gzip)),
        Some((stem, "zst")) => (stem, Some(Compression::Zstd)),
        _ => (name.as_str(), None),
    };
    let format = match stem.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "txt" => Some(Format::Txt),
        "csv" => Some(Format::Csv),
        "tsv" => Some(Format::Tsv),
        "json" => Some(Format::Json),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        "parquet" => Some(Format::Parquet),
        _ => None,
    };
    (format, compression)
}

/// What the `Content-Type` of an answer says.
pub(super) fn of_content_type(value: &str) -> Option<Format> {
    match value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "text/csv" => Some(Format::Csv),
        "text/tab-separated-values" => Some(Format::Tsv),
        "application/json" => Some(Format::Json),
        "application/jsonl" | "application/x-ndjson" | "application/x-jsonlines" => Some(Format::Jsonl),
        "application/vnd.apache.parquet" => Some(Format::Parquet),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_format_and_compression() {
        use Compression::{Gzip, Zstd};
        for (name, format, compression) in [
            ("links.txt", Some(Format::Txt), None),
            ("a.b/links.CSV.GZ", Some(Format::Csv), Some(Gzip)),
            ("links.tsv.zst", Some(Format::Tsv), Some(Zstd)),
            ("links.ndjson", Some(Format::Jsonl), None),
            ("links.json.gz", Some(Format::Json), Some(Gzip)),
            ("links.parquet", Some(Format::Parquet), None),
            ("links.gz", None, Some(Gzip)),
            ("links.gz.csv", Some(Format::Csv), None),
            ("csv", None, None),
            ("", None, None),
        ] {
            assert_eq!(of_name(name), (format, compression), "{name}");
        }
        assert_eq!(of_content_type("Text/CSV; charset=utf-8"), Some(Format::Csv));
        assert_eq!(of_content_type("text/plain"), None);
    }
}
