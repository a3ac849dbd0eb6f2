//! `producer forget`: takes links out of what dedup has seen, so that they can be enqueued again.

use super::enqueue::open_sources;
use super::{CommandError, Ended, open, print, print_json};
use crate::cli::ForgetArgs;
use common::text::count;
use program::settings::QueueArgs;
use queue::Queue;
use sources::Found;
use std::collections::HashSet;

/// Links that are forgotten in one go.
const AT_ONCE: usize = 1000;

pub(super) async fn forget(queue_args: &QueueArgs, args: ForgetArgs) -> Result<Ended, CommandError> {
    if args.all {
        if !args.yes {
            return Err(CommandError::Other {
                message: format!("queue {} would forget every link that it has seen", queue_args.queue),
                hint: "say --all --yes if that is meant; jobs and results stay".to_owned(),
                code: 2,
            });
        }
        let forgotten = open(queue_args).await?.forget_all_links().await?;
        return said(forgotten, 0, args.json);
    }
    if args.source.sources.is_empty() {
        return Err(CommandError::Other {
            message: "nothing to forget was named".to_owned(),
            hint: "name links, lists or -, as for `enqueue`; or all of them with --all --yes".to_owned(),
            code: 2,
        });
    }
    let mut sources = open_sources(&args.source)?;
    let queue = open(queue_args).await?;
    let (mut forgotten, mut unusable) = (0, 0);
    let mut links: HashSet<String> = HashSet::new();
    let mut left = args.source.limit.unwrap_or(u64::MAX);
    while left > 0 {
        match sources.next().await? {
            Some(Found::Link(link)) => {
                left -= 1;
                links.insert(link.url);
            }
            Some(Found::Bad(bad)) => {
                unusable += 1;
                eprintln!("{bad}");
            }
            None => break,
        }
        if links.len() == AT_ONCE {
            forgotten += forget_some(&queue, &mut links).await?;
        }
    }
    forgotten += forget_some(&queue, &mut links).await?;
    let ended = said(forgotten, unusable, args.json)?;
    Ok(if args.source.strict && unusable > 0 { Ended::CouldNot } else { ended })
}

async fn forget_some(queue: &Queue, links: &mut HashSet<String>) -> Result<u64, CommandError> {
    let links: Vec<String> = links.drain().collect();
    Ok(if links.is_empty() { 0 } else { queue.forget_links(&links).await? })
}

fn said(forgotten: u64, rejected: u64, json: bool) -> Result<Ended, CommandError> {
    if json {
        print_json(&serde_json::json!({ "forgotten": forgotten, "rejected": rejected }))?;
    } else {
        print(&format!("{} forgotten; jobs and results stay", count(forgotten, "link")))?;
    }
    Ok(Ended::Done)
}
