//! Trains the crisis check's classifier and says honestly how well it does.
//!
//! ```text
//! cargo bench --bench safety                  5-fold cross-validation on the development cases, by kind
//! cargo bench --bench safety -- --misses      and each case it gets wrong
//! cargo bench --bench safety -- --write       and train on everything, write assets/safety/weights.bin
//! ```
//!
//! The cases (`../shared/fixtures/crisis/cases.tsv`) are folded; the lines in assets/safety/*.tsv are always trained
//! on, except those that are nearly the same as a held-out case. The threshold that judges a fold is chosen on the
//! scores of the other folds.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use mommygpt::chat::safety::Kind;
use mommygpt::chat::safety::classifier::{N_KIND_SLOTS, Weights};
use mommygpt::chat::safety::features::{self, N_SLOTS};

const N_FOLDS: usize = 5;
/// Share of stems in common from which a training line counts as nearly the same as a held-out case.
const NEAR: f32 = 0.5;
/// Safe cases that may be shown the card, when the threshold is chosen: below the promise of 6%, for what is unseen.
const SAFE_SHARE: f32 = 0.047;
const EPOCHS: usize = 30;
const RATE: f32 = 0.25;
const L2: f32 = 2e-6;

struct Line {
    danger: bool,
    kind: String,
    text: String,
    windows: Vec<Vec<u32>>,
    stems: HashSet<String>,
    /// How much it counts in training.
    weight: f32,
}

fn read(path: &Path, weight: f32) -> Vec<Line> {
    let Ok(text) = std::fs::read_to_string(path) else { return Vec::new() };
    let mut out = Vec::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#') && !l.starts_with("label\t")) {
        let mut parts = line.splitn(3, '\t');
        let (Some(label), Some(kind), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
            panic!("{}: not label, kind, text: {line}", path.display());
        };
        let stems = features::stems(text).into_iter().collect();
        let windows = features::windows(text);
        out.push(Line {
            danger: label == "danger",
            kind: kind.into(),
            text: text.into(),
            windows,
            stems,
            weight,
        });
    }
    out
}

fn near(a: &Line, b: &Line) -> bool {
    let shared = a.stems.intersection(&b.stems).count() as f32;
    shared / ((a.stems.len() + b.stems.len()) as f32 - shared).max(1.0) > NEAR
}

/// A repeatable shuffle.
struct Dice(u64);
impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
    }
}

/// Logistic loss on the most dangerous window of each line; AdaGrad; the mean of the later rounds.
fn train(lines: &[&Line], seed: u64) -> Weights {
    let mut w = Weights {
        danger: vec![0.0; N_SLOTS],
        bias: 0.0,
        threshold: 0.0,
        kinds: vec![vec![0.0; N_KIND_SLOTS]; Kind::ALL.len()],
    };
    let mut squares = vec![1e-6f32; N_SLOTS];
    let mut bias_square = 1e-6f32;
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0x1234_5678_9abc_def1) | 1);
    let mut order: Vec<usize> = (0..lines.len()).collect();
    let n_danger: f32 = lines.iter().filter(|l| l.danger).map(|l| l.weight).sum();
    let n_safe: f32 = lines.iter().filter(|l| !l.danger).map(|l| l.weight).sum();
    let up = (n_safe / n_danger).sqrt();
    let (mut sum, mut bias_sum) = (vec![0.0f32; N_SLOTS], 0.0);
    for epoch in 0..EPOCHS {
        dice.shuffle(&mut order);
        for &i in &order {
            let line = lines[i];
            let (score, at) = w.score(&line.windows);
            let window = &line.windows[at];
            let scale = 1.0 / (window.len() as f32).sqrt().max(1.0);
            let p = 1.0 / (1.0 + (-score).exp());
            let g = if line.danger { (p - 1.0) * line.weight * up } else { p * line.weight };
            if g.abs() < 1e-4 {
                continue;
            }
            for &slot in window {
                let slot = slot as usize;
                let d = g * scale + L2 * w.danger[slot];
                squares[slot] += d * d;
                w.danger[slot] -= RATE * d / squares[slot].sqrt();
            }
            bias_square += g * g;
            w.bias -= 0.1 * RATE * g / bias_square.sqrt();
        }
        if epoch >= EPOCHS / 2 {
            sum.iter_mut().zip(&w.danger).for_each(|(s, x)| *s += x);
            bias_sum += w.bias;
        }
    }
    let n = (EPOCHS - EPOCHS / 2) as f32;
    w.danger = sum.into_iter().map(|s| s / n).collect();
    w.bias = bias_sum / n;
    train_kinds(&mut w, lines, &mut dice);
    w
}

fn train_kinds(w: &mut Weights, lines: &[&Line], dice: &mut Dice) {
    let mut squares = vec![vec![1e-6f32; N_KIND_SLOTS]; Kind::ALL.len()];
    let mut order: Vec<&&Line> = lines.iter().filter(|l| l.danger).collect();
    for _ in 0..EPOCHS {
        dice.shuffle(&mut order);
        for line in &order {
            let Some(kind) = Kind::from_word(&line.kind) else { continue };
            let window = &line.windows[w.score(&line.windows).1];
            let scale = 1.0 / (window.len() as f32).sqrt().max(1.0);
            let sum = |t: &Vec<f32>| window.iter().map(|&s| t[s as usize & (N_KIND_SLOTS - 1)]).sum::<f32>();
            let scores: Vec<f32> = w.kinds.iter().map(|t| scale * sum(t)).collect();
            let top = scores.iter().copied().fold(f32::MIN, f32::max);
            let all: f32 = scores.iter().map(|s| (s - top).exp()).sum();
            for (k, table) in w.kinds.iter_mut().enumerate() {
                let y = if Kind::ALL[k] == kind { 1.0 } else { 0.0 };
                let g = ((scores[k] - top).exp() / all - y) * scale;
                for &s in window {
                    let s = s as usize & (N_KIND_SLOTS - 1);
                    squares[k][s] += g * g;
                    table[s] -= RATE * g / squares[k][s].sqrt();
                }
            }
        }
    }
}

/// The lowest threshold that shows the card to at most [`SAFE_SHARE`] of the safe.
fn threshold<'a>(scored: impl Iterator<Item = (&'a Line, f32)>) -> f32 {
    let mut safe: Vec<f32> = scored.filter(|(l, _)| !l.danger).map(|(_, s)| s).collect();
    safe.sort_by(|a, b| b.total_cmp(a));
    let allowed = (safe.len() as f32 * SAFE_SHARE) as usize;
    safe.get(allowed).map_or(0.0, |s| s + 1e-4)
}

fn argument(name: &str) -> Option<PathBuf> {
    std::env::args().skip_while(|a| a != name).nth(1).map(PathBuf::from)
}

fn main() {
    let flag = |name: &str| std::env::args().any(|a| a == name);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = argument("--cases").unwrap_or_else(|| root.join("../shared/fixtures/crisis/cases.tsv"));
    let mut cases = read(&path, 1.0);
    if cases.is_empty() {
        println!("skipped: no cases at {}", path.display());
        return;
    }
    let dir = argument("--own").unwrap_or_else(|| root.join("assets/safety"));
    let mut own = read(&dir.join("own.tsv"), 1.0);
    own.extend(read(&dir.join("talk.tsv"), 0.35));
    println!(
        "{} cases, {} own lines ({} danger)",
        cases.len(),
        own.len(),
        own.iter().filter(|l| l.danger).count()
    );
    // Folds by a fixed shuffle within each kind, so that each fold has its share of each.
    Dice(argument("--seed").map_or(42, |s| s.to_string_lossy().parse().unwrap_or(42))).shuffle(&mut cases);
    cases.sort_by(|a, b| a.kind.cmp(&b.kind));
    let (scores, kinds, n_left_out) = cross_validate(&cases, &own);
    let scored = || cases.iter().zip(scores.iter().copied());
    let thresholds: Vec<f32> = (0..N_FOLDS)
        .map(|fold| threshold(scored().enumerate().filter(|(i, _)| i % N_FOLDS != fold).map(|(_, p)| p)))
        .collect();
    println!(
        "{n_left_out} training lines left out as nearly the same as a held-out case; thresholds {thresholds:.2?}"
    );
    report(&cases, &scores, &kinds, &thresholds, flag("--misses"));
    if flag("--write") {
        let all: Vec<&Line> = cases.iter().chain(&own).collect();
        let mut w = train(&all, 99);
        w.threshold = threshold(scored());
        let path = root.join("assets/safety/weights.bin");
        std::fs::write(&path, w.to_bytes()).expect("the weights file can be written");
        println!("wrote {}", path.display());
    }
}

/// Score and kind of each case by a classifier that did not see its fold, and how many lines were left out.
fn cross_validate(cases: &[Line], own: &[Line]) -> (Vec<f32>, Vec<Kind>, usize) {
    let mut scores = vec![0.0f32; cases.len()];
    let mut kinds = vec![Kind::Suicide; cases.len()];
    let mut n_left_out = 0;
    std::thread::scope(|scope| {
        let one = |fold: usize| {
            let held: Vec<&Line> = cases.iter().skip(fold).step_by(N_FOLDS).collect();
            let rest = cases.iter().enumerate().filter(|(i, _)| i % N_FOLDS != fold).map(|(_, l)| l);
            let (out, kept): (Vec<&Line>, Vec<&Line>) =
                rest.chain(own).partition(|line| held.iter().any(|h| near(h, line)));
            (out.len(), train(&kept, fold as u64))
        };
        let folds: Vec<_> = (0..N_FOLDS).map(|fold| scope.spawn(move || one(fold))).collect();
        for (fold, thread) in folds.into_iter().enumerate() {
            let (n_out, w) = thread.join().expect("training does not panic");
            n_left_out += n_out;
            for i in (fold..cases.len()).step_by(N_FOLDS) {
                let (score, at) = w.score(&cases[i].windows);
                scores[i] = score;
                kinds[i] = w.kind(&cases[i].windows[at]);
            }
        }
    });
    (scores, kinds, n_left_out)
}

fn report(cases: &[Line], scores: &[f32], kinds: &[Kind], thresholds: &[f32], misses: bool) {
    let mut table: BTreeMap<(bool, &str), (usize, usize, usize)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        let shown = scores[i] >= thresholds[i % N_FOLDS];
        let row = table.entry((!case.danger, &case.kind)).or_default();
        row.0 += 1;
        row.1 += usize::from(shown);
        row.2 += usize::from(shown && kinds[i].as_str() == case.kind);
        if shown != case.danger {
            wrong.push((scores[i] - thresholds[i % N_FOLDS], case));
        }
    }
    let (mut danger, mut safe) = ((0, 0), (0, 0));
    for ((is_safe, kind), (n, shown, right)) in table {
        let sum = if is_safe { &mut safe } else { &mut danger };
        *sum = (sum.0 + n, sum.1 + shown);
        let share = 100.0 * shown as f32 / n as f32;
        let label = if is_safe { "safe" } else { "danger" };
        println!(
            "{label:7}{kind:10}{shown:4} of {n:4} shown the card {share:5.1}%   of them the right kind {right}"
        );
    }
    let share = |(n, shown): (usize, usize)| 100.0 * shown as f32 / n as f32;
    println!("danger shown {:.1}%   safe shown {:.1}%", share(danger), share(safe));
    if misses {
        wrong.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (score, case) in wrong {
            println!(
                "{score:7.2} {:7}{:10}{}",
                if case.danger { "missed" } else { "shown" },
                case.kind,
                case.text
            );
        }
    }
}
