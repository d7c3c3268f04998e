//! `/v1`: the shapes that programs written for OpenAI's API speak. Nothing is stored.
//!
//! Every field is honoured or refused, none ignored: a program that asks for what this server cannot do is told so.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::App;
use super::error::ApiError;
use super::extract::{MAX_MESSAGE_BODY_BYTES, parse_json, read_body};
use super::openai_answer::{self, OpenAiError, Shape};
use super::who::Caller;
use crate::chat::plain::{Given, PlainRequest, Speaker, Turn};
use crate::engine::SamplingParams;

/// Most turns of a request: far more than any context holds.
const MAX_TURNS: usize = 4096;

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

/// What `/v1/chat/completions` (with `messages`) and `/v1/completions` (with `prompt`) read.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompletionRequest {
    /// The loaded model's id, or absent.
    model: Option<String>,
    messages: Option<Vec<ChatTurn>>,
    prompt: Option<String>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    seed: Option<u64>,
    /// One string or a list of at most 16.
    #[schema(value_type = Option<Value>)]
    stop: Option<Stop>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// Only 1.
    n: Option<u32>,
    /// Only false: probabilities are not given out.
    logprobs: Option<bool>,
    /// Only `{"type":"text"}`.
    response_format: Option<ResponseFormat>,
    /// Only an empty list.
    tools: Option<Vec<Value>>,
}

/// One turn of a conversation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatTurn {
    /// `system`, `developer`, `user` or `assistant`.
    role: String,
    /// Text, or a list of `{"type":"text","text":...}`.
    #[schema(value_type = Value)]
    content: Content,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Part {
    Text { text: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

/// What else a stream says.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// A last chunk with the numbers of tokens.
    include_usage: Option<bool>,
}

/// In which form the answer comes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResponseFormat {
    /// Only `text`.
    r#type: String,
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
    let model = app.engine().model_info().map(|info| info.name.clone());
    if let (Some(wanted), Some(loaded)) = (&asked.model, &model)
        && wanted != loaded
    {
        let why = format!("There is no model {wanted:?} here; the one that answers is {loaded:?}.");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "model_not_found", why).into());
    }
    asked.refuse_what_we_lack()?;
    let streams = asked.stream.unwrap_or(false);
    let usage = asked.stream_options.as_ref().and_then(|o| o.include_usage);
    if usage.is_some() && !streams {
        return Err(ApiError::invalid("stream_options", "has a meaning only with stream: true").into());
    }
    let reply = app.chat().plain(&caller.store, asked.into_plain(shape)?).await?;
    if streams {
        Ok(openai_answer::stream(app, &caller, reply, shape, usage.unwrap_or(false)))
    } else {
        openai_answer::whole(app, reply, shape).await
    }
}

impl CompletionRequest {
    fn refuse_what_we_lack(&self) -> Result<(), ApiError> {
        let lacks = |field: &str, why: &str| Err(ApiError::invalid(field, why));
        if self.n.is_some_and(|n| n != 1) {
            return lacks("n", "must be 1");
        }
        if self.logprobs == Some(true) {
            return lacks("logprobs", "are not given out here");
        }
        if self.response_format.as_ref().is_some_and(|f| f.r#type != "text") {
            return lacks("response_format", "must be text");
        }
        if self.tools.as_ref().is_some_and(|t| !t.is_empty()) {
            return lacks("tools", "are not called here");
        }
        if self.max_tokens.is_some() && self.max_completion_tokens.is_some() {
            return lacks("max_tokens", "and max_completion_tokens say the same; send one of them");
        }
        if self.max_tokens.or(self.max_completion_tokens) == Some(0) {
            return lacks("max_tokens", "must be at least 1");
        }
        Ok(())
    }

    fn into_plain(self, shape: Shape) -> Result<PlainRequest, ApiError> {
        let given = match (shape, self.messages, self.prompt) {
            (Shape::Chat, Some(turns), None) => Given::Chat(parse_turns(turns)?),
            (Shape::Text, None, Some(text)) => Given::Text(text),
            (Shape::Chat, ..) => return Err(ApiError::invalid("messages", "must be given, and no prompt")),
            (Shape::Text, ..) => {
                return Err(ApiError::invalid("prompt", "must be one string, and no messages"));
            }
        };
        let stop = match self.stop {
            None => Vec::new(),
            Some(Stop::One(one)) => vec![one],
            Some(Stop::Several(several)) => several,
        };
        let sampling = Box::new(move |usual: &mut SamplingParams| {
            usual.temperature = self.temperature.unwrap_or(usual.temperature);
            usual.top_p = self.top_p.unwrap_or(usual.top_p);
            usual.top_k = self.top_k.unwrap_or(usual.top_k);
            usual.min_p = self.min_p.unwrap_or(usual.min_p);
            usual.repeat_penalty = self.repeat_penalty.unwrap_or(usual.repeat_penalty);
            usual.presence_penalty = self.presence_penalty.unwrap_or(usual.presence_penalty);
            usual.frequency_penalty = self.frequency_penalty.unwrap_or(usual.frequency_penalty);
            usual.seed = self.seed.or(usual.seed);
        });
        Ok(PlainRequest { given, sampling, stop, max_tokens: self.max_tokens.or(self.max_completion_tokens) })
    }
}

fn parse_turns(turns: Vec<ChatTurn>) -> Result<Vec<Turn>, ApiError> {
    if turns.is_empty() || turns.len() > MAX_TURNS {
        return Err(ApiError::invalid("messages", &format!("must have 1 to {MAX_TURNS} turns")));
    }
    let parse = |(i, turn): (usize, ChatTurn)| {
        let speaker = match turn.role.as_str() {
            "system" | "developer" => Speaker::System,
            "user" => Speaker::User,
            "assistant" => Speaker::Assistant,
            _ => {
                let place = format!("messages[{i}].role");
                return Err(ApiError::invalid(&place, "must be system, developer, user or assistant"));
            }
        };
        let content = match turn.content {
            Content::Text(text) => text,
            Content::Parts(parts) => parts.into_iter().map(|Part::Text { text }| text).collect(),
        };
        Ok(Turn::new(speaker, content))
    };
    turns.into_iter().enumerate().map(parse).collect()
}
