//! The reference: what every faster kernel must equal. Never optimised.

use super::activations::{Activations, Bf16Activations};
use super::blocks::{BlockType, f16_to_f32};
use super::dispatch::Isa;
use super::halves::{bf16_to_f32, f32_to_bf16};
use super::pack::{PANEL_ROWS, PanelLayout, TILE_K, TILES_PER_SUPER};
use super::reached::{self, Path};

/// The code of row `r`, weight `k` (0..32) in a tile's planes.
pub fn code_at(ty: BlockType, planes: &[u8], r: usize, k: usize) -> u8 {
    let (g, byte) = (k / 4, r * 4 + k % 4);
    let nibble = || planes[g % 4 * 64 + byte] >> (g / 4 * 4) & 15;
    let pair = |at: usize| planes[at + g / 4 * 64 + byte] >> (g % 4 * 2) & 3;
    let bit = |at: usize| planes[at + byte] >> g & 1;
    match ty {
        BlockType::Q8_0 => planes[g * 64 + byte],
        BlockType::Q2K => pair(0),
        BlockType::Q3K => pair(0) | bit(128) << 2,
        BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q5K => nibble() | bit(256) << 4,
        BlockType::Q6K => nibble() | pair(256) << 4,
        _ => nibble(),
    }
}

fn half_at(bytes: &[u8], r: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([bytes[2 * r], bytes[2 * r + 1]]))
}

/// Scale and minimum of row `r` for half `h` (16 weights) of a tile; `supers` are the super-block's own scales.
fn scale_and_min(ty: BlockType, scales: &[u8], supers: &[u8], r: usize, h: usize) -> (f32, f32) {
    match ty {
        BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => (half_at(scales, r), 0.0),
        BlockType::Q4_1 | BlockType::Q5_1 => (half_at(scales, r), half_at(&scales[32..], r)),
        BlockType::Q4K | BlockType::Q5K => (
            half_at(supers, r) * f32::from(scales[r]),
            -half_at(&supers[32..], r) * f32::from(scales[16 + r]),
        ),
        BlockType::Q6K | BlockType::Q3K => {
            (half_at(supers, r) * f32::from(scales[16 * h + r].cast_signed()), 0.0)
        }
        BlockType::Q2K => {
            let both = scales[16 * h + r];
            (half_at(supers, r) * f32::from(both & 15), -half_at(&supers[32..], r) * f32::from(both >> 4))
        }
        BlockType::F32 | BlockType::F16 | BlockType::BF16 => (0.0, 0.0),
    }
}

/// One panel times all activation rows: `out[m][r] = sum over k of w[r][k] * a[m][k]`.
pub fn panel(layout: &PanelLayout, panel: &[u8], a: &Activations, out: &mut [[f32; PANEL_ROWS]]) {
    let ty = layout.ty;
    reached::mark(Isa::Scalar, ty, if a.n_rows == 1 { Path::FewRows } else { Path::ManyRows });
    let zero = f32::from(ty.zero_point());
    let n_tiles = a.k / TILE_K;
    let super_stride = TILES_PER_SUPER * layout.tile_bytes + layout.super_bytes;
    for (m, out) in out.iter_mut().enumerate().take(a.n_rows) {
        let (codes, scales, sums) = a.row(m);
        *out = [0.0; PANEL_ROWS];
        for t in 0..n_tiles {
            let at = t / TILES_PER_SUPER * super_stride + t % TILES_PER_SUPER * layout.tile_bytes;
            let (planes, tile_scales) = panel[at..at + layout.tile_bytes].split_at(layout.plane_bytes);
            let supers_at = t / TILES_PER_SUPER * super_stride + TILES_PER_SUPER * layout.tile_bytes;
            let supers =
                if layout.super_bytes > 0 { &panel[supers_at..supers_at + layout.super_bytes] } else { &[] };
            for (r, sum) in out.iter_mut().enumerate() {
                for h in 0..2 {
                    let dot: i32 = (16 * h..16 * h + 16)
                        .map(|k| i32::from(code_at(ty, planes, r, k)) * i32::from(codes[t * TILE_K + k]))
                        .sum();
                    let (scale, min) = scale_and_min(ty, tile_scales, supers, r, h);
                    let a_sum = sums[2 * t + h];
                    *sum += scale * (scales[t] * dot as f32 - zero * a_sum) + min * a_sum;
                }
            }
        }
    }
}

/// Row `r` of a packed panel over `out.len()` weights, dequantized.
pub fn unpack_row(layout: &PanelLayout, panel: &[u8], r: usize, out: &mut [f32]) {
    let ty = layout.ty;
    let zero = f32::from(ty.zero_point());
    let super_stride = TILES_PER_SUPER * layout.tile_bytes + layout.super_bytes;
    for (t, out) in out.chunks_exact_mut(TILE_K).enumerate() {
        let run = t / TILES_PER_SUPER * super_stride;
        let at = run + t % TILES_PER_SUPER * layout.tile_bytes;
        let (planes, tile_scales) = panel[at..at + layout.tile_bytes].split_at(layout.plane_bytes);
        let supers_at = run + TILES_PER_SUPER * layout.tile_bytes;
        let supers =
            if layout.super_bytes > 0 { &panel[supers_at..supers_at + layout.super_bytes] } else { &[] };
        for (h, out) in out.chunks_exact_mut(TILE_K / 2).enumerate() {
            let (scale, min) = scale_and_min(ty, tile_scales, supers, r, h);
            for (k, out) in out.iter_mut().enumerate() {
                *out = scale * (f32::from(code_at(ty, planes, r, TILE_K / 2 * h + k)) - zero) + min;
            }
        }
    }
}

/// Two panels of one layout at a time.
pub fn panel_pair(
    layout: &PanelLayout,
    panels: [&[u8]; 2],
    a: &Activations,
    out: [&mut [[f32; PANEL_ROWS]]; 2],
) {
    for (bytes, out) in panels.into_iter().zip(out) {
        panel(layout, bytes, a, out);
    }
}

/// The same with weights rounded to bf16 and the rows of bf16 from `first_row` on, as many as `out` has:
/// `out[m][r] = sum over k of bf16(w[r][k]) * a[first_row + m][k]`.
pub fn panel_bf16(
    layout: &PanelLayout,
    panel: &[u8],
    a: &Bf16Activations,
    first_row: usize,
    out: &mut [[f32; PANEL_ROWS]],
) {
    let ty = layout.ty;
    let super_stride = TILES_PER_SUPER * layout.tile_bytes + layout.super_bytes;
    out.fill([0.0; PANEL_ROWS]);
    for t in 0..a.k / TILE_K {
        let at = t / TILES_PER_SUPER * super_stride + t % TILES_PER_SUPER * layout.tile_bytes;
        let (planes, tile_scales) = panel[at..at + layout.tile_bytes].split_at(layout.plane_bytes);
        let supers_at = t / TILES_PER_SUPER * super_stride + TILES_PER_SUPER * layout.tile_bytes;
        let supers =
            if layout.super_bytes > 0 { &panel[supers_at..supers_at + layout.super_bytes] } else { &[] };
        for r in 0..PANEL_ROWS {
            for k in 0..TILE_K {
                let (scale, min) = scale_and_min(ty, tile_scales, supers, r, k / 16);
                let code = f32::from(code_at(ty, planes, r, k)) - f32::from(ty.zero_point());
                let weight = bf16_to_f32(f32_to_bf16(scale * code + min));
                for (m, out) in out.iter_mut().enumerate() {
                    out[r] += weight * bf16_to_f32(a.tiles[a.offset(first_row + m, t) + k]);
                }
            }
        }
    }
}
