//! Finding words in one's own chats: decrypt and compare, because an index of words would give them away.

use super::StoreError;
use super::chats::UserStore;
use crate::domain::{ChatId, MessageId, Timestamp, Title};

/// A place where the words were found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SearchHit {
    /// In which chat.
    pub chat_id: ChatId,
    /// In which message; `None` = in the title.
    pub message_id: Option<MessageId>,
    /// The chat's title.
    pub title: Title,
    /// Some words around the place.
    pub snippet: String,
    /// When it was said.
    pub created_at: Timestamp,
}

impl UserStore {
    /// Titles and messages that contain `query`, whatever the case; newest chats first.
    pub fn search(&self, _query: &str, _limit: usize) -> Result<Vec<SearchHit>, StoreError> {
        todo!()
    }
}
