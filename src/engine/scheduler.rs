//! The inference thread: loads the model, then steps until the end.
//!
//! ```text
//! admit from the queue -> drop what was cancelled -> [one row per decoding sequence | one prefill chunk] -> step
//!                                                 -> sample, detokenize, match stops -> deltas, ends
//! ```
//!
//! A step that fails is tried again chunk by chunk, so that only the sequence that broke it is lost. A panic takes all
//! running generations with it and the model is loaded again; what waits, waits on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::prefix_cache::PrefixCache;
use super::queue::Waiting;
use super::request::{Event, Finish, Owner, Timings};
use super::running::Running;
use super::sampler::Mask;
use super::{EngineState, LoadError, Loaded, LoadedShared, ModelInfo, Shared, lock};
use crate::model::{Chunk, LogitsFor, Model, ModelError, SeqId, TokenId};
use crate::text::TextModel;

/// Rows of a prefill chunk: enough that weights are read once for many rows, few enough that a cancel is noticed soon.
pub(super) const PREFILL_CHUNK: usize = 256;
/// Rows of a prefill chunk while others decode: they wait this long for their next token.
pub(super) const SHARED_PREFILL_CHUNK: usize = 64;
/// Panics without a good end in between after which the model is given up: it would only break the next answer too.
const MAX_PANICS: usize = 3;

/// The body of the inference thread.
pub(super) fn run(shared: &Shared, mut load: impl FnMut() -> Result<Loaded, LoadError>) {
    let mut n_panics = 0;
    loop {
        let mut scheduler = match load_caught(&mut load) {
            Ok((loaded, took)) => Scheduler::new(shared, loaded, took),
            Err(e) => {
                give_up(shared, e);
                return;
            }
        };
        shared.state.send_replace(EngineState::Ready);
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| while scheduler.tick() {})) else {
            scheduler.end_all();
            shared.state.send_replace(EngineState::Failed("the engine was shut down".into()));
            return;
        };
        let why = panic_text(&*panic);
        tracing::error!(%why, "a step panicked; loading the model again");
        n_panics = if scheduler.n_good_ends > 0 { 1 } else { n_panics + 1 };
        shared.state.send_replace(EngineState::Loading);
        let dropped = catch_unwind(AssertUnwindSafe(move || scheduler.fail_all("the model broke down")));
        if dropped.is_err() || n_panics >= MAX_PANICS {
            give_up(shared, LoadError::Panicked(why));
            return;
        }
    }
}

fn load_caught(
    load: &mut impl FnMut() -> Result<Loaded, LoadError>,
) -> Result<(Loaded, Duration), LoadError> {
    let started_at = Instant::now();
    let loaded =
        catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|p| Err(LoadError::Panicked(panic_text(&*p))))?;
    Ok((loaded, started_at.elapsed()))
}

fn give_up(shared: &Shared, error: LoadError) {
    let why = error.to_string();
    shared.fail(error);
    let waiting = {
        let mut queue = lock(&shared.queue);
        queue.close();
        queue.take_all()
    };
    for w in waiting {
        lock(&shared.metrics).count_end(None);
        let _ = w.events.send(Event::Failed(why.clone()));
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").to_owned()
}

struct Scheduler<'a> {
    shared: &'a Shared,
    model: Box<dyn Model>,
    text: Arc<TextModel>,
    mask: Mask,
    n_ctx: usize,
    running: Vec<Running>,
    cache: PrefixCache,
    /// Counts prefill chunks, so that prompts take turns.
    n_prefills: usize,
    n_good_ends: usize,
}

/// One chunk of a step that is being put together.
struct Row {
    /// Index into `running`.
    i: usize,
    n_tokens: usize,
    wants_logits: bool,
}

/// What a step gave for one row.
type RowResult = Result<Option<Vec<f32>>, String>;

impl<'a> Scheduler<'a> {
    fn new(shared: &'a Shared, loaded: Loaded, took: Duration) -> Self {
        let Loaded { model, text, size_bytes } = loaded;
        let config = model.config();
        let info = ModelInfo {
            name: config.name.clone(),
            architecture: config.architecture.clone(),
            n_ctx: config.n_ctx,
            n_ctx_train: config.n_ctx_train,
            n_vocab: config.n_vocab,
            quantization: config.quantization.clone(),
            size_bytes,
            n_params: config.n_params,
            backend: model.backend(),
        };
        tracing::info!(
            model = %info.name, quantization = %info.quantization, backend = %info.backend, n_ctx = info.n_ctx,
            load_ms = took.as_millis() as u64, "model loaded"
        );
        lock(&shared.metrics).load_seconds = took.as_secs_f64();
        let text = Arc::new(text);
        let mask = mask_of(&text, info.n_vocab);
        let n_ctx = info.n_ctx;
        *lock(&shared.loaded) = Some(LoadedShared { text: Arc::clone(&text), info: Arc::new(info) });
        Self {
            shared,
            model,
            text,
            mask,
            n_ctx,
            running: Vec::new(),
            cache: PrefixCache::default(),
            n_prefills: 0,
            n_good_ends: 0,
        }
    }

    /// One step; false when the engine is to end.
    fn tick(&mut self) -> bool {
        if !self.wait_for_work() {
            return false;
        }
        self.admit();
        self.end_abandoned();
        let rows = self.put_together();
        if rows.is_empty() {
            return true;
        }
        let results = self.step(&rows);
        let mut ends: Vec<(usize, Result<Finish, String>)> = Vec::new();
        for (row, result) in std::iter::zip(rows, results) {
            match result.and_then(|logits| self.take_in(&row, logits)) {
                Ok(None) => {}
                Ok(Some(finish)) => ends.push((row.i, Ok(finish))),
                Err(why) => ends.push((row.i, Err(why))),
            }
        }
        // From the back, so that indices stay true.
        ends.sort_by_key(|(i, _)| std::cmp::Reverse(*i));
        for (i, end) in ends {
            self.end(i, end);
        }
        true
    }

    fn wait_for_work(&self) -> bool {
        let mut queue = lock(&self.shared.queue);
        while self.running.is_empty() && queue.n_waiting() == 0 && !queue.is_closed() {
            queue = self.shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        !queue.is_closed()
    }

    /// Gives free places to those whose turn it is, and tells the others where they stand.
    fn admit(&mut self) {
        let over = lock(&self.shared.queue).take_over();
        for w in over {
            self.cancel_waiting(&w);
        }
        loop {
            let Some(waiting) = lock(&self.shared.queue).pop() else { break };
            match self.sequence_for(waiting.request.owner, &waiting.request.prompt) {
                Ok((seq, n_cached)) => {
                    lock(&self.shared.metrics).cached_tokens_total += n_cached as u64;
                    self.running.push(Running::start(waiting, seq, n_cached, self.n_ctx, &self.text));
                }
                Err(e) if self.running.is_empty() => {
                    tracing::error!(error = %e, "no sequence for a request, though nothing runs");
                    lock(&self.shared.queue).end(waiting.request.owner, Duration::ZERO);
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
    fn sequence_for(&mut self, owner: Owner, prompt: &[TokenId]) -> Result<(SeqId, usize), ModelError> {
        let has_room = self.running.len() + self.cache.len() < self.shared.limits.max_sequences;
        if let Some((seq, n_common)) = self.cache.take(owner, prompt, has_room) {
            self.model.truncate(seq, n_common);
            if self.model.seq_len(seq) == n_common {
                return Ok((seq, n_common));
            }
            // A cache that cannot go back so far (a sliding window that has moved on).
            self.model.free_sequence(seq);
        } else if !has_room && let Some(seq) = self.cache.evict() {
            self.model.free_sequence(seq);
        }
        loop {
            match self.model.new_sequence() {
                Ok(seq) => return Ok((seq, 0)),
                Err(e) => {
                    let Some(seq) = self.cache.evict() else { return Err(e) };
                    self.model.free_sequence(seq);
                }
            }
        }
    }

    fn end_abandoned(&mut self) {
        for i in (0..self.running.len()).rev() {
            if self.running[i].is_over() {
                self.running[i].flush();
                self.end(i, Ok(Finish::Cancelled));
            }
        }
    }

    /// All that decode, and the next chunk of one that is being prefilled.
    fn put_together(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut prefilling = Vec::new();
        for (i, r) in self.running.iter().enumerate() {
            if r.is_prefilling() {
                prefilling.push(i);
            } else {
                rows.push(Row { i, n_tokens: 1, wants_logits: true });
            }
        }
        if !prefilling.is_empty() {
            let i = prefilling[self.n_prefills % prefilling.len()];
            self.n_prefills += 1;
            let n_max = if rows.is_empty() { PREFILL_CHUNK } else { SHARED_PREFILL_CHUNK };
            let (tokens, is_last) = self.running[i].next_chunk(n_max);
            rows.push(Row { i, n_tokens: tokens.len(), wants_logits: is_last });
        }
        rows
    }

    fn step(&mut self, rows: &[Row]) -> Vec<RowResult> {
        let batch: Vec<Chunk<'_>> = rows.iter().map(|row| chunk_of(&self.running, row)).collect();
        match step_batch(&mut *self.model, &batch) {
            Ok(results) => results.into_iter().map(Ok).collect(),
            Err(e) if rows.len() == 1 => vec![Err(e.to_string())],
            Err(e) => {
                tracing::warn!(error = %e, n_rows = rows.len(), "a step failed; trying its rows alone");
                let alone = |row: &Row| {
                    let chunk = chunk_of(&self.running, row);
                    self.model.truncate(chunk.seq, self.running[row.i].n_evaluated());
                    let result = step_batch(&mut *self.model, &[chunk]);
                    result.map_err(|e| e.to_string()).map(|mut r| r.pop().flatten())
                };
                rows.iter().map(alone).collect()
            }
        }
    }

    /// Samples from a row's logits, if it has any: `Some` when that was the last token.
    fn take_in(&mut self, row: &Row, logits: Option<Vec<f32>>) -> Result<Option<Finish>, String> {
        let running = &mut self.running[row.i];
        let was_prefilling = running.is_prefilling();
        running.evaluated(row.n_tokens);
        let mut metrics = lock(&self.shared.metrics);
        if was_prefilling {
            metrics.prompt_tokens_total += row.n_tokens as u64;
        }
        let Some(mut logits) = logits else { return Ok(None) };
        let (delay, is_first) = running.token_delay(Instant::now());
        if is_first {
            metrics.time_to_first_token.observe(delay);
        } else {
            metrics.inter_token.observe(delay);
        }
        drop(metrics);
        let token = running.sampler.sample(&mut logits, &self.mask).map_err(|e| e.to_string())?;
        if !self.mask.end_of_generation.contains(&token) {
            lock(&self.shared.metrics).predicted_tokens_total += 1;
        }
        Ok(running.accept(token))
    }

    /// Ends a running generation; its sequence stays warm unless it broke.
    fn end(&mut self, i: usize, end: Result<Finish, String>) {
        let running = self.running.remove(i);
        let (owner, seq) = (running.owner, running.seq);
        lock(&self.shared.queue).end(owner, running.took());
        lock(&self.shared.metrics).count_end(end.as_ref().ok().copied());
        match end {
            Ok(finish) => {
                self.n_good_ends += 1;
                let tokens = running.done(finish);
                if !tokens.is_empty() && self.model.seq_len(seq) == tokens.len() {
                    self.cache.put(owner, seq, tokens);
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
        lock(&self.shared.metrics).count_end(Some(Finish::Cancelled));
        let timings = Timings::default();
        let _ = waiting.events.send(Event::Done { finish_reason: Finish::Cancelled, timings });
    }

    /// The engine ends: so does everything in it.
    fn end_all(&mut self) {
        let waiting = lock(&self.shared.queue).take_all();
        for w in waiting {
            self.cancel_waiting(&w);
        }
        for i in (0..self.running.len()).rev() {
            self.running[i].flush();
            self.end(i, Ok(Finish::Cancelled));
        }
    }

    /// The model is gone, and with it everything that ran on it.
    fn fail_all(&mut self, why: &str) {
        lock(&self.shared.queue).end_everybody();
        for running in self.running.drain(..) {
            lock(&self.shared.metrics).count_end(None);
            running.failed(why);
        }
    }
}

fn chunk_of<'r>(running: &'r [Running], row: &Row) -> Chunk<'r> {
    let (tokens, _) = running[row.i].next_chunk(row.n_tokens);
    let logits = if row.wants_logits { LogitsFor::Last } else { LogitsFor::None };
    Chunk { seq: running[row.i].seq, tokens, logits }
}

/// One row of logits per chunk that asked for it.
fn step_batch(model: &mut dyn Model, batch: &[Chunk<'_>]) -> Result<Vec<Option<Vec<f32>>>, ModelError> {
    let logits = model.step(batch)?;
    let mut rows = logits.rows();
    let wanted = |chunk: &Chunk<'_>| match chunk.logits {
        LogitsFor::None => Ok(None),
        LogitsFor::Last | LogitsFor::All => {
            let row = rows.next().ok_or_else(|| ModelError::Backend("a row of logits is missing".into()))?;
            Ok(Some(row.to_vec()))
        }
    };
    batch.iter().map(wanted).collect()
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
