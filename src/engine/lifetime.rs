//! The life of the inference thread: a model is loaded, runs, sleeps when nobody writes, gives way to another, or is
//! given up.
//!
//! ```text
//! load -> run -> panic: load again, a few times
//!           \--> idle for long: drop the model, wait for a request, load again
//!            \-> another is to take its place: finish what runs and waits, change places
//!             \-> the end
//! ```

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::request::Event;
use super::scheduler::Scheduler;
use super::{EngineError, EngineState, LoadError, Loaded, ModelInfo, Shared, lock};
use crate::model::ModelError;

/// Panics without a good end in between after which the model is given up: it would only break the next answer too.
const MAX_PANICS: usize = 3;
/// What runs and waits when another model is to take over has so long to end; then it is cut off, what was written of it
/// is kept, and people can ask again.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Brings a model; called again when one broke down or slept.
pub(super) type Loader = Box<dyn FnMut() -> Result<Loaded, LoadError> + Send>;

/// A model that is to take the place of the running one.
pub(super) struct Switch {
    load: Loader,
    /// `None` where memory holds one model at a time: it is loaded when the other is gone.
    loaded: Option<(Loaded, Duration)>,
    pub(super) deadline: Instant,
    answer: mpsc::Sender<Result<Arc<ModelInfo>, LoadError>>,
}

/// Why the running model is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leave {
    /// The engine ends.
    End,
    /// Nobody wrote for long.
    Idle,
    /// Another model is to take over.
    Switch,
}

/// Loads a model while the running one goes on, lets it end what it does, and puts the new one in its place.
///
/// # Errors
/// The load's; the running model stays then, or is loaded again where both did not fit into memory.
pub(super) fn switch(shared: &Shared, mut load: Loader) -> Result<Arc<ModelInfo>, EngineError> {
    let Ok(_one_at_a_time) = shared.switching.try_lock() else { return Err(EngineError::Switching) };
    if *shared.state.borrow() != EngineState::Ready {
        return Err(EngineError::NotReady);
    }
    let loaded = match load_caught(&mut load) {
        Ok(loaded) => Some(loaded),
        Err(LoadError::Model(ModelError::TooLarge(why))) => {
            tracing::info!(why, "the new model does not fit beside the old one");
            None
        }
        Err(e) => return Err(EngineError::Load(Arc::new(e))),
    };
    let (answer, hears) = mpsc::channel();
    {
        let mut queue = lock(&shared.queue);
        if queue.is_closed() {
            return Err(EngineError::NotReady);
        }
        *lock(&shared.switch) = Some(Switch { load, loaded, deadline: Instant::now() + DRAIN_LIMIT, answer });
        queue.pause();
        shared.state.send_replace(EngineState::Loading);
    }
    shared.work.notify_all();
    let outcome = hears.recv().map_err(|_| EngineError::NotReady)?;
    outcome.map_err(|e| EngineError::Load(Arc::new(e)))
}

/// The body of the inference thread.
pub(super) fn run(shared: &Shared, mut load: Loader) {
    let mut n_panics = 0;
    let mut next = None;
    loop {
        let loaded = match next.take() {
            Some(loaded) => loaded,
            None => match load_caught(&mut load) {
                Ok(loaded) => loaded,
                Err(e) => return give_up(shared, e),
            },
        };
        let mut scheduler = Scheduler::new(shared, loaded.0, loaded.1);
        open_again(shared);
        let ran = catch_unwind(AssertUnwindSafe(|| {
            loop {
                if let Err(leave) = scheduler.tick() {
                    return leave;
                }
            }
        }));
        let leave = match ran {
            Ok(leave) => leave,
            Err(panic) => {
                let why = panic_text(&*panic);
                tracing::error!(%why, "a step panicked; loading the model again");
                n_panics = if scheduler.n_good_ends > 0 { 1 } else { n_panics + 1 };
                shared.state.send_replace(EngineState::Loading);
                let dropped =
                    catch_unwind(AssertUnwindSafe(move || scheduler.fail_all("the model broke down")));
                if dropped.is_err() || n_panics >= MAX_PANICS {
                    return give_up(shared, LoadError::Panicked(why));
                }
                continue;
            }
        };
        if leave != Leave::Idle {
            scheduler.end_all();
        }
        drop(scheduler);
        next = match leave {
            Leave::Switch => take_over(shared, &mut load),
            Leave::Idle => match sleep(shared, &mut load) {
                Some(loaded) => Some(loaded),
                None => return ended(shared),
            },
            Leave::End => return ended(shared),
        };
    }
}

/// Takes requests again, unless another model is still to take over.
fn open_again(shared: &Shared) {
    let mut queue = lock(&shared.queue);
    if lock(&shared.switch).is_none() {
        queue.resume();
        shared.state.send_replace(EngineState::Ready);
    }
}

fn ended(shared: &Shared) {
    // Whoever waits for its answer hears that there will be none.
    drop(lock(&shared.switch).take());
    for waiting in lock(&shared.queue).take_all() {
        let _ = waiting.events.send(Event::Failed("the engine was shut down".into()));
    }
    shared.state.send_replace(EngineState::Failed("the engine was shut down".into()));
}

/// The model that was brought, with its loader in `load` from now on; `None` when the old one has to come back.
fn take_over(shared: &Shared, load: &mut Loader) -> Option<(Loaded, Duration)> {
    let Switch { load: mut new, loaded, answer, .. } = lock(&shared.switch).take()?;
    match loaded.map_or_else(|| load_caught(&mut new), Ok) {
        Ok((loaded, took)) => {
            *load = new;
            let info = Arc::new(super::scheduler::info_of(&loaded));
            tracing::info!(model = %info.name, "another model takes over");
            let _ = answer.send(Ok(info));
            Some((loaded, took))
        }
        Err(e) => {
            tracing::error!(error = %e, "the new model does not load; the old one comes back");
            let _ = answer.send(Err(e));
            None
        }
    }
}

/// Waits without a model until somebody writes; `None` at the end.
fn sleep(shared: &Shared, load: &mut Loader) -> Option<(Loaded, Duration)> {
    tracing::info!("nobody wrote for a while: the model is unloaded until somebody does");
    loop {
        let is_switch = {
            let mut queue = lock(&shared.queue);
            while queue.is_idle() && !queue.is_closed() && !queue.is_paused() {
                queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.is_closed() {
                return None;
            }
            queue.is_paused() && queue.is_idle()
        };
        if is_switch && let Some(loaded) = take_over(shared, load) {
            return Some(loaded);
        }
        match load_caught(load) {
            Ok(loaded) => return Some(loaded),
            // Memory that was free before may be so again when the next one writes.
            Err(e) => {
                tracing::error!(error = %e, "the model does not come back; trying again with the next message");
                let waiting = lock(&shared.queue).take_all();
                for w in waiting {
                    lock(&shared.metrics).count_end(None);
                    let _ = w.events.send(Event::Failed(e.to_string()));
                }
                open_again(shared);
            }
        }
    }
}

fn load_caught(load: &mut Loader) -> Result<(Loaded, Duration), LoadError> {
    let started_at = Instant::now();
    let loaded =
        catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|p| Err(LoadError::Panicked(panic_text(&*p))))?;
    Ok((loaded, started_at.elapsed()))
}

fn give_up(shared: &Shared, error: LoadError) {
    let why = error.to_string();
    shared.fail(error);
    drop(lock(&shared.switch).take());
    let waiting = {
        let mut queue = lock(&shared.queue);
        queue.close();
        queue.take_all()
    };
    for w in waiting {
        lock(&shared.metrics).count_end(None);
        let _ = w.events.send(Event::Failed(why.clone()));
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").to_owned()
}
