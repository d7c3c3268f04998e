//! What is said when nothing written fits: that one is listening.
//!
//! The small model on its own loses grammar and sense in most of its answers, and some of them frighten. A plain
//! question about what somebody told ("I'm sorry. What happened with your landlord?") is the better answer.

use super::likeness::words;

/// `kind TAB reply`; the kinds `words glad`, `words sad` and `words things` hold word lists instead.
const LISTENING: &str = include_str!("../../../assets/listening.tsv");
/// A message of so many words tells several things.
const LONG_FROM_WORDS: usize = 60;
/// How a question begins, where no question mark ends it.
const ASKING: [&str; 15] = [
    "what", "whats", "how", "why", "when", "where", "who", "which", "can", "could", "should", "do", "does",
    "is", "are",
];

/// A reply that was not said yet. `None` when all that fit were.
pub(super) fn reply(message: &str, said: &[&str]) -> Option<String> {
    let words = words(message);
    let kind = kind(message, &words);
    let thing = (kind != "question" && kind != "long").then(|| thing(&words)).flatten();
    let of_kind = || lines().filter(|(k, _)| *k == kind).map(|l| l.1);
    let about_it = thing
        .iter()
        .flat_map(|thing| of_kind().filter(|r| r.contains("{}")).map(move |r| r.replace("{}", thing)));
    // Another one first for another message, so that chats do not all begin alike.
    let mut plain: Vec<&str> = of_kind().filter(|r| !r.contains("{}")).collect();
    let n = message.bytes().map(usize::from).sum::<usize>() % plain.len().max(1);
    plain.rotate_left(n);
    about_it.chain(plain.into_iter().map(str::to_owned)).find(|reply| !said.contains(&reply.as_str()))
}

/// For a text in another language, or keys struck at random.
pub(super) fn unreadable(said: &[&str]) -> Option<String> {
    unsaid("unreadable", said)
}

/// For a message that may speak of danger, and may not.
pub(super) fn unsure(said: &[&str]) -> Option<String> {
    unsaid("unsure", said)
}

/// The first of a kind that was not said; at last the first again.
fn unsaid(kind: &str, said: &[&str]) -> Option<String> {
    let of_kind: Vec<&str> = lines().filter(|(k, _)| *k == kind).map(|l| l.1).collect();
    of_kind
        .iter()
        .find(|reply| !said.contains(reply))
        .or_else(|| of_kind.first())
        .map(|reply| (*reply).to_owned())
}

fn lines() -> impl Iterator<Item = (&'static str, &'static str)> {
    LISTENING.lines().filter_map(|line| line.split_once('\t'))
}

fn list(name: &str) -> impl Iterator<Item = &'static str> {
    lines().find(|(kind, _)| *kind == name).map_or("", |l| l.1).split(' ')
}

fn kind(message: &str, words: &[String]) -> &'static str {
    let n_of = |name: &str| {
        let list: Vec<&str> = list(name).collect();
        words.iter().filter(|w| list.contains(&w.as_str())).count()
    };
    let asks =
        message.trim_end().ends_with('?') || words.first().is_some_and(|w| ASKING.contains(&w.as_str()));
    let (glad, sad) = (n_of("words glad"), n_of("words sad"));
    match () {
        () if words.len() >= LONG_FROM_WORDS => "long",
        () if asks => "question",
        // One sad word outweighs a glad one: "my best friend is gone".
        () if sad > 0 && sad >= glad => "sad",
        () if glad > 0 => "glad",
        () => "plain",
    }
}

/// What "my" or "our" stands before: "my science project fell apart" is about a science project.
fn thing(words: &[String]) -> Option<String> {
    let things: Vec<&str> = list("words things").collect();
    let is_thing = |w: Option<&String>| w.is_some_and(|w| things.contains(&w.as_str()));
    words.iter().enumerate().filter(|(_, w)| matches!(w.as_str(), "my" | "our")).find_map(|(i, _)| {
        let (one, two) = (words.get(i + 1)?, words.get(i + 2));
        match (is_thing(Some(one)), is_thing(two)) {
            (_, true) => Some(format!("{one} {}", two?)),
            (true, false) => Some(one.clone()),
            (false, false) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_about_what_was_said() {
        for (message, about) in [
            ("my landlord wants to raise the rent", "I'm sorry. Tell me what happened with your landlord"),
            ("i sold my first painting", "your first painting"),
            ("my science project fell apart on the bus", "your science project"),
            ("the quartet plays the viola on saturday", ""),
            ("how do i prune a quince?", ""),
        ] {
            let reply = reply(message, &[]).unwrap();
            assert!(reply.contains(about), "{message}: {reply}");
        }
    }

    #[test]
    fn nothing_is_said_twice_and_at_last_nothing() {
        let mut said: Vec<String> = Vec::new();
        while let Some(next) =
            reply("the train stands here", &said.iter().map(String::as_str).collect::<Vec<_>>())
        {
            assert!(!said.contains(&next) && !next.contains("{}"));
            said.push(next);
        }
        assert!(said.len() >= 5);
    }
}
