//! What holds for the keys of any URLs, to be tried with arbitrary ones: here with proptest, and by the fuzz target `names`.

use super::layout::{Case, Layout};
use common::link::canonical_url;
use common::media::{MediaType, MediaTypes};
use url::Url;

const LAYOUTS: [Layout; 2] = [Layout::Mirror, Layout::Hash];
const CASES: [Case; 2] = [Case::Sensitive, Case::Folded];

/// Panics with what does not hold of the keys of `link`, if that is a link.
pub fn check_one(link: &str) {
    let Ok(url) = canonical_url(link) else { return };
    for (layout, case, media_type) in every_way() {
        let key = layout.key(&url, media_type, case);
        assert_safe(&key, media_type);
        assert_eq!(key, layout.key(&url, media_type, case), "another time");
        let all = MediaTypes::from_iter(MediaType::ALL);
        assert!(layout.candidates(&url, all, case).contains(&key), "{url}: {key} would not be found again");
        let only = layout.candidates(&url, MediaTypes::from_iter([media_type]), case);
        assert_eq!(only, [key.as_str()], "{url}");
        if media_type == MediaType::Jpeg {
            // It is the name of another link, too.
            check_two(url.as_str(), &format!("https://{key}"));
        }
    }
}

/// Panics if two distinct links have one key, or one's is a folder of the other's; also where the storage folds case.
pub fn check_two(one: &str, other: &str) {
    let (Ok(one), Ok(other)) = (canonical_url(one), canonical_url(other)) else { return };
    if one == other {
        return;
    }
    for layout in LAYOUTS {
        for case in CASES {
            let keys_of =
                |url: &Url| MediaType::ALL.map(|media_type| as_found(layout.key(url, media_type, case), case));
            let (keys, others) = (keys_of(&one), keys_of(&other));
            for (key, other_key) in keys.iter().flat_map(|key| others.iter().map(move |other| (key, other))) {
                assert_ne!(key, other_key, "{one} and {other}");
                assert!(!is_below(key, other_key) && !is_below(other_key, key), "{key} and {other_key}");
            }
        }
    }
}

/// The same for all names of one file.
fn as_found(key: String, case: Case) -> String {
    match case {
        Case::Sensitive => key,
        Case::Folded => key.to_ascii_lowercase(),
    }
}

fn is_below(key: &str, folder: &str) -> bool {
    key.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn every_way() -> impl Iterator<Item = (Layout, Case, MediaType)> {
    let cases = LAYOUTS.into_iter().flat_map(|layout| CASES.map(|case| (layout, case)));
    cases.flat_map(|(layout, case)| MediaType::ALL.map(|media_type| (layout, case, media_type)))
}

fn assert_safe(key: &str, media_type: MediaType) {
    assert!(key.len() <= 1024, "{key} is too long");
    assert!(!key.bytes().any(|b| b.is_ascii_control() || b == b'\\' || !b.is_ascii()), "{key:?} has odd characters");
    for part in key.split('/') {
        assert!(!part.is_empty() && part.len() <= 255, "{key}: {part:?} is no name");
        // With it those that go up.
        assert!(!part.ends_with(['.', ' ']), "{key}: {part:?} has another name on Windows");
        let device = part.split('.').next().unwrap_or_default().to_ascii_uppercase();
        let is_numbered = ["COM", "LPT"].iter().any(|kind| {
            device.strip_prefix(kind).is_some_and(|n| n.len() == 1 && n.bytes().all(|b| b.is_ascii_digit()))
        });
        assert!(!is_numbered && !["CON", "PRN", "AUX", "NUL"].contains(&&*device), "{key}: {part:?} is a device");
    }
    let extension = key.rsplit_once('.').map(|(_, extension)| extension).unwrap_or_default();
    assert_eq!(MediaType::from_extension(extension), Some(media_type), "{key}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Hosts that are alike, and odd ones.
    fn host() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => Just("x.org".to_owned()),
            1 => "[xX.-]{1,4}",
            1 => prop::sample::select(vec!["con", "nul.x", "aux.", "[::1]", "1.2.3.4", "0x7f.1", "ä.x", "x.org."])
                .prop_map(str::to_owned),
            1 => "[a-z0-9.~@%-]{1,12}",
            1 => "[a-z]{190,260}",
        ]
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            6 => "[aA.~%2fF-]{0,6}(\\.(jpg|JPG|jpe|png|webp))?",
            1 => "(con|NUL|com1|lpt9|prn)(\\.[a.]{0,3})?(\\.jpg)?",
            1 => "[aA]?~[0-9a-fA-F]{16,17}(\\.jpg)?",
            1 => "\\PC{0,8}(\\.gif)?",
            1 => "[aA]{150,300}\\.jpg",
        ]
    }

    fn link() -> impl Strategy<Value = String> {
        let port = prop::sample::select(vec!["", "", "", ":80", ":443", ":8000"]);
        let user = prop::sample::select(vec!["", "", "", "a@", ":b@"]);
        let rest = prop::sample::select(vec!["", "", "", "?", "?a", "?A", "/"]);
        let scheme = prop::sample::select(vec!["http", "https", "https"]);
        (scheme, user, host(), port, prop::collection::vec(name(), 0..4), rest).prop_map(
            |(scheme, user, host, port, path, rest)| format!("{scheme}://{user}{host}{port}/{}{rest}", path.join("/")),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_key_is_safe_and_found_again(link in link()) {
            check_one(&link);
        }

        #[test]
        fn so_it_is_for_any_text(text in "https?://\\PC{0,40}") {
            check_one(&text);
        }

        #[test]
        fn links_that_are_alike_have_distinct_keys(links in prop::collection::vec(link(), 2..6)) {
            for (n, one) in links.iter().enumerate() {
                links[n + 1..].iter().for_each(|other| check_two(one, other));
                check_two(one, &one.to_lowercase());
                check_two(one, &one.to_uppercase().replacen("HTTP", "http", 1));
            }
        }
    }
}
