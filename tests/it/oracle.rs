//! Architectures whose real files are large, as tiny random models against llama.cpp's logits (`tests/oracle/make.py`).

use std::path::{Path, PathBuf};

use mommygpt::model::{
    Chunk, Gguf, LoadOptions, LogitsFor, Model, ModelConfig, SUPPORTED_ARCHITECTURES, SeqId, TokenId, load,
};

const PROMPT: &[TokenId] =
    &[1, 40, 17, 9, 33, 33, 5, 62, 21, 8, 50, 3, 12, 47, 30, 2, 19, 55, 6, 28, 41, 11, 60, 7];
const ARCHITECTURES: &[&str] = &["glm4", "qwen3moe", "lfm2"];
/// As a part of the largest logit: both sides compute in 32-bit floats, in different orders.
const ERROR_MAX: f32 = 1e-4;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(name)
}

fn open(architecture: &str) -> Box<dyn Model> {
    let gguf = Gguf::open(&file(&format!("{architecture}.gguf"))).unwrap();
    load(&gguf, &LoadOptions { max_sequences: 4, ..LoadOptions::default() }).unwrap()
}

fn theirs(architecture: &str) -> Vec<f32> {
    let bytes = std::fs::read(file(&format!("{architecture}.npy"))).unwrap();
    npyz::NpyFile::new(&bytes[..]).unwrap().into_vec().unwrap()
}

fn evaluate(model: &mut dyn Model, seq: SeqId, tokens: &[TokenId], at_once: usize) -> Vec<f32> {
    let step = |tokens| model.step(&[Chunk { seq, tokens, logits: LogitsFor::All }]).unwrap().data;
    tokens.chunks(at_once).flat_map(step).collect()
}

#[track_caller]
fn assert_close(what: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let apart = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let largest = theirs.iter().copied().map(f32::abs).fold(0.0, f32::max);
    assert!(apart <= ERROR_MAX * largest, "{what}: {apart} apart, the largest is {largest}");
}

#[test]
fn logits_are_those_of_llama_cpp_in_chunks_of_any_size() {
    for architecture in ARCHITECTURES {
        let (mut model, theirs) = (open(architecture), theirs(architecture));
        for at_once in [PROMPT.len(), 7, 2, 1] {
            let seq = model.new_sequence().unwrap();
            let ours = evaluate(&mut *model, seq, PROMPT, at_once);
            assert_close(&format!("{architecture}, {at_once} at once"), &ours, &theirs);
            model.free_sequence(seq);
        }
    }
}

#[test]
fn sequences_in_one_batch_do_not_touch_each_other() {
    for architecture in ARCHITECTURES {
        let (mut model, theirs) = (open(architecture), theirs(architecture));
        let n_vocab = model.config().n_vocab;
        let (a, b) = (model.new_sequence().unwrap(), model.new_sequence().unwrap());
        evaluate(&mut *model, a, &PROMPT[..5], 5);
        let other: Vec<TokenId> = PROMPT.iter().rev().copied().collect();
        evaluate(&mut *model, b, &other[..9], 4);
        let rest = [
            Chunk { seq: b, tokens: &other[9..10], logits: LogitsFor::None },
            Chunk { seq: a, tokens: &PROMPT[5..], logits: LogitsFor::All },
        ];
        let ours = model.step(&rest).unwrap().data;
        assert_close(architecture, &ours, &theirs[5 * n_vocab..]);
    }
}

#[test]
fn a_sequence_goes_on_from_where_it_was_cut() {
    for architecture in ARCHITECTURES {
        let (mut model, theirs) = (open(architecture), theirs(architecture));
        let n_vocab = model.config().n_vocab;
        let seq = model.new_sequence().unwrap();
        evaluate(&mut *model, seq, &PROMPT[..12], 12);
        evaluate(&mut *model, seq, &[9, 9, 9], 1);
        model.truncate(seq, 12);
        assert_eq!(model.seq_len(seq), 12, "{architecture}");
        let fork = model.fork(seq, 10).unwrap();
        let ours = evaluate(&mut *model, seq, &PROMPT[12..], 3);
        assert_close(architecture, &ours, &theirs[12 * n_vocab..]);
        let ours = evaluate(&mut *model, fork, &PROMPT[10..], 20);
        assert_close(&format!("{architecture}, forked"), &ours, &theirs[10 * n_vocab..]);
    }
}

#[test]
fn a_short_convolution_says_when_it_cannot_go_back_so_far() {
    let long: Vec<TokenId> = (0..100).map(|i| i % 60).collect();
    for architecture in ARCHITECTURES {
        let (mut model, theirs) = (open(architecture), theirs(architecture));
        let n_vocab = model.config().n_vocab;
        let seq = model.new_sequence().unwrap();
        evaluate(&mut *model, seq, PROMPT, 24);
        evaluate(&mut *model, seq, &long, 50);
        model.truncate(seq, 24);
        if *architecture == "lfm2" {
            assert_eq!(model.seq_len(seq), 124, "nothing changes");
            assert!(model.fork(seq, 24).is_err());
            model.truncate(seq, 0);
            let ours = evaluate(&mut *model, seq, PROMPT, 24);
            assert_close("lfm2 from the beginning", &ours, &theirs);
        } else {
            assert_eq!(model.seq_len(seq), 24, "{architecture}");
            model.truncate(seq, 12);
            let ours = evaluate(&mut *model, seq, &PROMPT[12..], 12);
            assert_close(architecture, &ours, &theirs[12 * n_vocab..]);
        }
    }
}

#[test]
fn what_is_not_computed_is_refused_with_the_list_of_what_is() {
    let bytes = std::fs::read(file("glm4.gguf")).unwrap();
    let mut renamed = bytes.clone();
    for at in 0..renamed.len() - 4 {
        if &bytes[at..at + 4] == b"glm4" {
            renamed[at..at + 4].copy_from_slice(b"rwkv");
        }
    }
    let gguf = Gguf::from_static("renamed", Box::leak(renamed.into_boxed_slice())).unwrap();
    let text = ModelConfig::from_gguf(&gguf, None).unwrap_err().to_string();
    assert!(text.contains("rwkv"), "{text}");
    for architecture in SUPPORTED_ARCHITECTURES {
        assert!(text.contains(architecture), "{architecture}: {text}");
    }
}
