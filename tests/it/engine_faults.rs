//! The engine on a scripted model when a step, the model or a load breaks, and when it ends.

use std::sync::mpsc;

use mommygpt::engine::{
    Engine, EngineError, EngineState, Event, Finish, Generation, Limits, LoadError, Owner,
};
use mommygpt::model::ModelError;
use tokio::time::timeout;

use crate::generations::{
    ADA, BOB, FIRST_WORD, N_CTX, endless, finish, limits, reason, request, said, start, text_of, to_sixteen,
    until,
};
use crate::scripted_model::{self, PATIENCE, Remote};

#[tokio::test]
async fn a_failed_step_costs_only_the_sequence_that_broke_it() {
    let (engine, remote) = start(limits(), to_sixteen).await;
    let poison = FIRST_WORD + 3;
    remote.set(|s| s.error_at = Some(poison));
    remote.hold();
    let good: Vec<Generation> = [ADA, BOB].map(|owner| engine.submit(request(owner, 5, 100)).unwrap()).into();
    let bad = engine.submit(request(Owner(3), 5, 100)).unwrap();
    remote.release();
    let (_, end) = finish(bad).await;
    assert!(matches!(&end, Event::Failed(why) if why.contains("a scripted error")), "{end:?}");
    for (owner, generation) in std::iter::zip([ADA, BOB], good) {
        let (text, end) = finish(generation).await;
        assert_eq!(reason(&end), Some(Finish::Stop));
        assert_eq!(text, text_of(&said(to_sixteen, &request(owner, 5, 100).prompt, 100)));
    }
    assert_eq!((engine.metrics().finished.error, engine.state()), (1, EngineState::Ready));
}

#[tokio::test]
async fn after_a_panic_the_model_is_loaded_again_and_the_queue_goes_on() {
    let (engine, remote) = start(Limits { max_running: 1, ..limits() }, to_sixteen).await;
    let poison = FIRST_WORD + 3;
    remote.set(|s| s.panic_at = Some(poison));
    remote.hold();
    let bad = engine.submit(request(Owner(3), 5, 100)).unwrap();
    remote.wait_steps(1);
    let good = engine.submit(request(ADA, 5, 100)).unwrap();
    remote.release();
    assert!(matches!(finish(bad).await.1, Event::Failed(_)));
    assert_eq!(reason(&finish(good).await.1), Some(Finish::Stop));
    assert_eq!(remote.see(|s| (s.n_loads, s.n_dropped)), (2, 1));
    // A model that only breaks is given up; the process lives.
    for _ in 0..3 {
        match engine.submit(request(Owner(3), 5, 100)) {
            Ok(bad) => assert!(matches!(finish(bad).await.1, Event::Failed(_))),
            Err(e) => assert!(matches!(e, EngineError::Load(_)), "{e}"),
        }
        let _ = timeout(PATIENCE, engine.ready()).await.unwrap();
    }
    assert!(matches!(engine.state(), EngineState::Failed(_)));
    assert!(matches!(engine.submit(request(ADA, 5, 10)), Err(EngineError::Load(_))));
}

#[tokio::test]
async fn a_model_that_does_not_load_says_why() {
    let refuse = || Err(LoadError::Model(ModelError::Unsupported("architecture abacus".into())));
    let engine = Engine::start_with(limits(), refuse);
    let error = timeout(PATIENCE, engine.ready()).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("architecture abacus"), "{error}");
    assert!(matches!(engine.state(), EngineState::Failed(why) if why.contains("abacus")));
    assert!(matches!(engine.submit(request(ADA, 5, 10)), Err(EngineError::Load(_))));
    let engine = Engine::start_with(limits(), || panic!("out of beads"));
    let error = timeout(PATIENCE, engine.ready()).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("out of beads"), "{error}");
}

#[tokio::test]
async fn nothing_is_taken_while_the_model_loads() {
    let (go, wait) = mpsc::channel::<()>();
    let remote = Remote::default();
    let engine = Engine::start_with(limits(), move || {
        wait.recv().unwrap();
        scripted_model::load(&remote, N_CTX, to_sixteen)
    });
    assert_eq!(engine.state(), EngineState::Loading);
    assert!(engine.text().is_none() && engine.model_info().is_none() && !engine.metrics().loaded);
    assert!(matches!(engine.submit(request(ADA, 5, 10)), Err(EngineError::NotReady)));
    go.send(()).unwrap();
    timeout(PATIENCE, engine.ready()).await.unwrap().unwrap();
    assert_eq!(engine.model_info().unwrap().name, "scripted");
    assert!(engine.submit(request(ADA, 5, 10)).is_ok());
}

#[tokio::test]
async fn shutdown_ends_what_runs_and_what_waits() {
    let (engine, remote) = start(Limits { max_running: 1, ..limits() }, endless).await;
    remote.hold();
    let running = engine.submit(request(ADA, 5, 2000)).unwrap();
    remote.wait_steps(1);
    let waiting = engine.submit(request(BOB, 5, 2000)).unwrap();
    let for_thread = engine.clone();
    let shutdown = tokio::task::spawn_blocking(move || for_thread.shutdown());
    let refused = async {
        while !matches!(engine.submit(request(Owner(9), 5, 10)), Err(EngineError::NotReady)) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
    remote.release();
    timeout(PATIENCE, shutdown).await.unwrap().unwrap();
    assert_eq!(remote.see(|s| s.n_dropped), 1);
    assert_eq!(reason(&finish(running).await.1), Some(Finish::Cancelled));
    assert_eq!(reason(&finish(waiting).await.1), Some(Finish::Cancelled));
    assert!(matches!(engine.submit(request(ADA, 5, 10)), Err(EngineError::NotReady)));
    engine.shutdown();
}

#[tokio::test]
async fn the_thread_ends_with_the_last_handle() {
    let (engine, remote) = start(limits(), endless).await;
    let other = engine.clone();
    let mut running = other.submit(request(ADA, 5, 2000)).unwrap();
    drop(engine);
    until(&mut running, |e| matches!(e, Event::Delta { .. })).await;
    drop(other);
    remote.wait("the model is dropped", |s| (s.n_dropped == 1).then_some(()));
}
