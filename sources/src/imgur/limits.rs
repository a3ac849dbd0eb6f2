//! Imgur's limits: what its headers say is left, and so whether to ask, to wait or to stop. Pure; the clock is the
//! caller's.
//!
//! Asking and sleeping are left to `client`.

use super::answer::ImgurError;
use super::budget::ImgurCredits;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Below this many requests of an address's hour, imgq waits for the next: running into the limit costs more than
/// staying clear of it.
const USER_REMAINING_MIN: u64 = 2;

/// Below this many requests of an application's day, imgq stops: five days over the limit in a month block the
/// application until the month ends, and other programs may share the id.
const CLIENT_REMAINING_MIN: u64 = 50;

/// The longest that one request waits for the limits in all. They clear within an hour, and the minute is for clocks
/// that differ.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(61 * 60);

/// The first wait after a refusal that says nothing about when; it doubles up to [`BLIND_WAIT_MAX`].
const BLIND_WAIT: Duration = Duration::from_secs(30);
const BLIND_WAIT_MAX: Duration = Duration::from_secs(10 * 60);

/// How often a request is tried whose failure may pass by itself.
pub(super) const TRIES_MAX: u32 = 4;

/// What the headers of the answers so far say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Budget {
    told: ImgurCredits,
    retry_after: Option<Duration>,
}

/// What to do before the next request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Ask.
    Ask,
    /// Wait this long, then ask.
    Wait(Duration),
}

impl Budget {
    /// Takes over what an answer's headers say. Counts that it does not tell stay as they were; a `Retry-After` is
    /// this answer's only.
    pub(super) fn update<'a>(&mut self, header: impl Fn(&str) -> Option<&'a str>, now: SystemTime) {
        let number = |name: &str| header(name).and_then(|text| text.trim().parse::<u64>().ok());
        self.learn(&ImgurCredits {
            user_limit: number("x-ratelimit-userlimit"),
            user_remaining: number("x-ratelimit-userremaining"),
            user_reset: number("x-ratelimit-userreset"),
            client_limit: number("x-ratelimit-clientlimit"),
            client_remaining: number("x-ratelimit-clientremaining"),
        });
        self.retry_after = header("retry-after").and_then(|text| retry_after(text, now));
    }

    /// Takes over what is newer, as another process was told.
    pub(super) fn learn(&mut self, newer: &ImgurCredits) {
        let told = &mut self.told;
        told.user_limit = newer.user_limit.or(told.user_limit);
        told.user_remaining = newer.user_remaining.or(told.user_remaining);
        told.user_reset = newer.user_reset.or(told.user_reset);
        told.client_limit = newer.client_limit.or(told.client_limit);
        told.client_remaining = newer.client_remaining.or(told.client_remaining);
    }

    /// What Imgur said last.
    pub(super) fn told(&self) -> &ImgurCredits {
        &self.told
    }

    /// Whether the next request may be made now.
    ///
    /// # Errors
    /// [`ImgurError::BudgetUsedUp`].
    pub(super) fn turn(&self, now: SystemTime) -> Result<Turn, ImgurError> {
        if let Some(remaining) = self.told.client_remaining.filter(|&left| left < CLIENT_REMAINING_MIN) {
            return Err(ImgurError::BudgetUsedUp { remaining });
        }
        Ok(match (self.told.user_remaining, self.until_reset(now)) {
            (Some(left), Some(wait)) if left < USER_REMAINING_MIN => Turn::Wait(wait),
            // A reset that has passed, or was never told, leaves nothing to wait for.
            _ => Turn::Ask,
        })
    }

    /// How long to wait after the `refusals`-th refusal in a row (from 1) because of a limit.
    pub(super) fn after_refusal(&self, refusals: u32, now: SystemTime) -> Duration {
        let blind = BLIND_WAIT.saturating_mul(1 << refusals.saturating_sub(1).min(10)).min(BLIND_WAIT_MAX);
        // A server that says "at once" and refuses all the same must not be asked in a tight loop.
        let least = Duration::from_secs(1 << refusals.saturating_sub(1).min(6));
        self.retry_after.or_else(|| self.until_reset(now)).map_or(blind, |told| told.max(least))
    }

    /// How long to wait after the `failures`-th failure in a row (from 1) that may pass by itself. `jitter` is a uniform
    /// number in 0..1.
    pub(super) fn after_failure(&self, failures: u32, jitter: f64) -> Duration {
        let bound = Duration::from_millis(500).saturating_mul(1 << failures.saturating_sub(1).min(4));
        let told = self.retry_after.unwrap_or_default().min(Duration::from_secs(60));
        told + bound.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// After a wait, what was told before it counts no more.
    pub(super) fn forget_user_limit(&mut self) {
        self.told.user_remaining = None;
        self.told.user_reset = None;
        self.retry_after = None;
    }

    /// Until a second after the reset, because it is told in whole seconds. `None` when it has passed.
    fn until_reset(&self, now: SystemTime) -> Option<Duration> {
        let reset = UNIX_EPOCH.checked_add(Duration::from_secs(self.told.user_reset?))?;
        reset.duration_since(now).ok().map(|left| left + Duration::from_secs(1))
    }
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

/// A wait as people read it: `45s`, `12m0s`.
pub(super) fn minutes_and_seconds(wait: Duration) -> String {
    let seconds = wait.as_millis().div_ceil(1000);
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_700_000_000;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW_S)
    }
    fn told(headers: &[(&str, &str)]) -> Budget {
        let mut budget = Budget::default();
        budget.update(|name| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| *v), now());
        budget
    }
    fn wait_s(seconds: u64) -> Result<Turn, ImgurError> {
        Ok(Turn::Wait(Duration::from_secs(seconds)))
    }

    #[test]
    fn it_asks_waits_or_stops_by_what_is_left() {
        let later = (NOW_S + 719).to_string();
        let past = (NOW_S - 5).to_string();
        for (user, reset, client, expected) in [
            ("499", later.as_str(), "12000", Ok(Turn::Ask)),
            ("2", &later, "12000", Ok(Turn::Ask)),
            ("1", &later, "12000", wait_s(720)),
            ("0", &later, "", wait_s(720)),
            ("0", &past, "", Ok(Turn::Ask)),
            ("0", "", "", Ok(Turn::Ask)),
            ("499", &later, "50", Ok(Turn::Ask)),
            ("499", &later, "49", Err(ImgurError::BudgetUsedUp { remaining: 49 })),
            ("0", &later, "0", Err(ImgurError::BudgetUsedUp { remaining: 0 })),
            ("many", "soon", "?", Ok(Turn::Ask)),
        ] {
            let budget = told(&[
                ("x-ratelimit-userremaining", user),
                ("x-ratelimit-userreset", reset),
                ("x-ratelimit-clientremaining", client),
            ]);
            assert_eq!(budget.turn(now()), expected, "{user} {reset} {client}");
        }
    }

    #[test]
    fn a_refusal_is_obeyed_by_the_best_that_is_told() {
        let reset = (NOW_S + 99).to_string();
        let date = httpdate::fmt_http_date(now() + Duration::from_secs(77));
        for (headers, refusals, expected_s) in [
            (vec![("retry-after", "7"), ("x-ratelimit-userreset", &reset)], 1, 7),
            (vec![("retry-after", date.as_str())], 1, 77),
            (vec![("retry-after", "0")], 1, 1),
            (vec![("retry-after", "0")], 9, 64),
            (vec![("retry-after", "soon"), ("x-ratelimit-userreset", &reset)], 3, 100),
            (vec![], 1, 30),
            (vec![], 2, 60),
            (vec![], 3, 120),
            (vec![], 99, 600),
        ] {
            let wait = told(&headers).after_refusal(refusals, now());
            assert_eq!(wait, Duration::from_secs(expected_s), "{headers:?} {refusals}");
        }
    }

    #[test]
    fn a_count_outlives_an_answer_that_does_not_tell_it_and_a_retry_after_does_not() {
        let mut budget = told(&[("x-ratelimit-clientremaining", "49"), ("retry-after", "7")]);
        budget.update(|_| None, now());
        assert_eq!(budget.turn(now()), Err(ImgurError::BudgetUsedUp { remaining: 49 }));
        assert_eq!(budget.after_refusal(1, now()), BLIND_WAIT);
    }

    #[test]
    fn failures_wait_longer_each_time_within_bounds() {
        let silent = Budget::default();
        let waits: Vec<_> = (1..=3).map(|n| silent.after_failure(n, 1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000]);
        assert_eq!(silent.after_failure(1, 0.0).as_millis(), 250);
        assert_eq!(told(&[("retry-after", "999999")]).after_failure(1, 1.0).as_millis(), 60_500);
    }

    #[test]
    fn waits_read_well() {
        for (millis, text) in [(0, "0s"), (400, "1s"), (59_000, "59s"), (720_000, "12m0s"), (3_661_000, "61m1s")] {
            assert_eq!(minutes_and_seconds(Duration::from_millis(millis)), text);
        }
    }
}
