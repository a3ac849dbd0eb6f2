//! Why a list cannot be read, or not to its end.

use std::io;

/// Ends the reading of a list. What was read before stays good.
#[derive(Debug)]
pub(crate) struct ListError {
    /// Completes `cannot read urls.csv: `.
    pub(crate) why: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl ListError {
    pub(super) fn new(why: impl Into<String>) -> ListError {
        ListError { why: why.into(), hint: None }
    }

    pub(super) fn with_hint(why: impl Into<String>, hint: impl Into<String>) -> ListError {
        ListError { why: why.into(), hint: Some(hint.into()) }
    }

    /// Tells how far the reading came; `unit` is what is counted.
    pub(super) fn after(self, unit: &str, number: u64) -> ListError {
        if number == 0 { self } else { ListError { why: format!("{}, after {unit} {number}", self.why), ..self } }
    }
}

impl From<io::Error> for ListError {
    fn from(error: io::Error) -> ListError {
        ListError::new(error.to_string())
    }
}
