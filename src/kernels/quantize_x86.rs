//! Quantizing a row of activations with AVX2 and with AVX-512: bit for bit what [`super::lanes::quantize_row`] does.

use std::arch::x86_64::{
    __m128, __m128i, __m256, __m256i, __m512, _CMP_EQ_OQ, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT,
    _mm_add_epi32, _mm_add_ps, _mm_add_ss, _mm_cvtsi128_si32, _mm_cvtss_f32, _mm_max_ps, _mm_max_ss,
    _mm_min_ps, _mm_min_ss, _mm_movehl_ps, _mm_shuffle_epi32, _mm_shuffle_ps, _mm256_add_epi32,
    _mm256_add_ps, _mm256_and_ps, _mm256_and_si256, _mm256_broadcastss_ps, _mm256_castpd_ps,
    _mm256_castps_pd, _mm256_castps_si256, _mm256_castps256_ps128, _mm256_castsi256_ps,
    _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cvtepi8_epi16, _mm256_div_ps, _mm256_extractf128_ps,
    _mm256_extracti128_si256, _mm256_loadu_ps, _mm256_madd_epi16, _mm256_max_ps, _mm256_min_ps,
    _mm256_movemask_ps, _mm256_mul_ps, _mm256_packus_epi16, _mm256_packus_epi32, _mm256_permute2f128_ps,
    _mm256_permutevar8x32_epi32, _mm256_round_ps, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setr_epi32, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_epi32,
    _mm256_sub_ps, _mm256_unpackhi_pd, _mm256_unpacklo_pd, _mm512_add_ps, _mm512_castps512_ps256,
    _mm512_extractf32x8_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_roundscale_ps, _mm512_set1_ps,
    _mm512_sub_ps,
};

use super::activations::SMALLEST;
use super::lanes::{self as plain, LEVELS, ROUND};

/// What eight levels at a time leave room for.
const SLOTS: usize = 16;

/// A level in each slot; the last stand where there is none.
const SLOT_LEVELS: [f32; SLOTS] = {
    let mut slots = [LEVELS[0]; SLOTS];
    let mut i = 0;
    while i < LEVELS.len() {
        slots[i] = LEVELS[i];
        i += 1;
    }
    slots
};

/// Lanes 0 to 3 and 4 to 7 joined.
#[target_feature(enable = "avx2")]
#[inline]
fn halves(v: __m256) -> (__m128, __m128) {
    (_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v))
}

/// Sum of eight numbers, in the order in which the plain loop joins its lanes.
#[target_feature(enable = "avx2")]
#[inline]
fn sum(v: __m256) -> f32 {
    let (low, high) = halves(v);
    let four = _mm_add_ps(low, high);
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// Largest magnitude of 32 numbers; numbers that are none are passed over where the plain loop passes them over.
#[target_feature(enable = "avx2")]
#[inline]
fn largest(x: &[__m256; 4]) -> f32 {
    let magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fff_ffff));
    let abs = |v: __m256| _mm256_and_ps(v, magnitude);
    // `max(a, b)` is b where one is no number, as `if a > b { a } else { b }`.
    let eight = _mm256_max_ps(_mm256_max_ps(abs(x[0]), abs(x[2])), _mm256_max_ps(abs(x[1]), abs(x[3])));
    let (low, high) = halves(eight);
    let four = _mm_max_ps(low, high);
    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// Sums of eight registers side by side, in the order of the plain loop's joins.
#[target_feature(enable = "avx2")]
#[inline]
fn sums(v: [__m256; 8]) -> __m256 {
    let two = |a: __m256, b: __m256| {
        _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
    };
    let four = |a: __m256, b: __m256| {
        let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
        let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
        _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high))
    };
    let low = four(two(v[0], v[4]), two(v[1], v[5]));
    let high = four(two(v[2], v[6]), two(v[3], v[7]));
    _mm256_add_ps(_mm256_shuffle_ps::<0x88>(low, high), _mm256_shuffle_ps::<0xdd>(low, high))
}

/// The first slot whose errors, of codes, are the least for what a code is worth there.
#[target_feature(enable = "avx2")]
#[inline]
fn least(errors: [__m256; 2]) -> usize {
    let (levels, _) = SLOT_LEVELS.as_chunks::<8>();
    let worth = |i: usize| {
        // SAFETY: eight levels.
        let levels = unsafe { _mm256_loadu_ps(levels[i].as_ptr()) };
        _mm256_div_ps(errors[i], _mm256_mul_ps(levels, levels))
    };
    let errors = [worth(0), worth(1)];
    let (low, high) = halves(_mm256_min_ps(errors[0], errors[1]));
    let four = _mm_min_ps(low, high);
    let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
    let least = _mm256_broadcastss_ps(_mm_min_ss(two, _mm_shuffle_ps::<1>(two, two)));
    let is_least = |errors| _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_EQ_OQ>(errors, least));
    // None is the least where they are no numbers.
    match is_least(errors[0]) | is_least(errors[1]) << 8 {
        0 => 0,
        slots => slots.trailing_zeros() as usize,
    }
}

/// Sum of four integers.
#[target_feature(enable = "avx2")]
#[inline]
fn total(v: __m128i) -> i32 {
    let two = _mm_add_epi32(v, _mm_shuffle_epi32::<0b1110>(v));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two)))
}

/// Sums of the codes of either half, and of the squares of all.
#[target_feature(enable = "avx2")]
#[inline]
fn totals(codes: __m256i) -> ([i32; 2], i32) {
    let halves = [_mm256_castsi256_si128(codes), _mm256_extracti128_si256::<1>(codes)]
        .map(|half| _mm256_cvtepi8_epi16(half));
    let squares =
        _mm256_add_epi32(_mm256_madd_epi16(halves[0], halves[0]), _mm256_madd_epi16(halves[1], halves[1]));
    let ones = _mm256_set1_epi16(1);
    let joined = |v: __m256i| _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    (halves.map(|half| total(joined(_mm256_madd_epi16(half, ones)))), total(joined(squares)))
}

/// What AVX2 and AVX-512 do alike, with each its way to the errors of a level. Groups go two by two, step by step: most steps
/// wait for the one before, and the other group's fill the time.
macro_rules! quantize {
    ($module:ident, $features:literal, $load:ident, $errors:ident) => {
        pub(super) mod $module {
            use super::*;

            /// What the numbers of two groups are multiplied by to become codes.
            #[target_feature(enable = $features)]
            #[inline]
            fn best_inverses(x: [&[f32; 32]; 2], largest: [f32; 2]) -> [f32; 2] {
                let mut inverses = [[0.0f32; SLOTS]; 2];
                for (inverses, largest) in inverses.iter_mut().zip(largest) {
                    let eights = inverses.as_chunks_mut::<8>().0.iter_mut();
                    for (inverses, levels) in eights.zip(SLOT_LEVELS.as_chunks::<8>().0) {
                        // SAFETY: eight numbers each.
                        unsafe {
                            let inverse =
                                _mm256_div_ps(_mm256_loadu_ps(levels.as_ptr()), _mm256_set1_ps(largest));
                            _mm256_storeu_ps(inverses.as_mut_ptr(), inverse);
                        }
                    }
                }
                let x = x.map(|x| $load(x));
                let mut errors = [[[_mm256_set1_ps(f32::INFINITY); 8]; 2]; 2];
                for level in 0..LEVELS.len() {
                    for group in 0..2 {
                        errors[group][level / 8][level % 8] = $errors(&x[group], inverses[group][level]);
                    }
                }
                let best = errors.map(|errors| errors.map(|errors| sums(errors))).map(|errors| least(errors));
                std::array::from_fn(|group| inverses[group][best[group]])
            }

            /// As [`super::super::activations::quantize_row`].
            #[target_feature(enable = $features)]
            pub(in super::super) fn quantize_row(
                x: &[f32],
                codes: &mut [i8],
                scales: &mut [f32],
                sums: &mut [f32],
            ) {
                let (pairs, _) = x.as_chunks::<64>();
                let whole = 2 * pairs.len();
                let outs = codes.as_chunks_mut::<64>().0.iter_mut();
                let outs = outs.zip(scales.as_chunks_mut::<2>().0).zip(sums.as_chunks_mut::<4>().0);
                for (x, ((codes, scales), sums)) in pairs.iter().zip(outs) {
                    let numbers: [[__m256; 4]; 2] = [load(&x[..32]), load(&x[32..])];
                    let largest = numbers.map(|numbers| largest(&numbers));
                    let is_plain = |largest: f32| largest > SMALLEST && largest < f32::INFINITY;
                    if !(is_plain(largest[0]) && is_plain(largest[1])) {
                        plain::quantize_row(x, codes, scales, sums);
                        continue;
                    }
                    let (groups, _) = x.as_chunks::<32>();
                    let inverses = best_inverses([&groups[0], &groups[1]], largest);
                    let written: [_; 2] =
                        std::array::from_fn(|i| write(&numbers[i], inverses[i], &mut codes[32 * i..]));
                    for (i, (products, packed)) in written.into_iter().enumerate() {
                        let (totals, squares) = totals(packed);
                        scales[i] = if squares > 0 { products / squares as f32 } else { 0.0 };
                        sums[2 * i] = scales[i] * totals[0] as f32;
                        sums[2 * i + 1] = scales[i] * totals[1] as f32;
                    }
                }
                plain::quantize_row(
                    &x[32 * whole..],
                    &mut codes[32 * whole..],
                    &mut scales[whole..],
                    &mut sums[2 * whole..],
                );
            }
        }
    };
}

/// Writes codes; also the sum of their products with the numbers.
#[target_feature(enable = "avx2")]
#[inline]
fn write(x: &[__m256; 4], inverse: f32, codes: &mut [i8]) -> (f32, __m256i) {
    let (inverse, round) = (_mm256_set1_ps(inverse), _mm256_set1_ps(ROUND));
    let shifted = x.map(|x| _mm256_add_ps(_mm256_mul_ps(x, inverse), round));
    let byte = |i: usize| {
        let code = _mm256_sub_epi32(
            _mm256_castps_si256(shifted[i]),
            _mm256_set1_epi32(ROUND.to_bits().cast_signed()),
        );
        // Cut to a byte, which changes only what is no number: damaged weights may make infinities.
        _mm256_and_si256(code, _mm256_set1_epi32(255))
    };
    let product = |i: usize| _mm256_mul_ps(x[i], _mm256_sub_ps(shifted[i], round));
    let products =
        _mm256_add_ps(_mm256_add_ps(product(0), product(2)), _mm256_add_ps(product(1), product(3)));
    let low = _mm256_packus_epi32(byte(0), byte(1));
    let high = _mm256_packus_epi32(byte(2), byte(3));
    // Packing works within halves of a register; this puts the fours back in order.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let packed = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
    let codes = &mut codes[..32];
    // SAFETY: 32 bytes.
    unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), packed) };
    (sum(products), packed)
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(x: &[f32]) -> [__m256; 4] {
    let (x, _) = x.as_chunks::<8>();
    // SAFETY: eight numbers each.
    [0, 1, 2, 3].map(|i: usize| unsafe { _mm256_loadu_ps(x[i].as_ptr()) })
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_wide(x: &[f32]) -> [__m512; 2] {
    let (x, _) = x.as_chunks::<16>();
    // SAFETY: 16 numbers each.
    [0, 1].map(|i: usize| unsafe { _mm512_loadu_ps(x[i].as_ptr()) })
}

/// Squared errors of 32 codes, in eight sums.
#[target_feature(enable = "avx2")]
#[inline]
fn errors(x: &[__m256; 4], inverse: f32) -> __m256 {
    let square = |x: __m256| {
        let code = _mm256_mul_ps(x, _mm256_set1_ps(inverse));
        let error =
            _mm256_sub_ps(code, _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(code));
        _mm256_mul_ps(error, error)
    };
    let low = _mm256_add_ps(square(x[0]), square(x[2]));
    let high = _mm256_add_ps(square(x[1]), square(x[3]));
    _mm256_add_ps(low, high)
}

/// The same, 16 at a time.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn errors_wide(x: &[__m512; 2], inverse: f32) -> __m256 {
    let square = |x: __m512| {
        let code = _mm512_mul_ps(x, _mm512_set1_ps(inverse));
        let nearest = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(code);
        let error = _mm512_sub_ps(code, nearest);
        _mm512_mul_ps(error, error)
    };
    let both = _mm512_add_ps(square(x[0]), square(x[1]));
    _mm256_add_ps(_mm512_castps512_ps256(both), _mm512_extractf32x8_ps::<1>(both))
}

quantize!(avx2, "avx2", load, errors);
quantize!(avx512, "avx2,avx512f,avx512dq", load_wide, errors_wide);
