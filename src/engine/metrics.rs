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

/// A snapshot of what the engine did since it started.
#[derive(Clone, Debug)]
pub struct EngineMetrics {
    /// Prompt tokens evaluated.
    pub prompt_tokens_total: u64,
    /// Prompt tokens that the prefix cache had.
    pub cached_tokens_total: u64,
    /// Tokens generated.
    pub predicted_tokens_total: u64,
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

impl EngineMetrics {
    pub(super) fn new() -> Self {
        Self {
            prompt_tokens_total: 0,
            cached_tokens_total: 0,
            predicted_tokens_total: 0,
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

/// How often a duration fell into which bucket.
#[derive(Clone, PartialEq, Debug)]
pub struct Histogram {
    /// Upper bounds in seconds, rising.
    pub bounds: &'static [f64],
    /// Observations at or below the bound of the same index and above the one before; the last is above all bounds.
    pub counts: Vec<u64>,
    /// Sum of all observations in seconds.
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
        let seconds = duration.as_secs_f64();
        self.counts[self.bounds.partition_point(|&bound| bound < seconds)] += 1;
        self.sum += seconds;
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
