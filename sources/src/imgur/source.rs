//! The `imgur:` sources: their spelling, whether they need a client id, and where the API has them. Pure.
//!
//! Asking is left to `client`, reading the answers to `answer`.

use std::fmt;
use url::Url;

/// The spellings, for messages and `--help`.
pub(crate) const KNOWN: &str = "imgur:random, imgur:hot, imgur:top[/WINDOW], imgur:user/NAME, \
    imgur:r/SUBREDDIT[/SORT[/WINDOW]], imgur:t/TAG[/SORT[/WINDOW]], imgur:search/WORDS[/SORT[/WINDOW]], imgur:a/ID";

const WINDOWS: &[&str] = &["day", "week", "month", "year", "all"];
const SUBREDDIT_SORTS: &[&str] = &["time", "top"];
const SEARCH_SORTS: &[&str] = &["time", "viral", "top"];
const TAG_SORTS: &[&str] = &["viral", "top", "time"];

/// A place in Imgur's API that lists images and albums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImgurSource {
    /// `imgur:random`: the random gallery.
    Random,
    /// `imgur:hot`: what is most viral now.
    Hot,
    /// `imgur:top/week`: the best of a window; the day's without one, as in the API.
    Top {
        /// One of day, week, month, year, all.
        window: &'static str,
    },
    /// `imgur:user/NAME`: what a user submitted.
    User(String),
    /// `imgur:r/SUB`: the items of a subreddit, the newest first unless asked otherwise.
    Subreddit {
        /// Without `r/`.
        name: String,
        /// time or top.
        sort: &'static str,
        /// As in [`ImgurSource::Top`]; the week's without one, as in the API.
        window: &'static str,
    },
    /// `imgur:t/TAG`: the items with a tag, the most viral first unless asked otherwise.
    Tag {
        /// The tag's name.
        name: String,
        /// viral, top or time.
        sort: &'static str,
        /// As in [`ImgurSource::Subreddit`].
        window: &'static str,
    },
    /// `imgur:search/WORDS`: what Imgur finds, the newest of all times first unless asked otherwise.
    Search {
        /// May hold slashes.
        words: String,
        /// time, viral or top.
        sort: &'static str,
        /// As in [`ImgurSource::Top`].
        window: &'static str,
    },
    /// `imgur:a/ID`: one album. The only source that needs no client id.
    Album(String),
}

impl ImgurSource {
    /// Reads what follows `imgur:`.
    ///
    /// # Errors
    /// Why this is no source, as the rest of a sentence.
    pub fn parse(text: &str) -> Result<ImgurSource, String> {
        let (kind, rest) = match text.split_once('/') {
            Some((kind, rest)) => (kind, Some(rest)),
            None => (text, None),
        };
        match (kind, rest) {
            ("random", None) => Ok(ImgurSource::Random),
            ("hot", None) => Ok(ImgurSource::Hot),
            ("top", None) => Ok(ImgurSource::Top { window: "day" }),
            ("top", Some(window)) => Ok(ImgurSource::Top { window: one_of("window", window, WINDOWS)? }),
            ("user", Some(name)) => Ok(ImgurSource::User(a_name(name)?)),
            ("r", Some(rest)) => {
                let (name, sort, window) = name_sort_window(rest, SUBREDDIT_SORTS)?;
                Ok(ImgurSource::Subreddit { name, sort, window })
            }
            ("t", Some(rest)) => {
                let (name, sort, window) = name_sort_window(rest, TAG_SORTS)?;
                Ok(ImgurSource::Tag { name, sort, window })
            }
            ("search", Some(rest)) if !rest.trim().is_empty() => Ok(search(rest.trim())),
            ("a", Some(slug)) => album_id(slug).map(ImgurSource::Album),
            ("random" | "hot", Some(_)) => Err(format!("imgur:{kind} takes nothing behind it")),
            ("user" | "r" | "t" | "search" | "a", _) => Err(format!("imgur:{kind}/ wants something behind it")),
            _ => Err("there is no such source".to_owned()),
        }
    }

    /// The user's submissions.
    pub(crate) fn user(name: &str) -> ImgurSource {
        ImgurSource::User(name.to_owned())
    }

    /// The subreddit's items in the order that its page on Imgur shows.
    pub(crate) fn subreddit(name: &str) -> ImgurSource {
        ImgurSource::Subreddit { name: name.to_owned(), sort: SUBREDDIT_SORTS[0], window: "week" }
    }

    /// The tag's items in the order that its page on Imgur shows.
    pub(crate) fn tag(name: &str) -> ImgurSource {
        ImgurSource::Tag { name: name.to_owned(), sort: TAG_SORTS[0], window: "week" }
    }

    /// Whether Imgur wants a client id for it.
    pub fn needs_client_id(&self) -> bool {
        !matches!(self, ImgurSource::Album(_))
    }

    /// Whether it has pages; one that has none is asked once.
    pub fn is_paged(&self) -> bool {
        !matches!(self, ImgurSource::Album(_))
    }

    /// Where the API has page `page`, counted from 0.
    pub(crate) fn page(&self, page: u32) -> ApiPath {
        let page = page.to_string();
        let gallery = |rest: &[&str]| ApiPath::new(&[&["gallery"], rest, &[&page]].concat());
        match self {
            ImgurSource::Random => gallery(&["random", "random"]),
            ImgurSource::Hot => gallery(&["hot", "viral", "day"]),
            ImgurSource::Top { window } => gallery(&["top", "top", window]),
            ImgurSource::User(name) => ApiPath::new(&["account", name, "submissions", &page]),
            ImgurSource::Subreddit { name, sort, window } => gallery(&["r", name, sort, window]),
            ImgurSource::Tag { name, sort, window } => gallery(&["t", name, sort, window]),
            ImgurSource::Search { words, sort, window } => {
                ApiPath { words: Some(words.clone()), ..gallery(&["search", sort, window]) }
            }
            ImgurSource::Album(id) => ApiPath::new(&["album", id]),
        }
    }
}

impl fmt::Display for ImgurSource {
    /// As it is written on the command line, with what was left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImgurSource::Random => f.write_str("imgur:random"),
            ImgurSource::Hot => f.write_str("imgur:hot"),
            ImgurSource::Top { window } => write!(f, "imgur:top/{window}"),
            ImgurSource::User(name) => write!(f, "imgur:user/{name}"),
            ImgurSource::Subreddit { name, sort, window } => write!(f, "imgur:r/{name}/{sort}/{window}"),
            ImgurSource::Tag { name, sort, window } => write!(f, "imgur:t/{name}/{sort}/{window}"),
            ImgurSource::Search { words, sort, window } => write!(f, "imgur:search/{words}/{sort}/{window}"),
            ImgurSource::Album(id) => write!(f, "imgur:a/{id}"),
        }
    }
}

/// A path below the API's base, and its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiPath {
    /// Behind `/3`, not yet percent-encoded.
    segments: Vec<String>,
    /// The query `q=`.
    words: Option<String>,
}

impl ApiPath {
    /// The path `/3/` and these segments.
    pub(crate) fn new(segments: &[&str]) -> ApiPath {
        ApiPath { segments: segments.iter().map(|&s| s.to_owned()).collect(), words: None }
    }

    /// The whole URL, percent-encoded, below a base that may have a path of its own.
    pub(crate) fn below(&self, base: &Url) -> Url {
        let segments = self.segments.iter().map(String::as_str);
        let mut url = join(base, std::iter::once("3").chain(segments));
        if let Some(words) = &self.words {
            url.query_pairs_mut().append_pair("q", words);
        }
        url
    }
}

/// `segments`, each percent-encoded, below a base that may have a path of its own.
pub(crate) fn join<'a>(base: &Url, segments: impl Iterator<Item = &'a str>) -> Url {
    let mut url = base.clone();
    // Only URLs without a host, such as mailto:, have no segments, and `sites_from` lets none of them pass.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// Words may hold anything, slashes too: only what ends in a sort, or in a sort and a window, says how to sort. Who searches for
/// such words writes the sort behind them.
fn search(text: &str) -> ImgurSource {
    let known = |text: &str, known: &'static [&'static str]| known.iter().copied().find(|&k| k == text);
    let (words, sort, window) = (|| {
        let (rest, last) = text.rsplit_once('/')?;
        if let Some(sort) = known(last, SEARCH_SORTS) {
            return Some((rest, sort, "all"));
        }
        let (words, sort) = rest.rsplit_once('/')?;
        Some((words, known(sort, SEARCH_SORTS)?, known(last, WINDOWS)?))
    })()
    .filter(|(words, ..)| !words.trim().is_empty())
    .unwrap_or((text, SEARCH_SORTS[0], "all"));
    ImgurSource::Search { words: words.trim().to_owned(), sort, window }
}

fn name_sort_window(
    text: &str,
    sorts: &'static [&'static str],
) -> Result<(String, &'static str, &'static str), String> {
    let mut parts = text.split('/');
    let name = a_name(parts.next().unwrap_or_default())?;
    let sort = parts.next().map_or(Ok(sorts[0]), |sort| one_of("sort", sort, sorts))?;
    let window = parts.next().map_or(Ok("week"), |window| one_of("window", window, WINDOWS))?;
    match parts.next() {
        None => Ok((name, sort, window)),
        Some(extra) => Err(format!("nothing is expected behind the window, and there is \"{extra}\"")),
    }
}

fn one_of(what: &str, text: &str, known: &'static [&'static str]) -> Result<&'static str, String> {
    let found = known.iter().find(|&&k| k == text);
    found.copied().ok_or_else(|| format!("\"{text}\" is no {what}: known are {}", known.join(", ")))
}

/// A name of a user, subreddit or tag. Dots alone would climb up the API's path: the URL standard reads them so, and
/// percent-encoding does not help, because it reads `%2e` so too.
fn a_name(text: &str) -> Result<String, String> {
    let usable = !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '\\']);
    if usable && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{}\" is no name", text.escape_debug()))
    }
}

/// An album's id, or the end of an album's link: `title-words-ID`.
fn album_id(slug: &str) -> Result<String, String> {
    let id = slug.rsplit('-').next().unwrap_or(slug);
    if (5..=8).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        Ok(id.to_owned())
    } else {
        Err(format!("\"{}\" is no album id: those have 5 to 8 letters and digits", slug.escape_debug()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url_of(source: &str, base: &str) -> String {
        let base = Url::parse(base).expect("a base");
        ImgurSource::parse(source).map(|s| s.page(2).below(&base).into()).unwrap_or_else(|why| why)
    }

    #[test]
    fn every_source_has_its_place_in_the_api() {
        for (source, path) in [
            ("random", "/3/gallery/random/random/2"),
            ("hot", "/3/gallery/hot/viral/day/2"),
            ("top", "/3/gallery/top/top/day/2"),
            ("top/week", "/3/gallery/top/top/week/2"),
            ("user/somebody", "/3/account/somebody/submissions/2"),
            ("r/aww", "/3/gallery/r/aww/time/week/2"),
            ("r/aww/top", "/3/gallery/r/aww/top/week/2"),
            ("r/aww/top/all", "/3/gallery/r/aww/top/all/2"),
            ("t/cats", "/3/gallery/t/cats/viral/week/2"),
            ("t/cats/time/month", "/3/gallery/t/cats/time/month/2"),
            ("search/grumpy cat", "/3/gallery/search/time/all/2?q=grumpy+cat"),
            ("search/cats/top", "/3/gallery/search/top/all/2?q=cats"),
            ("search/cats/viral/month", "/3/gallery/search/viral/month/2?q=cats"),
            ("search/a/b/month", "/3/gallery/search/time/all/2?q=a%2Fb%2Fmonth"),
            ("search/top", "/3/gallery/search/time/all/2?q=top"),
            ("search/on/top/time", "/3/gallery/search/time/all/2?q=on%2Ftop"),
            ("a/DytNW1A", "/3/album/DytNW1A"),
            ("a/some-title-DytNW1A", "/3/album/DytNW1A"),
        ] {
            assert_eq!(url_of(source, "https://api.imgur.com"), format!("https://api.imgur.com{path}"), "{source}");
            assert_eq!(url_of(source, "http://127.0.0.1:1/api/"), format!("http://127.0.0.1:1/api{path}"));
        }
    }

    #[test]
    fn names_and_words_are_encoded() {
        for (source, path) in [
            ("user/a b?c#d%e", "/3/account/a%20b%3Fc%23d%25e/submissions/2"),
            ("t/café", "/3/gallery/t/caf%C3%A9/viral/week/2"),
            ("search/a&b=c/d #1 +é", "/3/gallery/search/time/all/2?q=a%26b%3Dc%2Fd+%231+%2B%C3%A9"),
        ] {
            assert_eq!(url_of(source, "http://x"), format!("http://x{path}"));
        }
    }

    #[test]
    fn what_is_no_source_says_why() {
        for (source, part) in [
            ("", "no such source"),
            ("nonsense", "no such source"),
            ("gallery/DytNW1A", "no such source"),
            ("random/1", "takes nothing"),
            ("top/decade", "day, week, month, year, all"),
            ("r", "wants something"),
            ("r/", "is no name"),
            ("r/..", "is no name"),
            ("r/aww/viral", "known are time, top"),
            ("t/cats/top/all/x", "nothing is expected"),
            ("user/a/b", "is no name"),
            ("search/ ", "wants something"),
            ("a/../x", "is no album id"),
            ("a/", "is no album id"),
        ] {
            let why = ImgurSource::parse(source).expect_err(source);
            assert!(why.contains(part), "{source}: {why}");
        }
    }

    #[test]
    fn only_an_album_needs_no_client_id_and_has_no_pages() {
        for source in ["random", "hot", "top", "user/x", "r/x", "t/x", "search/x", "a/DytNW1A"] {
            let parsed = ImgurSource::parse(source).expect(source);
            assert_eq!((parsed.needs_client_id(), parsed.is_paged()), (source != "a/DytNW1A", source != "a/DytNW1A"));
        }
    }
}
