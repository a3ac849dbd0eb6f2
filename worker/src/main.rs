//! The worker: claims jobs from the queue, downloads them into storage, and reports what became of each.

mod address_guard;
mod attempt;
mod cli;
mod dispatcher;
mod fetch;
mod heartbeater;
mod host_gate;
mod inspect;
mod ledger;
mod processor;
mod recoverer;
mod settler;
mod shutdown;
mod storage;
mod storage_watch;
mod supervisor;

fn main() -> std::process::ExitCode {
    supervisor::main(cli::Config::from_command_line())
}
