//! The only code that speaks HTTP and JSON.
//!
//! `server` accepts connections and bounds them; `guard` is what every request passes and every answer carries;
//! `extract` and `who` turn bytes into typed values and people; the route files say what each route does, in the shapes
//! of `wire`; `error` turns every refusal into a status and a stable code. It knows chat, auth, store, engine and
//! domain. It knows no redb table and no tensor, and no handler opens a socket to anywhere.

mod admin;
mod assets;
mod chats;
pub mod control;
mod embeddings;
mod error;
mod events;
mod extract;
mod generate;
mod guard;
mod health;
mod hosts;
mod import;
pub mod local_ca;
mod me;
mod memories;
mod metrics;
pub mod models;
mod ollama;
mod ollama_answer;
mod ollama_request;
mod openai;
mod openai_answer;
mod openai_request;
mod openai_tools;
mod openapi;
mod sampling;
mod server;
mod session;
mod sse;
pub mod tls;
mod transfer;
mod who;
mod wire;

use std::sync::Arc;

use axum::Router;
use ipnet::IpNet;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::chat::ChatService;
use crate::chat::live::Live;
use crate::engine::Engine;
use crate::store::{Store, StoreError};

use error::ApiError;
use metrics::HttpMetrics;
use openapi::Routes;

pub use server::serve;

/// How a server is reached.
#[derive(Clone, Debug, Default)]
pub struct WebOptions {
    /// Names and addresses that may stand in `Host`, beside the bound address, `localhost` and the machine's own name.
    pub allowed_hosts: Vec<String>,
    /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// From which models the admin may choose; none where this is left out.
    pub models: Option<Arc<dyn models::ModelChooser>>,
    /// Speak Ollama's API too.
    pub ollama: bool,
    /// Speak TLS with this certificate; see [`tls::server_config`].
    pub tls: Option<Arc<ServerConfig>>,
}

/// Everything that handlers work with. Cloning is cheap; all clones are one application.
#[derive(Clone)]
pub struct App(Arc<Parts>);

struct Parts {
    auth: Auth,
    engine: Engine,
    chat: ChatService,
    options: WebOptions,
    http_metrics: Arc<HttpMetrics>,
    stopping: CancellationToken,
}

impl App {
    /// An application over these services; `auth`'s store is the one that sessions are looked up in.
    pub fn new(auth: Auth, engine: Engine, chat: ChatService, options: WebOptions) -> Self {
        Self(Arc::new(Parts {
            auth,
            engine,
            chat,
            options,
            http_metrics: Arc::new(HttpMetrics::new()),
            stopping: CancellationToken::new(),
        }))
    }

    pub(crate) fn auth(&self) -> &Auth {
        &self.0.auth
    }
    pub(crate) fn store(&self) -> &Store {
        self.0.auth.store()
    }
    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }
    pub(crate) fn chat(&self) -> &ChatService {
        &self.0.chat
    }
    pub(crate) fn live(&self) -> &Live {
        self.0.chat.live()
    }
    /// From which models the admin may choose.
    pub fn models(&self) -> Option<Arc<dyn models::ModelChooser>> {
        self.0.options.models.clone()
    }
    pub(crate) fn options(&self) -> &WebOptions {
        &self.0.options
    }
    pub(crate) fn http_metrics(&self) -> Arc<HttpMetrics> {
        self.0.http_metrics.clone()
    }
    /// Cancelled when the server stops: streams and requests that wait for a reply end then.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }
}

/// Runs a call to the store where it may block.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    Ok(tokio::task::spawn_blocking(call).await??)
}

/// Every route there is: the one list from which both the router and the document are made.
fn routes() -> Routes {
    ollama_routes(own_routes())
}

/// Ollama's, which only answer where the operator asked for them.
fn ollama_routes(routes: Routes) -> Routes {
    routes
        .add::<ollama::__path_chat, _, _>(ollama::chat)
        .add::<ollama::__path_generate, _, _>(ollama::generate)
        .add::<ollama::__path_tags, _, _>(ollama::tags)
        .add::<ollama::__path_show, _, _>(ollama::show)
        .add::<ollama::__path_version, _, _>(ollama::version)
}

fn own_routes() -> Routes {
    Routes::new()
        .add::<session::__path_sign_up, _, _>(session::sign_up)
        .add::<session::__path_sign_in, _, _>(session::sign_in)
        .add::<session::__path_recover, _, _>(session::recover)
        .add::<session::__path_sign_out, _, _>(session::sign_out)
        .add::<me::__path_get, _, _>(me::get)
        .add::<me::__path_update, _, _>(me::update)
        .add::<me::__path_change_password, _, _>(me::change_password)
        .add::<me::__path_sessions, _, _>(me::sessions)
        .add::<me::__path_end_session, _, _>(me::end_session)
        .add::<me::__path_keys, _, _>(me::keys)
        .add::<me::__path_create_key, _, _>(me::create_key)
        .add::<me::__path_delete_key, _, _>(me::delete_key)
        .add::<chats::__path_list, _, _>(chats::list)
        .add::<chats::__path_create, _, _>(chats::create)
        .add::<chats::__path_get, _, _>(chats::get)
        .add::<chats::__path_update, _, _>(chats::update)
        .add::<chats::__path_delete, _, _>(chats::delete)
        .add::<chats::__path_messages, _, _>(chats::messages)
        .add::<chats::__path_search, _, _>(chats::search)
        .add::<generate::__path_send, _, _>(generate::send)
        .add::<generate::__path_regenerate, _, _>(generate::regenerate)
        .add::<generate::__path_edit, _, _>(generate::edit)
        .add::<generate::__path_stop, _, _>(generate::stop)
        .add::<generate::__path_resume, _, _>(generate::resume)
        .add::<events::__path_events, _, _>(events::events)
        .add::<events::__path_safety, _, _>(events::safety)
        .add::<memories::__path_list, _, _>(memories::list)
        .add::<memories::__path_create, _, _>(memories::create)
        .add::<memories::__path_update, _, _>(memories::update)
        .add::<memories::__path_delete, _, _>(memories::delete)
        .add::<transfer::__path_export, _, _>(transfer::export)
        .add::<transfer::__path_import, _, _>(transfer::import)
        .add::<admin::__path_users, _, _>(admin::users)
        .add::<admin::__path_create_user, _, _>(admin::create_user)
        .add::<admin::__path_update_user, _, _>(admin::update_user)
        .add::<admin::__path_delete_user, _, _>(admin::delete_user)
        .add::<admin::__path_invites, _, _>(admin::invites)
        .add::<admin::__path_create_invite, _, _>(admin::create_invite)
        .add::<admin::__path_delete_invite, _, _>(admin::delete_invite)
        .add::<admin::__path_status, _, _>(admin::status)
        .add::<models::__path_list, _, _>(models::list)
        .add::<models::__path_switch, _, _>(models::switch)
        .add::<health::__path_live, _, _>(health::live)
        .add::<health::__path_ready, _, _>(health::ready)
        .add::<health::__path_health, _, _>(health::health)
        .add::<metrics::__path_metrics, _, _>(metrics::metrics)
        .add::<openai::__path_models, _, _>(openai::models)
        .add::<openai::__path_chat_completions, _, _>(openai::chat_completions)
        .add::<openai::__path_completions, _, _>(openai::completions)
        .add::<embeddings::__path_embeddings, _, _>(embeddings::embeddings)
        .add::<openapi::__path_document, _, _>(openapi::document)
}

fn router(app: App) -> Router {
    let router = if app.options().ollama {
        routes().into_router().fallback(ollama::root_or_assets)
    } else {
        own_routes().into_router().fallback(assets::serve)
    };
    router
        .route_layer(axum::middleware::from_fn(guard::note_route))
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                axum::http::StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "This address does not know that method.",
            )
        })
        .with_state(app)
}
