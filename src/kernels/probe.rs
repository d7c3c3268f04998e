//! What the machine itself can do: reads from memory, and multiplications and additions of each kind, as fast as each
//! instruction set allows. Everything that an engine reaches is a share of these.

use super::dispatch::Isa;

/// Kinds of arithmetic whose peak is measured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Arithmetic {
    /// 8-bit integers, products summed in 32 bits.
    Int8,
    /// bfloat16, products summed in f32.
    Bf16,
    /// 32-bit floats.
    F32,
}

impl Arithmetic {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Int8, Self::Bf16, Self::F32];

    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }
}

/// Chains that do not depend on each other: more than latency times units of any core here.
const CHAINS: usize = 12;

/// Reads every word and returns their sum, with loads as wide as `isa` has them.
///
/// # Panics
/// Where the CPU lacks `isa`.
pub fn read(isa: Isa, words: &[u64]) -> u64 {
    assert!(isa.is_available(), "this CPU has no {}", isa.as_str());
    match isa {
        // SAFETY: the CPU has the instructions, as just checked; the functions are otherwise safe ones.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::AvxVnni => unsafe { read_avx2(words) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => unsafe { read_avx512(words) },
        _ => read_lanes(words),
    }
}

#[inline(always)]
fn read_lanes(words: &[u64]) -> u64 {
    // Eight cache lines side by side keep enough loads in flight.
    let mut sums = [0_u64; 64];
    let (chunks, rest) = words.as_chunks::<64>();
    for chunk in chunks {
        for i in 0..64 {
            sums[i] = sums[i].wrapping_add(chunk[i]);
        }
    }
    sums.iter().chain(rest).fold(0, |a, b| a.wrapping_add(*b))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn read_avx2(words: &[u64]) -> u64 {
    read_lanes(words)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn read_avx512(words: &[u64]) -> u64 {
    read_lanes(words)
}

/// Runs `n` rounds of the densest instructions that `isa` has for this kind of arithmetic, on registers alone, and
/// returns how many additions and multiplications that was; `None` where the class has no instruction for it.
///
/// # Panics
/// Where the CPU lacks `isa`.
pub fn compute(isa: Isa, arithmetic: Arithmetic, n: u64) -> Option<u64> {
    assert!(isa.is_available(), "this CPU has no {}", isa.as_str());
    let per_round = match (isa, arithmetic) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, Arithmetic::Int8) => {
            // SAFETY: the CPU has the class, as just checked; the function is otherwise a safe one.
            unsafe { x86::int8_avx2(n) };
            64
        }
        #[cfg(target_arch = "x86_64")]
        (Isa::AvxVnni, Arithmetic::Int8) => {
            // SAFETY: as above.
            unsafe { x86::int8_avxvnni(n) };
            64
        }
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Arithmetic::Int8) => {
            // SAFETY: as above.
            unsafe { x86::int8_avx512(n) };
            128
        }
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Arithmetic::Bf16) if is_x86_feature_detected!("avx512bf16") => {
            // SAFETY: as above, and the feature beyond the class was just asked for.
            unsafe { x86::bf16_avx512(n) };
            64
        }
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2 | Isa::AvxVnni, Arithmetic::F32) => {
            // SAFETY: as above.
            unsafe { x86::f32_avx2(n) };
            16
        }
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Arithmetic::F32) => {
            // SAFETY: as above.
            unsafe { x86::f32_avx512(n) };
            32
        }
        (Isa::Scalar, Arithmetic::F32) => {
            plain_f32(n);
            8
        }
        (Isa::Scalar, Arithmetic::Int8) => {
            plain_int8(n);
            8
        }
        _ => return None,
    };
    Some(n * per_round * CHAINS as u64)
}

/// What the compiler makes of four lanes side by side without being told of vector units.
fn plain_f32(n: u64) {
    let mut sums = [[0.5_f32; 4]; CHAINS];
    let (a, b) = std::hint::black_box(([0.999_f32; 4], [0.001_f32; 4]));
    for _ in 0..n {
        for sum in &mut sums {
            for i in 0..4 {
                sum[i] = sum[i] * a[i] + b[i];
            }
        }
    }
    std::hint::black_box(sums);
}

fn plain_int8(n: u64) {
    let mut sums = [[0_i32; 4]; CHAINS];
    let (a, b) = std::hint::black_box(([3_i8; 4], [5_i8; 4]));
    for _ in 0..n {
        for sum in &mut sums {
            for i in 0..4 {
                sum[i] = (sum[i] ^ 1).wrapping_add(i32::from(a[i]) * i32::from(b[i]));
            }
        }
    }
    std::hint::black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m256i, __m512, __m512bh, __m512i, _mm256_add_epi32, _mm256_dpbusd_avx_epi32,
        _mm256_fmadd_ps, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16,
        _mm256_set1_ps, _mm256_setzero_si256, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_dpbusd_epi32,
        _mm512_fmadd_ps, _mm512_set1_epi8, _mm512_set1_ps, _mm512_setzero_si512,
    };

    use super::CHAINS;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn f32_avx2(n: u64) {
        let (a, b): (__m256, __m256) = std::hint::black_box((_mm256_set1_ps(0.999), _mm256_set1_ps(0.001)));
        let mut sums = [b; CHAINS];
        for _ in 0..n {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        std::hint::black_box(sums);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn int8_avx2(n: u64) {
        let (a, b): (__m256i, __m256i) = std::hint::black_box((_mm256_set1_epi8(3), _mm256_set1_epi16(1)));
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..n {
            for sum in &mut sums {
                // The sum takes part in the product, so that no round can be computed ahead.
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, *sum), b));
            }
        }
        std::hint::black_box(sums);
    }

    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) fn int8_avxvnni(n: u64) {
        let (a, b): (__m256i, __m256i) = std::hint::black_box((_mm256_set1_epi8(3), _mm256_set1_epi8(5)));
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..n {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
            }
        }
        std::hint::black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn int8_avx512(n: u64) {
        let (a, b): (__m512i, __m512i) = std::hint::black_box((_mm512_set1_epi8(3), _mm512_set1_epi8(5)));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..n {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        std::hint::black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn bf16_avx512(n: u64) {
        let ones: __m512 = _mm512_set1_ps(1e-3);
        let narrowed: __m512bh = _mm512_cvtne2ps_pbh(ones, ones);
        let (a, b): (__m512bh, __m512bh) = std::hint::black_box((narrowed, narrowed));
        let mut sums = [ones; CHAINS];
        for _ in 0..n {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, b);
            }
        }
        std::hint::black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn f32_avx512(n: u64) {
        let (a, b): (__m512, __m512) = std::hint::black_box((_mm512_set1_ps(0.999), _mm512_set1_ps(0.001)));
        let mut sums = [b; CHAINS];
        for _ in 0..n {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        std::hint::black_box(sums);
    }
}
