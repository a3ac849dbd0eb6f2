//! What a link points at: an Imgur image, an Imgur page, or anything else. Pure.
//!
//! An Imgur image has one canonical link under the image host, whatever size suffix, `.jpeg` or query it came with. Expanding
//! pages is left to `expand`.

use common::link::{LinkError, canonical_url};
use common::media::{MediaType, MediaTypes};
use url::Url;

/// Where Imgur is: its API, its pages and its image host. Other places stand in for it in tests and demos.
#[derive(Debug, Clone)]
pub struct ImgurSites {
    /// `IMGUR_API_URL`, without a trailing slash.
    pub api: Url,
    /// `IMGUR_WEB_URL`.
    pub web: Url,
    /// `IMGUR_IMAGE_URL`.
    pub image: Url,
}

impl Default for ImgurSites {
    fn default() -> Self {
        let known = |text: &str| Url::parse(text).expect("a constant that parses");
        ImgurSites {
            api: known("https://api.imgur.com"),
            web: known("https://imgur.com"),
            image: known("https://i.imgur.com"),
        }
    }
}

/// What a link points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file: the canonical link to enqueue.
    File(String),
    /// A page of Imgur that has to be expanded to its images.
    Page(ImgurPage),
}

/// A page of Imgur.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ImgurPage {
    /// `/a/ID`: an album.
    Album(String),
    /// `/gallery/ID`, `/t/TAG/ID`, `/r/SUB/ID`: an album or a single image.
    Gallery(String),
    /// `/ID`: a single image, by its id.
    Image(String),
    /// `/user/NAME`: what a user submitted.
    User(String),
    /// `/t/TAG`: the items with a tag.
    Tag(String),
    /// `/r/SUB`: the items of a subreddit.
    Subreddit(String),
}

/// Why a text is not a link that can be enqueued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// It is no link.
    #[error(transparent)]
    NoLink(#[from] LinkError),
    /// A page of Imgur that holds no images imgq knows how to find.
    #[error("an Imgur page that is no image, album, gallery, user, tag or subreddit")]
    UnknownImgurPage,
    /// An Imgur video, and no wanted type can stand for it.
    #[error("an Imgur video, and neither gif nor mp4 is among --types")]
    UnwantedType,
}

/// Reads one link.
///
/// # Errors
/// [`TargetError`], whose text completes `source:line: …`.
pub fn classify(text: &str, sites: &ImgurSites, types: MediaTypes) -> Result<Target, TargetError> {
    let url = canonical_url(text)?;
    match imgur_path(&url, sites) {
        Some(Side::Image(path)) => Ok(match file_name(path) {
            Some(name) => classify_file(name, &url, sites, types)?,
            None => Target::File(url.into()),
        }),
        Some(Side::Web(path)) => classify_page(path, &url, sites, types),
        None => Ok(Target::File(url.into())),
    }
}

/// The canonical link of the image `id` with the file extension `extension` (without its dot).
pub(crate) fn imgur_image_link(sites: &ImgurSites, id: &str, extension: &str) -> String {
    format!("{}/{id}.{extension}", sites.image.as_str().trim_end_matches('/'))
}

enum Side<'a> {
    Image(&'a str),
    Web(&'a str),
}

/// The path below Imgur's image host or its pages, without the leading slash; `None` for other links.
fn imgur_path<'a>(url: &'a Url, sites: &ImgurSites) -> Option<Side<'a>> {
    // The image site first: it may lie below the web site's path, never the other way round.
    if let Some(path) = below(url, &sites.image) {
        return Some(Side::Image(path));
    }
    if let Some(path) = below(url, &sites.web) {
        return Some(Side::Web(path));
    }
    if url.port().is_some() {
        return None;
    }
    let path = url.path().trim_start_matches('/');
    match url.host_str()? {
        "i.imgur.com" | "i.imgur.io" => Some(Side::Image(path)),
        "imgur.com" | "www.imgur.com" | "m.imgur.com" | "imgur.io" | "www.imgur.io" | "m.imgur.io" => {
            Some(Side::Web(path))
        }
        _ => None,
    }
}

/// The rest of the path of `url` below `base`: same host and port, and the path inside base's. The scheme may differ
/// where neither names a port.
fn below<'a>(url: &'a Url, base: &Url) -> Option<&'a str> {
    if url.host_str() != base.host_str() || url.port() != base.port() {
        return None;
    }
    let rest = url.path().strip_prefix(base.path().trim_end_matches('/'))?;
    rest.strip_prefix('/')
}

/// The only segment of `path`, if it has just one.
fn file_name(path: &str) -> Option<&str> {
    let path = path.trim_end_matches('/');
    (!path.is_empty() && !path.contains('/')).then_some(path)
}

fn is_id(text: &str) -> bool {
    (5..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Ids have 5 or 7 characters; one more is a size suffix, which asks for a thumbnail of the original.
fn without_size_suffix(id: &str) -> &str {
    match id.len() {
        6 | 8 if id.ends_with(['s', 'b', 't', 'm', 'l', 'h', 'g', 'r']) => &id[..id.len() - 1],
        _ => id,
    }
}

fn classify_file(name: &str, url: &Url, sites: &ImgurSites, types: MediaTypes) -> Result<Target, TargetError> {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    if !is_id(stem) {
        return Ok(Target::File(url.as_str().to_owned()));
    }
    let id = without_size_suffix(stem);
    let extension = match extension.to_ascii_lowercase().as_str() {
        "" => return Ok(Target::Page(ImgurPage::Image(id.to_owned()))),
        // A .gifv is an HTML page around a video that also exists as a GIF.
        "gifv" if types.contains(MediaType::Gif) => "gif",
        "gifv" if types.contains(MediaType::Mp4) => "mp4",
        "gifv" => return Err(TargetError::UnwantedType),
        other => match MediaType::from_extension(other) {
            Some(known) => known.extension(),
            None => return Ok(Target::File(url.as_str().to_owned())),
        },
    };
    Ok(Target::File(imgur_image_link(sites, id, extension)))
}

fn classify_page(path: &str, url: &Url, sites: &ImgurSites, types: MediaTypes) -> Result<Target, TargetError> {
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    // `/a/title-words-ID` and `/gallery/title-words-ID`: the id is behind the last dash.
    let id_of = |slug: &str| {
        let id = slug.rsplit('-').next().unwrap_or(slug);
        is_id(id).then(|| id.to_owned()).ok_or(TargetError::UnknownImgurPage)
    };
    let page = match segments.as_slice() {
        [name] if name.contains('.') => return classify_file(name, url, sites, types),
        // A single segment is an image's page: /ID, or /title-words-ID as newer pages write it.
        [slug] => ImgurPage::Image(without_size_suffix(&id_of(slug)?).to_owned()),
        ["a", slug, ..] => ImgurPage::Album(id_of(slug)?),
        ["gallery", slug] => ImgurPage::Gallery(id_of(slug)?),
        ["t" | "topic", _, slug] | ["r", _, slug] => ImgurPage::Gallery(id_of(slug)?),
        ["user", name, ..] => ImgurPage::User((*name).to_owned()),
        ["t", tag] => ImgurPage::Tag((*tag).to_owned()),
        ["r", subreddit] => ImgurPage::Subreddit((*subreddit).to_owned()),
        _ => return Err(TargetError::UnknownImgurPage),
    };
    Ok(Target::Page(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Target, TargetError> {
        classify(text, &ImgurSites::default(), MediaTypes::default())
    }
    fn file(text: &str) -> Result<Target, TargetError> {
        Ok(Target::File(text.to_owned()))
    }

    #[test]
    fn an_imgur_image_has_one_canonical_link() {
        let canonical = "https://i.imgur.com/WS2LFCw.jpg";
        for spelling in [
            canonical,
            "http://i.imgur.com/WS2LFCw.jpg",
            "https://i.imgur.com/WS2LFCw.jpeg",
            "https://i.imgur.com/WS2LFCw.JPG?1",
            "https://i.imgur.com/WS2LFCwh.jpg",
            "https://I.IMGUR.COM/WS2LFCwt.jpg#top",
            "  https://imgur.com/WS2LFCw.jpg ",
            "https://i.imgur.io/WS2LFCw.jpg",
            "https://m.imgur.com/WS2LFCw.jpg",
        ] {
            assert_eq!(read(spelling), file(canonical), "{spelling}");
        }
        // Five characters are a whole id, and so are seven that happen to end like a suffix.
        assert_eq!(read("https://i.imgur.com/abcds.png"), file("https://i.imgur.com/abcds.png"));
        assert_eq!(read("https://i.imgur.com/abcdefs.png"), file("https://i.imgur.com/abcdefs.png"));
        assert_eq!(read("https://i.imgur.com/abcdef.png"), file("https://i.imgur.com/abcdef.png"));
    }

    #[test]
    fn a_gifv_becomes_what_is_wanted_of_it() {
        let gifv = "https://i.imgur.com/abcdefg.gifv";
        assert_eq!(read(gifv), file("https://i.imgur.com/abcdefg.gif"));
        let only = |types: &str| classify(gifv, &ImgurSites::default(), types.parse().expect("types"));
        assert_eq!(only("mp4"), file("https://i.imgur.com/abcdefg.mp4"));
        assert_eq!(only("jpeg"), Err(TargetError::UnwantedType));
    }

    #[test]
    fn pages_in_every_spelling() {
        let id = || "DytNW1A".to_owned();
        for (text, page) in [
            ("https://imgur.com/a/DytNW1A", ImgurPage::Album(id())),
            ("https://imgur.com/a/some-title-words-DytNW1A", ImgurPage::Album(id())),
            ("http://www.imgur.com/a/DytNW1A/layout/grid", ImgurPage::Album(id())),
            ("https://imgur.com/gallery/DytNW1A", ImgurPage::Gallery(id())),
            ("https://imgur.com/gallery/a-title-DytNW1A", ImgurPage::Gallery(id())),
            ("https://imgur.io/t/cats/DytNW1A", ImgurPage::Gallery(id())),
            ("https://imgur.com/r/aww/DytNW1A", ImgurPage::Gallery(id())),
            ("https://m.imgur.com/DytNW1A", ImgurPage::Image(id())),
            ("https://i.imgur.com/DytNW1A", ImgurPage::Image(id())),
            ("https://imgur.com/user/somebody", ImgurPage::User("somebody".into())),
            ("https://imgur.com/t/cats", ImgurPage::Tag("cats".into())),
            ("https://imgur.com/r/aww", ImgurPage::Subreddit("aww".into())),
        ] {
            assert_eq!(read(text), Ok(Target::Page(page)), "{text}");
        }
        for text in ["https://imgur.com/", "https://imgur.com/upload/a/b/c", "https://imgur.com/ab"] {
            assert_eq!(read(text), Err(TargetError::UnknownImgurPage), "{text}");
        }
    }

    #[test]
    fn sites_are_known_by_host_and_path() {
        let at = |path: &str| Url::parse(&format!("http://127.0.0.1:8000/{path}")).expect("parses");
        let sites = ImgurSites { api: at(""), web: at("web"), image: at("i") };
        let read = |text: &str| classify(text, &sites, MediaTypes::default());
        let canonical = "http://127.0.0.1:8000/i/WS2LFCw.jpg";
        assert_eq!(read("http://127.0.0.1:8000/i/WS2LFCwm.jpeg?2"), file(canonical));
        assert_eq!(read("https://i.imgur.com/WS2LFCw.jpg"), file(canonical));
        assert_eq!(read("http://127.0.0.1:8000/web/a/DytNW1A"), Ok(Target::Page(ImgurPage::Album("DytNW1A".into()))));
        for other in ["http://127.0.0.1:8000/ix/WS2LFCwm.jpeg", "http://127.0.0.1:8001/i/WS2LFCwm.jpeg"] {
            assert_eq!(read(other), file(other), "{other}");
        }
    }

    #[test]
    fn other_links_are_files_in_the_url_standard_s_form() {
        assert_eq!(read("HTTP://Example.COM:80/a/../b c.jpg?q=1#f"), file("http://example.com/b%20c.jpg?q=1"));
        assert_eq!(read("https://notimgur.com/a/DytNW1A"), file("https://notimgur.com/a/DytNW1A"));
        assert_eq!(read("cat.jpg"), Err(TargetError::NoLink(LinkError::NotHttp)));
    }
}
