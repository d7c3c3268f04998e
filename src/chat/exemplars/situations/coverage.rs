//! Whether a situation is what a message is about, or only one word of it.

use super::{HOUSEHOLD, Pattern, Phrase, Situation, Word, follow, reply, situation, stands};
use crate::chat::exemplars::likeness::is_stop;

/// From this share on a situation is what the message is about.
const COVERED_FROM: f32 = 0.7;
/// Kinds that are told by their form, whatever else a message says, and the share that is enough for them.
const PLAIN_KINDS: [&str; 11] = [
    "recipe",
    "about me",
    "ask anything",
    "tell ",
    "cannot",
    "fact",
    "permission",
    "tricks",
    "harmful",
    "favourite",
    "household",
];
const COVERED_FROM_PLAIN: f32 = 0.3;
/// The same for narrow, everyday things, whose patterns ask for more than one word.
const COVERED_FROM_HOUSEHOLD: f32 = 0.5;
/// How leave is asked for, among the first words: "my brother lets me play" asks for none.
const ASKING_LEAVE: [&str; 8] = ["can", "may", "could", "am", "do", "let", "wheres", "where"];
const ASKS_WITHIN: usize = 3;
/// What only a glad reply says.
const CHEERS: [&str; 12] = [
    "ongratulations",
    "Well done",
    "Hooray",
    "How lovely",
    "how lovely",
    "How exciting",
    "Happy birthday",
    "how wonderful",
    "How wonderful",
    "good to hear",
    "lovely to hear",
    "You did it",
];
/// Words that every message may have, whatever it is about.
const FILLERS: [&str; 119] = [
    "today",
    "yesterday",
    "tomorrow",
    "tonight",
    "now",
    "day",
    "week",
    "month",
    "year",
    "night",
    "morning",
    "evening",
    "weekend",
    "last",
    "next",
    "ago",
    "since",
    "always",
    "never",
    "ever",
    "still",
    "again",
    "finally",
    "already",
    "anymore",
    "more",
    "much",
    "many",
    "lot",
    "lots",
    "bit",
    "little",
    "actually",
    "honestly",
    "kind",
    "sort",
    "think",
    "know",
    "want",
    "wants",
    "wanted",
    "feel",
    "feeling",
    "make",
    "makes",
    "thing",
    "things",
    "stuff",
    "one",
    "two",
    "three",
    "first",
    "we",
    "he",
    "she",
    "they",
    "him",
    "her",
    "them",
    "his",
    "their",
    "our",
    "us",
    "who",
    "where",
    "which",
    "why",
    "no",
    "yes",
    "please",
    "hey",
    "hi",
    "hello",
    "mum",
    "mom",
    "mommy",
    "mummy",
    "dad",
    "ok",
    "okay",
    "oh",
    "well",
    "should",
    "could",
    "may",
    "might",
    "im",
    "ive",
    "hes",
    "shes",
    "theyre",
    "going",
    "go",
    "gone",
    "got",
    "every",
    "everything",
    "something",
    "way",
    "even",
    "only",
    "maybe",
    "lol",
    "wow",
    "cannot",
    "wont",
    "doesnt",
    "didnt",
    "isnt",
    "havent",
    "hasnt",
    "keep",
    "keeps",
    "lately",
    "whole",
    "time",
    "came",
    "into",
    "myself",
];
/// A reply to the kind of message this is, that was not said yet, where the kind is all that the message says, or nearly.
pub(in super::super) fn fitting(
    message: &str,
    said: &[&str],
    is_glad: bool,
    is_sorry: bool,
) -> Option<String> {
    let (situation, _, words, _) = situation(message)?;
    let is_cheerful = situation.replies.iter().any(|reply| CHEERS.iter().any(|cheer| reply.contains(cheer)));
    let is_sad = situation.replies.iter().any(|reply| reply.contains("sorry"));
    // Where the matter is sure, the classifier's ear is not asked.
    let is_household = situation.name.starts_with(HOUSEHOLD);
    let is_out_of_tune = !is_household && (is_cheerful && is_sorry || is_sad && is_glad);
    let asks = words.iter().take(ASKS_WITHIN).any(|w| ASKING_LEAVE.contains(&w.raw.as_str()));
    let is_plain = PLAIN_KINDS.iter().any(|kind| situation.name.starts_with(kind))
        && (situation.name != "permission" || asks);
    let wanted = match (is_plain, is_household) {
        (true, _) => COVERED_FROM_PLAIN,
        (_, true) => COVERED_FROM_HOUSEHOLD,
        _ => COVERED_FROM,
    };
    (covered(situation, &words) >= wanted && !is_out_of_tune).then(|| reply(message, said)).flatten()
}

/// Share of what a message says, by its weighty words, that its situation's patterns have seen: one word of many is no
/// reason for a whole written answer.
pub(super) fn covered(situation: &Situation, words: &[Word]) -> f32 {
    let mut seen = vec![false; words.len()];
    for pattern in &situation.patterns {
        for (at, n) in all_matches(pattern, words) {
            seen[at..at + n].fill(true);
        }
        for phrase in &pattern.beside {
            for at in (0..words.len()).filter(|&at| stands(phrase, words, at)) {
                seen[at..at + phrase.len()].fill(true);
            }
        }
    }
    let says = |w: &&Word| is_weighty(&w.raw);
    let all = words.iter().filter(says).count();
    let of_seen = words.iter().zip(&seen).filter(|(w, seen)| **seen && says(w)).count();
    if all == 0 { 1.0 } else { of_seen as f32 / all as f32 }
}

/// Whether a word says something of the matter.
pub(super) fn is_weighty(raw: &str) -> bool {
    !is_stop(raw) && !FILLERS.contains(&raw) && !is_counted(raw)
}

fn is_counted(raw: &str) -> bool {
    raw.chars().any(|c| c.is_ascii_digit())
}

/// Every place where an item of a pattern stands in some match of it.
fn all_matches(pattern: &Pattern, words: &[Word]) -> Vec<(usize, usize)> {
    let Pattern { wanted, barred, max_words, .. } = pattern;
    let has = |phrase: &Phrase| (0..words.len()).any(|i| stands(phrase, words, i));
    if words.len() > *max_words || barred.iter().any(has) {
        return Vec::new();
    }
    let n_starts = if wanted.first().is_some_and(|w| w.is_first) { 1 } else { words.len() };
    (0..n_starts).filter_map(|start| follow(wanted, words, start)).flat_map(|found| found.at).collect()
}
