//! Where results are written, and in which form: lines for people or programs, CSV, or Parquet.

use crate::cli::ResultsFormat;
use crate::view::style::{of_outcome, paint};
use common::report::{ResultRow, entry_ms};
use common::text::{bytes, harmless};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use tempfile::NamedTempFile;

/// Where the bytes go.
type Sink = Box<dyn Write + Send>;

/// Takes results one by one. Nothing of a Parquet file can be read before [`Output::finish`]; the other forms are whole
/// after each [`Output::flush`].
pub(super) enum Output {
    Lines {
        format: ResultsFormat,
        /// Colours may be in the lines: what they go to takes them out where they are not wanted.
        coloured: bool,
        sink: Sink,
    },
    Csv(Box<csv::Writer<Sink>>),
    Parquet(Box<ParquetOutput>),
}

impl Output {
    /// Opens standard output, or the file at `path`; `appends` keeps what is in the file.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(format: ResultsFormat, path: Option<&Path>, appends: bool) -> io::Result<Output> {
        if format == ResultsFormat::Parquet {
            return ParquetOutput::open(path).map(|parquet| Output::Parquet(Box::new(parquet)));
        }
        let (sink, has_head): (Sink, bool) = match path {
            Some(path) => {
                let file = File::options().create(true).write(true).append(appends).truncate(!appends).open(path)?;
                let has_head = file.metadata()?.len() > 0;
                (Box::new(BufWriter::new(file)), has_head)
            }
            None if format == ResultsFormat::Table => (Box::new(BufWriter::new(anstream::stdout())), false),
            None => (Box::new(BufWriter::new(io::stdout())), false),
        };
        let mut output = match format {
            ResultsFormat::Csv => Output::Csv(Box::new(csv::WriterBuilder::new().has_headers(false).from_writer(sink))),
            _ => Output::Lines { format, coloured: path.is_none(), sink },
        };
        if !has_head {
            output.write_head()?;
        }
        Ok(output)
    }

    fn write_head(&mut self) -> io::Result<()> {
        match self {
            Output::Lines { format: ResultsFormat::Table, sink, .. } => {
                writeln!(sink, "{:<8}  {:<15}  {:>9}  {:>6}  {:<5}  WHAT", "OUTCOME", "REASON", "BYTES", "MS", "TYPE")
            }
            Output::Csv(csv) => Ok(csv.write_record(COLUMNS.iter().map(|column| column.name))?),
            Output::Lines { .. } | Output::Parquet(_) => Ok(()),
        }
    }

    /// # Errors
    /// Those of the file system, or of a closed pipe.
    pub(super) fn write(&mut self, row: &ResultRow) -> io::Result<()> {
        match self {
            Output::Lines { format, coloured, sink } => writeln!(sink, "{}", line(row, *format, *coloured)),
            Output::Csv(csv) => Ok(csv.write_record(COLUMNS.iter().map(|column| match (column.get)(row) {
                Cell::Text(text) => text.to_owned(),
                Cell::Number(number) => number.map_or_else(String::new, |number| number.to_string()),
            }))?),
            Output::Parquet(parquet) => parquet.write(row.clone()),
        }
    }

    /// Passes on what can be passed on by now.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Lines { sink, .. } => sink.flush(),
            Output::Csv(csv) => csv.flush(),
            Output::Parquet(_) => Ok(()),
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        match self {
            Output::Parquet(parquet) => parquet.finish(),
            Output::Lines { .. } | Output::Csv(_) => Ok(()),
        }
    }
}

fn line(row: &ResultRow, format: ResultsFormat, coloured: bool) -> String {
    let outcome = format!("{:<8}", harmless(&row.outcome));
    match format {
        ResultsFormat::Urls => harmless(&row.url),
        ResultsFormat::Table => format!(
            "{}  {:<15}  {:>9}  {:>6}  {:<5}  {}",
            if coloured { paint(of_outcome(&row.outcome), &outcome) } else { outcome },
            harmless(&row.reason),
            row.bytes.map_or_else(String::new, bytes),
            row.ms.map_or_else(String::new, |ms| ms.to_string()),
            harmless(&row.media_type),
            harmless(if row.key.is_empty() { &row.url } else { &row.key })
        ),
        // A row of strings and numbers always serialises.
        _ => serde_json::to_string(row).unwrap_or_default(),
    }
}

/// A field of a result. In CSV an absent one is empty, in Parquet it is null.
enum Cell<'a> {
    Text(&'a str),
    Number(Option<u64>),
}

struct Column {
    name: &'static str,
    get: fn(&ResultRow) -> Cell<'_>,
}

/// The columns of CSV and Parquet: the names of the JSON lines, in their order.
const COLUMNS: &[Column] = &[
    Column { name: "entry", get: |row| Cell::Text(&row.entry) },
    Column { name: "id", get: |row| Cell::Text(&row.id) },
    Column { name: "url", get: |row| Cell::Text(&row.url) },
    Column { name: "outcome", get: |row| Cell::Text(&row.outcome) },
    Column { name: "reason", get: |row| Cell::Text(&row.reason) },
    Column { name: "key", get: |row| Cell::Text(&row.key) },
    Column { name: "bytes", get: |row| Cell::Number(row.bytes) },
    Column { name: "sha256", get: |row| Cell::Text(&row.sha256) },
    Column { name: "type", get: |row| Cell::Text(&row.media_type) },
    Column { name: "width", get: |row| Cell::Number(row.width.map(u64::from)) },
    Column { name: "height", get: |row| Cell::Number(row.height.map(u64::from)) },
    Column { name: "status", get: |row| Cell::Number(row.status.map(u64::from)) },
    Column { name: "attempts", get: |row| Cell::Number(row.attempts.map(u64::from)) },
    Column { name: "worker", get: |row| Cell::Text(&row.worker) },
    Column { name: "ms", get: |row| Cell::Number(row.ms) },
    Column { name: "batch", get: |row| Cell::Text(&row.batch) },
];

/// Rows of a row group: a few megabytes, which are in memory until it is written.
const ROW_GROUP: usize = 16_384;

/// A Parquet file. One with a name appears under it when it is complete, not before.
pub(super) struct ParquetOutput {
    writer: SerializedFileWriter<Target>,
    rows: Vec<ResultRow>,
}

enum Target {
    File(BufWriter<NamedTempFile>, Box<Path>),
    Stdout(BufWriter<io::Stdout>),
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Target::File(file, _) => file.write(bytes),
            Target::Stdout(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Target::File(file, _) => file.flush(),
            Target::Stdout(stdout) => stdout.flush(),
        }
    }
}

impl ParquetOutput {
    fn open(path: Option<&Path>) -> io::Result<ParquetOutput> {
        let target = match path {
            Some(path) => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let mut options = tempfile::Builder::new();
                #[cfg(unix)]
                options.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
                Target::File(BufWriter::new(options.prefix(".imgq-").tempfile_in(folder)?), path.into())
            }
            None if io::stdout().is_terminal() => {
                return Err(io::Error::other("Parquet is no text for a terminal; name a file with --output"));
            }
            None => Target::Stdout(BufWriter::new(io::stdout())),
        };
        let columns = COLUMNS.iter().map(|column| match (column.get)(&ResultRow::default()) {
            Cell::Text(_) => format!("OPTIONAL BYTE_ARRAY {} (STRING);", column.name),
            Cell::Number(_) => format!("OPTIONAL INT64 {} (INTEGER(64,false));", column.name),
        });
        let time = "OPTIONAL INT64 time (TIMESTAMP(MILLIS,true));";
        let schema = format!("message results {{ {time} {} }}", columns.collect::<String>());
        let schema = parse_message_type(&schema).map_err(as_io)?;
        let level = ZstdLevel::try_new(3).map_err(as_io)?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
        let writer = SerializedFileWriter::new(target, Arc::new(schema), Arc::new(properties)).map_err(as_io)?;
        Ok(ParquetOutput { writer, rows: Vec::new() })
    }

    fn write(&mut self, row: ResultRow) -> io::Result<()> {
        self.rows.push(row);
        if self.rows.len() < ROW_GROUP { Ok(()) } else { self.write_group().map_err(as_io) }
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.rows);
        let mut group = self.writer.next_row_group()?;
        let time = |row: &ResultRow| i64::try_from(entry_ms(&row.entry)?).ok();
        column::<Int64Type>(&mut group, rows.iter().map(time))?;
        for Column { get, .. } in COLUMNS {
            match get(&ResultRow::default()) {
                Cell::Text(_) => column::<ByteArrayType>(
                    &mut group,
                    rows.iter().map(|row| match get(row) {
                        Cell::Text(text) if !text.is_empty() => Some(ByteArray::from(text)),
                        _ => None,
                    }),
                )?,
                Cell::Number(_) => column::<Int64Type>(
                    &mut group,
                    rows.iter().map(|row| match get(row) {
                        // The type says that the bits are of an unsigned number.
                        Cell::Number(number) => number.map(u64::cast_signed),
                        Cell::Text(_) => None,
                    }),
                )?,
            }
        }
        group.close().map(drop)
    }

    fn finish(mut self) -> io::Result<()> {
        if !self.rows.is_empty() {
            self.write_group().map_err(as_io)?;
        }
        match self.writer.into_inner().map_err(as_io)? {
            Target::Stdout(mut stdout) => stdout.flush(),
            Target::File(file, path) => {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.persist(path).map(drop).map_err(|error| error.error)
            }
        }
    }
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Target>,
    values: impl Iterator<Item = Option<T::T>>,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else { return Ok(()) };
    let (mut present, mut levels) = (Vec::new(), Vec::new());
    for value in values {
        levels.push(i16::from(value.is_some()));
        present.extend(value);
    }
    column.typed::<T>().write_batch(&present, Some(&levels), None)?;
    column.close()
}

fn as_io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(source) => io::Error::other(source),
        },
        other => io::Error::other(other),
    }
}
