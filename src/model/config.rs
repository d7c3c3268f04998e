//! Hyperparameters: what the metadata of a GGUF file says about the shape of the model, checked and in one form for
//! all architectures, so that the forward pass asks for constants and never for names.

mod metadata;
mod rope;

use super::gguf::{Gguf, TensorType};
use super::{ModelError, SUPPORTED_ARCHITECTURES};
use metadata::Metadata;
pub use rope::{Rope, RopeStyle};

/// Transformer blocks; the deepest open models have 126.
pub const MAX_LAYERS: usize = 512;
/// Positions, trained or asked for: one million, as the longest open models have.
pub const MAX_CTX: usize = 1 << 20;
/// Positions of a sequence where nobody asks for more: enough for a long evening, and its KV cache stays small.
pub const DEFAULT_CTX: usize = 4096;
/// Widths and head counts; ten times the largest open models.
const MAX_WIDTH: usize = 1 << 18;

/// The nonlinearity between the two halves of a feed-forward block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// The tanh approximation of GELU.
    Gelu,
}

/// Layers that see only the newest positions.
#[derive(Clone, PartialEq, Debug)]
pub struct SlidingWindow {
    /// A query at `i` sees the keys `j` with `i - j < window`.
    pub window: usize,
    /// Every `period`-th layer sees everything; 0 when none does.
    pub period: usize,
    /// Rotary embedding of the windowed layers.
    pub rope: Rope,
}

/// Feed-forward networks of which each row takes a few.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Experts {
    /// How many a block has.
    pub n: usize,
    /// How many each row takes.
    pub n_used: usize,
    /// Inner width of each.
    pub n_ff: usize,
}

/// Blocks that mix positions by a short convolution in the place of attention.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShortConv {
    /// Positions that one output sees, its own included.
    pub n_taps: usize,
    /// Which layers are such; the others attend.
    pub layers: Vec<bool>,
}

/// The shape of a model and the constants of its forward pass.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelConfig {
    /// `general.architecture`, one of [`SUPPORTED_ARCHITECTURES`].
    pub architecture: String,
    /// `general.name`, or the file's name where there is none.
    pub name: String,
    /// The file's quantization as the format spells it: `Q4_K_M`; from the tensors where the file does not tell.
    pub quantization: String,
    /// Weights, counted.
    pub n_params: u64,
    /// Length of a row of logits.
    pub n_vocab: usize,
    /// Positions a sequence may hold.
    pub n_ctx: usize,
    /// Positions the model was trained on.
    pub n_ctx_train: usize,
    /// Transformer blocks.
    pub n_layer: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads; divides `n_head`.
    pub n_head_kv: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Inner width of the feed-forward blocks.
    pub n_ff: usize,
    /// Added to the mean square in RMS norms.
    pub norm_eps: f32,
    /// Feed-forward nonlinearity.
    pub activation: Activation,
    /// Rotary embedding of the layers that see everything.
    pub rope: Rope,
    /// Every `n`-th layer goes without rotary embedding.
    pub no_rope_period: Option<usize>,
    /// Windowed layers, where the architecture has them.
    pub sliding_window: Option<SlidingWindow>,
    /// Experts in the place of one feed-forward network per block.
    pub experts: Option<Experts>,
    /// Short convolutions in the place of attention in some blocks.
    pub short_conv: Option<ShortConv>,
    /// Factor on `q . k`.
    pub attention_scale: f32,
    /// Attention scores pass through `cap * tanh(x / cap)`.
    pub attention_softcap: Option<f32>,
    /// Logits pass through `cap * tanh(x / cap)`.
    pub logit_softcap: Option<f32>,
    /// Factor on token embeddings.
    pub embedding_scale: Option<f32>,
    /// Factor on what a block adds to the residual stream.
    pub residual_scale: Option<f32>,
    /// Factor on logits.
    pub logit_scale: Option<f32>,
}

impl ModelConfig {
    /// Reads and checks the metadata. `n_ctx` is what was asked for; `None` takes what the model was trained on, at
    /// most [`DEFAULT_CTX`].
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for an architecture or feature that no runner has; [`ModelError::Malformed`] for
    /// a value that is missing or breaks a limit.
    pub fn from_gguf(gguf: &Gguf, n_ctx: Option<usize>) -> Result<Self, ModelError> {
        let architecture = supported_architecture(gguf)?;
        let meta = Metadata::new(gguf);
        let n_vocab = check_vocabulary(gguf)?;
        let n_embd = meta.size("embedding_length", MAX_WIDTH)?;
        let n_head = meta.per_layer_size("attention.head_count", MAX_WIDTH)?;
        let n_layer = meta.size("block_count", MAX_LAYERS)?;
        let (n_head_kv, short_conv) = if architecture == "lfm2" {
            short_conv(&meta, n_layer)?
        } else {
            let n = meta.optional_per_layer_size("attention.head_count_kv", MAX_WIDTH)?;
            (n.unwrap_or(n_head), None)
        };
        if !n_head.is_multiple_of(n_head_kv) {
            return Err(ModelError::Malformed(format!(
                "attention.head_count {n_head} is not a multiple of attention.head_count_kv {n_head_kv}"
            )));
        }
        let head_dim = head_dim(&meta, n_embd, n_head)?;
        let n_ctx_train = meta.size("context_length", MAX_CTX)?;
        let n_ctx = asked_ctx(n_ctx, n_ctx_train)?;
        let rope = Rope::from_metadata(&meta, head_dim, n_ctx, n_ctx_train)?;
        let config = Self {
            architecture: architecture.to_owned(),
            name: gguf.str("general.name").filter(|name| !name.is_empty()).unwrap_or(gguf.name()).to_owned(),
            quantization: quantization(gguf),
            n_params: gguf.tensors().map(|tensor| tensor.n_elements() as u64).sum(),
            n_vocab,
            n_ctx,
            n_ctx_train,
            n_layer,
            n_embd,
            n_head,
            n_head_kv,
            head_dim,
            n_ff: meta.per_layer_size("feed_forward_length", MAX_WIDTH)?,
            norm_eps: meta.positive("attention.layer_norm_rms_epsilon")?,
            activation: Activation::Silu,
            rope,
            no_rope_period: None,
            sliding_window: None,
            experts: meta.experts()?,
            short_conv,
            attention_scale: 1.0 / (head_dim as f32).sqrt(),
            attention_softcap: None,
            logit_softcap: None,
            embedding_scale: None,
            residual_scale: None,
            logit_scale: None,
        };
        config.specialised(&meta)
    }

    /// What the architectures do not share.
    fn specialised(mut self, meta: &Metadata<'_>) -> Result<Self, ModelError> {
        let window = meta.optional_size("attention.sliding_window", MAX_CTX)?.filter(|&window| window > 0);
        match self.architecture.as_str() {
            "gemma" | "gemma2" | "gemma3" => {
                self.activation = Activation::Gelu;
                self.embedding_scale = Some((self.n_embd as f32).sqrt());
                self.logit_softcap = meta.optional_positive("final_logit_softcapping")?;
                self.attention_softcap = meta.optional_positive("attn_logit_softcapping")?;
                // The 27B models, known by their depth, scale by the width per head instead of the head's width.
                let scales_by_width = match self.architecture.as_str() {
                    "gemma2" => self.n_layer == 46,
                    "gemma3" => self.n_layer == 62,
                    _ => false,
                };
                if scales_by_width {
                    self.attention_scale = 1.0 / ((self.n_embd / self.n_head) as f32).sqrt();
                }
                self.sliding_window = self.gemma_window(meta, window)?;
            }
            "phi3" => {
                self.sliding_window = window
                    .filter(|&window| window < self.n_ctx)
                    .map(|window| SlidingWindow { window, period: 0, rope: self.rope.clone() });
            }
            "smollm3" => self.no_rope_period = Some(4),
            "granite" => {
                self.embedding_scale = meta.optional_positive("embedding_scale")?;
                self.residual_scale = meta.optional_positive("residual_scale")?;
                self.logit_scale = meta.optional_positive("logit_scale")?.map(f32::recip);
                if let Some(scale) = meta.optional_positive("attention.scale")? {
                    self.attention_scale = scale;
                }
            }
            _ => {}
        }
        Ok(self)
    }

    fn gemma_window(
        &self,
        meta: &Metadata<'_>,
        window: Option<usize>,
    ) -> Result<Option<SlidingWindow>, ModelError> {
        match self.architecture.as_str() {
            // 4,096 where the file does not say: all models of this architecture have it.
            "gemma2" => {
                Ok(Some(SlidingWindow { window: window.unwrap_or(4096), period: 2, rope: self.rope.clone() }))
            }
            "gemma3" => {
                let Some(window) = window else { return Ok(None) };
                let base = meta.optional_positive("rope.freq_base_swa")?.unwrap_or(10_000.0);
                let rope = Rope::unscaled(self.rope.style, self.rope.n_dims, base);
                Ok(Some(SlidingWindow { window, period: 6, rope }))
            }
            _ => Ok(None),
        }
    }

    /// Bytes of keys and values that one position takes as 16-bit floats, all layers together.
    pub fn kv_bytes_per_token(&self) -> usize {
        let n_attending = (0..self.n_layer).filter(|&layer| !self.is_short_conv(layer)).count();
        2 * n_attending * self.n_head_kv * self.head_dim * size_of::<u16>()
    }

    /// Whether a layer mixes by a short convolution and keeps no keys and values.
    pub fn is_short_conv(&self, layer: usize) -> bool {
        self.short_conv.as_ref().is_some_and(|conv| conv.layers.get(layer) == Some(&true))
    }

    /// The window of a layer that sees only the newest positions.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.sliding_window.as_ref().filter(|sliding| sliding.windows(layer)).map(|sliding| sliding.window)
    }

    /// The rotary embedding of a layer, if it has one.
    pub fn layer_rope(&self, layer: usize) -> Option<&Rope> {
        if self.no_rope_period.is_some_and(|period| (layer + 1).is_multiple_of(period)) {
            return None;
        }
        match &self.sliding_window {
            Some(sliding) if sliding.windows(layer) => Some(&sliding.rope),
            _ => Some(&self.rope),
        }
    }
}

impl SlidingWindow {
    fn windows(&self, layer: usize) -> bool {
        self.period == 0 || !(layer + 1).is_multiple_of(self.period)
    }
}

fn supported_architecture(gguf: &Gguf) -> Result<&str, ModelError> {
    let architecture = gguf.architecture();
    if architecture.is_empty() {
        return Err(ModelError::Malformed("general.architecture is missing".into()));
    }
    if !SUPPORTED_ARCHITECTURES.contains(&architecture) {
        return Err(ModelError::Unsupported(format!(
            "architecture {:?}; supported are {}",
            architecture.chars().take(64).collect::<String>(),
            SUPPORTED_ARCHITECTURES.join(", ")
        )));
    }
    Ok(architecture)
}

/// Rows of the token embedding, which the vocabulary's lists must match.
fn check_vocabulary(gguf: &Gguf) -> Result<usize, ModelError> {
    let Some(embedding) = gguf.tensor("token_embd.weight") else {
        return Err(ModelError::Malformed("tensor token_embd.weight is missing: no weights to run".into()));
    };
    let n_vocab = embedding.n_rows();
    if u32::try_from(n_vocab).is_err() {
        return Err(ModelError::Malformed(format!("token_embd.weight has {n_vocab} rows, ids are 32-bit")));
    }
    for key in ["tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"] {
        let Some(len) = gguf.array(key).map(|array| array.len()) else { continue };
        if len != n_vocab {
            return Err(ModelError::Malformed(format!(
                "{key} has {len} entries, token_embd.weight has {n_vocab} rows"
            )));
        }
    }
    for (key, _) in gguf.metadata() {
        if !(key.starts_with("tokenizer.ggml.") && key.ends_with("_token_id")) {
            continue;
        }
        match gguf.u64(key) {
            Some(id) if id < n_vocab as u64 => {}
            Some(id) => {
                return Err(ModelError::Malformed(format!(
                    "{key}: {id}, the vocabulary has {n_vocab} entries"
                )));
            }
            None => return Err(ModelError::Malformed(format!("{key}: not a token id"))),
        }
    }
    Ok(n_vocab)
}

fn head_dim(meta: &Metadata<'_>, n_embd: usize, n_head: usize) -> Result<usize, ModelError> {
    let head_dim = match meta.optional_size("attention.key_length", MAX_WIDTH)? {
        Some(head_dim) => head_dim,
        None if n_embd.is_multiple_of(n_head) => n_embd / n_head,
        None => {
            return Err(ModelError::Malformed(format!(
                "attention.head_count {n_head} does not divide embedding_length {n_embd}"
            )));
        }
    };
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        return Err(ModelError::Malformed(format!("heads of width {head_dim}; it must be even and not 0")));
    }
    if head_dim.saturating_mul(n_head) > MAX_WIDTH {
        return Err(ModelError::Malformed(format!(
            "{n_head} heads of width {head_dim}, the limit is {MAX_WIDTH} together"
        )));
    }
    let value_length = meta.optional_size("attention.value_length", MAX_WIDTH)?.unwrap_or(head_dim);
    if value_length != head_dim {
        return Err(ModelError::Unsupported(format!(
            "attention.key_length {head_dim} and attention.value_length {value_length} differ"
        )));
    }
    Ok(head_dim)
}

/// Positions that a short convolution may see; real models have 3.
pub const MAX_TAPS: usize = 16;

/// Key heads of the layers that attend, and which layers do not: those that have none.
fn short_conv(meta: &Metadata<'_>, n_layer: usize) -> Result<(usize, Option<ShortConv>), ModelError> {
    let heads = meta.layer_sizes("attention.head_count_kv", MAX_WIDTH, n_layer)?;
    let Some(&n_head_kv) = heads.iter().find(|&&n| n > 0) else {
        return Err(ModelError::Malformed("attention.head_count_kv: 0 in every layer".into()));
    };
    if heads.iter().any(|&n| n != 0 && n != n_head_kv) {
        return Err(ModelError::Unsupported(
            "attention.head_count_kv differs between layers that attend".into(),
        ));
    }
    let n_taps = meta.size("shortconv.l_cache", MAX_TAPS)?;
    Ok((n_head_kv, Some(ShortConv { n_taps, layers: heads.iter().map(|&n| n == 0).collect() })))
}

fn asked_ctx(asked: Option<usize>, n_ctx_train: usize) -> Result<usize, ModelError> {
    match asked {
        None => Ok(n_ctx_train.min(DEFAULT_CTX)),
        Some(n_ctx @ 1..=MAX_CTX) => {
            if n_ctx > n_ctx_train {
                tracing::warn!(n_ctx, n_ctx_train, "more positions than the model was trained on");
            }
            Ok(n_ctx)
        }
        Some(n_ctx) => Err(ModelError::Unsupported(format!(
            "a context of {n_ctx} positions; 1 to {MAX_CTX} are possible"
        ))),
    }
}

/// Names of `general.file_type`, by number; empty where the format has retired one.
const FILE_TYPES: &[&str] = &[
    "F32", "F16", "Q4_0", "Q4_1", "", "", "", "Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L",
    "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS",
    "IQ1_S", "IQ4_NL", "IQ3_S", "IQ3_M", "IQ2_S", "IQ2_M", "IQ4_XS", "IQ1_M", "BF16",
];

/// What the file calls its quantization, else the type that holds most of its weights.
fn quantization(gguf: &Gguf) -> String {
    let named = gguf.u32("general.file_type").and_then(|number| FILE_TYPES.get(number as usize));
    if let Some(name) = named.filter(|name| !name.is_empty()) {
        return (*name).to_owned();
    }
    let mut totals: Vec<(TensorType, usize)> = Vec::new();
    for tensor in gguf.tensors() {
        match totals.iter_mut().find(|(tensor_type, _)| *tensor_type == tensor.tensor_type) {
            Some((_, total)) => *total += tensor.n_elements(),
            None => totals.push((tensor.tensor_type, tensor.n_elements())),
        }
    }
    totals.into_iter().max_by_key(|&(_, total)| total).map_or_else(String::new, |(name, _)| name.to_string())
}
