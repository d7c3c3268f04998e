//! Sequences that ended and stay warm, so that the next message of a chat costs only its own prefill.
//!
//! Per owner a radix tree over token ids: each edge is a run of tokens, each warm sequence ends at a node, and whatever
//! two of them have in common stands in the tree once (as it stands once in the model, whose pages they share). A prompt
//! walks down as far as it agrees; any sequence below that point can lend its beginning.
//!
//! A warm sequence is its owner's alone: another owner's equal prompt is evaluated from its first token, because the
//! time to the first token would tell what somebody else wrote. The least recently used is given up first, whoever's
//! it is.

use std::collections::HashMap;

use super::request::Owner;
use crate::model::{SeqId, TokenId};

/// Warm sequences in all: each keeps its tokens beside its pages, some kB, and giving one up looks at all.
pub(super) const MAX_WARM: usize = 256;

/// The warm sequences.
#[derive(Debug, Default)]
pub(super) struct PrefixCache {
    trees: HashMap<Owner, Node>,
    n_warm: usize,
    /// Counts uses.
    clock: u64,
}

/// A warm sequence that can lend its beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hit {
    pub(super) seq: SeqId,
    /// Tokens that it has in common with the prompt.
    pub(super) n_common: usize,
    /// Tokens that it holds.
    pub(super) n_held: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// The tokens from the parent to here.
    edge: Vec<TokenId>,
    /// By the first token of their edges.
    children: HashMap<TokenId, Node>,
    warm: Option<Warm>,
}

#[derive(Clone, Copy, Debug)]
struct Warm {
    seq: SeqId,
    last_used: u64,
}

impl PrefixCache {
    pub(super) fn len(&self) -> usize {
        self.n_warm
    }

    /// The owner's sequence that shares the longest beginning with `prompt`: at least one token, and fewer than the
    /// prompt, whose last token must be evaluated to give logits.
    pub(super) fn longest(&mut self, owner: Owner, prompt: &[TokenId]) -> Option<Hit> {
        let usable = &prompt[..prompt.len().saturating_sub(1)];
        let clock = self.clock + 1;
        let (hit, warm) = self.search(owner, usable)?;
        warm.last_used = clock;
        self.clock = clock;
        Some(hit)
    }

    /// The owner's sequence that shares the longest beginning with `tokens`, all of them perhaps; it does not count as
    /// used by that.
    pub(super) fn find(&mut self, owner: Owner, tokens: &[TokenId]) -> Option<Hit> {
        self.search(owner, tokens).map(|(hit, _)| hit)
    }

    fn search(&mut self, owner: Owner, tokens: &[TokenId]) -> Option<(Hit, &mut Warm)> {
        let (n_common, node, n_above) = self.trees.get_mut(&owner)?.walk(tokens);
        if n_common == 0 {
            return None;
        }
        let (warm, n_held) = node.newest(n_above)?;
        Some((Hit { seq: warm.seq, n_common, n_held }, warm))
    }

    /// What a sequence of the owner's holds; nothing for an unknown one.
    pub(super) fn tokens_of(&self, owner: Owner, seq: SeqId) -> Vec<TokenId> {
        let mut tokens = Vec::new();
        if let Some(tree) = self.trees.get(&owner) {
            tree.spell(seq, &mut tokens);
        }
        tokens
    }

    /// Keeps a sequence that holds exactly `tokens`. Returns those that have become superfluous, because another of the
    /// same owner holds all that they hold; the new one may be among them.
    pub(super) fn put(&mut self, owner: Owner, seq: SeqId, tokens: &[TokenId]) -> Vec<SeqId> {
        self.clock += 1;
        let warm = Warm { seq, last_used: self.clock };
        let mut superfluous = Vec::new();
        self.n_warm += 1;
        self.trees.entry(owner).or_default().insert(tokens, warm, &mut superfluous);
        self.n_warm -= superfluous.len();
        superfluous
    }

    /// Takes a sequence out of the cache; it stays alive in the model.
    pub(super) fn take(&mut self, owner: Owner, seq: SeqId) {
        let Some(tree) = self.trees.get_mut(&owner) else { return };
        if tree.remove(seq) {
            self.n_warm -= 1;
        }
        if tree.is_bare() {
            self.trees.remove(&owner);
        }
    }

    /// Some warm sequence.
    pub(super) fn any(&self) -> Option<SeqId> {
        self.trees.values().find_map(|tree| tree.oldest(None)).map(|w| w.seq)
    }

    /// Gives up the least recently used, but not `spared`.
    pub(super) fn evict(&mut self, spared: Option<SeqId>) -> Option<SeqId> {
        let oldest =
            |(owner, tree): (&Owner, &Node)| tree.oldest(spared).map(|w| (w.last_used, *owner, w.seq));
        let (_, owner, seq) =
            self.trees.iter().filter_map(oldest).min_by_key(|&(last_used, ..)| last_used)?;
        self.take(owner, seq);
        Some(seq)
    }
}

fn n_equal(a: &[TokenId], b: &[TokenId]) -> usize {
    std::iter::zip(a, b).take_while(|(a, b)| a == b).count()
}

impl Node {
    fn is_bare(&self) -> bool {
        self.warm.is_none() && self.children.is_empty()
    }

    /// How far `tokens` agree, the node where that ends (or within whose edge), and how many tokens stand above it.
    fn walk(&mut self, tokens: &[TokenId]) -> (usize, &mut Self, usize) {
        let (mut node, mut n_above, mut n_done) = (self, 0, 0);
        loop {
            let rest = &tokens[n_done..];
            let goes_on = rest.first().is_some_and(|first| node.children.contains_key(first));
            if !goes_on {
                return (n_done, node, n_above);
            }
            n_above += node.edge.len();
            let Some(child) = node.children.get_mut(&rest[0]) else { unreachable!("it was just there") };
            let n = n_equal(&child.edge, rest);
            n_done += n;
            node = child;
            if n < node.edge.len() {
                return (n_done, node, n_above);
            }
        }
    }

    /// The newest sequence at or below this node, and how many tokens it holds.
    fn newest(&mut self, n_above: usize) -> Option<(&mut Warm, usize)> {
        let n_here = n_above + self.edge.len();
        let own = self.warm.as_mut().map(|w| (w, n_here));
        let below = self.children.values_mut().filter_map(|c| c.newest(n_here));
        own.into_iter().chain(below).max_by_key(|(w, _)| w.last_used)
    }

    /// Appends the tokens from here to the sequence, if it ends here or below.
    fn spell(&self, seq: SeqId, tokens: &mut Vec<TokenId>) -> bool {
        let n_before = tokens.len();
        tokens.extend_from_slice(&self.edge);
        let is_here = self.warm.is_some_and(|w| w.seq == seq);
        let is_found = is_here || self.children.values().any(|child| child.spell(seq, tokens));
        if !is_found {
            tokens.truncate(n_before);
        }
        is_found
    }

    fn oldest(&self, spared: Option<SeqId>) -> Option<Warm> {
        let own = self.warm.filter(|w| Some(w.seq) != spared);
        let below = self.children.values().filter_map(|c| c.oldest(spared));
        own.into_iter().chain(below).min_by_key(|w| w.last_used)
    }

    /// What stands on the way is a beginning of the new one, and superfluous; where the way ends above others, the new
    /// one is.
    fn insert(&mut self, tokens: &[TokenId], warm: Warm, superfluous: &mut Vec<SeqId>) {
        if tokens.is_empty() {
            if !self.children.is_empty() || self.warm.is_some() {
                superfluous.push(warm.seq);
                return;
            }
            self.warm = Some(warm);
            return;
        }
        superfluous.extend(self.warm.take().map(|w| w.seq));
        let Some(child) = self.children.get_mut(&tokens[0]) else {
            let child = Self { edge: tokens.to_vec(), children: HashMap::new(), warm: Some(warm) };
            self.children.insert(tokens[0], child);
            return;
        };
        let n = n_equal(&child.edge, tokens);
        if n < child.edge.len() && n < tokens.len() {
            child.split(n);
        }
        if n == tokens.len() {
            superfluous.push(warm.seq);
        } else {
            child.insert(&tokens[n..], warm, superfluous);
        }
    }

    /// Cuts the edge after `n` tokens; what stood here stands one node further down.
    fn split(&mut self, n: usize) {
        let tail = self.edge.split_off(n);
        let below = Self { edge: tail, children: std::mem::take(&mut self.children), warm: self.warm.take() };
        self.children.insert(below.edge[0], below);
    }

    /// Removes a sequence and what only it needed.
    fn remove(&mut self, seq: SeqId) -> bool {
        if self.warm.is_some_and(|w| w.seq == seq) {
            self.warm = None;
            return true;
        }
        let Some(first) = self.children.iter_mut().find_map(|(first, c)| c.remove(seq).then_some(*first))
        else {
            return false;
        };
        if let Some(mut child) = self.children.remove(&first) {
            if child.warm.is_none() && child.children.len() == 1 {
                for (_, mut only) in std::mem::take(&mut child.children) {
                    let mut edge = std::mem::take(&mut child.edge);
                    edge.append(&mut only.edge);
                    only.edge = edge;
                    child = only;
                }
            }
            if !child.is_bare() {
                self.children.insert(first, child);
            }
        }
        true
    }
}

#[cfg(test)]
#[path = "prefix_cache_tests.rs"]
mod tests;
