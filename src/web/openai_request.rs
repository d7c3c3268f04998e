//! What OpenAI's clients may ask for, field by field: honoured, or refused by name.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::error::ApiError;
use super::openai_answer::{Shape, Style};
use super::openai_tools::{self, ToolChoice};
use super::sampling::with_sampling;
use crate::chat::plain::{Given, PlainRequest, Speaker, Turn};
use crate::engine::grammar::Form;
use crate::engine::sampler::{MAX_LOGIT_BIAS, MAX_LOGIT_BIASES};
use crate::engine::{Engine, MAX_TOP_LOGPROBS, SamplingParams, TokenId};

/// Most turns of a request: far more than any context holds.
const MAX_TURNS: usize = 4096;
/// More tokens than any context has. Below it what a context has left decides, because programs ask for a round number.
const MAX_TOKENS_ASKED: usize = 1 << 22;

with_sampling! {
    /// What `/v1/chat/completions` (with `messages`) and `/v1/completions` (with `prompt`) read.
    #[derive(Deserialize, ToSchema)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct CompletionRequest {
        /// The loaded model's id, or absent.
        pub(crate) model: Option<String>,
        messages: Option<Vec<ChatTurn>>,
        /// One string, or a list of one string.
        #[schema(value_type = Option<Value>)]
        prompt: Option<OneOrMore>,
        max_tokens: Option<usize>,
        /// The same as `max_tokens`; one of them.
        max_completion_tokens: Option<usize>,
        /// Token ids as strings, each with a bias from -100 to 100; at most 300.
        #[schema(value_type = Option<std::collections::BTreeMap<String, f32>>)]
        logit_bias: Option<Map<String, Value>>,
        /// The model may not end its answer; `max_tokens`, `stop` and the context do.
        ignore_eos: Option<bool>,
        /// One string or a list of at most 16.
        #[schema(value_type = Option<Value>)]
        stop: Option<OneOrMore>,
        pub(crate) stream: Option<bool>,
        stream_options: Option<StreamOptions>,
        /// Only 1.
        n: Option<u32>,
        /// Only 1; `/v1/completions`.
        best_of: Option<u32>,
        /// Only false; `/v1/completions`.
        echo: Option<bool>,
        /// For chats true or false; for texts how many alternatives are told per token, at most 20.
        #[schema(value_type = Option<Value>)]
        logprobs: Option<Logprobs>,
        /// How many alternatives are told per token, at most 20; with `logprobs: true`.
        top_logprobs: Option<usize>,
        /// `text`, `json_object`, or `json_schema` with a schema.
        response_format: Option<ResponseFormat>,
        /// Functions; for models whose template knows them.
        tools: Option<Vec<Value>>,
        /// `auto`, `none`, `required`, or one function by name.
        tool_choice: Option<Value>,
        /// Only true: a model calls as many functions as it likes.
        parallel_tool_calls: Option<bool>,
        /// Adds `prompt_token_ids`, `token_ids` and `sampling` to an answer that is not streamed: what `mommygpt replay`
        /// reads.
        return_token_ids: Option<bool>,
        /// Only false: nothing is ever stored.
        store: Option<bool>,
    }
}

/// One turn of a conversation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatTurn {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    pub(super) role: String,
    /// Text, or a list of `{"type":"text","text":...}`; absent where the turn only calls functions.
    #[schema(value_type = Option<Value>)]
    content: Option<Content>,
    /// Functions that the assistant called.
    pub(super) tool_calls: Option<Vec<Value>>,
    /// Which call a `tool` turn answers.
    pub(super) tool_call_id: Option<String>,
    /// What the assistant thought.
    pub(super) reasoning_content: Option<String>,
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
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Logprobs {
    Asked(bool),
    Alternatives(usize),
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
    /// `text`, `json_object` or `json_schema`.
    r#type: String,
    json_schema: Option<JsonSchema>,
}

/// A schema that the answer follows.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JsonSchema {
    /// Its name, which changes nothing.
    #[expect(dead_code, reason = "clients must send it; it says nothing about the answer")]
    name: Option<String>,
    /// Words for the model: put them into the messages.
    description: Option<String>,
    /// JSON Schema, at most 64 KiB.
    schema: Option<Value>,
    /// Answers follow the schema whatever this says.
    #[expect(dead_code, reason = "true is what happens, and false asks for no more than that")]
    strict: Option<bool>,
}

impl CompletionRequest {
    /// Checks what stands in contradiction, and what is beyond this server.
    ///
    /// # Errors
    /// The first such field.
    pub(super) fn parse(self, shape: Shape, engine: &Engine) -> Result<(PlainRequest, Style), ApiError> {
        self.refuse_what_we_lack(shape)?;
        let streams = self.stream.unwrap_or(false);
        let usage = self.stream_options.as_ref().and_then(|o| o.include_usage);
        if usage.is_some() && !streams {
            return Err(ApiError::invalid("stream_options", "has a meaning only with stream: true"));
        }
        let with_token_ids = self.return_token_ids.unwrap_or(false);
        if with_token_ids && streams {
            return Err(ApiError::invalid("return_token_ids", "has a meaning only without stream"));
        }
        if with_token_ids && self.response_format.as_ref().is_some_and(|f| f.r#type != "text") {
            return Err(ApiError::invalid("return_token_ids", "is for answers without a response_format"));
        }
        let told = self.told(shape)?;
        let style = Style {
            shape,
            with_usage: usage.unwrap_or(false),
            with_logprobs: told.is_some(),
            with_token_ids,
        };
        let logprobs = told.or(with_token_ids.then_some(0));
        self.into_plain(shape, logprobs, engine).map(|plain| (plain, style))
    }

    fn refuse_what_we_lack(&self, shape: Shape) -> Result<(), ApiError> {
        let lacks = |field: &str, why: &str| Err(ApiError::invalid(field, why));
        if self.n.is_some_and(|n| n != 1) {
            return lacks("n", "must be 1");
        }
        if self.best_of.is_some_and(|n| n != 1) {
            return lacks("best_of", "must be 1");
        }
        if self.echo == Some(true) {
            return lacks("echo", "must be false");
        }
        if self.store == Some(true) {
            return lacks("store", "must be false: nothing is stored");
        }
        if self.parallel_tool_calls == Some(false) {
            return lacks("parallel_tool_calls", "must be true: a model calls as many functions as it likes");
        }
        if self.max_tokens.is_some() && self.max_completion_tokens.is_some() {
            return lacks("max_tokens", "and max_completion_tokens say the same; send one of them");
        }
        for (field, n) in
            [("max_tokens", self.max_tokens), ("max_completion_tokens", self.max_completion_tokens)]
        {
            if n.is_some_and(|n| !(1..=MAX_TOKENS_ASKED).contains(&n)) {
                return lacks(field, &format!("must be from 1 to {MAX_TOKENS_ASKED}"));
            }
        }
        if shape == Shape::Text && (self.tools.is_some() || self.tool_choice.is_some()) {
            return lacks("tools", "belong to chats");
        }
        Ok(())
    }

    /// How many alternatives are told per token, if tokens are told.
    fn told(&self, shape: Shape) -> Result<Option<usize>, ApiError> {
        let too_many = |field: &str| ApiError::invalid(field, &format!("must be at most {MAX_TOP_LOGPROBS}"));
        if self.top_logprobs.is_some_and(|n| n > MAX_TOP_LOGPROBS) {
            return Err(too_many("top_logprobs"));
        }
        match (shape, &self.logprobs, self.top_logprobs) {
            (_, None | Some(Logprobs::Asked(false)), None) => Ok(None),
            (Shape::Chat, Some(Logprobs::Asked(true)), n) => Ok(Some(n.unwrap_or(0))),
            (Shape::Chat, Some(Logprobs::Alternatives(_)), _) => {
                Err(ApiError::invalid("logprobs", "must be true or false; top_logprobs says how many"))
            }
            (Shape::Chat, _, Some(_)) => {
                Err(ApiError::invalid("top_logprobs", "has a meaning only with logprobs: true"))
            }
            (Shape::Text, Some(Logprobs::Alternatives(n)), None) if *n <= MAX_TOP_LOGPROBS => Ok(Some(*n)),
            (Shape::Text, Some(Logprobs::Alternatives(_)), None) => Err(too_many("logprobs")),
            (Shape::Text, Some(Logprobs::Asked(true)), None) => {
                Err(ApiError::invalid("logprobs", "must be a number"))
            }
            (Shape::Text, _, Some(_)) => Err(ApiError::invalid("top_logprobs", "belongs to chats")),
        }
    }

    fn into_plain(
        self,
        shape: Shape,
        logprobs: Option<usize>,
        engine: &Engine,
    ) -> Result<PlainRequest, ApiError> {
        let (said, goes_on) = (self.sampling(), self.ignore_eos == Some(true));
        let choice = ToolChoice::parse(self.tools, self.tool_choice.as_ref())?;
        let mut form = self.response_format.map_or(Ok(None), ResponseFormat::parse)?;
        if let Some(forced) = choice.forced() {
            if form.is_some() {
                return Err(ApiError::invalid(
                    "response_format",
                    "excludes a tool_choice that forces a call",
                ));
            }
            form = Some(forced);
        }
        if goes_on && form.is_some() {
            return Err(ApiError::invalid(
                "ignore_eos",
                "excludes an answer in a given form, which has an end",
            ));
        }
        let given = match (shape, self.messages, self.prompt) {
            (Shape::Chat, Some(turns), None) => given_chat(turns, choice)?,
            (Shape::Text, None, Some(OneOrMore::One(text))) => Given::Text(text),
            (Shape::Text, None, Some(OneOrMore::More(mut list))) if list.len() == 1 => {
                Given::Text(list.remove(0))
            }
            (Shape::Chat, ..) => return Err(ApiError::invalid("messages", "must be given, and no prompt")),
            (Shape::Text, ..) => {
                return Err(ApiError::invalid("prompt", "must be one string, and no messages"));
            }
        };
        let stop = match self.stop {
            None => Vec::new(),
            Some(OneOrMore::One(one)) => vec![one],
            Some(OneOrMore::More(several)) => several,
        };
        let logit_bias = self.logit_bias.map_or(Ok(Vec::new()), parse_biases)?;
        let engine = engine.clone();
        let sampling = Box::new(move |usual: &mut SamplingParams| {
            said(usual);
            usual.logit_bias = logit_bias;
            if goes_on {
                usual.logit_bias.extend(bans_of_ends(&engine));
            }
        });
        let max_tokens = self.max_tokens.or(self.max_completion_tokens);
        Ok(PlainRequest { given, sampling, stop, max_tokens, form, logprobs })
    }
}

impl ResponseFormat {
    fn parse(self) -> Result<Option<Form>, ApiError> {
        let refused = |why: &str| Err(ApiError::invalid("response_format", why));
        match (self.r#type.as_str(), self.json_schema) {
            ("text", None) => Ok(None),
            ("json_object", None) => Ok(Some(Form::JsonObject)),
            ("json_schema", Some(JsonSchema { schema: Some(schema), description: None, .. })) => {
                Ok(Some(Form::JsonSchema(schema)))
            }
            ("json_schema", Some(JsonSchema { description: Some(_), .. })) => {
                refused("json_schema.description is not shown to the model; put it into a message")
            }
            ("json_schema", _) => refused("json_schema.schema must be given"),
            ("text" | "json_object", Some(_)) => refused("json_schema belongs to the type json_schema"),
            _ => refused("type must be text, json_object or json_schema"),
        }
    }
}

/// Rules out every token with which the loaded model ends its answer.
fn bans_of_ends(engine: &Engine) -> Vec<(TokenId, f32)> {
    let Some(text) = engine.text() else { return Vec::new() };
    let ids = 0..text.tokenizer.n_vocab() as TokenId;
    ids.filter(|&id| text.tokenizer.is_end_of_generation(id)).map(|id| (id, -MAX_LOGIT_BIAS)).collect()
}

fn parse_biases(biases: Map<String, Value>) -> Result<Vec<(TokenId, f32)>, ApiError> {
    if biases.len() > MAX_LOGIT_BIASES {
        return Err(ApiError::invalid(
            "logit_bias",
            &format!("must have at most {MAX_LOGIT_BIASES} entries"),
        ));
    }
    let parse = |(id, bias): (String, Value)| {
        let bias = bias.as_f64().map(|b| b as f32).filter(|b| b.is_finite());
        id.parse().ok().zip(bias).ok_or_else(|| {
            ApiError::invalid(
                "logit_bias",
                "must map token ids to numbers from -100 to 100, such as {\"42\": -100}",
            )
        })
    };
    biases.into_iter().map(parse).collect()
}

/// Plain turns where that is all there is, else a chat with functions.
fn given_chat(turns: Vec<ChatTurn>, choice: ToolChoice) -> Result<Given, ApiError> {
    if turns.is_empty() || turns.len() > MAX_TURNS {
        return Err(ApiError::invalid("messages", &format!("must have 1 to {MAX_TURNS} turns")));
    }
    let is_plain = |t: &ChatTurn| t.role != "tool" && t.tool_calls.is_none() && t.reasoning_content.is_none();
    if choice.is_shown() || !turns.iter().all(is_plain) {
        return openai_tools::given(&turns, choice);
    }
    let parse = |(i, turn): (usize, ChatTurn)| {
        let speaker = match turn.role.as_str() {
            "system" | "developer" => Speaker::System,
            "user" => Speaker::User,
            "assistant" => Speaker::Assistant,
            _ => {
                let place = format!("messages[{i}].role");
                return Err(ApiError::invalid(&place, "must be system, developer, user, assistant or tool"));
            }
        };
        if turn.tool_call_id.is_some() {
            return Err(ApiError::invalid(
                &format!("messages[{i}].tool_call_id"),
                "belongs to the role tool",
            ));
        }
        let content = turn.text().ok_or_else(|| {
            ApiError::invalid(&format!("messages[{i}].content"), "must be a text or a list of texts")
        })?;
        Ok(Turn::new(speaker, content))
    };
    turns.into_iter().enumerate().map(parse).collect::<Result<_, _>>().map(Given::Chat)
}

impl ChatTurn {
    /// Its words in one piece; `None` where it has none.
    pub(super) fn text(&self) -> Option<String> {
        match self.content.as_ref()? {
            Content::Text(text) => Some(text.clone()),
            Content::Parts(parts) => Some(parts.iter().map(|Part::Text { text }| text.as_str()).collect()),
        }
    }
}
