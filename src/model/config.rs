//! Hyperparameters: what the metadata of a GGUF file says about the shape of the model, checked.

use super::ModelError;
use super::gguf::Gguf;

/// The shape of a model and the constants of its forward pass.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelConfig {
    /// `general.architecture`, one of [`super::SUPPORTED_ARCHITECTURES`].
    pub architecture: String,
    /// `general.name`, or the file's name where there is none.
    pub name: String,
    /// The type that most of the weights have, as the format spells it, with the mixture where the file tells it: `Q4_K_M`.
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
    /// Key and value heads.
    pub n_head_kv: usize,
    /// Width of one head.
    pub head_dim: usize,
}

impl ModelConfig {
    /// Reads and checks the metadata. `n_ctx` is what was asked for.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for an architecture that no runner has; [`ModelError::Malformed`] for a value that
    /// breaks a limit.
    pub fn from_gguf(_gguf: &Gguf, _n_ctx: Option<usize>) -> Result<Self, ModelError> {
        todo!()
    }

    /// Bytes of keys and values that one position takes, all layers together.
    pub fn kv_bytes_per_token(&self) -> usize {
        2 * self.n_layer * self.n_head_kv * self.head_dim * size_of::<f32>()
    }
}
