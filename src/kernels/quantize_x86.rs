//! Quantizing a row of activations with AVX2: bit for bit what [`super::lanes::quantize_row`] does.
//!
//! Also what AVX-512 uses: the work is in chains of adds and multiplies that half-width registers finish as fast.

use std::arch::x86_64::{
    __m128, __m256, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_div_ps, _mm_loadu_ps, _mm_max_ps, _mm_max_ss,
    _mm_movehl_ps, _mm_set1_ps, _mm_shuffle_ps, _mm_storeu_ps, _mm256_add_ps, _mm256_and_ps,
    _mm256_and_si256, _mm256_castps_si256, _mm256_castps256_ps128, _mm256_castsi256_si128,
    _mm256_extractf128_ps, _mm256_extracti128_si256, _mm256_loadu_ps, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_max_ps, _mm256_mul_ps, _mm256_packus_epi16, _mm256_packus_epi32,
    _mm256_permutevar8x32_epi32, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setr_epi32, _mm256_storeu_si256, _mm256_sub_epi32, _mm256_sub_ps,
};
use std::arch::x86_64::{__m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_shuffle_epi32};

use super::activations::SMALLEST;
use super::lanes::{LEVELS, ROUND};

/// Lanes 0 to 3 and 4 to 7 joined.
#[target_feature(enable = "avx2")]
fn halves(v: __m256) -> (__m128, __m128) {
    (_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v))
}

/// Largest magnitude of 32 numbers; numbers that are none are passed over where the plain loop passes them over.
#[target_feature(enable = "avx2")]
fn largest(x: &[__m256; 4]) -> f32 {
    let magnitude = _mm256_castps_si256(_mm256_set1_ps(f32::from_bits(0x7fff_ffff)));
    let abs = |v: __m256| _mm256_and_ps(v, std::arch::x86_64::_mm256_castsi256_ps(magnitude));
    // `max(a, b)` is b where one is no number, as `if a > b { a } else { b }`.
    let eight = _mm256_max_ps(_mm256_max_ps(abs(x[0]), abs(x[2])), _mm256_max_ps(abs(x[1]), abs(x[3])));
    let (low, high) = halves(eight);
    let four = _mm_max_ps(low, high);
    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// Sum of squared errors of 32 numbers at one scale.
#[target_feature(enable = "avx2")]
fn error(x: &[__m256; 4], scale: f32, inverse: f32) -> f32 {
    let (scale, inverse, round) = (_mm256_set1_ps(scale), _mm256_set1_ps(inverse), _mm256_set1_ps(ROUND));
    let square = |x: __m256| {
        let nearest = _mm256_sub_ps(_mm256_add_ps(_mm256_mul_ps(x, inverse), round), round);
        let error = _mm256_sub_ps(x, _mm256_mul_ps(nearest, scale));
        _mm256_mul_ps(error, error)
    };
    let low = _mm256_add_ps(square(x[0]), square(x[2]));
    let high = _mm256_add_ps(square(x[1]), square(x[3]));
    let (low, high) = halves(_mm256_add_ps(low, high));
    let four = _mm_add_ps(low, high);
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// Scale of 32 numbers and its inverse; 0 and 0 for a group of zeros.
#[target_feature(enable = "avx2")]
fn best_scale(x: &[__m256; 4]) -> (f32, f32) {
    let largest = largest(x);
    if largest <= SMALLEST {
        return (0.0, 0.0);
    }
    let (mut scales, mut inverses) = ([0.0f32; 4], [0.0f32; 4]);
    // SAFETY: all three arrays have four numbers.
    unsafe {
        let (levels, largest) = (_mm_loadu_ps(LEVELS.as_ptr()), _mm_set1_ps(largest));
        _mm_storeu_ps(scales.as_mut_ptr(), _mm_div_ps(largest, levels));
        _mm_storeu_ps(inverses.as_mut_ptr(), _mm_div_ps(levels, largest));
    }
    let (mut best, mut least) = (0, f32::INFINITY);
    for level in 0..LEVELS.len() {
        let total = error(x, scales[level], inverses[level]);
        (best, least) = if total < least { (level, total) } else { (best, least) };
    }
    (scales[best], inverses[best])
}

/// Sums of the codes of either half.
#[target_feature(enable = "avx2")]
fn totals(codes: __m256i) -> [i32; 2] {
    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), codes);
    let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    let mut totals = [0; 2];
    for (total, four) in
        totals.iter_mut().zip([_mm256_castsi256_si128(fours), _mm256_extracti128_si256::<1>(fours)])
    {
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b1110>(four));
        *total = _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two)));
    }
    totals
}

/// As [`super::activations::quantize_row`].
#[target_feature(enable = "avx2")]
pub(super) fn quantize_row(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [f32]) {
    let groups = x.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<32>().0);
    for ((x, codes), (scale, sums)) in groups.zip(scales.iter_mut().zip(sums.as_chunks_mut::<2>().0)) {
        let p = x.as_ptr();
        // SAFETY: `x` is 32 numbers.
        let x = unsafe {
            [
                _mm256_loadu_ps(p),
                _mm256_loadu_ps(p.add(8)),
                _mm256_loadu_ps(p.add(16)),
                _mm256_loadu_ps(p.add(24)),
            ]
        };
        let (group_scale, inverse) = best_scale(&x);
        let (inverse, round) = (_mm256_set1_ps(inverse), _mm256_set1_ps(ROUND));
        let byte = |x: __m256| {
            let shifted = _mm256_castps_si256(_mm256_add_ps(_mm256_mul_ps(x, inverse), round));
            let code = _mm256_sub_epi32(shifted, _mm256_set1_epi32(ROUND.to_bits().cast_signed()));
            // Cut to a byte, which changes only what is no number: damaged weights may make infinities.
            _mm256_and_si256(code, _mm256_set1_epi32(255))
        };
        let low = _mm256_packus_epi32(byte(x[0]), byte(x[1]));
        let high = _mm256_packus_epi32(byte(x[2]), byte(x[3]));
        // Packing works within halves of a register; this puts the fours back in order.
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let packed = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
        // SAFETY: `codes` is 32 bytes.
        unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), packed) };
        *scale = group_scale;
        let [low, high] = totals(packed);
        *sums = [group_scale * low as f32, group_scale * high as f32];
    }
}
