//! Written answers: the nearest of about ten thousand exchanges, replies to short messages, replies in danger.
//!
//! A small model adapts better than it invents. An opening that says nearly the same as a written one gets its reply
//! whole; then comes a reply to the kind of thing that was said, if it is one of some hundreds; then one to a likely
//! opening. One that is merely like it is shown to the model as an example; a far one is worse than none. Inside a chat,
//! "thanks" or "idk" gets a written reply, too, a question for a remembered fact gets the fact, and a message in which the
//! crisis check sees danger always gets a written answer: what is said then must not be left to a model of seven million
//! parameters. Where nothing fits, a question shows that one is listening; the model speaks when those are used up, and
//! when another answer is asked for.
//!
//! `models/train/collection.py` writes the files from the dialogues.

mod choice;
mod courtesy;
mod echo;
mod feeling;
mod games;
mod languages;
mod likeness;
mod listening;
mod situations;
mod spelling;
mod sums;

use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::mpsc;

pub(super) use self::choice::whole;
use self::likeness::{Index, Near};
use super::memory;
use super::safety::Danger;
use crate::domain::{Memory, Timestamp};
use crate::engine::{CancelHandle, Event, Finish, Generation, Timings};
use crate::text::{Speaker, Turn};

/// Openings and replies: `wording | wording TAB reply` a line.
const WRITTEN: &str = include_str!("../../../assets/exemplars.tsv");
/// Replies to short messages inside a chat, in the same form; a message may have several.
const FOLLOW_UPS: &str = include_str!("../../../assets/follow_ups.tsv");
/// From this likeness on an exchange is about the same thing.
const EXAMPLE_FROM: f32 = 0.25;
/// Examples of the persona's voice, and the longest of them: together about a hundred tokens.
const N_VOICE: usize = 2;
const MAX_VOICE_BYTES: usize = 240;
/// Between the words of a reply that is taken over: quick to read along, slow enough to be stopped.
const WORD_PACE: Duration = Duration::from_millis(30);

/// The written answer to the last of `turns`, for a conversation that is stored nowhere.
pub fn written(turns: &[Turn]) -> Option<String> {
    let (last, before) = turns.split_last().filter(|(last, _)| last.speaker == Speaker::User)?;
    let by = |speaker| before.iter().filter(move |turn| turn.speaker == speaker);
    let said: Vec<&str> = by(Speaker::Assistant).map(|turn| turn.content.as_str()).collect();
    let danger = super::safety::check(&last.content);
    let mut memories: Vec<Memory> = Vec::new();
    for turn in by(Speaker::User) {
        let changes = memory::changes(&turn.content, &memories, Timestamp::now());
        super::start::apply_for_prompt(&changes, &mut memories);
    }
    let n_before = by(Speaker::User).count();
    whole(&Asked { said: &said, n_before, message: &last.content, memories: &memories, danger })
}

/// What is asked for: the way to a message, the message, and what is known.
pub(super) struct Asked<'a> {
    /// What the parent said before in this chat.
    pub(super) said: &'a [&'a str],
    /// How many exchanges there were before.
    pub(super) n_before: usize,
    /// The message.
    pub(super) message: &'a str,
    /// What is remembered of the person.
    pub(super) memories: &'a [Memory],
    /// What the crisis check saw.
    pub(super) danger: Option<Danger>,
}

/// The nearest exchange that is near enough to help, as the turn a model was trained to carry over.
pub(super) fn example(opening: &str) -> Option<Turn> {
    let near = openings().near(opening).into_iter().find(|e| e.likeness >= EXAMPLE_FROM)?;
    Some(Turn::new(Speaker::Example, format!("{}\n{}", near.opening, near.reply)))
}

/// The nearest exchanges in words, for the persona's text: how it sounds, for a model that was not trained on it. They
/// hang on the opening alone, so that a chat's prompt keeps its beginning, and the prefix cache its use.
pub(super) fn voice(opening: &str) -> Option<String> {
    let near = openings().near(opening);
    let near = near.iter().filter(|e| e.likeness >= EXAMPLE_FROM && e.reply.len() <= MAX_VOICE_BYTES);
    let mut chosen: Vec<&Near> = Vec::new();
    for e in near {
        if chosen.len() < N_VOICE && !chosen.iter().any(|c| c.reply == e.reply) {
            chosen.push(e);
        }
    }
    let out: Vec<String> =
        chosen.iter().map(|e| format!("- to \"{}\": \"{}\"", e.opening, e.reply)).collect();
    (!out.is_empty()).then(|| format!("How you sound, in answers to others:\n{}", out.join("\n")))
}

/// Built at the first opening: some tens of milliseconds that an idle server never spends.
fn openings() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| Index::new(WRITTEN))
}

/// Whether a word is mostly written with a small letter, so that a large one at the beginning is only the sentence's.
fn is_known_small(word: &str) -> bool {
    spellings().is_small(word)
}

/// Whether a word stands somewhere in what was written.
fn is_known_word(word: &str) -> bool {
    spellings().has(word)
}

/// What was written, for telling a slip from a word.
fn spellings() -> &'static spelling::Known {
    static KNOWN: OnceLock<spelling::Known> = OnceLock::new();
    KNOWN.get_or_init(|| spelling::Known::new(&[WRITTEN, FOLLOW_UPS]))
}

/// A written reply as the engine would send it: word by word, and stoppable.
pub(super) fn recite(reply: String) -> (Generation, impl Future<Output = ()> + Send + 'static) {
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
