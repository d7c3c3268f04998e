//! What happens to a person's data, told to all their devices; and the cards that are shown beside danger.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::error::ApiError;
use super::extract::Query;
use super::generate::last_event_id;
use super::sse::{self, Frame, Frames};
use super::who::Me;
use super::wire;
use crate::chat::live::{LiveEvent, LiveStream};
use crate::chat::safety::Kind;

/// Everything of mine as it happens: `chat`, `chat_deleted`, `message`, `delta`, `done`, `memory`, `memory_deleted`, and
/// `resync` where too much was missed. `Last-Event-ID` resumes.
#[utoipa::path(get, path = "/api/events", tag = "events",
    responses((status = 200, content((String = "text/event-stream")))))]
pub(crate) async fn events(State(app): State<App>, me: Me, headers: HeaderMap) -> Result<Response, ApiError> {
    let listener = app.live().subscribe(me.id(), last_event_id(&headers)?);
    let open = app.http_metrics().stream_opened();
    Ok(sse::response(Listener(listener), me.leash(), app.stopping().clone(), open))
}

struct Listener(LiveStream);

impl Frames for Listener {
    async fn next(&mut self) -> Option<Frame> {
        loop {
            let (id, event) = self.0.next().await;
            if let Some(frame) = frame(id, &event) {
                return Some(frame);
            }
        }
    }
    fn try_next(&mut self) -> Option<Frame> {
        loop {
            let (id, event) = self.0.try_next()?;
            if let Some(frame) = frame(id, &event) {
                return Some(frame);
            }
        }
    }
}

#[derive(Serialize)]
struct Gone {
    id: String,
}

#[derive(Serialize)]
struct Delta<'a> {
    chat_id: String,
    id: String,
    text: &'a str,
}

#[derive(Serialize)]
struct Nothing {}

fn frame(id: u64, event: &LiveEvent) -> Option<Frame> {
    Some(match event {
        LiveEvent::Chat(chat) => Frame::new("chat", id, &wire::Chat::from(chat)),
        LiveEvent::ChatDeleted(chat) => Frame::new("chat_deleted", id, &Gone { id: chat.to_string() }),
        LiveEvent::Message(message) => Frame::new("message", id, &wire::Message::from(message)),
        LiveEvent::Delta { chat_id, id: reply, text } => {
            let data = Delta { chat_id: chat_id.to_string(), id: reply.to_string(), text };
            Frame::new("delta", id, &data)
        }
        LiveEvent::Done(reply) => Frame::new("done", id, &wire::Message::from(reply)),
        LiveEvent::Memory(memory) => Frame::new("memory", id, &wire::Memory::from(memory)),
        LiveEvent::MemoryDeleted(memory) => {
            Frame::new("memory_deleted", id, &Gone { id: memory.to_string() })
        }
        LiveEvent::Resync => Frame::new("resync", id, &Nothing {}),
        // The leash of every stream hears of this from the store itself.
        LiveEvent::SessionEnded(_) => return None,
    })
}

/// Which card.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SafetyQuery {
    /// The `safety` word of a message.
    kind: String,
}

/// A few kind words and people to reach.
#[derive(Serialize, ToSchema)]
pub(crate) struct SafetyCard {
    kind: String,
    title: String,
    text: String,
    lines: Vec<HelpLine>,
}

/// Somebody to reach.
#[derive(Serialize, ToSchema)]
pub(crate) struct HelpLine {
    name: String,
    /// The number or address as a person would dial, text or type it.
    contact: String,
    region: String,
    note: String,
}

/// The card that is shown beside a message with this `safety`.
#[utoipa::path(get, path = "/api/safety", tag = "events", params(SafetyQuery),
    responses((status = 200, body = SafetyCard)))]
pub(crate) async fn safety(
    State(app): State<App>,
    _: Me,
    Query(query): Query<SafetyQuery>,
) -> Result<axum::Json<SafetyCard>, ApiError> {
    let kind = Kind::from_word(&query.kind).ok_or_else(ApiError::not_found)?;
    let card = app.chat().cards().card(kind).ok_or_else(ApiError::not_found)?;
    let lines = card.lines.iter().map(|line| HelpLine {
        name: line.name.clone(),
        contact: line.contact.clone(),
        region: line.region.clone(),
        note: line.note.clone(),
    });
    Ok(axum::Json(SafetyCard {
        kind: card.kind.as_str().to_owned(),
        title: card.title.clone(),
        text: card.text.clone(),
        lines: lines.collect(),
    }))
}
