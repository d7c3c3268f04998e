//! The engine on the built-in model: what an answer says depends on its prompt alone, not on who else talks or on what
//! is warm.

use std::time::Duration;

use mommygpt::engine::{
    Engine, EngineError, EngineOptions, Event, Finish, GenerateRequest, Generation, Limits, LoadError,
    ModelSource, Owner, SamplingParams, Timings,
};
use mommygpt::model::{Chunk, Device, LoadOptions, LogitsFor, TokenId};
use mommygpt::text::{Speaker, Turn};
use tokio::time::timeout;

use crate::scripted_model::{PATIENCE, builtin_path};

const N_TOKENS: usize = 24;

async fn start(max_running: usize) -> Engine {
    let load = LoadOptions {
        n_ctx: None,
        n_threads: 1,
        device: Device::Cpu,
        max_sequences: 8,
        ..LoadOptions::default()
    };
    let gguf = ModelSource::File(builtin_path());
    // Prompts in one piece: where a prompt is cut decides how its sums are rounded, and the time it takes decides that.
    let itl_budget = Duration::from_hours(1);
    let limits = Limits { max_running, queue_per_owner: 8, queue_total: 32, itl_budget, ..Limits::FAMILY };
    let engine = Engine::start(EngineOptions { gguf, load, limits });
    timeout(PATIENCE, engine.ready()).await.unwrap().unwrap();
    engine
}

fn prompt(engine: &Engine, said: &[&str]) -> Vec<TokenId> {
    let speakers = [Speaker::User, Speaker::Assistant].into_iter().cycle();
    let turns: Vec<Turn> = std::iter::zip(speakers, said).map(|(who, what)| Turn::new(who, *what)).collect();
    engine.text().unwrap().encode_chat(&turns).unwrap()
}

fn request(owner: u128, prompt: Vec<TokenId>, sampling: SamplingParams) -> GenerateRequest {
    GenerateRequest::new(Owner(owner), prompt, sampling, N_TOKENS)
}

async fn finish(mut generation: Generation) -> (String, Finish, Timings) {
    let mut text = String::new();
    loop {
        let event = timeout(PATIENCE, generation.events.recv()).await.unwrap().unwrap();
        match event {
            Event::Delta { text: piece, .. } => text += &piece,
            Event::Done { finish_reason, timings } => return (text, finish_reason, timings),
            Event::Failed(why) => panic!("{why}"),
            Event::Queued { .. } | Event::Prefill { .. } => {}
        }
    }
}

const OPENERS: [&str; 4] = [
    "I had a bad day.",
    "My dog died this morning and I cannot stop crying about it.",
    "Guess what, I passed the driving test!",
    "I can't sleep. Every night I lie awake and think of everything that I did wrong at work.",
];

#[tokio::test]
async fn greedy_text_is_the_same_alone_and_among_others() {
    let engine = start(4).await;
    let mut alone = Vec::new();
    for (i, opener) in OPENERS.iter().enumerate() {
        let request = request(i as u128, prompt(&engine, &[opener]), SamplingParams::greedy());
        alone.push(finish(engine.submit(request).unwrap()).await);
    }
    assert!(alone.iter().all(|(text, ..)| text.len() > 10), "{alone:?}");
    // Other owners, so that nothing is warm.
    let together: Vec<Generation> = OPENERS
        .iter()
        .enumerate()
        .map(|(i, opener)| {
            let prompt = prompt(&engine, &[opener]);
            engine.submit(request(100 + i as u128, prompt, SamplingParams::greedy())).unwrap()
        })
        .collect();
    for (generation, (text, finish_reason, timings)) in std::iter::zip(together, alone) {
        let (shared_text, shared_finish, shared_timings) = finish(generation).await;
        assert_eq!((shared_text, shared_finish), (text, finish_reason));
        assert_eq!((shared_timings.cache_n, shared_timings.predicted_n), (0, timings.predicted_n));
    }
}

#[tokio::test]
async fn greedy_text_is_the_same_warm_and_cold() {
    let engine = start(1).await;
    let (answer, ..) =
        finish(engine.submit(request(1, prompt(&engine, &OPENERS[..1]), SamplingParams::greedy())).unwrap())
            .await;
    let second = prompt(&engine, &[OPENERS[0], &answer, "I failed an exam."]);
    let (warm, _, warm_timings) =
        finish(engine.submit(request(1, second.clone(), SamplingParams::greedy())).unwrap()).await;
    let (cold, _, cold_timings) =
        finish(engine.submit(request(2, second.clone(), SamplingParams::greedy())).unwrap()).await;
    assert_eq!(warm, cold);
    assert_eq!(cold_timings.cache_n, 0);
    assert!(warm_timings.cache_n as usize > prompt(&engine, &OPENERS[..1]).len(), "{warm_timings:?}");
    assert_eq!((warm_timings.cache_n + warm_timings.prompt_n) as usize, second.len());
}

#[tokio::test]
async fn a_seed_gives_its_text_again() {
    let engine = start(2).await;
    let seeded = |owner, seed| {
        let sampling = SamplingParams { seed: Some(seed), ..SamplingParams::neutral() };
        finish(engine.submit(request(owner, prompt(&engine, &OPENERS[3..]), sampling)).unwrap())
    };
    let (first, again, other) = (seeded(1, 7).await.0, seeded(2, 7).await.0, seeded(3, 8).await.0);
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[tokio::test]
async fn a_missing_or_broken_file_fails_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken.gguf");
    std::fs::write(&broken, b"not a model").unwrap();
    let missing = dir.path().join("missing.gguf");
    for (path, reason) in [(broken, "not a usable GGUF file"), (missing, "missing.gguf")] {
        let load = LoadOptions {
            n_ctx: None,
            n_threads: 1,
            device: Device::Cpu,
            max_sequences: 2,
            ..LoadOptions::default()
        };
        let gguf = ModelSource::File(path);
        let options = EngineOptions { gguf, load, limits: Limits::FAMILY };
        let error = timeout(PATIENCE, Engine::start(options).ready()).await.unwrap().unwrap_err();
        assert!(matches!(&error, EngineError::Load(e) if matches!(**e, LoadError::Model(_))), "{error:?}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

/// What speculation rests on: a position's logits are the same whether its token came alone or with others.
#[test]
fn logits_of_several_tokens_at_once_are_those_of_one_by_one() {
    let gguf = mommygpt::model::Gguf::open(&builtin_path()).unwrap();
    let load = LoadOptions { n_threads: 1, max_sequences: 2, ..LoadOptions::default() };
    let mut model = mommygpt::model::load(&gguf, &load).unwrap();
    let text = mommygpt::text::TextModel::from_gguf(&gguf).unwrap();
    let tokens = text.tokenizer.encode_plain(OPENERS[3], true).unwrap();
    let mut rows = |sizes: &mut dyn Iterator<Item = usize>| {
        let seq = model.new_sequence().unwrap();
        let (mut at, mut out) = (0, Vec::new());
        while at < tokens.len() {
            let n = sizes.next().unwrap().min(tokens.len() - at);
            let chunk = Chunk { seq, tokens: &tokens[at..at + n], logits: LogitsFor::All };
            let logits = model.step(&[chunk]).unwrap();
            out.extend(logits.rows().map(<[f32]>::to_vec));
            at += n;
        }
        model.free_sequence(seq);
        out
    };
    let one_by_one = rows(&mut std::iter::repeat(1));
    for size in [3, 8] {
        let together = rows(&mut std::iter::repeat(size));
        for (a, b) in std::iter::zip(&one_by_one, &together) {
            let worst = std::iter::zip(a, b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-2, "{size} at once: {worst}");
        }
    }
}
