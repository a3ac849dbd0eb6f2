//! What is left of Imgur's budgets, and where producers tell each other: the day's budget belongs to a client id, and an
//! application that goes over it on five days is blocked for the month.

use futures_util::future::BoxFuture;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Whose budget it is. Holds no client id, only a digest of it and of the address of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImgurAccount(String);

impl ImgurAccount {
    /// The account of a client id at an API.
    pub fn of(api_url: &str, client_id: &str) -> ImgurAccount {
        let hash = Sha256::digest(format!("{api_url}\n{client_id}").as_bytes());
        ImgurAccount(hash[..8].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digest, 16 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
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

/// Where all who use one client id tell each other what is left. Errors are sentences for the log: without it everybody goes by
/// what was told to himself.
pub trait SharedBudget: Send + Sync {
    /// What anybody was told lately, of the client id and of the address of this machine.
    fn read<'a>(&'a self, account: &'a ImgurAccount) -> BoxFuture<'a, Result<Option<ImgurCredits>, String>>;

    /// Tells the others.
    fn note<'a>(&'a self, account: &'a ImgurAccount, told: ImgurCredits) -> BoxFuture<'a, Result<(), String>>;
}
