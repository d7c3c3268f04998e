//! A model that says what a test tells it to, at the pace the test allows: the fake behind the `Model` seam.
//!
//! Vocabulary and chat template are the built-in model's own, so that everything above the forward pass is real.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use mommygpt::engine::{LoadError, Loaded};
use mommygpt::model::gguf::Gguf;
use mommygpt::model::{Batch, Logits, LogitsFor, Model, ModelConfig, ModelError, SeqId, TokenId};
use mommygpt::text::{ChatTemplate, TextModel};

static BUILTIN: &[u8] = include_bytes!("../../models/mommy.gguf");

/// The test's hand on the model. Clones are one script.
#[derive(Clone)]
pub(crate) struct Script(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    template: Option<&'static str>,
}

struct State {
    reply: String,
    /// Tokens that still come at full speed; `None` = all.
    allowance: Option<usize>,
    n_generated: usize,
}

impl Script {
    pub(crate) fn new(reply: &str, template: Option<&'static str>) -> Self {
        let state = State { reply: reply.to_owned(), allowance: None, n_generated: 0 };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), template }))
    }
    /// What the next replies say.
    pub(crate) fn says(&self, reply: &str) {
        reply.clone_into(&mut self.0.state.lock().unwrap().reply);
    }
    /// Lets the model generate `n` more tokens at full speed; then it crawls, so that a test can look around in the
    /// middle of a reply and Stop is heard all the same.
    pub(crate) fn allow(&self, n: usize) {
        self.0.state.lock().unwrap().allowance = Some(n);
        self.0.changed.notify_all();
    }
    /// Lets it run freely.
    pub(crate) fn release(&self) {
        self.0.state.lock().unwrap().allowance = None;
        self.0.changed.notify_all();
    }
    /// Tokens generated so far, of all replies.
    pub(crate) fn n_generated(&self) -> usize {
        self.0.state.lock().unwrap().n_generated
    }

    /// Waits until the next token may come.
    fn take(&self) {
        const CRAWL: Duration = Duration::from_millis(50);
        let state = self.0.state.lock().unwrap();
        let waits = |s: &mut State| s.allowance == Some(0);
        let (mut state, _) = self.0.changed.wait_timeout_while(state, CRAWL, waits).unwrap();
        if let Some(n) = &mut state.allowance {
            *n = n.saturating_sub(1);
        }
        state.n_generated += 1;
    }

    /// What the engine calls to load this model.
    pub(crate) fn load(&self) -> Result<Loaded, LoadError> {
        let gguf = Gguf::from_static("builtin", BUILTIN)?;
        let mut text = TextModel::from_gguf(&gguf)?;
        if let Some(source) = self.0.template {
            text.template = ChatTemplate::from_source(source, "", "")?;
        }
        let again = TextModel::from_gguf(&gguf)?;
        let config = ModelConfig::from_gguf(&gguf, Some(CONTEXT))?;
        let model =
            Scripted { script: self.clone(), text: again, config, sequences: HashMap::new(), n_made: 0 };
        let size_bytes = gguf.size_bytes();
        Ok(Loaded { model: Box::new(model), text, size_bytes, draft: None, no_draft: None })
    }
}

/// A reply long enough that a test can look around in the middle of it, and without circles.
pub(crate) fn count_to(n: usize) -> String {
    let words: Vec<String> = (0..n).map(|i| i.to_string()).collect();
    words.join(" ")
}

/// Room for every reply of the tests.
const CONTEXT: usize = 2048;

struct Scripted {
    script: Script,
    text: TextModel,
    config: ModelConfig,
    sequences: HashMap<SeqId, Sequence>,
    n_made: u32,
}

#[derive(Default)]
struct Sequence {
    len: usize,
    /// The reply being said, and how much of it was.
    reply: Vec<TokenId>,
    n_said: usize,
    last: Option<TokenId>,
}

impl Scripted {
    fn end(&self) -> TokenId {
        (0..self.config.n_vocab as TokenId)
            .find(|&id| self.text.tokenizer.is_end_of_generation(id))
            .expect("the built-in model has an end token")
    }
}

impl Model for Scripted {
    fn config(&self) -> &ModelConfig {
        &self.config
    }
    fn backend(&self) -> String {
        "script".into()
    }
    fn new_sequence(&mut self) -> Result<SeqId, ModelError> {
        self.n_made += 1;
        let id = SeqId(self.n_made);
        self.sequences.insert(id, Sequence::default());
        Ok(id)
    }
    fn free_sequence(&mut self, seq: SeqId) {
        self.sequences.remove(&seq);
    }
    fn seq_len(&self, seq: SeqId) -> usize {
        self.sequences[&seq].len
    }
    fn truncate(&mut self, seq: SeqId, len: usize) {
        let sequence = self.sequences.get_mut(&seq).expect("a live sequence");
        sequence.len = sequence.len.min(len);
        sequence.last = None;
    }
    fn embed(&mut self, tokens: &[TokenId]) -> Result<Vec<f32>, ModelError> {
        let mut counts = vec![0.0; 8];
        for token in tokens {
            counts[*token as usize % 8] += 1.0;
        }
        Ok(counts)
    }
    fn step(&mut self, batch: &Batch<'_>) -> Result<Logits, ModelError> {
        let (end, n_vocab) = (self.end(), self.config.n_vocab);
        let mut data = Vec::new();
        for chunk in batch {
            let sequence = self.sequences.get_mut(&chunk.seq).expect("a live sequence");
            sequence.len += chunk.tokens.len();
            if chunk.logits == LogitsFor::None {
                sequence.last = None;
                continue;
            }
            if sequence.last != chunk.tokens.last().copied() || chunk.tokens.len() > 1 {
                let reply = self.script.0.state.lock().unwrap().reply.clone();
                sequence.reply = self.text.tokenizer.encode_plain(&reply, false).expect("plain text");
                sequence.n_said = 0;
            }
            let next = match sequence.reply.get(sequence.n_said) {
                None => end,
                Some(&token) => {
                    self.script.take();
                    sequence.n_said += 1;
                    token
                }
            };
            sequence.last = Some(next);
            let mut row = vec![-30.0; n_vocab];
            row[next as usize] = 30.0;
            data.extend(row);
        }
        Ok(Logits { data, n_vocab })
    }
}
