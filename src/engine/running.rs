//! One generation while it runs: which tokens come next, and what becomes of a sampled one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::loop_guard::LoopGuard;
use super::queue::Waiting;
use super::request::{CancelHandle, Event, Finish, Owner, Timings};
use super::sampler::Sampler;
use super::stop::StopMatcher;
use crate::model::{SeqId, TokenId};
use crate::text::{Detokenizer, TextModel};

/// Longest time of one generation: a place is never taken for good, however slow the machine is. At one token a second,
/// the slowest that anybody would bear, an hour is a very long answer.
pub(super) const MAX_GENERATION: Duration = Duration::from_hours(1);

/// A generation that has a sequence.
pub(super) struct Running {
    pub(super) owner: Owner,
    pub(super) seq: SeqId,
    pub(super) sampler: Sampler,
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
    ) -> Self {
        let Waiting { request, events, cancel, submitted_at, .. } = waiting;
        let n_prompt = request.prompt.len();
        let running = Self {
            owner: request.owner,
            seq,
            sampler: Sampler::new(request.sampling, &request.prompt),
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

    /// Takes the sampled token: `Some` when it was the last.
    pub(super) fn accept(&mut self, token: TokenId) -> Option<Finish> {
        self.last_token_at = Some(Instant::now());
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
        let is_long = self.n_generated >= self.max_tokens || self.started_at.elapsed() > MAX_GENERATION;
        (self.loop_guard.push(token) || is_long).then(|| {
            self.flush();
            Finish::Length
        })
    }

    /// Time since the token before, or since `submit` for the first; and whether it is the first.
    pub(super) fn token_delay(&self, now: Instant) -> (Duration, bool) {
        (now - self.last_token_at.unwrap_or(self.submitted_at), self.last_token_at.is_none())
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
        released.stopped.then_some(Finish::Stop)
    }

    fn send_text(&mut self, text: String) {
        if !text.is_empty() {
            let n_tokens = std::mem::take(&mut self.n_unsent);
            self.send(Event::Delta { text, n_tokens });
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
