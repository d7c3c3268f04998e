//! The nearest hand-written exchange to what somebody opens a chat with.
//!
//! A small model adapts better than it invents. `assets/exemplars.tsv` holds about ten thousand openings and replies
//! written for this project. One that says nearly the same is taken over whole; one that is merely like it is shown to
//! the model as an example; a far one is worse than none.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::domain::Memory;
use crate::engine::{CancelHandle, Event, Finish, Generation, Timings};

/// An opening, a tab, the reply to it; one a line.
const WRITTEN: &str = include_str!("../../assets/exemplars.tsv");
/// From this likeness on the written reply fits as it stands: all weighty words are shared, or all but a light one.
const WHOLE_FROM: f32 = 0.8;
/// From this likeness on an exchange is about the same thing.
const EXAMPLE_FROM: f32 = 0.3;
/// Letters of a word that count, so that `tired` finds `tiredness`; as in the model's training rows.
const STEM_CHARS: usize = 6;
/// Words that say nothing about the matter, as in the model's training rows.
const STOP: [&str; 43] = [
    "i", "a", "an", "the", "to", "of", "and", "or", "in", "on", "at", "is", "it", "its", "im", "am", "my",
    "me", "you", "your", "that", "this", "was", "with", "for", "so", "do", "dont", "be", "have", "has",
    "had", "just", "can", "what", "how", "are", "but", "not", "ive", "did", "get", "got",
];
/// Between the words of a reply that is taken over: quick to read along, slow enough to be stopped.
const WORD_PACE: Duration = Duration::from_millis(30);

/// A written exchange and how near it is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Exemplar {
    /// How somebody opened.
    pub(super) opening: &'static str,
    /// What was written in answer.
    pub(super) reply: &'static str,
    /// Weight of the shared words in that of all words of both, 0 to 1.
    pub(super) likeness: f32,
}

/// The nearest exchange that is near enough to help.
pub(super) fn nearest(opening: &str) -> Option<Exemplar> {
    index().nearest(opening).filter(|e| e.likeness >= EXAMPLE_FROM)
}

/// A written reply that is the answer itself: to nearly the same opening, on a matter of which nothing is remembered,
/// because the one who wrote it knew nothing of this person.
pub(super) fn whole(opening: &str, memories: &[Memory]) -> Option<&'static str> {
    let near = index().nearest(opening).filter(|e| e.likeness >= WHOLE_FROM)?;
    let asked = stems(opening);
    let known = memories.iter().any(|m| stems(&m.content).iter().any(|stem| asked.contains(stem)));
    (!known).then_some(near.reply)
}

struct Index {
    exchanges: Vec<(&'static str, &'static str)>,
    /// Which exchanges hold a stem.
    postings: HashMap<String, Vec<u32>>,
    /// Summed weight of each exchange's stems.
    weights: Vec<f32>,
}

/// Built at the first opening: some tens of milliseconds that an idle server, or one with another model, never spends.
fn index() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| Index::new(WRITTEN))
}

/// The distinct stems of a text's content words; of a text without any, its first words.
fn stems(text: &str) -> Vec<String> {
    let plain = text.to_lowercase().replace(['\'', '’'], "");
    let words = || plain.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
    let stem = |w: &str| w.chars().take(STEM_CHARS).collect::<String>();
    let mut out: Vec<String> = words().filter(|w| !STOP.contains(w)).map(stem).collect();
    if out.is_empty() {
        out = words().take(3).map(stem).collect();
    }
    out.sort_unstable();
    out.dedup();
    out
}

impl Index {
    fn new(written: &'static str) -> Self {
        let exchanges: Vec<_> = written.lines().filter_map(|line| line.split_once('\t')).collect();
        let mut postings: HashMap<String, Vec<u32>> = HashMap::new();
        for (i, (opening, _)) in exchanges.iter().enumerate() {
            for stem in stems(opening) {
                postings.entry(stem).or_default().push(i as u32);
            }
        }
        let mut index = Self { weights: vec![0.0; exchanges.len()], exchanges, postings };
        for list in index.postings.values() {
            let weight = weight(index.exchanges.len(), list.len());
            for &i in list {
                index.weights[i as usize] += weight;
            }
        }
        index
    }

    fn nearest(&self, opening: &str) -> Option<Exemplar> {
        let mut shared: HashMap<u32, f32> = HashMap::new();
        let mut own = 0.0;
        for stem in stems(opening) {
            let list = self.postings.get(&stem).map_or(&[][..], Vec::as_slice);
            let weight = weight(self.exchanges.len(), list.len());
            own += weight;
            for &i in list {
                *shared.entry(i).or_default() += weight;
            }
        }
        let likeness = |i: u32, shared: f32| 2.0 * shared / (own + self.weights[i as usize]);
        let (i, likeness) = shared
            .into_iter()
            .map(|(i, shared)| (i, likeness(i, shared)))
            // The earlier of equals, so that the same opening always finds the same exchange.
            .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))?;
        let (opening, reply) = self.exchanges[i as usize];
        Some(Exemplar { opening, reply, likeness })
    }
}

/// How much a stem says that `n` of `n_all` exchanges hold (BM25's inverse document frequency).
fn weight(n_all: usize, n: usize) -> f32 {
    (1.0 + (n_all as f32 - n as f32 + 0.5) / (n as f32 + 0.5)).ln()
}

/// A written reply as the engine would send it: word by word, and stoppable.
pub(super) fn recite(reply: &'static str) -> (Generation, impl Future<Output = ()> + Send + 'static) {
    let (events, receiver) = mpsc::unbounded_channel();
    let cancel = CancelHandle::default();
    let generation = Generation { events: receiver, cancel: cancel.clone() };
    let speak = async move {
        let mut finish_reason = Finish::Stop;
        for word in reply.split_inclusive(' ') {
            if cancel.is_cancelled() {
                finish_reason = Finish::Cancelled;
                break;
            }
            // A receiver that is gone has ended by itself.
            let _ = events.send(Event::Delta { text: word.to_owned(), n_tokens: 1, tokens: Vec::new() });
            tokio::time::sleep(WORD_PACE).await;
        }
        let _ = events.send(Event::Done { finish_reason, timings: Timings::default() });
    };
    (generation, speak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_opening_has_a_written_answer() {
        for opening in ["I had a bad day", "i had a bad day.", "I've had a BAD day!"] {
            assert!(whole(opening, &[]).is_some(), "{opening}: {:?}", nearest(opening));
        }
    }

    #[test]
    fn another_matter_is_not_taken_over() {
        let opening = "my best friend is moving to Japan";
        assert!(nearest(opening).is_some() && whole(opening, &[]).is_none(), "{:?}", nearest(opening));
        assert_eq!(nearest("zxqv wvut"), None);
        assert_eq!(nearest("…"), None);
    }

    #[test]
    fn what_is_remembered_goes_before_what_was_written() {
        let memory = |content: &str| crate::chat::prompt::unstored_memory(content.to_owned());
        assert!(whole("my dog died", &[memory("name Priya")]).is_some());
        assert_eq!(whole("my dog died", &[memory("dog Rex")]), None);
    }

    #[test]
    fn likeness_counts_what_either_side_says_beyond_the_other() {
        let index = Index::new("my dog ran away\tOh no.\nmy cat ran away\tPoor cat.\nbread recipe\tFlour.\n");
        let same = index.nearest("my dog ran away").unwrap();
        assert!((same.likeness - 1.0).abs() < 1e-6 && same.reply == "Oh no.");
        let more = index.nearest("my dog ran away in the storm last night").unwrap();
        assert!(more.reply == "Oh no." && more.likeness < same.likeness);
    }
}
