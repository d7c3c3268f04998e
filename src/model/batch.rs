//! What every runner asks of a batch before it begins.

use super::{Batch, ModelConfig, ModelError, SeqId};

/// Refuses a batch that cannot be computed, before anything changes. `len_of` is a live sequence's length.
pub(super) fn check(
    batch: &Batch<'_>,
    config: &ModelConfig,
    len_of: impl Fn(SeqId) -> Option<usize>,
) -> Result<(), ModelError> {
    let refuse = |text: String| Err(ModelError::Backend(text));
    for (i, chunk) in batch.iter().enumerate() {
        let Some(len) = len_of(chunk.seq) else {
            return refuse(format!("sequence {} does not exist", chunk.seq.0));
        };
        if batch[..i].iter().any(|earlier| earlier.seq == chunk.seq) {
            return refuse(format!("sequence {} stands twice in a batch", chunk.seq.0));
        }
        if chunk.tokens.is_empty() {
            return refuse(format!("sequence {} got no tokens", chunk.seq.0));
        }
        let (n, n_ctx) = (chunk.tokens.len(), config.n_ctx);
        if n > n_ctx - len {
            return refuse(format!("{n} tokens after {len} positions pass the context of {n_ctx}"));
        }
        if let Some(id) = chunk.tokens.iter().find(|&&id| id as usize >= config.n_vocab) {
            return refuse(format!("token {id}, the vocabulary has {}", config.n_vocab));
        }
    }
    Ok(())
}
