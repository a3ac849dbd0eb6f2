//! What is left of Imgur's budgets, shared by all producers that use one Redis: the day's budget belongs to a client id, and an
//! application that goes over it on five days is blocked for the month.

use super::Queue;
use super::worker::host_name;
use crate::error::QueueError;
use crate::keys::Keys;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::time::Duration;

/// What was told is believed for so long. Then one request is made, whose answer tells it anew: nobody says when a day's
/// budget begins again.
const BELIEVED_FOR: Duration = Duration::from_secs(3600);

/// Whose budget it is. Holds no client id, only a digest of it and of the address of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImgurAccount(String);

impl ImgurAccount {
    /// The account of a client id at an API.
    pub fn of(api_url: &str, client_id: &str) -> ImgurAccount {
        let hash = Sha256::digest(format!("{api_url}\n{client_id}").as_bytes());
        ImgurAccount(hash[..8].iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// What Imgur's headers said last. What they did not say is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ImgurCredits {
    /// Requests that this machine's address may make in an hour.
    pub user_limit: Option<u64>,
    /// How many of them are left.
    pub user_remaining: Option<u64>,
    /// When they begin anew, seconds since 1970.
    pub user_reset: Option<u64>,
    /// Requests that the client id may make in a day, from wherever.
    pub client_limit: Option<u64>,
    /// How many of them are left.
    pub client_remaining: Option<u64>,
}

impl Queue {
    /// What any producer was told within the last hour: of the client id, and of the address of this host.
    ///
    /// # Errors
    /// As every call.
    pub async fn imgur_credits(&self, account: &ImgurAccount) -> Result<Option<ImgurCredits>, QueueError> {
        let cmd = redis::Cmd::hgetall(Keys::imgur_credits(&account.0));
        let fields: HashMap<String, u64> = self.channel.query("read Imgur's budget", &cmd).await?;
        if fields.is_empty() {
            return Ok(None);
        }
        let host = host_name();
        let number = |name: &str| fields.get(name).copied();
        let of_host = |name: &str| fields.get(&format!("{name}@{host}")).copied();
        Ok(Some(ImgurCredits {
            user_limit: of_host("user_limit"),
            user_remaining: of_host("user_remaining"),
            user_reset: of_host("user_reset"),
            client_limit: number("client_limit"),
            client_remaining: number("client_remaining"),
        }))
    }

    /// Tells the other producers. Of two that tell at once the last one counts; both are right to within a request.
    ///
    /// # Errors
    /// As every call.
    pub async fn note_imgur_credits(&self, account: &ImgurAccount, told: &ImgurCredits) -> Result<(), QueueError> {
        let host = host_name();
        let fields: Vec<(String, u64)> = [
            (format!("user_limit@{host}"), told.user_limit),
            (format!("user_remaining@{host}"), told.user_remaining),
            (format!("user_reset@{host}"), told.user_reset),
            ("client_limit".to_owned(), told.client_limit),
            ("client_remaining".to_owned(), told.client_remaining),
        ]
        .into_iter()
        .filter_map(|(name, number)| Some((name, number?)))
        .collect();
        if fields.is_empty() {
            return Ok(());
        }
        let key = Keys::imgur_credits(&account.0);
        let mut pipe = redis::pipe();
        pipe.atomic().hset_multiple(&key, &fields).ignore().expire(&key, BELIEVED_FOR.as_secs() as i64).ignore();
        self.channel.pipeline("note Imgur's budget", &pipe).await
    }
}
