//! Layers of every packing and ending against plain sums.

use super::*;
use crate::kernels::blocks::dequantize;
use crate::kernels::dispatch::Isa;
use crate::kernels::kv::Heads;
use crate::kernels::rows::quantize_rows;

const K: usize = 288; // more than one run of floats, and not a multiple of it

/// Numbers between -1 and 1 that follow no pattern.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Rows of noise in a format, as the file has them.
fn encoded(ty: BlockType, n_rows: usize, seed: u32) -> Vec<u8> {
    let x = noise(n_rows * K, seed);
    match ty {
        BlockType::F32 => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        BlockType::BF16 => x.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect(),
        BlockType::F16 => {
            let mut out = vec![0; 2 * x.len()];
            crate::kernels::halves::narrow(&x, &mut out);
            out
        }
        // Scale 2^-7, codes of every value.
        BlockType::Q8_0 => {
            let block = |x: &[f32]| {
                let codes = x.iter().map(|v| ((v * 127.0) as i8).cast_unsigned());
                [0x00, 0x20].into_iter().chain(codes).collect::<Vec<u8>>()
            };
            x.chunks(32).flat_map(block).collect()
        }
        _ => unreachable!("not a format of these tests"),
    }
}

/// Packs `bytes` at the end of `arena` and says where.
fn part(ty: BlockType, bytes: &[u8], n_rows: usize, column: usize, arena: &mut Vec<u8>) -> Part {
    let packing = Packing::of(ty);
    let (offset, stride) = (arena.len(), packing.panel_bytes(K));
    for rows in bytes.chunks(bytes.len() / n_rows * PANEL_ROWS) {
        let views: Vec<&[u8]> = rows.chunks(bytes.len() / n_rows).collect();
        let start = arena.len();
        arena.resize(start + stride, 0xff);
        packing.pack_panel(K, &views, &mut arena[start..]);
    }
    Part { packing, offset, stride, n_rows, column, bias: noise(n_rows, 7) }
}

fn teams() -> impl Iterator<Item = Team> {
    Isa::ALL.into_iter().filter_map(Kernels::of).map(|kernels| {
        let mut team = Team::new(2, kernels).unwrap();
        team.reserve(12, &Heads { n_head: 1, n_head_kv: 1, head_dim: 2 });
        team
    })
}

/// What the layer is to find, summed in f64 over what the kernels read.
fn sums(w: &[f32], bias: &[f32], x: &[f32]) -> Vec<f64> {
    x.chunks(K)
        .flat_map(|x| {
            w.chunks(K).zip(bias).map(move |(w, b)| {
                w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>() + f64::from(*b)
            })
        })
        .collect()
}

#[test]
fn parts_of_every_packing_stand_side_by_side() {
    let n_rows = [19, 16, 5, 33];
    let types = [BlockType::F16, BlockType::Q8_0, BlockType::BF16, BlockType::F32];
    let width: usize = n_rows.iter().sum();
    for mut team in teams() {
        let (mut arena, mut parts, mut weights, mut column) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (ty, n) in types.into_iter().zip(n_rows) {
            let bytes = encoded(ty, n, n as u32);
            parts.push(part(ty, &bytes, n, column, &mut arena));
            let mut w = vec![0.0; n * K];
            dequantize(ty, &bytes, &mut w);
            weights.push(w);
            column += n;
        }
        let layer = Linear { k: K, parts };
        for m in [1, 3, 12] {
            let x = noise(m * K, 99);
            let mut codes = Activations::default();
            quantize_rows(&team, &x, m, K, &mut codes);
            let mut out = vec![10.0; m * width];
            let input = Input { floats: &x, codes: &codes, n_rows: m };
            linear(&mut team, &layer, &arena, &input, &mut out, width, Store::Add { scale: 0.5 });
            for (part, w) in layer.parts.iter().zip(&weights) {
                let want = sums(w, &part.bias, &x);
                for (i, want) in want.iter().enumerate() {
                    let got = out[i / part.n_rows * width + part.column + i % part.n_rows];
                    // 288 products of two bytes' rounding where codes are read, and of f32 rounding elsewhere.
                    let tolerance = if matches!(part.packing, Packing::Codes(_)) { 0.05 } else { 1e-4 };
                    let want = 10.0 + 0.5 * want;
                    assert!(
                        (f64::from(got) - want).abs() < tolerance,
                        "{:?}: {got} not {want}",
                        part.packing
                    );
                }
            }
        }
        for row in [0, 15, 16, 18] {
            let mut out = vec![0.0; K];
            layer.parts[0].unpack_row(&arena, row, &mut out);
            assert_eq!(out, weights[0][row * K..(row + 1) * K]);
        }
        let mut out = vec![0.0; K];
        layer.parts[1].unpack_row(&arena, 13, &mut out);
        assert_eq!(out, weights[1][13 * K..14 * K]);
    }
}

#[test]
fn gates_take_the_rows_of_both_matrices() {
    for mut team in teams() {
        let mut arena = Vec::new();
        let [gate, up] = [(BlockType::F32, 3), (BlockType::F16, 4)].map(|(ty, seed)| {
            let bytes = encoded(ty, 21, seed);
            let mut w = vec![0.0; 21 * K];
            dequantize(ty, &bytes, &mut w);
            (part(ty, &bytes, 21, 0, &mut arena), w)
        });
        let x = noise(5 * K, 5).iter().map(|x| x * 0.2).collect::<Vec<f32>>();
        let (gates, ups) = (sums(&gate.1, &gate.0.bias, &x), sums(&up.1, &up.0.bias, &x));
        let layer = Linear { k: K, parts: vec![gate.0, up.0] };
        assert!(!layer.reads_codes());
        let input = Input { floats: &x, codes: &Activations::default(), n_rows: 5 };
        let mut out = vec![f32::NAN; 5 * 21];
        linear(&mut team, &layer, &arena, &input, &mut out, 21, Store::Gated(Gate::Silu));
        for ((got, gate), up) in out.iter().zip(gates).zip(ups) {
            let want = gate / (1.0 + (-gate).exp()) * up;
            assert!((f64::from(*got) - want).abs() < 1e-3, "{got} is not {want}");
        }
    }
}
