//! How long a step takes, as measured, and what follows from it: how much of a prompt a step may carry beside those who
//! decode, and how many guessed tokens are worth verifying.
//!
//! A step's time depends on its rows: nearly flat while the weights' bytes are what takes time, then rising with the
//! arithmetic. It is measured at powers of two and read off between them. And it depends on the positions that its rows
//! look back at, each at the same price, which is learned from steps of like size that look back further or less far. So
//! nothing about the machine or the model has to be known beforehand.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Rows of a prefill chunk while nobody decodes: enough that weights are read once for many rows, few enough that a
/// cancel is noticed soon.
pub(super) const PREFILL_CHUNK: usize = 256;
/// Rows of a prefill chunk beside those who decode while nothing has been measured.
pub(super) const FIRST_SHARED_CHUNK: usize = 64;
/// Smallest chunk: with less a long prompt would never end, however slow the machine.
const MIN_SHARED_CHUNK: usize = 8;
/// How long a step may take that carries only a piece of a prompt, where the budget is not longer still: so long may a
/// cancel or somebody who comes now have to wait.
const LONE_STEP: Duration = Duration::from_millis(500);
/// Smallest chunk of a prompt that runs alone: with fewer rows the weights are read too often for what they do.
const MIN_LONE_CHUNK: usize = 64;
/// Rows of a step that are cut to the budget are a multiple of this: kernels take so many at once.
const ROW_UNIT: usize = 4;
/// Weight of the newest measurement; the last dozen of steps count.
const MEAN_WEIGHT: f64 = 0.15;
/// No measurement counts for more than so many times what was expected: that another program took a core for a moment says
/// nothing about the next step. What stays slow is believed within a dozen of steps.
const MAX_SURPRISE: f64 = 1.5;
/// Two steps that differ by fewer positions than this say little about the price of one: it would drown in the noise of
/// their times. So many are a chunk of 64 rows that looks back 1,024 positions further.
const TELLING_POSITIONS: f64 = 64.0 * 1024.0;
/// 2^0 to 2^12 rows.
const N_SIZES: usize = 13;

/// What a step carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Work {
    pub(super) n_rows: usize,
    /// Positions that the rows look at, all together.
    n_positions: usize,
}

impl Work {
    /// `n_rows` rows one after the other on a sequence that holds `depth` positions.
    pub(super) fn rows(depth: usize, n_rows: usize) -> Self {
        Self { n_rows, n_positions: n_rows * depth + n_rows * (n_rows + 1) / 2 }
    }
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { n_rows: self.n_rows + other.n_rows, n_positions: self.n_positions + other.n_positions }
    }
}

impl Sub for Work {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { n_rows: self.n_rows - other.n_rows, n_positions: self.n_positions - other.n_positions }
    }
}

impl std::iter::Sum for Work {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// Means of steps of about one number of rows.
#[derive(Clone, Copy, Debug)]
struct Mean {
    rows: f64,
    positions: f64,
    seconds: f64,
}

/// Measured times of steps by what they carried.
#[derive(Clone, Debug, Default)]
pub(super) struct StepTimes {
    /// Of the steps whose rows round up to 2^i.
    by_size: [Option<Mean>; N_SIZES],
    price: Price,
}

/// What a position costs that a row looks at, in seconds: the slope of a line through the differences between steps and
/// their like, by least squares.
#[derive(Clone, Debug)]
struct Price {
    /// Sums over the differences, old ones fading: positions times seconds, and positions squared.
    products: f64,
    squares: f64,
}

impl Default for Price {
    fn default() -> Self {
        // As if it had been seen once that positions are free.
        Self { products: 0.0, squares: TELLING_POSITIONS * TELLING_POSITIONS }
    }
}

impl Price {
    fn per_position(&self) -> f64 {
        (self.products / self.squares).max(0.0)
    }

    /// A step looked at so many positions more than its like, and took so many seconds longer; or fewer, and less long.
    fn learn(&mut self, positions: f64, seconds: f64) {
        let square = positions * positions;
        // What is known fades only as far as something is learned: a thousand steps that all look at the same depth must
        // not wear it away.
        let kept = 1.0 - (square / self.squares).min(MEAN_WEIGHT);
        self.products = kept * self.products + positions * seconds;
        self.squares = kept * self.squares + square;
    }
}

impl StepTimes {
    /// A step took this long.
    pub(super) fn observe(&mut self, work: Work, took: Duration) {
        let size = (work.n_rows.max(1).next_power_of_two().trailing_zeros() as usize).min(N_SIZES - 1);
        let (rows, positions) = (work.n_rows as f64, work.n_positions as f64);
        let mut seconds = took.as_secs_f64();
        if let Some(mean) = &self.by_size[size] {
            let deeper = self.price.per_position() * (positions - mean.positions).max(0.0);
            seconds = seconds.min(MAX_SURPRISE * (mean.seconds * (rows / mean.rows).max(1.0) + deeper));
            let like = |of: fn(&Mean) -> f64| self.read_off(rows, of).unwrap_or_default();
            let (further, longer) = (positions - like(|m| m.positions), seconds - like(|m| m.seconds));
            self.price.learn(further, longer);
        }
        let mean = self.by_size[size].get_or_insert(Mean { rows, positions, seconds });
        mean.rows += MEAN_WEIGHT * (rows - mean.rows);
        mean.positions += MEAN_WEIGHT * (positions - mean.positions);
        mean.seconds += MEAN_WEIGHT * (seconds - mean.seconds);
    }

    /// How long a step should take, in seconds; `None` when nothing was measured.
    pub(super) fn expect(&self, work: Work) -> Option<f64> {
        let price = self.price.per_position();
        let shallow = self.read_off(work.n_rows as f64, |m| (m.seconds - price * m.positions).max(0.0))?;
        Some(shallow + price * work.n_positions as f64)
    }

    /// A mean at a number of rows that lies between those measured, or beyond them.
    fn read_off(&self, n_rows: f64, of: impl Fn(&Mean) -> f64) -> Option<f64> {
        let measured = || self.by_size.iter().flatten();
        let below = measured().rfind(|mean| mean.rows <= n_rows);
        let above = measured().find(|mean| mean.rows > n_rows);
        match (below, above) {
            (Some(a), Some(b)) => Some(of(a) + (of(b) - of(a)) * (n_rows - a.rows) / (b.rows - a.rows)),
            // Beyond what was measured every further row may cost as much as those so far did on average.
            (Some(mean), None) => Some(of(mean) * n_rows / mean.rows),
            (None, Some(mean)) => Some(of(mean)),
            (None, None) => None,
        }
    }

    /// Rows of a chunk on a sequence that holds `depth` positions, beside those who decode, so that the step keeps within
    /// `budget`.
    pub(super) fn chunk(&self, beside: Work, depth: usize, budget: Duration) -> usize {
        if self.expect(beside).is_none() {
            return FIRST_SHARED_CHUNK;
        }
        self.fitting(beside, depth, MIN_SHARED_CHUNK, budget)
    }

    /// Rows of a chunk that runs alone on a sequence that holds `depth` positions. `budget` is that of those who decode.
    pub(super) fn lone_chunk(&self, depth: usize, budget: Duration) -> usize {
        self.fitting(Work::default(), depth, MIN_LONE_CHUNK, budget.max(LONE_STEP))
    }

    /// The largest chunk of at least `smallest` rows that is not known to take longer.
    fn fitting(&self, beside: Work, depth: usize, smallest: usize, budget: Duration) -> usize {
        let takes_longer = |n_rows: usize| {
            let work = beside + Work::rows(depth, n_rows - beside.n_rows);
            self.expect(work).is_some_and(|s| s > budget.as_secs_f64())
        };
        let smallest = beside.n_rows + smallest;
        let mut n_rows = beside.n_rows + PREFILL_CHUNK;
        while n_rows > smallest && takes_longer(n_rows) {
            n_rows = ((n_rows - 1) / ROW_UNIT * ROW_UNIT).max(smallest);
        }
        n_rows - beside.n_rows
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// So many sequences decode that hold nothing yet.
    fn decoding(n: usize) -> Work {
        (0..n).map(|_| Work::rows(0, 1)).sum()
    }

    fn measured(times: &[(usize, u64)]) -> StepTimes {
        let mut steps = StepTimes::default();
        for &(n_rows, took) in times {
            for _ in 0..100 {
                steps.observe(Work::rows(0, n_rows), ms(took));
            }
        }
        steps
    }

    #[test]
    fn a_chunk_keeps_the_others_waiting_no_longer_than_the_budget() {
        // 20 ms for anything up to 16 rows, then 2 ms a row.
        let steps = measured(&[(1, 20), (16, 20), (64, 116), (256, 500)]);
        for budget in [50, 100, 150, 400] {
            let n = steps.chunk(decoding(4), 0, ms(budget));
            let took = 20 + 2 * (n as u64 + 4).saturating_sub(16);
            assert!(
                took <= budget && took + 4 * ROW_UNIT as u64 > budget,
                "{budget} ms: {n} rows, {took} ms"
            );
        }
        let slow = steps.chunk(decoding(4), 0, ms(1));
        assert_eq!(slow, MIN_SHARED_CHUNK, "a prompt goes on however slow the machine is");
        for n_decoding in 1..10 {
            let n = steps.chunk(decoding(n_decoding), 0, ms(100));
            assert!((n + n_decoding).is_multiple_of(ROW_UNIT), "{n} rows beside {n_decoding}");
        }
        let unknown = StepTimes::default();
        assert_eq!(unknown.chunk(decoding(4), 0, ms(100)), FIRST_SHARED_CHUNK, "nothing is known yet");
        assert_eq!(unknown.lone_chunk(0, ms(100)), PREFILL_CHUNK, "nothing is known, and nobody waits");
    }

    #[test]
    fn a_chunk_that_runs_alone_ends_soon_enough_for_whoever_comes() {
        let quick = measured(&[(1, 20), (256, 400)]);
        assert_eq!(quick.lone_chunk(0, ms(1)), PREFILL_CHUNK, "nobody waits");
        let slow = measured(&[(1, 20), (256, 1000)]);
        let n = slow.lone_chunk(0, ms(100));
        assert!((100..140).contains(&n), "{n} rows of about 4 ms");
        assert_eq!(slow.lone_chunk(0, ms(2000)), PREFILL_CHUNK, "so long may everybody wait");
        let very_slow = measured(&[(1, 2000), (256, 60_000)]);
        assert_eq!(very_slow.lone_chunk(0, ms(100)), MIN_LONE_CHUNK);
    }

    #[test]
    fn a_disturbed_step_says_little_about_the_next_one() {
        let steady = measured(&[(1, 20), (16, 20), (64, 116)]);
        let mut steps = steady.clone();
        steps.observe(Work::rows(0, 40), ms(2000));
        assert!(
            steps.chunk(decoding(4), 0, ms(100)) + 2 * ROW_UNIT >= steady.chunk(decoding(4), 0, ms(100)),
            "another program took a core"
        );
        for _ in 0..40 {
            steps.observe(Work::rows(0, 40), ms(700));
        }
        assert!(steps.expect(Work::rows(0, 40)).unwrap() > 0.6, "the machine became slow");
    }

    #[test]
    fn what_was_not_measured_is_not_assumed_to_be_free() {
        let steps = measured(&[(2, 30)]);
        assert!(steps.chunk(decoding(2), 0, ms(100)) <= 8, "only two rows were ever seen");
        let mut steps = measured(&[(1, 10), (256, 100)]);
        assert_eq!(steps.chunk(decoding(1), 0, ms(120)), PREFILL_CHUNK);
        // Another program took the machine.
        for _ in 0..30 {
            steps.observe(Work::rows(0, 256), ms(400));
        }
        assert!(steps.chunk(decoding(1), 0, ms(120)) < 100);
    }

    /// A machine whose steps take 20 ms, 2 ms a row beyond 16, and so many nanoseconds for each position looked at.
    struct Machine {
        per_position: f64,
        /// A step takes up to this part more or less.
        noise: f64,
        rng: ChaCha8Rng,
    }

    impl Machine {
        fn new(per_position: f64, noise: f64) -> Self {
            Self { per_position, noise, rng: ChaCha8Rng::seed_from_u64(7) }
        }

        fn takes(&self, work: Work) -> f64 {
            0.02 + 0.002 * work.n_rows.saturating_sub(16) as f64
                + self.per_position * 1e-9 * work.n_positions as f64
        }

        fn run(&mut self, steps: &mut StepTimes, work: Work) {
            let drawn = f64::from(self.rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0;
            steps.observe(work, Duration::from_secs_f64(self.takes(work) * (1.0 + self.noise * drawn)));
        }

        /// Reads a prompt that nobody waits beside, then answers in 100 tokens, as the scheduler would.
        fn converse(&mut self, steps: &mut StepTimes, n_prompt: usize) {
            let mut depth = 0;
            while depth < n_prompt {
                let n = steps.lone_chunk(depth, ms(100)).min(n_prompt - depth);
                self.run(steps, Work::rows(depth, n));
                depth += n;
            }
            for i in 0..100 {
                self.run(steps, Work::rows(depth + i, 1));
            }
        }

        /// How far off a step's time is foretold, as a part of it.
        fn error(&self, steps: &StepTimes, work: Work) -> f64 {
            (steps.expect(work).unwrap() - self.takes(work)).abs() / self.takes(work)
        }
    }

    #[test]
    fn the_price_of_depth_is_learned_from_prompts() {
        for per_position in [0.0, 300.0, 1300.0, 5000.0] {
            let mut machine = Machine::new(per_position, 0.0);
            let mut steps = StepTimes::default();
            for n_prompt in [300, 4000, 150, 2000, 8000] {
                machine.converse(&mut steps, n_prompt);
            }
            let price = steps.price.per_position() * 1e9;
            let is_near = (price - per_position).abs() <= 0.1 * per_position + 20.0;
            assert!(is_near, "{price} ns for a position that costs {per_position}");
            for depth in [0, 1000, 3500, 6000] {
                let n = steps.lone_chunk(depth, ms(100));
                let error = machine.error(&steps, Work::rows(depth, n));
                assert!(error < 0.2, "{n} rows at {depth}, {per_position} ns: {error:.2} off");
            }
        }
    }

    #[test]
    fn a_deep_chunk_is_smaller_and_guesses_cost_more_there() {
        let mut machine = Machine::new(1300.0, 0.0);
        let mut steps = StepTimes::default();
        for n_prompt in [4000, 300, 4000] {
            machine.converse(&mut steps, n_prompt);
        }
        let beside = |depth| Work::rows(depth, 1) + Work::rows(depth, 1);
        let (shallow, deep) =
            (steps.chunk(beside(100), 0, ms(150)), steps.chunk(beside(3500), 3500, ms(150)));
        assert!(deep < shallow / 2, "{deep} rows deep down, {shallow} at the beginning");
        let took = machine.takes(beside(3500) + Work::rows(3500, deep));
        assert!(took < 0.2, "{took} s where 0.15 s are allowed");
        assert!(steps.lone_chunk(3500, ms(100)) < steps.lone_chunk(0, ms(100)));
        let more =
            |depth| steps.expect(Work::rows(depth, 8)).unwrap() - steps.expect(Work::rows(depth, 1)).unwrap();
        assert!(more(4000) > more(0) + 0.02, "seven rows more look at 28,000 positions more");
        for depth in [0, 5_000, 500_000, 5_000_000] {
            assert!(steps.chunk(beside(depth), depth, ms(1)) >= MIN_SHARED_CHUNK);
            assert!(steps.lone_chunk(depth, ms(1)) >= MIN_LONE_CHUNK);
        }
    }

    #[test]
    fn noise_does_not_carry_the_price_away() {
        let mut machine = Machine::new(1300.0, 0.3);
        let mut steps = StepTimes::default();
        for round in 0..300 {
            machine.converse(&mut steps, [40, 900, 4000, 90, 2500][round % 5]);
            if round > 10 {
                let price = steps.price.per_position() * 1e9;
                assert!((600.0..2600.0).contains(&price), "round {round}: {price} ns");
            }
        }
        // Nothing but talk, for a day: the little that its depths differ by teaches nothing, and unlearns nothing.
        for i in 0..100_000 {
            machine.run(&mut steps, Work::rows(2000 + i % 500, 1));
        }
        let price = steps.price.per_position() * 1e9;
        assert!((600.0..2600.0).contains(&price), "after much talk: {price} ns");
        let mut unlearned = StepTimes::default();
        for i in 0..1000 {
            machine.run(&mut unlearned, Work::rows(20 + i % 100, 1));
        }
        assert!(unlearned.price.per_position() < 1e-6, "talk alone is no reason to believe in any price");
    }

    #[test]
    fn a_quicker_machine_is_believed_again() {
        let mut steps = StepTimes::default();
        let (mut slow, mut quick) = (Machine::new(1300.0, 0.1), Machine::new(300.0, 0.1));
        for _ in 0..5 {
            slow.converse(&mut steps, 4000);
        }
        for _ in 0..5 {
            quick.converse(&mut steps, 4000);
        }
        let work = Work::rows(3500, 200);
        assert!(quick.error(&steps, work) < 0.2, "{:?} s", steps.expect(work));
    }
}
