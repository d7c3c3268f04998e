//! The table of tokens: their texts, what kind each is, and which ones steer the model.
//!
//! Kinds come from `tokenizer.ggml.token_type`, corrected where files are known to be wrong: a token whose text is a
//! well-known end marker is a control token whatever the file says.

use super::super::TextError;
use super::texts::Texts;
use crate::model::TokenId;
use crate::model::gguf::Gguf;

/// Most tokens in a vocabulary: four times the largest known one, and far below what would fill the memory.
pub const MAX_TOKENS: usize = 1 << 20;

/// What a token is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Text.
    Normal,
    /// Stands for what the vocabulary cannot say.
    Unknown,
    /// Steers the model; never made from plain text, never shown.
    Control,
    /// Cut out of every text before anything else; shown as it is written.
    UserDefined,
    /// Reserved.
    Unused,
    /// One byte, `<0x0A>`.
    Byte,
}

impl Kind {
    fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            6 => Self::Byte,
            _ => Self::Unused,
        }
    }
}

/// Texts that end a generation in some family of models, whatever the file says of them.
const END_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Texts of fill-in-the-middle padding, repository and file marks: a chat that meets one has ended.
const END_FIM_TEXTS: &[&str] = &[
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// Texts of the other fill-in-the-middle marks: control tokens that do not end anything.
const FIM_TEXTS: &[&str] = &[
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
];

/// Keys of ids that end a generation.
const END_KEYS: &[&str] = &[
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];

/// Marks of a message's parts: control tokens, yet a reader of the output needs to see them.
const SHOWN_CONTROL_TEXTS: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// The vocabulary, indexed by id and by text.
pub(super) struct Tokens {
    texts: Texts,
    kinds: Vec<Kind>,
    ends: Vec<TokenId>,
}

impl Tokens {
    pub(super) fn from_gguf(gguf: &Gguf) -> Result<Self, TextError> {
        let list = gguf
            .strings("tokenizer.ggml.tokens")
            .ok_or_else(|| malformed("tokenizer.ggml.tokens is missing or not a list of strings"))?;
        let n_tokens = list.len();
        if n_tokens == 0 || n_tokens > MAX_TOKENS {
            return Err(malformed(format!(
                "tokenizer.ggml.tokens has {n_tokens} tokens; the limit is {MAX_TOKENS}"
            )));
        }
        // Of two tokens with one text, the first is the one that texts become.
        let mut texts = Texts::with_capacity(n_tokens);
        for (id, text) in list.enumerate() {
            if text.is_empty() { texts.push(&format!("[EMPTY_{id}]")) } else { texts.push(text) }
        }
        let mut tokens = Self { kinds: kinds(gguf, n_tokens)?, texts, ends: Vec::new() };
        tokens.correct_kinds();
        tokens.find_ends(gguf);
        Ok(tokens)
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    pub(super) fn text(&self, id: TokenId) -> &str {
        self.texts.get(id)
    }

    pub(super) fn kind(&self, id: TokenId) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }

    /// The id of exactly this text, of whatever kind.
    pub(super) fn id(&self, text: &str) -> Option<TokenId> {
        self.texts.find(text)
    }

    /// The id that plain text may become: control, unknown and byte tokens are not made by spelling them out.
    pub(super) fn plain_id(&self, text: &str) -> Option<TokenId> {
        let id = self.id(text)?;
        self.is_plain(id).then_some(id)
    }

    pub(super) fn is_plain(&self, id: TokenId) -> bool {
        !matches!(self.kind(id), Kind::Control | Kind::Unknown | Kind::Byte)
    }

    /// The token of one byte, written `<0x0A>` or, in old files, as the byte itself.
    pub(super) fn byte_id(&self, byte: u8) -> Option<TokenId> {
        self.id(&format!("<0x{byte:02X}>")).or_else(|| {
            let byte = [byte];
            self.id(std::str::from_utf8(&byte).ok()?)
        })
    }

    /// Whether output leaves the token out.
    pub(super) fn is_hidden(&self, id: TokenId) -> bool {
        match self.kind(id) {
            Kind::Control => !SHOWN_CONTROL_TEXTS.contains(&self.text(id)),
            Kind::Unknown | Kind::Unused => true,
            Kind::Normal | Kind::UserDefined | Kind::Byte => false,
        }
    }

    /// Tokens that end a generation.
    pub(super) fn ends(&self) -> &[TokenId] {
        &self.ends
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TokenId, &str, Kind)> {
        self.texts.iter().zip(&self.kinds).enumerate().map(|(id, (text, kind))| (id as TokenId, text, *kind))
    }

    fn correct_kinds(&mut self) {
        for text in END_TEXTS.iter().chain(END_FIM_TEXTS).chain(FIM_TEXTS) {
            if let Some(id) = self.id(text) {
                self.kinds[id as usize] = Kind::Control;
            }
        }
        // This family has `</s>` as ordinary text beside its own end of turn.
        if self.id("<|tool_response>").is_some()
            && let Some(id) = self.id("</s>")
        {
            self.kinds[id as usize] = Kind::Normal;
        }
    }

    fn find_ends(&mut self, gguf: &Gguf) {
        let by_key = END_KEYS.iter().filter_map(|key| gguf.u32(key)).filter(|&id| (id as usize) < self.len());
        let by_text = END_TEXTS.iter().chain(END_FIM_TEXTS).filter_map(|text| self.id(text));
        let mut ends: Vec<TokenId> =
            by_key.chain(by_text).filter(|&id| self.kind(id) != Kind::Normal).collect();
        ends.extend(special_id(gguf, "eos", self));
        ends.sort_unstable();
        ends.dedup();
        // Where both of these end a whole answer, `<|end|>` only ends one part of it.
        let has = |text: &str| self.id(text).is_some();
        if has("<|return|>") && has("<|call|>") || has("<|flush|>") && has("<|calls|>") {
            ends.retain(|&id| self.text(id) != "<|end|>");
        }
        self.ends = ends;
    }
}

fn kinds(gguf: &Gguf, n_tokens: usize) -> Result<Vec<Kind>, TextError> {
    const KEY: &str = "tokenizer.ggml.token_type";
    if gguf.get(KEY).is_none() {
        return Ok(vec![Kind::Normal; n_tokens]);
    }
    let numbers = gguf.i32s(KEY).ok_or_else(|| malformed(format!("{KEY} is not a list of integers")))?;
    if numbers.len() < n_tokens {
        let n = numbers.len();
        return Err(malformed(format!("{KEY} has {n} entries for {n_tokens} tokens")));
    }
    Ok(numbers.into_iter().take(n_tokens).map(Kind::from_number).collect())
}

/// `tokenizer.ggml.{name}_token_id`, or what the kind of vocabulary has by default.
pub(super) fn special_id(gguf: &Gguf, name: &str, tokens: &Tokens) -> Option<TokenId> {
    let given = gguf.u32(&format!("tokenizer.ggml.{name}_token_id"));
    let default = || match (gguf.str("tokenizer.ggml.model").unwrap_or_default(), name) {
        ("llama", "bos") => Some(1),
        ("llama", "eos") => Some(2),
        ("llama", "unk") => Some(0),
        // The default of this kind of vocabulary is one family's end of text: taken only where it is a control token.
        ("gpt2", "bos" | "eos") => Some(11).filter(|&id| tokens.kind(id) == Kind::Control),
        _ => None,
    };
    given
        .filter(|&id| (id as usize) < tokens.len())
        .or_else(default)
        .filter(|&id| (id as usize) < tokens.len())
}

pub(super) fn malformed(problem: impl Into<String>) -> TextError {
    TextError::Malformed(problem.into())
}
