//! Partings and greetings: somebody who says good night wants no new question, one who greets first is greeted back.

use super::likeness::words;

/// What a parting is made of, whatever its order.
const PARTING_WORDS: &str = "goodnight good night nighty bye byebye goodbye cya ya thanks thank thx you u for listening to me my today \
    tonight this evening talk talking chat chatting help helping helped gotta got have need should must better go going gone now \
    i im ill off bed sleep see later soon tomorrow and so much very really a lot the that it was is nice lovely kind great ok okay \
    well mom mum mommy mummy dad being there here your advice time again be dinner take care sweet dreams hugs of all right lunch \
    work class back feel feeling bit xx x ttyl heading headed then with meant means needed what just love lots ya";
/// One of these makes it a parting,
const NIGHTS: [&str; 7] =
    ["goodnight", "good night", "sweet dreams", "off to bed", "going to bed", "go to bed", "go to sleep"];
const PARTINGS: [&str; 16] = [
    "bye",
    "goodbye",
    "gotta go",
    "got to go",
    "have to go",
    "need to go",
    "should go",
    "better go",
    "must go",
    "see you",
    "talk later",
    "talk tomorrow",
    "talk to you",
    "ttyl",
    "cya",
    "heading off",
];
const MAX_PARTING_WORDS: usize = 20;
/// and these a thanking one.
const THANKS: [&str; 4] = ["thank", "thanks", "thx", "helped"];
const NIGHT_THANKED: [&str; 2] = [
    "Good night, and thank you for telling me about your day. Sleep well, and come back whenever you like.",
    "You're welcome, any time. Put the day down by the door now. Good night, and sleep well.",
];
const NIGHT: [&str; 2] = [
    "Good night. Sleep well, and come back whenever you like.",
    "Sleep well. Whatever isn't done will keep until tomorrow. Good night.",
];
const BYE_THANKED: [&str; 2] = [
    "You're welcome, it was good to have you here. Off you go, and look after yourself.",
    "Thank you for coming by. Take care of yourself, and come back whenever you like.",
];
const BYE: [&str; 2] = [
    "Bye for now! Look after yourself, and come back whenever you like.",
    "Off you go, then. Take care, and until soon.",
];
/// How somebody greets before telling something, and the greeting that goes back; the longer first.
const GREETINGS: [(&[&str], &str); 7] = [
    (&["good", "morning"], "Good morning."),
    (&["good", "afternoon"], "Good afternoon."),
    (&["good", "evening"], "Good evening."),
    (&["hello"], "Hello."),
    (&["hi"], "Hello."),
    (&["hiya"], "Hello."),
    (&["morning"], "Good morning."),
];
/// A greeting with less behind it is answered as one.
const MIN_TOLD: usize = 3;
/// How a reply begins that greets by itself.
const GREETS: [&str; 6] = ["hello", "hi", "good", "morning", "welcome", "hey"];

/// The answer to somebody who only takes leave.
pub(super) fn parting(message: &str, said: &[&str]) -> Option<String> {
    let words = words(message);
    let text = format!(" {} ", words.join(" "));
    let has = |list: &[&str]| list.iter().any(|one| text.contains(&format!(" {one} ")));
    let known: Vec<&str> = PARTING_WORDS.split_whitespace().collect();
    let is_all = words.len() <= MAX_PARTING_WORDS && words.iter().all(|w| known.contains(&w.as_str()));
    if !is_all || message.contains('?') || !has(&NIGHTS) && !has(&PARTINGS) {
        return None;
    }
    let replies = match (has(&NIGHTS), has(&THANKS)) {
        (true, true) => NIGHT_THANKED,
        (true, false) => NIGHT,
        (false, true) => BYE_THANKED,
        (false, false) => BYE,
    };
    replies.iter().find(|reply| !said.contains(*reply)).or(replies.last()).map(|reply| (*reply).to_owned())
}

/// A reply with the greeting before it that the message had, at the beginning of a chat.
pub(super) fn greeted(message: &str, reply: String) -> String {
    let words = words(message);
    let begins =
        |with: &[&str]| words.len() >= with.len() + MIN_TOLD && words.iter().zip(with).all(|(w, g)| w == g);
    let first = super::likeness::words(&reply).into_iter().next().unwrap_or_default();
    match GREETINGS.iter().find(|(with, _)| begins(with)) {
        Some((_, greeting)) if !GREETS.contains(&first.as_str()) => format!("{greeting} {reply}"),
        _ => reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parting_opens_nothing_new() {
        for message in [
            "Goodnight, thanks for listening to me today",
            "gotta go, thanks",
            "thank you, that helped. bye!",
            "I'm off to bed now. Thanks mom",
        ] {
            let reply = parting(message, &[]).unwrap();
            assert!(!reply.contains('?'), "{message}: {reply}");
            assert_ne!(parting(message, &[&reply]), Some(reply), "{message}");
        }
    }

    #[test]
    fn what_is_told_is_no_parting() {
        for message in [
            "I have to go to the hospital tomorrow",
            "do I have to go to bed?",
            "my best friend said goodbye",
            "thank you",
            "goodbye, I can't do this any more",
        ] {
            assert_eq!(parting(message, &[]), None, "{message}");
        }
    }

    #[test]
    fn a_greeting_before_a_story_is_returned() {
        let reply = |message: &str| greeted(message, "I'm sorry.".to_owned());
        assert_eq!(reply("Good afternoon. I retired last month."), "Good afternoon. I'm sorry.");
        assert_eq!(reply("hi there"), "I'm sorry.");
        assert_eq!(reply("I retired last month."), "I'm sorry.");
        assert_eq!(greeted("Hello, my dog is ill", "Hello there.".to_owned()), "Hello there.");
    }
}
