//! Taking everything out, and bringing chats in.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use redb::ReadableTable as _;

use super::StoreError;
use super::chats::UserStore;
use super::codec::{ChatRow, MessageRow, encode_place, id16};
use super::memories::check_facts;
use super::messages::seal_body;
use super::tables::{Prefix, RoTable, Tables, key2, message_key};
use crate::domain::{
    Chat, ChatId, FinishReason, Invalid, MAX_MESSAGE_BYTES, Memory, MemoryId, Message, MessageId, Timestamp,
    Title, User,
};

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

/// Longest an export may stay open: it pins the pages of its snapshot, and the file grows meanwhile.
const EXPORT_LASTS: Duration = Duration::from_mins(10);
/// Chats of one import.
pub const MAX_IMPORT_CHATS: usize = 10_000;
/// Messages of one import: years of talking, in one transaction of about a second.
pub const MAX_IMPORT_MESSAGES: usize = 100_000;
/// Bytes of text of one import.
pub const MAX_IMPORT_BYTES: usize = 64 << 20;

type Range = redb::OwnedRange<&'static [u8], &'static [u8]>;

/// An export under way, over one snapshot. It ends with an error if it is held open for too long, because a snapshot
/// keeps the file from shrinking.
pub struct Export {
    me: UserStore,
    user: Option<User>,
    chats: Range,
    messages: RoTable,
    of_chat: Option<(ChatId, Range)>,
    memories: Range,
    until: Instant,
    over: bool,
}

impl Export {
    fn step(&mut self) -> Result<Option<ExportItem>, StoreError> {
        if Instant::now() > self.until {
            return Err(StoreError::Unhealthy("the export took too long; start it again".into()));
        }
        if let Some(user) = self.user.take() {
            return Ok(Some(ExportItem::User(user)));
        }
        if let Some((chat, rows)) = &mut self.of_chat {
            if let Some(row) = rows.next() {
                let (key, row) = row?;
                return self
                    .me
                    .message_of(*chat, key.value(), row.value())
                    .map(|m| Some(ExportItem::Message(m)));
            }
            self.of_chat = None;
        }
        if let Some(entry) = self.chats.next() {
            let (key, row) = entry?;
            let id = ChatId::from_bytes(id16("chats", key.value().get(16..).unwrap_or_default())?);
            self.of_chat = Some((id, self.messages.range_owned::<&[u8]>(Prefix::of(key.value()).all())?));
            return Ok(Some(ExportItem::Chat(self.me.shown(id, &ChatRow::decode(row.value())?)?)));
        }
        match self.memories.next() {
            Some(entry) => {
                let (key, row) = entry?;
                self.me.memory_of(key.value(), row.value()).map(|m| Some(ExportItem::Memory(m)))
            }
            None => Ok(None),
        }
    }
}

impl Iterator for Export {
    type Item = Result<ExportItem, StoreError>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let item = self.step().transpose();
        self.over = !matches!(item, Some(Ok(_)));
        item
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

/// A chat ready to be stored: everything but the check whether it is here already.
struct Prepared {
    id: ChatId,
    row: ChatRow,
    messages: Vec<MessageRow>,
}

fn check_limits(tree: &ImportTree) -> Result<(), StoreError> {
    let too_much = |what: String| Err(Invalid::new("chats", what).into());
    let n_messages: usize = tree.chats.iter().map(|c| c.messages.len()).sum();
    let n_bytes: usize = tree.chats.iter().flat_map(|c| &c.messages).map(|m| m.content.len()).sum();
    if tree.chats.len() > MAX_IMPORT_CHATS {
        return too_much(format!("holds {} chats; the limit is {MAX_IMPORT_CHATS}", tree.chats.len()));
    }
    if n_messages > MAX_IMPORT_MESSAGES {
        return too_much(format!("holds {n_messages} messages; the limit is {MAX_IMPORT_MESSAGES}"));
    }
    if n_bytes > MAX_IMPORT_BYTES {
        return too_much(format!("holds {n_bytes} bytes of text; the limit is {MAX_IMPORT_BYTES}"));
    }
    for (n, message) in tree.chats.iter().flat_map(|c| c.messages.iter().enumerate()) {
        if message.content.len() > MAX_MESSAGE_BYTES {
            return too_much(format!("holds a message of more than {MAX_MESSAGE_BYTES} bytes"));
        }
        if message.parent.is_some_and(|p| p >= n) {
            return too_much("holds a message that comes before its parent".into());
        }
    }
    check_facts(tree.memories.iter())
}

impl UserStore {
    /// Everything of this person's.
    pub fn export(&self) -> Result<Export, StoreError> {
        let (user, s) = (self.user()?, self.store.snapshot()?);
        let mine = Prefix::of(self.user.as_bytes());
        Ok(Export {
            me: self.clone(),
            user: Some(user),
            chats: s.chats()?.range_owned::<&[u8]>(mine.all())?,
            messages: s.messages()?,
            of_chat: None,
            memories: s.memories()?.range_owned::<&[u8]>(mine.all())?,
            until: Instant::now() + EXPORT_LASTS,
            over: false,
        })
    }
    /// Brings chats in: all of them or none.
    pub fn import(&self, tree: ImportTree) -> Result<ImportReport, StoreError> {
        check_limits(&tree)?;
        // Encrypted here, not in the transaction, which everybody waits for.
        let mut ids = HashSet::new();
        let chats: Vec<Prepared> = tree.chats.iter().map(|c| self.prepare(c, &mut ids)).collect();
        let weight = tree.chats.iter().flat_map(|c| &c.messages).map(|m| m.content.len()).sum();
        let memories = tree.memories;
        self.write(weight, move |me, t| {
            me.check_room(t, memories.len())?;
            let mut report = ImportReport { n_memories: memories.len(), ..ImportReport::default() };
            for chat in &chats {
                let key = key2(me.user, chat.id.as_bytes());
                if t.chats.get(key.as_slice())?.is_some() || t.doomed.get(key.as_slice())?.is_some() {
                    report.n_skipped += 1;
                    continue;
                }
                me.put_imported(t, chat)?;
                report.n_chats += 1;
                report.n_messages += chat.messages.len();
            }
            let now = Timestamp::now();
            for fact in &memories {
                me.put_memory(t, MemoryId::new(), fact, None, (now, now))?;
            }
            Ok(report)
        })
    }
    /// `ids` are those of the messages before: an id that comes twice is replaced.
    fn prepare(&self, chat: &ImportChat, ids: &mut HashSet<MessageId>) -> Prepared {
        let id = chat.id.unwrap_or_else(ChatId::new);
        let mut messages: Vec<MessageRow> = Vec::with_capacity(chat.messages.len());
        for (seq, m) in chat.messages.iter().enumerate() {
            messages.push(MessageRow {
                id: m.id.filter(|id| ids.insert(*id)).unwrap_or_else(MessageId::new),
                parent_id: m.parent.map(|p| messages[p].id),
                is_user: m.is_user,
                truncated: false,
                created_at: m.created_at,
                finish_reason: (!m.is_user).then(|| m.finish_reason.unwrap_or(FinishReason::Stop)),
                source: None,
                timings: None,
                body: seal_body(self, id, seq as u64, &m.content),
            });
        }
        let row = ChatRow {
            created_at: chat.created_at,
            updated_at: chat.updated_at,
            pinned: chat.pinned,
            archived: chat.archived,
            titled: true,
            next_seq: messages.len() as u64,
            title: self.seal_title(id, &chat.title),
        };
        Prepared { id, row, messages }
    }
    fn put_imported(&self, t: &mut Tables<'_>, chat: &Prepared) -> Result<(), StoreError> {
        self.put_chat(t, chat.id, None, &chat.row)?;
        let mut renamed: HashMap<MessageId, MessageId> = HashMap::new();
        for (seq, message) in (0u64..).zip(&chat.messages) {
            let mut row = message.clone();
            row.parent_id = row.parent_id.map(|p| *renamed.get(&p).unwrap_or(&p));
            if t.message_index.get(key2(self.user, row.id.as_bytes()).as_slice())?.is_some() {
                let fresh = MessageId::new();
                renamed.insert(row.id, fresh);
                row.id = fresh;
            }
            t.messages.insert(message_key(self.user, chat.id, seq).as_slice(), row.encode().as_slice())?;
            let place = encode_place(chat.id, seq);
            t.message_index.insert(key2(self.user, row.id.as_bytes()).as_slice(), place.as_slice())?;
        }
        Ok(())
    }
}
