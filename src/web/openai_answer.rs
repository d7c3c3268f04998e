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
use crate::chat::plain::PlainReply;
use crate::domain::{MessageId, Timestamp};
use crate::engine::{Event, Finish, Timings};

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

/// What all pieces of one answer have in common.
struct Header {
    shape: Shape,
    id: String,
    created: i64,
    model: String,
    n_prompt: usize,
}

impl Header {
    fn new(reply: &PlainReply, shape: Shape) -> Self {
        let prefix = if shape == Shape::Chat { "chatcmpl" } else { "cmpl" };
        Self {
            shape,
            id: format!("{prefix}-{}", MessageId::new()),
            created: now_s(),
            model: reply.model.name.clone(),
            n_prompt: reply.n_prompt,
        }
    }

    fn object(&self, streams: bool, choices: &Value) -> Value {
        let object = match (self.shape, streams) {
            (Shape::Chat, true) => "chat.completion.chunk",
            (Shape::Chat, false) => "chat.completion",
            (Shape::Text, _) => "text_completion",
        };
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices})
    }

    fn piece(&self, text: &str, finish: Option<&str>) -> Value {
        let choice = match self.shape {
            Shape::Chat if text.is_empty() => json!({"index": 0, "delta": {}, "finish_reason": finish}),
            Shape::Chat => json!({"index": 0, "delta": {"content": text}, "finish_reason": finish}),
            Shape::Text => json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish}),
        };
        self.object(true, &json!([choice]))
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
}

fn speed(timings: &Timings) -> wire::Timings {
    let Timings { cache_n, prompt_n, prompt_ms, predicted_n, predicted_ms } = *timings;
    (&crate::domain::Timings { cache_n, prompt_n, prompt_ms, predicted_n, predicted_ms }).into()
}

/// OpenAI's words for why a text ended; its clients know no other.
fn finish_word(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length | Finish::Cancelled => "length",
    }
}

/// Waits for the whole text. A client that hangs up drops this, and with it the generation.
pub(crate) async fn whole(app: &App, mut reply: PlainReply, shape: Shape) -> Result<Response, OpenAiError> {
    let head = Header::new(&reply, shape);
    let mut text = String::new();
    loop {
        let event = tokio::select! {
            biased;
            () = app.stopping().cancelled() => return Err(ChatError::NotReady.into()),
            event = reply.generation.events.recv() => event,
        };
        match event {
            Some(Event::Delta { text: piece, .. }) => text.push_str(&piece),
            Some(Event::Done { finish_reason, timings }) => {
                let finish = finish_word(finish_reason);
                let choice = match shape {
                    Shape::Chat => {
                        let message = json!({"role": "assistant", "content": text});
                        json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish})
                    }
                    Shape::Text => {
                        json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish})
                    }
                };
                let mut answer = head.object(false, &json!([choice]));
                answer["usage"] = head.usage(&timings);
                answer["timings"] = json!(speed(&timings));
                return Ok(axum::Json(answer).into_response());
            }
            Some(Event::Failed(cause)) => return Err(ApiError::internal(cause).into()),
            Some(Event::Queued { .. } | Event::Prefill { .. }) => {}
            None => return Err(ApiError::internal("a generation without an end").into()),
        }
    }
}

/// Streams the text as chunks, then `[DONE]`.
pub(crate) fn stream(
    app: &App,
    caller: &Caller,
    reply: PlainReply,
    shape: Shape,
    with_usage: bool,
) -> Response {
    let head = Header::new(&reply, shape);
    let open = app.http_metrics().stream_opened();
    let chunks = Chunks { head, reply, with_usage, opened: false, ended: false };
    sse::response(chunks, caller.leash(), app.stopping().clone(), open)
}

struct Chunks {
    head: Header,
    reply: PlainReply,
    with_usage: bool,
    opened: bool,
    ended: bool,
}

impl Chunks {
    /// The chunks that an event becomes; `None` for events that OpenAI's clients do not know.
    fn frame(&mut self, event: Option<Event>) -> Option<Frame> {
        match event {
            Some(Event::Delta { text, .. }) => Some(Frame::data(&self.head.piece(&text, None))),
            Some(Event::Done { finish_reason, timings }) => {
                self.ended = true;
                let mut last = self.head.piece("", Some(finish_word(finish_reason)));
                last["timings"] = json!(speed(&timings));
                let mut frame = Frame::data(&last);
                if self.with_usage {
                    let mut usage = self.head.object(true, &json!([]));
                    usage["usage"] = self.head.usage(&timings);
                    frame = frame.then(Frame::data(&usage));
                }
                Some(frame.then(Frame::done()))
            }
            Some(Event::Failed(cause)) => Some(self.failed(&cause)),
            Some(Event::Queued { .. } | Event::Prefill { .. }) => None,
            None => Some(self.failed("a generation without an end")),
        }
    }

    fn failed(&mut self, cause: &str) -> Frame {
        self.ended = true;
        Frame::data(&OpenAiError(ApiError::internal(cause)).body())
    }
}

impl Frames for Chunks {
    async fn next(&mut self) -> Option<Frame> {
        if self.ended {
            return None;
        }
        if self.head.shape == Shape::Chat && !std::mem::replace(&mut self.opened, true) {
            let delta = json!({"role": "assistant", "content": ""});
            let choice = json!([{"index": 0, "delta": delta, "finish_reason": null}]);
            return Some(Frame::data(&self.head.object(true, &choice)));
        }
        loop {
            let event = self.reply.generation.events.recv().await;
            if let Some(frame) = self.frame(event) {
                return Some(frame);
            }
        }
    }

    fn try_next(&mut self) -> Option<Frame> {
        self.next().now_or_never().flatten()
    }
}
