//! Every kernel against its scalar twin, at awkward sizes, on random and on hostile blocks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::activations::{Activations, quantize_row};
use super::attention::{PAGE_LEN, RowState, Slabs, Visible};
use super::blocks::{BlockType, dequantize, f16_to_f32};
use super::dispatch::{Isa, Kernels};
use super::halves::f32_to_f16;
use super::pack::{PANEL_ROWS, PanelLayout, pack_panel};
use super::pool::Pool;
use super::scalar;

/// A small generator, so that a failing case can be repeated from its seed.
pub(super) struct Lcg(pub(super) u64);

impl Lcg {
    pub(super) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }
    pub(super) fn unit(&mut self) -> f32 {
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

/// A row of random blocks: codes and integer scales of every value, float scales ordinary, zero, denormal or largest.
pub(super) fn random_row(ty: BlockType, k: usize, rng: &mut Lcg) -> Vec<u8> {
    let mut row: Vec<u8> = (0..ty.row_bytes(k).unwrap()).map(|_| rng.next() as u8).collect();
    for block in row.chunks_exact_mut(ty.block_bytes()) {
        for &at in half_offsets(ty) {
            let bits: u16 = match rng.next() % 8 {
                0 => 0,
                1 => (rng.next() % 1024) as u16,
                // The largest number that the format has.
                2 => 0x7bff | ((rng.next() as u16 & 1) << 15),
                _ => (0x1c00 + rng.next() % 0x1000) as u16 | ((rng.next() as u16 & 1) << 15),
            };
            block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
        }
    }
    row
}

pub(super) fn activations(n_rows: usize, k: usize, rng: &mut Lcg) -> (Vec<f32>, Activations) {
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

pub(super) fn quantized() -> impl Iterator<Item = BlockType> {
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

/// All classes that this CPU has, the reference left out.
fn fast_classes() -> impl Iterator<Item = Kernels> {
    Isa::ALL.into_iter().filter(|isa| *isa != Isa::Scalar).filter_map(Kernels::of)
}

#[test]
fn every_panel_kernel_equals_scalar() {
    let mut rng = Lcg(2);
    for (kernels, ty) in fast_classes().flat_map(|k| quantized().map(move |ty| (k, ty))) {
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
            kernels.panel(&layout, &packed, &a, &mut got);
            // A pair: this panel, and one of other rows, which must not disturb it.
            let mut other = packed.clone();
            pack_panel(&layout, k, &views[1..], &mut other);
            let mut pair = [got.clone(), got.clone()];
            let [first, second] = &mut pair;
            kernels.panel_pair(&layout, [&other, &packed], &a, [first, second]);
            let all = expected.iter().zip(&got).chain(expected.iter().zip(&pair[1]));
            for (m, (e, g)) in all.enumerate() {
                // Sums of k / 16 terms in another order, relative to the largest sum of the panel.
                let size = e.iter().fold(1e-3f32, |a, v| a.max(v.abs()));
                for r in 0..PANEL_ROWS {
                    let isa = kernels.isa();
                    assert!(
                        (e[r] - g[r]).abs() <= 3e-5 * size,
                        "{isa:?} {ty:?} k {k} m {m}/{n_rows} r {r}: {} not {}",
                        g[r],
                        e[r]
                    );
                }
            }
        }
    }
}

/// The same text whoever else is answered at the time: a row's sums are the same bits alone, among few and among many.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_rows_sums_depend_on_no_other_row() {
    let mut rng = Lcg(12);
    let classes = [Isa::Avx2, Isa::AvxVnni, Isa::Avx512].into_iter().filter_map(Kernels::of);
    for (kernels, ty) in classes.flat_map(|k| quantized().map(move |ty| (k, ty))) {
        let (k, n_rows) = (ty.block_len() * 5, 37);
        let rows: Vec<Vec<u8>> = (0..PANEL_ROWS).map(|_| random_row(ty, k, &mut rng)).collect();
        let views: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
        let layout = PanelLayout::of(ty).unwrap();
        let mut packed = vec![0; layout.panel_bytes(k)];
        pack_panel(&layout, k, &views, &mut packed);
        let (x, all) = activations(n_rows, k, &mut rng);
        let mut among_many = vec![[0.0; PANEL_ROWS]; n_rows];
        kernels.panel(&layout, &packed, &all, &mut among_many);
        let mut pair = [among_many.clone(), among_many.clone()];
        if kernels.pair_rows_from().is_some() {
            let [first, second] = &mut pair;
            kernels.panel_pair(&layout, [&packed, &packed], &all, [first, second]);
        }
        for n in [1, 2, 3, 4, 5, 11] {
            let mut few = Activations::default();
            few.resize(n, k);
            for m in 0..n {
                let (codes, scales, sums) = few.row_mut(m);
                quantize_row(&x[m * k..(m + 1) * k], codes, scales, sums);
            }
            let mut among_few = vec![[0.0; PANEL_ROWS]; n];
            kernels.panel(&layout, &packed, &few, &mut among_few);
            for other in [&among_many, &pair[0], &pair[1]] {
                let bits =
                    |rows: &[[f32; PANEL_ROWS]]| rows.as_flattened().iter().map(|v| v.to_bits()).collect();
                let (a, b): (Vec<u32>, Vec<u32>) = (bits(&among_few), bits(&other[..n]));
                let first = a.iter().zip(&b).position(|(a, b)| a != b);
                let (few, many) = (among_few.as_flattened(), other.as_flattened());
                assert!(
                    a == b,
                    "{:?} {ty:?} {n} rows: {:?}",
                    kernels.isa(),
                    first.map(|i| (i, few[i], many[i]))
                );
            }
        }
    }
}

#[test]
fn every_class_quantizes_alike() {
    let mut rng = Lcg(3);
    for k in [32, 64, 288, 1024] {
        let (x, a) = activations(1, k, &mut rng);
        let (codes, scales, sums) = a.row(0);
        for kernels in fast_classes().chain(Kernels::of(Isa::Scalar)) {
            let (mut c, mut s, mut u) = (vec![0; k], vec![0.0; k / 32], vec![0.0; k / 16]);
            kernels.quantize_row(&x, &mut c, &mut s, &mut u);
            assert_eq!((&c[..], &s[..], &u[..]), (codes, scales, sums), "{:?}", kernels.isa());
        }
    }
}

#[test]
fn exp_silu_gelu_and_norm_are_what_they_say() {
    let mut rng = Lcg(4);
    for kernels in fast_classes().chain(Kernels::of(Isa::Scalar)) {
        let x: Vec<f32> = (0..517).map(|i| rng.unit() * if i % 5 == 0 { 60.0 } else { 6.0 }).collect();
        let up: Vec<f32> = (0..517).map(|_| rng.unit()).collect();
        let mut silu = x.clone();
        kernels.silu_mul(&mut silu, &up);
        let mut gelu = x.clone();
        kernels.gelu_mul(&mut gelu, &up);
        for i in 0..x.len() {
            let (v, u) = (f64::from(x[i]), f64::from(up[i]));
            let want_silu = v / (1.0 + (-v).exp()) * u;
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (v + 0.044_715 * v * v * v);
            let want_gelu = 0.5 * v * (1.0 + inner.tanh()) * u;
            assert!((f64::from(silu[i]) - want_silu).abs() <= 1e-6 * (1.0 + v.abs()), "silu({v})");
            assert!((f64::from(gelu[i]) - want_gelu).abs() <= 2e-6 * (1.0 + v.abs()), "gelu({v})");
        }
        let mean: f64 = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / x.len() as f64;
        let mut out = vec![0.0; x.len()];
        kernels.rms_norm(&x, &up, 1e-5, &mut out);
        for i in 0..x.len() {
            let want = f64::from(x[i]) / (mean + 1e-5).sqrt() * f64::from(up[i]);
            assert!((f64::from(out[i]) - want).abs() <= 1e-5 * (1.0 + want.abs()));
        }
    }
}

/// Attention in pages equals softmax over all visible positions at once, in f64 over the same f16 numbers.
#[test]
fn paged_attention_is_softmax() {
    let mut rng = Lcg(5);
    let all = fast_classes().chain(Kernels::of(Isa::Scalar));
    for (kernels, as_halves) in all.flat_map(|kernels| [(kernels, false), (kernels, true)]) {
        for (head_dim, n_rows, n_pos, cap) in
            [(64, 1, 5, 0.0), (128, 2, 70, 0.0), (48, 3, 33, 0.0), (96, 9, 64, 30.0), (20, 13, 96, 0.0)]
        {
            let n_pages = usize::div_ceil(n_pos, PAGE_LEN);
            let q: Vec<f32> = (0..n_rows * head_dim).map(|_| rng.unit()).collect();
            // Numbers that are the same in 16 bits.
            let kv: Vec<f32> =
                (0..2 * n_pages * PAGE_LEN * head_dim).map(|_| f16_to_f32(f32_to_f16(rng.unit()))).collect();
            let (keys, values) = kv.split_at(n_pages * PAGE_LEN * head_dim);
            let mut states = vec![RowState::default(); n_rows];
            let mut out = vec![0.0; n_rows * head_dim];
            let last = |r: usize| n_pos - n_rows + r + 1;
            for p in 0..n_pages {
                let mut slab = vec![0.0; PAGE_LEN * head_dim];
                for j in 0..PAGE_LEN {
                    for d in 0..head_dim {
                        slab[d * PAGE_LEN + j] = keys[(p * PAGE_LEN + j) * head_dim + d];
                    }
                }
                let visible: Vec<Visible> = (0..n_rows)
                    .map(|r| Visible { from: 0, to: last(r).saturating_sub(p * PAGE_LEN).min(PAGE_LEN) })
                    .collect();
                let v = &values[p * PAGE_LEN * head_dim..][..PAGE_LEN * head_dim];
                if as_halves {
                    let bytes = |x: &[f32]| -> Vec<u8> {
                        x.iter().flat_map(|x| f32_to_f16(*x).to_le_bytes()).collect()
                    };
                    let (k, v) = (bytes(&slab), bytes(v));
                    let slabs = Slabs { keys: &k, values: &v, next: &[] };
                    kernels.attention_halves(&q, slabs, &visible, cap, &mut states, &mut out);
                } else {
                    kernels.attention_page(&q, &slab, v, &visible, cap, &mut states, &mut out);
                }
            }
            for r in 0..n_rows {
                let score = |j: usize| {
                    let dot: f64 = (0..head_dim)
                        .map(|d| f64::from(q[r * head_dim + d]) * f64::from(keys[j * head_dim + d]))
                        .sum();
                    if cap > 0.0 { f64::from(cap) * (dot / f64::from(cap)).tanh() } else { dot }
                };
                let weights: Vec<f64> = (0..last(r)).map(|j| score(j).exp()).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..head_dim {
                    let want: f64 = weights
                        .iter()
                        .enumerate()
                        .map(|(j, w)| w * f64::from(values[j * head_dim + d]))
                        .sum::<f64>()
                        / total;
                    let got = f64::from(out[r * head_dim + d] / states[r].sum);
                    assert!(
                        (got - want).abs() < 2e-5,
                        "{:?} row {r} dim {d}: {got} is not {want}",
                        kernels.isa()
                    );
                }
            }
        }
    }
}

#[test]
fn halves_round_as_the_hardware_does() {
    let mut rng = Lcg(6);
    let mut x: Vec<f32> = (0..4001).map(|_| f32::from_bits(rng.next() << 1 ^ rng.next())).collect();
    x.extend([0.0, -0.0, 1.0, 65504.0, 65519.9, 65520.0, 6e-8, 2.9e-8, f32::INFINITY, f32::MIN_POSITIVE]);
    let plain = Kernels::of(Isa::Scalar).unwrap();
    let mut want = vec![0; 2 * x.len()];
    plain.narrow(&x, &mut want);
    for kernels in fast_classes() {
        let mut got = vec![0; 2 * x.len()];
        kernels.narrow(&x, &mut got);
        let (mut a, mut b) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        plain.widen(&want, &mut a);
        kernels.widen(&got, &mut b);
        for i in 0..x.len() {
            assert!(a[i].to_bits() == b[i].to_bits() || x[i].is_nan(), "{}: {} is not {}", x[i], b[i], a[i]);
        }
    }
}

#[test]
fn the_pool_runs_every_thread_and_returns_when_all_are_done() {
    let pool = Pool::new(3).unwrap();
    let total = AtomicUsize::new(0);
    for round in 1..=200 {
        let before = total.load(Ordering::SeqCst);
        let seen = std::array::from_fn::<_, 3, _>(|_| AtomicUsize::new(0));
        pool.run(&|thread_idx| {
            seen[thread_idx].fetch_add(1, Ordering::SeqCst);
            total.fetch_add(1, Ordering::SeqCst);
        });
        // Alone where this machine is busy, else all three; nobody twice.
        let each = seen.map(AtomicUsize::into_inner);
        assert!(each == [1, 1, 1] || each == [1, 0, 0], "round {round}: {each:?}");
        assert_eq!(total.load(Ordering::SeqCst), before + each.iter().sum::<usize>());
    }
}

#[test]
fn a_thread_that_was_made_to_stop_is_not_waited_for_again_at_once() {
    let pool = Pool::new(2).unwrap();
    let threads = || {
        let ran = AtomicUsize::new(0);
        pool.run(&|thread_idx| {
            ran.fetch_add(1, Ordering::SeqCst);
            let late = Instant::now() + Duration::from_millis(20);
            while thread_idx == 1 && Instant::now() < late {
                std::hint::spin_loop();
            }
        });
        ran.into_inner()
    };
    assert_eq!(threads(), 2);
    assert_eq!(threads(), 1, "the caller goes on alone");
    let deadline = Instant::now() + Duration::from_secs(20);
    while threads() == 1 {
        assert!(Instant::now() < deadline, "and has the other back later");
    }
}
