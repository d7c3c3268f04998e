//! What Ollama's clients may ask for, field by field: honoured, or refused by name.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::App;
use super::error::ApiError;
use super::ollama_answer::{Shape, Style};
use super::sampling::with_sampling;
use crate::chat::ChatError;
use crate::chat::plain::{Given, PlainRequest, Speaker, ToolChat, Turn};
use crate::engine::grammar::Form;
use crate::engine::{ModelInfo, SamplingParams};

/// Most turns of a request: far more than any context holds.
const MAX_TURNS: usize = 4096;

/// What `/api/chat` (with `messages`) and `/api/generate` (with `prompt`) read.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OllamaRequest {
    /// The loaded model's name, with or without `:latest`.
    pub(super) model: String,
    /// None loads the model, which it always is.
    messages: Option<Vec<OllamaTurn>>,
    /// None or an empty one loads the model, which it always is.
    prompt: Option<String>,
    /// With `prompt`.
    system: Option<String>,
    /// The prompt is taken as it is, without the model's template.
    raw: Option<bool>,
    /// Only an empty one.
    suffix: Option<String>,
    /// Only an empty one: no program brings a template.
    template: Option<String>,
    /// Only an empty list; `messages` carry what was said.
    context: Option<Vec<u32>>,
    /// Only an empty list.
    images: Option<Vec<Value>>,
    /// Functions; for models whose template knows them.
    tools: Option<Vec<Value>>,
    /// True if absent.
    stream: Option<bool>,
    /// `json`, or a JSON schema.
    #[schema(value_type = Option<Value>)]
    format: Option<Value>,
    options: Option<Options>,
    /// Whether thoughts are shown; they are, if absent.
    think: Option<bool>,
    /// The model is never unloaded, so it is kept at least this long.
    #[expect(dead_code, reason = "the model stays loaded whatever it says")]
    #[schema(value_type = Option<Value>)]
    keep_alive: Option<Value>,
}

/// One turn of a conversation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OllamaTurn {
    /// `system`, `user`, `assistant` or `tool`.
    role: String,
    #[serde(default)]
    content: String,
    /// What the assistant thought.
    thinking: Option<String>,
    /// Functions that the assistant called.
    tool_calls: Option<Vec<Value>>,
    /// Which function a `tool` turn answers.
    tool_name: Option<String>,
    /// Only an empty list.
    images: Option<Vec<Value>>,
}

with_sampling! {
    /// How tokens are chosen.
    #[derive(Deserialize, ToSchema, Default)]
    #[serde(deny_unknown_fields)]
    struct Options {
        /// At most what the loaded model has, which is what it gets.
        num_ctx: Option<usize>,
        /// Most tokens; negative ones mean as many as fit.
        num_predict: Option<i64>,
        /// Tokens back that `repeat_penalty` looks; -1 for the whole context.
        repeat_last_n: Option<i64>,
        stop: Option<Vec<String>>,
    }
}

/// The loaded model, if it is the one that is named.
pub(super) fn named(app: &App, wanted: &str) -> Result<Arc<ModelInfo>, ApiError> {
    let info = app.engine().model_info().ok_or(ChatError::NotReady)?;
    if wanted == info.name || wanted.strip_suffix(":latest") == Some(&info.name) {
        return Ok(info);
    }
    let why = format!("There is no model {wanted:?} here; the one that answers is {:?}.", info.name);
    Err(ApiError::new(StatusCode::NOT_FOUND, "model_not_found", why))
}

impl OllamaRequest {
    /// Whether it only asks for the model to be loaded.
    pub(super) fn only_loads(&self) -> bool {
        self.messages.as_ref().is_none_or(Vec::is_empty) && self.prompt.as_ref().is_none_or(String::is_empty)
    }

    /// Checks what stands in contradiction, and what is beyond this server.
    ///
    /// # Errors
    /// The first such field.
    pub(super) fn parse(self, shape: Shape, info: &ModelInfo) -> Result<(PlainRequest, Style), ApiError> {
        self.refuse_what_we_lack(shape)?;
        let style =
            Style { shape, streams: self.stream.unwrap_or(true), shows_thoughts: self.think.unwrap_or(true) };
        let form = match self.format {
            None | Some(Value::Null) => None,
            Some(Value::String(word)) if word.is_empty() => None,
            Some(Value::String(word)) if word == "json" => Some(Form::JsonObject),
            Some(schema @ Value::Object(_)) => Some(Form::JsonSchema(schema)),
            Some(_) => return Err(ApiError::invalid("format", "must be json or a JSON schema")),
        };
        let options = self.options.unwrap_or_default();
        let given = match shape {
            Shape::Chat => chat(self.messages.unwrap_or_default(), self.tools.unwrap_or_default())?,
            Shape::Generate => prompt(self.system, self.prompt.unwrap_or_default(), self.raw == Some(true)),
        };
        let max_tokens = options.check(info)?;
        let stop = options.stop.clone().unwrap_or_default();
        let n_ctx = info.n_ctx;
        let sampling = Box::new(move |usual: &mut SamplingParams| options.apply(usual, n_ctx));
        Ok((PlainRequest { given, sampling, stop, max_tokens, form, logprobs: None }, style))
    }

    fn refuse_what_we_lack(&self, shape: Shape) -> Result<(), ApiError> {
        let lacks = |field: &str, why: &str| Err(ApiError::invalid(field, why));
        let says = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
        if says(&self.suffix) {
            return lacks("suffix", "is not read here");
        }
        if says(&self.template) {
            return lacks("template", "is the model's own here");
        }
        if self.context.as_ref().is_some_and(|c| !c.is_empty()) {
            return lacks("context", "is not read here; send messages");
        }
        let turns = self.messages.iter().flatten();
        let mut images = turns.filter_map(|t| t.images.as_ref()).chain(&self.images);
        if images.any(|i| !i.is_empty()) {
            return lacks("images", "are not seen here");
        }
        let is_chat = shape == Shape::Chat;
        if is_chat && (says(&self.prompt) || says(&self.system) || self.raw == Some(true)) {
            return lacks("prompt", "and system and raw belong to /api/generate");
        }
        if !is_chat && (self.messages.is_some() || self.tools.is_some()) {
            return lacks("messages", "and tools belong to /api/chat");
        }
        Ok(())
    }
}

impl Options {
    /// Refuses what cannot be had; the most tokens to generate.
    fn check(&self, info: &ModelInfo) -> Result<Option<usize>, ApiError> {
        if self.num_ctx.is_some_and(|n| n > info.n_ctx) {
            let why = format!("is more than the {} that this server keeps", info.n_ctx);
            return Err(ApiError::invalid("options.num_ctx", &why));
        }
        match self.num_predict {
            None | Some(..0) => Ok(None),
            Some(0) => Err(ApiError::invalid("options.num_predict", "must not be 0")),
            Some(n) => Ok(usize::try_from(n).ok()),
        }
    }

    fn apply(self, usual: &mut SamplingParams, n_ctx: usize) {
        self.sampling()(usual);
        if let Some(n) = self.repeat_last_n {
            usual.repeat_last_n = usize::try_from(n).unwrap_or(n_ctx);
        }
    }
}

fn prompt(system: Option<String>, prompt: String, is_raw: bool) -> Given {
    if is_raw {
        return Given::Text(prompt);
    }
    let system = system.filter(|s| !s.is_empty()).map(|s| Turn::new(Speaker::System, s));
    Given::Chat(system.into_iter().chain([Turn::new(Speaker::User, prompt)]).collect())
}

/// Plain turns where that is all there is, else a chat with functions.
fn chat(turns: Vec<OllamaTurn>, tools: Vec<Value>) -> Result<Given, ApiError> {
    if turns.len() > MAX_TURNS {
        return Err(ApiError::invalid("messages", &format!("must have at most {MAX_TURNS} turns")));
    }
    let calls = |t: &OllamaTurn| t.tool_calls.as_ref().is_some_and(|c| !c.is_empty());
    let is_plain = |t: &OllamaTurn| t.role != "tool" && !calls(t) && t.thinking.is_none();
    if tools.is_empty() && turns.iter().all(is_plain) {
        let parse = |(i, turn): (usize, OllamaTurn)| {
            let speaker = match turn.role.as_str() {
                "system" => Speaker::System,
                "user" => Speaker::User,
                "assistant" => Speaker::Assistant,
                _ => return Err(unknown_role(i)),
            };
            Ok(Turn::new(speaker, turn.content))
        };
        return turns.into_iter().enumerate().map(parse).collect::<Result<_, _>>().map(Given::Chat);
    }
    let parse = |(i, turn): (usize, OllamaTurn)| {
        if !["system", "user", "assistant", "tool"].contains(&turn.role.as_str()) {
            return Err(unknown_role(i));
        }
        let mut message = json!({"role": turn.role, "content": turn.content});
        if let Some(thought) = turn.thinking {
            message["reasoning_content"] = json!(thought);
        }
        if let Some(calls) = turn.tool_calls.filter(|c| !c.is_empty()) {
            message["tool_calls"] = json!(calls);
        }
        if let Some(name) = turn.tool_name {
            message["name"] = json!(name);
        }
        Ok(message)
    };
    let messages = turns.into_iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    Ok(Given::Tools(ToolChat { messages, tools }))
}

fn unknown_role(i: usize) -> ApiError {
    ApiError::invalid(&format!("messages[{i}].role"), "must be system, user, assistant or tool")
}
