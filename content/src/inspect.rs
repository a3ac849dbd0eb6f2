//! What a body is: its type by its first bytes, its width and height by its header. Nothing is decoded.
//!
//! The verdict never depends on the parts in which a body arrives.

use common::media::{Dimensions, MediaInfo, MediaType, MediaTypes};
use common::outcome::Rejection;
use image::ImageDecoder;
use image::codecs::jpeg::JpegDecoder;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Enough for every signature that is looked for: WebM's may end with byte 256, AVIF's with a list of brands.
const SIGNATURE_BYTES: usize = 512;
/// Enough for those that are nothing but their first bytes, with what stands at a fixed place behind them.
const SHORT_SIGNATURE_BYTES: usize = 64;
/// How far into a body width and height are looked for: a JPEG may carry its EXIF thumbnail and colour profile first.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// What a body is looked at for.
#[derive(Debug, Clone, Copy)]
pub struct Demands {
    /// What is wanted.
    pub types: MediaTypes,
    /// Of images. Videos have no dimensions here.
    pub min_size: Option<Dimensions>,
    /// More cannot be decoded within bounds, where that is wanted.
    pub pixels_max: Option<u64>,
}

impl Demands {
    /// Whether an image of these dimensions will do.
    ///
    /// # Errors
    /// [`Rejection::TooSmall`], [`Rejection::Undecodable`]
    pub fn check(self, (width, height): Dimensions) -> Result<(), Rejection> {
        if self.min_size.is_some_and(|(least_width, least_height)| width < least_width || height < least_height) {
            return Err(Rejection::TooSmall);
        }
        if self.pixels_max.is_some_and(|pixels_max| u64::from(width) * u64::from(height) > pixels_max) {
            return Err(Rejection::Undecodable);
        }
        Ok(())
    }
}

/// Reads `256x256`.
///
/// # Errors
/// A sentence that names the input and shows the right form.
pub fn parse_dimensions(text: &str) -> Result<Dimensions, String> {
    let side = |side: &str| side.trim().parse::<u32>().ok().filter(|pixels| *pixels > 0);
    text.split_once(['x', 'X', '×'])
        .and_then(|(width, height)| Some((side(width)?, side(height)?)))
        .ok_or_else(|| format!("\"{text}\" is no width and height: write 256x256, in pixels"))
}

/// How much of a body is there to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// More may come.
    Part,
    /// As much as is looked at of any body.
    Enough,
    /// All of it.
    Whole,
}

/// Looks at the beginning of one body as it arrives.
#[derive(Debug)]
pub struct Inspector {
    demands: Demands,
    head: Vec<u8>,
    media_type: Option<MediaType>,
    dimensions: Option<Dimensions>,
    /// It is worth another look once it is so long. A body that comes byte by byte would be looked at 65,000 times.
    next_look_bytes: usize,
    /// Nothing more is learnt from further bytes.
    done: bool,
}

impl Inspector {
    /// One for a body of which nothing has arrived.
    pub fn new(demands: Demands) -> Inspector {
        Inspector { demands, head: Vec::new(), media_type: None, dimensions: None, next_look_bytes: 0, done: false }
    }

    /// Takes the next part of the body.
    ///
    /// # Errors
    /// [`Rejection::NotImage`], or what [`Demands::check`] says, as soon as the bytes say so, so that the rest need not be
    /// downloaded.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Rejection> {
        if self.done {
            return Ok(());
        }
        let is_first = self.head.is_empty();
        let room = HEADER_BYTES_MAX - self.head.len();
        let part = &chunk[..chunk.len().min(room)];
        // Nearly always the first part tells everything; to copy it first was 6 % of the CPU of small images.
        if is_first {
            self.look_at_part(part)?;
            if self.done {
                return Ok(());
            }
        }
        self.head.extend_from_slice(part);
        if !is_first && (self.head.len() >= self.next_look_bytes || self.head.len() == HEADER_BYTES_MAX) {
            let head = std::mem::take(&mut self.head);
            self.look_at_part(&head)?;
            if !self.done {
                self.head = head;
            }
        }
        Ok(())
    }

    fn look_at_part(&mut self, head: &[u8]) -> Result<(), Rejection> {
        // More bytes may tell more of others, or something else: an MP4 that is also an AVIF is one.
        let is_short = || head.len() >= SHORT_SIGNATURE_BYTES && type_of(head).is_some_and(has_short_signature);
        if head.len() < SIGNATURE_BYTES && !is_short() {
            return Ok(());
        }
        self.look(head, if head.len() < HEADER_BYTES_MAX { Seen::Part } else { Seen::Enough })
    }

    fn look(&mut self, head: &[u8], seen: Seen) -> Result<(), Rejection> {
        let media_type = match self.media_type {
            Some(known) => known,
            None => {
                let found = type_of(head).filter(|found| self.demands.types.contains(*found));
                *self.media_type.insert(found.ok_or(Rejection::NotImage)?)
            }
        };
        self.dimensions = dimensions(head, media_type, seen);
        match self.dimensions {
            Some(dimensions) => self.demands.check(dimensions)?,
            None if may_be_without_dimensions(head, media_type, seen) => {}
            None => return Err(Rejection::NotImage),
        }
        self.next_look_bytes = head.len() + head.len() / 4;
        self.done = self.dimensions.is_some() || is_video(media_type) || seen != Seen::Part;
        Ok(())
    }

    /// Looks at what there is of a body that breaks off, as far as that was not done yet: what it is says more than how it ended.
    ///
    /// # Errors
    /// As [`Inspector::feed`].
    pub fn look_at_rest(&mut self) -> Result<(), Rejection> {
        if self.done {
            return Ok(());
        }
        let head = std::mem::take(&mut self.head);
        self.look_at_part(&head)
    }

    /// The verdict, once the whole body was fed.
    ///
    /// # Errors
    /// [`Rejection::NotImage`] for an empty body, and for one that ended before it showed a signature, or before it showed
    /// width and height; what [`Demands::check`] says.
    pub fn finish(mut self) -> Result<MediaInfo, Rejection> {
        if !self.done {
            let head = std::mem::take(&mut self.head);
            self.look(&head, Seen::Whole)?;
        }
        let dimensions = self.dimensions;
        self.media_type.map(|media_type| MediaInfo { media_type, dimensions }).ok_or(Rejection::NotImage)
    }
}

/// Whether no width and height are looked for.
pub(crate) fn is_video(media_type: MediaType) -> bool {
    match media_type {
        MediaType::Mp4 | MediaType::Webm => true,
        MediaType::Jpeg | MediaType::Png | MediaType::Gif | MediaType::Webp | MediaType::Avif => false,
    }
}

/// What `look` finds; nothing if it panics. What it looks at comes from strangers, and one of them must not take a worker
/// down, or one of its threads.
pub(crate) fn guarded<T>(look: impl FnOnce() -> Option<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(look)).unwrap_or_default()
}

fn dimensions(head: &[u8], media_type: MediaType, seen: Seen) -> Option<Dimensions> {
    let by_header = || {
        let size = imagesize::blob_size(head).ok()?;
        Some((u32::try_from(size.width).ok()?, u32::try_from(size.height).ok()?))
    };
    // Marks that are filled up, or junk between segments: imagesize gives up where those who show pictures do not.
    let by_decoder = || JpegDecoder::new(Cursor::new(head)).ok().map(|decoder| decoder.dimensions());
    match (media_type, seen) {
        (MediaType::Mp4 | MediaType::Webm, _) => None,
        // It is as large as the largest of its parts, of which not all may have arrived.
        (MediaType::Avif, Seen::Part) => None,
        (MediaType::Jpeg, Seen::Whole) => guarded(by_header).or_else(|| guarded(by_decoder)),
        (MediaType::Jpeg | MediaType::Png | MediaType::Gif | MediaType::Webp | MediaType::Avif, _) => {
            guarded(by_header)
        }
    }
}

/// Whether that is an image all the same in which no width and height were found.
fn may_be_without_dimensions(head: &[u8], media_type: MediaType, seen: Seen) -> bool {
    match media_type {
        MediaType::Mp4 | MediaType::Webm => true,
        // They stand at a fixed place among the first bytes.
        MediaType::Png | MediaType::Gif | MediaType::Webp => false,
        // They stand behind whatever else it carries.
        MediaType::Jpeg => seen != Seen::Whole,
        // There are more kinds of boxes that may hold them than imagesize knows, all below one of these two.
        MediaType::Avif => seen != Seen::Whole || head.windows(4).any(|kind| kind == b"meta" || kind == b"moov"),
    }
}

fn has_short_signature(media_type: MediaType) -> bool {
    match media_type {
        MediaType::Jpeg | MediaType::Png | MediaType::Gif | MediaType::Webp => true,
        MediaType::Avif | MediaType::Mp4 | MediaType::Webm => false,
    }
}

fn type_of(head: &[u8]) -> Option<MediaType> {
    let signature = &head[..head.len().min(SIGNATURE_BYTES)];
    match guarded(|| infer::get(signature))?.mime_type() {
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
        for _ in 0..3 {
            gif.extend_from_slice(&[0x21, 0xfe, 200]);
            gif.extend_from_slice(&[b'x'; 200]);
            gif.push(0);
        }
        gif.push(b';');
        gif
    }

    fn any() -> Demands {
        Demands { types: MediaTypes::default(), min_size: None, pixels_max: None }
    }

    fn inspect(body: &[u8], chunk: usize) -> Result<(MediaType, Option<Dimensions>), Rejection> {
        inspect_for(any(), body, chunk)
    }

    fn inspect_for(demands: Demands, body: &[u8], chunk: usize) -> Result<(MediaType, Option<Dimensions>), Rejection> {
        let mut inspector = Inspector::new(demands);
        for part in body.chunks(chunk) {
            inspector.feed(part)?;
        }
        inspector.finish().map(|info| (info.media_type, info.dimensions))
    }

    #[test]
    fn the_verdict_does_not_depend_on_how_the_body_arrives() {
        let any = Demands { types: MediaTypes::from_iter(MediaType::ALL), ..any() };
        for (body, verdict) in [
            (gif(), (MediaType::Gif, Some((7, 5)))),
            (avif(&[(64, 64), (640, 480)]), (MediaType::Avif, Some((640, 480)))),
            (webm(), (MediaType::Webm, None)),
        ] {
            for chunk in [1, 7, 63, 64, 100, 300, 511, 512, 1000, 100_000] {
                assert_eq!(inspect_for(any, &body, chunk), Ok(verdict), "in chunks of {chunk}");
            }
        }
    }

    fn in_a_box(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        [&(8 + content.len() as u32).to_be_bytes()[..], kind, content].concat()
    }

    /// The beginning of an AVIF with parts of these dimensions.
    fn avif(parts: &[Dimensions]) -> Vec<u8> {
        let brands = [&b"avif\0\0\0\0"[..], &b"mif1".repeat(20), b"miaf"].concat();
        let part = |(width, height): &Dimensions| {
            in_a_box(b"ispe", &[[0; 4], width.to_be_bytes(), height.to_be_bytes()].concat())
        };
        let parts: Vec<u8> = parts.iter().flat_map(part).chain(in_a_box(b"pixi", &[0; 500])).collect();
        let meta =
            [&[0; 4][..], &in_a_box(b"hdlr", &[0; 400]), &in_a_box(b"iprp", &in_a_box(b"ipco", &parts))].concat();
        [in_a_box(b"ftyp", &brands), in_a_box(b"meta", &meta), in_a_box(b"mdat", &[7; 1000])].concat()
    }

    /// Its type stands behind a long void.
    fn webm() -> Vec<u8> {
        [&b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\xf0\xec\x40\xb0"[..], &[0; 200], b"\x42\x82\x84webm", &[0; 100]].concat()
    }

    /// A JPEG with so many comments of 60,000 bytes before its frame, each mark behind so many fill bytes.
    fn jpeg(comments: usize, fill: usize) -> Vec<u8> {
        let fill = [0xff].repeat(fill);
        let comment = [&fill, &b"\xff\xfe\xea\x62"[..], &[b'x'; 60_000]].concat();
        let frame = b"\xff\xc0\0\x0b\x08\0\x05\0\x07\x01\x01\x11\0";
        let scan = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0\0\xff\xd9";
        [b"\xff\xd8", &*comment.repeat(comments), &fill, frame, &fill, scan].concat()
    }

    #[test]
    fn the_verdict_over_a_body_that_breaks_off_does_not_depend_on_how_it_arrived() {
        // 7 by 5 pixels, said behind 60,000 bytes.
        let body = [jpeg(1, 0), vec![0; 6000]].concat();
        let demands = Demands { min_size: Some((100, 100)), ..any() };
        for length in [600, 50_000, 60_000, 60_030, 61_000, 64_000, 66_000] {
            let verdict = |chunk: usize| {
                let mut inspector = Inspector::new(demands);
                body[..length].chunks(chunk).try_for_each(|part| inspector.feed(part))?;
                inspector.look_at_rest()
            };
            for chunk in [1000, 10] {
                assert_eq!(verdict(chunk), verdict(100_000), "{length} bytes in parts of {chunk}");
            }
            assert_eq!(verdict(10).is_err(), length > 60_020, "{length}");
        }
    }

    #[test]
    fn a_signature_alone_is_no_image() {
        let nothing: Vec<&[u8]> = vec![
            b"GIF8",
            b"GIF89a",
            b"\x89PNG",
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff",
            b"\xff\xd8\xff\xe0\0\x10JFIF\0",
            b"\xff\xd8\xff\xd9",
            b"RIFF\x10\0\0\0WEBP",
            b"RIFF\x10\0\0\0WEBPVP8 ",
            b"\0\0\0\x14ftypavif\0\0\0\0avif",
        ];
        for body in nothing {
            for chunk in [1, 100] {
                assert_eq!(inspect(body, chunk), Err(Rejection::NotImage), "{}", body.escape_ascii());
            }
        }
        // However much comes after it, where width and height would have to be near the beginning.
        let no_riff = [b"nonsenseWEBP".to_vec(), vec![b'x'; 100_000]].concat();
        assert_eq!(inspect(&no_riff, 1000), Err(Rejection::NotImage));
        assert_eq!(inspect(&[b"GIF97a".to_vec(), vec![b'x'; 600]].concat(), 1000), Err(Rejection::NotImage));
    }

    #[test]
    fn images_whose_dimensions_are_hard_to_find_are_images() {
        assert_eq!(inspect(&jpeg(0, 0), 10), Ok((MediaType::Jpeg, Some((7, 5)))));
        assert_eq!(inspect(&jpeg(1, 0), 1000), Ok((MediaType::Jpeg, Some((7, 5)))));
        assert_eq!(inspect(&jpeg(1, 3), 1000), Ok((MediaType::Jpeg, Some((7, 5)))), "fill bytes");
        assert_eq!(inspect(&jpeg(2, 0), 1000), Ok((MediaType::Jpeg, None)), "behind what is looked at");
        // A sequence of pictures, described elsewhere.
        let sequence = [in_a_box(b"ftyp", b"avis\0\0\0\0avis"), in_a_box(b"moov", &[0; 600])].concat();
        assert_eq!(inspect(&sequence, 100), Ok((MediaType::Avif, None)));
        let of_any_size = Demands { min_size: Some((8, 5)), ..any() };
        assert_eq!(inspect_for(of_any_size, &jpeg(1, 3), 1000), Err(Rejection::TooSmall));
    }

    #[test]
    fn a_look_that_panics_has_found_nothing() {
        assert_eq!(guarded(|| -> Option<()> { panic!("on purpose") }), None);
        assert_eq!(guarded(|| Some(1)), Some(1));
    }

    #[test]
    fn what_is_not_an_image_is_refused() {
        let html = format!("<!DOCTYPE html><html>{}</html>", "x".repeat(1000));
        for body in [&b""[..], b"GI", html.as_bytes(), &[0; 100]] {
            assert_eq!(inspect(body, 10), Err(Rejection::NotImage));
        }
        // Right by its bytes, but not among the wanted types.
        let mut only_png = Inspector::new(Demands { types: "png".parse().expect("types"), ..any() });
        assert_eq!(only_png.feed(&gif()), Err(Rejection::NotImage));
    }

    #[test]
    fn what_is_too_small_or_too_large_to_decode_is_known_by_the_header() {
        for (min_size, pixels_max, verdict) in [
            (Some((7, 5)), None, None),
            (Some((8, 5)), None, Some(Rejection::TooSmall)),
            (Some((7, 6)), None, Some(Rejection::TooSmall)),
            (Some((1, 1)), Some(35), None),
            (None, Some(34), Some(Rejection::Undecodable)),
            (Some((8, 5)), Some(34), Some(Rejection::TooSmall)),
        ] {
            for chunk in [1, 64, 1000] {
                let found = inspect_for(Demands { min_size, pixels_max, ..any() }, &gif(), chunk);
                assert_eq!(found.err(), verdict, "at least {min_size:?}, at most {pixels_max:?}");
            }
        }
        let demands = Demands { min_size: Some((8, 5)), ..any() };
        assert_eq!(Inspector::new(demands).feed(&gif()[..64]), Err(Rejection::TooSmall), "before the rest has arrived");
    }

    #[test]
    fn width_and_height_are_read_as_people_write_them() {
        assert_eq!(parse_dimensions("256x128"), Ok((256, 128)));
        assert_eq!(parse_dimensions("256 X 128"), Ok((256, 128)));
        for bad in ["", "256", "x", "0x5", "5x0", "-1x5", "5x5x5", "99999999999x1"] {
            assert!(parse_dimensions(bad).is_err_and(|why| why.contains("256x256")), "{bad}");
        }
    }
}
