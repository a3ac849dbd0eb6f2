//! `--rejects FILE`: the bad lines of an enqueue, as JSON lines that can be mended and enqueued in their turn.

use super::CommandError;
use serde::Serialize;
use sources::BadLine;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The file, while it is written.
pub(super) struct Rejects {
    path: PathBuf,
    file: BufWriter<File>,
}

/// A line of it. Readers of lists take `url` and `sha256`, by their usual names.
#[derive(Serialize)]
struct Line<'a> {
    source: &'a str,
    line: u64,
    why: &'a str,
    #[serde(flatten)]
    rejected: &'a sources::Rejected,
}

impl Rejects {
    /// Makes the file, or makes it empty.
    ///
    /// # Errors
    /// It cannot be written, or is one of `sources`, which would be lost.
    pub(super) fn create(path: &Path, sources: &[String]) -> Result<Rejects, CommandError> {
        let is_read = path.canonicalize().is_ok_and(|here| {
            sources.iter().any(|source| Path::new(source).canonicalize().is_ok_and(|source| source == here))
        });
        if is_read {
            return Err(CommandError::Other {
                message: format!("--rejects {0} would overwrite the list {0} before it is read", path.display()),
                hint: "give it another name".into(),
                code: 2,
            });
        }
        let file = File::create(path).map_err(cannot_write(path))?;
        Ok(Rejects { path: path.to_owned(), file: BufWriter::new(file) })
    }

    /// Adds a bad line.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn add(&mut self, bad: &BadLine) -> Result<(), CommandError> {
        let line = Line { source: &bad.source, line: bad.line, why: &bad.why, rejected: &bad.rejected };
        let written = serde_json::to_writer(&mut self.file, &line).map_err(std::io::Error::from);
        written.and_then(|()| self.file.write_all(b"\n")).map_err(cannot_write(&self.path))
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn finish(mut self) -> Result<(), CommandError> {
        self.file.flush().map_err(cannot_write(&self.path))
    }
}

fn cannot_write(path: &Path) -> impl FnOnce(std::io::Error) -> CommandError {
    CommandError::system(format!("cannot write {}", path.display()))
}
