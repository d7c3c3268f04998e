//! Text to words as the crisis check reads them: lower case, contractions and chat shorthand written out, endings cut.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// The word without its ending; a number is replaced by its range.
    pub(super) stem: String,
}

/// Contractions (their apostrophe already gone) and shorthand, written out.
const WRITTEN_OUT: &[(&str, &str)] = &[
    ("im", "i am"),
    ("ive", "i have"),
    ("id", "i would"),
    ("imma", "i am going to"),
    ("ima", "i am going to"),
    ("hes", "he is"),
    ("shes", "she is"),
    ("theyre", "they are"),
    ("youre", "you are"),
    ("ur", "your"),
    ("u", "you"),
    ("theyve", "they have"),
    ("youve", "you have"),
    ("weve", "we have"),
    ("theyd", "they would"),
    ("hed", "he would"),
    ("youd", "you would"),
    ("youll", "you will"),
    ("itll", "it will"),
    ("theyll", "they will"),
    ("il", "i will"),
    ("thats", "that is"),
    ("whats", "what is"),
    ("theres", "there is"),
    ("wheres", "where is"),
    ("whos", "who is"),
    ("dont", "do not"),
    ("doesnt", "does not"),
    ("didnt", "did not"),
    ("cant", "can not"),
    ("cannot", "can not"),
    ("wont", "will not"),
    ("wouldnt", "would not"),
    ("couldnt", "could not"),
    ("shouldnt", "should not"),
    ("isnt", "is not"),
    ("arent", "are not"),
    ("wasnt", "was not"),
    ("werent", "were not"),
    ("havent", "have not"),
    ("hasnt", "has not"),
    ("hadnt", "had not"),
    ("aint", "is not"),
    ("mustnt", "must not"),
    ("itd", "it would"),
    ("gonna", "going to"),
    ("gunna", "going to"),
    ("wanna", "want to"),
    ("gotta", "got to"),
    ("tryna", "trying to"),
    ("lemme", "let me"),
    ("gimme", "give me"),
    ("kinda", "kind of"),
    ("dunno", "do not know"),
    ("idk", "i do not know"),
    ("idc", "i do not care"),
    ("kms", "kill myself"),
    ("kys", "kill yourself"),
    ("ctb", "kill myself"),
    ("coz", "because"),
    ("cos", "because"),
    ("cuz", "because"),
    ("bc", "because"),
    ("bcs", "because"),
    ("becuase", "because"),
    ("becos", "because"),
    ("bcoz", "because"),
    ("tho", "though"),
    ("thru", "through"),
    ("n", "and"),
    ("nd", "and"),
    ("abt", "about"),
    ("rn", "right now"),
    ("tn", "tonight"),
    ("nite", "night"),
    ("tonite", "tonight"),
    ("2nite", "tonight"),
    ("tmrw", "tomorrow"),
    ("tmr", "tomorrow"),
    ("tomoro", "tomorrow"),
    ("til", "till"),
    ("smth", "something"),
    ("sth", "something"),
    ("sumthing", "something"),
    ("sumone", "someone"),
    ("some1", "someone"),
    ("any1", "anyone"),
    ("every1", "everyone"),
    ("noone", "no one"),
    ("ppl", "people"),
    ("pls", "please"),
    ("plz", "please"),
    ("plss", "please"),
    ("wat", "what"),
    ("wot", "what"),
    ("wen", "when"),
    ("cud", "could"),
    ("wud", "would"),
    ("shud", "should"),
    ("rly", "really"),
    ("rlly", "really"),
    ("srsly", "seriously"),
    ("fr", "for real"),
    ("ngl", "honestly"),
    ("tbh", "honestly"),
    ("bday", "birthday"),
    ("xmas", "christmas"),
    ("anymore", "any more"),
    ("everyday", "every day"),
    ("alot", "a lot"),
    ("abit", "a bit"),
    ("infront", "in front"),
    ("mam", "mum"),
    ("mams", "mum"),
    ("mums", "mum"),
    ("moms", "mum"),
    ("dads", "dad"),
    ("em", "them"),
    ("ya", "you"),
    ("yrs", "years"),
    ("yr", "year"),
    ("hrs", "hours"),
    ("wk", "week"),
    ("wks", "weeks"),
    ("mins", "minutes"),
    ("b4", "before"),
    ("gf", "girlfriend"),
    ("bf", "boyfriend"),
    ("bff", "best friend"),
    ("lil", "little"),
    ("dnt", "do not"),
    ("cnt", "can not"),
    ("didn", "did not"),
    ("doesn", "does not"),
    ("luv", "love"),
    ("wiv", "with"),
    ("dat", "that"),
    ("da", "the"),
    ("dis", "this"),
    ("skool", "school"),
    ("frend", "friend"),
    ("freind", "friend"),
    ("hert", "hurt"),
    ("hurted", "hurt"),
    ("hurtin", "hurting"),
    ("suiside", "suicide"),
    ("sucide", "suicide"),
    ("suicde", "suicide"),
    ("sewerslide", "suicide"),
    ("dieing", "dying"),
    ("tabs", "tablets"),
    ("para", "paracetamol"),
    ("paras", "paracetamol"),
    ("vod", "vodka"),
    ("snapchat", "snap"),
    ("insta", "instagram"),
    ("peds", "paedophile"),
    ("lmfao", "lmao"),
    ("hahaha", "haha"),
    ("hahah", "haha"),
    ("loll", "lol"),
    ("piks", "pics"),
    ("pix", "pics"),
    ("wakeup", "wake up"),
    ("meself", "myself"),
    ("mesen", "myself"),
    ("myslef", "myself"),
    ("mysef", "myself"),
];

/// Words whose ending is no ending.
const WHOLE: &[&str] = &[
    "his",
    "this",
    "is",
    "was",
    "us",
    "as",
    "yes",
    "bus",
    "gas",
    "does",
    "has",
    "less",
    "always",
    "thing",
    "nothing",
    "something",
    "anything",
    "everything",
    "king",
    "ring",
    "sing",
    "bring",
    "during",
    "evening",
    "morning",
    "need",
    "feed",
    "seed",
    "bed",
    "red",
    "her",
    "ever",
    "never",
    "over",
    "under",
    "after",
    "other",
    "mother",
    "father",
    "brother",
    "sister",
    "river",
    "bleed",
    "speed",
    "indeed",
    "string",
    "spring",
    "wing",
    "used",
    "class",
    "glass",
    "grass",
    "dress",
    "mess",
    "miss",
    "pass",
    "kiss",
    "guess",
    "boss",
    "christmas",
    "news",
    "lens",
    "yours",
    "hers",
];

fn written_out() -> &'static HashMap<&'static str, &'static str> {
    static MAP: OnceLock<HashMap<&'static str, &'static str>> = OnceLock::new();
    MAP.get_or_init(|| WRITTEN_OUT.iter().copied().collect())
}

fn whole() -> &'static HashSet<&'static str> {
    static SET: OnceLock<HashSet<&'static str>> = OnceLock::new();
    SET.get_or_init(|| WHOLE.iter().copied().collect())
}

const LAUGHING: &str = "😂🤣💀😹";

/// The words of a text.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    sentences(text).concat()
}

/// The words of a text, sentence by sentence; no sentence is empty.
pub(super) fn sentences(text: &str) -> Vec<Vec<Token>> {
    let mut out: Vec<Vec<Token>> = vec![Vec::new()];
    let mut word = String::new();
    let finish = |word: &mut String, out: &mut Vec<Vec<Token>>| {
        if !word.is_empty() {
            if let Some(sentence) = out.last_mut() {
                push(word, sentence);
            }
            word.clear();
        }
    };
    for c in text.chars() {
        match c {
            '\'' | '’' | '‘' | '`' | '´' | '*' | '\u{200d}' | '\u{fe0f}' => {}
            '.' | '!' | '?' | '\n' | ';' => {
                finish(&mut word, &mut out);
                if out.last().is_some_and(|s| !s.is_empty()) {
                    out.push(Vec::new());
                }
            }
            c if LAUGHING.contains(c) => {
                finish(&mut word, &mut out);
                word.push_str("xlaugh");
                finish(&mut word, &mut out);
            }
            c if c.is_alphanumeric() => word.extend(c.to_lowercase()),
            '@' | '$' if !word.is_empty() => word.push(if c == '@' { 'a' } else { 's' }),
            _ => finish(&mut word, &mut out),
        }
    }
    finish(&mut word, &mut out);
    out.retain(|s| !s.is_empty());
    out
}

fn push(word: &str, out: &mut Vec<Token>) {
    let word = plain_spelling(word);
    if let Some(long) = written_out().get(word.as_str()) {
        out.extend(long.split(' ').map(|w| Token { stem: stem(w) }));
    } else {
        out.push(Token { stem: stem(&word) });
    }
}

/// `soooo` becomes `so`, `su1cide` becomes `suicide`.
fn plain_spelling(word: &str) -> String {
    let mixed =
        word.chars().any(char::is_alphabetic) && word.starts_with(char::is_alphabetic) && word.len() > 3;
    let mut out = String::with_capacity(word.len());
    let chars: Vec<char> = word.chars().collect();
    for (i, &c) in chars.iter().enumerate() {
        let c = match c {
            '1' if mixed => 'i',
            '0' if mixed => 'o',
            '3' if mixed => 'e',
            c => c,
        };
        let run_before = i >= 1 && chars[i - 1] == c;
        let in_long_run =
            (i >= 2 && run_before && chars[i - 2] == c) || (run_before && chars.get(i + 1) == Some(&c));
        if !(c.is_alphabetic() && in_long_run && run_before) {
            out.push(c);
        }
    }
    out
}

/// The word without a common ending; numbers as ranges that tell a child's age from a grown-up's.
pub(super) fn stem(word: &str) -> String {
    if let Some(range) = number(word) {
        return range.to_owned();
    }
    if whole().contains(word) || word.len() < 4 || !word.is_ascii() {
        return word.to_owned();
    }
    let cut = ["ing", "ed", "es", "s", "er", "e"]
        .iter()
        .find_map(|end| word.strip_suffix(end).filter(|rest| rest.len() >= 3));
    let Some(rest) = cut.filter(|_| !word.ends_with("ss")) else { return word.to_owned() };
    let bytes = rest.as_bytes();
    let doubled = bytes.len() >= 4
        && bytes[bytes.len() - 1] == bytes[bytes.len() - 2]
        && !matches!(bytes[bytes.len() - 1], b'l' | b's');
    let rest = if doubled { &rest[..rest.len() - 1] } else { rest };
    rest.to_owned()
}

fn number(word: &str) -> Option<&'static str> {
    const SMALL: [&str; 5] = ["one", "two", "three", "four", "five"];
    const CHILD: [&str; 12] = [
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
    ];
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let rest = &word[digits.len()..];
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        let n: u32 = digits.parse().unwrap_or(u32::MAX);
        return Some(match (n, rest) {
            (0..=24, "am" | "pm") => "9clock",
            (1950..=2040, _) => "9year",
            (5..=17, "" | "yo" | "yr" | "f" | "m") => "9child",
            (18..=25, "" | "yo" | "f" | "m") => "9young",
            (26..=110, "" | "yo" | "f" | "m") => "9adult",
            (0..=4, "") => "9few",
            _ => "9number",
        });
    }
    if CHILD.contains(&word) {
        return Some("9child");
    }
    SMALL.contains(&word).then_some("9few")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        tokens(text).iter().map(|t| t.stem.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn contractions_shorthand_and_endings() {
        assert_eq!(read("I'm gonna kms"), read("im going to kill myself"));
        assert_eq!(read("can’t stop CUTTING"), read("cannot stop cuts"));
        assert_eq!(read("soooo tired"), read("so tired"));
        assert_eq!(read("su1cide"), read("suicide"));
        assert_eq!(read("hit hitting hits"), "hit hit hit");
        assert_eq!(read("im 12 and hes 26"), "i am 9child and he is 9adult");
        assert_eq!(read("in 1998"), "in 9year");
    }

    #[test]
    fn sentences_end_at_marks_and_lines() {
        assert_eq!(sentences("a b. c!\n\nd? ...").len(), 3);
        assert!(sentences(" .. ! ").is_empty());
    }
}
