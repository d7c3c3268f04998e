//! Text for programs: the conversation comes whole with the request, no persona is added, nothing of it is kept.

use std::sync::Arc;

use super::{ChatError, ChatService, READY_WAIT, blocking, prompt};
use crate::domain::Invalid;
use crate::engine::{
    EngineError, GenerateRequest, Generation, InvalidParam, ModelInfo, Owner, SamplingParams,
};
use crate::store::UserStore;
use crate::text::TextError;

pub use crate::text::{Speaker, Turn};

/// What a program wants continued.
#[derive(Clone, Debug)]
pub enum Given {
    /// Turns, rendered with the model's own chat template.
    Chat(Vec<Turn>),
    /// Text, taken as it is.
    Text(String),
}

/// A program's request.
pub struct PlainRequest {
    /// What is to be continued.
    pub given: Given,
    /// Changes the model's usual sampling.
    pub sampling: Box<dyn FnOnce(&mut SamplingParams) + Send>,
    /// Strings that end the text.
    pub stop: Vec<String>,
    /// Most tokens to generate; `None` = what the context has left.
    pub max_tokens: Option<usize>,
}

/// What is running for a program.
pub struct PlainReply {
    /// Its events. Dropping it cancels.
    pub generation: Generation,
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Which model answers.
    pub model: Arc<ModelInfo>,
}

impl ChatService {
    /// Generates for a program. It shares the person's place in the queue.
    ///
    /// # Errors
    /// [`ChatError::Invalid`] names the field; [`ChatError::TooLong`] when the prompt leaves no room for an answer.
    pub async fn plain(&self, me: &UserStore, request: PlainRequest) -> Result<PlainReply, ChatError> {
        let engine = &self.0.engine;
        match tokio::time::timeout(READY_WAIT, engine.ready()).await {
            Ok(ready) => ready?,
            Err(_) => return Err(ChatError::NotReady),
        }
        let (Some(text), Some(model)) = (engine.text(), engine.model_info()) else {
            return Err(ChatError::NotReady);
        };
        let PlainRequest { given, sampling: change, mut stop, max_tokens } = request;
        let mut sampling = prompt::sampling(&text, model.n_ctx);
        change(&mut sampling);
        sampling.validate().map_err(|e| invalid(&e))?;
        if matches!(given, Given::Chat(_)) {
            stop.extend_from_slice(text.template.stop_strings());
        }
        let tokens = blocking(move || {
            let encoded = match given {
                Given::Chat(turns) => text.encode_chat(&turns),
                Given::Text(words) => text.tokenizer.encode_plain(&words, true),
            };
            encoded.map_err(|e| unreadable(&e))
        })
        .await?;
        let n_prompt = tokens.len();
        if n_prompt >= model.n_ctx {
            return Err(ChatError::TooLong { n_tokens: n_prompt, limit: model.n_ctx });
        }
        let room = model.n_ctx - n_prompt;
        let submitted = engine.submit(GenerateRequest {
            owner: Owner(u128::from_be_bytes(*me.user_id().as_bytes())),
            prompt: tokens,
            sampling,
            stop,
            max_tokens: max_tokens.map_or(room, |n| n.min(room)),
        });
        let generation = submitted.map_err(|e| match e {
            EngineError::Invalid(param) => invalid(&param),
            other => other.into(),
        })?;
        Ok(PlainReply { generation, n_prompt, model })
    }
}

fn invalid(param: &InvalidParam) -> ChatError {
    Invalid::new(param.field, param.problem.clone()).into()
}

fn unreadable(error: &TextError) -> ChatError {
    match error {
        TextError::TooLong { .. } | TextError::Template(_) => {
            Invalid::new("messages", error.to_string()).into()
        }
        TextError::Malformed(_) | TextError::Unsupported(_) => ChatError::Broken(error.to_string()),
    }
}
