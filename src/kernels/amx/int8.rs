//! Middle batches, 9 rows to some tens: the integer arithmetic of the other classes, 16 rows x 16 columns x 32 k at a time.
//!
//! A tile product costs the same for 32 k as for 64, but 32 is where a scale ends; so each product is folded into float
//! sums at once. That fold, not the tile unit, sets the speed, at about twice that of `vpdpbusd`.

use std::arch::x86_64::{
    __m512, _mm512_cvtepi32_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

use super::super::activations::Activations;
use super::super::avx512::planes::{Expanded, Family, expand};
use super::super::pack::{PANEL_ROWS, TILE_K, TILES_PER_SUPER};
use super::tiles::{self, Shape, TILE_ROWS};

/// k of a run: what is expanded at once.
const RUN_K: usize = TILES_PER_SUPER * TILE_K;

/// 16 rows of activations for one run: pointers with the distance between rows.
#[derive(Clone, Copy)]
struct RowBlock {
    codes: *const i8,
    codes_stride: usize,
    scales: *const f32,
    scales_stride: usize,
    sums: *const f32,
    sums_stride: usize,
}

/// A copy of fewer than 16 rows, filled up with zeros, because a tile always loads 16.
#[repr(C, align(64))]
struct PaddedRows {
    codes: [[i8; RUN_K]; TILE_ROWS],
    scales: [[f32; RUN_K / 32]; TILE_ROWS],
    sums: [[f32; RUN_K / 16]; TILE_ROWS],
}

impl PaddedRows {
    const fn new() -> Self {
        Self {
            codes: [[0; RUN_K]; TILE_ROWS],
            scales: [[0.0; RUN_K / 32]; TILE_ROWS],
            sums: [[0.0; RUN_K / 16]; TILE_ROWS],
        }
    }

    /// Takes the rows of `a` from `first` on, over `n` tiles from tile `t0`.
    fn fill(&mut self, a: &Activations, first: usize, t0: usize, n: usize) -> RowBlock {
        for m in first..a.n_rows {
            let (codes, scales, sums) = a.row(m);
            self.codes[m - first][..n * TILE_K].copy_from_slice(&codes[t0 * TILE_K..(t0 + n) * TILE_K]);
            self.scales[m - first][..n].copy_from_slice(&scales[t0..t0 + n]);
            self.sums[m - first][..2 * n].copy_from_slice(&sums[2 * t0..2 * (t0 + n)]);
        }
        RowBlock {
            codes: self.codes.as_ptr().cast(),
            codes_stride: RUN_K,
            scales: self.scales.as_ptr().cast(),
            scales_stride: RUN_K / 32,
            sums: self.sums.as_ptr().cast(),
            sums_stride: RUN_K / 16,
        }
    }
}

/// Rows `first..first + 16` of `a` where they are, from tile `t0` on.
fn rows_in_place(a: &Activations, first: usize, t0: usize) -> RowBlock {
    let rows = first..first + TILE_ROWS;
    RowBlock {
        codes: a.codes[rows.start * a.k..rows.end * a.k][t0 * TILE_K..].as_ptr(),
        codes_stride: a.k,
        scales: a.scales[rows.start * (a.k / 32)..rows.end * (a.k / 32)][t0..].as_ptr(),
        scales_stride: a.k / 32,
        sums: a.sums[rows.start * (a.k / 16)..rows.end * (a.k / 16)][2 * t0..].as_ptr(),
        sums_stride: a.k / 16,
    }
}

/// Weights of a run as tiles: 8 lines per tile, or per half of a tile with the other half's lines zero.
#[repr(C, align(64))]
struct WeightTiles {
    lines: [[u8; 64]; 16 * 8],
}

impl WeightTiles {
    /// Spreads the halves of `n` tiles; the lines in between stay zero.
    fn spread(&mut self, w: &Expanded, n: usize) {
        for (t, h) in (0..n).flat_map(|t| [(t, 0), (t, 1)]) {
            let from = 8 * t + 4 * h;
            let to = 8 * (2 * t + h) + 4 * h;
            self.lines[to..to + 4].copy_from_slice(&w.codes[from..from + 4]);
        }
    }
}

/// Sums of four products on their way from tiles to floats; two of them, so that one can be written while the other is
/// read.
#[repr(C, align(64))]
struct Sums([[[i32; 16 * TILE_ROWS]; 4]; 2]);

/// Adds the product in `c`, of tile `t` (half `h`) of the run, to the 16 rows' sums.
///
/// # Safety
/// `rows` must hold tile `t`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn fold<F: Family>(
    c: &[i32; 16 * TILE_ROWS],
    w: &Expanded,
    (t, h): (usize, usize),
    rows: &RowBlock,
    acc: &mut [__m512; TILE_ROWS],
) {
    // SAFETY: `c` has 16 rows of 16; scales and minimums are rows of 16; the activations hold tile t by contract.
    unsafe {
        let s = _mm512_loadu_ps(w.scales[2 * t + h].as_ptr());
        let offset = _mm512_loadu_ps(w.offsets[2 * t + h].as_ptr());
        for m in 0..TILE_ROWS {
            let dot = _mm512_cvtepi32_ps(_mm512_loadu_si512(c.as_ptr().add(16 * m).cast()));
            let a_scale = _mm512_set1_ps(*rows.scales.add(m * rows.scales_stride + t));
            let sums = rows.sums.add(m * rows.sums_stride + 2 * t);
            let sum = if F::HALVES { *sums.add(h) } else { *sums + *sums.add(1) };
            acc[m] = _mm512_fmadd_ps(_mm512_mul_ps(s, a_scale), dot, acc[m]);
            if F::OFFSETS {
                acc[m] = _mm512_fmadd_ps(offset, _mm512_set1_ps(sum), acc[m]);
            }
        }
    }
}

/// Adds `n` tiles of weights to the sums of 16 rows.
///
/// # Safety
/// Tiles are shaped for bytes; `rows` holds `n` tiles of 16 rows; families of halves come in whole runs.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn row_block<F: Family>(
    w: &Expanded,
    halves: &WeightTiles,
    n: usize,
    rows: &RowBlock,
    sums: &mut Sums,
    out: &mut [[f32; PANEL_ROWS]; TILE_ROWS],
) {
    // SAFETY: rows of `out` are 16 floats; tiles of activations and weights are there by contract, and products start
    // at tiles below `n`.
    unsafe {
        let mut acc = [_mm512_setzero_ps(); TILE_ROWS];
        for m in 0..TILE_ROWS {
            acc[m] = _mm512_loadu_ps(out[m].as_ptr());
        }
        let n_products = if F::HALVES { 2 * n } else { n };
        for first in (0..n_products / 4 * 4).step_by(4) {
            let c = &mut sums.0[first / 4 % 2];
            if F::HALVES {
                let a = rows.codes.add(first / 2 * TILE_K);
                let b = halves.lines[8 * first..8 * (first + 4)].as_ptr().cast();
                tiles::dot_halves(a, rows.codes_stride, b, c.as_mut_ptr().cast());
            } else {
                let a = rows.codes.add(first * TILE_K);
                let b = w.codes[8 * first..8 * (first + 4)].as_ptr().cast();
                tiles::dot_tiles(a, rows.codes_stride, b, c.as_mut_ptr().cast());
            }
            for i in 0..4 {
                let product = first + i;
                let at = if F::HALVES { (product / 2, product % 2) } else { (product, 0) };
                fold::<F>(&c[i], w, at, rows, &mut acc);
            }
        }
        for t in n_products / 4 * 4..n_products {
            let b = w.codes[8 * t..8 * t + 8].as_ptr().cast();
            let c = &mut sums.0[t % 2][0];
            tiles::dot_tile(rows.codes.add(t * TILE_K), rows.codes_stride, b, c.as_mut_ptr());
            fold::<F>(c, w, (t, 0), rows, &mut acc);
        }
        for m in 0..TILE_ROWS {
            _mm512_storeu_ps(out[m].as_mut_ptr(), acc[m]);
        }
    }
}

/// One panel times all activation rows.
///
/// # Safety
/// AMX may be used; `panel` is a packed panel of the family over `a.k` weights; `out` has a row per activation row.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn family_panel<F: Family>(
    panel: *const u8,
    super_bytes: usize,
    a: &Activations,
    out: &mut [[f32; PANEL_ROWS]],
) {
    let n_tiles = a.k / TILE_K;
    let mut w = Expanded::new();
    let mut halves = WeightTiles { lines: [[0; 64]; 128] };
    let mut sums = Sums([[[0; 16 * TILE_ROWS]; 4]; 2]);
    let (mut padded, mut padded_out) = (PaddedRows::new(), [[0.0; PANEL_ROWS]; TILE_ROWS]);
    out[..a.n_rows].fill([0.0; PANEL_ROWS]);
    // SAFETY: AMX may be used by contract.
    unsafe { tiles::configure(Shape::Bytes) };
    for t0 in (0..n_tiles).step_by(TILES_PER_SUPER) {
        let n = TILES_PER_SUPER.min(n_tiles - t0);
        let at = t0 * F::TILE_BYTES + t0 / TILES_PER_SUPER * super_bytes;
        // SAFETY: `at` is the start of run t0 in the panel; super-block families have whole runs of eight.
        unsafe { expand::<F>(panel.add(at), n, &mut w) };
        if F::HALVES {
            halves.spread(&w, n);
        }
        let (blocks, rest) = out[..a.n_rows].as_chunks_mut::<TILE_ROWS>();
        let n_whole = blocks.len() * TILE_ROWS;
        for (i, out) in blocks.iter_mut().enumerate() {
            let rows = rows_in_place(a, i * TILE_ROWS, t0);
            // SAFETY: 16 rows from i * 16 on are in use and hold the tiles from t0 on.
            unsafe { row_block::<F>(&w, &halves, n, &rows, &mut sums, out) };
        }
        if !rest.is_empty() {
            let rows = padded.fill(a, n_whole, t0, n);
            // SAFETY: `padded` is 16 rows of a run.
            unsafe { row_block::<F>(&w, &halves, n, &rows, &mut sums, &mut padded_out) };
        }
    }
    let rest = &mut out[a.n_rows / TILE_ROWS * TILE_ROWS..a.n_rows];
    let n_rest = rest.len();
    rest.copy_from_slice(&padded_out[..n_rest]);
}
