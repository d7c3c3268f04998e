//! Texts by number and numbers by text: some hundred thousand of them, made at every start.
//!
//! All stand in one string, and the table holds numbers instead of texts, so that filling it asks for memory three times
//! and not once per text.

use std::hash::BuildHasher as _;

use super::hash::Quick;

/// An empty place of the table.
const EMPTY: u64 = 0;

/// A list of texts in which each can be found.
pub(super) struct Texts {
    all: String,
    ends: Vec<u32>,
    /// Number and one, and above it the upper half of the hash, at the place that the lower half says or behind it.
    places: Vec<u64>,
    hash: Quick,
}

impl Texts {
    /// An empty list that is going to have up to `n` texts.
    pub(super) fn with_capacity(n: usize) -> Self {
        let n_places = (2 * n).next_power_of_two();
        Self {
            all: String::with_capacity(8 * n),
            ends: Vec::with_capacity(n),
            places: vec![EMPTY; n_places.max(2)],
            hash: Quick::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Adds a text. Of two that are alike, the first is the one that is found.
    pub(super) fn push(&mut self, text: &str) {
        if 2 * (self.len() + 1) > self.places.len() {
            self.grow();
        }
        let number = self.len() as u32;
        self.all.push_str(text);
        self.ends.push(self.all.len() as u32);
        if let Err((place, tag)) = self.look(text) {
            self.places[place] = tag | u64::from(number + 1);
        }
    }

    /// The text of this number; empty where there is none.
    pub(super) fn get(&self, number: u32) -> &str {
        let number = number as usize;
        let Some(&end) = self.ends.get(number) else { return "" };
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.all[start as usize..end as usize]
    }

    /// The number of exactly this text.
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        self.look(text).ok()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len() as u32).map(|number| self.get(number))
    }

    /// The number of a text, or the place where it belongs and its mark there.
    fn look(&self, text: &str) -> Result<u32, (usize, u64)> {
        let hash = self.hash.hash_one(text);
        let tag = hash & 0xFFFF_FFFF_0000_0000;
        let mut place = hash as usize & (self.places.len() - 1);
        loop {
            let found = self.places[place];
            if found == EMPTY {
                return Err((place, tag));
            }
            let number = (found as u32).wrapping_sub(1);
            if found & 0xFFFF_FFFF_0000_0000 == tag && self.get(number) == text {
                return Ok(number);
            }
            place = (place + 1) & (self.places.len() - 1);
        }
    }

    fn grow(&mut self) {
        self.places = vec![EMPTY; 2 * self.places.len()];
        for number in 0..self.len() as u32 {
            if let Err((place, tag)) = self.look(self.get(number)) {
                self.places[place] = tag | u64::from(number + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_found_and_nothing_else() {
        let words: Vec<String> = (0..5_000).map(|n| format!("w{}", n * 7)).collect();
        for capacity in [0, words.len()] {
            let mut texts = Texts::with_capacity(capacity);
            for word in &words {
                texts.push(word);
            }
            texts.push("");
            texts.push("w7");
            assert_eq!(texts.len(), words.len() + 2);
            for (number, word) in words.iter().enumerate() {
                assert_eq!(texts.find(word), Some(number as u32));
                assert_eq!(texts.get(number as u32), word);
            }
            assert_eq!(texts.find(""), Some(words.len() as u32));
            assert_eq!(texts.find("w7"), Some(1), "the first of two");
            assert_eq!((texts.find("w8"), texts.get(99_999)), (None, ""));
            assert!(texts.iter().eq(words.iter().map(String::as_str).chain(["", "w7"])));
        }
    }
}
