//! Every kernel against its scalar twin, at awkward sizes, on random and on hostile blocks.

use super::activations::{Activations, quantize_row};
use super::blocks::{BlockType, dequantize};
use super::pack::{PANEL_ROWS, PanelLayout, pack_panel};
use super::scalar;

/// A small generator, so that a failing case can be repeated from its seed.
struct Lcg(u64);

impl Lcg {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }
    fn unit(&mut self) -> f32 {
        self.next() as f32 / (1u32 << 30) as f32 - 1.0
    }
}

/// Where a format keeps its f16 numbers inside a block.
fn half_offsets(ty: BlockType) -> &'static [usize] {
    match ty {
        BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => &[0],
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
        BlockType::Q2K => &[80, 82],
        BlockType::Q3K => &[108],
        BlockType::Q6K => &[208],
        _ => &[],
    }
}

/// A row of random blocks: codes and integer scales of every value, float scales ordinary, zero or denormal.
fn random_row(ty: BlockType, k: usize, rng: &mut Lcg) -> Vec<u8> {
    let mut row: Vec<u8> = (0..ty.row_bytes(k).unwrap()).map(|_| rng.next() as u8).collect();
    for block in row.chunks_exact_mut(ty.block_bytes()) {
        for &at in half_offsets(ty) {
            let bits: u16 = match rng.next() % 8 {
                0 => 0,
                1 => (rng.next() % 1024) as u16,
                _ => (0x1c00 + rng.next() % 0x1000) as u16 | ((rng.next() as u16 & 1) << 15),
            };
            block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
        }
    }
    row
}

fn activations(n_rows: usize, k: usize, rng: &mut Lcg) -> (Vec<f32>, Activations) {
    let mut x: Vec<f32> = (0..n_rows * k).map(|_| rng.unit() * 3.0).collect();
    x.iter_mut().take(32).for_each(|v| *v = 0.0); // one group of zeros
    let mut a = Activations::default();
    a.resize(n_rows, k);
    for (m, x) in x.chunks_exact(k).enumerate() {
        let (codes, scales, sums) = a.row_mut(m);
        quantize_row(x, codes, scales, sums);
    }
    (x, a)
}

fn quantized() -> impl Iterator<Item = BlockType> {
    BlockType::ALL.into_iter().filter(|t| t.is_quantized())
}

/// The packed dot product equals the product of dequantized weights and dequantized activations. Tolerance: float
/// sums of k terms in another order differ by about k machine epsilons of the sum of magnitudes.
#[test]
fn scalar_panel_is_the_dequantized_product() {
    let mut rng = Lcg(1);
    for ty in quantized() {
        let k = ty.block_len() * 3;
        let rows: Vec<Vec<u8>> = (0..13).map(|_| random_row(ty, k, &mut rng)).collect();
        let views: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
        let layout = PanelLayout::of(ty).unwrap();
        let mut packed = vec![0; layout.panel_bytes(k)];
        pack_panel(&layout, k, &views, &mut packed);
        let (_, a) = activations(3, k, &mut rng);
        let mut out = vec![[f32::NAN; PANEL_ROWS]; 3];
        scalar::panel(&layout, &packed, &a, &mut out);
        let mut w = vec![0.0; k];
        for (m, out) in out.iter().enumerate() {
            let (codes, scales, _) = a.row(m);
            for (r, row) in rows.iter().enumerate() {
                dequantize(ty, row, &mut w);
                let terms = w
                    .iter()
                    .zip(codes)
                    .enumerate()
                    .map(|(i, (w, &c))| f64::from(*w) * f64::from(scales[i / 32]) * f64::from(c));
                let (sum, size) = terms.fold((0.0, 0.0), |(s, z), t| (s + t, z + t.abs()));
                // Zero points are taken off a sum of magnitudes up to 128 times the weight's own.
                let tolerance = 64.0 * f64::from(f32::EPSILON) * (size + 1e-6) * 16.0;
                assert!(
                    (f64::from(out[r]) - sum).abs() <= tolerance,
                    "{ty:?} row {r}: {} is not {sum}",
                    out[r]
                );
            }
            assert!(out[13..].iter().all(|v| *v == 0.0), "{ty:?}: padding rows are zero");
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn avx512_panel_equals_scalar() {
    if !(is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw")) {
        return;
    }
    let mut rng = Lcg(2);
    for ty in quantized() {
        for (n_blocks, n_rows) in [(1, 1), (2, 2), (3, 3), (1, 4), (3, 5), (2, 7), (9, 8), (1, 17), (2, 31)] {
            let k = ty.block_len() * n_blocks;
            let rows: Vec<Vec<u8>> = (0..PANEL_ROWS).map(|_| random_row(ty, k, &mut rng)).collect();
            let views: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
            let layout = PanelLayout::of(ty).unwrap();
            let mut packed = vec![0; layout.panel_bytes(k)];
            pack_panel(&layout, k, &views, &mut packed);
            let (_, a) = activations(n_rows, k, &mut rng);
            let mut expected = vec![[0.0; PANEL_ROWS]; n_rows];
            scalar::panel(&layout, &packed, &a, &mut expected);
            let mut got = vec![[f32::NAN; PANEL_ROWS]; n_rows];
            // SAFETY: the features were detected above.
            unsafe { super::avx512::panel(&layout, &packed, &a, &mut got) };
            for (m, (e, g)) in expected.iter().zip(&got).enumerate() {
                let size = e.iter().fold(1e-3f32, |a, v| a.max(v.abs()));
                for r in 0..PANEL_ROWS {
                    assert!(
                        (e[r] - g[r]).abs() <= 2e-5 * size,
                        "{ty:?} k {k} m {m}/{n_rows} r {r}: {} not {}",
                        g[r],
                        e[r]
                    );
                }
            }
        }
    }
}
