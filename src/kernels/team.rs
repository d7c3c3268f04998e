//! Threads with everything one of them needs for its part of a job: kernels, scratch memory, and a fair share.

use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::attend::AttentionScratch;
use super::dispatch::Kernels;
use super::kv::Heads;
use super::linear::FLOAT_RUN;
use super::pack::PANEL_ROWS;
use super::pool::Pool;

/// Units that every thread takes as its own run, in 16ths; the rest goes to whoever is free, so that a thread whose core
/// was taken by somebody else does not keep the others waiting.
const OWN_SIXTEENTHS: usize = 14;

/// A pool, the kernels it runs, and the threads' scratch memory.
pub struct Team {
    pub(super) pool: Pool,
    pub(super) kernels: Kernels,
    pub(super) scratch: Vec<Scratch>,
}

/// What a thread works in. Grown by [`Team::reserve`] before the first step, never inside one.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Sums of one panel, or of the two of a gated pair, for all rows.
    pub(super) sums: Vec<[f32; PANEL_ROWS]>,
    /// Plain float weights of part of a panel, as f32.
    pub(super) floats: Vec<f32>,
    pub(super) attention: AttentionScratch,
}

impl Team {
    /// A team of `n_threads`, the caller included.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(n_threads: usize, kernels: Kernels) -> io::Result<Self> {
        let pool = Pool::new(n_threads)?;
        let scratch = (0..pool.n_threads()).map(|_| Scratch::default()).collect();
        Ok(Self { pool, kernels, scratch })
    }

    /// Makes room for steps of up to `max_rows` rows with these heads.
    pub fn reserve(&mut self, max_rows: usize, heads: &Heads) {
        for scratch in &mut self.scratch {
            scratch.sums.resize(2 * max_rows, [0.0; PANEL_ROWS]);
            scratch.floats.resize(FLOAT_RUN * PANEL_ROWS, 0.0);
            scratch.attention.reserve(heads);
        }
    }

    /// Threads, the caller included.
    pub fn n_threads(&self) -> usize {
        self.pool.n_threads()
    }

    /// The kernels in use.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// Runs `job` once on every thread.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        self.pool.run(job);
    }
}

/// A slice whose parts are written by different threads of one job.
pub(super) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `part`, whose contract keeps the threads apart.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// No element of `range` may be reachable through another part that is alive, on any thread.
    ///
    /// # Panics
    /// If the range is not inside the slice.
    #[expect(clippy::mut_from_ref, reason = "the contract says that no two parts overlap")]
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: inside the slice that `new` borrowed for 'a; the caller vouches that nobody else reaches it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

/// Splits units `0..n_units` over the threads of one job: every unit is handed out once.
pub(super) struct Shares {
    n_units: usize,
    n_threads: usize,
    own: usize,
    grain: usize,
    next: AtomicUsize,
}

impl Shares {
    /// `grain` units go to a thread at a time once its own run is done.
    pub(super) fn new(n_units: usize, n_threads: usize, grain: usize) -> Self {
        let own = n_units * OWN_SIXTEENTHS / 16 / n_threads;
        Self { n_units, n_threads, own, grain: grain.max(1), next: AtomicUsize::new(own * n_threads) }
    }

    /// Only single units in the order of their numbers, for units of unequal size.
    pub(super) fn one_by_one(n_units: usize) -> Self {
        Self { n_units, n_threads: 1, own: 0, grain: 1, next: AtomicUsize::new(0) }
    }

    /// Calls `work` with the runs of units that are `thread_idx`'s.
    pub(super) fn each(&self, thread_idx: usize, mut work: impl FnMut(Range<usize>)) {
        if self.own > 0 && thread_idx < self.n_threads {
            work(thread_idx * self.own..(thread_idx + 1) * self.own);
        }
        loop {
            let start = self.next.fetch_add(self.grain, Ordering::Relaxed);
            if start >= self.n_units {
                return;
            }
            work(start..(start + self.grain).min(self.n_units));
        }
    }
}
