//! Colours, and where they stand: on terminals that want them. Whoever prints decides that (anstream); here they are only put
//! around text.

use anstyle::{AnsiColor, Style};

/// What went wrong.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What did not go as wished.
pub(crate) const POOR: Style = AnsiColor::Yellow.on_default();
/// What went well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// What to do next.
pub(crate) const HINT: Style = AnsiColor::Cyan.on_default();
/// Heads of tables and names.
pub(crate) const HEAD: Style = Style::new().bold();

/// Text in a style. Pad it before: the marks count as letters.
pub(crate) fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// How an outcome of the results stream looks.
pub(crate) fn of_outcome(outcome: &str) -> Style {
    match outcome {
        "stored" => GOOD,
        "rejected" => POOR,
        "failed" => BAD,
        _ => Style::new(),
    }
}
