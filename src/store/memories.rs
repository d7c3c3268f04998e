//! Facts the parent keeps about a person.

use super::StoreError;
use super::chats::UserStore;
use crate::domain::{ChatId, Memory, MemoryId, MessageId};

impl UserStore {
    /// All of them, oldest first.
    pub fn memories(&self) -> Result<Vec<Memory>, StoreError> {
        todo!()
    }
    /// Keeps a fact. At most [`super::MAX_MEMORIES`] of [`super::MAX_MEMORY_BYTES`] each.
    pub fn add_memory(
        &self,
        _content: &str,
        _origin: Option<(ChatId, MessageId)>,
    ) -> Result<Memory, StoreError> {
        todo!()
    }
    /// Rewords a fact.
    pub fn update_memory(&self, _id: MemoryId, _content: &str) -> Result<Memory, StoreError> {
        todo!()
    }
    /// Forgets a fact.
    pub fn delete_memory(&self, _id: MemoryId) -> Result<(), StoreError> {
        todo!()
    }
}
