//! Plain questions about what was told ("what's my dog called?", "when is my exam?"), answered from the facts.
//!
//! A model of a few million parameters copies a name wrong too often, and a wrong name hurts; a rule does not.

use super::facts::{EVENTS, PEOPLE, PETS, WEEKDAYS};
use crate::domain::Memory;

/// A longer message asks for more than a fact.
const MAX_WORDS: usize = 10;
/// How such questions begin, without apostrophes.
const ASKING: [&str; 14] = [
    "what",
    "whats",
    "who",
    "whos",
    "when",
    "whens",
    "where",
    "how old",
    "which day",
    "do you remember",
    "do you know",
    "can you tell me",
    "do you still know",
    "tell me",
];

/// The answer to a message that asks for one fact; `None` for every other message.
pub fn answer(message: &str, known: &[Memory]) -> Option<String> {
    let plain = message.to_lowercase().replace(['\'', '’'], "");
    let words: Vec<&str> = plain.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let text = words.join(" ");
    let begins =
        ASKING.iter().any(|a| text == *a || text.strip_prefix(a).is_some_and(|r| r.starts_with(' ')));
    if words.len() > MAX_WORDS || !begins {
        return None;
    }
    let fact = |heading: &str| {
        let under = |m: &Memory| m.content.strip_prefix(heading)?.strip_prefix(' ').map(str::to_owned);
        known.iter().rev().find_map(under)
    };
    about_me(&text, &fact)
        .or_else(|| a_liking(&words, &fact))
        .or_else(|| a_name(&words, &fact))
        .or_else(|| a_day(&words, &fact))
}

/// Name, age, home, work, birthday.
fn about_me(text: &str, fact: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let asks = |phrases: &[&str]| phrases.iter().any(|p| text.ends_with(p));
    let known = |heading: &str, say: &dyn Fn(String) -> String, ask: &str| {
        Some(
            fact(heading)
                .map_or_else(|| format!("You haven't told me that yet, so I don't know. {ask}"), say),
        )
    };
    if asks(&["my name", "my name is", "who am i", "who i am"]) {
        let say = |name| format!("You're {name}. I hadn't forgotten. How are you today?");
        return known("name", &say, "What shall I call you?");
    }
    if asks(&["how old am i", "how old i am", "my age"]) {
        return known(
            "age",
            &|age| format!("You're {age}, you told me. How does it feel?"),
            "How old are you?",
        );
    }
    if asks(&["where do i live", "where i live"]) {
        return known(
            "lives in",
            &|home| format!("In {home}. How is it there today?"),
            "Where is home for you?",
        );
    }
    if asks(&["my job", "what do i do", "what i do", "what do i do for work", "what my job is"]) {
        let say = |job| format!("You told me your work: {job}. How is it going?");
        return known("job", &say, "What do you do all day?");
    }
    if asks(&["my birthday", "my birthday is"]) {
        let say = |day: String| {
            let on = if day.starts_with("in ") { "" } else { "on " };
            format!("Your birthday is {on}{}. How would you like to spend it?", in_capitals(&day))
        };
        return known("birthday", &say, "When is it?");
    }
    None
}

/// "what's my favourite colour", "what am i allergic to".
fn a_liking(words: &[&str], fact: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    if let [.., "my", "favourite" | "favorite", what] = words {
        let what = if *what == "color" { "colour" } else { what };
        let known = fact(&format!("favourite {what}"));
        return Some(known.map_or_else(
            || format!("You haven't told me your favourite {what} yet. What is it?"),
            |which| format!("Your favourite {what} is {which}, you told me. Is it still?"),
        ));
    }
    words.ends_with(&["allergic", "to"]).then(|| match fact("allergic to") {
        Some(what) => format!("You told me: {what}. Tell whoever cooks for you, too."),
        None => "You haven't told me that yet, so I don't know. What is it?".to_owned(),
    })
}

/// "what is my dog called", "what's the name of my sister", "who is my best friend".
fn a_name(words: &[&str], fact: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let at = words.iter().rposition(|w| *w == "my")?;
    let rest = &words[at + 1..];
    let (who, rest) = match rest {
        ["best", friend, rest @ ..] if friend.starts_with("friend") => ("best friend", rest),
        [who, rest @ ..] => {
            let single = who.strip_suffix('s').filter(|_| rest.first() == Some(&"name")).unwrap_or(who);
            (PETS.iter().chain(&PEOPLE).find(|known| **known == single).copied()?, rest)
        }
        [] => return None,
    };
    let of_name = words[..at].ends_with(&["name", "of"]) || matches!(words[0], "who" | "whos");
    let asked = matches!(rest, ["name" | "called" | "named"] | ["name", "is"] | ["is", "called"]);
    if !(asked || of_name && rest.is_empty()) {
        return None;
    }
    Some(match fact(who) {
        Some(name) => format!("Your {who} is called {name}. How is {name} these days?"),
        None => format!("You haven't told me your {who}'s name yet, so I don't know it. What is it?"),
    })
}

/// "when is my exam", "what day is my interview".
fn a_day(words: &[&str], fact: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let when = matches!(words[0], "when" | "whens") || words.contains(&"day") || words.contains(&"when");
    let at = words.iter().rposition(|w| *w == "my").filter(|_| when)?;
    let last = words.iter().rposition(|w| *w != "is").filter(|last| *last > at)?;
    let event = words.get(last).filter(|w| EVENTS.contains(w))?;
    let Some(rest) = fact(event) else {
        return Some(format!("You haven't told me when your {event} is. Which day?"));
    };
    let (kind, day) = rest.rsplit_once(' ').unwrap_or(("", &rest));
    let kind = if kind.is_empty() { String::new() } else { format!("{kind} ") };
    let day = WEEKDAYS.contains(&day).then(|| in_capitals(day))?;
    Some(format!("Your {kind}{event} is on {day}. How do you feel about it?"))
}

/// Names of days and months with a capital letter.
fn in_capitals(text: &str) -> String {
    let capital = |word: &str| {
        let mut chars = word.chars();
        match chars.next() {
            Some(first) if word.len() > 2 => first.to_uppercase().chain(chars).collect(),
            _ => word.to_owned(),
        }
    };
    text.split(' ').map(capital).collect::<Vec<String>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(contents: &[&str]) -> Vec<Memory> {
        contents.iter().map(|c| crate::chat::prompt::unstored_memory((*c).to_owned())).collect()
    }

    #[test]
    fn a_question_for_a_fact_gets_the_fact() {
        let known = facts(&[
            "name Priya",
            "age 9",
            "lives in New York",
            "dog Rex",
            "best friend Mateus",
            "exam chemistry friday",
            "interview monday",
            "birthday 3 march",
            "sister Lan",
            "job night baker",
            "favourite colour green",
            "allergic to nuts",
            "teacher Mrs Amis",
        ]);
        for (question, part) in [
            ("What's my name?", "You're Priya"),
            ("do you remember my name", "Priya"),
            ("who am i", "Priya"),
            ("how old am I?", "9"),
            ("where do i live", "New York"),
            ("whats my dog called", "Rex"),
            ("what is my dog's name?", "Rex"),
            ("what's the name of my sister", "Lan"),
            ("who is my best friend?", "Mateus"),
            ("when is my exam?", "chemistry exam is on Friday"),
            ("do you remember when my interview is", "Monday"),
            ("when's my birthday", "3 March"),
            ("what's my job", "night baker"),
            ("what is my favorite color", "green"),
            ("what am i allergic to?", "nuts"),
            ("what's my teacher called", "Mrs Amis"),
        ] {
            let answer = answer(question, &known).unwrap_or_else(|| panic!("{question}"));
            assert!(answer.contains(part), "{question}: {answer}");
        }
    }

    #[test]
    fn what_was_not_told_is_not_made_up() {
        for question in ["what's my name", "what is my cat called", "when is my exam"] {
            assert!(answer(question, &[]).unwrap().contains("told me"), "{question}");
        }
        for other in
            ["my name is Bo", "what should i tell my sister", "when my exam is over i sleep", "my dog", ""]
        {
            assert_eq!(answer(other, &facts(&["name Bo", "dog Rex"])), None, "{other}");
        }
    }
}
