//! How long a step takes, as measured, and what follows from it: how much of a prompt a step may carry beside those who
//! decode, and how many guessed tokens are worth verifying.
//!
//! A step's time depends on its rows: nearly flat while the weights' bytes are what takes time, then rising with the
//! arithmetic. It is measured at powers of two and read off between them, so nothing about the machine or the model has
//! to be known beforehand.

use std::time::Duration;

/// Rows of a prefill chunk while nobody decodes: enough that weights are read once for many rows, few enough that a
/// cancel is noticed soon.
pub(super) const PREFILL_CHUNK: usize = 256;
/// Rows of a prefill chunk beside those who decode while nothing has been measured.
pub(super) const FIRST_SHARED_CHUNK: usize = 64;
/// Smallest chunk: with less a long prompt would never end, however slow the machine.
const MIN_SHARED_CHUNK: usize = 8;
/// Rows of a step that are cut to the budget are a multiple of this: kernels take so many at once.
const ROW_UNIT: usize = 4;
/// Weight of the newest measurement; the last dozen of steps count.
const MEAN_WEIGHT: f64 = 0.15;
/// No measurement counts for more than so many times what was expected: that another program took a core for a moment says
/// nothing about the next step. What stays slow is believed within a dozen of steps.
const MAX_SURPRISE: f64 = 1.5;
/// 2^0 to 2^12 rows.
const N_SIZES: usize = 13;

/// Measured times of steps by their number of rows.
#[derive(Clone, Debug, Default)]
pub(super) struct StepTimes {
    /// Mean rows and mean seconds of the steps whose rows round up to 2^i.
    by_size: [Option<(f64, f64)>; N_SIZES],
}

impl StepTimes {
    /// A step of `n_rows` took this long.
    pub(super) fn observe(&mut self, n_rows: usize, took: Duration) {
        let size = (n_rows.max(1).next_power_of_two().trailing_zeros() as usize).min(N_SIZES - 1);
        let (rows, seconds) = (n_rows as f64, took.as_secs_f64());
        let mean = self.by_size[size].get_or_insert((rows, seconds));
        let seconds = seconds.min(MAX_SURPRISE * mean.1 * (rows / mean.0).max(1.0));
        mean.0 += MEAN_WEIGHT * (rows - mean.0);
        mean.1 += MEAN_WEIGHT * (seconds - mean.1);
    }

    /// How long a step of `n_rows` should take, in seconds; `None` when nothing was measured.
    pub(super) fn expect(&self, n_rows: usize) -> Option<f64> {
        let n_rows = n_rows as f64;
        let measured = || self.by_size.iter().flatten();
        let below = measured().rfind(|(rows, _)| *rows <= n_rows);
        let above = measured().find(|(rows, _)| *rows > n_rows);
        match (below, above) {
            (Some(&(r0, s0)), Some(&(r1, s1))) => Some(s0 + (s1 - s0) * (n_rows - r0) / (r1 - r0)),
            // Beyond what was measured every further row may cost as much as those so far did on average.
            (Some((rows, seconds)), None) => Some(seconds * n_rows / rows),
            (None, Some((_, seconds))) => Some(*seconds),
            (None, None) => None,
        }
    }

    /// Rows of a prefill chunk beside `n_decoding` rows, so that the step keeps within `budget`.
    pub(super) fn chunk(&self, n_decoding: usize, budget: Duration) -> usize {
        if n_decoding == 0 {
            return PREFILL_CHUNK;
        }
        let fits = |n_rows: usize| self.expect(n_rows).is_some_and(|s| s <= budget.as_secs_f64());
        if self.expect(n_decoding + 1).is_none() {
            return FIRST_SHARED_CHUNK;
        }
        let smallest = n_decoding + MIN_SHARED_CHUNK;
        let mut n_rows = n_decoding + PREFILL_CHUNK;
        while n_rows > smallest && !fits(n_rows) {
            n_rows = ((n_rows - 1) / ROW_UNIT * ROW_UNIT).max(smallest);
        }
        n_rows - n_decoding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn measured(times: &[(usize, u64)]) -> StepTimes {
        let mut steps = StepTimes::default();
        for &(n_rows, took) in times {
            for _ in 0..100 {
                steps.observe(n_rows, ms(took));
            }
        }
        steps
    }

    #[test]
    fn a_chunk_keeps_the_others_waiting_no_longer_than_the_budget() {
        // 20 ms for anything up to 16 rows, then 2 ms a row.
        let steps = measured(&[(1, 20), (16, 20), (64, 116), (256, 500)]);
        for budget in [50, 100, 150, 400] {
            let n = steps.chunk(4, ms(budget));
            let took = 20 + 2 * (n as u64 + 4).saturating_sub(16);
            assert!(
                took <= budget && took + 4 * ROW_UNIT as u64 > budget,
                "{budget} ms: {n} rows, {took} ms"
            );
        }
        assert_eq!(steps.chunk(4, ms(1)), MIN_SHARED_CHUNK, "a prompt goes on however slow the machine is");
        assert_eq!(steps.chunk(0, ms(1)), PREFILL_CHUNK, "nobody waits");
        for n_decoding in 1..10 {
            let n = steps.chunk(n_decoding, ms(100));
            assert!((n + n_decoding).is_multiple_of(ROW_UNIT), "{n} rows beside {n_decoding}");
        }
        assert_eq!(StepTimes::default().chunk(4, ms(100)), FIRST_SHARED_CHUNK, "nothing is known yet");
    }

    #[test]
    fn a_disturbed_step_says_little_about_the_next_one() {
        let steady = measured(&[(1, 20), (16, 20), (64, 116)]);
        let mut steps = steady.clone();
        steps.observe(40, ms(2000));
        assert!(
            steps.chunk(4, ms(100)) + 2 * ROW_UNIT >= steady.chunk(4, ms(100)),
            "another program took a core"
        );
        for _ in 0..40 {
            steps.observe(40, ms(700));
        }
        assert!(steps.expect(40).unwrap() > 0.6, "the machine became slow");
    }

    #[test]
    fn what_was_not_measured_is_not_assumed_to_be_free() {
        let steps = measured(&[(2, 30)]);
        assert!(steps.chunk(2, ms(100)) <= 8, "only two rows were ever seen");
        let mut steps = measured(&[(1, 10), (256, 100)]);
        assert_eq!(steps.chunk(1, ms(120)), PREFILL_CHUNK);
        // A longer context made steps slower.
        for _ in 0..30 {
            steps.observe(256, ms(400));
        }
        assert!(steps.chunk(1, ms(120)) < 100);
    }
}
