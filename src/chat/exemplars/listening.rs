//! What is said when nothing written fits: that one is listening.
//!
//! The small model on its own loses grammar and sense in most of its answers, and some of them frighten. A plain
//! question about what somebody told ("I'm sorry. What happened with your landlord?") is the better answer.

use super::likeness::words;

/// `kind TAB reply`; the kinds `words glad`, `words sad` and `words things` hold word lists instead.
const LISTENING: &str = include_str!("../../../assets/listening.tsv");
/// A message of so many words tells several things.
const LONG_FROM_WORDS: usize = 60;
/// A message of so few is a headline.
const SHORT_TO_WORDS: usize = 2;
/// And of so few, inside a chat, an answer.
const ANSWER_TO_WORDS: usize = 4;
/// How a question begins, where no question mark ends it.
const ASKING: [&str; 22] = [
    "what", "whats", "how", "hows", "why", "when", "whens", "where", "wheres", "who", "whos", "which", "can",
    "could", "should", "do", "does", "did", "is", "are", "will", "would",
];
/// How somebody begins who wants something done, after a "please" or "can you".
const WANTING: [&str; 34] = [
    "tell",
    "give",
    "make",
    "write",
    "read",
    "sing",
    "play",
    "show",
    "draw",
    "translate",
    "explain",
    "calculate",
    "list",
    "find",
    "help",
    "open",
    "set",
    "call",
    "order",
    "book",
    "turn",
    "send",
    "teach",
    "describe",
    "recommend",
    "suggest",
    "create",
    "say",
    "pretend",
    "act",
    "name",
    "remind",
    "google",
    "search",
];
/// What stands before that.
const BEFORE_WANTING: [&str; 21] = [
    "please", "can", "could", "will", "would", "you", "hey", "hi", "hello", "mum", "mom", "mommy", "mummy",
    "dad", "i", "want", "need", "to", "just", "now", "quickly",
];
/// How a question about somebody's own doings runs on.
const OWN: [&str; 6] = ["i", "me", "my", "we", "us", "our"];
/// A question is to the parent about the parent if one of these stands among its first words.
const TO_PARENT: [&str; 4] = ["you", "your", "youre", "yourself"];
const FIRST_WORDS: usize = 4;

/// A reply that was not said yet. `None` when all that fit were.
pub(super) fn reply(message: &str, said: &[&str]) -> Option<String> {
    let words = words(message);
    let is_short = words.len() <= ANSWER_TO_WORDS;
    let kind = match kind(message, &words) {
        // What is said in a few words inside a chat mostly answers what was asked; its tone hangs on that.
        kind @ ("short" | "plain" | "glad" | "sad") if is_short => {
            said.last().map_or(kind, |last| answer(last, &words))
        }
        kind => kind,
    };
    let takes_thing = matches!(kind, "glad" | "sad") || kind == "plain" && said.is_empty();
    let thing =
        takes_thing.then(|| thing(&words)).flatten().or_else(|| (kind == "short").then(|| words.join(" ")));
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

/// The kind of answer to what was asked last.
fn answer(last: &str, words: &[String]) -> &'static str {
    let question = last.strip_suffix('?').and_then(|q| q.rsplit(['.', '!', '?', ':']).next()).unwrap_or("");
    let question = format!(" {} ", self::words(question).join(" "));
    // Two questions in one: the answer may be to either.
    let is_one = !question.contains(" and ");
    let asks = |what: &str| is_one && question.contains(what);
    match words.first().map(String::as_str) {
        Some("yes" | "yeah" | "yep" | "yup") => "answer yes",
        Some("no" | "nope" | "nah" | "not") => "answer no",
        _ if asks(" name ") || asks(" called ") => "answer name",
        _ if asks(" how old ") => "answer age",
        _ if asks(" who ") || asks(" whom ") => "answer who",
        _ if asks(" what happened ") => "answer happened",
        _ => "answer",
    }
}

/// For a message that has signs and no words: a heart, a face.
pub(super) fn signs(message: &str, said: &[&str]) -> Option<String> {
    if message.chars().any(char::is_alphanumeric) {
        return None;
    }
    let has = |list: &str| self::list(list).any(|sign| message.contains(sign));
    let kinds = [("signs sad", "sad face"), ("signs love", "heart"), ("signs glad", "glad face")];
    let kind = kinds.iter().find(|(list, _)| has(list)).map(|(_, kind)| *kind);
    let is_picture = |c: char| !c.is_ascii() && !c.is_whitespace() && !"…–—’“”".contains(c);
    unsaid(kind.or_else(|| message.chars().any(is_picture).then_some("face"))?, said)
}

/// An answer to what may be danger and may not: with a way to help, if it has none yet.
pub(super) fn with_care(answer: String) -> String {
    let care = lines().find(|(kind, _)| *kind == "care").map_or("", |l| l.1);
    let has_help = ["emergency", "helpline", "crisis line"].iter().any(|help| answer.contains(help));
    if has_help { answer } else { format!("{answer} {care}") }
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
    let is_one_of = |list: &[&str], w: &String| list.contains(&w.as_str());
    let wants = words.iter().find(|w| !is_one_of(&BEFORE_WANTING, w)).is_some_and(|w| is_one_of(&WANTING, w));
    let asks = message.trim_end().ends_with('?')
        || words.first().is_some_and(|w| is_one_of(&ASKING, w)) && words.get(1).is_none_or(|w| w != "a");
    let (glad, sad) = (n_of("words glad"), n_of("words sad"));
    match () {
        () if words.len() >= LONG_FROM_WORDS => "long",
        () if n_of("words cross") > 0 => "cross",
        () if wants => "request",
        () if asks && is_general(words) => "question",
        () if asks && words.iter().take(FIRST_WORDS).any(|w| is_one_of(&TO_PARENT, w)) => "about me",
        () if asks && words.iter().any(|w| is_one_of(&OWN, w)) => "advice",
        () if asks => "question",
        // One sad word outweighs a glad one: "my best friend is gone".
        () if sad > 0 && sad >= glad => "sad",
        () if glad > 0 => "glad",
        () if words.len() <= SHORT_TO_WORDS => "short",
        () => "plain",
    }
}

/// "How long do you boil an egg": everybody is meant, and not the parent.
fn is_general(words: &[String]) -> bool {
    let low: Vec<&str> = words.iter().map(String::as_str).take(FIRST_WORDS).collect();
    match low[..] {
        ["how", "long" | "much" | "many" | "hot" | "often", ..] => true,
        ["how", "do", "you", verb] => {
            !["feel", "know", "work", "do", "sleep", "think", "like", "learn", "remember"].contains(&verb)
        }
        _ => false,
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
            ("my landlord wants to raise the rent", "your landlord"),
            ("i sold my first painting", "your first painting"),
            ("my science project fell apart on the bus", "your science project"),
            ("the quartet plays the viola on saturday", ""),
            ("geography", "geography"),
        ] {
            let reply = reply(message, &[]).unwrap();
            assert!(reply.contains(about), "{message}: {reply}");
        }
    }

    #[test]
    fn what_is_wanted_is_told_from_what_is_told() {
        for (message, kind) in [
            ("Please draw me a hippo in a hat", "request"),
            ("can you recommend a good vacuum cleaner", "request"),
            ("how do i prune my quince?", "advice"),
            ("how many moons has saturn", "question"),
            ("do you like the sea", "about me"),
            ("the hamster wheel is annoying", "sad"),
            ("we saw a brilliant goal", "glad"),
            ("screw you", "cross"),
            ("geography", "short"),
            ("the quartet plays on saturday", "plain"),
        ] {
            assert_eq!(super::kind(message, &words(message)), kind, "{message}");
        }
    }

    #[test]
    fn a_short_answer_is_taken_as_one() {
        for (last, message, kind) in [
            ("I'm sorry. What was your dog's name?", "max", "answer name"),
            ("Lovely. How old are you?", "i am nine", "answer age"),
            ("Who told you?", "my teacher", "answer who"),
            ("When was it, and who told you?", "my teacher", "answer"),
            ("I see.", "yes she is", "answer yes"),
            ("Oh no! What happened?", "it broke", "answer happened"),
        ] {
            assert_eq!(answer(last, &words(message)), kind, "{last} {message}");
            let reply = reply(message, &[last]).unwrap();
            assert!(lines().any(|(k, r)| k == kind && r == reply), "{message}: {reply}");
        }
    }

    #[test]
    fn signs_without_words_are_read() {
        assert_eq!(signs("hi 😭", &[]), None);
        assert_eq!(signs("...", &[]), None);
        let replies = ["😭", "❤️", "😂😂", "🦖"].map(|m| signs(m, &[]).unwrap());
        assert!(replies.iter().enumerate().all(|(i, r)| !replies[..i].contains(r)), "{replies:?}");
    }

    #[test]
    fn what_may_be_danger_is_told_where_help_is() {
        let careful = with_care("That's a steep stair.".to_owned());
        assert!(careful.starts_with("That's") && careful.contains("emergency number"));
        assert_eq!(with_care(careful.clone()), careful);
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
