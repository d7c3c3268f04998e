//! Taking everything along, and bringing it in: the export is a stream, so that years of history need no memory.

use std::io;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;

use super::App;
use super::error::ApiError;
use super::extract::{parse_json, read_body};
use super::import;
use super::who::Me;
use super::wire;
use crate::chat::live::LiveEvent;
use crate::domain::Timestamp;
use crate::store::{Export, ExportItem, StoreError};

/// Largest file to bring in: a hundred thousand long messages. It is held in memory while it is read.
const MAX_IMPORT_BYTES: usize = 64 << 20;
/// Bytes sent at a time.
const PIECE_BYTES: usize = 32 << 10;
/// Pieces made ahead of a slow reader.
const PIECES_AHEAD: usize = 4;

/// Everything of mine: profile, chats with their messages (a tree by `parent_id`), memories.
#[utoipa::path(get, path = "/api/export", tag = "transfer",
    responses((status = 200, description = "One JSON document", content_type = "application/json")))]
pub(crate) async fn export(me: Me) -> Result<Response, ApiError> {
    let export = me.with(crate::store::UserStore::export).await?;
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut writer = Writer { sender, piece: Vec::new() };
        // A broken stream cuts the answer short, so that half an export is never taken for a whole one.
        if let Err(cause) = writer.write(export) {
            tracing::warn!(%cause, "an export ended early");
            let _ = writer.sender.blocking_send(Err(cause));
        }
    });
    let mut response = Body::from_stream(ReceiverStream::new(receiver)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let name = HeaderValue::from_static("attachment; filename=\"mommygpt-export.json\"");
    headers.insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}

/// Writes an export as one JSON document, piece by piece.
struct Writer {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Writer {
    fn write(&mut self, export: Export) -> io::Result<()> {
        let mut place = Place::Start;
        self.text(&format!(
            "{{\"format\":\"mommygpt\",\"version\":1,\"exported_at\":\"{}\"",
            Timestamp::now()
        ));
        for item in export {
            match item.map_err(|e: StoreError| io::Error::other(e.to_string()))? {
                ExportItem::User(user) => {
                    self.text(",\"user\":");
                    self.json(&wire::User::from(&user))?;
                }
                ExportItem::Chat(chat) => {
                    self.text(match place {
                        Place::Start => ",\"chats\":[",
                        Place::Chat { .. } => "]},",
                        Place::Memories => unreachable!("memories come last"),
                    });
                    // The chat's object stays open for its messages.
                    let object = serde_json::to_string(&wire::Chat::from(&chat))?;
                    self.text(object.trim_end_matches('}'));
                    self.text(",\"messages\":[");
                    place = Place::Chat { first: true };
                }
                ExportItem::Message(message) => {
                    if !matches!(place, Place::Chat { first: true }) {
                        self.text(",");
                    }
                    place = Place::Chat { first: false };
                    self.json(&wire::Message::from(&message))?;
                }
                ExportItem::Memory(memory) => {
                    self.text(match place {
                        Place::Start => ",\"chats\":[],\"memories\":[",
                        Place::Chat { .. } => "]}],\"memories\":[",
                        Place::Memories => ",",
                    });
                    place = Place::Memories;
                    self.json(&wire::Memory::from(&memory))?;
                }
            }
            self.flush(PIECE_BYTES)?;
        }
        self.text(match place {
            Place::Start => ",\"chats\":[],\"memories\":[]}",
            Place::Chat { .. } => "]}],\"memories\":[]}",
            Place::Memories => "]}",
        });
        self.flush(0)
    }

    fn text(&mut self, text: &str) {
        self.piece.extend_from_slice(text.as_bytes());
    }

    fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        Ok(serde_json::to_writer(&mut self.piece, value)?)
    }

    /// Sends what is written once it is more than `enough`.
    fn flush(&mut self, enough: usize) -> io::Result<()> {
        if self.piece.len() <= enough {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::Error::other("the reader is gone"))
    }
}

/// How far an export is written.
enum Place {
    Start,
    Chat { first: bool },
    Memories,
}

/// What an import did.
#[derive(Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "counts are n_*")]
pub(crate) struct ImportAnswer {
    n_chats: usize,
    n_messages: usize,
    n_memories: usize,
    /// Chats left out because they were here already.
    n_skipped: usize,
}

/// Brings chats in from an export of this program, of Open WebUI or of llama.cpp's page: all of them or none.
#[utoipa::path(post, path = "/api/import", tag = "transfer",
    request_body(content = serde_json::Value, description = "An export file", content_type = "application/json"),
    responses((status = 200, body = ImportAnswer)))]
pub(crate) async fn import(
    State(app): State<App>,
    me: Me,
    request: Request,
) -> Result<axum::Json<ImportAnswer>, ApiError> {
    let bytes = read_body(request.into_body(), MAX_IMPORT_BYTES).await?;
    let tree = tokio::task::spawn_blocking(move || import::tree(&parse_json(&bytes)?)).await??;
    let report = me.with(move |s| s.import(tree)).await?;
    app.live().publish(me.id(), LiveEvent::Resync);
    Ok(axum::Json(ImportAnswer {
        n_chats: report.n_chats,
        n_messages: report.n_messages,
        n_memories: report.n_memories,
        n_skipped: report.n_skipped,
    }))
}
