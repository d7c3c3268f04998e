//! Sequences that ended and stay warm, so that the next message of a chat costs only its own prefill.
//!
//! A warm sequence is its owner's alone: another owner's equal prompt is evaluated from its first token, because the
//! time to the first token would tell what somebody else wrote. The least recently used is given up first, whoever's
//! it is.

use std::collections::VecDeque;

use super::request::Owner;
use crate::model::{SeqId, TokenId};

#[derive(Debug)]
struct Warm {
    owner: Owner,
    seq: SeqId,
    tokens: Vec<TokenId>,
}

/// The warm sequences, least recently used first.
#[derive(Debug, Default)]
pub(super) struct PrefixCache {
    warm: VecDeque<Warm>,
}

impl PrefixCache {
    pub(super) fn len(&self) -> usize {
        self.warm.len()
    }

    /// Keeps a sequence that holds exactly `tokens`.
    pub(super) fn put(&mut self, owner: Owner, seq: SeqId, tokens: Vec<TokenId>) {
        self.warm.push_back(Warm { owner, seq, tokens });
    }

    /// The owner's sequence that shares the longest beginning with `prompt`, and how long that is: at least 1, and less
    /// than the prompt, whose last token must be evaluated to give logits. The caller truncates the sequence to it.
    ///
    /// With `room` for another sequence, one that would lose more than it lends is left alone: a new chat shares only
    /// the persona with an old one, and somebody may come back to the old one.
    pub(super) fn take(&mut self, owner: Owner, prompt: &[TokenId], room: bool) -> Option<(SeqId, usize)> {
        let n_usable = |w: &Warm| {
            let n_equal = std::iter::zip(&w.tokens, prompt).take_while(|(a, b)| a == b).count();
            n_equal.min(prompt.len().saturating_sub(1))
        };
        let candidates = self.warm.iter().enumerate().filter(|(_, w)| w.owner == owner);
        let (n_common, i) = candidates
            .map(|(i, w)| (n_usable(w), i))
            .filter(|&(n, i)| n > 0 && (!room || 2 * n >= self.warm[i].tokens.len()))
            .max()?;
        self.warm.remove(i).map(|w| (w.seq, n_common))
    }

    /// Gives up the least recently used.
    pub(super) fn evict(&mut self) -> Option<SeqId> {
        self.warm.pop_front().map(|w| w.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: Owner = Owner(1);
    const BOB: Owner = Owner(2);

    fn cache(entries: &[(Owner, u32, &[TokenId])]) -> PrefixCache {
        let mut cache = PrefixCache::default();
        for &(owner, seq, tokens) in entries {
            cache.put(owner, SeqId(seq), tokens.to_vec());
        }
        cache
    }

    #[test]
    fn the_longest_common_beginning_of_the_same_owner_wins() {
        let mut cache = cache(&[(ADA, 0, &[1, 2, 3]), (ADA, 1, &[1, 2, 9]), (BOB, 2, &[1, 2, 3, 4])]);
        assert_eq!(cache.take(ADA, &[1, 2, 3, 4, 5], true), Some((SeqId(0), 3)));
        assert_eq!(cache.take(ADA, &[7], true), None);
        assert_eq!(cache.take(Owner(3), &[1, 2, 3, 4, 5], false), None);
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn the_last_token_is_always_evaluated() {
        let mut cache = cache(&[(ADA, 0, &[1, 2, 3]), (ADA, 1, &[4])]);
        assert_eq!(cache.take(ADA, &[1, 2, 3], true), Some((SeqId(0), 2)));
        assert_eq!(cache.take(ADA, &[4], true), None);
    }

    #[test]
    fn a_long_chat_is_not_given_up_for_a_persona() {
        let long: Vec<TokenId> = (0..100).collect();
        let prompt = [0, 1, 2, 3, 500];
        assert_eq!(cache(&[(ADA, 0, &long)]).take(ADA, &prompt, true), None);
        assert_eq!(cache(&[(ADA, 0, &long)]).take(ADA, &prompt, false), Some((SeqId(0), 4)));
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = cache(&[(ADA, 0, &[1]), (BOB, 1, &[1])]);
        assert_eq!(cache.evict(), Some(SeqId(0)));
        assert_eq!(cache.evict(), Some(SeqId(1)));
        assert_eq!(cache.evict(), None);
    }
}
