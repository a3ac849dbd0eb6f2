//! Chaos: real Redis, real workers, a real origin, and a seeded schedule of faults; what must be true is checked all along
//! and at the end. `scripts/chaos.sh` runs it, docs/reliability.md says what it means.

mod crowd;
mod enqueuer;
mod lanes;
mod observer;
mod politeness;
pub mod recovery;
pub mod schedule;
mod stage;
mod verdict;
mod watchers;
mod web;

pub use stage::{clock_environment, clocks_can_be_set};

use crowd::Bad;
use observer::Looks;
use schedule::{Amounts, Kind, Lane, wanted};
use stage::Stage;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides everything that is decided by chance.
    pub seed: u64,
    /// Links enqueued.
    pub jobs: u64,
    /// Worker processes at once.
    pub workers: usize,
    /// Hosts with bad periods of their own, besides those that lead to each other. If there are any, two producers enqueue the same links
    /// out of other lists.
    pub hosts: usize,
    /// The faults.
    pub amounts: Amounts,
    /// Whether each fault is told as it happens.
    pub is_loud: bool,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// For people.
    pub report: String,
    /// What must not be; empty after a good run.
    pub violations: Vec<String>,
}

/// Links of one list, at most.
const LIST_LINKS: u64 = 10_000;

/// Runs a plan to its end.
///
/// # Panics
/// When the stage cannot be set up: no `redis-server`, no right to mount.
pub fn run(plan: &Plan) -> Outcome {
    let amounts = &plan.amounts;
    let mut random = fastrand::Rng::with_seed(plan.seed ^ 0x6c69_6e6b_7300);
    // Twice what is stored at most: a worker's unfinished objects come on top.
    let bytes = plan.jobs * 2 * 8192 + (64 << 20);
    let stage = Stage::set_up(plan, bytes);
    let mut schedule = schedule::schedule(plan.seed, amounts);
    let mut lane = |lane: Lane| schedule.remove(&lane).unwrap_or_default();
    let (workers, frozen, jobs, producer, redis, network, storage, web, rate) = (
        lane(Lane::Workers),
        lane(Lane::Frozen),
        lane(Lane::Jobs),
        lane(Lane::Producer),
        lane(Lane::Redis),
        lane(Lane::Network),
        lane(Lane::Storage),
        lane(Lane::Web),
        lane(Lane::Rate),
    );
    let ms_max = longest_answer_ms(plan);
    let mut links: Vec<String> = (0..plan.jobs)
        .map(|n| {
            let (ms, bytes) = (random.u64(..ms_max), 200 + random.u64(..7800));
            let image = format!("after/{ms}/{n}/{bytes}.gif");
            // A quarter of them have to do with redirects.
            match stage.web.crowd() {
                _ if random.u32(..4) == 0 => stage.web.link(&mut random, &image),
                // Two thirds of the rest.
                crowd @ [_, ..] if random.u32(..3) > 0 => crowd[random.usize(..crowd.len())].url(&image),
                _ => stage.origin.url(&image),
            }
        })
        .collect();
    let list_links = plan.jobs / (4 * u64::from(amounts.each) + 4);
    let lists = write_lists(&stage, "list", &links, list_links);
    let overlapping = if plan.hosts > 0 {
        // Each half of one list is in another one of the other producer.
        let mut moved = links.clone();
        moved.rotate_left(LIST_LINKS.min(list_links.max(1)) as usize / 2);
        write_lists(&stage, "overlapping", &moved, list_links)
    } else {
        Vec::new()
    };
    let (mut place_looks, mut file_looks) = (Looks::default(), Looks::default());
    let stage = &stage;
    let follower = watchers::Follower::start(stage);
    let mut watched = watchers::Watched::default();
    let drained_after = std::thread::scope(|scope| {
        scope.spawn(|| stage.keep_workers());
        scope.spawn(|| lanes::poison(stage));
        scope.spawn(|| observer::places(stage, &mut place_looks));
        scope.spawn(|| observer::files(stage, &mut file_looks));
        let waiter = scope.spawn(|| watchers::wait(stage, &mut watched));
        let mut faults = vec![
            scope.spawn(|| lanes::workers(stage, &workers)),
            scope.spawn(|| lanes::frozen(stage, &frozen)),
            scope.spawn(|| lanes::jobs(stage, &jobs)),
            scope.spawn(|| {
                lanes::redis(stage, &redis);
                stage.redis_is_left_alone.store(true, Ordering::SeqCst);
            }),
            scope.spawn(|| lanes::network(stage, &network)),
            scope.spawn(|| lanes::storage(stage, &storage)),
            scope.spawn(|| lanes::web(stage, &web)),
            scope.spawn(|| lanes::rate(stage, &rate, host_rate(plan))),
            scope.spawn(|| enqueuer::enqueue(stage, lists, &producer, amounts.duration)),
        ];
        if !overlapping.is_empty() {
            faults.push(scope.spawn(|| enqueuer::enqueue(stage, overlapping, &[], amounts.duration)));
        }
        for (n, origin) in stage.web.crowd().iter().enumerate() {
            let seed = plan.seed ^ (n as u64 + 1) << 32;
            faults.push(scope.spawn(move || crowd::periods(stage, origin, seed, amounts.duration)));
        }
        for fault in faults {
            if fault.join().is_err() {
                stage.violated("a lane of the chaos panicked".into());
            }
        }
        if waiter.join().is_err() {
            stage.violated("whoever waits panicked".into());
        }
        stage.say("no more faults");
        let last_fault = stage.started.elapsed();
        verdict::until_drained(stage);
        links.extend(verdict::until_hosts_are_forgotten(stage));
        stage.is_over.store(true, Ordering::Relaxed);
        stage.started.elapsed().saturating_sub(last_fault)
    });
    follower.end(stage);
    if amounts.each > 0 && !amounts.without.contains(&Kind::RestartRedis) && watched.outlived == 0 {
        stage.violated("no wait for a batch outlived a restart of Redis".into());
    }
    let mut figures = verdict::judge(stage, &links.iter().cloned().collect::<BTreeSet<_>>());
    verdict::judge_politeness(stage, &mut figures);
    if plan.amounts.each > 0 && place_looks.waiting_for_target.is_empty() {
        stage.violated("no job was seen that waits for the target of a redirect".into());
    }
    for kind in Kind::ALL {
        let (times, wanted) = (stage.times(kind), wanted(amounts, kind));
        if times < wanted {
            stage.violated(format!("{} was injected {times} times, not {wanted}", kind.name()));
        }
    }
    let bad_periods = |bad: Bad| stage::lock(&stage.bad_periods).get(&bad).copied().unwrap_or(0);
    for bad in Bad::ALL.into_iter().filter(|bad| plan.hosts > 0 && bad_periods(*bad) == 0) {
        stage.violated(format!("nobody met a period of {}", bad.name()));
    }
    let mut report = String::new();
    let mut line = |text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(report, "{text}");
    };
    line(format!("seed {}: {} jobs, {} workers", plan.seed, plan.jobs, plan.workers));
    line(format!("  took {:.0?}, of which {drained_after:.1?} after the last fault", stage.started.elapsed()));
    let faults: Vec<String> = Kind::ALL
        .into_iter()
        .filter(|kind| stage.times(*kind) > 0)
        .map(|kind| format!("{} {}", stage.times(kind), kind.name()))
        .collect();
    line(format!("  faults: {}", faults.join(", ")));
    if !amounts.without.is_empty() {
        let names: Vec<&str> = amounts.without.iter().map(|kind| kind.name()).collect();
        line(format!("  NOT INJECTED: {}", names.join(", ")));
    }
    let stat = |name: &str| figures.stats.get(name).copied().unwrap_or(0);
    line(format!(
        "  results {}: stored {} ({} found there again), poison called dead {}, innocent called dead {}",
        figures.results, figures.stored, figures.existed, figures.poisoned, figures.innocent
    ));
    line(format!(
        "  jobs taken back from dead workers {}, given back {}, retried {}",
        stat("recovered"),
        stat("released"),
        stat("retried")
    ));
    if plan.hosts > 0 {
        let periods: Vec<String> = Bad::ALL.iter().map(|bad| format!("{} {}", bad_periods(*bad), bad.name())).collect();
        line(format!(
            "  {} hosts with bad periods: {}; two producers with the same links",
            plan.hosts,
            periods.join(", ")
        ));
    }
    let asked: usize = stage.web.all().map(|origin| origin.requests_in_all()).sum();
    line(format!(
        "  links that hosts redirect {}: asked {asked} requests, took more than one attempt {}, seen waiting for a target {}",
        figures.redirected,
        figures.tried_again,
        place_looks.waiting_for_target.len()
    ));
    line(format!(
        "  refused with a Retry-After {} times; not to be asked for {:.1?} by all who could know, and asked {} times; the last request that a refusal forbade came {:.1?} after it",
        figures.refusals, figures.left_alone, figures.impolite, figures.latest
    ));
    line(format!(
        "  under a rate the most requests of one host in 4 s were {}, of {} allowed",
        figures.most, figures.most_allowed
    ));
    let cut: u64 = stage.hosts.iter().map(|host| host.network.replies_cut()).sum();
    line(format!(
        "  waits for a batch that came to their end {}, with a restart of Redis in between {}; results were followed throughout",
        watched.waits, watched.outlived
    ));
    line(format!(
        "  looked {} times at the places of all jobs, at {} files while it went on; {cut} replies were cut",
        place_looks.places, file_looks.files
    ));
    let violations = stage.violations();
    line(if violations.is_empty() {
        "  0 lost, 0 doubled, 0 torn".to_owned()
    } else {
        format!("  {} VIOLATIONS", violations.len())
    });
    Outcome { report, violations }
}

/// Answers take so long that the workers are busy nearly all the time: with all slots taken they do a fifth more than is
/// enqueued. A fault that meets an empty queue proves nothing.
fn longest_answer_ms(plan: &Plan) -> u64 {
    let slots = plan.workers as f64 * stage::CONCURRENCY as f64;
    let mean_ms = slots * plan.amounts.duration.as_millis() as f64 / (1.2 * plan.jobs as f64);
    (2.0 * mean_ms).clamp(1.0, 5000.0) as u64
}

/// A quarter of what all workers get done: what hosts get under a rate is far below what they get without one.
fn host_rate(plan: &Plan) -> u64 {
    let per_second = 1.2 * plan.jobs as f64 / plan.amounts.duration.as_secs_f64();
    (per_second / 4.0).max(1.0) as u64
}

/// Twice as many lists as the producer has faults, so that each finds one in its middle.
fn write_lists(stage: &Stage, name: &str, links: &[String], size: u64) -> Vec<PathBuf> {
    let size = LIST_LINKS.min(size.max(1)) as usize;
    links
        .chunks(size)
        .enumerate()
        .map(|(n, links)| {
            let path = stage.folder.path().join(format!("{name}-{n}.txt"));
            std::fs::write(&path, links.join("\n")).expect("a list");
            path
        })
        .collect()
}
