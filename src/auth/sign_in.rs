//! The ways in: sign-up, sign-in, recovery; and changing the password.

use std::net::IpAddr;

use subtle::ConstantTimeEq as _;

use super::limits::Guess;
use super::password::{Cost, Derived, Password};
use super::{Auth, AuthError, Device, SignUp, SignedIn, SignedUp, SignupMode, label, random};
use crate::domain::{Email, Persona, SessionId, User, UserId, parse_full_name};
use crate::store::{
    Admission, DataKey, InviteCode, NewUser, PasswordRecord, RecoveryCode, SessionToken, Store, StoreError,
    UserStore, WrapKey,
};

/// A password hashed to be stored.
pub(super) struct Hashed {
    pub(super) record: PasswordRecord,
    pub(super) wrap_key: WrapKey,
}

impl Auth {
    /// Makes an account and signs it in.
    ///
    /// # Errors
    /// As [`AuthError`] says; an address that has an account costs the same hash as one that has none.
    pub async fn sign_up(&self, form: SignUp, device: &Device) -> Result<SignedUp, AuthError> {
        let full_name = parse_full_name(&form.full_name)?;
        let password = Password::to_set(form.password, &form.email)?;
        self.0
            .limits
            .sign_up(device.peer)
            .map_err(|retry_after| AuthError::TooManyAttempts { retry_after })?;
        let admission = self.admission(form.invite, form.setup_code).await?;
        let hashed = self.hash(password).await?;
        let (user, data_key, recovery_code) = self.create(form.email, full_name, admission, hashed).await?;
        self.0.setup.done();
        let signed_in = self.open_session(user, data_key, device).await?;
        Ok(SignedUp { user: signed_in.user, token: signed_in.token, recovery_code })
    }

    /// Checks a password and opens a new session; the session the device had before ends.
    ///
    /// # Errors
    /// [`AuthError::InvalidCredentials`] for an unknown or disabled account and for a wrong password alike.
    pub async fn sign_in(
        &self,
        email: &Email,
        password: String,
        device: &Device,
    ) -> Result<SignedIn, AuthError> {
        let password = Password::to_try(password)?;
        let guess = self.guess(email, device.peer)?;
        let account = self.account(email).await?;
        let is_outdated = account.as_ref().is_some_and(|(_, record)| cost_of(record) != Cost::CURRENT);
        let (user, data_key) = match self.unlock(account, password.clone()).await {
            Err(e @ AuthError::Overloaded { .. }) => {
                guess.was_not_judged();
                return Err(e);
            }
            other => other?,
        };
        guess.was_right();
        if is_outdated {
            self.rehash(user.id, password, data_key.clone()).await?;
        }
        self.open_session(user, data_key, device).await
    }

    /// Sets a new password with the printed recovery code. Every session ends, and a new code takes the old one's
    /// place.
    ///
    /// # Errors
    /// [`AuthError::InvalidCredentials`] for an unknown or disabled account and for a wrong code alike.
    pub async fn recover(
        &self,
        email: &Email,
        recovery_code: &str,
        new_password: String,
        device: &Device,
    ) -> Result<SignedUp, AuthError> {
        let code = RecoveryCode::parse(recovery_code)?;
        let password = Password::to_set(new_password, email)?;
        let guess = self.guess(email, device.peer)?;
        let account = self.account(email).await?;
        // Hashed before the code is looked at, so that a wrong code costs as much as a right one.
        let hashed = match self.hash(password).await {
            Err(e @ AuthError::Overloaded { .. }) => {
                guess.was_not_judged();
                return Err(e);
            }
            other => other?,
        };
        let (user, _) = account.filter(|(user, _)| !user.disabled).ok_or(AuthError::InvalidCredentials)?;
        let (id, new_code) = (user.id, RecoveryCode::new());
        let shown = new_code.clone();
        let unlocked = self.stored(move |store| {
            let data_key = store.unlock_with_recovery(id, &code)?;
            store.set_password(id, hashed.record, &hashed.wrap_key, Some(&new_code), &data_key, None)?;
            Ok(data_key)
        });
        let data_key = unlocked.await.map_err(locked_is_wrong)?;
        guess.was_right();
        let signed_in = self.open_session(user, data_key, device).await?;
        Ok(SignedUp { user: signed_in.user, token: signed_in.token, recovery_code: shown })
    }

    /// Changes the password of who is signed in; every other session ends.
    ///
    /// # Errors
    /// [`AuthError::InvalidCredentials`] when `current` is wrong; [`AuthError::Forbidden`] with an API key.
    pub async fn change_password(
        &self,
        me: &UserStore,
        current: String,
        new: String,
        peer: IpAddr,
    ) -> Result<(), AuthError> {
        let keep: Option<SessionId> = Some(me.session_id().ok_or(AuthError::Forbidden)?);
        let id = me.user_id();
        let user = self.stored(move |store| store.user(id)).await?.ok_or(AuthError::NotFound)?;
        let email = user.email.clone();
        let (current, new) = (Password::to_try(current)?, Password::to_set(new, &email)?);
        let guess = self.guess(&email, peer)?;
        let outcome = async {
            let account = self.account(&email).await?;
            let (_, data_key) = self.unlock(account, current).await?;
            Ok((data_key, self.hash(new).await?))
        };
        let (data_key, hashed) = match outcome.await {
            Err(e @ AuthError::Overloaded { .. }) => {
                guess.was_not_judged();
                return Err(e);
            }
            other => other?,
        };
        guess.was_right();
        self.stored(move |store| {
            store.set_password(id, hashed.record, &hashed.wrap_key, None, &data_key, keep)
        })
        .await
    }

    fn guess(&self, email: &Email, peer: IpAddr) -> Result<Guess<'_>, AuthError> {
        self.0.limits.guess(email, peer).map_err(|retry_after| AuthError::TooManyAttempts { retry_after })
    }

    async fn account(&self, email: &Email) -> Result<Option<(User, PasswordRecord)>, AuthError> {
        let email = email.clone();
        self.stored(move |store| {
            let Some(user) = store.user_by_email(&email)? else { return Ok(None) };
            Ok(store.credentials(user.id)?.map(|credentials| (user, credentials.password)))
        })
        .await
    }

    /// One argon2 run whatever the account; the data key if everything is right.
    async fn unlock(
        &self,
        account: Option<(User, PasswordRecord)>,
        password: Password,
    ) -> Result<(User, DataKey), AuthError> {
        let is_known = account.is_some();
        let (user, record) = match account {
            Some((user, record)) => (Some(user), record),
            None => (None, self.0.dummy.clone()),
        };
        let mut cost = cost_of(&record);
        let is_payable = cost.is_payable();
        if !is_payable {
            tracing::warn!(user = ?user.as_ref().map(|u| u.id), ?cost, "stored password parameters refused");
            cost = Cost::CURRENT;
        }
        let derived = self.0.hasher.derive(password, record.salt, cost).await?;
        let is_same: bool = derived.verifier.as_slice().ct_eq(&record.verifier).into();
        let user = user.filter(|user| is_known && is_payable && is_same && !user.disabled);
        let user = user.ok_or(AuthError::InvalidCredentials)?;
        let id = user.id;
        let wrap_key = WrapKey::from_bytes(*derived.wrapping_key);
        let unlocked = self.stored(move |store| store.unlock_with_password(id, &wrap_key));
        let data_key = unlocked.await.map_err(locked_is_wrong)?;
        Ok((user, data_key))
    }

    /// Hashes a password that is to be stored, with a fresh salt.
    pub(super) async fn hash(&self, password: Password) -> Result<Hashed, AuthError> {
        let salt = random();
        let cost = Cost::CURRENT;
        let Derived { verifier, wrapping_key } = self.0.hasher.derive(password, salt, cost).await?;
        Ok(Hashed {
            record: PasswordRecord {
                m_cost: cost.m_kib,
                t_cost: cost.t,
                p_cost: cost.p,
                salt,
                verifier: *verifier,
            },
            wrap_key: WrapKey::from_bytes(*wrapping_key),
        })
    }

    /// Stores the same password under today's parameters.
    async fn rehash(&self, id: UserId, password: Password, data_key: DataKey) -> Result<(), AuthError> {
        let hashed = match self.hash(password).await {
            // The next sign-in does it.
            Err(AuthError::Overloaded { .. }) => return Ok(()),
            other => other?,
        };
        self.stored(move |store| store.rehash_password(id, hashed.record, &hashed.wrap_key, &data_key)).await
    }

    /// How this form lets somebody in. The store decides again inside the transaction.
    async fn admission(
        &self,
        invite: Option<String>,
        setup_code: Option<String>,
    ) -> Result<Admission, AuthError> {
        let is_first = self.stored(Store::n_users).await? == 0;
        if is_first && self.0.exposed {
            let code = setup_code.ok_or(AuthError::SetupCodeRequired)?;
            let is_right = self.0.setup.accepts(&code, self.0.clock.elapsed());
            return if is_right { Ok(Admission::Setup) } else { Err(AuthError::SetupCodeInvalid) };
        }
        if let Some(code) = invite {
            let code = InviteCode::parse(&code).map_err(|_| AuthError::InviteInvalid)?;
            let known = code.clone();
            let found = self.stored(move |store| store.invite(&known)).await?;
            return found.map(|_| Admission::Invite(code)).ok_or(AuthError::InviteInvalid);
        }
        match self.0.signup {
            SignupMode::Open => Ok(Admission::Open),
            _ if is_first => Ok(Admission::Setup),
            // Whoever holds a setup code when there is an account already lost the race for it.
            _ if setup_code.is_some() => Err(AuthError::SetupCodeInvalid),
            SignupMode::Invite => Err(AuthError::InviteRequired),
            SignupMode::Closed => Err(AuthError::SignupClosed),
        }
    }

    pub(super) async fn create(
        &self,
        email: Email,
        full_name: String,
        admission: Admission,
        hashed: Hashed,
    ) -> Result<(User, DataKey, RecoveryCode), AuthError> {
        self.stored(move |store| {
            let (data_key, recovery) = (DataKey::new(), RecoveryCode::new());
            let user = store.create_user(NewUser {
                email,
                full_name,
                persona: Persona::Mom,
                admission,
                password: hashed.record,
                wrap_key: &hashed.wrap_key,
                recovery: &recovery,
                data_key: &data_key,
            })?;
            Ok((user, data_key, recovery))
        })
        .await
    }

    async fn open_session(
        &self,
        user: User,
        data_key: DataKey,
        device: &Device,
    ) -> Result<SignedIn, AuthError> {
        let (id, label, replaces) = (user.id, label(&device.label), device.replaces.clone());
        let token = self
            .stored(move |store| {
                if let Some(old) = replaces {
                    end_replaced(store, &old)?;
                }
                let token = SessionToken::new();
                store.create_session(id, &data_key, &token, &label)?;
                Ok(token)
            })
            .await?;
        Ok(SignedIn { user, token })
    }
}

fn cost_of(record: &PasswordRecord) -> Cost {
    Cost { m_kib: record.m_cost, t: record.t_cost, p: record.p_cost }
}

fn end_replaced(store: &Store, old: &SessionToken) -> Result<(), StoreError> {
    let Some(before) = store.as_user(old)? else { return Ok(()) };
    let (user, session) = (before.user_id(), before.session_id());
    match session.map(|session| store.end_session(user, session)) {
        // It ended in between, which is what was wanted.
        None | Some(Ok(()) | Err(StoreError::NotFound)) => Ok(()),
        Some(Err(e)) => Err(e),
    }
}

/// A key that does not open the data is a wrong guess, whatever the verifier said.
fn locked_is_wrong(e: AuthError) -> AuthError {
    match e {
        AuthError::Store(StoreError::Locked) => AuthError::InvalidCredentials,
        other => other,
    }
}
