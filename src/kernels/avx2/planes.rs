//! The packed formats in AVX2 registers: codes of 8 rows in bytes, scales in floats.

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadl_epi64, _mm_loadu_si128, _mm256_and_si256, _mm256_cvtepi8_epi32,
    _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_cvtph_ps, _mm256_loadu_si256, _mm256_mul_ps,
    _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_slli_epi16, _mm256_srli_epi16, _mm256_srli_epi32, _mm256_sub_ps,
};

use super::super::avx512::planes::Family;
use super::super::pack::TILES_PER_SUPER;
use super::LANES;

/// Unsigned codes of 8 of the 16 rows of a tile, line by line.
///
/// # Safety
/// `tile` must be readable for `F::PLANE_BYTES`; `half` is 0 or 1.
#[target_feature(enable = "avx2")]
#[inline]
#[expect(clippy::too_many_lines, reason = "one branch per bit plane, each a list of shifts")]
pub(super) unsafe fn lines<F: Family>(tile: *const u8, half: usize) -> [__m256i; 8] {
    // SAFETY: every offset below stays under PLANE_BYTES of the family.
    let at = |offset: usize| unsafe { _mm256_loadu_si256(tile.add(offset + 32 * half).cast()) };
    let masked = |v: __m256i, mask: i8| _mm256_and_si256(v, _mm256_set1_epi8(mask));
    let mut out = [_mm256_setzero_si256(); 8];
    match F::LOW {
        8 => {
            for (g, out) in out.iter_mut().enumerate() {
                *out = at(64 * g);
            }
        }
        4 => {
            for g in 0..4 {
                let both = at(64 * g);
                out[g] = masked(both, 15);
                out[g + 4] = masked(_mm256_srli_epi16::<4>(both), 15);
            }
        }
        _ => {
            for h in 0..2 {
                let four = at(64 * h);
                out[4 * h] = masked(four, 3);
                out[4 * h + 1] = masked(_mm256_srli_epi16::<2>(four), 3);
                out[4 * h + 2] = masked(_mm256_srli_epi16::<4>(four), 3);
                out[4 * h + 3] = masked(_mm256_srli_epi16::<6>(four), 3);
            }
        }
    }
    match (F::HIGH, F::LOW) {
        (1, 4) => {
            let bits = at(256);
            let shifted = [
                _mm256_slli_epi16::<4>(bits),
                _mm256_slli_epi16::<3>(bits),
                _mm256_slli_epi16::<2>(bits),
                _mm256_slli_epi16::<1>(bits),
                bits,
                _mm256_srli_epi16::<1>(bits),
                _mm256_srli_epi16::<2>(bits),
                _mm256_srli_epi16::<3>(bits),
            ];
            for (out, high) in out.iter_mut().zip(shifted) {
                *out = _mm256_or_si256(*out, masked(high, 16));
            }
        }
        (1, _) => {
            let bits = at(128);
            let shifted = [
                _mm256_slli_epi16::<2>(bits),
                _mm256_slli_epi16::<1>(bits),
                bits,
                _mm256_srli_epi16::<1>(bits),
                _mm256_srli_epi16::<2>(bits),
                _mm256_srli_epi16::<3>(bits),
                _mm256_srli_epi16::<4>(bits),
                _mm256_srli_epi16::<5>(bits),
            ];
            for (out, high) in out.iter_mut().zip(shifted) {
                *out = _mm256_or_si256(*out, masked(high, 4));
            }
        }
        (2, _) => {
            for h in 0..2 {
                let pairs = at(256 + 64 * h);
                let shifted = [
                    _mm256_slli_epi16::<4>(pairs),
                    _mm256_slli_epi16::<2>(pairs),
                    pairs,
                    _mm256_srli_epi16::<2>(pairs),
                ];
                for (out, high) in out[4 * h..4 * h + 4].iter_mut().zip(shifted) {
                    *out = _mm256_or_si256(*out, masked(high, 48));
                }
            }
        }
        _ => {}
    }
    out
}

/// Scales of 8 rows for one half of a tile's weights, and what is added to scaled codes, both multiplied out; `d` and
/// `dmin` are those of the super-block.
///
/// # Safety
/// `scales` must point at a tile's scales of the family.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn scale_and_offset<F: Family>(
    scales: *const u8,
    half: usize,
    h: usize,
    (d, dmin): (__m256, __m256),
) -> (__m256, __m256) {
    let none = _mm256_setzero_ps();
    // SAFETY: a tile's scales are 32 bytes, 64 where floats and minimums both stand in the tile.
    let bytes = |at: usize| unsafe { _mm_loadl_epi64(scales.add(at + LANES * half).cast()) };
    let floats = |at: usize| unsafe {
        // SAFETY: as above.
        _mm256_cvtph_ps(_mm_loadu_si128(scales.add(at + 2 * LANES * half).cast()))
    };
    let negated = |v: __m256| _mm256_sub_ps(none, v);
    let (scale, offset) = match (F::SUPER, F::HALVES, F::MINS) {
        (false, _, false) => (floats(0), none),
        (false, _, true) => (floats(0), floats(32)),
        (true, false, _) => {
            let scale = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes(0)));
            let min = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes(16)));
            (_mm256_mul_ps(scale, d), negated(_mm256_mul_ps(min, dmin)))
        }
        (true, true, false) => {
            (_mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes(16 * h))), d), none)
        }
        (true, true, true) => {
            let both = _mm256_cvtepu8_epi32(bytes(16 * h));
            let scale = _mm256_cvtepi32_ps(_mm256_and_si256(both, _mm256_set1_epi32(15)));
            let min = _mm256_cvtepi32_ps(_mm256_srli_epi32::<4>(both));
            (_mm256_mul_ps(scale, d), negated(_mm256_mul_ps(min, dmin)))
        }
    };
    if F::ZERO == 0.0 { (scale, offset) } else { (scale, _mm256_mul_ps(scale, _mm256_set1_ps(-F::ZERO))) }
}

/// Scales of a super-block for 8 rows; zeros for families without.
///
/// # Safety
/// `run` must point at a run of eight tiles and what follows them, where the family has super-blocks.
#[target_feature(enable = "avx2,f16c")]
#[inline]
pub(super) unsafe fn supers<F: Family>(run: *const u8, half: usize) -> (__m256, __m256) {
    let none = _mm256_setzero_ps();
    if !F::SUPER {
        return (none, none);
    }
    // SAFETY: 32 bytes follow the tiles, 64 with minimums.
    unsafe {
        let p = run.add(TILES_PER_SUPER * F::TILE_BYTES + 2 * LANES * half);
        let d = _mm256_cvtph_ps(_mm_loadu_si128(p.cast()));
        (d, if F::MINS { _mm256_cvtph_ps(_mm_loadu_si128(p.add(32).cast())) } else { none })
    }
}

/// Bytes of a run of eight tiles and what follows them.
pub(super) const fn run_bytes<F: Family>() -> usize {
    TILES_PER_SUPER * F::TILE_BYTES + F::SUPER_BYTES
}
