//! Attention over a paged KV cache, one page of 32 positions at a time with a running softmax ("flash" style).
//!
//! A page holds, per layer and KV head, a key slab `[head_dim][32]` and a value slab `[32][head_dim]`, both f16. Keys
//! stand transposed, so that the scores of 32 positions come out side by side and no lane is summed across. A page's
//! slabs are widened to f32 once and shared by every query row that looks at them: all heads of a group in decode, all
//! tokens of a chunk as well in prefill.

use super::blocks::f16_to_f32;
use super::lanes::{exp, fma, tanh};

/// Positions in a page of the KV cache.
pub const PAGE_LEN: usize = 32;
/// Query rows worked on at once: their partial sums fill the registers and no more.
pub const ROWS_AT_ONCE: usize = 4;

/// The running softmax of one query row.
#[derive(Clone, Copy, Debug)]
pub struct RowState {
    /// Largest score seen.
    pub max: f32,
    /// Sum of `e^(score - max)`.
    pub sum: f32,
}

impl Default for RowState {
    fn default() -> Self {
        Self { max: f32::NEG_INFINITY, sum: 0.0 }
    }
}

/// What a query row may see of a page: positions `from..to` of its 32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Visible {
    /// First.
    pub from: usize,
    /// One past the last.
    pub to: usize,
}

/// Scores, running softmax and weighted values of `R` rows against one page.
///
/// `q` is `(R, head_dim)`, scaled already; `k` is `(head_dim, 32)`, `v` is `(32, head_dim)`; `out` is `(R, head_dim)`, the
/// unnormalised sums. `cap` is the soft cap on scores, 0 for none.
#[inline(always)]
pub(super) fn page<const FMA: bool, const R: usize>(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    visible: &[Visible],
    cap: f32,
    states: &mut [RowState],
    out: &mut [f32],
) {
    let head_dim = q.len() / R;
    let mut scores = [[0.0f32; PAGE_LEN]; R];
    for (d, k) in k.as_chunks::<PAGE_LEN>().0.iter().enumerate().take(head_dim) {
        for r in 0..R {
            let q = q[r * head_dim + d];
            for j in 0..PAGE_LEN {
                scores[r][j] = fma::<FMA>(q, k[j], scores[r][j]);
            }
        }
    }
    let mut corrections = [1.0f32; R];
    for r in 0..R {
        corrections[r] = soften::<FMA>(&mut scores[r], visible[r], cap, &mut states[r]);
    }
    weigh_values::<FMA, R>(&scores, v, head_dim, &corrections, out);
}

/// The running softmax of one row takes in the scores of a page, which become weights. Returns the factor on what was
/// summed before.
#[inline(always)]
pub(super) fn soften<const FMA: bool>(
    row: &mut [f32; PAGE_LEN],
    visible: Visible,
    cap: f32,
    state: &mut RowState,
) -> f32 {
    if cap > 0.0 {
        for s in row.iter_mut() {
            *s = cap * tanh::<FMA>(*s / cap);
        }
    }
    if visible != (Visible { from: 0, to: PAGE_LEN }) {
        for (j, s) in row.iter_mut().enumerate() {
            if j < visible.from || j >= visible.to {
                *s = f32::NEG_INFINITY;
            }
        }
    }
    let largest = fold(row, |a, b| if b > a { b } else { a });
    let largest = if largest > state.max { largest } else { state.max };
    if largest == f32::NEG_INFINITY {
        *row = [0.0; PAGE_LEN];
        return 1.0;
    }
    let correction = exp::<FMA>(state.max - largest);
    for s in row.iter_mut() {
        *s = exp::<FMA>(*s - largest);
    }
    state.sum = state.sum * correction + fold(row, |a, b| a + b);
    state.max = largest;
    correction
}

/// Joins 32 lanes by halves: the same order for every instruction set.
#[inline(always)]
fn fold(row: &[f32; PAGE_LEN], join: impl Fn(f32, f32) -> f32) -> f32 {
    let lanes: [f32; 16] = std::array::from_fn(|i| join(row[i], row[i + 16]));
    super::lanes::fold_lanes(&lanes, join)
}

/// `out[r] = out[r] * corrections[r] + sum over j of scores[r][j] * v[j]`.
#[inline(always)]
fn weigh_values<const FMA: bool, const R: usize>(
    scores: &[[f32; PAGE_LEN]; R],
    v: &[f32],
    head_dim: usize,
    corrections: &[f32; R],
    out: &mut [f32],
) {
    const WIDTH: usize = 32;
    let mut d = 0;
    while d + WIDTH <= head_dim {
        let mut acc = [[0.0f32; WIDTH]; R];
        for r in 0..R {
            let old: &[f32; WIDTH] = out[r * head_dim + d..][..WIDTH].try_into().unwrap_or(&[0.0; WIDTH]);
            for i in 0..WIDTH {
                acc[r][i] = old[i] * corrections[r];
            }
        }
        for j in 0..PAGE_LEN {
            let v: &[f32; WIDTH] = v[j * head_dim + d..][..WIDTH].try_into().unwrap_or(&[0.0; WIDTH]);
            for r in 0..R {
                let p = scores[r][j];
                for i in 0..WIDTH {
                    acc[r][i] = fma::<FMA>(p, v[i], acc[r][i]);
                }
            }
        }
        for r in 0..R {
            out[r * head_dim + d..][..WIDTH].copy_from_slice(&acc[r]);
        }
        d += WIDTH;
    }
    for r in 0..R {
        for d in d..head_dim {
            let weighted: f32 = (0..PAGE_LEN).map(|j| scores[r][j] * v[j * head_dim + d]).sum();
            out[r * head_dim + d] = out[r * head_dim + d] * corrections[r] + weighted;
        }
    }
}

/// [`page`] over any number of rows, [`ROWS_AT_ONCE`] at a time.
#[inline(always)]
pub(super) fn page_rows<const FMA: bool>(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    visible: &[Visible],
    cap: f32,
    states: &mut [RowState],
    out: &mut [f32],
) {
    let n_rows = visible.len();
    let head_dim = q.len() / n_rows.max(1);
    let mut r = 0;
    macro_rules! rows {
        ($n:literal) => {{
            let (a, b) = (r * head_dim, (r + $n) * head_dim);
            page::<FMA, $n>(&q[a..b], k, v, &visible[r..r + $n], cap, &mut states[r..r + $n], &mut out[a..b]);
            r += $n;
        }};
    }
    while r < n_rows {
        match n_rows - r {
            1 => rows!(1),
            2 => rows!(2),
            3 => rows!(3),
            _ => rows!(4),
        }
    }
}

/// Keys, `(head_dim, 32)`, and values, `(32, head_dim)`, of a page as binary16, little-endian.
#[derive(Clone, Copy, Debug)]
pub struct Slabs<'a> {
    /// The slab of keys.
    pub keys: &'a [u8],
    /// That of values.
    pub values: &'a [u8],
    /// Both slabs of the page that comes after it, keys first, for the cache to fetch meanwhile; empty for none. Pages lie
    /// megabytes apart, where the CPU does not look by itself.
    pub next: &'a [u8],
}

/// [`page_rows`] over keys and values that are still binary16, for rows too few to widen a page for.
#[inline(always)]
pub(super) fn page_halves<const FMA: bool>(
    q: &[f32],
    slabs: Slabs<'_>,
    visible: &[Visible],
    cap: f32,
    states: &mut [RowState],
    out: &mut [f32],
) {
    let widened = |bytes: &[u8]| -> Vec<f32> {
        bytes.as_chunks::<2>().0.iter().map(|b| f16_to_f32(u16::from_le_bytes(*b))).collect()
    };
    page_rows::<FMA>(q, &widened(slabs.keys), &widened(slabs.values), visible, cap, states, out);
}
