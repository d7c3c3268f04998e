//! What feeling a message speaks of, by a small linear classifier: `models/train/feelings.py` trains it and
//! `models/train/data/feelings.txt` has its lines.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use super::likeness::{is_stop, stem, words};

/// The names first; `=class TAB words`; then `feature TAB index:weight index:weight`.
const FEELINGS: &str = include_str!("../../../assets/feelings.tsv");
/// Weights are stored in so many parts.
const SCALE: f32 = 20.0;
/// What turns the words after it, as far as they stand within reach.
const TURNING: [&str; 18] = [
    "not", "never", "no", "dont", "cant", "wont", "didnt", "doesnt", "isnt", "wasnt", "havent", "hasnt",
    "couldnt", "without", "hardly", "nobody", "arent", "wouldnt",
];
const REACH: usize = 3;
/// After one of these words comes what somebody wants to say.
const TURNS: [&str; 8] = ["but", "though", "however", "except", "only", "yet", "forgot", "unfortunately"];
/// What the end counts beside the whole.
const END_COUNTS: f32 = 0.7;
/// Words an end has at least.
const MIN_END: usize = 3;
/// Feelings that are good to have,
pub(super) const GLAD: [&str; 5] = ["joy", "pride", "excited", "thanks", "love"];
/// and those that are neither good nor bad.
const EVEN: [&str; 3] = ["neutral", "bored", "torn"];
/// Feelings that are near to one another: if one of them is meant, the words for another do no harm.
const NEAR: [&[&str]; 8] = [
    &GLAD,
    &["sad", "loss", "lonely", "missing"],
    &["hurt", "angry", "jealous"],
    &["worried"],
    &["guilty"],
    &["tired", "ill"],
    &["torn"],
    &["neutral", "bored"],
];
/// From this share on a message is glad, or hard to bear.
const PLAINLY_GLAD: f32 = 0.55;
const PLAINLY_HARD: f32 = 0.55;
/// and without a doubt hard, where it is not clear in which way.
const SURELY_HARD: f32 = 0.7;
/// A feeling and those near it have at least this share, or it is not named.
const SURE_FROM: f32 = 0.4;

/// Whether a feeling is neither good nor bad.
pub(super) fn is_even(name: &str) -> bool {
    EVEN.contains(&name)
}

struct Weights {
    names: Vec<&'static str>,
    classes: HashMap<String, Vec<&'static str>>,
    of: HashMap<&'static str, Vec<(usize, f32)>>,
}

/// A feeling and how sure it is, 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Felt {
    pub(super) name: &'static str,
    /// The share of that feeling.
    pub(super) sure: f32,
    /// How likely it is that the message speaks of something good.
    pub(super) glad: f32,
}

fn said(word: &str) -> String {
    if is_stop(word) { word.to_owned() } else { stem(word) }
}

fn weights() -> &'static Weights {
    static ALL: OnceLock<Weights> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut lines = FEELINGS.lines();
        let names = lines.next().unwrap_or_default().split('\t').collect();
        let mut out = Weights { names, classes: HashMap::new(), of: HashMap::new() };
        for (name, rest) in lines.filter_map(|line| line.split_once('\t')) {
            if let Some(class) = name.strip_prefix('=') {
                let stems: HashSet<String> = rest.split(' ').map(said).collect();
                for stem in stems {
                    out.classes.entry(stem).or_default().push(class);
                }
            } else {
                let pairs = rest.split(' ').filter_map(|pair| pair.split_once(':'));
                let read = pairs.filter_map(|(i, w)| Some((i.parse().ok()?, w.parse::<f32>().ok()? / SCALE)));
                out.of.insert(name, read.collect());
            }
        }
        out
    })
}

/// As `models/train/feelings.py` has them.
fn features(text: &str) -> HashSet<String> {
    let words = words(text);
    let stems: Vec<String> = words.iter().map(|w| said(w)).collect();
    let mut out: HashSet<String> = stems.iter().cloned().collect();
    let around: Vec<&str> = ["^"].into_iter().chain(stems.iter().map(String::as_str)).chain(["$"]).collect();
    out.extend(around.windows(2).map(|two| two.join(" ")));
    let mut found: Vec<&str> = Vec::new();
    for (i, stem) in stems.iter().enumerate() {
        let is_turned = words[i.saturating_sub(REACH)..i].iter().any(|w| TURNING.contains(&w.as_str()));
        for name in weights().classes.get(stem).map_or(&[][..], Vec::as_slice) {
            out.insert(format!("@{name}"));
            out.insert(format!("{}{name}", if is_turned { '-' } else { '+' }));
            found.push(name);
        }
    }
    found.sort_unstable();
    found.dedup();
    for (i, a) in found.iter().enumerate() {
        out.extend(found[i + 1..].iter().map(|b| format!("{a}&{b}")));
    }
    for who in ["my", "i", "we"] {
        if words.iter().any(|w| w == who || who == "i" && w == "im") {
            out.extend(found.iter().map(|name| format!("{who}@{name}")));
        }
    }
    out.extend(['!', '?'].into_iter().filter(|c| text.contains(*c)).map(String::from));
    out
}

fn scores(text: &str) -> Vec<f32> {
    let all = weights();
    let found = features(text);
    let norm = (found.len().max(1) as f32).sqrt();
    let mut out = vec![0.0; all.names.len()];
    for (i, weight) in found.iter().filter_map(|f| all.of.get(f.as_str())).flatten() {
        if let Some(score) = out.get_mut(*i) {
            *score += weight / norm;
        }
    }
    out
}

/// The likeliest feeling. What comes after a "but" counts twice, and the last sentence of several.
pub(super) fn of(message: &str) -> Felt {
    let all = weights();
    let mut total = scores(message);
    if let Some(end) = end(message) {
        for (sum, more) in total.iter_mut().zip(scores(&end)) {
            *sum += END_COUNTS * more;
        }
    }
    let top = total.iter().copied().fold(f32::MIN, f32::max);
    let shares: Vec<f32> = total.iter().map(|s| (s - top).exp()).collect();
    let sum: f32 = shares.iter().sum();
    let share_of = |list: &[&str]| -> f32 {
        all.names.iter().zip(&shares).filter(|(name, _)| list.contains(name)).map(|(_, s)| s / sum).sum()
    };
    let (glad, even) = (share_of(&GLAD), share_of(&EVEN));
    let hard = 1.0 - glad - even;
    // Of the feelings that the whole speaks for the likeliest.
    let fits = |name: &str| match () {
        () if glad >= PLAINLY_GLAD => GLAD.contains(&name),
        () if hard >= PLAINLY_HARD => !GLAD.contains(&name) && !EVEN.contains(&name),
        () => true,
    };
    let best = (0..shares.len())
        .filter(|&i| fits(all.names[i]))
        .max_by(|&a, &b| shares[a].total_cmp(&shares[b]))
        .unwrap_or(0);
    let (likely, sure) = (all.names.get(best).copied().unwrap_or("neutral"), shares[best] / sum);
    let near = NEAR.iter().find(|group| group.contains(&likely)).map_or(0.0, |group| share_of(group));
    let name = match () {
        () if glad < PLAINLY_GLAD && GLAD.contains(&likely) => "open",
        () if near >= SURE_FROM => likely,
        () if glad >= PLAINLY_GLAD => "good",
        () if hard >= SURELY_HARD => "heavy",
        () => "open",
    };
    Felt { name, sure, glad }
}

/// What is said after the turn of a message, if there is one.
fn end(message: &str) -> Option<String> {
    let words: Vec<&str> = message.split_whitespace().collect();
    let plain = |w: &str| w.to_lowercase().trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
    let turn = words.iter().rposition(|w| TURNS.contains(&plain(w).as_str()));
    let sentence =
        words.iter().rev().skip(1).position(|w| w.ends_with(['.', '!', '?'])).map(|n| words.len() - 1 - n);
    let from = turn.max(sentence)?;
    (words.len() - from >= MIN_END).then(|| words[from..].join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_messages_are_told_apart() {
        for (message, glad) in [
            ("i passed my driving test!!", true),
            ("we got a puppy", true),
            ("my grandad died", false),
            ("my best friend didn't invite me", false),
            ("I'm scared of the dark", false),
        ] {
            let felt = of(message);
            assert_eq!(GLAD.contains(&felt.name), glad, "{message}: {felt:?}");
        }
    }

    #[test]
    fn any_text_has_a_feeling() {
        for message in ["", "...", "zxqv", "😀", "but", &"word ".repeat(3000)] {
            assert!(!of(message).name.is_empty());
        }
    }
}
