//! The faults themselves: a thread for each lane of the schedule.

use super::schedule::{Event, Kind};
use super::stage::{QUEUE, Rated, Stage, lock};
use crate::Origin;
use crate::fault_proxy::Network;
use crate::origin::Mood;
use crate::programs::{Producer, finish};
use rustix::process::Signal;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A lease, and a little more.
const LONGER_THAN_A_LEASE: Duration = Duration::from_millis(7500);

fn sleep_until(stage: &Stage, at: Duration) {
    let left = at.saturating_sub(stage.started.elapsed());
    std::thread::sleep(left);
}

/// From `low` to `high` ms, by the event's own random bits.
fn between(event: &Event, low: u64, high: u64) -> Duration {
    Duration::from_millis(low + event.draw % (high - low))
}

pub(super) fn workers(stage: &Stage, events: &[Event]) {
    for event in events {
        sleep_until(stage, event.at);
        match event.kind {
            Kind::WorkerClock => {
                let by = ["+3600", "-3600", "+86400"][event.draw as usize % 3];
                stage.set_worker_clock(by);
                stage.injected(event.kind, &format!("the workers' clocks are off by {by} s"));
                std::thread::sleep(Duration::from_secs(2));
                stage.set_worker_clock("+0");
            }
            Kind::KillFleet => kill_fleet(stage, event.kind),
            _ => kill_worker(stage, event.draw as usize, event.kind),
        }
    }
}

fn kill_worker(stage: &Stage, which: usize, kind: Kind) {
    let from = Instant::now();
    while from.elapsed() < MET_WITHIN {
        // One that is there: another may be between two lives, and all of them while the storage is gone.
        for n in 0..stage.hosts.len() {
            let n = (which + n) % stage.hosts.len();
            let mut worker = lock(&stage.hosts[n].worker);
            if worker.as_mut().is_some_and(|worker| worker.ended().is_none())
                && let Some(worker) = worker.take()
            {
                // Gone before anybody may start another in its place.
                worker.kill();
                stage.disturbed(Instant::now(), Some(n), false);
                stage.injected(kind, &format!("host {n}"));
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// All workers that are there, at once.
fn kill_fleet(stage: &Stage, kind: Kind) {
    let from = Instant::now();
    while from.elapsed() < MET_WITHIN {
        let mut workers: Vec<_> = stage.hosts.iter().map(|host| lock(&host.worker)).collect();
        let is_there =
            |worker: &mut Option<_>| worker.as_mut().is_some_and(|worker: &mut crate::Worker| worker.ended().is_none());
        let there: Vec<usize> = (0..workers.len()).filter(|n| is_there(&mut workers[*n])).collect();
        for n in &there {
            if let Some(worker) = workers[*n].take() {
                worker.kill();
                stage.disturbed(Instant::now(), Some(*n), false);
            }
        }
        if !there.is_empty() {
            stage.injected(kind, &format!("{} workers", there.len()));
            return;
        }
        drop(workers);
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(super) fn frozen(stage: &Stage, events: &[Event]) {
    for event in events {
        sleep_until(stage, event.at);
        let n = event.draw as usize % stage.hosts.len();
        let freeze = || {
            stage.hosts[n].with_worker(|worker| {
                worker.signal(Signal::STOP);
                worker.pid()
            })
        };
        // It may be between two lives.
        let pid = loop {
            if let Some(pid) = freeze() {
                break pid;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stage.injected(event.kind, &format!("host {n}"));
        let frozen = Instant::now();
        std::thread::sleep(LONGER_THAN_A_LEASE);
        // It may have been killed meanwhile, and another one be there.
        stage.hosts[n].with_worker(|worker| {
            if worker.pid() == pid {
                worker.signal(Signal::CONT);
            }
        });
        stage.disturbed(frozen, Some(n), false);
    }
}

/// Pushes what a job should not be. Returns when its last one was pushed.
pub(super) fn jobs(stage: &Stage, events: &[Event]) {
    for (n, event) in events.iter().enumerate() {
        sleep_until(stage, event.at);
        let element = match event.kind {
            Kind::PoisonJob => stage.origin.url(&format!("poison/{n}")),
            _ => format!("{{\"unreadable {n}\":"),
        };
        push(stage, &element);
        stage.injected(event.kind, &element);
    }
}

fn push(stage: &Stage, element: &str) {
    let _no_rollback = lock(&stage.pushing);
    loop {
        let pushed = stage
            .raw()
            .map(|mut raw| redis::cmd("RPUSH").arg(Stage::key("ready")).arg(element).query::<i64>(&mut raw).is_ok());
        // Nobody else pushes, so one that was refused was not pushed.
        if pushed == Some(true) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Kills each worker that asks for poison.
pub(super) fn poison(stage: &Stage) {
    while !stage.is_over() {
        for agent in stage.origin.take_poisoned() {
            if let Some(n) = agent.strip_prefix("chaos-").and_then(|n| n.parse::<usize>().ok())
                && let Some(worker) = lock(&stage.hosts[n].worker).take()
            {
                worker.kill();
                stage.disturbed(Instant::now(), Some(n), false);
                stage.say(&format!("poison killed the worker of host {n}"));
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn redis(stage: &Stage, events: &[Event]) {
    for event in events {
        sleep_until(stage, event.at);
        let from = Instant::now();
        match event.kind {
            Kind::RestartRedis => {
                let mut redis = lock(&stage.redis);
                redis.kill();
                // Sometimes for longer than a lease.
                let away = between(event, 0, 9000);
                std::thread::sleep(away);
                redis.start_again();
                stage.restarts.fetch_add(1, Ordering::SeqCst);
                stage.injected(event.kind, &format!("killed, and started on its file after {away:.1?}"));
            }
            Kind::RollBackRedis => roll_back(stage),
            Kind::PauseRedis => {
                lock(&stage.redis).signal(Signal::STOP);
                std::thread::sleep(LONGER_THAN_A_LEASE);
                lock(&stage.redis).signal(Signal::CONT);
                stage.injected(event.kind, "for longer than the lease");
            }
            Kind::FlushScripts => command(stage, event.kind, &["SCRIPT", "FLUSH"]),
            Kind::KillClients => command(stage, event.kind, &["CLIENT", "KILL", "TYPE", "normal"]),
            Kind::Maxmemory => maxmemory(stage),
            Kind::RedisClock => {
                let by = ["+3600", "-3600"][event.draw as usize % 2];
                stage.set_redis_clock(by);
                stage.injected(event.kind, &format!("Redis' clock is off by {by} s"));
                std::thread::sleep(between(event, 2000, 5000));
                stage.set_redis_clock("+0");
            }
            other => stage.violated(format!("{other:?} is no fault of Redis")),
        }
        stage.disturbed(from, None, matches!(event.kind, Kind::RollBackRedis | Kind::RedisClock));
    }
}

fn command(stage: &Stage, kind: Kind, words: &[&str]) {
    let mut cmd = redis::cmd(words[0]);
    for word in &words[1..] {
        cmd.arg(*word);
    }
    // It may be busy with what was done to it before.
    for _ in 0..100 {
        if let Some(mut raw) = stage.raw() {
            // A connection that kills itself gets no answer.
            let result: redis::RedisResult<redis::Value> = cmd.query(&mut raw);
            if result.is_ok() || kind == Kind::KillClients {
                stage.injected(kind, &words.join(" "));
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    stage.violated(format!("Redis does not take {words:?}"));
}

/// Starts Redis again from a copy of its file that is two seconds old, with the workers alive.
fn roll_back(stage: &Stage) {
    let _no_pushing = lock(&stage.pushing);
    let mut redis = lock(&stage.redis);
    let copied = Instant::now();
    let copy = redis.snapshot();
    std::thread::sleep(Duration::from_secs(2));
    stage.epoch.fetch_add(1, Ordering::SeqCst);
    redis.kill();
    redis.restore(&copy);
    redis.start_again();
    stage.epoch.fetch_add(1, Ordering::SeqCst);
    lock(&stage.rollbacks).push(copied);
    stage.injected(Kind::RollBackRedis, "to two seconds ago");
}

/// Enqueue is refused, with nothing added; what the workers do goes on.
fn maxmemory(stage: &Stage) {
    let set = |bytes: &str| {
        stage.raw().is_some_and(|mut raw| {
            let mut cmd = redis::cmd("CONFIG");
            cmd.arg("SET").arg("maxmemory").arg(bytes).query::<()>(&mut raw).is_ok()
        })
    };
    while !set("1") {
        std::thread::sleep(Duration::from_millis(100));
    }
    let link = stage.origin.url("never/enqueued.gif");
    let refused =
        finish(Producer::command_at(&stage.raw_url(), QUEUE, &["enqueue", &link]), b"", Duration::from_secs(60));
    if refused.code != 1 || !refused.stderr.contains("out of memory") || !refused.stderr.contains("hint:") {
        stage.violated(format!("an enqueue at maxmemory was not refused as it should be: {refused:?}"));
    }
    // Whoever only looks is told, and what frees memory would do so.
    for arguments in
        [&["status", "--json"][..], &["batches"], &["dead", "list"], &["purge", "--dry-run"], &["retention"]]
    {
        let looked = finish(Producer::command_at(&stage.raw_url(), QUEUE, arguments), b"", Duration::from_secs(60));
        if looked.code != 0 {
            stage.violated(format!("{arguments:?} at maxmemory: {looked:?}"));
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    while !set("0") {
        std::thread::sleep(Duration::from_millis(100));
    }
    stage.injected(Kind::Maxmemory, "enqueue was refused");
}

pub(super) fn network(stage: &Stage, events: &[Event]) {
    for event in events {
        sleep_until(stage, event.at);
        let from = Instant::now();
        let n = event.draw as usize % (stage.hosts.len() + 1);
        let (who, network) = match stage.hosts.get(n) {
            Some(host) => (format!("host {n}"), &host.network),
            None => ("the producer".to_owned(), &stage.producer_network),
        };
        let for_a_while = |what: Network, time: Duration| {
            network.set(what);
            std::thread::sleep(time);
            network.set(Network::Good);
            stage.injected(event.kind, &format!("{who}, {time:.1?}"));
        };
        match event.kind {
            Kind::SlowNetwork => for_a_while(Network::Slow(Duration::from_millis(200)), between(event, 2000, 5000)),
            // Some for longer than a lease, some for less.
            Kind::StalledNetwork => for_a_while(Network::Stalled, between(event, 2000, 9000)),
            Kind::HalfOpenNetwork => for_a_while(Network::HalfOpen, between(event, 2000, 9000)),
            Kind::ResetNetwork => {
                network.reset();
                stage.injected(event.kind, &who);
            }
            Kind::CutReplies => {
                for host in &stage.hosts {
                    host.network.cut_replies(1);
                    host.network.cut_long_replies(1);
                }
                stage.injected(event.kind, "two replies of each host");
            }
            other => stage.violated(format!("{other:?} is no fault of the network")),
        }
        match event.kind {
            Kind::CutReplies => stage.disturbed(from, None, false),
            _ if n < stage.hosts.len() => stage.disturbed(from, Some(n), false),
            _ => {}
        }
    }
}

pub(super) fn storage(stage: &Stage, events: &[Event]) {
    for event in events {
        sleep_until(stage, event.at);
        let time = between(event, 1500, 4000);
        let wait = || std::thread::sleep(time);
        match event.kind {
            Kind::DiskFull => stage.storage.full(wait),
            Kind::ReadOnlyStorage => stage.storage.read_only(wait),
            Kind::StorageGone => stage.storage.without(wait),
            _ => slow_storage(stage, event, time),
        }
        if event.kind != Kind::SlowStorage {
            stage.injected(event.kind, &format!("{time:.1?}"));
        }
    }
}

/// Every rename of one worker takes a fifth of a second longer.
fn slow_storage(stage: &Stage, event: &Event, time: Duration) {
    let n = event.draw as usize % stage.hosts.len();
    let pid = loop {
        if let Some(pid) = stage.hosts[n].with_worker(|worker| worker.pid()) {
            break pid;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let tracer = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=/^rename"])
        .args(["-e", "inject=/^rename:delay_enter=200000", "-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let from = Instant::now();
    let Ok(mut tracer) = tracer else {
        stage.violated("strace cannot be started".into());
        return;
    };
    std::thread::sleep(time);
    // Asked politely it lets go of the worker.
    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&tracer), Signal::TERM);
    let _ = tracer.wait();
    stage.disturbed(from, Some(n), false);
    stage.injected(event.kind, &format!("host {n}, {time:.1?}"));
}

/// Hosts refuse, go down and come back; every other time it is the one that most redirects lead to.
pub(super) fn web(stage: &Stage, events: &[Event]) {
    for (n, event) in events.iter().enumerate() {
        sleep_until(stage, event.at);
        let origins = stage.web.origins();
        let origin = if n % 2 == 0 { stage.web.cdn() } else { origins[event.draw as usize % origins.len()] };
        let seconds = 5 + event.draw % 3;
        match event.kind {
            Kind::MoveTargets => {
                stage.web.move_targets();
                stage.injected(event.kind, "redirects lead elsewhere");
            }
            Kind::HostDown => host_down(stage, event, origin),
            Kind::RefusingHost => refuse(stage, event, origin, Mood::Refusing(Some(seconds.to_string()))),
            Kind::UnavailableHost => refuse(stage, event, origin, Mood::Unavailable(seconds.to_string())),
            Kind::DatedHost => {
                // Hours ahead of ours, or behind.
                let clock_s = [7200, -7200][event.draw as usize % 2];
                refuse(stage, event, origin, Mood::Dated { seconds, clock_s });
            }
            Kind::CurtHost => refuse(stage, event, origin, Mood::Refusing(None)),
            other => stage.violated(format!("{other:?} is no fault of a host")),
        }
    }
}

/// A fault of a host counts when somebody met it. Redis, the storage, the network and a hold of before may keep everybody from asking
/// for a while.
const MET_WITHIN: Duration = Duration::from_secs(60);

/// Refuses everybody for two seconds from the first one on.
fn refuse(stage: &Stage, event: &Event, origin: &Origin, mood: Mood) {
    let (before, from) = (origin.refusals(), Instant::now());
    let what = format!("{} in the mood {mood:?}", origin.host());
    origin.set_mood(mood);
    while origin.refusals() == before && from.elapsed() < MET_WITHIN {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(2));
    origin.set_mood(Mood::Kind);
    let refused = origin.refusals() - before;
    if refused > 0 {
        stage.injected(event.kind, &format!("{what} refused {refused}"));
    }
}

/// Connections are refused, for as long as it takes somebody to notice and for some seconds at least.
fn host_down(stage: &Stage, event: &Event, origin: &Origin) {
    let retried = || stage.stat("retried");
    let (mut before, from) = (retried(), Instant::now());
    origin.stop();
    let time = between(event, 2500, 4500);
    let mut is_met = false;
    while from.elapsed() < time || (!is_met && from.elapsed() < MET_WITHIN) {
        std::thread::sleep(Duration::from_millis(100));
        let now = retried();
        before = before.or(now);
        is_met |= now > before;
    }
    origin.start_again();
    if is_met {
        stage.injected(event.kind, &format!("{}, {:.1?}", origin.host(), from.elapsed()));
    }
}

/// All workers are started again with a host rate, and some time later without one.
pub(super) fn rate(stage: &Stage, events: &[Event], per_second: u64) {
    for event in events {
        sleep_until(stage, event.at);
        stage.restart_with_rate(Some(per_second));
        let (from, before) = (Instant::now(), stage.origin.requests_in_all());
        let asked = || (stage.origin.requests_in_all() - before) as u64;
        let is_enough = || from.elapsed() > Duration::from_secs(8) && asked() > 4 * per_second;
        while !is_enough() && from.elapsed() < MET_WITHIN {
            std::thread::sleep(Duration::from_millis(200));
        }
        lock(&stage.rated).push(Rated { from, to: Instant::now(), per_second });
        if is_enough() {
            stage.injected(event.kind, &format!("{per_second} a second for {:.1?}", from.elapsed()));
        }
        stage.restart_with_rate(None);
    }
}
