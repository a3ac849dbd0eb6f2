//! The two programs as processes, built once for a test run.

use crate::{RawQueue, allowed, until};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Takes the programs from `folder` instead of building them.
///
/// # Panics
/// When they were used before.
pub fn use_folder(folder: &Path) {
    FOLDER.set(folder.to_owned()).expect("this comes first");
}

/// The folder with the freshly built programs.
///
/// # Panics
/// When they do not compile.
pub fn folder() -> &'static Path {
    FOLDER.get_or_init(|| {
        // Binaries of other packages are not built for a test; this is instant when they are fresh.
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "producer", "--package", "worker", "--package", "tests", "--bins"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .expect("cargo starts");
        assert!(status.success(), "the programs do not compile");
        // .../deps/wire-<hash> → ...
        let test = std::env::current_exe().expect("a test has a path");
        test.parent().and_then(Path::parent).expect("a target folder").to_owned()
    })
}

/// Variables that change what the programs do are not inherited from whoever runs the tests.
fn clean(program: &str) -> Command {
    let mut command = Command::new(folder().join(program));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("IMGQ_") || text.starts_with("IMGUR_") || text == "REDIS_URL" || text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A running worker; it is killed when this is dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
}

impl Worker {
    /// The command of a worker on `queue` that stores below `storage` and may connect to this machine.
    pub fn command(queue: &RawQueue, storage: &Path) -> Command {
        Worker::command_at(&queue.url, &queue.name, storage)
    }

    /// The command of a worker that reaches the queue `name` at `url`.
    pub fn command_at(url: &str, name: &str, storage: &Path) -> Command {
        let mut command = clean("worker");
        command
            .env("REDIS_URL", url)
            .env("IMGQ_QUEUE", name)
            .env("IMGQ_STORAGE", storage)
            .env("IMGQ_ALLOW_NETWORKS", "127.0.0.0/8")
            .env("IMGQ_RETRY_DELAY", "50ms")
            .env("RUST_LOG", "warn");
        command
    }

    /// The command of a worker that knows no queue yet.
    pub fn alone(arguments: &[&str]) -> Command {
        let mut command = clean("worker");
        command.args(arguments);
        command
    }

    /// Starts a worker with further arguments.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(queue: &RawQueue, storage: &Path, arguments: &[&str]) -> Worker {
        Worker { child: Worker::command(queue, storage).args(arguments).spawn().expect("the worker starts") }
    }

    /// A worker that was started by other means.
    pub fn of(child: Child) -> Worker {
        Worker { child }
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// When the process cannot be waited for.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("can be waited for")
    }

    /// Starts a worker by way of another program that turns into it, as `ip netns exec NAME` does: the process is the
    /// worker's own, to be signalled and killed like any other.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_through(way: &[&str], queue: &RawQueue, storage: &Path, arguments: &[&str]) -> Worker {
        let worker = Worker::command(queue, storage);
        let mut command = Command::new(way[0]);
        command.args(&way[1..]).arg(worker.get_program()).args(arguments).stdin(Stdio::null());
        for (name, value) in worker.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Worker { child: command.spawn().expect("the worker starts") }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the worker is there");
    }

    /// Ends it as a power cut would.
    ///
    /// # Panics
    /// When the process cannot be waited for.
    pub fn kill(mut self) {
        self.child.kill().expect("the worker is there");
        self.child.wait().expect("it ends");
    }

    /// Waits for its end, and tells how long that took.
    ///
    /// # Panics
    /// When it does not end within `at_most`.
    pub fn until_end(&mut self, at_most: Duration) -> (ExitStatus, Duration) {
        let started = Instant::now();
        let status = until("the worker ends", at_most, || self.child.try_wait().expect("can be waited for"));
        (status, started.elapsed())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a finished program left behind.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Finished {
        Finished {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Finished {
    /// The last line of standard output as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// Runs of the producer.
#[derive(Debug)]
pub struct Producer;

impl Producer {
    /// The command of a producer on `queue`.
    pub fn command(queue: &RawQueue, arguments: &[&str]) -> Command {
        let mut command = clean("producer");
        command.env("REDIS_URL", &queue.url).env("IMGQ_QUEUE", &queue.name).args(arguments);
        command
    }

    /// The command of a producer that reaches the queue `name` at `url`.
    pub fn command_at(url: &str, name: &str, arguments: &[&str]) -> Command {
        let mut command = clean("producer");
        command.env("REDIS_URL", url).env("IMGQ_QUEUE", name).args(arguments);
        command
    }

    /// The command of a producer that knows no queue yet.
    pub fn alone(arguments: &[&str]) -> Command {
        let mut command = clean("producer");
        command.args(arguments);
        command
    }

    /// Runs it to its end.
    pub fn run(queue: &RawQueue, arguments: &[&str]) -> Finished {
        finish(Producer::command(queue, arguments), b"", Duration::from_secs(60))
    }
}

/// Runs a command to its end with `input` on its standard input.
///
/// # Panics
/// When it does not start, or does not end within [`allowed`]`(at_most)`.
pub fn finish(mut command: Command, input: &[u8], at_most: Duration) -> Finished {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    // A program that does not read its input closes the pipe; that is its business.
    let writer = std::thread::spawn(move || drop(std::io::Write::write_all(&mut stdin, &input)));
    let read = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).expect("a readable pipe");
            bytes
        })
    };
    let stdout = read(Box::new(child.stdout.take().expect("piped")));
    let stderr = read(Box::new(child.stderr.take().expect("piped")));
    let started = Instant::now();
    let status = loop {
        match child.try_wait().expect("can be waited for") {
            Some(status) => break status,
            None if started.elapsed() > at_most && started.elapsed() > allowed(at_most) => {
                let _ = child.kill();
                let _ = child.wait();
                let stderr = stderr.join().unwrap_or_default();
                panic!("{command:?} did not end within {at_most:?}: {}", String::from_utf8_lossy(&stderr));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let _ = writer.join();
    let output = Output { status, stdout: stdout.join().expect("read"), stderr: stderr.join().expect("read") };
    output.into()
}
