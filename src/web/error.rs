//! The one place where a refusal becomes a status, a stable code and a sentence.
//!
//! Nothing below `web` knows HTTP; nothing above a handler chooses a status. Internal causes are logged, never sent:
//! a client sees a code to branch on and one sentence for a person.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::AuthError;
use crate::chat::{ChatError, RETRY_LOADING_S};
use crate::domain::Invalid;
use crate::store::StoreError;

/// When to come back after a failing disk: somebody has to look at it.
const RETRY_UNWELL_S: u64 = 30;

/// A refusal on its way to the client.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// Stable word for programs.
    pub(crate) code: &'static str,
    /// One sentence for a person.
    pub(crate) message: String,
    /// When to come back, in seconds; only with 429 and 503.
    pub(crate) retry_after_s: Option<u64>,
}

/// What every refusal of the native API looks like.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// The refusal.
    pub(crate) error: ErrorDetail,
}

/// The inside of [`ErrorBody`].
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// Stable word for programs.
    pub(crate) code: String,
    /// One sentence for a person.
    pub(crate) message: String,
}

impl ApiError {
    /// A refusal with these parts and no `Retry-After`.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after_s: None }
    }

    /// Not yours or not there: one answer for both, so that an id tells nothing.
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is nothing here.")
    }

    /// No session, or one that ended: one answer for both.
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Sign in first.")
    }

    /// Somebody is signed in, and may not do this.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// A field that does not parse.
    pub(crate) fn invalid(field: &str, problem: &str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", format!("{field}: {problem}"))
    }

    /// Something broke here. The cause goes to the log, not to the client.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong here; it was not you.")
    }

    /// Not now: come back after `retry_after_s`.
    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>, retry_after_s: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).retry_after(retry_after_s)
    }

    /// Too often: come back after `retry_after_s`.
    pub(crate) fn too_many(code: &'static str, message: impl Into<String>, retry_after_s: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, message).retry_after(retry_after_s)
    }

    fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds.max(1));
        self
    }

    /// The body as it is sent.
    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody { error: ErrorDetail { code: self.code.to_owned(), message: self.message.clone() } }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(invalid.field, &invalid.problem)
    }
}

impl From<tokio::task::JoinError> for ApiError {
    fn from(cause: tokio::task::JoinError) -> Self {
        Self::internal(cause)
    }
}

impl From<StoreError> for ApiError {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::NotFound => Self::not_found(),
            StoreError::Invalid(invalid) => invalid.into(),
            StoreError::Conflict(code) => Self::new(StatusCode::CONFLICT, code, conflict_sentence(code)),
            StoreError::Locked => Self::forbidden("This does not unlock the account's data."),
            StoreError::DiskFull => Self::unavailable(
                "disk_full",
                "The disk is full; nothing was stored. Make room and try again.",
                RETRY_UNWELL_S,
            ),
            StoreError::Unhealthy(_)
            | StoreError::Corrupt(_)
            | StoreError::Newer { .. }
            | StoreError::InUse
            | StoreError::Io(_) => {
                tracing::error!(cause = %e, "the store is unwell");
                Self::unavailable("store_unwell", "Nothing can be stored at the moment.", RETRY_UNWELL_S)
            }
        }
    }
}

fn conflict_sentence(code: &str) -> &'static str {
    match code {
        "generation_running" => "The parent is still answering in this chat; wait, or stop it first.",
        "id_taken" => "This id is in use for something else.",
        "reply_ended" => "This reply has ended.",
        "last_admin" => "This is the last admin; make somebody else admin first.",
        _ => "This contradicts what is stored.",
    }
}

impl From<AuthError> for ApiError {
    fn from(e: AuthError) -> Self {
        let status = match e {
            AuthError::Invalid(invalid) => return invalid.into(),
            AuthError::NotFound => return Self::not_found(),
            AuthError::Store(cause) => return cause.into(),
            AuthError::Internal(cause) => return Self::internal(cause),
            AuthError::TooManyAttempts { retry_after } => {
                return Self::too_many("too_many_attempts", sentence(&e), seconds(retry_after));
            }
            AuthError::Overloaded { retry_after } => {
                return Self::unavailable("overloaded", sentence(&e), seconds(retry_after));
            }
            AuthError::InvalidCredentials => StatusCode::UNAUTHORIZED,
            AuthError::EmailTaken | AuthError::LastAdmin => StatusCode::CONFLICT,
            AuthError::SetupCodeRequired
            | AuthError::SetupCodeInvalid
            | AuthError::InviteRequired
            | AuthError::InviteInvalid
            | AuthError::SignupClosed
            | AuthError::Forbidden => StatusCode::FORBIDDEN,
        };
        Self::new(status, e.code().unwrap_or("refused"), sentence(&e))
    }
}

impl From<ChatError> for ApiError {
    fn from(e: ChatError) -> Self {
        let (code, said) = (e.code(), sentence(&e));
        match e {
            ChatError::NotFound => Self::not_found(),
            ChatError::Invalid(invalid) => invalid.into(),
            ChatError::Store(cause) => cause.into(),
            ChatError::Conflict(word) => Self::new(StatusCode::CONFLICT, word, conflict_sentence(word)),
            ChatError::TooLong { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, said),
            ChatError::NotReady => Self::unavailable(code, said, RETRY_LOADING_S),
            ChatError::Busy { retry_after_s } => Self::too_many(code, said, retry_after_s),
            ChatError::Broken(cause) => {
                tracing::error!(cause, "the model cannot answer");
                Self::unavailable(code, "The model cannot answer; the server's log says why.", RETRY_UNWELL_S)
            }
        }
    }
}

fn seconds(wait: std::time::Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// An error's own words as a sentence.
fn sentence(e: &impl std::fmt::Display) -> String {
    let text = e.to_string();
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}
