//! The facts that the parent keeps about a person; hers to read, correct and take away.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::error::ApiError;
use super::extract::{Id, Json};
use super::who::Me;
use super::wire;
use crate::chat::live::LiveEvent;
use crate::domain::MemoryId;

/// Every fact.
#[derive(Serialize, ToSchema)]
pub(crate) struct MemoryList {
    memories: Vec<wire::Memory>,
}

/// What the parent remembers about me, oldest first.
#[utoipa::path(get, path = "/api/memories", tag = "memories", responses((status = 200, body = MemoryList)))]
pub(crate) async fn list(me: Me) -> Result<axum::Json<MemoryList>, ApiError> {
    let memories = me.with(crate::store::UserStore::memories).await?;
    Ok(axum::Json(MemoryList { memories: memories.iter().map(Into::into).collect() }))
}

/// A fact in one short sentence.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemoryText {
    content: String,
}

/// Adds a fact by hand.
#[utoipa::path(post, path = "/api/memories", tag = "memories", request_body = MemoryText,
    responses((status = 201, body = wire::Memory)))]
pub(crate) async fn create(
    State(app): State<App>,
    me: Me,
    Json(body): Json<MemoryText>,
) -> Result<(StatusCode, axum::Json<wire::Memory>), ApiError> {
    let memory = me.with(move |s| s.add_memory(body.content.trim(), None)).await?;
    let answer = wire::Memory::from(&memory);
    app.live().publish(me.id(), LiveEvent::Memory(memory));
    Ok((StatusCode::CREATED, axum::Json(answer)))
}

/// Rewords a fact.
#[utoipa::path(patch, path = "/api/memories/{id}", tag = "memories", request_body = MemoryText,
    params(("id" = String, Path, format = "uuid")), responses((status = 200, body = wire::Memory)))]
pub(crate) async fn update(
    State(app): State<App>,
    me: Me,
    Id(id): Id<MemoryId>,
    Json(body): Json<MemoryText>,
) -> Result<axum::Json<wire::Memory>, ApiError> {
    let memory = me.with(move |s| s.update_memory(id, body.content.trim())).await?;
    let answer = wire::Memory::from(&memory);
    app.live().publish(me.id(), LiveEvent::Memory(memory));
    Ok(axum::Json(answer))
}

/// Forgets a fact.
#[utoipa::path(delete, path = "/api/memories/{id}", tag = "memories",
    params(("id" = String, Path, format = "uuid")), responses((status = 204)))]
pub(crate) async fn delete(
    State(app): State<App>,
    me: Me,
    Id(id): Id<MemoryId>,
) -> Result<StatusCode, ApiError> {
    me.with(move |s| s.delete_memory(id)).await?;
    app.live().publish(me.id(), LiveEvent::MemoryDeleted(id));
    Ok(StatusCode::NO_CONTENT)
}
