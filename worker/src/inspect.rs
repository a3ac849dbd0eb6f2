//! What a body is: its type by its first bytes, its width and height by its header. Nothing is decoded.

use common::media::{MediaType, MediaTypes};
use common::outcome::Rejection;

/// Enough for every signature that is looked for.
const SIGNATURE_BYTES: usize = 64;
/// How far into a body width and height are looked for: a JPEG may carry its EXIF thumbnail and colour profile first.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Looks at the beginning of one body as it arrives.
#[derive(Debug)]
pub(crate) struct Inspector {
    wanted: MediaTypes,
    head: Vec<u8>,
    media_type: Option<MediaType>,
    dimensions: Option<(u32, u32)>,
    /// Nothing more is learnt from further bytes.
    done: bool,
}

impl Inspector {
    pub(crate) fn new(wanted: MediaTypes) -> Inspector {
        Inspector { wanted, head: Vec::new(), media_type: None, dimensions: None, done: false }
    }

    /// Takes the next part of the body.
    ///
    /// # Errors
    /// [`Rejection::NotImage`] as soon as the bytes say so, so that the rest need not be downloaded.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> Result<(), Rejection> {
        if self.done {
            return Ok(());
        }
        let room = HEADER_BYTES_MAX - self.head.len();
        self.head.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if self.head.len() < SIGNATURE_BYTES {
            return Ok(());
        }
        self.look()?;
        if self.dimensions.is_some() || self.head.len() == HEADER_BYTES_MAX {
            self.done = true;
            self.head = Vec::new();
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), Rejection> {
        if self.media_type.is_none() {
            let found = type_of(&self.head).filter(|found| self.wanted.contains(*found));
            self.media_type = Some(found.ok_or(Rejection::NotImage)?);
        }
        self.dimensions = imagesize::blob_size(&self.head)
            .ok()
            .and_then(|size| Some((u32::try_from(size.width).ok()?, u32::try_from(size.height).ok()?)));
        Ok(())
    }

    /// The verdict, once the whole body was fed.
    ///
    /// # Errors
    /// [`Rejection::NotImage`] for an empty body, and for one that ended before it showed a signature.
    pub(crate) fn finish(mut self) -> Result<(MediaType, Option<(u32, u32)>), Rejection> {
        if !self.done {
            self.look()?;
        }
        self.media_type.map(|media_type| (media_type, self.dimensions)).ok_or(Rejection::NotImage)
    }
}

fn type_of(head: &[u8]) -> Option<MediaType> {
    match infer::get(head)?.mime_type() {
        "image/jpeg" => Some(MediaType::Jpeg),
        "image/png" => Some(MediaType::Png),
        "image/gif" => Some(MediaType::Gif),
        "image/webp" => Some(MediaType::Webp),
        "image/avif" => Some(MediaType::Avif),
        "video/mp4" | "video/x-m4v" => Some(MediaType::Mp4),
        "video/webm" => Some(MediaType::Webm),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest GIF there is, padded with a comment.
    fn gif() -> Vec<u8> {
        let mut gif = b"GIF89a\x07\0\x05\0\0\0\0".to_vec();
        gif.extend_from_slice(&[0x21, 0xfe, 60]);
        gif.extend_from_slice(&[b'x'; 60]);
        gif.extend_from_slice(b"\0;");
        gif
    }

    fn inspect(body: &[u8], chunk: usize) -> Result<(MediaType, Option<(u32, u32)>), Rejection> {
        let mut inspector = Inspector::new(MediaTypes::default());
        for part in body.chunks(chunk) {
            inspector.feed(part)?;
        }
        inspector.finish()
    }

    #[test]
    fn the_verdict_does_not_depend_on_how_the_body_arrives() {
        for chunk in [1, 7, 63, 64, 1000] {
            assert_eq!(inspect(&gif(), chunk), Ok((MediaType::Gif, Some((7, 5)))), "in chunks of {chunk}");
        }
    }

    #[test]
    fn what_is_not_an_image_is_refused() {
        let html = format!("<!DOCTYPE html><html>{}</html>", "x".repeat(1000));
        for body in [&b""[..], b"GI", html.as_bytes(), &[0; 100]] {
            assert_eq!(inspect(body, 10), Err(Rejection::NotImage));
        }
        // Right by its bytes, but not among the wanted types.
        let mut only_png = Inspector::new("png".parse().expect("types"));
        assert_eq!(only_png.feed(&gif()), Err(Rejection::NotImage));
    }
}
