//! How numbers, times and strangers' text are shown to people. Pure.

use std::time::Duration;

/// `12.3 MB`.
pub fn bytes(n: u64) -> String {
    bytesize::ByteSize::b(n).display().si().to_string()
}

/// `4.2s`, `3m 5s`, `2h 10m`.
pub fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{:.1}s", d.as_secs_f64()),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        _ => format!("{}h {}m", s / 3600, s % 3600 / 60),
    }
}

/// `1 job`, `2 jobs`.
pub fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Text from strangers, harmless on a terminal: control characters (escape sequences among them) and those that change
/// the direction of writing are shown as escapes.
pub fn harmless(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let changes_direction =
                matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_read_well() {
        assert_eq!(duration(Duration::from_millis(4240)), "4.2s");
        assert_eq!(duration(Duration::from_secs(185)), "3m 5s");
        assert_eq!(duration(Duration::from_secs(7800)), "2h 10m");
        assert_eq!(bytes(12_300_000), "12.3 MB");
        assert_eq!(count(1, "job"), "1 job");
    }

    #[test]
    fn terminal_escapes_are_shown_not_obeyed() {
        assert_eq!(harmless("a\u{1b}[31mb\u{202e}"), "a\\u{1b}[31mb\\u{202e}");
        assert_eq!(harmless("ä漢"), "ä漢");
        assert_eq!(harmless_lines("a\n\u{7}b"), "a\n\\u{7}b");
    }
}
