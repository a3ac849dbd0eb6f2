//! What is compressed, read as what it was: gzip and zstd, told by their first bytes.

use super::error::ListError;
use super::format::Compression;
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};

/// What one read brings at most.
const READ_BYTES: usize = 128 << 10;

/// The largest window that a zstd frame may ask for, as a power of two: 128 MiB, which is the tool's own bound.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Decompresses what is compressed, and passes on what is not. The first bytes tell; `named` is what the name says.
///
/// # Errors
/// The reader's, and a name that promises what is not there.
pub(super) fn decompressed<'a>(
    reader: impl Read + 'a,
    named: Option<Compression>,
) -> Result<Box<dyn Read + 'a>, ListError> {
    let mut beginning = [0; 4];
    let mut reader = reader;
    let length = fill(&mut reader, &mut beginning)?;
    let whole = io::Cursor::new(beginning).take(length as u64).chain(reader);
    let Some(compression) = Compression::of_content(&beginning[..length]) else {
        return match named {
            None => Ok(Box::new(whole)),
            Some(named) => Err(ListError::with_hint(
                format!("its name says {0}, and it is not {0} data", named.name()),
                "give it the name of what it is; a .gz or .zst that is empty was not written to its end",
            )),
        };
    };
    let reader = BufReader::with_capacity(READ_BYTES, whole);
    Ok(match compression {
        Compression::Gzip => Box::new(Told { reader: MultiGzDecoder::new(reader), compression }),
        Compression::Zstd => Box::new(Told { reader: zstd_decoder(reader)?, compression }),
    })
}

fn zstd_decoder<R: BufRead>(reader: R) -> io::Result<zstd::stream::read::Decoder<'static, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// Reads until `into` is full or there is no more.
pub(super) fn fill(reader: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < into.len() {
        match reader.read(&mut into[length..]) {
            Ok(0) => break,
            Ok(bytes) => length += bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Says in errors what it was that could not be decompressed.
struct Told<R> {
    reader: R,
    compression: Compression,
}

impl<R: Read> Read for Told<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.reader.read(into).map_err(|error| {
            let name = self.compression.name();
            match error.kind() {
                ErrorKind::UnexpectedEof => io::Error::new(error.kind(), format!("its {name} data is cut short")),
                ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::Other if !is_system(&error) => {
                    io::Error::new(error.kind(), format!("its {name} data is damaged ({error})"))
                }
                _ => error,
            }
        })
    }
}

/// Whether the error is not the decoder's, but that of what it reads.
fn is_system(error: &io::Error) -> bool {
    error.raw_os_error().is_some() || error.get_ref().is_some_and(|inner| inner.is::<super::download::DownloadError>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression as Level;
    use flate2::write::GzEncoder;
    use std::io::Write;

    const TEXT: &[u8] = b"http://x/a\nhttp://x/b\n";

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Level::default());
        encoder.write_all(text).and_then(|()| encoder.finish()).expect("memory can be written")
    }
    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 3).expect("memory can be written")
    }
    /// What was read, and the error that it ended with.
    fn read(bytes: &[u8], named: Option<Compression>) -> (Vec<u8>, Option<String>) {
        let mut text = Vec::new();
        match decompressed(bytes, named) {
            Err(error) => (text, Some(error.why)),
            Ok(mut reader) => {
                let error = reader.read_to_end(&mut text).err();
                (text, error.map(|error| error.to_string()))
            }
        }
    }

    #[test]
    fn the_first_bytes_tell() {
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &zstd(TEXT)].concat();
        for bytes in [TEXT.to_vec(), gzip(TEXT), zstd(TEXT), skippable] {
            assert_eq!(read(&bytes, None), (TEXT.to_vec(), None));
        }
        for short in [&b""[..], b"a", b"abc"] {
            assert_eq!(read(short, None), (short.to_vec(), None));
        }
        // Whatever the name says of compressed data, and members behind each other.
        assert_eq!(read(&zstd(TEXT), Some(Compression::Gzip)), (TEXT.to_vec(), None));
        assert_eq!(read(&[gzip(b"a"), gzip(b"b")].concat(), None), (b"ab".to_vec(), None));
        assert_eq!(read(&[zstd(b"a"), zstd(b"b")].concat(), None), (b"ab".to_vec(), None));
        for wrong in [TEXT, b""] {
            let error = read(wrong, Some(Compression::Gzip)).1;
            assert_eq!(error.as_deref(), Some("its name says gzip, and it is not gzip data"));
        }
    }

    #[test]
    fn what_is_cut_short_or_damaged_is_told_after_what_was_good() {
        let mut state = 1u32;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        let text: Vec<u8> = noise.take(1 << 20).collect();
        for (compressed, name) in [(gzip(&text), "gzip"), (zstd(&text), "zstd")] {
            let (got, error) = read(&compressed[..compressed.len() - 7], None);
            assert!(got.len() > 500_000 && text.starts_with(&got), "{}", got.len());
            assert_eq!(error, Some(format!("its {name} data is cut short")));
            let (_, error) = read(&compressed[..compressed.len() / 2], None);
            assert_eq!(error, Some(format!("its {name} data is cut short")));
            let mut damaged = compressed;
            let end = damaged.len() - 3;
            damaged[end] ^= 0xff;
            if name == "gzip" {
                let (_, error) = read(&damaged, None);
                assert!(error.is_some_and(|error| error.starts_with("its gzip data is damaged (")));
            }
        }
    }

    #[test]
    fn a_zstd_window_is_bounded() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder.window_log(28).and_then(|()| encoder.long_distance_matching(true)).expect("set");
        // Written in pieces, so that the frame does not say that it is small.
        encoder.write_all(TEXT).and_then(|()| encoder.flush()).expect("written");
        let bytes = encoder.finish().expect("finished");
        let error = read(&bytes, None).1;
        assert!(error.is_some_and(|error| error.starts_with("its zstd data is damaged (")), "refused");
    }
}
