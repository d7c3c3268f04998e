//! What the classifier sees of a message: words and word pairs, pieces of words (for slips of the pen), and classes of
//! words that mean much the same (`assets/safety/lexicon.txt`) with their neighbours and their order.
//!
//! A message is read through windows of one or two sentences, because one sentence of danger in a long cheerful letter
//! is still danger; hints such as "years ago" or "for my essay" are seen by every window.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::words::{Token, sentences, tokens};

/// Number of feature slots; features that share one by accident are rare at this size.
pub const N_SLOTS: usize = 1 << 18;
/// Words two classes may stand apart to be seen as a pair.
const MAX_PAIR_DISTANCE: usize = 9;
/// Longest entry of the lexicon in words after contractions are resolved.
const MAX_ENTRY_WORDS: usize = 6;
/// Sentences are read in windows of at most this many words when two are taken together.
const MAX_WINDOW_WORDS: usize = 45;
/// Only this much of a message is read: a page of text; more would let one message hold up the others.
pub const MAX_BYTES: usize = 16 << 10;

const LEXICON: &str = include_str!("../../../assets/safety/lexicon.txt");

struct Lexicon {
    names: Vec<&'static str>,
    entries: HashMap<String, Vec<usize>>,
}

fn lexicon() -> &'static Lexicon {
    static LEXICON_CELL: OnceLock<Lexicon> = OnceLock::new();
    LEXICON_CELL.get_or_init(|| {
        let mut names = Vec::new();
        let mut entries: HashMap<String, Vec<usize>> = HashMap::new();
        for line in LEXICON.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
            let Some((name, list)) = line.split_once(':') else { continue };
            let class = names.len();
            names.push(name.trim());
            for entry in list.split(',') {
                let key = tokens(entry).iter().map(|t| t.stem.as_str()).collect::<Vec<_>>().join(" ");
                let classes = entries.entry(key).or_default();
                if !classes.contains(&class) {
                    classes.push(class);
                }
            }
        }
        Lexicon { names, entries }
    })
}

/// One place in a window where a class was found.
#[derive(Clone, Copy)]
struct Hit {
    class: usize,
    start: usize,
    end: usize,
}

fn hits(words: &[Token]) -> Vec<Hit> {
    let lexicon = lexicon();
    let mut found = Vec::new();
    let mut key = String::new();
    for start in 0..words.len() {
        key.clear();
        for (len, word) in words[start..].iter().take(MAX_ENTRY_WORDS).enumerate() {
            if len > 0 {
                key.push(' ');
            }
            key.push_str(&word.stem);
            if let Some(classes) = lexicon.entries.get(&key) {
                found.extend(classes.iter().map(|&class| Hit { class, start, end: start + len + 1 }));
            }
        }
    }
    found
}

/// The feature slots of each window of a message; at least one window, each sorted and without repeats.
pub fn windows(text: &str) -> Vec<Vec<u32>> {
    let mut end = text.len().min(MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let sentences = sentences(&text[..end]);
    let hints = hints(&sentences);
    let mut spans: Vec<(usize, usize)> = (0..sentences.len()).map(|i| (i, i + 1)).collect();
    spans.extend((1..sentences.len()).map(|i| (i - 1, i + 1)));
    let mut out = Vec::with_capacity(spans.len().max(1));
    for (from, to) in spans {
        let words: Vec<Token> = sentences[from..to].concat();
        if to - from == 1 || words.len() <= MAX_WINDOW_WORDS {
            out.push(window(&words, &hints));
        }
    }
    if out.is_empty() {
        out.push(hints);
    }
    out
}

/// Slots of the hint classes (small first letter) found anywhere in the message.
fn hints(sentences: &[Vec<Token>]) -> Vec<u32> {
    let lexicon = lexicon();
    let mut out = Vec::new();
    for sentence in sentences {
        for hit in hits(sentence) {
            let name = lexicon.names[hit.class];
            if name.starts_with(char::is_lowercase) {
                out.push(slot(&["hint", name]));
            }
        }
    }
    if sentences.iter().map(Vec::len).sum::<usize>() > MAX_WINDOW_WORDS {
        out.push(slot(&["long"]));
    }
    out
}

fn window(words: &[Token], hints: &[u32]) -> Vec<u32> {
    let mut out = hints.to_vec();
    word_slots(words, &mut out);
    let hits = hits(words);
    class_slots(words, &hits, &mut out);
    sequence_slots(words, &hits, &mut out);
    out.sort_unstable();
    out.dedup();
    out
}

fn word_slots(words: &[Token], out: &mut Vec<u32>) {
    let mut previous = "^";
    for word in words {
        out.push(slot(&["w", &word.stem]));
        out.push(slot(&["b", previous, &word.stem]));
        previous = &word.stem;
        let chars: Vec<char> = word.stem.chars().collect();
        if chars.len() >= 5 {
            for piece in chars.windows(4) {
                let piece: String = piece.iter().collect();
                out.push(slot(&["p", &piece]));
            }
        }
    }
    out.push(slot(&["b", previous, "$"]));
}

fn class_slots(words: &[Token], hits: &[Hit], out: &mut Vec<u32>) {
    let names = &lexicon().names;
    let at = |i: Option<usize>| i.and_then(|i| words.get(i)).map_or("^", |w| w.stem.as_str());
    for (i, hit) in hits.iter().enumerate() {
        let name = names[hit.class];
        out.push(slot(&["c", name]));
        out.push(slot(&["l", at(hit.start.checked_sub(1)), name]));
        out.push(slot(&["r", name, at(Some(hit.end))]));
        for later in hits[i + 1..].iter().filter(|h| h.start >= hit.end) {
            let distance = later.start - hit.end;
            if distance <= MAX_PAIR_DISTANCE {
                out.push(slot(&["pair", name, names[later.class]]));
            }
            if distance <= 2 {
                out.push(slot(&["near", name, names[later.class]]));
            }
        }
    }
}

/// Three in a row of words and classes, each class match standing for its words.
fn sequence_slots(words: &[Token], hits: &[Hit], out: &mut Vec<u32>) {
    let names = &lexicon().names;
    let mut sequence: Vec<&str> = vec!["^"];
    let mut i = 0;
    while i < words.len() {
        let best = hits.iter().filter(|h| h.start == i).max_by_key(|h| (h.end, usize::MAX - h.class));
        if let Some(hit) = best {
            sequence.push(names[hit.class]);
            i = hit.end;
        } else {
            sequence.push(&words[i].stem);
            i += 1;
        }
    }
    sequence.push("$");
    for three in sequence.windows(3) {
        out.push(slot(&["t", three[0], three[1], three[2]]));
    }
    for two in sequence.windows(2) {
        out.push(slot(&["d", two[0], two[1]]));
    }
}

/// FNV-1a: specified, so that weights trained on one machine fit every other.
fn slot(parts: &[&str]) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for &byte in part.as_bytes().iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    ((hash ^ (hash >> 32)) & (N_SLOTS as u64 - 1)) as u32
}

/// Stems of a message's words, for telling near-duplicates apart in training.
pub fn stems(text: &str) -> Vec<String> {
    tokens(text).into_iter().map(|t| t.stem).collect()
}

#[cfg(test)]
mod tests {
    use super::super::words::stem;
    use super::*;

    #[test]
    fn spelling_does_not_change_what_is_seen() {
        let plain = windows("I don't want to live anymore");
        for other in
            ["i dont want to live anymore", "I DON’T WANT TO LIVE ANYMORE", "i dont wanna live any more"]
        {
            let shared = windows(other)[0].iter().filter(|s| plain[0].contains(s)).count();
            assert!(shared * 10 >= plain[0].len() * 7, "{other}: {shared} of {}", plain[0].len());
        }
        assert_eq!(stem("cutting"), stem("cuts"));
    }

    #[test]
    fn any_text_gives_a_window_and_long_text_is_cut() {
        for text in ["", " ", "...", "😀", "\u{0}\u{feff}", &"é".repeat(MAX_BYTES)] {
            assert!(!windows(text).is_empty());
        }
    }
}
