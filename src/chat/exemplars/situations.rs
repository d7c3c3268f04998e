//! Replies to kinds of messages: somebody's dog died, somebody wants a story.
//!
//! An opening among ten thousand answers one person; many write of the same few hundred things in other words. A
//! situation names such a thing by patterns, and its replies hold for everybody in it. `models/train/README.md` has the
//! form of the patterns.

mod asked;
mod coverage;

use std::collections::HashMap;
use std::sync::OnceLock;

pub(super) use self::asked::answer as asked;
pub(super) use self::coverage::fitting;
use super::likeness::{is_stop, stem, words};

/// `@class TAB words` first, then `name TAB pattern | pattern TAB reply TAB reply`.
const SITUATIONS: &str = include_str!("../../../assets/situations.tsv");
/// Between two items of a pattern so many words may stand: "my dog (has) (just) died".
const MAX_GAP: usize = 3;
/// The end of a sentence between two items counts as so many words.
const GAP_OF_SENTENCE: usize = 2;
/// What a word between two items costs, beside an item: "my mum's cat died" is about the cat.
const GAP_COST: f32 = 0.3;
/// What an item counts that is no stop word, and one that is.
const WEIGHTY: f32 = 2.0;
const LIGHT: f32 = 0.5;
/// Words that are no stop words to the likeness of openings, and say little of the kind of message.
const LIGHT_WORDS: [&str; 3] = ["should", "could", "may"];
/// Longer texts tell several things, and the patterns would find one of them by chance.
const MAX_WORDS: usize = 60;
/// Words that turn what follows into its opposite, where the pattern does not have them itself.
const TURNING: [&str; 13] = [
    "not", "never", "dont", "doesnt", "didnt", "isnt", "wasnt", "arent", "cant", "wont", "havent", "hasnt",
    "without",
];
/// How the names of situations begin in which the crisis check sees something that is not there.
const LIGHT_KINDS: [&str; 20] = [
    "tell ",
    "about me, what",
    "about me, your day",
    "about me, who",
    "cannot",
    "fact",
    "favourite",
    "recipe",
    "household",
    "weather",
    "good ",
    "got the job",
    "small wins",
    "child milestone",
    "permission",
    "hello",
    "nothing to say",
    "one letter",
    "guess what",
    "new pet",
];
/// The situations of friends who fall out.
const QUARRELS: [&str; 3] = ["friend, quarrel", "friend jealous, new friends", "friend moving"];
/// Before a word of a pattern that stands for itself and not for its stem.
const EXACT: char = '=';
/// Situations whose replies may follow one another when more is asked for.
const ENTERTAINING: &str = "tell ";
/// What it counts that such a thing is asked for outright, and what may stand before that.
const WORTH_OF_REQUEST: f32 = 3.0;
const BEFORE_REQUEST: [&str; 25] = [
    "please", "can", "could", "will", "would", "you", "u", "i", "we", "id", "to", "hey", "hi", "hello",
    "mum", "mom", "mommy", "mummy", "dad", "daddy", "mama", "ok", "just", "now", "need",
];
/// How the names of situations begin that are narrow, everyday things of a family, and what that counts beside a wider one.
const HOUSEHOLD: &str = "home ";
const WORTH_OF_HOUSEHOLD: f32 = 1.0;
/// From this share on a message is about nothing else.
const ALL_OF_IT: f32 = 0.8;
/// Of a message that wants such a thing more than so much is about that.
const MOSTLY: f32 = 0.7;
/// So many replies ago it may have been told.
const LOOKS_BACK: usize = 3;

struct Situation {
    name: &'static str,
    patterns: Vec<Pattern>,
    replies: Vec<&'static str>,
}

struct Pattern {
    /// What must stand in the message, in this order.
    wanted: Vec<Item>,
    /// What it must not have anywhere.
    barred: Vec<Phrase>,
    /// What else belongs to the matter: it makes no match, but is no other matter either.
    beside: Vec<Phrase>,
    /// It has at most so many words.
    max_words: usize,
}

impl Situation {
    /// Whether a message has a word that none of the patterns would have: one that only bars.
    fn is_barred(&self, words: &[Word]) -> bool {
        let only_bar = self.patterns.iter().filter(|pattern| pattern.wanted.is_empty());
        let mut barred = only_bar.flat_map(|pattern| &pattern.barred);
        barred.any(|phrase| (0..words.len()).any(|i| stands(phrase, words, i)))
    }
}

/// Words that stand side by side: their stems, or stop words as they are.
type Phrase = Vec<String>;

/// A place in a pattern.
struct Item {
    /// One of them must stand there.
    any: Vec<Phrase>,
    /// The classes among them, which a reply may name.
    classes: Vec<&'static str>,
    /// It must stand at the beginning of the message.
    is_first: bool,
    /// It must stand at the end of the message.
    is_last: bool,
}

/// A word of the message.
struct Word {
    raw: String,
    said: String,
    ends_sentence: bool,
}

impl Word {
    /// Whether it is this one: by its stem, or by itself where the pattern has it as `=word`.
    fn is(&self, one: &str) -> bool {
        one == self.said || one.strip_prefix(EXACT) == Some(&self.raw)
    }
}

/// Where a pattern's items stand in a message, each as its first word and their number, and what the match is worth.
struct Match {
    worth: f32,
    at: Vec<(usize, usize)>,
}

type Classes = HashMap<&'static str, Vec<&'static str>>;

fn situations() -> &'static (Classes, Vec<Situation>) {
    static ALL: OnceLock<(Classes, Vec<Situation>)> = OnceLock::new();
    ALL.get_or_init(|| read(SITUATIONS))
}

fn read(text: &'static str) -> (Classes, Vec<Situation>) {
    let mut classes = Classes::new();
    let mut all = Vec::new();
    for line in text.lines() {
        let mut cells = line.split('\t');
        let (Some(name), Some(second)) = (cells.next(), cells.next()) else { continue };
        if let Some(class) = name.strip_prefix('@') {
            // A class may hold another: `@family` all of `@kin`.
            let members = second.split(' ').flat_map(|word| match word.strip_prefix('@') {
                Some(other) => classes.get(other).cloned().unwrap_or_default(),
                None => vec![word],
            });
            let members = members.collect();
            classes.insert(class, members);
        } else {
            let patterns = second.split(" | ").map(|p| pattern(p, &classes)).collect();
            all.push(Situation { name, patterns, replies: cells.collect() });
        }
    }
    (classes, all)
}

/// Reads `^feel/am @sad -not/in_love today$ ~9`: one of `feel` and `am` first, none of `not` and `in love` anywhere,
/// `today` last, nine words at most. `+rain/cold` says what may stand beside. Bars without anything wanted are for all of
/// the situation's patterns.
fn pattern(text: &'static str, classes: &Classes) -> Pattern {
    let mut out =
        Pattern { wanted: Vec::new(), barred: Vec::new(), beside: Vec::new(), max_words: MAX_WORDS };
    for part in text.split(' ') {
        if let Some(max) = part.strip_prefix('~') {
            out.max_words = max.parse().unwrap_or(MAX_WORDS);
        } else if let Some(barred) = part.strip_prefix('-') {
            out.barred.extend(alternatives(barred, classes).0);
        } else if let Some(beside) = part.strip_prefix('+') {
            out.beside.extend(alternatives(beside, classes).0);
        } else {
            let (any, classes) = alternatives(part.trim_start_matches('^').trim_end_matches('$'), classes);
            out.wanted.push(Item {
                any,
                classes,
                is_first: part.starts_with('^'),
                is_last: part.ends_with('$'),
            });
        }
    }
    out
}

/// What may stand for `a/b_c/@class`, and the classes in it.
fn alternatives(text: &'static str, classes: &Classes) -> (Vec<Phrase>, Vec<&'static str>) {
    let named: Vec<&'static str> = text.split('/').filter_map(|word| word.strip_prefix('@')).collect();
    let words = text.split('/').filter(|word| !word.starts_with('@'));
    let members = named.iter().filter_map(|name| classes.get(name)).flatten().copied();
    (words.chain(members).map(|phrase| phrase.split('_').map(said).collect()).collect(), named)
}

fn said(word: &str) -> String {
    if is_stop(word) || word.starts_with(EXACT) { word.to_owned() } else { stem(word) }
}

fn message_words(message: &str) -> Vec<Word> {
    let mut out: Vec<Word> = Vec::new();
    for chunk in message.split_whitespace() {
        if chunk.chars().any(char::is_alphanumeric) {
            let of_chunk = words(chunk).into_iter();
            out.extend(of_chunk.map(|raw| Word { said: said(&raw), raw, ends_sentence: false }));
        }
        if let Some(last) = out.last_mut() {
            last.ends_sentence |= chunk.ends_with(['.', '!', '?']);
        }
    }
    out
}

/// The best match of a pattern, if any.
fn matched(pattern: &Pattern, words: &[Word]) -> Option<Match> {
    let Pattern { wanted, barred, max_words, .. } = pattern;
    let has = |phrase: &Phrase| (0..words.len()).any(|i| stands(phrase, words, i));
    if words.len() > *max_words || barred.iter().any(has) {
        return None;
    }
    let n_starts = if wanted.first()?.is_first { 1 } else { words.len() };
    let found = (0..n_starts).filter_map(|start| follow(wanted, words, start));
    found.max_by(|a, b| a.worth.total_cmp(&b.worth))
}

fn stands(phrase: &[String], words: &[Word], i: usize) -> bool {
    words.get(i..i + phrase.len()).is_some_and(|there| there.iter().zip(phrase).all(|(w, one)| w.is(one)))
}

fn weight(word: &Word) -> f32 {
    if is_stop(&word.said) || LIGHT_WORDS.contains(&word.raw.as_str()) { LIGHT } else { WEIGHTY }
}

/// The best way for the items to stand in their order from word `i` on, the first on `i` itself.
fn follow(items: &[Item], words: &[Word], i: usize) -> Option<Match> {
    let Some((item, rest)) = items.split_first() else { return Some(Match { worth: 0.0, at: Vec::new() }) };
    let standing = item.any.iter().filter(|phrase| stands(phrase, words, i)).map(Vec::len);
    let placed = standing.filter(|n| !item.is_last || i + n == words.len()).filter_map(|n| {
        let then = behind(rest, words, i + n)?;
        let own: f32 = words[i..i + n].iter().map(weight).sum();
        let at = [(i, n)].into_iter().chain(then.at).collect();
        Some(Match { worth: own + then.worth, at })
    });
    placed.max_by(|a, b| a.worth.total_cmp(&b.worth))
}

/// The best way for what is left of the items, with a few words before it.
fn behind(items: &[Item], words: &[Word], from: usize) -> Option<Match> {
    let mut gap = if words[from - 1].ends_sentence { GAP_OF_SENTENCE } else { 0 };
    let mut best = follow(items, words, from);
    if let Some(best) = best.as_mut().filter(|_| !items.is_empty()) {
        best.worth -= GAP_COST * gap as f32;
    }
    for (i, between) in words.iter().enumerate().skip(from) {
        gap += 1 + if between.ends_sentence { GAP_OF_SENTENCE } else { 0 };
        if items.is_empty() || gap > MAX_GAP || TURNING.contains(&between.raw.as_str()) {
            break;
        }
        let Some(found) = follow(items, words, i + 1) else { continue };
        let worth = found.worth - GAP_COST * gap as f32;
        if best.as_ref().is_none_or(|b| worth > b.worth) {
            best = Some(Match { worth, ..found });
        }
    }
    best
}

/// The situation a message is in, with the match.
fn situation(message: &str) -> Option<(&'static Situation, &'static Pattern, Vec<Word>, Match)> {
    let words = message_words(message);
    if words.len() > MAX_WORDS {
        return None;
    }
    let mut best: Option<(&Situation, &Pattern, Match)> = None;
    let is_fit = |s: &&Situation| !s.name.starts_with(asked::KNOWN) && !s.is_barred(&words);
    for situation in situations().1.iter().filter(is_fit) {
        for pattern in &situation.patterns {
            let Some(mut found) = matched(pattern, &words) else { continue };
            if situation.name.starts_with(ENTERTAINING) && is_request(&words, found.at[0].0) {
                found.worth += WORTH_OF_REQUEST;
            }
            if situation.name.starts_with(HOUSEHOLD) {
                found.worth += WORTH_OF_HOUSEHOLD;
            }
            // The earlier of equals: the file's order settles what is left.
            if best.as_ref().is_none_or(|(_, _, b)| found.worth > b.worth) {
                best = Some((situation, pattern, found));
            }
        }
    }
    best.map(|(situation, pattern, found)| (situation, pattern, words, found))
}

/// Whether only "please", "can you" and the like stand before this word: a story about the dark is wanted for the story.
fn is_request(words: &[Word], at: usize) -> bool {
    words[..at].iter().all(|w| BEFORE_REQUEST.contains(&w.raw.as_str()))
}

/// A reply to the kind of message this is, that was not said yet.
pub(super) fn reply(message: &str, said: &[&str]) -> Option<String> {
    let (situation, pattern, words, found) = situation(message)?;
    let at = pattern.wanted.iter().zip(&found.at);
    let named: Vec<(&str, String)> = at
        .flat_map(|(item, &(i, _))| item.classes.iter().map(move |class| (*class, i)))
        .filter_map(|(class, i)| Some((class, member(class, &words[i])?)))
        .collect();
    let replies = situation.replies.iter().filter_map(|reply| filled(reply, &named)).collect();
    best_unsaid(replies, message, said)
}

/// Whether a message is of a kind in which nobody is in danger: a question about the weather, a greeting.
pub(super) fn is_light(message: &str) -> bool {
    situation(message).is_some_and(|(s, ..)| LIGHT_KINDS.iter().any(|kind| s.name.starts_with(kind)))
}

/// Whether a message is about nothing but an everyday thing of a family, with no word that it is not about.
pub(super) fn is_household(message: &str) -> bool {
    situation(message).is_some_and(|(s, _, words, _)| {
        s.name.starts_with(HOUSEHOLD) && coverage::covered(s, &words) >= ALL_OF_IT
    })
}

/// Whether a message is about somebody who is kept from others: its replies are for that, and point to help.
pub(super) fn is_controlled(message: &str) -> bool {
    situation(message).is_some_and(|(s, ..)| s.name == "controlling")
}

/// Whether a message tells of a quarrel or a coolness among friends.
pub(super) fn is_quarrel(message: &str) -> bool {
    situation(message).is_some_and(|(s, ..)| QUARRELS.contains(&s.name))
}

/// A story, a joke, if that is what the message asks for.
pub(super) fn entertainment(message: &str, said: &[&str]) -> Option<String> {
    // "my teacher read my story to the class" wants none.
    let is_wanted = |s: &Situation, words: &[Word], found: &Match| {
        is_request(words, found.at[0].0) || coverage::covered(s, words) > MOSTLY
    };
    let is_that = situation(message)
        .is_some_and(|(s, _, words, found)| s.name.starts_with(ENTERTAINING) && is_wanted(s, &words, &found));
    is_that.then(|| reply(message, said)).flatten()
}

/// Another of the same, where one of the last replies was a story or a joke and more is asked for.
pub(super) fn another(message: &str, said: &[&str]) -> Option<String> {
    let told = || situations().1.iter().filter(|s| s.name.starts_with(ENTERTAINING));
    let mut last = said.iter().rev().take(LOOKS_BACK);
    let before = last.find_map(|last| told().find(|s| s.replies.contains(last)))?;
    best_unsaid(before.replies.iter().map(|r| (*r).to_owned()).collect(), message, said)
}

/// The name of the situation that a message is in.
#[cfg(test)]
fn name(message: &str) -> Option<&'static str> {
    situation(message).map(|(situation, ..)| situation.name)
}

/// The word as the person has it, without the `s` of "dad's", if it is of the class.
fn member(class: &str, word: &Word) -> Option<String> {
    let class = situations().0.get(class)?;
    let has = |word: &&str| class.contains(word);
    let raw = word.raw.as_str();
    let found = Some(raw).filter(has).or_else(|| raw.strip_suffix('s').filter(has));
    found.or_else(|| class.iter().copied().find(|w| said(w) == word.said)).map(str::to_owned)
}

/// A reply with its `{class}` filled in; `None` where the match has no such word.
fn filled(reply: &str, named: &[(&str, String)]) -> Option<String> {
    let out =
        named.iter().fold(reply.to_owned(), |out, (class, word)| out.replace(&format!("{{{class}}}"), word));
    (!out.contains('{')).then_some(out)
}

/// Of those not said the one that speaks of most of what the message does ("a story about a bear"); else another one
/// first for another message.
fn best_unsaid(mut replies: Vec<String>, message: &str, said: &[&str]) -> Option<String> {
    let n = message.bytes().map(usize::from).sum::<usize>() % replies.len().max(1);
    replies.rotate_left(n);
    // Of "a long story about a house by the sea" only the house and the sea.
    let matter = message.split_once(" about ").map_or(message, |(_, matter)| matter);
    let asked = super::likeness::stems(matter);
    let shared = |reply: &String| {
        let stems = super::likeness::stems(reply);
        asked.iter().filter(|s| stems.contains(s)).count()
    };
    replies.retain(|reply| !said.contains(&reply.as_str()));
    replies.into_iter().rev().max_by_key(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_finds_its_kind() {
        for (message, kind) in [
            ("Please tell me a long story about a house by the sea, with everything in it", "tell story"),
            ("can u tell me a joke", "tell joke"),
            ("i want a story about a bear who had a nightmare", "tell story"),
            ("my grandad died last week", "grief, person"),
            ("my mum's cat died", "pet died"),
            ("how do i get over my dog dying", "pet died"),
        ] {
            assert_eq!(name(message), Some(kind), "{message}");
        }
    }

    #[test]
    fn what_turns_the_sense_keeps_a_pattern_out() {
        let (classes, _) = read("@pet\tdog cat\n");
        for (text, message, fits) in [
            ("@pet die", "my dog just died", true),
            ("@pet die", "my dog did not die", false),
            ("@pet die", "my dog didn't die", false),
            ("@pet die", "dog. he ran. he then died", false),
            ("^die @pet", "why do dogs die", false),
            ("want_to/like @pet", "i want to dog sit", true),
            ("want_to/like @pet", "i want a dog", false),
            ("my/want_to want_to/dog", "i want to want to dog", true),
            ("=test", "a test", true),
            ("=test", "an exam", false),
            ("dog ~2", "a dog runs", false),
            ("love @pet$", "i love my dog", true),
            ("love @pet$", "i love my dog food", false),
            ("love -hate @pet", "i love my dog and hate my cat", false),
        ] {
            assert_eq!(
                matched(&pattern(text, &classes), &message_words(message)).is_some(),
                fits,
                "{text}: {message}"
            );
        }
    }

    #[test]
    fn replies_name_who_was_named_and_come_once() {
        let mut said: Vec<String> = Vec::new();
        while let Some(next) = reply("my gran's died", &said.iter().map(String::as_str).collect::<Vec<_>>()) {
            assert!(!next.contains(['{', '}']) && !said.contains(&next), "{next}");
            said.push(next);
        }
        assert!(said.len() >= 2 && said.iter().any(|r| r.contains("your gran")), "{said:?}");
        let story = reply("tell me a story about a bear", &[]).unwrap();
        assert!(story.to_lowercase().contains("bear"), "{story}");
        let next = another("another one", &[&story]).unwrap();
        assert_ne!(next, story);
        assert_eq!(another("another one", &["I'm sorry."]), None);
    }

    #[test]
    fn every_pattern_and_reply_is_whole() {
        let (classes, all) = situations();
        assert!(all.len() > 100 && classes.len() > 5);
        for situation in all {
            assert!(!situation.replies.is_empty(), "{}", situation.name);
            for Pattern { wanted, beside, .. } in &situation.patterns {
                assert!(!wanted.is_empty() || !beside.is_empty(), "{}", situation.name);
                for item in wanted {
                    let words = item.any.iter().flatten();
                    assert!(
                        !item.any.is_empty() && words.clone().all(|w| !w.is_empty()),
                        "{}",
                        situation.name
                    );
                    assert!(item.classes.iter().all(|c| classes.contains_key(c)), "{}", situation.name);
                }
            }
            assert!(
                situation.replies.iter().any(|r| !r.contains('{')),
                "{} has only named replies",
                situation.name
            );
        }
    }
}
