//! `producer completions SHELL`.

use super::{CommandError, Ended};
use std::io::Write;

pub(super) fn completions(shell: clap_complete::Shell) -> Result<Ended, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::cli::command(), "producer", &mut script);
    std::io::stdout().lock().write_all(&script).map_err(CommandError::system("cannot write to standard output"))?;
    Ok(Ended::Done)
}
