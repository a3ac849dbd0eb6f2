//! A screen that is drawn again and again: the terminal's second one, so that what was there before is there afterwards.

use std::io::{self, IsTerminal, Write};

/// The second screen without cursor, and lines cut where the screen ends.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// The terminal's second screen, until this is dropped.
#[derive(Debug)]
pub(crate) struct Screen(());

impl Screen {
    /// The screen, where standard output is a terminal that can do that.
    pub(crate) fn enter() -> Option<Screen> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if is_dumb || !io::stdout().is_terminal() {
            return None;
        }
        io::stdout().write_all(ENTER.as_bytes()).ok()?;
        Some(Screen(()))
    }

    /// Draws the text over what was there, in one write, so that no half of it is ever shown. What does not fit is left out, with
    /// a word that there is more.
    ///
    /// # Errors
    /// Those of the terminal.
    pub(crate) fn draw(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout();
        // Terminals that do not know their size say 0.
        let size = rustix::termios::tcgetwinsize(&out).ok().filter(|size| size.ws_row > 0);
        let rows = size.map_or(24, |size| size.ws_row);
        let coloured = anstream::AutoStream::choice(&out) != anstream::ColorChoice::Never;
        let text = if coloured { text.to_owned() } else { anstream::adapter::strip_str(text).to_string() };
        out.write_all(frame(&text, usize::from(rows).max(2)).as_bytes())?;
        out.flush()
    }
}

/// From the first corner on, each line up to its end and the rest of the screen empty.
fn frame(text: &str, rows: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut frame = String::from("\x1b[H");
    let fits = lines.len() <= rows;
    let shown = if fits { lines.len() } else { rows - 1 };
    for (number, line) in lines[..shown].iter().enumerate() {
        frame.push_str(if number == 0 { "" } else { "\r\n" });
        frame.push_str(line);
        frame.push_str("\x1b[K");
    }
    if !fits {
        frame.push_str(&format!("\r\n… {} more lines\x1b[K", lines.len() - shown));
    }
    frame.push_str("\x1b[J");
    frame
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout();
        // The terminal may be gone.
        let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_never_scrolls() {
        assert_eq!(frame("a\nb", 2), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
        assert_eq!(frame("a\nb\nc", 2), "\x1b[Ha\x1b[K\r\n… 2 more lines\x1b[K\x1b[J");
        assert_eq!(frame("", 2), "\x1b[H\x1b[J");
    }
}
