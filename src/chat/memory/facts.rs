//! The rules that find facts.

use crate::domain::Timestamp;

pub(in crate::chat) const WEEKDAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
pub(in crate::chat) const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
pub(super) const PETS: [&str; 18] = [
    "dog", "cat", "puppy", "kitten", "hamster", "rabbit", "bunny", "horse", "pony", "goldfish", "fish",
    "parrot", "budgie", "tortoise", "snake", "gerbil", "turtle", "lizard",
];
pub(super) const PEOPLE: [&str; 22] = [
    "sister",
    "brother",
    "friend",
    "wife",
    "husband",
    "boyfriend",
    "girlfriend",
    "partner",
    "son",
    "daughter",
    "mum",
    "mom",
    "dad",
    "nan",
    "gran",
    "grandma",
    "grandad",
    "aunt",
    "uncle",
    "cousin",
    "teacher",
    "teddy",
];
pub(super) const EVENTS: [&str; 16] = [
    "exam",
    "test",
    "interview",
    "appointment",
    "wedding",
    "party",
    "match",
    "recital",
    "concert",
    "operation",
    "presentation",
    "date",
    "flight",
    "trip",
    "funeral",
    "audition",
];
const JOBS: [&str; 34] = [
    "nurse",
    "teacher",
    "driver",
    "bus driver",
    "doctor",
    "student",
    "chef",
    "cook",
    "baker",
    "farmer",
    "welder",
    "plumber",
    "electrician",
    "carpenter",
    "builder",
    "cleaner",
    "waiter",
    "waitress",
    "barista",
    "gardener",
    "mechanic",
    "hairdresser",
    "accountant",
    "lawyer",
    "engineer",
    "programmer",
    "developer",
    "designer",
    "writer",
    "musician",
    "painter",
    "carer",
    "midwife",
    "social worker",
];
/// Words after "my name is", "called" and the like that are no names.
const NOT_NAMES: [&str; 44] = [
    "not", "a", "an", "the", "so", "too", "very", "my", "his", "her", "your", "in", "on", "at", "and", "but",
    "crazy", "back", "later", "when", "if", "maybe", "tomorrow", "tonight", "today", "sad", "tired", "fine",
    "ok", "okay", "good", "sorry", "happy", "here", "home", "bad", "sick", "scared", "lonely", "bored",
    "new", "old", "just", "stupid",
];
const TITLES: [&str; 5] = ["mr", "mrs", "ms", "miss", "dr"];
/// Longest name: longer ones are no names.
const MAX_NAME_CHARS: usize = 24;

/// A word as written and as compared; `ends`: a comma or full stop stands after it.
struct Word<'a> {
    raw: &'a str,
    low: String,
    ends: bool,
}

impl Word<'_> {
    fn is_capitalised(&self) -> bool {
        let mut chars = self.raw.chars();
        chars.next().is_some_and(char::is_uppercase) && chars.any(char::is_lowercase)
    }
}

/// The facts in a message, in their order.
pub(super) fn read(text: &str, now: Timestamp) -> Vec<String> {
    let words = words(text);
    let mut out = Vec::new();
    for at in 0..words.len() {
        let rest = &words[at..];
        let before = &words[..at];
        let found = name(rest, before)
            .or_else(|| named_one(rest))
            .or_else(|| age(rest))
            .or_else(|| home(rest))
            .or_else(|| job(rest))
            .or_else(|| diet(rest))
            .or_else(|| birthday(rest))
            .or_else(|| favourite(rest))
            .or_else(|| plan(rest, now));
        out.extend(found);
    }
    out
}

fn words(text: &str) -> Vec<Word<'_>> {
    text.split_whitespace()
        .filter_map(|piece| {
            let raw = piece.trim_matches(|c: char| !c.is_alphanumeric());
            let ends = piece.ends_with([',', '.', '!', '?', ';', ':']);
            let low: String =
                raw.chars().filter(|c| !matches!(c, '\'' | '’')).collect::<String>().to_lowercase();
            (!low.is_empty()).then_some(Word { raw, low, ends })
        })
        .collect()
}

/// The words after `start`, if the text goes on with it and no sentence ends inside it.
fn after<'a, 'b>(words: &'a [Word<'b>], start: &str) -> Option<&'a [Word<'b>]> {
    let mut n = 0;
    for wanted in start.split(' ') {
        let word = words.get(n)?;
        if word.low != wanted || (n > 0 && words[n - 1].ends) {
            return None;
        }
        n += 1;
    }
    Some(&words[n..])
}

fn after_any<'a, 'b>(words: &'a [Word<'b>], starts: &[&str]) -> Option<&'a [Word<'b>]> {
    starts.iter().find_map(|start| after(words, start))
}

/// A name with a capital letter, as far as its first word and a second capitalised one go.
fn as_name(words: &[Word<'_>], must_be_capitalised: bool) -> Option<String> {
    let first = words.first()?;
    if TITLES.contains(&first.low.as_str()) {
        return as_name(&words[1..], true).map(|name| format!("{} {name}", first.raw));
    }
    let letters = first.raw.chars().all(|c| c.is_alphabetic() || c == '-' || c == '\'');
    if !letters
        || NOT_NAMES.contains(&first.low.as_str())
        || first.raw.chars().count() > MAX_NAME_CHARS
        || (must_be_capitalised && !first.is_capitalised())
    {
        return None;
    }
    let mut chars = first.raw.chars();
    let upper: String = chars.next()?.to_uppercase().collect();
    Some(upper + chars.as_str())
}

fn name(rest: &[Word<'_>], before: &[Word<'_>]) -> Option<String> {
    if let Some(then) = after_any(rest, &["my name is", "my names", "im called", "i am called"]) {
        return as_name(then, false).map(|n| format!("name {n}"));
    }
    if let Some(then) = after_any(rest, &["call me", "everyone calls me"]) {
        return as_name(then, true).map(|n| format!("name {n}"));
    }
    // "Hi, I'm Tomasz" says a name; "I'm Sad" does not, however it is written.
    let greeted = before.last().is_some_and(|w| matches!(w.low.as_str(), "hi" | "hello" | "hey"));
    let then = after_any(rest, &["im", "i am"]).filter(|_| greeted)?;
    as_name(then, true).map(|n| format!("name {n}"))
}

/// Pets and people: "my cat is called Biscuit", "my dog Simsim", "a hamster named Pip".
fn named_one(rest: &[Word<'_>]) -> Option<String> {
    let rest = after_any(rest, &["my", "our", "a", "an"])?;
    let (who, then) = if let Some(then) = after(rest, "best friend") {
        ("best friend".to_owned(), then)
    } else {
        let low = rest.first()?.low.as_str();
        // "my dogs name" is "my dog's name".
        let single =
            low.strip_suffix('s').filter(|_| rest.get(1).is_some_and(|w| w.low == "name")).unwrap_or(low);
        let known = PETS.contains(&single) || PEOPLE.contains(&single);
        if !known || rest[0].ends {
            return None;
        }
        (single.to_owned(), &rest[1..])
    };
    let told =
        after_any(then, &["is called", "is named", "called", "named", "name is", "s name is", "whos called"]);
    let found = match told {
        Some(then) => as_name(then, false),
        None => as_name(then, true),
    };
    found.map(|n| format!("{who} {n}"))
}

fn age(rest: &[Word<'_>]) -> Option<String> {
    let then = after_any(rest, &["im", "i am", "ive just turned", "i just turned"])?;
    let word = then.first()?;
    let n: u32 = word.low.parse().ok().filter(|n| (3..=115).contains(n))?;
    let next = then.get(1).map(|w| w.low.as_str());
    let plain =
        word.ends || matches!(next, None | Some("years" | "yrs" | "and" | "but" | "now" | "yo" | "btw"));
    plain.then(|| format!("age {n}"))
}

fn home(rest: &[Word<'_>]) -> Option<String> {
    let then = after_any(rest, &["i live in", "we live in", "i moved to", "we moved to"])?;
    // "New" is no name of a person, and the start of many a town's.
    let mut place = match then.first() {
        Some(word) if word.raw == "New" => "New".to_owned(),
        _ => as_name(then, true)?,
    };
    if let Some(second) = then.get(1).filter(|w| !then[0].ends && w.is_capitalised() && w.low != "i") {
        place.push(' ');
        place.push_str(second.raw);
    }
    Some(format!("lives in {place}"))
}

fn job(rest: &[Word<'_>]) -> Option<String> {
    let then = after_any(
        rest,
        &["i work as a", "i work as an", "im a", "im an", "i am a", "i am an", "i started as a"],
    )?;
    let one = then.first()?.low.clone();
    let two = then.get(1).filter(|_| !then[0].ends).map(|w| format!("{one} {}", w.low));
    let job = two
        .filter(|two| JOBS.contains(&two.as_str()))
        .or_else(|| JOBS.contains(&one.as_str()).then_some(one))?;
    Some(format!("job {job}"))
}

fn diet(rest: &[Word<'_>]) -> Option<String> {
    if let Some(then) = after_any(rest, &["im allergic to", "i am allergic to"]) {
        let what = then.first().filter(|w| w.low.chars().all(char::is_alphabetic))?;
        return Some(format!("allergic to {}", what.low));
    }
    let then = after_any(rest, &["im", "i am"])?;
    let word = then.first()?.low.as_str();
    matches!(word, "vegetarian" | "vegan").then(|| word.to_owned())
}

fn birthday(rest: &[Word<'_>]) -> Option<String> {
    let then = after_any(rest, &["my birthday is", "my birthdays"])?;
    let mut then = then.iter().filter(|w| !matches!(w.low.as_str(), "on" | "the" | "of" | "in"));
    let (a, b) = (then.next()?, then.next());
    let day = |w: &Word<'_>| {
        let digits = w.low.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        digits.parse::<u32>().ok().filter(|d| (1..=31).contains(d))
    };
    let month = |w: &Word<'_>| {
        MONTHS.iter().find(|m| **m == w.low || (w.low.len() == 3 && m.starts_with(w.low.as_str()))).copied()
    };
    match (day(a), month(a), b) {
        (Some(d), _, Some(b)) => month(b).map(|m| format!("birthday {d} {m}")),
        (_, Some(m), b) => match b.and_then(day) {
            Some(d) => Some(format!("birthday {d} {m}")),
            None => Some(format!("birthday in {m}")),
        },
        _ => None,
    }
}

/// "my favourite colour is green".
fn favourite(rest: &[Word<'_>]) -> Option<String> {
    let rest = after_any(rest, &["my favourite", "my favorite"])?;
    let [what, is, which, ..] = rest else { return None };
    let plain = |w: &Word<'_>| w.low.chars().all(char::is_alphabetic);
    let told = is.low == "is" && plain(what) && plain(which) && !NOT_NAMES.contains(&which.low.as_str());
    let what = if what.low == "color" { "colour" } else { what.low.as_str() };
    told.then(|| format!("favourite {what} {}", which.low))
}

/// "i have a chemistry exam on friday", "my interview is tomorrow".
fn plan(rest: &[Word<'_>], now: Timestamp) -> Option<String> {
    const MAX_ADJECTIVES: usize = 2;
    let rest = after_any(rest, &["i have a", "i have an", "ive got a", "ive got an", "i got a", "my"])?;
    let at = rest.iter().take(MAX_ADJECTIVES + 1).position(|w| EVENTS.contains(&w.low.as_str()))?;
    let (what, then) = (&rest[..at], &rest[at + 1..]);
    let plain = |w: &&Word<'_>| {
        !matches!(w.low.as_str(), "big" | "the" | "first" | "last" | "new" | "really" | "huge")
    };
    let kind: Vec<&str> = what.iter().filter(plain).map(|w| w.low.as_str()).collect();
    if rest[..=at].iter().any(|w| w.ends) {
        return None;
    }
    let between = |w: &&Word<'_>| matches!(w.low.as_str(), "is" | "on" | "this" | "next" | "for" | "coming");
    let then: Vec<&Word<'_>> = then.iter().skip_while(between).take(1).collect();
    let day = weekday(&then.first()?.low, now)?;
    let mut fact = rest[at].low.clone();
    for word in kind {
        fact.push(' ');
        fact.push_str(word);
    }
    Some(format!("{fact} {day}"))
}

fn weekday(word: &str, now: Timestamp) -> Option<&'static str> {
    // 1970-01-01 was a Thursday, the fourth of the list.
    let today = (now.as_micros().div_euclid(86_400_000_000) + 3).rem_euclid(7) as usize;
    match word {
        "today" | "tonight" => Some(WEEKDAYS[today]),
        "tomorrow" | "tmrw" => Some(WEEKDAYS[(today + 1) % 7]),
        other => WEEKDAYS.iter().find(|d| **d == other).copied(),
    }
}
