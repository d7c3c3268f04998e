//! Stop strings, which may span tokens.
//!
//! Text that could be the beginning of a stop string is held back until it is clear; stop text is never emitted. The
//! match that is complete first ends the text; of several that end at the same place, the longest. That rule depends
//! on the text alone, not on how it was cut into tokens.

use super::request::InvalidParam;

/// Most stop strings of a request: every token's text is compared with each.
pub const MAX_STOPS: usize = 16;
/// Longest stop string in bytes: this much text may be held back.
pub const MAX_STOP_BYTES: usize = 64;

/// Refuses too many, too long or empty stop strings.
pub fn validate(stops: &[String]) -> Result<(), InvalidParam> {
    if stops.len() > MAX_STOPS {
        return Err(InvalidParam::new(
            "stop",
            format!("must be at most {MAX_STOPS} strings, not {}", stops.len()),
        ));
    }
    if let Some(s) = stops.iter().find(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
        return Err(InvalidParam::new(
            "stop",
            format!("each string must have 1 to {MAX_STOP_BYTES} bytes, not {}", s.len()),
        ));
    }
    Ok(())
}

/// Watches a text for stop strings.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

/// What may be sent of the text so far.
#[derive(PartialEq, Eq, Debug)]
pub struct Released {
    /// Text that belongs to no stop string.
    pub text: String,
    /// A stop string is complete: nothing more will come.
    pub stopped: bool,
}

impl StopMatcher {
    /// Watches for `stops`, which [`validate`] has seen.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &str) -> Released {
        if self.stops.is_empty() {
            return Released { text: piece.to_owned(), stopped: false };
        }
        let n_old = self.held.len();
        self.held.push_str(piece);
        // Older text was searched before: only matches that end in the new piece are looked for.
        for end in n_old + 1..=self.held.len() {
            if let Some(n) = self.longest_stop_at_end(end) {
                self.held.truncate(end - n);
                return Released { text: std::mem::take(&mut self.held), stopped: true };
            }
        }
        let n_held = self.n_to_hold();
        let rest = self.held.split_off(self.held.len() - n_held);
        Released { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// The text ended without a stop string: what was held back belongs to it. Behind one nothing is held back.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    fn longest_stop_at_end(&self, end: usize) -> Option<usize> {
        let text = &self.held.as_bytes()[..end];
        self.stops.iter().filter(|s| text.ends_with(s.as_bytes())).map(String::len).max()
    }

    /// Length of the longest tail that is a beginning of some stop string.
    fn n_to_hold(&self) -> usize {
        let text = self.held.as_bytes();
        let n_tail = |s: &String| {
            (1..s.len().min(text.len() + 1)).rev().find(|&n| text.ends_with(&s.as_bytes()[..n])).unwrap_or(0)
        };
        self.stops.iter().map(n_tail).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule of the module's docs, read off the whole text.
    fn naive(text: &str, stops: &[String]) -> (String, bool) {
        for end in 1..=text.len() {
            let head = &text.as_bytes()[..end];
            if let Some(n) = stops.iter().filter(|s| head.ends_with(s.as_bytes())).map(String::len).max() {
                return (text[..end - n].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    fn streamed(pieces: &[String], stops: &[String]) -> (String, bool) {
        let mut matcher = StopMatcher::new(stops.to_vec());
        let mut out = String::new();
        for piece in pieces {
            let released = matcher.push(piece);
            out += &released.text;
            if released.stopped {
                return (out, true);
            }
        }
        (out + &matcher.finish(), false)
    }

    proptest! {
        #[test]
        fn splits_do_not_matter(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let text = pieces.concat();
            prop_assert_eq!(streamed(&pieces, &stops), naive(&text, &stops));
        }
    }

    #[test]
    fn clear_text_is_not_held_back() {
        let mut matcher = StopMatcher::new(vec!["</end>".into()]);
        assert_eq!(matcher.push("hello <"), Released { text: "hello ".into(), stopped: false });
        assert_eq!(matcher.push("3"), Released { text: "<3".into(), stopped: false });
        assert_eq!(matcher.push(" bye</en"), Released { text: " bye".into(), stopped: false });
        assert_eq!(matcher.push("d> more"), Released { text: String::new(), stopped: true });
    }

    #[test]
    fn limits_are_named() {
        let too_many: Vec<String> = (0..17).map(|i| i.to_string()).collect();
        for bad in [too_many, vec![String::new()], vec!["x".repeat(65)]] {
            assert_eq!(validate(&bad).unwrap_err().field, "stop");
        }
        assert!(validate(&["x".repeat(64)]).is_ok());
    }
}
