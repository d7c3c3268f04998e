//! An answer in the person's own words: what they said, said back to them in the second person, a kind sentence that goes
//! with its feeling, and a question that doesn't ask for what was told.
//!
//! Ten thousand written answers fit what they were written for. For everything else this is on the matter by
//! construction; where the grammar of a message isn't sure, the sentence is left out and the feeling answered alone.

mod asking;
mod grammar;
mod matter;
mod person;
mod sentences;

use std::collections::HashSet;

use self::person::capital;
use self::sentences::Sentence;
use super::feeling::{self, Felt, GLAD};
use super::likeness::words;

/// `heading TAB part TAB text`: `C` comforts, `A` advises, `Q` asks; a heading is a feeling, perhaps with a topic, or a
/// kind of question. `models/train/data/echo.txt` is the source.
const ECHO: &str = include_str!("../../../../assets/echo.tsv");
/// Two sentences are given back together up to so many words.
const MAX_TOGETHER: usize = 24;
/// A sentence of so many words that blames says nothing else.
const MAX_BLAME: usize = 7;
/// From this share on a message of a single half counts as glad or not.
const PLAINLY: f32 = 0.6;
/// Surer than this, a feeling may be answered without anything given back,
const SURE_ALONE: f32 = 0.4;
/// and with what was written for the feeling in one matter.
const SURE_OF_MATTER: f32 = 0.55;
/// Topics that are people: the message must be about one of them.
const ROLES: [&str; 7] = ["friend", "child", "partner", "parent", "sibling", "elder", "baby"];
/// Who may be named in a question.
const PEOPLE: &str = "mum mom dad mother father parents sister brother friend husband wife boyfriend girlfriend partner fiance \
    son daughter boss teacher colleague neighbour neighbor flatmate roommate coworker landlord grandma grandpa grandmother \
    grandfather nan gran uncle aunt cousin coach manager stepmum stepmom stepdad flatmates roommates neighbours colleagues friends \
    neighbors grandchildren grandson granddaughter grandkids kids children baby toddler teenager mate mommy mummy daddy";
/// What may stand between "my" and one of them.
const BETWEEN: [&str; 12] =
    ["best", "little", "big", "older", "younger", "old", "new", "baby", "twin", "oldest", "own", "closest"];
/// Who says them needs no question for somebody near.
const ALONE: [&str; 8] = ["alone", "nobody", "noone", "anyone", "lonely", "alone", "myself", "anybody"];
const TOLD: [&str; 6] = ["told", "tell", "telling", "called", "everyone", "everybody"];

/// What is to be answered, and what the parent said before.
pub(super) struct Heard<'a> {
    pub(super) message: &'a str,
    pub(super) said: &'a [&'a str],
}

/// An answer in the person's own words, if there is one.
pub(super) fn reply(heard: &Heard<'_>) -> Option<String> {
    let sentences = sentences::sentences(heard.message);
    let (felt, sure) = matter::sure(heard.message, feeling::of(heard.message));
    if let Some(asked) = asking::asked(&sentences) {
        return to_question(heard, &asked, &sentences, &felt);
    }
    if sentences.iter().any(|s| s.asks) {
        return None;
    }
    let given = given(&sentences);
    let feeling = if is_mixed(&sentences) { "mixed" } else { felt.name };
    let is_inside = !heard.said.is_empty();
    // Inside a chat one who hears every sentence twice talks to a parrot.
    let given = given.filter(|_| !is_inside || heard.said.len() % 3 == 2);
    if given.is_none() && sure.is_none() && (felt.sure < SURE_ALONE || matches!(feeling, "neutral" | "open"))
    {
        return None;
    }
    let heading = if blames_self(heard.message) && !GLAD.contains(&feeling) {
        "guilty blame".to_owned()
    } else if let Some(sure) = sure {
        sure.to_owned()
    } else if felt.sure >= SURE_OF_MATTER {
        heading(feeling, heard.message)
    } else {
        feeling.to_owned()
    };
    let mut parts: Vec<String> = given.into_iter().map(|g| ended(&g, &felt, &sentences)).collect();
    parts.extend(pick(heard, &heading, "C"));
    if felt.sure >= SURE_OF_MATTER {
        parts.extend(pick(heard, &heading, "A"));
    }
    parts.extend(pick(heard, &heading, "Q").or_else(|| pick(heard, feeling, "Q")));
    (parts.len() > 1).then(|| parts.join(" "))
}

/// An answer to a question: the matter, what else was told, and what can be said.
fn to_question(
    heard: &Heard<'_>,
    asked: &asking::Asked,
    sentences: &[Sentence],
    felt: &Felt,
) -> Option<String> {
    let others: Vec<Sentence> = sentences
        .iter()
        .enumerate()
        .filter(|(i, s)| *i != asked.at && !s.asks)
        .map(|(_, s)| s.clone())
        .collect();
    let told = given(&others);
    let mut parts: Vec<String> = Vec::new();
    let told = told.map(|t| ended(&t, felt, &[]));
    let topics = topics(heard.message);
    let with_topic = |kind: &str| topics.iter().map(|t| format!("{kind} {t}")).find(|h| has_heading(h));
    match (&asked.matter, told) {
        (Some(matter), Some(told)) if asked.at == 0 => parts.extend([asking::opening(matter), told]),
        (Some(matter), Some(told)) => parts.extend([told, asking::opening(matter)]),
        (Some(matter), None) => parts.push(asking::opening(matter)),
        (None, Some(told)) => parts.push(told),
        (None, None) if asked.kind == "whatdo" => return None,
        (None, None) => {}
    }
    let of_feeling = || if asked.kind == "whatdo" { with_topic(felt.name) } else { None };
    let kind = with_topic(asked.kind).or_else(of_feeling).unwrap_or_else(|| asked.kind.to_owned());
    parts.extend(pick(heard, &kind, "C"));
    parts.extend(pick(heard, &kind, "Q"));
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// With its mark behind it.
fn ended(given: &str, felt: &Felt, sentences: &[Sentence]) -> String {
    let is_loud = GLAD.contains(&felt.name) && (sentences.iter().any(|s| s.shouts) || felt.name == "pride");
    format!("{}{}", capital(given), if is_loud { '!' } else { '.' })
}

/// What is said back of the statements: all of a short message, else the sentence that says most.
fn given(sentences: &[Sentence]) -> Option<String> {
    let whole: Vec<(usize, String)> = sentences
        .iter()
        .filter(|s| !is_empty(s) && !is_only_blame(s))
        .filter_map(|s| Some((weight(s), person::second(s)?)))
        .collect();
    let n_words: usize = whole.iter().map(|(_, said)| said.split(' ').count()).sum();
    match &whole[..] {
        [] => None,
        [(_, one)] => Some(one.clone()),
        [(_, one), (_, two)] if n_words <= MAX_TOGETHER => Some(together(one, two)),
        _ => whole.iter().rev().max_by_key(|(weight, _)| *weight).map(|(_, said)| said.clone()),
    }
}

fn together(one: &str, two: &str) -> String {
    let starts = ["and", "but", "so", "because", "then", "now"];
    let first = two.split(' ').next().unwrap_or("");
    if starts.contains(&first) { format!("{one}, {two}") } else { format!("{one}. {}", capital(two)) }
}

/// "I don't know what to do", "that's all": nothing to give back.
fn is_empty(sentence: &Sentence) -> bool {
    let low: Vec<&str> = sentence.words.iter().map(|w| w.low.as_str()).collect();
    let begins = |with: &[&str]| low.starts_with(with);
    low.len() < 2
        || begins(&["i", "dont", "know", "what", "to", "do"])
        || begins(&["i", "dont", "know", "why"])
        || begins(&["i", "just", "wanted", "to"])
        || begins(&["i", "need", "help"])
        || begins(&["i", "need", "advice"])
        || begins(&["just", "testing"])
        || begins(&["im", "just", "testing"])
        || begins(&["thats", "all"])
        || begins(&["help", "me"])
        || begins(&["tell", "me"])
        || begins(&["any", "advice"])
        || weight(sentence) == 0
}

/// How much a sentence says: its weighty words.
fn weight(sentence: &Sentence) -> usize {
    let stems: HashSet<&str> =
        sentence.words.iter().map(|w| w.low.as_str()).filter(|w| !super::likeness::is_stop(w)).collect();
    stems.len()
}

/// "It's my own fault", "I feel like a terrible mother".
fn blames_self(message: &str) -> bool {
    let said = format!(" {} ", words(message).join(" "));
    [" my own fault ", " all my fault ", " its my fault "].iter().any(|fault| said.contains(fault))
        || ["terrible", "bad", "awful", "horrible", "useless"].iter().any(|how| {
            ["mother", "mum", "mom", "father", "dad", "parent", "person", "friend", "daughter", "son"]
                .iter()
                .any(|who| {
                    said.contains(&format!(" like a {how} {who} "))
                        || said.contains(&format!(" im a {how} {who} "))
                })
        })
}

/// "It's all my fault": nothing that one says back to somebody.
fn is_only_blame(sentence: &Sentence) -> bool {
    let text: Vec<&str> = sentence.words.iter().map(|w| w.low.as_str()).collect();
    text.len() <= MAX_BLAME && blames_self(&text.join(" "))
}

/// Something glad first and something else at the end.
fn is_mixed(sentences: &[Sentence]) -> bool {
    let text: Vec<&str> = sentences.iter().flat_map(|s| &s.words).map(|w| w.text.as_str()).collect();
    let Some(turn) =
        text.iter().position(|w| ["but", "though", "although"].contains(&w.to_lowercase().as_str()))
    else {
        return false;
    };
    if turn < 3 || text.len() - turn < 4 {
        return false;
    }
    let (first, last) = (feeling::of(&text[..turn].join(" ")), feeling::of(&text[turn..].join(" ")));
    first.glad > PLAINLY && last.glad < 1.0 - PLAINLY && last.name != "neutral"
}

fn lines() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    ECHO.lines().filter_map(|line| {
        let mut cells = line.split('\t');
        Some((cells.next()?, cells.next()?, cells.next()?))
    })
}

fn has_heading(heading: &str) -> bool {
    lines().any(|(h, ..)| h == heading)
}

/// What a message is about, of the topics that have sentences of their own.
fn topics(message: &str) -> Vec<&'static str> {
    let words = words(message);
    // The first person who is named: a "son practising" is not what a quarrel with the neighbours is about.
    let who = words.iter().find(|w| grammar::has(PEOPLE, w)).cloned();
    let mut found: Vec<(usize, &'static str)> = lines()
        .filter(|(heading, ..)| *heading == "topics")
        .filter_map(|(_, part, list)| {
            let topic = part.strip_prefix("W ")?;
            let is_of = |w: &String| list.split(' ').any(|one| one == w.as_str());
            let n = words.iter().filter(|w| is_of(w)).count();
            let is_meant = !ROLES.contains(&topic) || who.as_ref().is_none_or(&is_of);
            (n > 0 && is_meant).then_some((n, topic))
        })
        .collect();
    found.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    found.into_iter().map(|(_, topic)| topic).collect()
}

/// The feeling with the topic, where something was written for both.
fn heading(feeling: &str, message: &str) -> String {
    let of = |topic: &&str| has_heading(&format!("{feeling} {topic}"));
    topics(message)
        .iter()
        .find(|t| of(t))
        .map_or_else(|| feeling.to_owned(), |topic| format!("{feeling} {topic}"))
}

/// A sentence of a kind that was not said and does not ask for what was told.
fn pick(heard: &Heard<'_>, heading: &str, part: &str) -> Option<String> {
    let person = person_of(heard.message);
    let words = words(heard.message);
    let has = |list: &[&str]| words.iter().any(|w| list.contains(&w.as_str()));
    let is_free = |mark: &str| match mark {
        "person" => person.is_some(),
        "who" => !has(&ALONE),
        "tell" => !has(&TOLD),
        _ => true,
    };
    let mut all: Vec<String> = lines()
        .filter(|(h, p, _)| *h == heading && p.split(' ').next() == Some(part))
        .filter(|(_, p, _)| p.split(' ').nth(1).is_none_or(is_free))
        .map(|(.., text)| text.replace("{person}", person.as_deref().unwrap_or("them")))
        .collect();
    let n = heard.message.bytes().map(usize::from).sum::<usize>() % all.len().max(1);
    all.rotate_left(n);
    all.into_iter().find(|text| !heard.said.iter().any(|said| said.contains(text.as_str())))
}

/// "My best friend" as "your best friend".
fn person_of(message: &str) -> Option<String> {
    let words = words(message);
    words.iter().enumerate().filter(|(_, w)| *w == "my").find_map(|(i, _)| {
        let mut at = i + 1;
        while words.get(at).is_some_and(|w| BETWEEN.contains(&w.as_str())) {
            at += 1;
        }
        let is_owner = words.get(at + 1).is_some_and(|w| ["and", "s", "or"].contains(&w.as_str()));
        let last = words.get(at).filter(|w| grammar::has(PEOPLE, w) && !is_owner)?;
        let between = &words[i + 1..at];
        Some(format!("your {}{}{last}", between.join(" "), if between.is_empty() { "" } else { " " }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said_back(message: &str) -> Option<String> {
        given(&sentences::sentences(message)).map(|g| capital(&g))
    }

    #[test]
    fn what_somebody_says_is_said_to_them() {
        for (message, back) in [
            ("mom guess what!!! i got the part", "You got the part"),
            ("I was late and was so ashamed", "You were late and were so ashamed"),
            ("my sister was late", "Your sister was late"),
            (
                "i broke moms vase and she doesnt know yet",
                "You broke your mom's vase and she doesn't know yet",
            ),
            ("mum says i have to share", "Your mum says you have to share"),
            ("my girlfriend and I had a fight", "You and your girlfriend had a fight"),
            ("we got a puppy!! his name is biscuit", "You got a puppy. His name is biscuit"),
            (
                "everyone has a phone except me its so unfair",
                "Everyone has a phone except you. It's so unfair",
            ),
            ("failed my test", "You failed your test"),
            ("feeling sad, the dorm is loud", "You're feeling sad, the dorm is loud"),
            (
                "Moving house with two toddlers is a nightmare",
                "Moving house with two toddlers is a nightmare",
            ),
            ("been crying all day lol", "You've been crying all day"),
            ("THE DOG ATE MY SHOES", "The dog ate your shoes"),
            ("it is 3 am and I am awake", "It is 3 am and you are awake"),
            ("I haven't told my parents I failed", "You haven't told your parents you failed"),
        ] {
            assert_eq!(said_back(message).as_deref(), Some(back), "{message}");
        }
    }

    #[test]
    fn what_is_no_sure_sentence_is_not_said_back() {
        for message in [
            "work lol",
            "geography",
            "the big red one",
            "mum said \"no way\" to me",
            "i like you",
            "are you ok",
            "i don't know what to do",
            "thanks",
            "",
            "...",
            "(hi)",
        ] {
            assert_eq!(said_back(message), None, "{message}");
        }
    }

    #[test]
    fn a_question_is_answered_with_its_matter() {
        for (message, matter) in [
            ("Should I study medicine or music?", "You're wondering whether to study medicine or music."),
            ("do you think i should tell my mum", "You're wondering whether to tell your mum."),
            ("why do i have to go to bed so early", "Having to go to bed so early is no fun"),
            (
                "how do I ask my boss for fewer hours?",
                "You're wondering how to ask your boss for fewer hours.",
            ),
            ("what if nobody likes me", "What if nobody likes you?"),
        ] {
            let reply = reply(&Heard { message, said: &[] }).unwrap();
            assert!(reply.starts_with(matter), "{message}: {reply}");
        }
    }

    #[test]
    fn nothing_is_asked_of_somebody_who_has_nobody() {
        let mut said: Vec<String> = Vec::new();
        for _ in 0..6 {
            let before: Vec<&str> = said.iter().map(String::as_str).collect();
            let Some(next) = reply(&Heard {
                message: "I have the flu and I'm in bed all alone, nobody is here",
                said: &before,
            }) else {
                break;
            };
            assert!(!next.contains("Who c") && !next.contains("Is there some"), "{next}");
            assert!(!before.contains(&next.as_str()));
            said.push(next);
        }
        assert!(!said.is_empty());
    }

    #[test]
    fn every_written_sentence_is_whole() {
        for (heading, part, text) in lines().filter(|(heading, ..)| *heading != "topics") {
            assert!(text.ends_with(['.', '?', '!', '"']), "{heading} {part}: {text}");
            assert!(!part.starts_with('Q') || text.ends_with('?'), "{heading}: {text}");
        }
    }
}
