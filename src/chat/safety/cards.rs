//! The card itself: a few kind words and numbers that a person picks up, from `assets/crisis.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Kind;

/// What ships.
const BUILT_IN: &str = include_str!("../../../assets/crisis.toml");
/// In the data directory: replaces what ships, for other countries and languages.
const OVERRIDE_FILE: &str = "crisis.toml";
/// A card that is a book helps nobody; it also bounds what a page must show.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Somebody to reach.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HelpLine {
    /// Who picks up.
    pub name: String,
    /// The number or address as a person would dial, text or type it.
    pub contact: String,
    /// Where it works, such as `UK and Ireland`.
    pub region: String,
    /// A word on cost and hours; may be empty.
    #[serde(default)]
    pub note: String,
    /// For which kinds it is the right one; empty: for all.
    #[serde(default)]
    kinds: Vec<String>,
}

/// What is shown beside a message that sounded like danger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Card {
    /// For which kind.
    pub kind: Kind,
    /// One line.
    pub title: String,
    /// Two to four sentences.
    pub text: String,
    /// In the file's order.
    pub lines: Vec<HelpLine>,
}

/// All cards, read once at start.
#[derive(Clone, Debug)]
pub struct Cards {
    cards: Vec<Card>,
}

/// A `crisis.toml` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CardsError {
    /// It could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{path}: {problem}; correct it, or remove it to use the card that ships")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Words,
    #[serde(default)]
    cards: std::collections::BTreeMap<String, Words>,
    lines: Vec<HelpLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    title: String,
    text: String,
}

impl Cards {
    /// The cards of `<data_dir>/crisis.toml` if it exists, else those that ship.
    pub fn load(data_dir: Option<&Path>) -> Result<Self, CardsError> {
        let Some(path) = data_dir.map(|dir| dir.join(OVERRIDE_FILE)) else { return Ok(Self::built_in()) };
        let io = |source| CardsError::Io { path: path.clone(), source };
        let malformed = |problem| CardsError::Malformed { path: path.clone(), problem };
        match std::fs::metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::built_in()),
            Err(e) => return Err(io(e)),
            Ok(meta) if meta.len() > MAX_FILE_BYTES => {
                return Err(malformed(format!(
                    "is {} bytes long; the limit is {MAX_FILE_BYTES}",
                    meta.len()
                )));
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(&path).map_err(io)?;
        Self::parse(&text).map_err(malformed)
    }

    /// The cards that ship.
    pub fn built_in() -> Self {
        // A test parses the same bytes, so this cannot fail in a build that was tested.
        Self::parse(BUILT_IN).unwrap_or_else(|_| Self { cards: Vec::new() })
    }

    /// The card for a kind.
    pub fn card(&self, kind: Kind) -> Option<&Card> {
        self.cards.iter().find(|card| card.kind == kind)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
        if file.lines.is_empty() {
            return Err("needs at least one [[lines]] entry".into());
        }
        let named = file.cards.keys().chain(file.lines.iter().flat_map(|line| &line.kinds));
        for word in named {
            if Kind::from_word(word).is_none() {
                let known = Kind::ALL.map(Kind::as_str).join(" ");
                return Err(format!("unknown kind \"{word}\"; known: {known}"));
            }
        }
        let cards = Kind::ALL.into_iter().map(|kind| file.card(kind)).collect();
        Ok(Self { cards })
    }
}

impl File {
    fn card(&self, kind: Kind) -> Card {
        let words = self.cards.get(kind.as_str()).unwrap_or(&self.default);
        let lines = self
            .lines
            .iter()
            .filter(|line| line.kinds.is_empty() || line.kinds.iter().any(|k| k == kind.as_str()))
            .cloned()
            .collect();
        Card { kind, title: words.title.clone(), text: words.text.trim().to_owned(), lines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_card_with_lines_that_ship() {
        let cards = Cards::parse(BUILT_IN).unwrap();
        for kind in Kind::ALL {
            let card = cards.card(kind).unwrap();
            assert!(!card.title.is_empty() && !card.text.is_empty());
            assert!(
                card.lines.iter().any(|l| l.contact.contains("112")),
                "{kind:?} lacks the emergency number"
            );
            assert!(
                card.lines
                    .iter()
                    .all(|l| !l.name.is_empty() && !l.contact.is_empty() && !l.region.is_empty())
            );
        }
        let suicide = cards.card(Kind::Suicide).unwrap();
        assert!(suicide.lines.iter().any(|l| l.contact.contains("988")));
        let grooming = cards.card(Kind::Grooming).unwrap();
        assert!(grooming.lines[1].name.contains("Childline"));
    }

    #[test]
    fn a_file_in_the_data_directory_takes_over_and_a_broken_one_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Cards::load(Some(dir.path())).unwrap().cards, Cards::built_in().cards);
        let own = "[default]\ntitle = 'Du bist nicht allein'\ntext = 'Ruf an.'\n\
                   [[lines]]\nname = 'Telefonseelsorge'\ncontact = '0800 1110111'\nregion = 'Deutschland'\n";
        std::fs::write(dir.path().join(OVERRIDE_FILE), own).unwrap();
        let cards = Cards::load(Some(dir.path())).unwrap();
        assert_eq!(cards.card(Kind::Abuse).unwrap().lines[0].name, "Telefonseelsorge");
        for broken in [
            "",
            "[default]\ntitle='a'\ntext='b'\nlines=[]",
            "[default]\ntitle='a'\ntext='b'\n[cards.sadness]\ntitle='a'\ntext='b'\n[[lines]]\nname='a'\ncontact='1'\nregion='x'",
        ] {
            std::fs::write(dir.path().join(OVERRIDE_FILE), broken).unwrap();
            let said = Cards::load(Some(dir.path())).unwrap_err().to_string();
            assert!(said.contains(OVERRIDE_FILE), "{said}");
        }
    }
}
