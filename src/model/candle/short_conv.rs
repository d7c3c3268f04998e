//! A short convolution over the newest positions, which LFM2 has in most blocks in the place of attention.

use candle_core::{Module, Result, Tensor};
use candle_transformers::quantized_nn::Linear;

use super::tensors::Tensors;
use super::{Step, backend};
use crate::model::config::ShortConv as Shape;
use crate::model::{ModelConfig, ModelError};

/// The mixing part of one block: `out(c * conv(b * x))`, each channel with weights of its own.
pub(super) struct ShortConv {
    layer: usize,
    input: Linear,
    /// `(n_taps, n_embd)`, the oldest position first.
    kernel: Tensor,
    output: Linear,
}

impl ShortConv {
    pub(super) fn load(
        tensors: &Tensors<'_>,
        c: &ModelConfig,
        shape: &Shape,
        layer: usize,
    ) -> std::result::Result<Self, ModelError> {
        let name = |part: &str| format!("blk.{layer}.shortconv.{part}");
        let kernel = tensors.matrix(&name("conv.weight"), shape.n_taps, c.n_embd)?; // (n_embd, n_taps)
        Ok(Self {
            layer,
            input: tensors.linear(&name("in_proj"), c.n_embd, 3 * c.n_embd)?,
            kernel: kernel.t().and_then(|t| t.contiguous()).map_err(backend)?,
            output: tensors.linear(&name("out_proj"), c.n_embd, c.n_embd)?,
        })
    }

    /// `x` is `(n_rows, n_embd)`, rows of all sequences; so is the result.
    pub(super) fn forward(&self, x: &Tensor, c: &ModelConfig, step: &Step<'_>) -> Result<Tensor> {
        let projected = self.input.forward(x)?; // (n_rows, 3 * n_embd)
        let part = |i: usize| projected.narrow(1, i * c.n_embd, c.n_embd)?.contiguous();
        let (before, after) = ((part(0)? * part(2)?)?, part(1)?);
        let n_taps = self.kernel.dim(0)?;
        let mut mixed = Vec::with_capacity(step.spans.len());
        for span in &step.spans {
            let rows = before.narrow(0, span.start, span.len)?;
            let past = span.cache.recent(self.layer, n_taps - 1, &rows)?; // (n_taps - 1, n_embd)
            let all = Tensor::cat(&[&past, &rows], 0)?;
            let mut sum = all.narrow(0, 0, span.len)?.broadcast_mul(&self.kernel.narrow(0, 0, 1)?)?;
            for tap in 1..n_taps {
                let weights = self.kernel.narrow(0, tap, 1)?;
                sum = (sum + all.narrow(0, tap, span.len)?.broadcast_mul(&weights)?)?;
            }
            mixed.push(sum);
            span.cache.remember(self.layer, &rows)?;
        }
        let mixed = if mixed.len() == 1 { mixed.remove(0) } else { Tensor::cat(&mixed, 0)? };
        self.output.forward(&(mixed * after)?)
    }
}
