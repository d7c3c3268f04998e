//! stub
use crate::domain::{Memory, MemoryId, Timestamp};
/// What a message changes about what is remembered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A new fact.
    Add(String),
    /// A fact has changed.
    Replace(MemoryId, String),
    /// A fact is to be forgotten.
    Forget(MemoryId),
}
/// Reads a message.
pub fn changes(_text: &str, _known: &[Memory], _now: Timestamp) -> Vec<Change> {
    Vec::new()
}
/// Whether a fact names a day that will be over.
pub fn is_plan(_content: &str) -> bool {
    false
}
