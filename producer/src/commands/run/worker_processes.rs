//! The worker processes of `run`: started, started again when one dies, and stopped.

use crate::cli::RunArgs;
use crate::commands::CommandError;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, ChildStdin, Command};

/// A worker that ends sooner than this has a reason that a restart does not cure.
const TOO_SOON: Duration = Duration::from_secs(2);
/// Restarts in one run, for all workers together. A job that kills its worker stops doing so at the third time.
const RESTARTS_MAX: u32 = 20;

/// The running worker processes.
#[derive(Debug)]
pub(super) struct WorkerProcesses {
    command: WorkerCommand,
    running: Vec<Running>,
    restarts: u32,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// Closes when this process ends in any way; the worker then stops as on SIGTERM.
    stdin: Option<ChildStdin>,
    started: Instant,
    log: PathBuf,
}

#[derive(Debug)]
struct WorkerCommand {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, std::ffi::OsString)>,
}

impl WorkerProcesses {
    /// Starts as many as were asked for, or one for each core.
    pub(super) fn start(
        redis_url: &str,
        queue: &str,
        args: &RunArgs,
        data_dir: &Path,
    ) -> Result<WorkerProcesses, CommandError> {
        let mut arguments = vec!["--exit-with-stdin".to_owned()];
        arguments.extend_from_slice(args.worker.as_arguments());
        let command = WorkerCommand {
            program: find_worker()?,
            arguments,
            environment: vec![
                // Not on the command line, which every user of the machine can read.
                ("REDIS_URL", redis_url.into()),
                ("IMGQ_QUEUE", queue.into()),
                ("IMGQ_STORAGE", args.storage.clone().into()),
                ("IMGQ_TYPES", args.source.types.to_string().into()),
                ("IMGQ_USER_AGENT", args.source.user_agent.clone().into()),
                // Nobody reads results during a run: a bound would stop it for ever. Empty counts as unset.
                ("IMGQ_RESULTS_MAX", "".into()),
                // Into files, whose last lines are shown when a worker cannot run.
                ("IMGQ_LOG_FORMAT", "text".into()),
            ],
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let count = args.workers.map_or(cores, |n| n as usize);
        let running =
            (1..=count).map(|n| command.start(data_dir.join(format!("worker-{n}.log")))).collect::<Result<_, _>>()?;
        Ok(WorkerProcesses { command, running, restarts: 0 })
    }

    /// Starts workers again that die. Returns only when that is of no use.
    pub(super) async fn supervise(&mut self) -> CommandError {
        loop {
            let ends = self
                .running
                .iter_mut()
                .enumerate()
                .map(|(n, running)| Box::pin(async move { (n, running.child.wait().await) }));
            let ((n, status), _, _) = futures_util::future::select_all(ends).await;
            let dead = &self.running[n];
            self.restarts += 1;
            let status = status.as_ref().ok();
            if dead.started.elapsed() < TOO_SOON && status.is_some_and(|status| status.code().is_some())
                || self.restarts > RESTARTS_MAX
            {
                return given_up(dead, status);
            }
            eprintln!("a worker ended ({}); its jobs go on in others, and another is started", describe(status));
            match self.command.start(dead.log.clone()) {
                Ok(started) => self.running[n] = started,
                Err(error) => return error,
            }
        }
    }

    /// Stops all: they finish what they can within their grace time, and give the rest back. Ctrl-C makes them give back
    /// at once.
    pub(super) async fn stop(mut self) {
        for running in &mut self.running {
            drop(running.stdin.take());
        }
        let pids: Vec<_> =
            self.running.iter().filter_map(|running| Pid::from_raw(running.child.id()?.cast_signed())).collect();
        let mut all_ended =
            std::pin::pin!(futures_util::future::join_all(self.running.iter_mut().map(|running| running.child.wait())));
        let mut notice = std::pin::pin!(tokio::time::sleep(Duration::from_secs(1)));
        let mut noticed = false;
        loop {
            tokio::select! {
                _ = &mut all_ended => return,
                () = &mut notice, if !noticed => {
                    noticed = true;
                    eprintln!("waiting for downloads that have begun; Ctrl-C gives them back at once");
                }
                _ = tokio::signal::ctrl_c() => {
                    eprintln!("stopping at once");
                    for pid in &pids {
                        // A worker that has ended meanwhile was waited for just above, so the number is not reused.
                        let _ = kill_process(*pid, Signal::TERM);
                    }
                }
            }
        }
    }
}

impl WorkerCommand {
    fn start(&self, log: PathBuf) -> Result<Running, CommandError> {
        let cannot = |what: String| CommandError::system(what);
        let log_file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(cannot(format!("cannot write to {}", log.display())))?;
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(log_file.try_clone().map_err(cannot("cannot write a worker's log".into()))?)
            .stderr(log_file)
            // Ctrl-C is for `run` to hear.
            .process_group(0)
            .spawn()
            .map_err(cannot(format!("cannot start {}", self.program.display())))?;
        let stdin = child.stdin.take();
        Ok(Running { child, stdin, started: Instant::now(), log })
    }
}

fn describe(status: Option<&ExitStatus>) -> String {
    status.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

fn given_up(dead: &Running, status: Option<&ExitStatus>) -> CommandError {
    let log = std::fs::read_to_string(&dead.log).unwrap_or_default();
    // The worker's own error and hint, in its own words.
    let last: Vec<&str> = log.lines().rev().take_while(|line| !line.contains(" INFO ")).take(4).collect();
    let message = last.iter().rev().copied().collect::<Vec<_>>().join("\n");
    CommandError::Other {
        message: format!("the workers cannot run ({}): {}", describe(status), message.trim_start_matches("error: ")),
        hint: format!("see {}", dead.log.display()),
        code: if status.and_then(ExitStatus::code) == Some(2) { 2 } else { 1 },
    }
}

/// Beside this program, where they are built and installed together, else in the PATH.
fn find_worker() -> Result<PathBuf, CommandError> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("worker")));
    let paths = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&paths).map(|folder| folder.join("worker")))
        .find(|path| path.is_file())
        .ok_or_else(|| CommandError::Other {
            message: "there is no `worker` program beside `producer`, nor in the PATH".into(),
            hint: "build both with `cargo build --release`, and keep them in one folder".into(),
            code: 1,
        })
}
