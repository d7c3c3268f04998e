//! One generation while it runs: which tokens come next, and what becomes of a sampled one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::grammar::{Constraint, MaskThread};
use super::lookup::{Lookup, Record};
use super::loop_guard::LoopGuard;
use super::queue::Waiting;
use super::request::{CancelHandle, Event, Finish, Logprob, Owner, Timings, Urgency};
use super::sampler::{self, Mask, Sampler};
use super::stop::StopMatcher;
use crate::model::{SeqId, TokenId};
use crate::text::{Detokenizer, TextModel};

/// Longest time of one generation: a place is never taken for good, however slow the machine is. At one token a second,
/// the slowest that anybody would bear, an hour is a very long answer.
pub(super) const MAX_GENERATION: Duration = Duration::from_hours(1);

/// How often a draft model's guess is assumed to hold before one was tried: what models of one family come to.
const FIRST_DRAFT_GUESS: f64 = 0.6;

/// A generation that has a sequence.
pub(super) struct Running {
    pub(super) owner: Owner,
    pub(super) urgency: Urgency,
    pub(super) seq: SeqId,
    sampler: Sampler,
    /// Guesses what comes next.
    pub(super) lookup: Lookup,
    /// How the draft model's guesses fared.
    pub(super) drafts: Record,
    /// The grammar that the text must follow.
    constraint: Option<Constraint>,
    /// The grammar lets nothing follow.
    is_complete: bool,
    /// How many alternatives are told per token, if tokens are told.
    n_top: Option<usize>,
    /// Tokens to be told with the next delta.
    untold: Vec<Logprob>,
    /// The prompt and what was generated.
    tokens: Vec<TokenId>,
    n_prompt: usize,
    n_cached: usize,
    /// The sequence holds this many of `tokens`.
    n_evaluated: usize,
    n_generated: usize,
    max_tokens: usize,
    text: Arc<TextModel>,
    detokenizer: Detokenizer,
    stop: StopMatcher,
    loop_guard: LoopGuard,
    /// Tokens generated since the last delta.
    n_unsent: usize,
    events: mpsc::UnboundedSender<Event>,
    cancel: CancelHandle,
    submitted_at: Instant,
    started_at: Instant,
    prefilled_at: Option<Instant>,
    last_token_at: Option<Instant>,
}

impl Running {
    /// Starts on a sequence that holds the first `n_cached` tokens of the prompt.
    pub(super) fn start(
        waiting: Waiting,
        seq: SeqId,
        n_cached: usize,
        n_ctx: usize,
        text: &Arc<TextModel>,
        masks: &MaskThread,
    ) -> Self {
        let Waiting { request, events, cancel, submitted_at, .. } = waiting;
        let n_prompt = request.prompt.len();
        let running = Self {
            owner: request.owner,
            urgency: request.urgency,
            seq,
            sampler: Sampler::new(request.sampling, &request.prompt),
            lookup: Lookup::new(),
            drafts: Record::new(FIRST_DRAFT_GUESS),
            constraint: request.grammar.map(|g| Constraint::new(g, masks.clone())),
            is_complete: false,
            n_top: request.logprobs,
            untold: Vec::new(),
            tokens: request.prompt,
            n_prompt,
            n_cached,
            n_evaluated: n_cached,
            n_generated: 0,
            max_tokens: request.max_tokens.min(n_ctx - n_prompt),
            text: Arc::clone(text),
            detokenizer: Detokenizer::new(&text.tokenizer),
            stop: StopMatcher::new(request.stop),
            loop_guard: LoopGuard::default(),
            n_unsent: 0,
            events,
            cancel,
            submitted_at,
            started_at: Instant::now(),
            prefilled_at: None,
            last_token_at: None,
        };
        running.report_prefill();
        running
    }

    /// Whether its prompt is being evaluated still.
    pub(super) fn is_prefilling(&self) -> bool {
        self.prefilled_at.is_none()
    }

    /// Nobody waits for it.
    pub(super) fn is_background(&self) -> bool {
        self.urgency != Urgency::Awaited
    }

    /// Nobody wants the rest.
    pub(super) fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || self.events.is_closed()
    }

    /// Up to `n_max` tokens that the sequence lacks, and whether they are all it lacks.
    pub(super) fn next_chunk(&self, n_max: usize) -> (&[TokenId], bool) {
        let pending = &self.tokens[self.n_evaluated..];
        (&pending[..n_max.min(pending.len())], pending.len() <= n_max)
    }

    /// How many tokens the sequence holds.
    pub(super) fn n_evaluated(&self) -> usize {
        self.n_evaluated
    }

    /// The sequence has taken `n` tokens more.
    pub(super) fn evaluated(&mut self, n: usize) {
        self.n_evaluated += n;
        if self.is_prefilling() {
            if self.n_evaluated == self.n_prompt {
                self.prefilled_at = Some(Instant::now());
            }
            self.report_prefill();
        }
    }

    /// How many guesses may be made: the last token of all needs none behind it, and a grammar's masks are computed one
    /// step ahead only.
    pub(super) fn n_guessable(&self) -> usize {
        let n_left = (self.max_tokens - self.n_generated).saturating_sub(1);
        if self.constraint.is_some() { 0 } else { n_left }
    }

    /// The prompt and what was generated.
    pub(super) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Tokens that may come next, as a guess: at most `n_max`. They count as the text's own only once they were sampled.
    pub(super) fn draft(&mut self, n_max: usize) -> Vec<TokenId> {
        if self.constraint.is_some() {
            return Vec::new();
        }
        let n_max = n_max.min(self.n_guessable());
        self.lookup.draft(&self.tokens, n_max).to_vec()
    }

    /// The next step's logits will be sampled from: whatever that needs can be prepared while the model computes.
    pub(super) fn prepare(&mut self) {
        if let Some(constraint) = &mut self.constraint {
            constraint.ahead();
        }
    }

    /// Chooses a token from a row of logits, which it may change.
    pub(super) fn choose(&mut self, logits: &mut [f32], mask: &Mask) -> Result<TokenId, String> {
        let untouched = self.n_top.map(|_| logits[..mask.n_vocab.min(logits.len())].to_vec());
        if let Some(constraint) = &mut self.constraint {
            constraint.allowed()?.apply(logits);
        }
        let token = self.sampler.sample(logits, mask).map_err(|e| e.to_string())?;
        if let (Some(n_top), Some(untouched)) = (self.n_top, untouched)
            && !mask.end_of_generation.contains(&token)
        {
            self.untold.push(sampler::logprobs(&untouched, token, n_top));
        }
        if let Some(constraint) = &mut self.constraint {
            self.is_complete = constraint.take(token)?;
        }
        Ok(token)
    }

    /// Takes the sampled token: `Some` when it was the last.
    pub(super) fn accept(&mut self, token: TokenId) -> Option<Finish> {
        if self.text.tokenizer.is_end_of_generation(token) {
            let rest =
                std::mem::replace(&mut self.detokenizer, Detokenizer::new(&self.text.tokenizer)).finish();
            return Some(self.release(&rest).unwrap_or_else(|| {
                self.flush();
                Finish::Stop
            }));
        }
        self.tokens.push(token);
        self.n_generated += 1;
        self.n_unsent += 1;
        let piece = self.detokenizer.push(token);
        if let Some(stopped) = self.release(&piece) {
            return Some(stopped);
        }
        if self.is_complete {
            self.flush();
            return Some(Finish::Stop);
        }
        let is_long = self.n_generated >= self.max_tokens || self.started_at.elapsed() > MAX_GENERATION;
        (self.loop_guard.push(token) || is_long).then(|| {
            self.flush();
            Finish::Length
        })
    }

    /// Tokens came now. Time since those before, or since `submit` for the first; and whether they are the first.
    pub(super) fn note_tokens(&mut self) -> (Duration, bool) {
        let now = Instant::now();
        let before = self.last_token_at.replace(now);
        (now - before.unwrap_or(self.submitted_at), before.is_none())
    }

    /// How long it has been running.
    pub(super) fn took(&self) -> Duration {
        self.started_at.elapsed()
    }

    /// Somebody asked for the end: text that was held back for a stop string belongs to the answer now. Half a
    /// character does not.
    pub(super) fn flush(&mut self) {
        let rest = self.stop.finish();
        self.send_text(rest);
        if !self.untold.is_empty() {
            // Tokens without text of their own: the beginning of a character, or of a stop string.
            let (n_tokens, tokens) = (std::mem::take(&mut self.n_unsent), std::mem::take(&mut self.untold));
            self.send(Event::Delta { text: String::new(), n_tokens, tokens });
        }
    }

    /// Says how it ended, and leaves what its sequence holds.
    pub(super) fn done(mut self, finish_reason: Finish) -> Vec<TokenId> {
        self.send(Event::Done { finish_reason, timings: self.timings() });
        self.tokens.truncate(self.n_evaluated);
        self.tokens
    }

    /// Says that it broke.
    pub(super) fn failed(self, why: &str) {
        self.send(Event::Failed(why.to_owned()));
    }

    /// How fast it is so far.
    pub(super) fn timings(&self) -> Timings {
        let ms = |d: Duration| d.as_secs_f32() * 1e3;
        let now = Instant::now();
        let prefilled_at = self.prefilled_at.unwrap_or(now);
        Timings {
            cache_n: self.n_cached as u32,
            prompt_n: (self.n_evaluated.min(self.n_prompt) - self.n_cached) as u32,
            prompt_ms: ms(prefilled_at - self.started_at),
            predicted_n: self.n_generated as u32,
            predicted_ms: ms(now - prefilled_at),
        }
    }

    fn release(&mut self, piece: &str) -> Option<Finish> {
        let released = self.stop.push(piece);
        self.send_text(released.text);
        if released.stopped {
            self.flush();
        }
        released.stopped.then_some(Finish::Stop)
    }

    fn send_text(&mut self, text: String) {
        if !text.is_empty() {
            let (n_tokens, tokens) = (std::mem::take(&mut self.n_unsent), std::mem::take(&mut self.untold));
            self.send(Event::Delta { text, n_tokens, tokens });
        }
    }

    fn report_prefill(&self) {
        self.send(Event::Prefill {
            prompt_tokens: self.n_prompt,
            cached_tokens: self.n_cached,
            processed_tokens: self.n_evaluated.min(self.n_prompt),
        });
    }

    fn send(&self, event: Event) {
        // A reader that went away is noticed by `is_over` before the next step.
        let _ = self.events.send(event);
    }
}
