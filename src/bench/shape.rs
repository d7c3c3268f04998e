//! Models of a named shape with random weights, made in memory: `shape:qwen3-0.6b:Q4_K_M`.
//!
//! Speed does not depend on the values of weights, so such a model measures what the published one of that shape and
//! quantization would, without a download. The image is a whole GGUF file: it passes through the same reader, and has
//! the size and the number of parameters of a file that llama.cpp's `llama-quantize` writes for that shape.

mod fill;
mod image;
mod mix;

use crate::model::{Gguf, ModelError};
use mix::Quant;

/// What a model's name starts with where it is a shape.
pub const PREFIX: &str = "shape:";

/// The dimensions of a published model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    name: &'static str,
    architecture: &'static str,
    n_layer: usize,
    n_embd: usize,
    n_ff: usize,
    n_head: usize,
    n_head_kv: usize,
    head_dim: usize,
    rope_base: f32,
    /// The output is the token embedding.
    is_tied: bool,
    n_vocab: usize,
    n_ctx_train: usize,
}

macro_rules! shape {
    ($name:literal, $architecture:literal, $n_layer:literal, $n_embd:literal, $n_ff:literal, $n_head:literal,
     $n_head_kv:literal, $head_dim:literal, $rope_base:literal, $is_tied:literal, $n_vocab:literal, $n_ctx:literal) => {
        Shape {
            name: $name,
            architecture: $architecture,
            n_layer: $n_layer,
            n_embd: $n_embd,
            n_ff: $n_ff,
            n_head: $n_head,
            n_head_kv: $n_head_kv,
            head_dim: $head_dim,
            rope_base: $rope_base,
            is_tied: $is_tied,
            n_vocab: $n_vocab,
            n_ctx_train: $n_ctx,
        }
    };
}

/// From the models' published `config.json`: layers, width, inner width, heads, KV heads, head width, base of the rotary embedding, tied,
/// vocabulary, context. The `tiny-` ones are ours, for tests.
const SHAPES: &[Shape] = &[
    shape!("smollm2-135m", "llama", 30, 576, 1536, 9, 3, 64, 1e5, true, 49152, 8192),
    shape!("smollm2-360m", "llama", 32, 960, 2560, 15, 5, 64, 1e5, true, 49152, 8192),
    shape!("qwen2.5-0.5b", "qwen2", 24, 896, 4864, 14, 2, 64, 1e6, true, 151_936, 32768),
    shape!("qwen3-0.6b", "qwen3", 28, 1024, 3072, 16, 8, 128, 1e6, true, 151_936, 40960),
    shape!("llama-3.2-1b", "llama", 16, 2048, 8192, 32, 8, 64, 5e5, true, 128_256, 131_072),
    shape!("qwen3-1.7b", "qwen3", 28, 2048, 6144, 16, 8, 128, 1e6, true, 151_936, 40960),
    shape!("llama-3.2-3b", "llama", 28, 3072, 8192, 24, 8, 128, 5e5, true, 128_256, 131_072),
    shape!("qwen3-4b", "qwen3", 36, 2560, 9728, 32, 8, 128, 1e6, true, 151_936, 40960),
    shape!("gemma-3-270m", "gemma3", 18, 640, 2048, 4, 1, 256, 1e6, true, 262_144, 32768),
    shape!("gemma-3-1b", "gemma3", 26, 1152, 6912, 4, 1, 256, 1e6, true, 262_144, 32768),
    shape!("llama-3.1-8b", "llama", 32, 4096, 14336, 32, 8, 128, 5e5, false, 128_256, 131_072),
    shape!("qwen3-8b", "qwen3", 36, 4096, 12288, 32, 8, 128, 1e6, false, 151_936, 40960),
    shape!("tiny-llama", "llama", 2, 256, 512, 4, 2, 64, 1e4, false, 2048, 2048),
    shape!("tiny-qwen2", "qwen2", 2, 256, 512, 4, 2, 64, 1e6, true, 2048, 2048),
    shape!("tiny-gemma3", "gemma3", 2, 256, 512, 4, 2, 64, 1e6, true, 2048, 2048),
    shape!("tiny-qwen3", "qwen3", 2, 256, 512, 4, 2, 64, 1e6, true, 2048, 2048),
];

/// Other spellings of the names above.
const ALIASES: &[(&str, &str)] = &[
    ("llama3.2-1b", "llama-3.2-1b"),
    ("llama3.2-3b", "llama-3.2-3b"),
    ("gemma3-270m", "gemma-3-270m"),
    ("gemma3-1b", "gemma-3-1b"),
];

/// A name that says no shape (wrong usage), or a model that does not fit.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    /// No such shape or quantization.
    #[error("{0}")]
    Unknown(String),
    /// The image could not be made or read.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Makes the model that `name`, with or without the prefix `shape:`, asks for: `NAME:QUANT`; `NAME` alone is `Q4_K_M`.
///
/// # Errors
/// [`ShapeError::Unknown`] naming what there is; [`ShapeError::Model`] where the memory is not there.
pub fn generate(name: &str) -> Result<Gguf, ShapeError> {
    make(name, true)
}

/// The same file with all matrices 0, which takes no memory: for what depends on sizes only.
///
/// # Errors
/// As [`generate`].
pub fn outline(name: &str) -> Result<Gguf, ShapeError> {
    make(name, false)
}

fn make(name: &str, has_weights: bool) -> Result<Gguf, ShapeError> {
    let asked = name.strip_prefix(PREFIX).unwrap_or(name);
    let (shape, quant) = asked.split_once(':').unwrap_or((asked, "Q4_K_M"));
    let known = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(shape)).map_or(shape, |a| a.1);
    let Some(shape) = SHAPES.iter().find(|s| s.name.eq_ignore_ascii_case(known)) else {
        let names: Vec<&str> = SHAPES.iter().map(|s| s.name).collect();
        return Err(ShapeError::Unknown(format!(
            "{PREFIX}{asked}: there is no shape {shape:?}; there are {}",
            names.join(", ")
        )));
    };
    let Some(quant) = Quant::named(quant) else {
        return Err(ShapeError::Unknown(format!(
            "{PREFIX}{asked}: there is no quantization {quant:?}; there are {}",
            Quant::names().collect::<Vec<_>>().join(", ")
        )));
    };
    Ok(image::make(shape, quant, has_weights)?)
}
