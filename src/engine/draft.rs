//! Guesses from a second, smaller model of the same vocabulary (`--draft`).
//!
//! It says what it holds likeliest, token by token; the large model evaluates the proposal in one step, and each token is
//! sampled as if there had been none, exactly as with `lookup`'s guesses. So the text is the same with and without, and
//! only its speed differs. Where guesses hold too seldom for what they cost, none are made but for a trial now and then.
//!
//! The small model's sequences are its own: one follows each running generation, and stays for its owner's next one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::pace::{StepTimes, Work};
use super::request::Owner;
use crate::model::{Chunk, LogitsFor, Model, ModelError, SeqId, TokenId};
use crate::text::Tokenizer;

/// Sequences that are kept of generations that ended.
const MAX_IDLE: usize = 8;

/// The small model and what it has read.
pub(super) struct Drafter {
    model: Box<dyn Model>,
    n_vocab: usize,
    /// By the large model's sequence.
    following: HashMap<SeqId, Held>,
    /// Oldest first.
    idle: Vec<(Owner, Held)>,
    times: StepTimes,
}

struct Held {
    seq: SeqId,
    tokens: Vec<TokenId>,
}

impl Drafter {
    /// `n_vocab` tokens are those of the text.
    pub(super) fn new(model: Box<dyn Model>, n_vocab: usize) -> Self {
        let n_vocab = n_vocab.min(model.config().n_vocab);
        Self { model, n_vocab, following: HashMap::new(), idle: Vec::new(), times: StepTimes::default() }
    }

    /// Seconds that one guess takes after `depth` tokens; `None` before the first.
    pub(super) fn guess_s(&self, depth: usize) -> Option<f64> {
        self.times.expect(Work::rows(depth, 1))
    }

    /// At most `n_max` tokens that may follow `tokens` on the large model's sequence `of`; none while it has to read more
    /// first than it can within `budget`, so much of which it reads.
    pub(super) fn propose(
        &mut self,
        (of, owner): (SeqId, Owner),
        tokens: &[TokenId],
        n_max: usize,
        budget: Duration,
    ) -> Vec<TokenId> {
        if n_max == 0 || tokens.len() + n_max > self.model.config().n_ctx {
            return Vec::new();
        }
        let proposed = self.held_for(of, owner, tokens).and_then(|held| {
            let (held, proposed) = self.go_on(held, tokens, n_max, budget)?;
            self.following.insert(of, held);
            Ok(proposed)
        });
        proposed.unwrap_or_else(|error| {
            tracing::debug!(%error, "the draft model guessed nothing");
            Vec::new()
        })
    }

    /// The generation on the large model's sequence ended.
    pub(super) fn end(&mut self, of: SeqId, owner: Owner) {
        if let Some(held) = self.following.remove(&of) {
            self.idle.push((owner, held));
            if self.idle.len() > MAX_IDLE {
                let (_, oldest) = self.idle.remove(0);
                self.model.free_sequence(oldest.seq);
            }
        }
    }

    /// The sequence that follows already, or the owner's idle one that has most in common, or a new one.
    fn held_for(&mut self, of: SeqId, owner: Owner, tokens: &[TokenId]) -> Result<Held, ModelError> {
        if let Some(held) = self.following.remove(&of) {
            return Ok(held);
        }
        let common = |i: usize| n_common(&self.idle[i].1.tokens, tokens);
        let own = (0..self.idle.len()).filter(|&i| self.idle[i].0 == owner);
        if let Some(i) = own.max_by_key(|&i| common(i)).filter(|&i| common(i) > 0) {
            return Ok(self.idle.remove(i).1);
        }
        loop {
            match self.model.new_sequence() {
                Err(ModelError::TooLarge(_)) if !self.idle.is_empty() => {
                    let (_, oldest) = self.idle.remove(0);
                    self.model.free_sequence(oldest.seq);
                }
                made => return made.map(|seq| Held { seq, tokens: Vec::new() }),
            }
        }
    }

    fn go_on(
        &mut self,
        mut held: Held,
        tokens: &[TokenId],
        n_max: usize,
        budget: Duration,
    ) -> Result<(Held, Vec<TokenId>), ModelError> {
        // The newest token must be read to say what follows.
        let n_same = n_common(&held.tokens, &tokens[..tokens.len() - 1]);
        self.model.truncate(held.seq, n_same);
        if self.model.seq_len(held.seq) != n_same {
            self.model.free_sequence(held.seq);
            return Err(ModelError::Backend("its sequence does not go back so far".into()));
        }
        held.tokens.truncate(n_same);
        let n_readable = self.times.chunk(Work::default(), n_same, budget);
        if tokens.len() - n_same > n_readable {
            self.read(&mut held, &tokens[n_same..n_same + n_readable], LogitsFor::None)?;
            return Ok((held, Vec::new()));
        }
        let mut proposed = Vec::with_capacity(n_max);
        let mut next = self.read(&mut held, &tokens[n_same..], LogitsFor::Last)?;
        while let Some(token) = next {
            proposed.push(token);
            if proposed.len() == n_max {
                break;
            }
            next = self.read(&mut held, &[token], LogitsFor::Last)?;
        }
        Ok((held, proposed))
    }

    /// Reads tokens; the likeliest to follow, if asked.
    fn read(
        &mut self,
        held: &mut Held,
        tokens: &[TokenId],
        logits: LogitsFor,
    ) -> Result<Option<TokenId>, ModelError> {
        let began = Instant::now();
        let step = self.model.step(&[Chunk { seq: held.seq, tokens, logits }]);
        let read = step.inspect_err(|_| self.model.free_sequence(held.seq))?;
        self.times.observe(Work::rows(held.tokens.len(), tokens.len()), began.elapsed());
        held.tokens.extend_from_slice(tokens);
        let row = read.rows().next().map(|row| &row[..self.n_vocab.min(row.len())]);
        let likeliest = row.and_then(|row| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])));
        Ok(likeliest.map(|id| id as TokenId))
    }
}

fn n_common(a: &[TokenId], b: &[TokenId]) -> usize {
    std::iter::zip(a, b).take_while(|(a, b)| a == b).count()
}

/// Whether two models mean the same by every token; else what tells them apart.
pub(super) fn same_vocabulary(model: &Tokenizer, draft: &Tokenizer) -> Result<(), String> {
    let (n, n_draft) = (model.n_vocab(), draft.n_vocab());
    if n != n_draft {
        return Err(format!("it has {n_draft} tokens and the model {n}"));
    }
    let differs = |id: &TokenId| {
        model.token_bytes(*id) != draft.token_bytes(*id) || model.is_control(*id) != draft.is_control(*id)
    };
    match (0..n as TokenId).find(differs) {
        None => Ok(()),
        Some(id) => {
            let (theirs, ours) = (draft.token_text(id), model.token_text(id));
            Err(format!("token {id} is {theirs:?} there and {ours:?} in the model"))
        }
    }
}
