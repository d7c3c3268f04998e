//! One thread writes. All waiting writes go into one two-phase commit, so that concurrent writers share its syncs,
//! and each is answered after it. Many messages at once take the way over the journal (`arrivals`).
//!
//! A write that refuses has written nothing, because every one checks first; the others of its batch go on without
//! it. A disk that fails ends the batch for everybody, and the database handle with it (redb keeps no promise after
//! an I/O error): the store reads on through a fresh handle, writes again after a full disk, and after any other
//! failure acknowledges nothing more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use redb::{Database, Durability, ReadableDatabase as _, StorageBackend, WriteTransaction};

use super::arrivals::{self, Arriving, Pending};
use super::disk::{Reserve, Trial, is_full};
use super::open;
use super::queue::Job;
use super::tables::{Def, Snapshot, Tables};
use super::{COMMIT_BOUNDS_US, StoreError};
use crate::domain::UserId;

/// Rows of deleted chats and accounts removed with each commit: about a millisecond, so that nobody waits for it.
const PURGE_ROWS: usize = 1000;

/// Counters of the writer.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) n_writes: AtomicU64,
    pub(super) n_commits: AtomicU64,
    pub(super) n_arrivals: AtomicU64,
    pub(super) n_errors: AtomicU64,
    pub(super) commit_us: AtomicU64,
    /// By [`COMMIT_BOUNDS_US`].
    pub(super) commits_within: [AtomicU64; COMMIT_BOUNDS_US.len()],
}

impl Counts {
    fn committed(&self, n_writes: usize, took: Duration) {
        let us = took.as_micros() as u64;
        self.n_commits.fetch_add(1, Ordering::Relaxed);
        self.n_writes.fetch_add(n_writes as u64, Ordering::Relaxed);
        self.commit_us.fetch_add(us, Ordering::Relaxed);
        let bucket = COMMIT_BOUNDS_US.iter().position(|&bound| us <= bound);
        if let Some(i) = bucket {
            self.commits_within[i].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A database opened on its file.
pub(super) struct Handle {
    pub(super) db: Database,
    pub(super) trial: Arc<Trial>,
    /// What is durable in the journal and not in its place. Only the writer changes it.
    pub(super) pending: RwLock<Pending>,
}

impl Handle {
    fn pending(&self) -> RwLockReadGuard<'_, Pending> {
        self.pending.read().unwrap_or_else(PoisonError::into_inner)
    }
    /// After a commit that moved it all.
    fn moved(&self) {
        self.pending.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
    fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(Durability::Immediate).map_err(|e| StoreError::Unhealthy(e.to_string()))?;
        txn.set_two_phase_commit(true);
        Ok(txn)
    }
}

/// What the store can do now.
#[derive(Clone, PartialEq, Eq)]
enum Condition {
    Good,
    /// The last write found no room; the next one tries again.
    Full,
    /// The disk failed.
    Failed(String),
    Closed,
}

/// What readers and the writer share.
pub(super) struct Core {
    file: Arc<dyn StorageBackend>,
    reserve: Option<Arc<Reserve>>,
    handle: RwLock<Option<Arc<Handle>>>,
    condition: Mutex<Condition>,
    /// Held while a dead handle is replaced.
    replacing: Mutex<()>,
    pub(super) counts: Counts,
    /// Rows of something deleted still wait to be removed.
    pub(super) purge: AtomicBool,
}

pub(super) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn closed() -> StoreError {
    StoreError::Unhealthy("the store was closed".into())
}

/// Whether the database handle, not only this write, is lost.
pub(super) fn is_fatal(e: &StoreError) -> bool {
    matches!(e, StoreError::DiskFull | StoreError::Unhealthy(_))
}

impl Core {
    pub(super) fn new(file: Arc<dyn StorageBackend>, reserve: Option<Arc<Reserve>>, handle: Handle) -> Self {
        Self {
            file,
            reserve,
            handle: RwLock::new(Some(Arc::new(handle))),
            condition: Mutex::new(Condition::Good),
            replacing: Mutex::new(()),
            counts: Counts::default(),
            purge: AtomicBool::new(false),
        }
    }

    fn handle(&self) -> Result<Arc<Handle>, StoreError> {
        self.handle.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(closed)
    }

    pub(super) fn healthy(&self) -> Result<(), StoreError> {
        match &*lock(&self.condition) {
            Condition::Good => Ok(()),
            Condition::Full => Err(StoreError::DiskFull),
            Condition::Failed(why) => Err(StoreError::Unhealthy(why.clone())),
            Condition::Closed => Err(closed()),
        }
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.file.len().unwrap_or(0)
    }

    /// Runs `f` on a snapshot. If the handle died meanwhile, once more on its successor.
    pub(super) fn read<T>(&self, f: impl Fn(&Snapshot) -> Result<T, StoreError>) -> Result<T, StoreError> {
        for _ in 0..2 {
            let handle = self.handle()?;
            let done = catch_unwind(AssertUnwindSafe(|| f(&Snapshot { txn: handle.db.begin_read()? })))
                .unwrap_or_else(|_| Err(StoreError::Unhealthy("a read met a damaged page".into())));
            match done {
                Err(e) if is_fatal(&e) => self.replace(&handle, &e),
                done => return done,
            }
        }
        Err(self.healthy().err().unwrap_or_else(|| StoreError::Unhealthy("the disk cannot be read".into())))
    }

    /// Whether messages (of one person, or of anybody) are durable and not yet where reads find them.
    pub(super) fn has_pending(&self, user: Option<UserId>) -> bool {
        self.handle().is_ok_and(|h| match user {
            Some(user) => h.pending().concerns(user),
            None => !h.pending().is_empty(),
        })
    }

    /// Reads go on where a write could not move what waits: the same file opened again has it moved, in memory.
    pub(super) fn read_around(&self, why: &StoreError) {
        if let Ok(handle) = self.handle()
            && !handle.pending().is_empty()
        {
            self.replace(&handle, why);
        }
    }

    /// A snapshot that its holder keeps.
    pub(super) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot { txn: self.handle()?.db.begin_read()? })
    }

    /// Notes why `dead` failed and puts a fresh handle in its place, which writes nothing until it is asked to.
    fn replace(&self, dead: &Arc<Handle>, why: &StoreError) {
        let _replacing = lock(&self.replacing);
        if !self.handle().is_ok_and(|h| Arc::ptr_eq(&h, dead)) {
            return;
        }
        tracing::error!(error = %why, "the database handle failed and is opened again for reading");
        {
            let mut condition = lock(&self.condition);
            match (&*condition, why) {
                (Condition::Good | Condition::Full, StoreError::DiskFull) => *condition = Condition::Full,
                (Condition::Good | Condition::Full, why) => *condition = Condition::Failed(why.to_string()),
                (Condition::Failed(_) | Condition::Closed, _) => {}
            }
        }
        dead.trial.cut();
        match open::open_trial(&self.file, false) {
            Ok(fresh) => *self.handle.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(fresh)),
            Err(e) => {
                tracing::error!(error = %e, "the database cannot be opened again");
                *lock(&self.condition) = Condition::Failed(e.to_string());
            }
        }
    }

    /// Lets writes through to the file, if there is room and the disk did not fail.
    fn ready(&self, for_delete: bool) -> Result<Arc<Handle>, StoreError> {
        match &*lock(&self.condition) {
            Condition::Failed(why) => return Err(StoreError::Unhealthy(why.clone())),
            Condition::Closed => return Err(closed()),
            Condition::Good | Condition::Full => {}
        }
        if let Some(Err(e)) = self.reserve.as_ref().map(|r| r.ensure(for_delete)) {
            if is_full(&e) {
                *lock(&self.condition) = Condition::Full;
                return Err(StoreError::DiskFull);
            }
            return Err(StoreError::Unhealthy(format!("the data directory cannot be written: {e}")));
        }
        let handle = self.handle()?;
        if let Err(e) = handle.trial.settle() {
            let why = StoreError::from(e);
            self.replace(&handle, &why);
            return Err(why);
        }
        let mut condition = lock(&self.condition);
        if *condition == Condition::Full {
            tracing::info!("there is room on the disk again; writes resume");
            *condition = Condition::Good;
        }
        Ok(handle)
    }

    /// Opens the way to the file at the start. A full disk is no reason not to start: reads work.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        let handle = self.handle()?;
        match handle.trial.settle().map_err(StoreError::from) {
            Ok(()) => Ok(()),
            Err(why) => {
                self.replace(&handle, &why);
                if why == StoreError::DiskFull { Ok(()) } else { Err(why) }
            }
        }
    }

    /// Answers every write of the batch after one commit. A write that cannot be carried out (a damaged row, a panic)
    /// is answered alone, and the rest tried again without it.
    pub(super) fn commit(&self, mut batch: Vec<Box<dyn Job>>) {
        while !batch.is_empty() {
            let for_delete = batch.iter().all(|j| j.frees_room());
            let handle = match self.ready(for_delete) {
                Ok(handle) => handle,
                Err(e) => return self.refuse(batch, &e),
            };
            let started = Instant::now();
            match self.attempt(&handle, &mut batch) {
                Ok(()) => {
                    self.counts.committed(batch.len(), started.elapsed());
                    return batch.into_iter().for_each(|job| job.answer(Ok(())));
                }
                Err(Failed::One(idx, e)) => {
                    tracing::error!(error = %e, "a write was given up; nothing of it was stored");
                    batch.remove(idx).answer(Err(e));
                }
                Err(Failed::All(e)) => {
                    self.replace(&handle, &e);
                    return self.refuse(batch, &e);
                }
            }
        }
    }

    fn refuse(&self, batch: Vec<Box<dyn Job>>, why: &StoreError) {
        self.counts.n_errors.fetch_add(batch.len() as u64, Ordering::Relaxed);
        for job in batch {
            job.answer(Err(why.clone()));
        }
    }

    fn attempt(&self, handle: &Handle, batch: &mut [Box<dyn Job>]) -> Result<(), Failed> {
        let may_arrive = batch.len() >= arrivals::MANY && !handle.pending().is_full();
        catch_unwind(AssertUnwindSafe(|| {
            if may_arrive && batch.iter().all(|job| job.may_arrive()) && self.arrive(handle, batch)? {
                return Ok(());
            }
            self.put_in_place(handle, batch)
        }))
        .unwrap_or_else(|_| {
            Err(Failed::All(StoreError::Unhealthy("the database failed unexpectedly".into())))
        })
    }

    /// One row of the journal for the whole batch; false if one of it met something that the other way answers better.
    fn arrive(&self, handle: &Handle, batch: &mut [Box<dyn Job>]) -> Result<bool, Failed> {
        let ready = {
            let pending = handle.pending();
            let snapshot = Snapshot { txn: handle.db.begin_read().map_err(all)? };
            let mut arriving = Arriving::new(&snapshot, &pending).map_err(all)?;
            for job in batch {
                let ran = catch_unwind(AssertUnwindSafe(|| job.arrive(&mut arriving)));
                if !matches!(ran, Ok(Ok(()))) {
                    return Ok(false);
                }
            }
            arriving.done()
        };
        if ready.is_empty() {
            return Ok(true);
        }
        let txn = handle.begin_write().map_err(all)?;
        {
            let mut table = txn.open_table(Def::new("arrivals")).map_err(all)?;
            ready.write(&mut table, &handle.pending()).map_err(all)?;
        }
        txn.commit().map_err(all)?;
        self.counts.n_arrivals.fetch_add(ready.len() as u64, Ordering::Relaxed);
        handle.pending.write().unwrap_or_else(PoisonError::into_inner).absorb(ready);
        Ok(true)
    }

    /// Moves what waits, then carries out the batch, in one transaction.
    fn put_in_place(&self, handle: &Handle, batch: &mut [Box<dyn Job>]) -> Result<(), Failed> {
        let txn = handle.begin_write().map_err(all)?;
        {
            let mut tables = Tables::open(&txn).map_err(all)?;
            handle.pending().move_all(&mut tables).map_err(all)?;
            for (idx, job) in batch.iter_mut().enumerate() {
                let ran = catch_unwind(AssertUnwindSafe(|| job.run(&mut tables)))
                    .unwrap_or_else(|_| Err(StoreError::Unhealthy("a write failed unexpectedly".into())));
                match ran {
                    Err(e) if is_fatal(&e) && job.has_run() => return Err(Failed::All(e)),
                    Err(e) => return Err(Failed::One(idx, e)),
                    Ok(()) => {}
                }
            }
            if self.purge.load(Ordering::Acquire) {
                let more = super::chats::purge(&mut tables, PURGE_ROWS).map_err(all)?;
                self.purge.store(more, Ordering::Release);
            }
        }
        txn.commit().map_err(all)?;
        handle.moved();
        Ok(())
    }

    /// Closes the file cleanly if nobody reads; else leaves it as a crash would, which the next start repairs.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        *lock(&self.condition) = Condition::Closed;
        let Some(handle) = self.handle.write().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(());
        };
        let trial = Arc::clone(&handle.trial);
        let closed = match Arc::try_unwrap(handle) {
            Ok(handle) if trial.is_settled() => handle.db.close().map_err(StoreError::from),
            Ok(_) | Err(_) => Ok(()),
        };
        trial.cut();
        closed
    }
}

enum Failed {
    /// This write only; the others may be tried again.
    One(usize, StoreError),
    /// The transaction and its handle.
    All(StoreError),
}

/// A failure that ends the transaction for everybody.
fn all(e: impl Into<StoreError>) -> Failed {
    let e = e.into();
    Failed::All(if is_fatal(&e) { e } else { StoreError::Unhealthy(e.to_string()) })
}
