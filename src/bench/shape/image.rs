//! The bytes of a GGUF file (version 3) for a shape: header, tensor list, random data.

use super::fill::fill;
use super::mix::{Quant, Role, Type};
use super::{PREFIX, Shape};
use crate::model::{Gguf, ModelError};

/// The format's default.
const ALIGNMENT: usize = 32;
/// `general.file_type` and friends: type numbers of metadata values.
const U32: u32 = 4;
const F32: u32 = 6;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const I32: u32 = 5;
/// Positions that five of six layers of the smaller Gemma 3 models see.
const GEMMA3_WINDOW: usize = 512;
/// The messages one after the other: random weights follow no template.
const TEMPLATE: &str = "{% for message in messages %}{{ message.content }}\n{% endfor %}";

/// A tensor to be.
struct Tensor {
    name: String,
    dims: Vec<usize>,
    element: Type,
}

impl Tensor {
    fn n_bytes(&self) -> usize {
        let format = self.element.format();
        self.dims.iter().product::<usize>() / format.block_len() * format.block_bytes()
    }
}

/// Makes the model in memory; without weights its matrices are zeroes, which take no memory until they are read.
pub(super) fn make(shape: &Shape, quant: Quant, has_weights: bool) -> Result<Gguf, ModelError> {
    let tensors = tensors(shape, quant);
    let mut header = header(shape, quant, &tensors);
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
    let n_data: usize = tensors.iter().map(|t| t.n_bytes().next_multiple_of(ALIGNMENT)).sum();
    let name = format!("{PREFIX}{}:{}", shape.name, quant.name());
    Gguf::in_memory(&name, header.len() + n_data, |bytes| {
        let (head, data) = bytes.split_at_mut(header.len());
        head.copy_from_slice(&header);
        write_data(&tensors, data, has_weights);
    })
}

/// Every tensor's bytes, by as many threads as there are cores; each tensor has its own stream of random numbers, so
/// that the model is the same on every machine.
fn write_data(tensors: &[Tensor], data: &mut [u8], has_matrices: bool) {
    let mut jobs = Vec::with_capacity(tensors.len());
    let mut rest = data;
    for (seed, tensor) in tensors.iter().enumerate() {
        let (bytes, behind) = rest.split_at_mut(tensor.n_bytes().next_multiple_of(ALIGNMENT));
        if has_matrices || tensor.dims.len() == 1 {
            jobs.push((seed as u64, tensor, &mut bytes[..tensor.n_bytes()]));
        }
        rest = behind;
    }
    let n_threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut shares: Vec<Vec<_>> = (0..n_threads).map(|_| Vec::new()).collect();
    for (i, job) in jobs.into_iter().enumerate() {
        shares[i % n_threads].push(job);
    }
    std::thread::scope(|scope| {
        for share in shares {
            scope.spawn(move || {
                for (seed, tensor, bytes) in share {
                    let is_norm = tensor.dims.len() == 1;
                    fill(tensor.element, seed, tensor.dims[0], is_norm, bytes);
                }
            });
        }
    });
}

fn tensors(shape: &Shape, quant: Quant) -> Vec<Tensor> {
    let &Shape { n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab, .. } = shape;
    let (n_q, n_kv) = (n_head * head_dim, n_head_kv * head_dim);
    let mut out = Vec::new();
    let matrix = |out: &mut Vec<Tensor>, name: String, n_cols: usize, n_rows: usize, role, layer| {
        let element = quant.type_of(shape, role, layer, n_cols);
        out.push(Tensor { name: format!("{name}.weight"), dims: vec![n_cols, n_rows], element });
    };
    let vector = |out: &mut Vec<Tensor>, name: String, len: usize| {
        out.push(Tensor { name, dims: vec![len], element: Type::F32 });
    };
    if shape.name.starts_with("llama-3.") {
        vector(&mut out, "rope_freqs.weight".into(), head_dim / 2);
    }
    matrix(&mut out, "token_embd".into(), n_embd, n_vocab, Role::TokenEmbedding, 0);
    vector(&mut out, "output_norm.weight".into(), n_embd);
    if !shape.is_tied {
        matrix(&mut out, "output".into(), n_embd, n_vocab, Role::Output, 0);
    }
    for layer in 0..n_layer {
        let named = |name: &str| format!("blk.{layer}.{name}");
        vector(&mut out, named("attn_norm.weight"), n_embd);
        matrix(&mut out, named("attn_q"), n_embd, n_q, Role::Other, layer);
        matrix(&mut out, named("attn_k"), n_embd, n_kv, Role::Other, layer);
        matrix(&mut out, named("attn_v"), n_embd, n_kv, Role::AttentionV, layer);
        matrix(&mut out, named("attn_output"), n_q, n_embd, Role::AttentionOutput, layer);
        if shape.architecture == "qwen2" {
            vector(&mut out, named("attn_q.bias"), n_q);
            vector(&mut out, named("attn_k.bias"), n_kv);
            vector(&mut out, named("attn_v.bias"), n_kv);
        }
        if matches!(shape.architecture, "qwen3" | "gemma3") {
            vector(&mut out, named("attn_q_norm.weight"), head_dim);
            vector(&mut out, named("attn_k_norm.weight"), head_dim);
        }
        if shape.architecture == "gemma3" {
            vector(&mut out, named("post_attention_norm.weight"), n_embd);
            vector(&mut out, named("post_ffw_norm.weight"), n_embd);
        }
        vector(&mut out, named("ffn_norm.weight"), n_embd);
        matrix(&mut out, named("ffn_gate"), n_embd, n_ff, Role::Other, layer);
        matrix(&mut out, named("ffn_up"), n_embd, n_ff, Role::Other, layer);
        matrix(&mut out, named("ffn_down"), n_ff, n_embd, Role::FfnDown, layer);
    }
    out
}

/// Metadata, one entry after the other.
#[derive(Default)]
struct Metadata {
    bytes: Vec<u8>,
    n: u64,
}

impl Metadata {
    fn put(&mut self, key: &str, number: u32, value: &[u8]) {
        self.bytes.extend(string(key));
        self.bytes.extend(number.to_le_bytes());
        self.bytes.extend(value);
        self.n += 1;
    }
    fn size(&mut self, key: &str, value: usize) {
        self.put(key, U32, &u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
    }
    fn float(&mut self, key: &str, value: f32) {
        self.put(key, F32, &value.to_le_bytes());
    }
    fn text(&mut self, key: &str, value: &str) {
        self.put(key, STRING, &string(value));
    }
    fn list(&mut self, key: &str, element: u32, items: &[Vec<u8>]) {
        let mut value = element.to_le_bytes().to_vec();
        value.extend((items.len() as u64).to_le_bytes());
        value.extend(items.iter().flatten());
        self.put(key, ARRAY, &value);
    }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn header(shape: &Shape, quant: Quant, tensors: &[Tensor]) -> Vec<u8> {
    let mut meta = Metadata::default();
    let of = |key: &str| format!("{}.{key}", shape.architecture);
    meta.text("general.architecture", shape.architecture);
    meta.text("general.name", &format!("{} (random weights)", shape.name));
    meta.size("general.file_type", quant.file_type as usize);
    meta.size(&of("block_count"), shape.n_layer);
    meta.size(&of("context_length"), shape.n_ctx_train);
    meta.size(&of("embedding_length"), shape.n_embd);
    meta.size(&of("feed_forward_length"), shape.n_ff);
    meta.size(&of("attention.head_count"), shape.n_head);
    meta.size(&of("attention.head_count_kv"), shape.n_head_kv);
    meta.size(&of("attention.key_length"), shape.head_dim);
    meta.size(&of("attention.value_length"), shape.head_dim);
    meta.size(&of("rope.dimension_count"), shape.head_dim);
    meta.float(&of("rope.freq_base"), shape.rope_base);
    meta.float(&of("attention.layer_norm_rms_epsilon"), 1e-5);
    meta.size(&of("vocab_size"), shape.n_vocab);
    if shape.architecture == "gemma3" {
        meta.size(&of("attention.sliding_window"), GEMMA3_WINDOW);
    }
    vocabulary(&mut meta, shape.n_vocab);
    let mut out = b"GGUF".to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(meta.n.to_le_bytes());
    out.extend(meta.bytes);
    let mut offset = 0;
    for tensor in tensors {
        out.extend(string(&tensor.name));
        out.extend((tensor.dims.len() as u32).to_le_bytes());
        for &dim in &tensor.dims {
            out.extend((dim as u64).to_le_bytes());
        }
        out.extend((tensor.element as u32).to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += tensor.n_bytes().next_multiple_of(ALIGNMENT);
    }
    out
}

/// A byte-level vocabulary of the real size: 256 bytes, then words that no text becomes. No token ends a generation, so
/// that answers have the length that was asked for.
fn vocabulary(meta: &mut Metadata, n_vocab: usize) {
    const NORMAL: i32 = 1;
    let tokens: Vec<Vec<u8>> = (0..n_vocab)
        .map(|id| match u8::try_from(id) {
            Ok(byte) => string(&byte_level(byte).to_string()),
            // The first character is the byte-level spelling of a blank.
            Err(_) => string(&format!("\u{120}w{id}")),
        })
        .collect();
    meta.text("tokenizer.ggml.model", "gpt2");
    meta.text("tokenizer.ggml.pre", "gpt-2");
    meta.list("tokenizer.ggml.tokens", STRING, &tokens);
    meta.list("tokenizer.ggml.token_type", I32, &vec![NORMAL.to_le_bytes().to_vec(); n_vocab]);
    meta.list("tokenizer.ggml.merges", STRING, &[]);
    meta.text("tokenizer.chat_template", TEMPLATE);
}

/// GPT-2's spelling of a byte: printable ones stand for themselves, the others follow from 256 on.
fn byte_level(byte: u8) -> char {
    let is_printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..);
    if is_printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !is_printable(b)).count() as u32;
    char::from_u32(256 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}
