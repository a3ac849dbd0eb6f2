//! The conversation with Imgur's API and pages: requests, timeouts, tries, and waiting for the limits.
//!
//! What an answer means is left to `answer`, how long to wait to `limits`, and what to ask for to `expand`.

use super::answer::{ImgurError, Item, read_api, read_credits, read_web_album};
use super::budget::{ImgurAccount, ImgurCredits, SharedBudget};
use super::limits::{Budget, TRIES_MAX, Turn, WAIT_MAX, minutes_and_seconds};
use super::source::{ApiPath, join};
use super::target::ImgurSites;
use crate::Notify;
use crate::causes::with_causes;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two pieces of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// For an answer as a whole.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);

/// A page of 60 items takes about 200 KB, an album of a thousand images less than 2 MB.
const BODY_BYTES_MAX: usize = 32 << 20;

/// Asks Imgur. One request at a time: the limits are counted per address, and hurrying only reaches them sooner.
pub(crate) struct ImgurClient {
    http: reqwest::Client,
    sites: ImgurSites,
    /// `Client-ID …`, marked so that no debug output shows it.
    authorization: Option<HeaderValue>,
    notify: Notify,
    clock: Clock,
    /// Where other producers that use the same id tell what is left, and are told.
    shared: Option<(Arc<dyn SharedBudget>, ImgurAccount)>,
    /// Of the API; the pages have limits of their own.
    api_budget: Budget,
    web_budget: Budget,
}

/// Time as the client sees it, so that tests need not wait.
pub(super) enum Clock {
    /// The system's.
    System,
    /// Jumps when asked to sleep.
    #[cfg(test)]
    Test(std::sync::Arc<std::sync::Mutex<TestClock>>),
}

/// A clock that records its sleeps.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct TestClock {
    pub(super) now: SystemTime,
    pub(super) slept: Vec<Duration>,
}

impl Clock {
    fn now(&self) -> SystemTime {
        match self {
            Clock::System => SystemTime::now(),
            #[cfg(test)]
            Clock::Test(clock) => clock.lock().expect("no test panics with the lock held").now,
        }
    }

    async fn sleep(&self, wait: Duration) {
        match self {
            Clock::System => tokio::time::sleep(wait).await,
            #[cfg(test)]
            Clock::Test(clock) => {
                let mut clock = clock.lock().expect("no test panics with the lock held");
                clock.now += wait;
                clock.slept.push(wait);
            }
        }
    }
}

/// Which of the two doors a request goes through.
#[derive(Clone, Copy)]
enum Door {
    /// The API, with the client id.
    Api,
    /// The pages' own endpoint, which wants no id and is sent none.
    Web,
}

impl ImgurClient {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// [`ImgurError::CannotAsk`] for a client id or user agent that no header can carry.
    pub(crate) fn new(
        sites: ImgurSites,
        client_id: Option<&str>,
        user_agent: &str,
        notify: Notify,
    ) -> Result<ImgurClient, ImgurError> {
        let authorization = match client_id {
            None => None,
            Some(id) => {
                let mut value = HeaderValue::from_str(&format!("Client-ID {id}")).map_err(|_| {
                    ImgurError::CannotAsk("the client id holds characters that a header cannot carry".into())
                })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let http = reqwest::Client::builder()
            .user_agent(user_agent)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .build()
            .map_err(|error| ImgurError::CannotAsk(with_causes(&error)))?;
        Ok(ImgurClient {
            http,
            sites,
            authorization,
            notify,
            clock: Clock::System,
            shared: None,
            api_budget: Budget::default(),
            web_budget: Budget::default(),
        })
    }

    /// The same client with another clock.
    #[cfg(test)]
    pub(super) fn with_clock(self, clock: Clock) -> ImgurClient {
        ImgurClient { clock, ..self }
    }

    /// Shares the API's budget with the other producers of `client_id`, through `shared`.
    pub(crate) fn share_budget(&mut self, shared: Arc<dyn SharedBudget>, client_id: &str) {
        self.shared = Some((shared, ImgurAccount::of(self.sites.api.as_str(), client_id)));
    }

    /// Asks what is left of the budget, which costs a request of it.
    ///
    /// # Errors
    /// Any [`ImgurError`].
    pub(crate) async fn credits(&mut self) -> Result<ImgurCredits, ImgurError> {
        let url = ApiPath::new(&["credits"]).below(&self.sites.api);
        let site = self.sites.api.as_str().trim_end_matches('/').to_owned();
        let at_site = |error| match error {
            ImgurError::Unreachable { why, .. } => ImgurError::Unreachable { site: site.clone(), why },
            other => other,
        };
        let (status, body) = self.fetch(Door::Api, &url).await.map_err(at_site)?;
        let credits = read_credits(status, &body).map_err(at_site)?;
        self.api_budget.learn(&credits);
        self.tell_budget().await;
        Ok(*self.api_budget.told())
    }

    /// Takes over what other producers were told. Without Redis everybody goes by what was told to himself.
    async fn learn_budget(&mut self) {
        let Some((shared, account)) = &self.shared else { return };
        match shared.read(account).await {
            Ok(Some(told)) => self.api_budget.learn(&told),
            Ok(None) => {}
            Err(error) => tracing::debug!("Imgur's budget is not shared at the moment: {error}"),
        }
    }

    async fn tell_budget(&self) {
        let Some((shared, account)) = &self.shared else { return };
        if let Err(error) = shared.note(account, *self.api_budget.told()).await {
            tracing::debug!("Imgur's budget is not shared at the moment: {error}");
        }
    }

    /// Where Imgur is.
    pub(crate) fn sites(&self) -> &ImgurSites {
        &self.sites
    }

    /// The items at a path of the API. Waits for the limits, an hour at most, and tries again what may pass.
    ///
    /// Cancel safe: a dropped call is as if it had not been made, but for the request that may be counted.
    ///
    /// # Errors
    /// Any [`ImgurError`] but `Limited`.
    pub(crate) async fn items(&mut self, path: &ApiPath) -> Result<Vec<Item>, ImgurError> {
        self.ask(Door::Api, path.below(&self.sites.api)).await
    }

    /// The images of an album, without a client id. Otherwise as [`ImgurClient::items`].
    ///
    /// # Errors
    /// As in [`ImgurClient::items`]; `NotFound` also when `id` is no album but an image.
    pub(crate) async fn web_album(&mut self, id: &str) -> Result<Vec<Item>, ImgurError> {
        let url = join(&self.sites.web, ["ajaxalbums", "getimages", id, "hit.json"].into_iter());
        self.ask(Door::Web, url).await
    }

    async fn ask(&mut self, door: Door, url: Url) -> Result<Vec<Item>, ImgurError> {
        let (mut refusals, mut failures, mut waited) = (0, 0, Duration::ZERO);
        loop {
            if matches!(door, Door::Api) {
                self.learn_budget().await;
            }
            if let Turn::Wait(wait) = self.budget(door).turn(self.clock.now())? {
                let why = ImgurError::Limited { over_capacity: false };
                waited = self.wait_for_limit(door, &why, wait, waited).await?;
            }
            match self.try_once(door, &url).await {
                Ok(items) => return Ok(items),
                Err(limited @ ImgurError::Limited { .. }) => {
                    refusals += 1;
                    let now = self.clock.now();
                    // When it is the day's budget that is used up, no wait of an hour helps.
                    self.budget(door).turn(now)?;
                    let wait = self.budget(door).after_refusal(refusals, now);
                    waited = self.wait_for_limit(door, &limited, wait, waited).await?;
                }
                Err(ImgurError::Unreachable { why, .. }) => {
                    failures += 1;
                    if failures >= TRIES_MAX {
                        return Err(ImgurError::Unreachable { site: self.site(door).to_owned(), why });
                    }
                    let wait = self.budget(door).after_failure(failures, fastrand::f64());
                    tracing::debug!(%url, %why, failures, wait_ms = wait.as_millis(), "no answer from Imgur, trying again");
                    self.clock.sleep(wait).await;
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// Sleeps, unless that takes longer than one request may wait in all. Returns how long it has waited by now.
    async fn wait_for_limit(
        &mut self,
        door: Door,
        why: &ImgurError,
        wait: Duration,
        waited: Duration,
    ) -> Result<Duration, ImgurError> {
        let in_all = waited.saturating_add(wait);
        if in_all > WAIT_MAX {
            return Err(ImgurError::LimitLasts { waited_s: waited.as_secs(), left_s: wait.as_secs() });
        }
        (self.notify)(format!("{why}; waiting {}", minutes_and_seconds(wait)));
        self.clock.sleep(wait).await;
        self.budget_mut(door).forget_user_limit();
        Ok(in_all)
    }

    async fn try_once(&mut self, door: Door, url: &Url) -> Result<Vec<Item>, ImgurError> {
        let (status, body) = self.fetch(door, url).await?;
        match door {
            Door::Api => read_api(status, &body),
            Door::Web => read_web_album(status, &body),
        }
    }

    /// The status and the body of an answer.
    async fn fetch(&mut self, door: Door, url: &Url) -> Result<(u16, Vec<u8>), ImgurError> {
        let mut request = self.http.get(url.clone());
        if let (Door::Api, Some(authorization)) = (door, &self.authorization) {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let mut response = request.send().await.map_err(failure)?;
        let status = response.status().as_u16();
        let now = self.clock.now();
        let headers = response.headers();
        self.budget_mut(door).update(|name| headers.get(name)?.to_str().ok(), now);
        if matches!(door, Door::Api) {
            self.tell_budget().await;
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failure)? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                let message = format!("an answer of more than {} MiB", BODY_BYTES_MAX >> 20);
                return Err(ImgurError::Refused { status, message });
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }

    fn budget(&self, door: Door) -> &Budget {
        match door {
            Door::Api => &self.api_budget,
            Door::Web => &self.web_budget,
        }
    }

    fn budget_mut(&mut self, door: Door) -> &mut Budget {
        match door {
            Door::Api => &mut self.api_budget,
            Door::Web => &mut self.web_budget,
        }
    }

    fn site(&self, door: Door) -> &str {
        match door {
            Door::Api => self.sites.api.as_str(),
            Door::Web => self.sites.web.as_str(),
        }
    }
}

/// A failure of the connection; nearly all may pass.
fn failure(error: reqwest::Error) -> ImgurError {
    if error.is_builder() {
        return ImgurError::CannotAsk(with_causes(&error));
    }
    ImgurError::Unreachable { site: String::new(), why: with_causes(&error) }
}

#[cfg(test)]
mod tests {
    use super::super::test_server::{Reply, TestImgur, error_body, reset_in};
    use super::*;

    fn random_page() -> ApiPath {
        super::super::ImgurSource::Random.page(0)
    }

    fn ok() -> Reply {
        Reply::json(r#"{"data":[{"id":"aaaaaaa","type":"image/jpeg"}],"success":true,"status":200}"#)
    }

    #[tokio::test]
    async fn the_id_goes_to_the_api_only_and_bases_keep_their_paths() {
        let imgur = TestImgur::start(vec![ok(), Reply::json(r#"{"data":[],"success":true,"status":200}"#)]).await;
        let mut client = imgur.client(Some("sesame"));
        client.items(&random_page()).await.expect("items");
        assert_eq!(client.web_album("bbbbbbb").await, Err(ImgurError::NotFound(String::new())));
        let requests = imgur.requests();
        assert!(requests[0].starts_with("GET /api/3/gallery/random/random/0 HTTP/1.1\r\n"), "{}", requests[0]);
        assert!(requests[0].contains("authorization: Client-ID sesame\r\n"), "{}", requests[0]);
        assert!(requests[0].contains("user-agent: imgq-test\r\n"), "{}", requests[0]);
        assert!(requests[1].starts_with("GET /web/ajaxalbums/getimages/bbbbbbb/hit.json HTTP/1.1\r\n"));
        assert!(!requests[1].contains("sesame"), "{}", requests[1]);
    }

    #[tokio::test]
    async fn a_refusal_is_waited_for_with_a_notice() {
        let imgur = TestImgur::start(vec![
            Reply::json(&error_body("Too Many Requests", 429)).status(429).header("Retry-After", "7"),
            Reply::json(&error_body("Imgur is temporarily over capacity. Please try again later.", 403)).status(403),
            Reply::json(&error_body("Too Many Requests", 429))
                .status(429)
                .header("X-RateLimit-UserRemaining", "0")
                .header("X-RateLimit-UserReset", &reset_in(7 + 60 + 719)),
            ok(),
        ])
        .await;
        let items = imgur.client(Some("id")).items(&random_page()).await.expect("items in the end");
        assert_eq!(items.len(), 1);
        assert_eq!(imgur.slept_s(), [7, 60, 720]);
        let notices = [
            "Imgur's limit is used up; waiting 7s",
            "Imgur is over capacity; waiting 1m0s",
            "Imgur's limit is used up; waiting 12m0s",
        ];
        assert_eq!(imgur.notices(), notices);
    }

    #[tokio::test]
    async fn it_waits_before_the_limit_is_used_up_and_asks_after_the_reset() {
        let imgur = TestImgur::start(vec![
            ok().header("X-RateLimit-UserRemaining", "1").header("X-RateLimit-UserReset", &reset_in(99)),
            ok(),
        ])
        .await;
        let mut client = imgur.client(Some("id"));
        for _ in 0..2 {
            client.items(&random_page()).await.expect("items");
        }
        assert_eq!(imgur.slept_s(), [100]);
    }

    #[tokio::test]
    async fn it_stops_before_the_day_s_budget_is_used_up() {
        let imgur = TestImgur::start(vec![ok().header("X-RateLimit-ClientRemaining", "49")]).await;
        let mut client = imgur.client(Some("id"));
        client.items(&random_page()).await.expect("the answer that tells it counts");
        let error = client.items(&random_page()).await.expect_err("no further request");
        assert_eq!(error, ImgurError::BudgetUsedUp { remaining: 49 });
        assert!(error.hint().is_some_and(|hint| hint.contains("tomorrow")));
        assert_eq!(imgur.requests().len(), 1);
    }

    #[tokio::test]
    async fn it_waits_an_hour_at_most() {
        let refusal = || Reply::json(&error_body("Too Many Requests", 429)).status(429);
        let imgur = TestImgur::start(vec![refusal().header("Retry-After", "3000"), refusal(), refusal()]).await;
        let mut client = imgur.client(Some("id"));
        // 3000 s told, 60 s blind, and 120 s, 240 s … until the hour is over.
        let error = client.items(&random_page()).await.expect_err("no endless wait");
        assert!(matches!(error, ImgurError::LimitLasts { waited_s: 3000..=3660, .. }), "{error:?}");
        assert!(imgur.slept_s().iter().sum::<u64>() <= WAIT_MAX.as_secs());
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_within_bounds() {
        let torn = || Reply::json(r#"{"data":[{"id":"aaa"#);
        let page = || Reply::json("<html>bad gateway</html>").status(502);
        let imgur =
            TestImgur::start(vec![torn(), page(), Reply::hang_up(), ok(), page(), page(), page(), page()]).await;
        let mut client = imgur.client(Some("id"));
        assert_eq!(client.items(&random_page()).await.map(|items| items.len()), Ok(1));
        let error = client.items(&random_page()).await.expect_err("it gives up");
        let expected = ImgurError::Unreachable { site: format!("{}/api", imgur.base()), why: "HTTP 502".into() };
        assert_eq!(error, expected);
        assert!(imgur.notices().is_empty());
        assert_eq!(imgur.requests().len(), 8);
    }

    #[tokio::test]
    async fn a_wrong_id_is_named_and_not_printed() {
        let imgur = TestImgur::start(vec![Reply::json(&error_body("The client_id is invalid", 403)).status(403)]).await;
        let error = imgur.client(Some("sesame")).items(&random_page()).await.expect_err("refused");
        assert!(matches!(error, ImgurError::ClientId { status: 403, .. }));
        let shown = format!("{error} {error:?} {:?}", error.hint());
        assert!(shown.contains("IMGUR_CLIENT_ID") && !shown.contains("sesame"), "{shown}");
        let unusable = imgur.try_client(Some("a\nb")).err().expect("no header can carry it");
        assert!(matches!(unusable, ImgurError::CannotAsk(_)) && !unusable.to_string().contains("a\nb"));
    }
}
