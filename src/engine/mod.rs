//! Makes a model generate, fairly, for several people at once.
//!
//! One named thread owns the model (`scheduler`). Each of its steps (`step`) carries the newest token of every running
//! generation that decodes, with guesses of what follows (`lookup`, `draft`), and one chunk of one prompt that is being
//! prefilled, as long as keeps everybody's next token within the budget (`pace`). Who comes next is decided by owner,
//! not by request (`queue`); a finished sequence stays warm for its owner and for nobody else (`prefix_cache`). A text
//! may have to follow a grammar (`grammar`). Nothing here knows HTTP, users or the store: an [`Owner`] is a number.
//!
//! Nothing async calls the model: [`Engine::submit`] returns at once, and what happens comes through a channel.

mod draft;
mod embed;
pub mod grammar;
mod kept;
mod lifetime;
mod load;
mod lookup;
pub mod loop_guard;
mod metrics;
mod pace;
mod prefix_cache;
mod queue;
mod request;
mod running;
pub mod sampler;
mod scheduler;
mod step;
pub mod stop;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

pub use self::embed::{Embedding, MAX_EMBED_TOKENS};
use self::load::{bring, bring_draft, draft_if_fit};
pub use self::metrics::{EngineMetrics, FinishedTotals, Histogram, KvPages};
use self::queue::{Queue, Waiting};
pub use self::request::{
    CancelHandle, Event, Finish, GenerateRequest, Generation, InvalidParam, Logprob, MAX_TOP_LOGPROBS, Owner,
    Timings, Urgency,
};
pub use self::sampler::SamplingParams;
pub use self::step::DEFAULT_ITL_BUDGET;
use crate::model::{self, Model, ModelError};
pub use crate::model::{KvForm, TokenId};
use crate::text::{TextError, TextModel};

/// Generations at once where `-np` is not given: a family; more make each of them slower on one CPU.
pub const DEFAULT_MAX_RUNNING: usize = 4;
/// Requests that may wait per owner: more is a program gone wrong, or a teenager.
pub const DEFAULT_QUEUE_PER_OWNER: usize = 4;
/// Requests that may wait in all: at a minute each, the last one already waits for a quarter of an hour.
pub const DEFAULT_QUEUE_TOTAL: usize = 64;

/// What an engine needs to start.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Where the model comes from.
    pub gguf: ModelSource,
    /// How it is loaded; `max_sequences` of it is how many stay in memory, running and warm together.
    pub load: model::LoadOptions,
    /// How much it takes on; `max_sequences` is that of `load`.
    pub limits: Limits,
}

/// Where a model comes from.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// The bytes of the model in the binary.
    Builtin(&'static [u8]),
    /// A GGUF file.
    File(PathBuf),
}

/// How much an engine takes on, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Generations at once (`-np`).
    pub max_running: usize,
    /// Sequences in memory, running and warm together; less than `max_running` lowers that.
    pub max_sequences: usize,
    /// Requests that may wait per owner.
    pub queue_per_owner: usize,
    /// Requests that may wait in all.
    pub queue_total: usize,
    /// How long a step may take that carries a piece of a prompt beside those who decode.
    pub itl_budget: Duration,
    /// Guess tokens from what was said before, and verify several in one step where that pays.
    pub speculative: bool,
    /// Give the model's memory back when nobody wrote for so long; it is loaded again with the next request.
    pub idle_unload: Option<Duration>,
    /// One sequence per step and nothing reused, so that a seed gives the same ids whatever else runs.
    pub deterministic: bool,
}

impl Limits {
    /// What a family needs.
    pub const FAMILY: Self = Self {
        max_running: DEFAULT_MAX_RUNNING,
        max_sequences: DEFAULT_MAX_RUNNING,
        queue_per_owner: DEFAULT_QUEUE_PER_OWNER,
        queue_total: DEFAULT_QUEUE_TOTAL,
        itl_budget: DEFAULT_ITL_BUDGET,
        speculative: true,
        idle_unload: None,
        deterministic: false,
    };
}

/// What a loader brings.
pub struct Loaded {
    /// The forward pass.
    pub model: Box<dyn Model>,
    /// Its vocabulary and template.
    pub text: TextModel,
    /// Size of the model's file in bytes.
    pub size_bytes: u64,
    /// A smaller model of the same vocabulary that guesses what this one will say.
    pub draft: Option<Box<dyn Model>>,
    /// Why it answers without the draft model that was wanted.
    pub no_draft: Option<String>,
}

/// Whether requests can be taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EngineState {
    /// The model is being loaded.
    Loading,
    /// It is loaded.
    Ready,
    /// It will not be: the reason, in one sentence.
    Failed(String),
}

/// What is known of the loaded model.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelInfo {
    /// Its own name for itself, or the file's.
    pub name: String,
    /// Architecture as in its GGUF.
    pub architecture: String,
    /// Positions a sequence may hold.
    pub n_ctx: usize,
    /// Positions the model was trained for.
    pub n_ctx_train: usize,
    /// Vocabulary size.
    pub n_vocab: usize,
    /// The weights' type.
    pub quantization: String,
    /// Size of the file in bytes.
    pub size_bytes: u64,
    /// Number of weights.
    pub n_params: u64,
    /// Runner and device.
    pub backend: String,
    /// What its pages of keys and values are, where they can be kept.
    pub kv_form: Option<KvForm>,
    /// Why it answers without the draft model that was wanted.
    pub no_draft: Option<String>,
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file or its weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Its vocabulary or template.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The loader or, again and again, the model broke off in the middle.
    #[error("the model broke down: {0}")]
    Panicked(String),
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model is not loaded (yet, or any more).
    #[error("the model is not ready")]
    NotReady,
    /// The model could not be loaded.
    #[error("the model could not be loaded: {0}")]
    Load(Arc<LoadError>),
    /// Too many wait, in all or of this owner.
    #[error("too many requests are waiting; try again in {retry_after_s} s")]
    Busy {
        /// A guess from how long generations took so far.
        retry_after_s: u64,
    },
    /// Another model is taking over already.
    #[error("another model is being loaded already; try again when it is there")]
    Switching,
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {n_tokens} tokens, and the context holds {n_ctx} with the answer")]
    ContextOverflow {
        /// Of the prompt.
        n_tokens: usize,
        /// Of the loaded model.
        n_ctx: usize,
    },
    /// A value out of its range.
    #[error(transparent)]
    Invalid(#[from] InvalidParam),
}

/// A handle on the inference thread; clones are cheap. When the last is dropped, the thread ends.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    _last: Arc<StopOnDrop>,
}

impl Engine {
    /// Starts the inference thread, which loads the model in the background.
    pub fn start(options: EngineOptions) -> Self {
        Self::start_drafted(options, None)
    }

    /// [`Engine::start`] with a smaller model that guesses what the model will say; the load fails where their
    /// vocabularies differ.
    pub fn start_drafted(options: EngineOptions, draft: Option<ModelSource>) -> Self {
        let EngineOptions { gguf, load, limits } = options;
        let limits = Limits { max_sequences: load.max_sequences, ..limits };
        Self::start_with(limits, move || {
            let loaded = bring(&gguf, &load)?;
            let draft = draft.as_ref().map(|draft| bring_draft(draft, &load, &loaded)).transpose()?;
            Ok(Loaded { draft, ..loaded })
        })
    }

    /// Loads another model and lets it take the place of the running one, which goes on until then and ends what it has
    /// begun. Blocks until it is done; requests wait meanwhile, or are refused with [`EngineError::NotReady`]. `draft`
    /// guesses for it where it can; where it cannot, `no_draft` says why, and the new model answers without.
    ///
    /// # Errors
    /// [`EngineError::Load`] says why the new one does not load; the old one goes on then.
    /// [`EngineError::Switching`] when another is on its way.
    pub fn switch(
        &self,
        gguf: ModelSource,
        load: model::LoadOptions,
        draft: Option<ModelSource>,
    ) -> Result<Arc<ModelInfo>, EngineError> {
        self.switch_with(move || {
            let loaded = bring(&gguf, &load)?;
            Ok(match &draft {
                Some(draft) => draft_if_fit(draft, &load, loaded),
                None => loaded,
            })
        })
    }

    /// [`Engine::switch`] to whatever `load` brings.
    ///
    /// # Errors
    /// As [`Engine::switch`].
    pub fn switch_with(
        &self,
        load: impl FnMut() -> Result<Loaded, LoadError> + Send + 'static,
    ) -> Result<Arc<ModelInfo>, EngineError> {
        lifetime::switch(&self.shared, Box::new(load))
    }

    /// Starts the inference thread with whatever `load` brings; it is called again when the model broke down.
    pub fn start_with(
        limits: Limits,
        load: impl FnMut() -> Result<Loaded, LoadError> + Send + 'static,
    ) -> Self {
        let max_running = limits.max_running.min(limits.max_sequences).max(1);
        let limits = Limits { max_running, max_sequences: limits.max_sequences.max(1), ..limits };
        let shared = Arc::new(Shared {
            limits,
            queue: Mutex::new(Queue::new(limits)),
            work: Condvar::new(),
            state: watch::channel(EngineState::Loading).0,
            loaded: Mutex::new(None),
            load_error: Mutex::new(None),
            metrics: Mutex::new(EngineMetrics::new()),
            thread: Mutex::new(None),
            switch: Mutex::new(None),
            switching: Mutex::new(()),
        });
        let for_thread = Arc::clone(&shared);
        let spawned = std::thread::Builder::new()
            .name("inference".into())
            .spawn(move || lifetime::run(&for_thread, Box::new(load)));
        match spawned {
            Ok(handle) => *lock(&shared.thread) = Some(handle),
            Err(e) => shared.fail(LoadError::Panicked(format!("the inference thread did not start: {e}"))),
        }
        Self { _last: Arc::new(StopOnDrop(Arc::clone(&shared))), shared }
    }

    /// Whether requests can be taken.
    pub fn state(&self) -> EngineState {
        self.shared.state.borrow().clone()
    }

    /// Waits until the model is loaded.
    ///
    /// # Errors
    /// [`EngineError::Load`] when it cannot be; [`EngineError::NotReady`] after [`Engine::shutdown`].
    pub async fn ready(&self) -> Result<(), EngineError> {
        let mut state = self.shared.state.subscribe();
        // The sender lives in `shared`, so waiting cannot fail.
        drop(state.wait_for(|s| *s != EngineState::Loading).await);
        match self.state() {
            EngineState::Ready => Ok(()),
            EngineState::Loading | EngineState::Failed(_) => Err(self.shared.why_not_ready()),
        }
    }

    /// [`Engine::ready`] for a thread outside of any async runtime.
    pub fn wait_ready_blocking(&self) -> Result<(), EngineError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.ready()),
            Err(_) => Err(EngineError::NotReady),
        }
    }

    /// Vocabulary and template of the model, once it is loaded.
    pub fn text(&self) -> Option<Arc<TextModel>> {
        lock(&self.shared.loaded).as_ref().map(|l| Arc::clone(&l.text))
    }

    /// What is known of the model, once it is loaded.
    pub fn model_info(&self) -> Option<Arc<ModelInfo>> {
        lock(&self.shared.loaded).as_ref().map(|l| Arc::clone(&l.info))
    }

    /// Compiles what a text must look like, for the loaded model. It may take a second, so it is called where that
    /// disturbs nobody; the first call of all prepares the vocabulary.
    ///
    /// # Errors
    /// [`EngineError::NotReady`], or [`EngineError::Invalid`] saying what is wrong with the form.
    pub fn compile(&self, form: &grammar::Form, in_thought: bool) -> Result<grammar::Grammar, EngineError> {
        let (text, info, grammars) = {
            let loaded = lock(&self.shared.loaded);
            let loaded = loaded.as_ref().ok_or(EngineError::NotReady)?;
            (Arc::clone(&loaded.text), Arc::clone(&loaded.info), Arc::clone(&loaded.grammars))
        };
        let grammars = grammars.get_or_init(|| grammar::Grammars::new(&text.tokenizer, info.n_vocab));
        Ok(grammars.as_ref().map_err(Clone::clone)?.compile(form, in_thought)?)
    }

    /// [`Engine::submit`] for the model that `info` was asked of: another one may have taken its place since, and would
    /// not understand its tokens.
    ///
    /// # Errors
    /// [`EngineError::NotReady`] then; else as [`Engine::submit`].
    pub fn submit_for(
        &self,
        info: &Arc<ModelInfo>,
        request: GenerateRequest,
    ) -> Result<Generation, EngineError> {
        self.submit_if(request, |now| Arc::ptr_eq(now, info))
    }

    /// Queues a request; never blocks.
    ///
    /// # Errors
    /// [`EngineError`] says what was wrong; nothing was queued then.
    pub fn submit(&self, request: GenerateRequest) -> Result<Generation, EngineError> {
        self.submit_if(request, |_| true)
    }

    fn submit_if(
        &self,
        request: GenerateRequest,
        is_wanted: impl Fn(&Arc<ModelInfo>) -> bool,
    ) -> Result<Generation, EngineError> {
        request.validate()?;
        let info = self.model_info().filter(|_| self.state() == EngineState::Ready);
        let info = info.ok_or_else(|| self.shared.why_not_ready())?;
        if request.prompt.len() >= info.n_ctx {
            return Err(EngineError::ContextOverflow { n_tokens: request.prompt.len(), n_ctx: info.n_ctx });
        }
        if let Some(id) = request.prompt.iter().find(|&&id| id as usize >= info.n_vocab) {
            let problem = format!("token {id} is outside the vocabulary of {}", info.n_vocab);
            return Err(InvalidParam::new("prompt", problem).into());
        }
        let (sender, events) = mpsc::unbounded_channel();
        let cancel = CancelHandle::default();
        let waiting = Waiting {
            request,
            events: sender,
            cancel: cancel.clone(),
            submitted_at: Instant::now(),
            position: 0,
        };
        let pushed = {
            // Held over both, so that no other model comes in between.
            let mut queue = lock(&self.shared.queue);
            match self.model_info().filter(&is_wanted) {
                Some(_) => queue.push(waiting),
                None => Err(EngineError::NotReady),
            }
        };
        if let Err(e) = pushed {
            lock(&self.shared.metrics).refused_total += 1;
            return Err(e);
        }
        self.shared.work.notify_one();
        Ok(Generation { events, cancel })
    }

    /// A snapshot of counters, gauges and histograms.
    pub fn metrics(&self) -> EngineMetrics {
        let (running, queued) = {
            let queue = lock(&self.shared.queue);
            (queue.n_running(), queue.n_waiting())
        };
        let loaded = self.state() == EngineState::Ready;
        EngineMetrics { running, queued, loaded, ..lock(&self.shared.metrics).clone() }
    }

    /// Ends every running and waiting generation with [`Finish::Cancelled`], then the thread; returns when it is gone,
    /// after at most one step (or the rest of a load). Later requests are refused with [`EngineError::NotReady`].
    pub fn shutdown(&self) {
        self.shared.stop();
        let handle = lock(&self.shared.thread).take();
        if let Some(handle) = handle
            && handle.join().is_err()
        {
            tracing::error!("the inference thread had panicked");
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("state", &self.state()).finish_non_exhaustive()
    }
}

/// What handles and the inference thread share.
struct Shared {
    limits: Limits,
    queue: Mutex<Queue>,
    /// Signalled when the queue has grown or the end has come.
    work: Condvar,
    state: watch::Sender<EngineState>,
    loaded: Mutex<Option<LoadedShared>>,
    load_error: Mutex<Option<Arc<LoadError>>>,
    metrics: Mutex<EngineMetrics>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// What is to take over.
    switch: Mutex<Option<lifetime::Switch>>,
    /// Held by whoever switches.
    switching: Mutex<()>,
}

/// The part of [`Loaded`] that handles may see.
struct LoadedShared {
    text: Arc<TextModel>,
    info: Arc<ModelInfo>,
    grammars: Arc<OnceLock<Result<grammar::Grammars, InvalidParam>>>,
}

impl Shared {
    fn stop(&self) {
        lock(&self.queue).close();
        self.work.notify_all();
    }

    fn fail(&self, error: LoadError) {
        tracing::error!(%error, "the model is out of service");
        let error = Arc::new(error);
        *lock(&self.load_error) = Some(Arc::clone(&error));
        self.state.send_replace(EngineState::Failed(error.to_string()));
    }

    fn why_not_ready(&self) -> EngineError {
        lock(&self.load_error).clone().map_or(EngineError::NotReady, EngineError::Load)
    }
}

/// Lives as long as any handle does; the thread holds [`Shared`] only.
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A panic elsewhere does not make these values wrong: each is changed in one go.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
