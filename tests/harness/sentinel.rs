//! A master and a replica that a Sentinel watches, behind one address that leads to whichever is the master: what programs
//! get from a virtual address or a managed Redis.

use crate::fault_proxy::{Network, Upstream};
use crate::{FaultProxy, Redis, until};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// How Sentinel calls the master.
const NAME: &str = "imgq";
/// A full copy is sent at once, not after waiting for further replicas.
const OPTIONS: [&str; 2] = ["--repl-diskless-sync-delay", "0"];
const SOON: Duration = Duration::from_secs(20);

/// A master, its replica, the Sentinel, and the address that leads to the master.
#[derive(Debug)]
pub struct Replicated {
    follower: Follower,
    _sentinel: Sentinel,
    /// The replica's way to its master; what it has read and not passed is lost with the master.
    link: FaultProxy,
    master: Redis,
    replica: Redis,
    replica_address: SocketAddr,
}

impl Replicated {
    /// Starts all of them, and returns when the replica has a full copy and Sentinel would promote it. Both servers
    /// have the further options.
    ///
    /// # Panics
    /// When there is no `redis-server`, or they do not come together.
    pub fn start(options: &[&str]) -> Replicated {
        let options = [&OPTIONS[..], options].concat();
        let (mut master, mut replica) = (Redis::private(&options), Redis::private(&options));
        let (master_address, replica_address) = (master.listen_on_tcp(), replica.listen_on_tcp());
        let link = FaultProxy::start(Upstream::Tcp(master_address));
        let mut replicate = redis::cmd("REPLICAOF");
        replicate.arg(link.address().ip().to_string()).arg(link.address().port());
        replicate.query::<()>(&mut replica.connect()).expect("it becomes a replica");
        until_in_step(&master, &replica);
        let sentinel = Sentinel::start(master_address);
        sentinel.until_it_would_promote();
        let follower = Follower::start(sentinel.client(), master_address);
        Replicated { follower, _sentinel: sentinel, link, master, replica, replica_address }
    }

    /// The URL that leads to the master, whichever that is.
    pub fn url(&self) -> String {
        self.follower.entrance.url()
    }

    /// The server that is the master at first.
    pub fn master(&self) -> &Redis {
        &self.master
    }

    /// The server that is the replica at first.
    pub fn replica(&self) -> &Redis {
        &self.replica
    }

    /// Changes the network between the two servers. A master notices a stalled one only after a minute.
    pub fn set_link(&self, network: Network) {
        self.link.set(network);
    }

    /// Waits until the replica has everything that the master has.
    ///
    /// # Panics
    /// When it does not get it.
    pub fn until_in_step(&self) {
        until_in_step(&self.master, &self.replica);
    }

    /// Kills the master; what was on its way to the replica is lost.
    ///
    /// # Panics
    /// When it is not there.
    pub fn kill_master(&mut self) {
        self.master.kill();
        self.link.lead_to(Upstream::Nowhere);
    }

    /// Waits until the replica is the master and programs are led to it.
    ///
    /// # Panics
    /// When that does not happen.
    pub fn until_promoted(&self) {
        until("the replica is promoted", SOON, || {
            let led_to = *self.follower.led_to.lock().unwrap_or_else(PoisonError::into_inner);
            (led_to == self.replica_address).then_some(())
        });
        until("it says that it is the master", SOON, || (fact(&self.replica, "role")? == "master").then_some(()));
    }

    /// Starts the killed master again, and waits until Sentinel has made it the replica of the other one.
    ///
    /// # Panics
    /// When that does not happen.
    pub fn bring_the_old_master_back(&mut self) {
        self.master.start_again();
        until_in_step(&self.replica, &self.master);
    }
}

/// One line of INFO; `None` while the server is starting, and when Sentinel drops all of its connections to make something else of it.
fn fact(redis: &Redis, name: &str) -> Option<String> {
    let client = redis::Client::open(redis.url()).expect("a valid URL");
    let mut connection = client.get_connection_with_timeout(SOON).ok()?;
    let info: String = redis::cmd("INFO").arg("replication").query(&mut connection).ok()?;
    info.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.to_owned()))
}

fn until_in_step(master: &Redis, replica: &Redis) {
    until("the replica has what the master has", SOON, || {
        let is_up = fact(replica, "master_link_status")? == "up";
        (is_up && fact(replica, "slave_repl_offset")? == fact(master, "master_repl_offset")?).then_some(())
    });
}

/// A Sentinel, on a Unix socket only.
#[derive(Debug)]
struct Sentinel {
    child: Child,
    dir: TempDir,
}

impl Sentinel {
    fn start(master: SocketAddr) -> Sentinel {
        let dir = tempfile::Builder::new().prefix("imgq-sentinel-").tempdir().expect("a temporary folder");
        // The second timeout is also how long Sentinel bears a replica whose master has another address than the one it
        // knows: here that is the link.
        let configuration = format!(
            "port 0\nbind 127.0.0.1\nunixsocket sentinel.sock\ndir {}\nsentinel monitor {NAME} {} {} 1\n\
             sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 60000\n",
            dir.path().display(),
            master.ip(),
            master.port(),
        );
        // It writes down there what it learns.
        let file = dir.path().join("sentinel.conf");
        std::fs::write(&file, configuration).expect("a writable folder");
        let child = Command::new("redis-server")
            .arg(file)
            .arg("--sentinel")
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is there, and is a Sentinel too");
        let sentinel = Sentinel { child, dir };
        let client = sentinel.client();
        until("Sentinel answers", SOON, || {
            let mut connection = client.get_connection_with_timeout(Duration::from_secs(1)).ok()?;
            // It looks every 10 s at what servers say of themselves, and forgets for 30 s to act when this machine was too
            // busy to let it run: a test would have to wait for that.
            let mut set = redis::cmd("SENTINEL");
            set.arg(&["DEBUG", "info-period", "500", "tilt-period", "1000"]).query::<()>(&mut connection).ok()
        });
        sentinel
    }

    fn client(&self) -> redis::Client {
        client(&self.dir.path().join("sentinel.sock"))
    }

    fn until_it_would_promote(&self) {
        let client = self.client();
        until("Sentinel knows the replica", SOON, || {
            let mut connection = client.get_connection_with_timeout(Duration::from_secs(1)).ok()?;
            let replicas: Vec<Vec<String>> =
                redis::cmd("SENTINEL").arg("REPLICAS").arg(NAME).query(&mut connection).ok()?;
            let replica = replicas.first()?;
            let says = |name: &str, value: &str| replica.chunks(2).any(|pair| pair == [name, value]);
            (says("flags", "slave") && says("role-reported", "slave") && says("master-link-status", "ok")).then_some(())
        });
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client(socket: &Path) -> redis::Client {
    redis::Client::open(format!("unix://{}", socket.display())).expect("a valid URL")
}

/// Leads the entrance to the master that Sentinel names.
#[derive(Debug)]
struct Follower {
    entrance: Arc<FaultProxy>,
    led_to: Arc<Mutex<SocketAddr>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    fn start(sentinel: redis::Client, master: SocketAddr) -> Follower {
        let entrance = Arc::new(FaultProxy::start(Upstream::Tcp(master)));
        let led_to = Arc::new(Mutex::new(master));
        let over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (entrance, led_to, over) = (Arc::clone(&entrance), Arc::clone(&led_to), Arc::clone(&over));
            move || {
                while !over.load(Ordering::Relaxed) {
                    if let Some(named) = named_master(&sentinel) {
                        let mut led_to = led_to.lock().unwrap_or_else(PoisonError::into_inner);
                        if *led_to != named {
                            entrance.lead_to(Upstream::Tcp(named));
                            *led_to = named;
                        }
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Follower { entrance, led_to, over, thread: Some(thread) }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn named_master(sentinel: &redis::Client) -> Option<SocketAddr> {
    let mut connection = sentinel.get_connection_with_timeout(Duration::from_secs(1)).ok()?;
    connection.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let mut ask = redis::cmd("SENTINEL");
    let (host, port): (String, String) = ask.arg("GET-MASTER-ADDR-BY-NAME").arg(NAME).query(&mut connection).ok()?;
    format!("{host}:{port}").parse().ok()
}
