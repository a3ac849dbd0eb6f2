//! The small parts of pages: numbers, times, links of strangers, forms.

use super::Context;
use common::report::entry_ms;
use common::text::{age, short};
use maud::{Markup, html};
use std::time::Duration;
use url::Url;

/// A link is shown up to so many characters; all of it where the mouse is.
const LINK_CHARACTERS_MAX: usize = 120;
const LINK_CHARACTERS_KNOWN: usize = 2000;

/// `12,345`.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `0`, `0.4`, `41.2`, `1,204`.
pub(super) fn rate(a_second: f64) -> String {
    match a_second {
        r if r <= 0.0 => "0".into(),
        r if r < 0.095 => format!("{r:.2}"),
        r if r < 99.95 => format!("{r:.1}"),
        r => number(r.round() as u64),
    }
}

/// How long ago something was, by the times of Redis.
pub(super) fn ago(now_ms: u64, then_ms: u64) -> String {
    match now_ms.saturating_sub(then_ms) {
        0..10_000 => "just now".to_owned(),
        ms => format!("{} ago", age(Duration::from_millis(ms))),
    }
}

/// How long ago an entry of a stream was made.
pub(super) fn entry_ago(now_ms: u64, entry: &str) -> String {
    entry_ms(entry).map_or_else(String::new, |then_ms| ago(now_ms, then_ms))
}

/// The time of the day, of ms since 1970.
pub(super) fn time_of_day(ms: u64) -> String {
    let s = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02} UTC", s / 3600, s / 60 % 60, s % 60)
}

/// A stranger's link: its text as text, and a link only to what a browser fetches as a page or picture.
pub(super) fn link(text: &str) -> Markup {
    let shown = short(text, LINK_CHARACTERS_MAX);
    let all = short(text, LINK_CHARACTERS_KNOWN);
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    match url {
        Some(url) => html! {
            a.url href=(url.as_str()) rel="noreferrer noopener nofollow" target="_blank" title=(all) { (shown) }
        },
        None => html! { span.url title=(all) { (shown) } },
    }
}

/// A form of one button. Its token says that it is one of ours.
pub(super) fn button(
    context: &Context,
    path: &str,
    fields: &[(&str, &str)],
    look: &str,
    words: &str,
    label: &str,
) -> Markup {
    html! {
        form method="post" action=(path) {
            input type="hidden" name="form_token" value=(context.form_token);
            @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
            button.(look) type="submit" aria-label=[(!label.is_empty()).then_some(label)] { (words) }
        }
    }
}

/// The colour of an outcome, with its word.
pub(super) fn badge(outcome: &str, reason: &str) -> Markup {
    let look = match outcome {
        "stored" => "good",
        "rejected" => "warn",
        "failed" => "bad",
        _ => "plain",
    };
    let words = if reason.is_empty() { outcome } else { reason };
    html! { span.badge.(look) { (short(words, 40)) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_read_well() {
        assert_eq!((number(0), number(999), number(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
        assert_eq!(
            (rate(0.0), rate(0.04), rate(41.23), rate(1204.4)),
            ("0".into(), "0.04".into(), "41.2".into(), "1,204".into())
        );
        let ago = [4000, 47_000, 7_200_000].map(|ms| ago(1_000_000_000, 1_000_000_000 - ms));
        assert_eq!(ago, ["just now", "40s ago", "2h ago"]);
        assert_eq!((entry_ago(90_000, "20000-3"), entry_ago(90_000, "x")), ("1m ago".into(), String::new()));
        assert_eq!(time_of_day(1_700_000_000_000), "22:13:20 UTC");
    }

    #[test]
    fn what_strangers_wrote_is_text() {
        for hostile in [
            "https://x.org/<script>alert(1)</script>",
            "https://x.org/\"><img src=x onerror=alert(1)>",
            "javascript:alert(1)",
            "data:text/html,<script>alert(1)</script>",
            "\u{1b}]0;owned\u{7}\u{202e}gpj.x",
        ] {
            let shown = link(hostile).into_string();
            assert!(!shown.contains("<script") && !shown.contains("<img"), "{shown}");
            assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown}");
            assert_eq!(shown.contains("href"), hostile.starts_with("http"), "{shown}");
            assert!(!shown.contains("href=\"javascript") && !shown.contains("href=\"data"), "{shown}");
        }
        assert!(badge("failed", "<b>").into_string().contains("&lt;b&gt;"));
    }
}
