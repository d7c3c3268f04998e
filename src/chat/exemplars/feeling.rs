//! What feeling a message speaks of, by a small linear classifier: `models/train/feelings.py` trains it and
//! `models/train/data/feelings.txt` has its lines.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::OnceLock;

use super::likeness::{is_stop, stem, words};

/// `valence TAB name TAB feelings`, `scale TAB number`, `class TAB name TAB words`, and what the test compares with.
const FEELINGS: &str = include_str!("../../../assets/feelings.tsv");
/// A weight a feature slot and feeling, one slot after the other.
const WEIGHTS: &[u8] = include_bytes!("../../../assets/feelings.bin");
/// Features are hashed into so many slots.
const SLOTS: u32 = 1 << 14;
/// Letters of a piece of a word.
const PIECE: usize = 4;
/// From here on a character is a picture or a sign.
const FIRST_SIGN: char = '\u{2600}';
/// What turns the words after it, as far as they stand within reach.
const TURNING: [&str; 18] = [
    "not", "never", "no", "dont", "cant", "wont", "didnt", "doesnt", "isnt", "wasnt", "havent", "hasnt",
    "couldnt", "without", "hardly", "nobody", "arent", "wouldnt",
];
const REACH: usize = 3;
/// After one of these words comes what somebody wants to say.
const TURNS: [&str; 8] = ["but", "though", "however", "except", "only", "yet", "forgot", "unfortunately"];
const LAUGHS: [&str; 6] = ["lol", "lmao", "rofl", "haha", "hahaha", "hehe"];
/// Feelings that are good to have.
pub(super) const GLAD: [&str; 6] = ["joy", "pride", "excited", "relief", "thanks", "love"];
/// Feelings that are neither good nor bad, and hide nothing.
const EVEN: [&str; 4] = ["neutral", "bored", "funny", "torn"];
/// Feelings that are near to one another: if one of them is meant, the words for another do little harm.
const NEAR: [&[&str]; 6] = [
    &["joy", "pride", "excited", "relief"],
    &["sad", "loss", "lonely", "missing", "letdown"],
    &["hurt", "angry", "jealous"],
    &["guilty", "shame"],
    &["tired", "ill"],
    &["neutral", "bored", "funny"],
];
/// From this share on, the valence of a message is known: nine of ten are right then;
const VALENCE_FROM: f32 = 0.58;
/// delight at bad news is worse than a calm word at good news,
const GOOD_FROM: f32 = 0.62;
/// and from this one on its feeling,
const FEELING_FROM: f32 = 0.38;
/// if it and those near it have this share together.
const NEAR_FROM: f32 = 0.45;
/// From this share on a message whose valence isn't known is surely not the opposite one.
const LEANS_FROM: f32 = 0.74;
/// What is asked for or neither good nor bad is half glad, and half not.
const HALF: f32 = 0.5;

/// Whether a message is good news, bad news, neither, or asks for something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Valence {
    Good,
    Hard,
    Even,
    Asks,
}

impl Valence {
    const ALL: [(Self, &str); 4] =
        [(Self::Good, "good"), (Self::Hard, "hard"), (Self::Even, "even"), (Self::Asks, "asks")];

    /// As it is called in the files.
    pub(super) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(valence, _)| *valence == self).map_or("", |(_, name)| name)
    }
}

/// A feeling and how sure it is, 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Felt {
    /// The likeliest feeling, or a valence where it isn't sure; where that isn't either, `light` or `uneasy`
    /// for what it leans to, or `open`.
    pub(super) name: &'static str,
    /// The share of that feeling.
    pub(super) sure: f32,
    /// Whether the feeling is sure enough to be answered as that.
    pub(super) is_known: bool,
    /// The valence, where it is sure.
    pub(super) valence: Option<Valence>,
    /// How likely it is that the message speaks of something good.
    pub(super) glad: f32,
}

impl Felt {
    /// A feeling that is known for certain.
    pub(super) fn known(name: &'static str) -> Self {
        let all = weights();
        let valence = all.names.iter().position(|n| *n == name).and_then(|at| all.valences.get(at).copied());
        let glad = match valence {
            Some(Valence::Good) => 1.0,
            Some(Valence::Hard) => 0.0,
            _ => HALF,
        };
        Self { name, sure: 1.0, is_known: true, valence, glad }
    }
}

/// Whether a feeling is neither good nor bad.
pub(super) fn is_even(name: &str) -> bool {
    EVEN.contains(&name)
}

struct Weights {
    names: Vec<&'static str>,
    valences: Vec<Valence>,
    classes: HashMap<String, BTreeSet<&'static str>>,
    scale: f32,
}

fn said(word: &str) -> String {
    if is_stop(word) { word.to_owned() } else { stem(word) }
}

fn weights() -> &'static Weights {
    static ALL: OnceLock<Weights> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut out =
            Weights { names: Vec::new(), valences: Vec::new(), classes: HashMap::new(), scale: 0.0 };
        for line in FEELINGS.lines() {
            let cells: Vec<&'static str> = line.split('\t').collect();
            match cells[..] {
                ["valence", name, feelings] => {
                    let valence = Valence::ALL.iter().find(|(_, n)| *n == name).map(|(valence, _)| *valence);
                    for feeling in feelings.split(' ') {
                        out.names.push(feeling);
                        out.valences.extend(valence);
                    }
                }
                ["scale", scale] => out.scale = scale.parse().unwrap_or(0.0),
                ["class", name, list] => {
                    for stem in list.split(' ').map(said) {
                        out.classes.entry(stem).or_default().insert(name);
                    }
                }
                _ => {}
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
    out.insert(format!("^^ {}", words[..words.len().min(2)].join(" ")));
    for word in &words {
        let piece: Vec<char> = ['<'].into_iter().chain(word.chars()).chain(['>']).collect();
        out.extend(piece.windows(PIECE).map(|letters| ['~'].iter().chain(letters).collect::<String>()));
    }
    let mut kinds: BTreeSet<&str> = BTreeSet::new();
    for (i, stem) in stems.iter().enumerate() {
        let is_turned = words[i.saturating_sub(REACH)..i].iter().any(|w| TURNING.contains(&w.as_str()));
        for name in weights().classes.get(stem).into_iter().flatten() {
            out.insert(format!("@{name}"));
            out.insert(format!("{}{name}", if is_turned { '-' } else { '+' }));
            kinds.insert(name);
        }
    }
    let kinds: Vec<&str> = kinds.into_iter().collect();
    for (i, a) in kinds.iter().enumerate() {
        out.extend(kinds[i + 1..].iter().map(|b| format!("{a}&{b}")));
    }
    for who in ["my", "i", "we"] {
        if words.iter().any(|w| w == who || who == "i" && w == "im") {
            out.extend(kinds.iter().map(|name| format!("{who}@{name}")));
        }
    }
    if let Some((first, last)) = parts(text) {
        out.extend(self::words(&first).iter().map(|w| format!("1:{}", said(w))));
        out.extend(self::words(&last).iter().map(|w| format!("2:{}", said(w))));
    }
    out.extend(["!", "!!", "?", "..."].into_iter().filter(|mark| text.contains(mark)).map(str::to_owned));
    out.extend(text.chars().filter(|c| *c >= FIRST_SIGN).map(|c| format!("emoji {c}")));
    if words.iter().any(|w| LAUGHS.contains(&w.as_str())) {
        out.insert("laughs".to_owned());
    }
    out
}

/// The words before the first turn of a message and those after the last: a "but", or the end of a sentence.
fn parts(text: &str) -> Option<(String, String)> {
    let chunks: Vec<&str> = text.split_whitespace().collect();
    let cuts = |i: &usize| {
        TURNS.contains(&words(chunks[*i]).concat().as_str()) || chunks[i - 1].ends_with(['.', '!', '?'])
    };
    let cuts: Vec<usize> = (1..chunks.len().saturating_sub(1)).filter(cuts).collect();
    Some((chunks[..*cuts.first()?].join(" "), chunks[*cuts.last()?..].join(" ")))
}

/// FNV-1a over the bytes, folded.
fn slot(feature: &str) -> usize {
    let hash =
        feature.bytes().fold(0x811c_9dc5_u32, |h, byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    ((hash ^ hash >> 16) % SLOTS) as usize
}

/// The share of every feeling.
fn shares(text: &str) -> Vec<f32> {
    let all = weights();
    let n = all.names.len();
    let slots: HashSet<usize> = features(text).iter().map(|f| slot(f)).collect();
    let mut sums = vec![0_i32; n];
    for found in &slots {
        let row = WEIGHTS.get(found * n..(found + 1) * n).unwrap_or_default();
        for (sum, weight) in sums.iter_mut().zip(row) {
            *sum += i32::from(weight.cast_signed());
        }
    }
    let norm = all.scale / (slots.len().max(1) as f32).sqrt();
    let top = sums.iter().copied().max().unwrap_or(0);
    let parts: Vec<f32> = sums.iter().map(|sum| ((sum - top) as f32 * norm).exp()).collect();
    let sum: f32 = parts.iter().sum();
    parts.iter().map(|part| part / sum).collect()
}

/// The likeliest feeling.
pub(super) fn of(message: &str) -> Felt {
    let all = weights();
    let shares = shares(message);
    let share_of = |is_meant: &dyn Fn(usize) -> bool| -> f32 {
        shares.iter().enumerate().filter(|(i, _)| is_meant(*i)).map(|(_, share)| share).sum()
    };
    let of_valence = |valence: Valence| share_of(&|i| all.valences.get(i) == Some(&valence));
    let (mut valence, mut share) = (Valence::Even, 0.0);
    for (one, _) in Valence::ALL {
        let its = of_valence(one);
        if its > share {
            (valence, share) = (one, its);
        }
    }
    let best = (0..shares.len())
        .filter(|&i| all.valences.get(i) == Some(&valence))
        .max_by(|&a, &b| shares[a].total_cmp(&shares[b]))
        .unwrap_or(0);
    let name = all.names.get(best).copied().unwrap_or("neutral");
    let near = NEAR.iter().find(|group| group.contains(&name));
    let near = near.map_or(shares[best], |group| share_of(&|i| group.contains(&all.names[i])));
    let is_known = shares[best] >= FEELING_FROM && near >= NEAR_FROM;
    let enough = if valence == Valence::Good { GOOD_FROM } else { VALENCE_FROM };
    let is_known = is_known && share >= enough;
    let valence = (share >= enough).then_some(valence);
    let (good, hard) = (of_valence(Valence::Good), of_valence(Valence::Hard));
    let even = of_valence(Valence::Even);
    let name = match valence {
        Some(_) if is_known => name,
        Some(valence) if valence != Valence::Asks => valence.as_str(),
        None if good + even >= LEANS_FROM => "light",
        None if 1.0 - good - even >= LEANS_FROM && hard > good => "uneasy",
        _ => "open",
    };
    Felt { name, sure: shares[best], is_known, valence, glad: good + HALF * (1.0 - good - hard) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_messages_are_told_apart() {
        for (message, valence) in [
            ("i passed my driving test!!", Valence::Good),
            ("we got a puppy", Valence::Good),
            ("my tooth fell out!!", Valence::Good),
            ("my grandad died", Valence::Hard),
            ("my best friend didn't invite me", Valence::Hard),
            ("I'm scared of the dark", Valence::Hard),
            ("told my dad i'm gay and he walked out", Valence::Hard),
            ("we lost but it was the best day ever", Valence::Good),
            ("i dont know if i should tell her or not", Valence::Asks),
        ] {
            let felt = of(message);
            assert_eq!(felt.valence, Some(valence), "{message}: {felt:?}");
        }
    }

    /// The file has lines with what the recipe found in them.
    #[test]
    fn the_recipe_counts_alike() {
        let mut n = 0;
        for line in FEELINGS.lines() {
            let Some((found, text)) = line.strip_prefix("probe\t").and_then(|rest| rest.split_once('\t'))
            else {
                continue;
            };
            let (name, share) = found.split_once(' ').unwrap();
            let shares = shares(text);
            let at = weights().names.iter().position(|n| *n == name).unwrap();
            let share: f32 = share.parse().unwrap();
            assert!((shares[at] - share).abs() < 0.002, "{text}: {} and {share}", shares[at]);
            n += 1;
        }
        assert!(n > 50);
    }

    #[test]
    fn any_text_has_a_feeling() {
        assert_eq!(WEIGHTS.len(), SLOTS as usize * weights().names.len());
        assert_eq!(weights().names.len(), weights().valences.len());
        for message in ["", "...", "zxqv", "😀", "but", &"word ".repeat(3000)] {
            assert!(!of(message).name.is_empty());
        }
    }
}
