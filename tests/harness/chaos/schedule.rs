//! What goes wrong when: a pure function of the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "their names are printed, and say it")]
pub enum Kind {
    KillWorker,
    KillFleet,
    FreezeWorker,
    PoisonJob,
    UnreadableJob,
    WorkerClock,
    KillProducer,
    FreezeProducer,
    RestartRedis,
    RollBackRedis,
    PauseRedis,
    FlushScripts,
    KillClients,
    Maxmemory,
    RedisClock,
    SlowNetwork,
    StalledNetwork,
    HalfOpenNetwork,
    ResetNetwork,
    CutReplies,
    DiskFull,
    ReadOnlyStorage,
    SlowStorage,
    StorageGone,
    RefusingHost,
    UnavailableHost,
    CurtHost,
    DatedHost,
    HostDown,
    MoveTargets,
    HostRate,
}

/// Faults of one lane come one after another; those of different lanes at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the faults of each say it")]
pub enum Lane {
    Workers,
    Frozen,
    Jobs,
    Producer,
    Redis,
    Network,
    Storage,
    Web,
    Rate,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 31] = [
        Kind::KillWorker,
        Kind::KillFleet,
        Kind::FreezeWorker,
        Kind::PoisonJob,
        Kind::UnreadableJob,
        Kind::WorkerClock,
        Kind::KillProducer,
        Kind::FreezeProducer,
        Kind::RestartRedis,
        Kind::RollBackRedis,
        Kind::PauseRedis,
        Kind::FlushScripts,
        Kind::KillClients,
        Kind::Maxmemory,
        Kind::RedisClock,
        Kind::SlowNetwork,
        Kind::StalledNetwork,
        Kind::HalfOpenNetwork,
        Kind::ResetNetwork,
        Kind::CutReplies,
        Kind::DiskFull,
        Kind::ReadOnlyStorage,
        Kind::SlowStorage,
        Kind::StorageGone,
        Kind::RefusingHost,
        Kind::UnavailableHost,
        Kind::CurtHost,
        Kind::DatedHost,
        Kind::HostDown,
        Kind::MoveTargets,
        Kind::HostRate,
    ];

    /// As it is printed, and named after `--without`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::KillWorker => "kill-worker",
            Kind::KillFleet => "kill-fleet",
            Kind::FreezeWorker => "freeze-worker",
            Kind::PoisonJob => "poison-job",
            Kind::UnreadableJob => "unreadable-job",
            Kind::WorkerClock => "worker-clock",
            Kind::KillProducer => "kill-producer",
            Kind::FreezeProducer => "freeze-producer",
            Kind::RestartRedis => "restart-redis",
            Kind::RollBackRedis => "roll-back-redis",
            Kind::PauseRedis => "pause-redis",
            Kind::FlushScripts => "flush-scripts",
            Kind::KillClients => "kill-clients",
            Kind::Maxmemory => "maxmemory",
            Kind::RedisClock => "redis-clock",
            Kind::SlowNetwork => "slow-network",
            Kind::StalledNetwork => "stalled-network",
            Kind::HalfOpenNetwork => "half-open-network",
            Kind::ResetNetwork => "reset-network",
            Kind::CutReplies => "cut-replies",
            Kind::DiskFull => "disk-full",
            Kind::ReadOnlyStorage => "read-only-storage",
            Kind::SlowStorage => "slow-storage",
            Kind::StorageGone => "storage-gone",
            Kind::RefusingHost => "refusing-host",
            Kind::UnavailableHost => "unavailable-host",
            Kind::CurtHost => "curt-host",
            Kind::DatedHost => "dated-host",
            Kind::HostDown => "host-down",
            Kind::MoveTargets => "move-targets",
            Kind::HostRate => "host-rate",
        }
    }

    fn lane(self) -> Lane {
        match self {
            Kind::KillWorker | Kind::KillFleet | Kind::WorkerClock => Lane::Workers,
            Kind::FreezeWorker => Lane::Frozen,
            Kind::PoisonJob | Kind::UnreadableJob => Lane::Jobs,
            Kind::KillProducer | Kind::FreezeProducer => Lane::Producer,
            Kind::RestartRedis
            | Kind::RollBackRedis
            | Kind::PauseRedis
            | Kind::FlushScripts
            | Kind::KillClients
            | Kind::Maxmemory
            | Kind::RedisClock => Lane::Redis,
            Kind::SlowNetwork
            | Kind::StalledNetwork
            | Kind::HalfOpenNetwork
            | Kind::ResetNetwork
            | Kind::CutReplies => Lane::Network,
            Kind::DiskFull | Kind::ReadOnlyStorage | Kind::SlowStorage | Kind::StorageGone => Lane::Storage,
            Kind::RefusingHost
            | Kind::UnavailableHost
            | Kind::CurtHost
            | Kind::DatedHost
            | Kind::HostDown
            | Kind::MoveTargets => Lane::Web,
            Kind::HostRate => Lane::Rate,
        }
    }
}

/// One fault of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Since the beginning.
    pub at: Duration,
    /// What happens.
    pub kind: Kind,
    /// Random bits for its particulars: which worker, how long.
    pub draw: u64,
}

/// How many faults of each kind there are, and over how long.
#[derive(Debug, Clone)]
pub struct Amounts {
    /// SIGKILLs of workers.
    pub kills: u32,
    /// Of every other kind.
    pub each: u32,
    /// From the first to the last.
    pub duration: Duration,
    /// Kinds that this machine cannot do.
    pub without: BTreeSet<Kind>,
}

/// How often a kind occurs.
pub fn wanted(amounts: &Amounts, kind: Kind) -> u32 {
    match kind {
        _ if amounts.without.contains(&kind) => 0,
        Kind::KillWorker => amounts.kills,
        Kind::RefusingHost | Kind::UnavailableHost | Kind::HostDown => 2 * amounts.each,
        // Each takes all workers twice as long as many another fault takes one.
        Kind::HostRate => amounts.each.div_ceil(2),
        _ => amounts.each,
    }
}

/// The schedule of a seed: for each lane its faults, spread over the duration in random order.
pub fn schedule(seed: u64, amounts: &Amounts) -> BTreeMap<Lane, Vec<Event>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut lanes: BTreeMap<Lane, Vec<Kind>> = BTreeMap::new();
    for kind in Kind::ALL {
        let times = wanted(amounts, kind) as usize;
        lanes.entry(kind.lane()).or_default().extend(std::iter::repeat_n(kind, times));
    }
    lanes
        .into_iter()
        .map(|(lane, mut kinds)| {
            random.shuffle(&mut kinds);
            let step = amounts.duration / (kinds.len().max(1) as u32);
            let event = |(n, kind): (usize, Kind)| {
                let at = step * n as u32 + step.mul_f64(random.f64());
                Event { at, kind, draw: random.u64(..) }
            };
            (lane, kinds.into_iter().enumerate().map(event).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_schedule_again_and_another_one_another() {
        let amounts =
            Amounts { kills: 9, each: 2, duration: Duration::from_secs(60), without: [Kind::DiskFull].into() };
        assert_eq!(schedule(5, &amounts), schedule(5, &amounts));
        assert_ne!(schedule(5, &amounts), schedule(6, &amounts));
        let all: Vec<Event> = schedule(5, &amounts).into_values().flatten().collect();
        for kind in Kind::ALL {
            let times = all.iter().filter(|event| event.kind == kind).count() as u32;
            assert_eq!(times, wanted(&amounts, kind), "{kind:?}");
        }
        assert!(all.iter().all(|event| event.at <= amounts.duration));
    }
}
