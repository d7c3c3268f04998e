//! Guesses the next tokens from what was said before, so that one step may yield several.
//!
//! People and models repeat themselves: a name, a recipe corrected in one place, a sentence quoted back. What followed
//! the last occurrence of the newest tokens, in the prompt or in the answer itself, is proposed, and the model evaluates
//! the whole proposal in one step. Each token is then sampled exactly as it would have been without a guess, from the
//! same logits with the same random numbers; a guess only counts where it equals the sampled token. So the text is the
//! same with and without, and only its speed differs.
//!
//! How many tokens are proposed follows from how often guesses held and from what a row costs on this machine; where it
//! does not pay nothing is proposed, except for a trial now and then. [`Record`] keeps that account, for guesses of a
//! draft model too.

use std::collections::HashMap;

use super::pace::{StepTimes, Work};
use crate::model::TokenId;

/// Most tokens of a proposal: a step's rows are nearly free up to about this number.
pub(super) const MAX_DRAFT: usize = 7;
/// Newest tokens that must have occurred before. Two would match at every other word, and mostly in vain.
const N_GRAM: usize = 3;
/// Weight of the newest guess in the estimate of how often guesses hold.
const MEAN_WEIGHT: f64 = 0.1;
/// Assumed before a guess was tried: about what plain talk gives.
const FIRST_GUESS: f64 = 0.4;
/// Tokens without a proposal after which one is tried all the same: texts change.
const TRIAL_EVERY: usize = 48;
/// A proposal must promise this much more than a step without: measurements are noisy.
const MIN_GAIN: f64 = 1.05;

/// The earlier occurrences in one sequence's tokens.
#[derive(Debug)]
pub(super) struct Lookup {
    /// For each `N_GRAM` tokens: how many tokens stood up to their last occurrence, that included; and before that one.
    last_end: HashMap<[TokenId; N_GRAM], (usize, usize)>,
    n_indexed: usize,
    pub(super) record: Record,
}

/// How often guesses of one kind held, in one text.
#[derive(Debug)]
pub(super) struct Record {
    /// Estimated probability that the next guess holds.
    p_hold: f64,
    n_since_draft: usize,
}

impl Lookup {
    /// Nothing is indexed yet.
    pub(super) fn new() -> Self {
        Self { last_end: HashMap::new(), n_indexed: 0, record: Record::new(FIRST_GUESS) }
    }

    /// At most `n_max` tokens that may follow `tokens`, which only ever grow between calls.
    pub(super) fn draft<'t>(&mut self, tokens: &'t [TokenId], n_max: usize) -> &'t [TokenId] {
        self.record.pass();
        for end in self.n_indexed.max(N_GRAM)..=tokens.len() {
            let gram = gram(tokens, end);
            let before = self.last_end.get(&gram).map_or(0, |&(last, _)| last);
            self.last_end.insert(gram, (end, before));
        }
        self.n_indexed = tokens.len() + 1;
        if tokens.len() < N_GRAM || n_max == 0 {
            return &[];
        }
        // The last occurrence is the one at the end.
        match self.last_end.get(&gram(tokens, tokens.len())) {
            Some(&(_, before)) if before > 0 => {
                self.record.n_since_draft = 0;
                &tokens[before..tokens.len().min(before + n_max)]
            }
            _ => &[],
        }
    }
}

impl Record {
    /// Nothing was tried; guesses are assumed to hold with `p_hold`.
    pub(super) fn new(p_hold: f64) -> Self {
        Self { p_hold, n_since_draft: 0 }
    }

    /// A step goes by.
    pub(super) fn pass(&mut self) {
        self.n_since_draft += 1;
    }

    /// `n_held` of `n_drafted` guesses held, and then one did not, or all did.
    pub(super) fn learn(&mut self, n_drafted: usize, n_held: usize) {
        self.n_since_draft = 0;
        for i in 0..n_drafted.min(n_held + 1) {
            let held = f64::from(u8::from(i < n_held));
            self.p_hold += MEAN_WEIGHT * (held - self.p_hold);
        }
    }

    /// How many guesses after `depth` tokens are worth their rows beside the `others` of the same step, and the `guess_s`
    /// seconds that each takes to make.
    pub(super) fn worthwhile(&self, steps: &StepTimes, others: Work, depth: usize, guess_s: f64) -> usize {
        let trial = if self.n_since_draft >= TRIAL_EVERY { 2 } else { 0 };
        let Some(plain) = steps.expect(others + Work::rows(depth, 1)) else { return trial };
        let mut best = (0, MIN_GAIN);
        let (mut n_expected, mut p_all) = (1.0, 1.0);
        for n in 1..=MAX_DRAFT {
            p_all *= self.p_hold;
            n_expected += p_all;
            let Some(took) = steps.expect(others + Work::rows(depth, 1 + n)) else { break };
            let gain = n_expected * plain / (took + n as f64 * guess_s);
            if gain > best.1 {
                best = (n, gain);
            }
        }
        best.0.max(trial)
    }
}

fn gram(tokens: &[TokenId], end: usize) -> [TokenId; N_GRAM] {
    std::array::from_fn(|i| tokens[end - N_GRAM + i])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_followed_before_is_proposed() {
        let mut lookup = Lookup::new();
        let mut tokens = vec![1, 2, 3, 4, 5, 9, 1, 2];
        assert_eq!(lookup.draft(&tokens, 4), &[] as &[TokenId]);
        tokens.push(3);
        assert_eq!(lookup.draft(&tokens, 4), [4, 5, 9, 1]);
        assert_eq!(lookup.draft(&tokens, 2), [4, 5]);
        tokens.extend([4, 7, 2, 3, 4]);
        assert_eq!(lookup.draft(&tokens, 2), [7, 2], "the newest occurrence counts");
        assert_eq!(lookup.draft(&tokens, 0), &[] as &[TokenId]);
    }

    #[test]
    fn nothing_is_proposed_where_it_does_not_pay() {
        let steps = |per_row: u64| {
            let mut steps = StepTimes::default();
            for n in [1_u64, 2, 4, 8] {
                steps.observe(Work::rows(0, n as usize), Duration::from_millis(100 + per_row * (n - 1)));
            }
            steps
        };
        let (mut lookup, alone) = (Record::new(FIRST_GUESS), Work::default());
        for _ in 0..50 {
            lookup.learn(4, 4);
        }
        assert_eq!(lookup.worthwhile(&steps(0), alone, 0, 0.0), MAX_DRAFT, "rows are free and guesses hold");
        assert_eq!(lookup.worthwhile(&steps(100), alone, 0, 0.0), 0, "a row costs as much as a step");
        assert_eq!(lookup.worthwhile(&steps(0), alone, 0, 0.2), 0, "a guess takes longer than a step");
        assert!(lookup.worthwhile(&steps(0), alone, 0, 0.01) > 2, "guesses are cheap");
        for _ in 0..50 {
            lookup.learn(4, 0);
        }
        assert_eq!(lookup.worthwhile(&steps(0), alone, 0, 0.0), 0, "guesses do not hold");
        lookup.n_since_draft = TRIAL_EVERY;
        assert_eq!(lookup.worthwhile(&steps(100), alone, 0, 0.0), 2, "a trial now and then");
    }
}
