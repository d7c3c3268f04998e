//! A server of this program in this process, over an empty house in a temporary folder: for `bench serve` without --url.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use mommygpt::auth::{Auth, AuthOptions, Clock, Device, SignUp, SignupMode};
use mommygpt::chat::safety::Cards;
use mommygpt::chat::{ChatOptions, ChatService};
use mommygpt::domain::Email;
use mommygpt::engine::{Engine, Limits, LoadError, Loaded};
use mommygpt::model::{self, Gguf, LoadOptions};
use mommygpt::store::Store;
use mommygpt::text::TextModel;
use mommygpt::web::{self, App, WebOptions};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::Failure;
use super::super::serve::load_failure;

/// Requests that may wait: whatever a load generator sends is to be measured and not refused.
const QUEUE: usize = 1 << 20;

/// A running server; its folder is removed when it ends.
pub(super) struct OwnServer {
    /// Where it listens.
    pub(super) url: String,
    /// Of the one account in it.
    pub(super) token: String,
    folder: Folder,
    store: Store,
    engine: Engine,
    chat: ChatService,
    shutdown: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        let name = format!("mommygpt-bench-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let named = |e| Failure::failed(format!("{}: {e}", path.display()));
        std::fs::create_dir(&path).map_err(named)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind is an empty house.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl OwnServer {
    /// Starts it on a free port of this machine and waits until the model is loaded.
    pub(super) async fn start(gguf: Gguf, load: LoadOptions) -> Result<Self, Failure> {
        let folder = Folder::new()?;
        let store = Store::open(&folder.0)?;
        let limits = Limits {
            max_running: load.max_sequences,
            max_sequences: load.max_sequences,
            queue_per_owner: QUEUE,
            queue_total: QUEUE,
            ..Limits::FAMILY
        };
        let engine = Engine::start_with(limits, move || -> Result<Loaded, LoadError> {
            let text = TextModel::from_gguf(&gguf)?;
            let (model, size_bytes) = (model::load(&gguf, &load)?, gguf.size_bytes());
            Ok(Loaded { model, text, size_bytes, draft: None, no_draft: None })
        });
        let options = AuthOptions { signup: SignupMode::Open, exposed: false, clock: Clock::monotonic() };
        let auth = Auth::new(store.clone(), options)?;
        let token = token(&auth).await?;
        let options = ChatOptions {
            sampling: None,
            max_reply_tokens: None,
            cards: Cards::built_in(),
            take_over_written: false,
        };
        let chat = ChatService::new(store.clone(), engine.clone(), options);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let app = App::new(auth, engine.clone(), chat.clone(), WebOptions::default());
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(web::serve(listener, app, shutdown.clone()));
        engine.ready().await.map_err(|e| load_failure(&e))?;
        Ok(Self { url, token, folder, store, engine, chat, shutdown, serving })
    }

    /// Ends it.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.shutdown.cancel();
        self.chat.shutdown().await;
        let engine = self.engine;
        tokio::task::spawn_blocking(move || engine.shutdown()).await.map_err(io::Error::from)?;
        self.serving.await.map_err(io::Error::from)??;
        self.store.close()?;
        drop(self.folder);
        Ok(())
    }
}

/// Makes the one account, whose password nobody needs again.
async fn token(auth: &Auth) -> Result<String, Failure> {
    let bad = |e: mommygpt::domain::Invalid| Failure::failed(e.to_string());
    let form = SignUp {
        email: Email::parse("bench@localhost.localdomain").map_err(bad)?,
        password: format!("{:032x}", getrandom::u64().unwrap_or_default()),
        full_name: String::new(),
        invite: None,
        setup_code: auth.setup_code(),
    };
    let device = Device { peer: IpAddr::V4(Ipv4Addr::LOCALHOST), label: "bench".into(), replaces: None };
    Ok(auth.sign_up(form, &device).await?.token.reveal())
}
