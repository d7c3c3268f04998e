//! `doctor`: what this machine is, and whether it can serve.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mommygpt::bench::machine;
use mommygpt::cli::ServeArgs;
use mommygpt::config::{Config, Environment};
use mommygpt::hub::Models;
use mommygpt::hub::catalog::{self, CONVERSATION_CTX};
use mommygpt::model::config::ModelConfig;
use mommygpt::model::{self, Isa, LoadOptions};
use mommygpt::text::TextModel;

use super::models::{size, try_first};
use super::{Failure, Out};

/// How long the disk is tried.
const FSYNC_TIME: Duration = Duration::from_millis(500);
/// What one commit writes at least.
const FSYNC_BYTES: usize = 4096;
/// A model that answers more slowly than people read, in tokens a second.
const SLOW_TOKENS_PER_S: f64 = 5.0;
/// Fewer durable writes a second than this make a chat feel slow.
const SLOW_FSYNCS_PER_S: f64 = 20.0;

/// Lines of the report, and what is wrong.
struct Report<'a> {
    out: &'a mut Out,
    problems: Vec<String>,
}

impl Report<'_> {
    fn line(&mut self, name: &str, value: &str) -> io::Result<()> {
        writeln!(self.out, "{name:18} {value}")
    }
    fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }
}

/// `doctor`.
pub(super) fn doctor(
    dir: Option<PathBuf>,
    args: ServeArgs,
    environment: &Environment,
    out: &mut Out,
) -> Result<(), Failure> {
    let config = Config::resolve(dir, args)?;
    let mut report = Report { out, problems: Vec::new() };
    report.line("version", env!("CARGO_PKG_VERSION"))?;
    let bytes_per_s = processor(&mut report, environment)?;
    memory(&mut report)?;
    disk(&mut report, &config.dir)?;
    model_loads(&mut report, &config)?;
    catalogue(&mut report, bytes_per_s)?;
    let Report { out, problems } = report;
    for problem in &problems {
        writeln!(out, "problem: {problem}")?;
    }
    out.flush()?;
    match problems.len() {
        0 => {
            writeln!(out, "This machine can serve.")?;
            Ok(())
        }
        1 => Err(Failure::failed("1 problem was found")),
        n => Err(Failure::failed(format!("{n} problems were found"))),
    }
}

/// Says what computes here; gives the bytes a second that all cores read.
fn processor(report: &mut Report<'_>, environment: &Environment) -> Result<f64, Failure> {
    let name = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = name
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map(|l| l.trim_start_matches([' ', '\t', ':']));
    report.line("processor", name.unwrap_or(std::env::consts::ARCH))?;
    let n_cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    report.line("cores", &n_cores.to_string())?;
    let found: Vec<&str> = Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(Isa::as_str).collect();
    report.line("instruction sets", &found.join(" "))?;
    if let Some(isa) = environment.force_isa {
        report.line("forced by you", isa.as_str())?;
    }
    let gpu =
        if Path::new("/proc/driver/nvidia/version").exists() { "NVIDIA driver found" } else { "none found" };
    report.line("GPU", gpu)?;
    let bytes_per_s = machine::read_bandwidth().unwrap_or_default();
    let gib_per_s = bytes_per_s / f64::from(1 << 30);
    report.line("memory bandwidth", &format!("{gib_per_s:.1} GiB/s read by {n_cores} threads"))?;
    Ok(bytes_per_s)
}

/// Which models of the catalogue fit, and how fast each should answer.
fn catalogue(report: &mut Report<'_>, bytes_per_s: f64) -> Result<(), Failure> {
    let free = model::available_memory().map(|(bytes, _)| bytes);
    writeln!(
        report.out,
        "\nModels for `mommygpt pull NAME`, with a conversation of {CONVERSATION_CTX} tokens:"
    )?;
    writeln!(
        report.out,
        "{:16} {:>10} {:>10}  {:28} {:28} GOOD FOR",
        "NAME", "FILE", "MEMORY", "HERE", "LICENCE"
    )?;
    for known in catalog::all() {
        let memory = known.memory_bytes();
        let rate = known.tokens_per_s(bytes_per_s);
        let here = match free {
            Some(free) if memory > free => "does not fit".to_owned(),
            _ if rate < SLOW_TOKENS_PER_S => format!("fits; slow, {rate:.1} tokens/s"),
            _ => format!("fits; about {rate:.0} tokens/s"),
        };
        writeln!(
            report.out,
            "{:16} {:>10} {:>10}  {here:28} {:28} {}",
            known.name,
            size(known.megabytes * 1_000_000),
            size(memory),
            known.licence,
            known.note
        )?;
    }
    writeln!(report.out)?;
    Ok(())
}

fn memory(report: &mut Report<'_>) -> Result<(), Failure> {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |key: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.trim().parse().ok())
    };
    match (kib("MemTotal:"), kib("MemAvailable:")) {
        (Some(total), Some(free)) => {
            report.line("memory", &format!("{}, {} available", size(total << 10), size(free << 10)))?;
        }
        _ => report.line("memory", "not known on this system")?,
    }
    let pages = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let chosen = pages.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word);
    let said = match chosen {
        Some("never") => "never; `madvise` or `always` would make large models faster",
        Some(word) => word,
        None => "not known on this system",
    };
    let tried = match model::are_huge_pages_given() {
        Some(true) => "; given when asked for",
        Some(false) => "; not given when asked for, so large models run slower",
        None => "",
    };
    report.line("huge pages", &format!("{said}{tried}"))?;
    Ok(())
}

fn disk(report: &mut Report<'_>, dir: &Path) -> Result<(), Failure> {
    report.line("data directory", &dir.display().to_string())?;
    match fsync_rate(dir) {
        Ok(rate) => {
            report.line("durable writes", &format!("{rate:.0} a second"))?;
            if rate < SLOW_FSYNCS_PER_S {
                report.problem(format!(
                    "{}: this disk makes writing slow; choose another with --dir",
                    dir.display()
                ));
            }
        }
        Err(e) => report.problem(format!("{}: cannot be written: {e}", dir.display())),
    }
    Ok(())
}

/// Small durable writes a second in `dir`, or the nearest folder above it that exists; leaves nothing behind.
fn fsync_rate(dir: &Path) -> io::Result<f64> {
    let there = dir.ancestors().find(|d| d.is_dir()).unwrap_or(dir);
    let path = there.join(format!(".mommygpt-doctor-{}", std::process::id()));
    let measured = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
        let start = Instant::now();
        let mut n_writes = 0;
        while start.elapsed() < FSYNC_TIME {
            file.write_all(&[0; FSYNC_BYTES])?;
            file.sync_data()?;
            n_writes += 1;
        }
        Ok(f64::from(n_writes) / start.elapsed().as_secs_f64())
    })();
    let _ = fs::remove_file(&path);
    measured
}

fn model_loads(report: &mut Report<'_>, config: &Config) -> Result<(), Failure> {
    let models = Models::of(&config.dir);
    let file = match models.resolve(config.model.as_deref()) {
        Ok(file) => file,
        Err(e) => {
            report.problem(e.to_string());
            return Ok(());
        }
    };
    report.line("model", &file.to_string())?;
    if let Err(failure) = try_first(&models, &file) {
        report.problem(failure.message);
        return Ok(());
    }
    let options = LoadOptions {
        n_ctx: config.n_ctx,
        n_threads: config.n_threads,
        device: config.device,
        kv: config.kv,
        isa: config.isa,
        max_sequences: config.n_parallel,
    };
    let start = Instant::now();
    let loaded = (|| -> Result<(ModelConfig, String), Failure> {
        let gguf = file.open_runnable()?;
        let shape = ModelConfig::from_gguf(&gguf, config.n_ctx)?;
        TextModel::from_gguf(&gguf)?;
        Ok((shape, model::load(&gguf, &options)?.backend()))
    })();
    match loaded {
        Ok((shape, backend)) => {
            let ms = start.elapsed().as_millis();
            let what = format!("{} ({}, {})", shape.name, shape.architecture, shape.quantization);
            report.line("it loads", &format!("{what} in {ms} ms, runs on {backend}"))?;
            let kv = (shape.kv_bytes_per_token() * shape.n_ctx) as u64;
            report.line("a conversation", &format!("{} tokens, {} of memory", shape.n_ctx, size(kv)))?;
        }
        Err(failure) => report.problem(failure.message),
    }
    Ok(())
}
