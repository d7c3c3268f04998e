//! What the parent remembers: short facts that somebody said about themselves, found by rules, each with the message it
//! came from.
//!
//! The rules take only what is plain ("my cat is called Biscuit"), because a wrong memory hurts more than a missing
//! one. "Forget that" and "never remember anything" are obeyed. Facts are worded as in the training dialogues: `name
//! Priya`, `cat Biscuit`, `exam chemistry friday`.

pub(super) mod extract;
mod facts;
mod forget;
mod recall;

pub(super) use self::facts::{MONTHS, WEEKDAYS};
pub use self::recall::answer;
use crate::domain::{Memory, MemoryId, Timestamp};

/// Facts noted by rules per person; those that somebody typed in do not count. More than a prompt has room for would
/// only be kept, not used.
pub const MAX_NOTED: usize = 60;
/// New facts taken from one message: a message that holds more is a form, not a talk.
const MAX_PER_MESSAGE: usize = 4;
/// Longest message that is read for facts, in bytes: pasted pages are about somebody else.
const MAX_READ_BYTES: usize = 2000;
/// Kept as a memory, where the person sees it and can delete it: nothing more is noted.
pub const REMEMBER_NOTHING: &str = "wants nothing remembered";
/// Facts of which there is one: a new one takes the place of the old.
const SINGLE: [&str; 6] = ["name", "age", "lives in", "job", "birthday", "favourite colour"];

/// What a message changes about what is remembered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A new fact.
    Add(String),
    /// A fact has changed.
    Replace(MemoryId, String),
    /// A fact is to be forgotten.
    Forget(MemoryId),
}

/// Reads a person's message. `now` tells which day "tomorrow" is.
pub fn changes(text: &str, known: &[Memory], now: Timestamp) -> Vec<Change> {
    if text.len() > MAX_READ_BYTES {
        return Vec::new();
    }
    if let Some(changes) = forget::read(text, known) {
        return changes;
    }
    if known.iter().any(|m| m.content == REMEMBER_NOTHING) {
        return Vec::new();
    }
    let n_noted = known.iter().filter(|m| m.origin.is_some()).count();
    let mut room = MAX_NOTED.saturating_sub(n_noted);
    let mut out = Vec::new();
    for fact in facts::read(text, now).into_iter().take(MAX_PER_MESSAGE) {
        let taken = out
            .iter()
            .any(|c| matches!(c, Change::Add(f) | Change::Replace(_, f) if f.eq_ignore_ascii_case(&fact)));
        if taken || known.iter().any(|m| m.content.eq_ignore_ascii_case(&fact)) {
            continue;
        }
        match replaced_by(&fact, known) {
            Some(old) => out.push(Change::Replace(old, fact)),
            None if room > 0 => {
                room -= 1;
                out.push(Change::Add(fact));
            }
            None => {}
        }
    }
    out
}

fn replaced_by(fact: &str, known: &[Memory]) -> Option<MemoryId> {
    let heading = SINGLE.iter().find(|h| is_under(fact, h))?;
    known.iter().find(|m| is_under(&m.content, heading)).map(|m| m.id)
}

fn is_under(fact: &str, heading: &str) -> bool {
    fact.strip_prefix(heading).is_some_and(|rest| rest.starts_with(' '))
}

/// Whether a fact names a day that will be over.
pub fn is_plan(content: &str) -> bool {
    content.split(' ').next_back().is_some_and(|last| facts::WEEKDAYS.contains(&last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ChatId, MessageId};

    /// A Tuesday.
    const NOW: &str = "2026-01-27T18:00:00Z";

    fn memory(content: &str) -> Memory {
        let now: Timestamp = NOW.parse().unwrap();
        let origin = Some((ChatId::new(), MessageId::new()));
        Memory { id: MemoryId::new(), content: content.into(), origin, created_at: now, updated_at: now }
    }

    fn noted(text: &str) -> Vec<String> {
        let added = changes(text, &[], NOW.parse().unwrap());
        added.into_iter().map(|c| if let Change::Add(fact) = c { fact } else { format!("{c:?}") }).collect()
    }

    #[test]
    fn plain_facts_are_noted_as_in_the_training_dialogues() {
        for (text, facts) in [
            ("hi my name is priya", vec!["name Priya"]),
            ("Hello, I'm Tomasz and I like trains", vec!["name Tomasz"]),
            ("you can call me Bea", vec!["name Bea"]),
            ("my cat is called biscuit and she snores", vec!["cat Biscuit"]),
            ("my dog Simsim ate a sock", vec!["dog Simsim"]),
            ("we have a hamster named Pip!", vec!["hamster Pip"]),
            ("my dogs name is Max", vec!["dog Max"]),
            ("my sister Lan is coming", vec!["sister Lan"]),
            ("my best friend is called mateus", vec!["best friend Mateus"]),
            ("im 9 years old", vec!["age 9"]),
            ("I am 34 and tired", vec!["age 34"]),
            ("i live in Glasgow", vec!["lives in Glasgow"]),
            ("I live in New York, it is loud", vec!["lives in New York"]),
            ("i work as a bus driver", vec!["job bus driver"]),
            ("im a nurse on nights", vec!["job nurse"]),
            ("i have a chemistry exam on friday", vec!["exam chemistry friday"]),
            ("my interview is tomorrow and im nervous", vec!["interview wednesday"]),
            ("ive got a driving test next monday", vec!["test driving monday"]),
            ("my birthday is on 14 november", vec!["birthday 14 november"]),
            ("my birthday is march 3rd", vec!["birthday 3 march"]),
            ("im allergic to nuts so no cookies", vec!["allergic to nuts"]),
            ("im vegetarian", vec!["vegetarian"]),
            ("my name is Wei and my dog is called Bo", vec!["name Wei", "dog Bo"]),
        ] {
            assert_eq!(noted(text), facts, "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_fact_is_not_noted() {
        for text in [
            "im tired",
            "im 5 minutes late",
            "im 10 min away",
            "call me crazy but i like rain",
            "call me back later",
            "i live in fear of mondays",
            "my cat is sick",
            "my dog ate my homework",
            "my sister is mean",
            "my friend said hi",
            "what is my name",
            "is my name nice",
            "im a mess",
            "im a bit sad",
            "my name is not important",
            "i have a test",
            "the test on friday was cancelled for everybody else",
            "Im Sad",
            "i am 100 percent sure",
            "hello im tired",
            "Hi I'm Fine thanks",
            "my birthday is soon",
        ] {
            assert_eq!(noted(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn one_name_one_age_one_home() {
        let known = [memory("name Priya"), memory("cat Biscuit")];
        let now = NOW.parse().unwrap();
        assert_eq!(changes("my name is Pri", &known, now), [Change::Replace(known[0].id, "name Pri".into())]);
        assert_eq!(changes("my name is priya", &known, now), []);
        assert_eq!(changes("my cat is called Olive", &known, now), [Change::Add("cat Olive".into())]);
    }

    #[test]
    fn forgetting_is_obeyed() {
        let (a, b) = (memory("name Priya"), memory("cat Biscuit"));
        let known = [a.clone(), b.clone()];
        let now = NOW.parse().unwrap();
        assert_eq!(changes("forget that", &known, now), [Change::Forget(b.id)]);
        assert_eq!(changes("please forget what i just said", &known, now), [Change::Forget(b.id)]);
        assert_eq!(changes("Forget my name!", &known, now), [Change::Forget(a.id)]);
        assert_eq!(changes("can you forget about Biscuit", &known, now), [Change::Forget(b.id)]);
        assert_eq!(changes("forget everything", &known, now), [Change::Forget(a.id), Change::Forget(b.id)]);
        assert_eq!(changes("dont remember this. my dog is called Max", &known, now), []);
        assert_eq!(changes("i always forget my keys", &known, now), []);
        assert_eq!(
            changes("i forget that my dog is called Max sometimes", &[], now),
            [Change::Add("dog Max".into())]
        );
    }

    #[test]
    fn never_remember_holds_until_it_is_deleted() {
        let now: Timestamp = NOW.parse().unwrap();
        let asked = changes("never remember anything about me", &[], now);
        assert_eq!(asked, [Change::Add(REMEMBER_NOTHING.into())]);
        let marker = [memory(REMEMBER_NOTHING)];
        assert_eq!(changes("my dog is called Max", &marker, now), []);
        assert_eq!(changes("you can remember things again", &marker, now), [Change::Forget(marker[0].id)]);
    }

    #[test]
    fn what_is_noted_is_bounded() {
        let known: Vec<Memory> = (0..MAX_NOTED).map(|i| memory(&format!("friend F{i}"))).collect();
        assert_eq!(changes("my dog is called Max", &known, NOW.parse().unwrap()), []);
        let long = format!("my name is Priya {}", "x".repeat(MAX_READ_BYTES));
        assert_eq!(noted(&long), Vec::<String>::new());
    }

    #[test]
    fn plans_are_told_from_lasting_facts() {
        assert!(is_plan("exam chemistry friday"));
        assert!(!is_plan("birthday 14 november"));
        assert!(!is_plan("cat Friday"));
    }
}
