//! Facts the parent keeps about a person.

use redb::ReadableTable as _;

use super::chats::UserStore;
use super::codec::{MemoryRow, corrupt, id16};
use super::queue::Hints;
use super::tables::{Prefix, Tables, key2};
use super::{MAX_MEMORIES, MAX_MEMORY_BYTES, StoreError};
use crate::domain::{ChatId, Invalid, Memory, MemoryId, MessageId, Timestamp};

const MEMORIES: &str = "memories";

fn check_fact(content: &str) -> Result<(), Invalid> {
    if content.trim().is_empty() {
        return Err(Invalid::new("content", "must not be empty"));
    }
    if content.len() > MAX_MEMORY_BYTES {
        let problem = format!("is {} bytes long; the limit is {MAX_MEMORY_BYTES}", content.len());
        return Err(Invalid::new("content", problem));
    }
    Ok(())
}

impl UserStore {
    /// All of them, oldest first.
    pub fn memories(&self) -> Result<Vec<Memory>, StoreError> {
        let mut all = self.read(|s| {
            let rows = s.memories()?;
            let mine = Prefix::of(self.user.as_bytes());
            let all = rows.range::<&[u8]>(mine.all())?.map(|entry| {
                let (key, row) = entry?;
                self.memory_of(key.value(), row.value())
            });
            all.collect::<Result<Vec<_>, StoreError>>()
        })?;
        all.sort_by_key(|m| (m.created_at, m.id));
        Ok(all)
    }
    /// Keeps a fact. At most [`super::MAX_MEMORIES`] of [`super::MAX_MEMORY_BYTES`] each.
    pub fn add_memory(
        &self,
        content: &str,
        origin: Option<(ChatId, MessageId)>,
    ) -> Result<Memory, StoreError> {
        check_fact(content)?;
        let (id, content) = (MemoryId::new(), content.to_owned());
        self.write(content.len(), move |me, t| {
            me.check_room(t, 1)?;
            let now = Timestamp::now();
            me.put_memory(t, id, &content, origin, (now, now))
        })
    }
    /// Rewords a fact.
    pub fn update_memory(&self, id: MemoryId, content: &str) -> Result<Memory, StoreError> {
        check_fact(content)?;
        let content = content.to_owned();
        self.write(content.len(), move |me, t| {
            let old = match t.memories.get(key2(me.user, id.as_bytes()).as_slice())? {
                Some(row) => MemoryRow::decode(row.value())?,
                None => return Err(StoreError::NotFound),
            };
            me.put_memory(t, id, &content, old.origin, (old.created_at, Timestamp::now()))
        })
    }
    /// Forgets a fact.
    pub fn delete_memory(&self, id: MemoryId) -> Result<(), StoreError> {
        let key = key2(self.user, id.as_bytes());
        self.store.write(Hints { weight: 0, frees_room: true }, move |t| {
            t.memories.remove(key.as_slice())?.map(drop).ok_or(StoreError::NotFound)
        })
    }

    pub(super) fn check_room(&self, t: &Tables<'_>, n_more: usize) -> Result<(), StoreError> {
        let n = t.memories.range::<&[u8]>(Prefix::of(self.user.as_bytes()).all())?.count();
        if n + n_more > MAX_MEMORIES {
            return Err(Invalid::new(
                "content",
                format!("at most {MAX_MEMORIES} facts are kept; forget one first"),
            )
            .into());
        }
        Ok(())
    }
    pub(super) fn put_memory(
        &self,
        t: &mut Tables<'_>,
        id: MemoryId,
        content: &str,
        origin: Option<(ChatId, MessageId)>,
        (created_at, updated_at): (Timestamp, Timestamp),
    ) -> Result<Memory, StoreError> {
        let key = key2(self.user, id.as_bytes());
        let body = self.key.seal(MEMORIES, &key, content.as_bytes());
        let row = MemoryRow { origin, created_at, updated_at, body };
        t.memories.insert(key.as_slice(), row.encode().as_slice())?;
        Ok(Memory { id, content: content.to_owned(), origin, created_at, updated_at })
    }
    pub(super) fn memory_of(&self, key: &[u8], row: &[u8]) -> Result<Memory, StoreError> {
        let row = MemoryRow::decode(row)?;
        let content = self.key.open(MEMORIES, key, &row.body)?;
        Ok(Memory {
            id: MemoryId::from_bytes(id16(MEMORIES, key.get(16..).unwrap_or_default())?),
            content: String::from_utf8(content)
                .map_err(|_| corrupt(MEMORIES, "holds text that is not UTF-8"))?,
            origin: row.origin,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Whether a fact could be kept at all.
pub(super) fn check_facts<'a>(facts: impl Iterator<Item = &'a String>) -> Result<(), StoreError> {
    for fact in facts {
        check_fact(fact)?;
    }
    Ok(())
}
