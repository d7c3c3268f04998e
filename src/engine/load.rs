//! From files to what an engine runs: a model with its text, and the one that guesses for it.

use super::draft::same_vocabulary;
use super::{LoadError, Loaded, ModelSource};
use crate::model::gguf::Gguf;
use crate::model::{self, LoadOptions, Model, ModelConfig, ModelError};
use crate::text::{TextModel, Tokenizer};

/// Loads a model with what belongs to it.
pub(super) fn bring(gguf: &ModelSource, load: &LoadOptions) -> Result<Loaded, LoadError> {
    let gguf = open(gguf)?;
    let text = TextModel::from_gguf(&gguf)?;
    let (model, size_bytes) = (model::load(&gguf, load)?, gguf.size_bytes());
    Ok(Loaded { model, text, size_bytes, draft: None, no_draft: None })
}

fn open(gguf: &ModelSource) -> Result<Gguf, ModelError> {
    match gguf {
        ModelSource::Builtin(bytes) => Gguf::from_static("builtin", bytes),
        ModelSource::File(path) => Gguf::open(path),
    }
}

/// Loads the model that guesses for `loaded`.
pub(super) fn bring_draft(
    gguf: &ModelSource,
    load: &LoadOptions,
    loaded: &Loaded,
) -> Result<Box<dyn Model>, LoadError> {
    let gguf = open(gguf)?;
    let tokenizer = Tokenizer::from_gguf(&gguf)?;
    same_vocabulary(&loaded.text.tokenizer, &tokenizer).map_err(|why| {
        let name = gguf.name();
        ModelError::Unsupported(format!(
            "--draft {name}: {why}; a draft model must have the model's own vocabulary: take a smaller one of its family"
        ))
    })?;
    // What it reads is never longer than what the model reads.
    let n_ctx = loaded.model.config().n_ctx.min(ModelConfig::from_gguf(&gguf, None)?.n_ctx_train.max(1));
    Ok(model::load(&gguf, &LoadOptions { n_ctx: Some(n_ctx), ..load.clone() })?)
}

/// [`bring_draft`] for a model that answers without one too; why it has none is kept.
pub(super) fn draft_if_fit(gguf: &ModelSource, load: &LoadOptions, loaded: Loaded) -> Loaded {
    match bring_draft(gguf, load, &loaded) {
        Ok(draft) => Loaded { draft: Some(draft), ..loaded },
        Err(error) => {
            tracing::warn!(%error, "the new model answers without a draft model");
            Loaded { no_draft: Some(error.to_string()), ..loaded }
        }
    }
}
