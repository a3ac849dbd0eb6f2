//! What an object has to be like to be stored, and the verdict over a whole one before it gets its name.
//!
//! What the head of an answer tells is judged in `fetch`, what the beginning of a body tells in `inspect`, both while the
//! download goes on. Here is what takes the whole object; the storage's writers ask, on threads of their own.

mod decoding;
mod inspect;
mod placeholders;

pub use inspect::{Demands, Inspector, parse_dimensions};
pub use placeholders::{BadLine, Placeholders};

use clap::ValueEnum;
use common::media::{Dimensions, MediaInfo, MediaTypes};
use common::outcome::Rejection;
use decoding::PIXELS_MAX;
use inspect::{guarded, is_video};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

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
    /// Open for reading; where in it is no matter.
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

    /// The verdict over a whole object. `progress` is called now and then while it takes its time.
    ///
    /// # Errors
    /// When the object cannot be read; what is wrong with it is a verdict.
    pub fn judge(&self, whole: Whole<'_>, progress: &dyn Fn()) -> io::Result<Result<(), Rejection>> {
        let Whole { file, bytes, sha256, info: MediaInfo { media_type, dimensions }, sha256_wanted } = whole;
        if self.placeholders.know_content(bytes, sha256, || read(file))? {
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
            let file = BufReader::new(from_the_beginning(file)?);
            let size = guarded(|| imagesize::reader_size(file).ok());
            let found = size.and_then(|size| Some((size.width.try_into().ok()?, size.height.try_into().ok()?)));
            // What does not tell its size cannot be shown to be large enough.
            if let Err(rejection) = found.map_or(Err(Rejection::TooSmall), |found| self.demands().check(found)) {
                return Ok(Err(rejection));
            }
        }
        match self.verify {
            Verify::Header => Ok(Ok(())),
            Verify::Decode => decoding::check(from_the_beginning(file)?, media_type, progress),
        }
    }
}

/// The file itself, as it may have no name yet.
fn from_the_beginning(mut file: &File) -> io::Result<&File> {
    file.rewind()?;
    Ok(file)
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    from_the_beginning(file)?.read_to_end(&mut content)?;
    Ok(content)
}
