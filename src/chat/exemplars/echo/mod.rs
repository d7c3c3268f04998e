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
mod wording;

use std::collections::HashSet;

use self::person::capital;
use self::sentences::Sentence;
use self::wording::Headings;
use super::feeling::{self, Felt, GLAD, Valence};
use super::likeness::words;

/// Two sentences are given back together up to so many words.
const MAX_TOGETHER: usize = 24;
/// A sentence of so many words that blames says nothing else.
const MAX_BLAME: usize = 7;
/// From this share on a message of a single half counts as glad or not.
const PLAINLY: f32 = 0.6;

/// So many replies later one has not yet forgotten a sorrow.
const SORROW_LASTS: usize = 5;
/// An answer has one of so many shapes.
const SHAPES: usize = 2;

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
    let is_request = felt.valence == Some(Valence::Asks);
    if sentences.iter().any(|s| s.asks) && !(is_request && felt.is_known) {
        return None;
    }
    let given = given(&sentences);
    // Inside a chat one who hears every sentence twice talks to a parrot.
    let is_inside = !heard.said.is_empty();
    let given = given.filter(|_| !is_inside || heard.said.len() % 3 == 2);
    let is_alone = felt.is_known && !feeling::is_even(felt.name) || felt.valence == Some(Valence::Good);
    // A short turn inside a chat leans on what was said before, which the feelings don't see.
    let is_sorry = heard.said.iter().rev().take(SORROW_LASTS).any(|last| last.contains("sorry"));
    if is_inside && sure.is_none() && (!felt.is_known || is_sorry && felt.valence == Some(Valence::Good)) {
        return None;
    }
    if given.is_none() && sure.is_none() && !is_alone && !(is_request && felt.is_known) {
        return None;
    }
    let headings = if is_mixed(&sentences) {
        Headings::only("mixed")
    } else if blames_self(heard.message) && !GLAD.contains(&felt.name) {
        Headings::only("guilty blame")
    } else if let Some(sure) = sure {
        Headings::only(sure)
    } else {
        Headings::new(&felt, heard.message)
    };
    Some(composed(heard, &headings, given.map(|g| ended(&g, &felt, &sentences)))).filter(|r| !r.is_empty())
}

/// What was told, something kind and a question, not always in the same shape.
fn composed(heard: &Heard<'_>, headings: &Headings, given: Option<String>) -> String {
    let turn = sum(heard.message) / SHAPES + heard.said.len();
    let call = headings.pick(heard, "I").filter(|_| turn.is_multiple_of(SHAPES) && given.is_some());
    let mut parts: Vec<String> = Vec::new();
    match call {
        Some(call) => parts.extend([call].into_iter().chain(given)),
        None => parts.extend(given.into_iter().chain(headings.pick(heard, "C"))),
    }
    parts.extend(headings.pick(heard, "A"));
    parts.extend(headings.pick(heard, "Q"));
    parts.join(" ")
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
    match (&asked.matter, told) {
        (Some(matter), Some(told)) if asked.at == 0 => parts.extend([asking::opening(matter), told]),
        (Some(matter), Some(told)) => parts.extend([told, asking::opening(matter)]),
        (Some(matter), None) => parts.push(asking::opening(matter)),
        (None, Some(told)) => parts.push(told),
        (None, None) if asked.kind == "whatdo" => return None,
        (None, None) => {}
    }
    let headings = Headings::asked(asked.kind, felt, heard.message);
    parts.extend(headings.pick(heard, "C"));
    parts.extend(headings.pick(heard, "Q"));
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// With its mark behind it.
fn ended(given: &str, felt: &Felt, sentences: &[Sentence]) -> String {
    let is_loud = felt.valence == Some(Valence::Good)
        && (sentences.iter().any(|s| s.shouts) || ["pride", "joy", "excited"].contains(&felt.name));
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
        || begins(&["just", "wanted", "to"])
        || begins(&["wanted", "to", "say"])
        || begins(&["just", "saying"])
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
    first.glad > PLAINLY && last.valence == Some(Valence::Hard)
}

/// A number that hangs on the message, so that chats do not all begin alike.
fn sum(message: &str) -> usize {
    message.bytes().map(usize::from).sum()
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
            ("I owe my sister £40 and 50€ to mum", "You owe your sister £40 and 50€ to your mum"),
            ("he took $500 from me", "He took $500 from you"),
            ("mommy look i made a rocket", "You made a rocket"),
            ("dad forgot my kids' names", "Your dad forgot your kids' names"),
            ("broke up with my girlfriend today", "You broke up with your girlfriend today"),
            ("we moved in september, on a friday", "You moved in September, on a Friday"),
            ("he was named after me", "He was named after you"),
            ("breastfeeding hurts and nobody says so", "Breastfeeding hurts and nobody says so"),
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
    fn what_goes_behind_it_has_its_tone() {
        for (message, valences) in [
            ("my cat had kittens last night, five of them!", &["good", "joy"][..]),
            ("our little girl took her first steps this morning", &["good", "joy", "pride"]),
            ("i got the lead in the school play!!", &["good", "joy", "pride"]),
            ("my brother smashed my lego ship and laughed", &["hard", "angry", "hurt"]),
            ("my grandma had a stroke and is in hospital", &["hard", "worried", "sad"]),
            ("i was laid off this afternoon", &["letdown", "hard", "sad"]),
        ] {
            let reply = reply(&Heard { message, said: &[] }).unwrap();
            let is_of = |heading: &str| valences.contains(&heading.split(' ').next().unwrap_or(""));
            let written = wording::lines().filter(|(h, ..)| is_of(h)).any(|(.., text)| reply.contains(text));
            assert!(written, "{message}: {reply}");
        }
    }

    #[test]
    fn two_answers_in_one_chat_are_not_alike() {
        let first = reply(&Heard { message: "we got a puppy today!!", said: &[] }).unwrap();
        let said = [first.as_str()];
        let second = reply(&Heard { message: "we got a puppy today!!", said: &said }).unwrap();
        let sentences =
            |text: &str| text.split_inclusive(['.', '!', '?']).map(|s| s.trim().to_owned()).collect();
        let (first, second): (HashSet<String>, HashSet<String>) = (sentences(&first), sentences(&second));
        assert!(first.is_disjoint(&second), "{first:?} {second:?}");
    }

    #[test]
    fn a_small_turn_after_a_sorrow_is_no_triumph() {
        let said = ["I'm so sorry. What was the name?"];
        let message = "i made a little cross for her";
        assert!(reply(&Heard { message, said: &said }).is_none_or(|reply| !reply.contains("bravo")));
    }

    #[test]
    fn every_written_sentence_is_whole() {
        for (heading, part, text) in wording::lines().filter(|(_, part, _)| !part.starts_with('W')) {
            assert!(text.ends_with(['.', '?', '!', '"']), "{heading} {part}: {text}");
            let invites = text.starts_with("Tell me ") || text.starts_with("I'd l");
            assert!(!part.starts_with('Q') || text.ends_with('?') || invites, "{heading}: {text}");
        }
    }
}
