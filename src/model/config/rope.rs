//! Rotary position embedding: which pairs turn, how fast, and how much longer the vectors get.
//!
//! Every scaling scheme in use changes only the angular speed of each pair and one common factor, both independent of
//! the position; so they are worked out once, here, and the forward pass knows nothing of schemes.

use super::super::ModelError;
use super::super::gguf::{Gguf, TensorType};
use super::metadata::Metadata;

/// Which elements of a head form a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RopeStyle {
    /// Neighbours: `(0, 1), (2, 3), ...`.
    Adjacent,
    /// An element of the first half and its fellow of the second: `(0, n/2), (1, n/2 + 1), ...`.
    Halves,
}

/// A rotary embedding.
#[derive(Clone, PartialEq, Debug)]
pub struct Rope {
    /// Which elements form a pair.
    pub style: RopeStyle,
    /// Leading elements of a head that turn; the rest stay.
    pub n_dims: usize,
    /// Angle per position of each pair, in radians; `n_dims / 2` of them.
    pub inv_freq: Vec<f32>,
    /// Factor on sine and cosine.
    pub magnitude: f32,
}

/// Lengths at which `YaRN` starts and stops to interpolate, as published with it.
const YARN_BETA_FAST: f32 = 32.0;
const YARN_BETA_SLOW: f32 = 1.0;

impl Rope {
    /// Pair `i` turns by `base ^ (-2i / n_dims)` per position.
    pub(super) fn unscaled(style: RopeStyle, n_dims: usize, base: f32) -> Self {
        let inv_freq =
            (0..n_dims / 2).map(|i| f64::from(base).powf(-2.0 * i as f64 / n_dims as f64) as f32).collect();
        Self { style, n_dims, inv_freq, magnitude: 1.0 }
    }

    pub(super) fn from_metadata(
        meta: &Metadata<'_>,
        head_dim: usize,
        n_ctx: usize,
        n_ctx_train: usize,
    ) -> Result<Self, ModelError> {
        let n_dims = meta.optional_size("rope.dimension_count", head_dim)?.unwrap_or(head_dim);
        if n_dims == 0 || !n_dims.is_multiple_of(2) {
            return Err(ModelError::Malformed(format!(
                "rope.dimension_count: {n_dims}, it must be even and not 0"
            )));
        }
        let base = meta.optional_positive("rope.freq_base")?.unwrap_or(10_000.0);
        let style = match meta.architecture() {
            "llama" | "smollm3" | "granite" | "glm4" => RopeStyle::Adjacent,
            _ => RopeStyle::Halves,
        };
        let mut rope = Self::unscaled(style, n_dims, base);
        let n_ctx_orig = meta
            .optional_size("rope.scaling.original_context_length", super::MAX_CTX)?
            .unwrap_or(n_ctx_train);
        if let Some(factors) = factors(meta.gguf, n_dims, n_ctx > n_ctx_orig)? {
            for (inv_freq, factor) in rope.inv_freq.iter_mut().zip(factors) {
                *inv_freq /= factor;
            }
        }
        rope.magnitude = meta.optional_positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
        rope.scale(meta, base, n_ctx_orig)?;
        Ok(rope)
    }

    fn scale(&mut self, meta: &Metadata<'_>, base: f32, n_ctx_orig: usize) -> Result<(), ModelError> {
        // `scale_linear` is the older key of the same number.
        let factor = match meta.optional_positive("rope.scaling.factor")? {
            Some(factor) => factor,
            None => meta.optional_positive("rope.scale_linear")?.unwrap_or(1.0),
        };
        match meta.str("rope.scaling.type") {
            Some("none" | "longrope") => Ok(()),
            Some("yarn") => {
                self.yarn(base, factor, n_ctx_orig);
                Ok(())
            }
            None | Some("linear") => {
                self.inv_freq.iter_mut().for_each(|inv_freq| *inv_freq /= factor);
                Ok(())
            }
            Some(other) => Err(ModelError::Unsupported(format!(
                "rope.scaling.type {:?}; none, linear, yarn and longrope are computed",
                other.chars().take(64).collect::<String>()
            ))),
        }
    }

    /// Interpolates slow pairs by `factor`, leaves fast ones alone, and mixes in between.
    fn yarn(&mut self, base: f32, factor: f32, n_ctx_orig: usize) {
        let n_dims = self.n_dims as f32;
        let pair_turning = |turns: f32| {
            n_dims * (n_ctx_orig as f32 / (turns * std::f32::consts::TAU)).ln() / (2.0 * base.ln())
        };
        let low = pair_turning(YARN_BETA_FAST).floor().max(0.0);
        let high = pair_turning(YARN_BETA_SLOW).ceil().min(n_dims - 1.0);
        for (i, inv_freq) in self.inv_freq.iter_mut().enumerate() {
            let ramp = ((i as f32 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
            *inv_freq = *inv_freq / factor * ramp + *inv_freq * (1.0 - ramp);
        }
        self.magnitude *= 1.0 + 0.1 * factor.ln();
    }

    /// Cosines and sines for `positions`, each `(positions, n_dims / 2)`, row-major.
    pub fn tables(&self, positions: &[usize]) -> (Vec<f32>, Vec<f32>) {
        let n = positions.len() * self.inv_freq.len();
        let (mut cos, mut sin) = (vec![0.0; n], vec![0.0; n]);
        self.fill_tables(positions, &mut cos, &mut sin);
        (cos, sin)
    }

    /// The same into memory at hand, as much as it takes.
    pub fn fill_tables(&self, positions: &[usize], cos: &mut [f32], sin: &mut [f32]) {
        let angles = positions.iter().flat_map(|&pos| self.inv_freq.iter().map(move |&f| pos as f32 * f));
        for ((cos, sin), angle) in cos.iter_mut().zip(sin).zip(angles) {
            *cos = angle.cos() * self.magnitude;
            *sin = angle.sin() * self.magnitude;
        }
    }
}

/// Divisors of the angular speeds that some models bring as a tensor, one list or one each for short and long contexts.
fn factors(gguf: &Gguf, n_dims: usize, long: bool) -> Result<Option<Vec<f32>>, ModelError> {
    let by_length = if long { "rope_factors_long.weight" } else { "rope_factors_short.weight" };
    let Some(tensor) = gguf.tensor("rope_freqs.weight").or_else(|| gguf.tensor(by_length)) else {
        return Ok(None);
    };
    if tensor.tensor_type != TensorType::F32 || tensor.n_elements() != n_dims / 2 {
        return Err(ModelError::Malformed(format!(
            "tensor {}: {} elements of {}, {} of F32 belong there",
            tensor.name,
            tensor.n_elements(),
            tensor.tensor_type,
            n_dims / 2
        )));
    }
    let bytes = gguf.tensor_data(tensor)?;
    let factors: Vec<f32> =
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    if factors.iter().any(|factor| !factor.is_finite() || *factor <= 0.0) {
        return Err(ModelError::Malformed(format!("tensor {}: a factor is not above 0", tensor.name)));
    }
    Ok(Some(factors))
}
