//! Imgur's budget, told through Redis: what the sources share, in the numbers that the queue keeps.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use queue::{Queue, host_name};
use sources::{ImgurAccount, ImgurCredits, SharedBudget};

/// The service that the numbers are kept under.
const SERVICE: &str = "imgur";

/// Through the Redis of a queue. What Imgur counts by address is told by host.
pub(super) struct ThroughQueue(pub(super) Queue);

impl SharedBudget for ThroughQueue {
    fn read<'a>(&'a self, account: &'a ImgurAccount) -> BoxFuture<'a, Result<Option<ImgurCredits>, String>> {
        async move {
            let told = self.0.budget(SERVICE, account.as_str()).await.map_err(|error| error.to_string())?;
            let host = host_name();
            let number = |name: &str| told.get(name).copied();
            let of_host = |name: &str| told.get(&format!("{name}@{host}")).copied();
            Ok((!told.is_empty()).then(|| ImgurCredits {
                user_limit: of_host("user_limit"),
                user_remaining: of_host("user_remaining"),
                user_reset: of_host("user_reset"),
                client_limit: number("client_limit"),
                client_remaining: number("client_remaining"),
            }))
        }
        .boxed()
    }

    fn note<'a>(&'a self, account: &'a ImgurAccount, told: ImgurCredits) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let host = host_name();
            let numbers: Vec<(String, u64)> = [
                (format!("user_limit@{host}"), told.user_limit),
                (format!("user_remaining@{host}"), told.user_remaining),
                (format!("user_reset@{host}"), told.user_reset),
                ("client_limit".to_owned(), told.client_limit),
                ("client_remaining".to_owned(), told.client_remaining),
            ]
            .into_iter()
            .filter_map(|(name, number)| Some((name, number?)))
            .collect();
            self.0.note_budget(SERVICE, account.as_str(), &numbers).await.map_err(|error| error.to_string())
        }
        .boxed()
    }
}
