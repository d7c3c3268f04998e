//! Logits of tiny random models of every architecture and quantization against llama.cpp's and against exact ones.
//!
//! `<model>.exact.npy` holds logits computed in 32-bit floats over the dequantized weights. llama.cpp's own distance
//! from them, which comes from quantizing activations, stands in `parity.json`, as a ratio of Frobenius norms.

use std::path::Path;

use mommygpt::model::{Chunk, Device, Gguf, LoadOptions, Logits, LogitsFor, Model, SeqId, TokenId, load};
use serde_json::Value;

use crate::fixtures::fixture;

/// Models without quantized weights have no error but rounding.
const FLOAT_ERROR_MAX: f64 = 5e-3;
/// No quantized model may be further from exact than this many times llama.cpp,
const LLAMA_CPP_RATIO_MAX: f64 = 1.1;
/// and all together, as a geometric mean, only this far: 1,280 logits of a tiny model hang on few activations, so that chance
/// moves single files by a fifth.
pub(crate) const LLAMA_CPP_MEAN_RATIO_MAX: f64 = 0.8;

pub(crate) struct Reference {
    pub(crate) prompt: Vec<TokenId>,
    positions: Vec<usize>,
    pub(crate) cases: Vec<Case>,
}

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) exact: Vec<f32>,
    pub(crate) error_max: f64,
    /// 0 for models without quantized weights.
    pub(crate) llama_cpp_error: f64,
}

fn integers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
}

fn npy(path: &Path) -> Vec<f32> {
    npyz::NpyFile::new(&std::fs::read(path).unwrap()[..]).unwrap().into_vec().unwrap()
}

pub(crate) fn reference(dir: &Path) -> Reference {
    let json: Value = serde_json::from_slice(&std::fs::read(dir.join("parity.json")).unwrap()).unwrap();
    let cases = json["cases"].as_array().unwrap().iter().map(|case| {
        let name = case["model"].as_str().unwrap().to_owned();
        let exact = dir.join(name.replace(".gguf", ".exact.npy"));
        let exact = if exact.exists() { exact } else { dir.join(case["logits"].as_str().unwrap()) };
        let float = name.contains("-F32") || name.contains("-F16");
        let llama_cpp_error = case["llama_cpp_error"].as_f64().unwrap();
        let error_max = if float { FLOAT_ERROR_MAX } else { LLAMA_CPP_RATIO_MAX * llama_cpp_error };
        Case {
            name,
            exact: npy(&exact),
            error_max,
            llama_cpp_error: if float { 0.0 } else { llama_cpp_error },
        }
    });
    Reference {
        prompt: integers(&json["prompt"]).into_iter().map(|id| id as TokenId).collect(),
        positions: integers(&json["positions"]),
        cases: cases.collect(),
    }
}

fn open(path: &Path) -> Box<dyn Model> {
    let options = LoadOptions {
        n_ctx: Some(128),
        n_threads: 2,
        device: Device::Cpu,
        max_sequences: 4,
        ..LoadOptions::default()
    };
    load(&Gguf::open(path).unwrap(), &options).unwrap()
}

/// |x - exact| / |exact| over the rows that the reference has.
pub(crate) fn error(rows: &[Vec<f32>], reference: &Reference, exact: &[f32]) -> f64 {
    let n_vocab = exact.len() / reference.positions.len();
    let (mut off, mut size) = (0.0, 0.0);
    for (&position, exact) in reference.positions.iter().zip(exact.chunks(n_vocab)) {
        for (x, e) in rows[position].iter().zip(exact) {
            off += f64::from(x - e).powi(2);
            size += f64::from(*e).powi(2);
        }
    }
    (off / size).sqrt()
}

fn rows(logits: &Logits) -> Vec<Vec<f32>> {
    logits.rows().map(<[f32]>::to_vec).collect()
}

/// Logits of every position of `tokens`, evaluated `at_once` tokens a step.
pub(crate) fn evaluate(
    model: &mut dyn Model,
    seq: SeqId,
    tokens: &[TokenId],
    at_once: usize,
) -> Vec<Vec<f32>> {
    let steps = tokens.chunks(at_once);
    steps
        .flat_map(|tokens| rows(&model.step(&[Chunk { seq, tokens, logits: LogitsFor::All }]).unwrap()))
        .collect()
}

#[allow(clippy::print_stdout, reason = "the distances are what a reader of the log wants")]
pub(crate) fn assert_error(what: &str, rows: &[Vec<f32>], reference: &Reference, case: &Case) -> f64 {
    let error = error(rows, reference, &case.exact);
    println!("{:24} {what:12} {error:.6} of {:.6}", case.name, case.error_max);
    assert!(error <= case.error_max, "{} {what}: error {error} > {}", case.name, case.error_max);
    error
}

#[test]
fn every_architecture_and_type_is_near_exact_in_chunks_of_any_size() {
    let Some(dir) = fixture("parity") else { return };
    let reference = reference(&dir);
    assert!(reference.cases.len() >= 24, "the list of cases shrank");
    for case in &reference.cases {
        let mut model = open(&dir.join(&case.name));
        for at_once in [reference.prompt.len(), 32, 7] {
            let seq = model.new_sequence().unwrap();
            let rows = evaluate(&mut *model, seq, &reference.prompt, at_once);
            assert_error(&format!("chunks of {at_once}"), &rows, &reference, case);
            model.free_sequence(seq);
        }
        let seq = model.new_sequence().unwrap();
        let (prompt, decoded) = reference.prompt.split_at(40);
        let mut rows = evaluate(&mut *model, seq, prompt, prompt.len());
        rows.extend(evaluate(&mut *model, seq, decoded, 1));
        assert_error("decoded", &rows, &reference, case);
    }
}

#[test]
fn a_truncated_sequence_goes_on_as_if_it_had_never_been_longer() {
    let Some(dir) = fixture("parity") else { return };
    let reference = reference(&dir);
    for case in &reference.cases {
        let mut model = open(&dir.join(&case.name));
        let seq = model.new_sequence().unwrap();
        let (kept, rest) = reference.prompt.split_at(20);
        let mut rows = evaluate(&mut *model, seq, kept, 20);
        let other: Vec<TokenId> = rest.iter().rev().copied().collect();
        evaluate(&mut *model, seq, &other, 9);
        model.truncate(seq, 1000);
        assert_eq!(model.seq_len(seq), reference.prompt.len(), "a longer truncation changes nothing");
        model.truncate(seq, 20);
        assert_eq!(model.seq_len(seq), 20);
        rows.extend(evaluate(&mut *model, seq, rest, 13));
        assert_error("truncated", &rows, &reference, case);
    }
}

#[test]
fn a_fork_goes_on_like_its_parent_and_leaves_it_alone() {
    let Some(dir) = fixture("parity") else { return };
    let reference = reference(&dir);
    for case in &reference.cases {
        let mut model = open(&dir.join(&case.name));
        let parent = model.new_sequence().unwrap();
        let mut rows = evaluate(&mut *model, parent, &reference.prompt[..40], 40);
        // Past one whole page of 32 positions, and inside it.
        for len in [35, 32, 3] {
            let fork = model.fork(parent, len).unwrap();
            assert_eq!((model.seq_len(parent), model.seq_len(fork)), (40, len));
            let mut forked = rows[..len].to_vec();
            forked.extend(evaluate(&mut *model, fork, &reference.prompt[len..], 7));
            assert_error(&format!("fork at {len}"), &forked, &reference, case);
            let backwards: Vec<TokenId> = reference.prompt.iter().rev().copied().collect();
            model.truncate(fork, len.min(20));
            evaluate(&mut *model, fork, &backwards, 16);
            model.free_sequence(fork);
        }
        rows.extend(evaluate(&mut *model, parent, &reference.prompt[40..], 8));
        assert_error("parent of forks", &rows, &reference, case);
    }
}

#[test]
fn memory_of_sequences_is_counted_and_given_back() {
    let Some(dir) = fixture("parity") else { return };
    let mut model = open(&dir.join("llama-F32.gguf"));
    let empty = model.kv_usage();
    assert_eq!((empty.pages_used, empty.pages_total), (0, 4 * 128 / 32));
    assert!(empty.bytes_per_page > 0);
    let seq = model.new_sequence().unwrap();
    model.step(&[Chunk { seq, tokens: &[5; 33], logits: LogitsFor::None }]).unwrap();
    assert_eq!(model.kv_usage().pages_used, 2);
    let fork = model.fork(seq, 33).unwrap();
    model.free_sequence(seq);
    assert_eq!(model.seq_len(fork), 33);
    assert!(model.fork(seq, 1).is_err(), "a freed sequence cannot be forked");
    assert!(model.fork(fork, 34).is_err(), "a fork is not longer than its parent");
    model.truncate(fork, 1);
    assert_eq!(model.kv_usage().pages_used, 1);
    model.free_sequence(fork);
    assert_eq!(model.kv_usage().pages_used, 0);
}

#[test]
fn sequences_in_one_batch_do_not_see_each_other() {
    let Some(dir) = fixture("parity") else { return };
    let reference = reference(&dir);
    for case in &reference.cases {
        let mut model = open(&dir.join(&case.name));
        let [a, b] = [model.new_sequence().unwrap(), model.new_sequence().unwrap()];
        let backwards: Vec<TokenId> = reference.prompt.iter().rev().copied().collect();
        let alone = {
            let seq = model.new_sequence().unwrap();
            evaluate(&mut *model, seq, &backwards, backwards.len())
        };
        let (mut rows_a, mut rows_b) = (Vec::new(), Vec::new());
        // The second sequence takes other steps than the first, so that they never stand at the same position.
        let (mut tokens_a, mut tokens_b) = (&reference.prompt[..], &backwards[..]);
        while !tokens_a.is_empty() || !tokens_b.is_empty() {
            let (now_a, later_a) = tokens_a.split_at(tokens_a.len().min(5));
            let (now_b, later_b) = tokens_b.split_at(tokens_b.len().min(8));
            let mut batch = Vec::new();
            if !now_b.is_empty() {
                batch.push(Chunk { seq: b, tokens: now_b, logits: LogitsFor::All });
            }
            batch.push(Chunk { seq: a, tokens: now_a, logits: LogitsFor::All });
            let logits = rows(&model.step(&batch).unwrap());
            let (of_b, of_a) = logits.split_at(now_b.len());
            rows_b.extend_from_slice(of_b);
            rows_a.extend_from_slice(of_a);
            (tokens_a, tokens_b) = (later_a, later_b);
        }
        assert_error("interleaved", &rows_a, &reference, case);
        let exact: Vec<f32> = reference.positions.iter().flat_map(|&p| alone[p].clone()).collect();
        let apart = error(&rows_b, &reference, &exact);
        assert!(apart <= case.error_max, "{}: {apart} apart from the same sequence alone", case.name);
    }
}

#[test]
fn only_wanted_rows_come_back() {
    let Some(dir) = fixture("parity") else { return };
    let reference = reference(&dir);
    let mut model = open(&dir.join("llama-F32.gguf"));
    let [a, b, c] = std::array::from_fn(|_| model.new_sequence().unwrap());
    let all = evaluate(&mut *model, a, &reference.prompt, 48);
    model.truncate(a, 0);
    let tokens = &reference.prompt;
    let logits = model
        .step(&[
            Chunk { seq: a, tokens, logits: LogitsFor::Last },
            Chunk { seq: b, tokens: &tokens[..5], logits: LogitsFor::None },
            Chunk { seq: c, tokens: &tokens[..2], logits: LogitsFor::All },
        ])
        .unwrap();
    let got = rows(&logits);
    assert_eq!(got.len(), 3);
    for (got, want) in got.iter().zip([&all[47], &all[0], &all[1]]) {
        for (x, y) in got.iter().zip(want) {
            assert!((x - y).abs() < 1e-3, "{x} for {y}");
        }
    }
    let none = model.step(&[Chunk { seq: b, tokens: &tokens[5..6], logits: LogitsFor::None }]).unwrap();
    assert!(none.data.is_empty());
    assert_eq!(model.seq_len(b), 6);
}

#[test]
fn a_batch_that_cannot_be_computed_changes_nothing() {
    let Some(dir) = fixture("parity") else { return };
    let mut model = open(&dir.join("llama-F32.gguf"));
    let [a, b] = std::array::from_fn(|_| model.new_sequence().unwrap());
    let chunk = |seq, tokens| Chunk { seq, tokens, logits: LogitsFor::Last };
    let too_long = [5; 129];
    let refused = |model: &mut dyn Model, batch: &[Chunk<'_>], word: &str| {
        let text = model.step(batch).unwrap_err().to_string();
        assert!(text.contains(word), "{text:?} should mention {word:?}");
        assert_eq!((model.seq_len(a), model.seq_len(b)), (0, 0), "{text}");
    };
    refused(&mut *model, &[chunk(a, &[5]), chunk(b, &too_long)], "context of 128");
    refused(&mut *model, &[chunk(a, &[5]), chunk(b, &[320])], "token 320");
    refused(&mut *model, &[chunk(a, &[5]), chunk(a, &[6])], "twice");
    refused(&mut *model, &[chunk(a, &[5]), chunk(b, &[])], "no tokens");
    refused(&mut *model, &[chunk(a, &[5]), chunk(SeqId(77), &[6])], "does not exist");
    model.step(&[chunk(a, &too_long[..128])]).unwrap();
    assert!(model.step(&[chunk(a, &[5])]).is_err());
    assert_eq!(model.seq_len(a), 128);
    let _ = std::array::from_fn::<_, 2, _>(|_| model.new_sequence().unwrap());
    assert!(model.new_sequence().is_err(), "a fifth sequence of four");
    model.free_sequence(a);
    assert_eq!(model.seq_len(a), 0);
    model.new_sequence().unwrap();
}
