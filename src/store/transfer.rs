//! Taking everything out, and bringing chats in.

use super::StoreError;
use super::chats::UserStore;
use crate::domain::{Chat, ChatId, FinishReason, Memory, Message, MessageId, Timestamp, Title, User};

/// One row of an export.
#[derive(Clone, PartialEq, Debug)]
pub enum ExportItem {
    /// First: who.
    User(User),
    /// A chat; its messages follow.
    Chat(Chat),
    /// A message of the chat before it, in the order of storing.
    Message(Message),
    /// Last: the facts kept.
    Memory(Memory),
}

/// An export under way, over one snapshot. It ends with an error if it is held open for too long, because a snapshot
/// keeps the file from shrinking.
pub struct Export {}

impl Iterator for Export {
    type Item = Result<ExportItem, StoreError>;
    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}

/// Chats to bring in.
#[derive(Clone, Debug, Default)]
pub struct ImportTree {
    /// The chats.
    pub chats: Vec<ImportChat>,
    /// Facts to keep.
    pub memories: Vec<String>,
}

/// A chat to bring in.
#[derive(Clone, Debug)]
pub struct ImportChat {
    /// Its id where the file has one; a chat of this person with this id is left as it is and counted as skipped.
    pub id: Option<ChatId>,
    /// Its title.
    pub title: Title,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Pinned.
    pub pinned: bool,
    /// Archived.
    pub archived: bool,
    /// Its messages, parents before children.
    pub messages: Vec<ImportMessage>,
}

/// A message to bring in.
#[derive(Clone, Debug)]
pub struct ImportMessage {
    /// Its id where the file has one; a taken id is replaced by a fresh one.
    pub id: Option<MessageId>,
    /// Index of its parent among the chat's messages, smaller than its own; `None` = at the top.
    pub parent: Option<usize>,
    /// What was said.
    pub content: String,
    /// The person (true) or the parent (false).
    pub is_user: bool,
    /// When.
    pub created_at: Timestamp,
    /// Only of answers: how it ended; `None` counts as `stop`.
    pub finish_reason: Option<FinishReason>,
}

/// What an import did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ImportReport {
    /// Chats brought in.
    pub n_chats: usize,
    /// Messages brought in.
    pub n_messages: usize,
    /// Facts brought in.
    pub n_memories: usize,
    /// Chats left out because they were here already.
    pub n_skipped: usize,
}

impl UserStore {
    /// Everything of this person's.
    pub fn export(&self) -> Result<Export, StoreError> {
        todo!()
    }
    /// Brings chats in: all of them or none.
    pub fn import(&self, _tree: ImportTree) -> Result<ImportReport, StoreError> {
        todo!()
    }
}
