//! The producer: turns sources into jobs, and shows what became of them.

mod cli;
mod commands;
mod view;

fn main() -> std::process::ExitCode {
    commands::main(cli::parse())
}
