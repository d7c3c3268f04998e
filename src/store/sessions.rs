//! Who is signed in, and which programs hold keys.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::ReadableTable as _;

use super::chats::{Access, UserStore};
use super::codec::{GrantRow, hash32};
use super::queue::Hints;
use super::tables::{Prefix, Rows, Snapshot, Tables, key2};
use super::users::get_user;
use super::vault::{ApiKey, DataKey, SessionToken, unwrap, wrap};
use super::{Store, StoreError};
use crate::domain::{ApiKeyId, Invalid, Role, SessionId, Timestamp, UserId};

/// A sign-in on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Which; not secret.
    pub id: SessionId,
    /// What the device called itself.
    pub label: String,
    /// When it signed in.
    pub created_at: Timestamp,
    /// When it was last seen, to the day.
    pub last_seen_at: Timestamp,
    /// When it ends unless it is used before.
    pub expires_at: Timestamp,
}

/// An API key, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyInfo {
    /// Which; not secret.
    pub id: ApiKeyId,
    /// What its owner called it.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to the hour; `None` = never.
    pub last_used_at: Option<Timestamp>,
    /// False for a key that a restored backup brought back: it no longer opens anything.
    pub usable: bool,
}

/// Word that a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionEnded {
    /// Whose.
    pub user: UserId,
    /// Which; `None` = every session and API key of theirs may have ended: check again.
    pub session: Option<SessionId>,
}

/// A session ends this long after it was last seen: a season, so that a phone in a drawer stays signed in.
pub const SESSION_S: i64 = 90 * 24 * 3600;
/// How stale a session's `last_seen_at` may be: one write a day, not one a request.
const SESSION_TOUCH_S: i64 = 24 * 3600;
/// How stale a key's `last_used_at` may be.
const KEY_TOUCH_S: i64 = 3600;
/// Sessions kept per person; the one longest unseen makes room.
pub const MAX_SESSIONS: usize = 50;
/// API keys per person: more than anybody manages by hand.
pub const MAX_API_KEYS: usize = 50;
/// Longest label of a session or name of a key, in bytes; longer ones are cut.
pub const MAX_LABEL_BYTES: usize = 200;

/// Seconds from `then` to `now`; a `then` in the future (the clock was set back) counts as now.
fn age_s(now: Timestamp, then: Timestamp) -> i64 {
    (now.as_micros().saturating_sub(then.as_micros()) / 1_000_000).max(0)
}

/// Whether `then` lies so far from now, in either direction, that it should be noted anew. Noting it after the clock
/// was set back keeps a session seen "in ten years" from living that long.
fn is_stale(now: Timestamp, then: Timestamp, after_s: i64) -> bool {
    now.as_micros().abs_diff(then.as_micros()) / 1_000_000 > after_s.unsigned_abs()
}

fn is_expired(grant: &GrantRow, now: Timestamp) -> bool {
    age_s(now, grant.last_used_at) > SESSION_S
}

fn cut(label: &str) -> String {
    let end = (0..=label.len().min(MAX_LABEL_BYTES)).rev().find(|&i| label.is_char_boundary(i)).unwrap_or(0);
    label[..end].to_owned()
}

fn session_of(grant: &GrantRow) -> Session {
    Session {
        id: grant.session_id(),
        label: grant.label.clone(),
        created_at: grant.created_at,
        last_seen_at: grant.last_used_at,
        expires_at: grant.last_used_at.plus_seconds(SESSION_S),
    }
}

fn key_info_of(grant: &GrantRow, epoch: u64) -> ApiKeyInfo {
    ApiKeyInfo {
        id: grant.api_key_id(),
        name: grant.label.clone(),
        created_at: grant.created_at,
        last_used_at: grant.used.then_some(grant.last_used_at),
        usable: grant.epoch == epoch,
    }
}

const SESSIONS: &str = "sessions";
const API_KEYS: &str = "api_keys";

fn get_grant(rows: &impl Rows, table: &'static str, hash: &[u8]) -> Result<Option<GrantRow>, StoreError> {
    rows.get(hash)?.map(|row| GrantRow::decode(table, row.value())).transpose()
}

/// A person's sessions or keys with their hashes.
fn grants_of(
    index: &impl Rows,
    rows: &impl Rows,
    table: &'static str,
    user: UserId,
) -> Result<Vec<([u8; 32], GrantRow)>, StoreError> {
    let mut all = Vec::new();
    for entry in index.range::<&[u8]>(Prefix::of(user.as_bytes()).all())? {
        let hash = hash32(table, entry?.1.value())?;
        if let Some(grant) = get_grant(rows, table, &hash)? {
            all.push((hash, grant));
        }
    }
    Ok(all)
}

/// Removes a person's sessions but `keep`.
pub(super) fn remove_sessions(
    t: &mut Tables<'_>,
    user: UserId,
    keep: Option<SessionId>,
) -> Result<(), StoreError> {
    for (hash, grant) in grants_of(&t.sessions_by_user, &t.sessions, SESSIONS, user)? {
        if Some(grant.session_id()) != keep {
            t.sessions.remove(hash.as_slice())?;
            t.sessions_by_user.remove(key2(user, &grant.id).as_slice())?;
        }
    }
    Ok(())
}

/// Removes all of a person's API keys.
pub(super) fn remove_api_keys(t: &mut Tables<'_>, user: UserId) -> Result<(), StoreError> {
    for (hash, grant) in grants_of(&t.api_keys_by_user, &t.api_keys, API_KEYS, user)? {
        t.api_keys.remove(hash.as_slice())?;
        t.api_keys_by_user.remove(key2(user, &grant.id).as_slice())?;
    }
    Ok(())
}

/// Makes room for one more session: those that expired go, and of too many the ones longest unseen.
fn make_room(t: &mut Tables<'_>, user: UserId, now: Timestamp) -> Result<Vec<SessionId>, StoreError> {
    let mut all = grants_of(&t.sessions_by_user, &t.sessions, SESSIONS, user)?;
    all.sort_by_key(|(_, g)| std::cmp::Reverse(g.last_used_at));
    let mut gone = Vec::new();
    for (n, (hash, grant)) in all.iter().enumerate() {
        if n + 1 >= MAX_SESSIONS || is_expired(grant, now) {
            t.sessions.remove(hash.as_slice())?;
            t.sessions_by_user.remove(key2(user, &grant.id).as_slice())?;
            gone.push(grant.session_id());
        }
    }
    Ok(gone)
}

/// Sessions begun while the disk was full: signing in must not need room. They last until the next start.
#[derive(Default)]
pub(super) struct Unsaved(Mutex<HashMap<[u8; 32], GrantRow>>);

/// More would be somebody trying to fill the memory instead of the disk.
const MAX_UNSAVED: usize = 256;

impl Unsaved {
    fn all(&self) -> MutexGuard<'_, HashMap<[u8; 32], GrantRow>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn keep(&self, hash: [u8; 32], grant: GrantRow) -> Result<(), StoreError> {
        let mut all = self.all();
        if all.len() >= MAX_UNSAVED {
            return Err(StoreError::DiskFull);
        }
        all.insert(hash, grant);
        Ok(())
    }
    fn get(&self, hash: &[u8; 32]) -> Option<GrantRow> {
        self.all().get(hash).cloned()
    }
    /// Ends those of a person that `ends` names; true if there were any.
    pub(super) fn end(&self, user: UserId, ends: impl Fn(SessionId) -> bool) -> bool {
        let mut all = self.all();
        let before = all.len();
        all.retain(|_, g| g.user != user || !ends(g.session_id()));
        all.len() < before
    }
}

impl Store {
    /// Signs a device in: stores the token's hash and the data key wrapped by the token. On a full disk the session is
    /// kept in memory, and lasts until the next start.
    pub fn create_session(
        &self,
        user: UserId,
        data_key: &DataKey,
        token: &SessionToken,
        label: &str,
    ) -> Result<Session, StoreError> {
        let now = Timestamp::now();
        let grant = GrantRow {
            user,
            id: *SessionId::new().as_bytes(),
            epoch: self.inner.epoch,
            label: cut(label),
            created_at: now,
            last_used_at: now,
            used: true,
            wrapped: wrap(token, user, data_key),
        };
        let (hash, row, session) = (token.hash(), grant.encode(), session_of(&grant));
        let id = grant.id;
        let saved = self.write(Hints::default(), move |t| {
            need_enabled(&t.users, user)?;
            let gone = make_room(t, user, now)?;
            t.sessions.insert(hash.as_slice(), row.as_slice())?;
            t.sessions_by_user.insert(key2(user, &id).as_slice(), hash.as_slice())?;
            Ok(gone)
        });
        match saved {
            Ok(gone) => gone.into_iter().for_each(|session| self.ended(user, Some(session))),
            Err(StoreError::DiskFull) => {
                self.read(|s| need_enabled(&s.users()?, user))?;
                self.inner.unsaved.keep(hash, grant)?;
            }
            Err(e) => return Err(e),
        }
        Ok(session)
    }
    /// The live sessions of a person, newest first.
    pub fn sessions(&self, user: UserId) -> Result<Vec<Session>, StoreError> {
        let now = Timestamp::now();
        let mut all: Vec<Session> = self.read(|s| {
            let grants = grants_of(&s.sessions_by_user()?, &s.sessions()?, SESSIONS, user)?;
            let live = grants.iter().filter(|(_, g)| g.epoch == self.inner.epoch && !is_expired(g, now));
            Ok(live.map(|(_, g)| session_of(g)).collect())
        })?;
        all.extend(self.inner.unsaved.all().values().filter(|g| g.user == user).map(session_of));
        all.sort_by_key(|s| std::cmp::Reverse((s.created_at, s.id)));
        Ok(all)
    }
    /// Ends one session of this person.
    pub fn end_session(&self, user: UserId, session: SessionId) -> Result<(), StoreError> {
        if self.inner.unsaved.end(user, |id| id == session) {
            self.ended(user, Some(session));
            return Ok(());
        }
        self.write(Hints { weight: 0, frees_room: true }, move |t| {
            let key = key2(user, session.as_bytes());
            let hash = match t.sessions_by_user.get(key.as_slice())? {
                Some(hash) => hash32(SESSIONS, hash.value())?,
                None => return Err(StoreError::NotFound),
            };
            t.sessions.remove(hash.as_slice())?;
            t.sessions_by_user.remove(key.as_slice())?;
            Ok(())
        })?;
        self.ended(user, Some(session));
        Ok(())
    }
    /// Ends every session of this person but `except`.
    pub fn end_all_sessions(&self, user: UserId, except: Option<SessionId>) -> Result<(), StoreError> {
        self.inner.unsaved.end(user, |id| Some(id) != except);
        self.write(Hints { weight: 0, frees_room: true }, move |t| remove_sessions(t, user, except))?;
        self.ended(user, None);
        Ok(())
    }
    /// Stores a key's hash and the data key wrapped by the key.
    pub fn create_api_key(
        &self,
        user: UserId,
        data_key: &DataKey,
        key: &ApiKey,
        name: &str,
    ) -> Result<ApiKeyInfo, StoreError> {
        let now = Timestamp::now();
        let grant = GrantRow {
            user,
            id: *ApiKeyId::new().as_bytes(),
            epoch: self.inner.epoch,
            label: cut(name),
            created_at: now,
            last_used_at: now,
            used: false,
            wrapped: wrap(key, user, data_key),
        };
        let (hash, row, info) = (key.hash(), grant.encode(), key_info_of(&grant, self.inner.epoch));
        self.write(Hints::default(), move |t| {
            need_enabled(&t.users, user)?;
            if t.api_keys_by_user.range::<&[u8]>(Prefix::of(user.as_bytes()).all())?.count() >= MAX_API_KEYS {
                let problem = format!("you have {MAX_API_KEYS} keys already; delete one first");
                return Err(Invalid::new("name", problem).into());
            }
            t.api_keys.insert(hash.as_slice(), row.as_slice())?;
            t.api_keys_by_user.insert(key2(user, &grant.id).as_slice(), hash.as_slice())?;
            Ok(())
        })?;
        Ok(info)
    }
    /// A person's keys, oldest first.
    pub fn api_keys(&self, user: UserId) -> Result<Vec<ApiKeyInfo>, StoreError> {
        let mut all: Vec<ApiKeyInfo> = self.read(|s| {
            let grants = grants_of(&s.api_keys_by_user()?, &s.api_keys()?, API_KEYS, user)?;
            Ok(grants.iter().map(|(_, g)| key_info_of(g, self.inner.epoch)).collect())
        })?;
        all.sort_by_key(|k| (k.created_at, k.id));
        Ok(all)
    }
    /// Ends one key of this person. Watchers are told to check again.
    pub fn delete_api_key(&self, user: UserId, key: ApiKeyId) -> Result<(), StoreError> {
        self.write(Hints { weight: 0, frees_room: true }, move |t| {
            let place = key2(user, key.as_bytes());
            let hash = match t.api_keys_by_user.get(place.as_slice())? {
                Some(hash) => hash32(API_KEYS, hash.value())?,
                None => return Err(StoreError::NotFound),
            };
            t.api_keys.remove(hash.as_slice())?;
            t.api_keys_by_user.remove(place.as_slice())?;
            Ok(())
        })?;
        self.ended(user, None);
        Ok(())
    }
    /// The one way to a person's rows. `None` for a token that is unknown, ended or expired, or whose account is disabled.
    pub fn as_user(&self, token: &SessionToken) -> Result<Option<UserStore>, StoreError> {
        let (hash, now) = (token.hash(), Timestamp::now());
        let found = self.read(|s| match self.inner.unsaved.get(&hash) {
            Some(grant) => Self::with_role(s, grant),
            None => self.live_grant(s, SESSIONS, &s.sessions()?, &hash),
        })?;
        let Some((grant, role)) = found.filter(|(g, _)| !is_expired(g, now)) else { return Ok(None) };
        let key = unwrap(token, grant.user, &grant.wrapped)?;
        if is_stale(now, grant.last_used_at, SESSION_TOUCH_S) {
            self.inner.queue.write_later(move |t| {
                let touched = touch(&t.sessions, SESSIONS, &hash, now)?;
                touched.map_or(Ok(()), |row| {
                    t.sessions.insert(hash.as_slice(), row.as_slice()).map(drop).map_err(Into::into)
                })
            });
        }
        Ok(Some(UserStore::new(self.clone(), grant.user, role, Access::Session(grant.session_id()), key)))
    }
    /// The same by an API key.
    pub fn as_user_by_key(&self, key: &ApiKey) -> Result<Option<UserStore>, StoreError> {
        let (hash, now) = (key.hash(), Timestamp::now());
        let found = self.read(|s| self.live_grant(s, API_KEYS, &s.api_keys()?, &hash))?;
        let Some((grant, role)) = found else { return Ok(None) };
        let data_key = unwrap(key, grant.user, &grant.wrapped)?;
        if !grant.used || is_stale(now, grant.last_used_at, KEY_TOUCH_S) {
            self.inner.queue.write_later(move |t| {
                let touched = touch(&t.api_keys, API_KEYS, &hash, now)?;
                touched.map_or(Ok(()), |row| {
                    t.api_keys.insert(hash.as_slice(), row.as_slice()).map(drop).map_err(Into::into)
                })
            });
        }
        Ok(Some(UserStore::new(self.clone(), grant.user, role, Access::Key(grant.api_key_id()), data_key)))
    }
    /// The session or key under this hash, if it belongs to this life of the data directory and an enabled account.
    fn live_grant(
        &self,
        s: &Snapshot,
        table: &'static str,
        rows: &impl Rows,
        hash: &[u8; 32],
    ) -> Result<Option<(GrantRow, Role)>, StoreError> {
        let Some(grant) = get_grant(rows, table, hash)?.filter(|g| g.epoch == self.inner.epoch) else {
            return Ok(None);
        };
        Self::with_role(s, grant)
    }
    fn with_role(s: &Snapshot, grant: GrantRow) -> Result<Option<(GrantRow, Role)>, StoreError> {
        let user = get_user(&s.users()?, grant.user)?.filter(|u| !u.disabled);
        Ok(user.map(|u| (grant, u.role)))
    }
}

/// The row with its time of use noted, if it is still there.
fn touch(
    rows: &impl Rows,
    table: &'static str,
    hash: &[u8],
    now: Timestamp,
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(get_grant(rows, table, hash)?.map(|mut grant| {
        grant.last_used_at = now;
        grant.used = true;
        grant.encode()
    }))
}

/// A disabled or missing account gets nothing new.
fn need_enabled(users: &impl Rows, id: UserId) -> Result<(), StoreError> {
    match get_user(users, id)? {
        Some(user) if !user.disabled => Ok(()),
        _ => Err(StoreError::NotFound),
    }
}
