//! Which pages of keys and values belong to which sequence. A page may belong to several, which then hold the same
//! positions; it is copied before one of them writes to it.

use std::collections::BTreeMap;

use super::super::{Batch, ModelError, SeqId};
use crate::kernels::attention::PAGE_LEN;
use crate::kernels::kv::Pages;

/// One sequence.
#[derive(Debug)]
struct Sequence {
    pages: Vec<u32>,
    len: usize,
    /// Made by a fork, and so not one of those that memory was set aside for.
    forked: bool,
}

/// The live sequences of a model.
#[derive(Debug)]
pub(super) struct Sequences {
    by_id: BTreeMap<SeqId, Sequence>,
    next: u32,
    max: usize,
    /// How many sequences hold each page.
    holders: Vec<u32>,
    free: Vec<u32>,
}

impl Sequences {
    /// No sequence yet, of `max` at most beside forks, over `n_pages` pages.
    pub(super) fn new(max: usize, n_pages: usize) -> Self {
        // Low numbers first, so that little of the memory is ever touched.
        let free = (0..n_pages as u32).rev().collect();
        Self { by_id: BTreeMap::new(), next: 0, max, holders: vec![0; n_pages], free }
    }

    pub(super) fn create(&mut self) -> Result<SeqId, ModelError> {
        if self.by_id.values().filter(|sequence| !sequence.forked).count() >= self.max {
            return Err(ModelError::TooLarge(format!(
                "{} sequences are alive, as many as memory was set aside for",
                self.max
            )));
        }
        Ok(self.insert(Sequence { pages: Vec::new(), len: 0, forked: false }))
    }

    /// A sequence beside those that memory was set aside for; it lives on pages that happen to be free.
    pub(super) fn create_beside(&mut self) -> SeqId {
        self.insert(Sequence { pages: Vec::new(), len: 0, forked: true })
    }

    fn insert(&mut self, sequence: Sequence) -> SeqId {
        let mut id = SeqId(self.next);
        while self.by_id.contains_key(&id) {
            id = SeqId(id.0.wrapping_add(1));
        }
        self.next = id.0.wrapping_add(1);
        self.by_id.insert(id, sequence);
        id
    }

    pub(super) fn free(&mut self, id: SeqId) {
        if let Some(sequence) = self.by_id.remove(&id) {
            self.let_go(&sequence.pages);
        }
    }

    pub(super) fn len_of(&self, id: SeqId) -> Option<usize> {
        self.by_id.get(&id).map(|sequence| sequence.len)
    }

    /// The pages of a sequence, in the order of its positions; none for an unknown one.
    pub(super) fn pages_of(&self, id: SeqId) -> &[u32] {
        self.by_id.get(&id).map_or(&[], |sequence| &sequence.pages)
    }

    /// Pages that some sequence holds.
    pub(super) fn n_used(&self) -> usize {
        self.holders.len() - self.free.len()
    }

    pub(super) fn truncate(&mut self, id: SeqId, len: usize) {
        let Some(sequence) = self.by_id.get_mut(&id).filter(|sequence| len < sequence.len) else { return };
        sequence.len = len;
        let gone = sequence.pages.split_off(len.div_ceil(PAGE_LEN));
        self.let_go(&gone);
    }

    pub(super) fn fork(&mut self, id: SeqId, len: usize) -> Result<SeqId, ModelError> {
        let Some(parent) = self.by_id.get(&id) else {
            return Err(ModelError::Backend(format!("sequence {} does not exist", id.0)));
        };
        if len > parent.len {
            return Err(ModelError::Backend(format!(
                "{len} positions of sequence {}, it has {}",
                id.0, parent.len
            )));
        }
        let pages = parent.pages[..len.div_ceil(PAGE_LEN)].to_vec();
        for &page in &pages {
            self.holders[page as usize] += 1;
        }
        Ok(self.insert(Sequence { pages, len, forked: true }))
    }

    /// Gives every sequence of a checked batch the pages that its new rows will be written to.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`] when there are not enough, and nothing has changed then.
    pub(super) fn reserve(&mut self, batch: &Batch<'_>, memory: &mut Pages) -> Result<(), ModelError> {
        let needed: usize = batch.iter().map(|chunk| self.n_needed(chunk.seq, chunk.tokens.len())).sum();
        if needed > self.free.len() {
            return Err(ModelError::TooLarge(format!(
                "{needed} more pages of {PAGE_LEN} positions for keys and values, {} of {} are free; free sequences or \
                 load with more of them (-np)",
                self.free.len(),
                self.holders.len()
            )));
        }
        for chunk in batch {
            let Some(sequence) = self.by_id.get_mut(&chunk.seq) else { continue };
            if let Some(last) = shared_page(sequence, &self.holders)
                && let Some(copy) = self.free.pop()
            {
                memory.copy(last, copy);
                self.holders[last as usize] -= 1;
                self.holders[copy as usize] = 1;
                sequence.pages.pop();
                sequence.pages.push(copy);
            }
            let n_pages = (sequence.len + chunk.tokens.len()).div_ceil(PAGE_LEN);
            while sequence.pages.len() < n_pages
                && let Some(page) = self.free.pop()
            {
                self.holders[page as usize] = 1;
                sequence.pages.push(page);
            }
        }
        Ok(())
    }

    /// Gives a sequence that ends with a whole page one page more, whose positions count as held.
    ///
    /// # Errors
    /// [`ModelError::TooLarge`] when none is free, [`ModelError::Backend`] for an unknown sequence or a partial page.
    pub(super) fn append_page(&mut self, id: SeqId) -> Result<u32, ModelError> {
        let sequence = self.by_id.get_mut(&id).filter(|s| s.len == s.pages.len() * PAGE_LEN);
        let sequence = sequence.ok_or_else(|| {
            ModelError::Backend(format!("sequence {} does not exist or ends within a page", id.0))
        })?;
        let page = self.free.pop().ok_or_else(|| {
            ModelError::TooLarge(format!("no page of {PAGE_LEN} positions for keys and values is free"))
        })?;
        self.holders[page as usize] = 1;
        sequence.pages.push(page);
        sequence.len += PAGE_LEN;
        Ok(page)
    }

    fn n_needed(&self, id: SeqId, n: usize) -> usize {
        let Some(sequence) = self.by_id.get(&id) else { return 0 };
        let copied = usize::from(shared_page(sequence, &self.holders).is_some());
        (sequence.len + n).div_ceil(PAGE_LEN) - sequence.pages.len() + copied
    }

    /// Counts `n` written positions as held.
    pub(super) fn advance(&mut self, id: SeqId, n: usize) {
        if let Some(sequence) = self.by_id.get_mut(&id) {
            sequence.len += n;
        }
    }

    fn let_go(&mut self, pages: &[u32]) {
        for &page in pages {
            let holders = &mut self.holders[page as usize];
            *holders -= 1;
            if *holders == 0 {
                self.free.push(page);
            }
        }
    }
}

/// The last page of a sequence, where its next position would be written to it and others hold it too.
fn shared_page(sequence: &Sequence, holders: &[u32]) -> Option<u32> {
    let last = *sequence.pages.last()?;
    let is_partial = sequence.len < sequence.pages.len() * PAGE_LEN;
    (is_partial && holders[last as usize] > 1).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::super::super::{Chunk, LogitsFor};
    use super::*;
    use crate::kernels::kv::{Heads, KvType, PageLayout};

    fn memory(n_pages: usize) -> Pages {
        let heads = Heads { n_head: 1, n_head_kv: 1, head_dim: 2 };
        Pages::new(PageLayout { n_layer: 1, heads, kv: KvType::F16 }, n_pages).unwrap()
    }

    fn grow(sequences: &mut Sequences, memory: &mut Pages, seq: SeqId, n: usize) -> Result<(), ModelError> {
        let tokens = vec![0; n];
        sequences.reserve(&[Chunk { seq, tokens: &tokens, logits: LogitsFor::None }], memory)?;
        sequences.advance(seq, n);
        Ok(())
    }

    #[test]
    fn whole_pages_are_shared_and_a_partial_one_is_copied_by_whoever_writes() {
        let mut memory = memory(8);
        let mut sequences = Sequences::new(1, 8);
        let parent = sequences.create().unwrap();
        grow(&mut sequences, &mut memory, parent, 40).unwrap();
        let fork = sequences.fork(parent, 36).unwrap();
        assert_eq!(sequences.n_used(), 2);
        let [first, second] = *sequences.pages_of(parent) else { panic!("two pages") };
        grow(&mut sequences, &mut memory, fork, 1).unwrap();
        assert_eq!(sequences.n_used(), 3);
        assert_eq!(sequences.pages_of(fork)[0], first);
        assert_ne!(sequences.pages_of(fork)[1], second);
        // The parent's page is its own again.
        grow(&mut sequences, &mut memory, parent, 1).unwrap();
        assert_eq!(sequences.pages_of(parent), [first, second]);
        sequences.free(parent);
        assert_eq!((sequences.n_used(), sequences.len_of(fork)), (2, Some(37)));
        sequences.truncate(fork, 32);
        assert_eq!(sequences.n_used(), 1);
        sequences.free(fork);
        assert_eq!(sequences.n_used(), 0);
    }

    #[test]
    fn a_batch_without_pages_changes_nothing() {
        let mut memory = memory(3);
        let mut sequences = Sequences::new(2, 3);
        let [a, b] = [sequences.create().unwrap(), sequences.create().unwrap()];
        grow(&mut sequences, &mut memory, a, 64).unwrap();
        let tokens = [0; 33];
        let chunk = Chunk { seq: b, tokens: &tokens, logits: LogitsFor::None };
        let text = sequences.reserve(&[chunk], &mut memory).unwrap_err().to_string();
        assert!(text.contains("2 more pages of 32 positions") && text.contains("1 of 3"), "{text}");
        assert_eq!((sequences.n_used(), sequences.pages_of(b).len()), (2, 0));
        // A fork that would have to copy a page needs one too.
        let fork = sequences.fork(a, 50).unwrap();
        grow(&mut sequences, &mut memory, b, 1).unwrap();
        assert!(grow(&mut sequences, &mut memory, fork, 1).is_err());
    }
}
