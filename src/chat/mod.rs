//! The product: what happens when somebody writes to their parent.
//!
//! [`ChatService`] checks a message for danger, keeps it, builds the prompt from persona, memories and history, lets
//! the engine generate, and tells every device. A generation belongs to the server: it goes on when the reader is gone,
//! and can be read again from any event on. Nothing here knows HTTP or JSON.

mod embed;
pub mod exemplars;
mod generation;
mod keep;
mod learn;
pub mod live;
mod log;
pub mod memory;
pub mod persona;
pub mod plain;
pub mod prompt;
mod running;
pub mod safety;
mod start;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::live::{Live, LiveEvent};
pub use self::log::{ChatEvent, ChatStream};
use self::prompt::PromptError;
use self::running::Register;
use self::safety::Cards;
use crate::domain::{ChatId, Invalid, MessageId, MessageText, UserId};
use crate::engine::{Engine, EngineError, SamplingParams};
use crate::store::{Parent, SessionEnded, Store, StoreError, UserStore};
use crate::text::TextError;

/// How long a message waits for the model to be loaded before it is refused.
const READY_WAIT: Duration = Duration::from_secs(10);
/// When a refused person should try again while the model is loading.
pub const RETRY_LOADING_S: u64 = 3;
/// How long Stop waits until the partial reply is stored; one prefill chunk of a slow machine.
const STOP_WAIT: Duration = Duration::from_secs(15);

/// What the service needs to know.
#[derive(Clone, Debug)]
pub struct ChatOptions {
    /// How tokens are chosen; `None` = what suits the model.
    pub sampling: Option<SamplingParams>,
    /// Most tokens of a reply; `None` = what the context has left.
    pub max_reply_tokens: Option<usize>,
    /// The cards shown on danger.
    pub cards: Cards,
    /// Openings that the written collection answers well get that answer, where the model was trained on it.
    pub take_over_written: bool,
}

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Made by the client, so that a retry is recognised; `None` makes a new one.
    pub id: Option<MessageId>,
    /// What was written.
    pub content: MessageText,
    /// Where it hangs.
    pub parent: Parent,
}

/// Why nothing was generated. Nothing was stored then, except after [`ChatError::Store`] of a later step.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChatError {
    /// Not there, or not this person's.
    #[error("not found")]
    NotFound,
    /// A stable word: `generation_running`, or one of the store's.
    #[error("conflict: {0}")]
    Conflict(&'static str),
    /// A value that cannot be used.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The message alone does not fit into what the model can read.
    #[error(
        "the message has {n_tokens} tokens; this model can read at most {limit} at once. Send it in parts"
    )]
    TooLong {
        /// Of the message.
        n_tokens: usize,
        /// What there is room for.
        limit: usize,
    },
    /// The model is still being loaded, or the server is going down.
    #[error("the model is not ready yet; try again in a moment")]
    NotReady,
    /// The model cannot be used: why.
    #[error("the model cannot answer: {0}")]
    Broken(String),
    /// Too many are waiting.
    #[error("too many people are waiting for an answer; try again in {retry_after_s} s")]
    Busy {
        /// A guess.
        retry_after_s: u64,
    },
    /// The store refused.
    #[error(transparent)]
    Store(StoreError),
}

impl ChatError {
    /// The stable word for `error` events and answers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Conflict(word) => word,
            Self::Invalid(_) => "invalid_field",
            Self::TooLong { .. } => "message_too_long",
            Self::NotReady => "model_loading",
            Self::Broken(_) => "model_failed",
            Self::Busy { .. } => "busy",
            Self::Store(StoreError::DiskFull) => "disk_full",
            Self::Store(_) => "store_unavailable",
        }
    }
}

impl From<StoreError> for ChatError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::NotFound,
            StoreError::Conflict(word) => Self::Conflict(word),
            StoreError::Invalid(invalid) => Self::Invalid(invalid),
            other => Self::Store(other),
        }
    }
}

impl From<EngineError> for ChatError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::NotReady | EngineError::Switching => Self::NotReady,
            EngineError::Busy { retry_after_s } => Self::Busy { retry_after_s },
            EngineError::ContextOverflow { n_tokens, n_ctx } => Self::TooLong { n_tokens, limit: n_ctx },
            EngineError::Load(_) | EngineError::Invalid(_) => Self::Broken(error.to_string()),
        }
    }
}

impl From<PromptError> for ChatError {
    fn from(error: PromptError) -> Self {
        match error {
            PromptError::TooLong { n_tokens, limit } => Self::TooLong { n_tokens, limit },
            PromptError::Text(TextError::TooLong { bytes, limit }) => Self::Invalid(Invalid::new(
                "content",
                format!("is {bytes} bytes long; the model reads at most {limit}"),
            )),
            PromptError::Text(other) => Self::Broken(other.to_string()),
        }
    }
}

/// The product's front door. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct ChatService(Arc<Inner>);

struct Inner {
    store: Store,
    engine: Engine,
    options: ChatOptions,
    live: Live,
    register: Register,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl ChatService {
    /// A service on this store and engine. Call it inside a tokio runtime: a task watches for sessions that end.
    pub fn new(store: Store, engine: Engine, options: ChatOptions) -> Self {
        let service = Self(Arc::new(Inner {
            store,
            engine,
            options,
            live: Live::new(),
            register: Register::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }));
        service.0.tasks.spawn(service.clone().watch_sessions());
        service
    }

    /// The bus that tells a person's devices what happens.
    pub fn live(&self) -> &Live {
        &self.0.live
    }

    /// The cards shown on danger.
    pub fn cards(&self) -> &Cards {
        &self.0.options.cards
    }

    /// How many replies are being made.
    pub fn n_running(&self) -> usize {
        self.0.register.n_running()
    }

    /// Stores a message and lets the parent answer. When it returns, the message is durable. The same id again reads
    /// the same generation, or the stored message and reply once that is over; nothing is stored twice.
    pub async fn send(&self, me: &UserStore, chat: ChatId, new: NewMessage) -> Result<ChatStream, ChatError> {
        let id = new.id.unwrap_or_else(MessageId::new);
        if let Some(stream) = self.attach(me, chat, id, new.content.as_str())? {
            return Ok(stream);
        }
        self.start(me, chat, start::Ask::New { id, content: new.content, parent: new.parent }).await
    }

    /// Makes another reply: to this message, or, of a reply, to the message that it answers.
    pub async fn regenerate(
        &self,
        me: &UserStore,
        chat: ChatId,
        message: MessageId,
    ) -> Result<ChatStream, ChatError> {
        self.start(me, chat, start::Ask::Again { message }).await
    }

    /// Stores a changed message beside the old one, and lets the parent answer it.
    pub async fn edit(
        &self,
        me: &UserStore,
        chat: ChatId,
        message: MessageId,
        content: MessageText,
    ) -> Result<ChatStream, ChatError> {
        self.start(me, chat, start::Ask::Edit { message, id: MessageId::new(), content }).await
    }

    /// Stops the chat's generation; when it returns, the partial reply is stored. Nothing to stop is fine.
    pub async fn stop(&self, me: &UserStore, chat: ChatId) -> Result<(), ChatError> {
        let Some(entry) = self.0.register.running(me.user_id(), chat) else {
            let me = me.clone();
            return blocking(move || Ok(me.chat(chat).map(drop)?)).await;
        };
        entry.cancel.cancel();
        if tokio::time::timeout(STOP_WAIT, entry.log.ended()).await.is_err() {
            tracing::warn!(%chat, "a stopped generation has not ended yet");
        }
        Ok(())
    }

    /// Reads the chat's generation from event number `from` on. `None`: none runs. One that just ended can still be
    /// read by who was in the middle of it (`from` above 0 and not past its end).
    pub fn resume(&self, me: &UserStore, chat: ChatId, from: u64) -> Option<ChatStream> {
        let entry = self.0.register.find(me.user_id(), chat)?;
        let wanted = !entry.log.has_ended() || (1..entry.log.n_events()).contains(&from);
        wanted.then(|| entry.log.read(from))
    }

    /// Deletes a chat: stops its generation first, so that nothing of it comes back, and tells every device.
    pub async fn delete_chat(&self, me: &UserStore, chat: ChatId) -> Result<(), ChatError> {
        self.stop(me, chat).await?;
        let (user, me) = (me.user_id(), me.clone());
        blocking(move || Ok(me.delete_chat(chat)?)).await?;
        self.0.live.publish(user, LiveEvent::ChatDeleted(chat));
        Ok(())
    }

    /// Cancels what runs for a person: their account was disabled or deleted.
    pub fn cancel_user(&self, user: UserId) {
        self.0.register.of_user(user).iter().for_each(|e| e.cancel.cancel());
    }

    /// Takes nothing more, ends every generation and waits until their partial replies are stored.
    pub async fn shutdown(&self) {
        self.0.closing.cancel();
        self.0.register.cancel_all();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// A retry of the message whose reply is being made, or was made just now.
    fn attach(
        &self,
        me: &UserStore,
        chat: ChatId,
        id: MessageId,
        content: &str,
    ) -> Result<Option<ChatStream>, ChatError> {
        let Some(entry) = self.0.register.running(me.user_id(), chat).filter(|e| e.message == id) else {
            return Ok(None);
        };
        if entry.content.as_deref().is_some_and(|c| c != content) {
            return Err(ChatError::Conflict("id_taken"));
        }
        Ok(Some(entry.log.read(0)))
    }

    /// Sessions that end close their streams and cancel what they started.
    async fn watch_sessions(self) {
        let mut ended = self.0.store.session_watch();
        loop {
            let word = tokio::select! {
                () = self.0.closing.cancelled() => return,
                word = ended.recv() => word,
            };
            match word {
                Ok(SessionEnded { user, session }) => {
                    self.0.live.publish(user, LiveEvent::SessionEnded(session));
                    self.cancel_ended(user).await;
                }
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                    for user in self.0.register.users() {
                        self.0.live.publish(user, LiveEvent::SessionEnded(None));
                        self.cancel_ended(user).await;
                    }
                }
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// Cancels a person's generations whose session or key is no longer there.
    async fn cancel_ended(&self, user: UserId) {
        let running = self.0.register.of_user(user);
        if running.is_empty() {
            return;
        }
        let store = self.0.store.clone();
        let alive = tokio::task::spawn_blocking(move || {
            let sessions = store.sessions(user).map(|s| s.into_iter().map(|s| s.id).collect::<Vec<_>>());
            let keys = store.api_keys(user).map(|k| k.into_iter().map(|k| k.id).collect::<Vec<_>>());
            // An account that is gone has neither.
            (sessions.unwrap_or_default(), keys.unwrap_or_default())
        });
        let Ok((sessions, keys)) = alive.await else { return };
        for entry in running {
            let here = entry.session.is_some_and(|s| sessions.contains(&s))
                || entry.api_key.is_some_and(|k| keys.contains(&k));
            if !here {
                entry.cancel.cancel();
            }
        }
    }
}

/// Store work and tokenising, off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ChatError> + Send + 'static,
) -> Result<T, ChatError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => {
            tracing::error!(error = %e, "a chat's store work broke down");
            Err(ChatError::Store(StoreError::Unhealthy("an internal error".into())))
        }
    }
}
