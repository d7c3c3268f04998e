//! The written sentences behind what was said back: which headings fit a message, and which sentence of them is taken.

use super::super::feeling::{Felt, Valence};
use super::super::likeness::words;
use super::sentences::PARENTS;
use super::{Heard, grammar, sum};

/// `heading TAB part TAB text`: `I` calls out, `C` comforts, `A` advises, `Q` asks; a heading is a feeling or a valence,
/// perhaps with a topic, or a kind of question. Under `topics` stand words and, with `_`, phrases. `models/train/data/echo.txt` is the source.
const ECHO: &str = include_str!("../../../../assets/echo.tsv");
/// Topics that are people: the message must be about one of them.
const ROLES: [&str; 8] = ["friend", "child", "partner", "parent", "sibling", "elder", "gran", "baby"];
/// Feelings that are asked about as such, whatever the matter.
const OWN_QUESTIONS: [&str; 9] =
    ["missing", "loss", "lonely", "jealous", "tired", "ill", "guilty", "shame", "thanks"];
/// What a phrase counts beside a word.
const PHRASE_COUNTS: usize = 2;
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

/// Headings from the most to the least particular; for what comforts and for what asks they differ.
pub(super) struct Headings {
    comfort: Vec<String>,
    ask: Vec<String>,
}

impl Headings {
    /// Those of one heading alone.
    pub(super) fn only(heading: &str) -> Self {
        Self { comfort: vec![heading.to_owned()], ask: vec![heading.to_owned()] }
    }

    /// Those for what was told. Where the feeling isn't sure, its valence is answered, and else what fits anything.
    pub(super) fn new(felt: &Felt, message: &str) -> Self {
        let topics = topics(message);
        let with = |kind: &str| -> Vec<String> {
            topics.iter().map(|topic| format!("{kind} {topic}")).filter(|h| has_heading(h)).collect()
        };
        let feeling: Vec<String> = felt.is_known.then(|| felt.name.to_owned()).into_iter().collect();
        let of_feeling: Vec<String> = feeling.iter().flat_map(|name| with(name)).collect();
        // What asks for something has no sentence of its own that fits all of its kind.
        let valence = felt.valence.filter(|v| *v != Valence::Asks).map(Valence::as_str);
        let tone = valence.unwrap_or(if felt.is_known { "open" } else { felt.name });
        let mut of_valence = if OWN_QUESTIONS.contains(&felt.name) { Vec::new() } else { with(tone) };
        match tone {
            "uneasy" => of_valence.extend(with("hard")),
            "light" => of_valence.extend(with("even")),
            // Some matters are hard whatever the words.
            "open" => {
                let grave = list("grave").filter(|t| topics.contains(t));
                of_valence.extend(grave.map(|t| format!("hard {t}")));
            }
            _ => {}
        }
        let rest = || [tone.to_owned(), "open".to_owned()];
        let is_plain = felt.name == "joy" || felt.name == "neutral";
        let comfort = if is_plain {
            [of_feeling.clone(), of_valence.clone(), feeling.clone()].concat()
        } else {
            [of_feeling.clone(), feeling.clone(), of_valence.clone()].concat()
        };
        Self {
            comfort: comfort.into_iter().chain(rest()).collect(),
            ask: [of_feeling, of_valence, feeling].concat().into_iter().chain(rest()).collect(),
        }
    }

    /// Those for a kind of question.
    pub(super) fn asked(kind: &str, felt: &Felt, message: &str) -> Self {
        let topics = topics(message);
        let with = |kind: &str| topics.iter().map(|t| format!("{kind} {t}")).find(|h| has_heading(h));
        let of_feeling = || if kind == "whatdo" { with(felt.name) } else { None };
        Self::only(&with(kind).or_else(of_feeling).unwrap_or_else(|| kind.to_owned()))
    }

    /// A sentence that was not said and does not ask for what was told, from the first heading that has one.
    pub(super) fn pick(&self, heard: &Heard<'_>, part: &str) -> Option<String> {
        let headings = if part == "Q" { &self.ask } else { &self.comfort };
        // Advice and calls go only with what they were written for.
        let n_first = if part == "Q" || part == "C" { headings.len() } else { 1 };
        headings.iter().take(n_first).find_map(|heading| pick(heard, heading, part))
    }
}

pub(super) fn lines() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    ECHO.lines().filter_map(|line| {
        let mut cells = line.split('\t');
        Some((cells.next()?, cells.next()?, cells.next()?))
    })
}

/// The words and phrases of a list under `words`.
pub(super) fn list(name: &str) -> impl Iterator<Item = &'static str> {
    let of = |(heading, part, list): (&'static str, &'static str, &'static str)| {
        (heading == "words" && part.strip_prefix("W ") == Some(name)).then_some(list)
    };
    lines().find_map(of).unwrap_or_default().split(' ')
}

pub(super) fn has_heading(heading: &str) -> bool {
    lines().any(|(h, ..)| h == heading)
}

/// What a message is about, of the topics that have sentences of their own.
fn topics(message: &str) -> Vec<&'static str> {
    let mut words = words(message);
    // "mummy i can hop": a form of address
    if words.first().is_some_and(|w| PARENTS.contains(&w.as_str())) {
        words.remove(0);
    }
    let text = format!(" {} ", words.join(" "));
    // The first person who is named: a "son practising" is not what a quarrel with the neighbours is about.
    let who = words.iter().find(|w| grammar::has(PEOPLE, w)).cloned();
    let mut found: Vec<(usize, &'static str)> = lines()
        .filter(|(heading, ..)| *heading == "topics")
        .filter_map(|(_, part, list)| {
            let topic = part.strip_prefix("W ")?;
            let is_of = |w: &String| list.split(' ').any(|one| one == w.as_str());
            let has_phrase =
                |one: &&str| one.contains('_') && text.contains(&format!(" {} ", one.replace('_', " ")));
            let n_phrases = list.split(' ').filter(has_phrase).count();
            let n = words.iter().filter(|w| is_of(w)).count() + PHRASE_COUNTS * n_phrases;
            let is_meant = !ROLES.contains(&topic) || who.as_ref().is_none_or(&is_of);
            (n > 0 && is_meant).then_some((n, topic))
        })
        .collect();
    found.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    found.into_iter().map(|(_, topic)| topic).collect()
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
    let n = sum(heard.message) % all.len().max(1);
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
