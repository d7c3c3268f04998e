//! The radix tree against a list of sequences that is searched from end to end.

use proptest::prelude::*;

use super::*;

const ADA: Owner = Owner(1);
const BOB: Owner = Owner(2);

fn cache(entries: &[(Owner, u32, &[TokenId])]) -> PrefixCache {
    let mut cache = PrefixCache::default();
    for &(owner, seq, tokens) in entries {
        assert_eq!(cache.put(owner, SeqId(seq), tokens), []);
    }
    cache
}

#[expect(clippy::unnecessary_wraps, reason = "it stands for an answer that may be none")]
fn hit(seq: u32, n_common: usize, n_held: usize) -> Option<Hit> {
    Some(Hit { seq: SeqId(seq), n_common, n_held })
}

#[test]
fn the_longest_common_beginning_of_the_same_owner_wins() {
    let mut cache = cache(&[(ADA, 0, &[1, 2, 3]), (ADA, 1, &[1, 2, 9]), (BOB, 2, &[1, 2, 3, 4])]);
    assert_eq!(cache.longest(ADA, &[1, 2, 3, 4, 5]), hit(0, 3, 3));
    assert_eq!(cache.longest(ADA, &[7]), None);
    assert_eq!(cache.longest(Owner(3), &[1, 2, 3, 4, 5]), None);
    assert_eq!(cache.longest(ADA, &[1, 2, 9, 9]), hit(1, 3, 3));
    assert_eq!(cache.longest(ADA, &[1, 2, 7, 7]), hit(1, 2, 3), "of equals the newest");
    assert_eq!(cache.len(), 3);
}

#[test]
fn the_last_token_is_always_evaluated() {
    let mut cache = cache(&[(ADA, 0, &[1, 2, 3]), (ADA, 1, &[4])]);
    assert_eq!(cache.longest(ADA, &[1, 2, 3]), hit(0, 2, 3));
    assert_eq!(cache.longest(ADA, &[4]), None);
    assert_eq!(cache.longest(ADA, &[]), None);
}

#[test]
fn a_longer_one_makes_its_beginnings_superfluous() {
    let mut cache = cache(&[(ADA, 0, &[1, 2]), (BOB, 1, &[1, 2])]);
    assert_eq!(cache.put(ADA, SeqId(2), &[1, 2, 3, 4]), [SeqId(0)]);
    assert_eq!(cache.put(ADA, SeqId(3), &[1, 2, 3]), [SeqId(3)]);
    assert_eq!(cache.put(ADA, SeqId(4), &[1, 2, 3, 4]), [SeqId(4)]);
    assert_eq!(cache.len(), 2);
    assert_eq!(cache.longest(ADA, &[1, 2, 3, 9]), hit(2, 3, 4));
    assert_eq!(cache.longest(BOB, &[1, 2, 3, 9]), hit(1, 2, 2));
}

#[test]
fn the_least_recently_used_goes_first() {
    let mut cache = cache(&[(ADA, 0, &[1, 5]), (BOB, 1, &[1, 5]), (ADA, 2, &[1, 6])]);
    cache.longest(ADA, &[1, 5, 7]);
    assert_eq!(cache.evict(Some(SeqId(1))), Some(SeqId(2)));
    assert_eq!(cache.evict(None), Some(SeqId(1)));
    assert_eq!(cache.evict(None), Some(SeqId(0)));
    assert_eq!(cache.evict(None), None);
    assert!(cache.trees.is_empty(), "nothing of them stays");
}

/// What is done to a cache.
#[derive(Clone, Debug)]
enum Act {
    Put(u128, Vec<TokenId>),
    Evict,
    Ask(u128, Vec<TokenId>),
}

fn any_act() -> impl Strategy<Value = Act> {
    // Few different tokens, so that beginnings are shared.
    let tokens = || prop::collection::vec(0..3_u32, 1..8);
    prop_oneof![
        3 => (0..3_u128, tokens()).prop_map(|(o, t)| Act::Put(o, t)),
        1 => Just(Act::Evict),
        3 => (0..3_u128, tokens()).prop_map(|(o, t)| Act::Ask(o, t)),
    ]
}

proptest! {
    #[test]
    fn it_finds_what_a_search_from_end_to_end_finds(acts in prop::collection::vec(any_act(), 1..60)) {
        let mut cache = PrefixCache::default();
        let mut list: Vec<(Owner, SeqId, Vec<TokenId>)> = Vec::new();
        for (i, act) in acts.into_iter().enumerate() {
            match act {
                Act::Put(owner, tokens) => {
                    let (owner, seq) = (Owner(owner), SeqId(i as u32));
                    let gone = cache.put(owner, seq, &tokens);
                    list.push((owner, seq, tokens));
                    for g in &gone {
                        let (o, _, t) = list.iter().find(|(_, s, _)| s == g).unwrap().clone();
                        let holds_all = |(o2, s2, t2): &(Owner, SeqId, Vec<TokenId>)| {
                            *o2 == o && !gone.contains(s2) && t2.starts_with(&t)
                        };
                        prop_assert!(list.iter().any(holds_all), "{t:?} was lost");
                    }
                    list.retain(|(_, s, _)| !gone.contains(s));
                }
                Act::Evict => {
                    let gone = cache.evict(None);
                    prop_assert_eq!(gone.is_some(), !list.is_empty());
                    list.retain(|(_, s, _)| Some(*s) != gone);
                }
                Act::Ask(owner, prompt) => {
                    let n_of = |t: &[TokenId]| n_equal(t, &prompt[..prompt.len() - 1]);
                    let best = list.iter().filter(|(o, ..)| *o == Owner(owner)).map(|(_, _, t)| n_of(t)).max();
                    let found = cache.longest(Owner(owner), &prompt);
                    prop_assert_eq!(found.map_or(0, |h| h.n_common), best.unwrap_or(0));
                    if let Some(h) = found {
                        let (o, _, t) = list.iter().find(|(_, s, _)| *s == h.seq).unwrap();
                        prop_assert_eq!((*o, t.len(), n_of(t)), (Owner(owner), h.n_held, h.n_common));
                    }
                }
            }
            prop_assert_eq!(cache.len(), list.len());
        }
    }
}
