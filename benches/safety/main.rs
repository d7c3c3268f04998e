//! Trains the crisis check's classifier and says honestly how well it does.
//!
//! ```text
//! cargo bench --bench safety                  5-fold cross-validation on the development cases, by kind
//! cargo bench --bench safety -- --misses      and each case it gets wrong
//! cargo bench --bench safety -- --write       and train on everything, write assets/safety/weights.bin
//! ```
//!
//! `cargo test --benches` runs it on a tenth of the lines, to see that it runs: such figures mean nothing.
//!
//! The cases (`../shared/fixtures/crisis/cases.tsv`, or `--cases FILE`) are folded; the lines in `assets/safety/*.tsv`
//! are always trained on, except those that are nearly the same as a held-out case. The threshold that judges a fold is
//! chosen on the scores of the other folds.

#![expect(clippy::print_stdout, reason = "a report is what this program is for")]

mod training;

use std::path::{Path, PathBuf};

use mommygpt::chat::safety::{self, classifier::Weights};
use training::{Line, Validation, total};

/// Of a run that is only to be seen to work, every so-manieth line is taken.
const SMOKE_STEP: usize = 10;

fn argument(name: &str) -> Option<PathBuf> {
    std::env::args().skip_while(|a| a != name).nth(1).map(PathBuf::from)
}

fn main() {
    let flag = |name: &str| std::env::args().any(|a| a == name);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = argument("--cases").unwrap_or_else(|| root.join("../shared/fixtures/crisis/cases.tsv"));
    let seed = argument("--seed").and_then(|s| s.to_str()?.parse().ok()).unwrap_or(42);
    let Some(mut cases) = training::cases(&path, seed) else {
        println!("skipped: no cases at {}", path.display());
        return;
    };
    let mut own = training::own(&argument("--own").unwrap_or_else(|| root.join("assets/safety")));
    // `cargo bench` hands this flag to every bench, `cargo test` does not.
    if !flag("--bench") && !flag("--write") {
        println!("smoke: one line of {SMOKE_STEP}");
        cases = cases.into_iter().step_by(SMOKE_STEP).collect();
        own = own.into_iter().step_by(SMOKE_STEP).collect();
    }
    println!(
        "{} cases, {} own lines ({} danger)",
        cases.len(),
        own.len(),
        own.iter().filter(|l| l.danger).count()
    );
    let validation = training::cross_validate(&cases, &own);
    report(&cases, &validation);
    println!("danger shown at a share of the safe shown: {}", validation.curve(&cases));
    held_out(&training::held_out(&root.join("assets/safety")));
    if flag("--misses") {
        misses(&cases, &validation);
    }
    if flag("--write") {
        let all: Vec<&Line> = cases.iter().chain(&own).collect();
        let mut weights = training::train(&all, 99);
        weights.threshold = validation.threshold;
        let path = root.join("assets/safety/weights.bin");
        std::fs::write(&path, weights.to_bytes()).expect("the weights file can be written");
        println!("wrote {}", path.display());
        if let Some(file) = argument("--also") {
            also(&weights, &file);
        }
    }
}

fn report(cases: &[Line], validation: &Validation) {
    let table = validation.table(cases);
    println!(
        "5-fold cross-validation; {} lines left out as nearly the same as a held-out case",
        validation.n_left_out
    );
    for ((label, kind), row) in &table {
        let (n, shown, percent) = (row.n, row.shown, row.percent());
        print!("{label:7} {kind:9} {shown:3} of {n:3} shown the card  {percent:5.1}%");
        println!(
            "{}",
            if *label == "danger" {
                format!("   {} of them the right one", row.right_kind)
            } else {
                String::new()
            }
        );
    }
    let (danger, safe) = (total(&table, "danger"), total(&table, "safe"));
    println!("danger shown {:.1}%   safe shown {:.1}%", danger.percent(), safe.percent());
}

/// What the weights in this binary say of lines that nothing was trained on.
fn held_out(lines: &[Line]) {
    for danger in [true, false] {
        let lines: Vec<&Line> = lines.iter().filter(|line| line.danger == danger).collect();
        let shown: Vec<_> = lines.iter().filter_map(|line| safety::check(&line.text)).collect();
        let plain = shown.iter().filter(|danger| danger.is_plain).count();
        let label = if danger { "danger" } else { "safe" };
        println!(
            "held out, {label}: {} of {} shown the card, {plain} answered as danger",
            shown.len(),
            lines.len()
        );
    }
}

fn misses(cases: &[Line], validation: &Validation) {
    let mut wrong: Vec<usize> =
        (0..cases.len()).filter(|&i| (validation.margin(i) >= 0.0) != cases[i].danger).collect();
    wrong.sort_by(|&a, &b| validation.margin(a).total_cmp(&validation.margin(b)));
    for i in wrong {
        let (case, margin) = (&cases[i], validation.margin(i));
        println!("{margin:7.2} {:7}{:10}{}", training::label(case), case.kind, case.text);
    }
}

/// How often the card would be shown for lines of another file, one message a line.
fn also(weights: &Weights, file: &Path) {
    let text = std::fs::read_to_string(file).expect("the file can be read");
    let shown: Vec<&str> = text.lines().filter(|line| weights.check(line, 0.0).is_some()).collect();
    for line in shown.iter().take(40) {
        println!("   {line}");
    }
    println!("{}: {} of {} lines shown the card", file.display(), shown.len(), text.lines().count());
}
