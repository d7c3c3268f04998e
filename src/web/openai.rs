//! `/v1`: the shapes that programs written for OpenAI's API speak. Nothing is stored.
//!
//! Every field is honoured or refused, none ignored: a program that asks for what this server cannot do is told so.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::error::ApiError;
use super::extract::{MAX_MESSAGE_BODY_BYTES, parse_json, read_body};
use super::openai_answer::{self, OpenAiError, Shape};
use super::openai_request::CompletionRequest;
use super::who::Caller;

/// A model as `/v1/models` lists it.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelEntry {
    id: String,
    /// `model`
    object: &'static str,
    created: i64,
    /// `mommygpt`
    owned_by: &'static str,
}

/// Every model that answers: the one that is loaded.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    /// `list`
    object: &'static str,
    data: Vec<ModelEntry>,
}

/// The loaded model.
#[utoipa::path(get, path = "/v1/models", tag = "openai", security(("session" = []), ("api_key" = [])),
    responses((status = 200, body = ModelList)))]
pub(crate) async fn models(
    State(app): State<App>,
    caller: Result<Caller, ApiError>,
) -> Result<axum::Json<ModelList>, OpenAiError> {
    caller?.refuse_child("use the programs' interface")?;
    let entry = |info: std::sync::Arc<crate::engine::ModelInfo>| ModelEntry {
        id: info.name.clone(),
        object: "model",
        created: openai_answer::now_s(),
        owned_by: "mommygpt",
    };
    let data = app.engine().model_info().map(entry).into_iter().collect();
    Ok(axum::Json(ModelList { object: "list", data }))
}

/// Continues a conversation.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "openai", security(("session" = []), ("api_key" = [])),
    request_body = CompletionRequest,
    responses((status = 200, content((Value = "application/json"), (String = "text/event-stream")))))]
pub(crate) async fn chat_completions(
    State(app): State<App>,
    caller: Result<Caller, ApiError>,
    request: Request,
) -> Result<Response, OpenAiError> {
    complete(&app, caller, request, Shape::Chat).await
}

/// Continues a text.
#[utoipa::path(post, path = "/v1/completions", tag = "openai", security(("session" = []), ("api_key" = [])),
    request_body = CompletionRequest,
    responses((status = 200, content((Value = "application/json"), (String = "text/event-stream")))))]
pub(crate) async fn completions(
    State(app): State<App>,
    caller: Result<Caller, ApiError>,
    request: Request,
) -> Result<Response, OpenAiError> {
    complete(&app, caller, request, Shape::Text).await
}

async fn complete(
    app: &App,
    caller: Result<Caller, ApiError>,
    request: Request,
    shape: Shape,
) -> Result<Response, OpenAiError> {
    let caller = caller?;
    caller.refuse_child("use the programs' interface")?;
    let bytes = read_body(request.into_body(), MAX_MESSAGE_BODY_BYTES).await?;
    let asked: CompletionRequest = parse_json(&bytes)?;
    check_model(app, asked.model.as_deref())?;
    let streams = asked.stream.unwrap_or(false);
    let (request, style) = asked.parse(shape, app.engine())?;
    let reply = app.chat().plain(&caller.store, request).await?;
    if streams {
        Ok(openai_answer::stream(app, &caller, reply, style))
    } else {
        openai_answer::whole(app, reply, style).await
    }
}

/// Refuses a model that is not the loaded one.
pub(super) fn check_model(app: &App, wanted: Option<&str>) -> Result<(), ApiError> {
    let loaded = app.engine().model_info().map(|info| info.name.clone());
    if let (Some(wanted), Some(loaded)) = (wanted, &loaded)
        && wanted != loaded
    {
        let why = format!("There is no model {wanted:?} here; the one that answers is {loaded:?}.");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "model_not_found", why));
    }
    Ok(())
}
