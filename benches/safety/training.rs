//! Training and cross-validation of the crisis check; used by the bench that writes the weights and by the test that
//! holds the promise.

use std::collections::BTreeMap;
use std::path::Path;

use mommygpt::chat::safety::Kind;
use mommygpt::chat::safety::classifier::{N_KIND_SLOTS, Weights};
use mommygpt::chat::safety::features::{self, N_SLOTS};

const N_FOLDS: usize = 5;
/// Share of stems in common from which a training line counts as nearly the same as a held-out case.
const NEAR: f32 = 0.5;
/// Safe cases that may be shown the card, when the threshold is chosen: below the promise of 6%, for what is unseen,
/// and as low as no kind of danger is seen less often for.
const SAFE_SHARE: f32 = 0.04;
/// The label of a line that may be either: nothing is to be learned from it.
const UNSURE: &str = "unsure";
/// Wordings taken of a line that stands for several.
const N_WORDINGS: usize = 24;
const N_TRAININGS: u64 = 2;
const EPOCHS: usize = 12;
const RATE: f32 = 0.25;
const L2: f32 = 1e-4;

/// A labelled message.
pub(crate) struct Line {
    pub(crate) danger: bool,
    pub(crate) kind: String,
    pub(crate) text: String,
    windows: Vec<Vec<u32>>,
    /// Hashes of its words' stems, sorted.
    stems: Vec<u64>,
    /// How much it counts in training.
    weight: f32,
}

/// The development cases, in an order that deals each fold its share of every kind; `None` if they are not there.
pub(crate) fn cases(path: &Path, seed: u64) -> Option<Vec<Line>> {
    let mut cases = read(path, 1.0);
    Dice(seed | 1).shuffle(&mut cases);
    cases.sort_by(|a, b| a.kind.cmp(&b.kind));
    (!cases.is_empty()).then_some(cases)
}

/// The lines written for training, in `assets/safety`.
pub(crate) fn own(dir: &Path) -> Vec<Line> {
    let mut lines = read(&dir.join("own.tsv"), 1.0);
    lines.extend(read(&dir.join("everyday.tsv"), 1.0));
    lines.extend(read(&dir.join("talk.tsv"), 0.35));
    lines.extend(read(&dir.join("ordinary.tsv"), 0.35));
    lines
}

fn read(path: &Path, weight: f32) -> Vec<Line> {
    let Ok(text) = std::fs::read_to_string(path) else { return Vec::new() };
    let mut out = Vec::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#') && !l.starts_with("label\t")) {
        let mut parts = line.splitn(3, '\t');
        let (Some(label), Some(kind), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
            panic!("{}: not label, kind, text: {line}", path.display());
        };
        if label == UNSURE {
            continue;
        }
        let wordings = wordings(text);
        let weight = weight / (wordings.len() as f32).sqrt();
        for text in wordings {
            let stems = stems(&text);
            let windows = features::windows(&text);
            out.push(Line { danger: label == "danger", kind: kind.into(), text, windows, stems, weight });
        }
    }
    out
}

/// Up to [`N_WORDINGS`] ways to read a line with `{a|b}` in it.
fn wordings(text: &str) -> Vec<String> {
    let mut dice = Dice(text.bytes().fold(7, |h: u64, b| h.wrapping_mul(31).wrapping_add(u64::from(b))) | 1);
    let mut out: Vec<String> = Vec::new();
    for _ in 0..if text.contains('{') { N_WORDINGS } else { 1 } {
        let mut wording = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (choices, after) = after.split_once('}').expect("each { has its }");
            let choices: Vec<&str> = choices.split('|').collect();
            wording.push_str(before);
            wording.push_str(choices[(dice.next() >> 16) as usize % choices.len()]);
            rest = after;
        }
        wording.push_str(rest);
        if !out.contains(&wording) {
            out.push(wording);
        }
    }
    out
}

fn stems(text: &str) -> Vec<u64> {
    let hash =
        |stem: &String| stem.bytes().fold(17, |h: u64, b| h.wrapping_mul(0x0100_0000_01b3) ^ u64::from(b));
    let mut stems: Vec<u64> = features::stems(text).iter().map(hash).collect();
    stems.sort_unstable();
    stems.dedup();
    stems
}

fn near(a: &Line, b: &Line) -> bool {
    let (a, b) = (&a.stems, &b.stems);
    let (mut i, mut j, mut shared) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        let (x, y) = (a[i], b[j]);
        shared += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    shared as f32 > NEAR * (a.len() + b.len() - shared) as f32
}

/// Lines written with those of `everyday.tsv` and kept from training and from the choice of the threshold.
pub(crate) fn held_out(dir: &Path) -> Vec<Line> {
    read(&dir.join("held_out.tsv"), 1.0)
}

/// A repeatable shuffle (xorshift).
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

/// The mean of [`N_TRAININGS`] trainings in different orders: steadier than each.
pub(crate) fn train(lines: &[&Line], seed: u64) -> Weights {
    let n = N_TRAININGS as f32;
    let mut w = train_once(lines, seed * N_TRAININGS);
    for i in 1..N_TRAININGS {
        let other = train_once(lines, seed * N_TRAININGS + i);
        w.danger.iter_mut().zip(&other.danger).for_each(|(w, o)| *w += o);
        w.bias += other.bias;
    }
    w.danger.iter_mut().for_each(|w| *w /= n);
    w.bias /= n;
    train_kinds(&mut w, lines, &mut Dice(seed | 1));
    w
}

/// Logistic loss on the most dangerous window of each line; `AdaGrad`; the mean of the later rounds.
fn train_once(lines: &[&Line], seed: u64) -> Weights {
    let mut w = Weights {
        danger: vec![0.0; N_SLOTS],
        bias: 0.0,
        threshold: 0.0,
        kinds: vec![vec![0.0; N_KIND_SLOTS]; Kind::ALL.len()],
    };
    let mut squares = vec![1e-6f32; N_SLOTS];
    let mut bias_square = 1e-6f32;
    let mut dice = Dice((0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0x1234_5678_9abc_def1)) | 1);
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
            let p = 1.0 / (1.0 + (-score).exp());
            let g = if line.danger { (p - 1.0) * line.weight * up } else { p * line.weight };
            if g.abs() < 1e-4 {
                continue;
            }
            let scale = 1.0 / (window.len() as f32).sqrt().max(1.0);
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
    w
}

/// Softmax over kinds, on the windows that the finished danger table points at.
fn train_kinds(w: &mut Weights, lines: &[&Line], dice: &mut Dice) {
    let mut squares = vec![vec![1e-6f32; N_KIND_SLOTS]; Kind::ALL.len()];
    let mut order: Vec<(&Line, Kind)> =
        lines.iter().filter(|l| l.danger).filter_map(|l| Some((*l, Kind::from_word(&l.kind)?))).collect();
    for _ in 0..EPOCHS {
        dice.shuffle(&mut order);
        for (line, kind) in &order {
            let window = &line.windows[w.score(&line.windows).1];
            let scale = 1.0 / (window.len() as f32).sqrt().max(1.0);
            let sum = |t: &Vec<f32>| window.iter().map(|&s| t[s as usize & (N_KIND_SLOTS - 1)]).sum::<f32>();
            let scores: Vec<f32> = w.kinds.iter().map(|t| scale * sum(t)).collect();
            let top = scores.iter().copied().fold(f32::MIN, f32::max);
            let all: f32 = scores.iter().map(|s| (s - top).exp()).sum();
            for (k, table) in w.kinds.iter_mut().enumerate() {
                let y = if Kind::ALL[k] == *kind { 1.0 } else { 0.0 };
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

/// What cross-validation found, one entry per case in their order.
pub(crate) struct Validation {
    scores: Vec<f32>,
    kinds: Vec<Kind>,
    /// What judges each fold: chosen on the scores of the others.
    thresholds: Vec<f32>,
    pub(crate) n_left_out: usize,
    /// For the weights that ship: chosen on all scores.
    pub(crate) threshold: f32,
}

/// How many of a kind there are, how many were shown the card, and how many of those with the right kind.
#[derive(Clone, Copy, Default)]
pub(crate) struct Row {
    pub(crate) n: usize,
    pub(crate) shown: usize,
    pub(crate) right_kind: usize,
}

impl Row {
    pub(crate) fn percent(self) -> f32 {
        100.0 * self.shown as f32 / self.n.max(1) as f32
    }
}

/// Judges each case by a classifier that saw neither its fold nor a line nearly the same as a case of its fold.
pub(crate) fn cross_validate(cases: &[Line], own: &[Line]) -> Validation {
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
    let safe = |keep: &dyn Fn(usize) -> bool| {
        (0..cases.len()).filter(|&i| !cases[i].danger && keep(i)).map(|i| scores[i]).collect::<Vec<f32>>()
    };
    let thresholds = (0..N_FOLDS).map(|fold| threshold(safe(&|i| i % N_FOLDS != fold))).collect();
    let all = threshold(safe(&|_| true));
    Validation { scores, kinds, thresholds, n_left_out, threshold: all }
}

/// The lowest threshold that shows the card to at most [`SAFE_SHARE`] of the safe.
fn threshold(mut safe: Vec<f32>) -> f32 {
    safe.sort_by(|a, b| b.total_cmp(a));
    let allowed = (safe.len() as f32 * SAFE_SHARE) as usize;
    safe.get(allowed).map_or(0.0, |s| s + 1e-4)
}

impl Validation {
    /// How far a case is above the threshold that judges it.
    pub(crate) fn margin(&self, i: usize) -> f32 {
        self.scores[i] - self.thresholds[i % N_FOLDS]
    }

    /// By label and kind.
    pub(crate) fn table<'a>(&self, cases: &'a [Line]) -> BTreeMap<(&'static str, &'a str), Row> {
        let mut table: BTreeMap<(&'static str, &str), Row> = BTreeMap::new();
        for (i, case) in cases.iter().enumerate() {
            let row = table.entry((label(case), &case.kind)).or_default();
            let shown = self.margin(i) >= 0.0;
            row.n += 1;
            row.shown += usize::from(shown);
            row.right_kind += usize::from(shown && self.kinds[i].as_str() == case.kind);
        }
        table
    }
}

/// The label as the files spell it.
pub(crate) fn label(line: &Line) -> &'static str {
    if line.danger { "danger" } else { "safe" }
}

/// The sum of a label's rows.
pub(crate) fn total(table: &BTreeMap<(&'static str, &str), Row>, label: &str) -> Row {
    table.iter().filter(|((l, _), _)| *l == label).fold(Row::default(), |sum, (_, row)| Row {
        n: sum.n + row.n,
        shown: sum.shown + row.shown,
        right_kind: sum.right_kind + row.right_kind,
    })
}

impl Validation {
    /// Per cent of danger shown the card at each per cent of the safe.
    pub(crate) fn curve(&self, cases: &[Line]) -> String {
        let (danger, safe): (Vec<usize>, Vec<usize>) = (0..cases.len()).partition(|&i| cases[i].danger);
        let mut safe: Vec<f32> = safe.into_iter().map(|i| self.scores[i]).collect();
        safe.sort_by(|a, b| b.total_cmp(a));
        let at = |percent: usize| {
            let line = safe[safe.len() * percent / 100];
            let shown = danger.iter().filter(|&&i| self.scores[i] > line).count();
            format!("{:.1}% at {percent}%", 100.0 * shown as f32 / danger.len() as f32)
        };
        (2..=6).map(at).collect::<Vec<_>>().join(", ")
    }
}
