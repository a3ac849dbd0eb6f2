//! Which columns of a table hold the links and the hashes that are expected. Pure.

use super::error::ListError;
use crate::error::shown;
use common::link::canonical_url;

/// Columns and keys that are known to hold links, the first that is there is taken; in any case.
const USUAL_NAMES: &[&str] = &[
    "url",
    "urls",
    "link",
    "links",
    "image_url",
    "image_urls",
    "imageurl",
    "image_link",
    "img_url",
    "image",
    "images",
    "img",
    "src",
    "href",
    "original_url",
    "originalurl",
    "content_url",
    "contenturl",
    "download_url",
    "media_url",
    "photo_url",
    "uri",
];

/// The column that is known to hold hashes.
const USUAL_HASH_NAME: &str = "sha256";

/// So many columns are named in an error.
const NAMES_SHOWN: usize = 20;

/// The columns that the user named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnNames {
    /// `--url-column`: a name in any case, or a number from 1.
    pub url: Option<String>,
    /// `--hash-column`: likewise.
    pub hash: Option<String>,
}

impl ColumnNames {
    /// How well a key of JSON fits for links, 0 for best; `None` for another key.
    pub(super) fn rank(&self, key: &str) -> Option<usize> {
        match &self.url {
            Some(name) => name.eq_ignore_ascii_case(key).then_some(0),
            None => USUAL_NAMES.iter().position(|name| name.eq_ignore_ascii_case(key)),
        }
    }

    /// Whether a key of JSON is that of the hashes.
    pub(super) fn is_hash(&self, key: &str) -> bool {
        self.hash.as_deref().unwrap_or(USUAL_HASH_NAME).eq_ignore_ascii_case(key)
    }
}

/// Which columns are read, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) url: usize,
    pub(super) hash: Option<usize>,
    /// Whether the first row of a table has names, not data.
    pub(super) has_header: bool,
}

/// The column of a name or number, where all columns have names.
///
/// # Errors
/// There is none; the error names those there are.
pub(super) fn named(flag: &str, wanted: &str, names: &[String]) -> Result<usize, ListError> {
    named_or_numbered(wanted, names).map(|(at, _)| at).ok_or_else(|| no_such_column(flag, wanted, names))
}

/// The column of links, where all columns have names and none was named by the user.
///
/// # Errors
/// None fits; the error names those there are.
pub(super) fn usual_url(names: &[String]) -> Result<usize, ListError> {
    usual(names).ok_or_else(|| no_usual_column(names))
}

/// The column of hashes, where none was named by the user.
pub(super) fn usual_hash(names: &[String]) -> Option<usize> {
    position(USUAL_HASH_NAME, names)
}

/// Chooses by the first row of a table that may have a header: it has none when a cell of its first row is a link.
///
/// # Errors
/// None fits, or several do; the error names those there are.
pub(super) fn choose_by_first_row(wanted: &ColumnNames, row: &[String]) -> Result<Columns, ListError> {
    let links: Vec<usize> = (0..row.len()).filter(|at| canonical_url(&row[*at]).is_ok()).collect();
    let (url, url_is_named) = match (&wanted.url, &links[..]) {
        (Some(name), _) => {
            let (at, is_named) =
                named_or_numbered(name, row).ok_or_else(|| no_such_column("--url-column", name, row))?;
            // Whoever counts columns of a table that has a header after all is understood.
            (at, is_named || USUAL_NAMES.iter().any(|name| name.eq_ignore_ascii_case(row[at].trim())))
        }
        (None, []) => (usual_url(row)?, true),
        (None, [only]) => (*only, false),
        (None, [first, second, ..]) => {
            return Err(ListError::with_hint(
                format!("its first row has links in several columns, {} and {} among them", first + 1, second + 1),
                "say which with --url-column NUMBER",
            ));
        }
    };
    let (hash, hash_is_named) = match &wanted.hash {
        Some(name) => {
            let (at, is_named) =
                named_or_numbered(name, row).ok_or_else(|| no_such_column("--hash-column", name, row))?;
            (Some(at), is_named)
        }
        None if url_is_named => (usual_hash(row), true),
        None => (None, false),
    };
    Ok(Columns { url, hash, has_header: url_is_named || hash_is_named })
}

/// Where a column is, and whether it was found by its name.
fn named_or_numbered(wanted: &str, names: &[String]) -> Option<(usize, bool)> {
    if let Some(at) = position(wanted, names) {
        return Some((at, true));
    }
    let number: usize = wanted.parse().ok()?;
    (1..=names.len()).contains(&number).then(|| (number - 1, false))
}

/// The column of this very name, else of this name in another case.
fn position(wanted: &str, names: &[String]) -> Option<usize> {
    let exact = names.iter().position(|name| name.trim() == wanted);
    exact.or_else(|| names.iter().position(|name| name.trim().eq_ignore_ascii_case(wanted.trim())))
}

fn usual(names: &[String]) -> Option<usize> {
    USUAL_NAMES.iter().find_map(|usual| position(usual, names))
}

fn no_such_column(flag: &str, wanted: &str, names: &[String]) -> ListError {
    ListError::with_hint(
        format!("no column \"{}\" in it; its columns are {}", shown(wanted), listed(names)),
        format!("give one of them with {flag} NAME, or its number from 1"),
    )
}

fn no_usual_column(names: &[String]) -> ListError {
    ListError::with_hint(
        format!("no column of it is known to hold links; its columns are {}", listed(names)),
        "say which with --url-column NAME, or its number from 1",
    )
}

/// `"id", "title"`.
pub(super) fn listed(names: &[String]) -> String {
    let mut text: Vec<String> =
        names.iter().take(NAMES_SHOWN).map(|name| format!("\"{}\"", shown(name.trim()))).collect();
    if names.len() > NAMES_SHOWN {
        text.push(format!("and {} more", names.len() - NAMES_SHOWN));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &str) -> Vec<String> {
        cells.split(',').map(str::to_owned).collect()
    }
    fn wanted(url: &str, hash: &str) -> ColumnNames {
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        ColumnNames { url: named(url), hash: named(hash) }
    }

    #[test]
    fn columns_of_a_table_by_its_first_row() {
        for (url, hash, cells, expected) in [
            ("", "", "id,URL,title", (1, None, true)),
            ("", "", "href,image_url", (1, None, true)),
            ("", "", "SHA256, Link ", (1, Some(0), true)),
            ("", "", "7,http://x/a,cat", (1, None, false)),
            ("", "", "http://x/a", (0, None, false)),
            ("TITLE", "", "id,url,title", (2, None, true)),
            ("URL", "", "url,URL", (1, None, true)),
            ("2", "", "7,cat.jpg", (1, None, false)),
            ("2", "", "id,url", (1, None, true)),
            ("2", "1", "7,http://x/a", (1, Some(0), false)),
            ("", "digest", "digest,url", (1, Some(0), true)),
            ("2", "digest", "digest,place", (1, Some(0), true)),
            ("2", "", "2,url", (0, None, true)),
        ] {
            let got = choose_by_first_row(&wanted(url, hash), &row(cells)).expect(cells);
            assert_eq!((got.url, got.hash, got.has_header), expected, "{url} {hash} {cells}");
        }
    }

    #[test]
    fn what_does_not_fit_names_the_columns_and_the_remedy() {
        for (url, hash, cells, part) in [
            ("", "", "id,title", "its columns are \"id\", \"title\""),
            ("picture", "", "id,url", "no column \"picture\" in it; its columns are \"id\", \"url\""),
            ("3", "", "id,url", "no column \"3\""),
            ("0", "", "id,url", "no column \"0\""),
            ("", "md5", "id,url", "no column \"md5\""),
            ("", "", "http://x/a,http://x/b", "in several columns, 1 and 2"),
        ] {
            let error = choose_by_first_row(&wanted(url, hash), &row(cells)).expect_err(cells);
            assert!(error.why.contains(part), "{}", error.why);
            assert!(error.hint.is_some_and(|hint| hint.contains("-column N")), "{cells}");
        }
        let many: Vec<String> = (0..99).map(|n| format!("c\u{1b}{n}")).collect();
        let error = usual_url(&many).expect_err("none fits");
        assert!(error.why.ends_with("and 79 more") && !error.why.contains('\u{1b}'), "{}", error.why);
    }
}
