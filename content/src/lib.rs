//! What an object has to be like to be stored, and the verdict over a whole one before it gets its name.
//!
//! What the head of an answer tells is judged in `fetch`, what the beginning of a body tells in `inspect`, both while the
//! download goes on. Here is what takes the whole object; the storage's writers ask, on threads of their own.

mod bounded_reader;
mod decoding;
mod inspect;
mod jpeg_segments;
mod placeholders;

pub use inspect::{Demands, Inspector, parse_dimensions};
pub use placeholders::{BadLine, Placeholders};

use bounded_reader::BoundedReader;
use clap::ValueEnum;
use common::media::{Dimensions, MediaInfo, MediaType, MediaTypes};
use common::outcome::Rejection;
use decoding::PIXELS_MAX;
use inspect::{guarded, is_video};
use std::fs::File;
use std::io::{self, Read, Seek};

/// How closely an image is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Verify {
    /// Its type and its dimensions, by its beginning.
    #[default]
    Header,
    /// All of it.
    Decode,
}

/// What an object has to be like.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// What it may be, by its content.
    pub types: MediaTypes,
    /// 0 for any.
    pub min_bytes: u64,
    /// Of images; any where there is none. Videos have no dimensions here.
    pub min_size: Option<Dimensions>,
    /// Pictures that stand for removed ones.
    pub placeholders: Placeholders,
    /// How closely images are looked at.
    pub verify: Verify,
}

/// What is known of an object when all of it is there.
#[derive(Debug, Clone, Copy)]
pub struct Whole<'a> {
    /// Open for reading, at any position.
    pub file: &'a File,
    /// Its length.
    pub bytes: u64,
    /// Of all of it, lower-case hex.
    pub sha256: &'a str,
    /// By its beginning.
    pub info: MediaInfo,
    /// What its hash has to be, where the job says so.
    pub sha256_wanted: Option<&'a str>,
}

impl Content {
    /// What bodies are looked at for.
    pub fn demands(&self) -> Demands {
        let pixels_max = (self.verify == Verify::Decode).then_some(PIXELS_MAX);
        Demands { types: self.types, min_size: self.min_size, pixels_max }
    }

    /// What an object that lies in storage is by its beginning; `None` when it is of no type that is wanted.
    pub fn info_of(&self, beginning: &[u8]) -> Option<MediaInfo> {
        // Whether it is large enough is not asked here, or one that is too small would be downloaded to be refused again.
        let mut inspector = Inspector::new(Demands { types: self.types, min_size: None, pixels_max: None });
        inspector.feed(beginning).and_then(|()| inspector.finish()).ok()
    }

    /// The verdict over a whole object. `progress` is called several times a second while it takes its time.
    ///
    /// # Errors
    /// When the object cannot be read; what is wrong with it is a verdict.
    pub fn judge(&self, whole: Whole<'_>, progress: &dyn Fn()) -> io::Result<Result<(), Rejection>> {
        let Whole { file, bytes, sha256, info: MediaInfo { media_type, dimensions }, sha256_wanted } = whole;
        if self.placeholders.know_content(bytes, sha256, || read(file, progress))? {
            return Ok(Err(Rejection::Removed));
        }
        if sha256_wanted.is_some_and(|wanted| wanted != sha256) {
            return Ok(Err(Rejection::HashMismatch));
        }
        if bytes < self.min_bytes {
            return Ok(Err(Rejection::TooSmall));
        }
        if let Some(dimensions) = dimensions
            && let Err(rejection) = self.demands().check(dimensions)
        {
            return Ok(Err(rejection));
        }
        if self.min_size.is_some() && dimensions.is_none() && !is_video(media_type) {
            // A JPEG may have more in front of its dimensions than is kept of its beginning.
            let found = read_dimensions(file, media_type, progress)?;
            // What does not tell its size cannot be shown to be large enough.
            if let Err(rejection) = found.map_or(Err(Rejection::TooSmall), |found| self.demands().check(found)) {
                return Ok(Err(rejection));
            }
        }
        match self.verify {
            Verify::Header => Ok(Ok(())),
            Verify::Decode => decoding::check(file, media_type, progress),
        }
    }
}

/// Width and height of an image by its headers, of which nothing is kept; `None` where they do not tell. Takes a bounded number of steps.
///
/// # Errors
/// When the file cannot be read.
pub fn dimensions(file: impl Read + Seek, media_type: MediaType) -> io::Result<Option<Dimensions>> {
    read_dimensions(file, media_type, &|| {})
}

/// Width and height, wherever in a file they stand; `None` when they are not found, or panic over, or too many parts are in
/// front of them.
fn read_dimensions(
    file: impl Read + Seek,
    media_type: MediaType,
    progress: &dyn Fn(),
) -> io::Result<Option<Dimensions>> {
    let mut file = BoundedReader::new(file, progress)?;
    if media_type == MediaType::Jpeg {
        return match guarded(|| Some(jpeg_segments::dimensions(&mut file))).transpose() {
            // Only what the system says is the storage's fault.
            Err(error) if error.raw_os_error().is_some() => Err(error),
            found => Ok(found.unwrap_or_default().flatten()),
        };
    }
    let size = guarded(|| imagesize::reader_size(file).ok());
    Ok(size.and_then(|size| Some((size.width.try_into().ok()?, size.height.try_into().ok()?))))
}

fn read(file: &File, progress: &dyn Fn()) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    BoundedReader::new(file, progress)?.read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bounded_reader::tests::Counted;
    use std::cell::Cell;
    use std::io::Cursor;

    #[test]
    fn dimensions_behind_millions_of_parts_are_not_looked_for_and_nobody_s_fault() {
        let frame = b"\xff\xc0\0\x0b\x08\0\x05\0\x07\x01\x01\x11\0";
        let jpeg = |parts: usize| [b"\xff\xd8", &*b"\xff\xfe\0\x02".repeat(parts), frame].concat();
        let avif = [&b"\0\0\0\x10ftypavif\0\0\0\0"[..], &b"\0\0\0\x08free".repeat(1 << 20)].concat();
        for (bytes, media_type, dimensions) in [
            (jpeg(100_000), MediaType::Jpeg, Some((7, 5))),
            (jpeg(1 << 20), MediaType::Jpeg, None),
            (avif, MediaType::Avif, None),
        ] {
            let (reads, seeks, told) = (Cell::new(0), Cell::new(0), Cell::new(0));
            let file = Counted { bytes: Cursor::new(&bytes), reads: &reads, seeks: &seeks };
            let found = read_dimensions(file, media_type, &|| told.set(told.get() + 1));
            assert_eq!(found.expect("memory can be read"), dimensions, "{media_type}");
            assert!(
                reads.get() as usize <= bytes.len() / 8192 + 2 && told.get() >= reads.get(),
                "{} reads",
                reads.get()
            );
        }
    }
}
