//! Who is asking: the session cookie, a session token or an API key becomes a [`UserStore`], the only way to a person's
//! rows. What a handler may do follows from which of the extractors here stands in its signature.
//!
//! - [`Me`]: somebody signed in on a device. API keys are refused.
//! - [`Caller`]: a device or an API key; only for what a key is for (inference, and saying whose key it is).
//! - [`Admin`]: [`Me`] with the admin's role.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::App;
use super::error::ApiError;
use super::hosts::Client;
use crate::domain::{Role, SessionId, UserId};
use crate::store::{ApiKey, SessionEnded, SessionToken, Store, StoreError, UserStore};

/// The cookie on plain HTTP.
const COOKIE: &str = "mommygpt_session";
/// The cookie under TLS: the prefix makes browsers refuse it from anywhere but this very host over TLS.
const SECURE_COOKIE: &str = "__Host-mommygpt_session";
/// How long a browser keeps the cookie; the session itself may end sooner.
const COOKIE_MAX_AGE_S: u64 = 90 * 24 * 3600;

/// What opened the door.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// A signed-in device.
    Session(SessionToken),
    /// A program.
    Key(ApiKey),
}

impl Credential {
    /// `Authorization` if there is one, else the cookie. `None` for neither, or for one that has not our form.
    fn find(headers: &HeaderMap, secure: bool) -> Option<Self> {
        let mut lines = headers.get_all(header::AUTHORIZATION).iter();
        if let Some(line) = lines.next() {
            let text = line.to_str().ok().filter(|_| lines.next().is_none())?;
            let (scheme, secret) = text.split_once(' ')?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return None;
            }
            let secret = secret.trim();
            return match SessionToken::parse(secret) {
                Ok(token) => Some(Self::Session(token)),
                Err(_) => ApiKey::parse(secret).ok().map(Self::Key),
            };
        }
        let name = if secure { SECURE_COOKIE } else { COOKIE };
        SessionToken::parse(cookie(headers, name)?).ok().map(Self::Session)
    }

    fn open(&self, store: &Store) -> Result<Option<UserStore>, StoreError> {
        match self {
            Self::Session(token) => store.as_user(token),
            Self::Key(key) => store.as_user_by_key(key),
        }
    }
}

/// The value of a cookie. Two of one name mean that another site planted one: then neither counts.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(n, _)| *n == name)
        .map(|(_, value)| value);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// The session token that a request came with, dead or alive.
pub(crate) fn presented_session(headers: &HeaderMap, secure: bool) -> Option<SessionToken> {
    match Credential::find(headers, secure)? {
        Credential::Session(token) => Some(token),
        Credential::Key(_) => None,
    }
}

/// `Set-Cookie` for a new session.
pub(crate) fn session_cookie(token: &SessionToken, client: &Client) -> HeaderValue {
    cookie_header(&token.reveal(), COOKIE_MAX_AGE_S, client.secure)
}

/// `Set-Cookie` that takes the session's cookie away.
pub(crate) fn no_cookie(client: &Client) -> HeaderValue {
    cookie_header("", 0, client.secure)
}

fn cookie_header(value: &str, max_age_s: u64, secure: bool) -> HeaderValue {
    let (name, end) = if secure { (SECURE_COOKIE, "; Secure") } else { (COOKIE, "") };
    let text = format!("{name}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{end}");
    // A token is base 32, so this holds only visible ASCII.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A device or an API key.
pub(crate) struct Caller {
    /// The person's rows.
    pub(crate) store: UserStore,
    credential: Credential,
    house: Store,
}

impl Caller {
    /// Runs a call to the store where it may block.
    pub(crate) async fn with<T, F>(&self, call: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&UserStore) -> Result<T, StoreError> + Send + 'static,
    {
        let store = self.store.clone();
        Ok(tokio::task::spawn_blocking(move || call(&store)).await??)
    }

    /// Whose.
    pub(crate) fn id(&self) -> UserId {
        self.store.user_id()
    }

    /// A child lacks what would get around the parent that was chosen for it.
    pub(crate) fn refuse_child(&self, what: &str) -> Result<(), ApiError> {
        if self.store.role() == Role::Child {
            return Err(ApiError::forbidden(format!("A child's account cannot {what}.")));
        }
        Ok(())
    }

    /// Ties a stream to this session or key, so that it ends with it.
    pub(crate) fn leash(&self) -> Leash {
        Leash {
            house: self.house.clone(),
            credential: self.credential.clone(),
            user: self.id(),
            session: self.store.session_id(),
            ended: self.house.session_watch(),
        }
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let secure = parts.extensions.get::<Client>().is_some_and(|c| c.secure);
        let credential = Credential::find(&parts.headers, secure).ok_or_else(ApiError::unauthorized)?;
        let house = app.store().clone();
        let (credential, found) = tokio::task::spawn_blocking({
            let house = house.clone();
            move || {
                let found = credential.open(&house);
                (credential, found)
            }
        })
        .await?;
        let store = found?.ok_or_else(ApiError::unauthorized)?;
        Ok(Self { store, credential, house })
    }
}

/// Somebody signed in on a device.
pub(crate) struct Me(Caller);

impl std::ops::Deref for Me {
    type Target = Caller;
    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl FromRequestParts<App> for Me {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        match caller.credential {
            Credential::Session(_) => Ok(Self(caller)),
            Credential::Key(_) => {
                Err(ApiError::forbidden("An API key is for generating text; sign in to do this."))
            }
        }
    }
}

/// Somebody signed in who may run the house.
pub(crate) struct Admin(pub(crate) Me);

impl FromRequestParts<App> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let me = Me::from_request_parts(parts, app).await?;
        if me.store.role() == Role::Admin {
            Ok(Self(me))
        } else {
            Err(ApiError::forbidden("Only an admin may do this."))
        }
    }
}

/// Says when a stream must end because its session or key did.
pub(crate) struct Leash {
    house: Store,
    credential: Credential,
    user: UserId,
    session: Option<SessionId>,
    ended: broadcast::Receiver<SessionEnded>,
}

impl Leash {
    /// Waits for word that may concern this session; then ask [`Leash::still_holds`]. Safe to drop while waiting.
    pub(crate) async fn tug(&mut self) {
        loop {
            match self.ended.recv().await {
                Ok(word) if word.user != self.user => {}
                Ok(word) if word.session.is_some() && word.session != self.session => {}
                Ok(_) | Err(RecvError::Lagged(_)) => return,
                // The store closed: the server is ending, and says so in another way.
                Err(RecvError::Closed) => std::future::pending::<()>().await,
            }
        }
    }

    /// Whether the session or key still opens the door.
    pub(crate) async fn still_holds(&self) -> bool {
        let (house, credential) = (self.house.clone(), self.credential.clone());
        matches!(tokio::task::spawn_blocking(move || credential.open(&house)).await, Ok(Ok(Some(_))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.clone(), HeaderValue::from_str(v).unwrap())).collect()
    }

    #[test]
    fn the_header_wins_over_the_cookie_and_a_doubled_cookie_counts_for_nothing() {
        fn find(pairs: &[(header::HeaderName, &str)], secure: bool) -> bool {
            Credential::find(&headers(pairs), secure).is_some()
        }
        let token = SessionToken::new().reveal();
        let bearer = format!("Bearer {token}");
        let plain = format!("other=1; {COOKIE}={token}");
        assert!(find(&[(header::AUTHORIZATION, &bearer)], false));
        assert!(find(&[(header::COOKIE, &plain)], false));
        assert!(!find(&[(header::COOKIE, &plain)], true), "under TLS only the prefixed cookie counts");
        assert!(find(&[(header::COOKIE, &format!("{SECURE_COOKIE}={token}"))], true));
        assert!(!find(&[(header::COOKIE, &plain), (header::AUTHORIZATION, "Bearer nonsense")], false));
        assert!(!find(&[(header::COOKIE, &format!("{COOKIE}={token}; {COOKIE}={token}"))], false));
        assert!(!find(&[(header::COOKIE, &plain), (header::COOKIE, &plain)], false));
        assert!(!find(&[(header::AUTHORIZATION, &format!("Basic {token}"))], false));
        assert!(find(&[(header::AUTHORIZATION, &format!("bearer {}", ApiKey::new().reveal()))], false));
    }
}
