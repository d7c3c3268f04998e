//! A run of packed tiles with codes expanded to bytes and scales multiplied out, ready to meet many activation rows.
//!
//! The bodies are plain loops that become vector code where they are inlined (see [`super::lanes`]).

use super::blocks::BlockType;
use super::pack::{PANEL_ROWS, PanelLayout, TILES_PER_SUPER};

/// Up to eight tiles of 16 rows x 32 weights.
#[repr(C, align(64))]
pub(super) struct Expanded {
    /// Line `8 t + g`: codes of tile `t`, weights `4 g..4 g + 4` of the 16 rows, signed after the zero point.
    pub(super) codes: [[i8; 64]; 64],
    /// `2 t + h`: scale of the 16 rows for half `h` of tile `t`.
    pub(super) scales: [[f32; PANEL_ROWS]; 16],
    /// The same for minimums.
    pub(super) mins: [[f32; PANEL_ROWS]; 16],
}

impl Expanded {
    /// All zeros.
    pub(super) fn new() -> Self {
        Self { codes: [[0; 64]; 64], scales: [[0.0; PANEL_ROWS]; 16], mins: [[0.0; PANEL_ROWS]; 16] }
    }
}

impl Default for Expanded {
    fn default() -> Self {
        Self::new()
    }
}

/// Where run `run` (eight tiles) of a panel starts.
pub(super) fn run_offset(layout: &PanelLayout, run: usize) -> usize {
    run * (TILES_PER_SUPER * layout.tile_bytes + layout.super_bytes)
}

/// Expands the `n` tiles at the start of `bytes`.
#[inline(always)]
pub(super) fn expand(layout: &PanelLayout, bytes: &[u8], n: usize, out: &mut Expanded) {
    let ty = layout.ty;
    let supers = if layout.super_bytes > 0 {
        let bytes = &bytes[TILES_PER_SUPER * layout.tile_bytes..];
        [halves(bytes), if layout.super_bytes > 32 { halves(&bytes[32..]) } else { [0.0; PANEL_ROWS] }]
    } else {
        [[0.0; PANEL_ROWS]; 2]
    };
    for t in 0..n {
        let tile = &bytes[t * layout.tile_bytes..(t + 1) * layout.tile_bytes];
        let (planes, scales) = tile.split_at(layout.plane_bytes);
        if let Some(lines) = out.codes[8 * t..8 * t + 8].as_mut_array::<8>() {
            expand_lines(ty, planes, lines);
        }
        for h in 0..2 {
            let (s, m) = (&mut out.scales[2 * t + h], &mut out.mins[2 * t + h]);
            expand_scales(ty, scales, &supers, h, s, m);
        }
    }
}

#[inline(always)]
fn expand_lines(ty: BlockType, planes: &[u8], out: &mut [[i8; 64]; 8]) {
    let zero = if ty == BlockType::Q8_0 { 0 } else { ty.zero_point().cast_signed() };
    let plane = |at: usize| -> &[u8; 64] { planes[at..at + 64].try_into().unwrap_or(&[0; 64]) };
    match ty {
        BlockType::Q8_0 => {
            for (g, out) in out.iter_mut().enumerate() {
                let codes = plane(64 * g);
                for i in 0..64 {
                    out[i] = (codes[i] ^ 0x80).cast_signed();
                }
            }
        }
        BlockType::Q2K | BlockType::Q3K => {
            for (g, out) in out.iter_mut().enumerate() {
                let (low, shift) = (plane(g / 4 * 64), g % 4 * 2);
                if ty == BlockType::Q2K {
                    for i in 0..64 {
                        out[i] = (low[i] >> shift & 3).cast_signed();
                    }
                } else {
                    let bits = plane(128);
                    for i in 0..64 {
                        out[i] = (low[i] >> shift & 3 | (bits[i] >> g & 1) << 2).cast_signed() - zero;
                    }
                }
            }
        }
        _ => {
            for (g, out) in out.iter_mut().enumerate() {
                let (low, shift) = (plane(g % 4 * 64), g / 4 * 4);
                match ty {
                    BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q5K => {
                        let bits = plane(256);
                        for i in 0..64 {
                            out[i] = (low[i] >> shift & 15 | (bits[i] >> g & 1) << 4).cast_signed() - zero;
                        }
                    }
                    BlockType::Q6K => {
                        let (pairs, shift2) = (plane(256 + g / 4 * 64), g % 4 * 2);
                        for i in 0..64 {
                            out[i] =
                                (low[i] >> shift & 15 | (pairs[i] >> shift2 & 3) << 4).cast_signed() - zero;
                        }
                    }
                    _ => {
                        for i in 0..64 {
                            out[i] = (low[i] >> shift & 15).cast_signed() - zero;
                        }
                    }
                }
            }
        }
    }
}

/// 16 binary16 numbers as f32, without a branch: it is this loop that few rows wait for.
#[inline(always)]
fn halves(bytes: &[u8]) -> [f32; PANEL_ROWS] {
    // An exponent of 8 bits has a bias 112 larger than one of 5.
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    let mut out = [0.0; PANEL_ROWS];
    let Some(bytes) = bytes.first_chunk::<{ 2 * PANEL_ROWS }>() else { return out };
    for r in 0..PANEL_ROWS {
        let bits = u32::from(u16::from_le_bytes([bytes[2 * r], bytes[2 * r + 1]]));
        let finite = (f32::from_bits((bits & 0x7fff) << 13) * REBIAS).to_bits();
        let magnitude = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 | (bits & 0x3ff) << 13 } else { finite };
        out[r] = f32::from_bits(magnitude | (bits & 0x8000) << 16);
    }
    out
}

/// 16 bytes as floats.
#[inline(always)]
fn small(bytes: &[u8]) -> [f32; PANEL_ROWS] {
    bytes.first_chunk::<PANEL_ROWS>().map_or([0.0; PANEL_ROWS], |bytes| bytes.map(f32::from))
}

/// Scales and minimums of half `h` of a tile, multiplied out.
#[inline(always)]
fn expand_scales(
    ty: BlockType,
    scales: &[u8],
    supers: &[[f32; PANEL_ROWS]; 2],
    h: usize,
    s: &mut [f32; PANEL_ROWS],
    m: &mut [f32; PANEL_ROWS],
) {
    let [d, dmin] = supers;
    *m = [0.0; PANEL_ROWS];
    match ty {
        BlockType::Q4_1 | BlockType::Q5_1 => {
            *s = halves(scales);
            *m = halves(&scales[32..]);
        }
        BlockType::Q4K | BlockType::Q5K => {
            let (scales, mins) = (small(scales), small(&scales[16..]));
            for r in 0..PANEL_ROWS {
                s[r] = d[r] * scales[r];
                m[r] = -dmin[r] * mins[r];
            }
        }
        BlockType::Q6K | BlockType::Q3K => {
            let scales = &scales[16 * h..16 * h + 16];
            for r in 0..PANEL_ROWS {
                s[r] = d[r] * f32::from(scales[r].cast_signed());
            }
        }
        BlockType::Q2K => {
            let both = &scales[16 * h..16 * h + 16];
            for r in 0..PANEL_ROWS {
                s[r] = d[r] * f32::from(both[r] & 15);
                m[r] = -dmin[r] * f32::from(both[r] >> 4);
            }
        }
        _ => *s = halves(scales),
    }
}
