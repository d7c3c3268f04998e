//! Where writes wait for the one thread that writes, and how they are answered.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::StoreError;
use super::arrivals::{Arriving, Ground};
use super::tables::Tables;
use super::writer::{Core, closed, is_fatal, lock};
use crate::domain::UserId;

/// Most writes in one commit: as many as can wait, without one commit growing past what the disk reserve holds.
const MAX_BATCH: usize = 256;
/// Most bytes of content in one commit; a single larger write goes alone.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// Writes that may wait; the next caller waits for a place, which holds back a flood.
const QUEUE: usize = 1024;
/// Longest wait for writers that were just answered to come back, so that they share the next commit.
const GATHER_US_MAX: u64 = 1000;
/// After this long without a write, messages that wait in the journal are moved to their places.
const QUIET: Duration = Duration::from_millis(20);

/// A write waiting for its turn.
pub(super) trait Job: Send {
    /// Carries it out inside a transaction; an error means that the transaction must not be committed.
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), StoreError>;
    /// Whether it can also be carried out over the journal.
    fn may_arrive(&self) -> bool;
    /// Carries it out over the journal; an error as of `run`.
    fn arrive(&mut self, arriving: &mut Arriving<'_>) -> Result<(), StoreError>;
    /// Whether the last run came to its end, rather than panicking.
    fn has_run(&self) -> bool;
    fn weight(&self) -> usize;
    fn frees_room(&self) -> bool;
    /// Tells the caller, after the commit or why there is none.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

/// What the writer should know of a write beforehand.
#[derive(Clone, Copy, Default)]
pub(super) struct Hints {
    /// Bytes of content.
    pub(super) weight: usize,
    /// It deletes, so it may use the last of the disk reserve.
    pub(super) frees_room: bool,
}

/// A write and its caller.
struct Write<O, T> {
    op: O,
    out: Option<Result<T, StoreError>>,
    hints: Hints,
    answer: Option<SyncSender<Result<T, StoreError>>>,
}

impl<O, T> Write<O, T> {
    /// Notes what came of it; an error if that breaks the transaction.
    fn note(&mut self, out: Result<T, StoreError>) -> Result<(), StoreError> {
        let broken = match &out {
            Err(e) if is_fatal(e) || matches!(e, StoreError::Corrupt(_)) => Err(e.clone()),
            _ => Ok(()),
        };
        self.out = Some(out);
        broken
    }
}

/// How a write is carried out.
trait Op<T>: Send {
    const MAY_ARRIVE: bool;
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<T, StoreError>;
    fn arrive(&mut self, arriving: &mut Arriving<'_>) -> Result<T, StoreError>;
}

/// On the tables only.
struct OnTables<F>(F);

impl<T, F: FnMut(&mut Tables<'_>) -> Result<T, StoreError> + Send> Op<T> for OnTables<F> {
    const MAY_ARRIVE: bool = false;
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<T, StoreError> {
        (self.0)(tables)
    }
    fn arrive(&mut self, _: &mut Arriving<'_>) -> Result<T, StoreError> {
        Err(StoreError::Unhealthy("this write does not go over the journal".into()))
    }
}

/// On the tables or over the journal.
struct OnGround<F>(F);

impl<T, F: FnMut(&mut dyn Ground) -> Result<T, StoreError> + Send> Op<T> for OnGround<F> {
    const MAY_ARRIVE: bool = true;
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<T, StoreError> {
        (self.0)(tables)
    }
    fn arrive(&mut self, arriving: &mut Arriving<'_>) -> Result<T, StoreError> {
        (self.0)(arriving)
    }
}

impl<O: Op<T>, T: Send> Job for Write<O, T> {
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), StoreError> {
        self.out = None;
        let out = self.op.run(tables);
        self.note(out)
    }
    fn may_arrive(&self) -> bool {
        O::MAY_ARRIVE
    }
    fn arrive(&mut self, arriving: &mut Arriving<'_>) -> Result<(), StoreError> {
        self.out = None;
        let out = self.op.arrive(arriving);
        self.note(out)
    }
    fn has_run(&self) -> bool {
        self.out.is_some()
    }
    fn weight(&self) -> usize {
        self.hints.weight
    }
    fn frees_room(&self) -> bool {
        self.hints.frees_room
    }
    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { out, answer, .. } = *self;
        let out = committed.and_then(|()| out.unwrap_or_else(|| Err(closed())));
        if let Some(answer) = answer {
            // A caller that is gone no longer wants to know.
            let _ = answer.send(out);
        }
    }
}

/// Where writes are handed in. Not a channel, because the writer should wake once for a batch, not once for each of it.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// For the writer: enough waits, or it is over.
    enough: Condvar,
    /// For the callers: there is a place again.
    place: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Box<dyn Job>>,
    weight: usize,
    /// Writes waited for before the writer is woken.
    wanted: usize,
    over: bool,
}

impl Waiting {
    fn is_enough(&self) -> bool {
        self.over || self.jobs.len() >= self.wanted || self.weight >= MAX_BATCH_BYTES
    }
}

impl Queue {
    /// Starts the one thread that writes.
    pub(super) fn start(core: &Arc<Core>) -> (Arc<Self>, std::thread::JoinHandle<()>) {
        let queue = Arc::new(Self {
            waiting: Mutex::new(Waiting { wanted: 1, ..Waiting::default() }),
            enough: Condvar::new(),
            place: Condvar::new(),
        });
        let (core, to_write) = (Arc::clone(core), Arc::clone(&queue));
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || to_write.write_all(&core))
            .expect("the system can start one thread");
        (queue, thread)
    }
    /// No more writes; the thread ends after those already handed in.
    pub(super) fn end(&self) {
        lock(&self.waiting).over = true;
        self.enough.notify_all();
        self.place.notify_all();
    }
    fn hand_in(&self, job: Box<dyn Job>, may_wait: bool) -> Result<(), StoreError> {
        let mut waiting = lock(&self.waiting);
        while waiting.jobs.len() >= QUEUE && may_wait && !waiting.over {
            waiting = self.place.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.over {
            return Err(closed());
        }
        if waiting.jobs.len() >= QUEUE {
            tracing::debug!("a write of no consequence was dropped");
            return Ok(());
        }
        waiting.weight += job.weight();
        waiting.jobs.push_back(job);
        if waiting.is_enough() {
            self.enough.notify_one();
        }
        Ok(())
    }
    /// Hands in a write and waits until it is durable. `op` may run again if another write of its batch fails.
    pub(super) fn write<T: Send + 'static>(
        &self,
        hints: Hints,
        op: impl FnMut(&mut Tables<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.wait_for(hints, OnTables(op))
    }
    /// Like [`Queue::write`], for a write that may go over the journal.
    pub(super) fn write_arrival<T: Send + 'static>(
        &self,
        hints: Hints,
        op: impl FnMut(&mut dyn Ground) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.wait_for(hints, OnGround(op))
    }
    fn wait_for<T: Send + 'static>(&self, hints: Hints, op: impl Op<T> + 'static) -> Result<T, StoreError> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        self.hand_in(Box::new(Write { op, out: None, hints, answer: Some(answer) }), true)?;
        answered.recv().map_err(|_| closed())?
    }
    /// Hands in a write that nobody waits for; it is dropped when many wait already.
    pub(super) fn write_later(
        &self,
        op: impl FnMut(&mut Tables<'_>) -> Result<(), StoreError> + Send + 'static,
    ) {
        let write = Write { op: OnTables(op), out: None, hints: Hints::default(), answer: None };
        // After the end there is nothing of consequence left to write.
        let _ = self.hand_in(Box::new(write), false);
    }
    /// Waits until what this person (or anybody) wrote is where reads find it.
    pub(super) fn settle(&self, core: &Core, user: Option<UserId>) {
        if core.has_pending(user)
            && let Err(e) = self.wait_for(FREES_ROOM, OnTables(|_: &mut Tables<'_>| Ok(())))
        {
            core.read_around(&e);
        }
    }

    fn write_all(&self, core: &Core) {
        let mut n_last = 1;
        while let Some(batch) = self.gather(core, n_last) {
            n_last = batch.len();
            core.commit(batch);
        }
        if core.has_pending(None) {
            core.commit(vec![Box::new(nothing())]);
        }
    }
    /// Takes what waits; `None` at the end. The writers of the last commit were answered a moment ago and come back
    /// one by one, so a batch smaller than the last one waits for them a little, never longer than an eighth of what a
    /// commit takes.
    fn gather(&self, core: &Core, n_last: usize) -> Option<Vec<Box<dyn Job>>> {
        let mut waiting = lock(&self.waiting);
        while waiting.jobs.is_empty() {
            if waiting.over {
                return None;
            }
            waiting.wanted = 1;
            if core.purge.load(Ordering::Acquire) && core.healthy().is_ok() {
                // Nobody may come for a long time; what was deleted should be gone before that.
                return Some(vec![Box::new(nothing())]);
            }
            if core.has_pending(None) {
                let quiet = self.enough.wait_timeout_while(waiting, QUIET, |w| !w.is_enough());
                waiting = quiet.unwrap_or_else(PoisonError::into_inner).0;
                if waiting.jobs.is_empty() && !waiting.over {
                    return Some(vec![Box::new(nothing())]);
                }
                continue;
            }
            waiting = self.enough.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let n_commits = core.counts.n_commits.load(Ordering::Relaxed).max(1);
        let patience_us = (core.counts.commit_us.load(Ordering::Relaxed) / n_commits / 8).min(GATHER_US_MAX);
        waiting.wanted = n_last.min(MAX_BATCH);
        let patience = Duration::from_micros(patience_us);
        let enough = self.enough.wait_timeout_while(waiting, patience, |w| !w.is_enough());
        let mut waiting = enough.unwrap_or_else(PoisonError::into_inner).0;
        let mut batch = Vec::with_capacity(waiting.jobs.len().min(MAX_BATCH));
        let mut weight = 0;
        while batch.len() < MAX_BATCH && weight < MAX_BATCH_BYTES {
            let Some(job) = waiting.jobs.pop_front() else { break };
            weight += job.weight();
            batch.push(job);
        }
        waiting.weight -= weight;
        self.place.notify_all();
        Some(batch)
    }
}

/// What moves or removes rows may use the last of the disk reserve.
const FREES_ROOM: Hints = Hints { weight: 0, frees_room: true };

/// A write of nothing, to have a commit that moves what waits and purges.
fn nothing() -> impl Job {
    Write { op: OnTables(|_: &mut Tables<'_>| Ok(())), out: None, hints: FREES_ROOM, answer: None }
}
