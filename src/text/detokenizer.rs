//! A stream of token ids becomes a stream of whole UTF-8.

use std::sync::Arc;

use super::Tokenizer;
use crate::model::TokenId;

/// Holds back bytes until they are whole characters.
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    stream: Utf8Stream,
    /// The next piece follows the start of the text or a special token.
    after_special: bool,
}

impl Detokenizer {
    /// A detokenizer at the start of an answer.
    pub fn new(tokenizer: &Arc<Tokenizer>) -> Self {
        Self { tokenizer: Arc::clone(tokenizer), stream: Utf8Stream::default(), after_special: true }
    }

    /// The text that became certain with this token; empty while a character is not whole, and for control tokens.
    pub fn push(&mut self, id: TokenId) -> String {
        self.stream.push(undo_space_prefix(&self.tokenizer, id, &mut self.after_special))
    }

    /// What is still held back, with U+FFFD for what never became a character.
    pub fn finish(self) -> String {
        self.stream.finish()
    }
}

/// The bytes of a token, without the blank that encoding puts before a text.
pub(super) fn undo_space_prefix<'t>(
    tokenizer: &'t Tokenizer,
    id: TokenId,
    after_special: &mut bool,
) -> &'t [u8] {
    let bytes = tokenizer.token_bytes(id);
    if tokenizer.is_special(id) {
        *after_special = true;
        return bytes;
    }
    let is_first = std::mem::take(after_special) && tokenizer.adds_space_prefix();
    if is_first { bytes.strip_prefix(b" ").unwrap_or(bytes) } else { bytes }
}

/// Bytes in, whole characters out.
#[derive(Default)]
pub(super) struct Utf8Stream {
    /// The beginning of a character: at most three bytes between calls.
    held: Vec<u8>,
}

impl Utf8Stream {
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        if self.held.is_empty()
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return text.to_owned();
        }
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let mut n_done = 0;
        for chunk in self.held.utf8_chunks() {
            text.push_str(chunk.valid());
            n_done += chunk.valid().len();
            let invalid = chunk.invalid();
            if invalid.is_empty() || is_beginning(invalid) && n_done + invalid.len() == self.held.len() {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            n_done += invalid.len();
        }
        self.held.drain(..n_done);
        text
    }

    pub(super) fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

/// Whether more bytes could make a character of these.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(parts: &[&[u8]]) -> Vec<String> {
        let mut stream = Utf8Stream::default();
        let mut out: Vec<String> = parts.iter().map(|part| stream.push(part)).collect();
        out.push(stream.finish());
        out
    }

    #[test]
    fn a_character_comes_out_whole() {
        let cat = "🐱".as_bytes();
        assert_eq!(stream(&[b"a", &cat[..1], &cat[1..3], &cat[3..], b"b"]), ["a", "", "", "🐱", "b", ""]);
        assert_eq!(stream(&[&[&cat[2..], b"x"].concat()]), ["\u{FFFD}\u{FFFD}x", ""]);
    }

    #[test]
    fn broken_bytes_are_replaced_once_it_is_certain() {
        assert_eq!(stream(&[&[0xE4], &[0xBD], b"!"]), ["", "", "\u{FFFD}!", ""]);
        assert_eq!(stream(&[&[0xFF, b'a', 0xE4]]), ["\u{FFFD}a", "\u{FFFD}"]);
        assert_eq!(stream(&[&[0xF0, 0x9F]]), ["", "\u{FFFD}"]);
    }

    #[test]
    fn cutting_anywhere_changes_nothing() {
        let bytes: Vec<u8> =
            "é日🐱".bytes().chain([0xC3, b'(', 0xF0, 0x28, 0x8C, 0x28, 0xED, 0xA0, 0x80]).collect();
        let whole = String::from_utf8_lossy(&bytes);
        for cut in 0..=bytes.len() {
            assert_eq!(stream(&[&bytes[..cut], &bytes[cut..]]).concat(), whole, "cut at {cut}");
        }
    }
}
