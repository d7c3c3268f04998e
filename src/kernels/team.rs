//! Threads with everything one of them needs for its part of a job: kernels, scratch memory, and a fair share.

use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::attend::AttentionScratch;
use super::attention::RowState;
use super::dispatch::Kernels;
use super::kv::Heads;
use super::linear::FLOAT_RUN;
use super::pack::PANEL_ROWS;
use super::pool::Pool;

/// A pool, the kernels it runs, and the threads' scratch memory.
pub struct Team {
    pub(super) pool: Pool,
    pub(super) kernels: Kernels,
    pub(super) scratch: Vec<Scratch>,
    /// One per thread, for the [`Shares`] of the job that runs.
    pub(super) cursors: Vec<Cursor>,
    /// What attention summed over parts of the pages, where there are several; see [`super::attend`].
    pub(super) part_sums: Vec<f32>,
    pub(super) part_states: Vec<RowState>,
}

/// The next unit of a thread's run, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Cursor(AtomicUsize);

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
        let cursors = (0..pool.n_threads()).map(|_| Cursor::default()).collect();
        let (part_sums, part_states) = (Vec::new(), Vec::new());
        Ok(Self { pool, kernels, scratch, cursors, part_sums, part_states })
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
///
/// A thread has a run of its own, so that it reads memory in order; once that is done it takes from the others' runs, so
/// that one whose core was taken by somebody else does not keep all waiting.
pub(super) struct Shares<'a> {
    cursors: &'a [Cursor],
    n_units: usize,
    grain: usize,
    in_one_run: bool,
}

impl<'a> Shares<'a> {
    /// `grain` units go to a thread at a time.
    pub(super) fn new(cursors: &'a [Cursor], n_units: usize, grain: usize) -> Self {
        Self { cursors, n_units, grain: grain.max(1), in_one_run: false }.rewound()
    }

    /// Only single units in the order of their numbers, for units of unequal size.
    pub(super) fn one_by_one(cursors: &'a [Cursor], n_units: usize) -> Self {
        Self { cursors, n_units, grain: 1, in_one_run: true }.rewound()
    }

    fn rewound(self) -> Self {
        for (thread_idx, cursor) in self.cursors.iter().enumerate() {
            cursor.0.store(self.run(thread_idx).start, Ordering::Relaxed);
        }
        self
    }

    /// The units that a thread does first.
    fn run(&self, thread_idx: usize) -> Range<usize> {
        if self.in_one_run {
            return if thread_idx == 0 { 0..self.n_units } else { 0..0 };
        }
        let n_threads = self.cursors.len();
        thread_idx * self.n_units / n_threads..(thread_idx + 1) * self.n_units / n_threads
    }

    /// Calls `work` with the runs of units that fall to `thread_idx`.
    pub(super) fn each(&self, thread_idx: usize, mut work: impl FnMut(Range<usize>)) {
        let n_threads = self.cursors.len();
        for owner in (thread_idx..thread_idx + n_threads).map(|i| i % n_threads) {
            let end = self.run(owner).end;
            loop {
                let start = self.cursors[owner].0.fetch_add(self.grain, Ordering::Relaxed);
                if start >= end {
                    break;
                }
                work(start..(start + self.grain).min(end));
            }
        }
    }
}
