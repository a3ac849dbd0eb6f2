//! Lists as text: a link on each line.

use super::error::ListError;
use super::intake::{BEGINNING_BYTES, Intake, LINK_BYTES_MAX, too_long};
use super::lines::{Line, Lines};
use super::table::is_blank_or_comment;
use std::io::Read;

/// Reads a text to its end, or until nobody wants more.
///
/// # Errors
/// The reader's.
pub(super) fn read(reader: impl Read, intake: &Intake<'_>) -> Result<(), ListError> {
    let mut lines = Lines::new(reader, LINK_BYTES_MAX);
    let mut line = Vec::new();
    while !intake.is_closed() {
        line.clear();
        let number = lines.number();
        let how = lines.next(&mut line).map_err(|error| ListError::from(error).after("line", number))?;
        match how {
            Line::End => break,
            Line::TooLong => intake.bad_row(lines.number(), &line[..BEGINNING_BYTES], &too_long(LINK_BYTES_MAX)),
            Line::Whole if is_blank_or_comment(&line) => {}
            Line::Whole => intake.link(lines.number(), &line, None),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{found, found_in_reads_of};
    use super::*;

    /// What is found does not depend on where a read ends.
    fn shown(bytes: &[u8]) -> Vec<String> {
        let shown = found(bytes, &|reader, intake| read(reader, intake));
        assert_eq!(found_in_reads_of(3, bytes, &|reader, intake| read(reader, intake)), shown);
        shown
    }

    #[test]
    fn lines_in_every_spelling() {
        for (bytes, expected) in [
            (&b""[..], vec![]),
            (b"\n\r\n  \n# http://x/a.jpg\n  #\n", vec![]),
            (b"http://x/a\nhttp://x/b", vec!["http://x/a", "http://x/b"]),
            (b"http://x/a\r\n\thttp://x/b \r\n", vec!["http://x/a", "http://x/b"]),
            (b"\n#\nhttps://imgur.com/a/DytNW1A\n", vec!["page:3"]),
            (b"#\ncat.jpg\nhttp://x/a", vec!["l:2: not an http(s) URL: \"cat.jpg\"", "http://x/a"]),
            (b"http://x/\xff\nhttp://x/a", vec!["l:1: not UTF-8 text: \"http://x/\u{fffd}\"", "http://x/a"]),
            (b"a\x1b[1m\0", vec!["l:1: not an http(s) URL: \"a\\u{1b}[1m\\u{0}\""]),
            (
                b"http://x/a\thttp://x/b",
                vec!["l:1: a link with a tab or line break in it: \"http://x/a\\u{9}http://x/b\""],
            ),
        ] {
            assert_eq!(shown(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_line_has_a_bound_and_the_next_one_is_read_all_the_same() {
        let of_length = |bytes: usize| format!("http://x/{}", "a".repeat(bytes - "http://x/".len()));
        let longest = of_length(LINK_BYTES_MAX);
        for end in ["\n", ""] {
            assert_eq!(shown(format!("{longest}{end}").as_bytes()), [longest.as_str()]);
        }
        for length in [LINK_BYTES_MAX + 1, LINK_BYTES_MAX + 2, 3 * LINK_BYTES_MAX + 1] {
            let got = shown(format!("{}\nhttp://x/b", of_length(length)).as_bytes());
            assert!(got[0].starts_with("l:1: longer than 16 KiB: \"http://x/aaa"), "{}", got[0]);
            assert!(got[0].chars().count() < 300);
            assert_eq!(got[1..], ["http://x/b"], "{length}");
        }
    }
}
