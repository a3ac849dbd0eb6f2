//! Whole images, decoded to see whether they can be (`--verify decode`), within bounds of pixels, memory and steps.
//!
//! JPEG, PNG, GIF and WebP are decoded to their last pixel. For AVIF and MP4 there is no decoder here: of them the boxes are
//! walked, which shows a file that was cut short. WebM is taken as it is. Whatever takes long tells of its progress: by reads,
//! by frames, or, where a decoder is silent, by the time that passes beside it.

use crate::bounded_reader::BoundedReader;
use crate::jpeg_segments;
use common::media::MediaType;
use common::outcome::Rejection;
use image::codecs::{jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{AnimationDecoder, Frames, ImageDecoder, ImageError, Limits};
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

/// The largest image. It is what Pillow warns at, 256 MiB of RGB, so that what passes here can be opened by those who come after.
pub(crate) const PIXELS_MAX: u64 = (256 << 20) / 3;
/// Memory that decoding one image may need, by [`memory_needed`].
const MEMORY_MAX: u64 = 512 << 20;
/// Images that need more are decoded one at a time, whatever the number of writers.
const SMALL_MEMORY_MAX: u64 = 64 << 20;
/// Pixels of an animation that are decoded, each frame as large as the canvas: it bounds the time that it takes. What comes
/// after them is not looked at.
const ANIMATION_PIXELS_MAX: u64 = 256 << 20;
/// A frame counts as so many pixels at least, as it takes its time however small it is. So an animation has 65,536 frames.
const FRAME_PIXELS_MIN: u64 = 4096;
/// Pixels of a GIF that are decoded at once.
const GIF_BUFFER_BYTES: usize = 64 << 10;

/// Files and pixels from which on a decoder that tells nothing of its progress has a thread of its own: a hundredth of a
/// second of work, of which a thread is a hundredth part.
const LONG_BYTES: usize = 1 << 20;
const LONG_PIXELS: u64 = 1 << 20;
/// How often is told that such a decoder is at work.
const ALIVE_EVERY: Duration = Duration::from_millis(200);
/// For so long it is told. What a decoder does is bounded: the longest that was measured took 7 s, a lossy WebP of 76 megapixels
/// on two busy cores. One that takes longer than this never ends, and its writer counts as stuck.
const ALIVE_MAX: Duration = Duration::from_secs(120);

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

impl From<gif::DecodingError> for Flaw {
    fn from(error: gif::DecodingError) -> Flaw {
        match error {
            gif::DecodingError::Io(error) => Flaw::from(error),
            _ => Flaw::Undecodable,
        }
    }
}

/// The verdict over a whole file. `progress` is called several times a second while it is read and decoded.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn check(
    file: impl Read + Seek,
    media_type: MediaType,
    progress: &dyn Fn(),
) -> io::Result<Result<(), Rejection>> {
    guarded(|| decode(BoundedReader::new(file, progress)?, media_type, progress))
}

/// A decoder that panics has met something that it cannot decode. The writer goes on.
fn guarded(decode: impl FnOnce() -> Result<(), Flaw>) -> io::Result<Result<(), Rejection>> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(Ok(())) => Ok(Ok(())),
        Ok(Err(Flaw::Unread(error))) => Err(error),
        Ok(Err(Flaw::Undecodable)) | Err(_) => Ok(Err(Rejection::Undecodable)),
    }
}

fn decode<R: Read + Seek>(
    mut file: BoundedReader<'_, R>,
    media_type: MediaType,
    progress: &dyn Fn(),
) -> Result<(), Flaw> {
    match media_type {
        MediaType::Jpeg => jpeg(file, progress),
        MediaType::Png => {
            let is_whole = ends_with_iend(&mut file)?;
            let decoder = PngDecoder::with_limits(file, limits())?;
            // It reads as it decodes, a row from 8 KiB at most.
            match decoder.is_apng()? {
                true => {
                    let _turn = turn(check_memory(&decoder, ANIMATED_BYTES)?, progress);
                    animation(decoder.dimensions(), decoder.apng()?.into_frames(), progress)
                }
                false => {
                    let _turn = turn(check_memory(&decoder, 0)?, progress);
                    into_nothing(decoder)
                }
            }?;
            verdict(is_whole)
        }
        MediaType::Gif => gif(file, progress),
        MediaType::Webp => webp(file, progress),
        MediaType::Avif | MediaType::Mp4 => verdict(boxes_are_whole(&mut file)?),
        MediaType::Webm => Ok(()),
    }
}

fn verdict(is_fine: bool) -> Result<(), Flaw> {
    if is_fine { Ok(()) } else { Err(Flaw::Undecodable) }
}

fn jpeg<R: Read + Seek>(mut file: BoundedReader<'_, R>, progress: &dyn Fn()) -> Result<(), Flaw> {
    let jpeg_segments::Found { is_progressive, scans } = jpeg_segments::walk(&mut file)?.ok_or(Flaw::Undecodable)?;
    let bytes = read_whole(file)?;
    let is_large = bytes.len() >= LONG_BYTES;
    // It tells its size by its headers, of which a file that is not large has few.
    let decode_headers = || JpegDecoder::new(Cursor::new(bytes));
    let decoder = if is_large { beside(progress, decode_headers)? } else { decode_headers() }?;
    // It needs the coefficients of all components at once where they come in several scans.
    let bytes_beside = if is_progressive { 6 } else { 0 };
    let needed = check_memory(&decoder, bytes_beside)?;
    let _turn = turn(needed, progress);
    let is_long = is_large || pixels(&decoder) * u64::from(scans) >= LONG_PIXELS;
    let decode = || into_nothing(decoder);
    if is_long { beside(progress, decode)? } else { decode() }
}

/// Row by row, which takes no memory for pictures however large they say they are. Where a frame lies on the canvas does
/// not matter to whether it can be decoded.
fn gif<R: Read + Seek>(file: BoundedReader<'_, R>, progress: &dyn Fn()) -> Result<(), Flaw> {
    let mut decoder = gif::DecodeOptions::new().read_info(file)?;
    let canvas = u64::from(decoder.width()) * u64::from(decoder.height());
    let mut buffer = vec![0; GIF_BUFFER_BYTES];
    let (mut frames, mut decoded) = (0, 0);
    while let Some(frame) = decoder.next_frame_info()? {
        progress();
        let mut left = usize::from(frame.width) * usize::from(frame.height);
        let counted = canvas.max(left as u64).max(FRAME_PIXELS_MIN);
        if counted > PIXELS_MAX {
            return Err(Flaw::Undecodable);
        }
        decoded += counted;
        if frames > 0 && decoded > ANIMATION_PIXELS_MAX {
            break;
        }
        frames += 1;
        while left > 0 {
            progress();
            let part = left.min(buffer.len());
            if !decoder.fill_buffer(&mut buffer[..part])? {
                return Err(Flaw::Undecodable);
            }
            left -= part;
        }
    }
    verdict(frames > 0)
}

fn webp<R: Read + Seek>(mut file: BoundedReader<'_, R>, progress: &dyn Fn()) -> Result<(), Flaw> {
    if !riff_is_whole(&mut file)? {
        return Err(Flaw::Undecodable);
    }
    let bytes = read_whole(file)?;
    let open = |progress| Ok::<_, Flaw>(WebPDecoder::new(BoundedReader::new(Cursor::new(&*bytes), progress)?)?);
    let (is_animated, needed, is_long) = {
        let decoder = open(progress)?;
        let is_animated = decoder.has_animation();
        // Planes of brightness and colour, or a second picture before its transforms are undone.
        let needed = check_memory(&decoder, if is_animated { ANIMATED_BYTES } else { 4 })?;
        (is_animated, needed, bytes.len() >= LONG_BYTES || pixels(&decoder) >= LONG_PIXELS)
    };
    let _turn = turn(needed, progress);
    let decode = || {
        let nobody = || {};
        let decoder = WebPDecoder::new(BoundedReader::new(Cursor::new(&*bytes), &nobody)?)?;
        match is_animated {
            true => animation(decoder.dimensions(), decoder.into_frames(), &nobody),
            false => into_nothing(decoder),
        }
    };
    if is_animated || is_long { beside(progress, decode)? } else { decode() }
}

/// All of a file, from its beginning.
fn read_whole<R: Read + Seek>(mut file: BoundedReader<'_, R>) -> Result<Vec<u8>, Flaw> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Does work that tells nothing of its progress on a thread beside this one, and tells that it goes on. The work must not
/// wait for anybody.
fn beside<T: Send>(progress: &dyn Fn(), work: impl FnOnce() -> T + Send) -> Result<T, Flaw> {
    let waiting = thread::current();
    let started = Instant::now();
    thread::scope(|scope| {
        let work = || {
            let done = work();
            waiting.unpark();
            done
        };
        let thread = thread::Builder::new().name("decoder".into()).spawn_scoped(scope, work).map_err(Flaw::Unread)?;
        while !thread.is_finished() {
            if started.elapsed() < ALIVE_MAX {
                progress();
            }
            thread::park_timeout(ALIVE_EVERY);
        }
        thread.join().map_or_else(|panic| resume_unwind(panic), Ok)
    })
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MEMORY_MAX);
    limits
}

/// Bytes for each pixel of an animation beside its first frame: the canvas, the frame, and the one handed out.
const ANIMATED_BYTES: u64 = 12;

fn pixels(decoder: &impl ImageDecoder) -> u64 {
    let (width, height) = decoder.dimensions();
    u64::from(width) * u64::from(height)
}

/// Memory for an image, with so many bytes for each pixel beside the result.
fn memory_needed(decoder: &impl ImageDecoder, bytes_beside: u64) -> Option<u64> {
    let pixels = pixels(decoder);
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

/// Decodes a picture, which nobody looks at.
fn into_nothing(mut decoder: impl ImageDecoder) -> Result<(), Flaw> {
    decoder.set_limits(limits())?;
    let mut pixels = vec![0; usize::try_from(decoder.total_bytes()).map_err(|_| Flaw::Undecodable)?];
    Ok(decoder.read_image(&mut pixels)?)
}

fn animation((width, height): (u32, u32), frames: Frames<'_>, progress: &dyn Fn()) -> Result<(), Flaw> {
    let counted = (u64::from(width) * u64::from(height)).max(FRAME_PIXELS_MIN);
    let frames_max = usize::try_from(ANIMATION_PIXELS_MAX / counted).unwrap_or(usize::MAX).max(1);
    let mut count = 0;
    for frame in frames.take(frames_max) {
        drop(frame?);
        count += 1;
        progress();
    }
    verdict(count > 0)
}

/// Whether the chunks of a PNG go on to its last one; the decoder is content with the pixels. Leaves `file` at its beginning.
fn ends_with_iend<R: Read + Seek>(file: &mut BoundedReader<'_, R>) -> io::Result<bool> {
    file.seek(SeekFrom::Start(8))?;
    let is_whole = loop {
        let mut head = [0; 8];
        if !file.fill(&mut head)? {
            break false;
        }
        let [a, b, c, d, kind @ ..] = head;
        // The content, and its checksum, which the decoder compares.
        let rest = i64::from(u32::from_be_bytes([a, b, c, d])) + 4;
        if &kind == b"IEND" {
            break file.fill(&mut [0; 4])?;
        }
        file.seek(SeekFrom::Current(rest))?;
    };
    file.rewind()?;
    Ok(is_whole)
}

/// Whether a RIFF file is as long as it says, which its picture may not need to the last byte. Leaves `file` at its beginning.
fn riff_is_whole<R: Read + Seek>(file: &mut BoundedReader<'_, R>) -> io::Result<bool> {
    let end = file.length()?;
    let mut head = [0; 8];
    let is_there = file.fill(&mut head)?;
    file.rewind()?;
    let [.., a, b, c, d] = head;
    Ok(is_there && u64::from(u32::from_le_bytes([a, b, c, d])) + 8 <= end)
}

/// Whether the boxes of an ISO media file (ISO/IEC 14496-12, section 4.2) fill it to its end, with the one among them that holds
/// the description.
fn boxes_are_whole<R: Read + Seek>(file: &mut BoundedReader<'_, R>) -> io::Result<bool> {
    let end = file.length()?;
    let (mut at, mut described) = (0, false);
    while at < end {
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0; 8];
        if !file.fill(&mut head)? {
            return Ok(false);
        }
        let [a, b, c, d, kind @ ..] = head;
        described |= matches!(&kind, b"meta" | b"moov");
        let length = match u32::from_be_bytes([a, b, c, d]) {
            // To the end of the file.
            0 => end - at,
            1 => {
                let mut long = [0; 8];
                if !file.fill(&mut long)? {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounded_reader::tests::Counted;
    use image::{DynamicImage, ImageFormat};
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

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
        let heard_of = AtomicUsize::new(0);
        let first = turn(SMALL_MEMORY_MAX + 1, &|| {});
        assert!(first.is_some());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let count = || {
                    heard_of.fetch_add(1, Ordering::SeqCst);
                };
                turn(SMALL_MEMORY_MAX + 1, &count).is_some()
            });
            while heard_of.load(Ordering::SeqCst) < 2 {
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

    /// The verdict over hostile bytes, with the reads of the file, its seeks, and the signs of progress.
    fn judged(bytes: &[u8], media_type: MediaType) -> (bool, u32, u32, u32) {
        let (reads, seeks, told) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let file = Counted { bytes: Cursor::new(bytes), reads: &reads, seeks: &seeks };
        let verdict = check(file, media_type, &|| told.set(told.get() + 1)).expect("memory can be read");
        (verdict.is_ok(), reads.get(), seeks.get(), told.get())
    }

    /// A GIF of 1 by 1 pixels with so many of `parts` before its picture.
    fn gif_with(part: &[u8], parts: usize) -> Vec<u8> {
        let picture = b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0\x3b";
        [&b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff"[..], &part.repeat(parts), picture].concat()
    }

    #[test]
    fn what_is_made_to_take_time_takes_few_reads_and_tells_of_each() {
        // 524,288 boxes: twice as many as are walked.
        let total = 4 << 20;
        let png = encoded(ImageFormat::Png);
        let (png_head, png_tail) = png.split_at(33);
        let jpeg = encoded(ImageFormat::Jpeg);
        let webp = {
            let chunks = [&b"VP8X\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0"[..], &b"JUNK\0\0\0\0".repeat(total / 8)].concat();
            [&b"RIFF"[..], &(chunks.len() as u32 + 4).to_le_bytes(), b"WEBP", &chunks].concat()
        };
        let chunk = |kind: &[u8; 4]| [&[0; 4][..], kind, &crc(kind).to_be_bytes()].concat();
        let boxes = |kind: &[u8]| [&b"\0\0\0\x08meta"[..], &[b"\0\0\0\x08", kind].concat().repeat(total / 8)].concat();
        for (name, bytes, media_type, may_be_fine) in [
            ("boxes of an AVIF", boxes(b"free"), MediaType::Avif, false),
            ("boxes of an MP4", boxes(b"free"), MediaType::Mp4, false),
            (
                "chunks of a PNG",
                [png_head, &chunk(b"juNk").repeat(total / 12), png_tail].concat(),
                MediaType::Png,
                false,
            ),
            (
                "image data of a PNG that is none",
                [png_head, &chunk(b"IDAT").repeat(total / 12), png_tail].concat(),
                MediaType::Png,
                false,
            ),
            (
                "segments of a JPEG",
                [&jpeg[..2], &b"\xff\xfe\0\x02".repeat(total / 4), &jpeg[2..]].concat(),
                MediaType::Jpeg,
                false,
            ),
            (
                "marks of a JPEG that stand alone",
                [&jpeg[..2], &b"\xff\xd0".repeat(total / 2), &jpeg[2..]].concat(),
                MediaType::Jpeg,
                true,
            ),
            ("comments of a GIF", gif_with(b"\x21\xfe\0", total / 3), MediaType::Gif, true),
            ("parts of a GIF's comment", gif_with(b"\x21\xfe\x01x\x01x\0", total / 7), MediaType::Gif, true),
            ("chunks of a WebP", webp, MediaType::Webp, false),
        ] {
            let (is_fine, reads, seeks, told) = judged(&bytes, media_type);
            assert!(may_be_fine || !is_fine, "{name}");
            // Each byte twice at most, in parts of 8 KiB. A part may end within a step: then the file is sought.
            let reads_max = 2 * (bytes.len() / 8192) as u32 + 10;
            assert!(reads <= reads_max && seeks <= reads + 10, "{name}: {reads} reads of {reads_max}, {seeks} seeks");
            assert!(told >= reads, "{name}: {told} signs of progress for {reads} reads");
        }
    }

    #[test]
    fn a_gif_of_frames_that_are_larger_than_its_canvas_takes_no_memory_and_ends() {
        // 65,535 by 65,535 pixels, and 8,000 by 8,000 of which there is one.
        let frame = |side: u16| {
            let [a, b] = side.to_le_bytes();
            [&b"\x2c\0\0\0\0"[..], &[a, b, a, b], b"\0\x02\x02\x44\x01\0"].concat()
        };
        assert!(!is_fine(&gif_with(&frame(65_535), 1), MediaType::Gif));
        assert!(!is_fine(&gif_with(&frame(8_000), 1), MediaType::Gif));
        // As many frames as are looked at, and many more.
        let (is_fine, _, _, told) = judged(&gif_with(&frame(1), 100_000), MediaType::Gif);
        let frames_max = (ANIMATION_PIXELS_MAX / FRAME_PIXELS_MIN) as u32;
        assert!(is_fine && (2 * frames_max..2 * frames_max + 1000).contains(&told), "{told} signs of progress");
    }

    #[test]
    fn a_silent_decoder_is_told_to_be_alive_for_as_long_as_it_works() {
        let told = AtomicUsize::new(0);
        let count = || {
            told.fetch_add(1, Ordering::SeqCst);
        };
        let work = || {
            while told.load(Ordering::SeqCst) < 3 {
                std::thread::yield_now();
            }
            "done"
        };
        assert!(matches!(beside(&count, work), Ok("done")));
        assert!(matches!(guarded(|| beside(&|| {}, || panic!("on purpose"))), Ok(Err(Rejection::Undecodable))));
    }

    #[test]
    fn large_pictures_of_silent_decoders_are_decoded_beside_the_thread_that_tells() {
        let picture = DynamicImage::from(image::GrayImage::from_fn(1100, 1000, |x, y| image::Luma([(x ^ y) as u8])));
        for (format, media_type) in [(ImageFormat::Jpeg, MediaType::Jpeg), (ImageFormat::WebP, MediaType::Webp)] {
            let mut bytes = Cursor::new(Vec::new());
            let picture = DynamicImage::from(picture.to_rgb8());
            picture.write_to(&mut bytes, format).expect("encoded");
            let (is_fine, reads, _, told) = judged(bytes.get_ref(), media_type);
            assert!(is_fine && told > reads, "{media_type}: {told} signs of progress for {reads} reads");
        }
    }
}
