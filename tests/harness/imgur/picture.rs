//! Pictures for the simulator: real JPEG, PNG, GIF and WebP, drawn from a seed, different for each.

use bytes::Bytes;
use image::codecs::gif::GifEncoder;
use image::{DynamicImage, Frame, ImageFormat, Rgb, RgbImage};
use std::io::Cursor;

/// What Imgur says a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `image/jpeg`
    Jpeg,
    /// `image/png`
    Png,
    /// `image/gif`
    Gif,
    /// `image/webp`
    Webp,
}

impl Format {
    /// The media type.
    pub fn mime(self) -> &'static str {
        match self {
            Format::Jpeg => "image/jpeg",
            Format::Png => "image/png",
            Format::Gif => "image/gif",
            Format::Webp => "image/webp",
        }
    }

    /// The extension, without a dot.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Jpeg => "jpg",
            Format::Png => "png",
            Format::Gif => "gif",
            Format::Webp => "webp",
        }
    }
}

/// Circles on a gradient, in colours that go together.
fn draw(seed: u64, width: u32, height: u32, phase: f32) -> RgbImage {
    let mut random = fastrand::Rng::with_seed(seed);
    let hue = random.f32();
    let ground = [colour(hue, 0.35, 0.95), colour(hue + 0.12, 0.55, 0.45)];
    let circles: Vec<([f32; 3], [f32; 3])> = (0..random.usize(4..9))
        .map(|n| {
            let place = [random.f32(), random.f32(), 0.06 + 0.16 * random.f32()];
            (place, colour(hue + 0.45 + 0.05 * n as f32, 0.6, 0.6 + 0.4 * random.f32()))
        })
        .collect();
    let (w, h) = (width as f32, height as f32);
    RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (x as f32 / w, y as f32 / h);
        let mut pixel = mix(ground[0], ground[1], (u * 0.3 + v * 0.7).clamp(0.0, 1.0));
        for ([cx, cy, radius], colour) in &circles {
            let (dx, dy) = (u - cx, (v - (cy + phase * radius)) * h / w);
            let edge = ((radius - dx.hypot(dy)) * w / 2.0).clamp(0.0, 1.0);
            pixel = mix(pixel, *colour, edge * 0.8);
        }
        Rgb(pixel.map(|channel| (channel * 255.0) as u8))
    })
}

fn mix(a: [f32; 3], b: [f32; 3], share: f32) -> [f32; 3] {
    [0, 1, 2].map(|i| a[i] + (b[i] - a[i]) * share)
}

/// HSV to RGB; the hue goes around once from 0 to 1.
fn colour(hue: f32, saturation: f32, value: f32) -> [f32; 3] {
    [5.0, 3.0, 1.0].map(|offset: f32| {
        let k = (offset + hue.rem_euclid(1.0) * 6.0).rem_euclid(6.0);
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

/// A picture as a file; `animated` counts for GIF only.
pub fn file(seed: u64, format: Format, width: u32, height: u32, animated: bool) -> Bytes {
    let mut bytes = Cursor::new(Vec::new());
    let written = match format {
        Format::Gif => {
            let frames = if animated { 3 } else { 1 };
            let mut encoder = GifEncoder::new_with_speed(&mut bytes, 30);
            (0..frames).try_for_each(|n| {
                let picture = DynamicImage::ImageRgb8(draw(seed, width, height, n as f32 * 0.4));
                encoder.encode_frame(Frame::new(picture.into_rgba8()))
            })
        }
        Format::Jpeg | Format::Png | Format::Webp => {
            let target = match format {
                Format::Png => ImageFormat::Png,
                Format::Webp => ImageFormat::WebP,
                Format::Jpeg | Format::Gif => ImageFormat::Jpeg,
            };
            DynamicImage::ImageRgb8(draw(seed, width, height, 0.0)).write_to(&mut bytes, target)
        }
    };
    written.expect("encoding into memory works for these sizes");
    Bytes::from(bytes.into_inner())
}

/// The picture that stands for removed images: 161×81 and 503 bytes, like Imgur's. Its MD5 cannot be that of Imgur's,
/// which the simulator gives as its ETag all the same.
pub fn removed() -> Bytes {
    let mut bytes = Cursor::new(Vec::new());
    image::GrayImage::from_pixel(161, 81, image::Luma([34]))
        .write_to(&mut bytes, ImageFormat::Png)
        .expect("encoding into memory works");
    let mut png = bytes.into_inner();
    // Filled up with a private chunk before the last one (IEND, 12 bytes), which decoders skip.
    let end = png.split_off(png.len() - 12);
    let length = 503 - png.len() - end.len() - 12;
    let mut chunk = b"paDd".to_vec();
    chunk.resize(4 + length, 0);
    png.extend_from_slice(&(length as u32).to_be_bytes());
    png.extend_from_slice(&chunk);
    png.extend_from_slice(&crc32fast::hash(&chunk).to_be_bytes());
    png.extend_from_slice(&end);
    Bytes::from(png)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_decodes_to_what_was_asked_for() {
        for format in [Format::Jpeg, Format::Png, Format::Gif, Format::Webp] {
            let decoded = image::load_from_memory(&file(7, format, 60, 40, true)).expect("decodes");
            assert_eq!((decoded.width(), decoded.height()), (60, 40), "{format:?}");
        }
        assert_ne!(file(1, Format::Png, 60, 40, false), file(2, Format::Png, 60, 40, false));
    }

    #[test]
    fn the_placeholder_has_the_right_size() {
        let removed = removed();
        assert_eq!(removed.len(), 503);
        let decoded = image::load_from_memory(&removed).expect("decodes");
        assert_eq!((decoded.width(), decoded.height()), (161, 81));
    }
}
