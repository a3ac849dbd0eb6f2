//! Small pictures of what was stored, made when they are asked for, of files that nobody trusts.
//!
//! A file is found through its result, opened strictly below the storage (`beneath`), and decoded within bounds: of its bytes,
//! of its pixels before any is decoded, of memory, and of how many at once. What comes out is encoded anew, so that nothing of
//! the file itself reaches a browser.

use super::Site;
use super::parameters::is_entry;
use axum::body::Bytes;
use axum::extract::{Path as Segment, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use common::media::MediaType;
use common::report::ResultRow;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use storage::beneath::Beneath;
use tokio::sync::Semaphore;

/// Width and height of a thumbnail, at most.
const SIDE_MAX: u32 = 160;
const JPEG_QUALITY: u8 = 82;
/// The largest file that is looked at.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// The largest picture, and what decoding it may take: a progressive JPEG of that size needs 9 bytes a pixel.
const PIXELS_MAX: u64 = 36_000_000;
const DECODER_BYTES_MAX: u64 = 324 << 20;
/// Decoded at once; one that has more pixels or bytes than these has the place of all of them. Some decoders keep the whole file, and what
/// stands in it beside the picture.
const AT_ONCE: u32 = 2;
const SMALL_PIXELS_MAX: u64 = 8_000_000;
const SMALL_BYTES_MAX: u64 = 8 << 20;
/// Files looked at once, of which nothing is kept: a storage that is stuck holds so many threads, and no more.
const LOOKS: usize = 8;
/// Kept, by the bytes of the small pictures.
const CACHE_BYTES: u64 = 32 << 20;
/// Those are 3 to 10 KB each.
const CACHE_ITEMS: usize = 6000;
/// Stands for a picture that is not shown. Neither light nor dark.
const PLACEHOLDER: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 160 160\" width=\"160\" height=\"160\">\
    <rect width=\"160\" height=\"160\" fill=\"#8a94a6\" fill-opacity=\".18\"/>\
    <g fill=\"none\" stroke=\"#8a94a6\" stroke-width=\"6\" stroke-linejoin=\"round\" stroke-linecap=\"round\">\
    <rect x=\"44\" y=\"50\" width=\"72\" height=\"60\" rx=\"8\"/><path d=\"M50 104l22-24 16 16 10-10 14 16M52 44l56 72\"/></g></svg>";

/// A small picture.
#[derive(Debug, Clone)]
struct Thumbnail {
    media_type: &'static str,
    bytes: Bytes,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoThumbnail {
    /// No such result, or no such file below the storage.
    NotThere,
    /// No picture of a kind that is decoded here, or a broken one.
    NoPicture,
    /// More bytes or pixels than are looked at.
    TooLarge,
    /// Redis does not answer.
    Unknown,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<String, Thumbnail> for ByBytes {
    fn weight(&self, entry: &String, thumbnail: &Thumbnail) -> u64 {
        (entry.len() + thumbnail.bytes.len() + 64) as u64
    }
}

/// The thumbnails of a storage.
#[derive(Debug)]
pub(super) struct Thumbnails {
    storage: PathBuf,
    is_there: Arc<AtomicBool>,
    cache: Cache<String, Thumbnail, ByBytes>,
    looks: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// Says why there are no thumbnails, for as long as the storage is not there: the first worker makes it.
#[derive(Debug, Default)]
pub(super) struct StorageWatch {
    path: String,
    is_there: Arc<AtomicBool>,
}

impl StorageWatch {
    pub(super) fn complaint(&self) -> Option<String> {
        let is_there = self.is_there.load(Ordering::Relaxed);
        (!is_there)
            .then(|| format!("No thumbnails: there is no folder {} here. Name the storage with --storage.", self.path))
    }
}

impl Thumbnails {
    pub(super) fn new(storage: PathBuf) -> Thumbnails {
        Thumbnails {
            is_there: Arc::new(AtomicBool::new(storage.is_dir())),
            storage,
            cache: Cache::with_weighter(CACHE_ITEMS, CACHE_BYTES, ByBytes),
            looks: Arc::new(Semaphore::new(LOOKS)),
            places: Arc::new(Semaphore::new(AT_ONCE as usize)),
        }
    }

    /// Whether the storage is there, by the last look.
    pub(super) fn storage_watch(&self) -> StorageWatch {
        StorageWatch { path: self.storage.display().to_string(), is_there: Arc::clone(&self.is_there) }
    }

    /// The thumbnail of a file below the storage.
    async fn make(&self, key: String) -> Result<Thumbnail, NoThumbnail> {
        let (storage, is_there) = (self.storage.clone(), Arc::clone(&self.is_there));
        let look = Arc::clone(&self.looks).acquire_owned().await.map_err(|_| NoThumbnail::NotThere)?;
        let opened = tokio::task::spawn_blocking(move || {
            let _look = look;
            is_there.store(storage.is_dir(), Ordering::Relaxed);
            open(&storage, &key)
        });
        let opened = opened.await;
        let opened = opened.map_err(|_| NoThumbnail::NoPicture)??;
        let is_small = opened.pixels <= SMALL_PIXELS_MAX && opened.bytes <= SMALL_BYTES_MAX;
        let places = if is_small { 1 } else { AT_ONCE };
        let place = Arc::clone(&self.places).acquire_many_owned(places).await.map_err(|_| NoThumbnail::NoPicture)?;
        let made = tokio::task::spawn_blocking(move || {
            // Held until it is done, even if nobody waits for it any more.
            let _place = place;
            shrink(opened)
        });
        // A decoder that panicked has met something that it cannot decode.
        made.await.unwrap_or(Err(NoThumbnail::NoPicture))
    }
}

/// `GET /thumb/ENTRY`.
pub(super) async fn answer(State(site): State<Arc<Site>>, Segment(entry): Segment<String>) -> Response {
    let thumbnails = &site.thumbnails;
    let made = thumbnails.cache.get_or_insert_async(&entry, async {
        if !is_entry(&entry) {
            return Err(NoThumbnail::NotThere);
        }
        let row = site.queue.result(&entry).await.map_err(|_| NoThumbnail::Unknown)?;
        let row = row.filter(may_be_shown).ok_or(NoThumbnail::NotThere)?;
        thumbnails.make(row.key).await
    });
    match made.await {
        Ok(Thumbnail { media_type, bytes }) => {
            let headers = [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "private, max-age=3600")];
            (headers, bytes).into_response()
        }
        Err(why) => {
            let status = match why {
                NoThumbnail::NotThere => StatusCode::NOT_FOUND,
                NoThumbnail::NoPicture => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                NoThumbnail::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                NoThumbnail::Unknown => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, [(header::CONTENT_TYPE, "image/svg+xml")], PLACEHOLDER).into_response()
        }
    }
}

/// Whether a result has an object that can be a thumbnail.
pub(super) fn may_be_shown(row: &ResultRow) -> bool {
    row.outcome == "stored" && !row.key.is_empty() && matches!(row.media_type.as_str(), "jpeg" | "png" | "gif" | "webp")
}

/// What is decoded next.
struct Opened {
    file: BufReader<File>,
    format: ImageFormat,
    bytes: u64,
    /// By its headers.
    pixels: u64,
}

/// Looks at a file's headers, without a decoder, which might keep much of it: how much there is to do shows whose turn it is.
fn open(storage: &Path, key: &str) -> Result<Opened, NoThumbnail> {
    let file = Beneath::of(storage).and_then(|storage| storage.open_file(key)).map_err(|_| NoThumbnail::NotThere)?;
    let bytes = file.metadata().map_err(|_| NoThumbnail::NotThere)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(NoThumbnail::TooLarge);
    }
    let mut file = BufReader::new(file);
    let mut start = [0; 16];
    let known = read_start(&mut file, &mut start).ok().and_then(|n| image::guess_format(&start[..n]).ok());
    let format = known.ok_or(NoThumbnail::NoPicture)?;
    let media_type = match format {
        ImageFormat::Jpeg => MediaType::Jpeg,
        ImageFormat::Png => MediaType::Png,
        ImageFormat::Gif => MediaType::Gif,
        ImageFormat::WebP => MediaType::Webp,
        _ => return Err(NoThumbnail::NoPicture),
    };
    let size = content::dimensions(&mut file, media_type).map_err(|_| NoThumbnail::NotThere)?;
    let (width, height) = size.ok_or(NoThumbnail::NoPicture)?;
    let pixels = u64::from(width) * u64::from(height);
    if pixels > PIXELS_MAX {
        return Err(NoThumbnail::TooLarge);
    }
    file.rewind().map_err(|_| NoThumbnail::NoPicture)?;
    Ok(Opened { file, format, bytes, pixels })
}

fn read_start(file: &mut impl Read, start: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < start.len() {
        match file.read(&mut start[read..])? {
            0 => break,
            n => read += n,
        }
    }
    Ok(read)
}

fn decoder<'a>(file: &'a mut BufReader<File>, format: ImageFormat) -> Result<impl ImageDecoder + 'a, NoThumbnail> {
    let mut reader = ImageReader::with_format(file, format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    limits.max_image_width = Some(PIXELS_MAX as u32);
    limits.max_image_height = Some(PIXELS_MAX as u32);
    reader.limits(limits);
    reader.into_decoder().map_err(|_| NoThumbnail::NoPicture)
}

/// The first frame, upright, small, and encoded anew.
fn shrink(Opened { mut file, format, pixels, .. }: Opened) -> Result<Thumbnail, NoThumbnail> {
    let mut decoder = decoder(&mut file, format)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > pixels {
        // It was given a place for less.
        return Err(NoThumbnail::TooLarge);
    }
    let orientation = decoder.orientation().ok();
    let picture = DynamicImage::from_decoder(decoder).map_err(|_| NoThumbnail::NoPicture)?;
    let mut small =
        if picture.width().max(picture.height()) > SIDE_MAX { picture.thumbnail(SIDE_MAX, SIDE_MAX) } else { picture };
    if let Some(orientation) = orientation {
        small.apply_orientation(orientation);
    }
    let mut bytes = Cursor::new(Vec::new());
    let media_type = if small.color().has_alpha() {
        DynamicImage::ImageRgba8(small.into_rgba8()).write_to(&mut bytes, ImageFormat::Png).map(|()| "image/png")
    } else {
        let encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
        small.into_rgb8().write_with_encoder(encoder).map(|()| "image/jpeg")
    };
    Ok(Thumbnail { media_type: media_type.map_err(|_| NoThumbnail::NoPicture)?, bytes: bytes.into_inner().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(storage: &Path, key: &str) -> Result<Thumbnail, NoThumbnail> {
        shrink(open(storage, key)?)
    }

    #[test]
    fn nothing_but_headers_is_looked_at_before_it_is_a_picture_s_turn() {
        let storage = tempfile::tempdir().expect("a folder");
        let mut png = Cursor::new(Vec::new());
        image::RgbImage::new(30, 20).write_to(&mut png, ImageFormat::Png).expect("written");
        // Behind the header comes a text that breaks off: whoever reads it finds no picture.
        let mut png = png.into_inner()[..33].to_vec();
        png.extend([&[0x7f, 0xff, 0xff, 0xff][..], b"tEXt", &[b'x'; 5000]].concat());
        std::fs::write(storage.path().join("a.png"), png).expect("written");
        let opened = open(storage.path(), "a.png").expect("its header tells its size");
        assert_eq!(opened.pixels, 600);
        assert_eq!(shrink(opened).err(), Some(NoThumbnail::NoPicture));
    }

    #[test]
    fn pictures_become_small_and_others_none() {
        let storage = tempfile::tempdir().expect("a folder");
        let file = |name: &str| storage.path().join(name);
        let wide = image::RgbImage::from_fn(640, 320, |x, y| image::Rgb([x as u8, y as u8, 90]));
        for (name, format) in [("a.jpg", ImageFormat::Jpeg), ("a.gif", ImageFormat::Gif), ("a.webp", ImageFormat::WebP)]
        {
            wide.save_with_format(file(name), format).expect("written");
            let small = made(storage.path(), name).expect("a thumbnail");
            let decoded = image::load_from_memory(&small.bytes).expect("decodes");
            assert_eq!((decoded.width(), decoded.height()), (160, 80), "{name}");
        }
        image::RgbaImage::new(20, 10).save_with_format(file("clear.png"), ImageFormat::Png).expect("written");
        let clear = made(storage.path(), "clear.png").expect("a thumbnail");
        assert_eq!((clear.media_type, clear.bytes.starts_with(b"\x89PNG")), ("image/png", true));
        std::fs::write(file("text.jpg"), "no picture at all").expect("written");
        std::fs::write(file("empty.jpg"), "").expect("written");
        let whole = std::fs::read(file("a.webp")).expect("there");
        std::fs::write(file("half.webp"), &whole[..whole.len() / 2]).expect("written");
        for name in ["text.jpg", "empty.jpg", "half.webp"] {
            assert_eq!(made(storage.path(), name).err(), Some(NoThumbnail::NoPicture), "{name}");
        }
        assert_eq!(made(storage.path(), "none.jpg").err(), Some(NoThumbnail::NotThere));
        let large = File::create(file("large.jpg")).expect("a file");
        large.set_len(FILE_BYTES_MAX + 1).expect("sparse");
        assert_eq!(made(storage.path(), "large.jpg").err(), Some(NoThumbnail::TooLarge));
    }
}
