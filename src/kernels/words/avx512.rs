//! Words with AVX-512 VNNI; weights and running softmax of eight rows side by side.

use std::arch::x86_64::{
    __m256, __m512, __m512i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T1, _mm_prefetch,
    _mm256_add_ps, _mm256_castpd_ps, _mm256_castps_pd, _mm256_max_ps, _mm256_permute2f128_ps,
    _mm256_storeu_si256, _mm256_unpackhi_pd, _mm256_unpackhi_ps, _mm256_unpacklo_pd, _mm256_unpacklo_ps,
    _mm512_abs_ps, _mm512_add_ps, _mm512_castps_si512, _mm512_castps256_ps512, _mm512_castps512_ps256,
    _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps, _mm512_cvtps_epi32, _mm512_div_ps, _mm512_dpwssd_epi32,
    _mm512_extractf32x8_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_blend_ps,
    _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_reduce_add_ps,
    _mm512_reduce_max_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::super::attention::{PAGE_LEN, RowState, Slabs, Visible};
use super::super::lanes::ROUND;
use super::{inverse_of, level_of, scale_of, scales_of};

/// Rows whose sums stay in registers.
const ROWS: usize = 8;
/// Lanes of a register.
const LANES: usize = 16;
/// What a score that must not be seen counts as: lower than any, and finite, so that differences are numbers.
const HIDDEN: f32 = -1e30;

/// As [`super::words`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(in super::super) fn words(x: &[f32], width: usize, length: f32, codes: &mut [i16], scales: &mut [f32]) {
    if !width.is_multiple_of(LANES) {
        return super::words(x, width, length, codes, scales);
    }
    let rows = x.chunks_exact(width).zip(codes.chunks_exact_mut(width));
    for ((x, codes), scale) in rows.zip(scales) {
        let x = x.as_chunks::<LANES>().0;
        // SAFETY: 16 floats.
        let load = |x: &[f32; LANES]| unsafe { _mm512_loadu_ps(x.as_ptr()) };
        let (mut largest, mut squares) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        for x in x {
            largest = _mm512_max_ps(largest, _mm512_abs_ps(load(x)));
            squares = _mm512_fmadd_ps(load(x), load(x), squares);
        }
        let inverse = inverse_of(_mm512_reduce_max_ps(largest), _mm512_reduce_add_ps(squares), length);
        *scale = scale_of(inverse);
        let inverse = _mm512_set1_ps(inverse);
        for (codes, x) in codes.as_chunks_mut::<LANES>().0.iter_mut().zip(x) {
            let code = _mm512_add_ps(_mm512_mul_ps(load(x), inverse), _mm512_set1_ps(ROUND));
            // SAFETY: 16 codes.
            unsafe {
                _mm256_storeu_si256(
                    codes.as_mut_ptr().cast(),
                    _mm512_cvtepi32_epi16(_mm512_castps_si512(code)),
                );
            }
        }
    }
}

/// As [`super::attention_words`].
///
/// # Panics
/// If the operands do not belong together.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
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
            let mut weights = [[0i16; PAGE_LEN]; $n];
            let rows = r..r + $n;
            // SAFETY: `n` rows from `r` on are under `n_rows`, and the slabs are of `head_dim`, as was checked above.
            unsafe {
                let products = products::<$n>(q[r * head_dim..].as_ptr(), [keys.as_ptr(), next_keys], head_dim);
                let (scales, visible) = (&scales[rows.clone()], &visible[rows.clone()]);
                let factors =
                    soften::<$n>(products, scales, &page_scales, visible, cap, &mut states[rows], &mut weights);
                weigh::<$n>(&weights, &factors, [values.as_ptr(), next_values], head_dim, out[r * head_dim..].as_mut_ptr());
            }
            (next_keys, next_values) = (keys.as_ptr(), values.as_ptr());
            r += $n;
        }};
    }
    while r < n_rows {
        match n_rows - r {
            1 => rows!(1),
            2 => rows!(2),
            3 => rows!(3),
            4 => rows!(4),
            5 => rows!(5),
            6 => rows!(6),
            7 => rows!(7),
            _ => rows!(8),
        }
    }
}

/// Products of `R` queries with the 32 keys.
///
/// # Safety
/// `q` must be readable for `R` rows of `head_dim` codes, `keys` for a page; `next` is fetched, never read.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
#[inline]
unsafe fn products<const R: usize>(
    q: *const i16,
    [keys, next]: [*const u8; 2],
    head_dim: usize,
) -> [[__m512i; 2]; R] {
    let mut acc = [[_mm512_setzero_si512(); 2]; R];
    for d in (0..head_dim).step_by(2) {
        // SAFETY: d + 1 stays under head_dim and r under R.
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(2 * d * PAGE_LEN).cast());
            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(2 * d * PAGE_LEN + 64).cast());
            let keys = keys.add(2 * d * PAGE_LEN);
            let keys = [_mm512_loadu_si512(keys.cast()), _mm512_loadu_si512(keys.add(4 * LANES).cast())];
            for r in 0..R {
                let q = _mm512_set1_epi32(q.add(r * head_dim + d).cast::<i32>().read_unaligned());
                for i in 0..2 {
                    acc[r][i] = _mm512_dpwssd_epi32(acc[r][i], keys[i], q);
                }
            }
        }
    }
    acc
}

/// What was summed before, and what is summed from a page, is multiplied with, for every row.
struct Factors {
    before: [f32; ROWS],
    here: [f32; ROWS],
}

/// As [`super::soften`], `R` rows at once.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn soften<const R: usize>(
    products: [[__m512i; 2]; R],
    scales: &[f32],
    page_scales: &[[f32; PAGE_LEN]; 2],
    visible: &[Visible],
    cap: f32,
    states: &mut [RowState],
    weights: &mut [[i16; PAGE_LEN]; R],
) -> Factors {
    let hidden = _mm512_set1_ps(HIDDEN);
    let [key_scales, value_scales]: [[__m512; 2]; 2] = page_scales.map(|scales| {
        let halves = scales.as_chunks::<LANES>().0;
        // SAFETY: 16 floats each.
        std::array::from_fn(|i| unsafe { _mm512_loadu_ps(halves[i].as_ptr()) })
    });
    let masks: [[u16; 2]; R] = std::array::from_fn(|r| {
        let Visible { from, to } = visible[r];
        let mask = ((1u64 << to) - 1) & !((1u64 << from) - 1);
        [mask as u16, (mask >> LANES) as u16]
    });
    let mut numbers = [[hidden; 2]; R];
    let mut rows = [_mm512_castps512_ps256(hidden); ROWS];
    for r in 0..R {
        let scale = _mm512_set1_ps(scales[r]);
        for i in 0..2 {
            let score =
                _mm512_mul_ps(_mm512_cvtepi32_ps(products[r][i]), _mm512_mul_ps(scale, key_scales[i]));
            let score = if cap > 0.0 { capped(score, cap) } else { score };
            numbers[r][i] = _mm512_mask_blend_ps(masks[r][i], hidden, score);
        }
        rows[r] = halved(_mm512_max_ps(numbers[r][0], numbers[r][1]), |a, b| _mm256_max_ps(a, b));
    }
    let here = _mm512_castps256_ps512(across(rows, |a, b| _mm256_max_ps(a, b)));
    let mut before = [f32::NEG_INFINITY; LANES];
    for (before, state) in before.iter_mut().zip(states.iter()) {
        *before = state.max;
    }
    // SAFETY: 16 floats.
    let before = unsafe { _mm512_loadu_ps(before.as_ptr()) };
    let max = _mm512_max_ps(before, here);
    let (heres, maxes) = (floats(here), floats(max));
    let befores = floats(exp(_mm512_sub_ps(before, max)));
    let factors = floats(exp(_mm512_sub_ps(here, max)));
    let (mut weighed, mut largest) = (rows, rows);
    for r in 0..R {
        let here = _mm512_set1_ps(heres[r]);
        for i in 0..2 {
            numbers[r][i] = _mm512_maskz_mov_ps(masks[r][i], exp(_mm512_sub_ps(numbers[r][i], here)));
        }
        rows[r] = halved(_mm512_add_ps(numbers[r][0], numbers[r][1]), |a, b| _mm256_add_ps(a, b));
        for i in 0..2 {
            numbers[r][i] = _mm512_mul_ps(numbers[r][i], value_scales[i]);
        }
        weighed[r] = halved(_mm512_add_ps(numbers[r][0], numbers[r][1]), |a, b| _mm256_add_ps(a, b));
        largest[r] = halved(_mm512_max_ps(numbers[r][0], numbers[r][1]), |a, b| _mm256_max_ps(a, b));
    }
    let totals = floats(_mm512_castps256_ps512(across(rows, |a, b| _mm256_add_ps(a, b))));
    let weighed = floats(_mm512_castps256_ps512(across(weighed, |a, b| _mm256_add_ps(a, b))));
    let largest = floats(_mm512_castps256_ps512(across(largest, |a, b| _mm256_max_ps(a, b))));
    let mut all = Factors { before: [1.0; ROWS], here: [0.0; ROWS] };
    for (r, state) in states.iter_mut().enumerate().take(R) {
        let level = level_of(weighed[r], largest[r]);
        for i in 0..2 {
            let code = _mm512_cvtps_epi32(_mm512_mul_ps(numbers[r][i], _mm512_set1_ps(level)));
            // SAFETY: 16 of the row's 32 codes.
            unsafe {
                _mm256_storeu_si256(weights[r][i * LANES..].as_mut_ptr().cast(), _mm512_cvtepi32_epi16(code));
            }
        }
        *state = RowState { max: maxes[r], sum: state.sum * befores[r] + totals[r] * factors[r] };
        (all.before[r], all.here[r]) = (befores[r], factors[r] / level);
    }
    all
}

/// The lanes of a register.
#[target_feature(enable = "avx512f")]
#[inline]
fn floats(v: __m512) -> [f32; LANES] {
    let mut floats = [0.0; LANES];
    // SAFETY: 16 floats.
    unsafe { _mm512_storeu_ps(floats.as_mut_ptr(), v) };
    floats
}

/// `cap * tanh(x / cap)`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn capped(x: __m512, cap: f32) -> __m512 {
    let (one, two) = (_mm512_set1_ps(1.0), _mm512_set1_ps(2.0));
    // Past this the tangent is 1, and the power would be infinite.
    let x = _mm512_min_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.0 / cap)), _mm512_set1_ps(20.0));
    let power = exp(_mm512_mul_ps(x, two));
    let tanh = _mm512_sub_ps(one, _mm512_div_ps(two, _mm512_add_ps(power, one)));
    _mm512_mul_ps(tanh, _mm512_set1_ps(cap))
}

/// `e^x` for x under 88, to about `x` units in the last place; 2^-126 where it is less.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn exp(x: __m512) -> __m512 {
    // Minimax on [-1/2, 1/2].
    const TERMS: [f32; 5] = [9.618_129e-3, 5.550_411e-2, 2.402_265e-1, 6.931_472e-1, 1.0];
    const LOWEST: f32 = -126.0;
    let x = _mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E));
    let x = _mm512_max_ps(x, _mm512_set1_ps(LOWEST));
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
    let rest = _mm512_sub_ps(x, n);
    let mut p = _mm512_set1_ps(1.333_355_8e-3);
    for term in TERMS {
        p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(term));
    }
    _mm512_scalef_ps(p, n)
}

/// The two halves of a register joined.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn halved(v: __m512, join: impl Fn(__m256, __m256) -> __m256) -> __m256 {
    join(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v))
}

/// Lane `r` of the result is all lanes of `rows[r]` joined.
#[target_feature(enable = "avx512f,avx512vl,avx512dq")]
#[inline]
fn across(rows: [__m256; ROWS], join: impl Fn(__m256, __m256) -> __m256) -> __m256 {
    let two = |a: __m256, b: __m256| join(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let four = |a: __m256, b: __m256| {
        let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
        join(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)))
    };
    let low = four(two(rows[0], rows[1]), two(rows[2], rows[3]));
    let high = four(two(rows[4], rows[5]), two(rows[6], rows[7]));
    join(_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
}

/// `out[r] = out[r] * before[r] + here[r] * sum over j of weights[r][j] * values[j]`.
///
/// # Safety
/// `values` must be readable for a page of `head_dim`, `out` writable for `R` rows of it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
#[inline]
#[allow(clippy::cast_ptr_alignment, reason = "the read asks for none")]
unsafe fn weigh<const R: usize>(
    weights: &[[i16; PAGE_LEN]; R],
    factors: &Factors,
    [values, next]: [*const u8; 2],
    head_dim: usize,
    out: *mut f32,
) {
    let weights = weights.as_ptr().cast::<i32>();
    for first in (0..head_dim).step_by(2 * LANES) {
        let mut acc = [[_mm512_setzero_si512(); 2]; R];
        for j in 0..PAGE_LEN / 2 {
            // SAFETY: pairs of positions stay under 16, `first + 32` within head_dim, r under R.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(4 * (j * head_dim + first)).cast());
                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(4 * (j * head_dim + first) + 64).cast());
                let values = values.add(4 * (j * head_dim + first));
                let values =
                    [_mm512_loadu_si512(values.cast()), _mm512_loadu_si512(values.add(4 * LANES).cast())];
                for r in 0..R {
                    let weight = _mm512_set1_epi32(weights.add(r * PAGE_LEN / 2 + j).read_unaligned());
                    for i in 0..2 {
                        acc[r][i] = _mm512_dpwssd_epi32(acc[r][i], values[i], weight);
                    }
                }
            }
        }
        for r in 0..R {
            let (before, here) = (_mm512_set1_ps(factors.before[r]), _mm512_set1_ps(factors.here[r]));
            for i in 0..2 {
                // SAFETY: as above.
                unsafe {
                    let out = out.add(r * head_dim + first + i * LANES);
                    let old = _mm512_mul_ps(_mm512_loadu_ps(out), before);
                    _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][i]), here, old));
                }
            }
        }
    }
}
