//! `X-Robots-Tag`: whether a host asks that an image be not used the way imgq's users do. Pure.
//!
//! The header's grammar is Google's (there is no RFC): directives with commas between them, perhaps after the name of the
//! robot that they are for. The convention that `noai` and `noimageai` mean downloaders of images is DeviantArt's, and the
//! list of directives that count is img2dataset's, with `none` added, which is short for `noindex, nofollow`.

/// What a host says where it does not want the image to be taken. `nofollow`, `noarchive`, `nosnippet` and the like are about
/// links and result pages, and do not count.
const REFUSALS: [&str; 5] = ["noai", "noimageai", "noindex", "noimageindex", "none"];
/// Directives that have a value after a colon, which would otherwise look like the name of a robot.
const WITH_VALUE: [&str; 4] = ["unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"];
/// The name that hosts may address whatever `--user-agent` says.
const NAME: &str = "imgq";

/// The names that this worker answers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Robots {
    /// The first word of the user agent, which is what hosts see in their logs; in lower case.
    product: String,
}

impl Robots {
    pub(crate) fn new(user_agent: &str) -> Robots {
        let product = user_agent.split(['/', ' ']).next().unwrap_or_default();
        Robots { product: product.to_ascii_lowercase() }
    }

    /// Whether one header's value refuses this worker. A header that comes several times is asked about several times.
    ///
    /// A name holds for what follows it in the same value, until the next name.
    pub(crate) fn are_refused_by(&self, value: &[u8]) -> bool {
        let value = String::from_utf8_lossy(value).to_ascii_lowercase();
        let mut for_us = true;
        for part in value.split(',') {
            let directive = match part.split_once(':') {
                Some((name, _)) if WITH_VALUE.contains(&name.trim()) => continue,
                // The rest of a date.
                Some((name, _)) if name.trim().contains(char::is_whitespace) => continue,
                Some((name, directive)) => {
                    let name = name.trim();
                    for_us = name == NAME || name == self.product || name == "*";
                    directive
                }
                None => part,
            };
            if for_us && REFUSALS.contains(&directive.trim()) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_what_is_said_to_everybody_or_to_us() {
        let robots = Robots::new("imgq/0.1.0 (image downloader)");
        for (value, refused) in [
            ("noai", true),
            ("noimageai", true),
            ("noindex", true),
            ("noimageindex", true),
            ("none", true),
            ("NoAI", true),
            ("  noai  ", true),
            ("nofollow, noai", true),
            ("noai,noimageai", true),
            ("nofollow", false),
            ("noarchive, nosnippet, notranslate", false),
            ("all", false),
            ("index, follow", false),
            ("", false),
            (",,:,", false),
            ("noaix", false),
            ("no ai", false),
            // For one robot.
            ("imgq: noai", true),
            ("IMGQ : NOINDEX", true),
            ("googlebot: noindex", false),
            ("googlebot: noindex, noai", false),
            ("googlebot: nofollow, imgq: noai", true),
            ("imgq: nofollow, googlebot: noindex", false),
            ("noindex, googlebot: all", true),
            ("*: noai", true),
            ("imgqbot: noai", false),
            // A value is no name.
            ("max-snippet: 20, noai", true),
            ("max-image-preview:large", false),
            ("googlebot: max-snippet: 20, noai", false),
            ("unavailable_after: 25 Jun 2010 15:00:00 PST", false),
            ("unavailable_after: Friday, 25-Jun-10 15:00:00 GMT, noindex", true),
        ] {
            assert_eq!(robots.are_refused_by(value.as_bytes()), refused, "{value:?}");
        }
        assert!(robots.are_refused_by(b"\xff\xfe, noai"), "what is no UTF-8 is read as far as it goes");
    }

    #[test]
    fn a_worker_answers_to_the_name_it_gives_too() {
        let robots = Robots::new("MyBot/2.0 (+https://example.com)");
        for (value, refused) in [("mybot: noai", true), ("imgq: noai", true), ("otherbot: noai", false)] {
            assert_eq!(robots.are_refused_by(value.as_bytes()), refused, "{value:?}");
        }
    }
}
