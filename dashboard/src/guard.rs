//! Who may do what: the host that is asked for, the token, sessions, requests that other sites make, and the headers that
//! every answer has.
//!
//! Without a token the dashboard is reached from this machine alone, and reading is open. Then a foreign page could still give
//! itself a name that leads to this machine (DNS rebinding), so that only the names of this machine are answered. With a token
//! a foreign name is of no use, as the cookie is not sent for it, and a proxy may use any.

use super::pages;
use super::parameters::Parameters;
use super::{Site, assets};
use aws_lc_rs::{constant_time, hmac};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;

/// A token that is shorter could be guessed.
pub const TOKEN_CHARACTERS_MIN: usize = 16;
/// A request is answered by then. Events go on for longer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long one stays logged in.
const SESSION: Duration = Duration::from_hours(12);
/// Each wrong token costs its sender as long, one after another, so that guessing is slow.
const WRONG_TOKEN_COSTS: Duration = Duration::from_millis(500);
/// Wrong tokens that wait for that at once; more are refused.
const WRONG_TOKENS_MAX: usize = 32;

/// Nothing but what this server sends, and nothing within lines of the page. `same-origin` for the referrer: others get none,
/// and with `no-referrer` browsers would not say in forms where they come from either (they send `Origin: null`).
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Secrets of this process, and what requests are measured by.
#[derive(Debug)]
pub(super) struct Guard {
    port: u16,
    /// A digest of the token, so that comparing tells nothing of its length.
    token: Option<hmac::Tag>,
    key: hmac::Key,
    form_token: String,
    cookie: String,
    wrong_tokens: Semaphore,
    wrong_token: tokio::sync::Mutex<()>,
}

/// Whether the sender of a request may read pages; `/healthz` and the like are for everybody.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass(bool);

impl Pass {
    pub(super) fn may_read(self) -> bool {
        self.0
    }
}

impl<S: Sync> FromRequestParts<S> for Pass {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Pass, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Pass(false)))
    }
}

impl Guard {
    pub(super) fn new(address: SocketAddr, token: Option<&str>) -> Guard {
        let mut secret = [0; 32];
        // Fails only where the system has no random numbers, where nothing of ours could be trusted.
        aws_lc_rs::rand::fill(&mut secret).expect("the system gives random numbers");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Guard {
            port: address.port(),
            token: token.map(|token| hmac::sign(&key, token.as_bytes())),
            form_token: hex::encode(hmac::sign(&key, b"form").as_ref()),
            // Cookies do not know ports, and there may be a dashboard on each.
            cookie: format!("imgq-{}", address.port()),
            key,
            wrong_tokens: Semaphore::new(WRONG_TOKENS_MAX),
            wrong_token: tokio::sync::Mutex::default(),
        }
    }

    /// What every form has to send.
    pub(super) fn form_token(&self) -> &str {
        &self.form_token
    }

    fn is_token(&self, given: &str) -> bool {
        let digest = hmac::sign(&self.key, given.as_bytes());
        self.token.as_ref().is_some_and(|token| same(token.as_ref(), digest.as_ref()))
    }

    fn new_session(&self, now: SystemTime) -> String {
        let ends = seconds(now + SESSION);
        format!("{ends}.{}", hex::encode(hmac::sign(&self.key, format!("session {ends}").as_bytes()).as_ref()))
    }

    fn is_session(&self, cookie: &str, now: SystemTime) -> bool {
        let Some((ends, digest)) = cookie.split_once('.') else { return false };
        let expected = hex::encode(hmac::sign(&self.key, format!("session {ends}").as_bytes()).as_ref());
        same(expected.as_bytes(), digest.as_bytes()) && ends.parse().is_ok_and(|ends: u64| seconds(now) < ends)
    }

    fn may_read(&self, headers: &HeaderMap) -> bool {
        if self.token.is_none() {
            return true;
        }
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if bearer.and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|token| self.is_token(token.trim())) {
            return true;
        }
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut cookies =
            cookies.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
        cookies.any(|(name, value)| name == self.cookie && self.is_session(value, SystemTime::now()))
    }

    /// Whether the host that is asked for is this machine by its own names.
    fn is_this_machine(&self, host: &str) -> bool {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port.parse().ok()),
            _ => (host, Some(80)),
        };
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let is_loopback = address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        port == Some(self.port) && (is_loopback || name.eq_ignore_ascii_case("localhost"))
    }

    /// The fields of a form that a page of this dashboard sent, from this browser tab; `None` for any other.
    pub(super) async fn form(&self, request: Request) -> Option<Parameters> {
        let form = Parameters::of_form(request.into_body()).await;
        same(form.get("form_token")?.as_bytes(), self.form_token.as_bytes()).then_some(form)
    }
}

/// In the same time, whatever is in them.
fn same(one: &[u8], other: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whether a request that changes something comes from a page of this origin, as far as its browser tells. What is no browser
/// tells nothing, and has to know the form's token all the same.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let host = text(header::HOST).unwrap_or_default();
    let origin = text(header::ORIGIN);
    site.is_none_or(|site| site == "same-origin")
        && origin.is_none_or(|origin| {
            origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
        })
}

/// Stands before every route.
pub(super) async fn stand(State(site): State<Arc<Site>>, mut request: Request, next: Next) -> Response {
    let is_events = request.uri().path() == "/events";
    let pass = Pass(site.guard.may_read(request.headers()));
    request.extensions_mut().insert(pass);
    let mut response = match refusal(&site, &request, pass) {
        Some(refused) => refused,
        None => match tokio::time::timeout(ANSWER_MAX, next.run(request)).await {
            Ok(response) => response,
            Err(_) => pages::refused(StatusCode::GATEWAY_TIMEOUT, "That took too long."),
        },
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        // Pictures and what the page is made of may be kept.
        if name != header::CACHE_CONTROL || is_events || !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

fn refusal(site: &Site, request: &Request, pass: Pass) -> Option<Response> {
    let guard = &site.guard;
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = request.uri().path();
    if guard.token.is_none() && !guard.is_this_machine(host) {
        return Some(pages::refused(
            StatusCode::MISDIRECTED_REQUEST,
            "Without a token this dashboard answers to localhost, 127.0.0.1 and [::1] only. Behind a proxy, set \
             IMGQ_DASHBOARD_TOKEN.",
        ));
    }
    let is_change = !matches!(*request.method(), Method::GET | Method::HEAD);
    if is_change && !is_same_origin(request.headers()) {
        return Some(pages::refused(StatusCode::FORBIDDEN, "Another site asked for this. Nothing was changed."));
    }
    let is_open = matches!(path, "/healthz" | "/readyz" | "/login") || assets::is_one(path);
    if pass.may_read() || is_open {
        return None;
    }
    let wants_page = matches!(path, "/" | "/results" | "/dead") || path.starts_with("/batch/");
    Some(if wants_page && !is_change {
        Redirect::to("/login").into_response()
    } else {
        let mut refused = pages::refused(StatusCode::UNAUTHORIZED, "This needs the token.");
        refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        refused
    })
}

/// `POST /login`: the right token is worth a cookie.
pub(super) async fn log_in(State(site): State<Arc<Site>>, request: Request) -> Response {
    let guard = &site.guard;
    let is_https = request.headers().get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let form = Parameters::of_form(request.into_body()).await;
    if !guard.is_token(form.get("token").unwrap_or_default().trim()) {
        let Ok(_waits) = guard.wrong_tokens.try_acquire() else {
            return pages::login::wrong("Too many wrong tokens at the moment. Try again in a while.");
        };
        let _turn = guard.wrong_token.lock().await;
        tokio::time::sleep(WRONG_TOKEN_COSTS).await;
        return pages::login::wrong("That is not the token.");
    }
    let secure = if is_https { "; Secure" } else { "" };
    let cookie = format!(
        "{}={}; HttpOnly; SameSite=Strict; Path=/; Max-Age={}{secure}",
        guard.cookie,
        guard.new_session(SystemTime::now()),
        SESSION.as_secs()
    );
    ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
}

/// `POST /logout`: the browser forgets the cookie.
pub(super) async fn log_out(State(site): State<Arc<Site>>, request: Request) -> Response {
    if site.guard.form(request).await.is_none() {
        return pages::stale_form();
    }
    let cookie = format!("{}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0", site.guard.cookie);
    ([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(token: Option<&str>) -> Guard {
        Guard::new("127.0.0.1:8080".parse().expect("an address"), token)
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value")))
            .collect()
    }

    #[test]
    fn only_this_machine_s_names_are_answered() {
        let guard = guard(None);
        for good in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST:8080", "127.1.2.3:8080"] {
            assert!(guard.is_this_machine(good), "{good}");
        }
        for bad in [
            "",
            "evil.example:8080",
            "localhost",
            "localhost:80",
            "127.0.0.1.evil.example:8080",
            "10.0.0.1:8080",
            ":8080",
        ] {
            assert!(!guard.is_this_machine(bad), "{bad}");
        }
    }

    #[test]
    fn a_session_is_of_this_process_and_ends() {
        let (one, other) = (guard(Some("a token of some length")), guard(Some("a token of some length")));
        let now = SystemTime::now();
        let session = one.new_session(now);
        assert!(one.is_session(&session, now) && !other.is_session(&session, now));
        assert!(!one.is_session(&session, now + SESSION + Duration::from_secs(1)));
        let (ends, digest) = session.split_once('.').expect("two parts");
        let later = format!("{}.{digest}", ends.parse::<u64>().expect("a number") + 1);
        for bad in [later.as_str(), "", ".", ends, "99999999999.00"] {
            assert!(!one.is_session(bad, now), "{bad}");
        }
        assert!(!session.contains("token"));
    }

    #[test]
    fn the_token_is_taken_from_a_header_or_a_cookie() {
        let guard = guard(Some("a token of some length"));
        let cookie = |name: &str| format!("x=y; {name}={}", guard.new_session(SystemTime::now()));
        assert!(guard.may_read(&headers(&[("authorization", "Bearer a token of some length")])));
        assert!(guard.may_read(&headers(&[("cookie", &cookie("imgq-8080"))])));
        for bad in [
            ("authorization", "Bearer another"),
            ("authorization", "Basic a token of some length"),
            ("cookie", &cookie("imgq-81")),
        ] {
            assert!(!guard.may_read(&headers(&[bad])), "{bad:?}");
        }
        assert!(!guard.may_read(&headers(&[("cookie", "imgq-8080=a token of some length")])));
    }

    #[test]
    fn another_site_is_known_by_what_the_browser_tells() {
        let host = ("host", "localhost:8080");
        for good in
            [&[host][..], &[host, ("sec-fetch-site", "same-origin")], &[host, ("origin", "http://localhost:8080")]]
        {
            assert!(is_same_origin(&headers(good)), "{good:?}");
        }
        for bad in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "none"),
            ("origin", "null"),
            ("origin", "http://localhost:8081"),
            ("origin", "http://evil.example"),
        ] {
            assert!(!is_same_origin(&headers(&[host, bad])), "{bad:?}");
        }
    }
}
