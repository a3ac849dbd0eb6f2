//! `producer imgur-credits`: what is left of Imgur's budgets. It asks Imgur, and tells the other producers.

use super::enqueue::imgur_sites;
use super::shared_budget::ThroughQueue;
use super::{CommandError, Ended, print, print_json};
use crate::cli::ImgurCreditsArgs;
use common::media::MediaTypes;
use common::text::duration;
use program::settings::QueueArgs;
use queue::Queue;
use sources::ImgurCredits;
use sources::{ListOptions, Pages, SourceOptions, Sources};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) async fn imgur_credits(queue_args: &QueueArgs, args: &ImgurCreditsArgs) -> Result<Ended, CommandError> {
    let options = SourceOptions {
        pages: Pages::Count(NonZeroU32::MIN),
        types: MediaTypes::default(),
        sites: imgur_sites()?,
        client_id: args.client_id.clone(),
        user_agent: args.user_agent.clone(),
        lists: ListOptions::default(),
        notify: Arc::new(|notice| eprintln!("{notice}")),
    };
    let mut sources = Sources::new(Vec::new(), options)?;
    // Nobody needs a Redis to know what is left; with one the others are told.
    if let Ok(queue) = Queue::open(queue_args.redis_url(), &queue_args.queue).await {
        sources.share_budget(Arc::new(ThroughQueue(queue)));
    }
    let credits = sources.imgur_credits().await?;
    if args.json {
        print_json(&credits)?
    } else {
        print(&text(&credits, SystemTime::now()))?
    }
    Ok(Ended::Done)
}

fn text(credits: &ImgurCredits, now: SystemTime) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "an unknown number".to_owned(), |n| n.to_string());
    let reset = credits.user_reset.map(|at| UNIX_EPOCH + Duration::from_secs(at));
    let anew = match reset.and_then(|at| at.duration_since(now).ok()) {
        Some(left) => format!(", all of them again in {}", duration(left)),
        None => String::new(),
    };
    format!(
        "this address: {} of {} requests left{anew}\nclient id: {} of {} requests left today; imgq stops before the last ones",
        number(credits.user_remaining),
        number(credits.user_limit),
        number(credits.client_remaining),
        number(credits.client_limit)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_reads_well_and_so_does_what_is_not_known() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let credits = ImgurCredits {
            user_limit: Some(500),
            user_remaining: Some(480),
            user_reset: Some(1090),
            client_limit: Some(12_500),
            client_remaining: None,
        };
        let text = text(&credits, now);
        assert!(text.starts_with("this address: 480 of 500 requests left, all of them again in 1m 30s\n"), "{text}");
        assert!(text.contains("client id: an unknown number of 12500 requests left today"), "{text}");
    }
}
