//! Does somebody seem to be in danger? Then a card with people who can help is shown beside the answer.
//!
//! It errs on the side of showing the card: an idiom that gets one costs a smile, a missed cry costs more. It reads
//! one message at a time and nothing else, and it talks to nobody.

mod cards;
pub mod classifier;
pub mod features;
mod words;

use std::sync::OnceLock;

pub use cards::{Card, Cards, CardsError, HelpLine};
use classifier::Weights;

/// What kind of danger.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Kind {
    /// Wanting to die, or not caring to live.
    Suicide,
    /// Hurting oneself on purpose.
    SelfHarm,
    /// Being hurt, controlled, touched or neglected by somebody.
    Abuse,
    /// Too much of a medicine, drug or drink, or poison.
    Overdose,
    /// Starving, purging and their like.
    Eating,
    /// A child courted, blackmailed or lured.
    Grooming,
    /// Driving drunk, drugged or asleep.
    Driving,
    /// Meaning to hurt somebody.
    Violence,
    /// A child away from home, lost or without shelter.
    Runaway,
    /// Somebody else is in one of these dangers.
    Friend,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Suicide,
        Self::SelfHarm,
        Self::Abuse,
        Self::Overdose,
        Self::Eating,
        Self::Grooming,
        Self::Driving,
        Self::Violence,
        Self::Runaway,
        Self::Friend,
    ];

    /// The word stored with the message and printed by `mommygpt safety`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suicide => "suicide",
            Self::SelfHarm => "selfharm",
            Self::Abuse => "abuse",
            Self::Overdose => "overdose",
            Self::Eating => "eating",
            Self::Grooming => "grooming",
            Self::Driving => "driving",
            Self::Violence => "violence",
            Self::Runaway => "runaway",
            Self::Friend => "friend",
        }
    }

    /// The kind of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// What the check saw.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Danger {
    /// The likeliest kind.
    pub kind: Kind,
    /// Far enough over the line to answer it as danger; below, the card stands beside an ordinary answer.
    pub is_plain: bool,
}

/// Trained weights; see [`classifier`].
static WEIGHTS: &[u8] = include_bytes!("../../../assets/safety/weights.bin");
/// How much further over the line an answer must be than a message: it speaks of danger and of help by its nature.
const REPLY_MARGIN: f32 = 3.0;

/// How much further over the line a message must be for the answer to speak of danger: a bit more, and "my friend wants to
/// kill herself" is answered as if it were nothing. Of 400 development messages in danger 398 are that far over it, of 419
/// harmless held-out lines that are near to danger in their words seven.
const PLAIN_MARGIN: f32 = 1.5;

/// What "kill" is stemmed to, and behind it words that leave no doubt: a message that has them and is over the line at all is
/// plain.
const KILL: &str = "kill";
const ONESELF: [&str; 7] =
    ["myself", "himself", "herself", "themself", "themselves", "yourself", "ourselves"];

fn classifier() -> &'static Weights {
    static CLASSIFIER: OnceLock<Weights> = OnceLock::new();
    CLASSIFIER.get_or_init(|| {
        // A test reads the same bytes, so this cannot fail in a build that was tested.
        Weights::from_bytes(WEIGHTS).expect("the weights in the binary have their form")
    })
}

/// Looks at one message of a person. `None`: nothing to worry about.
pub fn check(text: &str) -> Option<Danger> {
    let is_plain = || classifier().check(text, PLAIN_MARGIN).is_some() || names_suicide(text);
    classifier().check(text, 0.0).map(|kind| Danger { kind, is_plain: is_plain() })
}

fn names_suicide(text: &str) -> bool {
    let oneself = |stem: &str| ONESELF.iter().any(|word| words::stem(word) == stem);
    let named = |pair: &[words::Token]| pair[0].stem == KILL && oneself(&pair[1].stem);
    words::sentences(text).iter().any(|sentence| sentence.windows(2).any(named))
}

/// Looks at the parent's answer.
pub fn check_reply(text: &str) -> Option<Danger> {
    classifier().check(text, REPLY_MARGIN).map(|kind| Danger { kind, is_plain: true })
}

/// The answers of `mommygpt safety`, one line each: `card<TAB>kind` or `none`.
pub fn verdict(text: &str) -> String {
    check(text).map_or_else(|| "none".to_owned(), |danger| format!("card\t{}", danger.kind.as_str()))
}
