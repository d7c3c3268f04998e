//! Joining neighbours: of all pairs that may be joined the first is, until none is left.
//!
//! The two kinds of vocabulary differ in what may be joined and what goes first. Both say so by a key for each pair: the
//! smallest goes first, and of equal ones the leftmost.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use super::hash::Quick;

const NOWHERE: u32 = u32::MAX;

/// What two neighbours become, and when.
#[derive(Clone, Copy)]
pub(super) struct Join {
    pub(super) key: u32,
    pub(super) symbol: u32,
}

/// A symbol at its place in a doubly linked list, and what it becomes with the one behind it.
#[derive(Clone, Copy)]
struct Part {
    symbol: u32,
    start: u32,
    prev: u32,
    next: u32,
    join: Option<Join>,
}

/// One word while it is joined; the memory is used again for the next.
#[derive(Default)]
pub(super) struct Joining {
    parts: Vec<Part>,
    queue: Queue,
}

impl Joining {
    /// Forgets the last word.
    pub(super) fn begin(&mut self) {
        self.parts.clear();
    }

    /// Adds a symbol, which begins at this byte of the word.
    pub(super) fn push(&mut self, symbol: u32, start: usize) {
        let at = self.parts.len() as u32;
        self.parts.push(Part {
            symbol,
            start: start as u32,
            prev: at.wrapping_sub(1),
            next: at + 1,
            join: None,
        });
    }

    /// Joins until no pair is left that `join` knows.
    pub(super) fn run(&mut self, mut join: impl FnMut(u32, u32) -> Option<Join>) {
        let Self { parts, queue } = self;
        let Some(last) = parts.last_mut() else { return };
        last.next = NOWHERE;
        queue.clear();
        for at in 1..parts.len() {
            let left = at - 1;
            parts[left].join = join(parts[left].symbol, parts[at].symbol);
            if let Some(join) = parts[left].join {
                queue.sorted.push(entry(join, left as u32));
            }
        }
        queue.sorted.sort_unstable();
        while let Some(found) = queue.pop() {
            let left = found as u32;
            let a = parts[left as usize];
            // What was joined to something else meanwhile has another key, or none. Where another pair of this key has
            // come to stand at this very place, it goes now by its own right.
            let Some(joined) = a.join.filter(|&join| entry(join, left) == found) else { continue };
            let next = std::mem::replace(&mut parts[a.next as usize].next, NOWHERE);
            parts[a.next as usize].join = None;
            parts[left as usize] = Part { symbol: joined.symbol, next, join: None, ..a };
            if let Some(after) = parts.get_mut(next as usize) {
                after.prev = left;
                let with_next = join(joined.symbol, after.symbol);
                parts[left as usize].join = with_next;
                queue.later.extend(with_next.map(|join| Reverse(entry(join, left))));
            }
            if let Some(before) = parts.get_mut(a.prev as usize) {
                before.join = join(before.symbol, joined.symbol);
                queue.later.extend(before.join.map(|join| Reverse(entry(join, a.prev))));
            }
        }
    }

    /// Calls `symbol` with each that is left and the bytes it stands for, of a word of `len` bytes.
    pub(super) fn for_each(&self, len: usize, mut symbol: impl FnMut(u32, std::ops::Range<usize>)) {
        let mut at = 0;
        while let Some(part) = self.parts.get(at as usize) {
            let end = self.parts.get(part.next as usize).map_or(len, |next| next.start as usize);
            symbol(part.symbol, part.start as usize..end);
            at = part.next;
        }
    }
}

/// A pair in the queue: its key, then the place of its left part.
fn entry(join: Join, left: u32) -> u64 {
    u64::from(join.key) << 32 | u64::from(left)
}

/// Smallest first. A heap alone takes a second for the pairs of a megabyte, because every step of it misses the cache;
/// but most pairs that come to be go last, so that they can be sorted together when all earlier ones are gone.
#[derive(Default)]
struct Queue {
    /// From `at` on, ascending.
    sorted: Vec<u64>,
    at: usize,
    /// What came since `sorted` was sorted.
    later: BinaryHeap<Reverse<u64>>,
}

impl Queue {
    fn clear(&mut self) {
        self.sorted.clear();
        self.at = 0;
        self.later.clear();
    }

    fn pop(&mut self) -> Option<u64> {
        if self.at == self.sorted.len() {
            self.sorted.clear();
            self.at = 0;
            let mut later = std::mem::take(&mut self.later).into_vec();
            self.sorted.extend(later.drain(..).map(|Reverse(entry)| entry));
            // The emptied memory is used again.
            self.later = BinaryHeap::from(later);
            self.sorted.sort_unstable();
        }
        let first = *self.sorted.get(self.at)?;
        if let Some(&Reverse(earlier)) = self.later.peek()
            && earlier < first
        {
            self.later.pop();
            return Some(earlier);
        }
        self.at += 1;
        Some(first)
    }
}

/// Where a text can be cut into words without changing what comes of it.
///
/// Joining crosses the place before a blank only where some token or merge has a blank behind the very character that
/// stands there; of most vocabularies none has.
#[derive(Default)]
pub(super) struct Words {
    /// Characters that something joins to a blank behind them.
    before_blank: HashSet<char, Quick>,
}

impl Words {
    /// Takes note of a text that joining can make.
    pub(super) fn learn(&mut self, text: &str) {
        if !text.contains('▁') {
            return;
        }
        let mut before = '▁';
        for c in text.chars() {
            if c == '▁' && before != '▁' {
                self.before_blank.insert(before);
            }
            before = c;
        }
    }

    /// Calls `word` with every part of the text: mostly a run of `▁` and what follows it.
    pub(super) fn cut<'t>(&self, text: &'t str, mut word: impl FnMut(&'t str)) {
        let mut start = 0;
        for (at, _) in text.match_indices('▁') {
            let before = text[..at].chars().next_back();
            let stands_alone = before.is_some_and(|c| c != '▁' && !self.before_blank.contains(&c));
            if at > start && stands_alone {
                word(&text[start..at]);
                start = at;
            }
        }
        if start < text.len() {
            word(&text[start..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_begin_with_their_blanks() {
        let cut = |words: &Words, text: &str| {
            let mut out = Vec::new();
            words.cut(text, |w| out.push(w.to_owned()));
            assert_eq!(out.concat(), text);
            out.join("|")
        };
        let mut words = Words::default();
        for token in ["▁", "▁▁", "▁▁ab", "ab", "▁dear", "é"] {
            words.learn(token);
        }
        assert_eq!(cut(&words, "Hi▁▁my▁dear▁"), "Hi|▁▁my|▁dear|▁");
        words.learn("y▁d");
        words.learn("▁é▁");
        assert_eq!(cut(&words, "Hi▁▁my▁dear▁é▁a"), "Hi|▁▁my▁dear|▁é▁a");
        assert_eq!(cut(&words, "▁▁"), "▁▁");
        assert_eq!(cut(&words, ""), "");
    }

    /// Joins by looking through all pairs every time: slow, and plainly right.
    fn plainly(symbols: &[u32], join: impl Fn(u32, u32) -> Option<Join>) -> Vec<u32> {
        let mut symbols = symbols.to_vec();
        loop {
            let pairs = symbols.windows(2).enumerate();
            let first = pairs.filter_map(|(at, pair)| Some((join(pair[0], pair[1])?, at)));
            let Some((joined, at)) = first.min_by_key(|(join, at)| (join.key, *at)) else { return symbols };
            symbols.splice(at..at + 2, [joined.symbol]);
        }
    }

    #[test]
    fn the_queue_changes_nothing() {
        // Sums of small numbers: many pairs of equal keys, and keys that come before those at hand.
        let keys = [[3, 1, 4, 1], [5, 9, 2, 6], [5, 3, 5, 8], [9, 7, 9, 3]];
        let join = |a: u32, b: u32| {
            let key = keys[a as usize % 4][b as usize % 4];
            (a + b < 12 && key != 9).then_some(Join { key, symbol: a + b })
        };
        let mut joining = Joining::default();
        let mut state = 1_u32;
        for len in (0..60).chain([1_000]) {
            let mut symbols = Vec::new();
            for _ in 0..len {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                symbols.push(state >> 28 & 3);
            }
            joining.begin();
            for (at, &symbol) in symbols.iter().enumerate() {
                joining.push(symbol, at);
            }
            joining.run(join);
            let mut found = Vec::new();
            let mut end = 0;
            joining.for_each(len, |symbol, range| {
                assert_eq!(range.start, end);
                end = range.end;
                found.push(symbol);
            });
            assert_eq!((found, end), (plainly(&symbols, join), len));
        }
    }
}
