//! A real Redis: in a container where a Docker engine answers and has the image, else a process of our own.
//!
//! The shared server is for tests that only need a queue, each under its own name. A private one is always a process: it
//! can be stopped, killed and started again on its data.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tempfile::TempDir;

#[cfg(feature = "containers")]
use testcontainers::{
    Container, GenericImage, ImageExt,
    core::{IntoContainerPort, WaitFor},
    runners::SyncRunner,
};

#[cfg(feature = "containers")]
const IMAGE: (&str, &str) = ("redis", "7-bookworm");
const OPTIONS: [&str; 4] = ["--appendonly", "yes", "--maxmemory-policy", "noeviction"];

/// A running Redis.
#[derive(Debug)]
pub struct Redis {
    url: String,
    server: Server,
}

#[derive(Debug)]
enum Server {
    /// Held for its end: the container goes with it.
    #[cfg(feature = "containers")]
    Container {
        _container: Box<Container<GenericImage>>,
    },
    Process(Process),
}

#[derive(Debug)]
struct Process {
    child: Child,
    dir: TempDir,
    options: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Redis {
    /// The server that tests share. It ends with the last test that holds it.
    ///
    /// # Panics
    /// When there is neither a container nor a `redis-server`; the message says how to install one.
    pub fn shared() -> Arc<Redis> {
        static SHARED: Mutex<Weak<Redis>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(redis) = shared.upgrade() {
            return redis;
        }
        let redis = Arc::new(in_container().unwrap_or_else(|| Redis::private(&[])));
        *shared = Arc::downgrade(&redis);
        redis
    }

    /// A server of one's own, with further options, on a Unix socket.
    ///
    /// # Panics
    /// When there is no `redis-server`; the message says how to install one.
    pub fn private(options: &[&str]) -> Redis {
        Redis::private_with_environment(options, Vec::new())
    }

    /// As [`Redis::private`], with further variables in its environment.
    ///
    /// # Panics
    /// When there is no `redis-server`; the message says how to install one.
    pub fn private_with_environment(options: &[&str], environment: Vec<(String, String)>) -> Redis {
        let dir = tempfile::Builder::new().prefix("imgq-test-").tempdir().expect("a temporary folder");
        let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
        let url = format!("unix://{}", dir.path().join("redis.sock").display());
        let child = start(dir.path(), &options, &environment);
        let redis = Redis { url, server: Server::Process(Process { child, dir, options, environment }) };
        redis.until_it_answers();
        redis
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection for raw commands.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn connect(&self) -> redis::Connection {
        let client = redis::Client::open(self.url.as_str()).expect("a valid URL");
        client.get_connection_with_timeout(Duration::from_secs(5)).expect("the server answers")
    }

    fn until_it_answers(&self) {
        let client = redis::Client::open(self.url.as_str()).expect("a valid URL");
        crate::until("Redis answers", Duration::from_secs(20), || {
            let mut connection = client.get_connection_with_timeout(Duration::from_secs(1)).ok()?;
            match redis::cmd("PING").query::<String>(&mut connection) {
                Ok(_) => Some(()),
                // A server with a password answers too.
                Err(error) if error.code() == Some("NOAUTH") => Some(()),
                Err(_) => None,
            }
        });
    }

    fn process(&mut self) -> &mut Process {
        match &mut self.server {
            Server::Process(process) => process,
            #[cfg(feature = "containers")]
            Server::Container { .. } => panic!("only a private server can be stopped"),
        }
    }

    /// Stops a private server as an administrator would; its data stay.
    ///
    /// # Panics
    /// For the shared server.
    pub fn stop(&mut self) {
        let process = self.process();
        signal(&process.child, rustix::process::Signal::TERM);
        process.child.wait().expect("it ends");
    }

    /// The socket of a private server.
    ///
    /// # Panics
    /// For the shared server.
    pub fn socket(&self) -> std::path::PathBuf {
        match &self.server {
            Server::Process(process) => process.dir.path().join("redis.sock"),
            #[cfg(feature = "containers")]
            Server::Container { .. } => panic!("the shared server has no socket here"),
        }
    }

    /// Opens a port of this machine on a private server, besides its socket. It keeps it when it is started again.
    ///
    /// # Panics
    /// For the shared server, or when no port can be had.
    pub fn listen_on_tcp(&mut self) -> SocketAddr {
        let mut connection = self.connect();
        let address = crate::until("a port", Duration::from_secs(10), || {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).ok()?;
            // Somebody else may have taken it meanwhile; then it is refused, and the next one is tried.
            let mut listen = redis::cmd("CONFIG");
            listen.arg("SET").arg("port").arg(free.port());
            listen.query::<()>(&mut connection).is_ok().then_some(free)
        });
        self.process().options.extend(["--port".to_owned(), address.port().to_string()]);
        address
    }

    /// Sends a signal to a private server: STOP and CONT pause it.
    ///
    /// # Panics
    /// For the shared server.
    pub fn signal(&mut self, which: rustix::process::Signal) {
        signal(&self.process().child, which);
    }

    /// Kills a private server.
    ///
    /// # Panics
    /// For the shared server.
    pub fn kill(&mut self) {
        let process = self.process();
        process.child.kill().expect("it is there");
        process.child.wait().expect("it ends");
    }

    /// Starts a private server again on its data.
    ///
    /// # Panics
    /// For the shared server.
    pub fn start_again(&mut self) {
        self.launch_again(&[]);
        self.until_it_answers();
    }

    /// The same, with further options this time, and without waiting until it answers.
    ///
    /// # Panics
    /// For the shared server.
    pub fn launch_again(&mut self, further: &[&str]) {
        let process = self.process();
        let options: Vec<String> =
            process.options.iter().cloned().chain(further.iter().map(|option| (*option).to_owned())).collect();
        process.child = start(process.dir.path(), &options, &process.environment);
    }

    /// A connection, if it takes one already.
    pub fn try_connect(&self) -> Option<redis::Connection> {
        redis::Client::open(self.url.as_str()).ok()?.get_connection_with_timeout(Duration::from_secs(5)).ok()
    }

    /// A copy of the data of a private server as they are now, to go back to with [`Redis::restore`].
    ///
    /// # Panics
    /// When the copy fails.
    pub fn snapshot(&mut self) -> TempDir {
        let copy = tempfile::tempdir().expect("a temporary folder");
        copy_folder(&self.process().dir.path().join("appendonlydir"), copy.path());
        copy
    }

    /// Puts a stopped server's data back to a copy.
    ///
    /// # Panics
    /// When the copy fails.
    pub fn restore(&mut self, copy: &TempDir) {
        let data = self.process().dir.path().join("appendonlydir");
        std::fs::remove_dir_all(&data).expect("there are data");
        std::fs::create_dir(&data).expect("a new folder");
        copy_folder(copy.path(), &data);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        match &mut self.server {
            Server::Process(process) => {
                let _ = process.child.kill();
                let _ = process.child.wait();
            }
            #[cfg(feature = "containers")]
            Server::Container { .. } => {}
        }
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).expect("it is there");
}

fn start(dir: &Path, options: &[String], environment: &[(String, String)]) -> Child {
    Command::new("redis-server")
        .args(["--port", "0", "--bind", "127.0.0.1", "--unixsocket", "redis.sock", "--save", ""])
        .arg("--dir")
        .arg(dir)
        .args(OPTIONS)
        .args(options)
        .current_dir(dir)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("redis-server cannot be started ({error}): install it with scripts/ensure-redis.sh")
        })
}

#[cfg(not(feature = "containers"))]
fn in_container() -> Option<Redis> {
    None
}

/// `None` when no engine answers, or it neither has nor can pull the image.
#[cfg(feature = "containers")]
fn in_container() -> Option<Redis> {
    let docker = |arguments: &[&str]| {
        let status = Command::new("timeout")
            .args(["120", "docker"])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    };
    let name = format!("{}:{}", IMAGE.0, IMAGE.1);
    if !docker(&["info"]) || !(docker(&["image", "inspect", &name]) || docker(&["pull", "-q", &name])) {
        eprintln!("no container for the shared Redis; using a redis-server process");
        return None;
    }
    let container = GenericImage::new(IMAGE.0, IMAGE.1)
        .with_exposed_port(6379.tcp())
        .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
        .with_cmd([&["redis-server"], &OPTIONS[..]].concat())
        .start()
        .map_err(|error| eprintln!("no container for the shared Redis ({error}); using a redis-server process"))
        .ok()?;
    let port = container.get_host_port_ipv4(6379.tcp()).ok()?;
    let redis = Redis {
        url: format!("redis://127.0.0.1:{port}/0"),
        server: Server::Container { _container: Box::new(container) },
    };
    redis.until_it_answers();
    Some(redis)
}
