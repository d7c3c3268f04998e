//! The tile kernels against the scalar ones, on the tile unit or on its model.

use super::super::activations::Bf16Activations;
use super::super::blocks::BlockType;
use super::super::dispatch::{Isa, Kernels};
use super::super::pack::{PANEL_ROWS, PanelLayout, pack_panel};
use super::super::scalar;
use super::super::tests::{Lcg, activations, quantized, random_row};
use super::emulator::{self, Op, decode};

fn has_vectors() -> bool {
    ["avx512f", "avx512bw", "avx512vnni", "avx512bf16"].iter().all(|f| match *f {
        "avx512f" => is_x86_feature_detected!("avx512f"),
        "avx512bw" => is_x86_feature_detected!("avx512bw"),
        "avx512vnni" => is_x86_feature_detected!("avx512vnni"),
        _ => is_x86_feature_detected!("avx512bf16"),
    })
}

fn packed_panel(ty: BlockType, k: usize, rng: &mut Lcg) -> (PanelLayout, Vec<u8>) {
    let rows: Vec<Vec<u8>> = (0..PANEL_ROWS).map(|_| random_row(ty, k, rng)).collect();
    let views: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
    let layout = PanelLayout::of(ty).unwrap();
    let mut packed = vec![0; layout.panel_bytes(k)];
    pack_panel(&layout, k, &views, &mut packed);
    (layout, packed)
}

/// Largest difference, relative to the largest number of the row.
fn worst(want: &[[f32; PANEL_ROWS]], got: &[[f32; PANEL_ROWS]]) -> f32 {
    let rows = want.iter().zip(got).map(|(want, got)| {
        let size = want.iter().fold(1e-3f32, |a, v| a.max(v.abs()));
        let differences = want.iter().zip(got).map(|(w, g)| (w - g).abs() / size);
        differences.fold(0.0, |a: f32, d| if d > a || d.is_nan() { d } else { a })
    });
    rows.fold(0.0, |a: f32, d| if d > a || d.is_nan() { d } else { a })
}

/// All formats; blocks of 16 rows, tails of every kind, k of one, odd and many tiles.
#[test]
fn tiles_of_bytes_equal_the_reference() {
    if !has_vectors() {
        return;
    }
    emulator::switch_on();
    let mut rng = Lcg(11);
    for ty in quantized() {
        for (n_blocks, n_rows) in [(1, 9), (1, 16), (3, 17), (2, 40), (5, 31)] {
            let k = ty.block_len() * n_blocks;
            let (layout, packed) = packed_panel(ty, k, &mut rng);
            let (_, a) = activations(n_rows, k, &mut rng);
            let (mut want, mut got) = (vec![[0.0; PANEL_ROWS]; n_rows], vec![[f32::NAN; PANEL_ROWS]; n_rows]);
            scalar::panel(&layout, &packed, &a, &mut want);
            // SAFETY: the vectors are there, and the emulator or the CPU runs the tiles.
            unsafe { super::panel(&layout, &packed, &a, &mut got) };
            // Sums of k / 16 terms in another order.
            assert!(worst(&want, &got) <= 3e-5, "{ty:?} k {k} rows {n_rows}: {}", worst(&want, &got));
        }
    }
    super::release();
}

#[test]
fn tiles_of_bf16_equal_the_reference() {
    if !has_vectors() {
        return;
    }
    emulator::switch_on();
    let mut rng = Lcg(12);
    for ty in quantized() {
        for (n_blocks, n_rows) in [(1, 1), (3, 16), (17, 65), (2, 83), (4, 128)] {
            let k = ty.block_len() * n_blocks;
            let (layout, packed) = packed_panel(ty, k, &mut rng);
            let mut a = Bf16Activations::default();
            // A larger size before: what is left of it must not be read.
            a.resize(n_rows + 20, k);
            a.tiles.fill(0x7fc0);
            a.resize(n_rows, k);
            let plain = Kernels::of(Isa::Avx512).unwrap();
            let x: Vec<f32> = (0..n_rows * k).map(|_| rng.unit() * 3.0).collect();
            for (x, tiles) in x.chunks(16 * k).zip(a.tiles.chunks_mut(16 * k)) {
                plain.bf16_rows(x, k, tiles);
            }
            let tiles = a.tiles.clone();
            x.chunks_exact(k).enumerate().for_each(|(m, x)| a.fill_row(m, x));
            assert!(a.tiles == tiles, "rows are rounded and laid out alike");
            let (mut want, mut got) = (vec![[0.0; PANEL_ROWS]; n_rows], vec![[f32::NAN; PANEL_ROWS]; n_rows]);
            scalar::panel_bf16(&layout, &packed, &a, 0, &mut want);
            // In two pieces, as a layer would that keeps its rows in a cache.
            let at = if n_rows > 48 { 48 } else { 0 };
            let (first, second) = got.split_at_mut(at);
            // SAFETY: the vectors are there, and the emulator or the CPU runs the tiles.
            unsafe {
                super::panel_bf16(&layout, &packed, &a, 0, first);
                super::panel_bf16(&layout, &packed, &a, at, second);
            }
            // A weight next to the middle of two bf16 may fall to either side: 2^-8 of a few among k terms.
            assert!(worst(&want, &got) <= 2e-3, "{ty:?} k {k} rows {n_rows}: {}", worst(&want, &got));
        }
    }
    super::release();
}

/// The check that decides whether the unit is believed says yes to a right one.
#[test]
fn the_self_check_passes_on_a_right_unit() {
    if has_vectors() {
        emulator::switch_on();
        // SAFETY: the vectors are there, and the emulator or the CPU runs the tiles.
        assert!(unsafe { super::computes_rightly() });
    }
}

/// Encodings as GNU's disassembler reads them, so that the model does not merely agree with itself.
#[test]
fn instructions_decode_as_the_disassembler_says() {
    let register = |n: usize| 0x1000 * (n + 1);
    let cases: [(&[u8], Op); 8] = [
        // ldtilecfg [rax]; tilerelease; tilezero tmm3
        (&[0xc4, 0xe2, 0x78, 0x49, 0x00, 0x90], Op::Configure { at: 0x1000 }),
        (&[0xc4, 0xe2, 0x78, 0x49, 0xc0, 0x90], Op::Release),
        (&[0xc4, 0xe2, 0x7b, 0x49, 0xd8, 0x90], Op::Zero(3)),
        // tileloadd tmm6, [rdx + rdi*1]
        (&[0xc4, 0xe2, 0x7b, 0x4b, 0x34, 0x3a], Op::Load { tile: 6, at: 0x3000, stride: 0x8000 }),
        // tileloadd tmm5, [r9 + r10*1 + 0x400]
        (
            &[0xc4, 0x82, 0x7b, 0x4b, 0xac, 0x11, 0x00, 0x04, 0x00, 0x00],
            Op::Load { tile: 5, at: 0xa400, stride: 0xb000 },
        ),
        // tilestored [rcx + rdi*1 + 0x60], tmm2
        (&[0xc4, 0xe2, 0x7a, 0x4b, 0x54, 0x39, 0x60], Op::Store { tile: 2, at: 0x2060, stride: 0x8000 }),
        // tdpbsud tmm1, tmm5, tmm7
        (&[0xc4, 0xe2, 0x42, 0x5e, 0xcd, 0x90], Op::DotBytes { sum: 1, a: 5, b: 7, signed: (true, false) }),
        // tdpbf16ps tmm2, tmm5, tmm4
        (&[0xc4, 0xe2, 0x5a, 0x5c, 0xd5, 0x90], Op::DotBf16 { sum: 2, a: 5, b: 4 }),
    ];
    for (code, want) in cases {
        assert_eq!(decode(code, register).map(|(op, _)| op), Some(want), "{code:02x?}");
    }
    // vpdpbusd xmm0, xmm1, xmm2 is not of the unit.
    assert_eq!(decode(&[0xc4, 0xe2, 0x71, 0x50, 0xc2, 0x90], register), None);
}
