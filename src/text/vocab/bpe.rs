//! Byte pair encoding: the pairs of a piece are merged in the order of their ranks.

use std::collections::HashMap;

use super::super::TextError;
use super::byte_level::char_of;
use super::hash::Quick;
use super::joining::{Join, Joining, Words};
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
    merges: HashMap<(u32, u32), Join, Quick>,
    /// Symbols of single bytes, where tokens are byte-level.
    byte_symbols: Vec<u32>,
    /// Ids of single bytes, for what no token spells.
    byte_ids: Vec<Option<TokenId>>,
    /// Symbols beyond the vocabulary that merges name.
    extra_symbols: HashMap<Box<str>, u32, Quick>,
    /// Where blanks are `▁`, a text can be merged word by word.
    words: Option<Words>,
}

/// What one text needs while it is encoded.
#[derive(Default)]
struct Scratch<'t> {
    joining: Joining,
    /// (stage, piece) to a range of the output.
    remembered: HashMap<(usize, &'t str), (usize, usize), Quick>,
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
            words: rules.raw.then(Words::default),
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
            if let Some(words) = &mut self.words {
                words.learn(&joined);
            }
            let pair = (self.intern(tokens, left)?, self.intern(tokens, right)?);
            let symbol = self.intern(tokens, &joined)?;
            self.merges.entry(pair).or_insert(Join { key: rank as u32, symbol });
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
            match &self.words {
                Some(words) => {
                    words.cut(text, |word| self.remember(tokens, stage + 1, word, out, scratch));
                }
                None => self.encode_piece(tokens, text, out, scratch),
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
        let joining = &mut scratch.joining;
        self.fill(tokens, piece, joining);
        joining.run(|left, right| self.merges.get(&(left, right)).copied());
        joining.for_each(piece.len(), |symbol, range| {
            if (symbol as usize) < tokens.len() && tokens.is_plain(symbol) {
                out.push(symbol);
            } else {
                let bytes = &piece.as_bytes()[range];
                out.extend(bytes.iter().filter_map(|&byte| self.byte_ids[byte as usize]));
            }
        });
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

    fn fill(&self, tokens: &Tokens, piece: &str, joining: &mut Joining) {
        joining.begin();
        if self.rules.raw {
            for (start, c) in piece.char_indices() {
                let end = start + c.len_utf8();
                joining.push(self.symbol(tokens, &piece[start..end]).unwrap_or(NO_SYMBOL), start);
            }
        } else {
            for (start, byte) in piece.bytes().enumerate() {
                joining.push(self.byte_symbols[byte as usize], start);
            }
        }
    }
}
