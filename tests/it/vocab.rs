//! Tokenizers of real vocabularies give the reference's ids, and their text comes back.

use std::path::Path;
use std::sync::Arc;

use mommygpt::model::gguf::Gguf;
use mommygpt::text::{Detokenizer, Tokenizer};

use crate::fixtures::fixture;

const NAMES: [&str; 8] =
    ["deepseek-llm", "falcon", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "starcoder"];

fn tokenizer(folder: &Path, name: &str) -> Arc<Tokenizer> {
    let path = folder.join(format!("ggml-vocab-{name}.gguf"));
    let gguf = Gguf::open(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
    Arc::new(Tokenizer::from_gguf(&gguf).unwrap_or_else(|e| panic!("{name}: {e}")))
}

fn for_each_vocabulary(check: impl Fn(&str, &Arc<Tokenizer>, &Path)) {
    let Some(folder) = fixture("vocab") else { return };
    for name in NAMES {
        check(name, &tokenizer(&folder, name), &folder);
    }
}

fn texts(folder: &Path, name: &str) -> Vec<String> {
    let path = folder.join(format!("ggml-vocab-{name}.gguf.inp"));
    let all = std::fs::read_to_string(path).unwrap();
    all.split("\n__ggml_vocab_test__\n").map(str::to_owned).collect()
}

#[test]
fn ids_are_those_of_the_reference() {
    for_each_vocabulary(|name, tokenizer, folder| {
        let expected = std::fs::read_to_string(folder.join(format!("ggml-vocab-{name}.gguf.out"))).unwrap();
        let texts = texts(folder, name);
        assert!(expected.lines().count() >= texts.len() - 1, "{name}: too few lines");
        for (text, line) in texts.iter().zip(expected.lines()) {
            let expected: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
            assert_eq!(tokenizer.encode_plain(text, false).unwrap(), expected, "{name}: {text:?}");
        }
    });
}

#[test]
fn text_comes_back_whole_and_in_whole_characters() {
    for_each_vocabulary(|name, tokenizer, folder| {
        for text in texts(folder, name) {
            let ids = tokenizer.encode_plain(&text, true).unwrap();
            assert_eq!(tokenizer.decode(&ids), text, "{name}");
            let mut detokenizer = Detokenizer::new(tokenizer);
            let mut streamed: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
            assert!(!streamed.contains(char::REPLACEMENT_CHARACTER), "{name}: {streamed:?}");
            streamed += &detokenizer.finish();
            assert_eq!(streamed, text, "{name}");
        }
    });
}

#[test]
fn bos_goes_first_where_the_model_asks() {
    for_each_vocabulary(|name, tokenizer, _| {
        let plain = tokenizer.encode_plain("good night", false).unwrap();
        let framed = tokenizer.encode_plain("good night", true).unwrap();
        let begins = matches!(name, "llama-bpe" | "llama-spm" | "phi-3" | "deepseek-llm");
        assert_eq!(framed.len(), plain.len() + usize::from(begins), "{name}: {framed:?}");
        assert_eq!(framed.first() == tokenizer.bos().as_ref(), begins, "{name}: {framed:?}");
    });
}

/// Every control token's text, alone and between words, becomes ordinary tokens.
#[test]
fn control_tokens_never_come_from_plain_text() {
    for_each_vocabulary(|name, tokenizer, _| {
        let mut n_control = 0;
        for id in (0..tokenizer.n_vocab() as u32).filter(|&id| tokenizer.is_control(id)) {
            n_control += 1;
            let token = tokenizer.token_text(id);
            for text in [token.to_owned(), format!("a{token}b"), format!(" {token} ")] {
                let ids = tokenizer.encode_plain(&text, false).unwrap();
                assert!(!ids.iter().any(|&id| tokenizer.is_control(id)), "{name}: {text:?} gave {ids:?}");
                assert_eq!(tokenizer.decode(&ids), text, "{name}");
            }
        }
        assert!(n_control > 0, "{name} has no control tokens");
    });
}

#[test]
fn an_unbroken_megabyte_is_tokenized() {
    for_each_vocabulary(|name, tokenizer, _| {
        for c in ["a", " ", "1", "é", "\n", "."] {
            let text = c.repeat(200_000);
            let ids = tokenizer.encode_plain(&text, false).unwrap();
            assert_eq!(tokenizer.decode(&ids), text, "{name}: {c:?}");
        }
    });
}
