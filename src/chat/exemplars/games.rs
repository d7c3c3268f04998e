//! What goes on over two messages: a riddle and a guess, a joke and its point, an offer and a yes, a question for the name and
//! a name.

use std::sync::OnceLock;

use super::likeness::{stem, stems, words};
use super::situations;

/// `riddle TAB words of a right answer TAB answer`.
const RIDDLES: &str = include_str!("../../../assets/riddles.tsv");
/// A longer message is no guess.
const MAX_GUESS_WORDS: usize = 5;
/// A longer message is more than a yes.
const MAX_YES_WORDS: usize = 4;
/// A longer message is more than a name.
const MAX_NAME_WORDS: usize = 3;
/// How somebody gives up a riddle.
const GIVING_UP: [&str; 9] = ["idk", "dunno", "give", "know", "tell", "idea", "answer", "what", "no"];
/// How a yes begins.
const YES: [&str; 12] =
    ["yes", "yeah", "yep", "yup", "ya", "ok", "okay", "sure", "please", "alright", "absolutely", "go"];
/// What the parent may have offered, as somebody would ask for it.
const OFFERS: [(&str, &str); 4] = [
    ("story", "tell me a story"),
    ("joke", "tell me a joke"),
    ("riddle", "tell me a riddle"),
    ("poem", "tell me a poem"),
];
/// How the parent asks for a name.
const ASKS_NAME: [&str; 4] =
    ["what's your name?", "what shall i call you?", "what should i call you?", "who are you?"];
/// What stands before a name, and short answers that are none.
const BEFORE_NAME: [&str; 4] = ["im", "its", "just", "ok"];
const NO_NAMES: [&str; 22] = [
    "yes", "no", "ok", "okay", "why", "what", "nothing", "idk", "hi", "hello", "hey", "thanks", "bye",
    "good", "bad", "fine", "sad", "tired", "nobody", "dont", "know", "not",
];

/// Who thinks aloud before a guess,
const THINKING: [&str; 14] = [
    "hmm", "hm", "um", "umm", "wait", "think", "thinking", "sec", "second", "moment", "minute", "hint",
    "clue", "hard",
];
/// and who speaks of something else.
const NO_GUESS: [&str; 24] = [
    "i", "im", "ive", "id", "can", "could", "may", "so", "btw", "anyway", "we", "he", "she", "they", "my",
    "do", "did", "today", "hey", "hi", "mum", "mom", "thanks", "thank",
];
/// How jokes begin that ask for their own answer;
const JOKES: [&str; 8] = [
    "what do you call a",
    "what do you call an",
    "what do you call the",
    "what do u call a",
    "what do u call an",
    "what do you get when",
    "what do you get if",
    "what do u get when",
];
/// these only with the answer behind, or after a joke was announced.
const LIKE_JOKES: [&str; 6] =
    ["what did the", "why did the", "why was the", "how does a", "how do you know", "why dont"];
/// How somebody offers a joke, and what is said to that.
const OFFERS_JOKE: [&str; 14] = [
    "a riddle for you",
    "got a riddle for",
    "i have a joke",
    "ive got a joke",
    "i got a joke",
    "i know a joke",
    "i made up a joke",
    "wanna hear a joke",
    "want to hear a joke",
    "can i tell you a joke",
    "i have another joke",
    "heres a joke",
    "let me tell you a joke",
    "i know a good joke",
];
/// "Knock knock" asks nothing, and is no joke yet.
const MAX_KNOCK_WORDS: usize = 3;
const TELL_IT: &str = "Oh yes, let me hear it!";
const DONT_KNOW: &str = "I don't know! Tell me: ";
const LAUGHS: [&str; 3] = [
    "Ha! That one's going straight into my collection. Who told it to you?",
    "Oh, that's good! I groaned and laughed at once, as far as a program can. Do you know another?",
    "Ha, I didn't see that coming! Have you tried it on anybody at home?",
];

/// What is said to a knock, and to whoever was named then.
const WHO_IS_THERE: &str = "Who's there?";
const AFTER_A_KNOCK: &str = "Ha! I never saw that one coming. Have you got another?";

/// What follows from what the parent said last, if anything does.
pub(super) fn reply(message: &str, said: &[&str]) -> Option<String> {
    let last = said.last()?;
    let words = words(message);
    knocked(message, said)
        .or_else(|| point(message, said))
        .or_else(|| guess(&words, message, last))
        .or_else(|| taken_up(&words, last, said))
        .or_else(|| name(message, &words, last))
}

fn riddles() -> &'static Vec<[&'static str; 3]> {
    static RIDDLE: OnceLock<Vec<[&'static str; 3]>> = OnceLock::new();
    RIDDLE.get_or_init(|| {
        RIDDLES.lines().filter_map(|line| line.split('\t').collect::<Vec<_>>().try_into().ok()).collect()
    })
}

/// A joke that the person tells: asked for its point, or laughed at.
pub(super) fn joke(message: &str, said: &[&str]) -> Option<String> {
    let text = words(message).join(" ");
    if OFFERS_JOKE.iter().any(|offer| text.contains(offer)) && !message.contains('?')
        || OFFERS_JOKE.iter().any(|offer| text.ends_with(offer))
    {
        return Some(TELL_IT.to_owned());
    }
    let (question, point) = message.split_once('?')?;
    let question = words(question).join(" ");
    let is_invited = said.last() == Some(&TELL_IT);
    let begins = |list: &[&str]| list.iter().any(|begin| question.contains(&format!("{begin} ")));
    let has_point = point.chars().any(char::is_alphabetic) && !point.contains('?');
    let is_joke = is_invited || begins(&JOKES) || has_point && begins(&LIKE_JOKES);
    if !is_joke {
        return None;
    }
    if has_point {
        return Some(laugh(message, said));
    }
    let asks = ["what", "why", "how", "who", "where"].into_iter().find(|w| question.starts_with(w));
    Some(format!("{DONT_KNOW}{}?", asks.unwrap_or("what is it")))
}

/// The point of a joke that was asked for, or a joke that asks nothing.
fn point(message: &str, said: &[&str]) -> Option<String> {
    let last = said.last()?;
    let is_told = *last == TELL_IT && words(message).len() > MAX_KNOCK_WORDS;
    let is_other = words(message).first().is_some_and(|w| NO_GUESS.contains(&w.as_str()));
    let is_point = is_told || last.starts_with(DONT_KNOW) && !is_other;
    (is_point && !message.contains('?')).then(|| laugh(message, said))
}

fn laugh(message: &str, said: &[&str]) -> String {
    let from = message.len() % LAUGHS.len();
    let mut laughs = LAUGHS.iter().cycle().skip(from).take(LAUGHS.len());
    laughs.find(|laugh| !said.contains(*laugh)).unwrap_or(&LAUGHS[from]).to_string()
}

/// "It's a clock." -> "clock".
fn answer_word(answer: &str) -> &str {
    let article = |w: &&str| !["It's", "a", "an", "your", "A"].contains(w);
    answer.split_whitespace().find(article).unwrap_or(answer).trim_matches('.')
}

fn guess(words: &[String], message: &str, last: &str) -> Option<String> {
    let [_, keys, answer] = riddles().iter().find(|[riddle, ..]| last.ends_with(riddle))?;
    let guessed = stems(message);
    let another = "Shall I ask you another riddle?";
    if keys.split(' ').any(|key| guessed.contains(&stem(key))) {
        return Some(format!("Yes, that's it! {answer} {another}"));
    }
    let is_short = words.len() <= MAX_GUESS_WORDS;
    if is_short && words.iter().any(|w| THINKING.contains(&w.as_str())) {
        let first: String = answer_word(answer).chars().take(1).collect();
        return Some(format!("Take your time. A hint, if you want one: it begins with {first}."));
    }
    if is_short && words.iter().any(|w| GIVING_UP.contains(&w.as_str())) {
        return Some(format!("{answer} {another}"));
    }
    let is_other = words.first().is_some_and(|w| NO_GUESS.contains(&w.as_str()));
    (is_short && !is_other && situations::reply(message, &[]).is_none())
        .then(|| format!("That's a good guess, but not the one I had in mind. {answer} {another}"))
}

/// A knock-knock joke that the person tells: two answers, the first with the name in it.
fn knocked(message: &str, said: &[&str]) -> Option<String> {
    match said {
        [.., WHO_IS_THERE] => {
            let mut letters = message.trim().trim_end_matches(|c: char| !c.is_alphanumeric()).chars();
            let first = letters.next()?.to_uppercase().to_string();
            Some(format!("{first}{} who?", letters.as_str()))
        }
        [.., WHO_IS_THERE, who] if who.ends_with(" who?") => Some(AFTER_A_KNOCK.to_owned()),
        _ => None,
    }
}

fn taken_up(words: &[String], last: &str, said: &[&str]) -> Option<String> {
    let is_yes = words.len() <= MAX_YES_WORDS && words.first().is_some_and(|w| YES.contains(&w.as_str()));
    let last = last.to_lowercase();
    let question = last.strip_suffix('?')?.rsplit(['.', '!', '?']).next()?;
    let is_offer = ["shall i", "would you like", "do you want"].iter().any(|o| question.contains(o));
    if !is_yes || !is_offer {
        return None;
    }
    let asked = OFFERS.iter().find(|(thing, _)| question.contains(thing)).map(|(_, asked)| *asked);
    let again = || question.contains("another").then(|| situations::another("", said)).flatten();
    asked.and_then(|asked| situations::reply(asked, said)).or_else(again)
}

fn name(message: &str, words: &[String], last: &str) -> Option<String> {
    let last = last.to_lowercase();
    if !ASKS_NAME.iter().any(|asks| last.ends_with(asks)) || words.len() > MAX_NAME_WORDS {
        return None;
    }
    let rest: Vec<&str> =
        message.split_whitespace().map(|w| w.trim_matches(|c: char| !c.is_alphanumeric())).collect();
    let is_before = |w: &str| BEFORE_NAME.contains(&w.to_lowercase().replace(['\'', '’'], "").as_str());
    let [name] = rest.into_iter().filter(|w| !is_before(w)).collect::<Vec<_>>()[..] else { return None };
    let is_name = name.chars().all(char::is_alphabetic)
        && !name.is_empty()
        && !NO_NAMES.contains(&name.to_lowercase().as_str())
        && situations::reply(message, &[]).is_none();
    let mut letters = name.chars();
    let first = letters.next().filter(|_| is_name)?;
    let name: String = first.to_uppercase().chain(letters).collect();
    Some(format!(
        "Hello, {name}! Write \"my name is {name}\" once, and I'll remember it. What sort of day is it?"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_knock_is_answered_and_its_joke_heard_to_the_end() {
        let knocked = situations::reply("knock knock", &[]).unwrap();
        assert_eq!(knocked, WHO_IS_THERE);
        let who = reply("lettuce!", &[WHO_IS_THERE]).unwrap();
        assert_eq!(who, "Lettuce who?");
        assert_eq!(reply("lettuce in its cold", &[WHO_IS_THERE, &who]).as_deref(), Some(AFTER_A_KNOCK));
    }

    #[test]
    fn a_joke_is_asked_for_its_point_and_laughed_at() {
        let fish = joke("What do you call a fish with no eyes?", &[]).unwrap();
        assert_eq!(fish, "I don't know! Tell me: what?");
        let laughed = |message: &str, said: &[&str]| {
            let reply = reply(message, said).or_else(|| joke(message, said));
            reply.is_some_and(|r| LAUGHS.contains(&r.as_str()))
        };
        assert!(laughed("a fsh!", &[&fish]));
        assert!(laughed("what do you call a cow with no legs? ground beef", &[]));
        assert!(laughed("why did the tomato blush? because it saw the salad dressing", &["Hello."]));
        assert_eq!(joke("I have a joke for you", &[]).as_deref(), Some(TELL_IT));
        let why = joke("why are fish so clever?", &[TELL_IT]);
        assert_eq!(why.as_deref(), Some("I don't know! Tell me: why?"));
        assert!(laughed("a horse walks into a bar and orders a drink", &[TELL_IT]));
        for message in ["why did the romans build walls?", "what did the doctor say?", "tell me a joke"] {
            assert_eq!(joke(message, &[]), None, "{message}");
        }
        for message in ["what is a fsh?", "i feel sad today"] {
            assert_eq!(reply(message, &[&fish]), None, "{message}: no point of a joke");
        }
    }

    #[test]
    fn who_thinks_aloud_has_time_and_who_speaks_of_something_else_is_heard() {
        let riddle = riddles()[0][0];
        let thinks = reply("hmm wait let me think", &[riddle]).unwrap();
        assert!(thinks.contains("time") && thinks.contains("with c"), "{thinks}");
        for message in ["i have another question", "my turn now", "can we stop"] {
            assert_eq!(reply(message, &[riddle]), None, "{message}");
        }
    }

    #[test]
    fn a_riddle_goes_on_with_its_answer() {
        for [riddle, keys, answer] in riddles() {
            let right = reply(&format!("is it a {}?", keys.split(' ').next().unwrap()), &[riddle]).unwrap();
            assert!(right.starts_with("Yes") && right.contains(answer), "{riddle}");
            assert!(reply("i give up", &[riddle]).unwrap().starts_with(answer));
            assert!(reply("a purple walrus", &[riddle]).unwrap().contains("good guess"));
        }
        assert_eq!(reply("my dog died this morning", &[riddles()[0][0]]), None);
        assert_eq!(reply("a clock", &["Hello."]), None);
    }

    #[test]
    fn a_yes_takes_what_was_offered() {
        let story = reply("yes please", &["I'm sorry. Shall I tell you a story?"]).unwrap();
        assert!(story.len() > 300, "{story}");
        for (message, last) in [
            ("yes", "What's your favourite story?"),
            ("no", "Shall I tell you a story?"),
            ("yes", "Shall I listen? Tell me a story."),
        ] {
            assert_eq!(reply(message, &[last]), None, "{message} / {last}");
        }
    }

    #[test]
    fn a_name_is_greeted_when_it_was_asked_for() {
        let last = ["Hello! What's your name?"];
        for message in ["tom", "I'm Tom", "Tom."] {
            assert!(reply(message, &last).unwrap().starts_with("Hello, Tom!"), "{message}");
        }
        for message in ["no", "why should i", "i dont know", "😀"] {
            assert_eq!(reply(message, &last), None, "{message}");
        }
    }
}
