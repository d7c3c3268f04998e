//! The shapes that go over the wire. Domain types do not know JSON; here each gets its outer form, once.
//!
//! Times are RFC 3339 in UTC, ids are hyphenated UUIDs, words are the domain's own.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain;

/// A person's profile.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct User {
    #[schema(format = "uuid")]
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) full_name: String,
    /// `color:#rrggbb` or a small picture as a `data:` URL.
    pub(crate) avatar_url: Option<String>,
    /// `admin`, `member` or `child`.
    pub(crate) role: String,
    /// `mom`, `dad` or `parent`.
    pub(crate) persona: String,
    #[schema(format = "date-time")]
    pub(crate) created_at: String,
    #[schema(format = "date-time")]
    pub(crate) updated_at: String,
}

impl From<&domain::User> for User {
    fn from(user: &domain::User) -> Self {
        Self {
            id: user.id.to_string(),
            email: user.email.as_str().to_owned(),
            full_name: user.full_name.clone(),
            avatar_url: user.avatar_url.clone(),
            role: user.role.to_string(),
            persona: user.persona.to_string(),
            created_at: user.created_at.to_string(),
            updated_at: user.updated_at.to_string(),
        }
    }
}

/// A chat; `messages` only where they were asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Chat {
    #[schema(format = "uuid")]
    pub(crate) id: String,
    #[schema(format = "uuid")]
    pub(crate) user_id: String,
    pub(crate) title: String,
    #[schema(format = "date-time")]
    pub(crate) created_at: String,
    #[schema(format = "date-time")]
    pub(crate) updated_at: String,
    pub(crate) pinned: bool,
    pub(crate) archived: bool,
    /// The newest ones, oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) messages: Option<Vec<Message>>,
}

impl From<&domain::Chat> for Chat {
    fn from(chat: &domain::Chat) -> Self {
        Self {
            id: chat.id.to_string(),
            user_id: chat.user_id.to_string(),
            title: chat.title.as_str().to_owned(),
            created_at: chat.created_at.to_string(),
            updated_at: chat.updated_at.to_string(),
            pinned: chat.pinned,
            archived: chat.archived,
            messages: None,
        }
    }
}

/// One message. Fields that say how an answer came about are left out where there is nothing to say.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Message {
    #[schema(format = "uuid")]
    pub(crate) id: String,
    #[schema(format = "uuid")]
    pub(crate) chat_id: String,
    /// The message it answers or follows; siblings share it.
    #[schema(format = "uuid")]
    pub(crate) parent_id: Option<String>,
    pub(crate) content: String,
    pub(crate) is_user: bool,
    #[schema(format = "date-time")]
    pub(crate) created_at: String,
    /// `stop`, `length`, `cancelled` or `error`; absent while an answer is being generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) finish_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timings: Option<Timings>,
    /// Kind of danger seen; the crisis card of that kind is shown beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) safety: Option<String>,
    /// `written`: taken over whole from the written collection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// True where older exchanges were left out of the prompt.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) truncated: bool,
}

impl From<&domain::Message> for Message {
    fn from(message: &domain::Message) -> Self {
        Self {
            id: message.id.to_string(),
            chat_id: message.chat_id.to_string(),
            parent_id: message.parent_id.map(|id| id.to_string()),
            content: message.content.clone(),
            is_user: message.is_user,
            created_at: message.created_at.to_string(),
            finish_reason: message.finish_reason.map(|r| r.to_string()),
            timings: message.timings.as_ref().map(Timings::from),
            safety: message.safety.clone(),
            source: message.source.map(|s| s.to_string()),
            truncated: message.truncated,
        }
    }
}

/// How fast an answer was; the names are llama.cpp's, the times milliseconds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Timings {
    pub(crate) cache_n: u32,
    pub(crate) prompt_n: u32,
    pub(crate) prompt_ms: f64,
    pub(crate) prompt_per_token_ms: f64,
    pub(crate) prompt_per_second: f64,
    pub(crate) predicted_n: u32,
    pub(crate) predicted_ms: f64,
    pub(crate) predicted_per_token_ms: f64,
    pub(crate) predicted_per_second: f64,
}

impl From<&domain::Timings> for Timings {
    fn from(t: &domain::Timings) -> Self {
        // Nothing evaluated took no time; JSON has no infinity.
        let per = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        let (prompt_ms, predicted_ms) = (f64::from(t.prompt_ms), f64::from(t.predicted_ms));
        let (prompt_n, predicted_n) = (f64::from(t.prompt_n), f64::from(t.predicted_n));
        Self {
            cache_n: t.cache_n,
            prompt_n: t.prompt_n,
            prompt_ms,
            prompt_per_token_ms: per(prompt_ms, prompt_n),
            prompt_per_second: per(1e3 * prompt_n, prompt_ms),
            predicted_n: t.predicted_n,
            predicted_ms,
            predicted_per_token_ms: per(predicted_ms, predicted_n),
            predicted_per_second: per(1e3 * predicted_n, predicted_ms),
        }
    }
}

/// A fact that the parent keeps.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Memory {
    #[schema(format = "uuid")]
    pub(crate) id: String,
    pub(crate) content: String,
    /// The message it came from; null where the person typed it in.
    #[schema(format = "uuid")]
    pub(crate) chat_id: Option<String>,
    #[schema(format = "uuid")]
    pub(crate) message_id: Option<String>,
    #[schema(format = "date-time")]
    pub(crate) created_at: String,
    #[schema(format = "date-time")]
    pub(crate) updated_at: String,
}

impl From<&domain::Memory> for Memory {
    fn from(memory: &domain::Memory) -> Self {
        Self {
            id: memory.id.to_string(),
            content: memory.content.clone(),
            chat_id: memory.origin.map(|(chat, _)| chat.to_string()),
            message_id: memory.origin.map(|(_, message)| message.to_string()),
            created_at: memory.created_at.to_string(),
            updated_at: memory.updated_at.to_string(),
        }
    }
}

/// How tokens were chosen, as requests name it; a seed that nobody gave is not known.
pub(crate) fn sampling(params: &crate::engine::SamplingParams) -> serde_json::Value {
    let biases = params.logit_bias.iter().map(|(id, bias)| (id.to_string(), serde_json::json!(bias)));
    serde_json::json!({
        "temperature": params.temperature,
        "top_k": params.top_k,
        "top_p": params.top_p,
        "min_p": params.min_p,
        "repeat_penalty": params.repeat_penalty,
        "repeat_last_n": params.repeat_last_n,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "seed": params.seed,
        "logit_bias": biases.collect::<serde_json::Map<_, _>>(),
    })
}
