//! Notices a model that goes round in circles.
//!
//! A small or heavily quantized model at a low temperature can fall into repeating the same few tokens until the
//! context is full, with one of the few slots of the house taken all the while. When the tail of the text is the same
//! n-gram over and over, the generation ends with [`super::Finish::Length`]: the model did not say that it was done,
//! and what comes next would be more of the same.

use crate::model::TokenId;

/// Longest period in tokens that is looked for: about three sentences; longer circles reach `max_tokens` first.
pub const MAX_PERIOD: usize = 64;
/// Times that an n-gram must stand in a row: nobody says a sentence six times by intention.
pub const MIN_TIMES: usize = 6;
/// Tokens that the repetition must fill: "ha ha ha", a row of dashes or a small table of equal cells stay below.
pub const MIN_TOKENS: usize = 128;

/// Watches a generated text, token by token.
#[derive(Debug)]
pub struct LoopGuard {
    /// The last [`MAX_PERIOD`] tokens, newest first from `next` backwards.
    recent: [TokenId; MAX_PERIOD],
    n_seen: usize,
    /// Per period: how many of the newest tokens equal the token one period before them.
    n_equal: [usize; MAX_PERIOD],
}

impl Default for LoopGuard {
    /// Nothing seen yet; the prompt does not count.
    fn default() -> Self {
        Self { recent: [0; MAX_PERIOD], n_seen: 0, n_equal: [0; MAX_PERIOD] }
    }
}

impl LoopGuard {
    /// Takes the next token; true when the text goes round in circles.
    pub fn push(&mut self, token: TokenId) -> bool {
        let mut looping = false;
        for period in 1..=MAX_PERIOD.min(self.n_seen) {
            let before = self.recent[(self.n_seen - period) % MAX_PERIOD];
            let n = &mut self.n_equal[period - 1];
            *n = if before == token { *n + 1 } else { 0 };
            // The first occurrence equals nothing before it.
            let n_filled = *n + period;
            looping |= n_filled >= MIN_TOKENS && n_filled >= MIN_TIMES * period;
        }
        self.recent[self.n_seen % MAX_PERIOD] = token;
        self.n_seen += 1;
        looping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many tokens the guard speaks up, if at all.
    fn ends_after(tokens: impl IntoIterator<Item = TokenId>) -> Option<usize> {
        let mut guard = LoopGuard::default();
        tokens.into_iter().position(|t| guard.push(t)).map(|i| i + 1)
    }

    #[test]
    fn circles_end() {
        assert_eq!(ends_after([7; 1000]), Some(MIN_TOKENS));
        assert_eq!(ends_after((0..1000).map(|i| i % 5)), Some(MIN_TOKENS));
        let with_beginning = (100..150).chain((0..1000).map(|i| i % MAX_PERIOD as u32));
        assert_eq!(ends_after(with_beginning), Some(50 + MIN_TIMES * MAX_PERIOD));
    }

    #[test]
    fn ordinary_repetition_goes_on() {
        assert_eq!(ends_after([7; MIN_TOKENS - 1]), None);
        // A list: the same opening, another number each time.
        assert_eq!(ends_after((0..4000).map(|i| if i % 8 == 7 { 1000 + i / 8 } else { i % 8 })), None);
        assert_eq!(ends_after((0..4000).map(|i| i % (MAX_PERIOD as u32 + 1))), None);
    }
}
