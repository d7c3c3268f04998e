//! Messages of many people at once: first durable together in a journal, then moved to their places.
//!
//! A message's place is a page of its own for every person, so a commit that puts 64 people's messages there rewrites
//! over 150 pages. When many messages wait together, the writer therefore stores them as one row of the journal (the
//! table `arrivals`), which is a few pages, and answers; what they mean for the other tables is kept here, in memory,
//! until the next write of another kind, a read by one of their authors, a quiet moment, or a limit moves them.
//!
//! The journal is the truth: what it holds is moved whenever a database is opened, and a handle that failed is opened
//! again. So nothing here has to survive anything.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use redb::ReadableTable as _;

use super::StoreError;
use super::codec::{ChatRow, Dec, Enc, MessageRow, decode_place, encode_place};
use super::tables::{RoTable, Rows, RwTable, Snapshot, Tables, key2, message_key, updated_key};
use crate::domain::{ChatId, Timestamp, UserId};

/// Fewest messages in one commit that take the way over the journal: for fewer, moving them is no dearer than both.
pub(super) const MANY: usize = 8;
/// Chats whose messages may wait in the journal: moving them must fit into the disk's reserve, and each chat costs
/// about four pages.
const MAX_CHATS: usize = 128;
/// Bytes of rows that may wait in the journal: moved within milliseconds, and within the disk's reserve too.
const MAX_BYTES: usize = 512 << 10;

/// A message and what it makes of its chat.
pub(super) struct Arrival {
    pub(super) user: UserId,
    pub(super) chat: ChatId,
    pub(super) seq: u64,
    pub(super) message: MessageRow,
    /// The chat as it is with the message.
    pub(super) row: ChatRow,
    /// Where the chat stood in the list before.
    pub(super) was_updated_at: Timestamp,
}

impl Arrival {
    fn encode(&self) -> Vec<u8> {
        Enc::v1()
            .fixed(self.user.as_bytes())
            .fixed(self.chat.as_bytes())
            .u64(self.seq)
            .time(self.was_updated_at)
            .bytes(&self.row.encode())
            .bytes(&self.message.encode())
            .done()
    }
    fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut d = Dec::v1("arrivals", row)?;
        let arrival = Self {
            user: UserId::from_bytes(d.array()?),
            chat: ChatId::from_bytes(d.array()?),
            seq: d.u64()?,
            was_updated_at: d.time()?,
            row: ChatRow::decode(d.bytes()?)?,
            message: MessageRow::decode(d.bytes()?)?,
        };
        d.done()?;
        Ok(arrival)
    }
}

/// What storing a message looks at and changes: the tables, or the journal over them.
pub(super) trait Ground {
    /// Whether the account is there.
    fn has_user(&self, user: UserId) -> Result<bool, StoreError>;
    /// A chat, by `user, chat`.
    fn chat(&self, key: &[u8; 32]) -> Result<Option<ChatRow>, StoreError>;
    /// A message's place, by `user, message`.
    fn place(&self, key: &[u8; 32]) -> Result<Option<(ChatId, u64)>, StoreError>;
    /// A message, by `user, chat, seq`.
    fn message(&self, key: &[u8; 40]) -> Result<Option<MessageRow>, StoreError>;
    /// Stores a message and its chat.
    fn put(&mut self, arrival: Arrival) -> Result<(), StoreError>;
}

fn chat_in(rows: &impl Rows, key: &[u8; 32]) -> Result<Option<ChatRow>, StoreError> {
    rows.get(key.as_slice())?.map(|v| ChatRow::decode(v.value())).transpose()
}
fn place_in(rows: &impl Rows, key: &[u8; 32]) -> Result<Option<(ChatId, u64)>, StoreError> {
    rows.get(key.as_slice())?.map(|v| decode_place(v.value())).transpose()
}
fn message_in(rows: &impl Rows, key: &[u8; 40]) -> Result<Option<MessageRow>, StoreError> {
    rows.get(key.as_slice())?.map(|v| MessageRow::decode(v.value())).transpose()
}

impl Ground for Tables<'_> {
    fn has_user(&self, user: UserId) -> Result<bool, StoreError> {
        Ok(self.users.get(user.as_bytes().as_slice())?.is_some())
    }
    fn chat(&self, key: &[u8; 32]) -> Result<Option<ChatRow>, StoreError> {
        chat_in(&self.chats, key)
    }
    fn place(&self, key: &[u8; 32]) -> Result<Option<(ChatId, u64)>, StoreError> {
        place_in(&self.message_index, key)
    }
    fn message(&self, key: &[u8; 40]) -> Result<Option<MessageRow>, StoreError> {
        message_in(&self.messages, key)
    }
    fn put(&mut self, a: Arrival) -> Result<(), StoreError> {
        put_chat(self, &key2(a.user, a.chat.as_bytes()), &a.row, a.was_updated_at)?;
        put_message(self, &message_key(a.user, a.chat, a.seq), &a.message)
    }
}

/// Stores a chat, and its place in the list instead of the one where it stood.
fn put_chat(
    t: &mut Tables<'_>,
    key: &[u8; 32],
    row: &ChatRow,
    stands_at: Timestamp,
) -> Result<(), StoreError> {
    let (user, chat) = (UserId::from_bytes(part(key, 0)), ChatId::from_bytes(part(key, 16)));
    t.chats.insert(key.as_slice(), row.encode().as_slice())?;
    if stands_at != row.updated_at {
        t.chats_by_updated.remove(updated_key(user, stands_at, chat).as_slice())?;
    }
    let place = updated_key(user, row.updated_at, chat);
    t.chats_by_updated.insert(place.as_slice(), [u8::from(row.archived)].as_slice())?;
    Ok(())
}

/// Stores a message, and its place in the index.
fn put_message(t: &mut Tables<'_>, key: &[u8; 40], row: &MessageRow) -> Result<(), StoreError> {
    let mut seq = [0; 8];
    seq.copy_from_slice(&key[32..]);
    let place = encode_place(ChatId::from_bytes(part(key, 16)), u64::from_be_bytes(seq));
    let id = key2(UserId::from_bytes(part(key, 0)), row.id.as_bytes());
    t.messages.insert(key.as_slice(), row.encode().as_slice())?;
    t.message_index.insert(id.as_slice(), place.as_slice())?;
    Ok(())
}

/// Messages that are durable in the journal of a database handle and not yet in their places.
#[derive(Default)]
pub(super) struct Pending {
    people: HashSet<UserId>,
    /// By `user, chat`: the chat, and where the table says it stands in the list.
    chats: HashMap<[u8; 32], (ChatRow, Timestamp)>,
    /// By `user, message`.
    places: HashMap<[u8; 32], (ChatId, u64)>,
    /// By `user, chat, seq`, in that order, because rows are moved the faster the nearer they lie.
    messages: BTreeMap<[u8; 40], MessageRow>,
    n_bytes: usize,
    n_batches: u64,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
    /// Whether messages of this person wait.
    pub(super) fn concerns(&self, user: UserId) -> bool {
        self.people.contains(&user)
    }
    /// Whether more should be moved before more comes.
    pub(super) fn is_full(&self) -> bool {
        self.chats.len() >= MAX_CHATS || self.n_bytes >= MAX_BYTES
    }
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn add(&mut self, a: Arrival) {
        let chat = key2(a.user, a.chat.as_bytes());
        self.people.insert(a.user);
        self.places.insert(key2(a.user, a.message.id.as_bytes()), (a.chat, a.seq));
        self.messages.insert(message_key(a.user, a.chat, a.seq), a.message);
        self.set_chat(chat, a.row, a.was_updated_at);
    }
    /// The table knows where the chat stood when the first of the waiting messages came.
    fn set_chat(&mut self, key: [u8; 32], row: ChatRow, stands_at: Timestamp) {
        match self.chats.entry(key) {
            Entry::Occupied(mut known) => known.get_mut().0 = row,
            Entry::Vacant(unknown) => drop(unknown.insert((row, stands_at))),
        }
    }

    /// Takes in a batch that has just become durable.
    pub(super) fn absorb(&mut self, batch: Batch) {
        self.people.extend(batch.new.people);
        self.places.extend(batch.new.places);
        self.messages.extend(batch.new.messages);
        for (key, (row, stands_at)) in batch.new.chats {
            self.set_chat(key, row, stands_at);
        }
        self.n_bytes += batch.row.len();
        self.n_batches += 1;
    }

    /// Puts every message and chat into its place and empties the journal, in the transaction of `t`.
    pub(super) fn move_all(&self, t: &mut Tables<'_>) -> Result<(), StoreError> {
        if self.is_empty() {
            return Ok(());
        }
        for (key, (row, stands_at)) in &self.chats {
            put_chat(t, key, row, *stands_at)?;
        }
        for (key, row) in &self.messages {
            put_message(t, key, row)?;
        }
        while t.arrivals.pop_first()?.is_some() {}
        Ok(())
    }
}

fn part(key: &[u8], at: usize) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&key[at..at + 16]);
    id
}

/// Messages that will become durable together.
pub(super) struct Batch {
    new: Pending,
    /// The journal's row.
    row: Vec<u8>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.new.is_empty()
    }
    pub(super) fn len(&self) -> usize {
        self.new.messages.len()
    }
    /// Writes the batch's row behind those that wait already.
    pub(super) fn write(&self, arrivals: &mut RwTable<'_>, pending: &Pending) -> Result<(), StoreError> {
        arrivals.insert(pending.n_batches.to_be_bytes().as_slice(), self.row.as_slice())?;
        Ok(())
    }
}

/// A batch being put together over what waits already and a snapshot of the tables.
pub(super) struct Arriving<'a> {
    users: RoTable,
    chats: RoTable,
    messages: RoTable,
    message_index: RoTable,
    pending: &'a Pending,
    new: Pending,
    row: Enc,
}

impl<'a> Arriving<'a> {
    pub(super) fn new(s: &Snapshot, pending: &'a Pending) -> Result<Self, StoreError> {
        Ok(Self {
            users: s.users()?,
            chats: s.chats()?,
            messages: s.messages()?,
            message_index: s.message_index()?,
            pending,
            new: Pending::default(),
            row: Enc::v1(),
        })
    }
    pub(super) fn done(self) -> Batch {
        Batch { new: self.new, row: self.row.done() }
    }
}

impl Ground for Arriving<'_> {
    fn has_user(&self, user: UserId) -> Result<bool, StoreError> {
        Ok(self.users.get(user.as_bytes().as_slice())?.is_some())
    }
    fn chat(&self, key: &[u8; 32]) -> Result<Option<ChatRow>, StoreError> {
        match self.new.chats.get(key).or_else(|| self.pending.chats.get(key)) {
            Some((row, _)) => Ok(Some(row.clone())),
            None => chat_in(&self.chats, key),
        }
    }
    fn place(&self, key: &[u8; 32]) -> Result<Option<(ChatId, u64)>, StoreError> {
        match self.new.places.get(key).or_else(|| self.pending.places.get(key)) {
            Some(place) => Ok(Some(*place)),
            None => place_in(&self.message_index, key),
        }
    }
    fn message(&self, key: &[u8; 40]) -> Result<Option<MessageRow>, StoreError> {
        match self.new.messages.get(key).or_else(|| self.pending.messages.get(key)) {
            Some(row) => Ok(Some(row.clone())),
            None => message_in(&self.messages, key),
        }
    }
    fn put(&mut self, arrival: Arrival) -> Result<(), StoreError> {
        self.row.push_bytes(&arrival.encode());
        self.new.add(arrival);
        Ok(())
    }
}

/// What the journal of a database holds.
pub(super) fn journal(s: &Snapshot) -> Result<Pending, StoreError> {
    let mut pending = Pending::default();
    for entry in s.arrivals()?.iter()? {
        let (_, row) = entry?;
        let mut d = Dec::v1("arrivals", row.value())?;
        while !d.is_done() {
            pending.add(Arrival::decode(d.bytes()?)?);
        }
    }
    Ok(pending)
}
