//! Parses, sets up tracing, matches the command, turns an error into an exit code.

mod commands;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use mommygpt::cli::{self, Cli, Command};
use mommygpt::config::Environment;
use tracing_subscriber::EnvFilter;

use commands::Failure;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(e) => {
            // Nothing more can be said when even the help does not reach its reader.
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    // What this process makes (database, keys, backups) is its owner's only.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                let _ = writeln!(std::io::stderr(), "mommygpt: {}", failure.message);
            }
            ExitCode::from(failure.exit_code)
        }
    }
}

fn start(cli: Cli) -> Result<(), Failure> {
    let environment = Environment::read()?;
    trace(&cli.command, &environment)?;
    commands::run(cli, &environment)
}

/// Log lines go to stderr, because stdout is for what was asked.
fn trace(command: &Command, environment: &Environment) -> Result<(), Failure> {
    let default = if matches!(command, Command::Serve(_)) { "info" } else { "warn" };
    let filter = environment.log_filter.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(filter).map_err(|e| Failure::usage(format!("RUST_LOG={filter}: {e}")))?;
    let stderr_is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(stderr_is_terminal && !environment.no_color)
        .init();
    Ok(())
}
