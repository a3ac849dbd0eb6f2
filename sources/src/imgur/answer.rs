//! What an answer of Imgur means: items, or an error of a known kind. Pure.
//!
//! Imgur's types drift and its errors come in many shapes (a string, an object, inside a success, as HTML), so that only
//! what is needed is read, each field in any shape it has been seen in. What to do about an error is left to `client`
//! and `expand`.

use super::budget::ImgurCredits;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::Value;

/// The longest piece of Imgur's own words that a message carries.
const MESSAGE_CHARS_MAX: usize = 200;

/// Why Imgur gave no items.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImgurError {
    /// A definite answer: it does not exist, or not any more.
    #[error("Imgur does not have it{}", in_brackets(.0))]
    NotFound(String),
    /// A definite answer of another kind.
    #[error("Imgur refuses it with HTTP {status}{}", in_brackets(.message))]
    Refused {
        /// HTTP's, which may differ from the body's.
        status: u16,
        /// Imgur's words.
        message: String,
    },
    /// The client id is wrong or blocked.
    #[error("Imgur refuses the client id of IMGUR_CLIENT_ID or --client-id (HTTP {status}){}", in_brackets(.message))]
    ClientId {
        /// 401 or 403.
        status: u16,
        /// Imgur's words.
        message: String,
    },
    /// A web page with 401 or 403 instead of an answer.
    #[error("Imgur shows a web page instead of an answer (HTTP {status}): it may block this country or network")]
    Blocked {
        /// 401 or 403.
        status: u16,
    },
    /// The address's or the user's limit is used up. It clears within an hour.
    #[error("{}", if *.over_capacity { "Imgur is over capacity" } else { "Imgur's limit is used up" })]
    Limited {
        /// Imgur's words for it: "over capacity" rather than 429.
        over_capacity: bool,
    },
    /// The client id's budget for the day is nearly used up, and imgq stops before it is.
    #[error(
        "the client id has {remaining} requests left for today: imgq stops here, because Imgur blocks for the month an application that goes over its limit on five days"
    )]
    BudgetUsedUp {
        /// `X-RateLimit-ClientRemaining`.
        remaining: u64,
    },
    /// The limit did not clear within the time that imgq waits.
    #[error("Imgur's limit is still used up after {waited_s} s of waiting; it clears in {left_s} s at the latest")]
    LimitLasts {
        /// Waited for this one request.
        waited_s: u64,
        /// Until it clears, by Imgur's headers or by its rule of an hour.
        left_s: u64,
    },
    /// It may pass by itself: no connection, 5xx, HTML in the place of data, data that break off.
    #[error("no answer from Imgur at {site}: {why}")]
    Unreachable {
        /// The base URL; empty until `client` fills it in.
        site: String,
        /// What happened.
        why: String,
    },
    /// The request cannot be made at all.
    #[error("cannot ask Imgur: {0}")]
    CannotAsk(String),
}

impl ImgurError {
    /// Whether it says something about what was asked for, and would say it again. Other errors are about the network,
    /// the limits or the client id, and concern every further request.
    pub fn is_definite(&self) -> bool {
        match self {
            ImgurError::NotFound(_) | ImgurError::Refused { .. } => true,
            ImgurError::ClientId { .. }
            | ImgurError::Blocked { .. }
            | ImgurError::Limited { .. }
            | ImgurError::BudgetUsedUp { .. }
            | ImgurError::LimitLasts { .. }
            | ImgurError::Unreachable { .. }
            | ImgurError::CannotAsk(_) => false,
        }
    }

    /// What to do next, for a `hint:` line.
    pub fn hint(&self) -> Option<String> {
        let again = "what was read until now is enqueued; run the same command again, links that are in are skipped";
        Some(match self {
            ImgurError::NotFound(_) => "open it in a browser: it may be removed, private or misspelt".into(),
            ImgurError::ClientId { .. } => {
                "check the id; without one, links of images and albums and lists of them still work".into()
            }
            ImgurError::Blocked { .. } => "try from another network".into(),
            ImgurError::BudgetUsedUp { .. } => {
                format!("come back tomorrow, Imgur's budget is for a day; {again}")
            }
            ImgurError::LimitLasts { left_s, .. } => {
                format!("come back in {} minutes; {again}", left_s.div_ceil(60).max(1))
            }
            ImgurError::Unreachable { .. } => {
                "check the network, and IMGUR_API_URL and IMGUR_WEB_URL if you set them".into()
            }
            ImgurError::Limited { .. } => format!("come back in an hour; {again}"),
            ImgurError::Refused { .. } | ImgurError::CannotAsk(_) => return None,
        })
    }
}

fn in_brackets(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" (\"{message}\")") }
}

/// An image or an album of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Item {
    #[serde(default, deserialize_with = "text")]
    pub(crate) id: Option<String>,
    /// As in `image/jpeg`; albums have none.
    #[serde(default, rename = "type", deserialize_with = "text")]
    pub(crate) content_type: Option<String>,
    /// An image's file, which for a large GIF is a thumbnail; an album's page.
    #[serde(default, deserialize_with = "text")]
    pub(crate) link: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    pub(crate) is_album: Option<bool>,
    #[serde(default, deserialize_with = "flag")]
    pub(crate) animated: Option<bool>,
    /// Animated items have one.
    #[serde(default, deserialize_with = "text")]
    pub(crate) mp4: Option<String>,
    #[serde(default, deserialize_with = "count")]
    pub(crate) images_count: Option<u64>,
    /// An album's images; in listings at most the first few.
    #[serde(default, deserialize_with = "items")]
    pub(crate) images: Option<Vec<Item>>,
}

/// An image of `ajaxalbums`.
#[derive(Debug, Deserialize)]
struct WebImage {
    #[serde(default, deserialize_with = "text")]
    hash: Option<String>,
    /// With its dot, and seen with a query behind it.
    #[serde(default, deserialize_with = "text")]
    ext: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    animated: Option<bool>,
}

/// The envelope around every answer.
#[derive(Debug, Deserialize)]
struct Envelope {
    #[serde(default)]
    data: Value,
    #[serde(default, deserialize_with = "flag")]
    success: Option<bool>,
    #[serde(default, deserialize_with = "count")]
    status: Option<u64>,
}

/// The items of an API answer: those of a listing, or the one image or album that was asked for.
///
/// # Errors
/// [`ImgurError`]; `Unreachable` without its site.
pub(crate) fn read_api(status: u16, body: &[u8]) -> Result<Vec<Item>, ImgurError> {
    let data = read_data(status, body)?;
    match data {
        Value::Array(list) => Ok(list.into_iter().filter_map(lenient).collect()),
        // An account without submissions has been seen as null.
        Value::Null => Ok(Vec::new()),
        Value::Object(mut fields) => {
            // A tag's listing; albums and images have no field of this name.
            if let Some(Value::Array(list)) = fields.remove("items") {
                return Ok(list.into_iter().filter_map(lenient).collect());
            }
            let item: Option<Item> = lenient(Value::Object(fields));
            match item {
                Some(item) if item.id.is_some() || item.images.is_some() => Ok(vec![item]),
                _ => Err(not_understood(status)),
            }
        }
        _ => Err(not_understood(status)),
    }
}

/// What is left of the budget, out of an answer of `/3/credits`.
///
/// # Errors
/// [`ImgurError`]; `Unreachable` without its site.
pub(crate) fn read_credits(status: u16, body: &[u8]) -> Result<ImgurCredits, ImgurError> {
    let data = read_data(status, body)?;
    // Numbers have been seen as text elsewhere.
    let number = |name: &str| match data.get(name)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let credits = ImgurCredits {
        user_limit: number("UserLimit"),
        user_remaining: number("UserRemaining"),
        user_reset: number("UserReset"),
        client_limit: number("ClientLimit"),
        client_remaining: number("ClientRemaining"),
    };
    if credits == ImgurCredits::default() { Err(not_understood(status)) } else { Ok(credits) }
}

/// The images of an answer of `ajaxalbums`.
///
/// # Errors
/// [`ImgurError`]; `NotFound` for a missing album, which is HTTP 200 with an array for data. Never `ClientId`: none was
/// sent.
pub(crate) fn read_web_album(status: u16, body: &[u8]) -> Result<Vec<Item>, ImgurError> {
    let data = read_data(status, body).map_err(|error| match error {
        ImgurError::ClientId { status, message } => ImgurError::Refused { status, message },
        other => other,
    })?;
    let Value::Object(mut fields) = data else {
        return Err(ImgurError::NotFound(String::new()));
    };
    let images: Vec<WebImage> = match fields.remove("images") {
        Some(Value::Array(list)) => list.into_iter().filter_map(lenient).collect(),
        _ => return Err(ImgurError::NotFound(String::new())),
    };
    Ok(images
        .into_iter()
        .filter_map(|image| {
            let hash = image.hash?;
            let extension = image.ext.unwrap_or_default();
            let extension = extension.trim_start_matches('.').split('?').next().unwrap_or_default();
            // The extension in the place of a link says what a type would.
            Some(Item {
                link: Some(format!("{hash}.{extension}")),
                id: Some(hash),
                animated: image.animated,
                ..Item::default()
            })
        })
        .collect())
}

/// The `data` of a success.
fn read_data(status: u16, body: &[u8]) -> Result<Value, ImgurError> {
    let Ok(envelope) = serde_json::from_slice::<Envelope>(body) else {
        return Err(read_non_json(status, body));
    };
    let (message, code) = error_of(&envelope.data);
    // HTTP's status, the body's and the error's may all differ; the worst of them is meant.
    let statuses = [u64::from(status), envelope.status.unwrap_or(0), code.unwrap_or(0)];
    let any = |wanted: &[u64]| statuses.iter().any(|s| wanted.contains(s));
    let found_none = message.is_none()
        && envelope.success != Some(false)
        && status < 400
        && envelope.status.is_none_or(|status| status < 400);
    if found_none {
        return Ok(envelope.data);
    }
    let message = message.unwrap_or_default();
    if is_over_capacity(&message) {
        return Err(ImgurError::Limited { over_capacity: true });
    }
    if any(&[429]) {
        return Err(ImgurError::Limited { over_capacity: false });
    }
    if any(&[404, 410]) || says_not_found(&message) {
        return Err(ImgurError::NotFound(message));
    }
    if status >= 500 || (status < 400 && envelope.status.is_some_and(|s| s >= 500)) {
        return Err(passing(format!("HTTP {status}{}", in_brackets(&message))));
    }
    // A nested 403 under another HTTP error is about the request, not about the id.
    if matches!(status, 401 | 403) || (status < 400 && any(&[401, 403])) {
        let status = if any(&[401]) { 401 } else { 403 };
        return Err(ImgurError::ClientId { status, message });
    }
    Err(ImgurError::Refused { status, message })
}

/// A body that is no JSON: a web page, nothing, or data that break off.
fn read_non_json(status: u16, body: &[u8]) -> ImgurError {
    let is_html = body.trim_ascii_start().starts_with(b"<");
    match status {
        429 => ImgurError::Limited { over_capacity: false },
        403 if is_over_capacity(&String::from_utf8_lossy(body)) => ImgurError::Limited { over_capacity: true },
        401 | 403 => ImgurError::Blocked { status },
        404 | 410 => ImgurError::NotFound(String::new()),
        408 | 425 | 500.. => passing(format!("HTTP {status}")),
        400.. => ImgurError::Refused { status, message: String::new() },
        _ if is_html => passing(format!(
            "a web page in the place of data (HTTP {status}); Imgur blocks some countries and networks"
        )),
        _ => passing(format!("data that break off after {} bytes", body.len())),
    }
}

/// The message and the code of `data.error`, be it a string or an object.
fn error_of(data: &Value) -> (Option<String>, Option<u64>) {
    match data.get("error") {
        None | Some(Value::Null | Value::Bool(false)) => (None, None),
        Some(Value::String(message)) if message.is_empty() => (None, None),
        Some(Value::String(message)) => (Some(clean(message)), None),
        Some(Value::Object(fields)) => {
            let message = fields.get("message").and_then(Value::as_str).unwrap_or_default();
            (Some(clean(message)), fields.get("code").and_then(as_count))
        }
        Some(other) => (Some(clean(&other.to_string())), None),
    }
}

fn is_over_capacity(message: &str) -> bool {
    message.to_ascii_lowercase().contains("over capacity")
}

/// HTTP 200 with an error gives the kind only in words.
fn says_not_found(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["unable to find", "could not find", "not found", "not exist", "no such"].iter().any(|part| message.contains(part))
}

fn not_understood(status: u16) -> ImgurError {
    ImgurError::Refused { status, message: "an answer that holds neither images nor an error".into() }
}

fn passing(why: String) -> ImgurError {
    ImgurError::Unreachable { site: String::new(), why }
}

/// Imgur's words, fit for one line of a terminal.
fn clean(message: &str) -> String {
    message.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect()
}

/// `None` for what is not even an object, which is skipped.
fn lenient<T: DeserializeOwned>(value: Value) -> Option<T> {
    value.is_object().then(|| serde_json::from_value(value).ok()).flatten()
}

fn as_count(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn text<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(input)? {
        Value::String(text) if !text.is_empty() => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

fn flag<'de, D: Deserializer<'de>>(input: D) -> Result<Option<bool>, D::Error> {
    Ok(match Value::deserialize(input)? {
        Value::Bool(flag) => Some(flag),
        Value::Number(number) => number.as_u64().map(|n| n != 0),
        Value::String(text) => match text.as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    })
}

fn count<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    Ok(as_count(&Value::deserialize(input)?))
}

fn items<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<Item>>, D::Error> {
    Ok(match Value::deserialize(input)? {
        Value::Array(list) => Some(list.into_iter().filter_map(lenient).collect()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"{"data":[
        {"id":"aaaaaaa","title":null,"type":"image/jpeg","animated":false,"nsfw":null,"edited":0,"section":"funny",
         "tags":[{"name":"cat"}],"link":"https://i.imgur.com/aaaaaaa.jpg","is_album":false},
        {"id":"bbbbbbb","title":"相簿","link":"https://imgur.com/a/bbbbbbb","images_count":5,"is_album":true,
         "images":[{"id":"ccccccc","type":"image/png","edited":"0","link":"https://i.imgur.com/ccccccc.png"}]}
        ],"success":true,"status":200}"#;

    #[test]
    fn a_listing_holds_images_and_albums() {
        let items = read_api(200, PAGE.as_bytes()).expect("a page");
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].content_type.as_deref(), Some("image/jpeg"));
        assert_eq!((items[1].is_album, items[1].images_count), (Some(true), Some(5)));
        assert_eq!(items[1].images.as_ref().map(Vec::len), Some(1));
    }

    #[test]
    fn the_other_places_of_items() {
        for (body, ids) in [
            (r#"{"data":[],"success":true,"status":200}"#, vec![]),
            (r#"{"data":null,"success":true,"status":200}"#, vec![]),
            (r#"{"data":{"name":"cats","items":[{"id":"aaaaaaa"}]},"success":true,"status":200}"#, vec!["aaaaaaa"]),
            (r#"{"data":{"id":"aaaaaaa","type":"image/gif"},"success":true,"status":200}"#, vec!["aaaaaaa"]),
            (r#"{"data":{"id":"bbbbbbb","images":[],"images_count":0},"success":true}"#, vec!["bbbbbbb"]),
        ] {
            let items = read_api(200, body.as_bytes()).expect(body);
            let found: Vec<_> = items.iter().filter_map(|i| i.id.as_deref()).collect();
            assert_eq!(found, ids, "{body}");
        }
    }

    #[test]
    fn types_may_drift() {
        let body = r#"{"data":[{"id":12345,"type":null,"link":false,"is_album":"0","animated":1,"mp4":"","nsfw":{},
            "images_count":"7","images":{}}, 3, null, {"id":"aaaaaaa","images":[1,{"id":"bbbbbbb"}],"animated":[]}],
            "success":1,"status":"200"}"#;
        let items = read_api(200, body.as_bytes()).expect("a page");
        let drifted = Item {
            id: Some("12345".into()),
            is_album: Some(false),
            animated: Some(true),
            images_count: Some(7),
            ..Item::default()
        };
        assert_eq!(items[0], drifted);
        assert_eq!(items[1].images.as_ref().map(Vec::len), Some(1));
        assert_eq!(items.len(), 2);
    }

    #[test]
    fn each_shape_of_error_has_its_meaning() {
        let not_found = |m: &str| ImgurError::NotFound(m.into());
        let passing = |why: &str| passing(why.into());
        let over = ImgurError::Limited { over_capacity: true };
        let limited = ImgurError::Limited { over_capacity: false };
        let missing = "Unable to find an image with the id, inexistedId";
        for (status, body, expected) in [
            (
                403,
                r#"{"data":{"error":"Imgur is temporarily over capacity. Please try again later."},"success":false,"status":403}"#,
                over.clone(),
            ),
            (
                200,
                r#"{"data":{"error":"Imgur is temporarily over capacity."},"success":false,"status":403}"#,
                over.clone(),
            ),
            (403, "<html>Imgur is over capacity!</html>", over),
            (
                429,
                r#"{"data":{"error":"Too Many Requests","request":"/3/x","method":"GET"},"success":false,"status":429}"#,
                limited.clone(),
            ),
            (
                400,
                r#"{"data":{"error":{"code":429,"message":"too fast","type":"ImgurException","exception":[]}},"success":false,"status":400}"#,
                limited.clone(),
            ),
            (429, "<html>slow down</html>", limited),
            (
                400,
                r#"{"data":{"error":{"code":403,"message":"Forbidden","type":"ImgurException","exception":[]},"request":"/3/image","method":"POST"},"success":false,"status":400}"#,
                ImgurError::Refused { status: 400, message: "Forbidden".into() },
            ),
            (
                200,
                r#"{"data":{"error":"Unable to find an image with the id, inexistedId","request":"/3/x","method":"GET"},"success":true,"status":200}"#,
                not_found(missing),
            ),
            (404, r#"{"data":{"error":"gone"},"success":false,"status":404}"#, not_found("gone")),
            (200, r#"{"data":{"error":"gone"},"success":false,"status":"404"}"#, not_found("gone")),
            (404, "<html>", not_found("")),
            (
                401,
                r#"{"data":{"error":"Authentication required"},"success":false,"status":401}"#,
                ImgurError::ClientId { status: 401, message: "Authentication required".into() },
            ),
            (
                403,
                r#"{"data":{"error":"The client_id is invalid"},"success":false,"status":403}"#,
                ImgurError::ClientId { status: 403, message: "The client_id is invalid".into() },
            ),
            (
                200,
                r#"{"data":{"error":"Unauthorized"},"success":false,"status":403}"#,
                ImgurError::ClientId { status: 403, message: "Unauthorized".into() },
            ),
            (403, "<!DOCTYPE html>", ImgurError::Blocked { status: 403 }),
            (500, r#"{"data":{"error":"x"},"success":false,"status":500}"#, passing("HTTP 500 (\"x\")")),
            (200, r#"{"data":[],"success":false,"status":503}"#, passing("HTTP 200")),
            (502, "<html>bad gateway</html>", passing("HTTP 502")),
            (200, r#"{"data":[{"id":"aaa"#, passing("data that break off after 19 bytes")),
            (200, "", passing("data that break off after 0 bytes")),
            (
                200,
                " <html>",
                passing("a web page in the place of data (HTTP 200); Imgur blocks some countries and networks"),
            ),
            (418, "tea", ImgurError::Refused { status: 418, message: String::new() }),
            (200, r#"{"data":17,"success":true,"status":200}"#, not_understood(200)),
            (200, r#"{"data":{"x":1},"success":true,"status":200}"#, not_understood(200)),
        ] {
            assert_eq!(read_api(status, body.as_bytes()), Err(expected), "{status} {body}");
        }
    }

    #[test]
    fn a_web_album_is_an_object_and_a_missing_one_an_array() {
        let body = r#"{"data":{"count":2,"images":[
            {"hash":"aaaaaaa","ext":".jpg?1","animated":false,"prefer_video":false,"edited":"0"},
            {"hash":"bbbbbbb","ext":".gif","animated":true,"prefer_video":true},{"ext":".png"}],
            "include_album_ads":false},"success":true,"status":200}"#;
        let items = read_web_album(200, body.as_bytes()).expect("an album");
        let read: Vec<_> = items.iter().map(|i| (i.link.as_deref(), i.animated)).collect();
        assert_eq!(read, [(Some("aaaaaaa.jpg"), Some(false)), (Some("bbbbbbb.gif"), Some(true))]);
        let missing = r#"{"data":[],"success":true,"status":200}"#;
        assert_eq!(read_web_album(200, missing.as_bytes()), Err(ImgurError::NotFound(String::new())));
        let empty = r#"{"data":{"count":0,"images":[]},"success":true,"status":200}"#;
        assert_eq!(read_web_album(200, empty.as_bytes()), Ok(vec![]));
        let refused = r#"{"data":{"error":"no"},"success":false,"status":403}"#;
        assert!(matches!(read_web_album(403, refused.as_bytes()), Err(ImgurError::Refused { status: 403, .. })));
    }

    #[test]
    fn messages_are_one_clean_line() {
        assert_eq!(clean("a\u{1b}[31m\nb"), "a[31mb");
        assert_eq!(clean(&"é".repeat(500)).chars().count(), MESSAGE_CHARS_MAX);
    }
}
