//! `SentencePiece` vocabularies: of all neighbours that make a token, the pair with the best score is joined first.

use std::collections::HashMap;

use super::super::TextError;
use super::hash::Quick;
use super::joining::{Join, Joining, Words};
use super::tokens::{Kind, Tokens, malformed};
use crate::model::TokenId;
use crate::model::gguf::Gguf;

/// Longest word whose tokens are remembered within one text.
const MAX_REMEMBERED_BYTES: usize = 48;

/// Scores of one vocabulary.
pub(super) struct Spm {
    /// By token: where pairs that become it stand in the order of joining.
    keys: Vec<u32>,
    byte_ids: Vec<Option<TokenId>>,
    /// What a byte becomes that has no token.
    unknown: Option<TokenId>,
    /// Longest token in bytes: nothing longer need be looked up.
    max_token_bytes: usize,
    words: Words,
}

/// What one text needs while it is encoded. Symbols are tokens, and behind them characters that are none.
#[derive(Default)]
struct Scratch<'t> {
    joining: Joining,
    /// What two symbols become, where it was looked up already: the same pairs come again and again.
    pairs: HashMap<(u32, u32), Option<TokenId>, Quick>,
    /// A word to a range of the output.
    remembered: HashMap<&'t str, (usize, usize), Quick>,
    text: String,
}

impl Spm {
    pub(super) fn from_gguf(
        gguf: &Gguf,
        tokens: &Tokens,
        unknown: Option<TokenId>,
    ) -> Result<Self, TextError> {
        const KEY: &str = "tokenizer.ggml.scores";
        let scores = match (gguf.get(KEY), gguf.f32s(KEY), gguf.i32s(KEY)) {
            (None, _, _) => vec![0.0; tokens.len()],
            (_, Some(scores), _) => scores,
            (_, _, Some(scores)) => scores.into_iter().map(|score| score as f32).collect(),
            _ => return Err(malformed(format!("{KEY} is not a list of numbers"))),
        };
        if scores.len() < tokens.len() {
            let (n, n_tokens) = (scores.len(), tokens.len());
            return Err(malformed(format!("{KEY} has {n} entries for {n_tokens} tokens")));
        }
        let mut words = Words::default();
        let mut max_token_bytes = 0;
        for (_, text, kind) in tokens.iter() {
            if matches!(kind, Kind::Normal | Kind::UserDefined | Kind::Unused) {
                words.learn(text);
                max_token_bytes = max_token_bytes.max(text.len());
            }
        }
        Ok(Self {
            keys: scores.into_iter().map(key_of).collect(),
            byte_ids: (0..=255).map(|byte| tokens.byte_id(byte)).collect(),
            unknown,
            max_token_bytes,
            words,
        })
    }

    /// Appends the ids of a text whose blanks are already `▁`.
    pub(super) fn encode(&self, tokens: &Tokens, text: &str, out: &mut Vec<TokenId>) {
        let mut scratch = Scratch::default();
        self.words.cut(text, |word| {
            if let Some(&(start, end)) = scratch.remembered.get(word) {
                out.extend_from_within(start..end);
                return;
            }
            let start = out.len();
            self.encode_word(tokens, word, out, &mut scratch);
            if word.len() <= MAX_REMEMBERED_BYTES {
                scratch.remembered.insert(word, (start, out.len()));
            }
        });
    }

    fn encode_word(&self, tokens: &Tokens, word: &str, out: &mut Vec<TokenId>, scratch: &mut Scratch<'_>) {
        let Scratch { joining, pairs, text, .. } = scratch;
        let n_tokens = tokens.len() as u32;
        joining.begin();
        let mut last = None;
        for (start, c) in word.char_indices() {
            let symbol = match last {
                Some((before, symbol)) if before == c => symbol,
                _ => {
                    let token = tokens.plain_id(&word[start..start + c.len_utf8()]);
                    token.unwrap_or_else(|| n_tokens + u32::from(c))
                }
            };
            last = Some((c, symbol));
            joining.push(symbol, start);
        }
        joining.run(|left, right| {
            let token = *pairs.entry((left, right)).or_insert_with(|| {
                text.clear();
                push_symbol(text, tokens, left);
                push_symbol(text, tokens, right);
                if text.len() > self.max_token_bytes { None } else { tokens.plain_id(text) }
            });
            token.map(|symbol| Join { key: self.keys[symbol as usize], symbol })
        });
        joining.for_each(word.len(), |symbol, range| {
            if symbol < n_tokens {
                out.push(symbol);
            } else {
                let bytes = &word.as_bytes()[range];
                out.extend(bytes.iter().filter_map(|&byte| self.byte_ids[byte as usize].or(self.unknown)));
            }
        });
    }
}

/// A number that is the smaller, the better the score is.
fn key_of(score: f32) -> u32 {
    // Adding zero makes -0.0 and 0.0 one score.
    let bits = (score + 0.0).to_bits();
    // As bits, numbers above zero are in their order, and those below in the opposite one.
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    !ascending
}

fn push_symbol(text: &mut String, tokens: &Tokens, symbol: u32) {
    match (symbol as usize).checked_sub(tokens.len()) {
        None => text.push_str(tokens.text(symbol)),
        Some(code) => text.extend(char::from_u32(code as u32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_better_score_has_a_smaller_key() {
        let scores = [f32::INFINITY, 1e9, 1.5, 0.0, -1.0, -1.5, -259.0, -1e9, f32::NEG_INFINITY];
        assert!(scores.map(key_of).is_sorted(), "{:?}", scores.map(key_of));
        assert_eq!(key_of(0.0), key_of(-0.0));
    }
}
