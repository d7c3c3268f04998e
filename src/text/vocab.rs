//! A model's tokenizer, built from its GGUF metadata alone.
//!
//! What a token id means is the model's maker's decision; this follows the reference implementation of the format rule
//! by rule, except that plain text can never become a control token, however it is spelled.

mod bpe;
mod byte_level;
mod hash;
mod joining;
mod pre;
mod specials;
mod spm;
mod texts;
mod tokens;

use bpe::Bpe;
use pre::Pre;
use specials::{Fragment, Specials};
use spm::Spm;
pub use tokens::MAX_TOKENS;
use tokens::{Kind, Tokens, malformed, special_id};

use super::detokenizer::{Utf8Stream, undo_space_prefix};
use super::{Rendered, TextError};
use crate::model::TokenId;
use crate::model::gguf::Gguf;

/// Longest text of one call in bytes: sixteen of the longest messages.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// Text to token ids and ids to bytes, as the model's maker meant it.
pub struct Tokenizer {
    tokens: Tokens,
    model: Algorithm,
    /// Found in plain text.
    user_defined: Specials,
    /// Found in what a template wrote.
    all_special: Specials,
    /// Bytes of all tokens in a row, and where each ends.
    pieces: Vec<u8>,
    piece_ends: Vec<u32>,
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
    warning: Option<String>,
}

enum Algorithm {
    Bpe(Bpe),
    Spm(Spm),
}

impl Tokenizer {
    /// Reads `tokenizer.ggml.*`. An unknown model or pre-tokenizer is refused by name.
    ///
    /// # Errors
    /// [`TextError::Unsupported`] naming what is not known here, [`TextError::Malformed`] naming the key that is
    /// missing, of a wrong type or contradicts another.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TextError> {
        let kind =
            gguf.str("tokenizer.ggml.model").ok_or_else(|| malformed("tokenizer.ggml.model is missing"))?;
        let pre_name = gguf.str("tokenizer.ggml.pre").filter(|name| !name.is_empty());
        let mut warning = None;
        let pre = match kind {
            "llama" => None,
            "gemma4" => Some(Pre::named(Some("gemma4"))?),
            "gpt2" => {
                if pre_name.is_none() {
                    warning = Some(
                        "the file names no pre-tokenizer (tokenizer.ggml.pre); a general one is used and answers may \
                         be worse"
                            .to_owned(),
                    );
                }
                Some(Pre::named(pre_name)?)
            }
            other => {
                let other = other.escape_debug();
                return Err(TextError::Unsupported(format!(
                    "tokenizer.ggml.model '{other}' is not known here (known: llama, gpt2, gemma4)"
                )));
            }
        };
        let tokens = Tokens::from_gguf(gguf)?;
        let rules = pre.as_ref().map(|pre| pre.rules).unwrap_or_default();
        let is_spm = pre.is_none();
        let model = match pre {
            None => Algorithm::Spm(Spm::from_gguf(gguf, &tokens, special_id(gguf, "unk", &tokens))?),
            Some(pre) => Algorithm::Bpe(Bpe::from_gguf(gguf, &tokens, pre)?),
        };
        let bos = special_id(gguf, "bos", &tokens);
        let eos = special_id(gguf, "eos", &tokens);
        let add_bos =
            gguf.bool("tokenizer.ggml.add_bos_token").unwrap_or(rules.add_bos || is_spm) || rules.force_bos;
        let add_eos = gguf.bool("tokenizer.ggml.add_eos_token").unwrap_or(false);
        for (add, id, name) in [(add_bos, bos, "bos"), (add_eos, eos, "eos")] {
            if add && id.is_none() {
                return Err(malformed(format!("add_{name}_token is true, but there is no {name}_token_id")));
            }
        }
        let strips_right = right_strippers(gguf);
        let (pieces, piece_ends) = pieces(&tokens, is_spm || rules.raw);
        Ok(Self {
            user_defined: Specials::new(&tokens, |kind| kind == Kind::UserDefined, &strips_right)?,
            all_special: Specials::new(
                &tokens,
                |kind| matches!(kind, Kind::UserDefined | Kind::Control | Kind::Unknown),
                &strips_right,
            )?,
            add_space_prefix: is_spm && gguf.bool("tokenizer.ggml.add_space_prefix").unwrap_or(true),
            tokens,
            model,
            pieces,
            piece_ends,
            bos,
            eos,
            add_bos,
            add_eos,
            warning,
        })
    }

    /// Ids of a plain text: control tokens typed in it stay text. With `add_special`, BOS and EOS as the model asks.
    ///
    /// # Errors
    /// [`TextError::TooLong`] past [`MAX_TEXT_BYTES`].
    pub fn encode_plain(&self, text: &str, add_special: bool) -> Result<Vec<TokenId>, TextError> {
        check_len(text)?;
        let mut out = Vec::with_capacity(text.len() / 3 + 2);
        if add_special && self.add_bos {
            out.extend(self.bos);
        }
        self.encode_fragments(text, &self.user_defined.partition(text, None), None, &mut out);
        if add_special && self.add_eos {
            out.extend(self.eos);
        }
        Ok(out)
    }

    /// Ids of a rendered chat: control tokens only from the template's own text; BOS as the model asks, not doubled.
    ///
    /// # Errors
    /// [`TextError::TooLong`] past [`MAX_TEXT_BYTES`].
    pub fn encode_template(&self, rendered: &Rendered) -> Result<Vec<TokenId>, TextError> {
        let marked = rendered.marked();
        check_len(marked)?;
        let fragments = self.all_special.partition(marked, rendered.mark());
        let mut out = Vec::with_capacity(marked.len() / 3 + 2);
        let begins_with_bos = matches!(fragments.first(), Some(Fragment::Token(id)) if Some(*id) == self.bos);
        if self.add_bos && !begins_with_bos {
            out.extend(self.bos);
        }
        self.encode_fragments(marked, &fragments, rendered.mark(), &mut out);
        Ok(out)
    }

    /// `mark` is left out of what is encoded.
    fn encode_fragments(
        &self,
        text: &str,
        fragments: &[Fragment],
        mark: Option<char>,
        out: &mut Vec<TokenId>,
    ) {
        let mut after_special = true;
        for fragment in fragments {
            let range = match fragment {
                Fragment::Token(id) => {
                    out.push(*id);
                    after_special = true;
                    continue;
                }
                Fragment::Text(range) => range.clone(),
            };
            let part = &text[range];
            let unmarked = mark.filter(|&mark| part.contains(mark)).map(|mark| part.replace(mark, ""));
            let part = unmarked.as_deref().unwrap_or(part);
            if part.is_empty() {
                continue;
            }
            match &self.model {
                Algorithm::Bpe(bpe) => bpe.encode(&self.tokens, part, out),
                Algorithm::Spm(spm) => {
                    let prefix = if self.add_space_prefix && after_special { "▁" } else { "" };
                    let escaped = format!("{prefix}{}", part.replace(' ', "▁"));
                    spm.encode(&self.tokens, &escaped, out);
                }
            }
            after_special = false;
        }
    }

    /// The text of ids: what a detokenizer says of them at the start of a text.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        let mut stream = Utf8Stream::default();
        let mut after_special = true;
        let mut text = String::new();
        for &id in ids {
            text += &stream.push(undo_space_prefix(self, id, &mut after_special));
        }
        text + &stream.finish()
    }

    /// The raw bytes that a token stands for in output; empty for control tokens and ids outside the vocabulary.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.piece_ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.piece_ends[id - 1] };
        &self.pieces[start as usize..end as usize]
    }

    /// The token's text as it stands in the file; empty outside the vocabulary.
    pub fn token_text(&self, id: TokenId) -> &str {
        self.tokens.text(id)
    }

    /// The id of exactly this text.
    pub fn token_id(&self, text: &str) -> Option<TokenId> {
        self.tokens.id(text)
    }

    /// Whether the token steers the model and never comes from plain text.
    pub fn is_control(&self, id: TokenId) -> bool {
        matches!(self.tokens.kind(id), Kind::Control | Kind::Unknown)
    }

    /// Whether the token is cut out of every text before anything else.
    pub(super) fn is_special(&self, id: TokenId) -> bool {
        self.is_control(id) || self.tokens.kind(id) == Kind::UserDefined
    }

    /// Texts of control tokens, and of user-defined ones (`true`).
    pub(super) fn special_texts(&self) -> impl Iterator<Item = (&str, bool)> {
        self.tokens
            .iter()
            .filter(|&(_, _, kind)| matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined))
            .map(|(_, text, kind)| (text, kind == Kind::UserDefined))
    }

    /// Whether the model says with this token that it is done.
    pub fn is_end_of_generation(&self, id: TokenId) -> bool {
        self.tokens.ends().binary_search(&id).is_ok()
    }

    /// The token that begins a text, if there is one.
    pub fn bos(&self) -> Option<TokenId> {
        self.bos
    }

    /// The token that ends a text, if there is one.
    pub fn eos(&self) -> Option<TokenId> {
        self.eos
    }

    /// How many tokens there are.
    pub fn n_vocab(&self) -> usize {
        self.tokens.len()
    }

    /// Whether a blank is put before every text and every text behind a special token.
    pub(super) fn adds_space_prefix(&self) -> bool {
        self.add_space_prefix
    }

    /// One sentence for the log where the file leaves something to a guess.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

fn check_len(text: &str) -> Result<(), TextError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(TextError::TooLong { bytes: text.len(), limit: MAX_TEXT_BYTES });
    }
    Ok(())
}

/// Which special tokens take the blanks behind them with them. Files do not say it; it is known by the model's name.
fn right_strippers(gguf: &Gguf) -> impl Fn(&str) -> bool {
    let name = gguf.str("general.name").unwrap_or_default().to_lowercase();
    let is_phi3 = name.contains("phi-3") || name.contains("phi3");
    move |text| is_phi3 && !matches!(text, "<unk>" | "<s>" | "<|endoftext|>")
}

/// The bytes of every token in output, in a row.
fn pieces(tokens: &Tokens, is_raw: bool) -> (Vec<u8>, Vec<u32>) {
    let mut pieces = Vec::new();
    let mut ends = Vec::with_capacity(tokens.len());
    for (id, text, kind) in tokens.iter() {
        match kind {
            _ if tokens.is_hidden(id) => {}
            Kind::Byte => pieces.extend(byte_of(text)),
            Kind::Normal if is_raw => pieces.extend_from_slice(text.replace('▁', " ").as_bytes()),
            Kind::Normal => {
                for c in text.chars() {
                    match byte_level::byte_of(c) {
                        Some(byte) => pieces.push(byte),
                        None => pieces.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    }
                }
            }
            _ => pieces.extend_from_slice(text.as_bytes()),
        }
        ends.push(pieces.len() as u32);
    }
    (pieces, ends)
}

/// The byte of `<0x0A>`.
fn byte_of(text: &str) -> Option<u8> {
    u8::from_str_radix(text.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()
}
