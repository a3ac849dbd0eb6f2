//! Where a list comes from, and what it is: opened, decompressed, decoded, and handed to the reader of its format.

use super::columns::ColumnNames;
use super::decompress::{decompressed, fill};
use super::download::Download;
use super::error::ListError;
use super::format::{Compression, Format, of_name};
use super::intake::{Flushing, Intake};
use super::share::{Counted, ReadShare};
use super::table::Separator;
use super::{json, parquet, table, text};
use common::link::without_userinfo;
use encoding_rs_io::DecodeReaderBytesBuilder;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// How lists are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// `--list-format`; else names tell.
    pub format: Option<Format>,
    /// Of tables; other lists have none.
    pub columns: ColumnNames,
}

/// Where a list comes from.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// A file, or anything else that can be opened by a path, such as a named pipe.
    File(PathBuf),
    /// Standard input.
    Stdin,
    /// An http(s) URL.
    Url {
        url: String,
        /// Sent to it.
        user_agent: String,
    },
}

/// A list's bytes.
struct Opened {
    reader: Box<dyn Read>,
    /// What it says that it is.
    format: Option<Format>,
    /// How many bytes there are, where that can be known.
    length: Option<u64>,
}

impl Input {
    /// The name in messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Input::File(path) => path.display().to_string(),
            Input::Stdin => "stdin".to_owned(),
            Input::Url { url, .. } => without_userinfo(url).into_owned(),
        }
    }

    /// What the name says: of a URL its path.
    fn named(&self) -> (Option<Format>, Option<Compression>) {
        match self {
            Input::File(path) => path.file_name().and_then(|name| name.to_str()).map_or((None, None), of_name),
            Input::Stdin => (None, None),
            Input::Url { url, .. } => url::Url::parse(url).map_or((None, None), |url| of_name(url.path())),
        }
    }

    fn open(&self) -> Result<Opened, ListError> {
        Ok(match self {
            Input::File(path) => {
                let file = File::open(path)?;
                let facts = file.metadata()?;
                let length = facts.is_file().then_some(facts.len());
                Opened { reader: Box::new(file), format: None, length }
            }
            Input::Stdin => Opened { reader: Box::new(io::stdin().lock()), format: None, length: None },
            Input::Url { url, user_agent } => {
                let download = Download::start(url, user_agent)?;
                let (format, length) = (download.format(), download.length());
                Opened { reader: Box::new(download), format, length }
            }
        })
    }
}

/// Reads a list to its end, or until nobody wants more.
///
/// # Errors
/// What ends it early.
pub(super) fn read(
    input: &Input,
    options: &ListOptions,
    share: &ReadShare,
    intake: &Intake<'_>,
) -> Result<(), ListError> {
    let Opened { reader, format: told, length } = input.open()?;
    share.begin(length);
    let reader = Counted { reader, share };
    let (named, compression) = input.named();
    let reader = decompressed(Flushing { reader, intake }, compression)?;
    let (format, mut reader) = known_format(options.format.or(named).or(told), reader)?;
    let columns = &options.columns;
    match format {
        Format::Txt => text::read(decoded(reader), intake),
        Format::Csv => table::read(decoded(reader), Separator::Comma, columns, intake),
        Format::Tsv => table::read(decoded(reader), Separator::Tab, columns, intake),
        Format::Json => json::read(decoded(reader), columns, intake),
        Format::Jsonl => json::read_lines(decoded(reader), columns, intake),
        Format::Parquet => {
            let file = match plain_parquet(input)? {
                Some(file) => file,
                None => kept(&mut reader)?,
            };
            parquet::read(file, columns, share, intake)
        }
    }
}

/// Finds out whether a table in a file has fitting columns, and reads no further. Other formats have nothing that could be
/// told by their beginning.
///
/// # Errors
/// As for [`read`].
pub(super) fn check(path: &Path, options: &ListOptions, intake: &Intake<'_>) -> Result<(), ListError> {
    let input = Input::File(path.to_owned());
    let (named, compression) = input.named();
    let separator = match options.format.or(named) {
        Some(Format::Csv) => Separator::Comma,
        Some(Format::Tsv) => Separator::Tab,
        Some(Format::Parquet) => {
            return match plain_parquet(&input)? {
                Some(file) => parquet::check(file, &options.columns),
                None => Ok(()),
            };
        }
        Some(Format::Txt | Format::Json | Format::Jsonl) | None => return Ok(()),
    };
    let reader = decompressed(File::open(path)?, compression)?;
    table::check(decoded(reader), separator, &options.columns, intake)
}

/// What is not known by its name is Parquet when it begins so, and else text.
fn known_format<'a>(
    format: Option<Format>,
    mut reader: Box<dyn Read + 'a>,
) -> Result<(Format, Box<dyn Read + 'a>), ListError> {
    if let Some(format) = format {
        return Ok((format, reader));
    }
    let mut beginning = [0; parquet::MAGIC.len()];
    let length = fill(&mut reader, &mut beginning)?;
    let format = if &beginning == parquet::MAGIC { Format::Parquet } else { Format::Txt };
    Ok((format, Box::new(io::Cursor::new(beginning).take(length as u64).chain(reader))))
}

/// Text without a byte order mark; UTF-16 that has one as UTF-8. What is no UTF-8 stays as it is, to be told of line by
/// line.
fn decoded<'a>(reader: impl Read + 'a) -> impl Read + 'a {
    DecodeReaderBytesBuilder::new().utf8_passthru(true).strip_bom(true).build(reader)
}

/// A file that is Parquet as it lies there.
fn plain_parquet(input: &Input) -> Result<Option<File>, ListError> {
    let Input::File(path) = input else { return Ok(None) };
    if !path.metadata()?.is_file() {
        return Ok(None);
    }
    let mut file = File::open(path)?;
    let mut beginning = [0; parquet::MAGIC.len()];
    fill(&mut file, &mut beginning)?;
    Ok((&beginning == parquet::MAGIC).then_some(file))
}

/// Keeps a Parquet list that comes as a stream in a file without a name: what tells where everything is stands at its end.
fn kept(reader: &mut impl Read) -> Result<File, ListError> {
    let mut file = tempfile::tempfile()
        .map_err(|error| ListError::new(format!("no temporary file can be made to keep it in ({error})")))?;
    io::copy(reader, &mut file)?;
    Ok(file)
}
