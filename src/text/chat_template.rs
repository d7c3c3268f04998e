//! Chats to prompts, by the model's own template.

use super::TextError;
use crate::model::gguf::Gguf;

/// Who says a turn.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Speaker {
    /// The persona and what the parent knows.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A written exchange shown to the model; only for templates that know it, see [`ChatTemplate::supports_example`].
    Example,
}

impl Speaker {
    /// The role's name in templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Example => "example",
        }
    }
}

/// One turn of a chat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Turn {
    /// Who.
    pub speaker: Speaker,
    /// What, as it was typed.
    pub content: String,
}

impl Turn {
    /// A turn.
    pub fn new(speaker: Speaker, content: impl Into<String>) -> Self {
        Self { speaker, content: content.into() }
    }
}

/// A rendered chat in which a person's words can be told from the template's.
#[derive(Clone, Debug)]
pub struct Rendered {
    marked: String,
    mark: Option<char>,
}

impl Rendered {
    pub(super) fn marked(&self) -> &str {
        &self.marked
    }
    pub(super) fn mark(&self) -> Option<char> {
        self.mark
    }
    /// The prompt, byte for byte as the template wrote it.
    pub fn text(&self) -> String {
        self.marked.clone()
    }
}

/// A model's chat template.
pub struct ChatTemplate {}

impl ChatTemplate {
    /// The file's own template, else ChatML if the vocabulary has its tokens, else a plain form (see
    /// [`ChatTemplate::origin`]).
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TextError> {
        let _ = gguf;
        todo!()
    }
    /// A template by its source and the texts of BOS and EOS.
    pub fn from_source(source: &str, bos: &str, eos: &str) -> Result<Self, TextError> {
        let _ = (source, bos, eos);
        todo!()
    }
    /// The prompt of these turns. A system turn that the template has no place for goes into the first user turn.
    pub fn render(&self, turns: &[Turn], add_generation_prompt: bool) -> Result<Rendered, TextError> {
        let _ = (turns, add_generation_prompt);
        todo!()
    }
    /// Whether the template writes system turns itself.
    pub fn supports_system(&self) -> bool {
        todo!()
    }
    /// Whether the template knows [`Speaker::Example`]; if not, such turns are refused.
    pub fn supports_example(&self) -> bool {
        todo!()
    }
    /// Where the template came from, one sentence for the log.
    pub fn origin(&self) -> &'static str {
        todo!()
    }
    /// Texts at which a generation must end because the template has no end token for a turn; mostly empty.
    pub fn stop_strings(&self) -> &[String] {
        todo!()
    }
}
