//! What a host is to politeness, and the rate that it may be asked at. Pure.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;
use url::{Position, Url};

/// The host that `url` is asked from: its name or address, with the port where that is not the scheme's usual one. The
/// unit that robots.txt speaks for as well (RFC 9309, section 2.3). `hosts/link.lua` of the queue takes it out of payloads, see
/// [`is_plain`].
pub fn host_of(url: &Url) -> Cow<'_, str> {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => Cow::Owned(format!("{host}:{port}")),
        None => Cow::Borrowed(host),
    }
}

/// Whether the scripts find the host of `link`, of which `canonical` is the canonical form: they read no URLs, but look for what
/// stands between `://` and the path.
pub fn is_plain(link: &str, canonical: &Url) -> bool {
    let begins = &canonical[..Position::BeforePath];
    let Some((beginning, rest)) = link.split_at_checked(begins.len()) else { return false };
    beginning.eq_ignore_ascii_case(begins) && (rest.is_empty() || rest.starts_with(['/', '?', '#']))
}

/// How many requests one host may get from the whole fleet in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostRate {
    interval: Duration,
}

impl HostRate {
    /// From the start of one request to that of the next.
    pub fn interval(self) -> Duration {
        self.interval
    }
}

impl FromStr for HostRate {
    type Err = String;
    /// Reads `40/s`, `0.5/s`, `90/m` or `1000/h`.
    fn from_str(text: &str) -> Result<HostRate, String> {
        let wrong = || format!("\"{text}\" is not a rate: write 40/s, 90/m or 1000/h");
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let count: f64 = count.trim().parse().map_err(|_| wrong())?;
        let seconds = match unit.trim() {
            "s" | "sec" | "second" => 1.0,
            "m" | "min" | "minute" => 60.0,
            "h" | "hour" => 3600.0,
            _ => return Err(wrong()),
        };
        let interval = seconds / count;
        // Below that, Redis' clock (µs) could not tell two starts apart; above, a job would wait for longer than a day.
        if !(0.000_01..=86_400.0).contains(&interval) {
            return Err(format!("\"{text}\" is out of bounds: a rate is between 1 a day and 100000/s"));
        }
        Ok(HostRate { interval: Duration::from_secs_f64(interval) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_and_an_unusual_port() {
        for (url, host) in [
            ("https://I.imgur.com/a.jpg", "i.imgur.com"),
            ("https://user:secret@x.org:443/a", "x.org"),
            ("http://x.org:443/a", "x.org:443"),
            ("http://127.0.0.1:8000/", "127.0.0.1:8000"),
            ("http://[::1]:8000/", "[::1]:8000"),
        ] {
            assert_eq!(host_of(&Url::parse(url).expect("parses")), host, "{url}");
        }
    }

    #[test]
    fn a_plain_link_begins_like_its_canonical_form() {
        for (link, expected) in [
            ("http://x.org/a.jpg", true),
            ("HTTP://X.org?a", true),
            ("https://me:and@x.org:8443#a", true),
            ("http://x.org", true),
            ("http://x.org/a/../b c", true),
            (" http://x.org/", false),
            ("http:///x.org/", false),
            ("http://x.org:80/", false),
            ("http://x.o\trg/", false),
            ("http://%78.org/", false),
            ("http://b\u{fc}cher.example/", false),
            ("http://127.1/", false),
            ("http://x.org\\a", false),
        ] {
            let canonical = crate::link::canonical_url(link).expect("a link");
            assert_eq!(is_plain(link, &canonical), expected, "{link}");
            assert!(is_plain(canonical.as_str(), &canonical), "{link}");
        }
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<HostRate>().map(|rate| rate.interval().as_micros());
        assert_eq!(read("40/s"), Ok(25_000));
        assert_eq!(read("0.5/s"), Ok(2_000_000));
        assert_eq!(read("90/m"), Ok(666_666));
        assert_eq!(read("1000/h"), Ok(3_600_000));
        for bad in ["", "40", "40/", "/s", "0/s", "-1/s", "nan/s", "inf/s", "40/day", "1e9/s"] {
            assert!(read(bad).is_err_and(|why| why.contains(bad)), "{bad}");
        }
    }
}
