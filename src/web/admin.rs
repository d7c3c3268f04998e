//! Running the house: accounts, invitations, and how the machine is doing. Never a word of a chat.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::error::ApiError;
use super::extract::{Id, Json, MAX_AUTH_BODY_BYTES};
use super::health::model_state;
use super::who::Admin;
use super::wire;
use crate::auth::{Authority, NewAccount};
use crate::domain::{self, Email, InviteId, Persona, Role, UserId};
use crate::store::{StoreError, UserPatch};

/// An account as the admin sees it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Account {
    #[serde(flatten)]
    user: wire::User,
    /// May not sign in while true.
    disabled: bool,
}

impl From<&domain::User> for Account {
    fn from(user: &domain::User) -> Self {
        Self { user: user.into(), disabled: user.disabled }
    }
}

/// Every account.
#[derive(Serialize, ToSchema)]
pub(crate) struct AccountList {
    users: Vec<Account>,
}

/// Every account, oldest first.
#[utoipa::path(get, path = "/api/admin/users", tag = "admin", responses((status = 200, body = AccountList)))]
pub(crate) async fn users(
    State(app): State<App>,
    Admin(me): Admin,
) -> Result<axum::Json<AccountList>, ApiError> {
    let users = app.auth().users(Authority::of(&me.store)?).await?;
    Ok(axum::Json(AccountList { users: users.iter().map(Into::into).collect() }))
}

/// An account made for somebody else.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccountForm {
    email: String,
    /// Their first password; they change it.
    password: String,
    full_name: Option<String>,
    /// `admin`, `member` or `child`; member if absent.
    role: Option<String>,
}

/// A new account and the code to hand on.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewAccountAnswer {
    user: Account,
    /// Shown once, for the person whose account it is.
    recovery_code: String,
}

/// Makes an account without signing it in.
#[utoipa::path(post, path = "/api/admin/users", tag = "admin", request_body = AccountForm,
    responses((status = 201, body = NewAccountAnswer)))]
pub(crate) async fn create_user(
    State(app): State<App>,
    Admin(me): Admin,
    Json(form): Json<AccountForm, MAX_AUTH_BODY_BYTES>,
) -> Result<(StatusCode, axum::Json<NewAccountAnswer>), ApiError> {
    let new = NewAccount {
        email: Email::parse(&form.email)?,
        password: form.password,
        full_name: form.full_name.unwrap_or_default(),
        role: parse_role(form.role.as_deref())?.unwrap_or(Role::Member),
    };
    let (user, code) = app.auth().create_account(Authority::of(&me.store)?, new).await?;
    let answer = NewAccountAnswer { user: (&user).into(), recovery_code: code.reveal() };
    Ok((StatusCode::CREATED, axum::Json(answer)))
}

/// Changes to an account; absent fields stay as they are.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccountChanges {
    /// `admin`, `member` or `child`.
    role: Option<String>,
    disabled: Option<bool>,
    /// `mom`, `dad` or `parent`; how a child's is chosen.
    persona: Option<String>,
    /// A new password for somebody who lost theirs and the recovery code. What they wrote is lost with them.
    password: Option<String>,
}

/// An account after a change.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChangedAccount {
    #[serde(flatten)]
    user: Account,
    /// Only with a new password: the code to hand on, shown once.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_code: Option<String>,
}

/// Changes a role, shuts an account out, or sets a new password; its sessions end.
#[utoipa::path(patch, path = "/api/admin/users/{id}", tag = "admin", request_body = AccountChanges,
    params(("id" = String, Path, format = "uuid")), responses((status = 200, body = ChangedAccount)))]
pub(crate) async fn update_user(
    State(app): State<App>,
    Admin(me): Admin,
    Id(id): Id<UserId>,
    Json(body): Json<AccountChanges, MAX_AUTH_BODY_BYTES>,
) -> Result<axum::Json<ChangedAccount>, ApiError> {
    let role = parse_role(body.role.as_deref())?;
    let persona = body.persona.as_deref().map(str::parse::<Persona>).transpose()?;
    let store = app.store().clone();
    // Also the check that there is such an account, before anything changes.
    let mut user = super::blocking(move || match persona {
        None => store.user(id)?.ok_or(StoreError::NotFound),
        Some(_) => store.update_profile(id, UserPatch { persona, ..UserPatch::default() }),
    })
    .await?;
    if let Some(role) = role {
        user = app.auth().set_role(Authority::of(&me.store)?, id, role).await?;
    }
    if let Some(disabled) = body.disabled {
        user = app.auth().set_disabled(Authority::of(&me.store)?, id, disabled).await?;
    }
    let recovery_code = match body.password {
        Some(password) => {
            Some(app.auth().reset_password(Authority::of(&me.store)?, id, password, None).await?.reveal())
        }
        None => None,
    };
    Ok(axum::Json(ChangedAccount { user: (&user).into(), recovery_code }))
}

/// Deletes an account and everything in it.
#[utoipa::path(delete, path = "/api/admin/users/{id}", tag = "admin",
    params(("id" = String, Path, format = "uuid")), responses((status = 204)))]
pub(crate) async fn delete_user(
    State(app): State<App>,
    Admin(me): Admin,
    Id(id): Id<UserId>,
) -> Result<StatusCode, ApiError> {
    app.auth().delete_account(Authority::of(&me.store)?, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An invitation without its code.
#[derive(Serialize, ToSchema)]
pub(crate) struct Invite {
    #[schema(format = "uuid")]
    id: String,
    /// What the invited will be.
    role: String,
    #[schema(format = "date-time")]
    created_at: String,
    #[schema(format = "date-time")]
    expires_at: String,
    /// What to hand on; only in the answer that makes it.
    #[serde(rename = "invite", skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

/// Every open invitation.
#[derive(Serialize, ToSchema)]
pub(crate) struct InviteList {
    invites: Vec<Invite>,
}

/// Open invitations, oldest first.
#[utoipa::path(get, path = "/api/admin/invites", tag = "admin", responses((status = 200, body = InviteList)))]
pub(crate) async fn invites(
    State(app): State<App>,
    Admin(me): Admin,
) -> Result<axum::Json<InviteList>, ApiError> {
    let invites = app.auth().invites(Authority::of(&me.store)?).await?;
    Ok(axum::Json(InviteList { invites: invites.iter().map(|info| invite(info, None)).collect() }))
}

/// Whom to invite.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InviteForm {
    /// `admin`, `member` or `child`; member if absent.
    role: Option<String>,
}

/// Makes an invitation; its code is shown once.
#[utoipa::path(post, path = "/api/admin/invites", tag = "admin", request_body = InviteForm,
    responses((status = 201, body = Invite)))]
pub(crate) async fn create_invite(
    State(app): State<App>,
    Admin(me): Admin,
    Json(form): Json<InviteForm>,
) -> Result<(StatusCode, axum::Json<Invite>), ApiError> {
    let role = parse_role(form.role.as_deref())?.unwrap_or(Role::Member);
    let (info, code) = app.auth().invite(Authority::of(&me.store)?, role).await?;
    Ok((StatusCode::CREATED, axum::Json(invite(&info, Some(code.reveal())))))
}

/// Takes an invitation back.
#[utoipa::path(delete, path = "/api/admin/invites/{id}", tag = "admin",
    params(("id" = String, Path, format = "uuid")), responses((status = 204)))]
pub(crate) async fn delete_invite(
    State(app): State<App>,
    Admin(me): Admin,
    Id(id): Id<InviteId>,
) -> Result<StatusCode, ApiError> {
    app.auth().delete_invite(Authority::of(&me.store)?, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn invite(info: &crate::store::InviteInfo, code: Option<String>) -> Invite {
    Invite {
        id: info.id.to_string(),
        role: info.role.to_string(),
        created_at: info.created_at.to_string(),
        expires_at: info.expires_at.to_string(),
        code,
    }
}

fn parse_role(raw: Option<&str>) -> Result<Option<Role>, ApiError> {
    Ok(raw.map(str::parse).transpose()?)
}

/// How the house is doing.
#[derive(Serialize, ToSchema)]
pub(crate) struct Status {
    version: String,
    uptime_s: u64,
    /// `ok` or what is wrong with the store.
    store: String,
    store_file_bytes: u64,
    n_users: u64,
    n_streams_open: i64,
    /// `loading`, `ready` or why it failed.
    model_state: String,
    model: Option<ModelStatus>,
    n_generations_running: usize,
    n_generations_queued: usize,
    /// `open`, `invite` or `closed`.
    signup: String,
}

/// Which model answers.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelStatus {
    name: String,
    architecture: String,
    quantization: String,
    n_ctx: usize,
    n_params: u64,
    size_bytes: u64,
    backend: String,
}

/// Health and sizes, for the admin's page.
#[utoipa::path(get, path = "/api/admin/status", tag = "admin", responses((status = 200, body = Status)))]
pub(crate) async fn status(State(app): State<App>, _: Admin) -> Result<axum::Json<Status>, ApiError> {
    let store = app.store().clone();
    let (health, sizes) = tokio::task::spawn_blocking(move || (store.healthy(), store.metrics())).await?;
    let engine = app.engine().metrics();
    let model = app.engine().model_info().map(|m| ModelStatus {
        name: m.name.clone(),
        architecture: m.architecture.clone(),
        quantization: m.quantization.clone(),
        n_ctx: m.n_ctx,
        n_params: m.n_params,
        size_bytes: m.size_bytes,
        backend: m.backend.clone(),
    });
    Ok(axum::Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: app.http_metrics().uptime().as_secs(),
        store: health.map_or_else(|e| e.to_string(), |()| "ok".to_owned()),
        store_file_bytes: sizes.file_bytes,
        n_users: sizes.n_users,
        n_streams_open: app.http_metrics().n_open_streams(),
        model_state: model_state(&app),
        model,
        n_generations_running: engine.running,
        n_generations_queued: engine.queued,
        signup: app.auth().signup_mode().as_str().to_owned(),
    }))
}
