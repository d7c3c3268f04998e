//! Model files that lie: every one must be refused in words, or work; none may panic or take memory by the gigabyte.

use std::io::{Seek, SeekFrom, Write};
use std::panic::catch_unwind;
use std::path::Path;

use mommygpt::model::gguf::{MAX_KEY_LEN, MAX_METADATA, MAX_STRING_LEN, MAX_TEMPLATE_LEN, MAX_TENSORS};
use mommygpt::model::{Chunk, Device, Gguf, KvType, LoadOptions, LogitsFor, ModelError, load};

use crate::gguf_writer::{Meta, Tensor, Writer, array, llama, tiny_llama};

const OPTIONS: LoadOptions = LoadOptions {
    n_ctx: None,
    n_threads: 2,
    device: Device::Cpu,
    max_sequences: 1,
    kv: KvType::F16,
    isa: None,
};

/// Opens, loads and runs three tokens.
fn try_file(path: &Path) -> Result<(), ModelError> {
    let gguf = Gguf::open(path)?;
    let mut model = load(&gguf, &OPTIONS)?;
    let seq = model.new_sequence()?;
    let logits = model.step(&[Chunk { seq, tokens: &[1, 2, 3], logits: LogitsFor::Last }])?;
    assert_eq!(logits.data.len(), model.config().n_vocab);
    Ok(())
}

/// The refusal, or `None` where the file works; a panic fails the test.
fn file_outcome(what: &str, path: &Path) -> Option<String> {
    let tried = catch_unwind(|| try_file(path));
    match tried.unwrap_or_else(|_| panic!("{what}: panicked")) {
        Ok(()) => None,
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() < 1000 && !text.contains('\n'), "{what}: not one clear line: {text:?}");
            Some(text)
        }
    }
}

fn outcome(what: &str, bytes: &[u8]) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile.gguf");
    std::fs::write(&path, bytes).unwrap();
    file_outcome(what, &path)
}

/// The file made by `change` must be refused with `word` in the message.
fn refused(what: &str, word: &str, change: impl FnOnce(&mut Writer)) {
    let mut writer = tiny_llama();
    change(&mut writer);
    refused_bytes(what, word, &writer.bytes());
}

fn refused_bytes(what: &str, word: &str, bytes: &[u8]) {
    match outcome(what, bytes) {
        Some(text) => assert!(text.contains(word), "{what}: {text:?} should mention {word:?}"),
        None => panic!("{what}: accepted"),
    }
}

#[test]
fn the_unbroken_file_works() {
    let bytes = tiny_llama().bytes();
    assert!(bytes.len() < 1 << 20);
    assert_eq!(outcome("unbroken", &bytes), None);
    let mut version_2 = tiny_llama();
    version_2.version = 2;
    assert_eq!(outcome("version 2", &version_2.bytes()), None);
    let mut tied = tiny_llama();
    tied.tensors.retain(|tensor| tensor.name != "output.weight");
    assert_eq!(outcome("tied embeddings", &tied.bytes()), None);
}

#[test]
fn a_file_of_a_vocabulary_only_opens_and_does_not_load() {
    let mut writer = tiny_llama();
    writer.tensors.clear();
    let bytes: &'static [u8] = Box::leak(writer.bytes().into_boxed_slice());
    let gguf = Gguf::from_static("vocabulary", bytes).unwrap();
    assert_eq!(gguf.strings("tokenizer.ggml.tokens").unwrap().len(), 320);
    assert_eq!(gguf.strings("tokenizer.ggml.tokens").unwrap().nth(1), Some("<s>"));
    let text = load(&gguf, &OPTIONS).err().unwrap().to_string();
    assert!(text.contains("token_embd.weight"), "{text}");
}

#[test]
fn bytes_at_any_address_load() {
    // A built-in model stands wherever the linker puts it.
    let bytes = tiny_llama().bytes();
    let shifted: Vec<u8> = [&[0; 3], &bytes[..]].concat();
    let shifted: &'static [u8] = &Box::leak(shifted.into_boxed_slice())[3..];
    load(&Gguf::from_static("builtin", shifted).unwrap(), &OPTIONS).unwrap();
}

#[test]
fn truncated_at_every_byte_of_the_header() {
    let (bytes, header_len) = tiny_llama().bytes_and_header_len();
    let bytes: &'static [u8] = Box::leak(bytes.into_boxed_slice());
    for len in 0..header_len {
        let opened = catch_unwind(|| Gguf::from_static("cut", &bytes[..len]).err().map(|e| e.to_string()));
        let text = opened.unwrap_or_else(|_| panic!("cut at {len}: panicked"));
        let text = text.unwrap_or_else(|| panic!("cut at {len}: opened"));
        assert!(text.contains("ends at"), "cut at {len}: {text}");
    }
    for len in (header_len..bytes.len()).step_by(4096).chain([bytes.len() - 1]) {
        refused_bytes(&format!("cut at {len}"), "ends at", &bytes[..len]);
    }
    assert!(Gguf::open(Path::new("/nonexistent.gguf")).is_err());
    refused_bytes("empty", "empty", &[]);
}

#[test]
fn every_byte_of_the_header_changed() {
    // A vocabulary of 16: its texts are most of the header, and one is as good as the next.
    let (bytes, header_len) = llama(16).bytes_and_header_len();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile.gguf");
    std::fs::write(&path, &bytes).unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mut put = |at: usize, byte: u8| {
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[byte]).unwrap();
    };
    let mut works = 0;
    for (at, &old) in bytes.iter().enumerate().take(header_len) {
        for new in [0x00, 0xff, old ^ 0x80] {
            put(at, new);
            works += usize::from(file_outcome(&format!("byte {at} = {new:#x}"), &path).is_none());
        }
        put(at, old);
    }
    assert_eq!(file_outcome("restored", &path), None);
    // Bytes of token texts, scores and the template may change without harm to the forward pass.
    assert!(works > 0 && works < 3 * header_len);
}

#[test]
fn headers_that_lie() {
    refused("magic", "magic", |w| w.magic = *b"GGML");
    refused("magic in another case", "magic", |w| w.magic = *b"gguf");
    refused("version 0", "version 0", |w| w.version = 0);
    refused("version 1", "version 1", |w| w.version = 1);
    refused("version 4", "version 4", |w| w.version = 4);
    refused("big-endian", "big-endian", |w| w.version = 3_u32.swap_bytes());
    refused("metadata count", "metadata count", |w| w.n_metadata = Some(MAX_METADATA as u64 + 1));
    refused("metadata count u64::MAX", "metadata count", |w| w.n_metadata = Some(u64::MAX));
    refused("tensor count", "tensor count", |w| w.n_tensors = Some(MAX_TENSORS as u64 + 1));
    refused("tensor count u64::MAX", "tensor count", |w| w.n_tensors = Some(u64::MAX));
    refused("tensor count that wraps", "tensor count", |w| w.n_tensors = Some(1 << 61));
    refused("one tensor too many", "tensor", |w| w.n_tensors = Some(w.tensors.len() as u64 + 1));
    refused("one tensor too few", "missing", |w| w.n_tensors = Some(w.tensors.len() as u64 - 1));
    refused("one entry too many", "", |w| w.n_metadata = Some(w.metadata.len() as u64 + 1));
    refused("one entry too few", "", |w| w.n_metadata = Some(w.metadata.len() as u64 - 1));
}

#[test]
fn metadata_that_lies() {
    let raw = |number: u32, bytes: &[u8]| Meta::Raw(number, bytes.to_vec());
    refused("long key", "limit", |w| w.set(&"k".repeat(MAX_KEY_LEN + 1), Meta::U8(1)));
    refused("empty key", "empty", |w| w.set("", Meta::U8(1)));
    refused("long string", "limit", |w| w.set("x", Meta::Str("s".repeat(MAX_STRING_LEN + 1))));
    refused("long template", "tokenizer.chat_template", |w| {
        w.set("tokenizer.chat_template", Meta::Str("t".repeat(MAX_TEMPLATE_LEN + 1)));
    });
    refused("string past the end", "ends at", |w| w.set("x", raw(8, &(1_u64 << 19).to_le_bytes())));
    refused("string length u64::MAX", "limit", |w| w.set("x", raw(8, &u64::MAX.to_le_bytes())));
    refused("string not UTF-8", "UTF-8", |w| w.set("x", raw(8, b"\x02\0\0\0\0\0\0\0\xff\xfe")));
    refused("type 13", "type 13", |w| w.set("x", raw(13, &[])));
    refused("type u32::MAX", "does not exist", |w| w.set("x", raw(u32::MAX, &[])));
    refused("bool of 2", "bool", |w| w.set("x", raw(7, &[2])));
    refused("array of arrays", "array", |w| w.set("x", raw(9, &array(9, 1, std::iter::empty()))));
    refused("array of type 99", "99", |w| w.set("x", raw(9, &array(99, 1, std::iter::empty()))));
    refused("array longer than the file", "ends at", |w| {
        w.set("x", raw(9, &array(4, 1 << 20, std::iter::empty())));
    });
    refused("array past the budget", "elements", |w| {
        w.set("x", raw(9, &array(0, 1 << 30, std::iter::empty())));
    });
    refused("array length u64::MAX", "elements", |w| {
        w.set("x", raw(9, &array(10, usize::MAX, std::iter::empty())));
    });
    refused("arrays past the budget together", "elements", |w| {
        for i in 0..12 {
            let ones = std::iter::once(vec![1; 1 << 20]);
            w.set(&format!("x{i}"), raw(9, &array(0, 1 << 20, ones)));
        }
    });
    refused("array of long strings", "limit", |w| {
        w.set("x", raw(9, &array(8, 1, std::iter::once(u64::MAX.to_le_bytes().to_vec()))));
    });
    refused("key twice", "twice", |w| w.metadata.push(("general.name".into(), Meta::U8(1))));
    refused("key with control characters", "twice", |w| {
        w.metadata.push(("a\n\x1b[31m".into(), Meta::U8(1)));
        w.metadata.push(("a\n\x1b[31m".into(), Meta::U8(1)));
    });
    for alignment in [0, 1, 4, 7, 12, 24, 33, (1 << 20) + 8, 1 << 21, u32::MAX] {
        refused("alignment", "general.alignment", |w| {
            w.set("general.alignment", Meta::U32(alignment));
        });
    }
    refused("alignment as text", "general.alignment", |w| {
        w.set("general.alignment", Meta::Str("32".into()));
    });
    let mut aligned = tiny_llama();
    aligned.alignment = 4096;
    aligned.set("general.alignment", Meta::U32(4096));
    assert_eq!(outcome("alignment of 4096", &aligned.bytes()), None);
}

#[test]
fn tensors_that_lie() {
    const NAME: &str = "blk.0.attn_q.weight";
    let broken =
        |what: &str, word: &str, change: fn(&mut Tensor)| refused(what, word, |w| change(w.tensor(NAME)));
    broken("no dimensions", "dimensions", |t| t.dims.clear());
    broken("five dimensions", "dimensions", |t| t.dims = vec![2, 2, 2, 2, 2]);
    broken("a dimension of 0", "zero", |t| t.dims = vec![32, 0]);
    broken("rows of 0", "zero", |t| t.dims = vec![0, 32]);
    broken("a size that wraps", "overflow", |t| t.dims = vec![1 << 32, 1 << 32]);
    broken("a size that wraps to the true one", "overflow", |t| t.dims = vec![1 << 63, 2, 32, 32]);
    broken("a dimension of u64::MAX", "", |t| t.dims = vec![u64::MAX, 1]);
    broken("bytes that wrap", "", |t| t.dims = vec![1 << 62, 1]);
    broken("larger than the file", "ends at", |t| t.dims = vec![32, 1 << 20]);
    broken("a type that does not exist", "type 99", |t| t.type_number = 99);
    broken("a retired type", "type 4", |t| t.type_number = 4);
    broken("a type of u32::MAX", "unknown", |t| t.type_number = u32::MAX);
    broken("a type nobody multiplies with", "IQ4_NL", |t| t.type_number = 20);
    broken("integers as weights", "I8", |t| t.type_number = 24);
    broken("half a block", "multiple of 32", |t| (t.type_number, t.dims) = (8, vec![16, 64]));
    broken("a block longer than a row", "multiple of 256", |t| t.type_number = 12);
    broken("an offset off the alignment", "alignment", |t| t.offset = Some(1));
    broken("an offset past the end", "ends at", |t| t.offset = Some(1 << 40));
    broken("an offset of u64::MAX", "", |t| t.offset = Some(u64::MAX));
    broken("an offset that wraps with the size", "", |t| t.offset = Some(u64::MAX - 31));
    broken("an offset that wraps with the header", "", |t| t.offset = Some(i64::MAX as u64 - 31));
    broken("on top of another", "overlap", |t| t.offset = Some(0));
    broken("an empty name", "empty", |t| t.name.clear());
    broken("a long name", "limit", |t| t.name = "n".repeat(257));
    broken("a name twice", "twice", |t| t.name = "token_embd.weight".into());
    broken("transposed to another shape", NAME, |t| t.dims = vec![16, 64]);
    broken("one row short", NAME, |t| t.dims = vec![32, 31]);
    broken("one dimension", NAME, |t| t.dims = vec![1024]);
    refused("a norm of another width", "output_norm", |w| w.tensor("output_norm.weight").dims = vec![16]);
    refused("a missing tensor", "blk.1.ffn_up", |w| w.tensors.retain(|t| t.name != "blk.1.ffn_up.weight"));
    refused("a missing norm", "output_norm", |w| w.tensors.retain(|t| t.name != "output_norm.weight"));
    refused("a tensor nobody knows", "blk.0.attn_sinks", |w| {
        w.f32_tensor("blk.0.attn_sinks.weight", &[4], &[0.0; 4]);
    });
    refused("a block too many", "block_count", |w| {
        w.f32_tensor("blk.2.attn_norm.weight", &[32], &[0.0; 32]);
    });
}

#[test]
fn models_that_lie() {
    let with = |what: &str, word: &str, key: &str, value: Meta| refused(what, word, |w| w.set(key, value));
    let without = |key: &str| refused(key, key, |w| w.unset(key));
    without("general.architecture");
    without("llama.block_count");
    without("llama.context_length");
    without("llama.embedding_length");
    without("llama.feed_forward_length");
    without("llama.attention.head_count");
    without("llama.attention.layer_norm_rms_epsilon");
    with("architecture", "supported are llama", "general.architecture", Meta::Str("mamba".into()));
    with("architecture as a number", "general.architecture", "general.architecture", Meta::U32(1));
    with("no blocks", "block_count", "llama.block_count", Meta::U32(0));
    with("513 blocks", "block_count", "llama.block_count", Meta::U32(513));
    with("u32::MAX blocks", "block_count", "llama.block_count", Meta::U32(u32::MAX));
    with("negative blocks", "block_count", "llama.block_count", Meta::I32(-1));
    with("blocks as a float", "block_count", "llama.block_count", Meta::F32(2.0));
    with("three blocks of two", "block_count", "llama.block_count", Meta::U32(3));
    with("one block of two", "block_count", "llama.block_count", Meta::U32(1));
    with("no heads", "head_count", "llama.attention.head_count", Meta::U32(0));
    with("heads that do not divide", "head_count", "llama.attention.head_count", Meta::U32(5));
    with("no key heads", "head_count_kv", "llama.attention.head_count_kv", Meta::U32(0));
    with("key heads that do not divide", "head_count_kv", "llama.attention.head_count_kv", Meta::U32(3));
    with("more key heads than heads", "head_count_kv", "llama.attention.head_count_kv", Meta::U32(8));
    with("heads per layer", "differs", "llama.attention.head_count_kv", Meta::I32s(vec![2, 4]));
    with("heads as text", "head_count", "llama.attention.head_count", Meta::Str("4".into()));
    with("odd heads", "even", "llama.attention.key_length", Meta::U32(9));
    with("wide heads", "key_length", "llama.attention.key_length", Meta::U32(1 << 20));
    with("values of another width", "value_length", "llama.attention.value_length", Meta::U32(16));
    with("no context", "context_length", "llama.context_length", Meta::U32(0));
    with("endless context", "context_length", "llama.context_length", Meta::U32((1 << 20) + 1));
    with("context of u64::MAX", "context_length", "llama.context_length", Meta::U64(u64::MAX));
    with("no width", "embedding_length", "llama.embedding_length", Meta::U32(0));
    with("another width", "token_embd", "llama.embedding_length", Meta::U32(64));
    with("no inner width", "feed_forward_length", "llama.feed_forward_length", Meta::U32(0));
    with("another inner width", "ffn_", "llama.feed_forward_length", Meta::U32(65));
    with("epsilon of 0", "epsilon", "llama.attention.layer_norm_rms_epsilon", Meta::F32(0.0));
    with("negative epsilon", "epsilon", "llama.attention.layer_norm_rms_epsilon", Meta::F32(-1.0));
    with("NaN epsilon", "epsilon", "llama.attention.layer_norm_rms_epsilon", Meta::F32(f32::NAN));
    with("infinite base", "freq_base", "llama.rope.freq_base", Meta::F32(f32::INFINITY));
    with("negative base", "freq_base", "llama.rope.freq_base", Meta::F32(-1.0));
    with("odd rotation", "dimension_count", "llama.rope.dimension_count", Meta::U32(3));
    with("no rotation", "dimension_count", "llama.rope.dimension_count", Meta::U32(0));
    with("rotation wider than a head", "dimension_count", "llama.rope.dimension_count", Meta::U32(10));
    with("unknown scaling", "rope.scaling.type", "llama.rope.scaling.type", Meta::Str("magic".into()));
    with("experts", "expert_count 8", "llama.expert_count", Meta::U32(8));
    with("BOS past the vocabulary", "bos_token_id", "tokenizer.ggml.bos_token_id", Meta::U32(320));
    with("EOS of u32::MAX", "eos_token_id", "tokenizer.ggml.eos_token_id", Meta::U32(u32::MAX));
    with("BOS as text", "bos_token_id", "tokenizer.ggml.bos_token_id", Meta::Str("1".into()));
    with("tokens short of rows", "tokens", "tokenizer.ggml.tokens", Meta::Strings(vec!["a".into(); 319]));
    with("scores short of rows", "scores", "tokenizer.ggml.scores", Meta::F32s(vec![0.0; 3]));
    with("types past the rows", "token_type", "tokenizer.ggml.token_type", Meta::I32s(vec![1; 321]));
    refused("rope factors of another length", "rope_freqs", |w| {
        w.f32_tensor("rope_freqs.weight", &[3], &[1.0; 3]);
    });
    refused("a rope factor of 0", "rope_freqs", |w| {
        w.f32_tensor("rope_freqs.weight", &[4], &[1.0, 0.0, 1.0, 1.0]);
    });
}

#[test]
fn a_context_that_memory_does_not_hold_is_refused_before_it_is_taken() {
    let bytes: &'static [u8] = Box::leak(tiny_llama().bytes().into_boxed_slice());
    let gguf = Gguf::from_static("tiny", bytes).unwrap();
    let ask = |n_ctx, max_sequences| load(&gguf, &LoadOptions { n_ctx, max_sequences, ..OPTIONS }).err();
    assert!(ask(Some(512), 4).is_none(), "past the trained context is allowed");
    if Path::new("/proc/meminfo").exists() {
        let text = ask(Some(1 << 20), 1 << 20).unwrap().to_string();
        assert!(text.contains("not enough memory") && text.contains("-c"), "{text}");
    }
    assert!(ask(Some(0), 1).unwrap().to_string().contains("context of 0"));
    assert!(ask(Some((1 << 20) + 1), 1).unwrap().to_string().contains("1048576"));
}
