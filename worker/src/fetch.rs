//! Fetching: one URL to a response whose body may be read, bounded in every direction.
//!
//! The only file of the worker that names the HTTP client. Redirects are followed here, one by one, because each target
//! has to pass the guard, and because a redirect to Imgur's placeholder is an answer, not a way to an image.

use crate::address_guard::AddressGuard;
use crate::attempt::{SERVER_WAIT_MAX, Setback, meaning_of_status};
use crate::cli::Config;
use bytes::Bytes;
use common::outcome::{Failure, Rejection};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap, LOCATION, RETRY_AFTER};
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use url::{Host, Url};

/// Redirects that one download may follow.
const REDIRECTS_MAX: usize = 5;
/// The ETag (an MD5) of the picture that Imgur serves for removed images.
const IMGUR_REMOVED_ETAG: &str = "d835884373f4d6c8f24742ceabe74946";
/// The file that Imgur redirects to for removed images.
const IMGUR_REMOVED_FILE: &str = "/removed.png";

/// Makes requests that stay within their bounds.
#[derive(Debug)]
pub(crate) struct Fetcher {
    client: reqwest::Client,
    guard: Arc<AddressGuard>,
    connect_timeout: Duration,
    idle_timeout: Duration,
    body_bytes_max: u64,
}

impl Fetcher {
    pub(crate) fn new(config: &Config) -> Result<Fetcher, reqwest::Error> {
        let guard = Arc::new(AddressGuard::new(config.allow_networks.clone()));
        let client = reqwest::Client::builder()
            .user_agent(&config.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.connect_timeout)
            .pool_max_idle_per_host(config.host_concurrency)
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_nodelay(true)
            // A proxy would connect where the guard cannot look.
            .no_proxy()
            .dns_resolver(GuardedResolver { guard: Arc::clone(&guard) })
            .build()?;
        Ok(Fetcher {
            client,
            guard,
            connect_timeout: config.connect_timeout,
            idle_timeout: config.idle_timeout,
            body_bytes_max: config.body_bytes_max,
        })
    }

    /// Requests `url`, follows redirects, and returns once a body begins.
    ///
    /// # Errors
    /// A [`Setback`] for everything but a success.
    pub(crate) async fn get(&self, url: &Url) -> Result<Body, Setback> {
        let mut target = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            self.check(&target)?;
            // The client bounds the connecting itself; whatever is left is the server's silence.
            let request = self.client.get(target.clone()).send();
            let response = match tokio::time::timeout(self.connect_timeout + self.idle_timeout, request).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return Err(setback_of(&error)),
                Err(_) => return Err(Failure::TimeoutIdle.into()),
            };
            let status = response.status().as_u16();
            let setback = |rejection: Rejection| Setback::from(rejection).with_status(status);
            if let (301 | 302 | 303 | 307 | 308, Some(location)) = (status, response.headers().get(LOCATION)) {
                let next = location.to_str().ok().and_then(|text| target.join(text).ok());
                target = next.ok_or_else(|| setback(Rejection::Redirects))?;
                if target.path().ends_with(IMGUR_REMOVED_FILE) {
                    return Err(setback(Rejection::Removed));
                }
                continue;
            }
            if !response.status().is_success() {
                return Err(Setback {
                    outcome: meaning_of_status(status),
                    status,
                    server_wait: server_wait(response.headers(), SystemTime::now()),
                });
            }
            if is_imgur_removed(response.headers()) {
                return Err(setback(Rejection::Removed));
            }
            if response.content_length().is_some_and(|length| length > self.body_bytes_max) {
                return Err(setback(Rejection::TooLarge));
            }
            return Ok(Body { response, status, bytes_left: self.body_bytes_max, idle_timeout: self.idle_timeout });
        }
        Err(Rejection::Redirects.into())
    }

    /// What the resolver does not see: the scheme, and hosts that are addresses already.
    fn check(&self, target: &Url) -> Result<(), Setback> {
        if !matches!(target.scheme(), "http" | "https") {
            return Err(Rejection::Redirects.into());
        }
        let address = match target.host() {
            Some(Host::Ipv4(v4)) => IpAddr::V4(v4),
            Some(Host::Ipv6(v6)) => IpAddr::V6(v6),
            Some(Host::Domain(_)) => return Ok(()),
            None => return Err(Rejection::BadUrl.into()),
        };
        if self.guard.permits(address) { Ok(()) } else { Err(Rejection::BlockedAddress.into()) }
    }
}

/// A body that has begun to arrive.
#[derive(Debug)]
pub(crate) struct Body {
    response: reqwest::Response,
    status: u16,
    bytes_left: u64,
    idle_timeout: Duration,
}

impl Body {
    /// The HTTP status it came with.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// The next part, or `None` at the end.
    ///
    /// # Errors
    /// `too_large`, `timeout_idle`, `truncated`, all with the status.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Setback> {
        let status = self.status;
        match tokio::time::timeout(self.idle_timeout, self.response.chunk()).await {
            Ok(Ok(Some(chunk))) => match self.bytes_left.checked_sub(chunk.len() as u64) {
                Some(left) => {
                    self.bytes_left = left;
                    Ok(Some(chunk))
                }
                None => Err(Setback::from(Rejection::TooLarge).with_status(status)),
            },
            Ok(Ok(None)) => Ok(None),
            // Whatever breaks a body off (end of connection, reset, broken framing) leaves it incomplete.
            Ok(Err(_)) => Err(Setback::from(Failure::Truncated).with_status(status)),
            Err(_) => Err(Setback::from(Failure::TimeoutIdle).with_status(status)),
        }
    }
}

/// Imgur's picture for removed images, served directly.
fn is_imgur_removed(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &reqwest::header::HeaderValue| value.to_str().ok());
    text(ETAG).is_some_and(|etag| etag.trim_start_matches("W/").trim_matches('"') == IMGUR_REMOVED_ETAG)
        && text(CONTENT_LENGTH).is_none_or(|length| length == "503")
}

/// `Retry-After` in both of its forms (RFC 9110, section 10.2.3), at most [`SERVER_WAIT_MAX`].
fn server_wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(SERVER_WAIT_MAX))
}

/// Resolves names, and keeps only addresses that the guard permits. What it returns is what is connected to.
#[derive(Debug)]
struct GuardedResolver {
    guard: Arc<AddressGuard>,
}

#[derive(Debug, thiserror::Error)]
enum ResolveError {
    #[error("every address of the name is refused by the address guard")]
    Blocked,
    #[error("the name does not resolve")]
    NoAddress(#[source] Option<std::io::Error>),
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.guard);
        Box::pin(async move {
            let found = match tokio::net::lookup_host((name.as_str(), 0)).await {
                Ok(found) => found.collect::<Vec<SocketAddr>>(),
                Err(error) => return Err(ResolveError::NoAddress(Some(error)).into()),
            };
            if found.is_empty() {
                return Err(ResolveError::NoAddress(None).into());
            }
            let permitted: Vec<_> = found.into_iter().filter(|address| guard.permits(address.ip())).collect();
            if permitted.is_empty() {
                return Err(ResolveError::Blocked.into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

/// What a request that got no response means.
fn setback_of(error: &reqwest::Error) -> Setback {
    let mut tls = false;
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(inner) = cause {
        match inner.downcast_ref::<ResolveError>() {
            Some(ResolveError::Blocked) => return Rejection::BlockedAddress.into(),
            Some(ResolveError::NoAddress(_)) => return Failure::Dns.into(),
            None => {}
        }
        tls = tls || inner.is::<rustls::Error>() || is_tls_io(inner);
        cause = inner.source();
    }
    if error.is_connect() && error.is_timeout() {
        Failure::TimeoutConnect.into()
    } else if tls {
        Failure::Tls.into()
    } else if error.is_connect() {
        Failure::Connect.into()
    } else if error.is_timeout() {
        Failure::TimeoutIdle.into()
    } else if error.is_builder() {
        Rejection::BadUrl.into()
    } else {
        // The connection broke, or spoke no HTTP, before a response was there.
        Failure::Connect.into()
    }
}

/// rustls reports a failed handshake as an I/O error around its own, which comes here inside another one; the source of an
/// I/O error skips what it holds.
fn is_tls_io(error: &(dyn Error + 'static)) -> bool {
    let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    held.is_some_and(|held| held.is::<rustls::Error>() || is_tls_io(held))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            server_wait(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(read("120"), Some(120));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(read("Sun, 06 Nov 1994 08:48:37 GMT"), Some(0));
        assert_eq!(read("99999999"), Some(3600));
        assert_eq!(read("soon"), None);
    }

    #[test]
    fn imgur_s_placeholder_is_known_by_its_etag() {
        let mut headers = HeaderMap::new();
        headers.insert(ETAG, HeaderValue::from_static("\"d835884373f4d6c8f24742ceabe74946\""));
        assert!(is_imgur_removed(&headers));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("504"));
        assert!(!is_imgur_removed(&headers));
    }
}
