//! Attention over a page with AVX2 and AVX-512, as [`super::attention`] says it in plain loops.
//!
//! Partial sums of a block of rows stay in registers over the whole of a head (scores) or a page (values); left to the
//! compiler they went through memory, at a quarter of the speed.

use std::arch::x86_64::{
    __m256, __m512, _MM_HINT_T1, _mm_loadu_si128, _mm_prefetch, _mm256_cvtph_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_mul_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use super::attention::{PAGE_LEN, RowState, Slabs, Visible, soften};
use super::blocks::f16_to_f32;

macro_rules! attention {
    ($module:ident, $features:literal, $vector:ident, $lanes:literal, $block:literal,
     $load:ident, $store:ident, $zero:ident, $splat:ident, $mul:ident, $fma:ident, $halves:ident, $widen:ident) => {
        pub(super) mod $module {
            use super::*;

            /// Vectors side by side in one sweep.
            const WIDE: usize = 2;
            /// Floats of one sweep.
            const SWEEP: usize = WIDE * $lanes;

            /// A sweep of numbers from number `at` on, which are binary16 if `HALF`, else f32.
            ///
            /// # Safety
            /// `p` must be readable for `at + SWEEP` of them.
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn sweep<const HALF: bool>(p: *const u8, at: usize) -> [$vector; WIDE] {
                let mut sweep = [$zero(); WIDE];
                for i in 0..WIDE {
                    let at = at + i * $lanes;
                    // SAFETY: the caller vouches for the numbers; loads need no alignment.
                    sweep[i] = unsafe {
                        if HALF { $widen($halves(p.add(2 * at).cast())) } else { $load(p.add(4 * at).cast()) }
                    };
                }
                sweep
            }

            /// Tells the second-level cache of the line that a sweep from number `at` on begins, if one begins there.
            #[target_feature(enable = $features)]
            #[inline]
            fn fetch<const HALF: bool>(next: *const u8, at: usize) {
                if HALF && (2 * at).is_multiple_of(64) {
                    _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(2 * at).cast());
                }
            }

            /// `scores[r][j] = sum over d of q[r][d] * k[d][j]`.
            ///
            /// # Safety
            /// `q` must be readable for `R` rows of `head_dim`, `k` for `head_dim` lines of a page.
            #[target_feature(enable = $features)]
            unsafe fn scores<const R: usize, const HALF: bool>(
                q: *const f32,
                [k, next]: [*const u8; 2],
                head_dim: usize,
                scores: &mut [[f32; PAGE_LEN]],
            ) {
                for first in (0..PAGE_LEN).step_by(SWEEP) {
                    let mut acc = [[$zero(); WIDE]; R];
                    for d in 0..head_dim {
                        fetch::<HALF>(next, d * PAGE_LEN + first);
                        // SAFETY: d stays under head_dim, r under R, and a sweep inside a line, as the caller vouched.
                        unsafe {
                            let keys = sweep::<HALF>(k, d * PAGE_LEN + first);
                            for r in 0..R {
                                let q = $splat(*q.add(r * head_dim + d));
                                for i in 0..WIDE {
                                    acc[r][i] = $fma(q, keys[i], acc[r][i]);
                                }
                            }
                        }
                    }
                    for r in 0..R {
                        for i in 0..WIDE {
                            let at = &mut scores[r][first + i * $lanes..][..$lanes];
                            // SAFETY: `at` is as many floats as a vector has.
                            unsafe { $store(at.as_mut_ptr(), acc[r][i]) };
                        }
                    }
                }
            }

            /// `out[r] = out[r] * corrections[r] + sum over j of weights[r][j] * v[j]`.
            ///
            /// # Safety
            /// `v` must be readable for 32 rows of `head_dim`, `out` writable for `R` of them.
            #[target_feature(enable = $features)]
            unsafe fn weigh<const R: usize, const HALF: bool>(
                weights: &[[f32; PAGE_LEN]],
                corrections: &[f32],
                [v, next]: [*const u8; 2],
                head_dim: usize,
                out: *mut f32,
            ) {
                let (weights, corrections) = (&weights[..R], &corrections[..R]);
                let whole = head_dim / SWEEP * SWEEP;
                for first in (0..whole).step_by(SWEEP) {
                    let mut acc = [[$zero(); WIDE]; R];
                    // SAFETY: `first + SWEEP <= head_dim`, rows and positions stay under R and 32, as the caller vouched.
                    unsafe {
                        for r in 0..R {
                            let correction = $splat(corrections[r]);
                            let old = out.add(r * head_dim + first);
                            for i in 0..WIDE {
                                acc[r][i] = $mul($load(old.add(i * $lanes)), correction);
                            }
                        }
                        for j in 0..PAGE_LEN {
                            fetch::<HALF>(next, j * head_dim + first);
                            let values = sweep::<HALF>(v, j * head_dim + first);
                            for r in 0..R {
                                let weight = $splat(weights[r][j]);
                                for i in 0..WIDE {
                                    acc[r][i] = $fma(weight, values[i], acc[r][i]);
                                }
                            }
                        }
                        for r in 0..R {
                            for i in 0..WIDE {
                                $store(out.add(r * head_dim + first + i * $lanes), acc[r][i]);
                            }
                        }
                    }
                }
                for r in 0..R {
                    for d in whole..head_dim {
                        // SAFETY: as above.
                        unsafe {
                            let mut sum = *out.add(r * head_dim + d) * corrections[r];
                            for j in 0..PAGE_LEN {
                                let at = j * head_dim + d;
                                let value = if HALF {
                                    f16_to_f32(u16::from_le_bytes(v.add(2 * at).cast::<[u8; 2]>().read()))
                                } else {
                                    f32::from_le_bytes(v.add(4 * at).cast::<[u8; 4]>().read())
                                };
                                sum = weights[r][j].mul_add(value, sum);
                            }
                            *out.add(r * head_dim + d) = sum;
                        }
                    }
                }
            }

            /// As `attention::page_rows`.
            ///
            /// # Panics
            /// If the slices do not belong together.
            #[target_feature(enable = $features)]
            pub(in super::super) fn page(
                q: &[f32],
                k: &[f32],
                v: &[f32],
                visible: &[Visible],
                cap: f32,
                states: &mut [RowState],
                out: &mut [f32],
            ) {
                let numbers = q.len() / visible.len().max(1) * PAGE_LEN;
                assert!(k.len() >= numbers && v.len() >= numbers);
                let (k, v) = ([k.as_ptr().cast(); 2], [v.as_ptr().cast(); 2]);
                // SAFETY: both slabs hold a page of f32.
                unsafe { rows::<false>(q, k, v, visible, cap, states, out) }
            }

            /// As `attention::page_halves`.
            ///
            /// # Panics
            /// If the slices do not belong together.
            #[target_feature(enable = $features)]
            pub(in super::super) fn page_halves(
                q: &[f32],
                slabs: Slabs<'_>,
                visible: &[Visible],
                cap: f32,
                states: &mut [RowState],
                out: &mut [f32],
            ) {
                let numbers = q.len() / visible.len().max(1) * PAGE_LEN;
                let Slabs { keys, values, next } = slabs;
                assert!(keys.len() >= 2 * numbers && values.len() >= 2 * numbers);
                let next = if next.is_empty() {
                    [keys.as_ptr(), values.as_ptr()]
                } else {
                    [next.as_ptr(), next[next.len() / 2..].as_ptr()]
                };
                let [k, v] = [[keys.as_ptr(), next[0]], [values.as_ptr(), next[1]]];
                // SAFETY: both slabs hold a page of binary16.
                unsafe { rows::<true>(q, k, v, visible, cap, states, out) }
            }

            /// Of `k` and `v`, each first points at a slab, then at that of the next page.
            ///
            /// # Safety
            /// The first of `k` and of `v` must be readable for a page of numbers.
            #[target_feature(enable = $features)]
            unsafe fn rows<const HALF: bool>(
                q: &[f32],
                k: [*const u8; 2],
                v: [*const u8; 2],
                visible: &[Visible],
                cap: f32,
                states: &mut [RowState],
                out: &mut [f32],
            ) {
                let n_rows = visible.len();
                let head_dim = q.len() / n_rows.max(1);
                assert!(q.len() == n_rows * head_dim && out.len() == q.len() && states.len() == n_rows);
                let mut r = 0;
                macro_rules! rows {
                    ($n:literal) => {{
                        let mut sums = [[0.0f32; PAGE_LEN]; $n];
                        let mut corrections = [1.0f32; $n];
                        let at = r * head_dim;
                        // SAFETY: rows `r..r + n` are under n_rows, whose lengths were checked above.
                        unsafe { scores::<$n, HALF>(q[at..].as_ptr(), k, head_dim, &mut sums) };
                        for i in 0..$n {
                            corrections[i] =
                                soften::<true>(&mut sums[i], visible[r + i], cap, &mut states[r + i]);
                        }
                        // SAFETY: as for the scores.
                        unsafe {
                            weigh::<$n, HALF>(&sums, &corrections, v, head_dim, out[at..].as_mut_ptr());
                        }
                        r += $n;
                    }};
                }
                while r < n_rows {
                    match n_rows - r {
                        1 => rows!(1),
                        2 => rows!(2),
                        3 => rows!(3),
                        n if n >= $block => rows!($block),
                        _ => rows!(4),
                    }
                }
            }
        }
    };
}

attention!(
    avx2,
    "avx2,fma,f16c",
    __m256,
    8,
    4,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_setzero_ps,
    _mm256_set1_ps,
    _mm256_mul_ps,
    _mm256_fmadd_ps,
    _mm_loadu_si128,
    _mm256_cvtph_ps
);
attention!(
    avx512,
    "avx512f,avx512bw,avx512vl,avx2,fma,f16c",
    __m512,
    16,
    8,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_mul_ps,
    _mm512_fmadd_ps,
    _mm256_loadu_si256,
    _mm512_cvtph_ps
);
