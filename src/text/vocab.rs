//! A model's tokenizer, built from its GGUF metadata alone.

use crate::model::TokenId;
use crate::model::gguf::Gguf;

use super::{Rendered, TextError};

/// Text to token ids and ids to bytes, as the model's maker meant it.
pub struct Tokenizer {}

impl Tokenizer {
    /// Reads `tokenizer.ggml.*`. An unknown model or pre-tokenizer is refused by name.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TextError> {
        let _ = gguf;
        todo!()
    }
    /// Ids of a plain text: control tokens typed in it stay text. With `add_special`, BOS and EOS as the model asks.
    pub fn encode_plain(&self, text: &str, add_special: bool) -> Result<Vec<TokenId>, TextError> {
        let _ = (text, add_special);
        todo!()
    }
    /// Ids of a rendered chat: control tokens only from the template's own text; BOS as the model asks, not doubled.
    pub fn encode_template(&self, rendered: &Rendered) -> Result<Vec<TokenId>, TextError> {
        let _ = rendered;
        todo!()
    }
    /// The raw bytes that a token stands for in output; empty for control tokens and ids outside the vocabulary.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        let _ = id;
        todo!()
    }
    /// Whether the token steers the model and is never shown.
    pub fn is_control(&self, id: TokenId) -> bool {
        let _ = id;
        todo!()
    }
    /// Whether the model says with this token that it is done.
    pub fn is_end_of_generation(&self, id: TokenId) -> bool {
        let _ = id;
        todo!()
    }
    /// The token that begins a text, if there is one.
    pub fn bos(&self) -> Option<TokenId> {
        todo!()
    }
    /// The token that ends a text, if there is one.
    pub fn eos(&self) -> Option<TokenId> {
        todo!()
    }
    /// How many tokens there are.
    pub fn n_vocab(&self) -> usize {
        todo!()
    }
}
