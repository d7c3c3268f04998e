//! The short list of good small models in `models/catalog.toml`, part of the binary.

use std::sync::LazyLock;

use serde::Deserialize;

const TEXT: &str = include_str!("../../models/catalog.toml");
/// Positions that are counted for a conversation when it is said whether a model fits.
pub const CONVERSATION_CTX: u64 = 4096;
/// What decoding reaches of what memory bandwidth alone would allow, as measured over models and machines; the rest
/// goes to activations, attention and waiting for each other.
const DECODE_EFFICIENCY: f64 = 0.75;

/// A model that `pull` knows by a short name.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// What it is called here.
    pub name: String,
    /// Its repository on the hub.
    pub repo: String,
    /// The file in it.
    pub file: String,
    /// Its size in millions of bytes, rounded.
    pub megabytes: u64,
    /// What one token reads of it, where that is not all.
    pub active_megabytes: Option<u64>,
    /// Keys and values of one position, in KiB, as 16-bit numbers.
    pub kv_kib: u64,
    /// The maker's licence.
    pub licence: String,
    /// What it is good for, in a few words.
    pub note: String,
}

impl Known {
    /// Memory that it needs with one conversation of [`CONVERSATION_CTX`] positions, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.megabytes * 1_000_000 + (self.kv_kib << 10) * CONVERSATION_CTX
    }

    /// Tokens a second to expect where memory is read at `bytes_per_s`: every token reads all active weights once.
    pub fn tokens_per_s(&self, bytes_per_s: f64) -> f64 {
        let read = self.active_megabytes.unwrap_or(self.megabytes) as f64 * 1e6;
        DECODE_EFFICIENCY * bytes_per_s / read
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalog {
    model: Vec<Known>,
}

static CATALOG: LazyLock<Vec<Known>> = LazyLock::new(|| {
    // A test reads it, so it is well-formed in every build that was tested.
    toml::from_str::<Catalog>(TEXT).map(|catalog| catalog.model).unwrap_or_default()
});

/// All of them, smallest first.
pub fn all() -> &'static [Known] {
    &CATALOG
}

/// The one of that name.
pub fn find(name: &str) -> Option<&'static Known> {
    all().iter().find(|known| known.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_well_formed() {
        let all = toml::from_str::<Catalog>(TEXT).unwrap().model;
        assert!((8..=20).contains(&all.len()));
        for (i, known) in all.iter().enumerate() {
            let name = &known.name;
            assert!(
                known.repo.split('/').count() == 2 && known.file.strip_suffix(".gguf").is_some(),
                "{name}"
            );
            assert!(!name.contains('/') && all[..i].iter().all(|other| other.name != *name), "{name}");
            assert!(known.active_megabytes.is_none_or(|active| active < known.megabytes), "{name}");
            assert!(!known.licence.is_empty() && !known.note.is_empty(), "{name}");
        }
        assert_eq!(find("QWEN3-4B").unwrap().repo, "Qwen/Qwen3-4B-GGUF");
        assert!(find("builtin").is_none());
    }

    #[test]
    fn speed_follows_what_a_token_reads() {
        let dense = find("qwen3-4b").unwrap();
        let sparse = find("qwen3-30b-a3b").unwrap();
        assert!(sparse.tokens_per_s(50e9) > dense.tokens_per_s(50e9));
        assert!((dense.tokens_per_s(40e9) - 0.75 * 40e9 / 2497e6).abs() < 1e-9);
    }
}
