//! Whole images, decoded to see whether they can be (`--verify decode`), within bounds of pixels, memory and time.
//!
//! JPEG, PNG, GIF and WebP are decoded to their last pixel. For AVIF and MP4 there is no decoder here: of them the boxes are
//! walked, which shows a file that was cut short. WebM is taken as it is.

use common::media::MediaType;
use common::outcome::Rejection;
use image::codecs::{gif::GifDecoder, jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{AnimationDecoder, Frames, ImageDecoder, ImageError, Limits};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

/// The largest image. It is what Pillow warns at, 256 MiB of RGB, so that what passes here can be opened by those who come after.
pub(crate) const PIXELS_MAX: u64 = (256 << 20) / 3;
/// Memory that decoding one image may need, by [`memory_needed`].
const MEMORY_MAX: u64 = 512 << 20;
/// Images that need more are decoded one at a time, whatever the number of writers.
const SMALL_MEMORY_MAX: u64 = 64 << 20;
/// Pixels of an animation that are decoded, each frame as large as the canvas: it bounds the time that it takes. What comes
/// after them is not looked at.
const ANIMATION_PIXELS_MAX: u64 = 256 << 20;

/// Held while a large image is decoded.
static LARGE: Mutex<()> = Mutex::new(());
/// How often a writer looks whether it is its turn. A large image takes hundreds of times as long.
const TURN_POLL: Duration = Duration::from_millis(2);

/// What stands against an image.
enum Flaw {
    /// The image itself.
    Undecodable,
    /// Reading it.
    Unread(io::Error),
}

impl From<ImageError> for Flaw {
    fn from(error: ImageError) -> Flaw {
        match error {
            ImageError::IoError(error) => Flaw::from(error),
            _ => Flaw::Undecodable,
        }
    }
}

impl From<io::Error> for Flaw {
    /// Only what the system says is the storage's fault; decoders say that a file is too short in the same words.
    fn from(error: io::Error) -> Flaw {
        if error.raw_os_error().is_some() { Flaw::Unread(error) } else { Flaw::Undecodable }
    }
}

/// The verdict over a whole file. `progress` is called between the frames of an animation.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn check(
    file: impl Read + Seek,
    media_type: MediaType,
    progress: &dyn Fn(),
) -> io::Result<Result<(), Rejection>> {
    guarded(|| decode(BufReader::new(file), media_type, progress))
}

/// A decoder that panics has met something that it cannot decode. The writer goes on.
fn guarded(decode: impl FnOnce() -> Result<(), Flaw>) -> io::Result<Result<(), Rejection>> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(Ok(())) => Ok(Ok(())),
        Ok(Err(Flaw::Unread(error))) => Err(error),
        Ok(Err(Flaw::Undecodable)) | Err(_) => Ok(Err(Rejection::Undecodable)),
    }
}

fn decode<R: Read + Seek>(mut file: BufReader<R>, media_type: MediaType, progress: &dyn Fn()) -> Result<(), Flaw> {
    match media_type {
        MediaType::Jpeg => {
            // The decoder fills up what is missing at the end, as browsers do, and does not tell.
            let coding = {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                jpeg_coding(&bytes).ok_or(Flaw::Undecodable)?
            };
            file.rewind()?;
            // It needs the coefficients of all components at once where they come in several scans.
            still(JpegDecoder::new(file)?, if coding == JpegCoding::Progressive { 6 } else { 0 }, progress)
        }
        MediaType::Png => {
            let is_whole = ends_with_iend(&mut file)?;
            let decoder = PngDecoder::with_limits(file, limits())?;
            match decoder.is_apng()? {
                true => {
                    check_memory(&decoder, ANIMATED_BYTES)?;
                    animation(decoder.dimensions(), decoder.apng()?.into_frames(), progress)
                }
                false => still(decoder, 0, progress),
            }?;
            if is_whole { Ok(()) } else { Err(Flaw::Undecodable) }
        }
        MediaType::Gif => {
            let decoder = GifDecoder::new(file)?;
            check_memory(&decoder, ANIMATED_BYTES)?;
            animation(decoder.dimensions(), decoder.into_frames(), progress)
        }
        MediaType::Webp => {
            if !riff_is_whole(&mut file)? {
                return Err(Flaw::Undecodable);
            }
            let decoder = WebPDecoder::new(file)?;
            match decoder.has_animation() {
                true => {
                    check_memory(&decoder, ANIMATED_BYTES)?;
                    animation(decoder.dimensions(), decoder.into_frames(), progress)
                }
                // Planes of brightness and colour, or a second picture before its transforms are undone.
                false => still(decoder, 4, progress),
            }
        }
        MediaType::Avif | MediaType::Mp4 => match boxes_are_whole(&mut file)? {
            true => Ok(()),
            false => Err(Flaw::Undecodable),
        },
        MediaType::Webm => Ok(()),
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MEMORY_MAX);
    limits
}

/// Bytes for each pixel of an animation beside its first frame: the canvas, the frame, and the one handed out.
const ANIMATED_BYTES: u64 = 12;

/// Memory for an image, with so many bytes for each pixel beside the result.
fn memory_needed(decoder: &impl ImageDecoder, bytes_beside: u64) -> Option<u64> {
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    let needed = decoder.total_bytes().saturating_add(pixels.saturating_mul(bytes_beside));
    (pixels <= PIXELS_MAX && needed <= MEMORY_MAX).then_some(needed)
}

fn check_memory(decoder: &impl ImageDecoder, bytes_beside: u64) -> Result<u64, Flaw> {
    memory_needed(decoder, bytes_beside).ok_or(Flaw::Undecodable)
}

/// Waits for the turn of an image that needs so much memory. Nobody is fair to those who wait, and a writer that is not heard of
/// for 10 s would be taken for stuck.
fn turn(needed: u64, progress: &dyn Fn()) -> Option<MutexGuard<'static, ()>> {
    if needed <= SMALL_MEMORY_MAX {
        return None;
    }
    loop {
        match LARGE.try_lock() {
            Ok(turn) => return Some(turn),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                progress();
                std::thread::sleep(TURN_POLL);
            }
        }
    }
}

fn still(mut decoder: impl ImageDecoder, bytes_beside: u64, progress: &dyn Fn()) -> Result<(), Flaw> {
    let needed = check_memory(&decoder, bytes_beside)?;
    let _turn = turn(needed, progress);
    decoder.set_limits(limits())?;
    let mut pixels = vec![0; usize::try_from(decoder.total_bytes()).map_err(|_| Flaw::Undecodable)?];
    Ok(decoder.read_image(&mut pixels)?)
}

fn animation((width, height): (u32, u32), frames: Frames<'_>, progress: &dyn Fn()) -> Result<(), Flaw> {
    let canvas = (u64::from(width) * u64::from(height)).max(1);
    let _turn = turn(canvas.saturating_mul(ANIMATED_BYTES + 4), progress);
    let frames_max = usize::try_from(ANIMATION_PIXELS_MAX / canvas).unwrap_or(usize::MAX).max(1);
    let mut count = 0;
    for frame in frames.take(frames_max) {
        drop(frame?);
        count += 1;
        progress();
    }
    if count == 0 { Err(Flaw::Undecodable) } else { Ok(()) }
}

/// How a JPEG's picture is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JpegCoding {
    Sequential,
    /// In several scans.
    Progressive,
}

/// Walks a JPEG's segments to its first scan, and looks for the end of the picture after that. `None` when there is none.
///
/// Within a scan every `FF` has a `00` or a restart mark behind it, so that the end mark is the end; the thumbnail in an EXIF
/// segment, which has one of its own, was passed over.
fn jpeg_coding(bytes: &[u8]) -> Option<JpegCoding> {
    let mut coding = JpegCoding::Sequential;
    let mut at = 2;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xff)?;
        let marker = *bytes.get(at + 1)?;
        match marker {
            // Not a marker; fill bytes.
            0x00 | 0xff => at += 1,
            // Without content.
            0x01 | 0xd0..=0xd8 => at += 2,
            0xd9 => return None,
            0xda => break,
            _ => {
                if matches!(marker, 0xc2 | 0xc6 | 0xca | 0xce) {
                    coding = JpegCoding::Progressive;
                }
                let length = u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]);
                at += 2 + usize::from(length.max(2));
            }
        }
    }
    bytes.get(at..)?.windows(2).any(|pair| pair == [0xff, 0xd9]).then_some(coding)
}

/// Whether the chunks of a PNG go on to its last one; the decoder is content with the pixels. Leaves `file` at its beginning.
fn ends_with_iend(file: &mut (impl Read + Seek)) -> Result<bool, Flaw> {
    file.seek(SeekFrom::Start(8))?;
    let is_whole = loop {
        let mut head = [0; 8];
        if !fill(file, &mut head)? {
            break false;
        }
        let [a, b, c, d, kind @ ..] = head;
        // The content, and its checksum, which the decoder compares.
        let rest = i64::from(u32::from_be_bytes([a, b, c, d])) + 4;
        if &kind == b"IEND" {
            break fill(file, &mut [0; 4])?;
        }
        file.seek(SeekFrom::Current(rest))?;
    };
    file.rewind()?;
    Ok(is_whole)
}

/// Whether a RIFF file is as long as it says, which its picture may not need to the last byte. Leaves `file` at its beginning.
fn riff_is_whole(file: &mut (impl Read + Seek)) -> Result<bool, Flaw> {
    let end = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let mut head = [0; 8];
    let is_there = fill(file, &mut head)?;
    file.rewind()?;
    let [.., a, b, c, d] = head;
    Ok(is_there && u64::from(u32::from_le_bytes([a, b, c, d])) + 8 <= end)
}

/// Whether the boxes of an ISO media file (ISO/IEC 14496-12, section 4.2) fill it to its end, with the one among them that holds
/// the description.
fn boxes_are_whole(file: &mut (impl Read + Seek)) -> Result<bool, Flaw> {
    let end = file.seek(SeekFrom::End(0))?;
    let (mut at, mut described) = (0, false);
    while at < end {
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0; 8];
        if !fill(file, &mut head)? {
            return Ok(false);
        }
        let [a, b, c, d, kind @ ..] = head;
        described |= matches!(&kind, b"meta" | b"moov");
        let length = match u32::from_be_bytes([a, b, c, d]) {
            // To the end of the file.
            0 => end - at,
            1 => {
                let mut long = [0; 8];
                if !fill(file, &mut long)? {
                    return Ok(false);
                }
                u64::from_be_bytes(long)
            }
            short => u64::from(short),
        };
        let next = at.saturating_add(length);
        if length < 8 || next > end {
            return Ok(false);
        }
        at = next;
    }
    Ok(described)
}

/// Reads as many bytes; `false` when the file ends before.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> Result<bool, Flaw> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Flaw::Unread(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, ImageFormat};
    use std::io::Cursor;

    fn is_fine(bytes: &[u8], media_type: MediaType) -> bool {
        match check(Cursor::new(bytes), media_type, &|| {}).expect("memory can be read") {
            Ok(()) => true,
            Err(rejection) => {
                assert_eq!(rejection, Rejection::Undecodable);
                false
            }
        }
    }

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let picture =
            image::RgbImage::from_fn(61, 47, |x, y| image::Rgb([(x * 4) as u8, (y * 5) as u8, (x ^ y) as u8]));
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::from(picture).write_to(&mut bytes, format).expect("encoded");
        bytes.into_inner()
    }

    #[test]
    fn whole_images_are_fine_and_cut_ones_are_not_wherever_they_are_cut() {
        for (format, media_type) in [
            (ImageFormat::Jpeg, MediaType::Jpeg),
            (ImageFormat::Png, MediaType::Png),
            (ImageFormat::Gif, MediaType::Gif),
            (ImageFormat::WebP, MediaType::Webp),
        ] {
            let whole = encoded(format);
            assert!(is_fine(&whole, media_type), "{media_type}");
            let with_more = [whole.clone(), b"what a camera puts after it".to_vec()].concat();
            assert!(is_fine(&with_more, media_type), "{media_type}, with more after it");
            for length in (0..whole.len()).filter(|length| length % 7 == 0 || length + 9 > whole.len()) {
                // The picture of a GIF is complete before its last bytes, which end the file.
                let may_be_fine = media_type == MediaType::Gif && length + 3 > whole.len();
                assert!(may_be_fine || !is_fine(&whole[..length], media_type), "{media_type} cut at {length}");
            }
        }
    }

    /// A PNG that says it is as large as PNGs can be that other programs read, in 5 KB.
    fn bomb(width: u32, height: u32) -> Vec<u8> {
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        let mut chunk = |kind: &[u8], content: &[u8]| {
            png.extend((content.len() as u32).to_be_bytes());
            let both = [kind, content].concat();
            png.extend(&both);
            png.extend(crc(&both).to_be_bytes());
        };
        let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
        chunk(b"IHDR", &[size.as_slice(), &[8, 6, 0, 0, 0]].concat());
        chunk(b"IDAT", &[0; 5000]);
        chunk(b"IEND", b"");
        png
    }

    /// As in the PNG specification, annex D.
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 })
        })
    }

    #[test]
    fn what_is_too_large_is_not_even_tried() {
        assert!(!is_fine(&bomb(65535, 65535), MediaType::Png));
        let needed = |width, height, beside| {
            let bytes = bomb(width, height);
            let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits()).expect("a header");
            memory_needed(&decoder, beside)
        };
        assert_eq!(needed(65535, 65535, 0), None);
        assert_eq!(needed(1000, 1000, 2), Some(6_000_000));
        assert_eq!(needed(9000, 9000, 0), Some(324_000_000));
        assert_eq!(needed(9000, 9000, 6), None, "within the pixels, but not within the memory");
    }

    #[test]
    fn large_images_take_turns_and_whoever_waits_is_heard_of() {
        assert!(turn(SMALL_MEMORY_MAX, &|| {}).is_none());
        let heard_of = std::sync::atomic::AtomicUsize::new(0);
        let first = turn(SMALL_MEMORY_MAX + 1, &|| {});
        assert!(first.is_some());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let count = || {
                    heard_of.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                };
                turn(SMALL_MEMORY_MAX + 1, &count).is_some()
            });
            while heard_of.load(std::sync::atomic::Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            assert!(!waiting.is_finished());
            drop(first);
            assert!(waiting.join().expect("it ends"));
        });
    }

    #[test]
    fn a_decoder_that_panics_has_met_an_undecodable_image() {
        assert!(matches!(guarded(|| panic!("on purpose")), Ok(Err(Rejection::Undecodable))));
        let broken_disk = || Err(Flaw::from(io::Error::from_raw_os_error(5)));
        assert!(guarded(broken_disk).is_err(), "a disk that cannot be read says nothing about the image");
    }

    #[test]
    fn boxes_that_do_not_fill_the_file_are_a_file_that_was_cut() {
        let of = |kind: &[u8; 4], content: usize| {
            [&(8 + content as u32).to_be_bytes()[..], kind, &vec![7; content]].concat()
        };
        let whole = [of(b"ftyp", 16), of(b"meta", 30), of(b"mdat", 100)].concat();
        for media_type in [MediaType::Avif, MediaType::Mp4] {
            assert!(is_fine(&whole, media_type));
            for length in 0..whole.len() {
                // Between two boxes nothing tells, unless the description is missing.
                assert_eq!(is_fine(&whole[..length], media_type), length == 24 + 38, "{length}");
            }
            let open_end = [of(b"ftyp", 16), of(b"moov", 30), b"\0\0\0\0mdat123".to_vec()].concat();
            assert!(is_fine(&open_end, media_type));
            let long = [of(b"meta", 0), b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x13123".to_vec()].concat();
            assert!(is_fine(&long, media_type) && !is_fine(&long[..long.len() - 1], media_type));
            assert!(!is_fine(&[of(b"meta", 0), b"\0\0\0\x02mdat".to_vec()].concat(), media_type), "no loop");
        }
    }

    #[test]
    fn a_progressive_jpeg_is_told_from_a_sequential_one() {
        let whole = encoded(ImageFormat::Jpeg);
        assert_eq!(jpeg_coding(&whole), Some(JpegCoding::Sequential));
        let at = whole.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame");
        let mut progressive = whole;
        progressive[at + 1] = 0xc2;
        assert_eq!(jpeg_coding(&progressive), Some(JpegCoding::Progressive));
    }
}
