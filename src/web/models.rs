//! Which of the operator's models answers: the admin sees those in the data directory and chooses. No model comes in
//! over HTTP, and a name is looked up in that list and nowhere else.

use std::fmt::Debug;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::error::ApiError;
use super::extract::Json;
use super::who::Admin;

/// When to ask again while another model is being loaded.
const RETRY_SWITCHING_S: u64 = 5;

/// A model that may be chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Its file's name, or `builtin`.
    pub name: String,
    /// Size of its files.
    pub size_bytes: u64,
    /// Whether it answers now.
    pub current: bool,
}

/// A model that took over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// The model.
    pub model: Choice,
    /// What the person who chose it should know of: that it answers without the draft model.
    pub note: Option<String>,
}

/// Why another model does not answer now. The one before goes on.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// No model of that name; the sentence says so.
    #[error("{0}")]
    Unknown(String),
    /// It cannot be used: the file, the field and the limit.
    #[error("{0}")]
    Unusable(String),
    /// Not now: another one is on its way, or the server is starting or ending.
    #[error("{0}")]
    Busy(String),
    /// The folder of models cannot be read.
    #[error("{0}")]
    Failed(String),
}

/// The folder of models, and the engine that runs one of them; both methods block.
pub trait ModelChooser: Debug + Send + Sync {
    /// What there is, newest first.
    ///
    /// # Errors
    /// [`SwitchError::Failed`].
    fn choices(&self) -> Result<Vec<Choice>, SwitchError>;
    /// Tries a model, loads it, and lets it take over.
    ///
    /// # Errors
    /// [`SwitchError`]; the one before goes on then.
    fn choose(&self, name: &str) -> Result<Chosen, SwitchError>;
}

impl From<SwitchError> for ApiError {
    fn from(e: SwitchError) -> Self {
        let said = e.to_string();
        match e {
            SwitchError::Unknown(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_model", said),
            SwitchError::Unusable(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unusable_model", said),
            SwitchError::Busy(_) => Self::unavailable("model_loading", said, RETRY_SWITCHING_S),
            SwitchError::Failed(cause) => {
                tracing::error!(cause, "the folder of models");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "The folder of models cannot be read; the server's log says why.",
                )
            }
        }
    }
}

/// A model in the data directory, or the one in the binary.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelChoice {
    name: String,
    size_bytes: u64,
    /// Whether it answers now.
    current: bool,
}

impl From<Choice> for ModelChoice {
    fn from(choice: Choice) -> Self {
        let Choice { name, size_bytes, current } = choice;
        Self { name, size_bytes, current }
    }
}

/// The model that answers from now on.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelChosen {
    #[serde(flatten)]
    model: ModelChoice,
    /// What does not go on as before: why no draft model guesses for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// Every model that may be chosen.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    models: Vec<ModelChoice>,
}

/// The models that the operator has put into the data directory, newest first, and the one in the binary.
#[utoipa::path(get, path = "/api/admin/models", tag = "admin", responses((status = 200, body = ModelList)))]
pub(crate) async fn list(State(app): State<App>, _: Admin) -> Result<axum::Json<ModelList>, ApiError> {
    let Some(chooser) = app.options().models.clone() else {
        return Ok(axum::Json(ModelList { models: Vec::new() }));
    };
    let models = tokio::task::spawn_blocking(move || chooser.choices()).await??;
    Ok(axum::Json(ModelList { models: models.into_iter().map(Into::into).collect() }))
}

/// Which model shall answer.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelForm {
    /// A name from the list.
    name: String,
}

/// Lets another model answer from now on, until the server starts anew. Replies that are being written are finished
/// first; messages wait meanwhile, or get 503. A model that does not load is refused, and the one before goes on.
#[utoipa::path(post, path = "/api/admin/model", tag = "admin", request_body = ModelForm,
    responses((status = 200, body = ModelChosen), (status = 422), (status = 503)))]
pub(crate) async fn switch(
    State(app): State<App>,
    _: Admin,
    Json(form): Json<ModelForm>,
) -> Result<axum::Json<ModelChosen>, ApiError> {
    let Some(chooser) = app.options().models.clone() else {
        return Err(SwitchError::Unknown(format!(
            "{:?}: there are no models to choose from here",
            form.name
        ))
        .into());
    };
    let Chosen { model, note } = tokio::task::spawn_blocking(move || chooser.choose(&form.name)).await??;
    Ok(axum::Json(ModelChosen { model: model.into(), note }))
}
