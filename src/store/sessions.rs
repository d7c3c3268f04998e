//! Who is signed in, which programs hold keys, and who is invited.

use super::chats::UserStore;
use super::vault::{ApiKey, DataKey, InviteCode, SessionToken};
use super::{Store, StoreError};
use crate::domain::{ApiKeyId, InviteId, Role, SessionId, Timestamp, UserId};

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

/// An invitation, without the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteInfo {
    /// Which; not secret.
    pub id: InviteId,
    /// What the invited will be.
    pub role: Role,
    /// Who invited; `None` = at the console.
    pub created_by: Option<UserId>,
    /// When.
    pub created_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
}

/// Word that a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionEnded {
    /// Whose.
    pub user: UserId,
    /// Which; `None` = every session and API key of theirs may have ended: check again.
    pub session: Option<SessionId>,
}

impl Store {
    /// Signs a device in: stores the token's hash and the data key wrapped by the token.
    pub fn create_session(
        &self,
        _user: UserId,
        _data_key: &DataKey,
        _token: &SessionToken,
        _label: &str,
    ) -> Result<Session, StoreError> {
        todo!()
    }
    /// The live sessions of a person, newest first.
    pub fn sessions(&self, _user: UserId) -> Result<Vec<Session>, StoreError> {
        todo!()
    }
    /// Ends one session of this person.
    pub fn end_session(&self, _user: UserId, _session: SessionId) -> Result<(), StoreError> {
        todo!()
    }
    /// Ends every session of this person but `except`.
    pub fn end_all_sessions(&self, _user: UserId, _except: Option<SessionId>) -> Result<(), StoreError> {
        todo!()
    }
    /// Stores a key's hash and the data key wrapped by the key.
    pub fn create_api_key(
        &self,
        _user: UserId,
        _data_key: &DataKey,
        _key: &ApiKey,
        _name: &str,
    ) -> Result<ApiKeyInfo, StoreError> {
        todo!()
    }
    /// A person's keys, oldest first.
    pub fn api_keys(&self, _user: UserId) -> Result<Vec<ApiKeyInfo>, StoreError> {
        todo!()
    }
    /// Ends one key of this person.
    pub fn delete_api_key(&self, _user: UserId, _key: ApiKeyId) -> Result<(), StoreError> {
        todo!()
    }
    /// Stores an invitation that lets one person in as `role`.
    pub fn create_invite(
        &self,
        _code: &InviteCode,
        _role: Role,
        _created_by: Option<UserId>,
    ) -> Result<InviteInfo, StoreError> {
        todo!()
    }
    /// Open invitations, oldest first.
    pub fn invites(&self) -> Result<Vec<InviteInfo>, StoreError> {
        todo!()
    }
    /// Whether this code would let somebody in now. [`Store::create_user`] uses it up.
    pub fn invite(&self, _code: &InviteCode) -> Result<Option<InviteInfo>, StoreError> {
        todo!()
    }
    /// Takes an invitation back.
    pub fn delete_invite(&self, _id: InviteId) -> Result<(), StoreError> {
        todo!()
    }
    /// The one way to a person's rows. `None` for a token that is unknown, ended or expired, or whose account is disabled.
    pub fn as_user(&self, _token: &SessionToken) -> Result<Option<UserStore>, StoreError> {
        todo!()
    }
    /// The same by an API key.
    pub fn as_user_by_key(&self, _key: &ApiKey) -> Result<Option<UserStore>, StoreError> {
        todo!()
    }
}
