//! Links as people and strangers write them: a canonical form is its own canonical form, and nothing panics.

#![no_main]

use common::link::{canonical_url, for_logs, without_userinfo};
use common::media::{MediaType, MediaTypes};
use libfuzzer_sys::fuzz_target;
use sources::{ImgurSites, Target, classify};
use std::sync::LazyLock;
use url::Url;

/// Imgur's own, and those that stand in for it below paths of one host.
static SITES: LazyLock<[ImgurSites; 2]> = LazyLock::new(|| {
    let at = |path: &str| Url::parse(&format!("http://127.0.0.1:8000/{path}")).expect("a constant that parses");
    [ImgurSites::default(), ImgurSites { api: at(""), web: at("web"), image: at("web/i") }]
});

fuzz_target!(|text: &str| {
    let _ = for_logs(text);
    let _ = without_userinfo(text);
    if let Ok(url) = canonical_url(text) {
        assert_eq!(canonical_url(url.as_str()).as_ref(), Ok(&url));
        assert_eq!(url.fragment(), None);
        // What is shown of a link has all of it but the user's name and password.
        if url.username().is_empty() && url.password().is_none() {
            assert_eq!(without_userinfo(url.as_str()), url.as_str());
        }
    }
    for sites in &*SITES {
        for types in [MediaTypes::default(), MediaTypes::from_iter([MediaType::Jpeg, MediaType::Mp4])] {
            if let Ok(Target::File(link)) = classify(text, sites, types) {
                assert_eq!(classify(&link, sites, types), Ok(Target::File(link)), "of {text:?}");
            }
        }
    }
});
