//! What stands in a query or in a form.

use axum::body::Body;
use axum::http::Uri;

/// Bytes of a form. The largest field is a reason or a token.
const FORM_BYTES_MAX: usize = 16 << 10;

/// Names and values. Of a name that is there twice the first one counts.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Those of a query.
    pub(super) fn of_query(uri: &Uri) -> Parameters {
        Parameters::read(uri.query().unwrap_or_default().as_bytes())
    }

    /// Those of a form; none of one that is too long.
    pub(super) async fn of_form(body: Body) -> Parameters {
        axum::body::to_bytes(body, FORM_BYTES_MAX)
            .await
            .map_or_else(|_| Parameters::default(), |form| Parameters::read(&form))
    }

    fn read(text: &[u8]) -> Parameters {
        Parameters(url::form_urlencoded::parse(text).map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The value, if there is one that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The value as an entry of a stream.
    pub(super) fn entry(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|entry| is_entry(entry))
    }
}

/// Whether this is the id of a stream's entry, `<ms>-<n>`.
pub(super) fn is_entry(text: &str) -> bool {
    let number = |part: &str| part.parse::<u64>().is_ok() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('-').is_some_and(|(ms, n)| number(ms) && number(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_entries_are_checked() {
        let read = Parameters::read(b"a=1%202&b=&c=170-0&a=3&d=%2D");
        assert_eq!((read.get("a"), read.get("b"), read.get("e")), (Some("1 2"), None, None));
        assert_eq!((read.entry("c"), read.entry("d"), read.entry("a")), (Some("170-0"), None, None));
        for bad in ["", "-", "1", "1-", "+1-0", "1-0-0", "99999999999999999999-0", "(1-0"] {
            assert!(!is_entry(bad), "{bad}");
        }
    }
}
