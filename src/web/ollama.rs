//! Ollama's shapes, for phone apps that speak nothing else; only with `--ollama`. Nothing is stored.
//!
//! The same API key as for `/v1` opens them, as a bearer. As there, every field is honoured or refused.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::App;
use super::assets;
use super::error::ApiError;
use super::extract::{MAX_MESSAGE_BODY_BYTES, parse_json, read_body};
use super::ollama_answer::{self, Shape};
use super::ollama_request::{OllamaRequest, named};
use super::who::Caller;
use crate::domain::Timestamp;
use crate::engine::ModelInfo;

/// A refusal as Ollama's clients read it: one sentence.
pub(crate) struct OllamaError(ApiError);

impl<E: Into<ApiError>> From<E> for OllamaError {
    fn from(e: E) -> Self {
        let mut e = e.into();
        // What is 422 in the native API is 400 there.
        if e.status == StatusCode::UNPROCESSABLE_ENTITY {
            e.status = StatusCode::BAD_REQUEST;
        }
        Self(e)
    }
}

impl OllamaError {
    /// The line that ends a stream that broke.
    pub(super) fn body(&self) -> Value {
        json!({"error": self.0.message})
    }
}

impl IntoResponse for OllamaError {
    fn into_response(self) -> Response {
        let body = Json(self.body());
        // The status and headers are those of every refusal.
        let (mut parts, _) = self.0.into_response().into_parts();
        parts.headers.remove(header::CONTENT_LENGTH);
        (parts.status, parts.headers, body).into_response()
    }
}

async fn body<T: serde::de::DeserializeOwned>(
    caller: Result<Caller, ApiError>,
    request: Request,
) -> Result<(Caller, T), OllamaError> {
    let caller = caller?;
    caller.refuse_child("use the programs' interface")?;
    let bytes = read_body(request.into_body(), MAX_MESSAGE_BODY_BYTES).await?;
    Ok((caller, parse_json(&bytes)?))
}

/// Continues a conversation.
#[utoipa::path(post, path = "/api/chat", tag = "ollama", security(("session" = []), ("api_key" = [])),
    request_body = OllamaRequest,
    responses((status = 200, content((Value = "application/json"), (String = "application/x-ndjson")))))]
pub(crate) async fn chat(
    State(app): State<App>,
    caller: Result<Caller, ApiError>,
    request: Request,
) -> Result<Response, OllamaError> {
    complete(&app, caller, request, Shape::Chat).await
}

/// Answers one prompt.
#[utoipa::path(post, path = "/api/generate", tag = "ollama", security(("session" = []), ("api_key" = [])),
    request_body = OllamaRequest,
    responses((status = 200, content((Value = "application/json"), (String = "application/x-ndjson")))))]
pub(crate) async fn generate(
    State(app): State<App>,
    caller: Result<Caller, ApiError>,
    request: Request,
) -> Result<Response, OllamaError> {
    complete(&app, caller, request, Shape::Generate).await
}

async fn complete(
    app: &App,
    caller: Result<Caller, ApiError>,
    request: Request,
    shape: Shape,
) -> Result<Response, OllamaError> {
    let (caller, asked) = body::<OllamaRequest>(caller, request).await?;
    let info = named(app, &asked.model)?;
    if asked.only_loads() {
        return Ok(ollama_answer::loaded(&info.name, shape));
    }
    let (request, style) = asked.parse(shape, &info)?;
    let reply = app.chat().plain(&caller.store, request).await?;
    ollama_answer::answer(app, &caller, reply, style).await
}

/// The loaded model, in the list of models.
#[utoipa::path(get, path = "/api/tags", tag = "ollama", security(("session" = []), ("api_key" = [])),
    responses((status = 200, body = Value)))]
pub(crate) async fn tags(
    State(app): State<App>,
    caller: Result<Caller, ApiError>,
) -> Result<Json<Value>, OllamaError> {
    caller?.refuse_child("use the programs' interface")?;
    let model = |info: std::sync::Arc<ModelInfo>| {
        json!({
            "name": info.name,
            "model": info.name,
            "modified_at": Timestamp::now().to_string(),
            "size": info.size_bytes,
            // No digest is computed of a model while it serves; clients only show it.
            "digest": "",
            "details": details(&info),
        })
    };
    let models: Vec<Value> = app.engine().model_info().map(model).into_iter().collect();
    Ok(Json(json!({"models": models})))
}

/// Which model is asked about.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowRequest {
    model: Option<String>,
    /// The old name of `model`.
    name: Option<String>,
    /// Changes nothing: everything known is told.
    #[expect(dead_code, reason = "there is no longer form of the answer")]
    verbose: Option<bool>,
}

/// What a model is.
#[utoipa::path(post, path = "/api/show", tag = "ollama", security(("session" = []), ("api_key" = [])),
    request_body = ShowRequest, responses((status = 200, body = Value)))]
pub(crate) async fn show(
    State(app): State<App>,
    caller: Result<Caller, ApiError>,
    request: Request,
) -> Result<Json<Value>, OllamaError> {
    let (_, asked) = body::<ShowRequest>(caller, request).await?;
    let wanted = asked.model.or(asked.name).ok_or_else(|| ApiError::invalid("model", "must be given"))?;
    let info = named(&app, &wanted)?;
    let mut capabilities = vec!["completion"];
    if app.engine().text().is_some_and(|text| text.template.calls_tools()) {
        capabilities.push("tools");
    }
    let architecture = &info.architecture;
    let mut known = serde_json::Map::new();
    known.insert("general.architecture".into(), json!(architecture));
    known.insert("general.parameter_count".into(), json!(info.n_params));
    known.insert(format!("{architecture}.context_length"), json!(info.n_ctx_train));
    Ok(Json(json!({
        "modelfile": "",
        "parameters": format!("num_ctx {}", info.n_ctx),
        "template": "",
        "modified_at": Timestamp::now().to_string(),
        "details": details(&info),
        "model_info": known,
        "capabilities": capabilities,
    })))
}

/// This server's version; it is no Ollama.
#[utoipa::path(get, path = "/api/version", tag = "ollama", security(("session" = []), ("api_key" = [])),
    responses((status = 200, body = Value)))]
pub(crate) async fn version(caller: Result<Caller, ApiError>) -> Result<Json<Value>, OllamaError> {
    caller?;
    Ok(Json(json!({"version": env!("CARGO_PKG_VERSION")})))
}

fn details(info: &ModelInfo) -> Value {
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": info.architecture,
        "families": [info.architecture],
        "parameter_size": format!("{:.1}M", info.n_params as f64 / 1e6),
        "quantization_level": info.quantization,
    })
}

/// `GET /` in Ollama's words for whoever does not ask for a page; everything else as without Ollama.
pub(crate) async fn root_or_assets(request: Request) -> Response {
    let accepts_page = request
        .headers()
        .get_all(header::ACCEPT)
        .iter()
        .any(|v| v.to_str().is_ok_and(|accept| accept.contains("text/html")));
    if request.uri().path() == "/" && !accepts_page {
        return (StatusCode::OK, "Ollama is running").into_response();
    }
    assets::serve(request).await
}
