//! From text to tokens: how long a megabyte takes, how long a long chat's template takes, and how long a model takes to
//! load.
//!
//! `cargo bench --bench text -- --vocab DIR --templates DIR --model FILE.gguf`; what is left out is not measured, but
//! for the built-in model's vocabulary and template, which are always there.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use mommygpt::hub::{BUILTIN, BUILTIN_NAME};
use mommygpt::model::{self, Gguf, LoadOptions};
use mommygpt::text::{ChatTemplate, Speaker, TextModel, Tokenizer, Turn};

const MEGABYTE: usize = 1_000_000;
/// What a person may hold a key down for: a text of one of these has no place to cut it.
const UNBROKEN: [&str; 7] = ["a", " ", "1", "é", "\n", ".", "中"];
/// Messages of the long chat.
const N_MESSAGES: usize = 1_000;
/// Runs of each measurement; the median counts.
const N_RUNS: usize = 5;
/// Templates of which each gets a line; of the others the slowest do.
const N_SHOWN: usize = 8;

/// English as people write it, over and over: the written answers of this repository.
fn english() -> String {
    let text = include_str!("../assets/exemplars.tsv").replace('\t', " ");
    let mut out = String::with_capacity(2 * MEGABYTE);
    while out.len() < MEGABYTE {
        out.push_str(&text);
    }
    let end = (0..=MEGABYTE).rev().find(|&at| out.is_char_boundary(at)).unwrap_or(0);
    out.truncate(end);
    out
}

/// The median over some runs, in milliseconds.
fn median_ms(n_runs: usize, mut run: impl FnMut()) -> f64 {
    let mut took: Vec<f64> = (0..n_runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn tokenizers(vocab: Option<&Path>, n_bytes: usize, n_runs: usize) {
    let mut all = Vec::new();
    if let Ok(gguf) = Gguf::from_static(BUILTIN_NAME, BUILTIN) {
        all.push((BUILTIN_NAME.to_owned(), Tokenizer::from_gguf(&gguf)));
    }
    for path in vocab.map(|dir| files(dir, "gguf")).unwrap_or_default() {
        if let Ok(gguf) = Gguf::open(&path) {
            all.push((name(&path), Tokenizer::from_gguf(&gguf)));
        }
    }
    let english = &english()[..n_bytes];
    let unbroken = UNBROKEN.map(|c| c.repeat(n_bytes / c.len()));
    println!(
        "| vocabulary | English, ms | tokens | {} |",
        UNBROKEN.map(|c| format!("{c:?}, ms")).join(" | ")
    );
    println!("|{}", " --- |".repeat(3 + UNBROKEN.len()));
    for (name, tokenizer) in all {
        let Ok(tokenizer) = tokenizer else { continue };
        let encode = |text: &str| tokenizer.encode_plain(text, false).map_or(0, |ids| ids.len());
        let n_tokens = encode(english);
        let ms = |text: &str| median_ms(n_runs, || assert!(encode(text) > 0));
        let rest = unbroken.each_ref().map(|text| format!("{:.0}", ms(text))).join(" | ");
        println!("| {name} | {:.0} | {n_tokens} | {rest} |", ms(english));
    }
}

fn templates(dir: Option<&Path>, n_messages: usize, n_runs: usize) {
    let turns: Vec<Turn> = (0..n_messages)
        .map(|i| {
            let speaker = if i % 2 == 0 { Speaker::User } else { Speaker::Assistant };
            Turn::new(speaker, format!("message {i}, neither long nor short, about one thing and another"))
        })
        .collect();
    let mut all = Vec::new();
    if let Ok(gguf) = Gguf::from_static(BUILTIN_NAME, BUILTIN) {
        all.push((BUILTIN_NAME.to_owned(), ChatTemplate::from_gguf(&gguf)));
    }
    for path in dir.map(|dir| files(dir, "jinja")).unwrap_or_default() {
        let source = std::fs::read_to_string(&path).unwrap_or_default();
        all.push((name(&path), ChatTemplate::from_source(&source, "<s>", "</s>")));
    }
    let mut rows: Vec<(f64, String)> = Vec::new();
    for (name, template) in all {
        match template.and_then(|template| template.render(&turns, true).map(|_| template)) {
            Ok(template) => {
                let ms = median_ms(n_runs, || drop(std::hint::black_box(template.render(&turns, true))));
                rows.push((ms, name));
            }
            Err(e) => println!("{name}: {e}"),
        }
    }
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!("\n| template of {}, {n_messages} messages | ms |\n| --- | ---: |", rows.len());
    for (ms, name) in rows.iter().take(N_SHOWN) {
        println!("| {name} | {ms:.1} |");
    }
    if let Some((ms, _)) = rows.get(rows.len() / 2) {
        println!("| median of all | {ms:.1} |");
    }
}

fn loading(model: &Path, n_runs: usize) {
    let n_threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let options = LoadOptions { n_threads, ..LoadOptions::default() };
    let (mut header, mut text) = (0.0, 0.0);
    let all = median_ms(n_runs, || {
        let start = Instant::now();
        let gguf = Gguf::open(model).expect("the file is a model");
        header = start.elapsed().as_secs_f64() * 1e3;
        let start = Instant::now();
        let parts = TextModel::from_gguf(&gguf);
        text = start.elapsed().as_secs_f64() * 1e3;
        let loaded = model::load(&gguf, &options).expect("it loads");
        std::hint::black_box((parts.is_ok(), loaded.config().n_params));
    });
    let mib = std::fs::metadata(model).map_or(0.0, |m| m.len() as f64 / f64::from(1 << 20));
    println!("\n| loading {} ({mib:.0} MiB) | ms |\n| --- | ---: |", name(model));
    println!(
        "| header | {header:.0} |\n| vocabulary and template | {text:.0} |\n| all, weights included | {all:.0} |"
    );
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let path =
        |flag: &str| args.iter().position(|a| a == flag).and_then(|i| args.get(i + 1)).map(PathBuf::from);
    let is_smoke = args.len() == 1 || args.iter().any(|a| a == "--test");
    let (n_bytes, n_messages, n_runs) =
        if is_smoke { (MEGABYTE / 100, N_MESSAGES / 100, 1) } else { (MEGABYTE, N_MESSAGES, N_RUNS) };
    tokenizers(path("--vocab").as_deref(), n_bytes, n_runs);
    templates(path("--templates").as_deref(), n_messages, n_runs);
    if let Some(model) = path("--model") {
        loading(&model, n_runs);
    }
}
