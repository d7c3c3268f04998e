//! Strings to token ids and back, and chats to prompts.
//!
//! `vocab` builds the tokenizer from a model file's own metadata, `detokenizer` turns a stream of ids into whole
//! UTF-8, `chat_template` renders turns with the model's own template, `thinking` separates a model's thoughts from its
//! answer, `tool_calls` the functions that it calls. What a person typed never becomes a control token: only the template's own words can.
//!
//! Nothing here knows forward passes, sampling, users or HTTP.

pub mod chat_template;
pub mod detokenizer;
pub mod thinking;
pub mod tool_calls;
pub mod vocab;

use std::sync::Arc;

pub use chat_template::{ChatTemplate, RenderOptions, Rendered, Speaker, ToolChat, Turn};
pub use detokenizer::Detokenizer;
pub use thinking::ThinkingSplitter;
pub use tool_calls::{ToolCall, ToolCallSplitter};
pub use vocab::Tokenizer;

use crate::model::TokenId;
use crate::model::gguf::Gguf;

/// Text that cannot become tokens, or a vocabulary or template that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The metadata of the vocabulary or template contradicts itself.
    #[error("not a usable vocabulary: {0}")]
    Malformed(String),
    /// Well-formed, but of a kind that is not known here; it is never guessed.
    #[error("unsupported vocabulary: {0}")]
    Unsupported(String),
    /// More text than one call takes.
    #[error("the text is {bytes} bytes long; the limit is {limit}")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The chat template does not parse, refused the messages, or broke a limit.
    #[error("chat template: {0}")]
    Template(String),
}

/// What a loaded model brings for text: its tokenizer and its chat template.
pub struct TextModel {
    /// Built from the file's vocabulary.
    pub tokenizer: Arc<Tokenizer>,
    /// The file's own, or a default.
    pub template: ChatTemplate,
}

impl TextModel {
    /// Reads both from a model file.
    ///
    /// # Errors
    /// What [`Tokenizer::from_gguf`] and [`ChatTemplate::from_gguf`] refuse.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TextError> {
        let tokenizer = Arc::new(Tokenizer::from_gguf(gguf)?);
        let template = ChatTemplate::for_vocabulary(gguf, &tokenizer)?;
        Ok(Self { tokenizer, template })
    }

    /// The prompt that asks the model for the next assistant turn.
    ///
    /// # Errors
    /// What [`ChatTemplate::render`] and [`Tokenizer::encode_template`] refuse.
    pub fn encode_chat(&self, turns: &[Turn]) -> Result<Vec<TokenId>, TextError> {
        self.tokenizer.encode_template(&self.template.render(turns, true)?)
    }

    /// How many tokens a text is, without BOS or EOS.
    ///
    /// # Errors
    /// What [`Tokenizer::encode_plain`] refuses.
    pub fn count(&self, text: &str) -> Result<usize, TextError> {
        Ok(self.tokenizer.encode_plain(text, false)?.len())
    }
}
