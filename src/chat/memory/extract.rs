//! Facts that an instruction model finds in a message: what it is asked, and what of its answer is believed.
//!
//! The answer follows a schema by grammar, so it always parses. A model still invents; so a fact counts only if its
//! words are the message's own.

use serde_json::{Value, json};

use super::{MAX_NOTED, MAX_PER_MESSAGE, MAX_READ_BYTES, REMEMBER_NOTHING, forget};
use crate::domain::Memory;

/// Longest fact in characters: a clause, not a sentence.
const MAX_FACT_CHARS: usize = 80;
/// Shorter messages hold a greeting.
const MIN_READ_BYTES: usize = 12;
/// Words that say nothing about where a fact comes from.
const SMALL: [&str; 24] = [
    "a", "an", "and", "are", "at", "called", "for", "from", "has", "have", "in", "is", "lives", "my", "name",
    "named", "of", "on", "person", "the", "their", "they", "to", "works",
];

/// What the model is told to do.
pub(in crate::chat) const TASK: &str = "You keep notes about one person. Read their message and list the lasting facts \
that they state about themselves: names of people and pets, age, home, job, health, likes and dislikes, dates that matter. \
Use the message's own words, a few words each, such as \"dog Max\" or \"exam chemistry friday\". Feelings, questions, wishes \
and things about others are no facts. Most messages hold none: then the list is empty.";

/// Tokens of an answer: four facts in JSON.
pub(in crate::chat) const MAX_TOKENS: usize = 160;

/// Tokens of a thought before it, where the template makes the model think: about a message of a few lines.
pub(in crate::chat) const MAX_THOUGHT_TOKENS: usize = 512;

/// What the answer looks like.
pub(in crate::chat) fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"facts": {"type": "array", "maxItems": MAX_PER_MESSAGE,
            "items": {"type": "string", "minLength": 3, "maxLength": MAX_FACT_CHARS}}},
        "required": ["facts"],
        "additionalProperties": false,
    })
}

/// Whether a message is worth the question; somebody who wants nothing remembered is not read at all.
pub(in crate::chat) fn is_worth_reading(text: &str, known: &[Memory]) -> bool {
    (MIN_READ_BYTES..=MAX_READ_BYTES).contains(&text.len())
        && !known.iter().any(|m| m.content == REMEMBER_NOTHING)
        && forget::read(text, known).is_none()
}

/// The facts of an answer that are new and stand in the message.
pub(in crate::chat) fn facts(answer: &str, text: &str, known: &[Memory]) -> Vec<String> {
    let Ok(answer) = serde_json::from_str::<Value>(answer) else { return Vec::new() };
    let said = words(text);
    let n_noted = known.iter().filter(|m| m.origin.is_some()).count();
    let mut new: Vec<String> = Vec::new();
    for fact in answer["facts"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let fact = fact.split_whitespace().collect::<Vec<_>>().join(" ");
        let own: Vec<String> = words(&fact).into_iter().filter(|w| !SMALL.contains(&w.as_str())).collect();
        let is_said = !own.is_empty() && own.iter().all(|w| said.contains(w));
        // What the rules noted in fewer words is the same fact.
        let is_known =
            |old: &str| words(old).iter().filter(|w| !SMALL.contains(&w.as_str())).all(|w| own.contains(w));
        let twice = known.iter().any(|m| is_known(&m.content)) || new.iter().any(|f| is_known(f));
        if is_said && !twice && fact.chars().count() <= MAX_FACT_CHARS {
            new.push(fact);
        }
    }
    new.truncate(MAX_PER_MESSAGE.min(MAX_NOTED.saturating_sub(n_noted)));
    new
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ChatId, MemoryId, MessageId, Timestamp};

    fn memory(content: &str) -> Memory {
        let now = Timestamp::now();
        let origin = Some((ChatId::new(), MessageId::new()));
        Memory { id: MemoryId::new(), content: content.into(), origin, created_at: now, updated_at: now }
    }

    fn noted(facts: &[&str], text: &str, known: &[Memory]) -> Vec<String> {
        super::facts(&json!({ "facts": facts }).to_string(), text, known)
    }

    #[test]
    fn only_the_messages_own_words_are_believed() {
        let text = "Ugh. Max chewed my shoes again, he is a beagle. My shift at the bakery starts at four.";
        assert_eq!(noted(&["dog Max"], text, &[]), Vec::<String>::new(), "nobody said dog");
        assert_eq!(noted(&["Max is a beagle", "works at the bakery"], text, &[]).len(), 2);
        assert_eq!(noted(&["lives in Paris", "is a"], text, &[]), Vec::<String>::new());
        for answer in [
            "no JSON",
            "",
            "{\"facts\":[\"Max is a be",
            "{\"facts\":{\"a\":1}}",
            "[1]",
            "{\"facts\":[1,null]}",
        ] {
            assert_eq!(super::facts(answer, text, &[]), Vec::<String>::new(), "{answer}");
        }
    }

    #[test]
    fn a_fact_is_noted_once() {
        let text = "my beagle Max is ill";
        assert_eq!(noted(&["beagle Max", "the beagle Max"], text, &[]), ["beagle Max"]);
        assert_eq!(noted(&["beagle Max"], text, &[memory("beagle Max")]), Vec::<String>::new());
        let full: Vec<Memory> = (0..MAX_NOTED).map(|i| memory(&format!("friend F{i}"))).collect();
        assert_eq!(noted(&["beagle Max"], text, &full), Vec::<String>::new());
    }

    #[test]
    fn who_wants_nothing_remembered_is_not_read() {
        assert!(is_worth_reading("my beagle Max is ill", &[]));
        assert!(!is_worth_reading("my beagle Max is ill", &[memory(REMEMBER_NOTHING)]));
        assert!(!is_worth_reading("forget that. my beagle Max is ill", &[memory("cat Tom")]));
        assert!(!is_worth_reading("hello", &[]));
    }
}
