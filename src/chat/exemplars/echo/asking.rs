//! Questions about somebody's own affairs: whether to, how to, why, what if. The matter is named in the person's own
//! words, with what little a small program can honestly add.

use super::person::{capital, turned};
use super::sentences::{Sentence, Word};

/// A longer matter is not given back.
const MAX_WORDS: usize = 15;
/// How a question for a way of saying something begins.
const TALK: [&str; 13] = [
    "bring",
    "tell",
    "ask",
    "say",
    "talk",
    "apologise",
    "apologize",
    "explain",
    "invite",
    "admit",
    "write",
    "speak",
    "confess",
];
/// And one for a way of bearing something.
const COPE: [&str; 22] = [
    "get", "stop", "deal", "cope", "forget", "move", "let", "calm", "feel", "handle", "be", "survive",
    "stay", "not", "forgive", "trust", "accept", "live", "believe", "love", "face", "fall",
];
/// What goes with `get` where that is no bearing.
const GETTING_THINGS: [&str; 8] = ["out", "rid", "a", "an", "the", "better", "my", "good"];
/// What cannot be left out of a matter, and cannot stand at its end.
const OPEN_ENDS: [&str; 10] = ["and", "or", "but", "the", "a", "to", "of", "with", "my", "because"];

/// A question, the part of the written sentences that is for it, and the matter to begin with.
pub(super) struct Asked {
    pub(super) kind: &'static str,
    pub(super) matter: Option<String>,
    /// Which sentence of the message it is.
    pub(super) at: usize,
}

/// The first sentence of a message that asks about somebody's own affairs.
pub(super) fn asked(sentences: &[Sentence]) -> Option<Asked> {
    sentences.iter().enumerate().find_map(|(at, s)| {
        let words: &[Word] = &s.words;
        let low: Vec<&str> = words.iter().map(|w| w.low.as_str()).collect();
        let (kind, matter) = form(&low, words, s)?;
        Some(Asked { kind, matter, at })
    })
}

fn form(low: &[&str], words: &[Word], sentence: &Sentence) -> Option<(&'static str, Option<String>)> {
    if sentence.is_odd {
        return None;
    }
    let rest = |n: usize| words.get(n..).filter(|r| !r.is_empty() && r.len() <= MAX_WORDS).and_then(matter);
    let with = |before: &str, n: usize, after: &str| Some(format!("{before} {}{after}", rest(n)?));
    match low {
        ["should" | "shall", "i" | "we", ..] => Some(("decide", with("You're wondering whether to", 2, "."))),
        ["do", "you", "think", "i" | "we", "should", ..] => {
            Some(("decide", with("You're wondering whether to", 5, ".")))
        }
        ["what", "should" | "can" | "could" | "do" | "shall", "i" | "we", "do", "about", ..] => {
            Some(("whatdo", with("You're wondering what to do about", 5, ".")))
        }
        ["what", "should" | "can" | "could" | "do" | "shall", "i" | "we", "do", ..] => Some(("whatdo", None)),
        ["what", "should" | "can" | "could" | "do" | "shall", "i" | "we", "say", "to", ..] => {
            Some(("say", with("You're wondering what to say to", 5, ".")))
        }
        ["what", "should" | "can" | "could" | "shall", "i" | "we", ..] => {
            Some(("whatto", with("You're wondering what to", 3, ".")))
        }
        ["why", "do", "i" | "we" | "you", "have", "to", ..] => {
            Some(("haveto", with("Having to", 5, " is no fun, I can see that.")))
        }
        ["why", "am", "i", ..] => Some(("why", with("You're wondering why you're", 3, "."))),
        ["why", "do" | "did" | "cant" | "dont", "i" | "we", ..] => {
            let verb = if low[1] == "do" { "" } else { &words[1].text.to_lowercase() };
            Some((
                "why",
                with(format!("You're wondering why you {verb}").trim_end(), 3, ".")
                    .filter(|_| low[1] != "did"),
            ))
        }
        ["how", "do" | "can" | "could" | "should" | "would" | "did", "i" | "we", verb, ..] => {
            let kind = way(verb, low.get(4).copied(), low);
            Some((kind, with("You're wondering how to", 3, ".")))
        }
        ["how", "to", verb, ..] => {
            Some((way(verb, low.get(3).copied(), low), with("You're wondering how to", 2, ".")))
        }
        ["is", "it", how, "that" | "to" | "if" | "when", ..] if sentence.asks || low.len() > 4 => {
            Some(("normal", with(&format!("You're wondering if it's {how} {}", low[3]), 4, ".")))
        }
        ["is", "that" | "this" | "it", "normal" | "ok" | "okay" | "bad" | "weird" | "wrong" | "strange"]
        | ["is", "that" | "this" | "it", "a", "bad", ..]
        | ["am", "i", "the", "only", "one", ..]
        | ["am", "i", "being" | "wrong", ..] => Some(("normal", None)),
        ["would", "you", "like", "to", "hear" | "know", "about", ..] => {
            Some(("hear", with("Yes, I'd like to hear about", 6, ".")))
        }
        ["whats", "the", "best", "way", "to", verb, ..] => {
            Some((way(verb, low.get(6).copied(), low), with("You're wondering how to", 5, ".")))
        }
        ["what", "if", ..] => Some(("whatif", with("What if", 2, "?"))),
        _ => None,
    }
}

fn way(verb: &str, next: Option<&str>, low: &[&str]) -> &'static str {
    let next = next.unwrap_or("");
    let has = |word: &str| low.contains(&word);
    match verb {
        _ if has("friends") || verb == "meet" => "how friends",
        "get" if GETTING_THINGS.contains(&next) => "how else",
        "get" if !["over", "through", "past", "used"].contains(&next) => "how else",
        "help" | "comfort" | "support" => "how cope",
        _ if TALK.contains(&verb) && next != "a" => "how talk",
        _ if COPE.contains(&verb) => "how cope",
        "do" | "solve" | "learn" | "study" | "understand" => "how school",
        _ => "how else",
    }
}

fn matter(words: &[Word]) -> Option<String> {
    let mut words = words;
    while let Some((last, before)) = words.split_last() {
        if !OPEN_ENDS.contains(&last.low.as_str()) && last.low != "please" {
            break;
        }
        words = before;
    }
    turned(words, true).map(|said| said.trim_end_matches(',').to_owned())
}

/// The matter as a reply begins with it.
pub(super) fn opening(matter: &str) -> String {
    capital(matter)
}
