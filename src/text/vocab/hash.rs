//! Hashing for the inner loops of tokenizing: as quick as a multiplication per eight bytes, and keyed by a number that
//! every process draws anew, so that nobody can choose texts or a vocabulary that collide.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

/// An odd number whose bits look like chance: the first digits of pi.
const SPREAD: u64 = 0x2437_69C3_1B0A_D3A7;

static KEYS: LazyLock<(u64, u64)> = LazyLock::new(|| {
    let random = RandomState::new();
    (random.hash_one(0_u8), random.hash_one(1_u8))
});

/// Makes hashers that all draw on this process's numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quick {
    start: u64,
    key: u64,
}

impl Default for Quick {
    fn default() -> Self {
        let (start, key) = *KEYS;
        Self { start, key }
    }
}

impl BuildHasher for Quick {
    type Hasher = QuickHasher;

    fn build_hasher(&self) -> QuickHasher {
        QuickHasher { state: self.start, key: self.key }
    }
}

/// What has been hashed so far.
pub(super) struct QuickHasher {
    state: u64,
    key: u64,
}

impl QuickHasher {
    /// Multiplies into twice the width and folds the halves together, so that every bit reaches every other.
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.key ^ SPREAD | 1);
        self.state = (product as u64) ^ ((product >> 64) as u64) ^ self.key;
    }
}

impl Hasher for QuickHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        // The length keeps apart what differs only by zeros at the end.
        self.mix(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    fn write_u8(&mut self, n: u8) {
        self.mix(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.mix(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.mix(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.mix(n as u64);
    }

    fn finish(&self) -> u64 {
        let product = u128::from(self.state) * u128::from(SPREAD);
        (product as u64) ^ ((product >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn texts_that_are_alike_have_hashes_that_are_not() {
        let mut texts: Vec<String> = (0..20_000).map(|n| format!("Ġword{n}")).collect();
        texts.extend((0..200).map(|n| "a".repeat(n)));
        texts.extend((0..200).map(|n| "\0".repeat(n)));
        let quick = Quick::default();
        let hashes: Vec<u64> = texts.iter().map(|text| quick.hash_one(text.as_str())).collect();
        let distinct: HashSet<&str> = texts.iter().map(String::as_str).collect();
        assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), distinct.len());
        // A table takes the upper or the lower bits: both must be spread.
        for shift in [0, 44] {
            let n_places = hashes.iter().map(|hash| hash >> shift & 0xF_FFFF).collect::<HashSet<_>>().len();
            assert!(n_places > 19_000, "{n_places} places of 2^20 for {} texts", texts.len());
        }
        let pairs: HashSet<u64> =
            (0..300_u32).flat_map(|a| (0..300_u32).map(move |b| quick.hash_one((a, b)))).collect();
        assert_eq!(pairs.len(), 90_000);
    }
}
