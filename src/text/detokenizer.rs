//! A stream of token ids becomes a stream of whole UTF-8.

use std::sync::Arc;

use super::Tokenizer;
use crate::model::TokenId;

/// Holds back bytes until they are whole characters.
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
}

impl Detokenizer {
    /// A detokenizer at the start of a text that follows a prompt.
    pub fn new(tokenizer: &Arc<Tokenizer>) -> Self {
        Self { tokenizer: Arc::clone(tokenizer) }
    }
    /// The text that became certain with this token; often empty.
    pub fn push(&mut self, id: TokenId) -> String {
        let _ = (&self.tokenizer, id);
        todo!()
    }
    /// What is still held back, with U+FFFD for what never became a character.
    pub fn finish(self) -> String {
        todo!()
    }
}
