//! The private Redis of `run`: a Unix socket, an append-only file beside the storage, gone when `run` is.

use crate::commands::CommandError;
use common::error::QueueError;
use queue::{Patience, Queue};
use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Mutex;

/// How long a server may take until it answers at all.
const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(10);
/// A run that was killed leaves a server behind that takes a moment to end.
const LOCK_MAX: Duration = Duration::from_secs(2);

/// Runs the server, and stops it when standard input closes: when this process ends in any way, SIGKILL included, the
/// pipe closes, and no server is left behind. `wait` gives the server's own end back.
const SHELL: &str = r#"exec 3<&0
"$@" 3<&- </dev/null &
server=$!
{ cat <&3 >/dev/null; kill -TERM "$server" 2>/dev/null; } &
exec 3<&-
wait "$server""#;

/// A running server, and the folder that it has to itself.
#[derive(Debug)]
pub(super) struct PrivateRedis {
    child: Mutex<Child>,
    stdin: Option<ChildStdin>,
    socket_dir: TempDir,
    data_dir: PathBuf,
}

impl PrivateRedis {
    /// Starts a server on the data in `data_dir`, and waits until it answers.
    pub(super) async fn start(data_dir: &Path) -> Result<PrivateRedis, CommandError> {
        let lock = lock(data_dir).await?;
        let program = find_server()?;
        // Paths of Unix sockets end at about 100 bytes, so it cannot lie with the data. The folder is open to nobody else.
        let socket_dir = tempfile::Builder::new()
            .prefix("imgq-")
            .tempdir()
            .map_err(CommandError::system("cannot make a temporary folder"))?;
        let redis_dir = data_dir.join("redis");
        std::fs::create_dir_all(&redis_dir)
            .map_err(CommandError::system(format!("cannot make the folder {}", redis_dir.display())))?;
        let log = data_dir.join("redis.log");
        let log_file =
            File::create(&log).map_err(CommandError::system(format!("cannot write to {}", log.display())))?;
        let socket = socket_dir.path().join("redis.sock");
        // The server inherits the lock, and thereby holds it to its own end, however this process ends.
        let inheritable = |yes: bool| {
            let flags = if yes { FdFlags::empty() } else { FdFlags::CLOEXEC };
            rustix::io::fcntl_setfd(&lock, flags)
                .map_err(|error| CommandError::system("cannot pass on a lock")(error.into()))
        };
        inheritable(true)?;
        let mut child = Command::new("sh")
            .args(["-c", SHELL, "sh"])
            .arg(&program)
            .args(["--port", "0", "--unixsocketperm", "700", "--appendonly", "yes", "--appendfsync", "everysec"])
            .args(["--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(&redis_dir)
            .stdin(Stdio::piped())
            .stdout(log_file.try_clone().map_err(CommandError::system("cannot write the server's log"))?)
            .stderr(log_file)
            // Ctrl-C is for `run` to hear; the server goes last.
            .process_group(0)
            .spawn()
            .map_err(CommandError::system("cannot start sh"))?;
        // The workers are to come and must not hold it.
        inheritable(false)?;
        let stdin = child.stdin.take();
        let redis = PrivateRedis { child: Mutex::new(child), stdin, socket_dir, data_dir: data_dir.to_owned() };
        match redis.until_it_answers().await {
            Ok(()) => Ok(redis),
            Err(error) => {
                redis.stop().await;
                Err(error)
            }
        }
    }

    /// Where it listens.
    pub(super) fn url(&self) -> String {
        format!("unix://{}", self.socket_dir.path().join("redis.sock").display())
    }

    async fn until_it_answers(&self) -> Result<(), CommandError> {
        let started = Instant::now();
        let (mut patience, mut is_there) = (Patience::endless(), false);
        loop {
            match Queue::open(&self.url(), "default").await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    is_there |= matches!(error, QueueError::NotNow { .. });
                    // A large append-only file takes as long as it takes; it is said.
                    if !error.is_transient() || !(is_there || started.elapsed() < START_MAX) {
                        return Err(error.into());
                    }
                    if let Some(word) = patience.word(&error).filter(|_| is_there) {
                        eprintln!("{word}");
                    }
                }
            }
            if let Ok(Some(_)) = self.child.lock().await.try_wait() {
                return Err(self.gone("did not start"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns when the server has ended by itself, with the error to show.
    pub(super) async fn died(&self) -> CommandError {
        // The end is all that matters; an error of the wait itself means the same.
        let _ = self.child.lock().await.wait().await;
        self.gone("stopped by itself")
    }

    fn gone(&self, how: &str) -> CommandError {
        let log = self.data_dir.join("redis.log");
        let last = std::fs::read_to_string(&log).unwrap_or_default();
        let last: Vec<&str> = last.lines().rev().take(3).collect();
        CommandError::Other {
            message: format!(
                "the private redis-server {how}: {}",
                last.into_iter().rev().collect::<Vec<_>>().join(" | ")
            ),
            hint: format!("see {}; nothing is lost: the same command goes on where this one stopped", log.display()),
            code: 1,
        }
    }

    /// Stops it; what it has goes to its file first.
    pub(super) async fn stop(mut self) {
        drop(self.stdin.take());
        let child = self.child.get_mut();
        if tokio::time::timeout(STOP_MAX, child.wait()).await.is_err() {
            // The whole group: the server is a child of the shell. Its file is as good as after a power cut.
            if let Some(group) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = child.wait().await;
        }
    }
}

/// Two servers on one append-only file would ruin it.
async fn lock(data_dir: &Path) -> Result<File, CommandError> {
    let path = data_dir.join("lock");
    let file = File::create(&path).map_err(CommandError::system(format!("cannot write to {}", path.display())))?;
    let started = Instant::now();
    while file.try_lock().is_err() {
        if started.elapsed() > LOCK_MAX {
            return Err(CommandError::Other {
                message: format!("another `producer run` is using {}", data_dir.display()),
                hint: "wait for it to end, or give this one its own --storage".into(),
                code: 1,
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(file)
}

fn find_server() -> Result<PathBuf, CommandError> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers out of the PATH of ordinary users now and then.
    let folders = std::env::split_paths(&paths).chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    folders
        .flat_map(|folder| ["redis-server", "valkey-server"].map(|name| folder.join(name)))
        .find(|path| path.is_file())
        .ok_or_else(|| CommandError::Other {
            message: "there is no redis-server on this machine, and `run` starts a private one".into(),
            hint:
                "install it (Debian: apt-get install redis-server; macOS: brew install redis), or name a running one \
                   with --redis-url or REDIS_URL"
                    .into(),
            code: 1,
        })
}
