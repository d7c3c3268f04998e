//! Counters and histograms of the engine, as plain numbers.

use std::time::Duration;

use super::request::Finish;

/// Upper bounds in seconds of `time_to_first_token`: from a warm small model to a long prompt on a slow
/// machine.
pub(super) const FIRST_TOKEN_BOUNDS_S: [f64; 12] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
/// Upper bounds in seconds of [`EngineMetrics::inter_token`]: reading speed is about 0.2 s a token.
pub(super) const INTER_TOKEN_BOUNDS_S: [f64; 11] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Upper bounds of `batch_size`.
pub(super) const BATCH_BOUNDS: [f64; 8] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0];

/// A snapshot of what the engine did since it started.
#[derive(Clone, Debug)]
pub struct EngineMetrics {
    /// Prompt tokens evaluated.
    pub prompt_tokens_total: u64,
    /// Prompt tokens that the prefix cache had.
    pub cached_tokens_total: u64,
    /// Tokens generated.
    pub predicted_tokens_total: u64,
    /// Tokens that were guessed and evaluated ahead.
    pub drafted_tokens_total: u64,
    /// Those of them that came out.
    pub accepted_tokens_total: u64,
    /// Prompts that found a beginning of theirs in the prefix cache.
    pub prefix_hits_total: u64,
    /// Prompts that were started.
    pub prompts_total: u64,
    /// Steps of the model.
    pub steps_total: u64,
    /// Rows (tokens evaluated) of all steps.
    pub step_rows_total: u64,
    /// Generations that shared a step.
    pub batch_size: Histogram,
    /// KV memory at the end of the newest step.
    pub kv: KvPages,
    /// Generations that ended, by reason.
    pub finished: FinishedTotals,
    /// Requests refused because the queue was full.
    pub refused_total: u64,
    /// Generations running now.
    pub running: usize,
    /// Generations waiting now.
    pub queued: usize,
    /// Whether the model is loaded.
    pub loaded: bool,
    /// How long the model took to load, in seconds; 0 until it is.
    pub load_seconds: f64,
    /// From `submit` to the first token.
    pub time_to_first_token: Histogram,
    /// Between two tokens of a generation.
    pub inter_token: Histogram,
}

/// Generations that ended, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FinishedTotals {
    /// See [`Finish::Stop`].
    pub stop: u64,
    /// See [`Finish::Length`].
    pub length: u64,
    /// See [`Finish::Cancelled`].
    pub cancelled: u64,
    /// Ended by an error.
    pub error: u64,
}

/// How much of the memory for keys and values is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KvPages {
    /// Pages that a sequence holds, running or warm.
    pub used: usize,
    /// Pages that there are; 0 where the runner does not say.
    pub total: usize,
    /// Bytes of the used ones.
    pub used_bytes: u64,
    /// Sequences that are kept for their owners' next messages.
    pub warm_sequences: usize,
}

impl EngineMetrics {
    pub(super) fn new() -> Self {
        Self {
            prompt_tokens_total: 0,
            cached_tokens_total: 0,
            predicted_tokens_total: 0,
            drafted_tokens_total: 0,
            accepted_tokens_total: 0,
            prefix_hits_total: 0,
            prompts_total: 0,
            steps_total: 0,
            step_rows_total: 0,
            batch_size: Histogram::new(&BATCH_BOUNDS),
            kv: KvPages::default(),
            finished: FinishedTotals::default(),
            refused_total: 0,
            running: 0,
            queued: 0,
            loaded: false,
            load_seconds: 0.0,
            time_to_first_token: Histogram::new(&FIRST_TOKEN_BOUNDS_S),
            inter_token: Histogram::new(&INTER_TOKEN_BOUNDS_S),
        }
    }

    /// Counts a prompt of which the prefix cache had `n_cached` tokens.
    pub(super) fn count_start(&mut self, n_prompt: usize, n_cached: usize) {
        debug_assert!(n_cached < n_prompt, "the last token is always evaluated");
        self.prompts_total += 1;
        self.prefix_hits_total += u64::from(n_cached > 0);
        self.cached_tokens_total += n_cached as u64;
    }

    /// Counts a step of the model.
    pub(super) fn count_step(&mut self, n_generations: usize, n_rows: usize) {
        self.steps_total += 1;
        self.step_rows_total += n_rows as u64;
        self.batch_size.observe_value(n_generations as f64);
    }

    /// Counts tokens that came in one step, `delay` after those before; the end token counts as a wait, not as a token.
    pub(super) fn count_tokens(&mut self, delay: Duration, is_first: bool, n_tokens: u32) {
        self.predicted_tokens_total += u64::from(n_tokens);
        if is_first {
            self.time_to_first_token.observe(delay);
        }
        let n_gaps = n_tokens.max(1) - u32::from(is_first);
        for _ in 0..n_gaps {
            // Several at once are as good as one after the other in the same time.
            self.inter_token.observe(if is_first { Duration::ZERO } else { delay / n_gaps });
        }
    }

    /// Counts an end; `None` is an error.
    pub(super) fn count_end(&mut self, finish: Option<Finish>) {
        let total = match finish {
            Some(Finish::Stop) => &mut self.finished.stop,
            Some(Finish::Length) => &mut self.finished.length,
            Some(Finish::Cancelled) => &mut self.finished.cancelled,
            None => &mut self.finished.error,
        };
        *total += 1;
    }
}

/// How often a value (a duration in seconds, if nothing else is said) fell into which bucket.
#[derive(Clone, PartialEq, Debug)]
pub struct Histogram {
    /// Upper bounds, rising.
    pub bounds: &'static [f64],
    /// Observations at or below the bound of the same index and above the one before; the last is above all bounds.
    pub counts: Vec<u64>,
    /// Sum of all observations.
    pub sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }
    /// Number of observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
    pub(super) fn observe(&mut self, duration: Duration) {
        self.observe_value(duration.as_secs_f64());
    }
    fn observe_value(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|&bound| bound < value)] += 1;
        self.sum += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut h = Histogram::new(&[0.5, 1.0]);
        for ms in [100, 500, 501, 1000, 7000] {
            h.observe(Duration::from_millis(ms));
        }
        assert_eq!(h.counts, [2, 2, 1]);
        assert_eq!(h.count(), 5);
        assert!((h.sum - 9.101).abs() < 1e-9);
    }
}
