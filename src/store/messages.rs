//! Messages: a tree in each chat, kept in the order of their storing.

use redb::ReadableTable as _;

use super::arrivals::{Arrival, Ground};
use super::chats::{Cursor, UserStore};
use super::codec::{ChatRow, MessageRow, corrupt, decode_place};
use super::tables::{Prefix, Rows, Tables, generating_key, key2, message_key};
use super::{MAX_PAGE, StoreError};
use crate::domain::{
    Chat, ChatId, FinishReason, Invalid, MAX_MESSAGE_BYTES, Message, MessageId, MessageText, Source,
    Timestamp, Timings, Title,
};

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

/// Longest kind of danger in bytes: one word, whose length is stored in a byte.
pub const MAX_SAFETY_BYTES: usize = 64;

/// What is sealed of a message: the kind of danger seen, behind its length, then the text.
fn plain_body(safety: Option<&str>, content: &str) -> Vec<u8> {
    let safety = safety.unwrap_or_default();
    let safety = if safety.len() <= MAX_SAFETY_BYTES { safety } else { "" };
    let mut plain = Vec::with_capacity(1 + safety.len() + content.len());
    plain.push(safety.len() as u8);
    plain.extend_from_slice(safety.as_bytes());
    plain.extend_from_slice(content.as_bytes());
    plain
}

fn read_body(mut plain: Vec<u8>) -> Result<(Option<String>, String), StoreError> {
    let bad = || corrupt("messages", "holds a body that cannot be read");
    let n = usize::from(*plain.first().ok_or_else(bad)?);
    if plain.len() <= n {
        return Err(bad());
    }
    let content = String::from_utf8(plain.split_off(1 + n)).map_err(|_| bad())?;
    let safety = String::from_utf8(plain.split_off(1)).map_err(|_| bad())?;
    Ok((Some(safety).filter(|s| !s.is_empty()), content))
}

fn check_content(content: &str) -> Result<(), StoreError> {
    if content.len() > MAX_MESSAGE_BYTES {
        let problem = format!("is {} bytes long; the limit is {MAX_MESSAGE_BYTES}", content.len());
        return Err(Invalid::new("content", problem).into());
    }
    Ok(())
}

/// A message and its place.
struct Placed {
    seq: u64,
    row: MessageRow,
}

impl UserStore {
    /// Stores a person's message and moves its chat to the top, in one transaction; durable when it returns. The same
    /// id with the same content again changes nothing; with other content, or in another chat: `Conflict("id_taken")`.
    pub fn append_user_message(&self, chat: ChatId, new: NewMessage) -> Result<Appended, StoreError> {
        let weight = new.content.as_str().len();
        let (placed, row, created) =
            self.write_arrival(weight, move |me, ground| me.append(ground, chat, &new))?;
        // Decrypted here and not in the transaction, which everybody waits for.
        Ok(Appended { message: self.shown_message(chat, &placed)?, chat: self.shown(chat, &row)?, created })
    }
    /// Stores an empty reply under `parent` (a message of the same chat), so that a crash leaves a trace of it. The
    /// same again, while it is still empty and unfinished, changes nothing.
    pub fn begin_reply(&self, chat: ChatId, id: MessageId, parent: MessageId) -> Result<Message, StoreError> {
        let placed = self.write(0, move |me, t| {
            let old = me.get_chat(&t.chats, chat)?;
            if let Some((there, seq)) = me.place(&t.message_index, id)? {
                let placed = me.get_message(&t.messages, there, seq)?;
                let row = &placed.row;
                if there != chat
                    || row.is_user
                    || row.parent_id != Some(parent)
                    || row.finish_reason.is_some()
                {
                    return Err(StoreError::Conflict("id_taken"));
                }
                return Ok(placed);
            }
            let parent_id = me.parent_id(t, chat, old.next_seq, Parent::Of(parent))?;
            let draft = Draft {
                id,
                parent_id,
                is_user: false,
                safety: None,
                content: "",
                created_at: Timestamp::now(),
            };
            let placed = me.place_message(t, chat, old.updated_at, old, &draft)?.0;
            t.generating
                .insert(generating_key(me.user, chat, id).as_slice(), placed.seq.to_le_bytes().as_slice())?;
            Ok(placed)
        })?;
        self.shown_message(chat, &placed)
    }
    /// Stores what a reply says so far. `Conflict("reply_ended")` after its end.
    pub fn checkpoint_reply(&self, chat: ChatId, id: MessageId, content: &str) -> Result<(), StoreError> {
        check_content(content)?;
        let content = content.to_owned();
        self.write(content.len(), move |me, t| {
            let mut placed = me.unfinished(t, chat, id)?;
            let key = message_key(me.user, chat, placed.seq);
            placed.row.body = me.key.seal(MESSAGES, &key, &plain_body(None, &content));
            t.messages.insert(key.as_slice(), placed.row.encode().as_slice())?;
            Ok(())
        })
    }
    /// Stores a reply's end and moves its chat to the top, in one transaction. `Conflict("reply_ended")` if it ended before.
    pub fn finish_reply(
        &self,
        chat: ChatId,
        id: MessageId,
        end: ReplyEnd,
    ) -> Result<(Message, Chat), StoreError> {
        check_content(&end.content)?;
        let (placed, row) = self.write(end.content.len(), move |me, t| {
            let mut placed = me.unfinished(t, chat, id)?;
            let old = me.get_chat(&t.chats, chat)?;
            let key = message_key(me.user, chat, placed.seq);
            placed.row.body = me.key.seal(MESSAGES, &key, &plain_body(end.safety.as_deref(), &end.content));
            placed.row.finish_reason = Some(end.finish_reason);
            placed.row.timings = end.timings;
            placed.row.source = end.source;
            placed.row.truncated = end.truncated;
            t.messages.insert(key.as_slice(), placed.row.encode().as_slice())?;
            t.generating.remove(generating_key(me.user, chat, id).as_slice())?;
            let row = ChatRow { updated_at: Timestamp::now(), ..old.clone() };
            me.put_chat(t, chat, Some(&old), &row)?;
            Ok((placed, row))
        })?;
        Ok((self.shown_message(chat, &placed)?, self.shown(chat, &row)?))
    }
    /// A page of messages, oldest first in the page, newest page first; and where older ones go on.
    pub fn messages(
        &self,
        chat: ChatId,
        page: &MessagePage,
    ) -> Result<(Vec<Message>, Option<Cursor>), StoreError> {
        self.read(|s| {
            self.get_chat(&s.chats()?, chat)?;
            self.message_page(&s.messages()?, chat, page)
        })
    }
    /// One message.
    pub fn message(&self, chat: ChatId, id: MessageId) -> Result<Message, StoreError> {
        self.read(|s| {
            self.get_chat(&s.chats()?, chat)?;
            let seq = self.seq_in(&s.message_index()?, chat, id)?;
            self.shown_message(chat, &self.get_message(&s.messages()?, chat, seq)?)
        })
    }
    /// The message stored last in a chat.
    pub fn newest_message(&self, chat: ChatId) -> Result<Option<Message>, StoreError> {
        Ok(self.messages(chat, &MessagePage { limit: 1, before: None })?.0.pop())
    }
    /// The way from the root to `leaf` along `parent_id`; of a longer way than `max`, the newest part.
    pub fn path(&self, chat: ChatId, leaf: MessageId, max: usize) -> Result<Vec<Message>, StoreError> {
        self.read(|s| {
            self.get_chat(&s.chats()?, chat)?;
            let (rows, index) = (s.messages()?, s.message_index()?);
            let (mut path, mut next, mut below) = (Vec::new(), Some(leaf), u64::MAX);
            while let Some(id) = next.filter(|_| path.len() < max) {
                let seq = self.seq_in(&index, chat, id)?;
                // A parent is always stored before its child, so a way that does not descend is damaged.
                if seq >= below {
                    return Err(corrupt(MESSAGES, "follows itself"));
                }
                below = seq;
                let placed = self.get_message(&rows, chat, seq)?;
                next = placed.row.parent_id;
                path.push(self.shown_message(chat, &placed)?);
            }
            path.reverse();
            Ok(path)
        })
    }

    pub(super) fn message_page(
        &self,
        rows: &impl Rows,
        chat: ChatId,
        page: &MessagePage,
    ) -> Result<(Vec<Message>, Option<Cursor>), StoreError> {
        let limit = page.limit.clamp(1, MAX_PAGE);
        let range = Prefix::of(&key2(self.user, chat.as_bytes()));
        let before = match &page.before {
            Some(Cursor(seq)) => {
                let seq: [u8; 8] = seq
                    .as_slice()
                    .try_into()
                    .map_err(|_| Invalid::new("before", "must be a next_cursor of a list of messages"))?;
                Some(message_key(self.user, chat, u64::from_be_bytes(seq)))
            }
            None => None,
        };
        let bounds = before.as_ref().map_or_else(|| range.all(), |key| range.before(key));
        let mut newest_first = rows.range::<&[u8]>(bounds)?.rev();
        let (mut shown, mut oldest) = (Vec::new(), 0);
        for entry in newest_first.by_ref().take(limit) {
            let (key, row) = entry?;
            oldest = seq_of(key.value())?;
            shown.push(
                self.shown_message(chat, &Placed { seq: oldest, row: MessageRow::decode(row.value())? })?,
            );
        }
        let more = newest_first.next().is_some();
        shown.reverse();
        Ok((shown, more.then(|| Cursor(oldest.to_be_bytes().to_vec()))))
    }

    /// Where this person's message stands.
    fn place(&self, index: &impl Rows, id: MessageId) -> Result<Option<(ChatId, u64)>, StoreError> {
        index.get(key2(self.user, id.as_bytes()).as_slice())?.map(|v| decode_place(v.value())).transpose()
    }
    fn seq_in(&self, index: &impl Rows, chat: ChatId, id: MessageId) -> Result<u64, StoreError> {
        let place = self.place(index, id)?.filter(|(there, _)| *there == chat);
        place.map(|(_, seq)| seq).ok_or(StoreError::NotFound)
    }
    fn get_message(&self, rows: &impl Rows, chat: ChatId, seq: u64) -> Result<Placed, StoreError> {
        let row = rows.get(message_key(self.user, chat, seq).as_slice())?;
        let row = row.ok_or_else(|| corrupt("message_index", "points at nothing"))?;
        Ok(Placed { seq, row: MessageRow::decode(row.value())? })
    }
    fn shown_message(&self, chat: ChatId, placed: &Placed) -> Result<Message, StoreError> {
        let row = &placed.row;
        let (safety, content) = self.read_body(chat, placed.seq, row)?;
        Ok(Message {
            id: row.id,
            chat_id: chat,
            parent_id: row.parent_id,
            content,
            is_user: row.is_user,
            created_at: row.created_at,
            finish_reason: row.finish_reason,
            timings: row.timings,
            safety,
            source: row.source,
            truncated: row.truncated,
        })
    }
    fn read_body(
        &self,
        chat: ChatId,
        seq: u64,
        row: &MessageRow,
    ) -> Result<(Option<String>, String), StoreError> {
        read_body(self.key.open(MESSAGES, &message_key(self.user, chat, seq), &row.body)?)
    }
    /// The message that a stored row shows.
    pub(super) fn message_of(&self, chat: ChatId, key: &[u8], row: &[u8]) -> Result<Message, StoreError> {
        self.shown_message(chat, &Placed { seq: seq_of(key)?, row: MessageRow::decode(row)? })
    }
    fn parent_id(
        &self,
        ground: &dyn Ground,
        chat: ChatId,
        next_seq: u64,
        parent: Parent,
    ) -> Result<Option<MessageId>, StoreError> {
        match parent {
            Parent::Root => Ok(None),
            Parent::Newest if next_seq == 0 => Ok(None),
            Parent::Newest => {
                let newest = ground.message(&message_key(self.user, chat, next_seq - 1))?;
                Ok(Some(newest.ok_or_else(|| corrupt("chats", "counts a message that is not there"))?.id))
            }
            Parent::Of(id) => match ground.place(&key2(self.user, id.as_bytes()))? {
                Some((there, _)) if there == chat => Ok(Some(id)),
                _ => Err(StoreError::NotFound),
            },
        }
    }
    /// Stores a person's message: its place, its chat, and whether it is new.
    fn append(
        &self,
        ground: &mut dyn Ground,
        chat: ChatId,
        new: &NewMessage,
    ) -> Result<(Placed, ChatRow, bool), StoreError> {
        let old = ground.chat(&key2(self.user, chat.as_bytes()))?.ok_or(StoreError::NotFound)?;
        if let Some((there, seq)) = ground.place(&key2(self.user, new.id.as_bytes()))? {
            let row = ground.message(&message_key(self.user, there, seq))?;
            let row = row.ok_or_else(|| corrupt("message_index", "points at nothing"))?;
            let (_, text) = self.read_body(there, seq, &row)?;
            let same_parent = match new.parent {
                Parent::Newest => true,
                Parent::Root => row.parent_id.is_none(),
                Parent::Of(p) => row.parent_id == Some(p),
            };
            if there != chat || !row.is_user || text != new.content.as_str() || !same_parent {
                return Err(StoreError::Conflict("id_taken"));
            }
            return Ok((Placed { seq, row }, old, false));
        }
        let draft = Draft {
            id: new.id,
            parent_id: self.parent_id(ground, chat, old.next_seq, new.parent)?,
            is_user: true,
            safety: new.safety.as_deref(),
            content: new.content.as_str(),
            created_at: Timestamp::now(),
        };
        let was_updated_at = old.updated_at;
        let mut row = ChatRow { updated_at: draft.created_at, ..old };
        if !row.titled {
            row.titled = true;
            row.title = self.seal_title(chat, &Title::cut(draft.content));
        }
        let (placed, row) = self.place_message(ground, chat, was_updated_at, row, &draft)?;
        Ok((placed, row, true))
    }
    /// Stores a new message at the chat's next place, and the chat.
    fn place_message(
        &self,
        ground: &mut dyn Ground,
        chat: ChatId,
        was_updated_at: Timestamp,
        mut row: ChatRow,
        draft: &Draft<'_>,
    ) -> Result<(Placed, ChatRow), StoreError> {
        let seq = row.next_seq;
        row.next_seq += 1;
        let key = message_key(self.user, chat, seq);
        let message = MessageRow {
            id: draft.id,
            parent_id: draft.parent_id,
            is_user: draft.is_user,
            truncated: false,
            created_at: draft.created_at,
            finish_reason: None,
            source: None,
            timings: None,
            body: self.key.seal(MESSAGES, &key, &plain_body(draft.safety, draft.content)),
        };
        let arrival = Arrival {
            user: self.user,
            chat,
            seq,
            message: message.clone(),
            row: row.clone(),
            was_updated_at,
        };
        ground.put(arrival)?;
        Ok((Placed { seq, row: message }, row))
    }
    /// A reply that is still being written.
    fn unfinished(&self, t: &Tables<'_>, chat: ChatId, id: MessageId) -> Result<Placed, StoreError> {
        self.get_chat(&t.chats, chat)?;
        let seq = self.seq_in(&t.message_index, chat, id)?;
        let placed = self.get_message(&t.messages, chat, seq)?;
        if placed.row.is_user || placed.row.finish_reason.is_some() {
            return Err(StoreError::Conflict("reply_ended"));
        }
        Ok(placed)
    }
}

struct Draft<'a> {
    id: MessageId,
    parent_id: Option<MessageId>,
    is_user: bool,
    safety: Option<&'a str>,
    content: &'a str,
    created_at: Timestamp,
}

const MESSAGES: &str = "messages";

/// Seals a message's text for a place known beforehand.
pub(super) fn seal_body(me: &UserStore, chat: ChatId, seq: u64, content: &str) -> Vec<u8> {
    me.key.seal(MESSAGES, &message_key(me.user, chat, seq), &plain_body(None, content))
}

fn seq_of(key: &[u8]) -> Result<u64, StoreError> {
    let seq = key.get(32..).and_then(|s| s.try_into().ok());
    seq.map(u64::from_be_bytes).ok_or_else(|| corrupt(MESSAGES, "has a key of the wrong length"))
}

/// Gives every reply that was being written when the program died its end: `error`, with the text of its last
/// checkpoint. Needs no data key. Returns how many.
pub(super) fn close_interrupted(t: &mut Tables<'_>) -> Result<usize, StoreError> {
    let mut open = Vec::new();
    for entry in t.generating.iter()? {
        let (key, seq) = entry?;
        open.push((key.value().to_vec(), seq.value().to_vec()));
    }
    for (key, seq) in &open {
        let seq: [u8; 8] =
            seq.as_slice().try_into().map_err(|_| corrupt("generating", "has the wrong length"))?;
        let chat = key.get(..32).ok_or_else(|| corrupt("generating", "has a key of the wrong length"))?;
        let place = [chat, u64::from_le_bytes(seq).to_be_bytes().as_slice()].concat();
        let ended = match t.messages.get(place.as_slice())? {
            Some(row) => {
                let row = MessageRow::decode(row.value())?;
                (row.finish_reason.is_none() && !row.is_user)
                    .then(|| MessageRow { finish_reason: Some(FinishReason::Error), ..row }.encode())
            }
            None => None,
        };
        if let Some(row) = ended {
            t.messages.insert(place.as_slice(), row.as_slice())?;
        }
        t.generating.remove(key.as_slice())?;
    }
    Ok(open.len())
}
