//! Lists as Parquet files: only the columns for links and hashes are read, page by page, in turn.

use super::columns::{ColumnNames, named, usual_hash, usual_url};
use super::error::ListError;
use super::intake::Intake;
use super::share::ReadShare;
use parquet::basic::Type;
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;
use std::fs::File;

/// The first bytes of each such file.
pub(super) const MAGIC: &[u8; 4] = b"PAR1";

/// Rows that are read at once.
const ROWS: usize = 1024;

/// Reads a file to its end, or until nobody wants more. Bad lines are numbered by their row, from 1.
///
/// # Errors
/// The file's, and one without a fitting column.
pub(super) fn read(file: File, wanted: &ColumnNames, share: &ReadShare, intake: &Intake<'_>) -> Result<(), ListError> {
    let (file, columns) = open(file, wanted)?;
    share.begin(u64::try_from(file.metadata().file_metadata().num_rows()).ok());
    let mut rows = 0;
    for group in 0..file.num_row_groups() {
        let result = file.get_row_group(group).and_then(|group| read_group(&*group, columns, &mut rows, share, intake));
        result.map_err(|error| unreadable(&error).after("row", rows))?;
    }
    Ok(())
}

/// Finds out whether there is a fitting column, and reads no further.
///
/// # Errors
/// As for [`read`].
pub(super) fn check(file: File, wanted: &ColumnNames) -> Result<(), ListError> {
    open(file, wanted).map(|_| ())
}

/// The columns of links and hashes, by their number among all.
type Chosen = (usize, Option<usize>);

fn open(file: File, wanted: &ColumnNames) -> Result<(SerializedFileReader<File>, Chosen), ListError> {
    let file = SerializedFileReader::new(file).map_err(|error| unreadable(&error))?;
    let columns = choose(file.metadata().file_metadata().schema_descr(), wanted)?;
    Ok((file, columns))
}

fn unreadable(error: &ParquetError) -> ListError {
    ListError::with_hint(
        format!("not a Parquet file that can be read: {error}"),
        "say with --list-format what it is; if it is one, get it again: its end tells what is in it",
    )
}

fn choose(schema: &SchemaDescriptor, wanted: &ColumnNames) -> Result<Chosen, ListError> {
    let is_text = |at: usize| schema.column(at).physical_type() == Type::BYTE_ARRAY;
    let names: Vec<String> = (0..schema.num_columns()).map(|at| name(schema, at)).collect();
    // What was not named by the user is looked for among texts alone.
    let labels: Vec<String> = (0..names.len())
        .map(|at| if is_text(at) { names[at].clone() } else { format!("{} (no text)", names[at]) })
        .collect();
    let url = match &wanted.url {
        Some(name) => named("--url-column", name, &names)?,
        None => usual_url(&labels)?,
    };
    let hash = match &wanted.hash {
        Some(name) => Some(named("--hash-column", name, &names)?),
        None => usual_hash(&labels)
            .filter(|at| schema.column(*at).max_rep_level() == 0 && schema.column(url).max_rep_level() == 0),
    };
    for at in [Some(url), hash].into_iter().flatten() {
        if !is_text(at) {
            return Err(ListError::new(format!(
                "its column \"{}\" is {}, no text",
                names[at],
                schema.column(at).physical_type()
            )));
        }
    }
    if hash.is_some_and(|hash| schema.column(hash).max_rep_level() > 0 || schema.column(url).max_rep_level() > 0) {
        return Err(ListError::new("where a column is a list, nothing tells which hash is of which link"));
    }
    Ok((url, hash))
}

/// `image.url` of a structure; of a list the name of the whole, without the names of its parts.
fn name(schema: &SchemaDescriptor, at: usize) -> String {
    let root = schema.get_column_root_idx(at);
    let is_only = (0..schema.num_columns()).filter(|other| schema.get_column_root_idx(*other) == root).count() == 1;
    if is_only { schema.get_column_root(at).name().to_owned() } else { schema.column(at).path().string() }
}

fn read_group(
    group: &dyn RowGroupReader,
    (url, hash): Chosen,
    rows: &mut u64,
    share: &ReadShare,
    intake: &Intake<'_>,
) -> Result<(), ParquetError> {
    let mut urls = Column::of(group, url)?;
    let mut hashes = hash.map(|at| Column::of(group, at)).transpose()?;
    loop {
        let read = urls.read()?;
        if let Some(hashes) = &mut hashes
            && hashes.read()? != read
        {
            return Err(ParquetError::General("columns of different lengths".into()));
        }
        if read == 0 || intake.is_closed() {
            return Ok(());
        }
        let hashes: Vec<Option<&[u8]>> =
            hashes.as_ref().map(|column| column.values().map(|(_, hash)| hash).collect()).unwrap_or_default();
        for (row, url) in urls.values() {
            if let Some(url) = url {
                intake.link(*rows + row as u64 + 1, url, hashes.get(row).copied().flatten());
            }
        }
        *rows += read as u64;
        share.add(read as u64);
    }
}

/// A column of texts in a row group, some rows at a time.
struct Column {
    reader: ColumnReaderImpl<ByteArrayType>,
    definition_level_max: i16,
    is_list: bool,
    definition_levels: Vec<i16>,
    repetition_levels: Vec<i16>,
    present: Vec<ByteArray>,
}

impl Column {
    fn of(group: &dyn RowGroupReader, at: usize) -> Result<Column, ParquetError> {
        let schema = group.metadata().column(at).column_descr();
        Ok(Column {
            definition_level_max: schema.max_def_level(),
            is_list: schema.max_rep_level() > 0,
            reader: get_typed_column_reader(group.get_column_reader(at)?),
            definition_levels: Vec::new(),
            repetition_levels: Vec::new(),
            present: Vec::new(),
        })
    }

    /// Reads the next rows, and tells how many there are.
    fn read(&mut self) -> Result<usize, ParquetError> {
        self.definition_levels.clear();
        self.repetition_levels.clear();
        self.present.clear();
        let (rows, _, _) = self.reader.read_records(
            ROWS,
            Some(&mut self.definition_levels),
            Some(&mut self.repetition_levels),
            &mut self.present,
        )?;
        Ok(rows)
    }

    /// The values that were read, each with the number of its row among them, from 0. A list has several to a row.
    fn values(&self) -> impl Iterator<Item = (usize, Option<&[u8]>)> {
        let mut present = self.present.iter();
        let levels = if self.definition_level_max == 0 { self.present.len() } else { self.definition_levels.len() };
        let mut rows = 0;
        (0..levels).map(move |at| {
            if !self.is_list || self.repetition_levels[at] == 0 {
                rows += 1;
            }
            let is_there = self.definition_level_max == 0 || self.definition_levels[at] == self.definition_level_max;
            let value = if is_there { present.next().map(ByteArray::data) } else { None };
            (rows - 1, value)
        })
    }
}
