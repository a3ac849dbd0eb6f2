//! The segments of a JPEG (ITU-T T.81, annex B): where its size stands, how its picture is coded, and whether it ends. Nothing
//! is decoded.

use crate::bounded_reader::BoundedReader;
use common::media::Dimensions;
use std::io::{self, BufRead, Read, Seek, SeekFrom};

/// Scans of one picture. Skia stops at 100 as well (`SkJpegCodec.cpp`, "much larger than the number of scans we might expect
/// in a normal image"): each goes over the whole picture, though it may have a few bytes. Encoders write about ten.
const SCANS_MAX: u32 = 100;
/// Huffman tables: eight anew for each scan, as large as they can be. The smallest has 17 bytes, and a file of such tables
/// keeps a decoder busy for a long time.
const TABLE_BYTES_MAX: u32 = SCANS_MAX * 8 * (17 + 256);

mod marker {
    pub(super) const HUFFMAN_TABLES: u8 = 0xc4;
    pub(super) const END: u8 = 0xd9;
    pub(super) const SCAN: u8 = 0xda;
    /// Those of the frames that Huffman coding and arithmetic coding have in several scans.
    pub(super) const PROGRESSIVE_FRAMES: [u8; 4] = [0xc2, 0xc6, 0xca, 0xce];

    /// A frame has the picture's size.
    pub(super) fn is_frame(marker: u8) -> bool {
        matches!(marker, 0xc0..=0xcf) && !matches!(marker, HUFFMAN_TABLES | 0xc8 | 0xcc)
    }

    /// Nothing belongs to it: no length follows.
    pub(super) fn is_alone(marker: u8) -> bool {
        matches!(marker, 0x01 | 0xd0..=0xd8)
    }
}

/// What a walk through a whole file found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// The picture comes in several scans, and is only complete with the last of them.
    pub(crate) is_progressive: bool,
    /// How many there are.
    pub(crate) scans: u32,
}

/// Walks to the end of the picture; `None` when there is none, or more in front of it than pictures have.
///
/// Segments are passed over, with the thumbnail in an EXIF segment, which has an end of its own. From the first scan on nothing
/// is passed over, so that what is damaged there still has its end: within a scan every `FF` has a `00` or a restart mark
/// behind it.
pub(crate) fn walk<R: Read + Seek>(file: &mut BoundedReader<'_, R>) -> io::Result<Option<Found>> {
    let mut found = Found { is_progressive: false, scans: 0 };
    let mut table_bytes = 0;
    while let Some(marker) = next_marker(file)? {
        match marker {
            marker::END => return Ok((found.scans > 0).then_some(found)),
            marker::SCAN => found.scans += 1,
            marker::HUFFMAN_TABLES => {
                let Some(length) = segment_length(file)? else { return Ok(None) };
                table_bytes += length;
                pass_over(file, if found.scans == 0 { length } else { 0 })?;
            }
            _ if found.scans > 0 || marker::is_alone(marker) => {}
            _ => {
                found.is_progressive |= marker::PROGRESSIVE_FRAMES.contains(&marker);
                let Some(length) = segment_length(file)? else { return Ok(None) };
                pass_over(file, length)?;
            }
        }
        if found.scans > SCANS_MAX || table_bytes > TABLE_BYTES_MAX {
            return Ok(None);
        }
    }
    Ok(None)
}

/// The size of the picture, wherever in the file it stands.
pub(crate) fn dimensions<R: Read + Seek>(file: &mut BoundedReader<'_, R>) -> io::Result<Option<Dimensions>> {
    while let Some(marker) = next_marker(file)? {
        match marker {
            marker::END | marker::SCAN => break,
            _ if marker::is_frame(marker) => {
                // Its length and the bits of a sample come before.
                let mut frame = [0; 7];
                let is_there = file.fill(&mut frame)?;
                let [.., a, b, c, d] = frame;
                let (height, width) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                return Ok(is_there.then_some((width.into(), height.into())));
            }
            _ if marker::is_alone(marker) => {}
            _ => {
                let Some(length) = segment_length(file)? else { break };
                pass_over(file, length)?;
            }
        }
    }
    Ok(None)
}

/// The next marker, wherever it is: junk between segments, and marks that are filled up, are in files that browsers show.
fn next_marker<R: Read + Seek>(file: &mut BoundedReader<'_, R>) -> io::Result<Option<u8>> {
    let mut is_after_ff = false;
    loop {
        let bytes = file.fill_buf()?;
        let Some(first) = bytes.first().copied() else { return Ok(None) };
        let passed = match (is_after_ff, first) {
            (true, 0xff) => 1,
            (true, 0x00) => {
                is_after_ff = false;
                1
            }
            (true, marker) => {
                file.consume(1);
                return Ok(Some(marker));
            }
            (false, _) => match bytes.iter().position(|byte| *byte == 0xff) {
                Some(at) => {
                    is_after_ff = true;
                    at + 1
                }
                None => bytes.len(),
            },
        };
        file.consume(passed);
    }
}

/// The bytes that a segment has behind its length; `None` at the end of the file.
fn segment_length<R: Read + Seek>(file: &mut BoundedReader<'_, R>) -> io::Result<Option<u32>> {
    let mut length = [0; 2];
    // The length counts itself.
    Ok(file.fill(&mut length)?.then(|| u32::from(u16::from_be_bytes(length)).saturating_sub(2)))
}

fn pass_over<R: Read + Seek>(file: &mut BoundedReader<'_, R>, bytes: u32) -> io::Result<()> {
    file.seek(SeekFrom::Current(bytes.into())).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A file of these segments, each a marker and what is behind its length.
    fn jpeg(segments: &[(u8, &[u8])]) -> Vec<u8> {
        let segment = |(marker, content): &(u8, &[u8])| {
            [&[0xff, *marker][..], &(content.len() as u16 + 2).to_be_bytes(), content].concat()
        };
        [&b"\xff\xd8"[..], &segments.iter().flat_map(segment).collect::<Vec<u8>>(), b"\xff\xd9"].concat()
    }

    fn walked(bytes: &[u8]) -> Option<Found> {
        let mut file = BoundedReader::new(Cursor::new(bytes), &|| {}).expect("it opens");
        walk(&mut file).expect("memory can be read")
    }

    fn size(bytes: &[u8]) -> Option<Dimensions> {
        let mut file = BoundedReader::new(Cursor::new(bytes), &|| {}).expect("it opens");
        dimensions(&mut file).expect("memory can be read")
    }

    const FRAME: &[u8] = &[8, 0, 5, 0, 7, 1, 1, 0x11, 0];
    const SCAN: (u8, &[u8]) = (0xda, &[1, 1, 0, 0, 63, 0, 12, 0xff, 0x00, 0xff, 0xd3, 200]);

    #[test]
    fn a_picture_is_walked_to_its_end() {
        let thumbnail = jpeg(&[(0xc0, FRAME), SCAN]);
        let exif: (u8, &[u8]) = (0xe1, &thumbnail);
        assert_eq!(walked(&jpeg(&[exif, (0xc0, FRAME), SCAN])), Some(Found { is_progressive: false, scans: 1 }));
        let whole = jpeg(&[exif, (0xc2, FRAME), SCAN, (0xc4, &[0; 17]), SCAN]);
        assert_eq!(walked(&whole), Some(Found { is_progressive: true, scans: 2 }));
        assert_eq!(walked(&[&whole[..], b"more"].concat()), walked(&whole));
        assert_eq!(size(&whole), Some((7, 5)));
        for length in 0..whole.len() {
            assert_eq!(walked(&whole[..length]), None, "cut at {length}");
        }
        assert_eq!(walked(&jpeg(&[exif, (0xc0, FRAME)])), None, "without a scan");
        assert_eq!(size(&jpeg(&[exif, SCAN])), None, "without a frame");
    }

    #[test]
    fn more_scans_or_tables_than_pictures_have_are_none() {
        let of = |scans: usize, tables: usize| {
            let tables = vec![(0xc4, &[0; 60_000][..]); tables];
            walked(&jpeg(&[&[(0xc2, FRAME)], &tables[..], &vec![SCAN; scans], &tables[..]].concat()))
        };
        assert!(of(100, 1).is_some());
        assert!(of(101, 1).is_none(), "scans");
        assert!(of(100, 2).is_none(), "tables, before the first scan and after it");
    }
}
