//! What tests of the engine ask of it and hear from it.

use std::sync::{Arc, OnceLock};

use mommygpt::engine::{
    Engine, Event, Finish, GenerateRequest, Generation, Limits, Owner, SamplingParams, TokenId,
};
use mommygpt::text::Tokenizer;
use tokio::time::timeout;

use crate::scripted_model::{self, Next, PATIENCE, Remote, builtin_text};

pub(crate) const ADA: Owner = Owner(1);
pub(crate) const BOB: Owner = Owner(2);
/// Ordinary tokens of the built-in vocabulary start below this, and there are more than a thousand.
pub(crate) const FIRST_WORD: TokenId = 300;
pub(crate) const N_CTX: usize = 2048;

pub(crate) fn limits() -> Limits {
    Limits { max_sequences: 8, queue_total: 16, speculative: false, ..Limits::FAMILY }
}

/// Goes on and on, never twice the same way: depends on everything before.
pub(crate) fn endless(tokens: &[TokenId]) -> TokenId {
    let hash = tokens.iter().fold(7_u32, |h, t| h.wrapping_mul(31).wrapping_add(*t));
    FIRST_WORD + (hash >> 8) % 1000
}

pub(crate) fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    TOKENIZER.get_or_init(|| builtin_text().tokenizer)
}

pub(crate) fn end_token() -> TokenId {
    static END: OnceLock<TokenId> = OnceLock::new();
    *END.get_or_init(|| {
        let tokenizer = tokenizer();
        (0..tokenizer.n_vocab() as TokenId).find(|&id| tokenizer.is_end_of_generation(id)).unwrap()
    })
}

/// Ends when the sequence has a multiple of 16 tokens.
pub(crate) fn to_sixteen(tokens: &[TokenId]) -> TokenId {
    if tokens.len().is_multiple_of(16) { end_token() } else { endless(tokens) }
}

pub(crate) async fn start(limits: Limits, next: Next) -> (Engine, Remote) {
    let remote = Remote::default();
    let for_engine = remote.clone();
    let engine = Engine::start_with(limits, move || scripted_model::load(&for_engine, N_CTX, next));
    timeout(PATIENCE, engine.ready()).await.unwrap().unwrap();
    (engine, remote)
}

/// A prompt of `n` tokens that all say who wrote it.
pub(crate) fn request(owner: Owner, n: usize, max_tokens: usize) -> GenerateRequest {
    let prompt = vec![FIRST_WORD + owner.0 as TokenId; n];
    GenerateRequest::new(owner, prompt, SamplingParams::greedy(), max_tokens)
}

pub(crate) async fn next_event(generation: &mut Generation) -> Event {
    timeout(PATIENCE, generation.events.recv()).await.expect("an event in time").expect("a last event")
}

pub(crate) async fn until(generation: &mut Generation, wanted: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = next_event(generation).await;
        if wanted(&event) {
            return event;
        }
        assert!(!matches!(event, Event::Done { .. } | Event::Failed(_)), "ended early: {event:?}");
    }
}

/// All text, and the last event.
pub(crate) async fn finish(mut generation: Generation) -> (String, Event) {
    let mut text = String::new();
    loop {
        match next_event(&mut generation).await {
            Event::Delta { text: piece, .. } => text += &piece,
            end @ (Event::Done { .. } | Event::Failed(_)) => {
                assert!(generation.events.recv().await.is_none(), "nothing comes after the end");
                return (text, end);
            }
            Event::Queued { .. } | Event::Prefill { .. } => {}
        }
    }
}

pub(crate) fn reason(end: &Event) -> Option<Finish> {
    match end {
        Event::Done { finish_reason, .. } => Some(*finish_reason),
        _ => None,
    }
}

pub(crate) fn text_of(tokens: &[TokenId]) -> String {
    let bytes: Vec<u8> = tokens.iter().flat_map(|&id| tokenizer().token_bytes(id).to_vec()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a scripted model says after a prompt.
pub(crate) fn said(next: Next, prompt: &[TokenId], n_max: usize) -> Vec<TokenId> {
    let mut tokens = prompt.to_vec();
    while tokens.len() < prompt.len() + n_max && next(&tokens) != end_token() {
        tokens.push(next(&tokens));
    }
    tokens.split_off(prompt.len())
}
