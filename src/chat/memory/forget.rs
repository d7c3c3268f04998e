//! "Forget that": what a person does not want remembered.

use super::{Change, REMEMBER_NOTHING};
use crate::domain::Memory;

/// Ways to start asking for it; the request must start a sentence, or "i forget my keys" would be one.
const POLITE: [&str; 12] = [
    "please ",
    "pls ",
    "mom ",
    "mommy ",
    "dad ",
    "ok ",
    "can you ",
    "could you ",
    "you can ",
    "you should ",
    "just ",
    "and ",
];
const NOT_THIS: [&str; 6] =
    ["dont remember", "do not remember", "dont save", "dont keep", "dont note", "dont write"];

/// What to change if the message asks for forgetting; `None` if it does not.
pub(super) fn read(text: &str, known: &[Memory]) -> Option<Vec<Change>> {
    for sentence in text.split(['.', '!', '?', '\n', ';', ',']) {
        let plain: String =
            sentence.chars().filter(|c| !matches!(c, '\'' | '’')).collect::<String>().trim().to_lowercase();
        let mut rest = plain.as_str();
        while let Some(shorter) = POLITE.iter().find_map(|p| rest.strip_prefix(p)) {
            rest = shorter.trim_start();
        }
        if let Some(changes) = one(rest, known) {
            return Some(changes);
        }
    }
    None
}

fn one(request: &str, known: &[Memory]) -> Option<Vec<Change>> {
    let forget = |keep: &dyn Fn(&Memory) -> bool| -> Vec<Change> {
        known.iter().filter(|m| keep(m)).map(|m| Change::Forget(m.id)).collect()
    };
    if request.starts_with("never remember") || never_again(request) {
        let already = known.iter().any(|m| m.content == REMEMBER_NOTHING);
        return Some(if already { Vec::new() } else { vec![Change::Add(REMEMBER_NOTHING.into())] });
    }
    if NOT_THIS.iter().any(|start| request.starts_with(start)) {
        return Some(Vec::new());
    }
    if request.starts_with("remember things again") || request.starts_with("start remembering") {
        return Some(forget(&|m| m.content == REMEMBER_NOTHING));
    }
    let what = request.strip_prefix("forget")?.trim();
    if let Some(about) = what.strip_prefix("about ").or_else(|| what.strip_prefix("my ")) {
        return Some(about_words(about, known));
    }
    match what {
        "everything"
        | "all of it"
        | "everything about me"
        | "all about me"
        | "everything you know"
        | "me" => Some(forget(&|_| true)),
        _ if what.starts_with("that i ") || what.starts_with("where i ") || what.starts_with("how old") => {
            Some(about_words(what, known))
        }
        _ if what == "that"
            || what == "this"
            || what.starts_with("what i ")
            || what.starts_with("that please") =>
        {
            // What was said last: the newest note, with those of the same message.
            let newest = known.iter().filter(|m| m.origin.is_some()).max_by_key(|m| (m.created_at, m.id))?;
            Some(forget(&|m| m.origin == newest.origin))
        }
        _ => None,
    }
}

fn never_again(request: &str) -> bool {
    NOT_THIS.iter().any(|start| {
        request.strip_prefix(start).is_some_and(|rest| rest.contains("anything") || rest.contains("about me"))
    })
}

/// Notes that share a word with what is to be forgotten.
fn about_words(about: &str, known: &[Memory]) -> Vec<Change> {
    const EMPTY: [&str; 12] =
        ["the", "and", "that", "about", "what", "said", "have", "where", "from", "with", "please", "for"];
    let mut words: Vec<&str> =
        about.split(|c: char| !c.is_alphanumeric()).filter(|w| w.len() >= 3 && !EMPTY.contains(w)).collect();
    if about.contains("how old") {
        words.push("age");
    }
    if about.contains("live") {
        words.push("lives");
    }
    let shares = |m: &&Memory| {
        let content = m.content.to_lowercase();
        content.split(' ').any(|c| words.contains(&c))
    };
    known.iter().filter(shares).map(|m| Change::Forget(m.id)).collect()
}
