//! A model whose next token the test decides, and whose steps the test can hold: a fake at the `Model` trait, with the
//! built-in model's vocabulary.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use mommygpt::engine::{LoadError, Loaded};
use mommygpt::model::{Batch, Gguf, Logits, LogitsFor, Model, ModelConfig, ModelError, SeqId, TokenId};
use mommygpt::text::TextModel;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// What follows a sequence's tokens.
pub(crate) type Next = fn(&[TokenId]) -> TokenId;

/// A chunk as the model saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub(crate) seq: SeqId,
    /// Position of its first token.
    pub(crate) start: usize,
    pub(crate) tokens: Vec<TokenId>,
}

/// The test's hold on the model inside the engine; it outlives a reload.
#[derive(Clone, Default)]
pub(crate) struct Remote(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
pub(crate) struct State {
    /// Steps that may still run; `None` is any number.
    permits: Option<usize>,
    /// Batches that were handed in, the one that waits for a permit included.
    pub(crate) steps: Vec<Vec<Row>>,
    pub(crate) n_loads: usize,
    pub(crate) n_dropped: usize,
    /// Sequences alive now, and the most there ever were.
    pub(crate) n_live: usize,
    pub(crate) n_live_max: usize,
    /// Sequences can be forked.
    pub(crate) forks: bool,
    /// A step with this token fails, or panics.
    pub(crate) error_at: Option<TokenId>,
    pub(crate) panic_at: Option<TokenId>,
    /// A step takes so long for each of its rows.
    pub(crate) row_takes: Duration,
}

impl Remote {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
    fn change<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let out = f(&mut self.state());
        self.0.1.notify_all();
        out
    }
    /// Steps wait from now on.
    pub(crate) fn hold(&self) {
        self.change(|s| s.permits = Some(0));
    }
    /// Takes the time of so many rows.
    fn spend(&self, n_rows: u32) {
        let takes = self.see(|s| s.row_takes) * n_rows;
        drop(self.0.1.wait_timeout_while(self.state(), takes, |_| true));
    }
    /// Lets `n` steps through.
    pub(crate) fn allow(&self, n: usize) {
        self.change(|s| s.permits = s.permits.map(|p| p + n));
    }
    /// Lets all steps through.
    pub(crate) fn release(&self) {
        self.change(|s| s.permits = None);
    }
    pub(crate) fn set(&self, f: impl FnOnce(&mut State)) {
        self.change(f);
    }
    pub(crate) fn see<T>(&self, f: impl FnOnce(&State) -> T) -> T {
        f(&self.state())
    }
    /// Waits until `f` gives something.
    pub(crate) fn wait<T>(&self, what: &str, mut f: impl FnMut(&State) -> Option<T>) -> T {
        let mut out = None;
        let (_guard, timeout) = self
            .0
            .1
            .wait_timeout_while(self.state(), PATIENCE, |s| {
                out = f(s);
                out.is_none()
            })
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        assert!(!timeout.timed_out(), "never happened: {what}");
        out.unwrap()
    }
    /// Waits until `n` batches have been handed in.
    pub(crate) fn wait_steps(&self, n: usize) {
        self.wait(&format!("step {n}"), |s| (s.steps.len() >= n).then_some(()));
    }
    /// The tokens of every sequence in the order of their beginnings: by the first token.
    pub(crate) fn order_of_starts(&self) -> Vec<TokenId> {
        self.see(|s| s.steps.iter().flatten().filter(|r| r.start == 0).map(|r| r.tokens[0]).collect())
    }
}

/// The model's side.
struct ScriptedModel {
    config: ModelConfig,
    next: Next,
    remote: Remote,
    sequences: BTreeMap<SeqId, Vec<TokenId>>,
    n_made: u32,
}

pub(crate) fn builtin_path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mommy.gguf")
}

/// The built-in model's vocabulary and template.
pub(crate) fn builtin_text() -> TextModel {
    TextModel::from_gguf(&Gguf::open(&builtin_path()).unwrap()).unwrap()
}

/// What a loader gives: a scripted model of this context length.
pub(crate) fn load(remote: &Remote, n_ctx: usize, next: Next) -> Result<Loaded, LoadError> {
    let text = builtin_text();
    let config = ModelConfig {
        architecture: "scripted".into(),
        name: "scripted".into(),
        quantization: "none".into(),
        n_params: 0,
        n_vocab: text.tokenizer.n_vocab(),
        n_ctx,
        n_ctx_train: n_ctx,
        ..ModelConfig::from_gguf(&Gguf::open(&builtin_path()).unwrap(), None)?
    };
    remote.change(|s| s.n_loads += 1);
    let model = ScriptedModel { config, next, remote: remote.clone(), sequences: BTreeMap::new(), n_made: 0 };
    Ok(Loaded { model: Box::new(model), text, size_bytes: 0, draft: None, no_draft: None })
}

impl Model for ScriptedModel {
    fn config(&self) -> &ModelConfig {
        &self.config
    }
    fn backend(&self) -> String {
        "scripted".into()
    }
    fn new_sequence(&mut self) -> Result<SeqId, ModelError> {
        let seq = SeqId(self.n_made);
        self.n_made += 1;
        self.sequences.insert(seq, Vec::new());
        let n_live = self.sequences.len();
        self.remote.change(|s| {
            s.n_live = n_live;
            s.n_live_max = s.n_live_max.max(n_live);
        });
        Ok(seq)
    }
    fn free_sequence(&mut self, seq: SeqId) {
        self.sequences.remove(&seq);
        let n_live = self.sequences.len();
        self.remote.change(|s| s.n_live = n_live);
    }
    fn seq_len(&self, seq: SeqId) -> usize {
        self.sequences[&seq].len()
    }
    fn truncate(&mut self, seq: SeqId, len: usize) {
        self.sequences.get_mut(&seq).unwrap().truncate(len);
    }
    fn fork(&mut self, seq: SeqId, len: usize) -> Result<SeqId, ModelError> {
        if !self.remote.see(|s| s.forks) {
            return Err(ModelError::Unsupported("not scripted".into()));
        }
        let beginning = self.sequences[&seq][..len].to_vec();
        let fork = self.new_sequence()?;
        self.sequences.insert(fork, beginning);
        Ok(fork)
    }
    fn step(&mut self, batch: &Batch<'_>) -> Result<Logits, ModelError> {
        let rows: Vec<Row> = batch
            .iter()
            .map(|c| Row { seq: c.seq, start: self.seq_len(c.seq), tokens: c.tokens.to_vec() })
            .collect();
        let has = |id: Option<TokenId>| id.is_some_and(|id| rows.iter().any(|r| r.tokens.contains(&id)));
        let (errs, panics) = self.remote.change(|s| {
            s.steps.push(rows.clone());
            (has(s.error_at), has(s.panic_at))
        });
        self.remote.wait("a permit to step", |s| (s.permits != Some(0)).then_some(()));
        self.remote.set(|s| s.permits = s.permits.map(|p| p - 1));
        self.remote.spend(rows.iter().map(|r| r.tokens.len() as u32).sum());
        assert!(!panics, "a scripted panic");
        if errs {
            return Err(ModelError::Backend("a scripted error".into()));
        }
        let n_vocab = self.config.n_vocab;
        let mut data = Vec::new();
        for chunk in batch {
            let held = self.sequences.get_mut(&chunk.seq).unwrap();
            for (i, &token) in chunk.tokens.iter().enumerate() {
                held.push(token);
                let is_last = i + 1 == chunk.tokens.len();
                if chunk.logits == LogitsFor::All || chunk.logits == LogitsFor::Last && is_last {
                    let row = data.len();
                    data.resize(row + n_vocab, 0.0);
                    data[row + (self.next)(held) as usize] = 20.0;
                }
            }
            assert!(held.len() <= self.config.n_ctx, "past the context");
        }
        Ok(Logits { data, n_vocab })
    }
}

impl Drop for ScriptedModel {
    fn drop(&mut self) {
        self.remote.change(|s| {
            s.n_dropped += 1;
            s.n_live = 0;
        });
    }
}
