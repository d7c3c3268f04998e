//! `SentencePiece` vocabularies: of all neighbours that make a token, the pair with the best score is joined first.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use std::hash::RandomState;

use super::super::TextError;
use super::bpe::{for_each_word, joins_words};
use super::tokens::{Kind, Tokens, malformed};
use crate::model::TokenId;
use crate::model::gguf::Gguf;

/// Longest word whose tokens are remembered within one text.
const MAX_REMEMBERED_BYTES: usize = 48;

/// Scores of one vocabulary.
pub(super) struct Spm {
    scores: Vec<f32>,
    byte_ids: Vec<Option<TokenId>>,
    /// What a byte becomes that has no token.
    unknown: Option<TokenId>,
    /// Longest token in bytes: nothing longer need be looked up.
    max_token_bytes: usize,
    /// No token joins a blank to what is left of it, so that words can be joined one by one.
    words_stand_alone: bool,
}

/// A run of characters of the word, and its place in a doubly linked list.
#[derive(Clone, Copy)]
struct Part {
    start: u32,
    len: u32,
    prev: u32,
    next: u32,
}
const NOWHERE: u32 = u32::MAX;

#[derive(PartialEq)]
struct Pair {
    score: f32,
    left: u32,
    right: u32,
    len: u32,
}

impl Eq for Pair {}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
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
        let plain = || {
            tokens
                .iter()
                .filter(|(_, _, kind)| matches!(kind, Kind::Normal | Kind::UserDefined | Kind::Unused))
        };
        Ok(Self {
            // Adding zero makes -0.0 and 0.0 one score.
            scores: scores.into_iter().map(|score| score + 0.0).collect(),
            byte_ids: (0..=255).map(|byte| tokens.byte_id(byte)).collect(),
            unknown,
            max_token_bytes: plain().map(|(_, text, _)| text.len()).max().unwrap_or(0),
            words_stand_alone: !plain().any(|(_, text, _)| joins_words(text)),
        })
    }

    /// Appends the ids of a text whose blanks are already `▁`.
    pub(super) fn encode(&self, tokens: &Tokens, text: &str, out: &mut Vec<TokenId>) {
        if !self.words_stand_alone {
            self.encode_word(tokens, text, out);
            return;
        }
        let mut remembered: HashMap<&str, (usize, usize), RandomState> = HashMap::default();
        for_each_word(text, |word| {
            if let Some(&(start, end)) = remembered.get(word) {
                out.extend_from_within(start..end);
                return;
            }
            let start = out.len();
            self.encode_word(tokens, word, out);
            if word.len() <= MAX_REMEMBERED_BYTES {
                remembered.insert(word, (start, out.len()));
            }
        });
    }

    fn encode_word(&self, tokens: &Tokens, text: &str, out: &mut Vec<TokenId>) {
        let mut parts = Vec::with_capacity(text.len());
        for (start, c) in text.char_indices() {
            let at = parts.len() as u32;
            parts.push(Part {
                start: start as u32,
                len: c.len_utf8() as u32,
                prev: at.wrapping_sub(1),
                next: at + 1,
            });
        }
        let Some(last) = parts.last_mut() else { return };
        last.next = NOWHERE;
        let pairs: Vec<Pair> =
            (0..parts.len() as u32).filter_map(|left| self.pair(tokens, text, &parts, left)).collect();
        let mut queue = BinaryHeap::from(pairs);
        while let Some(Pair { left, right, len, .. }) = queue.pop() {
            let (a, b) = (parts[left as usize], parts[right as usize]);
            // A pair whose half was joined to something else meanwhile is out of date.
            if a.len == 0 || b.len == 0 || a.len + b.len != len {
                continue;
            }
            parts[left as usize] = Part { len, next: b.next, ..a };
            parts[right as usize].len = 0;
            if let Some(after) = parts.get_mut(b.next as usize) {
                after.prev = left;
            }
            queue.extend(self.pair(tokens, text, &parts, a.prev));
            queue.extend(self.pair(tokens, text, &parts, left));
        }
        let mut at = 0;
        while let Some(&Part { start, len, next, .. }) = parts.get(at as usize) {
            let word = &text[start as usize..(start + len) as usize];
            match tokens.plain_id(word) {
                Some(id) => out.push(id),
                None => {
                    out.extend(word.bytes().filter_map(|byte| self.byte_ids[byte as usize].or(self.unknown)));
                }
            }
            at = next;
        }
    }

    /// The part at `left` and the one behind it, where they make a token.
    fn pair(&self, tokens: &Tokens, text: &str, parts: &[Part], left: u32) -> Option<Pair> {
        let a = parts.get(left as usize)?;
        let b = parts.get(a.next as usize)?;
        let len = a.len + b.len;
        if len as usize > self.max_token_bytes {
            return None;
        }
        let id = tokens.plain_id(&text[a.start as usize..(a.start + len) as usize])?;
        Some(Pair { score: self.scores[id as usize], left, right: a.next, len })
    }
}
