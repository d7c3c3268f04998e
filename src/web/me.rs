//! One's own account: profile, password, devices, API keys.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::App;
use super::error::ApiError;
use super::extract::{Id, Json, MAX_AUTH_BODY_BYTES};
use super::hosts::Client;
use super::who::{Caller, Me};
use super::wire;
use crate::chat::persona::may_choose;
use crate::domain::{ApiKeyId, Persona, SessionId, parse_avatar, parse_full_name};
use crate::store::UserPatch;

/// My profile; with an API key, whose key it is.
#[utoipa::path(get, path = "/api/me", tag = "me", security(("session" = []), ("api_key" = [])),
    responses((status = 200, body = wire::User)))]
pub(crate) async fn get(caller: Caller) -> Result<axum::Json<wire::User>, ApiError> {
    let user = caller.with(crate::store::UserStore::user).await?;
    Ok(axum::Json((&user).into()))
}

/// Changes to a profile; absent fields stay as they are.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProfileChanges {
    full_name: Option<String>,
    /// Null takes the picture away.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    #[expect(clippy::option_option, reason = "absent, null and text are three things")]
    avatar_url: Option<Option<String>>,
    /// `mom`, `dad` or `parent`; a child's is chosen for it.
    persona: Option<String>,
}

/// Tells a field that is null from one that is absent.
#[expect(clippy::option_option, reason = "absent, null and text are three things")]
fn present<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(field).map(Some)
}

/// Changes my name, picture or parent.
#[utoipa::path(patch, path = "/api/me", tag = "me", request_body = ProfileChanges,
    responses((status = 200, body = wire::User)))]
pub(crate) async fn update(
    State(app): State<App>,
    me: Me,
    Json(body): Json<ProfileChanges>,
) -> Result<axum::Json<wire::User>, ApiError> {
    if body.persona.is_some() && !may_choose(me.store.role()) {
        return Err(ApiError::forbidden("This account's parent is chosen by the admin."));
    }
    let patch = UserPatch {
        full_name: body.full_name.as_deref().map(parse_full_name).transpose()?,
        avatar_url: body.avatar_url.map(|new| new.as_deref().map(parse_avatar).transpose()).transpose()?,
        persona: body.persona.as_deref().map(str::parse::<Persona>).transpose()?,
    };
    let (store, id) = (app.store().clone(), me.id());
    let user = super::blocking(move || store.update_profile(id, patch)).await?;
    Ok(axum::Json((&user).into()))
}

/// The password in use and the one to come.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordForm {
    current_password: String,
    new_password: String,
}

/// Changes my password; every other session ends.
#[utoipa::path(post, path = "/api/me/password", tag = "me", request_body = PasswordForm, responses((status = 204)))]
pub(crate) async fn change_password(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    me: Me,
    Json(form): Json<PasswordForm, MAX_AUTH_BODY_BYTES>,
) -> Result<StatusCode, ApiError> {
    app.auth().change_password(&me.store, form.current_password, form.new_password, client.ip).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A sign-in on one device.
#[derive(Serialize, ToSchema)]
pub(crate) struct Session {
    #[schema(format = "uuid")]
    id: String,
    /// What the device called itself.
    label: String,
    #[schema(format = "date-time")]
    created_at: String,
    /// To the day.
    #[schema(format = "date-time")]
    last_seen_at: String,
    #[schema(format = "date-time")]
    expires_at: String,
    /// True for the one that asks.
    current: bool,
}

/// Every device.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionList {
    sessions: Vec<Session>,
}

/// Where I am signed in, newest first.
#[utoipa::path(get, path = "/api/me/sessions", tag = "me", responses((status = 200, body = SessionList)))]
pub(crate) async fn sessions(State(app): State<App>, me: Me) -> Result<axum::Json<SessionList>, ApiError> {
    let current = me.store.session_id();
    let sessions = app.auth().sessions(&me.store).await?;
    let sessions = sessions.into_iter().map(|s| Session {
        id: s.id.to_string(),
        label: s.label,
        created_at: s.created_at.to_string(),
        last_seen_at: s.last_seen_at.to_string(),
        expires_at: s.expires_at.to_string(),
        current: Some(s.id) == current,
    });
    Ok(axum::Json(SessionList { sessions: sessions.collect() }))
}

/// Signs a device out; its open streams end at once.
#[utoipa::path(delete, path = "/api/me/sessions/{id}", tag = "me",
    params(("id" = String, Path, format = "uuid")), responses((status = 204)))]
pub(crate) async fn end_session(
    State(app): State<App>,
    me: Me,
    Id(id): Id<SessionId>,
) -> Result<StatusCode, ApiError> {
    app.auth().end_session(&me.store, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An API key without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct ApiKey {
    #[schema(format = "uuid")]
    id: String,
    name: String,
    #[schema(format = "date-time")]
    created_at: String,
    /// To the hour; null while it was never used.
    #[schema(format = "date-time")]
    last_used_at: Option<String>,
    /// False for a key that a restored backup brought back.
    usable: bool,
}

/// Every key.
#[derive(Serialize, ToSchema)]
pub(crate) struct ApiKeyList {
    keys: Vec<ApiKey>,
}

/// My API keys, oldest first.
#[utoipa::path(get, path = "/api/me/keys", tag = "me", responses((status = 200, body = ApiKeyList)))]
pub(crate) async fn keys(State(app): State<App>, me: Me) -> Result<axum::Json<ApiKeyList>, ApiError> {
    let keys = app.auth().api_keys(&me.store).await?;
    let keys = keys.into_iter().map(|key| ApiKey {
        id: key.id.to_string(),
        name: key.name,
        created_at: key.created_at.to_string(),
        last_used_at: key.last_used_at.map(|t| t.to_string()),
        usable: key.usable,
    });
    Ok(axum::Json(ApiKeyList { keys: keys.collect() }))
}

/// What to call a key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyForm {
    name: String,
}

/// A new key; the only time its secret is shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewApiKey {
    #[schema(format = "uuid")]
    id: String,
    name: String,
    key: String,
}

/// Makes an API key for `/v1`.
#[utoipa::path(post, path = "/api/me/keys", tag = "me", request_body = KeyForm,
    responses((status = 201, body = NewApiKey)))]
pub(crate) async fn create_key(
    State(app): State<App>,
    me: Me,
    Json(form): Json<KeyForm>,
) -> Result<(StatusCode, axum::Json<NewApiKey>), ApiError> {
    me.refuse_child("make API keys")?;
    let (info, key) = app.auth().create_api_key(&me.store, &form.name).await?;
    let answer = NewApiKey { id: info.id.to_string(), name: info.name, key: key.reveal() };
    Ok((StatusCode::CREATED, axum::Json(answer)))
}

/// Ends an API key.
#[utoipa::path(delete, path = "/api/me/keys/{id}", tag = "me",
    params(("id" = String, Path, format = "uuid")), responses((status = 204)))]
pub(crate) async fn delete_key(
    State(app): State<App>,
    me: Me,
    Id(id): Id<ApiKeyId>,
) -> Result<StatusCode, ApiError> {
    app.auth().delete_api_key(&me.store, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
