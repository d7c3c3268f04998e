//! Separates what a thinking model thinks from what it answers, while it streams.

/// A piece of streamed text, told apart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Split {
    /// Newly certain text of the thoughts.
    pub thought: String,
    /// Newly certain text of the answer.
    pub answer: String,
}

/// Splits `<think>...</think>` from the answer; tags may be cut anywhere by the stream.
#[derive(Debug)]
pub struct ThinkingSplitter {
    held: String,
}

impl ThinkingSplitter {
    /// `already_thinking`: the prompt itself ended with the opening tag.
    pub fn new(already_thinking: bool) -> Self {
        let _ = already_thinking;
        Self { held: String::new() }
    }
    /// Takes the next delta.
    pub fn push(&mut self, delta: &str) -> Split {
        self.held.push_str(delta);
        todo!()
    }
    /// What was held back as a possible tag.
    pub fn finish(self) -> Split {
        todo!()
    }
}
