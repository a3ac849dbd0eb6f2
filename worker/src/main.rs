//! The worker: claims jobs from the queue, downloads them into storage, and reports what became of each.

mod address_guard;
mod attempt;
mod cli;
mod dispatch;
mod duties;
mod fetch;
mod heartbeater;
mod hosts;
mod judge;
mod ledger;
mod metrics;
mod processor;
mod queue_calls;
mod recoverer;
mod robots;
mod settler;
mod shutdown;
mod storage_waits;
mod storage_watch;
mod supervisor;
#[cfg(test)]
mod testing;
mod tidier;
mod vitals;

/// See Cargo.toml for the reason.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    supervisor::main(cli::Config::from_command_line())
}
