//! `bench`: which models, which tests, where the results go; the measuring is `mommygpt::bench`'s.

mod compare;
mod interrupt;
mod machine;
mod own_server;
mod progress;
mod serve;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mommygpt::bench::compare::{Recorded, reference_of};
use mommygpt::bench::description::Description;
use mommygpt::bench::machine::{Machine, measure_limits};
use mommygpt::bench::plan::{self, Lists, Test};
use mommygpt::bench::report::{Format, Report};
use mommygpt::bench::row::{Limits, Row};
use mommygpt::bench::runner::{Options, RunError, Subject, check_context};
use mommygpt::bench::shape::{self, ShapeError};
use mommygpt::bench::stop::Stop;
use mommygpt::bench::{self, system};
use mommygpt::cli::{BenchArgs, BenchCommand, EngineArgs, ServeArgs};
use mommygpt::config::{Config, MAX_THREADS};
use mommygpt::hub::{BUILTIN_NAME, Models};
use mommygpt::model::config::ModelConfig;
use mommygpt::model::{Device, Gguf, LoadOptions};

use super::{Failure, Out};
use progress::Progress;

/// Longest rest between tests: an hour cools anything.
const MAX_DELAY_S: u64 = 3600;

/// `bench` and its own verbs.
pub(super) fn bench(dir: Option<PathBuf>, args: BenchArgs, out: &mut Out) -> Result<(), Failure> {
    match args.command {
        None => engine(dir, &args, out),
        Some(BenchCommand::Machine { output, fresh }) => machine::machine(dir, &output, fresh, out),
        Some(BenchCommand::Serve(args)) => serve::serve(dir, &args, out),
        Some(BenchCommand::Compare(args)) => compare::compare(dir, &args, out),
    }
}

impl From<plan::Invalid> for Failure {
    fn from(e: plan::Invalid) -> Self {
        Self::usage(e.to_string())
    }
}

/// A model as it was named, opened.
struct Named {
    name: String,
    gguf: Gguf,
}

fn open(dir: &Path, name: &str) -> Result<Named, Failure> {
    let gguf = if name.starts_with(shape::PREFIX) {
        shape::generate(name).map_err(|e| match e {
            ShapeError::Unknown(_) => Failure::usage(e.to_string()),
            ShapeError::Model(e) => Failure::from(e),
        })?
    } else {
        Models::of(dir).resolve(Some(name))?.open_runnable()?
    };
    Ok(Named { name: name.to_owned(), gguf })
}

fn format(flag: &str, word: &str) -> Result<Format, Failure> {
    Format::named(word).ok_or_else(|| {
        let words: Vec<&str> = Format::ALL.iter().map(|f| f.1).collect();
        Failure::usage(format!("{flag} {word}: must be one of: {}", words.join(" ")))
    })
}

/// Every value of a flag that may be repeated, or its default.
fn list(
    flag: &str,
    typed: &[String],
    default: usize,
    least: usize,
    most: usize,
) -> Result<Vec<usize>, Failure> {
    if typed.is_empty() {
        return Ok(vec![default]);
    }
    let mut values = Vec::new();
    for text in typed {
        values.extend(plan::parse_list(flag, text, least, most)?);
    }
    Ok(values)
}

fn lists(args: &BenchArgs) -> Result<Lists, Failure> {
    let pairs = args.prompt_gen.iter().map(|text| plan::parse_pair("-pg", text));
    let most = plan::MAX_VALUE;
    Ok(Lists {
        n_prompt: list("-p", &args.n_prompt, bench::DEFAULT_PROMPT, 0, most)?,
        n_gen: list("-n", &args.n_gen, bench::DEFAULT_GEN, 0, most)?,
        n_pg: pairs.collect::<Result<_, _>>()?,
        n_depth: list("-d", &args.n_depth, 0, 0, most)?,
        n_batch: list("-b", &args.batch_size, bench::DEFAULT_BATCH, 1, most)?,
        n_ubatch: list("-ub", &args.ubatch_size, bench::DEFAULT_UBATCH, 1, most)?,
        n_threads: list("-t", &args.threads, system::n_cores(), 1, MAX_THREADS)?,
        n_seqs: list("-np", &args.parallel, 1, 1, plan::MAX_SEQUENCES)?,
    })
}

fn options(args: &BenchArgs) -> Result<Options, Failure> {
    if args.repetitions == 0 || args.repetitions > plan::MAX_REPETITIONS {
        return Err(Failure::usage(format!(
            "-r {}: a test is repeated 1 to {} times",
            args.repetitions,
            plan::MAX_REPETITIONS
        )));
    }
    if args.delay > MAX_DELAY_S {
        return Err(Failure::usage(format!("--delay {}: at most {MAX_DELAY_S} seconds", args.delay)));
    }
    Ok(Options {
        repetitions: args.repetitions,
        warm_up: !args.no_warmup,
        delay: Duration::from_secs(args.delay),
        stop: Stop::default(),
    })
}

/// `bench` without a verb: the engine on each model.
fn engine(dir: Option<PathBuf>, args: &BenchArgs, out: &mut Out) -> Result<(), Failure> {
    let (lists, mut options) = (lists(args)?, options(args)?);
    let tests = lists.tests()?;
    let format_out = format("-o", &args.output)?;
    let format_err = args.output_err.as_deref().map(|word| format("-oe", word)).transpose()?;
    let reference = args.reference.as_deref().map(compare::read_file).transpose()?;
    let typed = ServeArgs {
        engine: EngineArgs { device: args.device.clone(), kv: args.kv.clone(), ..EngineArgs::default() },
        ..ServeArgs::default()
    };
    let config = Config::resolve(dir, typed)?;
    let device = if args.n_gpu_layers == 0 { Device::Cpu } else { config.device };
    let names = if args.model.is_empty() { vec![BUILTIN_NAME.to_owned()] } else { args.model.clone() };
    if let Some(path) = &args.save_shape {
        return save_shape(&names, path, out);
    }
    if device == Device::Cpu && args.n_gpu_layers > 0 {
        tracing::warn!("-ngl {} changes nothing on the CPU; see --device", args.n_gpu_layers);
    }
    if cfg!(debug_assertions) {
        tracing::warn!("this is a debug build; its figures say nothing about the released program");
    }
    let models = names.iter().map(|name| open(&config.dir, name)).collect::<Result<Vec<_>, _>>()?;
    for model in &models {
        let shape = ModelConfig::from_gguf(&model.gguf, None)?;
        check_context(&model.name, &shape, &tests)?;
    }
    let mut stderr = io::stderr();
    let mut reports = vec![Report::new(format_out, &lists, device != Device::Cpu, out)];
    if let Some(format) = format_err {
        reports.push(Report::new(format, &lists, device != Device::Cpu, &mut stderr));
    }
    options.stop = interrupt::stop_on_interrupt()?;
    let mut bench = Bench {
        reports,
        progress: Progress::new(tests.len() * models.len(), &options, args.progress),
        kept: Machine::load(&machine::path(&config.dir)),
        load: LoadOptions { device, isa: config.isa, kv: config.kv, ..LoadOptions::default() },
        n_gpu_layers: args.n_gpu_layers,
        options,
        reference,
        n_tests: tests.len() * models.len(),
        n_measured: 0,
        n_invalid: 0,
        has_limits: !args.no_limits,
    };
    let outcome = models.iter().try_for_each(|model| bench.model(model, &tests));
    bench.finish(outcome)
}

/// One run over several models.
struct Bench<'a> {
    reports: Vec<Report<'a>>,
    progress: Progress,
    kept: Option<Machine>,
    load: LoadOptions,
    n_gpu_layers: i64,
    options: Options,
    /// Of `--reference`.
    reference: Option<Vec<Recorded>>,
    n_tests: usize,
    n_measured: usize,
    n_invalid: usize,
    has_limits: bool,
}

impl Bench<'_> {
    fn model(&mut self, model: &Named, tests: &[Test]) -> Result<(), Failure> {
        let config = ModelConfig::from_gguf(&model.gguf, None)?;
        let description = Description::of(&model.gguf, &config);
        // Runs of one number of threads share a loaded model.
        for same in tests.chunk_by(|a, b| a.n_threads == b.n_threads) {
            let named = |e| {
                let failure = Failure::from(e);
                Failure { message: format!("{}: {}", model.name, failure.message), ..failure }
            };
            self.check_stop()?;
            // Before the model is loaded, whose peak of memory is reported.
            let limits = self.limits(same[0].n_threads, description.is_quantized);
            let mut subject = Subject::load(&model.gguf, &model.name, same, &self.load, self.n_gpu_layers)
                .map_err(named)?;
            for test in same {
                self.progress.start(&model.name, test);
                let progress = &mut self.progress;
                let measured = subject.measure(test, &self.options, limits, &mut |step| progress.step(step));
                let mut row = match measured {
                    Err(RunError::Model(e)) => return Err(named(e)),
                    Err(RunError::Interrupted) => return self.check_stop(),
                    Ok(row) => row,
                };
                self.progress.end(&row);
                self.check(&mut row);
                self.report(&row)?;
                self.check_stop()?;
            }
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<(), Failure> {
        if !self.options.stop.is_asked() {
            return Ok(());
        }
        Err(Failure::failed(format!("interrupted: {} of {} tests are whole", self.n_measured, self.n_tests)))
    }

    /// From an earlier `bench machine`, else measured now; nothing where a GPU computes or memory is short.
    fn limits(&self, n_threads: usize, is_quantized: bool) -> Limits {
        if self.load.device != Device::Cpu || !self.has_limits {
            return Limits::default();
        }
        let kept = self.kept.as_ref().and_then(|machine| machine.limits(n_threads, is_quantized));
        kept.or_else(|| measure_limits(n_threads, is_quantized).ok()).unwrap_or_default()
    }

    /// Against `--reference`, where it has the test.
    fn check(&self, row: &mut Row) {
        let Some(reference) = &self.reference else { return };
        let Some(known) = reference_of(reference, row) else {
            tracing::warn!(
                "{}: --reference has no such test of this model; its tokens are not checked",
                row.test
            );
            return;
        };
        if known.tokens_hash != row.tokens_hash && row.invalid.is_none() {
            row.invalid = Some(format!(
                "other tokens ({}) than the reference ({})",
                row.tokens_hash, known.tokens_hash
            ));
        }
    }

    fn report(&mut self, row: &Row) -> Result<(), Failure> {
        let is_whole = row.samples_ns.len() == self.options.repetitions;
        self.n_measured += usize::from(is_whole);
        self.n_invalid += usize::from(row.invalid.is_some());
        self.reports.iter_mut().try_for_each(|report| report.row(row)).map_err(Failure::from)
    }

    /// Ends the reports, also after a failure: what was measured is shown, and that something is missing.
    fn finish(self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        self.progress.clear();
        let interrupted = outcome.as_ref().err().map(|failure| failure.message.clone());
        for report in self.reports {
            report.finish(interrupted.as_deref())?;
        }
        outcome?;
        match self.n_invalid {
            0 => Ok(()),
            n => Err(Failure::failed(format!(
                "{n} of the rows are invalid: other tokens in another repetition, or than the reference has"
            ))),
        }
    }
}

/// `--save-shape`.
fn save_shape(names: &[String], path: &Path, out: &mut Out) -> Result<(), Failure> {
    let [name] = names else {
        return Err(Failure::usage("--save-shape: give one -m shape:NAME:QUANT"));
    };
    if !name.starts_with(shape::PREFIX) {
        return Err(Failure::usage(format!("--save-shape: -m {name} is no shape; give -m shape:NAME:QUANT")));
    }
    let gguf = open(Path::new(""), name)?.gguf;
    let named = |e: io::Error| Failure::failed(format!("{}: {e}", path.display()));
    let mut file = File::create_new(path).map_err(named)?;
    let mut written = Ok(());
    gguf.read_through(|bytes| {
        if written.is_ok() {
            written = file.write_all(bytes);
        }
    })?;
    written.map_err(named)?;
    writeln!(out, "{}: {}", path.display(), super::models::size(gguf.size_bytes()))?;
    Ok(())
}
