//! A person's own view of the store, and their chats.

use std::fmt;
use std::str::FromStr;

use super::StoreError;
use super::vault::DataKey;
use crate::domain::{ApiKeyId, Chat, ChatId, Invalid, Message, Role, SessionId, Title, User, UserId};

/// One person's rows and the key that reads them. Cloning is cheap. Whatever is asked of it, it answers about this
/// person only: an id of somebody else's row is [`StoreError::NotFound`].
#[derive(Clone)]
pub struct UserStore {}

/// A place in a list, to go on from; opaque text for programs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor(Vec<u8>);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl FromStr for Cursor {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::new("cursor", "must be a next_cursor as it was given");
        if s.is_empty() || s.len() > 64 || s.len() % 2 == 1 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        (0..s.len() / 2)
            .map(|i| u8::from_str_radix(&s[2 * i..2 * i + 2], 16).map_err(|_| bad()))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Which part of the chat list.
#[derive(Clone, Debug)]
pub struct ChatPage {
    /// How many; at most [`super::MAX_PAGE`].
    pub limit: usize,
    /// Go on from here; `None` = newest.
    pub cursor: Option<Cursor>,
    /// Whether archived chats are listed too.
    pub include_archived: bool,
}

/// Changes to a chat; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct ChatPatch {
    /// A new title.
    pub title: Option<Title>,
    /// Pin or unpin.
    pub pinned: Option<bool>,
    /// Archive or bring back.
    pub archived: Option<bool>,
}

impl UserStore {
    /// Whose.
    pub fn user_id(&self) -> UserId {
        todo!()
    }
    /// What they may do, as of when this was opened.
    pub fn role(&self) -> Role {
        todo!()
    }
    /// The session it was opened with; `None` with an API key.
    pub fn session_id(&self) -> Option<SessionId> {
        todo!()
    }
    /// The API key it was opened with; `None` with a session.
    pub fn api_key_id(&self) -> Option<ApiKeyId> {
        todo!()
    }
    /// For wrapping anew (password change, new session, new API key).
    pub fn data_key(&self) -> &DataKey {
        todo!()
    }
    /// The profile as it is now.
    pub fn user(&self) -> Result<User, StoreError> {
        todo!()
    }
    /// A page of chats, newest `updated_at` first, and where to go on.
    pub fn chats(&self, _page: &ChatPage) -> Result<(Vec<Chat>, Option<Cursor>), StoreError> {
        todo!()
    }
    /// The same, each with its newest `n_messages` messages (oldest first), from one snapshot.
    pub fn chats_with_messages(
        &self,
        _page: &ChatPage,
        _n_messages: usize,
    ) -> Result<(Vec<(Chat, Vec<Message>)>, Option<Cursor>), StoreError> {
        todo!()
    }
    /// One chat.
    pub fn chat(&self, _id: ChatId) -> Result<Chat, StoreError> {
        todo!()
    }
    /// Makes a chat; false and the stored chat if this person already has one with this id.
    pub fn create_chat(
        &self,
        _id: Option<ChatId>,
        _title: Option<Title>,
    ) -> Result<(Chat, bool), StoreError> {
        todo!()
    }
    /// Changes a chat. Its place in the list moves only with messages and titles.
    pub fn update_chat(&self, _id: ChatId, _patch: ChatPatch) -> Result<Chat, StoreError> {
        todo!()
    }
    /// Deletes a chat and its messages.
    pub fn delete_chat(&self, _id: ChatId) -> Result<(), StoreError> {
        todo!()
    }
}
