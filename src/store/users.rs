//! Accounts: profile, credentials, and what locks a person's data key.

use std::sync::atomic::Ordering;

use redb::{ReadableTable as _, ReadableTableMetadata as _};

use super::chats::Purged;
use super::codec::{Dec, Enc, decode_user, encode_user, id16};
use super::queue::Hints;
use super::tables::{Rows, Tables};
use super::vault::{DataKey, InviteCode, RecoveryCode, WRAPPED_BYTES, WrapKey, unwrap, wrap};
use super::{Store, StoreError};
use crate::domain::{Email, Persona, Role, SessionId, Timestamp, User, UserId};

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

/// What is stored of a person's credentials.
struct CredentialsRow {
    password: PasswordRecord,
    by_password: [u8; WRAPPED_BYTES],
    by_recovery: [u8; WRAPPED_BYTES],
}

impl CredentialsRow {
    fn encode(&self) -> Vec<u8> {
        let p = &self.password;
        Enc::v1()
            .u32(p.m_cost)
            .u32(p.t_cost)
            .u32(p.p_cost)
            .fixed(&p.salt)
            .fixed(&p.verifier)
            .fixed(&self.by_password)
            .fixed(&self.by_recovery)
            .done()
    }
    fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut d = Dec::v1("credentials", row)?;
        let password = PasswordRecord {
            m_cost: d.u32()?,
            t_cost: d.u32()?,
            p_cost: d.u32()?,
            salt: d.array()?,
            verifier: d.array()?,
        };
        let row = Self { password, by_password: d.array()?, by_recovery: d.array()? };
        d.done()?;
        Ok(row)
    }
}

/// Verifies that a credentials row decodes.
pub(super) fn check_credentials(row: &[u8]) -> Result<(), StoreError> {
    CredentialsRow::decode(row).map(drop)
}

/// The profile row.
pub(super) fn get_user(users: &impl Rows, id: UserId) -> Result<Option<User>, StoreError> {
    users.get(id.as_bytes().as_slice())?.map(|row| decode_user(id, row.value())).transpose()
}

fn need_user(users: &impl Rows, id: UserId) -> Result<User, StoreError> {
    get_user(users, id)?.ok_or(StoreError::NotFound)
}

fn get_credentials(credentials: &impl Rows, id: UserId) -> Result<CredentialsRow, StoreError> {
    let row = credentials.get(id.as_bytes().as_slice())?.ok_or(StoreError::NotFound)?;
    CredentialsRow::decode(row.value())
}

pub(super) fn all_users(users: &impl Rows) -> Result<Vec<User>, StoreError> {
    let mut all = Vec::new();
    for row in users.iter()? {
        let (key, row) = row?;
        all.push(decode_user(UserId::from_bytes(id16("users", key.value())?), row.value())?);
    }
    Ok(all)
}

fn put_user(t: &mut Tables<'_>, user: &User) -> Result<(), StoreError> {
    t.users.insert(user.id.as_bytes().as_slice(), encode_user(user).as_slice())?;
    Ok(())
}

fn put_credentials(t: &mut Tables<'_>, id: UserId, row: &CredentialsRow) -> Result<(), StoreError> {
    t.credentials.insert(id.as_bytes().as_slice(), row.encode().as_slice())?;
    Ok(())
}

/// Refuses what would leave the house without anybody to look after it.
fn keep_an_admin(t: &Tables<'_>, but: UserId) -> Result<(), StoreError> {
    let others = all_users(&t.users)?;
    if others.iter().any(|u| u.id != but && u.role == Role::Admin && !u.disabled) {
        Ok(())
    } else {
        Err(StoreError::Conflict("last_admin"))
    }
}

impl Admission {
    /// The role this gives, decided on what is stored now.
    fn decide(&self, t: &Tables<'_>) -> Result<Role, StoreError> {
        let first = t.users.is_empty()?;
        match self {
            Self::Setup | Self::Open | Self::Granted(_) if first => Ok(Role::Admin),
            Self::Setup => Err(StoreError::Conflict("setup_done")),
            Self::Open => Ok(Role::Member),
            Self::Granted(role) => Ok(*role),
            Self::Invite(code) => super::invites::live_invite(&t.invites, &code.hash())?
                .map(|i| i.role)
                .ok_or(StoreError::Conflict("invite_invalid")),
        }
    }
}

impl Store {
    /// Every account, oldest first.
    pub fn users(&self) -> Result<Vec<User>, StoreError> {
        let mut all = self.read(|s| all_users(&s.users()?))?;
        all.sort_by_key(|u| (u.created_at, u.id));
        Ok(all)
    }
    /// One account.
    pub fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.read(|s| get_user(&s.users()?, id))
    }
    /// The account with this address.
    pub fn user_by_email(&self, email: &Email) -> Result<Option<User>, StoreError> {
        self.read(|s| match s.emails()?.get(email.as_str().as_bytes())? {
            Some(id) => get_user(&s.users()?, UserId::from_bytes(id16("emails", id.value())?)),
            None => Ok(None),
        })
    }
    /// How to check this person's password.
    pub fn credentials(&self, id: UserId) -> Result<Option<Credentials>, StoreError> {
        self.read(|s| {
            let Some(user) = get_user(&s.users()?, id)? else { return Ok(None) };
            let row = get_credentials(&s.credentials()?, id)?;
            Ok(Some(Credentials { password: row.password, disabled: user.disabled }))
        })
    }
    /// Makes an account: profile, address index, credentials and wrapped keys, or nothing of it.
    /// `Conflict("email_taken")`, or as [`Admission`] says.
    pub fn create_user(&self, new: NewUser<'_>) -> Result<User, StoreError> {
        let id = UserId::new();
        let credentials = CredentialsRow {
            password: new.password,
            by_password: wrap(new.wrap_key, id, new.data_key),
            by_recovery: wrap(new.recovery, id, new.data_key),
        };
        let (email, full_name, persona, admission) = (new.email, new.full_name, new.persona, new.admission);
        self.write(Hints::default(), move |t| {
            // The invitation first: whoever holds none learns nothing about addresses.
            let role = admission.decide(t)?;
            if t.emails.get(email.as_str().as_bytes())?.is_some() {
                return Err(StoreError::Conflict("email_taken"));
            }
            let now = Timestamp::now();
            let user = User {
                id,
                email: email.clone(),
                full_name: full_name.clone(),
                avatar_url: None,
                role,
                persona,
                disabled: false,
                created_at: now,
                updated_at: now,
            };
            if let Admission::Invite(code) = &admission {
                t.invites.remove(code.hash().as_slice())?;
            }
            put_user(t, &user)?;
            t.emails.insert(email.as_str().as_bytes(), id.as_bytes().as_slice())?;
            put_credentials(t, id, &credentials)?;
            Ok(user)
        })
    }
    /// The data key, by the key derived from the password. [`StoreError::Locked`] if it is another's.
    pub fn unlock_with_password(&self, id: UserId, wrap_key: &WrapKey) -> Result<DataKey, StoreError> {
        let row = self.read(|s| get_credentials(&s.credentials()?, id))?;
        unwrap(wrap_key, id, &row.by_password)
    }
    /// The data key, by the recovery code. [`StoreError::Locked`] if it is wrong.
    pub fn unlock_with_recovery(&self, id: UserId, code: &RecoveryCode) -> Result<DataKey, StoreError> {
        let row = self.read(|s| get_credentials(&s.credentials()?, id))?;
        unwrap(code, id, &row.by_recovery)
    }
    /// Sets a new password (and a new recovery code where given), keeping what the person wrote. Every session except
    /// `keep` ends.
    pub fn set_password(
        &self,
        id: UserId,
        password: PasswordRecord,
        wrap_key: &WrapKey,
        recovery: Option<&RecoveryCode>,
        data_key: &DataKey,
        keep: Option<SessionId>,
    ) -> Result<(), StoreError> {
        let by_password = wrap(wrap_key, id, data_key);
        let by_recovery = recovery.map(|r| wrap(r, id, data_key));
        self.write(Hints::default(), move |t| {
            need_user(&t.users, id)?;
            let old = get_credentials(&t.credentials, id)?;
            let by_recovery = by_recovery.unwrap_or(old.by_recovery);
            put_credentials(t, id, &CredentialsRow { password: password.clone(), by_password, by_recovery })?;
            super::sessions::remove_sessions(t, id, keep)
        })?;
        self.inner.unsaved.end(id, |session| Some(session) != keep);
        self.ended(id, None);
        Ok(())
    }
    /// Sets a new password without the old data key: a fresh key takes its place, and everything the old one locked
    /// (chats, memories, API keys) is deleted. The caller has asked the person first.
    pub fn reset_password(
        &self,
        id: UserId,
        password: PasswordRecord,
        wrap_key: &WrapKey,
        recovery: &RecoveryCode,
        data_key: &DataKey,
    ) -> Result<(), StoreError> {
        let (by_password, by_recovery) = (wrap(wrap_key, id, data_key), wrap(recovery, id, data_key));
        self.write_and_purge(move |t| {
            need_user(&t.users, id)?;
            let fresh = CredentialsRow { password: password.clone(), by_password, by_recovery };
            put_credentials(t, id, &fresh)?;
            super::sessions::remove_sessions(t, id, None)?;
            super::sessions::remove_api_keys(t, id)?;
            super::chats::doom_content(t, id)
        })?;
        self.inner.unsaved.end(id, |_| true);
        self.ended(id, None);
        Ok(())
    }
    /// Stores the same password hashed anew (stronger parameters); sessions go on.
    pub fn rehash_password(
        &self,
        id: UserId,
        password: PasswordRecord,
        wrap_key: &WrapKey,
        data_key: &DataKey,
    ) -> Result<(), StoreError> {
        let by_password = wrap(wrap_key, id, data_key);
        self.write(Hints::default(), move |t| {
            let by_recovery = get_credentials(&t.credentials, id)?.by_recovery;
            put_credentials(t, id, &CredentialsRow { password: password.clone(), by_password, by_recovery })
        })
    }
    /// Changes what a person may do; their sessions end. `Conflict("last_admin")` keeps one enabled admin.
    pub fn set_role(&self, id: UserId, role: Role) -> Result<User, StoreError> {
        self.change_standing(id, move |user| user.role = role)
    }
    /// Shuts an account out or lets it in again; sessions end. `Conflict("last_admin")` keeps one enabled admin.
    pub fn set_disabled(&self, id: UserId, disabled: bool) -> Result<User, StoreError> {
        self.change_standing(id, move |user| user.disabled = disabled)
    }
    fn change_standing(
        &self,
        id: UserId,
        change: impl Fn(&mut User) + Send + 'static,
    ) -> Result<User, StoreError> {
        let (user, changed) = self.write(Hints::default(), move |t| {
            let before = need_user(&t.users, id)?;
            let mut user = before.clone();
            change(&mut user);
            if user == before {
                return Ok((user, false));
            }
            if user.role != Role::Admin || user.disabled {
                keep_an_admin(t, id)?;
            }
            user.updated_at = Timestamp::now();
            put_user(t, &user)?;
            super::sessions::remove_sessions(t, id, None)?;
            Ok((user, true))
        })?;
        if changed {
            self.inner.unsaved.end(id, |_| true);
            self.ended(id, None);
        }
        Ok(user)
    }
    /// Deletes an account and everything of it. `Conflict("last_admin")` while other accounts remain.
    pub fn delete_user(&self, id: UserId) -> Result<(), StoreError> {
        self.write_and_purge(move |t| {
            let user = need_user(&t.users, id)?;
            if t.users.len()? > 1 {
                keep_an_admin(t, id)?;
            }
            t.users.remove(id.as_bytes().as_slice())?;
            t.emails.remove(user.email.as_str().as_bytes())?;
            t.credentials.remove(id.as_bytes().as_slice())?;
            super::sessions::remove_sessions(t, id, None)?;
            super::sessions::remove_api_keys(t, id)?;
            super::chats::doom(t, id.as_bytes())
        })?;
        self.inner.kv.forget_user(id);
        self.inner.unsaved.end(id, |_| true);
        self.ended(id, None);
        Ok(())
    }
    /// Changes a profile.
    pub fn update_profile(&self, id: UserId, patch: UserPatch) -> Result<User, StoreError> {
        self.write(Hints::default(), move |t| {
            let mut user = need_user(&t.users, id)?;
            let UserPatch { full_name, avatar_url, persona } = patch.clone();
            user.full_name = full_name.unwrap_or(user.full_name);
            user.avatar_url = avatar_url.unwrap_or(user.avatar_url);
            user.persona = persona.unwrap_or(user.persona);
            user.updated_at = Timestamp::now();
            put_user(t, &user)?;
            Ok(user)
        })
    }

    /// A write that deletes: it may use the last of the disk's reserve, and starts the clearing of what it doomed.
    pub(super) fn write_and_purge(
        &self,
        op: impl FnMut(&mut Tables<'_>) -> Result<Purged, StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        if self.write(Hints { weight: 0, frees_room: true }, op)? == Purged::Partly {
            self.inner.core.purge.store(true, Ordering::Release);
            self.inner.queue.write_later(|_| Ok(()));
        }
        Ok(())
    }
}
