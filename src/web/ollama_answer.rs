//! Answers in Ollama's shapes: one JSON object, or one per line while the text comes; durations in nanoseconds.

use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use super::App;
use super::error::ApiError;
use super::ollama::OllamaError;
use super::openai_answer::collect;
use super::sse::{self, Frame, Frames};
use super::who::Caller;
use crate::chat::plain::{Piece, PlainEvent, PlainReply, ToolCall};
use crate::domain::Timestamp;
use crate::engine::{Finish, Timings};

/// Which of the two routes answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `/api/chat`
    Chat,
    /// `/api/generate`
    Generate,
}

/// How an answer is written.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) shape: Shape,
    pub(crate) streams: bool,
    pub(crate) shows_thoughts: bool,
}

/// What all pieces of one answer have in common.
struct Header {
    style: Style,
    model: String,
    n_prompt: usize,
}

impl Header {
    fn line(&self, piece: &Piece, is_done: bool) -> Value {
        let thought = Some(&piece.thought).filter(|t| self.style.shows_thoughts && !t.is_empty());
        let now = Timestamp::now().to_string();
        let mut line = json!({"model": self.model, "created_at": now});
        match self.style.shape {
            Shape::Chat => {
                let mut message = json!({"role": "assistant", "content": piece.answer});
                if let Some(thought) = thought {
                    message["thinking"] = json!(thought);
                }
                if !piece.calls.is_empty() {
                    message["tool_calls"] = piece.calls.iter().map(call).collect();
                }
                line["message"] = message;
            }
            Shape::Generate => {
                line["response"] = json!(piece.answer);
                if let Some(thought) = thought {
                    line["thinking"] = json!(thought);
                }
            }
        }
        line["done"] = json!(is_done);
        line
    }

    fn last(&self, piece: &Piece, finish: Finish, timings: &Timings) -> Value {
        let mut line = self.line(piece, true);
        let ns = |ms: f32| (f64::from(ms) * 1e6) as u64;
        line["done_reason"] = json!(match finish {
            Finish::Stop => "stop",
            Finish::Length | Finish::Cancelled => "length",
        });
        line["total_duration"] = json!(ns(timings.prompt_ms + timings.predicted_ms));
        line["load_duration"] = json!(0);
        line["prompt_eval_count"] = json!(self.n_prompt);
        line["prompt_eval_duration"] = json!(ns(timings.prompt_ms));
        line["eval_count"] = json!(timings.predicted_n);
        line["eval_duration"] = json!(ns(timings.predicted_ms));
        line
    }
}

/// A call as Ollama has it: the arguments as an object.
fn call(call: &ToolCall) -> Value {
    let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
    json!({"function": {"name": call.name, "arguments": arguments}})
}

/// The answer to a request that only loads the model.
pub(super) fn loaded(model: &str, shape: Shape) -> Response {
    let style = Style { shape, streams: false, shows_thoughts: false };
    let mut line = Header { style, model: model.to_owned(), n_prompt: 0 }.line(&Piece::default(), true);
    line["done_reason"] = json!("load");
    axum::Json(line).into_response()
}

/// Answers at once or piece by piece.
///
/// # Errors
/// When the server stops or the generation breaks before anything was sent.
pub(super) async fn answer(
    app: &App,
    caller: &Caller,
    mut reply: PlainReply,
    style: Style,
) -> Result<Response, OllamaError> {
    let head = Header { style, model: reply.model.name.clone(), n_prompt: reply.prompt.len() };
    if style.streams {
        let open = app.http_metrics().stream_opened();
        let lines = Lines { head, reply, ended: false };
        return Ok(sse::lines(lines, caller.leash(), app.stopping().clone(), open));
    }
    let (piece, finish, timings) = collect(app, &mut reply).await?;
    Ok(axum::Json(head.last(&piece, finish, &timings)).into_response())
}

struct Lines {
    head: Header,
    reply: PlainReply,
    ended: bool,
}

impl Frames for Lines {
    async fn next(&mut self) -> Option<Frame> {
        if self.ended {
            return None;
        }
        let event = self.reply.next().await;
        self.ended = !matches!(event, PlainEvent::Piece(_));
        Some(Frame::line(&match event {
            PlainEvent::Piece(piece) => self.head.line(&piece, false),
            PlainEvent::Done(finish, timings) => self.head.last(&Piece::default(), finish, &timings),
            PlainEvent::Failed(cause) => OllamaError::from(ApiError::internal(cause)).body(),
        }))
    }

    fn try_next(&mut self) -> Option<Frame> {
        self.next().now_or_never().flatten()
    }
}
