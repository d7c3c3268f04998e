//! Another model takes over while people write, and the model's memory is given back when nobody does.

use std::fs;
use std::time::Duration;

use mommygpt::engine::{
    Engine, EngineError, EngineOptions, EngineState, Event, Finish, Generation, Limits, LoadError,
    ModelSource,
};
use mommygpt::model::{LoadOptions, ModelError};
use serde_json::json;
use tokio::time::timeout;

use crate::generations::{ADA, BOB, N_CTX, endless, limits, request, start, to_sixteen};
use crate::gguf_writer::{Meta, tiny_llama};
use crate::program::Program;
use crate::scripted_model::{self, PATIENCE, Remote};

async fn end(mut generation: Generation) -> Option<Finish> {
    loop {
        match timeout(PATIENCE, generation.events.recv()).await.unwrap() {
            Some(Event::Done { finish_reason, .. }) => return Some(finish_reason),
            Some(Event::Failed(_)) | None => return None,
            Some(_) => {}
        }
    }
}

async fn until_ready(engine: &Engine) {
    timeout(PATIENCE, engine.ready()).await.unwrap().unwrap();
}

/// Starts a switch on a thread of its own.
fn switching(
    engine: &Engine,
    load: impl FnMut() -> Result<mommygpt::engine::Loaded, LoadError> + Send + 'static,
) -> std::thread::JoinHandle<Result<String, EngineError>> {
    let engine = engine.clone();
    std::thread::spawn(move || engine.switch_with(load).map(|info| info.name.clone()))
}

#[tokio::test]
async fn what_runs_and_waits_is_finished_by_the_model_that_began_it() {
    let (engine, old) = start(Limits { max_running: 1, ..limits() }, to_sixteen).await;
    let before = engine.model_info().unwrap();
    old.hold();
    let running = engine.submit(request(ADA, 5, 100)).unwrap();
    old.wait_steps(1);
    let waiting = engine.submit(request(BOB, 5, 100)).unwrap();
    let new = Remote::default();
    let remote = new.clone();
    let switch = switching(&engine, move || scripted_model::load(&remote, N_CTX / 2, endless));
    let mut state = engine.state();
    while state == EngineState::Ready {
        tokio::task::yield_now().await;
        state = engine.state();
    }
    assert!(matches!(engine.submit(request(ADA, 5, 1)), Err(EngineError::NotReady)));
    assert!(matches!(engine.switch_with(|| unreachable!()), Err(EngineError::Switching)));
    old.release();
    assert_eq!(end(running).await, Some(Finish::Stop));
    assert_eq!(end(waiting).await, Some(Finish::Stop));
    switch.join().unwrap().unwrap();
    until_ready(&engine).await;
    assert_eq!((old.see(|s| s.n_dropped), new.see(|s| s.n_loads)), (1, 1));
    assert_eq!(engine.model_info().unwrap().n_ctx, N_CTX / 2);
    // Tokens that the old model's vocabulary gave are nothing for the new one.
    assert!(matches!(engine.submit_for(&before, request(ADA, 5, 3)), Err(EngineError::NotReady)));
    let now = engine.model_info().unwrap();
    assert_eq!(end(engine.submit_for(&now, request(ADA, 5, 3)).unwrap()).await, Some(Finish::Length));
    assert!(new.see(|s| !s.steps.is_empty()));
}

#[tokio::test]
async fn a_model_that_does_not_load_leaves_the_old_one_alone() {
    let (engine, old) = start(limits(), to_sixteen).await;
    let refuse = || Err(LoadError::Model(ModelError::Unsupported("architecture abacus".into())));
    let error = switching(&engine, refuse).join().unwrap().unwrap_err();
    assert!(matches!(&error, EngineError::Load(e) if e.to_string().contains("abacus")), "{error}");
    let error = switching(&engine, || panic!("out of beads")).join().unwrap().unwrap_err();
    assert!(error.to_string().contains("out of beads"), "{error}");
    assert_eq!(end(engine.submit(request(ADA, 5, 100)).unwrap()).await, Some(Finish::Stop));
    assert_eq!(old.see(|s| (s.n_loads, s.n_dropped)), (1, 0));
}

#[tokio::test]
async fn where_memory_holds_one_model_the_old_one_goes_first_and_comes_back_if_need_be() {
    let (engine, old) = start(limits(), to_sixteen).await;
    let too_large = || Err(LoadError::Model(ModelError::TooLarge("1 + 1 = 3".into())));
    let error = switching(&engine, too_large).join().unwrap().unwrap_err();
    assert!(error.to_string().contains("1 + 1 = 3"), "{error}");
    until_ready(&engine).await;
    assert_eq!(old.see(|s| (s.n_loads, s.n_dropped)), (2, 1), "unloaded for the try, and loaded again");
    let (new, seen) = (Remote::default(), old.clone());
    let remote = new.clone();
    let fits_alone = move || {
        if seen.see(|s| s.n_dropped) < 2 {
            return Err(LoadError::Model(ModelError::TooLarge("not beside the other".into())));
        }
        scripted_model::load(&remote, N_CTX, to_sixteen)
    };
    switching(&engine, fits_alone).join().unwrap().unwrap();
    until_ready(&engine).await;
    assert_eq!(end(engine.submit(request(ADA, 5, 100)).unwrap()).await, Some(Finish::Stop));
    assert!(new.see(|s| !s.steps.is_empty()));
}

#[tokio::test]
async fn an_idle_model_is_unloaded_and_the_next_message_brings_it_back() {
    let (engine, remote) =
        start(Limits { idle_unload: Some(Duration::from_millis(20)), ..limits() }, to_sixteen).await;
    for n_sleeps in 1..=3 {
        remote.wait("the model is dropped", |s| (s.n_dropped == n_sleeps).then_some(()));
        assert_eq!(engine.state(), EngineState::Ready, "people may write");
        assert!(engine.text().is_some(), "prompts can be made");
        assert_eq!(end(engine.submit(request(ADA, 5, 100)).unwrap()).await, Some(Finish::Stop));
        assert_eq!(remote.see(|s| s.n_loads), n_sleeps + 1);
    }
    remote.wait("it sleeps again", |s| (s.n_dropped == 4).then_some(()));
    let new = Remote::default();
    let for_new = new.clone();
    switching(&engine, move || scripted_model::load(&for_new, N_CTX, to_sixteen)).join().unwrap().unwrap();
    until_ready(&engine).await;
    assert_eq!(end(engine.submit(request(ADA, 5, 100)).unwrap()).await, Some(Finish::Stop));
    assert_eq!((remote.see(|s| s.n_loads), new.see(|s| s.n_loads > 0)), (4, true));
    engine.shutdown();
}

#[test]
fn the_operator_and_the_admin_change_the_model_of_a_running_server() {
    let program = Program::new();
    let file = program.beside("tiny.gguf");
    fs::write(&file, tiny_llama().bytes()).unwrap();
    program.good(&["import", file.to_str().unwrap()], "");
    let ran = program.run(&["switch", "tiny"]);
    assert!(ran.code == 1 && ran.stderr.contains("no server runs"), "{ran:?}");
    assert!(!program.data().join("mommygpt.redb").exists(), "asking makes no database");
    let server = program.serve(&["-m", "builtin", "--draft", "builtin", "--signup", "open"]);
    let form = json!({"email": "ada@example.org", "password": "correct horse battery staple"});
    let (_, body) = server.post("/api/auth/signup", &form);
    let token = body["session_token"].as_str().unwrap();
    let (_, chat) = server.post_as("/api/chats", token, &json!({"title": "T"}));
    let messages = format!("/api/chats/{}/messages", chat["id"].as_str().unwrap());
    let say = |text: &str| server.post_as(&messages, token, &json!({"content": text}));
    assert_eq!(say("Good morning to you").0, 200);

    let ran = program.good(&["switch", "tiny"], "");
    assert!(ran.stdout.contains("tiny"), "{ran:?}");
    let note = ran.after("note: no draft model guesses for tiny ");
    assert!(note.contains("--draft builtin: it has ") && note.contains("vocabulary"), "{ran:?}");
    assert_eq!(answers(&server, token), "tiny");
    assert_eq!(say("And how was your day").0, 200, "the chat goes on");
    let (status, body) = server.post_as("/api/admin/model", token, &json!({"name": "builtin"}));
    assert_eq!((status, body["name"].as_str()), (200, Some("builtin")), "{body}");
    assert_eq!(body.get("note"), None, "its guesses are its own again: {body}");
    let before = answers(&server, token);
    assert_ne!(before, "tiny");
    let (status, body) = server.post_as("/api/admin/model", token, &json!({"name": "tiny"}));
    assert_eq!((status, body["current"].as_bool()), (200, Some(true)), "{body}");
    assert!(body["note"].as_str().unwrap().contains("vocabulary"), "{body}");
    program.good(&["switch", "builtin"], "");

    let mut broken = tiny_llama();
    broken.set("llama.attention.head_count", Meta::U32(0));
    fs::write(program.data().join("models/broken.gguf"), broken.bytes()).unwrap();
    let ran = program.run(&["switch", "broken"]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (3, 1), "{ran:?}");
    assert!(ran.stderr.contains("broken.gguf") && ran.stderr.contains("head_count"), "{ran:?}");
    for (name, word) in [("broken", "head_count"), ("../tiny", "no model of that name"), ("absent", "absent")]
    {
        let (status, body) = server.post_as("/api/admin/model", token, &json!({"name": name}));
        assert_eq!(status, 422, "{name}: {body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(word), "{name}: {body}");
    }
    assert_eq!(answers(&server, token), before);
    assert_eq!(say("Still there?").0, 200);
    assert_eq!(server.stop("-TERM").0, 0);
}

/// The name of the model that answers.
fn answers(server: &crate::program::Server, token: &str) -> String {
    let ask = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2});
    let (status, body) = server.post_as("/v1/chat/completions", token, &ask);
    assert_eq!(status, 200, "{body}");
    body["model"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_draft_model_goes_on_guessing_for_the_model_that_takes_over_where_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let stranger = dir.path().join("stranger.gguf");
    fs::write(&stranger, tiny_llama().bytes()).unwrap();
    let builtin = || ModelSource::File(scripted_model::builtin_path());
    let load = LoadOptions { n_threads: 1, max_sequences: 2, ..LoadOptions::default() };
    // Nothing but a draft model guesses.
    let limits = Limits { speculative: false, ..limits() };
    let engine = Engine::start(EngineOptions { gguf: builtin(), load: load.clone(), limits });
    until_ready(&engine).await;
    for (draft, guesses) in
        [(None, false), (Some(ModelSource::File(stranger)), false), (Some(builtin()), true)]
    {
        let (switched, load) = (engine.clone(), load.clone());
        let switch = tokio::task::spawn_blocking(move || switched.switch(builtin(), load, draft));
        switch.await.unwrap().unwrap();
        until_ready(&engine).await;
        end(engine.submit(request(ADA, 5, 20)).unwrap()).await.unwrap();
        assert_eq!(engine.metrics().drafted_tokens_total > 0, guesses);
    }
}
