//! Embeddings: texts evaluated for what the model makes of them, between the steps of those who talk.

use std::sync::PoisonError;

use tokio::sync::oneshot;

use super::request::InvalidParam;
use super::scheduler::Scheduler;
use super::{Engine, EngineError, EngineState, lock};
use crate::model::{ModelError, TokenId};

/// Longest text in tokens: it is evaluated in one go, and everybody else waits for it.
pub const MAX_EMBED_TOKENS: usize = 512;
/// Texts that may wait: at a tenth of a second each, the last one waits for some seconds.
pub(super) const MAX_EMBEDS_WAITING: usize = 64;

/// A text that waits.
#[derive(Debug)]
pub(super) struct EmbedJob {
    tokens: Vec<TokenId>,
    answer: oneshot::Sender<Result<Vec<f32>, ModelError>>,
}

/// A vector to come; an error on the channel means that the engine is gone.
pub type Embedding = oneshot::Receiver<Result<Vec<f32>, ModelError>>;

impl Engine {
    /// Queues a text for the mean of the model's last hidden states over its tokens; never blocks.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for no or too many tokens, [`EngineError::Busy`] when too many texts wait.
    pub fn embed(&self, tokens: Vec<TokenId>) -> Result<Embedding, EngineError> {
        let info = self.model_info().filter(|_| self.state() == EngineState::Ready);
        let n_max = info.ok_or(EngineError::NotReady)?.n_ctx.min(MAX_EMBED_TOKENS);
        if tokens.is_empty() || tokens.len() > n_max {
            let problem = format!("each text must have 1 to {n_max} tokens, not {}", tokens.len());
            return Err(InvalidParam::new("input", problem).into());
        }
        let (answer, embedding) = oneshot::channel();
        lock(&self.shared.queue).push_embed(EmbedJob { tokens, answer })?;
        self.shared.work.notify_one();
        Ok(embedding)
    }
}

impl Scheduler<'_> {
    /// Evaluates the text that waits longest, if any; one between two steps.
    pub(super) fn embed_one(&mut self) {
        let job = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_embed();
        let Some(EmbedJob { tokens, answer }) = job else { return };
        if answer.is_closed() {
            return;
        }
        let vector = loop {
            match self.model.embed(&tokens) {
                Err(ModelError::TooLarge(why)) => match self.cache.evict(None) {
                    Some(seq) => self.model.free_sequence(seq),
                    None => break Err(ModelError::TooLarge(why)),
                },
                done => break done,
            }
        };
        // Who asked may have gone away.
        let _ = answer.send(vector);
    }
}
