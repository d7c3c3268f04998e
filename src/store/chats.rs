//! A person's own view of the store, and their chats.

use std::fmt;
use std::str::FromStr;

use redb::ReadableTable as _;

use super::arrivals::Ground;
use super::codec::{ChatRow, MessageRow, corrupt, id16};
use super::messages::MessagePage;
use super::queue::Hints;
use super::tables::{Prefix, Rows, Snapshot, Tables, key2, updated_key};
use super::vault::DataKey;
use super::{MAX_PAGE, Store, StoreError};
use crate::domain::{
    ApiKeyId, Chat, ChatId, Invalid, Message, Role, SessionId, Timestamp, Title, User, UserId,
};

/// One person's rows and the key that reads them. Cloning is cheap. Whatever is asked of it, it answers about this
/// person only: an id of somebody else's row is [`StoreError::NotFound`].
#[derive(Clone)]
pub struct UserStore {
    pub(super) store: Store,
    pub(super) user: UserId,
    role: Role,
    access: Access,
    pub(super) key: DataKey,
}

/// What opened a [`UserStore`].
#[derive(Clone, Copy)]
pub(super) enum Access {
    Session(SessionId),
    Key(ApiKeyId),
}

/// A place in a list, to go on from; opaque text for programs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor(pub(super) Vec<u8>);

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

/// A chat with its newest messages.
pub type FullChat = (Chat, Vec<Message>);

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
    pub(super) fn new(store: Store, user: UserId, role: Role, access: Access, key: DataKey) -> Self {
        Self { store, user, role, access, key }
    }
    /// Whose.
    pub fn user_id(&self) -> UserId {
        self.user
    }
    /// What they may do, as of when this was opened.
    pub fn role(&self) -> Role {
        self.role
    }
    /// The session it was opened with; `None` with an API key.
    pub fn session_id(&self) -> Option<SessionId> {
        if let Access::Session(id) = self.access { Some(id) } else { None }
    }
    /// The API key it was opened with; `None` with a session.
    pub fn api_key_id(&self) -> Option<ApiKeyId> {
        if let Access::Key(id) = self.access { Some(id) } else { None }
    }
    /// For wrapping anew (password change, new session, new API key).
    pub fn data_key(&self) -> &DataKey {
        &self.key
    }
    /// The profile as it is now.
    pub fn user(&self) -> Result<User, StoreError> {
        self.store.user(self.user)?.ok_or(StoreError::NotFound)
    }
    /// A page of chats, newest `updated_at` first, and where to go on.
    pub fn chats(&self, page: &ChatPage) -> Result<(Vec<Chat>, Option<Cursor>), StoreError> {
        self.read(|s| self.chat_page(s, page))
    }
    /// The same, each with its newest `n_messages` messages (oldest first), from one snapshot.
    pub fn chats_with_messages(
        &self,
        page: &ChatPage,
        n_messages: usize,
    ) -> Result<(Vec<FullChat>, Option<Cursor>), StoreError> {
        let newest = MessagePage { limit: n_messages, before: None };
        self.read(|s| {
            let (chats, next) = self.chat_page(s, page)?;
            let rows = s.messages()?;
            let full = chats.into_iter().map(|c| Ok((c.clone(), self.message_page(&rows, c.id, &newest)?.0)));
            Ok((full.collect::<Result<_, StoreError>>()?, next))
        })
    }
    /// One chat.
    pub fn chat(&self, id: ChatId) -> Result<Chat, StoreError> {
        self.read(|s| self.shown(id, &self.get_chat(&s.chats()?, id)?))
    }
    /// Makes a chat; false and the stored chat if this person already has one with this id.
    pub fn create_chat(&self, id: Option<ChatId>, title: Option<Title>) -> Result<(Chat, bool), StoreError> {
        let (id, titled) = (id.unwrap_or_else(ChatId::new), title.is_some());
        let title = title.unwrap_or_else(Title::untitled);
        let (row, created) = self.write(0, move |me, t| {
            match me.get_chat(&t.chats, id) {
                Ok(row) => return Ok((row, false)),
                Err(StoreError::NotFound) => {}
                Err(e) => return Err(e),
            }
            let key = key2(me.user, id.as_bytes());
            if t.doomed.get(key.as_slice())?.is_some() {
                return Err(StoreError::Conflict("id_taken"));
            }
            let now = Timestamp::now();
            let row = ChatRow {
                created_at: now,
                updated_at: now,
                pinned: false,
                archived: false,
                titled,
                next_seq: 0,
                title: me.seal_title(id, &title),
            };
            me.put_chat(t, id, None, &row)?;
            Ok((row, true))
        })?;
        Ok((self.shown(id, &row)?, created))
    }
    /// Changes a chat. Its place in the list moves only with messages and titles.
    pub fn update_chat(&self, id: ChatId, patch: ChatPatch) -> Result<Chat, StoreError> {
        let row = self.write(0, move |me, t| {
            let old = me.get_chat(&t.chats, id)?;
            let mut row = old.clone();
            row.pinned = patch.pinned.unwrap_or(row.pinned);
            row.archived = patch.archived.unwrap_or(row.archived);
            if let Some(title) = &patch.title {
                row.titled = true;
                row.title = me.seal_title(id, title);
                row.updated_at = Timestamp::now();
            }
            me.put_chat(t, id, Some(&old), &row)?;
            Ok(row)
        })?;
        self.shown(id, &row)
    }
    /// Deletes a chat and its messages.
    pub fn delete_chat(&self, id: ChatId) -> Result<(), StoreError> {
        let me = self.clone();
        self.store.write_and_purge(move |t| {
            let row = me.get_chat(&t.chats, id)?;
            remove_chat(t, me.user, id, &row)?;
            doom(t, &key2(me.user, id.as_bytes()))
        })?;
        self.store.inner.kv.forget_chat(self.user, id);
        Ok(())
    }

    /// A read of this person's, refused once the account is gone, even while its rows are still being cleared.
    pub(super) fn read<T>(&self, f: impl Fn(&Snapshot) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.store.inner.queue.settle(&self.store.inner.core, Some(self.user));
        self.store.read(|s| {
            if s.users()?.get(self.user.as_bytes().as_slice())?.is_none() {
                return Err(StoreError::NotFound);
            }
            f(s)
        })
    }
    /// A write of this person's, refused once the account is gone.
    pub(super) fn write<T: Send + 'static>(
        &self,
        weight: usize,
        mut op: impl FnMut(&UserStore, &mut Tables<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let me = self.clone();
        self.store.write(Hints { weight, frees_room: false }, move |t| {
            if t.users.get(me.user.as_bytes().as_slice())?.is_none() {
                return Err(StoreError::NotFound);
            }
            op(&me, t)
        })
    }
    /// A write of this person's that may go over the journal when many write.
    pub(super) fn write_arrival<T: Send + 'static>(
        &self,
        weight: usize,
        mut op: impl FnMut(&UserStore, &mut dyn Ground) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let me = self.clone();
        self.store.inner.queue.write_arrival(Hints { weight, frees_room: false }, move |ground| {
            if !ground.has_user(me.user)? {
                return Err(StoreError::NotFound);
            }
            op(&me, ground)
        })
    }
    pub(super) fn get_chat(&self, chats: &impl Rows, id: ChatId) -> Result<ChatRow, StoreError> {
        let row = chats.get(key2(self.user, id.as_bytes()).as_slice())?.ok_or(StoreError::NotFound)?;
        ChatRow::decode(row.value())
    }
    /// Stores a chat and its place in the list.
    pub(super) fn put_chat(
        &self,
        t: &mut Tables<'_>,
        id: ChatId,
        old: Option<&ChatRow>,
        new: &ChatRow,
    ) -> Result<(), StoreError> {
        t.chats.insert(key2(self.user, id.as_bytes()).as_slice(), new.encode().as_slice())?;
        if let Some(old) = old.filter(|old| old.updated_at != new.updated_at) {
            t.chats_by_updated.remove(updated_key(self.user, old.updated_at, id).as_slice())?;
        }
        let place = updated_key(self.user, new.updated_at, id);
        t.chats_by_updated.insert(place.as_slice(), [u8::from(new.archived)].as_slice())?;
        Ok(())
    }
    pub(super) fn seal_title(&self, id: ChatId, title: &Title) -> Vec<u8> {
        self.key.seal("chats", &key2(self.user, id.as_bytes()), title.as_str().as_bytes())
    }
    /// The chat as its owner sees it.
    pub(super) fn shown(&self, id: ChatId, row: &ChatRow) -> Result<Chat, StoreError> {
        let title = self.key.open("chats", &key2(self.user, id.as_bytes()), &row.title)?;
        let title = String::from_utf8(title).map_err(|_| corrupt("chats", "holds text that is not UTF-8"))?;
        Ok(Chat {
            id,
            user_id: self.user,
            title: Title::cut(&title),
            created_at: row.created_at,
            updated_at: row.updated_at,
            pinned: row.pinned,
            archived: row.archived,
        })
    }
    fn chat_page(&self, s: &Snapshot, page: &ChatPage) -> Result<(Vec<Chat>, Option<Cursor>), StoreError> {
        let limit = page.limit.clamp(1, MAX_PAGE);
        let (chats, list, mine) = (s.chats()?, s.chats_by_updated()?, Prefix::of(self.user.as_bytes()));
        let from: Option<Vec<u8>> = match &page.cursor {
            Some(Cursor(place)) if place.len() == 24 => {
                Some([self.user.as_bytes(), place.as_slice()].concat())
            }
            Some(_) => return Err(Invalid::new("cursor", "must be a next_cursor of the chat list").into()),
            None => None,
        };
        let bounds = from.as_deref().map_or_else(|| mine.all(), |key| mine.after(key));
        let (mut shown, mut last) = (Vec::new(), None);
        for entry in list.range::<&[u8]>(bounds)? {
            let (place, flags) = entry?;
            if flags.value() == [1] && !page.include_archived {
                continue;
            }
            if shown.len() == limit {
                return Ok((shown, last));
            }
            let place = place.value();
            let id = ChatId::from_bytes(id16("chats_by_updated", place.get(24..).unwrap_or_default())?);
            shown.push(self.shown(id, &self.get_chat(&chats, id)?)?);
            last = Some(Cursor(place[16..].to_vec()));
        }
        Ok((shown, None))
    }
}

/// How far a deletion got in its own transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purged {
    Wholly,
    /// The writer clears the rest, a chunk with each commit.
    Partly,
}

/// Rows that a deletion removes at once; what is more waits for the writer, so that nobody else's message does.
const PURGE_AT_ONCE: usize = 2000;

fn remove_chat(t: &mut Tables<'_>, user: UserId, id: ChatId, row: &ChatRow) -> Result<(), StoreError> {
    t.chats.remove(key2(user, id.as_bytes()).as_slice())?;
    t.chats_by_updated.remove(updated_key(user, row.updated_at, id).as_slice())?;
    Ok(())
}

/// Marks everything under a person's id, or under a person's chat, for removal, and begins with it. The mark is
/// durable, so that a crash only delays it.
pub(super) fn doom(t: &mut Tables<'_>, prefix: &[u8]) -> Result<Purged, StoreError> {
    t.doomed.insert(prefix, [].as_slice())?;
    if purge_prefix(t, prefix, PURGE_AT_ONCE)? < PURGE_AT_ONCE {
        t.doomed.remove(prefix)?;
        return Ok(Purged::Wholly);
    }
    Ok(Purged::Partly)
}

/// Deletes all chats and memories of a person who goes on writing: chat by chat, because new ones may come.
pub(super) fn doom_content(t: &mut Tables<'_>, user: UserId) -> Result<Purged, StoreError> {
    let mine = Prefix::of(user.as_bytes());
    let mut chats = Vec::new();
    for entry in t.chats.range::<&[u8]>(mine.all())? {
        let (key, row) = entry?;
        let id = ChatId::from_bytes(id16("chats", key.value().get(16..).unwrap_or_default())?);
        chats.push((id, ChatRow::decode(row.value())?));
    }
    for (id, row) in &chats {
        remove_chat(t, user, *id, row)?;
        t.doomed.insert(key2(user, id.as_bytes()).as_slice(), [].as_slice())?;
    }
    t.memories.retain_in::<&[u8], _>(mine.all(), |_, _| false)?;
    Ok(if chats.is_empty() { Purged::Wholly } else { Purged::Partly })
}

/// Removes up to `limit` rows of what is doomed; true if there is more.
pub(super) fn purge(t: &mut Tables<'_>, limit: usize) -> Result<bool, StoreError> {
    let mut left = limit;
    loop {
        let prefix = match t.doomed.first()? {
            Some((prefix, _)) => prefix.value().to_vec(),
            None => return Ok(false),
        };
        let n = purge_prefix(t, &prefix, left)?;
        if n == left {
            return Ok(true);
        }
        left -= n;
        t.doomed.remove(prefix.as_slice())?;
    }
}

/// Removes up to `limit` rows under a doomed prefix and returns how many; fewer than `limit` means all.
fn purge_prefix(t: &mut Tables<'_>, prefix: &[u8], limit: usize) -> Result<usize, StoreError> {
    let range = Prefix::of(prefix);
    let mut doomed = Vec::new();
    for entry in t.messages.range::<&[u8]>(range.all())?.take(limit) {
        let (key, row) = entry?;
        // A damaged row goes too; its place in the index, which only the row names, stays behind.
        doomed.push((key.value().to_vec(), MessageRow::decode(row.value()).map(|m| m.id).ok()));
    }
    for (key, id) in &doomed {
        t.messages.remove(key.as_slice())?;
        if let (Some(id), Some(user)) = (id, key.get(..16)) {
            t.message_index.remove([user, id.as_bytes().as_slice()].concat().as_slice())?;
        }
    }
    let mut n = doomed.len();
    // Under a chat there are messages and replies in progress; the other tables have no chat at that place.
    let whole_person = prefix.len() == 16;
    let mut tables = vec![&mut t.generating];
    if whole_person {
        tables.extend([&mut t.chats, &mut t.chats_by_updated, &mut t.memories, &mut t.message_index]);
    }
    for table in tables {
        let keys: Vec<Vec<u8>> = table
            .range::<&[u8]>(range.all())?
            .take(limit - n)
            .map(|entry| Ok(entry?.0.value().to_vec()))
            .collect::<Result<_, StoreError>>()?;
        for key in &keys {
            table.remove(key.as_slice())?;
        }
        n += keys.len();
    }
    Ok(n)
}
