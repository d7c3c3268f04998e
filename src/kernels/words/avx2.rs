//! Words with AVX2.

use std::arch::x86_64::{
    _MM_HINT_T1, _mm_prefetch, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setzero_si256, _mm256_storeu_ps, _mm256_storeu_si256,
};

use super::super::attention::{PAGE_LEN, RowState, Slabs, Visible};
use super::super::lanes::fold_lanes;
use super::{code_of, inverse_of, scale_of, scales_of, soften};

/// Lanes of a register.
const LANES: usize = 8;

/// As [`super::words`].
#[target_feature(enable = "avx2,fma")]
pub(in super::super) fn words(x: &[f32], width: usize, length: f32, codes: &mut [i16], scales: &mut [f32]) {
    if !width.is_multiple_of(2 * LANES) {
        return super::words(x, width, length, codes, scales);
    }
    let rows = x.chunks_exact(width).zip(codes.chunks_exact_mut(width));
    for ((x, codes), scale) in rows.zip(scales) {
        let x = x.as_chunks::<{ 2 * LANES }>().0;
        let (mut largest, mut squares) = ([0.0f32; 2 * LANES], [0.0f32; 2 * LANES]);
        for x in x {
            for i in 0..2 * LANES {
                largest[i] = if x[i].abs() > largest[i] { x[i].abs() } else { largest[i] };
                squares[i] = x[i].mul_add(x[i], squares[i]);
            }
        }
        let largest = fold_lanes(&largest, |a, b| if a > b { a } else { b });
        let inverse = inverse_of(largest, fold_lanes(&squares, |a, b| a + b), length);
        *scale = scale_of(inverse);
        for (codes, x) in codes.as_chunks_mut::<{ 2 * LANES }>().0.iter_mut().zip(x) {
            for i in 0..2 * LANES {
                codes[i] = code_of(x[i], inverse);
            }
        }
    }
}

/// As [`super::attention_words`].
///
/// # Panics
/// If the operands do not belong together.
#[target_feature(enable = "avx2,fma")]
pub(in super::super) fn attention_words(
    q: &[i16],
    scales: &[f32],
    slabs: Slabs<'_>,
    visible: &[Visible],
    cap: f32,
    states: &mut [RowState],
    out: &mut [f32],
) {
    let n_rows = states.len();
    let head_dim = q.len() / n_rows.max(1);
    if !head_dim.is_multiple_of(2 * LANES) {
        return super::attention_words::<true>(q, scales, slabs, visible, cap, states, out);
    }
    let Slabs { keys, values, next } = slabs;
    assert!(q.len() == n_rows * head_dim && scales.len() == n_rows && visible.len() == n_rows);
    assert!(out.len() == q.len() && keys.len().min(values.len()) >= 2 * PAGE_LEN * head_dim + 4 * PAGE_LEN);
    let page_scales = [scales_of(keys, head_dim), scales_of(values, head_dim)];
    // Without a next page, lines that are near already are asked for again, which costs nothing.
    let [mut next_keys, mut next_values] = [keys, values].map(<[u8]>::as_ptr);
    if next.len() == keys.len() + values.len() {
        (next_keys, next_values) = (next.as_ptr(), next[keys.len()..].as_ptr());
    }
    for scales in [next_keys, next_values].map(|slab| slab.wrapping_add(2 * PAGE_LEN * head_dim)) {
        _mm_prefetch::<_MM_HINT_T1>(scales.cast());
        _mm_prefetch::<_MM_HINT_T1>(scales.wrapping_add(64).cast());
    }
    let mut r = 0;
    macro_rules! rows {
        ($n:literal) => {{
            let mut products = [[0i32; PAGE_LEN]; $n];
            // SAFETY: `n` rows from `r` on are under `n_rows`, and the slabs are of `head_dim`, as was checked above.
            unsafe { self::products::<$n>(q[r * head_dim..].as_ptr(), [keys.as_ptr(), next_keys], head_dim, &mut products) };
            let weights: [_; $n] = std::array::from_fn(|i| {
                let (row, state) = (r + i, &mut states[r + i]);
                soften::<true>(&products[i], scales[row], &page_scales, visible[row], cap, state)
            });
            // SAFETY: as above.
            unsafe { weigh::<$n>(&weights, [values.as_ptr(), next_values], head_dim, out[r * head_dim..].as_mut_ptr()) };
            (next_keys, next_values) = (keys.as_ptr(), values.as_ptr());
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

/// Products of `R` queries with the 32 keys.
///
/// # Safety
/// `q` must be readable for `R` rows of `head_dim` codes, `keys` for a page; `next` is fetched, never read.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn products<const R: usize>(
    q: *const i16,
    [keys, next]: [*const u8; 2],
    head_dim: usize,
    products: &mut [[i32; PAGE_LEN]; R],
) {
    for first in (0..PAGE_LEN).step_by(2 * LANES) {
        let mut acc = [[_mm256_setzero_si256(); 2]; R];
        for d in (0..head_dim).step_by(2) {
            // SAFETY: d + 1 stays under head_dim, `first + 16` within 32 and r under R.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(2 * d * PAGE_LEN + 4 * first).cast());
                let keys = keys.add(2 * d * PAGE_LEN + 4 * first);
                let keys = [_mm256_loadu_si256(keys.cast()), _mm256_loadu_si256(keys.add(4 * LANES).cast())];
                for r in 0..R {
                    let q = _mm256_set1_epi32(q.add(r * head_dim + d).cast::<i32>().read_unaligned());
                    for i in 0..2 {
                        acc[r][i] = _mm256_add_epi32(acc[r][i], _mm256_madd_epi16(keys[i], q));
                    }
                }
            }
        }
        for r in 0..R {
            for i in 0..2 {
                let at = &mut products[r][first + i * LANES..][..LANES];
                // SAFETY: eight integers.
                unsafe { _mm256_storeu_si256(at.as_mut_ptr().cast(), acc[r][i]) };
            }
        }
    }
}

/// `out[r] = out[r] * before + here * sum over j of codes[j] * values[j]`, for the weights of each row.
///
/// # Safety
/// `values` must be readable for a page of `head_dim`, `out` writable for `R` rows of it.
#[target_feature(enable = "avx2,fma")]
#[inline]
#[allow(clippy::cast_ptr_alignment, reason = "the read asks for none")]
unsafe fn weigh<const R: usize>(
    weights: &[super::Weights; R],
    [values, next]: [*const u8; 2],
    head_dim: usize,
    out: *mut f32,
) {
    for first in (0..head_dim).step_by(2 * LANES) {
        let mut acc = [[_mm256_setzero_si256(); 2]; R];
        for j in 0..PAGE_LEN / 2 {
            // SAFETY: pairs of positions stay under 16, `first + 16` within head_dim.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(4 * (j * head_dim + first)).cast());
                let values = values.add(4 * (j * head_dim + first));
                let values =
                    [_mm256_loadu_si256(values.cast()), _mm256_loadu_si256(values.add(4 * LANES).cast())];
                for r in 0..R {
                    let weight = weights[r].codes.as_ptr().cast::<i32>().add(j).read_unaligned();
                    for i in 0..2 {
                        let product = _mm256_madd_epi16(values[i], _mm256_set1_epi32(weight));
                        acc[r][i] = _mm256_add_epi32(acc[r][i], product);
                    }
                }
            }
        }
        for r in 0..R {
            let (before, here) = (_mm256_set1_ps(weights[r].before), _mm256_set1_ps(weights[r].here));
            for i in 0..2 {
                // SAFETY: as above.
                unsafe {
                    let out = out.add(r * head_dim + first + i * LANES);
                    let old = _mm256_mul_ps(_mm256_loadu_ps(out), before);
                    _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[r][i]), here, old));
                }
            }
        }
    }
}
