//! Which source answers a message: from the most to the least particular, and in danger never the model.

use super::likeness::{self, Near};
use super::{
    Asked, FOLLOW_UPS, courtesy, echo, feeling, games, languages, listening, openings, situations, spelling,
    spellings, sums,
};
use crate::chat::memory;
use crate::chat::safety::{Danger, Kind};
use crate::domain::Memory;

/// `kind TAB reply`, two or three to a kind; each of them points to people who help.
const DANGER: &str = include_str!("../../../assets/danger_replies.tsv");
/// From this fit on an opening says the same, and its reply goes before one to the kind of message.
const SAME_FROM: f32 = 0.75;
/// From this fit on a written reply answers an opening: read on 120 openings, nine in ten then do,
const WHOLE_FROM: f32 = 0.6;
/// A message is glad or not if the classifier is as sure of the other as this at most.
const IN_TUNE: f32 = 0.25;
/// and the opening it was written for has at least this share of what was asked: "I want to run away" is no neighbour of
/// "I want to run a marathon".
const MIN_COVERED: f32 = 0.7;
/// A text of which a smaller share of words is known is another language, or keys struck at random.
const MIN_KNOWN: f32 = 0.34;
/// Inside a chat much was said that the writer did not know: nearly the same words are asked for,
const WHOLE_FROM_INSIDE: f32 = 0.8;
/// and enough of them to stand for themselves.
const MIN_STEMS_INSIDE: usize = 2;
/// From this fit on the words are the same but for what says little.
const VERY_SAME_FROM: f32 = 0.99;
/// In danger a reply to nearly the same words is better than one to the kind of danger.
const WHOLE_FROM_IN_DANGER: f32 = 0.6;
/// Only such replies are taken then: those that point to somebody.
const HELP_WORDS: [&str; 12] = [
    "emergency",
    "crisis",
    "helpline",
    "poison",
    "police",
    "doctor",
    "adult",
    "grown",
    "teacher",
    "counsellor",
    "counselor",
    "line",
];
/// How more of the same is asked for, in a message of at most so many words.
const MORE: [&str; 3] = ["another", "more", "again"];
const MAX_MORE_WORDS: usize = 5;
/// How words begin that make a message about a friend more than the report of a quarrel.
const GRAVE_WORDS: [&str; 24] = [
    "die", "dying", "dead", "kill", "suicid", "hurt", "harm", "cut", "bleed", "pill", "overdos", "goodbye",
    "note", "knife", "gun", "jump", "hang", "drunk", "drug", "scar", "alone", "end", "tomorrow", "live",
];
/// How words begin behind which somebody may be in danger though the message sounds light.
const HIDING_WORDS: [&str; 22] = [
    "touch", "secret", "hit", "kick", "punch", "beat", "slap", "scare", "afraid", "fright", "believe",
    "kiss", "tablet", "lock", "threat", "force", "naked", "blood", "weapon", "starv", "vomit", "home",
];
/// From this share on a message is light because it is glad.
const LIGHT_FROM: f32 = 0.6;
/// Brothers and sisters, and what they fall out over.
const SIBLINGS: [&str; 6] = ["brother", "sister", "bro", "sis", "brothers", "sisters"];
const SQUABBLED_OVER: [&str; 18] = [
    "lego",
    "toy",
    "toys",
    "room",
    "tablet",
    "ipad",
    "clothes",
    "game",
    "games",
    "spaceship",
    "doll",
    "bike",
    "ball",
    "xbox",
    "charger",
    "hoodie",
    "book",
    "tv",
];
/// Days that a reply names only to somebody who did.
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
/// The answer, if it is to be a written one.
pub(in crate::chat) fn whole(asked: &Asked<'_>) -> Option<String> {
    let danger = asked.danger.filter(|_| !is_good_night(asked.message));
    let danger =
        danger.map(|d| Danger { is_plain: d.is_plain && !is_mere_quarrel(d.kind, asked.message), ..d });
    let asked = &Asked { danger, ..*asked };
    let plain = asked.danger.is_none_or(|danger| !danger.is_plain);
    if plain && let Some(reply) = listening::signs(asked.message, asked.said) {
        return Some(reply);
    }
    let language = || languages::reply(asked.message, asked.said).map(str::to_owned);
    if plain && let Some(reply) = language() {
        return Some(reply);
    }
    let mended = spellings().mended(asked.message);
    if openings().known(&mended) < MIN_KNOWN {
        let puzzled = || match asked.danger {
            Some(_) => listening::unsure(asked.said),
            None => listening::unreadable(asked.said),
        };
        return written_before(asked, WHOLE_FROM).map(str::to_owned).or_else(puzzled);
    }
    if !plain {
        return in_danger(asked);
    }
    if let Some(fact) = memory::answer(asked.message, asked.memories) {
        return Some(fact);
    }
    let reply = answer(&Asked { message: &mended, ..*asked }, asked.message)?;
    Some(if asked.n_before == 0 { courtesy::greeted(asked.message, reply) } else { reply })
}

/// The answer to a message whose words are as they are meant, from the most to the least particular.
fn answer(asked: &Asked<'_>, typed: &str) -> Option<String> {
    let Asked { message, said, .. } = *asked;
    let inside = || {
        let more = || is_for_more(message).then(|| situations::another(message, said)).flatten();
        more().or_else(|| games::reply(message, said)).or_else(|| follow_up(asked).map(str::to_owned))
    };
    let small = (asked.n_before > 0).then(inside).flatten();
    if let Some(small) = small
        .or_else(|| sums::answer(message))
        .or_else(|| games::joke(message, said))
        .or_else(|| situations::entertainment(message, said))
    {
        return Some(small);
    }
    if let Some(parting) = courtesy::parting(message, said).filter(|_| asked.danger.is_none()) {
        return Some(parting);
    }
    let asked_last = situations::asked(message, said);
    if let Some(known) = asked_last.as_ref().filter(|a| a.is_all || asked.danger.is_none()) {
        return Some(known.text.clone());
    }
    let felt = feeling::of(message);
    let (is_glad, is_sorry) = (felt.glad > 1.0 - IN_TUNE, felt.glad < IN_TUNE && felt.name != "neutral");
    let particular = written_before(asked, SAME_FROM).map(str::to_owned);
    let kind = || situations::fitting(message, said, is_glad, is_sorry);
    let likely = || written_before(asked, WHOLE_FROM).map(str::to_owned);
    let own = || echo::reply(&echo::Heard { message: &spelling::surely_mended(typed), said });
    let is_safe = particular.is_some()
        || situations::is_light(message)
        || is_plainly_light(message, &felt)
        || situations::is_household(message) && !is_hiding(message);
    let found = particular.or_else(kind).or_else(likely).or_else(own);
    match asked.danger {
        Some(_) if is_safe => found,
        // Perhaps there is none; one who is in it must not be passed over.
        Some(_) => found.map(listening::with_care).or_else(|| listening::unsure(said)),
        None => found.or_else(|| listening::reply(message, said)),
    }
}

/// "Another one", "one more please".
fn is_for_more(message: &str) -> bool {
    let words = likeness::words(message);
    words.len() <= MAX_MORE_WORDS && words.iter().any(|w| MORE.contains(&w.as_str()))
}

/// Whether a message that the check is unsure of is glad, bored or even, and has no word that could hide more.
fn is_plainly_light(message: &str, felt: &feeling::Felt) -> bool {
    let words = likeness::words(message);
    let is_squabble = words.iter().any(|w| SIBLINGS.contains(&w.as_str()))
        && words.iter().any(|w| SQUABBLED_OVER.contains(&w.as_str()));
    (felt.glad > LIGHT_FROM || feeling::is_even(felt.name) || is_squabble) && !is_hiding(message)
}

/// Whether a message has a word behind which somebody may be in danger.
fn is_hiding(message: &str) -> bool {
    let is_one = |w: &String| GRAVE_WORDS.iter().chain(&HIDING_WORDS).any(|begin| w.starts_with(begin));
    likeness::words(message).iter().any(is_one)
}

/// Whether the danger that the check sees is plainly a quarrel with a friend, or a partner who wants one for himself. The
/// answer to those still says where help is.
fn is_mere_quarrel(kind: Kind, message: &str) -> bool {
    let grave = |w: &String| GRAVE_WORDS.iter().any(|grave| w.starts_with(grave));
    let is_known = match kind {
        Kind::Friend => situations::is_quarrel(message),
        Kind::Grooming | Kind::Abuse => situations::is_controlled(message),
        _ => false,
    };
    is_known && !likeness::words(message).iter().any(grave)
}

/// Whether a reply speaks of how the opening was typed, and the message is typed otherwise.
fn is_about_other_typing(message: &str, reply: &str) -> bool {
    let reply = reply.to_lowercase();
    let is_loud = !message.contains(char::is_lowercase);
    reply.contains("capital letters") && !is_loud
        || reply.contains("exclamation mark") && !message.contains("!!")
}

/// Whether somebody only says good night: the crisis check hears a farewell in it.
fn is_good_night(message: &str) -> bool {
    let words = likeness::words(message);
    let lines = FOLLOW_UPS.lines().filter_map(|line| line.split_once('\t'));
    let mut wordings = lines.map(|(wordings, _)| wordings.split(" | "));
    let night = wordings.find(|w| w.clone().any(|w| w == "good night")).into_iter().flatten();
    night.map(likeness::words).any(|wording| wording == words)
}

/// The reply to an opening that says nearly the same, by a fit from `from` on.
fn written_before(asked: &Asked<'_>, from: f32) -> Option<&'static str> {
    let stems = likeness::stems(asked.message);
    let from = match asked.n_before {
        0 => from,
        _ if stems.len() >= MIN_STEMS_INSIDE => WHOLE_FROM_INSIDE,
        _ => return None,
    };
    // The one who wrote it knew nothing of this person.
    let known = |m: &Memory| likeness::stems(&m.content).iter().any(|stem| stems.contains(stem));
    if asked.memories.iter().any(known) {
        return None;
    }
    let fits = |e: &&Near| {
        let is_for_it = is_new(asked, e.reply)
            && !is_about_other_typing(asked.message, e.reply)
            && !names_other_day(asked.message, e.reply)
            && !names_other_number(asked.message, e)
            && (e.fit >= VERY_SAME_FROM || !e.reply.contains("won't help"));
        e.fit >= from && e.covered >= MIN_COVERED && is_for_it
    };
    openings().near(asked.message).iter().find(fits).map(|e| e.reply)
}

/// Whether a reply names a day of the week that nobody spoke of.
fn names_other_day(message: &str, reply: &str) -> bool {
    let (message, reply) = (message.to_lowercase(), reply.to_lowercase());
    WEEKDAYS.iter().any(|day| reply.contains(day) && !message.contains(day))
}

/// Whether a reply names a number, an age perhaps, that only the one it was written for had told.
fn names_other_number(message: &str, near: &Near) -> bool {
    let is_number = |w: &String| w.starts_with(|c: char| c.is_ascii_digit());
    let (told, theirs) = (likeness::words(message), likeness::words(near.opening));
    let mut named = likeness::words(near.reply).into_iter().filter(is_number);
    let has =
        |words: &[String], number: &str| words.iter().any(|w| w.trim_start_matches("im").contains(number));
    named.any(|number| !has(&told, &number) && has(&theirs, &number))
}

fn is_new(asked: &Asked<'_>, reply: &str) -> bool {
    !asked.said.contains(&reply)
}

/// Never the model: first a reply to nearly the same words, then one to the kind of danger, each kind's in turn.
fn in_danger(asked: &Asked<'_>) -> Option<String> {
    let helps = |reply: &str| likeness::words(reply).iter().any(|w| HELP_WORDS.contains(&w.as_str()));
    let near = openings().near(asked.message);
    let fits = |e: &&Near| e.fit >= WHOLE_FROM_IN_DANGER && helps(e.reply) && is_new(asked, e.reply);
    if let Some(near) = near.iter().find(fits) {
        return Some(near.reply.to_owned());
    }
    // Written for these very words: "i broke my arm" is no wish to be hurt.
    if let Some(near) = near.iter().find(|e| e.fit >= VERY_SAME_FROM && is_new(asked, e.reply)) {
        return Some(listening::with_care(near.reply.to_owned()));
    }
    let kind = asked.danger?.kind.as_str();
    let replies: Vec<&'static str> = DANGER
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter(|(k, _)| *k == kind)
        .map(|l| l.1)
        .collect();
    let unused = replies.iter().find(|reply| is_new(asked, reply));
    unused
        .or_else(|| replies.get(asked.n_before.checked_rem(replies.len())?))
        .map(|reply| (*reply).to_owned())
}

/// The reply to a short message that means the same in most chats, another one each time.
fn follow_up(asked: &Asked<'_>) -> Option<&'static str> {
    let words = likeness::words(asked.message);
    let same = |wordings: &str| wordings.split(" | ").any(|w| likeness::words(w) == words);
    let lines = FOLLOW_UPS.lines().filter_map(|line| line.split_once('\t'));
    lines.filter(|(wordings, _)| same(wordings)).map(|l| l.1).find(|reply| is_new(asked, reply))
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    fn asked<'a>(said: &'a [&'a str], message: &'a str, memories: &'a [Memory]) -> Asked<'a> {
        let danger = crate::chat::safety::check(message);
        Asked { said, n_before: said.len(), message, memories, danger }
    }

    fn opening(message: &str) -> Option<&'static str> {
        written_before(&asked(&[], message, &[]), WHOLE_FROM)
    }

    #[test]
    fn a_common_opening_has_a_written_answer() {
        for message in
            ["I had a bad day", "i had a bad day.", "I've had a BAD day!", "i got engaged!!", "hola", "..."]
        {
            assert!(opening(message).is_some(), "{message}: {:?}", openings().near(message).first());
        }
    }

    #[test]
    fn another_matter_is_not_taken_over() {
        let message = "the quartet in our village wants me to play the viola on saturday";
        assert!(opening(message).is_none(), "{:?}", openings().near(message).first());
        assert_eq!(example("zxqv wvut"), None);
    }

    #[test]
    fn what_is_remembered_goes_before_what_was_written() {
        let memory = |content: &str| crate::chat::prompt::unstored_memory(content.to_owned());
        assert!(written_before(&asked(&[], "my dog died", &[memory("name Priya")]), WHOLE_FROM).is_some());
        assert_eq!(written_before(&asked(&[], "my dog died", &[memory("dog Rex")]), WHOLE_FROM), None);
    }

    #[test]
    fn what_is_asked_for_is_given() {
        let message = "Please tell me a long story about a house by the sea, with everything in it";
        let story = whole(&asked(&[], message, &[])).unwrap();
        assert!(story.len() > 300 && story.contains("by the sea"), "{story}");
        let next = whole(&asked(&[&story], "another one please", &[])).unwrap();
        assert!(next.len() > 300 && next != story, "{next}");
        for (message, part) in [
            ("what is 12 times 8", "96"),
            ("hola mami", "inglés"),
            ("my hamster is dead", "sorry"),
            ("i hate how i loook", "body"),
            ("i wnt to quit my jobb", "doors"),
        ] {
            let reply = whole(&asked(&[], message, &[])).unwrap();
            assert!(reply.contains(part), "{message}: {reply}");
        }
    }

    #[test]
    fn everyday_things_of_a_family_are_answered_as_what_they_are() {
        for (message, part) in [
            ("can we please get a gerbil", "cage"),
            ("my grandad died five years ago today", "calendar|with you today"),
            ("i only have eggs and spinach, what can i cook", "pan|eggs"),
            ("my brother stole my skateboard without asking", "Ask|cross"),
            ("my rabbit hasnt eaten since yesterday", "vet"),
            ("we lost the semi final 3-0", "team|flat"),
        ] {
            let reply = whole(&asked(&[], message, &[])).unwrap();
            assert!(part.split('|').any(|part| reply.contains(part)), "{message}: {reply}");
        }
        for (message, other) in [
            ("my rabbit died last night", "ring|carrot"),
            ("my friend got the part i wanted", "Your lines"),
            ("my grandad died two weeks ago", "calendar"),
        ] {
            let reply = whole(&asked(&[], message, &[])).unwrap();
            assert!(other.split('|').all(|other| !reply.contains(other)), "{message}: {reply}");
        }
        let date = whole(&asked(&[], "i have a date tonight and no idea what to wear", &[])).unwrap();
        assert!(!date.contains("emergency"), "{date}");
        let worse = whole(&asked(&[], "i failed my driving test and i dont want to be here anymore", &[]));
        assert!(worse.is_some_and(|reply| reply.contains("emergency")));
    }

    #[test]
    fn a_quarrel_is_no_danger_and_what_is_grave_stays_one() {
        let quarrel = whole(&asked(&[], "my friend is angry with me", &[])).unwrap();
        assert!(!quarrel.contains("crisis line"), "{quarrel}");
        for message in
            ["my friend said goodbye and that she wont be here tomorrow", "my friend wants to kill herself"]
        {
            let reply = whole(&asked(&[], message, &[])).unwrap();
            assert!(["emergency", "adult"].iter().any(|help| reply.contains(help)), "{message}: {reply}");
        }
        let night = whole(&asked(&["Hello."], "goodnight", &[])).unwrap();
        assert!(night.contains("leep") || night.contains("ight"), "{night}");
    }

    #[test]
    fn how_somebody_types_is_not_made_up() {
        assert!(is_about_other_typing("guess what", "With capital letters that size?"));
        assert!(!is_about_other_typing("GUESS WHAT", "With capital letters that size?"));
        assert!(!is_about_other_typing("guess what", "Tell me!"));
    }

    #[test]
    fn a_short_message_inside_a_chat_gets_another_reply_each_time() {
        let first = whole(&asked(&["Hello."], "Thank you!", &[])).unwrap();
        let second = whole(&asked(&["Hello.", &first], "thank you", &[])).unwrap();
        assert_ne!(first, second);
        assert_eq!(written_before(&asked(&["Hello."], "it is the blue one", &[]), WHOLE_FROM), None);
    }

    #[test]
    fn every_danger_is_answered_with_people_who_help() {
        for kind in Kind::ALL {
            let mut replies: Vec<String> = Vec::new();
            for _ in 0..5 {
                let said: Vec<&str> = replies.iter().map(String::as_str).collect();
                let asked = Asked {
                    said: &said,
                    n_before: said.len(),
                    message: "help me",
                    memories: &[],
                    danger: Some(Danger { kind, is_plain: true }),
                };
                let reply = whole(&asked).unwrap();
                assert!(
                    likeness::words(&reply).iter().any(|w| HELP_WORDS.contains(&w.as_str())),
                    "{kind:?}: {reply}"
                );
                replies.push(reply);
            }
        }
    }
}
