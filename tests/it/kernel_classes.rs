//! Every class of kernels that this CPU has, inside whole models: as near to exact as llama.cpp, whatever stands beside a
//! row, and really the one that runs.

use std::path::Path;

use mommygpt::kernels::blocks::BlockType;
use mommygpt::kernels::reached::{Path as Way, has_run};
use mommygpt::model::{
    Chunk, Gguf, Isa, KvType, LoadOptions, LogitsFor, Model, SeqId, TokenId, load, load_reference,
};

use crate::fixtures::fixture;
use crate::parity::{LLAMA_CPP_MEAN_RATIO_MAX, assert_error, error, evaluate, reference};

/// Plain arithmetic without vectors is slow in a build for tests: the first rows must do for it.
const SCALAR_ROWS: usize = 16;

fn classes() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

fn open(path: &Path, isa: Isa, kv: KvType) -> Box<dyn Model> {
    let options = LoadOptions {
        n_ctx: Some(128),
        n_threads: 2,
        max_sequences: 9,
        kv,
        isa: Some(isa),
        ..LoadOptions::default()
    };
    load(&Gguf::open(path).unwrap(), &options).unwrap()
}

fn argmax(row: &[f32]) -> TokenId {
    row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as TokenId
}

#[test]
#[allow(clippy::print_stdout, reason = "the distances are what a reader of the log wants")]
fn every_class_is_as_near_to_exact_as_llama_cpp() {
    let Some(dir) = fixture("parity") else { return };
    let reference = reference(&dir);
    let fast = classes().filter(|isa| *isa != Isa::Scalar);
    for (isa, kv) in fast.flat_map(|isa| [KvType::I16, KvType::F16].map(|kv| (isa, kv))) {
        let mut logarithms = Vec::new();
        for case in &reference.cases {
            let mut model = open(&dir.join(&case.name), isa, kv);
            assert_eq!(model.backend(), format!("cpu {}", isa.as_str()));
            let seq = model.new_sequence().unwrap();
            let rows = evaluate(&mut *model, seq, &reference.prompt, reference.prompt.len());
            // Only what is served unless somebody asks for floats is held to each single file.
            let error = match kv {
                KvType::I16 => assert_error(isa.as_str(), &rows, &reference, case),
                _ => error(&rows, &reference, &case.exact),
            };
            if case.llama_cpp_error > 0.0 {
                logarithms.push((error / case.llama_cpp_error).ln());
            }
        }
        let mean = (logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp();
        assert!(logarithms.len() >= 18, "the list of quantized cases shrank");
        println!("{isa:?} {kv}: {mean:.3} times llama.cpp's error on average");
        assert!(mean <= LLAMA_CPP_MEAN_RATIO_MAX, "{isa:?} {kv}: {mean} times llama.cpp's error on average");
    }
}

#[test]
fn arithmetic_without_vectors_agrees() {
    let Some(dir) = fixture("parity") else { return };
    let reference = reference(&dir);
    let tokens = &reference.prompt[..SCALAR_ROWS];
    for name in ["llama-Q4_K_M.gguf", "llama-Q8_0.gguf", "qwen3-F32.gguf"] {
        let rows = |isa| {
            let mut model = open(&dir.join(name), isa, KvType::I16);
            let seq = model.new_sequence().unwrap();
            evaluate(&mut *model, seq, tokens, tokens.len()).concat()
        };
        let (plain, best) = (rows(Isa::Scalar), rows(Isa::best()));
        let off: f32 = plain.iter().zip(&best).map(|(a, b)| (a - b).powi(2)).sum();
        let size: f32 = best.iter().map(|b| b.powi(2)).sum();
        // Sums in another order move some activations over to the next code: a fraction of the error of coding them.
        assert!(off.sqrt() <= 0.03 * size.sqrt(), "{name}: {} of {}", off.sqrt(), size.sqrt());
    }
}

#[test]
fn keys_and_values_in_bytes_cost_little_accuracy_and_half_the_memory() {
    let Some(dir) = fixture("parity") else { return };
    let reference = reference(&dir);
    for name in ["llama-F32.gguf", "qwen3-Q8_0.gguf", "gemma3-F32.gguf"] {
        let case = reference.cases.iter().find(|case| case.name == name).unwrap();
        let [wide, mut narrow] = [KvType::I16, KvType::Q8].map(|kv| open(&dir.join(name), Isa::best(), kv));
        let seq = narrow.new_sequence().unwrap();
        let rows = evaluate(&mut *narrow, seq, &reference.prompt, 20);
        let off = error(&rows, &reference, &case.exact);
        // Eight bits per number, as the activations of quantized layers, and so an error of their size.
        assert!(off <= case.error_max + 0.06, "{name}: {off}");
        let (wide, narrow) = (wide.kv_usage().bytes_per_page, narrow.kv_usage().bytes_per_page);
        assert!(narrow * 100 <= wide * 53, "{narrow} bytes beside {wide}");
    }
}

/// Greedy continuation of `prompt`, given to the model `at_once` tokens a step.
fn greedy(model: &mut dyn Model, prompt: &[TokenId], at_once: usize, n: usize) -> Vec<TokenId> {
    let seq = model.new_sequence().unwrap();
    let mut last = Vec::new();
    for tokens in prompt.chunks(at_once) {
        last = model.step(&[Chunk { seq, tokens, logits: LogitsFor::Last }]).unwrap().data;
    }
    let mut out = vec![argmax(&last)];
    while out.len() < n {
        let tokens = [out[out.len() - 1]];
        out.push(argmax(
            &model.step(&[Chunk { seq, tokens: &tokens, logits: LogitsFor::Last }]).unwrap().data,
        ));
    }
    model.free_sequence(seq);
    out
}

#[test]
fn text_depends_neither_on_chunks_nor_on_neighbours() {
    let Some(dir) = fixture("parity") else { return };
    let reference = reference(&dir);
    let fast = classes().filter(|isa| *isa != Isa::Scalar);
    let files = [
        ("llama-Q4_K_M.gguf", KvType::I16),
        ("qwen3-Q8_0.gguf", KvType::I16),
        ("llama-Q4_K_M.gguf", KvType::F16),
    ];
    for (isa, (name, kv)) in fast.flat_map(|isa| files.map(|file| (isa, file))) {
        let mut model = open(&dir.join(name), isa, kv);
        let prompt: Vec<TokenId> =
            reference.prompt.iter().chain(&reference.prompt).copied().take(70).collect();
        let n = 12;
        let want = greedy(&mut *model, &prompt, 512, n);
        for at_once in [1, 7, 32, 64] {
            assert_eq!(
                greedy(&mut *model, &prompt, at_once, n),
                want,
                "{name} {isa:?} in chunks of {at_once}"
            );
        }
        let seqs: Vec<SeqId> = (0..8).map(|_| model.new_sequence().unwrap()).collect();
        // Neighbours of other lengths, so that no two stand at the same position.
        let chunks: Vec<Chunk<'_>> = seqs
            .iter()
            .enumerate()
            .map(|(i, &seq)| Chunk {
                seq,
                tokens: &prompt[if i == 5 { 0 } else { 10 + i }..],
                logits: LogitsFor::Last,
            })
            .collect();
        let logits = model.step(&chunks).unwrap();
        let mut texts: Vec<Vec<TokenId>> = logits.rows().map(|row| vec![argmax(row)]).collect();
        while texts[0].len() < n {
            let last: Vec<[TokenId; 1]> = texts.iter().map(|text| [text[text.len() - 1]]).collect();
            let chunks: Vec<Chunk<'_>> = seqs
                .iter()
                .zip(&last)
                .map(|(&seq, tokens)| Chunk { seq, tokens, logits: LogitsFor::Last })
                .collect();
            let logits = model.step(&chunks).unwrap();
            texts.iter_mut().zip(logits.rows()).for_each(|(text, row)| text.push(argmax(row)));
        }
        assert_eq!(texts[5], want, "{name} {isa:?} among eight");
    }
}

#[test]
fn the_kernels_asked_for_are_those_that_run() {
    let Some(dir) = fixture("parity") else { return };
    let files = [
        ("llama-Q4_0", BlockType::Q4_0),
        ("llama-Q4_1", BlockType::Q4_1),
        ("llama-Q5_0", BlockType::Q5_0),
        ("llama-Q5_1", BlockType::Q5_1),
        ("llama-Q8_0", BlockType::Q8_0),
        ("llama-Q2_K", BlockType::Q2K),
        ("llama-Q3_K_M", BlockType::Q3K),
        ("llama-Q4_K_M", BlockType::Q4K),
        ("llama-Q5_K_M", BlockType::Q5K),
        ("llama-Q6_K", BlockType::Q6K),
        ("llama-F16", BlockType::F16),
        ("llama-F32", BlockType::F32),
    ];
    for isa in classes().filter(|isa| ![Isa::Scalar, Isa::Amx].contains(isa)) {
        for (name, ty) in files {
            let mut model = open(&dir.join(format!("{name}.gguf")), isa, KvType::I16);
            let seq = model.new_sequence().unwrap();
            let mut step = |tokens: &[TokenId]| {
                model.step(&[Chunk { seq, tokens, logits: LogitsFor::Last }]).unwrap();
            };
            step(&[5; 33]);
            assert!(has_run(isa, ty, Way::ManyRows), "{isa:?} {ty:?} with many rows");
            step(&[5]);
            assert!(has_run(isa, ty, Way::FewRows), "{isa:?} {ty:?} with few rows");
        }
    }
}

#[test]
fn both_runners_agree_where_nothing_is_rounded() {
    let Some(dir) = fixture("parity") else { return };
    let reference = reference(&dir);
    for name in ["llama-F32.gguf", "phi3-F32.gguf"] {
        let gguf = Gguf::open(&dir.join(name)).unwrap();
        let options = LoadOptions { n_ctx: Some(64), n_threads: 2, ..LoadOptions::default() };
        let rows = |mut model: Box<dyn Model>| {
            let seq = model.new_sequence().unwrap();
            evaluate(&mut *model, seq, &reference.prompt, 16).concat()
        };
        let ours = rows(load(&gguf, &options).unwrap());
        let candle = rows(load_reference(&gguf, &options).unwrap());
        for (a, b) in ours.iter().zip(&candle) {
            // Keys and values are 16-bit floats in one and 32-bit in the other.
            assert!((a - b).abs() <= 0.02, "{name}: {a} and {b}");
        }
    }
}
