//! Whether one set of results is better than another, or whether no difference can be seen.
//!
//! Pairs of runs that followed each other are compared by the logarithm of their ratio, so that whatever is slow for a
//! minute slows both. Other work on the machine makes a few runs twice as slow, and that must neither feign a difference
//! nor hide one: the ratio is a trimmed mean, and no pair has more weight in the test than the median one.
//!
//! A difference is claimed only where the bootstrap interval of the ratio leaves out 1, a permutation test (sign flips of
//! pairs; exact under the hypothesis that A and B are the same thing) agrees at the same level divided by the number of
//! rows, and the difference is large enough to matter. So of comparisons of a thing with itself, however many rows they
//! have, two in a hundred may claim a difference.

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde_json::Value;

use super::plan::Test;
use super::row::Row;
use super::stats::{mean, median, percentile_of_sorted, trimmed_mean};

/// How often a whole comparison of equal things may claim a difference.
const LEVEL: f64 = 0.02;
/// Share of the resampled ratios that an interval holds.
const INTERVAL: f64 = 0.95;
/// Resamplings of a bootstrap: the ends of a 95% interval then stand on fifty of them each.
const RESAMPLINGS: usize = 2000;
/// Random rearrangements of a permutation test: with a hundred rows a claim then still stands on two of them.
const REARRANGEMENTS: usize = 10_000;
/// Pairs up to here are flipped in all ways; more in random ways.
const MAX_EXACT_PAIRS: usize = 13;
/// A smaller change is not worth a word, however sure it is: the same code at another place in memory makes as much.
const LEAST_CHANGE: f64 = 0.01;
/// The same where the runs were not interleaved: a machine's mood changes more than this within an hour.
const LEAST_CHANGE_APART: f64 = 0.03;
/// Of the resampling.
const SEED: u64 = 0x6D6F_6D6D;

/// A row of a file of results, of this program or of llama-bench.
#[derive(Clone, PartialEq, Debug)]
pub struct Recorded {
    /// `model_filename`.
    pub model: String,
    /// `build_commit`.
    pub build: String,
    /// What was measured.
    pub test: Test,
    /// Tokens a second of every repetition.
    pub samples: Vec<f64>,
    /// Empty where it was not recorded.
    pub tokens_hash: String,
    /// Empty where it was not recorded.
    pub model_sha256: String,
    /// Its tokens were checked and found wrong.
    pub invalid: bool,
}

/// Reads results in JSON or JSON lines.
///
/// # Errors
/// What is wrong with which row, in words.
pub fn read_results(text: &str) -> Result<Vec<Recorded>, String> {
    let values: Vec<Value> = if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map_err(|e| format!("no JSON: {e}"))?
    } else {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines
            .enumerate()
            .map(|(i, line)| serde_json::from_str(line).map_err(|e| format!("line {}: no JSON: {e}", i + 1)))
            .collect::<Result<_, _>>()?
    };
    if values.is_empty() {
        return Err("there are no rows in it".into());
    }
    values.iter().enumerate().map(|(i, v)| row(v).map_err(|e| format!("row {}: {e}", i + 1))).collect()
}

fn row(value: &Value) -> Result<Recorded, String> {
    let count = |key: &str, default: Option<usize>| {
        value[key].as_u64().map(|n| n as usize).or(default).ok_or_else(|| format!("{key} is missing"))
    };
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let samples: Option<Vec<f64>> =
        value["samples_ts"].as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
    let samples = samples.filter(|s| s.iter().all(|t| t.is_finite() && *t > 0.0) && !s.is_empty());
    Ok(Recorded {
        model: text("model_filename"),
        build: text("build_commit"),
        test: Test {
            n_prompt: count("n_prompt", None)?,
            n_gen: count("n_gen", None)?,
            n_depth: count("n_depth", Some(0))?,
            n_batch: count("n_batch", Some(super::DEFAULT_BATCH))?,
            n_ubatch: count("n_ubatch", Some(super::DEFAULT_UBATCH))?,
            n_threads: count("n_threads", Some(1))?,
            n_seqs: count("n_seqs", Some(1))?,
        },
        samples: samples.ok_or("samples_ts is missing; write results with -o json or jsonl")?,
        tokens_hash: text("tokens_hash"),
        model_sha256: text("model_sha256"),
        invalid: value["valid"] == false,
    })
}

/// Rows that measure the same on both sides, and the names of those that stand alone.
pub fn pair(a: &[Recorded], b: &[Recorded]) -> (Vec<(Recorded, Recorded)>, Vec<String>) {
    let name = |r: &Recorded| Path::new(&r.model).file_name().map(|n| n.to_string_lossy().into_owned());
    let what = |r: &Recorded| (r.test.n_prompt, r.test.n_gen, r.test.n_depth, r.test.n_seqs);
    let mut left: Vec<&Recorded> = b.iter().collect();
    let mut pairs = Vec::new();
    let mut alone = Vec::new();
    for row in a {
        // The most alike first: everything the same, then another model or another setting.
        let alike: [&dyn Fn(&Recorded) -> bool; 3] = [
            &|other| name(other) == name(row) && other.test == row.test,
            &|other| name(other) == name(row) && what(other) == what(row),
            &|other| what(other) == what(row),
        ];
        match alike.iter().find_map(|is| left.iter().position(|other| is(other))) {
            Some(at) => pairs.push((row.clone(), left.remove(at).clone())),
            None => alone.push(format!("{} {} (only in A)", row.model, row.test)),
        }
    }
    alone.extend(left.iter().map(|row| format!("{} {} (only in B)", row.model, row.test)));
    (pairs, alone)
}

/// The row of `reference` with the same test of the same model file, whatever threads and steps it ran with.
pub fn reference_of<'a>(reference: &'a [Recorded], row: &Row) -> Option<&'a Recorded> {
    let what = |t: &Test| (t.n_prompt, t.n_gen, t.n_depth, t.n_seqs);
    reference.iter().find(|known| {
        known.model_sha256 == row.model.sha256
            && what(&known.test) == what(&row.test)
            && !known.tokens_hash.is_empty()
            && !known.invalid
    })
}

/// What is said of a pair of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// B is faster.
    Better,
    /// B is slower.
    Worse,
    /// Neither can be claimed.
    NoDifference,
}

impl Verdict {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NoDifference => "no difference seen",
        }
    }
}

/// The ratio B / A of tokens a second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ratio {
    /// Its estimate.
    pub ratio: f64,
    /// Bootstrap interval.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Of the permutation test.
    pub p: f64,
    /// What follows.
    pub verdict: Verdict,
}

/// Compares runs that were made in pairs, one of A and one of B after the other; `n_rows` comparisons are made in all.
/// As many pairs must have begun with A as with B: where a run stands in its pair may make it faster.
pub fn compare_pairs(a: &[f64], b: &[f64], n_rows: usize) -> Ratio {
    let logs: Vec<f64> = a.iter().zip(b).map(|(a, b)| (b / a).ln()).collect();
    let resampled = |rng: &mut ChaCha8Rng| trimmed_mean(&draw(rng, &logs));
    judge(trimmed_mean(&logs), &resampled, sign_flips(&capped(&logs)), n_rows, LEAST_CHANGE)
}

/// Distances from 0 cut to their median: a few runs that something else slowed down would outweigh all the others. On
/// which side of 0 a pair lies changes nothing about the cut, so that a test by sign flips stays exact.
fn capped(logs: &[f64]) -> Vec<f64> {
    let distances: Vec<f64> = logs.iter().map(|x| x.abs()).collect();
    let most = median(&distances).unwrap_or_default();
    logs.iter().map(|x| x.clamp(-most, most)).collect()
}

/// Compares runs that were made at different times.
pub fn compare_apart(a: &[f64], b: &[f64], n_rows: usize) -> Ratio {
    let difference = |a: &[f64], b: &[f64]| (mean(b) / mean(a)).ln();
    let resampled = |rng: &mut ChaCha8Rng| difference(&draw(rng, a), &draw(rng, b));
    judge(difference(a, b), &resampled, shuffles(a, b, difference), n_rows, LEAST_CHANGE_APART)
}

fn judge(
    log_ratio: f64,
    resampled: &dyn Fn(&mut ChaCha8Rng) -> f64,
    p: f64,
    n_rows: usize,
    least_change: f64,
) -> Ratio {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut logs: Vec<f64> = (0..RESAMPLINGS).map(|_| resampled(&mut rng)).collect();
    logs.sort_unstable_by(f64::total_cmp);
    let end = |p: f64| percentile_of_sorted(&logs, p).unwrap_or(log_ratio);
    let (low, high) = (end(50.0 * (1.0 - INTERVAL)), end(50.0 * (1.0 + INTERVAL)));
    let is_seen = (low > 0.0 || high < 0.0)
        && p <= LEVEL / n_rows.max(1) as f64
        && (log_ratio.exp() - 1.0).abs() >= least_change;
    let verdict = match (is_seen, log_ratio > 0.0) {
        (false, _) => Verdict::NoDifference,
        (true, true) => Verdict::Better,
        (true, false) => Verdict::Worse,
    };
    Ratio { ratio: log_ratio.exp(), low: low.exp(), high: high.exp(), p, verdict }
}

fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    (rng.next_u64() % n as u64) as usize
}

fn draw(rng: &mut ChaCha8Rng, values: &[f64]) -> Vec<f64> {
    values.iter().map(|_| values[below(rng, values.len())]).collect()
}

/// Rounding in sums of the same numbers in another order must not count as larger or smaller.
const ROUNDING: f64 = 1e-12;

/// How often the sum is as far from 0 as seen when each pair's sign is chosen at random.
fn sign_flips(logs: &[f64]) -> f64 {
    let seen = logs.iter().sum::<f64>().abs() - ROUNDING;
    let signed = |logs: &[f64], signs: u64| -> f64 {
        logs.iter().enumerate().map(|(i, x)| if signs >> i & 1 == 1 { -x } else { *x }).sum()
    };
    if logs.len() <= MAX_EXACT_PAIRS {
        let ways = 1 << logs.len();
        return (0..ways).filter(|&way| signed(logs, way).abs() >= seen).count() as f64 / ways as f64;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    // A random word has the signs of 64 pairs.
    let mut flipped = || logs.chunks(64).map(|chunk| signed(chunk, rng.next_u64())).sum::<f64>();
    let extreme = (0..REARRANGEMENTS).filter(|_| flipped().abs() >= seen);
    (extreme.count() + 1) as f64 / (REARRANGEMENTS + 1) as f64
}

/// How often the difference is as large as seen when it is chosen at random which run belongs to whom.
fn shuffles(a: &[f64], b: &[f64], difference: impl Fn(&[f64], &[f64]) -> f64) -> f64 {
    let seen = difference(a, b).abs() - ROUNDING;
    let mut all: Vec<f64> = a.iter().chain(b).copied().collect();
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let extreme = (0..REARRANGEMENTS).filter(|_| {
        for i in (1..all.len()).rev() {
            all.swap(i, below(&mut rng, i + 1));
        }
        difference(&all[..a.len()], &all[a.len()..]).abs() >= seen
    });
    (extreme.count() + 1) as f64 / (REARRANGEMENTS + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose speed wanders and jumps: what two runs after each other have in common.
    struct Machine(ChaCha8Rng, f64);

    impl Machine {
        fn uniform(&mut self) -> f64 {
            (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
        }
        fn run(&mut self, speed: f64) -> f64 {
            self.1 = (self.1 + 0.1 * (self.uniform() - 0.5)).clamp(0.6, 1.0);
            // Something else runs.
            let jump = if self.uniform() < 0.1 { 0.5 } else { 1.0 };
            speed * self.1 * jump * (1.0 + 0.04 * (self.uniform() - 0.5))
        }
        /// `n` pairs, half of them the other way round; the second run of each gains `second`.
        fn pairs(&mut self, n: usize, a: f64, b: f64, second: f64) -> (Vec<f64>, Vec<f64>) {
            (0..n)
                .map(|i| {
                    let (first, then) = if i % 2 == 0 { (a, b) } else { (b, a) };
                    let (x, y) = (self.run(first), self.run(then * second));
                    if i % 2 == 0 { (x, y) } else { (y, x) }
                })
                .unzip()
        }
    }

    #[test]
    fn a_thing_compared_with_itself_on_a_busy_machine_shows_no_difference() {
        let mut wrong = 0;
        for seed in 0..100 {
            let mut machine = Machine(ChaCha8Rng::seed_from_u64(seed), 0.9);
            let claims = (0..2).any(|_| {
                let (a, b) = machine.pairs(20, 100.0, 100.0, 1.05);
                compare_pairs(&a, &b, 2).verdict != Verdict::NoDifference
            });
            wrong += usize::from(claims);
        }
        assert!(wrong <= 5, "{wrong} of 100 comparisons of two rows");
    }

    #[test]
    fn a_tenth_more_is_seen_on_a_busy_machine() {
        let mut seen = 0;
        for seed in 0..50 {
            let mut machine = Machine(ChaCha8Rng::seed_from_u64(seed), 0.9);
            let (a, b) = machine.pairs(20, 100.0, 110.0, 1.02);
            let ratio = compare_pairs(&a, &b, 2);
            assert_ne!(ratio.verdict, Verdict::Worse, "{ratio:?}");
            seen += usize::from(ratio.verdict == Verdict::Better);
        }
        assert!(seen >= 35, "{seen} of 50");
    }

    #[test]
    fn a_real_difference_is_seen_in_both_directions() {
        let mut machine = Machine(ChaCha8Rng::seed_from_u64(3), 0.9);
        // Quiet runs: noise of 2 percent, no jumps.
        let mut quiet = |speed: f64| speed * (1.0 + 0.02 * (machine.uniform() - 0.5));
        let a: Vec<f64> = (0..12).map(|_| quiet(100.0)).collect();
        let b: Vec<f64> = (0..12).map(|_| quiet(110.0)).collect();
        let up = compare_pairs(&a, &b, 2);
        assert_eq!(up.verdict, Verdict::Better);
        assert!(up.low < 1.1 && 1.1 < up.high && up.low > 1.08, "{up:?}");
        assert_eq!(compare_pairs(&b, &a, 2).verdict, Verdict::Worse);
        assert_eq!(compare_apart(&a, &b, 2).verdict, Verdict::Better);
        // A change too small to matter is not claimed, however sure.
        let same: Vec<f64> = a.iter().map(|x| x * 1.001).collect();
        assert_eq!(compare_pairs(&a, &same, 1).verdict, Verdict::NoDifference);
    }

    #[test]
    fn permutation_tests_agree_with_counting_by_hand() {
        // Of 8 ways to flip three equal signs, two are as extreme.
        assert!((sign_flips(&[1.0, 1.0, 1.0]) - 0.25).abs() < 1e-12);
        assert!((sign_flips(&[1.0, -1.0]) - 1.0).abs() < 1e-12);
        let p = compare_apart(&[1.0, 1.0, 1.0], &[2.0, 2.0, 2.0], 1).p;
        assert!((p - 0.1).abs() < 0.02, "2 of 20 ways: {p}");
    }

    #[test]
    fn rows_are_paired_by_what_they_measure() {
        let of = |n_prompt: usize, n_threads: usize| {
            let text = format!(
                "{{\"model_filename\":\"m.gguf\",\"n_prompt\":{n_prompt},\"n_gen\":0,\"n_threads\":{n_threads},\"samples_ts\":[1.5]}}"
            );
            read_results(&text).unwrap().remove(0)
        };
        let (pairs, alone) = pair(&[of(512, 1), of(64, 1)], &[of(512, 2), of(512, 1), of(32, 1)]);
        assert_eq!(pairs.len(), 1);
        assert_eq!(pairs[0].1.test.n_threads, 1, "the one that is alike in more");
        assert_eq!(alone.len(), 3, "{alone:?}");
    }

    #[test]
    fn files_that_are_no_results_are_named() {
        for (bad, named) in [
            ("", "no rows"),
            ("x", "line 1"),
            ("[{\"n_prompt\":1}]", "row 1: n_gen"),
            ("{\"n_prompt\":1,\"n_gen\":0}", "samples_ts"),
        ] {
            let error = read_results(bad).unwrap_err();
            assert!(error.contains(named), "{bad}: {error}");
        }
    }
}
