//! `serve`: everything started in order, and ended in order.

use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mommygpt::auth::{Auth, AuthOptions, Clock};
use mommygpt::chat::safety::Cards;
use mommygpt::chat::{ChatOptions, ChatService};
use mommygpt::cli::ServeArgs;
use mommygpt::config::{Config, Environment, Tls};
use mommygpt::engine::{Engine, EngineError, EngineOptions, Limits, LoadError};
use mommygpt::hub::{ModelFile, Models};
use mommygpt::model::{LoadOptions, ModelError};
use mommygpt::store::Store;
use mommygpt::text::TextError;
use mommygpt::web::{self, App, WebOptions, control, local_ca, tls};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::models::{remember, try_first};
use super::switch::{Chooser, source};
use super::{Failure, Out};

/// From a signal to the end, at most; what is not finished by then was not acknowledged.
const SHUTDOWN_LIMIT: Duration = Duration::from_millis(4500);

/// `serve`.
pub(super) fn serve(
    dir: Option<PathBuf>,
    args: ServeArgs,
    environment: &Environment,
    out: &mut Out,
) -> Result<(), Failure> {
    let config = Config::resolve(dir, args)?;
    let models = Models::of(&config.dir);
    let model = models.resolve(config.model.as_deref())?;
    let tried = try_first(&models, &model)?;
    model.open_runnable()?;
    let draft = config.draft.as_deref().map(|name| models.resolve(Some(name))).transpose()?;
    let mut tried = vec![tried];
    if let Some(draft) = &draft {
        tried.push(try_first(&models, draft)?);
        draft.open_runnable()?;
    }
    let tls = tls_config(&config)?;
    let cards = Cards::load(Some(&config.dir)).map_err(|e| Failure::usage(e.to_string()))?;
    let store = Store::open(&config.dir)?;
    store.keep_kv(config.kv_disk_bytes)?;
    // At the first start there is no data directory before this.
    tried.iter().flatten().for_each(remember);
    harden();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let listener = bind(config.address).await?;
        let address = listener.local_addr()?;
        let engine = Engine::start_drafted(engine_options(&config, &model), draft.as_ref().map(source));
        let options =
            AuthOptions { signup: config.signup, exposed: config.exposed, clock: Clock::monotonic() };
        let auth = Auth::new(store.clone(), options)?;
        greet(&config, &model, address, auth.setup_code(), out)?;
        if config.open && environment.has_display {
            open_browser(&url(config.tls != Tls::Off, reachable(address)));
        }
        let chat_options =
            ChatOptions { sampling: None, max_reply_tokens: None, cards, take_over_written: true };
        let chat = ChatService::new(store.clone(), engine.clone(), chat_options);
        let load = engine_options(&config, &model).load;
        let chooser = Chooser::new(&config.dir, engine.clone(), load, draft, model.clone())?;
        let web_options = WebOptions {
            models: Some(Arc::new(chooser)),
            allowed_hosts: config.allow_hosts.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            ollama: config.ollama,
            tls,
        };
        let app = App::new(auth.clone(), engine.clone(), chat.clone(), web_options);
        let keeps_kv = config.kv_disk_bytes > 0;
        House { dir: &config.dir, model: &model, keeps_kv, auth, engine, chat, app }.keep(listener).await
    });
    // A hash or a store call that is still running must not hold the end up.
    runtime.shutdown_timeout(Duration::from_millis(100));
    store.close()?;
    served
}

/// What runs while the server runs.
struct House<'a> {
    dir: &'a Path,
    model: &'a ModelFile,
    keeps_kv: bool,
    auth: Auth,
    engine: Engine,
    chat: ChatService,
    app: App,
}

impl House<'_> {
    /// Serves until a signal comes or the model turns out to be unusable.
    async fn keep(self, listener: TcpListener) -> Result<(), Failure> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = CancellationToken::new();
        let control = match control::bind(self.dir) {
            Ok(socket) => {
                let (dir, shutdown) = (self.dir.to_owned(), shutdown.clone());
                let served = control::Served { auth: self.auth.clone(), models: self.app.models() };
                Some(tokio::spawn(async move { control::serve(&dir, socket, served, shutdown).await }))
            }
            Err(e) => {
                let path = self.dir.join(control::SOCKET_NAME);
                tracing::warn!(
                    "{}: {e}; `user`, `backup` and `check` need the server stopped",
                    path.display()
                );
                None
            }
        };
        let serving = tokio::spawn(web::serve(listener, self.app.clone(), shutdown.clone()));
        let outcome = tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            failure = broken_model(&self.engine, self.keeps_kv) => Err(failure.of(self.model)),
        };
        shutdown.cancel();
        let end = async {
            // Replies first, because their partial text must be stored while the store is open.
            self.chat.shutdown().await;
            let engine = self.engine.clone();
            let stopped = tokio::task::spawn_blocking(move || engine.shutdown());
            let (served, stopped) = (serving.await, stopped.await);
            if let Some(control) = control {
                control.await?;
            }
            stopped?;
            served
        };
        match tokio::time::timeout(SHUTDOWN_LIMIT, end).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(e))) => return outcome.and(Err(Failure::failed(format!("the listener failed: {e}")))),
            Ok(Err(e)) => {
                return outcome.and(Err(Failure::failed(format!("a part of the server failed: {e}"))));
            }
            Err(_) => tracing::warn!("some requests did not end in time and were cut off"),
        }
        outcome
    }
}

/// Returns only when the model cannot be loaded.
async fn broken_model(engine: &Engine, keeps_kv: bool) -> Failure {
    match engine.ready().await {
        Ok(()) => {
            if let Some(info) = engine.model_info() {
                tracing::info!(model = %info.name, backend = %info.backend, n_ctx = info.n_ctx, "the model is loaded");
            }
            if keeps_kv && engine.kv_form().is_none() {
                tracing::warn!(
                    "--kv-disk: nothing is kept of this model, which runs without pages or --deterministic"
                );
            }
            std::future::pending().await
        }
        Err(e) => load_failure(&e),
    }
}

/// A model that does not load, as an exit code.
pub(super) fn load_failure(e: &EngineError) -> Failure {
    match e {
        EngineError::Load(e) => match &**e {
            LoadError::Model(ModelError::Malformed(_) | ModelError::Unsupported(_))
            | LoadError::Text(TextError::Malformed(_) | TextError::Unsupported(_)) => {
                Failure::bad_data(e.to_string())
            }
            _ => Failure::failed(e.to_string()),
        },
        other => Failure::failed(other.to_string()),
    }
}

/// How a model is run, as configured.
pub(super) fn engine_options(config: &Config, model: &ModelFile) -> EngineOptions {
    EngineOptions {
        gguf: source(model),
        load: LoadOptions {
            n_ctx: config.n_ctx,
            n_threads: config.n_threads,
            device: config.device,
            kv: config.kv,
            isa: config.isa,
            max_sequences: config.n_parallel,
        },
        limits: Limits {
            max_running: config.n_parallel,
            itl_budget: config.itl_budget,
            idle_unload: config.idle_unload,
            speculative: config.speculative,
            deterministic: config.deterministic,
            ..Limits::FAMILY
        },
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|e| match e.kind() {
        ErrorKind::AddrInUse => Failure::failed(format!(
            "port {} on {} is in use; choose another with --port, or stop what runs there",
            address.port(),
            address.ip()
        )),
        ErrorKind::AddrNotAvailable => {
            Failure::failed(format!("{} is no address of this machine; see --host", address.ip()))
        }
        ErrorKind::PermissionDenied => Failure::failed(format!(
            "port {} needs more rights than this user has; choose one from 1024 on with --port",
            address.port()
        )),
        _ => Failure::failed(format!("cannot listen on {address}: {e}")),
    })
}

fn tls_config(config: &Config) -> Result<Option<Arc<tokio_rustls::rustls::ServerConfig>>, Failure> {
    let (cert, key) = match &config.tls {
        Tls::Off => return Ok(None),
        Tls::Files { cert, key } => (cert.clone(), key.clone()),
        Tls::Local => {
            let (cert, key) = local_ca::files(&config.dir);
            if !cert.exists() {
                return Err(Failure::failed(format!(
                    "{}: there is no certificate yet; make one with `mommygpt tls`",
                    cert.display()
                )));
            }
            (cert, key)
        }
    };
    tls::server_config(&cert, &key).map(Some).map_err(|e| Failure::failed(e.to_string()))
}

fn greet(
    config: &Config,
    model: &ModelFile,
    address: SocketAddr,
    setup_code: Option<String>,
    out: &mut Out,
) -> Result<(), Failure> {
    let here = url(config.tls != Tls::Off, reachable(address));
    writeln!(out, "MommyGPT is at {here} (data in {}, model {model})", config.dir.display())?;
    if address.ip().is_unspecified() {
        writeln!(out, "Other devices reach it by this machine's name or address, port {}.", address.port())?;
    }
    if let Some(code) = setup_code {
        writeln!(out, "Setup code for the first account, valid for 30 minutes: {code}")?;
    }
    if config.exposed && config.tls == Tls::Off && config.trusted_proxies.is_empty() {
        tracing::warn!("others on the network can read what is sent; `mommygpt tls` and --tls encrypt it");
    }
    out.flush()?;
    Ok(())
}

fn url(is_tls: bool, address: SocketAddr) -> String {
    format!("{}://{address}", if is_tls { "https" } else { "http" })
}

/// An address a browser on this machine can open.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn open_browser(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let started = Command::new(program)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match started {
        // Waited for elsewhere, so that it does not stay behind as a zombie.
        Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
        Err(e) => tracing::info!("{program}: {e}; open {url} yourself"),
    }
}

/// What a process that holds everybody's keys while it runs does about itself.
fn harden() {
    if nix::unistd::geteuid().is_root() {
        tracing::warn!("running as root; a user of its own is safer (see the README's systemd unit)");
    }
    // A core dump would hold data keys.
    #[cfg(target_os = "linux")]
    if let Err(e) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!("core dumps stay possible: {e}");
    }
    // 2,000 connections need more than the usual soft limit of 1,024.
    let resource = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let raised = nix::sys::resource::getrlimit(resource)
        .and_then(|(_, hard)| nix::sys::resource::setrlimit(resource, hard, hard));
    if let Err(e) = raised {
        tracing::info!("the limit on open files stays as it is: {e}");
    }
}
