//! The packed form of a quantized weight matrix: 16 output rows side by side, so that one 64-byte line holds four
//! consecutive codes of each row and a byte dot product needs no horizontal sum.
//!
//! A *panel* is 16 rows over the whole of k; panels follow one another, so a thread streams one contiguous range. A
//! panel is a run of *tiles* of 16 rows x 32 k. In a tile, `line g` means k = 4g..4g+4, byte `4 r + i` of it belongs to
//! row `r` and k = 4g + i. Codes are cut into bit planes:
//!
//! ```text
//! P8  512 B   line 0 .. line 7
//! P4  256 B   4 lines: low nibbles are line g, high nibbles line g + 4 (g = 0..4)
//! P2  128 B   2 lines: bits 2j..2j+2 of line h are line 4h + j (j = 0..4)
//! P1   64 B   1 line:  bit g is line g
//! ```
//!
//! `Q4` = P4, `Q5` = P4 P1, `Q6` = P4 P2, `Q8` = P8, `Q2` = P2, `Q3` = P2 P1 (first plane low). Scales follow the planes:
//!
//! ```text
//! Q4_0 Q5_0 Q8_0   per tile: d f16[16]
//! Q4_1 Q5_1        per tile: d f16[16], m f16[16]
//! Q4_K Q5_K        per tile: sc u8[16], mn u8[16];           after 8 tiles: d f16[16], dmin f16[16]
//! Q6_K Q3_K        per tile: sc i8[16] of k 0..16, of 16..32; after 8 tiles: d f16[16]
//! Q2_K             per tile: (sc | mn << 4) u8[16], twice;    after 8 tiles: d f16[16], dmin f16[16]
//! ```
//!
//! The lines are at once what `vpdpbusd` (x86), `sdot` by lane (NEON, quarter lines) and an AMX B tile (16 lines) read.
//! Rows are padded to 16 with zero scales. Size: the file's, plus 2.8% for `Q4_K`, 2.3% for `Q5_K`, 3.6% for `Q3_K`.

use super::blocks::{BlockType, Codes, read_codes};

/// Rows side by side in a panel.
pub const PANEL_ROWS: usize = 16;
/// Weights of a row in a tile.
pub const TILE_K: usize = 32;
/// Tiles that share the second-level scales of a K type.
pub const TILES_PER_SUPER: usize = 8;

/// Where things lie inside a packed panel of one format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PanelLayout {
    /// The format the panel was packed from.
    pub ty: BlockType,
    /// Bytes of the code planes of one tile.
    pub plane_bytes: usize,
    /// Bytes of one tile: planes and its own scales.
    pub tile_bytes: usize,
    /// Bytes after every [`TILES_PER_SUPER`] tiles; 0 for formats whose tiles hold all.
    pub super_bytes: usize,
}

impl PanelLayout {
    /// The layout for a quantized format; `None` for plain floats.
    pub const fn of(ty: BlockType) -> Option<Self> {
        let (plane_bytes, scale_bytes, super_bytes) = match ty {
            BlockType::Q4_0 => (256, 32, 0),
            BlockType::Q4_1 => (256, 64, 0),
            BlockType::Q5_0 => (320, 32, 0),
            BlockType::Q5_1 => (320, 64, 0),
            BlockType::Q8_0 => (512, 32, 0),
            BlockType::Q2K => (128, 32, 64),
            BlockType::Q3K => (192, 32, 32),
            BlockType::Q4K => (256, 32, 64),
            BlockType::Q5K => (320, 32, 64),
            BlockType::Q6K => (384, 32, 32),
            BlockType::F32 | BlockType::F16 | BlockType::BF16 => return None,
        };
        Some(Self { ty, plane_bytes, tile_bytes: plane_bytes + scale_bytes, super_bytes })
    }

    /// Bytes of a panel over `k` weights; `k` is a multiple of the format's block length.
    pub const fn panel_bytes(&self, k: usize) -> usize {
        let tiles = k / TILE_K;
        tiles * self.tile_bytes + tiles / TILES_PER_SUPER * self.super_bytes
    }

    /// Bytes of `n_rows` rows over `k` weights, padded to whole panels.
    pub const fn matrix_bytes(&self, n_rows: usize, k: usize) -> usize {
        n_rows.div_ceil(PANEL_ROWS) * self.panel_bytes(k)
    }
}

/// Packs up to 16 rows into one panel.
///
/// `rows[r]` is the GGUF encoding of row `r` over `k` weights; missing rows become zeros.
///
/// # Panics
/// If `out` is not exactly one panel, a row has not `k` weights, or more than 16 rows are given.
pub fn pack_panel(layout: &PanelLayout, k: usize, rows: &[&[u8]], out: &mut [u8]) {
    let ty = layout.ty;
    assert!(rows.len() <= PANEL_ROWS && out.len() == layout.panel_bytes(k));
    assert!(rows.iter().all(|r| Some(r.len()) == ty.row_bytes(k)), "rows of {k} weights in {ty:?}");
    out.fill(0);
    let block_len = ty.block_len();
    let tiles_per_block = block_len / TILE_K;
    let block_out_bytes =
        tiles_per_block * layout.tile_bytes + if block_len == 256 { layout.super_bytes } else { 0 };
    let mut codes = Codes::default();
    for (r, row) in rows.iter().enumerate() {
        let blocks = row.chunks_exact(ty.block_bytes()).zip(out.chunks_exact_mut(block_out_bytes));
        for (block, out) in blocks {
            read_codes(ty, block, &mut codes);
            for t in 0..tiles_per_block {
                let tile = &mut out[t * layout.tile_bytes..(t + 1) * layout.tile_bytes];
                let (planes, scales) = tile.split_at_mut(layout.plane_bytes);
                pack_planes(ty, r, &codes.codes[t * TILE_K..(t + 1) * TILE_K], planes);
                pack_tile_scales(ty, r, t, &codes, block, scales);
            }
            if layout.super_bytes > 0 {
                pack_super_scales(ty, r, block, &mut out[tiles_per_block * layout.tile_bytes..]);
            }
        }
    }
}

/// Puts the 32 codes of row `r` into a tile's planes, four codes at a time.
fn pack_planes(ty: BlockType, r: usize, codes: &[u8], planes: &mut [u8]) {
    let words: [u32; 8] = std::array::from_fn(|g| {
        let quad = codes[4 * g..].first_chunk::<4>();
        quad.map_or(0, |quad| u32::from_le_bytes(*quad))
    });
    let mut line = |number: usize, word: u32| {
        planes[64 * number + 4 * r..][..4].copy_from_slice(&word.to_le_bytes());
    };
    // `n` bits of every code, from bit `from` on, of the words `first..first + 8 / n`, side by side.
    let plane = |first: usize, n: usize, from: usize| -> u32 {
        let mask = 0x0101_0101 * ((1 << n) - 1);
        (0..8 / n).fold(0, |line, i| line | (words[first + i] >> from & mask) << (n * i))
    };
    match ty {
        BlockType::Q8_0 => words.into_iter().enumerate().for_each(|(g, word)| line(g, word)),
        BlockType::Q2K | BlockType::Q3K => {
            line(0, plane(0, 2, 0));
            line(1, plane(4, 2, 0));
            if ty == BlockType::Q3K {
                line(2, plane(0, 1, 2));
            }
        }
        _ => {
            for g in 0..4 {
                line(g, words[g] & 0x0f0f_0f0f | (words[g + 4] & 0x0f0f_0f0f) << 4);
            }
            match ty {
                BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q5K => line(4, plane(0, 1, 4)),
                BlockType::Q6K => {
                    line(4, plane(0, 2, 4));
                    line(5, plane(4, 2, 4));
                }
                _ => {}
            }
        }
    }
}

/// Puts the scales that row `r` has in tile `t` of its block.
fn pack_tile_scales(ty: BlockType, r: usize, t: usize, codes: &Codes, block: &[u8], scales: &mut [u8]) {
    match ty {
        BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => {
            scales[2 * r..2 * r + 2].copy_from_slice(&block[0..2]);
        }
        BlockType::Q4_1 | BlockType::Q5_1 => {
            scales[2 * r..2 * r + 2].copy_from_slice(&block[0..2]);
            scales[32 + 2 * r..34 + 2 * r].copy_from_slice(&block[2..4]);
        }
        BlockType::Q4K | BlockType::Q5K => {
            scales[r] = codes.scales[t].cast_unsigned();
            scales[16 + r] = codes.mins[t];
        }
        BlockType::Q6K | BlockType::Q3K => {
            scales[r] = codes.scales[2 * t].cast_unsigned();
            scales[16 + r] = codes.scales[2 * t + 1].cast_unsigned();
        }
        BlockType::Q2K => {
            let both = |g: usize| codes.scales[g].cast_unsigned() | codes.mins[g] << 4;
            scales[r] = both(2 * t);
            scales[16 + r] = both(2 * t + 1);
        }
        BlockType::F32 | BlockType::F16 | BlockType::BF16 => {}
    }
}

/// Puts the block's own f16 scales of row `r`.
fn pack_super_scales(ty: BlockType, r: usize, block: &[u8], out: &mut [u8]) {
    let (d_at, dmin_at) = match ty {
        BlockType::Q4K | BlockType::Q5K => (0, Some(2)),
        BlockType::Q2K => (80, Some(82)),
        BlockType::Q3K => (108, None),
        BlockType::Q6K => (208, None),
        _ => return,
    };
    out[2 * r..2 * r + 2].copy_from_slice(&block[d_at..d_at + 2]);
    if let Some(at) = dmin_at {
        out[32 + 2 * r..34 + 2 * r].copy_from_slice(&block[at..at + 2]);
    }
}
