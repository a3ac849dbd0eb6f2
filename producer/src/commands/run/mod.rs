//! `producer run`: everything on this machine. A private Redis, worker processes, enqueue, wait, summary; all of it
//! stopped at the end, whatever the end is.

mod private_redis;
mod worker_processes;

use super::enqueue::{enqueue_all, how_it_ended, open_sources, summary};
use super::{CommandError, Ended, print, wait};
use crate::cli::RunArgs;
use common::job::BatchId;
use private_redis::PrivateRedis;
use program::settings::QueueArgs;
use queue::{Patience, Queue};
use std::path::PathBuf;
use std::time::Instant;
use worker_processes::WorkerProcesses;

pub(super) async fn run(queue_args: &QueueArgs, args: RunArgs) -> Result<Ended, CommandError> {
    // What can be wrong with the arguments is said before anything is started.
    let sources = open_sources(&args.source)?;
    let data_dir = args.data_dir.clone().unwrap_or_else(|| beside(&args.storage));
    std::fs::create_dir_all(&data_dir)
        .map_err(CommandError::system(format!("cannot make the folder {}", data_dir.display())))?;
    let redis = match &queue_args.redis_url {
        Some(_) => None,
        None => Some(PrivateRedis::start(&data_dir).await?),
    };
    let result = with_workers(queue_args, &args, sources, redis.as_ref(), &data_dir).await;
    // Whatever went wrong, the server has to be gone before this process is.
    if let Some(redis) = redis {
        redis.stop().await;
    }
    let has_pictures = match &result {
        Ok(ended) => *ended != Ended::CouldNot,
        // `--timeout` passed.
        Err(error) => error.exit_code() == 4,
    };
    if has_pictures {
        eprintln!("pictures are in {}", args.storage.display());
    }
    result
}

async fn with_workers(
    queue_args: &QueueArgs,
    args: &RunArgs,
    sources: sources::Sources,
    redis: Option<&PrivateRedis>,
    data_dir: &std::path::Path,
) -> Result<Ended, CommandError> {
    let url = redis.map_or_else(|| queue_args.redis_url().to_owned(), PrivateRedis::url);
    let queue = super::open_patiently(&url, &queue_args.queue, Patience::endless()).await?;
    let mut workers = WorkerProcesses::start(&url, &queue_args.queue, args, data_dir)?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(CommandError::system("cannot listen for signals"))?;
    let result = tokio::select! {
        result = work(&queue, sources, args, redis.is_some()) => result,
        error = workers.supervise() => Err(error),
        error = died(redis) => Err(error),
        _ = terminate.recv() => Err(CommandError::Other {
            message: "told to stop (SIGTERM)".into(),
            hint: "the same command goes on where this one stopped".into(),
            code: 1,
        }),
    };
    workers.stop().await;
    result
}

async fn work(queue: &Queue, sources: sources::Sources, args: &RunArgs, alone: bool) -> Result<Ended, CommandError> {
    let started = Instant::now();
    let enqueued = enqueue_all(queue, sources, &args.source, None).await?;
    if alone {
        seal_what_was_cut_off(queue, enqueued.id).await?;
    }
    let line = summary(&enqueued, started.elapsed());
    if args.json {
        eprintln!("{line}");
    } else {
        print(&line)?;
    }
    let ended = how_it_ended(&enqueued, args.source.strict);
    if ended != Ended::Done {
        return Ok(ended);
    }
    // Its own batch, and what an earlier run left unfinished.
    let mut batches = wait::unfinished(queue).await?;
    if !batches.contains(&enqueued.id) {
        batches.push(enqueued.id);
    }
    wait::wait_for_all(queue, batches, args.timeout, args.json, true).await
}

/// Batches of an earlier run whose enqueue was cut off: their enqueuer held this folder's lock and is gone, so they are as
/// complete as they will ever be.
async fn seal_what_was_cut_off(queue: &Queue, own: BatchId) -> Result<(), CommandError> {
    for batch in wait::unfinished(queue).await? {
        // One's own was sealed, or is left open on purpose.
        if batch != own {
            queue.seal_abandoned_batch(batch).await?;
        }
    }
    Ok(())
}

async fn died(redis: Option<&PrivateRedis>) -> CommandError {
    match redis {
        Some(redis) => redis.died().await,
        None => std::future::pending().await,
    }
}

/// `images` → `images.imgq`.
fn beside(storage: &std::path::Path) -> PathBuf {
    let mut name = storage.components().as_path().as_os_str().to_owned();
    name.push(".imgq");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_data_lie_beside_the_storage() {
        for (storage, data) in
            [("./images", "./images.imgq"), ("/srv/pics/", "/srv/pics.imgq"), ("images", "images.imgq")]
        {
            assert_eq!(beside(Path::new(storage)), Path::new(data));
        }
    }
}
