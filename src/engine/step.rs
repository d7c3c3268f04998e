//! One step: which rows it carries, and what becomes of their logits.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::lock;
use super::pace::{PREFILL_CHUNK, Work};
use super::request::Finish;
use super::running::Running;
use super::scheduler::Scheduler;
use crate::model::{Chunk, Logits, LogitsFor, Model, ModelError, TokenId};

/// Rows of decoding sequences, guesses included, that a step carries without asking what they cost: the steps that
/// verify guesses must stay short for everybody.
const MAX_DECODE_ROWS: usize = 32;
/// A page more than a chunk fills may be begun, and a shared one copied.
const PAGES_BESIDE_CHUNK: usize = 2;
/// Positions of the smallest pages that any runner here has; more are asked for than needed where they are larger.
const MIN_PAGE_LEN: usize = 16;

/// How long a step may take that carries a piece of a prompt that nobody waits for: a person does not feel it.
const BACKGROUND_STEP: Duration = Duration::from_millis(25);

/// One chunk of a step that is being put together.
struct Row {
    /// Index into `running`.
    i: usize,
    tokens: Vec<TokenId>,
    /// How many of the tokens, at their end, are guesses.
    n_draft: usize,
    /// Whose they are.
    guesses: Guesses,
    logits: LogitsFor,
}

/// Where guesses come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guesses {
    /// What was said before.
    Lookup,
    /// The draft model.
    Model,
}

/// Logits of a step, and for each of its rows where those of its wanted positions stand, one after the other; or why it has
/// none.
struct Evaluated {
    logits: Vec<f32>,
    rows: Vec<Result<Range<usize>, String>>,
}

/// How a generation ended, by its index into `running`.
pub(super) type End = (usize, Result<Finish, String>);

impl Scheduler<'_> {
    /// Carries out one step; who ended with it.
    pub(super) fn step(&mut self) -> Vec<End> {
        let rows = if self.shared.limits.deterministic { self.one_row() } else { self.put_together() };
        if rows.is_empty() {
            return Vec::new();
        }
        self.make_room(&rows);
        for row in rows.iter().filter(|row| row.logits != LogitsFor::None) {
            self.running[row.i].prepare();
        }
        let started = Instant::now();
        let Evaluated { mut logits, rows: results } = self.evaluate(&rows);
        let took = started.elapsed();
        let work = self.work_of(&rows);
        let expected_s = self.step_times.expect(work);
        tracing::trace!(
            n_sequences = rows.len(),
            n_rows = work.n_rows,
            took_ms = took.as_secs_f64() * 1e3,
            expected_ms = expected_s.map(|s| s * 1e3),
            "a step"
        );
        self.step_times.observe(work, took);
        lock(&self.shared.metrics).count_step(rows.len(), work.n_rows);
        let take_in = |(row, result): (Row, Result<Range<usize>, String>)| {
            let end = result.and_then(|at| self.take_in(&row, &mut logits[at])).transpose();
            end.map(|end| (row.i, end))
        };
        std::iter::zip(rows, results).filter_map(take_in).collect()
    }

    /// What a step carries whose rows were not evaluated yet.
    fn work_of(&self, rows: &[Row]) -> Work {
        rows.iter().map(|row| Work::rows(self.running[row.i].n_evaluated(), row.tokens.len())).sum()
    }

    /// All that decode, with what may follow, and the next chunk of one that is being prefilled.
    fn put_together(&mut self) -> Vec<Row> {
        let decoding = self.running.iter().filter(|r| !r.is_prefilling());
        let decoding: Work = decoding.map(|r| Work::rows(r.n_evaluated(), 1)).sum();
        let mut n_free = MAX_DECODE_ROWS.saturating_sub(decoding.n_rows);
        let mut rows = Vec::new();
        let mut prefilling = Vec::new();
        for i in 0..self.running.len() {
            let running = &mut self.running[i];
            if running.is_prefilling() {
                prefilling.push(i);
                continue;
            }
            let mut tokens = running.next_chunk(1).0.to_vec();
            let depth = running.n_evaluated();
            let others = decoding - Work::rows(depth, 1);
            let n_max = if self.shared.limits.speculative {
                running.lookup.record.worthwhile(&self.step_times, others, depth, 0.0).min(n_free)
            } else {
                0
            };
            let mut draft = running.draft(n_max);
            let mut guesses = Guesses::Lookup;
            if let Some(drafter) = self.drafter.as_mut().filter(|_| draft.is_empty()) {
                running.drafts.pass();
                let guess_s = drafter.guess_s(depth).unwrap_or(0.0);
                let n_max = running.drafts.worthwhile(&self.step_times, others, depth, guess_s);
                let n_max = n_max.min(n_free).min(running.n_guessable());
                let whose = (running.seq, running.owner);
                draft = drafter.propose(whose, running.tokens(), n_max, self.shared.limits.itl_budget);
                guesses = Guesses::Model;
            }
            n_free -= draft.len();
            tokens.extend_from_slice(&draft);
            let logits = if draft.is_empty() { LogitsFor::Last } else { LogitsFor::All };
            rows.push(Row { i, tokens, n_draft: draft.len(), guesses, logits });
        }
        if !prefilling.is_empty() {
            let i = prefilling[self.n_turns % prefilling.len()];
            self.n_turns += 1;
            let (depth, budget) = (self.running[i].n_evaluated(), self.shared.limits.itl_budget);
            let n_max = if self.running[i].is_background() {
                // It runs alone, and whoever writes meanwhile waits for the rest of this step.
                self.step_times.chunk(Work::default(), depth, BACKGROUND_STEP)
            } else if rows.is_empty() {
                self.step_times.lone_chunk(depth, budget)
            } else {
                self.step_times.chunk(self.work_of(&rows), depth, budget)
            };
            rows.push(prefill_row(&self.running[i], i, n_max));
        }
        rows
    }

    /// One sequence alone, each in turn, its prompt cut at the same places whatever else runs: a step's rows decide in
    /// which order its sums are added up.
    fn one_row(&mut self) -> Vec<Row> {
        if self.running.is_empty() {
            return Vec::new();
        }
        let i = self.n_turns % self.running.len();
        self.n_turns += 1;
        vec![prefill_row(&self.running[i], i, PREFILL_CHUNK)]
    }

    /// Gives up warm sequences until the rows surely fit.
    fn make_room(&mut self, rows: &[Row]) {
        let pages = |row: &Row| row.tokens.len().div_ceil(MIN_PAGE_LEN) + PAGES_BESIDE_CHUNK;
        let n_needed: usize = rows.iter().map(pages).sum();
        loop {
            let usage = self.model.kv_usage();
            if usage.pages_total == 0 || usage.pages_used + n_needed <= usage.pages_total {
                return;
            }
            let Some(seq) = self.cache.evict(None) else { return };
            self.model.free_sequence(seq);
        }
    }

    fn evaluate(&mut self, rows: &[Row]) -> Evaluated {
        let batch: Vec<Chunk<'_>> = rows.iter().map(|row| chunk_of(&self.running, row)).collect();
        match step_batch(&mut *self.model, &batch) {
            Ok((logits, ranges)) => Evaluated { logits, rows: ranges.into_iter().map(Ok).collect() },
            Err(e) if rows.len() == 1 => Evaluated { logits: Vec::new(), rows: vec![Err(e.to_string())] },
            Err(e) => {
                tracing::warn!(error = %e, n_rows = rows.len(), "a step failed; trying its rows alone");
                let mut all = Vec::new();
                let alone = |row: &Row| {
                    let chunk = chunk_of(&self.running, row);
                    self.model.truncate(chunk.seq, self.running[row.i].n_evaluated());
                    let (logits, _) = step_batch(&mut *self.model, &[chunk]).map_err(|e| e.to_string())?;
                    let start = all.len();
                    all.extend(logits);
                    Ok(start..all.len())
                };
                let rows = rows.iter().map(alone).collect();
                Evaluated { logits: all, rows }
            }
        }
    }

    /// Samples from a row's logits, if it has any: `Some` when that was the last token.
    ///
    /// Guesses are not trusted: each position is sampled as if there had been none, and the next one's logits are used
    /// only if the guess between them was what came out.
    fn take_in(&mut self, row: &Row, logits: &mut [f32]) -> Result<Option<Finish>, String> {
        let running = &mut self.running[row.i];
        let was_prefilling = running.is_prefilling();
        running.evaluated(row.tokens.len() - row.n_draft);
        let is_background = running.is_background();
        if was_prefilling && !is_background {
            lock(&self.shared.metrics).prompt_tokens_total += row.tokens.len() as u64;
        }
        if logits.is_empty() {
            return Ok(None);
        }
        let draft = &row.tokens[row.tokens.len() - row.n_draft..];
        let n_vocab = logits.len() / (row.n_draft + 1);
        let (mut n_sampled, mut n_held, mut finish) = (0, 0, None);
        for row_logits in logits.chunks_exact_mut(n_vocab) {
            let token = running.choose(row_logits, &self.mask)?;
            n_sampled += u32::from(!self.mask.end_of_generation.contains(&token));
            finish = running.accept(token);
            if finish.is_some() || draft.get(n_held) != Some(&token) {
                break;
            }
            n_held += 1;
            running.evaluated(1);
        }
        if row.n_draft > 0 {
            let record = match row.guesses {
                Guesses::Lookup => &mut running.lookup.record,
                Guesses::Model => &mut running.drafts,
            };
            record.learn(row.n_draft, n_held);
        }
        let (delay, is_first) = running.note_tokens();
        let n_evaluated = running.n_evaluated();
        let seq = running.seq;
        if !is_background {
            let mut metrics = lock(&self.shared.metrics);
            metrics.count_tokens(delay, is_first, n_sampled);
            metrics.drafted_tokens_total += row.n_draft as u64;
            metrics.accepted_tokens_total += n_held as u64;
        }
        if n_held < row.n_draft {
            self.model.truncate(seq, n_evaluated);
            if self.model.seq_len(seq) != n_evaluated {
                return Err("the model could not take back tokens that were only a guess".into());
            }
        }
        Ok(finish)
    }
}

fn prefill_row(running: &Running, i: usize, n_max: usize) -> Row {
    let (tokens, is_last) = running.next_chunk(n_max);
    let logits = if is_last { LogitsFor::Last } else { LogitsFor::None };
    Row { i, tokens: tokens.to_vec(), n_draft: 0, guesses: Guesses::Lookup, logits }
}

fn chunk_of<'r>(running: &[Running], row: &'r Row) -> Chunk<'r> {
    Chunk { seq: running[row.i].seq, tokens: &row.tokens, logits: row.logits }
}

/// A step's logits, and where those of each chunk stand. They are not copied: a vocabulary has 150,000 tokens.
fn step_batch(
    model: &mut dyn Model,
    batch: &[Chunk<'_>],
) -> Result<(Vec<f32>, Vec<Range<usize>>), ModelError> {
    let Logits { data, n_vocab } = model.step(batch)?;
    let mut start = 0;
    let wanted = |chunk: &Chunk<'_>| {
        let n_rows = match chunk.logits {
            LogitsFor::None => 0,
            LogitsFor::Last => 1,
            LogitsFor::All => chunk.tokens.len(),
        };
        let range = start..start + n_rows * n_vocab;
        start = range.end;
        range
    };
    let ranges = batch.iter().map(wanted).collect();
    if start > data.len() {
        return Err(ModelError::Backend("a row of logits is missing".into()));
    }
    Ok((data, ranges))
}

/// Budget of a step where nothing else is said: ten tokens a second for everybody, faster than most people read.
pub const DEFAULT_ITL_BUDGET: Duration = Duration::from_millis(100);
