//! Cuts special tokens out of a text before it is tokenized.
//!
//! Longer tokens are looked for before shorter ones, over the whole text: that order is what models were trained with,
//! and it differs from the leftmost match where two tokens overlap.

use std::ops::Range;

use aho_corasick::AhoCorasick;

use super::super::TextError;
use super::tokens::{Kind, Tokens, malformed};
use crate::model::TokenId;

/// A part of a text: a special token, or text in between.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fragment {
    Token(TokenId),
    Text(Range<usize>),
}

/// Special tokens, ready to be found.
pub(super) struct Specials {
    /// Longest first.
    tokens: Vec<Special>,
    /// Finds which of `tokens` occur at all.
    matcher: AhoCorasick,
}

struct Special {
    id: TokenId,
    text: Box<str>,
    /// Takes the blanks behind it with it.
    strips_right: bool,
}

impl Specials {
    /// All tokens of the kinds that `wanted` says.
    pub(super) fn new(
        tokens: &Tokens,
        wanted: impl Fn(Kind) -> bool,
        strips_right: impl Fn(&str) -> bool,
    ) -> Result<Self, TextError> {
        let mut found: Vec<Special> = tokens
            .iter()
            .filter(|&(_, _, kind)| wanted(kind))
            .map(|(id, text, _)| Special { id, text: text.into(), strips_right: strips_right(text) })
            .collect();
        found.sort_by_key(|special| std::cmp::Reverse(special.text.len()));
        let matcher = AhoCorasick::new(found.iter().map(|special| special.text.as_bytes()))
            .map_err(|e| malformed(format!("special tokens: {e}")))?;
        Ok(Self { tokens: found, matcher })
    }

    /// The text in parts, in order. A token's first character with `mark` behind it is no token.
    pub(super) fn partition(&self, text: &str, mark: Option<char>) -> Vec<Fragment> {
        let mut fragments = vec![Fragment::Text(0..text.len())];
        fragments.retain(|f| *f != Fragment::Text(0..0));
        for special in self.occurring(text) {
            let mut parts = Vec::with_capacity(fragments.len());
            for fragment in fragments {
                match fragment {
                    Fragment::Token(_) => parts.push(fragment),
                    Fragment::Text(range) => special.cut(text, range, mark, &mut parts),
                }
            }
            fragments = parts;
        }
        fragments
    }

    fn occurring(&self, text: &str) -> impl Iterator<Item = &Special> {
        let mut occurs = vec![false; self.tokens.len()];
        let mut n_left = self.tokens.len();
        if n_left > 0 {
            for found in self.matcher.find_overlapping_iter(text) {
                let seen = &mut occurs[found.pattern().as_usize()];
                n_left -= usize::from(!*seen);
                *seen = true;
                if n_left == 0 {
                    break;
                }
            }
        }
        self.tokens.iter().zip(occurs).filter_map(|(special, occurs)| occurs.then_some(special))
    }
}

impl Special {
    fn cut(&self, text: &str, range: Range<usize>, mark: Option<char>, parts: &mut Vec<Fragment>) {
        let mut start = range.start;
        let mut from = start;
        while let Some(at) = text[from..range.end].find(&*self.text) {
            let (at, end) = (from + at, from + at + self.text.len());
            from = end;
            // Only a token of one character can have its mark behind it.
            if mark.is_some_and(|mark| text[end..].starts_with(mark)) && self.text.chars().nth(1).is_none() {
                continue;
            }
            if at > start {
                parts.push(Fragment::Text(start..at));
            }
            parts.push(Fragment::Token(self.id));
            if self.strips_right {
                let rest = text[from..range.end].trim_start_matches([' ', '\t', '\n', '\r', '\x0B', '\x0C']);
                from = range.end - rest.len();
            }
            start = from;
        }
        if start < range.end {
            parts.push(Fragment::Text(start..range.end));
        }
    }
}
