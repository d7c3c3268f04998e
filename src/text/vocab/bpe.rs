//! Byte pair encoding: the pairs of a piece are merged in the order of their ranks.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use std::hash::RandomState;

use super::super::TextError;
use super::byte_level::char_of;
use super::pre::{Pre, Rules, Stage};
use super::tokens::{Tokens, malformed};
use crate::model::TokenId;
use crate::model::gguf::Gguf;

/// Longest piece whose tokens are remembered within one text: words come again, long runs do not.
const MAX_REMEMBERED_BYTES: usize = 48;
/// A character that neither the vocabulary nor a merge knows.
const NO_SYMBOL: u32 = u32::MAX;

/// Merges and cuts of one vocabulary.
pub(super) struct Bpe {
    stages: Vec<Stage>,
    rules: Rules,
    /// (left symbol, right symbol) to rank and symbol of the two together.
    merges: HashMap<(u32, u32), Merge, RandomState>,
    /// Symbols of single bytes, where tokens are byte-level.
    byte_symbols: Vec<u32>,
    /// Ids of single bytes, for what no token spells.
    byte_ids: Vec<Option<TokenId>>,
    /// Symbols beyond the vocabulary that merges name.
    extra_symbols: HashMap<Box<str>, u32, RandomState>,
    /// No merge joins a blank to what is left of it, so that words can be merged one by one.
    words_stand_alone: bool,
}

#[derive(Clone, Copy)]
struct Merge {
    rank: u32,
    symbol: u32,
}

/// A run of bytes of the piece: a symbol, and its place in a doubly linked list.
#[derive(Clone, Copy)]
struct Part {
    symbol: u32,
    start: u32,
    len: u32,
    prev: u32,
    next: u32,
}
const NOWHERE: u32 = u32::MAX;

/// Rank, place of the left part, its symbol, and the symbol behind it.
type Pair = (u32, u32, u32, u32);

/// What one text needs while it is encoded.
#[derive(Default)]
struct Scratch<'t> {
    parts: Vec<Part>,
    queue: BinaryHeap<Reverse<Pair>>,
    /// (stage, piece) to a range of the output.
    remembered: HashMap<(usize, &'t str), (usize, usize), RandomState>,
}

impl Bpe {
    pub(super) fn from_gguf(gguf: &Gguf, tokens: &Tokens, pre: Pre) -> Result<Self, TextError> {
        let Pre { stages, rules } = pre;
        let mut bpe = Self {
            stages,
            rules,
            merges: HashMap::default(),
            byte_symbols: Vec::new(),
            byte_ids: Vec::new(),
            extra_symbols: HashMap::default(),
            words_stand_alone: rules.raw,
        };
        bpe.read_merges(gguf, tokens)?;
        for byte in 0..=255u8 {
            let mut buffer = [0; 4];
            let spelled: &str = char_of(byte).encode_utf8(&mut buffer);
            bpe.byte_symbols.push(bpe.symbol(tokens, spelled).unwrap_or(NO_SYMBOL));
            bpe.byte_ids.push(if rules.raw { tokens.byte_id(byte) } else { tokens.plain_id(spelled) });
        }
        Ok(bpe)
    }

    fn read_merges(&mut self, gguf: &Gguf, tokens: &Tokens) -> Result<(), TextError> {
        const KEY: &str = "tokenizer.ggml.merges";
        let Some(list) = gguf.strings(KEY) else {
            if self.rules.no_merges {
                return Ok(());
            }
            return Err(malformed(format!("{KEY} is missing or not a list of strings")));
        };
        self.merges.reserve(list.len());
        let mut joined = String::new();
        for (rank, merge) in list.enumerate() {
            // The blank between the two cannot be the first character: that one is part of the left symbol.
            let Some(first) = merge.chars().next() else { continue };
            let Some((left, right)) = merge[first.len_utf8()..]
                .find(' ')
                .map(|at| merge.split_at(at + first.len_utf8()))
                .map(|(left, right)| (left, &right[1..]))
            else {
                continue;
            };
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            self.words_stand_alone &= !joins_words(&joined);
            let pair = (self.intern(tokens, left)?, self.intern(tokens, right)?);
            let symbol = self.intern(tokens, &joined)?;
            self.merges.entry(pair).or_insert(Merge { rank: rank as u32, symbol });
        }
        Ok(())
    }

    fn symbol(&self, tokens: &Tokens, text: &str) -> Option<u32> {
        tokens.id(text).or_else(|| self.extra_symbols.get(text).copied())
    }

    fn intern(&mut self, tokens: &Tokens, text: &str) -> Result<u32, TextError> {
        if let Some(symbol) = self.symbol(tokens, text) {
            return Ok(symbol);
        }
        let next = u32::try_from(tokens.len() + self.extra_symbols.len())
            .map_err(|_| malformed("tokenizer.ggml.merges names too many symbols"))?;
        self.extra_symbols.insert(text.into(), next);
        Ok(next)
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(&self, tokens: &Tokens, text: &str, out: &mut Vec<TokenId>) {
        if self.rules.raw {
            let text = text.replace(' ', "▁");
            self.encode_stage(tokens, 0, &text, out, &mut Scratch::default());
        } else {
            self.encode_stage(tokens, 0, text, out, &mut Scratch::default());
        }
    }

    fn encode_stage<'t>(
        &self,
        tokens: &Tokens,
        stage: usize,
        text: &'t str,
        out: &mut Vec<TokenId>,
        scratch: &mut Scratch<'t>,
    ) {
        let Some(cut) = self.stages.get(stage) else {
            if self.words_stand_alone {
                for_each_word(text, |word| self.remember(tokens, stage + 1, word, out, scratch));
            } else {
                self.encode_piece(tokens, text, out, scratch);
            }
            return;
        };
        cut.cut(text, |piece| self.remember(tokens, stage + 1, piece, out, scratch));
    }

    /// Encodes what a stage cut out, once per piece that comes again.
    fn remember<'t>(
        &self,
        tokens: &Tokens,
        stage: usize,
        piece: &'t str,
        out: &mut Vec<TokenId>,
        scratch: &mut Scratch<'t>,
    ) {
        let key = (stage, piece);
        if let Some(&(start, end)) = scratch.remembered.get(&key) {
            out.extend_from_within(start..end);
            return;
        }
        let start = out.len();
        if stage > self.stages.len() {
            self.encode_piece(tokens, piece, out, scratch);
        } else {
            self.encode_stage(tokens, stage, piece, out, scratch);
        }
        if piece.len() <= MAX_REMEMBERED_BYTES {
            scratch.remembered.insert(key, (start, out.len()));
        }
    }

    fn encode_piece(&self, tokens: &Tokens, piece: &str, out: &mut Vec<TokenId>, scratch: &mut Scratch<'_>) {
        if let Some(id) = self.whole(tokens, piece) {
            out.push(id);
            return;
        }
        self.fill(tokens, piece, &mut scratch.parts);
        self.merge(&mut scratch.parts, &mut scratch.queue);
        let mut at = 0;
        while let Some(part) = scratch.parts.get(at as usize) {
            if (part.symbol as usize) < tokens.len() && tokens.is_plain(part.symbol) {
                out.push(part.symbol);
            } else {
                let bytes = &piece.as_bytes()[part.start as usize..(part.start + part.len) as usize];
                out.extend(bytes.iter().filter_map(|&byte| self.byte_ids[byte as usize]));
            }
            at = part.next;
        }
    }

    /// The token that a piece is as a whole, where the family skips merges for it.
    fn whole(&self, tokens: &Tokens, piece: &str) -> Option<TokenId> {
        if self.rules.ignore_merges && !self.rules.raw {
            tokens.plain_id(&piece.bytes().map(char_of).collect::<String>())
        } else if self.rules.ignore_merges || self.rules.newline_runs && piece.bytes().all(|b| b == b'\n') {
            tokens.plain_id(piece)
        } else {
            None
        }
    }

    fn fill(&self, tokens: &Tokens, piece: &str, parts: &mut Vec<Part>) {
        parts.clear();
        let mut push = |symbol: u32, start: usize, len: usize| {
            let at = parts.len() as u32;
            parts.push(Part {
                symbol,
                start: start as u32,
                len: len as u32,
                prev: at.wrapping_sub(1),
                next: at + 1,
            });
        };
        if self.rules.raw {
            for (start, c) in piece.char_indices() {
                let len = c.len_utf8();
                push(self.symbol(tokens, &piece[start..start + len]).unwrap_or(NO_SYMBOL), start, len);
            }
        } else {
            for (start, byte) in piece.bytes().enumerate() {
                push(self.byte_symbols[byte as usize], start, 1);
            }
        }
        if let Some(last) = parts.last_mut() {
            last.next = NOWHERE;
        }
    }

    /// Merges until no pair has a rank; the first of equal ranks goes first.
    fn merge(&self, parts: &mut [Part], queue: &mut BinaryHeap<Reverse<Pair>>) {
        let mut pairs = std::mem::take(queue).into_vec();
        pairs.clear();
        pairs.extend((0..parts.len() as u32).filter_map(|left| self.pair(parts, left)));
        *queue = BinaryHeap::from(pairs);
        while let Some(Reverse((_, left, left_symbol, right_symbol))) = queue.pop() {
            let a = parts[left as usize];
            let Some(&b) = parts.get(a.next as usize) else { continue };
            // A pair whose half was merged into something else meanwhile is out of date.
            if a.len == 0 || a.symbol != left_symbol || b.symbol != right_symbol {
                continue;
            }
            let Some(merge) = self.merges.get(&(left_symbol, right_symbol)) else { continue };
            parts[left as usize] = Part { symbol: merge.symbol, len: a.len + b.len, next: b.next, ..a };
            parts[a.next as usize].len = 0;
            if let Some(after) = parts.get_mut(b.next as usize) {
                after.prev = left;
            }
            queue.extend(self.pair(parts, a.prev));
            queue.extend(self.pair(parts, left));
        }
    }

    /// The part at `left` and the one behind it, where a merge joins them.
    fn pair(&self, parts: &[Part], left: u32) -> Option<Reverse<Pair>> {
        let a = parts.get(left as usize)?;
        let b = parts.get(a.next as usize)?;
        let merge = self.merges.get(&(a.symbol, b.symbol))?;
        Some(Reverse((merge.rank, left, a.symbol, b.symbol)))
    }
}

/// Whether a blank stands behind something that is not a blank.
pub(super) fn joins_words(text: &str) -> bool {
    let mut chars = text.chars().skip_while(|&c| c == '▁');
    chars.any(|c| c == '▁')
}

/// Calls `word` with every run of `▁` and what follows it.
pub(super) fn for_each_word<'t>(text: &'t str, mut word: impl FnMut(&'t str)) {
    let mut start = 0;
    let mut after_blank = true;
    for (at, c) in text.char_indices() {
        if c == '▁' && !after_blank {
            word(&text[start..at]);
            start = at;
        }
        after_blank = c == '▁';
    }
    if start < text.len() {
        word(&text[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_begin_with_their_blanks() {
        let mut words = Vec::new();
        for_each_word("Hi▁▁my▁dear▁", |w| words.push(w));
        assert_eq!(words, ["Hi", "▁▁my", "▁dear", "▁"]);
        assert!(joins_words("a▁b") && joins_words("▁a▁") && !joins_words("▁▁ab") && !joins_words("▁"));
    }
}
