//! Which kernels have really run in this process, noted by the kernels themselves: a fast one that is never reached looks
//! exactly like a slow one.

use std::sync::atomic::{AtomicBool, Ordering};

use super::blocks::BlockType;
use super::dispatch::Isa;

/// The ways through a kernel, by the number of activation rows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Path {
    /// Weights go from memory into registers and meet a few rows at once: decoding.
    FewRows,
    /// Weights are expanded in the first-level cache and meet many rows: prefill, many sequences.
    ManyRows,
}

const N_PATHS: usize = 2;
const N_TYPES: usize = BlockType::ALL.len();
/// Room for every class that may come; a class's number is its place in the enum.
const N_ISAS: usize = 16;

static REACHED: [AtomicBool; N_ISAS * N_TYPES * N_PATHS] =
    [const { AtomicBool::new(false) }; N_ISAS * N_TYPES * N_PATHS];

fn flag(isa: Isa, ty: BlockType, path: Path) -> &'static AtomicBool {
    &REACHED[(isa as usize * N_TYPES + ty as usize) * N_PATHS + path as usize]
}

/// Notes that a kernel runs. Written once and only read afterwards, so that threads do not fight over the line.
#[inline]
pub(super) fn mark(isa: Isa, ty: BlockType, path: Path) {
    let flag = flag(isa, ty, path);
    if !flag.load(Ordering::Relaxed) {
        flag.store(true, Ordering::Relaxed);
    }
}

/// Whether the kernel of that class, weight type and path has run since the process began.
pub fn has_run(isa: Isa, ty: BlockType, path: Path) -> bool {
    flag(isa, ty, path).load(Ordering::Relaxed)
}
