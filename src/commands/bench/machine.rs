//! `bench machine`: what this machine can do, measured once and kept.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use mommygpt::bench::machine::Machine;
use mommygpt::bench::page;
use mommygpt::config;

use super::super::{Failure, Out};

/// Where the measurement is kept, in the data directory.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("cache").join("machine.json")
}

/// `bench machine`.
pub(super) fn machine(dir: Option<PathBuf>, output: &str, fresh: bool, out: &mut Out) -> Result<(), Failure> {
    if !["md", "json", "html", "svg"].contains(&output) {
        return Err(Failure::usage(format!("-o {output}: must be one of: md json html svg")));
    }
    let path = path(&config::data_dir(dir)?);
    let kept = if fresh { None } else { Machine::load(&path) };
    let machine = match kept {
        Some(machine) => machine,
        None => measure(&path)?,
    };
    match output {
        "json" => {
            let text = serde_json::to_string_pretty(&machine).map_err(|e| Failure::failed(e.to_string()))?;
            writeln!(out, "{text}")?;
        }
        "html" => write!(out, "{}", page::machine_page(&machine))?,
        "svg" => write!(out, "{}", page::machine_sheet(&machine))?,
        _ => print(&machine, out)?,
    }
    Ok(())
}

fn measure(path: &Path) -> Result<Machine, Failure> {
    if cfg!(debug_assertions) {
        tracing::warn!("this is a debug build; its figures say nothing about the released program");
    }
    let is_terminal = io::stderr().is_terminal();
    let mut progress = |what: &str| {
        if is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[Kmeasuring: {what}");
        }
    };
    let measured = Machine::measure(&mut progress);
    if is_terminal {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    let machine = measured.map_err(|e| Failure::failed(format!("no memory to measure with: {e}")))?;
    if let Err(e) = machine.save(path) {
        tracing::warn!("{}: {e}; the figures are not kept", path.display());
    }
    Ok(machine)
}

fn print(machine: &Machine, out: &mut Out) -> io::Result<()> {
    writeln!(out, "{}", machine.fingerprint)?;
    writeln!(out, "measured {}; --fresh measures again\n", machine.measured_at)?;
    writeln!(out, "| threads | pages | read GB/s |\n| ------: | :---- | --------: |")?;
    for row in &machine.bandwidth {
        let refused = if row.granted { "" } else { " (not granted)" };
        writeln!(out, "| {:>7} | {}{refused} | {:>9.2} |", row.n_threads, row.pages, row.gbps)?;
    }
    writeln!(out, "\n| arithmetic | kernels | threads | Gop/s |\n| :--- | :--- | ---: | ---: |")?;
    for row in &machine.arithmetic {
        writeln!(out, "| {:<4} | {:<7} | {:>7} | {:>8.1} |", row.kind, row.isa, row.n_threads, row.gops)?;
    }
    Ok(())
}
