//! Plain questions: how long an egg boils, and what is asked of the parent at the end of a story.
//!
//! A sentence that asks is read by itself, so that what was told before it neither hides the question nor answers it.

use super::{Match, Situation, Word, best_unsaid, coverage, filled, matched, message_words, situations};

/// How the names of the situations begin that only a question is for: "he cooked rice for me" is none.
pub(super) const KNOWN: &str = "know ";
/// and those that answer what is asked about the parent.
const ABOUT_PARENT: &str = "about me";
/// Greetings and tests are no questions behind a story.
const NO_QUESTIONS: [&str; 1] = ["about me, testing"];
/// Share of a question's weighty words that one for the kitchen has at least,
const COVERED_FROM_KNOWN: f32 = 0.4;
/// the same with what was told before it,
const COVERED_FROM_STORY: f32 = 0.5;
/// and one about the parent.
const COVERED_FROM_PARENT: f32 = 0.6;
/// How a question begins where no mark ends it, or what is asked for without one.
const ASKS: [&str; 32] = [
    "how", "hows", "what", "whats", "which", "when", "where", "wheres", "why", "who", "whos", "is", "are",
    "can", "could", "should", "do", "does", "will", "would", "any", "ideas", "tips", "suggest", "give",
    "help", "need", "teach", "tell", "explain", "recipe", "whose",
];
/// Inside a sentence these make it one; "my grandson taught me how to" does not.
const ASKS_INSIDE: [&str; 14] = [
    "dont know how",
    "no idea how",
    "idk how",
    "not sure how",
    "forgot how",
    "dont know what to",
    "not sure what to",
    "idk what to",
    "no idea what to",
    "no clue what to",
    "no clue how",
    "name ideas",
    "gift ideas",
    "present ideas",
];
/// What may stand before.
const BEFORE: [&str; 22] = [
    "so", "and", "but", "please", "hey", "hi", "hello", "mum", "mom", "mommy", "dad", "ok", "well", "also",
    "now", "then", "um", "quick", "question", "anyway", "just", "first",
];

/// The answer to a question, and whether it is all that was said.
pub(in super::super) struct Answer {
    /// What is said.
    pub(in super::super) text: String,
    /// The message is that one question.
    pub(in super::super) is_all: bool,
}

/// The answer to the last question of a message that is known here.
pub(in super::super) fn answer(message: &str, said: &[&str]) -> Option<Answer> {
    let sentences = sentences(message);
    let is_all = sentences.len() == 1;
    let asking = sentences.iter().rev().filter(|s| is_asking(s));
    let mut found = asking.filter_map(|sentence| {
        let words = message_words(sentence);
        let of_known = |words: &[Word], from: f32| {
            best(words, |s| s.name.starts_with(KNOWN)).filter(|(s, _)| coverage::covered(s, words) >= from)
        };
        let known = of_known(&words, COVERED_FROM_KNOWN).or_else(|| {
            // Alone it has been read; without its small words what a pattern bars would go unseen.
            let told = sentences.iter().take_while(|s| *s != sentence);
            told.clone().next()?;
            of_known(&with_story(told, sentence), COVERED_FROM_STORY)
        });
        // A message of one sentence is looked at whole, and by more.
        let about_parent = || {
            let (s, found) = best(&words, |s| !s.name.starts_with(KNOWN)).filter(|_| !is_all)?;
            let is_it = s.name.starts_with(ABOUT_PARENT) && !NO_QUESTIONS.contains(&s.name);
            (is_it && coverage::covered(s, &words) >= COVERED_FROM_PARENT).then_some((s, found))
        };
        let (situation, _) = known.or_else(about_parent)?;
        let replies = situation.replies.iter().filter_map(|reply| filled(reply, &[])).collect();
        best_unsaid(replies, sentence, said)
    });
    found.next().map(|text| Answer { text, is_all })
}

/// "We're adopting a greyhound! Any name ideas?" in its weighty words: "adopting greyhound name ideas".
fn with_story<'a>(told: impl Iterator<Item = &'a &'a str>, sentence: &str) -> Vec<Word> {
    let is_kept = |w: &Word| coverage::is_weighty(&w.raw) || ASKS.contains(&w.raw.as_str());
    let mut words: Vec<Word> =
        told.flat_map(|s| message_words(s)).filter(|w| coverage::is_weighty(&w.raw)).collect();
    words.extend(message_words(sentence).into_iter().filter(is_kept));
    for word in &mut words {
        word.ends_sentence = false;
    }
    words
}

/// The situation of these that a sentence speaks of most.
fn best(words: &[Word], of: impl Fn(&Situation) -> bool) -> Option<(&'static Situation, Match)> {
    let all = situations().1.iter().filter(|s| of(s));
    let found = all.filter_map(|situation| {
        let fits = situation.patterns.iter().filter_map(|pattern| matched(pattern, words));
        fits.max_by(|a, b| a.worth.total_cmp(&b.worth)).map(|found| (situation, found))
    });
    // The earlier of equals, as everywhere.
    found.fold(None, |best: Option<(&Situation, Match)>, next| match best {
        Some(best) if best.1.worth >= next.1.worth => Some(best),
        _ => Some(next),
    })
}

fn sentences(message: &str) -> Vec<&str> {
    let parts = message.split_inclusive(['.', '!', '?', '\n']).map(str::trim);
    parts.filter(|part| part.chars().any(char::is_alphanumeric)).collect()
}

fn is_asking(sentence: &str) -> bool {
    let words = crate::chat::exemplars::likeness::words(sentence);
    let first = words.iter().find(|w| !BEFORE.contains(&w.as_str()));
    let text = words.join(" ");
    sentence.ends_with('?')
        || first.is_some_and(|w| ASKS.contains(&w.as_str()))
        || ASKS_INSIDE.iter().any(|asks| text.contains(asks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(message: &str) -> Option<String> {
        answer(message, &[]).map(|a| a.text)
    }

    #[test]
    fn a_plain_question_has_a_plain_answer() {
        for (message, part) in [
            ("How long do you boil an egg so the yolk is still soft?", "Six minutes"),
            ("First time doing laundry on my own, what temperature do I wash towels at?", "60 degrees"),
            ("we're adopting a greyhound next week!! any name ideas?", "Biscuit"),
            ("My roommate never washes her dishes. How do I bring it up without a fight?", ""),
            ("what do i wear to a funeral", "dark"),
            ("I spilled red wine. How do I get wine out of a carpet?", "Blot"),
        ] {
            let reply = text(message);
            assert!(
                reply.as_ref().is_some_and(|r| r.contains(part)) || part.is_empty(),
                "{message}: {reply:?}"
            );
        }
    }

    #[test]
    fn a_question_to_the_parent_is_heard_behind_a_story() {
        let message = "My grandson set up this computer for me but I don't really know how it works. Are you a real person?";
        assert!(text(message).is_some_and(|r| r.contains("program")), "{:?}", text(message));
        assert!(text("I'm at the library. Is this chat private?").is_some_and(|r| r.contains("delete")));
    }

    #[test]
    fn what_is_told_is_no_question() {
        for message in [
            "he cooked rice for me and then he left",
            "my dog's name is Biscuit",
            "i wore a red dress to my aunt's funeral",
            "We boiled eggs at school today!",
            "my roommate died",
            "my brother quit his job without telling us",
            "what can i cook with eggs and potatoes",
        ] {
            assert_eq!(text(message), None, "{message}");
        }
    }
}
