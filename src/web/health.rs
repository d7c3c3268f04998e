//! Is it alive, can it answer: for supervisors, proxies and the page's first look.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::error::ApiError;
use crate::engine::EngineState;

/// When to ask again while the model loads.
const RETRY_LOADING_S: u64 = 1;
/// When to ask again while the store is unwell: somebody has to look at the disk.
const RETRY_UNWELL_S: u64 = 30;

/// All is well.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`
    status: String,
}

fn ok() -> axum::Json<Health> {
    axum::Json(Health { status: "ok".to_owned() })
}

/// The process answers.
#[utoipa::path(get, path = "/health/live", tag = "health", security(()), responses((status = 200, body = Health)))]
pub(crate) async fn live() -> axum::Json<Health> {
    ok()
}

/// The model is loaded and the store takes writes; 503 until then.
#[utoipa::path(get, path = "/health/ready", tag = "health", security(()),
    responses((status = 200, body = Health), (status = 503)))]
pub(crate) async fn ready(State(app): State<App>) -> Result<axum::Json<Health>, ApiError> {
    let store = app.store().clone();
    if let Err(cause) = tokio::task::spawn_blocking(move || store.healthy()).await? {
        tracing::warn!(%cause, "the store is unwell");
        return Err(ApiError::unavailable(
            "store_unwell",
            "Nothing can be stored at the moment.",
            RETRY_UNWELL_S,
        ));
    }
    match app.engine().state() {
        EngineState::Ready => Ok(ok()),
        EngineState::Loading => {
            Err(ApiError::unavailable("model_loading", "The model is being loaded.", RETRY_LOADING_S))
        }
        EngineState::Failed(_) => {
            Err(ApiError::unavailable("model_failed", "The model could not be loaded.", RETRY_UNWELL_S))
        }
    }
}

/// The same as `/health/ready`.
#[utoipa::path(get, path = "/health", tag = "health", security(()),
    responses((status = 200, body = Health), (status = 503)))]
pub(crate) async fn health(state: State<App>) -> Result<axum::Json<Health>, ApiError> {
    ready(state).await
}

/// The model's state in one word, or why it failed.
pub(crate) fn model_state(app: &App) -> String {
    match app.engine().state() {
        EngineState::Loading => "loading".to_owned(),
        EngineState::Ready => "ready".to_owned(),
        EngineState::Failed(why) => why,
    }
}
