//! Coming in and going out: sign-up, sign-in, recovery, sign-out.

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::error::ApiError;
use super::extract::{Json, MAX_AUTH_BODY_BYTES, NoBody};
use super::hosts::Client;
use super::who::{Me, no_cookie, presented_session, session_cookie};
use super::wire;
use crate::auth::{Device, SignUp, SignedUp};
use crate::domain::Email;

/// Longest `User-Agent` that names a session in the list of sessions.
const MAX_AGENT_BYTES: usize = 256;

/// A sign-up form.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignUpForm {
    email: String,
    /// 8 to 1,024 bytes, taken as typed.
    password: String,
    full_name: Option<String>,
    /// An invitation's code, where sign-up is by invitation.
    invite: Option<String>,
    /// The code on the server's console, for the first account of a server that others can reach.
    setup_code: Option<String>,
}

/// Somebody who came in.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignedInAnswer {
    user: wire::User,
    /// For programs, as `Authorization: Bearer`; a browser has it in the cookie.
    session_token: String,
}

/// Somebody who came in and must keep a recovery code.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignedUpAnswer {
    user: wire::User,
    /// For programs, as `Authorization: Bearer`; a browser has it in the cookie.
    session_token: String,
    /// Shown once: without it a forgotten password loses the chats.
    recovery_code: String,
}

/// Makes an account and signs it in.
#[utoipa::path(post, path = "/api/auth/signup", tag = "auth", security(()), request_body = SignUpForm,
    responses((status = 201, body = SignedUpAnswer)))]
pub(crate) async fn sign_up(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    Json(form): Json<SignUpForm, MAX_AUTH_BODY_BYTES>,
) -> Result<Response, ApiError> {
    let form = SignUp {
        email: Email::parse(&form.email)?,
        password: form.password,
        full_name: form.full_name.unwrap_or_default(),
        invite: form.invite,
        setup_code: form.setup_code,
    };
    let signed_up = app.auth().sign_up(form, &device(&client, &headers)).await?;
    Ok(signed_up_answer(StatusCode::CREATED, &signed_up, &client))
}

/// Who wants to come in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignInForm {
    email: String,
    password: String,
}

/// Signs in. An unknown address and a wrong password get the same answer.
#[utoipa::path(post, path = "/api/auth/signin", tag = "auth", security(()), request_body = SignInForm,
    responses((status = 200, body = SignedInAnswer)))]
pub(crate) async fn sign_in(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    Json(form): Json<SignInForm, MAX_AUTH_BODY_BYTES>,
) -> Result<Response, ApiError> {
    let email = Email::parse(&form.email)?;
    let signed_in = app.auth().sign_in(&email, form.password, &device(&client, &headers)).await?;
    let answer = SignedInAnswer { user: (&signed_in.user).into(), session_token: signed_in.token.reveal() };
    let cookie = session_cookie(&signed_in.token, &client);
    Ok(([(header::SET_COOKIE, cookie)], axum::Json(answer)).into_response())
}

/// A forgotten password and the printed code.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecoverForm {
    email: String,
    recovery_code: String,
    new_password: String,
}

/// Sets a new password with the recovery code, gives a new code, ends every session, signs in.
#[utoipa::path(post, path = "/api/auth/recover", tag = "auth", security(()), request_body = RecoverForm,
    responses((status = 200, body = SignedUpAnswer)))]
pub(crate) async fn recover(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    Json(form): Json<RecoverForm, MAX_AUTH_BODY_BYTES>,
) -> Result<Response, ApiError> {
    let email = Email::parse(&form.email)?;
    let device = device(&client, &headers);
    let back = app.auth().recover(&email, &form.recovery_code, form.new_password, &device).await?;
    Ok(signed_up_answer(StatusCode::OK, &back, &client))
}

/// Ends this session.
#[utoipa::path(post, path = "/api/auth/signout", tag = "auth", responses((status = 204)))]
pub(crate) async fn sign_out(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    me: Me,
    _: NoBody,
) -> Result<Response, ApiError> {
    app.auth().sign_out(&me.store).await?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, no_cookie(&client))]).into_response())
}

fn signed_up_answer(status: StatusCode, signed_up: &SignedUp, client: &Client) -> Response {
    let answer = SignedUpAnswer {
        user: (&signed_up.user).into(),
        session_token: signed_up.token.reveal(),
        recovery_code: signed_up.recovery_code.reveal(),
    };
    let cookie = session_cookie(&signed_up.token, client);
    (status, [(header::SET_COOKIE, cookie)], axum::Json(answer)).into_response()
}

fn device(client: &Client, headers: &HeaderMap) -> Device {
    let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let label = agent.get(..MAX_AGENT_BYTES.min(agent.len())).unwrap_or("").to_owned();
    Device { peer: client.ip, label, replaces: presented_session(headers, client.secure) }
}
