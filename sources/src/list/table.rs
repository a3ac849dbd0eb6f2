//! Lists as tables of text, CSV and TSV: a row each, with cells in columns.
//!
//! CSV is as RFC 4180 has it, and as spreadsheets write it. TSV is as its media type has it: without quotes, so that a
//! stray one in somebody's caption takes no rows with it; a cell that is in quotes as a whole is taken without them.
//!
//! CSV is parsed a physical line at a time. So a row has a bound, a bad row has its line, and a quote that is never closed
//! costs its own line, as those behind it are read again.

use super::columns::{ColumnNames, Columns, choose_by_first_row};
use super::error::ListError;
use super::intake::{BEGINNING_BYTES, Intake, too_long};
use super::lines::{Line, Lines};
use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};
use std::io::{self, Read};

/// The longest row, in bytes: tables have captions and more beside their links.
pub(super) const ROW_BYTES_MAX: usize = 1 << 20;

/// What is between the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Separator {
    /// And quotes around cells that have one in them.
    Comma,
    Tab,
}

/// Reads a table to its end, or until nobody wants more.
///
/// # Errors
/// The reader's, and a table without a fitting column.
pub(super) fn read(
    reader: impl Read,
    separator: Separator,
    wanted: &ColumnNames,
    intake: &Intake<'_>,
) -> Result<(), ListError> {
    let mut rows = Rows::new(reader, separator, intake);
    let Some(columns) = first_row(&mut rows, wanted)? else { return Ok(()) };
    let mut is_data = !columns.has_header;
    while !intake.is_closed() {
        if is_data {
            take(&rows, columns, intake);
        }
        is_data = true;
        let line = rows.line;
        if !rows.next().map_err(|error| ListError::from(error).after("line", line))? {
            break;
        }
    }
    Ok(())
}

/// Finds out whether there is a fitting column, and reads no further.
///
/// # Errors
/// As for [`read`].
pub(super) fn check(
    reader: impl Read,
    separator: Separator,
    wanted: &ColumnNames,
    intake: &Intake<'_>,
) -> Result<(), ListError> {
    first_row(&mut Rows::new(reader, separator, intake), wanted).map(|_| ())
}

/// `None` of an empty table.
fn first_row<R: Read>(rows: &mut Rows<'_, R>, wanted: &ColumnNames) -> Result<Option<Columns>, ListError> {
    if !rows.next()? {
        return Ok(None);
    }
    let cells: Vec<String> =
        (0..rows.ends.len()).filter_map(|at| rows.cell(at)).map(|cell| String::from_utf8_lossy(cell).into()).collect();
    choose_by_first_row(wanted, &cells).map(Some)
}

fn take<R: Read>(rows: &Rows<'_, R>, columns: Columns, intake: &Intake<'_>) {
    let hash = columns.hash.and_then(|at| rows.cell(at));
    match rows.cell(columns.url) {
        Some(url) => intake.link(rows.line, url, hash),
        None => {
            let why = format!("too short: the link should be in column {}", columns.url + 1);
            intake.bad_row(rows.line, &rows.raw, &why);
        }
    }
}

/// Reads rows, each into the same memory.
struct Rows<'a, R> {
    lines: Lines<R>,
    intake: &'a Intake<'a>,
    /// `None` for TSV.
    csv: Option<Reader>,
    /// No row was read yet.
    is_first: bool,
    /// The physical line where the row begins, from 1.
    line: u64,
    /// The row as it is in the file, with a line feed behind each of its lines.
    raw: Vec<u8>,
    /// Its cells without what is between them, and where each ends.
    cells: Vec<u8>,
    ends: Vec<usize>,
}

impl<'a, R: Read> Rows<'a, R> {
    fn new(reader: R, separator: Separator, intake: &'a Intake<'a>) -> Rows<'a, R> {
        let csv = (separator == Separator::Comma).then(|| csv_reader(b','));
        let lines = Lines::new(reader, ROW_BYTES_MAX);
        Rows { lines, intake, csv, is_first: true, line: 0, raw: Vec::new(), cells: Vec::new(), ends: Vec::new() }
    }

    /// Reads the next row that is neither blank nor a comment; `false` at the end. Rows that are none are handed in as
    /// bad on the way.
    fn next(&mut self) -> io::Result<bool> {
        while !self.intake.is_closed() {
            self.raw.clear();
            let how = self.lines.next(&mut self.raw)?;
            self.line = self.lines.number();
            match how {
                Line::End => return Ok(false),
                Line::TooLong => self.too_long(&self.raw),
                Line::Whole if is_blank_or_comment(&self.raw) => {}
                Line::Whole => {
                    self.raw.push(b'\n');
                    if std::mem::take(&mut self.is_first) && self.csv.is_some() && is_head_with_semicolons(&self.raw) {
                        self.csv = Some(csv_reader(b';'));
                    }
                    if self.split()? {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Hands in a row that is too long, by its beginning.
    fn too_long(&self, row: &[u8]) {
        let beginning = &row[..row.len().min(BEGINNING_BYTES)];
        self.intake.bad_row(self.lines.number(), beginning, &too_long(ROW_BYTES_MAX));
    }

    /// The cell of a column, without a pair of quotes around it.
    fn cell(&self, at: usize) -> Option<&[u8]> {
        let end = *self.ends.get(at)?;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        let cell = self.cells[start..end].trim_ascii();
        Some(match cell {
            [b'"', inner @ .., b'"'] => inner,
            _ => cell,
        })
    }

    /// Splits the row that begins with the line that was read; `false` when it is bad.
    fn split(&mut self) -> io::Result<bool> {
        self.cells.clear();
        self.ends.clear();
        let Some(csv) = &mut self.csv else {
            for cell in self.raw[..self.raw.len() - 1].split(|byte| *byte == b'\t') {
                self.cells.extend_from_slice(cell);
                self.ends.push(self.cells.len());
            }
            return Ok(true);
        };
        let (mut parsed, mut written, mut ended) = (0, 0, 0);
        loop {
            // Never too short for what comes out.
            self.cells.resize(written + self.raw.len() - parsed, 0);
            self.ends.resize(ended.max(8) * 2, 0);
            let (result, bytes_in, bytes_out, ends) =
                csv.read_record(&self.raw[parsed..], &mut self.cells[written..], &mut self.ends[ended..]);
            (parsed, written, ended) = (parsed + bytes_in, written + bytes_out, ended + ends);
            match result {
                ReadRecordResult::Record => {
                    self.cells.truncate(written);
                    self.ends.truncate(ended);
                    return Ok(true);
                }
                ReadRecordResult::OutputEndsFull | ReadRecordResult::OutputFull => {}
                // A cell with a line break in it.
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {
                    let before = self.raw.len();
                    let how = if before > ROW_BYTES_MAX { Line::End } else { self.lines.next(&mut self.raw)? };
                    if how != Line::Whole {
                        csv.reset();
                        self.unclosed(how, before);
                        return Ok(false);
                    }
                    self.raw.push(b'\n');
                }
            }
        }
    }

    /// Takes the first line of a row whose quote is not closed for bad, and the others, up to `lines_end`, for rows.
    fn unclosed(&mut self, how: Line, lines_end: usize) {
        let first = self.raw.iter().position(|byte| *byte == b'\n').map_or(lines_end, |at| at + 1);
        let why = format!("a quote that is not closed within {} KiB", ROW_BYTES_MAX >> 10);
        self.intake.bad_row(self.line, &self.raw[..first], &why);
        let is_too_long = how == Line::TooLong;
        if is_too_long {
            self.too_long(&self.raw[lines_end..]);
        }
        self.lines.give_back(&self.raw[first..lines_end], is_too_long.into());
    }
}

fn csv_reader(delimiter: u8) -> Reader {
    // What comes before a line feed is taken off before; elsewhere it is a character like any other.
    ReaderBuilder::new().delimiter(delimiter).terminator(Terminator::Any(b'\n')).build()
}

/// Whether the first row shows that cells are between semicolons, as spreadsheets write them where numbers have commas. A link
/// may have one in it, so that a row that may be a link says nothing.
fn is_head_with_semicolons(row: &[u8]) -> bool {
    row.contains(&b';') && !row.contains(&b',') && !row.windows(3).any(|part| part == b"://")
}

/// Whether a line is neither a row nor part of one.
pub(super) fn is_blank_or_comment(line: &[u8]) -> bool {
    matches!(line.trim_ascii().first(), None | Some(b'#'))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{found, found_in_reads_of};
    use super::*;

    fn csv(bytes: &[u8]) -> Vec<String> {
        let read = |reader: Box<dyn Read + '_>, intake: &Intake<'_>| {
            super::read(reader, Separator::Comma, &ColumnNames::default(), intake)
        };
        let shown = found(bytes, &read);
        assert_eq!(found_in_reads_of(3, bytes, &read), shown, "where a read ends does not matter");
        shown
    }

    fn tsv(bytes: &[u8]) -> Vec<String> {
        found(bytes, &|reader, intake| super::read(reader, Separator::Tab, &ColumnNames::default(), intake))
    }

    #[test]
    fn rows_in_every_spelling() {
        for (text, expected) in [
            ("", vec![]),
            ("\n# a comment\n\r\n", vec![]),
            ("id,url\n1,http://x/a\r\n2,http://x/b", vec!["http://x/a", "http://x/b"]),
            ("http://x/a\nhttp://x/b\n", vec!["http://x/a", "http://x/b"]),
            ("title,URL\n\"a, b\",http://x/a\n", vec!["http://x/a"]),
            ("title,url\n\"say \"\"cat\"\"\",\"http://x/a,b\"\n", vec!["http://x/a,b"]),
            ("id,url\n1,\n2,  \n,,\n\n3,http://x/a\n", vec!["http://x/a"]),
            ("a,b,url\n1,2\n", vec!["l:2: too short: the link should be in column 3: \"1,2\""]),
            (
                "url\n\"http://x/a\nhttp://x/b\"\n",
                vec!["l:2: a link with a tab or line break in it: \"http://x/a\\u{a}http://x/b\""],
            ),
            // A bad line's number is that of the file, whatever line breaks there were in cells before.
            (
                "t,url\r\n\"1\r\n2\r\n\r\n3\",http://x/a\r\n# c\r\n\r\nx,cat.jpg\r\n",
                vec!["http://x/a", "l:8: not an http(s) URL: \"cat.jpg\""],
            ),
            ("id\rx,url\n1\r2,http://x/a\n", vec!["http://x/a"]),
            ("id, url \n1, \"http://x/a\" \n", vec!["http://x/a"]),
        ] {
            assert_eq!(csv(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(
            csv(b"id,url\n1,http://x/\xff\n\xff,http://x/a\n"),
            ["l:2: not UTF-8 text: \"http://x/\u{fffd}\"", "http://x/a"]
        );
    }

    #[test]
    fn semicolons_separate_where_the_head_shows_it() {
        assert_eq!(
            csv(b"id;url\n1;http://x/a\n\"2;2\";http://x/b,c\n"),
            csv(b"id,url\n1,http://x/a\n2,\"http://x/b,c\"\n")
        );
        // These are links, and one has a semicolon in it.
        assert_eq!(csv(b"http://x/a;b\nhttp://x/c\n").len(), 2);
        assert_eq!(csv(b"a;b,url\n1,http://x/a\n").len(), 1);
    }

    #[test]
    fn hashes_come_with_their_links() {
        let (upper, lower) = ("AB".repeat(32), "ab".repeat(32));
        let text = format!("url,sha256\nhttp://x/a,{upper}\nhttp://x/b,\nhttp://x/c\nhttp://x/d,12\n");
        assert_eq!(
            csv(text.as_bytes()),
            [
                format!("http://x/a {lower}"),
                "http://x/b".into(),
                "http://x/c".into(),
                "l:5: the SHA-256 \"12\" is not 64 hex digits: \"http://x/d\"".into()
            ]
        );
    }

    #[test]
    fn a_quote_that_is_never_closed_costs_its_line_and_no_other() {
        let long = "x".repeat(700 << 10);
        for (behind, last) in [
            (String::new(), 5),
            // Longer than any row.
            (format!("{long},\n{long},\n"), 7),
            // A line longer than any row.
            (format!("{long}{long},http://x/z\n"), 6),
        ] {
            let text = format!("id,url\n1,http://x/a\n2,\"http://x/b\n3,http://x/c\n{behind}4,http://x/d\n5,cat.jpg");
            let got: Vec<_> = csv(text.as_bytes()).into_iter().filter(|line| !line.contains("longer than")).collect();
            assert_eq!(got[0], "http://x/a");
            assert_eq!(
                got[1],
                "l:3: a quote that is not closed within 1024 KiB: \"2,\\\"http://x/b\"".replace('\\', "")
            );
            assert_eq!(
                got[2..],
                ["http://x/c", "http://x/d", &format!("l:{}: not an http(s) URL: \"cat.jpg\"", last + 1)]
            );
        }
    }

    #[test]
    fn a_row_has_a_bound() {
        let text = format!("id,url\n{},http://x/a\n2,http://x/b\n", "x".repeat(ROW_BYTES_MAX));
        let got = csv(text.as_bytes());
        assert!(got[0].starts_with("l:2: longer than 1024 KiB: \"xxx"), "{}", got[0]);
        assert_eq!(got[1..], ["http://x/b"]);
    }

    #[test]
    fn tabs_separate_and_quotes_are_characters() {
        for (text, expected) in [
            ("caption\turl\n\"a lone quote\thttp://x/a\nb\thttp://x/b\r\n", vec!["http://x/a", "http://x/b"]),
            ("a, b\thttp://x/a\n", vec!["http://x/a"]),
            (
                "id\turl\n\"1\"\t\"http://x/a\"\n2\n",
                vec!["http://x/a", "l:3: too short: the link should be in column 2: \"2\""],
            ),
        ] {
            assert_eq!(tsv(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_table_without_links_says_what_it_has() {
        for text in ["id,title\n1,cat\n", "id,title"] {
            assert_eq!(
                csv(text.as_bytes()),
                ["error: no column of it is known to hold links; its columns are \"id\", \"title\""]
            );
        }
    }
}
