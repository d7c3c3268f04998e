//! Writing to the parent: send, regenerate, edit, stop, and joining an answer that is being written.
//!
//! The answer belongs to the server, not to the connection: a reader that goes away and comes back loses nothing, and
//! one that reads slowly holds nothing up.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::error::ApiError;
use super::extract::{Id, Json, MAX_MESSAGE_BODY_BYTES, MessagePath, NoBody, Query, body_id};
use super::sse::{self, Frame, Frames};
use super::who::Me;
use super::wire;
use crate::chat::{ChatEvent, ChatStream, NewMessage};
use crate::domain::{ChatId, MessageId, MessageText};
use crate::store::Parent;

/// When to come back to a server that is stopping: about as long as a restart takes.
const RETRY_STOPPING_S: u64 = 5;

/// A message to the parent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageForm {
    /// Made by the client, so that a retry stores it once.
    #[schema(format = "uuid")]
    id: Option<String>,
    content: String,
    /// The message it follows; the newest of the chat if absent.
    #[schema(format = "uuid")]
    parent_id: Option<String>,
}

/// Other words for a message.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditForm {
    content: String,
}

/// The answer for those who wait for it whole (`Accept: application/json`).
#[derive(Serialize, ToSchema)]
pub(crate) struct Exchange {
    message: wire::Message,
    reply: wire::Message,
}

/// Sends a message; the answer is streamed as events `message`, `progress`, `delta`, then `done` or `error`.
#[utoipa::path(post, path = "/api/chats/{id}/messages", tag = "generate", request_body = MessageForm,
    params(("id" = String, Path, format = "uuid")),
    responses((status = 200, content((String = "text/event-stream"), (Exchange = "application/json")))))]
pub(crate) async fn send(
    State(app): State<App>,
    me: Me,
    Id(chat): Id<ChatId>,
    headers: HeaderMap,
    Json(form): Json<MessageForm, MAX_MESSAGE_BODY_BYTES>,
) -> Result<Response, ApiError> {
    let message = NewMessage {
        id: body_id::<MessageId>("id", form.id.as_deref())?,
        content: MessageText::parse(form.content)?,
        parent: body_id("parent_id", form.parent_id.as_deref())?.map_or(Parent::Newest, Parent::Of),
    };
    let stream = app.chat().send(&me.store, chat, message).await?;
    answer(&app, &me, &headers, stream).await
}

/// Another answer to the same message, beside the first.
#[utoipa::path(post, path = "/api/chats/{id}/messages/{message_id}/regenerate", tag = "generate",
    params(("id" = String, Path, format = "uuid"), ("message_id" = String, Path, format = "uuid")),
    responses((status = 200, content((String = "text/event-stream"), (Exchange = "application/json")))))]
pub(crate) async fn regenerate(
    State(app): State<App>,
    me: Me,
    MessagePath(chat, message): MessagePath,
    headers: HeaderMap,
    _: NoBody,
) -> Result<Response, ApiError> {
    let stream = app.chat().regenerate(&me.store, chat, message).await?;
    answer(&app, &me, &headers, stream).await
}

/// The same message in other words, beside the first, and its answer.
#[utoipa::path(put, path = "/api/chats/{id}/messages/{message_id}", tag = "generate", request_body = EditForm,
    params(("id" = String, Path, format = "uuid"), ("message_id" = String, Path, format = "uuid")),
    responses((status = 200, content((String = "text/event-stream"), (Exchange = "application/json")))))]
pub(crate) async fn edit(
    State(app): State<App>,
    me: Me,
    MessagePath(chat, message): MessagePath,
    headers: HeaderMap,
    Json(form): Json<EditForm, MAX_MESSAGE_BODY_BYTES>,
) -> Result<Response, ApiError> {
    let content = MessageText::parse(form.content)?;
    let stream = app.chat().edit(&me.store, chat, message, content).await?;
    answer(&app, &me, &headers, stream).await
}

/// Stops the answer being written; what there is of it is kept.
#[utoipa::path(post, path = "/api/chats/{id}/stop", tag = "generate",
    params(("id" = String, Path, format = "uuid")), responses((status = 204)))]
pub(crate) async fn stop(
    State(app): State<App>,
    me: Me,
    Id(chat): Id<ChatId>,
    _: NoBody,
) -> Result<StatusCode, ApiError> {
    app.chat().stop(&me.store, chat).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where to go on.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ResumeQuery {
    /// Number of the first event wanted; `Last-Event-ID` says the last one seen.
    from: Option<u64>,
}

/// Joins the answer being written, from any of its events on; 204 when there is none.
#[utoipa::path(get, path = "/api/chats/{id}/stream", tag = "generate",
    params(("id" = String, Path, format = "uuid"), ResumeQuery),
    responses((status = 200, content((String = "text/event-stream"))), (status = 204)))]
pub(crate) async fn resume(
    State(app): State<App>,
    me: Me,
    Id(chat): Id<ChatId>,
    Query(query): Query<ResumeQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    me.with(move |s| s.chat(chat)).await?;
    let after_last = last_event_id(&headers)?.map(|id| id.saturating_add(1));
    let from = query.from.or(after_last).unwrap_or(0);
    match app.chat().resume(&me.store, chat, from) {
        Some(stream) => Ok(stream_answer(&app, &me, stream)),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// The last event a reader saw, as browsers say it when they come back.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(raw) = headers.get("last-event-id") else { return Ok(None) };
    let id = raw.to_str().ok().and_then(|s| s.parse().ok());
    id.map(Some).ok_or_else(|| ApiError::invalid("Last-Event-ID", "must be the id of an event"))
}

async fn answer(app: &App, me: &Me, headers: &HeaderMap, stream: ChatStream) -> Result<Response, ApiError> {
    if wants_whole(headers) {
        whole_answer(app, me, stream).await
    } else {
        Ok(stream_answer(app, me, stream))
    }
}

fn wants_whole(headers: &HeaderMap) -> bool {
    let accepts = |kind: &str| {
        headers.get_all(header::ACCEPT).iter().any(|v| v.to_str().is_ok_and(|text| text.contains(kind)))
    };
    accepts("application/json") && !accepts("text/event-stream")
}

fn stream_answer(app: &App, me: &Me, stream: ChatStream) -> Response {
    let open = app.http_metrics().stream_opened();
    sse::response(Generation(stream), me.leash(), app.stopping().clone(), open)
}

/// Waits for the whole answer. The message is stored by now, whatever comes of the answer.
async fn whole_answer(app: &App, me: &Me, mut stream: ChatStream) -> Result<Response, ApiError> {
    let mut leash = me.leash();
    let mut message = None;
    loop {
        let event = tokio::select! {
            biased;
            () = app.stopping().cancelled() => {
                let why = "The server is stopping; the message is stored.";
                return Err(ApiError::unavailable("stopping", why, RETRY_STOPPING_S));
            }
            () = leash.tug() => {
                if leash.still_holds().await {
                    continue;
                }
                return Err(ApiError::unauthorized());
            }
            event = stream.next() => event,
        };
        match event {
            Some((_, ChatEvent::Message(stored))) => message = Some(stored),
            Some((_, ChatEvent::Done(reply))) => {
                let message = message.ok_or_else(|| ApiError::internal("a reply without its message"))?;
                let exchange = Exchange { message: (&message).into(), reply: (&reply).into() };
                return Ok(axum::Json(exchange).into_response());
            }
            Some((_, ChatEvent::Error { code, message })) => {
                return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, code, message));
            }
            Some((_, ChatEvent::Queue { .. } | ChatEvent::Prefill { .. } | ChatEvent::Delta { .. })) => {}
            None => return Err(ApiError::internal("a generation without an end")),
        }
    }
}

/// The events of one answer.
struct Generation(ChatStream);

impl Frames for Generation {
    async fn next(&mut self) -> Option<Frame> {
        self.0.next().await.map(|(id, event)| frame(id, &event))
    }
    fn try_next(&mut self) -> Option<Frame> {
        self.0.next().now_or_never().flatten().map(|(id, event)| frame(id, &event))
    }
}

#[derive(Serialize)]
struct Queued {
    queue_position: usize,
    estimated_wait_ms: u64,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the wire")]
struct Prefill {
    prompt_tokens: usize,
    cached_tokens: usize,
    processed_tokens: usize,
}

#[derive(Serialize)]
struct Delta<'a> {
    id: String,
    text: &'a str,
}

#[derive(Serialize)]
struct Failure<'a> {
    code: &'a str,
    message: &'a str,
}

fn frame(id: u64, event: &ChatEvent) -> Frame {
    match event {
        ChatEvent::Message(message) => Frame::new("message", id, &wire::Message::from(message)),
        ChatEvent::Queue { position, wait } => {
            let data = Queued { queue_position: *position, estimated_wait_ms: wait.as_millis() as u64 };
            Frame::new("progress", id, &data)
        }
        ChatEvent::Prefill { prompt_tokens, cached_tokens, processed_tokens } => {
            let data = Prefill {
                prompt_tokens: *prompt_tokens,
                cached_tokens: *cached_tokens,
                processed_tokens: *processed_tokens,
            };
            Frame::new("progress", id, &data)
        }
        ChatEvent::Delta { id: reply, text } => {
            Frame::new("delta", id, &Delta { id: reply.to_string(), text })
        }
        ChatEvent::Done(reply) => Frame::new("done", id, &wire::Message::from(reply)),
        ChatEvent::Error { code, message } => Frame::new("error", id, &Failure { code, message }),
    }
}
