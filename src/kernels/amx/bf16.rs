//! Prefill: weights and activations as bf16, sums in float. A tile product holds 32 k of 16 rows and needs no scale
//! folded in, so the tile unit is never waited for; that bf16 keeps 8 bits of a weight errs less than activations of
//! 8 bits do.
//!
//! ```text
//! activations  tiles of 16 rows x 32 k, one KiB each, [row tile][k tile]
//! weights      tiles of 16 pairs of k x 16 columns x 2, made from a packed panel 512 k at a time
//! ```

use std::arch::x86_64::{
    __m512, __m512i, _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_cvtne2ps_pbh, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_permutexvar_epi16, _mm512_set1_epi32, _mm512_srli_epi32,
    _mm512_storeu_si512,
};
use std::mem::transmute;

use super::super::activations::Bf16Activations;
use super::super::avx512::planes::{Expanded, Family, expand};
use super::super::pack::{PANEL_ROWS, TILE_K, TILES_PER_SUPER};
use super::tiles::{self, Shape, TILE_ROWS};

/// Numbers in a tile.
const TILE_LEN: usize = 512;
/// Tiles of 32 k that are made and used at a time: 16 KiB of weights, a third of the first-level cache.
const CHUNK_TILES: usize = 2 * TILES_PER_SUPER;
/// Row tiles that share the loading of a weight tile.
const ROW_TILES: usize = 4;

/// Weights of a chunk as bf16 tiles.
#[repr(C, align(64))]
struct WeightTiles([[u16; TILE_LEN]; CHUNK_TILES]);

/// Interleaves two vectors of 16 that `cvtne2ps_pbh` leaves one after the other.
static INTERLEAVE: [u16; 32] = {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 16 {
        order[2 * i] = i as u16;
        order[2 * i + 1] = 16 + i as u16;
        i += 1;
    }
    order
};

/// Bytes `2 p` and `2 p + 1` of every lane (k `4 g + 2 p` and the next, of 16 columns) as 32 bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[inline]
fn pair<const P: u32>(codes: __m512i, scale: __m512, offset: __m512, order: __m512i) -> __m512i {
    let byte = _mm512_set1_epi32(0xff);
    let (low, high) = if P == 0 {
        (codes, _mm512_srli_epi32::<8>(codes))
    } else {
        (_mm512_srli_epi32::<16>(codes), _mm512_srli_epi32::<24>(codes))
    };
    let low = _mm512_cvtepi32_ps(_mm512_and_si512(low, byte));
    let high = _mm512_cvtepi32_ps(_mm512_and_si512(high, byte));
    let (low, high) = (_mm512_fmadd_ps(low, scale, offset), _mm512_fmadd_ps(high, scale, offset));
    // SAFETY: both are 512 bits without invalid values.
    let both = unsafe { transmute::<std::arch::x86_64::__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) };
    _mm512_permutexvar_epi16(order, both)
}

/// `n` expanded tiles as bf16 tiles of weights, from tile `t0` of the chunk on.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn widen<F: Family>(w: &Expanded, n: usize, out: &mut [[u16; TILE_LEN]]) {
    // SAFETY: 32 numbers of 16 bits.
    let order = unsafe { _mm512_loadu_si512(INTERLEAVE.as_ptr().cast()) };
    for (t, out) in out.iter_mut().enumerate().take(n) {
        for g in 0..8 {
            let at = 2 * t + if F::HALVES { g / 4 } else { 0 };
            // SAFETY: a line is 64 bytes, scales and minimums are 16 floats; lines 2 g and 2 g + 1 of the tile's 16
            // are 32 numbers each.
            unsafe {
                let scale = _mm512_loadu_ps(w.scales[at].as_ptr());
                let offset = _mm512_loadu_ps(w.offsets[at].as_ptr());
                let codes = _mm512_loadu_si512(w.codes[8 * t + g].as_ptr().cast());
                let to = out.as_mut_ptr().add(64 * g);
                _mm512_storeu_si512(to.cast(), pair::<0>(codes, scale, offset, order));
                _mm512_storeu_si512(to.add(32).cast(), pair::<1>(codes, scale, offset, order));
            }
        }
    }
}

/// Rows of activations from one row tile on.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) all: &'a Bf16Activations,
    pub(super) first_tile: usize,
}

/// Adds `n` tiles of weights, from tile `t0` of the rows on, to the sums of all rows.
///
/// # Safety
/// Tiles are shaped for bf16; `n` is not 0 and the rows hold tiles `t0..t0 + n`.
unsafe fn all_rows(w: &WeightTiles, t0: usize, n: usize, a: Rows<'_>, out: &mut [[f32; PANEL_ROWS]]) {
    let b = w.0.as_ptr().cast::<u16>();
    let n_k = a.all.k / TILE_K;
    let row_tile =
        |i: usize| a.all.tiles[((a.first_tile + i) * n_k + t0) * TILE_LEN..][..n * TILE_LEN].as_ptr();
    let (whole, rest) = out.as_chunks_mut::<TILE_ROWS>();
    let n_whole = whole.len();
    let (fours, ones) = whole.as_chunks_mut::<ROW_TILES>();
    let n_fours = fours.len() * ROW_TILES;
    // SAFETY: every row tile was sliced to n tiles; `b` has CHUNK_TILES of at least n; sums are 64 or 16 rows of 16.
    unsafe {
        for (i, c) in fours.iter_mut().enumerate() {
            let rows = [0, 1, 2, 3].map(|j| row_tile(ROW_TILES * i + j));
            tiles::multiply_64(rows, b, n, c.as_mut_ptr().cast());
        }
        for (i, c) in ones.iter_mut().enumerate() {
            tiles::multiply_16(row_tile(n_fours + i), b, n, c.as_mut_ptr().cast());
        }
        if !rest.is_empty() {
            let mut c = [[0.0; PANEL_ROWS]; TILE_ROWS];
            c[..rest.len()].copy_from_slice(rest);
            tiles::multiply_16(row_tile(n_whole), b, n, c.as_mut_ptr().cast());
            rest.copy_from_slice(&c[..rest.len()]);
        }
    }
}

/// One panel times as many rows as `out` has.
///
/// # Safety
/// AMX may be used; `panel` is a packed panel of the family over as many weights as the rows have.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn family_panel<F: Family>(
    panel: *const u8,
    super_bytes: usize,
    a: Rows<'_>,
    out: &mut [[f32; PANEL_ROWS]],
) {
    let n_tiles = a.all.k / TILE_K;
    let mut expanded = Expanded::new();
    let mut w = WeightTiles([[0; TILE_LEN]; CHUNK_TILES]);
    out.fill([0.0; PANEL_ROWS]);
    // SAFETY: AMX may be used by contract.
    unsafe { tiles::configure(Shape::Bf16) };
    for t0 in (0..n_tiles).step_by(CHUNK_TILES) {
        let n_chunk = CHUNK_TILES.min(n_tiles - t0);
        for run in (0..n_chunk).step_by(TILES_PER_SUPER) {
            let n = TILES_PER_SUPER.min(n_chunk - run);
            let at = (t0 + run) * F::TILE_BYTES + (t0 + run) / TILES_PER_SUPER * super_bytes;
            // SAFETY: `at` is the start of that run in the panel; super-block families have whole runs of eight.
            unsafe { expand::<F>(panel.add(at), n, &mut expanded) };
            widen::<F>(&expanded, n, &mut w.0[run..]);
        }
        // SAFETY: tiles are shaped just above; the rows hold all n_tiles tiles.
        unsafe { all_rows(&w, t0, n_chunk, a, out) };
    }
}
