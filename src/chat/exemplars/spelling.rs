//! Words as they are meant: `tset` is `test`, `gonna` is `going to`.
//!
//! Only a word that nobody wrote anywhere in the collection is taken for a slip, and only for a common word one slip away.

use std::collections::HashMap;
use std::sync::OnceLock;

/// `as it is struck TAB as it is meant`, for what no rule finds.
const SPELLINGS: &str = include_str!("../../../assets/spellings.tsv");
/// Shorter words have too many neighbours.
const MIN_CHARS: usize = 4;
/// A word that occurs so often is common.
const COMMON_FROM: u32 = 12;
/// So many words of a message are looked at: the rest of a very long one is not worth the time.
const MAX_LOOKED_UP: usize = 60;

/// How often each word occurs in what was written.
pub(super) struct Known {
    all: HashMap<String, u32>,
    /// How often with a small first letter.
    small: HashMap<String, u32>,
}

impl Known {
    /// Counts the words of some texts.
    pub(super) fn new(texts: &[&str]) -> Self {
        let (mut all, mut small) = (HashMap::new(), HashMap::new());
        for text in texts {
            for word in text.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|w| !w.is_empty()) {
                let plain = word.to_lowercase().replace('\'', "");
                if word.starts_with(char::is_lowercase) {
                    *small.entry(plain.clone()).or_default() += 1;
                }
                *all.entry(plain).or_default() += 1;
            }
        }
        Self { all, small }
    }

    /// Whether a word is mostly written small: no name.
    pub(super) fn is_small(&self, word: &str) -> bool {
        let of = |counts: &HashMap<String, u32>| counts.get(word).copied().unwrap_or(0);
        3 * of(&self.small) > of(&self.all)
    }

    /// The message with its slips mended; punctuation and known words stay as they are.
    pub(super) fn mended(&self, message: &str) -> String {
        let mut n_looked_up = 0;
        let mend = |chunk: &str| {
            let inner = chunk.trim_matches(|c: char| !c.is_alphanumeric());
            let plain = inner.to_lowercase().replace(['\'', '’'], "");
            if plain.is_empty() {
                return chunk.to_owned();
            }
            if let Some(meant) = spelt().get(plain.as_str()) {
                return chunk.replacen(inner, meant, 1);
            }
            let is_known = |word: &String| self.all.contains_key(word) || spelt().contains_key(word.as_str());
            if let Some(short) = [1, 2].map(|most| shortened(&plain, most)).into_iter().find(is_known)
                && is_drawn_out(&plain)
            {
                return chunk.replacen(inner, spelt().get(short.as_str()).unwrap_or(&short.as_str()), 1);
            }
            let is_word = plain.len() >= MIN_CHARS && plain.chars().all(|c| c.is_ascii_lowercase());
            if !is_word || self.all.contains_key(&plain) || n_looked_up == MAX_LOOKED_UP {
                return chunk.to_owned();
            }
            n_looked_up += 1;
            self.nearest(&plain).map_or_else(|| chunk.to_owned(), |meant| chunk.replacen(inner, meant, 1))
        };
        message.split_whitespace().map(mend).collect::<Vec<String>>().join(" ")
    }

    /// Whether somebody wrote the word somewhere.
    pub(super) fn has(&self, word: &str) -> bool {
        self.all.contains_key(word)
    }

    /// The commonest common word one slip away. Letters that changed places go before letters that are too many or too
    /// few, and those before wrong ones; the first letter is right.
    fn nearest(&self, word: &str) -> Option<&str> {
        let near = self.all.iter().filter(|(_, n)| **n >= COMMON_FROM).filter_map(|(known, n)| {
            let slip = slip(word.as_bytes(), known.as_bytes())?;
            Some((slip, std::cmp::Reverse(*n), known.as_str()))
        });
        near.min().map(|(.., known)| known)
    }
}

/// The message with only those words mended that have one sure meaning: what is said back must not be guessed.
pub(super) fn surely_mended(message: &str) -> String {
    let mend = |chunk: &str| {
        let inner = chunk.trim_matches(|c: char| !c.is_alphanumeric());
        let plain = inner.to_lowercase().replace(['\'', '’'], "");
        spelt().get(plain.as_str()).map_or_else(|| chunk.to_owned(), |meant| chunk.replacen(inner, meant, 1))
    };
    message.split_whitespace().map(mend).collect::<Vec<String>>().join(" ")
}

/// `soooo`, `heyyy`.
fn is_drawn_out(word: &str) -> bool {
    let chars: Vec<char> = word.chars().collect();
    chars.windows(3).any(|w| w[0] == w[1] && w[1] == w[2] && w[0].is_alphabetic())
}

/// The word with at most so many of the same letter side by side.
fn shortened(word: &str, most: usize) -> String {
    let mut out: Vec<char> = Vec::new();
    for c in word.chars() {
        if out.len() < most || out[out.len() - most..].iter().any(|before| *before != c) {
            out.push(c);
        }
    }
    out.into_iter().collect()
}

/// What kind of slip turns `meant` into `word`, the likelier the smaller; `None` if it takes more than one.
fn slip(word: &[u8], meant: &[u8]) -> Option<u8> {
    if word.len().abs_diff(meant.len()) > 1 || word.first() != meant.first() {
        return None;
    }
    let same = word.iter().zip(meant).take_while(|(a, b)| a == b).count();
    let (rest, wanted) = (&word[same..], &meant[same..]);
    match (rest, wanted) {
        ([a, b, rest @ ..], [c, d, wanted @ ..]) if a == d && b == c && rest == wanted => Some(0),
        (rest, [_, wanted @ ..]) if rest == wanted => Some(1),
        ([_, rest @ ..], wanted) if rest == wanted => Some(1),
        ([_, rest @ ..], [_, wanted @ ..]) if rest == wanted => Some(2),
        _ => None,
    }
}

fn spelt() -> &'static HashMap<&'static str, &'static str> {
    static SPELT: OnceLock<HashMap<&'static str, &'static str>> = OnceLock::new();
    SPELT.get_or_init(|| SPELLINGS.lines().filter_map(|line| line.split_once('\t')).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_mended_and_words_left_alone() {
        let written = "my friend has a test tomorrow and a dog. ".repeat(20) + "The viola and the goat.";
        let known = Known::new(&[&written]);
        for (struck, meant) in [
            ("my freind has a tets", "my friend has a test"),
            ("My frend!", "My friend!"),
            ("my viola", "my viola"),
            ("a goat", "a goat"),
            ("im gonna go", "im going to go"),
            ("zebra xylophone qwertz", "zebra xylophone qwertz"),
            ("tomorow, ok?", "tomorrow, ok?"),
            ("😀 ...", "😀 ..."),
            ("the dooog is aaaa goat", "the dog is a goat"),
            ("a tesssst", "a test"),
            ("the goat 1000", "the goat 1000"),
        ] {
            assert_eq!(known.mended(struck), meant);
        }
    }

    #[test]
    fn a_slip_is_one_letter() {
        assert_eq!(slip(b"freind", b"friend"), Some(0));
        assert_eq!(slip(b"frend", b"friend"), Some(1));
        assert_eq!(slip(b"friiend", b"friend"), Some(1));
        assert_eq!(slip(b"friand", b"friend"), Some(2));
        assert_eq!(slip(b"frnd", b"friend"), None);
        assert_eq!(slip(b"trust", b"rust"), None);
    }
}
