//! How like two openings are, and how well the reply to one fits the other.
//!
//! Shared words and shared pairs of neighbouring words count, each by how rare it is (BM25's inverse document
//! frequency). Words are brought to a stem, and words that mean the same to one of them. The recipe in `models/train`
//! has the same measure (`retrieval.py`), so that training rows look as prompts will.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

/// Groups of words, one a line; the first of a group stands for all.
const SAME_WORDS: &str = include_str!("../../../assets/same_words.txt");
/// Letters of a word that count, so that `tired` finds `tiredness`.
const STEM_CHARS: usize = 6;
/// Words that say little of the matter; they count in pairs only.
const STOP: [&str; 75] = [
    "i", "a", "an", "the", "to", "of", "and", "or", "in", "on", "at", "is", "it", "its", "im", "am", "my",
    "me", "you", "your", "that", "this", "was", "with", "for", "so", "do", "dont", "be", "have", "has",
    "had", "just", "can", "what", "how", "are", "but", "not", "ive", "did", "get", "got", "really", "very",
    "too", "also", "been", "will", "would", "there", "were", "does", "as", "if", "then", "than", "by",
    "from", "up", "out", "about", "all", "some", "any", "because", "cos", "bc", "when", "again", "ill", "id",
    "thats", "theres", "like",
];
/// Somebody speaks to the parent about the parent.
const TO_YOU: [&str; 3] = ["you", "your", "youre"];
/// What a pair counts, beside a word.
const PAIR: f32 = 0.4;
/// What a word of the reply costs that only the other opening licenses ("Canada is far" to one who goes to Japan).
const FOREIGN: f32 = 0.5;
/// What a name costs in a reply to somebody who mentioned none, or a number where the other opening has one.
const NAME_COST: f32 = 3.0;
const NUMBERS: [&str; 17] = [
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "twenty",
    "thirty", "forty", "fifty", "hundred", "thousand",
];
/// Of the likest openings so many are looked at for how their replies fit.
const LOOKED_AT: usize = 60;

/// The features of a text, each once: hashes, because there are a hundred thousand of them.
struct Features {
    /// Stems of words that are no stop words, in their order.
    stems: Vec<u64>,
    /// Stems, pairs and marks with what they count.
    all: Vec<(u64, f32)>,
}

fn same() -> &'static HashMap<&'static str, &'static str> {
    static SAME: OnceLock<HashMap<&'static str, &'static str>> = OnceLock::new();
    SAME.get_or_init(|| {
        let groups = SAME_WORDS.lines().filter(|line| !line.starts_with('#'));
        groups.filter_map(|g| Some((g, g.split(' ').next()?))).fold(HashMap::new(), |mut map, (g, first)| {
            map.extend(g.split(' ').map(|word| (word, first)));
            map
        })
    })
}

/// The words of a text in lower case without apostrophes; of a text without any, the text.
pub(super) fn words(text: &str) -> Vec<String> {
    let plain = text.to_lowercase().replace(['\'', '’'], "");
    let found = plain.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_owned);
    let found: Vec<String> = found.collect();
    if found.is_empty() { vec![plain.trim().to_owned()] } else { found }
}

/// `moving`, `moved` and `move` become one; so do words of one group.
pub(super) fn stem(word: &str) -> String {
    if let Some(first) = same().get(word) {
        return (*first).to_owned();
    }
    let mut s: Vec<char> = word.chars().collect();
    if s.len() > 3 && s.ends_with(&['s']) && !s.ends_with(&['s', 's']) {
        s.pop();
    }
    for suffix in [&['i', 'n', 'g'][..], &['e', 'd']] {
        if s.len() > suffix.len() + 2 && s.ends_with(suffix) {
            s.truncate(s.len() - suffix.len());
            if s[s.len() - 1] == s[s.len() - 2] && !['l', 's', 'z'].contains(&s[s.len() - 1]) {
                s.pop();
            }
            break;
        }
    }
    if s.len() > 3 && s.ends_with(&['e']) {
        s.pop();
    }
    let s: String = s.into_iter().collect();
    match same().get(s.as_str()) {
        Some(first) => (*first).to_owned(),
        None => s.chars().take(STEM_CHARS).collect(),
    }
}

/// Whether a word says little of the matter.
pub(super) fn is_stop(word: &str) -> bool {
    STOP.contains(&word)
}

/// The stems of a text's weighty words.
pub(super) fn stems(text: &str) -> Vec<String> {
    words(text).iter().filter(|w| !STOP.contains(&w.as_str())).map(|w| stem(w)).collect()
}

fn hash(parts: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

fn features(text: &str) -> Features {
    let words = words(text);
    let is_stop = |w: &String| STOP.contains(&w.as_str());
    let said: Vec<String> = words.iter().map(|w| if is_stop(w) { w.clone() } else { stem(w) }).collect();
    let mut stems = Vec::new();
    for (word, said) in words.iter().zip(&said) {
        let feature = hash(&[said]);
        if !is_stop(word) && !stems.contains(&feature) {
            stems.push(feature);
        }
    }
    let mut all: Vec<(u64, f32)> = stems.iter().map(|f| (*f, 1.0)).collect();
    let mut add = |feature: u64, counts: f32| {
        if !all.iter().any(|(f, _)| *f == feature) {
            all.push((feature, counts));
        }
    };
    let mut before = "^";
    for word in &said {
        add(hash(&[before, word]), PAIR);
        before = word;
    }
    if said.iter().any(|w| TO_YOU.contains(&w.as_str())) {
        add(hash(&["", "you"]), 1.0);
    }
    Features { stems, all }
}

/// Written openings and the replies to them.
pub(super) struct Index {
    exchanges: Vec<(&'static str, &'static str)>,
    /// Which openings have a feature.
    postings: HashMap<u64, Vec<u32>>,
    /// Summed weight of each opening's features.
    weights: Vec<f32>,
}

/// A written exchange and how near it is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Near {
    /// How somebody opened.
    pub(super) opening: &'static str,
    /// What was written in answer.
    pub(super) reply: &'static str,
    /// Weight of the shared features in that of all features of both, 0 to 1.
    pub(super) likeness: f32,
    /// The likeness less what of the reply is foreign to the one who asks.
    pub(super) fit: f32,
    /// Share of what was asked, by weight of its words, that this opening has.
    pub(super) covered: f32,
}

impl Index {
    /// Reads lines of `wording | wording TAB reply`.
    pub(super) fn new(written: &'static str) -> Self {
        let lines = written.lines().filter_map(|line| line.split_once('\t'));
        let exchanges: Vec<_> = lines
            .flat_map(|(wordings, reply)| wordings.split(" | ").map(move |opening| (opening, reply)))
            .collect();
        let docs: Vec<Features> = exchanges.iter().map(|(opening, _)| features(opening)).collect();
        let mut postings: HashMap<u64, Vec<u32>> = HashMap::new();
        for (i, doc) in docs.iter().enumerate() {
            for (feature, _) in &doc.all {
                postings.entry(*feature).or_default().push(i as u32);
            }
        }
        let mut index = Self { exchanges, postings, weights: Vec::new() };
        index.weights = docs.iter().map(|doc| index.total(&doc.all)).collect();
        index
    }

    fn weight(&self, feature: u64) -> f32 {
        let n = self.postings.get(&feature).map_or(0, Vec::len);
        (1.0 + (self.exchanges.len() as f32 - n as f32 + 0.5) / (n as f32 + 0.5)).ln()
    }

    fn total(&self, features: &[(u64, f32)]) -> f32 {
        features.iter().map(|(feature, counts)| self.weight(*feature) * counts).sum()
    }

    /// The likest openings, the best fitting reply first; the earlier of equals first, so that the same opening always
    /// finds the same exchange.
    pub(super) fn near(&self, text: &str) -> Vec<Near> {
        let asked = features(text);
        let own = self.total(&asked.all);
        let mut shared: HashMap<u32, f32> = HashMap::new();
        for (feature, counts) in &asked.all {
            let weight = self.weight(*feature) * counts;
            for &i in self.postings.get(feature).map_or(&[][..], Vec::as_slice) {
                *shared.entry(i).or_default() += weight;
            }
        }
        let mut likest: Vec<(f32, u32)> = shared
            .into_iter()
            .map(|(i, shared)| (2.0 * shared / (own + self.weights[i as usize]), i))
            .collect();
        likest.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        likest.truncate(LOOKED_AT);
        let near = |&(likeness, i): &(f32, u32)| {
            let (opening, reply) = self.exchanges[i as usize];
            let both = own + self.weights[i as usize];
            let fit = likeness - FOREIGN * self.foreign(opening, reply, &asked) / both;
            Near { opening, reply, likeness, fit, covered: self.covered(opening, &asked) }
        };
        let mut out: Vec<Near> = likest.iter().map(near).collect();
        out.sort_by(|a, b| b.fit.total_cmp(&a.fit));
        out
    }

    fn covered(&self, opening: &str, asked: &Features) -> f32 {
        let doc = features(opening).stems;
        let weigh = |f: &u64| self.weight(*f);
        let all: f32 = asked.stems.iter().map(weigh).sum();
        let shared: f32 = asked.stems.iter().filter(|f| doc.contains(f)).map(weigh).sum();
        if all > 0.0 { shared / all } else { 1.0 }
    }

    /// Share of a text's words that occur in the openings: low for other languages and for keys struck at random.
    pub(super) fn known(&self, text: &str) -> f32 {
        let words = words(text);
        let is_known =
            |w: &&String| STOP.contains(&w.as_str()) || self.postings.contains_key(&hash(&[&stem(w)]));
        words.iter().filter(is_known).count() as f32 / words.len() as f32
    }

    /// Weight of what a reply says of its own opening that was not asked here, of names and numbers out of nowhere, and
    /// of what stands in the one opening in place of something in the other.
    fn foreign(&self, opening: &str, reply: &str, asked: &Features) -> f32 {
        let doc = features(opening).stems;
        let said = words(reply);
        let said_stems: Vec<u64> = said.iter().map(|w| hash(&[&stem(w)])).collect();
        let weigh = |stems: &[u64], keep: &dyn Fn(&u64) -> bool| -> f32 {
            stems.iter().filter(|f| keep(f)).map(|f| self.weight(*f)).sum()
        };
        let borrowed = weigh(&doc, &|f| said_stems.contains(f) && !asked.stems.contains(f));
        let names = names(reply).map(|name| hash(&[&stem(&name)]));
        let mut unknown = names.filter(|f| !asked.stems.contains(f) && !doc.contains(f)).count();
        if words(opening).iter().any(|w| is_number(w)) {
            let mut numbers: Vec<&String> = said.iter().filter(|w| is_number(w)).collect();
            numbers.sort_unstable();
            numbers.dedup();
            unknown += numbers.iter().filter(|w| !asked.stems.contains(&hash(&[&stem(w)]))).count();
        }
        let lacks_asked = weigh(&asked.stems, &|f| !doc.contains(f));
        let lacks_doc = weigh(&doc, &|f| !asked.stems.contains(f));
        borrowed + NAME_COST * unknown as f32 + lacks_asked.min(lacks_doc)
    }
}

fn is_number(word: &str) -> bool {
    NUMBERS.contains(&word) || word.chars().all(|c| c.is_ascii_digit())
}

/// Words with a capital letter inside a sentence.
fn names(reply: &str) -> impl Iterator<Item = String> + '_ {
    let mut inside = false;
    reply.split(' ').filter_map(move |word| {
        let was_inside = inside;
        inside = word.ends_with(|c: char| c.is_ascii_lowercase() || matches!(c, ',' | ';'));
        let name: String = word.chars().take_while(char::is_ascii_alphabetic).collect();
        let capital = name.starts_with(|c: char| c.is_ascii_uppercase());
        let rest_small = name.len() > 2 && name[1..].chars().all(|c| c.is_ascii_lowercase());
        (was_inside && capital && rest_small).then(|| name.to_lowercase())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_mean_the_same_become_one() {
        for (a, b) in [
            ("moving", "moved"),
            ("mum", "mother"),
            ("friends", "friend"),
            ("crying", "cried"),
            ("grans", "gran"),
        ] {
            assert_eq!(stem(a), stem(b), "{a} {b}");
        }
        assert_ne!(stem("cat"), stem("dog"));
        assert_eq!(words("Don't!"), ["dont"]);
        assert_eq!(words(" ... "), ["..."]);
    }

    #[test]
    fn likeness_counts_what_either_side_says_beyond_the_other() {
        let index =
            Index::new("my dog ran away\tOh no.\nmy cat ran away | cat gone\tPoor cat.\nbread\tFlour.\n");
        let same = index.near("my dog ran away")[0];
        assert!((same.likeness - 1.0).abs() < 1e-6 && same.reply == "Oh no.");
        let more = index.near("my dog ran away in the storm last night")[0];
        assert!(more.reply == "Oh no." && more.likeness < same.likeness);
        assert_eq!(index.near("cat gone")[0].reply, "Poor cat.");
        assert!(index.near("zebra").is_empty());
    }

    #[test]
    fn what_a_reply_borrows_from_its_own_opening_costs() {
        let index =
            Index::new("my friend goes to Canada\tCanada is far.\nmy friend goes to Peru\tThat is far.\n");
        let [first, second] = index.near("my friend goes to Japan")[..] else { panic!() };
        assert!(first.fit > second.fit);
        assert_eq!((first.reply, second.reply), ("That is far.", "Canada is far."));
        assert_eq!(names("Oh, Teddy. Tell Sam, now").collect::<Vec<_>>(), ["teddy", "sam"]);
    }
}
