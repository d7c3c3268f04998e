//! The packed formats as constants, and what they become in AVX-512 registers: codes in bytes, scales in floats.

use std::arch::x86_64::{
    __m512, __m512i, _mm_loadu_si128, _mm256_loadu_si256, _mm512_and_si512, _mm512_cvtepi8_epi32,
    _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtph_ps, _mm512_loadu_si512, _mm512_mul_ps,
    _mm512_or_si512, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_slli_epi16, _mm512_srli_epi16, _mm512_srli_epi32, _mm512_storeu_ps,
    _mm512_storeu_si512, _mm512_sub_ps,
};

use super::super::pack::TILES_PER_SUPER;
use super::prefetch;

/// What distinguishes the formats inside a kernel; constants, so that an instance has no branch on them.
pub(in super::super) trait Family {
    const PLANE_BYTES: usize;
    const TILE_BYTES: usize;
    const ZERO: f32;
    /// Two scales per tile and row (halves of 16 weights) instead of one.
    const HALVES: bool;
    /// Scales are integers, times the floats of the super-block.
    const SUPER: bool;
    const MINS: bool;
    /// Bytes after every eight tiles.
    const SUPER_BYTES: usize = match (Self::SUPER, Self::MINS) {
        (false, _) => 0,
        (true, false) => 32,
        (true, true) => 64,
    };
    /// Something besides scaled codes: a minimum, or a zero point.
    const OFFSETS: bool = Self::MINS || Self::ZERO != 0.0;
    /// Bits of the low plane (8, 4 or 2) and of the plane above it (0, 1 or 2).
    const LOW: u8;
    const HIGH: u8;
}

macro_rules! families {
    ($($name:ident: low $low:literal high $high:literal planes $planes:literal tile $tile:literal zero $zero:literal
       halves $halves:literal super $super:literal mins $mins:literal;)+) => {
        $(pub(in super::super) struct $name;
        impl Family for $name {
            const PLANE_BYTES: usize = $planes;
            const TILE_BYTES: usize = $tile;
            const ZERO: f32 = $zero;
            const HALVES: bool = $halves;
            const SUPER: bool = $super;
            const MINS: bool = $mins;
            const LOW: u8 = $low;
            const HIGH: u8 = $high;
        })+
    };
}

families! {
    Q40: low 4 high 0 planes 256 tile 288 zero 8.0 halves false super false mins false;
    Q41: low 4 high 0 planes 256 tile 320 zero 0.0 halves false super false mins true;
    Q50: low 4 high 1 planes 320 tile 352 zero 16.0 halves false super false mins false;
    Q51: low 4 high 1 planes 320 tile 384 zero 0.0 halves false super false mins true;
    Q80: low 8 high 0 planes 512 tile 544 zero 128.0 halves false super false mins false;
    Q2K: low 2 high 0 planes 128 tile 160 zero 0.0 halves true super true mins true;
    Q3K: low 2 high 1 planes 192 tile 224 zero 4.0 halves true super true mins false;
    Q4K: low 4 high 0 planes 256 tile 288 zero 0.0 halves false super true mins true;
    Q5K: low 4 high 1 planes 320 tile 352 zero 0.0 halves false super true mins true;
    Q6K: low 4 high 2 planes 384 tile 416 zero 32.0 halves true super true mins false;
}

/// A line of 64 bytes.
///
/// # Safety
/// `p` must be readable for 64 bytes.
#[target_feature(enable = "avx512f")]
pub(in super::super) unsafe fn line(p: *const u8) -> __m512i {
    // SAFETY: the caller vouches for 64 readable bytes; the load has no alignment.
    unsafe { _mm512_loadu_si512(p.cast()) }
}

/// The eight lines of unsigned codes of a tile.
///
/// # Safety
/// `tile` must be readable for `F::PLANE_BYTES`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
#[expect(clippy::too_many_lines, reason = "one branch per bit plane, each a list of shifts")]
pub(in super::super) unsafe fn lines<F: Family>(tile: *const u8) -> [__m512i; 8] {
    let mut out = [_mm512_setzero_si512(); 8];
    let at = |offset: usize| {
        // SAFETY: every offset below stays under PLANE_BYTES of the family.
        unsafe { line(tile.add(offset)) }
    };
    if F::LOW == 8 {
        for (g, out) in out.iter_mut().enumerate() {
            *out = at(64 * g);
        }
        return out;
    }
    if F::LOW == 4 {
        let mask = _mm512_set1_epi8(15);
        for g in 0..4 {
            let both = at(64 * g);
            out[g] = _mm512_and_si512(both, mask);
            out[g + 4] = _mm512_and_si512(_mm512_srli_epi16::<4>(both), mask);
        }
    } else {
        let mask = _mm512_set1_epi8(3);
        for h in 0..2 {
            let four = at(64 * h);
            out[4 * h] = _mm512_and_si512(four, mask);
            out[4 * h + 1] = _mm512_and_si512(_mm512_srli_epi16::<2>(four), mask);
            out[4 * h + 2] = _mm512_and_si512(_mm512_srli_epi16::<4>(four), mask);
            out[4 * h + 3] = _mm512_and_si512(_mm512_srli_epi16::<6>(four), mask);
        }
    }
    if F::HIGH == 1 && F::LOW == 4 {
        let (bits, mask) = (at(256), _mm512_set1_epi8(16));
        let shifted = [
            _mm512_slli_epi16::<4>(bits),
            _mm512_slli_epi16::<3>(bits),
            _mm512_slli_epi16::<2>(bits),
            _mm512_slli_epi16::<1>(bits),
            bits,
            _mm512_srli_epi16::<1>(bits),
            _mm512_srli_epi16::<2>(bits),
            _mm512_srli_epi16::<3>(bits),
        ];
        for (out, high) in out.iter_mut().zip(shifted) {
            *out = _mm512_or_si512(*out, _mm512_and_si512(high, mask));
        }
    } else if F::HIGH == 1 {
        let (bits, mask) = (at(128), _mm512_set1_epi8(4));
        let shifted = [
            _mm512_slli_epi16::<2>(bits),
            _mm512_slli_epi16::<1>(bits),
            bits,
            _mm512_srli_epi16::<1>(bits),
            _mm512_srli_epi16::<2>(bits),
            _mm512_srli_epi16::<3>(bits),
            _mm512_srli_epi16::<4>(bits),
            _mm512_srli_epi16::<5>(bits),
        ];
        for (out, high) in out.iter_mut().zip(shifted) {
            *out = _mm512_or_si512(*out, _mm512_and_si512(high, mask));
        }
    } else if F::HIGH == 2 {
        let mask = _mm512_set1_epi8(48);
        for h in 0..2 {
            let pairs = at(256 + 64 * h);
            let shifted = [
                _mm512_slli_epi16::<4>(pairs),
                _mm512_slli_epi16::<2>(pairs),
                pairs,
                _mm512_srli_epi16::<2>(pairs),
            ];
            for (out, high) in out[4 * h..4 * h + 4].iter_mut().zip(shifted) {
                *out = _mm512_or_si512(*out, _mm512_and_si512(high, mask));
            }
        }
    }
    out
}

/// 16 halves as floats.
///
/// # Safety
/// `p` must be readable for 32 bytes.
#[target_feature(enable = "avx512f")]
#[inline]
pub(in super::super) unsafe fn halves(p: *const u8) -> __m512 {
    // SAFETY: the caller vouches for 32 readable bytes.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(p.cast()) })
}

/// 16 bytes widened to 32-bit lanes, unsigned or signed.
///
/// # Safety
/// `p` must be readable for 16 bytes.
#[target_feature(enable = "avx512f")]
#[inline]
pub(in super::super) unsafe fn bytes16<const SIGNED: bool>(p: *const u8) -> __m512i {
    // SAFETY: the caller vouches for 16 readable bytes.
    let raw = unsafe { _mm_loadu_si128(p.cast()) };
    if SIGNED { _mm512_cvtepi8_epi32(raw) } else { _mm512_cvtepu8_epi32(raw) }
}

/// Scales of a super-block and of its minimums; zeros for families without.
///
/// # Safety
/// `p` must be readable for the family's `SUPER_BYTES`.
#[target_feature(enable = "avx512f")]
#[inline]
pub(in super::super) unsafe fn super_scales<F: Family>(p: *const u8) -> (__m512, __m512) {
    let none = _mm512_setzero_ps();
    // SAFETY: 32 bytes with super-blocks, 64 with minimums.
    unsafe {
        (if F::SUPER { halves(p) } else { none }, if F::SUPER && F::MINS { halves(p.add(32)) } else { none })
    }
}

/// Scale of the 16 rows for half `h` of a tile, and what is added to scaled codes, both multiplied out; `d` and `dmin`
/// are those of the super-block.
///
/// # Safety
/// `scales` must point at a tile's scales of the family.
#[target_feature(enable = "avx512f")]
#[inline]
pub(in super::super) unsafe fn scale_and_offset<F: Family>(
    scales: *const u8,
    h: usize,
    d: __m512,
    dmin: __m512,
) -> (__m512, __m512) {
    // SAFETY: the caller vouches for the tile.
    let (mut scale, mut offset) = unsafe { scale_and_min::<F>(scales, h) };
    if F::SUPER {
        scale = _mm512_mul_ps(scale, d);
        if F::MINS {
            offset = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(offset, dmin));
        }
    }
    if F::ZERO != 0.0 {
        offset = _mm512_mul_ps(scale, _mm512_set1_ps(-F::ZERO));
    }
    (scale, offset)
}

/// Scale and minimum of the 16 rows for half `h` of a tile, before the super-block's floats.
///
/// # Safety
/// `scales` must point at a tile's scales of the family.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn scale_and_min<F: Family>(scales: *const u8, h: usize) -> (__m512, __m512) {
    let none = _mm512_setzero_ps();
    // SAFETY: a tile's scales are 32 bytes, 64 where floats and minimums both stand in the tile.
    unsafe {
        match (F::SUPER, F::HALVES, F::MINS) {
            (false, _, false) => (halves(scales), none),
            (false, _, true) => (halves(scales), halves(scales.add(32))),
            (true, false, _) => (
                _mm512_cvtepi32_ps(bytes16::<false>(scales)),
                _mm512_cvtepi32_ps(bytes16::<false>(scales.add(16))),
            ),
            (true, true, false) => (_mm512_cvtepi32_ps(bytes16::<true>(scales.add(16 * h))), none),
            (true, true, true) => {
                let both = bytes16::<false>(scales.add(16 * h));
                let low = _mm512_and_si512(both, _mm512_set1_epi32(15));
                (_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(_mm512_srli_epi32::<4>(both)))
            }
        }
    }
}

/// A run of up to eight tiles with codes expanded and scales multiplied out.
#[repr(C, align(64))]
pub(in super::super) struct Expanded {
    /// Line `8 t + g`: unsigned codes of tile `t`, weights `4 g..4 g + 4` of the 16 rows.
    pub(in super::super) codes: [[u8; 64]; 64],
    /// `2 t + h`: scale of the 16 rows for half `h` of tile `t`.
    pub(in super::super) scales: [[f32; 16]; 16],
    /// The same for what is added to scaled codes: minimums, zero points times scales.
    pub(in super::super) offsets: [[f32; 16]; 16],
}

impl Expanded {
    /// All zeros.
    pub(in super::super) const fn new() -> Self {
        Self { codes: [[0; 64]; 64], scales: [[0.0; 16]; 16], offsets: [[0.0; 16]; 16] }
    }
}

/// Expands `n` tiles (at most eight) at `p`.
///
/// # Safety
/// `p` must point at `n` tiles of the family and, for super-block families, their eight tiles and scales.
#[target_feature(enable = "avx512f,avx512bw")]
pub(in super::super) unsafe fn expand<F: Family>(p: *const u8, n: usize, out: &mut Expanded) {
    // SAFETY: offsets stay inside the tiles and the super-block scales that the caller vouched for.
    unsafe {
        let (d, dmin) = super_scales::<F>(p.add(TILES_PER_SUPER * F::TILE_BYTES));
        prefetch(p.add(TILES_PER_SUPER * F::TILE_BYTES), F::SUPER_BYTES);
        for t in 0..n {
            let tile = p.add(t * F::TILE_BYTES);
            prefetch(tile, F::TILE_BYTES);
            for (g, codes) in lines::<F>(tile).into_iter().enumerate() {
                _mm512_storeu_si512(out.codes[8 * t + g].as_mut_ptr().cast(), codes);
            }
            for h in 0..if F::HALVES { 2 } else { 1 } {
                let (s, offset) = scale_and_offset::<F>(tile.add(F::PLANE_BYTES), h, d, dmin);
                _mm512_storeu_ps(out.scales[2 * t + h].as_mut_ptr(), s);
                _mm512_storeu_ps(out.offsets[2 * t + h].as_mut_ptr(), offset);
            }
        }
    }
}
