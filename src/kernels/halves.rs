//! binary16, the number format of the KV cache.

use super::blocks::f16_to_f32;

/// An f32 as bf16, rounding half to even; a NaN stays one.
#[inline(always)]
pub(super) fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    (if value.is_nan() { bits | 0x0040_0000 } else { rounded } >> 16) as u16
}

/// bf16 to f32.
#[inline(always)]
pub(super) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// An f32 as binary16, rounding half to even; too large becomes infinity.
pub(super) fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    if magnitude >= 0x4780_0000 {
        return sign | 0x7c00;
    }
    if magnitude < 0x3880_0000 {
        // Subnormal: adding 0.5 makes the hardware round at the last place of binary16.
        let rounded = f32::from_bits(magnitude) + 0.5;
        return sign | (rounded.to_bits() - 0x3f00_0000) as u16;
    }
    let odd = magnitude >> 13 & 1;
    sign | ((magnitude - 0x3800_0000 + 0xfff + odd) >> 13) as u16
}

/// binary16 (little-endian bytes) to f32.
pub(super) fn widen(from: &[u8], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from.as_chunks::<2>().0) {
        *to = f16_to_f32(u16::from_le_bytes(*from));
    }
}

/// f32 to binary16 (little-endian bytes).
pub(super) fn narrow(from: &[f32], to: &mut [u8]) {
    for (to, &from) in to.as_chunks_mut::<2>().0.iter_mut().zip(from) {
        *to = f32_to_f16(from).to_le_bytes();
    }
}

/// [`widen`] by F16C, eight at a time.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "f16c,avx")]
pub(super) fn widen_f16c(from: &[u8], to: &mut [f32]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
    let n = (from.len() / 2).min(to.len());
    let (chunks, rest) = from[..2 * n].as_chunks::<16>();
    let (outs, rest_out) = to[..n].as_chunks_mut::<8>();
    for (from, to) in chunks.iter().zip(outs) {
        // SAFETY: `from` is 16 bytes, `to` is 32.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))) };
    }
    widen(rest, rest_out);
}

/// [`narrow`] by F16C, eight at a time.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "f16c,avx")]
pub(super) fn narrow_f16c(from: &[f32], to: &mut [u8]) {
    use std::arch::x86_64::{_MM_FROUND_TO_NEAREST_INT, _mm_storeu_si128, _mm256_cvtps_ph, _mm256_loadu_ps};
    let n = from.len().min(to.len() / 2);
    let (chunks, rest) = from[..n].as_chunks::<8>();
    let (outs, rest_out) = to[..2 * n].as_chunks_mut::<16>();
    for (from, to) in chunks.iter().zip(outs) {
        // SAFETY: `from` is 32 bytes, `to` is 16.
        unsafe {
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(from.as_ptr()));
            _mm_storeu_si128(to.as_mut_ptr().cast(), halves);
        }
    }
    narrow(rest, rest_out);
}

/// [`widen`] by NEON, four at a time.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(super) fn widen_neon(from: &[u8], to: &mut [f32]) {
    use std::arch::aarch64::{vcvt_f32_f16, vld1_u8, vreinterpret_f16_u8, vst1q_f32};
    let n = (from.len() / 2).min(to.len());
    let (chunks, rest) = from[..2 * n].as_chunks::<8>();
    let (outs, rest_out) = to[..n].as_chunks_mut::<4>();
    for (from, to) in chunks.iter().zip(outs) {
        // SAFETY: `from` is 8 bytes, `to` is four floats.
        unsafe { vst1q_f32(to.as_mut_ptr(), vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(from.as_ptr())))) };
    }
    widen(rest, rest_out);
}

/// [`narrow`] by NEON, four at a time.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(super) fn narrow_neon(from: &[f32], to: &mut [u8]) {
    use std::arch::aarch64::{vcvt_f16_f32, vld1q_f32, vreinterpret_u8_f16, vst1_u8};
    let n = from.len().min(to.len() / 2);
    let (chunks, rest) = from[..n].as_chunks::<4>();
    let (outs, rest_out) = to[..2 * n].as_chunks_mut::<8>();
    for (from, to) in chunks.iter().zip(outs) {
        // SAFETY: `from` is four floats, `to` is 8 bytes.
        unsafe { vst1_u8(to.as_mut_ptr(), vreinterpret_u8_f16(vcvt_f16_f32(vld1q_f32(from.as_ptr())))) };
    }
    narrow(rest, rest_out);
}
