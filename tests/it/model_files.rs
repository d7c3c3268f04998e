//! Models on disk: in several files, and changed by somebody while they are in use.

use std::fs;
use std::path::{Path, PathBuf};

use mommygpt::model::{Chunk, Gguf, LoadOptions, LogitsFor, ModelError, load};
use serde_json::json;

use crate::gguf_writer::{Meta, Writer, tiny_llama};
use crate::program::Program;

fn logits(path: &Path) -> Result<Vec<f32>, ModelError> {
    let mut model = load(&Gguf::open(path)?, &LoadOptions::default())?;
    let seq = model.new_sequence()?;
    Ok(model.step(&[Chunk { seq, tokens: &[1, 40, 77, 300], logits: LogitsFor::All }])?.data)
}

/// The tiny llama in three parts, as `llama-gguf-split --no-tensor-first-split` would write it.
pub(crate) fn parts() -> Vec<Writer> {
    let whole = tiny_llama();
    let n_tensors = whole.tensors.len();
    let half = n_tensors / 2;
    let mut parts = vec![whole.clone(), Writer::new(), Writer::new()];
    parts[0].tensors.clear();
    parts[0].set("split.tensors.count", Meta::U32(n_tensors as u32));
    parts[1].tensors = whole.tensors[..half].to_vec();
    parts[2].tensors = whole.tensors[half..].to_vec();
    for (i, part) in parts.iter_mut().enumerate() {
        part.set("split.no", Meta::Raw(2, (i as u16).to_le_bytes().to_vec()));
        part.set("split.count", Meta::Raw(2, 3_u16.to_le_bytes().to_vec()));
    }
    parts
}

/// Writes them under the names that belong to them; the path of the first.
pub(crate) fn write(dir: &Path, parts: &[Writer]) -> PathBuf {
    for (i, part) in parts.iter().enumerate() {
        fs::write(dir.join(format!("tiny-0000{}-of-00003.gguf", i + 1)), part.bytes()).unwrap();
    }
    dir.join("tiny-00001-of-00003.gguf")
}

/// Three parts changed by `change` are refused in one line with all `words`.
fn refused(words: &[&str], change: impl FnOnce(&mut Vec<Writer>)) {
    let dir = tempfile::tempdir().unwrap();
    let mut parts = parts();
    change(&mut parts);
    let text = Gguf::open(&write(dir.path(), &parts)).unwrap_err().to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} should mention {word:?}");
    }
    assert!(!text.contains('\n'));
}

#[test]
fn a_model_in_three_files_computes_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole.gguf");
    fs::write(&whole, tiny_llama().bytes()).unwrap();
    let first = write(dir.path(), &parts());
    assert_eq!(logits(&first).unwrap(), logits(&whole).unwrap());
    let gguf = Gguf::open(&first).unwrap();
    assert_eq!(gguf.n_parts(), 3);
    let on_disk: u64 = (1..=3)
        .map(|i| fs::metadata(dir.path().join(format!("tiny-0000{i}-of-00003.gguf"))).unwrap().len())
        .sum();
    assert_eq!(gguf.size_bytes(), on_disk);
}

#[test]
fn parts_that_do_not_fit_together_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let first = write(dir.path(), &parts());
    let second = dir.path().join("tiny-00002-of-00003.gguf");
    let text = Gguf::open(&second).unwrap_err().to_string();
    assert!(text.contains("tiny-00002-of-00003.gguf") || text.contains("tiny-00001-of-00003.gguf"), "{text}");
    fs::remove_file(&second).unwrap();
    let text = Gguf::open(&first).unwrap_err().to_string();
    assert!(text.contains("tiny-00002-of-00003.gguf is missing"), "{text}");
    let renamed = dir.path().join("renamed.gguf");
    fs::rename(&first, &renamed).unwrap();
    let text = Gguf::open(&renamed).unwrap_err().to_string();
    assert!(text.contains("split.count is 3"), "{text}");

    refused(&["split.count", "70000", "256"], |p| p[0].set("split.count", Meta::U32(70_000)));
    refused(&["tiny-00003-of-00003.gguf", "split.no is 1"], |p| {
        p[2].set("split.no", Meta::U32(1));
    });
    refused(&["tiny-00002-of-00003.gguf", "split.count is missing"], |p| p[1].unset("split.count"));
    refused(&["split.tensors.count: 99"], |p| p[0].set("split.tensors.count", Meta::I32(99)));
    refused(&["stands in two files"], |p| {
        let again = p[1].tensors[0].clone();
        p[2].tensors.push(again);
    });
    refused(&["tiny-00003-of-00003.gguf", "overlap"], |p| p[2].tensors[1].offset = Some(0));
    refused(&["tiny-00002-of-00003.gguf", "magic"], |p| p[1].magic = *b"GGML");
}

#[test]
fn a_file_that_changes_between_opening_and_loading_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    for change in ["shorter", "longer", "removed"] {
        fs::write(&path, tiny_llama().bytes()).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        match change {
            "shorter" => file.set_len(100_000).unwrap(),
            "longer" => file.set_len(10_000_000).unwrap(),
            _ => fs::remove_file(&path).unwrap(),
        }
        match (change, load(&gguf, &LoadOptions::default())) {
            // The open file keeps its bytes for as long as it is open.
            ("removed", loaded) => assert!(loaded.is_ok()),
            (_, Ok(_)) => panic!("{change}: loaded"),
            (_, Err(e)) => assert!(e.to_string().contains("changed while"), "{change}: {e}"),
        }
    }
}

#[test]
fn a_model_file_cut_off_under_a_running_server_harms_nobody() {
    let program = Program::new();
    let path = program.beside("served.gguf");
    fs::write(&path, tiny_llama().bytes()).unwrap();
    let server = program.serve(&["-m", path.to_str().unwrap(), "--signup", "open"]);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(1 << 10).unwrap();
    let form = json!({"email": "ada@example.org", "password": "correct horse battery staple"});
    let (status, body) = server.post("/api/auth/signup", &form);
    assert_eq!(status, 201, "{body}");
    let token = body["session_token"].as_str().unwrap();
    let ask = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5});
    let (status, body) = server.post_as("/v1/chat/completions", token, &ask);
    assert_eq!(status, 200, "{body}");
    file.set_len(0).unwrap();
    let (status, body) = server.post_as("/v1/chat/completions", token, &ask);
    assert_eq!(status, 200, "{body}");
    assert_eq!(server.stop("-TERM").0, 0);
}
