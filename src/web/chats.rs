//! A person's chats: list, make, rename, pin, archive, delete, read, search.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::error::ApiError;
use super::extract::{Id, Json, Query, body_id, page_limit};
use super::who::Me;
use super::wire;
use crate::chat::live::LiveEvent;
use crate::domain::{ChatId, Title};
use crate::store::{ChatPage, ChatPatch, Cursor, MAX_PAGE, MessagePage};

/// A screenful.
const DEFAULT_PAGE: usize = 50;
/// Messages that come with each chat of `include=messages`: what an opened chat shows first.
const MESSAGES_INCLUDED: usize = 50;
/// Longest search text in bytes: a sentence.
const MAX_SEARCH_BYTES: usize = 200;

/// Which part of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ChatListQuery {
    /// `messages`: each chat with its newest messages.
    include: Option<String>,
    /// How many chats, 1 to 200; 50 if absent.
    limit: Option<usize>,
    /// A `next_cursor`, to go on from there.
    cursor: Option<String>,
    /// False leaves archived chats out.
    archived: Option<bool>,
}

/// A page of chats.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChatList {
    chats: Vec<wire::Chat>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

/// My chats, newest `updated_at` first.
#[utoipa::path(get, path = "/api/chats", tag = "chats", params(ChatListQuery),
    responses((status = 200, body = ChatList)))]
pub(crate) async fn list(
    me: Me,
    Query(query): Query<ChatListQuery>,
) -> Result<axum::Json<ChatList>, ApiError> {
    let with_messages = match query.include.as_deref() {
        None => false,
        Some("messages") => true,
        Some(_) => return Err(ApiError::invalid("include", "must be messages, or absent")),
    };
    let page = ChatPage {
        limit: page_limit(query.limit, DEFAULT_PAGE, MAX_PAGE)?,
        cursor: query.cursor.as_deref().map(str::parse).transpose()?,
        include_archived: query.archived.unwrap_or(true),
    };
    let (chats, next) = if with_messages {
        let (chats, next) = me.with(move |s| s.chats_with_messages(&page, MESSAGES_INCLUDED)).await?;
        let whole = chats.iter().map(|(chat, messages)| wire::Chat {
            messages: Some(messages.iter().map(Into::into).collect()),
            ..chat.into()
        });
        (whole.collect(), next)
    } else {
        let (chats, next) = me.with(move |s| s.chats(&page)).await?;
        (chats.iter().map(Into::into).collect(), next)
    };
    Ok(axum::Json(ChatList { chats, next_cursor: next.as_ref().map(Cursor::to_string) }))
}

/// A new chat. With an id made by the client, a retry is the same chat.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewChat {
    #[schema(format = "uuid")]
    id: Option<String>,
    title: Option<String>,
}

/// Makes a chat.
#[utoipa::path(post, path = "/api/chats", tag = "chats", request_body = NewChat,
    responses((status = 201, body = wire::Chat), (status = 200, description = "It was there", body = wire::Chat)))]
pub(crate) async fn create(
    State(app): State<App>,
    me: Me,
    Json(body): Json<NewChat>,
) -> Result<Response, ApiError> {
    let id = body_id::<ChatId>("id", body.id.as_deref())?;
    let title = body.title.as_deref().map(Title::cut);
    let (chat, created) = me.with(move |s| s.create_chat(id, title)).await?;
    let answer = axum::Json(wire::Chat::from(&chat));
    if !created {
        return Ok(answer.into_response());
    }
    app.live().publish(me.id(), LiveEvent::Chat(chat));
    Ok((StatusCode::CREATED, answer).into_response())
}

/// One chat.
#[utoipa::path(get, path = "/api/chats/{id}", tag = "chats", params(("id" = String, Path, format = "uuid")),
    responses((status = 200, body = wire::Chat)))]
pub(crate) async fn get(me: Me, Id(id): Id<ChatId>) -> Result<axum::Json<wire::Chat>, ApiError> {
    let chat = me.with(move |s| s.chat(id)).await?;
    Ok(axum::Json((&chat).into()))
}

/// Changes to a chat; absent fields stay as they are.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatChanges {
    title: Option<String>,
    pinned: Option<bool>,
    archived: Option<bool>,
}

/// Renames, pins or archives a chat.
#[utoipa::path(patch, path = "/api/chats/{id}", tag = "chats", request_body = ChatChanges,
    params(("id" = String, Path, format = "uuid")), responses((status = 200, body = wire::Chat)))]
pub(crate) async fn update(
    State(app): State<App>,
    me: Me,
    Id(id): Id<ChatId>,
    Json(body): Json<ChatChanges>,
) -> Result<axum::Json<wire::Chat>, ApiError> {
    let patch = ChatPatch {
        title: body.title.as_deref().map(Title::cut),
        pinned: body.pinned,
        archived: body.archived,
    };
    let chat = me.with(move |s| s.update_chat(id, patch)).await?;
    let answer = wire::Chat::from(&chat);
    app.live().publish(me.id(), LiveEvent::Chat(chat));
    Ok(axum::Json(answer))
}

/// Deletes a chat and everything in it.
#[utoipa::path(delete, path = "/api/chats/{id}", tag = "chats", params(("id" = String, Path, format = "uuid")),
    responses((status = 204)))]
pub(crate) async fn delete(
    State(app): State<App>,
    me: Me,
    Id(id): Id<ChatId>,
) -> Result<StatusCode, ApiError> {
    app.chat().delete_chat(&me.store, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which part of a chat.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MessageListQuery {
    /// How many messages, 1 to 200; 50 if absent.
    limit: Option<usize>,
    /// A `next_cursor`, for what was said before.
    before: Option<String>,
}

/// A page of messages, oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct MessageList {
    messages: Vec<wire::Message>,
    /// Give it as `before` for older ones; null where there are none.
    next_cursor: Option<String>,
}

/// What was said in a chat, newest page first.
#[utoipa::path(get, path = "/api/chats/{id}/messages", tag = "chats",
    params(("id" = String, Path, format = "uuid"), MessageListQuery),
    responses((status = 200, body = MessageList)))]
pub(crate) async fn messages(
    me: Me,
    Id(id): Id<ChatId>,
    Query(query): Query<MessageListQuery>,
) -> Result<axum::Json<MessageList>, ApiError> {
    let before = query.before.as_deref().map(str::parse).transpose();
    let before = before.map_err(|e: crate::domain::Invalid| ApiError::invalid("before", &e.problem))?;
    let page = MessagePage { limit: page_limit(query.limit, DEFAULT_PAGE, MAX_PAGE)?, before };
    let (messages, next) = me.with(move |s| s.messages(id, &page)).await?;
    Ok(axum::Json(MessageList {
        messages: messages.iter().map(Into::into).collect(),
        next_cursor: next.as_ref().map(Cursor::to_string),
    }))
}

/// What to look for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchQuery {
    /// Words, 1 to 200 bytes.
    q: String,
    /// How many places, 1 to 200; 50 if absent.
    limit: Option<usize>,
}

/// A place where the words were found.
#[derive(Serialize, ToSchema)]
pub(crate) struct SearchHit {
    #[schema(format = "uuid")]
    chat_id: String,
    /// Null where the words stand in the title.
    #[schema(format = "uuid")]
    message_id: Option<String>,
    title: String,
    snippet: String,
    #[schema(format = "date-time")]
    created_at: String,
}

/// Where the words were found.
#[derive(Serialize, ToSchema)]
pub(crate) struct SearchHits {
    hits: Vec<SearchHit>,
}

/// Looks through my titles and messages.
#[utoipa::path(get, path = "/api/search", tag = "chats", params(SearchQuery),
    responses((status = 200, body = SearchHits)))]
pub(crate) async fn search(
    me: Me,
    Query(query): Query<SearchQuery>,
) -> Result<axum::Json<SearchHits>, ApiError> {
    let limit = page_limit(query.limit, DEFAULT_PAGE, MAX_PAGE)?;
    let words = query.q.trim().to_owned();
    if words.is_empty() || words.len() > MAX_SEARCH_BYTES {
        return Err(ApiError::invalid("q", &format!("must have 1 to {MAX_SEARCH_BYTES} bytes")));
    }
    let hits = me.with(move |s| s.search(&words, limit)).await?;
    let hits = hits.iter().map(|hit| SearchHit {
        chat_id: hit.chat_id.to_string(),
        message_id: hit.message_id.map(|id| id.to_string()),
        title: hit.title.as_str().to_owned(),
        snippet: hit.snippet.clone(),
        created_at: hit.created_at.to_string(),
    });
    Ok(axum::Json(SearchHits { hits: hits.collect() }))
}
