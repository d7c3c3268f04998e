//! Answers and refusals of `/v1` in OpenAI's shapes; numbers of speed under llama.cpp's names.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use super::App;
use super::error::ApiError;
use super::sse::{self, Frame, Frames};
use super::who::Caller;
use super::wire;
use crate::chat::ChatError;
use crate::chat::plain::{Piece, PlainEvent, PlainReply, TokenText, ToolCall};
use crate::domain::{MessageId, Timestamp};
use crate::engine::{Finish, Timings};

/// A refusal in the form that OpenAI's clients read.
pub(crate) struct OpenAiError(ApiError);

impl<E: Into<ApiError>> From<E> for OpenAiError {
    fn from(e: E) -> Self {
        let mut e = e.into();
        // What is 422 in the native API is 400 there.
        if e.status == StatusCode::UNPROCESSABLE_ENTITY {
            e.status = StatusCode::BAD_REQUEST;
        }
        Self(e)
    }
}

impl OpenAiError {
    fn body(&self) -> Value {
        let kind = match self.0.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            503 => "unavailable_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        // Refusals of a field start with its name.
        let param = (self.0.code == "invalid_field").then(|| self.0.message.split(':').next());
        json!({"error": {"message": self.0.message, "type": kind, "param": param.flatten(), "code": self.0.code}})
    }
}

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        let body = axum::Json(self.body());
        let mut response = (self.0.status, body).into_response();
        if let Some(seconds) = self.0.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Which of the two routes answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Text,
}

/// Seconds since 1970.
pub(crate) fn now_s() -> i64 {
    Timestamp::now().as_micros() / 1_000_000
}

/// How an answer is written.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) shape: Shape,
    /// A last chunk with the numbers of tokens.
    pub(crate) with_usage: bool,
    pub(crate) with_logprobs: bool,
    pub(crate) with_token_ids: bool,
}

/// What all pieces of one answer have in common.
struct Header {
    style: Style,
    id: String,
    created: i64,
    model: String,
    n_prompt: usize,
    /// Functions called so far.
    n_calls: usize,
    /// Bytes of text so far, for `text_offset`.
    n_bytes: usize,
}

impl Header {
    fn new(reply: &PlainReply, style: Style) -> Self {
        let prefix = if style.shape == Shape::Chat { "chatcmpl" } else { "cmpl" };
        Self {
            style,
            id: format!("{prefix}-{}", MessageId::new()),
            created: now_s(),
            model: reply.model.name.clone(),
            n_prompt: reply.prompt.len(),
            n_calls: 0,
            n_bytes: 0,
        }
    }

    fn object(&self, streams: bool, choices: &Value) -> Value {
        let object = match (self.style.shape, streams) {
            (Shape::Chat, true) => "chat.completion.chunk",
            (Shape::Chat, false) => "chat.completion",
            (Shape::Text, _) => "text_completion",
        };
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices})
    }

    /// A chunk of a stream.
    fn chunk(&mut self, piece: &Piece, finish: Option<&str>) -> Value {
        let logprobs = self.logprobs(&piece.tokens);
        let mut choice = match self.style.shape {
            Shape::Chat => json!({"index": 0, "delta": self.delta(piece), "finish_reason": finish}),
            Shape::Text => {
                json!({"index": 0, "text": piece.answer, "logprobs": logprobs, "finish_reason": finish})
            }
        };
        if self.style.shape == Shape::Chat && !logprobs.is_null() {
            choice["logprobs"] = logprobs;
        }
        self.object(true, &json!([choice]))
    }

    fn delta(&mut self, piece: &Piece) -> Value {
        let mut delta = json!({});
        if !piece.thought.is_empty() {
            delta["reasoning_content"] = json!(piece.thought);
        }
        if !piece.answer.is_empty() {
            delta["content"] = json!(piece.answer);
        }
        if !piece.calls.is_empty() {
            let calls: Vec<Value> = piece
                .calls
                .iter()
                .map(|call| {
                    let mut call = made_call(call);
                    call["index"] = json!(self.n_calls);
                    self.n_calls += 1;
                    call
                })
                .collect();
            delta["tool_calls"] = json!(calls);
        }
        delta
    }

    /// The tokens with their probabilities, in the form of the route; `null` where nobody asked.
    fn logprobs(&mut self, tokens: &[TokenText]) -> Value {
        if !self.style.with_logprobs || tokens.is_empty() {
            return Value::Null;
        }
        if self.style.shape == Shape::Chat {
            let content: Vec<Value> = tokens.iter().map(chat_logprob).collect();
            return json!({"content": content, "refusal": null});
        }
        let mut offsets = Vec::new();
        for token in tokens {
            offsets.push(self.n_bytes);
            self.n_bytes += token.bytes.len();
        }
        let top = |token: &TokenText| -> Value {
            let each = token.top.iter().map(|(bytes, logprob)| (lossy(bytes), json!(logprob)));
            Value::Object(each.collect())
        };
        json!({
            "tokens": tokens.iter().map(|t| lossy(&t.bytes)).collect::<Vec<_>>(),
            "token_logprobs": tokens.iter().map(|t| t.logprob).collect::<Vec<_>>(),
            "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
            "text_offset": offsets,
        })
    }

    fn usage(&self, timings: &Timings) -> Value {
        let predicted = timings.predicted_n as usize;
        json!({
            "prompt_tokens": self.n_prompt,
            "completion_tokens": predicted,
            "total_tokens": self.n_prompt + predicted,
            "prompt_tokens_details": {"cached_tokens": timings.cache_n},
        })
    }

    /// OpenAI's words for why a text ended; its clients know no other.
    fn finish_word(&self, finish: Finish) -> &'static str {
        match finish {
            Finish::Stop if self.n_calls > 0 => "tool_calls",
            Finish::Stop => "stop",
            Finish::Length | Finish::Cancelled => "length",
        }
    }
}

fn made_call(call: &ToolCall) -> Value {
    let id = format!("call_{}", MessageId::new());
    json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
}

fn chat_logprob(token: &TokenText) -> Value {
    let one = |bytes: &[u8], logprob: f32| json!({"token": lossy(bytes), "logprob": logprob, "bytes": bytes});
    let mut told = one(&token.bytes, token.logprob);
    let top: Vec<Value> = token.top.iter().map(|(bytes, logprob)| one(bytes, *logprob)).collect();
    told["top_logprobs"] = json!(top);
    told
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Speed under llama.cpp's names.
pub(super) fn speed(timings: &Timings) -> wire::Timings {
    let Timings { cache_n, prompt_n, prompt_ms, predicted_n, predicted_ms } = *timings;
    (&crate::domain::Timings { cache_n, prompt_n, prompt_ms, predicted_n, predicted_ms }).into()
}

/// A text to its end. A client that hangs up drops this, and with it the generation.
///
/// # Errors
/// When the server stops or the generation breaks.
pub(super) async fn collect(app: &App, reply: &mut PlainReply) -> Result<(Piece, Finish, Timings), ApiError> {
    let mut all = Piece::default();
    loop {
        let event = tokio::select! {
            biased;
            () = app.stopping().cancelled() => return Err(ChatError::NotReady.into()),
            event = reply.next() => event,
        };
        match event {
            PlainEvent::Piece(piece) => {
                all.thought.push_str(&piece.thought);
                all.answer.push_str(&piece.answer);
                all.calls.extend(piece.calls);
                all.tokens.extend(piece.tokens);
            }
            PlainEvent::Done(finish, timings) => return Ok((all, finish, timings)),
            PlainEvent::Failed(cause) => return Err(ApiError::internal(cause)),
        }
    }
}

/// Waits for the whole text.
pub(crate) async fn whole(app: &App, mut reply: PlainReply, style: Style) -> Result<Response, OpenAiError> {
    let mut head = Header::new(&reply, style);
    let (piece, finish, timings) = collect(app, &mut reply).await?;
    let logprobs = head.logprobs(&piece.tokens);
    let mut choice = json!({"index": 0, "logprobs": logprobs});
    if style.shape == Shape::Text {
        choice["text"] = json!(piece.answer);
    } else {
        let calls: Vec<Value> = piece.calls.iter().map(made_call).collect();
        head.n_calls = calls.len();
        let mut message = json!({"role": "assistant", "content": piece.answer});
        if !piece.thought.is_empty() {
            message["reasoning_content"] = json!(piece.thought);
        }
        if !calls.is_empty() {
            message["tool_calls"] = json!(calls);
            if piece.answer.is_empty() {
                message["content"] = Value::Null;
            }
        }
        choice["message"] = message;
    }
    choice["finish_reason"] = json!(head.finish_word(finish));
    if style.with_token_ids {
        choice["token_ids"] = json!(piece.tokens.iter().map(|t| t.id).collect::<Vec<_>>());
    }
    let mut answer = head.object(false, &json!([choice]));
    answer["usage"] = head.usage(&timings);
    answer["timings"] = json!(speed(&timings));
    if style.with_token_ids {
        answer["prompt_token_ids"] = json!(&*reply.prompt);
        answer["sampling"] = wire::sampling(&reply.sampling);
    }
    Ok(axum::Json(answer).into_response())
}

/// Streams the text as chunks, then `[DONE]`.
pub(crate) fn stream(app: &App, caller: &Caller, reply: PlainReply, style: Style) -> Response {
    let head = Header::new(&reply, style);
    let open = app.http_metrics().stream_opened();
    let chunks = Chunks { head, reply, opened: false, ended: false };
    sse::response(chunks, caller.leash(), app.stopping().clone(), open)
}

struct Chunks {
    head: Header,
    reply: PlainReply,
    opened: bool,
    ended: bool,
}

impl Chunks {
    fn frame(&mut self, event: PlainEvent) -> Frame {
        match event {
            PlainEvent::Piece(piece) => Frame::data(&self.head.chunk(&piece, None)),
            PlainEvent::Done(finish, timings) => {
                self.ended = true;
                let word = self.head.finish_word(finish);
                let mut last = self.head.chunk(&Piece::default(), Some(word));
                last["timings"] = json!(speed(&timings));
                let mut frame = Frame::data(&last);
                if self.head.style.with_usage {
                    let mut usage = self.head.object(true, &json!([]));
                    usage["usage"] = self.head.usage(&timings);
                    frame = frame.then(Frame::data(&usage));
                }
                frame.then(Frame::done())
            }
            PlainEvent::Failed(cause) => {
                self.ended = true;
                Frame::data(&OpenAiError(ApiError::internal(cause)).body())
            }
        }
    }
}

impl Frames for Chunks {
    async fn next(&mut self) -> Option<Frame> {
        if self.ended {
            return None;
        }
        if self.head.style.shape == Shape::Chat && !std::mem::replace(&mut self.opened, true) {
            let delta = json!({"role": "assistant", "content": ""});
            let choice = json!([{"index": 0, "delta": delta, "finish_reason": null}]);
            return Some(Frame::data(&self.head.object(true, &choice)));
        }
        let event = self.reply.next().await;
        Some(self.frame(event))
    }

    fn try_next(&mut self) -> Option<Frame> {
        self.next().now_or_never().flatten()
    }
}
