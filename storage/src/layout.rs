//! Which key an object gets: a name that is safe on every file system, and distinct for distinct URLs. Pure.
//!
//! `mirror` keeps host and path as in the URL wherever that is a safe name. Whenever the key is not exactly the URL's
//! host and path (a query, an odd character, a missing or wrong extension, …), the name carries `~` and 16 hex digits of
//! the URL's SHA-256 before its extension, and a URL whose own name looks like that is not kept as it is either. So two
//! URLs never meet in one key, and nobody has to look at the storage to name an object.
//!
//! On a storage to which `A.jpg` and `a.jpg` are one file only lower-case names are kept as they are. Digests are lower case.

use clap::ValueEnum;
use common::media::{MediaType, MediaTypes};
use sha2::{Digest, Sha256};
use url::{Host, Url};

/// How keys are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// Host and path as in the URL, made safe.
    Mirror,
    /// Two levels of folders and the SHA-256 of the URL, for millions.
    Hash,
}

/// What a storage makes of two names that differ in the case of their letters only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Two files.
    Sensitive,
    /// One file: vfat, exFAT, NTFS, APFS, SMB.
    Folded,
}

/// The longest name of one folder or file: 255 bytes is the limit nearly everywhere, and some room is left.
const NAME_BYTES_MAX: usize = 200;
/// The longest key that is kept as in the URL; some systems end at 1,024 bytes for a whole path.
const KEY_BYTES_MAX: usize = 700;

impl Layout {
    /// The key of the object at `url` whose content is of `media_type`, on a storage that treats `case` so.
    pub fn key(self, url: &Url, media_type: MediaType, case: Case) -> String {
        match self {
            Layout::Hash => hash_key(url, media_type),
            Layout::Mirror => mirror_as_is(url, case)
                .filter(|(_, promised)| *promised == media_type)
                .map_or_else(|| mirror_marked(url, media_type), |(key, _)| key),
        }
    }

    /// The type that a URL promises by its extension, if what is of that type gets a key that shows it, whatever the storage.
    pub fn promised(self, url: &Url) -> Option<MediaType> {
        match self {
            Layout::Hash => extension_type(url.path().rsplit('/').next()?),
            Layout::Mirror => mirror_as_is(url, Case::Sensitive).map(|(_, promised)| promised),
        }
    }

    /// Every key that an object at `url` may have got, the likeliest first.
    pub fn candidates(self, url: &Url, types: MediaTypes, case: Case) -> Vec<String> {
        let as_is = if self == Layout::Mirror { mirror_as_is(url, case) } else { None };
        // All others differ in their extension only: the digest is made once.
        let first = types.iter().next().map(|media_type| match self {
            Layout::Hash => hash_key(url, media_type),
            Layout::Mirror => mirror_marked(url, media_type),
        });
        let stem = first.as_deref().and_then(|key| key.rsplit_once('.')).map_or("", |(stem, _)| stem);
        let promised = as_is.as_ref().map(|(_, promised)| *promised);
        let others = types.iter().filter(|media_type| Some(*media_type) != promised);
        let others = others.map(|media_type| format!("{stem}.{}", media_type.extension()));
        let as_is = as_is.into_iter().filter(|(_, promised)| types.contains(*promised)).map(|(key, _)| key);
        as_is.chain(others).collect()
    }
}

fn digest(url: &Url) -> String {
    hex::encode(Sha256::digest(url.as_str().as_bytes()))
}

fn hash_key(url: &Url, media_type: MediaType) -> String {
    let digest = digest(url);
    format!("{}/{}/{digest}.{}", &digest[..2], &digest[2..4], media_type.extension())
}

/// The folder for a URL's scheme, host and port. https on its usual port is the host alone; anything else is marked with
/// an `@`, which no host name can contain.
fn authority(url: &Url) -> String {
    let host = match url.host() {
        // Some systems drop a dot at the end.
        Some(Host::Domain(name)) => name.strip_suffix('.').map_or_else(|| name.to_owned(), |name| format!("{name}@")),
        // As the URL has it, in its one spelling: to format it anew was 1 % of the CPU of small images.
        Some(Host::Ipv4(_)) => url.host_str().unwrap_or_default().to_owned(),
        Some(Host::Ipv6(address)) => format!("[{address}]").replace(':', "-"),
        None => String::new(),
    };
    let is_safe = host.bytes().all(is_plain) && host.len() <= NAME_BYTES_MAX && !host.starts_with(['.', '-']);
    let host = match is_safe {
        true if is_device_name(&host) => format!("@{host}"),
        true => host,
        false => format!("@{}", &digest(url)[..16]),
    };
    match (url.scheme(), url.port_or_known_default()) {
        ("https", Some(443)) | (_, None) => host,
        ("https", Some(port)) => format!("{host}@{port}s"),
        (_, Some(port)) => format!("{host}@{port}"),
    }
}

/// The key that is the URL's own host and path, and the type that its extension promises; `None` when that is no safe or
/// no distinct name.
fn mirror_as_is(url: &Url, case: Case) -> Option<(String, MediaType)> {
    // A user's name is part of what is asked for, but not of a file's name.
    if url.query().is_some() || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    // vfat finds a file also by its short name, which looks like `holida~1.jpg`.
    if case == Case::Folded && url.path().bytes().any(|b| b.is_ascii_uppercase() || b == b'~') {
        return None;
    }
    let segments: Vec<&str> = url.path().strip_prefix('/')?.split('/').collect();
    let (name, folders) = segments.split_last()?;
    // A folder that is named like a stored file may have to be both.
    let is_folder = |name: &&str| is_safe_name(name) && extension_type(name).is_none();
    if !is_safe_name(name) || !folders.iter().all(is_folder) || segments.len() > 20 {
        return None;
    }
    let key = format!("{}{}", authority(url), url.path());
    (key.len() <= KEY_BYTES_MAX).then_some((key, extension_type(name)?))
}

/// The key with a mark: directly below the host, the last part of the path as far as it is harmless, and the digest.
fn mirror_marked(url: &Url, media_type: MediaType) -> String {
    let last = url.path().rsplit('/').find(|segment| !segment.is_empty()).unwrap_or_default();
    let stem = match last.rsplit_once('.') {
        Some((stem, extension)) if MediaType::from_extension(extension).is_some() => stem,
        _ => last,
    };
    let stem: String = stem.bytes().filter(|b| is_plain(*b)).map(char::from).take(60).collect();
    let mut stem = stem.trim_start_matches('.');
    if is_device_name(stem) {
        // Up to the first dot it is a device; up to the mark it is none.
        stem = stem.split('.').next().unwrap_or_default();
    }
    format!("{}/{stem}~{}.{}", authority(url), &digest(url)[..16], media_type.extension())
}

fn extension_type(name: &str) -> Option<MediaType> {
    name.rsplit_once('.')
        .filter(|(stem, _)| !stem.is_empty())
        .and_then(|(_, extension)| MediaType::from_extension(extension))
}

/// Characters that every file system takes as they are, and no shell or terminal minds.
fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(b, b'.' | b'_' | b'-' | b'+' | b',' | b'=' | b'@' | b'%' | b'[' | b']' | b'(' | b')')
}

fn is_safe_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|b| is_plain(b) || b == b'~')
        && !name.starts_with(['.', '-'])
        && !name.ends_with('.')
        && !is_device_name(name)
        && !is_marked(name)
}

/// Names that Windows gives to devices, with any extension.
fn is_device_name(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).to_ascii_lowercase();
    matches!(stem.as_str(), "con" | "prn" | "aux" | "nul" | "conin$" | "conout$")
        || (stem.len() == 4
            && (stem.starts_with("com") || stem.starts_with("lpt"))
            && stem.as_bytes()[3].is_ascii_digit())
}

/// Whether a name looks like one that carries a digest.
fn is_marked(name: &str) -> bool {
    name.rsplit_once('~')
        .is_some_and(|(_, rest)| rest.len() >= 16 && rest.bytes().take(16).all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn key(url: &str) -> String {
        key_in(Case::Sensitive, url)
    }

    fn key_in(case: Case, url: &str) -> String {
        Layout::Mirror.key(&Url::parse(url).expect("parses"), MediaType::Jpeg, case)
    }

    #[test]
    fn ordinary_links_are_mirrored() {
        assert_eq!(key("https://i.imgur.com/WS2LFCw.jpg"), "i.imgur.com/WS2LFCw.jpg");
        assert_eq!(key("https://example.com/a/b%20c/d.JPEG"), "example.com/a/b%20c/d.JPEG");
        assert_eq!(key("http://127.0.0.1:8000/i/x.jpg"), "127.0.0.1@8000/i/x.jpg");
    }

    #[test]
    fn what_is_not_a_safe_name_is_marked() {
        for (url, beginning) in [
            ("https://x.org/photo", "x.org/photo~"),
            ("https://x.org/photo.png", "x.org/photo~"),
            ("https://x.org/photo.jpg?size=2", "x.org/photo~"),
            ("https://x.org/", "x.org/~"),
            ("https://x.org/a/", "x.org/a~"),
            ("https://x.org/CON.jpg", "x.org/CON~"),
            ("https://x.org/a.jpg/b.jpg", "x.org/b~"),
            ("https://x.org/a:b.jpg", "x.org/ab~"),
            ("https://x.org/.jpg", "x.org/"),
            ("https://x.org/..%2f..%2fetc%2fpasswd.jpg", "x.org/%2f..%2fetc%2fpasswd~"),
            ("https://x.org/a//b.jpg", "x.org/b~"),
        ] {
            let key = key(url);
            assert!(key.starts_with(beginning) && key.ends_with(".jpg") && key.contains('~'), "{url} → {key}");
        }
        let long = format!("https://x.org/{}.jpg", "a/".repeat(1500));
        assert!(key(&long).len() < 300);
    }

    #[test]
    fn where_case_is_folded_only_lower_case_names_are_mirrored() {
        let key = |url| key_in(Case::Folded, url);
        assert_eq!(key("https://x.org/a/b%20c/d.jpeg"), "x.org/a/b%20c/d.jpeg");
        for (url, beginning) in [
            ("https://i.imgur.com/WS2LFCw.jpg", "i.imgur.com/WS2LFCw~"),
            ("https://x.org/a/b%2Fc.jpg", "x.org/b%2Fc~"),
            ("https://x.org/A/b.jpg", "x.org/b~"),
            ("https://x.org/a.JPG", "x.org/a~"),
            // The short name that vfat gives to holidays.jpg.
            ("https://x.org/holida~1.jpg", "x.org/holida1~"),
        ] {
            let key = key(url);
            let digest = key.strip_prefix(beginning).and_then(|rest| rest.strip_suffix(".jpg"));
            assert!(digest.is_some_and(|digest| digest.len() == 16 && !digest.contains(char::is_uppercase)), "{key}");
        }
        assert_ne!(key("https://x.org/A.jpg").to_lowercase(), key("https://x.org/a.jpg"));
        // One look is enough there as well.
        let url = Url::parse("https://i.imgur.com/WS2LFCw.jpg").expect("parses");
        assert_eq!(Layout::Mirror.promised(&url), Some(MediaType::Jpeg));
    }

    #[test]
    fn a_host_is_a_safe_name_too() {
        for (url, expected) in [
            ("https://con/a.jpg", "@con/a.jpg"),
            ("https://aux.example.com/a.jpg", "@aux.example.com/a.jpg"),
            ("http://nul:8000/a.jpg", "@nul@8000/a.jpg"),
            ("https://x.org./a.jpg", "x.org@/a.jpg"),
            ("https://x.org../a.jpg", "x.org.@/a.jpg"),
            ("https://x.org/con.a.b.jpg?c", "x.org/con~"),
        ] {
            assert!(key(url).starts_with(expected), "{url} → {}", key(url));
        }
        for url in ["https://./a.jpg", "https://../a.jpg", "https://.x.org/a.jpg", "https://-x.org/a.jpg"] {
            assert!(key(url).starts_with('@'), "{url} → {}", key(url));
        }
    }

    #[test]
    fn distinct_urls_have_distinct_keys_on_which_no_path_escapes() {
        let mut seen: HashMap<String, String> = HashMap::new();
        let marked = key("https://x.org/photo");
        let names = [
            "",
            "a",
            "a.jpg",
            "a.jpeg",
            "A.jpg",
            "a.png",
            "a.jpg.jpg",
            "a%2ejpg",
            "a.jpg.",
            "a.jpg%00",
            "~",
            "a~b.jpg",
            "..%5c..%5ca.jpg",
            "%2e%2e/a.jpg",
            "nul.jpg",
            "com1.jpg",
            "-a.jpg",
            "a b.jpg",
            "ä.jpg",
            "a;b.jpg",
            "a*.jpg",
            marked.strip_prefix("x.org/").expect("below its host"),
            "photo",
            "a/a.jpg",
            "a.jpg/a.jpg",
            "a|b.jpg",
        ];
        for origin in [
            "https://x.org",
            "http://x.org",
            "https://x.org:80",
            "http://x.org:443",
            "https://x.org.",
            "https://x.org:8443",
            "http://x.org:8443",
            "http://[::1]",
            "https://x-org",
        ] {
            for name in names {
                for query in ["", "?a", "?b"] {
                    let url = Url::parse(&format!("{origin}/{name}{query}")).expect("parses");
                    let key = Layout::Mirror.key(&url, MediaType::Jpeg, Case::Sensitive);
                    assert!(
                        !key.starts_with('/')
                            && key.split('/').all(|part| !part.is_empty() && part != "." && part != ".."),
                        "{key}"
                    );
                    assert!(key.bytes().all(|b| is_plain(b) || b == b'/' || b == b'~'), "{key}");
                    if let Some(other) = seen.insert(key.clone(), url.to_string()) {
                        assert_eq!(other, url.as_str(), "both are stored as {key}");
                    }
                    let candidates = Layout::Mirror.candidates(&url, MediaTypes::default(), Case::Sensitive);
                    assert!(candidates.contains(&key), "{key} would not be found again");
                }
            }
        }
    }

    #[test]
    fn the_hash_layout_is_the_digest_of_the_url() {
        let url = Url::parse("https://x.org/a.png").expect("parses");
        let key = Layout::Hash.key(&url, MediaType::Webp, Case::Folded);
        let digest = digest(&url);
        assert_eq!(key, format!("{}/{}/{digest}.webp", &digest[..2], &digest[2..4]));
    }
}
