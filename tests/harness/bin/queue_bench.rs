//! `queue-bench`: the queue alone, for `scripts/bench.sh queue`. Workers that claim and settle at once, as if every download had
//! been done: what is left is what Redis and its client cost. The queue is filled before, by `producer enqueue`.

use ::queue::{Claim, ClaimRequest, LeaseField, Queue, Settlement, WorkerName};
use clap::Parser;
use common::job::Job;
use common::media::MediaType;
use common::outcome::Outcome;
use common::report::{Report, StoredObject};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Empties a queue without downloading anything; prints one object of JSON.
#[derive(Parser)]
#[command(name = "queue-bench")]
struct Arguments {
    /// The Redis to use
    #[arg(long, env = "REDIS_URL")]
    redis_url: String,
    /// The queue's name
    #[arg(long, default_value = "default")]
    queue: String,
    /// Workers, each a thread with a connection of its own
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Jobs of one claim, and of one settlement
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// Do not claim while a settlement is under way, so that the times of both can be told apart
    #[arg(long)]
    apart: bool,
}

/// What one worker did.
#[derive(Default)]
struct Done {
    jobs: usize,
    claiming: Duration,
    settling: Duration,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let started = Instant::now();
    let all: Result<Vec<Done>, String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..arguments.workers.max(1)).map(|_| scope.spawn(|| work(&arguments))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a worker panicked".into()))).collect()
    });
    let seconds = started.elapsed().as_secs_f64();
    match all {
        Ok(all) => {
            let sum = |of: fn(&Done) -> f64| all.iter().map(of).sum::<f64>();
            let (jobs, claiming) = (sum(|done| done.jobs as f64), sum(|done| done.claiming.as_secs_f64()));
            let settling = sum(|done| done.settling.as_secs_f64());
            println!(
                "{}",
                serde_json::json!({"jobs": jobs, "seconds": seconds, "claiming": claiming, "settling": settling})
            );
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// A runtime of one thread, as a worker has it.
fn work(arguments: &Arguments) -> Result<Done, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(empty(arguments)).map_err(|error| error.to_string())
}

async fn empty(arguments: &Arguments) -> Result<Done, common::error::QueueError> {
    let queue = Queue::new(&arguments.redis_url, &arguments.queue)?;
    let worker = WorkerName::fresh();
    queue.register(&worker, &[("version", "bench".to_owned())]).await?;
    let (mut done, mut number, mut unsettled) = (Done::default(), 0, Vec::new());
    loop {
        number += 1;
        // A worker claims while its settler settles, on the same connection.
        let claimed = if arguments.apart {
            done.jobs += settle(&queue, &worker, &unsettled, &mut done.settling).await?;
            claim(&queue, &worker, number, arguments.batch, &mut done.claiming).await?
        } else {
            let (settled, claimed) = tokio::join!(
                settle(&queue, &worker, &unsettled, &mut done.settling),
                claim(&queue, &worker, number, arguments.batch, &mut done.claiming),
            );
            done.jobs += settled?;
            claimed?
        };
        if claimed.is_empty() {
            return Ok(done);
        }
        unsettled = claimed;
    }
}

async fn settle(
    queue: &Queue,
    worker: &WorkerName,
    settlements: &[(LeaseField, Settlement)],
    took: &mut Duration,
) -> Result<usize, common::error::QueueError> {
    if settlements.is_empty() {
        return Ok(0);
    }
    let started = Instant::now();
    let was_ours = queue.settle(worker, settlements, &[]).await?.accepted;
    *took += started.elapsed();
    Ok(was_ours.into_iter().filter(|was_ours| *was_ours).count())
}

/// Claims, and makes of each job the report that a download of it would have made.
async fn claim(
    queue: &Queue,
    worker: &WorkerName,
    number: u64,
    batch: usize,
    took: &mut Duration,
) -> Result<Vec<(LeaseField, Settlement)>, common::error::QueueError> {
    let started = Instant::now();
    let claim = queue.claim(worker, number, &ClaimRequest::of(batch)).await?;
    *took += started.elapsed();
    let Claim::Jobs { jobs, .. } = claim else { return Ok(Vec::new()) };
    let settlements = jobs.into_iter().filter_map(|claimed| {
        let job = Job::read(&claimed.payload, 0).ok()?;
        let object = StoredObject {
            key: job.url.split_once("://").map_or_else(String::new, |(_, rest)| rest.to_owned()),
            bytes: 3800,
            sha256: "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae".to_owned(),
            media_type: MediaType::Gif,
            dimensions: Some((32, 16)),
        };
        let report = Report {
            id: job.id,
            url: job.url,
            outcome: Outcome::Stored { exists: false },
            object: Some(object),
            status: 200,
            attempts: 1,
            duration_ms: 12,
        };
        Some((claimed.field, Settlement::Report(Box::new(report))))
    });
    Ok(settlements.collect())
}
