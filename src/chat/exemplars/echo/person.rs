//! What somebody says of themselves, said to them: "I lost my keys" becomes "you lost your keys".

use super::grammar::{is_adverb, is_verb, subject_for};
use super::sentences::{PARENTS, Sentence, Word};
use crate::chat::memory::{MONTHS, WEEKDAYS};

/// A sentence with more words is not given back whole.
const MAX_WORDS: usize = 20;
/// Relatives who are somebody's own without a "my": "mum said no".
const KIN: [&str; 26] = [
    "mum", "mom", "mommy", "mummy", "mama", "mam", "dad", "daddy", "papa", "grandma", "grandpa", "granddad",
    "grandad", "nan", "nana", "nanna", "granny", "gran", "mums", "moms", "dads", "grandmas", "nans",
    "grandads", "grandpas", "mother",
];
/// Before a relative they say that somebody's is meant already.
const BEFORE_KIN: [&str; 35] = [
    "okayest",
    "greatest",
    "worst",
    "my",
    "your",
    "his",
    "her",
    "their",
    "our",
    "a",
    "the",
    "an",
    "single",
    "working",
    "new",
    "bad",
    "good",
    "best",
    "one",
    "first",
    "step",
    "stay-at-home",
    "home",
    "old",
    "every",
    "any",
    "no",
    "late",
    "great",
    "own",
    "other",
    "real",
    "young",
    "terrible",
    "as",
];
/// What is not said back, as it is meant for the parent or for nobody.
const TO_PARENT: [&str; 10] =
    ["you", "your", "youre", "yours", "yourself", "youve", "youll", "youd", "ya", "yall"];
/// Words with a capital letter, which few type, beside days and months.
const NAMED: [&str; 23] = [
    "christmas",
    "easter",
    "halloween",
    "english",
    "french",
    "german",
    "spanish",
    "italian",
    "latin",
    "london",
    "america",
    "australia",
    "canada",
    "spain",
    "france",
    "germany",
    "japan",
    "instagram",
    "tiktok",
    "minecraft",
    "roblox",
    "xmas",
    "disneyland",
];
/// Months that are common words, too.
const NO_MONTHS: [&str; 2] = ["march", "may"];
/// Words that a sentence may end before, when it is too long.
const BREAKS: [&str; 12] =
    ["and", "but", "because", "so", "when", "while", "since", "which", "who", "although", "until", "or"];

/// A sentence as it is said back, without its end mark and with the first letter small.
pub(super) fn second(sentence: &Sentence) -> Option<String> {
    // "losted" is no word to repeat.
    let is_no_form = |w: &Word| w.low.ends_with("ed") && !super::super::is_known_word(&w.low);
    if sentence.is_odd || sentence.asks || sentence.words.iter().any(is_no_form) {
        return None;
    }
    let mut words: &[Word] = &sentence.words;
    if words.len() > MAX_WORDS {
        let is_break =
            |i: &usize| *i > 3 && (BREAKS.contains(&words[*i].low.as_str()) || words[*i - 1].has_comma);
        let end = (0..=MAX_WORDS - 2).rev().find(is_break)?;
        words = &words[..end];
    }
    let before = subject_for(words)?;
    let said = turned(words, !before.is_empty())?;
    let before = before.to_lowercase();
    Some(if before.is_empty() { said } else { format!("{before} {said}") })
}

/// The words in the second person. `None` if some are said to the parent.
pub(super) fn turned(words: &[Word], mut is_own: bool) -> Option<String> {
    if words.is_empty() || words.iter().any(|w| TO_PARENT.contains(&w.low.as_str())) {
        return None;
    }
    let mut out: Vec<String> = Vec::new();
    let words = &own_last(words);
    for (i, word) in words.iter().enumerate() {
        let low = |at: Option<usize>| at.and_then(|at| words.get(at)).map_or("", |w| w.low.as_str());
        let (before, next) = (low(i.checked_sub(1)), low(Some(i + 1)));
        // Whose verb it is: "I really was", "I went out and was late".
        let start = (0..i).rev().find(|&j| !is_adverb(&words[j].low)).map_or("", |j| words[j].low.as_str());
        let is_mine = matches!(start, "i" | "we")
            || is_own && matches!(start, "and" | "but" | "or" | "")
            || next == "i";
        let mut text = match word.low.as_str() {
            "i" | "we" | "me" | "us" if word.text != "US" => "you".to_owned(),
            "im" => "you're".to_owned(),
            "ive" | "weve" => "you've".to_owned(),
            "id" => "you'd".to_owned(),
            "were" if word.text.contains('\'') => "you're".to_owned(),
            "well" | "ill" if word.text.contains('\'') => "you'll".to_owned(),
            "my" | "our" => "your".to_owned(),
            "mine" | "ours" => "yours".to_owned(),
            "myself" => "yourself".to_owned(),
            "ourselves" => "yourselves".to_owned(),
            "am" if !before.ends_with(|c: char| c.is_ascii_digit()) => "are".to_owned(),
            "was" if is_mine => "were".to_owned(),
            "wasnt" if is_mine => "weren't".to_owned(),
            "its"
                if !word.text.contains('\'')
                    && (i == 0
                        || [
                            "and", "but", "because", "so", "now", "that", "if", "when", "think", "since",
                        ]
                        .contains(&before)) =>
            {
                "it's".to_owned()
            }
            low if KIN.contains(&low) => kin(low, word, before, next),
            low if is_name(low, before) => capital(&word.text),
            _ if i == 0 && !is_proper(word) => word.text.to_lowercase(),
            _ => word.text.clone(),
        };
        match word.low.as_str() {
            "i" | "im" | "ive" | "id" | "ill" | "we" | "weve" => is_own = true,
            "he" | "she" | "they" | "it" | "that" | "who" | "hes" | "shes" | "theyre" | "its" => {
                is_own = false;
            }
            _ => {}
        }
        if word.has_comma && i + 1 < words.len() {
            text.push(',');
        }
        out.push(text);
    }
    Some(out.join(" "))
}

/// "My sister and I" as "I and my sister": the one spoken to comes first.
fn own_last(words: &[Word]) -> Vec<Word> {
    let and = words.iter().take(5).position(|w| w.low == "and");
    let is_pair = |at: usize| {
        at > 0
            && words[0].low == "my"
            && !words[..at].iter().any(|w| is_verb(&w.low))
            && words.get(at + 1).is_some_and(|w| w.low == "i" || w.low == "me")
            && words.get(at + 2).is_some_and(|w| w.low != "was" && w.low != "am")
    };
    match and {
        Some(at) if is_pair(at) => {
            let mut out = vec![words[at + 1].clone(), words[at].clone()];
            out.extend_from_slice(&words[..at]);
            out.extend_from_slice(&words[at + 2..]);
            out
        }
        _ => words.to_vec(),
    }
}

/// `mum`, `grandpa`: somebody's own relative without a "my".
pub(super) fn is_kin(low: &str) -> bool {
    KIN.contains(&low)
}

fn kin(low: &str, word: &Word, before: &str, next: &str) -> String {
    let is_plural = low.ends_with('s') && low != "mums";
    let is_owner = low.ends_with('s')
        && !next.is_empty()
        && !["and", "are", "were", "have", "both", "always", "never"].contains(&next);
    let text = match () {
        () if word.text.contains('\'') => word.text.to_lowercase(),
        () if (is_plural || low == "mums") && is_owner => format!("{}'s", &low[..low.len() - 1]),
        () => low.to_owned(),
    };
    let is_said =
        BEFORE_KIN.contains(&before) || before.ends_with('s') && before.len() > 4 || before.ends_with("'s");
    // "my mum and dad"
    let is_joined = before == "and";
    // "he said mummy for the first time"
    let is_word = ["said", "saying"].contains(&before) && next == "for";
    if is_said || is_joined || is_word || low.ends_with('s') && !is_owner && !word.text.contains('\'') {
        text
    } else {
        format!("your {text}")
    }
}

fn is_name(low: &str, before: &str) -> bool {
    let is_given = ["called", "named"].contains(&before)
        && low.len() > 2
        && ![
            "me", "after", "him", "her", "them", "the", "off", "out", "back", "our", "names", "for", "and",
            "today", "last",
        ]
        .contains(&low)
        && !PARENTS.contains(&low)
        && low.chars().all(char::is_alphabetic);
    let is_month = MONTHS.contains(&low) && !NO_MONTHS.contains(&low);
    NAMED.contains(&low)
        || WEEKDAYS.contains(&low)
        || is_month
        || is_given && before == "named"
        || is_given && low.ends_with(['y', 'o', 'a', 'x']) && low.len() < 8
}

/// Whether the capital letter at the beginning belongs to the word itself.
fn is_proper(word: &Word) -> bool {
    let rest = word.text.chars().skip(1).any(char::is_uppercase);
    let is_word = super::super::is_known_small(&word.low);
    rest || word.text.starts_with(char::is_uppercase) && !is_word
}

/// With a large first letter.
pub(super) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}
