//! What architectures add to a plain llama, shown by files that must compute the same, or differ by a known factor.

use mommygpt::model::config::RopeStyle;
use mommygpt::model::{Chunk, Device, Gguf, LoadOptions, LogitsFor, ModelConfig, TokenId, load};

use crate::gguf_writer::{Meta, Writer, tiny_llama};

const TOKENS: &[TokenId] = &[1, 40, 77, 300, 12, 12, 255, 3, 90, 41, 7, 199];

fn gguf(writer: &Writer) -> Gguf {
    Gguf::from_static("tiny", Box::leak(writer.bytes().into_boxed_slice())).unwrap()
}

fn config(writer: &Writer) -> ModelConfig {
    ModelConfig::from_gguf(&gguf(writer), None).unwrap()
}

fn logits(writer: &Writer) -> Vec<f32> {
    let options = LoadOptions {
        n_ctx: None,
        n_threads: 2,
        device: Device::Cpu,
        max_sequences: 1,
        ..LoadOptions::default()
    };
    let mut model = load(&gguf(writer), &options).unwrap();
    let seq = model.new_sequence().unwrap();
    model.step(&[Chunk { seq, tokens: TOKENS, logits: LogitsFor::All }]).unwrap().data
}

/// The tiny llama under another architecture's name.
fn tiny(architecture: &str) -> Writer {
    let mut writer = tiny_llama();
    for (key, _) in &mut writer.metadata {
        if let Some(name) = key.strip_prefix("llama.") {
            *key = format!("{architecture}.{name}");
        }
    }
    writer.set("general.architecture", Meta::Str(architecture.into()));
    writer
}

fn scale(writer: &mut Writer, tensor: &str, factor: f32) {
    for tensor in writer.tensors.iter_mut().filter(|t| t.name.ends_with(tensor)) {
        for number in tensor.data.chunks_exact_mut(4) {
            let value = f32::from_le_bytes([number[0], number[1], number[2], number[3]]);
            number.copy_from_slice(&(value * factor).to_le_bytes());
        }
    }
}

fn assert_close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let size = a.iter().copied().map(f32::abs).fold(0.0, f32::max);
    assert!(apart <= 1e-4 * size, "{apart} apart, of {size}");
}

#[test]
fn granite_scales_what_llama_has_in_its_weights() {
    let mut granite = tiny("granite");
    granite.set("granite.embedding_scale", Meta::F32(12.0));
    granite.set("granite.residual_scale", Meta::F32(0.22));
    granite.set("granite.attention.scale", Meta::F32(0.05));
    granite.set("granite.logit_scale", Meta::F32(8.0));
    let mut llama = tiny_llama();
    scale(&mut llama, "token_embd.weight", 12.0);
    scale(&mut llama, "attn_output.weight", 0.22);
    scale(&mut llama, "ffn_down.weight", 0.22);
    scale(&mut llama, "attn_q.weight", 0.05 * 8_f32.sqrt());
    scale(&mut llama, "output.weight", 1.0);
    let unscaled: Vec<f32> = logits(&granite).iter().map(|x| x * 8.0).collect();
    assert_close(&unscaled, &logits(&llama));
}

#[test]
fn smollm3_leaves_every_fourth_layer_without_rotation() {
    let mut four = tiny("smollm3");
    let more: Vec<_> = four.tensors.iter().filter(|t| t.name.starts_with("blk.")).cloned().collect();
    for mut tensor in more {
        let (layer, rest) = tensor.name["blk.".len()..].split_once('.').unwrap();
        tensor.name = format!("blk.{}.{rest}", layer.parse::<usize>().unwrap() + 2);
        four.tensors.push(tensor);
    }
    four.set("smollm3.block_count", Meta::U32(4));
    let config = config(&four);
    let rotated: Vec<bool> = (0..4).map(|layer| config.layer_rope(layer).is_some()).collect();
    assert_eq!(rotated, [true, true, true, false]);
    assert_close(&logits(&tiny("smollm3")), &logits(&tiny_llama()));
    let mut llama = four.clone();
    llama.metadata = tiny_llama().metadata;
    llama.set("llama.block_count", Meta::U32(4));
    let apart = logits(&four).iter().zip(logits(&llama)).any(|(a, b)| (a - b).abs() > 1e-2);
    assert!(apart, "the fourth layer must not turn");
}

#[test]
fn gemma2_caps_scores_and_logits_and_windows_every_other_layer() {
    let mut gemma2 = tiny("gemma2");
    for layer in 0..2 {
        for name in ["post_attention_norm", "post_ffw_norm"] {
            gemma2.f32_tensor(&format!("blk.{layer}.{name}.weight"), &[32], &[1.0; 32]);
        }
    }
    let uncapped = logits(&gemma2);
    gemma2.set("gemma2.final_logit_softcapping", Meta::F32(3.0));
    let capped: Vec<f32> = uncapped.iter().map(|x| 3.0 * (x / 3.0).tanh()).collect();
    assert_close(&logits(&gemma2), &capped);
    // A cap far above all scores changes nothing, a low one does.
    gemma2.set("gemma2.attn_logit_softcapping", Meta::F32(1e4));
    assert_close(&logits(&gemma2), &capped);
    gemma2.set("gemma2.attn_logit_softcapping", Meta::F32(0.5));
    assert!(logits(&gemma2).iter().zip(&capped).any(|(a, b)| (a - b).abs() > 1e-3));
    gemma2.set("gemma2.attention.sliding_window", Meta::U32(4));
    let config = config(&gemma2);
    assert_eq!((config.window(0), config.window(1)), (Some(4), None));
    assert_eq!(config.rope.style, RopeStyle::Halves);
}

#[test]
fn phi3_windows_every_layer_where_the_window_is_shorter_than_the_context() {
    let mut phi3 = tiny("phi3");
    phi3.set("phi3.attention.sliding_window", Meta::U32(100));
    assert_eq!(config(&phi3).window(1), Some(100));
    let unwindowed = logits(&phi3);
    phi3.set("phi3.attention.sliding_window", Meta::U32(256));
    assert_eq!(config(&phi3).window(1), None);
    assert_close(&unwindowed, &logits(&phi3));
    phi3.set("phi3.attention.sliding_window", Meta::U32(2));
    let windowed = logits(&phi3);
    let n_vocab = windowed.len() / TOKENS.len();
    assert_close(&windowed[..2 * n_vocab], &unwindowed[..2 * n_vocab]);
    assert!(
        windowed[2 * n_vocab..].iter().zip(&unwindowed[2 * n_vocab..]).any(|(a, b)| (a - b).abs() > 1e-3)
    );
}

#[test]
fn ways_to_slow_rotation_agree() {
    let plain = logits(&tiny_llama());
    let mut linear = tiny_llama();
    linear.set("llama.rope.scaling.type", Meta::Str("linear".into()));
    linear.set("llama.rope.scaling.factor", Meta::F32(4.0));
    let mut factors = tiny_llama();
    factors.f32_tensor("rope_freqs.weight", &[4], &[4.0; 4]);
    assert_close(&logits(&linear), &logits(&factors));
    assert!(logits(&linear).iter().zip(&plain).any(|(a, b)| (a - b).abs() > 1e-2));

    let mut none = tiny_llama();
    none.set("llama.rope.scaling.type", Meta::Str("none".into()));
    none.set("llama.rope.scaling.factor", Meta::F32(4.0));
    assert_close(&logits(&none), &plain);

    // Turning only the first half of a head is turning all of it, the second half by nothing.
    let mut partial = tiny_llama();
    partial.set("llama.rope.dimension_count", Meta::U32(4));
    let speed = |i: f32, n_dims: f32| 10_000_f32.powf(-2.0 * i / n_dims);
    let mut whole = tiny_llama();
    whole.f32_tensor("rope_freqs.weight", &[4], &[1.0, speed(1.0, 8.0) / speed(1.0, 4.0), 1e30, 1e30]);
    assert_close(&logits(&partial), &logits(&whole));
}

#[test]
fn long_contexts_take_the_long_factors() {
    let mut phi3 = tiny("phi3");
    phi3.f32_tensor("rope_factors_short.weight", &[4], &[1.0; 4]);
    phi3.f32_tensor("rope_factors_long.weight", &[4], &[2.0; 4]);
    phi3.set("phi3.rope.scaling.original_context_length", Meta::U32(128));
    phi3.set("phi3.rope.scaling.attn_factor", Meta::F32(1.19));
    let gguf = gguf(&phi3);
    let first_speed = |n_ctx| ModelConfig::from_gguf(&gguf, Some(n_ctx)).unwrap().rope.inv_freq[0];
    assert!((first_speed(128) - 1.0).abs() < 1e-6);
    assert!((first_speed(129) - 0.5).abs() < 1e-6);
    assert!((config(&phi3).rope.magnitude - 1.19).abs() < 1e-6);
}

#[test]
fn yarn_keeps_fast_pairs_and_slows_slow_ones() {
    let mut yarn = tiny("qwen2");
    yarn.set("qwen2.attention.key_length", Meta::U32(128));
    yarn.set("qwen2.attention.value_length", Meta::U32(128));
    yarn.set("qwen2.rope.dimension_count", Meta::U32(128));
    yarn.set("qwen2.rope.freq_base", Meta::F32(1e6));
    yarn.set("qwen2.rope.scaling.type", Meta::Str("yarn".into()));
    yarn.set("qwen2.rope.scaling.factor", Meta::F32(4.0));
    yarn.set("qwen2.rope.scaling.original_context_length", Meta::U32(32_768));
    let rope = config(&yarn).rope;
    let plain = |i: usize| 1e6_f64.powf(-2.0 * i as f64 / 128.0);
    let slowed: Vec<f64> = (0..64).map(|i| plain(i) / f64::from(rope.inv_freq[i])).collect();
    // 128 ln(32768 / 2 pi r) / (2 ln 1e6): 23.6 pairs turn 32 times in the trained context, 39.7 turn once.
    assert!(slowed[..=23].iter().all(|s| (s - 1.0).abs() < 1e-5), "{slowed:?}");
    assert!(slowed[40..].iter().all(|s| (s - 4.0).abs() < 1e-4), "{slowed:?}");
    assert!(slowed[23..=40].windows(2).all(|pair| pair[0] < pair[1]), "{slowed:?}");
    assert!((rope.magnitude - (1.0 + 0.1 * 4_f32.ln())).abs() < 1e-6);
}
