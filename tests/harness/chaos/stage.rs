//! What the chaos happens to: one Redis, an origin, workers each behind a network of its own, and a storage that can be
//! taken away.

use super::Plan;
use super::crowd::Bad;
use super::politeness::Disturbance;
use super::schedule::Kind;
use super::web::Web;
use crate::fault_proxy::{FaultProxy, Upstream};
use crate::{Origin, Redis, Worker};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Downloads at once in one worker.
pub(super) const CONCURRENCY: usize = 16;
/// A worker that was asked to stop has gone by then, or is killed.
const STOPPING_MAX: Duration = Duration::from_secs(12);
/// The name of the queue.
pub(super) const QUEUE: &str = "chaos";

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine with one worker, and its network to Redis.
pub(super) struct Host {
    pub(super) network: FaultProxy,
    pub(super) worker: Mutex<Option<Worker>>,
    /// What each host gets a second from the worker that is there now, and its like.
    rate: Mutex<Option<u64>>,
    /// The worker was asked to stop.
    is_leaving: AtomicBool,
}

impl Host {
    fn new(network: FaultProxy) -> Host {
        Host { network, worker: Mutex::new(None), rate: Mutex::new(None), is_leaving: AtomicBool::new(false) }
    }

    /// Does something with the worker, if it is alive.
    pub(super) fn with_worker<T>(&self, act: impl FnOnce(&mut Worker) -> T) -> Option<T> {
        let mut worker = lock(&self.worker);
        let worker = worker.as_mut()?;
        worker.ended().is_none().then(|| act(worker))
    }
}

/// A time in which all workers gave each host so many requests a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rated {
    pub(super) from: Instant,
    pub(super) to: Instant,
    pub(super) per_second: u64,
}

pub(super) struct Stage {
    pub(super) started: Instant,
    pub(super) redis: Mutex<Redis>,
    socket: PathBuf,
    pub(super) origin: Origin,
    /// Hosts that lead to each other.
    pub(super) web: Web,
    /// What workers that are started now give each host a second.
    host_rate: Mutex<Option<u64>>,
    /// When all workers kept this rate.
    pub(super) rated: Mutex<Vec<Rated>>,
    disturbances: Mutex<Vec<Disturbance>>,
    pub(super) hosts: Vec<Host>,
    pub(super) producer_network: FaultProxy,
    pub(super) storage: Storage,
    redis_clock: Option<PathBuf>,
    worker_clock: Option<PathBuf>,
    /// Rises before and after Redis is rolled back.
    pub(super) epoch: AtomicU64,
    /// Held while something is pushed by hand, and while Redis is rolled back: what is pushed within the two seconds that
    /// Redis forgets is lost, as the contract says.
    pub(super) pushing: Mutex<()>,
    /// When the copies were made that Redis went back to.
    pub(super) rollbacks: Mutex<Vec<Instant>>,
    /// How often Redis was killed and started again on its file.
    pub(super) restarts: AtomicU64,
    /// Set after the last fault of Redis.
    pub(super) redis_is_left_alone: AtomicBool,
    pub(super) is_over: AtomicBool,
    injected: Mutex<BTreeMap<Kind, u32>>,
    /// Bad periods of hosts that somebody met.
    pub(super) bad_periods: Mutex<BTreeMap<Bad, u32>>,
    violations: Mutex<Vec<String>>,
    pub(super) folder: TempDir,
    is_loud: bool,
}

impl Stage {
    /// Sets everything up; workers are started by [`Stage::keep_workers`].
    pub(super) fn set_up(plan: &Plan, storage_bytes: u64) -> Stage {
        let (workers, without, is_loud) = (plan.workers, &plan.amounts.without, plan.is_loud);
        let folder = tempfile::Builder::new().prefix("imgq-chaos-").tempdir().expect("a temporary folder");
        let clock = |name: &str, kind: Kind| {
            (!without.contains(&kind)).then(|| {
                let path = folder.path().join(name);
                std::fs::write(&path, "+0\n").expect("a clock");
                path
            })
        };
        let redis_clock = clock("redis.clock", Kind::RedisClock);
        let worker_clock = clock("worker.clock", Kind::WorkerClock);
        let environment = redis_clock.as_deref().map(clock_environment).unwrap_or_default();
        // No rewrite of the append-only file: a copy of it has to be whole.
        let redis = Redis::private_with_environment(&["--auto-aof-rewrite-percentage", "0"], environment);
        let socket = redis.socket();
        let network = || FaultProxy::start(Upstream::Unix(socket.clone()));
        let hosts = (0..workers).map(|_| Host::new(network())).collect();
        let needs_mounts =
            ![Kind::DiskFull, Kind::ReadOnlyStorage, Kind::StorageGone].iter().all(|kind| without.contains(kind));
        Stage {
            started: Instant::now(),
            hosts,
            producer_network: network(),
            storage: Storage::set_up(folder.path(), storage_bytes, needs_mounts),
            redis: Mutex::new(redis),
            socket,
            origin: Origin::start(),
            web: Web::start(plan.hosts),
            host_rate: Mutex::default(),
            rated: Mutex::default(),
            disturbances: Mutex::default(),
            redis_clock,
            worker_clock,
            epoch: AtomicU64::new(0),
            pushing: Mutex::new(()),
            rollbacks: Mutex::default(),
            restarts: AtomicU64::new(0),
            redis_is_left_alone: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            injected: Mutex::default(),
            bad_periods: Mutex::default(),
            violations: Mutex::default(),
            folder,
            is_loud,
        }
    }

    /// The full name of a key.
    pub(super) fn key(name: &str) -> String {
        format!("imgq:{{{QUEUE}}}:{name}")
    }

    /// A raw connection, if Redis answers.
    pub(super) fn raw(&self) -> Option<redis::Connection> {
        let client = redis::Client::open(format!("unix://{}", self.socket.display())).ok()?;
        let connection = client.get_connection_with_timeout(Duration::from_secs(1)).ok()?;
        connection.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        Some(connection)
    }

    pub(super) fn raw_url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Counts a fault that took place, and says so.
    pub(super) fn injected(&self, kind: Kind, what: &str) {
        *lock(&self.injected).entry(kind).or_default() += 1;
        self.say(&format!("{}: {what}", kind.name()));
    }

    /// From `from` until now a fault kept one worker, or all of them, from telling what it met, or from hearing it.
    pub(super) fn disturbed(&self, from: Instant, whose: Option<usize>, forgets: bool) {
        lock(&self.disturbances).push(Disturbance { from, to: Instant::now(), whose, forgets });
    }

    pub(super) fn disturbances(&self) -> Vec<Disturbance> {
        lock(&self.disturbances).clone()
    }

    /// One of the counters of the queue, if Redis answers.
    pub(super) fn stat(&self, name: &str) -> Option<i64> {
        let count: Option<i64> = redis::cmd("HGET").arg(Stage::key("stats")).arg(name).query(&mut self.raw()?).ok()?;
        Some(count.unwrap_or(0))
    }

    pub(super) fn times(&self, kind: Kind) -> u32 {
        lock(&self.injected).get(&kind).copied().unwrap_or(0)
    }

    pub(super) fn say(&self, what: &str) {
        if self.is_loud {
            println!("[{:7.2}s] {what}", self.started.elapsed().as_secs_f64());
        }
    }

    /// Something that must not be.
    pub(super) fn violated(&self, what: String) {
        println!("[{:7.2}s] VIOLATED: {what}", self.started.elapsed().as_secs_f64());
        lock(&self.violations).push(what);
    }

    pub(super) fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    /// Whether nothing more happens to Redis that a watcher could outlive.
    pub(super) fn is_watched_enough(&self) -> bool {
        self.redis_is_left_alone.load(Ordering::SeqCst)
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub(super) fn set_redis_clock(&self, by: &str) {
        set_clock(self.redis_clock.as_deref(), by);
    }

    pub(super) fn set_worker_clock(&self, by: &str) {
        set_clock(self.worker_clock.as_deref(), by);
    }

    /// Does what an init system does: starts workers, and starts those again that ended. Returns when the chaos is over.
    pub(super) fn keep_workers(&self) {
        let mut starts = 0;
        while !self.is_over() {
            for (n, host) in self.hosts.iter().enumerate() {
                // A mount has to be there before the service that uses it; any init system can be told so.
                let there = lock(&self.storage.is_there);
                let mut worker = lock(&host.worker);
                if let Some(ended) = worker.as_mut().and_then(Worker::ended) {
                    // 1: no Redis at the start. No code: a signal. Anything else is a crash of its own.
                    let was_asked_to = ended.code() == Some(0) && host.is_leaving.load(Ordering::SeqCst);
                    if !was_asked_to && !matches!(ended.code(), None | Some(1)) {
                        self.violated(format!("a worker ended with {ended}; see {}", self.folder.path().display()));
                    }
                    *worker = None;
                }
                if *there && worker.is_none() {
                    starts += 1;
                    *worker = Some(self.start_worker(n, host));
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.say(&format!("{starts} worker processes were started"));
    }

    /// Has all workers started again with another host rate, as one does who changes a setting. Returns once all of them have it.
    pub(super) fn restart_with_rate(&self, rate: Option<u64>) {
        *lock(&self.host_rate) = rate;
        let asked = Instant::now();
        while !self.is_over() {
            let mut is_left = false;
            for host in &self.hosts {
                let mut worker = lock(&host.worker);
                if *lock(&host.rate) == rate && worker.is_some() {
                    continue;
                }
                is_left = true;
                let Some(there) = worker.as_mut() else { continue };
                if asked.elapsed() > STOPPING_MAX {
                    // It is frozen, or Redis is away.
                    there.signal(Signal::KILL);
                } else if !host.is_leaving.swap(true, Ordering::SeqCst) {
                    there.signal(Signal::TERM);
                }
            }
            if !is_left {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn start_worker(&self, n: usize, host: &Host) -> Worker {
        let log = File::options().create(true).append(true).open(self.folder.path().join(format!("worker-{n}.log")));
        let mut command = Worker::command_at(&host.network.url(), QUEUE, &self.storage.mounted);
        let concurrency = CONCURRENCY.to_string();
        command.args(["--concurrency", &concurrency, "--host-concurrency", &concurrency, "--total-timeout", "60s"]);
        // Hosts are down and refuse for longer than few attempts take.
        command.args(["--max-attempts", "20"]);
        if !self.web.crowd().is_empty() {
            // What is silent keeps a slot for so long: with the default a few hosts would have them all.
            command.args(["--idle-timeout", "5s"]);
        }
        let rate = *lock(&self.host_rate);
        if let Some(rate) = rate {
            command.args(["--host-rate", &format!("{rate}/s")]);
        }
        *lock(&host.rate) = rate;
        host.is_leaving.store(false, Ordering::SeqCst);
        command.env("IMGQ_USER_AGENT", format!("chaos-{n}")).stderr(log.expect("a log"));
        command.envs(self.worker_clock.as_deref().map(clock_environment).unwrap_or_default());
        Worker::of(command.spawn().expect("the worker starts"))
    }
}

/// libfaketime, for programs that are started under it.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];

const C_LIBRARY: [&str; 3] =
    ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6", "/lib64/libc.so.6"];

/// Variables under which a program reads its wall clock from `file`; its steady clock stays true, as with a real clock.
pub fn clock_environment(file: &Path) -> Vec<(String, String)> {
    let first = |paths: &[&'static str]| paths.iter().find(|path| Path::new(path).exists()).copied().unwrap_or("");
    // The C library's own allocator goes before the one that Redis is linked with: that one asks for the time before
    // libfaketime is ready to tell it, and the two call each other until neither can go on.
    let libraries = format!("{}:{}", first(&FAKETIME), first(&C_LIBRARY));
    [
        ("LD_PRELOAD", libraries.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", &file.to_string_lossy()),
        ("FAKETIME_CACHE_DURATION", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Whether clocks can be set.
pub fn clocks_can_be_set() -> bool {
    [&FAKETIME, &C_LIBRARY].iter().all(|paths| paths.iter().any(|path| Path::new(path).exists()))
}

fn set_clock(file: Option<&Path>, by: &str) {
    if let Some(file) = file {
        std::fs::write(file, format!("{by}\n")).expect("a clock");
    }
}

/// A storage that can be filled, made read-only and taken away.
pub(super) struct Storage {
    /// Where the objects are, whatever the workers see.
    pub(super) real: PathBuf,
    /// Where the workers see them.
    pub(super) mounted: PathBuf,
    /// Where a mount is prepared.
    spare: PathBuf,
    is_mounted: bool,
    pub(super) is_there: Mutex<bool>,
}

impl Storage {
    fn set_up(folder: &Path, bytes: u64, needs_mounts: bool) -> Storage {
        let real = folder.join("real");
        std::fs::create_dir(&real).expect("a folder");
        if !needs_mounts {
            return Storage {
                mounted: real.clone(),
                spare: real.clone(),
                real,
                is_mounted: false,
                is_there: Mutex::new(true),
            };
        }
        let (mounted, spare) = (folder.join("storage"), folder.join("spare"));
        std::fs::create_dir(&mounted).expect("a folder");
        std::fs::create_dir(&spare).expect("a folder");
        run(&["mount", "-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs", &real.to_string_lossy()]);
        let storage = Storage { real, mounted, spare, is_mounted: true, is_there: Mutex::new(true) };
        storage.bind();
        storage
    }

    fn bind(&self) {
        run(&["mount", "--bind", &self.real.to_string_lossy(), &self.mounted.to_string_lossy()]);
    }

    fn unbind(&self) {
        run(&["umount", "-l", &self.mounted.to_string_lossy()]);
    }

    /// Leaves an empty folder where the storage was, for as long as `meanwhile` takes.
    pub(super) fn without(&self, meanwhile: impl FnOnce()) {
        *lock(&self.is_there) = false;
        self.unbind();
        meanwhile();
        self.bind();
        *lock(&self.is_there) = true;
    }

    pub(super) fn read_only(&self, meanwhile: impl FnOnce()) {
        // A mount with open files cannot be made read-only, so another one is, and then put in its place.
        let [real, spare, mounted] = [&self.real, &self.spare, &self.mounted].map(|path| path.to_string_lossy());
        run(&["mount", "--bind", &real, &spare]);
        run(&["mount", "-o", "remount,bind,ro", &spare]);
        *lock(&self.is_there) = false;
        self.unbind();
        run(&["mount", "--move", &spare, &mounted]);
        meanwhile();
        run(&["mount", "-o", "remount,bind,rw", &mounted]);
        *lock(&self.is_there) = true;
    }

    /// Fills it to the last page.
    pub(super) fn full(&self, meanwhile: impl FnOnce()) {
        let ballast = self.real.join(".ballast");
        {
            use std::io::Write;
            let mut file = File::create(&ballast).expect("ballast");
            let mut bytes = 1 << 20;
            while bytes >= 4096 {
                if file.write_all(&vec![0; bytes]).is_err() {
                    bytes /= 2;
                }
            }
        }
        meanwhile();
        std::fs::remove_file(&ballast).expect("ballast");
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.mounted).status();
            let _ = Command::new("umount").arg("-l").arg(&self.real).status();
        }
    }
}

fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{words:?}: {error}"));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}
