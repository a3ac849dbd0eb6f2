//! The simulator's answers: envelope, item fields with their drifting types, the shapes of errors, limits, files.

use super::catalog::{Album, Image, Item};
use super::{Fault, Shared, picture};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use md5::{Digest, Md5};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Images of an album that a listing shows.
const PREVIEW: usize = 3;
const REMOVED_ETAG: &str = "\"d835884373f4d6c8f24742ceabe74946\"";

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/3/{*path}", get(api))
        .route("/web/ajaxalbums/getimages/{id}/{file}", get(ajax_album))
        .route("/web/{*page}", get(|| async { page_html() }))
        .route("/i/{name}", get(image_file))
        .with_state(shared)
}

fn page_html() -> Html<&'static str> {
    Html("<!DOCTYPE html><html><head><title>Imgur: The magic of the Internet</title></head><body></body></html>")
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn api(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    shared.requests.lock().unwrap_or_else(PoisonError::into_inner).push(uri.to_string());
    let error = |status: u16, text: &str| {
        let body = json!({"data": {"error": text, "request": uri.path(), "method": "GET"}, "success": false, "status": status});
        (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body.to_string()).into_response()
    };
    let authorised = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.strip_prefix("Client-ID "))
        .is_some_and(|id| !id.is_empty());
    let left = shared.credits_left.fetch_sub(1, Ordering::Relaxed) - 1;
    let client_left = shared.client_credits_left.fetch_sub(1, Ordering::Relaxed) - 1;
    let fault = shared.faults.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let mut response = if !authorised {
        error(401, "Authentication required")
    } else if let Some(fault) = fault {
        faulty(fault, uri.path())
    } else if left < 0 {
        faulty(Fault::TooManyRequests, uri.path())
    } else {
        match answer(&shared, &path, &query) {
            Some(data) => json!({"data": data, "success": true, "status": 200}).to_string().into_response(),
            None => error(404, "Unable to find an item with the id"),
        }
    };
    let answer_headers = response.headers_mut();
    if !answer_headers.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"text/html")) {
        answer_headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in [
        ("x-ratelimit-userlimit", shared.config.credits.to_string()),
        ("x-ratelimit-userremaining", left.max(0).to_string()),
        ("x-ratelimit-userreset", (seconds_now() + 2).to_string()),
        ("x-ratelimit-clientlimit", "12500".to_owned()),
        ("x-ratelimit-clientremaining", client_left.max(0).to_string()),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer_headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

fn faulty(fault: Fault, path: &str) -> Response {
    let at = |status: StatusCode, body: Value| (status, body.to_string()).into_response();
    match fault {
        Fault::TooManyRequests => at(
            StatusCode::TOO_MANY_REQUESTS,
            json!({"data": {"error": "Too Many Requests", "request": path, "method": "GET"}, "success": false, "status": 429}),
        ),
        Fault::OverCapacity => at(
            StatusCode::FORBIDDEN,
            json!({"data": {"error": "Imgur is temporarily over capacity. Please try again later."}, "success": false, "status": 403}),
        ),
        Fault::HtmlBadGateway => {
            (StatusCode::BAD_GATEWAY, Html("<html><body>502 Bad Gateway</body></html>")).into_response()
        }
        Fault::NestedError => at(
            StatusCode::BAD_REQUEST,
            json!({"data": {"error": {"code": 403, "message": "Forbidden", "type": "ImgurException", "exception": []}, "request": path, "method": "GET"}, "success": false, "status": 400}),
        ),
        Fault::ErrorInsideSuccess => at(
            StatusCode::OK,
            json!({"data": {"error": "Unable to find what was asked for", "request": path, "method": "GET"}, "success": true, "status": 200}),
        ),
        Fault::TruncatedJson => "{\"data\":[{\"id\":\"abc".into_response(),
    }
}

fn answer(shared: &Shared, path: &str, query: &HashMap<String, String>) -> Option<Value> {
    let catalog = &shared.catalog;
    let listing = |gallery: &str, page: &str| -> Option<Value> {
        let items = catalog.page(gallery, page.parse().ok()?);
        Some(items.iter().map(|item| item_json(shared, item)).collect())
    };
    let segments: Vec<&str> = path.split('/').collect();
    match segments.as_slice() {
        ["gallery", "random", "random", page] => listing("random", page),
        ["gallery", "r", sub, _, _, page] | ["gallery", "r", sub, _, page] => listing(&format!("r/{sub}"), page),
        ["gallery", "search", _, _, page] | ["gallery", "search", _, page] | ["gallery", "search", page] => {
            listing(&format!("search/{}", query.get("q")?), page)
        }
        ["gallery", "t", tag, _, _, page] | ["gallery", "t", tag, _, page] => {
            let items = listing(&format!("t/{tag}"), page)?;
            Some(json!({"name": tag, "display_name": tag, "followers": 12, "total_items": 60, "items": items}))
        }
        ["account", user, "submissions", page] => listing(&format!("user/{user}"), page),
        ["album", id] | ["gallery", "album", id] => Some(album_json(shared, &catalog.find_album(id)?, usize::MAX)),
        ["album", id, "images"] => {
            Some(catalog.find_album(id)?.images.iter().map(|image| image_json(shared, image)).collect())
        }
        ["image", id] | ["gallery", "image", id] => Some(image_json(shared, &catalog.find_image(id)?)),
        ["credits"] => Some(json!({
            "UserLimit": shared.config.credits, "UserRemaining": shared.credits_left.load(Ordering::Relaxed),
            "UserReset": seconds_now() + 3600, "ClientLimit": 12500,
            "ClientRemaining": shared.client_credits_left.load(Ordering::Relaxed),
        })),
        ["gallery", id] if id.len() == 7 => match catalog.find_album(id) {
            Some(album) => Some(album_json(shared, &album, usize::MAX)),
            None => Some(image_json(shared, &catalog.find_image(id)?)),
        },
        ["gallery", section @ ("hot" | "top" | "user"), .., page] => {
            listing(&format!("{section}/{}", segments[2..segments.len() - 1].join("/")), page)
        }
        _ => None,
    }
}

fn item_json(shared: &Shared, item: &Item) -> Value {
    match item {
        Item::Image(image) => image_json(shared, image),
        Item::Album(album) => album_json(shared, album, PREVIEW),
    }
}

fn album_json(shared: &Shared, album: &Album, shown: usize) -> Value {
    json!({
        "id": album.id, "title": "Ein Album, ein 相簿", "description": null, "datetime": 1_605_763_053,
        "cover": album.images.first().map(|image| &image.id), "account_url": null, "account_id": null,
        "privacy": "hidden", "layout": "blog", "views": 1, "link": format!("{}/web/a/{}", shared.base, album.id),
        "favorite": false, "nsfw": null, "section": null, "images_count": album.images.len(), "in_gallery": true,
        "is_ad": false, "is_album": true,
        "images": album.images.iter().take(shown).map(|image| image_json(shared, image)).collect::<Vec<_>>(),
    })
}

fn image_json(shared: &Shared, image: &Image) -> Value {
    // Types drift from item to item, as they do on the real one.
    let odd = image.id.as_bytes()[0] % 2 == 1;
    // Listings link a large GIF's thumbnail: the id with a size suffix.
    let suffix = if image.animated && odd { "h" } else { "" };
    let extension = image.format.extension();
    let mut item = json!({
        "id": image.id, "title": if odd { Value::Null } else { json!("A picture") }, "description": null,
        "datetime": 1_417_124_899, "type": image.format.mime(), "animated": image.animated,
        "width": image.width, "height": image.height, "size": 1000, "views": 8444, "bandwidth": 1_532_661_996_u64,
        "vote": null, "favorite": false, "nsfw": if odd { Value::Null } else { json!(false) },
        "section": if odd { Value::Null } else { json!("funny") }, "account_url": null, "account_id": null,
        "is_ad": false, "in_most_viral": odd, "has_sound": false, "tags": [], "ad_type": 0, "ad_url": "",
        "edited": if odd { json!("0") } else { json!(0) }, "in_gallery": true,
        "link": format!("{}/i/{}{suffix}.{extension}", shared.base, image.id), "is_album": false,
    });
    if image.animated {
        item["mp4"] = json!(format!("{}/i/{}.mp4", shared.base, image.id));
        item["gifv"] = json!(format!("{}/i/{}.gifv", shared.base, image.id));
        item["mp4_size"] = json!(64);
        item["looping"] = json!(true);
    }
    item
}

async fn ajax_album(State(shared): State<Arc<Shared>>, Path((id, file)): Path<(String, String)>, uri: Uri) -> Response {
    shared.requests.lock().unwrap_or_else(PoisonError::into_inner).push(uri.to_string());
    if file != "hit.json" {
        return StatusCode::NOT_FOUND.into_response();
    }
    // A missing album is a success with an empty array where an object would be.
    let data = shared.catalog.find_album(&id).map_or_else(
        || json!([]),
        |album| {
            let images: Vec<Value> = album
                .images
                .iter()
                .map(|image| {
                    json!({
                        "hash": image.id, "title": "", "description": null, "has_sound": false, "width": image.width,
                        "height": image.height, "size": 1000, "ext": format!(".{}", image.format.extension()),
                        "animated": image.animated, "prefer_video": false, "looping": false,
                        "datetime": "2020-11-18 05:23:03", "edited": "0",
                    })
                })
                .collect();
            json!({"count": images.len(), "images": images, "include_album_ads": false})
        },
    );
    let body = json!({"data": data, "success": true, "status": 200}).to_string();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn image_file(State(shared): State<Arc<Shared>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    tokio::time::sleep(shared.config.latency).await;
    if name == "removed.png" {
        return file_response(picture::removed(), "image/png", REMOVED_ETAG.to_owned(), &headers);
    }
    let Some((id, extension)) = name.rsplit_once('.') else { return page_html().into_response() };
    let found = shared.catalog.find_image(id).or_else(|| {
        // One character more is a size suffix.
        shared.catalog.find_image(id.get(..id.len().checked_sub(1)?)?)
    });
    let Some(image) = found else { return StatusCode::NOT_FOUND.into_response() };
    if image.removed {
        let target = format!("{}/i/removed.png", shared.base);
        return (StatusCode::FOUND, [(header::LOCATION, target)]).into_response();
    }
    match extension {
        "gifv" => page_html().into_response(),
        "mp4" if image.animated => {
            let mp4 =
                Bytes::from_static(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\0\x28mdatxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
            let etag = etag(&mp4);
            file_response(mp4, "video/mp4", etag, &headers)
        }
        // The original's bytes, whatever extension was asked for.
        _ => {
            // Drawing takes milliseconds of one core.
            let drawn = tokio::task::spawn_blocking({
                let (shared, image) = (Arc::clone(&shared), image.clone());
                move || shared.catalog.file(&image)
            });
            let Ok(bytes) = drawn.await else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
            let etag = etag(&bytes);
            file_response(bytes, image.format.mime(), etag, &headers)
        }
    }
}

fn etag(bytes: &[u8]) -> String {
    let md5: String = Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{md5}\"")
}

fn file_response(bytes: Bytes, mime: &'static str, etag: String, request: &HeaderMap) -> Response {
    if request.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response();
    }
    let headers =
        [(header::CONTENT_TYPE, mime.to_owned()), (header::ETAG, etag), (header::ACCEPT_RANGES, "bytes".to_owned())];
    (headers, bytes).into_response()
}
