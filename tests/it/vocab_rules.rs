//! Rules of vocabularies that no fixture has, in vocabularies small enough to know every id by hand.

use std::path::PathBuf;

use crate::gguf_writer::{Meta, Writer};
use crate::program::{Program, Ran};

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// A byte-level vocabulary: `a` 0, `b` 1, `c` 2, a blank 3, `ab` 4, `abc` 5 (no merge makes it), `<s>` 6, `</s>` 7 and `<tool>` 8.
fn bytes(pre: &str) -> Writer {
    let mut writer = Writer::new();
    let tokens = ["a", "b", "c", "Ġ", "ab", "abc", "<s>", "</s>", "<tool>"];
    let kinds = [NORMAL, NORMAL, NORMAL, NORMAL, NORMAL, NORMAL, CONTROL, CONTROL, USER_DEFINED];
    writer.set("general.architecture", Meta::Str("llama".into()));
    writer.set("tokenizer.ggml.model", Meta::Str("gpt2".into()));
    writer.set("tokenizer.ggml.pre", Meta::Str(pre.into()));
    writer.set("tokenizer.ggml.tokens", Meta::Strings(tokens.map(String::from).to_vec()));
    writer.set("tokenizer.ggml.token_type", Meta::I32s(kinds.to_vec()));
    writer.set("tokenizer.ggml.merges", Meta::Strings(vec!["a b".into()]));
    writer.set("tokenizer.ggml.bos_token_id", Meta::U32(6));
    writer.set("tokenizer.ggml.eos_token_id", Meta::U32(7));
    writer
}

/// A vocabulary with scores: `<unk>` 0, `<s>` 1, `</s>` 2, then `▁` 3, `a` 4, `b` 5, `▁a` 6, `ab` 7, `▁ab` 8, `b▁a` 9, and the
/// bytes of `é` 10 and 11. The tokens in `best` have the best scores, in that order; of the others the shorter is better.
fn scores(best: &[&str]) -> Writer {
    let mut writer = Writer::new();
    let tokens = ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab", "▁ab", "b▁a", "<0xC3>", "<0xA9>"];
    let kinds = [UNKNOWN, CONTROL, CONTROL, 1, 1, 1, 1, 1, 1, 1, BYTE, BYTE];
    let score = |token: &str| {
        let place = best.iter().position(|best| *best == token);
        place.map_or(-(token.len() as f32) - 10.0, |place| -(place as f32))
    };
    writer.set("general.architecture", Meta::Str("llama".into()));
    writer.set("tokenizer.ggml.model", Meta::Str("llama".into()));
    writer.set("tokenizer.ggml.tokens", Meta::Strings(tokens.map(String::from).to_vec()));
    writer.set("tokenizer.ggml.scores", Meta::F32s(tokens.map(score).to_vec()));
    writer.set("tokenizer.ggml.token_type", Meta::I32s(kinds.to_vec()));
    writer
}

fn run(program: &Program, writer: &Writer, args: &[&str], text: &str) -> Ran {
    let path: PathBuf = program.beside("vocabulary.gguf");
    std::fs::write(&path, writer.bytes()).unwrap();
    program.run_with(&[&["tokenize", "-m", path.to_str().unwrap()], args].concat(), text)
}

#[track_caller]
fn check(writer: &Writer, text: &str, expected: &str) {
    let ran = run(&Program::new(), writer, &[], text);
    assert_eq!((ran.stdout.trim_end(), ran.code), (expected, 0), "{text:?}: {ran:?}");
}

#[test]
fn some_families_take_a_whole_piece_whatever_the_merges_say() {
    check(&bytes("gpt-2"), "abc", "4 2");
    check(&bytes("llama-bpe"), "abc", "6 5");
    check(&bytes("llama-bpe"), "abca", "6 4 2 0");
}

#[test]
fn the_file_says_what_goes_before_and_behind() {
    let mut writer = bytes("gpt-2");
    check(&writer, "a", "0");
    writer.set("tokenizer.ggml.add_bos_token", Meta::Bool(true));
    writer.set("tokenizer.ggml.add_eos_token", Meta::Bool(true));
    check(&writer, "a", "6 0 7");
    check(&writer, "", "6 7");
    assert_eq!(run(&Program::new(), &writer, &["--no-special"], "a").stdout, "0\n");
    let mut writer = bytes("llama-bpe");
    writer.set("tokenizer.ggml.add_bos_token", Meta::Bool(false));
    check(&writer, "a", "0");
    let mut writer = bytes("gpt-2");
    writer.set("tokenizer.ggml.add_eos_token", Meta::Bool(true));
    writer.unset("tokenizer.ggml.eos_token_id");
    let ran = run(&Program::new(), &writer, &[], "a");
    assert!(ran.code == 3 && ran.stderr.contains("add_eos_token"), "{ran:?}");
}

#[test]
fn user_defined_tokens_are_cut_out_of_any_text_and_control_tokens_of_none() {
    check(&bytes("gpt-2"), "a<tool>b", "0 8 1");
    check(&bytes("gpt-2"), "ab<tool><tool>ab", "4 8 8 4");
    // None of the other characters has a token here, so nothing is left of it but its letters.
    check(&bytes("gpt-2"), "a</s>b", "0 1");
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    for (key, value) in [("tokenizer.ggml.pre", "martian"), ("tokenizer.ggml.model", "t5")] {
        let mut writer = bytes("gpt-2");
        writer.set(key, Meta::Str(value.into()));
        let ran = run(&Program::new(), &writer, &[], "a");
        assert_eq!((ran.code, ran.stderr.lines().count()), (3, 1), "{ran:?}");
        assert!(ran.stderr.contains(key) && ran.stderr.contains(value), "{ran:?}");
    }
}

#[test]
fn the_better_score_is_joined_first_also_across_words() {
    check(&scores(&["ab"]), "ab", "1 8");
    check(&scores(&["ab"]), "ab ab", "1 8 8");
    check(&scores(&["▁a"]), "ab ab", "1 8 8");
    // A token with a blank inside: the words cannot be told apart before it is looked for.
    check(&scores(&["▁a", "b▁a"]), "ab ab", "1 6 9 5");
    check(&scores(&[]), "aé", "1 6 10 11");
    check(&scores(&[]), "a!", "1 6 0");
    let mut writer = scores(&[]);
    writer.set("tokenizer.ggml.add_space_prefix", Meta::Bool(false));
    check(&writer, "ab", "1 7");
}
