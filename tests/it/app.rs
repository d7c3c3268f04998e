//! The one door for tests over HTTP: the real server on a port of its own, over a real database in a directory of its
//! own, with a model that says what the test tells it to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mommygpt::auth::{Auth, AuthOptions, Clock, SignupMode};
use mommygpt::chat::safety::Cards;
use mommygpt::chat::{ChatOptions, ChatService};
use mommygpt::engine::{Engine, Limits};
use mommygpt::store::Store;
use mommygpt::web::{self, App, WebOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::client::{Answer, EventStream, ask};
use crate::script::Script;

/// Every account of the tests has it.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// How a test's server differs from the usual one.
pub(crate) struct Setting {
    pub(crate) bind: &'static str,
    pub(crate) signup: SignupMode,
    pub(crate) exposed: bool,
    pub(crate) web: WebOptions,
    pub(crate) reply: &'static str,
    /// The model's chat template; its own if none.
    pub(crate) template: Option<&'static str>,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            bind: "127.0.0.1:0",
            signup: SignupMode::Open,
            exposed: false,
            web: WebOptions::default(),
            reply: "There, there. Tell me more.",
            template: None,
        }
    }
}

/// A running server.
pub(crate) struct TestApp {
    pub(crate) addr: SocketAddr,
    pub(crate) script: Script,
    pub(crate) store: Store,
    pub(crate) auth: Auth,
    setting: Setting,
    dir: PathBuf,
    temp: Option<tempfile::TempDir>,
    running: Option<Running>,
}

struct Running {
    runtime: tokio::runtime::Runtime,
    shutdown: CancellationToken,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
    chat: ChatService,
    engine: Engine,
}

/// Somebody with an account.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) token: String,
}

impl TestApp {
    pub(crate) fn start() -> Self {
        Self::with(Setting::default())
    }

    pub(crate) fn with(setting: Setting) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().to_owned();
        Self::over(dir, Some(temp), setting)
    }

    fn over(dir: PathBuf, temp: Option<tempfile::TempDir>, setting: Setting) -> Self {
        let script = Script::new(setting.reply, setting.template);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let inside = runtime.enter();
        let store = Store::open(&dir).unwrap();
        let options =
            AuthOptions { signup: setting.signup, exposed: setting.exposed, clock: Clock::manual() };
        let auth = Auth::new(store.clone(), options).unwrap();
        let limits = Limits {
            max_running: 4,
            max_sequences: 8,
            queue_total: 16,
            speculative: false,
            ..Limits::FAMILY
        };
        let load = script.clone();
        let engine = Engine::start_with(limits, move || load.load());
        let options = ChatOptions {
            sampling: None,
            max_reply_tokens: None,
            cards: Cards::built_in(),
            take_over_written: false,
        };
        let chat = ChatService::new(store.clone(), engine.clone(), options);
        let app = App::new(auth.clone(), engine.clone(), chat.clone(), setting.web.clone());
        let shutdown = CancellationToken::new();
        let listener = runtime.block_on(TcpListener::bind(setting.bind)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = runtime.spawn(web::serve(listener, app, shutdown.clone()));
        drop(inside);
        runtime.block_on(engine.ready()).unwrap();
        let running = Some(Running { runtime, shutdown, server, chat, engine });
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        Self { addr, script, store, auth, setting, dir, temp, running }
    }

    /// Ends the server as SIGTERM does and says how long that took.
    pub(crate) fn stop(&mut self) -> Duration {
        let started = Instant::now();
        if let Some(Running { runtime, shutdown, server, chat, engine }) = self.running.take() {
            shutdown.cancel();
            runtime.block_on(async {
                server.await.unwrap().unwrap();
                chat.shutdown().await;
            });
            engine.shutdown();
            self.store.close().unwrap();
        }
        started.elapsed()
    }

    /// Ends the server and starts it again over the same data.
    pub(crate) fn restart(mut self) -> Self {
        self.stop();
        let setting = std::mem::take(&mut self.setting);
        let (dir, temp) = (self.dir.clone(), self.temp.take());
        drop(self);
        Self::over(dir, temp, setting)
    }

    pub(crate) fn get(&self, who: &Person, path: &str) -> Answer {
        ask("GET", path).bearer(&who.token).send(self.addr)
    }

    pub(crate) fn call(&self, who: &Person, method: &str, path: &str, body: &Value) -> Answer {
        ask(method, path).bearer(&who.token).json(body).send(self.addr)
    }

    pub(crate) fn delete(&self, who: &Person, path: &str) -> Answer {
        ask("DELETE", path).bearer(&who.token).send(self.addr)
    }

    /// A new account; the first one is the admin.
    pub(crate) fn sign_up(&self, name: &str) -> Person {
        let email = format!("{name}@example.org");
        let form = json!({"email": email, "password": PASSWORD, "full_name": name});
        let answer = ask("POST", "/api/auth/signup").json(&form).send(self.addr).expect(201).json();
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        Person { id: text(&answer["user"]["id"]), email, token: text(&answer["session_token"]) }
    }

    /// Another device of the same person.
    pub(crate) fn sign_in(&self, who: &Person) -> Person {
        let form = json!({"email": who.email, "password": PASSWORD});
        let answer = ask("POST", "/api/auth/signin").json(&form).send(self.addr).expect(200).json();
        Person { token: answer["session_token"].as_str().unwrap().to_owned(), ..who.clone() }
    }

    pub(crate) fn new_chat(&self, who: &Person) -> String {
        let answer = self.call(who, "POST", "/api/chats", &json!({})).expect(201).json();
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Sends a message and waits for the reply: `{message, reply}`.
    pub(crate) fn exchange(&self, who: &Person, chat: &str, content: &str) -> Value {
        self.call(who, "POST", &format!("/api/chats/{chat}/messages"), &json!({"content": content}))
            .expect(200)
            .json()
    }

    /// Sends a message and reads the events of the answer.
    pub(crate) fn send(&self, who: &Person, chat: &str, body: &Value) -> EventStream {
        ask("POST", &format!("/api/chats/{chat}/messages")).bearer(&who.token).json(body).stream(self.addr)
    }

    pub(crate) fn messages(&self, who: &Person, chat: &str) -> Vec<Value> {
        let page = self.get(who, &format!("/api/chats/{chat}/messages?limit=200")).expect(200).json();
        page["messages"].as_array().unwrap().clone()
    }
}

/// Polls until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !so() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        std::thread::yield_now();
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown.cancel();
            running.engine.shutdown();
            running.runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }
}

/// A fresh id as a client would make it.
pub(crate) fn new_id() -> String {
    mommygpt::domain::MessageId::new().to_string()
}
