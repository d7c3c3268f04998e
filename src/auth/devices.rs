//! What a signed-in person may do with their own sessions and API keys.

use super::{Auth, AuthError, MAX_LABEL_CHARS, label};
use crate::domain::{ApiKeyId, Invalid, SessionId};
use crate::store::{ApiKey, ApiKeyInfo, Session, SessionToken, UserStore};

/// Keys per person: one for each program of a busy tinkerer, and a bound on what a stolen session can make.
pub const MAX_API_KEYS: usize = 50;

impl Auth {
    /// The person behind a session token; `None` when it is unknown, ended or expired, or the account is disabled.
    pub async fn authenticate(&self, token: SessionToken) -> Result<Option<UserStore>, AuthError> {
        self.stored(move |store| store.as_user(&token)).await
    }

    /// The person behind an API key; `None` when it is unknown or ended, or the account is disabled.
    pub async fn authenticate_key(&self, key: ApiKey) -> Result<Option<UserStore>, AuthError> {
        self.stored(move |store| store.as_user_by_key(&key)).await
    }

    /// Ends the session in hand.
    pub async fn sign_out(&self, me: &UserStore) -> Result<(), AuthError> {
        let (user, session) = session_of(me)?;
        self.stored(move |store| store.end_session(user, session)).await
    }

    /// The live sessions of this person, newest first.
    pub async fn sessions(&self, me: &UserStore) -> Result<Vec<Session>, AuthError> {
        let (user, _) = session_of(me)?;
        self.stored(move |store| store.sessions(user)).await
    }

    /// Ends one of this person's sessions.
    pub async fn end_session(&self, me: &UserStore, session: SessionId) -> Result<(), AuthError> {
        let (user, _) = session_of(me)?;
        self.stored(move |store| store.end_session(user, session)).await
    }

    /// This person's API keys, oldest first.
    pub async fn api_keys(&self, me: &UserStore) -> Result<Vec<ApiKeyInfo>, AuthError> {
        let (user, _) = session_of(me)?;
        self.stored(move |store| store.api_keys(user)).await
    }

    /// Makes an API key; the key itself is shown once.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] for an empty or long name or past [`MAX_API_KEYS`]; [`AuthError::Forbidden`] when asked
    /// with an API key, because a key must not make keys.
    pub async fn create_api_key(
        &self,
        me: &UserStore,
        name: &str,
    ) -> Result<(ApiKeyInfo, ApiKey), AuthError> {
        let (user, _) = session_of(me)?;
        if name.chars().count() > MAX_LABEL_CHARS {
            return Err(Invalid::new("name", format!("must be at most {MAX_LABEL_CHARS} characters")).into());
        }
        let name = label(name);
        if name.is_empty() {
            return Err(Invalid::new("name", "must not be empty").into());
        }
        let data_key = me.data_key().clone();
        self.stored(move |store| {
            if store.api_keys(user)?.len() >= MAX_API_KEYS {
                return Err(Invalid::new("name", format!("there are {MAX_API_KEYS} keys already")).into());
            }
            let key = ApiKey::new();
            Ok((store.create_api_key(user, &data_key, &key, &name)?, key))
        })
        .await
    }

    /// Ends one of this person's API keys.
    pub async fn delete_api_key(&self, me: &UserStore, key: ApiKeyId) -> Result<(), AuthError> {
        let (user, _) = session_of(me)?;
        self.stored(move |store| store.delete_api_key(user, key)).await
    }
}

/// Sessions and keys are managed by a person who signed in, never by a key.
fn session_of(me: &UserStore) -> Result<(crate::domain::UserId, SessionId), AuthError> {
    Ok((me.user_id(), me.session_id().ok_or(AuthError::Forbidden)?))
}
