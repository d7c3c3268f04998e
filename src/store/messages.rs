//! Messages: a tree in each chat, kept in the order of their storing.

use super::StoreError;
use super::chats::{Cursor, UserStore};
use crate::domain::{Chat, ChatId, FinishReason, Message, MessageId, MessageText, Source, Timings};

/// Where a new message hangs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parent {
    /// Under the chat's newest message; first in an empty chat.
    Newest,
    /// At the top: a chat's first message, or a sibling of it.
    Root,
    /// Under this message of the same chat.
    Of(MessageId),
}

/// A person's message to be stored.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Made by the client, so that a retry is recognised.
    pub id: MessageId,
    /// Where it hangs.
    pub parent: Parent,
    /// What was said.
    pub content: MessageText,
    /// Kind of danger seen in it.
    pub safety: Option<String>,
}

/// What storing a message gave.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The stored message.
    pub message: Message,
    /// Its chat, with the new `updated_at` and perhaps the title.
    pub chat: Chat,
    /// False if this id was stored before with the same content.
    pub created: bool,
}

/// How a reply ended.
#[derive(Clone, Debug)]
pub struct ReplyEnd {
    /// The whole text.
    pub content: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// How fast it was.
    pub timings: Option<Timings>,
    /// Kind of danger seen.
    pub safety: Option<String>,
    /// Where it came from, if not from the model.
    pub source: Option<Source>,
    /// Older exchanges were left out of the prompt.
    pub truncated: bool,
}

/// Which part of a chat.
#[derive(Clone, Debug)]
pub struct MessagePage {
    /// How many; at most [`super::MAX_PAGE`].
    pub limit: usize,
    /// Only older than this; `None` = the newest.
    pub before: Option<Cursor>,
}

impl UserStore {
    /// Stores a person's message and moves its chat to the top, in one transaction; durable when it returns. The same
    /// id with the same content again changes nothing; with other content, or in another chat: `Conflict("id_taken")`.
    pub fn append_user_message(&self, _chat: ChatId, _new: NewMessage) -> Result<Appended, StoreError> {
        todo!()
    }
    /// Stores an empty reply under `parent` (a message of the same chat), so that a crash leaves a trace of it.
    pub fn begin_reply(
        &self,
        _chat: ChatId,
        _id: MessageId,
        _parent: MessageId,
    ) -> Result<Message, StoreError> {
        todo!()
    }
    /// Stores what a reply says so far. `Conflict("reply_ended")` after its end.
    pub fn checkpoint_reply(&self, _chat: ChatId, _id: MessageId, _content: &str) -> Result<(), StoreError> {
        todo!()
    }
    /// Stores a reply's end and moves its chat to the top, in one transaction. `Conflict("reply_ended")` if it ended before.
    pub fn finish_reply(
        &self,
        _chat: ChatId,
        _id: MessageId,
        _end: ReplyEnd,
    ) -> Result<(Message, Chat), StoreError> {
        todo!()
    }
    /// A page of messages, oldest first in the page, newest page first; and where older ones go on.
    pub fn messages(
        &self,
        _chat: ChatId,
        _page: &MessagePage,
    ) -> Result<(Vec<Message>, Option<Cursor>), StoreError> {
        todo!()
    }
    /// One message.
    pub fn message(&self, _chat: ChatId, _id: MessageId) -> Result<Message, StoreError> {
        todo!()
    }
    /// The message stored last in a chat.
    pub fn newest_message(&self, _chat: ChatId) -> Result<Option<Message>, StoreError> {
        todo!()
    }
    /// The way from the root to `leaf` along `parent_id`; of a longer way than `max`, the newest part.
    pub fn path(&self, _chat: ChatId, _leaf: MessageId, _max: usize) -> Result<Vec<Message>, StoreError> {
        todo!()
    }
}
