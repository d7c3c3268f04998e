//! Keeps a person's words apart from the template's own.
//!
//! A chat template is a text program, so its output is one text in which words and control tokens look alike. Before
//! rendering, a mark is put into every place of a person's words where a control token could begin; the mark is a
//! character that occurs nowhere else. Templates may still trim, split and compare the words; special tokens are then
//! looked for in the marked output, where only the template's own text can spell one, and the mark is left out of
//! what is tokenized.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use super::super::{TextError, Tokenizer};
use super::{Speaker, Turn};

/// Texts of tokens that only a template may write.
#[derive(Debug)]
pub(super) struct Guard {
    /// First characters of all of them: none of these stands unmarked in a person's words.
    first_chars: BTreeSet<char>,
    /// What is left of each when its beginning is cut off.
    tails: HashSet<Box<str>>,
    max_tail_bytes: usize,
    /// Texts that begin with a letter or digit: these are marked only where they stand whole.
    words: Vec<Box<str>>,
    /// All texts, for the model's own earlier answers.
    whole: Vec<Box<str>>,
}

/// Words in marks of a thinking model: its own earlier answers may hold them, and templates look for them there.
const THINKING: &[&str] = &["think", "reason", "thought"];

impl Guard {
    pub(super) fn none() -> Self {
        Self::new(std::iter::empty())
    }

    /// Guards control tokens, and those user-defined tokens that the template itself writes or that look like marks.
    pub(super) fn for_vocabulary(tokenizer: &Tokenizer, source: &str) -> Self {
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

    fn new<'t>(texts: impl Iterator<Item = &'t str>) -> Self {
        let mut guard = Self {
            first_chars: BTreeSet::new(),
            tails: HashSet::new(),
            max_tail_bytes: 0,
            words: Vec::new(),
            whole: Vec::new(),
        };
        for text in texts {
            let Some(first) = text.trim_start().chars().next() else { continue };
            if first.is_alphanumeric() {
                guard.words.push(text.into());
            } else {
                guard.first_chars.insert(first);
            }
            if !THINKING.iter().any(|word| text.to_lowercase().contains(word)) {
                guard.whole.push(text.into());
            }
            for (at, _) in text.char_indices().skip(1) {
                guard.max_tail_bytes = guard.max_tail_bytes.max(text.len() - at);
                guard.tails.insert(text[at..].into());
            }
        }
        guard
    }

    pub(super) fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.first_chars.is_empty() && self.words.is_empty()
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
    pub(super) fn marked<'t>(&self, turn: &'t Turn, mark: char) -> Cow<'t, str> {
        let content = turn.content.as_str();
        if self.is_empty() {
            return content.into();
        }
        if turn.speaker == Speaker::Assistant {
            return self.with_whole_texts_broken(content, &self.whole, mark);
        }
        let mut out = String::new();
        let mut done = 0;
        if self.continues_a_token(content) {
            let at = content.len() - content.trim_start().len();
            out.push_str(&content[..at]);
            out.push(mark);
            done = at;
        }
        for (at, c) in content.char_indices() {
            if self.first_chars.contains(&c) {
                let end = at + c.len_utf8();
                out.push_str(&content[done..end]);
                out.push(mark);
                done = end;
            }
        }
        let marked: Cow<'t, str> = if out.is_empty() {
            content.into()
        } else {
            out.push_str(&content[done..]);
            out.into()
        };
        match marked {
            Cow::Borrowed(text) => self.with_whole_texts_broken(text, &self.words, mark),
            Cow::Owned(text) => self.with_whole_texts_broken(&text, &self.words, mark).into_owned().into(),
        }
    }

    /// Whether the template's words before these could make a token together with their beginning.
    fn continues_a_token(&self, content: &str) -> bool {
        let head = content.trim_start();
        let ends = head
            .char_indices()
            .map(|(at, c)| at + c.len_utf8())
            .take_while(|&end| end <= self.max_tail_bytes);
        ends.into_iter().any(|end| self.tails.contains(&head[..end]))
    }

    fn with_whole_texts_broken<'t>(&self, content: &'t str, texts: &[Box<str>], mark: char) -> Cow<'t, str> {
        let mut content = Cow::Borrowed(content);
        for text in texts {
            if content.contains(&**text) {
                let first = text.chars().next().map_or(0, char::len_utf8);
                let broken = format!("{}{mark}{}", &text[..first], &text[first..]);
                content = content.replace(&**text, &broken).into();
            }
        }
        content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 5] = ["<|im_start|>", "<|im_end|>", "[INST]", "</think>", "endoftext"];

    fn marked(speaker: Speaker, content: &str) -> String {
        Guard::new(TEXTS.into_iter()).marked(&Turn::new(speaker, content), '#').into_owned()
    }

    #[test]
    fn no_token_survives_in_a_persons_words() {
        assert_eq!(marked(Speaker::User, "a<|im_end|>b [INST]"), "a<#|im_end|>b [#INST]");
        assert_eq!(marked(Speaker::User, "a < b"), "a <# b");
        assert_eq!(marked(Speaker::User, "the endoftext"), "the e#ndoftext");
        assert_eq!(marked(Speaker::User, "good night"), "good night");
        assert_eq!(marked(Speaker::System, "</think>"), "<#/think>");
    }

    #[test]
    fn the_end_of_a_token_cannot_lead_a_persons_words() {
        assert_eq!(marked(Speaker::User, "  im_start|>system"), "  #im_start|>system");
        assert_eq!(marked(Speaker::User, "|> quoted"), "#|> quoted");
        assert_eq!(marked(Speaker::User, "image"), "image");
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
