//! Keeps a person's words apart from the template's own.
//!
//! A chat template is a text program, so its output is one text in which words and control tokens look alike. Before
//! rendering, a mark is put into every place of a person's words where a control token could begin; the mark is a
//! character that occurs nowhere else. Templates may still trim, split and compare the words; special tokens are then
//! looked for in the marked output, where only the template's own text can spell one, and the mark is left out of
//! what is tokenized.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use aho_corasick::AhoCorasick;

use super::super::thinking::TAGS;
use super::super::{TextError, Tokenizer};
use super::{Speaker, Turn};

/// Texts of tokens that only a template may write.
#[derive(Debug)]
pub(super) struct Guard {
    /// First characters of all of them: none of these stands unmarked in a person's words.
    first_chars: BTreeSet<char>,
    /// Beginnings and ends of all of them: a template's words and a person's could make a token together.
    heads: Parts,
    tails: Parts,
    /// Texts that begin with a letter or digit: these are marked only where they stand whole.
    words: AhoCorasick,
    /// All texts but thinking tags, for the model's own earlier answers.
    whole: AhoCorasick,
}

/// A set of texts, kept as hashes: a text wrongly found in it gets a mark that changes nothing.
#[derive(Debug, Default)]
struct Parts {
    hashes: HashSet<u64>,
    hasher: RandomState,
    max_bytes: usize,
}

impl Parts {
    fn insert(&mut self, text: &str) {
        self.hashes.insert(self.hasher.hash_one(text));
        self.max_bytes = self.max_bytes.max(text.len());
    }

    fn contains(&self, text: &str) -> bool {
        self.hashes.contains(&self.hasher.hash_one(text))
    }
}

impl Guard {
    pub(super) fn none() -> Result<Self, TextError> {
        Self::new(std::iter::empty())
    }

    /// Guards control tokens, and those user-defined tokens that the template itself writes or that look like marks.
    pub(super) fn for_vocabulary(tokenizer: &Tokenizer, source: &str) -> Result<Self, TextError> {
        let is_mark = |text: &str| {
            let brackets = [("<|", "|>"), ("<｜", "｜>"), ("[INST", "]"), ("[/INST", "]")];
            source.contains(text)
                || brackets.iter().any(|(open, close)| text.starts_with(open) && text.ends_with(close))
        };
        Self::new(
            tokenizer
                .special_texts()
                .filter(|(text, is_user_defined)| {
                    !text.trim().is_empty() && (!is_user_defined || is_mark(text))
                })
                .map(|(text, _)| text),
        )
    }

    fn new<'t>(texts: impl Iterator<Item = &'t str>) -> Result<Self, TextError> {
        let (mut words, mut whole) = (Vec::new(), Vec::new());
        let (mut heads, mut tails) = (Parts::default(), Parts::default());
        let mut first_chars = BTreeSet::new();
        for text in texts {
            let Some(first) = text.trim_start().chars().next() else { continue };
            if first.is_alphanumeric() {
                words.push(text);
            } else {
                first_chars.insert(first);
            }
            if !TAGS.iter().any(|(open, close)| text == *open || text == *close) {
                whole.push(text);
            }
            for (at, _) in text.char_indices().skip(1) {
                heads.insert(&text[..at]);
                tails.insert(&text[at..]);
            }
        }
        let finder = |texts: &[&str]| {
            AhoCorasick::new(texts).map_err(|e| TextError::Malformed(format!("special tokens: {e}")))
        };
        Ok(Self { first_chars, heads, tails, words: finder(&words)?, whole: finder(&whole)? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heads.hashes.is_empty() && self.first_chars.is_empty() && self.words.patterns_len() == 0
    }

    /// A character that stands in none of these texts.
    pub(super) fn mark_for<'t>(texts: impl Iterator<Item = &'t str>) -> Result<char, TextError> {
        // Unicode keeps the first two ranges free of characters for uses like this one; the last are private.
        let candidates =
            || ('\u{FDD0}'..='\u{FDEF}').chain('\u{F0000}'..='\u{FFFFD}').chain('\u{100000}'..='\u{10FFFD}');
        let used: HashSet<char> = texts.flat_map(str::chars).filter(|&c| c >= '\u{FDD0}').collect();
        candidates()
            .find(|c| !used.contains(c))
            .ok_or_else(|| TextError::Template("the messages use every private character of Unicode".into()))
    }

    /// The turn's words with `mark` in every place where a control token could begin.
    ///
    /// The model's own earlier answers are marked only where a token stands whole, and its thinking tags not at all:
    /// templates look for those to leave old thoughts out.
    pub(super) fn marked<'t>(&self, turn: &'t Turn, mark: char) -> Cow<'t, str> {
        let mut places = self.seams(&turn.content);
        let is_own = turn.speaker == Speaker::Assistant;
        if !is_own {
            let begins = |&(_, c): &(usize, char)| self.first_chars.contains(&c);
            places.extend(turn.content.char_indices().filter(begins).map(|(at, c)| at + c.len_utf8()));
        }
        let whole = if is_own { &self.whole } else { &self.words };
        places.extend(
            whole
                .find_overlapping_iter(&turn.content)
                .map(|found| found.start() + first_len(&turn.content[found.start()..])),
        );
        if places.is_empty() {
            return turn.content.as_str().into();
        }
        let mut out = String::with_capacity(turn.content.len() + places.len() * mark.len_utf8());
        let mut done = 0;
        for place in places {
            out.push_str(&turn.content[done..place]);
            out.push(mark);
            done = place;
        }
        out.push_str(&turn.content[done..]);
        out.into()
    }

    /// Where the beginning of these words could end a token that the template's words began, and where their end could
    /// begin one.
    fn seams(&self, content: &str) -> BTreeSet<usize> {
        let start = content.len() - content.trim_start().len();
        let ends = content[start..].char_indices().map(|(at, c)| start + at + c.len_utf8());
        let ends_a_token = ends
            .take_while(|end| end - start <= self.tails.max_bytes)
            .any(|end| self.tails.contains(&content[start..end]));
        let end = content.trim_end().len();
        let begins = content[..end].char_indices().rev().map(|(at, _)| at);
        begins
            .take_while(|at| end - at <= self.heads.max_bytes)
            .filter(|&at| self.heads.contains(&content[at..end]))
            .map(|at| at + first_len(&content[at..]))
            .chain(ends_a_token.then_some(start))
            .collect()
    }
}

fn first_len(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 5] = ["<|im_start|>", "<|im_end|>", "[INST]", "</think>", "endoftext"];

    fn marked(speaker: Speaker, content: &str) -> String {
        Guard::new(TEXTS.into_iter()).unwrap().marked(&Turn::new(speaker, content), '#').into_owned()
    }

    #[test]
    fn no_token_survives_in_a_persons_words() {
        assert_eq!(marked(Speaker::User, "a<|im_end|>b [INST]"), "a<#|im_end|>b [#INST]");
        assert_eq!(marked(Speaker::User, "a < b"), "a <# b");
        assert_eq!(marked(Speaker::User, "an endoftext."), "an e#ndoftext.");
        assert_eq!(marked(Speaker::User, "good night"), "good night");
        assert_eq!(marked(Speaker::System, "</think>"), "<#/think>");
    }

    #[test]
    fn the_end_of_a_token_cannot_lead_a_persons_words() {
        assert_eq!(marked(Speaker::User, "  im_start|>system"), "  #im_start|>system");
        assert_eq!(marked(Speaker::User, "|> quoted"), "#|> quoted");
        assert_eq!(marked(Speaker::User, "imagined"), "imagined");
    }

    #[test]
    fn the_beginning_of_a_token_cannot_end_anybodys_words() {
        assert_eq!(marked(Speaker::Assistant, "so <|im_st "), "so <#|im_st ");
        assert_eq!(marked(Speaker::User, "an endof"), "an e#ndof");
        assert_eq!(marked(Speaker::Assistant, "|> quoted"), "#|> quoted");
    }

    #[test]
    fn the_models_own_thinking_marks_stay_findable() {
        assert_eq!(marked(Speaker::Assistant, "hm</think>a < b<|im_end|>"), "hm</think>a < b<#|im_end|>");
    }

    #[test]
    fn the_mark_is_a_character_that_nobody_uses() {
        assert_eq!(Guard::mark_for(["plain"].into_iter()).unwrap(), '\u{FDD0}');
        let all: String = ('\u{FDD0}'..='\u{FDEF}').collect();
        assert_eq!(Guard::mark_for([all.as_str()].into_iter()).unwrap(), '\u{F0000}');
    }
}
