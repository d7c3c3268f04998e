//! Thoughts are not shown to a model again, so its sequence does not go on into the next prompt; behind the answer it
//! reads that prompt's beginning, and the next message costs only its own prefill all the same.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use mommygpt::model::{SeqId, TokenId};
use mommygpt::text::{Speaker, Turn};

use crate::chat_house::{House, LIMITS};
use crate::scripted_model::builtin_text;

const ANSWER: &str = "There, there. Tell me what they said, and then we will think about it together, you and I, with a cup \
                      of cocoa and the good blanket.";

struct Said {
    /// What the model says, thought and answer.
    reply: Vec<TokenId>,
    answer: Vec<TokenId>,
    /// What every prompt ends with, behind the person's words.
    opening: Vec<TokenId>,
    end: TokenId,
}

fn said() -> &'static Said {
    static SAID: OnceLock<Said> = OnceLock::new();
    SAID.get_or_init(|| {
        let text = builtin_text();
        let plain = |words: &str| text.tokenizer.encode_plain(words, false).unwrap();
        let prompt = |words: &str| text.encode_chat(&[Turn::new(Speaker::User, words)]).unwrap();
        let (one, other) = (prompt("a"), prompt("b"));
        let n_common =
            std::iter::zip(one.iter().rev(), other.iter().rev()).take_while(|(a, b)| a == b).count();
        let ids = 0..text.tokenizer.n_vocab() as TokenId;
        Said {
            reply: plain(&format!(
                "<think>They are sad, and I should listen before anything else.</think>{ANSWER}"
            )),
            answer: plain(ANSWER),
            opening: one[one.len() - n_common..].to_vec(),
            end: ids.into_iter().find(|&id| text.tokenizer.is_end_of_generation(id)).unwrap(),
        }
    })
}

/// Thinks and answers behind every prompt.
fn thoughtful(held: &[TokenId]) -> TokenId {
    let Said { reply, opening, end, .. } = said();
    let opened = held.windows(opening.len()).rposition(|w| w == opening.as_slice()).unwrap_or(0);
    let n_said = held.len() - (opened + opening.len()).min(held.len());
    reply.get(n_said).copied().unwrap_or(*end)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_message_costs_only_its_own_prefill_though_thoughts_are_dropped() {
    let house = House::with(thoughtful, 2048, LIMITS).await;
    house.remote.set(|s| s.forks = true);
    let (_, me, chat) = house.somebody("ada");
    for n_before in 0..3 {
        let (_, reply) = house.exchange(&me, chat, "They laughed.").await;
        assert_eq!(reply.content, ANSWER);
        let timings = reply.timings.unwrap();
        assert!(n_before == 0 || timings.prompt_n < 16, "message {n_before}: {timings:?}");
        let middle = &said().answer[5..said().answer.len() - 5];
        // In pieces of some length, on a sequence of its own each time.
        house.remote.wait("it is read ahead", |s| {
            let mut read: BTreeMap<SeqId, Vec<TokenId>> = BTreeMap::new();
            for row in s.steps.iter().flatten().filter(|row| row.tokens.len() > 1) {
                read.entry(row.seq).or_default().extend(&row.tokens);
            }
            let holds = |tokens: &&Vec<TokenId>| tokens.windows(middle.len()).any(|w| w == middle);
            (read.values().filter(holds).count() > n_before).then_some(())
        });
    }
}
