//! Attention of new rows over a sequence's cached keys and values.

use std::collections::HashMap;

use candle_core::{Device, Module, Result, Tensor};
use candle_nn::{ops, rotary_emb};
use candle_transformers::quantized_nn::{Linear, RmsNorm};

use super::Step;
use super::tensors::Tensors;
use crate::model::config::{Rope, RopeStyle};
use crate::model::kv::KvCache;
use crate::model::{ModelConfig, ModelError};

/// Scores computed at once, over all heads: 64 MiB of floats bound what a long prefill takes.
const MAX_SCORES: usize = 16 << 20;

/// The attention part of one block.
pub(super) struct Attention {
    layer: usize,
    projection: Projection,
    query_norm: Option<RmsNorm>,
    key_norm: Option<RmsNorm>,
    output: Linear,
}

/// How a row becomes query, key and value.
enum Projection {
    Split { query: Linear, key: Linear, value: Linear },
    Fused(Linear),
}

impl Attention {
    pub(super) fn load(
        tensors: &Tensors<'_>,
        c: &ModelConfig,
        layer: usize,
    ) -> std::result::Result<Self, ModelError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (n_q, n_kv) = (c.n_head * c.head_dim, c.n_head_kv * c.head_dim);
        let projection = if tensors.has(&name("attn_qkv.weight")) {
            Projection::Fused(tensors.linear(&name("attn_qkv"), c.n_embd, n_q + 2 * n_kv)?)
        } else {
            Projection::Split {
                query: tensors.linear(&name("attn_q"), c.n_embd, n_q)?,
                key: tensors.linear(&name("attn_k"), c.n_embd, n_kv)?,
                value: tensors.linear(&name("attn_v"), c.n_embd, n_kv)?,
            }
        };
        Ok(Self {
            layer,
            projection,
            query_norm: tensors.optional_norm(&name("attn_q_norm"), c.head_dim, c.norm_eps)?,
            key_norm: tensors.optional_norm(&name("attn_k_norm"), c.head_dim, c.norm_eps)?,
            output: tensors.linear(&name("attn_output"), n_q, c.n_embd)?,
        })
    }

    /// `x` is `(n_rows, n_embd)`, rows of all sequences; so is the result.
    pub(super) fn forward<'a>(&self, x: &Tensor, c: &'a ModelConfig, step: &mut Step<'a>) -> Result<Tensor> {
        let (q, k, v) = self.project(x, c)?;
        let q = heads(&q, c.n_head, c.head_dim, self.query_norm.as_ref())?; // (n_head, n_rows, head_dim)
        let k = heads(&k, c.n_head_kv, c.head_dim, self.key_norm.as_ref())?;
        let v = heads(&v, c.n_head_kv, c.head_dim, None)?;
        let (q, k) = match c.layer_rope(self.layer) {
            None => (q, k),
            Some(rope) => {
                let (cos, sin) = step.rope_tables(rope)?;
                (rotate(&q, rope, &cos, &sin)?, rotate(&k, rope, &cos, &sin)?)
            }
        };
        let q = (q * f64::from(c.attention_scale))?;
        let mut rows = Vec::with_capacity(step.spans.len());
        for span in &step.spans {
            let of_span = |t: &Tensor| t.narrow(1, span.start, span.len);
            span.cache.write(self.layer, &of_span(&k)?, &of_span(&v)?)?;
            rows.push(self.attend(&of_span(&q)?, span.cache, c, &mut step.masks)?);
        }
        let rows = if rows.len() == 1 { rows.remove(0) } else { Tensor::cat(&rows, 0)? };
        self.output.forward(&rows)
    }

    fn project(&self, x: &Tensor, c: &ModelConfig) -> Result<(Tensor, Tensor, Tensor)> {
        match &self.projection {
            Projection::Split { query, key, value } => {
                Ok((query.forward(x)?, key.forward(x)?, value.forward(x)?))
            }
            Projection::Fused(all) => {
                let all = all.forward(x)?;
                let (n_q, n_kv) = (c.n_head * c.head_dim, c.n_head_kv * c.head_dim);
                let part = |start, n| all.narrow(1, start, n)?.contiguous();
                Ok((part(0, n_q)?, part(n_q, n_kv)?, part(n_q + n_kv, n_kv)?))
            }
        }
    }

    /// `q` is `(n_head, n, head_dim)`, the sequence's newest positions, already written to `cache`.
    fn attend(&self, q: &Tensor, cache: &KvCache, c: &ModelConfig, masks: &mut Masks) -> Result<Tensor> {
        let (n_head, n, head_dim) = q.dims3()?;
        let group = n_head / c.n_head_kv;
        let window = c.window(self.layer).unwrap_or(usize::MAX);
        let rows_at_once = (MAX_SCORES / (n_head * (cache.len() + n))).max(1);
        let mut out = Vec::new();
        for start in (0..n).step_by(rows_at_once) {
            let n_rows = rows_at_once.min(n - start);
            let first = cache.len() + start;
            let keys_from = (first + 1).saturating_sub(window);
            let n_keys = first + n_rows - keys_from;
            let (k, v) = cache.read(self.layer, keys_from..keys_from + n_keys)?;
            // The query heads that share a key head become more rows of one product; no key is copied.
            let q = q.narrow(1, start, n_rows)?.reshape((c.n_head_kv, group * n_rows, head_dim))?;
            let mut scores = q.matmul(&k.t()?)?; // (n_head_kv, group * n_rows, n_keys)
            if let Some(cap) = c.attention_softcap {
                scores = soft_cap(&scores, cap)?;
            }
            if n_rows > 1 {
                let mask = masks.get(Mask { first, n_rows, keys_from, n_keys, window }, q.device())?;
                scores = scores.reshape((n_head, n_rows, n_keys))?.broadcast_add(&mask)?;
                scores = scores.reshape((c.n_head_kv, group * n_rows, n_keys))?;
            }
            let mixed = ops::softmax_last_dim(&scores)?.matmul(&v)?; // (n_head_kv, group * n_rows, head_dim)
            let by_row = mixed.reshape((n_head, n_rows, head_dim))?.transpose(0, 1)?;
            out.push(by_row.reshape((n_rows, n_head * head_dim))?);
        }
        if out.len() == 1 { Ok(out.remove(0)) } else { Tensor::cat(&out, 0) }
    }
}

/// `(n_rows, n_heads * head_dim)` to `(n_heads, n_rows, head_dim)`, each head normed where the model does so.
fn heads(x: &Tensor, n_heads: usize, head_dim: usize, norm: Option<&RmsNorm>) -> Result<Tensor> {
    let x = x.reshape(((), n_heads, head_dim))?;
    let x = match norm {
        Some(norm) => norm.forward(&x)?,
        None => x,
    };
    x.transpose(0, 1)?.contiguous()
}

/// Turns the pairs of `x`, `(n_heads, n_rows, head_dim)`, by the angles of each row.
fn rotate(x: &Tensor, rope: &Rope, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let head_dim = x.dim(2)?;
    let turned = |x: &Tensor| -> Result<Tensor> {
        let x = x.unsqueeze(0)?.contiguous()?;
        match rope.style {
            RopeStyle::Adjacent => rotary_emb::rope_i(&x, cos, sin),
            RopeStyle::Halves => rotary_emb::rope(&x, cos, sin),
        }?
        .squeeze(0)
    };
    if rope.n_dims == head_dim {
        return turned(x);
    }
    let still = x.narrow(2, rope.n_dims, head_dim - rope.n_dims)?;
    Tensor::cat(&[turned(&x.narrow(2, 0, rope.n_dims)?)?, still], 2)
}

/// `cap * tanh(x / cap)`.
pub(super) fn soft_cap(x: &Tensor, cap: f32) -> Result<Tensor> {
    let cap = f64::from(cap);
    (x / cap)?.tanh()? * cap
}

/// Which keys `n_rows` queries from position `first` on may see, of `n_keys` from position `keys_from` on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Mask {
    first: usize,
    n_rows: usize,
    keys_from: usize,
    n_keys: usize,
    window: usize,
}

/// The masks of one step, made once and used by every layer.
#[derive(Default)]
pub(super) struct Masks(HashMap<Mask, Tensor>);

impl Masks {
    fn get(&mut self, mask: Mask, device: &Device) -> Result<Tensor> {
        if let Some(tensor) = self.0.get(&mask) {
            return Ok(tensor.clone());
        }
        let mut data = Vec::with_capacity(mask.n_rows * mask.n_keys);
        for query in mask.first..mask.first + mask.n_rows {
            data.extend(
                (mask.keys_from..mask.keys_from + mask.n_keys).map(|key| {
                    if key <= query && query - key < mask.window { 0.0 } else { f32::NEG_INFINITY }
                }),
            );
        }
        let tensor = Tensor::from_vec(data, (mask.n_rows, mask.n_keys), device)?;
        self.0.insert(mask, tensor.clone());
        Ok(tensor)
    }
}
