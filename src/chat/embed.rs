//! Vectors of texts for programs; nothing of them is kept.

use std::sync::Arc;

use super::{ChatError, ChatService, READY_WAIT, blocking};
use crate::domain::Invalid;
use crate::engine::{EngineError, ModelInfo};

/// Vectors in the order of their texts, and what they cost.
pub struct Embedded {
    /// One per text, of length 1.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub n_tokens: usize,
    /// Which model made them.
    pub model: Arc<ModelInfo>,
}

impl ChatService {
    /// The mean of the model's last hidden states over each text, scaled to length 1, as such vectors are compared.
    ///
    /// # Errors
    /// [`ChatError::Invalid`] for a text that is empty or too long, and for a model that gives no vectors.
    pub async fn embed(&self, texts: Vec<String>) -> Result<Embedded, ChatError> {
        let engine = &self.0.engine;
        match tokio::time::timeout(READY_WAIT, engine.ready()).await {
            Ok(ready) => ready?,
            Err(_) => return Err(ChatError::NotReady),
        }
        let (Some(text), Some(model)) = (engine.text(), engine.model_info()) else {
            return Err(ChatError::NotReady);
        };
        let prompts = blocking(move || {
            let encode = |t: &String| text.tokenizer.encode_plain(t, true);
            let encoded: Result<Vec<_>, _> = texts.iter().map(encode).collect();
            encoded.map_err(|e| Invalid::new("input", e.to_string()).into())
        })
        .await?;
        let n_tokens = prompts.iter().map(Vec::len).sum();
        let mut vectors = Vec::new();
        // One after the other: a program with many texts leaves room between them.
        for prompt in prompts {
            let embedding = engine.embed(prompt).map_err(|e| match e {
                EngineError::Invalid(param) => Invalid::new(param.field, param.problem).into(),
                other => ChatError::from(other),
            })?;
            let vector = embedding.await.map_err(|_| ChatError::NotReady)?;
            let vector = vector.map_err(|e| Invalid::new("model", format!("gives no vectors: {e}")))?;
            vectors.push(unit(vector));
        }
        Ok(Embedded { vectors, n_tokens, model })
    }
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        for x in &mut vector {
            *x = (f64::from(*x) / length) as f32;
        }
    }
    vector
}
