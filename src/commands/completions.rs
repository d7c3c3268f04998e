//! `completions`: what a shell needs to complete our verbs and flags.

use std::io::Write as _;

use clap::CommandFactory as _;
use clap_complete::Shell;

use mommygpt::cli::Cli;

use super::{Failure, Out};

/// `completions SHELL`.
pub(super) fn print(shell: Shell, out: &mut Out) -> Result<(), Failure> {
    // Into memory first, because the generator panics when a write fails, and a closed pipe is no failure.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mommygpt", &mut script);
    out.write_all(&script)?;
    Ok(())
}
