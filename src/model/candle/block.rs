//! One transformer block: attention and a gated feed-forward network, each added to the residual stream.

use candle_core::{Module, Result, Tensor};
use candle_nn::ops;
use candle_transformers::quantized_nn::{Linear, RmsNorm};

use super::attention::Attention;
use super::experts::Experts;
use super::short_conv::ShortConv;
use super::tensors::Tensors;
use super::{Step, scaled};
use crate::model::config::Activation;
use crate::model::{ModelConfig, ModelError};

/// One layer of the model.
pub(super) struct Block {
    attention_norm: RmsNorm,
    mixer: Mixer,
    attention_post_norm: Option<RmsNorm>,
    ffn_norm: RmsNorm,
    ffn: FeedForward,
    ffn_post_norm: Option<RmsNorm>,
}

/// The part that looks at other positions.
enum Mixer {
    Attention(Box<Attention>),
    ShortConv(ShortConv),
}

impl Block {
    pub(super) fn load(
        tensors: &Tensors<'_>,
        c: &ModelConfig,
        layer: usize,
    ) -> std::result::Result<Self, ModelError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        Ok(Self {
            attention_norm: tensors.norm(&name("attn_norm"), c.n_embd, c.norm_eps)?,
            mixer: match c.short_conv.as_ref().filter(|conv| conv.layers[layer]) {
                Some(conv) => Mixer::ShortConv(ShortConv::load(tensors, c, conv, layer)?),
                None => Mixer::Attention(Box::new(Attention::load(tensors, c, layer)?)),
            },
            attention_post_norm: tensors.optional_norm(&name("post_attention_norm"), c.n_embd, c.norm_eps)?,
            ffn_norm: tensors.norm(&name("ffn_norm"), c.n_embd, c.norm_eps)?,
            ffn: FeedForward::load(tensors, c, layer)?,
            ffn_post_norm: tensors.optional_norm(&name("post_ffw_norm"), c.n_embd, c.norm_eps)?,
        })
    }

    /// `x` is `(n_rows, n_embd)`.
    pub(super) fn forward<'a>(&self, x: &Tensor, c: &'a ModelConfig, step: &mut Step<'a>) -> Result<Tensor> {
        let normed = self.attention_norm.forward(x)?;
        let mixed = match &self.mixer {
            Mixer::Attention(attention) => attention.forward(&normed, c, step)?,
            Mixer::ShortConv(conv) => conv.forward(&normed, c, step)?,
        };
        let x = add(x, &mixed, self.attention_post_norm.as_ref(), c)?;
        let fed = self.ffn.forward(&self.ffn_norm.forward(&x)?, c.activation)?;
        add(&x, &fed, self.ffn_post_norm.as_ref(), c)
    }
}

/// Adds what a part of the block found to the residual stream.
fn add(x: &Tensor, found: &Tensor, post_norm: Option<&RmsNorm>, c: &ModelConfig) -> Result<Tensor> {
    let found = match post_norm {
        Some(norm) => norm.forward(found)?,
        None => found.clone(),
    };
    x + scaled(found, c.residual_scale)?
}

/// One network for all rows, or many of which each row takes a few.
enum FeedForward {
    Dense(Dense),
    Experts(Experts),
}

impl FeedForward {
    fn load(tensors: &Tensors<'_>, c: &ModelConfig, layer: usize) -> std::result::Result<Self, ModelError> {
        match &c.experts {
            Some(experts) => Ok(Self::Experts(Experts::load(tensors, c, experts, layer)?)),
            None => Ok(Self::Dense(Dense::load(tensors, c, layer)?)),
        }
    }

    fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        match self {
            Self::Dense(dense) => dense.forward(x, activation),
            Self::Experts(experts) => experts.forward(x),
        }
    }
}

/// `down(activation(gate(x)) * up(x))`.
struct Dense {
    gated: Gated,
    down: Linear,
}

enum Gated {
    Split {
        gate: Linear,
        up: Linear,
    },
    /// Gate above up in one matrix.
    Fused(Linear),
}

impl Dense {
    fn load(tensors: &Tensors<'_>, c: &ModelConfig, layer: usize) -> std::result::Result<Self, ModelError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let gated = if tensors.has(&name("ffn_gate.weight")) {
            Gated::Split {
                gate: tensors.linear(&name("ffn_gate"), c.n_embd, c.n_ff)?,
                up: tensors.linear(&name("ffn_up"), c.n_embd, c.n_ff)?,
            }
        } else {
            Gated::Fused(tensors.linear(&name("ffn_up"), c.n_embd, 2 * c.n_ff)?)
        };
        Ok(Self { gated, down: tensors.linear(&name("ffn_down"), c.n_ff, c.n_embd)? })
    }

    fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let (gate, up) = match &self.gated {
            Gated::Split { gate, up } => (gate.forward(x)?, up.forward(x)?),
            Gated::Fused(both) => {
                let both = both.forward(x)?;
                let n = both.dim(1)? / 2;
                (both.narrow(1, 0, n)?.contiguous()?, both.narrow(1, n, n)?.contiguous()?)
            }
        };
        let gate = match activation {
            Activation::Silu => ops::silu(&gate)?,
            Activation::Gelu => gate.gelu()?,
        };
        self.down.forward(&(gate * up)?)
    }
}
