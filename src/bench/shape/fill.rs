//! Random weights in the formats of GGML: bytes drawn, scales set so that a matrix keeps the size of what it multiplies.

use half::{bf16, f16};

use super::mix::Type;

/// Entries of the tables that float weights are drawn from: enough that no row repeats another.
const TABLE: usize = 4096;

/// Fills one tensor with rows of `n_cols`. Norms (and biases) are near 1, so that the residual stream stays finite.
pub(super) fn fill(element: Type, seed: u64, n_cols: usize, is_norm: bool, bytes: &mut [u8]) {
    let mut random = SplitMix(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x6D6F_6D6D);
    let spread = 1.0 / (n_cols as f32).sqrt();
    match element {
        Type::F32 if is_norm => floats(&mut random, bytes, |x| (1.0 + 0.05 * x).to_le_bytes()),
        Type::F32 => floats(&mut random, bytes, |x| (x * spread).to_le_bytes()),
        Type::F16 => floats(&mut random, bytes, |x| f16::from_f32(x * spread).to_le_bytes()),
        Type::BF16 => floats(&mut random, bytes, |x| bf16::from_f32(x * spread).to_le_bytes()),
        quantized => {
            let (words, rest) = bytes.as_chunks_mut::<8>();
            for word in words {
                *word = random.next().to_le_bytes();
            }
            for byte in rest {
                *byte = random.next() as u8;
            }
            set_scales(quantized, spread, bytes);
        }
    }
}

/// Sebastiano Vigna's `SplitMix64`: one addition, two multiplications.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// Uniform with variance 1.
    fn unit(&mut self) -> f32 {
        const SQRT_12: f32 = 3.464_101_6;
        ((self.next() >> 40) as f32 / (1 << 24) as f32 - 0.5) * SQRT_12
    }
}

fn floats<const N: usize>(random: &mut SplitMix, bytes: &mut [u8], encode: impl Fn(f32) -> [u8; N]) {
    let table: Vec<[u8; N]> = (0..TABLE).map(|_| encode(random.unit())).collect();
    for weight in bytes.as_chunks_mut::<N>().0 {
        *weight = table[random.next() as usize % TABLE];
    }
}

/// Where a block's scale and its minimum's scale stand, and by what they are divided: the standard deviation that random
/// codes and random inner scales have. A minimum is so many times the scale that the mean becomes 0.
fn set_scales(element: Type, spread: f32, bytes: &mut [u8]) {
    let (at, deviation, minimum): (usize, f32, Option<(usize, f32)>) = match element {
        Type::Q4_0 => (0, 4.6, None),
        Type::Q4_1 => (0, 4.6, Some((2, -7.5))),
        Type::Q5_0 => (0, 9.2, None),
        Type::Q5_1 => (0, 9.2, Some((2, -15.5))),
        Type::Q8_0 => (0, 74.0, None),
        Type::Q2_K => (80, 12.0, Some((82, 1.5))),
        Type::Q3_K => (108, 42.0, None),
        Type::Q4_K => (0, 280.0, Some((2, 7.5))),
        Type::Q5_K => (0, 560.0, Some((2, 15.5))),
        Type::Q6_K => (208, 1370.0, None),
        Type::F32 | Type::F16 | Type::BF16 => return,
    };
    let scale = spread / deviation;
    let scale_bytes = f16::from_f32(scale).to_le_bytes();
    for block in bytes.chunks_exact_mut(element.format().block_bytes()) {
        block[at..at + 2].copy_from_slice(&scale_bytes);
        if let Some((at, times)) = minimum {
            block[at..at + 2].copy_from_slice(&f16::from_f32(scale * times).to_le_bytes());
        }
    }
}
