//! A fork-join pool for one forward pass at a time: every thread runs the same closure and meets the others at barriers.
//!
//! Workers spin for a short while after a step, because the next one usually follows at once, then sleep; an idle server
//! costs nothing. The barrier at a step's end does the same: where somebody else holds a core, a thread that waits must leave its own, or the
//! one it waits for is not moved there. And where so much is lost to cores that were taken away in the middle of a step that
//! one thread would be done sooner, the caller goes on alone for a while: a step that is over in a tenth of a millisecond
//! must not wait for the scheduler's next slice again and again. For the same reason no thread is pinned: beside another
//! program a pinned one waits for its core while others stand idle.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Turns of the spin loop before a waiting thread sleeps: some tens of microseconds.
const SPINS: usize = 4000;

/// A wait for the others that cannot be a share of work cut too large: a thread that is late by so much was made to stop.
const STOPPED: Duration = Duration::from_micros(500);
/// How long the caller works alone where that is faster. Long beside a scheduler's slice of a few milliseconds, short enough
/// to have the other cores back before anybody notices.
const ALONE: Duration = Duration::from_millis(50);
/// So much time of jobs is remembered, older ones ever less: a server's own connections and clients take a core for a moment
/// in every step, which must not cost the half of the machine.
const REMEMBERED: Duration = Duration::from_millis(40);

/// A job: a closure over the thread's number, with its lifetime erased while all threads run it.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn(usize) + Sync));

// SAFETY: the pointee is `Sync`, and `Pool::run` keeps it alive until every thread is done with it.
unsafe impl Send for Job {}

struct Shared {
    n_threads: usize,
    /// Counts jobs; workers wait for it to change.
    epoch: AtomicUsize,
    job: Mutex<Option<Job>>,
    stop: AtomicBool,
    barrier: Barrier,
    panicked: AtomicBool,
    ledger: Mutex<Ledger>,
}

/// What jobs on all threads cost lately.
#[derive(Default)]
struct Ledger {
    /// Time that they worked.
    worked: Duration,
    /// Time that they waited for a thread that was made to stop.
    lost: Duration,
    /// Until when the caller works alone.
    alone_until: Option<Instant>,
}

impl Ledger {
    fn add(&mut self, worked: Duration, lost: Duration) {
        self.worked += worked;
        self.lost += lost;
        if self.worked + self.lost > REMEMBERED {
            self.worked /= 2;
            self.lost /= 2;
        }
    }

    /// Whether one thread would have been done sooner than all `n_threads`.
    fn is_better_alone(&self, n_threads: usize) -> bool {
        self.lost > self.worked * (n_threads as u32 - 1)
    }
}

impl Shared {
    /// Waits for the others at the end of a step that this thread began at `started`, and sees whether one was stopped.
    fn meet(&self, started: Instant, is_caller: bool) {
        let done = Instant::now();
        self.barrier.wait(self.n_threads);
        let now = Instant::now();
        let (own, waited) = (done - started, now - done);
        let was_stopped = waited > STOPPED && waited > own;
        if !is_caller && !was_stopped {
            return;
        }
        let mut ledger = self.ledger();
        if is_caller {
            ledger.add(if was_stopped { own } else { own + waited }, Duration::ZERO);
        } else {
            // The caller was stopped, and took that for work.
            ledger.worked = ledger.worked.saturating_sub(waited);
        }
        if was_stopped {
            ledger.add(Duration::ZERO, waited);
            if ledger.is_better_alone(self.n_threads) {
                ledger.alone_until = Some(now + ALONE);
            }
        }
    }

    /// Whether the caller works alone for now.
    fn is_alone(&self) -> bool {
        let mut ledger = self.ledger();
        if ledger.alone_until.is_some_and(|until| Instant::now() >= until) {
            ledger.alone_until = None;
        }
        ledger.alone_until.is_some()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sense-counting barrier.
#[derive(Default)]
struct Barrier {
    arrived: AtomicUsize,
    round: AtomicUsize,
    /// Threads that have stopped spinning; they sleep on `woken`.
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    woken: Condvar,
}

impl Barrier {
    fn wait(&self, n_threads: usize) {
        let round = self.round.load(Ordering::Relaxed);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == n_threads {
            self.arrived.store(0, Ordering::Relaxed);
            // In one order with `sleepers` for all threads: a sleeper sees the new round, or is seen here.
            self.round.store(round.wrapping_add(1), Ordering::SeqCst);
            if self.sleepers.load(Ordering::SeqCst) > 0 {
                drop(self.bed.lock().unwrap_or_else(PoisonError::into_inner));
                self.woken.notify_all();
            }
            return;
        }
        for _ in 0..SPINS {
            if self.round.load(Ordering::Acquire) != round {
                return;
            }
            std::hint::spin_loop();
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        let bed = self.woken.wait_while(bed, |()| self.round.load(Ordering::SeqCst) == round);
        drop(bed.unwrap_or_else(PoisonError::into_inner));
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Threads for one forward pass; the caller is thread 0.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Thread>,
    handles: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `n_threads`, at least 1, the caller included.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(n_threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            n_threads: n_threads.max(1),
            epoch: AtomicUsize::new(0),
            job: Mutex::new(None),
            stop: AtomicBool::new(false),
            barrier: Barrier::default(),
            panicked: AtomicBool::new(false),
            ledger: Mutex::default(),
        });
        let mut pool = Self { shared, workers: Vec::new(), handles: Vec::new() };
        for thread_idx in 1..pool.shared.n_threads {
            let shared = Arc::clone(&pool.shared);
            let handle = std::thread::Builder::new()
                .name(format!("infer-{thread_idx}"))
                .spawn(move || work(&shared, thread_idx))?;
            pool.workers.push(handle.thread().clone());
            pool.handles.push(handle);
        }
        Ok(pool)
    }

    /// How many threads run a job.
    pub fn n_threads(&self) -> usize {
        self.shared.n_threads
    }

    /// Runs `job(thread_idx)` on every thread and returns when all are done; at times on the caller alone, as thread 0. So a
    /// job must share its work out as it goes, and no thread may rely on another's being there.
    ///
    /// # Panics
    /// When a thread's job panicked.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        if self.shared.n_threads == 1 || self.shared.is_alone() {
            job(0);
            release_registers();
            return;
        }
        #[expect(
            clippy::transmute_ptr_to_ptr,
            reason = "a cast cannot change the lifetime of a trait object"
        )]
        // SAFETY: only the lifetime changes. The barrier below is passed by every thread after its last use of the job,
        // so the pointee outlives all uses.
        let erased = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(job)
        };
        let erased = Job(erased);
        *self.shared.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(erased);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        for worker in &self.workers {
            worker.unpark();
        }
        let started = Instant::now();
        let own = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(0)));
        self.shared.meet(started, true);
        release_registers();
        if let Err(panic) = own {
            std::panic::resume_unwind(panic);
        }
        assert!(!self.shared.panicked.swap(false, Ordering::AcqRel), "a worker's part of the step panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        for worker in &self.workers {
            worker.unpark();
        }
        for handle in self.handles.drain(..) {
            // A worker that panicked has said so already.
            let _ = handle.join();
        }
    }
}

/// Gives back registers that the system would have to save with a sleeping thread.
fn release_registers() {
    #[cfg(target_arch = "x86_64")]
    super::amx::release();
}

fn work(shared: &Shared, thread_idx: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.epoch.load(Ordering::Acquire) == seen {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                release_registers();
                std::thread::park();
            }
        }
        seen = shared.epoch.load(Ordering::Acquire);
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let started = Instant::now();
        let job = *shared.job.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Job(job)) = job {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                // SAFETY: `run` keeps the closure alive until this thread passes the barrier below.
                (unsafe { &*job })(thread_idx);
            }));
            if outcome.is_err() {
                shared.panicked.store(true, Ordering::Release);
            }
        }
        shared.meet(started, false);
    }
}
