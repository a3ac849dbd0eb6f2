//! `chaos`: what `scripts/chaos.sh` runs. It takes the programs that lie beside it.

use clap::Parser;
use harness::chaos::recovery::measure;
use harness::chaos::schedule::{Amounts, Kind};
use harness::chaos::{Plan, clocks_can_be_set, run};
use std::collections::BTreeSet;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// Lets everything go wrong that can, and checks that nothing is lost, doubled or torn.
#[derive(Parser)]
#[command(name = "chaos", max_term_width = 100)]
struct Arguments {
    /// Decides what goes wrong when; a failed run prints its seed  [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Links to enqueue
    #[arg(long, default_value_t = 100_000)]
    jobs: u64,
    /// SIGKILLs of workers
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// Of every other fault
    #[arg(long, default_value_t = 5)]
    each: u32,
    /// Worker processes at once
    #[arg(long, default_value_t = 6)]
    workers: usize,
    /// Hosts besides, each with periods of 429, silence, 503 and resets; then two producers enqueue the same links
    #[arg(long, default_value_t = 0)]
    hosts: usize,
    /// Seconds from the first fault to the last
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Faults to leave out, by name
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Tell each fault as it happens
    #[arg(long)]
    loud: bool,
    /// Instead measure how fast the jobs of so many killed workers run elsewhere
    #[arg(long, value_name = "KILLS")]
    recovery: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let own = std::env::current_exe().ok();
    let Some(folder) = own.as_deref().and_then(std::path::Path::parent) else {
        eprintln!("error: this program does not know where it is");
        return ExitCode::FAILURE;
    };
    harness::programs::use_folder(folder);
    if let Some(kills) = arguments.recovery {
        return recovery(kills);
    }
    let without = match left_out(&arguments.without) {
        Ok(without) => without,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    let plan = Plan {
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000)),
        jobs: arguments.jobs,
        workers: arguments.workers.max(2),
        hosts: arguments.hosts,
        amounts: Amounts {
            kills: arguments.kills,
            each: arguments.each,
            duration: Duration::from_secs(arguments.seconds),
            without,
        },
        is_loud: arguments.loud,
    };
    let outcome = run(&plan);
    print!("{}", outcome.report);
    if outcome.violations.is_empty() {
        return ExitCode::SUCCESS;
    }
    for violation in outcome.violations.iter().take(20) {
        println!("  {violation}");
    }
    println!("  again with --seed {}", plan.seed);
    ExitCode::FAILURE
}

/// The faults that were to be left out, and those that this machine cannot do.
fn left_out(names: &[String]) -> Result<BTreeSet<Kind>, String> {
    let mut without = BTreeSet::new();
    for name in names.iter().filter(|name| !name.is_empty()) {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        without.insert(kind.ok_or_else(|| {
            let all: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            format!("there is no fault \"{name}\": they are {}", all.join(", "))
        })?);
    }
    let works = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !clocks_can_be_set() {
        without.extend([Kind::RedisClock, Kind::WorkerClock]);
    }
    if !works("strace", &["-qq", "-o", "/dev/null", "true"]) {
        without.insert(Kind::SlowStorage);
    }
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let path = folder.path().to_string_lossy();
    if works("mount", &["-t", "tmpfs", "tmpfs", &path]) {
        works("umount", &[&path]);
    } else {
        without.extend([Kind::DiskFull, Kind::ReadOnlyStorage, Kind::StorageGone]);
    }
    Ok(without)
}

fn recovery(kills: usize) -> ExitCode {
    let mut is_good = true;
    for (others, busy) in [("idle", false), ("busy", true)] {
        let measured = measure(kills, 10, busy);
        let [p50, p99, worst] = [0.5, 0.99, 1.0].map(|share| measured.quantile(share));
        println!("{kills} kills, others {others}: p50 {p50:.2?}, p99 {p99:.2?}, worst {worst:.2?}");
        is_good &= p50 < Duration::from_secs(7) && p99 < Duration::from_secs(10);
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
