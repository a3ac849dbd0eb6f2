//! What pages are made of beside themselves: one style, one script, one icon, all of them in the binary.
//!
//! Their addresses change with their content, so that browsers may keep them for ever.

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::header;
use axum::response::IntoResponse;
use std::sync::LazyLock;

const CSS: &str = include_str!("../assets/app.css");
const JS: &str = include_str!("../assets/app.js");
const ICON: &str = include_str!("../assets/icon.svg");

/// Where the style is.
pub(super) static CSS_PATH: LazyLock<String> = LazyLock::new(|| versioned("/app.css", CSS));
/// Where the script is.
pub(super) static JS_PATH: LazyLock<String> = LazyLock::new(|| versioned("/app.js", JS));
/// Where the icon is.
pub(super) static ICON_PATH: LazyLock<String> = LazyLock::new(|| versioned("/icon.svg", ICON));

fn versioned(path: &str, content: &str) -> String {
    format!("{path}?v={}", hex::encode(&digest(&SHA256, content.as_bytes()).as_ref()[..6]))
}

/// Whether a path is one of these. They are for everybody: the login page needs them.
pub(super) fn is_one(path: &str) -> bool {
    matches!(path, "/app.css" | "/app.js" | "/icon.svg")
}

fn answer(media_type: &'static str, content: &'static str) -> impl IntoResponse {
    let kept = "public, max-age=31536000, immutable";
    ([(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, kept)], content)
}

pub(super) async fn css() -> impl IntoResponse {
    answer("text/css; charset=utf-8", CSS)
}

pub(super) async fn js() -> impl IntoResponse {
    answer("text/javascript; charset=utf-8", JS)
}

pub(super) async fn icon() -> impl IntoResponse {
    answer("image/svg+xml", ICON)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// The colours that a block of the style names.
    fn palette(block: &str) -> HashMap<&str, [f64; 3]> {
        let colours = block.lines().filter_map(|line| line.trim().strip_prefix("--")?.split_once(": #"));
        let channel = |hex: &str, at: usize| f64::from(u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")) / 255.0;
        colours.map(|(name, hex)| (name, [0, 2, 4].map(|at| channel(hex, at)))).collect()
    }

    /// <https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio>
    fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
        let linear = |c: f64| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
        let luminance = |[r, g, b]: [f64; 3]| 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn every_colour_can_be_read() {
        let light =
            palette(CSS.split(":root {").nth(1).and_then(|css| css.split('}').next()).expect("the light palette"));
        let dark = CSS.split("prefers-color-scheme: dark").nth(1).and_then(|css| css.split('}').next());
        let dark = palette(dark.expect("the dark palette"));
        assert_eq!(light.len(), dark.len());
        for (scheme, colours) in [("light", light), ("dark", dark)] {
            let ratio = |one: &str, other: &str| contrast(colours[one], colours[other]);
            for ground in ["ground", "card", "inset"] {
                for text in ["text", "muted", "link", "good-text", "warn-text", "bad-text"] {
                    assert!(ratio(text, ground) >= 4.5, "{scheme}: {text} on {ground}: {:.2}", ratio(text, ground));
                }
            }
            for (text, ground) in [
                ("on-accent", "accent"),
                ("bad-text", "bad-ground"),
                ("warn-text", "warn-ground"),
                ("good-text", "good-ground"),
            ] {
                assert!(ratio(text, ground) >= 4.5, "{scheme}: {text} on {ground}: {:.2}", ratio(text, ground));
            }
            // Of controls, focus, and what a chart shows.
            for mark in ["focus", "control", "stored", "rejected", "failed", "ready", "delayed"] {
                assert!(ratio(mark, "card") >= 3.0, "{scheme}: {mark} on card: {:.2}", ratio(mark, "card"));
            }
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        for content in [CSS, JS, ICON] {
            let elsewhere = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("//") || !elsewhere.contains("http"), "an address");
            assert!(!content.contains("@import") && !content.contains("url("), "something else to load");
        }
        assert!(CSS_PATH.starts_with("/app.css?v=") && CSS_PATH.len() == 23);
    }
}
