//! Whether everything fits together: every row decodes, and every index equals a recount.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use redb::{ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, StorageBackend};

use super::codec::{ChatRow, GrantRow, InviteRow, MemoryRow, MessageRow, decode_place, hash32, id16};
use super::disk::DiskFile;
use super::open::{self, FILE_NAME};
use super::tables::{RoTable, Snapshot, key2, updated_key};
use super::users::{all_users, check_credentials};
use super::{Store, StoreError};
use crate::domain::{ChatId, UserId};

/// Problems listed at most: a broken index repeats itself.
const MAX_PROBLEMS: usize = 100;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Accounts.
    pub n_users: u64,
    /// Chats.
    pub n_chats: u64,
    /// Messages.
    pub n_messages: u64,
    /// Memories.
    pub n_memories: u64,
    /// Live and expired sessions.
    pub n_sessions: u64,
    /// API keys.
    pub n_api_keys: u64,
    /// What does not fit together, one sentence each; empty = all is well.
    pub problems: Vec<String>,
}

impl Store {
    /// Verifies that rows decode and that every index equals a recount.
    pub fn check(&self) -> Result<CheckReport, StoreError> {
        check_snapshot(&self.snapshot()?)
    }
}

/// Verifies every page's checksum and every row of the database in `dir`, without a running server and without
/// changing the file.
pub fn check(dir: &Path) -> Result<CheckReport, StoreError> {
    let _lock = open::lock_dir(dir)?;
    let path = dir.join(FILE_NAME);
    let file: Arc<dyn StorageBackend> =
        Arc::new(DiskFile::open_read_only(&path).map_err(|e| open::at(&path, &e))?);
    let handle = open::open_trial(&file, true)?;
    let report = check_snapshot(&Snapshot { txn: handle.db.begin_read()? });
    handle.trial.cut();
    report
}

struct Check<'a> {
    s: &'a Snapshot,
    people: HashSet<UserId>,
    /// Prefixes of keys that are being deleted; what stands under them counts no more.
    doomed: HashSet<Vec<u8>>,
    /// Messages that the chats say they hold.
    n_told: u64,
    report: CheckReport,
}

/// The recount over one snapshot.
pub(super) fn check_snapshot(s: &Snapshot) -> Result<CheckReport, StoreError> {
    let mut doomed = HashSet::new();
    for row in s.doomed()?.iter()? {
        doomed.insert(row?.0.value().to_vec());
    }
    let mut check = Check { s, people: HashSet::new(), doomed, n_told: 0, report: CheckReport::default() };
    check.people()?;
    check.chats()?;
    check.messages()?;
    check.rest()?;
    Ok(check.report)
}

impl Check<'_> {
    fn problem(&mut self, what: impl Into<String>) {
        if self.report.problems.len() < MAX_PROBLEMS {
            self.report.problems.push(what.into());
        }
    }
    fn is_doomed(&self, key: &[u8]) -> bool {
        [16, 32].into_iter().any(|n| key.get(..n).is_some_and(|prefix| self.doomed.contains(prefix)))
    }
    /// Notes a row that does not decode, and goes on.
    fn decoded<T>(&mut self, row: Result<T, StoreError>) -> Option<T> {
        match row {
            Ok(row) => Some(row),
            Err(e) => {
                self.problem(e.to_string());
                None
            }
        }
    }
    fn same_len(&mut self, a: &RoTable, b: &RoTable, what: &str) -> Result<(), StoreError> {
        let (n, m) = (a.len()?, b.len()?);
        if n != m {
            self.problem(format!("{what}: {n} rows but {m} places in the index"));
        }
        Ok(())
    }

    fn people(&mut self) -> Result<(), StoreError> {
        let (users, emails, credentials) = (self.s.users()?, self.s.emails()?, self.s.credentials()?);
        let all = all_users(&users)?;
        for user in &all {
            let id = user.id.as_bytes().as_slice();
            if emails.get(user.email.as_str().as_bytes())?.is_none_or(|v| v.value() != id) {
                self.problem(format!("the address of account {} does not lead to it", user.id));
            }
            match credentials.get(id)? {
                Some(row) => drop(self.decoded(check_credentials(row.value()))),
                None => self.problem(format!("account {} has no password", user.id)),
            }
        }
        self.report.n_users = all.len() as u64;
        self.people = all.into_iter().map(|u| u.id).collect();
        self.same_len(&users, &emails, "accounts")?;
        self.same_len(&users, &credentials, "passwords")
    }

    fn chats(&mut self) -> Result<(), StoreError> {
        let (chats, list) = (self.s.chats()?, self.s.chats_by_updated()?);
        let mut n_listed = 0;
        for entry in chats.iter()? {
            let (key, row) = entry?;
            let key = key.value();
            if self.is_doomed(key) {
                continue;
            }
            self.report.n_chats += 1;
            let Some(chat) = self.decoded(ChatRow::decode(row.value())) else { continue };
            self.n_told = self.n_told.saturating_add(chat.next_seq);
            let (Some(user), Some(id)) = (self.owner(key), key.get(16..)) else { continue };
            let place = updated_key(user, chat.updated_at, ChatId::from_bytes(id16("chats", id)?));
            match list.get(place.as_slice())? {
                Some(flags) if flags.value() == [u8::from(chat.archived)] => n_listed += 1,
                _ => self.problem("a chat is missing in its list, or stands there otherwise"),
            }
        }
        let mut n_places = 0;
        for entry in list.iter()? {
            n_places += u64::from(!self.is_doomed(entry?.0.value()));
        }
        if n_places != n_listed {
            self.problem(format!("the lists of chats have {n_places} places for {n_listed} chats"));
        }
        Ok(())
    }

    fn owner(&mut self, key: &[u8]) -> Option<UserId> {
        let user = key.get(..16).and_then(|k| id16("key", k).ok()).map(UserId::from_bytes);
        if user.is_none_or(|u| !self.people.contains(&u)) {
            self.problem("a row belongs to nobody");
            return None;
        }
        user
    }

    fn messages(&mut self) -> Result<(), StoreError> {
        let (messages, index, chats) = (self.s.messages()?, self.s.message_index()?, self.s.chats()?);
        let (mut of_chat, mut seen) = (Vec::new(), HashSet::new());
        let mut next_seq = 0;
        for entry in messages.iter()? {
            let (key, row) = entry?;
            let key = key.value();
            if self.is_doomed(key) {
                continue;
            }
            let (Some(chat_key), Some(seq)) = (key.get(..32), key.get(32..)) else {
                self.problem("a message has a key of the wrong length");
                continue;
            };
            if chat_key != of_chat.as_slice() {
                of_chat = chat_key.to_vec();
                seen.clear();
                next_seq = match chats.get(chat_key)? {
                    Some(row) => self.decoded(ChatRow::decode(row.value())).map_or(0, |c| c.next_seq),
                    None => 0,
                };
            }
            self.report.n_messages += 1;
            let Some(message) = self.decoded(MessageRow::decode(row.value())) else { continue };
            let seq = u64::from_be_bytes(seq.try_into().unwrap_or_default());
            if seq >= next_seq || seq != seen.len() as u64 {
                self.problem("a message stands at a place its chat does not have, or a place is left out");
            }
            if message.parent_id.is_some_and(|p| !seen.contains(&p)) {
                self.problem("a message answers one that is not there");
            }
            seen.insert(message.id);
            let Some(user) = self.owner(key) else { continue };
            let place = index.get(key2(user, message.id.as_bytes()).as_slice())?;
            let place = place.and_then(|v| decode_place(v.value()).ok());
            let chat = id16("messages", &chat_key[16..])?;
            if place != Some((ChatId::from_bytes(chat), seq)) {
                self.problem("a message is not found by its id");
            }
        }
        if self.n_told != self.report.n_messages {
            let (told, n) = (self.n_told, self.report.n_messages);
            self.problem(format!("the chats should hold {told} messages but hold {n}"));
        }
        let mut n_places = 0;
        for entry in index.iter()? {
            let (key, place) = entry?;
            let chat = place.value().get(..16).unwrap_or_default();
            let under = [key.value().get(..16).unwrap_or_default(), chat].concat();
            n_places += u64::from(!self.is_doomed(&under));
        }
        if n_places != self.report.n_messages {
            let n = self.report.n_messages;
            self.problem(format!("the index has {n_places} places for {n} messages"));
        }
        Ok(())
    }

    fn rest(&mut self) -> Result<(), StoreError> {
        for entry in self.s.memories()?.iter()? {
            let (key, row) = entry?;
            if self.is_doomed(key.value()) {
                continue;
            }
            self.report.n_memories += 1;
            self.decoded(MemoryRow::decode(row.value()));
            self.owner(key.value());
        }
        for entry in self.s.generating()?.iter()? {
            let (key, seq) = entry?;
            let place = [key.value().get(..32).unwrap_or_default(), &reversed(seq.value())].concat();
            let row = self.s.messages()?.get(place.as_slice())?.map(|row| MessageRow::decode(row.value()));
            match row {
                Some(Ok(row)) if row.finish_reason.is_none() => {}
                _ if self.is_doomed(key.value()) => {}
                _ => self.problem("a reply is marked as in progress but is not"),
            }
        }
        let (sessions, of_user) = (self.s.sessions()?, self.s.sessions_by_user()?);
        self.report.n_sessions = self.grants("sessions", &sessions, &of_user)?;
        let (keys, of_user) = (self.s.api_keys()?, self.s.api_keys_by_user()?);
        self.report.n_api_keys = self.grants("api_keys", &keys, &of_user)?;
        for entry in self.s.invites()?.iter()? {
            self.decoded(InviteRow::decode(entry?.1.value()));
        }
        Ok(())
    }

    fn grants(&mut self, name: &'static str, rows: &RoTable, index: &RoTable) -> Result<u64, StoreError> {
        let mut n = 0;
        for entry in rows.iter()? {
            let (hash, row) = entry?;
            n += 1;
            let Some(grant) = self.decoded(GrantRow::decode(name, row.value())) else { continue };
            let place = index.get(key2(grant.user, &grant.id).as_slice())?;
            if place.and_then(|v| hash32(name, v.value()).ok()).is_none_or(|h| h.as_slice() != hash.value()) {
                self.problem(format!("a row of {name} is not found by its owner"));
            }
            self.owner(grant.user.as_bytes());
        }
        self.same_len(rows, index, name)?;
        Ok(n)
    }
}

/// Numbers in values are little endian, in keys big endian.
fn reversed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}
