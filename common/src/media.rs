//! The kinds of file that imgq stores, by their names in `--types` and in results. Pure.
//!
//! What a file *is* gets decided by its bytes, in the worker; here is only the vocabulary.

use std::fmt;
use std::str::FromStr;

/// A kind of image or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MediaType {
    /// JPEG.
    Jpeg,
    /// PNG, animated or not.
    Png,
    /// GIF, animated or not.
    Gif,
    /// WebP.
    Webp,
    /// AVIF.
    Avif,
    /// MPEG-4, only on request.
    Mp4,
    /// WebM, only on request.
    Webm,
}

impl MediaType {
    /// Every type, images first.
    pub const ALL: [MediaType; 7] = [
        MediaType::Jpeg,
        MediaType::Png,
        MediaType::Gif,
        MediaType::Webp,
        MediaType::Avif,
        MediaType::Mp4,
        MediaType::Webm,
    ];

    /// The name used by `--types` and by the field `type` of a result.
    pub fn name(self) -> &'static str {
        match self {
            MediaType::Jpeg => "jpeg",
            MediaType::Png => "png",
            MediaType::Gif => "gif",
            MediaType::Webp => "webp",
            MediaType::Avif => "avif",
            MediaType::Mp4 => "mp4",
            MediaType::Webm => "webm",
        }
    }

    /// The extension that a file of this type gets, without its dot.
    pub fn extension(self) -> &'static str {
        match self {
            MediaType::Jpeg => "jpg",
            other => other.name(),
        }
    }

    /// The type that a file name's extension (any case, no dot) promises.
    pub fn from_extension(extension: &str) -> Option<MediaType> {
        match extension.to_ascii_lowercase().as_str() {
            "jpg" | "jpeg" | "jpe" | "jfif" => Some(MediaType::Jpeg),
            "png" => Some(MediaType::Png),
            "gif" => Some(MediaType::Gif),
            "webp" => Some(MediaType::Webp),
            "avif" => Some(MediaType::Avif),
            "mp4" | "m4v" => Some(MediaType::Mp4),
            "webm" => Some(MediaType::Webm),
            _ => None,
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for MediaType {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        MediaType::ALL
            .into_iter()
            .find(|t| t.name() == name || (name == "jpg" && *t == MediaType::Jpeg))
            .ok_or_else(|| format!("unknown type \"{name}\": known are jpeg, png, gif, webp, avif, mp4, webm"))
    }
}

/// The set of types that are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaTypes(u8);

impl MediaTypes {
    /// Whether the set holds `media_type`.
    pub fn contains(self, media_type: MediaType) -> bool {
        self.0 & (1 << media_type as u8) != 0
    }

    /// The members, images first.
    pub fn iter(self) -> impl Iterator<Item = MediaType> {
        MediaType::ALL.into_iter().filter(move |t| self.contains(*t))
    }
}

impl FromIterator<MediaType> for MediaTypes {
    fn from_iter<I: IntoIterator<Item = MediaType>>(types: I) -> Self {
        MediaTypes(types.into_iter().fold(0, |set, t| set | (1 << t as u8)))
    }
}

impl Default for MediaTypes {
    fn default() -> Self {
        [MediaType::Jpeg, MediaType::Png, MediaType::Gif, MediaType::Webp, MediaType::Avif].into_iter().collect()
    }
}

impl fmt::Display for MediaTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(MediaType::name).collect();
        f.write_str(&names.join(","))
    }
}

impl FromStr for MediaTypes {
    type Err = String;
    fn from_str(list: &str) -> Result<Self, String> {
        let types: MediaTypes = list
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(MediaType::from_str)
            .collect::<Result<_, _>>()?;
        if types.0 == 0 {
            return Err("no type named: give at least one, as in jpeg,png".into());
        }
        Ok(types)
    }
}

/// Width and height, in pixels.
pub type Dimensions = (u32, u32);

/// What an object is by its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaInfo {
    /// By its first bytes.
    pub media_type: MediaType,
    /// Where its header tells them.
    pub dimensions: Option<Dimensions>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_types_reads_back_as_it_prints() {
        let all = "jpeg,png,gif,webp,avif,mp4,webm";
        assert_eq!(all.parse::<MediaTypes>().map(|t| t.to_string()), Ok(all.to_owned()));
        assert_eq!(MediaTypes::default().to_string(), "jpeg,png,gif,webp,avif");
        assert_eq!("jpg, gif".parse::<MediaTypes>().map(|t| t.to_string()), Ok("jpeg,gif".to_owned()));
        assert!("bmp".parse::<MediaTypes>().is_err_and(|e| e.contains("bmp")));
        assert!(" ,".parse::<MediaTypes>().is_err());
    }
}
