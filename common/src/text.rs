//! How numbers, times and strangers' text are shown to people. Pure.

use std::time::Duration;

/// `12.3 MB`.
pub fn bytes(n: u64) -> String {
    bytesize::ByteSize::b(n).display().si().to_string()
}

/// `4.2s`, `3m 5s`, `2h 10m`, `4d 3h`.
pub fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{:.1}s", d.as_secs_f64()),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// How old something is: `0s`, `40s`, `3m`, `2h`, `4d`. Rounded down to such steps that a page that is sent again when its text
/// differs is not sent every second.
pub fn age(d: Duration) -> String {
    match d.as_secs() {
        s @ 0..60 => format!("{}s", s / 10 * 10),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// `3.4 %`, `99 %`: rounded down, so that 100 % means all; and `< 0.1 %`, so that what is not nothing does not look like nothing.
pub fn percent(part: u64, whole: u64) -> String {
    match u128::from(part) * 1000 / u128::from(whole.max(1)) {
        0 if part == 0 => "0 %".to_owned(),
        0 => "< 0.1 %".to_owned(),
        tenths @ 1..100 => format!("{}.{} %", tenths / 10, tenths % 10),
        tenths => format!("{} %", tenths / 10),
    }
}

/// `1 job`, `2 jobs`.
pub fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Text from strangers, harmless on a terminal: control characters (escape sequences among them) and those that change
/// the direction of writing, with which another text is shown than is there, are shown as escapes.
pub fn harmless(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            // All that Unicode calls Bidi_Control.
            let changes_direction = matches!(
                c,
                '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            );
            let escaped = c.is_control() || changes_direction;
            let plain = (!escaped).then_some(c);
            let escape = escaped.then(|| c.escape_unicode()).into_iter().flatten();
            plain.into_iter().chain(escape)
        })
        .collect()
}

/// [`harmless`], but for the ends of lines.
pub fn harmless_lines(text: &str) -> String {
    text.split('\n').map(harmless).collect::<Vec<_>>().join("\n")
}

/// [`harmless`], and at most so many characters of it: `…` stands for the others. What is cut is the text, so that no escape is cut
/// in half.
pub fn short(text: &str, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => harmless(&text[..end]) + "…",
        None => harmless(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_read_well() {
        assert_eq!(duration(Duration::from_millis(4240)), "4.2s");
        assert_eq!(duration(Duration::from_secs(185)), "3m 5s");
        assert_eq!(duration(Duration::from_secs(7800)), "2h 10m");
        assert_eq!(duration(Duration::from_secs(4 * 86_400 + 11_000)), "4d 3h");
        let ages = [4, 47, 200, 7800, 400_000].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["0s", "40s", "3m", "2h", "4d"]);
        assert_eq!(bytes(12_300_000), "12.3 MB");
        assert_eq!(count(1, "job"), "1 job");
    }

    #[test]
    fn shares_are_not_shown_as_all_or_nothing_unless_they_are() {
        for (part, whole, text) in [
            (0, 0, "0 %"),
            (0, 7, "0 %"),
            (1, 10_000, "< 0.1 %"),
            (34, 1000, "3.4 %"),
            (29, 100, "29 %"),
            (999_999, 1_000_000, "99 %"),
            (3, 3, "100 %"),
            (u64::MAX, u64::MAX, "100 %"),
        ] {
            assert_eq!(percent(part, whole), text, "{part} of {whole}");
        }
    }

    #[test]
    fn terminal_escapes_are_shown_not_obeyed() {
        assert_eq!(harmless("a\u{1b}[31mb\u{202e}"), "a\\u{1b}[31mb\\u{202e}");
        assert_eq!(harmless("ä漢"), "ä漢");
        assert_eq!(harmless("\u{61c}\u{200e}\u{2066}"), "\\u{61c}\\u{200e}\\u{2066}");
        assert_eq!(harmless_lines("a\n\u{7}b"), "a\n\\u{7}b");
        assert_eq!(
            (short("äöü", 3), short("äöü", 2), short("\u{1b}ab", 1)),
            ("äöü".into(), "äö…".into(), "\\u{1b}…".into())
        );
    }
}
