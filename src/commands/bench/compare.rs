//! `bench compare A B`: whether B is better than A, from runs after each other where both can still be made.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mommygpt::bench::compare::{Ratio, Recorded, Verdict, compare_apart, compare_pairs, pair, read_results};
use mommygpt::bench::environment::Snapshot;
use mommygpt::bench::plan::Test;
use mommygpt::bench::row::BUILD_COMMIT;
use mommygpt::bench::{runner, stats};
use mommygpt::cli::BenchCompareArgs;
use mommygpt::config;
use mommygpt::engine::sampler::random_seed;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::super::{Failure, Out};
use super::open;

/// Fewer pairs cannot show a difference at the level that is asked: of two rows, ten pairs that all point one way can.
const LEAST_PAIRS: usize = 10;
/// A run repeats its test until it has lasted so long, and counts as the median: a test of some milliseconds says more
/// about who else had the processor than about the program.
const LEAST_RUN: Duration = Duration::from_millis(400);
/// More repetitions than these make the median no better.
const MOST_REPETITIONS: usize = 25;
/// A larger file is no list of results.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// A side of the comparison.
struct Side {
    rows: Vec<Recorded>,
    /// Runs its rows again.
    program: Option<PathBuf>,
}

/// `bench compare`.
pub(super) fn compare(dir: Option<PathBuf>, args: &BenchCompareArgs, out: &mut Out) -> Result<(), Failure> {
    if args.pairs < LEAST_PAIRS || args.pairs > mommygpt::bench::plan::MAX_REPETITIONS {
        return Err(Failure::usage(format!(
            "--pairs {}: from {LEAST_PAIRS} (fewer cannot show a difference) to {}",
            args.pairs,
            mommygpt::bench::plan::MAX_REPETITIONS
        )));
    }
    if !["md", "json"].contains(&args.output.as_str()) {
        return Err(Failure::usage(format!("-o {}: must be one of: md json", args.output)));
    }
    let dir = config::data_dir(dir)?;
    let a = side(&args.a, args.program_a.as_deref(), args, &dir)?;
    let b = side(&args.b, args.program_b.as_deref(), args, &dir)?;
    let (pairs, alone) = pair(&a.rows, &b.rows);
    if pairs.is_empty() {
        return Err(Failure::failed(format!(
            "{} and {} have no test in common",
            args.a.display(),
            args.b.display()
        )));
    }
    let before = Snapshot::take();
    let n = pairs.len();
    let both = a.program.as_deref().zip(b.program.as_deref());
    let compared = |rows, samples: [Vec<f64>; 2], of: fn(&[f64], &[f64], usize) -> Ratio| {
        let ratio = of(&samples[0], &samples[1], n);
        Compared { rows, samples, ratio }
    };
    let results: Vec<Compared<'_>> = if let Some((program_a, program_b)) = both {
        let runs = Interleaved { dir: &dir, programs: [program_a, program_b], n_pairs: args.pairs };
        let samples = runs.run(&pairs)?;
        pairs.iter().zip(samples).map(|(rows, samples)| compared(rows, samples, compare_pairs)).collect()
    } else {
        let recorded = |rows: &(Recorded, Recorded)| [rows.0.samples.clone(), rows.1.samples.clone()];
        pairs.iter().map(|rows| compared(rows, recorded(rows), compare_apart)).collect()
    };
    let interleaved = both.is_some();
    let mut notes = before.warnings();
    if !interleaved {
        notes.push(
            "compared as recorded, at different times: the machine's own changes count in; to run both again in turns, \
             give results of this build, or --program-a and --program-b"
                .into(),
        );
    }
    notes.extend(alone.iter().map(|row| format!("not compared: {row}")));
    notes.extend(results.iter().flat_map(Compared::doubts));
    print(&results, &notes, interleaved, &args.output, out)
}

/// One pair of rows, compared.
struct Compared<'a> {
    rows: &'a (Recorded, Recorded),
    samples: [Vec<f64>; 2],
    ratio: Ratio,
}

impl Compared<'_> {
    /// Why the two might not be the same work.
    fn doubts(&self) -> Vec<String> {
        let (a, b) = self.rows;
        let mut doubts = Vec::new();
        let both = |x: &str, y: &str| !x.is_empty() && !y.is_empty() && x != y;
        if both(&a.model_sha256, &b.model_sha256) {
            doubts.push(format!("{}: the models are different files", a.test));
        } else if both(&a.tokens_hash, &b.tokens_hash) {
            doubts.push(format!(
                "{}: the greedy tokens differ ({} and {}), so one of the two computes otherwise",
                a.test, a.tokens_hash, b.tokens_hash
            ));
        }
        for (name, row) in [("A", a), ("B", b)] {
            if row.invalid {
                doubts.push(format!("{}: the row of {name} is marked invalid", row.test));
            }
        }
        doubts
    }
}

/// The rows of a file that `bench` wrote.
pub(super) fn read_file(path: &Path) -> Result<Vec<Recorded>, Failure> {
    let named = |e: io::Error| Failure::failed(format!("{}: {e}", path.display()));
    if std::fs::metadata(path).map_err(named)?.len() > MAX_FILE_BYTES {
        return Err(Failure::usage(format!("{}: too large for a file of results", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(named)?;
    read_results(&text).map_err(|e| Failure::bad_data(format!("{}: {e}", path.display())))
}

fn side(path: &Path, program: Option<&Path>, args: &BenchCompareArgs, dir: &Path) -> Result<Side, Failure> {
    let rows = read_file(path)?;
    let program = match program {
        Some(program) => Some(program.to_owned()),
        None if args.no_rerun || !rows.iter().all(|row| is_ours(row, dir)) => None,
        None => std::env::current_exe().ok(),
    };
    Ok(Side { rows, program })
}

/// Whether a row is of this build and of a model that is still what it was.
fn is_ours(row: &Recorded, dir: &Path) -> bool {
    row.build == BUILD_COMMIT
        && open(dir, &row.model)
            .is_ok_and(|model| runner::sha256_of(&model.gguf).is_ok_and(|sha| sha == row.model_sha256))
}

/// Runs of both sides in turns.
struct Interleaved<'a> {
    dir: &'a Path,
    programs: [&'a Path; 2],
    n_pairs: usize,
}

impl Interleaved<'_> {
    /// Tokens a second of A and of B, for every pair of rows. Which of the two goes first is drawn for every other pair,
    /// and the next pair has the other order, so that neither finds the machine warmer than the other does.
    fn run(&self, pairs: &[(Recorded, Recorded)]) -> Result<Vec<[Vec<f64>; 2]>, Failure> {
        let is_terminal = io::stderr().is_terminal();
        let mut rng = ChaCha8Rng::seed_from_u64(random_seed());
        let mut samples: Vec<[Vec<f64>; 2]> = pairs.iter().map(|_| [Vec::new(), Vec::new()]).collect();
        let mut order = [0, 1];
        for i in 0..self.n_pairs {
            // For all rows of a round alike.
            if i % 2 == 1 || rng.next_u64() & 1 == 0 {
                order.reverse();
            }
            for ((a, b), samples) in pairs.iter().zip(&mut samples) {
                if is_terminal {
                    let _ = write!(io::stderr(), "\r\x1b[Kpair {}/{}: {}", i + 1, self.n_pairs, a.test);
                }
                for which in order {
                    let row = if which == 0 { a } else { b };
                    samples[which].push(self.once(self.programs[which], row)?);
                }
            }
        }
        if is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        Ok(samples)
    }

    /// One run in a process of its own: the median of its repetitions.
    fn once(&self, program: &Path, row: &Recorded) -> Result<f64, Failure> {
        let Test { n_prompt, n_gen, n_depth, n_batch, n_ubatch, n_threads, n_seqs } = row.test;
        let mut command = Command::new(program);
        command.arg("--dir").arg(self.dir).args(["bench", "-o", "jsonl", "-m", &row.model]);
        let mut number = |flag: &str, n: usize| {
            command.args([flag, &n.to_string()]);
        };
        if n_prompt > 0 && n_gen > 0 {
            number("-p", 0);
            number("-n", 0);
        } else {
            number("-p", n_prompt);
            number("-n", n_gen);
        }
        number("-r", repetitions(row));
        number("-d", n_depth);
        number("-b", n_batch);
        number("-ub", n_ubatch);
        number("-t", n_threads);
        number("-np", n_seqs);
        if n_prompt > 0 && n_gen > 0 {
            command.args(["-pg", &format!("{n_prompt},{n_gen}")]);
        }
        command.arg("--no-limits").stdin(Stdio::null());
        let failed = |problem: &str| Failure::failed(format!("{}: {problem}", program.display()));
        let output = command.output().map_err(|e| failed(&e.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(said.lines().last().unwrap_or("it failed without a word")));
        }
        let rows = read_results(&String::from_utf8_lossy(&output.stdout)).map_err(|e| failed(&e))?;
        rows.first().and_then(|row| stats::median(&row.samples)).ok_or_else(|| failed("it gave no result"))
    }
}

/// How often a run repeats a row's test, from the time that it took when it was recorded.
fn repetitions(row: &Recorded) -> usize {
    let seconds = row.test.n_tokens() as f64 / stats::mean(&row.samples).max(f64::MIN_POSITIVE);
    ((LEAST_RUN.as_secs_f64() / seconds).ceil() as usize).clamp(1, MOST_REPETITIONS)
}

fn print(
    results: &[Compared<'_>],
    notes: &[String],
    interleaved: bool,
    format: &str,
    out: &mut Out,
) -> Result<(), Failure> {
    if format == "json" {
        let rows: Vec<_> = results
            .iter()
            .map(|r| {
                json!({
                    "model": r.rows.0.model, "test": r.rows.0.test.to_string(), "a_ts": stats::trimmed_mean(&r.samples[0]),
                    "b_ts": stats::trimmed_mean(&r.samples[1]), "ratio": r.ratio.ratio, "low": r.ratio.low,
                    "high": r.ratio.high, "p": r.ratio.p, "verdict": r.ratio.verdict.as_str(),
                    "a_samples": r.samples[0], "b_samples": r.samples[1],
                })
            })
            .collect();
        let all = json!({"interleaved": interleaved, "rows": rows, "notes": notes});
        writeln!(out, "{all:#}")?;
        return Ok(());
    }
    writeln!(out, "| model | test | A t/s | B t/s | B / A | 95% interval | verdict |")?;
    writeln!(out, "| :--- | ---: | ---: | ---: | ---: | :---: | :--- |")?;
    for r in results {
        let (a, b) = r.rows;
        let model = if a.model == b.model { a.model.clone() } else { format!("{} and {}", a.model, b.model) };
        let mark = if r.ratio.verdict == Verdict::NoDifference { "" } else { "**" };
        writeln!(
            out,
            "| {model} | {} | {:.2} | {:.2} | {:.3} | {:.3} to {:.3} | {mark}{}{mark} |",
            a.test,
            stats::trimmed_mean(&r.samples[0]),
            stats::trimmed_mean(&r.samples[1]),
            r.ratio.ratio,
            r.ratio.low,
            r.ratio.high,
            r.ratio.verdict.as_str()
        )?;
    }
    let n = results.first().map_or(0, |r| r.samples[0].len());
    if interleaved {
        writeln!(out, "\n{n} pairs of runs in turns.")?;
    }
    for note in notes {
        writeln!(out, "\nnote: {note}")?;
    }
    Ok(())
}
