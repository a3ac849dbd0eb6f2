//! What a link is: its canonical form, its bounds, and how it may be shown. Pure.
//!
//! Two links are the same job when their canonical forms are equal: the URL standard's form without the fragment (which
//! is never sent). What a link to Imgur means is left to the crate `sources`.

use std::borrow::Cow;
use std::fmt;
use url::Url;

/// The longest link, in bytes, as it is written and in its canonical form: twice what the widest-used servers take (nginx and
/// Apache answer 414 beyond 8 KiB).
pub const URL_BYTES_MAX: usize = 16 << 10;
/// The longest name of a host, in bytes (RFC 1035, section 2.3.4), without the dot that may end it.
pub const HOST_BYTES_MAX: usize = 253;
/// The longest user name and password, in bytes, with the colon between them.
pub const USERINFO_BYTES_MAX: usize = 4096;

/// Why a text is not a link that can be enqueued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkError {
    /// Not an absolute URL with the scheme http or https.
    NotHttp,
    /// Looks like a URL, but is malformed, in the parser's words.
    Malformed(String),
    /// Longer than [`URL_BYTES_MAX`].
    TooLong,
    /// The host's name is longer than [`HOST_BYTES_MAX`].
    HostTooLong,
    /// User name and password are longer than [`USERINFO_BYTES_MAX`].
    UserinfoTooLong,
}

impl std::error::Error for LinkError {}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::NotHttp => f.write_str("not an http(s) URL"),
            LinkError::Malformed(why) => write!(f, "not a well-formed URL ({why})"),
            LinkError::TooLong => write!(f, "longer than {} KiB", URL_BYTES_MAX >> 10),
            LinkError::HostTooLong => write!(f, "its host's name is longer than {HOST_BYTES_MAX} bytes"),
            LinkError::UserinfoTooLong => {
                write!(f, "its user name and password are longer than {} KiB", USERINFO_BYTES_MAX >> 10)
            }
        }
    }
}

/// The URL standard's form of `text`, without fragment. Bounded: what a stranger writes here goes into keys and fields of Redis,
/// and through its scripts.
///
/// # Errors
/// [`LinkError::NotHttp`], [`LinkError::Malformed`], or what is too long.
pub fn canonical_url(text: &str) -> Result<Url, LinkError> {
    let text = text.trim();
    // Before anything looks at it: parsing costs time by its length.
    if text.len() > URL_BYTES_MAX {
        return Err(LinkError::TooLong);
    }
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(LinkError::NotHttp);
    }
    // The standard reads "http:a/b" and "http:/a" as "http://a/…"; in a list of links those are mistakes.
    if !text[scheme.len()..].starts_with("://") {
        return Err(LinkError::Malformed("no // after the scheme".into()));
    }
    let mut url = Url::parse(text).map_err(|error| LinkError::Malformed(error.to_string()))?;
    url.set_fragment(None);
    in_bounds(&url)?;
    Ok(url)
}

/// Whether a link that was parsed is short enough, as a whole and in its parts.
///
/// # Errors
/// [`LinkError::TooLong`], [`LinkError::HostTooLong`] or [`LinkError::UserinfoTooLong`].
pub fn in_bounds(url: &Url) -> Result<(), LinkError> {
    let host = url.host_str().unwrap_or_default();
    if host.strip_suffix('.').unwrap_or(host).len() > HOST_BYTES_MAX {
        return Err(LinkError::HostTooLong);
    }
    let userinfo_bytes = url.username().len() + url.password().map_or(0, |password| 1 + password.len());
    if userinfo_bytes > USERINFO_BYTES_MAX {
        return Err(LinkError::UserinfoTooLong);
    }
    // Percent-encoding may have made it three times as long.
    if url.as_str().len() > URL_BYTES_MAX {
        return Err(LinkError::TooLong);
    }
    Ok(())
}

/// A link as it may be shown to whoever gave it: without user name and password, whether it is well-formed or not. A user name
/// alone may be a token.
pub fn without_userinfo(link: &str) -> Cow<'_, str> {
    let Some(start) = link.find("://").map(|at| at + 3) else { return Cow::Borrowed(link) };
    // Where user information ends is only certain in a link that is well-formed.
    let end = match Url::parse(link) {
        Ok(url) if url.password().is_none() && url.username().is_empty() => return Cow::Borrowed(link),
        Ok(_) => link[start..].find(['/', '\\', '?', '#']).map_or(link.len(), |at| start + at),
        Err(_) => link.len(),
    };
    match link[start..end].rfind('@').map(|at| start + at) {
        Some(at) => Cow::Owned(format!("{}***{}", &link[..start], &link[at..])),
        None => Cow::Borrowed(link),
    }
}

/// A link as it may stand in logs: without user information, and without its query, where signatures and tokens stand. The id
/// of its job beside it finds the rest.
pub fn for_logs(link: &str) -> String {
    let shown = without_userinfo(link);
    match shown.split_once(['?', '#']) {
        Some((before, _)) => format!("{before}?***"),
        None => shown.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_a_link_are_never_shown() {
        for (link, shown) in [
            ("https://a.example/b@c:d", "https://a.example/b@c:d"),
            ("https://token@a.example/", "https://***@a.example/"),
            ("https://user:geheim@a.example/x?y=1@2", "https://***@a.example/x?y=1@2"),
            ("https://:geheim@a.example", "https://***@a.example"),
            ("https://user:ge@he:im@a.example\\x@y", "https://***@a.example\\x@y"),
            // No URL, or one whose password was not encoded.
            ("http://user:ge/heim@a.example/", "http://***@a.example/"),
            ("ftp://user:geheim@a.example:99999999/", "ftp://***@a.example:99999999/"),
            ("no link: at all", "no link: at all"),
        ] {
            assert_eq!(without_userinfo(link), shown);
        }
        assert_eq!(for_logs("https://token@a.example/x.jpg?sig=geheim#a"), "https://***@a.example/x.jpg?***");
        assert_eq!(for_logs("https://a.example/x.jpg"), "https://a.example/x.jpg");
        assert_eq!(for_logs("no link?geheim"), "no link?***");
    }

    #[test]
    fn links_get_the_url_standard_s_form() {
        let read = |text: &str| canonical_url(text).map(String::from);
        assert_eq!(read("HTTP://Example.COM:80/a/../b c.jpg?q=1#f").as_deref(), Ok("http://example.com/b%20c.jpg?q=1"));
        assert_eq!(read("https://example.com").as_deref(), Ok("https://example.com/"));
        for text in ["", "cat.jpg", "ftp://x/a.jpg", "file:///etc/passwd", "javascript:alert(1)", "//x/a.jpg"] {
            assert_eq!(read(text), Err(LinkError::NotHttp), "{text}");
        }
        for text in ["http://", "https://[::1", "http:x/a", "http://a b/", "http://x:99999/"] {
            assert!(matches!(read(text), Err(LinkError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn what_is_too_long_says_so() {
        let path = |bytes: usize| format!("https://x.org/{}", "a".repeat(bytes - "https://x.org/".len()));
        let host = |bytes: usize| format!("https://{}/", "a".repeat(bytes));
        let user = |bytes: usize| format!("https://{}@x.org/", "a".repeat(bytes));
        let both = |bytes: usize| format!("https://{}:b@x.org/", "a".repeat(bytes - 2));
        for longest in [path(URL_BYTES_MAX), host(253), user(USERINFO_BYTES_MAX), both(USERINFO_BYTES_MAX)] {
            assert!(canonical_url(&longest).is_ok(), "{} bytes", longest.len());
        }
        assert!(
            canonical_url(&format!("https://{}./", "a".repeat(253))).is_ok(),
            "the root's dot is no part of the name"
        );
        for (text, why) in [
            (path(URL_BYTES_MAX + 1), LinkError::TooLong),
            // As it is written, and in its canonical form.
            (path(URL_BYTES_MAX) + "#a", LinkError::TooLong),
            (format!("https://x.org/{}", "é".repeat(URL_BYTES_MAX / 4)), LinkError::TooLong),
            (host(254), LinkError::HostTooLong),
            (user(USERINFO_BYTES_MAX + 1), LinkError::UserinfoTooLong),
            (both(USERINFO_BYTES_MAX + 1), LinkError::UserinfoTooLong),
        ] {
            assert_eq!(canonical_url(&text), Err(why), "{} bytes", text.len());
        }
    }
}
