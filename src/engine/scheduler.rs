//! What the inference thread does with a loaded model: steps.
//!
//! ```text
//! admit from the queue -> drop what was cancelled -> [decoding sequences, with guesses | one prefill chunk] -> step
//!                                                 -> sample, detokenize, match stops -> deltas, ends
//! ```
//!
//! A step that fails is tried again chunk by chunk, so that only the sequence that broke it is lost.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::draft::Drafter;
use super::grammar::MaskThread;
use super::lifetime::Leave;
use super::metrics::KvPages;
use super::pace::StepTimes;
use super::prefix_cache::{MAX_WARM, PrefixCache};
use super::queue::Waiting;
use super::request::{Event, Finish, Owner, Timings, Urgency};
use super::running::Running;
use super::sampler::Mask;
use super::{Loaded, LoadedShared, ModelInfo, Shared, lock};
use crate::model::{Model, ModelError, SeqId, TokenId};
use crate::text::TextModel;

/// What the inference thread owns; `step` puts steps together and takes their results in.
pub(super) struct Scheduler<'a> {
    pub(super) shared: &'a Shared,
    pub(super) model: Box<dyn Model>,
    text: Arc<TextModel>,
    pub(super) mask: Mask,
    n_ctx: usize,
    pub(super) running: Vec<Running>,
    pub(super) cache: PrefixCache,
    /// The model that guesses, where there is one.
    pub(super) drafter: Option<Drafter>,
    masks: MaskThread,
    pub(super) step_times: StepTimes,
    /// Counts steps of one sequence and prefill chunks, so that they take turns.
    pub(super) n_turns: usize,
    pub(super) n_good_ends: usize,
}

impl<'a> Scheduler<'a> {
    pub(super) fn new(shared: &'a Shared, loaded: Loaded, took: Duration) -> Self {
        let info = info_of(&loaded);
        let Loaded { model, text, draft, .. } = loaded;
        let drafter = draft.filter(|_| !shared.limits.deterministic);
        let drafter = drafter.map(|draft| Drafter::new(draft, text.tokenizer.n_vocab()));
        tracing::info!(
            model = %info.name, quantization = %info.quantization, backend = %info.backend, n_ctx = info.n_ctx,
            load_ms = took.as_millis() as u64, "model loaded"
        );
        lock(&shared.metrics).load_seconds = took.as_secs_f64();
        let text = Arc::new(text);
        let mask = mask_of(&text, info.n_vocab);
        let n_ctx = info.n_ctx;
        *lock(&shared.loaded) =
            Some(LoadedShared { text: Arc::clone(&text), info: Arc::new(info), grammars: Arc::default() });
        Self {
            shared,
            model,
            text,
            mask,
            n_ctx,
            running: Vec::new(),
            cache: PrefixCache::default(),
            drafter,
            masks: MaskThread::start(),
            step_times: StepTimes::default(),
            n_turns: 0,
            n_good_ends: 0,
        }
    }

    /// One step, or why there is none.
    pub(super) fn tick(&mut self) -> Result<(), Leave> {
        self.wait_for_work()?;
        self.admit();
        self.end_abandoned();
        self.embed_one();
        self.serve_pages();
        // From the back, so that indices stay true.
        let mut ends = self.step();
        ends.sort_by_key(|(i, _)| std::cmp::Reverse(*i));
        for (i, end) in ends {
            self.end(i, end);
        }
        let usage = self.model.kv_usage();
        let bytes = usage.pages_used as u64 * usage.bytes_per_page as u64;
        lock(&self.shared.metrics).kv = KvPages {
            used: usage.pages_used,
            total: usage.pages_total,
            used_bytes: bytes,
            warm_sequences: self.cache.len(),
        };
        Ok(())
    }

    fn wait_for_work(&self) -> Result<(), Leave> {
        let idle_since = Instant::now();
        let mut queue = lock(&self.shared.queue);
        loop {
            let is_idle = self.running.is_empty() && queue.is_idle();
            if queue.is_closed() {
                return Err(Leave::End);
            }
            if queue.is_paused() {
                let is_over =
                    lock(&self.shared.switch).as_ref().is_none_or(|switch| switch.deadline <= Instant::now());
                return if is_idle || is_over { Err(Leave::Switch) } else { Ok(()) };
            }
            if !is_idle {
                return Ok(());
            }
            let Some(limit) = self.shared.limits.idle_unload else {
                queue = self.shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = limit.saturating_sub(idle_since.elapsed());
            if left.is_zero() {
                return Err(Leave::Idle);
            }
            queue = self.shared.work.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives free places to those whose turn it is, and tells the others where they stand.
    fn admit(&mut self) {
        let over = lock(&self.shared.queue).take_over();
        for w in over {
            self.cancel_waiting(&w);
        }
        if lock(&self.shared.queue).wants_the_place() {
            self.end_where(Running::is_background);
        }
        loop {
            let Some(waiting) = lock(&self.shared.queue).pop() else { break };
            let is_background = !waiting.is_awaited();
            if is_background && !self.has_room() {
                // A warm sequence is worth more.
                self.cancel_waiting(&waiting);
                lock(&self.shared.queue).end_background();
                continue;
            }
            let found = if waiting.request.urgency == Urgency::Background {
                self.empty_sequence().map(|seq| (seq, 0))
            } else {
                self.sequence_for(waiting.request.owner, &waiting.request.prompt)
            };
            match found {
                Ok((seq, n_cached)) => {
                    if !is_background {
                        lock(&self.shared.metrics).count_start(waiting.request.prompt.len(), n_cached);
                    }
                    let started = Running::start(waiting, seq, n_cached, self.n_ctx, &self.text, &self.masks);
                    self.running.push(started);
                }
                Err(e) if self.running.is_empty() => {
                    tracing::error!(error = %e, "no sequence for a request, though nothing runs");
                    self.leave_queue(waiting.request.owner, is_background, Duration::ZERO);
                    lock(&self.shared.metrics).count_end(None);
                    let _ = waiting.events.send(Event::Failed(e.to_string()));
                }
                // Memory comes back when one of the others ends.
                Err(_) => {
                    lock(&self.shared.queue).put_back(waiting);
                    break;
                }
            }
        }
        lock(&self.shared.queue).report_positions();
    }

    /// A sequence that holds the longest possible beginning of `prompt`, and how long that is.
    ///
    /// A warm one that the prompt goes on from is taken. One that the prompt leaves earlier (another branch of the chat,
    /// a new chat with the same persona, an answer whose thoughts are no longer shown) stays warm and is forked; where
    /// the model cannot fork, it is cut off, unless that loses more than it lends.
    fn sequence_for(&mut self, owner: Owner, prompt: &[TokenId]) -> Result<(SeqId, usize), ModelError> {
        let has_room = self.has_room();
        let hit = if self.shared.limits.deterministic { None } else { self.cache.longest(owner, prompt) };
        if let Some(hit) = hit {
            if hit.n_common < hit.n_held {
                match self.with_room(Some(hit.seq), |model| model.fork(hit.seq, hit.n_common)) {
                    Ok(seq) => return Ok((seq, hit.n_common)),
                    Err(error) => tracing::debug!(%error, "a warm sequence was not forked"),
                }
            }
            if !has_room || 2 * hit.n_common >= hit.n_held {
                self.cache.take(owner, hit.seq);
                self.model.truncate(hit.seq, hit.n_common);
                if self.model.seq_len(hit.seq) == hit.n_common {
                    return Ok((hit.seq, hit.n_common));
                }
                // A cache that cannot go back so far (a sliding window that has moved on).
                self.model.free_sequence(hit.seq);
            }
        }
        self.empty_sequence().map(|seq| (seq, 0))
    }

    /// A sequence without tokens. Memory is set aside for as many as may run; where warm ones hold those places, but
    /// pages are free, a fork of nothing takes no place.
    pub(super) fn empty_sequence(&mut self) -> Result<SeqId, ModelError> {
        let live = self.running.first().map(|r| r.seq).or_else(|| self.cache.any());
        if self.model.kv_usage().pages_total > 0
            && let Some(live) = live
            && self.has_room()
            && let Ok(seq) = self.model.fork(live, 0)
        {
            return Ok(seq);
        }
        self.with_room(None, |model| model.new_sequence())
    }

    /// Whether another sequence may be kept. Where a model counts pages these decide, and `max_sequences` full ones fit.
    fn has_room(&self) -> bool {
        let counts_pages = self.model.kv_usage().pages_total > 0;
        self.cache.len() < MAX_WARM
            && (counts_pages || self.running.len() + self.cache.len() < self.shared.limits.max_sequences)
    }

    /// Makes a sequence, giving up warm ones as long as there is no room for it.
    pub(super) fn with_room(
        &mut self,
        spared: Option<SeqId>,
        mut make: impl FnMut(&mut dyn Model) -> Result<SeqId, ModelError>,
    ) -> Result<SeqId, ModelError> {
        while !self.has_room() {
            let Some(seq) = self.cache.evict(spared) else { break };
            self.model.free_sequence(seq);
        }
        loop {
            match make(&mut *self.model) {
                Err(ModelError::TooLarge(why)) => match self.cache.evict(spared) {
                    Some(seq) => self.model.free_sequence(seq),
                    None => return Err(ModelError::TooLarge(why)),
                },
                made => return made,
            }
        }
    }

    fn end_abandoned(&mut self) {
        self.end_where(Running::is_over);
    }

    fn leave_queue(&self, owner: Owner, is_background: bool, took: Duration) {
        let mut queue = lock(&self.shared.queue);
        if is_background { queue.end_background() } else { queue.end(owner, took) }
    }

    fn end_where(&mut self, is_over: impl Fn(&Running) -> bool) {
        for i in (0..self.running.len()).rev() {
            if is_over(&self.running[i]) {
                self.running[i].flush();
                self.end(i, Ok(Finish::Cancelled));
            }
        }
    }

    /// Ends a running generation; its sequence stays warm unless it broke.
    fn end(&mut self, i: usize, end: Result<Finish, String>) {
        let running = self.running.remove(i);
        let (owner, seq, is_background) = (running.owner, running.seq, running.is_background());
        let stays_warm = running.urgency != Urgency::Background && !self.shared.limits.deterministic;
        self.leave_queue(owner, is_background, running.took());
        if let Some(drafter) = &mut self.drafter {
            drafter.end(seq, owner);
        }
        if !is_background {
            lock(&self.shared.metrics).count_end(end.as_ref().ok().copied());
        }
        match end {
            Ok(finish) => {
                self.n_good_ends += 1;
                let tokens = running.done(finish);
                let is_whole = !tokens.is_empty() && self.model.seq_len(seq) == tokens.len();
                if is_whole && stays_warm {
                    for superfluous in self.cache.put(owner, seq, &tokens) {
                        self.model.free_sequence(superfluous);
                    }
                    return;
                }
            }
            Err(why) => {
                tracing::error!(%why, "a generation failed");
                running.failed(&why);
            }
        }
        self.model.free_sequence(seq);
    }

    fn cancel_waiting(&self, waiting: &Waiting) {
        if waiting.is_awaited() {
            lock(&self.shared.metrics).count_end(Some(Finish::Cancelled));
        }
        let timings = Timings::default();
        let _ = waiting.events.send(Event::Done { finish_reason: Finish::Cancelled, timings });
    }

    /// The engine ends: so does everything in it.
    pub(super) fn end_all(&mut self) {
        let waiting = lock(&self.shared.queue).take_all();
        for w in waiting {
            self.cancel_waiting(&w);
        }
        self.end_where(|_| true);
    }

    /// The model is gone, and with it everything that ran on it.
    pub(super) fn fail_all(&mut self, why: &str) {
        lock(&self.shared.queue).end_everybody();
        for running in self.running.drain(..) {
            lock(&self.shared.metrics).count_end(None);
            running.failed(why);
        }
    }
}

/// What is known of a model that was brought.
pub(super) fn info_of(loaded: &Loaded) -> ModelInfo {
    let config = loaded.model.config();
    ModelInfo {
        name: config.name.clone(),
        architecture: config.architecture.clone(),
        n_ctx: config.n_ctx,
        n_ctx_train: config.n_ctx_train,
        n_vocab: config.n_vocab,
        quantization: config.quantization.clone(),
        size_bytes: loaded.size_bytes,
        n_params: config.n_params,
        backend: loaded.model.backend(),
        kv_form: loaded.model.kv_form(),
        no_draft: loaded.no_draft.clone(),
    }
}

/// Control tokens other than those that end a generation never become text.
fn mask_of(text: &TextModel, n_vocab: usize) -> Mask {
    let tokenizer = &text.tokenizer;
    let n_vocab = n_vocab.min(tokenizer.n_vocab());
    let ids = 0..n_vocab as TokenId;
    Mask {
        n_vocab,
        banned: ids
            .clone()
            .filter(|&id| tokenizer.is_control(id) && !tokenizer.is_end_of_generation(id))
            .collect(),
        end_of_generation: ids.filter(|&id| tokenizer.is_end_of_generation(id)).collect(),
    }
}
