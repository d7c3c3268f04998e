//! A feed-forward network of many experts, of which each row takes a few.

use candle_core::{Module, Result, Tensor};
use candle_nn::ops;
use candle_transformers::quantized_nn::Linear;

use super::tensors::Tensors;
use crate::model::config::Experts as Shape;
use crate::model::{ModelConfig, ModelError};

/// The experts of one block, and what chooses among them.
pub(super) struct Experts {
    router: Linear,
    gate: Vec<Linear>,
    up: Vec<Linear>,
    down: Vec<Linear>,
    n_used: usize,
}

impl Experts {
    pub(super) fn load(
        tensors: &Tensors<'_>,
        c: &ModelConfig,
        shape: &Shape,
        layer: usize,
    ) -> std::result::Result<Self, ModelError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        Ok(Self {
            router: tensors.linear(&name("ffn_gate_inp"), c.n_embd, shape.n)?,
            gate: tensors.linears(&name("ffn_gate_exps.weight"), c.n_embd, shape.n_ff, shape.n)?,
            up: tensors.linears(&name("ffn_up_exps.weight"), c.n_embd, shape.n_ff, shape.n)?,
            down: tensors.linears(&name("ffn_down_exps.weight"), shape.n_ff, c.n_embd, shape.n)?,
            n_used: shape.n_used,
        })
    }

    /// `x` is `(n_rows, n_embd)`; so is the result. Rows that take the same expert go through it together, so that its
    /// weights are read once.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shares = ops::softmax_last_dim(&self.router.forward(x)?)?; // (n_rows, n)
        let mut rows_of: Vec<(Vec<u32>, Vec<f32>)> = vec![Default::default(); self.gate.len()];
        for (row, shares) in shares.to_vec2::<f32>()?.into_iter().enumerate() {
            let chosen = largest(&shares, self.n_used);
            let total: f32 = chosen.iter().map(|&i| shares[i]).sum();
            for i in chosen {
                rows_of[i].0.push(row as u32);
                rows_of[i].1.push(shares[i] / total);
            }
        }
        let mut out = x.zeros_like()?;
        for (i, (rows, weights)) in rows_of.into_iter().enumerate().filter(|(_, (rows, _))| !rows.is_empty())
        {
            let n = rows.len();
            let rows = Tensor::from_vec(rows, n, x.device())?;
            let weights = Tensor::from_vec(weights, (n, 1), x.device())?;
            let taken = x.index_select(&rows, 0)?;
            let inner = (ops::silu(&self.gate[i].forward(&taken)?)? * self.up[i].forward(&taken)?)?;
            let found = self.down[i].forward(&inner)?.broadcast_mul(&weights)?;
            out = out.index_add(&rows, &found, 0)?;
        }
        Ok(out)
    }
}

/// Where the `n` largest stand; of equals the first.
fn largest(values: &[f32], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order.truncate(n);
    order
}
