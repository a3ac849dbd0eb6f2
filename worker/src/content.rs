//! What an object has to be like to be stored, and the verdict over a whole one before it gets its name.
//!
//! What the head of an answer tells is judged in `fetch`, what the beginning of a body tells in `inspect`, both while the
//! download goes on. Here is what takes the whole object; the storage's writers ask, on threads of their own.

use crate::decoding::{self, PIXELS_MAX};
use crate::inspect::{Demands, Dimensions, guarded, is_video};
use crate::placeholders::Placeholders;
use clap::ValueEnum;
use common::media::{MediaType, MediaTypes};
use common::outcome::Rejection;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

/// How closely an image is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Verify {
    /// Its type and its dimensions, by its beginning.
    #[default]
    Header,
    /// All of it.
    Decode,
}

/// What an object has to be like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    pub(crate) types: MediaTypes,
    /// 0 for any.
    pub(crate) min_bytes: u64,
    pub(crate) min_size: Option<Dimensions>,
    pub(crate) placeholders: Placeholders,
    pub(crate) verify: Verify,
}

/// What is known of an object when all of it is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole<'a> {
    /// Open for reading; where in it is no matter.
    pub(crate) file: &'a File,
    pub(crate) bytes: u64,
    pub(crate) sha256: &'a str,
    pub(crate) media_type: MediaType,
    /// By its beginning.
    pub(crate) dimensions: Option<Dimensions>,
    /// What its hash has to be, where the job says so.
    pub(crate) sha256_wanted: Option<&'a str>,
}

impl Content {
    /// What bodies are looked at for.
    pub(crate) fn demands(&self) -> Demands {
        let pixels_max = (self.verify == Verify::Decode).then_some(PIXELS_MAX);
        Demands { types: self.types, min_size: self.min_size, pixels_max }
    }

    /// The verdict over a whole object. `gets_on` is called now and then while it takes its time.
    ///
    /// # Errors
    /// When the object cannot be read; what is wrong with it is a verdict.
    pub(crate) fn judge(&self, whole: Whole<'_>, gets_on: &dyn Fn()) -> io::Result<Result<(), Rejection>> {
        let Whole { file, bytes, sha256, media_type, dimensions, sha256_wanted } = whole;
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
            Verify::Decode => decoding::check(from_the_beginning(file)?, media_type, gets_on),
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
