//! The engine on a scripted model: fairness, bounds, cancelling, warm sequences.

use std::time::Duration;

use mommygpt::engine::{
    Engine, EngineError, EngineOptions, Event, Finish, GenerateRequest, Generation, Limits, Loaded,
    ModelSource, Owner, SamplingParams, TokenId, Urgency, loop_guard,
};

use mommygpt::model::LoadOptions;

use crate::generations::{
    ADA, BOB, FIRST_WORD, N_CTX, endless, finish, limits, next_event, reason, request, said, start, text_of,
    to_sixteen, tokenizer,
};
use crate::scripted_model::{self, Next, Remote};

/// Says one word for ever.
fn stuck(_: &[TokenId]) -> TokenId {
    FIRST_WORD
}

/// Would like to say a control token.
fn control(_: &[TokenId]) -> TokenId {
    let tokenizer = tokenizer();
    let mut ids = 0..tokenizer.n_vocab() as TokenId;
    ids.find(|&id| tokenizer.is_control(id) && !tokenizer.is_end_of_generation(id)).unwrap()
}

#[tokio::test]
async fn a_generation_streams_text_and_tells_its_timings() {
    let (engine, _) = start(limits(), to_sixteen).await;
    let request = request(ADA, 5, 100);
    let expected = said(to_sixteen, &request.prompt, 100);
    let mut generation = engine.submit(request).unwrap();
    let progress = |processed_tokens| Event::Prefill { prompt_tokens: 5, cached_tokens: 0, processed_tokens };
    assert_eq!(next_event(&mut generation).await, progress(0));
    assert_eq!(next_event(&mut generation).await, progress(5));
    let (text, end) = finish(generation).await;
    assert_eq!(text, text_of(&expected));
    let Event::Done { finish_reason: Finish::Stop, timings } = end else { panic!("{end:?}") };
    assert_eq!((timings.cache_n, timings.prompt_n, timings.predicted_n), (0, 5, expected.len() as u32));
    let metrics = engine.metrics();
    assert_eq!((metrics.prompt_tokens_total, metrics.predicted_tokens_total), (5, expected.len() as u64));
    assert_eq!((metrics.finished.stop, metrics.running, metrics.queued, metrics.loaded), (1, 0, 0, true));
    assert_eq!(metrics.time_to_first_token.count(), 1);
    assert_eq!(metrics.inter_token.count(), expected.len() as u64);
}

#[tokio::test]
async fn a_stop_string_over_several_tokens_ends_the_text_and_is_not_in_it() {
    let (engine, _) = start(limits(), to_sixteen).await;
    let mut request = request(ADA, 5, 100);
    let whole = text_of(&said(to_sixteen, &request.prompt, 100));
    let chars: Vec<char> = whole.chars().collect();
    let stop: String = chars[chars.len() / 2..chars.len() / 2 + 6].iter().collect();
    request.stop = vec![stop.clone()];
    let (text, end) = finish(engine.submit(request).unwrap()).await;
    assert_eq!(reason(&end), Some(Finish::Stop));
    assert_eq!(text, whole[..whole.find(&stop).unwrap()]);
}

#[tokio::test]
async fn length_is_max_tokens_or_what_the_context_has_left() {
    let (engine, _) = start(limits(), endless).await;
    for (n_prompt, max_tokens, expected) in [(5, 7, 7), (N_CTX - 3, 100, 3), (N_CTX - 1, 1, 1)] {
        let (_, end) = finish(engine.submit(request(ADA, n_prompt, max_tokens)).unwrap()).await;
        let Event::Done { finish_reason: Finish::Length, timings } = end else { panic!("{end:?}") };
        assert_eq!(timings.predicted_n, expected);
    }
}

#[tokio::test]
async fn circles_and_control_tokens_do_not_come() {
    let (engine, _) = start(limits(), stuck).await;
    let (_, end) = finish(engine.submit(request(ADA, 5, 1000)).unwrap()).await;
    let Event::Done { finish_reason: Finish::Length, timings } = end else { panic!("{end:?}") };
    assert_eq!(timings.predicted_n as usize, loop_guard::MIN_TOKENS);

    let (engine, remote) = start(limits(), control).await;
    finish(engine.submit(request(ADA, 5, 4)).unwrap()).await;
    let evaluated = remote.see(|s| s.steps.concat());
    assert!(evaluated.iter().all(|r| !r.tokens.contains(&control(&[]))), "{evaluated:?}");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let (engine, remote) = start(limits(), endless).await;
    let overflow = engine.submit(request(ADA, N_CTX, 10)).unwrap_err();
    assert!(matches!(overflow, EngineError::ContextOverflow { n_tokens: N_CTX, n_ctx: N_CTX }), "{overflow}");
    let hot = SamplingParams { temperature: f32::NAN, ..SamplingParams::greedy() };
    let cases = [
        ("temperature", GenerateRequest { sampling: hot, ..request(ADA, 5, 10) }),
        ("stop", GenerateRequest { stop: vec![String::new()], ..request(ADA, 5, 10) }),
        ("max_tokens", request(ADA, 5, 0)),
        ("prompt", request(ADA, 0, 10)),
        ("prompt", GenerateRequest { prompt: vec![1 << 30], ..request(ADA, 5, 10) }),
    ];
    for (field, bad) in cases {
        match engine.submit(bad) {
            Err(EngineError::Invalid(e)) => assert_eq!(e.field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    assert_eq!(remote.see(|s| s.steps.len()), 0);
}

#[tokio::test]
async fn what_nobody_waits_for_runs_alone_and_makes_way() {
    let (engine, remote) = start(Limits { max_running: 2, ..limits() }, endless).await;
    remote.hold();
    let background = |owner| GenerateRequest { urgency: Urgency::Background, ..request(owner, 5, 50) };
    let ada = engine.submit(request(ADA, 5, 3)).unwrap();
    remote.wait_steps(1);
    let first = engine.submit(background(ADA)).unwrap();
    let second = engine.submit(background(BOB)).unwrap();
    remote.release();
    assert_eq!(reason(&finish(ada).await.1), Some(Finish::Length));
    remote.wait("the background to begin", |s| {
        s.steps.iter().any(|step| step.len() == 1 && step[0].start > 8).then_some(())
    });
    remote.hold();
    let n_steps = remote.see(|s| s.steps.len());
    remote.allow(1);
    remote.wait_steps(n_steps + 1);
    // Somebody writes: the step in hand is the last.
    let bob = engine.submit(request(Owner(3), 5, 3)).unwrap();
    remote.release();
    assert_eq!(reason(&finish(first).await.1), Some(Finish::Cancelled));
    assert_eq!(reason(&finish(bob).await.1), Some(Finish::Length));
    assert_eq!(reason(&finish(second).await.1), Some(Finish::Length));
    let steps = remote.see(|s| s.steps.clone());
    assert!(steps.iter().all(|step| step.len() == 1), "{steps:?}");
    let metrics = engine.metrics();
    assert_eq!((metrics.prompts_total, metrics.finished.length, metrics.finished.cancelled), (2, 2, 0));
    assert_eq!((metrics.running, metrics.kv.warm_sequences), (0, 2));
}

#[tokio::test]
async fn the_queue_is_bounded_per_owner_and_in_all() {
    let limits = Limits { max_running: 1, queue_per_owner: 2, queue_total: 3, ..limits() };
    let (engine, remote) = start(limits, endless).await;
    remote.hold();
    let mut kept = Vec::new();
    let mut submit = |owner| engine.submit(request(owner, 5, 10)).map(|g| kept.push(g));
    submit(ADA).unwrap();
    remote.wait_steps(1);
    submit(ADA).unwrap();
    submit(ADA).unwrap();
    let is_busy = |r: Result<(), EngineError>| matches!(r, Err(EngineError::Busy { retry_after_s: 1.. }));
    assert!(is_busy(submit(ADA)));
    submit(BOB).unwrap();
    assert!(is_busy(submit(BOB)));
    assert!(is_busy(submit(Owner(3))));
    assert_eq!((engine.metrics().queued, engine.metrics().refused_total), (3, 3));
    // A place that was cancelled is free at once.
    kept[1].cancel.cancel();
    let mut submit = |owner| engine.submit(request(owner, 5, 10)).map(|g| kept.push(g));
    submit(Owner(3)).unwrap();
    remote.release();
    let mut n_cancelled = 0;
    for generation in kept {
        let (_, end) = finish(generation).await;
        n_cancelled += usize::from(reason(&end) == Some(Finish::Cancelled));
    }
    assert_eq!(n_cancelled, 1);
}

fn position(event: &Event) -> Option<usize> {
    let Event::Queued { position, wait } = event else { return None };
    assert!(*wait > Duration::ZERO, "somebody who waits is told how long");
    Some(*position)
}

#[tokio::test]
async fn a_flood_of_one_owner_delays_another_by_one_generation() {
    let (engine, remote) = start(Limits { max_running: 2, ..limits() }, to_sixteen).await;
    remote.hold();
    let of = |owner| engine.submit(request(owner, 5, 100)).unwrap();
    let mut flood = vec![of(ADA)];
    remote.wait_steps(1);
    flood.push(of(ADA));
    remote.allow(1);
    remote.wait_steps(2);
    flood.extend((0..4).map(|_| of(ADA)));
    let mut bob = of(BOB);
    remote.allow(1);
    assert_eq!(position(&next_event(&mut bob).await), Some(1));
    remote.release();
    for generation in flood.into_iter().chain([bob]) {
        assert_eq!(reason(&finish(generation).await.1), Some(Finish::Stop));
    }
    let owners: Vec<TokenId> = remote.order_of_starts().iter().map(|t| t - FIRST_WORD).collect();
    assert_eq!(owners[..3], [1, 1, 2], "{owners:?}");
}

#[tokio::test]
async fn positions_are_told_when_they_change() {
    let (engine, remote) = start(Limits { max_running: 1, ..limits() }, to_sixteen).await;
    remote.hold();
    let of = |owner| engine.submit(request(owner, 5, 100)).unwrap();
    let first = of(ADA);
    remote.wait_steps(1);
    let (mut a, mut b, mut c) = (of(ADA), of(BOB), of(ADA));
    remote.allow(1);
    // Ada has a generation running, so Bob goes first.
    assert_eq!(position(&next_event(&mut b).await), Some(1));
    assert_eq!(position(&next_event(&mut a).await), Some(2));
    assert_eq!(position(&next_event(&mut c).await), Some(3));
    b.cancel.cancel();
    remote.allow(1);
    assert_eq!(position(&next_event(&mut a).await), Some(1));
    assert_eq!(position(&next_event(&mut c).await), Some(2));
    remote.release();
    for (generation, expected) in
        [(first, Finish::Stop), (b, Finish::Cancelled), (a, Finish::Stop), (c, Finish::Stop)]
    {
        assert_eq!(reason(&finish(generation).await.1), Some(expected));
    }
}

#[tokio::test]
async fn prompts_are_prefilled_in_chunks_beside_those_who_decode() {
    // No step is ever short enough for this budget.
    let (engine, remote) = start(Limits { itl_budget: Duration::ZERO, ..limits() }, endless).await;
    remote.hold();
    let mut ada = engine.submit(request(ADA, 600, 40)).unwrap();
    remote.wait_steps(1);
    let bob = engine.submit(request(BOB, 150, 5)).unwrap();
    remote.release();
    let mut processed = Vec::new();
    while let Event::Prefill { processed_tokens, .. } = next_event(&mut ada).await {
        processed.push(processed_tokens);
    }
    finish(ada).await;
    finish(bob).await;
    assert_eq!(processed, [0, 256, 264, 272, 280, 288, 544, 600]);
    // Ada and Bob take turns: a short prompt does not wait for the whole of a long one.
    let shapes: Vec<Vec<usize>> =
        remote.see(|s| s.steps.iter().map(|rows| rows.iter().map(|r| r.tokens.len()).collect()).collect());
    assert_eq!(shapes[..3], [vec![256], vec![150], vec![1, 8]], "{shapes:?}");
    assert!(shapes.iter().flatten().all(|&n| n <= 256));
}

#[tokio::test]
async fn cancelling_ends_it_wherever_it_stands() {
    let (engine, remote) = start(Limits { max_running: 1, ..limits() }, endless).await;
    // Before its turn, while another runs.
    remote.hold();
    let running = engine.submit(request(ADA, 5, 1000)).unwrap();
    remote.wait_steps(1);
    let waiting = engine.submit(request(BOB, 5, 1000)).unwrap();
    waiting.cancel.cancel();
    remote.allow(1);
    assert_eq!(reason(&finish(waiting).await.1), Some(Finish::Cancelled));
    // While it decodes; what was said stays said.
    remote.wait_steps(2);
    remote.allow(6);
    remote.wait_steps(8);
    running.cancel.cancel();
    remote.allow(1);
    let (text, end) = finish(running).await;
    let Event::Done { finish_reason: Finish::Cancelled, timings } = end else { panic!("{end:?}") };
    assert_eq!(timings.predicted_n, 8);
    assert!(!text.is_empty());
    // In the middle of its prompt: the chunk that runs is the last.
    let n_before = remote.see(|s| s.steps.len());
    let prefilling = engine.submit(request(ADA, 1500, 10)).unwrap();
    remote.wait_steps(n_before + 1);
    prefilling.cancel.cancel();
    remote.release();
    let (text, end) = finish(prefilling).await;
    assert_eq!((text.as_str(), reason(&end)), ("", Some(Finish::Cancelled)));
    assert_eq!(remote.see(|s| s.steps.len()), n_before + 1);
    assert_eq!(engine.metrics().finished.cancelled, 3);
}

#[tokio::test]
async fn a_dropped_generation_frees_its_place() {
    let (engine, remote) = start(Limits { max_running: 1, ..limits() }, to_sixteen).await;
    remote.hold();
    let running = engine.submit(request(ADA, 15, 1000)).unwrap();
    remote.wait_steps(1);
    let waiting = engine.submit(request(ADA, 15, 1000)).unwrap();
    drop((running, waiting));
    let bob = engine.submit(request(BOB, 5, 100)).unwrap();
    remote.release();
    assert_eq!(reason(&finish(bob).await.1), Some(Finish::Stop));
    let metrics = engine.metrics();
    assert_eq!((metrics.finished.cancelled, metrics.finished.stop, metrics.running), (2, 1, 0));
}

#[tokio::test]
async fn several_at_once_say_what_each_says_alone() {
    let (engine, remote) = start(limits(), to_sixteen).await;
    remote.hold();
    let requests: Vec<GenerateRequest> = (1..=4).map(|i| request(Owner(i), 3 * i as usize, 100)).collect();
    let generations: Vec<Generation> = requests.iter().map(|r| engine.submit(r.clone()).unwrap()).collect();
    remote.release();
    for (request, generation) in std::iter::zip(&requests, generations) {
        let (text, end) = finish(generation).await;
        assert_eq!(reason(&end), Some(Finish::Stop));
        assert_eq!(text, text_of(&said(to_sixteen, &request.prompt, 100)), "{:?}", request.owner);
    }
    assert!(remote.see(|s| s.steps.iter().any(|rows| rows.len() == 4)), "they shared steps");
}

#[tokio::test]
async fn the_next_message_costs_only_its_own_prefill() {
    let (engine, remote) = start(limits(), to_sixteen).await;
    let first = request(ADA, 200, 100);
    finish(engine.submit(first.clone()).unwrap()).await;
    let mut second = first.clone();
    second.prompt.extend(said(to_sixteen, &first.prompt, 100));
    second.prompt.extend([FIRST_WORD + 50; 9]);
    let (warm, end) = finish(engine.submit(second.clone()).unwrap()).await;
    let Event::Done { timings, .. } = end else { panic!("{end:?}") };
    // Everything but the new words; the last token of the answer was never evaluated.
    assert!(timings.prompt_n <= 10 && timings.cache_n as usize >= second.prompt.len() - 10, "{timings:?}");
    assert_eq!(engine.metrics().cached_tokens_total, u64::from(timings.cache_n));
    // The same prompt of somebody else starts from nothing, and says the same.
    let bob = GenerateRequest { owner: BOB, ..second.clone() };
    let n_steps = remote.see(|s| s.steps.len());
    let (cold, end) = finish(engine.submit(bob).unwrap()).await;
    let Event::Done { timings, .. } = end else { panic!("{end:?}") };
    assert_eq!((timings.cache_n, timings.prompt_n as usize), (0, second.prompt.len()));
    assert!(remote.see(|s| s.steps[n_steps][0].start == 0));
    assert_eq!(warm, cold);
}

#[tokio::test]
async fn warm_sequences_are_few() {
    let limits = Limits { max_running: 2, max_sequences: 3, ..limits() };
    let (engine, remote) = start(limits, to_sixteen).await;
    for round in 0..3 {
        for owner in 1..=6 {
            let (_, end) = finish(engine.submit(request(Owner(owner), 10 + round, 50)).unwrap()).await;
            assert_eq!(reason(&end), Some(Finish::Stop));
        }
    }
    assert_eq!(remote.see(|s| s.n_live_max), 3);
}

/// Every token's successor is the next of the prompt's own cycle: what was said before comes again.
fn echo(tokens: &[TokenId]) -> TokenId {
    tokens[tokens.len() - 40]
}

#[tokio::test]
async fn guesses_change_nothing_but_the_number_of_steps() {
    let mut texts = Vec::new();
    for speculative in [false, true] {
        let (engine, remote) = start(Limits { speculative, ..limits() }, echo).await;
        // A prompt that goes through forty words twice, and an answer that goes on with them.
        let mut asked = request(ADA, 80, 90);
        for (i, token) in asked.prompt.iter_mut().enumerate() {
            *token = FIRST_WORD + (i % 40) as TokenId;
        }
        let (text, end) = finish(engine.submit(asked).unwrap()).await;
        let Event::Done { timings, .. } = end else { panic!("{end:?}") };
        let metrics = engine.metrics();
        assert_eq!((timings.predicted_n, metrics.predicted_tokens_total), (90, 90));
        let n_steps = remote.see(|s| s.steps.len());
        if speculative {
            assert!(metrics.accepted_tokens_total > 0, "every guess holds here");
            assert_eq!(metrics.drafted_tokens_total, metrics.accepted_tokens_total);
            assert_eq!(n_steps as u64 + metrics.accepted_tokens_total, 90);
        } else {
            assert_eq!((metrics.drafted_tokens_total, n_steps), (0, 90));
        }
        texts.push(text);
    }
    assert_eq!(texts[0], texts[1]);
}

#[tokio::test]
async fn a_draft_model_changes_nothing_but_the_number_of_steps() {
    // What it guesses is right, or never is; the text is what it would be without.
    for (guess, holds) in [(endless as Next, true), (stuck as Next, false)] {
        for temperature in [0.0, 1.5] {
            let sampling = SamplingParams { temperature, seed: Some(7), ..SamplingParams::greedy() };
            let request = |owner| GenerateRequest { sampling: sampling.clone(), ..request(owner, 5, 300) };
            let (plain, _) = start(limits(), endless).await;
            let (remote, draft) = (Remote::default(), Remote::default());
            let (of_engine, of_draft) = (remote.clone(), draft.clone());
            let drafted = Engine::start_with(limits(), move || {
                let small = scripted_model::load(&of_draft, N_CTX, guess)?.model;
                Ok(Loaded { draft: Some(small), ..scripted_model::load(&of_engine, N_CTX, endless)? })
            });
            drafted.ready().await.unwrap();
            for owner in [ADA, ADA, BOB] {
                let (expected, _) = finish(plain.submit(request(owner)).unwrap()).await;
                let (text, _) = finish(drafted.submit(request(owner)).unwrap()).await;
                assert_eq!(text, expected, "{temperature} {holds}");
            }
            let metrics = drafted.metrics();
            assert!(metrics.drafted_tokens_total > 0);
            let n_held = metrics.accepted_tokens_total;
            assert!(
                if holds { n_held > 0 } else { n_held == 0 },
                "{n_held} of {}",
                metrics.drafted_tokens_total
            );
            // Its sequences end with their generations, but for those kept for their owners.
            assert!(draft.see(|s| s.n_live_max) <= 3);
        }
    }
}

#[tokio::test]
async fn a_draft_model_of_another_vocabulary_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stranger.gguf");
    // Two words of the vocabulary have changed places.
    let mut bytes = std::fs::read(scripted_model::builtin_path()).unwrap();
    let one = tokenizer().token_text(FIRST_WORD + 100).as_bytes();
    let others = (FIRST_WORD + 101..).map(|id| tokenizer().token_text(id).as_bytes());
    let other = others.into_iter().find(|word| word.len() == one.len()).unwrap();
    let place = |word: &[u8]| {
        let stored = [&(word.len() as u64).to_le_bytes(), word].concat();
        bytes.windows(stored.len()).position(|w| w == stored).expect("the word stands in the file") + 8
    };
    let places = [(place(one), other), (place(other), one)];
    for (at, word) in places {
        bytes[at..at + word.len()].copy_from_slice(word);
    }
    std::fs::write(&path, bytes).unwrap();
    let options = EngineOptions {
        gguf: ModelSource::File(scripted_model::builtin_path()),
        load: LoadOptions { n_threads: 1, max_sequences: 2, ..LoadOptions::default() },
        limits: limits(),
    };
    let good = Engine::start_drafted(options.clone(), Some(options.gguf.clone()));
    good.ready().await.unwrap();
    let engine = Engine::start_drafted(options, Some(ModelSource::File(path)));
    let error = engine.ready().await.unwrap_err().to_string();
    assert!(error.contains("--draft stranger.gguf") && error.contains("token"), "{error}");
}

#[tokio::test]
async fn a_branch_of_a_chat_finds_what_it_shares_and_leaves_the_other_warm() {
    let (engine, remote) = start(limits(), to_sixteen).await;
    remote.set(|s| s.forks = true);
    let first = request(ADA, 300, 100);
    finish(engine.submit(first.clone()).unwrap()).await;
    let cached = async |prompt: Vec<TokenId>, owner| {
        let request = GenerateRequest { prompt, owner, ..first.clone() };
        let (_, end) = finish(engine.submit(request).unwrap()).await;
        let Event::Done { timings, .. } = end else { panic!("{end:?}") };
        timings.cache_n
    };
    let mut branch = first.prompt[..200].to_vec();
    branch.extend([FIRST_WORD + 77; 20]);
    assert_eq!(cached(branch.clone(), BOB).await, 0, "nothing of Ada's is Bob's");
    assert_eq!(cached(branch, ADA).await, 200);
    // The first one was forked, not cut off.
    let mut on = first.prompt.clone();
    on.extend(said(to_sixteen, &first.prompt, 100));
    let n_said = on.len();
    on.extend([FIRST_WORD + 78; 5]);
    assert!(cached(on, ADA).await as usize >= n_said - 1);
}

#[tokio::test]
async fn a_deterministic_engine_steps_one_sequence_at_a_time_and_reuses_nothing() {
    let (engine, remote) = start(Limits { deterministic: true, ..limits() }, to_sixteen).await;
    remote.hold();
    let asked: Vec<Generation> =
        (1..=3).map(|i| engine.submit(request(Owner(i), 300, 50)).unwrap()).collect();
    remote.release();
    for generation in asked {
        assert_eq!(reason(&finish(generation).await.1), Some(Finish::Stop));
    }
    let (_, end) = finish(engine.submit(request(Owner(1), 300, 50)).unwrap()).await;
    let Event::Done { timings, .. } = end else { panic!("{end:?}") };
    assert_eq!(timings.cache_n, 0);
    let shapes: Vec<Vec<usize>> =
        remote.see(|s| s.steps.iter().map(|rows| rows.iter().map(|r| r.tokens.len()).collect()).collect());
    assert!(shapes.iter().all(|rows| matches!(rows[..], [1 | 44 | 256])), "{shapes:?}");
}

/// How long steps took decides how much of a prompt the next one carries, but not where everything must come out alike.
#[tokio::test]
async fn a_deterministic_engine_cuts_a_prompt_at_the_same_places_however_long_steps_take() {
    for (deterministic, is_expected) in [
        (true, (|chunks| chunks == [256, 256, 88]) as fn(&[usize]) -> bool),
        (false, |chunks| chunks[0] == 256 && chunks[1] < 256),
    ] {
        let (engine, remote) = start(Limits { deterministic, ..limits() }, to_sixteen).await;
        // The first chunk takes longer than anybody should have to wait.
        remote.set(|s| s.row_takes = Duration::from_micros(2500));
        let (_, end) = finish(engine.submit(request(ADA, 600, 1)).unwrap()).await;
        assert!(matches!(end, Event::Done { .. }), "{end:?}");
        let chunks: Vec<usize> = remote.see(|s| s.steps.iter().map(|rows| rows[0].tokens.len()).collect());
        assert!(is_expected(&chunks), "deterministic: {deterministic}, {chunks:?}");
    }
}
