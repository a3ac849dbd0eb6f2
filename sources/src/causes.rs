//! What the HTTP client's errors come down to, in the user's words.

use std::error::Error;

/// What caused an error, in one line. The client's own words are "error sending request", and have a URL with them, in which there may
/// be a password; the reason comes in the causes only.
pub(crate) fn with_causes(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "it takes too long".to_owned() } else { String::new() };
    let mut cause = error.source();
    while let Some(below) = cause {
        let words = below.to_string();
        // Some repeat what is below them.
        if !text.contains(&words) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&words);
        }
        cause = below.source();
    }
    if text.is_empty() { "no answer that can be read".to_owned() } else { text }
}
