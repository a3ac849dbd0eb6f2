//! Physical lines of a text, each with a bound.

use std::io::{self, BufRead, BufReader, Read};

/// What one read brings at most.
const READ_BYTES: usize = 128 << 10;

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// It is there, without its end.
    Whole,
    /// It is longer than the bound; its beginning is there, and the rest was passed over.
    TooLong,
    /// There is none any more.
    End,
}

/// Reads lines that end in LF or CRLF, the last one perhaps in nothing.
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    line_bytes_max: usize,
    number: u64,
    /// Lines that were read and given back, with the end of each, and how far they are read again.
    given_back: Vec<u8>,
    read_again: usize,
    /// Lines between those that were given back and the next one of the reader.
    passed_over: u64,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(reader: R, line_bytes_max: usize) -> Lines<R> {
        let reader = BufReader::with_capacity(READ_BYTES, reader);
        Lines { reader, line_bytes_max, number: 0, given_back: Vec::new(), read_again: 0, passed_over: 0 }
    }

    /// The number of the line that was read last, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Appends the next line to `line`.
    ///
    /// # Errors
    /// Those of the reader. A line that was not read to its end is none: half a link is another link.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Line> {
        if self.read_again < self.given_back.len() {
            let rest = &self.given_back[self.read_again..];
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            line.extend_from_slice(&rest[..end]);
            self.read_again += end + 1;
            self.number += 1;
            return Ok(Line::Whole);
        }
        self.number += std::mem::take(&mut self.passed_over);
        let before = line.len();
        self.reader.by_ref().take(self.line_bytes_max as u64 + 2).read_until(b'\n', line)?;
        if line.len() == before {
            return Ok(Line::End);
        }
        self.number += 1;
        let has_end = line.last() == Some(&b'\n');
        if has_end {
            line.pop();
            if line.len() > before && line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        if line.len() - before <= self.line_bytes_max {
            return Ok(Line::Whole);
        }
        if !has_end {
            self.reader.skip_until(b'\n')?;
        }
        line.truncate(before + self.line_bytes_max);
        Ok(Line::TooLong)
    }

    /// Gives back whole lines, each with a line feed behind it, to be read again. They were read last, but for
    /// `passed_over` lines behind them that do not come again.
    pub(super) fn give_back(&mut self, lines: &[u8], passed_over: u64) {
        self.number -= lines.iter().filter(|byte| **byte == b'\n').count() as u64 + passed_over;
        self.passed_over += passed_over;
        let rest = self.given_back.split_off(self.read_again.min(self.given_back.len()));
        self.given_back.clear();
        self.given_back.extend_from_slice(lines);
        self.given_back.extend_from_slice(&rest);
        self.read_again = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], line_bytes_max: usize) -> Vec<(Line, String, u64)> {
        let mut lines = Lines::new(text, line_bytes_max);
        let mut found = Vec::new();
        loop {
            let mut line = Vec::new();
            match lines.next(&mut line).expect("memory can be read") {
                Line::End => return found,
                how => found.push((how, String::from_utf8(line).expect("text"), lines.number())),
            }
        }
    }

    #[test]
    fn ends_of_lines_and_the_bound() {
        let whole = |text: &str, number| (Line::Whole, text.to_owned(), number);
        let too_long = |text: &str, number| (Line::TooLong, text.to_owned(), number);
        assert_eq!(read(b"", 4), []);
        assert_eq!(read(b"a\r\n\n\rb\nc", 4), [whole("a", 1), whole("", 2), whole("\rb", 3), whole("c", 4)]);
        for end in ["\n", "\r\n", ""] {
            assert_eq!(read(format!("1234{end}").as_bytes(), 4), [whole("1234", 1)]);
        }
        for long in ["12345", "123456", "123456789"] {
            assert_eq!(read(format!("{long}\nb\n").as_bytes(), 4), [too_long("1234", 1), whole("b", 2)]);
            assert_eq!(read(long.as_bytes(), 4), [too_long("1234", 1)]);
        }
    }

    #[test]
    fn lines_that_were_given_back_come_again_with_their_numbers() {
        let mut lines = Lines::new(&b"a\nb\nc\nd\n"[..], 9);
        let next = |lines: &mut Lines<&[u8]>| {
            let mut line = Vec::new();
            lines.next(&mut line).expect("memory can be read");
            format!("{}{}", String::from_utf8(line).expect("text"), lines.number())
        };
        for expected in ["a1", "b2", "c3"] {
            assert_eq!(next(&mut lines), expected);
        }
        lines.give_back(b"b\nc\n", 0);
        assert_eq!(next(&mut lines), "b2");
        lines.give_back(b"b\n", 0);
        for expected in ["b2", "c3"] {
            assert_eq!(next(&mut lines), expected);
        }
        lines.give_back(b"b\n", 1);
        for expected in ["b2", "d4", "4"] {
            assert_eq!(next(&mut lines), expected);
        }
    }
}
