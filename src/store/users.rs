//! Accounts: profile, credentials, and what locks a person's data key.

use super::sessions::SessionEnded;
use super::vault::{DataKey, InviteCode, RecoveryCode, WrapKey};
use super::{Store, StoreError};
use crate::domain::{Email, Persona, Role, SessionId, User, UserId};

/// What is kept of a password: enough to check it, nothing to read it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordRecord {
    /// argon2id memory cost in KiB.
    pub m_cost: u32,
    /// argon2id passes.
    pub t_cost: u32,
    /// argon2id lanes.
    pub p_cost: u32,
    /// The salt.
    pub salt: [u8; 16],
    /// What a right password's hash derives to; compared in constant time by `auth`.
    pub verifier: [u8; 32],
}

impl std::fmt::Debug for PasswordRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordRecord(..)")
    }
}

/// What `auth` needs to check a password.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// How the password was hashed.
    pub password: PasswordRecord,
    /// May not sign in while true.
    pub disabled: bool,
}

/// How a new account is let in; decided again inside the transaction that makes it.
pub enum Admission {
    /// Anybody may join. On an empty store: becomes the admin.
    Open,
    /// Only as the very first account, the admin; otherwise `Conflict("setup_done")`.
    Setup,
    /// With an invitation, which is used up; `Conflict("invite_invalid")` if unknown, used or expired. It also says the role.
    Invite(InviteCode),
    /// Made by an admin or at the console, with this role (the first account is admin regardless).
    Granted(Role),
}

/// Everything that makes an account, in one transaction.
pub struct NewUser<'a> {
    /// Unique address.
    pub email: Email,
    /// Display name; may be empty.
    pub full_name: String,
    /// Which parent answers.
    pub persona: Persona,
    /// How they come in.
    pub admission: Admission,
    /// Checks the password.
    pub password: PasswordRecord,
    /// Derived from the password; wraps the data key.
    pub wrap_key: &'a WrapKey,
    /// Shown to the person once; wraps the data key too.
    pub recovery: &'a RecoveryCode,
    /// A fresh key for everything they will write.
    pub data_key: &'a DataKey,
}

/// Changes to a profile; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct UserPatch {
    /// New display name.
    pub full_name: Option<String>,
    /// New avatar; `Some(None)` takes it away.
    pub avatar_url: Option<Option<String>>,
    /// Another parent.
    pub persona: Option<Persona>,
}

impl Store {
    /// Every account, oldest first.
    pub fn users(&self) -> Result<Vec<User>, StoreError> {
        todo!()
    }
    /// One account.
    pub fn user(&self, _id: UserId) -> Result<Option<User>, StoreError> {
        todo!()
    }
    /// The account with this address.
    pub fn user_by_email(&self, _email: &Email) -> Result<Option<User>, StoreError> {
        todo!()
    }
    /// How to check this person's password.
    pub fn credentials(&self, _id: UserId) -> Result<Option<Credentials>, StoreError> {
        todo!()
    }
    /// Makes an account: profile, address index, credentials and wrapped keys, or nothing of it.
    /// `Conflict("email_taken")`, or as [`Admission`] says.
    pub fn create_user(&self, _new: NewUser<'_>) -> Result<User, StoreError> {
        todo!()
    }
    /// The data key, by the key derived from the password. [`StoreError::Locked`] if it is another's.
    pub fn unlock_with_password(&self, _id: UserId, _wrap_key: &WrapKey) -> Result<DataKey, StoreError> {
        todo!()
    }
    /// The data key, by the recovery code. [`StoreError::Locked`] if it is wrong.
    pub fn unlock_with_recovery(&self, _id: UserId, _code: &RecoveryCode) -> Result<DataKey, StoreError> {
        todo!()
    }
    /// Sets a new password (and a new recovery code where given), keeping what the person wrote. Every session except
    /// `keep` ends.
    pub fn set_password(
        &self,
        _id: UserId,
        _password: PasswordRecord,
        _wrap_key: &WrapKey,
        _recovery: Option<&RecoveryCode>,
        _data_key: &DataKey,
        _keep: Option<SessionId>,
    ) -> Result<(), StoreError> {
        todo!()
    }
    /// Sets a new password without the old data key: a fresh key takes its place, and everything the old one locked
    /// (chats, memories, API keys) is deleted. The caller has asked the person first.
    pub fn reset_password(
        &self,
        _id: UserId,
        _password: PasswordRecord,
        _wrap_key: &WrapKey,
        _recovery: &RecoveryCode,
        _data_key: &DataKey,
    ) -> Result<(), StoreError> {
        todo!()
    }
    /// Stores the same password hashed anew (stronger parameters); sessions go on.
    pub fn rehash_password(
        &self,
        _id: UserId,
        _password: PasswordRecord,
        _wrap_key: &WrapKey,
        _data_key: &DataKey,
    ) -> Result<(), StoreError> {
        todo!()
    }
    /// Changes what a person may do; their sessions end. `Conflict("last_admin")` keeps one enabled admin.
    pub fn set_role(&self, _id: UserId, _role: Role) -> Result<User, StoreError> {
        todo!()
    }
    /// Shuts an account out or lets it in again; sessions end. `Conflict("last_admin")` keeps one enabled admin.
    pub fn set_disabled(&self, _id: UserId, _disabled: bool) -> Result<User, StoreError> {
        todo!()
    }
    /// Deletes an account and everything of it. `Conflict("last_admin")` while other accounts remain.
    pub fn delete_user(&self, _id: UserId) -> Result<(), StoreError> {
        todo!()
    }
    /// Changes a profile.
    pub fn update_profile(&self, _id: UserId, _patch: UserPatch) -> Result<User, StoreError> {
        todo!()
    }
}

#[expect(dead_code, reason = "used once the bodies are in")]
fn ended(user: UserId) -> SessionEnded {
    SessionEnded { user, session: None }
}
