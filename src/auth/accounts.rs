//! What an admin, or whoever sits at the console, may do with accounts. Nobody's words are reachable from here.

use super::password::Password;
use super::{Auth, AuthError};
use crate::domain::{Email, InviteId, Role, User, UserId, parse_full_name};
use crate::store::{Admission, DataKey, InviteCode, InviteInfo, RecoveryCode, Store, StoreError, UserStore};

/// Proof that somebody may manage accounts.
#[derive(Clone, Copy, Debug)]
pub struct Authority {
    by: Option<UserId>,
}

impl Authority {
    /// An admin who signed in; an API key is not enough.
    ///
    /// # Errors
    /// [`AuthError::Forbidden`] for everybody else.
    pub fn of(me: &UserStore) -> Result<Self, AuthError> {
        if me.role() == Role::Admin && me.session_id().is_some() {
            Ok(Self { by: Some(me.user_id()) })
        } else {
            Err(AuthError::Forbidden)
        }
    }

    /// Whoever may read the data directory: commands in the terminal and the control socket in it.
    pub fn console() -> Self {
        Self { by: None }
    }
}

/// An account made for somebody else.
pub struct NewAccount {
    /// Unique address.
    pub email: Email,
    /// Their first password.
    pub password: String,
    /// Display name; may be empty.
    pub full_name: String,
    /// What they may do; the first account is admin regardless.
    pub role: Role,
}

impl Auth {
    /// Every account, oldest first.
    pub async fn users(&self, _authority: Authority) -> Result<Vec<User>, AuthError> {
        self.stored(Store::users).await
    }

    /// The account with this address.
    ///
    /// # Errors
    /// [`AuthError::NotFound`].
    pub async fn user_by_email(&self, _authority: Authority, email: Email) -> Result<User, AuthError> {
        self.stored(move |store| store.user_by_email(&email)?.ok_or(StoreError::NotFound)).await
    }

    /// Makes an account without signing it in. The recovery code is shown once, to be handed on.
    pub async fn create_account(
        &self,
        _authority: Authority,
        new: NewAccount,
    ) -> Result<(User, RecoveryCode), AuthError> {
        let full_name = parse_full_name(&new.full_name)?;
        let hashed = self.hash(Password::to_set(new.password, &new.email)?).await?;
        let (user, _, recovery) =
            self.create(new.email, full_name, Admission::Granted(new.role), hashed).await?;
        self.0.setup.done();
        Ok((user, recovery))
    }

    /// Changes what somebody may do; their sessions end.
    pub async fn set_role(&self, _authority: Authority, id: UserId, role: Role) -> Result<User, AuthError> {
        self.stored(move |store| store.set_role(id, role)).await
    }

    /// Shuts an account out, or lets it in again; its sessions end.
    pub async fn set_disabled(
        &self,
        _authority: Authority,
        id: UserId,
        disabled: bool,
    ) -> Result<User, AuthError> {
        self.stored(move |store| store.set_disabled(id, disabled)).await
    }

    /// Deletes an account and everything in it.
    pub async fn delete_account(&self, _authority: Authority, id: UserId) -> Result<(), AuthError> {
        self.stored(move |store| store.delete_user(id)).await
    }

    /// Sets somebody's password; their sessions end. With their recovery code their chats stay readable; without it
    /// the chats are deleted, and the caller has said so before.
    ///
    /// # Errors
    /// [`AuthError::InvalidCredentials`] when the recovery code is not theirs; nothing is changed then.
    pub async fn reset_password(
        &self,
        _authority: Authority,
        id: UserId,
        new_password: String,
        recovery: Option<RecoveryCode>,
    ) -> Result<RecoveryCode, AuthError> {
        let user = self.stored(move |store| store.user(id)).await?.ok_or(AuthError::NotFound)?;
        let hashed = self.hash(Password::to_set(new_password, &user.email)?).await?;
        let outcome = self.stored(move |store| {
            let new_code = RecoveryCode::new();
            if let Some(code) = recovery {
                let data_key = store.unlock_with_recovery(id, &code)?;
                store.set_password(id, hashed.record, &hashed.wrap_key, Some(&new_code), &data_key, None)?;
            } else {
                let data_key = DataKey::new();
                store.reset_password(id, hashed.record, &hashed.wrap_key, &new_code, &data_key)?;
            }
            Ok(new_code)
        });
        outcome.await.map_err(|e| match e {
            AuthError::Store(StoreError::Locked) => AuthError::InvalidCredentials,
            other => other,
        })
    }

    /// Makes an invitation that lets one person in as `role`.
    pub async fn invite(
        &self,
        authority: Authority,
        role: Role,
    ) -> Result<(InviteInfo, InviteCode), AuthError> {
        self.stored(move |store| {
            let code = InviteCode::new();
            Ok((store.create_invite(&code, role, authority.by)?, code))
        })
        .await
    }

    /// Open invitations, oldest first.
    pub async fn invites(&self, _authority: Authority) -> Result<Vec<InviteInfo>, AuthError> {
        self.stored(Store::invites).await
    }

    /// Takes an invitation back.
    pub async fn delete_invite(&self, _authority: Authority, id: InviteId) -> Result<(), AuthError> {
        self.stored(move |store| store.delete_invite(id)).await
    }
}
